/** What is counted for limits apart from issuing: only what the limit is about, not too often, and in steps. */
import t, { type Test } from 'tap'

import { openDatabase, type Queryable, type Statement } from '../../src/db/database.ts'
import { type LedgerName, openCounts } from '../../src/db/quota-counts.ts'
import { openLanes } from '../../src/lib/semaphore.ts'
import { drill } from '../helpers/drill.ts'
import { quiet } from '../helpers/log.ts'
import { tamper } from '../helpers/tamper.ts'
import { openTestStores } from './stores.ts'

const { service, issue } = await openTestStores(t)
const owner = openDatabase({ url: service.database.ownerUrl, max: 2, log: quiet, applicationName: 'counts' })
t.teardown(() => owner.close())

const ledger = (id: string, limits: LedgerName['limits']): LedgerName => ({
  ...{ id, principal: 'admin', profiles: ['all'], limits },
})

const newest = async (id: string) =>
  (
    await owner.query<{ number: number; certificates: number; alive: number }>(
      { text: 'select number, certificates, alive from limit_uses where grant_id = $1 order by number desc limit 1' },
      [id],
    )
  ).rows[0]

/** Rows of `limit_uses` that a statement looks at. */
const looksAt = async (statement: Statement, values: readonly unknown[]): Promise<number> => {
  interface Plan {
    readonly 'Relation Name'?: string
    readonly 'Actual Rows': number
    readonly 'Rows Removed by Filter'?: number
    readonly 'Actual Loops': number
    readonly Plans?: readonly Plan[]
  }
  const count = (plan: Plan): number => {
    const own = (plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0)) * plan['Actual Loops']
    const below = (plan.Plans ?? []).reduce((sum, child) => sum + count(child), 0)
    return below + (plan['Relation Name'] === 'limit_uses' ? own : 0)
  }
  const explained = { text: `explain (analyze, format json) ${statement.text}` }
  const { rows } = await owner.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(explained, values)
  return count((rows[0] as { 'QUERY PLAN': [{ Plan: Plan }] })['QUERY PLAN'][0].Plan)
}

t.test('of the day only its rows are read, and of those alive no more than the limit', async (t) => {
  await owner.query({
    text: `
      insert into limit_uses (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
        day_names, alive)
      select 'old', 'admin', n, decode(lpad(to_hex(n), 32, '0'), 'hex'), now() - interval '30 days', 1,
        now() + interval '300 days', now() + interval '300 days', current_date - 30, 1, 1, n
      from generate_series(1, 5000) n`,
  })
  await owner.query({ text: 'analyze limit_uses' })
  const looked: number[] = []
  const query: Queryable['query'] = async (statement, values = []) => {
    looked.push(await looksAt(statement, values))
    return owner.query(statement, values)
  }
  const counts = openCounts({ ...owner, query })
  const daily = ledger('old', { certificatesPerDay: 1 })
  t.equal(await counts.recount(daily), true)
  t.match(counts.of(daily), { certificates: 0, names: 0, number: 5000 })
  const living = ledger('old', { certificatesAlive: 20 })
  t.equal(await counts.recount(living), true)
  t.match(counts.of(living), { alive: 20 })
  const [day = 0, alive = 0] = looked
  t.ok(day < 5 && alive < 30, `${day} and ${alive} rows`)
})

t.test('what could not be counted is not asked for again at once', async (t) => {
  let asked = 0
  const query: Queryable['query'] = async () => {
    asked += 1
    throw new Error('too many')
  }
  const counts = openCounts({ ...owner, query })
  const daily = ledger('broken', { certificatesPerDay: 1 })
  await t.rejects(counts.recount(daily), { message: 'too many' })
  t.equal(await counts.recount(daily), false)
  t.equal(asked, 1)
})

drill('what could not be begun is begun by who comes next; who waits for long is told to come again', async (t) => {
  const gate = Promise.withResolvers<void>()
  let asked = 0
  const query: Queryable['query'] = async (statement, values) => {
    asked += 1
    if (asked === 1) throw new Error('the connection was lost')
    await gate.promise
    return owner.query(statement, values)
  }
  const counts = openCounts({ ...owner, query })
  const daily = ledger('late', { certificatesPerDay: 1 })
  await t.rejects(counts.begin(daily), { message: 'the connection was lost' })
  await t.rejects(counts.begin(daily), { code: 'limit.unavailable' })
  t.equal(await newest('late'), undefined)
  gate.resolve()
  await counts.begin(daily)
  t.match(await newest('late'), { certificates: Number })
  const before = asked
  await counts.begin(daily)
  t.equal(asked, before + 1, 'it sees that it has begun')
})

t.test('who waits for a lane has it in the end, in order', async (t) => {
  const inLane = openLanes(2)
  const ended: number[] = []
  let busy = 0
  let most = 0
  const works = [0, 1, 2, 3, 4].map((n) =>
    inLane(async () => {
      busy += 1
      most = Math.max(most, busy)
      await new Promise(setImmediate)
      busy -= 1
      ended.push(n)
      if (n === 0) throw new Error('it failed')
    }),
  )
  const [first, ...others] = await Promise.allSettled(works)
  t.match(first, { status: 'rejected' })
  t.ok(others.every(({ status }) => status === 'fulfilled'))
  t.same(ended, [0, 1, 2, 3, 4])
  t.equal(most, 2)
  await inLane(async () => {})
})

