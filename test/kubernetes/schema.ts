/** Structural schemas of custom resources: what they default, prune and refuse. */
import { type Cause, invalidValue, notSupported, quote, required, wrongType } from './refusal.ts'
import { at, copy, isTree, type Tree, textAt, textsAt, treeAt, type Value } from './values.ts'

export interface Pruned {
  readonly value: Tree
  /** Paths of fields that the schema does not know, as the warning names them. */
  readonly unknown: readonly string[]
}

/** The object with defaults and without unknown fields; metadata is the server's own and passes. */
export const pruneBySchema = (object: Tree, schema: Tree): Pruned => {
  const unknown: string[] = []
  const value = prune(object, { ...schema, root: true }, '', unknown) as Tree
  return { value, unknown: unknown.sort() }
}

const prune = (value: Value, schema: Tree, path: string, unknown: string[]): Value => {
  if (Array.isArray(value)) {
    const items = treeAt(schema, 'items')
    return value.map((item, index) => prune(item, items, `${path}[${index}]`, unknown))
  }
  if (!isTree(value)) return value
  const { additionalProperties, properties } = schema
  const pruned: Tree = {}
  for (const [key, item] of Object.entries(value)) {
    const way = path === '' ? key : `${path}.${key}`
    const known = at(properties, key) ?? (isTree(additionalProperties) ? additionalProperties : undefined)
    if (schema['root'] === true && rootFields.has(key)) pruned[key] = copy(item)
    else if (isTree(known)) pruned[key] = prune(item, known, way, unknown)
    else if (at(schema, 'x-kubernetes-preserve-unknown-fields') === true) pruned[key] = copy(item)
    else unknown.push(way)
  }
  for (const [key, inner] of Object.entries(treeAt(properties))) {
    const byDefault = at(inner, 'default')
    if (byDefault !== undefined && pruned[key] === undefined) pruned[key] = copy(byDefault)
  }
  return pruned
}

/** What the schema refuses. A status is judged by itself, and its paths within the body begin below it. */
export const validateBySchema = (value: Value, schema: Tree, root: readonly string[] = []): Cause[] =>
  validate(value, schema, { field: root.join('.'), body: '' })

interface Place {
  readonly field: string
  readonly body: string
}

const validate = (value: Value, schema: Tree, place: Place): Cause[] => {
  if (value === null) return at(schema, 'nullable') === true ? [] : wrongTypes('null', schema, place)
  const check = checks[textAt(schema, 'type')]
  if (check === undefined) return []
  return check(value, schema, place) ?? wrongTypes(typeName(value), schema, place)
}

const below = (place: Place, key: string): Place => ({
  field: place.field === '' ? key : `${place.field}${key.startsWith('[') ? '' : '.'}${key}`,
  body: place.body === '' ? key : `${place.body}${key.startsWith('[') ? '' : '.'}${key}`,
})

/** Undefined where the value is of another type. */
const checks: Readonly<Record<string, (value: Value, schema: Tree, place: Place) => Cause[] | undefined>> = {
  object: (value, schema, place) => {
    if (!isTree(value)) return undefined
    const { properties, additionalProperties } = schema
    const causes = Object.entries(value)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .flatMap(([key, item]) => {
        const inner = at(properties, key) ?? additionalProperties
        return isTree(inner) ? validate(item, inner, below(place, key)) : []
      })
    const missing = textsAt(schema, 'required').filter((key) => value[key] === undefined)
    return [...causes, ...missing.map((key) => required(below(place, key).field))]
  },
  array: (value, schema, place) => {
    if (!Array.isArray(value)) return undefined
    const items = treeAt(schema, 'items')
    return value.flatMap((item, index) => validate(item, items, below(place, `[${index}]`)))
  },
  string: (value, schema, place) => (typeof value === 'string' ? ofText(value, schema, place) : undefined),
  integer: (value, schema, place) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) return undefined
    const least = at(schema, 'minimum')
    return typeof least === 'number' && value < least
      ? [invalidValue(place.field, String(value), `${place.body} in body should be greater than or equal to ${least}`)]
      : []
  },
  boolean: (value) => (typeof value === 'boolean' ? [] : undefined),
}

const ofText = (value: string, schema: Tree, place: Place): Cause[] => {
  const { minLength, maxLength, pattern } = schema
  const said = (detail: string): Cause => invalidValue(place.field, quote(value), `${place.body} in body ${detail}`)
  const format = textAt(schema, 'format')
  const allowed = textsAt(schema, 'enum')
  return [
    ...(formats[format]?.test(value) === false
      ? [wrongType(place.field, value, `${place.body} in body must be of type ${format}: ${quote(value)}`)]
      : []),
    ...(typeof minLength === 'number' && value.length < minLength
      ? [said(`should be at least ${minLength} chars long`)]
      : []),
    ...(typeof maxLength === 'number' && value.length > maxLength
      ? [
          {
            reason: 'FieldValueTooLong',
            message: `Too long: may not be more than ${maxLength} bytes`,
            field: place.field,
          },
        ]
      : []),
    ...(typeof pattern === 'string' && !new RegExp(pattern).test(value) ? [said(`should match '${pattern}'`)] : []),
    ...(allowed.length > 0 && !allowed.includes(value) ? [notSupported(place.field, value, allowed)] : []),
  ]
}

const wrongTypes = (found: string, schema: Tree, { field, body }: Place): Cause[] => [
  wrongType(field, found, `${body} in body must be of type ${textAt(schema, 'type')}: ${quote(found)}`),
]

const typeName = (value: Value): string => {
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number'
  return typeof value
}

/** Faults of a schema itself that the fixtures show: keys of a list that its items do not have. */
export const faultsOfSchema = (schema: Tree, path: string): Cause[] => {
  const items = treeAt(schema, 'items')
  const keys = textsAt(schema, 'x-kubernetes-list-map-keys')
  const named = treeAt(items, 'properties')
  return [
    ...(keys.every((key) => Object.hasOwn(named, key))
      ? []
      : [
          invalidValue(
            `${path}.x-kubernetes-list-map-keys`,
            JSON.stringify(keys),
            'entries must all be names of item properties',
          ),
        ]),
    ...Object.entries(treeAt(schema, 'properties')).flatMap(([name, inner]) =>
      isTree(inner) ? faultsOfSchema(inner, `${path}.properties[${name}]`) : [],
    ),
    ...(Object.keys(items).length > 0 ? faultsOfSchema(items, `${path}.items`) : []),
  ]
}

const rootFields = new Set(['apiVersion', 'kind', 'metadata'])

const formats: Readonly<Record<string, RegExp>> = {
  byte: /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/,
  'date-time': /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/,
}
