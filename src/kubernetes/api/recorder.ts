/**
 * Events (events.k8s.io/v1): what has happened to an object, for people who describe it. The same again within minutes is
 * counted in a series and not written anew. Nothing waits for them, and nothing depends on them.
 */
import type { Log } from '../../log.ts'
import type { Told } from '../decide/request.ts'
import { type ApiFault, isApiFault, type KubernetesApi } from './client.ts'
import { microTime } from './lease.ts'
import type { KubernetesObject } from './objects.ts'
import { apiVersionOf, pathOf, resources } from './resources.ts'

export interface Recorder {
  /** Whether it will be written, as far as is known: false where there are too many. */
  record(regarding: KubernetesObject, told: Told): boolean
  /** Resolves when what was recorded is written, or could not be within two seconds. */
  close(): Promise<void>
}

export interface RecorderDeps {
  readonly api: Pick<KubernetesApi, 'call'>
  /** Which of the instances. */
  readonly instance: string
  readonly log: Log
  readonly clock: () => Date
  /** Of an event that is not written: too many wait, or there were too many new ones. */
  readonly dropped?: () => void
}

interface Series {
  readonly path: string
  readonly name: string
  count: number
  /** When it happened last, and when that was written last. */
  lastAt: number
  writtenAt: number
}

export const openRecorder = (deps: RecorderDeps): Recorder => {
  const series = new Map<string, Series>()
  const budget = openBudget()
  const tell = openTelling(deps.log)
  const ending = new AbortController()
  let waiting = 0
  let written = 0
  let last: Promise<void> = Promise.resolve()
  /** One after the other: they are nobody's hurry, and must not crowd out what is. */
  const enqueue = (write: (signal: AbortSignal) => Promise<void>): boolean => {
    if (waiting >= mostWaiting) return drop()
    waiting += 1
    last = last.then(() => write(ending.signal)).catch(tell)
    last = last.then(() => {
      waiting -= 1
    })
    return true
  }
  const drop = (): false => {
    deps.dropped?.()
    return false
  }
  return {
    record: (regarding, saying) => {
      const now = deps.clock().getTime()
      // Thousands are kept, and what an answer says may be long.
      const told = { ...saying, note: withinOctets(saying.note, mostNoteOctets) }
      const key = [regarding.metadata.uid, told.type, told.reason, told.note].join('\n')
      const known = series.get(key)
      // Newest at the end, so that the oldest can go.
      series.delete(key)
      // Also where a clock was set back: until it had caught up, nothing would be written.
      if (known === undefined || now - known.lastAt > seriesMs || now < known.writtenAt) {
        if (!budget.take(now)) return drop()
        const fresh = newSeries(regarding, now, written++)
        series.set(key, fresh)
        for (const oldest of series.keys()) {
          if (series.size <= mostSeries) break
          series.delete(oldest)
        }
        return enqueue((signal) => create(deps, fresh, { regarding, told, signal }))
      }
      series.set(key, known)
      known.count += 1
      known.lastAt = now
      if (now - known.writtenAt < quietMs) return true
      known.writtenAt = now
      return enqueue((signal) => count({ ...deps, budget }, known, { regarding, told, signal }))
    },
    close: async () => {
      const rest = setTimeout(() => ending.abort(new Error('the recorder is closed')), closeWithinMs)
      await last
      clearTimeout(rest)
    },
  }
}

interface Happening {
  readonly regarding: KubernetesObject
  readonly told: Told
  readonly signal: AbortSignal
}

/** What is refused will be refused again: somebody has to know, once; a server that is away is known by more than that. */
const openTelling = (log: Log): ((err: unknown) => void) => {
  const told = new Set<string>()
  return (err) => {
    const key = isApiFault(err) && isRefusal(err) ? `${err.status} ${err.reason}` : undefined
    if (key === undefined || told.has(key)) {
      log.debug({ event: 'event.unwritten', err }, 'an event could not be written')
      return
    }
    told.add(key)
    log.warn({ event: 'event.refused', err }, 'the API server does not take an event; others like it are not told of')
  }
}

