/** Files for secrets that are shown once: whatever becomes of the file, no secret works that nobody has. */
import { rm } from 'node:fs/promises'

import { createPrivateFile, writePrivateFile } from '../keys/private-file.ts'
import { Failure } from '../lib/failure.ts'

export interface SecretFile {
  readonly file: string
  /** What stands there and gives way; undefined where nothing may. */
  readonly before?: string | undefined
}

export interface Making<Made> {
  make(): Promise<Made>
  /** Once it cannot be written. */
  withdraw(made: Made): Promise<unknown>
}

/**
 * Before it is made, as much as it takes was written in that place. Where it comes to nothing, there is what was there before, as
 * far as the disk still has room for that.
 */
export const keepSecret = async <Made extends { readonly secret: string }>(
  { file, before }: SecretFile,
  { make, withdraw }: Making<Made>,
): Promise<Omit<Made, 'secret'>> => {
  await (before === undefined ? create(file) : write(file, room))
  try {
    const made = await make()
    const { secret, ...told } = made
    await write(file, `${secret}\n`).catch(async (error: Failure) => {
      await withdraw(made).catch(() => tellWorking(error))
      throw error
    })
    return told
  } catch (error) {
    await (before === undefined ? rm(file) : write(file, before)).catch(() => {})
    throw error
  }
}

const tellWorking = ({ kind, message }: Failure): never => {
  throw new Failure(kind, `${message} What was made could not be withdrawn, and works: revoke it by its id.`)
}

const create = (file: string): Promise<void> =>
  createPrivateFile(file, room).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST'
      ? new Failure('usage', `${file} is there already, and stays as it is: name another file by --out.`)
      : unwritten(file, error)
  })

const write = (file: string, text: string): Promise<void> =>
  writePrivateFile(file, text).catch((error: Error) => {
    throw unwritten(file, error)
  })

const unwritten = (file: string, { message }: Error): Failure =>
  new Failure('usage', `${file} cannot be written: ${message}. Name another file by --out.`)

/**
 * Blank, and longer than any secret: a disk that is full is told of before anything is made. What takes its place is another file
 * until it has the name: where this was the last that the disk had, what was made is withdrawn.
 */
const room = '\n'.repeat(1_024)
