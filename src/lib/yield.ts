/** Turns of the event loop: work that comes in crowds leaves room for who else is served. */

/** Resolves in a later phase of the event loop, after what its sockets have brought was read. */
export type NextTurn = () => Promise<void>

/**
 * Turns that share `sliceMs` of each round of the loop: what is not reached within it goes on in the next round, in order.
 * Each turn's own work is not interrupted. (`setImmediate` alone runs a whole crowd in one round.)
 */
export const openTurns = (now: () => number = () => performance.now()): NextTurn => {
  let sliceStart: number | undefined
  const endSlice = (): void => {
    sliceStart = undefined
  }
  const run = (resolve: () => void): void => {
    if (sliceStart === undefined) {
      sliceStart = now()
      // The first of the next round, since it is queued by the first of this one.
      setImmediate(endSlice)
    } else if (now() - sliceStart > sliceMs) {
      setImmediate(run, resolve)
      return
    }
    resolve()
  }
  return () => new Promise((resolve) => setImmediate(run, resolve))
}

/** Of each round of the event loop. */
const sliceMs = 5
