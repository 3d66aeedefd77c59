/** Limits that are counted in the records: exact, whichever replica is asked, and however many ask at once. */
import t, { type Test } from 'tap'

import type { Limits } from '../../src/policy/limits.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { csrOn, newKey, openHoldersOf } from './holders.ts'
import { csrFor, employ } from './people.ts'

const one = await openTestService(t)
const two = await openTestService(t, {}, one)
const replicas = [one, two]

const db = await openSql(t, one.database.ownerUrl)

const requester = (name: string, limits: Limits, more: { profiles?: string[]; revoke?: boolean } = {}) =>
  employ(one, name, 'requester', { profiles: ['server'], revoke: true, limits, ...more })

interface Ask {
  readonly token: string
  readonly key?: string
  readonly names?: readonly string[]
  readonly service?: TestService
  readonly more?: object
  readonly path?: string
}

let asked = 0
const ask = ({ token, key, names = ['a.example.com'], service = one, more = {}, path = '/v1/certificates' }: Ask) =>
  service.request('POST', path, {
    token,
    headers: { 'idempotency-key': key ?? `key-${++asked}` },
    body: { csr: csrFor(...names), profile: 'server', ...more },
  })

/** So many at once, from both replicas in turn. */
const flood = (count: number, token: string, names?: readonly string[]): Promise<Answer[]> =>
  Promise.all(
    Array.from({ length: count }, (_, i) =>
      ask({ token, service: replicas[i % 2] as TestService, ...(names && { names }) }),
    ),
  )

const issuedTo = async (principal: string): Promise<number> => {
  const { rows } = await db.query(`select count(*)::integer as n from certificates where principal = $1`, [principal])
  return rows[0].n
}

const statuses = (answers: readonly Answer[]): Record<number, number> => {
  const counted: Record<number, number> = {}
  for (const { status } of answers) counted[status] = (counted[status] ?? 0) + 1
  return counted
}

/** The head of the 429 that a limit gives. */
const told = (t: Test, answer: Answer | undefined, code: string, limit: { name: string; value: number }): void => {
  t.match(answer?.json, { code, status: 429, retryable: true, limit, next: String })
  t.ok(Number(answer?.headers['retry-after']) >= 1)
  t.ok(Date.parse(answer?.json.limit.freesAt) >= Date.now() - 1_000)
}

t.test('certificates a day: exactly so many, by two replicas together', async (t) => {
  const token = await requester('daily', { certificatesPerDay: 17 })
  const answers = await flood(60, token)
  t.same(statuses(answers), { 201: 17, 429: 43 })
  t.equal(await issuedTo('daily'), 17)
  const refused = answers.find(({ status }) => status === 429)
  told(t, refused, 'limit.certificates_per_day', { name: 'certificatesPerDay', value: 17 })
  const midnight = new Date(refused?.json.limit.freesAt)
  t.equal(midnight.getTime() % 86_400_000, 0, 'it frees at midnight, by UTC')
})

t.test('names a day: never more, and fewer names may still fit', async (t) => {
  const token = await requester('named', { namesPerDay: 20 })
  const three = ['a.example.com', 'b.example.com', 'c.example.com']
  const answers = await flood(16, token, three)
  t.same(statuses(answers), { 201: 6, 429: 10 })
  told(
    t,
    answers.find(({ status }) => status === 429),
    'limit.names_per_day',
    { name: 'namesPerDay', value: 20 },
  )
  t.equal((await ask({ token, names: three.slice(0, 2) })).status, 201, 'two are left')
  t.equal((await ask({ token, service: two })).status, 429)
})

t.test('more names than a day ever has room for are refused for good', async (t) => {
  const token = await requester('wide', { namesPerDay: 2, certificatesPerDay: 1 })
  const wide = { token, names: ['a.example.com', 'b.example.com', 'c.example.com'] }
  const refused = async (): Promise<void> => {
    const answer = await ask(wide)
    const limit = { name: 'namesPerDay', value: 2 }
    t.match(answer.json, { code: 'limit.names', status: 422, retryable: false, limit })
    t.equal(answer.headers['retry-after'], undefined)
  }
  await refused()
  t.equal((await ask({ token })).status, 201)
  await refused()
  told(t, await ask({ token }), 'limit.certificates_per_day', { name: 'certificatesPerDay', value: 1 })
  const found = { check: 'limit.names', field: '/names', value: '3', reason: 'is more than the grant allows a day: 2' }
  const dry = await ask({ ...wide, path: '/v1/certificates?dryRun=true' })
  t.match(dry, { status: 200, json: { allowed: false, violations: [found] } }, 'nor does a dry run promise it')
  t.same(dry.json.checks.at(-1), { ...found, outcome: 'failed' })
  const kept = await one.request('GET', '/v1/refusals?principal=wide')
  t.match(kept.json.items, [{ code: 'limit.names' }, { code: 'limit.names' }])
  for (const { checks } of kept.json.items)
    t.same(checks.at(-1), { ...found, outcome: 'failed' }, 'with what was decided')
})

