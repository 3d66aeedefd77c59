/** Where a roll is succeeded, however many requests wait for people: none is left, and no transaction takes too many locks. */
import t from 'tap'

import type { IssueInput } from '../../src/ca/issuance/issuance.ts'
import { failOpenRequests } from '../../src/db/approvals.ts'
import type { ProfileVersion } from '../../src/tlog/entries.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { holdTurn } from '../helpers/turn.ts'
import { employApprovers, leaveOpenIntent, openBeside, openDesk, wantApprovals } from '../http/approvals.ts'

slowTest('those of a span fail, some in each transaction, and no others', async (t) => {
  const service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 1 })
  const { requester } = await employApprovers(service, ['payments'])
  const { id } = (await openDesk(service).ask(requester, 'payments')).json
  const { db } = (await openBeside(t, service)).stores
  await db.query(
    {
      // With what was asked for: without it they would be lost, and the job of the service would end them at once.
      text: `insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided,
          plan, required, created_at, expires_at)
        select gen_random_uuid(), 1000000 + i, principal, 'key ' || i, digest, profile, profile_version, ask, decided, plan,
          required, created_at, expires_at
        from approval_requests, generate_series(1, 1200) i where id = $1::uuid`,
    },
    [id],
  )
  const word = { code: 'approval.plan', reason: 'lost' }
  const failed: string[] = []
  let transactions = 0
  for (let from: number | undefined = 1; from !== undefined; transactions += 1) {
    const span = { from, before: 1_001_201 }
    const place = { time: new Date(), index: 2_000_000 + failed.length }
    from = await db.transaction(async (tx) => {
      const { events, next } = await failOpenRequests(tx, place, span, word)
      failed.push(...events.map((event) => event.id))
      const { rows } = await tx.query<{ locks: number }>({
        text: `select count(*)::integer as locks from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()`,
      })
      t.ok((rows[0]?.locks ?? 0) <= 500, `${rows[0]?.locks} locks`)
      return next
    })
  }
  t.equal(new Set(failed).size, 1_201)
  t.ok(failed.includes(id))
  t.equal(transactions, 3)
  const { rows } = await db.query<{ state: string; count: number }>({
    text: 'select state, count(*)::integer as count from approval_standings group by state',
  })
  t.same(rows, [{ state: 'failed', count: 1_201 }])
})

t.test('what was asked for later is left', async (t) => {
  const service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 1 })
  const { requester } = await employApprovers(service, ['payments'])
  const desk = openDesk(service)
  const { id } = (await desk.ask(requester, 'payments', { key: 'one' })).json
  const { stores } = await openBeside(t, service)
  const { size } = await stores.roll.head()
  await desk.ask(requester, 'payments', { key: 'two' })
  const place = { time: new Date(), index: 2_000_000 }
  const { events, next } = await stores.db.transaction((tx) =>
    failOpenRequests(tx, place, { from: 0, before: size }, { code: 'approval.plan', reason: 'lost' }),
  )
  t.same(
    events.map((event) => event.id),
    [id],
  )
  t.equal(next, undefined)
})

interface Asked {
  readonly id: string
  readonly digest: string
  readonly profile: ProfileVersion
}

slowTest('one that is being issued, or has been, is left, and those after it are not', async (t) => {
  const service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 1 })
  const people = await employApprovers(service, ['payments', 'server'])
  const desk = openDesk(service)
  await desk.ask(people.requester, 'server')
  const asked: Asked[] = []
  for (const key of ['one', 'two', 'three', 'four'])
    asked.push((await desk.ask(people.requester, 'payments', { key })).json)
  const [one, two, three] = asked.map(({ id }) => id) as [string, string, string]
  const { store, stores } = await openBeside(t, service)
  await holdTurn(t, stores.db, 'approvals')
  const approve = (id: string, plan: string) =>
    store.decide(id, { type: 'request.approved', id, plan, reason: 'x', by: 'alice' }, () => {})
  await approve(two, asked[1]?.digest as string)
  await leaveOpenIntent(stores.db, two)
  // It has become a certificate, which nobody has written down yet as its end.
  const { id: four, digest, profile } = asked[3] as Asked
  await approve(four, digest)
  const caller = { principal: 'ci', proof: { kind: 'own' } as const, grants: (await store.grantsOf('ci')) ?? [] }
  const { input } = (await store.asked(four)) as { input: IssueInput }
  const approved = { id: four, plan: Buffer.from(digest, 'hex'), profile }
  const { serial } = await service.service.issuance.issueApproved(caller, input, approved)
  const place = { time: new Date(), index: 2_000_000 }
  const { events } = await stores.db.transaction((tx) =>
    failOpenRequests(tx, place, { from: 0, before: 1_000_000 }, { code: 'approval.plan', reason: 'lost' }),
  )
  t.same(
    events.map((event) => event.id),
    [one, three],
  )
  await Promise.all([store.endIssued(four, serial), store.endIssued(four, serial)])
  await t.resolves(store.endIssued(four, serial), 'whoever carries it out as well may say so again')
  t.match(await store.read(four), { state: 'issued', serial })
})
