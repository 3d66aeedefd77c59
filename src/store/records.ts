/** What auditors read. Every search walks an index and stops at its page; cursors are keysets, bound to their filter. */
import { createHash } from 'node:crypto'
import { setImmediate as nextRound } from 'node:timers/promises'

import type {
  CertificateFilter,
  CertificateRecord,
  EventFilter,
  EventRecord,
  IssuerRecord,
  Page,
  PageRequest,
  Records,
  RefusalFilter,
  RefusalRecord,
} from '../ca/records.ts'
import { Problem, type Violation } from '../errors.ts'
import type { CertificateIssued } from '../roll/entries.ts'
import { formatIp, parseIp } from '../x509/addresses.ts'
import type { Database } from './database.ts'
import { issuerRowOf, type StoredIssuer, selectIssuers } from './issuers.ts'
import { reversed, searchKey } from './names.ts'
import type { EntryCodec } from './roll.ts'

export interface RecordsDeps {
  readonly db: Database
  readonly codec: EntryCodec
  /** The names in a certificate, read from it rather than kept twice. */
  readonly namesOf: (certificate: Buffer) => CertificateRecord['names']
}

export const openRecords = (deps: RecordsDeps): Records => ({
  certificate: async (serial) => {
    const { items } = await searchCertificates(deps, { serial }, { limit: 1 })
    const [record] = items
    if (!record) throw new Problem('certificate.not_found', `There is no certificate with serial ${serial}.`)
    return record
  },
  certificates: (filter, page) => searchCertificates(deps, filter, page),
  refusals: (filter, page) => searchRefusals(deps, filter, page),
  events: (filter, page) => searchEvents(deps, filter, page),
  authorities: async () => (await deps.db.query<{ name: string }>(selectAuthorities)).rows.map((row) => row.name),
  issuers: openIssuersCache(deps),
})

/** Issuers change a few times a year, and anyone may ask for them: they are read at most once in some seconds. */
const openIssuersCache = ({ db }: RecordsDeps): Records['issuers'] => {
  let known: Promise<readonly IssuerRecord[]> | undefined
  let until = 0
  const read = async (): Promise<readonly IssuerRecord[]> =>
    (await db.query<StoredIssuer>(selectIssuers)).rows.map((row) => issuerRowOf(row))
  return () => {
    if (known && performance.now() < until) return known
    const reading = read()
    known = reading
    until = performance.now() + issuersMs
    reading.catch(() => {
      if (known === reading) known = undefined
    })
    return reading
  }
}

// Certificates --------------------------------------------------------------------------------------------------------

interface CertificateRow {
  readonly serial: Buffer
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly entry: number
  readonly principal: string
  readonly profile: string
  readonly profile_version: number
  readonly issuer: string
  readonly issuer_certificate: Buffer
  readonly issuer_chain: readonly Buffer[]
  readonly subject: string
  readonly key_sha256: Buffer
  readonly not_before: Date
  readonly not_after: Date
  readonly issued_at: Date
  readonly expired: boolean
  readonly name: string | null
}

/** Each filter adds one condition on columns of `certificates c`, by parameter. */
const certificateConditions: Conditions<CertificateFilter> = {
  serial: (value, p) => `c.serial = decode(${p(value)}, 'hex')`,
  name: () => undefined,
  // As the index is written: in the "C" collation, and without those whose subject is empty.
  subject: (value, p) => (value === '' ? `c.subject = ''` : `c.subject collate "C" = ${p(value)} and c.subject <> ''`),
  profile: (value, p) => `c.profile = ${p(value)}`,
  principal: (value, p) => `c.principal = ${p(value)}`,
  issuer: (value, p) => `c.issuer = ${p(value)}`,
  key: (value, p) => `c.key_sha256 = decode(${p(value)}, 'hex')`,
  status: (value) => statusConditions[value],
  issuedAfter: (value, p) => `c.issued_at >= ${p(value)}`,
  issuedBefore: (value, p) => `c.issued_at < ${p(value)}`,
  expiresAfter: (value, p) => `c.not_after >= ${p(value)}`,
  expiresBefore: (value, p) => `c.not_after < ${p(value)}`,
}

