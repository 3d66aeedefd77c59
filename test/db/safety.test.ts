import { once } from 'node:events'
import { chmod, cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t from 'tap'

import { runMigrate } from '../../src/cli/migrate.ts'
import { unsafe, unwise } from '../../src/cli/preflight.ts'
import { serve } from '../../src/cli/serve.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { openDatabase } from '../../src/db/database.ts'
import { migrate } from '../../src/db/migrate.ts'
import { databaseFaults } from '../../src/db/safety.ts'
import type { Log } from '../../src/log.ts'
import { readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { tamper } from '../helpers/tamper.ts'
import { openTestStores } from './stores.ts'

const production = {
  CHANCERY_MODE: 'production',
  CHANCERY_PUBLIC_URL: 'http://pki.example.com',
  CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
  CHANCERY_KEY_PASSPHRASE: 'a passphrase of this test',
}

const faultsAs = async (t: { teardown(close: () => Promise<void>): void }, url: string): Promise<readonly string[]> => {
  const db = openDatabase({ url, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  return databaseFaults(db)
}

t.setTimeout(300_000)

t.test('the serving role as migrations make it has nothing to answer for', async (t) => {
  const { servingUrl } = await openTestDatabase(t)
  t.same(await faultsAs(t, servingUrl), [])
})

t.test('a role whose commits may be lost is told, though the sessions of a service do not have it so', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const name = (await owner.query('select current_database() as name')).rows[0].name
  await owner.query(`alter database ${name} set synchronous_commit = off`)
  t.same(await faultsAs(t, servingUrl), [
    'PostgreSQL runs with synchronous_commit = off: what it acknowledges can be lost',
  ])
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
  const owner = await openSql(t, ownerUrl)
  await owner.query(`
    grant update on reconciled to chancery; grant truncate on entries to chancery; grant update (id, size) on roll to chancery;
    grant update (tbs) on intents to chancery; grant trigger on outcomes to chancery; grant update (serial) on certificates to chancery`)
  t.same(await faultsAs(t, servingUrl), [
    'the serving role chancery may trigger outcomes',
    'the serving role chancery may truncate entries',
    'the serving role chancery may update certificates (serial)',
    'the serving role chancery may update intents (tbs)',
    'the serving role chancery may update reconciled (id)',
    'the serving role chancery may update roll (id)',
  ])
})

t.test('row level security, which hides records from the role that serves, is told', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  await owner.query('alter table revocations enable row level security; alter table crls enable row level security')
  // Whoever asks the whole table is not under what its parts have.
  await owner.query(
    'alter table refusals_other enable row level security; alter table accesses_other force row level security',
  )
  // Of others in the same schema, whose own it is.
  await tamper({ ownerUrl }, 'create table theirs (id integer)', 'alter table theirs enable row level security')
  t.same(await faultsAs(t, servingUrl), [
    'row level security keeps the serving role chancery from the table crls (alter table crls disable row level security)',
    'row level security keeps the serving role chancery from the table revocations (alter table revocations disable row level security)',
  ])
})

t.test('whoever may create objects anywhere is told, and so is whoever migrates', async (t) => {
  const { superuserUrl } = await openTestServer()
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const superuser = new pg.Client({
    connectionString: superuserUrl.replace('@/postgres?', `@${new URL(servingUrl.replace('@/', '@h/')).pathname}?`),
  })
  await superuser.connect()
  t.teardown(() => superuser.end())
  const name = new URL(servingUrl.replace('@/', '@h/')).pathname.slice(1)
  await superuser.query(`
    grant create on schema public to chancery; create schema "a b" authorization chancery; grant create on database ${name} to chancery`)
  const faults = [
    `the serving role chancery may create objects in the schema "a b"`,
    'the serving role chancery may create objects in the schema public',
    `the serving role chancery may create schemas (revoke create on database ${name} from public, chancery)`,
  ]
  t.same(await faultsAs(t, servingUrl), faults)
  const told: string[] = []
  const log: Log = { ...quiet, warn: (_: object, text?: string) => void told.push(text ?? '') }
  await runMigrate(await loadConfig({ CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: ownerUrl }), log)
  t.same(
    told,
    faults.map((fault) => `${fault}: production does not start so`),
  )
})

t.test('whoever may make temporary tables is told, and migrating takes that right back', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const name = new URL(servingUrl.replace('@/', '@h/')).pathname.slice(1)
  await owner.query(`grant temporary on database ${name} to public, chancery`)
  t.same(await faultsAs(t, servingUrl), [
    `the serving role chancery may make temporary tables (revoke temporary on database ${name} from public, chancery), as in each database that is new: "chancery migrate" takes that back where its role owns the database`,
  ])
  await migrate({ ownerUrl, servingRole: 'chancery', log: quiet })
  t.same(await faultsAs(t, servingUrl), [])
})

slowTest('production refuses a data folder that others may enter, and a root with a key here', async (t) => {
  const { service } = await openTestStores(t)
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query(`insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
    select 'rogue', authority, chain[array_upper(chain, 1)], '{}', 'file:rogue.pem', public_url, 1 from issuers where name = 'default'`)
  await owner.query(`insert into issuer_states (issuer, state) values ('rogue', 'staged')`)
  const data = await mkdtemp(join(tmpdir(), 'chancery-production-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const config = await loadConfig({
    ...production,
    CHANCERY_ALLOW_UNSEEN_ROLL: 'yes',
    CHANCERY_DATA: data,
    CHANCERY_DATABASE_URL: service.database.servingUrl,
  })
  await chmod(data, 0o750)
  await t.rejects(serve(config, quiet), {
    message: /others may enter the data folder .*\n.*the issuer rogue is a root/,
  })
  await chmod(data, 0o700)
  await t.rejects(serve(config, quiet), {
    message: /^Production does not start:\n {2}- the issuer rogue is a root, .*$/,
  })
})

slowTest('production refuses keys in files without an explicit yes, whatever modules are named', async (t) => {
  const { service } = await openTestStores(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-production-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const settings = {
    ...production,
    CHANCERY_DATA: data,
    CHANCERY_DATABASE_URL: service.database.servingUrl,
    CHANCERY_PKCS11_MODULE: '/usr/lib/softhsm/libsofthsm2.so',
  }
  const { CHANCERY_ALLOW_SOFTWARE_KEYS: _, ...unsaid } = settings
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const inFiles = async (env: Readonly<Record<string, string>>): Promise<readonly string[]> =>
    (await unsafe(await loadConfig(env), db)).filter((fault) => fault.includes('is in a file'))
  t.equal((await inFiles(unsaid)).length, 4)
  t.match(await inFiles(unsaid), [
    /^the key of the issuer \S+ is in a file \(file:keys\/\S+\.pem\): bring .* set CHANCERY_ALLOW_SOFTWARE_KEYS=yes$/,
  ])
  t.same(await inFiles(settings), [])
  await service.request('POST', '/v1/issuers/etcd/moves', { body: { move: 'halt', reason: 'a test' } })
  t.equal((await inFiles(unsaid)).length, 4, 'one that was halted signs lists on')
  await t.rejects(serve(await loadConfig(unsaid), quiet), /is in a file/)
})

t.test('development keeps up the partitions of refusals when it starts', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  await owner.query(`insert into refusals (id, at, principal, code, digest, detail, violations)
    select gen_random_uuid(), now() - interval '2 years', 'noisy', 'csr.pem', '', '', '[]'`)
  const data = await mkdtemp(join(tmpdir(), 'chancery-daily-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const config = await loadConfig({
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_DATABASE_URL: servingUrl,
    CHANCERY_MIGRATION_URL: ownerUrl,
  })
  const { close } = await serve(config, quiet)
  const { rows } = await owner.query<{ n: number }>('select count(*)::integer as n from refusals')
  t.equal(rows[0]?.n, 0, 'what is past retention went')
  await close()
})

t.test('production refuses a root key within reach, and an unsafe database, in one message', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-production-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  await mkdir(join(data, 'offline-root'))
  const config = await loadConfig({
    ...production,
    CHANCERY_DATA: data,
    CHANCERY_DATABASE_URL: ownerUrl,
  })
  await t.rejects(
    serve(config, quiet),
    /Production does not start:[\s\S]*root's key is within reach[\s\S]*owns the table/,
  )
})

