/** How many requests of one principal may wait for people, which of them count, and which there is something to do about. */
import { createHash, randomUUID } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import type { ApprovalRequest } from '../../src/ca/approvals/request.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
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
for (const name of ['a', 'aa', 'due', 'mm', 'nn', 'pp', 'zz'])
  await service.request('POST', '/v1/principals', { body: { name } })
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
  const ids = rows.map(({ id }) => id)
  await owner.query(set, [ids, state])
  return ids
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

t.test('how many wait, for people or to be issued, and since when the oldest does', async (t) => {
  const { createdAt: oldest } = (await store.read(first)) as ApprovalRequest
  t.same(await store.figures(), { pending: 1, approved: 0, oldest })
  const [next, last] = [await ask('due'), await ask('due')]
  const stand = (id: string, state: string) =>
    owner.query('update approval_standings set state = $2 where request = $1', [id, state])
  t.same(await store.figures(), { pending: 3, approved: 0, oldest })
  await stand(first, 'approved')
  t.same(await store.figures(), { pending: 2, approved: 1, oldest })
  await stand(first, 'rejected')
  t.same(await store.figures(), { pending: 2, approved: 0, oldest: next.createdAt })
  for (const { id } of [next, last]) await stand(id, 'approved')
  t.same(await store.figures(), { pending: 0, approved: 2, oldest: next.createdAt })
  await stand(first, 'pending')
  t.same(await store.figures(), { pending: 1, approved: 2, oldest })
  for (const id of [first, next.id, last.id]) await stand(id, 'expired')
  t.same(await store.figures(), { pending: 0, approved: 0, oldest: null })
})

// Before the others: what else is in the records by then is not due.
t.test(
  'what is open and has waited longest is due first, a hundred at a time, and nothing that has ended',
  async (t) => {
    const ago = (minutes: number): string => `look_at = now() - interval '${minutes} minutes'`
    const one = async (state: string, times: string): Promise<string> =>
      (await fill('due', 1, state, times))[0] as string
    for (const state of ['issued', 'rejected', 'withdrawn', 'expired', 'failed'])
      await fill('due', 1, state, `ended_at = now(), ${ago(600)}`)
    for (const state of ['pending', 'approved']) await one(state, ago(-1))
    await one('pending', ago(-3))
    const recent = await one('pending', ago(1))
    const oldest = await one('approved', ago(300))
    const earlier = await one('pending', ago(200))
    const over = await one('approved', ago(100))
    await owner.query('alter table approval_requests disable trigger user')
    await owner.query(
      `update approval_requests set created_at = created_at - interval '2 days', expires_at = now() - interval '1 second' where id = $1`,
      [over],
    )
    await owner.query('alter table approval_requests enable trigger user')
    // The clock that said when was ahead.
    const ahead = await one('approved', ago(-3))
    const told = { isApproved: false, isDue: false }
    const due = [
      { ...told, id: oldest, isApproved: true },
      { ...told, id: earlier },
      { ...told, id: over, isApproved: true, isDue: true },
      { ...told, id: recent },
      { ...told, id: ahead, isApproved: true },
    ]
    t.same(await store.due(), due)
    await fill('due', 120, 'pending', ago(50))
    const many = await store.due()
    t.equal(many.length, 100)
    t.same(many.slice(0, 3), due.slice(0, 3))
    t.notOk(many.some(({ id }) => id === recent || id === ahead))
  },
)

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
  for (const flooding of ['a', 'zz']) await fill(flooding, 120, 'pending')
  await t.resolves(ask('aa'))
  await t.resolves(ask('ci'))
  await t.resolves(ask('nn'), 'nothing of one’s own is there, and on either side are those who flood')
  await t.rejects(ask('zz'), tooMany)
})

t.test('what ended long ago hides nothing of what came after it', async (t) => {
  await fill('aa', 100, 'withdrawn', 'ended_at = now()')
  await t.rejects(ask('aa'), tooMany)
})

t.test('of many calls at once that have room for one more, one has it', async (t) => {
  await fill('pp', 99, 'pending')
  const asked = await Promise.allSettled(Array.from({ length: 6 }, () => ask('pp')))
  t.equal(asked.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const one of asked) if (one.status === 'rejected') t.match(one.reason, tooMany)
})

t.test('of many calls under one key one is put before people, and all are told of that', async (t) => {
  const { size } = await stores.roll.head()
  const askFor = `select count(*)::integer as asked from entries where index >= $1 and type = 'request.created'`
  const asked = await Promise.all(Array.from({ length: 6 }, () => ask('nn', 'at once')))
  t.equal(new Set(asked.map(({ id }) => id)).size, 1)
  t.same((await owner.query(askFor, [size])).rows, [{ asked: 1 }])
})
