/**
 * Whether another session keeps what issuing writes, and which one: a transaction that was forgotten in a client's window, a lock
 * that somebody took by hand. The server sets no end to these, and answers questions as ever meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Database, Queryable } from './database.ts'
import { sqlState } from './errors.ts'
import { lockTaken } from './shortages.ts'

/**
 * The locks that issuing takes are asked for, each for half a second, and given back at once. The head goes from one who issues to the
 * next, and where many do, not to us within that time: it is held up where it stands still as well. Undefined where nobody can tell.
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
    const { rows } = await db.query<{ pid: number; role: string | null }>(selectHolders, [takeLocks.text])
    for (const { pid, role } of rows) holders.set(pid, role ?? 'unknown')
    await sleep(lookAgainMs)
  }
  if ((await held) !== true) return []
  if (holders.size === 0) return ['a lock of another session keeps issuing waiting: see pg_locks and pg_stat_activity']
  return [...holders].map(([pid, role]) =>
    pid === ofPrepared
      ? 'a prepared transaction keeps a lock for which issuing waits: see which there are (pg_prepared_xacts), and end it in its database (commit prepared or rollback prepared)'
      : `the session ${pid} of the role ${role} keeps a lock for which issuing waits: see what it does (pg_stat_activity), and wait for it or end it (select pg_terminate_backend(${pid}))`,
  )
}

const lookAgainMs = 100
/** Whatever was prepared has no session any more. */
const ofPrepared = 0

/**
 * In one statement, and so in a transaction of its own, also behind a pooler; the bound to the wait ends with it. What issuing reads
 * is kept from it by less than what it writes: by a change of the table, as of an index that is made anew. What only some issue by,
 * as under limits or with the word of others, is among it: whoever waited may be one of them.
 */
const takeLocks = {
  text: `
    do $$ -- what issuing takes
    declare
      stood bigint;
    begin
      set local lock_timeout = '500ms';
      lock table approval_requests, approval_standings, approvals, compromised_keys, credential_revocations, credentials,
        grant_revocations, grants, identity_providers, issuer_states, issuers, principal_closures, principals, profiles, revocations,
        token_revocations, tokens in access share mode;
      lock table approval_ends, intents, key_owners, outcomes, entries, certificate_names, spent_tokens, subtrees in row exclusive mode;
      select size into stood from roll;
      begin
        perform from roll for update;
      exception when lock_not_available then
        if (select size from roll) = stood then raise; end if;
      end;
    end $$`,
}

/**
 * Whoever has what the look waits for, and nobody for whom something else waits a moment. Ours may wait for one that waits itself, as a
 * migration does: whoever waits for nobody is at the end of it.
 */
const selectHolders = {
  text: `
    with recursive chain (pid, waits) as (
      select pid, true from pg_stat_activity
      where datname = current_database() and usename = current_user and wait_event_type = 'Lock' and left(query, 100) = left($1, 100)
      union
      select holder, false from chain cross join unnest(pg_blocking_pids(chain.pid)) holder)
    select distinct chain.pid, a.usename::text as role
    from chain left join pg_stat_activity a using (pid)
    where not waits and cardinality(pg_blocking_pids(chain.pid)) = 0
    order by pid`,
}
