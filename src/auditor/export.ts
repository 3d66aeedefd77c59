/**
 * `chancery roll export`: a roll as a folder of tiles (c2sp.org/tlog-tiles), which grows with the roll. Nothing is written
 * that the signed checkpoint does not vouch for: a bundle goes into the folder when its leaves, computed from the entries,
 * lead to the checkpoint's root. What is there is never replaced by something else, nor taken away, unless it is cut off: what was
 * altered is evidence. The checkpoint comes last, so that whoever reads the folder meanwhile sees the roll as it was before. A
 * folder that lacks something of what its own checkpoint needs is gone through from the beginning.
 */
import { readFile, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { Failure } from '../lib/failure.ts'
import { sha256 } from '../lib/sha256.ts'
import type { SignedCheckpoint } from '../tlog/checkpoint.ts'
import { type Edge, emptyEdge, extend, storeEdge } from '../tlog/frontier.ts'
import {
  type Growth,
  inclusionProof,
  judgeGrowth,
  openTreeHasher,
  type ReadTile,
  verifyInclusion,
} from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import {
  encodeBundle,
  encodeTile,
  encodeTilePath,
  hashesPerTile,
  hashOctets,
  isTileAt,
  parseBundle,
  type Tile,
  tilesAt,
} from '../tlog/tiles.ts'
import { openNote } from './checkpoints.ts'
import type { RollKeys } from './keys.ts'
import { edgeOfWhole } from './quick-check.ts'
import { openSource, type RollSource, readCheckpoint } from './source.ts'
import { seenOf, writeWhole } from './state.ts'
import { ahead, bundlesBetween, type Found, openTileReader, type TileReader, widthAt } from './tiles.ts'

export interface Export {
  readonly source: RollSource
  readonly folder: string
  readonly keys: RollKeys
  /** The signed note to end at, instead of the newest of the source. */
  readonly to: Buffer | undefined
  readonly progress: (done: number, total: number) => void
}

export interface Exported {
  readonly from: number
  readonly size: number
  /** Base64. */
  readonly root: string
  /** Files of what was there before that had to be written again. */
  readonly mended: number
}

export const exportRoll = async (plan: Export): Promise<Exported> => {
  const { source, folder, keys } = plan
  const newest = await readCheckpoint(source)
  const note = plan.to ?? newest
  const goal = await openNote(note, keys, plan.to === undefined ? source.name : '--to')
  const own = await openFolder(folder, keys)
  const before = own.checkpoint
  const theirs = openTileReader(source, Math.max(goal.size, seenOf(newest).size))
  const ours = openTileReader(own.source, before?.size ?? 0)
  const whole = before && (await edgeOfWhole(folder, before, ours))
  const isGrowing = before === undefined || before.size < goal.size
  const [from, end] = [whole ?? emptyEdge(hasher), isGrowing ? goal : before]
  const write = async () =>
    from.size === end.size ? 0 : writeTiles(from, { ...plan, goal: end, theirs, ours, before })
  const two = before && { folder, note, goal, before }
  if (two && isGrowing) await assertOneRoll(two, [source.name, theirs])
  const mended = two && !isGrowing ? await mendOneRoll(two, ours, write) : await write()
  if (isGrowing) await writeWhole(join(folder, 'checkpoint'), [note])
  if (isGrowing && before) await removePartials(folder, before.size, goal.size)
  return { from: before?.size ?? 0, size: end.size, root: end.root.toBase64(), mended }
}

interface Writing extends Pick<Export, 'folder' | 'progress'> {
  readonly goal: SignedCheckpoint
  readonly theirs: TileReader
  readonly ours: TileReader
  /** What the folder should have. */
  readonly before: SignedCheckpoint | undefined
}

/** From the edge on, bundle by bundle. Resolves to how many files were written that should have been there. */
const writeTiles = async (from: Edge, writing: Writing): Promise<number> => {
  const { goal, folder, progress, theirs, before } = writing
  let mended = 0
  const write = async (tile: Tile, octets: Uint8Array): Promise<void> => {
    if (before) await assertPartialBefore(folder, before.size, [tile, octets])
    const isWritten = await writeOnce(folder, tile, octets)
    if (isWritten && before && isTileAt(tile, before.size)) mended += 1
  }
  const { size } = goal
  const proofTiles = remembering(readTileOf(theirs))
  let edge = from
  /** Of each level, the hashes of the tile that is not full yet. */
  const rows = storeEdge(edge).tiles.map((hashes) => [...hashes])
  for await (const { index, entries, leaves } of ahead(bundlesBetween(from.size, size), (bundle) =>
    readWhole(bundle, writing),
  )) {
    const isVouchedFor = await leadsToRoot({ index, leaves }, goal, proofTiles)
    if (!isVouchedFor) throw unlike(index * hashesPerTile, leaves.length)
    const extension = extend(edge, leaves.slice(edge.size - index * hashesPerTile), hasher)
    edge = extension.edge
    const bundle = { level: 'entries', index, width: leaves.length } as const
    await write(bundle, encodeBundle(entries))
    await write({ level: 0, index, width: leaves.length }, encodeTile(leaves))
    for (const { level, index: place, hash } of extension.completed) {
      rows[level] ??= []
      const row = rows[level]
      row.push(hash)
      if (row.length < hashesPerTile) continue
      await write({ level, index: Math.floor(place / hashesPerTile), width: hashesPerTile }, encodeTile(row))
      rows[level] = []
    }
    progress(edge.size, size)
  }
  for (const [level, row] of rows.entries()) {
    const index = Math.floor(size / hashesPerTile ** (level + 1))
    if (level > 0 && row.length > 0) await write({ level, index, width: row.length }, encodeTile(row))
  }
  if (!isEqual(edge.root, goal.root))
    throw new Failure('failed', `The ${size} entries do not give the root of the checkpoint.`)
  return mended
}

interface WholeBundle {
  readonly index: number
  readonly entries: readonly Uint8Array[]
  readonly leaves: readonly Uint8Array[]
}

/** From the folder where an export that was broken off has left it, else from the source. */
const readWhole = async (index: number, { goal, theirs, ours }: Writing): Promise<WholeBundle> => {
  const width = widthAt({ level: 0, index }, goal.size)
  const leaves = mustBeFound(await theirs.hashes({ level: 0, index, width }), index, width)
  if (width === hashesPerTile) {
    const there = await ours.entries({ index, width })
    if ('found' in there && there.found.every((entry, i) => isEqual(hasher.leaf(entry), leaves[i] as Uint8Array)))
      return { index, entries: there.found, leaves }
  }
  const entries = mustBeFound(await theirs.entries({ index, width }), index, width)
  const computed = entries.map((entry) => hasher.leaf(entry))
  const altered = computed.findIndex((leaf, i) => !isEqual(leaf, leaves[i] as Uint8Array))
  if (altered >= 0)
    throw new Failure(
      'refused',
      `Entry ${index * hashesPerTile + altered} does not have the leaf that the tiles have for it.`,
    )
  return { index, entries, leaves: computed }
}

/** The proof of one leaf of a tile goes through all others, so it vouches for all of them. */
const leadsToRoot = async (
  { index, leaves }: Pick<WholeBundle, 'index' | 'leaves'>,
  { size, root }: SignedCheckpoint,
  readTile: ReadTile,
): Promise<boolean> => {
  const first = index * hashesPerTile
  const own = encodeTile(leaves)
  const read: ReadTile = (tile) => (tile.level === 0 && tile.index === index ? Promise.resolve(own) : readTile(tile))
  const proof = await inclusionProof(first, size, read, hasher)
  return verifyInclusion({ leaf: leaves[0] as Uint8Array, index: first, size, proof, root }, hasher)
}

/** The larger of both checkpoints has grown out of the smaller one, by the tiles of whoever has the larger one. */
const assertOneRoll = async (two: Both, [place, tiles]: readonly [string, TileReader]): Promise<void> => {
  const growth = await judge(two, tiles)
  if (growth instanceof Failure) throw growth
  if (growth === 'forked') throw await fork(two)
  if (growth === 'damaged') {
    const [from, to] = bySize(two)
    throw new Failure(
      'refused',
      `The tiles of ${place} do not lead to its own checkpoint of ${to.size} entries: they are damaged, and prove nothing of the ${from.size} before. Nothing was written: mend that copy, or export another one.`,
    )
  }
}

/**
 * The same by tiles of the folder, which may lack some until they are mended. A fork is told first where it shows, and also where
 * mending fails: the source of another roll is none that mends this one.
 */
const mendOneRoll = async <T>(two: Both, ours: TileReader, mend: () => Promise<T>): Promise<T> => {
  await assertNoFork(two, ours)
  const mended = await mend().catch(async (error: Error) => {
    await assertNoFork(two, ours)
    throw error
  })
  await assertOneRoll(two, [two.folder, ours])
  return mended
}

const assertNoFork = async (two: Both, tiles: TileReader): Promise<void> => {
  if ((await judge(two, tiles)) === 'forked') throw await fork(two)
}

/** A failure where the tiles lack one that the proof takes. */
const judge = async (two: Both, tiles: TileReader): Promise<Growth | Failure> => {
  const [from, to] = bySize(two)
  const roots = { from: from.size, to: to.size, fromRoot: from.root, toRoot: to.root }
  try {
    return await judgeGrowth(roots, readTileOf(tiles), hasher)
  } catch (error) {
    if (error instanceof Failure && error.kind === 'refused') return error
    throw error
  }
}

const bySize = ({ goal, before }: Both) =>
  before.size <= goal.size ? ([before, goal] as const) : ([goal, before] as const)

// The folder ----------------------------------------------------------------------------------------------------------

const openFolder = async (folder: string, keys: RollKeys) => {
  const source = await openSource(folder, {})
  const note = await source.read('checkpoint')
  return { source, checkpoint: note && (await openNote(note, keys, folder)) }
}

/** Resolves to whether anything was written. */
const writeOnce = async (folder: string, tile: Tile, octets: Uint8Array): Promise<boolean> => {
  const path = join(folder, encodeTilePath(tile))
  const there = await readThere(path)
  if (there?.equals(octets)) return false
  if (there) assertCutOff(path, there, octets)
  await writeWhole(path, [octets])
  return true
}

/** What was narrower at the size before is taken away at the end: it must be the beginning of what takes its place. */
const assertPartialBefore = async (
  folder: string,
  before: number,
  [tile, octets]: readonly [Tile, Uint8Array],
): Promise<void> => {
  const width = widthAt(tile, before)
  if (width <= 0 || width >= tile.width) return
  const path = join(folder, encodeTilePath({ ...tile, width }))
  const there = await readThere(path)
  if (there) assertCutOff(path, there, narrowed(tile, octets, width))
}

/** The same of fewer hashes or entries. */
const narrowed = ({ level, width }: Tile, octets: Uint8Array, wanted: number): Uint8Array =>
  level === 'entries'
    ? encodeBundle(parseBundle(octets, width).slice(0, wanted))
    : octets.subarray(0, wanted * hashOctets)

const readThere = (path: string): Promise<Buffer | undefined> =>
  readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new Failure('usage', `${path} cannot be read (${error.code}).`)
  })

