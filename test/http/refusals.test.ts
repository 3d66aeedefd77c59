import pg from 'pg'
import t from 'tap'

import { Problem } from '../../src/errors.ts'
import { sha256 } from '../helpers/hash.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { csrFor, employ } from './people.ts'
import { openStandIn, reached } from './stand-in.ts'

interface Check {
  readonly check: string
  readonly outcome: string
  readonly field: string
}

let service: TestService
let token: string
let auditor: string

t.before(async () => {
  service = await openTestService(t, { CHANCERY_REFUSALS_PER_MINUTE: '10000' })
  token = await employ(service, 'ci', 'requester', { profiles: ['server', 'client'] })
  auditor = await employ(service, 'eve', 'auditor')
})

const issue = (body: object, path = '/v1/certificates') => service.request('POST', path, { token, body })
const newest = async () => (await service.request('GET', '/v1/refusals?limit=1', { token: auditor })).json.items[0]

t.test('a refusal keeps every check, as the dry run told them', async (t) => {
  const body = { csr: csrFor('shop.evil.test', 'shop.example.com'), profile: 'server' }
  const dry = await issue(body, '/v1/certificates?dryRun=true')
  const refused = await issue(body)
  t.equal(refused.status, 422)
  const kept = await newest()
  t.match(kept, { principal: 'ci', code: 'san.forbidden', checksLeftOut: 0 })
  // Who else holds the key is looked up by a dry run, but not for a request that is refused anyway.
  const told = dry.json.checks.map((check: Check) =>
    ['key.principal', 'key.compromised'].includes(check.check)
      ? { ...check, outcome: 'skipped', value: '', reason: 'is looked up when the intent is recorded' }
      : check,
  )
  t.same(kept.checks, told)
  t.same(kept.checks, refused.json.checks)
  t.same([...new Set(kept.checks.map(({ outcome }: Check) => outcome))].sort(), ['failed', 'passed', 'skipped'])
  const item = (await issue({ items: [body] }, '/v1/certificates/batch')).json.items[0]
  t.equal(item.status, 422)
  t.same((await newest()).checks, told, 'in a batch too')
})

t.test('where no decision was made there are no checks', async (t) => {
  const csr = csrFor('a.example.com')
  for (const [body, code] of [
    [{ csr: 'nothing', profile: 'server' }, 'csr.pem'],
    [{ csr: csr.replace(/.{8}(?=\n-----END)/, 'AAAAAAAA'), profile: 'server' }, /^csr\./],
    [{ csr, profile: 'peer' }, 'auth.forbidden'],
    [{ csr, profile: 'server', names: { dns: ['a..example.com'] } }, 'san.syntax'],
  ] as const) {
    t.ok((await issue(body)).status >= 400)
    t.match(await newest(), { code, checks: null, checksLeftOut: 0 })
  }
})

t.test('where reading stopped is kept as the problem told it', async (t) => {
  const der = Buffer.from(csrFor('a.example.com').replace(/-----.*?-----|\s/g, ''), 'base64')
  // The version, an INTEGER in place 4 or 5 after the heads of two sequences, is made a BOOLEAN.
  const place = der.indexOf(Buffer.from([2, 1, 0]))
  der[place] = 1
  const csr = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  const refused = await issue({ csr, profile: 'server' })
  t.equal(refused.json.offset, place)
  t.match(await newest(), { code: refused.json.code, offset: place })
  await issue({ csr: csrFor('a.evil.test'), profile: 'server' })
  t.match(await newest(), { code: 'san.forbidden', offset: null })
})

t.test('a key that is found to be held when the intent is recorded fails like any check', async (t) => {
  const csr = csrFor('held.example.com')
  t.equal((await issue({ csr, profile: 'server' })).status, 201)
  const rival = await employ(service, 'rival', 'requester', { profiles: ['server'] })
  const refused = await service.request('POST', '/v1/certificates', { token: rival, body: { csr, profile: 'server' } })
  t.equal(refused.json.code, 'key.in_use')
  const kept = await newest()
  t.match(kept, { code: 'key.in_use', principal: 'rival', violations: [{ check: 'key.principal' }], checksLeftOut: 0 })
  t.ok(kept.checks.length > 10)
  t.same(
    kept.checks.filter(({ outcome }: Check) => outcome === 'failed').map(({ check }: Check) => check),
    ['key.principal'],
  )
})

