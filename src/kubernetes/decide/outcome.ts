/**
 * What Chancery has answered, in the words of the controllers: whose fault it is, and whether the same request may succeed
 * later. `retryable` of the problem decides; the table below says what concerns everybody who asks through an issuer.
 */
import { isToldIn, type ProblemCode, type Violation } from '../../errors.ts'

/** A problem document (RFC 9457) as Chancery writes it. */
export interface ProblemDocument {
  readonly code: string
  /** Of HTTP. */
  readonly status?: number
  readonly detail: string
  readonly retryable: boolean
  readonly retryAfter?: number
  readonly requestId?: string
  readonly violations?: readonly Violation[]
}

/** Why there is no answer that counts. */
export type Fault =
  | { readonly kind: 'problem'; readonly problem: ProblemDocument }
  /** Nobody answered, or not to the end: whether something was issued is not known. */
  | { readonly kind: 'unreachable'; readonly message: string }
  /**
   * Somebody answered whom we do not trust (for what we trust, or for what he shows: `about`), or we have nothing to show: in
   * our words, the same for the same fault.
   */
  | { readonly kind: 'misconfigured'; readonly message: string; readonly about?: 'trust' | 'server' }
  /** An answer that is not Chancery's, or not what was wanted; perhaps in the words of whoever answered. */
  | { readonly kind: 'foreign'; readonly message: string }

export interface IssuedCertificate {
  readonly serial: string
  /** The name of the issuer at Chancery. */
  readonly issuer: string
  /** PEM. */
  readonly certificate: string
  /** PEM, what is above it. */
  readonly chain: readonly string[]
  /** It was issued for an earlier request under the same key, and comes again for each. */
  readonly replayed?: boolean
  /** When Chancery has answered, by its own clock, which is the one that certificates go by. */
  readonly answeredAt?: Date
}

export type Outcome =
  | { readonly kind: 'issued'; readonly issued: IssuedCertificate }
  /** People must approve it first. */
  | { readonly kind: 'waiting'; readonly id: string }
  | { readonly kind: 'fault'; readonly fault: Fault }

export type Setback = Later | Refused

export interface Later {
  readonly kind: 'later'
  /** The same for the same fault, so that it is not written twice. */
  readonly message: string
  /** Seconds, where Chancery has said so. */
  readonly after?: number
  /** Everybody who asks through this issuer would be told the same. */
  readonly ofIssuer: boolean
}

export interface Refused {
  readonly kind: 'refused'
  readonly code: string
  readonly message: string
  /** The request itself can never succeed: whoever wrote it must change it. */
  readonly isInvalid: boolean
}

/** Nothing but people can mend it: credentials, grants, names of profiles, trust. */
export const needsPeople = (fault: Fault): boolean =>
  fault.kind === 'problem' ? !fault.problem.retryable : fault.kind !== 'unreachable'

/** Whether who is only asked how it is answers the same: a key that is away shows itself to those who want a signature. */
export const isSeenByProbe = (fault: Fault): boolean => fault.kind !== 'problem' || !hidden.has(fault.problem.code)

/** Whether it may be so for those who want a signature, and not for who is only asked: what only reads will do for that. */
export const mayPassProbe = (fault: Fault): boolean =>
  !isSeenByProbe(fault) || (fault.kind === 'problem' && fault.problem.code === 'db.unavailable')

/** Whoever may make an issuer chooses who answers: what is said is bounded here, whatever kind of fault says it. */
export const setbackOf = (fault: Fault): Setback => {
  if (fault.kind !== 'problem')
    return { kind: 'later', message: bounded(fault.message, mostCharacters), ofIssuer: true }
  const { problem } = fault
  const { code, retryAfter } = problem
  const later = { kind: 'later', message: textOf(problem) } as const
  const after = retryAfter === undefined ? {} : { after: Math.min(retryAfter, mostAfter.get(code) ?? retryAfter) }
  // Who asks, and for which profile, is the issuer's to say: the request may succeed unchanged once that is mended.
  if (isOfIssuer(problem)) return { ...later, ofIssuer: true, ...after }
  if (problem.retryable) return { ...later, ofIssuer: false, ...after }
  if (isOfOperator(problem)) return { ...later, ofIssuer: false, after: Math.max(retryAfter ?? 0, mendingSeconds) }
  return { kind: 'refused', code: plainCode(code), message: refusalText(problem), isInvalid: isOfRequest(code) }
}

