/** Whether something has ended is one rule, which code and SQL tell alike. */
import t from 'tap'

import { hasEndedBy, isLivingAt } from '../../src/db/validity.ts'
import { hasEnded } from '../../src/policy/validity.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { openSql } from '../helpers/sql.ts'

t.test('the second that notAfter names is within, to its last millisecond (RFC 5280 4.1.2.5)', async (t) => {
  const { ownerUrl } = await openTestDatabase(t, { empty: true })
  const sql = await openSql(t, ownerUrl)
  const notAfter = new Date('2031-11-26T12:00:00Z')
  const text = `select ${hasEndedBy('$1::timestamptz', '$2::timestamptz')} as ended,
    ${isLivingAt('$1::timestamptz', '$2::timestamptz')} as living`
  for (const [ms, ended] of [
    [-1, false],
    [0, false],
    [1, false],
    [999, false],
    [1_000, true],
  ] as const) {
    const now = new Date(notAfter.getTime() + ms)
    t.equal(hasEnded(notAfter, now), ended, `${ms} ms after it`)
    t.same((await sql.query(text, [notAfter, now])).rows, [{ ended, living: !ended }], `${ms} ms after it, in SQL`)
  }
})
