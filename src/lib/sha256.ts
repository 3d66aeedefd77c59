/**
 * SHA-256 as octets, at the least cost: a certificate has a dozen. Not for what is kept for long in great number, since a
 * digest keeps its slab; nor for text, which node:crypto's `hash` gives at once.
 */
import { createHash, hash } from 'node:crypto'

import { openSlabs } from './slabs.ts'

/**
 * 32 octets. By way of a string, since node:crypto gives each digest an ArrayBuffer of its own, which costs more than the
 * digest (590 instead of 1,360 ns for 300 octets).
 */
export const sha256 = (data: Uint8Array | string): Buffer => {
  const digest = digests(32)
  digest.write(hash('sha256', data, 'latin1'), 'latin1')
  return digest
}

/** Of the parts as one, which are laid out in the same octets each time. */
export const sha256OfParts = (parts: readonly (Uint8Array | string)[]): Buffer => {
  let length = 0
  for (const part of parts) {
    const octets = typeof part === 'string' ? Buffer.byteLength(part) : part.length
    if (length + octets > scratch.length) return sha256OfMuch(parts)
    if (typeof part === 'string') scratch.write(part, length)
    else scratch.set(part, length)
    length += octets
  }
  return sha256(scratch.subarray(0, length))
}

const sha256OfMuch = (parts: readonly (Uint8Array | string)[]): Buffer => {
  const whole = createHash('sha256')
  for (const part of parts) whole.update(part)
  return whole.digest()
}

const scratch = Buffer.allocUnsafeSlow(65_536)
const digests = openSlabs(4_096)