t.test('production refuses issuers that write this machine into every certificate', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-loopback-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const place = { CHANCERY_DATA: data, CHANCERY_DATABASE_URL: servingUrl, CHANCERY_LISTEN: '127.0.0.1:0' }
  const development = await loadConfig({
    ...place,
    CHANCERY_MIGRATION_URL: ownerUrl,
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://localhost:8080',
  })
  await (await serve(development, quiet)).close()
  const config = await loadConfig({ ...production, ...place })
  await t.rejects(serve(config, quiet), /the issuer default writes http:\/\/localhost:8080 into every certificate/)
})

t.test('production takes a database that it has not seen on somebody’s word only, and needs it once', async (t) => {
  const { servingUrl } = await openTestDatabase(t)
  const folders = await Promise.all([0, 1].map(() => mkdtemp(join(tmpdir(), 'chancery-unseen-'))))
  t.teardown(() => Promise.all(folders.map((data) => rm(data, { recursive: true, force: true }))))
  const settingsIn = (data = '', env = {}) =>
    loadConfig({
      ...production,
      CHANCERY_DATA: data,
      CHANCERY_DATABASE_URL: servingUrl,
      CHANCERY_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
      ...env,
    })
  const start = async (data?: string, env = {}): Promise<void> =>
    (await serve(await settingsIn(data, env), quiet)).close()
  const [first, second] = folders
  await start(first)
  await start(first)
  // Every replica has the key of the roll.
  await cp(first ?? '', second ?? '', { recursive: true })
  await rm(join(second ?? '', 'roll', 'anchor'))
  await t.rejects(start(second), { kind: 'usage', message: /no checkpoint of the roll localhost\/roll was kept here/ })
  await start(second, { CHANCERY_ALLOW_UNSEEN_ROLL: 'yes' })
  t.same((await readAnchorFile((await settingsIn(second)).roll.anchor as string))?.origin, 'localhost/roll')
  await start(second)
  await rm(join(first ?? '', 'roll', 'anchor'))
  await t.rejects(start(first), /no checkpoint of the roll/, 'nor where it was lost')
})

