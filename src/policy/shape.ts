/**
 * The shape of documents that people write: a closed schema, and every fault with its place. Of JSON Schema (2020-12) it
 * knows what our schemas use, and throws at anything else. Libraries either take 90 ms to load or 120 to compile the schema
 * of profiles, on the event loop of a service that issues; a test holds this against one of them.
 */
import { isObject } from '../lib/canonical-json.ts'
import type { TSchema } from '../lib/schema.ts'
import { pointer, show } from './names.ts'

export interface ShapeFault {
  /** A JSON pointer (RFC 6901). */
  readonly field: string
  readonly value: string
  readonly reason: string
}

/** The faults of the input's shape, each once: an unknown field, a missing one, a value that is not what its description says. */
export const shapeFaults = (schema: TSchema, input: unknown): ShapeFault[] => {
  const faults = new Map<string, ShapeFault>()
  for (const fault of faultsIn(schema as Schema, input, '')) {
    const key = `${fault.field}\n${fault.reason}`
    if (!faults.has(key)) faults.set(key, fault)
    if (faults.size === mostFaults) break
  }
  return [...faults.values()]
}

/** Nobody reads more of one document, of its shape and of its sense. */
export const mostFaults = 1000

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

/** The members whose own shape is sound, whatever is wrong with the others. */
export const soundMembers = (
  schemas: Readonly<Record<string, object>>,
  input: unknown,
): Readonly<Record<string, unknown>> =>
  isObject(input)
    ? Object.fromEntries(
        Object.entries(schemas)
          .filter(([key, schema]) => has(input, key) && isSound(schema as Schema, input[key]))
          .map(([key]) => [key, input[key]]),
      )
    : {}

/**
 * The items whose own shape is sound, each at its place, of as many as there may be. What is not leaves a hole, which no method
 * of arrays visits. Undefined where there is no list.
 */
export const soundItems = (list: object, input: unknown): readonly unknown[] | undefined => {
  if (!Array.isArray(input)) return undefined
  const { items: schema, maxItems } = list as Schema
  const given = input.slice(0, Number(maxItems))
  const sound = new Array<unknown>(given.length)
  given.forEach((item, index) => {
    if (isSound(schema as Schema, item)) sound[index] = item
  })
  return sound
}

type Schema = Readonly<Record<string, unknown>>

/** One by one, so that whoever has enough stops the search. */
function* faultsIn(schema: Schema, value: unknown, at: string): Generator<ShapeFault> {
  for (const [keyword, rule] of Object.entries(schema)) {
    if (annotations.has(keyword) || structure.has(keyword)) continue
    const assertion = assertions[keyword]
    if (!assertion) throw new TypeError(`${keyword} is no keyword that shapes are judged by.`)
    if (!assertion.holds(value, rule))
      yield { field: at, value: isWhole(value, at) ? '' : show(value), reason: reasonOf(schema, assertion, rule) }
  }
  if (isObject(value)) yield* faultsOfMembers(schema, value, at)
  if (Array.isArray(value) && isObject(schema['items']))
    for (const [index, item] of value.entries()) yield* faultsIn(schema['items'], item, `${at}/${index}`)
}

/** One value is no document: of a file that was named in place of one, a token, a passphrase or a PIN, and shown to nobody. */
const isWhole = (value: unknown, at: string): boolean => at === '' && typeof value !== 'object'

function* faultsOfMembers(schema: Schema, value: Schema, at: string): Generator<ShapeFault> {
  for (const name of (schema['required'] ?? []) as readonly string[])
    if (!has(value, name)) yield { field: `${at}/${pointer(name)}`, value: '', reason: 'is missing' }
  if (schema['additionalProperties'] === false)
    for (const name of Object.keys(value))
      if (shapesOf(schema, name).length === 0)
        yield { field: `${at}/${pointer(name)}`, value: show(name), reason: 'is not a known field' }
  for (const [name, member] of Object.entries(value))
    for (const shape of shapesOf(schema, name)) yield* faultsIn(shape, member, `${at}/${pointer(name)}`)
}

const shapesOf = ({ properties, patternProperties }: Schema, name: string): readonly Schema[] => {
  const known = (properties ?? {}) as Readonly<Record<string, Schema>>
  const byPattern = Object.entries((patternProperties ?? {}) as Readonly<Record<string, Schema>>)
  return [
    ...(Object.hasOwn(known, name) ? [known[name] as Schema] : []),
    ...byPattern.filter(([pattern]) => expression(pattern).test(name)).map(([, shape]) => shape),
  ]
}

