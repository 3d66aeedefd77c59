import { mock } from 'node:test'

import t, { type Test } from 'tap'

import { openBatch } from '../../src/lib/batch.ts'

t.test('items that come in one turn go together, and each gets its own answer', async (t) => {
  const sizes: number[] = []
  const batch = openBatch({
    run: async (items: readonly number[]) => items.map((n) => n * 2),
    max: 10,
    lanes: 1,
    observe: (n) => sizes.push(n),
  })
  t.same(await Promise.all([1, 2, 3].map((n) => batch.add(n))), [2, 4, 6])
  t.same(sizes, [3])
})

t.test('while a batch is under way others wait, and go together in the next, up to the bound', async (t) => {
  const sizes: number[] = []
  const gates: (() => void)[] = []
  const run = async (items: readonly number[]) => {
    await new Promise<void>((resolve) => gates.push(resolve))
    return items
  }
  const batch = openBatch({ run, max: 2, lanes: 1, observe: (n) => sizes.push(n) })
  const answers = [batch.add(1)]
  while (gates.length < 1) await turn()
  for (const n of [2, 3, 4]) answers.push(batch.add(n))
  await turn()
  t.equal(gates.length, 1, 'one lane, one batch under way')
  t.equal(batch.pending, 4)
  for (let i = 0; i < 3; i += 1) {
    while (gates.length <= i) await turn()
    gates[i]?.()
  }
  t.same(await Promise.all(answers), [1, 2, 3, 4])
  t.same(sizes, [1, 2, 1])
  await batch.drain()
  t.equal(batch.pending, 0)
})

t.test('its lane is free when what comes after a batch is over; those in it are answered before', async (t) => {
  const sizes: number[] = []
  const told: unknown[] = []
  let over = (): void => {}
  const batch = openBatch({
    run: async (items: readonly number[]) => items.map((n) => (n < 0 ? new Error('negative') : n)),
    max: 10,
    lanes: 1,
    observe: (n) => sizes.push(n),
    after: (results) => {
      told.push(results)
      return new Promise<void>((resolve) => {
        over = resolve
      })
    },
  })
  t.equal(await batch.add(1), 1)
  const later = [batch.add(2), batch.add(3)]
  for (let i = 0; i < 3; i += 1) await turn()
  t.same(sizes, [1], 'they wait')
  t.equal(batch.pending, 3)
  over()
  t.same(await Promise.all(later), [2, 3])
  over()
  await t.rejects(batch.add(-1), { message: 'negative' })
  over()
  t.match(told, [[1], [2, 3], [{ message: 'negative' }]])
  await batch.drain()
})

t.test('a batch that fills up before the turn ends takes its lane, and the rest waits for one', async (t) => {
  let underWay = 0
  let most = 0
  const run = async (items: readonly number[]) => {
    underWay += 1
    most = Math.max(most, underWay)
    await turn()
    underWay -= 1
    return items
  }
  for (const lanes of [1, 2]) {
    most = 0
    const batch = openBatch({ run, max: 4, lanes })
    const items = Array.from({ length: 4 * lanes + 2 }, (_, i) => i)
    t.same(await Promise.all(items.map((n) => batch.add(n))), items)
    t.equal(most, lanes)
  }
})

t.test(
  'an error for one item fails that item alone, a rejection fails the batch, and the next batch runs',
  async (t) => {
    const run = async (items: readonly string[]) => {
      if (items.includes('all')) throw new Error('the whole batch')
      return items.map((item) => (item === 'one' ? new Error('this one') : item))
    }
    const batch = openBatch({ run, max: 10, lanes: 1 })
    const [one, other] = await Promise.allSettled([batch.add('one'), batch.add('other')])
    t.match(one, { status: 'rejected', reason: { message: 'this one' } })
    t.match(other, { status: 'fulfilled', value: 'other' })
    const both = await Promise.allSettled([batch.add('all'), batch.add('innocent')])
    t.ok(both.every(({ status }) => status === 'rejected'))
    t.equal(await batch.add('after'), 'after')
  },
)

t.test('an answer that is missing is an error, never silence', async (t) => {
  const batch = openBatch({ run: async (_items: readonly number[]) => [], max: 10, lanes: 1 })
  await t.rejects(batch.add(1), /without an answer/)
})

t.test('drain waits for what waits and for what is under way', async (t) => {
  let done = 0
  const run = async (items: readonly number[]) => {
    await turn()
    done += items.length
    return items
  }
  const batch = openBatch({ run, max: 1, lanes: 2 })
  const answers = Promise.all([1, 2, 3, 4, 5].map((n) => batch.add(n)))
  await batch.drain()
  t.equal(done, 5)
  await answers
})

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))

