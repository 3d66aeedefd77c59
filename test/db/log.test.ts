import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { openSource } from '../../src/auditor/source.ts'
import { databaseClock } from '../../src/db/clock.ts'
import type { Database } from '../../src/db/database.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { codec } from '../../src/server/codec.ts'
import type { Stores } from '../../src/server/stores.ts'
import type { RollEvent } from '../../src/tlog/entries.ts'
import { openSql } from '../helpers/sql.ts'
import { openTestStores } from './stores.ts'

const { service, stores, open, issue } = await openTestStores(t, { CHANCERY_ROLL_PUBLIC: 'yes' })
const { roll, db } = stores

const event = (label: string): RollEvent => ({ type: 'principal.created', principal: label, by: 'test' })
const note = (at: Stores, ...labels: readonly string[]): Promise<string> =>
  at.roll.change(async () => ({ events: labels.map(event), result: labels.join() }))

const openAttempts = async (connectionString: string) => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  /** Runs statements in a transaction that is never committed; resolves to the code of the first that fails. */
  const attempt = async (...statements: readonly string[]): Promise<string> => {
    await client.query('begin')
    try {
      for (const statement of statements) await client.query(statement)
      return 'done'
    } catch (error) {
      return (error as { code: string }).code
    } finally {
      await client.query('rollback')
    }
  }
  return { attempt, end: () => client.end() }
}

/** Every entry as it is told to auditors, with what must hold of all of them. */
const entries = async (t: Test): Promise<readonly Record<string, unknown>[]> => {
  const { rows } = await db.query<{ index: number; time: Date }>({
    text: 'select index, time from entries order by index',
  })
  t.same(
    rows.map(({ index }) => index),
    rows.map((_, i) => i),
    'no gap',
  )
  t.equal((await roll.head()).size, rows.length, 'the head is the number of entries')
  t.ok(
    rows.every(({ time }, i) => i === 0 || time >= (rows[i - 1]?.time ?? time)),
    'time never goes back',
  )
  const told: Record<string, unknown>[] = []
  let cursor: string | undefined
  do {
    const page = await stores.records.events({}, { limit: 1000, ...(cursor !== undefined && { cursor }) })
    for (const { index, leafHash, entry } of page.items) {
      if (createHash('sha256').update(`\0${entry}`).digest('hex') !== leafHash) t.fail(`entry ${index} is not its leaf`)
      told.push(JSON.parse(entry))
    }
    cursor = page.next
  } while (cursor !== undefined)
  t.equal(told.length, rows.length)
  return told
}

t.test('changes and issuances of two writers at once leave no gap, and each is there once', async (t) => {
  const other = await open()
  const before = (await entries(t)).length
  const changes = Array.from({ length: 40 }, (_, i) => note(i % 2 ? stores : other, `w-${i}`, `w-${i}-again`))
  const issuances = Array.from({ length: 60 }, (_, i) => issue([`dns:w${i}.example.com`]))
  const issued = await Promise.all(issuances)
  await Promise.all(changes)
  const told = await entries(t)
  t.equal(told.length - before, 40 * 2 + 60)
  for (const { index, serial, leafHash } of issued) {
    t.match(told[index], { type: 'certificate.issued', serial }, 'it is where the answer says')
    const { items } = await stores.records.events({ serial }, { limit: 10 })
    t.match(items, [{ index, leafHash: leafHash.toString('hex') }])
  }
  const labels = told.map(({ principal }) => String(principal)).filter((name) => name.startsWith('w-'))
  t.equal(labels.length, 80)
  t.equal(new Set(labels).size, 80)
  for (let i = 0; i < 40; i++)
    t.equal(labels.indexOf(`w-${i}-again`), labels.indexOf(`w-${i}`) + 1, 'a change is one piece')
})

