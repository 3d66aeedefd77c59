import 'reflect-metadata'

import { spawnSync } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'

import * as x509 from '@peculiar/x509'
import pg from 'pg'
import t, { type Test } from 'tap'

import { calledAt } from '../../src/cli/serve.ts'
import { placeOf } from '../../src/config/config.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-start-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** Runs a verb as a shell would; one that serves ends by itself here, because it cannot. Whoever is ended has said nothing. */
const chancery = (verb: string, env: Readonly<Record<string, string>>): Promise<Run> =>
  runChancery([verb], {
    env: { ...bare, CHANCERY_DATA: folder, CHANCERY_LOG_LEVEL: 'error', ...env },
    timeout: 120_000,
  })

slowTest('a database that cannot be opened is told in one sentence, with an exit code for scripts', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const { address, database } = placeOf(servingUrl)
  const withPassword = servingUrl.replace(/:[^:@/]+@/, ':hunter2-hunter2@')
  const production = {
    CHANCERY_MODE: 'production',
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
    CHANCERY_KEY_PASSPHRASE: 'a passphrase of this test',
  }
  const server = await openTestServer()
  const closed = `kept_out_${process.pid}_${Date.now()}`
  await server.asSuperuser((superuser) => superuser.query(`create role ${closed} password 'closed'`))
  t.teardown(() => server.asSuperuser((superuser) => superuser.query(`drop role ${closed}`)))
  const other = await openTestDatabase(t, { empty: true })
  const { database: shut } = placeOf(other.servingUrl)
  await server.asSuperuser((superuser) => superuser.query(`alter database ${shut} allow_connections false`))
  const nowhere = 'postgresql://chancery:hunter2-hunter2@127.0.0.1:1/records'
  const cases: [string, string, Readonly<Record<string, string>>, number, string][] = [
    [
      'an unreachable host',
      'serve',
      { CHANCERY_DATABASE_URL: nowhere },
      exitCodes.later,
      'The database "records" at 127.0.0.1:1 cannot be opened: no PostgreSQL answers there (ECONNREFUSED); start it, or set the right host and port in CHANCERY_DATABASE_URL.',
    ],
    [
      'an unreachable host, in production',
      'serve',
      { ...production, CHANCERY_DATABASE_URL: nowhere },
      exitCodes.later,
      'The database "records" at 127.0.0.1:1 cannot be opened: no PostgreSQL answers there (ECONNREFUSED); start it, or set the right host and port in CHANCERY_DATABASE_URL.',
    ],
    [
      'an unreachable host for who migrates',
      'migrate',
      { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: nowhere.replace('chancery', 'owner') },
      exitCodes.later,
      'The database "records" at 127.0.0.1:1 cannot be opened: no PostgreSQL answers there (ECONNREFUSED); start it, or set the right host and port in CHANCERY_MIGRATION_URL.',
    ],
    [
      'a socket that is not there',
      'migrate',
      { CHANCERY_DATABASE_URL: `postgresql://chancery@/records?host=${folder}` },
      exitCodes.later,
      `The database "records" at ${folder}/.s.PGSQL.5432 cannot be opened: no PostgreSQL answers there (ENOENT); start it, or set the right host and port in CHANCERY_DATABASE_URL.`,
    ],
    [
      'a wrong password',
      'serve',
      { CHANCERY_DATABASE_URL: withPassword },
      exitCodes.usage,
      `The database ${JSON.stringify(database)} at ${address} cannot be opened: the server does not accept the password of the role "chancery" (28P01); set the right role and password in CHANCERY_DATABASE_URL.`,
    ],
    [
      'a wrong password in production',
      'serve',
      { ...production, CHANCERY_DATABASE_URL: withPassword },
      exitCodes.usage,
      `The database ${JSON.stringify(database)} at ${address} cannot be opened: the server does not accept the password of the role "chancery" (28P01); set the right role and password in CHANCERY_DATABASE_URL.`,
    ],
    [
      'a role that may not log in',
      'serve',
      { CHANCERY_DATABASE_URL: servingUrl.replace(/\/\/[^@]*@/, `//${closed}:closed@`) },
      exitCodes.usage,
      `The database ${JSON.stringify(database)} at ${address} cannot be opened: there is no role "${closed}" that may log in (role "${closed}" is not permitted to log in); create it, or give it that ("alter role … login"), or set another role in CHANCERY_DATABASE_URL.`,
    ],
    ...['serve', 'migrate'].map((verb): (typeof cases)[number] => [
      `a database that takes no connections, for who is to ${verb}`,
      verb,
      { CHANCERY_DATABASE_URL: servingUrl.replace(database, shut) },
      exitCodes.later,
      `The database ${JSON.stringify(shut)} at ${address} cannot be opened: it takes no connections (database "${shut}" is not currently accepting connections); let it ("alter database … allow_connections true"), or set another in CHANCERY_DATABASE_URL.`,
    ]),
    [
      'an unknown database',
      'serve',
      { CHANCERY_DATABASE_URL: servingUrl.replace(database, 'no_such') },
      exitCodes.usage,
      `The database "no_such" at ${address} cannot be opened: the server has no such database (3D000); create it, or set the right one in CHANCERY_DATABASE_URL.`,
    ],
    [
      'a server without TLS',
      'serve',
      { CHANCERY_DATABASE_URL: `${servingUrl}&sslmode=verify-full` },
      exitCodes.usage,
      `The database ${JSON.stringify(database)} at ${address} cannot be opened: the server does not speak TLS; switch it on there, or change sslmode in CHANCERY_DATABASE_URL.`,
    ],
    [
      'a trust anchor that is not there',
      'migrate',
      { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: `${ownerUrl}&sslrootcert=${folder}/none.pem` },
      exitCodes.usage,
      `The database ${JSON.stringify(database)} at ${address} cannot be opened: a file that the URL names cannot be read (ENOENT: no such file or directory, open '${folder}/none.pem'); mend its path in CHANCERY_MIGRATION_URL.`,
    ],
  ]
  for (const [name, verb, env, code, sentence] of cases)
    t.same(await chancery(verb, env), { code, out: '', err: `${sentence}\n` }, name)
})

