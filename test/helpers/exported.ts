/** A roll as a folder of tiles, fetched as anybody would. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { parseCheckpoint } from '../../src/roll/checkpoint.ts'
import { parseNote } from '../../src/roll/note.ts'
import { encodeTilePath, tilesAt } from '../../src/roll/tiles.ts'
import type { Answer } from './service.ts'

type Read = (path: string) => Promise<Pick<Answer, 'status' | 'bytes'>>

/** Writes what the newest checkpoint speaks of into a folder; resolves to its size. */
export const exportRoll = async (read: Read, folder: string): Promise<number> => {
  const keep = async (path: string, octets: Buffer): Promise<void> => {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), octets)
  }
  const fetchFile = async (path: string): Promise<Buffer> => {
    const { status, bytes } = await read(`/roll/${path}`)
    if (status !== 200) throw new Error(`${path}: ${status}`)
    return bytes
  }
  const checkpoint = await fetchFile('checkpoint')
  const { size } = parseCheckpoint(parseNote(checkpoint).text)
  for (const tile of tilesAt(size)) await keep(encodeTilePath(tile), await fetchFile(encodeTilePath(tile)))
  await keep('checkpoint', checkpoint)
  return size
}
