/** The API server: who asks, whether they may, which kind it is about, and what then happens. */
import { type Catalogue, customResourceDefinitions, establishedStatus, isEstablished } from './catalogue.ts'
import { discover } from './discovery.ts'
import { manageUpdate } from './managers.ts'
import { apiAudience, type People, type User } from './people.ts'
import { type Action, decideAccess, maySign, refusalOf } from './rbac.ts'
import { type Listener, list, type Reading, shown, type Timers, watch } from './reads.ts'
import { failure, forbidden, notFound, notFoundText, Refusal, unauthorized } from './refusal.ts'
import { type Context, named, partial, type Resource } from './resource.ts'
import { reviewStatus } from './reviews.ts'
import type { Store } from './store.ts'
import { nameOf, type Tree, treeAt, uidOf, type Value } from './values.ts'
import {
  type Chance,
  create,
  methodNotAllowed,
  patch,
  remove,
  type Target,
  timeOf,
  update,
  type Written,
} from './writes.ts'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: Buffer
}

export interface Answered {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Value
  /** A watch: begins to send, and returns what stops it. */
  readonly stream?: (listener: Listener) => () => void
}

/** One write as the log keeps it, also if it was refused or changed nothing. */
export interface Write {
  readonly actor: string
  readonly verb: string
  readonly resource: string
  readonly subresource: string
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly status: number
  readonly changed: boolean
}

export interface World extends Chance {
  readonly store: Store
  readonly catalogue: Catalogue
  readonly people: People
  readonly timers: Timers
  readonly now: () => Date
  readonly log: (write: Write) => void
}

/** What a request is about, as its path and method say. */
export interface About extends Action {
  readonly actor: string
  readonly version: string
  readonly plural: string
  readonly subresource: string
}

export interface ApiServer {
  /** Undefined for a path that is not of an object. */
  about(asked: Asked): About | undefined
  handle(asked: Asked): Promise<Answered>
}

export const openApiServer = (world: World): ApiServer => {
  const fresh = establishDefinitions(world)
  const about = (asked: Asked): About | undefined => {
    const place = parsePath(asked.path)
    return place === undefined ? undefined : { ...actionOf(asked, place), actor: userOf(asked, world)?.username ?? '' }
  }
  return {
    about,
    handle: async (asked) => {
      try {
        return await answer(asked, world, fresh)
      } catch (error) {
        if (!(error instanceof Refusal)) throw error
        record(asked, world, error.code)
        return {
          status: error.code,
          headers: { 'content-type': 'application/json', ...error.headers },
          body: error.body,
        }
      }
    },
  }
}

const answer = async (asked: Asked, world: World, fresh: Set<string>): Promise<Answered> => {
  const open = openDocuments[asked.path]
  if (open) return openDocument(asked, open, world)
  const user = userOf(asked, world)
  if (user === undefined) throw unauthorized()
  const place = parsePath(asked.path)
  if (place === undefined) return json(discover(asked.path, world.catalogue) ?? missing())
  const action = actionOf(asked, place)
  if (!decideAccess(world.store, user, action).allowed) {
    const name = place.name || undefined
    throw forbidden(
      { group: place.group, kind: place.plural, ...(name === undefined ? {} : { name }) },
      refusalOf(user, action),
    )
  }
  const resource = world.catalogue.find(place.group, place.version, place.plural)
  const hasPlace = resource !== undefined && (place.subresource === '' || place.subresource in resource.reset)
  if (!hasPlace) throw notFoundText()
  if (!resource.verbs.includes(action.verb) || isMisplaced(asked, place)) throw methodNotAllowed()
  if (asked.method === 'GET' && place.name === '' && fresh.delete(resource.storage)) throw initializing()
  if (asked.method === 'GET') return read(asked, world, { resource, place })
  const write = writers[asked.method]
  if (write === undefined) throw methodNotAllowed()
  return written(asked, world, { resource, place, user, write })
}