slowTest('a port that is taken is told by its setting', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-port-'))
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(async () => {
    taken.close()
    await rm(data, { recursive: true, force: true })
  })
  const config = await loadConfig({
    CHANCERY_DATA: data,
    CHANCERY_DATABASE_URL: servingUrl,
    CHANCERY_MIGRATION_URL: ownerUrl,
    CHANCERY_LISTEN: `127.0.0.1:${(taken.address() as { port: number }).port}`,
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://pki.test',
  })
  await t.rejects(serve(config, quiet), /Another process listens on 127\.0\.0\.1:\d+: change CHANCERY_LISTEN/)
})

slowTest('an anchor that cannot be written, or is none, and an issuer that has expired are told', async (t) => {
  const { service, stores } = await openTestStores(t)
  const { config } = service
  const withAnchor = (anchor?: string): Config => {
    const { anchor: _, ...roll } = config.roll
    return { ...config, roll: { ...roll, allowUnseen: true, ...(anchor !== undefined && { anchor }) } }
  }
  const refused = async (anchor?: string): Promise<string> => (await unsafe(withAnchor(anchor), stores.db)).join('\n')
  t.notMatch(await refused(config.roll.anchor), /cannot be written/)
  t.notMatch(await refused(join(config.dataDir, 'new')), /cannot be written/, 'one that is not there yet is made')
  // Root may write every file; below a file there is none.
  const nowhere = join(config.dataDir, 'root.pem', 'anchor')
  t.ok(
    (await refused(nowhere)).includes(`the anchor ${nowhere} cannot be written (ENOTDIR): let it be, or name another`),
  )

  const keys = { open: () => Promise.reject(new Error('away')) }
  const told = async (now: Date, anchor?: string): Promise<string> =>
    (await unwise(withAnchor(anchor), stores.db, keys, now)).join('\n')
  t.match(await told(new Date()), /^CHANCERY_ROLL_ANCHOR is none, so that only a witness tells /m)
  t.notMatch(await told(new Date(), config.roll.anchor), /is none|expire/)
  t.match(
    await told(new Date('2200-01-01T00:00:00Z')),
    /^the issuer default expired at 2\d{3}-\S+, and its authority issues nothing: bring and activate another one, or halt it$/m,
  )
})
