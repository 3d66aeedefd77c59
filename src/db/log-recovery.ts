/**
 * Putting entries back that a restored database lacks: each exactly as it was on the roll, with what it meant, in
 * transactions of their own that each leave a whole, older roll. Running it again goes on where it ended.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import type { RollHead } from '../ca/issuance/recorder.ts'
import type { RollEntry } from '../tlog/forms.ts'
import { type Edge, extend } from '../tlog/frontier.ts'
import type { Hash, TreeHasher } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import { stayOpen } from './advisory-lock.ts'
import type { Database, Queryable } from './database.ts'
import type { RecoverySources } from './log-effect.ts'
import { applyEntry } from './log-effects.ts'
import { settleOrders } from './mass-revocations.ts'

export interface RecoveredEntry {
  readonly index: number
  readonly text: string
  readonly leaf: Hash
  readonly entry: RollEntry
}

export interface RecoveryDeps {
  readonly db: Pick<Database, 'transaction'>
  readonly hasher: TreeHasher
  readonly sources: RecoverySources
}

/**
 * Appends entries to the roll, which ends with `edge`, in one transaction; resolves to where it ends then. `isLast`: behind
 * them a checkpoint was signed, so that nothing was half done there. Rejects where somebody else has moved the head.
 */
export const recoverEntries = async (
  { db, hasher, sources }: RecoveryDeps,
  edge: Edge,
  entries: readonly RecoveredEntry[],
  isLast: boolean,
): Promise<Edge> => {
  const grown = extend(
    edge,
    entries.map(({ leaf }) => leaf),
    hasher,
  )
  const subtrees = grown.completed.map(({ hash, ...place }) => ({ ...place, hash: Buffer.from(hash).toString('hex') }))
  await db.transaction(async (tx) => {
    await assertHead(tx, edge)
    const { size, root } = grown.edge
    await tx.query(moveHead, [size, entries.at(-1)?.entry.time, Buffer.from(root)])
    await tx.query(insertEntries, [JSON.stringify(entries.map(rowOf)), JSON.stringify(subtrees)])
    for (const one of entries) await applyEntry(tx, one, sources)
    if (isLast) await settleOrders(tx)
  })
  return grown.edge
}

/**
 * Does all that `work` does in one transaction, and takes it back: what the records would refuse is found, and nothing is
 * changed. `work` may wait for its sources between two steps as long as it likes.
 */
export const rehearse = async (db: Database, work: (db: RecoveryDeps['db']) => Promise<unknown>): Promise<void> => {
  const done = new Error('rehearsed')
  await db
    .transaction(async (tx) => {
      await stayOpen(tx)
      const transaction: Database['transaction'] = async (step) => {
        const result = await step(tx)
        await tx.query(checkNow)
        await tx.query(checkLater)
        return result
      }
      await work({ transaction })
      throw done
    })
    .catch((error: unknown) => {
      if (error !== done) throw error
    })
}

/**
 * Whether an instance has connections to these records, as far as the server tells. Those of one that has just ended are
 * there for a moment.
 */
export const isServed = async (db: Database): Promise<boolean> => {
  for (let tries = 10; ; tries -= 1) {
    const { rows } = await db.query<{ served: boolean }>(selectServed)
    if (rows[0]?.served !== true) return false
    if (tries === 0) return true
    await sleep(200)
  }
}

const assertHead = async (tx: Queryable, { size, root }: RollHead): Promise<void> => {
  const { rows } = await tx.query<{ size: number; root: Buffer }>(lockHead)
  if (rows[0]?.size !== size || !isEqual(rows[0].root, root))
    throw new Error(`the roll no longer ends at ${size}: somebody else writes on it`)
}

/** Of a certificate the text is put together again from the records, as of every other one. */
const rowOf = ({ index, text, leaf, entry }: RecoveredEntry): object => ({
  index,
  type: entry.type,
  time: entry.time,
  leaf: Buffer.from(leaf).toString('hex'),
  serial: 'serial' in entry ? entry.serial : null,
  body: entry.type === 'certificate.issued' ? null : text,
})

/** As a commit does. */
const checkNow = { text: 'set constraints all immediate' }
const checkLater = { text: 'set constraints all deferred' }
const lockHead = { text: 'select size, root from roll where id = 1 for update' }
const moveHead = { text: 'update roll set size = $1::bigint, time = $2::timestamptz, root = $3::bytea where id = 1' }
const insertEntries = {
  text: `
    with subtree as (
      insert into subtrees (level, index, hash)
      select level, index, decode(hash, 'hex')
      from json_to_recordset($2::json) as r (level smallint, index bigint, hash text)
    )
    insert into entries (index, type, time, leaf_hash, serial, body)
    select index, type, time, decode(leaf, 'hex'), decode(serial, 'hex'), body
    from json_to_recordset($1::json) as r (index bigint, type text, time timestamptz, leaf text, serial text, body text)`,
}
const selectServed = {
  text: `
    select exists (
      select from pg_stat_activity
      where datname = current_database() and application_name = 'chancery' and pid <> pg_backend_pid()
    ) as served`,
}
