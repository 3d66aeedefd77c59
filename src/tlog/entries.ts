/**
 * What the roll holds: one union of events. An entry is canonical JSON (RFC 8785) of at most 65,535 octets, the bound
 * of a C2SP tlog-tiles entry; its leaf is SHA-256(0x00 ‖ entry) (RFC 6962 2.1). From 0.1.0 on the form of each
 * type is final: a field is added only under a new type or with a new `v`. `test/tlog/entries.golden`
 * holds an example of each.
 */
import { canonicalJson } from '../lib/canonical-json.ts'

export interface ProfileVersion {
  readonly name: string
  readonly version: number
}

export interface CertificateIssued {
  readonly type: 'certificate.issued'
  /** The id of the request that people approved; null where nobody had to. */
  readonly approval: string | null
  /** Base64 of the DER. */
  readonly certificate: string
  readonly issuer: string
  /** On whose behalf its principal asked, in its words. */
  readonly origin: Readonly<Record<string, unknown>> | null
  /** SHA-256 (hex) of the plan that was decided. */
  readonly plan: string
  readonly principal: string
  readonly profile: ProfileVersion
  /** The serial of the certificate that it renews. */
  readonly replaces: string | null
  /** SHA-256 (hex) of what was asked: CSR, profile and options. */
  readonly request: string
  readonly serial: string
}

export interface IssuanceAbandoned {
  readonly type: 'issuance.abandoned'
  readonly serial: string
  readonly issuer: string
  readonly shard: number
  readonly principal: string
  readonly profile: ProfileVersion
  readonly request: string
  readonly plan: string
  /** When the intent was recorded, and until when the signature that may exist would be valid. */
  readonly intended: string
  readonly notAfter: string
}

export interface CertificateRevoked {
  readonly type: 'certificate.revoked'
  readonly serial: string
  readonly issuer: string
  readonly shard: number
  /** As RFC 5280 5.3.1 names it. */
  readonly reason: string
  /** Since when, whatever the time of this event: an earlier reason may have been replaced. */
  readonly revokedAt: string
  readonly invalidityDate: string | null
  /** SHA-256 (hex) of the plan by which many were revoked at once; null for one alone. */
  readonly plan: string | null
  /** Null: whoever proved to hold its key. */
  readonly by: string | null
}

export interface CertificateReleased {
  readonly type: 'certificate.released'
  readonly serial: string
  readonly issuer: string
  readonly shard: number
  readonly by: string
}

/** Lists of an issuer that are about to be signed: what each says is fixed by its digest, whether it comes to be or not. */
export interface CrlsIntended {
  readonly type: 'crls.intended'
  readonly issuer: string
  readonly lists: readonly {
    readonly shard: number
    readonly number: number
    /** How many entries of the roll it knows. */
    readonly covers: number
    readonly thisUpdate: string
    readonly nextUpdate: string
    /** How many are on it. */
    readonly revoked: number
    /** SHA-256 (hex) of the TBSCertList. */
    readonly tbs: string
  }[]
}

/** A list that a CA above an issuer has signed elsewhere. */
export interface CrlImported {
  readonly type: 'crl.imported'
  readonly issuer: string
  /** SHA-256 (hex) of the signer's SubjectPublicKeyInfo. */
  readonly signer: string
  /** Decimal. */
  readonly number: string
  readonly thisUpdate: string
  readonly nextUpdate: string
  readonly revoked: number
  /** SHA-256 (hex) of the list. */
  readonly sha256: string
  readonly by: string
}

/** Many are to be revoked, by one order. */
export interface RevocationsOrdered {
  readonly type: 'revocations.ordered'
  /** SHA-256 (hex) of canonical JSON of `certificates`, `count`, `invalidityDate`, `reason` and `search`. */
  readonly plan: string
  readonly search: Readonly<Record<string, string>>
  readonly reason: string
  readonly invalidityDate: string | null
  /** Of what the search found on a roll of this size, unexpired at this time. */
  readonly asOf: { readonly size: number; readonly time: string }
  readonly count: number
  /**
   * SHA-256 (hex) over each of them in order of the roll: the serial, and the entry of its newest change of before (8
   * octets, big-endian; -1 without one).
   */
  readonly certificates: string
  readonly by: string
}

/** Each of them was revoked, or passed by because it had changed. */
export interface RevocationsDone {
  readonly type: 'revocations.done'
  readonly plan: string
  readonly revoked: number
  readonly skipped: { readonly expired: number; readonly revoked: number }
}

