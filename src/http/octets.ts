/**
 * Texts in ASCII as the octets of one answer. They lie in slabs, since an ArrayBuffer for each costs the collector more than
 * the octets; a slab lives as long as the slowest of its few answers is being sent.
 */
export const asciiOctets = (texts: readonly string[]): Buffer => {
  const octets = take(texts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const text of texts) at += octets.write(text, at, 'latin1')
  return octets
}

const take = (length: number): Buffer => {
  if (used + length > slab.length) {
    slab = Buffer.allocUnsafeSlow(Math.max(length, slabOctets))
    used = 0
  }
  used += length
  return slab.subarray(used - length, used)
}

const slabOctets = 32_768
let slab: Buffer = Buffer.alloc(0)
let used = 0
