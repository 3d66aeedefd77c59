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
  let until = Number.NEGATIVE_INFINITY
  return {
    failed: (error) => {
      if (sqlState(error) === diskFull) until = now() + lastingMs
    },
    fault: () => (now() < until ? 'the database has no room on its disk' : undefined),
  }
}

const diskFull = '53100'

/** What is small goes through in between: no sign that there is room again. */
const lastingMs = 30_000
