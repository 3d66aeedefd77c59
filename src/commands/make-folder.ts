/** Folders that a command is told to make. */
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * As `mkdir -p`; whether it was made here. Node's own never ends where a folder that is there takes no other, as `/proc`: to that
 * the kernel says ENOENT, for which the parent is made again.
 */
export const makeFolder = async (path: string): Promise<boolean> => {
  const make = (): Promise<boolean> => mkdir(path).then(() => true, ifThere)
  return make().catch(async (error: NodeJS.ErrnoException) => {
    const parent = dirname(path)
    if (error.code !== 'ENOENT' || parent === path) throw error
    await makeFolder(parent)
    return make()
  })
}

/** A file in its place is found by whoever goes into it. */
const ifThere = (error: NodeJS.ErrnoException): boolean => {
  if (error.code === 'EEXIST') return false
  throw error
}
