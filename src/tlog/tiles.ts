/**
 * The tree and its entries as files that never change (c2sp.org/tlog-tiles): tiles of up to 256 hashes, bundles of up to
 * 256 entries, and their paths. A tile that is not full is another file for each of its widths.
 */
import { RollFault } from './fault.ts'
import { readDecimal } from './text.ts'

export const hashOctets = 32
export const tileHeight = 8
export const hashesPerTile = 2 ** tileHeight

/** 256 hashes at most: of leaves at level 0, above that of the full tiles of the level below. */
export interface HashTile {
  readonly level: number
  readonly index: number
  /** 1 to 256. */
  readonly width: number
}

/** The entries whose leaves are in the tile of level 0 with the same index and width. */
export interface EntryBundle {
  readonly level: 'entries'
  readonly index: number
  readonly width: number
}

export type Tile = HashTile | EntryBundle

/** `tile/0/x001/x234/067.p/8`: relative to where the roll is. */
export const encodeTilePath = ({ level, index, width }: Tile): string => {
  const groups: string[] = []
  for (let rest = index; groups.length === 0 || rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift(`${groups.length === 0 ? '' : 'x'}${String(rest % 1000).padStart(3, '0')}`)
  }
  return `tile/${level}/${groups.join('/')}${width === hashesPerTile ? '' : `.p/${width}`}`
}

/** The other way. Throws `tile.path` for everything that `encodeTilePath` would not have written. */
export const parseTilePath = (path: string): Tile => {
  const [, where = '', groups = '', partial] = pathPattern.exec(path) ?? []
  const level = where === 'entries' ? where : readDecimal(where, 'tile.path', 'the level')
  const index = Number(groups.replaceAll(/[x/]/g, ''))
  const width = partial === undefined ? hashesPerTile : readDecimal(partial, 'tile.path', 'the width')
  const tile: Tile = level === 'entries' ? { level, index, width } : { level, index, width }
  // One more leading group of zeros, a level or an index beyond all trees, a width of 0 or 256: another spelling, or none.
  const isKnown = level === 'entries' || level <= maxLevel
  if (!isKnown || !Number.isSafeInteger(index) || encodeTilePath(tile) !== path || width < 1 || width > hashesPerTile)
    throw new RollFault('tile.path', 'this is not the path of a tile')
  return tile
}

/** Every tile and bundle of a tree, as its last checkpoint wants them: full ones, and the partial one of each level. */
export const tilesAt = (size: number): Generator<Tile, void> => tilesBetween(0, size)

/** Those of a tree that were not there at an earlier size, each level from left to right. */
export function* tilesBetween(from: number, to: number): Generator<Tile, void> {
  for (const tile of tilesOfLevel(from, to)) yield { level: 'entries', ...tile }
  for (let level = 0, [before, now] = [from, to]; now > 0; level += 1) {
    for (const tile of tilesOfLevel(before, now)) yield { level, ...tile }
    before = Math.floor(before / hashesPerTile)
    now = Math.floor(now / hashesPerTile)
  }
}

/** Whether a tile is one of a tree of this size: full, or as wide as it is there. */
export const isTileAt = ({ level, index, width }: Tile, size: number): boolean => {
  const count = Math.floor(size / hashesPerTile ** (level === 'entries' ? 0 : level))
  const there = count - index * hashesPerTile
  return width === Math.min(there, hashesPerTile)
}

/** Hashes as the octets of a tile. */
export const encodeTile = (hashes: readonly Uint8Array[]): Uint8Array => {
  const octets = new Uint8Array(hashes.length * hashOctets)
  for (const [i, hash] of hashes.entries()) octets.set(hash, i * hashOctets)
  return octets
}

/** The hashes of a tile of this width, as windows of it. Throws `tile.octets`. */
export const parseTile = (octets: Uint8Array, width: number): Uint8Array[] => {
  if (octets.length !== width * hashOctets)
    throw new RollFault('tile.octets', `a tile of width ${width} has ${octets.length} octets`)
  return Array.from({ length: width }, (_, i) => octets.subarray(i * hashOctets, (i + 1) * hashOctets))
}

/** Entries, each after its length. */
export const encodeBundle = (entries: readonly Uint8Array[]): Uint8Array => {
  const octets = new Uint8Array(entries.reduce((sum, entry) => sum + lengthOctets + entry.length, 0))
  let at = 0
  for (const entry of entries) {
    if (entry.length > maxEntryOctets) throw new RangeError(`an entry has ${entry.length} octets`)
    octets[at] = entry.length >> 8
    octets[at + 1] = entry.length & 0xff
    octets.set(entry, at + lengthOctets)
    at += lengthOctets + entry.length
  }
  return octets
}

/** The entries of a bundle of this width, as windows of it. Throws `bundle.octets`. */
export const parseBundle = (octets: Uint8Array, width: number): Uint8Array[] => {
  const entries: Uint8Array[] = []
  let at = 0
  while (entries.length < width) {
    const start = at + lengthOctets
    const end = start + (((octets[at] ?? 0) << 8) | (octets[at + 1] ?? 0))
    if (end > octets.length) throw new RollFault('bundle.octets', `it ends within entry ${entries.length} of ${width}`)
    entries.push(octets.subarray(start, end))
    at = end
  }
  if (at !== octets.length) throw new RollFault('bundle.octets', `there is more in it than ${width} entries`)
  return entries
}

/** The tiles of one level that a growth of its hashes has filled or widened. */
function* tilesOfLevel(from: number, to: number): Generator<{ readonly index: number; readonly width: number }, void> {
  if (from === to) return
  for (let index = Math.floor(from / hashesPerTile); index * hashesPerTile < to; index += 1)
    yield { index, width: Math.min(hashesPerTile, to - index * hashesPerTile) }
}

const pathPattern = /^tile\/(entries|[0-9]{1,2})\/((?:x[0-9]{3}\/){0,5}[0-9]{3})(?:\.p\/([0-9]{1,3}))?$/
const maxLevel = 63
const lengthOctets = 2
const maxEntryOctets = 65_535
