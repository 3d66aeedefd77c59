/** Sets of fields (FieldsV1), and what values say about them: which there are, and how two differ. */
import { partsOf, type Shape, shapeOfField, whole } from './shape.ts'
import { isTree, same, type Tree, type Value } from './values.ts'

/** A trie by path elements: `f:name`, `k:{"type":"Ready"}`, `v:"text"`. */
export interface FieldSet {
  readonly owned: boolean
  readonly inner: ReadonlyMap<string, FieldSet>
}

export const none: FieldSet = { owned: false, inner: new Map() }
const leaf: FieldSet = { owned: true, inner: new Map() }

export const isEmpty = (set: FieldSet): boolean => !set.owned && set.inner.size === 0

export const union = (one: FieldSet, other: FieldSet): FieldSet => {
  const inner = new Map(one.inner)
  for (const [key, set] of other.inner) {
    const mine = inner.get(key)
    inner.set(key, mine === undefined ? set : union(mine, set))
  }
  return { owned: one.owned || other.owned, inner }
}

/** Keeps of `one` what `keep` says, member by member, given the node of `other` at the same place. */
const combine = (one: FieldSet, other: FieldSet, keep: (mine: boolean, its: boolean) => boolean): FieldSet => {
  const inner = new Map<string, FieldSet>()
  for (const [key, set] of one.inner) {
    const rest = combine(set, other.inner.get(key) ?? none, keep)
    if (!isEmpty(rest)) inner.set(key, rest)
  }
  return { owned: keep(one.owned, other.owned), inner }
}

export const difference = (one: FieldSet, other: FieldSet): FieldSet => combine(one, other, (mine, its) => mine && !its)
export const intersection = (one: FieldSet, other: FieldSet): FieldSet =>
  combine(one, other, (mine, its) => mine && its)

/** Without what lies at or below these paths of fields. */
export const without = (set: FieldSet, paths: readonly (readonly string[])[]): FieldSet =>
  paths.reduce(withoutPath, set)

const withoutPath = (set: FieldSet, [name = '', ...rest]: readonly string[]): FieldSet => {
  const key = `f:${name}`
  const found = set.inner.get(key)
  if (found === undefined) return set
  const inner = new Map(set.inner)
  const left = rest.length === 0 ? none : withoutPath(found, rest)
  if (isEmpty(left)) inner.delete(key)
  else inner.set(key, left)
  return { owned: set.owned, inner }
}

/** What nobody owns: the identity of an object. */
export const stripped = (set: FieldSet): FieldSet => {
  const left = without(
    set,
    [['apiVersion'], ['kind']].concat(
      ['name', 'namespace', 'creationTimestamp', 'uid', 'generation', 'managedFields', 'resourceVersion'].map(
        (name) => ['metadata', name],
      ),
    ),
  )
  const metadata = left.inner.get('f:metadata')
  if (metadata === undefined) return { owned: false, inner: left.inner }
  const inner = new Map(left.inner)
  if (metadata.inner.size === 0) inner.delete('f:metadata')
  else inner.set('f:metadata', { owned: false, inner: metadata.inner })
  return { owned: false, inner }
}

/** The fields that have a name and lie on the way to a member are members too, where the shape names them. */
export const withNamedParents = (set: FieldSet, shape: Shape): FieldSet => {
  const inner = new Map<string, FieldSet>()
  for (const [key, child] of set.inner) {
    const below = withNamedParents(child, shapeBelow(shape, key))
    const named = key.startsWith('f:') && shape.of !== 'map'
    inner.set(key, { owned: below.owned || (named && below.inner.size > 0), inner: below.inner })
  }
  return { owned: set.owned, inner }
}

/** Which fields a configuration that is applied owns. */
export const fieldsOf = (value: Value, shape: Shape): FieldSet => {
  const inner = new Map<string, FieldSet>()
  for (const [key, item, itemShape] of itemsOf(value, shape)) {
    const below = fieldsOf(item, itemShape)
    const empty = item === null || (isTree(item) && Object.keys(item).length === 0)
    const itself = empty || !key.startsWith('f:') || below.inner.size === 0 || shape.of === 'map'
    inner.set(key, { owned: itself, inner: below.inner })
  }
  return { owned: false, inner }
}

export interface Comparison {
  readonly added: FieldSet
  readonly modified: FieldSet
  readonly removed: FieldSet
}

