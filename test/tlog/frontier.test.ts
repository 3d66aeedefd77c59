/** The growing edge against RFC 6962 as it is written: roots, completed subtrees and proofs of every batch. */
import fc from 'fast-check'
import t from 'tap'

import {
  type Edge,
  edgeWidths,
  emptyEdge,
  extend,
  openEdge,
  type StoredEdge,
  storeEdge,
} from '../../src/tlog/frontier.ts'
import { type Hash, inclusionProof, type ReadTile, verifyInclusion } from '../../src/tlog/merkle.ts'
import { slowTest } from '../helpers/slow.ts'
import { hasher, leavesUpTo } from './hashing.ts'
import { naivePath, naiveRoot, naiveTile } from './naive.ts'

t.setTimeout(300_000)
const many = leavesUpTo(66_600)

/** What a store would hold: the hashes of each level, of which each completed subtree is the next. */
const openStore = () => {
  const levels: Hash[][] = []
  let edge = emptyEdge(hasher)
  return {
    levels,
    edge: () => edge,
    append: (leaves: readonly Hash[]) => {
      const extension = extend(edge, leaves, hasher)
      levels[0] ??= []
      for (const leaf of leaves) levels[0].push(leaf)
      for (const { level, index, hash } of extension.completed) {
        levels[level] ??= []
        if (levels[level].length !== index) throw new Error(`subtree ${index} of level ${level} is out of order`)
        levels[level].push(hash)
      }
      edge = extension.edge
      return extension
    },
    readTile: (async ({ level, index, width }) =>
      Buffer.concat((levels[level] ?? []).slice(index * 256, index * 256 + width))) satisfies ReadTile,
    stored: (): StoredEdge => ({
      size: edge.size,
      root: edge.root,
      tiles: edgeWidths(edge.size).map((width, level) => {
        const row = levels[level] ?? []
        return row.slice(row.length - width)
      }),
    }),
  }
}

slowTest('one leaf after the other to 600: each root, each proof, each complete tile', async (t) => {
  const store = openStore()
  const wrong: string[] = []
  for (let size = 1; size <= 600; size += 1) {
    const leaves = many.slice(0, size)
    const { edge, proof } = store.append([many[size - 1] as Hash])
    if (Buffer.compare(edge.root, naiveRoot(leaves)) !== 0) wrong.push(`the root of ${size}`)
    if (Buffer.compare(Buffer.concat(proof(size - 1)), Buffer.concat(naivePath(size - 1, leaves))) !== 0)
      wrong.push(`the proof of the last of ${size}`)
  }
  t.same(wrong, [])
  t.same(
    store.levels[1],
    [0, 1].map((n) => naiveRoot(many.slice(n * 256, (n + 1) * 256))),
  )
})

slowTest('batches of any size: each leaf has its proof, also across the end of tiles', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 700 }), { minLength: 1, maxLength: 4 }), async (batches) => {
        const store = openStore()
        for (const batch of batches) {
          const from = store.edge().size
          const leaves = many.slice(0, from + batch)
          const { edge, proof } = store.append(leaves.slice(from))
          if (Buffer.compare(edge.root, naiveRoot(leaves)) !== 0) return false
          for (const index of new Set([from, from + batch - 1, from + (batch >> 1), from + 255, from + 256])) {
            if (index < from || index >= from + batch) continue
            const own = Buffer.concat(proof(index))
            if (Buffer.compare(own, Buffer.concat(naivePath(index, leaves))) !== 0) return false
            const read = await inclusionProof(index, leaves.length, store.readTile, hasher)
            if (Buffer.compare(own, Buffer.concat(read)) !== 0) return false
          }
        }
        return true
      }),
      { numRuns: 60, seed: 20261124 },
    ),
  )
})

t.test('three levels of tiles: past 65,536 leaves', async (t) => {
  const store = openStore()
  const wrong: string[] = []
  store.append(many.slice(0, 65_300))
  for (let from = 65_300; from < many.length; from += 13) {
    const batch = many.slice(from, from + 13)
    const { edge, proof } = store.append(batch)
    for (const [i, leaf] of batch.entries()) {
      const claim = { leaf, index: from + i, size: edge.size, proof: proof(from + i), root: edge.root }
      if (!verifyInclusion(claim, hasher)) wrong.push(`${claim.index} in ${edge.size}`)
    }
  }
  t.same(wrong, [])
  t.equal(Buffer.compare(store.edge().root, naiveRoot(many)), 0)
  t.same(
    store.levels.map((row) => row.length),
    [66_600, 260, 1],
  )
  t.equal(Buffer.compare(store.levels[2]?.[0] ?? Buffer.alloc(0), naiveTile(2, 0, 1, many)), 0)
})

