/** Records that are not those of before: what `chancery serve` says through the very command, and how it ends. */
import { readFile, rm, writeFile } from 'node:fs/promises'

import t, { type Test } from 'tap'

import { serve } from '../../src/cli/serve.ts'
import { withRecords } from '../../src/cli/with-records.ts'
import { loadConfig } from '../../src/config/config.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import type { Checkpoint } from '../../src/tlog/checkpoint.ts'
import { openTestDatabase, type TestDatabase } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { freePort } from '../helpers/port.ts'
import { openReplica } from '../helpers/replica.ts'
import { runChancery } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { setBackTo, tamper } from '../helpers/tamper.ts'

const origin = 'localhost/roll'

/** Records with a few entries. */
const records = await openReplica(t)
const anchor = records.config.roll.anchor as string
/** Makes the anchor one that has seen all of them, or something else. */
const keep = async (checkpoint: Partial<Checkpoint> = {}): Promise<void> => {
  await rm(anchor, { force: true })
  const file = await openAnchorFile({ path: anchor })
  await file.write({ origin, ...(await records.stores.roll.head()), ...checkpoint })
  await file.close()
}

interface Change {
  readonly env?: Readonly<Record<string, string>>
  readonly on?: TestDatabase
}

/** What the service and the commands beside it are started with. */
const settingsOf = async ({ env = {}, on = records.database }: Change = {}) => {
  const [port, publicPort] = [await freePort(), await freePort()]
  return {
    CHANCERY_DATA: records.config.dataDir,
    CHANCERY_DATABASE_URL: on.servingUrl,
    CHANCERY_MIGRATION_URL: on.ownerUrl,
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_LOG_LEVEL: 'error',
    ...env,
  }
}

/** By the very command: it ends by itself, because it cannot serve. */
const run = async (verb: string) => runChancery([verb], { env: { ...bare, ...(await settingsOf()) }, timeout: 25_000 })

const refuses = async (t: Test, message: RegExp, change?: Change) => {
  const { db } = records.stores
  const before = (await db.query({ text: 'select * from roll' })).rows
  const config = await loadConfig(await settingsOf(change))
  await t.rejects(serve(config, quiet), { kind: 'usage', message })
  await t.rejects(
    withRecords(config, quiet, async () => {}),
    { kind: 'usage', message },
    'nor used by a command',
  )
  t.same((await db.query({ text: 'select * from roll' })).rows, before, 'nothing was written')
}

slowTest('development does not put a hierarchy of its own into the records of a production', async (t) => {
  const { db, roll } = records.stores
  const started = (mode: string) =>
    roll.change(async () => ({ events: [{ type: 'service.started', version: '0.1.0', mode }], result: undefined }))
  await started('development')
  await started('production')
  await keep()
  const before = (await db.query({ text: 'select * from roll' })).rows
  // One that is missing is not applied either: who runs the production decides when.
  const owner = await openSql(t, records.database.ownerUrl)
  const newest =
    'delete from schema_migrations where version = (select max(version) from schema_migrations) returning *'
  const { version, name, sha256 } = (await owner.query(newest)).rows[0]
  const { code, out, err } = await run('serve')
  await owner.query('insert into schema_migrations values ($1, $2, $3)', [version, name, sha256])
  t.same({ code, out }, { code: exitCodes.usage, out: '' })
  t.match(err, /^These records are those of a production, .+ Set CHANCERY_MODE=production, or another .+\.\n$/)
  t.same((await db.query({ text: 'select * from roll' })).rows, before, 'nothing was written')
  const told =
    /^ {2}- CHANCERY_MODE is not production, and these records are those of one: nothing starts on them so\.$/m
  t.match((await run('doctor')).out, told, 'and the doctor says so')
  await started('development')
  await keep()
  t.notMatch((await run('doctor')).out, told)
})

t.test('a database that is behind the anchor is not served, and what is missing is named', async (t) => {
  const { size } = await records.stores.roll.head()
  await keep({ size: size + 5, root: Buffer.alloc(32) })
  await refuses(
    t,
    new RegExp(
      `^The database's roll ends at ${size}, but ${size + 5} entries were seen before: entries ${size} to ${size + 4} are missing\\. Restore the database to its newest state`,
    ),
  )
})

t.test('a database whose roll is another one than was seen is not served', async (t) => {
  await keep({ root: Buffer.alloc(32, 1) })
  await refuses(t, /^The database's roll of \d+ entries does not go on from the \d+ that were seen before\./)
  await keep({ origin: 'elsewhere.example/roll' })
  await refuses(t, /^The database holds the roll localhost\/roll, but .*anchor is of the roll elsewhere\.example/)
  await keep()
  await refuses(t, /^The roll on record is called localhost\/roll, and keeps its name/, {
    env: { CHANCERY_ROLL_ORIGIN: 'other.example/roll' },
  })
})

t.test('a new database is not served where the anchor has seen a roll', async (t) => {
  const on = await openTestDatabase(t)
  await refuses(t, /^The database holds no roll, but .*anchor has seen \d+ entries of the roll localhost\/roll/, {
    on,
  })
})

t.test('records that were moved to another server are not served before that was said', async (t) => {
  await records.stores.roll.change(async () => ({
    events: [{ type: 'database.adopted', database: '7000000000000000001', before: null, reason: null, by: 'test' }],
    result: undefined,
  }))
  await refuses(
    t,
    /^The records were on the database server 7000000000000000001, and this is \d+: "chancery roll adopt-database"/,
  )
})

t.test('a damaged anchor is told, and not made anew', async (t) => {
  await writeFile(anchor, 'x'.repeat(1_024))
  await refuses(t, /^.*anchor is damaged: it holds no whole checkpoint/)
  t.equal(await readFile(anchor, 'utf8'), 'x'.repeat(1_024))
})

// The last: the stores of this test have seen more than there is from then on.
t.test('one that was set back is told by the very command, in one sentence and by its exit code', async (t) => {
  await keep()
  const { size } = await records.stores.roll.head()
  await tamper(records.database, ...(await setBackTo(records.stores.db, size - 1)))
  await refuses(t, new RegExp(`entry ${size - 1} is missing`))
  for (const verb of ['serve', 'doctor']) {
    const { code, out, err } = await run(verb)
    t.match(err, /^The database's roll ends at .* is missing\. Restore the database .*\n$/)
    t.same({ code, out, lines: err.split('\n').length }, { code: exitCodes.usage, out: '', lines: 2 })
  }
})
