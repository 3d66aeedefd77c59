/** Tiles and entries of a source, as wide as they are wanted, and what is wrong with them. */

import { isRollFault } from '../tlog/fault.ts'
import type { Finding, StorageFindingCode } from '../tlog/findings.ts'
import type { HashTile } from '../tlog/tiles.ts'
import { encodeTilePath, hashesPerTile, parseBundle, parseTile, type Tile } from '../tlog/tiles.ts'
import type { FedEntry } from '../tlog/verify.ts'
import type { RollSource } from './source.ts'

export type Found<T> = { readonly found: T } | { readonly code: StorageFindingCode; readonly message: string }

export interface TileReader {
  /** The first hashes of a tile. */
  hashes(tile: HashTile): Promise<Found<readonly Uint8Array[]>>
  /** The first entries of a bundle. */
  entries(bundle: { readonly index: number; readonly width: number }): Promise<Found<readonly Uint8Array[]>>
}

/** `size` is that of the newest checkpoint of the source: of partial tiles, it may have those only. */
export const openTileReader = (source: RollSource, size: number): TileReader => {
  const read = async <T extends Tile>(
    tile: T,
    parse: (octets: Uint8Array, width: number) => readonly Uint8Array[],
  ): Promise<Found<readonly Uint8Array[]>> => {
    const widths = new Set([Math.max(tile.width, widthAt(tile, size)), hashesPerTile])
    for (const width of widths) {
      const path = encodeTilePath({ ...tile, width })
      const octets = await source.read(path)
      if (octets === undefined) continue
      try {
        return { found: parse(octets, width).slice(0, tile.width) }
      } catch (error) {
        if (!isRollFault(error, 'tile.octets') && !isRollFault(error, 'bundle.octets')) throw error
        return { code: error.code as StorageFindingCode, message: `${path}: ${error.detail}` }
      }
    }
    return {
      code: 'tile.missing',
      message: `${encodeTilePath({ ...tile, width: [...widths][0] as number })} is missing`,
    }
  }
  return {
    hashes: (tile) => read(tile, parseTile),
    entries: ({ index, width }) => read({ level: 'entries', index, width }, parseBundle),
  }
}

export interface Bundle {
  /** Of its first entry. */
  readonly index: number
  readonly entries: readonly FedEntry[]
  readonly findings: readonly Finding[]
}

/** Entries in order, in bundles of 256 at most, each with its leaf as the tiles have it. Read ahead. */
export async function* readBundles(tiles: TileReader, from: number, to: number): AsyncGenerator<Bundle, void> {
  for await (const bundle of ahead(bundlesBetween(from, to), (index) => readBundle(tiles, index, to))) {
    const skipped = Math.max(0, from - bundle.index)
    yield skipped === 0
      ? bundle
      : { ...bundle, index: from, entries: bundle.entries.filter(({ index }) => index >= from) }
  }
}

export interface BundledEntries {
  /** Of the first. */
  readonly index: number
  readonly entries: readonly Uint8Array[]
}

/** Entries in order, without what tiles say of them. Read ahead. Throws what is made of the sentence where there are none. */
export async function* readEntries(
  tiles: TileReader,
  { from, to }: { readonly from: number; readonly to: number },
  unreadable: (message: string, index: number) => Error,
): AsyncGenerator<BundledEntries, void> {
  const readOne = (index: number) => tiles.entries({ index, width: widthAt({ level: 'entries', index }, to) })
  for await (const [bundle, read] of ahead(
    bundlesBetween(from, to),
    async (index) => [index, await readOne(index)] as const,
  )) {
    const first = bundle * hashesPerTile
    if (!('found' in read)) throw unreadable(read.message, first)
    const skipped = Math.max(0, from - first)
    yield { index: first + skipped, entries: read.found.slice(skipped) }
  }
}

/** The bundles with the entries from one index to another: one by one, whatever a checkpoint says of how many there are. */
export function* bundlesBetween(from: number, to: number): Generator<number, void> {
  for (let index = Math.floor(from / hashesPerTile); index * hashesPerTile < to; index += 1) yield index
}

/** What is read of each, in their order; the next ones are under way meanwhile. */
export async function* ahead<I, T>(
  items: Iterable<I>,
  read: (item: I) => Promise<T>,
  most = 8,
): AsyncGenerator<T, void> {
  const underWay: Promise<T>[] = []
  for (const item of items) {
    const one = read(item)
    // A rejection is waited for when its turn comes.
    one.catch(() => {})
    underWay.push(one)
    if (underWay.length >= most) yield await (underWay.shift() as Promise<T>)
  }
  for (const one of underWay) yield await one
}

/** How wide a tile is in a tree of a size; 0 or less where there is none. */
export const widthAt = ({ level, index }: Pick<Tile, 'level' | 'index'>, size: number): number =>
  Math.min(hashesPerTile, Math.floor(size / hashesPerTile ** (level === 'entries' ? 0 : level)) - index * hashesPerTile)

const readBundle = async (tiles: TileReader, bundle: number, size: number): Promise<Bundle> => {
  const tile = { level: 0, index: bundle, width: widthAt({ level: 0, index: bundle }, size) }
  const first = bundle * hashesPerTile
  const [entries, leaves] = await Promise.all([tiles.entries(tile), tiles.hashes(tile)])
  const span = { index: first, until: first + tile.width }
  const findings = [entries, leaves].flatMap((one) => ('found' in one ? [] : [{ ...span, ...one }]))
  return { index: first, findings, entries: fedOf(first, foundOf(entries), foundOf(leaves)) }
}

const foundOf = <T>(one: Found<T>): T | undefined => ('found' in one ? one.found : undefined)

const fedOf = (
  first: number,
  entries: readonly Uint8Array[] | undefined,
  leaves: readonly Uint8Array[] | undefined,
): readonly FedEntry[] => {
  if (entries !== undefined)
    return entries.map((octets, i) => ({ index: first + i, octets, ...(leaves?.[i] && { leaf: leaves[i] }) }))
  return (leaves ?? []).map((leaf, i) => ({ index: first + i, octets: undefined, leaf }))
}
