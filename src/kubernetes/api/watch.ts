/**
 * All objects of a kind, kept up to date: listed in pages, then watched from there. A watch that has become too old is told so
 * in an answer of 200 (an ERROR event with code 410), as is whatever else ends it; it is listed anew then.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Log } from '../../log.ts'
import { ApiFault, faultOf, isApiFault, isCut, isTooLong, type KubernetesApi, type StatusObject } from './client.ts'
import { type KubernetesObject, keyOf } from './objects.ts'
import { apiVersionOf, pathOf, type Resource } from './resources.ts'
import { type Currency, openCurrency, settleMs } from './watch-staleness.ts'

export interface WatchDeps<T extends KubernetesObject> {
  readonly api: Pick<KubernetesApi, 'call' | 'lines'>
  readonly resource: Resource
  readonly fieldSelector?: string
  /** What is kept of an object; everything is held in memory. */
  readonly keep: (object: T) => T
  /** `next` is undefined once it is gone. Of what is said again in a resync, both are the same object. */
  readonly changed: (key: string, next: T | undefined, before: T | undefined) => void
  readonly log: Log
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  /** Of an attempt that ended otherwise than by its time. */
  readonly restarted?: (reason: string) => void
  /** How long to wait after one setback, and at most after many. */
  readonly firstMs?: number
  readonly mostMs?: number
  /** Each watch is asked to end by itself after about this long. */
  readonly watchSeconds?: number
  /** Every so often, all are said again. */
  readonly resyncMs?: number
}

export interface Watch<T extends KubernetesObject> {
  get(key: string): T | undefined
  all(): Iterable<T>
  readonly size: number
  /**
   * What our own write has made of an object that is there: it comes by the watch as well, but mostly later, and is no change
   * any more then; so it is told as one here. Where the watch was sooner, or somebody has written since, what is kept is of none
   * of the versions that ours is newer than.
   */
  learn(object: T, after: readonly string[]): void
  /** Whether it has been listed. */
  readonly synced: boolean
  /** Milliseconds since it was known to be as the API server has it: 0 while its stream is open, since the start if never. */
  readonly behindMs: number
  close(): Promise<void>
}

export const openWatch = <T extends KubernetesObject>(deps: WatchDeps<T>): Watch<T> => {
  const ending = new AbortController()
  const kept = new Map<string, T>()
  const state = { synced: false }
  /** While a list is read, whose pages are all of one moment: written by us since. Of these the list may be older. */
  let written: Set<string> | undefined
  const currency = openCurrency({ resource: deps.resource.plural, log: deps.log, now: deps.now })
  /** As it is kept. */
  const put = (next: T): void => {
    const key = keyOf(next.metadata)
    const before = kept.get(key)
    kept.set(key, next)
    deps.changed(key, next, before)
  }
  /** Our own write is known before the watch tells it: what led to it, and comes after it, would set the object back. */
  const tell = (next: T): void => {
    if (!isKnown(next, kept.get(keyOf(next.metadata)))) put(next)
  }
  /** Told twice, or late, it may be of one whose name another one has by now. */
  const drop = ({ metadata }: T): void => {
    const key = keyOf(metadata)
    const before = kept.get(key)
    if (before?.metadata.uid !== metadata.uid) return
    kept.delete(key)
    deps.changed(key, undefined, before)
  }
  const replace = (objects: ReadonlyMap<string, T>): void => {
    for (const [key, object] of [...kept]) if (!objects.has(key)) drop(object)
    for (const [key, object] of objects) {
      const before = kept.get(key)
      // Of any other, one of an older version is as it is now: a server may have been restored from a backup.
      if (written?.has(key) && isKnown(object, before)) continue
      if (before?.metadata.resourceVersion !== object.metadata.resourceVersion) put(object)
    }
    written = undefined
    state.synced = true
    currency.renew()
  }
  const resync = setInterval(() => {
    for (const [key, object] of kept) deps.changed(key, object, object)
  }, deps.resyncMs ?? 600_000).unref()
  const begin = (): void => {
    written = new Set()
  }
  const running = follow(deps, { tell, drop, begin, replace, currency, signal: ending.signal })
  return {
    get: (key) => kept.get(key),
    all: () => kept.values(),
    get size() {
      return kept.size
    },
    learn: (object, after) => {
      const key = keyOf(object.metadata)
      const { uid, resourceVersion } = kept.get(key)?.metadata ?? {}
      if (uid !== object.metadata.uid || resourceVersion === undefined || !after.includes(resourceVersion)) return
      written?.add(key)
      put(deps.keep(object))
    },
    get synced() {
      return state.synced
    },
    get behindMs() {
      return currency.behindMs
    },
    close: async () => {
      clearInterval(resync)
      ending.abort(new Error('the watch is closed'))
      await running
    },
  }
}

