/** `chancery roll succeed`, killed at each of its steps: nothing is served half-way, and the same command comes to the same end. */
import { execFile } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import t from 'tap'

import { runSucceed } from '../../src/cli/log-succeed.ts'
import { verifyDatabase } from '../../src/cli/verify-database.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import { openAnchorFile, readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import { openStores } from '../../src/server/stores.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { takeBackup } from '../helpers/backup.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, leaveOpenIntent, openDesk, wantApprovals } from '../http/approvals.ts'
import { csrFor } from '../http/people.ts'

t.setTimeout(300_000)

const replica = await openReplica(t)
const { config, database } = replica
await replica.stores.db.close()
const anchor = config.roll.anchor as string
const origin = 'roll.example/2'

const inStores = async <T>(work: (stores: Awaited<ReturnType<typeof openStores>>) => Promise<T>): Promise<T> => {
  const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet })
  try {
    return await work(stores)
  } finally {
    stores.policies.close()
    stores.providers.close()
    await stores.db.close()
  }
}

const first = await openTestService(t, {}, replica)
await wantApprovals(first, 'payments', { required: 1 })
const { requester, alice } = await employApprovers(first, ['payments', 'server'])
await openDesk(first).ask(requester, 'server', { csr: csrFor('web.example.com') })
const [waiting, turned, approved] = [
  (await openDesk(first).ask(requester, 'payments', { key: 'waiting' })).json,
  (await openDesk(first).ask(requester, 'payments', { key: 'turned' })).json,
  (await openDesk(first).ask(requester, 'payments', { key: 'approved' })).json,
]
await first.close()
// One was being issued when the backup was made.
await inStores(async (stores) => {
  const { id, digest: plan } = approved
  const store = openApprovalStore({ ...stores, proposed: () => {} })
  await store.decide(id, { type: 'request.approved', id, plan, reason: 'x', by: 'alice' }, () => {})
  await leaveOpenIntent(stores.db, id)
})
const backup = await takeBackup(t, database)
const second = await openTestService(t, {}, replica)
await openDesk(second).reject(alice, turned, 'never')
await second.close()
const seen = await readFile(anchor)
const before = await readAnchorFile(anchor)
const requests = [waiting, turned, approved].map(({ id }) => id).sort()

/** As on the day: the end of the roll is lost, and the anchor knows of it. */
const loseTheEnd = async (): Promise<void> => {
  await backup.restore()
  for (const name of await readdir(dirname(anchor)))
    if (name.startsWith(basename(anchor))) await rm(join(dirname(anchor), name))
  await writeFile(anchor, seen, { mode: 0o600 })
}
/** By the very command; resolves to whether it came to its end. */
const succeedUntil = (step: number): Promise<boolean> => {
  const env = {
    ...bare,
    CHANCERY_DATA: config.dataDir,
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_MIGRATION_URL: database.ownerUrl,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_LOG_LEVEL: 'error',
    TEST_KILL_AT: String(step),
  }
  const killer = join(import.meta.dirname, 'killed-at.ts')
  const args = ['--import', killer, 'src/main.ts', 'roll', 'succeed', '--origin', origin, '--confirm', origin]
  return new Promise((resolve, reject) =>
    execFile(process.execPath, args, { env, timeout: 60_000, killSignal: 'SIGTERM' }, (error, _out, err) => {
      if (error && error.signal !== 'SIGKILL') return reject(new Error(`${error.message}\n${err}`))
      resolve(error === null)
    }),
  )
}
const openRequests = (): Promise<number> =>
  inStores(async ({ db }) => {
    const text =
      'select count(*)::integer as count from approval_requests where id not in (select request from approval_ends)'
    return (await db.query<{ count: number }>({ text })).rows[0]?.count ?? -1
  })
/** What was said, once each. */
const said = (): Promise<readonly unknown[]> =>
  inStores(async ({ db }) => {
    const text = `select body from entries where type in ('roll.opened', 'request.failed', 'issuance.abandoned') order by index`
    const { rows } = await db.query<{ body: string }>({ text })
    return rows.map(({ body }) => JSON.parse(body))
  })
const findings = async (): Promise<readonly Finding[]> => {
  const found: Finding[] = []
  const wanted = { keys: { roll: [], witnesses: [] }, checkpoints: [], tell: (one: Finding) => found.push(one) }
  await verifyDatabase(database.servingUrl, { ...wanted, progress: () => {} })
  return found
}

slowTest('killed at each of its steps, the same command goes on, and nothing is served before', async (t) => {
  let step = 1
  for (; ; step += 1) {
    await loseTheEnd()
    if (await succeedUntil(step)) break
    // Refused; or all is said, and only whoever ran it has not been told.
    const left = await openRequests().catch((error: Error) => error.message)
    t.ok(left === 0 || (typeof left === 'string' && left !== ''), `step ${step}: ${left}`)
    t.match(
      await runSucceed(config, quiet, origin, async () => true),
      new RegExp(`^The roll goes on as ${origin}`),
      `step ${step}`,
    )
    t.match(await readAnchorFile(anchor), { origin }, `step ${step}`)
    t.same(await readAnchorFile(`${anchor}.${before?.size}`), before, `step ${step}: what was seen is kept`)
    const events = (await said()) as readonly { type: string; origin?: string; id?: string }[]
    t.same(
      events
        .filter(({ type }) => type === 'request.failed')
        .map(({ id }) => id)
        .sort(),
      requests,
      `step ${step}: each request has failed, once`,
    )
    t.equal(events.filter(({ type }) => type === 'issuance.abandoned').length, 1, `step ${step}`)
    t.equal(events.filter((event) => event.origin === origin).length, 1, `step ${step}`)
    t.same(await findings(), [], `step ${step}`)
  }
  t.ok(step > 8, `it has ${step - 1} steps`)
  t.equal(await openRequests(), 0)
  t.same(await findings(), [])
  const again = await runSucceed(config, quiet, origin, async () => t.fail('nobody is asked'))
  t.match(again, /already, and it was said here: nothing is left to do/, 'also when only its answer was lost')
})

slowTest('what is kept in the place of the old anchor is not written over where it is of another roll', async (t) => {
  await loseTheEnd()
  const kept = `${anchor}.${before?.size}`
  const other = await openAnchorFile({ path: kept })
  await other.write({ origin: 'other.example/roll', size: 7, root: Buffer.alloc(32, 7) })
  await other.close()
  await t.rejects(
    runSucceed(config, quiet, origin, async () => true),
    { kind: 'usage', message: /is of another roll: move it away, and run this again/ },
  )
  t.same(await readAnchorFile(anchor), before)
  await rm(kept)
  t.match(await runSucceed(config, quiet, origin, async () => true), /^The roll goes on as/)
})
