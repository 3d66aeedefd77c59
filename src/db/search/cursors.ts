/**
 * How a search goes through the records. It walks an index in the order of its answer, looks at a bounded number of
 * candidates in each statement and at a bounded number for each page, and remembers where it stopped: so no page takes
 * long, however few there are to be found.
 */
import type { Count, Page, Range, Walk } from '../../ca/records.ts'
import type { Queryable } from '../database.ts'
import { type Asking, type Begun, cursorBehind, type Keyset, pageTurns } from './pages.ts'

/** One way through the rows of a search, in its order. */
export interface Way<Row> {
  /** Those behind `after`, at most `limit`, and among the next `candidates` only. */
  rows(after: Keyset | undefined, limit: number): Promise<readonly Row[]>
  /** The last of these candidates; undefined where there are fewer, so that all was looked at. */
  stop(after: Keyset | undefined): Promise<Keyset | undefined>
  keysetOf(row: Row): Keyset
  /** Several lists side by side, one of which may have come to its stop before the others. */
  readonly isMerged?: boolean
  /**
   * Whether a row lies behind a stop: those of the other lists may, and those of a list that others have added to between the
   * two statements.
   */
  isBehind?(row: Row, stop: Keyset): boolean
  /** What SQL could not tell. */
  isFound?(row: Row): boolean
}

export interface Searching<Row, T> {
  readonly begun: Begun
  readonly search: Asking
  readonly range: Range
  readonly way: Way<Row>
  readonly item: (row: Row) => T
  readonly count: () => Promise<Count>
}

/** Pages of one way, from where the search begins. */
export const openWalkOf = <Row, T>({ begun, search, range, way, item, count }: Searching<Row, T>): Walk<T> => {
  let after = begun.after
  let coming: { readonly limit: number; readonly found: Promise<Found<Row>> } | undefined
  return {
    bounds: begun.bounds,
    range,
    page: async (limit, { ahead, found: tell } = {}): Promise<Page<T>> => {
      const finding = coming?.limit === limit ? coming.found : findRows(way, after, limit)
      coming = undefined
      const { rows, next } = await finding
      after = next
      tell?.(rows.length)
      // PostgreSQL has no rest while items are made of these rows, encoded and sent. Whether it failed is told to the next call.
      if (ahead && next !== undefined) coming = { limit, found: findRows(way, next, limit) }
      coming?.found.catch(() => {})
      const items: T[] = []
      const turn = pageTurns()
      for (const row of rows) {
        await turn()
        items.push(item(row))
      }
      return next === undefined ? { items } : { items, next: cursorBehind(next, begun, search) }
    },
    count,
  }
}

interface Found<Row> {
  readonly rows: readonly Row[]
  /** Behind the last row, or behind what was looked at; undefined at the end. */
  readonly next: Keyset | undefined
}

/** One row more than asked for tells whether there is a next page. */
const findRows = async <Row>(way: Way<Row>, after: Keyset | undefined, limit: number): Promise<Found<Row>> => {
  const { isFound = () => true, isBehind = () => false, keysetOf } = way
  const found: Row[] = []
  let from = after
  const turn = pageTurns()
  // Where rows are passed by, a few at a time would take long.
  const most = way.isFound ? Math.max(limit + 1, 100) : limit + 1
  for (let left = budget; left > 0 && found.length <= limit; ) {
    const rows = await way.rows(from, most)
    const isFull = rows.length === most
    left -= isFull ? 1 : 10
    const stop = isFull && !way.isMerged ? undefined : await way.stop(from)
    const known = stop ? rows.filter((row) => !isBehind(row, stop)) : rows
    for (const row of known) {
      await turn()
      if (isFound(row)) found.push(row)
    }
    if (!isFull && !stop) return found.length <= limit ? { rows: found, next: undefined } : cut(way, found, limit)
    from = isFull && known.length === rows.length ? keysetOf(rows.at(-1) as Row) : stop
  }
  return found.length > limit ? cut(way, found, limit) : { rows: found, next: from }
}

const cut = <Row>({ keysetOf }: Way<Row>, found: readonly Row[], limit: number): Found<Row> => ({
  rows: found.slice(0, limit),
  next: keysetOf(found[limit - 1] as Row),
})

/** Exact where `candidates`, of which all rows are some, are few; else what the planner thinks of all conditions. */
export const countRows = async (
  db: Queryable,
  exact: { readonly text: string; readonly values: readonly unknown[] } | undefined,
  estimate: { readonly text: string; readonly values: readonly unknown[] },
): Promise<Count> => {
  if (exact) {
    const { rows } = await db.query<{ looked: number; rows: number }>({ text: exact.text }, exact.values)
    if ((rows[0]?.looked ?? 0) <= countable) return { rows: rows[0]?.rows ?? 0, exact: true }
  }
  return { rows: await estimateRows(db, estimate.text, estimate.values), exact: false }
}

/** What the planner expects: as good as its statistics, and as quick as planning. */
const estimateRows = async (db: Queryable, text: string, values: readonly unknown[]): Promise<number> => {
  const { rows } = await db.query<{ 'QUERY PLAN': readonly [{ Plan: { 'Plan Rows': number } }] }>(
    { text: `explain (format json) ${text}` },
    values,
  )
  return rows[0]?.['QUERY PLAN'][0].Plan['Plan Rows'] ?? 0
}

/** Of a page, and one. */
export const mostRows = 1_001
/** Looked at in one statement: some ten milliseconds. */
export const candidates = 10_000
/** Of a page: twenty statements that looked at all of their candidates, or more that had not to. */
const budget = 200
/** Counted one by one. */
export const countable = 20_000
