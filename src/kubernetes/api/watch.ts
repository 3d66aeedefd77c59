/**
 * All objects of a kind, kept up to date: listed in pages, then watched from there. A watch that has become too old is told so
 * in an answer of 200 (an ERROR event with code 410), as is whatever else ends it; it is listed anew then.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Log } from '../../log.ts'
import { ApiFault, faultOf, isApiFault, type KubernetesApi, type StatusObject } from './client.ts'
import { type KubernetesObject, keyOf } from './objects.ts'
import { apiVersionOf, pathOf, type Resource } from './resources.ts'

export interface WatchDeps<T extends KubernetesObject> {
  readonly api: Pick<KubernetesApi, 'call' | 'lines'>
  readonly resource: Resource
  readonly fieldSelector?: string
  /** What is kept of an object; everything is held in memory. */
  readonly keep: (object: T) => T
  /** `next` is undefined once it is gone. In a resync, both are the same object. */
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
  /** Whether it has been listed. */
  readonly synced: boolean
  /** Milliseconds since it was known to be as the API server has it: 0 while its stream is open, since the start if never. */
  readonly behindMs: number
  close(): Promise<void>
}

export const openWatch = <T extends KubernetesObject>(deps: WatchDeps<T>): Watch<T> => {
  const { now } = deps
  const ending = new AbortController()
  const cache: Cache<T> = { objects: new Map(), synced: false, currentAt: now(), openedAt: Number.POSITIVE_INFINITY }
  const resync = setInterval(() => {
    for (const [key, object] of cache.objects) deps.changed(key, object, object)
  }, deps.resyncMs ?? 600_000).unref()
  const running = follow(deps, cache, ending.signal)
  return {
    get: (key) => cache.objects.get(key),
    all: () => cache.objects.values(),
    get size() {
      return cache.objects.size
    },
    get synced() {
      return cache.synced
    },
    get behindMs() {
      return hasLasted(cache, now()) ? 0 : now() - cache.currentAt
    },
    close: async () => {
      clearInterval(resync)
      ending.abort(new Error('the watch is closed'))
      await running
    },
  }
}

interface Cache<T> {
  readonly objects: Map<string, T>
  synced: boolean
  /** When it was last known to be as the API server has it. */
  currentAt: number
  /** When the stream that is open began; Infinity without one. */
  openedAt: number
}

/** A watch may be answered with 200 and end at once with an error: such a stream does not count. */
const hasLasted = ({ openedAt }: Pick<Cache<never>, 'openedAt'>, now: number): boolean => now - openedAt > settleMs

export const isStale = (behindMs: number): boolean => behindMs > staleAfterMs

const put = <T extends KubernetesObject>({ changed }: WatchDeps<T>, { objects }: Cache<T>, next: T): void => {
  const key = keyOf(next.metadata)
  const before = objects.get(key)
  objects.set(key, next)
  changed(key, next, before)
}

const drop = <T extends KubernetesObject>({ changed }: WatchDeps<T>, { objects }: Cache<T>, key: string): void => {
  const before = objects.get(key)
  if (objects.delete(key)) changed(key, undefined, before)
}

const replace = <T extends KubernetesObject>(deps: WatchDeps<T>, cache: Cache<T>, found: ReadonlyMap<string, T>) => {
  for (const key of [...cache.objects.keys()]) if (!found.has(key)) drop(deps, cache, key)
  for (const [key, object] of found) {
    const before = cache.objects.get(key)
    if (before?.metadata.resourceVersion !== object.metadata.resourceVersion) put(deps, cache, object)
  }
  cache.synced = true
  cache.currentAt = deps.now()
}

const follow = async <T extends KubernetesObject>(deps: WatchDeps<T>, cache: Cache<T>, signal: AbortSignal) => {
  let version: string | undefined
  let setbacks = 0
  while (!signal.aborted) {
    try {
      version ??= await list(deps, cache, signal)
      const seen: Seen = await watchFrom(deps, cache, { from: version, signal })
      // One that ends at once, again and again, must not become a storm of requests; nor one that only says the same again.
      if (version === seen.version && !seen.lasted) throw new Error('the watch has ended at once')
      version = seen.version
      setbacks = 0
      if (seen.pauseMs > 0) await sleep(seen.pauseMs, undefined, { signal })
    } catch (error) {
      if (signal.aborted) return
      const gone = isGone(error)
      if (gone) version = undefined
      deps.restarted?.(gone ? 'expired' : 'failed')
      // The first time, what has expired is listed at once.
      const isSetback = !gone || setbacks > 0
      if (isSetback) logSetback(deps, error)
      await sleep(isSetback ? delayOf(deps, setbacks, error) : 0, undefined, { signal }).catch(() => {})
      setbacks += 1
    }
  }
}

