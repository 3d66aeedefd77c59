/** Files that a command line names. Each throws a usage failure; `what` begins its sentence: `The key `. */
import { constants } from 'node:buffer'
import { readFile } from 'node:fs/promises'

import { Failure } from './failure.ts'

/** Never more than a text can be, which most of them are taken for: a disk may have been named. */
export const readGiven = async (path: string, what = ''): Promise<Buffer> => {
  const octets = await readFile(path).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Failure('usage', `${what}${path} cannot be read (${code}).`)
  })
  if (octets.length > constants.MAX_STRING_LENGTH)
    throw new Failure('usage', `${what}${path} is too long for what is read here: name another file.`)
  return octets
}

export const readGivenText = async (path: string, what?: string): Promise<string> =>
  (await readGiven(path, what)).toString('utf8')
