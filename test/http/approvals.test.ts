/** Requests that people must approve, over the API: from the question to the certificate, and every way to get none. */
import { createHash, randomBytes, randomUUID, X509Certificate } from 'node:crypto'

import t from 'tap'

import type { Asked } from '../../src/ca/approvals/approvals.ts'
import type { ApprovalRequest } from '../../src/ca/approvals/request.ts'
import { openLeases } from '../../src/db/leases.ts'
import { waitOf } from '../../src/http/api/requests.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { audience, openTestIssuer } from '../helpers/issuer.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql } from '../helpers/sql.ts'
import { employApprovers, openBeside, openDesk, type People, untilState, wantApprovals } from './approvals.ts'
import { csrFor, derFor, employ } from './people.ts'

t.setTimeout(300_000)
let service: TestService
let people: People
let desk: ReturnType<typeof openDesk>

t.before(async () => {
  service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
  await wantApprovals(service, 'payments', { required: 2 })
  await wantApprovals(service, 'simple', { required: 1, expires: '1h' })
  people = await employApprovers(service, ['payments', 'simple', 'server'])
  desk = openDesk(service)
})

t.test('a request waits for its approvals, and becomes the very certificate that was approved', async (t) => {
  const { requester, alice, bob } = people
  const asked = { key: 'first', csr: csrFor('pay.example.com'), validity: '2h' }
  const waiting = await desk.ask(requester, 'payments', asked)
  t.equal(waiting.status, 202)
  const request = waiting.json
  t.equal(waiting.headers['location'], `/v1/requests/${request.id}`)
  t.equal(waiting.headers['retry-after'], '1')
  t.equal((await desk.read(requester, request.id)).headers['retry-after'], '1')
  const head = await service.request('HEAD', `/v1/requests/${request.id}`, { token: requester })
  t.equal(head.headers['retry-after'], '1')
  t.match(request, {
    state: 'pending',
    principal: 'ci',
    profile: { name: 'payments', version: 1 },
    plan: {
      authority: 'default',
      issuer: 'default',
      keyType: 'ec-p256',
      names: [{ kind: 'dns', value: 'pay.example.com' }],
      profile: { name: 'payments', version: 1 },
      validity: 7_200,
    },
    required: 2,
    approvals: { length: 0 },
    end: null,
    serial: null,
  })
  t.equal(Date.parse(request.expiresAt) - Date.parse(request.createdAt), 86_400_000)
  t.equal(createHash('sha256').update(canonicalJson(request.plan)).digest('hex'), request.digest)
  t.match(await desk.ask(requester, 'payments', asked), { status: 202, json: { id: request.id } }, 'the same again')
  const other = await desk.ask(requester, 'payments', { ...asked, validity: '3h' })
  t.match(other, { status: 409, json: { code: 'idempotency.reused' } })

  const first = await desk.approve(alice, request, 'change 4711')
  t.match(first, {
    status: 200,
    json: { state: 'pending', approvals: [{ principal: 'alice', reason: 'change 4711' }] },
  })
  t.match(await desk.ask(requester, 'payments', asked), { status: 202, json: { approvals: [{ principal: 'alice' }] } })
  const last = await desk.approve(bob, request)
  t.match(last, { status: 200, json: { state: 'issued', digest: request.digest } })

  const read = (await desk.read(requester, request.id)).json
  const certificate = new X509Certificate(read.certificate)
  t.equal(certificate.subjectAltName, 'DNS:pay.example.com')
  t.equal(certificate.validToDate.getTime() - certificate.validFromDate.getTime(), 7_199_000)
  t.equal(read.chain.length, 1)
  t.notOk((await desk.read(requester, request.id)).headers['retry-after'], 'there is nothing more to come')
  const replayed = await desk.ask(requester, 'payments', asked)
  t.match(replayed, { status: 201, json: { serial: read.serial, certificate: read.certificate, replayed: true } })

  const events = await desk.eventsOf(request.id)
  const plan = request.digest
  t.match(events, [
    { type: 'request.created', principal: 'ci', plan, decided: request.plan, required: 2 },
    { type: 'request.approved', plan, by: 'alice', reason: 'change 4711' },
    { type: 'request.approved', plan, by: 'bob' },
    { type: 'certificate.issued', serial: read.serial, plan, approval: request.id, principal: 'ci' },
  ])
  t.equal(events[0]?.['request'], events[3]?.['request'], 'what was asked is what was issued for')
  const closed = { status: 409, json: { code: 'approval.closed' } }
  t.match(await desk.approve(people.carol, request), closed)
  const detail = `This request is issued, with serial ${read.serial}; revoke the certificate if nobody is to use it.`
  t.match(await desk.reject(people.carol, request), { ...closed, json: { code: 'approval.closed', detail } })
})

