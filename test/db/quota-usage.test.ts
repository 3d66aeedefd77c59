/**
 * No limit is ever exceeded, whatever two replicas remember of a ledger: with maintenance, days that go by, a clock that is set
 * back, and a database that has lost its last commits in between.
 */
import { randomBytes, randomUUID } from 'node:crypto'

import fc from 'fast-check'
import t, { type Test } from 'tap'

import type { CountedLimits } from '../../src/ca/access/limits.ts'
import type { Intent } from '../../src/ca/issuance/recorder.ts'
import { openDatabase } from '../../src/db/database.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { isProblem } from '../../src/errors.ts'
import { drill } from '../helpers/drill.ts'
import { quiet } from '../helpers/log.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'

const all = { certificatesPerDay: 5, namesPerDay: 9, certificatesAlive: 6 } as const satisfies CountedLimits
const limitNames = Object.keys(all) as readonly (keyof CountedLimits)[]
const minute = 60_000
const day = 1_440 * minute

t.setTimeout(300_000)

/** What is counted may be counted again after a while: the while goes by at once here. */
const skipped = { ms: 0 }
const now = performance.now.bind(performance)
performance.now = () => now() + skipped.ms
t.teardown(() => {
  performance.now = now
})

const { database, stores } = await openReplica(t)

/** A database's clock that the test sets: what the statements call is found here first. */
const withClock = (url: string): string =>
  `${url}${url.includes('?') ? '&' : '?'}options=${encodeURIComponent('-c search_path=shifted,pg_catalog,public')}`
const plain = openDatabase({ url: database.ownerUrl, max: 1, log: quiet, applicationName: 'clock' })
for (const text of [
  'create schema shifted',
  `create table shifted.clock as select interval '0' as ahead`,
  'create function shifted.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + ahead from shifted.clock $$',
  'create function shifted.clock_timestamp() returns timestamptz language sql as $$ select pg_catalog.clock_timestamp() + ahead from shifted.clock $$',
  'grant usage on schema shifted to chancery',
  'grant select on shifted.clock to chancery',
  // It has a path of its own, and would find the server's.
  'alter function hold_ledger(text, text, bigint) set search_path = shifted, pg_catalog, public',
])
  await plain.query({ text })
const owner = openDatabase({ url: withClock(database.ownerUrl), max: 1, log: quiet, applicationName: 'maintenance' })
const replicas = [1, 2].map((n) => {
  const db = openDatabase({ url: withClock(database.servingUrl), max: 4, log: quiet, applicationName: `replica ${n}` })
  const recorder = openRecorder({ ...stores, db, meter: silentMeter, refusalsPerMinute: 60 })
  return { db, recorder }
})
t.teardown(async () => {
  for (const { db, recorder } of replicas) {
    recorder.close()
    await db.close()
  }
  await owner.close()
  await plain.close()
})

/** What was recorded, by the ledger's time. */
interface Use {
  readonly serial: Buffer
  readonly number: number
  readonly at: number
  readonly names: number
  readonly notAfter: number
  readonly intent: Intent
}

interface World {
  readonly grant: string
  readonly principal?: string
  readonly limits: CountedLimits
  uses: readonly Use[]
  aheadMs: number
}

const clockOf = ({ aheadMs }: World): number => Date.now() + aheadMs

const shift = async (world: World, ms: number): Promise<void> => {
  world.aheadMs += ms
  await plain.query({ text: `update shifted.clock set ahead = $1 * interval '1 ms'` }, [world.aheadMs])
}

const maintain = (): Promise<unknown> => owner.query({ text: 'select maintain_limits()' })

/** The last commits of a database that was set back. */
const lose = async (world: World, count: number): Promise<void> => {
  const kept = world.uses.toSorted((a, b) => a.number - b.number).slice(0, -count)
  const gone = world.uses.filter((use) => !kept.includes(use))
  await owner.query({ text: 'delete from limit_uses where serial = any ($1)' }, [gone.map(({ serial }) => serial)])
  world.uses = kept
}

interface Wish {
  readonly names: number
  readonly lifeMs: number
}