const textOf = (problem: ProblemDocument): string =>
  bounded(`${bounded(sentenceOf(problem), mostCharacters - 128)} (${plainCode(problem.code)})`, mostCharacters)

/** All that the decision says, each once, within what a condition may hold without drowning its readers. */
const refusalText = (problem: ProblemDocument): string => {
  const { detail, violations = [], requestId } = problem
  const others = violations.filter((violation) => !isToldIn(detail, violation))
  const request = requestId === undefined ? '' : `, request ${bounded(requestId, 64)}`
  const head = `${sentenceOf(problem)} (${plainCode(problem.code)}${request})`
  return bounded([head, ...others.map(violationText)].join('; '), mostCharacters)
}

const plainCode = (code: string): string => bounded(code, 64)

const violationText = ({ check, field, value, reason }: Violation): string =>
  `${check}${field === '' ? '' : ` at ${field}`}${value === '' ? '' : ` on ${bounded(value, 128)}`}: ${reason}`

const sentenceOf = ({ detail }: ProblemDocument): string => plain(detail).replace(/\.$/, '')

/**
 * Without what could be taken for lines or commands of a terminal by whoever prints a condition, and without half a character: the API
 * server puts another in its place, and what was written would never be what it is compared with.
 */
const plain = (text: string): string =>
  text
    .toWellFormed()
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()

export const bounded = (text: string, most: number): string => {
  const clean = plain(text)
  return clean.length <= most ? clean : `${clean.slice(0, most - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

/** Where no violation says which rule of a grant forbids it, there is no grant for requests on behalf of others at all. */
const isOfIssuer = ({ code, violations = [] }: ProblemDocument): boolean =>
  code.startsWith('auth.') || ofIssuer.has(code) || (code === 'origin.forbidden' && violations.length === 0)

/** What people mend at Chancery while the request stays as it is: a defect there, or an issuer that ends too soon. */
const isOfOperator = ({ code, status = 0 }: ProblemDocument): boolean => status >= 500 || code === 'validity.issuer'

/** What is wrong is in the CSR, in the names, in the usages or in the validity that were asked for. */
const isOfRequest = (code: string): boolean =>
  /^(csr|key|subject|san|ext|validity|policy\.bind|policy\.rule)\b/.test(code)

const ofIssuer: ReadonlySet<string> = new Set<ProblemCode | 'origin.required'>([
  'origin.required',
  'profile.not_found',
  'principal.disabled',
  'key.unavailable',
  'key.bad_signature',
  'db.unavailable',
  'roll.inconsistent',
  'roll.unanchored',
  'clock.skewed',
  'issuer.none_active',
  'issuer.expired',
])

/** Of these, those that a dry run does not meet. */
const hidden: ReadonlySet<string> = new Set<ProblemCode>([
  'key.unavailable',
  'key.bad_signature',
  'roll.inconsistent',
  'roll.unanchored',
  'clock.skewed',
  'issuer.none_active',
  'issuer.expired',
])

/** It has had what its grant allows for now: for whoever asks to wait for, or to ask for more. */
export const isOfAllowance = (outcome: Outcome): boolean =>
  outcome.kind === 'fault' && outcome.fault.kind === 'problem' && allowances.has(outcome.fault.problem.code)

const allowances: ReadonlySet<string> = new Set<ProblemCode>([
  'limit.certificates_per_day',
  'limit.names_per_day',
  'limit.certificates_alive',
])

/** Seconds. What it waits for comes as soon as somebody revokes: `Retry-After` says when one expires. */
const mostAfter: ReadonlyMap<string, number> = new Map<ProblemCode, number>([['limit.certificates_alive', 600]])

/** Readers of `kubectl describe` see some twenty lines of it. */
const mostCharacters = 2_048
/** A defect is not mended sooner, and the uid as key makes another try safe. */
const mendingSeconds = 60
