/** Files that `--out` names: what is there is written over only where it was written by the same command. */
import { open, stat } from 'node:fs/promises'

import { Failure } from '../lib/failure.ts'

/**
 * Before anything is asked for: a file that is there must be empty, or one of those that it gives way to. Throws a usage failure,
 * also for what cannot be read: a key that `--out` names by mistake stays as it is. What is no file, such as a pipe, holds nothing
 * to lose.
 */
export const assertReplaceable = async (file: string, { isOne, what }: Replacement): Promise<void> => {
  const isFile = (await stat(file).catch(() => undefined))?.isFile() === true
  if (!isFile) return
  const ends = await endsOf(file).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Failure('usage', `${file} is there and cannot be read (${code}); name another file by --out.`)
  })
  if (ends === undefined || isOne(ends)) return
  throw new Failure('usage', `${file} is there and is no ${what}; name another file by --out.`)
}

export interface Replacement {
  readonly isOne: (ends: Ends) => boolean
  /** For people. */
  readonly what: string
}

/** A few kilobytes each, which may be the same ones. */
export interface Ends {
  readonly first: string
  readonly last: string
}

/** Undefined of an empty file. */
const endsOf = async (file: string): Promise<Ends | undefined> => {
  const handle = await open(file, 'r')
  try {
    const { size } = await handle.stat()
    if (size === 0) return undefined
    const read = async (at: number): Promise<string> => {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(endOctets), 0, endOctets, at)
      return buffer.toString('utf8', 0, bytesRead)
    }
    return { first: await read(0), last: await read(Math.max(0, size - endOctets)) }
  } finally {
    await handle.close()
  }
}

/** A last line tells its filter, which may be a subject of 4,096 characters, each escaped. */
export const endOctets = 65_536
