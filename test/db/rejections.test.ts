import { mock } from 'node:test'

import type pg from 'pg'
import t, { type Test } from 'tap'

import type { Refusal } from '../../src/ca/issuance/recorder.ts'
import { type Database, openDatabase, type Statement } from '../../src/db/database.ts'
import { openRefusals } from '../../src/db/rejections.ts'
import { databaseFaults } from '../../src/db/safety.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { timeOrderedIds } from '../../src/keys/random.ts'
import type { CheckResult } from '../../src/policy/check.ts'
import { codec } from '../../src/server/codec.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { openSql } from '../helpers/sql.ts'

const refusal: Refusal = {
  principal: 'noisy',
  profile: 'server',
  code: 'csr.pem',
  digest: Buffer.alloc(32),
  detail: 'not a request',
  offset: null,
  violations: [],
  checks: null,
  checksLeftOut: 0,
  origin: null,
}

const check = (value: string): CheckResult => ({
  check: 'names.dns.allow',
  outcome: 'failed',
  field: '/names/0',
  value,
  reason: 'matches no pattern of the profile',
})

/** Refusals with a bound of two a minute, a clock that is moved by hand, and a database that can fail. */
const openNoisy = async (t: Test) => {
  const { servingUrl } = await openTestDatabase(t)
  const real = openDatabase({ url: servingUrl, max: 2, log: quiet, applicationName: 'test' })
  t.teardown(() => real.close())
  const state = { now: Date.UTC(2026, 0, 1), failing: false, lostAnswers: false }
  const db: Database = {
    ...real,
    query: async (statement, values) => {
      const counts = statement.name === 'insert_refusal_counts'
      if (counts && state.failing) throw new Error('this database takes no counts')
      const answer = await real.query(statement, values)
      if (counts && state.lostAnswers) throw new Error('the answer was lost')
      return answer as never
    },
  }
  const clock = () => new Date(state.now)
  const newId = timeOrderedIds(
    () => new Date(),
    (octets) => crypto.getRandomValues(Buffer.alloc(octets)),
  )
  const meter = { batch: () => {} } as unknown as Parameters<typeof openRefusals>[0]['meter']
  const refusals = openRefusals({ db, meter, log: quiet, clock, newId, refusalsPerMinute: 2 })
  const kept = async () => {
    const { rows } = await real.query<{ rows: number; counted: number; minutes: number }>({
      text: `select (select count(*) from refusals)::integer as rows,
        (select coalesce(sum(count), 0) from refusal_counts)::integer as counted,
        (select count(distinct minute) from refusal_counts)::integer as minutes`,
    })
    return rows[0]
  }
  const checks = async () => {
    const { rows } = await real.query<{ checks: unknown; checks_left_out: number }>({
      text: 'select checks, checks_left_out from refusals order by id',
    })
    return rows
  }
  const refuse = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) await refusals.add(refusal)
  }
  /** Lets the timer fire, and what it began end. */
  const pass = async (minutes: number): Promise<void> => {
    state.now += minutes * 60_000
    mock.timers.tick(60_000)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return { refusals, state, kept, checks, refuse, pass }
}

mock.timers.enable({ apis: ['setInterval'] })

t.test('what is beyond the bound is counted, and the count is written when its minute is over', async (t) => {
  const { refusals, kept, refuse, pass } = await openNoisy(t)
  await refuse(7)
  t.same(await kept(), { rows: 2, counted: 0, minutes: 0 })
  await pass(1)
  t.same(await kept(), { rows: 2, counted: 5, minutes: 1 }, 'although nobody was refused again')
  await refuse(3)
  await refusals.close()
  t.same(await kept(), { rows: 4, counted: 6, minutes: 2 }, 'and at the end')
})

t.test('a count that could not be written is written later, once, and no refusal is lost by it', async (t) => {
  const { refusals, state, kept, refuse, pass } = await openNoisy(t)
  await refuse(5)
  state.failing = true
  state.now += 60_000
  await refuse(4)
  t.same(await kept(), { rows: 4, counted: 0, minutes: 0 }, 'the refusals themselves are there')
  await pass(1)
  state.failing = false
  state.lostAnswers = true
  await refuse(3)
  await pass(1)
  t.same(await kept(), { rows: 6, counted: 6, minutes: 3 })
  state.lostAnswers = false
  await refusals.close()
  t.same(await kept(), { rows: 6, counted: 6, minutes: 3 }, 'nothing twice')
})

