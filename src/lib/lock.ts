/**
 * One command at a time: a lock beside the file that it guards. It is a link whose target says who has it, since a link is made
 * whole or not at all and never over another one. Nothing is left waiting by whoever is killed: a lock whose process is gone is
 * taken away by the next who wants it, and so is one that is older than any honest use, wherever it was made.
 */
import { hash, randomUUID } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { lstat, readlink, symlink, unlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { Failure } from './failure.ts'
import { ifMissing, makeFolder } from './fs.ts'

export interface Lock {
  /** Throws `later` where somebody has taken it away meanwhile, from one that was stopped for long. */
  assertHeld(): Promise<void>
}

export interface LockTimes {
  /** How long it is waited for. Milliseconds. */
  readonly patienceMs: number
  /** After which nobody who is well still has it. */
  readonly staleMs: number
}

/** Rejects with `later` where others have it for longer than is waited for, and with what the disk says. */
export const withLock = async <T>(
  path: string,
  work: (lock: Lock) => Promise<T>,
  times: LockTimes = usualTimes,
): Promise<T> => {
  await makeFolder(dirname(path), 0o700)
  const ours = newHolder()
  await take(path, ours, times)
  try {
    return await work({ assertHeld: () => assertHolder(path, ours) })
  } finally {
    await takeAway(path, ours)
  }
}

/** Who we are to other commands, each time anew. */
export const newHolder = (): string => `${process.pid}@${place()}:${randomUUID()}`

/** Whether that is another command, of this machine, which has not ended. */
export const isAtWork = (holder: string): boolean => {
  const pid = pidOf(holder)
  return pid !== undefined && pid !== process.pid && !isGone(holder)
}

const take = async (path: string, ours: string, { patienceMs, staleMs }: LockTimes): Promise<void> => {
  for (const end = performance.now() + patienceMs; !(await isMade(path, ours)); ) {
    const holder = await holderOf(path)
    // It went just now.
    if (holder === undefined) continue
    if (isGone(holder) || (await isOld(path, staleMs))) await takeAway(path, holder)
    else if (performance.now() > end)
      throw new Failure('later', `Another command (${holder.split(':')[0]}) is at it, and keeps ${path}.`)
    await sleep(pollMs * (1 + Math.random()))
  }
}

/**
 * Two may find the same one stale, and the second must not take away what the first has made in its place. So whoever takes
 * one away first gets the right to, under a name that is this lock's alone, and looks once more.
 */
const takeAway = async (path: string, holder: string): Promise<void> => {
  const right = `${path}.${hash('sha256', holder).slice(0, 16)}`
  if (!(await isMade(right, 'chancery'))) {
    if (await isOld(right, rightMs)) await unlink(right).catch(ifMissing)
    return
  }
  try {
    if ((await holderOf(path)) === holder) await unlink(path)
  } finally {
    await unlink(right).catch(ifMissing)
  }
}

const isMade = (path: string, target: string): Promise<boolean> =>
  symlink(target, path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw error
    },
  )

/** Undefined where nobody has it; empty where something else stands in its place. */
const holderOf = (path: string): Promise<string | undefined> =>
  readlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EINVAL') return ''
    return ifMissing(error)
  })

const assertHolder = async (path: string, ours: string): Promise<void> => {
  if ((await holderOf(path)) === ours) return
  throw new Failure('later', `Another command has taken ${path} meanwhile: this one took too long.`)
}

/** Only of our own machine can it be said that a process is not there any more. */
const isGone = (holder: string): boolean => {
  const pid = pidOf(holder)
  if (pid === undefined) return false
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

/** Undefined where it is of another machine, or of processes that we do not see. */
const pidOf = (holder: string): number | undefined => {
  const [, pid, host] = /^([1-9]\d*)@(.*):[^:]*$/s.exec(holder) ?? []
  return pid === undefined || host !== place() ? undefined : Number(pid)
}

/**
 * Where and when a number means the same process: containers may share a folder and a host's name, and count from one each, as
 * a machine does that has started again. What cannot be read makes none the same.
 */
const place = (): string => {
  if (process.platform !== 'linux') return hostname()
  try {
    const space = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0]
    return `${hostname()}/${space}/${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}`
  } catch {
    return `${hostname()}/${randomUUID()}`
  }
}

/** By a clock that may have been set, forth or back. */
const isOld = async (path: string, longestMs: number): Promise<boolean> => {
  const made = await lstat(path).catch(ifMissing)
  return made !== undefined && Math.abs(Date.now() - made.mtimeMs) > longestMs
}

const pollMs = 20
/** Renewing a login waits twice for a provider, ten seconds at most. */
const usualTimes: LockTimes = { patienceMs: 60_000, staleMs: 45_000 }
/** Taking one away takes a moment. */
const rightMs = 5_000
