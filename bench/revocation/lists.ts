/**
 * Publishing: one shard of 100,000 entries, and a million revocations over 1,024 shards. In this process, over the
 * records of a scratch service, by the publisher that the service has.
 */
import { hash } from 'node:crypto'
import { monitorEventLoopDelay } from 'node:perf_hooks'

import { openCrlPublisher } from '../../src/ca/revocation/crl.ts'
import { loadConfig } from '../../src/config/config.ts'
import { openCrlStore } from '../../src/db/crls.ts'
import { openTurns } from '../../src/lib/yield.ts'
import { openKeyed } from '../../src/server/issuers.ts'
import { openStores } from '../../src/server/stores.ts'
import { openInlineKeys } from '../../test/helpers/keys.ts'
import { quiet } from '../../test/helpers/log.ts'
import { silentMeter } from '../../test/helpers/meter.ts'
import { withClient } from '../place.ts'
import { call } from '../request.ts'
import { fillScratch } from '../scratch.ts'
import { openChancery } from '../targets/chancery.ts'
import type { Plan } from './plan.ts'

export interface ListsRow {
  readonly revoked: number
  readonly shards: number
  readonly seconds: number
  /** All lists together. */
  readonly octets: number
  /** Milliseconds by which the event loop turned late, at most. */
  readonly loopMax: number
  /** MiB more than before, at most. */
  readonly memory: number
}

export const measureLists = async ({ place, sample, options, tell }: Plan): Promise<readonly ListsRow[]> => {
  const target = await openChancery({ place, sample, name: 'lists' })
  const { url, ca, headers, body, database, dataDir = '' } = target
  const { text } = await call({ url, ca, method: 'POST', headers, body })
  const { superuserUrl = '', servingUrl = '', ownerUrl = '' } = database ?? {}
  const many = options.certificates > 0 ? options.certificates : 1_000_000
  // Nobody else is to publish meanwhile.
  await target.close()
  await fillScratch(target, JSON.parse(text).serial, { certificates: many, tell })
  const config = await loadConfig({
    CHANCERY_DATA: dataDir,
    CHANCERY_DATABASE_URL: servingUrl,
    CHANCERY_MIGRATION_URL: ownerUrl,
  })
  const stores = await openStores({ config, databaseUrl: servingUrl, log: quiet })
  const rows: ListsRow[] = []
  try {
    for (const [revoked, shards] of [
      [Math.min(100_000, many), 1],
      [many, 1_024],
    ] as const) {
      await prepare(superuserUrl, revoked, shards)
      rows.push(await publish({ ...stores, config }, revoked, shards))
      tell(`${revoked} revocations over ${shards} shards: ${rows.at(-1)?.seconds.toFixed(2)} s`)
    }
  } finally {
    stores.policies.close()
    await stores.db.close()
  }
  return rows
}

/** By the certificates' own entries, which are before the end of the roll like any other. */
const prepare = (superuserUrl: string, revoked: number, shards: number): Promise<void> =>
  withClient(superuserUrl, async (client) => {
    for (const table of ['issuers', 'revocations', 'crls'])
      await client.query(`alter table ${table} disable trigger user`)
    await client.query('truncate revocations, crls, crl_files')
    await client.query(`update issuers set shards = $1 where name = 'default'`, [shards])
    await client.query(
      `insert into revocations (entry, serial, change, reason, revoked_at, issuer, shard, not_after, certificate, by)
       select entry, serial, 'revoked', 'superseded', now(), issuer, entry % $2, now() + interval '30 days', entry, 'bench'
       from certificates where issuer = 'default' order by entry desc limit $1`,
      [revoked, shards],
    )
    for (const table of ['issuers', 'revocations', 'crls'])
      await client.query(`alter table ${table} enable trigger user`)
    await client.query('vacuum analyze revocations')
  })

type Stores = Awaited<ReturnType<typeof openStores>>

const publish = async (stores: Stores, revoked: number, shards: number): Promise<ListsRow> => {
  const { db, roll, dbClock, config } = stores
  const keys = await openInlineKeys(config)
  const issuers = await openKeyed(stores, keys, silentMeter)
  let octets = 0
  let listed = 0
  const failures: unknown[] = []
  const publisher = openCrlPublisher({
    store: openCrlStore({ db, roll }),
    issuers: { all: () => issuers.all().filter(({ issuer }) => issuer.name === 'default') },
    times: config.crl,
    successions: 0,
    clock: dbClock.now,
    assertClock: () => {},
    chance: () => 1,
    sha256: (bytes) => hash('sha256', bytes, 'buffer'),
    nextTurn: openTurns(),
    mayGoOn: async () => true,
    elapsedMs: () => performance.now(),
    published: (lists) => {
      for (const list of lists) {
        octets += list.der.length
        listed += list.revoked
      }
    },
    failed: (_issuer, error) => failures.push(error),
  })
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const before = process.memoryUsage().rss
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss)
  }, 20)
  delay.enable()
  const began = performance.now()
  await publisher.run()
  const seconds = (performance.now() - began) / 1000
  delay.disable()
  clearInterval(watch)
  await issuers.close()
  if (failures.length > 0) throw failures[0]
  if (listed !== revoked) throw new Error(`${listed} of ${revoked} revocations are on lists`)
  return { revoked, shards, seconds, octets, loopMax: delay.max / 1e6 - 1, memory: (most - before) / 2 ** 20 }
}
