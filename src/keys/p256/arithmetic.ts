/**
 * Arithmetic of P-256 (SP 800-186 3.2.1.3) for checking signatures, in WebAssembly. Nothing in it is secret: it takes no
 * care that its time tells nothing.
 *
 * A number is nine limbs of 29 bits in words of 32: eight from 0 to 2^29 - 1, and the highest, which has the sign. A
 * product is Montgomery's, a·b / 2^261, of factors within 32 moduli of either sign, and lies between -|a·b| / 2^261 and
 * that and the modulus more. So sums and differences are not reduced: adding points keeps all within 12 moduli, and
 * doubling within 25.
 */
import { type Curve, keyAlgorithms } from '../../x509/algorithms.ts'
import { assemble, type Code, op } from './code.ts'

const { curve } = keyAlgorithms['ec-p256'] as { readonly curve: Curve }
/** 2^256 - 2^224 + 2^192 + 2^96 - 1. */
export const prime = curve.p
export const order = BigInt(`0x${curve.order.toString('hex')}`)

const limbs = 9
const top = limbs - 1
export const limbBits = 29
const limbMask = (1n << 29n) - 1n
/** What a product is divided by: a number stands in Montgomery's form where it has been multiplied by it. */
export const montgomery = 1n << BigInt(limbs * limbBits)
export const numberOctets = 4 * limbs
/** x, then y. */
export const pointOctets = 2 * numberOctets

/** Above all registers. */
export const firstFreeAddress = 1_024
/** Of nine words each. */
const [X, Y, Z, ZZ, U, S, H, HH, HHH, V] = [16, 56, 96, 136, 176, 216, 256, 296, 336, 376] as const
/** The point that is added to and doubled, in Jacobian coordinates: x = X / Z², y = Y / Z³. */
export const accumulator = { X, Y, Z } as const

/** Locals after the three parameters: the limbs of both factors, the quotients, a sum, and what it carries. */
const local = { a: 3, b: 12, m: 21, sum: 30, carry: 31 } as const
const locals = 29

const each = (to: number, code: (i: number) => Code): Code => {
  const all: number[] = []
  for (let i = 0; i <= to; i++) all.push(...code(i))
  return all
}

/** Adds to the sum on the stack, where there is one already. */
const added = (terms: readonly Code[]): Code => terms.flatMap((term, i) => (i === 0 ? term : [...term, ...op.plus]))

const loadLimbs = (parameter: number, at: number): Code =>
  each(top, (i) => [...op.get(parameter), ...op.load(4 * i), ...op.set(at + i)])

const lowBits: Code = [...op.get(local.sum), ...op.constant(limbMask), ...op.and]
const shiftIntoCarry: Code = [...op.constant(BigInt(limbBits)), ...op.shiftRight, ...op.set(local.carry)]
const storeSum = (i: number): Code => [
  ...op.get(0),
  ...lowBits,
  ...op.store(4 * i),
  ...op.get(local.sum),
  ...shiftIntoCarry,
]
const storeCarry: Code = [...op.get(0), ...op.get(local.carry), ...op.store(4 * top)]

/** How the lowest limb of a sum is cleared by a multiple of the modulus, and by which parts the multiple goes on. */
interface Clearing {
  /** The limb times this, modulo 2^29, is how many moduli. */
  readonly factor: bigint
  readonly parts: readonly bigint[]
}

const clearingOf = (modulus: bigint): Clearing => {
  // By Newton: each step doubles the bits that are right.
  let inverse = 1n
  for (let bits = 1; bits < limbBits; bits *= 2) inverse = (inverse * (2n - modulus * inverse)) & limbMask
  const factor = -inverse & limbMask
  // Of the prime, which is -1 modulo 2^29, the limb itself is how many: adding them less the limb shifts it out.
  return { factor, parts: limbsOf(factor === 1n ? modulus + 1n : modulus) }
}

