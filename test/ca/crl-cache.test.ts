/** Which lists an instance takes from the records, how often it looks for them, and that none gives way to an older one. */
import t from 'tap'

import type { SignedCrl } from '../../src/ca/revocation/crl.ts'
import { openCrlShelf } from '../../src/ca/revocation/crl-cache.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCrl, encodeCrlTbs } from '../../src/x509/crl.ts'
import { encodeSubject } from '../../src/x509/subject.ts'

const algorithm = signatureAlgorithm('ecdsa-sha256')
const thisUpdate = new Date('2026-11-24T23:20:00Z')
const nextUpdate = new Date('2026-11-27T23:20:00Z')

/** What is said in it is as it would be; nobody checks its signature here, who has put it into the records has. */
const listOf = (shard: number, number: number): SignedCrl => {
  const tbs = encodeCrlTbs({
    ...{ issuer: encodeSubject([{ type: 'commonName', value: 'Issuer' }]), signature: algorithm },
    ...{ thisUpdate, nextUpdate, revoked: [], authorityKeyIdentifier: Buffer.alloc(20), number: BigInt(number) },
    distributionPoint: { url: `http://pki.test/crl/default/${shard}.crl`, only: 'user' },
  })
  return {
    issuer: 'default',
    shard,
    number,
    revoked: 0,
    sharesDate: false,
    der: encodeCrl(tbs, algorithm, Buffer.alloc(8)),
  }
}

const open = () => {
  const state = { elapsed: 0, lists: [] as SignedCrl[], within: [] as number[], read: [] as number[] }
  const shelf = openCrlShelf(
    {
      changedWithin: async (milliseconds) => {
        state.within.push(milliseconds)
        return state.lists
      },
      unlisted: async () => [],
      files: async (places) => {
        state.read.push(places.length)
        return state.lists.filter(({ shard }) => places.some((place) => place.shard === shard))
      },
    },
    { elapsedMs: () => state.elapsed },
  )
  return { shelf, state }
}

t.test('no list gives way to an older one, or to itself', async (t) => {
  const { shelf } = open()
  shelf.put([listOf(3, 2)])
  const kept = shelf.find('default', 3)
  t.match(kept, { number: 2, thisUpdate, nextUpdate })
  t.equal(kept?.der.buffer.byteLength, kept?.der.length, 'it keeps no memory beside it')
  shelf.put([listOf(3, 1), listOf(3, 2), listOf(4, 1)])
  t.equal(shelf.find('default', 3), kept)
  t.equal(shelf.find('default', 4)?.number, 1)
  shelf.put([listOf(3, 3)])
  t.equal(shelf.find('default', 3)?.number, 3)
  t.equal(shelf.find('default', 5), undefined)
  t.same(
    [...shelf.all()].map(({ shard, number }) => [shard, number]),
    [
      [3, 3],
      [4, 1],
    ],
  )
})

t.test('one that is none keeps no other from its place, until there is a newer one', async (t) => {
  const damaged: string[] = []
  const store = { changedWithin: async () => [], unlisted: async () => [], files: async () => [] }
  const shelf = openCrlShelf(store, {
    damaged: (issuer, error) => damaged.push(`${issuer}: ${(error as Error).message}`),
  })
  const none = Buffer.from('3000', 'hex')
  shelf.put([{ ...listOf(3, 1), der: none }, listOf(4, 1), { ...listOf(5, 2), der: none }])
  t.same([shelf.find('default', 3), shelf.find('default', 4)?.number], [undefined, 1])
  t.same(
    damaged,
    [1, 2].map((n) => `default: list ${n} of shard ${n * 2 + 1} cannot be read`),
  )
  shelf.put([listOf(3, 2)])
  t.equal(shelf.find('default', 3)?.number, 2)
})

t.test('only what is newer is read, so many at a time', async (t) => {
  const { shelf, state } = open()
  state.lists = Array.from({ length: 130 }, (_, shard) => listOf(shard, 1))
  await shelf.refresh()
  t.same(state.read, [64, 64, 2])
  t.equal([...shelf.all()].length, 130)
  state.lists = state.lists.map((list) => (list.shard === 7 ? listOf(7, 2) : list))
  await shelf.refresh()
  t.same(state.read, [64, 64, 2, 1])
  t.equal(shelf.find('default', 7)?.number, 2)
})

t.test(
  'a look goes back to the one before it and a minute, and once a minute as far as any list is of use',
  async (t) => {
    const { shelf, state } = open()
    for (const elapsed of [0, 1_000, 1_500, 60_000, 60_001, 61_001]) {
      state.elapsed = elapsed
      await shelf.refresh()
    }
    const ever = 10 * 365 * 86_400_000
    t.same(state.within, [ever, 61_000, 60_500, 118_500, ever, 61_000])
    t.same(state.read, [], 'and what has not changed is not read')
  },
)

t.test('what a look that failed would have seen is seen by the next one', async (t) => {
  const state = { elapsed: 0, isAway: false, within: [] as number[] }
  const shelf = openCrlShelf(
    {
      changedWithin: async (milliseconds) => {
        if (state.isAway) throw new Error('the database is away')
        state.within.push(milliseconds)
        return []
      },
      unlisted: async () => [],
      files: async () => [],
    },
    { elapsedMs: () => state.elapsed },
  )
  await shelf.refresh()
  state.isAway = true
  state.elapsed = 30_000
  await t.rejects(shelf.refresh(), /away/)
  state.isAway = false
  state.elapsed = 40_000
  await shelf.refresh()
  t.same(state.within.slice(1), [100_000])
})
