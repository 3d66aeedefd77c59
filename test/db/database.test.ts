import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { loadConfig, placeOf } from '../../src/config/config.ts'
import { renewedUrl } from '../../src/config/postgres-url.ts'
import { type Database, openDatabase, type Statement } from '../../src/db/database.ts'
import { constraintOf, isConnectionLoss, sqlState } from '../../src/db/errors.ts'
import { assertMigrated, migrate } from '../../src/db/migrate.ts'
import { unreachedDetail } from '../../src/db/shortages.ts'
import { parseInstant } from '../../src/db/types.ts'
import { isProblem } from '../../src/errors.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { quiet as log } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'

const { ownerUrl } = await openTestDatabase(t, { empty: true })

const open = (test: Test, options: Partial<Parameters<typeof openDatabase>[0]> = {}): Database => {
  const db = openDatabase({ url: ownerUrl, max: 4, log, applicationName: 'chancery test', ...options })
  test.teardown(() => db.close())
  return db
}

const ownPools = ['issuing'] as const

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

const admin = new pg.Client({ connectionString: ownerUrl })
await admin.connect()
await admin.query('create table things (n int constraint things_n primary key, note text)')
t.teardown(() => admin.end())

t.test('a statement gives rows with numbers, dates and octets', async (t) => {
  const db = open(t)
  const { rows, rowCount } = await db.query(
    { text: 'select $1::int8 as big, $2::timestamptz as at, $3::bytea as octets' },
    [2 ** 53 - 1, new Date(1234), Buffer.from('00ff', 'hex')],
  )
  t.equal(rowCount, 1)
  t.strictSame(rows, [{ big: 2 ** 53 - 1, at: new Date(1234), octets: Buffer.from('00ff', 'hex') }])
  await t.rejects(db.query({ text: 'select 9007199254740993::int8' }), { message: /int8 beyond 2\^53/ })
})

slowTest('issuing has plans for any values, on connections of its own, within the bound of all', async (t) => {
  const settings = (pool: Statement['pool']): Statement => ({
    text: `select current_setting('plan_cache_mode') as plans, current_setting('enable_seqscan') as seqscan,
      pg_backend_pid() as pid, pg_sleep(0.1)::text as slept`,
    ...(pool && { pool }),
  })
  interface Settings {
    readonly plans: string
    readonly seqscan: string
    readonly pid: number
  }
  const ask = async (db: Database, times: number, pool?: Statement['pool']): Promise<readonly Settings[]> => {
    const asking = Array.from({ length: times }, () => db.query<Settings>(settings(pool)))
    return (await Promise.all(asking)).flatMap(({ rows }) => rows)
  }
  const plansOf = (rows: readonly Settings[]): readonly string[] => [...new Set(rows.map(({ plans }) => plans))]
  const pids = (rows: readonly Settings[]): number => new Set(rows.map(({ pid }) => pid)).size
  const eight = open(t, { max: 8 })
  const all = await Promise.all([ask(eight, 12, 'issuing'), ask(eight, 12)])
  t.strictSame(all.map(plansOf), [['force_generic_plan'], ['auto']])
  t.ok(all.flat().every(({ seqscan }) => seqscan === 'off'))
  t.strictSame([...all.map(pids), pids(all.flat())], [2, 6, 8])
  t.strictSame(eight.load, { total: 8, idle: 8, waiting: 0 })
  const waiting = [ask(eight, 4, 'issuing'), ask(eight, 9)]
  await sleep(10)
  t.equal(eight.load.waiting, 5, 'two of four, and three of nine')
  await Promise.all(waiting)
  t.strictSame(plansOf(await ask(open(t, { max: 7 }), 4, 'issuing')), ['auto'], 'there is none to spare for issuing')
  t.strictSame(pids(await ask(open(t, { max: 20 }), 12, 'issuing')), 4, 'more are never under way')
  const pooled = await ask(open(t, { preparedStatements: false }), 4, 'issuing')
  t.strictSame(plansOf(pooled), ['auto'], 'behind a pooler')
  const inTransaction = await eight.transaction((tx) => tx.query<Settings>(settings('issuing')))
  t.strictSame(plansOf(inTransaction.rows), ['auto'], 'a transaction has one connection')
})

t.test('where the server has no connection left for issuing, that goes by those of all else', async (t) => {
  const superuser = new pg.Client({ connectionString: (await openTestServer()).superuserUrl })
  await superuser.connect()
  const role = `scarce_${process.pid}_${Date.now()}`
  await superuser.query(`create role ${role} login password 'scarce' connection limit 1`)
  const url = ownerUrl.replace(/\/\/[^@]*@/, `//${role}:scarce@`)
  const told: unknown[] = []
  const telling = { ...log, warn: (line: unknown) => void told.push(line) } as unknown as typeof log
  const db = openDatabase({ url, max: 8, log: telling, applicationName: 'scarce' })
  t.teardown(async () => {
    await db.close()
    await superuser.query(`drop role ${role}`)
    await superuser.end()
  })
  const asked = { text: 'select pg_backend_pid() as pid' }
  const first = await db.query(asked)
  for (let i = 0; i < 2; i += 1) t.strictSame((await db.query({ ...asked, pool: 'issuing' })).rows, first.rows)
  t.match(told, [{ event: 'database.short', err: { message: /too many connections/ } }])
  t.equal(told.length, 1, 'once a minute, for it is so with every statement')
  const turnedDown = await db.transaction(() => failure(db.query(asked)))
  t.match(
    turnedDown,
    { code: 'db.unavailable', detail: /^The database has no connection left: .* the connection limit of the role/ },
    'which is not that of the server',
  )
})