/** Versions are numbers of one history (KEP-5504), longer than a double holds; where they are not, each is news. */
const isKnown = ({ metadata: next }: KubernetesObject, before: KubernetesObject | undefined): boolean => {
  const { uid, resourceVersion } = before?.metadata ?? {}
  if (resourceVersion === undefined || uid !== next.uid) return false
  const areNumbers = [resourceVersion, next.resourceVersion].every((version) => /^[1-9]\d{0,19}$/.test(version))
  return areNumbers && BigInt(next.resourceVersion) <= BigInt(resourceVersion)
}

interface Following<T> {
  tell(object: T): void
  drop(object: T): void
  /** A list is asked for, which `replace` ends. */
  begin(): void
  replace(objects: ReadonlyMap<string, T>): void
  readonly currency: Currency
  readonly signal: AbortSignal
}

const follow = async <T extends KubernetesObject>(deps: WatchDeps<T>, to: Following<T>): Promise<void> => {
  const { signal } = to
  const { firstMs = 1_000, mostMs = 30_000 } = deps
  let version: string | undefined
  let setbacks = 0
  while (!signal.aborted) {
    try {
      if (version === undefined) version = await list(deps, to)
      const from: string = version
      const seen: Seen = await watchFrom(deps, to, from)
      version = seen.version
      // One that ends at once, again and again, must not become a storm of requests; nor one that only says the same again.
      if (version !== from || seen.lasted) setbacks = 0
      else throw new Error('the watch has ended at once')
      if (seen.pauseMs > 0) await sleep(seen.pauseMs, undefined, { signal })
      if (seen.events === 0) await assertNotAhead(deps, version, signal)
    } catch (error) {
      if (signal.aborted) return
      const gone = isGone(error)
      // From there on the same line would come again and again, and what is behind it never.
      if (gone || isUnreadable(error)) version = undefined
      deps.restarted?.(gone ? 'expired' : 'failed')
      if (!gone || setbacks > 0) tellSetback(deps, error)
      to.currency.fail(error)
      // The first time, what has expired is listed at once.
      const delay = gone && setbacks === 0 ? 0 : delayOf({ firstMs, mostMs, setbacks, random: deps.random() }, error)
      setbacks += 1
      await sleep(delay, undefined, { signal }).catch(() => {})
    }
  }
}

/** 504 as well: we are ahead of a server that was restored from a backup, and would wait for events in silence. */
const isGone = (error: unknown): boolean => isApiFault(error, 410) || isApiFault(error, 504)

const isUnreadable = (error: unknown): boolean => isApiFault(error, 0) && error.reason === unreadable

const tellSetback = <T extends KubernetesObject>({ log, resource }: WatchDeps<T>, err: unknown): void =>
  log.warn({ event: 'watch.failed', resource: resource.plural, err }, 'objects cannot be listed or watched now')

interface Delaying {
  readonly firstMs: number
  readonly mostMs: number
  readonly setbacks: number
  readonly random: number
}

const delayOf = ({ firstMs, mostMs, setbacks, random }: Delaying, error: unknown): number => {
  return Math.max(askedMs(error), Math.min(mostMs, firstMs * 2 ** setbacks) * (0.5 + random / 2))
}

/** How long the server wants to be left alone. */
const askedMs = (error: unknown): number => (isApiFault(error) ? (error.retryAfter ?? 0) * 1_000 : 0)

interface ListBody<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
  readonly items: readonly T[]
}

/**
 * Resolves to the version that the list is of. One whose pages have expired meanwhile is begun anew; where they do again, it is
 * read as a whole, if that is short enough.
 */
const list = async <T extends KubernetesObject>(deps: WatchDeps<T>, to: Following<T>): Promise<string> => {
  for (let tries = 0; tries < 2; tries += 1) {
    try {
      return await listPages(deps, to, pageSize)
    } catch (error) {
      if (!isApiFault(error, 410)) throw error
    }
  }
  return await listPages(deps, to, undefined)
}

/**
 * Whoever may make objects may make large ones: of each page no more is held than what is kept of it, and a page that is too
 * long is asked for in halves, down to a single object, which etcd bounds. After some that were short enough, they grow again.
 */
