/** The command as people run it: a process with nothing of ours in its environment but what it is told. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { bare } from './environment.ts'
import type { TestService } from './service.ts'

export interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

interface RunOptions {
  /** All of its environment. */
  readonly env?: NodeJS.ProcessEnv
  readonly timeout?: number
  readonly maxBuffer?: number
  /** All of its standard input, which else stays open. */
  readonly input?: string
}

export const runChancery = (args: readonly string[], { input, ...options }: RunOptions = {}): Promise<Run> =>
  new Promise((resolve) => {
    const { stdin } = execFile(process.execPath, [mainFile, ...args], { env: bare, ...options }, (error, out, err) => {
      resolve({ code: error ? Number(error.code) : 0, out, err })
    })
    if (input !== undefined) stdin?.end(input)
  })

export type Chancery = (args: readonly string[], env?: Readonly<Record<string, string>>, input?: string) => Promise<Run>

/** It knows where the service is. */
export const chanceryFor =
  (service: Pick<TestService, 'config' | 'url'>): Chancery =>
  (args, env = {}, input = undefined) =>
    runChancery(args, { env: { ...envFor(service), ...env }, ...(input !== undefined && { input }) })

/** The same, to be ended from outside. */
export const startChancery = (
  service: Pick<TestService, 'config' | 'url'>,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): ChildProcess =>
  spawn(process.execPath, [mainFile, ...args], {
    env: { ...envFor(service), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })

/** What it is told to know where the service is. */
export const envFor = (service: Pick<TestService, 'config' | 'url'>): Readonly<Record<string, string>> => ({
  ...bare,
  CHANCERY_DATA: service.config.dataDir,
  CHANCERY_URL: service.url,
})

/** Puts it into a folder, as `chancery`, and tells the PATH on which a shell finds it there first. */
export const putCommand = async (folder: string): Promise<string> => {
  await mkdir(folder, { recursive: true })
  const command = `#!/bin/sh\nexec '${process.execPath}' '${mainFile}' "$@"\n`
  await writeFile(join(folder, 'chancery'), command, { mode: 0o755 })
  return `${folder}:${bare.PATH}`
}

export const mainFile = join(import.meta.dirname, '..', '..', 'src', 'main.ts')
