/** Revoking over the API: who may, which changes are allowed, and what is on record afterwards. */
import { X509Certificate } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { patienceMs } from '../../src/ca/issuance/reconcile.ts'
import { openDatabase } from '../../src/db/database.ts'
import { issuedForReported } from '../../src/db/revocations.ts'
import { reportedKeysJob } from '../../src/server/jobs/reported-keys.ts'
import { quiet } from '../helpers/log.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from './people.ts'

let service: TestService
let requester: string
let revoker: string
let operator: string
let auditor: string
let admin: string

t.before(async () => {
  service = await openTestService(t)
  requester = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  revoker = await employ(service, 'deploy', 'requester', { profiles: ['server'], revoke: true })
  operator = await employ(service, 'ops', 'operator')
  auditor = await employ(service, 'audit', 'auditor')
  admin = await employ(service, 'boss', 'admin')
})

const issue = async (token = requester, body: object = {}): Promise<string> => {
  const asked = { csr: csrFor('web.example.com'), profile: 'server', ...body }
  return (await service.request('POST', '/v1/certificates', { token, body: asked })).json.serial
}
const revoke = (serial: string, body: object, token = operator): Promise<Answer> =>
  service.request('POST', `/v1/certificates/${serial}/revocation`, { token, body })
const release = (serial: string, token = operator): Promise<Answer> =>
  service.request('DELETE', `/v1/certificates/${serial}/revocation`, { token })
const read = async (serial: string) =>
  (await service.request('GET', `/v1/certificates/${serial}`, { token: auditor })).json
const eventsOf = async (serial: string): Promise<Record<string, unknown>[]> =>
  (await service.request('GET', `/v1/events?serial=${serial}`, { token: auditor })).json.items.map(
    ({ entry }: { entry: string }) => JSON.parse(entry),
  )
const seconds = (time: string): number => Math.floor(Date.parse(time) / 1000)

t.test('an operator revokes; it is on record, on the roll, and found', async (t) => {
  const serial = await issue()
  t.match(await read(serial), { status: 'valid', revocation: undefined })
  const before = Math.floor(Date.now() / 1000)
  const answer = await revoke(serial, { reason: 'superseded' })
  t.equal(answer.status, 200)
  t.match(answer.json, { serial, status: 'revoked', revocation: { reason: 'superseded', by: 'ops' } })
  t.notOk('alsoWithKey' in answer.json)
  const { revokedAt, index } = answer.json.revocation
  t.ok(seconds(revokedAt) >= before - 1 && seconds(revokedAt) <= Date.now() / 1000 + 1)
  t.match(revokedAt, /:\d\d\.000Z$/, 'in whole seconds, as DER has them')
  const [issued, revoked] = await eventsOf(serial)
  t.match(issued, { type: 'certificate.issued' })
  t.match(revoked, {
    type: 'certificate.revoked',
    serial,
    issuer: 'default',
    reason: 'superseded',
    plan: null,
    by: 'ops',
  })
  t.equal(seconds(revoked?.['revokedAt'] as string), seconds(revokedAt))
  const record = await read(serial)
  t.match(record, { status: 'revoked', revocation: { reason: 'superseded', revokedAt, by: 'ops', index } })

  const again = await revoke(serial, { reason: 'superseded' })
  t.same(again.json, answer.json, 'the same again changes nothing')
  t.equal((await eventsOf(serial)).length, 2)
})

t.test('which reason may follow which', async (t) => {
  const end = { status: 409, json: { code: 'revocation.state', retryable: false } }
  const serial = await issue()
  t.match(await release(serial), end, 'what is not revoked')
  t.match(await revoke(serial, { reason: 'certificateHold' }), { status: 200, json: { status: 'revoked' } })
  const { revokedAt } = (await read(serial)).revocation
  t.match(await release(serial), { status: 200, json: { serial, status: 'valid', revocation: undefined } })
  t.match(await release(serial), { status: 200 }, 'idempotent')
  t.match(await read(serial), { status: 'valid', revocation: undefined })
  t.match(await revoke(serial, { reason: 'certificateHold' }), { status: 200 })
  t.match(await revoke(serial, { reason: 'cessationOfOperation' }), { status: 200 }, 'a hold that is no more one')
  t.match(await release(serial), end)
  t.match(await revoke(serial, { reason: 'superseded' }), end)
  t.match(await revoke(serial, { reason: 'certificateHold' }), end)
  const since = '2026-11-01T00:00:00Z'
  t.match(await revoke(serial, { reason: 'keyCompromise' }), { status: 200 }, 'outweighs what was said before')
  t.match(await revoke(serial, { reason: 'keyCompromise', invalidityDate: since }), end, 'not with another date')
  t.match(await revoke(serial, { reason: 'unspecified' }), end)
  const { revocation } = await read(serial)
  t.ok(revocation.revokedAt >= revokedAt)
  t.same(
    (await eventsOf(serial)).map(({ type, reason }) => [type, reason]),
    [
      ['certificate.issued', undefined],
      ['certificate.revoked', 'certificateHold'],
      ['certificate.released', undefined],
      ['certificate.revoked', 'certificateHold'],
      ['certificate.revoked', 'cessationOfOperation'],
      ['certificate.revoked', 'keyCompromise'],
    ],
  )
})

