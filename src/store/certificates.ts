/** The search for certificates, in the order of the roll or along their names. */
import type { CertificateFilter, CertificateRecord, IssuerRecord, Page, PageRequest } from '../ca/records.ts'
import { formatIp, parseIp } from '../x509/addresses.ts'
import type { Database } from './database.ts'
import { issuerRowOf, type StoredIssuer, selectIssuers } from './issuers.ts'
import { reversed, searchKey } from './names.ts'
import {
  type Conditions,
  conditionsOf,
  isStorable,
  isWhole,
  type Keyset,
  openParameters,
  type Parameter,
  pageOf,
  pageTurns,
  readCursor,
  writeCursor,
} from './pages.ts'
import { newestRevocation, type RevocationRow, revocationColumns, revocationOf } from './revocations.ts'
import type { EntryCodec } from './roll.ts'

export interface RecordsDeps {
  readonly db: Database
  readonly codec: EntryCodec
  /** The names in a certificate, read from it rather than kept twice. */
  readonly namesOf: (certificate: Buffer) => CertificateRecord['names']
  /** What goes along with what this issuer has signed. */
  readonly sentAlong: (issuer: IssuerRecord) => readonly Buffer[]
}

interface CertificateRow extends RevocationRow {
  readonly serial: Buffer
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly entry: number
  readonly principal: string
  readonly profile: string
  readonly profile_version: number
  readonly issuer: string
  readonly subject: string
  readonly key_sha256: Buffer
  readonly not_before: Date
  readonly not_after: Date
  readonly issued_at: Date
  readonly expired: boolean
  readonly name: string | null
}

/** Each filter adds one condition on columns of `certificates c`, by parameter; spans of issue time are `boundsOf`. */
const certificateConditions: Conditions<CertificateFilter> = {
  serial: (value, p) => `c.serial = decode(${p(value)}, 'hex')`,
  name: () => undefined,
  // Those with a subject are in the index only if its own words stand here.
  subject: (value, p) => (value === '' ? `c.subject = ''` : `c.subject = ${p(value)} and c.subject <> ''`),
  profile: (value, p) => `c.profile = ${p(value)}`,
  principal: (value, p) => `c.principal = ${p(value)}`,
  issuer: (value, p) => `c.issuer = ${p(value)}`,
  key: (value, p) => `c.key_sha256 = decode(${p(value)}, 'hex')`,
  status: (value) => statusConditions[value],
  issuedAfter: () => undefined,
  issuedBefore: () => undefined,
  expiresAfter: (value, p) => `c.not_after >= ${p(value)}`,
  expiresBefore: (value, p) => `c.not_after < ${p(value)}`,
  revokedAfter: (value, p) => isRevoked(` and r.revoked_at >= ${p(value)}`),
  revokedBefore: (value, p) => isRevoked(` and r.revoked_at < ${p(value)}`),
}

/** The newest change of a certificate is no release, and is what else is said of `r`. */
const isRevoked = (and = ''): string => `exists (
    select from (select * from revocations where serial = c.serial order by entry desc limit 1) r
    where r.change = 'revoked'${and})`

const statusConditions: Readonly<Record<CertificateRecord['status'], string>> = {
  valid: `c.not_after >= now() and not ${isRevoked()}`,
  expired: `c.not_after < now() and not ${isRevoked()}`,
  revoked: isRevoked(),
}

/** A row with what was read from its certificate, once. */
interface FoundCertificate {
  readonly row: CertificateRow
  readonly certificate: Buffer
  readonly names: CertificateRecord['names']
}

/**
 * A certificate with several names below a suffix is found once, by the first of them, so more may be read than shown.
 * Rows come by name: of a certificate's rows in one search only the first can be that of its first name.
 */
export const searchCertificates = async (
  deps: RecordsDeps,
  filter: CertificateFilter,
  { limit, cursor }: PageRequest,
): Promise<Page<CertificateRecord>> => {
  const range = isStorable(filter.name) ? nameRange(filter.name) : undefined
  let after = readCursor(cursor, filter, range ? [isStorable, isWhole] : [isWhole])
  const found: FoundCertificate[] = []
  const seen = new Set<number>()
  const turn = pageTurns()
  for (;;) {
    const rows = await selectCertificates(deps, { filter, range, after }, limit + 1)
    for (const row of rows) {
      if (seen.has(row.entry)) continue
      await turn()
      const read = readFound(deps, row)
      const first = range ? firstName(read, range) : row.name
      // A name of another kind that looks as if it were below the suffix; the certificate's first may come yet.
      if (row.name !== null && first !== null && row.name < first) continue
      seen.add(row.entry)
      if (row.name === first) found.push(read)
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length <= limit || found.length > limit) break
    after = keysetOf(last)
  }
  // After the rows, so that the issuer of each is among them.
  const issuers = (await deps.db.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)
  const chains = new Map(issuers.map((issuer) => [issuer.name, deps.sentAlong(issuer)]))
  return pageOf(found, limit, {
    item: (one) => certificateOf(one, chains.get(one.row.issuer) ?? []),
    cursor: ({ row }) => writeCursor(keysetOf(row), filter),
  })
}

