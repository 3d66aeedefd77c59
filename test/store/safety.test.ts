import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t from 'tap'

import { serve } from '../../src/commands/serve.ts'
import { loadConfig } from '../../src/config.ts'
import { openDatabase } from '../../src/store/database.ts'
import { databaseFaults } from '../../src/store/safety.ts'
import { openTestDatabase } from '../helpers/database.ts'

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

const faultsAs = async (t: { teardown(close: () => Promise<void>): void }, url: string): Promise<readonly string[]> => {
  const db = openDatabase({ url, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  return databaseFaults(db)
}

t.test('the serving role as migrations make it has nothing to answer for', async (t) => {
  const { servingUrl } = await openTestDatabase(t)
  t.same(await faultsAs(t, servingUrl), [])
})

t.test('a role that owns the tables is told of each of them', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const faults = await faultsAs(t, ownerUrl)
  for (const table of ['intents', 'outcomes', 'entries', 'roll'])
    t.ok(
      faults.some((fault) => fault.includes(`owns the table ${table}`)),
      table,
    )
})

t.test('a right too many is told', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = new pg.Client({ connectionString: ownerUrl })
  await owner.connect()
  t.teardown(() => owner.end())
  await owner.query('grant update on intents to chancery; grant truncate on entries to chancery')
  t.same(await faultsAs(t, servingUrl), [
    'the serving role chancery may truncate entries',
    'the serving role chancery may update intents',
  ])
})

t.test('production refuses a root key within reach, and an unsafe database, in one message', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-production-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  await mkdir(join(data, 'offline-root'))
  const config = await loadConfig({
    CHANCERY_MODE: 'production',
    CHANCERY_DATA: data,
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    CHANCERY_DATABASE_URL: ownerUrl,
    CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
    CHANCERY_KEY_PASSPHRASE: 'a passphrase of this test',
  })
  await t.rejects(
    serve(config, quiet),
    /Production does not start:[\s\S]*root's key is within reach[\s\S]*owns the table/,
  )
})