slowTest('what else keeps it from starting names the file or the setting, and is no defect', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const url = { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: ownerUrl }
  const ports = {
    CHANCERY_LISTEN: `127.0.0.1:${await freePort()}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${await freePort()}`,
  }
  const file = join(folder, 'file')
  await writeFile(file, '')
  const link = join(folder, 'link')
  await symlink(join(folder, 'nothing'), link)
  const holding = await mkdtemp(join(folder, 'holding-'))
  await writeFile(join(holding, 'bundles'), '')
  const cases: [string, Readonly<Record<string, string>>, string][] = [
    [
      'a file in the place of the data folder',
      { CHANCERY_DATA: file },
      `The data folder ${file} cannot be used: there is a file in the place of a folder, ${file} (ENOTDIR); mend that, or name another by CHANCERY_DATA.`,
    ],
    [
      'a link to nothing in the place of the data folder',
      { CHANCERY_DATA: link },
      `The data folder ${link} cannot be used: there is a file, or a link that leads nowhere, in the place of a folder, ${link} (EEXIST); mend that, or name another by CHANCERY_DATA.`,
    ],
    [
      'a file in the place of a folder within the data folder',
      { CHANCERY_DATA: holding },
      `The data folder ${holding} cannot be used: there is a file in the place of a folder, ${holding}/bundles (ENOTDIR); mend that, or name another by CHANCERY_DATA.`,
    ],
    [
      'a data folder where none can be',
      { CHANCERY_DATA: '/sys/nowhere' },
      'The data folder /sys/nowhere cannot be used: the system does not let anybody make it, /sys/nowhere (EPERM); mend that, or name another by CHANCERY_DATA.',
    ],
    [
      'CAs of clients that are not there',
      { CHANCERY_CLIENT_CA: join(folder, 'none.pem') },
      `The CAs of clients, ${folder}/none.pem, cannot be read (ENOENT). Mend the file, or name another by CHANCERY_CLIENT_CA.`,
    ],
    [
      'an address of another machine',
      { CHANCERY_LISTEN: '192.0.2.1:7443' },
      'This machine has no such address as that of 192.0.2.1:7443: change CHANCERY_LISTEN or CHANCERY_PUBLIC_LISTEN.',
    ],
    [
      'one of IPv6',
      { CHANCERY_LISTEN: '[2001:db8::1]:7443' },
      'This machine has no such address as that of [2001:db8::1]:7443: change CHANCERY_LISTEN or CHANCERY_PUBLIC_LISTEN.',
    ],
  ]
  for (const [name, env, sentence] of cases) {
    const run = await chancery('serve', { ...url, ...ports, ...env })
    t.same(run, { code: exitCodes.usage, out: '', err: `${sentence}\n` }, name)
  }
})

