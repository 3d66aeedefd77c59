/** Certificates in the records: one by its serial, and what a search says of each that it finds. */
import type { Bounds, CertificateFilter, CertificateRecord, FoundCertificate, IssuerRecord } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import type { Database } from '../database.ts'
import { issuerRowOf, type StoredIssuer, selectIssuers } from '../issuers.ts'
import type { EntryCodec } from '../log.ts'
import { isOneName, type NameRange, nameRange } from '../names.ts'
import { readStoredOrigin } from '../origins.ts'
import { newestRevocation, type RevocationRow, revocationColumns, revocationOf } from '../revocations.ts'
import { hasEndedBy, isLivingAt } from '../validity.ts'
import { type Conditions, conditionsOf, isStorable, type Parameter } from './pages.ts'
import type { Shape } from './prepared.ts'

export interface RecordsDeps {
  readonly db: Database
  readonly codec: EntryCodec
  /** The names as they are kept, or those of a TBSCertificate or of its end from their identifier on. */
  readonly namesOf: (octets: Buffer, form: 'kept' | 'tbs') => FoundCertificate['names']
  /** What goes along with what this issuer has signed. */
  readonly sentAlong: (issuer: IssuerRecord) => readonly Buffer[]
}

export interface SearchDeps extends RecordsDeps {
  /** How many to look at in one statement. */
  readonly candidates: number
  readonly shape: Shape
}

interface CertificateRow extends RevocationRow {
  readonly serial: string
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly entry: number
  readonly principal: string
  readonly profile: string
  readonly profile_version: number
  readonly issuer: string
  readonly subject: string
  readonly key: string
  readonly not_before: Date
  readonly not_after: Date
  readonly issued_at: Date
  readonly expired: boolean
  /** As it is kept. */
  readonly origin: string | null
}

/** Throws `certificate.not_found`. */
export const readCertificate = async (deps: RecordsDeps, serial: string): Promise<CertificateRecord> => {
  const row = (await deps.db.query<CertificateRow>(selectCertificate, [serial])).rows[0]
  if (!row) throw new Problem('certificate.not_found', `There is no certificate with serial ${serial}.`)
  const issuers = (await deps.db.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)
  const issuer = issuers.find(({ name }) => name === row.issuer)
  return {
    ...foundOf(row, deps),
    certificate: deps.codec.certificate(row.tbs, row.signature),
    chain: issuer ? deps.sentAlong(issuer) : [],
  }
}