t.test('closing closes the connections of all', async (t) => {
  const eight = openDatabase({ url: ownerUrl, max: 8, log, applicationName: 'of eight' })
  const text = 'select 1'
  await Promise.all([eight.query({ text }), ...ownPools.map((pool) => eight.query({ text, pool }))])
  const open = async (): Promise<number> => {
    const { rows } = await admin.query(`select from pg_stat_activity where application_name = 'of eight'`)
    return rows.length
  }
  t.equal(await open(), 2)
  await eight.close()
  // The server sees a moment later that somebody has gone.
  for (let i = 0; i < 50 && (await open()) > 0; i++) await sleep(100)
  t.equal(await open(), 0)
})

t.test('named statements are prepared once a connection, and not at all where that is off', async (t) => {
  const statement = { name: 'test-one', text: 'select $1::int as n' }
  const listing = { text: 'select name from pg_prepared_statements' }
  const on = open(t, { max: 1 })
  await on.query(statement, [1])
  await on.query(statement, [2])
  t.strictSame((await on.query(listing)).rows, [{ name: 'test-one' }])
  const off = open(t, { max: 1, preparedStatements: false })
  await off.query(statement, [1])
  t.strictSame((await off.query(listing)).rows, [])
})

t.test('the timeouts are start-up settings, and are left to the role behind a pooler', async (t) => {
  const text = `select current_setting('statement_timeout') as s, current_setting('lock_timeout') as l,
    current_setting('idle_in_transaction_session_timeout') as i, current_setting('application_name') as a`
  t.strictSame((await open(t).query({ text })).rows, [{ s: '10s', l: '5s', i: '10s', a: 'chancery test' }])
  const off = open(t, { preparedStatements: false })
  t.strictSame((await off.query({ text })).rows, [{ s: '0', l: '0', i: '0', a: 'chancery test' }])
})

t.test('what a server would make slow, hide or keep open is not left to it', async (t) => {
  const { ownerUrl: url, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, url)
  const { database } = placeOf(url)
  const settings = { jit: 'on', row_security: 'on', idle_session_timeout: '1h', transaction_timeout: '1h' }
  for (const [name, value] of Object.entries(settings))
    await owner.query(`alter database ${database} set ${name} = '${value}'`)
  // Of sockets of a machine the first says nothing of TCP.
  const text = `select name, case when name ~ '^tcp_' then reset_val else setting end as value from pg_settings
    where name in ('jit', 'row_security', 'idle_session_timeout', 'transaction_timeout') or name ~ '^tcp_' order by name`
  const expected = Object.entries({
    idle_session_timeout: '0',
    jit: 'off',
    row_security: 'off',
    tcp_keepalives_count: '3',
    tcp_keepalives_idle: '30',
    tcp_keepalives_interval: '10',
    tcp_user_timeout: '60000',
    transaction_timeout: '0',
  }).map(([name, value]) => ({ name, value }))
  const db = open(t, { url: servingUrl, max: 8 })
  for (const pool of [undefined, ...ownPools])
    t.strictSame((await db.query(pool ? { text, pool } : { text })).rows, expected, `${pool}`)
  t.strictSame((await db.apart((tx) => tx.query({ text }))).rows, expected)
  await db.query({ text: 'select from revocations' })
  await owner.query('alter table revocations enable row level security')
  t.equal(sqlState(await failure(db.query({ text: 'select from revocations' }))), '42501', 'no rows would be a lie')
})

t.test('a transaction commits as a whole or not at all', async (t) => {
  const db = open(t)
  const n = await db.transaction(async (tx) => {
    await tx.query({ text: 'insert into things values (1), (2)' })
    return 7
  })
  t.equal(n, 7)
  const error = new Error('no')
  await t.rejects(
    db.transaction(async (tx) => {
      await tx.query({ text: 'delete from things' })
      throw error
    }),
    error,
  )
  t.equal((await db.query({ text: 'select from things' })).rowCount, 2)
  t.strictSame(db.load, { total: 1, idle: 1, waiting: 0 }, 'the connection was kept')
})

t.test('a transaction in which an error was passed over does not pretend to have committed', async (t) => {
  const db = open(t)
  await t.rejects(
    db.transaction(async (tx) => {
      await tx.query({ text: 'insert into things values (10)' })
      await tx.query({ text: 'insert into things values (10)' }).catch(() => {})
    }),
    { message: /its error was passed over/ },
  )
  t.equal((await db.query({ text: 'select from things where n = 10' })).rowCount, 0)
})

t.test('errors of a statement keep their SQLSTATE and their constraint', async (t) => {
  const db = open(t)
  await db.query({ text: 'insert into things values (20)' })
  const error = await failure(db.query({ text: 'insert into things values (20)' }))
  t.equal(sqlState(error), '23505')
  t.equal(constraintOf(error), 'things_n')
  t.notOk(isConnectionLoss(error))
  t.notOk(isProblem(error))
  t.equal(sqlState(new Error('other')), undefined)
  t.equal(sqlState(undefined), undefined)
})

t.test('a statement whose tables a migration has changed is retryable, and prepared anew', async (t) => {
  await admin.query('create table changing (n int)')
  const db = open(t, { max: 1 })
  const all: Statement = { name: 'all', text: 'select * from changing' }
  const ways: readonly (() => Promise<unknown>)[] = [() => db.query(all), () => db.transaction((tx) => tx.query(all))]
  for (const [i, ask] of ways.entries()) {
    await ask()
    await admin.query(`alter table changing add column more_${i} int`)
    const error = await failure(ask())
    t.ok(isProblem(error, 'db.unavailable'))
    t.notOk(isConnectionLoss(error), 'it is known that nothing was done')
    await t.resolves(ask())
  }
})

