/** Which lists are due, what is on them, and what keeps them from being made: without records. */
import t from 'tap'

import type { Placed } from '../../src/ca/issuers/issuers.ts'
import {
  type CrlHead,
  type CrlPublisherDeps,
  type CrlStore,
  type IntendedCrl,
  openCrlPublisher,
  type SignedCrl,
} from '../../src/ca/revocation/crl.ts'
import { SigningFault } from '../../src/keys/signing-key.ts'
import { type Crl, parseCrl } from '../../src/x509/crl.ts'
import { aloneFor } from '../helpers/publisher.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

const { service } = await openTestService(t)
const placed = service.issuers.all().find(({ issuer }) => issuer.name === 'default') as Placed

interface Over extends Partial<Omit<CrlPublisherDeps, 'store'>> {
  readonly shards?: number
  readonly store?: Partial<CrlStore>
}

/** Records of an issuer that are in memory, of which nothing else is written than what is published from here. */
const open = ({ shards = 1, store, ...over }: Over = {}) => {
  const heads = new Map<number, CrlHead>()
  const made: IntendedCrl[][] = []
  const published: SignedCrl[] = []
  const failures: string[] = []
  const now = new Date()
  const publisher = openCrlPublisher({
    ...aloneFor(placed, shards),
    times: { periodMs: 40_000_000, validityMs: 90_000_000 },
    clock: () => now,
    published: (lists) => published.push(...lists),
    failed: (issuer, error) => failures.push(`${issuer}: ${(error as Error).message}`),
    store: {
      rollSize: async () => 10,
      heads: async () => [...heads.values()],
      changed: async () => new Map(),
      revoked: async () => [],
      record: async (_event, lists) => {
        made.push([...lists])
        for (const list of lists)
          heads.set(list.shard, {
            ...list,
            published: false,
            publishedUpdate: heads.get(list.shard)?.publishedUpdate ?? null,
          })
        return true
      },
      publish: async (lists) => {
        for (const { shard } of lists) {
          const head = heads.get(shard) as CrlHead
          heads.set(shard, { ...head, published: true, publishedUpdate: head.thisUpdate })
        }
      },
      ...store,
    },
    ...over,
  })
  return { publisher, heads, made, published, failures }
}

const read = ({ der }: SignedCrl): Crl => parseCrl(der)

t.test('a list of a part says of which, and one of the whole issuer does not', async (t) => {
  for (const shards of [1, 2]) {
    const { publisher, published, failures } = open({ shards })
    await publisher.run()
    t.same(failures, [])
    t.same(
      published.map((list) => read(list).distributionPoint),
      shards === 1
        ? [undefined]
        : [0, 1].map((shard) => ({ url: `http://pki.test/crl/default/${shard}.crl`, only: 'user' })),
    )
  }
})

slowTest(
  'a list that is too long to be signed is neither recorded nor asked of the key, which signs the others of its issuer',
  async (t) => {
    const one = { serial: Buffer.alloc(16, 0x41), revokedAt: new Date(), reason: 'superseded' } as const
    const revoked = async () => [{ shard: 0, count: 1_400_000, at: () => one }]
    const { publisher, made, published, failures } = open({ shards: 40, store: { revoked } })
    await publisher.run()
    t.match(failures, [
      /^default: the list of shard 0 would have 68\d{6} octets, and 67108856 are the most that is signed/,
    ])
    const others = Array.from({ length: 39 }, (_, i) => i + 1)
    t.same(
      [made.flat(), published].map((lists) => lists.map(({ shard }) => shard).toSorted((a, b) => a - b)),
      [others, others],
    )
    t.equal(placed.issuer.fault, undefined)
    placed.issuer.assertAvailable()
  },
)

t.test(
  'what changed since its list was computed is on the next one, be it the first entry that it did not know',
  async (t) => {
    for (const [last, isDue] of [
      [9, false],
      [10, true],
      [11, true],
    ] as const) {
      const changes = new Map<number, number>()
      const { publisher, made, failures } = open({ store: { changed: async () => changes } })
      await publisher.run()
      changes.set(0, last)
      await publisher.run()
      t.same(failures, [])
      t.equal(made.length, isDue ? 2 : 1, `the list knows 10 entries, and entry ${last} changed something`)
    }
  },
)