t.test('what has waited for long is to be looked at more seldom', (t) => {
  const createdAt = new Date('2026-11-25T08:00:00Z')
  const after = (seconds: number, state: 'pending' | 'approved' | 'rejected' = 'pending') =>
    waitOf({ createdAt, state } as ApprovalRequest, new Date(createdAt.getTime() + seconds * 1_000))['retry-after']
  t.same(
    [0, 10, 11, 60, 86_400].map((seconds) => after(seconds)),
    ['1', '1', '2', '6', '10'],
  )
  t.equal(after(-60), '1', 'and by a clock that is behind')
  t.equal(after(5, 'approved'), '1')
  t.equal(after(5, 'rejected'), undefined)
  t.end()
})

t.test('who may not approve, and what is no approval', async (t) => {
  const { requester, alice } = people
  await service.request('POST', '/v1/grants', { body: { principal: 'ci', role: 'approver', profiles: ['payments'] } })
  const request = (await desk.ask(requester, 'payments')).json
  const second = await service.request('POST', '/v1/tokens', { body: { principal: 'ci', label: 'another' } })
  for (const token of [requester, second.json.secret]) {
    t.match(await desk.approve(token, request), { status: 403, json: { code: 'approval.own' } })
    t.match(await desk.reject(token, request), { status: 403, json: { code: 'approval.own' } })
  }
  const stranger = await employ(service, 'stranger', 'approver', { profiles: ['simple'] })
  const unnamed = await employ(service, 'unnamed', 'approver')
  // Whoever may ask for such certificates may not, by that, look at what others ask, or approve it.
  for (const principal of ['stranger', 'unnamed'])
    await service.request('POST', '/v1/grants', { body: { principal, role: 'requester', profiles: ['payments'] } })
  for (const token of [stranger, unnamed]) {
    t.match(await desk.approve(token, request), { status: 404, json: { code: 'approval.not_found' } })
    t.match(await desk.read(token, request.id), { status: 404, json: { code: 'approval.not_found' } })
  }
  const none = { status: 403, json: { code: 'auth.forbidden' } }
  t.match(await desk.ask(stranger, 'simple'), none, 'and whoever may approve them may not, by that, ask for them')
  // One who sees everything approves nothing by that.
  await service.request('POST', '/v1/grants', { body: { principal: 'unnamed', role: 'auditor' } })
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.match(await desk.approve(unnamed, request), { status: 403, json: { code: 'auth.forbidden' } })
  const wrong = { ...request, digest: 'ab'.repeat(32) }
  for (const say of [desk.approve, desk.reject])
    t.match(await say(alice, wrong), { status: 409, json: { code: 'approval.plan' } })
  t.match(await desk.approve(alice, request), { status: 200 })
  t.match(await desk.approve(alice, request), { status: 409, json: { code: 'approval.twice' } })
  for (const reason of ['', 'a\nb', 'x'.repeat(501)])
    t.match(await desk.approve(people.bob, request, reason), { status: 400, json: { code: 'request.malformed' } })
  t.match((await desk.read(alice, request.id)).json, { state: 'pending', approvals: [{ principal: 'alice' }] })
  t.equal((await desk.eventsOf(request.id)).length, 2, 'none of it is on the roll')
})

const failing = async (change: () => Promise<unknown>, token = people.requester) => {
  const asked = { key: `changed-${Math.random()}`, csr: csrFor('pay.example.com') }
  const request = (await desk.ask(token, 'simple', asked)).json
  await change()
  const answer = await desk.approve(people.alice, request)
  return { answer, request, again: await desk.ask(token, 'simple', asked) }
}

