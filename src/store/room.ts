/**
 * Whether the database's disk has room. A server without any answers questions as ever, and takes what still fits into pages
 * that it has: it is known by what it turns down only.
 */
import { sqlState } from './database.ts'

export interface Room {
  /** Told of a statement that failed, and why. */
  failed(error: unknown): void
  /** Undefined, or that there is none. */
  fault(): string | undefined
}

export const openRoom = (now = (): number => performance.now()): Room => {
  let [until, last] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]
  return {
    failed: (error) => {
      if (sqlState(error) !== diskFull) return
      const at = now()
      const isBack = at >= until && at - last < recurringMs
      until = Math.max(until, at + (isBack ? longMs : lastingMs))
      last = at
    },
    fault: () => (now() < until ? 'the database has no room on its disk' : undefined),
  }
}

const diskFull = '53100'

/** What is small goes through in between: no sign that there is room again. */
const lastingMs = 30_000

/**
 * Where there was none again after it was thought over: with a request each minute, or none while others are ready, nobody would
 * be told of a check that fails for two minutes on end.
 */
const longMs = 180_000
const recurringMs = 600_000
