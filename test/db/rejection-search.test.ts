/** Searches by time, against the rows themselves: whatever is asked, however little a page holds. */
import { randomUUID } from 'node:crypto'

import t from 'tap'

import type { RefusalFilter, Start } from '../../src/ca/records.ts'
import { openDatabase } from '../../src/db/database.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { codec } from '../../src/server/codec.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'

const { servingUrl } = await openTestDatabase(t)
const db = openDatabase({ url: servingUrl, max: 2, log: quiet, applicationName: 'test' })
t.teardown(() => db.close())

interface Row {
  readonly id: string
  /** Microseconds since `start`. */
  readonly at: number
  readonly principal: string
  readonly profile: string | null
  readonly code: string
  readonly digest: string
}

const start = Date.parse('2026-10-31T23:59:59.900Z')
const insert = (rows: readonly Row[]): Promise<unknown> =>
  db.query(
    {
      text: `insert into refusals (id, at, principal, profile, code, digest, detail, violations)
        select id, $2::timestamptz + at * interval '1 microsecond', principal, profile, code, decode(digest, 'hex'), '', '[]'
        from json_to_recordset($1::json) as r (id uuid, at bigint, principal text, profile text, code text, digest text)`,
    },
    [JSON.stringify(rows), new Date(start)],
  )

/** Over the end of a month; several of one microsecond, and of one millisecond. */
const rows: readonly Row[] = Array.from({ length: 240 }, (_, i) => ({
  id: randomUUID(),
  at: i < 60 ? 1_000 * Math.floor(i / 12) : i < 120 ? 5_000 + Math.floor(i / 2) : 900 * i,
  principal: `p${i % 7 === 0 ? 1 : 0}`,
  profile: i % 5 === 0 ? null : `f${i % 3}`,
  code: i % 2 === 0 ? 'csr.pem' : 'san.forbidden',
  digest: `0${i % 4}`.repeat(32),
}))

const expected = ({ after, before, ...fields }: RefusalFilter): readonly string[] =>
  rows
    .filter((row) => Object.entries(fields).every(([field, value]) => row[field as keyof Row] === value))
    .filter(({ at }) => after === undefined || start + at / 1_000 >= after.getTime())
    .filter(({ at }) => before === undefined || start + at / 1_000 < before.getTime())
    .toSorted((a, b) => b.at - a.at || (a.id < b.id ? 1 : -1))
    .map(({ id }) => id)

const { walk } = openRecords({ db, codec, namesOf: readNames, sentAlong: () => [] })

const found = async (filter: RefusalFilter, limit: number): Promise<readonly string[]> => {
  const ids: string[] = []
  for (let begin: Start | undefined = {}; begin !== undefined; ) {
    const { items, next } = await (await walk.refusals(filter, begin)).page(limit)
    ids.push(...items.map(({ id }) => id))
    begin = next === undefined ? undefined : { cursor: next }
  }
  return ids
}

const millisecond = (n: number): Date => new Date(start + n)
const filters: readonly RefusalFilter[] = [
  {},
  { principal: 'p1' },
  { profile: 'f2', code: 'csr.pem' },
  { principal: 'p0', code: 'san.forbidden', digest: '03'.repeat(32) },
  { principal: 'p1', profile: 'f1', digest: '00'.repeat(32) },
  { principal: 'nobody' },
  { principal: 'p0', profile: 'none' },
  { after: millisecond(2) },
  { before: millisecond(2) },
  { after: millisecond(2), before: millisecond(4), principal: 'p0' },
  { after: millisecond(3), before: millisecond(3) },
  { after: millisecond(108), before: millisecond(1_000_000), code: 'csr.pem' },
]

t.test('each filter finds exactly its rows, in order, once', async (t) => {
  await insert(rows)
  for (const filter of filters)
    for (const limit of [1_000, 5, 2, 1])
      t.same(await found(filter, limit), expected(filter), JSON.stringify([filter, limit]))
})

t.test('and counts them', async (t) => {
  for (const filter of filters)
    t.same(
      await (await walk.refusals(filter)).count(),
      { rows: expected(filter).length, exact: true },
      JSON.stringify(filter),
    )
})

t.test('what no row can hold is nowhere, and what comes after a search began is not in it', async (t) => {
  for (const principal of ['\0', 'a\ud800']) {
    const nowhere = await walk.refusals({ principal, code: 'csr.pem' })
    t.same([await nowhere.page(5), await nowhere.count()], [{ items: [] }, { rows: 0, exact: true }])
  }
  const searches = await Promise.all([walk.refusals({}), walk.refusals({ before: new Date('2100-01-01') })])
  await db.query({
    text: `insert into refusals (id, principal, code, digest, detail, violations)
      values (gen_random_uuid(), 'late', 'csr.pem', '', '', '[]')`,
  })
  for (const search of searches) {
    t.equal((await search.page(1_000)).items.length, rows.length)
    t.same(await search.count(), { rows: rows.length, exact: true })
    t.ok(search.range.before instanceof Date && search.range.before.getTime() <= Date.now() + 1)
  }
  const span = { after: millisecond(1), before: millisecond(2) }
  t.same((await walk.refusals(span)).range, { from: span.after, before: span.before })
  t.equal((await (await walk.refusals({ principal: 'late' })).page(5)).items.length, 1)
})

t.test('what a clock has dated ahead that was set back since is found like all else', async (t) => {
  const now = Date.now()
  const ahead = [86_400_000, 3_600_000].map((ms) => ({
    ...{ id: randomUUID(), at: 1_000 * (now + ms - start), digest: '05'.repeat(32) },
    ...{ principal: 'ahead', profile: null, code: 'csr.pem' },
  }))
  const ids = ahead.map(({ id }) => id)
  await insert(ahead)
  for (const limit of [1_000, 1]) {
    t.same((await found({}, limit)).slice(0, 2), ids, 'newest first')
    t.same(await found({ principal: 'ahead' }, limit), ids)
  }
  const search = await walk.refusals({ principal: 'ahead' })
  t.same(await search.count(), { rows: 2, exact: true })
  t.same(search.range.before, new Date(now + 86_400_001), 'to its microsecond, and no earlier')
  const by = Date.now() + 1
  t.ok(search.bounds.time.getTime() <= by, 'of what is recorded until then nobody has said that it is there')
  const { next: cursor } = await search.page(1)
  const second = await walk.refusals({ principal: 'ahead' }, { cursor })
  t.same(
    (await second.page(1)).items.map(({ id }) => id),
    [ids[1]],
  )
  t.ok(second.bounds.time.getTime() <= Date.now() + 1, 'nor on a later page')
  t.same(await found({ principal: 'ahead', before: new Date(now) }, 5), [], 'but not before it is dated')
})
