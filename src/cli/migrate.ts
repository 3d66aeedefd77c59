/** `chancery migrate`: brings the schema up to date as its owner, and gives the serving role its rights. */
import { type Config, roleOf } from '../config/config.ts'
import { openDatabase } from '../db/database.ts'
import { migrate } from '../db/migrate.ts'
import { faultsOfRights, ownsTables } from '../db/safety.ts'
import { Failure } from '../lib/failure.ts'
import type { Log } from '../log.ts'
import { type DatabaseSetting, explainDatabase } from './database-fault.ts'
import { explainMigration } from './migration-fault.ts'

/** Resolves to the schema's version. Also makes the partitions of the months to come, and drops what is past retention. */
export const runMigrate = async (config: Config, log: Log): Promise<number> => {
  const { url, migrationUrl } = config.database
  if (url === undefined)
    throw new Failure(
      'usage',
      'The embedded PostgreSQL is migrated by "chancery serve"; set CHANCERY_DATABASE_URL for another one.',
    )
  if (config.mode === 'production' && migrationUrl === undefined)
    throw new Failure(
      'usage',
      'CHANCERY_MIGRATION_URL is not set: production migrates as the role that owns the tables.',
    )
  const ownerUrl = migrationUrl ?? url
  const version = await migrateFor(url, config, log)
  const setting = settingOf(url, config)
  await maintain(ownerUrl, config, log).catch(explainMigration(setting)).catch(explainDatabase(setting))
  if (ownerUrl !== url) await tellRights(ownerUrl, roleOf(url), config, log)
  return version
}

/** Whoever owns the tables need not own the database, and then cannot take back what it gives to everybody. */
const tellRights = async (ownerUrl: string, role: string, { database }: Config, log: Log): Promise<void> => {
  const { preparedStatements } = database
  const db = openDatabase({ url: ownerUrl, max: 1, log, applicationName: 'chancery migrate', preparedStatements })
  try {
    for (const fault of await faultsOfRights(db, role))
      log.warn({ event: 'migrate.rights', role }, `${fault}: production does not start so`)
  } finally {
    await db.close()
  }
}

/** Migrates as the owner of the tables, for the role that serves by `url`. Rejects with a sentence. */
export const migrateFor = async (url: string, config: Config, log: Log): Promise<number> => {
  const setting = settingOf(url, config)
  const servingRole = roleOf(url)
  if (servingRole === '')
    throw new Failure(
      'usage',
      'CHANCERY_DATABASE_URL names no role, and neither do PGUSER and USER: name there the one that serves.',
    )
  return migrate({ ownerUrl: setting.url, servingRole, log })
    .catch(explainMigration(setting))
    .catch(explainDatabase(setting))
}

/** Whose rights change the schema: where its URL was said, and what it is. */
export const settingOf = (url: string, { database: { migrationUrl = url } }: Config): DatabaseSetting => ({
  name: migrationUrl === url ? 'CHANCERY_DATABASE_URL' : 'CHANCERY_MIGRATION_URL',
  url: migrationUrl,
})

/**
 * Makes the partitions of the months to come, and drops what is past retention or has no use any more, as the tables' owner.
 * What is old is so by the database's clock, and what was dropped never comes back: while that clock is far ahead of ours,
 * nothing is dropped, and this rejects once all else is done.
 */
export const maintain = async (
  ownerUrl: string,
  { retention, database }: Config,
  log: Log,
  clock = () => new Date(),
): Promise<void> => {
  const { preparedStatements } = database
  const db = openDatabase({ url: ownerUrl, max: 1, log, applicationName: 'chancery maintenance', preparedStatements })
  try {
    const { rows } = await db.query<{ now: Date }>({ text: 'select clock_timestamp() as now' })
    const aheadMs = (rows[0]?.now.getTime() ?? Number.POSITIVE_INFINITY) - clock().getTime()
    const isWrong = aheadMs > mostAheadMs
    const { refusalsDays, accessesDays } = isWrong ? keepingAll : retention
    await db.query({ text: 'select maintain_refusals(make_interval(days => $1::integer))' }, [refusalsDays])
    await db.query({ text: 'select maintain_accesses(make_interval(days => $1::integer))' }, [accessesDays])
    if (isWrong)
      throw new Failure(
        'later',
        `The database's clock is ${Math.round(aheadMs / 60_000)} minutes ahead of ours, so nothing that is past retention was dropped: set right whichever is wrong; "chancery migrate" goes on where it ended.`,
      )
    await db.query({ text: 'select maintain_spent_tokens()' })
  } finally {
    await db.close()
  }
}

/** Whether there is anything that `maintain` may do by this URL. */
export const mayMaintain = async (url: string, { database }: Config, log: Log): Promise<boolean> => {
  const { preparedStatements } = database
  const db = openDatabase({ url, max: 1, log, applicationName: 'chancery maintenance', preparedStatements })
  return ownsTables(db).finally(db.close)
}

/** Milliseconds. What has no use any more is kept for an hour longer than that. */
const mostAheadMs = 3_600_000
/** For longer than there is anything. */
const keepingAll = { refusalsDays: 100_000, accessesDays: 100_000 }
