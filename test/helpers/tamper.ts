/** What somebody with the rights of a superuser can do to the records, past every trigger; and restored backups. */
import pg from 'pg'

import type { Database } from '../../src/db/database.ts'
import { tileReader } from '../../src/db/tree.ts'
import { codec } from '../../src/server/codec.ts'
import { readRoot } from '../../src/tlog/merkle.ts'
import { openTestServer, type TestDatabase } from './database.ts'

/** Runs statements one after the other, in one transaction, without triggers and foreign keys. */
export const tamper = async (
  { ownerUrl }: Pick<TestDatabase, 'ownerUrl'>,
  ...statements: readonly (string | readonly [string, readonly unknown[]])[]
): Promise<void> => {
  const { superuserUrl } = await openTestServer()
  const url = new URL(superuserUrl.replace('@/', '@localhost/'))
  const name = new URL(ownerUrl.replace('@/', '@localhost/')).pathname
  const client = new pg.Client({ connectionString: superuserUrl.replace(`@${url.pathname}`, `@${name}`) })
  await client.connect()
  try {
    await client.query('begin')
    await client.query('set local session_replication_role = replica')
    // Whoever writes waits, so that all statements see one state.
    await client.query('lock table roll in exclusive mode')
    for (const statement of statements) {
      const [text, values] = typeof statement === 'string' ? [statement, []] : statement
      await client.query(text, [...values])
    }
    await client.query('commit')
  } finally {
    await client.end()
  }
}

/** What makes the roll as it was at a size; the rest of the records stays as it is. */
export const setBackTo = async (db: Database, size: number): ReturnType<typeof statementsFor> =>
  statementsFor(size, Buffer.from(await readRoot(size, tileReader(db), codec.hasher)))

const statementsFor = async (size: number, root: Buffer) =>
  [
    ['delete from entries where index >= $1', [size]],
    ['delete from subtrees where (index + 1) * power(256, level) > $1', [size]],
    [
      'update roll set size = $1, root = $2, time = coalesce((select time from entries where index = $1::bigint - 1), to_timestamp(0))',
      [size, root],
    ],
  ] as const