t.test('a batch that fails to commit leaves no trace: the edge of before goes on', async (t) => {
  for (const size of [0, 1, 250, 255, 256, 511, 65_530]) {
    const before = extend(emptyEdge(hasher), many.slice(0, size), hasher).edge
    const failed = extend(before, leavesUpTo(20).reverse(), hasher)
    const root = Buffer.from(failed.edge.root)
    const proof = Buffer.concat(failed.proof(size))
    const next = extend(before, many.slice(size, size + 20), hasher)
    t.equal(Buffer.compare(next.edge.root, naiveRoot(many.slice(0, size + 20))), 0, `${size}`)
    t.equal(Buffer.compare(failed.edge.root, root), 0, 'nor does the one that failed change')
    t.equal(Buffer.compare(Buffer.concat(failed.proof(size)), proof), 0)
  }
})

t.test('the empty edge opens as any other', async (t) => {
  const empty = emptyEdge(hasher)
  t.same(openEdge(storeEdge(empty), hasher), empty)
  t.equal(Buffer.compare(empty.root, naiveRoot([])), 0)
})

slowTest('an edge is opened from stored tiles at every size, and goes on as if it had never been closed', async (t) => {
  const store = openStore()
  const sizes = [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 66_048, 66_560]
  for (const size of sizes) {
    store.append(many.slice(store.edge().size, size))
    const opened = openEdge(store.stored(), hasher)
    t.same(opened, store.edge(), `${size}`)
    t.same(storeEdge(opened), store.stored(), 'and stored again')
    const { edge, proof } = extend(opened, many.slice(size, size + 3), hasher)
    t.equal(Buffer.compare(edge.root, naiveRoot(many.slice(0, size + 3))), 0, `${size} + 3`)
    const claim = { leaf: many[size + 1] as Hash, index: size + 1, size: size + 3, root: edge.root }
    t.ok(verifyInclusion({ ...claim, proof: proof(size + 1) }, hasher))
  }
})

t.test('tiles that do not fit the size or the root are no edge', async (t) => {
  const store = openStore()
  store.append(many.slice(0, 70_000 % 66_600))
  store.append(many.slice(store.edge().size, 66_570))
  const good = store.stored()
  const [zero = [], one = [], two = []] = good.tiles
  const other = Buffer.alloc(32, 1)
  const pair = Buffer.concat(zero.slice(0, 2))
  const shifted = [pair.subarray(0, 31), pair.subarray(31), ...zero.slice(2)]
  const bad: readonly (readonly [string, StoredEdge])[] = [
    ['another size', { ...good, size: good.size + 1 }],
    ['another root', { ...good, root: other }],
    ['a missing level', { ...good, tiles: [zero, one] }],
    ['one level more', { ...good, tiles: [...good.tiles, []] }],
    ['a hash less', { ...good, tiles: [zero, one.slice(1), two] }],
    ['a hash more, which is no part of the root', { ...good, tiles: [[...zero, other], one, two] }],
    ['another hash', { ...good, tiles: [zero.with(3, other), one, two] }],
    ['two hashes the wrong way round', { ...good, tiles: [zero.toReversed(), one, two] }],
    ['another hash far up', { ...good, tiles: [zero, one, [other]] }],
    ['a short hash', { ...good, tiles: [zero.with(0, other.subarray(1)), one, two] }],
    ['an octet of one hash in the next, which have the same parent', { ...good, tiles: [shifted, one, two] }],
    ...[31, 33].map((octets) => {
      const root = Buffer.alloc(octets, 1)
      return [`a hash of ${octets} octets that is the root`, { size: 1, root, tiles: [[root]] }] as const
    }),
  ]
  t.equal(openEdge(good, hasher).size, 66_570)
  for (const [what, stored] of bad) t.throws(() => openEdge(stored, hasher), { code: 'edge.tiles' }, what)
  const detail = 'a tree of 0 has partial tiles of no hashes'
  t.throws(() => openEdge({ ...good, size: 0 }, hasher), { code: 'edge.tiles', detail })
})

t.test('an empty batch changes nothing, and proofs are of the batch alone', async (t) => {
  const before: Edge = extend(emptyEdge(hasher), many.slice(0, 300), hasher).edge
  const { edge, completed } = extend(before, [], hasher)
  t.same(edge, before)
  t.same(completed, [])
  const { proof } = extend(before, many.slice(300, 310), hasher)
  for (const index of [299, 310, -1, Number.NaN, 300.5]) t.throws(() => proof(index), Error, `${index}`)
})
