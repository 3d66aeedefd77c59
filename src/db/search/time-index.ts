/** Searches in tables that are kept by time, newest first: refusals, and accesses. */
import type { Start, Walk } from '../../ca/records.ts'
import type { Queryable } from '../database.ts'
import { beginSearch, type Conditions, conditionsOf, isUuid, isWhole, type Parameter, timeOf } from './pages.ts'
import { openWalk } from './walk.ts'

export interface TimedRow {
  readonly id: string
  /** Microseconds since 1970: a Date would lose three digits. */
  readonly at_exact: number
}

interface Span {
  readonly after?: Date
  readonly before?: Date
}

export interface TimedTable<F extends object, Row extends TimedRow, T> {
  readonly name: string
  /** Beside `id` and `at_exact`. */
  readonly columns: string
  /** On columns of `r`. */
  readonly conditions: Conditions<F>
  readonly item: (row: Row) => T
}

export const walkByTime = async <F extends object, Row extends TimedRow, T>(
  db: Queryable,
  { name, columns, conditions, item }: TimedTable<F, Row, T>,
  filter: F & Span,
  start: Start = {},
): Promise<Walk<T>> => {
  const asking = { records: name, filter, start }
  const begun = await beginSearch(db, { ...asking, dated: name }, [isWhole, isUuid])
  const { after, before } = filter
  const end = timeOf(begun.micros)
  const matching = (p: Parameter): string =>
    `from ${name} r where ${[
      `r.at < ${instant(p(begun.micros))}`,
      ...(after ? [`r.at >= ${p(after)}`] : []),
      ...(before ? [`r.at < ${p(before)}`] : []),
      ...conditionsOf<F>(conditions, filter, p),
    ].join(' and ')}`
  return openWalk<Row, T>({
    db,
    begun,
    asking,
    range: { from: after ?? null, before: before && before < end ? before : end },
    page: (last, limit, p) => `
      select r.id, (extract(epoch from r.at) * 1000000)::bigint as at_exact, ${columns}
      ${matching(p)}${last ? ` and (r.at, r.id) < (${instant(p(last[0]))}, ${p(last[1])}::uuid)` : ''}
      order by r.at desc, r.id desc limit ${limit}`,
    all: (p) => `select ${matching(p)}`,
    keysetOf: ({ at_exact, id }) => [at_exact, id],
    item,
  })
}

const instant = (micros: string): string => `timestamptz 'epoch' + ${micros}::bigint * interval '1 microsecond'`
