/**
 * What strangers send, sent to the whole service: each case of the table gets its problem code, never a 5xx, never
 * advice to retry, and never holds the event loop. Reading alone is held to 50 ms by `test/x509/hostile.test.ts` and
 * the fuzz; here server, client and database share one loop, so the bound is gross and the worst case is printed.
 */
import t from 'tap'

import { cpu } from '../helpers/cpu.ts'
import { type HostileCase, hostileCases } from '../helpers/hostile.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from './people.ts'

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
    const before = cpu()
    const answer = await service.request('POST', '/v1/certificates?profile=server', {
      headers: { 'content-type': one.contentType },
      body,
    })
    const milliseconds = cpu() - before
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

// Rows of the table that need more than one request, or one that has no strange octets.

const asked = (more: object) =>
  service.request('POST', '/v1/certificates', { body: { csr: csrFor('asks.example.com'), profile: 'server', ...more } })

t.test('Requested validity, notBefore, serial, issuer: nobody asks for what the authority alone says', async (t) => {
  for (const [field, value] of [
    ['notBefore', '2030-01-01T00:00:00Z'],
    ['notAfter', '2030-01-01T00:00:00Z'],
    ['serial', '01'],
    ['serialNumber', '01'],
    ['issuer', 'default'],
    ['isCA', true],
    ['extensions', []],
  ] as const) {
    const answer = await asked({ [field]: value })
    t.equal(answer.status, 400, field)
    const violations = [{ check: 'request.body', field: `/${field}`, reason: 'is not a known field' }]
    t.match(answer.json, { code: 'request.malformed', retryable: false, violations }, field)
  }
  for (const [validity, code] of [
    ['10000d', 'validity.forbidden'],
    ['1s', 'validity.forbidden'],
    ['-1h', 'request.malformed'],
    ['forever', 'request.malformed'],
  ] as const) {
    const answer = await asked({ validity })
    t.match(answer.json, { code, retryable: false, violations: [{ field: '/validity' }] }, validity)
  }
})

t.test('Same CSR replayed: allowed, each time with a serial of its own; with an Idempotency-Key once', async (t) => {
  const body = { csr: csrFor('again.example.com'), profile: 'server' }
  const post = (headers = {}) => service.request('POST', '/v1/certificates', { headers, body })
  const serials = new Set<string>()
  for (let i = 0; i < 5; i += 1) serials.add((await post()).json.serial)
  t.equal(serials.size, 5)
  const key = { 'idempotency-key': 'again' }
  const kept = [await post(key), await post(key)].map(({ status, json }) => [status, json.serial, json.replayed])
  t.same(kept[1]?.[1], kept[0]?.[1])
  t.same(
    kept.map(([, , replayed]) => replayed),
    [false, true],
  )
  t.notOk(serials.has(String(kept[0]?.[1])))
})
