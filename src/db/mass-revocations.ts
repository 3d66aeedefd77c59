/** Many revocations at once, in the records: what was approved, cut into slices, and what became of each. */

import type { Page, PageRequest } from '../ca/records.ts'
import type {
  AdvancedSlice,
  AsOf,
  MassOrder,
  MassRevocationStore,
  PlannedSet,
  Shares,
  SliceRules,
  Survey,
} from '../ca/revocation/mass-revocation.ts'
import type { RevocationReason } from '../ca/revocation/revoke.ts'
import type { Queryable } from './database.ts'
import { judgedBy, type RevocationStoreDeps, readStandings, recordChanges } from './revocations.ts'
import { certificatesWhere } from './search/certificates.ts'
import { isWhole, openParameters, type Parameter, pageOf, readCursor, writeCursor } from './search/pages.ts'
import { hasEndedBy, isLivingAt } from './validity.ts'

export const openMassRevocationStore = (deps: RevocationStoreDeps): MassRevocationStore => {
  const { db, roll } = deps
  return {
    asOf: async (wanted) => {
      const { rows } = await db.query<AsOf>(selectAsOf, [wanted?.size ?? null, wanted?.time ?? null])
      return rows[0] as AsOf
    },
    now: async () => judgedBy(roll, await roll.time()),
    survey: (set) => survey(db, set),
    order: async (set, digest, decide) => {
      let found = { count: 0, certificates: '', slices: 0 }
      const ordered = new Error('somebody else has ordered this at the same moment')
      const order = roll.change(
        async (tx, time, index) => {
          roll.assertClock()
          // Of two at once under one digest the second finds the order. Its own set may be another one, and none of it may stay.
          if (await findOrder(tx, digest)) throw ordered
          const { slices, ...told } = found
          const event = decide(told)
          const { search, reason, invalidityDate, count, by } = event
          await tx.query(insertOrder, [
            ...[digest, index, JSON.stringify(search), reason, invalidityDate],
            ...[count, slices, time, by],
          ])
          return { events: [event], result: undefined }
        },
        async (tx) => {
          found = await insertSlices(tx, set, digest)
        },
      )
      await order.catch((error: unknown) => {
        if (error !== ordered) throw error
      })
    },
    find: (digest) => findOrder(db, digest),
    list: (page) => listOrders(db, page),
    open: async () => (await db.query<{ plan: string }>(selectOpen)).rows[0]?.plan,
    advance: (digest, decide) => advance(deps, digest, decide),
  }
}

// The set -------------------------------------------------------------------------------------------------------------

/**
 * Begins a statement: `found` are the unexpired certificates of a search with what was on record for each; `planned` are
 * those of them that may be revoked. By the roll's size, not by what is there when the statement runs.
 */
const planning = ({ search, asOf, replaceable, most }: PlannedSet, p: Parameter): string => `
  with found as materialized (
    select c.entry, c.serial, c.profile, c.principal, c.issuer, r.entry as changed, r.change = 'revoked' as is_revoked,
      r.change is distinct from 'revoked' or coalesce(r.reason, 'unspecified') = any (${p(replaceable)}::text[]) as is_planned
    from (select c.* ${setOf(search, asOf.size, p)}) c left join lateral (
      select entry, change, reason from revocations where serial = c.serial and entry < ${p(asOf.size)}::bigint
      order by entry desc limit 1
    ) r on true
    where ${isLivingAt('c.not_after', `${p(asOf.time)}::timestamptz`)}
    limit ${most === undefined ? 'all' : most + 1}
  ), planned as (
    select * from found where is_planned
  )`

/** All that a search finds before an entry. An exact name is that very name. */
const setOf = (search: PlannedSet['search'], size: number, p: Parameter): string => {
  const entryFrom = (time: Date): string => `(select first_entry_from(${p(time)}::timestamptz))`
  return certificatesWhere(search, p, {
    among: (column) =>
      `${column} >= ${search.issuedAfter ? entryFrom(search.issuedAfter) : '0'}
        and ${column} < least(${p(size)}::bigint, ${search.issuedBefore ? entryFrom(search.issuedBefore) : 'null'})`,
    size: () => `${p(size)}::bigint`,
    time: () => 'now()',
    namesFor: ({ low }) => [low],
  })
}

/** The octets of `RevocationsOrdered.certificates`. */
const digestOfPlanned = `
  encode(sha256(coalesce(string_agg(serial || int8send(coalesce(changed, -1)), ''::bytea order by entry), ''::bytea)), 'hex')`

interface SurveyRow extends Omit<Survey, 'skipped' | 'byProfile' | 'byPrincipal' | 'byIssuer'> {
  readonly found: number
  readonly expired: number
  readonly profiles: SharesJson
  readonly principals: SharesJson
  readonly issuers: SharesJson
}

