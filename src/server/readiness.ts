/** What `/readyz` looks at, put together. */

import type { Health } from '../ca/health.ts'
import type { Issuance } from '../ca/issuance/issuance.ts'
import type { Issuers } from '../ca/issuers/issuers.ts'
import type { Checkpoints } from '../ca/log/checkpoints.ts'
import type { Witnesses } from '../ca/log/witnesses.ts'
import { openHealth } from '../ca/readiness.ts'
import type { Status } from './revocation.ts'
import type { Stores } from './stores.ts'

export interface HealthParts {
  readonly issuers: Issuers
  readonly issuance: Issuance
  readonly status: Status
  readonly checkpoints: Checkpoints
  readonly witnesses: Pick<Witnesses, 'warning'>
  readonly isStopping: () => boolean
}

export const healthOf = (
  stores: Stores,
  { issuers, issuance, status, checkpoints, witnesses, isStopping }: HealthParts,
): Health =>
  openHealth({
    issuers,
    now: stores.dbClock.now,
    databaseFault: () => databaseFault(stores),
    clockFault: stores.dbClock.fault,
    clockReadAt: stores.dbClock.readAt,
    crlFault: status.crlFault,
    rollFault: checkpoints.probe,
    rollWarning: witnesses.warning,
    crlWarning: status.crlWarning,
    queue: () => ({ pending: issuance.pending, bound: stores.config.limits.queue }),
    isStopping,
  })

/**
 * Undefined when records can be written: not a standby, not read-only, no commit waits for a standby that is gone, its clock was
 * read, and it has turned nothing down lately.
 */
export const databaseFault = async ({
  db,
  roll,
  turnedDown,
}: Pick<Stores, 'db' | 'turnedDown'> & { readonly roll: Pick<Stores['roll'], 'head'> }): Promise<
  string | undefined
> => {
  const { rows } = await db.query<{ readonly: boolean; waiting: boolean }>(selectWriting)
  await roll.head()
  await turnedDown.look(db)
  if (rows[0]?.readonly !== false) return 'the database is read-only'
  return rows[0].waiting ? waitsForStandby : turnedDown.fault()
}

/** The server sets no bound to that wait, and answers questions as ever meanwhile. */
const waitsForStandby =
  'commits wait for a synchronous standby: bring it back, or take it out of synchronous_standby_names of the database'

const selectWriting = {
  name: 'select_writing',
  text: `
    select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as readonly,
      exists (
        select from pg_stat_activity
        where datname = current_database() and usename = current_user and wait_event = 'SyncRep'
          and query_start < clock_timestamp() - interval '3 s') as waiting`,
}
