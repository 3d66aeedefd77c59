/** Programs that are measured: started with their output in a file, and stopped by the signal they know. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'

export interface Program {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Where both streams go. */
  readonly log: string
}

export interface Started {
  readonly pid: number
  readonly exited: Promise<number | null>
  isRunning(): boolean
  /** The end of its output. */
  lastWords(): Promise<string>
  /** Resolves when it is gone; kills it when it does not go. */
  stop(): Promise<void>
}

export const start = async ({ command, args, env = {}, cwd, log }: Program): Promise<Started> => {
  const file = await open(log, 'a')
  const child = spawn(command, args, {
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', ...env },
    stdio: ['ignore', file.fd, file.fd],
    ...(cwd !== undefined && { cwd }),
  })
  await file.close()
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('exit', resolve)
    child.once('error', reject)
  })
  exited.catch(() => {})
  const isRunning = (): boolean => child.pid !== undefined && child.exitCode === null && child.signalCode === null
  return {
    pid: child.pid ?? -1,
    exited,
    isRunning,
    lastWords: async () => (await readFile(log, 'utf8').catch(() => '')).slice(-2000),
    stop: () => stopChild(child, isRunning, exited),
  }
}

const stopChild = async (child: ChildProcess, isRunning: () => boolean, exited: Promise<unknown>): Promise<void> => {
  if (!isRunning()) return
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
  await exited.catch(() => {})
  clearTimeout(timer)
}

/** Asks every 20 ms until it holds. Rejects when the program ends before, or after half a minute. */
export const untilReady = async (program: Started, isReady: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await pause(20)) {
    if (await isReady().catch(() => false)) return
    if (!program.isRunning()) break
  }
  throw new Error(`it does not answer:\n${await program.lastWords()}`)
}

/** Standard output of a program, or undefined where there is no such program. */
export const outputOf = (command: string, ...args: string[]): string | undefined => {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    // wrk answers `-v` with its version and exit code 1.
    const { stdout } = error as { stdout?: string }
    return stdout ? stdout : undefined
  }
}

export const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds))
