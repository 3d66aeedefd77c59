import { Problem, type ProblemCode } from '../errors.ts'
import type { Slabs } from '../lib/slabs.ts'

/**
 * Strict DER (X.690), the one place that knows tags and lengths.
 *
 * Reading is two steps: `walk` judges the encoding of every element (definite and minimal lengths, BOOLEAN 00/FF,
 * minimal INTEGER and OBJECT IDENTIFIER, no constructed strings, bounded depth and count); then a `DerReader` picks
 * the shape apart. Both work on the whole input with absolute positions, so a problem names the octet where it stops
 * being DER. Nothing is allocated from a length field and nothing recurses.
 *
 * Writing is back to front (`DerWriter`): when a header is written its length is already known, so there is no sizing
 * pass and no copying from level to level.
 */

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** A window of an input, and the code of the problem to raise about it. */
export interface Slice {
  readonly buffer: Buffer
  readonly start: number
  readonly end: number
  readonly code: ProblemCode
}

/** The budget of elements that one input may spend, shared by the walks into its nested encodings. */
export interface WalkBudget {
  nodes: number
}

export const newBudget = (): WalkBudget => ({ nodes: maxNodes })

/**
 * Asserts that the slice is exactly one DER element, all the way down. Throws the slice's problem with the offset.
 * Linear in the slice; depth <= 24 and nodes <= 20,000 (incident #45).
 */
export const walk = (slice: Slice, budget: WalkBudget = newBudget()): void => {
  const { buffer, code } = slice
  let at = slice.start
  let end = slice.end
  let depth = 0
  let tops = 0
  for (;;) {
    while (at === end && depth > 0) end = ends[--depth] as number
    if (depth === 0) {
      if (at === end && tops === 1) return
      if (tops === 1) throw derProblem(code, 'there are octets after the end of the element', at)
      tops = 1
    }
    if (--budget.nodes < 0) throw derProblem(code, `there are more than ${maxNodes} elements`, at)
    const length = lengthAt(buffer, at, end, code)
    const start = at + headerLength(length)
    const tag = buffer[at] as number
    if ((tag & 0x20) !== 0) {
      if (tag < 0x40 && tag !== tags.sequence && tag !== tags.set)
        throw derProblem(code, `tag ${hex(tag)} may not be constructed`, at)
      if (depth === maxDepth) throw derProblem(code, `elements are nested more than ${maxDepth} deep`, at)
      ends[depth++] = end
      end = start + length
      at = start
    } else {
      if (tag < 0x40) {
        const rule = contents[tag]
        if (rule === undefined) throw derProblem(code, `tag ${hex(tag)} is not a type that belongs here`, at)
        rule(buffer, start, length, code)
      }
      at = start + length
    }
  }
}

/** Reads the elements of one level in order. `walk` the input first: contents of primitives are not judged again. */
export class DerReader implements Slice {
  readonly buffer: Buffer
  readonly start: number
  readonly end: number
  readonly code: ProblemCode
  /** Where the next element begins. */
  at: number

  constructor(buffer: Buffer, code: ProblemCode, start = 0, end = buffer.length) {
    this.buffer = buffer
    this.code = code
    this.start = start
    this.end = end
    this.at = start
  }

  /** The tag of the next element, or -1 at the end. */
  get tag(): number {
    return this.at < this.end ? (this.buffer[this.at] as number) : -1
  }

  get done(): boolean {
    return this.at >= this.end
  }

  /** The contents of the next element, which must have this tag, as a reader; moves past it. */
  read(tag: number, what: string): DerReader {
    const start = this.#pass(tag, what)
    return new DerReader(this.buffer, this.code, start, this.at)
  }