t.test(
  'changes are looked for from what all lists know, and then from where the last look that succeeded ended',
  async (t) => {
    const asked: unknown[] = []
    let [size, left] = [10, 2]
    const { publisher, heads, made, failures } = open({
      shards: 2,
      store: {
        rollSize: async () => size,
        changed: async (_issuer, span) => {
          asked.push([span.from, span.below])
          return new Map([[0, span.below - 1]])
        },
      },
      mayGoOn: async () => left-- > 0,
    })
    const [thisUpdate, nextUpdate] = [new Date(Date.now() - 120_000), new Date(Date.now() + 90_000_000)]
    for (const [shard, covers] of [7, 4].entries())
      heads.set(shard, {
        ...{ shard, covers, number: 1, revoked: 0, published: true },
        ...{ thisUpdate, nextUpdate, publishedUpdate: thisUpdate },
      })
    for ([size, left] of [
      [10, 2],
      [20, 2],
      [30, 1],
      [40, 2],
    ] as const)
      await publisher.run()
    t.same(failures, [])
    t.same(
      asked,
      [
        [4, 10],
        [10, 20],
        [20, 30],
        [20, 40],
      ],
      'the third one was broken off',
    )
    t.same(
      made.flat().map(({ shard, covers }) => [shard, covers]),
      [
        [0, 10],
        [0, 20],
        [0, 40],
      ],
    )
  },
)

t.test('an entry of thousands is in its place on the list, piece by piece', async (t) => {
  const count = 4_500
  const serialOf = (i: number): Buffer => {
    const serial = Buffer.alloc(16, 0x40)
    serial.writeUInt32BE(i, 12)
    return serial
  }
  const revokedAt = new Date('2026-11-28T00:00:00Z')
  let turns = 0
  const { publisher, made, published, failures } = open({
    successions: 3,
    nextTurn: async () => {
      turns += 1
    },
    store: { revoked: async () => [{ shard: 0, count, at: (i) => ({ serial: serialOf(i), revokedAt }) }] },
  })
  await publisher.run()
  t.same(failures, [])
  const [list] = published.map(read)
  t.same(
    list?.revoked.map(({ serial }) => serial.toString('hex')),
    Array.from({ length: count }, (_, i) => serialOf(i).toString('hex')),
  )
  t.equal(made[0]?.[0]?.revoked, count)
  t.equal(list?.number, 3n * 2n ** 48n + 1n, 'and its number is beyond those of rolls that were given up')
  t.equal(turns, 5, 'others have their turn after each piece, the list and its signature')
})

t.test('many lists are made a few at a time, fewer where they are long', async (t) => {
  const { publisher, heads, made, published, failures } = open({ shards: 100 })
  await publisher.run()
  t.same(
    made.map(({ length }) => length),
    [32, 32, 32, 4],
  )
  t.same(
    published.map(({ shard }) => shard).sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  )
  made.length = 0
  for (const [shard, head] of heads) heads.set(shard, { ...head, published: false, revoked: shard < 10 ? 20_000 : 0 })
  await publisher.run()
  t.same(failures, [])
  t.equal(made.flat().length, 100)
  t.same(
    made.slice(0, 5).map((slice) => slice.map(({ shard }) => shard)),
    [
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
      [8, 9, ...Array.from({ length: 10 }, (_, i) => 10 + i)],
    ],
    'the first one of each counts like any other',
  )
})

t.test('who may not go on stops between the pieces of its work, and goes on with the rest later', async (t) => {
  let left = 2
  const { publisher, made, failures } = open({ shards: 40, mayGoOn: async () => left-- > 0 })
  await publisher.run()
  t.same(
    made.map(({ length }) => length),
    [32],
  )
  left = 3
  await publisher.run()
  t.same(failures, [])
  t.same(
    made.map(({ length }) => length),
    [32, 8],
  )
})

