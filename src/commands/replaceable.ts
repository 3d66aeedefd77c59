/** Files that `--out` names: what is there is written over only where it was written by the same command. */
import { open, stat } from 'node:fs/promises'

import { Failure } from './failure.ts'

/**
 * Before anything is asked for: a file that is there must be empty, or begin as what takes its place does. Throws a usage failure:
 * a key that `--out` names by mistake stays as it is. What is no file, such as a pipe, holds nothing to lose.
 */
export const assertReplaceable = async (file: string, { begins, what }: Replacement): Promise<void> => {
  const found = await beginningOf(file, begins.length)
  if (found === '' || found === begins) return
  throw new Failure('usage', `${file} is there and is no ${what}; name another file by --out.`)
}

export interface Replacement {
  /** ASCII. */
  readonly begins: string
  /** For people. */
  readonly what: string
}

/** Empty where there is nothing; what is no file, as a pipe, is not waited for. What cannot be read is told where it is written. */
const beginningOf = async (file: string, length: number): Promise<string> => {
  const isFile = (await stat(file).catch(() => undefined))?.isFile() === true
  const handle = isFile ? await open(file, 'r').catch(() => undefined) : undefined
  if (!handle) return ''
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, 0)
    return buffer.toString('latin1', 0, bytesRead)
  } finally {
    await handle.close()
  }
}