const intentOf = (world: World, { names, lifeMs }: Wish, key: string = randomUUID()): Intent => ({
  request: { principal: world.principal ?? 'admin', key, digest: Buffer.alloc(32) },
  ...{ attempt: 1, serial: randomBytes(16), issuer: 'default', states: ['active'], shard: 0 },
  ...{ profile: { name: 'server', version: 1 }, tbs: randomBytes(10), plan: Buffer.alloc(32) },
  keySha256: randomBytes(32),
  booking: {
    grants: [{ id: world.grant, profiles: ['server'], limits: world.limits }],
    ...{ names, notAfter: new Date(clockOf(world) + lifeMs) },
  },
})

/** Whether it was. */
const record = async (world: World, replica: number, wish: Wish): Promise<boolean> => {
  const intent = intentOf(world, wish)
  const { recorder } = replicas[replica] as (typeof replicas)[0]
  const end = await recorder.recordIntent(intent).catch((error: unknown) => {
    if (isProblem(error) && error.code.startsWith('limit.')) return error.code
    throw error
  })
  if (end !== 'recorded') return false
  const { rows } = await owner.query<{ number: number; at: Date; not_after: Date }>(
    { text: 'select number, at, not_after from limit_uses where serial = $1' },
    [intent.serial],
  )
  const [row] = rows
  if (!row) throw new Error('it was not counted')
  const use = { serial: intent.serial, number: row.number, at: row.at.getTime(), names: wish.names, intent }
  world.uses = [...world.uses, { ...use, notAfter: row.not_after.getTime() }]
  return true
}

const sumsAt = ({ uses }: World, moment: number) => {
  const ofDay = uses.filter(({ at }) => Math.floor(at / day) === Math.floor(moment / day))
  return {
    certificatesPerDay: ofDay.length,
    namesPerDay: ofDay.reduce((sum, { names }) => sum + names, 0),
    certificatesAlive: uses.filter(({ at, notAfter }) => at <= moment && notAfter > moment).length,
  }
}

/** At every moment at which something was recorded. */
const excess = (world: World): string | undefined => {
  for (const { at } of world.uses) {
    const sums = sumsAt(world, at)
    for (const name of limitNames) {
      const most = world.limits[name]
      if (most !== undefined && sums[name] > most)
        return `${name}: ${sums[name]} of ${most} at ${new Date(at).toISOString()}`
    }
  }
  return undefined
}

interface Step {
  readonly name: string
  run(world: World): Promise<unknown>
}

/** What is shown of one that went wrong can be played again. */
const step = <A>(name: string, arbitrary: fc.Arbitrary<A>, run: (world: World, choice: A) => Promise<unknown>) =>
  arbitrary.map((choice): Step => {
    const show = (): string => `${name} ${fc.stringify(choice)}`
    return Object.assign({ name, run: (world: World) => run(world, choice) }, { [fc.toStringMethod]: show })
  })

const wishes = fc.array(
  fc.record({
    names: fc.integer({ min: 1, max: 3 }),
    lifeMs: fc.constantFrom(10 * minute, 70 * minute, day, 2 * day, 9 * day),
  }),
  { minLength: 1, maxLength: 4 },
)
const recording = fc.record({ replica: fc.nat(1), isSplit: fc.boolean(), wishes })
const forward = fc.constantFrom(7_000, 5 * minute, 40 * minute, 3 * 60 * minute, 11 * 60 * minute, day, 3 * day)
const back = fc.constantFrom(100, 8_000, 20 * minute, 50 * minute)

const steps: readonly fc.WeightedArbitrary<Step>[] = [
  {
    weight: 12,
    arbitrary: step('recorded', recording, (world, { replica, isSplit, wishes }) =>
      Promise.all(wishes.map((wish, i) => record(world, isSplit ? (replica + i) % 2 : replica, wish))),
    ),
  },
  {
    weight: 4,
    arbitrary: step('never signed', fc.nat(), async (world, choice) => {
      const use = world.uses[choice % Math.max(1, world.uses.length)]
      if (use === undefined) return
      await replicas[0]?.recorder.recordUnsigned(use.intent)
      world.uses = world.uses.filter((other) => other !== use)
    }),
  },
  { weight: 6, arbitrary: step('time went by', forward, shift) },
  { weight: 2, arbitrary: step('the clock was set back', back, (world, ms) => shift(world, -ms)) },
  {
    weight: 4,
    arbitrary: step('counted again', fc.constant(61_000), async (_, ms) => {
      skipped.ms += ms
    }),
  },
  { weight: 2, arbitrary: step('lost', fc.integer({ min: 1, max: 4 }), lose) },
]
const maintained = { weight: 4, arbitrary: step('maintained', fc.constant('all'), maintain) }
const farBack = {
  weight: 2,
  arbitrary: step('the clock was set back by days', fc.constantFrom(3 * day, 10 * day), (world, ms) =>
    shift(world, -ms),
  ),
}

