import type { Curve } from './algorithms.ts'
import { type DerReader, derProblem } from './der.ts'

/** Public keys that are points, judged before OpenSSL sees them. */

/**
 * An uncompressed point on the curve (RFC 5480 2.2; SP 800-56A 5.6.2.3.3; the groups are of prime order, so a point on
 * the curve that is not infinity is of full order). Throws key.encoding.
 */
export const assertCurvePoint = (key: DerReader, { p, b, octets }: Curve): void => {
  const { buffer, start } = key
  if (buffer[start] !== 0x04) throw derProblem('key.encoding', 'the point is not in uncompressed form', start)
  const x = BigInt(`0x${buffer.toString('hex', start + 1, start + 1 + octets)}`)
  const y = BigInt(`0x${buffer.toString('hex', start + 1 + octets, start + 1 + 2 * octets)}`)
  if (x >= p || y >= p) throw derProblem('key.encoding', 'a coordinate is not below the prime of the field', start)
  if ((y * y - (x * x - 3n) * x - b) % p !== 0n)
    throw derProblem('key.encoding', 'the point is not on the curve', start)
}

/**
 * A canonical encoding (RFC 8032 5.1.3) of a point that is not of small order. Whether it is on the curve is left to
 * the proof of possession, whose verification decodes it.
 */
export const assertEd25519Point = (key: DerReader): void => {
  const little = Buffer.from(key.octets)
  little[31] = (little[31] as number) & 0x7f
  const y = BigInt(`0x${little.reverse().toString('hex')}`)
  if (y >= edwardsPrime) throw derProblem('key.encoding', 'the point is not encoded canonically', key.start)
  if (smallOrder.has(y)) throw derProblem('key.weak', 'the point is of small order', key.start)
}

const edwardsPrime = 2n ** 255n - 19n
/** Of the four points of order 8. */
const orderEight = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n
/** The y coordinates of the eight points whose order divides 8. */
const smallOrder = new Set([0n, 1n, edwardsPrime - 1n, orderEight, edwardsPrime - orderEight])
