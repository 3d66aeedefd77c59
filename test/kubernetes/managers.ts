/**
 * Who owns which field: `metadata.managedFields` as structured-merge-diff keeps it. An update takes what it changes from
 * everybody; an apply owns what it says, conflicts with others' values, and gives up what it no longer says.
 */
import {
  type Comparison,
  compare,
  decodeFields,
  difference,
  encodeFields,
  type FieldSet,
  fieldsOf,
  intersection,
  isEmpty,
  mergeApplied,
  none,
  pathsOf,
  removeFields,
  stripped,
  union,
  withNamedParents,
  without,
} from './fields.ts'
import { failure, quote } from './refusal.ts'
import type { Shape } from './shape.ts'
import { copy, same, type Tree, textAt, treeAt, treesAt, type Value } from './values.ts'

export interface Manager {
  readonly name: string
  readonly operation: 'Apply' | 'Update'
  readonly apiVersion: string
  readonly subresource: string
}

export interface Writing {
  readonly shape: Shape
  /** What the strategy of this subresource puts back anyway, so that nobody owns it by writing. */
  readonly reset: readonly (readonly string[])[]
  /** What an object of the kind is before anything is in it. */
  readonly empty: Tree
  readonly manager: Manager
  /** RFC 3339, whole seconds. */
  readonly now: string
}

interface Entry extends Manager {
  readonly set: FieldSet
  readonly time: string | undefined
}

/** The object after an update, with its managed fields. */
export const manageUpdate = (live: Tree, next: Tree, writing: Writing, isNew: boolean): Tree => {
  const entries = entriesOf(live)
  // Objects that were never applied and had no entries stay without: only a creation or an apply begins to track.
  if (entries.length === 0 && !isNew) return withEntries(next, entries)
  const found = compareFor(bare(live), bare(next), writing)
  const taken = union(found.added, found.modified)
  const left = entries.map((entry) => ({
    ...entry,
    set: difference(difference(entry.set, isSame(entry, writing.manager) ? none : taken), found.removed),
  }))
  if (isEmpty(stripped(taken))) return withEntries(next, left)
  const mine = left.find((entry) => isSame(entry, writing.manager))
  return withEntries(next, [
    ...left.filter((entry) => entry !== mine),
    { ...writing.manager, set: union(mine?.set ?? none, taken), time: writing.now },
  ])
}

/** The object after an apply. Throws the conflict where others own what it changes and it does not force. */
export const manageApply = (live: Tree, applied: Tree, writing: Writing, force: boolean): Tree => {
  const { shape, manager } = writing
  const before = bare(live)
  const entries = firstEntries(live, writing)
  const last = entries.find((entry) => isSame(entry, manager))
  const set = without(fieldsOf(bare(applied), shape), writing.reset)
  const others = entries.filter((entry) => entry !== last)
  const merged = mergeApplied(before, bare(applied), shape) as Tree
  const next = giveUp(merged, last?.set ?? none, [set, ...others.map((entry) => entry.set)], shape)
  const found = compareFor(before, next, writing)
  const taken = union(found.added, found.modified)
  const conflicts = others
    .map((entry) => ({ entry, set: intersection(entry.set, taken) }))
    .filter((conflict) => !isEmpty(conflict.set))
  if (!force && conflicts.length > 0) throw conflict(conflicts)
  // The time of an entry tells of changes of the object: one that changed nothing keeps the time it had, or none.
  const time = same(before, next) ? last?.time : writing.now
  return withEntries(next, [
    ...others.map((entry) => ({ ...entry, set: difference(difference(entry.set, taken), found.removed) })),
    { ...manager, set: difference(set, found.removed), time },
  ])
}

/** Whether two states differ in more than the times of managed fields. */
export const isUnchanged = (one: Tree, other: Tree): boolean => same(timeless(one), timeless(other))

const timeless = (object: Tree): Tree => {
  const metadata = { ...treeAt(object, 'metadata') }
  metadata['managedFields'] = treesAt(metadata, 'managedFields').map(({ time: _, ...entry }) => entry)
  return { ...object, metadata }
}

