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

/** Operations since the start that were given a session, and how long they waited for it together. */
export interface Waits {
  readonly count: number
  readonly seconds: number
}

export const noLoad: KeyLoad = { inUse: 0, waiting: 0, failures: {}, waits: { count: 0, seconds: 0 } }

export const addLoads = (one: KeyLoad, other: KeyLoad): KeyLoad => ({
  inUse: one.inUse + other.inUse,
  waiting: one.waiting + other.waiting,
  failures: addFailures(one.failures, other.failures),
  waits: {
    count: one.waits.count + other.waits.count,
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
