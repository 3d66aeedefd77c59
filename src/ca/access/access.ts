/**
 * Who may ask. Everything is denied that no grant allows. The store implements `Access`; HTTP and the issuance
 * cycle consume it.
 */

import { Problem } from '../../errors.ts'
import type { Limits } from '../../policy/limits.ts'
import type { NameRules } from '../../policy/names.ts'
import type { OriginRules } from '../../policy/origin.ts'
import type { Name } from '../../x509/names.ts'
import type { Subject } from '../../x509/subject.ts'

export type Role = 'requester' | 'approver' | 'operator' | 'auditor' | 'admin'
export const roles: readonly Role[] = ['requester', 'approver', 'operator', 'auditor', 'admin']

export interface Grant {
  readonly id: string
  readonly principal: string
  readonly role: Role
  /** Profiles a requester may use; null where the role is not `requester`. */
  readonly profiles: readonly string[] | null
  /** Narrower name rules, applied beside the profile's own. */
  readonly names: NameRules | null
  /** A requester may revoke its own certificates of these profiles. */
  readonly revoke: boolean
  /** A requester may have certificates of these profiles for keys that are another's. */
  readonly sharedKeys?: boolean
  /** Absent: none. Those of requests hold for the principal, the others for what the grant lets it ask for. */
  readonly limits?: Limits
  /** A requester may ask on behalf of others, by these rules. Absent: for itself alone. */
  readonly onBehalfOf?: OriginRules
  readonly createdAt: Date
  readonly createdBy: string
}

export interface Principal {
  readonly name: string
  readonly createdAt: Date
  readonly createdBy: string
  readonly disabledAt: Date | null
}

export interface Token {
  readonly id: string
  readonly principal: string
  readonly label: string
  readonly createdAt: Date
  readonly createdBy: string
  readonly expiresAt: Date | null
  readonly revokedAt: Date | null
  /** To the minute; a convenience, not a record. */
  readonly lastUsedAt: Date | null
}

/** Which client certificates are a principal's. */
export type CredentialMatch =
  /** One alone. */
  | { readonly kind: 'fingerprint'; readonly sha256: Buffer }
  /** Those whose only URI this is. */
  | { readonly kind: 'spiffe'; readonly id: string }
  /** Those with this subject and issuer, Name DER octet by octet. */
  | { readonly kind: 'subject'; readonly subject: Buffer; readonly issuer: Buffer }

export interface NewCredential {
  readonly principal: string
  readonly label: string
  readonly match: CredentialMatch
}

export interface Credential extends NewCredential {
  readonly id: string
  readonly createdAt: Date
  readonly createdBy: string
  readonly revokedAt: Date | null
}

/** A client certificate that holds: what it may be recognised by. */
export interface ClientCertificate {
  /** SHA-256 of its DER. */
  readonly fingerprint: Buffer
  /** Its only URI, where that is one. */
  readonly spiffeId: string | null
  /** Name DER. */
  readonly subject: Buffer
  readonly issuer: Buffer
  readonly notAfter: Date
  /** 32 hexadecimal digits, where an issuer of ours signed it; null where somebody else did. */
  readonly serial: string | null
}

/** What somebody has shown: `own` is the service itself. */
export type Proof =
  | { readonly kind: 'own' }
  | { readonly kind: 'token'; readonly token: string }
  /** A token of an identity provider, and what it says to be the subject. */
  | { readonly kind: 'jwt'; readonly provider: string; readonly version: number; readonly subject: string }
  | { readonly kind: 'certificate'; readonly credential: string; readonly certificate: ClientCertificate }
  /** The certificate itself, and nothing but that: it may ask about itself, and to be renewed. */
  | { readonly kind: 'holder'; readonly held: Held }

/** Somebody who has proved who they are, and what they may do at this moment. */
export interface Caller {
  readonly principal: string
  readonly proof: Proof
  readonly grants: readonly Grant[]
  /** Those whose limits of requests hold for it, where they are more than those by which it may do anything. */
  readonly limiting?: readonly Grant[]
  /**
   * Asks whether it still is who it is, and what it may do by now; undefined where that was found out a moment ago. Throws
   * auth.*. Absent where nobody could take anything from it, as from the service itself.
   */
  readonly again?: () => Promise<Caller | undefined>
}

/** Who asks, whatever it is proved by. Nothing is trusted for longer than two seconds without looking again. */
export interface Identities {
  /**
   * A token of ours, or of an identity provider. `isAgain`: its bearer was let in with it before, and is asked whether it is
   * still so. Throws auth.*.
   */
  bearer(token: string, isAgain?: boolean): Promise<Caller>
  /** Of a TLS connection whose other end holds its key (DER). Throws auth.*. */
  certificate(der: Buffer): Promise<Caller>
  /** Whether certificates say who somebody is. Where they do not, they are only looked at as what they are. */
  readonly takesCertificates: boolean
  /**
   * Whoever holds the certificate of ours with this serial (hex); null where this is another one (DER). Nothing is
   * remembered. Throws auth.*, `renewal.foreign`.
   */
  holder(der: Buffer, serial: string): Promise<Caller | null>
}

