/** Columns of records as they must be, and which of those that are there differ. */
import { sortMembers } from '../lib/canonical-json.ts'

/** By name, as PostgreSQL's text or as JSON. */
export type Columns = Readonly<Record<string, unknown>>

/** The names of the columns that are not what they should be. */
export const differing = (expected: Columns, actual: object): string[] =>
  Object.keys(expected).filter((name) => !isSame(expected[name] ?? null, (actual as Columns)[name] ?? null))

const isSame = (expected: unknown, actual: unknown): boolean => {
  if (expected === actual) return true
  if (expected === null || actual === null) return false
  if (typeof expected === 'object') return JSON.stringify(sortMembers(expected)) === JSON.stringify(sortMembers(actual))
  return String(expected) === String(actual)
}

/** A time of an entry as PostgreSQL's text has it in UTC: `2026-11-25 17:18:21.12+00`. */
export const timeText = (time: string | null): string | null =>
  time && `${time.slice(0, 10)} ${time.slice(11, 19)}${time.slice(19, -1).replace(/\.?0+$/, '')}+00`
