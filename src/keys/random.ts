/** Randomness from the system's CSPRNG, drawn in blocks: a call for 16 octets costs 4 µs, a slice of a block nothing. */
import { randomFillSync } from 'node:crypto'

/** Octets that were never given to anyone else: the caller may write into them. */
export const pooledRandom = (): ((octets: number) => Buffer) => {
  let block = Buffer.alloc(0)
  return (octets) => {
    if (block.length < octets) block = randomFillSync(Buffer.allocUnsafeSlow(Math.max(octets, blockOctets)))
    const taken = block.subarray(0, octets)
    block = block.subarray(octets)
    return taken
  }
}

/**
 * UUIDs of version 7 (RFC 9562 5.7): the time in front keeps rows that were made together together in their index, 74
 * random bits tell them apart.
 */
export const timeOrderedIds =
  (clock: () => Date, random: (octets: number) => Buffer): (() => string) =>
  () => {
    const octets = random(16)
    octets.writeUIntBE(clock().getTime(), 0, 6)
    octets[6] = ((octets[6] ?? 0) & 0x0f) | 0x70
    octets[8] = ((octets[8] ?? 0) & 0x3f) | 0x80
    const hex = octets.toString('hex')
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
  }

const blockOctets = 4096
