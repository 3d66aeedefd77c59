/** Refusals: rows up to a bound a minute and principal; beyond it a count, so that the audit can't be flooded. */

import type { Refusal } from '../ca/issuance/recorder.ts'
import type { Meter } from '../ca/meter.ts'
import { isProblem } from '../errors.ts'
import { openBatch } from '../lib/batch.ts'
import type { Log } from '../log.ts'
import type { Database } from './database.ts'
import { originText } from './origins.ts'
import { storable } from './search/pages.ts'

export interface RefusalsDeps {
  readonly db: Database
  readonly meter: Meter
  readonly log: Log
  readonly clock: () => Date
  readonly newId: () => string
  readonly refusalsPerMinute: number
}

export interface Refusals {
  /** Durable, or counted, when it resolves. Never rejects: a refusal is told even when it can't be kept. */
  add(refusal: Refusal): Promise<void>
  drain(): Promise<void>
  /** Writes the counts that are still in memory, those of the running minute too. */
  close(): Promise<void>
}

const insertRefusalsStatement = {
  name: 'insert_refusals',
  text: `
    insert into refusals (id, at, principal, profile, code, digest, detail, byte_offset, violations, checks,
      checks_left_out, origin)
    select id, clock_timestamp(), principal, profile, code, decode(digest, 'hex'), detail, byte_offset, violations, checks,
      left_out, origin
    from json_to_recordset($1::json) as r (id uuid, principal text, profile text, code text, digest text, detail text,
      byte_offset integer, violations jsonb, checks jsonb, left_out integer, origin text)`,
}

const insertCountsStatement = {
  name: 'insert_refusal_counts',
  text: `
    insert into refusal_counts (id, principal, minute, count)
    select id, principal, minute, count
    from json_to_recordset($1::json) as r (id uuid, principal text, minute timestamptz, count integer)
    on conflict (id) do nothing`,
}

/** Beyond the bound; its id stays, so that writing it again after a lost answer counts nothing twice. */
interface Count {
  readonly id: string
  readonly principal: string
  readonly minute: Date
  readonly count: number
}

export const openRefusals = ({ db, meter, log, clock, newId, refusalsPerMinute }: RefusalsDeps): Refusals => {
  let minute = minuteOf(clock())
  const seen = new Map<string, number>()
  let unwritten: readonly Count[] = []
  let writing: Promise<void> = Promise.resolve()
  const rows = openBatch({
    run: async (batch: readonly Refusal[]) => {
      await db.query(insertRefusalsStatement, [
        JSON.stringify(batch.map((refusal) => refusalParameter(refusal, newId()))),
      ])
      return batch.map(() => true)
    },
    max: maxBatch,
    lanes: 1,
    // A database that is away is to blame for all alike; what it does not take may be one of them.
    isolate: (error) => !isProblem(error),
    observe: (size) => meter.batch('refusal', size),
  })

  const loud = (error: unknown): void =>
    log.error({ event: 'refusal.unrecorded', err: error }, 'a refusal could not be recorded')

  /** What can't be written stays for the next minute. Nobody is refused while the database is away, so that is little. */
  const writeCounts = async (): Promise<void> => {
    const counts = unwritten
    if (counts.length === 0) return
    unwritten = []
    try {
      await db.query(insertCountsStatement, [JSON.stringify(counts)])
    } catch (error) {
      unwritten = [...counts, ...unwritten]
      loud(error)
    }
  }

  /** Keeps what was counted beyond the bound in the minute that ends. No refusal waits for it. */
  const endMinute = (): Promise<void> => {
    const at = new Date(minute * msPerMinute)
    const counts = [...seen]
      .filter(([, count]) => count > refusalsPerMinute)
      .map(([principal, count]) => ({ id: newId(), principal, minute: at, count: count - refusalsPerMinute }))
    seen.clear()
    minute = minuteOf(clock())
    unwritten = [...unwritten, ...counts]
    writing = writing.then(writeCounts)
    return writing
  }

  /** Also when nobody is refused any more. */
  const timer = setInterval(() => void (minuteOf(clock()) === minute || endMinute()), msPerMinute)
  timer.unref()

  const add = async (refusal: Refusal): Promise<void> => {
    try {
      if (minuteOf(clock()) !== minute) void endMinute()
      const count = (seen.get(refusal.principal) ?? 0) + 1
      seen.set(refusal.principal, count)
      if (count <= refusalsPerMinute) await rows.add(refusal)
    } catch (error) {
      loud(error)
    }
  }

  const close = (): Promise<void> => {
    clearInterval(timer)
    return endMinute()
  }

  return { add, drain: rows.drain, close }
}

const refusalParameter = (
  { principal, profile, code, digest, detail, offset, violations, checks, checksLeftOut, origin }: Refusal,
  id: string,
): object => ({
  id,
  principal,
  profile: storable(profile),
  code,
  digest: digest.toString('hex'),
  detail: storable(detail),
  byte_offset: offset,
  violations: violations.map(withStorableTexts),
  checks: checks?.map(withStorableTexts) ?? null,
  left_out: checksLeftOut,
  origin: origin && originText(origin),
})

const withStorableTexts = <T extends object>(told: T): T =>
  Object.fromEntries(
    Object.entries(told).map(([member, value]) => [member, typeof value === 'string' ? storable(value) : value]),
  ) as T

const minuteOf = (at: Date): number => Math.floor(at.getTime() / msPerMinute)

const msPerMinute = 60_000
const maxBatch = 128
