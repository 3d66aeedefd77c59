/** What is watched, what is kept of it in memory, and which changes are worth a look. */
import type { Log } from '../../log.ts'
import type { KubernetesApi } from '../api/client.ts'
import {
  type CertificateRequest,
  conditionOf,
  type Issuer,
  type KubernetesObject,
  keepMetadata,
  type Node,
  type PodCertificateRequest,
  type SigningRequest,
} from '../api/objects.ts'
import { type IssuerKind, type Resource, resources } from '../api/resources.ts'
import { isStale, openWatch, type Watch } from '../api/watch.ts'
import { kubeletServing } from '../decide/approval.ts'
import type { Meter } from '../metrics.ts'
import type { ControllerSettings } from '../settings.ts'
import { type IssuerName, issuerName } from './issuers.ts'
import { keepPodRequest, stateOfPodRequest } from './pods.ts'
import type { Why } from './queue.ts'
import { keepRequest, stateOfRequest } from './requests.ts'
import { type IsOurs, keepNode, keepSigningRequest, stateOfNode, stateOfSigningRequest } from './signing.ts'

export interface Watches {
  readonly issuers: Readonly<Record<IssuerKind, Watch<Issuer>>>
  readonly requests: Watch<CertificateRequest> | undefined
  readonly signingRequests: Watch<SigningRequest> | undefined
  readonly podRequests: Watch<PodCertificateRequest> | undefined
  /** Where requests of kubelets are approved. */
  readonly nodes: Watch<Node> | undefined
  /** The plural names of what has not been listed yet. */
  readonly missing: () => readonly string[]
  /** Why this instance could not work, a sentence for each kind: not listed yet, or not seen for minutes. */
  readonly unready: () => readonly string[]
  close(): Promise<void>
}

/** What a change wakes. */
export interface Wake {
  issuer(name: IssuerName, why?: Why): void
  /** It has come or is another one now (`changed`), or it is ready now, or not any more (`awaited`). */
  throughIssuer(name: IssuerName, why?: Why): void
  request(key: string, why?: Why): void
  signingRequest(key: string, why?: Why): void
  podRequest(key: string, why?: Why): void
  /** It has come, has gone, or has other addresses now: for its own requests, and those of others that want what it had. */
  node(name: string): void
}

export interface WatchesDeps {
  readonly api: KubernetesApi
  readonly settings: ControllerSettings
  readonly meter: Meter
  readonly log: Log
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  /** Milliseconds after a setback and between two resyncs, and seconds that a watch lasts. */
  readonly times?: WatchTimes | undefined
}

export interface WatchTimes {
  readonly firstMs: number
  readonly watchSeconds: number
  readonly resyncMs?: number
}

