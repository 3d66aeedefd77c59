import { type DerReader, derProblem, tags, walk } from './der.ts'

/**
 * Ecdsa-Sig-Value in strict DER (RFC 3279 2.2.3), r and s in 1 … n - 1 and without leading zeros: no second encoding of
 * one signature (Wycheproof). The order is as long as the curve's coordinates. Throws the reader's code for what is not
 * DER, and csr.pop for the numbers.
 */
export const readEcdsaSignature = (slice: DerReader, order: Buffer): { readonly r: Buffer; readonly s: Buffer } => {
  walk(slice)
  const pair = slice.read(tags.sequence, 'Ecdsa-Sig-Value')
  const number = (what: string): Buffer => {
    const { octets } = pair.read(tags.integer, what)
    const magnitude = octets[0] === 0 ? octets.subarray(1) : octets
    const tooBig =
      magnitude.length > order.length || (magnitude.length === order.length && magnitude.compare(order) >= 0)
    // P-521: an order whose top octet is 01 leaves no room for a sign octet of equal length, so lengths compare as they are.
    if ((octets[0] as number) >= 0x80 || magnitude.length === 0 || tooBig)
      throw derProblem('csr.pop', `${what} is not in 1 … n − 1`, slice.start)
    return magnitude
  }
  const both = { r: number('r'), s: number('s') }
  pair.finish('Ecdsa-Sig-Value')
  return both
}
