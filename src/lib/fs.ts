/** Folders that are made where they are missing, names that last when the machine stops, and what is not there. */
import { constants, type FileHandle, mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * As `mkdir -p`; the topmost that was made here, or undefined where it was there. Node's own never ends where a folder that is there
 * takes no other, as `/proc`: to that the kernel says ENOENT, for which the parent is made again. Throws with the path of what
 * stands in the place of a folder: ENOTDIR of a file, EEXIST of a link that leads nowhere.
 */
export const makeFolder = async (path: string, mode = 0o777): Promise<string | undefined> => {
  const make = (): Promise<string | undefined> => mkdir(path, { mode }).then(() => path, ifFolder)
  return make().catch(async (error: NodeJS.ErrnoException) => {
    const parent = dirname(path)
    // ENOTDIR may be of what is above it, and then its own is what is told.
    if (!ofParents.has(error.code ?? '') || parent === path) throw error
    const above = await makeFolder(parent, mode)
    const here = await make()
    return above ?? here
  })
}

/** What is in a folder keeps its name when the machine stops: a rename survives only when its folder was synced too. */
export const syncFolder = async (path: string): Promise<void> => {
  const folder = await open(path, 'r')
  await folder.sync().finally(() => folder.close())
}

/**
 * The very file or folder of this name: throws ELOOP for a link. Whose something is and who may read it is changed so, where somebody
 * else may write in its folder: by its name a link could be put in between, and what it leads to would be changed.
 */
export const withItself = async <T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> => {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    return await work(file)
  } finally {
    await file.close()
  }
}

/** Undefined in place of what is not there: `stat(path).catch(ifMissing)`. */
export const ifMissing = (error: NodeJS.ErrnoException): undefined => {
  if (error.code === 'ENOENT') return undefined
  throw error
}

const ofParents: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR'])

/** Nothing was made where one is there. */
const ifFolder = async (error: NodeJS.ErrnoException): Promise<undefined> => {
  if (error.code !== 'EEXIST') throw error
  const there = await stat(error.path as string).catch(() => undefined)
  if (there === undefined) throw error
  if (!there.isDirectory()) throw notFolder(error.path as string)
}

const notFolder = (path: string): NodeJS.ErrnoException =>
  Object.assign(new Error(`ENOTDIR: not a directory, mkdir '${path}'`), { code: 'ENOTDIR', syscall: 'mkdir', path })
