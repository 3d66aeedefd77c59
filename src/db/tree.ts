/** The roll's tree as it is stored: leaves in `entries`, roots of full tiles in `subtrees`, one row each, never twice. */
import type { Records, RollTiles } from '../ca/records.ts'
import { Problem } from '../errors.ts'
import { type Edge, edgeWidths, openEdge } from '../tlog/frontier.ts'
import { type Hash, type ReadTile, readRoot, type TreeHasher } from '../tlog/merkle.ts'
import { encodeBundle, type HashTile, hashesPerTile, hashOctets } from '../tlog/tiles.ts'
import type { Queryable } from './database.ts'

/** The hashes of one level from an index on: leaves are those of level 0. As many as there are, up to `count`. */
export const readHashes = async (
  db: Queryable,
  { level, from, count }: { readonly level: number; readonly from: number; readonly count: number },
): Promise<readonly Hash[]> => {
  if (count === 0) return []
  const { rows } =
    level === 0
      ? await db.query<HashRow>(selectLeaves, [from, from + count])
      : await db.query<HashRow>(selectSubtrees, [level, from, from + count])
  return rows.map(({ hash }) => hash)
}

/** Reads tiles of any width that there is; one that lacks a hash has fewer octets than it should. */
export const tileReader =
  (db: Queryable): ReadTile =>
  async ({ level, index, width }: HashTile) =>
    Buffer.concat(await readHashes(db, { level, from: index * hashesPerTile, count: width }))

/** The root (base64) of the roll as it was at a size: read from the hashes on record, as a verifier does it. */
export const rootReader =
  (db: Queryable, hasher: TreeHasher) =>
  async (size: number): Promise<string> =>
    Buffer.from(await readRoot(size, tileReader(db), hasher)).toString('base64')

/** Tiles and bundles for those who follow the roll; entries come as they are told to auditors. */
export const openTiles = (db: Queryable, events: Records['events']): RollTiles => {
  const readTile = tileReader(db)
  return {
    read: async (tile) => {
      const { level, index, width } = tile
      if (level !== 'entries') {
        const octets = await readTile({ level, index, width })
        if (octets.length !== width * hashOctets) throw missing()
        return octets
      }
      const { items } = await events({ fromIndex: index * hashesPerTile }, { limit: width })
      if (items.length !== width) throw missing()
      return encodeBundle(items.map(({ entry }) => Buffer.from(entry)))
    },
  }
}

const missing = (): Problem => new Problem('roll.not_found', 'The roll does not have so many entries.')

/** The right edge at a size. Throws a RollFault where what is stored does not hash to the root. */
export const readEdge = async (
  db: Queryable,
  { size, root }: { readonly size: number; readonly root: Hash },
  hasher: TreeHasher,
): Promise<Edge> => {
  const tiles: (readonly Hash[])[] = []
  // In turn: a transaction has one connection.
  for (const [level, width] of edgeWidths(size).entries()) {
    const from = Math.floor(size / hashesPerTile ** (level + 1)) * hashesPerTile
    tiles.push(await readHashes(db, { level, from, count: width }))
  }
  return openEdge({ size, root, tiles }, hasher)
}

interface HashRow {
  readonly hash: Buffer
}

const selectLeaves = {
  name: 'select_leaves',
  text: 'select leaf_hash as hash from entries where index >= $1::bigint and index < $2::bigint order by index',
}
const selectSubtrees = {
  name: 'select_subtrees',
  text: `
    select hash from subtrees where level = $1::smallint and index >= $2::bigint and index < $3::bigint order by index`,
}