t.test('a plan that has changed since is issued by nobody', async (t) => {
  const { answer, request, again } = await failing(() =>
    wantApprovals(service, 'simple', { required: 1, expires: '1h' }, { description: 'changed' }),
  )
  t.match(answer, { status: 200, json: { state: 'failed', serial: null, end: { code: 'approval.plan' } } })
  t.match(again, { status: 409, json: { code: 'approval.failed' } })
  t.match(
    (await desk.eventsOf(request.id)).map(({ type }) => type),
    ['request.created', 'request.approved', 'request.failed'],
  )
  t.match(await desk.approve(people.bob, request), { status: 409, json: { code: 'approval.closed' } })
})

t.test('nor without its approvals, when the profile wants none any more', async (t) => {
  const { answer, again } = await failing(() => wantApprovals(service, 'simple', undefined))
  t.match(answer, { json: { state: 'failed', end: { code: 'approval.plan' } } })
  t.match(again, { status: 409, json: { code: 'approval.failed' } }, 'under its key there is nothing else')
  t.equal((await desk.ask(people.requester, 'simple')).status, 201, 'and whoever asks now needs none')
  await wantApprovals(service, 'simple', { required: 1, expires: '1h' })
})

t.test('nor for somebody who may not ask any more, or is closed', async (t) => {
  const token = await employ(service, 'leaver', 'requester', { profiles: ['simple'] })
  const grants = (await service.request('GET', '/v1/grants?principal=leaver')).json.items
  const withdrawn = await failing(() => service.request('DELETE', `/v1/grants/${grants[0].id}`), token)
  t.match(withdrawn.answer, { json: { state: 'failed', end: { code: 'approval.plan', reason: /auth\.forbidden/ } } })
  const gone = await employ(service, 'gone', 'requester', { profiles: ['simple'] })
  const closed = await failing(() => service.request('DELETE', '/v1/principals/gone'), gone)
  t.match(closed.answer, { json: { state: 'failed', end: { code: 'approval.plan', reason: /gone is closed/ } } })
})

t.test('nor by the word of an approver who may not approve any more', async (t) => {
  const token = await employ(service, 'dave', 'approver', { profiles: ['payments'] })
  const request = (await desk.ask(people.requester, 'payments')).json
  await desk.approve(token, request)
  await service.request('DELETE', '/v1/principals/dave')
  const answer = await desk.approve(people.alice, request)
  t.match(answer, { json: { state: 'failed', end: { code: 'approval.plan', reason: /dave may not approve/ } } })
  const erin = await employ(service, 'erin', 'approver', { profiles: ['payments'] })
  const second = (await desk.ask(people.requester, 'payments')).json
  await desk.approve(erin, second)
  const grants = (await service.request('GET', '/v1/grants?principal=erin')).json.items
  await service.request('DELETE', `/v1/grants/${grants[0].id}`)
  t.match(await desk.approve(people.alice, second), {
    json: { state: 'failed', end: { code: 'approval.plan', reason: /erin may not approve/ } },
  })
})

t.test('what a token let its bearer ask for holds as long as the document of its provider', async (t) => {
  const issuer = await openTestIssuer(t)
  const put = (headers: Readonly<Record<string, string>>, lifetime: string) =>
    service.request('PUT', '/v1/identity-providers/pipelines', {
      headers,
      body: {
        ...{ name: 'pipelines', issuer: issuer.url, keys: { discovery: true, ca: issuer.ca }, lifetime },
        ...{ algorithms: ['RS256'], audience },
        mappings: [
          { id: 'web', claims: { sub: 'web' }, principal: 'pipeline/web', grants: [{ profiles: ['simple'] }] },
        ],
      },
    })
  await service.request('POST', '/v1/principals', { body: { name: 'pipeline/web' } })
  t.equal((await put({ 'if-none-match': '*' }, '15m')).status, 201)
  const token = issuer.token({ sub: 'web' })
  const request = (await desk.ask(token, 'simple')).json
  t.match(request, { state: 'pending', principal: 'pipeline/web' })
  t.match((await desk.approve(people.alice, request)).json, { state: 'issued' })
  const { answer } = await failing(() => put({ 'if-match': '*' }, '10m'), token)
  t.match(answer, { json: { state: 'failed', end: { code: 'approval.plan', reason: /auth\.forbidden/ } } })
})

