/** The daemon as a process: real clocks, signals, lines on standard output. */
import { setTimeout as wait } from 'node:timers/promises'

import { jsonText, visible } from '../../lib/output.ts'
import { openLines } from '../../lib/standard-streams.ts'
import type { Client } from '../rest.ts'
import { type LogLine, lookAfter } from './daemon.ts'
import { type IntoOptions, readTasks, wardOf } from './new-certificate.ts'

export interface DaemonOptions {
  readonly orders: readonly IntoOptions[]
  /** Throws a usage failure where its files are not as they should be. */
  readonly openClient: () => Promise<Client>
  readonly json: boolean
}

/** Resolves after SIGTERM or SIGINT. Rejects with what is wrong with options and files before anything is begun. */
export const runDaemon = async ({ orders, openClient, json }: DaemonOptions): Promise<void> => {
  const { origin } = await openClient()
  const tasks = await readTasks(orders, origin)
  const now = Date.now
  const ending = new AbortController()
  const end = (): void => ending.abort()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, end)
  const text = json ? jsonLine : textLine
  const write = openLines()
  await lookAfter(
    tasks.map((task) => wardOf(task, { now, openClient })),
    {
      now,
      elapsed: () => performance.now(),
      sleep: (milliseconds, signal) => wait(milliseconds, undefined, { signal }).catch(() => {}),
      chance: Math.random,
      log: (line) => write(text(line, new Date(now()))),
      signal: ending.signal,
    },
  )
}

const textLine = ({ event, name, text }: LogLine, at: Date): string =>
  `${at.toISOString()} ${event.padEnd(11)} ${visible(`${name}: ${text.replaceAll('\n', ' ')}`)}\n`

const jsonLine = ({ event, name, text }: LogLine, at: Date): string =>
  `${jsonText({ time: at.toISOString(), event: `certificate.${event}`, folder: name, text })}\n`
