/** What the server knows of one kind: its names, its shape, and the rules that are its own. */
import type { TokenOptions, User } from './people.ts'
import type { Access, Action } from './rbac.ts'
import type { Cause, Named } from './refusal.ts'
import type { Shape } from './shape.ts'
import type { Store } from './store.ts'
import { copy, type Tree, treeAt, uidOf } from './values.ts'

export interface Context {
  readonly user: User
  readonly now: Date
  /** Empty for the object itself. */
  readonly subresource: string
  readonly store: Store
  readonly review: (token: string, audiences: readonly string[]) => Tree
  readonly issueToken: (account: string, options: TokenOptions) => string
  readonly may: (user: User, action: Action) => Access
  /** For a signer, by its exact name or its whole domain. */
  readonly maySign: (group: string, verb: string, signer: string) => boolean
  readonly findKind: (group: string, kind: string) => Resource | undefined
}

export interface Decoded {
  readonly object: Tree
  /** Fields that the kind does not know. */
  readonly unknown: readonly string[]
}

/** The moments of a write, in the order in which the API server has them; each kind says only what is its own. */
export interface Rules {
  /** Reads what a client sent. Throws a `Malformed`. */
  readonly decode?: (object: Tree) => Decoded
  /** Admission before the object is prepared: may change it, may refuse it. */
  readonly admit?: (next: Tree, live: Tree | undefined, context: Context) => Tree
  readonly prepare?: (next: Tree, live: Tree | undefined, context: Context) => Tree
  readonly validate?: (next: Tree, live: Tree | undefined, context: Context) => Cause[]
  /** Admission of what is valid: may only refuse. */
  readonly review?: (next: Tree, live: Tree | undefined, context: Context) => void
  /** A kind that is asked, and never stored. */
  readonly answer?: (asked: Tree, context: Context) => Tree
  /** A subresource that is asked of an object that exists, as tokens are of service accounts. */
  readonly ask?: (asked: Tree, object: Tree, context: Context) => Tree
  /** As this version of the kind shows what is stored. */
  readonly show?: (stored: Tree) => Tree
}

export interface Resource {
  readonly group: string
  readonly version: string
  readonly plural: string
  readonly singular: string
  readonly kind: string
  readonly namespaced: boolean
  /** Where its objects are in the store: shared by the versions of a kind. */
  readonly storage: string
  readonly storageVersion: string
  readonly verbs: readonly string[]
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
  /** Fields that a write to each subresource cannot change; the object itself has the empty name. */
  readonly reset: Readonly<Record<string, readonly (readonly string[])[]>>
  readonly shape: Shape
  readonly selectable: readonly string[]
  /** Built in: decoded into a struct, which has its empty parts even where nothing was sent. */
  readonly native: boolean
  readonly generation: boolean
  /** Which kind its refusals as invalid name. */
  readonly invalidAs: Named
  readonly rules: Rules
}

export const apiVersionOf = ({ group, version }: Pick<Resource, 'group' | 'version'>): string =>
  group === '' ? version : `${group}/${version}`

/** What a client sent does not fit the kind: 400 in a body, 500 in an apply. */
export class Malformed extends Error {}

export const named = (resource: Resource, name?: string): Named => ({
  group: resource.group,
  kind: resource.plural,
  ...(name === undefined ? {} : { name }),
})

type Required = 'group' | 'version' | 'plural' | 'kind' | 'namespaced'

/** A kind with what most kinds have. */
export const resourceOf = (said: Pick<Resource, Required> & Partial<Resource>, rules: Rules = {}): Resource => ({
  singular: said.kind.toLowerCase(),
  storage: said.plural,
  storageVersion: said.version,
  verbs: ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'],
  shortNames: [],
  categories: [],
  reset: {},
  shape: { of: 'loose' },
  selectable: [],
  native: true,
  generation: false,
  invalidAs: { group: said.group, kind: said.kind },
  rules,
  ...said,
})

/** Fields of the live object that a write cannot change: with what was there, or without them if nothing was. */
export const keep = (next: Tree, live: Tree | undefined, ...names: readonly string[]): Tree => {
  const kept = { ...next }
  for (const name of names) {
    delete kept[name]
    const value = live?.[name]
    if (value !== undefined) kept[name] = copy(value)
  }
  return kept
}

export const isNew = (live: Tree | undefined): live is undefined => live === undefined || uidOf(live) === ''

/** Metadata alone, as clients ask for it who want no more. */
export const partial = (object: Tree): Tree => ({
  kind: 'PartialObjectMetadata',
  apiVersion: 'meta.k8s.io/v1',
  metadata: treeAt(object, 'metadata'),
})
