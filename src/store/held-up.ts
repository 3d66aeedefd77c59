/**
 * Whether another session keeps what issuing writes, and which one: a transaction that was forgotten in a client's window, a lock
 * that somebody took by hand. The server sets no end to these, and answers questions as ever meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { type Database, type Queryable, sqlState } from './database.ts'
import { lockTaken } from './shortages.ts'

/**
 * The locks that issuing takes are asked for, each for half a second, which is longer than those who issue have one, and given back
 * at once. Undefined where nobody can tell.
 */
export const isHeldUp = async (db: Queryable): Promise<boolean | undefined> => {
  try {
    await db.query(takeLocks)
    return false
  } catch (error) {
    return sqlState(error) === lockTaken ? true : undefined
  }
}

/** Who keeps ours waiting, each as a clause; empty where nobody does. Needs two connections. */
export const heldUpBy = async (db: Database): Promise<readonly string[]> => {
  const holders = new Map<number, string>()
  let isDone = false
  const held = isHeldUp(db).finally(() => {
    isDone = true
  })
  // Only while somebody waits is it known for whom.
  while (!isDone) {
    const { rows } = await db.query<{ pid: number; role: string | null }>(selectHolders)
    for (const { pid, role } of rows) holders.set(pid, role ?? 'unknown')
    await sleep(lookAgainMs)
  }
  if ((await held) !== true) return []
  if (holders.size === 0) return ['a lock of another session keeps issuing waiting: see pg_locks and pg_stat_activity']
  return [...holders].map(
    ([pid, role]) =>
      `the session ${pid} of the role ${role} keeps a lock for which issuing waits: see what it does (pg_stat_activity), and wait for it or end it (select pg_terminate_backend(${pid}))`,
  )
}

const lookAgainMs = 100

/** In one statement, and so in a transaction of its own, also behind a pooler; the bound to the wait ends with it. */
const takeLocks = {
  text: `
    do $$
    begin
      set local lock_timeout = '500ms';
      lock table intents, outcomes, entries in row exclusive mode;
      perform from roll for update;
    end $$`,
}

/** Ours may wait for one that waits itself, as a migration does: whoever waits for nobody is at the end of it. */
const selectHolders = {
  text: `
    with recursive chain (pid, waits) as (
      select pid, true from pg_stat_activity
      where datname = current_database() and usename = current_user and wait_event_type = 'Lock'
      union
      select holder, false from chain cross join unnest(pg_blocking_pids(chain.pid)) holder)
    select distinct chain.pid, a.usename::text as role
    from chain left join pg_stat_activity a using (pid)
    where not waits and cardinality(pg_blocking_pids(chain.pid)) = 0
    order by pid`,
}
