/**
 * Revoking: which changes of a certificate's standing are allowed, and to whom. The records decide under the head of the
 * roll, so that of two changes at once the second sees the first; nothing is told to anyone before it is durable.
 */
import { Problem } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import type { CertificateReleased, CertificateRevoked } from '../../tlog/entries.ts'
import { formatTime, instantOf } from '../../x509/time.ts'
import { type Caller, hasRole, requesterGrants } from '../access/access.ts'

/**
 * Why a certificate may be revoked (RFC 5280 5.3.1): what is said of CAs, of attributes and in delta lists is no reason
 * for a leaf.
 */
export const revocationReasons = [
  'unspecified',
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'certificateHold',
  'privilegeWithdrawn',
] as const
export type RevocationReason = (typeof revocationReasons)[number]

export interface Revocation {
  readonly reason: RevocationReason
  /** Since when it is revoked, in whole seconds as lists and answers say it. */
  readonly revokedAt: Date
  /** Since when its key is known or thought to have been somebody else's too. */
  readonly invalidSince: Date | null
  /** Null: whoever proved to hold its key. */
  readonly by: string | null
  /** Of the event on the roll. */
  readonly index: number
}

/** A certificate as its revocation sees it. */
export interface Standing {
  readonly serial: string
  readonly principal: string
  readonly profile: string
  readonly issuer: string
  readonly shard: number
  readonly notAfter: Date
  /** Of its event on the roll. */
  readonly index: number
  readonly keySha256: string
  /** What holds now. */
  readonly revocation: Revocation | null
  /** It was on hold once. */
  readonly released: boolean
  /** Of the event that made it stand so: its own, or that of its newest change. */
  readonly newest: number
  /** Its key is on record as compromised, by whatever certificate it was reported. Read where one is looked at alone. */
  readonly isKeyReported?: boolean
}

export interface RevocationAsk {
  readonly reason: RevocationReason
  readonly invalidSince: Date | null
}

export interface Revocations {
  /**
   * Idempotent. Durable when it resolves, and told by this replica's OCSP; by every list within a minute. Throws
   * `certificate.not_found`, `auth.forbidden`, `revocation.issuer`, `revocation.expired`, `revocation.state`,
   * `request.malformed`.
   */
  revoke(serial: string, ask: RevocationAsk, by: Caller): Promise<Standing>
  /**
   * By whoever holds the key of the certificate, as a JWS of it proves (keys/key-proof.ts). As `revoke`; throws
   * `revocation.proof` as well.
   */
  revokeByKey(serial: string, proof: string): Promise<Standing>
  /** From hold only; idempotent. Throws as `revoke` does. */
  release(serial: string, by: Caller): Promise<Standing>
}

/** What the store does for it. */
export interface RevocationStore {
  /**
   * Decides on what holds and makes the change that comes of it, with its event, while nobody else can change anything.
   * What `decide` throws leaves all as it was. Resolves to what holds then.
   */
  change(serial: string, decide: Decide): Promise<Standing>
}

/**
 * The time of the event that would be. Throws `clock.skewed` where the clocks disagree: a refusal is for good, and none is by a
 * clock that is wrong. So it is asked only where time decides, and what the caller can mend is told first.
 */
export type Now = () => Date

/** Undefined: it holds already. */
export type Decide = (standing: Standing | undefined, now: Now) => Change | undefined
export type Change = CertificateRevoked | CertificateReleased

export interface RevocationsDeps {
  readonly store: RevocationStore
  /** DER of the SubjectPublicKeyInfo of the certificate. Throws `certificate.not_found`. */
  readonly keyOf: (serial: string) => Promise<Buffer>
  /** What a proof says, when it is by this key. Throws `revocation.proof`. */
  readonly verifyProof: (proof: string, spki: Buffer) => Promise<unknown>
  /** Whether the serial is that of a CA certificate of ours. */
  readonly isIssuer: (serial: string) => Promise<boolean>
  /** Told of each change before its caller is: what this replica says of the serial must change first. */
  readonly changed: (serial: string, index: number) => void
}