const listPages = async <T extends KubernetesObject>(
  deps: WatchDeps<T>,
  { begin, replace, signal }: Following<T>,
  most: number | undefined,
): Promise<string> => {
  const { resource, keep } = deps
  const found = new Map<string, T>()
  // Items of a list have no kind of their own with some servers.
  const about = { apiVersion: apiVersionOf(resource), kind: resource.kind }
  let limit = most
  /** Pages in a row that were short enough. */
  let short = 0
  let next: string | undefined
  begin()
  for (;;) {
    const page = await pageOf(deps, { limit, next, signal }).catch((error: unknown) => {
      if (!isTooLong(error) || limit === undefined || limit === 1) throw error
      limit = Math.floor(limit / 2)
      short = 0
    })
    if (page === undefined) continue
    if (limit !== undefined && ++short % shortPages === 0) limit = Math.min(pageSize, limit * 2)
    for (const item of page.items) found.set(keyOf(item.metadata), keep({ ...item, ...about }))
    next = page.metadata.continue || undefined
    if (next !== undefined) continue
    replace(found)
    return page.metadata.resourceVersion
  }
}

interface Paging {
  readonly limit: number | undefined
  readonly next: string | undefined
  readonly signal: AbortSignal
}

const pageOf = <T extends KubernetesObject>(
  { api, resource, fieldSelector }: WatchDeps<T>,
  { limit, next, signal }: Paging,
): Promise<ListBody<T>> => {
  const query = { fieldSelector, limit: limit === undefined ? undefined : String(limit), continue: next }
  return api.call('GET', pathOf(resource), { query, signal })
}

interface Seen {
  readonly version: string
  readonly events: number
  /** It went on for longer than one that is turned away. */
  readonly lasted: boolean
  /** Before the next one, as whatever ended it has said. */
  readonly pauseMs: number
}

interface WatchEvent<T> {
  readonly type: string
  readonly object: T & StatusObject
}

const watchFrom = async <T extends KubernetesObject>(
  deps: WatchDeps<T>,
  to: Following<T>,
  from: string,
): Promise<Seen> => {
  const { api, resource, fieldSelector, watchSeconds = 300, random, now } = deps
  const seconds = Math.ceil(watchSeconds * (1 + random() / 5))
  let openedAt = Number.POSITIVE_INFINITY
  const hasLasted = (): boolean => now() - openedAt > settleMs
  const seen = { version: from, events: 0, pauseMs: 0 }
  const ending = new AbortController()
  const signal = AbortSignal.any([to.signal, ending.signal])
  const take = (line: string): void => {
    const { type, object } = readEvent(deps, line)
    to.currency.renew()
    seen.version = object.metadata.resourceVersion
    seen.events += 1
    if (type === 'ADDED' || type === 'MODIFIED') to.tell(object)
    else if (type === 'DELETED') to.drop(object)
  }
  try {
    await api.lines(pathOf(resource), {
      query: {
        fieldSelector,
        watch: 'true',
        allowWatchBookmarks: 'true',
        resourceVersion: from,
        timeoutSeconds: String(seconds),
      },
      signal,
      patienceMs: (seconds + 15) * 1_000,
      begun: () => {
        openedAt = now()
        to.currency.begin()
      },
      take,
    })
  } catch (error) {
    // Whatever ends it, what came before counts; so does silence that is cut: a proxy may end what is idle, again and again.
    const counts = seen.events > 0 || (hasLasted() && isCut(error))
    if (!counts || isGone(error) || isUnreadable(error) || to.signal.aborted) throw error
    deps.restarted?.('broken')
    seen.pauseMs = askedMs(error)
  } finally {
    to.currency.end()
    ending.abort()
  }
  return { ...seen, lasted: hasLasted() }
}

/** As it is kept. Throws what the server says in its place; of a line that is none, no more than that. */
const readEvent = <T extends KubernetesObject>(
  { keep }: WatchDeps<T>,
  line: string,
): Pick<WatchEvent<T>, 'type'> & { readonly object: T } => {
  try {
    const { type, object } = JSON.parse(line) as WatchEvent<T>
    if (type === 'ERROR') throw faultOf(object)
    if (typeof object.metadata.resourceVersion !== 'string') throw new TypeError('it has no version')
    return { type, object: type === 'BOOKMARK' ? object : keep(object) }
  } catch (error) {
    if (isApiFault(error)) throw error
    throw new ApiFault(0, 'a line of the watch holds no event that can be read', { reason: unreadable })
  }
}

/**
 * A watch from a version that the server has not reached is silent, and ends as one in which nothing happened. Rejects with
 * the server's 504 then.
 */
const assertNotAhead = async <T extends KubernetesObject>(
  { api, resource, fieldSelector }: WatchDeps<T>,
  version: string,
  signal: AbortSignal,
): Promise<void> => {
  const query = { fieldSelector, limit: '1', resourceVersion: version, resourceVersionMatch: 'NotOlderThan' }
  await api.call('GET', pathOf(resource), { query, signal })
}

const pageSize = 50
const shortPages = 4
const unreadable = 'Unreadable'