/** Objects are made where all are, and changed each in its place. */
const isMisplaced = ({ method }: Asked, { name, subresource }: Place): boolean =>
  method === 'POST' ? name !== '' && subresource === '' : ['PUT', 'PATCH'].includes(method) && name === ''

const read = async (
  asked: Asked,
  world: World,
  { resource, place }: { readonly resource: Resource; readonly place: Place },
): Promise<Answered> => {
  const { store, timers } = world
  const isPartial = asked.headers['accept']?.includes('as=PartialObjectMetadata') === true
  if (place.name !== '') {
    const storage = resource.storage
    const object = store.find(storage, place.namespace, place.name)
    if (object === undefined) throw notFound(named(resource, place.name))
    return json(isPartial ? partial(object) : shown(object, resource))
  }
  const reading: Reading = {
    resource,
    namespace: place.namespace,
    query: asked.query,
    partial: isPartial,
    store,
    timers,
  }
  if (!isWatch(asked)) return json(await list(reading))
  return { ...json(null), stream: watch(reading) }
}

interface Writer {
  readonly resource: Resource
  readonly place: Place
  readonly user: User
  readonly write: (target: Target) => Written
}

const written = (asked: Asked, world: World, { resource, place, user, write }: Writer): Answered => {
  const target: Target = {
    resource,
    namespace: place.namespace,
    name: place.name,
    query: asked.query,
    manager: asked.query.get('fieldManager') ?? (asked.headers['user-agent'] ?? 'unknown').split('/')[0] ?? '',
    contentType: asked.headers['content-type'] ?? 'application/json',
    body: asked.body,
    context: contextOf(world, user, place.subresource),
    chance: world,
  }
  const { object, status, changed, warnings } = write(target)
  record(asked, world, status, { object, changed })
  const warning = warnings.map((field) => `299 - ${JSON.stringify(`unknown field "${field}"`)}`).join(', ')
  const isOwn = typeof object['kind'] === 'string'
  const body = isOwn ? object : shown(object, resource)
  return { ...json(body, status), headers: { ...jsonHeaders, ...(warning === '' ? {} : { warning }) } }
}

const contextOf = (world: World, user: User, subresource: string): Context => ({
  user,
  now: world.now(),
  subresource,
  store: world.store,
  findKind: world.catalogue.findKind,
  issueToken: world.people.tokenOf,
  may: (who, action) => decideAccess(world.store, who, action),
  maySign: (group, verb, signer) => maySign(world.store, user, { group, verb, signer }),
  review: (token, audiences) =>
    reviewStatus(world.people.review(token, audiences.length === 0 ? [apiAudience] : audiences)),
})

const record = (
  asked: Asked,
  world: World,
  status: number,
  { object, changed }: { readonly object?: Tree; readonly changed?: boolean } = {},
): void => {
  const place = parsePath(asked.path)
  if (asked.method === 'GET' || place === undefined) return
  const { verb, namespace, name } = actionOf(asked, place)
  world.log({
    actor: userOf(asked, world)?.username ?? '',
    verb,
    resource: place.plural,
    subresource: place.subresource,
    namespace,
    name: name || nameOf(object),
    uid: uidOf(object) || String(treeAt(object, 'details')['uid'] ?? ''),
    status,
    changed: changed === true,
  })
}

const userOf = ({ headers }: Asked, { people }: World): User | undefined => {
  const { authorization } = headers
  if (authorization === undefined) return anonymous
  const reviewed = people.review(authorization.replace(/^Bearer /, ''), [apiAudience])
  return reviewed.error === undefined ? reviewed.user : undefined
}

const anonymous: User = { username: 'system:anonymous', groups: ['system:unauthenticated'] }

interface Place {
  readonly group: string
  readonly version: string
  readonly namespace: string
  readonly plural: string
  readonly name: string
  readonly subresource: string
}

