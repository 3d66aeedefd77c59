/** What the limits of grants mean for one request, apart from who counts. */
import t from 'tap'

import type { Caller, Grant } from '../../src/ca/access/access.ts'
import { assertNamesFit, countedGrants, requestLimits } from '../../src/ca/access/limits.ts'
import type { Plan } from '../../src/policy/decide.ts'
import type { Limits } from '../../src/policy/limits.ts'
import { namesOf } from '../policy/requests.ts'

const grantOf = (id: string, profiles: readonly string[] | null, limits?: Limits): Grant =>
  ({ id, profiles, ...(limits && { limits }) }) as unknown as Grant
const callerOf = (...grants: readonly Grant[]): Caller => ({ grants }) as unknown as Caller
const planOf = (names: number): Plan =>
  ({ names: namesOf(...Array.from({ length: names }, (_, i) => `dns:n${i}.example`)) }) as unknown as Plan
const counted = (caller: Caller) => countedGrants(caller, 'server')

t.test('a certificate counts under every grant that covers its profile and limits certificates or names', async (t) => {
  for (const limits of [{ certificatesPerDay: 1 }, { namesPerDay: 2 }, { certificatesAlive: 1 }])
    t.same(counted(callerOf(grantOf('a', ['client', 'server'], limits))), [{ profiles: ['client', 'server'], limits }])
  const limits = { certificatesPerDay: 1 }
  t.same(counted(callerOf()), [])
  const others = [grantOf('a', ['server']), grantOf('b', ['client'], limits), grantOf('c', null, limits)]
  t.same(counted(callerOf(...others)), [])
  t.same(counted(callerOf(grantOf('a', ['server'], { requestsPerSecond: 1, concurrent: 1 }))), [])
  const both = callerOf(grantOf('a', ['server'], limits), grantOf('b', ['server']), grantOf('c', ['server'], limits))
  t.equal(counted(both).length, 2)
})

t.test('what has more names than a day ever has room for is refused for good', async (t) => {
  const caller = callerOf(
    grantOf('a', ['server'], { namesPerDay: 3 }),
    grantOf('b', ['server'], { namesPerDay: 2 }),
    grantOf('c', ['server'], { certificatesPerDay: 1 }),
    grantOf('d', ['client'], { namesPerDay: 1 }),
  )
  assertNamesFit(caller, 'server', planOf(2))
  t.throws(() => assertNamesFit(caller, 'server', planOf(3)), { code: 'limit.names' })
})

t.test('of the limits of requests, the smallest of all grants holds', async (t) => {
  const of = (...limits: readonly (Limits | undefined)[]) =>
    requestLimits(callerOf(...limits.map((one, i) => grantOf(String(i), null, one))))
  t.equal(of(), undefined)
  t.equal(of(undefined, { certificatesPerDay: 1 }), undefined)
  t.same(of(undefined, { requestsPerSecond: 3 }, { requestsPerSecond: 2 }, { requestsPerSecond: 4 }), {
    requestsPerSecond: 2,
  })
  t.same(of({ concurrent: 3 }, { concurrent: 2 }, { concurrent: 4 }, { certificatesPerDay: 1 }), { concurrent: 2 })
  t.same(of({ concurrent: 3 }, { requestsPerSecond: 2 }), { requestsPerSecond: 2, concurrent: 3 })
  const limiting = [grantOf('own', null, { concurrent: 1 })]
  t.same(requestLimits({ ...callerOf(grantOf('a', null, { concurrent: 9 })), limiting }), { concurrent: 1 })
})
