/** PodCertificateRequests: look, decide, ask Chancery, write. What is decided is in decide-pod.ts. */
import { isApiFault, type KubernetesApi } from './api.ts'
import { applyStatus } from './apply.ts'
import { keepPem } from './asking.ts'
import { decidePod, decidePodAnswer, type PodLook, type PodWrite, stubOf } from './decide-pod.ts'
import type { SigningWait } from './decide-signing.ts'
import { issuerName } from './issuers.ts'
import { type Issuer, isTrue, keepCondition, type PodCertificateRequest } from './objects.ts'
import { type Looked, retryOf, type Turn } from './queue.ts'
import { resources, rootOf } from './resources.ts'
import type { SigningDeps } from './signing.ts'
import type { Watch } from './watch.ts'

export type PodsDeps = Omit<SigningDeps, 'watch' | 'nodes' | 'retryFor'> & {
  readonly watch: Watch<PodCertificateRequest>
}

export const lookAtPodRequest = async (deps: PodsDeps, { key, waited, signal }: Turn): Promise<Looked> => {
  const request = deps.watch.get(key)
  const signer = request && deps.signers.get(request.spec.signerName)
  if (!request || !signer) return { kind: 'end' }
  const issuer = deps.issuers.find(issuerName('ChanceryClusterIssuer', signer.issuer))
  const pem = stubOf(request)
  const facts = pem === undefined ? { fault: 'spec.stubPKCS10Request holds no request' } : deps.readRequest(pem)
  const look: PodLook = { request, issuer, facts, signer, waited, now: deps.clock() }
  const step = decidePod(look)
  if (step.kind === 'ignore') return { kind: 'end' }
  if (step.kind !== 'ask' || issuer === undefined)
    return follow(deps, request, { step: step as PodWrite | SigningWait, signal })
  const { outcome } = await deps.asker.ask(issuer, step.ask, signal)
  deps.issuers.hear(issuer, outcome)
  return follow(deps, request, { step: decidePodAnswer({ ...look, now: deps.clock(), outcome }), issuer, signal })
}

interface Following {
  readonly step: PodWrite | SigningWait
  readonly issuer?: Issuer
  readonly signal: AbortSignal
}

const follow = async (deps: PodsDeps, request: PodCertificateRequest, following: Following): Promise<Looked> => {
  const { step, issuer, signal } = following
  const { api, watch, issuers, recorder, meter } = deps
  if (step.kind === 'wait') {
    if (step.ofIssuer && issuer) issuers.suspect(issuer, step.ofIssuer)
    if (step.event) recorder.record(request, step.event)
    return retryOf(step)
  }
  const { status, event } = step
  const applied = await applyStatus(api, { resource, object: request, status, holds: isOpen, signal }).catch(
    (error: unknown) => {
      if (!isApiFault(error, 422)) throw error
      // Its times, for one, where the clocks differ by five minutes: nobody would see that in a condition.
      const note = `the API server does not take its status: ${error.message}`
      recorder.record(request, { type: 'Warning', reason: 'StatusRefused', action: 'Sign', note })
      return undefined
    },
  )
  if (applied === undefined) {
    meter.count('chancery_controller_writes_total', { resource: resource.plural, outcome: 'failed' })
    return { kind: 'retry', after: refusedSeconds }
  }
  meter.count('chancery_controller_writes_total', { resource: resource.plural, outcome: applied.kind })
  if (applied.kind !== 'gone') watch.learn(applied.object, applied.after)
  if (applied.kind !== 'written') return { kind: 'end' }
  const outcome = status.conditions[0].type.toLowerCase()
  meter.count('chancery_controller_ended_total', { resource: resource.plural, outcome })
  recorder.record(request, event)
  return { kind: 'end' }
}

const isOpen = (request: PodCertificateRequest): boolean =>
  !['Issued', 'Denied', 'Failed'].some((type) => isTrue(request, type))

export const stateOfPodRequest = (request: PodCertificateRequest): string =>
  `${request.metadata.uid} ${isOpen(request)}`

/** Of one that has ended nobody looks at more than whose it is; annotations of users nobody looks at. */
const keepSpec = (spec: PodCertificateRequest['spec'], isWanted: boolean): PodCertificateRequest['spec'] => {
  const { signerName, podName, podUID, serviceAccountName, serviceAccountUID, nodeName, nodeUID } = spec
  const { maxExpirationSeconds, stubPKCS10Request: stub } = spec
  return {
    ...{ signerName, podName, podUID, serviceAccountName, serviceAccountUID, nodeName, nodeUID },
    ...(maxExpirationSeconds !== undefined && { maxExpirationSeconds }),
    ...(isWanted && stub && { stubPKCS10Request: keepPem(stub) }),
  }
}

export const keepPodRequest = (request: PodCertificateRequest): PodCertificateRequest => {
  const { apiVersion, kind, metadata, spec, status } = request
  const { name, namespace, uid, resourceVersion, creationTimestamp, deletionTimestamp } = metadata
  return {
    apiVersion,
    kind,
    metadata: {
      ...{ name, uid, resourceVersion, creationTimestamp },
      ...(namespace !== undefined && { namespace }),
      ...(deletionTimestamp !== undefined && { deletionTimestamp }),
    },
    spec: keepSpec(spec, isOpen(request)),
    status: { conditions: (status?.conditions ?? []).map(keepCondition) },
  }
}

/** Whether the API server has the kind: it is beta, and behind a feature gate. */
export const hasPodRequests = async (api: Pick<KubernetesApi, 'call'>): Promise<boolean> => {
  try {
    const found = await api.call<{ readonly resources?: readonly { readonly name: string }[] }>('GET', rootOf(resource))
    return (found.resources ?? []).some(({ name }) => name === resource.plural)
  } catch (error) {
    if (isApiFault(error, 404)) return false
    throw error
  }
}

const resource = resources.podCertificateRequests
const refusedSeconds = 60