t.test('nor is an embedded database that another Chancery has made, for the service and beside it', async (t) => {
  const data = await mkdtemp(join(folder, 'older-'))
  const cluster = join(data, 'postgres/cluster')
  await mkdir(cluster, { recursive: true })
  await writeFile(join(cluster, 'PG_VERSION'), '15\n')
  for (const who of ['superuser', 'owner', 'serving'])
    await writeFile(join(data, `postgres/${who}.password`), '', { mode: 0o600 })
  for (const verb of ['serve', 'doctor']) {
    const { code, out, err } = await chancery(verb, { CHANCERY_DATA: data })
    t.same({ code, out }, { code: exitCodes.usage, out: '' }, verb)
    t.match(err, /^\S+ belongs to PostgreSQL 15, and the embedded one is \d+\. Dump it [^\n]+\n$/, verb)
  }
})

slowTest('a schema that does not fit, or hides its rows, is no defect', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const production = {
    CHANCERY_MODE: 'production',
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
    CHANCERY_KEY_PASSPHRASE: 'a passphrase of this test',
    CHANCERY_DATABASE_URL: servingUrl,
  }
  await owner.query('revoke select on roll from chancery')
  const denied = await chancery('serve', { ...production, CHANCERY_DATA: join(folder, 'denied') })
  t.equal(denied.code, exitCodes.usage)
  t.match(denied.err, /^The database turns this down: .* roll; "chancery migrate" of the owner of the tables /)
  await owner.query('grant select on roll to chancery; alter table schema_migrations enable row level security')
  const hidden = await chancery('serve', production)
  t.equal(hidden.code, exitCodes.usage)
  t.match(
    hidden.err,
    /cannot be opened: row level security keeps the role "chancery" from its tables \(.*\); end it there /,
  )
  const verified = await runChancery(['roll', 'verify', '--database', servingUrl], { env: bare })
  t.equal(verified.code, exitCodes.usage)
  t.match(verified.err, /^Row level security hides schema_migrations from the role chancery: end it there, /)
  await owner.query('alter table schema_migrations disable row level security')
  const { rows } = await owner.query('delete from schema_migrations where version > 20 returning *')
  const behind = await chancery('serve', production)
  t.equal(behind.code, exitCodes.usage)
  t.match(behind.err, /^The schema is at version 20 and this Chancery needs \d+: run "chancery migrate" /)
  for (const { version, name, sha256 } of rows)
    await owner.query('insert into schema_migrations values ($1, $2, $3)', [version, name, sha256])
  await owner.query(`insert into schema_migrations values ($1, 'to_come', 'x')`, [20 + rows.length + 1])
  const migrated = await chancery('migrate', { ...production, CHANCERY_MIGRATION_URL: ownerUrl })
  t.equal(migrated.code, exitCodes.usage)
  t.match(migrated.err, /^The database is at version \d+ and this Chancery knows \d+: use a newer Chancery\.$/m)
})

