import { hash } from 'node:crypto'

/** By way of a string: node:crypto takes twice as long for a Buffer (970 instead of 500 ns for 300 octets, measured). */
export const sha256 = (data: Uint8Array | string): Buffer => Buffer.from(hash('sha256', data, 'latin1'), 'latin1')
