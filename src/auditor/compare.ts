/** Compares the records with what the entries say of them. */
import type { ChangeRow, EntryRow, NameRow, RecordsPage, RollRows } from '../db/log-rows.ts'
import { smallTables } from '../db/small-tables.ts'
import type { Finding } from '../tlog/findings.ts'
import type { RollEntry } from '../tlog/forms.ts'
import { differing } from './columns.ts'
import { type ExpectedRow, entryColumns, expectedRows, listKey, nameKey } from './expected-rows.ts'

export interface ReadEntry {
  readonly row: EntryRow
  readonly index: number
  /** Undefined for what cannot be read, which the verifier reports. */
  readonly entry: RollEntry | undefined
}

export interface Comparing {
  page(page: RecordsPage, read: readonly ReadEntry[]): Promise<void>
  end(size: number): Promise<void>
}

export const openComparing = (rows: RollRows, tell: (finding: Finding) => void): Comparing => {
  const states = new Map<string, number>()
  const lists = new Map<string, { count: number; last: number }>()
  /** Of tables that are read whole when all entries are known. The first entry of a row is the one that made it. */
  const small = new Map(
    Object.keys(smallTables).map((table) => [table, new Map<string, ExpectedRow & { readonly index: number }>()]),
  )

  const compare = (index: number, { table, key, columns, missing }: ExpectedRow, found: object | null | undefined) => {
    if (!found) {
      const what = missing ?? (key === undefined ? 'has nothing of it' : `lacks ${key}`)
      return tell({ index, code: 'row.missing', message: `${table} ${what}` })
    }
    const wrong = differing(columns, found).join(', ')
    const of = key === undefined ? '' : ` of ${key}`
    if (wrong !== '') tell({ index, code: 'row.differs', message: `${table}: ${wrong}${of}` })
  }
  const tellExtra = (entry: string | null, table: string, what: string): void =>
    tell({ index: Number(entry ?? 0), code: 'row.extra', message: `${table}: ${what}` })

  /** Rows of `crls` have no entry: they are found by number, and counted. */
  const listsOf = async (read: readonly ReadEntry[]): Promise<ReadonlyMap<string, object>> => {
    const wanted = read.flatMap(({ entry }) =>
      entry?.type === 'crls.intended'
        ? entry.lists.map(({ shard, number }) => ({ issuer: entry.issuer, shard, number }))
        : [],
    )
    for (const { issuer, shard, number } of wanted) {
      const { count, last } = lists.get(`${issuer}/${shard}`) ?? { count: 0, last: 0 }
      lists.set(`${issuer}/${shard}`, { count: count + 1, last: Math.max(last, number) })
    }
    return new Map((await rows.lists(wanted)).map((row) => [listKey(row), row]))
  }

  return {
    page: async (page, read) => {
      for (const { table, entry, what } of page.strays) tellExtra(entry, table, `${what} is of no entry`)
      const crls = await listsOf(read)
      const changes = new Map(page.changes.map((row) => [row.entry, row]))
      const names = new Map<string, NameRow>()
      for (const row of page.names) {
        const key = `${row.entry} ${nameKey(row)}`
        if (names.has(key)) tellExtra(row.entry, 'certificate_names', `${nameKey(row)} is there twice`)
        names.set(key, row)
      }
      const unread = new Set<string>()
      for (const { row, index, entry } of read) {
        const change = changes.get(row.index)
        const expected = entry && expectedRows(entry, index, { row, change, states })
        if (expected === undefined) unread.add(row.index)
        if (entry) compare(index, { table: 'entries', columns: entryColumns(entry) }, row)
        else changes.delete(row.index)
        const beside: Readonly<Record<string, object | null | undefined>> = {
          ...{ intents: row.intent, outcomes: row.outcome, revocations: change },
          compromised_keys: change && isBlocked(change) ? change : undefined,
        }
        for (const one of expected ?? []) {
          const { table, key = '' } = one
          const nameAt = `${row.index} ${key}`
          const whole = small.get(table)
          if (whole && !whole.has(key)) whole.set(key, { ...one, index })
          if (whole) continue
          if (table === 'crls') compare(index, one, crls.get(key))
          else if (table === 'certificate_names') compare(index, one, names.get(nameAt))
          else compare(index, one, beside[table])
          if (table === 'revocations') changes.delete(row.index)
          if (table === 'certificate_names') names.delete(nameAt)
        }
      }
      const there = new Set(read.map(({ row }) => row.index))
      for (const { entry, serial } of changes.values())
        tellExtra(entry, 'revocations', there.has(entry) ? 'its entry is no revocation' : `${serial} is of no entry`)
      for (const row of names.values())
        if (!unread.has(row.entry)) tellExtra(row.entry, 'certificate_names', `${nameKey(row)} is of no entry`)
    },
    end: async (size) => {
      for (const { issuer, shard, count, last } of await rows.listCounts()) {
        const known = lists.get(`${issuer}/${shard}`) ?? { count: 0, last: 0 }
        if (Number(count) > known.count || Number(last) > known.last)
          tellExtra(
            null,
            'crls',
            `of ${issuer}/${shard} there are ${count} lists up to ${last}, and entries of ${known.count}`,
          )
      }
      for (const [table, text] of Object.entries(smallTables)) {
        const wanted = small.get(table) ?? new Map()
        for (const row of await rows.table({ text })) {
          const key = String(row['key'])
          const one = wanted.get(key)
          wanted.delete(key)
          if (one) compare(one.index, one, row)
          else tellExtra(null, table, `${key} is of no entry`)
        }
        for (const one of wanted.values()) compare(one.index, one, undefined)
      }
      for (const { level, index } of await rows.subtreesBeyond(size))
        tellExtra(String(size), 'subtrees', `${index} of level ${level} is beyond the last entry`)
    },
  }
}

/** The key of what was revoked for `keyCompromise` is blocked, by this entry or an earlier one. */
const isBlocked = ({ entry, serial, blocked_entry: by, blocked_serial: of }: ChangeRow): boolean =>
  by !== null && (Number(by) < Number(entry) || (by === entry && of === serial))
