/** One Idempotency-Key, one way: what people were asked under it is issued as they approve it, or not at all. */
import { randomBytes, randomUUID } from 'node:crypto'

import t from 'tap'

import { openTestService, type TestService } from '../helpers/service.ts'
import { employApprovers, openBeside, openDesk, type People, wantApprovals } from './approvals.ts'
import { csrFor } from './people.ts'

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

t.test(
  'what was asked under a key is not issued under it without approvals, also where none are wanted any more',
  async (t) => {
    const { requester, alice, bob } = people
    const asking = (key: string) => ({ key, csr: csrFor('pay.example.com') })
    const [waiting, rejected, withdrawn] = [asking('stays'), asking('turned'), asking('taken')]
    const request = (await desk.ask(requester, 'simple', waiting)).json
    await desk.reject(alice, (await desk.ask(requester, 'simple', rejected)).json, 'no')
    await desk.withdraw(requester, (await desk.ask(requester, 'simple', withdrawn)).json)
    await wantApprovals(service, 'simple', undefined)
    t.match(await desk.ask(requester, 'simple', waiting), { status: 202, json: { id: request.id, state: 'pending' } })
    t.match(await desk.ask(requester, 'simple', rejected), { status: 409, json: { code: 'approval.rejected' } })
    t.match(await desk.ask(requester, 'simple', withdrawn), { status: 409, json: { code: 'approval.withdrawn' } })
    const other = await desk.ask(requester, 'simple', { ...waiting, validity: '3h' })
    t.match(other, { status: 409, json: { code: 'idempotency.reused' } })
    t.match(await desk.ask(requester, 'simple', asking('new')), { status: 201 })
    const answer = await desk.approve(bob, request)
    t.match(answer, { status: 200, json: { state: 'failed', serial: null, end: { code: 'approval.plan' } } })
    t.match(await desk.ask(requester, 'simple', waiting), { status: 409, json: { code: 'approval.failed' } })
    await wantApprovals(service, 'simple', { required: 1, expires: '1h' })
  },
)

t.test('where people come to be asked between the look for a key and its intent, that is the answer', async (t) => {
  const { stores, store } = await openBeside(t, service)
  const asked = { key: 'between', csr: csrFor('web.example.com') }
  const first = await stores.db.transaction(async (tx) => {
    await tx.query({ text: `select pg_advisory_xact_lock(4711003, hashtext('ci'))` })
    // Its intent waits for whoever asks people under a key of the same principal.
    const answer = desk.ask(people.requester, 'server', asked)
    for (;;) {
      const { rows } = await tx.query({ text: `select from pg_locks where locktype = 'advisory' and not granted` })
      if (rows.length > 0) break
    }
    await tx.query(
      {
        text: `
          insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided,
            plan, required, created_at, expires_at)
          select $1, 3000000, principal, 'between', sha256('x'), profile, profile_version, ask, decided, plan, required,
            created_at, expires_at from approval_requests where principal = 'ci' limit 1`,
      },
      [randomUUID()],
    )
    return () => answer
  })
  t.match(await first(), { status: 409, json: { code: 'idempotency.reused' } })
  t.match(await store.find('ci', 'between'), { request: { state: 'pending' } })
})

t.test('what was tried without approvals is not put before people under the same key', async (t) => {
  const { stores } = await openBeside(t, service)
  const asked = { key: 'tried', csr: csrFor('pay.example.com') }
  await wantApprovals(service, 'simple', undefined)
  const { serial } = (await desk.ask(people.requester, 'simple', asked)).json
  await stores.db.query(
    {
      text: `
        with intent as (
          insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version,
            tbs, plan)
          select $1, principal, 'tried-and-left', 1, digest, issuer, shard, profile, profile_version, tbs, plan
          from intents where serial = $2)
        insert into outcomes (serial, kind, at) values ($1, 'unsigned', now())`,
    },
    [randomBytes(16), Buffer.from(serial, 'hex')],
  )
  await wantApprovals(service, 'simple', { required: 1, expires: '1h' })
  t.match(await desk.ask(people.requester, 'simple', asked), { status: 201, json: { serial } }, 'what was issued stays')
  const left = await desk.ask(people.requester, 'simple', { ...asked, key: 'tried-and-left' })
  t.match(left, { status: 409, json: { code: 'idempotency.reused', retryable: false } })
})
