/** What auditors read. */
import { setTimeout as sleep } from 'node:timers/promises'

import type {
  CertificateRecord,
  IssuerRecord,
  OpenWalk,
  Page,
  PageRequest,
  Records,
  RefusalFilter,
  RefusalRecord,
} from '../../ca/records.ts'
import { Problem, type Violation } from '../../errors.ts'
import type { CheckResult } from '../../policy/check.ts'
import { issuerRowOf, type StoredIssuer, selectIssuers } from '../issuers.ts'
import type { EntryCodec } from '../log.ts'
import { readStoredOrigin } from '../origins.ts'
import { newestRevocation } from '../revocations.ts'
import { foundIn, originBeside, type TextRow, textColumns, textOf } from './certificate-text.ts'
import { type SearchDeps, walkCertificates } from './certificates.ts'
import { walkEvents } from './events.ts'
import { type TimedRow, type TimedTable, walkByTime } from './time-index.ts'

export interface RecordsDeps extends SearchDeps {
  readonly codec: EntryCodec
  /** What goes along with what this issuer has signed. */
  readonly sentAlong: (issuer: IssuerRecord) => readonly Buffer[]
}

export const openRecords = (deps: RecordsDeps): Records => {
  const walk: Records['walk'] = {
    certificates: (filter, start) => walkCertificates(deps, filter, start, foundIn),
    certificateTexts: (filter, start) => walkCertificates(deps, filter, start, (text) => text),
    refusals: (filter, start) => walkByTime(deps.db, refusals, filter, start),
    events: (filter, start) => walkEvents(deps, filter, start),
  }
  return {
    certificate: (serial) => readCertificate(deps, serial),
    walk,
    certificates: pageBy(walk.certificates),
    refusals: pageBy(walk.refusals),
    events: pageBy(walk.events),
    refusalsCounted: async ({ principal, after = null, before = null }) => {
      const [statement, values] =
        principal === undefined ? [selectCounted, [after, before]] : [selectCountedOf, [after, before, principal]]
      return (await deps.db.query<{ counted: number }>(statement, values)).rows[0]?.counted ?? 0
    },
    keptFrom: async (table) => {
      const { rows } = await deps.db.query<{ from: Date | null }>(selectKeptFrom, [table])
      // Nothing is dropped where no month has been made.
      return rows[0]?.from ?? new Date(0)
    },
    authorities: async () => (await deps.db.query<{ name: string }>(selectAuthorities)).rows.map((row) => row.name),
    issuers: openIssuersCache(deps),
  }
}

/** Throws `certificate.not_found`. */
const readCertificate = async (deps: RecordsDeps, serial: string): Promise<CertificateRecord> => {
  const row = (await deps.db.query<CertificateRow>(selectCertificate, [serial])).rows[0]
  if (!row) throw new Problem('certificate.not_found', `There is no certificate with serial ${serial}.`)
  const found = foundIn(textOf(row, deps.namesOf))
  const issuers = (await deps.db.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)
  const issuer = issuers.find(({ name }) => name === found.issuer)
  return {
    ...found,
    certificate: deps.codec.certificate(row.tbs, row.signature),
    chain: issuer ? deps.sentAlong(issuer) : [],
  }
}

interface CertificateRow extends TextRow {
  readonly tbs: Buffer
  readonly signature: Buffer
}

const selectCertificate = {
  name: 'select_certificate',
  text: `
    select ${textColumns('now()')}, c.signature, t.tbs
    from outcomes c join intents t on t.serial = c.serial ${originBeside} ${newestRevocation}
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}

const pageBy =
  <F, T>(open: OpenWalk<F, T>) =>
  async (filter: F, { limit, ...start }: PageRequest): Promise<Page<T>> =>
    (await open(filter, start)).page(limit)

/** Issuers change a few times a year, and anyone may ask for them: they are read at most once a second, or as `freshly` does. */
const openIssuersCache = ({ db }: RecordsDeps): Records['issuers'] => {
  let known: Promise<readonly IssuerRecord[]> | undefined
  let until = 0
  const read = (): Promise<readonly IssuerRecord[]> => {
    const reading = db.query<StoredIssuer>(selectIssuers).then(({ rows }) => rows.map((row) => issuerRowOf(row)))
    known = reading
    until = performance.now() + issuersMs
    reading.catch(() => {
      if (known === reading) known = undefined
    })
    return reading
  }
  const fresh = freshly(read, freshIssuersMs)
  return (as) => {
    if (as === 'fresh') return fresh()
    return known && performance.now() < until ? known : read()
  }
}

/** By reads that begin when those who wait for one have asked: one at a time, and no sooner than so long after the last began. */
const freshly = <T>(read: () => Promise<T>, pauseMs: number): (() => Promise<T>) => {
  let free: Promise<unknown> = Promise.resolve()
  let next: Promise<T> | undefined
  return () => {
    next ??= free.then(() => {
      next = undefined
      const reading = read()
      free = Promise.allSettled([reading, sleep(pauseMs)])
      return reading
    })
    return next
  }
}

// Refusals ------------------------------------------------------------------------------------------------------------

interface RefusalRow extends TimedRow {
  readonly at: Date
  readonly principal: string
  readonly profile: string | null
  readonly code: string
  readonly detail: string
  readonly digest: Buffer
  readonly byte_offset: number | null
  readonly violations: readonly Violation[]
  readonly checks: readonly CheckResult[] | null
  readonly checks_left_out: number
  readonly origin: string | null
}

const refusals: TimedTable<Omit<RefusalFilter, 'after' | 'before'>, RefusalRow, RefusalRecord> = {
  name: 'refusals',
  columns:
    'r.at, r.principal, r.profile, r.code, r.detail, r.digest, r.byte_offset, r.violations, r.checks, r.checks_left_out, r.origin',
  conditions: {
    principal: (value, p) => `r.principal = ${p(value)}`,
    profile: (value, p) => `r.profile = ${p(value)}`,
    code: (value, p) => `r.code = ${p(value)}`,
    digest: (value, p) => `r.digest = decode(${p(value)}, 'hex')`,
  },
  item: ({ digest, at_exact: _, byte_offset: offset, checks_left_out: checksLeftOut, origin, ...row }) => ({
    ...row,
    digest: digest.toString('hex'),
    offset,
    checksLeftOut,
    origin: readStoredOrigin(origin),
  }),
}

/** One row a principal and minute, and only of floods, for ever: a span, and a principal, are read from an index alone. */
const selectCounted = {
  name: 'select_refusals_counted',
  text: `
    select coalesce(sum(count), 0)::float8 as counted from refusal_counts
    where minute > coalesce($1::timestamptz - interval '1 minute', '-infinity')
      and minute < coalesce($2::timestamptz, 'infinity')`,
}
const selectCountedOf = { name: 'select_refusals_counted_of', text: `${selectCounted.text} and principal = $3` }

/** By the bounds of the partitions, whoever dropped others, and by which retention. */
const selectKeptFrom = {
  name: 'select_kept_from',
  text: `
    select min(substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \\(''(.+?)''\\)')::timestamptz) as from
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('public.' || $1::text)`,
}

const issuersMs = 1_000
const freshIssuersMs = 100
const selectAuthorities = { text: 'select name from authorities order by name' }