const limbsOf = (value: bigint): readonly bigint[] =>
  Array.from({ length: limbs }, (_, i) => (value >> BigInt(limbBits * i)) & limbMask)

/** By a power of two with a shift. */
const multiplied = (of: Code, by: bigint): Code =>
  (by & (by - 1n)) === 0n
    ? [...of, ...op.constant(BigInt(by.toString(2).length - 1)), ...op.shiftLeft]
    : [...of, ...op.constant(by), ...op.times]

/** The columns of a product, lowest first: the lower nine are cleared, the upper nine are what is left. */
const reduced = (modulus: bigint, column: (k: number) => readonly Code[]): Code => {
  const { factor, parts } = clearingOf(modulus)
  const moduli = (k: number): readonly Code[] =>
    parts.flatMap((part, j) =>
      j === 0 || part === 0n || k < j || k - j > top ? [] : [multiplied(op.get(local.m + k - j), part)],
    )
  const clear = (k: number): Code => [
    ...(factor === 1n ? lowBits : [...multiplied(op.get(local.sum), factor), ...op.constant(limbMask), ...op.and]),
    ...op.set(local.m + k),
    ...added([op.get(local.sum), ...(factor === 1n ? [] : [multiplied(op.get(local.m + k), parts[0] as bigint)])]),
    ...shiftIntoCarry,
  ]
  return [
    ...each(2 * top, (k) => [
      ...added([...column(k), ...moduli(k), ...(k === 0 ? [] : [op.get(local.carry)])]),
      ...op.set(local.sum),
      ...(k <= top ? clear(k) : storeSum(k - limbs)),
    ]),
    ...storeCarry,
  ]
}

/** Pairs of limbs whose places add up to k. */
const pairs = (k: number, last: number, term: (i: number, j: number) => Code): readonly Code[] => {
  const all: Code[] = []
  for (let i = Math.max(0, k - top); i <= Math.min(top, last); i++) all.push(term(i, k - i))
  return all
}

const multiply = (a: number, b: number): Code => [...op.get(a), ...op.get(b), ...op.times]

/** (result, a, b): a·b / 2^261. */
const product = (modulus: bigint): Code => [
  ...loadLimbs(1, local.a),
  ...loadLimbs(2, local.b),
  ...reduced(modulus, (k) => pairs(k, k, (i, j) => multiply(local.a + i, local.b + j))),
]

/** (result, a): a² / 2^261. What stands in a column twice is taken once, by a limb that was doubled before. */
const square = (modulus: bigint): Code => [
  ...loadLimbs(1, local.a),
  ...each(top, (i) => [...multiplied(op.get(local.a + i), 2n), ...op.set(local.b + i)]),
  ...reduced(modulus, (k) => pairs(k, k >> 1, (i, j) => multiply(local.a + i, (i === j ? local.a : local.b) + j))),
]

const limb = (parameter: number, i: number): Code => [...op.get(parameter), ...op.load(4 * i)]

/** (result, a, b): limb by limb, carried. */
const carried = (code: (i: number) => Code): Code => [
  ...each(top, (i) => [
    ...code(i),
    ...(i === 0 ? [] : [...op.get(local.carry), ...op.plus]),
    ...(i === top ? op.set(local.carry) : [...op.set(local.sum), ...storeSum(i)]),
  ]),
  ...storeCarry,
]

/** (result, a, b): a - b whose limbs are left as they come, which only a product may be made of next. */
const looseDifference: Code = each(top, (i) => [
  ...op.get(0),
  ...limb(1, i),
  ...limb(2, i),
  ...op.minus,
  ...op.store(4 * i),
])

const basics = {
  product: product(prime),
  square: square(prime),
  sum: carried((i) => [...limb(1, i), ...limb(2, i), ...op.plus]),
  difference: carried((i) => [...limb(1, i), ...limb(2, i), ...op.minus]),
  looseDifference,
  /** (result, a, b): less a and twice b. */
  reduceBy: carried((i) => [...limb(0, i), ...limb(1, i), ...op.minus, ...multiplied(limb(2, i), 2n), ...op.minus]),
  productOfScalars: product(order),
  squareOfScalar: square(order),
} as const

