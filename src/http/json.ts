/** JSON bodies to plain data, or not at all: no member twice, none that touches a prototype, and bounds before anything is built. */
import { Problem } from '../errors.ts'

export interface JsonBounds {
  /** Objects and arrays within each other. */
  readonly depth: number
  /** Members of objects and items of arrays. */
  readonly values: number
  /** Objects and members: each takes as long as ten plain values (measured). */
  readonly fields: number
}

export const smallBody: JsonBounds = { depth: 16, values: 8_192, fields: 16_384 }
/** A thousand requests of a hundred names each. */
export const largeBody: JsonBounds = { depth: 16, values: 131_072, fields: 32_768 }

/** Parses JSON (RFC 8259) in UTF-8. Throws `request.malformed`, with the offset where the body stops being acceptable. */
export const parseJson = (octets: Buffer, bounds: JsonBounds = smallBody): unknown => {
  assertPlain(octets, bounds)
  try {
    return JSON.parse(utf8.decode(octets))
  } catch (error) {
    // The message of V8 quotes the input.
    throw malformed(error instanceof SyntaxError ? 'The body is not JSON.' : 'The body is not UTF-8.')
  }
}

/** One pass over the octets. What it accepts may still not be JSON. */
const assertPlain = (octets: Buffer, { depth, values, fields }: JsonBounds): void => {
  const open: (Set<string> | undefined)[] = []
  let names: Set<string> | undefined
  let isName = false
  let valuesSeen = 0
  let fieldsSeen = 0
  for (let i = 0; i < octets.length; i++) {
    const octet = octets[i]
    if (octet === quote) {
      const end = endOfString(octets, i)
      if (isName && names) {
        assertName(octets, i + 1, end, names)
        fieldsSeen += 1
      }
      isName = false
      i = end
    } else if (octet === openObject || octet === openArray) {
      names = octet === openObject ? new Set() : undefined
      isName = names !== undefined
      valuesSeen += 1
      if (isName) fieldsSeen += 1
      if (open.push(names) > depth) throw malformed(`The body nests deeper than ${depth}.`, i)
    } else if (octet === closeObject || octet === closeArray) {
      open.pop()
      names = open.at(-1)
      isName = false
    } else if (octet === comma) {
      valuesSeen += 1
      isName = names !== undefined
    }
    if (valuesSeen > values) throw malformed(`The body holds more than ${values} values.`, i)
    if (fieldsSeen > fields) throw malformed(`The body holds more than ${fields} objects and fields.`, i)
  }
}

const endOfString = (octets: Buffer, start: number): number => {
  for (let end = start + 1; end < octets.length; end += octets[end] === backslash ? 2 : 1)
    if (octets[end] === quote) return end
  throw malformed('A string has no end.', start)
}

const assertName = (octets: Buffer, start: number, end: number, names: Set<string>): void => {
  const name = octets.toString('latin1', start, end)
  // An escape could spell any other name; none of ours needs one.
  if (name.includes('\\')) throw malformed('A name of a field is written with escapes.', start)
  if (forbidden.has(name)) throw malformed('A name of a field is not accepted.', start)
  if (names.has(name)) throw malformed('A field occurs twice.', start)
  names.add(name)
}

const malformed = (detail: string, offset?: number): Problem =>
  new Problem('request.malformed', detail, offset === undefined ? {} : { offset })

const utf8 = new TextDecoder('utf8', { fatal: true, ignoreBOM: true })
const forbidden: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype'])
const [quote, backslash, comma] = [0x22, 0x5c, 0x2c]
const [openObject, closeObject, openArray, closeArray] = [0x7b, 0x7d, 0x5b, 0x5d]
