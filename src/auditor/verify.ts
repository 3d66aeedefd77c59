/** `chancery roll verify`, of a roll that is read as tiles: all entries, the tree over them, and every checkpoint that was seen. */
import { randomInt } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

import { verifyEd25519 } from '../keys/note-signatures.ts'
import { sha256 } from '../lib/sha256.ts'
import { openCheckpoint } from '../tlog/checkpoint.ts'
import { isRollFault } from '../tlog/fault.ts'
import type { Finding } from '../tlog/findings.ts'
import { judgeGrowth, openTreeHasher, type ReadTile } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import { encodeTile, hashesPerTile } from '../tlog/tiles.ts'
import { fromText, openRollVerifier, type VerifierState } from '../tlog/verify.ts'
import { openRollCertificates, type RollCertificates } from './certificates.ts'
import { openNote } from './checkpoints.ts'
import type { Verified } from './findings.ts'
import type { RollKeys } from './keys.ts'
import { type RollSource, readCheckpoint } from './source.ts'
import { type GivenNote, type SeenCheckpoint, type StateFolder, seenOf } from './state.ts'
import { openTileReader, readBundles, type TileReader, widthAt } from './tiles.ts'

export interface Verification {
  readonly source: RollSource
  readonly keys: RollKeys
  /** Signed notes that others have seen. */
  readonly checkpoints: readonly GivenNote[]
  readonly state: StateFolder | undefined
  readonly tell: (finding: Finding) => void
  readonly progress: (done: number, total: number) => void
  /** Between two looks at a checkpoint that is smaller than one that was seen. */
  readonly pausesMs?: readonly number[]
}

/** Saves the state when nothing was found. */
export const verifySource = async (verification: Verification): Promise<Verified> => {
  const { keys, state } = verification
  const given = verification.checkpoints.map((one) => ({ ...one, ...seenOf(one.note) }))
  const signed = await Promise.all([...(state?.seen ?? []), ...given].map((one) => signedSize(one, keys)))
  const shown = await lookForNewest(verification, Math.max(0, ...signed))
  const newest = shown.reduce((best, one) => (one.size > best.size ? one : best))
  const saved = state?.state !== undefined && state.state.size <= newest.size ? state.state : undefined
  const [fresh, seen] = [[...given, ...shown], state?.seen ?? []]
  return withCertificates((certificates) => verifyFrom(saved, { ...verification, fresh, seen, newest, certificates }))
}

/** What nobody has signed is nothing to wait for; it is told of later. */
const signedSize = async ({ note }: SeenCheckpoint, keys: RollKeys): Promise<number> => {
  try {
    return (await openCheckpoint(note, keys, verifyEd25519)).size
  } catch (error) {
    if (isRollFault(error)) return 0
    throw error
  }
}

/**
 * The checkpoints that the source shows until there is one as large as what was seen. Of several replicas behind one address each shows
 * what it knows, and the witnesses of one may be seconds behind those of another: what is smaller than what was seen is
 * looked at again for a while, before it says that the roll has lost something.
 */
const lookForNewest = async (
  { source, keys, state, pausesMs = standardPausesMs }: Verification,
  atLeast: number,
): Promise<readonly SeenCheckpoint[]> => {
  const shown: SeenCheckpoint[] = []
  for (const pause of [...(source.isServed ? pausesMs : []), undefined]) {
    const note = await readCheckpoint(source)
    // What nobody has signed does not say how much there is to read; what somebody has is evidence, whatever comes of it.
    const { size } = await openNote(note, keys, source.name)
    await state?.see(note)
    shown.push({ size, note })
    if (size >= atLeast || pause === undefined) break
    await sleep(pause)
  }
  return shown
}

/** Certificates are checked on as many threads as there are cores: this one waits for them most of the time. */
export const withCertificates = async <T>(work: (certificates: RollCertificates) => Promise<T>): Promise<T> => {
  const certificates = openRollCertificates(availableParallelism())
  try {
    return await work(certificates)
  } finally {
    await certificates.close()
  }
}

