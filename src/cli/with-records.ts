/** For commands that work beside the service, on the same records. */
import { stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'

import type { Config } from '../config/config.ts'
import { databaseClock } from '../db/clock.ts'
import { type Database, type DatabaseOptions, openDatabase } from '../db/database.ts'
import { openEmbedded } from '../db/embedded/embedded.ts'
import { openRollWriter, type RollWriter } from '../db/log.ts'
import { assertMigrated } from '../db/migrate.ts'
import { Failure } from '../lib/failure.ts'
import type { Log } from '../log.ts'
import { codec } from '../server/codec.ts'
import { assertSameRecords, assertWhole, readAnchor } from '../server/log-checks.ts'
import { explainDatabase, explainRecords, explainUnavailable } from './database-fault.ts'
import { explainStart } from './start-fault.ts'

/** Of a service that is set up here. */
export type LoadSettings = () => Promise<{ readonly config: Config; readonly log: Log }>

export interface CommandRecords {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
}

/** The records as the service has them, and no others. */
export const withRecords = <T>(
  config: Config,
  log: Log,
  work: (records: CommandRecords) => Promise<T>,
  assertRecords = assertSameRecords,
): Promise<T> =>
  withDatabase(config, log, async (db) => {
    const clock = databaseClock(() => new Date(), config.limits.clockToleranceMs)
    const seen = await readAnchor(config).catch(explainRecords)
    const roll = openRollWriter(db, codec, clock, seen)
    await assertRecords(db, config, seen)
      .then(() => assertWhole(roll))
      .catch(explainRecords)
    return work({ db, roll, log })
  })

/** Whatever is there. An embedded server that serves another is left as it is, and none is made. */
export const withDatabase = async <T>(
  config: Config,
  log: Log,
  work: (db: Database) => Promise<T>,
  more: Pick<DatabaseOptions, 'patient'> = {},
): Promise<T> => {
  const embedded = config.database.url === undefined ? await openExisting(config, log) : undefined
  const url = config.database.url ?? embedded?.servingUrl ?? ''
  const { preparedStatements } = config.database
  const db = openDatabase({ url, max: 2, log, applicationName: 'chancery command', preparedStatements, ...more })
  try {
    await assertMigrated(db).catch(explainDatabase({ name: 'CHANCERY_DATABASE_URL', url }))
    return await work(db)
  } catch (error) {
    return explainUnavailable(error)
  } finally {
    await db.close()
    await embedded?.stop()
  }
}

const openExisting = async ({ dataDir }: Config, log: Log) => {
  await stat(join(dataDir, 'postgres', 'cluster')).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Failure(
      'usage',
      code === 'EACCES'
        ? `${dataDir} is not open to this account (EACCES): run the command as the one that the service runs as.`
        : `There are no records in ${dataDir}: set CHANCERY_DATABASE_URL or CHANCERY_DATA as the service has them.`,
    )
  })
  return openEmbedded({ dataDir, log }).catch(explainStart({ dataDir }))
}

/** `os:` and the account, or who has become it by sudo. Never a principal: these have other names. */
export const operator = (): string => `os:${process.env['SUDO_USER'] || account()}`

/** In a container it may have a number only. */
const account = (): string => {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? 'unknown')
  }
}
