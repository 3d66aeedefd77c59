/** A replica below its listeners: its stores over a database and a data folder, bootstrapped as `serve` does it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { bootstrap } from '../../src/cli/bootstrap.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import type { Keyring } from '../../src/keys/keyring.ts'
import { openStores, type Stores } from '../../src/server/stores.ts'
import { openTestDatabase, type TestDatabase } from './database.ts'
import { openInlineKeys } from './keys.ts'
import { quiet } from './log.ts'

export interface Replica {
  readonly database: TestDatabase
  readonly config: Config
  readonly stores: Stores
  readonly keys: Keyring
}

export interface ReplicaOptions {
  /** Adds or changes settings. */
  readonly env?: Readonly<Record<string, string>>
  /** Shares the database and the data folder of this one. */
  readonly beside?: Replica
  readonly clock?: () => Date
}

interface Teardown {
  teardown(close: () => Promise<void>): void
}

export const openReplica = async (t: Teardown, { env = {}, beside, clock }: ReplicaOptions = {}): Promise<Replica> => {
  const database = beside?.database ?? (await openTestDatabase(t))
  const data = beside?.config.dataDir ?? (await mkdtemp(join(tmpdir(), 'chancery-replica-')))
  if (!beside) t.teardown(() => rm(data, { recursive: true, force: true }))
  const config = await loadConfig({
    CHANCERY_DATA: data,
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_MIGRATION_URL: database.ownerUrl,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    ...env,
  })
  const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet, ...(clock && { clock }) })
  t.teardown(async () => {
    stores.policies.close()
    // A service over these stores has closed them itself.
    await stores.db.close().catch(() => {})
  })
  const keys = await openInlineKeys(config)
  await bootstrap(stores, keys)
  return { database, config, stores, keys }
}
