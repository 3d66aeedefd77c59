/** How requests end without a certificate: by an approver, by who asked, by their time; and what keeps one waiting until then. */
import { createHash } from 'node:crypto'

import t from 'tap'

import type { Asked } from '../../src/ca/approvals/approvals.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openBeside, openDesk, type People, untilState, wantApprovals } from './approvals.ts'
import { csrFor, derFor, employ } from './people.ts'

t.setTimeout(300_000)
let service: TestService
let people: People
let desk: ReturnType<typeof openDesk>

t.before(async () => {
  service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 2 })
  await wantApprovals(service, 'simple', { required: 1, expires: '1h' })
  people = await employApprovers(service, ['payments', 'simple', 'server'])
  desk = openDesk(service)
})

t.test('what was rejected is so for good', async (t) => {
  const { requester, alice, bob } = people
  const asked = { key: 'rejected', csr: csrFor('pay.example.com') }
  const request = (await desk.ask(requester, 'payments', asked)).json
  await desk.approve(alice, request)
  const rejected = await desk.reject(bob, request, 'not before Monday')
  t.match(rejected, { status: 200, json: { state: 'rejected', end: { by: 'bob', reason: 'not before Monday' } } })
  t.match(await desk.approve(people.carol, request), { status: 409, json: { code: 'approval.closed' } })
  const again = await desk.ask(requester, 'payments', asked)
  t.match(again, { status: 409, json: { code: 'approval.rejected', retryable: false } })
  t.match(again.json.detail, /not before Monday/)
  t.match((await desk.eventsOf(request.id)).at(-1), {
    type: 'request.rejected',
    by: 'bob',
    reason: 'not before Monday',
  })
})

t.test('who has approved may still reject', async (t) => {
  const { requester, alice } = people
  const request = (await desk.ask(requester, 'payments')).json
  await desk.approve(alice, request)
  const rejected = await desk.reject(alice, request, 'on second thoughts')
  t.match(rejected, { status: 200, json: { state: 'rejected', end: { by: 'alice', reason: 'on second thoughts' } } })
  t.match(await desk.reject(alice, request), { status: 409, json: { code: 'approval.closed' } })
})

t.test('who asked may withdraw it, and nobody else', async (t) => {
  const { requester, alice, bob } = people
  const asked = { key: 'withdrawn', csr: csrFor('pay.example.com') }
  const request = (await desk.ask(requester, 'payments', asked)).json
  await desk.approve(bob, request)
  t.match(await desk.withdraw(alice, request), { status: 403, json: { code: 'approval.not_own', next: /rejection/ } })
  const stranger = await employ(service, 'passer-by', 'requester', { profiles: ['payments'] })
  t.match(await desk.withdraw(stranger, request), { status: 404, json: { code: 'approval.not_found' } })
  for (const reason of ['', 'x\u009b31m', 'x\u202ey', 'x\u2028y', 'x\u2066y', 'x\u0000'])
    t.match(await desk.withdraw(requester, request, reason), { status: 400, json: { code: 'request.malformed' } })
  const end = { by: 'ci', reason: 'the wrong name' }
  t.match(await desk.withdraw(requester, request), { status: 200, json: { state: 'withdrawn', end } })
  const closed = { status: 409, json: { code: 'approval.closed' } }
  t.match(await desk.withdraw(requester, request), closed)
  t.match(await desk.approve(alice, request), closed)
  t.match(await desk.ask(requester, 'payments', asked), { status: 409, json: { code: 'approval.withdrawn' } })
  t.match((await desk.eventsOf(request.id)).at(-1), { type: 'request.withdrawn', plan: request.digest, ...end })
})

slowTest('a grant that was revoked a moment ago, on another replica, approves nothing', async (t) => {
  const other = await openTestService(t, {}, service)
  const token = await employ(service, 'erin', 'approver', { profiles: ['payments'] })
  const request = (await desk.ask(people.requester, 'payments')).json
  t.equal((await other.request('GET', `/v1/requests/${request.id}`, { token })).status, 200, 'it knows her')
  const grants = (await service.request('GET', '/v1/grants?principal=erin')).json.items
  await service.request('DELETE', `/v1/grants/${grants[0].id}`)
  t.match(await desk.on(other)(token, request), { status: 403, json: { code: 'auth.forbidden' } })
  t.equal((await desk.eventsOf(request.id)).length, 1)
})

