/**
 * The records as they stand, for whoever compares them with the roll: in one snapshot, page by page along the roll, so that
 * neither memory nor the time between two of its rows grows with it. Times and numbers come as PostgreSQL's text: what was
 * altered may be beyond what a Date or a number holds.
 */
import type { Database, Queryable, Statement } from './database.ts'

/** Hexadecimal where it is a serial or a digest; as PostgreSQL writes it, in UTC, where it is a time. */
export type Text = string | null

export interface EntryRow {
  readonly index: string
  readonly type: string
  readonly time: string
  readonly leaf: Buffer
  readonly serial: Text
  readonly body: Text
  /** Of the serial: null where there is none. */
  readonly intent: IntentRow | null
  readonly outcome: OutcomeRow | null
}

export interface IntentRow {
  readonly principal: string
  readonly idempotency_key: Text
  readonly digest: string
  readonly issuer: string
  readonly shard: string
  readonly profile: string
  readonly profile_version: string
  readonly tbs: Buffer
  readonly plan: string
  readonly replaces: Text
  readonly first: Text
  /** What the row of the one that it replaces says to be the first. */
  readonly expected_first: Text
  readonly approval: Text
  readonly origin: Text
  /** In milliseconds, as entries have it. */
  readonly created_at: string
}

export interface OutcomeRow {
  readonly kind: string
  readonly entry: Text
  readonly at: string
  readonly signature: Buffer | null
  readonly principal: Text
  readonly idempotency_key: Text
  readonly profile: Text
  readonly issuer: Text
  readonly subject: Text
  readonly key_sha256: Text
  readonly not_before: Text
  readonly not_after: Text
  readonly origin_namespace: Text
  readonly origin_user: Text
  readonly origin_object: Text
  readonly names: Text
  readonly profile_version: Text
  readonly delegated: Text
}

export interface ChangeRow {
  readonly entry: string
  readonly serial: string
  readonly change: string
  readonly reason: Text
  readonly revoked_at: string
  readonly invalid_since: Text
  readonly issuer: string
  readonly shard: string
  readonly not_after: string
  readonly certificate: Text
  readonly by: Text
  /** What the certificate's own records say, and the change before. */
  readonly outcome_entry: Text
  readonly outcome_not_after: Text
  readonly before_revoked_at: Text
  /** Of the key of the certificate, where it is blocked by a revocation that there is. */
  readonly blocked_entry: Text
  readonly blocked_serial: Text
}

export interface NameRow {
  readonly entry: string
  readonly serial: string
  readonly kind: string
  readonly name: string
}

export interface ListRow {
  readonly issuer: string
  readonly shard: string
  readonly number: string
  readonly covers: string
  readonly this_update: string
  readonly next_update: string
  readonly revoked: string
  readonly tbs_sha256: string
}

export interface ListName {
  readonly issuer: string
  readonly shard: number
  readonly number: number
}

export interface RecordsPage {
  readonly entries: readonly EntryRow[]
  /** Of these entries; of the last page also those behind it. */
  readonly changes: readonly ChangeRow[]
  /** Names of certificates, likewise; those of one entry in no order. */
  readonly names: readonly NameRow[]
  /** Records that say to be of entries that are not theirs. */
  readonly strays: readonly StrayRow[]
}

export interface StrayRow {
  readonly table: string
  readonly entry: Text
  readonly what: string
}

export interface RollHeadRow {
  readonly size: string
  readonly time: string
  readonly root: Buffer
}

export interface SubtreeRow {
  readonly level: number
  readonly index: number
  readonly hash: Buffer
}

export interface RollRows {
  head(): Promise<RollHeadRow | undefined>
  pages(): AsyncGenerator<RecordsPage, void>
  lists(names: readonly ListName[]): Promise<readonly ListRow[]>
  /** How many there are of each shard, and the highest number. */
  listCounts(): Promise<
    readonly { readonly issuer: string; readonly shard: string; readonly count: string; readonly last: string }[]
  >
  subtrees(places: readonly { readonly level: number; readonly index: number }[]): Promise<readonly SubtreeRow[]>
  /** A hundred at most that a tree of this size does not have. */
  subtreesBeyond(size: number): Promise<readonly { readonly level: string; readonly index: string }[]>
  /** Whole tables, of which there are few rows. */
  table(statement: Statement): Promise<readonly Readonly<Record<string, unknown>>[]>
}

/** `work` sees the records as they are when it begins, whatever is written meanwhile. */
export const withRollRows = <T>(db: Database, work: (rows: RollRows) => Promise<T>): Promise<T> =>
  db.transaction(async (tx) => {
    for (const text of settings) await tx.query({ text })
    return work(rollRowsOf(tx))
  })

