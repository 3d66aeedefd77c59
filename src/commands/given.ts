/** Files that a command line names. Each throws a usage failure; `what` begins its sentence: `The key `. */
import { readFile } from 'node:fs/promises'

import { Failure } from './failure.ts'

export const readGiven = (path: string, what = ''): Promise<Buffer> =>
  readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Failure('usage', `${what}${path} cannot be read (${error.code}).`)
  })

export const readGivenText = async (path: string, what?: string): Promise<string> =>
  (await readGiven(path, what)).toString('utf8')
