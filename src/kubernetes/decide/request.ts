/**
 * CertificateRequests of cert-manager, decided: what one look at a request and at its issuer leads to, and what Chancery’s
 * answer makes of it. Pure: no clock, no I/O. Where a convention of cert-manager stands behind a line, it is named there.
 */

import {
  type CertificateRequest,
  type Condition,
  conditionOf,
  type Issuer,
  isReady,
  isTrue,
  type KubernetesObject,
  unready,
} from '../api/objects.ts'
import { isIssuerKind } from '../api/resources.ts'
import { type Ask, behalfOf, decodePem, readDuration, readUsages, whyNotPem } from './asking.ts'
import { type Delivery, deliver } from './delivery.ts'
import { bounded, type Fault, type Outcome, setbackOf } from './outcome.ts'

/** What is written to the request; the whole of what we own in it, since an apply gives up what it leaves out. */
export interface RequestStatus {
  readonly conditions: readonly Condition[]
  /** PEM in base64, leaf first, without a root. */
  readonly certificate?: string
  readonly ca?: string
  readonly failureTime?: string
}

export interface Told {
  readonly type: 'Normal' | 'Warning'
  /** Of the condition, too. */
  readonly reason: string
  readonly action: string
  readonly note: string
}

export interface Write {
  readonly kind: 'write'
  readonly status: RequestStatus
  readonly event: Told
  /** When the certificate in it ends. */
  readonly until?: Date
}

/** Again later: after so many seconds where Chancery or the case says so, by the queue's own patience otherwise. */
export interface Wait {
  readonly kind: 'wait'
  readonly after?: number
  /** Nothing is wrong: people take their time. */
  readonly isPoll?: boolean
  readonly write?: Write
  /** Everybody who asks through this issuer would be told the same. */
  readonly ofIssuer?: Fault
}

export type Step =
  | { readonly kind: 'ignore'; readonly why: Ignored }
  | { readonly kind: 'ask'; readonly ask: Ask }
  /** Nothing of it is ours to write, but nobody else says what is wrong. */
  | { readonly kind: 'tell'; readonly event: Told }
  | Write
  | Wait

export type Ignored = 'foreign' | 'deleted' | 'ended' | 'undecided'

export interface Look {
  readonly request: CertificateRequest
  /** Undefined where there is none of that name. */
  readonly issuer: Issuer | undefined
  readonly now: Date
  /** Seconds since the first look at it in a row without an end. */
  readonly waited: number
  /** Seconds from its creation for which a setback is not an end; for ever where it is left out. */
  readonly retryFor?: number | undefined
}

export const decideRequest = (look: Look): Step => {
  const { request, issuer, now } = look
  const { issuerRef } = request.spec
  // Conventions 1 and 2: an empty group is nobody's.
  if (issuerRef.group !== 'chancery.dev') return { kind: 'ignore', why: 'foreign' }
  if (request.metadata.deletionTimestamp !== undefined) return { kind: 'ignore', why: 'deleted' }
  if (hasEnded(request)) return { kind: 'ignore', why: 'ended' }
  // cert-manager's webhook lets nobody decide on it, and tells only its own log.
  if (!isIssuerKind(issuerRef.kind)) return { kind: 'tell', event: unknownKind(issuerRef.kind) }
  // Convention 4, and fact 3: nobody else writes this.
  if (isTrue(request, 'Denied')) return denied(request, now)
  // Convention 3: nothing but Approved makes it ours; nobody else checks that.
  if (!isTrue(request, 'Approved')) return { kind: 'ignore', why: 'undecided' }
  if (!isReady(issuer)) return pending(look, `${issuerRef.kind} ${issuerRef.name} ${unready(issuer)}`)
  return asked(request, issuer, now)
}

const unknownKind = (kind = ''): Told => ({
  ...{ type: 'Warning', reason: 'UnknownKind', action: 'Issue' },
  note: `issuerRef.kind is ${kind === '' ? 'not said' : bounded(kind, 64)}, which is no kind of chancery.dev, so that nobody can approve this: let it be ChanceryIssuer or ChanceryClusterIssuer`,
})

/** Convention 5: issued, failed and denied are for good, and nobody signs after them. */
export const hasEnded = (request: CertificateRequest): boolean => {
  const ready = conditionOf(request, 'Ready')
  if (isTrue(request, 'InvalidRequest')) return true
  return ready?.status === 'True' || ready?.reason === 'Failed' || ready?.reason === 'Denied'
}

