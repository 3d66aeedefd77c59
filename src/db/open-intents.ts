/** Intents that nobody ended, and the end of them. */
import type { OpenIntents } from '../ca/issuance/reconcile.ts'
import type { IssuanceAbandoned } from '../tlog/entries.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'

/**
 * Each look goes on where the last one ended, so that none is passed over; that is right as long as an intent is seen
 * before it is old enough. A deep look each minute goes back to the one before it, for an intent whose commit came later
 * than that; the first look after a start goes back a day, for a database that was failed over and has another clock. What
 * is more than `most` is looked at in several looks, or none of them would end in time.
 * `notAfter` reads the date that the signature, if there is one, would be valid until.
 */
export const openIntents = (
  db: Database,
  roll: RollWriter,
  notAfter: (tbs: Buffer) => Date,
  { elapsedMs = () => performance.now(), most = 100_000 }: OpenIntentsOptions = {},
): OpenIntents => {
  /** Where the last deep look ended, by the database's clock; undefined before the first. */
  let deepUntil: string | undefined
  let deepAt = Number.NEGATIVE_INFINITY
  let margin = firstMarginMs

  const look = async (
    on: Queryable,
    ageMs: number,
    { limit, deep }: { limit: number; deep: boolean },
  ): Promise<Look> => {
    const from = deep ? [deepUntil ?? null, margin] : [null, 0]
    const goesOn = deep && margin === 0
    const { rows } = await on.query<IntentRow & Bound>(selectOpen, [ageMs, limit, ...from, most, goesOn])
    const { until = '-infinity', ended = true } = rows[0] ?? {}
    return { until, ended, rows: rows.filter(({ serial }) => serial !== null) }
  }

  const end = (ageMs: number, how: { limit: number; deep: boolean }): Promise<number> =>
    roll.change(async (tx, _time, index) => {
      const { rows } = await look(tx, ageMs, how)
      const ends = rows.map((row, i) => ({ row, notAfter: notAfter(row.tbs), entry: index + i }))
      if (ends.length > 0) await tx.query(insertAbandoned, [JSON.stringify(ends.map(outcomeOf))])
      return { events: ends.map(eventOf), result: rows.length }
    })

  return {
    abandon: async (ageMs, limit) => {
      // Most of the time there is nothing, and then nobody is kept waiting for the head.
      for (;;) {
        const deep = elapsedMs() >= deepAt
        const { rows, until, ended } = await look(db, ageMs, { limit: 1, deep })
        if (rows.length > 0) return end(ageMs, { limit, deep })
        // One that goes back and has not come to the end says nothing of where others begin.
        if (ended || !deep) await db.query(updateReconciled, [until])
        if (deep) {
          deepUntil = until
          margin = ended ? deepMarginMs : 0
          if (ended) deepAt = elapsedMs() + deepEveryMs
        }
        if (ended) return 0
      }
    },
  }
}

export interface OpenIntentsOptions {
  readonly elapsedMs?: () => number
  /** Intents that one look goes over. */
  readonly most?: number
}

interface Look {
  readonly rows: readonly IntentRow[]
  /** All before have ended, if there are no rows. */
  readonly until: string
  /** It has looked at all that are old enough. */
  readonly ended: boolean
}

/** As text: a Date would lose the microseconds, and a look what lies in them. */
interface Bound {
  readonly until: string
  readonly ended: boolean
}

interface IntentRow {
  readonly serial: Buffer
  readonly issuer: string
  readonly shard: number
  readonly profile: string
  readonly profile_version: number
  readonly tbs: Buffer
  readonly plan: Buffer
  readonly created_at: Date
  readonly principal: string
  readonly digest: Buffer
}

/** An intent's end: the order of these is that of the events. */
interface End {
  readonly row: IntentRow
  readonly notAfter: Date
  /** Where its entry will be. */
  readonly entry: number
}

/**
 * Up to `reconciled.until` all have ended, as far as they could be seen. Most looks begin there: one that goes back a
 * minute looks at a hundred thousand intents again (80 ms, in which issuing gets the other core only). A clock that was set
 * back takes `until` with it. Each intent's outcome is looked up by itself: for `not exists`, the planner reads all the
 * outcomes there are, once it has not counted them for a while. Under the head's lock no issuer can be half way between our look and our insert: its
 * statement takes the head first.
 */
const selectOpen = {
  name: 'select_open_intents',
  text: `
    with wanted as materialized (
      select least(case when $6 then null else r.until end, now.until, $3::timestamptz) - make_interval(secs => $4::double precision / 1000) as since, now.until
      from reconciled r, (select clock_timestamp() - make_interval(secs => $1::double precision / 1000) as until) now
      where r.id = 1
    ), span as materialized (
      select w.since, least(w.until, m.until) as until, m.until is null or m.until >= w.until as ended
      from wanted w left join lateral (
        select i.created_at as until from intents i where i.created_at >= w.since order by i.created_at offset $5 limit 1
      ) m on true
    ), open as (
      select i.* from intents i
      where i.created_at >= (select since from span) and i.created_at < (select until from span)
        and (select true from outcomes o where o.serial = i.serial limit 1) is null
      order by i.created_at, i.serial limit $2
    )
    select span.until::text as until, span.ended, open.*
    from span left join open on true
    order by open.created_at, open.serial`,
}

const insertAbandoned = {
  name: 'insert_abandoned',
  text: `
    with ended as materialized (
      select decode(serial, 'hex') as serial, entry, intended, issuer, shard, not_after
      from json_to_recordset($1::json) as r (serial text, entry bigint, intended timestamptz, issuer text, shard integer,
        not_after timestamptz)
    ), abandoned as (
      insert into outcomes (serial, kind, entry, at)
      select serial, 'abandoned', entry, clock_timestamp() from ended
    )
    insert into revocations (entry, serial, change, revoked_at, issuer, shard, not_after, by)
    select entry, serial, 'abandoned', intended, issuer, shard, not_after, 'chancery' from ended`,
}

const updateReconciled = {
  name: 'update_reconciled',
  text: 'update reconciled set until = $1::timestamptz where id = 1',
}

const outcomeOf = ({ row, notAfter, entry }: End): object => ({
  serial: row.serial.toString('hex'),
  entry,
  intended: row.created_at,
  issuer: row.issuer,
  shard: row.shard,
  not_after: notAfter,
})

const eventOf = ({ row, notAfter }: End): IssuanceAbandoned => ({
  type: 'issuance.abandoned',
  serial: row.serial.toString('hex'),
  issuer: row.issuer,
  shard: row.shard,
  principal: row.principal,
  profile: { name: row.profile, version: row.profile_version },
  request: row.digest.toString('hex'),
  plan: row.plan.toString('hex'),
  intended: row.created_at.toISOString(),
  notAfter: notAfter.toISOString(),
})

const deepEveryMs = 60_000
/** No statement may take so long. */
const deepMarginMs = 30_000
const firstMarginMs = 24 * 3_600_000