const has = (value: Schema, name: string): boolean => Object.hasOwn(value, name) && value[name] !== undefined

const isSound = (schema: Schema, value: unknown): boolean => faultsIn(schema, value, '').next().done === true

interface Assertion {
  /** Of a value of another type it holds (JSON Schema Validation 6). */
  holds(value: unknown, rule: unknown): boolean
  /** What the value must be, where nothing describes it. */
  otherwise(rule: unknown): string
  /** Said also where something describes it. */
  readonly isOfItsOwn?: true
}

const annotations: ReadonlySet<string> = new Set(['description', 'default', 'examples', '$comment'])
/** Looked at with the members and items that it is about. */
const structure: ReadonlySet<string> = new Set([
  'properties',
  'patternProperties',
  'additionalProperties',
  'required',
  'items',
])

const measured = (
  of: (value: unknown) => number | undefined,
  fits: (measure: number, bound: number) => boolean,
  otherwise: (bound: unknown) => string,
): Assertion => ({
  holds: (value, bound) => {
    const measure = of(value)
    return measure === undefined || fits(measure, Number(bound))
  },
  otherwise,
})

const least = (measure: number, bound: number): boolean => measure >= bound
const most = (measure: number, bound: number): boolean => measure <= bound
/** In characters, as RFC 8259 counts them. */
const length = (value: unknown) => (typeof value === 'string' ? [...value].length : undefined)
const itself = (value: unknown) => (typeof value === 'number' ? value : undefined)
const items = (value: unknown) => (Array.isArray(value) ? value.length : undefined)
const fields = (value: unknown) => (isObject(value) ? Object.keys(value).length : undefined)

const assertions: Readonly<Record<string, Assertion>> = {
  type: {
    holds: (value, type) => types[String(type)]?.(value) === true,
    otherwise: (type) => `must be of type ${type}`,
  },
  const: { holds: (value, rule) => value === rule, otherwise: (rule) => `must be ${show(rule)}` },
  enum: {
    holds: (value, rule) => (rule as readonly unknown[]).includes(value),
    otherwise: (rule) => `must be one of ${(rule as readonly unknown[]).join(', ')}`,
  },
  anyOf: {
    holds: (value, rule) => (rule as readonly Schema[]).some((branch) => isSound(branch, value)),
    otherwise: () => 'must be one of what may stand here',
  },
  pattern: {
    holds: (value, rule) => typeof value !== 'string' || expression(String(rule)).test(value),
    otherwise: (rule) => `must match ${rule}`,
  },
  minLength: measured(length, least, (bound) => `must have at least ${bound} characters`),
  maxLength: measured(length, most, (bound) => `must have at most ${bound} characters`),
  minimum: measured(itself, least, (bound) => `must be at least ${bound}`),
  maximum: measured(itself, most, (bound) => `must be at most ${bound}`),
  minItems: measured(items, least, (bound) => `must have at least ${bound} items`),
  maxItems: measured(items, most, (bound) => `must have at most ${bound} items`),
  minProperties: measured(fields, least, (bound) => `must have at least ${bound} fields`),
  maxProperties: measured(fields, most, (bound) => `must have at most ${bound} fields`),
  uniqueItems: {
    holds: (value, rule) =>
      rule !== true ||
      !Array.isArray(value) ||
      new Set(value.map((item) => JSON.stringify(item))).size === value.length,
    otherwise: () => 'holds an item twice',
    isOfItsOwn: true,
  },
}

const types: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: isObject,
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  integer: Number.isInteger,
  number: Number.isFinite,
  null: (value) => value === null,
}

const reasonOf = ({ description }: Schema, { otherwise, isOfItsOwn }: Assertion, rule: unknown): string =>
  typeof description === 'string' && !isOfItsOwn ? `must be ${description}` : otherwise(rule)

const expressions = new Map<string, RegExp>()
const expression = (pattern: string): RegExp => {
  const known = expressions.get(pattern) ?? new RegExp(pattern, 'u')
  expressions.set(pattern, known)
  return known
}

/** RFC 6901 4. */
const indexForm = /^(0|[1-9][0-9]*)$/