const statusConditions: Readonly<Record<CertificateRecord['status'], string>> = {
  valid: 'c.not_after >= now()',
  expired: 'c.not_after < now()',
  revoked: 'false',
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
const searchCertificates = async (
  deps: RecordsDeps,
  filter: CertificateFilter,
  { limit, cursor }: PageRequest,
): Promise<Page<CertificateRecord>> => {
  const range = isStorable(filter.name) ? nameRange(filter.name) : undefined
  let after = readCursor(cursor, filter, range ? [isStorable, isWhole] : [isWhole])
  const found: FoundCertificate[] = []
  const seen = new Set<number>()
  const turn = openTurns()
  for (;;) {
    const rows = await selectCertificates(deps, { filter, range, after }, limit + 1)
    for (const row of rows) {
      if (seen.has(row.entry)) continue
      seen.add(row.entry)
      await turn()
      const read = readFound(deps, row)
      if (range === undefined || firstName(read, range) === row.name) found.push(read)
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length <= limit || found.length > limit) break
    after = keysetOf(last)
  }
  return pageOf(found, limit, {
    item: certificateOf,
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
  { filter, range, after }: CertificateQuery,
  limit: number,
): Promise<readonly CertificateRow[]> => {
  const { p, values } = openParameters()
  const conditions = conditionsOf(certificateConditions, filter, p)
  if (range)
    conditions.push(
      range.low === range.high ? `n.name = ${p(range.low)}` : `n.name >= ${p(range.low)} and n.name < ${p(range.high)}`,
    )
  if (after)
    conditions.push(
      range ? `(n.name, -n.entry) > (${p(after[0])}, -(${p(after[1])}::bigint))` : `c.entry < ${p(after[0])}::bigint`,
    )
  const text = `
    with page as (
      select c.*${range ? ', n.name' : ', null::text as name'}
      from ${range ? 'certificate_names n join certificates c on c.serial = n.serial' : 'certificates c'}
      where ${conditions.join(' and ') || 'true'}
      order by ${range ? 'n.name, n.entry desc' : 'c.entry desc'}
      limit ${limit}
    )
    select page.*, page.not_after < now() as expired, i.tbs, i.profile_version, o.signature,
      s.certificate as issuer_certificate, s.chain as issuer_chain
    from page join intents i on i.serial = page.serial join outcomes o on o.serial = page.serial
      join issuers s on s.name = page.issuer
    order by ${range ? 'page.name, page.entry desc' : 'page.entry desc'}`
  return (await db.query<CertificateRow>({ text }, values)).rows
}

/** The first name of a certificate in the range, as it is kept. */
const firstName = ({ names }: FoundCertificate, { low, high }: NameRange): string =>
  names
    .map(searchKey)
    .filter((name) => name === low || (name > low && name < high))
    .sort()[0] ?? ''

const certificateOf = ({ row, certificate, names }: FoundCertificate): CertificateRecord => ({
  serial: row.serial.toString('hex'),
  certificate,
  chain: [row.issuer_certificate, ...row.issuer_chain.slice(0, -1)],
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
  status: row.expired ? 'expired' : 'valid',
})

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

// Refusals ------------------------------------------------------------------------------------------------------------

interface RefusalRow {
  readonly id: string
  readonly at: Date
  /** Microseconds since 1970: a Date would lose three digits. */
  readonly at_exact: number
  readonly principal: string
  readonly profile: string | null
  readonly code: string
  readonly detail: string
  readonly digest: Buffer
  readonly violations: readonly Violation[]
}

const refusalConditions: Conditions<RefusalFilter> = {
  principal: (value, p) => `principal = ${p(value)}`,
  profile: (value, p) => `profile = ${p(value)}`,
  code: (value, p) => `code = ${p(value)}`,
  after: (value, p) => `at >= ${p(value)}`,
  before: (value, p) => `at < ${p(value)}`,
}

const searchRefusals = async (
  { db }: RecordsDeps,
  filter: RefusalFilter,
  page: PageRequest,
): Promise<Page<RefusalRecord>> => {
  const { p, values } = openParameters()
  const conditions = conditionsOf(refusalConditions, filter, p)
  const after = readCursor(page.cursor, filter, [isWhole, isUuid])
  if (after)
    conditions.push(
      `(at, id) < (timestamptz 'epoch' + ${p(after[0])}::bigint * interval '1 microsecond', ${p(after[1])}::uuid)`,
    )
  const text = `
    select id, at, (extract(epoch from at) * 1000000)::bigint as at_exact, principal, profile, code, detail, digest, violations from refusals
    where ${conditions.join(' and ') || 'true'}
    order by at desc, id desc limit ${page.limit + 1}`
  const { rows } = await db.query<RefusalRow>({ text }, values)
  return pageOf(rows, page.limit, {
    item: ({ digest, at_exact: _, ...row }) => ({ ...row, digest: digest.toString('hex') }),
    cursor: (row) => writeCursor([row.at_exact, row.id], filter),
  })
}

// Events --------------------------------------------------------------------------------------------------------------

interface EventRow {
  readonly index: number
  readonly time: Date
  readonly leaf_hash: Buffer
  readonly body: string | null
  readonly serial: Buffer | null
  readonly tbs: Buffer | null
  readonly signature: Buffer | null
  readonly plan: Buffer
  readonly issuer: string
  readonly profile: string
  readonly profile_version: number
  readonly principal: string
  readonly digest: Buffer
}

const eventConditions: Conditions<EventFilter> = {
  type: (value, p) => `e.type = ${p(value)}`,
  serial: (value, p) => `e.index = (select entry from outcomes where serial = decode(${p(value)}, 'hex'))`,
  fromIndex: (value, p) => `e.index >= ${p(value)}::bigint`,
}

const searchEvents = async (deps: RecordsDeps, filter: EventFilter, page: PageRequest): Promise<Page<EventRecord>> => {
  const { p, values } = openParameters()
  const conditions = conditionsOf(eventConditions, filter, p)
  const after = readCursor(page.cursor, filter, [isWhole])
  if (after) conditions.push(`e.index > ${p(after[0])}::bigint`)
  const text = `
    select e.index, e.time, e.leaf_hash, e.body, e.serial, i.tbs, o.signature, i.plan, i.issuer, i.profile, i.profile_version,
      i.principal, i.digest
    from (select * from entries e where ${conditions.join(' and ') || 'true'} order by e.index limit ${page.limit + 1}) e
      left join intents i on e.body is null and i.serial = e.serial
      left join outcomes o on o.serial = i.serial
    order by e.index`
  const { rows } = await deps.db.query<EventRow>({ text }, values)
  return pageOf(rows, page.limit, {
    item: (row) => ({
      index: row.index,
      leafHash: row.leaf_hash.toString('hex'),
      entry: row.body ?? rebuild(deps, row),
    }),
    cursor: (row) => writeCursor([row.index], filter),
  })
}

/** An issuance's entry is not stored but put together again from the records; its leaf hash tells whether it is the same. */
const rebuild = ({ codec }: RecordsDeps, row: EventRow): string => {
  if (!row.serial || !row.tbs || !row.signature)
    throw new Error(`entry ${row.index} has neither a body nor the records to rebuild it from`)
  const event: CertificateIssued = {
    type: 'certificate.issued',
    serial: row.serial.toString('hex'),
    certificate: codec.certificate(row.tbs, row.signature).toString('base64'),
    issuer: row.issuer,
    principal: row.principal,
    profile: { name: row.profile, version: row.profile_version },
    request: row.digest.toString('hex'),
    plan: row.plan.toString('hex'),
  }
  const { text, leafHash } = codec.entry(event, row.time)
  if (!leafHash.equals(row.leaf_hash)) throw new Error(`entry ${row.index} no longer hashes to its leaf`)
  return text
}

// Pages ---------------------------------------------------------------------------------------------------------------

type Parameter = (value: unknown) => string
type Conditions<F> = { readonly [K in keyof F]-?: (value: NonNullable<F[K]>, p: Parameter) => string | undefined }

const openParameters = (): { readonly values: unknown[]; readonly p: Parameter } => {
  const values: unknown[] = []
  return { values, p: (value) => `$${values.push(value)}` }
}

const conditionsOf = <F extends object>(table: Conditions<F>, filter: F, p: Parameter): string[] =>
  (Object.keys(filter) as (keyof F)[]).flatMap((field) => {
    const value = filter[field]
    if (typeof value === 'string' && !isStorable(value)) return 'false'
    const condition =
      value === undefined || value === null ? undefined : table[field](value as NonNullable<F[keyof F]>, p)
    return condition ?? []
  })

interface PageShape<Row, T> {
  readonly item: (row: Row) => T
  readonly cursor: (row: Row) => string
}

/** One row more than asked for tells whether there is a next page. */
const pageOf = async <Row, T>(
  rows: readonly Row[],
  limit: number,
  { item, cursor }: PageShape<Row, T>,
): Promise<Page<T>> => {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  const items: T[] = []
  const turn = openTurns()
  for (const row of shown) {
    await turn()
    items.push(item(row))
  }
  return rows.length > limit && last !== undefined ? { items, next: cursor(last) } : { items }
}

/** A page of a thousand takes a while: to be awaited between its rows, so that others have their turn. */
const openTurns = (): (() => Promise<void>) => {
  let since = performance.now()
  return async () => {
    if (performance.now() - since < turnMs) return
    await nextRound()
    since = performance.now()
  }
}

type Keyset = readonly (string | number)[]

const writeCursor = (keyset: Keyset, filter: object): string =>
  Buffer.from(JSON.stringify([tagOf(filter), ...keyset])).toString('base64url')

/**
 * Undefined without a cursor. Throws `request.cursor` for one that is not ours, or of other filters: whoever makes one up
 * gets no further than `shape`, one test for each part of the keyset.
 */
const readCursor = (
  cursor: string | undefined,
  filter: object,
  shape: readonly ((part: unknown) => boolean)[],
): Keyset | undefined => {
  if (cursor === undefined) return undefined
  const [tag, ...keyset] = decodeCursor(cursor)
  if (tag !== tagOf(filter)) throw new Problem('request.cursor', 'This cursor does not belong to these filters.')
  if (keyset.length === shape.length && shape.every((test, i) => test(keyset[i]))) return keyset as Keyset
  throw notOurs()
}

const decodeCursor = (cursor: string): readonly unknown[] => {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    if (Array.isArray(value)) return value
  } catch {
    // Told below, like every other cursor that is not ours.
  }
  throw notOurs()
}

const notOurs = (): Problem => new Problem('request.cursor', 'This is not a cursor of this service.')

const isWhole = (part: unknown): boolean => Number.isSafeInteger(part) && (part as number) >= 0
const isUuid = (part: unknown): boolean => typeof part === 'string' && uuidForm.test(part)
/** PostgreSQL's text holds no NUL and no lone surrogate, so nothing that is kept has one. */
const isStorable = (part: unknown): part is string =>
  typeof part === 'string' && !part.includes('\0') && part.isWellFormed()

const tagOf = (filter: object): string => {
  const set = Object.entries(filter).filter(([, value]) => value !== undefined)
  return createHash('sha256')
    .update(JSON.stringify(set.sort(([a], [b]) => (a < b ? -1 : 1))))
    .digest('base64url')
    .slice(0, 8)
}

const issuersMs = 5_000
const turnMs = 5
const selectAuthorities = { text: 'select name from authorities order by name' }
const uuidForm = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
