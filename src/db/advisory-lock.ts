/** Work that only one process of all replicas does at a time, however long it takes. */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Queryable } from './database.ts'

/**
 * Resolves when this transaction has the lock, and has it to its end. Asks again and again, since neither the server nor
 * the client lets one statement wait for as long as another instance may take; and nothing ends the transaction
 * meanwhile, unless it idles for `longestIdle`. `lock`: any constant will do, as long as it is only this.
 */
export const inTurn = async (tx: Queryable, lock: number, longestIdle = '0'): Promise<void> => {
  await tx.query(setOpen, [longestIdle])
  while ((await tx.query<{ locked: boolean }>(tryLock, [lock])).rows[0]?.locked !== true) await sleep(askAgainMs)
}

/** PostgreSQL has `transaction_timeout` from 17 on. */
const setOpen = {
  text: `
    select set_config(name, value, true)
    from (values ('idle_in_transaction_session_timeout', $1), ('transaction_timeout', '0')) as wanted (name, value)
    join pg_settings using (name)`,
}
const tryLock = { text: 'select pg_try_advisory_xact_lock($1::bigint) as locked' }
const askAgainMs = 100
