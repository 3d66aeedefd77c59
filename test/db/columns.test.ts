/** Columns in binary: what PostgreSQL reads of them is what was meant. */
import t from 'tap'

import { boolArray, byteaArray, columnsOf, int4Array, textArray, timestamptzArray } from '../../src/db/columns.ts'
import { openTestStores } from './stores.ts'

const { stores } = await openTestStores(t)
const readBack = async (type: string, array: Buffer): Promise<unknown> => {
  const { rows } = await stores.db.query<{ values: unknown }>(
    { text: `select array(select v from unnest($1::${type}[]) with ordinality as r (v, n) order by n) as values` },
    [array],
  )
  return rows[0]?.values
}

t.test('texts, with what is not ASCII, empty, absent', async (t) => {
  const texts = ['', 'a', 'Zürich — 東京 🔐', '"quoted", {braces}, \\ and NULL', null, 'x'.repeat(70_000)]
  t.same(await readBack('text', textArray(texts)), texts)
  t.same(await readBack('text', textArray([undefined])), [null])
  t.same(await readBack('text', textArray([])), [])
})

t.test('octets of any value', async (t) => {
  const octets = [Buffer.alloc(0), Buffer.from(Array.from({ length: 256 }, (_, i) => i)), null, Buffer.alloc(70_000, 7)]
  t.same(await readBack('bytea', byteaArray(octets)), octets)
})

t.test('numbers, to the ends of their range', async (t) => {
  const numbers = [0, 1, -1, 2 ** 31 - 1, -(2 ** 31)]
  t.same(await readBack('integer', int4Array(numbers)), numbers)
  t.throws(() => int4Array([2 ** 31]), { code: 'ERR_OUT_OF_RANGE' })
})

t.test('truths', async (t) => {
  t.same(await readBack('boolean', boolArray([true, false, true])), [true, false, true])
})

t.test('instants to the millisecond, before and after the year that they are counted from', async (t) => {
  const times = [
    '1600-02-29T12:34:56.789Z',
    '1970-01-01T00:00:00.001Z',
    '1999-12-31T23:59:59.999Z',
    '2000-01-01T00:00:00.000Z',
    '2000-02-19T17:02:47.295Z', // 2^32 milliseconds, less one
    '2000-02-19T17:02:47.296Z',
    '2026-11-25T23:59:59.999Z',
    '9999-12-31T23:59:59.999Z',
  ]
  const dates = times.map((time) => new Date(time))
  t.same(await readBack('timestamptz', timestamptzArray(dates)), dates)
  t.throws(() => timestamptzArray([new Date(Number.NaN)]), RangeError)
})

t.test('an array of another type than the statement says is refused', async (t) => {
  await t.rejects(readBack('integer', textArray(['1'])), { code: '42804' })
})

t.test('rows come out as they went in, with other parameters around them', async (t) => {
  const table = columnsOf<{ readonly name: string; readonly key: Buffer | null }>(
    [
      ['place', 'integer', (_row, place) => place],
      ['name', 'text', ({ name }) => name],
      ['key', 'bytea', ({ key }) => key],
    ],
    2,
  )
  t.equal(table.next, 5)
  const rows = [
    { name: 'a', key: Buffer.from([0, 255]) },
    { name: 'é', key: null },
  ]
  const read = await stores.db.query(
    { text: `select $1::text as first, r.*, $${table.next}::integer as last from ${table.from} order by place` },
    ['one', ...table.values(rows), 5],
  )
  t.same(
    read.rows,
    rows.map((row, place) => ({ first: 'one', place, ...row, last: 5 })),
  )
})