export const openRevocations = (deps: RevocationsDeps): Revocations => {
  const { store, isIssuer, changed } = deps
  const change = async (serial: string, decide: (standing: Standing, now: Now) => Change | undefined) => {
    if (await isIssuer(serial)) throw new Problem('revocation.issuer', `${serial} is a CA certificate of this service.`)
    const standing = await store.change(serial, (found, now) => {
      if (!found) throw notFound(serial)
      return decide(found, now)
    })
    changed(serial, standing.newest)
    return standing
  }
  return {
    revoke: (serial, ask, by) =>
      change(serial, (standing, now) => {
        assertMayRevoke(by, standing, ask.reason)
        return decideRevocation(standing, ask, { now, by: by.principal })
      }),
    revokeByKey: async (serial, proof) => {
      const said = await deps.verifyProof(proof, await deps.keyOf(serial))
      return change(serial, (standing, now) => {
        const ask = readProof(said, serial, now)
        assertOfIssuer(standing, ask)
        return decideRevocation(standing, ask, { now, by: null })
      })
    },
    release: (serial, by) =>
      change(serial, (standing, now) => {
        assertMayRelease(by, standing)
        return decideRelease(standing, { now, by: by.principal })
      }),
  }
}

/** The change that is asked for, undefined where it holds already. Throws what forbids it. */
export const decideRevocation = (
  standing: Standing,
  ask: RevocationAsk,
  { now, by, plan = null }: { readonly now: Now; readonly by: string | null; readonly plan?: string | null },
): CertificateRevoked | undefined => {
  const { revocation: before, notAfter, serial, issuer, shard } = standing
  const { reason } = ask
  // What was said before of when is not forgotten by saying why.
  const invalidSince = ask.invalidSince ?? before?.invalidSince ?? null
  if (before && isSame(before, ask)) return undefined
  if (before && !mayReplace(before.reason, reason))
    throw new Problem(
      'revocation.state',
      `The certificate is revoked as ${before.reason} since ${formatTime(before.revokedAt)}${sinceText(before)}.`,
    )
  assertPast(ask.invalidSince, now)
  // The key of an expired one may be that of others, and is blocked all the same.
  if (reason !== 'keyCompromise' && hasEnded(notAfter, now()))
    throw new Problem(
      'revocation.expired',
      `The certificate has expired at ${formatTime(notAfter)}: no list would show it.`,
    )
  return {
    type: 'certificate.revoked',
    serial,
    issuer,
    shard,
    reason,
    // Whoever trusted it after the first of its reasons was wrong to.
    revokedAt: formatTime(before?.revokedAt ?? now()),
    invalidityDate: invalidSince && formatTime(invalidSince),
    plan,
    by,
  }
}

const decideRelease = (
  { revocation, released, serial, issuer, shard, notAfter, isKeyReported }: Standing,
  { now, by }: { readonly now: Now; readonly by: string },
): CertificateReleased | undefined => {
  if (!revocation && released) return undefined
  if (revocation?.reason !== 'certificateHold')
    throw new Problem(
      'revocation.state',
      revocation
        ? `The certificate is revoked as ${revocation.reason}: only one on hold can be released.`
        : 'The certificate is not revoked.',
    )
  // Whoever has the key could use it again: nobody is certified for it, and this would be no better.
  if (isKeyReported)
    throw new Problem(
      'revocation.state',
      'Its key was reported as compromised meanwhile: it stays on hold; revoke it as keyCompromise.',
    )
  if (hasEnded(notAfter, now()))
    throw new Problem(
      'revocation.expired',
      `The certificate has expired at ${formatTime(notAfter)}: it stays as it was.`,
    )
  return { type: 'certificate.released', serial, issuer, shard, by }
}

/** Without a date, whichever is on record. */
const isSame = (before: Revocation, { reason, invalidSince }: RevocationAsk): boolean =>
  before.reason === reason &&
  (invalidSince === null ||
    (before.invalidSince !== null && formatTime(before.invalidSince) === formatTime(invalidSince)))

/** Throws `request.malformed`: nobody knows of what is to come, and lists know no time before 1950 (RFC 5280 4.1.2.5). */
export const assertPast = (invalidSince: Date | null, now: Now): void => {
  if (invalidSince === null) return
  if (invalidSince < firstTime) throw badDate('lies before 1950')
  if (invalidSince > now()) throw badDate('lies in the future')
}

const badDate = (reason: string): Problem =>
  new Problem('request.malformed', `The invalidity date ${reason}.`, {
    violations: [{ check: 'request.time', field: '/invalidityDate', value: '', reason }],
  })

const firstTime = new Date('1950-01-01T00:00:00Z')

/** What may be on record for a certificate that is to be revoked for this reason, if anything is. */
export const replaceableBy = (reason: RevocationReason): readonly RevocationReason[] =>
  revocationReasons.filter((before) => mayReplace(before, reason))

