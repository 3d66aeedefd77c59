import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { inSlices } from '../../src/http/api/batch.ts'

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
    await inSlices(items, 8, work),
    items.map((n) => n * 2),
  )
  t.equal(most, 8)
  t.same(await inSlices([], 8, work), [])
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
  await inSlices(new Array(100).fill(0), 32, async () => busy())
  clearInterval(turning)
  t.ok(turns >= 20, `${turns} turns of the event loop in 200 ms of work`)
})
