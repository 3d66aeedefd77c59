/** Searches in tables that are kept by time, newest first: refusals, and accesses. */
import type { Start, Walk } from '../../ca/records.ts'
import type { Queryable } from '../database.ts'
import { countable, countRows, openWalkOf, type Way } from './cursors.ts'
import {
  beginSearch,
  type Conditions,
  conditionsOf,
  isUuid,
  isWhole,
  type Keyset,
  openParameters,
  type Parameter,
  timeOf,
} from './pages.ts'

export interface TimedRow {
  readonly id: string
  /** Microseconds since 1970: a Date would lose three digits. */
  readonly at_exact: number
}

interface TimedFilter {
  readonly after?: Date
  readonly before?: Date
}

export interface TimedTable<F extends TimedFilter, Row extends TimedRow, T> {
  readonly name: string
  /** Beside `id` and `at_exact`. */
  readonly columns: string
  /** Of those filters that have an index, which goes on by time: one of them leads. */
  readonly leads: readonly (keyof F & string)[]
  /** On columns of `r`. */
  readonly conditions: Conditions<F>
  readonly item: (row: Row) => T
}

export const walkByTime = async <F extends TimedFilter, Row extends TimedRow, T>(
  { db, candidates }: TimedDeps,
  table: TimedTable<F, Row, T>,
  filter: F,
  start: Start = {},
): Promise<Walk<T>> => {
  const asking = { records: table.name, filter, start }
  const begun = await beginSearch(db, { ...asking, dated: table.name }, [isWhole, isUuid])
  const { after, before } = filter
  const end = timeOf(begun.micros)
  const high = before && before < end ? before : end
  const search: Searching<F, Row, T> = { db, candidates, table, filter, low: after ?? null, micros: begun.micros }
  const lead = await leadOf(search)
  return openWalkOf({
    begun,
    search: asking,
    range: { from: search.low, before: high },
    way: backwards(search, lead),
    item: table.item,
    count: async () => {
      const exact = openParameters()
      const list = listOf(search, lead, exact.p)
      const rest = conditionsOf(table.conditions, filter, exact.p).join(' and ') || 'true'
      const text = `select count(*)::integer as looked, (count(*) filter (where ${rest}))::integer as rows
        from (select * from ${table.name} r where ${list} limit ${countable + 1}) r`
      const { p, values } = openParameters()
      const all = [listOf(search, undefined, p), ...conditionsOf(table.conditions, filter, p)].join(' and ')
      return countRows(db, { text, values: exact.values }, { text: `select from ${table.name} r where ${all}`, values })
    },
  })
}

export interface TimedDeps {
  readonly db: Queryable
  /** How many to look at in one statement. */
  readonly candidates: number
}

interface Searching<F extends TimedFilter, Row extends TimedRow, T> extends TimedDeps {
  readonly table: TimedTable<F, Row, T>
  readonly filter: F
  readonly low: Date | null
  /** Microseconds since 1970; itself left out. */
  readonly micros: number
}

/** The filter that leaves fewest, where several could lead; one by which there are very many is as good as none. */
const leadOf = async <F extends TimedFilter, Row extends TimedRow, T>(
  search: Searching<F, Row, T>,
): Promise<(keyof F & string) | undefined> => {
  const { db, candidates, table, filter } = search
  const leads = table.leads.filter((field) => filter[field] !== undefined)
  if (leads.length < 2) return leads[0]
  const { p, values } = openParameters()
  const lengths = leads.map(
    (lead) =>
      `(select count(*)::integer from (select from ${table.name} r where ${listOf(search, lead, p)}
        order by r.at desc limit ${candidates + 1}) few)`,
  )
  const { rows } = await db.query<{ lengths: readonly number[] }>(
    { text: `select array[${lengths.join(', ')}] as lengths` },
    values,
  )
  const known = rows[0]?.lengths ?? []
  return leads[known.indexOf(Math.min(...known))]
}

const listOf = <F extends TimedFilter, Row extends TimedRow, T>(
  { table, filter, low, micros }: Searching<F, Row, T>,
  lead: (keyof F & string) | undefined,
  p: Parameter,
): string => {
  const led = lead === undefined ? {} : { [lead]: filter[lead] }
  const times = low === null ? [] : [`r.at >= ${p(low)}`]
  const befores = filter.before ? [`r.at < ${p(filter.before)}`] : []
  return [
    ...conditionsOf(table.conditions, led as unknown as F, p),
    ...times,
    ...befores,
    `r.at < ${instant(p(micros))}`,
  ].join(' and ')
}

const backwards = <F extends TimedFilter, Row extends TimedRow, T>(
  search: Searching<F, Row, T>,
  lead: (keyof F & string) | undefined,
): Way<Row> => {
  const { db, candidates, table, filter } = search
  const listed = (after: Keyset | undefined, p: Parameter): string =>
    `(select * from ${table.name} r where ${listOf(search, lead, p)}${after ? behind(after, p) : ''}
      order by r.at desc, r.id desc limit ${candidates}) r`
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const list = listed(after, p)
      const text = `select r.id, ${exactly} as at_exact, ${table.columns}
        from ${list} where ${conditionsOf(table.conditions, filter, p).join(' and ') || 'true'}
        order by r.at desc, r.id desc limit ${limit}`
      return (await db.query<Row>({ text }, values)).rows
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const text = `select r.id, ${exactly} as at_exact from ${listed(after, p)}
        order by r.at desc, r.id desc offset ${candidates - 1} limit 1`
      const { rows } = await db.query<TimedRow>({ text }, values)
      return rows[0] && keysetOf(rows[0])
    },
    keysetOf,
  }
}

const keysetOf = ({ at_exact, id }: TimedRow): Keyset => [at_exact, id]
const exactly = '(extract(epoch from r.at) * 1000000)::bigint'
const behind = ([at, id]: Keyset, p: Parameter): string => ` and (r.at, r.id) < (${instant(p(at))}, ${p(id)}::uuid)`
const instant = (micros: string): string => `timestamptz 'epoch' + ${micros}::bigint * interval '1 microsecond'`
