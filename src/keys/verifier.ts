/**
 * Checking signatures on other threads, many at a time. One `crypto.verify` handed to libuv's pool costs the main
 * thread as much as the check itself (60 µs for P-256, measured under load), and importing the key 10 to 40 µs more; a
 * batch in one message costs a few for each. The worker gets octets that have passed the key gate, and nothing else.
 */
import { Worker } from 'node:worker_threads'

import { openBatch } from '../batch.ts'
import type { CheckSignature, SignatureCheck } from '../x509/csr.ts'
import { checkOne, packChecks } from './verifier-batch.ts'

export interface Verifier {
  /** Whether the signature is the key's over the message. A key that cannot be imported verifies nothing. */
  readonly verify: CheckSignature
  close(): Promise<void>
}

/** Starts `threads` workers at once; a worker that dies is replaced, and what it had is checked here. */
export const openVerifier = (threads: number): Verifier => {
  const workers = Array.from({ length: threads }, openCheckingThread)
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
    max: maxBatch,
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

/** One worker with at most one batch under way. */
const openCheckingThread = () => {
  let closed = false
  let settle: ((valid: readonly boolean[] | undefined) => void) | undefined
  const finish = (valid: readonly boolean[] | undefined): void => {
    const waiting = settle
    settle = undefined
    waiting?.(valid)
  }
  const start = (): Worker => {
    const thread = new Worker(new URL(`./verifier-worker${extension}`, import.meta.url), { resourceLimits })
    thread.unref()
    thread.on('message', (valid: Uint8Array) => finish(Array.from(valid, (one) => one === 1)))
    thread.on('error', () => {})
    thread.on('exit', () => {
      finish(undefined)
      if (!closed) worker = start()
    })
    return thread
  }
  let worker = start()
  return {
    /** Undefined when the worker died before it answered. */
    run: (checks: readonly SignatureCheck[]): Promise<readonly boolean[] | undefined> =>
      new Promise((resolve) => {
        settle = resolve
        const packed = packChecks(checks)
        worker.postMessage(packed, [packed.data])
      }),
    close: async (): Promise<void> => {
      closed = true
      await worker.terminate()
    },
  }
}

/** `.ts` as we are run, `.js` from the built image. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
/** Small, so that a burst is shared among the threads. */
const maxBatch = 16
/** MiB: a batch is a few kilobytes, and nothing stays. */
const resourceLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 }