t.test('checks are kept as they are, but for what PostgreSQL cannot hold; none are null', async (t) => {
  const { refusals, checks } = await openNoisy(t)
  const spoilt = { ...check('nul\0, half \ud800'), field: 'nul\0', reason: 'half \ud800' }
  await refusals.add({ ...refusal, checks: [check('a.test'), spoilt], checksLeftOut: 7 })
  await refusals.add(refusal)
  await refusals.close()
  t.strictSame(await checks(), [
    {
      checks: [check('a.test'), { ...check('nul\ufffd, half \ufffd'), field: 'nul\ufffd', reason: 'half \ufffd' }],
      checks_left_out: 7,
    },
    { checks: null, checks_left_out: 0 },
  ])
})

t.test('one that the database does not take costs no other its place', async (t) => {
  const { refusals, kept } = await openNoisy(t)
  const poison = { ...refusal, principal: 'nul\0' }
  await Promise.all([refusal, poison, refusal].map(refusals.add))
  await refusals.close()
  t.match(await kept(), { rows: 2 })
})

t.test('rows of months without a partition are moved into one, and old ones go', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const insert = (months: number) =>
    owner.query(
      `insert into refusals (id, at, principal, code, digest, detail, violations)
        select gen_random_uuid(), now() + make_interval(months => $1), 'noisy', 'csr.pem', '', '', '[]' from generate_series(1, 3)`,
      [months],
    )
  for (const months of [-9, -2, 0, 5, 6]) await insert(months)
  const counts = async () => {
    const { rows } = await owner.query<{ other: number; all: number }>(
      'select (select count(*) from refusals_other)::integer as other, (select count(*) from refusals)::integer as all',
    )
    return rows[0]
  }
  t.same(await counts(), { other: 12, all: 15 })
  const maintain = () => owner.query<{ n: number }>(`select maintain_refusals('90 days') as n`)
  t.equal((await maintain()).rows[0]?.n, 1, 'the month nine months ago')
  t.same(await counts(), { other: 0, all: 12 })
  t.equal((await maintain()).rows[0]?.n, 0)
  await insert(9)
  t.same(await counts(), { other: 3, all: 15 }, 'there is still a place for what has none')
  for (const text of [
    'delete from refusals',
    `update refusals set code = 'x'`,
    'delete from refusals_other',
    'truncate refusals',
    `delete from refusals_${new Date().toISOString().slice(0, 7).replace('-', '')}`,
  ])
    await t.rejects(owner.query(text), { code: '23001' }, text)
})