/** Nothing of it may be other than it should be. Where a machine stops, zeros may stand for what was not written any more. */
const assertCutOff = (path: string, there: Buffer, octets: Uint8Array): void => {
  const end = there.findLastIndex((octet) => octet !== 0) + 1
  if (there.length <= octets.length && there.subarray(0, end).equals(octets.subarray(0, end))) return
  throw new Failure(
    'refused',
    `${path} is another one than that of the roll; it is left as it is, since it tells that somebody or something has altered it. Keep it elsewhere and take it away from there by hand, then export again; or export into an empty folder.`,
  )
}

/** Those of the size before, now that others are there. */
const removePartials = async (folder: string, before: number, now: number): Promise<void> => {
  for (const tile of tilesAt(before)) {
    if (tile.width === hashesPerTile || isTileAt(tile, now)) continue
    const path = join(folder, encodeTilePath(tile))
    await rm(path, { force: true })
    // Unless there is another in it.
    await rmdir(dirname(path)).catch(() => {})
  }
}

interface Both {
  readonly folder: string
  readonly note: Buffer
  readonly goal: SignedCheckpoint
  readonly before: SignedCheckpoint
}

/**
 * Two checkpoints that were both signed, and cannot both be true: nobody can say that it was not so. Of two names they can: what was
 * lost for good, the roll of the new name has given up (docs/roll.md).
 */
