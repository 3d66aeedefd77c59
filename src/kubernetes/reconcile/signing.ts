/** CertificateSigningRequests: look, decide, ask Chancery, write; and approve those of kubelets where the settings say so. */
import { isApiFault, type KubernetesApi } from '../api/client.ts'
import {
  type Issuer,
  isTrue,
  type KubernetesObject,
  keepMetadata,
  type Node,
  type SigningRequest,
} from '../api/objects.ts'
import type { Recorder } from '../api/recorder.ts'
import { pathOf, resources } from '../api/resources.ts'
import type { Watch } from '../api/watch.ts'
import { decideApproval, decideOutright, isToBeApproved, nodeOf } from '../decide/approval.ts'
import { decodePem, type ReadRequest, type RequestFacts, whyNotPem } from '../decide/asking.ts'
import type { Told } from '../decide/request.ts'
import {
  decideFullSigning,
  decideSigned,
  decideSigning,
  isToBeSigned,
  type SigningLook,
  type SigningWait,
  type SigningWrite,
} from '../decide/signing.ts'
import type { Meter } from '../metrics.ts'
import type { SignerSettings } from '../settings.ts'
import { applyOrTell } from './apply.ts'
import type { Asker } from './asker.ts'
import { type Issuers, issuerName } from './issuers.ts'
import { isRecent, type Looked, leftForGood, type Reported, retryOf, type Turn } from './queue.ts'

export interface SigningDeps {
  readonly api: Pick<KubernetesApi, 'call'>
  readonly watch: Watch<SigningRequest>
  readonly issuers: Issuers
  readonly asker: Asker
  readonly recorder: Recorder
  readonly meter: Meter
  readonly readRequest: ReadRequest
  readonly clock: () => Date
  readonly retryFor: number | undefined
  /** By name. */
  readonly signers: ReadonlyMap<string, SignerSettings>
  /** Where requests of kubelets are approved. */
  readonly nodes: Watch<Node> | undefined
}

export const lookAtSigningRequest = async (deps: SigningDeps, turn: Turn): Promise<Looked> => {
  const { key, waited, reported, signal } = turn
  const request = deps.watch.get(key)
  if (request === undefined) return { kind: 'end' }
  if (deps.nodes && isToBeApproved(request)) return approve(deps, deps.nodes, { ...turn, request })
  const signer = deps.signers.get(request.spec.signerName)
  if (signer === undefined || !isToBeSigned(request)) return { kind: 'end' }
  const issuer = deps.issuers.find(issuerName('ChanceryClusterIssuer', signer.issuer))
  const facts = factsOf(deps, request)
  const look: SigningLook = { request, issuer, facts, signer, waited, now: deps.clock(), retryFor: deps.retryFor }
  const step = decideSigning(look)
  if (step.kind === 'ignore') return { kind: 'end' }
  if (step.kind !== 'ask' || issuer === undefined)
    return follow(deps, request, { step: step as SigningWrite | SigningWait, reported, signal })
  const { outcome } = await deps.asker.ask(issuer, step.ask, signal)
  deps.issuers.hear(issuer, outcome)
  return follow(deps, request, {
    step: decideSigned({ ...look, now: deps.clock(), outcome }),
    issuer,
    reported,
    signal,
  })
}

const factsOf = ({ readRequest }: SigningDeps, { spec }: SigningRequest): RequestFacts | { readonly fault: string } => {
  const pem = decodePem(spec.request)
  return pem === undefined ? { fault: `it ${whyNotPem(spec.request)}` } : readRequest(pem)
}

interface Following {
  readonly step: SigningWrite | SigningWait
  readonly issuer?: Issuer
  readonly reported: Reported
  readonly signal: AbortSignal
}

const follow = async (
  deps: SigningDeps,
  request: SigningRequest,
  { step, issuer, reported, signal }: Following,
): Promise<Looked> => {
  const { recorder, meter } = deps
  if (step.kind === 'wait') return waitFor(deps, request, { step, issuer, reported })
  const { status, event } = step
  const applied = await applyOrTell(deps, 'Sign', { resource, object: request, status, holds: isToBeSigned, signal })
  if (applied.kind === 'full')
    // That it has failed takes less.
    return 'certificate' in status
      ? follow(deps, request, { step: decideFullSigning(), reported, signal })
      : leftForGood
  if (applied.kind !== 'written') return { kind: 'end' }
  const outcome = 'certificate' in status ? 'issued' : 'failed'
  meter.count('chancery_controller_ended_total', { resource: resource.plural, outcome })
  recorder.record(request, event)
  return { kind: 'end' }
}

interface Waiting {
  readonly step: SigningWait
  readonly issuer?: Issuer | undefined
  readonly reported: Reported
}

/** There is no condition for it. An answer that differs each time would be an event each time; what takes long comes seldom. */
export const waitFor = (
  { issuers, recorder, clock }: Pick<SigningDeps, 'issuers' | 'recorder' | 'clock'>,
  request: KubernetesObject,
  { step, issuer, reported }: Waiting,
): Looked => {
  const { event, after = 0, ofIssuer } = step
  if (ofIssuer && issuer) issuers.suspect(issuer, ofIssuer)
  if (event && (!issuer || after >= longSeconds || !isRecent(reported, clock()))) {
    recorder.record(request, event)
    if (issuer) reported.at = clock().getTime()
  }
  return retryOf(step)
}

