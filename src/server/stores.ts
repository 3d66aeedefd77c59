/** The stores over one database: what the service and the commands of operators share. */

import { Registry } from 'prom-client'

import { sentAlong } from '../ca/issuers/bundle.ts'
import type { Config } from '../config/config.ts'
import { renewedUrl } from '../config/postgres-url.ts'
import { openAccess } from '../db/access.ts'
import { openAccesses } from '../db/access-log.ts'
import { databaseClock } from '../db/clock.ts'
import { openDatabase } from '../db/database.ts'
import { openRollWriter } from '../db/log.ts'
import { assertMigrated } from '../db/migrate.ts'
import { openPolicies } from '../db/policies.ts'
import { openProviders } from '../db/providers.ts'
import { openRecords } from '../db/search/records.ts'
import { openTurnedDown } from '../db/write-failures.ts'
import { pooledRandom, timeOrderedIds } from '../keys/random.ts'
import { openParts } from '../lib/disposer.ts'
import type { Log } from '../log.ts'
import { openMetrics } from '../metrics.ts'
import { parseProvider } from '../policy/identity.ts'
import { parseProfile } from '../policy/profile.ts'
import { readNames } from '../x509/names-kept.ts'
import { codec } from './codec.ts'
import { assertSameRecords, assertWhole, readAnchor } from './log-checks.ts'

export interface StoresDeps {
  readonly config: Config
  /** The serving role's. */
  readonly databaseUrl: string
  readonly log: Log
  /** Another in tests. */
  readonly clock?: () => Date
}

export type Stores = Awaited<ReturnType<typeof openStores>>

/** The stores over one database: what the service and the operator's commands share. */
export const openStores = async (deps: StoresDeps) => {
  const { config, log } = deps
  const clock = deps.clock ?? (() => new Date())
  const random = pooledRandom()
  const newId = timeOrderedIds(clock, random)
  const { poolSize, preparedStatements } = config.database
  const metrics = openMetrics(new Registry())
  const turnedDown = openTurnedDown()
  const db = openDatabase({
    url: deps.databaseUrl,
    renewedUrl: renewedUrl(config),
    max: poolSize,
    log,
    applicationName: 'chancery',
    preparedStatements,
    observe: (statement, seconds, failed, error) => {
      metrics.query(statement, seconds, failed)
      if (failed) turnedDown.failed(error, statement)
    },
  })
  return openParts(async (parts) => {
    parts.add(db.close)
    await assertMigrated(db)
    const dbClock = databaseClock(clock, config.limits.clockToleranceMs)
    const seen = await readAnchor(config)
    await assertSameRecords(db, config, seen)
    const roll = openRollWriter(db, codec, dbClock, seen)
    const { size } = await assertWhole(roll)
    if (!seen && size > 0) log.warn({ event: 'roll.unseen', size }, unseen)
    const access = openAccess({ db, roll, log, clock, random, newId })
    const policies = await openPolicies({
      ...{ db, roll, log },
      parse: (document, version) => parseProfile(document, { version }),
    })
    parts.add(policies.close)
    const providers = await openProviders({
      ...{ db, roll, log },
      parse: (document, version) => parseProvider(document, { version }),
    })
    parts.add(providers.close)
    const records = openRecords({ db, codec, namesOf: readNames, sentAlong })
    const accesses = openAccesses({ db, newId })
    return {
      metrics,
      db,
      dbClock,
      turnedDown,
      roll,
      access,
      accesses,
      policies,
      providers,
      records,
      clock,
      random,
      newId,
      log,
      config,
      /** Once; again is nothing. */
      close: parts.close,
    }
  })
}

/** As on a new replica, or after its volume was lost. */
const unseen = 'no checkpoint was kept here before: an older database could not be told from this one'
