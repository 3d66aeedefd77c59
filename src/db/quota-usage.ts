/**
 * Intents of grants that limit certificates or names. Whoever records one holds the ledger of each of its grants alone, so
 * that all instances together never go beyond a limit: in one statement, so that whoever stands still holds nothing. A
 * ledger is read by its newest row, whose totals are at least what they truly are: only where they leave no room is
 * everything counted anew (`limit-counts.ts`), without what expired, was revoked or was never signed.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { limitReached } from '../ca/access/limit-problems.ts'
import type { Booking, CountedLimits } from '../ca/access/limits.ts'
import type { Intent, IntentEnd } from '../ca/issuance/recorder.ts'
import type { Meter } from '../ca/meter.ts'
import { Problem } from '../errors.ts'
import { type Batch, openBatch } from '../lib/batch.ts'
import { type InLane, openLanes } from '../lib/semaphore.ts'
import type { Database } from './database.ts'
import { sqlState } from './errors.ts'
import { type Counts, type LedgerName, openCounts } from './quota-counts.ts'

export type BookedIntent = Intent & { readonly booking: Booking }

/** What is to be taken of which ledgers, as JSON for `bookedIntents`. */
export interface Asked {
  readonly ledgers: string
  readonly uses: string
}

/** Nothing was recorded: the ledgers as they are leave no room for all of it. */
export interface NoRoom {
  readonly ledgers: readonly LedgerRow[]
}

export interface LimitedDeps {
  readonly db: Database
  readonly meter: Pick<Meter, 'limited' | 'batch'>
  /** Records them all, or says of each what stands against it; or records nothing. */
  readonly insert: (batch: readonly BookedIntent[], asked: Asked) => Promise<readonly IntentEnd[] | NoRoom>
  readonly max: number
  readonly isolate: (error: unknown) => boolean
}

export interface Limited {
  add(intent: BookedIntent): Promise<IntentEnd>
  drain(): Promise<void>
}

/** Each principal by itself, so that nobody waits for the ledgers of others, or fails by them. */
export const openLimited = (deps: LimitedDeps): Limited => {
  const booking: BookingDeps = { ...deps, counts: openCounts(deps.db), inLane: openLanes(mostAtATime) }
  const open = new Map<string, Batch<BookedIntent, IntentEnd>>()
  const forget = async (principal: string, batch: Batch<BookedIntent, IntentEnd>): Promise<void> => {
    while (batch.pending > 0) await batch.drain()
    open.delete(principal)
  }
  const batchFor = (principal: string): Batch<BookedIntent, IntentEnd> => {
    const batch = openBatch<BookedIntent, IntentEnd>({
      run: (items) => book(booking, items),
      max: deps.max,
      lanes: 1,
      isolate: deps.isolate,
      observe: (size) => deps.meter.batch('intent', size),
    })
    open.set(principal, batch)
    return batch
  }
  return {
    add: (intent) => {
      const { principal } = intent.request
      const known = open.get(principal)
      const batch = known ?? batchFor(principal)
      const end = batch.add(intent)
      if (!known) void forget(principal, batch)
      return end
    },
    drain: async () => {
      await Promise.all([...open.values()].map((batch) => batch.drain()))
    },
  }
}

interface BookingDeps extends LimitedDeps {
  readonly counts: Counts
  readonly inLane: InLane
}

/** As many as fit. Without having looked at first: mostly there is room for all. */
const book = async (deps: BookingDeps, batch: readonly BookedIntent[]): Promise<(IntentEnd | Error)[]> => {
  const ends: Ends = new Map()
  try {
    await settle(deps, batch, ends)
  } catch (error) {
    // Some may be recorded already.
    if (ends.size === 0 || !(error instanceof Error)) throw error
    return batch.map((intent) => ends.get(intent) ?? error)
  }
  return batch.map((intent) => ends.get(intent) ?? 'taken')
}

