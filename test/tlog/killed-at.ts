/**
 * Loaded before a command (`--import`): kills it at one of its steps, the first being 1, by `TEST_KILL_AT`. A step is what lasts: a
 * commit, before it is sent and after it was done though nobody has heard of it, and each change of a file called `anchor…`.
 */
import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { Socket } from 'node:net'

const killAt = Number(process.env['TEST_KILL_AT'])
let steps = 0
/** Whether it is to be killed now, as by a power cut. */
const isLast = (): boolean => {
  steps += 1
  return steps === killAt
}
const die = (): never => {
  process.kill(process.pid, 'SIGKILL')
  throw new Error('it was killed')
}

const { write } = Socket.prototype
Socket.prototype.write = function (this: Socket, chunk: Uint8Array | string, ...rest: never[]) {
  if (!Buffer.from(chunk as Uint8Array).includes('commit\0')) return write.call(this, chunk, ...rest)
  if (isLast()) die()
  const isUnheard = isLast()
  if (isUnheard) this.pause()
  const isSent = write.call(this, chunk, ...rest)
  if (isUnheard) setTimeout(die, 300)
  return isSent
} as typeof write

for (const name of ['rename', 'link', 'copyFile', 'rm'] as const) {
  const original = fs[name] as (...args: unknown[]) => Promise<unknown>
  Object.assign(fs, {
    [name]: async (...args: unknown[]) => {
      if (/anchor[^/]*$/.test(String(args[0])) && isLast()) die()
      return original(...args)
    },
  })
}
const { open } = fs
/** Of files that are opened from now on. */
const watch = (file: FileHandle): FileHandle => {
  const { write: writeFile } = file
  file.write = (async (...args: Parameters<FileHandle['write']>) => {
    if (isLast()) die()
    return writeFile.apply(file, args)
  }) as FileHandle['write']
  return file
}
Object.assign(fs, {
  open: async (...args: Parameters<typeof open>) => {
    const file = await open(...args)
    return /anchor[^/]*$/.test(String(args[0])) ? watch(file) : file
  },
})
syncBuiltinESMExports()
