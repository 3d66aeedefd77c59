/** When a certificate is best renewed (RFC 9773): a span of time, so that not everybody comes at once. Pure. */
import { Problem } from '../../errors.ts'
import type { IssuerState } from '../records.ts'

export interface RenewalFacts {
  readonly serial: string
  readonly principal: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly revokedAt: Date | null
  /** When an order was given, which is under way, that will revoke it. */
  readonly orderedAt: Date | null
  /** A certificate with its key was revoked as keyCompromise. */
  readonly isCompromised: boolean
  readonly issuer: { readonly name: string; readonly state: IssuerState; readonly since: Date }
}

export const renewalReasons = [
  'age',
  'revoked',
  'revocation-ordered',
  'key-compromised',
  'issuer-ended',
  'issuer-retiring',
] as const
export type RenewalReason = (typeof renewalReasons)[number]

export interface RenewalInfo {
  /** RFC 9773 4.2: one moment within it is chosen by chance; one that has passed means now. */
  readonly window: { readonly start: Date; readonly end: Date }
  /** Why then. */
  readonly reason: RenewalReason
  /** Seconds until it is worth to ask again. */
  readonly retryAfter: number
}

/** `isIssuerRevoked`: by a CA above, on each way up. The same facts give the same answer, whenever it is asked for. */
export const renewalInfoOf = (facts: RenewalFacts, isIssuerRevoked: boolean): RenewalInfo => {
  const urgent = urgencies.find(({ since }) => since(facts, isIssuerRevoked) !== null)
  const { window, reason } = urgent
    ? { window: spanUntil(urgent.since(facts, isIssuerRevoked) as Date), reason: urgent.reason }
    : usual(facts)
  return { window, reason, retryAfter: retryAfterOf(facts) }
}

export interface RenewalInfoDeps {
  /** Undefined where no certificate of ours has this serial (hex). */
  readonly read: (serial: string) => Promise<RenewalFacts | undefined>
  /** By a CA above, on each way up. */
  readonly isIssuerRevoked: (issuer: string) => boolean
}

/** Whose certificate it is, and when it is best renewed. */
export type RenewalInfos = (serial: string) => Promise<RenewalInfo & Pick<RenewalFacts, 'serial' | 'principal'>>

/** Throws `certificate.not_found`. */
export const openRenewalInfos =
  ({ read, isIssuerRevoked }: RenewalInfoDeps): RenewalInfos =>
  async (serial) => {
    const facts = await read(serial)
    if (!facts) throw new Problem('certificate.not_found', `There is no certificate with serial ${serial}.`)
    const { principal, issuer } = facts
    return { serial, principal, ...renewalInfoOf(facts, isIssuerRevoked(issuer.name)) }
  }

interface Urgency {
  readonly reason: RenewalReason
  /** Since when it should have been renewed; null where it need not. */
  readonly since: (facts: RenewalFacts, isIssuerRevoked: boolean) => Date | null
}

/** The first that there is. Their windows have passed, so whoever asks renews at once; how often it asks spreads the load. */
const urgencies: readonly Urgency[] = [
  { reason: 'revoked', since: ({ revokedAt }) => revokedAt },
  { reason: 'key-compromised', since: ({ isCompromised, notBefore }) => (isCompromised ? notBefore : null) },
  { reason: 'revocation-ordered', since: ({ orderedAt }) => orderedAt },
  {
    reason: 'issuer-ended',
    since: ({ issuer, notBefore }, isIssuerRevoked) =>
      isIssuerRevoked ? notBefore : issuer.state === 'crl-only' || issuer.state === 'retired' ? issuer.since : null,
  },
]

/** From half of the life until two thirds; of an issuer that signs no more, as long a span from when it was retired. */
const usual = ({ notBefore, notAfter, issuer }: RenewalFacts): Pick<RenewalInfo, 'window' | 'reason'> => {
  const life = notAfter.getTime() - notBefore.getTime()
  const start = notBefore.getTime() + life / 2
  const retired = issuer.state === 'retiring' ? Math.max(issuer.since.getTime(), notBefore.getTime()) : start
  const from = Math.floor(Math.min(start, retired) / 1_000) * 1_000
  const window = { start: new Date(from), end: new Date(from + Math.max(1_000, Math.floor(life / 6_000) * 1_000)) }
  return { window, reason: retired < start ? 'issuer-retiring' : 'age' }
}

/** One second, since RFC 9773 wants an end after the start. */
const spanUntil = (since: Date): RenewalInfo['window'] => {
  const end = Math.floor(since.getTime() / 1_000) * 1_000
  return { start: new Date(end - 1_000), end: new Date(end) }
}

/** A few times in a life: often enough that a change comes in time, seldom enough that asking costs less than renewing. */
const retryAfterOf = ({ notBefore, notAfter }: RenewalFacts): number => {
  const life = (notAfter.getTime() - notBefore.getTime()) / 1_000
  return Math.round(Math.min(Math.max(life / 4, soonest), latest))
}

/** In seconds. */
const soonest = 60
const latest = 21_600
