/**
 * PodCertificateRequests, decided. Pure. Who asks is what the API server has verified: a kubelet, for a pod that runs on its
 * node, and the pod's service account. So the names are made of these, and never taken from the request.
 *
 * Failed and Denied are for the whole life of the pod: its kubelet asks no more. What its next request may get, which has another
 * uid and another key, is left open: kube-controller-manager removes it within the hour, and then the kubelet makes that one.
 */
import type { ProblemCode } from '../../errors.ts'
import { type Condition, type Issuer, isReady, isTrue, type PodCertificateRequest, unready } from '../api/objects.ts'
import type { SignerSettings } from '../settings.ts'
import { type Ask, behalfOf, type RequestFacts } from './asking.ts'
import { type Delivery, deliver } from './delivery.ts'
import { bounded, type IssuedCertificate, type Outcome, setbackOf } from './outcome.ts'
import { reasonOf, secondsOf, type Told } from './request.ts'
import type { SigningWait } from './signing.ts'

export interface PodWrite {
  readonly kind: 'write'
  /** In one write, and final. */
  readonly status: {
    readonly conditions: readonly [Condition]
    readonly certificateChain?: string
    readonly notBefore?: string
    readonly beginRefreshAt?: string
    readonly notAfter?: string
  }
  readonly event: Told
}

/** Open, and not tried again within its hour: it would meet the same. */
export interface PodLeave {
  readonly kind: 'leave'
  readonly event: Told
}

export type PodStep =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'ask'; readonly ask: Ask }
  | PodWrite
  | PodLeave
  | SigningWait

export interface PodLook {
  readonly request: PodCertificateRequest
  readonly issuer: Issuer | undefined
  /** Undefined where there is no PKCS#10. */
  readonly facts: RequestFacts | { readonly fault: string } | undefined
  readonly signer: SignerSettings
  readonly now: Date
  /** Seconds since the first look at it in a row without an end. */
  readonly waited: number
}

export const decidePod = (look: PodLook): PodStep => {
  const { request, issuer, facts, signer, now } = look
  if (hasEnded(request) || request.metadata.deletionTimestamp !== undefined) return { kind: 'ignore' }
  // Pods get what nobody approves: a signer is for them where it says so.
  if (signer.podNames === undefined)
    return left(
      `the settings of the controller give signer ${bounded(signer.name, 256)} no podNames, so it serves no pods`,
    )
  // As Kubernetes wants it of signers: what a pod's author asks for must not be passed over in silence.
  const [annotation] = Object.keys(request.spec.unverifiedUserAnnotations ?? {})
  if (annotation !== undefined) {
    const message = `this signer knows no user annotation, and so not ${bounded(annotation, 128)}`
    return ended(now, 'Denied', { reason: 'InvalidUnverifiedUserAnnotations', message })
  }
  if (facts === undefined)
    return left('it has no spec.stubPKCS10Request: Kubernetes 1.36 is wanted, of the API server and of the kubelet')
  if ('fault' in facts) return ended(now, 'Failed', { reason: 'RequestUnreadable', message: facts.fault })
  // Nobody has verified what stands there, and a profile may take it over.
  if (!facts.isSubjectEmpty)
    return ended(now, 'Failed', { reason: 'SubjectNotEmpty', message: 'the request has a subject of its own' })
  if (!isReady(issuer)) return waiting(look, `ChanceryClusterIssuer ${signer.issuer} ${unready(issuer)}`)
  return { kind: 'ask', ask: askFor(request, issuer, signer) }
}

const hasEnded = (request: PodCertificateRequest): boolean =>
  ['Issued', 'Denied', 'Failed'].some((type) => isTrue(request, type))

