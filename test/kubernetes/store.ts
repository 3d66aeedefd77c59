/**
 * Objects, each with the number of the last change of the whole store, a history of changes for lists at a version and
 * watches, and compaction, which forgets the older part of that history.
 */
import { nameOf, namespaceOf, type Tree, treeAt, versionOf } from './values.ts'

export interface Change {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly kind: string
  readonly version: number
  readonly object: Tree
  readonly previous: Tree | undefined
}

export interface Store {
  /** The number of the last change. */
  version(): number
  /** Lets numbers pass, as changes of other kinds do. */
  advance(version: number): void
  /** The oldest version that lists and watches can still go back to. */
  oldest(): number
  compact(version?: number): void
  find(kind: string, namespace: string, name: string): Tree | undefined
  /** In the order of namespaces and names; at an earlier version if one is given. */
  all(kind: string, version?: number): readonly Tree[]
  /** Stores under the next version, or the one given, and tells who watches. */
  write(kind: string, object: Tree, version?: number): Tree
  remove(kind: string, object: Tree, version?: number): Tree
  since(version: number, kind: string): readonly Change[]
  follow(tell: (change: Change) => void): () => void
}

export const openStore = (): Store => {
  const kinds = new Map<string, Map<string, Tree>>()
  const history: Change[] = []
  const followers = new Set<(change: Change) => void>()
  let version = 1
  let oldest = 1

  const objectsOf = (kind: string): Map<string, Tree> => {
    const found = kinds.get(kind) ?? new Map<string, Tree>()
    kinds.set(kind, found)
    return found
  }
  const record = (type: Change['type'], kind: string, object: Tree, previous: Tree | undefined): Tree => {
    const change = { type, kind, version: versionOf(object), object, previous }
    history.push(change)
    for (const tell of followers) tell(change)
    return object
  }
  const stamp = (object: Tree, as: number | undefined): Tree => {
    version = Math.max(version, as ?? version + 1)
    return { ...object, metadata: { ...treeAt(object, 'metadata'), resourceVersion: String(as ?? version) } }
  }
  return {
    version: () => version,
    advance: (to) => {
      version = Math.max(version, to)
    },
    oldest: () => oldest,
    compact: (to = version + 1) => {
      oldest = to
      const keep = history.findIndex((change) => change.version >= to)
      history.splice(0, keep < 0 ? history.length : keep)
    },
    find: (kind, namespace, name) => kinds.get(kind)?.get(`${namespace}/${name}`),
    all: (kind, atVersion) => {
      const objects = new Map(objectsOf(kind))
      if (atVersion !== undefined) rewind(objects, history, kind, atVersion)
      return [...objects.entries()].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, object]) => object)
    },
    write: (kind, object, as) => {
      const stamped = stamp(object, as)
      const objects = objectsOf(kind)
      const previous = objects.get(keyOf(object))
      objects.set(keyOf(object), stamped)
      return record(previous === undefined ? 'ADDED' : 'MODIFIED', kind, stamped, previous)
    },
    remove: (kind, object, as) => {
      const objects = objectsOf(kind)
      const previous = objects.get(keyOf(object))
      objects.delete(keyOf(object))
      return record('DELETED', kind, stamp(object, as), previous)
    },
    since: (from, kind) => history.filter((change) => change.version > from && change.kind === kind),
    follow: (tell) => {
      followers.add(tell)
      return () => followers.delete(tell)
    },
  }
}

const rewind = (objects: Map<string, Tree>, history: readonly Change[], kind: string, version: number): void => {
  for (const change of history.toReversed()) {
    if (change.version <= version) return
    if (change.kind !== kind) continue
    if (change.previous === undefined) objects.delete(keyOf(change.object))
    else objects.set(keyOf(change.object), change.previous)
  }
}

const keyOf = (object: Tree): string => `${namespaceOf(object)}/${nameOf(object)}`
