/** Limits of requests of a principal, on one of several instances. */
import t from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { openPrincipalLimits } from '../../src/ca/access/principal-limits.ts'
import type { Limits } from '../../src/policy/limits.ts'

const callerOf = (limits: Limits, principal = 'one'): Caller =>
  ({ principal, grants: [{ limits }] }) as unknown as Caller

const open = (replicas = 1) => {
  const time = { ms: 0, replicas }
  const limited: string[] = []
  const limits = openPrincipalLimits({
    replicas: () => time.replicas,
    now: () => time.ms,
    clock: () => new Date(time.ms),
    limited: (name) => limited.push(name),
  })
  return { ...limits, time, limited }
}

t.test('a caller without limits enters without a place', async (t) => {
  const { enter, count, widen, limited } = open()
  t.equal(enter(callerOf({})), undefined)
  count(callerOf({}))
  t.equal(widen(callerOf({ requestsPerSecond: 1 }), 5).slots, 5)
  t.same(limited, [])
})

t.test(
  'requests a second are divided among the instances, and one comes back after its share of a second',
  async (t) => {
    const { enter, count, time, limited } = open(2)
    const caller = callerOf({ requestsPerSecond: 8 })
    for (let i = 0; i < 3; i += 1) enter(caller)?.()
    count(caller)
    const limit = { name: 'requestsPerSecond', value: 8, freesAt: '1970-01-01T00:00:00.250Z' }
    t.throws(() => enter(caller), { code: 'limit.requests', options: { retryAfter: 1, extra: { limit } } })
    t.throws(() => count(caller), { code: 'limit.requests' })
    t.same(limited, ['requestsPerSecond', 'requestsPerSecond'])
    enter(callerOf({ requestsPerSecond: 8 }, 'other'))
    time.ms = 250
    enter(caller)?.()
    t.throws(() => enter(caller), { code: 'limit.requests' })
    time.ms = 60_000
    time.replicas = 1
    for (let i = 0; i < 8; i += 1) enter(caller)?.()
    t.throws(() => enter(caller), { code: 'limit.requests' }, 'a bucket holds one second')
  },
)

t.test('each instance allows at least one request, however many share a limit', async (t) => {
  const { enter, time } = open(10)
  const caller = callerOf({ requestsPerSecond: 5, concurrent: 5 })
  const leave = enter(caller)
  t.throws(() => enter(caller), { code: 'limit.concurrent' })
  leave?.()
  t.throws(() => enter(caller), { code: 'limit.requests' })
  time.ms = 2_000
  enter(caller)
})

t.test('requests in progress are given back by leaving, also those of a batch', async (t) => {
  const { enter, widen } = open()
  const caller = callerOf({ concurrent: 4 })
  const leave = enter(caller)
  const batch = widen(caller, 10)
  t.equal(batch.slots, 3)
  t.equal(widen(caller, 10).slots, 0)
  t.throws(() => enter(caller), {
    code: 'limit.concurrent',
    options: { extra: { limit: { name: 'concurrent', value: 4 } } },
  })
  batch.leave()
  t.equal(widen(caller, 2).slots, 2)
  leave?.()
  t.ok(enter(caller))
})

t.test('a request refused for its rate takes no place', async (t) => {
  const { enter } = open()
  const caller = callerOf({ concurrent: 1, requestsPerSecond: 1 })
  enter(caller)?.()
  for (let i = 0; i < 2; i += 1) t.throws(() => enter(caller), { code: 'limit.requests' })
})

t.test('idle principals are dropped once there are 10,000, and those in progress are not', async (t) => {
  const { enter, time } = open()
  enter(callerOf({ concurrent: 1 }))
  for (let i = 0; i < 10_000; i += 1) enter(callerOf({ requestsPerSecond: 1 }, `p${i}`))?.()
  time.ms = 5_000
  enter(callerOf({ requestsPerSecond: 1 }, 'late'))
  t.throws(() => enter(callerOf({ concurrent: 1 })), { code: 'limit.concurrent' })
})