/** One of them, or all. */
const limitsArbitrary: fc.Arbitrary<CountedLimits> = fc.oneof(
  fc.constant(all),
  fc.constantFrom(...limitNames).map((name) => ({ [name]: all[name] })),
)

/** So long after midnight, by a clock that is a day ahead. */
const newWorld = async (limits: CountedLimits, afterMs: number): Promise<World> => {
  const made: World = { grant: randomUUID(), limits, uses: [], aheadMs: 0 }
  await shift(made, day - (Date.now() % day) + afterMs)
  return made
}

const play = async (limits: CountedLimits, played: readonly Step[]): Promise<World> => {
  const world = await newWorld(limits, -5_000)
  for (const { name, run } of played) {
    await run(world)
    const found = excess(world)
    if (found !== undefined) throw new Error(`after "${name}": ${found}`)
  }
  return world
}

const always = async (t: Test, ...more: readonly fc.WeightedArbitrary<Step>[]): Promise<void> => {
  let recorded = 0
  await fc.assert(
    fc.asyncProperty(
      limitsArbitrary,
      fc.array(fc.oneof(...steps, ...more), { minLength: 20, maxLength: 60 }),
      async (limits, played) => {
        recorded += (await play(limits, played)).uses.length
      },
    ),
    { numRuns: 60, endOnFailure: true }, // Making it smaller would take minutes.
  )
  t.ok(recorded > 100, `${recorded} were recorded`)
}

drill('whatever happens in between, and in whatever order', (t) => always(t, maintained))

// By a clock that is days ahead, rows are taken away that count again by the right one.
drill('nor where clocks are days ahead or behind, while no rows are taken away', (t) => always(t, farBack))

const short: Wish = { names: 1, lifeMs: 10 * minute }
const long: Wish = { names: 1, lifeMs: 9 * day }

/** What is the same of one name each. */
const daily: readonly CountedLimits[] = [{ certificatesPerDay: 5 }, { namesPerDay: 5 }]

/** Five by each limit, and by none of them what has 25 names. */
const wide: readonly CountedLimits[] = [
  { certificatesPerDay: 5, namesPerDay: 20 },
  { namesPerDay: 5 },
  { certificatesAlive: 5, namesPerDay: 20 },
]

const repeat = async (world: World, replica: number, wishes: readonly Wish[]): Promise<number> => {
  let recorded = 0
  for (const wish of wishes) recorded += Number(await record(world, replica, wish))
  return recorded
}

const withoutExcess = (t: Test, world: World): void => {
  t.equal(excess(world), undefined)
}

t.test('what two calls under the same keys ask for at once takes its room once', async (t) => {
  const ours = await newWorld({ certificatesPerDay: 4, namesPerDay: 4 }, 10 * minute)
  const { recorder } = replicas[0] as (typeof replicas)[0]
  const one = { names: 1, lifeMs: minute }
  t.equal(await record(ours, 0, { ...one, names: 5 }), false, 'all is counted, and not again at once')
  const ask = (key: string) => recorder.recordIntent(intentOf(ours, one, key))
  const keys = Array.from({ length: 4 }, () => randomUUID())
  const [a, b, c, d] = keys as [string, string, string, string]
  t.equal(await ask(a), 'recorded')
  // The first goes alone; the others go together.
  t.same(await Promise.all([ask(a), ask(a), ask(b)]), ['taken', 'taken', 'recorded'])
  t.equal(await ask(c), 'recorded')
  t.equal(await ask(d), 'recorded')
  await t.rejects(ask(randomUUID()), { code: 'limit.certificates_per_day' })
})

t.test('what others do under the same grant, as by a mapping, takes none of one’s room', async (t) => {
  await plain.query({ text: `insert into principals (name, created_by) values ('other', 'test')` })
  for (const limits of [all, { certificatesAlive: 5 }, { certificatesPerDay: 5 }]) {
    const ours = await newWorld(limits, minute)
    const theirs: World = { ...ours, principal: 'other' }
    for (const world of [ours, theirs]) t.equal(await repeat(world, 0, Array(6).fill(long)), 5)
    await replicas[0]?.recorder.recordUnsigned((ours.uses[0] as Use).intent)
    skipped.ms += 61_000
    t.equal(await repeat(ours, 0, [long, long]), 1, 'that of the one that was never signed')
    t.equal(await record(theirs, 0, long), false)
  }
})

