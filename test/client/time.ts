/**
 * Time that goes by only while everybody sleeps: an hour takes as long as what is done in it. The work is real (requests,
 * signatures, files); nothing but waiting is left out.
 */
import type { DaemonDeps } from '../../src/client/issue/daemon.ts'

export interface Time extends Pick<DaemonDeps, 'now' | 'elapsed'> {
  /** For one of those who sleep; they all must use it. */
  readonly sleep: DaemonDeps['sleep']
  /** Of the wall's clock, which may be set. */
  set(now: number): void
  /** Until then by `elapsed`, in milliseconds. `sleepers`: how many there are. */
  run(until: number, sleepers: number): Promise<void>
}

interface Sleeper {
  readonly wakeAt: number
  readonly wake: () => void
}

/** `sameMs`: who wakes within this span works side by side. */
export const newTime = (start: number, sameMs = 1_000): Time => {
  let elapsed = 0
  let offset = start
  let sleeping = new Set<Sleeper>()
  let everybodySleeps = (): void => {}
  return {
    now: () => elapsed + offset,
    elapsed: () => elapsed,
    set: (now) => {
      offset = now - elapsed
    },
    sleep: (milliseconds, signal) =>
      new Promise((resolve) => {
        const sleeper = { wakeAt: elapsed + milliseconds, wake: resolve }
        sleeping.add(sleeper)
        signal.addEventListener('abort', () => resolve(), { once: true })
        everybodySleeps()
      }),
    run: async (until, sleepers) => {
      for (;;) {
        if (sleeping.size < sleepers) {
          await new Promise<void>((resolve) => {
            everybodySleeps = () => sleeping.size >= sleepers && resolve()
          })
        }
        const next = Math.min(...[...sleeping].map(({ wakeAt }) => wakeAt))
        if (next > until) {
          elapsed = until
          return
        }
        elapsed = Math.max(elapsed, next)
        const awake = [...sleeping].filter(({ wakeAt }) => wakeAt <= elapsed + sameMs)
        elapsed = Math.max(...awake.map(({ wakeAt }) => wakeAt), elapsed)
        sleeping = new Set([...sleeping].filter((sleeper) => !awake.includes(sleeper)))
        for (const { wake } of awake) wake()
      }
    },
  }
}
