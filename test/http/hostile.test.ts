/**
 * What strangers send, sent to the whole service: each case of the table gets its problem code, never a 5xx, never
 * advice to retry, and never holds the event loop. Reading alone is held to 50 ms by `test/x509/hostile.test.ts` and
 * the fuzz; here server, client and database share one loop, so the bound is gross and the worst case is printed.
 */
import t from 'tap'

import { type HostileCase, hostileCases } from '../helpers/hostile.ts'
import { openTestService } from '../helpers/service.ts'

const service = await openTestService(t, { CHANCERY_REFUSALS_PER_MINUTE: '10000' })

const titleOf = ({ row, name }: HostileCase): string => `${row}: ${name}`

const expectedOf = ({ expect }: HostileCase): string => (typeof expect === 'string' ? expect : expect.policy)

const sentence = /^[A-Z0-9].*[.]$/s
const worst = { milliseconds: 0, title: '' }
let warmedUp = 0

t.before(async () => {
  // The first request of a process is compiled while it runs.
  for (const body of ['', 'x', 'x'.repeat(65_000)])
    await service.request('POST', '/v1/certificates?profile=server', {
      headers: { 'content-type': 'application/x-pem-file' },
      body,
    })
  warmedUp = (await service.request('GET', '/v1/refusals')).json.items.length
})

for (const one of hostileCases) {
  const expected = expectedOf(one)
  t.test(`${titleOf(one)}: ${expected}`, async (t) => {
    const body = one.body()
    const before = performance.eventLoopUtilization()
    const answer = await service.request('POST', '/v1/certificates?profile=server', {
      headers: { 'content-type': one.contentType },
      body,
    })
    const milliseconds = performance.eventLoopUtilization(before).active
    if (milliseconds > worst.milliseconds) Object.assign(worst, { milliseconds, title: titleOf(one) })
    t.ok(milliseconds < 500, `it held the event loop for ${milliseconds} ms`)
    if (expected === 'accepted') {
      t.equal(answer.status, 201, answer.text)
      return
    }
    t.equal(answer.json.code, expected, answer.text)
    t.ok(answer.status >= 400 && answer.status < 500, `status ${answer.status}`)
    t.equal(answer.json.status, answer.status)
    t.equal(answer.json.retryable, false)
    t.equal(answer.headers['content-type'], 'application/problem+json')
    t.match(answer.json.detail, sentence, 'it says in a sentence what is wrong')
    t.ok(answer.json.next.length > 0, 'and what to do')
    t.notMatch(answer.text, /node:internal|\.ts:|Error:/, 'no stack comes out')
  })
}

t.test('the worst case is printed', async (t) => {
  t.comment(`worst of ${hostileCases.length}: ${worst.milliseconds.toFixed(1)} ms of the event loop: ${worst.title}`)
})

t.test('each one that was refused is in the records, but for what was never read', async (t) => {
  const wasRead = (one: HostileCase): boolean => Buffer.byteLength(one.body()) <= 64 * 1024
  const refused = hostileCases.filter((one) => expectedOf(one) !== 'accepted' && wasRead(one)).length
  let found = 0
  let cursor: string | undefined
  do {
    const query = cursor === undefined ? '' : `&cursor=${cursor}`
    const { json } = await service.request('GET', `/v1/refusals?limit=100${query}`)
    found += json.items.length
    for (const { detail } of json.items) if (!sentence.test(detail)) t.fail(`${detail} is no sentence`)
    cursor = json.next
  } while (cursor !== undefined)
  t.equal(found - warmedUp, refused)
})
