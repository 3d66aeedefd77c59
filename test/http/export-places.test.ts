import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { callerFor, openStandIn, reached, recordsOf } from './stand-in.ts'

interface Served {
  /** Of each certificate. */
  readonly text?: string
  /** Of a thousand; without end where there are more. */
  readonly next?: { readonly next?: string }
  /** Of a socket of Unix, which holds no more than it says. */
  readonly path?: string
}

/** Exports of certificates: by whom the token names, a requester unless it begins with `auditor`. */
const served = async ({ text = 'x'.repeat(1_000), next = { next: 'more' }, path }: Served = {}) => {
  const { app } = await openStandIn({
    identities: reached({
      bearer: async (token: string) => ({
        ...callerFor(token.startsWith('auditor') ? 'auditor' : 'requester'),
        principal: token,
      }),
    }),
    records: recordsOf(JSON.stringify({ serial: text }), next),
  })
  await app.listen(path === undefined ? { host: '127.0.0.1', port: 0 } : { path })
  t.teardown(() => app.close())
  const where = path === undefined ? { port: (app.server.address() as AddressInfo).port } : { socketPath: path }
  return (token: string, method = 'GET'): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = { host: 'x', authorization: `Bearer ${token}`, accept: 'application/x-ndjson' }
      httpRequest({ ...where, method, path: '/v1/certificates', headers, agent: false })
        .on('response', (answer: IncomingMessage) => {
          answer.pause().on('error', () => {})
          t.teardown(() => answer.destroy())
          resolve(answer)
        })
        .on('error', reject)
        .end()
    })
}

/** No time passes but what is skipped. */
const stopTime = (t: Test) => {
  const { now } = performance
  t.teardown(() => {
    performance.now = now
  })
  const stopped = performance.now()
  let skipped = 0
  performance.now = () => stopped + skipped
  return (milliseconds: number): void => {
    skipped += milliseconds
  }
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
  const skip = stopTime(t)
  const ask = await served()
  const slow = await Promise.all(['one', 'two'].map((token) => ask(token)))
  t.same(
    slow.map(({ statusCode }) => statusCode),
    [200, 200],
  )
  const reading = await ask('auditor_a')
  t.equal((await ask('three')).statusCode, 503, 'not at once')
  skip(30_000)
  t.equal((await ask('three')).statusCode, 503, 'nor within half a minute')
  const broken = slow.map((answer) => new Promise((resolve) => answer.once('error', resolve)))
  let got = 503
  for (let asked = 0; got === 503 && asked < 200; asked += 1) {
    skip(30_001)
    t.equal((await ask('four', 'HEAD')).statusCode, 200)
    t.ok(
      slow.every(({ destroyed }) => !destroyed),
      'whoever wants none of it takes no place',
    )
    got = (await ask('three')).statusCode ?? 0
  }
  t.equal(got, 200)
  for (const answer of slow) answer.resume()
  t.match(await Promise.race(broken), { code: 'ECONNRESET' }, 'and is not taken for the whole')
  t.notOk(reading.destroyed, 'an auditor is not asked to')
})

slowTest('however little of it is left', async (t) => {
  const skip = stopTime(t)
  for (let width = 128; width <= 1_024; width += 32) {
    const ask = await served({ text: 'x'.repeat(width), next: {}, path: join(t.testdir(), String(width)) })
    await Promise.all(['one', 'two'].map((token) => ask(token)))
    let got = 503
    for (let asked = 0; got === 503 && asked < 200; asked += 1) {
      skip(30_001)
      got = (await ask('three')).statusCode ?? 0
    }
    t.equal(got, 200, `${width}`)
  }
})