interface SharesJson {
  readonly names: number
  readonly items: Shares['items'] | null
}

const survey = async (db: Queryable, set: PlannedSet): Promise<Survey> => {
  const { p, values } = openParameters()
  const text = `${planning(set, p)}, expired as (
      select ${setOf(set.search, set.asOf.size, p)} and ${hasEndedBy('c.not_after', `${p(set.asOf.time)}::timestamptz`)}
      limit ${mostExpired}
    ), unlisted as (
      select i.issuer, count(*) as entries, count(distinct i.shard) as shards
      from planned c join intents i on i.serial = c.serial
      where c.is_revoked is not true
      group by i.issuer order by entries desc, i.issuer limit ${mostShares}
    )
    select totals.*, (select count(*) from found) as found, (select count(*) from expired) as expired,
      ${sharesOf('profile')} as profiles, ${sharesOf('principal')} as principals, ${sharesOf('issuer')} as issuers,
      coalesce((select json_agg(unlisted) from unlisted), '[]') as unlisted,
      array(select encode(serial, 'hex') from planned order by entry desc limit ${sampleSize}) as sample
    from (select count(*) as count, ${digestOfPlanned} as certificates from planned) totals`
  const { rows } = await db.query<SurveyRow>({ text }, values)
  const { found, expired, profiles, principals, issuers, ...told } = rows[0] as SurveyRow
  return {
    ...told,
    count: countOf({ found, count: told.count }, set),
    byProfile: sharesFrom(profiles, told.count),
    byPrincipal: sharesFrom(principals, told.count),
    byIssuer: sharesFrom(issuers, told.count),
    skipped: { expired, revoked: found - told.count },
  }
}

/** Beyond the bound nobody knows how many of those that were found could be revoked. */
const countOf = ({ found, count }: { found: number; count: number }, { most }: PlannedSet): number =>
  most !== undefined && found > most ? found : count

const sharesOf = (column: 'profile' | 'principal' | 'issuer'): string => `(
    with shares as materialized (select ${column} as name, count(*) as count from planned group by 1)
    select json_build_object('names', (select count(*) from shares), 'items', (
      select json_agg(largest) from (select * from shares order by count desc, name limit ${mostShares}) largest)))`

const sharesFrom = ({ names, items }: SharesJson, count: number): Shares => {
  const shown = items ?? []
  const rest = count - shown.reduce((sum, share) => sum + share.count, 0)
  return { items: shown, others: { names: names - shown.length, count: rest } }
}

/** Writes the set down, in order of the roll; none of it matters before there is an order. */
const insertSlices = async (tx: Queryable, set: PlannedSet, digest: string) => {
  const { p, values } = openParameters()
  const text = `${planning(set, p)}, placed as (
      select entry, (row_number() over (order by entry) - 1) / ${sliceSize} as number from planned
    ), added as (
      insert into mass_revocation_slices (plan, number, certificates)
      select decode(${p(digest)}, 'hex'), number, array_agg(entry order by entry) from placed group by number order by number
      on conflict do nothing
    )
    select (select count(*) from found) as found, count(*) as count, ${digestOfPlanned} as certificates from planned`
  const { rows } = await tx.query<{ found: number; count: number; certificates: string }>({ text }, values)
  const { found, count, certificates } = rows[0] as (typeof rows)[number]
  return { count: countOf({ found, count }, set), certificates, slices: Math.ceil(count / sliceSize) }
}

// Orders --------------------------------------------------------------------------------------------------------------

interface OrderRow {
  readonly plan: Buffer
  readonly entry: number
  readonly search: Readonly<Record<string, string>>
  readonly reason: RevocationReason
  readonly invalid_since: Date | null
  readonly count: number
  readonly slices: number
  readonly ordered_at: Date
  readonly by: string
  readonly ended: number
  readonly revoked: number
  readonly passed_expired: number
  readonly passed_revoked: number
  readonly started_at: Date | null
  readonly ended_at: Date | null
}

const orderOf = (row: OrderRow): MassOrder => ({
  digest: row.plan.toString('hex'),
  search: row.search,
  reason: row.reason,
  invalidSince: row.invalid_since,
  by: row.by,
  index: row.entry,
  orderedAt: row.ordered_at,
  total: row.count,
  revoked: row.revoked,
  skipped: { expired: row.passed_expired, revoked: row.passed_revoked },
  startedAt: row.started_at,
  finishedAt: row.ended === row.slices ? row.ended_at : null,
})

const findOrder = async (db: Queryable, digest: string): Promise<MassOrder | undefined> => {
  const { rows } = await db.query<OrderRow>(selectOrder, [digest])
  return rows[0] && orderOf(rows[0])
}