/** Hold is for a while; and that a key is somebody else's too outweighs whatever was said before. */
const mayReplace = (before: RevocationReason, reason: RevocationReason): boolean =>
  before !== reason && (before === 'certificateHold' || reason === 'keyCompromise')

/**
 * Operators revoke any; a requester its own, under a grant of that profile that says so. keyCompromise blocks the key for
 * every principal, and a requester may have had a copy of a CSR only: it proves to hold the key instead (`revokeByKey`).
 */
const assertMayRevoke = (by: Caller, standing: Standing, reason: RevocationReason): void => {
  if (hasRole(by, 'operator')) return
  assertSees(by, standing)
  if (by.principal !== standing.principal || !requesterGrants(by, standing.profile).some((grant) => grant.revoke))
    throw new Problem(
      'auth.forbidden',
      `Revoking needs a grant as operator, or, for a certificate of yours, one for profile ${standing.profile} that allows it.`,
    )
  if (reason === 'keyCompromise')
    throw new Problem(
      'revocation.proof',
      'A requester revokes as keyCompromise with a proof by the key of the certificate.',
    )
}

/**
 * Throws `revocation.proof` for what is not of its form, is of another certificate, or not of these minutes: a proof that was seen is
 * soon worthless.
 */
const readProof = (said: unknown, about: string, now: Now): RevocationAsk & { readonly issuer: string } => {
  const bad = (reason: string): Problem => new Problem('revocation.proof', `The proof ${reason}.`)
  if (typeof said !== 'object' || said === null || Array.isArray(said)) throw bad('is no JSON object')
  const { issuer, serial, reason, invalidityDate, iat, ...others } = said as Readonly<Record<string, unknown>>
  if (Object.keys(others).length > 0) throw bad('has members that are not known')
  if (typeof issuer !== 'string' || typeof serial !== 'string') throw bad('names no issuer or no serial')
  if (!revocationReasons.includes(reason as RevocationReason)) throw bad('has no reason that is known')
  // A hold can be released, and a proof of it that was seen would then hold again.
  if (reason === 'certificateHold') throw bad('asks for a hold, which is for operators')
  if (invalidityDate !== undefined && (typeof invalidityDate !== 'string' || !wholeSeconds.test(invalidityDate)))
    throw bad('has an invalidity date that is none, or none in whole seconds')
  const since = invalidityDate === undefined ? null : instantOf(invalidityDate as string)
  if (since === undefined) throw bad('has an invalidity date that is none')
  if (serial.replaceAll(':', '').toLowerCase() !== about)
    throw new Problem('revocation.proof', 'The proof is about another certificate.')
  const age = now().getTime() / 1000 - Number(iat)
  if (typeof iat !== 'number' || !(age < maxProofAge && age > -maxProofLead))
    throw bad('was not made within the last five minutes, by our clock')
  return {
    issuer,
    reason: reason as RevocationReason,
    invalidSince: since,
  }
}

/**
 * Whose certificate it is may be told, for the signature holds: whoever asks has the key, and would have read it in the
 * certificate. Throws `revocation.proof`.
 */
const assertOfIssuer = ({ issuer }: Standing, said: { readonly issuer: string }): void => {
  if (said.issuer === issuer) return
  const detail = `The certificate is of the issuer ${JSON.stringify(issuer)}, and the proof names ${JSON.stringify(said.issuer.slice(0, 63))}.`
  throw new Problem('revocation.proof', detail, { extra: { issuer } })
}

/** In whole seconds, as lists have it (RFC 5280 5.3.2). */
const wholeSeconds = /^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d(\.0{1,9})?(Z|[+-]\d\d:\d\d)$/
/** Seconds. */
const maxProofAge = 300
const maxProofLead = 60

const assertMayRelease = (by: Caller, standing: Standing): void => {
  if (hasRole(by, 'operator')) return
  assertSees(by, standing)
  throw new Problem('auth.forbidden', 'Releasing from hold needs a grant as operator.')
}

/** Someone else's certificate does not exist for a mere requester, as when it is read. */
const assertSees = (caller: Caller, { principal, serial }: Standing): void => {
  if (caller.principal !== principal && !hasRole(caller, 'auditor') && !hasRole(caller, 'admin')) throw notFound(serial)
}

const notFound = (serial: string): Problem =>
  new Problem('certificate.not_found', `There is no certificate with serial ${serial}.`)

const sinceText = ({ invalidSince }: Revocation): string =>
  invalidSince === null ? '' : `, invalid since ${formatTime(invalidSince)}`