const readFound = ({ codec, namesOf }: RecordsDeps, row: CertificateRow): FoundCertificate => {
  const certificate = codec.certificate(row.tbs, row.signature)
  return { row, certificate, names: namesOf(certificate) }
}

const keysetOf = ({ name, entry }: CertificateRow): Keyset => (name === null ? [entry] : [name, entry])

interface CertificateQuery {
  readonly filter: CertificateFilter
  readonly range: NameRange | undefined
  readonly after: Keyset | undefined
}

const selectCertificates = async (
  { db }: RecordsDeps,
  query: CertificateQuery,
  limit: number,
): Promise<readonly CertificateRow[]> => {
  const { p, values } = openParameters()
  const { from, order, conditions } = query.range ? alongNames(query, query.range, p) : alongRoll(query, p)
  const text = `
    with page as (
      select ${from}
      where ${conditions.join(' and ')}
      order by ${order}
      limit ${limit}
    )
    select c.*, c.not_after < now() as expired, i.tbs, i.profile_version, o.signature,
      ${revocationColumns}
    from page c join intents i on i.serial = c.serial join outcomes o on o.serial = c.serial ${newestRevocation}
    order by ${query.range ? 'c.name, c.entry desc' : 'c.entry desc'}`
  return (await db.query<CertificateRow>({ text }, values)).rows
}

interface Walk {
  readonly from: string
  readonly order: string
  readonly conditions: readonly string[]
}

/**
 * Newest first. Where a lead is given, its index goes on by the roll, and is walked backwards between two of its rows. Not
 * by `=`: the planner would then take the roll's own order to be as good, and read through all of the newer certificates
 * whenever it guesses that one of the lead's is to be found soon.
 */
const alongRoll = ({ filter, after }: CertificateQuery, p: Parameter): Walk => {
  const [low, high] = boundsOf(filter, after?.[0], p)
  const from = 'c.*, null::text as name from certificates c'
  if (filter.status === 'revoked' || filter.revokedAfter || filter.revokedBefore)
    return alongRevocations(filter, [low, high], p)
  for (const { field, column, keyOf, isWholeKey } of leads) {
    const value = filter[field]
    if (!isStorable(value) || value === '') continue
    const key = keyOf(`${p(value)}::text`)
    const others = isWholeKey(value) ? { ...filter, [field]: undefined } : filter
    return {
      from,
      order: `${column} desc, c.entry desc`,
      conditions: [
        `(${column}, c.entry) >= (${key}, ${low})`,
        `(${column}, c.entry) < (${key}, ${high})`,
        ...(field === 'subject' ? [`c.subject <> ''`] : []),
        ...conditionsOf(certificateConditions, others, p),
      ],
    }
  }
  return {
    from,
    order: 'c.entry desc',
    conditions: [`c.entry >= ${low}`, `c.entry < ${high}`, ...conditionsOf(certificateConditions, filter, p)],
  }
}

/** Those that are revoked are few, and have an index of their own: by it, what else is asked is looked at last. */
const alongRevocations = (filter: CertificateFilter, [low, high]: readonly [string, string], p: Parameter): Walk => ({
  from: 'c.*, null::text as name from revocations v join certificates c on c.entry = v.certificate',
  order: 'v.certificate desc',
  conditions: [
    `v.certificate >= ${low}`,
    `v.certificate < ${high}`,
    'not exists (select from revocations n where n.serial = v.serial and n.entry > v.entry)',
    ...conditionsOf(certificateConditions, filter, p),
  ],
})

/** By name, and those of a name newest first. */
const alongNames = ({ filter, after }: CertificateQuery, { low, high }: NameRange, p: Parameter): Walk => {
  const isOne = low === high
  const [from, to] = boundsOf(filter, isOne ? after?.[1] : undefined, p)
  return {
    from: 'c.*, n.name from certificate_names n join certificates c on c.entry = n.entry',
    order: 'n.name, n.entry desc',
    conditions: [
      isOne ? `n.name = ${p(low)}` : `n.name >= ${p(low)} and n.name < ${p(high)}`,
      `n.entry >= ${from}`,
      `n.entry < ${to}`,
      ...(after && !isOne ? afterName(after, p) : []),
      ...conditionsOf(certificateConditions, filter, p),
    ],
  }
}