t.test('what another instance has recorded meanwhile is neither signed nor published here', async (t) => {
  let signatures = 0
  const issuer = Object.create(placed.issuer, {
    shards: { value: 1 },
    sign: {
      value: async (tbs: Buffer) => {
        signatures += 1
        return placed.issuer.sign(tbs)
      },
    },
  })
  const { publisher, published, failures } = open({
    issuers: { all: () => [{ ...placed, issuer }] },
    store: { record: async () => false },
  })
  await publisher.run()
  t.same(failures, ['default: another instance has recorded lists of these shards meanwhile'])
  t.equal(signatures, 0)
  t.same(published, [])
})

t.test('nothing is told of lists that are not signed, or not in their places', async (t) => {
  let [tries, calls] = [0, 0]
  const sign = async (): Promise<SigningFault> => {
    tries += 1
    return new SigningFault('before', 'the token is gone')
  }
  const issuer = Object.create(placed.issuer, { shards: { value: 20 }, sign: { value: sign } })
  const count = (): void => {
    calls += 1
  }
  const unsigned = open({
    issuers: { all: () => [{ ...placed, issuer }] },
    published: count,
    store: { publish: async () => count() },
  })
  await unsigned.publisher.run()
  t.same(unsigned.failures, ['default: the token is gone'])
  t.equal(calls, 0)
  t.equal(tries, 4, 'those under way at once are all that are tried')
  const unplaced = open({ store: { publish: () => Promise.reject(new Error('the database is away')) } })
  await unplaced.publisher.run()
  t.same(unplaced.failures, ['default: the database is away'])
  t.same(unplaced.published, [])
})

t.test('a list whose signature does not hold is not published, and nothing more is asked of its key', async (t) => {
  let distrusts = 0
  const issuer = Object.create(placed.issuer, {
    shards: { value: 1 },
    sign: { value: (tbs: Buffer) => placed.issuer.sign(Buffer.concat([tbs, Buffer.of(0)])) },
    distrust: {
      value: () => {
        distrusts += 1
      },
    },
  })
  const { publisher, made, published, failures } = open({ issuers: { all: () => [{ ...placed, issuer }] } })
  await publisher.run()
  t.equal(made.flat().length, 1)
  t.same(failures, ['default: the signature of list 1 of default/0 does not verify'])
  t.same(published, [])
  t.equal(distrusts, 1)
})

t.test(
  'what has expired is left out by the lists that were seen, and not by one that was never in its place',
  async (t) => {
    let [now, isAway] = [new Date('2026-11-28T12:00:00Z'), false]
    const since: string[] = []
    const { publisher, heads, made } = open({
      clock: () => now,
      elapsedMs: () => now.getTime(),
      store: {
        revoked: async (_issuer, shards) => {
          since.push(...shards.map((one) => one.since.toISOString()))
          return []
        },
        publish: async () => {
          if (isAway) throw new Error('the database is away')
          const head = heads.get(0) as CrlHead
          heads.set(0, { ...head, published: true, publishedUpdate: head.thisUpdate })
        },
      },
    })
    await publisher.run()
    const seen = made[0]?.[0]?.thisUpdate.toISOString()
    for (isAway of [true, false]) {
      now = new Date(now.getTime() + 40_000_000)
      await publisher.run()
    }
    t.same(since, ['1970-01-01T00:00:00.000Z', seen, seen])
    t.equal(made.length, 3)
  },
)

t.test('a clock that goes wrong while the records are read makes no list', async (t) => {
  let checks = 0
  const { publisher, made, failures } = open({
    assertClock: () => {
      checks += 1
      if (checks > 1) throw new Error('the clock is wrong')
    },
  })
  await publisher.run()
  t.same(failures, ['default: the clock is wrong'])
  t.same(made, [])
})

