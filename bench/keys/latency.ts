/**
 * A module that takes its time: whether the provider keeps every session busy, and whether the process that asks for
 * signatures turns its event loop meanwhile.
 */
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'

import { openTestSigners } from '../../test/hsm/signers.ts'
import { start } from '../process.ts'
import { rateOf } from './drive.ts'
import { latencyMs, type Tokens } from './tokens.ts'

export interface LatencyRow {
  readonly sessions: number
  readonly perSecond: number
  /** Sessions divided by the latency: no module can do more. */
  readonly most: number
}

/** Milliseconds by which the event loop turned later than it should have. */
export interface LoopDelay {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export interface LatencyPlan {
  readonly folder: string
  readonly tokens: Tokens
  readonly seconds: number
  readonly tell: (line: string) => void
}

export const measureLatency = async (plan: LatencyPlan): Promise<readonly LatencyRow[]> => {
  const rows: LatencyRow[] = []
  for (const sessions of sessionCounts) {
    const row = { sessions, perSecond: await rateAlone(plan, sessions), most: (sessions * 1000) / latencyMs }
    plan.tell(`${sessions} sessions of ${latencyMs} ms: ${Math.round(row.perSecond)}/s of ${row.most}`)
    rows.push(row)
  }
  return rows
}

/** In a process of its own, since the size of a thread pool is fixed when a process starts. */
const rateAlone = async ({ folder, tokens: { slow }, seconds }: LatencyPlan, sessions: number): Promise<number> => {
  const log = join(folder, `provider-${sessions}.log`)
  const program = await start({
    command: process.execPath,
    args: [providerFile, JSON.stringify({ module: slow.module, sessions, seconds })],
    env: { ...slow.env, UV_THREADPOOL_SIZE: String(sessions + 4) },
    log,
  })
  const code = await program.exited
  const said = await program.lastWords()
  if (code !== 0) throw new Error(`the provider alone failed:\n${said}`)
  return (JSON.parse(said) as { perSecond: number }).perSecond
}

/** Of a process that does nothing but ask the signer process, while 32 sessions are busy. */
export const measureLoop = async ({ tokens: { slow }, seconds, tell }: LatencyPlan): Promise<LoopDelay> => {
  const closing: (() => unknown)[] = []
  const most = Math.max(...sessionCounts)
  const env = { CHANCERY_PKCS11_SESSIONS: String(most) }
  const { keys } = await openTestSigners({ teardown: (close) => void closing.push(close) }, slow, env)
  try {
    const uri = 'pkcs11:token=ca;object=latency'
    const key = await keys.open(uri).catch(() => keys.create(uri, 'ec-p256'))
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const perSecond = await rateOf(key, { outstanding: 2 * most, seconds })
    delay.disable()
    const [p50 = 0, p99 = 0, max = 0] = [delay.percentile(50), delay.percentile(99), delay.max].map((nanoseconds) =>
      Math.max(0, nanoseconds / 1e6 - 1),
    )
    tell(`through the signer process: ${Math.round(perSecond)}/s, loop ${p99.toFixed(1)} ms at most in 99 of 100`)
    return { p50, p99, max }
  } finally {
    for (const close of closing) await close()
  }
}

export const sessionCounts = [1, 2, 4, 8, 16, 32] as const
const providerFile = join(import.meta.dirname, 'provider.ts')