t.test('an unreachable database is a retryable problem', async (t) => {
  for (const url of [
    'postgresql://u:p@127.0.0.1:1/none',
    'postgresql://u:p@/none?host=/nonexistent&port=5432',
    ownerUrl.replace(/:[^:@]*@/, ':wrong@'),
  ]) {
    const error = await failure(open(t, { url }).query({ text: 'select 1' }))
    t.ok(isProblem(error, 'db.unavailable'), url)
    t.ok(isProblem(error) && error.kind.retryable && error.cause instanceof Error)
    t.notMatch(isProblem(error) ? error.detail : '', /wrong|127/, 'the detail gives nothing away')
  }
})

t.test('whatever answers with other octets than PostgreSQL ends its connection, and nobody else', async (t) => {
  for (const [what, octets] of [
    ['a row without its values', Buffer.from('520000000800000000440000000800090101', 'hex')],
    ['a description without an end', Buffer.from('52000000080000000054000000060009', 'hex')],
    ['an authentication of no kind', Buffer.from('5200000008000000ff', 'hex')],
  ] as const) {
    const server = createServer((socket) => {
      socket.on('error', () => {}).on('data', () => socket.write(octets))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const url = `postgresql://u:p@127.0.0.1:${port}/d`
    const db = open(t, { url })
    for (const ask of [() => db.query({ text: 'select 1' }), () => db.apart((tx) => tx.query({ text: 'select 1' }))]) {
      const error = await failure(ask())
      t.ok(isProblem(error, 'db.unavailable') && isConnectionLoss(error), what)
      t.match(
        (error as Error).cause,
        { message: "Connection terminated: what came is not PostgreSQL's protocol" },
        what,
      )
    }
    await t.rejects(migrate({ ownerUrl: url, servingRole: 'u', log }), { message: /not PostgreSQL's protocol/ }, what)
    server.close()
  }
})

t.test('a session whose octets are garbled under way is a loss, and the pool recovers', async (t) => {
  const { hostname, port, searchParams } = new URL(ownerUrl.replace('@/', '@localhost/'))
  const folder = searchParams.get('host')
  const real = folder
    ? { path: `${folder}/.s.PGSQL.${searchParams.get('port') ?? 5432}` }
    : { host: hostname, port: +port }
  let garble = false
  const proxy = createServer((socket) => {
    const server = connect(real as never)
    server.on('error', () => {}).on('close', () => socket.destroy())
    socket.on('error', () => {}).on('close', () => server.destroy())
    socket.pipe(server)
    server.on('data', (octets) => socket.write(garble ? Buffer.from('440000000800090101', 'hex') : octets))
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => proxy.close())
  const through = new URL(ownerUrl.replace('@/', '@localhost/'))
  through.search = ''
  through.hostname = '127.0.0.1'
  through.port = String((proxy.address() as AddressInfo).port)
  const db = open(t, { url: through.href, max: 1 })
  const asked = t.capture(Socket.prototype, 'setKeepAlive', Socket.prototype.setKeepAlive)
  await db.query({ text: 'select 1' })
  t.match(asked(), [{ args: [true, 5_000] }], 'whose end is asked for, where it says nothing')
  garble = true
  const error = await failure(db.query({ text: 'select 2' }))
  t.ok(isProblem(error, 'db.unavailable') && isConnectionLoss(error))
  garble = false
  t.equal((await db.query({ text: 'select 3' })).rowCount, 1)
})

t.test('times are read whatever DateStyle the role has, and never as none', async (t) => {
  const role = decodeURIComponent(new URL(ownerUrl.replace('@/', '@localhost/')).username)
  const database = (await admin.query('select current_database() as name')).rows[0].name
  const setting = `alter role ${admin.escapeIdentifier(role)} in database ${admin.escapeIdentifier(database)}`
  const statement = { text: `select '2026-11-05T08:00:00Z'::timestamptz as at` }
  t.teardown(() => admin.query(`${setting} reset datestyle`))
  for (const style of ['German', 'SQL, DMY', 'Postgres']) {
    await admin.query(`${setting} set datestyle = '${style}'`)
    t.strictSame((await open(t).query(statement)).rows, [{ at: new Date('2026-11-05T08:00:00Z') }], style)
    const pool = 'issuing'
    t.strictSame((await open(t, { max: 8 }).query({ ...statement, pool })).rows, [
      { at: new Date('2026-11-05T08:00:00Z') },
    ])
    const pooled = open(t, { preparedStatements: false })
    await t.rejects(pooled.query(statement), { message: /is no time in ISO form: reset DateStyle/ }, `${style}, pooled`)
  }
})

t.test('a day has 24 hours whatever time zone the role is in, also where its clocks are changed', async (t) => {
  const { ownerUrl: url } = await openTestDatabase(t)
  const owner = await openSql(t, url)
  const name = (await owner.query('select current_database() as name')).rows[0].name
  await owner.query(`alter database ${name} set timezone = 'America/St_Johns'`)
  // On this day they go from 2 to 3.
  const text = `select date_trunc('day', timestamptz '2027-03-14T12:00:00Z', 'UTC') + interval '1 day' as midnight`
  const db = open(t, { url, max: 8 })
  for (const pool of [undefined, ...ownPools])
    t.strictSame((await db.query(pool ? { text, pool } : { text })).rows, [{ midnight: new Date('2027-03-15T00:00Z') }])
  const pooled = await open(t, { url, preparedStatements: false }).query({ text })
  t.strictSame(pooled.rows, [{ midnight: new Date('2027-03-14T23:00Z') }], 'which is why statements ask for 24 hours')
})

t.test('a time is written as it is whatever time zone this process is in', async (t) => {
  const { TZ } = process.env
  t.teardown(() => {
    if (TZ === undefined) delete process.env['TZ']
    else process.env['TZ'] = TZ
  })
  const db = open(t)
  const times = [
    '0001-01-01T00:00:00.000Z',
    '1960-05-05T05:05:05.125Z',
    '2050-01-01T00:00:00.000Z',
    '9999-12-31T23:59:59.999Z',
  ]
  for (const zone of ['Africa/Monrovia', 'America/St_Johns', 'Pacific/Kiritimati', 'UTC']) {
    process.env['TZ'] = zone
    for (const time of times) {
      const { rows } = await db.query<{ at: Date }>({ text: 'select $1::timestamptz as at' }, [new Date(time)])
      t.equal(rows[0]?.at.toISOString(), time, `${time} in ${zone}`)
    }
  }
})

t.test('the tables are found whatever search_path the role has, or it is told that they are not', async (t) => {
  const { ownerUrl: url, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, url)
  const name = (await owner.query('select current_database() as name')).rows[0].name
  await owner.query(`alter database ${name} set search_path = '$user', pg_catalog`)
  const text = 'select count(*) from roll'
  const db = open(t, { url: servingUrl, max: 8 })
  for (const pool of [undefined, ...ownPools])
    t.equal((await db.query(pool ? { text, pool } : { text })).rowCount, 1, `${pool}`)
  t.equal((await db.apart((tx) => tx.query({ text }))).rowCount, 1)
  await assertMigrated(db)
  await t.rejects(assertMigrated(open(t, { url: servingUrl, preparedStatements: false })), {
    message: /^The search_path of this role leads past the schema public, .*: "alter role chancery reset search_path"/,
  })
  await owner.query('revoke usage on schema public from public, chancery')
  await t.rejects(assertMigrated(open(t, { url: servingUrl })), {
    message: /^This role may not use the schema public, .*: "grant usage on schema public to chancery"\.$/,
  })
})

t.test('a statement waits for those before it whatever isolation the role has', async (t) => {
  const role = decodeURIComponent(new URL(ownerUrl.replace('@/', '@localhost/')).username)
  const database = (await admin.query('select current_database() as name')).rows[0].name
  const setting = `alter role ${admin.escapeIdentifier(role)} in database ${admin.escapeIdentifier(database)}`
  await admin.query(`${setting} set default_transaction_isolation = 'serializable'`)
  t.teardown(() => admin.query(`${setting} reset default_transaction_isolation`))
  const statement = { text: 'show transaction_isolation' }
  const rows = [{ transaction_isolation: 'read committed' }]
  const db = open(t, { max: 8 })
  t.strictSame((await db.query(statement)).rows, rows)
  for (const pool of ownPools) t.strictSame((await db.query({ ...statement, pool })).rows, rows, pool)
  t.strictSame(await db.transaction(async (tx) => (await tx.query(statement)).rows), rows)
})

t.test('SQL means what it says whatever settings the database has, or it is told which are in the way', async (t) => {
  const { ownerUrl: url, servingUrl } = await openTestDatabase(t, { empty: true })
  const owner = await openSql(t, url)
  const name = (await owner.query('select current_database() as name')).rows[0].name
  const meanings = {
    array_nulls: 'on',
    quote_all_identifiers: 'off',
    standard_conforming_strings: 'on',
    transform_null_equals: 'off',
  }
  const setAstray = (of: string): Promise<unknown> =>
    owner.query(`alter database ${name} set ${of} = ${meanings[of as keyof typeof meanings] === 'on' ? 'off' : 'on'}`)
  for (const of of Object.keys(meanings)) await setAstray(of)
  await migrate({ ownerUrl: url, servingRole: 'chancery', log })
  const text = `select name, setting from pg_settings where name in ('${Object.keys(meanings).join(`', '`)}') order by name`
  const db = open(t, { url: servingUrl, max: 8 })
  const expected = Object.entries(meanings).map(([name, setting]) => ({ name, setting }))
  for (const pool of [undefined, ...ownPools])
    t.strictSame((await db.query(pool ? { text, pool } : { text })).rows, expected, `${pool}`)
  t.strictSame((await db.apart((tx) => tx.query({ text }))).rows, expected)
  await assertMigrated(db)
  for (const of of Object.keys(meanings)) {
    await owner.query(`alter database ${name} reset all`)
    await setAstray(of)
    await t.rejects(assertMigrated(open(t, { url: servingUrl, preparedStatements: false })), {
      name: 'Error',
      message: new RegExp(
        `have another ${of} than PostgreSQL's own, .*: "alter role "?chancery"? reset ${of}", and that of .*; what a pooler keeps open`,
      ),
    })
  }
})

t.test(
  'nothing is served where no trigger runs, as a dump is loaded, for only a superuser may say that one does',
  async (t) => {
    const { servingUrl } = await openTestDatabase(t)
    const { database } = placeOf(servingUrl)
    await assertMigrated(open(t, { url: servingUrl }))
    const server = await openTestServer()
    await server.asSuperuser((superuser) =>
      superuser.query(`alter database ${database} set session_replication_role = replica`),
    )
    await t.rejects(assertMigrated(open(t, { url: servingUrl })), {
      message: /have another session_replication_role than PostgreSQL's own, .*: "alter role /,
    })
  },
)

t.test('what is acknowledged is on a disk whatever the role has, and waits for standbys as it says', async (t) => {
  const role = decodeURIComponent(new URL(ownerUrl.replace('@/', '@localhost/')).username)
  const database = (await admin.query('select current_database() as name')).rows[0].name
  const setting = `alter role ${admin.escapeIdentifier(role)} in database ${admin.escapeIdentifier(database)}`
  t.teardown(() => admin.query(`${setting} reset synchronous_commit`))
  const statement = { text: `select setting, source from pg_settings where name = 'synchronous_commit'` }
  const found = async (db: Database) => [
    ...(await db.query(statement)).rows,
    ...(await Promise.all(ownPools.map((pool) => db.query({ ...statement, pool })))).flatMap(({ rows }) => rows),
    ...(await db.apart((tx) => tx.query(statement))).rows,
  ]
  for (const [said, commits, source] of [
    ['off', 'on', 'session'],
    // Held against a reload of the server's settings, too.
    ['on', 'on', 'session'],
    ['local', 'local', 'database user'],
    ['remote_apply', 'remote_apply', 'database user'],
  ] as const) {
    await admin.query(`${setting} set synchronous_commit = '${said}'`)
    t.strictSame(await found(open(t, { max: 8 })), Array(3).fill({ setting: commits, source }), said)
  }
  await admin.query(`${setting} set synchronous_commit = off`)
  const pooled = open(t, { preparedStatements: false })
  t.strictSame((await pooled.query(statement)).rows, [{ setting: 'off', source: 'database user' }], 'but for a pooler')
})

t.test('options of the URL come beside ours, and hold where both say something', async (t) => {
  const options = '-c work_mem=5MB -c enable_seqscan=on'
  const url = `${ownerUrl}${ownerUrl.includes('?') ? '&' : '?'}options=${encodeURIComponent(options)}`
  const names = ['work_mem', 'enable_seqscan', 'enable_bitmapscan', 'plan_cache_mode', 'search_path']
  const text = `select ${names.map((name) => `current_setting('${name}')`).join(` || ' ' || `)} as all`
  const db = open(t, { url, max: 8 })
  for (const [pool, mode] of [
    [undefined, 'auto'],
    ...ownPools.map((one) => [one, 'force_generic_plan'] as const),
  ] as const)
    t.strictSame(
      (await db.query(pool ? { text, pool } : { text })).rows,
      [{ all: `5MB on off ${mode} public` }],
      `${pool}`,
    )
  t.strictSame((await open(t, { url, preparedStatements: false }).query({ text: 'show work_mem' })).rows, [
    { work_mem: '5MB' },
  ])
})

t.test('a session that is terminated in a statement is a loss, and the pool recovers', async (t) => {
  const db = open(t, { max: 1 })
  const pid = (await db.query<{ pid: number }>({ text: 'select pg_backend_pid() as pid' })).rows[0]?.pid
  const sleeping = failure(db.query({ text: 'select pg_sleep(5)' }))
  await sleep(100)
  await admin.query('select pg_terminate_backend($1)', [pid])
  const error = await sleeping
  t.ok(isProblem(error, 'db.unavailable'))
  t.ok(isConnectionLoss(error))
  t.equal(sqlState(error), '57P01')
  t.equal((await db.query({ text: 'select 1' })).rowCount, 1)
})

/** Resolves when it has ended, and we have had time to hear of it. */
const terminate = async (pid: number | undefined): Promise<void> => {
  await admin.query('select pg_terminate_backend($1, 10000)', [pid])
  await sleep(50)
}

t.test('a session that is terminated between statements neither crashes nor leaks', async (t) => {
  const db = open(t, { max: 1 })
  const error = await failure(
    db.transaction(async (tx) => {
      const { rows } = await tx.query<{ pid: number }>({ text: 'select pg_backend_pid() as pid' })
      await terminate(rows[0]?.pid)
      await tx.query({ text: 'select 1' })
    }),
  )
  t.ok(isConnectionLoss(error))
  await db.query({ text: 'select 1' })
  t.strictSame(db.load, { total: 1, idle: 1, waiting: 0 })
})

t.test('an idle session that is terminated is replaced', async (t) => {
  const db = open(t, { max: 1 })
  const { rows } = await db.query<{ pid: number }>({ text: 'select pg_backend_pid() as pid' })
  await terminate(rows[0]?.pid)
  t.equal((await db.query({ text: 'select 1' })).rowCount, 1)
})

t.test('a server that does not answer in time is a loss, and the connection is not used again', async (t) => {
  const hurried = open(t, { max: 1, answerTimeout: 200 })
  const pid = async (): Promise<unknown> =>
    (await hurried.query({ text: 'select pg_backend_pid() as pid' })).rows[0]?.['pid']
  const first = await pid()
  const outcome = await failure(hurried.query({ text: 'select pg_sleep(60)' }))
  t.match(outcome, { code: 'db.unavailable' })
  t.ok(isConnectionLoss(outcome), 'nobody knows whether it took effect')
  const second = await pid()
  t.not(second, first)
  const begun = hurried.transaction(async (tx) => tx.query({ text: 'select pg_sleep(60)' }))
  await t.rejects(begun, { code: 'db.unavailable' })
  t.not(await pid(), second)
  await t.rejects(
    hurried.apart((tx) => tx.query({ text: 'select pg_sleep(60)' })),
    { code: 'db.unavailable' },
  )
})

t.test('a query_timeout in the URL is a loss as well', async (t) => {
  const hurried = open(t, { max: 1, url: `${ownerUrl}&query_timeout=200` })
  const outcome = await failure(hurried.query({ text: 'select pg_sleep(60)' }))
  t.match(outcome, { code: 'db.unavailable' })
  t.ok(isConnectionLoss(outcome))
  t.same((await hurried.query({ text: 'select 5 as n' })).rows, [{ n: 5 }])
})

t.test('a cancelled statement is retryable, and its outcome is known', async (t) => {
  const db = open(t, { max: 1 })
  const error = await failure(
    db.transaction(async (tx) => {
      await tx.query({ text: `set local statement_timeout = '50ms'` })
      await tx.query({ text: 'select pg_sleep(5)' })
    }),
  )
  t.ok(isProblem(error, 'db.unavailable'))
  t.equal(sqlState(error), '57014')
  t.notOk(isConnectionLoss(error))
})

t.test(
  'a server without numbers for transactions is not there at present; a row that is too long for an index, and what a guard refuses, is a fault',
  async (t) => {
    const db = open(t, { max: 1 })
    const { query } = pg.Client.prototype
    const failAs = (routine: string): unknown => {
      const error = Object.assign(new pg.DatabaseError('in the words of the server', 0, 'error'), {
        code: '54000',
        routine,
      })
      t.intercept(pg.Client.prototype, 'query', {
        value(...args: readonly unknown[]) {
          const [{ text }, then] = args as [{ readonly text: string }, (error: Error) => void]
          return text === 'select 54000' ? then(error) : Reflect.apply(query, this, args)
        },
      })
      return failure(db.query({ text: 'select 54000' }))
    }
    for (const routine of ['GetNewTransactionId', 'GetNewMultiXactId'])
      t.match(await failAs(routine), {
        code: 'db.unavailable',
        detail: /^The database has no number left for another /,
      })
    t.notOk(isProblem(await failAs('_bt_check_third_page')))
    const guard = `do $$ begin raise exception 'by a guard of ours' using errcode = 'data_corrupted'; end $$`
    t.match(await failure(db.query({ text: guard })), { code: 'XX001' }, 'no file is damaged where a guard refuses')
  },
)

t.test('what the database is short of is told to whoever asked, and stays known while it is away', async (t) => {
  const db = open(t, { max: 1 })
  const detail = async (state: string): Promise<string> => {
    const error = await failure(
      db.query({ text: `do $$ begin raise exception 'in the words of the server' using errcode = '${state}'; end $$` }),
    )
    t.match(
      error,
      { code: 'db.unavailable', kind: { status: 503, retryable: true }, options: { retryAfter: 1 } },
      state,
    )
    t.equal(sqlState(error), state)
    return isProblem(error) ? error.detail : ''
  }
  const full = 'The database has no room left on its disk: its operator has to make some.'
  const told = {
    '53100': full,
    '53200': 'The database has no memory left: its operator has to see to that.',
    '53300':
      'The database has no connection left: its operator has to raise max_connections there, or the connection limit of the role or the database, or lower CHANCERY_DATABASE_POOL_SIZE.',
    '53400': 'The database has reached a bound of its settings, which its log names: its operator has to raise that.',
    '55P03':
      'The database kept this waiting for a lock of another session: its operator sees which by pg_blocking_pids(), and waits for it or ends it.',
    '25P04':
      'The database ended this by the transaction_timeout of the role or the server: its operator has to raise that, or to see what is slow.',
    '25006':
      'The database only reads, as a standby does: its operator has to name the one that takes writes, or to reset default_transaction_read_only.',
    '57P02':
      'The database has crashed, and recovers: where that lasts, its log says why, as for want of room on its disk.',
    '57P03':
      'The database takes no connections, as while it starts or recovers from a crash: where that lasts, its log says why, as for want of room on its disk.',
  }
  for (const [state, words] of Object.entries(told)) t.equal(await detail(state), words)
  for (const state of ['53000', '58030', '57014']) t.equal(await detail(state), 'The database did not finish.', state)
})

t.test('a role that is not let in any more is told of as that, and what gives it back what it lacks', async (t) => {
  const { superuserUrl } = await openTestServer()
  const superuser = new pg.Client({ connectionString: superuserUrl })
  await superuser.connect()
  const role = `kept_out_${process.pid}_${Date.now()}`
  const { rows } = await admin.query<{ database: string }>('select current_database() as database')
  const database = rows[0]?.database
  const give = async (): Promise<void> => {
    await superuser.query(`alter role ${role} login password 'first'`)
    await admin.query(`grant connect on database ${database} to public, ${role}`)
  }
  await superuser.query(`create role ${role}`)
  await give()
  const url = ownerUrl.replace(/\/\/[^@]*@/, `//${role}:first@`)
  t.teardown(async () => {
    await admin.query(`revoke connect on database ${database} from ${role}`)
    await superuser.query(`drop role ${role}`)
    await superuser.end()
  })
  const detail = async (from = url): Promise<string | undefined> => {
    const db = openDatabase({ url: from, max: 1, log, applicationName: 'test' })
    const told = await db.query({ text: 'select' }).then(
      () => undefined,
      (error) => (isProblem(error, 'db.unavailable') ? error.detail : String(error)),
    )
    await db.close()
    return told
  }
  const kept: readonly [taken: string, told: RegExp][] = [
    [`alter role ${role} nologin`, /^The database does not let in the role that serves: .* give it LOGIN/],
    [`alter role ${role} password 'second'`, /^The database does not accept the password of the role that serves/],
    [
      `revoke connect on database ${database} from public, ${role}`,
      /^The role that serves may not connect .* CONNECT\.$/,
    ],
  ]
  for (const [taken, told] of kept) {
    t.equal(await detail(), undefined, 'it is let in')
    await (taken.startsWith('revoke') ? admin : superuser).query(taken)
    t.match(await detail(), told, taken)
    await give()
  }
  t.match(await detail(url.replace(`/${database}`, '/no_such')), /^The server has no such database any more/)
  for (const code of ['CERT_HAS_EXPIRED', 'ERR_TLS_CERT_ALTNAME_INVALID', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'])
    t.match(unreachedDetail({ code }), /^The database shows no TLS certificate that is trusted/, code)
  // As Node has it of a server that does not trust our certificate.
  t.match(unreachedDetail({ code: 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA' }), /^The database turns our TLS down: .* sslcert/)
})

t.test('a commit whose acknowledgement is lost is a loss', async (t) => {
  // A proxy that lets everything through but what comes back after "commit".
  const { host, port } = new pg.Client({ connectionString: ownerUrl })
  const sockets = new Set<Socket>()
  const proxy = createServer((near) => {
    const far = connect(`${host}/.s.PGSQL.${port}`)
    sockets.add(near).add(far)
    let cut = false
    near.on('data', (chunk) => {
      if (chunk.includes('commit\0')) cut = true
      far.write(chunk)
    })
    far.on('data', (chunk) => (cut ? near.destroy() : near.write(chunk)))
    for (const socket of [near, far]) socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    proxy.close()
  })
  const address = proxy.address() as { port: number }
  const url = ownerUrl.replace(/@\//, `@127.0.0.1:${address.port}/`).replace(/host=[^&]*&port=\d+&/, '')
  const error = await failure(
    open(t, { url }).transaction((tx) => tx.query({ text: 'insert into things values (30)' })),
  )
  t.ok(isProblem(error, 'db.unavailable'))
  t.ok(isConnectionLoss(error), 'the caller is told to look')
  t.equal((await admin.query('select from things where n = 30')).rowCount, 1, 'and would find it')
})

t.test('sslmode=verify-full does not speak to a server without TLS', async (t) => {
  const server = createServer((socket) => {
    socket.once('data', () => socket.write('N'))
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const error = await failure(
    open(t, { url: `postgresql://u:p@127.0.0.1:${port}/d?sslmode=verify-full` }).query({ text: 'select 1' }),
  )
  t.ok(isProblem(error, 'db.unavailable'))
  t.match(isProblem(error) ? String(error.cause) : '', /does not support SSL/)
})

t.test('whoever watches is told of every statement, in a transaction and outside, and of a commit', async (t) => {
  const told: [string, boolean][] = []
  const db = open(t, { observe: (statement, seconds, failed) => seconds >= 0 && told.push([statement, failed]) })
  await db.query({ name: 'named_watched', text: 'select 1' })
  await db.query({ text: 'select 1' })
  await failure(db.query({ text: 'select 1 / 0' }))
  await db.transaction((tx) => tx.query({ name: 'within_watched', text: 'select 2' }))
  t.same(told, [
    ['named_watched', false],
    ['other', false],
    ['other', true],
    ['within_watched', false],
    ['commit', false],
  ])
})

t.test('a time is read as pg reads it, in whatever form PostgreSQL writes it', async (t) => {
  const asPg = pg.types.getTypeParser(pg.types.builtins.TIMESTAMPTZ) as (text: string) => Date | number
  for (const text of [
    '2026-11-25 08:00:00+00',
    '2026-11-25 08:00:00.1+00',
    '2026-11-25 08:00:00.12+00',
    '2026-11-25 08:00:00.123+00',
    '2026-11-25 08:00:00.123456+00',
    '2026-11-25 08:00:00.0009+00',
    '2026-11-25 08:00:00.5+01',
    '2026-11-25 08:00:00.5-03:30',
    '1950-02-28 23:59:59.999999+00',
    '0001-01-01 00:00:00+00',
    '0099-01-01 00:00:00+00',
    '0044-03-15 00:00:00+00 BC',
    '9999-12-31 23:59:59.999+00',
    '12026-11-25 08:00:00+00',
    'infinity',
    '-infinity',
  ])
    t.same(parseInstant(text), asPg(text), text)
  t.equal(parseInstant('2026-11-25 08:00:00.123456+00').toISOString(), '2026-11-25T08:00:00.123Z')
})

/** Its URL: as PgBouncer, which has one code for all that it turns down, and says to whoever asks for TLS that it has none. */
const openPooler = async (t: Test, words: string): Promise<string> => {
  const said = Buffer.from(`SFATAL\0C08P01\0M${words}\0\0`)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(said.length + 4)
  const refusal = Buffer.concat([Buffer.from('E'), length, said])
  const pooler = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (asked: Buffer) => socket.end(asked.equals(sslRequest) ? 'N' : refusal))
  })
  await new Promise<void>((resolve) => pooler.listen(0, '127.0.0.1', resolve))
  t.teardown(() => pooler.close())
  return `postgresql://u:old@127.0.0.1:${(pooler.address() as AddressInfo).port}/records`
}
const sslRequest = Buffer.from('0000000804d2162f', 'hex')

t.test('what a pooler turns down is told as that, and a server without TLS as one', async (t) => {
  const told = async (words: string, more = ''): Promise<unknown> => {
    const error = await failure(open(t, { url: `${await openPooler(t, words)}${more}` }).query({ text: 'select' }))
    return isProblem(error, 'db.unavailable') ? error.detail : error
  }
  // Its words: 1.24 has said them.
  t.match(await told('password authentication failed'), /^The database does not accept the password of the role/)
  t.match(await told('SASL authentication failed'), /^The database does not accept the password of the role/)
  t.match(await told('no such database: records'), /^The server has no such database any more/)
  for (const words of ['no more connections allowed (max_client_conn)', 'query_wait_timeout', 'client_login_timeout'])
    t.match(await told(words), /^A pooler before the database, .*: its operator sees why in the log of that/, words)
  t.match(await told('', '?sslmode=verify-full'), /^The database speaks no TLS, .* or to mend sslmode\.$/)
})

t.test('a pooler that turns a password down has its file read again as well', async (t) => {
  const url = await openPooler(t, 'password authentication failed')
  let asked = 0
  const renewed = async (): Promise<string> => {
    asked += 1
    return url.replace('old', 'new')
  }
  const db = open(t, { url, renewedUrl: renewed })
  await t.rejects(db.query({ text: 'select' }), { code: 'db.unavailable', cause: { code: '08P01' } })
  t.ok(asked > 0)
})

t.test('a connection that is lost before it is ready is told by what ended it, and leaves its place', async (t) => {
  const message = (kind: string, body: Buffer): Buffer => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(body.length + 4)
    return Buffer.concat([Buffer.from(kind), length, body])
  }
  const ready = Buffer.concat([message('R', Buffer.alloc(4)), message('Z', Buffer.from('I'))])
  const refusal = message('E', Buffer.from('SFATAL\0C08P01\0Mserver login failed\0\0'))
  // As of a pooler that finds its server only when it is asked.
  for (const [what, end, cause] of [
    ['refused', (socket: Socket) => socket.end(refusal), { code: '08P01' }],
    ['broken off', (socket: Socket) => socket.destroy(), { message: 'Connection terminated unexpectedly' }],
    ['unanswered', () => {}, { message: 'The database did not answer in time' }],
  ] as const) {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write(ready)
        socket.once('data', () => end(socket))
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close())
    const url = `postgresql://u@127.0.0.1:${(server.address() as AddressInfo).port}/records`
    const db = open(t, { url, max: 1, answerTimeout: 200 })
    const statement = { text: 'select' }
    const asking = [db.query(statement), db.query(statement), db.apart((tx) => tx.query(statement))]
    await Promise.all(asking.map((one) => t.rejects(one, { code: 'db.unavailable', cause }, what)))
    t.strictSame(db.load, { total: 0, idle: 0, waiting: 0 }, what)
  }
})

t.test('a password that is changed while we run is read from its file again, and nothing else is', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-password-'))
  const { superuserUrl } = await openTestServer()
  const superuser = new pg.Client({ connectionString: superuserUrl })
  await superuser.connect()
  const role = `rotated_${process.pid}_${Date.now()}`
  const file = join(folder, 'url')
  const put = (password: string, as = role): Promise<void> =>
    writeFile(file, `${ownerUrl.replace(/\/\/[^@]*@/, `//${as}:${password}@`)}\n`)
  /** Changes the password, and ends what was let in by the one before. */
  const change = async (password: string): Promise<void> => {
    await superuser.query(`alter role ${role} password '${password}'`)
    await superuser.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '${role}'`)
    // A connection that idled may be written to once more before its end is heard of.
    for (let refused = ''; refused !== '28P01'; )
      refused = await whoAmI().then(
        () => '28P01',
        ({ cause }: { cause?: { code?: string } }) => cause?.code ?? '28P01',
      )
  }
  const { rows } = await admin.query<{ database: string }>('select current_database() as database')
  const database = rows[0]?.database
  await superuser.query(`create role ${role} login password 'first'`)
  t.teardown(async () => {
    await rm(folder, { recursive: true, force: true })
    await admin.query(`revoke connect on database ${database} from ${role}`)
    await superuser.query(`drop role ${role}`)
    await superuser.end()
  })
  await admin.query(`grant connect on database ${database} to ${role}`)
  await put('first')
  const config = await loadConfig({ ...bare, CHANCERY_DATABASE_URL_FILE: file })
  const db = openDatabase({
    url: config.database.url as string,
    renewedUrl: renewedUrl(config),
    ...{
      max: 4,
      log: { ...log, warn: (line: { event: string }) => void (line.event === 'database.password' && told.push(line)) },
      applicationName: 'chancery test',
    },
  })
  const told: object[] = []
  const whoAmI = () => db.query({ text: 'select current_user as role' })
  try {
    t.match(await whoAmI(), { rows: [{ role }] })
    await change('second')
    await t.rejects(whoAmI(), { code: 'db.unavailable', cause: { code: '28P01' } }, 'while the file has the old one')
    await put('second', 'postgres')
    await t.rejects(whoAmI(), { code: 'db.unavailable' }, 'another role is for a start')
    t.match(told.pop(), {
      event: 'database.password',
      reason: `${file} has more than another password: restart with it.`,
    })
    await put('second')
    t.match(await Promise.all([whoAmI(), whoAmI(), whoAmI()]), [{ rows: [{ role }] }, {}, {}], 'everybody goes on')
    await change('apart')
    await put('apart')
    t.same(await db.apart((tx) => tx.query({ text: 'select current_user as role' })), { rows: [{ role }], rowCount: 1 })
    await rm(file)
    await change('third')
    await t.rejects(whoAmI(), { code: 'db.unavailable' })
    t.match(told.pop(), { event: 'database.password', reason: /^ENOENT/ })
    await writeFile(file, 'postgresql://u:third@[')
    await t.rejects(whoAmI(), { code: 'db.unavailable' })
    t.strictSame(told.pop(), { event: 'database.password', reason: 'Invalid URL' }, 'and no secret')
    await put('third')
    t.match(await whoAmI(), { rows: [{ role }] })
  } finally {
    await db.close()
  }
})
