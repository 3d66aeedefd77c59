/** What the instance that has the lease does: a queue for each kind of object, and nothing written once the lease is lost. */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Log } from '../../log.ts'
import { isApiFault, type KubernetesApi } from '../api/client.ts'
import { type CertificateRequest, type KubernetesObject, keyOf } from '../api/objects.ts'
import type { Recorder } from '../api/recorder.ts'
import { type IssuerKind, type Resource, resources } from '../api/resources.ts'
import type { Watch } from '../api/watch.ts'
import { isOfNode } from '../decide/approval.ts'
import type { ReadRequest } from '../decide/asking.ts'
import type { Meter } from '../metrics.ts'
import type { ControllerSettings } from '../settings.ts'
import type { Asker } from './asker.ts'
import { type IssuerName, issuerName, issuerNameOf, laneOfIssuer, openIssuers } from './issuers.ts'
import { lookAtPodRequest } from './pods.ts'
import { type Looked, openQueue, type Queue, type Turn } from './queue.ts'
import { openCircles } from './renewal-backoff.ts'
import { lookAtRequest } from './requests.ts'
import { lookAtSigningRequest } from './signing.ts'
import type { Wake, Watches } from './watches.ts'

export interface WorkDeps {
  readonly api: KubernetesApi
  readonly settings: ControllerSettings
  readonly watches: Watches
  readonly asker: Asker
  readonly recorder: Recorder
  readonly meter: Meter
  readonly readRequest: ReadRequest
  readonly log: Log
  readonly clock: () => Date
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  /** Milliseconds after one setback, and at most. */
  readonly patience?: { readonly firstMs: number; readonly mostMs: number } | undefined
  /** From this moment on, nothing may be done any more. */
  readonly lost: AbortSignal
  /** Whether the lease is ours, by our own clock. */
  readonly isHeld: () => boolean
}

export interface Work extends Wake {
  /** Begins nothing more; resolves when what was begun has ended. */
  stop(): Promise<void>
}

type Look<Key> = (key: Key, turn: Turn) => Promise<Looked>

/** What one queue is about. */
interface About<Key> {
  readonly resource: Resource
  readonly laneOf: (key: Key) => string
  /** A lane is an issuer of the cluster, for all: nobody who asks for much may be before all others. */
  readonly sharerOf?: (key: Key) => string
}

export const openWork = (deps: WorkDeps): Work => {
  const { watches, settings, lost } = deps
  const api = { call: guarded(deps) }
  const { asker, recorder, meter, readRequest, clock, random } = deps
  const shared = { api, asker, recorder, meter, readRequest, clock, retryFor: settings.retryFor }
  const issuers = openIssuers(
    {
      api,
      watches: watches.issuers,
      asker,
      recorder,
      meter,
      clock,
      random,
      now: deps.now,
      recheck: settings.recheck,
      servers: settings.servers,
      health: new Map(),
    },
    (name, why) => issuerQueue.add(name, why),
  )
  const issuerQueue: Queue<IssuerName> = queueOf<IssuerName>(
    deps,
    { resource: resources.issuers, laneOf: laneOfIssuer },
    async (name, turn) => {
      const looked = await issuers.look(name, turn)
      if (looked.recheckAfter !== undefined) issuerQueue.addAfter(name, looked.recheckAfter)
      return looked
    },
  )
  const { requests, signingRequests, podRequests, nodes } = watches
  const circles = openCircles(deps.now)
  const requestQueue =
    requests &&
    queueOf<string>(
      deps,
      { resource: resources.certificateRequests, laneOf: laneOfRequest(requests), sharerOf: namespaceOf },
      (_, turn) => lookAtRequest({ ...shared, watch: requests, issuers, circles }, turn),
    )
  const signers = new Map(settings.signers.map((signer) => [signer.name, signer]))
  /** Those of the whole cluster: a lane for each signer. */
  const bySigner =
    <T extends KubernetesObject & { readonly spec: { readonly signerName: string } }>(watch: Watch<T>) =>
    (key: string): string =>
      watch.get(key)?.spec.signerName ?? ''
  const signingQueue =
    signingRequests &&
    queueOf<string>(
      deps,
      {
        ...{ resource: resources.signingRequests, laneOf: bySigner(signingRequests) },
        sharerOf: (key) => signingRequests.get(key)?.spec.username ?? '',
      },
      (_, turn) => lookAtSigningRequest({ ...shared, watch: signingRequests, issuers, signers, nodes }, turn),
    )

  const podQueue =
    podRequests &&
    queueOf<string>(
      deps,
      { resource: resources.podCertificateRequests, laneOf: bySigner(podRequests), sharerOf: namespaceOf },
      (_, turn) => lookAtPodRequest({ ...shared, watch: podRequests, issuers, signers }, turn),
    )

  const wake: Wake = {
    issuer: (name, why) => issuerQueue.add(name, why),
    request: (key, why) => requestQueue?.add(key, why),
    signingRequest: (key, why) => signingQueue?.add(key, why),
    podRequest: (key, why) => podQueue?.add(key, why),
    node: (name) => {
      for (const request of signingRequests?.all() ?? [])
        if (isOfNode(request, name)) wake.signingRequest(request.metadata.name, 'awaited')
    },
    throughIssuer: (name, why) => {
      for (const request of requests?.all() ?? [])
        if (issuerNameOf(request) === name) requestQueue?.add(keyOf(request.metadata), why)
      const isThrough = ({ spec }: { readonly spec: { readonly signerName: string } }): boolean =>
        issuerName('ChanceryClusterIssuer', signers.get(spec.signerName)?.issuer ?? '') === name
      for (const request of signingRequests?.all() ?? [])
        if (isThrough(request)) wake.signingRequest(request.metadata.name, why)
      for (const request of podRequests?.all() ?? [])
        if (isThrough(request)) wake.podRequest(keyOf(request.metadata), why)
    },
  }
  for (const [kind, watch] of Object.entries(watches.issuers))
    for (const issuer of watch.all()) wake.issuer(issuerName(kind as IssuerKind, keyOf(issuer.metadata)))
  for (const request of requests?.all() ?? []) wake.request(keyOf(request.metadata))
  for (const request of signingRequests?.all() ?? []) wake.signingRequest(request.metadata.name)
  for (const request of podRequests?.all() ?? []) wake.podRequest(keyOf(request.metadata))
  const queues = [issuerQueue, requestQueue, signingQueue, podQueue].filter((queue) => queue !== undefined)
  lost.addEventListener('abort', () => void Promise.all(queues.map((queue) => queue.close())), { once: true })
  return { ...wake, stop: async () => void (await Promise.all(queues.map((queue) => queue.close()))) }
}