t.test(
  'months that were made too late become one partition as they lie, and it goes when all of it is old',
  async (t) => {
    const { ownerUrl, servingUrl } = await openTestDatabase(t)
    const owner = await openSql(t, ownerUrl)
    const serving = await openSql(t, servingUrl)
    const insert = (client: pg.Client, months: number) =>
      client.query(
        `insert into refusals (id, at, principal, code, digest, detail, violations)
        select gen_random_uuid(), date_trunc('month', now(), 'UTC') + make_interval(months => $1, days => 3), 'noisy',
          'csr.pem', '', '', '[]' from generate_series(1, 3)`,
        [months],
      )
    const partitions = async () => {
      const { rows } = await owner.query<{ name: string; file: number; rows: number }>(`
      select c.relname as name, pg_relation_filenode(c.oid)::integer as file,
        (xpath('//n/text()', query_to_xml(format('select count(*) as n from %I', c.relname), true, true, '')))[1]::text::integer as rows
      from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'refusals'::regclass order by 1`)
      return rows
    }
    const other = async () => (await partitions()).find(({ name }) => name === 'refusals_other')
    const maintain = async (keep: string) =>
      (await owner.query<{ n: number }>('select maintain_refusals($1) as n', [keep])).rows[0]?.n
    const month = (by: number): string => {
      const now = new Date()
      const then = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + by))
      return then.toISOString().slice(0, 7).replace('-', '')
    }
    const [before, late] = [await partitions(), `refusals_${month(-9)}_${month(-7)}`]
    t.equal(await maintain('3650 days'), 0)
    t.same(await partitions(), before, 'nothing to adopt')
    await insert(serving, -9)
    await insert(serving, -7)
    const file = (await other())?.file
    t.equal(await maintain('3650 days'), 0)
    const after = await partitions()
    t.match(
      after.find(({ name }) => name === late),
      { file, rows: 6 },
      'no row was moved',
    )
    t.equal((await other())?.rows, 0)
    t.equal(after.length, before.length + 1)
    await insert(serving, -8)
    t.equal(await maintain('3650 days'), 0)
    t.same(
      (await partitions()).map(({ name, file: same }) => [name, same]),
      after.map(({ name, file: same }) => [name, same]),
      'again changes nothing',
    )
    t.equal((await partitions()).find(({ name }) => name === late)?.rows, 9)

    // A span that another partition lies in is moved, month by month.
    await insert(serving, -11)
    await insert(serving, -5)
    t.equal((await other())?.rows, 6)
    t.equal(await maintain('3650 days'), 0)
    t.same(
      (await partitions()).filter(({ rows }) => rows > 0).map(({ name, rows }) => [name, rows]),
      [
        [`refusals_${month(-11)}`, 3],
        [late, 9],
        [`refusals_${month(-5)}`, 3],
      ],
    )

    // A default partition that is new has the table's triggers, and nobody but the table's own rights leads to it.
    await insert(serving, 9)
    t.equal((await other())?.rows, 3)
    t.equal((await serving.query('select from refusals')).rowCount, 18)
    for (const table of ['refusals', 'refusals_other', late]) {
      for (const text of [`delete from ${table}`, `update ${table} set code = 'x'`]) {
        await t.rejects(owner.query(text), { code: '23001' }, `owner: ${text}`)
        await t.rejects(serving.query(text), { code: '42501' }, `serving: ${text}`)
      }
    }
    const db = openDatabase({ url: servingUrl, max: 1, log: quiet, applicationName: 'test' })
    t.teardown(() => db.close())
    t.same(await databaseFaults(db), [])

    t.equal(await maintain('220 days'), 1, 'the month eleven months ago; the others are not all older')
    t.equal(await maintain('160 days'), 1)
    t.same(
      (await partitions()).filter(({ rows }) => rows > 0).map(({ name }) => name),
      [`refusals_${month(-5)}`, `refusals_${month(9)}`]
        .slice(0, 1)
        .concat(`refusals_${month(9)}_${month(9)}`)
        .sort(),
    )
  },
)

t.test('several may maintain at once, in any time zone', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const owners = await Promise.all([1, 2, 3].map(() => openSql(t, ownerUrl)))
  await owners[0]?.query(`insert into refusals (id, at, principal, code, digest, detail, violations)
    select gen_random_uuid(), date_trunc('month', now(), 'UTC') + interval '5 months', 'noisy', 'csr.pem', '', '', '[]'`)
  await Promise.all(
    owners.map(async (owner, i) => {
      await owner.query(`set time zone '${['Pacific/Kiritimati', 'America/New_York', 'UTC'][i]}'`)
      await owner.query(`select maintain_refusals('90 days')`)
    }),
  )
  t.pass('without a gap or an overlap between months')
})

t.test('what was counted of a principal, or in a span, is read from an index alone', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const owner = openDatabase({ url: ownerUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(owner.close)
  await owner.query({
    text: `insert into refusal_counts
      select gen_random_uuid(), 'p' || i % 50, timestamptz '2026-01-01' + i / 50 * interval '1 minute', 1
      from generate_series(0, 49999) i`,
  })
  await owner.query({ text: 'vacuum analyze refusal_counts' })
  const asked: [Statement, readonly unknown[]][] = []
  const query: Database['query'] = (statement, values = []) => {
    asked.push([statement, values])
    return owner.query(statement, values)
  }
  const records = openRecords({ db: { ...owner, query }, codec, namesOf: readNames, sentAlong: () => [] })
  const [after, before] = [new Date('2026-01-01T01:00:30Z'), new Date('2026-01-01T02:00:00Z')]
  t.equal(await records.refusalsCounted({}), 50_000)
  t.equal(await records.refusalsCounted({ principal: 'p7' }), 1_000)
  t.equal(await records.refusalsCounted({ after, before }), 3_000)
  t.equal(await records.refusalsCounted({ principal: 'p7', after, before }), 60)
  const indexes = [undefined, 'refusal_counts_by_principal', 'refusal_counts_by_minute', 'refusal_counts_by_principal']
  for (const [i, [{ text }, values]] of asked.entries()) {
    const index = indexes[i]
    if (index === undefined) continue
    const { rows } = await owner.query({ text: `explain (format json) ${text}` }, values)
    const plan = JSON.stringify(rows)
    t.match(plan, /"Node Type":"Index Only Scan"/)
    t.match(plan, new RegExp(`"Index Name":"${index}"`))
  }
})
