import { type DerReader, derProblem, encodeDer, tags } from './der.ts'

/**
 * A Time of RFC 5280 4.1.2.5 from whole seconds (milliseconds are cut off): UTCTime through 2049, GeneralizedTime
 * from 2050, always Zulu, never fractions.
 */
export const encodeTime = (date: Date): Buffer => {
  const year = date.getUTCFullYear()
  if (!(year >= 1950 && year <= 9999)) throw new RangeError('a time in a certificate lies between 1950 and 9999')
  const text = `${two(date.getUTCMonth() + 1)}${two(date.getUTCDate())}${two(date.getUTCHours())}${two(date.getUTCMinutes())}${two(date.getUTCSeconds())}Z`
  return year < 2050
    ? encodeDer(tags.utcTime, Buffer.from(two(year % 100) + text, 'latin1'))
    : encodeDer(tags.generalizedTime, Buffer.from(year + text, 'latin1'))
}

/** Reads a Time in exactly the form in which `encodeTime` writes it. */
export const readTime = (reader: DerReader, what: string): Date => {
  const at = reader.at
  const utc = reader.tag === tags.utcTime
  const value = reader.read(utc ? tags.utcTime : tags.generalizedTime, what)
  const text = reader.buffer.toString('latin1', value.start, value.end)
  if (!(utc ? utcForm : generalizedForm).test(text))
    throw derProblem(reader.code, `${what} is not in the form of RFC 5280 4.1.2.5`, at)
  const yearDigits = utc ? 2 : 4
  const digits = Number(text.slice(0, yearDigits))
  const year = utc ? digits + (digits < 50 ? 2000 : 1900) : digits
  const field = (index: number): number => Number(text.slice(yearDigits + 2 * index, yearDigits + 2 * index + 2))
  const date = new Date(Date.UTC(year, field(0) - 1, field(1), field(2), field(3), field(4)))
  const normal =
    date.getUTCMonth() === field(0) - 1 &&
    date.getUTCDate() === field(1) &&
    field(2) < 24 &&
    field(3) < 60 &&
    field(4) < 60
  if (!normal || (!utc && year < 2050))
    throw derProblem(reader.code, `${what} is not a time in the form that its year asks for`, at)
  return date
}

const two = (value: number): string => (value < 10 ? `0${value}` : String(value))

const utcForm = /^\d{12}Z$/
const generalizedForm = /^\d{14}Z$/