interface Begun extends Verification {
  /** What the source has shown, and others. */
  readonly fresh: readonly SeenCheckpoint[]
  /** Before this verification. */
  readonly seen: readonly SeenCheckpoint[]
  readonly newest: SeenCheckpoint
  readonly certificates: RollCertificates
}

const verifyFrom = async (before: VerifierState | undefined, begun: Begun): Promise<Verified> => {
  const { source, keys, state, fresh, seen, newest, certificates, progress } = begun
  let found = 0
  const tell = (finding: Finding): void => {
    found += 1
    begun.tell(finding)
  }
  const tiles = openTileReader(source, newest.size)
  const isOther = before?.tree ? await isOfAnother({ size: before.size, ...before.tree }, begun, tiles) : false
  if (before && isOther) {
    const message = `the ${newest.size} entries there are have not grown out of the ${before.size} that were verified before; what follows is said of them alone`
    tell({ index: before.size, code: 'checkpoint.root', message })
  }
  const saved = isOther ? undefined : before
  const from = saved?.size ?? 0
  const upper = openUpperTiles(tiles, saved, tell)
  const isAhead = ({ size }: SeenCheckpoint): boolean => size >= from
  const ahead = [...seen, ...fresh].filter(isAhead)
  const verifier = await openRollVerifier(
    {
      ...certificates,
      ...{ sha256, keys, verify: verifyEd25519, tell, seed: randomInt(2 ** 32) },
      checkpoints: ahead,
      completed: upper.add,
    },
    saved,
  )
  for await (const bundle of readBundles(tiles, from, newest.size)) {
    for (const finding of bundle.findings) tell(finding)
    await verifier.add(bundle.entries)
    await upper.compare()
    progress(Math.min(newest.size, bundle.index + hashesPerTile), newest.size)
  }
  const { size, root } = await verifier.finish()
  await upper.end(size)
  // Those that the state itself has grown out of were compared then: only what is new has to be.
  const passed = fresh.filter((one) => !isAhead(one))
  if (root !== undefined) for (const one of passed) await comparePassed(one, { tiles, size, root, keys, tell })
  if (found === 0) await state?.save(await verifier.save())
  return {
    ...{ size, root: root?.toBase64() ?? null, from, checkpoints: ahead.length + passed.length },
    ...(keys.witnesses.length > 0 && { witnesses: await witnessesOf(newest, begun) }),
  }
}

/** That one has not cosigned it is no fault of the roll: it may be away. Whoever gives its key wants to know. */
const witnessesOf = async (
  { note }: SeenCheckpoint,
  { keys, source }: Begun,
): Promise<NonNullable<Verified['witnesses']>> => {
  const { cosignatures } = await openNote(note, keys, source.name)
  return keys.witnesses.map((witness) => {
    const { time } = cosignatures.find(({ key }) => key === witness) ?? {}
    return { name: witness.name, time: time === undefined ? null : new Date(1_000 * time).toISOString() }
  })
}

/**
 * Whether the roll there is another one than what was verified before, as its own tiles tell. To go on from what is of one roll by entries
 * of another would say nothing true of either.
 */
const isOfAnother = async (
  before: { readonly size: number; readonly root: string },
  { source, keys, newest }: Begun,
  tiles: TileReader,
): Promise<boolean> => {
  const { size, root } = await openNote(newest.note, keys, source.name)
  const roots = { from: before.size, to: size, fromRoot: Uint8Array.fromBase64(before.root), toRoot: root }
  try {
    return (await judgeGrowth(roots, readTileOf(tiles), hasher)) === 'forked'
  } catch (error) {
    if (error instanceof NotThere) return false
    throw error
  }
}

interface Whole {
  readonly tiles: TileReader
  readonly size: number
  readonly root: Uint8Array
  readonly keys: RollKeys
  readonly tell: (finding: Finding) => void
}

