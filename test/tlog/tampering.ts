/** What somebody with the rights of a superuser may do to the records, one thing at a time, by chance from a seed. */
import type { Queryable } from '../../src/db/database.ts'
import { additions, type Kind, type Table, tables } from './tampering-tables.ts'

export interface Tampering {
  /** For people. */
  readonly what: string
  /** The entry that a finding must name, or none where the record has none. */
  readonly entry: number | undefined
  /** Else a finding must name this. */
  readonly table: string
}

export interface Chance {
  /** Below a bound. */
  readonly below: (bound: number) => number
  readonly of: <T>(from: readonly T[]) => T
}

/** Mulberry32. */
export const openChance = (seed: number): Chance => {
  let state = seed
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (bound: number): number => Math.floor(next() * bound)
  return { below, of: (from) => from[below(from.length)] as (typeof from)[number] }
}

/** Undefined where chance has found nothing to do. */
export type Tamper = (tx: Queryable, chance: Chance) => Promise<Tampering | undefined>

interface Row {
  readonly ctid: string
  readonly entry: number | null
  readonly value: unknown
  /** All of it but the value. */
  readonly rest: string
}

const pick = async (
  tx: Queryable,
  chance: Chance,
  { name, where = 'true', entry }: Pick<Table, 'where' | 'entry'> & { readonly name: string },
  column = 'null',
): Promise<Row | undefined> => {
  const condition = `${where} and ${column === 'null' ? 'true' : `r.${column} is not null`}`
  const { rows } = await tx.query<Row>({
    text: `select r.ctid::text as ctid, ${entry} as entry, ${column === 'null' ? 'null' : `r.${column}`} as value,
        (to_jsonb(r) - '${column}')::text as rest
      from ${name} r where ${condition} order by r.ctid`,
  })
  return rows.length === 0 ? undefined : chance.of(rows)
}

const pickTable = (chance: Chance): readonly [string, Table] =>
  chance.of(tables.flatMap((one) => Array.from({ length: one[1].weight }, () => one)))

const done = (table: string, what: string, entry: number | null): Tampering => ({
  what,
  entry: entry ?? undefined,
  table,
})

/** One bit of one column of one row. */
export const flipBit: Tamper = async (tx, chance) => {
  const [name, table] = pickTable(chance)
  const [column, kind] = chance.of(Object.entries(table.columns))
  const row = await pick(tx, chance, { name, ...table }, column)
  const change = row && flips[kind](row.value, chance)
  if (!row || !change) return undefined
  const [sql, values] = change(column)
  await tx.query({ text: `update ${name} set ${column} = ${sql} where ctid = $1::tid` }, [row.ctid, ...values])
  return done(name, `a bit of ${name}.${column}`, row.entry)
}

type Change = (column: string) => readonly [sql: string, values: readonly unknown[]]

const flips: Readonly<Record<Kind, (value: unknown, chance: Chance) => Change | undefined>> = {
  bytea: (value, chance) => {
    const octets = Buffer.from(value as Buffer)
    if (octets.length === 0) return undefined
    const at = chance.below(octets.length)
    octets[at] = (octets[at] ?? 0) ^ (1 << chance.below(8))
    return () => ['$2::bytea', [octets]]
  },
  text: (value, chance) => {
    const text = value as string
    if (text === '') return undefined
    const at = chance.below(text.length)
    const other = String.fromCharCode(text.charCodeAt(at) ^ (1 << chance.below(5)))
    return () => ['$2::text', [text.slice(0, at) + other + text.slice(at + 1)]]
  },
  number: (_value, chance) => {
    const bit = chance.below(12)
    return (column) => [`(${column}::bigint # (1::bigint << ${bit}))`, []]
  },
  time: (_value, chance) => {
    const bit = chance.below(48)
    return (column) => [`${column} + ${2 ** bit} * interval '1 microsecond'`, []]
  },
  truth: () => (column) => [`not ${column}`, []],
  id: () => () => ['gen_random_uuid()', []],
  list: () => (column) => [`array_append(${column}, 'more')`, []],
  digests: () => (column) => [`array_append(${column}, sha256(''))`, []],
  json: () => () => [`'{"more": "x"}'`, []],
}

export const deleteRow: Tamper = async (tx, chance) => {
  const [name, table] = pickTable(chance)
  const row = await pick(tx, chance, { name, ...table })
  if (!row) return undefined
  await tx.query({ text: `delete from ${name} where ctid = $1::tid` }, [row.ctid])
  return done(name, `a row of ${name} is gone`, row.entry)
}

/** Two rows in each other's place: all of them is as it was, but for the entry. */
export const swapRows: Tamper = async (tx, chance) => {
  const [name, column] = chance.of([
    ['entries', 'index'],
    ['outcomes', 'entry'],
    ['outcomes', 'serial'],
    ['revocations', 'entry'],
    ['revocations', 'serial'],
    ['certificate_names', 'entry'],
    ['certificate_names', 'name'],
    ['intents', 'serial'],
    ['subtrees', 'hash'],
    ['issuer_states', 'state'],
    ['profiles', 'document'],
  ] as const)
  const table = tables.find(([other]) => other === name)?.[1] as Table
  const known =
    name === 'outcomes' || name === 'intents' ? { ...table, where: `${table.where} and r.principal = 'admin'` } : table
  const [one, other] = [
    await pick(tx, chance, { name, ...known }, column),
    await pick(tx, chance, { name, ...known }, column),
  ]
  // Of two that are alike it does not matter which is which.
  if (!one || !other || String(one.value) === String(other.value) || one.rest === other.rest) return undefined
  const set = (ctid: string, value: string): string =>
    `update ${name} set ${column} = ${value} where ctid = '${ctid}'::tid`
  const { rows } = await tx.query<{ ctid: string }>({
    text: `${set(one.ctid, free[`${name}.${column}`] ?? column)} returning ctid::text as ctid`,
  })
  await tx.query({ text: set(other.ctid, '$1') }, [one.value])
  await tx.query({ text: set(rows[0]?.ctid ?? '', '$1') }, [other.value])
  return done(name, `${name}.${column} of two rows, swapped`, one.entry)
}

/** What is in nobody's way meanwhile. */
const free: Readonly<Record<string, string>> = {
  'entries.index': '-7',
  'outcomes.entry': '-7',
  'outcomes.serial': `'\\x00'`,
  'revocations.entry': '-7',
  'intents.serial': `'\\x00'`,
}

/** Records that there never were. */
export const addRow: Tamper = async (tx, chance) => {
  const [what, sql] = chance.of(additions)
  const row = await pick(tx, chance, {
    name: 'outcomes',
    where: `r.kind = 'certificate' and r.principal = 'admin'`,
    entry: 'r.entry',
  })
  if (!row) return undefined
  const { rowCount } = await tx.query({ text: sql }, [row.ctid])
  return rowCount === 0 ? undefined : { what, entry: undefined, table: what.split(':')[0] as string }
}