t.test('a head that someone else has moved is found again, and nothing is lost', async (t) => {
  const other = await open()
  for (let i = 0; i < 5; i++) {
    // The service remembers its head; the others move it under its feet.
    const first = await issue([`dns:moved${i}.example.com`])
    await note(other, `mover-${i}`)
    await note(stores, `mover-${i}-too`)
    const second = await issue([`dns:moved${i}b.example.com`])
    t.equal(second.index, first.index + 3)
  }
  await entries(t)
})

t.test('a change that fails leaves no entry, no gap and a roll that goes on', async (t) => {
  const { size } = await roll.head()
  await t.rejects(
    roll.change(async (tx) => {
      await tx.query({ text: `insert into principals (name, created_by) values ('half', 'test')` })
      throw new Error('no')
    }),
    { message: 'no' },
  )
  await t.rejects(
    roll.change(async (tx) => ({ events: [event('bad')], result: await tx.query({ text: 'select 1/0' }) })),
  )
  await t.rejects(note(stores, 'x'.repeat(70_000)), RangeError, 'an entry beyond the bound')
  t.equal((await roll.head()).size, size)
  await t.rejects(stores.access.readPrincipal('half'), { code: 'principal.not_found' })
  await note(stores, 'goes-on')
  t.equal((await roll.head()).size, size + 1)
  await roll.change(async () => ({ events: [], result: 'nothing to say' }))
  t.equal((await roll.head()).size, size + 1)
  await entries(t)
})

t.test('an event is dated by the earlier of two clocks that disagree, and never before the last one', async (t) => {
  const day = 86_400_000
  const timesOf = async (label: string): Promise<{ readonly time: Date; readonly last: Date; readonly now: Date }> => {
    const { rows } = await db.query<{ time: Date; last: Date; now: Date }>(
      {
        text: `select e.time, p.time as last, clock_timestamp() as now from entries e join entries p on p.index = e.index - 1
          where e.body::json->>'principal' = $1`,
      },
      [label],
    )
    if (!rows[0]) throw new Error(`there is no ${label}`)
    return rows[0]
  }
  await note(stores, 'before')
  await setTimeout(50)
  // To whoever is a day behind, the database is a day ahead, and may be.
  await note(await open(() => new Date(Date.now() - day)), 'behind')
  const behind = await timesOf('behind')
  t.same(behind.time, behind.last)
  await setTimeout(50)
  await note(await open(() => new Date(Date.now() + day)), 'ahead')
  const ahead = await timesOf('ahead')
  t.ok(
    ahead.time > behind.time && ahead.time.getTime() < ahead.now.getTime() + 1_000,
    'not by one that runs ahead itself',
  )
  await setTimeout(50)
  await note(await open(() => new Date(Date.now() - 1_000)), 'a-little')
  const little = await timesOf('a-little')
  t.ok(little.time > ahead.time, 'within the tolerance the database’s is the one for all')
  const skewed = await open(() => new Date(Date.now() - day))
  const { size } = await roll.head()
  await t.rejects(
    skewed.roll.change(async () => {
      skewed.roll.assertClock()
      return { events: [event('judged')], result: undefined }
    }),
    { code: 'clock.skewed' },
    'what is judged by its time is not done meanwhile',
  )
  t.ok((await roll.head()).size >= size)
  t.notOk((await entries(t)).some(({ principal }) => principal === 'judged'))
})

t.test('the clock of the database counts until it runs further ahead of ours than is tolerated', async (t) => {
  const ours = new Date('2030-01-01T00:00:00Z')
  for (const [aheadMs, dated] of [
    [0, 0],
    [-86_400_000, -86_400_000],
    [-4_000, -4_000],
    [4_000, 4_000],
    [5_000, 5_000],
    [5_001, 5_000],
    [86_400_000, 5_000],
  ] as const) {
    const clock = databaseClock(() => ours, 5_000)
    clock.observe(new Date(ours.getTime() + aheadMs), 0)
    t.equal(clock.eventTime().getTime() - ours.getTime(), dated, `${aheadMs} ms ahead`)
    t.equal(clock.fault() === undefined, Math.abs(aheadMs) <= 5_000)
  }
})