t.test('of several grants, the one that would have allowed it tells what a held key fails', async (t) => {
  const csr = csrFor('two.example.com')
  t.equal((await issue({ csr, profile: 'server' })).status, 201)
  const dns = { allow: ['other.example.com'] }
  const two = await employ(service, 'two', 'requester', { profiles: ['server'], names: { dns } })
  await service.request('POST', '/v1/grants', { body: { principal: 'two', role: 'requester', profiles: ['server'] } })
  const grants = (await service.request('GET', '/v1/grants?principal=two')).json.items
  t.same(grants.map(({ names }: { names: unknown }) => names !== null).sort(), [false, true])
  const refused = await service.request('POST', '/v1/certificates', { token: two, body: { csr, profile: 'server' } })
  t.match(refused.json, { code: 'key.in_use', violations: [{ check: 'key.principal' }] })
  t.equal(refused.json.violations.length, 1)
})

t.test('a refusal stays small: the checks that failed are kept first, and the others are counted', async (t) => {
  const names = Array.from({ length: 100 }, (_, i) => `n${i}.${'a'.repeat(63)}.${i % 10 ? 'example.com' : 'evil.test'}`)
  const refused = await issue({ csr: csrFor('a.example.com'), profile: 'server', names: { dns: names } })
  t.equal(refused.status, 422)
  const all: readonly Check[] = refused.json.checks
  t.ok(JSON.stringify(all).length > 16_384, 'or this would be no case')
  const { checks, checksLeftOut } = await newest()
  t.ok(Buffer.byteLength(JSON.stringify(checks)) <= 16_384)
  t.ok(checksLeftOut > 0)
  t.equal(checks.length + checksLeftOut, all.length)
  const failed = ({ outcome }: Check) => outcome === 'failed'
  t.ok(all.filter(failed).length >= 10)
  t.same(checks.filter(failed), all.filter(failed))
  const places = checks.map((check: Check) => all.findIndex((one) => JSON.stringify(one) === JSON.stringify(check)))
  t.same(
    places,
    [...places].sort((a, b) => a - b),
    'in the order of the decision',
  )
})

