/**
 * What is read of many rows for limits, apart from issuing and under no lock: all that counts, where running totals leave
 * no room, and what there was before the first intent under a grant, in steps.
 */

import type { CountedGrant } from '../ca/access/limits.ts'
import { Problem } from '../errors.ts'
import { openLanes } from '../lib/semaphore.ts'
import { withDeadline } from '../lib/timeout.ts'
import type { Database } from './database.ts'
import { isLivingAt } from './validity.ts'

/** Of one grant and principal. */
export interface LedgerName extends CountedGrant {
  readonly principal: string
}

/** What truly counted when the newest row was the one with this number and serial (in hex). */
export interface Count {
  readonly number: number
  readonly newest: string
  /** By the ledger's time. */
  readonly at: Date
  readonly certificates: number
  readonly names: number
  /** Up to the limit, beyond which nobody need know. */
  readonly alive: number
  /** When the first of those that are alive makes room: as the second that its notAfter names is over. */
  readonly expiry: Date | null
  /** The end of the day by UTC. */
  readonly midnight: Date
}

export interface Counts {
  /** What was counted last, as long as the totals do not have it. */
  of(ledger: LedgerName): Count | undefined
  expiryOf(ledger: LedgerName): Date | undefined
  /** The running totals have what was counted. */
  settle(ledger: LedgerName): void
  /** Resolves to whether anything was counted anew: not too often. */
  recount(ledger: LedgerName): Promise<boolean>
  /** Writes down what was there before. Rejects with `limit.unavailable` while there is more to do; it goes on. */
  begin(ledger: LedgerName): Promise<void>
}

interface Known {
  /** By `performance.now()`: not again before. */
  until: number
  count?: Count | undefined
  expiry?: Date | undefined
}

export const openCounts = (db: Database, { stepRows = 5_000 }: { readonly stepRows?: number } = {}): Counts => {
  const inTurn = openLanes(2)
  const known = new Map<string, Known>()
  const begun = new Map<string, Promise<void>>()

  const count = async ({ id, principal, limits }: LedgerName): Promise<Count> => {
    const values = [id, principal, limits.certificatesAlive ?? 0]
    const [row] = (await inTurn(() => db.query<Count>(countUses, values))).rows
    if (!row) throw new Error('a count gave no row')
    return row
  }

  const importAll = async ({ id, principal, profiles, limits }: LedgerName): Promise<void> => {
    const isAlive = limits.certificatesAlive !== undefined
    const [span] = (await db.query<Span>(selectSpan, [id, principal, isAlive])).rows
    if (!span || span.is_begun) return
    let { after } = span
    const total = { certificates: 0, alive: 0, until: new Date(0) }
    for (;;) {
      const values = [id, principal, profiles, after, stepRows, span.size]
      const [step] = (await inTurn(() => db.query<ImportRow>(importStep, values))).rows
      if (!step || step.last === null) break
      after = step.last
      total.certificates += step.certificates
      total.alive += step.alive
      if (step.until && step.until > total.until) total.until = step.until
    }
    await db.query(insertBeginning, [id, principal, total.certificates, total.alive, total.until])
  }

  return {
    of: (ledger) => known.get(keyOf(ledger))?.count,
    expiryOf: (ledger) => known.get(keyOf(ledger))?.expiry,
    settle: (ledger) => {
      const found = known.get(keyOf(ledger))
      if (found) found.count = undefined
    },
    recount: async (ledger) => {
      const key = keyOf(ledger)
      const last = known.get(key)
      const started = performance.now()
      if (last && last.until > started) return false
      if (known.size >= mostKnown) known.clear()
      // Before it is asked, so that what cannot be counted in time is not asked for again at once.
      const pause = pauseMs + Math.min(longestPauseMs, Math.max(0, ...Object.values(ledger.limits)) * pauseMsEach)
      const entry: Known = { until: started + pause, expiry: last?.expiry }
      known.set(key, entry)
      try {
        entry.count = await count(ledger)
        entry.expiry = entry.count.expiry ?? undefined
      } finally {
        const ended = performance.now()
        entry.until = Math.max(entry.until, ended + Math.min(longestPauseMs, restShare * (ended - started)))
      }
      return true
    },
    begin: async (ledger) => {
      const key = keyOf(ledger)
      let work = begun.get(key)
      if (!work) {
        work = importAll(ledger).finally(() => begun.delete(key))
        work.catch(() => {})
        begun.set(key, work)
      }
      if ((await withDeadline(work, importPatienceMs)) === 'late')
        throw new Problem('limit.unavailable', 'What was issued before this limit is still being counted.', {
          retryAfter: 2,
        })
    },
  }
}

