/** Files that a command line names. Each throws a usage failure; `what` begins its sentence: `The key `. */
import { readFile } from 'node:fs/promises'

import { Failure } from './failure.ts'

export const readGiven = (path: string, what = ''): Promise<Buffer> => readFile(path).catch(blame(`${what}${path}`))

export const readGivenText = (path: string, what = ''): Promise<string> =>
  readFile(path, 'utf8').catch(blame(`${what}${path}`))

/** What is longer than a string can be has no code. */
const blame =
  (file: string) =>
  ({ code, message }: NodeJS.ErrnoException): never => {
    throw new Failure('usage', `${file} cannot be read (${code ?? message}).`)
  }
