import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { decideAccount, runAs } from '../../src/db/embedded/account.ts'
import { findBinaries } from '../../src/db/embedded/binaries.ts'
import { type Embedded, openEmbedded } from '../../src/db/embedded/embedded.ts'
import { SettingFault } from '../../src/lib/setting-fault.ts'
import { embeddedFolder } from '../helpers/embedded.ts'
import { quiet as log } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'

const isRoot = process.geteuid?.() === 0

const open = async (test: Test, dataDir: string): Promise<Embedded> => {
  const embedded = await openEmbedded({ dataDir, log })
  test.teardown(() => embedded.stop())
  return embedded
}

const ask = async (url: string, text: string): Promise<Record<string, unknown> | undefined> => {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
    .query(text)
    .then(({ rows }) => rows[0] as Record<string, unknown> | undefined)
    .finally(() => client.end())
}

const pidOf = async (dataDir: string): Promise<number> =>
  Number.parseInt(await readFile(join(dataDir, 'postgres/cluster/postmaster.pid'), 'utf8'), 10)

/** One that has ended is gone, although whoever inherited it may take its time to reap it. */
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return existsSync(`/proc/${pid}/stat`) && / Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return true
  }
}

/** What Node is told, to open it, say so, and wait. */
const opening = (dataDir: string): string[] => [
  '--input-type=module',
  '-e',
  `
    import { openEmbedded } from ${JSON.stringify(new URL('../../src/db/embedded/embedded.ts', import.meta.url).href)}
    const log = { debug() {}, info() {}, warn() {}, error() {} }
    const embedded = await openEmbedded({ dataDir: ${JSON.stringify(dataDir)}, log })
    process.stdin.on('end', async () => { await embedded.stop(); process.exit(0) }).resume()
    console.log(JSON.stringify(embedded))`,
]

/** Another Chancery: a process that opens the same folder, says so, and waits. */
const another = async (
  test: Test,
  dataDir: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ child: ChildProcess; said: { adopted: boolean; how: string; servingUrl: string } }> => {
  const child = spawn(process.execPath, opening(dataDir), {
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  test.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.stdin?.end()
    await once(child, 'exit')
  })
  const [chunk] = (await once(child.stdout, 'data')) as [Buffer]
  return { child, said: JSON.parse(chunk.toString('utf8')) }
}

t.test('a new folder becomes a durable server that only we can reach', async (t) => {
  const dataDir = await embeddedFolder(t)
  const embedded = await open(t, dataDir)
  t.equal(embedded.adopted, false)
  t.match(embedded.how, isRoot ? /^as root, mapped to nobody|^as the account/ : /^as uid \d+$/)
  const settings = await ask(
    embedded.servingUrl,
    `select current_user as role, current_setting('fsync') as fsync, current_setting('synchronous_commit') as commit,
       current_setting('full_page_writes') as pages, current_setting('data_checksums') as checksums,
       current_setting('listen_addresses') as addresses, current_setting('max_connections') as connections,
       current_setting('server_encoding') as encoding,
       (select rolsuper or rolcreatedb or rolcreaterole from pg_roles where rolname = current_user) as mighty,
       has_database_privilege('chancery', 'create') or has_schema_privilege('public', 'create') as creates`,
  )
  t.strictSame(settings, {
    role: 'chancery',
    fsync: 'on',
    commit: 'on',
    pages: 'on',
    checksums: 'on',
    addresses: '',
    connections: '250',
    encoding: 'UTF8',
    mighty: false,
    creates: false,
  })
  const owner = await ask(
    embedded.ownerUrl,
    `select current_user as role, pg_get_userbyid(datdba) as owner, has_schema_privilege('public', 'create') as creates,
       (select rolsuper from pg_roles where rolname = current_user) as mighty
     from pg_database where datname = current_database()`,
  )
  t.strictSame(owner, { role: 'chancery_owner', owner: 'chancery_owner', creates: true, mighty: false })

  for (const path of ['', 'postgres', 'postgres/cluster', 'postgres/run']) {
    t.equal((await stat(join(dataDir, path))).mode & 0o777, 0o700, path)
  }
  for (const name of ['superuser', 'owner', 'serving']) {
    t.equal((await stat(join(dataDir, `postgres/${name}.password`))).mode & 0o777, 0o600, name)
  }
  await t.rejects(ask(embedded.servingUrl.replace(/:[^:@]*@/, ':guess@'), 'select 1'), { code: '28P01' })
})

t.test('a stopped server starts again with what it held', async (t) => {
  const dataDir = await embeddedFolder(t)
  const first = await open(t, dataDir)
  await ask(first.ownerUrl, 'create table kept as select 7 as n')
  const pid = await pidOf(dataDir)
  t.equal(await first.stop(), true)
  t.ok(isGone(pid))
  const second = await open(t, dataDir)
  t.equal(second.adopted, false)
  t.strictSame(await ask(second.ownerUrl, 'select n from kept'), { n: 7 })
})

