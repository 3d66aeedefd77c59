/** Backups of the tests' databases, which all lie on one server. */
import pg from 'pg'
import t from 'tap'

import { nameOf, takeBackup } from '../helpers/backup.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'

t.test('a test that is ended while it restores its database takes no other down', async (t) => {
  const database = await openTestDatabase(t)
  const { superuserUrl } = await openTestServer()
  const other = new pg.Client({ connectionString: superuserUrl })
  const lost: Error[] = []
  other.on('error', (error: Error) => lost.push(error))
  await other.connect()
  t.teardown(() => other.end().catch(() => {}))
  const user = new pg.Client({ connectionString: database.ownerUrl })
  await user.connect()
  await user.end()
  const backup = await takeBackup(t, database)
  // Whoever has looked at the statistics of a database holds them for a while, also when it is dropped.
  const look = 'select pg_stat_get_db_xact_commit(oid) from pg_database where datname = $1'
  await other.query(look, [nameOf(database.ownerUrl)])
  await Promise.all([backup.restore(), database.close()])
  t.match(await other.query('select 1 as one'), { rows: [{ one: 1 }] })
  t.same(lost, [])
})