t.test('a work that fails gives its lane back, with or without somebody who waits', async (t) => {
  const inLane = openLanes(1)
  const failing = async (): Promise<void> => {
    throw new Error('it failed')
  }
  const works = [inLane(failing), inLane(failing)]
  await Promise.all(works.map((work) => t.rejects(work, { message: 'it failed' })))
  t.equal(await inLane(async () => 'done'), 'done')
})

t.test('what there was before is written down in steps, once, whoever does it', async (t) => {
  for (let i = 0; i < 7; i += 1) await issue([`dns:n${i}.example.com`])
  const living = ledger('begun', { certificatesAlive: 20 })
  let steps = 0
  const query: Queryable['query'] = (statement, values) => {
    if (statement.name === 'import_limit_uses') steps += 1
    return owner.query(statement, values)
  }
  const counts = openCounts({ ...owner, query }, { stepRows: 2 })
  const others = openCounts(owner, { stepRows: 3 })
  await Promise.all([counts.begin(living), counts.begin(living), others.begin(living)])
  t.equal(steps, 5, 'four with rows, and the one that finds none')
  const first = await newest('begun')
  t.match(first, { certificates: 7, alive: 7 })
  await issue(['dns:later.example.com'])
  await others.begin(living)
  t.same(await newest('begun'), first, 'it is begun once')
  const { rows } = await owner.query({
    text: `select count(*)::integer as n, count(distinct serial)::integer as serials from limit_uses where grant_id = 'begun'`,
  })
  t.match(rows[0], { n: 8, serials: 8 })
  await counts.recount(living)
  t.match(counts.of(living), { certificates: 7, alive: 7, number: first?.number })
})

t.test('a ledger that begins anew leaves nothing of what was counted in the one before', async (t) => {
  const hold = async (after: number | null) =>
    (await owner.query({ text: `select * from hold_ledger('begun', 'admin', $1)` }, [after])).rows[0]
  const before = (await newest('begun'))?.number ?? 0
  t.match(await hold(before), { number: before, alive: 7, more_alive: 0 })
  t.match(await hold(before - 1), { number: before, more_alive: null })
  t.match(await hold(null), { number: before, more_alive: null })
})

t.test(
  'of what there was before, what is of today and what is alive count, each for itself, and nothing of others',
  async (t) => {
    const [mine, theirs] = ['earlier', 'others']
    for (const name of [mine, theirs]) await service.request('POST', '/v1/principals', { body: { name } })
    const ages = { living: 2, expired: 2, expiredToday: 0, livingToday: 0, foreign: 0 } as const
    const serials = new Map<string, string>()
    for (const name of Object.keys(ages))
      serials.set(name, (await issue([`dns:${name}.test`], { principal: name === 'foreign' ? theirs : mine })).serial)
    const of = (name: keyof typeof ages): string => `serial = decode('${serials.get(name)}', 'hex')`
    // Days of two days ago come before the first of today, on the roll as well.
    const old = `entry <= (select entry from outcomes where ${of('expired')})`
    await tamper(
      service.database,
      `update entries set time = time - interval '2 days' where ${old.replace('entry', 'index')}`,
      `update outcomes set at = at - interval '2 days' where ${old}`,
      `update outcomes set not_after = now() - interval '1 day' where ${of('expired')}`,
      `update outcomes set not_after = now() - interval '1 second' where ${of('expiredToday')}`,
      `update outcomes set not_after = now() + interval '3 days' where ${of('living')}`,
    )
    const begun = async (id: string, limits: LedgerName['limits']) => {
      const wanted: LedgerName = { ...ledger(id, limits), principal: mine }
      const counts = openCounts(owner, { stepRows: 1 })
      await counts.begin(wanted)
      const { rows } = await owner.query<{ name: string; late: boolean }>(
        {
          text: `select names.name, counts_until = greatest(u.not_after, date_trunc('day', now(), 'UTC') + interval '1 day') as late
          from limit_uses u join certificate_names names using (serial) where u.grant_id = $1 and u.number < 0 order by 1`,
        },
        [id],
      )
      t.ok(rows.every(({ late }) => late))
      await counts.recount(wanted)
      const { certificates, alive } = counts.of(wanted) ?? {}
      return {
        rows: rows.map(({ name }) => name.split('.')[1]),
        first: await newest(id),
        counted: { certificates, alive },
      }
    }
    t.match(await begun('of a day', { certificatesPerDay: 9 }), {
      rows: ['expiredToday', 'livingToday'].map((name) => name.toLowerCase()),
      ...{ first: { certificates: 2 }, counted: { certificates: 2 } },
    })
    t.match(await begun('of the living', { certificatesAlive: 9 }), {
      rows: ['expiredToday', 'living', 'livingToday'].map((name) => name.toLowerCase()),
      ...{ first: { certificates: 2, alive: 2 }, counted: { certificates: 2, alive: 2 } },
    })
  },
)