/** How the second differs from the first. Of what is added or removed every node counts, of what changed the leaves. */
export const compare = (before: Value, after: Value, shape: Shape): Comparison => {
  if (same(before, after)) return { added: none, modified: none, removed: none }
  if (partsOf(before, shape) === undefined || partsOf(after, shape) === undefined)
    return { added: none, modified: leaf, removed: none }
  const old = new Map([...itemsOf(before, shape)].map(([key, item, inner]) => [key, { item, inner }]))
  const sets = { added: new Map<string, FieldSet>(), modified: new Map<string, FieldSet>(), removed: new Map() }
  for (const [key, item, itemShape] of itemsOf(after, shape)) {
    const mine = old.get(key)
    old.delete(key)
    if (mine === undefined) {
      sets.added.set(key, allOf(item, itemShape))
      continue
    }
    const found = compare(mine.item, item, itemShape)
    for (const name of ['added', 'modified', 'removed'] as const)
      if (!isEmpty(found[name])) sets[name].set(key, found[name])
  }
  for (const [key, { item, inner }] of old) sets.removed.set(key, allOf(item, inner))
  const node = (inner: Map<string, FieldSet>): FieldSet => ({ owned: false, inner })
  return { added: node(sets.added), modified: node(sets.modified), removed: node(sets.removed) }
}

const allOf = (value: Value, shape: Shape): FieldSet => ({
  owned: true,
  inner: new Map([...itemsOf(value, shape)].map(([key, item, inner]) => [key, allOf(item, inner)])),
})

/** The live value with what is applied laid over it: lists by key keep their order, new items come last. */
export const mergeApplied = (live: Value | undefined, applied: Value, shape: Shape): Value => {
  const parts = partsOf(applied, shape)
  if (parts === undefined || live === undefined || partsOf(live, shape) !== parts) return structuredClone(applied)
  if (parts === 'object') {
    const merged: Tree = { ...(live as Tree) }
    for (const [key, value] of Object.entries(applied as Tree))
      merged[key] = mergeApplied(merged[key], value, shapeOfField(shape, key) ?? whole)
    return merged
  }
  const merged = new Map([...itemsOf(live, shape)].map(([key, item]) => [key, item]))
  for (const [key, item, itemShape] of itemsOf(applied, shape))
    merged.set(key, mergeApplied(merged.get(key), item, itemShape))
  return [...merged.values()]
}

/** Without the members of the set; what is removed goes with all below it. */
export const removeFields = (value: Value, set: FieldSet, shape: Shape): Value => {
  const parts = partsOf(value, shape)
  if (parts === undefined || set.inner.size === 0) return value
  const left: [string, Value][] = []
  for (const [key, item, itemShape] of itemsOf(value, shape)) {
    const found = set.inner.get(key)
    if (found?.owned === true) continue
    left.push([key, found === undefined ? item : removeFields(item, found, itemShape)])
  }
  if (parts === 'object') return Object.fromEntries(left.map(([key, item]) => [key.slice(2), item]))
  return left.map(([, item]) => item)
}

/** Members as they are written in conflicts: `.status.conditions[type="Ready"].reason`. */
export const pathsOf = (set: FieldSet, way = ''): string[] => [
  ...(set.owned ? [way] : []),
  ...[...set.inner.entries()]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .flatMap(([key, inner]) => pathsOf(inner, `${way}${element(key)}`)),
]

const element = (key: string): string => {
  const rest = key.slice(2)
  if (key.startsWith('f:')) return `.${rest}`
  if (key.startsWith('v:')) return `[=${rest}]`
  const keys = JSON.parse(rest) as Record<string, Value>
  return `[${Object.entries(keys)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(',')}]`
}

export const encodeFields = (set: FieldSet): Tree => {
  const encoded: Tree = set.owned && set.inner.size > 0 ? { '.': {} } : {}
  for (const [key, inner] of [...set.inner.entries()].sort(([one], [other]) => (one < other ? -1 : 1)))
    encoded[key] = encodeFields(inner)
  return encoded
}

export const decodeFields = (tree: Tree, top = true): FieldSet => {
  const inner = new Map<string, FieldSet>()
  for (const [key, value] of Object.entries(tree)) if (key !== '.') inner.set(key, decodeFields(value as Tree, false))
  return { owned: !top && ('.' in tree || inner.size === 0), inner }
}

/** The parts of a value with their path elements and shapes. */
function* itemsOf(value: Value, shape: Shape): Generator<[string, Value, Shape]> {
  const parts = partsOf(value, shape)
  if (parts === 'object')
    for (const [name, item] of Object.entries(value as Tree))
      yield [`f:${name}`, item, shapeOfField(shape, name) ?? whole]
  if (parts === 'set') for (const item of value as Value[]) yield [`v:${JSON.stringify(item)}`, item, whole]
  if (parts !== 'list' || shape.of !== 'list') return
  for (const item of value as Value[]) {
    const keys = Object.fromEntries(
      [...shape.keys].sort().map((key) => [key, isTree(item) ? (item[key] ?? null) : null]),
    )
    yield [`k:${JSON.stringify(keys)}`, item, shape.item]
  }
}

const shapeBelow = (shape: Shape, key: string): Shape => {
  if (key.startsWith('f:')) return shapeOfField(shape, key.slice(2)) ?? whole
  return shape.of === 'list' ? shape.item : whole
}
