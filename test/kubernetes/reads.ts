/** Lists and watches, with their versions, pages, bookmarks and expiry. */
import { badRequest, failure, forbiddenValue, invalid } from './refusal.ts'
import { apiVersionOf, partial, type Resource } from './resource.ts'
import { type Matcher, parseSelectors } from './selectors.ts'
import type { Change, Store } from './store.ts'
import { nameOf, namespaceOf, type Tree, treeAt } from './values.ts'

export interface Timers {
  /** Calls back after so many seconds, unless stopped. */
  after(seconds: number, call: () => void): () => void
}

export interface Reading {
  readonly resource: Resource
  readonly namespace: string
  readonly query: URLSearchParams
  /** The client asked for metadata alone. */
  readonly partial: boolean
  readonly store: Store
  readonly timers: Timers
}

/** As a version of the kind shows what is stored, on its own. */
export const shown = (stored: Tree, resource: Resource): Tree => {
  const { show = (object: Tree) => object } = resource.rules
  return { kind: resource.kind, apiVersion: apiVersionOf(resource), ...show(stored) }
}

export const list = async (reading: Reading): Promise<Tree> => {
  const { resource, query, store } = reading
  const matches = parseSelectors(query, resource)
  const page = await pageOf(reading)
  const found = store
    .all(resource.storage, page.at)
    .filter((object) => isWithin(object, reading) && matches(object))
    .map((object) => ({ object, key: keyOf(object, reading) }))
    .filter(({ key }) => key >= page.start)
  const limit = Number(query.get('limit') ?? '0')
  const items = limit > 0 ? found.slice(0, limit) : found
  const rest = found.length - items.length
  const last = items.at(-1)
  const version = page.at ?? store.version()
  const isSelected = query.has('fieldSelector') || query.has('labelSelector')
  const metadata: Tree = {
    ...(rest > 0 && last !== undefined
      ? {
          continue: encodeContinue(version, `/${last.key}\0`),
          ...(isSelected ? {} : { remainingItemCount: rest }),
        }
      : resource.native || reading.partial
        ? {}
        : { continue: '' }),
    resourceVersion: String(version),
  }
  return documentOf(
    items.map(({ object }) => object),
    metadata,
    reading,
  )
}

const documentOf = (objects: readonly Tree[], metadata: Tree, { resource, partial: asPartial }: Reading): Tree => {
  if (asPartial)
    return {
      kind: 'PartialObjectMetadataList',
      apiVersion: 'meta.k8s.io/v1',
      metadata,
      items: objects.map(partial),
    }
  return {
    kind: `${resource.kind}List`,
    apiVersion: apiVersionOf(resource),
    metadata,
    items: objects.map((object) => {
      const { kind, apiVersion, ...bare } = shown(object, resource)
      return resource.native ? bare : { kind: kind ?? null, apiVersion: apiVersion ?? null, ...bare }
    }),
  }
}

interface Page {
  /** Undefined for the newest. */
  readonly at: number | undefined
  readonly start: string
}

const pageOf = async (reading: Reading): Promise<Page> => {
  const { query, store, timers } = reading
  const token = query.get('continue') ?? ''
  if (token !== '') return decodeContinue(token, store)
  const wanted = parseVersion(query.get('resourceVersion'))
  const match = query.get('resourceVersionMatch') ?? ''
  const isExact = match === 'Exact' || (match === '' && query.has('limit') && wanted > 0)
  if (wanted > store.version()) {
    await new Promise<void>((resolve) => timers.after(3, resolve))
    if (wanted > store.version()) throw tooLarge(wanted, store.version())
  }
  if (!isExact) return { at: undefined, start: '' }
  if (wanted < store.oldest()) throw failure(410, 'Expired', 'The resourceVersion for the provided list is too old.')
  return { at: wanted, start: '' }
}

const encodeContinue = (rv: number, start: string): string =>
  Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv, start })).toString('base64url')