/** Who has had the only certificate that its limit allows today. */
const limited = async (name: string) => {
  const grant = { profiles: ['simple', 'server'], limits: { certificatesPerDay: 1 } }
  const token = await employ(service, name, 'requester', grant)
  const first = await desk.ask(token, 'server')
  if (first.status !== 201) throw new Error(first.text)
  return token
}

t.test('what is approved and meets a limit says so, is tried again, and is issued when there is room', async (t) => {
  const token = await limited('patient')
  const request = (await desk.ask(token, 'simple')).json
  t.match(await desk.approve(people.alice, request), {
    status: 200,
    json: {
      state: 'approved',
      obstacle: { code: 'limit.certificates_per_day', tryAt: /^20/ },
    },
  })
  const [grant] = (await service.request('GET', '/v1/grants?principal=patient')).json.items
  await service.request('POST', '/v1/grants', {
    body: { principal: 'patient', role: 'requester', profiles: ['simple'] },
  })
  await service.request('DELETE', `/v1/grants/${grant.id}`)
  const issued = await untilState(() => desk.read(token, request.id), 'issued')
  t.equal(issued.obstacle, null)
})

t.test('and can be stopped meanwhile, by an approver or by who asked', async (t) => {
  const token = await limited('stopped')
  for (const stop of [() => desk.reject, () => desk.withdraw]) {
    const request = (await desk.ask(token, 'simple')).json
    t.match(await desk.approve(people.alice, request), { json: { state: 'approved' } })
    const by = stop() === desk.withdraw ? token : people.alice
    t.match(await stop()(by, request, 'no more'), { status: 200, json: { end: { reason: 'no more' }, serial: null } })
    t.match((await desk.eventsOf(request.id)).at(-1)?.['type'], /^request\.(rejected|withdrawn)$/)
  }
})

slowTest('until it expires, and tells what kept it', async (t) => {
  const { store, stores } = await openBeside(t, service)
  const token = await limited('late')
  const asked = (await desk.ask(token, 'simple')).json
  const { request } = await store.propose({
    ...{ principal: 'late', key: 'kept', vouched: null },
    digest: Buffer.from((await desk.eventsOf(asked.id))[0]?.['request'] as string, 'hex'),
    input: ((await store.asked(asked.id)) as Asked).input,
    profile: { name: 'simple', version: stores.policies.current('simple')?.version as number },
    plan: Buffer.from(asked.digest, 'hex'),
    decided: asked.plan,
    approvals: { required: 1, expires: 2 },
  })
  await desk.approve(people.alice, request)
  const ended = await untilState(() => desk.read(token, request.id), 'expired')
  t.match(ended, { obstacle: { code: 'limit.certificates_per_day', tryAt: null }, serial: null })
})

t.test('what has expired is not approved any more', async (t) => {
  const { store, stores } = await openBeside(t, service)
  const profile = stores.policies.current('simple')
  if (!profile) throw new Error('there is no profile')
  const decided = (await desk.ask(people.requester, 'simple')).json.plan
  const { request } = await store.propose({
    principal: 'ci',
    key: 'late',
    digest: Buffer.alloc(32),
    vouched: null,
    input: { csr: derFor('pay.example.com'), profile: 'simple' },
    profile: { name: 'simple', version: profile.version },
    plan: createHash('sha256').update(canonicalJson(decided)).digest(),
    decided,
    approvals: { required: 1, expires: 0 },
  })
  t.match(await desk.approve(people.alice, request), { status: 409, json: { code: 'approval.expired' } })
  await t.resolves(untilState(async () => desk.read(people.requester, request.id), 'expired'))
  for (const end = Date.now() + 10_000; (await desk.eventsOf(request.id)).length < 2 && Date.now() < end; )
    await new Promise((resolve) => setTimeout(resolve, 100))
  t.match((await desk.eventsOf(request.id)).at(-1), { type: 'request.expired', plan: request.digest })
})

