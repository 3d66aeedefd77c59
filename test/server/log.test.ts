import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import type { Config } from '../../src/config/config.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { readDatabaseId, readStanding } from '../../src/db/log-opening.ts'
import { Problem } from '../../src/errors.ts'
import type { SigningKey } from '../../src/keys/signing-key.ts'
import { openRollForTheFirstTime, openRollSide } from '../../src/server/log.ts'
import { assertSameRecords, assertWhole, readAnchor, WrongRecords } from '../../src/server/log-checks.ts'
import type { Checkpoint } from '../../src/tlog/checkpoint.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { slowTest } from '../helpers/slow.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-side-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const { stores, keys, config } = await openReplica(t)
/** With an anchor of this name, or none. */
const anchored = (name?: string): Config => {
  const { anchor: _, ...roll } = config.roll
  return { ...config, roll: name === undefined ? roll : { ...roll, anchor: join(folder, name) } }
}
/** Something that nobody waits for: the checkpoint of it is signed at the latest when all is closed. */
const write = (database: string | null = null) =>
  stores.roll.change(async () => ({
    events: [{ type: 'database.adopted', database, before: null, reason: null, by: 'test' }],
    result: undefined,
  }))

t.test('an anchor that cannot be read is told, and how to mend it; none is none', async (t) => {
  t.equal(await readAnchor(anchored()), undefined)
  t.equal(await readAnchor(anchored('not there yet')), undefined)
  const { checkpoints, close } = await openRollSide({ ...stores, config: anchored() }, keys)
  t.match(await checkpoints.newest(), { size: (await stores.roll.head()).size })
  await close()
  await writeFile(join(folder, 'damaged'), 'x'.repeat(1_024))
  await t.rejects(readAnchor(anchored('damaged')), { message: /^\S+ is damaged: it holds no whole checkpoint\./ })
  await symlink('loop', join(folder, 'loop'))
  for (const [name, code] of [
    ['.', 'EISDIR'],
    ['loop', 'ELOOP'],
  ] as const) {
    const unread = await readAnchor(anchored(name)).catch((error: unknown) => error)
    t.type(unread, WrongRecords)
    const message = new RegExp(
      `^The anchor \\S+ cannot be read \\(${code}\\): let the account .*, or name the right file by CHANCERY_ROLL_ANCHOR\\.$`,
    )
    t.match(unread, { message })
    const opened = openRollSide({ ...stores, config: anchored(name) }, keys)
    await t.rejects(opened, { message: /^CHANCERY_ROLL_ANCHOR: / })
  }
})

t.test('an anchor that takes nothing at the first start is told of, and keeps nothing from being opened', async (t) => {
  const told: unknown[] = []
  const log = { ...quiet, error: ({ event }: { readonly event?: unknown }) => void told.push(event) }
  const disk = openFullDisk()
  t.teardown(disk.free)
  disk.fill(0)
  const { checkpoints, close } = await openRollSide({ ...stores, config: anchored('full'), log }, keys)
  t.teardown(close)
  t.same(told, ['roll.unanchored'])
  disk.free()
  const { size } = await checkpoints.newest()
  t.match(await readAnchor(anchored('full')), { size }, 'and the next checkpoint is in it')
})

for (const [what, sign] of [
  ['fails', () => Promise.reject(new Error('no token'))],
  ['hangs', () => new Promise<never>(() => {})],
] as const)
  t.test(`a key of the roll that ${what} keeps nothing from being closed`, async (t) => {
    let [isBroken, asked, closed] = [false, 0, 0]
    const open = async (uri: string): Promise<SigningKey> => {
      const key = await keys.open(uri)
      const broken = () => {
        asked += 1
        return sign()
      }
      const end = async () => {
        closed += 1
        await key.close()
      }
      return { ...key, sign: (...asks) => (isBroken ? broken() : key.sign(...asks)), close: end }
    }
    const { checkpoints, close } = await openRollSide({ ...stores, config: anchored(what) }, { open })
    const { size } = await checkpoints.newest()
    await write()
    isBroken = true
    await close()
    t.not(asked, 0)
    t.equal(closed, 1)
    t.equal((await readAnchor(anchored(what)))?.size, size + 1, 'and what was written last is seen all the same')
  })

