/**
 * Bodies to values. JSON and YAML come out as plain data, or not at all: no duplicate keys, no keys that touch
 * prototypes, no aliases, no tags but those of JSON, no merge keys, and a bound on nesting and on the number of values
 * before anything is built, so that no body holds the event loop (incident 50).
 */
import { isUtf8 } from 'node:buffer'

import { type Alias, Composer, type CST, type Document, isScalar, Parser, visit, type YAMLMap } from 'yaml'

import { isProblem, Problem } from '../errors.ts'

export interface DataBounds {
  /** Objects and arrays within each other. */
  readonly depth: number
  /** Values in all: members of objects and items of arrays. */
  readonly values: number
  /** Members of objects, and objects, where they are fewer: a name of a field takes as long as ten plain values (measured). */
  readonly fields?: number
}

export const smallBody: DataBounds = { depth: 16, values: 8_192 }
/** The library takes 6 µs a value (measured). */
const yamlBody: DataBounds = { depth: 16, values: 2_048 }
/** A thousand requests of a hundred names each, and what else one has. */
export const largeBody: DataBounds = { depth: 16, values: 131_072, fields: 32_768 }

/** Whether it holds more values than that; looks no further than it must. */
export const isLargerThan = (value: unknown, most: number): boolean => {
  const open = [value]
  let values = 0
  while (open.length > 0 && values <= most) {
    const next = open.pop()
    if (typeof next !== 'object' || next === null) continue
    const members = Object.values(next)
    values += members.length
    if (values <= most) open.push(...members)
  }
  return values > most
}

/** Parses JSON (RFC 8259) strictly. Throws `request.malformed` with the offset where it stops being acceptable. */
export const parseJson = (octets: Buffer, bounds: DataBounds = smallBody): unknown => {
  assertUtf8(octets)
  // Editors write one, and show none (RFC 8259 8.1).
  if (octets.subarray(0, 3).equals(byteOrderMark))
    throw new Problem('request.malformed', 'The body begins with a byte order mark: send it without.', { offset: 0 })
  assertPlain(octets, bounds)
  try {
    return JSON.parse(octets.toString())
  } catch {
    // V8's message quotes the input; it goes nowhere.
    throw new Problem('request.malformed', 'The body is not JSON.')
  }
}

/** Parses one YAML 1.2 document of the core schema. Throws `request.malformed`. */
export const parseYaml = (octets: Buffer, bounds: DataBounds = yamlBody): unknown => {
  assertUtf8(octets)
  assertShallow(octets, bounds)
  if (octets.length > yamlLimit)
    throw new Problem('request.too_large', `YAML is taken up to ${yamlLimit} octets; send JSON.`)
  try {
    const document = withoutTraces(() => onlyDocument(octets.toString()))
    visit(document, { Map: assertUniqueKeys, Alias: refuseAlias })
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    if (isProblem(error)) throw error
    throw new Problem('request.malformed', 'The body is not plain YAML.')
  }
}

const onlyDocument = (text: string): Document.Parsed => {
  const tokens = untilFault(new Parser().parse(text))
  const [document, another] = new Composer(yamlOptions).compose(tokens, true, text.length)
  const [fault] = [...(document?.errors ?? []), ...(document?.warnings ?? [])]
  if (fault) throw notPlain(yamlFaults[fault.code] ?? fault.code, fault.pos[0])
  if (!document || another) throw notPlain('it has several documents', another?.range[0])
  return document
}

/** The library would go on, and tell of thousands. */
function* untilFault(tokens: Iterable<CST.Token>): Generator<CST.Token> {
  for (const token of tokens) {
    yield token
    if (token.type === 'error') return
  }
}

/** `*.example.com` without quotes is one, which whoever wrote it did not mean. */
const refuseAlias = (_place: unknown, { range }: Alias): never => {
  throw notPlain('aliases are not accepted, so a text that begins with * stands in quotes', range?.[0])
}

const notPlain = (why: string, offset: number | undefined): Problem =>
  new Problem('request.malformed', `The body is not plain YAML: ${why}.`, offset === undefined ? {} : { offset })

/** Where the library's code alone would be less than a clause. */
const yamlFaults: Readonly<Record<string, string>> = {
  NON_STRING_KEY: 'the name of a field is no text',
  TAG_RESOLVE_FAILED: 'a tag is not accepted',
}

