/** Who has looked at the records of others: a row each, written together with those of the same moment. */

import type { Access, Accesses, AccessFilter, AccessRecord } from '../ca/access/access-log.ts'
import { isProblem } from '../errors.ts'
import { openBatch } from '../lib/batch.ts'
import type { Database } from './database.ts'
import { storable } from './search/pages.ts'
import { type TimedRow, type TimedTable, walkByTime } from './search/time-index.ts'

export interface AccessesDeps {
  readonly db: Database
  readonly newId: () => string
}

export const openAccesses = ({ db, newId }: AccessesDeps): Accesses => {
  const rows = openBatch({
    run: async (batch: readonly Access[]) => {
      const named = batch.map((access) => ({ ...access, filter: withStorable(access.filter), id: newId() }))
      await db.query(insertAccesses, [JSON.stringify(named)])
      return named.map(({ id }) => id)
    },
    max: 128,
    lanes: 2,
    // A database that is away is to blame for all alike; what it does not take may be one of them.
    isolate: (error) => !isProblem(error),
  })
  return {
    record: (access) => rows.add(access),
    walk: (filter, start) => walkByTime(db, accesses, filter, start),
  }
}

/** What was asked is kept, even where no record can have it. */
const withStorable = (filter: Access['filter']): Access['filter'] =>
  Object.fromEntries(Object.entries(filter).map(([field, value]) => [field, storable(value)]))

const insertAccesses = {
  name: 'insert_accesses',
  text: `
    insert into accesses (id, at, principal, act, records, filter, continues, format, size, rows, export)
    select id, clock_timestamp(), principal, act, records, filter, continues, format, size, rows, export
    from json_to_recordset($1::json) as r (id uuid, principal text, act text, records text, filter jsonb, continues boolean,
      format text, size bigint, rows bigint, export uuid)`,
}

interface AccessRow extends Omit<AccessRecord, 'id'>, TimedRow {}

const accesses: TimedTable<Omit<AccessFilter, 'after' | 'before'>, AccessRow, AccessRecord> = {
  name: 'accesses',
  columns: 'r.at, r.principal, r.act, r.records, r.filter, r.continues, r.format, r.size, r.rows, r.export',
  conditions: {
    principal: (value, p) => `r.principal = ${p(value)}`,
    records: (value, p) => `r.records = ${p(value)}`,
    act: (value, p) => `r.act = ${p(value)}`,
  },
  item: ({ at_exact: _, ...row }) => row,
}
