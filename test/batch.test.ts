import t from 'tap'

import { openBatch } from '../src/batch.ts'

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

t.test('where one item can be to blame, each runs alone, and only that one fails', async (t) => {
  const sizes: number[] = []
  const run = async (items: readonly string[]) => {
    sizes.push(items.length)
    if (items.includes('bad')) throw new RangeError('bad')
    return items
  }
  const batch = openBatch({ run, max: 10, lanes: 1, isolate: (error) => error instanceof RangeError })
  const results = await Promise.allSettled(['a', 'bad', 'b'].map((item) => batch.add(item)))
  t.same(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  t.same(sizes, [3, 1, 1, 1])
})

t.test('who is about to come is waited for, but not once there are enough', async (t) => {
  const sizes: number[] = []
  let coming = true
  const batch = openBatch({
    run: async (items: readonly number[]) => items,
    max: 10,
    lanes: 1,
    observe: (n) => sizes.push(n),
    gather: { coming: () => coming, enough: 3, patienceMs: 60_000 },
  })
  const two = [batch.add(1), batch.add(2)]
  for (let i = 0; i < 3; i += 1) await turn()
  t.same(sizes, [], 'they wait')
  t.same(await Promise.all([...two, batch.add(3)]), [1, 2, 3])
  t.same(sizes, [3])
  const one = batch.add(4)
  await turn()
  t.same(sizes, [3], 'and so does the next')
  coming = false
  t.same(await Promise.all([one, batch.add(5)]), [4, 5], 'until the last has come')
  t.same(sizes, [3, 2])
  await batch.drain()
})

t.test('who never comes is not waited for beyond patience, by each batch anew', async (t) => {
  const sizes: number[] = []
  const batch = openBatch({
    run: async (items: readonly number[]) => items,
    max: 10,
    lanes: 1,
    observe: (n) => sizes.push(n),
    gather: { coming: () => true, enough: 10, patienceMs: 20 },
  })
  for (const n of [1, 2]) t.equal(await batch.add(n), n)
  const last = batch.add(3)
  await batch.drain()
  t.equal(await last, 3)
  t.same(sizes, [1, 1, 1])
})

t.test('a batch that is full waits for nobody, and leaves no patience behind', async (t) => {
  const sizes: number[] = []
  const batch = openBatch({
    run: async (items: readonly number[]) => items,
    max: 2,
    lanes: 1,
    observe: (n) => sizes.push(n),
    gather: { coming: () => true, enough: 10, patienceMs: 20 },
  })
  t.same(await Promise.all([batch.add(1), batch.add(2), batch.add(3)]), [1, 2, 3])
  t.same(sizes, [2, 1])
})
