/** Revoking many over the API: what a plan says, what may be ordered of it, and what is on record afterwards. */
import { createHash } from 'node:crypto'

import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { allowAll } from '../db/stores.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from './people.ts'

let service: TestService
let requester: string
let operator: string
let auditor: string

t.before(async () => {
  service = await openTestService(t)
  requester = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  operator = await employ(service, 'ops', 'operator')
  auditor = await employ(service, 'audit', 'auditor')
})

const issue = async (name: string, more: object = {}, token = requester): Promise<string> => {
  const body = { csr: csrFor(name), profile: 'server', ...more }
  return (await service.request('POST', '/v1/certificates', { token, body })).json.serial
}
const post = (body: object): Promise<Answer> => service.request('POST', '/v1/revocations', { token: operator, body })
const read = (path: string): Promise<Answer> => service.request('GET', path, { token: auditor })
const status = async (serial: string): Promise<string> => (await read(`/v1/certificates/${serial}`)).json.status
const revoke = (serial: string, reason: string): Promise<Answer> =>
  service.request('POST', `/v1/certificates/${serial}/revocation`, { token: operator, body: { reason } })
const eventsOf = async (query: string): Promise<Record<string, never>[]> =>
  (await read(`/v1/events?limit=1000&${query}`)).json.items.map(({ entry }: { entry: string }) => JSON.parse(entry))
const untilDone = async (digest: string): Promise<Answer['json']> => {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const { json } = await read(`/v1/revocations/${digest}`)
    if (json.state === 'done') return json
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error('the order was not carried out within 20 s')
}
const changedPlan = { status: 409, json: { code: 'revocation.plan', retryable: false } }

t.test('a search becomes a plan, the plan an order, and exactly what was planned is revoked', async (t) => {
  const ours: string[] = []
  for (const host of ['a', 'b', 'c']) ours.push(await issue(`${host}.one.example.com`))
  const other = await issue('two.example.com')
  await revoke(ours[2] ?? '', 'certificateHold')
  const kept = await issue('d.one.example.com')
  await revoke(kept, 'superseded')
  const before = await told()
  const ask = { search: { name: '*.one.example.com', principal: 'ci' }, reason: 'cessationOfOperation' }
  const plan = await post(ask)
  t.equal(plan.status, 200)
  const all = { names: 0, count: 0 }
  t.match(plan.json, {
    search: ask.search,
    reason: ask.reason,
    count: 3,
    byProfile: { items: [{ name: 'server', count: 3 }], others: all },
    byPrincipal: { items: [{ name: 'ci', count: 3 }], others: all },
    byIssuer: { items: [{ name: 'default', count: 3 }], others: all },
    skipped: { expired: 0, revoked: 1 },
    sample: [...ours].reverse(),
  })
  const [growth] = plan.json.crlGrowth
  t.match(growth, { issuer: 'default', entries: 2 }, 'what is on hold is on a list already')
  t.ok(growth.octets >= 2 * 45 && growth.octets <= 2 * 60 && growth.shards >= 1 && growth.shards <= 2)
  t.same(await told(), before, 'nothing is recorded')
  t.same((await post(ask)).json.digest, plan.json.digest, 'the same again has the same digest')
  t.not((await post({ ...ask, reason: 'superseded' })).json.digest, plan.json.digest)

  const { digest } = plan.json
  const order = await post({ ...ask, digest })
  t.equal(order.status, 202)
  t.equal(order.headers['location'], `/v1/revocations/${digest}`)
  t.equal(order.headers['retry-after'], '1')
  t.match(order.json, { digest, state: 'running', total: 3, revoked: 0, by: 'ops', startedAt: null, finishedAt: null })
  const again = await post({ ...ask, digest })
  t.equal(again.status, 202)
  t.match(again.json, { digest, index: order.json.index, total: 3 }, 'idempotent')
  const done = await untilDone(digest)
  t.match(done, { state: 'done', revoked: 3, skipped: { expired: 0, revoked: 0 } })
  t.ok(done.orderedAt <= done.startedAt && done.startedAt <= done.finishedAt)
  t.match((await post({ ...ask, digest })).json, done, 'and still when it is done')
  t.notOk((await read(`/v1/revocations/${digest}`)).headers['retry-after'], 'nothing more comes of it')
  for (const serial of ours) t.equal(await status(serial), 'revoked')
  t.equal(await status(other), 'valid')
  t.match((await read(`/v1/certificates/${kept}`)).json.revocation, { reason: 'superseded' })
  t.match((await read(`/v1/certificates/${ours[0]}`)).json.revocation, { reason: 'cessationOfOperation', by: 'ops' })

  const [ordered] = await eventsOf('type=revocations.ordered')
  t.match(ordered, { plan: digest, search: ask.search, reason: ask.reason, count: 3, by: 'ops' })
  t.same(await eventsOf('type=revocations.done'), [
    { ...(await eventsOf('type=revocations.done'))[0], plan: digest, revoked: 3, skipped: { expired: 0, revoked: 0 } },
  ])
  const revoked = (await eventsOf('type=certificate.revoked')).filter(({ plan }) => plan === digest)
  t.same(
    revoked.map(({ serial }) => serial),
    ours,
  )
  for (const event of revoked) t.match(event, { by: 'ops', reason: ask.reason, issuer: 'default' })
})