/** What comes behind a name and an entry: the first condition is where the index is entered, the other what it passes by. */
const afterName = ([name, entry]: Keyset, p: Parameter): readonly string[] => {
  const [last, at] = [p(name), `${p(entry)}::bigint`]
  return [`n.name >= ${last}`, `(n.name > ${last} or n.entry < ${at})`]
}

/** The entries among which to search: a span of time is a range of the roll, and so is what a page leaves. */
const boundsOf = (
  { issuedAfter, issuedBefore }: CertificateFilter,
  after: string | number | undefined,
  p: Parameter,
): readonly [low: string, high: string] => {
  // A statement of its own, or it would be looked for again at each row.
  const entryFrom = (time: Date): string => `(select first_entry_from(${p(time)}::timestamptz))`
  return [
    issuedAfter ? entryFrom(issuedAfter) : '0',
    `least(${after === undefined ? 'null' : `${p(after)}::bigint`}, ${issuedBefore ? entryFrom(issuedBefore) : beyondRoll})`,
  ]
}

/**
 * What all certificates of a search have in common, of those before an entry: for statements over `certificates c` that look
 * at all of them, in whatever order.
 */
export const setConditions = (filter: CertificateFilter, before: number, p: Parameter): readonly string[] => {
  const [low, high] = boundsOf(filter, before, p)
  return [
    `c.entry >= ${low}`,
    `c.entry < ${high}`,
    ...(isStorable(filter.name) ? [isNamed(nameRange(filter.name), p)] : []),
    ...conditionsOf(certificateConditions, filter, p),
  ]
}

/** Below a suffix there are DNS names only. */
const isNamed = ({ low, high }: NameRange, p: Parameter): string =>
  `c.entry in (select n.entry from certificate_names n where ${
    low === high ? `n.name = ${p(low)}` : `n.kind = 'dns' and n.name >= ${p(low)} and n.name < ${p(high)}`
  })`

interface Lead {
  readonly field: 'subject' | 'principal' | 'profile' | 'issuer'
  readonly column: string
  readonly keyOf: (value: string) => string
  /** Whether the index alone tells that a certificate has this value. */
  readonly isWholeKey: (value: string) => boolean
}

/** The filters whose index goes on by the roll: what narrows most comes first. */
const leads: readonly Lead[] = [
  {
    field: 'subject',
    column: 'left(c.subject, 128) collate "C"',
    keyOf: (value) => `left(${value}, 128)`,
    isWholeKey: (value) => [...value].length < 128,
  },
  ...(['principal', 'profile', 'issuer'] as const).map((field) => ({
    field,
    column: `c.${field}`,
    keyOf: (value: string) => value,
    isWholeKey: () => true,
  })),
]
const beyondRoll = '9223372036854775807::bigint'

/** The first name of a certificate in the range, as it is kept; below a suffix there are DNS names only. '': none. */
const firstName = ({ names }: FoundCertificate, { low, high }: NameRange): string =>
  names
    .filter(({ kind }) => low === high || kind === 'dns')
    .map(searchKey)
    .filter((name) => name === low || (name > low && name < high))
    .sort()[0] ?? ''

const certificateOf = (
  { row, certificate, names }: FoundCertificate,
  chain: CertificateRecord['chain'],
): CertificateRecord => {
  const revocation = revocationOf(row)
  return {
    serial: row.serial.toString('hex'),
    certificate,
    chain,
    profile: { name: row.profile, version: row.profile_version },
    principal: row.principal,
    issuer: row.issuer,
    subject: row.subject,
    names,
    keySha256: row.key_sha256.toString('hex'),
    notBefore: row.not_before,
    notAfter: row.not_after,
    issuedAt: row.issued_at,
    index: row.entry,
    status: revocation ? 'revoked' : row.expired ? 'expired' : 'valid',
    revocation,
  }
}

interface NameRange {
  readonly low: string
  /** Itself left out, unless it is `low`: then that one name is meant. */
  readonly high: string
}

/** One name, or all below a suffix: labels are reversed, so that these are one range (`com.example.` to `com.example/`). */
const nameRange = (name: string): NameRange => {
  const wanted = name.toLowerCase()
  if (wanted.startsWith('*.')) return { low: `${reversed(wanted.slice(2))}.`, high: `${reversed(wanted.slice(2))}/` }
  const key = exactKey(name)
  return { low: key, high: key }
}

/** A name in the normal form in which it is kept, whatever kind it is. */
const exactKey = (name: string): string => {
  const address = parseIp(name)
  if (address) return formatIp(address)
  if (/[:/]/.test(name)) return name
  const at = name.lastIndexOf('@')
  return at < 0 ? reversed(name.toLowerCase()) : name.slice(0, at) + name.slice(at).toLowerCase()
}
