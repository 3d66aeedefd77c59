/**
 * CertificateSigningRequests, decided. Pure. The signers of kubernetes.io have rules of their own, which hold whatever a
 * profile allows; nobody but the signer enforces them, and neither approval nor denial.
 */

import { type Condition, type Issuer, isReady, isTrue, type SigningRequest, unready } from '../api/objects.ts'
import type { SignerSettings } from '../settings.ts'
import { type Ask, behalfOf, decodePem, type RequestFacts, readUsages } from './asking.ts'
import { deliver } from './delivery.ts'
import { bounded, type Fault, type Outcome, setbackOf } from './outcome.ts'
import { fullReason, fullText, isPatient, reasonOf, type Told, withinPatience } from './request.ts'

export interface SigningWrite {
  readonly kind: 'write'
  /** Certificate or Failed: never empty, which would cost the right to write Failed later (fact 13). */
  readonly status: { readonly certificate: string } | { readonly conditions: readonly [Condition] }
  readonly event: Told
}

export interface SigningWait {
  readonly kind: 'wait'
  readonly after?: number
  /** Nothing is wrong: people take their time. */
  readonly isPoll?: boolean
  /** There is no condition for it. */
  readonly event?: Told
  readonly ofIssuer?: Fault
}

export type SigningStep =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'ask'; readonly ask: Ask }
  | SigningWrite
  | SigningWait

export interface SigningLook {
  readonly request: SigningRequest
  readonly issuer: Issuer | undefined
  /** As the controller has read `spec.request`. */
  readonly facts: RequestFacts | { readonly fault: string }
  readonly signer: SignerSettings
  readonly now: Date
  /** Seconds since the first look at it in a row without an end. */
  readonly waited: number
  /** Seconds from its creation; for ever where it is left out. */
  readonly retryFor?: number | undefined
}

export const decideSigning = (look: SigningLook): SigningStep => {
  const { request, issuer, facts, signer } = look
  if (!isToBeSigned(request)) return { kind: 'ignore' }
  if ('fault' in facts) return failed('SignerValidationFailure', `the request cannot be read: ${facts.fault}`)
  const violation = violationOf(request, facts)
  if (violation !== undefined) return failed('SignerValidationFailure', violation)
  const usages = readUsages(request.spec.usages)
  if ('fault' in usages) return failed('SignerValidationFailure', `spec.usages: ${usages.fault}`)
  if (!isReady(issuer)) return waiting(look, `ChanceryClusterIssuer ${signer.issuer} ${unready(issuer)}`)
  return { kind: 'ask', ask: askFor(request, issuer, usages.usages) }
}

/** Approved, not denied, not failed, and nothing is there. */
export const isToBeSigned = (request: SigningRequest): boolean =>
  request.metadata.deletionTimestamp === undefined &&
  isTrue(request, 'Approved') &&
  !isTrue(request, 'Denied') &&
  !isTrue(request, 'Failed') &&
  (request.status?.certificate ?? '') === ''

const askFor = (request: SigningRequest, issuer: Issuer, usages: object): Ask => {
  const { spec, metadata } = request
  const onBehalfOf = issuer.spec.onBehalfOf === false ? undefined : behalfOf(request, spec)
  return {
    idempotencyKey: metadata.uid,
    body: {
      csr: decodePem(spec.request) ?? '',
      profile: issuer.spec.profile,
      // The API server takes no less; Kubernetes' own signer raises what is shorter.
      ...(spec.expirationSeconds !== undefined && { validity: `${Math.max(shortest, spec.expirationSeconds)}s` }),
      ...usages,
      ...(onBehalfOf && { onBehalfOf }),
    },
  }
}

export interface SigningAnswered extends SigningLook {
  readonly outcome: Outcome
}

export const decideSigned = (answered: SigningAnswered): SigningWrite | SigningWait => {
  const { outcome, facts, now } = answered
  if (outcome.kind === 'issued') {
    const delivery = deliver(outcome.issued, { requestKey: 'fault' in facts ? undefined : facts.spki, now })
    if ('fault' in delivery) return failed('SignerAnswerFailure', delivery.fault)
    const note = `certificate ${delivery.serial} was issued`
    return {
      kind: 'write',
      status: { certificate: Buffer.from(delivery.chain).toString('base64') },
      event: { type: 'Normal', reason: 'Issued', action: 'Sign', note },
    }
  }
  if (outcome.kind === 'waiting') {
    const text = `people must approve it at Chancery first: request ${bounded(outcome.id, 64)}`
    return { kind: 'wait', after: approvalPollSeconds, isPoll: true, event: toldOf(text) }
  }
  const setback = setbackOf(outcome.fault)
  if (setback.kind === 'refused') return failed(reasonOf(setback.code), setback.message)
  const waited = waiting(answered, setback.message)
  if (waited.kind === 'write') return waited
  const { after, ofIssuer } = setback
  return { ...waited, ...withinPatience(answered, after), ...(ofIssuer && { ofIssuer: outcome.fault }) }
}

