import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { callerFor, openStandIn, reached, recordsOf } from './stand-in.ts'

const row = JSON.stringify({ serial: 'x'.repeat(1_000) })

/** Exports of certificates without end: by whom the token names, a requester unless it begins with `auditor`. */
const served = async () => {
  const { app } = await openStandIn({
    identities: reached({
      bearer: async (token: string) => ({
        ...callerFor(token.startsWith('auditor') ? 'auditor' : 'requester'),
        principal: token,
      }),
    }),
    records: recordsOf(row, { next: 'more' }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  return (token: string): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}`, accept: 'application/x-ndjson' }
      httpRequest({ port, path: '/v1/certificates', headers, agent: false })
        .on('response', (answer: IncomingMessage) => {
          answer.pause().on('error', () => {})
          t.teardown(() => answer.destroy())
          resolve(answer)
        })
        .on('error', reject)
        .end()
    })
}

t.test('whoever reads its own certificates slowly keeps no auditor from exporting', async (t) => {
  const ask = await served()
  const first = await ask('one')
  t.equal(first.statusCode, 200)
  t.equal((await ask('one')).statusCode, 503, 'not two for one of them')
  t.equal((await ask('two')).statusCode, 200)
  t.equal((await ask('three')).statusCode, 503, 'not all places for all of them')
  t.equal((await ask('auditor_a')).statusCode, 200)
  t.equal((await ask('auditor_b')).statusCode, 200)
  t.equal((await ask('auditor_c')).statusCode, 503, 'four in all')
  first.destroy()
  for (;;) {
    if ((await ask('three')).statusCode === 200) break
    await sleep(10)
  }
})

t.test('whoever reads so slowly that others are kept out gives up the place', async (t) => {
  const ask = await served()
  const slow = await Promise.all(['one', 'two'].map(ask))
  t.same(
    slow.map(({ statusCode }) => statusCode),
    [200, 200],
  )
  const reading = await ask('auditor_a')
  t.equal((await ask('three')).statusCode, 503, 'not at once')
  const broken = slow.map((answer) => new Promise((resolve) => answer.once('error', resolve)))
  let got = 503
  for (const end = performance.now() + 30_000; got === 503 && performance.now() < end; await sleep(10))
    got = (await ask('three')).statusCode ?? 0
  t.equal(got, 200)
  for (const answer of slow) answer.resume()
  t.match(await Promise.race(broken), { code: 'ECONNRESET' }, 'and is not taken for the whole')
  t.notOk(reading.destroyed, 'an auditor is not asked to')
})
