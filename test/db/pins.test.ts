/** The records of tries to log in, on the real PostgreSQL, by the role that serves. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { databaseClock } from '../../src/db/clock.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { openPinGuard, unlatchTokens } from '../../src/db/pins.ts'
import { codec } from '../../src/server/codec.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { openSql } from '../helpers/sql.ts'

const { servingUrl, ownerUrl } = await openTestDatabase(t)
const open = (max = 2): Database => {
  const db = openDatabase({ url: servingUrl, max, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  return db
}
const db = open()
const rollOf = (over: Database) =>
  openRollWriter(
    over,
    codec,
    databaseClock(() => new Date(), 5_000),
  )
const deps = { db, roll: rollOf(db), log: quiet }
let tokens = 0
const newPlace = () => {
  tokens += 1
  return { token: `token ${tokens}`, serial: `${tokens}` }
}
type Place = ReturnType<typeof newPlace>
const refusedAs = (place: Place) => ({ ...place, salt: '01'.repeat(16), digest: '02'.repeat(32) })

/** What a replica that starts now is told. */
const eventsOf = async ({ token }: Place) => {
  const text = `select body from entries where type like 'pin.%' and body::jsonb->>'token' = $1 order by index`
  const { rows } = await db.query<{ body: string }>({ text }, [token])
  return rows.map(({ body }) => {
    const { type, tokenSerial, by } = JSON.parse(body)
    return [type, tokenSerial, ...(by ? [by] : [])]
  })
}
const past = (place: Place) => openPinGuard(deps).inTurn(place, async ({ past }) => past)
/** One that begins and dies. */
const cutOff = (place: Place) => openPinGuard(deps).inTurn(place, ({ begin }) => begin())
const logIn = (place: Place) =>
  openPinGuard(deps).inTurn(place, async ({ begin, end }) => {
    await begin()
    await end('accepted')
  })

t.test('a try is on record before it is made, and counts until a login or an operator settles it', async (t) => {
  const place = newPlace()
  await cutOff(place)
  t.match(await past(place), { unfinished: 1, unlatched: false })
  await cutOff(place)
  t.match(await past(place), { unfinished: 2 })
  t.match(await past(newPlace()), { unfinished: 0 }, 'and of no other token')
  await logIn(place)
  t.match(await past(place), { unfinished: 0 })

  await cutOff(place)
  t.same(await unlatchTokens(deps, place.token, 'os:ops'), [place])
  t.match(await past(place), { unfinished: 0, unlatched: true })
  await openPinGuard(deps).inTurn(place, async ({ begin, end }) => {
    await begin()
    await end('failed')
  })
  t.match(await past(place), { unfinished: 0, unlatched: false }, 'a failure counts for nothing; the leave was for one')
  t.same(await unlatchTokens(deps, place.token, 'os:ops'), [], 'there is nothing to unlatch')
})

t.test('a refused PIN is told until an operator says otherwise', async (t) => {
  const place = newPlace()
  const pin = refusedAs(place)
  await openPinGuard(deps).inTurn(place, async ({ begin, end }) => {
    await begin()
    await end(pin)
  })
  t.same(await past(place), { refused: [pin], unfinished: 0, unlatched: false })
  await logIn(place)
  t.match(await past(place), { refused: [pin] }, 'another PIN is another matter')
  t.same(await unlatchTokens(deps, place.token, 'os:ops'), [place])
  t.same(await past(place), { refused: [], unfinished: 0, unlatched: true })
  t.same(await eventsOf(place), [
    ['pin.refused', place.serial],
    ['pin.unlatched', place.serial, 'os:ops'],
  ])
})

t.test('a token that was withheld once is on record once, and an operator lets it be tried', async (t) => {
  const place = newPlace()
  for (let i = 0; i < 3; i += 1) await openPinGuard(deps).inTurn(place, ({ withhold }) => withhold())
  const { rows } = await db.query({ text: 'select count(*)::int as n from pin_tries where token = $1' }, [place.token])
  t.same(rows, [{ n: 1 }])
  t.match(await past(place), { unfinished: 0, unlatched: false })
  t.same(await unlatchTokens(deps, place.token, 'os:ops'), [place])
  t.match(await past(place), { unlatched: true })
})

t.test(
  'where the records are read-only nothing is begun; what could not be told of an end is told first',
  async (t) => {
    const place = newPlace()
    let fails = false
    const brittle: Database = {
      ...db,
      transaction: (work) => (fails ? Promise.reject(new Error('read-only')) : db.transaction(work)),
      query: (statement, values) => (fails ? Promise.reject(new Error('read-only')) : db.query(statement, values)),
    }
    const guard = openPinGuard({ ...deps, db: brittle, roll: rollOf(brittle) })
    const pin = refusedAs(place)
    await guard.inTurn(place, async ({ begin, end }) => {
      await begin()
      fails = true
      await end(pin)
    })
    t.match(await past(place), { refused: { length: 0 }, unfinished: 1 }, 'the records know that it was begun')
    await t.rejects(
      guard.inTurn(place, async () => t.fail('a turn without records')),
      /read-only/,
    )
    fails = false
    for (let i = 0; i < 2; i += 1)
      t.same(await guard.inTurn(place, async (turn) => turn.past), { refused: [pin], unfinished: 0, unlatched: false })
    t.same(await eventsOf(place), [['pin.refused', place.serial]], 'once')
  },
)

t.test('one turn at a time for each token, and no connection of the pool', async (t) => {
  const narrow = open(2)
  const guard = openPinGuard({ ...deps, db: narrow })
  const place = newPlace()
  let busy = 0
  const work = async (): Promise<void> => {
    busy += 1
    t.equal(busy, 1)
    await sleep(100)
    busy -= 1
  }
  const hanging = Promise.withResolvers<void>()
  const others = Array.from({ length: 6 }, () => guard.inTurn(newPlace(), () => hanging.promise))
  await Promise.all([1, 2, 3].map(() => guard.inTurn(place, work)))
  t.same((await narrow.query({ text: 'select 1 as one' })).rows, [{ one: 1 }])
  t.equal(narrow.load.waiting, 0)
  hanging.resolve()
  await Promise.all(others)
})

t.test('a turn ends with the process that had it', async (t) => {
  const place = newPlace()
  const dies = openPinGuard({ ...deps, db: open() }).inTurn(place, async ({ begin }) => {
    await begin()
    const client = await openSql(t, ownerUrl)
    await client.query(
      `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
    )
  })
  await t.rejects(dies)
  const start = performance.now()
  t.match(await past(place), { unfinished: 1 })
  t.ok(performance.now() - start < 2_000)
})

t.test('nothing of it can be changed', async (t) => {
  for (const table of ['pin_tries', 'pin_tries_ended', 'unlatched_tokens'])
    for (const text of [`delete from ${table}`, `update ${table} set at = now()`])
      await t.rejects(db.query({ text }), /permission denied/, text)
})
