/** JSON as objects of Kubernetes are made of, and ways into it. */
import { isDeepStrictEqual } from 'node:util'

export type Value = null | boolean | number | string | Value[] | Tree
export interface Tree {
  [key: string]: Value
}

export const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const copy = <T extends Value>(value: T): T => structuredClone(value)

export const same = (one: unknown, other: unknown): boolean => isDeepStrictEqual(one, other)

/** What lies at the end of the path, if all of it is there. */
export const at = (value: Value | undefined, ...path: readonly string[]): Value | undefined => {
  let found = value
  for (const key of path) {
    if (!isTree(found)) return undefined
    found = found[key]
  }
  return found
}

export const textAt = (value: Value | undefined, ...path: readonly string[]): string => {
  const found = at(value, ...path)
  return typeof found === 'string' ? found : ''
}

export const treeAt = (value: Value | undefined, ...path: readonly string[]): Tree => {
  const found = at(value, ...path)
  return isTree(found) ? found : {}
}

export const listAt = (value: Value | undefined, ...path: readonly string[]): Value[] => {
  const found = at(value, ...path)
  return Array.isArray(found) ? found : []
}

export const treesAt = (value: Value | undefined, ...path: readonly string[]): Tree[] =>
  listAt(value, ...path).filter(isTree)

export const textsAt = (value: Value | undefined, ...path: readonly string[]): string[] =>
  listAt(value, ...path).filter((item) => typeof item === 'string')

/** Sets what lies at the end of the path, making the way there. */
export const put = (tree: Tree, path: readonly string[], value: Value): void => {
  const [key = '', ...rest] = path
  if (rest.length === 0) {
    tree[key] = value
    return
  }
  const next = tree[key]
  const inner = isTree(next) ? next : {}
  tree[key] = inner
  put(inner, rest, value)
}

/** Without what is empty, as Go leaves it out (`omitempty`). */
export const withoutEmpty = (tree: Tree): Tree =>
  Object.fromEntries(
    Object.entries(tree).filter(
      ([, value]) =>
        value !== null &&
        value !== '' &&
        !(Array.isArray(value) && value.length === 0) &&
        !(isTree(value) && Object.keys(value).length === 0),
    ),
  )

/** RFC 7386. */
export const mergePatch = (target: Value | undefined, patch: Value): Value => {
  if (!isTree(patch)) return copy(patch)
  const merged: Tree = isTree(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else merged[key] = mergePatch(merged[key], value)
  }
  return merged
}

export const nameOf = (object: Value | undefined): string => textAt(object, 'metadata', 'name')
export const namespaceOf = (object: Value | undefined): string => textAt(object, 'metadata', 'namespace')
export const uidOf = (object: Value | undefined): string => textAt(object, 'metadata', 'uid')
export const versionOf = (object: Value | undefined): number =>
  Number(textAt(object, 'metadata', 'resourceVersion') || '0')

export const condition = (object: Value | undefined, type: string): Tree | undefined =>
  treesAt(object, 'status', 'conditions').find((one) => one['type'] === type)