t.test('people are not asked for what has more names than a day ever has room for', async (t) => {
  const { json } = await one.request('GET', '/v1/profiles/server')
  const body = { ...json.document, name: 'asked', approvals: { required: 1 } }
  t.equal((await one.request('PUT', '/v1/profiles/asked', { headers: { 'if-none-match': '*' }, body })).status, 201)
  const token = await requester('hopeful', { namesPerDay: 1 }, { profiles: ['asked'] })
  const more = { profile: 'asked' }
  t.match(await ask({ token, more, names: ['a.example.com', 'b.example.com'] }), {
    status: 422,
    json: { code: 'limit.names' },
  })
  t.equal((await ask({ token, more })).status, 202)
})

slowTest('certificates alive: exactly so many; one that is revoked makes room, one on hold does not', async (t) => {
  const token = await requester('living', { certificatesAlive: 5 })
  const answers = await flood(30, token)
  t.same(statuses(answers), { 201: 5, 429: 25 })
  t.equal(await issuedTo('living'), 5)
  const refused = answers.find(({ status }) => status === 429)
  told(t, refused, 'limit.certificates_alive', { name: 'certificatesAlive', value: 5 })
  const [first, second] = answers
    .filter(({ status }) => status === 201)
    .map(({ json }) => json)
    .sort((a, b) => Date.parse(a.notAfter) - Date.parse(b.notAfter))
  const over = Date.parse(first.notAfter) + 1_000
  t.equal(Date.parse(refused?.json.limit.freesAt), over, 'when the last second of the first of them is over')
  const revoke = (serial: string, reason: string) =>
    one.request('POST', `/v1/certificates/${serial}/revocation`, { token, body: { reason } })
  const settled = async (status: number): Promise<Answer> => {
    for (let tries = 0; ; tries += 1) {
      const answer = await ask({ token, service: replicas[tries % 2] as TestService })
      if (answer.status === status || tries === 40) return answer
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  const operator = await employ(one, 'operator', 'operator')
  const held = await one.request('POST', `/v1/certificates/${first.serial}/revocation`, {
    token: operator,
    body: { reason: 'certificateHold' },
  })
  t.ok(held.status < 300, held.text)
  await new Promise((resolve) => setTimeout(resolve, 1_200))
  t.same(statuses(await flood(4, token)), { 429: 4 }, 'one on hold may come back')
  t.ok((await revoke(second.serial, 'superseded')).status < 300)
  t.equal((await settled(201)).status, 201)
  t.equal(await issuedTo('living'), 6)
  t.same(statuses(await flood(10, token)), { 429: 10 })
  const path = `/v1/certificates/${first.serial}/revocation`
  t.equal((await one.request('DELETE', path, { token: operator })).status, 200)
  await new Promise((resolve) => setTimeout(resolve, 1_200))
  t.same(statuses(await flood(4, token)), { 429: 4 }, 'one that was released is alive')
  for (const reason of ['certificateHold', 'superseded'])
    t.equal((await one.request('POST', path, { token: operator, body: { reason } })).status, 200)
  t.equal((await settled(201)).status, 201, 'what holds now counts, and not what was said first')
  t.equal(await issuedTo('living'), 7)
})

t.test(
  'a retry of what was answered is not counted, nor is a dry run, a refusal, or a call that came second',
  async (t) => {
    const token = await requester('careful', { certificatesPerDay: 3 })
    const csr = csrFor('a.example.com')
    const same = (service: TestService) => ask({ token, key: 'same', service, more: { csr } })
    const twins = await Promise.all([same(one), same(two), same(one), same(two)])
    t.same([...new Set(twins.map(({ json }) => json.serial))].length, 1)
    for (const service of replicas) t.equal((await same(service)).status, 201)
    for (let i = 0; i < 4; i += 1) t.equal((await ask({ token, path: '/v1/certificates?dryRun=true' })).status, 200)
    t.equal((await ask({ token, more: { validity: '9999d' } })).json.code, 'validity.forbidden')
    t.same(statuses(await flood(5, token)), { 201: 2, 429: 3 })
    t.equal((await same(one)).status, 201, 'what was answered is answered again beyond the limit')
  },
)

t.test('a batch counts its items', async (t) => {
  const token = await requester('bulk', { certificatesPerDay: 4 })
  const items = Array.from({ length: 7 }, () => ({ csr: csrFor('a.example.com'), profile: 'server' }))
  const answer = await one.request('POST', '/v1/certificates/batch', { token, body: { items } })
  t.same(answer.json.items.map(({ status }: { status: number }) => status).sort(), [201, 201, 201, 201, 429, 429, 429])
  const refused = answer.json.items.find(({ status }: { status: number }) => status === 429).problem
  t.match(refused, { code: 'limit.certificates_per_day', limit: { name: 'certificatesPerDay', value: 4 } })
})

t.test(
  'the limits of a grant are of its profiles, of every grant that covers one, and of what was there before',
  async (t) => {
    const token = await employ(one, 'several', 'requester', { profiles: ['server', 'client'] })
    for (let i = 0; i < 3; i += 1) t.equal((await ask({ token })).status, 201)
    const grant = (profiles: string[], limits: Limits) =>
      one.request('POST', '/v1/grants', { body: { principal: 'several', role: 'requester', profiles, limits } })
    const alive = await grant(['server'], { certificatesAlive: 5 })
    t.match(alive, { status: 201, json: { limits: { certificatesAlive: 5 } } })
    t.equal((await grant(['server'], { certificatesAlive: 5 })).status, 200, 'the same is not granted twice')
    t.same(statuses(await Promise.all(Array.from({ length: 6 }, () => ask({ token })))), { 201: 2, 429: 4 })
    const client = () => ask({ token, more: { profile: 'client', csr: csrFor('client.example.com') } })
    t.not((await client()).status, 429, 'another profile')
    await one.request('DELETE', `/v1/grants/${alive.json.id}`)
    t.equal((await ask({ token })).status, 201, 'without that grant there is no limit')
    const daily = await grant(['server'], { certificatesPerDay: 8 })
    t.equal(daily.status, 201)
    t.same(statuses(await Promise.all(Array.from({ length: 5 }, () => ask({ token })))), { 201: 2, 429: 3 })
  },
)

t.test('what comes at once under several grants counts for each of its own', async (t) => {
  const copy = (await one.request('GET', '/v1/profiles/server')).json.document
  const body = { ...copy, name: 'second' }
  const made = await one.request('PUT', '/v1/profiles/second', { headers: { 'if-none-match': '*' }, body })
  t.equal(made.status, 201, made.text)
  const token = await requester('both', { certificatesPerDay: 3 })
  for (const [profiles, limits] of [
    [['second'], { certificatesPerDay: 4 }],
    [['second', 'server'], { namesPerDay: 6 }],
  ] as const)
    await one.request('POST', '/v1/grants', { body: { principal: 'both', role: 'requester', profiles, limits } })
  const asks = Array.from({ length: 24 }, (_, i) => {
    const profile = i % 3 === 0 ? 'server' : 'second'
    return ask({ token, more: { profile } })
  })
  t.same(statuses(await Promise.all(asks)), { 201: 6, 429: 18 })
  const { rows } = await db.query(`
    select count(*) filter (where profile = 'server')::integer as server, count(*)::integer as n from certificates
    where principal = 'both'`)
  t.equal(rows[0].n, 6)
  t.ok(rows[0].server <= 3 && rows[0].n - rows[0].server <= 4, JSON.stringify(rows[0]))
})

t.test('limits that fit no role, or are none, are refused', async (t) => {
  const grant = (role: string, limits: unknown) =>
    one.request('POST', '/v1/grants', { body: { principal: 'daily', role, limits } })
  t.match((await grant('auditor', { certificatesPerDay: 1 })).json, { code: 'request.malformed' })
  for (const limits of [
    {},
    { certificatesPerDay: 0 },
    { certificatesPerDay: 1.5 },
    { certificates: 1 },
    { concurrent: '1' },
  ])
    t.equal((await grant('auditor', limits)).status, 400, JSON.stringify(limits))
  t.equal((await grant('auditor', { requestsPerSecond: 5 })).status, 201)
})

slowTest('where nothing can be counted, nothing is issued', async (t) => {
  const token = await requester('unlucky', { certificatesPerDay: 3 })
  t.equal((await ask({ token })).status, 201)
  await db.query('begin')
  await db.query('lock table revocations in access exclusive mode')
  const answer = await ask({ token })
  t.match(answer, { status: 503, json: { retryable: true } })
  t.ok(answer.headers['retry-after'])
  t.equal(await issuedTo('unlucky'), 1)
  await db.query('rollback')
  t.same(statuses(await flood(6, token)), { 201: 2, 429: 4 })
})

t.test('what the key has not signed takes no room for good', async (t) => {
  const token = await requester('unsigned', { certificatesPerDay: 2 })
  t.equal((await ask({ token })).status, 201)
  // As an instance records it whose key could not be used.
  const { rows } = await db.query(`
    insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan,
      names, not_after)
    select substring(sha256(serial) for 16), principal, 1, digest, issuer, shard, profile, profile_version, tbs, plan,
      names, not_after from intents where principal = 'unsigned' returning serial`)
  await db.query(`insert into outcomes (serial, kind, at) values ($1, 'unsigned', now())`, [rows[0].serial])
  t.same(statuses(await flood(3, token)), { 201: 1, 429: 2 })
})

t.test('a renewal by holding a certificate counts for the limits of its principal', async (t) => {
  const { issue, renew } = openHoldersOf(one)
  const token = await requester('renewing', { certificatesPerDay: 2 })
  const first = await issue(['a.example.com'], { token })
  const renewed = await renew(t, first, { csr: csrOn(newKey()) })
  t.equal(renewed.status, 201, renewed.text)
  const refused = await renew(t, first, { csr: csrOn(newKey()) })
  told(t, refused, 'limit.certificates_per_day', { name: 'certificatesPerDay', value: 2 })
  t.equal(await issuedTo('renewing'), 2)
})