const asked = (request: CertificateRequest, issuer: Issuer, now: Date): Step => {
  const { spec, metadata } = request
  const invalid = (message: string): Write =>
    failed(request, now, { message, isInvalid: true, reason: 'InvalidRequest' })
  // cert-manager's webhook allows no change, but looks at no namespace that is labelled so. What was approved is the first.
  if ((metadata.generation ?? 1) > 1)
    return invalid('its spec was changed after it was made: neither who asks nor what for may change')
  if (spec.isCA) return invalid('no profile of Chancery yields a CA certificate: leave isCA out')
  const csr = decodePem(spec.request)
  if (csr === undefined) return invalid(`spec.request ${whyNotPem(spec.request)}`)
  const usages = readUsages(spec.usages)
  if ('fault' in usages) return invalid(usages.fault)
  const seconds = spec.duration === undefined ? undefined : readDuration(spec.duration)
  if (spec.duration !== undefined && seconds === undefined)
    return invalid(`spec.duration ${bounded(spec.duration, 64)} is not a duration of a second or more`)
  const onBehalfOf = issuer.spec.onBehalfOf === false ? undefined : behalfOf(request, spec)
  return {
    kind: 'ask',
    ask: {
      idempotencyKey: metadata.uid,
      body: {
        csr,
        profile: issuer.spec.profile,
        ...(seconds !== undefined && { validity: `${Math.min(seconds, longest)}s` }),
        ...usages.usages,
        ...(onBehalfOf && { onBehalfOf }),
      },
    },
  }
}

export interface Answered extends Look {
  readonly outcome: Outcome
  /** What was answered before was written to it within the last minute. */
  readonly wasJustTold?: boolean
  /** SPKI in DER of the key in the request, where it could be read. */
  readonly requestKey: Buffer | undefined
  /** PEM of the roots, where the issuer wants `status.ca` written. */
  readonly roots?: string | undefined
}

/** What the answer makes of the request. */
export const decideAnswer = (answered: Answered): Write | Wait => {
  const { request, now, outcome } = answered
  if (outcome.kind === 'issued') {
    const delivery = deliver(outcome.issued, { requestKey: answered.requestKey, now })
    if ('fault' in delivery)
      return failed(request, now, { message: delivery.fault, isInvalid: false, reason: 'Failed' })
    return issued(answered, delivery)
  }
  if (outcome.kind === 'waiting') return waitForPeople(answered, outcome.id)
  const setback = setbackOf(outcome.fault)
  if (setback.kind === 'refused') {
    const { message, isInvalid, code } = setback
    return failed(request, now, { message, isInvalid, reason: reasonOf(code) })
  }
  const { after, ofIssuer } = setback
  // What takes long is said at once.
  const isLong = after !== undefined && after >= longSeconds
  const waited = pending({ ...answered, waited: isLong ? silentSeconds : answered.waited }, setback.message)
  if (waited.kind === 'write') return waited
  // An answer that differs each time would be a write each time; one that takes long comes seldom.
  const { write, ...quiet } = waited
  const said = (answered.wasJustTold && !isLong) || write === undefined ? quiet : waited
  return { ...said, ...withinPatience(answered, after), ...(ofIssuer && { ofIssuer: outcome.fault }) }
}

/** Said at once, since it takes minutes; bounded by the request at Chancery itself, and by nothing here. */
const waitForPeople = (look: Look, id: string): Wait => ({
  ...waiting(
    { ...look, waited: silentSeconds },
    `people must approve it first: request ${bounded(id, 64)} of Chancery`,
  ),
  after: approvalPollSeconds,
  isPoll: true,
})

/** So many seconds are to pass first. What is wrong is not in this request, but it is what people find. */
export const decideRest = (look: Look, after: number): Wait => ({
  ...waiting(
    { ...look, waited: silentSeconds },
    'each of the last certificates was asked for soon after the one before, so the next ones come later: let renewBefore leave more time, or let duration be longer, since a validity begins `backdate` of the profile before now, and ends with the issuer at the latest; or find who changes the Certificate, or removes its Secret, again and again',
  ),
  after,
})

/** Conventions 13 and 16: certificate and Ready in one write. */
const issued = ({ request, now, roots }: Answered, { chain, serial, notAfter }: Delivery): Write => {
  const message = `certificate ${serial} was issued`
  return {
    kind: 'write',
    status: {
      conditions: [condition(request, now, { type: 'Ready', status: 'True', reason: 'Issued', message })],
      certificate: Buffer.from(chain).toString('base64'),
      ...(roots !== undefined && { ca: Buffer.from(roots).toString('base64') }),
    },
    event: { type: 'Normal', reason: 'Issued', action: 'Issue', note: message },
    until: notAfter,
  }
}

