/** A roll as a folder of tiles, fetched as anybody would. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { parseCheckpoint } from '../../src/tlog/checkpoint.ts'
import { parseNote } from '../../src/tlog/note.ts'
import { encodeTilePath, tilesAt } from '../../src/tlog/tiles.ts'
import type { Answer, TestService } from './service.ts'
import { askSql } from './sql.ts'

/**
 * The newest checkpoint, of all that is on the roll, to which a service that nobody asks for anything adds nothing: a list that is
 * due would be published at some time between this and its end.
 */
export const wholeCheckpoint = async ({
  service,
  request,
  database,
}: Pick<TestService, 'service' | 'database'> & {
  request(method: 'GET', path: string): Promise<Pick<Answer, 'text'>>
}) => {
  await service.publishCrls()
  for (;;) {
    const { text } = await request('GET', '/roll/checkpoint')
    const [row] = await askSql<{ size: number }>(database.ownerUrl, 'select size::int from roll')
    if (parseCheckpoint(parseNote(text).text).size === row?.size) return text
    await sleep(50)
  }
}

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