t.test('a reason that replaces another keeps the date of the first', async (t) => {
  const serial = await issue()
  const first = (await revoke(serial, { reason: 'superseded' })).json.revocation
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  const invalidityDate = '2026-11-01T00:00:00.000Z'
  const second = (await revoke(serial, { reason: 'keyCompromise', invalidityDate })).json.revocation
  t.match(second, { reason: 'keyCompromise', revokedAt: first.revokedAt, invalidityDate })
  t.ok(second.index > first.index)
  t.match(await revoke(serial, { reason: 'keyCompromise', invalidityDate }), { status: 200 })
  t.match(await revoke(serial, { reason: 'keyCompromise' }), { json: { revocation: { invalidityDate } } })
  const earlier = { reason: 'keyCompromise', invalidityDate: '2026-10-31T23:59:59Z' }
  t.match(
    await revoke(serial, earlier),
    { status: 409, json: { code: 'revocation.state' } },
    'another date is not passed by',
  )
  t.match(await read(serial), { revocation: { invalidityDate } })
  const held = await issue()
  t.match(await revoke(held, { reason: 'certificateHold', invalidityDate }), { status: 200 })
  const { json } = await revoke(held, { reason: 'keyCompromise' })
  t.match(json.revocation, { reason: 'keyCompromise', invalidityDate }, 'and since when it is not to be trusted')
})

t.test('a compromised key: its other certificates are told, and none is issued for it again, to anyone', async (t) => {
  const csr = csrFor('leaked.example.com')
  const [one = '', two = ''] = [await issue(requester, { csr }), await issue(requester, { csr })]
  t.match((await revoke(one, { reason: 'superseded' })).json, { status: 'revoked', alsoWithKey: undefined })
  t.match(await issue(requester, { csr }), /^[0-9a-f]{32}$/, 'the key is still good')
  const answer = await revoke(one, { reason: 'keyCompromise' })
  t.equal(answer.json.alsoWithKey.length, 2)
  t.ok(answer.json.alsoWithKey.includes(two))
  t.match(await read(two), { status: 'valid' }, 'told, not revoked')
  const check = { check: 'key.compromised', reason: 'is a key that was reported as compromised' }
  const asked = { csr, profile: 'server' }
  for (const token of [requester, revoker]) {
    const refused = await service.request('POST', '/v1/certificates', { token, body: asked })
    t.match(refused, { status: 422, json: { code: 'key.blocked', retryable: false, violations: [check] } })
  }
  const dry = await service.request('POST', '/v1/certificates?dryRun=true', { token: requester, body: asked })
  t.match(dry.json, { allowed: false, violations: [check] })
  const items = [asked, { csr: csrFor('sound.example.com'), profile: 'server' }]
  const batch = await service.request('POST', '/v1/certificates/batch', { token: requester, body: { items } })
  t.match(batch.json.items, [{ status: 422, problem: { code: 'key.blocked' } }, { status: 201 }])
})

slowTest('what was issued while its key was being reported is revoked by itself', async (t) => {
  const serial = await issue()
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  // As if the report had come between the intent and the record.
  await owner.query(
    `insert into compromised_keys (key_sha256, serial, entry)
     select key_sha256, serial, entry - 1 from certificates where serial = decode($1, 'hex')`,
    [serial],
  )
  await owner.end()
  for (const deadline = Date.now() + 15_000; Date.now() < deadline; await new Promise((done) => setTimeout(done, 200)))
    if ((await read(serial)).status === 'revoked') break
  t.match(await read(serial), { status: 'revoked', revocation: { reason: 'keyCompromise', by: 'chancery' } })
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(db.close)
  t.same((await issuedForReported(db, 0, 0)).serials, [], 'and keeps none from being found that come later')
})

t.test('what is on hold stays so once its key was reported, by whatever certificate', async (t) => {
  const body = { csr: csrFor('twice.example.com') }
  const [one, two] = [await issue(requester, body), await issue(requester, body)]
  t.match(await revoke(one, { reason: 'certificateHold' }), { status: 200 })
  t.match(await revoke(two, { reason: 'keyCompromise' }), { status: 200 })
  t.match(await release(one), {
    status: 409,
    json: {
      code: 'revocation.state',
      detail: /^Its key was reported as compromised meanwhile: .* as keyCompromise\.$/,
    },
  })
  t.match(await read(one), { status: 'revoked', revocation: { reason: 'certificateHold' } })
  t.match(await revoke(one, { reason: 'keyCompromise' }), { status: 200 })
})

