/** What the database turned down, and how soon it is seen that it does so no more. */
import pg from 'pg'
import t from 'tap'

import { openDatabase, type Queryable } from '../../src/db/database.ts'
import { lacksRights } from '../../src/db/safety.ts'
import { openTurnedDown } from '../../src/db/write-failures.ts'
import { Problem } from '../../src/errors.ts'
import { nameOf } from '../helpers/backup.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { openSql } from '../helpers/sql.ts'

const failing = (code: string): Problem =>
  new Problem('db.unavailable', 'a test', {
    cause: Object.assign(new pg.DatabaseError('no', 0, 'error'), { code }),
  })

/** A database whose disk is full or not, and a clock. */
const openDisk = () => {
  const state = { now: 0, looks: 0, answer: '' }
  const turnedDown = openTurnedDown(() => state.now)
  const db: Queryable = {
    query: async () => {
      state.looks += 1
      if (state.answer === '') return { rows: [] } as never
      const error = failing(state.answer)
      turnedDown.failed(error)
      throw error
    },
  }
  const at = async (now: number, answer: string): Promise<string | undefined> => {
    Object.assign(state, { now, answer })
    await turnedDown.look(db)
    return turnedDown.fault()
  }
  return { state, turnedDown, at }
}
const full = '53100'

t.test('room that is back is seen within seconds, by a look every few of them', async (t) => {
  const { state, turnedDown, at } = openDisk()
  t.equal(await at(0, full), undefined)
  t.equal(state.looks, 0, 'while nothing was turned down nobody looks')
  turnedDown.failed(failing(full))
  for (let now = 0; now <= 60_000; now += 1_000) t.match(await at(now, full), /no room/)
  t.equal(state.looks, 16)
  t.match(await at(61_000, ''), /no room/)
  t.equal(await at(64_000, ''), undefined)
  t.equal(state.looks, 17)
})

t.test('numbers of transactions that are all in use are told until one sees that there are some', async (t) => {
  const { turnedDown, at } = openDisk()
  turnedDown.failed(Object.assign(new pg.DatabaseError('too long for an index', 0, 'error'), { code: '54000' }))
  t.equal(await at(0, ''), undefined)
  turnedDown.failed(failing('54000'))
  t.match(await at(1_000, '54000'), /^the database has no number left for another transaction: vacuum what its log /)
  t.equal(await at(6_000, ''), undefined)
})

t.test('a look that cannot tell, or that sees room for little, ends no fault before its time', async (t) => {
  const { turnedDown, at } = openDisk()
  turnedDown.failed(failing(full))
  for (const [now, code] of [
    [5_000, '42883'],
    [15_000, ''],
    [29_999, ''],
  ] as const)
    t.match(await at(now, code), /no room/)
  t.equal(await at(30_000, ''), undefined)
})

t.test('damaged files are told where issuing meets them, for as long as it does', async (t) => {
  const { turnedDown, at } = openDisk()
  turnedDown.failed(failing('XX001'), 'some search')
  turnedDown.failed(Object.assign(new pg.DatabaseError('a guard', 0, 'error'), { code: 'XX001' }), 'enrol')
  t.equal(await at(0, ''), undefined)
  turnedDown.failed(failing('XX001'), 'enrol')
  t.match(await at(29_000, ''), /^the database finds files of its own damaged, as its log says: let another server /)
  turnedDown.recorded()
  t.equal(await at(29_001, ''), undefined)
  turnedDown.failed(failing('XX002'), 'commit')
  t.match(await at(58_000, ''), /damaged/)
  t.equal(await at(60_000, ''), undefined)
})

t.test('a lock is told of while it is kept, and not because somebody waited for one once', async (t) => {
  const { turnedDown, at, state } = openDisk()
  const taken = '55P03'
  turnedDown.failed(failing(taken))
  t.equal(await at(0, ''), undefined, 'what issuing takes was not what was waited for')
  state.now = 10_000
  turnedDown.failed(failing(taken))
  for (let now = 10_000; now <= 90_000; now += 1_000)
    t.match(await at(now, taken), /^a lock of another session .*doctor/)
  t.equal(await at(94_000, ''), undefined)
})

