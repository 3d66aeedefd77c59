/** What people had to approve, in a backup that is older than what became of it. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t from 'tap'

import { verifyDatabase } from '../../src/auditor/database.ts'
import type { ApprovalStore, Asked } from '../../src/ca/approvals/approvals.ts'
import type { ApprovalRequest } from '../../src/ca/approvals/request.ts'
import { runRecover } from '../../src/cli/log-recover.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { openStores, type Stores } from '../../src/server/stores.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { takeBackup } from '../helpers/backup.ts'
import { drill } from '../helpers/drill.ts'
import { exportRoll, wholeCheckpoint } from '../helpers/exported.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { holdTurn } from '../helpers/turn.ts'
import { employApprovers, leaveOpenIntent, openDesk, untilState, wantApprovals } from '../http/approvals.ts'
import { csrFor, derFor } from '../http/people.ts'

t.setTimeout(300_000)

const openRecovery = async (t: { teardown(close: () => Promise<void>): void }) => {
  const replica = await openReplica(t)
  await replica.stores.db.close()
  const tiles = await mkdtemp(join(tmpdir(), 'chancery-recover-'))
  t.teardown(() => rm(tiles, { recursive: true, force: true }))
  const options = { from: tiles, profiles: [], chains: [], check: false }
  return {
    replica,
    /** While no service runs: nobody may be connected when the backup is made. */
    inStores: async <T>(work: (stores: Stores) => Promise<T>): Promise<T> => {
      const { config, database } = replica
      const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet })
      const done = await work(stores)
      stores.policies.close()
      stores.providers.close()
      await stores.db.close()
      return done
    },
    /** The size of its roll, all of which is exported. */
    exported: async (service: TestService) => {
      await wholeCheckpoint(service)
      return exportRoll((path) => service.request('GET', path), tiles)
    },
    recover: () => runRecover(replica.config, quiet, options, { update: () => {}, tell: () => {} }),
  }
}

drill('a request that was being issued then has ended as the roll says, and its intent with it', async (t) => {
  const { replica, inStores, exported, recover } = await openRecovery(t)
  const { database } = replica
  const first = await openTestService(t, {}, replica)
  await wantApprovals(first, 'payments', { required: 1 })
  const { requester } = await employApprovers(first, ['payments', 'server'])
  await openDesk(first).ask(requester, 'server', { csr: csrFor('web.example.com') })
  const { id, digest: plan } = (await openDesk(first).ask(requester, 'payments', { key: 'withdrawn' })).json
  await first.close()
  await inStores(async (stores) => {
    const store = openApprovalStore({ ...stores, proposed: () => {} })
    await store.decide(id, { type: 'request.approved', id, plan, reason: 'x', by: 'alice' }, () => {})
    await leaveOpenIntent(stores.db, id)
  })
  const backup = await takeBackup(t, database)

  await inStores(async (stores) => {
    const text = `insert into outcomes (serial, kind, at) select serial, 'unsigned', now() from intents where approval = $1`
    await stores.db.query({ text }, [id])
    const store = openApprovalStore({ ...stores, proposed: () => {} })
    await store.decide(id, { type: 'request.withdrawn', id, plan, reason: 'x', by: 'ci' }, () => {})
  })
  const second = await openTestService(t, {}, replica)
  const to = await exported(second)
  await second.close()
  await backup.restore()

  t.match(await recover(), { to })
  const third = await openTestService(t, {}, replica)
  t.match((await openDesk(third).read(requester, id)).json, { state: 'withdrawn', serial: null })
  await third.close()
  const findings: Finding[] = []
  const wanted = {
    ...{ keys: { roll: [], witnesses: [] }, checkpoints: [] },
    tell: (finding: Finding) => findings.push(finding),
  }
  await verifyDatabase(database.servingUrl, { ...wanted, progress: () => {} })
  t.same(findings, [])
})

/** Ways to end without a certificate; a rejection is among all that `restore.test.ts` brings back. */
const endings: Readonly<Record<string, (store: ApprovalStore, request: ApprovalRequest) => Promise<unknown>>> = {
  expired: (store, { id }) => store.end(id, { kind: 'expired' }),
  failed: (store, { id }) => store.end(id, { kind: 'failed', code: 'approval.plan', reason: 'it has changed' }),
  withdrawn: (store, { id, digest: plan }) =>
    store.decide(id, { type: 'request.withdrawn', id, plan, reason: 'x', by: 'ci' }, () => {}),
}

