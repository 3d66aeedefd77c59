/**
 * The signals that ask a process to stop: an orderly one at the first, the end at the second, or after fifteen seconds.
 *
 * The same one again within a second is the echo of the first: who stops a whole group of processes (`timeout`, systemd, a CI
 * runner) reaches npm and what it has started, and npm passes on what it gets.
 */
import { once } from 'node:events'

/** Why a start did not go on. */
class Stopped extends Error {
  readonly signal: NodeJS.Signals

  constructor(signal: NodeJS.Signals) {
    super(`stopped by ${signal}`)
    this.signal = signal
  }
}

/**
 * Takes the signals from now on; aborted by the first, with a `Stopped`. Before anything long is begun: to a process that is the
 * first of its container the system delivers none that it has not asked for, and one that comes earlier is lost.
 */
export const takeSignals = (): AbortSignal => {
  const stop = new AbortController()
  let first: { readonly signal: NodeJS.Signals; readonly at: number } | undefined
  for (const signal of signals)
    process.on(signal, () => {
      const at = performance.now()
      if (first !== undefined) {
        if (signal === first.signal && at - first.at < echoMs) return
        process.exit(1)
      }
      first = { signal, at }
      setTimeout(() => process.exit(1), stopWithinMs).unref()
      stop.abort(new Stopped(signal))
    })
  return stop.signal
}

export const untilStopped = async (stop: AbortSignal): Promise<NodeJS.Signals> => {
  if (!stop.aborted) await once(stop, 'abort')
  return (stop.reason as Stopped).signal
}

const signals = ['SIGTERM', 'SIGINT'] as const
const stopWithinMs = 15_000
const echoMs = 1_000
