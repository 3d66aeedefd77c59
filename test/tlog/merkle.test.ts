/** Hashes and proofs against RFC 6962 as it is written, at every size to 300 and at large ones. */
import fc from 'fast-check'
import t from 'tap'

import {
  consistencyProof,
  type Hash,
  inclusionProof,
  judgeGrowth,
  type ReadTile,
  readRoot,
  verifyConsistency,
  verifyInclusion,
} from '../../src/tlog/merkle.ts'
import { slowTest } from '../helpers/slow.ts'
import { hasher, leavesUpTo } from './hashing.ts'
import { naiveConsistency, naiveLeaf, naivePath, naiveRoot, naiveTile } from './naive.ts'

t.setTimeout(300_000)
const all = leavesUpTo(300)

const tilesOf =
  (leaves: readonly Hash[]): ReadTile =>
  async ({ level, index, width }) =>
    naiveTile(level, index, width, leaves)

const flipped = (hash: Hash): Hash => {
  const other = Uint8Array.from(hash)
  other[7] = (other[7] ?? 0) ^ 4
  return other
}

t.test('the trees of the vectors of Certificate Transparency', async (t) => {
  const entries = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f']
  const roots = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ]
  const leaves = entries.map((entry) => hasher.leaf(Buffer.from(entry, 'hex')))
  for (const [i, root] of roots.entries()) {
    const part = leaves.slice(0, i + 1)
    t.equal(Buffer.from(await readRoot(i + 1, tilesOf(part), hasher)).toString('hex'), root)
  }
  t.equal(hasher.empty.toBase64(), '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=')
  t.same(await readRoot(0, tilesOf([]), hasher), hasher.empty)
})

t.test('a leaf is hashed apart from a node, up to the longest entry', async (t) => {
  for (const length of [0, 1, 64, 65_535]) {
    const entry = Buffer.alloc(length, length)
    t.same(Buffer.from(hasher.leaf(entry)), naiveLeaf(entry))
  }
  t.throws(() => hasher.leaf(Buffer.alloc(65_536)), RangeError)
})

slowTest('inclusion: every leaf of every size to 300, as RFC 6962 has it, and no other claim holds', async (t) => {
  const wrong: string[] = []
  for (let size = 1; size <= all.length; size += 1) {
    const leaves = all.slice(0, size)
    const root = naiveRoot(leaves)
    // All leaves of small trees; of larger ones every seventh, and those at the ends of tiles.
    for (let index = 0; index < size; index += 1) {
      if (size > 40 && (index + size) % 7 !== 0 && index !== size - 1 && index !== 255 && index !== 256) continue
      const proof = await inclusionProof(index, size, tilesOf(leaves), hasher)
      if (Buffer.compare(Buffer.concat(proof), Buffer.concat(naivePath(index, leaves))) !== 0)
        wrong.push(`the proof of ${index} in ${size}`)
      const claim = { leaf: leaves[index] as Hash, index, size, proof, root }
      const others = [
        { ...claim, leaf: flipped(claim.leaf) },
        { ...claim, root: flipped(root) },
        { ...claim, index: index + 1 },
        { ...claim, index: size },
        { ...claim, index: index - 1 },
        { ...claim, proof: [...proof, root] },
        { ...claim, proof: proof.slice(1) },
        { ...claim, proof: proof.map((hash) => hash.subarray(1)) },
        { ...claim, proof: proof.map((hash, i) => (i === size % proof.length ? flipped(hash) : hash)) },
      ]
      const holding = others.filter((other) => verifyInclusion(other, hasher))
      // A tree of one leaf has an empty proof, in which nothing can be changed.
      if (!verifyInclusion(claim, hasher) || holding.length !== (size === 1 ? 3 : 0)) wrong.push(`${index} in ${size}`)
    }
  }
  t.same(wrong, [])
})

