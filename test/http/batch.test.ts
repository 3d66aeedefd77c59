import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { inSlices } from '../../src/http/api/batch.ts'
import { openTurns } from '../../src/lib/yield.ts'

t.test('outcomes come in the order of the items, with no more under way than the width', async (t) => {
  let underWay = 0
  let most = 0
  const work = async (n: number): Promise<number> => {
    underWay += 1
    most = Math.max(most, underWay)
    await sleep(n % 7)
    underWay -= 1
    return n * 2
  }
  const items = Array.from({ length: 100 }, (_, i) => i)
  t.same(
    await inSlices(items, { width: 8, nextTurn: openTurns(), work }),
    items.map((n) => n * 2),
  )
  t.equal(most, 8)
  t.same(await inSlices([], { width: 8, nextTurn: openTurns(), work }), [])
})

t.test('work that never waits still lets others in between', async (t) => {
  const busy = (): void => {
    const until = performance.now() + 2
    while (performance.now() < until);
  }
  let turns = 0
  const turning = setInterval(() => {
    turns += 1
  }, 1)
  await inSlices(new Array(100).fill(0), { width: 32, nextTurn: openTurns(), work: async () => busy() })
  clearInterval(turning)
  t.ok(turns >= 20, `${turns} turns of the event loop in 200 ms of work`)
})

t.test('no item is begun in the turn of its body, nor in that of another batch', async (t) => {
  const turns: (() => void)[] = []
  const nextTurn = () => new Promise<void>((resolve) => turns.push(resolve))
  const begun: string[] = []
  const work = async (item: string): Promise<void> => void begun.push(item)
  const both = ['a', 'b'].map((item) => inSlices([item], { width: 8, nextTurn, work }))
  t.equal(turns.length, 2)
  for (const expected of [['a'], ['a', 'b']]) {
    t.same(begun, expected.slice(0, -1))
    turns.shift()?.()
    await sleep(0)
    t.same(begun, expected)
  }
  await Promise.all(both)
})
