/** The multiples of a point that a scalar is made of, and sums of them. */
import { type Arithmetic, accumulator, limbBits, numberOctets, pointOctets } from './arithmetic.ts'
import type { Numbers } from './numbers.ts'

/** A scalar is read ten bits at a time: some fifty points for two scalars, and a megabyte for each key. */
const windowBits = 10
/** Digits go from -511 to 512, so that half of the multiples do. */
const half = 1 << (windowBits - 1)
/** Scalars are below 2^257, since a product may be a little more than the order. */
const windows = Math.ceil(257 / windowBits)
const windowOctets = half * pointOctets
/** Each window leaves the point that the next begins with, the last one too. */
export const multiplesOctets = windows * windowOctets + pointOctets
/** How many inverses one window takes. */
export const invertedForWindow = half + 1

/** 1 to 512 times 2^(10 i) times a point, for each window i that has been made. */
export interface Multiples {
  readonly at: number
  made: number
}

export interface PointSums {
  /** Of a point by its coordinates, 32 octets each, which must lie on the curve. */
  readonly begin: (x: Buffer, y: Buffer) => Multiples
  /** Makes the next window, in some half a millisecond. False where all are made. */
  readonly extend: (multiples: Multiples) => boolean
  /**
   * Adds them up in the accumulator, each scalar times its point. Z is 0 where two of the same x met, which may be a sum
   * that is not 0. False where nothing was added.
   */
  readonly sum: (parts: readonly (readonly [scalar: number, of: Multiples])[]) => boolean
}

export const isWhole = ({ made }: Multiples): boolean => made === windows

export const openPointSums = (arithmetic: Arithmetic, numbers: Numbers): PointSums => {
  const { words, product, square, difference, addPoint, double } = arithmetic
  const { constants, copy, reserve, put } = numbers
  const { X, Y, Z } = accumulator
  const [negative, factor] = [reserve(numberOctets), reserve(numberOctets)]
  const chosen = new Int32Array(2 * windows)
  /** What was read of them, which is of no use; it brings them near, many at a time. */
  const readAhead = new Int32Array(2 * windows)
  let count = 0
  const zs = reserve(invertedForWindow * numberOctets)

  const begin = (x: Buffer, y: Buffer): Multiples => {
    const at = reserve(multiplesOctets)
    for (const [i, octets] of [x, y].entries()) {
      const coordinate = at + i * numberOctets
      put(coordinate, octets)
      product(coordinate, coordinate, constants.intoPrime)
    }
    return { at, made: 0 }
  }

  const start = (x: number, y: number): void => {
    copy(X, x, numberOctets)
    copy(Y, y, numberOctets)
    copy(Z, constants.one, numberOctets)
  }

  /** Jacobian coordinates first, in the places of the affine ones; then all are divided by their Z at once. */
  const extend = (multiples: Multiples): boolean => {
    if (isWhole(multiples)) return false
    const first = multiples.at + multiples.made * windowOctets
    const place = (i: number): number => first + i * pointOctets
    const z = (i: number): number => zs + i * numberOctets
    start(first, first + numberOctets)
    copy(z(0), Z, numberOctets)
    for (let i = 1; i <= half; i++) {
      // Twice the first, and twice the last, with which the next window begins.
      if (i === 1 || i === half) double()
      else addPoint(first, first + numberOctets)
      copy(place(i), X, numberOctets)
      copy(place(i) + numberOctets, Y, numberOctets)
      copy(z(i), Z, numberOctets)
    }
    numbers.invert(numbers.prime, zs, invertedForWindow)
    for (let i = 1; i <= half; i++) {
      square(factor, z(i), z(i))
      product(place(i), place(i), factor)
      product(factor, factor, z(i))
      product(place(i) + numberOctets, place(i) + numberOctets, factor)
    }
    multiples.made += 1
    return true
  }

  /** Ten bits from the limbs of a scalar. */
  const bitsAt = (scalar: number, bit: number): number => {
    const limb = scalar / 4 + Math.floor(bit / limbBits)
    const shift = bit % limbBits
    const low = (words[limb] as number) >> shift
    const high = shift + windowBits > limbBits ? (words[limb + 1] as number) << (limbBits - shift) : 0
    return (low | high) & (2 * half - 1)
  }

  /** The points of a scalar, each where its x is, negative where it is to be subtracted. */
  const choose = (scalar: number, { at }: Multiples): void => {
    let carry = 0
    for (let i = 0; i < windows; i++) {
      const digit = bitsAt(scalar, i * windowBits) + carry
      carry = digit > half ? 1 : 0
      const signed = digit - carry * 2 * half
      if (signed === 0) continue
      const x = at + i * windowOctets + (Math.abs(signed) - 1) * pointOctets
      readAhead[count] = (words[x / 4] as number) ^ (words[(x + pointOctets) / 4 - 1] as number)
      chosen[count++] = signed > 0 ? x : -x
    }
  }

  const sum = (parts: readonly (readonly [scalar: number, of: Multiples])[]): boolean => {
    count = 0
    for (const [scalar, of] of parts) choose(scalar, of)
    for (let i = 0; i < count; i++) {
      const place = chosen[i] as number
      const x = Math.abs(place)
      const y = place > 0 ? x + numberOctets : negative
      if (place < 0) difference(negative, constants.zero, x + numberOctets)
      if (i > 0) addPoint(x, y)
      else start(x, y)
    }
    return count > 0
  }

  return { begin, extend, sum }
}