t.test('a look for room leaves nothing behind', async (t) => {
  const { servingUrl } = await openTestDatabase(t)
  const db = openDatabase({ url: servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(db.close)
  const turnedDown = openTurnedDown()
  turnedDown.failed(failing(full))
  const size = `select pg_relation_size('pg_largeobject')::integer as size`
  t.same((await db.query({ text: size })).rows, [{ size: 0 }])
  await turnedDown.look(db)
  t.ok(((await db.query<{ size: number }>({ text: size })).rows[0]?.size ?? 0) >= 262_144, 'it has asked for room')
  t.same((await db.query({ text: 'select oid from pg_largeobject_metadata' })).rows, [])
})

t.test('who may not look for room is not said to lack a right of ours', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const { superuserUrl } = await openTestServer()
  const superuser = new pg.Client({ connectionString: superuserUrl.replace('/postgres?', `/${nameOf(ownerUrl)}?`) })
  await superuser.connect()
  t.teardown(() => superuser.end())
  const turnedDown = openTurnedDown()
  const observe = (_name: string, _seconds: number, failed: boolean, error?: unknown): void =>
    failed ? turnedDown.failed(error) : undefined
  const db = openDatabase({ url: servingUrl, max: 1, log: quiet, applicationName: 'test', observe })
  t.teardown(db.close)
  for (const right of ['execute on function lo_from_bytea(oid, bytea)', 'usage on language plpgsql']) {
    await superuser.query(`revoke ${right} from public`)
    const one = openTurnedDown()
    one.failed(failing(full))
    await one.look(db)
    t.equal(turnedDown.fault(), undefined, right)
  }
})

t.test('nor is he where the server speaks another language', async (t) => {
  for (const [message, isOurs] of [
    ['lo_from_bytea fonksiyonuna erişim engellendi', false],
    ['pg_reload_conf fonksiyonuna erişim engellendi', false],
    ['plpgsql diline erişim engellendi', false],
    ['intents tablosuna erişim engellendi', true],
  ] as const) {
    const turnedDown = openTurnedDown()
    turnedDown.failed(Object.assign(new pg.DatabaseError(message, 0, 'error'), { code: '42501' }))
    t.equal(turnedDown.fault() !== undefined, isOurs, message)
  }
})

t.test('each right that the schema gives is missed when it is gone', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t)
  const owner = await openSql(t, ownerUrl)
  const db = openDatabase({ url: servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(db.close)
  t.equal(await lacksRights(db), false)
  const { superuserUrl } = await openTestServer()
  const superuser = await openSql(t, superuserUrl.replace('/postgres?', `/${nameOf(ownerUrl)}?`))
  await superuser.query('create table heartbeat (n int)')
  t.equal(await lacksRights(db), false, 'of what is somebody else’s none is needed')
  await superuser.query('drop table heartbeat')
  for (const right of [
    'insert on intents',
    'select on refusals',
    'select on certificates',
    'insert on issuer_key_uris',
    'update (size) on roll',
    'update (der) on crl_files',
    'execute on function note_replica(uuid)',
    'usage on schema public',
  ]) {
    await owner.query(`revoke ${right} from chancery`)
    if (right.includes('schema')) await owner.query('revoke usage on schema public from public')
    t.equal(await lacksRights(db), true, right)
    await owner.query(`select grant_serving('chancery')`)
    t.equal(await lacksRights(db), false, right)
  }
  await owner.query('alter table revocations enable row level security')
  t.equal(await lacksRights(db), true, 'rows that a policy hides')
  await owner.query('alter table revocations disable row level security')
  t.equal(await lacksRights(db), false)
})