t.test('where one item can be to blame, halves run again, and only that one fails', async (t) => {
  const blaming = (bad: readonly number[]) => {
    const sizes: number[] = []
    const run = async (items: readonly number[]) => {
      sizes.push(items.length)
      if (items.some((item) => bad.includes(item))) throw new RangeError('bad')
      return items.map((item) => item * 2)
    }
    return { sizes, batch: openBatch({ run, max: 128, lanes: 1, isolate: (error) => error instanceof RangeError }) }
  }
  for (const [count, bad, runs] of [
    [3, [1], [3, 1, 2, 1, 1]],
    [8, [6], [8, 4, 4, 2, 2, 1, 1]],
    [2, [0, 1], [2, 1, 1]],
    [1, [0], [1]],
    [128, [77], undefined],
    [128, [0, 127], undefined],
  ] as const) {
    const { sizes, batch } = blaming(bad)
    const items = Array.from({ length: count }, (_, i) => i)
    const results = await Promise.allSettled(items.map((item) => batch.add(item)))
    const expected = items.map((item) => (bad.some((one) => one === item) ? 'bad' : item * 2))
    t.same(
      results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason.message)),
      expected,
    )
    if (runs) t.same(sizes, runs)
    // Two for each level of halves, and the first.
    else t.ok(sizes.length <= 1 + bad.length * 2 * 7, `${sizes.length} runs`)
    await batch.drain()
    t.equal(batch.pending, 0)
  }
})

/** Sizes of its batches as they begin; patience is that of a clock which is moved by hand. */
const openGathering = (t: Test, { max = 10, lanes = 1, enough = 3 } = {}) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const sizes: number[] = []
  const batch = openBatch({
    run: async (items: readonly number[]) => items,
    max,
    lanes,
    observe: (n) => sizes.push(n),
    gather: { enough, patienceMs: 100 },
  })
  return { batch, sizes }
}
const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i += 1) await new Promise((resolve) => setImmediate(resolve))
}

t.test('who is expected is waited for: until he comes, or will not, or there are enough', async (t) => {
  const { batch, sizes } = openGathering(t)
  const over = [batch.expect(), batch.expect()]
  const two = [batch.add(1), batch.add(2)]
  await turns()
  t.same(sizes, [], 'they wait')
  t.same(await Promise.all([...two, batch.add(3)]), [1, 2, 3])
  t.same(sizes, [3], 'enough')
  const four = batch.add(4)
  await turns()
  over[0]?.()
  over[0]?.()
  await turns()
  t.same(sizes, [3], 'one is expected still, however often the other says so')
  over[1]?.()
  t.equal(await four, 4)
  t.same(sizes, [3, 1], 'nobody is expected any more, and nobody else came')
  t.equal(await batch.add(5), 5)
  await batch.drain()
})

t.test('who comes himself keeps nobody waiting', async (t) => {
  const { batch, sizes } = openGathering(t)
  const come = async (n: number): Promise<number> => {
    const over = batch.expect()
    await turns()
    over()
    return batch.add(n)
  }
  t.equal(await come(1), 1)
  t.same(await Promise.all([come(2), come(3)]), [2, 3])
  t.same(sizes, [1, 2])
})

t.test('who never comes is not waited for beyond patience, by each batch anew', async (t) => {
  const { batch, sizes } = openGathering(t, { enough: 2 })
  batch.expect()
  const first = batch.add(1)
  await turns()
  mock.timers.tick(60)
  t.same(await Promise.all([first, batch.add(2)]), [1, 2], 'enough, before its patience was over')
  const third = batch.add(3)
  await turns()
  mock.timers.tick(60)
  await turns()
  t.same(sizes, [2], 'the patience of those before is not its own')
  mock.timers.tick(40)
  t.equal(await third, 3)
  t.same(sizes, [2, 1])
})

t.test('a batch that is full waits for nobody, and leaves no patience to the next', async (t) => {
  const { batch, sizes } = openGathering(t, { max: 2, enough: 10 })
  batch.expect()
  const first = batch.add(1)
  await turns()
  mock.timers.tick(60)
  t.same(await Promise.all([first, batch.add(2)]), [1, 2])
  const third = batch.add(3)
  await turns()
  mock.timers.tick(99)
  await turns()
  t.same(sizes, [2])
  mock.timers.tick(1)
  t.equal(await third, 3)
  await batch.drain()
})

t.test('in two lanes as well', async (t) => {
  const { batch, sizes } = openGathering(t, { lanes: 2 })
  const over = batch.expect()
  const both = Promise.all([batch.add(1), batch.add(2)])
  await turns()
  t.same(sizes, [])
  over()
  t.same(await both, [1, 2])
  t.same(sizes, [2])
})