t.test('however long the settings let an issuance take', async (t) => {
  const longestMs = patienceMs({ signingDeadlineMs: 60_000, requestDeadlineMs: 60_000 })
  const from: number[] = []
  const { everyMs, run } = reportedKeysJob({
    revocations: { revoke: () => Promise.reject(new Error('there is nothing to be revoked')) },
    // The roll grows by one entry between two looks.
    issuedSince: async (entry) => ({ serials: [], size: from.push(entry) }),
    longestMs,
  })
  for (let looks = 0; looks < 100; looks += 1) await run()
  const back = (from.length - (from.at(-1) ?? 0)) * everyMs
  t.ok(back >= longestMs, `a key that was reported ${longestMs} ms ago is looked for, and one of ${back} ms`)
  t.ok(back >= longestMs + 15_000, 'by a reconciler that comes late, too')
  t.ok(back < longestMs + 60_000, 'and not for ever')
})

t.test('all reported keys are looked at once, and until that is long ago only what was recorded since', async (t) => {
  const asked: (readonly [reported: number, recorded: number])[] = []
  const longestMs = 20_000
  const { everyMs, run } = reportedKeysJob({
    revocations: { revoke: async () => undefined as never },
    // There are more than it reads, at the first look.
    issuedSince: async (...from) =>
      asked.push(from) === 1 ? { serials: ['one'], size: undefined } : { serials: [], size: 1_000 + asked.length },
    longestMs,
  })
  for (let looks = 0; looks < 30; looks += 1) await run()
  t.same(asked.slice(0, 4), [
    [0, 0],
    [0, 0],
    [0, 1_002],
    [0, 1_003],
  ])
  const young = asked.filter(([reported]) => reported === 0).length
  t.ok(young * everyMs >= longestMs && young < 20, `${young} looks`)
  t.ok(asked.slice(young).every(([reported, recorded]) => reported > 1_000 && recorded === 0))
})

slowTest('who may revoke', async (t) => {
  const [theirs, mine] = [await issue(), await issue(revoker)]
  const reason = { reason: 'superseded' }
  t.match(await revoke(theirs, reason, requester), { status: 403, json: { code: 'auth.forbidden' } }, 'no such grant')
  t.match(
    await revoke(theirs, reason, revoker),
    { status: 404, json: { code: 'certificate.not_found' } },
    'not its own',
  )
  for (const token of [auditor, admin]) {
    t.match(await revoke(theirs, reason, token), { status: 403, json: { code: 'auth.forbidden' } })
    t.match(await release(theirs, token), { status: 403, json: { code: 'auth.forbidden' } })
  }
  t.match(await revoke(mine, { reason: 'certificateHold' }, revoker), { status: 200 })
  t.match(await release(mine, revoker), { status: 403, json: { code: 'auth.forbidden' } })
  t.match(await revoke(mine, reason, revoker), { status: 200, json: { revocation: { by: 'deploy' } } })
  const grants = (await service.request('GET', '/v1/grants?principal=deploy')).json.items
  t.match(grants, [{ role: 'requester', revoke: true }])
  const body = { principal: 'ops', role: 'operator', revoke: true }
  t.match(await service.request('POST', '/v1/grants', { body }), { status: 400, json: { code: 'request.malformed' } })
  // Whoever may read the certificates of others, and revoke its own, may not by that revoke theirs.
  const overseer = await employ(service, 'overseer', 'requester', { profiles: ['server'], revoke: true })
  await service.request('POST', '/v1/grants', { body: { principal: 'overseer', role: 'auditor' } })
  t.match(await revoke(await issue(), reason, overseer), { status: 403, json: { code: 'auth.forbidden' } })
  // A grant of another profile says nothing of this one.
  const other = await employ(service, 'mixed', 'requester', { profiles: ['client'], revoke: true })
  await service.request('POST', '/v1/grants', { body: { principal: 'mixed', role: 'requester', profiles: ['server'] } })
  await new Promise((resolve) => setTimeout(resolve, 2_100))
  t.match(await revoke(await issue(other), reason, other), { status: 403 })
})

