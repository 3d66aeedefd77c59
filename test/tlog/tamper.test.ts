/**
 * Whoever has all rights over the database may alter it, but not unseen: flipped bits, rows that are gone, in each other's
 * place or made up, a tail cut off, each alone, by chance. CHANCERY_TEST_TAMPERINGS says how many, CHANCERY_TEST_SEED from
 * where chance begins.
 */
import t from 'tap'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import { openReport } from '../../src/auditor/findings.ts'
import { readKeys } from '../../src/auditor/keys.ts'
import { verifyRecords } from '../../src/auditor/records.ts'
import { unknown } from '../../src/auditor/unknown.ts'
import { openDatabase, type Queryable } from '../../src/db/database.ts'
import { sqlState } from '../../src/db/errors.ts'
import { type RollRows, rollRowsOf, withRollRows } from '../../src/db/log-rows.ts'
import { readHashes } from '../../src/db/tree.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { openTestServer } from '../helpers/database.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { hasher } from './hashing.ts'
import { openFilledRecords } from './records.ts'
import {
  addRow,
  type Chance,
  deleteRow,
  flipBit,
  openChance,
  swapRows,
  type Tamper,
  type Tampering,
} from './tampering.ts'
import { tables } from './tampering-tables.ts'

const count = Number(process.env['CHANCERY_TEST_TAMPERINGS'] ?? 50)
const seed = Number(process.env['CHANCERY_TEST_SEED'] ?? 1)
t.setTimeout(600_000)

const { database, note, key } = await openFilledRecords(t)
const name = new URL(database.ownerUrl.replace('@/', '@host/')).pathname
const url = (await openTestServer()).superuserUrl.replace('/postgres?', `${name}?`)
const db = openDatabase({ url, max: 1, log: quiet, applicationName: 'tampering', patient: true })
const certificates = openRollCertificates(1)
const keys = await readKeys([key])
t.teardown(async () => {
  await certificates.close()
  await db.close()
})

const verify = async (
  rows: RollRows,
  checkpoints: readonly Buffer[] = [Buffer.from(note)],
): Promise<readonly Finding[]> => {
  const report = openReport()
  await verifyRecords({
    rows,
    certificates,
    keys,
    checkpoints: checkpoints.map((note) => ({ note })),
    tell: report.tell,
    progress: () => {},
  })
  return report.findings()
}

/** In a transaction that is rolled back. */
const tampered = async <T>(work: (tx: Queryable) => Promise<T>): Promise<T> => {
  let result: T | undefined
  const undo = new Error('undone')
  await db
    .transaction(async (tx) => {
      for (const text of withoutTriggers) await tx.query({ text })
      result = await work(tx)
      throw undo
    })
    .catch((error: unknown) => {
      if (error !== undo) throw error
    })
  return result as T
}

const withoutTriggers = [
  'set local session_replication_role = replica',
  `set local timezone = 'UTC'`,
  `set local datestyle = 'ISO'`,
]
// Checks and foreign keys would tell a clumsy one of his error.
await db.query({
  text: `do $$ declare c record; begin
    for c in select conrelid::regclass as t, conname from pg_constraint
      where contype in ('c', 'f') and connamespace = 'public'::regnamespace and conislocal
    loop execute format('alter table %s drop constraint if exists %I cascade', c.t, c.conname); end loop; end $$`,
})

/** Undefined: named as it should be. */
const miss = ({ entry, table }: Tampering, findings: readonly Finding[]): string | undefined => {
  const named = findings.some(({ index, until = index + 1, message, code }) =>
    entry === undefined
      ? message.startsWith(`${table}:`) ||
        message.startsWith(`${table} `) ||
        (table === 'roll' && code === 'head.differs') ||
        (table === 'subtrees' && code === 'tile.missing')
      : index <= entry && entry < until,
  )
  return named ? undefined : findings.map(({ index, code, message }) => `${index} ${code} ${message}`).join('; ')
}

t.test('what nobody has altered has no findings, in a snapshot of its own', async (t) => {
  t.same(await withRollRows(db, (rows) => verify(rows)), [])
  t.same(await tampered((tx) => verify(rollRowsOf(tx))), [])
})

