/** When a certificate would begin and end, and what that depends on. Times in milliseconds, on whole seconds. */
export interface Validity {
  /** Seconds, as asked for or by default; may be any number. */
  readonly asked: number
  /** Seconds, after the profile and the issuer have shortened it. */
  readonly granted: number
  readonly notBefore: number
  readonly notAfter: number
  /** Seconds that have gone by since notBefore. */
  readonly elapsed: number
  /** Would it end after the issuer, before being shortened to its end? */
  readonly outlives: boolean
  readonly issuerEnd: number
  readonly issuerIsValid: boolean
}

/** What a profile says of it. In seconds; a validity counts from notBefore and includes both ends (RFC 5280 4.1.2.5). */
export interface ValidityRules {
  readonly default: number
  readonly max: number
  /** Whether a validity beyond is shortened; otherwise it is refused. */
  readonly shorten: boolean
  readonly backdate: number
}

export interface IssuerTimes {
  readonly notBefore: Date
  readonly notAfter: Date
}

/**
 * The one place with validity arithmetic. A validity counts from notBefore, and both ends are in it (RFC 5280
 * 4.1.2.5): notAfter - notBefore + 1 s is its length. It begins `backdate` before now, but not before its issuer.
 */
export const planValidity = (
  validity: ValidityRules,
  asked: number | undefined,
  at: { readonly now: Date; readonly issuer: IssuerTimes },
): Validity => {
  const now = wholeSecond(at.now.getTime())
  const notBefore = Math.max(now - validity.backdate * 1000, wholeSecond(at.issuer.notBefore.getTime()))
  const wanted = asked ?? validity.default
  const capped = validity.shorten ? Math.min(wanted, validity.max) : wanted
  const end = notBefore + (capped - 1) * 1000
  const issuerEnd = wholeSecond(at.issuer.notAfter.getTime())
  const outlives = !(end <= issuerEnd)
  const notAfter = outlives && validity.shorten ? issuerEnd : end
  return {
    asked: wanted,
    granted: lengthOf(notBefore, notAfter),
    notBefore,
    notAfter,
    elapsed: (now - notBefore) / 1000,
    outlives,
    issuerEnd,
    issuerIsValid: notBefore <= now && !hasEnded(at.issuer.notAfter, at.now),
  }
}

/**
 * Whether what is valid until `notAfter` has ended. The second that it names is still within, to its last millisecond (RFC 5280
 * 4.1.2.5); `db/validity.ts` says the same to the database.
 */
export const hasEnded = (notAfter: Date, now: Date): boolean =>
  wholeSecond(now.getTime()) > wholeSecond(notAfter.getTime())

/** Seconds. Both ends are in a validity, so that one of a second would end as it begins. */
export const minValidity = 2

/** Seconds of a validity, both ends included. */
export const lengthOf = (notBefore: number, notAfter: number): number => (notAfter - notBefore) / 1000 + 1

const wholeSecond = (milliseconds: number): number => Math.floor(milliseconds / 1000) * 1000
