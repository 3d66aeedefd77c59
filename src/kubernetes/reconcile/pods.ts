/** PodCertificateRequests: look, decide, ask Chancery, write. What is decided is in decide-pod.ts. */
import { isApiFault, type KubernetesApi } from '../api/client.ts'
import { type Issuer, isTrue, keepMetadata, type PodCertificateRequest } from '../api/objects.ts'
import { apiVersionOf, resources, rootOf } from '../api/resources.ts'
import type { Watch } from '../api/watch.ts'
import { decidePod, decidePodAnswer, type PodLeave, type PodLook, type PodWrite, stubOf } from '../decide/pod.ts'
import type { SigningWait } from '../decide/signing.ts'
import { applyOrTell } from './apply.ts'
import { issuerName } from './issuers.ts'
import { type Looked, leftOnce, type Reported, type Turn } from './queue.ts'
import { type SigningDeps, waitFor } from './signing.ts'

export type PodsDeps = Omit<SigningDeps, 'watch' | 'nodes' | 'retryFor'> & {
  readonly watch: Watch<PodCertificateRequest>
}

export const lookAtPodRequest = async (deps: PodsDeps, { key, waited, reported, signal }: Turn): Promise<Looked> => {
  const request = deps.watch.get(key)
  const signer = request && deps.signers.get(request.spec.signerName)
  if (!request || !signer) return { kind: 'end' }
  const issuer = deps.issuers.find(issuerName('ChanceryClusterIssuer', signer.issuer))
  const look: PodLook = { request, issuer, facts: factsOf(deps, request), signer, waited, now: deps.clock() }
  const step = decidePod(look)
  if (step.kind === 'ignore') return { kind: 'end' }
  if (step.kind !== 'ask' || issuer === undefined)
    return follow(deps, request, { step: step as Followed, reported, signal })
  const { outcome } = await deps.asker.ask(issuer, step.ask, signal)
  deps.issuers.hear(issuer, outcome)
  return follow(deps, request, {
    step: decidePodAnswer({ ...look, now: deps.clock(), outcome }),
    issuer,
    reported,
    signal,
  })
}

const factsOf = ({ readRequest }: PodsDeps, request: PodCertificateRequest): PodLook['facts'] => {
  const { stubPKCS10Request: stub } = request.spec
  if (stub === undefined || stub === null) return undefined
  const pem = stubOf(request)
  return pem === undefined ? { fault: 'spec.stubPKCS10Request holds no request' } : readRequest(pem)
}

type Followed = PodWrite | PodLeave | SigningWait

interface Following {
  readonly step: Followed
  readonly issuer?: Issuer
  readonly reported: Reported
  readonly signal: AbortSignal
}

const follow = async (deps: PodsDeps, request: PodCertificateRequest, following: Following): Promise<Looked> => {
  const { step, issuer, reported, signal } = following
  const { recorder, meter } = deps
  if (step.kind === 'wait') return waitFor(deps, request, { step, issuer, reported })
  if (step.kind === 'leave') {
    // There is no condition for it.
    return leftOnce(recorder.record(request, step.event))
  }
  const { status, event } = step
  const applying = { resource, object: request, status, holds, signal }
  const applied = await applyOrTell(deps, 'Sign', applying).catch((error: unknown) => {
    // Its times, for one, where the clocks differ by five minutes.
    if (!isApiFault(error, 422)) throw error
    return undefined
  })
  if (applied === undefined) {
    meter.count('chancery_controller_writes_total', { resource: resource.plural, outcome: 'failed' })
    return { kind: 'retry', after: refusedSeconds }
  }
  if (applied.kind !== 'written') return { kind: 'end' }
  const outcome = status.conditions[0].type.toLowerCase()
  meter.count('chancery_controller_ended_total', { resource: resource.plural, outcome })
  recorder.record(request, event)
  return { kind: 'end' }
}

/** One that is deleted may be held by a finalizer alone. */
const holds = (fresh: PodCertificateRequest): boolean => fresh.metadata.deletionTimestamp === undefined && isOpen(fresh)

const isOpen = (request: PodCertificateRequest): boolean =>
  !['Issued', 'Denied', 'Failed'].some((type) => isTrue(request, type))

export const stateOfPodRequest = (request: PodCertificateRequest): string =>
  `${request.metadata.uid} ${isOpen(request)}`

export const keepPodRequest = (request: PodCertificateRequest): PodCertificateRequest => {
  const { apiVersion, kind, metadata, spec, status } = request
  const { stubPKCS10Request: _, ...rest } = spec
  return {
    ...{ apiVersion, kind, metadata: keepMetadata(metadata) },
    spec: isOpen(request) ? spec : rest,
    status: { conditions: status?.conditions ?? [] },
  }
}

/** Why the API server has none that can be signed, in a sentence: the kind is beta, and behind a feature gate. */
export const whyNoPodRequests = async (
  api: Pick<KubernetesApi, 'call'>,
  signal?: AbortSignal,
): Promise<string | undefined> => {
  const ask = <T>(path: string) => answerOf<T>(api, path, signal)
  const found = await ask<{ readonly resources?: readonly { readonly name: string }[] }>(rootOf(resource))
  if (!(found?.resources ?? []).some(({ name }) => name === resource.plural))
    return `this API server has no ${resource.kind}s (${apiVersionOf(resource)})`
  const { major = '', minor = '' } = (await ask<Readonly<Record<string, string>>>('/version')) ?? {}
  // 36+, for one.
  return major === '1' && Number.parseInt(minor, 10) < 36
    ? `in Kubernetes ${major}.${minor} ${resource.kind}s hold no request that can be signed; 1.36 is wanted`
    : undefined
}

/** Undefined where there is nothing, or nothing for us. */
const answerOf = <T>(
  api: Pick<KubernetesApi, 'call'>,
  path: string,
  signal: AbortSignal | undefined,
): Promise<T | undefined> =>
  api.call<T>('GET', path, signal && { signal }).catch((error: unknown) => {
    if (!isApiFault(error, 404) && !isApiFault(error, 403)) throw error
    return undefined
  })

const resource = resources.podCertificateRequests
const refusedSeconds = 60
