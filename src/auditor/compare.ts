/** The records beside the entries, compared with what the entries say of them. */

import type { ChangeRow, EntryRow, NameRow, RecordsPage, RollRows } from '../db/log-rows.ts'
import type { Finding } from '../tlog/findings.ts'
import type { EntryOf, RollEntry } from '../tlog/forms.ts'
import { type Columns, differing } from './columns.ts'
import { abandonedOf, type Issuance, nameTextOf } from './issuances.ts'
import {
  type Counting,
  changeColumns,
  type ExpectedRow,
  entryColumns,
  isBlocked,
  isChange,
  listColumns,
  listKey,
  smallRows,
  smallTables,
} from './rows.ts'

export interface ReadEntry {
  readonly row: EntryRow
  readonly index: number
  /** Undefined for what cannot be read, which the verifier tells of. */
  readonly entry: RollEntry | undefined
  /** Of a certificate that can be read. */
  readonly issuance: Issuance | undefined
}

type Tell = (finding: Finding) => void

export interface Comparing {
  page(page: RecordsPage, read: readonly ReadEntry[]): Promise<void>
  end(size: number): Promise<void>
}

export const openComparing = (rows: RollRows, tell: Tell): Comparing => {
  const names = openNames(rows, tell)
  const lists = openLists(rows, tell)
  const few = openFew(rows, tell)
  return {
    page: async ({ changes, strays }, read) => {
      for (const { table, entry, what } of strays)
        tell({ index: Number(entry ?? 0), code: 'row.extra', message: `${table}: ${what} is of no entry` })
      const changed = new Map(changes.map((change) => [Number(change.entry), change]))
      for (const one of read) {
        compareEntry(one, tell)
        compareChange(one, changed.get(one.index), tell)
        changed.delete(one.index)
        few.expect(one)
      }
      for (const { entry, serial } of changed.values())
        tell({ index: Number(entry), code: 'row.extra', message: `revocations: ${serial} is of no entry` })
      await names.compare(read)
      await lists.compare(read)
    },
    end: async (size) => {
      await names.end()
      await lists.end()
      await few.end()
      for (const { level, index } of await rows.subtreesBeyond(size))
        tell({
          index: size,
          code: 'row.extra',
          message: `subtrees: ${index} of level ${level} is beyond the last entry`,
        })
    },
  }
}

const compareEntry = ({ row, index, entry, issuance }: ReadEntry, tell: Tell): void => {
  const compare = (table: string, expected: Columns, actual: object | null): void => {
    if (actual === null) return tell({ index, code: 'row.missing', message: `${table} has nothing of it` })
    const wrong = differing(expected, actual)
    if (wrong.length > 0) tell({ index, code: 'row.differs', message: `${table}: ${wrong.join(', ')}` })
  }
  if (entry === undefined) return
  compare('entries', entryColumns(entry), row)
  if (entry.type === 'certificate.issued') {
    if (issuance === undefined) return
    compare('intents', issuance.intent, row.intent)
    compare('outcomes', issuance.outcome, row.outcome)
  } else if (entry.type === 'issuance.abandoned') {
    const { intent, found, outcome, isIntended } = abandonedOf(entry, index, row)
    compare('intents', intent, row.intent && found)
    compare('outcomes', outcome, row.outcome)
    if (row.intent && !isIntended) tell({ index, code: 'row.differs', message: 'intents: created_at' })
  }
}

const compareChange = ({ index, entry }: ReadEntry, change: ChangeRow | undefined, tell: Tell): void => {
  if (entry === undefined) return
  if (!isChange(entry)) {
    if (change) tell({ index, code: 'row.extra', message: `revocations: its entry is no revocation` })
    return
  }
  if (!change) return tell({ index, code: 'row.missing', message: 'revocations has nothing of it' })
  const wrong = differing(changeColumns(entry, change), change)
  if (wrong.length > 0) tell({ index, code: 'row.differs', message: `revocations: ${wrong.join(', ')}` })
  if (entry.type === 'certificate.revoked' && entry.reason === 'keyCompromise' && !isBlocked(index, change))
    tell({ index, code: 'row.missing', message: 'compromised_keys has no row that blocks its key from this entry on' })
}

