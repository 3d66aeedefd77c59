import t from 'tap'

import { keepNewest, openInstants } from '../../src/lib/instants.ts'

t.test('each instant has its own text, however often they change', async (t) => {
  const text = openInstants()
  for (const time of ['2026-11-26T12:00:00.000Z', '2026-11-26T12:00:00.001Z', '1970-01-01T00:00:00.000Z'])
    for (const again of [time, time, '2030-01-01T00:00:00.000Z', time]) t.equal(text(new Date(again).getTime()), again)
  t.throws(() => text(Number.NaN), RangeError)
  t.throws(() => text(Number.NaN), RangeError, 'and is not kept')
  t.equal(text(0), '1970-01-01T00:00:00.000Z')
})

t.test('what is made of the newest is made once', async (t) => {
  const asked: number[] = []
  const double = keepNewest((milliseconds) => asked.push(milliseconds) && milliseconds * 2)
  t.same([1, 1, 2, 2, 1].map(double), [2, 2, 4, 4, 2])
  t.same(asked, [1, 2, 1])
})