slowTest(
  'whoever decides at once, on whichever replica: one end, and nothing is issued of what was stopped',
  async (t) => {
    const other = await openTestService(t, {}, service)
    const kinds = new Set<string>()
    for (let round = 0; round < 12; round += 1) {
      const request = (await desk.ask(people.requester, 'simple')).json
      const stop =
        round % 2 === 0 ? () => desk.withdraw(people.requester, request) : () => desk.reject(people.bob, request)
      const answers = await Promise.all(
        round % 3 === 0
          ? [stop(), desk.on(other)(people.alice, request)]
          : [desk.on(other)(people.alice, request), stop()],
      )
      for (const { status, json } of answers)
        t.ok(status === 200 || json.code === 'approval.closed', JSON.stringify(json))
      const { state, serial } = await untilEnded(request.id)
      const types = (await desk.eventsOf(request.id)).map(({ type }) => type)
      const ends = types.filter((type) => type !== 'request.created' && type !== 'request.approved')
      t.same(ends, [state === 'issued' ? 'certificate.issued' : `request.${state}`])
      t.equal(serial !== null, state === 'issued')
      kinds.add(state)
    }
    t.ok([...kinds].every((kind) => ['issued', 'withdrawn', 'rejected'].includes(kind)))
  },
)

const untilEnded = async (id: string): Promise<Answer['json']> => {
  for (;;) {
    const { json } = await desk.read(service.adminToken, id)
    if (json.state !== 'pending' && json.state !== 'approved') return json
  }
}

t.test('how they end is measured', async (t) => {
  const { text } = await service.request('GET', '/metrics')
  for (const outcome of ['created', 'issued', 'rejected', 'withdrawn', 'expired'])
    t.match(text, new RegExp(`chancery_approval_requests_total\\{outcome="${outcome}"\\} [1-9]`))
})

/** What somebody is told whose last approval waits for a lock while this happens. */
const approvedMeanwhile = async (
  token: string,
  request: { id: string; digest: string },
  happens: () => Promise<unknown>,
) => {
  const { stores } = await openBeside(t, service)
  let answer: Promise<Answer> | undefined
  await stores.db.transaction(async (tx) => {
    await tx.query({ text: 'select lock_approval($1::uuid)' }, [request.id])
    answer = desk.approve(token, request)
    for (;;) {
      const { rows } = await tx.query({
        text: `select from pg_locks where locktype = 'advisory' and not granted and database = (
          select oid from pg_database where datname = current_database())`,
      })
      if (rows.length > 0) break
    }
    await happens()
  })
  return answer as Promise<Answer>
}

t.test('who goes between the look and the intent is looked at once more, and it has failed', async (t) => {
  const { requester } = people
  const dave = await employ(service, 'dave', 'approver', { profiles: ['simple'] })
  const request = (await desk.ask(requester, 'simple', { key: 'gone', csr: csrFor('pay.example.com') })).json
  const grants = (await service.request('GET', '/v1/grants')).json.items
  const { id } = grants.find((grant: { principal: string }) => grant.principal === 'dave')
  const answer = await approvedMeanwhile(dave, request, () => service.request('DELETE', `/v1/grants/${id}`))
  t.match(answer, { json: { serial: null } })
  const ended = await untilState(() => desk.read(requester, request.id), 'failed')
  t.match(ended.end, { code: 'approval.plan', reason: /dave may not approve it any more/ })
})

t.test('nothing is signed for whose own grant was taken away until the intent was there', async (t) => {
  const lena = await employ(service, 'lena', 'requester', { profiles: ['simple'] })
  const request = (await desk.ask(lena, 'simple')).json
  const { id } = (await service.request('GET', '/v1/grants?principal=lena')).json.items[0]
  const answer = await approvedMeanwhile(people.alice, request, () => service.request('DELETE', `/v1/grants/${id}`))
  t.match(answer, { json: { serial: null } })
  const ended = await untilState(() => desk.read(people.alice, request.id), 'failed')
  t.match(ended, { serial: null, end: { code: 'approval.plan', reason: /auth\.forbidden/ } })
})

t.test('a plan that a change on another replica forbids is issued by none, however soon it is approved', async (t) => {
  const other = await openTestService(t, {}, service)
  await wantApprovals(service, 'moving', { required: 1 })
  for (const [principal, role] of [
    ['ci', 'requester'],
    ['alice', 'approver'],
  ])
    await service.request('POST', '/v1/grants', { body: { principal, role, profiles: ['moving'] } })
  const request = (await desk.ask(people.requester, 'moving')).json
  await untilState(() => other.request('GET', `/v1/requests/${request.id}`, { token: people.alice }), 'pending')
  await wantApprovals(service, 'moving', { required: 1 }, { description: 'changed a moment ago' })
  const answer = await desk.on(other)(people.alice, request)
  t.match(answer, { json: { state: 'failed', serial: null, end: { code: 'approval.plan' } } })
})
