/** Where the end of a roll is lost for good, what people have said in it is not undone by that. */
import { chown, copyFile, link, readdir, rename, rm, stat, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import t from 'tap'

import { runSucceed } from '../../src/cli/log-succeed.ts'
import { verifyDatabase } from '../../src/cli/verify-database.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import { readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import { openStores } from '../../src/server/stores.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { takeBackup } from '../helpers/backup.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, leaveOpenIntent, openDesk, wantApprovals } from '../http/approvals.ts'
import { csrFor } from '../http/people.ts'

t.setTimeout(300_000)

slowTest('what waited for people has failed on the roll that succeeds, and is not approved any more', async (t) => {
  const replica = await openReplica(t)
  const { config, database } = replica
  await replica.stores.db.close()

  const first = await openTestService(t, {}, replica)
  await wantApprovals(first, 'payments', { required: 1 })
  const { requester, alice } = await employApprovers(first, ['payments', 'server'])
  const { rejected, approved } = await (async () => {
    const desk = openDesk(first)
    await desk.ask(requester, 'server', { csr: csrFor('web.example.com') })
    return {
      rejected: (await desk.ask(requester, 'payments', { key: 'rejected' })).json,
      approved: (await desk.ask(requester, 'payments', { key: 'approved' })).json,
    }
  })()
  await first.close()

  // One more was being issued when the backup was made.
  const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet })
  const store = openApprovalStore({ ...stores, proposed: () => {} })
  const { id, digest: plan } = approved
  await store.decide(id, { type: 'request.approved', id, plan, reason: 'x', by: 'alice' }, () => {})
  await leaveOpenIntent(stores.db, id)
  stores.policies.close()
  stores.providers.close()
  await stores.db.close()
  const backup = await takeBackup(t, database)

  const second = await openTestService(t, {}, replica)
  const turned = await openDesk(second).reject(alice, rejected, 'never')
  t.match(turned.json, { state: 'rejected' })
  await second.close()
  await backup.restore()

  const anchor = config.roll.anchor as string
  // As that of the service is, where root runs the command.
  const ordinary = process.getuid?.() === 0 ? false : 'only root can give a file away'
  if (!ordinary) await chown(anchor, 65_534, 65_534)
  const { uid, gid } = await stat(anchor)
  await t.test('nobody is given what a link in the place of what is kept leads to', { skip: ordinary }, async (t) => {
    const kept = `${anchor}.${(await readAnchorFile(anchor))?.size}`
    const elsewhere = join(config.dataDir, 'elsewhere')
    await copyFile(anchor, elsewhere)
    await chown(elsewhere, 0, 0)
    for (const put of [symlink, link]) {
      await put(elsewhere, kept)
      await t.rejects(
        runSucceed(config, quiet, 'roll.example/2', async () => true),
        { kind: 'usage', message: `${kept} is a link, and is given to nobody: move it away, and run this again.` },
      )
      t.match(await stat(elsewhere), { uid: 0 })
      await rm(kept)
    }
  })
  t.match(await runSucceed(config, quiet, 'roll.example/2', async () => true), /^The roll goes on as roll\.example\/2/)
  for (const name of (await readdir(dirname(anchor))).filter((one) => one.startsWith(basename(anchor))))
    t.match(await stat(join(dirname(anchor), name)), { uid, gid }, `${name} is whose the anchor was`)
  await t.test('an account that is not root gives nothing away, which it may not', { skip: ordinary }, async (t) => {
    const kept = (await readdir(dirname(anchor))).find((one) => one.startsWith(`${basename(anchor)}.`)) as string
    await rename(join(dirname(anchor), kept), anchor)
    const { geteuid } = process
    // The database is for root only to reach here.
    process.geteuid = () => 12_345
    try {
      await runSucceed(config, quiet, 'roll.example/2', async () => true)
      t.match(await stat(anchor), { uid: 0 }, 'where it would fail')
    } finally {
      if (geteuid) process.geteuid = geteuid
    }
  })
  const third = await openTestService(t, {}, replica)
  const desk = openDesk(third)
  for (const request of [rejected, approved]) {
    t.match((await desk.read(alice, request.id)).json, {
      state: 'failed',
      serial: null,
      end: { code: 'approval.plan' },
    })
    t.match(await desk.approve(alice, request), { status: 409, json: { code: 'approval.closed' } })
  }
  t.match((await desk.eventsOf(rejected.id)).at(-1), { type: 'request.failed' })
  const again = await desk.ask(requester, 'payments', { key: 'rejected' })
  t.match(again, { status: 409 }, 'nor asked for under the same key')
  t.match(await desk.ask(requester, 'payments', { key: 'new' }), { status: 202 })
  await third.close()
  const findings: Finding[] = []
  const wanted = {
    keys: { roll: [], witnesses: [] },
    checkpoints: [],
    tell: (finding: Finding) => findings.push(finding),
  }
  await verifyDatabase(database.servingUrl, { ...wanted, progress: () => {} })
  t.same(findings, [])
})