t.test('nor is what was counted counted again at once, however soon that was done', async (t) => {
  const counts = openCounts(owner)
  const daily = ledger('soon', { certificatesPerDay: 1 })
  t.equal(await counts.recount(daily), true)
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.equal(await counts.recount(daily), false)
})

t.test('where more are alive than may be, the first that expires is told of', async (t) => {
  const many = ledger('of the living', { certificatesAlive: 1 })
  const counts = openCounts(owner)
  await counts.recount({ ...many, principal: 'earlier' })
  t.match(counts.of({ ...many, principal: 'earlier' }), { alive: 1 })
  const { rows } = await owner.query<{ first: Date }>({
    text: `select min(not_after) + interval '1 second' as first from limit_uses
      where grant_id = 'of the living' and not_after > now()`,
  })
  t.same(counts.expiryOf({ ...many, principal: 'earlier' }), rows[0]?.first)
})

t.test('a ledger that nothing was issued under is begun once as well, and kept for its day', async (t) => {
  const idle: LedgerName = { ...ledger('idle', { certificatesPerDay: 1 }), profiles: ['none'] }
  await openCounts(owner).begin(idle)
  const first = await newest('idle')
  t.match(first, { certificates: 0, alive: 0 })
  await owner.query({ text: 'select maintain_limits()' })
  t.same(await newest('idle'), first)
})

t.test(
  'one is alive to the end of the second that its notAfter names (RFC 5280 4.1.2.5), wherever it is counted',
  async (t) => {
    await service.request('POST', '/v1/principals', { body: { name: 'ending' } })
    const { serial } = await issue(['dns:ending.test'], { principal: 'ending' })
    const { rows } = await owner.query<{ not_after: Date }>(
      { text: `select not_after from outcomes where serial = decode($1, 'hex')` },
      [serial],
    )
    const end = rows[0]?.not_after.getTime() ?? 0
    const still = await openStill(t)
    for (const [ms, alive] of [
      [0, 1],
      [999, 1],
      [1_000, 0],
    ] as const) {
      await still.set(new Date(end + ms))
      const wanted: LedgerName = { ...ledger(`ending ${ms}`, { certificatesAlive: 5 }), principal: 'ending' }
      const counts = openCounts(still.db)
      await counts.begin(wanted)
      t.match(await newest(wanted.id), { alive }, `${ms} ms after it, as the ledger begins`)
      await counts.recount(wanted)
      const frees = alive === 1 ? new Date(end + 1_000) : undefined
      t.same([counts.of(wanted)?.alive, counts.expiryOf(wanted)], [alive, frees], 'counted anew')
      // As by a clock that was far ahead: it goes on by that of now.
      await owner.query({ text: 'update limit_uses set day = day + 30 where grant_id = $1 and number > 0' }, [
        wanted.id,
      ])
      const held = await still.db.query({ text: `select alive from hold_ledger($1, 'ending', null)` }, [wanted.id])
      t.match(held.rows, [{ alive }], 'as a ledger goes on')
    }
  },
)

t.test('a day has 24 hours in any time zone of the session, as one behind a pooler may have', async (t) => {
  // On this day its clocks go from 2 to 3.
  const still = await openStill(t, ' -c timezone=America/St_Johns')
  await still.set(new Date('2027-03-14T12:00:00Z'))
  const midnight = new Date('2027-03-15T00:00:00Z')
  const wanted = ledger('zone', { certificatesPerDay: 5 })
  const counts = openCounts(still.db)
  await counts.begin(wanted)
  await counts.recount(wanted)
  t.same(counts.of(wanted)?.midnight, midnight)
  const { rows } = await still.db.query({ text: `select midnight from hold_ledger($1, 'admin', null)` }, [wanted.id])
  t.same(rows, [{ midnight }])
})

/** A database whose clock stands where it is set: what the statements call is found there first. */
const openStill = async (test: Test, settings = '') => {
  const ownPath = (path: string) => `alter function hold_ledger(text, text, bigint) set search_path = ${path}`
  for (const text of [
    'create schema still',
    'create table still.clock as select now() as present',
    ...['now', 'clock_timestamp'].map(
      (name) =>
        `create function still.${name}() returns timestamptz language sql stable as $$ select present from still.clock $$`,
    ),
    ownPath('still, pg_catalog, public'),
  ])
    await owner.query({ text })
  const { ownerUrl } = service.database
  const options = encodeURIComponent(`-c search_path=still,pg_catalog,public${settings}`)
  const url = `${ownerUrl}${ownerUrl.includes('?') ? '&' : '?'}options=${options}`
  const db = openDatabase({ url, max: 2, log: quiet, applicationName: 'still' })
  test.teardown(async () => {
    await db.close()
    await owner.query({ text: ownPath('public, pg_temp') })
    await owner.query({ text: 'drop schema still cascade' })
  })
  return { db, set: (present: Date) => owner.query({ text: 'update still.clock set present = $1' }, [present]) }
}
