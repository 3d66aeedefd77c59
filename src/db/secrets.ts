/** The secrets of tokens. Only their SHA-256 is kept. */
import { hash } from 'node:crypto'

import { sha256 } from '../lib/sha256.ts'

/** `chy_`, 256 random bits, and a checksum that tells a torn token from a wrong one and lets scanners find leaks. */
export const newSecret = (random: (octets: number) => Buffer): string => {
  const body = random(32).toString('base64url')
  return `${secretPrefix}${body}${checksum(body)}`
}

export const isSecret = (text: string): boolean => {
  if (text.length !== secretLength || !text.startsWith(secretPrefix)) return false
  const body = text.slice(secretPrefix.length, -checksumLength)
  return checksum(body) === text.slice(-checksumLength)
}

/** What is kept of it. */
export const hashSecret = (secret: string): Buffer => sha256(secret)

const checksum = (body: string): string => hash('sha256', secretPrefix + body, 'base64url').slice(0, checksumLength)

const secretPrefix = 'chy_'
const checksumLength = 6
export const secretLength = secretPrefix.length + 43 + checksumLength