export type NewGrant = Omit<Grant, 'id' | 'createdAt' | 'createdBy'>

export type NewToken = Pick<Token, 'principal' | 'label' | 'expiresAt'>

/** Every change is durable, and on the roll, when its promise resolves; it holds on every replica within two seconds. */
export interface Access {
  /** Throws `auth.invalid`, for every reason alike. */
  authenticate(secret: string): Promise<Caller>
  /**
   * Whose certificate it is (DER), if it holds: `judge` says so, or throws, and is asked again after two seconds. Throws
   * `auth.unmapped` where it is nobody's, or that of several.
   */
  authenticateCertificate(der: Buffer, judge: (der: Buffer) => Promise<ClientCertificate>): Promise<Caller>
  /** What a principal holds; it is created where there is none of that name. Throws `auth.unmapped` where it is closed. */
  callerNamed(name: string, by: string): Promise<Pick<Caller, 'principal' | 'grants'>>
  createPrincipal(name: string, by: string): Promise<Principal>
  listPrincipals(): Promise<readonly Principal[]>
  readPrincipal(name: string): Promise<Principal>
  /** Closes a principal for good; its tokens stop working. Idempotent. `profile.lockout` for the last administrator. */
  disablePrincipal(name: string, by: string): Promise<void>
  /** Idempotent: where the principal holds exactly this, it is the grant that is there, and nothing is created. */
  createGrant(grant: NewGrant, by: string): Promise<{ readonly grant: Grant; readonly created: boolean }>
  listGrants(principal?: string): Promise<readonly Grant[]>
  /** Idempotent. `profile.lockout` for the last administrator's. */
  revokeGrant(id: string, by: string): Promise<void>
  /** The secret is returned once and kept nowhere. */
  createToken(token: NewToken, by: string): Promise<Token & { readonly secret: string }>
  listTokens(principal?: string): Promise<readonly Token[]>
  /** Idempotent. `profile.lockout` for the last administrator's last token. */
  revokeToken(id: string, by: string): Promise<void>
  /** Idempotent: what is the principal's already is answered as it is. `state.exists` where it is another's. */
  createCredential(
    credential: NewCredential,
    by: string,
  ): Promise<{ readonly credential: Credential; readonly created: boolean }>
  listCredentials(principal?: string): Promise<readonly Credential[]>
  /** Idempotent. */
  revokeCredential(id: string, by: string): Promise<void>
}

export const hasRole = (caller: Caller, role: Role): boolean => caller.grants.some((grant) => grant.role === role)

/** That a caller has no grant for this profile, and for which ones it has: a mistyped name is found at a glance. */
export const ungranted = ({ grants }: Caller, profile: string): string => {
  const granted = [...new Set(grants.flatMap(({ role, profiles }) => (role === 'requester' ? (profiles ?? []) : [])))]
  const more = granted.length > mostTold ? ` and ${granted.length - mostTold} others` : ''
  const told = granted
    .sort()
    .slice(0, mostTold)
    .map((name) => JSON.stringify(name))
    .join(', ')
  const own = granted.length === 0 ? 'You have none for any profile.' : `Your grants are for ${told}${more}.`
  return `You have no grant to request certificates of profile ${JSON.stringify(profile)}. ${own}`
}

const mostTold = 20

/**
 * The grants under which the caller may ask for this profile, on behalf of others or for itself. Throws `auth.forbidden`,
 * `origin.forbidden`, `origin.required`. On whose behalf it may ask, the decision judges.
 */
export const grantsToAsk = (caller: Caller, profile: string, isOnBehalf: boolean): readonly Grant[] => {
  const grants = requesterGrants(caller, profile)
  if (grants.length === 0) throw new Problem('auth.forbidden', ungranted(caller, profile))
  const fitting = grants.filter(({ onBehalfOf }) => (isOnBehalf ? onBehalfOf : !onBehalfOf?.required))
  if (fitting.length > 0) return fitting
  throw isOnBehalf
    ? new Problem('origin.forbidden', 'You have no grant to ask for this profile on behalf of others.')
    : new Problem('origin.required', 'Your grants for this profile are for requests on behalf of others only.')
}

/** The grants of this profile; empty means 403. */
export const requesterGrants = (caller: Caller, profile: string): readonly Grant[] =>
  caller.grants.filter((grant) => grant.role === 'requester' && grant.profiles?.includes(profile))

/**
 * What stands against renewing a certificate: it is revoked or on hold; its principal is closed; a certificate with its key
 * was revoked as keyCompromise; an order is under way that will revoke it, since whoever holds it is not to be trusted.
 */
export type HeldObstacle = 'revoked' | 'closed' | 'stolen' | 'ordered'

/** A certificate in the hands of who asks. */
export interface Held {
  readonly serial: string
  readonly profile: string
  /** Of its day. */
  readonly profileVersion: number
  readonly issuer: string
  readonly subject: Subject
  readonly names: readonly Name[]
  readonly spki: Buffer
  readonly notAfter: Date
  /** When the first certificate of its row of renewals became valid. */
  readonly since: Date
  readonly obstacle: HeldObstacle | null
  /** Neither halted nor ended, nor revoked by a CA above. */
  readonly isIssuerTrusted: boolean
}
