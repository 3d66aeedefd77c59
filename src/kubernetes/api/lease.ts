/**
 * Leader election by a Lease, with the rules of client-go: whoever holds it renews it every few seconds; whoever wants it
 * waits until it has seen no change of it for as long as it says that it lasts, by its own clock, since clocks differ; and the
 * resourceVersion decides between two that come at once.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Log } from '../../log.ts'
import { isApiFault, type KubernetesApi } from './client.ts'
import { apiVersionOf, pathOf, resources } from './resources.ts'

export interface LeaseDeps {
  readonly api: Pick<KubernetesApi, 'call'>
  readonly namespace: string
  readonly name: string
  /** Of this process, and of no other that there ever was. */
  readonly identity: string
  readonly log: Log
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  readonly wallClock: () => Date
  readonly times?: LeaseTimes
}

/** Milliseconds. */
export interface LeaseTimes {
  /** Nobody else takes it for as long as that after a renewal. */
  readonly lasts: number
  /** Who cannot renew it for as long as that has lost it: sooner than others may take it. */
  readonly renewWithin: number
  readonly retryEvery: number
}

export interface Lease {
  /** Whether it is ours at this moment, by our own clock: a process that was stopped and goes on is no leader any more. */
  readonly held: boolean
  /** Gives it back if it is ours; the work has ended before. */
  close(): Promise<void>
}

export interface Work {
  /** Begins to work, each time that the lease is won. `lost` says that nothing may be done any more, from this moment on. */
  readonly lead: (lost: AbortSignal) => Leading
}

export interface Leading {
  /** Begins nothing more; resolves when what was begun has ended. */
  stop(): Promise<void>
}

interface LeaseSpec {
  readonly holderIdentity?: string
  readonly leaseDurationSeconds?: number
  readonly acquireTime?: string
  readonly renewTime?: string
  readonly leaseTransitions?: number
}

interface LeaseObject {
  readonly metadata: { readonly resourceVersion: string }
  readonly spec: LeaseSpec
}

export const openLease = (deps: LeaseDeps, { lead }: Work): Lease => {
  const ending = new AbortController()
  const state: Candidate = {
    seen: undefined,
    seenAt: Number.NEGATIVE_INFINITY,
    renewedAt: Number.NEGATIVE_INFINITY,
    ours: undefined,
  }
  const times = deps.times ?? usualTimes
  const isHeld = (): boolean => state.ours !== undefined && deps.now() - state.renewedAt < times.renewWithin
  const running = run(deps, { state, times, isHeld, signal: ending.signal, lead })
  return {
    get held() {
      return isHeld()
    },
    close: async () => {
      ending.abort(new Error('the lease is given back'))
      await running
    },
  }
}

interface Candidate {
  /** What was read last, and when by our clock. */
  seen: LeaseObject | undefined
  seenAt: number
  /** Before the request that renewed it was sent. */
  renewedAt: number
  /** As it was written last, if it is ours. */
  ours: LeaseObject | undefined
}

interface Running extends Work {
  readonly state: Candidate
  readonly times: LeaseTimes
  readonly isHeld: () => boolean
  readonly signal: AbortSignal
}

const run = async (deps: LeaseDeps, running: Running): Promise<void> => {
  const { state, times, signal, lead, isHeld } = running
  while (!signal.aborted) {
    if (await tryOnce(deps, running, acquire)) {
      deps.log.info({ event: 'lease.won', identity: deps.identity }, 'this instance works')
      const lost = new AbortController()
      const leading = lead(lost.signal)
      await keep(deps, running)
      if (!isHeld()) {
        deps.log.warn({ event: 'lease.lost', identity: deps.identity }, 'another instance may work now')
        lost.abort(new Error('the lease is lost'))
      }
      // What was begun ends by itself while the lease lasts; what takes longer is not waited for.
      const rest = setTimeout(() => lost.abort(new Error('the lease is given back')), stopWithinMs)
      await leading.stop()
      clearTimeout(rest)
      if (isHeld()) await release(deps, state)
      state.ours = undefined
    }
    await pause(times.retryEvery * (1 + deps.random() / 5), signal)
  }
}

/** Resolves when it is lost, or when we stop. */
const keep = async (deps: LeaseDeps, running: Running): Promise<void> => {
  const { state, times, isHeld, signal } = running
  do {
    const left = times.renewWithin - (deps.now() - state.renewedAt)
    await pause(Math.min(times.retryEvery, Math.max(0, left)), signal)
    if (signal.aborted || !isHeld()) return
    await tryOnce(deps, running, renew)
  } while (isHeld())
}

type Attempt = (deps: LeaseDeps, state: Candidate, signal: AbortSignal) => Promise<boolean>

/** A fault of the API server, or somebody who was faster, is no more than one attempt. */
const tryOnce = async (deps: LeaseDeps, { state, signal }: Running, attempt: Attempt): Promise<boolean> => {
  try {
    return await attempt(deps, state, signal)
  } catch (err) {
    if (signal.aborted) return false
    if (isApiFault(err, 409)) state.ours = undefined
    else deps.log.warn({ event: 'lease.unreachable', err }, 'the lease cannot be read or written now')
    return false
  }
}

