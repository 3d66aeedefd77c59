/** What auditors read. Every search walks an index and stops at its page. */
import type {
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
import type { CheckResult } from '../policy/checks.ts'
import type { CertificateIssued } from '../roll/entries.ts'
import { type RecordsDeps, searchCertificates } from './certificates.ts'
import { issuerRowOf, type StoredIssuer, selectIssuers } from './issuers.ts'
import {
  type Conditions,
  conditionsOf,
  isUuid,
  isWhole,
  openParameters,
  pageOf,
  readCursor,
  writeCursor,
} from './pages.ts'

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

/** Issuers change a few times a year, and anyone may ask for them: they are read at most once a second. */
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
  readonly checks: readonly CheckResult[] | null
  readonly checks_left_out: number
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
    select id, at, (extract(epoch from at) * 1000000)::bigint as at_exact, principal, profile, code, detail, digest,
      violations, checks, checks_left_out
    from refusals
    where ${conditions.join(' and ') || 'true'}
    order by at desc, id desc limit ${page.limit + 1}`
  const { rows } = await db.query<RefusalRow>({ text }, values)
  return pageOf(rows, page.limit, {
    item: ({ digest, at_exact: _, checks_left_out: checksLeftOut, ...row }) => ({
      ...row,
      digest: digest.toString('hex'),
      checksLeftOut,
    }),
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
  serial: (value, p) => {
    const serial = p(value)
    return `e.index in (select entry from outcomes where serial = decode(${serial}, 'hex')
      union select entry from revocations where serial = decode(${serial}, 'hex'))`
  },
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

const issuersMs = 1_000
const selectAuthorities = { text: 'select name from authorities order by name' }
