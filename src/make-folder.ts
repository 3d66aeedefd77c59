/** Folders that are made where they are missing. */
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * As `mkdir -p`; the topmost that was made here, or undefined where it was there. Node's own never ends where a folder that is there
 * takes no other, as `/proc`: to that the kernel says ENOENT, for which the parent is made again.
 */
export const makeFolder = async (path: string, mode = 0o777): Promise<string | undefined> => {
  const make = (): Promise<string | undefined> => mkdir(path, { mode }).then(() => path, ifThere)
  return make().catch(async (error: NodeJS.ErrnoException) => {
    const parent = dirname(path)
    if (error.code !== 'ENOENT' || parent === path) throw error
    const above = await makeFolder(parent, mode)
    const here = await make()
    return above ?? here
  })
}

/** A file in its place is found by whoever goes into it. */
const ifThere = (error: NodeJS.ErrnoException): undefined => {
  if (error.code !== 'EEXIST') throw error
}
