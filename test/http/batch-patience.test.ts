import type { AddressInfo } from 'node:net'
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { batchPatience, batchTimeout, handlerTimeout } from '../../src/http/bounds.ts'
import type { HttpDeps } from '../../src/http/deps.ts'
import { csrFor } from './people.ts'
import { callerFor, issued, openStandIn, reached } from './stand-in.ts'

interface Outcome {
  readonly status: number
  readonly problem?: { readonly code: string; readonly retryable: boolean; readonly retryAfter: number }
}

/** A batch of hundred, during which this happens once, while some are under way. */
const batchAcross = async (t: Test, happens: () => void, overrides: Partial<HttpDeps> = {}) => {
  let begun = 0
  const { app } = await openStandIn({
    issuance: reached({
      pending: 0,
      request: async () => {
        begun += 1
        if (begun === 40) happens()
        await sleep(5)
        return issued
      },
    }),
    limits: { queue: 100, connections: 100 },
    ...overrides,
  })
  t.teardown(() => app.close())
  const items = Array.from({ length: 100 }, (_, i) => ({
    csr: csrFor('a.example.com'),
    profile: 'server',
    idempotencyKey: `item-${i}`,
  }))
  const headers = { authorization: 'Bearer requester_', 'content-type': 'application/json' }
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ items }) })
  t.equal(answer.status, 200)
  const { items: outcomes } = (await answer.json()) as { items: readonly Outcome[] }
  return { begun, outcomes }
}

/** The clock jumps by so many milliseconds. */
const batchOverJump = async (t: Test, jumpMs: number) => {
  const real = performance.now.bind(performance)
  let jumped = 0
  mock.method(performance, 'now', () => real() + jumped)
  t.teardown(() => mock.restoreAll())
  return batchAcross(t, () => {
    jumped = jumpMs
  })
}

t.test(
  'no item is begun once it is known that who asks may not: a batch believes nobody for longer than others',
  async (t) => {
    let isTaken = false
    const bearer = async (token: string) => callerFor(isTaken ? 'wrong_' : token)
    const taken = (): void => {
      isTaken = true
    }
    const { begun, outcomes } = await batchAcross(t, taken, { identities: reached({ bearer }) })
    t.ok(begun >= 40 && begun <= 40 + 32, `${begun} were begun`)
    for (const { problem } of outcomes.slice(begun)) t.match(problem, { code: 'auth.invalid' })
  },
)

t.test('items that were not begun when the time of their batch is over are answered as retryable', async (t) => {
  const { begun, outcomes } = await batchOverJump(t, batchPatience + 1)
  t.equal(outcomes.length, 100)
  t.ok(begun >= 40 && begun <= 40 + 32, `${begun} were begun: what was admitted, and nothing after`)
  t.same(
    outcomes.map(({ status }) => status),
    outcomes.map((_, i) => (i < begun ? 201 : 503)),
    'what was begun is answered as it ended',
  )
  for (const { problem } of outcomes.slice(begun))
    t.match(problem, { code: 'overload.deadline', retryable: true, retryAfter: 1 })
})

t.test('a batch within its time is answered as a whole', async (t) => {
  const { begun, outcomes } = await batchOverJump(t, batchPatience - 5_000)
  t.equal(begun, 100)
  t.ok(outcomes.every(({ status }) => status === 201))
})

t.test('what a batch begins last can still end before the answer is given up', async (t) => {
  t.ok(batchPatience + handlerTimeout < batchTimeout)
})
