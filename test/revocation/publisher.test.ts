/** Publishing on bad days: several at once, a clock that is wrong, a key that does not sign; and what leaves a list. */
import { randomUUID } from 'node:crypto'

import t, { type Test } from 'tap'

import type { Placed } from '../../src/ca/issuers/issuers.ts'
import { type CrlPublisherDeps, openCrlPublisher } from '../../src/ca/revocation/crl.ts'
import { openCrlShelf } from '../../src/ca/revocation/crl-cache.ts'
import { openCrlWatch } from '../../src/ca/revocation/crl-monitor.ts'
import { type DatabaseClock, databaseClock } from '../../src/db/clock.ts'
import { openCrlStore, openShelfStore } from '../../src/db/crls.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { SigningFault } from '../../src/keys/signing-key.ts'
import { codec } from '../../src/server/codec.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { issueAt, revokeAt } from '../helpers/certificates.ts'
import { sha256 } from '../helpers/hash.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql, openSql } from '../helpers/sql.ts'
import { openStandIn, reached } from '../http/stand-in.ts'

let service: TestService
let placed: Placed

t.before(async () => {
  // The job of the service would be at it too.
  service = await openTestService(t, { CHANCERY_CRL_PERIOD: '30d', CHANCERY_CRL_VALIDITY: '90d' })
  await service.service.publishCrls()
  const found = service.service.issuers.all().find(({ issuer }) => issuer.name === 'default')
  if (!found) throw new Error('there is no issuer default')
  placed = found
  const holder = randomUUID()
  const hold = (): Promise<unknown> =>
    sql(`insert into leases values ('crls/default', '${holder}', now() + interval '9 seconds')
      on conflict (name) do update set holder = excluded.holder, until = excluded.until`)
  await hold()
  const holding = setInterval(() => void hold().catch(() => {}), 3_000)
  t.teardown(() => clearInterval(holding))
})

const sql = <Row extends object>(text: string): Promise<readonly Row[]> => askSql(service.database.ownerUrl, text)

let elapsed = 0

const openedFor = (test: Test): Database => {
  const db = openDatabase({ url: service.database.servingUrl, max: 4, log: quiet, applicationName: 'test' })
  test.teardown(() => db.close())
  return db
}

const open = (
  over: Partial<CrlPublisherDeps> & { readonly aheadMs?: number; readonly dbClock?: DatabaseClock } = {},
) => {
  const { aheadMs = 0, dbClock = databaseClock(() => new Date(), 5_000), ...rest } = over
  const db = openedFor(t)
  const roll = openRollWriter(db, codec, dbClock)
  const failures: string[] = []
  const shelf = openCrlShelf(openShelfStore(db))
  const publisher = openCrlPublisher({
    store: openCrlStore({ db, roll }),
    issuers: { all: () => [placed] },
    times: { periodMs: 30 * 86_400_000, validityMs: 90 * 86_400_000 },
    successions: 0,
    clock: () => new Date(Date.now() + aheadMs),
    assertClock: () => {},
    chance: () => 1,
    sha256,
    nextTurn: () => new Promise((resolve) => setImmediate(resolve)),
    mayGoOn: async () => true,
    // Each run is long after the one before.
    elapsedMs: () => (elapsed += 3_600_000),
    published: (lists) => shelf.put(lists),
    failed: (_issuer, error) => failures.push((error as Error).message),
    ...rest,
  })
  return { publisher, failures, shelf }
}

const issue = async (validity?: string): Promise<string> =>
  (await issueAt(service, { ...(validity && { validity }) })).serial
const revoke = (serial: string): Promise<void> => revokeAt(service, serial)
const shardOf = (serial: string): number => Buffer.from(serial, 'hex').readUInt32BE(12) % 128
const revokeNeighbourOf = async (serial: string): Promise<void> => {
  for (;;) {
    const other = await issue()
    if (shardOf(other) === shardOf(serial)) return revoke(other)
  }
}
/** Of a list that nothing was published of before but its first: others may have two of one second, or one dated ahead. */
const issueOnFreshList = async (): Promise<string> => {
  for (;;) {
    const serial = await issue()
    if ((await numbersOf(shardOf(serial))).length === 1) return serial
  }
}
const numbersOf = async (shard: number): Promise<number[]> =>
  (
    await sql<{ number: string }>(
      `select number from crls where issuer = 'default' and shard = ${shard} order by number`,
    )
  ).map(({ number }) => Number(number))