t.test('nor where the key is somebody else’s: that is told at once', async (t) => {
  const csr = csrFor('pay.example.com')
  const thief = await employ(service, 'thief', 'requester', { profiles: ['server'] })
  t.equal((await desk.ask(thief, 'server', { csr })).status, 201)
  t.match(await desk.ask(people.requester, 'simple', { csr }), { status: 409, json: { code: 'key.in_use' } })
})

t.test(
  'two last approvals at once, on two replicas: one certificate, and one of them is told that it came late',
  async (t) => {
    const other = await openTestService(t, {}, service)
    for (let round = 0; round < 5; round += 1) {
      const request = (await desk.ask(people.requester, 'simple')).json
      const answers = await Promise.all([desk.approve(people.alice, request), desk.on(other)(people.bob, request)])
      t.same(answers.map(({ status }) => status).sort(), [200, 409])
      t.match(answers.find(({ status }) => status === 409)?.json, { code: 'approval.closed' })
      const read = await untilState(() => desk.read(people.requester, request.id), 'issued')
      t.equal(read.approvals.length, 1)
      t.equal((await desk.eventsOf(request.id)).filter(({ type }) => type === 'certificate.issued').length, 1)
    }
  },
)

slowTest('whatever was left after the last approval is carried out by whoever is there', async (t) => {
  const { store } = await openBeside(t, service)
  const asked = { key: 'left', csr: csrFor('pay.example.com') }
  const { id, digest } = (await desk.ask(people.requester, 'simple', asked)).json
  const event = { type: 'request.approved', id, plan: digest, reason: 'then it died', by: 'alice' } as const
  await store.decide(id, event, () => {})
  const read = await untilState(() => desk.read(people.requester, id), 'issued')
  const again = await desk.ask(people.requester, 'simple', asked)
  t.match(again, { status: 201, json: { serial: read.serial, replayed: true } })
  t.same(
    (await desk.eventsOf(id)).map(({ type }) => type),
    ['request.created', 'request.approved', 'certificate.issued'],
  )
})