/** A checkpoint from before the point at which this verification began: it must be a beginning of what there is now. */
const comparePassed = async ({ note, size: index, name }: SeenCheckpoint, whole: Whole): Promise<void> => {
  const { tiles, size, root, keys, tell } = whole
  try {
    const checkpoint = await openCheckpoint(note, keys, verifyEd25519)
    const roots = { from: checkpoint.size, to: size, fromRoot: checkpoint.root, toRoot: root }
    const growth = await judgeGrowth(roots, readTileOf(tiles), hasher)
    if (growth === 'forked')
      tell({
        ...{ index, code: 'checkpoint.root' },
        message: fromText(`the ${size} entries there are have not grown out of it`, name),
      })
    if (growth === 'damaged') {
      const message = `the tiles do not lead from the ${index} entries of a checkpoint to the root of these entries`
      tell({ index: 0, until: size, code: 'tile.hash', message: fromText(message, name) })
    }
  } catch (error) {
    if (error instanceof NotThere) return tell(error.finding)
    if (!isRollFault(error)) throw error
    tell({ index, code: 'checkpoint.invalid', message: fromText(error.message, name) })
  }
}

/** A tile that is missing or none says nothing of a checkpoint. */
class NotThere extends Error {
  readonly finding: Finding

  constructor(finding: Finding) {
    super(finding.message)
    this.finding = finding
  }
}

const readTileOf =
  (tiles: TileReader): ReadTile =>
  async (tile) => {
    const hashes = await tiles.hashes(tile)
    if ('found' in hashes) return encodeTile(hashes.found)
    const each = hashesPerTile ** tile.level
    const index = tile.index * hashesPerTile * each
    throw new NotThere({ index, until: index + tile.width * each, ...hashes })
  }

/** The tiles above the leaves, compared with what the entries make of them as each is complete, and at the end. */
const openUpperTiles = (tiles: TileReader, saved: VerifierState | undefined, tell: (finding: Finding) => void) => {
  const levels = new Map<number, { start: number; hashes: Uint8Array[] }>()
  for (const [level, hashes] of (saved?.tree?.tiles ?? []).entries())
    if (level > 0)
      levels.set(level, {
        start: Math.floor((saved?.size ?? 0) / hashesPerTile ** (level + 1)) * hashesPerTile,
        hashes: hashes.map((hash) => Uint8Array.fromBase64(hash)),
      })
  const full: { readonly level: number; readonly start: number; readonly hashes: readonly Uint8Array[] }[] = []
  const compareOne = async ({ level, start, hashes }: (typeof full)[number]): Promise<void> => {
    const tile = { level, index: start / hashesPerTile, width: hashes.length }
    const stored = await tiles.hashes(tile)
    const each = hashesPerTile ** level
    if (!('found' in stored)) return tell({ index: start * each, until: (start + hashes.length) * each, ...stored })
    for (const [i, hash] of hashes.entries())
      if (!isEqual(hash, stored.found[i] as Uint8Array))
        tell({
          ...{ index: (start + i) * each, until: (start + i + 1) * each, code: 'tile.hash' },
          message: `hash ${i} of tile ${tile.index} of level ${level} is not the one that these entries give`,
        })
  }
  const compare = async (): Promise<void> => {
    for (const tile of full.splice(0)) await compareOne(tile)
  }
  return {
    add: ({
      level,
      index,
      hash,
    }: {
      readonly level: number
      readonly index: number
      readonly hash: Uint8Array
    }): void => {
      const row = levels.get(level) ?? { start: index, hashes: [] }
      row.hashes.push(hash)
      levels.set(level, row)
      if (row.hashes.length < hashesPerTile) return
      full.push({ level, ...row })
      levels.delete(level)
    },
    compare,
    end: async (size: number): Promise<void> => {
      for (const [level, row] of levels) {
        // Without entries there is no tree any more, and no telling how wide a tile is.
        if (row.hashes.length > 0 && row.hashes.length === widthAt({ level, index: row.start / hashesPerTile }, size))
          full.push({ level, ...row })
      }
      await compare()
    },
  }
}

const hasher = openTreeHasher(sha256)
/** Half a minute: replicas show what is cosigned for no longer than twenty seconds. */
const standardPausesMs = [1_000, 2_000, 4_000, 8_000, 15_000]
