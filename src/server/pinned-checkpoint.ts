/**
 * The last checkpoint, kept outside of the database: what tells a database that was set back, or is another one, from the
 * right one. A file of two places that are written in turn, each whole by its own digest, so that a write that was cut off
 * leaves the one before it. One for each replica, on a disk that outlives it.
 */
import { hash, randomUUID } from 'node:crypto'
import { constants, fstatSync, readSync, statSync } from 'node:fs'
import { type FileHandle, link, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

import type { Anchor } from '../ca/log/checkpoints.ts'
import { openBatch } from '../lib/batch.ts'
import { ifMissing, makeFolder, syncFolder } from '../lib/fs.ts'
import { withDeadline } from '../lib/timeout.ts'
import { type Checkpoint, encodeCheckpoint, parseCheckpoint } from '../tlog/checkpoint.ts'
import { openOthers } from './pinned-checkpoint-writers.ts'

export interface AnchorFile extends Anchor {
  /** What is in it; undefined in a new one. Throws a sentence where it is damaged, or of another roll. */
  readonly found: Checkpoint | undefined
  close(): Promise<void>
}

export interface AnchorOptions {
  readonly path: string
  /** Synced so often, and not with each write: then the last of them may be lost with the machine. */
  readonly everyMs?: number | undefined
  /** A write that takes longer has failed, though it may come to its end: a disk that hangs says nothing. */
  readonly patienceMs?: number
  /** Told of a failure of a write that nobody waits for. */
  readonly failed?: (error: unknown) => void
  /** Told once that somebody else writes here, and for longer than an instance and its successor run beside each other. */
  readonly shared?: () => void
  readonly elapsedMs?: () => number
}

export const openAnchorFile = async ({
  path,
  everyMs,
  patienceMs = everyMs === undefined ? longestWriteMs : longestTimedMs,
  failed = () => {},
  shared = () => {},
  elapsedMs = () => performance.now(),
}: AnchorOptions): Promise<AnchorFile> => {
  let place = await openPlace(path)
  const found = await readFound(place, path)
  let last = found
  const seen: SeenPlace[] = []
  /** Of the last write, while nobody knows whether it is durable. */
  let uncertain: number | undefined
  /** Whatever is larger than what was found, seen, and tried to be written by us since, is new, and of somebody else. */
  let largest = found?.size
  const others = openOthers(shared, elapsedMs)

  const put = async (checkpoint: Checkpoint, isReopened = false): Promise<void> => {
    const there = place.isNamed() ? readPlaces(place.file(), path, seen) : []
    const newest = newestOf(there)
    const { origin } = newest ?? last ?? checkpoint
    assertOrigin(origin, checkpoint, path)
    const isOurs = newest !== undefined && newest.size === uncertain
    if (!isReopened && largest !== undefined && newest && newest.size > largest) others.seen()
    largest = Math.max(largest ?? 0, newest?.size ?? 0, checkpoint.size)
    const written = place.file()
    // Whoever else writes here, against all advice, has promised what it wrote: the larger one stays.
    if (newest === undefined || isOurs || newest.size < checkpoint.size) {
      // What failed may be there to be read, and still not be on the disk.
      const next = (newest !== undefined && there[0] === newest) === isOurs ? 0 : 1
      const octets = encodePlace(checkpoint)
      uncertain = checkpoint.size
      seen[next] = { octets, checkpoint }
      await writeWhole(written, octets, next * placeOctets)
      uncertain = undefined
    }
    await place.settle()
    if (place.file() !== written) return put(checkpoint)
    // Once for each: on a disk that names no file twice alike it would have no end.
    if (!isReopened && !isKept(written, path)) {
      const other = await openPlace(path)
      await readFound(other, path, checkpoint)
      await place.close().catch(() => {})
      place = other
      return put(checkpoint, true)
    }
    last = checkpoint
  }
  /** The write that is under way was waited for in vain. */
  let hangs = false
  /** One write at a time, of the newest there is; whoever comes meanwhile goes into the next. */
  const writes = openBatch({
    run: async (asked: readonly Checkpoint[]) => {
      const newest = newestOf(asked) as Checkpoint
      if (last === undefined || newest.size > last.size)
        await put(newest).finally(() => {
          hangs = false
        })
      return asked.map(() => true)
    },
    max: 64,
    lanes: 1,
  })
  const hanging = (): Error => new Error(`${path} has not been written for ${patienceMs / 1000} s: its disk hangs`)
  const write = async (checkpoint: Checkpoint): Promise<void> => {
    // Whoever has waited behind those who were told of it is told soon, or nobody would be there any more to be told.
    const written = await withDeadline(writes.add(checkpoint), hangs ? patienceMs / 5 : patienceMs)
    if (written !== 'late') return
    hangs = true
    throw hanging()
  }
  const timed = everyMs === undefined ? undefined : openTimed(write, everyMs, failed)
  return {
    found,
    write: timed?.write ?? write,
    close: async () => {
      await timed?.close()
      // A disk that hangs keeps nothing else from being closed.
      const end = async (): Promise<void> => {
        await writes.drain()
        await place.close()
      }
      if ((await withDeadline(end(), patienceMs)) === 'late') failed(hanging())
    },
  }
}

/**
 * The newest is written so often. While that fails nothing more is promised: what may be lost with the machine stays what
 * was said since the last write that went well.
 */
const openTimed = (put: Anchor['write'], everyMs: number, failed: (error: unknown) => void) => {
  let newest: Checkpoint | undefined
  let failure: unknown
  let underWay: Promise<void> | undefined
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
    underWay ??= sync().finally(() => {
      underWay = undefined
    })
  }
  const timer = setInterval(tick, everyMs).unref()
  return {
    write: async (checkpoint: Checkpoint): Promise<void> => {
      newest = newestOf([newest, checkpoint])
      if (failure !== undefined) throw failure
    },
    close: async (): Promise<void> => {
      clearInterval(timer)
      await underWay
      await sync()
    },
  }
}

