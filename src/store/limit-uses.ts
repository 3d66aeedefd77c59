/**
 * Intents of grants that limit certificates or names. Whoever records one holds the ledger of each of its grants alone, so
 * that all instances together never go beyond a limit. A ledger is read by its newest row, whose totals are at least what
 * they truly are: only where they leave no room is everything counted anew, without what expired, was revoked or was never
 * signed.
 */
import type { Booking, CountedGrant, CountedLimits } from '../ca/limits.ts'
import type { Meter } from '../ca/meter.ts'
import type { Intent, Recorder } from '../ca/recorder.ts'
import type { Problem } from '../errors.ts'
import { limitReached } from '../limits.ts'
import type { Database, Queryable } from './database.ts'

export type IntentEnd = Awaited<ReturnType<Recorder['recordIntent']>>
export type BookedIntent = Intent & { readonly booking: Booking }

export interface LimitedDeps {
  readonly db: Database
  readonly meter: Pick<Meter, 'limited'>
  /** Records them all, or says of each what stands against it. */
  readonly insert: (tx: Queryable, batch: readonly Intent[]) => Promise<readonly IntentEnd[]>
}

/** Records as `insertIntents` does, as many as fit. */
export const openLimited = ({ db, meter, insert }: LimitedDeps) => {
  const recounts = new Map<string, Recount>()
  return (batch: readonly BookedIntent[]): Promise<(IntentEnd | Problem)[]> =>
    db.transaction(async (tx) => {
      const ledgers = await holdLedgers(tx, batch)
      await recountFull(tx, { batch, ledgers, recounts })
      const ends = new Map<BookedIntent, IntentEnd | Problem>()
      const uses: Use[] = []
      let open = batch
      while (open.length > 0) {
        const { fitting, lacking } = choose(open, ledgers)
        const answers = await insert(tx, fitting)
        fitting.forEach((intent, i) => {
          ends.set(intent, answers[i] ?? 'taken')
          if (answers[i] === 'recorded') uses.push(...use(intent, ledgers))
        })
        // What was not recorded takes no room: then others may have it.
        if (fitting.length === 0 || answers.every((end) => end === 'recorded')) {
          const taken = await findTaken(tx, lacking)
          for (const intent of lacking) {
            const problem = taken.has(intent) ? 'taken' : lackOf(intent, ledgers)
            if (typeof problem === 'object') meter.limited(problem.options.reason ?? '')
            ends.set(intent, problem ?? 'taken')
          }
          break
        }
        open = lacking
      }
      if (uses.length > 0) await tx.query(insertUses, [JSON.stringify(uses)])
      return batch.map((intent) => ends.get(intent) ?? 'taken')
    })
}

// Ledgers -------------------------------------------------------------------------------------------------------------

/** Totals of one grant and principal, at this moment. */
interface Ledger {
  readonly grant: string
  readonly principal: string
  readonly now: Date
  /** The end of the day of `now`, by UTC. */
  readonly midnight: Date
  number: number
  certificates: number
  names: number
  alive: number
  /** When the first of those that are alive expires, as far as it is known. */
  expiry?: Date
}

type Ledgers = ReadonlyMap<string, Ledger>

interface LedgerRow {
  readonly grant_id: string
  readonly principal: string
  readonly number: number | null
  readonly certificates: number | null
  readonly names: number | null
  readonly alive: number | null
  readonly now: Date
  readonly midnight: Date
}

const keyOf = (grant: string, principal: string): string => `${grant}\n${principal}`
const ledgersOf = ({ booking, request }: BookedIntent): readonly string[] =>
  booking.grants.map(({ id }) => keyOf(id, request.principal))

/** Nobody else has any of them before the end of the transaction. */
const holdLedgers = async (tx: Queryable, batch: readonly BookedIntent[]): Promise<Map<string, Ledger>> => {
  const asked = new Map<string, CountedGrant & { readonly principal: string }>()
  for (const { booking, request } of batch)
    for (const grant of booking.grants)
      asked.set(keyOf(grant.id, request.principal), { ...grant, principal: request.principal })
  const parameter = JSON.stringify([...asked.values()].map(({ id, principal }) => ({ grant_id: id, principal })))
  await tx.query(lockLedgers, [parameter])
  const read = async (): Promise<readonly LedgerRow[]> => (await tx.query<LedgerRow>(selectLedgers, [parameter])).rows
  const rows = await read()
  const fresh = rows.filter(({ number }) => number === null)
  for (const { grant_id: grant, principal } of fresh) {
    const { profiles = [], limits = {} } = asked.get(keyOf(grant, principal)) ?? {}
    await tx.query(limits.certificatesAlive === undefined ? importToday : importAlive, [grant, principal, profiles])
  }
  const known = fresh.length === 0 ? rows : await read()
  return new Map(known.map((row) => [keyOf(row.grant_id, row.principal), ledgerOf(row)]))
}