/** What is on the roll, but for what the service writes by itself. */
const told = async (): Promise<unknown[]> =>
  (await eventsOf('')).filter(({ type }) => !['crls.intended', 'certificate.issued'].includes(type as never))

t.test('an auditor can make the digest again', async (t) => {
  const serials = [await issue('a.digest.example.com'), await issue('b.digest.example.com')]
  const held = await revoke(serials[1] ?? '', 'certificateHold')
  const ask = { search: { name: '*.digest.example.com' }, reason: 'superseded' }
  const { digest } = (await post(ask)).json
  await post({ ...ask, digest })
  const event = (await eventsOf('type=revocations.ordered')).find(({ plan }) => plan === digest)
  const change = Buffer.alloc(8)
  change.writeBigInt64BE(BigInt(held.json.revocation.index))
  const octets = [
    Buffer.from(serials[0] ?? '', 'hex'),
    Buffer.alloc(8, 0xff),
    Buffer.from(serials[1] ?? '', 'hex'),
    change,
  ]
  const certificates = createHash('sha256').update(Buffer.concat(octets)).digest('hex')
  t.equal(event?.['certificates'], certificates)
  const words = { search: ask.search, reason: ask.reason, invalidityDate: null, count: 2, certificates }
  t.equal(createHash('sha256').update(canonicalJson(words)).digest('hex'), digest)
  await untilDone(digest)
})

slowTest('what was issued, revoked or has expired since makes another plan', async (t) => {
  await issue('b.since.example.com')
  const ask = { search: { name: '*.since.example.com' }, reason: 'superseded' }
  const digestNow = async (): Promise<string> => (await post(ask)).json.digest
  let digest = await digestNow()
  const added = await issue('c.since.example.com')
  t.match(await post({ ...ask, digest }), changedPlan, 'issued')
  digest = await digestNow()
  await revoke(added, 'certificateHold')
  t.match(await post({ ...ask, digest }), changedPlan, 'revoked')
  // Planned within its last five seconds, of which a busy machine takes some.
  const expiring = await issue('a.since.example.com', { validity: '305s' })
  digest = await digestNow()
  while ((await status(expiring)) !== 'expired') await new Promise((resolve) => setTimeout(resolve, 200))
  t.match(await post({ ...ask, digest }), changedPlan, 'expired')
  t.same((await read(`/v1/revocations/${digest}`)).status, 404, 'and nothing was ordered')
  t.match((await post(ask)).json, { count: 2, skipped: { expired: 1, revoked: 0 } })
})