/** Over a transaction whose settings are made: for those who have one. */
export const rollRowsOf = (tx: Queryable): RollRows => ({
  head: async () => (await tx.query<RollHeadRow>(selectHead)).rows[0],
  pages: () => readPages(tx),
  lists: async (names) =>
    names.length === 0
      ? []
      : (
          await tx.query<ListRow>(selectLists, [
            names.map(({ issuer }) => issuer),
            names.map(({ shard }) => shard),
            names.map(({ number }) => number),
          ])
        ).rows,
  listCounts: async () =>
    (await tx.query<{ issuer: string; shard: string; count: string; last: string }>(selectListCounts)).rows,
  subtrees: async (places) =>
    places.length === 0
      ? []
      : (
          await tx.query<SubtreeRow>(selectSubtrees, [
            places.map(({ level }) => level),
            places.map(({ index }) => index),
          ])
        ).rows,
  subtreesBeyond: async (size) => (await tx.query<{ level: string; index: string }>(selectSubtreesBeyond, [size])).rows,
  table: async (statement) => (await tx.query(statement)).rows,
})

const settings = [
  'set transaction isolation level repeatable read, read only',
  `set local timezone = 'UTC'`,
  `set local datestyle = 'ISO'`,
  // What a policy hides would pass for what is not there.
  'set local row_security = off',
  // Reading all there is takes as long as it takes, whatever the role says; PostgreSQL has `transaction_timeout` from 17 on.
  `select set_config(name, '0', true) from pg_settings
   where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`,
  // The names are sorted once.
  `set local work_mem = '64MB'`,
] as const

/** The next page is under way while one is looked at. */
async function* readPages(tx: Queryable): AsyncGenerator<RecordsPage, void> {
  const names = await openNames(tx)
  let next: Promise<RecordsPage> | undefined = readPage(tx, names, beforeAll)
  while (next) {
    const page: RecordsPage = await next
    const last = page.entries.at(-1)?.index
    next = last === undefined ? undefined : readPage(tx, names, last)
    next?.catch(() => {})
    yield page
  }
}

const readPage = async (tx: Queryable, names: NamesUpTo, after: string): Promise<RecordsPage> => {
  const { rows } = await tx.query<FlatEntry>(selectEntries, [after, pageSize])
  const last = rows.at(-1)?.index ?? beyondAll
  const changes = await tx.query<ChangeRow>(selectChanges, [after, last])
  const strays = await tx.query<StrayRow>(selectStrays, [after, last])
  return { entries: rows.map(entryOf), changes: changes.rows, names: await names(Number(last)), strays: strays.rows }
}

/** Those up to an entry that were not read before. */
type NamesUpTo = (last: number) => Promise<readonly NameRow[]>

/** By a cursor: no index has all names in the order of entries, so they are sorted once. */
const openNames = async (tx: Queryable): Promise<NamesUpTo> => {
  await tx.query(declareNames)
  let ahead: NameRow[] = []
  let isOver = false
  return async (last) => {
    // A row behind `last` shows that there are no more before it.
    while (!isOver && !(Number(ahead.at(-1)?.entry ?? Number.NEGATIVE_INFINITY) > last)) {
      const { rows } = await tx.query<NameRow>(fetchNames)
      isOver = rows.length === 0
      if (isOver) await tx.query(closeNames)
      ahead = [...ahead, ...rows]
    }
    const end = ahead.findIndex(({ entry }) => Number(entry) > last)
    return ahead.splice(0, end < 0 ? ahead.length : end)
  }
}

interface FlatEntry extends Omit<EntryRow, 'intent' | 'outcome'> {
  readonly has_intent: boolean
  readonly has_outcome: boolean
  readonly [column: string]: unknown
}

const entryOf = (row: FlatEntry): EntryRow => {
  const { index, type, time, leaf, serial, body } = row
  return {
    ...{ index, type, time, leaf, serial, body },
    intent: row.has_intent ? (part(row, 'i_') as unknown as IntentRow) : null,
    outcome: row.has_outcome ? (part(row, 'o_') as unknown as OutcomeRow) : null,
  }
}

const part = (row: FlatEntry, prefix: string): Readonly<Record<string, unknown>> => {
  const columns: Record<string, unknown> = {}
  for (const name in row) if (name.startsWith(prefix)) columns[name.slice(prefix.length)] = row[name]
  return columns
}

const selectHead = { text: 'select size::text as size, time::text as time, root from roll where id = 1' }

