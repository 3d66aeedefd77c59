/**
 * The search for certificates. Its filter alone gives the order: names below a suffix, expiry, or the log, newest first.
 * PostgreSQL chooses the index: each filter has one that ends in the entry (docs/auditing.md).
 */
import type { CertificateFilter, CertificateText, FoundCertificate, Start, Walk } from '../../ca/records.ts'
import type { Database } from '../database.ts'
import { isOneName, keysFor, type NameRange, nameRange } from '../names.ts'
import { newestRevocationAt } from '../revocations.ts'
import { hasEndedBy, isLivingAt } from '../validity.ts'
import { originBeside, type TextRow, textColumns, textOf } from './certificate-text.ts'
import {
  beginSearch,
  type Conditions,
  conditionsOf,
  isStorable,
  isWhole,
  type Keyset,
  type Parameter,
  within,
} from './pages.ts'
import { openWalk } from './walk.ts'

export interface SearchDeps {
  readonly db: Database
  /** The names as they are kept. */
  readonly namesOf: (bytes: Buffer) => FoundCertificate['names']
}

export const walkCertificates = async <T>(
  deps: SearchDeps,
  filter: CertificateFilter,
  start: Start = {},
  itemOf: (text: CertificateText) => T,
): Promise<Walk<T>> => {
  const order = orderOf(filter)
  const span = { after: filter.issuedAfter, before: filter.issuedBefore }
  const asking = { records: 'certificates', filter, start }
  const begun = await beginSearch(deps.db, { ...asking, span }, order.shape)
  const { low, bounds } = begun
  const size = (p: Parameter): string => `${p(bounds.size)}::bigint`
  const time = (p: Parameter): string => `${p(bounds.time)}::timestamptz`
  const matching = (p: Parameter, high: number): string =>
    certificatesWhere(filter, p, {
      among: (column) => within(column, { low, high }, p),
      size: () => size(p),
      time: () => time(p),
      namesFor: keysFor,
    })
  return openWalk<TextRow, T>({
    db: deps.db,
    begun,
    asking,
    range: { from: low, before: begun.high },
    page: (after, limit, p) => `
      select ${textColumns(time(p))}, c.key
      from (select c.*, ${order.key} as key ${matching(p, order.highOf(after, begun.high))}${order.behind(after, p)}
        order by ${order.by} limit ${limit}) c
      ${originBeside} ${newestRevocationAt(size(p))}
      order by ${order.by}`,
    all: (p) => `select ${matching(p, begun.high)}`,
    keysetOf: order.keysetOf,
    item: (row) => itemOf(textOf(row, deps.namesOf)),
  })
}

// Orders ----------------------------------------------------------------------------------------------------------------

interface Order {
  /** Tests each part of a keyset that a cursor brings. */
  readonly shape: readonly ((part: unknown) => boolean)[]
  readonly key: string
  readonly by: string
  readonly highOf: (after: Keyset | undefined, high: number) => number
  readonly behind: (after: Keyset | undefined, p: Parameter) => string
  readonly keysetOf: (row: TextRow) => Keyset
}

const orderOf = (filter: CertificateFilter): Order => {
  if (isStorable(filter.name) && !isOneName(nameRange(filter.name))) return byName
  return isByExpiry(filter) ? byExpiry : byEntry
}

/** Serial, row, key, name, subject and revocation leave few, which are found along the log. */
const isByExpiry = (filter: CertificateFilter): boolean =>
  (filter.expiresAfter ?? filter.expiresBefore ?? (filter.status === 'valid' || filter.status === 'expired')) &&
  [filter.serial, filter.row, filter.key, filter.name, filter.subject, filter.revokedAfter, filter.revokedBefore].every(
    (value) => value === undefined,
  )

/** Newest first. */
const byEntry: Order = {
  shape: [isWhole],
  key: 'null',
  by: 'entry desc',
  highOf: (after, high) => Math.min(high, Number(after?.[0] ?? high)),
  behind: () => '',
  keysetOf: ({ entry }) => [entry],
}

/** By the first name below the suffix, and those of one name newest first. */
const byName: Order = {
  shape: [isStorable, isWhole],
  key: 'n.name',
  by: 'key, entry desc',
  highOf: (_after, high) => high,
  // The first condition enters the index.
  behind: ([name, entry] = [], p) =>
    name === undefined ? '' : ` and n.name >= ${p(name)} and (n.name > ${p(name)} or n.entry < ${p(entry)}::bigint)`,
  keysetOf: ({ key, entry }) => [String(key), entry],
}

/** Soonest first, and of those that expire together the one that was issued first. */
const byExpiry: Order = {
  shape: [isWhole, isWhole],
  key: 'c.not_after',
  by: 'key, entry',
  highOf: (_after, high) => high,
  behind: ([time, entry] = [], p) =>
    time === undefined
      ? ''
      : ` and (c.not_after, c.entry) > (timestamptz 'epoch' + ${p(time)}::bigint * interval '1 ms', ${p(entry)}::bigint)`,
  keysetOf: ({ key, entry }) => [(key as Date).getTime(), entry],
}

