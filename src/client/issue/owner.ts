/** To whom the files of a certificate are given, and who may read its key. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { lstat, mkdtemp, readdir, readFile, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { Failure } from '../../lib/failure.ts'
import { withItself } from '../../lib/fs.ts'

export interface Access {
  /** Of key.pem. */
  readonly keyMode?: number
  /** `user`, `user:group` or `:group`, as chown takes it. */
  readonly owner?: string
}

export interface OrderAccess extends Access {
  /** Of what was asked for: whose files they are to be. */
  readonly orderDigest?: string
}

/** What is not said stays as it is. Whoever may not read the key before and after may not in between. */
export const give = async (folder: string, names: readonly string[], { keyMode, owner }: Access): Promise<void> => {
  const key = join(folder, 'key.pem')
  if (keyMode !== undefined) await setMode(key, (mode) => mode & keyMode)
  if (owner !== undefined)
    await chown(
      owner,
      names.map((name) => join(folder, name)),
    )
  if (keyMode !== undefined) await setMode(key, () => keyMode)
}

/**
 * The same of what is there already: each folder in `versions`, as the certificate before the last may still hold. Those that
 * somebody else could have put there are left alone, those of another order, which a link above may lead to, and so is what
 * another command takes away meanwhile.
 */
export const giveAll = async (
  versions: string,
  names: readonly string[],
  { orderDigest, ...access }: OrderAccess,
): Promise<void> => {
  if (access.keyMode === undefined && access.owner === undefined) return
  for (const name of await readdir(versions)) {
    const version = join(versions, name)
    const places = await Promise.all([join(versions, '..'), versions, version].map(isOurFolder))
    if (places.includes(false) || (await orderOf(version)) !== orderDigest) continue
    await give(version, names, access).catch((error: unknown) => {
      if (existsSync(join(version, 'key.pem'))) throw error
    })
  }
}

/**
 * Whoever could put another folder, or a link, in the place of this one decides where keys are written, what is given away and
 * what is removed: as root, anywhere. Throws a usage failure.
 */
export const assertOurFolder = async (path: string): Promise<void> => {
  if ((await isOurFolder(path)) || (await makesAsItIs(path))) return
  throw new Failure(
    'usage',
    `${path} is no folder of this user's: what is done there could be led elsewhere. Run this as whom it belongs to, name another folder, or move it away.`,
  )
}

/** Before anything is asked: whoever is not there gets no certificate. */
export const assertOwner = async (own: string, owner: string): Promise<void> => {
  const draft = await mkdtemp(join(own, 'new-'))
  await chown(owner, [draft]).finally(() => rm(draft, { recursive: true, force: true }))
}

const orderOf = (version: string): Promise<string> =>
  readFile(join(version, orderName), 'utf8').then(
    (text) => text.trim(),
    () => '',
  )

const isOurFolder = async (path: string): Promise<boolean> => {
  const found = await lstat(path).catch(() => undefined)
  return found?.isDirectory() === true && found.uid === process.geteuid?.()
}

/** Where the file system says whose all is (NFS that squashes, CIFS): what is made here now is of the same user. */
const makesAsItIs = async (path: string): Promise<boolean> => {
  const found = await lstat(path).catch(() => undefined)
  const made = found?.isDirectory() ? await mkdtemp(join(path, 'new-')).catch(() => undefined) : undefined
  if (made === undefined) return false
  try {
    return (await lstat(made)).uid === found?.uid
  } catch {
    return false
  } finally {
    await rmdir(made).catch(() => {})
  }
}

/** On a disk that cannot be written, what is right already is right. */
const setMode = (path: string, modeOf: (mode: number) => number): Promise<void> =>
  withItself(path, async (file) => {
    const before = (await file.stat()).mode & 0o7777
    const mode = modeOf(before)
    if (mode !== before) await file.chmod(mode)
  })

/** The program knows users and groups wherever they are kept. */
const chown = async (owner: string, files: readonly string[]): Promise<void> => {
  await run('chown', ['-h', '--', owner, ...files]).catch((error: Error & { stderr?: string }) => {
    throw new Failure('usage', `The files cannot be given to ${owner}: ${(error.stderr || error.message).trim()}`)
  })
}

/** In the folder of each certificate: the digest of what it was asked for by. */
export const orderName = 'order.sha256'
const run = promisify(execFile)
