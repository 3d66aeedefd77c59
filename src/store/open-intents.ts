/** Intents that nobody ended, and the end of them. */
import type { OpenIntents } from '../ca/reconcile.ts'
import type { IssuanceAbandoned } from '../roll/entries.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './roll.ts'

/** `notAfter` reads the date that the signature, if there is one, would be valid until. */
export const openIntents = (db: Database, roll: RollWriter, notAfter: (tbs: Buffer) => Date): OpenIntents => {
  // The first look after a start goes back further: a database that was failed over may have another clock.
  let marginMs = firstMarginMs
  let deepAt = performance.now() + deepEveryMs
  const look = async (on: Queryable, ageMs: number, limit: number): Promise<readonly IntentRow[]> =>
    (await on.query<IntentRow>(selectOpen, [ageMs, limit, marginMs])).rows

  const end = (ageMs: number, limit: number): Promise<number> =>
    roll.change(async (tx) => {
      const rows = await look(tx, ageMs, limit)
      if (rows.length > 0) await tx.query(insertAbandoned, [JSON.stringify(rows.map(outcomeOf))])
      return { events: rows.map((row) => eventOf(row, notAfter(row.tbs))), result: rows.length }
    })

  return {
    abandon: async (ageMs, limit) => {
      // Most of the time there is nothing, and then nobody is kept waiting for the head.
      if ((await look(db, ageMs, 1)).length > 0) return end(ageMs, limit)
      await db.query(updateReconciled, [ageMs])
      const isDeep = performance.now() >= deepAt
      if (isDeep) deepAt = performance.now() + deepEveryMs
      marginMs = isDeep ? deepMarginMs : 0
      return 0
    },
  }
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
  /** Where its entry will be: the order of these rows is that of the events. */
  readonly entry: number
}

/**
 * Up to `reconciled.until` all have ended, as far as they could be seen; the margin of a deep look covers an intent whose
 * commit came long after its insert: no statement may take half a minute. Most looks do without, because they would look
 * at tens of thousands of intents again (80 ms, in which issuing gets the other core only). Under the head's lock no issuer can be half way between our look and our insert: its statement takes the head first.
 */
const selectOpen = {
  name: 'select_open_intents',
  text: `
    with open as (
      select i.* from intents i
      where i.created_at >= (select until from reconciled where id = 1) - make_interval(secs => $3::double precision / 1000)
        and i.created_at < clock_timestamp() - make_interval(secs => $1::double precision / 1000)
        and not exists (select from outcomes o where o.serial = i.serial)
      order by i.created_at, i.serial limit $2
    )
    select open.*,
      (select size from roll where id = 1) + row_number() over (order by open.created_at, open.serial) - 1 as entry
    from open
    order by open.created_at, open.serial`,
}

const insertAbandoned = {
  name: 'insert_abandoned',
  text: `
    insert into outcomes (serial, kind, entry, at)
    select decode(serial, 'hex'), 'abandoned', entry, clock_timestamp()
    from json_to_recordset($1::json) as r (serial text, entry bigint)`,
}

const updateReconciled = {
  name: 'update_reconciled',
  text: `update reconciled set until = greatest(until, clock_timestamp() - make_interval(secs => $1::double precision / 1000)) where id = 1`,
}

const outcomeOf = ({ serial, entry }: IntentRow): object => ({ serial: serial.toString('hex'), entry })

const eventOf = (row: IntentRow, notAfter: Date): IssuanceAbandoned => ({
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
const deepMarginMs = deepEveryMs + 30_000
const firstMarginMs = 24 * 3_600_000