t.test('records are told apart by the name of their roll, from what was seen and what is set', async (t) => {
  const empty = await openTestDatabase(t)
  const without = openDatabase({ url: empty.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(without.close)
  const of = (origin: string, size = 1): Checkpoint => ({ origin, size, root: Buffer.alloc(32) })
  const [ours, other] = ['localhost/roll', 'other.example/roll']
  const cases: readonly [Database, Checkpoint | undefined, string | undefined, RegExp | undefined][] = [
    [stores.db, undefined, undefined, undefined],
    [stores.db, of(ours), ours, undefined],
    [
      stores.db,
      of(other),
      undefined,
      /^The database holds the roll localhost\/roll, but .* is of the roll other\.example/,
    ],
    [stores.db, undefined, other, /^The roll on record is called localhost\/roll, and keeps its name/],
    [without, undefined, undefined, undefined],
    [without, undefined, other, undefined],
    [without, of(other, 0), other, undefined],
    [without, of(other), other, /^The database holds no roll, but .* has seen 1 entries of the roll other\.example/],
  ]
  for (const [db, seen, origin, message] of cases) {
    const told = assertSameRecords(db, { roll: { ...config.roll, ...(origin !== undefined && { origin }) } }, seen)
    if (message) await t.rejects(told, { message })
    else await t.resolves(told)
  }
})

t.test('the head of other records is told as such, and that of none as it comes', async (t) => {
  const broken = { head: () => Promise.reject(new Problem('roll.inconsistent', 'It is another one.')) }
  const told = await assertWhole(broken).catch((error: unknown) => error)
  t.type(told, WrongRecords)
  t.match(told, { message: 'It is another one.' })
  const away = { head: () => Promise.reject(new Problem('db.unavailable', 'It is away.')) }
  await t.rejects(assertWhole(away), { code: 'db.unavailable' })
  t.same(await assertWhole(stores.roll), await stores.roll.head())
})

t.test('records are where they were, elsewhere on the server, or on another one', async (t) => {
  const found = (await readDatabaseId(stores.db)) as string
  const [server, oid] = found.split('/') as [string, string]
  const told = (db: Database = stores.db) => assertSameRecords(db, config, undefined)
  for (const database of [found, server, null]) {
    await write(database)
    await t.resolves(told())
  }
  await write(`${server}/1`)
  const message = `The records were in another database of this server (oid 1, and this one has ${oid}), of which this is a copy`
  await t.rejects(told(), { message: new RegExp(`^${message.replace(/[()]/g, '\\$&')}`) })

  await write('1/2')
  const moved = `The records were on the database server 1, and this is`
  const adopt = `"chancery roll adopt-database" accepts a move.`
  await t.rejects(told(), { message: `${moved} ${server}: ${adopt}` })
  const query = (statement: { readonly name?: string }, ...values: unknown[]) =>
    statement.name === 'select_database_id'
      ? Promise.reject(Object.assign(new Error('permission denied'), { code: '42501' }))
      : stores.db.query(statement as never, ...(values as never[]))
  const silent = { ...stores.db, query } as Database
  await t.rejects(told(silent), { message: `${moved} one that does not tell its number: ${adopt}` })
})

slowTest('what a start adds to a roll is said once, and of what there is', async (t) => {
  const start = async () => {
    const { size } = await stores.roll.head()
    await openRollForTheFirstTime(stores, keys)
    return (await stores.roll.head()).size - size
  }
  const found = (await readDatabaseId(stores.db)) as string
  for (const database of [found, null]) {
    await write(database)
    t.equal(await start(), 0)
    t.equal((await readStanding(stores.db)).database, database)
  }
  // Of a version that knew of servers alone.
  await write(found.split('/')[0])
  t.equal(await start(), 1)
  t.equal((await readStanding(stores.db)).database, found)
  t.equal(await start(), 0)
  const named = await openReplica(t, { env: { CHANCERY_NAMES: 'ca.example.com,10.0.0.1' } })
  t.equal((await readStanding(named.stores.db)).opened?.origin, 'ca.example.com/roll')
})