  /** Moves past the next element, which must have this tag, and tells where its contents begin. */
  #pass(tag: number, what: string): number {
    if (this.tag !== tag) throw this.problem(`${what} is missing or has another tag`)
    const length = lengthAt(this.buffer, this.at, this.end, this.code)
    const start = this.at + headerLength(length)
    this.at = start + length
    return start
  }

  /** The contents of the next element, whatever its tag; moves past it. */
  readAny(what: string): DerReader {
    if (this.done) throw this.problem(`${what} is missing`)
    return this.read(this.tag, what)
  }

  /** Moves past the next element, whatever it is. Nothing is made of it. */
  skip(): void {
    const length = lengthAt(this.buffer, this.at, this.end, this.code)
    this.at += headerLength(length) + length
  }

  /** The next element with its header, as octets; moves past it. */
  element(tag: number, what: string): Buffer {
    const from = this.at
    this.#pass(tag, what)
    return this.buffer.subarray(from, this.at)
  }

  /** A reader that stands before the next element and sees nothing after it; moves past it. */
  window(tag: number, what: string): DerReader {
    const from = this.at
    this.#pass(tag, what)
    return new DerReader(this.buffer, this.code, from, this.at)
  }

  /** The next element if it has this tag. */
  optional(tag: number, what: string): DerReader | undefined {
    return this.tag === tag ? this.read(tag, what) : undefined
  }

  /** The octets of this slice. */
  get octets(): Buffer {
    return this.buffer.subarray(this.start, this.end)
  }

  get length(): number {
    return this.end - this.start
  }

  /** OBJECT IDENTIFIER as its contents, a character each: compared as octets, never as numbers (incident #46). */
  oid(what: string): string {
    const start = this.#pass(tags.oid, what)
    return keyOfOid(this.buffer, start, this.at)
  }

  /** `BOOLEAN DEFAULT FALSE`: absent is false, an encoded FALSE is not DER (X.690 11.5), of which `code` tells. */
  defaultFalse(what: string, code: ProblemCode = this.code): boolean {
    if (this.tag !== tags.boolean) return false
    const start = this.#pass(tags.boolean, what)
    if (this.buffer[start] === 0) throw derProblem(code, `${what} encodes its default, FALSE`, start)
    return true
  }

  /** BIT STRING of whole octets. */
  bits(what: string): DerReader {
    const start = this.#pass(tags.bitString, what)
    if (this.buffer[start] !== 0) throw derProblem(this.code, `${what} has unused bits`, start)
    return new DerReader(this.buffer, this.code, start + 1, this.at)
  }

  /** A small non-negative INTEGER. */
  smallInteger(what: string): number {
    const start = this.#pass(tags.integer, what)
    const length = this.at - start
    if (length > 4 || (this.buffer[start] as number) >= 0x80)
      throw derProblem(this.code, `${what} is out of range`, start)
    return this.buffer.readUIntBE(start, length)
  }

  /** Asserts that nothing follows. */
  finish(what: string): void {
    if (!this.done) throw this.problem(`there is more in ${what} than belongs there`)
  }

  /** What is left of this window, under another problem's code. */
  as(code: ProblemCode): DerReader {
    return new DerReader(this.buffer, code, this.at, this.end)
  }

  problem(detail: string): Problem {
    return derProblem(this.code, detail, this.at)
  }
}

/** Opens exactly one element that is strict DER throughout. */
export const openDer = (buffer: Buffer, code: ProblemCode): DerReader => {
  const reader = new DerReader(buffer, code)
  walk(reader)
  return reader
}

/** Writes DER back to front: what comes last is written first; a header after its contents. */
export class DerWriter {
  #buffer: Buffer
  #at: number

  /** Beyond the capacity it grows, and lies elsewhere. */
  constructor(capacity = 1024, slabs: Slabs = Buffer.allocUnsafe) {
    this.#buffer = slabs(capacity)
    this.#at = capacity
  }

  /** Octets written so far: take it before the contents, give it to `header` after them. */
  get size(): number {
    return this.#buffer.length - this.#at
  }

  bytes(octets: Buffer): void {
    this.#reserve(octets.length)
    this.#at -= octets.length
    this.#buffer.set(octets, this.#at)
  }

  octet(value: number): void {
    this.#reserve(1)
    this.#buffer[--this.#at] = value
  }

  ascii(text: string): void {
    this.#reserve(text.length)
    this.#at -= text.length
    this.#buffer.write(text, this.#at, 'latin1')
  }