const fork = async ({ folder, note, goal, before }: Both): Promise<Failure> => {
  if (goal.origin !== before.origin)
    return new Failure(
      'refused',
      `${folder} has the roll ${before.origin}, from whose ${before.size} entries ${goal.origin} does not go on: where that has succeeded it, only such a folder has what was given up. Nothing was written: keep it as it is, and export ${goal.origin} into another.`,
    )
  const path = join(
    folder,
    'inconsistent',
    `checkpoint-${goal.size}-${Buffer.from(goal.root).toString('hex').slice(0, 16)}`,
  )
  await writeWhole(path, [note])
  return new Failure(
    'refused',
    `The roll has forked: its checkpoint of ${goal.size} entries and that of ${before.size} in ${folder} cannot both be true. Both are signed; the other one is kept as ${path}, and nothing else of it was written.`,
  )
}

// -----------------------------------------------------------------------------------------------------------------

const mustBeFound = <T>(one: Found<T>, index: number, width: number): T => {
  if ('found' in one) return one.found
  throw new Failure('refused', `${spanText(index * hashesPerTile, width)}: ${one.message}.`)
}

const unlike = (first: number, width: number): Failure =>
  new Failure('refused', `${spanText(first, width)} do not lead to the root of the checkpoint.`)

const spanText = (first: number, width: number): string => `Entries ${first} to ${first + width - 1}`

const readTileOf =
  (tiles: TileReader): ReadTile =>
  async (tile) => {
    const hashes = await tiles.hashes(tile)
    if ('found' in hashes) return encodeTile(hashes.found)
    throw new Failure('refused', `${hashes.message}.`)
  }

/** The same few tiles above the leaves are in the proofs of neighbours. */
const remembering = (read: ReadTile): ReadTile => {
  const known = new Map<string, Promise<Uint8Array>>()
  return (tile) => {
    const path = encodeTilePath(tile)
    const found = known.get(path) ?? read(tile)
    known.delete(path)
    known.set(path, found)
    for (const oldest of known.keys()) {
      if (known.size <= mostRemembered) break
      known.delete(oldest)
    }
    return found
  }
}

const hasher = openTreeHasher(sha256)
const mostRemembered = 64