slowTest('several that publish at once repeat no number and lose nothing', async (t) => {
  const made = await Promise.all(Array.from({ length: 12 }, () => issue()))
  const publishers = Array.from({ length: 4 }, () => open())
  for (const serial of made) {
    await revoke(serial)
    await Promise.all(publishers.map(({ publisher }) => publisher.run()))
  }
  await publishers[0]?.publisher.run()
  const { shelf } = open()
  await shelf.refresh()
  for (const serial of made) {
    const list = shelf.find('default', shardOf(serial))
    t.ok(parseCrl(list?.der as Buffer).revoked.some((entry) => entry.serial.toString('hex') === serial))
    const numbers = await numbersOf(shardOf(serial))
    t.same(
      numbers,
      numbers.map((_, i) => i + 1),
    )
    t.equal(list?.number, numbers.length, 'the newest is served')
  }
  const failures = publishers.flatMap((one) => one.failures)
  t.ok(
    failures.every((text) => /another instance/.test(text)),
    [...new Set(failures)].join(),
  )
})

t.test('a clock that has gone back publishes nothing, and says so', async (t) => {
  const serial = await issue()
  await revoke(serial)
  const back = open({ aheadMs: -86_400_000 })
  const before = await numbersOf(shardOf(serial))
  await back.publisher.run()
  t.match(back.failures, [/the clock has gone back/])
  const unsane = open({
    assertClock: () => {
      throw new Error('skewed')
    },
  })
  await unsane.publisher.run()
  t.same(unsane.failures, ['skewed'])
  t.same(await numbersOf(shardOf(serial)), before)
  await open().publisher.run()
  t.equal((await numbersOf(shardOf(serial))).length, before.length + 1)
})

