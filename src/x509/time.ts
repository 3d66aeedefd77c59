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

/** Undefined for what is none (ISO 8601), and for a day that no calendar has: JavaScript would take February 31 for March 3. */
export const instantOf = (text: string): Date | undefined => {
  // The day as it was written, whatever the offset makes of it.
  const [time, day] = [new Date(text), new Date(text.slice(0, 10))]
  const exists = ![time, day].some((date) => Number.isNaN(date.getTime()))
  return exists && day.toISOString().startsWith(text.slice(0, 10)) ? time : undefined
}

/** For people and records, to the second, as certificates and lists tell a time: 2026-12-01T00:00:00Z. */
export const formatTime = (date: Date): string => date.toISOString().replace(/\.\d{3}Z$/, 'Z')

const readAs = (reader: DerReader, what: string, utc: boolean): Date => {
  const at = reader.at
  const value = reader.read(utc ? tags.utcTime : tags.generalizedTime, what)
  const { buffer } = reader
  const yearDigits = utc ? 2 : 4
  if (!areDigits(buffer, value.start, value.end - 1, yearDigits + 10) || buffer[value.end - 1] !== 0x5a)
    throw derProblem(reader.code, `${what} is not in the form of RFC 5280 4.1.2.5`, at)
  const field = (index: number): number => twoDigits(buffer, value.start + yearDigits + 2 * index)
  const [first, second] = [twoDigits(buffer, value.start), twoDigits(buffer, value.start + 2)]
  const year = utc ? first + (first < 50 ? 2000 : 1900) : 100 * first + second
  const [month, day, hour, minute] = [field(0) - 1, field(1), field(2), field(3)]
  const date = new Date(Date.UTC(year, month, day, hour, minute, field(4)))
  // Of the years 0 to 99 JavaScript makes those of the last century.
  const normal =
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month &&
    date.getUTCDate() === day &&
    hour < 24 &&
    minute < 60 &&
    field(4) < 60
  if (!normal) throw abnormal(reader, what, at)
  return date
}

/** Octet by octet: text in between would take several times as long, and every certificate has two times (measured). */
const areDigits = (octets: Buffer, start: number, end: number, count: number): boolean => {
  if (end - start !== count) return false
  for (let at = start; at < end; at += 1) if (!isDigit(octets[at] as number)) return false
  return true
}

const isDigit = (octet: number): boolean => octet >= 0x30 && octet <= 0x39

const twoDigits = (octets: Buffer, at: number): number =>
  10 * ((octets[at] as number) - 0x30) + (octets[at + 1] as number) - 0x30

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
