/**
 * Signatures by keys that come again and again, an issuer's own, proved in two fifths of the time that OpenSSL takes for
 * any key: of a known key, as of the generator, all multiples are made once that a scalar is made of, so that
 * u1·G + u2·Q is a sum of some fifty points and needs no doubling (FIPS 186-5 6.4.2; Brickell et al., 1992).
 *
 * It proves or says nothing: what it does not prove, be it that two points of a sum were the same, OpenSSL decides.
 */
import { hash } from 'node:crypto'

import { keyAlgorithms } from '../../x509/algorithms.ts'
import type { SignatureCheck } from '../../x509/csr.ts'
import { DerReader } from '../../x509/der.ts'
import { readEcdsaSignature } from '../../x509/ecdsa.ts'
import { accumulator, firstFreeAddress, numberOctets, openArithmetic } from './arithmetic.ts'
import { invertedForWindow, isWhole, type Multiples, multiplesOctets, openPointSums } from './multiples.ts'
import { openNumbers } from './numbers.ts'

export interface KnownKeys {
  /** For each check whether the signature is proved to be the key's. */
  readonly prove: (checks: readonly SignatureCheck[]) => readonly boolean[]
  /**
   * Makes a part of what the key's signatures are proved by, in half a millisecond; after some fifty of them they are.
   * For keys that OpenSSL has taken. False where there is nothing to do: all is made, the key is not one of P-256, or
   * there is no room for another.
   */
  readonly learn: (spki: Buffer) => boolean
}

/** For so many keys. */
export const openKnownKeys = (most: number, digest = sha256): KnownKeys => {
  const arithmetic = openArithmetic(scratchOctets + (most + 1) * multiplesOctets)
  if (arithmetic === undefined) return { prove: (checks) => checks.map(() => false), learn: () => false }
  const numbers = openNumbers(arithmetic, firstFreeAddress, invertedForWindow)
  const sums = openPointSums(arithmetic, numbers)
  const generator = sums.begin(...pointOf(generatorPoint))
  const known = new Map<string, Multiples>()

  const learn = (spki: Buffer): boolean => {
    if (!isP256(spki)) return false
    if (sums.extend(generator)) return true
    const id = spki.toString('latin1')
    if (!known.has(id) && known.size < most) known.set(id, sums.begin(...pointOf(spki)))
    const multiples = known.get(id)
    return multiples !== undefined && sums.extend(multiples)
  }

  const inverses = numbers.reserve(mostTogether * numberOctets)
  const [u1, u2, left] = [0, 0, 0].map(() => numbers.reserve(numberOctets)) as [number, number, number]
  const { product, productOfScalars, difference, square } = arithmetic

  const question = (check: SignatureCheck, place: number): Question | undefined => {
    if (check.keep !== true || check.algorithm.id !== 'ecdsa-sha256') return undefined
    const key = known.get(check.spki.toString('latin1'))
    const pair = key && isWhole(key) ? readPair(check.signature) : undefined
    return key && pair && { place, key, ...pair, digest: digest(check.message) }
  }

  /** Whether (u1·G + u2·Q) has an x of r: X = r·Z², and Z is not 0. That it has r + n instead is left to OpenSSL. */
  const holds = ({ key, r, digest }: Question, inverse: number): boolean => {
    numbers.put(u1, digest)
    productOfScalars(u1, u1, inverse)
    numbers.put(u2, r)
    numbers.put(left, r)
    productOfScalars(u2, u2, inverse)
    if (
      !sums.sum([
        [u1, generator],
        [u2, key],
      ])
    )
      return false
    product(left, left, numbers.constants.intoPrime)
    square(u1, accumulator.Z, accumulator.Z)
    product(left, left, u1)
    difference(left, left, accumulator.X)
    return numbers.isZero(left) && !numbers.isZero(u1)
  }

  const prove = (checks: readonly SignatureCheck[]): readonly boolean[] => {
    const proved = checks.map(() => false)
    const questions = checks.slice(0, mostTogether).flatMap((check, i) => question(check, i) ?? [])
    if (questions.length === 0) return proved
    const inverseOf = (i: number): number => inverses + i * numberOctets
    for (const [i, { s }] of questions.entries()) {
      numbers.put(inverseOf(i), s)
      productOfScalars(inverseOf(i), inverseOf(i), numbers.constants.intoOrder)
    }
    numbers.invert(numbers.order, inverses, questions.length)
    for (const [i, asked] of questions.entries()) proved[asked.place] = holds(asked, inverseOf(i))
    return proved
  }
  return { prove, learn }
}

interface Question {
  readonly place: number
  readonly key: Multiples
  readonly r: Buffer
  readonly s: Buffer
  readonly digest: Buffer
}

const sha256 = (message: Buffer): Buffer => hash('sha256', message, 'buffer')

/** As the shares of an auditor's are. */
const mostTogether = 128
/** Registers, constants, and what inversions and one window take. */
const scratchOctets = firstFreeAddress + (2 * invertedForWindow + mostTogether + 40) * numberOctets

const { identifier, curve } = keyAlgorithms['ec-p256']
/** SEQUENCE, the identifier, BIT STRING of which no bit is unused, and a point that is not compressed (RFC 5480 2.2). */
const spkiHead = Buffer.concat([Buffer.of(0x30, 89), identifier, Buffer.of(0x03, 66, 0, 4)])

/** OpenSSL takes more of them, with unused bits too, and reads another point than stands there. */
const isP256 = (spki: Buffer): boolean =>
  spki.length === spkiHead.length + 64 && spki.subarray(0, spkiHead.length).equals(spkiHead)

const pointOf = (octets: Buffer): [x: Buffer, y: Buffer] => [octets.subarray(-64, -32), octets.subarray(-32)]

/** SP 800-186 3.2.1.3. */
const generatorPoint = Buffer.from(
  '6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
  'hex',
)

const readPair = (signature: Buffer) => {
  try {
    return readEcdsaSignature(new DerReader(signature, 'csr.pop'), (curve as { order: Buffer }).order)
  } catch {
    return undefined
  }
}
