/** The first start: with others at once, behind others, over a database that is slow or goes away in the middle. */
import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import pg from 'pg'
import t, { type Test } from 'tap'

import { encodeRootCrlTbs, seal } from '../../src/ca/issuers/ceremony.ts'
import type { ImportedCrl } from '../../src/ca/revocation/crl-import.ts'
import { bootstrap } from '../../src/cli/bootstrap.ts'
import { type Serving, serve } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config/config.ts'
import { openImportStore } from '../../src/db/crls.ts'
import type { Queryable } from '../../src/db/database.ts'
import { Problem } from '../../src/errors.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { slowTest, slowUnless } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { csrFor } from '../http/people.ts'

const nextSubject = [{ type: 'commonName', value: 'next' }]

/** An empty database and an empty data folder, and what starts an instance on them. */
const openNowhere = async (t: Test) => {
  const database = await openTestDatabase(t, { empty: true })
  const data = await mkdtemp(join(tmpdir(), 'chancery-bootstrap-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const start = async ({ through = asIs, log = quiet, env = {} } = {}): Promise<Serving> => {
    const config = await loadConfig({
      CHANCERY_DATA: data,
      CHANCERY_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_URL: 'http://pki.test',
      CHANCERY_DATABASE_URL: through(database.servingUrl),
      CHANCERY_MIGRATION_URL: through(database.ownerUrl),
      ...env,
    })
    const serving = await serve(config, log)
    t.teardown(serving.close)
    return serving
  }
  return { data, database, start }
}

/** Everything is there once, and works: an administrator's token, profiles, an issuer for each authority. */
const assertWhole = async (t: Test, { data, database }: Awaited<ReturnType<typeof openNowhere>>, serving: Serving) => {
  const headers = { authorization: `Bearer ${(await readFile(join(data, 'admin.token'), 'utf8')).trim()}` }
  const payload = { csr: csrFor('first.example.com'), profile: 'server' }
  const { app } = serving.service
  const issued = await app.inject({ method: 'POST', url: '/v1/certificates', headers, payload })
  t.equal(issued.statusCode, 201, 'it issues')
  const owner = new pg.Client({ connectionString: database.ownerUrl })
  await owner.connect()
  const { rows } = await owner.query(`
    select array(select name from issuers order by name) as issuers,
      (select count(distinct chain[1])::integer from issuers) as roots,
      array(select name || '@' || max(version) from profiles group by name having max(version) > 1) as changed,
      (select count(*)::integer from profiles) as profiles,
      (select count(*)::integer from grants where role = 'admin') as administrators,
      (select count(*)::integer from entries where body like '%"type":"principal.created"%' and body like '%"principal":"admin"%') as made`)
  await owner.end()
  const seeds = (await readdir(join(import.meta.dirname, '../../src/policy/seeds'))).length
  t.same(rows[0], {
    issuers: ['default', 'etcd', 'front-proxy', 'kubernetes'],
    roots: 1,
    changed: [],
    profiles: seeds + 1,
    administrators: 1,
    made: 1,
  })
}

slowTest('of those who start at once on one empty database, one makes what is missing, and all serve', async (t) => {
  const nowhere = await openNowhere(t)
  const all = await Promise.all([nowhere.start(), nowhere.start(), nowhere.start()])
  for (const serving of all) await assertWhole(t, nowhere, serving)
})

slowTest('whoever comes while another one bootstraps waits as long as that takes, whatever the timeouts', async (t) => {
  const first = await openReplica(t)
  const { database } = first
  const other = await openSql(t, database.ownerUrl)
  const { rows } = await other.query<{ name: string }>('select current_database() as name')
  const timeouts = ['lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout']
  for (const timeout of timeouts) await other.query(`alter database ${rows[0]?.name} set ${timeout} = '1s'`)
  const { stores: hurried, keys } = await openReplica(t, {
    beside: first,
    env: { CHANCERY_DATABASE_PREPARED_STATEMENTS: 'no' },
  })
  // What the client itself does with a server that answers no more, which takes it fifteen seconds.
  const impatient = (tx: Queryable): Queryable => ({
    query: async (statement, values) => {
      const answer = await Promise.race([tx.query(statement, values), sleep(1_500)])
      if (answer === undefined) throw new Problem('db.unavailable', 'The database did not finish.')
      return answer as never
    },
  })
  const db = {
    ...hurried.db,
    apart: (work) => hurried.db.apart((tx) => work(impatient(tx))),
  } as typeof hurried.db
  await other.query('select pg_advisory_lock(4711000001)')
  let done = false
  // And it takes its time itself, while its transaction is idle.
  const refresh = () => sleep(1_500).then(hurried.policies.refresh)
  const waiting = bootstrap({ ...hurried, db, policies: { ...hurried.policies, refresh } }, keys).then(() => {
    done = true
  })
  await Promise.race([waiting, sleep(2_500)])
  t.equal(done, false, 'it waits')
  await other.query('select pg_advisory_unlock(4711000001)')
  await t.resolves(waiting)
})

t.test("the development root's next list repeats what the one before it has revoked", async (t) => {
  const { stores, keys } = await openReplica(t)
  const store = openImportStore(stores)
  const newest = async () => (await store.newest())[0] as ImportedCrl
  const first = await newest()
  const key = await keys.open('file:offline-root/root.key.pem')
  const root = await readFile(join(stores.config.dataDir, 'offline-root', 'root.der'))
  const revoked = [{ serial: Buffer.alloc(16, 7), revokedAt: first.thisUpdate, reason: 'cACompromise' as const }]
  const { thisUpdate, nextUpdate } = first
  const der = await seal(key, encodeRootCrlTbs(key, root, { number: 2n, thisUpdate, nextUpdate, revoked }))
  const told = { issuer: 'default', revoked: 1, sha256: hash('sha256', der), by: 'admin' }
  await store.add({ ...first, ...told, number: 2n, der }, () => true)
  await bootstrap({ ...stores, clock: () => new Date(nextUpdate.getTime() - 1_000) }, keys)
  const last = await newest()
  t.equal(last.number, 3n)
  t.same(parseCrl(last.der).revoked, revoked)
})

t.test("a start makes the development root's next CRL at half of its time, once", async (t) => {
  const { stores, keys } = await openReplica(t)
  const newest = async () => (await openImportStore(stores).newest())[0] as ImportedCrl
  const { thisUpdate, nextUpdate } = await newest()
  const half = (thisUpdate.getTime() + nextUpdate.getTime()) / 2
  const numberAt = async (now: number): Promise<bigint> => {
    await bootstrap({ ...stores, clock: () => new Date(now) }, keys)
    return (await newest()).number
  }
  t.equal(await numberAt(half), 1n)
  t.equal(await numberAt(half + 1), 2n)
  t.equal(await numberAt(half + 60_000), 2n)
  t.ok((await newest()).nextUpdate > nextUpdate)
  const year = 365 * 86_400_000
  const key = join(stores.config.dataDir, 'offline-root', 'root.key.pem')
  await rename(key, `${key}.offline`)
  t.equal(await numberAt(half + year), 2n, 'a ceremony makes it where the key is not here any more')
  t.notOk(existsSync(key), 'and no other key takes its place')
})

slowTest('a root whose key was taken offline certifies no more, and no other key takes its place', async (t) => {
  const { stores } = await openReplica(t)
  const nowhere = await openNowhere(t)
  const [from, to] = [stores.config.dataDir, nowhere.data].map((folder) => join(folder, 'offline-root'))
  await mkdir(to as string, { mode: 0o700 })
  await copyFile(join(from as string, 'root.der'), join(to as string, 'root.der'))
  await t.rejects(nowhere.start(), {
    name: 'Failure',
    kind: 'missing',
    message: /root\.der is to sign an issuer, and its key is not here: put it back at .*root\.key\.pem/,
  })
  t.same(await readdir(to as string), ['root.der'])
})

slowTest('a database that lets every connection wait is waited for', async (t) => {
  const nowhere = await openNowhere(t)
  const proxy = await openProxy(t, 500)
  await assertWhole(t, nowhere, await nowhere.start({ through: proxy.through }))
})

slowTest('a first start that lost its database is ended by the next one', async (t) => {
  for (const [event, times] of [
    ['migrate.applied', 1],
    ['hierarchy.root', 1],
    ['hierarchy.intermediate', 1],
    ['hierarchy.intermediate', 4],
    ['bootstrap.admin', 1],
  ] as const) {
    const nowhere = await openNowhere(t)
    const proxy = await openProxy(t)
    let seen = 0
    const info = (line: unknown): void => {
      if ((line as { event: string }).event !== event) return
      seen += 1
      if (seen === times) proxy.cut()
    }
    await t.rejects(nowhere.start({ through: proxy.through, log: { ...quiet, info } }), `after ${event} ${times}`)
    t.equal(seen, times)
    await assertWhole(t, nowhere, await nowhere.start())
  }
})

slowTest(
  'a passphrase that is away is not made up anew: nothing signs until it is back, and then without a restart',
  async (t) => {
    const nowhere = await openNowhere(t)
    await (await nowhere.start()).close()
    const [keys, away] = [join(nowhere.data, 'keys'), join(nowhere.data, 'away')]
    await rename(keys, away)
    const serving = await nowhere.start()
    const { app, keyFaults } = serving.service
    t.match(keyFaults(), [/passphrase is not there, and no other .*: put its folder back/])
    const headers = { authorization: `Bearer ${(await readFile(join(nowhere.data, 'admin.token'), 'utf8')).trim()}` }
    const payload = { name: 'next', authority: 'default', key: 'file:keys/next.pem', subject: nextSubject }
    const asked = await app.inject({ method: 'POST', url: '/v1/issuer-requests', headers, payload })
    t.match(asked.json(), { detail: /passphrase is not there/ }, 'nor for another key')
    t.notOk(existsSync(keys))

    await rename(away, keys)
    const right = await readFile(join(keys, 'passphrase'))
    await writeFile(join(keys, 'passphrase'), 'that of another folder')
    while (!keyFaults().some((fault) => /not a key that this passphrase opens/.test(fault))) await sleep(50)
    await writeFile(join(keys, 'passphrase'), right)
    while (keyFaults().length > 0) await sleep(50)
    await assertWhole(t, nowhere, serving)
  },
)

for (const signer of ['process', 'inline'])
  slowUnless(
    signer === 'process',
    `a pipe tells its passphrase once (${signer}), also where a key does not open by it`,
    async (t) => {
      const nowhere = await openNowhere(t)
      const pipe = join(nowhere.data, 'pipe')
      await promisify(execFile)('mkfifo', ['-m', '600', pipe])
      const env = { CHANCERY_KEY_PASSPHRASE_FILE: pipe, CHANCERY_SIGNER: signer }
      const start = async (): Promise<Serving> => {
        const [serving] = await Promise.all([nowhere.start({ env }), writeFile(pipe, 'told by a pipe, and once')])
        return serving
      }
      await (await start()).close()
      await rm(join(nowhere.data, 'keys', 'etcd.pem'))
      const serving = await start()
      t.match(serving.service.keyFaults(), [/etcd/])
      const headers = { authorization: `Bearer ${(await readFile(join(nowhere.data, 'admin.token'), 'utf8')).trim()}` }
      const payload = { name: 'next', authority: 'default', key: 'file:keys/next.pem', subject: nextSubject }
      const asked = await serving.service.app.inject({ method: 'POST', url: '/v1/issuer-requests', headers, payload })
      t.equal(asked.statusCode, 201, asked.body)
      await assertWhole(t, nowhere, serving)
    },
  )

/** Stands between an instance and the database's socket. */
const openProxy = async (t: Test, delayMs = 0) => {
  const sockets = new Set<Socket>()
  let socketPath = ''
  let down = false
  const server = createServer(async (socket) => {
    socket.on('error', () => {})
    sockets.add(socket)
    if (down) return socket.destroy()
    await sleep(delayMs)
    const upstream = connect(socketPath)
    upstream.on('error', () => socket.destroy())
    socket.on('close', () => upstream.destroy())
    upstream.on('close', () => socket.destroy())
    socket.pipe(upstream).pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return {
    /** The same database through this. */
    through: (url: string): string => {
      const { searchParams } = new URL(url.replace('@/', '@socket/'))
      socketPath = join(searchParams.get('host') ?? '', `.s.PGSQL.${searchParams.get('port') ?? 5432}`)
      return url.replace(/@\/([^?]*)\?.*/, `@127.0.0.1:${port}/$1`)
    },
    cut: (): void => {
      down = true
      for (const socket of sockets) socket.destroy()
    },
  }
}

const asIs = (url: string): string => url