const denied = (request: CertificateRequest, now: Date): Write => {
  const message = 'an approver has denied the request'
  return {
    kind: 'write',
    status: {
      conditions: [condition(request, now, { type: 'Ready', status: 'False', reason: 'Denied', message })],
      failureTime: secondsOf(now),
    },
    event: { type: 'Warning', reason: 'Denied', action: 'Deny', note: message },
  }
}

interface Failing {
  readonly message: string
  /** Whoever wrote it must change it. */
  readonly isInvalid: boolean
  /** Of InvalidRequest; it becomes the reason that the Certificate shows (fact 12). */
  readonly reason: string
}

/** Conventions 7 and 8. */
const failed = (request: CertificateRequest, now: Date, { message, isInvalid, reason }: Failing): Write => ({
  kind: 'write',
  status: {
    conditions: [
      condition(request, now, { type: 'Ready', status: 'False', reason: 'Failed', message }),
      ...(isInvalid ? [condition(request, now, { type: 'InvalidRequest', status: 'True', reason, message })] : []),
    ],
    failureTime: secondsOf(now),
  },
  event: { type: 'Warning', reason: isInvalid ? reason : 'Failed', action: 'Issue', note: message },
})

/** Its certificate did not go into it. */
export const decideFull = (request: CertificateRequest, now: Date): Write =>
  failed(request, now, { message: fullText, isInvalid: true, reason: fullReason })

export const fullReason = 'RequestTooLarge'
export const fullText = 'the request is so large that the API server cannot store a certificate with it'

interface Patient {
  readonly request: KubernetesObject
  readonly now: Date
  readonly retryFor?: number | undefined
}

const ageOf = ({ request, now }: Patient): number =>
  (now.getTime() - Date.parse(request.metadata.creationTimestamp)) / 1_000

export const isPatient = (look: Patient): boolean => look.retryFor === undefined || ageOf(look) <= look.retryFor

/** A wait that outlasts it would have it found late. */
export const withinPatience = (look: Patient, after: number | undefined): { readonly after?: number } => {
  const { retryFor = Number.POSITIVE_INFINITY } = look
  return after === undefined ? {} : { after: Math.min(after, retryFor - ageOf(look) + 1) }
}

/** Convention 9: it stays open, within the bound that the settings may have. */
const pending = (look: Look, message: string): Write | Wait => {
  const { request, now, retryFor } = look
  if (isPatient(look)) return waiting(look, message)
  const late = `it could not be issued within ${retryFor} s: ${message}`
  return failed(request, now, { message: late, isInvalid: false, reason: 'Failed' })
}

/**
 * Said once it has gone on for a second, so that what passes sooner costs no write; and never twice the same.
 */
const waiting = ({ request, now, waited }: Look, message: string): Wait => {
  if (waited < silentSeconds) return { kind: 'wait' }
  const next = condition(request, now, { type: 'Ready', status: 'False', reason: 'Pending', message })
  const known = conditionOf(request, 'Ready')
  if (known?.status === next.status && known.reason === next.reason && known.message === message)
    return { kind: 'wait' }
  const event: Told = { type: 'Normal', reason: 'Pending', action: 'Issue', note: message }
  return { kind: 'wait', write: { kind: 'write', status: { conditions: [next] }, event } }
}

type NewCondition = Pick<Condition, 'type' | 'status'> & { readonly reason: string; readonly message: string }

/** `lastTransitionTime` is when the status changed, not when it was last said. */
const condition = (request: CertificateRequest, now: Date, next: NewCondition): Condition => {
  const known = conditionOf(request, next.type)
  const since = known?.status === next.status ? known.lastTransitionTime : undefined
  return { ...next, lastTransitionTime: since ?? secondsOf(now) }
}

/** Times of conditions are in whole seconds. */
export const secondsOf = (now: Date): string => `${now.toISOString().slice(0, 19)}Z`

/** A problem's code in the form that reasons have: san.forbidden is SanForbidden. */
export const reasonOf = (code: string): string => {
  const words = code.split(/[^A-Za-z0-9]+/)
  const reason = words.map((word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`).join('')
  return /^[A-Za-z]/.test(reason) ? reason.slice(0, 64) : 'Refused'
}

/** Seconds: a hundred years, beyond which Chancery reads none. Which is too much the profile says all the same. */
const longest = 100 * 365.25 * 86_400
const silentSeconds = 1
const longSeconds = 30
/** People take minutes; a certificate is there within seconds of their last word. */
const approvalPollSeconds = 10