/** What was counted up to one limit says nothing of a higher one. */
const keyOf = ({ id, principal, limits }: LedgerName): string =>
  [id, principal, limits.certificatesAlive ?? ''].join('\n')

interface Span {
  readonly after: number
  readonly size: number
  readonly is_begun: boolean
}

interface ImportRow {
  /** The entry up to which it has come; null: there was nothing left. */
  readonly last: number | null
  readonly certificates: number
  readonly alive: number
  readonly until: Date | null
}

// Statements ------------------------------------------------------------------------------------------------------------

const dayOf = (time: string): string => `date_trunc('day', ${time}, 'UTC')`
const today = dayOf('now()')
/** A day would have 23 or 25 where the session is in another time zone and its clocks are changed. */
const aDay = `interval '24 hours'`
const midnight = `${today} + ${aDay}`

/**
 * Of the day only what is of the day, by the ledger's own time (see `hold_ledger`); what is alive only up to its limit, the
 * first that expire first. One that is on hold may be back tomorrow.
 */
const countUses = {
  name: 'count_limit_uses',
  text: `
    with newest as materialized (
      select number, serial, at, day from limit_uses
      where grant_id = $1 and principal = $2 and number > 0 order by number desc limit 1
    ), ledger as materialized (
      select greatest(now(), (select greatest(at, day::timestamp at time zone 'UTC') from newest)) as present
    ), today as materialized (
      select count(*)::integer as certificates, coalesce(sum(u.names), 0)::integer as names
      from limit_uses u left join lateral (select kind from outcomes where serial = u.serial limit 1) o on true
      where u.grant_id = $1 and u.principal = $2 and u.at >= (select ${dayOf('present')} from ledger)
        and o.kind is distinct from 'unsigned'
    ), living as materialized (
      select u.not_after
      from limit_uses u left join lateral (select kind from outcomes where serial = u.serial limit 1) o on true
        left join lateral (
          select change, reason from revocations v where v.serial = u.serial order by v.entry desc limit 1
        ) r on true
      where u.grant_id = $1 and u.principal = $2 and ${isLivingAt('u.not_after', 'now()')}
        and o.kind is distinct from 'unsigned'
        and (r.change is null or r.change = 'released' or r.reason = 'certificateHold')
      order by u.not_after limit $3::integer
    )
    select certificates, names, (select count(*) from living)::integer as alive,
      (select date_trunc('second', min(not_after)) + interval '1 second' from living) as expiry, present as at, ${dayOf('present')} + ${aDay} as midnight,
      coalesce((select number from newest), 0) as number, coalesce((select encode(serial, 'hex') from newest), '') as newest
    from today, ledger`,
}

/** What comes on the roll later, where nobody has begun the ledger yet, is counted in it. */
const selectSpan = {
  text: `
    select case when $3 then -1 else first_entry_from(${today}) - 1 end as after, size,
      exists (select from limit_uses where grant_id = $1 and principal = $2 and number > 0) as is_begun
    from roll where id = 1`,
}

/** Twice is once, also by two instances. How many names it has nobody has counted. */
const importStep = {
  name: 'import_limit_uses',
  text: `
    with step as materialized (
      select serial, entry, at, not_after, profile = any ($3::text[]) as is_asked from outcomes
      where kind = 'certificate' and principal = $2 and entry > $4 and entry < $6 order by entry limit $5
    ), counting as materialized (
      select *, greatest(not_after, ${midnight}) as until from step
      where is_asked and (${isLivingAt('not_after', 'now()')} or at >= ${today})
    ), added as (
      insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
        day_names, alive)
      select $1, $2, -1 - entry, serial, at, 0, not_after, until, (at at time zone 'UTC')::date, 0, 0, 0 from counting
      on conflict do nothing
    )
    select (select max(entry) from step) as last, count(*) filter (where at >= ${today})::integer as certificates,
      count(*) filter (where ${isLivingAt('not_after', 'now()')})::integer as alive, max(until) as until
    from counting`,
}

/** Only where nobody else has begun it: what is issued from then on counts on from there. */
const insertBeginning = {
  text: `
    insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
      day_names, alive)
    select $1, $2, (extract(epoch from present) * 1000000)::bigint, '', 'epoch', 0, 'epoch', greatest(midnight, $5),
      (present at time zone 'UTC')::date, $3, 0, $4
    from hold_ledger($1, $2, null) where number is null`,
}

const mostKnown = 10_000
/** Milliseconds between two counts of a ledger: that long, a place that came free may not be seen. */
const pauseMs = 1_000
/** And as much for each of what the limit allows: 100,000 take some 0.2 s to count. */
const pauseMsEach = 0.1
/** Where it takes longer than that, so many times as long as it took. */
const restShare = 10
const longestPauseMs = 60_000
const importPatienceMs = 3_000
