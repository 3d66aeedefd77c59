/** Searches in pages: one statement for each, which goes on behind the keyset of the page before. */
import type { Count, Page, Range, Walk } from '../../ca/records.ts'
import type { Queryable } from '../database.ts'
import {
  type Asking,
  type Begun,
  cursorBehind,
  isStorable,
  type Keyset,
  openParameters,
  type Parameter,
  pageOf,
} from './pages.ts'

export interface Search<Row, T> {
  readonly db: Queryable
  readonly begun: Begun
  readonly asking: Asking
  readonly range: Range
  /** The statement of a page: rows in order, behind `after` where there is one. */
  readonly page: (after: Keyset | undefined, limit: number, p: Parameter) => string
  /** `select from …`: a row for each item. */
  readonly all: (p: Parameter) => string
  readonly keysetOf: (row: Row) => Keyset
  readonly item: (row: Row) => T
}

export const openWalk = <Row, T>(search: Search<Row, T>): Walk<T> => {
  const { db, begun, asking, range, page, all, keysetOf, item } = search
  const isPossible = Object.values(asking.filter).every((value) => typeof value !== 'string' || isStorable(value))
  /** One row more than asked for, to see whether there is a next page. */
  const read = async (after: Keyset | undefined, limit: number): Promise<readonly Row[]> => {
    if (!isPossible) return []
    const { p, values } = openParameters()
    const text = page(after, limit + 1, p)
    return (await db.query<Row>({ text }, values)).rows
  }
  let after = begun.after
  let coming: { readonly limit: number; readonly rows: Promise<readonly Row[]> } | undefined
  return {
    bounds: begun.bounds,
    range,
    page: async (limit, { ahead, found: report } = {}): Promise<Page<T>> => {
      const rows = await (coming?.limit === limit ? coming.rows : read(after, limit))
      coming = undefined
      const last = rows[limit - 1]
      after = rows.length > limit && last !== undefined ? keysetOf(last) : undefined
      report?.(Math.min(rows.length, limit))
      // PostgreSQL works while these rows are encoded and sent. The next call reports whether it failed.
      if (ahead && after !== undefined) coming = { limit, rows: read(after, limit) }
      coming?.rows.catch(() => {})
      return pageOf(rows, limit, { item, cursor: (row) => cursorBehind(keysetOf(row), begun, asking) })
    },
    count: async () => (isPossible ? countRows(db, all) : { rows: 0, exact: true }),
  }
}

/** Exact where the planner expects little work and there are few; else what it expects to find. */
const countRows = async (db: Queryable, all: (p: Parameter) => string): Promise<Count> => {
  const { p, values } = openParameters()
  const text = all(p)
  const explained = await db.query<Explained>({ text: `explain (format json) ${text}` }, values)
  const plan = explained.rows[0]?.['QUERY PLAN'][0].Plan
  if (plan && plan['Total Cost'] <= countableCost) {
    const few = `select count(*)::integer as rows from (${text} limit ${countable + 1}) few`
    const { rows } = await db.query<{ rows: number }>({ text: few }, values)
    if (rows[0] && rows[0].rows <= countable) return { rows: rows[0].rows, exact: true }
  }
  return { rows: plan?.['Plan Rows'] ?? 0, exact: false }
}

interface Explained {
  readonly 'QUERY PLAN': readonly [{ Plan: { 'Plan Rows': number; 'Total Cost': number } }]
}

/** Counted one by one. */
const countable = 20_000
/** In the planner's units: about a second of an uncached disk. */
const countableCost = 100_000
