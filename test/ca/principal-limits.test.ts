/** Limits of requests, of two instances together, while what the database says takes its time, or is never heard. */
import t, { type Test } from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { type Leave, openPrincipalLimits, type PrincipalLimits } from '../../src/ca/access/principal-limits.ts'
import type { Problem } from '../../src/errors.ts'
import type { Limits } from '../../src/policy/limits.ts'

const bound = 8
const callerWith = (limits: Limits) => ({ principal: 'p', grants: [{ limits }] }) as unknown as Caller
const caller = callerWith({ concurrent: bound })

/** What the database has, and instances whose questions are answered when the test says so. */
const openWorld = () => {
  const clock = { ms: 1_000_000 }
  const leases = new Map<string, number>()
  /** How many requests of a second each question was for, and what is left to be given. */
  const bucket = { asked: [] as number[], left: Number.POSITIVE_INFINITY, waitMs: 0 }
  const limited: string[] = []
  const sleepers: { until: number; wake: () => void }[] = []
  const open = (name: string) => {
    const answers: ((error?: Error) => void)[] = []
    const wire = { isSlow: false, asked: 0, answer: (error?: Error) => answers.shift()?.(error) }
    const answered = async (): Promise<void> => {
      if (wire.isSlow)
        await new Promise<void>((resolve, reject) => {
          answers.push((error) => (error ? reject(error) : resolve()))
        })
    }
    const limits = openPrincipalLimits({
      shares: {
        takeRate: async (_principal, _rate, most) => {
          bucket.asked.push(most)
          const taken = Math.min(most, bucket.left)
          bucket.left -= taken
          await answered()
          return { taken, waitMs: bucket.waitMs }
        },
        takeSlots: async (_principal, most, wanted) => {
          wire.asked += 1
          const others = [...leases].filter(([key]) => key !== name).reduce((sum, [, slots]) => sum + slots, 0)
          const given = Math.max(0, Math.min(wanted, most - others))
          leases.set(name, given)
          await answered()
          return given
        },
      },
      now: () => clock.ms,
      clock: () => new Date(clock.ms),
      sleep: (ms) => new Promise((wake) => sleepers.push({ until: clock.ms + ms, wake })),
      limited: (name) => limited.push(name),
    })
    return { limits, wire }
  }
  /** Time goes on, and whoever slept until then is done with what it can do at once. */
  const pass = async (ms: number): Promise<void> => {
    clock.ms += ms
    for (let i = 0; i < 20; i += 1) {
      for (const sleeper of sleepers.splice(0)) {
        if (sleeper.until <= clock.ms) sleeper.wake()
        else sleepers.push(sleeper)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { clock, leases, bucket, limited, open, pass }
}

/** Those of so many that are let in within a while. */
const enter = async (limits: PrincipalLimits, count: number, pass: (ms: number) => Promise<void>): Promise<Leave[]> => {
  const inside: Leave[] = []
  for (let i = 0; i < count; i += 1)
    void limits.enter(caller)?.then(
      (leave) => inside.push(leave),
      () => {},
    )
  for (let i = 0; i < 4; i += 1) await pass(100)
  return inside
}

/** A has all, gives most of it back, and its question is on its way when it wants all again. */
const giveBack = async (t: Test) => {
  const { open, pass } = openWorld()
  const [a, b] = [open('a'), open('b')]
  const first = await enter(a.limits, bound, pass)
  t.equal(first.length, bound)
  t.equal((await enter(b.limits, 1, pass)).length, 0)
  a.wire.isSlow = true
  for (const leave of first) leave()
  await pass(60)
  return { a, b, pass, again: await enter(a.limits, bound, pass) }
}

t.test('what is about to be given back is used no more', async (t) => {
  const { a, b, pass, again } = await giveBack(t)
  t.equal(again.length, 0, 'nobody knows yet what there is')
  a.wire.isSlow = false
  a.wire.answer()
  await pass(100)
  t.equal(again.length, bound, 'those that waited')
  t.equal((await enter(b.limits, bound, pass)).length, 0)
})

t.test('where the answer is lost, what was asked for is what there is', async (t) => {
  const { a, b, pass, again } = await giveBack(t)
  a.wire.answer(new Error('lost'))
  await pass(10)
  const others = await enter(b.limits, bound, pass)
  t.equal(others.length, bound)
  t.equal(again.length, 0)
  a.wire.isSlow = false
  t.equal((await enter(a.limits, bound, pass)).length, 0, 'the other has it')
})

t.test('what is under way is asked for again where the lease of it was lost', async (t) => {
  const { leases, open, pass } = openWorld()
  const [a, b] = [open('a'), open('b')]
  t.equal((await enter(a.limits, 4, pass)).length, 4)
  // As after a stop that was longer than a lease.
  leases.delete('a')
  const others = await enter(b.limits, bound, pass)
  t.equal(others.length, bound)
  await a.limits.renew()
  t.equal(leases.get('a'), 0)
  for (const leave of others) leave()
  await pass(60)
  await a.limits.renew()
  t.ok(Number(leases.get('a')) >= 4)
})

t.test('a slice of a second is what waits, from an eighth to the whole, and is good for a second', async (t) => {
  const { clock, leases, bucket, open, pass } = openWorld()
  const { limits, wire } = open('a')
  const hasty = callerWith({ requestsPerSecond: 16 })
  const take = (count: number) => Promise.all(Array.from({ length: count }, () => limits.enter(hasty)))
  for (const [after, count, asked] of [
    [0, 1, [2]],
    [999, 1, []],
    [0, 1, [2]],
    [1_000, 1, [2]],
    [0, 1, []],
    [0, 5, [2, 3]],
    [0, 20, [2, 16, 2]],
    [0, 1, [2]],
  ] as const) {
    clock.ms += after
    await limits.renew()
    await take(count)
    t.same(bucket.asked.splice(0), asked, `${count} after ${after} ms`)
  }
  await limits.count(hasty)
  await limits.count(hasty)
  t.same(bucket.asked.splice(0), [2], 'an item of a batch is a request')
  wire.isSlow = true
  clock.ms += 1_000
  const late = limits.enter(hasty)
  await pass(1_000)
  wire.isSlow = false
  wire.answer()
  await late
  t.same(bucket.asked, [2, 2], 'by when it was asked for')
  t.equal(limits.count(caller), undefined)
  t.equal(limits.enter(callerWith({})), undefined)
  t.equal(leases.size, 0, 'nobody asked for places')
})

t.test('whoever was refused is told when to come, has no place meanwhile, and is not looked up before', async (t) => {
  const { clock, leases, bucket, limited, open, pass } = openWorld()
  const { limits } = open('a')
  const both = callerWith({ requestsPerSecond: 16, concurrent: 1 })
  const enterOnce = () => limits.enter(both)?.catch((error: Problem) => error)
  const refused = (waitMs: number) => ({
    code: 'limit.requests',
    options: {
      retryAfter: Math.ceil(waitMs / 1_000),
      extra: { limit: { value: 16, freesAt: new Date(clock.ms + waitMs).toISOString() } },
    },
  })
  Object.assign(bucket, { left: 0, waitMs: 1_250 })
  t.match(await enterOnce(), refused(1_250))
  await pass(1_249)
  t.match(await enterOnce(), refused(1))
  t.equal(bucket.asked.length, 1)
  t.same(limited, ['requestsPerSecond', 'requestsPerSecond'])
  await pass(100)
  t.equal(leases.get('a'), 0, 'what was refused is under way no more')
  bucket.left = 1
  t.type(await enterOnce(), 'function')
})

t.test('a batch has as many places as there are, and gives back once what it gives back twice', async (t) => {
  const { leases, limited, open, pass } = openWorld()
  const [a, b] = [open('a'), open('b')]
  t.match(await a.limits.widen(callerWith({}), 5), { slots: 5 }, 'without a limit what they want')
  const [inside] = await enter(b.limits, 3, pass)
  const [first, second, third] = [
    await a.limits.widen(caller, 3),
    await a.limits.widen(caller, 5),
    await a.limits.widen(caller, 1),
  ]
  t.same([first.slots, second.slots, third.slots], [3, Number(leases.get('a')) - 3, 0])
  t.equal(Number(leases.get('a')) + Number(leases.get('b')), bound)
  for (let i = 0; i < 2; i += 1) first.leave()
  await pass(60)
  const others = await enter(b.limits, bound, pass)
  t.equal(others.length + 3 + second.slots, bound - 1, 'but for one that is kept to spare')
  t.equal(limited.length, bound - others.length)
  t.same([...new Set(limited)], ['concurrent'])
  inside?.()
})

t.test('a place that nobody has is used for as long as the lease of it, and not after', async (t) => {
  const { leases, open, pass } = openWorld()
  const [a, b] = [open('a'), open('b')]
  a.wire.isSlow = true
  const first = a.limits.enter(caller)
  // The lease is one of when it was asked for.
  await pass(1_000)
  a.wire.isSlow = false
  a.wire.answer()
  await first
  t.equal(leases.get('a'), 2, 'one, and one to spare')
  leases.delete('a')
  t.equal((await enter(b.limits, bound, pass)).length, bound)
  await pass(9_000 - 1_000 - 400 - 1)
  const last = (await a.limits.enter(caller)) as Leave
  t.equal(a.wire.asked, 1)
  last()
  await pass(1)
  t.equal((await enter(a.limits, 1, pass)).length, 0)
})

t.test('whoever comes as another gives back waits for that; who was refused asks nobody for a while', async (t) => {
  const { open, pass } = openWorld()
  const [a, b] = [open('a'), open('b')]
  const first = await enter(a.limits, bound, pass)
  const coming = b.limits.enter(caller)
  for (const leave of first) leave()
  await pass(50)
  await pass(50)
  t.type(await coming, 'function')
  t.equal((await enter(a.limits, bound, pass)).length, bound - 2)
  const refused = () => t.rejects(b.limits.enter(caller) as Promise<unknown>, { code: 'limit.concurrent' })
  t.type(await b.limits.enter(caller), 'function', 'the one to spare')
  const asking = refused()
  for (const ms of [0, 100, 100]) await pass(ms)
  await asking
  const { asked } = b.wire
  await refused()
  t.equal(b.wire.asked, asked)
  await pass(100)
  const again = refused()
  for (const ms of [0, 100, 100]) await pass(ms)
  await again
  t.equal(b.wire.asked, asked + 4)
})