/** What the manager owned, no longer says, and nobody else says either, goes. */
const giveUp = (merged: Tree, last: FieldSet, kept: readonly FieldSet[], shape: Shape): Tree => {
  if (isEmpty(last)) return merged
  const stay = withNamedParents(kept.reduce(union, none), shape)
  return removeFields(merged, difference(withNamedParents(last, shape), stay), shape) as Tree
}

/** An object that nobody tracks yet belongs, at its first apply, to those who wrote it before. */
const firstEntries = (live: Tree, writing: Writing): readonly Entry[] => {
  const entries = entriesOf(live)
  if (entries.length > 0 || treeAt(live, 'metadata')['uid'] === undefined) return entries
  const { added } = compareFor(bare(writing.empty), bare(live), writing)
  const set = stripped(added)
  return isEmpty(set)
    ? []
    : [{ ...writing.manager, name: 'before-first-apply', operation: 'Update', subresource: '', set, time: writing.now }]
}

const compareFor = (before: Tree, after: Tree, { shape, reset }: Writing): Comparison => {
  const { added, modified, removed } = compare(before, after, shape)
  return { added: without(added, reset), modified: without(modified, reset), removed: without(removed, reset) }
}

const bare = (object: Tree): Tree => {
  const { managedFields: _, ...metadata } = treeAt(object, 'metadata')
  return { ...object, metadata }
}

const isSame = (entry: Manager, manager: Manager): boolean => identity(entry) === identity(manager)

const identity = ({ operation, name, apiVersion, subresource }: Manager): string =>
  JSON.stringify([operation, name, apiVersion, subresource])

const entriesOf = (object: Tree): readonly Entry[] =>
  treesAt(object, 'metadata', 'managedFields').map((entry) => ({
    name: textAt(entry, 'manager'),
    operation: entry['operation'] === 'Apply' ? 'Apply' : 'Update',
    apiVersion: textAt(entry, 'apiVersion'),
    subresource: textAt(entry, 'subresource'),
    set: decodeFields(treeAt(entry, 'fieldsV1')),
    time: entry['time'] === undefined ? undefined : textAt(entry, 'time'),
  }))

const withEntries = (object: Tree, entries: readonly Entry[]): Tree => {
  const managedFields: Value[] = entries
    .map((entry) => ({ ...entry, set: stripped(entry.set) }))
    .filter((entry) => !isEmpty(entry.set))
    .sort((one, other) => (order(one) < order(other) ? -1 : 1))
    .map(({ name, operation, apiVersion, subresource, set, time }) => ({
      manager: name,
      operation,
      apiVersion,
      fieldsType: 'FieldsV1',
      fieldsV1: encodeFields(set),
      ...(subresource === '' ? {} : { subresource }),
      ...(time === undefined ? {} : { time }),
    }))
  const { managedFields: _, ...metadata } = treeAt(object, 'metadata')
  return copy({ ...object, metadata: managedFields.length === 0 ? metadata : { ...metadata, managedFields } })
}

const order = ({ operation, time = '', name, apiVersion, subresource }: Entry): string =>
  [operation, time, name, apiVersion, subresource].join('\0')

const conflict = (conflicts: readonly { readonly entry: Entry; readonly set: FieldSet }[]): Error => {
  const each = conflicts.flatMap(({ entry, set }) => pathsOf(set).map((path) => ({ who: described(entry), path })))
  const whos = [...new Set(each.map(({ who }) => who))].sort()
  const said =
    each.length === 1
      ? `1 conflict: conflict with ${whos[0]}: ${each[0]?.path}`
      : `${each.length} conflicts: ${whos
          .map((who) =>
            [`conflicts with ${who}:`, ...each.filter((one) => one.who === who).map(({ path }) => `- ${path}`)].join(
              '\n',
            ),
          )
          .join('\n')}`
  return failure(409, 'Conflict', `Apply failed with ${said}`, {
    details: {
      causes: each.map(({ who, path }) => ({
        reason: 'FieldManagerConflict',
        message: `conflict with ${who}`,
        field: path,
      })),
    },
  })
}

const described = ({ name, operation, apiVersion, subresource }: Manager): string =>
  [
    quote(name),
    ...(subresource === '' ? [] : [`with subresource ${quote(subresource)}`]),
    ...(operation === 'Apply' ? [] : [`using ${apiVersion}`]),
  ].join(' ')
