import { mock } from 'node:test'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import type { Log } from '../../src/log.ts'
import { openSchedule } from '../../src/server/jobs/schedule.ts'

t.test('a job that fails again and again is told of once for each reason, and goes on', async (t) => {
  const lines: string[] = []
  let runs = 0
  let reason: string | undefined = 'no key'
  const log = { error: ({ job, err }: { job: string; err: Error }) => lines.push(`${job}: ${err.message}`) }
  const run = async (): Promise<void> => {
    runs += 1
    if (reason !== undefined) throw new Error(reason)
  }
  const until = async (count: number): Promise<void> => {
    for (const end = runs + count; runs < end; ) await sleep(1)
  }
  const { close } = openSchedule([{ name: 'roll', everyMs: 1, run }], log as unknown as Log)
  // The schedule's own timers hold no process.
  const held = setInterval(() => {}, 1_000)
  t.teardown(() => clearInterval(held))
  await until(10)
  t.same(lines, ['roll: no key'])
  reason = 'no disk'
  await until(10)
  t.same(lines.slice(1), ['roll: no disk'])
  reason = undefined
  await until(2)
  reason = 'no disk'
  await until(10)
  t.same(lines.slice(2), ['roll: no disk'], 'after it was well, it is news again')
  await close()
})

t.test('whoever closes it waits for what runs, and nothing is begun any more', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const log = { error: () => t.fail('nothing fails here') } as unknown as Log
  const { promise: gate, resolve: end } = Promise.withResolvers<void>()
  const begun: string[] = []
  const job = (name: string, everyMs: number, work?: Promise<void>) => {
    const run = async (): Promise<void> => {
      begun.push(name)
      await work
    }
    return { name, everyMs, run }
  }
  const { close } = openSchedule([job('long', 1, gate), job('later', 300)], log)
  mock.timers.tick(1)
  t.same(begun, ['long'])
  let closed = false
  const closing = close().then(() => {
    closed = true
  })
  for (let turns = 0; turns < 5; turns += 1) await nextTurn()
  t.equal(closed, false, 'one is still at work')
  end()
  await closing
  mock.timers.tick(1_000)
  t.same(begun, ['long'])
})

t.test('a job begins when it says, and later ones as long behind the one before', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const log = { error: () => t.fail('nothing fails here') } as unknown as Log
  const begun: string[] = []
  const job = (name: string, firstMs?: number) => ({
    name,
    everyMs: 1_000,
    ...(firstMs !== undefined && { firstMs }),
    run: async () => begun.push(name),
  })
  const { close } = openSchedule([job('at once', 0), job('soon', 100), job('usual')], log)
  const after = async (milliseconds: number): Promise<readonly string[]> => {
    begun.length = 0
    mock.timers.tick(milliseconds)
    await nextTurn()
    return [...begun]
  }
  t.same(await after(0), ['at once'])
  t.same(await after(99), [])
  t.same(await after(1), ['soon'])
  t.same(await after(899), [])
  t.same(await after(1), ['usual', 'at once'])
  t.same(await after(100), ['soon'])
  await close()
})