interface Approving extends Turn {
  readonly request: SigningRequest
}

/**
 * A node's addresses may come later than its request: it is looked at again as long as it is undecided, ever more rarely. There
 * may be thousands of them, of machines that are long gone, so each is told of once.
 */
const approve = async (
  deps: SigningDeps,
  nodes: Watch<Node>,
  { request, waited, reported, signal }: Approving,
): Promise<Looked> => {
  const { api, recorder, meter } = deps
  // What other nodes have is not known yet.
  if (!nodes.synced) return { kind: 'retry' }
  const facts = factsOf(deps, request)
  const step =
    decideOutright(request, facts, nodes.behindMs) ??
    decideApproval(request, facts, {
      node: await readNode(api, nodeOf(request) ?? '', signal),
      nodes: nodes.all(),
      behindMs: nodes.behindMs,
    })
  if (step.kind === 'ignore') return { kind: 'end' }
  if (step.kind !== 'approve') {
    const isTold = tellOnce(deps.recorder, request, { event: step.event, reported })
    // What could not be told must be told another time.
    return step.kind === 'wait' ? { kind: 'retry', after: blindSeconds } : leave(step, isTold, waited)
  }
  const status = { conditions: [step.condition] }
  const applied = await applyOrTell(deps, 'Approve', {
    ...{ resource, object: request, subresource: 'approval', status, signal },
    holds: isToBeApproved,
  })
  if (applied.kind === 'gone') return { kind: 'end' }
  if (applied.kind === 'full') return leftForGood
  if (applied.kind === 'written') {
    meter.count('chancery_controller_ended_total', { resource: resource.plural, outcome: 'approved' })
    recorder.record(request, step.event)
  }
  // Now it may be ours to sign.
  return { kind: 'retry' }
}

interface Telling {
  readonly event: Told
  readonly reported: Reported
}

/** The same words once; whether they were reported. */
const tellOnce = (recorder: Recorder, request: SigningRequest, { event, reported }: Telling): boolean => {
  const words = `${request.metadata.uid} ${event.note}`
  if (reported.words === words) return true
  if (!recorder.record(request, event)) return false
  reported.words = words
  return true
}

/** What has waited for so long may wait for as long again, but for what Node objects say meanwhile. */
const leave = ({ isFinal }: { readonly isFinal: boolean }, isTold: boolean, waited: number): Looked => ({
  kind: 'retry',
  after: isFinal && isTold ? finalSeconds : Math.min(seldomSeconds, Math.max(reconsiderSeconds, waited)),
  isLeft: true,
  ...(!isFinal && { yields: true }),
})

const readNode = (api: SigningDeps['api'], name: string, signal: AbortSignal): Promise<Node | undefined> =>
  api.call<Node>('GET', pathOf(resources.nodes, { name }), { signal }).catch((error: unknown) => {
    if (!isApiFault(error, 404)) throw error
    return undefined
  })

/** What makes a request worth another look. */
export const stateOfSigningRequest = (request: SigningRequest): string =>
  [
    request.metadata.uid,
    ...['Approved', 'Denied', 'Failed'].map((type) => isTrue(request, type)),
    request.status?.certificate !== undefined,
  ].join(' ')

const isOver = (request: SigningRequest): boolean =>
  (request.status?.certificate ?? '') !== '' || isTrue(request, 'Denied') || isTrue(request, 'Failed')

/** Whether a signer of this name is ours, or we approve for it. */
export type IsOurs = (signerName: string) => boolean

/** Of one that has ended, no more is held than that; of another signer's, for whose it is. */
export const keepSigningRequest =
  (isOurs: IsOurs) =>
  (request: SigningRequest): SigningRequest => {
    const { apiVersion, kind, metadata, spec, status } = request
    const { signerName } = spec
    return {
      ...{ apiVersion, kind, metadata: keepMetadata(metadata) },
      spec: isOver(request) || !isOurs(signerName) ? { signerName, request: '', usages: [] } : spec,
      status: {
        conditions: status?.conditions ?? [],
        ...(status?.certificate !== undefined && { certificate: 'issued' }),
      },
    }
  }

/** All that names it. */
export const keepNode = ({ apiVersion, kind, metadata, status }: Node): Node => {
  return { apiVersion, kind, metadata: keepMetadata(metadata), status: { addresses: status?.addresses ?? [] } }
}

/** What makes it worth another look at what it asks for. */
export const stateOfNode = ({ metadata, status }: Node): string =>
  `${metadata.uid} ${JSON.stringify(status?.addresses ?? [])}`

const resource = resources.signingRequests
/** At first, and at last. */
const reconsiderSeconds = 60
const seldomSeconds = 600
/** As long as kube-controller-manager keeps what nobody decides; it counts as left meanwhile. */
const finalSeconds = 86_400
/** No request of a kubelet waits for much longer than the watch itself. */
const blindSeconds = 5
const longSeconds = 30