/** PEM of the request that is to be signed; undefined where it holds none. */
export const stubOf = ({ spec }: PodCertificateRequest): string | undefined => {
  const { stubPKCS10Request: stub } = spec
  if (!stub || stub.length > mostBase64 || !/^[A-Za-z0-9+/]+={0,2}$/.test(stub)) return undefined
  const lines = stub.match(/.{1,64}/g) ?? []
  return ['-----BEGIN CERTIFICATE REQUEST-----', ...lines, '-----END CERTIFICATE REQUEST-----', ''].join('\n')
}

const askFor = (request: PodCertificateRequest, issuer: Issuer, signer: SignerSettings): Ask => {
  const { spec, metadata } = request
  const { podName, podUID, serviceAccountName, serviceAccountUID, nodeName, nodeUID } = spec
  const { maxExpirationSeconds = 86_400 } = spec
  const namespace = metadata.namespace ?? ''
  const username = `system:serviceaccount:${namespace}:${serviceAccountName}`
  const onBehalfOf = {
    ...behalfOf(request, { username, uid: serviceAccountUID, groups: groupsOf(namespace) }),
    ...{ serviceAccount: serviceAccountName, serviceAccountUid: serviceAccountUID },
    ...{ pod: podName, podUid: podUID, node: nodeName, nodeUid: nodeUID },
  }
  return {
    idempotencyKey: metadata.uid,
    body: {
      csr: stubOf(request) ?? '',
      profile: issuer.spec.profile,
      // Chancery counts both ends, the API server one; it wants an hour at least.
      validity: `${Math.max(shortest + 1, maxExpirationSeconds)}s`,
      names: namesFor(signer, { namespace, serviceAccount: serviceAccountName, pod: podName, node: nodeName }),
      ...(issuer.spec.onBehalfOf !== false && { onBehalfOf }),
    },
  }
}

/** Of every service account (k8s.io/apiserver/pkg/authentication/serviceaccount), so that rules for groups hold for pods. */
const groupsOf = (namespace: string): readonly string[] => [
  'system:serviceaccounts',
  `system:serviceaccounts:${namespace}`,
  'system:authenticated',
]

type Facts = Readonly<Record<'namespace' | 'serviceAccount' | 'pod' | 'node', string>>

/** All facts are names of Kubernetes: letters, digits, hyphens and dots, so that no template gets more parts by them. */
const namesFor = ({ podNames = {} }: SignerSettings, facts: Facts) => {
  const fill = (template: string): string =>
    template.replace(/\{(namespace|serviceAccount|pod|node)\}/g, (_, fact: keyof Facts) => facts[fact])
  const { uri, dns } = podNames
  return { ...(uri && { uri: uri.map(fill) }), ...(dns && { dns: dns.map(fill) }) }
}

/**
 * Whether a name says which namespace's it is. An account or a pod has whatever name its namespace gives it, so it is none by that
 * alone; and {namespace}-{serviceAccount} is a-b-c for b-c in a, and for c in a-b. What no fact has,
 * such as a slash, parts it from the others; beside that only a dot does, since a namespace has none, and only where the others, which
 * may have some, are all after it or all before it. Among themselves they need not be told apart: who makes pods in a namespace may
 * use each of its accounts.
 */
export const tellsNamespace = (template: string): boolean =>
  (template.includes('{namespace}') || !/\{(serviceAccount|pod)\}/.test(template)) &&
  template
    .split(/[^A-Za-z0-9.{}-]/)
    .every((part) => !part.includes('{namespace}') || namespaceFirst.test(part) || namespaceLast.test(part))

const namespaceFirst = /^[^{}]*\{namespace\}([^{}]*\.[^{}]*\{.*)?$/
const namespaceLast = /^(.*\}[^{}]*\.[^{}]*)?\{namespace\}[^{}]*$/

export interface PodAnswered extends PodLook {
  readonly outcome: Outcome
}