/** Reads what is in the file of another process, which goes on. Undefined where there is none. */
export const readAnchorFile = async (path: string): Promise<Checkpoint | undefined> => {
  const file = await open(path, 'r').catch(ifMissing)
  if (!file) return undefined
  try {
    return newestOf(readPlaces(file, path))
  } finally {
    await file.close()
  }
}

interface Place {
  /** What is read and written. */
  file(): FileHandle
  /** Not before its first checkpoint is in it: what was begun before that is no checkpoint that anybody has seen. */
  isNamed(): boolean
  /**
   * Its name lasts when this resolves. Of a new one, once its first checkpoint is in it: gives it its name. Where another has
   * the name by now, that one is the file, and has to be written. Where it fails, the next one goes on from there.
   */
  settle(): Promise<void>
  close(): Promise<void>
}

const openPlace = async (path: string): Promise<Place> => {
  const folder = dirname(resolve(path))
  const made = await makeFolder(folder, 0o700)
  await clearDrafts(resolve(path)).catch(() => {})
  try {
    return placeOf(await open(path, durably))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const top = made === undefined ? folder : dirname(made)
  return openDraft(path, () => syncFolders(folder, top))
}

const placeOf = (file: FileHandle): Place => ({
  file: () => file,
  isNamed: () => true,
  settle: async () => {},
  close: () => file.close(),
})

/**
 * A file that is new has no name before its first checkpoint is whole: one that has the name and nothing in it that is whole has
 * lost it. And the name lasts before anything in it counts, and so do the folders that are made for it.
 */
const openDraft = async (path: string, syncNames: () => Promise<void>): Promise<Place> => {
  let { draft, file } = await makeDraft(path)
  let state: 'draft' | 'named' | 'settled' = 'draft'
  /** Ours is closed when the other is open, and not before: a failure would leave none to go on with. */
  const goOnWith = async (other: FileHandle): Promise<void> => {
    const before = file
    file = other
    await before.close().catch(() => {})
  }
  const giveItsName = async (): Promise<void> => {
    const given = await giveName(draft, path)
    if (given === 'lost') {
      const next = await makeDraft(path)
      draft = next.draft
      return goOnWith(next.file)
    }
    if (given === 'taken') await goOnWith(await open(path, durably))
    state = 'named'
  }
  return {
    file: () => file,
    isNamed: () => state !== 'draft',
    settle: async () => {
      if (state === 'draft') await giveItsName()
      if (state !== 'named') return
      await syncNames()
      state = 'settled'
      // What is left of it does no harm, and a later start clears it.
      await rm(draft, { force: true }).catch(() => {})
    },
    close: async () => {
      await file.close()
      await rm(draft, { force: true })
    },
  }
}

const makeDraft = async (path: string): Promise<{ readonly draft: string; readonly file: FileHandle }> => {
  const draft = `${path}.${randomUUID()}`
  const file = await open(draft, durably | constants.O_CREAT | constants.O_EXCL, 0o600).catch((cause: Error) => {
    throw new Error(`${path} cannot be made: ${cause.message}`, { cause })
  })
  return { draft, file }
}

/**
 * Drafts of starts that were killed. One of a process that lives and could not write for an hour may be among them: it makes
 * another.
 */
const clearDrafts = async (path: string): Promise<void> => {
  const folder = dirname(path)
  const start = `${basename(path)}.`
  for (const name of await readdir(folder)) {
    if (!name.startsWith(start) || !uuid.test(name.slice(start.length))) continue
    const { mtimeMs } = await stat(join(folder, name))
    if (Date.now() - mtimeMs > draftsLastMs) await rm(join(folder, name))
  }
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const draftsLastMs = 3_600_000

/** Taken where another has it: unlike a rename, a link never replaces what is there. Some disks have none. */
const giveName = async (draft: string, path: string): Promise<'given' | 'taken' | 'lost'> => {
  try {
    await link(draft, path)
    return 'given'
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    const given = faultsOfLinks[code]
    if (given !== undefined) return given
    if (!noLinks.has(code)) throw error
    await rename(draft, path)
    return 'given'
  }
}

/** Lost where the draft was cleared away. */
const faultsOfLinks: Readonly<Record<string, 'taken' | 'lost'>> = { EEXIST: 'taken', ENOENT: 'lost' }
const noLinks: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'])

const syncFolders = async (from: string, top: string): Promise<void> => {
  for (let folder = from; ; folder = dirname(folder)) {
    await syncFolder(folder)
    if (folder === top || folder === dirname(folder)) return
  }
}

/**
 * Whether the name is still that of this file: one that was taken away, or that another or a mount hides, takes what is written like
 * any other, and no start would find that. Where nobody can tell, the write itself does. At once, as the places are read.
 */
const isKept = (file: FileHandle, path: string): boolean => {
  try {
    const [ours, named] = [fstatSync(file.fd, { bigint: true }), statSync(path, { bigint: true })]
    return ours.ino === named.ino && ours.dev === named.dev
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    return code !== 'ENOENT' && code !== 'ENOTDIR'
  }
}

/** A disk that is full may take the first part. */
const writeWhole = async (file: FileHandle, octets: Buffer, at: number): Promise<void> => {
  for (let done = 0; done < octets.length; )
    done += (await file.write(octets, done, octets.length - done, at + done)).bytesWritten
}

/** Leaves it closed where it is not whole, or is not of the roll of `checkpoint`. */
const readFound = async (place: Place, path: string, checkpoint?: Checkpoint): Promise<Checkpoint | undefined> => {
  try {
    const found = place.isNamed() ? newestOf(readPlaces(place.file(), path)) : undefined
    if (found && checkpoint) assertOrigin(found.origin, checkpoint, path)
    return found
  } catch (error) {
    await place.close()
    throw error
  }
}

const assertOrigin = (origin: string, checkpoint: Checkpoint, path: string): void => {
  if (origin !== checkpoint.origin) throw new Error(`${path} is of the roll ${origin}, not of ${checkpoint.origin}`)
}

/** What a place says, by its octets, whoever wrote them: read or encoded before, it need not be parsed again. */
interface SeenPlace {
  readonly octets: Buffer
  readonly checkpoint: Checkpoint | undefined
}

/** At once: a kilobyte that was written a moment ago is in memory, and going to a thread for it would take longer. */
const readPlaces = (file: FileHandle, path: string, seen: SeenPlace[] = []): readonly (Checkpoint | undefined)[] => {
  const octets = readOctets(file, path)
  const places = [0, 1].map((i) => {
    const place = octets.subarray(i * placeOctets, (i + 1) * placeOctets)
    if (!seen[i]?.octets.equals(place)) seen[i] = { octets: place, checkpoint: readPlace(place) }
    return seen[i]?.checkpoint
  })
  if (places.every((place) => place === undefined))
    throw new Error(
      `${path} is damaged: nothing in it is whole. It is what tells an old database from the right one; see docs/roll.md before you remove it.`,
    )
  return places
}

const readOctets = (file: FileHandle, path: string): Buffer => {
  const octets = Buffer.alloc(2 * placeOctets)
  try {
    readSync(file.fd, octets, 0, octets.length, 0)
  } catch (cause) {
    // Of a folder, for example; what the system says has no path.
    throw new Error(`${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
  return octets
}

const newestOf = (places: readonly (Checkpoint | undefined)[]): Checkpoint | undefined =>
  places.reduce((best, place) => (place && (best === undefined || place.size > best.size) ? place : best), undefined)

/** For people too: the lines of the checkpoint, their digest, and empty lines. */
const encodePlace = (checkpoint: Checkpoint): Buffer => {
  const text = encodeCheckpoint(checkpoint)
  const place = Buffer.alloc(placeOctets, '\n')
  const whole = Buffer.from(`${text}${hash('sha256', text)}\n`)
  if (whole.length > placeOctets) throw new RangeError('the origin is too long')
  whole.copy(place)
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

/** A write is on the disk when it resolves: one trip for a thread, where a sync of its own would be another. */
const durably = constants.O_RDWR | constants.O_DSYNC
const placeOctets = 512
/** Less than who asks for a certificate is kept waiting (8 s), also with a fifth of it more: so he is told why. */
const longestWriteMs = 5_000
/** Nobody waits for it, and more is promised all the while. */
const longestTimedMs = 2_000