t.test('whoever is present stays, however short the role makes sessions that are idle', async (t) => {
  const dataDir = await embeddedFolder(t)
  const { servingUrl } = await open(t, dataDir)
  await ask(servingUrl, `alter role chancery set idle_session_timeout = '50ms'`)
  // Another one, whose session begins with that.
  await open(t, dataDir)
  const present = () =>
    ask(
      servingUrl,
      `select array_agg(pid order by pid) as pids from pg_stat_activity where application_name = 'chancery presence'`,
    )
  const before = await present()
  t.match(before, { pids: { length: 2 } })
  await sleep(300)
  t.strictSame(await present(), before)
})

t.test('a server whose Chancery was killed is adopted', async (t) => {
  const dataDir = await embeddedFolder(t)
  const { child, said } = await another(t, dataDir)
  t.equal(said.adopted, false)
  const pid = await pidOf(dataDir)
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.notOk(isGone(pid))
  const embedded = await open(t, dataDir)
  t.equal(embedded.adopted, true)
  t.equal(await pidOf(dataDir), pid)
  t.equal(embedded.servingUrl, said.servingUrl)
  t.equal(await embedded.stop(), true, 'who adopted it stops it')
})

t.test(
  'the server is in a session of its own, where no Ctrl-C reaches it',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const dataDir = await embeddedFolder(t)
    await open(t, dataDir)
    const pid = await pidOf(dataDir)
    const [, , group, session] = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ')
    t.strictSame([Number(group), Number(session)], [pid, pid])
  },
)

