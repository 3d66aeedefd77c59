/**
 * Whether a folder of tiles has what its checkpoint needs, at a glance: an export of every night must not read all that
 * was exported before. Of full tiles and bundles it sees that they are there, and end where a tile or any entry does; what
 * grows is hashed.
 */
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { sha256 } from '../lib/sha256.ts'
import type { SignedCheckpoint } from '../tlog/checkpoint.ts'
import { isRollFault } from '../tlog/fault.ts'
import { type Edge, edgeWidths, openEdge, storeEdge } from '../tlog/frontier.ts'
import { openTreeHasher } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import { encodeTilePath, hashesPerTile, hashOctets, type Tile, tilesAt } from '../tlog/tiles.ts'
import { ahead, type TileReader } from './tiles.ts'

/** From where the folder goes on; undefined where something is missing, cut off, or not of its checkpoint. */
export const edgeOfWhole = async (
  folder: string,
  checkpoint: SignedCheckpoint,
  tiles: TileReader,
): Promise<Edge | undefined> => {
  const edge = await edgeOf(checkpoint, tiles)
  if (edge === undefined || !(await hasLastEntries(edge, tiles))) return undefined
  for await (const isThere of ahead(tilesAt(checkpoint.size), (tile) => isFullThere(folder, tile), atOnce))
    if (!isThere) return undefined
  return edge
}

/** Its partial tiles must hash to its checkpoint's root. */
const edgeOf = async ({ size, root }: SignedCheckpoint, tiles: TileReader): Promise<Edge | undefined> => {
  const rows: (readonly Uint8Array[])[] = []
  for (const [level, width] of edgeWidths(size).entries()) {
    const index = Math.floor(size / hashesPerTile ** (level + 1))
    const hashes = width === 0 ? undefined : await tiles.hashes({ level, index, width })
    rows.push(hashes && 'found' in hashes ? hashes.found : [])
  }
  try {
    return openEdge({ size, root, tiles: rows }, hasher)
  } catch (error) {
    if (!isRollFault(error)) throw error
    return undefined
  }
}

const hasLastEntries = async (edge: Edge, tiles: TileReader): Promise<boolean> => {
  const leaves = storeEdge(edge).tiles[0] ?? []
  if (leaves.length === 0) return true
  const there = await tiles.entries({ index: Math.floor(edge.size / hashesPerTile), width: leaves.length })
  return 'found' in there && leaves.every((leaf, i) => isEqual(leaf, hasher.leaf(there.found[i] as Uint8Array)))
}

/** True for a partial one as well, which is looked at otherwise. */
const isFullThere = async (folder: string, tile: Tile): Promise<boolean> => {
  if (tile.width < hashesPerTile) return true
  const path = join(folder, encodeTilePath(tile))
  try {
    if (tile.level === 'entries') return await endsInEntry(path)
    return (await stat(path)).size === hashesPerTile * hashOctets
  } catch {
    // Whatever keeps it from being read: whoever reads it next says what.
    return false
  }
}

/** Entries are JSON objects: one that is cut off hardly ends in a brace. */
const endsInEntry = async (path: string): Promise<boolean> => {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    const { bytesRead, buffer } = await file.read(Buffer.alloc(1), 0, 1, Math.max(0, size - 1))
    return bytesRead === 1 && buffer[0] === 0x7d
  } finally {
    await file.close()
  }
}

const hasher = openTreeHasher(sha256)
/** Files that are looked at at a time. */
const atOnce = 32
