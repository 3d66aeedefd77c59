import t, { type Test } from 'tap'

import { databaseClock } from '../../src/db/clock.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { type Head, openRollWriter, type RollWriter } from '../../src/db/log.ts'
import { codec } from '../../src/server/codec.ts'
import type { RollEvent } from '../../src/tlog/entries.ts'
import { openTestDatabase, type TestDatabase } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { setBackTo, tamper } from '../helpers/tamper.ts'

interface Roll {
  readonly database: TestDatabase
  readonly db: Database
  /** A replica that has seen nothing yet, or this head. */
  open(first?: Head, on?: Database): RollWriter
}

const openRoll = async (t: Test): Promise<Roll> => {
  const database = await openTestDatabase(t)
  const db = openDatabase({ url: database.servingUrl, max: 4, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const open: Roll['open'] = (first, on = db) =>
    openRollWriter(
      on,
      codec,
      databaseClock(() => new Date(), 5_000),
      first,
    )
  return { database, db, open }
}

const grow = async (roll: RollWriter, by: number, label = 'entry'): Promise<Head> => {
  const events = Array.from(
    { length: by },
    (_, i): RollEvent => ({ type: 'principal.created', principal: `${label} ${i}`, by: 'test' }),
  )
  await roll.change(async () => ({ events, result: undefined }))
  return roll.head()
}

const inconsistent = (message: RegExp) => ({ code: 'roll.inconsistent', message })

/** Neither read nor written, and all the same by one who writes first. */
const refuses = async (t: Test, { open, db }: Roll, seen: Head, message: RegExp): Promise<void> => {
  const before = await rows(db)
  await t.rejects(open(seen).head(), inconsistent(message))
  await t.rejects(grow(open(seen), 1), inconsistent(message))
  t.same(await rows(db), before, 'nothing is written')
}
const rows = async (db: Database) =>
  (await db.query({ text: 'select r.size, r.root, (select count(*) from entries) as entries from roll r' })).rows

t.test('a roll that was set back is told by whoever has seen more, with the entries that are missing', async (t) => {
  const roll = await openRoll(t)
  const { database, db, open } = roll
  const watcher = open()
  await grow(open(), 300)
  const back = await setBackTo(db, 299)
  const further = await setBackTo(db, 40)
  const seen = await watcher.head()
  await tamper(database, ...back)
  await refuses(t, roll, seen, /ends at 299, but 300 entries were seen before: entry 299 is missing/)
  await t.rejects(watcher.head(), inconsistent(/entry 299 is missing/), 'and by one that goes on watching')
  await tamper(database, ...further)
  await refuses(t, roll, seen, /ends at 40, but 300 .*entries 40 to 299 are missing.*chancery roll succeed/)
  // Who was not there cannot know.
  t.equal((await open().head()).size, 40)
})

t.test('a roll that was set back and written on is told, whether shorter, as long or longer', async (t) => {
  const roll = await openRoll(t)
  const { database, db, open } = roll
  const start = await grow(open(), 250)
  const watcher = open()
  await watcher.head()
  const seen = await grow(open(), 50)
  t.equal((await watcher.head()).size, 300)
  await tamper(database, ...(await setBackTo(db, 250)))
  t.equal((await open(start).head()).size, 250, 'the beginning is as it was')
  const other = open(start)
  await grow(other, 20, 'another')
  await refuses(t, roll, seen, /ends at 270, but 300 entries were seen/)
  await grow(other, 30, 'another')
  await refuses(t, roll, seen, /300 entries does not go on from the 300 that were seen before/)
  await t.rejects(watcher.head(), inconsistent(/does not go on from the 300/))
  await grow(other, 1, 'another')
  await refuses(t, roll, seen, /301 entries does not go on from the 300/)
  await t.rejects(watcher.head(), inconsistent(/does not go on from the 300/), 'leaf by leaf')
  await grow(other, 3_000, 'another')
  await refuses(t, roll, seen, /3301 entries does not go on from the 300/)
  await t.rejects(watcher.head(), inconsistent(/does not go on from the 300/), 'by a proof')
  t.equal((await other.head()).size, 3_301, 'who knows only the other one goes on')
})

t.test('what another one appends is followed, leaf by leaf or by a proof, to any size', async (t) => {
  const { open } = await openRoll(t)
  const writer = open()
  const watchers = [open(), open()]
  for (const by of [1, 2, 253, 1, 255, 1, 2_048, 2_049, 3_000, 7]) {
    const { size, root } = await grow(writer, by)
    for (const watcher of [...watchers, open()]) {
      const seen = await watcher.head()
      t.match({ size: seen.size, root: seen.root.toString('hex') }, { size, root: root.toString('hex') })
    }
    // They write in turn: each continues what the others have begun.
    watchers.push(watchers.shift() as RollWriter)
    await grow(watchers[0] as RollWriter, 1)
  }
})

t.test('a tree that is damaged at its right edge is not gone on with', async (t) => {
  const roll = await openRoll(t)
  const { database, db, open } = roll
  const seen = await grow(open(), 600)
  await tamper(database, 'alter table entries drop constraint leaf_of_body')
  const flip = (table: string, column: string, where: string): string =>
    `update ${table} set ${column} = set_byte(${column}, 5, get_byte(${column}, 5) # 4) where ${where}`
  for (const [what, harm, mend] of [
    ['a leaf', flip('entries', 'leaf_hash', 'index = 599'), undefined],
    ['a leaf within', flip('entries', 'leaf_hash', 'index = 530'), undefined],
    ['a subtree', flip('subtrees', 'hash', 'level = 1 and index = 1'), undefined],
    ['a root', flip('roll', 'root', 'true'), undefined],
    [
      'a subtree that is gone',
      'delete from subtrees where level = 1 and index = 1',
      'insert into subtrees select * from kept',
    ],
    ['a leaf that is gone', 'delete from entries where index = 580', 'insert into entries select * from kept_entries'],
  ] as const) {
    const keep =
      mend === undefined
        ? []
        : [
            'create table if not exists kept as select * from subtrees where level = 1 and index = 1',
            'create table if not exists kept_entries as select * from entries where index = 580',
          ]
    await tamper(database, ...keep, harm)
    t.comment(what)
    await refuses(t, roll, seen, /tree of the database's 600 entries is damaged/)
    // Even by those who have never seen it.
    await t.rejects(open().head(), inconsistent(/is damaged/))
    await tamper(database, mend ?? harm)
    t.equal((await open(seen).head()).size, 600, `${what}: mended`)
  }
  // What is full and passed is the verifier's: here it is not read again.
  await tamper(database, flip('entries', 'leaf_hash', 'index = 100'))
  t.equal((await open(seen).head()).size, 600)
  t.equal(await db.query({ text: 'select 1' }).then(({ rowCount }) => rowCount), 1)
})

t.test('a leaf that is damaged behind what was seen is no fork, whether leaves are followed or a proof', async (t) => {
  const { database, db, open } = await openRoll(t)
  const watcher = open()
  const writer = open()
  const start = await grow(writer, 250)
  await watcher.head()
  await tamper(database, 'alter table entries drop constraint leaf_of_body')
  const flip = 'update entries set leaf_hash = set_byte(leaf_hash, 5, get_byte(leaf_hash, 5) # 4) where index = 255'
  for (const by of [50, 3_000]) {
    const { size } = await grow(writer, by)
    await tamper(database, flip)
    const message = new RegExp(`tree of the database's ${size} entries is damaged: .*250 entries do not lead`)
    await t.rejects(watcher.head(), inconsistent(message), `${by} entries later`)
    await t.rejects(open(start).head(), inconsistent(message))
    await tamper(database, flip)
  }
  t.equal((await watcher.head()).size, 3_300, 'mended')
  t.equal(await db.query({ text: 'select 1' }).then(({ rowCount }) => rowCount), 1)
})

t.test('where a part of the proof cannot be read, no other is asked for', async (t) => {
  const { db, open } = await openRoll(t)
  const start = await grow(open(), 250)
  await grow(open(), 3_000)
  const asked: string[] = []
  let edgeTiles = 2
  /** A connection that fails when the proof is begun, after both tiles of the edge. */
  const failing: Database = {
    ...db,
    query: async (statement, values) => {
      if (!/^select_(leaves|subtrees)$/.test(statement.name ?? '') || edgeTiles-- > 0)
        return db.query(statement, values)
      asked.push(statement.name ?? '')
      throw new Error('it is gone')
    },
  }
  await t.rejects(open(start, failing).head(), { message: 'it is gone' })
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(asked.length, 1)
})

t.test('a look that is overtaken by our own commits is no false alarm', async (t) => {
  const { db, open } = await openRoll(t)
  let hold: Promise<void> | undefined
  /** A connection whose answers to one statement come late. */
  const slow: Database = {
    ...db,
    query: async (statement, values) => {
      const answer = await db.query(statement, values)
      if (statement.name === 'select_head') await hold
      return answer as never
    },
  }
  const roll = open(undefined, slow)
  await grow(roll, 10)
  for (const by of [1, 300, 3_000]) {
    const { promise, resolve } = Promise.withResolvers<void>()
    hold = promise
    const late = roll.head()
    await db.query({ text: 'select pg_sleep(0.05)' })
    hold = undefined
    const { size } = await grow(roll, by)
    resolve()
    t.ok((await late).size < size, 'it tells what it saw')
    t.equal((await roll.head()).size, size, 'and the newest stays the newest')
  }
})

t.test('what we have committed while a look was under way is not forgotten by that look', async (t) => {
  const { database, db, open } = await openRoll(t)
  const hold: { [W in 'asking' | 'answering']?: (() => Promise<void>) | undefined } = {}
  /** A connection on which one statement, or its answer, comes late. */
  const slow: Database = {
    ...db,
    query: async (statement, values) => {
      if (statement.name !== 'select_head') return db.query(statement, values)
      await hold.asking?.()
      const answer = await db.query(statement, values)
      await hold.answering?.()
      return answer as never
    },
  }
  const roll = open(undefined, slow)
  const looking = async (on: RollWriter, way: keyof typeof hold, meanwhile: () => Promise<void>) => {
    const [come, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    hold[way] = () => {
      come.resolve()
      return go.promise
    }
    const late = on.head().catch((error: unknown) => error as Error)
    await come.promise
    hold[way] = undefined
    await meanwhile()
    go.resolve()
    return late
  }
  const { size: older } = await grow(roll, 300)
  const late = await looking(roll, 'answering', async () => {
    await grow(roll, 5)
  })
  t.match(late, { size: older })
  await tamper(database, ...(await setBackTo(db, older)))
  await t.rejects(roll.head(), inconsistent(/entries 300 to 304 are missing/), 'by a look that has seen less')

  await grow(open(), 5, 'once more')
  const another = open(undefined, slow)
  await another.head()
  const back = await setBackTo(db, 305)
  const told = await looking(another, 'asking', async () => {
    await grow(another, 7)
    await tamper(database, ...back)
    await grow(open(), 20, 'another')
  })
  const forked = inconsistent(/325 entries does not go on from the 312/)
  t.match(told, forked, 'by a look that began before it')
  await t.rejects(another.head(), forked)
})

t.test('two that write at the same time see each other, and one roll', async (t) => {
  const { db, open } = await openRoll(t)
  const writers = [open(), open(), open()]
  await Promise.all(
    writers.flatMap((writer, w) => Array.from({ length: 20 }, (_, i) => grow(writer, 1 + (i % 3), `${w}/${i}`))),
  )
  const heads = await Promise.all([...writers, open()].map((writer) => writer.head()))
  t.equal(new Set(heads.map(({ size, root }) => `${size} ${root.toString('hex')}`)).size, 1)
  t.same(
    (await rows(db)).map(({ size, entries }) => size === entries),
    [true],
  )
})
