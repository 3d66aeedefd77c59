/**
 * Files that hold secrets. What others could read is refused, not warned about; what we write appears whole or not at
 * all, and only for us.
 */
import { randomUUID } from 'node:crypto'
import { constants, type FileHandle, link, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { makeFolder, syncFolder } from '../lib/fs.ts'

/**
 * The octets of a secret file. Throws a sentence when others may read it: mode 0077 must be clear, but for a
 * group-readable file that root owns while we are not root and the group is one of ours (a Kubernetes Secret with
 * fsGroup is 0440), or that is a credential which systemd has given us. `patienceMs` bounds how long a pipe that somebody has
 * open is waited for; as long as it takes without.
 */
export const readPrivateFile = (path: string, patienceMs?: number): Promise<Buffer> =>
  withPrivateFile(path, (file) => readOpened(file, path, patienceMs))

/** The octets of a file whoever else may read it, or of a pipe: as `<(…)` of a shell is one. Throws a sentence for a pipe that nobody writes into. */
export const readFileOrPipe = (path: string, patienceMs?: number): Promise<Buffer> =>
  withFile(path, (file) => readOpened(file, path, patienceMs))

/** For what is read while the service waits for its signer, which it kills after ten seconds, with all the keys in it. */
export const signerPatienceMs = 6_000

/** The same, for whoever does not need to know what is in it. */
export const assertPrivateFile = (path: string): Promise<void> => withPrivateFile(path, async () => {})

const withPrivateFile = <T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> =>
  withFile(path, async (file) => {
    const { mode, uid, gid } = await file.stat()
    if ((mode & 0o077) !== 0 && !isRootsForUs(path, { mode, uid, gid }))
      throw new Error(`${path} can be read by others (mode ${(mode & 0o777).toString(8)})${mendingText(uid)}.`)
    return work(file)
  })

/** Who owns it alone may change that, and once it is closed to others nobody else reads it: as of a secret that compose mounts. */
const mendingText = (owner: number): string => {
  const own = process.getuid?.() ?? owner
  return own === owner || own === 0
    ? ': chmod 600 it'
    : `, and is the account ${owner}'s, while this runs as ${own}: chown ${own} and chmod 400 it where it comes from, on the host where it is mounted into a container; as a Secret of Kubernetes it takes defaultMode 0440 and an fsGroup`
}

const withFile = async <T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> => {
  // To open a pipe that nobody writes into would hold a thread for good.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    return await work(file)
  } finally {
    await file.close()
  }
}

const readOpened = async (file: FileHandle, path: string, patienceMs?: number): Promise<Buffer> => {
  const found = await file.stat()
  if (found.isFIFO()) return readPipe(file, path, patienceMs)
  // At a terminal somebody types, who is waited for.
  return found.isCharacterDevice() ? readFile(path) : file.readFile()
}

/** As long as somebody has it open to write into it, it is waited for: it may be a person who types. */
const readPipe = async (file: FileHandle, path: string, patienceMs = Number.POSITIVE_INFINITY): Promise<Buffer> => {
  const parts: Buffer[] = []
  const start = performance.now()
  const until = start + writerWithinMs
  for (;;) {
    const part = await readPart(file)
    if (part?.length) parts.push(part)
    else if (part && parts.length > 0) return Buffer.concat(parts)
    else if (part && performance.now() > until)
      throw new Error(`${path} is a pipe, and nobody writes into it: name a file.`)
    else if (performance.now() - start > patienceMs)
      throw new Error(`${path} is a pipe, and whoever has it open does not come to an end: name a file.`)
    else await sleep(askAgainMs)
  }
}

/** Undefined while nothing is there yet; empty while nobody has it open to write. */
const readPart = async (file: FileHandle): Promise<Buffer | undefined> => {
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64 * 1024))
    return buffer.subarray(0, bytesRead)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
    throw error
  }
}

/** Writes a secret file (0600) in a private folder (0700), whole and synced to disk when it resolves. */
export const writePrivateFile = (path: string, content: string | Buffer): Promise<void> =>
  write(path, content, (draft) => rename(draft, path))

/** The same for a file that must not be there yet: rejects with EEXIST, also when another makes it at the same time. */
export const createPrivateFile = (path: string, content: string | Buffer): Promise<void> =>
  write(path, content, async (draft) => {
    // Unlike a rename, a link never replaces what is there.
    await link(draft, path)
    await rm(draft)
  })

const write = async (
  path: string,
  content: string | Buffer,
  putInPlace: (draft: string) => Promise<void>,
): Promise<void> => {
  await makeFolder(dirname(path), 0o700)
  const draft = `${path}.${randomUUID()}`
  const file = await open(draft, 'wx', 0o600)
  try {
    await writeAll(file, content)
    await putInPlace(draft)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
}

const writeAll = async (file: FileHandle, content: string | Buffer): Promise<void> => {
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
}

const isRootsForUs = (path: string, { mode, uid, gid }: { mode: number; uid: number; gid: number }): boolean =>
  (mode & 0o037) === 0 &&
  uid === 0 &&
  process.getuid?.() !== 0 &&
  (isCredential(path) || (process.getgroups?.().includes(gid) ?? false))

/**
 * `LoadCredential=` and its like: a folder of this unit alone, whose files are root's. That our account may read them stands in an
 * access list, whose mask is what the mode shows as the group's rights.
 */
const isCredential = (path: string): boolean => dirname(resolve(path)) === process.env['CREDENTIALS_DIRECTORY']

/** Less than anybody waits for a signer. */
const writerWithinMs = 2_000
const askAgainMs = 20