slowTest('with its bounds, a plan is what it was: the new is left alone, what changed is passed by', async (t) => {
  const [taken, held, plain, expiring] = [
    await issue('b.bound.example.com'),
    await issue('c.bound.example.com'),
    await issue('d.bound.example.com'),
    await issue('a.bound.example.com', { validity: '305s' }),
  ]
  const ask = { search: { name: '*.bound.example.com' }, reason: 'superseded' }
  const { digest, asOf, count } = (await post(ask)).json
  t.equal(count, 4)
  const added = await issue('e.bound.example.com')
  await revoke(taken, 'privilegeWithdrawn')
  await revoke(held, 'certificateHold')
  while ((await status(expiring)) !== 'expired') await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal((await post({ ...ask, asOf })).json.digest, digest, 'planned again as of then')
  t.match(await post({ ...ask, digest }), changedPlan)
  t.match(await post({ ...ask, digest, asOf }), { status: 202, json: { total: 4 } })
  t.match(await untilDone(digest), { revoked: 2, skipped: { expired: 1, revoked: 1 } })
  t.equal(await status(added), 'valid')
  t.equal(await status(expiring), 'expired')
  t.match((await read(`/v1/certificates/${taken}`)).json.revocation.reason, 'privilegeWithdrawn')
  t.match((await read(`/v1/certificates/${held}`)).json.revocation.reason, 'superseded')
  t.equal(await status(plain), 'revoked')
  t.match((await eventsOf('type=revocations.done')).at(-1), { revoked: 2, skipped: { expired: 1, revoked: 1 } })

  const later = '999999999999999@2126-01-01T00:00:00Z'
  const now = (await post(ask)).json
  t.match((await post({ ...ask, asOf: later })).json, { digest: now.digest }, 'nothing is planned of what is to come')
})

t.test('a name that no certificate has plans nothing', async (t) => {
  const planned = await post({ search: { name: '*one.example.com' }, reason: 'superseded' })
  t.match(planned, { status: 400, json: { code: 'request.malformed', violations: [{ field: '/search/name' }] } })
})

t.test(
  'an order by an exact name is of that name: a wildcard certificate that covers it is named by itself',
  async (t) => {
    await service.request('PUT', '/v1/profiles/wild', {
      headers: { 'if-none-match': '*' },
      body: { ...allowAll, name: 'wild' },
    })
    const token = await employ(service, 'wild', 'requester', { profiles: ['wild'] })
    const issued = { profile: 'wild' }
    const own = await issue('shop.covered.example.com', issued, token)
    const wild = await issue('*.covered.example.com', issued, token)
    const found = (await read('/v1/certificates?name=shop.covered.example.com')).json.items
    t.same(
      found.map(({ serial }: { serial: string }) => serial),
      [wild, own],
      'a search finds both',
    )
    for (const [name, sample] of [
      ['shop.covered.example.com', [own]],
      ['dns:shop.covered.example.com', [own]],
      ['dns:*.covered.example.com', [wild]],
      ['*.covered.example.com', [wild, own]],
    ] as const) {
      const ask = { search: { name }, reason: 'superseded' }
      t.match((await post(ask)).json, { search: { name }, count: sample.length, sample }, name)
    }
    const ask = { search: { name: 'dns:*.covered.example.com' }, reason: 'superseded' }
    const { digest } = (await post(ask)).json
    await post({ ...ask, digest })
    t.match(await untilDone(digest), { revoked: 1 })
    t.same([await status(wild), await status(own)], ['revoked', 'valid'])
  },
)

t.test('what was released is revoked again only by a new plan', async (t) => {
  const serial = await issue('a.again.example.com')
  const ask = { search: { name: 'a.again.example.com' }, reason: 'certificateHold' }
  const first = (await post(ask)).json.digest
  await post({ ...ask, digest: first })
  await untilDone(first)
  t.match((await post(ask)).json, { count: 0, skipped: { revoked: 1 } })
  await service.request('DELETE', `/v1/certificates/${serial}/revocation`, { token: operator })
  const second = (await post(ask)).json.digest
  t.not(second, first)
  t.match((await post({ ...ask, digest: first })).json, { digest: first, state: 'done' }, 'the old one is the old one')
  t.equal(await status(serial), 'valid')
  await post({ ...ask, digest: second })
  await untilDone(second)
  t.equal(await status(serial), 'revoked')
})