t.test('NDJSON and CSV hold the checks as well', async (t) => {
  const as = (accept: string) =>
    service.request('GET', '/v1/refusals?code=san.forbidden&limit=1', { token: auditor, headers: { accept } })
  const line = JSON.parse((await as('application/x-ndjson')).text)
  t.ok(line.checks.length > 0 && line.checksLeftOut > 0)
  const [header, row] = (await as('text/csv')).text.split('\r\n')
  t.match(header, /"violations","checks","checksLeftOut","origin"$/)
  t.match(row, /"\[\{""field"":|"\[\{""check"":/)
})

t.test(
  'docs/auditing.md: who was refused more often than is kept is told how often, on the first page and at the end',
  async (t) => {
    const owner = new pg.Client({ connectionString: service.database.ownerUrl })
    await owner.connect()
    for (const [principal, minute, count] of [
      ['flood', '2026-01-01T10:00:00Z', 500],
      ['flood', '2026-01-01T10:01:00Z', 40],
      ['other', '2026-01-01T10:00:00Z', 7],
      ['other', new Date(Date.now() + 3_600_000), 9_000],
    ])
      await owner.query('insert into refusal_counts values (gen_random_uuid(), $1, $2, $3)', [principal, minute, count])
    await owner.end()
    const ask = async (query: string, accept = 'application/json') =>
      (await service.request('GET', `/v1/refusals?${query}`, { token: auditor, headers: { accept } })).text
    for (const [query, counted] of [
      ['', 547],
      ['principal=flood', 540],
      ['principal=flood&code=san.forbidden', 540],
      ['principal=ci', 0],
      ['after=2026-01-01T10:00:59Z&before=2026-01-01T10:01:00Z', 507],
      ['after=2026-01-01T10:01:00Z', 40],
      ['before=2026-01-01T10:00:00Z', 0],
      ['principal=flood&before=2026-01-01T10:00:00.001Z', 500],
    ] as const) {
      t.equal(JSON.parse(await ask(`limit=1&${query}`)).counted, counted, query)
      const lines = (await ask(query, 'application/x-ndjson')).trimEnd().split('\n')
      t.match(JSON.parse(lines.at(-1) ?? ''), { end: { complete: true, counted } }, query)
      t.match(await ask(query, 'text/csv'), new RegExp(`""counted"":${counted}\\}`), query)
    }
    const { next } = JSON.parse(await ask('limit=1'))
    t.equal(JSON.parse(await ask(`limit=1&cursor=${next}`)).counted, undefined)
    const events = await service.request('GET', '/v1/events?limit=1', { token: auditor })
    t.notOk('counted' in events.json)
  },
)

t.test('docs/auditing.md: its digest is of the DER, or of what was sent for it where that was not read', async (t) => {
  const csr = csrFor('a.evil.test')
  const der = Buffer.from(csr.replaceAll(/-----.*-----|\s/g, ''), 'base64')
  const sent = sha256(Buffer.from(csr)).toString('hex')
  const kept = async (...asked: Parameters<typeof issue>): Promise<string> => {
    const { status } = await issue(...asked)
    t.ok(status === 200 || status >= 400)
    return (await newest()).digest
  }
  t.equal(await kept({ csr, profile: 'server' }), sha256(der).toString('hex'), 'judged')
  for (const csr of ['no PEM', 'kein PEM für dich'])
    t.equal(await kept({ csr, profile: 'server' }), sha256(Buffer.from(csr)).toString('hex'), csr)
  t.equal(await kept({ csr, profile: 'peer' }), sent, 'nobody granted it')
  t.equal(await kept({ csr, profile: 'server', validity: '99999d' }), sent)
  t.equal(await kept({ csr, profile: 'server', names: { dns: ['a..b'] } }), sent)
  const item = { profile: 'server' }
  const batch = '/v1/certificates/batch'
  t.equal(await kept({ items: [item] }, batch), sha256(Buffer.from(JSON.stringify(item))).toString('hex'))
  t.equal(await kept({ items: [{ csr, profile: 'server', more: 1 }] }, batch), sent)
})

t.test('docs/auditing.md: what is no request of somebody for something is not kept', async (t) => {
  const { id } = await newest()
  const body = { csr: csrFor('a.evil.test'), profile: 'server' }
  const stranger = await employ(service, 'stranger', 'auditor')
  const post = (options: object, query = '') =>
    service.request('POST', `/v1/certificates${query}`, { token, body, ...options })
  for (const [status, answer] of [
    [401, await post({ token: null })],
    [403, await post({ token: stranger })],
    [415, await post({ body: 'x', headers: { 'content-type': 'text/plain' } })],
    [406, await post({ headers: { accept: 'text/html' } })],
    [400, await post({ body: '{', headers: { 'content-type': 'application/json' } })],
    [400, await post({ body: { ...body, more: 1 } })],
    [400, await post({ body: { profile: 'server' } })],
    [400, await post({}, '?profile=server')],
    [400, await post({}, '?more=1')],
    [
      413,
      await post(
        { body: 'x'.repeat(70_000), headers: { 'content-type': 'application/x-pem-file' } },
        '?profile=server',
      ),
    ],
    [200, await post({}, '?dryRun=true')],
    [400, await post({ body: { ...body, csr: 'x' } }, '?dryRun=true')],
  ] as const)
    t.equal(answer.status, status, answer.text.slice(0, 300))
  t.equal((await newest()).id, id)
})

t.test('a page whose count fails, or hangs, is told without it, and the log says so', async (t) => {
  for (const refusalsCounted of [
    async () => {
      throw new Problem('db.unavailable', 'away')
    },
    () => new Promise<number>(() => {}),
  ]) {
    const { app, lines } = await openStandIn({
      records: reached({
        refusalsCounted,
        walk: {
          refusals: async () => ({
            bounds: { size: 7, time: new Date(0) },
            range: { from: null, before: new Date(0) },
            count: async () => ({ rows: 0, exact: true }),
            page: async () => ({ items: [] }),
          }),
        },
      }),
    })
    t.teardown(() => app.close())
    const answer = await app.inject({ url: '/v1/refusals', headers: { authorization: 'Bearer auditor' } })
    t.equal(answer.statusCode, 200)
    t.same(answer.json().items, [])
    t.notOk('counted' in answer.json())
    t.match(lines, [{ event: 'search.uncounted', records: 'refusals' }, {}])
  }
})