const listOrders = async (db: Queryable, { limit, cursor }: PageRequest): Promise<Page<MassOrder>> => {
  const after = readCursor(cursor, listTag, [isWhole])
  const { rows } = await db.query<OrderRow>(selectOrders, [after?.[0] ?? null, limit + 1])
  return pageOf(rows, limit, { item: orderOf, cursor: (row) => writeCursor([row.entry], listTag) })
}

// Slices --------------------------------------------------------------------------------------------------------------

interface SliceRow extends Pick<OrderRow, 'reason' | 'invalid_since' | 'by'> {
  readonly number: number
  /** As PostgreSQL writes them. */
  readonly certificates: readonly string[]
  readonly is_last: boolean
}

const advance = async (
  { db, roll }: RevocationStoreDeps,
  digest: string,
  decide: SliceRules,
): Promise<AdvancedSlice | undefined> => {
  // Read once before the lock: what has to come from the disk keeps nobody from the head.
  const ahead = await nextSlice(db, digest)
  if (ahead) await readStandings(db, ahead.certificates)
  return roll.change(async (tx, time, index) => {
    roll.assertClock()
    const slice = await nextSlice(tx, digest)
    if (!slice) return { events: [], result: undefined }
    const ask = { digest, reason: slice.reason, invalidSince: slice.invalid_since, by: slice.by }
    const { changes, skipped } = decide.slice(ask, await readStandings(tx, slice.certificates), time)
    const changed = changes.map((change, i) => ({ ...change, index: index + i }))
    await recordChanges(tx, changed)
    await tx.query(insertOutcome, [digest, slice.number, changes.length, skipped.expired, skipped.revoked, time])
    const end = slice.is_last ? [decide.done((await findOrder(tx, digest)) as MassOrder)] : []
    return {
      events: [...changes.map(({ change }) => change), ...end],
      result: {
        revoked: changes.length,
        skipped,
        done: slice.is_last,
        changed: changed.map(({ standing: { serial }, index }) => ({ serial, index })),
      },
    }
  })
}

const nextSlice = async (db: Queryable, digest: string): Promise<SliceRow | undefined> =>
  (await db.query<SliceRow>(selectNextSlice, [digest])).rows[0]

// Statements ----------------------------------------------------------------------------------------------------------

const selectAsOf = {
  name: 'select_as_of',
  text: `select least($1::bigint, size) as size, least($2::timestamptz, clock_timestamp()) as time from roll where id = 1`,
}

const orders = `
    select m.*, p.*
    from mass_revocations m cross join lateral (
      select count(*) as ended, coalesce(sum(revoked), 0)::bigint as revoked,
        coalesce(sum(passed_expired), 0)::bigint as passed_expired,
        coalesce(sum(passed_revoked), 0)::bigint as passed_revoked, min(at) as started_at, max(at) as ended_at
      from mass_revocation_outcomes where plan = m.plan
    ) p`

const selectOrder = { name: 'select_mass_revocation', text: `${orders} where m.plan = decode($1, 'hex')` }

const selectOrders = {
  name: 'select_mass_revocations',
  text: `${orders} where $1::bigint is null or m.entry < $1 order by m.entry desc limit $2`,
}

const selectOpen = {
  name: 'select_open_mass_revocation',
  text: `
    select encode(m.plan, 'hex') as plan from mass_revocations m
    where not exists (select from mass_revocation_outcomes o where o.plan = m.plan and o.number = m.slices - 1)
    order by m.entry limit 1`,
}

const insertOrder = {
  name: 'insert_mass_revocation',
  text: `
    insert into mass_revocations (plan, entry, search, reason, invalid_since, count, slices, ordered_at, by)
    values (decode($1, 'hex'), $2, $3, $4, $5, $6, $7, $8, $9)`,
}

/**
 * Slices end in their order, so the newest outcome says which is next: no look at all that are done. Planned each time, as
 * `selectStandings` is.
 */
const selectNextSlice = {
  text: `
    select s.number, s.certificates, s.number = m.slices - 1 as is_last, m.reason, m.invalid_since, m.by
    from mass_revocations m join mass_revocation_slices s on s.plan = m.plan
    where m.plan = decode($1, 'hex') and s.number = (
      select coalesce(max(number), -1) + 1 from mass_revocation_outcomes where plan = decode($1, 'hex'))`,
}

const insertOutcome = {
  name: 'insert_slice_outcome',
  text: `
    insert into mass_revocation_outcomes (plan, number, revoked, passed_expired, passed_revoked, at)
    values (decode($1, 'hex'), $2, $3, $4, $5, $6)`,
}

/** What was passed by is told apart by what is known of it now. */

const listTag = { list: 'mass revocations' }
/** Certificates in one transaction: issuing waits for the head as long as it takes, some 7 ms for these (measured). */
const sliceSize = 100
const mostShares = 20
const mostExpired = 100_000
const sampleSize = 10