t.test('compromised keys are blocked, and reasons that outweigh are planned for what is revoked', async (t) => {
  const csr = csrFor('leaked.keys.example.com')
  await issue('', { csr })
  const replaced = await issue('b.keys.example.com')
  await revoke(replaced, 'superseded')
  const search = { name: '*.keys.example.com' }
  t.match((await post({ search, reason: 'superseded' })).json, { count: 1, skipped: { revoked: 1 } })
  const ask = { search, reason: 'keyCompromise', invalidityDate: '2026-11-01T00:00:00Z' }
  const plan = (await post(ask)).json
  t.match(plan, { count: 2, skipped: { revoked: 0 }, crlGrowth: [{ entries: 1 }] })
  t.equal(plan.invalidityDate, '2026-11-01T00:00:00.000Z')
  await post({ ...ask, digest: plan.digest })
  t.match(await untilDone(plan.digest), { revoked: 2, invalidityDate: '2026-11-01T00:00:00.000Z' })
  t.match((await read(`/v1/certificates/${replaced}`)).json.revocation, {
    reason: 'keyCompromise',
    invalidityDate: '2026-11-01T00:00:00.000Z',
  })
  const refused = await service.request('POST', '/v1/certificates', {
    token: requester,
    body: { csr, profile: 'server' },
  })
  t.match(refused, { status: 422, json: { code: 'key.blocked' } })
})

t.test('by every field of a search, alone and together', async (t) => {
  const token = await employ(service, 'fields', 'requester', { profiles: ['server', 'client'] })
  const csr = csrFor('fields.example.com')
  const first = await issue('', { csr }, token)
  await issue('more.fields.example.com', { validity: '10m' }, token)
  const { keySha256, notAfter, issuedAt } = (await read(`/v1/certificates/${first}`)).json
  const later = (time: string): string => new Date(Date.parse(time) + 1_000).toISOString()
  const cases: [object, number][] = [
    [{ principal: 'fields' }, 2],
    [{ principal: 'fields', profile: 'client' }, 0],
    [{ principal: 'fields', issuer: 'default' }, 2],
    [{ principal: 'fields', issuer: 'etcd' }, 0],
    [{ name: 'fields.example.com' }, 1],
    [{ name: '*.fields.example.com' }, 1],
    [{ name: 'no.example.com' }, 0],
    [{ key: keySha256 }, 1],
    [{ key: '0'.repeat(64) }, 0],
    [{ principal: 'fields', issuedAfter: issuedAt }, 2],
    [{ principal: 'fields', issuedBefore: issuedAt }, 0],
    [{ principal: 'fields', issuedAfter: later(later(issuedAt)) }, 0],
    [{ principal: 'fields', expiresAfter: notAfter }, 1],
    [{ principal: 'fields', expiresAfter: later(notAfter) }, 0],
    [{ principal: 'fields', expiresBefore: notAfter }, 1],
    [{ principal: 'fields', expiresBefore: later(notAfter), key: keySha256 }, 1],
  ]
  for (const [search, count] of cases)
    t.match(await post({ search, reason: 'superseded' }), { status: 200, json: { count } }, JSON.stringify(search))
})