const settle = async (deps: BookingDeps, batch: readonly BookedIntent[], ends: Ends): Promise<void> => {
  let open = batch
  let chosen = batch
  for (let tries = 0; tries < mostTries; tries += 1) {
    const told = await insertPatiently(deps, open, chosen)
    if ('ledgers' in told) {
      const ledgers = ledgersOf(deps.counts, open, told.ledgers)
      if (await begin(deps.counts, ledgers)) continue
      const fitting = choose(open, ledgers)
      if (fitting.length === 0 && !(await recount(deps.counts, open))) {
        await refuse(deps, { lacking: open, ledgers, ends })
        return
      }
      chosen = fitting.length > 0 ? fitting : open
      continue
    }
    for (const [i, intent] of chosen.entries()) ends.set(intent, told[i] ?? 'taken')
    // Those that did not fit are looked at again: what was not recorded takes no room.
    open = open.filter((intent) => !ends.has(intent))
    if (open.length === 0) return
    chosen = open
  }
  throw new Problem('limit.unavailable', 'Others take what is left of the limits meanwhile.', { retryAfter: 1 })
}

/** Whoever holds a ledger has it for the time of one statement: it is worth while to come again. */
const insertPatiently = async (
  { counts, inLane, insert }: BookingDeps,
  open: readonly BookedIntent[],
  chosen: readonly BookedIntent[],
) => {
  const started = performance.now()
  for (let pause = firstPauseMs; ; pause = Math.min(longestPauseMs, pause * 2)) {
    try {
      const told = await inLane(() => insert(chosen, askedOf(counts, open, chosen)))
      if ('ledgers' in told) return told
      const recorded = chosen.filter((_, i) => told[i] === 'recorded')
      for (const ledger of namesOf(recorded).values()) counts.settle(ledger)
      return told
    } catch (error) {
      if (sqlState(error) !== lockNotAvailable || performance.now() - started > patienceMs) throw error
      await sleep(pause)
    }
  }
}

/** Whether there were ledgers that had to be begun. */
const begin = async (counts: Counts, ledgers: Ledgers): Promise<boolean> => {
  const fresh = [...ledgers.values()].filter(({ isFresh }) => isFresh)
  for (const { name } of fresh) await counts.begin(name)
  return fresh.length > 0
}

/** Whether anything is known now that was not: what truly counts, where there is no room. */
const recount = async (counts: Counts, open: readonly BookedIntent[]): Promise<boolean> => {
  let isNew = false
  for (const name of namesOf(open).values()) if (await counts.recount(name)) isNew = true
  return isNew
}

type Ends = Map<BookedIntent, IntentEnd | Problem>

interface Lacking {
  readonly lacking: readonly BookedIntent[]
  readonly ledgers: Ledgers
  readonly ends: Ends
}

const refuse = async ({ db, meter }: BookingDeps, { lacking, ledgers, ends }: Lacking): Promise<void> => {
  const taken = await findTaken(db, lacking)
  for (const intent of lacking) {
    const problem = taken.has(intent) ? 'taken' : lackOf(intent, ledgers)
    if (typeof problem === 'object') meter.limited(problem.options.reason ?? '')
    ends.set(intent, problem ?? 'taken')
  }
}

// Ledgers -------------------------------------------------------------------------------------------------------------

/** Totals of one grant and principal, at this moment. */
interface Ledger {
  readonly name: LedgerName
  readonly isFresh: boolean
  readonly now: Date
  /** The end of the day of `now`, by UTC. */
  readonly midnight: Date
  certificates: number
  names: number
  alive: number
  /** When the first of those that are alive expires, as far as it is known. */
  readonly expiry: Date | undefined
}

type Ledgers = ReadonlyMap<string, Ledger>

/** As JSON. */
export interface LedgerRow {
  readonly grant_id: string
  readonly number: number | null
  readonly certificates: number | null
  readonly names: number | null
  readonly alive: number | null
  readonly present: string
  readonly midnight: string
}