drill('however a request has ended since, it has ended so again, and nothing is to be done about it', async (t) => {
  const { replica, inStores, exported, recover } = await openRecovery(t)
  const first = await openTestService(t, {}, replica)
  await wantApprovals(first, 'payments', { required: 1 })
  const { requester } = await employApprovers(first, ['payments', 'server'])
  await openDesk(first).ask(requester, 'server', { csr: csrFor('web.example.com') })
  const { plan: decided } = (await openDesk(first).ask(requester, 'payments')).json
  await first.close()
  const ask = (store: ApprovalStore, kind: string, when: string) =>
    store.propose({
      ...{ principal: 'ci', key: `${kind}, asked ${when}`, digest: Buffer.alloc(32), vouched: null },
      input: { csr: derFor('pay.example.com'), profile: 'payments' },
      profile: { name: 'payments', version: 1 },
      plan: createHash('sha256').update(canonicalJson(decided)).digest(),
      decided,
      approvals: { required: 1, expires: kind === 'expired' ? 0 : 3_600 },
    })
  const open = new Map<string, ApprovalRequest>()
  await inStores(async (stores) => {
    const store = openApprovalStore({ ...stores, proposed: () => {} })
    for (const kind of Object.keys(endings)) open.set(kind, (await ask(store, kind, 'before')).request)
    const { id, digest: plan } = open.get('failed') as ApprovalRequest
    await store.decide(id, { type: 'request.approved', id, plan, reason: 'x', by: 'alice' }, () => {})
    // What came to nothing is on record as that already.
    await leaveOpenIntent(stores.db, id)
    const text = `insert into outcomes (serial, kind, at) select serial, 'unsigned', now() from intents where approval = $1`
    await stores.db.query({ text }, [id])
  })
  const backup = await takeBackup(t, replica.database)
  const ends = () =>
    inStores(async ({ db }) => (await db.query({ text: 'select * from approval_ends order by entry' })).rows)

  await inStores(async (stores) => {
    const store = openApprovalStore({ ...stores, proposed: () => {} })
    for (const [kind, end] of Object.entries(endings)) {
      await end(store, open.get(kind) as ApprovalRequest)
      await end(store, (await ask(store, kind, 'after')).request)
    }
  })
  const ended = await ends()
  t.equal(ended.length, 6)
  const second = await openTestService(t, {}, replica)
  await exported(second)
  await second.close()
  await backup.restore()

  t.match(await recover(), { byHand: { length: 0 } })
  t.same(await ends(), ended)
})

drill('whoever asks again for what was issued after the backup gets that certificate', async (t) => {
  const { replica, exported, recover } = await openRecovery(t)
  const first = await openTestService(t, {}, replica)
  await wantApprovals(first, 'payments', { required: 1 })
  const { requester, alice } = await employApprovers(first, ['payments'])
  const input = { key: 'once', csr: csrFor('pay.example.com') }
  const asked = (await openDesk(first).ask(requester, 'payments', input)).json
  await first.close()
  const backup = await takeBackup(t, replica.database)
  const second = await openTestService(t, {}, replica)
  const desk = openDesk(second)
  t.equal((await desk.approve(alice, asked)).status, 200)
  const { serial } = await untilState(() => desk.read(requester, asked.id), 'issued')
  await exported(second)
  await second.close()
  await backup.restore()

  await recover()
  const third = await openTestService(t, {}, replica)
  // On the roll there is no Idempotency-Key: it is the request, older than its certificate, that still has it.
  const again = await openDesk(third).ask(requester, 'payments', input)
  t.equal(again.status, 201, again.text)
  t.equal(again.json.serial, serial)
  await third.close()
})

drill('who was let go between an intent and its certificate has approved it all the same', async (t) => {
  const { replica, exported, recover } = await openRecovery(t)
  const first = await openTestService(t, {}, replica)
  await wantApprovals(first, 'payments', { required: 1 })
  const { requester } = await employApprovers(first, ['payments'])
  const { id, digest, profile } = (await openDesk(first).ask(requester, 'payments')).json
  await first.close()
  const backup = await takeBackup(t, replica.database)

  const second = await openTestService(t, {}, replica)
  const { stores } = await openReplica(t, { beside: replica })
  await holdTurn(t, stores.db, 'approvals')
  const store = openApprovalStore({ ...stores, proposed: () => {} })
  const approval = { type: 'request.approved', id, plan: digest, reason: 'x', by: 'alice' } as const
  await store.decide(id, approval, () => {})
  const { input } = (await store.asked(id)) as Asked
  const caller = { principal: 'ci', proof: { kind: 'own' } as const, grants: (await store.grantsOf('ci')) ?? [] }
  const owner = new pg.Client({ connectionString: replica.database.ownerUrl })
  await owner.connect()
  const waiting = 'select from pg_locks where not granted and transactionid = pg_current_xact_id()::xid'
  const intent = { text: 'select from intents where approval = $1', values: [id] }
  // Whoever lets alice go has the head by then, and whatever is issued comes after it.
  await owner.query("begin; select from principals where name = 'alice' for update")
  const letGo = second.request('DELETE', '/v1/principals/alice')
  while ((await owner.query(waiting)).rows.length === 0) await sleep(5)
  const plan = Buffer.from(digest, 'hex')
  const issuing = second.service.issuance.issueApproved(caller, input, { id, plan, profile })
  while ((await owner.query(intent)).rows.length === 0) await sleep(5)
  await owner.query('commit')
  await owner.end()
  t.equal((await letGo).status, 204)
  const { serial } = await issuing
  const entries = `select type from entries where type in ('certificate.issued', 'principal.disabled') order by index desc`
  const last = (await stores.db.query<{ type: string }>({ text: entries })).rows.slice(0, 2).map(({ type }) => type)
  t.same(last, ['certificate.issued', 'principal.disabled'])
  await stores.db.close()
  await exported(second)
  await second.close()
  await backup.restore()

  await recover()
  const third = await openTestService(t, {}, replica)
  t.match((await openDesk(third).read(requester, id)).json, { state: 'issued', serial })
  await third.close()
})
