/**
 * Octets cut from slabs: an ArrayBuffer for each piece costs more than what is done with it, and a slab stays as long as the
 * last of its pieces. So pieces that live for different times come from different slabs: in Buffer's own, what waits for the
 * database or a signature would keep all that came and went beside it, until it is old and only a collection of the whole
 * heap takes it away (7 KB for each certificate, measured, where 1.5 were needed, when those were of 8 KB; they are of 64).
 */
export type Slabs = (octets: number) => Buffer

/** Pieces may be written into, and hold anything before that. A piece larger than a slab lies alone. */
export const openSlabs = (slabOctets: number): Slabs => {
  let slab = Buffer.alloc(0)
  let used = 0
  return (octets) => {
    if (octets > slabOctets) return Buffer.allocUnsafeSlow(octets)
    if (used + octets > slab.length) {
      slab = Buffer.allocUnsafeSlow(slabOctets)
      used = 0
    }
    used += octets
    return slab.subarray(used - octets, used)
  }
}

/** A copy that lies alone, for what is kept for long: most Buffers below 32 KB keep 64 KB of Node's pool, in which they lie. */
export const alone = (octets: Buffer): Buffer => {
  const copy = Buffer.allocUnsafeSlow(octets.length)
  octets.copy(copy)
  return copy
}

/** For what lives as long as a request: what was asked, what is to be signed, and its signature. */
export const requestSlabs = openSlabs(8_192)
