/** Limits of requests, put together: what instances share of them, and how many instances there are. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { openPrincipalLimits, type PrincipalLimits } from '../ca/access/principal-limits.ts'
import type { Config } from '../config/config.ts'
import { openShares } from '../db/rate-buckets.ts'
import type { Job } from './jobs/schedule.ts'
import type { Stores } from './stores.ts'

export interface LimitSide {
  readonly http: {
    readonly principalLimits: PrincipalLimits
    readonly addressLimits: Config['limits']['address']
    readonly proxies: Config['proxies']
    /** As it was known last: while the database is away, as many as there were. */
    readonly replicas: () => number
  }
  readonly jobs: readonly Job[]
  /** Leaves what this instance had to the others. */
  close(): Promise<void>
}

export const openLimitSide = async ({ db, metrics, clock, config }: Stores): Promise<LimitSide> => {
  const shares = openShares(db, randomUUID())
  let alive = await shares.note()
  const principalLimits = openPrincipalLimits({
    shares,
    now: () => performance.now(),
    clock,
    sleep,
    limited: metrics.limited,
  })
  return {
    http: { principalLimits, addressLimits: config.limits.address, proxies: config.proxies, replicas: () => alive },
    jobs: [
      {
        name: 'replicas',
        everyMs: 2_000,
        run: async () => {
          alive = await shares.note()
        },
      },
      { name: 'limits', everyMs: 3_000, run: principalLimits.renew },
    ],
    close: () => shares.forget(),
  }
}
