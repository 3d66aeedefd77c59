/** The files of a ceremony: never over one that is there, durable when they are said to be, and all possible before it begins. */
import { hash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { open, realpath, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { Failure } from '../../lib/failure.ts'
import { syncFolder } from '../../lib/fs.ts'

/** Throws Failure while an output is there already; with what else may be done, where there is something. */
export const assertNew = (paths: readonly string[], instead = ''): void => {
  const there = paths.filter((path) => existsSync(path))
  if (there.length > 0)
    throw new Failure(
      'conflict',
      there.map((path) => `${path} exists; nothing is ever overwritten.${instead}`).join('\n'),
    )
}

/** Throws Failure unless each can be written, into a file of its own: found out by writing, for rights tell only half of it. */
export const assertWritable = async (paths: readonly string[]): Promise<void> => {
  const folders = new Map<string, string>()
  for (const folder of new Set(paths.map(dirname))) folders.set(folder, await tryFolder(folder))
  const places = paths.map((path) => join(folders.get(dirname(path)) ?? '', basename(path)))
  const twice = paths.find((_, i) => places.indexOf(places[i] ?? '') < i)
  if (twice !== undefined) throw new Failure('usage', `${twice} is the file of another output.`)
}

/** Durable when it resolves, and not there when it rejects. */
export const createFile = async (path: string, content: string | Buffer): Promise<void> => {
  await makeDurable(path, () => writeNew(path, content))
}

/** What the medium says is a sentence, also where it was pulled out meanwhile. */
const makeDurable = (path: string, write: () => Promise<void>): Promise<void> =>
  write()
    .then(() => syncFolder(dirname(path)))
    .catch(explainWrite(path))

/** What could not be written whole goes: it would say nothing, and stand in the way of the next try. */
const writeNew = async (path: string, content: string | Buffer): Promise<void> => {
  const file = await open(path, 'wx', 0o644)
  try {
    await file.writeFile(content)
    await file.sync()
  } catch (error) {
    await rm(path, { force: true })
    throw error
  } finally {
    await file.close()
  }
}

const explainWrite =
  (path: string) =>
  ({ code }: NodeJS.ErrnoException): never => {
    if (code === 'EEXIST') throw new Failure('conflict', `${path} exists; nothing is ever overwritten.`)
    throw new Failure('usage', `${path} cannot be written (${code}).`)
  }

/** A text with its own digest in its last line. */
export interface SealedFile {
  /** In place of what it said, durable and whole at any moment; the digest. */
  replace(text: string): Promise<string>
  remove(): Promise<void>
}

export const createSealed = async (path: string, text: string): Promise<SealedFile> => {
  await createFile(path, seal(text).content)
  return {
    replace: async (newer) => {
      const { content, digest } = seal(newer)
      const beside = `${path}.${randomBytes(4).toString('hex')}`
      await makeDurable(path, async () => {
        await writeNew(beside, content)
        await rename(beside, path)
      })
      return digest
    },
    remove: () => rm(path, { force: true }).catch(explainWrite(path)),
  }
}

const seal = (text: string): { readonly content: string; readonly digest: string } => {
  const digest = hash('sha256', text)
  return { content: `${text}SHA-256 of all lines above: ${digest}\n`, digest }
}

/** Where it really is. A full disk takes a file, and nothing into it. */
const tryFolder = async (folder: string): Promise<string> => {
  const trial = join(folder, `.chancery-${randomBytes(8).toString('hex')}`)
  try {
    await writeNew(trial, Buffer.alloc(roomOctets))
    await rm(trial)
    return await realpath(folder)
  } catch (error) {
    throw new Failure('usage', `Nothing can be written into ${folder} (${(error as NodeJS.ErrnoException).code}).`)
  }
}

/** More than all that a ceremony writes. */
const roomOctets = 65_536
