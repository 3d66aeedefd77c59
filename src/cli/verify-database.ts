/** Records wherever they are: those of a service that is set up here, or any database, as one that a dump was loaded into. */
import { pino } from 'pino'

import type { Verified } from '../auditor/findings.ts'
import { type RecordsVerification, verifyRecords } from '../auditor/records.ts'
import { withCertificates } from '../auditor/verify.ts'
import type { Config } from '../config/config.ts'
import { faultOfPostgresUrl } from '../config/postgres-url.ts'
import { type Database, openDatabase } from '../db/database.ts'
import { withRollRows } from '../db/log-rows.ts'
import { assertMigrated } from '../db/migrate.ts'
import { Failure } from '../lib/failure.ts'
import type { Log } from '../log.ts'
import { explainDatabase, explainUnavailable } from './database-fault.ts'
import { withDatabase } from './with-records.ts'

type Wanted = Omit<RecordsVerification, 'rows' | 'certificates'>

export const verifyDatabase = (
  place: string | { readonly config: Config; readonly log: Log },
  wanted: Wanted,
): Promise<Verified> => {
  const verify = (db: Database): Promise<Verified> =>
    withCertificates((certificates) => withRollRows(db, (rows) => verifyRecords({ ...wanted, rows, certificates })))
  return typeof place === 'string'
    ? withUrl(place, verify)
    : withDatabase(place.config, place.log, verify, { patient: true })
}

const withUrl = async <T>(url: string, work: (db: Database) => Promise<T>): Promise<T> => {
  // It may hold a password, so it is not shown.
  const fault = faultOfPostgresUrl(url)
  if (fault !== undefined)
    throw new Failure('usage', `--database is not like postgresql://role@host/name: it ${fault}.`)
  const log = pino({ level: 'warn' }, pino.destination(2))
  const db = openDatabase({ url, max: 1, log, applicationName: 'chancery roll verify', patient: true })
  try {
    await assertMigrated(db).catch(explainDatabase({ name: '--database', url }))
    return await work(db)
  } catch (error) {
    return explainUnavailable(error)
  } finally {
    await db.close()
  }
}