t.test(
  'a replica that has counted, and recorded nothing, counts what the other one records from then on',
  async (t) => {
    for (const limits of wide) {
      const ours = await newWorld(limits, 10 * minute)
      t.equal(await repeat(ours, 0, Array(5).fill(long)), 5)
      const [first, ...others] = ours.uses
      await replicas[0]?.recorder.recordUnsigned((first as Use).intent)
      ours.uses = others
      skipped.ms += 61_000
      t.equal(await record(ours, 0, { ...long, names: 25 }), false, 'it knows that there is room for one')
      t.equal(await record(ours, 1, long), true)
      t.equal(await record(ours, 0, long), false, JSON.stringify(limits))
      withoutExcess(t, ours)
    }
  },
)

t.test('what is alive counts from the first on, also where only a later version of a mapping bounds it', async (t) => {
  const ours = await newWorld({ certificatesPerDay: 3 }, 10 * minute)
  t.equal(await repeat(ours, 0, Array(4).fill(long)), 3)
  const [first, ...others] = ours.uses
  await replicas[0]?.recorder.recordUnsigned((first as Use).intent)
  ours.uses = others
  skipped.ms += 61_000
  t.equal(await repeat(ours, 0, [long, long]), 1, 'by what was counted')
  t.equal(await record({ ...ours, limits: { certificatesAlive: 3 } }, 1, long), false)
  t.equal(await record({ ...ours, limits: { certificatesAlive: 4 } }, 1, long), true)
})

t.test('nothing holds of what a replica has counted by a clock that was ahead', async (t) => {
  for (const limits of wide) {
    const ours = await newWorld(limits, minute)
    t.equal(await repeat(ours, 0, Array(5).fill(short)), 5)
    await shift(ours, 3 * day)
    t.equal(await record(ours, 1, { ...long, names: 25 }), false, 'it sees that nothing counts any more')
    await shift(ours, -3 * day)
    for (const replica of [1, 0]) t.equal(await record(ours, replica, long), false, JSON.stringify(limits))
    withoutExcess(t, ours)
  }
})

t.test('a replica that was refused does not miss what came after rows were taken away', async (t) => {
  const ours = await newWorld({ certificatesPerDay: 5 }, 10 * minute)
  t.equal(await repeat(ours, 0, [long, long, short, short, short]), 5)
  t.equal(await record(ours, 1, long), false, 'the other one counts, and remembers')
  await shift(ours, day + 60 * minute)
  await maintain()
  t.equal(await repeat(ours, 0, Array(6).fill(long)), 5)
  t.equal(await repeat(ours, 1, Array(6).fill(long)), 0)
  withoutExcess(t, ours)
})

t.test('nor after the database has lost its last commits', async (t) => {
  const ours = await newWorld({ certificatesPerDay: 5 }, 10 * minute)
  t.equal(await repeat(ours, 0, Array(5).fill(short)), 5)
  t.equal(await record(ours, 1, long), false)
  await lose(ours, 4)
  await shift(ours, day)
  t.equal(await repeat(ours, 0, Array(6).fill(long)), 5)
  t.equal(await repeat(ours, 1, Array(6).fill(long)), 0)
  withoutExcess(t, ours)
})

t.test('a clock that is set back over midnight gives no day twice', async (t) => {
  const spent: Wish = { names: 1, lifeMs: 1 }
  for (const [counts, limits] of [false, true].flatMap((counts) => daily.map((limits) => [counts, limits] as const))) {
    const ours = await newWorld(limits, -5_000)
    t.equal(await repeat(ours, 0, Array(5).fill(spent)), 5)
    await shift(ours, 10_000)
    if (counts) await repeat(ours, 1, Array(6).fill(spent))
    else t.equal(await record(ours, 0, spent), true, 'a new day')
    await shift(ours, -10_000)
    await repeat(ours, 1, Array(6).fill(spent))
    await shift(ours, 10_000)
    skipped.ms += 61_000
    await repeat(ours, 0, Array(6).fill(spent))
    await repeat(ours, 1, Array(6).fill(spent))
    t.equal(ours.uses.length, 10, 'five on either day')
    withoutExcess(t, ours)
  }
})

