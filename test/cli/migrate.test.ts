/** `chancery migrate` where it cannot: what it says to whoever upgrades, and how it ends for the script that does. */
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { explainDatabase } from '../../src/cli/database-fault.ts'
import { maintain, runMigrate } from '../../src/cli/migrate.ts'
import { explainMigration } from '../../src/cli/migration-fault.ts'
import { serve } from '../../src/cli/serve.ts'
import { explainStart } from '../../src/cli/start-fault.ts'
import { withDatabase, withRecords } from '../../src/cli/with-records.ts'
import { loadConfig, placeOf } from '../../src/config/config.ts'
import { openTestDatabase, type TestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { tamper } from '../helpers/tamper.ts'

const run = async ({ servingUrl, ownerUrl }: TestDatabase, env: Readonly<Record<string, string>> = {}) => {
  const urls = { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: ownerUrl }
  return runMigrate(await loadConfig({ ...urls, ...env }, 'migrate'), quiet)
}

const urlWith = (url: string, change: (url: URL) => void): string => {
  const changed = new URL(url.replace('@/', '@localhost/'))
  change(changed)
  return changed.href.replace('@localhost/', '@/')
}

t.test('what a trigger of somebody else refuses is told as that', async (t) => {
  const database = await openTestDatabase(t)
  await tamper(
    database,
    `create function no() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL today'; end $$`,
    'create event trigger no on ddl_command_start execute function no()',
  )
  await t.rejects(run(database), {
    kind: 'usage',
    message: /^no DDL today; a trigger that somebody has put into the database refuses it \(pg_event_trigger\): /,
  })
})

t.test('files that the server finds damaged are told as that, and are no defect of ours', async (t) => {
  const database = await openTestDatabase(t)
  await tamper(
    database,
    `update pg_class set relfilenode = pg_relation_filenode('profiles') where relname = 'profiles_pkey'`,
  )
  const config = await loadConfig({ CHANCERY_DATABASE_URL: database.servingUrl })
  const text = `select from profiles where name = 'server' and version = 1`
  await t.rejects(
    withDatabase(config, quiet, (db) => db.query({ text })),
    {
      kind: 'later',
      message: /^The database does not do what is asked of it: .+\. Its files are damaged: an index is made again by /,
      cause: { code: 'db.unavailable', detail: /^The database finds files of its own damaged, as its log says: / },
    },
  )
  const damage = (index: string) =>
    tamper(database, `update pg_class set relfilenode = pg_relation_filenode('profiles') where relname = '${index}'`)
  const told = { kind: 'later', message: /; its files are damaged: an index is made again by "reindex", / }
  await damage('accesses_other_pkey')
  await t.rejects(run(database), told)
  await damage('schema_migrations_pkey')
  await t.rejects(run(database), told)
  const { database: name } = placeOf(database.ownerUrl)
  await tamper(database, `alter database ${name} set session_preload_libraries = 'nope'`)
  await t.rejects(run(database), {
    kind: 'later',
    message:
      /: the server lacks a file that it needs \(.+"nope".+\); see its log, or set another in CHANCERY_MIGRATION_URL\.$/,
  })
})

slowTest('what is held by others is for later, and a database that only reads is named as that', async (t) => {
  const database = await openTestDatabase(t)
  const owner = await openSql(t, database.ownerUrl)
  await owner.query('begin')
  await owner.query('lock table refusals in access exclusive mode')
  await t.rejects(run(database), {
    kind: 'later',
    message:
      'Nothing was kept up: canceling statement due to lock timeout; something else had what it needs (pg_stat_activity says what): nothing of this step remains, and "chancery migrate" goes on where it ended.',
  })
  await owner.query('rollback')
  const { rows } = await owner.query('select current_database() as name')
  await owner.query(`alter database ${rows[0].name} set default_transaction_read_only = on`)
  await t.rejects(run(database), {
    kind: 'later',
    message: /in a read-only transaction; the server, or this role there .+ in CHANCERY_MIGRATION_URL\.$/,
  })
})

t.test(
  'a role without the rights, one that serves and is not there, and a search path that leads nowhere',
  async (t) => {
    const database = await openTestDatabase(t, { empty: true })
    await t.rejects(run({ ...database, ownerUrl: database.servingUrl }), {
      kind: 'usage',
      message:
        /; the role "chancery" does not own the tables: name their owner in CHANCERY_DATABASE_URL, or let .+ \("alter database … owner to" where it is new,/,
    })
    const ghost = urlWith(database.servingUrl, (url) => {
      url.username = 'ghost'
    })
    await t.rejects(run({ ...database, servingUrl: ghost }), {
      kind: 'usage',
      message:
        'role "ghost" does not exist; create it, or name another as the one that serves in CHANCERY_DATABASE_URL.',
    })
    const lost = await openTestDatabase(t, { empty: true })
    const owner = await openSql(t, lost.ownerUrl)
    const { rows } = await owner.query('select current_database() as name')
    await owner.query(`alter database ${rows[0].name} set search_path = nowhere`)
    await t.rejects(run(lost), {
      kind: 'usage',
      message: /; the search_path of the role in CHANCERY_MIGRATION_URL names no schema that is there\.$/,
    })
  },
)

/** As PostgreSQL 17 says it where its machine speaks Turkish. PgBouncer passes that of a connection on without the routine. */
const turkish = (code: string, routine: string | undefined, message: string): pg.DatabaseError =>
  Object.assign(new pg.DatabaseError(message, 0, 'error'), { code, routine })

t.test('what is wrong is told whatever language the server speaks', async (t) => {
  const setting = { name: 'CHANCERY_MIGRATION_URL', url: 'postgresql://owner@h/chancery' } as const
  for (const [error, message] of [
    [
      turkish('42704', 'get_role_oid', '"ghost" rolü mevcut değil'),
      /mevcut değil; create it, or name another as the one/,
    ],
    [
      turkish('42501', 'aclcheck_error', 'public şemasına erişim engellendi'),
      /; the role "owner" does not own the tables/,
    ],
    [
      turkish('42501', 'check_enable_rls', 'sorgu satır güvenliğinden etkilenecek'),
      /etkilenecek; row level security keeps even the owner from that table: end it there /,
    ],
  ] as const)
    t.throws(() => explainMigration(setting)(error), { kind: 'usage', message }, error.message)
  const refused = turkish('XX001', 'exec_stmt_raise', 'what was stored is not what was signed')
  t.throws(() => explainMigration(setting)(refused), refused, 'by a guard of ours: no file is damaged')
  const spent = turkish('54000', 'GetNewTransactionId', 'işlem numarası kalmadı')
  t.throws(() => explainMigration(setting)(spent), {
    kind: 'later',
    message: /kalmadı; give the server what it lacks: /,
  })
  const toTables = /the role "owner" has no rights to its tables, as after a restore without them/
  const toConnect = /the role "owner" may not connect to it \(.+\); grant it that \("grant connect on database"\)/
  for (const [code, routine, words, kind, message] of [
    ['42501', 'aclcheck_error', 'schema_migrations tablosuna erişim engellendi', 'usage', toTables],
    ['42501', 'CheckMyDatabase', '"chancery" veritabanına erişim engellendi', 'usage', toConnect],
    ['42501', undefined, '"chancery" veritabanına erişim engellendi', 'usage', toConnect],
    ['55000', 'CheckMyDatabase', '"chancery" veritabanı şu anda bağlatı kabul etmiyor', 'later', /it takes no conn/],
    [
      '55000',
      undefined,
      '"chancery" veritabanı şu anda bağlatı kabul etmiyor',
      'later',
      /it takes no connections \(.+let/,
    ],
    [
      '28000',
      'InitializeSessionUserId',
      '"owner" rolü mevcut değil',
      'usage',
      /no role "owner" that may log in \("owner" r/,
    ],
    [
      '28000',
      undefined,
      '"owner" rolü mevcut değil',
      'usage',
      /let in the role "owner" from here \(.+\); let it log in/,
    ],
  ] as const) {
    const error = turkish(code, routine, words)
    t.throws(() => explainDatabase(setting)(error), { kind, message }, `${routine}: ${words}`)
    if (routine !== 'aclcheck_error')
      t.throws(() => explainMigration(setting)(error), error, 'who knows where the server is tells of it')
  }
})

t.test('rights that a restore has left out are named, and given back', async (t) => {
  const database = await openTestDatabase(t)
  const owner = await openSql(t, database.ownerUrl)
  await owner.query('revoke all on schema_migrations from chancery')
  const config = await loadConfig({ CHANCERY_DATABASE_URL: database.servingUrl })
  await t.rejects(
    withDatabase(config, quiet, async () => {}),
    {
      kind: 'usage',
      message:
        /: the role "chancery" has no rights to its tables, .+; let "chancery migrate" of their owner grant them/,
    },
  )
  await run(database)
  await t.resolves(withDatabase(config, quiet, async () => {}))
})

slowTest(
  'a database that is kept by somebody else is for later, to a start and to the commands beside it',
  async (t) => {
    const database = await openTestDatabase(t)
    const owner = await openSql(t, database.ownerUrl)
    const data = { CHANCERY_DATA: await mkdtemp(join(tmpdir(), 'chancery-kept-')) }
    t.teardown(() => rm(data.CHANCERY_DATA, { recursive: true }))
    const config = await loadConfig({ ...data, CHANCERY_DATABASE_URL: database.servingUrl })
    await owner.query('begin')
    await owner.query('lock table entries in access exclusive mode')
    const kept = {
      kind: 'later',
      message:
        'The database does not do what is asked of it: canceling statement due to lock timeout. See what keeps it (pg_stat_activity, its log), and run the same command again.',
    }
    await Promise.all([
      t.rejects(serve(config, quiet).catch(explainStart(config)), kept),
      t.rejects(
        withRecords(config, quiet, async () => {}),
        kept,
      ),
    ])
  },
)

t.test('a start on a standby is told which server to name', async (t) => {
  const database = await openTestDatabase(t)
  const data = { CHANCERY_DATA: await mkdtemp(join(tmpdir(), 'chancery-standby-')) }
  t.teardown(() => rm(data.CHANCERY_DATA, { recursive: true }))
  const config = await loadConfig({
    ...data,
    CHANCERY_DATABASE_URL: `${database.servingUrl}&options=-c%20default_transaction_read_only=on`,
  })
  await t.rejects(serve(config, quiet).catch(explainStart(config)), {
    kind: 'later',
    message:
      /in a read-only transaction\. The server, or this role there .+, only reads: name the one that takes writes in CHANCERY_DATABASE_URL\.$/,
  })
})

t.test('one that is ended while it waits for its turn, or stood still in it, is for later', async (t) => {
  const database = await openTestDatabase(t)
  const owner = await openSql(t, database.ownerUrl)
  await owner.query('select pg_advisory_lock($1)', [0x6d696772])
  for (const [end, reason] of [
    [
      'pg_cancel_backend',
      'canceling statement due to user request; somebody has cancelled it, or a statement_timeout was over, as one of this role',
    ],
    ['pg_terminate_backend', 'terminating connection due to administrator command; the server has ended it'],
  ]) {
    const waiting = `select ${end}(pid) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`
    const ended = run(database).catch((error: unknown) => error)
    while ((await owner.query(waiting)).rows.length === 0) await sleep(20)
    t.match(await ended, { kind: 'later', message: new RegExp(`^${reason}.*: nothing of this step remains`) })
  }
  const still = await openSql(t, database.ownerUrl)
  const gone = new Promise((resolve) => still.once('end', resolve))
  still.on('error', () => {})
  await still.query('begin')
  await still.query(`set local idle_in_transaction_session_timeout = '100ms'`)
  await gone
  const setting = { name: 'CHANCERY_MIGRATION_URL', url: database.ownerUrl } as const
  await t.rejects(still.query('select 1').catch(explainMigration(setting)), {
    kind: 'later',
    message: /; the server has ended it: /,
  })
})

t.test('behind a pooler nothing is asked for at the start of a connection, or the setting is named', async (t) => {
  const database = await openTestDatabase(t)
  const port = await openPooler(t, placeOf(database.ownerUrl).address)
  const through = urlWith(database.ownerUrl, (url) => {
    url.searchParams.set('host', '127.0.0.1')
    url.searchParams.set('port', String(port))
  })
  const pooled = { ...database, ownerUrl: through }
  await t.rejects(run(pooled), {
    kind: 'usage',
    message:
      /: a pooler stands there, .+; set CHANCERY_DATABASE_PREPARED_STATEMENTS=no .+ in CHANCERY_MIGRATION_URL\.$/,
  })
  await t.resolves(run(pooled, { CHANCERY_DATABASE_PREPARED_STATEMENTS: 'no' }))
})

t.test('what a pooler says of itself, of a password and of a database is told as that', async (t) => {
  const url = 'postgresql://chancery:secret@pooler.test/records'
  const explain = explainDatabase({ name: 'CHANCERY_DATABASE_URL', url })
  for (const [said, kind, told] of [
    ['password authentication failed', 'usage', /the server does not accept the password of the role "chancery"/],
    ['SASL authentication failed', 'usage', /the server does not accept the password of the role "chancery"/],
    ['no such database: records', 'usage', /the server has no such database/],
    ['transaction blocks not allowed in statement pooling mode', 'usage', /for a single statement \(.+\(pool_mode\)/],
    ['query_wait_timeout', 'later', /turns us down \(query_wait_timeout\); see its log and the server behind it/],
    ['no more connections allowed (max_client_conn)', 'later', /turns us down \(no more connections allowed/],
  ] as const) {
    const error = Object.assign(new pg.DatabaseError(said, 1, 'error'), { code: '08P01' })
    t.throws(() => explain(error), { kind, message: told }, said)
  }
})

t.test('a URL without a role is that of the role that pg takes, where there is one', async (t) => {
  const before = { ...process.env }
  t.teardown(() => {
    for (const name of ['PGUSER', 'USER']) {
      if (before[name] === undefined) delete process.env[name]
      else process.env[name] = before[name]
    }
  })
  process.env['PGUSER'] = 'ghost'
  const database = await openTestDatabase(t)
  const nobody = { ...database, servingUrl: 'postgresql:///records?host=/nowhere' }
  await t.rejects(run(nobody), { message: /^role "ghost" does not exist; / })
  delete process.env['PGUSER']
  delete process.env['USER']
  await t.rejects(run(nobody), { kind: 'usage', message: /^CHANCERY_DATABASE_URL names no role, / })
})

/** As PgBouncer: start-up settings end the connection (https://www.pgbouncer.org/config.html, ignore_startup_parameters). */
const openPooler = async (t: Test, path: string): Promise<number> => {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (start) => {
      if (start.includes('statement_timeout')) return void socket.end(refusal)
      const behind = connect(path)
      behind.on('error', () => socket.destroy())
      behind.write(start)
      socket.pipe(behind).pipe(socket)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return (server.address() as { readonly port: number }).port
}

const fields = Buffer.from('SFATAL\0C08P01\0Munsupported startup parameter: statement_timeout\0\0')
const length = Buffer.alloc(4)
length.writeUInt32BE(fields.length + 4)
const refusal = Buffer.concat([Buffer.from('E'), length, fields])

t.test(
  'a database whose clock is far ahead of ours drops nothing, for what is old there may be of today',
  async (t) => {
    const database = await openTestDatabase(t)
    const owner = await openSql(t, database.ownerUrl)
    await owner.query(`insert into refusals (id, at, principal, code, digest, detail, violations)
    select gen_random_uuid(), now() - interval '9 months', 'ci', 'csr.pem', '', '', '[]'`)
    await owner.query(`insert into accesses (id, at, principal, act, records, filter, continues, format, size, rows)
    select gen_random_uuid(), now() - interval '30 months', 'ann', 'searched', 'refusals', '{}', false, 'json', 1, 0`)
    await owner.query(`insert into spent_tokens (issuer, id_sha256, until)
    select 'https://issuer.example.com', sha256('1'), now() - interval '2 hours'`)
    const kept = async () => {
      const { rows } = await owner.query(`select (select count(*) from refusals)::integer as refusals,
      (select count(*) from accesses)::integer as accesses, (select count(*) from spent_tokens)::integer as spent,
      (select count(*) from refusals_other)::integer as homeless`)
      return rows[0]
    }
    const config = await loadConfig({ CHANCERY_DATABASE_URL: database.ownerUrl }, 'migrate')
    const at = (aheadMs: number) => () => new Date(Date.now() - aheadMs)
    await t.rejects(maintain(database.ownerUrl, config, quiet, at(300 * 86_400_000)), {
      kind: 'later',
      message: /^The database's clock is 432000 minutes ahead of ours, so nothing .+ was dropped: set right .+ goes on/,
    })
    t.same(await kept(), { refusals: 1, accesses: 1, spent: 1, homeless: 0 }, 'but each row has its month')
    await maintain(database.ownerUrl, config, quiet, at(3_000_000))
    t.same(await kept(), { refusals: 0, accesses: 0, spent: 0, homeless: 0 })
  },
)
