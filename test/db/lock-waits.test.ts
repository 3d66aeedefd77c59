/** Whether another session keeps what issuing writes, and which one. */
import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { heldUpBy, isHeldUp } from '../../src/db/lock-waits.ts'
import { migrate } from '../../src/db/migrate.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { embeddedFolder, openOwnEmbedded } from '../helpers/embedded.ts'
import { quiet as log } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql, openSql } from '../helpers/sql.ts'

slowTest('a forgotten transaction that has what issuing takes is told by its session, until it ends', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const forgotten = await openSql(t, ownerUrl)
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  const { pid } = (await forgotten.query('select pg_backend_pid() as pid')).rows[0]
  const cases: readonly (readonly [lock: string, isHeld: boolean])[] = [
    ['lock table intents', true],
    ['lock table outcomes in share mode', true],
    ['lock table entries in exclusive mode', true],
    ['lock table certificate_names in share mode', true],
    ['lock table approval_ends in share mode', true],
    ['lock table spent_tokens in share mode', true],
    ['lock table approval_standings', true],
    ['lock table identity_providers', true],
    ['lock table tokens', true],
    ['lock table tokens in exclusive mode', false],
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

t.test('a head that goes from one to the next is held up by nobody, and by whoever keeps it', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const [one, next, looking] = [await openSql(t, ownerUrl), await openSql(t, ownerUrl), await openSql(t, ownerUrl)]
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  const waiting = `select from pg_locks join pg_stat_activity using (pid) where datname = current_database() and not granted`
  const untilThereWait = async (count: number) => {
    while ((await looking.query(waiting)).rowCount !== count);
  }
  // It moves without an entry here.
  await one.query('alter table roll disable trigger user')
  // The next one in the line has it until ours has given up.
  const isHeldUpWhile = async (change: string) => {
    await one.query('begin; select from roll for update')
    const turn = next.query('begin; select from roll for update')
    await untilThereWait(1)
    const asked = isHeldUp(db)
    await untilThereWait(2)
    await one.query(change)
    await turn
    const isHeld = await asked
    await next.query('rollback')
    return isHeld
  }
  t.equal(await isHeldUpWhile('rollback'), true, 'it stands')
  t.equal(await isHeldUpWhile('update roll set size = size + 1; commit'), false, 'it moves')
})

slowTest('what was prepared has no session, and is told as what it is', async (t) => {
  // A server of its own: the setting is for all who use it, and takes a start.
  const dataDir = await embeddedFolder(t)
  const first = await openOwnEmbedded(t, dataDir)
  await askSql(first.superuserUrl, 'alter system set max_prepared_transactions = 1')
  await first.stop()
  const { ownerUrl, servingUrl } = await openOwnEmbedded(t, dataDir)
  await migrate({ ownerUrl, servingRole: 'chancery', log })
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  await askSql(ownerUrl, "begin; lock table intents; prepare transaction 'forgotten'")
  const told = await heldUpBy(db)
  t.equal(told.length, 1)
  t.match(told[0], /^a prepared transaction keeps a lock .*pg_prepared_xacts.* rollback prepared/)
  await askSql(ownerUrl, "rollback prepared 'forgotten'")
  t.same(await heldUpBy(db), [])
})

t.test('where nobody can tell, nothing is said', async (t) => {
  const { servingUrl } = await openTestDatabase(t, { empty: true })
  const db = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  t.equal(await isHeldUp(db), undefined)
  t.same(await heldUpBy(db), [])
})
