/**
 * Checking signatures on other threads, many at a time. One `crypto.verify` handed to libuv's pool costs the main
 * thread as much as the check itself (60 µs for P-256, measured under load), and importing the key 10 to 40 µs more; a
 * batch in one message costs a few for each. The worker gets octets that have passed the key gate, and nothing else.
 */
import { Worker } from 'node:worker_threads'

import { openBatch } from '../lib/batch.ts'
import type { Log } from '../log.ts'
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
  const batch = openBatch({
    run: async (checks: readonly SignatureCheck[]) => {
      const [first, ...others] = workers
      const worker = others.reduce((best, other) => (best && other.load >= best.load ? best : other), first)
      return (await worker?.run(checks)) ?? checks.map(checkOne)
    },
    // A burst is handed over in shares, each as soon as it is full: the thread begins with the first while the others
    // are still being read (dry runs: 5,000/s with shares of 64, 7,200/s with 16, on two cores).
    max: 16,
    lanes: threads * sharesAhead,
  })
  return {
    verify: (check) => batch.add(check),
    close: async () => {
      await batch.drain()
      await Promise.all(workers.map((worker) => worker.close()))
    },
  }
}

/** What a thread was asked and has not answered. */
interface Asked {
  readonly settle: (valid: readonly boolean[] | undefined) => void
  readonly late: NodeJS.Timeout
}

/** One worker, which answers in order. Between two tries to start it the pauses double, up to five seconds. */
const openCheckingThread = (log: Log) => {
  let closed = false
  let worker: Worker | undefined
  let pauseMs = firstPauseMs
  const asked: Asked[] = []
  const finish = (valid: readonly boolean[] | undefined): void => {
    const next = asked.shift()
    clearTimeout(next?.late)
    next?.settle(valid)
  }
  const startAgain = (): void => {
    log.warn(
      { event: 'verifier.restarting', pauseMs },
      'a verifying thread ended; until another is there the others have its share, or signatures are checked here',
    )
    setTimeout(() => !closed && start(), pauseMs).unref()
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
  }
  const failed = (error: unknown): void =>
    log.error({ event: 'verifier.failed', err: error }, 'a verifying thread failed')
  const start = (): void => {
    try {
      worker = watched(new Worker(new URL(`./verifier-worker${extension}`, import.meta.url), { resourceLimits }))
    } catch (error) {
      // The system has no room for another thread now.
      failed(error)
      startAgain()
    }
  }
  const watched = (thread: Worker): Worker => {
    thread.unref()
    thread.on('message', (valid: Uint8Array) => {
      pauseMs = firstPauseMs
      finish(Array.from(valid, (one) => one === 1))
    })
    thread.on('error', failed)
    thread.on('exit', () => {
      worker = undefined
      while (asked.length > 0) finish(undefined)
      if (!closed) startAgain()
    })
    return thread
  }
  start()
  return {
    /** Batches that it has not answered; none is for it while it is gone and another is there. */
    get load() {
      return worker ? asked.length : Number.POSITIVE_INFINITY
    },
    /** Undefined when the worker is gone, or did not answer in time: then it is ended. */
    run: (checks: readonly SignatureCheck[]): Promise<readonly boolean[] | undefined> =>
      new Promise((resolve) => {
        const thread = worker
        if (!thread) return resolve(undefined)
        asked.push({ settle: resolve, late: setTimeout(() => void thread.terminate(), answerWithinMs) })
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
/** Batches that wait at a thread, so that it finds the next when it has done one. */
const sharesAhead = 4
/** A full batch of ML-DSA takes some 10 ms. */
const answerWithinMs = 5_000
/** MiB: a batch is a few kilobytes. */
const resourceLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 }