/** By grant: all are of one principal. In one order, whoever holds several. */
const namesOf = (batch: readonly BookedIntent[]): ReadonlyMap<string, LedgerName> => {
  const names = new Map<string, LedgerName>()
  for (const { booking, request } of batch)
    for (const grant of booking.grants) names.set(grant.id, { ...grant, principal: request.principal })
  return new Map([...names].sort(([a], [b]) => (a < b ? -1 : 1)))
}

const ledgersOf = (counts: Counts, batch: readonly BookedIntent[], rows: readonly LedgerRow[]): Ledgers => {
  const names = namesOf(batch)
  return new Map(
    rows.flatMap((row) => {
      const name = names.get(row.grant_id)
      return name ? [[row.grant_id, ledgerOf(name, row, counts.expiryOf(name))]] : []
    }),
  )
}

const ledgerOf = (
  name: LedgerName,
  { number, certificates, names, alive, present, midnight }: LedgerRow,
  expiry: Date | undefined,
): Ledger => ({
  ...{ name, isFresh: number === null, now: new Date(present), midnight: new Date(midnight), expiry },
  ...{ certificates: certificates ?? 0, names: names ?? 0, alive: alive ?? 0 },
})

/** All ledgers of those that are open, and what the chosen take of them if each is recorded. */
const askedOf = (counts: Counts, open: readonly BookedIntent[], chosen: readonly BookedIntent[]): Asked => {
  const taken = new Map<string, { certificates: number; names: number }>()
  const uses = chosen.flatMap(({ booking: { grants, names, notAfter }, serial }) =>
    grants.map(({ id }) => {
      const sum = taken.get(id) ?? { certificates: 0, names: 0 }
      sum.certificates += 1
      sum.names += names
      taken.set(id, sum)
      return { grant_id: id, serial: serial.toString('hex'), names, not_after: notAfter }
    }),
  )
  const ledgers = [...namesOf(open).values()].map((name) => {
    const { id, principal, limits } = name
    const count = counts.of(name)
    return {
      ...{ grant_id: id, principal },
      ...{ taken_certificates: taken.get(id)?.certificates, taken_names: taken.get(id)?.names },
      ...{ most_certificates: limits.certificatesPerDay, most_names: limits.namesPerDay },
      most_alive: limits.certificatesAlive,
      ...(count && {
        ...{ after: count.number, newest: count.newest, counted_at: count.at, until: count.midnight },
        ...{ counted_certificates: count.certificates, counted_names: count.names },
        ...(limits.certificatesAlive !== undefined && { counted_alive: count.alive }),
      }),
    }
  })
  return { ledgers: JSON.stringify(ledgers), uses: JSON.stringify(uses) }
}

// Room ----------------------------------------------------------------------------------------------------------------

/** How much one more takes of what a limit counts. */
const counts: { readonly [L in keyof CountedLimits]-?: (ledger: Ledger, names: number) => number } = {
  certificatesPerDay: ({ certificates }) => certificates + 1,
  namesPerDay: (ledger, names) => ledger.names + names,
  certificatesAlive: ({ alive }) => alive + 1,
}
const countedNames = Object.keys(counts) as readonly (keyof CountedLimits)[]