/** Somebody has asked for what people must approve. */
export interface RequestCreated {
  readonly type: 'request.created'
  readonly id: string
  readonly principal: string
  readonly profile: ProfileVersion
  /** SHA-256 (hex) of what was asked: CSR, profile and options. */
  readonly request: string
  /** SHA-256 (hex) of canonical JSON of `decided`: names, subject, key, usages, validity, profile and issuer. */
  readonly plan: string
  readonly decided: Readonly<Record<string, unknown>>
  /** How many must approve it, and until when. */
  readonly required: number
  readonly expires: string
}

/** By approvers; withdrawn by who asked. */
export interface RequestDecided {
  readonly type: 'request.approved' | 'request.rejected' | 'request.withdrawn'
  readonly id: string
  readonly plan: string
  readonly reason: string
  readonly by: string
}

export interface RequestExpired {
  readonly type: 'request.expired'
  readonly id: string
  readonly plan: string
}

/** It was approved, and what was approved is not what would be issued now. */
export interface RequestFailed {
  readonly type: 'request.failed'
  readonly id: string
  readonly plan: string
  readonly code: string
  readonly reason: string
}

export interface ProfileChanged {
  readonly type: 'profile.changed'
  readonly profile: ProfileVersion
  readonly sha256: string
  /** How many must approve what it yields; 0: nobody. */
  readonly approvals: number
  readonly by: string
}

/** Whose tokens are believed, and who they make somebody. */
export interface ProviderChanged {
  readonly type: 'provider.changed'
  readonly provider: ProfileVersion
  readonly sha256: string
  readonly by: string
}

export interface PrincipalChanged {
  readonly type: 'principal.created' | 'principal.disabled'
  readonly principal: string
  readonly by: string
}

export interface GrantChanged {
  readonly type: 'grant.changed'
  readonly change: 'created' | 'revoked'
  readonly grant: string
  readonly principal: string
  readonly role: string
  readonly profiles: readonly string[] | null
  readonly names: unknown
  /** A requester may revoke its own certificates. */
  readonly revoke: boolean
  /** Numbers by name; null where there are none. */
  readonly limits: Readonly<Record<string, number>> | null
  /** The rules by which the principal may ask on behalf of others; null where it may not. */
  readonly onBehalfOf: Readonly<Record<string, unknown>> | null
  /** It lets its principal have certificates for keys of others. */
  readonly sharedKeys: boolean
  readonly by: string
}

export interface TokenChanged {
  readonly type: 'token.created' | 'token.revoked'
  readonly token: string
  readonly principal: string
  readonly label: string
  readonly expires: string | null
  readonly by: string
}

/** What ties client certificates to a principal: exactly one of the three. */
export interface CredentialChanged {
  readonly type: 'credential.created' | 'credential.revoked'
  readonly credential: string
  readonly principal: string
  readonly label: string
  /** SHA-256 (hex) of one certificate. */
  readonly fingerprint: string | null
  /** The only URI in each of them. */
  readonly spiffe: string | null
  /** Base64 of the DER of each. */
  readonly subject: { readonly name: string; readonly issuer: string } | null
  readonly by: string
}

export interface IssuerCreated {
  readonly type: 'issuer.created'
  readonly issuer: string
  readonly authority: string
  /** Base64 of the DER. */
  readonly certificate: string
  readonly state: string
  /** How many CRLs it has. */
  readonly shards: number
  readonly by: string
}

/** How many CRLs an issuer has by default. Of ten million certificates, one in a hundred revoked, each has 40 kB. */
export const defaultShards = 128

export const listsText = (shards: number): string => (shards === 1 ? 'one list' : `${shards} lists`)

/** Moves into a state, named by what it means: `issuer.halted` is the move into `crl-only` past every guard. */
export interface IssuerMoved {
  readonly type:
    | 'issuer.activated'
    | 'issuer.retiring'
    | 'issuer.closed'
    | 'issuer.halted'
    | 'issuer.discarded'
    | 'issuer.retired'
  readonly issuer: string
  readonly authority: string
  readonly from: string
  readonly reason: string | null
  readonly by: string
}

/** A key was made for an issuer that is to be; its certificate comes from elsewhere. */
export interface IssuerRequested {
  readonly type: 'issuer.requested'
  readonly issuer: string
  readonly authority: string
  readonly key: string
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly spki: string
  readonly by: string
}