type Basic = keyof typeof basics
/** A parameter of the function that the step is in, or an address. */
type Operand = 'first' | 'second' | number

const operand = (value: Operand): Code =>
  value === 'first' ? op.get(0) : value === 'second' ? op.get(1) : op.address(value)

/** Functions one after the other: each step its name, where its result goes, and of what. */
const steps = (list: readonly (readonly [Basic, number, Operand, Operand])[]): Code =>
  list.flatMap(([name, result, a, b]) => [
    ...op.address(result),
    ...operand(a),
    ...operand(b),
    ...op.call(Object.keys(basics).indexOf(name)),
  ])

/**
 * (x, y): adds an affine point to the accumulator (11M; H = 0 where both have the same x, and then Z is 0 from there on,
 * whatever is added).
 */
const addPoint = steps([
  ['square', ZZ, Z, Z],
  ['product', U, 'first', ZZ],
  ['product', S, Z, ZZ],
  ['product', S, 'second', S],
  ['looseDifference', H, U, X],
  ['looseDifference', S, S, Y],
  ['product', Z, Z, H],
  ['square', HH, H, H],
  ['product', HHH, H, HH],
  ['product', V, X, HH],
  ['square', X, S, S],
  ['reduceBy', X, HHH, V],
  ['looseDifference', V, V, X],
  ['product', V, S, V],
  ['product', HHH, Y, HHH],
  ['difference', Y, V, HHH],
])

/** Doubles the accumulator (a = -3): M = 3(X - Z²)(X + Z²), S = 4XY², X' = M² - 2S, Y' = M(S - X') - 8Y⁴, Z' = 2YZ. */
const double = steps([
  ['square', ZZ, Z, Z],
  ['difference', U, X, ZZ],
  ['sum', V, X, ZZ],
  ['product', U, U, V],
  ['sum', V, U, U],
  ['sum', U, U, V],
  ['product', Z, Y, Z],
  ['sum', Z, Z, Z],
  ['square', H, Y, Y],
  ['product', S, X, H],
  ['sum', S, S, S],
  ['sum', S, S, S],
  ['square', X, U, U],
  ['difference', X, X, S],
  ['difference', X, X, S],
  ['square', H, H, H],
  ['sum', H, H, H],
  ['sum', H, H, H],
  ['sum', H, H, H],
  ['difference', S, S, X],
  ['product', Y, U, S],
  ['difference', Y, Y, H],
])

type Call = (result: number, a: number, b: number) => void
export interface Arithmetic extends Readonly<Record<Basic, Call>> {
  readonly addPoint: (x: number, y: number) => void
  readonly double: () => void
  /** All of its memory: a number takes nine of them. */
  readonly words: Int32Array
}

const code = { ...basics, addPoint, double }

/** The functions, over a memory of so many octets. Undefined where no code may be made at run time (`--jitless`). */
export const openArithmetic = (octets: number): Arithmetic | undefined => {
  if (typeof WebAssembly === 'undefined') return undefined
  const pages = Math.ceil(octets / 65_536)
  // Without a maximum address space is kept for four gigabytes, and a thread ends where that is limited.
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
  const module = new WebAssembly.Module(assemble(Object.entries(code).map(([name, body]) => ({ name, locals, body }))))
  const { exports } = new WebAssembly.Instance(module, { env: { memory } })
  return { ...(exports as Omit<Arithmetic, 'words'>), words: new Int32Array(memory.buffer) }
}

/** What we use of the standard; Node's types leave it to those of browsers. */
declare const WebAssembly:
  | {
      readonly Memory: new (limits: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
      readonly Module: new (octets: Uint8Array<ArrayBuffer>) => object
      readonly Instance: new (module: object, imports: object) => { readonly exports: object }
    }
  | undefined