t.test('a reading of the clock that was heard late says only what it can', async (t) => {
  let ours = Date.UTC(2030, 0, 1)
  const clock = databaseClock(() => new Date(ours), 5_000)
  const skewAfter = (aheadMs: number, tookMs: number): number => {
    clock.observe(new Date(ours + aheadMs), tookMs)
    return clock.now().getTime() - ours
  }
  t.equal(skewAfter(100, 0), 100, 'one that came at once is the newest')
  t.equal(skewAfter(-600, 700), 100, 'one that may be of before that says no more than it did')
  t.equal(skewAfter(0, 0), 0)
  t.equal(skewAfter(-3_600_000, 3_600_000), 0, 'read when it was asked for, at the earliest')
  t.equal(skewAfter(-3_600_000, 3_600_200), 0, 'and what was known before holds where it can')
  t.equal(skewAfter(200, 10_000), 200, 'or when it was heard, at the latest')
  t.equal(skewAfter(-20_000, 10_000), -10_000)
  ours += 86_400_000
  t.equal(skewAfter(-86_400_000, 10), -86_399_990, 'a clock that was set is found out, to what the reading took')
  t.equal(skewAfter(-86_400_000, 0), -86_400_000)
})

t.test('whoever was stopped while the head was read does not take its clock for a wrong one', async (t) => {
  const clock = databaseClock(() => new Date(), 100)
  const stop = (milliseconds: number): void => {
    const until = performance.now() + milliseconds
    while (performance.now() < until);
  }
  let stopMs = 0
  const stopped: Database = {
    ...db,
    query: async <Row>(...asked: Parameters<Database['query']>) => {
      const answer = await db.query<Row>(...asked)
      stop(stopMs)
      return answer
    },
  }
  const { head } = openRollWriter(stopped, codec, clock)
  await head()
  for (stopMs of [300, 1_500]) {
    await head()
    t.equal(clock.fault(), undefined, `${stopMs} ms`)
  }
  t.ok(Math.abs(clock.now().getTime() - Date.now()) < 1_000, 'nor is what has expired meanwhile still good')
})

t.test('the database refuses a gap, an overlap and a head that goes back, whoever writes', async (t) => {
  for (const url of [service.database.ownerUrl, service.database.servingUrl]) {
    const { attempt, end } = await openAttempts(url)
    const grow = (by: number): string => `update roll set size = size + ${by}`
    const insert = (from: string, n = 1): string => `insert into entries (index, type, time, leaf_hash, body)
      select ${from} + i, 'principal.created', now(), sha256('\\x007b7d'), '{}' from roll, generate_series(0, ${n - 1}) i`
    t.equal(await attempt(grow(1), insert('size - 1')), 'done', 'what the service does')
    t.equal(await attempt(grow(3), insert('size - 3', 3)), 'done', 'three at once')
    t.equal(await attempt(insert('size')), '23001', 'no room was made')
    t.equal(await attempt(insert('size - 1')), '23505', 'where an entry is')
    t.equal(await attempt(grow(1), insert('size - 1').replace('7b7d', '7b7e')), '23514', 'another leaf than its own')
    t.equal(await attempt(grow(2), insert('size - 1')), '23001', 'half of the room')
    t.equal(await attempt(grow(2), insert('size - 2')), '23001', 'the other half')
    t.equal(await attempt(grow(1), insert('size - 1'), grow(1), insert('size - 1')), 'done', 'twice in one transaction')
    t.equal(await attempt(grow(2), grow(1), insert('size - 1')), '23001', 'room that was left empty')
    t.equal(await attempt(grow(1), insert('size + 5')), '23001', 'beyond the room')
    t.equal(await attempt(grow(3), `${insert('size - 3', 3)} where i <> 1`), '23001', 'the room without its middle')
    t.equal(await attempt(grow(-1)), '23001', 'back')
    t.equal(await attempt(`update roll set time = '2000-01-01'`), '23001', 'back in time')
    await end()
  }
  await entries(t)
})