export const openWatches = (deps: WatchesDeps, wake: Wake): Watches => {
  const { settings } = deps
  const issuer = (kind: IssuerKind, resource: Resource): Watch<Issuer> =>
    watchOf<Issuer>(deps, resource, {
      keep: keepIssuer,
      stateOf: specOf,
      wake: (key, why) => wake.issuer(issuerName(kind, key), why),
      changed: (key, next, before) => {
        const why = specOf(next) === specOf(before) ? 'awaited' : 'changed'
        if (readinessOf(next) !== readinessOf(before)) wake.throughIssuer(issuerName(kind, key), why)
      },
    })
  const issuers = {
    ChanceryIssuer: issuer('ChanceryIssuer', resources.issuers),
    ChanceryClusterIssuer: issuer('ChanceryClusterIssuer', resources.clusterIssuers),
  }
  const requests = settings.certManager
    ? watchOf<CertificateRequest>(deps, resources.certificateRequests, {
        ...{ keep: keepRequest, stateOf: stateOfRequest, wake: wake.request },
      })
    : undefined
  const signs = settings.signers.length > 0 || settings.approveKubeletServing
  const signingRequests = signs
    ? watchOf<SigningRequest>(deps, resources.signingRequests, {
        ...{ keep: keepSigningRequest(isOurs(settings)), stateOf: stateOfSigningRequest, wake: wake.signingRequest },
      })
    : undefined
  const podRequests = settings.podCertificates
    ? watchOf<PodCertificateRequest>(deps, resources.podCertificateRequests, {
        ...{ keep: keepPodRequest, stateOf: stateOfPodRequest, wake: wake.podRequest },
      })
    : undefined
  const nodes: Watch<Node> | undefined = settings.approveKubeletServing
    ? watchOf<Node>(deps, resources.nodes, {
        ...{ keep: keepNode, stateOf: stateOfNode },
        // Before all were listed nothing is left to people, and thousands would come at once.
        wake: (name, why) => void (why === 'changed' && nodes?.synced && wake.node(name)),
      })
    : undefined
  const named: readonly (readonly [Resource, Watch<KubernetesObject> | undefined])[] = [
    [resources.issuers, issuers.ChanceryIssuer as Watch<KubernetesObject>],
    [resources.clusterIssuers, issuers.ChanceryClusterIssuer as Watch<KubernetesObject>],
    [resources.certificateRequests, requests as Watch<KubernetesObject> | undefined],
    [resources.signingRequests, signingRequests as Watch<KubernetesObject> | undefined],
    [resources.podCertificateRequests, podRequests as Watch<KubernetesObject> | undefined],
    [resources.nodes, nodes as Watch<KubernetesObject> | undefined],
  ]
  const open = named.flatMap(([{ plural }, watch]) => (watch ? [{ plural, watch }] : []))
  for (const { plural, watch } of open) {
    deps.meter.watch('chancery_controller_objects', { resource: plural }, () => watch.size)
    deps.meter.watch('chancery_controller_watch_stale_seconds', { resource: plural }, () => watch.behindMs / 1_000)
  }
  return {
    ...{ issuers, requests, signingRequests, podRequests, nodes },
    missing: () => open.filter(({ watch }) => !watch.synced).map(({ plural }) => plural),
    unready: () => open.flatMap(({ plural, watch }) => whyUnready(plural, watch) ?? []),
    close: async () => void (await Promise.all(open.map(({ watch }) => watch.close()))),
  }
}

const whyUnready = (plural: string, { synced, behindMs }: Watch<KubernetesObject>): string | undefined => {
  if (!synced) return `${plural} have not been listed yet`
  if (!isStale(behindMs)) return undefined
  return `${plural} have not been seen for ${Math.round(behindMs / 1_000)} s: they can be neither watched nor listed`
}

interface Watching<T> {
  readonly keep: (object: T) => T
  /** An object whose state is as before is not looked at. */
  readonly stateOf: (object: T) => string
  readonly wake: (key: string, why: Why) => void
  readonly changed?: (key: string, next: T | undefined, before: T | undefined) => void
}

const watchOf = <T extends KubernetesObject>(
  { api, meter, log, random, now, times }: WatchesDeps,
  resource: Resource,
  { keep, stateOf, wake, changed }: Watching<T>,
): Watch<T> =>
  openWatch<T>({
    ...{ api, resource, keep, log, random, now },
    ...(times && { ...times, mostMs: times.firstMs * 16 }),
    restarted: (reason) =>
      meter.count('chancery_controller_watch_restarts_total', { resource: resource.plural, reason }),
    changed: (key, next, before) => {
      changed?.(key, next, before)
      // What is said again in a resync is the same object.
      if (next && next === before) wake(key, 'resync')
      // Of one that is gone, the look ends at once, and nothing waits for it any more.
      else if (!next || !before) wake(key, 'changed')
      else if (stateOf(next) !== stateOf(before)) wake(key, 'changed')
    },
  })

const isOurs = ({ signers, approveKubeletServing }: ControllerSettings): IsOurs => {
  const names = new Set(signers.map(({ name }) => name))
  if (approveKubeletServing) names.add(kubeletServing)
  return (signerName) => names.has(signerName)
}

const specOf = (issuer: Issuer | undefined): string => `${issuer?.metadata.uid} ${issuer?.metadata.generation}`

const readinessOf = (issuer: Issuer | undefined): string => {
  const { status, observedGeneration } = (issuer && conditionOf(issuer, 'Ready')) ?? {}
  return `${specOf(issuer)} ${status} ${observedGeneration}`
}

const keepIssuer = (issuer: Issuer): Issuer => ({ ...issuer, metadata: keepMetadata(issuer.metadata) })
