import { setImmediate as nextRound } from 'node:timers/promises'

import t from 'tap'

import { openTurns } from '../../src/lib/yield.ts'

/** In which round of the loop each of `crowd` got its turn, when each takes `cost` of the clock. */
const roundsOf = async (crowd: number, cost: number): Promise<readonly number[]> => {
  let time = 0
  let round = 0
  let waiting = true
  const nextTurn = openTurns(() => time)
  const counting = (async () => {
    for (; waiting; round += 1) await nextRound()
  })()
  const order: number[] = []
  const rounds = await Promise.all(
    Array.from({ length: crowd }, async (_, i) => {
      await nextTurn()
      time += cost
      order.push(i)
      return round
    }),
  )
  waiting = false
  await counting
  t.same(order, [...order.keys()], 'in the order in which they came')
  const [first = 0] = rounds
  return rounds.map((at) => at - first)
}

t.test('a crowd that costs little has its turn in one round', async (t) => {
  t.same(await roundsOf(100, 0.01), Array(100).fill(0))
})

t.test('a crowd that costs more goes on in the next rounds', async (t) => {
  t.same(await roundsOf(8, 3), [0, 0, 1, 1, 2, 2, 3, 3])
  t.same(await roundsOf(3, 50), [0, 1, 2])
})

t.test('a later crowd has the whole slice again', async (t) => {
  let time = 0
  const nextTurn = openTurns(() => time)
  await nextTurn()
  time += 100
  await nextTurn()
  const both = [nextTurn(), nextTurn()]
  let settled = 0
  for (const turn of both) void turn.then(() => (settled += 1))
  await nextRound()
  t.equal(settled, 2)
})
