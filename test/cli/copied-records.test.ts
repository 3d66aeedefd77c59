/** A copy of the records beside them on one server: it must not issue by the same keys before somebody has said so. */
import { rm } from 'node:fs/promises'

import t from 'tap'

import { runAdoptDatabase } from '../../src/cli/log-succeed.ts'
import { withRecords } from '../../src/cli/with-records.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { readDatabaseId, readStanding } from '../../src/db/log-opening.ts'
import { copyBeside } from '../helpers/backup.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

const records = await openReplica(t)
const anchor = records.config.roll.anchor as string
const before = { database: records.database, config: records.config }
/** As a rival who has the keys and none of the anchors. */
const starts = async (database: typeof before.database): Promise<void> => {
  await rm(anchor, { force: true })
  const service = await openTestService(t, {}, { ...before, database })
  await service.close()
}
const configOf = (database: { readonly ownerUrl: string; readonly servingUrl: string }): Promise<Config> =>
  loadConfig({
    ...bare,
    CHANCERY_DATA: records.config.dataDir,
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_MIGRATION_URL: database.ownerUrl,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
  })
const adoptions = async (config: Config) =>
  withRecords(config, quiet, async ({ db }) => {
    const text = `select body from entries where type = 'database.adopted' order by index`
    return (await db.query<{ body: string }>({ text })).rows.map(({ body }) => JSON.parse(body))
  })
const copyOf = async () => ({ ...(await copyBeside(t, before.database)), close: async () => {} })

t.test('which database of its server the records are in is on record', async (t) => {
  const { db } = records.stores
  t.match(await readDatabaseId(db), /^\d+\/\d+$/)
  t.equal((await readStanding(db)).database, await readDatabaseId(db))
  // What an earlier version wrote.
  const [server] = ((await readDatabaseId(db)) as string).split('/')
  const reason = 'as before'
  await records.stores.roll.change(async () => ({
    events: [{ type: 'database.adopted', database: server as string, before: null, reason, by: 'test' }],
    result: undefined,
  }))
  await db.close()
})

slowTest(
  'records of a version that knew of servers alone are served, and say which they are from then on',
  async (t) => {
    const config = await configOf(before.database)
    t.match(await runAdoptDatabase(config, quiet), /nothing to adopt/)
    await starts(before.database)
    await starts(before.database)
    const [old, ...noted] = await adoptions(config)
    t.match(noted, [{ before: old.database, database: /^\d+\/\d+$/, by: 'chancery', reason: /was not on record/ }])
    t.equal(noted.length, 1, 'once')
  },
)

slowTest('a copy beside them is not served, nor used by a command, before it was adopted', async (t) => {
  const copy = await copyOf()
  const message =
    /^The records were in another database of this server \(oid \d+, and this one has \d+\), of which this is a copy: /
  await t.rejects(starts(copy), { message })
  const config = await configOf(copy)
  await t.rejects(
    withRecords(config, quiet, async () => {}),
    { kind: 'usage', message },
  )
  await starts(before.database)
  await rm(anchor, { force: true })
  t.match(
    await runAdoptDatabase(config, quiet, 'loaded anew after a disk was lost'),
    /^The records are in the database \d+\/\d+ \(server and oid\) from now on, and were in \d+\/\d+\. See that nothing serves that one/,
  )
  await starts(copy)
  t.equal((await adoptions(config)).at(-1).reason, 'loaded anew after a disk was lost')
})