const decodeContinue = (token: string, store: Store): Page => {
  const text = Buffer.from(token, 'base64url').toString('latin1')
  let said: { readonly rv?: number; readonly start?: string }
  try {
    said = JSON.parse(Buffer.from(token, 'base64url').toString())
  } catch {
    throw badRequest(
      `invalid continue token: continue key is not valid: invalid character '${text[0] ?? ''}' looking for beginning of value`,
    )
  }
  const { rv = 0, start = '' } = said
  const bare = start.replace(/^\//, '')
  if (rv < 0) return { at: undefined, start: bare }
  if (rv >= store.oldest() - 1) return { at: rv, start: bare }
  throw failure(410, 'Expired', tooOldToContinue, { metadata: { continue: encodeContinue(-1, bare) } })
}

const parseVersion = (text: string | null): number => {
  if (text === null || text === '') return 0
  if (/^\d+$/.test(text)) return Number(text)
  const why = `strconv.ParseUint: parsing "${text}": invalid syntax`
  throw badRequest(`invalid resource version: resourceVersion: Invalid value: "${text}": ${why}`)
}

const tooLarge = (wanted: number, current: number): Error =>
  failure(504, 'Timeout', `Timeout: Too large resource version: ${wanted}, current: ${current}`, {
    details: {
      causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
      retryAfterSeconds: 1,
    },
    headers: { 'retry-after': '1' },
  })

export interface Listener {
  readonly send: (event: Tree) => void
  readonly end: () => void
}

/** A watch that can begin; what that returns stops it. Throws what is refused before a stream begins. */
export const watch = (reading: Reading): ((listener: Listener) => () => void) => {
  const { resource, query } = reading
  const matches = parseSelectors(query, resource)
  if (query.get('sendInitialEvents') === 'true' && query.get('resourceVersionMatch') !== 'NotOlderThan')
    throw initialWithoutMatch()
  const from = parseVersion(query.get('resourceVersion'))
  return (listener) => begin(reading, listener, { matches, from })
}

const begin = (
  reading: Reading,
  listener: Listener,
  { matches, from }: { readonly matches: Matcher; readonly from: number },
): (() => void) => {
  const { resource, query, store, timers } = reading
  if (from > 0 && from < store.oldest() - 1) {
    listener.send({ type: 'ERROR', object: expired(from, store.oldest()) })
    listener.end()
    return () => undefined
  }
  const send = (type: string, object: Tree): void => listener.send({ type, object: bodyOf(object, reading) })
  const tell = (change: Change): void => {
    if (change.kind !== resource.storage || change.version <= from) return
    const event = eventFor(change, reading, matches)
    if (event !== undefined) send(event, change.object)
  }
  if (from === 0)
    for (const object of store.all(resource.storage))
      if (isWithin(object, reading) && matches(object)) send('ADDED', object)
  if (query.get('sendInitialEvents') === 'true')
    listener.send(bookmark(reading, { 'k8s.io/initial-events-end': 'true' }))
  for (const change of from === 0 ? [] : store.since(from, resource.storage)) tell(change)
  const stops = [store.follow(tell), ...scheduleBookmarks(reading, listener)]
  const stop = (): void => {
    for (const one of stops) one()
  }
  const seconds = Number(query.get('timeoutSeconds') ?? '0')
  if (seconds > 0) {
    stops.push(
      timers.after(seconds, () => {
        stop()
        listener.end()
      }),
    )
  }
  return stop
}

/** As the server does it: one in most of a minute, and one shortly before the end of all but short watches. */
const scheduleBookmarks = (reading: Reading, { send }: Listener): (() => void)[] => {
  const { query, timers } = reading
  if (query.get('allowWatchBookmarks') !== 'true') return []
  const seconds = Number(query.get('timeoutSeconds') ?? '0')
  const tell = (): void => send(bookmark(reading))
  let stopNext: () => void = () => undefined
  const again = (): void => {
    stopNext = timers.after(everySeconds, () => {
      tell()
      again()
    })
  }
  again()
  return [() => stopNext(), ...(seconds > 10 ? [timers.after(seconds - 2, tell)] : [])]
}

const everySeconds = 50

const bookmark = ({ resource, store }: Reading, annotations?: Tree): Tree => ({
  type: 'BOOKMARK',
  object: {
    kind: resource.kind,
    apiVersion: apiVersionOf(resource),
    metadata: { ...(annotations === undefined ? {} : { annotations }), resourceVersion: String(store.version()) },
  },
})

/** What a change is to somebody who sees only what matches. */
const eventFor = ({ type, object, previous }: Change, reading: Reading, matches: Matcher): string | undefined => {
  if (!isWithin(object, reading)) return undefined
  const was = previous !== undefined && matches(previous)
  const is = type !== 'DELETED' && matches(object)
  if (is) return was ? 'MODIFIED' : 'ADDED'
  return was ? 'DELETED' : undefined
}

const bodyOf = (object: Tree, { resource, partial: asPartial }: Reading): Tree =>
  asPartial ? partial(object) : shown(object, resource)

const isWithin = (object: Tree, { namespace }: Reading): boolean =>
  namespace === '' || namespaceOf(object) === namespace

const keyOf = (object: Tree, { resource, namespace }: Reading): string =>
  resource.namespaced && namespace === '' ? `${namespaceOf(object)}/${nameOf(object)}` : nameOf(object)

const expired = (from: number, oldest: number): Tree => {
  const { body } = failure(410, 'Expired', `too old resource version: ${from} (${oldest})`)
  return treeAt(body)
}

const initialWithoutMatch = (): Error =>
  invalid({ group: 'meta.k8s.io', kind: 'ListOptions' }, [
    forbiddenValue('resourceVersionMatch', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan'),
  ])

const tooOldToContinue =
  'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.'