export const decidePodAnswer = (answered: PodAnswered): PodWrite | PodLeave | SigningWait => {
  const { outcome, now } = answered
  if (outcome.kind === 'issued') return decideIssued(answered, outcome.issued)
  if (outcome.kind === 'waiting') {
    const message = 'the profile wants people to approve each request, and no pod waits for people'
    return ended(now, 'Failed', { reason: 'ApprovalRequired', message })
  }
  const setback = setbackOf(outcome.fault)
  if (setback.kind === 'later') {
    const { after, ofIssuer, message } = setback
    return {
      ...waiting(answered, message),
      ...(after !== undefined && { after }),
      ...(ofIssuer && { ofIssuer: outcome.fault }),
    }
  }
  const { code, message } = setback
  if (ofThisOne.has(code)) return left(message)
  if (code === 'key.type' || code === 'key.size') return ended(now, 'Denied', { reason: 'UnsupportedKeyType', message })
  return ended(now, 'Failed', { reason: reasonOf(code), message })
}

const decideIssued = ({ facts, now }: PodLook, answer: IssuedCertificate): PodWrite | PodLeave => {
  const requestKey = facts === undefined || 'fault' in facts ? undefined : facts.spki
  const delivery = deliver(answer, { requestKey, now })
  const fault = 'fault' in delivery ? delivery.fault : unfitness(delivery, answer.answeredAt ?? now)
  if (fault === undefined) return issued(delivery as Delivery, now)
  // An answer that is none is a defect, and one that comes again is too old; what a fresh one is, the profile says.
  if ('fault' in delivery || answer.replayed) return left(fault)
  return ended(now, 'Failed', { reason: 'AnswerUnusable', message: fault })
}

/** What the API server would not take. */
const unfitness = ({ serial, notBefore, notAfter }: Delivery, now: Date): string | undefined => {
  if (notAfter.getTime() - notBefore.getTime() < shortest * 1_000)
    return `certificate ${serial} lasts for less than an hour; the profile must allow more`
  if (Math.abs(now.getTime() - notBefore.getTime()) >= fiveMinutes)
    return `certificate ${serial} begins more than five minutes ago: the profile dates back by too much, or it was issued long ago`
  return undefined
}

const issued = ({ chain, serial, notBefore, notAfter }: Delivery, now: Date): PodWrite => {
  const refresh = new Date(notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3)
  const message = `certificate ${serial} was issued`
  const { status, event } = ended(now, 'Issued', { reason: 'Issued', message })
  return {
    kind: 'write',
    status: {
      ...status,
      certificateChain: chain,
      notBefore: secondsOf(notBefore),
      beginRefreshAt: secondsOf(refresh),
      notAfter: secondsOf(notAfter),
    },
    event,
  }
}

interface Ending {
  readonly reason: string
  readonly message: string
}

/** The API server fills in no time here. */
const ended = (now: Date, type: 'Issued' | 'Denied' | 'Failed', { reason, message }: Ending): PodWrite => ({
  kind: 'write',
  status: { conditions: [{ type, status: 'True', reason, message, lastTransitionTime: secondsOf(now) }] },
  event: { type: type === 'Issued' ? 'Normal' : 'Warning', reason, action: 'Sign', note: message },
})

const left = (why: string): PodLeave => {
  const note = `left open, and may be deleted, since the kubelet’s next request may get a certificate: ${bounded(why, 896)}`
  return { kind: 'leave', event: { type: 'Warning', reason: 'LeftOpen', action: 'Sign', note } }
}

const waiting = ({ waited }: PodLook, note: string): SigningWait =>
  waited < silentSeconds
    ? { kind: 'wait' }
    : { kind: 'wait', event: { type: 'Normal', reason: 'Pending', action: 'Sign', note: bounded(note, 1_024) } }

/** What is about this uid, or this key. */
const ofThisOne: ReadonlySet<string> = new Set<ProblemCode>([
  'idempotency.reused',
  'key.blocked',
  'key.in_use',
  'key.weak',
  'approval.expired',
  'approval.rejected',
  'approval.withdrawn',
  'approval.failed',
])

const silentSeconds = 1
/** Seconds. */
const shortest = 3_600
const fiveMinutes = 300_000
const mostBase64 = 22_000