t.test('what searches show is compared with the entry', async (t) => {
  const without = (columns: readonly string[]) =>
    tampered(async (tx) => {
      const set = columns.map((column) => `${column} = null`).join(', ')
      const { rows } = await tx.query<{ entry: number }>({
        text: `update outcomes set ${set} where entry = (select min(entry) from outcomes where kind = 'certificate') returning entry`,
      })
      const found = await verify(rollRowsOf(tx))
      return found.map(({ index, code, message }) => [index === rows[0]?.entry, code, message])
    })
  const columns = ['names', 'profile_version', 'delegated']
  t.same(await without(columns), [[true, 'row.differs', `outcomes: ${columns.join(', ')}`]])
  for (const column of columns) t.same(await without([column]), [[true, 'row.differs', `outcomes: ${column}`]])
})

t.test('how many lists an issuer has is compared with its entry', async (t) => {
  for (const [issuer, before] of [
    ['default', 128],
    ['next', 2],
  ] as const) {
    const told = await tampered(async (tx) => {
      const { rows } = await tx.query<{ shards: number }>({ text: 'select shards from issuers where name = $1' }, [
        issuer,
      ])
      t.same(rows, [{ shards: before }])
      await tx.query({ text: 'update issuers set shards = 1 where name = $1' }, [issuer])
      return (await verify(rollRowsOf(tx))).map(({ code, message }) => `${code} ${message}`)
    })
    t.same(told, [`row.differs issuers: shards of ${issuer}`])
  }
})

t.test('of every column there is, it is known whether the roll tells of it, or why not', async (t) => {
  const { rows } = await db.query<{ table: string; column: string }>({
    text: `
      select c.relname as table, a.attname as column
      from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
        and a.attnum > 0 and not a.attisdropped`,
  })
  const isKnown = (table: string, column: string): boolean =>
    tables.some(([name, { columns }]) => name === table && column in columns)
  const lost = rows.filter(({ table, column }) => {
    const { '*': all, ...why } = unknown[table] ?? {}
    return !isKnown(table, column) && !(column in why) && all === undefined
  })
  t.same(lost, [])
  const there = new Set(rows.flatMap(({ table, column }) => [`${table}.${column}`, `${table}.*`]))
  const listed = Object.entries(unknown).flatMap(([table, columns]) =>
    Object.keys(columns).map((column) => `${table}.${column}`),
  )
  t.same(
    listed.filter((one) => !there.has(one)),
    [],
    'and none that there is not',
  )
})

t.test('what is altered is named exactly, and nothing else', async (t) => {
  const found = await tampered(async (tx) => {
    for (const text of alterations) t.ok((await tx.query({ text })).rowCount, text)
    return verify(rollRowsOf(tx))
  })
  const told = found.map(({ code, message }) => `${code} ${message.replace(/\b[0-9a-f]{32}\b/, '…')}`)
  t.same(told.toSorted(), [
    'row.differs intents: created_at',
    'row.differs intents: digest',
    'row.differs outcomes: idempotency_key',
    'row.differs principals: created_by of ci',
    'row.extra certificate_names: dns:com.example.more of … is of no entry',
    'row.extra crls: of front-proxy/1 there are 2 lists up to 1, and entries of 1',
    'row.extra crls: of front-proxy/2 there are 1 lists up to 1000, and entries of 1',
    'row.extra principals: mallory is of no entry',
    'row.extra revocations: its entry is no revocation',
    'row.extra revocations: … is of no entry',
    'row.extra subtrees: 4000 of level 1 is beyond the last entry',
    'row.missing compromised_keys has no row that blocks its key from this entry on',
    'row.missing crls lacks list 1 of front-proxy/2',
    'row.missing principals lacks leaver',
  ])
})