const ledgerOf = ({
  grant_id: grant,
  principal,
  number,
  certificates,
  names,
  alive,
  now,
  midnight,
}: LedgerRow): Ledger => ({
  ...{ grant, principal, now, midnight },
  number: number ?? 0,
  certificates: certificates ?? 0,
  names: names ?? 0,
  alive: alive ?? 0,
})

// Room ----------------------------------------------------------------------------------------------------------------

/** How much one more takes of what a limit counts. */
const counts: { readonly [L in keyof CountedLimits]-?: (ledger: Ledger, names: number) => number } = {
  certificatesPerDay: ({ certificates }) => certificates + 1,
  namesPerDay: (ledger, names) => ledger.names + names,
  certificatesAlive: ({ alive }) => alive + 1,
}
const countedNames = Object.keys(counts) as readonly (keyof CountedLimits)[]

/** The first limit that has no room, with its ledger. */
const findLack = ({ booking, request }: BookedIntent, ledgers: Ledgers) => {
  for (const { id, limits } of booking.grants) {
    const ledger = ledgers.get(keyOf(id, request.principal))
    if (!ledger) throw new Error(`the ledger of the grant ${id} is not held`)
    for (const name of countedNames) {
      const value = limits[name]
      if (value !== undefined && counts[name](ledger, booking.names) > value) return { name, value, ledger }
    }
  }
  return undefined
}

const lackOf = (intent: BookedIntent, ledgers: Ledgers): Problem | undefined => {
  const lack = findLack(intent, ledgers)
  if (!lack) return undefined
  const { name, value, ledger } = lack
  const frees = name === 'certificatesAlive' ? (ledger.expiry ?? ledger.now) : ledger.midnight
  const waitMs = Math.max(0, frees.getTime() - ledger.now.getTime())
  return limitReached(name, { value, waitMs, now: ledger.now })
}

const add = (ledger: Ledger, names: number): void => {
  ledger.certificates += 1
  ledger.names += names
  ledger.alive += 1
}

/** In order of arrival, those that fit together. The ledgers stay as they are. */
const choose = (open: readonly BookedIntent[], ledgers: Ledgers) => {
  const tried = new Map([...ledgers].map(([key, ledger]) => [key, { ...ledger }]))
  const fitting: BookedIntent[] = []
  const lacking: BookedIntent[] = []
  for (const intent of open) {
    const fits = findLack(intent, tried) === undefined
    ;(fits ? fitting : lacking).push(intent)
    if (!fits) continue
    for (const key of ledgersOf(intent)) {
      const ledger = tried.get(key)
      if (ledger) add(ledger, intent.booking.names)
    }
  }
  return { fitting, lacking }
}

/** A row of a ledger, with its totals. */
interface Use {
  readonly grant_id: string
  readonly principal: string
  readonly number: number
  readonly serial: string
  readonly at: Date
  readonly names: number
  readonly not_after: Date
  readonly midnight: Date
  readonly certificates: number
  readonly day_names: number
  readonly alive: number
}

const use = (intent: BookedIntent, ledgers: Ledgers): readonly Use[] =>
  ledgersOf(intent).flatMap((key) => {
    const ledger = ledgers.get(key)
    if (!ledger) return []
    const { names, notAfter } = intent.booking
    add(ledger, names)
    ledger.number += 1
    const { grant, principal, number, certificates, names: dayNames, alive, now, midnight } = ledger
    return [
      {
        ...{ grant_id: grant, principal, number, serial: intent.serial.toString('hex'), at: now, names, midnight },
        ...{ not_after: notAfter, certificates, day_names: dayNames, alive },
      },
    ]
  })

// Counting anew -------------------------------------------------------------------------------------------------------

interface Recount {
  /** By `performance.now()`: not again before. */
  readonly until: number
  readonly expiry: Date | undefined
}

interface RecountRow {
  readonly certificates: number
  readonly names: number
  readonly alive: number
  readonly expiry: Date | null
}

interface Held {
  readonly batch: readonly BookedIntent[]
  readonly ledgers: Ledgers
  readonly recounts: Map<string, Recount>
}

/** Where the totals leave no room. Not too often, or who goes on asking would have everything counted all the time. */
const recountFull = async (tx: Queryable, { batch, ledgers, recounts }: Held): Promise<void> => {
  for (const intent of choose(batch, ledgers).lacking) {
    for (const { id, limits } of intent.booking.grants) {
      const key = keyOf(id, intent.request.principal)
      const ledger = ledgers.get(key)
      if (!ledger) continue
      const last = recounts.get(key)
      if (last && last.until > performance.now()) {
        if (last.expiry) ledger.expiry = last.expiry
        continue
      }
      const values = [id, intent.request.principal, ledger.midnight]
      const [row] = (await tx.query<RecountRow>(countUses, values)).rows
      if (!row) throw new Error('a count gave no row')
      Object.assign(ledger, { ...row, expiry: row.expiry ?? undefined })
      if (recounts.size >= mostRecounts) recounts.clear()
      const longer = Math.min(longestPauseMs, Math.max(0, ...Object.values(limits)) * pauseMsEach)
      const until = performance.now() + pauseMs + longer
      recounts.set(key, { until, expiry: ledger.expiry })
    }
  }
}

