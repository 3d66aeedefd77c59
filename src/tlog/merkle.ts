/**
 * The Merkle tree of RFC 6962 2.1: its hashes, and the proofs that one leaf is in it, or that it grew out of a smaller
 * one. Every proof is a list of nodes that size and index alone decide, so who makes it and who checks it go through the
 * same few lines, and a proof of another length is no proof. Sizes and indexes are exact up to 2^53 - 1.
 */
import { RollFault } from './fault.ts'
import { isEqual } from './text.ts'
import { type HashTile, hashesPerTile, hashOctets, tileHeight } from './tiles.ts'

/** 32 octets. */
export type Hash = Uint8Array

/** Answers at once, and each time with new octets. */
export type Sha256 = (data: Uint8Array) => Uint8Array

export interface TreeHasher {
  /** SHA-256(0x00 ‖ entry); an entry has at most 65,535 octets. */
  leaf(entry: Uint8Array): Hash
  /** SHA-256(0x01 ‖ left ‖ right). */
  node(left: Hash, right: Hash): Hash
  /** The root of the tree without leaves. */
  readonly empty: Hash
}

/** What is hashed is laid out in the same octets each time: they are free again as soon as the hash is there. */
export const openTreeHasher = (sha256: Sha256): TreeHasher => {
  const leaf = new Uint8Array(1 + 65_535)
  const node = new Uint8Array(1 + 2 * hashOctets)
  node[0] = 1
  return {
    leaf: (entry) => {
      leaf.set(entry, 1)
      return sha256(leaf.subarray(0, 1 + entry.length))
    },
    node: (left, right) => {
      node.set(left, 1)
      node.set(right, 1 + hashOctets)
      return sha256(node)
    },
    empty: sha256(new Uint8Array(0)),
  }
}

/**
 * A node by where it stands: its leaves are those from index × 2^height on, 2^height of them, or as many as the tree still
 * has. At the right edge a node may thus stand for fewer leaves than its height says.
 */
export interface Node {
  readonly height: number
  readonly index: number
}

export interface InclusionClaim {
  readonly leaf: Hash
  readonly index: number
  readonly size: number
  readonly proof: readonly Hash[]
  readonly root: Hash
}

export interface ConsistencyClaim {
  readonly from: number
  readonly to: number
  readonly proof: readonly Hash[]
  readonly fromRoot: Hash
  readonly toRoot: Hash
}

/** The octets of a tile: exactly `width` hashes. */
export type ReadTile = (tile: HashTile) => Promise<Uint8Array>

/** The nodes of the proof that a leaf is in a tree (RFC 6962 2.1.1): at each height the sibling, where there is one. */
export const inclusionNodes = (index: number, size: number): Node[] => {
  const nodes: Node[] = []
  for (let height = 0, at = index, last = size - 1; last > 0; height += 1) {
    const sibling = at % 2 === 0 ? at + 1 : at - 1
    if (sibling <= last) nodes.push({ height, index: sibling })
    at = half(at)
    last = half(last)
  }
  return nodes
}

/** Whether the leaf is in the tree with this root, at this index. */
export const verifyInclusion = (claim: InclusionClaim, hasher: TreeHasher): boolean => {
  const { leaf, index, size, proof, root } = claim
  if (!isCount(index) || !isCount(size) || index >= size) return false
  const nodes = inclusionNodes(index, size)
  if (!areHashes([leaf, root, ...proof]) || proof.length !== nodes.length) return false
  return isEqual(
    proof.reduce((below, hash, i) => join(nodes[i] as Node, hash, below, hasher), leaf),
    root,
  )
}

/** Whether the larger tree has the smaller one as its beginning (RFC 9162 2.1.4.2). From nothing, any tree grows. */
export const verifyConsistency = (claim: ConsistencyClaim, hasher: TreeHasher): boolean => {
  const { from, to, proof, fromRoot, toRoot } = claim
  if (!isCount(from) || !isCount(to) || from > to || !areHashes([fromRoot, toRoot, ...proof])) return false
  if (from === 0 && !isEqual(fromRoot, hasher.empty)) return false
  if (from === to) return proof.length === 0 && isEqual(fromRoot, toRoot)
  if (from === 0) return proof.length === 0
  const { start, siblings } = consistencyNodes(from, to)
  const [first, ...rest] = start === undefined ? [fromRoot, ...proof] : proof
  if (first === undefined || rest.length !== siblings.length) return false
  const { older, newer } = rootsOf(first, siblings, rest, hasher)
  return isEqual(older, fromRoot) && isEqual(newer, toRoot)
}

