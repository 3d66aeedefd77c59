/** Requests under way, of two instances together, while what the database says takes its time, or is never heard. */
import t, { type Test } from 'tap'

import type { Caller } from '../../src/ca/access.ts'
import { type Leave, openPrincipalLimits, type PrincipalLimits } from '../../src/ca/principal-limits.ts'

const bound = 8
const caller = { principal: 'p', grants: [{ limits: { concurrent: bound } }] } as unknown as Caller

/** What the database has, and instances whose questions are answered when the test says so. */
const openWorld = () => {
  const clock = { ms: 1_000_000 }
  const leases = new Map<string, number>()
  const sleepers: { until: number; wake: () => void }[] = []
  const open = (name: string) => {
    const answers: ((error?: Error) => void)[] = []
    const wire = { isSlow: false, answer: (error?: Error) => answers.shift()?.(error) }
    const limits = openPrincipalLimits({
      shares: {
        takeRate: async () => ({ taken: 1, waitMs: 0 }),
        takeSlots: async (_principal, most, wanted) => {
          const others = [...leases].filter(([key]) => key !== name).reduce((sum, [, slots]) => sum + slots, 0)
          const given = Math.max(0, Math.min(wanted, most - others))
          leases.set(name, given)
          if (wire.isSlow)
            await new Promise<void>((resolve, reject) => {
              answers.push((error) => (error ? reject(error) : resolve()))
            })
          return given
        },
      },
      now: () => clock.ms,
      clock: () => new Date(clock.ms),
      sleep: (ms) => new Promise((wake) => sleepers.push({ until: clock.ms + ms, wake })),
      limited: () => {},
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
  return { leases, open, pass }
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
