/** Serial numbers as certificates, lists and OCSP have them. */
import { type DerReader, tags } from './der.ts'

/**
 * A serial of at most 20 octets, not negative (RFC 5280 4.1.2.2), as its magnitude in 16 octets at least: ours have as
 * many. Throws the reader's problem.
 */
export const readSerial = (reader: DerReader, field: string): Buffer => {
  const { octets } = reader.read(tags.integer, field)
  if ((octets[0] as number) >= 0x80 || octets.length > 20) throw reader.problem('a serial is negative or too long')
  return padSerial(octets)
}

/** The octets of one that is not negative, in the form that facts have it in. */
export const padSerial = (octets: Buffer): Buffer => {
  const magnitude = octets[0] === 0 ? octets.subarray(1) : octets
  return magnitude.length >= 16 ? magnitude : Buffer.concat([Buffer.alloc(16 - magnitude.length), magnitude])
}