/** Both go along the roll, so that one page of each is held. */
const openNames = (rows: RollRows, tell: Tell) => {
  const pages = rows.names()
  let waiting: NameRow[] = []
  let isOver = false
  const fetch = async (): Promise<void> => {
    const { value, done } = await pages.next()
    if (value) waiting = [...waiting, ...value]
    isOver = done === true
  }
  const extra = ({ entry, serial, kind, name }: NameRow): void =>
    tell({
      index: Number(entry),
      code: 'row.extra',
      message: `certificate_names: ${kind}:${name} of ${serial} is of no entry`,
    })
  /** Those of an entry, when those before it are out of the way. */
  const take = async (index: number): Promise<readonly NameRow[]> => {
    // What is behind it shows that there are no more of its own.
    while (!isOver && !(Number(waiting.at(-1)?.entry ?? -1) > index)) await fetch()
    const end = waiting.findIndex(({ entry }) => Number(entry) > index)
    const taken = waiting.splice(0, end < 0 ? waiting.length : end)
    for (const row of taken) if (Number(row.entry) < index) extra(row)
    return taken.filter(({ entry }) => Number(entry) === index)
  }
  return {
    compare: async (read: readonly ReadEntry[]): Promise<void> => {
      for (const { index, entry, issuance } of read) {
        const found = await take(index)
        // What cannot be read has been told of.
        if (entry === undefined || (entry.type === 'certificate.issued' && issuance === undefined)) continue
        const expected = [...(issuance?.names ?? [])].sort()
        const actual = found.map(nameTextOf).sort()
        if (expected.join('\n') === actual.join('\n')) continue
        for (const name of without(expected, actual))
          tell({ index, code: 'row.missing', message: `certificate_names lacks ${name}` })
        for (const name of without(actual, expected))
          tell({ index, code: 'row.extra', message: `certificate_names has ${name}, which the certificate does not` })
      }
    },
    end: async (): Promise<void> => {
      for (;;) {
        for (const row of waiting.splice(0)) extra(row)
        if (isOver) return
        await fetch()
      }
    },
  }
}

/** What one list has more often than the other. */
const without = (names: readonly string[], others: readonly string[]): string[] => {
  const left = [...others]
  return names.filter((name) => {
    const at = left.indexOf(name)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
}

/** Lists of what is revoked have no entry in their rows: they are looked up by their numbers, and counted. */
const openLists = (rows: RollRows, tell: Tell) => {
  const counts = new Map<string, { count: number; last: number }>()
  const isOfLists = (one: ReadEntry): one is ReadEntry & { readonly entry: EntryOf<'crls.intended'> } =>
    one.entry?.type === 'crls.intended'
  return {
    compare: async (read: readonly ReadEntry[]): Promise<void> => {
      const intended = read
        .filter(isOfLists)
        .flatMap(({ index, entry: { issuer, lists } }) =>
          lists.map((list) => ({ index, list, name: { issuer, shard: list.shard, number: list.number } })),
        )
      const found = new Map((await rows.lists(intended.map(({ name }) => name))).map((row) => [listKey(row), row]))
      for (const { index, list, name } of intended) {
        const shard = `${name.issuer}/${name.shard}`
        const { count, last } = counts.get(shard) ?? { count: 0, last: 0 }
        counts.set(shard, { count: count + 1, last: Math.max(last, name.number) })
        const row = found.get(listKey(name))
        if (!row) {
          tell({ index, code: 'row.missing', message: `crls lacks list ${name.number} of ${shard}` })
          continue
        }
        const wrong = differing(listColumns(list), row)
        if (wrong.length > 0)
          tell({ index, code: 'row.differs', message: `crls: ${wrong.join(', ')} of list ${name.number} of ${shard}` })
      }
    },
    end: async (): Promise<void> => {
      for (const { issuer, shard, count, last } of await rows.listCounts()) {
        const known = counts.get(`${issuer}/${shard}`)
        if (Number(count) > (known?.count ?? 0) || Number(last) > (known?.last ?? 0))
          tell({
            ...{ index: 0, code: 'row.extra' },
            message: `crls: of ${issuer}/${shard} there are ${count} lists up to ${last}, and entries of ${known?.count ?? 0}`,
          })
      }
    },
  }
}

/** Tables of few rows are compared when all entries are known. */
const openFew = (rows: RollRows, tell: Tell) => {
  const counting: Counting = { states: new Map() }
  const expected = new Map<string, Map<string, ExpectedRow & { readonly index: number }>>(
    Object.keys(smallTables).map((table) => [table, new Map()]),
  )
  return {
    expect: ({ entry, index }: ReadEntry): void => {
      if (entry === undefined) return
      for (const row of smallRows(entry, index, counting)) {
        const known = expected.get(row.table)
        if (!known?.has(row.key)) known?.set(row.key, { ...row, index })
      }
    },
    end: async (): Promise<void> => {
      for (const [table, text] of Object.entries(smallTables)) {
        const wanted = new Map(expected.get(table))
        for (const row of await rows.table({ text })) {
          const key = String(row['key'])
          const one = wanted.get(key)
          wanted.delete(key)
          if (!one) {
            tell({ index: 0, code: 'row.extra', message: `${table}: ${key} is of no entry` })
            continue
          }
          const wrong = differing(one.columns, row)
          if (wrong.length > 0)
            tell({ index: one.index, code: 'row.differs', message: `${table}: ${wrong.join(', ')} of ${key}` })
        }
        for (const { index, key } of wanted.values())
          tell({ index, code: 'row.missing', message: `${table} lacks ${key}` })
      }
    },
  }
}
