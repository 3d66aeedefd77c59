/** Backups of a test's database: a cold copy of its files by the server itself, and back. */
import pg from 'pg'

import { openTestServer, type TestDatabase } from './database.ts'

export interface Backup {
  /** Makes the database what it was, whoever is connected to it. */
  restore(): Promise<void>
}

/** Nobody may be connected. */
export const takeBackup = async (
  t: { teardown(close: () => Promise<void>): void },
  { ownerUrl }: Pick<TestDatabase, 'ownerUrl'>,
): Promise<Backup> => {
  const name = new URL(ownerUrl.replace('@/', '@localhost/')).pathname.slice(1)
  const copy = `${name}_${made++}`
  await asSuperuser(`create database ${copy} template ${name} strategy file_copy`)
  t.teardown(() => asSuperuser(`drop database if exists ${copy} with (force)`))
  return {
    restore: () =>
      asSuperuser(
        `drop database ${name} with (force)`,
        `create database ${name} template ${copy} strategy file_copy owner chancery_owner`,
        `revoke temporary on database ${name} from public`,
      ),
  }
}

const asSuperuser = async (...statements: readonly string[]): Promise<void> => {
  const { superuserUrl } = await openTestServer()
  const client = new pg.Client({ connectionString: superuserUrl })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}

let made = 0
