/** What the database itself holds to, whoever writes: nothing is issued that was not approved, and nothing ends twice. */
import { createHash, randomBytes, randomUUID } from 'node:crypto'

import t from 'tap'

import { openApprovals } from '../../src/ca/approvals.ts'
import { canonicalJson } from '../../src/canonical.ts'
import { type Leases, openLeases } from '../../src/store/leases.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { employApprovers, openBeside, openDesk, type People, wantApprovals } from '../http/approvals.ts'
import { derFor } from '../http/people.ts'

let service: TestService
let people: People
let beside: Awaited<ReturnType<typeof openBeside>>
let turn: Leases
let decided: never

t.before(async () => {
  service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 2 })
  people = await employApprovers(service, ['payments', 'server'])
  beside = await openBeside(t, service)
  turn = openLeases(beside.stores.db, randomUUID())
  decided = (await openDesk(service).ask(people.requester, 'payments')).json.plan as never
  await openDesk(service).ask(people.requester, 'server')
})

/** A request that nobody carries out. */
const propose = async (key: string, expires = 3_600) => {
  const { request } = await beside.store.propose({
    principal: 'ci',
    key,
    digest: Buffer.alloc(32),
    vouched: null,
    input: { csr: derFor('pay.example.com'), profile: 'payments' },
    profile: { name: 'payments', version: 1 },
    plan: createHash('sha256').update(canonicalJson(decided)).digest(),
    decided,
    approvals: { required: 2, expires },
  })
  return request
}

/** Whose turn it is: the service leaves what is approved or due to us. */
t.beforeEach(async () => {
  if (!(await turn.take('approvals', 5_000))) throw new Error('the service has come first')
})

const approve = (id: string, by: string) =>
  beside.store.decide(id, { type: 'request.approved', id, plan: 'ab'.repeat(32), reason: 'x', by }, () => {})

interface Intended {
  readonly approval: string | null
  readonly plan?: string
  readonly principal?: string
  readonly profile?: string
}

/** Like one of `server`, as the serving role inserts it. */
const intend = async ({ approval, plan = 'ab'.repeat(32), principal = 'ci', profile = 'payments' }: Intended) => {
  const serial = randomBytes(16)
  await beside.stores.db.query(
    {
      text: `
        insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
          plan, approval)
        select $1, $2, $3, 1, digest, issuer, shard, $4, 1, tbs, decode($5, 'hex'), $6::uuid
        from intents where profile = 'server' limit 1`,
    },
    [serial, principal, serial.toString('hex'), profile, plan, approval],
  )
  return serial
}

const unapproved = /is not approved so, or has ended/

t.test('an intent of a profile that wants approvals names a request, or is none', async (t) => {
  await t.rejects(intend({ approval: null }), /lacks its approvals/)
  await t.resolves(intend({ approval: null, profile: 'server' }))
  await t.rejects(intend({ approval: '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60' }), unapproved)
})

t.test('one that was approved, by enough, of that plan, for who asked, and that has not ended', async (t) => {
  const { id, digest } = await propose('guarded')
  const good = { approval: id, plan: digest }
  await approve(id, 'alice')
  await t.rejects(intend(good), unapproved, 'by one of two')
  await t.rejects(approve(id, 'alice'), /approvals_pkey/, 'the same again is none')
  const beforeEnd = await propose('rejected')
  await approve(beforeEnd.id, 'alice')
  await approve(beforeEnd.id, 'bob')
  await beside.store.end(beforeEnd.id, { kind: 'failed', code: 'approval.plan', reason: 'x' })
  await t.rejects(intend({ ...good, approval: beforeEnd.id }), unapproved, 'it has ended')
  t.equal(await beside.store.end(beforeEnd.id, { kind: 'expired' }), false, 'and ends once')
  t.match((await beside.store.read(beforeEnd.id))?.state, 'failed')
})

t.test('what was approved in time and is found after it, as after an outage, ends and is not issued', async (t) => {
  const { id } = await propose('late', 0)
  await approve(id, 'alice')
  await approve(id, 'bob')
  const tried: string[] = []
  const approvals = openApprovals({
    store: beside.store,
    issuance: {
      issueApproved: async (_caller, _input, { id }) => {
        tried.push(id)
        throw new Error('nothing is issued here')
      },
    },
    refresh: async () => {},
    ended: () => {},
    failed: (_id, error) => t.fail(String(error)),
    elapsed: () => performance.now(),
  })
  await approvals.follow(async () => true)
  t.same(tried, [])
  t.match(await beside.store.read(id), { state: 'expired', serial: null })
})

t.test('the requester’s own word is none, even in the records', async (t) => {
  const { id, digest } = await propose('own')
  await approve(id, 'ci')
  await approve(id, 'alice')
  await t.rejects(intend({ approval: id, plan: digest }), unapproved)
})

t.test('what may still become a certificate does not end otherwise', async (t) => {
  const { id, digest } = await propose('under-way', 0)
  await approve(id, 'alice')
  await approve(id, 'bob')
  const end = (values: string) =>
    beside.stores.db.query({ text: `insert into approval_ends (request, kind, entry, serial, at) values ${values}` }, [
      id,
    ])
  const serial = await intend({ approval: id, plan: digest })
  t.equal(await beside.store.end(id, { kind: 'expired' }), false)
  await t.rejects(end(`($1, 'expired', 1000000, null, now())`), /is being issued/)
  await t.rejects(end(`($1, 'issued', null, '\\x${serial.toString('hex')}', now())`), /has not become this certificate/)
  await t.rejects(intend({ approval: id, plan: 'cd'.repeat(32) }), unapproved, 'of another plan')
  await t.rejects(intend({ approval: id, plan: digest, principal: 'alice' }), unapproved, 'for another')
})

t.test('nothing of it is ever changed', async (t) => {
  for (const table of ['approval_requests', 'approvals', 'approval_ends'])
    for (const text of [`delete from ${table}`, `update ${table} set entry = 0`])
      await t.rejects(beside.stores.db.query({ text }), /permission denied/)
})
