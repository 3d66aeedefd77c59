/** Whether another session keeps what issuing writes, and which one. */
import t from 'tap'

import { openDatabase } from '../../src/store/database.ts'
import { heldUpBy, isHeldUp } from '../../src/store/held-up.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet as log } from '../helpers/log.ts'
import { openSql } from '../helpers/sql.ts'

t.test('a forgotten transaction that has what issuing takes is told by its session, until it ends', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const forgotten = await openSql(t, ownerUrl)
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  const { pid } = (await forgotten.query('select pg_backend_pid() as pid')).rows[0]
  const cases: readonly (readonly [lock: string, isHeld: boolean])[] = [
    ['lock table intents', true],
    ['lock table outcomes in share mode', true],
    ['lock table entries in exclusive mode', true],
    ['select from roll for update', true],
    ['lock table refusals', false],
    ['select from roll, intents, outcomes', false],
  ]
  for (const [lock, isHeld] of cases) {
    await forgotten.query('begin')
    await forgotten.query(lock)
    t.equal(await isHeldUp(db), isHeld, lock)
    const told = await heldUpBy(db)
    t.equal(told.length, isHeld ? 1 : 0, lock)
    if (isHeld)
      t.match(told[0], new RegExp(`^the session ${pid} of the role chancery_owner .*terminate_backend\\(${pid}\\)`))
    await forgotten.query('rollback')
    t.equal(await isHeldUp(db), false, 'it has ended')
  }
})

t.test('who waits as well is not what is waited for', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const [forgotten, waiting] = [await openSql(t, ownerUrl), await openSql(t, ownerUrl)]
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  const { pid } = (await forgotten.query('select pg_backend_pid() as pid')).rows[0]
  await forgotten.query('begin; lock table intents in row exclusive mode')
  const indexing = waiting.query('begin; lock table intents in share mode')
  const isWaiting = `select from pg_locks where relation = 'intents'::regclass and not granted`
  while ((await forgotten.query(isWaiting)).rowCount === 0);
  const told = await heldUpBy(db)
  t.equal(told.length, 1)
  t.match(told[0], new RegExp(`^the session ${pid} `))
  await forgotten.query('rollback')
  await indexing
})

t.test('where nobody can tell, nothing is said', async (t) => {
  const { servingUrl } = await openTestDatabase(t, { empty: true })
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  t.equal(await isHeldUp(db), undefined)
  t.same(await heldUpBy(db), [])
})