t.test('the database refuses a tree that is behind its roll, ahead of it, or has a gap, whoever writes', async (t) => {
  /** Up to this size, as if everything else were as it should be. */
  const fill = (size: number): readonly string[] => [
    `update roll set size = ${size}, time = now()`,
    `insert into entries (index, type, time, leaf_hash, body) select i, 'principal.created', now(), sha256('\\x007b7d'), '{}'
      from generate_series((select max(index) + 1 from entries), ${size - 1}) i`,
  ]
  const tree = (level: number, first: number, last = first): string =>
    `insert into subtrees (level, index, hash) select ${level}, i, sha256('') from generate_series(${first}, ${last}) i`
  const settle = 'set constraints all immediate'
  const cases: readonly (readonly [what: string, code: string, ...statements: readonly string[]])[] = [
    ['nothing is complete', 'done', ...fill(255), settle],
    ['what is complete is there', 'done', ...fill(256), tree(1, 0), settle],
    ['and all of it', 'done', ...fill(513), tree(1, 0, 1), settle],
    ['it is missing', '23001', ...fill(256), settle],
    ['the second is missing', '23001', ...fill(512), tree(1, 0), settle],
    ['ahead', '23001', ...fill(255), tree(1, 0)],
    ['the second ahead', '23001', ...fill(511), tree(1, 0, 1)],
    ['a gap', '23001', ...fill(512), tree(1, 1)],
  ]
  /** A level above: many entries, so once. */
  const above: typeof cases = [
    ['it is missing a level above', '23001', ...fill(65_536), tree(1, 0, 255), settle],
    ['a gap a level above', '23001', ...fill(131_072), tree(1, 0, 511), tree(2, 1)],
  ]
  t.ok((await roll.head()).size < 255)
  const { ownerUrl, servingUrl } = service.database
  for (const [url, asked] of [
    [ownerUrl, cases],
    [servingUrl, [...cases, ...above]],
  ] as const) {
    const { attempt, end } = await openAttempts(url)
    for (const [what, code, ...statements] of asked) t.equal(await attempt(...statements), code, what)
    await end()
  }
})

t.test('an entry whose records were tampered with is not told as if it were the one on the roll', async (t) => {
  const { serial, index } = await issue(['dns:tampered.example.com'])
  const owner = await openSql(t, service.database.ownerUrl)
  const tamper = async (sql: string): Promise<void> => {
    await owner.query('alter table intents disable trigger append_only')
    await owner.query(sql, [Buffer.from(serial, 'hex')])
    await owner.query('alter table intents enable trigger append_only')
  }
  const page = () => stores.records.events({ fromIndex: index }, { limit: 1 })
  t.equal((await page()).items.length, 1)
  await tamper(`update intents set plan = decode(repeat('00', 32), 'hex') where serial = $1`)
  const told = new RegExp(
    `records of entry ${index} are not .*: they no longer hash to its leaf.*roll verify --database`,
  )
  await t.rejects(page(), { code: 'internal', message: told, options: { cause: { message: /entry/ } } })
  for (const path of [
    `/v1/events?serial=${serial}`,
    `/roll/tile/entries/00${Math.floor(index / 256)}.p/${(index % 256) + 1}`,
  ])
    t.match(
      await service.request('GET', path),
      { status: 500, json: { code: 'internal', retryable: false, detail: told } },
      path,
    )
  const started = performance.now()
  const read = openSource(service.publicUrl, {}).then((source) =>
    source
      .read('checkpoint')
      .then(() => source.read(`tile/entries/00${Math.floor(index / 256)}.p/${(index % 256) + 1}`)),
  )
  await t.rejects(read, { kind: 'failed', message: told }, 'the command ends with that, and takes it for no bad hour')
  t.ok(performance.now() - started < 5_000, 'and at once')
})
