/** Where a run takes place: a temporary folder, and the product's own PostgreSQL with its own durable settings in it. */
import { mkdir, mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'

import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { quiet } from '../test/helpers/log.ts'

export interface Place {
  readonly folder: string
  /** Of the server; its children are the rest of it. */
  readonly postmaster: number
  /** The server's own data folder. */
  readonly cluster: string
  /** A folder below, made. */
  makeFolder(name: string): Promise<string>
  /** A new database of the owner. */
  createDatabase(name: string): Promise<DatabaseUrls>
  /** Closes the server and removes everything. */
  close(): Promise<void>
}

export interface DatabaseUrls {
  readonly name: string
  /** Unix socket, as `host=` of libpq. */
  readonly socketFolder: string
  readonly superuserPassword: string
  readonly superuserUrl: string
  readonly ownerUrl: string
  readonly servingUrl: string
}

export const openPlace = async (): Promise<Place> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-bench-'))
  const dataDir = join(folder, 'server')
  await mkdir(dataDir, { mode: 0o700 })
  const server = await openEmbedded({ dataDir, log: quiet })
  const superuserPassword = (await readFile(join(dataDir, 'postgres', 'superuser.password'), 'utf8')).trim()
  const superuserUrl = server.ownerUrl.replace(/\/\/[^@]*@\/chancery/, `//postgres:${superuserPassword}@/postgres`)
  const cluster = await realpath(join(dataDir, 'postgres', 'cluster'))
  const pidFile = await readFile(join(cluster, 'postmaster.pid'), 'utf8')
  return {
    folder,
    postmaster: Number.parseInt(pidFile, 10),
    cluster,
    makeFolder: async (name) => {
      const path = join(folder, name)
      await mkdir(path, { mode: 0o700 })
      return path
    },
    createDatabase: async (title) => {
      const name = `bench_${title}`
      await withClient(superuserUrl, (client) => client.query(`create database "${name}" owner chancery_owner`))
      const inDatabase = (url: string): string => url.replace(/@\/[a-z]+\?/, `@/${name}?`)
      return {
        name,
        socketFolder: new URL(superuserUrl.replace('@/', '@socket/')).searchParams.get('host') ?? '',
        superuserPassword,
        superuserUrl: inDatabase(superuserUrl),
        ownerUrl: inDatabase(server.ownerUrl),
        servingUrl: inDatabase(server.servingUrl),
      }
    },
    close: async () => {
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  return work(client).finally(() => client.end())
}

/** The first column of the first row, as a number. */
export const countBy = (url: string, sql: string): Promise<number> =>
  withClient(url, async (client) => Number(Object.values((await client.query(sql)).rows[0] ?? {})[0] ?? 0))
