/** A name of what there is not is told before anything is looked for; a database that hangs holds nobody up by that. */
import { mock } from 'node:test'

import t from 'tap'

import { openStandIn, reached } from './stand-in.ts'

t.test('whoever searches by a name waits no longer than by anything else until it is known', async (t) => {
  const hangs = () => new Promise<never>(() => {})
  const { app } = await openStandIn({
    records: reached({ issuers: hangs }),
    policies: reached({ current: () => undefined, read: hangs }),
  })
  t.teardown(() => app.close())
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const answered = async (asked: PromiseLike<{ readonly statusCode: number; json(): unknown }>) => {
    let answer: unknown
    asked.then((found) => {
      answer = found.json()
    })
    for (let i = 0; i < 20 && answer === undefined; i += 1) {
      await new Promise((resolve) => setImmediate(resolve))
      mock.timers.tick(1_000)
    }
    return answer
  }
  const headers = { authorization: 'Bearer auditor' }
  const late = { code: 'overload.deadline' }
  t.match(await answered(app.inject({ url: '/v1/certificates?issuer=x', headers })), late)
  t.match(await answered(app.inject({ url: '/v1/certificates?profile=x', headers })), late)
  const body = { search: { issuer: 'x' }, reason: 'superseded' }
  const operator = { authorization: 'Bearer operator' }
  t.match(await answered(app.inject({ method: 'POST', url: '/v1/revocations', headers: operator, body })), late)
})