t.test('what is no plan, and what is no order', async (t) => {
  const reason = 'superseded'
  const search = { profile: 'server' }
  const digest = 'ab'.repeat(32)
  const malformed = [
    { reason },
    { search, reason: 'cACompromise' },
    { search },
    { search: {}, reason },
    { search: { serial: '4a'.repeat(16) }, reason },
    { search: { profile: 'No Label' }, reason },
    { search: { name: '' }, reason },
    { search: { name: 'nul\u0000' }, reason },
    { search: { name: 'half \ud800' }, reason },
    { search: { issuedAfter: 'yesterday' }, reason },
    { search: { issuedAfter: '2026-02-31T00:00:00Z' }, reason },
    { search: { key: 'AB' }, reason },
    { search, reason, invalidityDate: '2126-01-01T00:00:00Z' },
    { search, reason, invalidityDate: '2126-01-01T00:00:00Z', digest },
    { search, reason, digest: 'abc' },
    { search, reason, asOf: '12' },
    { search, reason, asOf: '12@2026-13-01T00:00:00Z' },
    { search, reason, asOf: '12@2026-02-31T00:00:00Z' },
    { search: { ...search, issuedBefore: '2026-02-31T00:00:00Z' }, reason },
    { search: { issuedAfter: '2026-11-02T00:00:00Z', issuedBefore: '2026-11-01T00:00:00Z' }, reason },
    { search: { name: 'ip:one.example.com' }, reason },
    { search, reason, asOf: '-1@2026-11-01T00:00:00Z' },
    { search, reason, force: true },
  ]
  for (const body of malformed)
    t.match(await post(body), { status: 400, json: { code: 'request.malformed' } }, JSON.stringify(body))
  const unknown: [object, string][] = [
    [{ profile: 'nowhere' }, 'profile.not_found'],
    [{ principal: 'nobody' }, 'principal.not_found'],
    [{ issuer: 'nowhere' }, 'issuer.not_found'],
    [{ row: 'ab'.repeat(16) }, 'certificate.not_found'],
  ]
  for (const [which, code] of unknown)
    t.match(await post({ search: which, reason }), { status: 404, json: { code } }, 'a mistyped name is no answer')
  t.match(await post({ search, reason, digest }), changedPlan)
  const nothing = { search: { name: 'nothing.example.com' }, reason }
  const empty = (await post(nothing)).json
  t.match(empty, {
    count: 0,
    crlGrowth: { length: 0 },
    sample: { length: 0 },
    byProfile: { items: { length: 0 }, others: { names: 0, count: 0 } },
  })
  t.match(await post({ ...nothing, digest: empty.digest }), changedPlan, 'nothing to revoke')
  const [order] = (await read('/v1/revocations')).json.items
  t.match(await post({ search, reason, digest: order.digest }), changedPlan, 'the digest of something else')
  t.match(await read(`/v1/revocations/${digest}`), { status: 404, json: { code: 'revocation.not_found' } })
  t.match(await read('/v1/revocations/abc'), { status: 400, json: { code: 'request.malformed' } })
  const issuers = (await read('/v1/certificates?limit=1000')).json.items.map((row: { serial: string }) => row.serial)
  t.equal(
    (await post({ search: { issuer: 'default' }, reason: 'keyCompromise' })).json.count,
    (await read('/v1/certificates?limit=1000&issuer=default')).json.items.filter(
      (row: { status: string; revocation?: { reason: string } }) =>
        row.status !== 'expired' && row.revocation?.reason !== 'keyCompromise',
    ).length,
    'certificates that we issued, and no issuer',
  )
  t.ok(issuers.length > 0)
})

t.test('orders are listed, newest first, page by page', async (t) => {
  const all = (await read('/v1/revocations?limit=1000')).json.items
  t.ok(all.length >= 5)
  const indexes = all.map(({ index }: { index: number }) => index)
  t.same(
    indexes,
    indexes.toSorted((a: number, b: number) => b - a),
  )
  const paged: unknown[] = []
  for (let query = '?limit=2'; ; ) {
    const { json } = await read(`/v1/revocations${query}`)
    paged.push(...json.items)
    if (json.next === undefined) break
    query = `?limit=2&cursor=${json.next}`
  }
  t.same(paged, all)
  const csv = await service.request('GET', '/v1/revocations', { token: auditor, headers: { accept: 'text/csv' } })
  t.match(csv.text, /^"digest","state","search","reason","invalidityDate","by",/, 'whatever the first has')
  t.match(await read('/v1/revocations?cursor=abc'), { status: 400, json: { code: 'request.cursor' } })
  t.match(await read('/v1/revocations?state=done'), { status: 400, json: { code: 'request.malformed' } })
})