const parsePath = (path: string): Place | undefined => {
  const [root, ...parts] = path.split('/').slice(1).map(decodeURIComponent)
  const group = root === 'api' ? '' : root === 'apis' ? parts.shift() : undefined
  const [version, ...rest] = parts
  if (group === undefined || version === undefined || rest.length === 0) return undefined
  const isNamespaced = rest[0] === 'namespaces' && rest.length > 2 && rest[2] !== 'status'
  const namespace = isNamespaced ? (rest.splice(0, 2)[1] ?? '') : ''
  const [plural = '', name = '', subresource = ''] = rest
  return { group, version, namespace, plural, name, subresource }
}

const actionOf = (asked: Asked, place: Place): Omit<About, 'actor'> => {
  const { group, version, namespace, plural, name, subresource } = place
  const verb = asked.method === 'GET' && name === '' ? (isWatch(asked) ? 'watch' : 'list') : (verbs[asked.method] ?? '')
  const resource = subresource === '' ? plural : `${plural}/${subresource}`
  return { group, version, namespace, plural, name, subresource, verb, resource }
}

const isWatch = ({ query }: Asked): boolean => ['true', '1'].includes(query.get('watch') ?? '')

const verbs: Readonly<Record<string, string>> = {
  GET: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
}

const writers: Readonly<Record<string, (target: Target) => Written>> = {
  POST: create,
  PUT: update,
  PATCH: patch,
  DELETE: remove,
}

/** Accepts the definitions that are applied, a moment later; the first list of a kind that is so new is turned away. */
const establishDefinitions = ({ store, timers, now }: World): Set<string> => {
  const fresh = new Set<string>()
  const storage = customResourceDefinitions.storage
  store.follow(({ kind, type, object }) => {
    if (kind !== storage || type !== 'ADDED' || isEstablished(object)) return
    timers.after(0.01, () => {
      const live = store.find(storage, '', nameOf(object))
      if (live === undefined || isEstablished(live)) return
      const time = timeOf(now())
      const manager = {
        name: 'kube-apiserver',
        operation: 'Update',
        apiVersion: 'apiextensions.k8s.io/v1',
        subresource: 'status',
      } as const
      const next = { ...live, status: establishedStatus(live, time) }
      fresh.add(nameOf(object))
      store.write(
        storage,
        manageUpdate(
          live,
          next,
          { shape: customResourceDefinitions.shape, reset: [], empty: {}, manager, now: time },
          false,
        ),
      )
    })
  })
  return fresh
}

interface OpenDocument {
  readonly type: string
  readonly body: (world: World) => Value
}

/** kube-apiserver writes a key set in its own type alone, and gives it to nobody who would have another (seen of 1.20, and so since). */
const openDocuments: Readonly<Record<string, OpenDocument>> = {
  '/livez': { type: 'application/json', body: () => 'ok' },
  '/readyz': { type: 'application/json', body: () => 'ok' },
  '/healthz': { type: 'application/json', body: () => 'ok' },
  '/.well-known/openid-configuration': { type: 'application/json', body: ({ people }) => people.discovery },
  '/openid/v1/jwks': { type: 'application/jwk-set+json', body: ({ people }) => people.jwks },
}

const openDocument = ({ headers }: Asked, { type, body }: OpenDocument, world: World): Answered => {
  const takes = headers['accept']?.split(/, */) ?? ['*/*']
  if (!takes.includes(type) && !takes.includes('*/*'))
    throw failure(406, 'NotAcceptable', '406: Not Acceptable', { details: {} })
  return { status: 200, headers: { 'content-type': type }, body: body(world) }
}

const missing = (): never => {
  throw notFoundText()
}

const initializing = (): Error =>
  failure(429, 'TooManyRequests', 'storage is (re)initializing', {
    details: { retryAfterSeconds: 1 },
    headers: { 'retry-after': '1' },
  })

const jsonHeaders = { 'content-type': 'application/json' }
const json = (body: Value, status = 200): Answered => ({ status, headers: jsonHeaders, body })
