/**
 * How values of a type are taken apart when fields are owned: what is owned whole, what field by field, and which lists
 * are maps by a key. Deduced (`loose`) where no schema says otherwise: objects by field, lists whole.
 */
import { at, isTree, type Tree, textAt, textsAt, treeAt, type Value } from './values.ts'

export type Shape =
  | { readonly of: 'whole' }
  | { readonly of: 'loose' }
  | { readonly of: 'fields'; readonly fields: Readonly<Record<string, Shape>>; readonly others: Shape | undefined }
  | { readonly of: 'map'; readonly item: Shape }
  | { readonly of: 'list'; readonly keys: readonly string[]; readonly item: Shape }
  | { readonly of: 'set' }

export const whole: Shape = { of: 'whole' }
export const loose: Shape = { of: 'loose' }
export const map = (item: Shape = whole): Shape => ({ of: 'map', item })
export const byKey = (key: string, item: Shape = loose): Shape => ({ of: 'list', keys: [key], item })

/** Fields named here are as said; others are deduced. */
export const fields = (named: Readonly<Record<string, Shape>>, others: Shape | undefined = loose): Shape => ({
  of: 'fields',
  fields: named,
  others,
})

/** The same metadata in every kind. */
export const metadataShape = fields({
  annotations: map(),
  labels: map(),
  finalizers: { of: 'set' },
  ownerReferences: byKey('uid', whole),
})

export const objectShape = (rest: Readonly<Record<string, Shape>> = {}, others: Shape | undefined = loose): Shape =>
  fields({ metadata: metadataShape, ...rest }, others)

/** The shape that a structural schema of a CRD says. */
export const shapeOfSchema = (schema: Tree): Shape => {
  if (at(schema, 'x-kubernetes-preserve-unknown-fields') === true) return loose
  if (schema['type'] === 'array') return listShape(schema)
  if (schema['type'] !== 'object' || textAt(schema, 'x-kubernetes-map-type') === 'atomic') return whole
  const { additionalProperties } = schema
  if (isTree(additionalProperties)) return map(shapeOfSchema(additionalProperties))
  const named = Object.entries(treeAt(schema, 'properties'))
  if (named.length === 0) return whole
  return fields(Object.fromEntries(named.map(([name, inner]) => [name, shapeOfSchema(inner as Tree)])), undefined)
}

const listShape = (schema: Tree): Shape => {
  const type = textAt(schema, 'x-kubernetes-list-type')
  if (type === 'set') return { of: 'set' }
  if (type !== 'map') return whole
  return {
    of: 'list',
    keys: textsAt(schema, 'x-kubernetes-list-map-keys'),
    item: shapeOfSchema(treeAt(schema, 'items')),
  }
}

/** The shape of a field, or undefined where the schema does not know it. */
export const shapeOfField = (shape: Shape, name: string): Shape | undefined => {
  if (shape.of === 'fields') return Object.hasOwn(shape.fields, name) ? shape.fields[name] : shape.others
  return shape.of === 'map' ? shape.item : loose
}

/** What a value is in fact: an object or list that is taken apart, or owned whole. */
export const partsOf = (value: Value | undefined, shape: Shape): 'object' | 'list' | 'set' | undefined => {
  if (isTree(value) && (shape.of === 'fields' || shape.of === 'map' || shape.of === 'loose')) return 'object'
  if (!Array.isArray(value)) return undefined
  return shape.of === 'list' || shape.of === 'set' ? shape.of : undefined
}
