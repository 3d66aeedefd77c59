import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type Database, openDatabase } from '../../src/db/database.ts'
import { rehearse } from '../../src/db/log-recovery.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'

const { servingUrl } = await openTestDatabase(t)
const db = openDatabase({ url: servingUrl, max: 2, log: quiet, applicationName: 'rehearsing' })
t.teardown(() => db.close())

/** Ends transactions that idle much sooner. */
const impatient: Database = {
  ...db,
  transaction: (work) =>
    db.transaction(async (tx) => {
      await tx.query({ text: `set local idle_in_transaction_session_timeout = '200ms'` })
      return work(tx)
    }),
}
const put = { text: 'insert into leases values (gen_random_uuid()::text, gen_random_uuid(), now())' }
const count = { text: 'select count(*)::int as there from leases' }

t.test('a rehearsal waits for its sources, however long, and changes nothing', async (t) => {
  let steps = 0
  await rehearse(impatient, async ({ transaction }) => {
    for (; steps < 2; steps += 1) {
      await transaction((tx) => tx.query(put))
      await sleep(600)
    }
    await transaction(async (tx) => t.same((await tx.query(count)).rows, [{ there: 2 }]))
  })
  t.equal(steps, 2)
  t.same((await db.query(count)).rows, [{ there: 0 }])
})