/** The proof that a leaf is in the tree of a size, from stored tiles. From the leaf's sibling up. */
export const inclusionProof = (
  index: number,
  size: number,
  readTile: ReadTile,
  hasher: TreeHasher,
): Promise<readonly Hash[]> => {
  assertCounts(index, size)
  if (index >= size) throw new RangeError(`there is no leaf ${index} in a tree of ${size}`)
  return readNodes(inclusionNodes(index, size), size, readTile, hasher)
}

/** The proof that the tree of one size has grown out of that of another, from stored tiles. */
export const consistencyProof = (
  from: number,
  to: number,
  readTile: ReadTile,
  hasher: TreeHasher,
): Promise<readonly Hash[]> => {
  assertGrown(from, to)
  if (from === 0 || from === to) return Promise.resolve([])
  const { start, siblings } = consistencyNodes(from, to)
  return readNodes(start === undefined ? siblings : [start, ...siblings], to, readTile, hasher)
}

/**
 * What became of a tree: the larger one has grown out of the smaller one; or it has not, which the tiles prove, since they
 * lead to its root; or the tiles do not lead there, and prove nothing.
 */
export type Growth = 'grown' | 'forked' | 'damaged'

/** How many hashes prove that the tree of one size has grown out of that of another. */
export const consistencyLength = (from: number, to: number): number => {
  if (from === 0 || from === to) return 0
  const { start, siblings } = consistencyNodes(from, to)
  return siblings.length + (start === undefined ? 0 : 1)
}

/** Judges two signed roots by stored tiles of the larger tree. */
export const judgeGrowth = async (
  { from, to, fromRoot, toRoot }: Omit<ConsistencyClaim, 'proof'>,
  readTile: ReadTile,
  hasher: TreeHasher,
): Promise<Growth> => {
  assertGrown(from, to)
  if (from === 0 || from === to) return isEqual(fromRoot, from === 0 ? hasher.empty : toRoot) ? 'grown' : 'forked'
  const { start, siblings } = consistencyNodes(from, to)
  // A proof leaves out where it starts when that is the smaller tree itself: only as it is stored it says who is wrong.
  const nodes = [start ?? { height: Math.log2(from), index: 0 }, ...siblings]
  const [first, ...rest] = (await readNodes(nodes, to, readTile, hasher)) as [Hash, ...Hash[]]
  const { older, newer } = rootsOf(first, siblings, rest, hasher)
  if (!isEqual(newer, toRoot)) return 'damaged'
  return isEqual(older, fromRoot) ? 'grown' : 'forked'
}

/** The root of the tree of a size, from stored tiles: from its right edge alone. */
export const readRoot = async (size: number, readTile: ReadTile, hasher: TreeHasher): Promise<Hash> => {
  assertCounts(size)
  if (size === 0) return hasher.empty
  let height = 0
  for (let last = size - 1; last > 0; last = half(last)) height += 1
  const [root] = await readNodes([{ height, index: 0 }], size, readTile, hasher)
  return root as Hash
}

export const half = (count: number): number => Math.floor(count / 2)

/** Whether a node stands for 2^height leaves in a tree of this size, and so for the same ones in every larger tree. */
export const isComplete = ({ height, index }: Node, size: number): boolean => (index + 1) * 2 ** height <= size

interface ConsistencyNodes {
  /** The largest subtree that ends where the smaller tree does; undefined where that is the smaller tree itself. */
  readonly start: Node | undefined
  /** On the way from there up to the root of the larger tree. */
  readonly siblings: readonly Node[]
}

