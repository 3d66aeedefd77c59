/** Publishing on bad days: several at once, a clock that is wrong, a key that does not sign; and what leaves a list. */
import { randomUUID } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { type CrlPublisherDeps, openCrlPublisher } from '../../src/ca/crl.ts'
import { openCrlShelf } from '../../src/ca/crl-shelf.ts'
import { openCrlWatch } from '../../src/ca/crl-watch.ts'
import type { Placed } from '../../src/ca/issuers.ts'
import { codec } from '../../src/codec.ts'
import { SigningFault } from '../../src/keys/signing-key.ts'
import { databaseClock } from '../../src/store/clock.ts'
import { openCrlStore, openShelfStore } from '../../src/store/crls.ts'
import { openDatabase } from '../../src/store/database.ts'
import { openRollWriter } from '../../src/store/roll.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { sha256 } from '../helpers/hash.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'

let service: TestService
let placed: Placed

t.before(async () => {
  // The job of the service would be at it too.
  service = await openTestService(t, { CHANCERY_CRL_PERIOD: '30d', CHANCERY_CRL_VALIDITY: '90d' })
  await service.service.publishCrls()
  const found = service.service.issuers.all().find(({ issuer }) => issuer.name === 'default')
  if (!found) throw new Error('there is no issuer default')
  placed = found
  await sql(`insert into leases values ('crls', '${randomUUID()}', now() + interval '1 day')
    on conflict (name) do update set holder = excluded.holder, until = excluded.until`)
})

const sql = async <Row extends object>(text: string): Promise<Row[]> => {
  const client = new pg.Client({ connectionString: service.database.ownerUrl })
  await client.connect()
  try {
    return (await client.query<Row>(text)).rows
  } finally {
    await client.end()
  }
}

const open = (over: Partial<CrlPublisherDeps> & { readonly aheadMs?: number } = {}) => {
  const { aheadMs = 0, ...rest } = over
  const db = openDatabase({ url: service.database.servingUrl, max: 4, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const now = (): Date => new Date()
  const roll = openRollWriter(db, codec, databaseClock(now, 5_000))
  const failures: string[] = []
  const shelf = openCrlShelf(openShelfStore(db))
  const publisher = openCrlPublisher({
    store: openCrlStore({ db, roll }),
    issuers: { all: () => [placed] },
    times: { periodMs: 30 * 86_400_000, validityMs: 90 * 86_400_000 },
    clock: () => new Date(Date.now() + aheadMs),
    assertClock: () => {},
    chance: () => 1,
    sha256,
    nextTurn: () => new Promise((resolve) => setImmediate(resolve)),
    mayGoOn: async () => true,
    published: (lists) => shelf.put(lists),
    failed: (_issuer, error) => failures.push((error as Error).message),
    ...rest,
  })
  return { publisher, failures, shelf }
}

const issue = async (validity?: string): Promise<string> => {
  const body = { csr: csrFor('web.example.com'), profile: 'server', ...(validity && { validity }) }
  return (await service.request('POST', '/v1/certificates', { body })).json.serial
}
const revoke = async (serial: string): Promise<void> => {
  const path = `/v1/certificates/${serial}/revocation`
  t.equal((await service.request('POST', path, { body: { reason: 'superseded' } })).status, 200)
}
const shardOf = (serial: string): number => Buffer.from(serial, 'hex').readUInt32BE(12) % 128
const revokeNeighbourOf = async (serial: string): Promise<void> => {
  for (;;) {
    const other = await issue()
    if (shardOf(other) === shardOf(serial)) return revoke(other)
  }
}
const numbersOf = async (shard: number): Promise<number[]> =>
  (
    await sql<{ number: string }>(
      `select number from crls where issuer = 'default' and shard = ${shard} order by number`,
    )
  ).map(({ number }) => Number(number))

t.test('several that publish at once repeat no number and lose nothing', async (t) => {
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

t.test('readiness is told of lists that are missing for long, or near their end', async (t) => {
  let now = 0
  const { shelf } = open()
  const far = (days: number): Date => new Date(Date.now() + days * 86_400_000)
  const watch = (lists: Parameters<typeof openCrlWatch>[0]['shelf'], clock = () => far(0)) =>
    openCrlWatch({ shelf: lists, issuers: { all: () => [placed] }, clock, marginMs: 86_400_000, elapsedMs: () => now })
  const empty = watch(shelf)
  t.equal(empty(), undefined, 'they may be on their way')
  now = 61_000
  t.match(empty(), /128 of default are missing/)
  await shelf.refresh()
  t.equal(empty(), undefined)
  t.equal(watch(shelf, () => far(88))(), undefined)
  t.match(watch(shelf, () => far(89.5))(), /128 of default end at 20/)
})

t.test('what has expired is on one list more, and then on none', async (t) => {
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