t.test('one that cannot sign keeps no other from it, and one that has retired makes no list', async (t) => {
  const named = (name: string, more: PropertyDescriptorMap = {}) =>
    Object.create(placed.issuer, { shards: { value: 1 }, name: { value: name }, ...more })
  const broken = named('broken', {
    assertAvailable: {
      value: () => {
        throw new Error('the token is gone')
      },
    },
  })
  const { publisher, made, failures } = open({
    issuers: {
      all: () => [
        { ...placed, issuer: broken },
        { ...placed, issuer: named('retired'), state: 'retired' },
        { ...placed, issuer: named('fine'), state: 'crl-only' },
      ],
    },
  })
  await publisher.run()
  t.same(failures, ['broken: the token is gone'])
  t.same(
    made.flat().map(({ issuer }) => issuer),
    ['fine'],
  )
})

t.test('while the lists of one that has failed are tried again, those of others are published', async (t) => {
  const named = (name: string) => Object.create(placed.issuer, { shards: { value: 1 }, name: { value: name } })
  const [heads, held] = [new Map<string, CrlHead>(), Promise.withResolvers<boolean>()]
  let [now, tries, last] = [0, 0, 0]
  const { publisher, failures, made } = open({
    issuers: { all: () => ['slow', 'fine'].map((name) => ({ ...placed, issuer: named(name) })) },
    elapsedMs: () => now,
    mayGoOn: async (issuer) => {
      if (issuer === 'fine') return true
      tries += 1
      if (tries > 1) await held.promise
      throw new Error('its list is too long')
    },
    store: {
      heads: async (issuer) => [heads.get(issuer) ?? []].flat(),
      changed: async () => new Map([[0, last]]),
      record: async (_event, lists) => {
        for (const list of lists) heads.set(list.issuer, { ...list, published: true, publishedUpdate: list.thisUpdate })
        made.push([...lists])
        return true
      },
      publish: async () => {},
    },
  })
  await publisher.run()
  t.same([tries, made.length], [1, 1])
  now = 5_000
  last = 10
  const again = publisher.again()
  await publisher.due()
  t.same([tries, made.flat().map(({ issuer }) => issuer)], [2, ['fine', 'fine']])
  t.equal(failures.length, 1)
  held.resolve(true)
  await again
  t.equal(failures.length, 2)
})

slowTest('one that has failed is not forgotten while another instance is at it', async (t) => {
  let [now, asked] = [0, 0]
  // To make what is too long takes longer than a lease lasts: the other one goes on with the second slice, and is at it later on.
  const turns = [true, true, false, false]
  const one = { serial: Buffer.alloc(16, 0x41), revokedAt: new Date(), reason: 'superseded' } as const
  const { publisher, failures } = open({
    shards: 40,
    elapsedMs: () => now,
    mayGoOn: async () => {
      asked += 1
      return turns.shift() ?? true
    },
    store: { revoked: async () => [{ shard: 0, count: 1_400_000, at: () => one }] },
  })
  await publisher.run()
  t.match(failures, [/^default: the list of shard 0 would have /])
  now = 5_000
  await publisher.again()
  t.same([asked, failures.length], [4, 1])
  await publisher.due()
  t.equal(asked, 4, 'it keeps nobody waiting')
})

t.test(
  'who fails is tried again ever later, a minute at most, and as soon as at first once it went well',
  async (t) => {
    let [now, isAway] = [0, true]
    const tried: number[] = []
    const { publisher } = open({
      elapsedMs: () => now,
      mayGoOn: async () => {
        tried.push(now)
        if (isAway) throw new Error('the database is away')
        return true
      },
    })
    const runUntil = async (end: number): Promise<void> => {
      for (; now < end; now += 5_000) await publisher.run()
    }
    await runUntil(200_000)
    t.same(tried, [0, 5_000, 15_000, 35_000, 75_000, 135_000, 195_000])
    isAway = false
    await runUntil(260_000)
    isAway = true
    tried.length = 0
    await runUntil(280_000)
    t.same(tried, [260_000, 265_000, 275_000])
  },
)
