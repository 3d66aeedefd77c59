/** Among very many requests that have ended, whatever is asked of a few looks at few. */
import t from 'tap'

import type { RequestFilter, Sight } from '../../src/ca/approvals/approvals.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import { openDatabase, type Queryable, type Statement } from '../../src/db/database.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { employApprovers, openBeside, openDesk, wantApprovals } from '../http/approvals.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
await wantApprovals(service, 'payments', { required: 1 })
await wantApprovals(service, 'quiet', { required: 1 })
const people = await employApprovers(service, ['payments', 'quiet'])
const { stores } = await openBeside(t, service)
const owner = openDatabase({ url: service.database.ownerUrl, max: 2, log: quiet, applicationName: 'lists' })
// Whoever fills it has as long as a busy machine takes; what is looked at is planned as for the service.
const filling = openDatabase({
  ...{ url: service.database.ownerUrl, max: 1, log: quiet, applicationName: 'filling' },
  patient: true,
})
t.teardown(() => Promise.all([owner.close(), filling.close()]))
const decided = (await openDesk(service).ask(people.requester, 'payments')).json.plan

const many = 50_000
const limit = 20

/** Of `ci`, all issued but every five thousandth, which was rejected; before them come a few of `bob`'s of another profile. */
const grow = async (): Promise<void> => {
  const triggers = (what: 'enable' | 'disable') =>
    filling.query({
      text: `alter table approval_requests ${what} trigger user; alter table approval_ends ${what} trigger user`,
    })
  await triggers('disable')
  await filling.query(
    {
      text: `
        with made as (
          insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided,
            plan, required, created_at, expires_at)
          select gen_random_uuid(), 1000000 + i, case when i <= 30 then 'bob' else 'ci' end, 'grown-' || i, sha256(''),
            case when i <= 30 then 'quiet' else 'payments' end, 1, '{}', $1, sha256(convert_to($1, 'UTF8')), 1, now(),
            now() + interval '30 days'
          from generate_series(1, $2::integer) i
          returning id, entry - 1000000 as i, entry, principal, profile, expires_at
        ), kinds as (
          select *, case when i <= 10 then 'withdrawn' when i <= 30 then 'pending' when i % 5000 = 0 then 'rejected' else 'failed' end as kind
          from made
        ), ended as (
          insert into approval_ends (request, kind, entry, at, by, code)
          select id, kind, entry + 1000000, now(), case when kind <> 'failed' then 'alice' end, case when kind = 'failed' then 'x' end
          from kinds where kind <> 'pending'
        )
        insert into approval_standings (request, entry, principal, profile, expires_at, state, look_at)
        select id, entry, principal, profile, expires_at, kind, expires_at from kinds`,
    },
    [JSON.stringify(decided), many],
  )
  await triggers('enable')
  await filling.query({ text: 'analyze' })
}

interface Plan {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  readonly 'Actual Rows': number
  readonly 'Rows Removed by Filter'?: number
  readonly 'Actual Loops': number
  readonly Plans?: readonly Plan[]
}

/** Rows of tables that a statement looks at. */
const looksAt = async ({ text }: Statement, values: readonly unknown[]): Promise<number> => {
  const count = (plan: Plan): number => {
    const own = (plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0)) * plan['Actual Loops']
    const below = (plan.Plans ?? []).reduce((sum, child) => sum + count(child), 0)
    return below + (plan['Relation Name']?.startsWith('approval') ? own : 0)
  }
  const { rows } = await owner.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
    { text: `explain (analyze, format json) ${text}` },
    values,
  )
  return count((rows[0] as { 'QUERY PLAN': [{ Plan: Plan }] })['QUERY PLAN'][0].Plan)
}

/** The store, and how many rows its last statement has looked at. */
let looked = 0
const query: Queryable['query'] = async (statement, values = []) => {
  looked = await looksAt(statement, values)
  return owner.query(statement, values)
}
const store = openApprovalStore({ ...stores, db: { ...owner, query }, proposed: () => {} })

t.before(grow)

const everybody: Sight = null
const ci: Sight = { principal: 'ci', profiles: [] }
const bob: Sight = { principal: 'bob', profiles: ['payments'] }
const alice: Sight = { principal: 'alice', profiles: ['payments', 'quiet'] }

const lists: readonly (readonly [what: string, sight: Sight, filter: RequestFilter, found: number])[] = [
  ['all', everybody, {}, limit],
  ['those of a profile', everybody, { profile: 'quiet' }, limit],
  ['one’s own', bob, {}, limit],
  ['those that one approves', alice, {}, limit],
  ['what was withdrawn', everybody, { state: 'withdrawn' }, 10],
  ['what was rejected', everybody, { state: 'rejected' }, 10],
  ['what was rejected of a profile without any', everybody, { state: 'rejected', profile: 'quiet' }, 0],
  ['what was rejected of one’s own', ci, { state: 'rejected' }, 10],
  ['what waits', everybody, { state: 'pending' }, limit],
  ['what waits of one’s own', ci, { state: 'pending' }, 1],
  ['what waits for whoever approves', alice, { state: 'pending' }, limit],
  ['what was withdrawn, of what one approves', alice, { state: 'withdrawn', profile: 'quiet' }, 10],
  ['what has expired', alice, { state: 'expired' }, 0],
  ['what is approved', everybody, { state: 'approved' }, 0],
  ['what was issued', bob, { state: 'issued' }, 0],
  ['what has failed', bob, { state: 'failed' }, limit],
]

for (const [what, sight, filter, found] of lists)
  t.test(`a list of ${what} looks at few rows`, async (t) => {
    const { items, next } = await store.list(sight, filter, { limit })
    t.equal(items.length, found)
    for (const { state, profile } of items) {
      if (filter.state) t.equal(state, filter.state)
      if (filter.profile) t.equal(profile.name, filter.profile)
    }
    // A page of each of the branches, with each row's approvals, end and standing.
    t.ok(looked <= 12 * (limit + 1), `${looked} rows`)
    if (next === undefined) return
    await store.list(sight, filter, { limit, cursor: next })
    t.ok(looked <= 12 * (limit + 1), `${looked} rows further on`)
  })

t.test('pages come one after the other, of what is one’s own and of what one approves', async (t) => {
  const seen: number[] = []
  for (let cursor: string | undefined; ; ) {
    const page = await store.list(
      { principal: 'bob', profiles: ['quiet'] },
      {},
      { limit: 7, ...(cursor && { cursor }) },
    )
    seen.push(...page.items.map(({ index }) => index))
    cursor = page.next
    if (cursor === undefined) break
  }
  t.same(
    seen,
    Array.from({ length: 30 }, (_, i) => 1_000_030 - i),
    'each once, though it is in both',
  )
})

t.test('whether somebody may ask for one more, what is due and what is counted look at what is open', async (t) => {
  await store.due()
  t.ok(looked <= 2, `${looked} rows are due`)
  t.match(await store.figures(), { pending: 21, approved: 0 })
  t.ok(looked <= 30, `${looked} rows are counted`)
  const { input } = { input: { csr: Buffer.from('x'), profile: 'payments' } }
  const proposal = {
    ...{ principal: 'ci', key: 'one-more', digest: Buffer.alloc(32), vouched: null, input },
    ...{ profile: { name: 'payments', version: 1 }, plan: Buffer.alloc(32), decided },
    approvals: { required: 1, expires: 60 },
  }
  // Its plan is not of this digest: the last thing that is looked at before is whether there is room.
  await t.rejects(store.propose(proposal), /approval_requests/)
  t.ok(looked <= 2, `${looked} rows of ci are open`)
})
