/**
 * Checking signatures on other threads, many at a time. One `crypto.verify` handed to libuv's pool costs the main
 * thread as much as the check itself (60 µs for P-256, measured under load), and importing the key 10 to 40 µs more; a
 * batch in one message costs a few for each. The worker gets octets that have passed the key gate, and nothing else.
 */
import { Worker } from 'node:worker_threads'

import { openBatch } from '../batch.ts'
import type { Log } from '../telemetry.ts'
import type { CheckSignature, SignatureCheck } from '../x509/csr.ts'
import { checkOne, packChecks } from './verifier-batch.ts'

export interface Verifier {
  /** Whether the signature is the key's over the message. A key that cannot be imported verifies nothing. */
  readonly verify: CheckSignature
  close(): Promise<void>
}

/** Starts `threads` workers at once; one that dies or hangs is replaced, and what it had is checked here. */
export const openVerifier = (threads: number, log: Log): Verifier => {
  const workers = Array.from({ length: threads }, () => openCheckingThread(log))
  const idle = [...workers]
  const batch = openBatch({
    run: async (checks: readonly SignatureCheck[]) => {
      const worker = idle.pop()
      try {
        return (await worker?.run(checks)) ?? checks.map(checkOne)
      } finally {
        if (worker) idle.push(worker)
      }
    },
    // A burst is shared among the threads, where there are several; smaller shares cost more than they gain (measured).
    max: threads === 1 ? 64 : 16,
    lanes: threads,
  })
  return {
    verify: (check) => batch.add(check),
    close: async () => {
      await batch.drain()
      await Promise.all(workers.map((worker) => worker.close()))
    },
  }
}

/** One worker with at most one batch under way. Between two tries to start it the pauses double, up to five seconds. */
const openCheckingThread = (log: Log) => {
  let closed = false
  let worker: Worker | undefined
  let pauseMs = firstPauseMs
  let settle: ((valid: readonly boolean[] | undefined) => void) | undefined
  const finish = (valid: readonly boolean[] | undefined): void => {
    const waiting = settle
    settle = undefined
    waiting?.(valid)
  }
  const start = (): void => {
    const thread = new Worker(new URL(`./verifier-worker${extension}`, import.meta.url), { resourceLimits })
    thread.unref()
    thread.on('message', (valid: Uint8Array) => {
      pauseMs = firstPauseMs
      finish(Array.from(valid, (one) => one === 1))
    })
    thread.on('error', (error) => log.error({ event: 'verifier.failed', err: error }, 'a verifying thread failed'))
    thread.on('exit', () => {
      worker = undefined
      finish(undefined)
      if (closed) return
      log.warn(
        { event: 'verifier.restarting', pauseMs },
        'a verifying thread ended; signatures are checked here meanwhile',
      )
      setTimeout(() => !closed && start(), pauseMs).unref()
      pauseMs = Math.min(pauseMs * 2, longestPauseMs)
    })
    worker = thread
  }
  start()
  return {
    /** Undefined when the worker is gone, or did not answer in time: then it is ended. */
    run: (checks: readonly SignatureCheck[]): Promise<readonly boolean[] | undefined> =>
      new Promise((resolve) => {
        const thread = worker
        if (!thread) return resolve(undefined)
        const late = setTimeout(() => void thread.terminate(), answerWithinMs)
        settle = (valid) => {
          clearTimeout(late)
          resolve(valid)
        }
        const packed = packChecks(checks)
        thread.postMessage(packed, [packed.data])
      }),
    close: async (): Promise<void> => {
      closed = true
      await worker?.terminate()
    },
  }
}

/** `.ts` as we are run, `.js` from the built image. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
const firstPauseMs = 100
const longestPauseMs = 5_000
/** A full batch of ML-DSA takes some 10 ms. */
const answerWithinMs = 5_000
/** MiB: a batch is a few kilobytes, and nothing stays. */
const resourceLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 }