t.test('a clock that jumps while lists are made dates none of them', async (t) => {
  const serial = await issue()
  await revoke(serial)
  let jumpedMs = 0
  const dbClock = databaseClock(() => new Date(Date.now() + jumpedMs), 5_000)
  const { publisher, failures } = open({
    dbClock,
    clock: dbClock.now,
    assertClock: dbClock.assertSane,
    // Asked for once before anything is read, and once before each piece of work.
    mayGoOn: async () => {
      if (dbClock.readAt().getTime() > opened) jumpedMs = 86_400_000
      return true
    },
  })
  const opened = dbClock.readAt().getTime()
  const before = await numbersOf(shardOf(serial))
  await publisher.run()
  t.match(failures, [/our clock is 86400.\d s ahead of the database's/])
  t.same(await numbersOf(shardOf(serial)), before)
  await open().publisher.run()
  t.equal((await numbersOf(shardOf(serial))).length, before.length + 1, 'and once it is mended the next list is made')
})

t.test('a key that does not sign, or signs wrongly, leaves the last list; its number is not used again', async (t) => {
  const serial = await issue()
  await revoke(serial)
  const shard = shardOf(serial)
  const { shelf } = open()
  await shelf.refresh()
  const last = shelf.find('default', shard)?.number ?? 0
  let distrusted = 0
  const distrust = (): void => {
    distrusted += 1
  }
  for (const [what, signature, reason] of [
    ['does not sign', new SigningFault('unknown', 'the token is gone'), /the token is gone/],
    ['signs wrongly', Buffer.alloc(64, 7), /does not verify/],
  ] as const) {
    const broken = {
      ...placed,
      issuer: {
        ...placed.issuer,
        key: placed.issuer.key,
        assertAvailable: () => {},
        distrust,
        sign: async () => signature,
      },
    }
    const { publisher, failures } = open({ issuers: { all: () => [broken] } })
    await publisher.run()
    t.match(failures, [reason], what)
    await shelf.refresh()
    t.equal(shelf.find('default', shard)?.number, last)
  }
  t.ok(distrusted > 0, 'nothing more is signed by one that signs wrongly')
  const { publisher, failures } = open()
  await publisher.run()
  t.same(failures, [])
  await shelf.refresh()
  t.equal(shelf.find('default', shard)?.number, last + 3, 'two were recorded, and never seen')
})

t.test('an instance whose key is out of use leaves the lease to others, and one that fails waits', async (t) => {
  const serial = await issue()
  await revoke(serial)
  const asked: string[] = []
  const mayGoOn = async (issuer: string): Promise<boolean> => asked.push(issuer) > 0
  const unavailable = {
    ...placed,
    issuer: {
      ...placed.issuer,
      key: placed.issuer.key,
      assertAvailable: () => {
        throw new Error('the token is gone')
      },
    },
  }
  let now = 0
  const broken = open({ issuers: { all: () => [unavailable] }, mayGoOn, elapsedMs: () => now })
  const numbers = await numbersOf(shardOf(serial))
  for (const elapsed of [0, 4_999, 5_000, 14_999, 15_000, 34_000]) {
    now = elapsed
    await broken.publisher.run()
  }
  t.same(broken.failures, ['the token is gone', 'the token is gone', 'the token is gone'], 'at 0, 5 and 15 s')
  t.same(asked, [])
  t.same(await numbersOf(shardOf(serial)), numbers, 'nothing was recorded in vain')
  await open().publisher.run()
  t.equal((await numbersOf(shardOf(serial))).length, numbers.length + 1)
})

t.test(
  'a key that takes its time is asked for a few at once, and what it signed before it failed is not lost',
  async (t) => {
    const made = await Promise.all(Array.from({ length: 24 }, () => issue()))
    for (const serial of made) await revoke(serial)
    const shards = new Set(made.map(shardOf))
    let [under, most, signed] = [0, 0, 0]
    const slow = {
      ...placed,
      issuer: {
        ...placed.issuer,
        key: placed.issuer.key,
        assertAvailable: () => {},
        distrust: () => {},
        sign: async (tbs: Buffer) => {
          under += 1
          most = Math.max(most, under)
          await new Promise((resolve) => setTimeout(resolve, 5))
          under -= 1
          if (signed >= 6) return new SigningFault('late', 'too late')
          signed += 1
          return placed.issuer.sign(tbs)
        },
      },
    }
    const { publisher, failures, shelf } = open({ issuers: { all: () => [slow] } })
    const before = new Map([...shards].map((shard) => [shard, shelf.find('default', shard)?.number ?? 0]))
    await publisher.run()
    t.equal(most, 4)
    t.match(failures, [/too late/])
    await shelf.refresh()
    const isListed = (serial: string): boolean => {
      const list = shelf.find('default', shardOf(serial))
      return parseCrl(list?.der as Buffer).revoked.some((entry) => entry.serial.toString('hex') === serial)
    }
    t.ok(made.filter(isListed).length >= 6, 'six lists are in their places')
    t.notOk(made.every(isListed))
    t.ok(before.size > 6)
    await open().publisher.run()
    await shelf.refresh()
    t.ok(made.every(isListed))
  },
)

t.test('readiness is told of lists that are missing for long, near their end, or late', async (t) => {
  let now = 0
  const { shelf } = open()
  const far = (days: number): Date => new Date(Date.now() + days * 86_400_000)
  let state: Placed['state'] = 'active'
  let seconds = 0
  let of = 'default'
  const watch = (lists: Parameters<typeof openCrlWatch>[0]['shelf'], clock = () => far(0)) =>
    openCrlWatch({
      shelf: lists,
      store: { unlisted: async () => (seconds === 0 ? [] : [{ issuer: of, shards: 2, seconds }]) },
      issuers: { all: () => [{ ...placed, state }] },
      clock,
      marginMs: 86_400_000,
      elapsedMs: () => now,
    })
  const empty = watch(shelf)
  t.equal(empty.fault(), undefined, 'they may be on their way')
  now = 61_000
  t.match(empty.fault(), /128 of default are missing/)
  await shelf.refresh()
  t.equal(empty.fault(), undefined)
  t.equal(watch(shelf, () => far(88)).fault(), undefined)
  const ending = watch(shelf, () => far(89.5))
  t.match(ending.fault(), /128 of default end at 20/)
  for (state of ['retiring', 'crl-only'] as const) {
    t.equal(ending.fault(), undefined, 'one that signs nothing takes nobody out of service')
    t.match(ending.warning(), /128 of default end at 20/, state)
  }
  for (state of ['staged', 'retired'] as const)
    t.same([ending.fault(), ending.warning()], [undefined, undefined], state)
  state = 'active'
  t.equal(ending.warning(), undefined)
  seconds = 59
  await empty.look()
  t.equal(empty.fault(), undefined)
  seconds = 61
  await empty.look()
  t.match(empty.fault(), /2 of default do not know what has happened 61 s ago/)
  of = 'etcd'
  await empty.look()
  t.equal(empty.fault(), undefined, 'what another one is late with is no fault of this one')
})

t.test('a list that is there again and goes once more is waited for as long as the first time', async (t) => {
  let now = 0
  let missing = true
  const { shelf } = open()
  await shelf.refresh()
  const watch = openCrlWatch({
    shelf: { find: (issuer, shard) => (missing && shard === 3 ? undefined : shelf.find(issuer, shard)) },
    store: { unlisted: async () => [] },
    issuers: { all: () => [placed] },
    clock: () => new Date(),
    marginMs: 0,
    elapsedMs: () => now,
  })
  t.equal(watch.fault(), undefined)
  now = 60_000
  t.equal(watch.fault(), undefined)
  now = 60_001
  t.match(watch.fault(), / 1 of default are missing/)
  missing = false
  t.equal(watch.fault(), undefined)
  missing = true
  now = 62_000
  t.equal(watch.fault(), undefined, 'it may be on its way')
  now = 123_000
  t.match(watch.fault(), / 1 of default are missing/)
})

t.test('one list that ends is enough, and of several the first end is told', async (t) => {
  const { shelf } = open()
  await shelf.refresh()
  const ends = new Map<number, Date>()
  const endOf = (shard: number): Date => ends.get(shard) ?? new Date('2030-02-01')
  const watch = openCrlWatch({
    shelf: {
      find: (issuer, shard) => {
        const list = shelf.find(issuer, shard)
        return list && { ...list, nextUpdate: endOf(shard) }
      },
    },
    store: { unlisted: async () => [] },
    issuers: { all: () => [placed] },
    clock: () => new Date('2030-01-01'),
    marginMs: 86_400_000,
  })
  t.equal(watch.fault(), undefined)
  ends.set(7, new Date('2030-01-02'))
  t.equal(watch.fault(), undefined)
  ends.set(7, new Date('2030-01-01T23:59:59.999Z'))
  t.match(watch.fault(), / 1 of default end at 2030-01-01T23:59:59.999Z or later/)
  ends.set(9, new Date('2030-01-01T12:00:00Z'))
  t.match(watch.fault(), / 2 of default end at 2030-01-01T12:00:00.000Z or later/)
})

t.test(
  'what several issuers are late with is told of each, until the records are known to say otherwise',
  async (t) => {
    const { shelf } = open()
    await shelf.refresh()
    const late = (seconds: readonly number[]) => [
      { issuer: 'default', shards: 1, seconds: seconds[0] ?? 0 },
      { issuer: 'etcd', shards: 2, seconds: seconds[1] ?? 0 },
    ]
    const looks = [late([60, 60.6]), late([60.4, 90]), new Error('there is no database'), []]
    const asked: unknown[] = []
    const watch = openCrlWatch({
      shelf: { find: (_issuer, shard) => shelf.find('default', shard) },
      store: {
        unlisted: async (issuers) => {
          asked.push(issuers)
          const found = looks.shift() ?? []
          if (found instanceof Error) throw found
          return found
        },
      },
      issuers: { all: () => ['default', 'etcd'].map((name) => ({ ...placed, issuer: { ...placed.issuer, name } })) },
      clock: () => new Date(),
      marginMs: 0,
    })
    await watch.look()
    t.equal(watch.fault(), 'lists of what is revoked: 2 of etcd do not know what has happened 61 s ago')
    await watch.look()
    const both =
      'lists of what is revoked: 1 of default do not know what has happened 60 s ago; 2 of etcd do not know what has happened 90 s ago'
    t.equal(watch.fault(), both)
    const look = watch.look()
    t.equal(watch.fault(), both, 'while it looks')
    await t.rejects(look, { message: 'there is no database' })
    t.equal(watch.fault(), both, 'and where it cannot')
    t.same(watch.unlisted(), late([60.4, 90]))
    await watch.look()
    t.equal(watch.fault(), undefined)
    t.same(watch.unlisted(), [])
    t.same(asked, Array(4).fill(['default', 'etcd']))
  },
)

t.test('the records tell what is on no list', async (t) => {
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const { unlisted } = openShelfStore(db)
  await open().publisher.run()
  t.same(await unlisted(['default', 'etcd']), [])
  const serial = await issue()
  await revoke(serial)
  const [late] = await unlisted(['default', 'etcd'])
  t.match(late, { issuer: 'default', shards: 1 })
  t.ok((late?.seconds ?? -1) >= 0 && (late?.seconds ?? 99) < 30)
  t.same(await unlisted(['etcd']), [])
  await open().publisher.run()
  t.same(await unlisted(['default']), [])
})

t.test(
  'what is on no list is found as fast, whatever was counted of what was revoked, and whoever revoked before',
  async (t) => {
    const owner = await openSql(t, service.database.ownerUrl)
    const looked: string[] = []
    const { unlisted } = openShelfStore({
      query: async ({ text }: { text: string }, values: readonly unknown[]) => {
        const { rows } = await owner.query(`explain (analyze) ${text}`, [...values])
        looked.push(...rows.map((row) => row['QUERY PLAN'] as string))
        return { rows: [], rowCount: 0 }
      },
    } as never)
    await owner.query('begin')
    for (const text of [
      'set local enable_seqscan = off',
      'set local enable_bitmapscan = off',
      // Taken back below.
      'alter table revocations drop constraint revocations_serial_fkey',
      `insert into revocations (entry, serial, change, revoked_at, issuer, shard, not_after, certificate)
      select size + i, substr(sha256(int4send(i)), 1, 16), 'revoked', now(), case when i > 20000 then 'etcd' else 'default' end,
        i % 128, now() + interval '1 day', i
      from roll, generate_series(1, 20128) i`,
    ])
      await owner.query(text)
    await unlisted(['default', 'etcd'])
    await owner.query('analyze revocations')
    await unlisted(['default', 'etcd'])
    await owner.query('rollback')
    t.match(looked.join('\n'), /revocations/)
    let loops = 1
    const passed = looked.map((line) => {
      loops = Number(/ loops=(\d+)/.exec(line)?.[1] ?? loops)
      return loops * Number(/Rows Removed by (?:Join )?Filter: (\d+)/.exec(line)?.[1] ?? 0)
    })
    t.ok(Math.max(...passed) <= 256 * 256, `${Math.max(...passed)} were looked at for nothing`)
  },
)

slowTest('what has expired is on one list more, and then on none', async (t) => {
  const serial = await issue('310s')
  await revoke(serial)
  const isOn = async (aheadMs: number): Promise<boolean> => {
    const { publisher, failures, shelf } = open({ aheadMs })
    await publisher.run()
    t.same(failures, [])
    await shelf.refresh()
    const list = shelf.find('default', shardOf(serial))
    return parseCrl(list?.der as Buffer).revoked.some((entry) => entry.serial.toString('hex') === serial)
  }
  t.equal(await isOn(0), true)
  await revokeNeighbourOf(serial)
  t.equal(await isOn(3_600_000), true, 'expired, but no list since')
  await revokeNeighbourOf(serial)
  t.equal(await isOn(7_200_000), false)
})

slowTest('of two lists of one second no date tells that the older one is still the list', async (t) => {
  const serial = await issueOnFreshList()
  const [shard, now] = [shardOf(serial), new Date()]
  const { publisher, shelf, failures } = open({ clock: () => now })
  const { deps } = await openStandIn()
  const app = await openPublicApp({
    ...deps,
    clock: () => now,
    crls: shelf,
    records: reached({ issuers: async () => [] }),
    ocsp: reached({}),
    crlImports: reached({}),
  })
  t.teardown(() => app.close())
  const fetched = (headers = {}) => app.inject({ url: `/crl/default/${shard}.crl`, headers })
  await revoke(serial)
  await publisher.run()
  const first = await fetched()
  t.ok(first.headers['last-modified'])
  const since = { 'if-modified-since': String(first.headers['last-modified']) }
  t.equal((await fetched(since)).statusCode, 304, 'alone in its second')
  await revokeNeighbourOf(serial)
  await publisher.run()
  t.same(failures, [])
  const second = await fetched(since)
  t.equal(second.statusCode, 200)
  t.equal(second.headers['last-modified'], first.headers['last-modified'])
  t.equal(parseCrl(second.rawPayload).number, parseCrl(first.rawPayload).number + 1n)
  t.equal((await fetched({ 'if-none-match': second.headers.etag })).statusCode, 304)
  const other = openCrlShelf(openShelfStore(openedFor(t)))
  await other.refresh()
  t.equal(other.find('default', shard)?.sharesDate, true, 'which an instance that starts later knows as well')
  t.equal(other.find('default', shardOf(await issueOnFreshList()))?.sharesDate, false)
})