/** SUBPROOF of RFC 6962 2.1.2, from the root of the larger tree down to the end of the smaller one. */
const consistencyNodes = (from: number, to: number): ConsistencyNodes => {
  const siblings: Node[] = []
  let [height, index] = [0, 0]
  while (2 ** height < to) height += 1
  while (Math.min((index + 1) * 2 ** height, to) !== from) {
    height -= 1
    index *= 2
    const middle = (index + 1) * 2 ** height
    if (middle >= to) continue
    if (from <= middle) siblings.unshift({ height, index: index + 1 })
    else {
      siblings.unshift({ height, index })
      index += 1
    }
  }
  return { start: index === 0 ? undefined : { height, index }, siblings }
}

/** The roots of both trees, from where the smaller one ends and the siblings on the way up from there. */
const rootsOf = (
  start: Hash,
  siblings: readonly Node[],
  hashes: readonly Hash[],
  hasher: TreeHasher,
): { readonly older: Hash; readonly newer: Hash } => {
  let [older, newer] = [start, start]
  hashes.forEach((hash, i) => {
    const node = siblings[i] as Node
    newer = join(node, hash, newer, hasher)
    if (isLeft(node)) older = hasher.node(hash, older)
  })
  return { older, newer }
}

/** The hashes of nodes in the tree of a size; each tile is read once, and all at the same time. */
const readNodes = (
  nodes: readonly Node[],
  size: number,
  readTile: ReadTile,
  hasher: TreeHasher,
): Promise<readonly Hash[]> => {
  const tiles = new Map<string, Promise<Uint8Array>>()
  const tileOf = (level: number, index: number): Promise<Uint8Array> => {
    const width = Math.min(hashesPerTile, Math.floor(size / hashesPerTile ** level) - index * hashesPerTile)
    const key = `${level}/${index}`
    const tile = tiles.get(key) ?? readTile({ level, index, width }).then((octets) => assertTile(octets, width))
    tiles.set(key, tile)
    return tile
  }
  const hashOf = async ({ height, index }: Node): Promise<Hash> => {
    if (isComplete({ height, index }, size)) {
      const count = 2 ** (height % tileHeight)
      const perTile = hashesPerTile / count
      const octets = await tileOf(Math.floor(height / tileHeight), Math.floor(index / perTile))
      return rootOf(octets, (index % perTile) * count, count, hasher)
    }
    const left = { height: height - 1, index: 2 * index }
    const right = { height: height - 1, index: 2 * index + 1 }
    if (right.index * 2 ** right.height >= size) return hashOf(left)
    const [first, second] = await Promise.all([hashOf(left), hashOf(right)])
    return hasher.node(first, second)
  }
  return Promise.all(nodes.map(hashOf))
}

/** The root over `count` hashes of a tile, a power of two, from one of them on. */
const rootOf = (tile: Uint8Array, from: number, count: number, hasher: TreeHasher): Hash => {
  if (count === 1) return tile.subarray(from * hashOctets, (from + 1) * hashOctets)
  const middle = count / 2
  return hasher.node(rootOf(tile, from, middle, hasher), rootOf(tile, from + middle, middle, hasher))
}

const assertTile = (octets: Uint8Array, width: number): Uint8Array => {
  if (octets.length === width * hashOctets) return octets
  throw new RollFault('tile.octets', `a tile of width ${width} has ${octets.length} octets`)
}

/** The parent of a node of a proof and of what has been made so far. */
const join = (node: Node, hash: Hash, below: Hash, hasher: TreeHasher): Hash =>
  isLeft(node) ? hasher.node(hash, below) : hasher.node(below, hash)

const isLeft = ({ index }: Node): boolean => index % 2 === 0

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

const assertCounts = (...counts: readonly number[]): void => {
  for (const count of counts) if (!isCount(count)) throw new RangeError(`${count} is neither a size nor an index`)
}

const assertGrown = (from: number, to: number): void => {
  assertCounts(from, to)
  if (from > to) throw new RangeError(`a tree of ${from} is not the beginning of one of ${to}`)
}

const areHashes = (hashes: readonly Hash[]): boolean => hashes.every((hash) => hash.length === hashOctets)