// Filters ---------------------------------------------------------------------------------------------------------------

/** What a search is bound to, as SQL. Each call adds its values to the statement. */
export interface SearchBounds {
  readonly among: (column: string) => string
  readonly size: () => string
  readonly time: () => string
  /** The names, as they are kept, that an exact name finds. */
  readonly namesFor: (range: NameRange) => readonly string[]
}

/** `from … where …`: each certificate `c` of a search once, and `n` its first name below a suffix. */
export const certificatesWhere = (filter: CertificateFilter, p: Parameter, bounds: SearchBounds): string => {
  const where = ["c.kind = 'certificate'", bounds.among('c.entry'), ...conditionsOf(conditions(bounds), filter, p)]
  const names =
    filter.name === undefined ? '' : `join (${namesOfSearch(nameRange(filter.name), p, bounds)}) n on n.entry = c.entry`
  return `from outcomes c ${names} where ${where.join(' and ')}`
}

/** Each filter adds one condition. Spans of issue time are a range of entries, and names are joined. */
const conditions = (
  bounds: SearchBounds,
): Conditions<Omit<CertificateFilter, 'name' | 'issuedAfter' | 'issuedBefore'>> => ({
  serial: (value, p) => `c.serial = decode(${p(value)}, 'hex')`,
  row: (value, p) => `c.serial = any (array(select row_of(decode(${p(value)}, 'hex'))))`,
  // The index holds the first 128 characters of those that are not empty.
  subject: (value, p) =>
    value === ''
      ? `c.subject = ''`
      : `left(c.subject, 128) collate "C" = left(${p(value)}, 128) and c.subject = ${p(value)} and c.subject <> ''`,
  profile: (value, p) => `c.profile = ${p(value)}`,
  principal: (value, p) => `c.principal = ${p(value)}`,
  issuer: (value, p) => `c.issuer = ${p(value)}`,
  key: (value, p) => `c.key_sha256 = decode(${p(value)}, 'hex')`,
  status: (value) => statusConditions[value](bounds),
  expiresAfter: (value, p) => `c.not_after >= ${p(value)}`,
  expiresBefore: (value, p) => `c.not_after < ${p(value)}`,
  revokedAfter: (value, p) => isRevoked(bounds, ` and v.revoked_at >= ${p(value)}`),
  revokedBefore: (value, p) => isRevoked(bounds, ` and v.revoked_at < ${p(value)}`),
  originNamespace: (value, p) => `c.origin_namespace = ${p(value)}`,
  originUser: (value, p) => `c.origin_user = ${p(value)}`,
  originObject: (value, p) => `c.origin_object = ${p(value)}`,
})

/** The newest change of a certificate is a revocation. A set, so that few revocations can lead the search. */
const isRevoked = ({ size, among }: SearchBounds, and = ''): string => `c.entry in (
    select v.certificate from revocations v
    where v.change = 'revoked' and v.entry < ${size()} and ${among('v.certificate')}${and}
      and not exists (select from revocations n where n.serial = v.serial and n.entry > v.entry and n.entry < ${size()}))`

/** The same, looked up for each certificate. */
const isNotRevoked = ({ size }: SearchBounds): string => `not exists (
    select from (select change from revocations where certificate = c.entry and entry < ${size()} order by entry + 0 desc limit 1) r
    where r.change = 'revoked')`

const statusConditions: Readonly<Record<FoundCertificate['status'], (bounds: SearchBounds) => string>> = {
  valid: (bounds) => `${isLivingAt('c.not_after', bounds.time())} and ${isNotRevoked(bounds)}`,
  expired: (bounds) => `${hasEndedBy('c.not_after', bounds.time())} and ${isNotRevoked(bounds)}`,
  revoked: isRevoked,
}

/** The names `n` of a search, one for each certificate: an exact name or its wildcard, or the first DNS name below a suffix. */
const namesOfSearch = (range: NameRange, p: Parameter, { among, namesFor }: SearchBounds): string => {
  const list = (condition: string): string =>
    `select m.name, m.entry from certificate_names m where ${condition} and ${among('m.entry')}`
  // A look-up for each: what must not exist the planner may read as a whole.
  const without = (condition: string): string =>
    ` and (select true from certificate_names o where o.kind = 'dns' and o.entry = m.entry and ${condition} limit 1) is null`
  if (!isOneName(range)) {
    const [low, high] = [p(range.low), p(range.high)]
    const below = `m.kind = 'dns' and m.name >= ${low} and m.name < ${high}`
    return `${list(below)}${without(`o.name >= ${low} and o.name < m.name`)}`
  }
  const [name, wildcard] = namesFor(range).map(p)
  const ofName = list(`m.name = ${name}`)
  if (wildcard === undefined) return ofName
  // In order each, so that they are merged and not read as a whole.
  const sorted = 'order by m.entry desc'
  return `(${ofName} ${sorted}) union all (${list(`m.name = ${wildcard}`)}${without(`o.name = ${name}`)} ${sorted})`
}
