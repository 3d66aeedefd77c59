/** How many requests of one principal may wait for people, and which of them count. */
import { createHash, randomUUID } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { canonicalJson } from '../../src/canonical.ts'
import { openTestService } from '../helpers/service.ts'
import { holdTurn } from '../helpers/turn.ts'
import { employApprovers, openBeside, openDesk, wantApprovals } from '../http/approvals.ts'
import { derFor } from '../http/people.ts'

const service = await openTestService(t)
const { store, stores } = await openBeside(t, service)
// While the test has the lease the service leaves what is due alone.
await holdTurn(t, stores.db, 'approvals')
await wantApprovals(service, 'payments', { required: 1 })
const { requester } = await employApprovers(service, ['payments'])
const { plan: decided, id: first } = (await openDesk(service).ask(requester, 'payments')).json
for (const name of ['aa', 'mm', 'zz']) await service.request('POST', '/v1/principals', { body: { name } })
const owner = new pg.Client({ connectionString: service.database.ownerUrl })
await owner.connect()
t.teardown(() => owner.end())

/** So many of a principal, as they would stand there. */
const fill = async (principal: string, count: number, state: string, times = 'expires_at = expires_at') => {
  const { rows } = await owner.query<{ id: string }>(
    `insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided, plan,
      required, created_at, expires_at)
    select gen_random_uuid(), (select max(entry) from approval_requests) + 1000000 + i, $1, gen_random_uuid()::text, digest,
      profile, profile_version, ask, decided, plan, required, created_at, expires_at
    from approval_requests, generate_series(1, $2::integer) i where id = $3 returning id`,
    [principal, count, first],
  )
  const set = `update approval_standings set state = $2, ${times} where request = any ($1::uuid[])`
  await owner.query(set, [rows.map(({ id }) => id), state])
}

const ask = async (principal: string, key: string = randomUUID()) => {
  const { request } = await store.propose({
    ...{ principal, key, digest: Buffer.alloc(32), vouched: null },
    input: { csr: derFor('pay.example.com'), profile: 'payments' },
    profile: { name: 'payments', version: 1 },
    plan: createHash('sha256').update(canonicalJson(decided)).digest(),
    decided,
    approvals: { required: 1, expires: 3_600 },
  })
  return request
}
const tooMany = { code: 'approval.too_many', kind: { retryable: true } }

t.test('what waits, what is approved and what was withdrawn within the hour counts, up to a hundred', async (t) => {
  await fill('mm', 33, 'pending')
  await fill('mm', 33, 'approved')
  await fill('mm', 33, 'withdrawn', `ended_at = now() - interval '59 minutes'`)
  await t.resolves(ask('mm', 'the hundredth'))
  await t.rejects(ask('mm'), tooMany)
  await t.resolves(ask('mm', 'the hundredth'), 'what is there already is told')
})

t.test('what others have asked does not, nor what ended otherwise, whenever, or long ago', async (t) => {
  for (const other of ['aa', 'ci']) {
    await fill(other, 120, 'withdrawn', `ended_at = now() - interval '61 minutes'`)
    for (const state of ['rejected', 'expired', 'failed', 'issued']) await fill(other, 120, state, 'ended_at = now()')
    await fill(other, 120, 'pending', `expires_at = now() - interval '1 second'`)
    await fill(other, 120, 'approved', `expires_at = now() - interval '1 second'`)
  }
  await fill('zz', 120, 'pending')
  await t.resolves(ask('aa'))
  await t.resolves(ask('ci'))
  await t.rejects(ask('zz'), tooMany)
})

t.test('of many calls under one key one is put before people, and all are told of that', async (t) => {
  const { size } = await stores.roll.head()
  const askFor = `select count(*)::integer as asked from entries where index >= $1 and type = 'request.created'`
  const asked = await Promise.all(Array.from({ length: 6 }, () => ask('aa', 'at once')))
  t.equal(new Set(asked.map(({ id }) => id)).size, 1)
  t.same((await owner.query(askFor, [size])).rows, [{ asked: 1 }])
})
