import { randomUUID } from 'node:crypto'

import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { openLeases } from '../../src/db/leases.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'

t.test('one instance at a time, and another when it lets go or is late', async (t) => {
  const service = await openTestService(t)
  const db = openDatabase({ url: service.database.servingUrl, max: 2, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const [one, two] = [openLeases(db, randomUUID()), openLeases(db, randomUUID())]
  t.equal(await one.take('work', 60_000), true)
  t.equal(await two.take('work', 60_000), false)
  t.equal(await two.take('work', 59_500), false, 'a little less is no sign of a clock that was set back')
  t.equal(await two.take('other', 60_000), true, 'each has a name')
  t.equal(await one.take('work', 60_000), true, 'renewed')
  await one.release()
  t.equal(await two.take('work', 50), true, 'let go')
  t.equal(await one.take('other', 60_000), false, "of one's own only")
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal(await one.take('work', 60_000), true, 'late')
  await db.query({ text: `update leases set until = now() + interval '1 hour' where name = 'work'` })
  t.equal(await two.take('work', 60_000), true, 'dated further ahead than any is taken for: the clock was set back')
  const at = await Promise.all(Array.from({ length: 8 }, () => openLeases(db, randomUUID()).take('new', 60_000)))
  t.equal(at.filter(Boolean).length, 1, 'of many at once, one')
})