/** Each alone of its kind, so that none hides another. */
const alterations: readonly string[] = [
  `update intents set created_at = created_at + interval '1 millisecond', digest = sha256('')
   where serial in (select serial from outcomes where kind = 'abandoned')`,
  `update outcomes set idempotency_key = 'another' where kind = 'abandoned'`,
  'delete from compromised_keys',
  `insert into certificate_names select serial, 'dns', 'com.example.more', 1000000 from outcomes
   where entry = (select max(entry) from outcomes)`,
  `insert into revocations select o.entry + n, o.serial, 'revoked', null, o.at, null, o.issuer, 0, o.not_after, o.entry, 'admin'
   from outcomes o, (values (0), (1000000)) as beside (n)
   where o.entry = (select min(entry) from outcomes where kind = 'certificate')`,
  `insert into subtrees values (1, 4000, sha256(''))`,
  `insert into crls select issuer, shard, 0, covers, this_update, next_update, revoked, tbs_sha256 from crls
   where (issuer, shard, number) = ('front-proxy', 1, 1)`,
  `update crls set number = 1000 where (issuer, shard, number) = ('front-proxy', 2, 1)`,
  `update principals set created_by = 'mallory' where name = 'ci'`,
  `update principals set name = 'mallory' where name = 'leaver'`,
]

t.test(`${count} things that were altered are found, and each is named`, async (t) => {
  const chance = openChance(seed)
  const kinds: readonly Tamper[] = [flipBit, flipBit, flipBit, flipBit, deleteRow, deleteRow, swapRows, addRow]
  const seen = new Map<string, number>()
  for (let found = 0; found < count; ) {
    const tamper = chance.of(kinds)
    const missed = await tampered(async (tx) => {
      const tampering = await tryTo(tamper, tx, chance)
      if (!tampering) return undefined
      found += 1
      seen.set(tampering.what, (seen.get(tampering.what) ?? 0) + 1)
      const why = miss(tampering, await verify(rollRowsOf(tx)))
      return why === undefined ? undefined : `${tampering.what} (${tampering.entry}): ${why}`
    })
    if (missed !== undefined) t.fail(missed)
  }
  t.comment(`${seen.size} kinds: ${[...seen].map(([what, n]) => `${what} ${n}`).join(', ')}`)
  t.ok(seen.size > Math.min(20, count / 2))
})

/** What PostgreSQL itself refuses, for a key that is taken, is no tampering. */
const tryTo = async (tamper: Tamper, tx: Queryable, chance: Chance): Promise<Tampering | undefined> => {
  await tx.query({ text: 'savepoint before' })
  try {
    return await tamper(tx, chance)
  } catch (error) {
    if (!/^(22|23)/.test(sqlState(error) ?? '')) throw error
    await tx.query({ text: 'rollback to savepoint before' })
    return undefined
  }
}

slowTest(
  'a tail that is cut off, with the head where it then belongs, is found by a checkpoint that was seen',
  async (t) => {
    for (const cut of [1, 2, 50, 150]) {
      const { size, findings, unseen } = await tampered(async (tx) => {
        const { rows } = await tx.query<{ size: number }>({ text: 'select size from roll' })
        const size = (rows[0]?.size ?? 0) - cut
        const leaves = await readHashes(tx, { level: 0, from: 0, count: size })
        const { edge } = extend(emptyEdge(hasher), leaves, hasher)
        for (const text of cutAt) await tx.query({ text: text.replaceAll('$1', String(size)) })
        await tx.query({ text: 'update roll set size = $1, root = $2, time = (select max(time) from entries)' }, [
          size,
          Buffer.from(edge.root),
        ])
        return { size, findings: await verify(rollRowsOf(tx)), unseen: await verify(rollRowsOf(tx), []) }
      })
      const isBeyond = ({ code, index }: Finding): boolean => code === 'checkpoint.beyond' && index === size + cut
      t.ok(findings.some(isBeyond), `${cut}`)
      // Lists and administration have rows that no entry tells of any more; a certificate alone would be gone without a trace.
      t.notOk(
        unseen.some(({ code }) => code.startsWith('head.') || code.startsWith('entry.')),
        `${cut}, to those who have seen nothing`,
      )
    }
  },
)

const cutAt = [
  'delete from certificate_names where entry >= $1',
  'delete from intents where serial in (select serial from outcomes where entry >= $1)',
  'delete from outcomes where entry >= $1',
  'delete from revocations where entry >= $1',
  'delete from compromised_keys where entry >= $1',
  'delete from entries where index >= $1',
  'delete from subtrees where (index + 1) * power(256, level) > $1',
]