t.test('a certificate of the database that nobody vouches for is told, and how to vouch for it', async (t) => {
  const { cert, key } = await selfSigned()
  const server = createServer((socket) =>
    socket.once('data', () => {
      socket.write('S')
      new TLSSocket(socket, { isServer: true, cert, key }).on('error', () => {})
    }),
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const run = await chancery('migrate', {
    CHANCERY_DATABASE_URL: `postgresql://chancery:hunter2-hunter2@127.0.0.1:${port}/records?sslmode=verify-full`,
  })
  t.equal(run.code, exitCodes.usage)
  t.equal(
    run.err,
    `The database "records" at 127.0.0.1:${port} cannot be opened: the server shows no TLS certificate that is trusted (DEPTH_ZERO_SELF_SIGNED_CERT); mend its certificate, or sslrootcert and the host in CHANCERY_DATABASE_URL.\n`,
  )
})

t.test('a place is read as PostgreSQL reads it, and holds no password', (t) => {
  const cases: [string, object][] = [
    ['postgresql://a:b@db/records', { address: 'db:5432', database: 'records', role: 'a' }],
    ['postgres://a@[::1]:6432/records', { address: '[::1]:6432', database: 'records', role: 'a' }],
    [
      'postgresql://a:b@/records?host=/run/pg&port=5433',
      { address: '/run/pg/.s.PGSQL.5433', database: 'records', role: 'a' },
    ],
    ['postgresql://a%zz:b%@db/100%', { address: 'db:5432', database: '100%', role: 'a%zz' }],
    ['postgresql://a%zz%40c:b@db/x%2fy', { address: 'db:5432', database: 'x%2fy', role: 'a%zz@c' }],
    ['postgresql://a:b@db/x%2Fy', { address: 'db:5432', database: 'x%2Fy', role: 'a' }],
    ['postgresql://a:b@/?user=c', { address: 'localhost:5432', database: 'c', role: 'c' }],
  ]
  for (const [url, place] of cases) {
    t.same(placeOf(url), place, url)
    if (url.includes('%'))
      t.match(new pg.Client(url), { user: placeOf(url).role, database: placeOf(url).database }, url)
  }
  t.end()
})

const selfSigned = async (): Promise<{ readonly cert: string; readonly key: string }> => {
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({ name: 'CN=nobody', keys })
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey))
  return {
    cert: certificate.toString('pem'),
    key: createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }).export({
      type: 'pkcs8',
      format: 'pem',
    }) as string,
  }
}

slowTest('a signal that comes as soon as it says that it serves is an orderly stop', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(folder, 'stopped-'))
  const [port, publicPort] = [await freePort(), await freePort()]
  const instance = startInstance({
    ...{ data, servingUrl, ownerUrl, port, publicPort },
    env: {
      // Of its own, so that all compiled code is written at this start.
      NODE_COMPILE_CACHE: join(data, 'cache'),
      ...{ CHANCERY_LISTEN: `0.0.0.0:${port}`, CHANCERY_NAMES: 'ca.example.com,127.0.0.1' },
      CHANCERY_PUBLIC_LISTEN: `0.0.0.0:${publicPort}`,
      NODE_OPTIONS: tellsFlags,
    },
  })
  instance.told(/serves at/, () => instance.signal('SIGTERM'))
  t.equal(await instance.exited, 0, instance.output())
  const heap = spawnSync(process.execPath, ['--heap-growing-percent=100', '-p', 'v8.cachedDataVersionTag()'], plainly)
  t.match(instance.output(), `V8 ${heap.stdout.trim()}\n`, 'its heap doubles before it is collected')
  t.match(instance.output(), `Chancery serves at https://ca.example.com:${port} (development).`)
  t.match(instance.output(), /^ {2}CRLs, OCSP, issuers {3}http:\/\/pki\.test$/m)
})

/** At the end of the process: V8 shows none of its flags, but what they all come to. */
const tellsFlags = `--import=data:text/javascript,${encodeURIComponent(`
  import { cachedDataVersionTag } from 'node:v8'
  import { isMainThread } from 'node:worker_threads'
  if (isMainThread) process.on('exit', () => console.log('V8', cachedDataVersionTag()))`)}`
const plainly = { env: bare, encoding: 'utf8' } as const

t.test('one that listens on every address says where it is called', (t) => {
  const names = (...values: readonly string[]) => values.map((value) => ({ kind: 'dns' as const, value }))
  for (const [url, host, known, called] of [
    ['https://[::]:8443', '::', ['localhost', '127.0.0.1'], 'https://localhost:8443'],
    ['https://[::]:443', '0::0', ['*.example.com', '2001:db8::1'], 'https://[2001:db8::1]:443'],
    ['https://127.0.0.1:8443', '0.0.0.0', ['ca.example.com'], 'https://ca.example.com:8443'],
    ['https://[::]:443', '::', ['*.example.com'], 'https://localhost:443'],
    ['https://[::1]:8443', '::1', ['ca.example.com'], 'https://[::1]:8443'],
    ['https://10.0.0.1:8443', '10.0.0.1', ['ca.example.com'], 'https://10.0.0.1:8443'],
  ] as const)
    t.equal(calledAt(url, { host, port: 0 }, names(...known)), called)
  t.end()
})

