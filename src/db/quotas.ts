/**
 * Intents of principals whose grants limit certificates or names. Each principal's are counted and recorded in one transaction
 * that holds its advisory lock, so that all instances together never exceed a limit.
 */
import { limitReached } from '../ca/access/limit-problems.ts'
import type { CountedGrant, CountedLimits } from '../ca/access/limits.ts'
import type { Intent, IntentEnd } from '../ca/issuance/recorder.ts'
import type { Meter } from '../ca/meter.ts'
import type { Problem } from '../errors.ts'
import { type Batch, openBatch } from '../lib/batch.ts'
import type { Database, Queryable } from './database.ts'
import { isLivingAt } from './validity.ts'

export type LimitedIntent = Intent & { readonly limitedBy: readonly CountedGrant[] }

export interface QuotaDeps {
  readonly db: Database
  readonly meter: Pick<Meter, 'limited' | 'batch'>
  readonly insert: (tx: Queryable, batch: readonly Intent[]) => Promise<readonly IntentEnd[]>
  readonly max: number
  readonly isolate: (error: unknown) => boolean
}

export interface Quotas {
  /** Rejects with `limit.*` where a grant leaves no room. */
  add(intent: LimitedIntent): Promise<IntentEnd>
  drain(): Promise<void>
}

/** A batch for each principal: it neither waits for the locks of others, nor fails with them. */
export const openQuotas = (deps: QuotaDeps): Quotas => {
  const open = new Map<string, Batch<LimitedIntent, IntentEnd>>()
  const batchOf = (principal: string): Batch<LimitedIntent, IntentEnd> => {
    const known = open.get(principal)
    if (known) return known
    const batch = openBatch<LimitedIntent, IntentEnd>({
      run: (items) => recordWithin(deps, principal, items),
      max: deps.max,
      lanes: 1,
      isolate: deps.isolate,
      observe: (size) => deps.meter.batch('intent', size),
    })
    open.set(principal, batch)
    return batch
  }
  return {
    add: async (intent) => {
      const { principal } = intent.request
      const batch = batchOf(principal)
      try {
        return await batch.add(intent)
      } finally {
        if (batch.pending === 0) open.delete(principal)
      }
    },
    drain: async () => {
      await Promise.all([...open.values()].map((batch) => batch.drain()))
    },
  }
}

const recordWithin = ({ db, meter, insert }: QuotaDeps, principal: string, batch: readonly LimitedIntent[]) =>
  db.transaction(async (tx) => {
    await tx.query(lockPrincipal, [principal])
    const { rows: usage } = await tx.query<Usage>(countUsage, [principal])
    const ends = new Map<Intent, IntentEnd | Problem>()
    const recorded: LimitedIntent[] = []
    const open = () => batch.filter((intent) => !ends.has(intent))
    for (;;) {
      const fitting = choose(open(), usage, recorded)
      if (fitting.length === 0) break
      const told = await insert(tx, fitting)
      for (const [i, intent] of fitting.entries()) {
        ends.set(intent, told[i] ?? 'taken')
        if (told[i] === 'recorded') recorded.push(intent)
      }
    }
    const taken = await findTaken(tx, open())
    for (const intent of open()) {
      const problem = taken.has(intent) ? undefined : findLack(intent, usage, recorded)
      if (problem) meter.limited(problem.options.reason ?? '')
      ends.set(intent, problem ?? 'taken')
    }
    return batch.map((intent) => ends.get(intent) ?? 'taken')
  })

// Room ----------------------------------------------------------------------------------------------------------------

/** What is on record of one principal and profile. */
interface Usage {
  readonly profile: string
  readonly certificates: number
  readonly names: number
  readonly alive: number
  /** When the first of those that are alive ends. */
  readonly expiry: Date | null
  readonly now: Date
  readonly midnight: Date
}

/** In order of arrival, those that fit together. */
const choose = (open: readonly LimitedIntent[], usage: readonly Usage[], recorded: readonly LimitedIntent[]) => {
  const fitting: LimitedIntent[] = []
  for (const intent of open) if (!findLack(intent, usage, [...recorded, ...fitting])) fitting.push(intent)
  return fitting
}

