/**
 * What the database turns down though it answers: a server without room on its disk, and one that has taken a right from the
 * role that serves, answer questions as ever, and take some of what is written. Either is known by what it turns down only.
 */
import { sqlState } from './database.ts'

export interface TurnedDown {
  /** Told of a statement that failed, and why. */
  failed(error: unknown): void
  /** Undefined, or why one was turned down lately. */
  fault(): string | undefined
}

export const openTurnedDown = (now = (): number => performance.now()): TurnedDown => {
  const never = Number.NEGATIVE_INFINITY
  const kinds = Object.entries(reasons).map(([state, reason]) => ({ state, reason, until: never, last: never }))
  return {
    failed: (error) => {
      const kind = kinds.find(({ state }) => state === sqlState(error))
      if (kind === undefined || isOfSystem(error)) return
      const at = now()
      const isBack = at >= kind.until && at - kind.last < recurringMs
      kind.until = Math.max(kind.until, at + (isBack ? longMs : lastingMs))
      kind.last = at
    },
    fault: () => kinds.find(({ until }) => now() < until)?.reason,
  }
}

/** By SQLSTATE: disk_full, insufficient_privilege. */
const reasons: Readonly<Record<string, string>> = {
  '53100': 'the database has no room on its disk',
  '42501':
    'the role that serves lacks a right in the database: "chancery migrate" of the owner of the tables gives it all that it needs',
}

/** Of functions of the server's own we ask what few may know, and do without. */
const isOfSystem = (error: unknown): boolean => /function pg_/.test((error as Error).message)

/** What is small, or needs another right, goes through in between: no sign that all is well again. */
const lastingMs = 30_000

/**
 * Where it was there again after it was thought over: with a request each minute, or none while others are ready, nobody would
 * be told of a check that fails for two minutes on end.
 */
const longMs = 180_000
const recurringMs = 600_000