/** Of `namespace/name`. */
const namespaceOf = (key: string): string => key.slice(0, key.indexOf('/'))

const laneOfRequest =
  (watch: Watch<CertificateRequest>) =>
  (key: string): string => {
    const request = watch.get(key)
    const name = request && issuerNameOf(request)
    return name ? laneOfIssuer(name) : ''
  }

const queueOf = <Key extends string>(deps: WorkDeps, about: About<Key>, look: Look<Key>): Queue<Key> => {
  const { plural: resource } = about.resource
  const { lost, meter, settings, random, log, patience, watches } = deps
  const needed: ReadonlySet<string> = new Set([resources.issuers.plural, resources.clusterIssuers.plural, resource])
  const queue = openQueue<Key>({
    concurrency: settings.concurrency,
    laneOf: about.laneOf,
    sharerOf: about.sharerOf,
    random,
    now: deps.now,
    ...(patience ?? (resource === resources.issuers.plural ? issuerPatience : {})),
    look: async (key, row) => {
      // An issuer that has not been listed yet is not one that does not exist. Other kinds are no reason to wait.
      while (watches.missing().some((plural) => needed.has(plural)) && !lost.aborted)
        await sleep(syncPollMs, undefined, { signal: lost }).catch(() => {})
      return lost.aborted ? { kind: 'end' } : look(key, { key, ...row, signal: lost })
    },
    failed: (key, err) => {
      if (lost.aborted) return undefined
      if (isApiFault(err)) meter.count('chancery_controller_writes_total', { resource, outcome: 'failed' })
      log.warn({ event: 'look.failed', resource, key, err }, 'it could not be brought to an end; it is tried again')
      return isApiFault(err) ? err.retryAfter : undefined
    },
  })
  meter.watch('chancery_controller_queue', { resource, state: 'ready' }, () => queue.depth)
  meter.watch('chancery_controller_queue', { resource, state: 'later' }, () => queue.putOff)
  meter.watch('chancery_controller_queue', { resource, state: 'left' }, () => queue.left)
  return queue
}

/** A process that was stopped and goes on must not write, though nobody has told it yet that the lease is lost. */
const guarded =
  ({ api, isHeld }: WorkDeps): KubernetesApi['call'] =>
  (method, path, call) => {
    if (method !== 'GET' && !isHeld()) return Promise.reject(new Error('the lease is not ours any more'))
    return api.call(method, path, call)
  }

/** Whoever mends credentials looks at the issuer, and waits. */
const issuerPatience = { firstMs: 1_000, mostMs: 60_000 } as const
const syncPollMs = 50