/** The first limit that has no room, with its ledger. */
const findLack = ({ booking }: BookedIntent, ledgers: Ledgers) => {
  for (const { id, limits } of booking.grants) {
    const ledger = ledgers.get(id)
    if (!ledger) throw new Error(`the ledger of the grant ${id} was not looked at`)
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
const choose = (open: readonly BookedIntent[], ledgers: Ledgers): readonly BookedIntent[] => {
  const tried = new Map([...ledgers].map(([key, ledger]) => [key, { ...ledger }]))
  const fitting: BookedIntent[] = []
  for (const intent of open) {
    if (findLack(intent, tried)) continue
    fitting.push(intent)
    for (const { id } of intent.booking.grants) {
      const ledger = tried.get(id)
      if (ledger) add(ledger, intent.booking.names)
    }
  }
  return fitting
}

// Statements ------------------------------------------------------------------------------------------------------------

/**
 * What `insert_intents` has beside it here, by the places of the ledgers and the uses. Ledgers are held before the lock of
 * `state_for_intent` is: so whoever waits for one keeps nobody from moving an issuer. What was counted holds only where the
 * very row is still there that was the newest then, and it is no earlier than it was then: after a database was restored,
 * has lost its last commits, or has another clock, numbers may be given out again. The totals run over those that were
 * recorded: what another call had recorded before takes no room.
 */
export const bookedIntents = (ledgers: string, uses: string) => ({
  steps: `
    ledger as materialized (
      select r.*, h.number, h.present, h.midnight,
        least(h.certificates, case when h.midnight > r.until then 0 else counted_certificates end + m.certificates)
          as certificates,
        least(h.names, case when h.midnight > r.until then 0 else counted_names end + m.names) as names,
        least(h.alive, counted_alive + m.alive) as alive
      from json_to_recordset(${ledgers}::json) as r (grant_id text, principal text, taken_certificates integer, taken_names integer,
        most_certificates integer, most_names integer, most_alive integer, after bigint, newest text,
        counted_at timestamptz, until timestamptz, counted_certificates integer, counted_names integer,
        counted_alive integer)
      cross join lateral hold_ledger(r.grant_id, r.principal, (select number from limit_uses u where u.grant_id = r.grant_id
        and u.principal = r.principal and u.number = r.after and u.serial = decode(r.newest, 'hex'))) h
      left join lateral (select h.more_certificates as certificates, h.more_names as names, h.more_alive as alive) m
        on h.present >= r.counted_at
    ), room as materialized (
      select bool_and(number is not null and coalesce(certificates + taken_certificates <= most_certificates, true)
        and coalesce(names + taken_names <= most_names, true)
        and coalesce(alive + taken_certificates <= most_alive, true)) as is_enough from ledger
    ),`,
  condition: '(select is_enough from room)',
  uses: `
    , counted as (
      insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
        day_names, alive)
      select l.grant_id, l.principal, l.number + row_number() over running, added.serial, l.present, u.names, u.not_after,
        greatest(u.not_after, l.midnight), (l.present at time zone 'UTC')::date,
        l.certificates + row_number() over running, l.names + sum(u.names) over running,
        l.alive + row_number() over running
      from added join json_to_recordset(${uses}::json) as u (grant_id text, serial text, names integer, not_after timestamptz)
        on decode(u.serial, 'hex') = added.serial join ledger l using (grant_id)
      window running as (partition by grant_id order by added.serial)
    )`,
  answer: `,
      case when not (select is_enough from room) then (
        select json_agg(json_build_object('grant_id', grant_id, 'number', number, 'certificates', certificates, 'names',
          names, 'alive', alive, 'present', present, 'midnight', midnight)) from ledger
      ) end as ledgers`,
})

const selectTaken = {
  name: 'select_taken',
  text: `
    select r.place from json_to_recordset($1::json) as r (place integer, principal text, key text, attempt integer)
    where exists (select from intents i
      where i.principal = r.principal and i.idempotency_key = r.key and i.attempt = r.attempt)`,
}

/** Another call of the same request may have had the last place: then its end is that of both. */
const findTaken = async (db: Database, lacking: readonly BookedIntent[]): Promise<ReadonlySet<BookedIntent>> => {
  const asked = lacking.flatMap(({ request: { principal, key }, attempt }, place) =>
    key === null ? [] : [{ place, principal, key, attempt }],
  )
  if (asked.length === 0) return new Set()
  const { rows } = await db.query<{ place: number }>(selectTaken, [JSON.stringify(asked)])
  return new Set(rows.flatMap(({ place }) => lacking[place] ?? []))
}

/** Principals whose intents are recorded at the same time; the others wait. */
const mostAtATime = 4
/** Others may take what was left, again and again. */
const mostTries = 20
/** Milliseconds. `hold_ledger` waits for a quarter of a second. */
const firstPauseMs = 20
const longestPauseMs = 400
const patienceMs = 4_500
const lockNotAvailable = '55P03'