/** A document may hold thousands of faults, and the library makes an error of each: where each was made, which nobody looks at, took most of the time. */
const withoutTraces = <T>(work: () => T): T => {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return work()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** The library compares each key with every other, which takes a quarter of a second for 4,000 (measured). */
const assertUniqueKeys = (_place: unknown, map: YAMLMap): void => {
  const keys = new Set<unknown>()
  for (const { key } of map.items) {
    const value = isScalar(key) ? key.value : undefined
    if (typeof value !== 'string' || keys.has(value))
      throw new Problem('request.malformed', 'A field occurs twice, or its name is no text.')
    keys.add(value)
  }
}

const assertUtf8 = (octets: Buffer): void => {
  if (octets.length === 0) throw new Problem('request.malformed', 'The body is empty.')
  if (!isUtf8(octets)) throw new Problem('request.malformed', 'The body is not UTF-8.')
}

/** One pass over the octets. What it lets through may still not be JSON; `JSON.parse` judges that. */
const assertPlain = (octets: Buffer, bounds: DataBounds): void => {
  const open: (Set<string> | null)[] = []
  const marks = { quote: 0, backslash: 0 }
  const most = bounds.fields ?? Number.POSITIVE_INFINITY
  let keys: Set<string> | null = null
  let isKey = false
  let values = 0
  let fields = 0
  for (let i = 0; i < octets.length; i++) {
    const octet = octets[i]
    if (octet === quote) {
      const end = endOfString(octets, i, marks)
      if (isKey && keys) {
        assertKey(octets, i + 1, end, keys)
        fields += 1
      }
      isKey = false
      i = end
    } else if (octet === openObject || octet === openArray) {
      keys = octet === openObject ? new Set() : null
      isKey = keys !== null
      values += 1
      if (isKey) fields += 1
      if (open.push(keys) > bounds.depth)
        throw new Problem('request.malformed', `The body nests deeper than ${bounds.depth}.`, { offset: i })
    } else if (octet === closeObject || octet === closeArray) {
      open.pop()
      keys = open.at(-1) ?? null
      isKey = false
    } else if (octet === comma) {
      values += 1
      isKey = keys !== null
    }
    if (values > bounds.values)
      throw new Problem('request.malformed', `The body holds more than ${bounds.values} values.`, { offset: i })
    if (fields > most)
      throw new Problem('request.malformed', `The body holds more than ${most} objects and fields.`, { offset: i })
  }
}

/** Where the next ones stand that are not before what was read; beyond the octets where there is none. */
interface Marks {
  quote: number
  backslash: number
}

/**
 * Octet by octet as long as a name or a line of PEM, and between escapes; beyond that by looking for what can end it or has to
 * be stepped over. Each mark is looked for once, so that no text is read again for each of its strings or escapes.
 */
const endOfString = (octets: Buffer, start: number, marks: Marks): number => {
  let end = start + 1
  for (;;) {
    const near = Math.min(end + octetsAtHand, octets.length)
    while (end < near && octets[end] !== quote) end += octets[end] === backslash ? 2 : 1
    if (end < near) return end
    if (marks.quote < end) marks.quote = positionOf(quote, octets, end)
    if (marks.quote >= octets.length) throw new Problem('request.malformed', 'A string has no end.', { offset: start })
    if (marks.backslash < end) marks.backslash = positionOf(backslash, octets, end)
    end = Math.min(marks.quote, marks.backslash)
  }
}

const positionOf = (mark: number, octets: Buffer, from: number): number => {
  const found = octets.indexOf(mark, from)
  return found < 0 ? octets.length : found
}

const assertKey = (octets: Buffer, start: number, end: number, keys: Set<string>): void => {
  const key = octets.toString('latin1', start, end)
  // An escape in a name could spell any of the others; none of our names needs one.
  if (key.includes('\\'))
    throw new Problem('request.malformed', 'A name of a field is written with escapes.', { offset: start })
  if (forbiddenKeys.has(key))
    throw new Problem('request.malformed', 'A name of a field is not accepted.', { offset: start })
  if (keys.has(key)) throw new Problem('request.malformed', 'A field occurs twice.', { offset: start })
  keys.add(key)
}

/** YAML's parser recurses; this bounds how deep, by brackets and by indentation, and how much there is of it. */
const assertShallow = (octets: Buffer, bounds: DataBounds): void => {
  let flow = 0
  let values = 0
  let indent = 0
  let fields = 0
  for (let i = 0; i < octets.length; i++) {
    const octet = octets[i]
    if (octet === newline) indent = 0
    // `- - a` and `? ? a` open levels on one line, so their marks count as indentation.
    else if (indent >= 0 && (octet === space || octet === dash || octet === question)) indent += 1
    else indent = -1
    const isOpening = octet === openObject || octet === openArray
    const isClosing = octet === closeObject || octet === closeArray
    if (isOpening || octet === comma || octet === newline || (isClosing && flow === 0)) values += 1
    if (octet === colon && octets[i + 1] === space) fields += 1
    if (isOpening) flow += 1
    else if (isClosing && flow > 0) flow -= 1
    if (flow > bounds.depth || indent > bounds.depth * widestIndent || Math.max(values, fields) > bounds.values) {
      throw new Problem('request.malformed', 'The body nests too deep or holds too many values.', { offset: i })
    }
  }
}

const yamlOptions = {
  version: '1.2',
  schema: 'core',
  strict: true,
  uniqueKeys: false,
  merge: false,
  resolveKnownTags: false,
  stringKeys: true,
  prettyErrors: false,
} as const

/** What the library reads in 50 ms, whatever it is (measured); a profile has one or two thousand. */
const yamlLimit = 16 * 1024

const byteOrderMark = Buffer.from('\ufeff')
const forbiddenKeys = new Set(['__proto__', 'constructor', 'prototype'])

const quote = 0x22
const backslash = 0x5c
const openObject = 0x7b
const closeObject = 0x7d
const openArray = 0x5b
const closeArray = 0x5d
const comma = 0x2c
const colon = 0x3a
const newline = 0x0a
const space = 0x20
const dash = 0x2d
const question = 0x3f
const widestIndent = 8
/** A line of PEM, and its end. */
const octetsAtHand = 72