// Statements ------------------------------------------------------------------------------------------------------------

/**
 * In one order, whoever holds several. The lock of `state_for_intent` comes first, as it would come later: whoever moves an
 * issuer may stand between two that hold it.
 */
const lockLedgers = {
  name: 'lock_ledgers',
  text: `
    with shared as materialized (select pg_advisory_xact_lock_shared(4711000004)),
      ledger as materialized (
        select distinct hashtext(grant_id || chr(10) || principal) as key
        from json_to_recordset($1::json) as r (grant_id text, principal text) order by 1
      )
    select pg_advisory_xact_lock(4711001, key) from shared, ledger`,
}

const endOfDay = (at: string): string => `date_trunc('day', ${at}, 'UTC') + interval '1 day'`
const dayOf = (at: string): string => `(${at} at time zone 'UTC')::date`

const selectLedgers = {
  name: 'select_ledgers',
  text: `
    with present as materialized (select clock_timestamp() as now)
    select r.grant_id, r.principal, u.number, u.alive, now, ${endOfDay('now')} as midnight,
      case when u.day >= ${dayOf('now')} then u.certificates else 0 end as certificates,
      case when u.day >= ${dayOf('now')} then u.day_names else 0 end as names
    from present, json_to_recordset($1::json) as r (grant_id text, principal text)
    left join lateral (
      select * from limit_uses l where l.grant_id = r.grant_id and l.principal = r.principal order by number desc limit 1
    ) u on true`,
}

/** What there was before the first intent under a grant. How many names it has nobody has counted. */
const importOf = (condition: string): string => `
    insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
      day_names, alive)
    select $1, $2, row_number() over (order by entry), serial, at, 0, not_after, greatest(not_after, ${endOfDay('at')}),
      ${dayOf('clock_timestamp()')}, count(*) filter (where at >= date_trunc('day', now(), 'UTC')) over (), 0,
      count(*) filter (where not_after > now()) over ()
    from outcomes
    where kind = 'certificate' and principal = $2 and profile = any ($3::text[]) and ${condition}`
const importToday = {
  text: importOf(`entry >= first_entry_from(date_trunc('day', now(), 'UTC'))`),
}
const importAlive = { text: importOf(`(not_after > now() or at >= date_trunc('day', now(), 'UTC'))`) }

/** One that is on hold may be back tomorrow. */
const countUses = {
  name: 'count_limit_uses',
  text: `
    with used as (
      select u.at >= $3::timestamptz - interval '1 day' as is_today, u.names, u.not_after,
        u.not_after > clock_timestamp() and (r.change is null or r.change = 'released' or r.reason = 'certificateHold') as is_alive
      from limit_uses u left join outcomes o on o.serial = u.serial
        left join lateral (select * from revocations v where v.serial = u.serial order by v.entry desc limit 1) r on true
      where u.grant_id = $1 and u.principal = $2 and u.counts_until > clock_timestamp() and o.kind is distinct from 'unsigned'
    )
    select count(*) filter (where is_today)::integer as certificates,
      coalesce(sum(names) filter (where is_today), 0)::integer as names,
      count(*) filter (where is_alive)::integer as alive, min(not_after) filter (where is_alive) as expiry
    from used`,
}

const insertUses = {
  name: 'insert_limit_uses',
  text: `
    insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
      day_names, alive)
    select grant_id, principal, number, decode(serial, 'hex'), at, names, not_after, greatest(not_after, midnight),
      ${dayOf('at')}, certificates, day_names, alive
    from json_to_recordset($1::json) as r (grant_id text, principal text, number bigint, serial text, at timestamptz,
      names integer, not_after timestamptz, midnight timestamptz, certificates integer, day_names integer, alive integer)`,
}

const selectTaken = {
  name: 'select_taken',
  text: `
    select r.place from json_to_recordset($1::json) as r (place integer, principal text, key text, attempt integer)
    where exists (select from intents i
      where i.principal = r.principal and i.idempotency_key = r.key and i.attempt = r.attempt)`,
}

/** Another call of the same request may have had the last place: then its end is that of both. */
const findTaken = async (tx: Queryable, lacking: readonly BookedIntent[]): Promise<ReadonlySet<BookedIntent>> => {
  const asked = lacking.flatMap(({ request: { principal, key }, attempt }, place) =>
    key === null ? [] : [{ place, principal, key, attempt }],
  )
  if (asked.length === 0) return new Set()
  const { rows } = await tx.query<{ place: number }>(selectTaken, [JSON.stringify(asked)])
  return new Set(rows.flatMap(({ place }) => lacking[place] ?? []))
}

const mostRecounts = 10_000
/** Milliseconds between two counts of a ledger: that long, a place that came free may not be seen. */
const pauseMs = 1_000
/** And as much for each of what the limit allows: 100,000 take some 0.2 s to count. */
const pauseMsEach = 0.1
const longestPauseMs = 60_000
