/** The queue: each key once, a bounded number at a time, later and later after setbacks. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type Looked, openQueue, type QueueDeps, retryOf, type Why } from '../../src/kubernetes/reconcile/queue.ts'

const open = (look: QueueDeps<string>['look'], concurrency = 2, more: Partial<QueueDeps<string>> = {}) => {
  const failures: unknown[] = []
  const queue = openQueue<string>({
    ...{ look, concurrency, random: () => 0, now: () => performance.now(), firstMs: 20, mostMs: 40, ...more },
    failed: (_, error) => {
      failures.push(error)
      return undefined
    },
  })
  t.teardown(() => queue.close())
  return { queue, failures }
}

const gate = () => Promise.withResolvers<void>()
const turns = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

t.test('a key that is named often waits once, and is looked at again if it is named meanwhile', async (t) => {
  const looks: string[] = []
  const { promise, resolve } = gate()
  const { queue } = open(async (key) => {
    looks.push(key)
    if (looks.length === 1) await promise
    return { kind: 'end' }
  })
  for (let i = 0; i < 5; i += 1) queue.add('a')
  await turns()
  t.same(looks, ['a'])
  for (let i = 0; i < 5; i += 1) queue.add('a')
  await turns()
  t.same(looks, ['a'], 'never twice at a time')
  resolve()
  await turns()
  t.same(looks, ['a', 'a'])
  t.ok(queue.idle)
})

t.test('no more are looked at at a time than that, and none is left behind', async (t) => {
  let under = 0
  let most = 0
  let count = 0
  const { queue } = open(async () => {
    most = Math.max(most, ++under)
    await turns()
    under -= 1
    count += 1
    return { kind: 'end' }
  }, 3)
  for (let i = 0; i < 50; i += 1) queue.add(`k${i}`)
  while (!queue.idle) await turns()
  t.equal(most, 3)
  t.equal(count, 50)
})

t.test('without lanes all places are there from the start, and with them one at least', async (t) => {
  const { promise, resolve } = gate()
  const looks: string[] = []
  const { queue } = open(async (key) => {
    looks.push(key)
    await promise
    return { kind: 'end' }
  }, 3)
  for (const key of ['a', 'b', 'c', 'd']) queue.add(key)
  await turns()
  t.same(looks, ['a', 'b', 'c'])
  resolve()
  for (const concurrency of [1, 2, 3]) {
    const seen: string[] = []
    const laned = open(
      async (key) => {
        seen.push(key)
        return { kind: 'end' }
      },
      concurrency,
      { laneOf: (key) => key.slice(0, 1) },
    )
    for (const key of ['a', 'b', 'a2']) laned.queue.add(key)
    for (let i = 0; i < 10; i += 1) await turns()
    t.same(seen.sort(), ['a', 'a2', 'b'])
  }
})

t.test('after a setback it comes later, after another one later still; an end begins anew', async (t) => {
  const at: number[] = []
  const waited: number[] = []
  const done = gate()
  const { queue, failures } = open(async (_, row) => {
    at.push(performance.now())
    waited.push(row.waited)
    if (at.length === 1) throw new Error('broken')
    if (at.length < 4) return { kind: 'retry' }
    done.resolve()
    return { kind: 'end' }
  })
  queue.add('a')
  await done.promise
  const gaps = at.slice(1).map((time, i) => time - (at[i] ?? 0))
  t.ok((gaps[0] ?? 0) >= 9, 'half of 20 ms, by this chance')
  t.ok((gaps[1] ?? 0) >= 19)
  t.ok((gaps[2] ?? 0) >= 19, 'never more than 40 ms')
  t.equal(waited[0], 0)
  t.ok((waited[3] ?? 0) > (waited[1] ?? 0))
  t.match(failures, [{ message: 'broken' }])
  await turns()
  queue.add('a')
  await turns()
  t.equal(waited[4], 0)
})

t.test('what was put off comes at once when it is named', async (t) => {
  let looks = 0
  const { queue } = open(async () => {
    looks += 1
    return looks === 1 ? { kind: 'retry', after: 3_600 } : { kind: 'end' }
  })
  queue.add('a')
  await turns()
  t.equal(queue.putOff, 1)
  queue.add('a')
  await turns()
  t.equal(looks, 2)
  t.equal(queue.putOff, 0)
})

t.test('what is looked at again though nothing is wrong was not put off, nor was what is left to people', async (t) => {
  const { queue } = open(async (key) => {
    if (key === 'checked') queue.addAfter(key, 3_600_000)
    if (key === 'checked') return { kind: 'end' }
    return { kind: 'retry', after: 3_600, isPoll: key === 'asked', isLeft: key === 'strange' }
  }, 4)
  for (const key of ['checked', 'asked', 'broken', 'strange']) queue.add(key)
  await turns()
  t.equal(queue.putOff, 1, 'the broken one')
  t.equal(queue.left, 1, 'the strange one')
  queue.addAfter('broken', 3_600_000)
  t.equal(queue.putOff, 0)
})

t.test('closed, it takes nothing more and waits for what is under way', async (t) => {
  const { promise, resolve } = gate()
  const looks: string[] = []
  const { queue } = open(
    async (key) => {
      looks.push(key)
      if (key === 'a') await promise
      return { kind: 'retry' }
    },
    1,
    { firstMs: 3_600_000, mostMs: 3_600_000 },
  )
  queue.add('before')
  queue.add('a')
  queue.add('waits')
  await turns()
  t.same([queue.putOff, queue.depth], [1, 1])
  let isClosed = false
  const closing = queue.close().then(() => {
    isClosed = true
  })
  queue.add('b')
  t.equal(queue.depth, 0)
  await turns()
  t.equal(isClosed, false)
  resolve()
  await closing
  t.equal(queue.putOff, 0)
  queue.add('c')
  await turns()
  t.same(looks, ['before', 'a'])
})

t.test('what is only to be checked again is looked at as soon as what it waits for is there', async (t) => {
  const looks: string[] = []
  const { queue } = open(async (key) => {
    looks.push(key)
    return { kind: 'end' }
  })
  queue.addAfter('a', 3_600_000)
  queue.add('a', 'awaited')
  await turns()
  t.same(looks, ['a'])
})

t.test('how long it has waited is told in seconds, and a fault may say when it is tried again', async (t) => {
  let now = 10_000
  const waited: number[] = []
  const queue = openQueue<string>({
    ...{ concurrency: 1, random: () => 0, now: () => now, firstMs: 3_600_000, mostMs: 3_600_000 },
    look: async (_, row) => {
      waited.push(row.waited)
      throw new Error('away')
    },
    failed: () => (waited.length === 3 ? 60 : undefined),
  })
  t.teardown(() => queue.close())
  const look = async (why: Why): Promise<readonly number[]> => {
    queue.add('a', why)
    await turns()
    now += 2_500
    return [...waited]
  }
  t.same(await look('changed'), [0])
  t.same(await look('awaited'), [0, 2.5])
  t.same(await look('awaited'), [0, 2.5, 5])
  t.same(await look('awaited'), [0, 2.5, 5], 'no sooner than it has said')
})

t.test('what waits for its turn is not put off as well', async (t) => {
  const looks: string[] = []
  const { promise, resolve } = gate()
  const last = gate()
  const { queue } = open(async (key) => {
    looks.push(key)
    if (key === 'first') await promise
    if (key === 'last') last.resolve()
    return { kind: 'end' }
  }, 1)
  queue.add('first')
  queue.add('next')
  queue.addAfter('next', 5)
  resolve()
  while (!queue.idle) await turns()
  queue.addAfter('last', 30)
  await last.promise
  t.same(looks, ['first', 'next', 'last'])
})

t.test('who hangs has a quarter of the places, and the turn goes from lane to lane', async (t) => {
  const looks: string[] = []
  const { promise, resolve } = gate()
  const { queue } = open(
    async (key) => {
      looks.push(key)
      if (key.startsWith('hangs')) await promise
      return { kind: 'end' }
    },
    8,
    { laneOf: (key) => key.split('-')[0] ?? '' },
  )
  for (let i = 0; i < 20; i += 1) queue.add(`hangs-${i}`)
  for (let i = 0; i < 20; i += 1) queue.add(`works-${i}`)
  queue.add('other-0')
  while (queue.depth > 18) await turns()
  t.equal(looks.filter((key) => key.startsWith('hangs')).length, 2)
  t.equal(looks.filter((key) => key.startsWith('works')).length, 20)
  t.ok(looks.indexOf('other-0') < 6, 'it was not behind all that came before it')
  resolve()
  while (!queue.idle) await turns()
  t.equal(looks.length, 41)
})

t.test('a lane that works has more places than its quarter, until it hangs; never the last quarter', async (t) => {
  let under = 0
  let most = 0
  let passed = 0
  let isSlow = false
  const { queue } = open(
    async () => {
      most = Math.max(most, ++under)
      await turns()
      if (isSlow) passed += 10_000
      under -= 1
      return { kind: 'end' }
    },
    8,
    { laneOf: () => 'one', now: () => passed },
  )
  const drain = async (): Promise<number> => {
    most = 0
    for (let i = 0; i < 50; i += 1) queue.add(`k${i}`)
    while (!queue.idle) await turns()
    return most
  }
  t.equal(await drain(), 6)
  isSlow = true
  t.equal(await drain(), 2)
})

t.test('many that hang leave a quarter of the places to the others, also when they come again', async (t) => {
  const looks: string[] = []
  let passed = 0
  const gates = new Map<string, () => void>()
  const { queue } = open(
    async (key) => {
      looks.push(key)
      if (!key.startsWith('hangs')) return { kind: 'end' }
      const { promise, resolve } = gate()
      gates.set(key, resolve)
      await promise
      return { kind: 'end' }
    },
    8,
    { laneOf: (key) => key.slice(0, key.indexOf('-')), now: () => passed },
  )
  const hang = async (): Promise<number> => {
    for (let lane = 0; lane < 8; lane += 1) for (let i = 0; i < 4; i += 1) queue.add(`hangs${lane}-${i}`)
    await turns()
    return gates.size
  }
  const release = async (): Promise<void> => {
    passed += 15_000
    for (const [key, end] of gates) {
      gates.delete(key)
      end()
    }
    await turns()
  }
  t.equal(await hang(), 8, 'nobody knows yet')
  while (!queue.idle) await release()
  t.equal(await hang(), 6)
  looks.length = 0
  for (let i = 0; i < 5; i += 1) queue.add(`works-${i}`)
  while (looks.length < 5) await turns()
  t.strictSame(looks, ['works-0', 'works-1', 'works-2', 'works-3', 'works-4'])
  while (!queue.idle) await release()
  // Whoever answers again is as good as any other.
  queue.add('hangs0-0')
  await turns()
  for (const end of gates.values()) end()
  while (!queue.idle) await turns()
  for (let lane = 1; lane < 4; lane += 1) for (let i = 0; i < 2; i += 1) queue.add(`hangs${lane}-${i}`)
  for (let i = 0; i < 2; i += 1) queue.add(`hangs0-${i}`)
  await turns()
  t.ok(looks.slice(-2).every((key) => key.startsWith('hangs0')))
  while (!queue.idle) await release()
})

t.test('those who share a lane take turns: one behind three hundred of another is next', async (t) => {
  const looks: string[] = []
  const { queue } = open(
    async (key) => {
      looks.push(key)
      await turns()
      return { kind: 'end' }
    },
    4,
    { laneOf: () => 'shared', sharerOf: (key) => key.split('-')[0] ?? '' },
  )
  for (let i = 0; i < 300; i += 1) queue.add(`a-${i}`)
  for (let i = 0; i < 3; i += 1) queue.add(`b-${i}`)
  queue.add('c-0')
  while (!queue.idle) await turns()
  t.strictSame(looks.slice(0, 9), ['a-0', 'a-1', 'b-0', 'c-0', 'a-2', 'b-1', 'a-3', 'b-2', 'a-4'])
  t.equal(looks.length, 304)
})

t.test('what somebody has asked for holds until the key itself has changed, other setbacks not as long', async (t) => {
  const looks: string[] = []
  const asked: Readonly<Record<string, Looked>> = {
    held: retryOf({ after: 3_600 }),
    yields: retryOf({ after: 3_600, ofIssuer: {} }),
    grown: { kind: 'retry' },
    ended: { kind: 'end' },
  }
  const { queue } = open(
    async (key) => {
      looks.push(key)
      return asked[key] ?? { kind: 'end' }
    },
    4,
    { firstMs: 3_600_000, mostMs: 3_600_000 },
  )
  const looked = async (why: Why): Promise<readonly string[]> => {
    looks.length = 0
    for (const key of Object.keys(asked)) queue.add(key, why)
    await turns()
    return [...looks]
  }
  t.strictSame(await looked('changed'), ['held', 'yields', 'grown', 'ended'])
  t.strictSame(await looked('resync'), ['ended'])
  t.strictSame(await looked('awaited'), ['yields', 'grown', 'ended'])
  t.strictSame(await looked('changed'), ['held', 'yields', 'grown', 'ended'])
})

t.test(
  'what is named while it is looked at: a change is looked at again, whatever the look has asked for',
  async (t) => {
    let looks = 0
    let current = gate()
    let looked: Looked = { kind: 'retry', after: 3_600 }
    const { queue } = open(async () => {
      looks += 1
      await current.promise
      return looked
    })
    const lookWhileNamed = async (...whys: readonly Why[]): Promise<number> => {
      looks = 0
      current = gate()
      queue.add('a')
      await turns()
      for (const why of whys) queue.add('a', why)
      current.resolve()
      while (!queue.idle) await turns()
      return looks
    }
    t.equal(await lookWhileNamed('resync'), 1)
    t.equal(await lookWhileNamed('awaited'), 1)
    t.equal(await lookWhileNamed('awaited', 'changed', 'awaited'), 2)
    looked = { kind: 'end' }
    t.equal(await lookWhileNamed('resync'), 1)
    t.equal(await lookWhileNamed('awaited'), 2, 'what it waits for may have come too late for the look')
  },
)

t.test('nobody is put off for longer than a day, and what comes of chance is a minute of it at most', async (t) => {
  const { queue } = open(async (key) => (key === '' ? retryOf({}) : retryOf({ after: Number(key) })), 4, {
    random: () => 1,
  })
  const timers = t.capture(globalThis, 'setTimeout', (() => undefined) as never)
  for (const key of ['86400', '100', '604800', '']) queue.add(key)
  await turns()
  t.strictSame(
    timers().map(({ args }) => args[1]),
    [86_460_000, 110_000, 86_460_000, 20],
  )
})

t.test('whoever asks for less than a row of setbacks has earned gets no sooner turn', async (t) => {
  const { queue } = open(async () => ({ kind: 'retry', after: 1 }), 1, { firstMs: 2_000, mostMs: 4_000 })
  const timers = t.capture(globalThis, 'setTimeout', (() => undefined) as never)
  for (let look = 0; look < 3; look += 1) {
    queue.add('a')
    await turns()
  }
  t.strictSame(
    timers().map(({ args }) => args[1]),
    [1_000, 2_000, 2_000],
  )
})

t.test('what is put off for longer than timers last is not looked at at once', async (t) => {
  let looks = 0
  const { queue } = open(async () => {
    looks += 1
    return { kind: 'end' }
  })
  queue.addAfter('a', 30 * 86_400_000)
  await sleep(20)
  t.equal(looks, 0)
})