slowTest(
  'consistency: every pair of sizes to 300 on a grid, as RFC 6962 has it, and no other claim holds',
  async (t) => {
    const wrong: string[] = []
    for (let to = 1; to <= all.length; to += 1) {
      const leaves = all.slice(0, to)
      const toRoot = naiveRoot(leaves)
      for (let from = 1; from <= to; from += 1) {
        if (to > 40 && (from + to) % 11 !== 0 && from !== to - 1 && from !== 128 && from !== 256) continue
        const proof = await consistencyProof(from, to, tilesOf(leaves), hasher)
        if (Buffer.compare(Buffer.concat(proof), Buffer.concat(naiveConsistency(from, leaves))) !== 0)
          wrong.push(`the proof from ${from} to ${to}`)
        const claim = { from, to, proof, fromRoot: naiveRoot(leaves.slice(0, from)), toRoot }
        const others = [
          { ...claim, fromRoot: flipped(claim.fromRoot) },
          { ...claim, toRoot: flipped(toRoot) },
          { ...claim, proof: [...proof, toRoot] },
          ...(proof.length === 0
            ? []
            : [
                { ...claim, proof: proof.slice(1) },
                { ...claim, proof: proof.slice(0, -1) },
                { ...claim, proof: proof.map((hash, i) => (i === to % proof.length ? flipped(hash) : hash)) },
              ]),
        ]
        if (!verifyConsistency(claim, hasher) || others.some((other) => verifyConsistency(other, hasher)))
          wrong.push(`${from} to ${to}`)
      }
    }
    t.same(wrong, [])
  },
)

t.test('from nothing every tree grows, with nothing to prove; and none shrinks', async (t) => {
  const root = naiveRoot(all)
  const claim = { from: 0, to: 300, proof: [], fromRoot: hasher.empty, toRoot: root }
  t.same(await consistencyProof(0, 300, tilesOf(all), hasher), [])
  t.ok(verifyConsistency(claim, hasher))
  t.notOk(verifyConsistency({ ...claim, fromRoot: root }, hasher))
  t.notOk(verifyConsistency({ ...claim, proof: [root] }, hasher))
  t.ok(verifyConsistency({ ...claim, to: 0, toRoot: hasher.empty }, hasher))
  t.notOk(verifyConsistency({ ...claim, to: 0, toRoot: root }, hasher))
  t.notOk(verifyConsistency({ ...claim, from: 301, fromRoot: root }, hasher))
  for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    t.notOk(verifyConsistency({ ...claim, to: bad }, hasher), `${bad}`)
    t.notOk(verifyInclusion({ leaf: root, index: 0, size: bad, proof: [], root }, hasher), `${bad}`)
    t.throws(() => inclusionProof(bad, 300, tilesOf(all), hasher), RangeError)
    t.throws(() => consistencyProof(bad, 300, tilesOf(all), hasher), RangeError)
  }
  t.throws(() => inclusionProof(300, 300, tilesOf(all), hasher), RangeError)
  t.throws(() => consistencyProof(301, 300, tilesOf(all), hasher), RangeError)
})

/**
 * A tree of equal leaves, of any size up to 2^53: each complete subtree is known by its height alone, so that the proofs of
 * a tree that nobody could store can be made twice, from tiles and by RFC 6962.
 */
const same = { leaf: hasher.leaf(Buffer.from('same')), byHeight: [] as Hash[] }
for (let height = 0, hash = same.leaf; height <= 53; height += 1, hash = hasher.node(hash, hash))
  same.byHeight.push(hash)
const readSame: ReadTile = async ({ level, width }) =>
  Buffer.concat(Array.from({ length: width }, () => same.byHeight[8 * level] as Hash))
const rootOfSame = (size: number): Hash => {
  const height = Math.ceil(Math.log2(size))
  if (2 ** height === size) return same.byHeight[height] as Hash
  const k = 2 ** (height - 1)
  return hasher.node(same.byHeight[height - 1] as Hash, rootOfSame(size - k))
}