slowTest('a crash while it was being signed costs a serial, and no second certificate', async (t) => {
  const { store, stores } = await openBeside(t, service)
  const asked = { key: 'crashed', csr: csrFor('pay.example.com') }
  const { id, digest, profile } = (await desk.ask(people.requester, 'simple', asked)).json
  const event = { type: 'request.approved', id, plan: digest, reason: 'then it died', by: 'alice' } as const
  // Nobody else's turn until the intent is there, as one that signs would have it.
  const turn = openLeases(stores.db, randomUUID())
  // Held for five seconds by whoever carried something out before.
  for (let tries = 100; !(await turn.take('approvals', 5_000)); tries -= 1) {
    if (tries === 0) throw new Error('the turn never came')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  await store.decide(id, event, () => {})
  const known = await store.find('ci', 'crashed')
  const serial = randomBytes(16)
  await stores.db.query(
    {
      text: `
        insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
          plan, approval)
        select $1, 'ci', 'crashed', 1, $2, issuer, 0, 'simple', $3, tbs, decode($4, 'hex'), $5
        from intents where profile = 'simple' limit 1`,
    },
    [serial, known?.digest, profile.version, digest, id],
  )
  await turn.release()
  t.match(await desk.ask(people.requester, 'simple', asked), { status: 202, json: { state: 'approved' } }, 'at once')
  await service.service.reconcile(0)
  const read = await untilState(() => desk.read(people.requester, id), 'issued')
  t.not(read.serial, serial.toString('hex'))
  t.match(await desk.ask(people.requester, 'simple', asked), { status: 201, json: { serial: read.serial } })
  const { rows } = await stores.db.query<{ attempt: number; kind: string }>(
    { text: 'select i.attempt, o.kind from intents i join outcomes o using (serial) where i.approval = $1 order by 1' },
    [id],
  )
  t.same(rows, [
    { attempt: 1, kind: 'abandoned' },
    { attempt: 2, kind: 'certificate' },
  ])
})

slowTest('a crash after it was issued leaves its end to others, and it is issued all the same', async (t) => {
  const { store, stores } = await openBeside(t, service)
  const turn = openLeases(stores.db, randomUUID())
  for (let tries = 100; !(await turn.take('approvals', 5_000)); tries -= 1) {
    if (tries === 0) throw new Error('the turn never came')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const { id, digest, profile } = (await desk.ask(people.requester, 'simple')).json
  await store.decide(id, { type: 'request.approved', id, plan: digest, reason: 'x', by: 'alice' }, () => {})
  const { input } = (await store.asked(id)) as Asked
  const caller = { principal: 'ci', proof: { kind: 'own' } as const, grants: (await store.grantsOf('ci')) ?? [] }
  const plan = Buffer.from(digest, 'hex')
  const { serial } = await service.service.issuance.issueApproved(caller, input, { id, plan, profile })
  const { rows } = await stores.db.query({ text: 'select from approval_ends where request = $1' }, [id])
  t.equal(rows.length, 0)
  for (const ending of [{ kind: 'expired' }, { kind: 'failed', code: 'x', reason: 'x' }] as const)
    t.equal(await store.end(id, ending), false, 'it has become a certificate')
  t.match((await desk.read(people.requester, id)).json, { state: 'issued', serial, end: { at: /^20/, by: null } })
  const first = async (state: string) =>
    (await service.request('GET', `/v1/requests?state=${state}&limit=1`, { token: people.requester })).json.items[0]?.id
  t.equal(await first('issued'), id)
  t.not(await first('approved'), id)
  await turn.release()
  for (let ended = 0; ended === 0; ) {
    const found = await stores.db.query({ text: 'select from approval_ends where request = $1' }, [id])
    ended = found.rows.length
  }
  t.match((await desk.read(people.requester, id)).json, { state: 'issued', serial })
  await t.resolves(store.endIssued(id, serial), 'twice is once')
  const isDue = async () => (await store.due()).some((request) => request.id === id)
  t.equal(await isDue(), false)
  const stand = (as: string) =>
    askSql(service.database.ownerUrl, `update approval_standings set ${as} where request = '${id}'`)
  await stand(`state = 'approved', look_at = '-infinity'`)
  await store.endIssued(id, serial)
  t.equal(await isDue(), false, 'nor each second where it stands as if it had not ended')
  await stand(`state = 'issued'`)
})

t.test('a dry run says how many would have to approve, and asks nobody', async (t) => {
  const body = { csr: csrFor('pay.example.com'), profile: 'payments' }
  const before = (await service.request('GET', '/v1/requests')).json.items.length
  const dry = await service.request('POST', '/v1/certificates?dryRun=true', { token: people.requester, body })
  t.match(dry, { status: 200, json: { allowed: true, approvals: { required: 2, expires: '86400s' } } })
  t.equal((await service.request('GET', '/v1/requests')).json.items.length, before)
  const free = { ...body, profile: 'server' }
  const without = await service.request('POST', '/v1/certificates?dryRun=true', { token: people.requester, body: free })
  t.notOk('approvals' in without.json)
})

t.test('where nobody can wait, as in other protocols, it is turned down and nobody is asked', async (t) => {
  const grant = {
    id: 'test',
    principal: 'ci',
    role: 'requester',
    profiles: ['simple'],
    names: null,
    revoke: false,
  } as const
  const grants = [{ ...grant, createdAt: new Date(), createdBy: 'test' }]
  const caller = { principal: 'ci', proof: { kind: 'own' } as const, grants }
  const before = (await service.request('GET', '/v1/requests?limit=1000')).json.items.length
  const input = { csr: derFor('pay.example.com'), profile: 'simple' }
  await t.rejects(service.service.issuance.issue(caller, input), { code: 'approval.required' })
  t.equal((await service.request('GET', '/v1/requests?limit=1000')).json.items.length, before)
})

t.test('in a batch, what must be approved waits, and what need not is issued', async (t) => {
  const item = (profile: string, more: object = {}) => ({ csr: csrFor('pay.example.com'), profile, ...more })
  const items = [item('payments', { idempotencyKey: 'in-batch' }), item('server'), item('nowhere')]
  const answer = await service.request('POST', '/v1/certificates/batch', { token: people.requester, body: { items } })
  t.match(answer.json.items, [
    { status: 202, request: { state: 'pending', required: 2 } },
    { status: 201, certificate: { replayed: false } },
    { status: 403, problem: { code: 'auth.forbidden' } },
  ])
  const found = await desk.ask(people.requester, 'payments', { key: 'in-batch', csr: items[0]?.csr as string })
  t.match(found, { status: 202, json: { id: answer.json.items[0].request.id } })
})

t.test('nor by another issuer than was approved', async (t) => {
  const root = openTestRoot()
  const { answer, request } = await failing(async () => {
    const body = { name: 'next', authority: 'default', subject: named('Next') }
    const { csr } = (await service.request('POST', '/v1/issuer-requests', { body })).json
    await service.request('PUT', '/v1/issuers/next', { body: { chain: root.certify(csr) + root.pem } })
    const moved = await service.request('POST', '/v1/issuers/next/moves', { body: { move: 'activate' } })
    t.equal(moved.status, 200, moved.text)
  })
  t.match(request.plan, { issuer: 'default' })
  t.match(answer, { json: { state: 'failed', serial: null, end: { code: 'approval.plan' } } })
  t.match((await desk.ask(people.requester, 'simple')).json.plan, { issuer: 'next' })
})

t.test('lists show one’s own, those of one’s profiles, or all; by state and profile, in pages', async (t) => {
  const list = async (token: string, query = '') =>
    (await service.request('GET', `/v1/requests?${query}`, { token })).json
  const all = (await list(service.adminToken, 'limit=1000')).items
  t.ok(all.length > 10)
  const indexes = all.map(({ index }: { index: number }) => index)
  t.same(
    indexes,
    [...indexes].sort((a, b) => b - a),
    'newest first',
  )
  for (const role of ['auditor', 'operator', 'admin'] as const)
    t.same((await list(await employ(service, `reads-as-${role}`, role), 'limit=1000')).items, all, role)
  const own = (await list(people.requester, 'limit=1000')).items
  t.ok(own.length > 5 && own.length < all.length)
  t.ok(own.every((request: { principal: string }) => request.principal === 'ci'))
  const simple = await list(people.bob, 'profile=simple&state=issued&limit=2')
  t.equal(simple.items.length, 2)
  const rest = await list(people.bob, `profile=simple&state=issued&limit=1000&cursor=${simple.next}`)
  t.ok(rest.items.every((one: { state: string; profile: { name: string } }) => one.state === 'issued'))
  t.equal(
    [...simple.items, ...rest.items].length,
    all.filter(
      (one: { state: string; profile: { name: string } }) => one.state === 'issued' && one.profile.name === 'simple',
    ).length,
  )
  t.match(await list(people.bob, `state=pending&cursor=${simple.next}`), { code: 'request.cursor' })
  // What can be no profile's name is never looked for.
  for (const name of ['%00', '%ED%A0%80', 'Simple', 'simple%0A'])
    t.match(await list(people.bob, `profile=${name}`), { code: 'request.malformed' }, name)
  const csv = await service.request('GET', '/v1/requests?limit=3', { headers: { accept: 'text/csv' } })
  t.match(csv, { status: 200, text: /^"id","state","principal",/ })
  t.equal(csv.text.trimEnd().split('\r\n').length, 4)
  for (const { state } of (await list(people.alice, 'state=pending')).items) t.equal(state, 'pending')
})

t.test('whoever would flood people is stopped', async (t) => {
  const token = await employ(service, 'flood', 'requester', { profiles: ['simple'] })
  const item = () => ({ csr: csrFor('pay.example.com'), profile: 'simple' })
  const items = Array.from({ length: 102 }, item)
  const answer = await service.request('POST', '/v1/certificates/batch', { token, body: { items } })
  const told = answer.json.items.map(
    ({ status, problem }: { status: number; problem?: { code: string } }) => problem?.code ?? status,
  )
  t.equal(told.filter((status: unknown) => status === 202).length, 100)
  t.same(
    told.filter((status: unknown) => status !== 202),
    ['approval.too_many', 'approval.too_many'],
  )
  const [{ request }] = answer.json.items
  t.match(await desk.withdraw(token, request), { status: 200 })
  const again = await desk.ask(token, 'simple')
  t.match(again, { status: 429, json: { code: 'approval.too_many' } }, 'whoever takes one back has no more for it')
})

t.test('how many wait is measured', async (t) => {
  const { text } = await service.request('GET', '/metrics')
  t.match(text, /chancery_approval_requests\{state="pending"\} [1-9]/)
  t.match(text, /chancery_approval_oldest_timestamp_seconds \d{10}/)
  for (const outcome of ['created', 'issued', 'failed'])
    t.match(text, new RegExp(`chancery_approval_requests_total\\{outcome="${outcome}"\\} [1-9]`))
})
