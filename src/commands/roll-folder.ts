/** A roll as files, as "chancery roll export" and every other reader of tlog-tiles leave it: only what is asked for is read. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { encodeTilePath, hashesPerTile, parseBundle } from '../roll/tiles.ts'
import { Failure } from './failure.ts'

export interface RollFolder {
  /** The signed note. */
  readonly checkpoint: Buffer
  /** Entries of a roll of this size from an index on, bundle by bundle. */
  entries(from: number, size: number): AsyncGenerator<FolderEntries, void>
}

export interface FolderEntries {
  /** Of the first. */
  readonly index: number
  readonly entries: readonly Uint8Array[]
}

/** Throws a sentence where there is no checkpoint; `entries` where a bundle is missing or is none. */
export const openRollFolder = async (path: string): Promise<RollFolder> => {
  const checkpoint = await readFile(join(path, 'checkpoint')).catch((error: Error) => {
    throw new Failure('usage', `${path} is no folder of an exported roll: ${error.message}.`)
  })
  return {
    checkpoint,
    entries: async function* (from, size) {
      for (let index = from; index < size; ) {
        const bundle = Math.floor(index / hashesPerTile)
        const start = bundle * hashesPerTile
        const width = Math.min(hashesPerTile, size - start)
        const entries = await readBundle(path, bundle, width)
        yield { index, entries: entries.slice(index - start, width) }
        index = start + width
      }
    },
  }
}

/** As wide as it was then, or wider, where the folder has been added to since. */
const readBundle = async (path: string, index: number, width: number): Promise<readonly Uint8Array[]> => {
  for (let wide = width; wide <= hashesPerTile; wide += 1) {
    const file = encodeTilePath({ level: 'entries', index, width: wide })
    const octets = await readFile(join(path, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    if (octets) return parseBundle(octets, wide)
  }
  const file = encodeTilePath({ level: 'entries', index, width })
  throw new Failure('usage', `${join(path, file)} is missing, with entries ${index * hashesPerTile} and up.`)
}
