/** A share of the cases, on a thread of its own. */
import { parentPort, workerData } from 'node:worker_threads'

import fc from 'fast-check'

import { cpu } from '../helpers/cpu.ts'
import { type FuzzCase, mutated, openRandom, runCase, structured } from './pipeline.ts'

export interface Share {
  readonly seed: number
  readonly mutations: number
  readonly structures: number
  readonly corpus: readonly Uint8Array[]
}

export interface Slow extends FuzzCase {
  readonly milliseconds: number
}

export interface Found {
  readonly codes: Readonly<Record<string, number>>
  /** The slowest, slowest first, by the best of three runs. */
  readonly slow: readonly Slow[]
  /** A case that ended in something else than a problem of the client's. */
  readonly failure?: { readonly hex: string; readonly contentType: string; readonly what: string }
}

const work = ({ seed, mutations, structures, corpus }: Share): Found => {
  const codes: Record<string, number> = {}
  let slow: Slow[] = []
  let failure: Found['failure']
  const once = (one: FuzzCase): number => {
    const start = cpu()
    try {
      runCase(one)
    } catch {
      // Told by the first run.
    }
    return cpu() - start
  }
  const run = (one: FuzzCase): void => {
    const start = cpu()
    try {
      const code = runCase(one)
      codes[code] = (codes[code] ?? 0) + 1
    } catch (error) {
      failure ??= {
        hex: one.body.toString('hex'),
        contentType: one.contentType,
        what: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }
    }
    const first = cpu() - start
    const least = slow.length < kept ? -1 : (slow.at(-1)?.milliseconds ?? 0)
    if (first <= least) return
    // Others use the machine too: only what is slow again is slow.
    const milliseconds = Math.min(first, once(one), once(one))
    if (milliseconds <= least) return
    slow = [...slow, { ...one, body: Buffer.from(one.body), milliseconds }]
      .sort((a, b) => b.milliseconds - a.milliseconds)
      .slice(0, kept)
  }
  const requests = corpus.map((octets) => Buffer.from(octets))
  // Compiled before anything is timed.
  for (let i = 0; i < 50; i++) for (const body of requests) once({ contentType: 'application/pkcs10', body })
  const random = openRandom(seed)
  for (let i = 0; i < mutations; i++) run(mutated(random, requests))
  for (const body of fc.sample(structured, { numRuns: structures, seed }))
    run({ contentType: 'application/pkcs10', body })
  return { codes, slow, ...(failure && { failure }) }
}

const kept = 8
parentPort?.postMessage(work(workerData as Share))
