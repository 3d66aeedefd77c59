/** What reads all the records at once, on the real PostgreSQL. */
import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { withRollRows } from '../../src/db/log-rows.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { openSql } from '../helpers/sql.ts'

t.test('reading all there is takes as long as it takes, whatever the timeouts', async (t) => {
  const { ownerUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const { rows } = await owner.query<{ name: string }>('select current_database() as name')
  const timeouts = ['statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout']
  for (const timeout of timeouts) await owner.query(`alter database ${rows[0]?.name} set ${timeout} = '20s'`)
  const db = openDatabase({ url: ownerUrl, max: 1, log: quiet, applicationName: 'test', patient: true })
  t.teardown(() => db.close())
  const text = `select name, current_setting(name) as value from unnest('{${timeouts}}'::text[]) as name`
  const told = await db.query({ text })
  t.strictSame(new Set(told.rows.map(({ value }) => value)), new Set(['20s']), 'what a session has')
  t.strictSame(
    await withRollRows(db, (rows) => rows.table({ text })),
    timeouts.map((name) => ({ name, value: '0' })),
  )
})

t.test(
  'it is one snapshot, hides nothing, and its times are told in one way, whatever the database says',
  async (t) => {
    const { ownerUrl } = await openTestDatabase(t)
    const owner = await openSql(t, ownerUrl)
    const { rows } = await owner.query<{ name: string }>('select current_database() as name')
    for (const setting of [`timezone = 'Asia/Tokyo'`, `datestyle = 'SQL, DMY'`])
      await owner.query(`alter database ${rows[0]?.name} set ${setting}`)
    const db = openDatabase({ url: ownerUrl, max: 1, log: quiet, applicationName: 'test', patient: true })
    t.teardown(() => db.close())
    const names = ['transaction_isolation', 'transaction_read_only', 'row_security', 'timezone', 'datestyle']
    const text = `select current_setting(name) as value from unnest('{${names}}'::text[]) as name`
    const told = await withRollRows(db, (found) => found.table({ text }))
    t.strictSame(
      told.map(({ value }) => value),
      ['repeatable read', 'on', 'off', 'UTC', 'ISO, DMY'],
    )
  },
)