/** In the middle of its start: it waits for a table, with its database open. */
const startHeld = async (t: Test) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  await owner.query('begin')
  await owner.query('lock table issuers in access exclusive mode')
  const instance = startInstance({
    ...{ data: await mkdtemp(join(folder, 'begun-')), servingUrl, ownerUrl },
    ...{ port: await freePort(), publicPort: await freePort(), env: { CHANCERY_LOG_LEVEL: 'info' } },
  })
  t.teardown(() => instance.signal('SIGKILL'))
  while ((await owner.query(selectWaiting)).rows.length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  return { instance, release: () => owner.query('rollback') }
}

const selectWaiting = `select from pg_locks where relation = 'issuers'::regclass and not granted`

/** Resolves when it has heard of it. */
const stop = (instance: Instance): Promise<void> =>
  new Promise((resolve) => {
    instance.told(/service\.stopping/, resolve)
    instance.signal('SIGTERM')
  })

slowTest('a signal in the middle of a start is an orderly stop, and it never serves', async (t) => {
  const { instance, release } = await startHeld(t)
  await stop(instance)
  await release()
  t.equal(await instance.exited, 0, instance.output())
  t.match(instance.output(), /service\.stopping.*SIGTERM.*service\.stopped/s)
  t.notMatch(instance.output(), /serves at|service\.started/)
})

slowTest('a second signal in the middle of a start ends it at once', async (t) => {
  const { instance } = await startHeld(t)
  await stop(instance)
  instance.signal('SIGINT')
  t.equal(await instance.exited, 1, instance.output())
})

slowTest('the same signal right after is the echo of the first, and later it ends a start at once', async (t) => {
  const { instance, release } = await startHeld(t)
  await stop(instance)
  instance.signal('SIGTERM')
  await new Promise((resolve) => setTimeout(resolve, 200))
  await release()
  t.equal(await instance.exited, 0, instance.output())
  t.match(instance.output(), /service\.stopped/)

  const { instance: impatient } = await startHeld(t)
  await stop(impatient)
  await new Promise((resolve) => setTimeout(resolve, 1_200))
  impatient.signal('SIGTERM')
  t.equal(await impatient.exited, 1, impatient.output())
})

slowTest('a replica whose keys are away says whose, and why, and names no token that is not there', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const start = async (data: string, env: Readonly<Record<string, string>> = {}): Promise<string> => {
    const ports = { port: await freePort(), publicPort: await freePort() }
    const instance = startInstance({ data, servingUrl, ownerUrl, ...ports, env })
    instance.told(/serves at/, () => instance.signal('SIGTERM'))
    t.equal(await instance.exited, 0, instance.output())
    return instance.output()
  }
  const first = await start(join(folder, 'first'))
  t.match(first, /admin's token +\S+first\/admin\.token$/m)
  t.match(first, /^ {2}CRLs, OCSP, issuers {3}http:\/\/127\.0\.0\.1:\d+$/m, 'on one address it is told as it is')
  t.notMatch(first, /cannot be used|No issuer can sign|writes http/)
  const second = await start(join(folder, 'second'))
  t.match(second, /^The key of the issuer default cannot be used: \S.*second\/keys\/default\.pem.*\.$/m)
  t.notMatch(second, /admin\.token|No issuer can sign|brings an issuer/)
  t.same(await readdir(join(folder, 'second', 'offline-root')).catch(() => []), [], 'no root that is above nobody')
  await cp(join(folder, 'first', 'keys'), join(folder, 'third', 'keys'), { recursive: true })
  const third = await start(join(folder, 'third'), { CHANCERY_PUBLIC_URL: 'http://new.test' })
  t.match(
    third,
    /^The issuer etcd writes http:\/\/pki\.test into certificates, .* must lead here\. The next one writes http:\/\/new\.test\.$/m,
  )
  t.match(third, /^The key of the roll cannot be used: \S.*third\/roll\/key\.pem.*\.$/m)
  t.notMatch(third, /key of the issuer|No issuer can sign|brings an issuer/)
})
