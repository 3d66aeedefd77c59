/** What PostgreSQL's values are here: `int8` a number, `timestamptz` a Date, each asserted to be one. */
import pg from 'pg'

export const types = new pg.TypeOverrides()
types.setTypeParser(pg.types.builtins.INT8, (text: string) => {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`int8 beyond 2^53: ${text}`)
  return value
})

/**
 * What we say is in UTC as well. In the time of this process's zone, pg leaves out the seconds of an offset that has some, as Monrovia's
 * had until 1972: what somebody dates then would be recorded as half a minute before.
 */
pg.defaults.parseInputDatesAsUTC = true

/** pg makes null of what it cannot read, and a time that is null is of what has not ended, or was not revoked. */
const parseTimestamp = (text: string): Date => {
  const time = parsePgTimestamp(text)
  if (time === null)
    throw new RangeError(`${text} is no time in ISO form: reset DateStyle of the role and the database`)
  return time
}
const parsePgTimestamp = types.getTypeParser(pg.types.builtins.TIMESTAMPTZ, 'text') as unknown as (
  text: string,
) => Date | null

/**
 * `2026-11-25 08:00:00.123456+00` without regular expressions, in a tenth of the time; any other form, as of another time
 * zone, as pg reads it.
 */
export const parseInstant = (text: string): Date => {
  if (text.length < 22 || text.length > 29 || !text.endsWith('+00') || text[4] !== '-') return parseTimestamp(text)
  const digits = (at: number, end: number): number => {
    let value = 0
    for (let i = at; i < end; i += 1) value = value * 10 + text.charCodeAt(i) - 48
    return value
  }
  const end = text.length - 3
  // A Date is of milliseconds: what is finer is cut off, as pg does it.
  const millis = end > 20 ? digits(20, Math.min(end, 23)) * 10 ** Math.max(0, 23 - end) : 0
  const year = digits(0, 4)
  if (year < 100) return parseTimestamp(text)
  return new Date(
    Date.UTC(year, digits(5, 7) - 1, digits(8, 10), digits(11, 13), digits(14, 16), digits(17, 19), millis),
  )
}
types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, parseInstant)
