/** What auditors read: certificates, refusals, events. The store implements `Records`; nothing here changes anything. */
import type { Violation } from '../errors.ts'
import type { CheckResult } from '../policy/check.ts'
import type { Origin } from '../policy/origin.ts'
import type { Tile } from '../tlog/tiles.ts'
import type { Name } from '../x509/names.ts'
import type { Revocation } from './revocation/revoke.ts'

/** What a search finds of a certificate. */
export interface FoundCertificate {
  readonly serial: string
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
  /** On whose behalf it was asked for; null: its principal's own. */
  readonly origin: Origin | null
}

/** A `FoundCertificate` as JSON, as the API shows it: what is found by the million need not become values first. */
export type CertificateText = string & { readonly of: 'FoundCertificate' }

export interface CertificateRecord extends FoundCertificate {
  readonly certificate: Buffer
  /** Issuers above the leaf, without the root. */
  readonly chain: readonly Buffer[]
}

export interface CertificateFilter {
  readonly serial?: string
  /** The serial of any certificate of a row of renewals: all of that row. */
  readonly row?: string
  /**
   * An exact name of any kind, as it is or as lists show it (`dns:…`), or `*.suffix` for every DNS name below the suffix. Searches
   * find certificates by the wildcard name that covers a DNS name as well; orders to revoke are of this very name.
   */
  readonly name?: string
  /** Exact subject, as `formatSubject` writes it. */
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
  /** Of those on whose behalf it was asked: namespace, user, UID of the object. */
  readonly originNamespace?: string
  readonly originUser?: string
  readonly originObject?: string
}

export interface RefusalRecord {
  readonly id: string
  readonly at: Date
  readonly principal: string
  readonly profile: string | null
  readonly code: string
  readonly detail: string
  readonly digest: string
  /** Where reading stopped, in octets, as the problem told; null where it told none. */
  readonly offset: number | null
  readonly violations: readonly Violation[]
  /** What each check of the decision said; null where none was made. */
  readonly checks: readonly CheckResult[] | null
  /** Those beyond the bound of what is kept. */
  readonly checksLeftOut: number
  /** On whose behalf it was asked for. */
  readonly origin: Origin | null
}

export interface RefusalFilter {
  readonly principal?: string
  readonly profile?: string
  readonly code?: string
  /** SHA-256 (hex) of the DER of the request, or of what was sent where that was not read. */
  readonly digest?: string
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
  /** Whom it is about, or who did it. */
  readonly principal?: string
  /** Who did it. */
  readonly by?: string
  readonly after?: Date
  readonly before?: Date
  readonly fromIndex?: number
  readonly beforeIndex?: number
}

export interface PageRequest extends Start {
  /** 1 to 1,000. */
  readonly limit: number
}

export interface Page<T> {
  readonly items: readonly T[]
  /** Absent on the last page. */
  readonly next?: string
}

/** Where a search begins. */
export interface Start {
  /** `next` of a page: goes on behind it, bound to what that one was bound to. */
  readonly cursor?: string | undefined
  /** A size of the roll: the search answers as it would have then. By default, the size that it has. */
  readonly at?: number | undefined
}

/**
 * What a search is bound to, whatever comes while it is read: what was on a roll of this size, expired or not as of this
 * time. Refusals and accesses are not on the roll: of these it finds those from before `time`, and what is dated ahead of it.
 */
export interface Bounds {
  readonly size: number
  readonly time: Date
}

/** The part of the records that was looked at: entries from `from` to before `before`, or times. */
export interface Range {
  readonly from: number | Date | null
  readonly before: number | Date
}

export interface Count {
  readonly rows: number
  /** False: an estimate, since counting them would take long. */
  readonly exact: boolean
}

/** A search under way. Each page goes on behind the one before. */
export interface Walk<T> {
  readonly bounds: Bounds
  readonly range: Range
  /** The next 1 to 1,000; fewer on the last page only. */
  page(limit: number, how?: PageWay): Promise<Page<T>>
  count(): Promise<Count>
}

export interface PageWay {
  /** The one behind it is looked for meanwhile, for a call of the same `limit`. */
  readonly ahead?: boolean
  /** Told how many there are on it, before they are made of what was found. */
  readonly found?: (rows: number) => void
}

/** Throws `request.cursor` for a cursor of another filter, `request.malformed` for a size that the roll does not have. */
export type OpenWalk<F, T> = (filter: F, start?: Start) => Promise<Walk<T>>

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
  /** How many lists what it has revoked is cut into. */
  readonly shards: number
}

/** The roll's tiles and entries (c2sp.org/tlog-tiles), as wide as they are asked for. */
export interface RollTiles {
  /** The octets of a tile, or of a bundle of entries. Throws `roll.not_found` where the roll does not have so many. */
  read(tile: Tile): Promise<Uint8Array>
}

/**
 * Cursors are opaque and bound to their filter. While others issue and are refused, no search skips or repeats anything
 * that was there when its first page was read.
 */
export interface Records {
  /** Throws `certificate.not_found`. */
  certificate(serial: string): Promise<CertificateRecord>
  readonly walk: {
    /**
     * Newest first; below a suffix by name, and where it is about expiry by that, and then newest first. By expiry are those
     * with bounds of it, or a status of valid or expired, unless a serial, key, name or subject says more.
     */
    readonly certificates: OpenWalk<CertificateFilter, FoundCertificate>
    /** The same, as it is shown. */
    readonly certificateTexts: OpenWalk<CertificateFilter, CertificateText>
    /** Newest first. */
    readonly refusals: OpenWalk<RefusalFilter, RefusalRecord>
    /** Oldest first. */
    readonly events: OpenWalk<EventFilter, EventRecord>
  }
  /** One page of the walk of that name. */
  certificates(filter: CertificateFilter, page: PageRequest): Promise<Page<FoundCertificate>>
  refusals(filter: RefusalFilter, page: PageRequest): Promise<Page<RefusalRecord>>
  events(filter: EventFilter, page: PageRequest): Promise<Page<EventRecord>>
  /** How many refusals were counted and not kept, of whatever kind, in the minutes that the span touches. */
  refusalsCounted(filter: Pick<RefusalFilter, 'principal' | 'after' | 'before'>): Promise<number>
  /** When the oldest month began that is not dropped: of what came before, nothing is found any more. */
  keptFrom(records: 'refusals' | 'accesses'): Promise<Date>
  authorities(): Promise<readonly string[]>
  /** As they were within the last second; `fresh`: as they are now, though it is asked at most ten times a second. */
  issuers(as?: 'fresh'): Promise<readonly IssuerRecord[]>
}