/** 504: the server was restored from a backup, and has not reached this version. */
const isGone = (error: unknown): boolean => isApiFault(error, 410) || isApiFault(error, 504)

const logSetback = <T extends KubernetesObject>({ log, resource }: WatchDeps<T>, err: unknown): void =>
  log.warn({ event: 'watch.failed', resource: resource.plural, err }, 'objects cannot be listed or watched now')

type Delaying = Pick<WatchDeps<never>, 'firstMs' | 'mostMs' | 'random'>

const delayOf = ({ firstMs = 1_000, mostMs = 30_000, random }: Delaying, setbacks: number, error: unknown): number =>
  Math.max(askedMs(error), Math.min(mostMs, firstMs * 2 ** setbacks) * (0.5 + random() / 2))

/** How long the server wants to be left alone. */
const askedMs = (error: unknown): number => (isApiFault(error) ? (error.retryAfter ?? 0) * 1_000 : 0)

interface ListBody<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
  readonly items: readonly T[]
}

/** Resolves to the version that the list is of. Of each page no more is held than what is kept of it. */
const list = async <T extends KubernetesObject>(
  deps: WatchDeps<T>,
  cache: Cache<T>,
  signal: AbortSignal,
): Promise<string> => {
  const { api, resource, fieldSelector, keep } = deps
  const found = new Map<string, T>()
  // Items of a list have no kind of their own with some servers.
  const about = { apiVersion: apiVersionOf(resource), kind: resource.kind }
  let next: string | undefined
  for (;;) {
    const query = { fieldSelector, limit: String(pageSize), continue: next }
    const page: ListBody<T> = await api.call('GET', pathOf(resource), { query, signal })
    for (const item of page.items) found.set(keyOf(item.metadata), keep({ ...item, ...about }))
    next = page.metadata.continue || undefined
    if (next !== undefined) continue
    replace(deps, cache, found)
    return page.metadata.resourceVersion
  }
}

interface Seen {
  readonly version: string
  /** It was open for longer than one that is turned away. */
  readonly lasted: boolean
  /** Before the next one, as whatever ended it has said. */
  readonly pauseMs: number
}

interface Watching {
  readonly from: string
  readonly signal: AbortSignal
}

const watchFrom = async <T extends KubernetesObject>(
  deps: WatchDeps<T>,
  cache: Cache<T>,
  { from, signal }: Watching,
): Promise<Seen> => {
  const { api, resource, fieldSelector, watchSeconds = 300, random, now } = deps
  const seconds = Math.ceil(watchSeconds * (1 + random() / 5))
  let version = from
  let pauseMs = 0
  let lasted = false
  const end = (): void => {
    lasted = hasLasted(cache, now())
    if (lasted) cache.currentAt = now()
    cache.openedAt = Number.POSITIVE_INFINITY
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
        cache.openedAt = now()
      },
      take: (line) => {
        version = takeEvent(deps, cache, line)
      },
    })
    end()
  } catch (error) {
    end()
    // What came before counts, and so does silence that is cut: a proxy may end what is idle, again and again.
    if ((version === from && !lasted) || isGone(error) || signal.aborted) throw error
    deps.restarted?.('broken')
    pauseMs = askedMs(error)
  }
  return { version, lasted, pauseMs }
}

/** Returns the version that the event brings the cache to. Throws the fault that the server sends in place of an event. */
const takeEvent = <T extends KubernetesObject>(deps: WatchDeps<T>, cache: Cache<T>, line: string): string => {
  const { type, object } = readEvent<T>(line)
  if (type === 'ADDED' || type === 'MODIFIED') put(deps, cache, deps.keep(object))
  else if (type === 'DELETED') drop(deps, cache, keyOf(object.metadata))
  cache.currentAt = deps.now()
  return object.metadata.resourceVersion
}

interface WatchEvent<T> {
  readonly type: string
  readonly object: T & StatusObject
}

/** A line that cannot be read would come again from the same version: it is listed anew, as for one that has expired. */
const readEvent = <T extends KubernetesObject>(line: string): WatchEvent<T> => {
  let event: WatchEvent<T> | undefined
  try {
    event = JSON.parse(line)
  } catch {}
  if (event?.type === 'ERROR') throw faultOf(event.object ?? {})
  if (event && typeof event.object?.metadata?.resourceVersion === 'string') return event
  throw new ApiFault(410, 'a line of the watch holds no event that can be read')
}

/** As large as all objects of a page may be together: etcd takes 1.5 MiB each. */
const pageSize = 50
/** A single API server is away for a minute or two while it is upgraded, and the longest pause between two tries is a minute. */
const staleAfterMs = 180_000
const settleMs = 1_000
