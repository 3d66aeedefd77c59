/** Limits of requests, put together, and how many instances share them. */
import { randomUUID } from 'node:crypto'

import { openPrincipalLimits, type PrincipalLimits } from '../ca/access/principal-limits.ts'
import type { Config } from '../config/config.ts'
import { openReplicas } from '../db/replicas.ts'
import type { Job } from './jobs/schedule.ts'
import type { Stores } from './stores.ts'

export interface LimitSide {
  readonly http: {
    readonly principalLimits: PrincipalLimits
    readonly addressLimits: Config['limits']['address']
    readonly proxies: Config['proxies']
    /** The last known number: while the database is away, as many as there were. */
    readonly replicas: () => number
  }
  readonly jobs: readonly Job[]
  /** Leaves the share of this instance to the others. */
  close(): Promise<void>
}

export const openLimitSide = async ({ db, metrics, clock, config }: Stores): Promise<LimitSide> => {
  const instances = openReplicas(db, randomUUID())
  let alive = await instances.note()
  const replicas = (): number => alive
  const principalLimits = openPrincipalLimits({
    replicas,
    now: () => performance.now(),
    clock,
    limited: metrics.limited,
  })
  return {
    http: { principalLimits, addressLimits: config.limits.address, proxies: config.proxies, replicas },
    jobs: [
      {
        name: 'replicas',
        everyMs: 2_000,
        run: async () => {
          alive = await instances.note()
        },
      },
    ],
    close: () => instances.forget(),
  }
}