const waiting = (look: SigningLook, message: string): SigningWrite | SigningWait => {
  const { waited, retryFor } = look
  if (!isPatient(look)) return failed('SignerTimeout', `it could not be signed within ${retryFor} s: ${message}`)
  return waited < silentSeconds ? { kind: 'wait' } : { kind: 'wait', event: toldOf(message) }
}

const toldOf = (note: string): Told => ({ type: 'Normal', reason: 'Pending', action: 'Sign', note })

const failed = (reason: string, message: string): SigningWrite => ({
  kind: 'write',
  status: { conditions: [{ type: 'Failed', status: 'True', reason, message }] },
  event: { type: 'Warning', reason, action: 'Sign', note: message },
})

/** Its certificate did not go into it. */
export const decideFullSigning = (): SigningWrite => failed(fullReason, fullText)

interface SignerRule {
  /** Each list is one that must be asked for as it is, in any order; one more, `key encipherment`, is allowed beside it. */
  readonly usages: (usages: ReadonlySet<string>) => boolean
  readonly usageText: string
  readonly isNode: boolean
  readonly names: 'any' | 'none' | 'hosts'
}

const exactly =
  (...wanted: readonly string[]) =>
  (usages: ReadonlySet<string>): boolean =>
    wanted.every((usage) => usages.has(usage)) &&
    [...usages].every((usage) => wanted.includes(usage) || usage === 'key encipherment')

/** Kubernetes' own (pkg/apis/certificates/helpers.go). */
const signerRules: Readonly<Record<string, SignerRule>> = {
  'kubernetes.io/kube-apiserver-client': {
    usages: (usages) =>
      usages.has('client auth') &&
      [...usages].every((usage) => ['client auth', 'digital signature', 'key encipherment'].includes(usage)),
    usageText: 'client auth, and perhaps digital signature and key encipherment',
    isNode: false,
    names: 'any',
  },
  'kubernetes.io/kube-apiserver-client-kubelet': {
    usages: exactly('digital signature', 'client auth'),
    usageText: 'digital signature and client auth, and perhaps key encipherment',
    isNode: true,
    names: 'none',
  },
  'kubernetes.io/kubelet-serving': {
    usages: exactly('digital signature', 'server auth'),
    usageText: 'digital signature and server auth, and perhaps key encipherment',
    isNode: true,
    names: 'hosts',
  },
}

/** The first rule that is broken, in a sentence; undefined if none is. */
export const violationOf = ({ spec }: SigningRequest, facts: RequestFacts): string | undefined => {
  const { signerName } = spec
  if (facts.organizations.includes('system:masters')) return 'organization: system:masters is signed for nobody'
  const rule = Object.hasOwn(signerRules, signerName) ? signerRules[signerName] : undefined
  if (rule === undefined)
    return signerName.startsWith('kubernetes.io/') ? `signerName: ${signerName} is not one that we know` : undefined
  const usages = new Set(spec.usages)
  if (usages.size !== spec.usages.length || !rule.usages(usages)) return `usages: must be ${rule.usageText}`
  if (rule.isNode) {
    if (facts.organizations.length !== 1 || facts.organizations[0] !== 'system:nodes')
      return 'organization: must be system:nodes, and nothing else'
    if (!/^system:node:./.test(facts.commonName ?? '')) return 'commonName: must begin with system:node:'
  }
  return nameViolation(rule, facts)
}

const nameViolation = ({ names }: SignerRule, facts: RequestFacts): string | undefined => {
  if (names === 'any') return undefined
  if (names === 'none') return facts.names.length === 0 ? undefined : 'names: there must be none'
  const other = facts.names.find(({ kind }) => kind !== 'dns' && kind !== 'ip')
  if (other !== undefined)
    return `names: ${other.kind} ${bounded(other.value, 128)} is neither a DNS name nor an address`
  return facts.names.length > 0 ? undefined : 'names: there must be a DNS name or an address'
}

/** Whether the rules of a signer are known here, if they are Kubernetes' own. */
export const isKnownSigner = (name: string): boolean =>
  !name.startsWith('kubernetes.io/') || Object.hasOwn(signerRules, name)

const silentSeconds = 1
const approvalPollSeconds = 10
/** Seconds. */
const shortest = 600