/**
 * Each of the two calls may take as long as a renewal, with which a leader goes on. If they had to share that, nobody could begin
 * where both are slow: a write that is given up is done all the same, and keeps the others away.
 */
const acquire: Attempt = async (deps, state, ending) => {
  const found = await read(deps, patient(deps, ending))
  const now = deps.now()
  const signal = patient(deps, ending)
  if (found === undefined) return write(deps, state, { method: 'POST', from: undefined, signal })
  if (found.metadata.resourceVersion !== state.seen?.metadata.resourceVersion) {
    state.seen = found
    state.seenAt = now
  }
  const { holderIdentity = '', leaseDurationSeconds = 0 } = found.spec
  const isFree = holderIdentity === '' || holderIdentity === deps.identity
  if (!isFree && now - state.seenAt <= leaseDurationSeconds * 1_000) return false
  return write(deps, state, { method: 'PUT', from: found, signal })
}

const renew: Attempt = (deps, state, ending) => {
  const signal = patient(deps, ending)
  return whileOurs(deps, { from: state.ours, signal }, (from) => write(deps, state, { method: 'PUT', from, signal }))
}

/** Somebody may have written a note on it, or our own answer was lost: it is ours as long as it says so. */
const whileOurs = async <T>(
  deps: LeaseDeps,
  { from, signal }: Pick<Writing, 'from' | 'signal'>,
  put: (from: LeaseObject | undefined) => Promise<T>,
): Promise<T> => {
  try {
    return await put(from)
  } catch (error) {
    if (!isApiFault(error, 409)) throw error
    const found = await read(deps, signal)
    if (found?.spec.holderIdentity !== deps.identity) throw error
    return put(found)
  }
}

const patient = ({ times = usualTimes }: LeaseDeps, ending: AbortSignal): AbortSignal =>
  AbortSignal.any([ending, AbortSignal.timeout(times.retryEvery * 2)])

interface Writing {
  readonly method: 'POST' | 'PUT'
  readonly from: LeaseObject | undefined
  readonly signal: AbortSignal
}

/** The time of a renewal is that before it was asked for: what comes late is not ours for longer. */
const write = async (deps: LeaseDeps, state: Candidate, { method, from, signal }: Writing): Promise<boolean> => {
  const at = deps.now()
  const time = microTime(deps.wallClock())
  const isOurs = from?.spec.holderIdentity === deps.identity
  const spec: LeaseSpec = {
    holderIdentity: deps.identity,
    leaseDurationSeconds: Math.ceil((deps.times ?? usualTimes).lasts / 1_000),
    acquireTime: isOurs ? (from?.spec.acquireTime ?? time) : time,
    renewTime: time,
    leaseTransitions: (from?.spec.leaseTransitions ?? 0) + (isOurs || from === undefined ? 0 : 1),
  }
  state.ours = await send(deps, { method, from, spec, signal })
  state.renewedAt = at
  return true
}

const release = async (deps: LeaseDeps, { ours }: Candidate): Promise<void> => {
  if (ours === undefined) return
  const free = { holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime(deps.wallClock()) }
  const signal = AbortSignal.timeout(releaseWithinMs)
  const put = (from: LeaseObject | undefined): Promise<LeaseObject> =>
    send(deps, { method: 'PUT', from, spec: { ...from?.spec, ...free }, signal })
  await whileOurs(deps, { from: ours, signal }, put).catch((err: unknown) =>
    deps.log.warn({ event: 'lease.kept', err }, 'the lease could not be given back; it ends by itself'),
  )
}

const read = async ({ api, namespace, name }: LeaseDeps, signal: AbortSignal): Promise<LeaseObject | undefined> => {
  try {
    return await api.call<LeaseObject>('GET', pathOf(resources.leases, { namespace, name }), { signal })
  } catch (error) {
    if (isApiFault(error, 404)) return undefined
    throw error
  }
}

interface SendingLease extends Writing {
  readonly spec: LeaseSpec
}

const send = (
  { api, namespace, name }: LeaseDeps,
  { method, from, spec, signal }: SendingLease,
): Promise<LeaseObject> => {
  const { kind } = resources.leases
  const metadata = from?.metadata ?? { name, namespace }
  const body = { apiVersion: apiVersionOf(resources.leases), kind, metadata, spec }
  const path = pathOf(resources.leases, method === 'POST' ? { namespace } : { namespace, name })
  return api.call<LeaseObject>(method, path, { body, signal })
}

/** Six digits of a second, or the API server says 400. */
export const microTime = (time: Date): string => time.toISOString().replace(/(\.\d{3})Z$/, '$1000Z')

const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
  await sleep(ms, undefined, { signal }).catch(() => {})
}

const usualTimes: LeaseTimes = { lasts: 15_000, renewWithin: 10_000, retryEvery: 2_000 }
const releaseWithinMs = 2_000
/** Less than a lease lasts beyond its last renewal. */
const stopWithinMs = 5_000
