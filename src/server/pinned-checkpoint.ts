/**
 * The last checkpoint, kept outside of the database: it tells a database that was set back, or is another one, from the right
 * one. Each instance has a file of its own, on a disk that outlives it.
 */
import { hash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

import type { Anchor } from '../ca/log/checkpoints.ts'
import { openBatch } from '../lib/batch.ts'
import { ifMissing, makeFolder, syncFolder } from '../lib/fs.ts'
import { withDeadline } from '../lib/timeout.ts'
import { type Checkpoint, encodeCheckpoint, parseCheckpoint } from '../tlog/checkpoint.ts'

export interface AnchorFile extends Anchor {
  /** The checkpoint that was there; undefined in a new file. */
  readonly found: Checkpoint | undefined
  close(): Promise<void>
}

export interface AnchorOptions {
  readonly path: string
  /** Milliseconds between writes; absent: each write is durable when it resolves. */
  readonly everyMs?: number | undefined
  /** A write that takes longer has failed: a disk that hangs reports nothing. */
  readonly patienceMs?: number
  /** Called with the failure of a write that no caller waits for. */
  readonly failed?: (error: unknown) => void
}

/** Throws a sentence where the file is damaged. */
export const openAnchorFile = async ({
  path,
  everyMs,
  patienceMs = everyMs === undefined ? longestWriteMs : longestTimedMs,
  failed = () => {},
}: AnchorOptions): Promise<AnchorFile> => {
  const folder = dirname(resolve(path))
  await openFolder(folder)
  const found = await readAnchorFile(path)
  const draft = `${path}.${randomUUID()}`
  await assertWritable(path, draft)
  let last = found

  const put = async (checkpoint: Checkpoint): Promise<void> => {
    const there = readAtOnce(path)
    const { origin } = there ?? last ?? checkpoint
    if (origin !== checkpoint.origin) throw new Error(`${path} is of the roll ${origin}, not of ${checkpoint.origin}`)
    // A successor that runs beside its predecessor may have written a larger one already.
    if (there && there.size > checkpoint.size) await syncFolder(folder)
    else await replaceFile(path, draft, encodeFile(checkpoint))
    last = checkpoint
  }
  /** One write at a time, of the newest checkpoint; those that come meanwhile go into the next. */
  const writes = openBatch({
    run: async (asked: readonly Checkpoint[]) => {
      const newest = asked.reduce(newerOf)
      if (last === undefined || newest.size > last.size) await put(newest)
      return asked.map(() => true)
    },
    max: 64,
    lanes: 1,
  })
  const inTime = async (work: Promise<unknown>): Promise<void> => {
    if ((await withDeadline(work, patienceMs)) === 'late')
      throw new Error(`${path} has not been written for ${patienceMs / 1000} s: its disk hangs`)
  }
  const write = (checkpoint: Checkpoint): Promise<void> => inTime(writes.add(checkpoint))
  const timed = everyMs === undefined ? undefined : openTimed(write, everyMs, failed)
  return {
    found,
    write: timed?.write ?? write,
    close: async () => {
      await timed?.close()
      await inTime(writes.drain()).catch(failed)
    },
  }
}

/** Writes the newest checkpoint at intervals. While that fails each further write is rejected. */
const openTimed = (put: Anchor['write'], everyMs: number, failed: (error: unknown) => void) => {
  let newest: Checkpoint | undefined
  let failure: unknown
  let inProgress: Promise<void> | undefined
  const sync = async (): Promise<void> => {
    if (newest === undefined) return
    try {
      await put(newest)
      failure = undefined
    } catch (error) {
      failure = error
      failed(error)
    }
  }
  const tick = (): void => {
    inProgress ??= sync().finally(() => {
      inProgress = undefined
    })
  }
  const timer = setInterval(tick, everyMs).unref()
  return {
    write: async (checkpoint: Checkpoint): Promise<void> => {
      newest = newest ? newerOf(newest, checkpoint) : checkpoint
      if (failure !== undefined) throw failure
    },
    close: async (): Promise<void> => {
      clearInterval(timer)
      await inProgress
      await sync()
    },
  }
}

/** Undefined where there is no file. Throws a sentence where it is damaged. */
export const readAnchorFile = async (path: string): Promise<Checkpoint | undefined> => {
  const text = await readFile(path, 'utf8').catch(ifMissing).catch(unreadable(path))
  return text === undefined ? undefined : parseFile(text, path)
}

/** A file that was written a moment ago is in memory: a trip to a thread would take longer. */
const readAtOnce = (path: string): Checkpoint | undefined => {
  try {
    return parseFile(readFileSync(path, 'utf8'), path)
  } catch (error) {
    return ifMissing(error as NodeJS.ErrnoException)
  }
}

const unreadable =
  (path: string) =>
  (cause: NodeJS.ErrnoException): never => {
    throw Object.assign(new Error(`${path} cannot be read: ${cause.message}`, { cause }), { code: cause.code })
  }

/** Made where it is missing, and durable with the folders above it. */
const openFolder = async (folder: string): Promise<void> => {
  const made = await makeFolder(folder, 0o700)
  if (made === undefined) return
  for (let synced = folder; synced !== dirname(made); ) {
    synced = dirname(synced)
    await syncFolder(synced)
  }
}

/** An instance whose checkpoints cannot be kept does not start. */
const assertWritable = async (path: string, draft: string): Promise<void> => {
  try {
    await (await open(draft, 'w', 0o600)).close()
    await rm(draft)
  } catch (cause) {
    throw new Error(`${path} cannot be made: ${(cause as Error).message}`, { cause })
  }
}

/** Durable when it resolves: the content before its name. */
const replaceFile = async (path: string, draft: string, text: string): Promise<void> => {
  try {
    const file = await open(draft, 'w', 0o600)
    try {
      await file.writeFile(text)
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
  await syncFolder(dirname(resolve(path)))
}

const newerOf = (one: Checkpoint, other: Checkpoint): Checkpoint => (other.size > one.size ? other : one)

/** The lines of the checkpoint, and their digest. */
const encodeFile = (checkpoint: Checkpoint): string => {
  const text = encodeCheckpoint(checkpoint)
  return `${text}${hash('sha256', text)}\n`
}

const parseFile = (text: string, path: string): Checkpoint => {
  const [, lines = '', digest] = /^((?:[^\n]*\n){3})([0-9a-f]{64})\n$/.exec(text) ?? []
  if (digest !== hash('sha256', lines))
    throw new Error(
      `${path} is damaged: it holds no whole checkpoint. It is what tells an old database from the right one; see docs/roll.md before you remove it.`,
    )
  return parseCheckpoint(lines)
}

/** Less than a caller of issuance waits (8 s), so that its answer names the reason. */
const longestWriteMs = 5_000
/** No caller waits for these, and certificates are handed out meanwhile. */
const longestTimedMs = 2_000