  /** The header of everything written since `mark`. */
  header(tag: number, mark: number): void {
    const length = this.size - mark
    this.#reserve(headerLength(length))
    const buffer = this.#buffer
    if (length < 0x80) buffer[--this.#at] = length
    else {
      let octets = 0
      for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) {
        buffer[--this.#at] = rest & 0xff
        octets++
      }
      buffer[--this.#at] = 0x80 | octets
    }
    buffer[--this.#at] = tag
  }

  finish(): Buffer {
    return this.#buffer.subarray(this.#at)
  }

  #reserve(octets: number): void {
    if (octets <= this.#at) return
    const size = this.size
    const grown = Buffer.allocUnsafe(2 * (this.#buffer.length + octets))
    this.#buffer.copy(grown, grown.length - size, this.#at)
    this.#at = grown.length - size
    this.#buffer = grown
  }
}

/** One element from its parts, in reading order. For what is not hot. */
export const encodeDer = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const writer = new DerWriter(parts.reduce((sum, part) => sum + part.length, 6))
  for (let i = parts.length - 1; i >= 0; i--) writer.bytes(parts[i] as Buffer)
  writer.header(tag, 0)
  return writer.finish()
}

export const encodeSequence = (...parts: readonly Buffer[]): Buffer => encodeDer(tags.sequence, ...parts)

/** OBJECT IDENTIFIER from its dotted form; a constant of ours, never input. */
export const encodeOid = (dotted: string): Buffer => {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  return encodeDer(tags.oid, Buffer.from([first * 40 + second, ...rest].flatMap(base128)))
}

/** The contents of an OBJECT IDENTIFIER as `DerReader.oid` gives them: a key to look up in tables. */
export const oidKey = (dotted: string): string => encodeOid(dotted).subarray(2).toString('latin1')

/**
 * That key, from where it lies. Those of attributes and of nearly all extensions (2.5.4 and 2.5.29, three octets) are one string
 * each: to make it anew, and to look that up, is most of what it costs to read an extension.
 */
const keyOfOid = (buffer: Buffer, start: number, end: number): string => {
  const family = end - start === 3 && buffer[start] === 0x55 ? families[buffer[start + 1] as number] : undefined
  if (family === undefined) return buffer.toString('latin1', start, end)
  const arc = buffer[start + 2] as number
  const key = family[arc] ?? buffer.toString('latin1', start, end)
  family[arc] = key
  return key
}

/** The dotted form of such a key, for people. The same few come in every certificate; those are worked out once. */
export const formatOid = (key: string): string => {
  const known = dottedOids.get(key)
  if (known !== undefined) return known
  const dotted = dottedForm(key)
  if (dottedOids.size < maxKnownOids && key.length <= longestKnownOid) dottedOids.set(key, dotted)
  return dotted
}

/** The same for a sentence: a stranger's may be as long as all that was sent, and four times as long in digits. */
export const shownOid = (key: string): string => {
  const dotted = formatOid(key)
  return dotted.length <= mostShown ? dotted : `${dotted.slice(0, mostShown)}…`
}

const dottedForm = (key: string): string => {
  const arcs: number[] = []
  let arc = 0
  for (const char of key) {
    const octet = char.charCodeAt(0)
    arc = arc * 128 + (octet & 0x7f)
    if (octet < 0x80) {
      arcs.push(arc)
      arc = 0
    }
  }
  const [head = 0, ...tail] = arcs
  const first = Math.min(2, Math.floor(head / 40))
  return [first, head - first * 40, ...tail].join('.')
}

/** INTEGER from the octets of an unsigned number, minimal and positive. */
export const encodeUnsigned = (octets: Buffer): Buffer => {
  let start = 0
  while (octets[start] === 0) start++
  const minimal = octets.subarray(start)
  // Of zero nothing is left.
  return (minimal[0] ?? 0x80) >= 0x80 ? encodeDer(tags.integer, zero, minimal) : encodeDer(tags.integer, minimal)
}

/** BIT STRING of whole octets. */
export const encodeBits = (octets: Buffer): Buffer => encodeDer(tags.bitString, zero, octets)

export const derProblem = (code: ProblemCode, detail: string, offset: number): Problem =>
  new Problem(code, `${detail}, at octet ${offset}`, { offset })

/**
 * The length of the element at `at`, whose tag and length are judged here: low-tag form, definite, minimal, inside
 * `end`. The arithmetic stays below 2^32, so 2^31 and 2^53 + 1 are merely too long.
 */
const lengthAt = (buffer: Buffer, at: number, end: number, code: ProblemCode): number => {
  if (end - at < 2) throw derProblem(code, 'the input ends inside a header', at)
  const tag = buffer[at] as number
  if ((tag & 0x1f) === 0x1f) throw derProblem(code, 'high-tag-number form', at)
  const first = buffer[at + 1] as number
  if (first < 0x80) {
    if (first > end - at - 2) throw derProblem(code, 'an element ends outside of what holds it', at)
    return first
  }
  if (first === 0x80) throw derProblem(code, 'indefinite length', at + 1)
  const octets = first & 0x7f
  if (octets > end - at - 2) throw derProblem(code, 'the input ends inside a length', at + 1)
  if (buffer[at + 2] === 0) throw derProblem(code, 'the length is not minimal', at + 1)
  if (octets > 4) throw derProblem(code, 'an element ends outside of what holds it', at + 1)
  const length = buffer.readUIntBE(at + 2, octets)
  if (length < 0x80) throw derProblem(code, 'the length is not minimal', at + 1)
  if (length > end - at - 2 - octets) throw derProblem(code, 'an element ends outside of what holds it', at + 1)
  return length
}

/** The octets that the header of an element of this length takes in DER. */
export const headerLength = (length: number): number =>
  length < 0x80 ? 2 : length < 0x100 ? 3 : length < 0x10000 ? 4 : length < 0x1000000 ? 5 : 6

type ContentsRule = (buffer: Buffer, start: number, length: number, code: ProblemCode) => void

const assertBoolean: ContentsRule = (buffer, start, length, code) => {
  if (length !== 1) throw derProblem(code, 'BOOLEAN is not one octet', start)
  if (buffer[start] !== 0 && buffer[start] !== 0xff) throw derProblem(code, 'BOOLEAN is neither 00 nor FF', start)
}

const assertNull: ContentsRule = (_buffer, start, length, code) => {
  if (length !== 0) throw derProblem(code, 'NULL is not empty', start)
}

/** X.690 8.3.2: the first nine bits are neither all zero nor all one. */
const assertInteger: ContentsRule = (buffer, start, length, code) => {
  if (length === 0) throw derProblem(code, 'INTEGER is empty', start)
  if (length === 1) return
  const first = buffer[start] as number
  const sign = (buffer[start + 1] as number) & 0x80
  if ((first === 0 && sign === 0) || (first === 0xff && sign !== 0))
    throw derProblem(code, 'INTEGER is not minimal', start)
}

/** X.690 8.6.2 and 11.2.1: at most seven unused bits, none without data, and all of them zero. */
const assertBitString: ContentsRule = (buffer, start, length, code) => {
  if (length === 0) throw derProblem(code, 'BIT STRING is empty', start)
  const unused = buffer[start] as number
  if (unused > 7 || (unused > 0 && length === 1))
    throw derProblem(code, 'BIT STRING has more unused bits than bits', start)
  if (((buffer[start + length - 1] as number) & ((1 << unused) - 1)) !== 0)
    throw derProblem(code, 'unused bits are not zero', start + length - 1)
}

/** X.690 8.19.2: minimal arcs; each below 2^31, so that nobody's arithmetic wraps (incident #46). */
const assertOid: ContentsRule = (buffer, start, length, code) => {
  if (length === 0) throw derProblem(code, 'OBJECT IDENTIFIER is empty', start)
  let arc = 0
  let first = true
  for (let i = start; i < start + length; i++) {
    const octet = buffer[i] as number
    if (first && octet === 0x80) throw derProblem(code, 'an arc of an OBJECT IDENTIFIER is not minimal', i)
    arc = arc * 128 + (octet & 0x7f)
    if (arc >= 0x80000000) throw derProblem(code, 'an arc of an OBJECT IDENTIFIER is too large', i)
    first = octet < 0x80
    if (first) arc = 0
  }
  if (!first) throw derProblem(code, 'an OBJECT IDENTIFIER ends inside an arc', start + length - 1)
}

const base128 = (arc: number): number[] => {
  const octets = [arc & 0x7f]
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) octets.unshift((rest & 0x7f) | 0x80)
  return octets
}

const hex = (tag: number): string => tag.toString(16).padStart(2, '0')

/**
 * The universal, primitive types that certificates and requests are made of, by tag. What is absent is refused: 00,
 * the end-of-contents mark of BER; 10 and 11, SEQUENCE and SET that claim to be primitive; types that nothing uses.
 */
const anything: ContentsRule = () => {}
const contents: readonly (ContentsRule | undefined)[] = Object.assign(
  new Array<ContentsRule | undefined>(0x40).fill(undefined),
  {
    [0x01]: assertBoolean,
    [0x02]: assertInteger,
    [0x03]: assertBitString,
    [0x04]: anything, // OCTET STRING
    [0x05]: assertNull,
    [0x06]: assertOid,
    [0x0a]: assertInteger, // ENUMERATED
    [0x0c]: anything, // UTF8String
    [0x12]: anything, // NumericString
    [0x13]: anything, // PrintableString
    [0x14]: anything, // TeletexString: refused where it would be read
    [0x16]: anything, // IA5String
    [0x17]: anything, // UTCTime
    [0x18]: anything, // GeneralizedTime
    [0x1a]: anything, // VisibleString
    [0x1b]: anything, // GeneralString
    [0x1c]: anything, // UniversalString: likewise
    [0x1e]: anything, // BMPString: likewise
  },
)

const maxDepth = 24
const maxNodes = 20_000
/** Where the elements end that are open in a walk: one for all walks, since none waits, and no rule of contents walks itself. */
const ends = new Uint32Array(maxDepth)
const dottedOids = new Map<string, string>()
const maxKnownOids = 256
const longestKnownOid = 64
const mostShown = 64
/** By their second octet, and there by their third. */
const families: Readonly<Record<number, string[]>> = { 4: new Array(256), 29: new Array(256) }
const zero = Buffer.from([0])