const selectCertificate = {
  name: 'select_certificate',
  text: `
    select encode(c.serial, 'hex') as serial, c.entry, c.principal, c.profile, c.issuer, c.subject, encode(c.key_sha256, 'hex') as key,
      c.not_before, c.not_after, c.at as issued_at, ${hasEndedBy('c.not_after', 'now()')} as expired, c.signature, i.tbs, i.profile_version, i.origin,
      ${revocationColumns}
    from outcomes c join intents i on i.serial = c.serial ${newestRevocation}
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}

/** Each filter adds one condition on columns of `c`, by parameter; spans of issue time are a range of entries. */
const conditions = (bounds: BoundPlaces): Conditions<CertificateFilter> => ({
  serial: (value, p) => `c.serial = decode(${p(value)}, 'hex')`,
  // By an array, which is made once and not for each of them.
  row: (value, p) => `c.serial = any (array(select row_of(decode(${p(value)}, 'hex'))))`,
  // The planner may not see that an exact name is a look-up for each.
  name: () => undefined,
  // Those with a subject are in the index only if its own words stand here.
  subject: (value, p) => (value === '' ? `c.subject = ''` : `c.subject = ${p(value)} and c.subject <> ''`),
  profile: (value, p) => `c.profile = ${p(value)}`,
  principal: (value, p) => `c.principal = ${p(value)}`,
  issuer: (value, p) => `c.issuer = ${p(value)}`,
  key: (value, p) => `c.key_sha256 = decode(${p(value)}, 'hex')`,
  status: (value) => statusConditions[value](bounds),
  issuedAfter: () => undefined,
  issuedBefore: () => undefined,
  expiresAfter: (value, p) => `c.not_after >= ${p(value)}`,
  expiresBefore: (value, p) => `c.not_after < ${p(value)}`,
  revokedAfter: (value, p) => isRevoked(bounds, ` and r.revoked_at >= ${p(value)}`),
  revokedBefore: (value, p) => isRevoked(bounds, ` and r.revoked_at < ${p(value)}`),
  originNamespace: (value, p) => `c.origin_namespace = ${p(value)}`,
  originUser: (value, p) => `c.origin_user = ${p(value)}`,
  originObject: (value, p) => `c.origin_object = ${p(value)}`,
})

/** Where the bounds of the search stand in its statement: only once they are asked for. */
export interface BoundPlaces {
  readonly size: string
  readonly time: string
}

export const placesOf = ({ size, time }: Bounds, p: Parameter): BoundPlaces => ({
  get size() {
    return `${p(size)}::bigint`
  },
  get time() {
    return `${p(time)}::timestamptz`
  },
})

/** The newest change of a certificate is no release, and is what else is said of `r`. */
const isRevoked = ({ size }: BoundPlaces, and = ''): string => `exists (
    select from (select * from revocations where serial = c.serial and entry < ${size} order by entry desc limit 1) r
    where r.change = 'revoked'${and})`

const statusConditions: Readonly<Record<FoundCertificate['status'], (bounds: BoundPlaces) => string>> = {
  valid: (bounds) => `${isLivingAt('c.not_after', bounds.time)} and not ${isRevoked(bounds)}`,
  expired: (bounds) => `${hasEndedBy('c.not_after', bounds.time)} and not ${isRevoked(bounds)}`,
  revoked: isRevoked,
}

/** What is to be looked at in each candidate `c`. */
export const restOf = (filter: CertificateFilter, bounds: BoundPlaces, p: Parameter): string =>
  conditionsOf(conditions(bounds), filter, p).join(' and ') || 'true'

/** That a candidate has one of these names, by a look-up: of what only has to exist the planner may read all there is. */
export const hasName = (names: readonly string[], p: Parameter): string =>
  `(select true from certificate_names n where n.name in (${names.map(p).join(', ')}) and n.entry = c.entry limit 1)`

/**
 * What all certificates of a search have in common, of those before an entry: for statements over `certificates c` that look
 * at all of them, in whatever order. An exact name is that very name, unless `named` says what else is found by it.
 */
export const setConditions = (
  filter: CertificateFilter,
  before: number,
  p: Parameter,
  named: (range: NameRange) => readonly string[] = ({ low }) => [low],
): readonly string[] => {
  const entryFrom = (time: Date): string => `(select first_entry_from(${p(time)}::timestamptz))`
  const size = `${p(before)}::bigint`
  return [
    `c.entry >= ${filter.issuedAfter ? entryFrom(filter.issuedAfter) : '0'}`,
    `c.entry < least(${size}, ${filter.issuedBefore ? entryFrom(filter.issuedBefore) : 'null'})`,
    ...(isStorable(filter.name) ? [isNamed(nameRange(filter.name), named, p)] : []),
    ...conditionsOf(conditions({ size, time: 'now()' }), filter, p),
  ]
}

/** Below a suffix there are DNS names only. */
const isNamed = (range: NameRange, named: (range: NameRange) => readonly string[], p: Parameter): string =>
  `c.entry in (select n.entry from certificate_names n where ${
    isOneName(range)
      ? `n.name in (${named(range).map(p).join(', ')})`
      : `n.kind = 'dns' and n.name >= ${p(range.low)} and n.name < ${p(range.high)}`
  })`

const foundOf = (row: CertificateRow, { namesOf }: Pick<RecordsDeps, 'namesOf'>): FoundCertificate => {
  const revocation = revocationOf(row)
  return {
    serial: row.serial,
    profile: { name: row.profile, version: row.profile_version },
    principal: row.principal,
    issuer: row.issuer,
    subject: row.subject,
    names: namesOf(row.tbs, 'tbs'),
    keySha256: row.key,
    notBefore: row.not_before,
    notAfter: row.not_after,
    issuedAt: row.issued_at,
    index: row.entry,
    status: revocation ? 'revoked' : row.expired ? 'expired' : 'valid',
    revocation,
    origin: readStoredOrigin(row.origin),
  }
}
