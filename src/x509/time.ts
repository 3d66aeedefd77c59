import type { Problem } from '../errors.ts'
import { type DerReader, derProblem, encodeDer, tags } from './der.ts'

/**
 * A Time of RFC 5280 4.1.2.5 from whole seconds (milliseconds are cut off): UTCTime through 2049, GeneralizedTime
 * from 2050, always Zulu, never fractions.
 */
export const encodeTime = (date: Date): Buffer => {
  const year = yearOf(date)
  return year < 2050
    ? encodeDer(tags.utcTime, Buffer.from(two(year % 100) + restOf(date), 'latin1'))
    : encodeGeneralizedTime(date)
}

/** The form that extensions ask for in every year (RFC 5280 5.3.2). */
export const encodeGeneralizedTime = (date: Date): Buffer =>
  encodeDer(tags.generalizedTime, Buffer.from(yearOf(date) + restOf(date), 'latin1'))

/** Reads a Time in exactly the form in which `encodeTime` writes it. */
export const readTime = (reader: DerReader, what: string): Date => {
  const at = reader.at
  const utc = reader.tag === tags.utcTime
  const date = readAs(reader, what, utc)
  if (!utc && date.getUTCFullYear() < 2050) throw abnormal(reader, what, at)
  return date
}

/** Reads what `encodeGeneralizedTime` writes. */
export const readGeneralizedTime = (reader: DerReader, what: string): Date => readAs(reader, what, false)

/** For people and records, to the second, as certificates and lists tell a time: 2026-12-01T00:00:00Z. */
export const formatTime = (date: Date): string => date.toISOString().replace(/\.\d{3}Z$/, 'Z')

const readAs = (reader: DerReader, what: string, utc: boolean): Date => {
  const at = reader.at
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
  if (!normal) throw abnormal(reader, what, at)
  return date
}

const abnormal = (reader: DerReader, what: string, at: number): Problem =>
  derProblem(reader.code, `${what} is not a time in the form that its year asks for`, at)

const yearOf = (date: Date): number => {
  const year = date.getUTCFullYear()
  if (!(year >= 1950 && year <= 9999)) throw new RangeError('a time in a certificate lies between 1950 and 9999')
  return year
}

const restOf = (date: Date): string =>
  `${two(date.getUTCMonth() + 1)}${two(date.getUTCDate())}${two(date.getUTCHours())}${two(date.getUTCMinutes())}${two(date.getUTCSeconds())}Z`

const two = (value: number): string => (value < 10 ? `0${value}` : String(value))

const utcForm = /^\d{12}Z$/
const generalizedForm = /^\d{14}Z$/
