/** What auditors read: certificates, refusals, events. The store implements `Records`; nothing here changes anything. */
import type { Violation } from '../errors.ts'
import type { CheckResult } from '../policy/checks.ts'
import type { Tile } from '../roll/tiles.ts'
import type { Name } from '../x509/names.ts'
import type { Revocation } from './revoke.ts'

export interface CertificateRecord {
  readonly serial: string
  readonly certificate: Buffer
  /** Issuers above the leaf, without the root. */
  readonly chain: readonly Buffer[]
  readonly profile: { readonly name: string; readonly version: number }
  readonly principal: string
  readonly issuer: string
  readonly subject: string
  readonly names: readonly Name[]
  readonly keySha256: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly issuedAt: Date
  readonly index: number
  /** `expired` is by the database's clock; what is revoked stays so. */
  readonly status: 'valid' | 'expired' | 'revoked'
  /** Null unless the status is `revoked`. */
  readonly revocation: Revocation | null
}

export interface CertificateFilter {
  readonly serial?: string
  /** An exact name of any kind, or `*.suffix` for every DNS name below the suffix. */
  readonly name?: string
  /** Exact subject, RFC 4514. */
  readonly subject?: string
  readonly profile?: string
  readonly principal?: string
  readonly issuer?: string
  readonly status?: CertificateRecord['status']
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly key?: string
  readonly issuedAfter?: Date
  readonly issuedBefore?: Date
  readonly expiresAfter?: Date
  readonly expiresBefore?: Date
  /** Those that are revoked, since that time or until it. */
  readonly revokedAfter?: Date
  readonly revokedBefore?: Date
}

export interface RefusalRecord {
  readonly id: string
  readonly at: Date
  readonly principal: string
  readonly profile: string | null
  readonly code: string
  readonly detail: string
  readonly digest: string
  readonly violations: readonly Violation[]
  /** What each check of the decision said; null where none was made. */
  readonly checks: readonly CheckResult[] | null
  /** Those beyond the bound of what is kept. */
  readonly checksLeftOut: number
}

export interface RefusalFilter {
  readonly principal?: string
  readonly profile?: string
  readonly code?: string
  readonly after?: Date
  readonly before?: Date
}

/** One entry of the roll: its exact bytes as text, with its place and hash. */
export interface EventRecord {
  readonly index: number
  readonly leafHash: string
  readonly entry: string
}

export interface EventFilter {
  readonly type?: string
  readonly serial?: string
  readonly fromIndex?: number
}

export interface PageRequest {
  /** 1 to 1,000. */
  readonly limit: number
  readonly cursor?: string
}

export interface Page<T> {
  readonly items: readonly T[]
  /** Absent on the last page. */
  readonly next?: string
}

/** Published only; signing; signing no more, but perhaps again; status only; nothing left to tell of. */
export const issuerStates = ['staged', 'active', 'retiring', 'crl-only', 'retired'] as const
export type IssuerState = (typeof issuerStates)[number]

export interface IssuerRecord {
  readonly name: string
  readonly authority: string
  readonly state: IssuerState
  /** When it came into this state. */
  readonly since: Date
  readonly certificate: Buffer
  /** Above the issuer, the root last. */
  readonly chain: readonly Buffer[]
  /** Other ways up, as through a cross-certificate to another root; the root last in each. */
  readonly otherChains?: readonly (readonly Buffer[])[]
}

/** Cursors are opaque and bound to their filter: another filter's cursor is `request.cursor`. */
/** The roll's tiles and entries (c2sp.org/tlog-tiles), as wide as they are asked for. */
export interface RollTiles {
  /** The octets of a tile, or of a bundle of entries. Throws `roll.not_found` where the roll does not have so many. */
  read(tile: Tile): Promise<Uint8Array>
}

export interface Records {
  /** Throws `certificate.not_found`. */
  certificate(serial: string): Promise<CertificateRecord>
  /** Newest first; by name, ordered by name and then newest first. */
  certificates(filter: CertificateFilter, page: PageRequest): Promise<Page<CertificateRecord>>
  refusals(filter: RefusalFilter, page: PageRequest): Promise<Page<RefusalRecord>>
  /** Oldest first. */
  events(filter: EventFilter, page: PageRequest): Promise<Page<EventRecord>>
  authorities(): Promise<readonly string[]>
  issuers(): Promise<readonly IssuerRecord[]>
}
