/** What is on record of serials, for those who ask about one certificate at a time. */

import type { OcspStore, SerialStanding } from '../ca/revocation/ocsp.ts'
import { openBatch } from '../lib/batch.ts'
import type { CrlReason } from '../x509/crl.ts'
import type { DatabaseClock } from './clock.ts'
import type { Database } from './database.ts'

/**
 * Questions that come at the same time share a statement, which reads the clock as well: an answer is dated by ours, and one of
 * tomorrow is believed until tomorrow.
 */
export const openOcspStore = (db: Database, clock: Pick<DatabaseClock, 'observe'>): OcspStore => {
  const lookups = openBatch({
    run: async (batch: readonly Lookup[]) => {
      const asked = performance.now()
      const rows = await selectAll(db, batch)
      if (rows[0]) clock.observe(rows[0].now, performance.now() - asked)
      return rows.map((row) => ({ standing: standingOf(row), seen: row.seen }))
    },
    max: 256,
    lanes: 2,
  })
  return {
    standings: async (issuer, serials) => {
      if (lookups.pending > maxPending) throw new Error('too many questions wait')
      const found = await Promise.all(serials.map((serial) => lookups.add({ issuer, serial: serial.toString('hex') })))
      return { standings: found.map(({ standing }) => standing), seen: Math.min(...found.map(({ seen }) => seen)) }
    },
    changedSince: async (index) => {
      const { rows } = await db.query<{ serial: string | null; seen: number }>(selectChanges, [index])
      return { serials: rows.flatMap(({ serial }) => (serial === null ? [] : [serial])), seen: rows[0]?.seen ?? 0 }
    },
  }
}

interface Lookup {
  readonly issuer: string
  readonly serial: string
}

interface StandingRow {
  readonly kind: 'unknown' | 'open' | 'unsigned' | 'certificate' | 'abandoned'
  readonly change: 'revoked' | 'released' | 'abandoned' | null
  readonly reason: CrlReason | null
  readonly revoked_at: Date | null
  readonly seen: number
  readonly now: Date
}

const selectAll = async (db: Database, batch: readonly Lookup[]): Promise<readonly StandingRow[]> => {
  const values = [batch.map(({ serial }) => serial), batch.map(({ issuer }) => issuer)]
  return (await db.query<StandingRow>(selectStandings, values)).rows
}

/** What was never signed is not on record; what may have been, and nobody got, is revoked. */
const standingOf = ({ kind, change, reason, revoked_at: at }: StandingRow): SerialStanding => {
  if (kind === 'open') return { kind }
  if (kind !== 'certificate' && kind !== 'abandoned') return { kind: 'unknown' }
  if (at !== null && (change === 'revoked' || change === 'abandoned')) return { kind: 'revoked', at, reason }
  if (kind === 'abandoned') throw new Error('what was abandoned is not revoked')
  return { kind: 'good' }
}

/**
 * The roll's size is read in the same snapshot: every revocation before it is seen. Planned each time: a plan that was kept
 * from when nothing was revoked would read all of the table for each serial, until somebody analyzes it.
 */
const selectStandings = {
  text: `
    select case when i.serial is null then 'unknown' else coalesce(o.kind, 'open') end as kind,
      r.change, r.reason, r.revoked_at, (select size from roll where id = 1) as seen, clock_timestamp() as now
    from unnest($1::text[], $2::text[]) with ordinality w(serial, issuer, place)
      left join intents i on i.serial = decode(w.serial, 'hex') and i.issuer = w.issuer
      left join outcomes o on o.serial = i.serial
      left join lateral (
        select change, reason, revoked_at from revocations where serial = i.serial order by entry desc limit 1
      ) r on true
    order by w.place`,
}

const selectChanges = {
  name: 'select_revocations_since',
  text: `
    select encode(r.serial, 'hex') as serial, h.size as seen
    from roll h left join revocations r on r.entry >= $1::bigint and r.entry < h.size
    where h.id = 1`,
}

const maxPending = 10_000