/** The first limit that leaves no room, as a problem. */
const findLack = (
  intent: LimitedIntent,
  usage: readonly Usage[],
  more: readonly LimitedIntent[],
): Problem | undefined => {
  for (const { profiles, limits } of intent.limitedBy) {
    const counted = usage.filter(({ profile }) => profiles.includes(profile))
    const added = [...more.filter(({ profile }) => profiles.includes(profile.name)), intent]
    const totals: Readonly<Record<keyof CountedLimits, number>> = {
      certificatesPerDay: sum(counted, ({ certificates }) => certificates) + added.length,
      namesPerDay: sum(counted, ({ names }) => names) + sum(added, ({ names }) => names),
      certificatesAlive: sum(counted, ({ alive }) => alive) + added.length,
    }
    for (const name of countedLimits) {
      const value = limits[name]
      if (value !== undefined && totals[name] > value) return problemOf(name, value, counted)
    }
  }
  return undefined
}

const problemOf = (name: keyof CountedLimits, value: number, counted: readonly Usage[]): Problem => {
  const { now = new Date(), midnight = now } = counted[0] ?? {}
  const expiries = counted.flatMap(({ expiry }) => expiry ?? []).map((expiry) => expiry.getTime())
  const frees = name === 'certificatesAlive' ? Math.min(...expiries) : midnight.getTime()
  return limitReached(name, { value, waitMs: Number.isFinite(frees) ? Math.max(0, frees - now.getTime()) : 0, now })
}

const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0)

const countedLimits = ['certificatesPerDay', 'namesPerDay', 'certificatesAlive'] as const

// Statements ----------------------------------------------------------------------------------------------------------

const lockPrincipal = {
  name: 'lock_quotas',
  text: 'select pg_advisory_xact_lock(4711001, hashtext($1))',
}

/** An intent that may have been signed counts. What is on hold may come back, and counts as alive. */
const countUsage = {
  name: 'count_quotas',
  text: `
    with present as materialized (
      select clock_timestamp() as now, date_trunc('day', clock_timestamp(), 'UTC') as day
    ), counted as (
      select i.profile, i.names, i.created_at >= p.day as is_today, i.not_after,
        ${isLivingAt('i.not_after', 'p.now')} and (r.change is null or r.change = 'released' or r.reason = 'certificateHold')
          as is_alive
      from present p join intents i on i.principal = $1 and i.not_after >= p.day
        left join outcomes o using (serial)
        left join lateral (
          select change, reason from revocations v where v.serial = i.serial order by v.entry desc limit 1
        ) r on true
      where o.kind is distinct from 'unsigned'
    )
    select c.profile, count(*) filter (where is_today)::integer as certificates,
      coalesce(sum(names) filter (where is_today), 0)::integer as names,
      count(*) filter (where is_alive)::integer as alive,
      date_trunc('second', min(not_after) filter (where is_alive)) + interval '1 second' as expiry,
      p.now, p.day + interval '24 hours' as midnight
    from counted c, present p group by c.profile, p.now, p.day`,
}

const selectTaken = {
  name: 'select_taken',
  text: `
    select r.place from json_to_recordset($1::json) as r (place integer, principal text, key text, attempt integer)
    where exists (select from intents i
      where i.principal = r.principal and i.idempotency_key = r.key and i.attempt = r.attempt)`,
}

/** Another call of the same request may have had the last place: its end is that of both. */
const findTaken = async (db: Queryable, lacking: readonly LimitedIntent[]): Promise<ReadonlySet<Intent>> => {
  const asked = lacking.flatMap(({ request: { principal, key }, attempt }, place) =>
    key === null ? [] : [{ place, principal, key, attempt }],
  )
  if (asked.length === 0) return new Set()
  const { rows } = await db.query<{ place: number }>(selectTaken, [JSON.stringify(asked)])
  return new Set(rows.flatMap(({ place }) => lacking[place] ?? []))
}