slowTest('of a test that is killed no server is left, and nothing that it has written', async (t) => {
  const code = `
    import { openOwnEmbedded } from ${JSON.stringify(new URL('../helpers/embedded.ts', import.meta.url).href)}
    console.log((await openOwnEmbedded({ teardown() {} })).servingUrl)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const [url] = (await once(child.stdout, 'data')) as [Buffer]
  const dataDir = join(new URL(`${url}`.replace('@/', '@x/')).searchParams.get('host') ?? '', '../..')
  const pid = await pidOf(dataDir)
  t.notOk(isGone(pid))
  child.kill('SIGKILL')
  while (existsSync(join(dataDir, '..'))) await sleep(20)
  t.ok(isGone(pid))
})

t.test('a stale pid file is no obstacle, whoever has the pid now', async (t) => {
  const dataDir = await embeddedFolder(t)
  const first = await open(t, dataDir)
  const path = join(dataDir, 'postgres/cluster/postmaster.pid')
  const text = await readFile(path, 'utf8')
  await first.stop()
  const cases = {
    'a pid that belongs to another process': text.replace(/^\d+/, String(process.ppid)),
    'a pid that belongs to init': text.replace(/^\d+/, '1'),
    'a pid that belongs to nobody': text.replace(/^\d+/, '4194303'),
  }
  for (const [name, stale] of Object.entries(cases)) {
    await writeFile(path, stale)
    const embedded = await openEmbedded({ dataDir, log })
    t.equal(embedded.adopted, false, name)
    t.equal(await embedded.stop(), true)
  }
})

t.test('a password that is missing is named', async (t) => {
  const dataDir = await embeddedFolder(t)
  await (await openEmbedded({ dataDir, log })).stop()
  const path = join(dataDir, 'postgres/owner.password')
  await rm(path)
  await t.rejects(openEmbedded({ dataDir, log }), {
    constructor: SettingFault,
    message: `${path} is missing, and nobody gets into the embedded PostgreSQL beside it without it: bring it back, from the backup of that folder.`,
  })
})

slowTest('a data folder of another major version is refused with a sentence', async (t) => {
  const dataDir = await embeddedFolder(t)
  await (await open(t, dataDir)).stop()
  await writeFile(join(dataDir, 'postgres/cluster/PG_VERSION'), '17\n')
  await t.rejects(openEmbedded({ dataDir, log }), {
    constructor: SettingFault,
    message: /belongs to PostgreSQL 17, and the embedded one is 18\. Dump it/,
  })
  await t.test(
    'and so is one of an account that is not there',
    { skip: !isRoot && 'only root can give a folder away' },
    async (t) => {
      const cluster = join(dataDir, 'postgres/cluster')
      await chown(cluster, 54_321, 54_321)
      await t.rejects(openEmbedded({ dataDir, log }), {
        constructor: SettingFault,
        message: `${cluster} belongs to uid 54321, which does not exist here; give the folder to an account that does.`,
      })
    },
  )
})

t.test('a set-up that died half-way is cleared away and done again', async (t) => {
  const dataDir = await embeddedFolder(t)
  const half = join(dataDir, 'postgres.new-abcdef')
  await mkdir(join(half, 'cluster'), { recursive: true })
  await utimes(half, 0, 0)
  await mkdir(join(dataDir, 'postgres'))
  await open(t, dataDir)
  t.strictSame(await readdir(dataDir), ['postgres'])
})

t.test('of what initdb says where it fails, only the fault is told', async (t) => {
  const binaries = await findBinaries()
  const folder = await mkdtemp(join(tmpdir(), 'chancery-initdb-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await writeFile(join(folder, 'letter'), 'dear')
  const account = await decideAccount(folder, binaries, log)
  await t.rejects(runAs(account, [binaries.initdb, '--pgdata', folder]), {
    message: /initdb ended with 1: initdb: error: directory .+ is not empty/,
  })
})

slowTest(
  'where too few files may be open, what to set is told, of a new folder and of one that is there',
  async (t) => {
    const dataDir = await embeddedFolder(t)
    const told = () => {
      const args = ['-c', 'ulimit -n 48 && exec "$@"', 'sh', process.execPath, ...opening(dataDir)]
      return spawnSync('sh', args, { encoding: 'utf8' }).stderr
    }
    const advice =
      /SettingFault.*insufficient file descriptors.*\nAllow more open files \(ulimit -n, LimitNOFILE\)\.\n/s
    t.match(told(), advice)
    await (await open(t, dataDir)).stop()
    t.match(told(), advice)
  },
)

t.test('a folder with something else in it is refused with a sentence, and left alone', async (t) => {
  const dataDir = await embeddedFolder(t)
  await mkdir(join(dataDir, 'postgres'), { recursive: true })
  await writeFile(join(dataDir, 'postgres/letter'), 'dear')
  await t.rejects(openEmbedded({ dataDir, log }), {
    message: /holds no PostgreSQL data folder that we can read; move it away/,
  })
  t.strictSame(await readdir(join(dataDir, 'postgres')), ['letter'])
})

slowTest('three that start at once on a new folder share one server', async (t) => {
  const dataDir = await embeddedFolder(t)
  const all = await Promise.all([another(t, dataDir), another(t, dataDir), another(t, dataDir)])
  t.strictSame(all.map(({ said }) => said.adopted).sort(), [false, true, true])
  t.equal(new Set(all.map(({ said }) => said.servingUrl)).size, 1)
  t.strictSame(await readdir(dataDir), ['postgres'], 'nothing half-made is left')
  await ask(all[0].said.servingUrl, 'select 1')
})

slowTest('who leaves first leaves the server to the others', async (t) => {
  const dataDir = await embeddedFolder(t)
  const first = await open(t, dataDir)
  const { child } = await another(t, dataDir)
  t.equal(await first.stop(), false)
  const pid = await pidOf(dataDir)
  t.notOk(isGone(pid))
  child.stdin?.end()
  await once(child, 'exit')
  t.ok(isGone(pid), 'the last one stopped it')
})

slowTest('of those who leave at once, the last one stops the server', async (t) => {
  const dataDir = await embeddedFolder(t)
  const all = [await open(t, dataDir), await open(t, dataDir), await open(t, dataDir)]
  const pid = await pidOf(dataDir)
  const stopped = await Promise.all(all.map((embedded) => embedded.stop()))
  t.equal(stopped.filter(Boolean).length, 1)
  t.ok(isGone(pid))
})

slowTest('a path that is too long for a socket gets a short one', async (t) => {
  const dataDir = await embeddedFolder(t, `long-${'x'.repeat(120)}/data`)
  const embedded = await open(t, dataDir)
  const folder = new URL(embedded.servingUrl.replace('@/', '@x/')).searchParams.get('host') ?? ''
  t.ok(folder.startsWith(tmpdir()) && folder.length < 90, folder)
  t.equal((await stat(folder)).mode & 0o777, 0o700)
  t.strictSame(await ask(embedded.servingUrl, 'select 1 as n'), { n: 1 })
  await embedded.stop()
  t.teardown(() => rm(folder, { recursive: true, force: true }))
})

t.test(
  'as root where user namespaces are refused, an unprivileged account runs it',
  { skip: !isRoot && 'not root' },
  async (t) => {
    const dataDir = await embeddedFolder(t)
    // A PATH without unshare refuses as well as any kernel.
    const bin = join(dataDir, '../bin')
    await mkdir(bin)
    for (const name of ['sh', 'id'])
      await symlink(execFileSync('which', [name], { encoding: 'utf8' }).trim(), join(bin, name))
    await chmod(join(dataDir, '..'), 0o711)
    const env = { ...process.env, PATH: bin }
    const { said, child } = await another(t, dataDir, env)
    const cluster = await realpath(join(dataDir, 'postgres/cluster'))
    t.teardown(async () => {
      await rm(join(cluster, '..'), { recursive: true, force: true })
      // Copies of the programs, if it needed any, and the folder itself unless others use it.
      const shelter = join(cluster, '../..')
      if ((await readdir(shelter)).every((name) => name.startsWith('programs-'))) await rm(shelter, { recursive: true })
    })
    t.match(said.how, /^as the account \w+$/)
    t.not((await stat(cluster)).uid, 0)
    t.equal((await stat(join(cluster, '..'))).mode & 0o777, 0o700)
    t.strictSame(await ask(said.servingUrl, 'select 1 as n'), { n: 1 })
    child.kill('SIGKILL')
    await once(child, 'exit')
    const again = await open(t, dataDir)
    t.equal(again.adopted, true, 'and it is adopted, also where namespaces are allowed')
    t.equal(await again.stop(), true)
    const third = await open(t, dataDir)
    t.equal(third.how, said.how, 'whoever owns the data runs it')
    await third.stop()
  },
)