/** Not that its namespace is gone, or going: that is everyday life. */
const isRefusal = ({ status, message }: ApiFault): boolean =>
  status >= 400 && status < 500 && status !== 429 && status !== 404 && !/being terminated/.test(message)

const newSeries = ({ kind, metadata }: KubernetesObject, now: number, number: number): Series => ({
  // Those about what belongs to no namespace are in this one, and the API server takes no other.
  path: pathOf(resources.events, { namespace: metadata.namespace ?? 'default' }),
  name: `${subdomainOf(metadata.name) ?? kind.toLowerCase()}.${now.toString(16)}${(number % 0x10000).toString(16).padStart(4, '0')}`,
  count: 1,
  lastAt: now,
  writtenAt: now,
})

/**
 * The name of an event must be one of RFC 1123, and that of a CertificateSigningRequest need not be: kubelets name theirs
 * `node-csr-` and base64url. Undefined for such a one; what is cut ends as it must.
 */
const subdomainOf = (name: string): string | undefined => {
  const cut = name.slice(0, 200).replace(/[-.]+$/, '')
  return cut.split('.').every((label) => /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(label)) ? cut : undefined
}

const create = async ({ api, instance }: RecorderDeps, series: Series, happening: Happening): Promise<void> => {
  const { regarding, told, signal } = happening
  const { name, namespace, uid, resourceVersion } = regarding.metadata
  await api.call('POST', series.path, {
    signal,
    body: {
      apiVersion: apiVersionOf(resources.events),
      kind: resources.events.kind,
      metadata: { name: series.name, namespace: namespace ?? 'default' },
      eventTime: microTime(new Date(series.lastAt)),
      type: told.type,
      reason: told.reason,
      action: told.action,
      note: told.note,
      reportingController: 'chancery.dev/controller',
      reportingInstance: instance.slice(0, 128),
      regarding: {
        apiVersion: regarding.apiVersion,
        kind: regarding.kind,
        name,
        ...(namespace !== undefined && { namespace }),
        uid,
        resourceVersion,
      },
    },
  })
}

type Counting = RecorderDeps & { readonly budget: ReturnType<typeof openBudget> }

const count = async (deps: Counting, series: Series, happening: Happening): Promise<void> => {
  const { signal } = happening
  const body = { series: { count: series.count, lastObservedTime: microTime(new Date(series.lastAt)) } }
  try {
    await deps.api.call('PATCH', `${series.path}/${encodeURIComponent(series.name)}`, { body, patch: 'merge', signal })
  } catch (error) {
    // Events live for an hour.
    if (!isApiFault(error, 404)) throw error
    if (!deps.budget.take(series.lastAt)) return deps.dropped?.()
    await create(deps, series, happening)
  }
}

/**
 * How many new events there may be: an event is an object in etcd for an hour. An event that is dropped is recorded another
 * time where nothing but an event reports it.
 */
const openBudget = () => {
  let tokens = mostAtOnce
  let at = Number.NEGATIVE_INFINITY
  return {
    /** `now` in milliseconds; a clock that is set back costs no tokens. */
    take: (now: number): boolean => {
      tokens = Math.min(mostAtOnce, tokens + Math.max(0, now - at) / tokenMs)
      at = now
      if (tokens < 1) return false
      tokens -= 1
      return true
    },
  }
}

/** Without half a character at its end. */
const withinOctets = (text: string, most: number): string => {
  const octets = Buffer.from(text.slice(0, most + 1))
  if (octets.length <= most) return text
  return `${octets
    .subarray(0, most - 3)
    .toString()
    .replace(/\uFFFD+$/, '')}…`
}

/** As many as requests become due together in a large cluster, then 300 a minute. */
const mostAtOnce = 2_048
const tokenMs = 200
const mostNoteOctets = 1_024
const mostSeries = 4_096
const mostWaiting = 8_192
const seriesMs = 360_000
const quietMs = 60_000
const closeWithinMs = 2_000
