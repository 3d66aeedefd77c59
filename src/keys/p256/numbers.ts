/** Numbers in the memory of the arithmetic: how they come in, many inverses at once, and whether one is zero. */
import { type Arithmetic, limbBits, montgomery, numberOctets, order, prime } from './arithmetic.ts'

/** A modulus with what is done by it. */
export interface Field {
  readonly product: (result: number, a: number, b: number) => void
  readonly square: (result: number, a: number, b: number) => void
  /** The exponent that inverts, modulus - 2 (Fermat), by its hexadecimal digits. */
  readonly exponent: readonly number[]
}

export interface Numbers {
  readonly prime: Field
  readonly order: Field
  /** 0, 1, 1 in Montgomery's form of the prime, and what brings a number into the form of the prime and of the order. */
  readonly constants: Readonly<Record<'zero' | 'unit' | 'one' | 'intoPrime' | 'intoOrder', number>>
  /** Takes so many octets of the memory. */
  readonly reserve: (octets: number) => number
  readonly copy: (to: number, from: number, octets: number) => void
  /** Up to 32 octets, big-endian. */
  readonly put: (at: number, octets: Buffer) => void
  /** Puts the inverse in the place of each of so many numbers one after the other, all in Montgomery's form, none 0. */
  readonly invert: (field: Field, at: number, count: number) => void
  /** Of a number modulo the prime below ten of it, which is lost. */
  readonly isZero: (at: number) => boolean
}

export const openNumbers = (arithmetic: Arithmetic, from: number, mostInverted: number): Numbers => {
  const { words } = arithmetic
  let free = from
  const reserve = (octets: number): number => {
    free += octets
    return free - octets
  }
  const copy = (to: number, at: number, octets: number): void => {
    words.copyWithin(to / 4, at / 4, (at + octets) / 4)
  }
  const put = (at: number, octets: Buffer): void => {
    padded.fill(0, 0, padded.length - octets.length)
    octets.copy(padded, padded.length - octets.length)
    for (let limb = 0; limb < limbs; limb++) {
      const bit = limb * limbBits
      const end = padded.length - (bit >> 3)
      // 29 bits that begin anywhere in an octet lie in five.
      const five = padded.readUIntBE(end - 5, 5)
      words[at / 4 + limb] = Math.floor(five / 2 ** (bit & 7)) % 2 ** limbBits
    }
  }
  const putInteger = (value: bigint): number => {
    const at = reserve(numberOctets)
    put(at, Buffer.from(value.toString(16).padStart(64, '0'), 'hex'))
    return at
  }
  const constants = {
    zero: putInteger(0n),
    unit: putInteger(1n),
    one: putInteger(montgomery % prime),
    intoPrime: putInteger(montgomery ** 2n % prime),
    intoOrder: putInteger(montgomery ** 2n % order),
  }
  const primeAt = putInteger(prime) / 4
  const primeLimbs = words.slice(primeAt, primeAt + limbs)
  const powers = reserve(16 * numberOctets)
  const prefixes = reserve(mostInverted * numberOctets)
  const inverse = reserve(numberOctets)
  const power = (i: number): number => powers + i * numberOctets
  const invertOne = ({ product, square, exponent }: Field, at: number): void => {
    copy(power(1), at, numberOctets)
    for (let i = 2; i < 16; i++) product(power(i), power(i - 1), at)
    copy(at, power(exponent[0] as number), numberOctets)
    for (const digit of exponent.slice(1)) {
      for (let i = 0; i < 4; i++) square(at, at, at)
      if (digit !== 0) product(at, at, power(digit))
    }
  }
  // One inversion and three products for each (Montgomery's trick).
  const invert = (field: Field, at: number, count: number): void => {
    const number = (i: number): number => at + i * numberOctets
    const prefix = (i: number): number => prefixes + i * numberOctets
    copy(prefix(0), number(0), numberOctets)
    for (let i = 1; i < count; i++) field.product(prefix(i), prefix(i - 1), number(i))
    copy(inverse, prefix(count - 1), numberOctets)
    invertOne(field, inverse)
    for (let i = count - 1; i > 0; i--) {
      field.product(prefix(i), inverse, prefix(i - 1))
      field.product(inverse, inverse, number(i))
      copy(number(i), prefix(i), numberOctets)
    }
    copy(number(0), inverse, numberOctets)
  }
  // A product by 1 is 0 or the prime where there is nothing left of it.
  const isZero = (at: number): boolean => {
    arithmetic.product(at, at, constants.unit)
    const left = words.subarray(at / 4, at / 4 + limbs)
    return left.every((limb) => limb === 0) || left.every((limb, i) => limb === primeLimbs[i])
  }
  const { product, square, productOfScalars, squareOfScalar } = arithmetic
  return {
    prime: { product, square, exponent: digits(prime - 2n) },
    order: { product: productOfScalars, square: squareOfScalar, exponent: digits(order - 2n) },
    constants,
    reserve,
    copy,
    put,
    invert,
    isZero,
  }
}

const limbs = numberOctets / 4
/** A number of 32 octets, with room for the limb that begins in its first. */
const padded = Buffer.alloc(36)
const digits = (value: bigint): readonly number[] =>
  Array.from(value.toString(16), (digit) => Number.parseInt(digit, 16))