const selectEntries = {
  name: 'select_entry_rows',
  text: `
    select e.index::text as index, e.type, e.time::text as time, e.leaf_hash as leaf, encode(e.serial, 'hex') as serial, e.body,
      i.serial is not null as has_intent, i.principal as i_principal, i.idempotency_key as i_idempotency_key,
      encode(i.digest, 'hex') as i_digest, i.issuer as i_issuer, i.shard::text as i_shard, i.profile as i_profile,
      i.profile_version::text as i_profile_version, i.tbs as i_tbs, encode(i.plan, 'hex') as i_plan,
      encode(i.replaces, 'hex') as i_replaces, encode(i.first, 'hex') as i_first,
      (select encode(coalesce(b.first, b.serial), 'hex') from intents b where b.serial = i.replaces) as i_expected_first,
      i.approval::text as i_approval, i.origin as i_origin,
      date_trunc('milliseconds', i.created_at)::text as i_created_at,
      o.serial is not null as has_outcome, o.kind as o_kind, o.entry::text as o_entry, o.at::text as o_at,
      o.signature as o_signature, o.principal as o_principal, o.idempotency_key as o_idempotency_key,
      o.profile as o_profile, o.issuer as o_issuer, o.subject as o_subject, encode(o.key_sha256, 'hex') as o_key_sha256,
      o.not_before::text as o_not_before, o.not_after::text as o_not_after,
      o.origin_namespace as o_origin_namespace, o.origin_user as o_origin_user, o.origin_object as o_origin_object,
      encode(o.names, 'hex') as o_names, o.profile_version::text as o_profile_version, o.delegated::text as o_delegated
    from (select * from entries where index > $1::bigint order by index limit $2) e
      left join intents i on i.serial = e.serial
      left join outcomes o on o.serial = e.serial
    order by e.index`,
}

const selectChanges = {
  name: 'select_change_rows',
  text: `
    select r.entry::text as entry, encode(r.serial, 'hex') as serial, r.change, r.reason, r.revoked_at::text as revoked_at,
      r.invalid_since::text as invalid_since, r.issuer, r.shard::text as shard, r.not_after::text as not_after,
      r.certificate::text as certificate, r.by,
      o.entry::text as outcome_entry, o.not_after::text as outcome_not_after,
      (select b.revoked_at::text from revocations b where b.serial = r.serial and b.entry < r.entry
        order by b.entry desc limit 1) as before_revoked_at,
      k.entry::text as blocked_entry, encode(k.serial, 'hex') as blocked_serial
    from revocations r left join outcomes o on o.serial = r.serial
      left join compromised_keys k on k.key_sha256 = o.key_sha256
        and exists (select from revocations b where b.entry = k.entry and b.serial = k.serial and b.reason = 'keyCompromise')
    where r.entry > $1::bigint and r.entry <= $2::bigint
    order by r.entry`,
}

/** What says to be of an entry that is of another serial, or of none that there is. */
const selectStrays = {
  name: 'select_stray_rows',
  text: `
    select 'outcomes' as table, o.entry::text as entry, encode(o.serial, 'hex') as what
    from outcomes o left join entries e on e.index = o.entry
    where o.entry > $1::bigint and o.entry <= $2::bigint
      and (e.index is null or e.serial is distinct from o.serial or e.type not in ('certificate.issued', 'issuance.abandoned'))
    union all
    select 'compromised_keys', k.entry::text, encode(k.key_sha256, 'hex')
    from compromised_keys k left join revocations r on r.entry = k.entry
    where k.entry > $1::bigint and k.entry <= $2::bigint
      and (r.entry is null or r.reason is distinct from 'keyCompromise' or r.serial <> k.serial)
    union all
    -- There is an end to an intent, but none on the roll that it should be on.
    select 'outcomes', null, encode(o.serial, 'hex') from outcomes o
    where o.entry is null and o.kind <> 'unsigned' and $1::bigint < 0`,
}

const declareNames = {
  text: `
    declare roll_names no scroll cursor for
    select entry::text as entry, encode(serial, 'hex') as serial, kind, name from certificate_names order by certificate_names.entry`,
}
const fetchNames = { text: 'fetch 4096 from roll_names' }
const closeNames = { text: 'close roll_names' }

const listColumns = `
      c.issuer, c.shard::text as shard, c.number::text as number, c.covers::text as covers, c.this_update::text as this_update,
      c.next_update::text as next_update, c.revoked::text as revoked, encode(c.tbs_sha256, 'hex') as tbs_sha256`
const selectLists = {
  name: 'select_list_rows',
  text: `
    select ${listColumns}
    from unnest($1::text[], $2::integer[], $3::bigint[]) w (issuer, shard, number)
      join crls c on c.issuer = w.issuer and c.shard = w.shard and c.number = w.number`,
}
const selectListCounts = {
  text: `
    select issuer, shard::text as shard, count(*)::text as count, max(number)::text as last from crls
    group by issuer, crls.shard order by issuer, crls.shard`,
}
const selectSubtrees = {
  name: 'select_subtree_rows',
  text: `
    select s.level, s.index, s.hash
    from unnest($1::smallint[], $2::bigint[]) w (level, index) join subtrees s on s.level = w.level and s.index = w.index`,
}
const selectSubtreesBeyond = {
  text: `
    select level::text as level, index::text as index from subtrees
    where index < 0 or level not between 1 and 6 or (index + 1)::numeric * power(256::numeric, level) > $1::numeric
    order by subtrees.level, subtrees.index limit 100`,
}

const pageSize = 1_024
/** Of int8. */
const beforeAll = '-9223372036854775808'
const beyondAll = '9223372036854775807'
