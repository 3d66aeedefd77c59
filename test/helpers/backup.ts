/** Backups of a test's database: a cold copy of its files by the server itself, and back. */
import pg from 'pg'

import { inTurn, openTestServer, type TestDatabase } from './database.ts'

export interface Backup {
  /** Makes the database what it was, whoever is connected to it. */
  restore(): Promise<void>
}

/** Nobody may be connected. */
export const takeBackup = async (
  t: { teardown(close: () => Promise<void>): void },
  { ownerUrl }: Pick<TestDatabase, 'ownerUrl'>,
): Promise<Backup> => {
  const name = nameOf(ownerUrl)
  const copy = await copyOf(t, name)
  const oid = (await asSuperuser(`select oid from pg_database where datname = '${name}'`))[0]?.['oid']
  /**
   * To the server's statistics what was dropped is not there again before somebody comes to it. Who drops it before that takes the
   * server down, and with it all tests beside this one: "trying to drop stats entry already dropped" in a commit is a PANIC.
   */
  const restore = async (): Promise<void> => {
    await asSuperuser(
      `drop database ${name} with (force)`,
      // As with the files of a whole server: it is the same database.
      `create database ${name} template ${copy} oid ${oid} owner chancery_owner`,
      `revoke temporary on database ${name} from public`,
    )
    await withClient(ownerUrl, (client) => client.query('select'))
  }
  return { restore: () => inTurn(restore) }
}

/** Another database beside it, with all that is in it, as of a dump that was loaded there. Nobody may be connected. */
export const copyBeside = async (
  t: { teardown(close: () => Promise<void>): void },
  { ownerUrl, servingUrl }: Pick<TestDatabase, 'ownerUrl' | 'servingUrl'>,
): Promise<Pick<TestDatabase, 'ownerUrl' | 'servingUrl'>> => {
  const name = nameOf(ownerUrl)
  const copy = await copyOf(t, name)
  await asSuperuser(
    `alter database ${copy} owner to chancery_owner`,
    `revoke temporary on database ${copy} from public`,
  )
  const inCopy = (url: string): string => url.replace(`/${name}`, `/${copy}`)
  return { ownerUrl: inCopy(ownerUrl), servingUrl: inCopy(servingUrl) }
}

export const nameOf = (url: string): string => new URL(url.replace('@/', '@localhost/')).pathname.slice(1)

const copyOf = async (t: { teardown(close: () => Promise<void>): void }, name: string): Promise<string> => {
  const copy = `${name}_${made++}`
  await asSuperuser(`create database ${copy} template ${name}`)
  t.teardown(async () => void (await asSuperuser(`drop database if exists ${copy} with (force)`)))
  return copy
}

/** Resolves to the rows of the last one. */
const asSuperuser = async (...statements: readonly string[]): Promise<readonly Record<string, unknown>[]> => {
  const { superuserUrl } = await openTestServer()
  return withClient(superuserUrl, async (client) => {
    let rows: Record<string, unknown>[] = []
    for (const statement of statements) rows = (await client.query(statement)).rows
    return rows
  })
}

const withClient = async <T>(connectionString: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  return work(client).finally(() => client.end())
}

let made = 0
