/** How busy providers are and what went wrong in them, for the metrics: told by each signer process, added up by the service. */
export interface KeyLoad {
  /** Sessions that sign at this moment. */
  readonly inUse: number
  /** Operations that wait for one. */
  readonly waiting: number
  /** Failed calls since the start, by the name of the return value. */
  readonly failures: Readonly<Record<string, number>>
  readonly waits: Waits
}

/** Operations since the start, by how long they have waited for a session. */
export interface Waits {
  /** How many within each of `waitBounds` and not the one before, and beyond the last. */
  readonly counts: readonly number[]
  /** All of them together. */
  readonly seconds: number
}

/** Seconds. */
export const waitBounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

export const noWaits: Waits = { counts: [0, ...waitBounds].map(() => 0), seconds: 0 }
export const noLoad: KeyLoad = { inUse: 0, waiting: 0, failures: {}, waits: noWaits }

export const addLoads = (one: KeyLoad, other: KeyLoad): KeyLoad => ({
  inUse: one.inUse + other.inUse,
  waiting: one.waiting + other.waiting,
  failures: addFailures(one.failures, other.failures),
  waits: {
    counts: one.waits.counts.map((count, i) => count + (other.waits.counts[i] ?? 0)),
    seconds: one.waits.seconds + other.waits.seconds,
  },
})

/** What stays of a process that ended: a counter never goes back. */
export const afterEnd = (load: KeyLoad): KeyLoad => ({ ...load, inUse: 0, waiting: 0 })

const addFailures = (one: KeyLoad['failures'], other: KeyLoad['failures']): KeyLoad['failures'] =>
  Object.fromEntries(
    [...new Set([...Object.keys(one), ...Object.keys(other)])].map((name) => [
      name,
      (one[name] ?? 0) + (other[name] ?? 0),
    ]),
  )