slowTest('sizes beyond 32 bits are exact', async (t) => {
  const size = fc.oneof(
    fc.nat({ max: 2 ** 31 - 1 }),
    fc.tuple(fc.nat({ max: 2 ** 20 }), fc.nat({ max: 2 ** 31 - 1 })).map(([high, low]) => high * 2 ** 32 + low),
  )
  await fc.assert(
    fc.asyncProperty(size, size, async (a, b) => {
      const [from, to] = [Math.min(a, b) + 1, Math.max(a, b) + 1]
      const [fromRoot, toRoot] = [rootOfSame(from), rootOfSame(to)]
      t.strictSame(Buffer.from(await readRoot(to, readSame, hasher)), Buffer.from(toRoot))
      const proof = await consistencyProof(from, to, readSame, hasher)
      if (!verifyConsistency({ from, to, proof, fromRoot, toRoot }, hasher)) return false
      const path = await inclusionProof(from - 1, to, readSame, hasher)
      return verifyInclusion({ leaf: same.leaf, index: from - 1, size: to, proof: path, root: toRoot }, hasher)
    }),
    { numRuns: 100, seed: 20261124 },
  )
})

t.test('a proof reads each tile once, and a tile of another length is a fault', async (t) => {
  const size = 70_000
  const read: string[] = []
  const counting: ReadTile = async (tile) => {
    read.push(`${tile.level}/${tile.index}/${tile.width}`)
    return readSame(tile)
  }
  await inclusionProof(0, size, counting, hasher)
  t.same(read.toSorted(), ['0/0/256', '0/273/112', '1/0/256', '1/1/17'])
  const short: ReadTile = async (tile) => (await readSame(tile)).subarray(1)
  await t.rejects(inclusionProof(0, size, short, hasher), { code: 'tile.octets' })
  await t.rejects(readRoot(size, short, hasher), { code: 'tile.octets' })
})

t.test(
  'growth: two roots of every pair of sizes on a grid are judged by tiles, and damaged tiles accuse nobody',
  async (t) => {
    const wrong: string[] = []
    for (const to of [1, 2, 3, 7, 8, 20, 100, 255, 256, 257, 300]) {
      const leaves = all.slice(0, to)
      for (let from = 0; from <= to; from += 1) {
        if (to > 20 && (from + to) % 13 !== 0 && from !== 128 && from !== 256) continue
        const roots = { from, to, fromRoot: naiveRoot(leaves.slice(0, from)), toRoot: naiveRoot(leaves) }
        const judge = (change: object, tiles = tilesOf(leaves)) => judgeGrowth({ ...roots, ...change }, tiles, hasher)
        const read: string[] = []
        const noting: ReadTile = (tile) => {
          read.push(`${tile.level}/${tile.index}`)
          return tilesOf(leaves)(tile)
        }
        if ((await judge({}, noting)) !== 'grown') wrong.push(`${from} to ${to}`)
        if ((await judge({ fromRoot: flipped(roots.fromRoot) })) !== 'forked')
          wrong.push(`a fork from ${from} to ${to}`)
        if (read.length === 0) continue
        // Every hash is of use to nobody who asks for none of it: all of them are altered.
        const spoiled: ReadTile = async (tile) => (await tilesOf(leaves)(tile)).map((octet) => octet ^ 1)
        if ((await judge({}, spoiled)) !== 'damaged') wrong.push(`damage from ${from} to ${to}`)
        const both = await judge({ fromRoot: flipped(roots.fromRoot) }, spoiled)
        if (both !== 'damaged') wrong.push(`damage and a fork from ${from} to ${to}`)
      }
    }
    t.same(wrong, [])
    await t.rejects(
      async () => judgeGrowth({ from: 2, to: 1, fromRoot: naiveRoot([]), toRoot: naiveRoot([]) }, tilesOf([]), hasher),
      RangeError,
    )
  },
)
