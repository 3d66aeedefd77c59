/** Pages of a search: its conditions, one row more than asked for, and cursors that are keysets bound to their filter. */
import { hash } from 'node:crypto'
import { setImmediate as nextRound } from 'node:timers/promises'

import type { Bounds, Page, Start } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import type { Queryable } from '../database.ts'

/** Takes a value into a statement, and gives its place. */
export type Parameter = (value: unknown) => string
/** For each field of a filter its condition. */
export type Conditions<F> = {
  readonly [K in keyof F]-?: (value: NonNullable<F[K]>, p: Parameter) => string
}

/** Values of a statement that is put together. */
export const openParameters = (): { readonly values: unknown[]; readonly p: Parameter } => {
  const values: unknown[] = []
  return { values, p: (value) => `$${values.push(value)}` }
}

/** The conditions of the fields that are set. */
export const conditionsOf = <F extends object>(table: Partial<Conditions<F>>, filter: F, p: Parameter): string[] =>
  (Object.keys(filter) as (keyof F)[]).flatMap((field) => {
    const value = filter[field]
    return value === undefined || value === null ? [] : (table[field]?.(value as NonNullable<F[keyof F]>, p) ?? [])
  })

/** Entries from `low` to before `high`. */
export const within = (column: string, { low, high }: Pick<Begun, 'low' | 'high'>, p: Parameter): string =>
  `${column} >= ${p(low)}::bigint and ${column} < ${p(high)}::bigint`

interface PageShape<Row, T> {
  readonly item: (row: Row) => T
  readonly cursor: (row: Row) => string
}

/** One row more than asked for tells whether there is a next page. */
export const pageOf = async <Row, T>(
  rows: readonly Row[],
  limit: number,
  { item, cursor }: PageShape<Row, T>,
): Promise<Page<T>> => {
  const last = rows[limit - 1]
  const items = await mapYielding(rows.slice(0, limit), item)
  return rows.length > limit && last !== undefined ? { items, next: cursor(last) } : { items }
}

/** Other requests have their turn between the rows of a long page. */
const mapYielding = async <Row, T>(rows: readonly Row[], item: (row: Row) => T): Promise<T[]> => {
  const items: T[] = []
  let since = performance.now()
  for (const row of rows) {
    if (performance.now() - since > sliceMs) {
      await nextRound()
      since = performance.now()
    }
    items.push(item(row))
  }
  return items
}

/** What a search is bound to, the entries among which it looks, and where its last page has ended. */
export interface Begun {
  readonly bounds: Bounds
  /**
   * Microseconds since 1970, of `bounds.time`: what comes in the same millisecond is not before it. Where something is dated ahead of
   * that, behind the last of it.
   */
  readonly micros: number
  readonly low: number
  /** Itself left out. */
  readonly high: number
  readonly after: Keyset | undefined
}

/** What is searched, and how: a cursor belongs to all of it. */
export interface Asking {
  readonly records: string
  readonly filter: object
  readonly start: Start
}

interface Span {
  readonly after?: Date | undefined
  readonly before?: Date | undefined
}

/**
 * Begins a search, or goes on with what its cursor is bound to. A span of time is a range of the roll, found once. Throws
 * `request.cursor`, and `request.malformed` for a size that the roll has not reached.
 */
export const beginSearch = async (
  db: Queryable,
  search: Asking & { readonly span?: Span; readonly dated?: string },
  shape: readonly ((part: unknown) => boolean)[],
): Promise<Begun> => {
  const { cursor, at } = search.start
  const [size = at ?? null, micros = null, ...after] =
    readCursor(cursor, tagged(search), [isWhole, isTime, ...shape]) ?? []
  const { rows } = await db.query<BoundsRow>(selectBounds(search.dated), [
    size,
    micros,
    search.span?.after ?? null,
    search.span?.before ?? null,
  ])
  const row = rows[0] as BoundsRow
  if (at !== undefined && at > row.size) throw beyondRoll(at, row.size)
  return {
    // What people see is no finer, and no earlier.
    bounds: { size: row.bound, time: timeOf(row.read) },
    micros: row.micros,
    low: row.low,
    high: row.high,
    after: cursor === undefined ? undefined : after,
  }
}

/** The first millisecond that is no earlier. */
export const timeOf = (micros: number): Date => new Date(Math.ceil(micros / 1000))

interface BoundsRow {
  readonly size: number
  readonly bound: number
  readonly micros: number
  /** The same, but of what is dated ahead the time of this page: what comes until then may be on it. */
  readonly read: number
  readonly low: number
  readonly high: number
}