t.test('a clock that was far ahead for a moment costs a day no more than what was recorded by it', async (t) => {
  const spent: Wish = { names: 1, lifeMs: 1 }
  for (const [before, limits] of [2, 4].flatMap((before) => daily.map((limits) => [before, limits] as const))) {
    const ours = await newWorld(limits, minute)
    t.equal(await repeat(ours, 0, Array(before).fill(spent)), before)
    await shift(ours, 30 * day)
    t.equal(await record(ours, 1, spent), true, 'before anybody sees that the clock is wrong')
    await shift(ours, -30 * day)
    for (const most of [4 - before, 5, 5]) {
      skipped.ms += 61_000
      t.equal(await repeat(ours, 0, Array(6).fill(spent)), most)
      await shift(ours, day)
    }
    withoutExcess(t, ours)
  }
})

t.test('nor are the days after that one, where it was all that a day may have', async (t) => {
  const spent: Wish = { names: 1, lifeMs: 1 }
  const ours = await newWorld({ certificatesPerDay: 5 }, minute)
  t.equal(await record(ours, 0, spent), true)
  await shift(ours, 30 * day)
  t.equal(await repeat(ours, 1, Array(5).fill(spent)), 5)
  await shift(ours, -30 * day)
  for (const most of [0, 5, 5]) {
    skipped.ms += 61_000
    t.equal(await repeat(ours, 0, Array(6).fill(spent)), most)
    t.equal(await repeat(ours, 1, Array(6).fill(spent)), 0)
    await shift(ours, day)
  }
  withoutExcess(t, ours)
})

t.test('a clock that was days behind for a moment gives no day twice either', async (t) => {
  const spent: Wish = { names: 1, lifeMs: 1 }
  for (const [before, limits] of [3, 5].flatMap((before) => daily.map((limits) => [before, limits] as const))) {
    const ours = await newWorld(limits, minute)
    t.equal(await repeat(ours, 0, Array(before).fill(spent)), before)
    await shift(ours, -3 * day)
    t.equal(await repeat(ours, 1, Array(6).fill(spent)), 5 - before, 'before anybody sees that the clock is wrong')
    await shift(ours, 3 * day)
    for (const most of [5 - before, 5]) {
      skipped.ms += 61_000
      t.equal(await repeat(ours, 0, Array(6).fill(spent)), most)
      await shift(ours, day)
    }
    withoutExcess(t, ours)
  }
})

t.test('after a clock that was far ahead, what is alive is counted again as before', async (t) => {
  const ours = await newWorld({ certificatesAlive: 5 }, minute)
  t.equal(await repeat(ours, 0, Array(4).fill(short)), 4)
  await shift(ours, 30 * day)
  t.equal(await record(ours, 1, long), true)
  await shift(ours, 20 * minute - 30 * day)
  skipped.ms += 61_000
  for (const replica of [0, 1]) {
    t.equal(await repeat(ours, replica, [long, long]), 2, 'four have expired')
    skipped.ms += 61_000
  }
  t.equal(await record(ours, 0, long), false)
})

t.test('and what had expired by that clock alone is alive', async (t) => {
  const ours = await newWorld({ certificatesAlive: 5 }, minute)
  t.equal(await repeat(ours, 0, Array(5).fill(long)), 5)
  await shift(ours, 30 * day)
  t.equal(await record(ours, 1, short), true)
  await shift(ours, -30 * day)
  skipped.ms += 61_000
  for (const replica of [0, 1]) t.equal(await record(ours, replica, long), false)
})

t.test('the newest row of a ledger goes with the last, and not before', async (t) => {
  const ours = await newWorld(all, 10 * minute)
  const numbers = async (): Promise<number> => {
    await maintain()
    const text = `select count(*)::integer as n from limit_uses where grant_id = $1`
    return (await owner.query<{ n: number }>({ text }, [ours.grant])).rows[0]?.n ?? 0
  }
  t.equal(await repeat(ours, 0, [{ names: 1, lifeMs: 2 * day }, short, short]), 3)
  t.equal(await numbers(), 4, 'with the one at which it begins')
  await shift(ours, 26 * 60 * minute)
  t.equal(await numbers(), 2, 'the one that lives, and the newest')
  await shift(ours, day)
  t.equal(await numbers(), 0)
})
