/** Requests for issuers: one at a time for each name of a key, of all instances. */
import t from 'tap'

import { openIssuerStore } from '../../src/db/issuers.ts'
import { openReplica } from '../helpers/replica.ts'
import { tamper } from '../helpers/tamper.ts'

const { database, stores } = await openReplica(t)
const open = () => openIssuerStore({ db: stores.db, roll: stores.roll, longestValidity: () => 0 })
const endIdle = `select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and state = 'idle in transaction'`

t.test('what was done in a turn is done, though the connection that held it was lost', async (t) => {
  const done = await open().inTurn('a', async () => {
    await tamper(database, endIdle)
    return 'made'
  })
  t.equal(done, 'made')
  await t.rejects(
    open().inTurn('a', async () => {
      await tamper(database, endIdle)
      throw new Error('not made')
    }),
    { message: 'not made' },
  )
})