/** `dated`: a table with rows that are dated by themselves, and not by the roll. What a clock has dated ahead that was set back since is there, too. */
const selectBounds = (dated?: string): { readonly name: string; readonly text: string } => ({
  name: dated === undefined ? 'select_bounds' : `select_bounds_of_${dated}`,
  text: `
    select r.size, b.bound, b.micros, ${dated === undefined ? 'b.micros' : 'least(b.micros, n.now)'} as read,
      case when $3::timestamptz is null then 0 else first_entry_from($3::timestamptz) end as low,
      least(b.bound, case when $4::timestamptz is not null then first_entry_from($4::timestamptz) end) as high
    from roll r, lateral (select ${microsOf('clock_timestamp()')} as now) n,
      lateral (select least($1::bigint, r.size) as bound, coalesce($2::bigint, ${
        dated === undefined ? 'n.now' : `greatest(n.now, (select ${microsOf('max(at)')} + 1 from ${dated}))`
      }) as micros) b
    where r.id = 1`,
})

const microsOf = (time: string): string => `(extract(epoch from ${time}) * 1000000)::bigint`

const beyondRoll = (at: number, size: number): Problem => {
  const reason = `is more than the ${size} entries of the roll`
  return new Problem('request.malformed', 'The roll does not have this size yet.', {
    violations: [{ check: 'request.query', field: '/at', value: String(at), reason }],
  })
}

/** The cursor behind a row, bound to what the search is bound to. */
export const cursorBehind = (keyset: Keyset, { bounds, micros }: Begun, search: Asking): string =>
  writeCursor([bounds.size, micros, ...keyset], tagged(search))

const tagged = ({ records, filter, start }: Asking): object => ({ ...filter, at: start.at, records })

/** Where a page ended: the values that its order is by. */
export type Keyset = readonly (string | number)[]

export const writeCursor = (keyset: Keyset, filter: object): string =>
  Buffer.from(JSON.stringify([tagOf(filter), ...keyset])).toString('base64url')

/**
 * Undefined without a cursor. Throws `request.cursor` for one that is not ours, or of other filters: whoever makes one up
 * gets no further than `shape`, one test for each part of the keyset.
 */
export const readCursor = (
  cursor: string | undefined,
  filter: object,
  shape: readonly ((part: unknown) => boolean)[],
): Keyset | undefined => {
  if (cursor === undefined) return undefined
  const [tag, ...keyset] = decodeCursor(cursor)
  if (tag !== tagOf(filter)) throw badCursor('This cursor does not belong to these filters.', 'is of other filters')
  if (keyset.length === shape.length && shape.every((test, i) => test(keyset[i]))) return keyset as Keyset
  throw notOurs()
}

const decodeCursor = (cursor: string): readonly unknown[] => {
  try {
    const octets = Buffer.from(cursor, 'base64url')
    const value: unknown = JSON.parse(octets.toString())
    // Decoding passes over what is no base64url, and over what is left at the end.
    if (Array.isArray(value) && octets.toString('base64url') === cursor) return value
  } catch {
    // Told below, like every other cursor that is not ours.
  }
  throw notOurs()
}

const notOurs = (): Problem => badCursor('This is not a cursor of this service.', 'is not one of this service')

const badCursor = (detail: string, reason: string): Problem =>
  new Problem('request.cursor', detail, {
    violations: [{ check: 'request.cursor', field: '/cursor', value: '', reason }],
  })

export const isWhole = (part: unknown): boolean => Number.isSafeInteger(part) && (part as number) >= 0
/** Microseconds since 1970; a safe integer reaches to the year 2255. */
const isTime = isWhole
export const isUuid = (part: unknown): boolean => typeof part === 'string' && uuidForm.test(part)
/** PostgreSQL's text holds no NUL and no lone surrogate, so nothing that is kept has one. */
export const isStorable = (part: unknown): part is string =>
  typeof part === 'string' && !part.includes('\0') && part.isWellFormed()

/** A text of which those are replaced. */
export const storable = (text: string): string => text.toWellFormed().replaceAll('\0', '\ufffd')

const tagOf = (filter: object): string => {
  const set = Object.entries(filter).filter(([, value]) => value !== undefined)
  return hash('sha256', JSON.stringify(set.sort(([a], [b]) => (a < b ? -1 : 1))), 'base64url').slice(0, 8)
}

const sliceMs = 5
const uuidForm = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
