/** Documents that people write: first their shape, by a closed schema, then their sense. Every fault has its place. */
import { Ajv, type ErrorObject } from 'ajv'

import type { Violation } from '../errors.ts'
import { canonicalJson, isObject } from '../lib/canonical-json.ts'
import type { TSchema } from '../lib/schema.ts'
import { pointer, show } from './names.ts'

export interface ShapeFault {
  /** A JSON pointer (RFC 6901). */
  readonly field: string
  readonly value: string
  readonly reason: string
}

export type Report = (field: string, value: unknown, reason: string) => void
/** Reports what the schema cannot say, under the name of a check. */
export type Sense<D> = readonly [check: string, find: (document: D, report: Report) => void]

/** The faults of a document: of its shape where there are any, else of its sense. */
export const documentFaults = <D>(
  input: unknown,
  { check, schema, senses }: { readonly check: string; readonly schema: TSchema; readonly senses: readonly Sense<D>[] },
): readonly Violation[] => {
  const shape = shapeFaults(schema, input)
  if (shape.length > 0) return shape.map((fault) => ({ check, ...fault }))
  const reason = faultOfText(input)
  if (reason !== undefined) return [{ check, field: '', value: '', reason }]
  const faults: Violation[] = []
  for (const [check, find] of senses)
    find(input as D, (field, value, reason) => faults.push({ check, field, value: show(value), reason }))
  return faults.slice(0, mostFaults)
}

/** Each once: an unknown field, a missing one, a value that is not what its description says. */
export const shapeFaults = (schema: TSchema, input: unknown): ShapeFault[] => {
  const validate = ajv.compile(schema)
  if (validate(input)) return []
  const faults = new Map<string, ShapeFault>()
  for (const error of validate.errors ?? []) {
    // Of a union, only that no branch fits.
    if (error.schemaPath.includes('/anyOf/')) continue
    const fault = shapeFault(error)
    faults.set(`${fault.field}\n${fault.reason}`, fault)
    if (faults.size === mostFaults) break
  }
  return [...faults.values()]
}

const shapeFault = ({ keyword, instancePath, params, data, parentSchema }: ErrorObject): ShapeFault => {
  if (keyword === 'required')
    return { field: `${instancePath}/${pointer(params['missingProperty'])}`, value: '', reason: 'is missing' }
  if (keyword === 'additionalProperties') {
    const name = String(params['additionalProperty'])
    return { field: `${instancePath}/${pointer(name)}`, value: show(name), reason: 'is not a known field' }
  }
  const description: unknown = parentSchema?.['description']
  const reason =
    typeof description === 'string' && keyword !== 'uniqueItems'
      ? `must be ${description}`
      : shapeWords(keyword, params)
  // A whole document that is one text may be a secret in the wrong file.
  const isWhole = instancePath === '' && typeof data !== 'object'
  return { field: instancePath, value: isWhole ? '' : show(data), reason }
}

/** What a value must be, by the keyword of JSON Schema that it does not fit. */
export const shapeWords = (keyword: string, params: Readonly<Record<string, unknown>>): string =>
  words[keyword]?.(params) ?? 'must be one of what may stand here'

const words: Readonly<Record<string, (params: Readonly<Record<string, unknown>>) => string>> = {
  type: ({ type }) => `must be of type ${type}`,
  const: ({ allowedValue }) => `must be ${allowedValue}`,
  enum: ({ allowedValues }) => `must be one of ${(allowedValues as readonly unknown[]).join(', ')}`,
  pattern: ({ pattern }) => `must match ${pattern}`,
  minimum: ({ limit }) => `must be at least ${limit}`,
  maximum: ({ limit }) => `must be at most ${limit}`,
  minLength: ({ limit }) => atLeast(limit, 'character'),
  maxLength: ({ limit }) => atMost(limit, 'character'),
  minItems: ({ limit }) => atLeast(limit, 'item'),
  maxItems: ({ limit }) => atMost(limit, 'item'),
  minProperties: ({ limit }) => atLeast(limit, 'field'),
  maxProperties: ({ limit }) => atMost(limit, 'field'),
  uniqueItems: () => 'holds an item twice',
}

const atLeast = (limit: unknown, what: string): string => `must have at least ${limit} ${what}${limit === 1 ? '' : 's'}`
const atMost = (limit: unknown, what: string): string => `must have at most ${limit} ${what}${limit === 1 ? '' : 's'}`

const faultOfText = (document: unknown): string | undefined => {
  try {
    const text = canonicalJson(document)
    if (escapedNul.test(text)) return 'has a NUL in one of its texts'
    const octets = Buffer.byteLength(text)
    return octets > maxOctets ? `is ${octets} octets of canonical JSON; at most ${maxOctets} are allowed` : undefined
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return `is not plain JSON: ${error.message}`
  }
}

/** The value at a JSON pointer (RFC 6901); undefined where there is none. */
export const valueAt = (root: unknown, path: string): unknown =>
  tokensOf(path).reduce<unknown>((value, token) => {
    if (Array.isArray(value)) return indexForm.test(token) ? value[Number(token)] : undefined
    return isObject(value) && Object.hasOwn(value, token) ? value[token] : undefined
  }, root)

/** The names and places on the way (RFC 6901 4). */
export const tokensOf = (path: string): readonly string[] =>
  path
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))

/** Keeps what it has compiled by the identity of the schema. */
const ajv = new Ajv({ allErrors: true, verbose: true, ownProperties: true, strictTypes: false })
const mostFaults = 1000
const maxOctets = 65_536
/** In JSON: neither a database nor a terminal takes a NUL in a text. */
const escapedNul = /(?<!\\)(?:\\\\)*\\u0000/
/** RFC 6901 4. */
const indexForm = /^(0|[1-9][0-9]*)$/