/** From now on these are the ways up from an issuer to roots. */
export interface IssuerChained {
  readonly type: 'issuer.chained'
  readonly issuer: string
  readonly authority: string
  /** SHA-256 (hex) of each certificate, the issuer's first and the root's last in each. */
  readonly chains: readonly (readonly string[])[]
  readonly by: string
}

/** The key of an issuer, which is or is to be, is elsewhere from now on: the very key, which has signed there. */
export interface IssuerRelocated {
  readonly type: 'issuer.relocated'
  readonly issuer: string
  readonly authority: string
  readonly key: string
  readonly before: string
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly spki: string
  readonly reason: string | null
  readonly by: string
}

/**
 * An instance has opened an issuer's key, and opens it again in each signer process; where it comes and goes, not each
 * time is told. `attributes` as its token tells them, null for a key in a file.
 */
export interface KeyOpened {
  readonly type: 'key.opened'
  readonly issuer: string
  readonly key: string
  readonly spki: string
  readonly attributes: Readonly<Record<string, boolean | null>> | null
}

/** Somebody beside the service has opened a key, and seen it sign a fixed text. */
export interface KeyProbed {
  readonly type: 'key.probed'
  readonly key: string
  readonly spki: string
  readonly attributes: Readonly<Record<string, boolean | null>> | null
  readonly by: string
}

/** From now on checkpoints bear this origin, and are signed by this key. */
export interface RollOpened {
  readonly type: 'roll.opened'
  readonly origin: string
  /** As a verifier is given it (c2sp.org/signed-note). */
  readonly key: string
  /**
   * By which the database tells itself from others: its server's number, a slash, and its own (its oid); of earlier versions the
   * server's alone. Null where it has none.
   */
  readonly database: string | null
  /** The last checkpoint that is known of the origin before, where entries behind our own are lost for good. */
  readonly succeeds: { readonly origin: string; readonly size: number; readonly root: string } | null
  readonly by: string
}

/** The records have moved to another database, on purpose; or earlier versions have said no more than which server it is on. */
export interface DatabaseAdopted {
  readonly type: 'database.adopted'
  readonly database: string | null
  readonly before: string | null
  readonly reason: string | null
  readonly by: string
}

export interface ServiceStarted {
  readonly type: 'service.started'
  readonly version: string
  readonly mode: string
}

export type RollEvent =
  | CertificateIssued
  | RequestCreated
  | RequestDecided
  | RequestExpired
  | RequestFailed
  | IssuanceAbandoned
  | CertificateRevoked
  | CertificateReleased
  | CrlsIntended
  | CrlImported
  | RevocationsOrdered
  | RevocationsDone
  | ProfileChanged
  | ProviderChanged
  | PrincipalChanged
  | GrantChanged
  | TokenChanged
  | CredentialChanged
  | IssuerCreated
  | IssuerMoved
  | IssuerRequested
  | IssuerChained
  | IssuerRelocated
  | KeyOpened
  | KeyProbed
  | RollOpened
  | DatabaseAdopted
  | ServiceStarted

/** The exact text of the entry for an event at a time; the same event and time always give the same octets. */
export const encodeEntry = (event: RollEvent, time: Date): string => {
  const { type, ...fields } = event
  // Of most types these come last (RFC 8785 3.2.3): an event whose fields are in order is written by one native call.
  const entry = canonicalJson({ ...fields, time: timeOf(time), type, v: 1 })
  // Octets are counted only where there may be too many of them.
  if (entry.length * mostOctetsOfUnit > maxEntryOctets && utf8.encode(entry).length > maxEntryOctets)
    throw new RangeError(`an entry of type ${type} exceeds ${maxEntryOctets} octets`)
  return entry
}

/** A whole batch has one time. */
const timeOf = (time: Date): string => {
  if (last.time !== time.getTime()) last = { time: time.getTime(), text: time.toISOString() }
  return last.text
}
let last = { time: Number.NaN, text: '' }

/** The text whose SHA-256, in UTF-8, is the leaf of an entry. */
export const leafInput = (entry: string): string => `\0${entry}`

/** UTF-8, of a unit of UTF-16. */
const mostOctetsOfUnit = 3

export const maxEntryOctets = 65_535
const utf8 = new TextEncoder()