slowTest('what cannot be revoked, and why', async (t) => {
  const serial = await issue()
  t.match(await revoke('0'.repeat(32), { reason: 'superseded' }), {
    status: 404,
    json: { code: 'certificate.not_found' },
  })
  const issuers = (await service.request('GET', '/v1/issuers', { token: auditor })).json.items
  for (const pem of [issuers[0].certificate, ...issuers[0].chain]) {
    const issuer = new X509Certificate(pem).serialNumber.toLowerCase()
    t.match(await revoke(issuer, { reason: 'superseded' }), { status: 409, json: { code: 'revocation.issuer' } })
    t.match(await release(issuer), { status: 409, json: { code: 'revocation.issuer' } })
  }
  // Five minutes of it are past already; of the rest a busy machine takes some.
  const expiring = await issue(requester, { validity: '305s' })
  const short = await issue(requester, { validity: '305s' })
  const held = await issue(requester, { validity: '305s' })
  t.match(await revoke(short, { reason: 'superseded' }), { status: 200 })
  t.match(await revoke(held, { reason: 'certificateHold' }), { status: 200 })
  // The last of them: between two a busy machine takes a while.
  const left = Date.parse((await read(held)).notAfter) - Date.now()
  await new Promise((resolve) => setTimeout(resolve, left + 1_100))
  t.match(await revoke(expiring, { reason: 'superseded' }), { status: 409, json: { code: 'revocation.expired' } })
  t.match(await revoke(short, { reason: 'superseded' }), { status: 200 }, 'what holds already is told all the same')
  t.match(await revoke(expiring, { reason: 'keyCompromise' }), { status: 200 }, 'for the sake of its key')
  t.match(await release(held), { status: 409, json: { code: 'revocation.expired' } }, 'nor released')
  for (const one of [short, expiring, held]) t.match(await read(one), { status: 'revoked' })
  for (const body of [
    { reason: 'removeFromCRL' },
    { reason: 'cACompromise' },
    { reason: 7 },
    {},
    { reason: 'superseded', invalidityDate: 'yesterday' },
    { reason: 'superseded', invalidityDate: '2126-01-01T00:00:00Z' },
    { reason: 'superseded', extra: 1 },
    { reason: 'superseded', invalidityDate: '1949-12-31T23:59:59Z' },
    { reason: 'superseded', invalidityDate: '0001-01-01T00:00:00Z' },
  ])
    t.match(await revoke(serial, body), { status: 400, json: { code: 'request.malformed' } }, JSON.stringify(body))
  t.match(await revoke('nonsense', { reason: 'superseded' }), { status: 400, json: { code: 'request.malformed' } })
  t.match(await read(serial), { status: 'valid' })
})

t.test('of many at once one changes it, and the others see that', async (t) => {
  const serial = await issue()
  const reasons = ['superseded', 'cessationOfOperation', 'affiliationChanged', 'superseded', 'privilegeWithdrawn']
  const answers = await Promise.all(reasons.map((reason) => revoke(serial, { reason })))
  const { reason } = (await read(serial)).revocation
  for (const [i, { status }] of answers.entries()) t.equal(status, reasons[i] === reason ? 200 : 409)
  t.equal((await eventsOf(serial)).filter(({ type }) => type === 'certificate.revoked').length, 1)
})

t.test('the search finds what is revoked, and since when', async (t) => {
  const from = new Date(Math.ceil(Date.now() / 1000) * 1000).toISOString()
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  const made = await Promise.all(['a', 'b', 'c', 'd'].map(() => issue()))
  const [one = '', two = '', three = ''] = made
  for (const serial of [two, one, three]) await revoke(serial, { reason: 'certificateHold' })
  await release(three)
  const search = async (query: string): Promise<string[]> =>
    (await service.request('GET', `/v1/certificates?${query}`, { token: auditor })).json.items.map(
      (row: { serial: string }) => row.serial,
    )
  const ours = (found: readonly string[]): string[] => found.filter((serial) => made.includes(serial)).sort()
  t.same(ours(await search('status=revoked&limit=1000')), [one, two].sort())
  t.same(
    ours(await search('status=valid&limit=1000')),
    made.filter((serial) => serial !== one && serial !== two).sort(),
  )
  t.same((await search(`revokedAfter=${from}`)).sort(), [one, two].sort())
  t.same(ours(await search(`revokedBefore=${from}&limit=1000`)), [])
  t.same(await search(`status=expired&revokedAfter=${from}`), [])
  t.same((await search(`status=revoked&revokedAfter=${from}&principal=ci&profile=server`)).sort(), [one, two].sort())
  t.same(await search(`status=revoked&revokedAfter=${from}&principal=deploy`), [])
  const pages: string[] = []
  let cursor = ''
  for (let i = 0; i < 10; i += 1) {
    const path = `/v1/certificates?revokedAfter=${from}&limit=1${cursor && `&cursor=${cursor}`}`
    const page = (await service.request('GET', path, { token: auditor })).json
    pages.push(...page.items.map((row: { serial: string }) => row.serial))
    if (!page.next) break
    cursor = page.next
  }
  t.same(pages.sort(), [one, two].sort(), 'page by page')
})
