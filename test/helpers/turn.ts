/** What one instance at a time does, left to a test. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Database } from '../../src/db/database.ts'
import { openLeases } from '../../src/db/leases.ts'

interface Teardown {
  teardown(close: () => void): void
}

/** Takes the lease of a job from the service, for as long as the test takes. */
export const holdTurn = async (t: Teardown, db: Database, job: 'approvals' | 'mass-revocation'): Promise<void> => {
  const leases = openLeases(db, randomUUID())
  // For as long as the service takes it: by one for longer it would know a clock that was set back, and take it over.
  const hold = (): Promise<boolean> => leases.take(job, 5_000)
  while (!(await hold())) await sleep(50)
  /** Nobody catches it: the test that runs has failed, whatever it finds. */
  const renew = async (): Promise<void> => {
    if (!(await hold().catch(() => true))) throw new Error(`the service has come first: it has the lease of ${job}`)
  }
  const holding = setInterval(() => void renew(), 1_000)
  t.teardown(() => clearInterval(holding))
}
