import { hash } from 'node:crypto'

export const sha256 = (octets: Buffer): Buffer => hash('sha256', octets, 'buffer')
