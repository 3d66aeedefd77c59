/**
 * Files that a command line names; `-` is standard input. Each throws a usage failure; `what` begins its sentence: `The key `.
 */
import { constants } from 'node:buffer'
import { readFile } from 'node:fs/promises'

import { Failure } from './failure.ts'

/** Never more than a text can be, which most of them are taken for: a disk may have been named. */
export const readGiven = async (path: string, what = ''): Promise<Buffer> => {
  const name = path === '-' ? 'standard input' : path
  const octets = await (path === '-' ? readInput() : readFile(path)).catch((error: NodeJS.ErrnoException) => {
    if (error instanceof Failure) throw error
    throw new Failure('usage', `${what}${name} cannot be read (${error.code}).`)
  })
  if (octets.length > constants.MAX_STRING_LENGTH)
    throw new Failure('usage', `${what}${name} is too long for what is read here: name another file.`)
  return octets
}

let isInputTaken = false

/** To its end, or beyond what is taken: it may have none. */
const readInput = async (): Promise<Buffer> => {
  if (isInputTaken) throw new Failure('usage', 'Standard input is one file: name - once.')
  isInputTaken = true
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer)
    length += (chunk as Buffer).length
    if (length > constants.MAX_STRING_LENGTH) break
  }
  return Buffer.concat(chunks)
}

export const readGivenText = async (path: string, what?: string): Promise<string> =>
  (await readGiven(path, what)).toString('utf8')
