/** What `/readyz` looks at, put together. */
import type { Checkpoints } from './ca/checkpoints.ts'
import type { Health } from './ca/health.ts'
import type { Issuance } from './ca/issuance.ts'
import type { Issuers } from './ca/issuers.ts'
import { openHealth } from './ca/readiness.ts'
import type { Witnesses } from './ca/witnesses.ts'
import type { Stores } from './service.ts'
import type { Status } from './status.ts'

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
    crlFault: status.crlFault,
    rollFault: checkpoints.probe,
    rollWarning: witnesses.warning,
    crlWarning: status.crlWarning,
    queue: () => ({ pending: issuance.pending, bound: stores.config.limits.queue }),
    isStopping,
  })

/** Undefined when records can be written: not a standby, not read-only, its clock was read, and it has turned nothing down lately. */
const databaseFault = async ({ db, roll, turnedDown }: Stores): Promise<string | undefined> => {
  const { rows } = await db.query<{ readonly: boolean }>(selectReadOnly)
  await roll.head()
  return rows[0]?.readonly === false ? turnedDown.fault() : 'the database is read-only'
}

const selectReadOnly = {
  name: 'select_read_only',
  text: `select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as readonly`,
}
