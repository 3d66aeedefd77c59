/**
 * The last checkpoint, kept outside of the database: what tells a database that was set back, or is another one, from the
 * right one. A file of two places that are written in turn, each whole by its own digest, so that a write that was cut off
 * leaves the one before it. One for each replica, on a disk that outlives it.
 */
import { hash } from 'node:crypto'
import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'

import type { Anchor } from './ca/checkpoints.ts'
import { type Checkpoint, encodeCheckpoint, parseCheckpoint } from './roll/checkpoint.ts'

export interface AnchorFile extends Anchor {
  /** What is in it; undefined in a new one. Throws a sentence where it is damaged, or of another roll. */
  readonly found: Checkpoint | undefined
  close(): Promise<void>
}

export interface AnchorOptions {
  readonly path: string
  /** Synced so often, and not with each write: then the last of them may be lost with the machine. */
  readonly everyMs?: number | undefined
  /** Told of a failure of a write that nobody waits for. */
  readonly failed?: (error: unknown) => void
}

export const openAnchorFile = async ({ path, everyMs, failed = () => {} }: AnchorOptions): Promise<AnchorFile> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const file = await openOrMake(path)
  const places = await readPlaces(file, path)
  let last = newestOf(places)
  let next = places[0] === last ? 1 : 0
  let waiting: Checkpoint | undefined
  let writing: Promise<void> | undefined

  const put = async (checkpoint: Checkpoint): Promise<void> => {
    const place = next
    await file.write(encodePlace(checkpoint), 0, placeOctets, place * placeOctets)
    await file.datasync()
    next = 1 - place
    last = checkpoint
  }
  /** One write at a time, of the newest there is. */
  const flush = async (): Promise<void> => {
    while (waiting) {
      const checkpoint = waiting
      waiting = undefined
      if (last === undefined || last.origin !== checkpoint.origin || checkpoint.size > last.size) await put(checkpoint)
    }
  }
  const flushOnce = (): Promise<void> => {
    writing ??= flush().finally(() => {
      writing = undefined
    })
    return writing
  }
  const timer = everyMs === undefined ? undefined : setInterval(() => void flushOnce().catch(failed), everyMs).unref()
  return {
    found: last,
    write: async (checkpoint) => {
      if (waiting === undefined || checkpoint.size > waiting.size) waiting = checkpoint
      if (!timer) await flushOnce()
    },
    close: async () => {
      clearInterval(timer)
      await flushOnce().catch(failed)
      await file.close()
    },
  }
}

/** Reads what is in the file of another process, which goes on. Undefined where there is none. */
export const readAnchorFile = async (path: string): Promise<Checkpoint | undefined> => {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!file) return undefined
  try {
    return newestOf(await readPlaces(file, path))
  } finally {
    await file.close()
  }
}

const openOrMake = (path: string): Promise<FileHandle> =>
  open(path, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return open(path, 'wx+', 0o600)
  })

const readPlaces = async (file: FileHandle, path: string): Promise<readonly (Checkpoint | undefined)[]> => {
  const octets = Buffer.alloc(2 * placeOctets)
  const { bytesRead } = await file.read(octets, 0, octets.length, 0)
  const places = [0, 1].map((i) => readPlace(octets.subarray(i * placeOctets, (i + 1) * placeOctets)))
  // A first write that was cut off is no checkpoint that anybody has seen.
  if (bytesRead > placeOctets && places.every((place) => place === undefined))
    throw new Error(
      `${path} is damaged: nothing in it is whole. It is what tells an old database from the right one; see docs/roll.md before you remove it.`,
    )
  return places
}

const newestOf = (places: readonly (Checkpoint | undefined)[]): Checkpoint | undefined =>
  places.reduce((best, place) => (place && (best === undefined || place.size > best.size) ? place : best), undefined)

/** For people too: the lines of the checkpoint, their digest, and empty lines. */
const encodePlace = (checkpoint: Checkpoint): Buffer => {
  const text = encodeCheckpoint(checkpoint)
  const place = Buffer.alloc(placeOctets, '\n')
  if (place.write(`${text}${hash('sha256', text)}\n`) < text.length) throw new RangeError('the origin is too long')
  return place
}

const readPlace = (octets: Buffer): Checkpoint | undefined => {
  const lines = octets.toString('utf8').split('\n')
  const text = lines
    .slice(0, 3)
    .map((line) => `${line}\n`)
    .join('')
  if (lines[3] !== hash('sha256', text)) return undefined
  return parseCheckpoint(text)
}

const placeOctets = 512
