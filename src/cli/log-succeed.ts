/** `chancery roll adopt-database` and `chancery roll succeed`: what an operator accepts of records that are not as before. */
import { readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { reconcile } from '../ca/issuance/reconcile.ts'
import type { Config } from '../config/config.ts'
import { settings } from '../config/settings.ts'
import { failOpenRequests } from '../db/approvals.ts'
import { databaseClock } from '../db/clock.ts'
import type { Database } from '../db/database.ts'
import { openRollWriter, type RollWriter } from '../db/log.ts'
import { isSameDatabase, readDatabaseId, readStanding, serverOf } from '../db/log-opening.ts'
import { openIntents } from '../db/open-intents.ts'
import { isProblem } from '../errors.ts'
import { writePrivateFile } from '../keys/private-file.ts'
import { Failure } from '../lib/failure.ts'
import { syncFolder } from '../lib/fs.ts'
import type { Log } from '../log.ts'
import { codec } from '../server/codec.ts'
import { openKeys, providePassphrase } from '../server/keys.ts'
import { rollKeyOf } from '../server/log.ts'
import { assertSameRoll, readAnchor } from '../server/log-checks.ts'
import { openAnchorFile, readAnchorFile } from '../server/pinned-checkpoint.ts'
import type { Checkpoint } from '../tlog/checkpoint.ts'
import type { DatabaseAdopted, RollOpened } from '../tlog/entries.ts'
import { parseTbs } from '../x509/certificate.ts'
import { explainRecords } from './database-fault.ts'
import { explainStart } from './start-fault.ts'
import { operator, withDatabase, withRecords } from './with-records.ts'

/** Accepts that the same records are on another server; the reason is kept on the roll. Resolves to a sentence. */
export const runAdoptDatabase = async (config: Config, log: Log, reason: string | null = null): Promise<string> => {
  if (reason !== null && (reason.trim() === '' || reason.length > maxReason))
    throw new Failure('usage', `--reason says why in at most ${maxReason} characters.`)
  return withRecords(
    config,
    log,
    async ({ db, roll }) => {
      const { opened, database: before = null } = await readStanding(db)
      if (!opened) throw new Failure('usage', 'There is no roll in these records yet: they belong to no server.')
      const database = await readDatabaseId(db)
      const keep = async (): Promise<void> => keepSeen(config, { origin: opened.origin, ...(await roll.head()) })
      if (before === null ? database === null : isSameDatabase(before, database)) {
        await keep()
        return 'The records are in the database in which they were before: nothing to adopt.'
      }
      const event: DatabaseAdopted = { type: 'database.adopted', database, before, reason, by: operator() }
      await roll.change(async () => ({ events: [event], result: undefined }))
      await keep()
      return adopted(database, before)
    },
    assertSameRoll,
  )
}

const adopted = (database: string | null, before: string | null): string => {
  const [now, was] = [serverOf(database), serverOf(before)]
  return now !== undefined && now === was
    ? `The records are in the database ${database} (server and oid) from now on, and were in ${before}. See that nothing serves that one any more.`
    : `The records are on the database server ${now ?? 'that does not tell its number'} from now on, and were on ${was ?? 'one that did not tell its number'}.`
}

/**
 * Whoever starts on the server of before is told: it does not have the move. Where no checkpoint was ever kept here, a start
 * still has to be told that these are the right records.
 */
const keepSeen = async (config: Config, head: Checkpoint): Promise<void> => {
  const { anchor: path } = config.roll
  if (path === undefined || !(await readAnchor(config))) return
  try {
    const file = await openAnchorFile({ path })
    await file.write(head).finally(() => file.close())
  } catch (error) {
    const reason = (error as Error).message
    throw new Failure(
      'failed',
      `The move is on record, but not in the anchor ${path}: ${reason}. Let it be written, and run this again.`,
    )
  }
}

export interface Succession {
  /** Of the last checkpoint that was seen. */
  readonly from: Checkpoint
  readonly origin: string
  /** How many entries there are. */
  readonly size: number
  /** The records bear the new origin already, by the word of another replica: only the anchor here is still of the old one. */
  readonly isOnRecord: boolean
}

/**
 * Gives up the entries that are lost: the roll goes on under a new origin, whose first entry names the last checkpoint of
 * the old one. `confirm` is asked before anything is written. Resolves to a sentence.
 */
export const runSucceed = (
  config: Config,
  log: Log,
  origin: string,
  confirm: (succession: Succession) => Promise<boolean>,
): Promise<string> =>
  withDatabase(config, log, async (db) => {
    assertOrigin(origin)
    if (await isServed(db)) throw new Failure('conflict', 'Chancery runs on this database: stop every instance first.')
    const from = await readAnchor(config).catch(explainRecords)
    const anchor = config.roll.anchor
    if (!from || anchor === undefined)
      throw new Failure('usage', 'Nothing is known here of an earlier roll, so there is nothing to succeed.')
    // Whatever these records are, they are what there is.
    const roll = openRollWriter(
      db,
      codec,
      databaseClock(() => new Date(), config.limits.clockToleranceMs),
    )
    const { size } = await roll.head()
    const standing = await readStanding(db)
    const isOnRecord = standing.opened?.origin === origin
    // Where it was cut off when all was said, whoever runs it again has done right, and need not look for another origin.
    if (isOnRecord && from.origin === origin && (await readSucceeded(db)) && (await isWhole(db, config, from)))
      return `The roll goes on as ${origin} already, and it was said here: nothing is left to do.`
    await assertLost(db, config, { from, origin, isOnRecord })
    if (!(await confirm({ from, origin, size, isOnRecord })))
      throw new Failure('refused', 'Not confirmed. Nothing was changed.')
    if (!isOnRecord) await open({ db, roll, config, log }, origin, from)
    await failWaiting(db, roll)
    const kept = await setAside(anchor, from, { origin, ...(await roll.head()) })
    return `The roll goes on as ${origin}. What was seen of ${from.origin} is kept in ${kept}: show it to those who ask what is missing.`
  })

/**
 * Whether an instance has connections to these records, as far as the server tells. Those of one that has just ended are
 * there for a moment.
 */
const isServed = async (db: Database): Promise<boolean> => {
  for (let tries = 10; ; tries -= 1) {
    const { rows } = await db.query<{ served: boolean }>(selectServed)
    if (rows[0]?.served !== true) return false
    if (tries === 0) return true
    await sleep(200)
  }
}

const assertOrigin = (origin: string): void => {
  try {
    settings.rollOrigin.read(origin)
  } catch (error) {
    throw new Failure('usage', `--origin: ${JSON.stringify(origin)} ${(error as Error).message}.`)
  }
}

interface Asked {
  readonly from: Checkpoint
  readonly origin: string
  readonly isOnRecord: boolean
}

/** A roll of which nothing is lost has no successor. */
const assertLost = async (db: Database, config: Config, { from, origin, isOnRecord }: Asked): Promise<void> => {
  if (from.origin === origin)
    throw new Failure('usage', `The roll that was seen here is called ${origin} itself: choose another origin.`)
  if (isOnRecord) {
    const succeeds = await readSucceeded(db)
    if (succeeds?.origin === from.origin) return
    throw new Failure('usage', `The roll ${origin} on record does not succeed ${from.origin}: these are other records.`)
  }
  if (!(await isWhole(db, config, from))) return
  throw new Failure(
    'usage',
    `Nothing of ${from.origin} is lost: all ${from.size} entries that were seen are in the records.`,
  )
}

/** All that was seen is in the records. */
const isWhole = async (db: Database, config: Config, from: Checkpoint): Promise<boolean> => {
  const clock = databaseClock(() => new Date(), config.limits.clockToleranceMs)
  try {
    await openRollWriter(db, codec, clock, from).head()
    return true
  } catch (error) {
    if (isProblem(error, 'roll.inconsistent')) return false
    throw error
  }
}

const readSucceeded = async (db: Database): Promise<RollOpened['succeeds']> => {
  const { rows } = await db.query<{ body: string }>(selectOpened)
  return rows[0] ? (JSON.parse(rows[0].body) as RollOpened).succeeds : null
}

interface Opening {
  readonly db: Database
  readonly roll: RollWriter
  readonly config: Config
  readonly log: Log
}

const open = async ({ db, roll, config, log }: Opening, origin: string, from: Checkpoint): Promise<void> => {
  const keys = await openKeys(config, log)
  try {
    await providePassphrase({ db, roll, config })
    const key = await rollKeyOf(keys, config, origin).catch(explainStart(config))
    const succeeds = { origin: from.origin, size: from.size, root: Buffer.from(from.root).toString('base64') }
    const database = await readDatabaseId(db)
    const event: RollOpened = { type: 'roll.opened', origin, key, database, succeeds, by: operator() }
    // What nobody will end any more: a request of which there is an intent cannot end.
    await reconcile(
      openIntents(db, roll, (tbs) => parseTbs(tbs).notAfter),
      0,
    )
    await roll.change(async () => ({ events: [event], result: undefined }))
  } finally {
    await keys.close()
  }
}

/**
 * What was asked for before. Where it is cut off, the anchor is still the one of before, so that nothing is served; run again, it goes
 * on, and fails nothing that people were asked since.
 */
const failWaiting = async (db: Database, roll: RollWriter): Promise<void> => {
  const { rows } = await db.query<{ index: number }>(selectOpened)
  const before = rows[0]?.index ?? 0
  for (let from: number | undefined = 0; from !== undefined; ) {
    const span = { from, before }
    from = await roll.change(async (tx, time, index) => {
      const { events, next } = await failOpenRequests(tx, { time, index }, span, lostWord)
      return { events, result: next }
    })
  }
}

/**
 * The old anchor stays beside the new one, as evidence. Under its name there is always one of the two: where neither was, nobody
 * would know of the roll before, and any records would do.
 */
const setAside = async (path: string, from: Checkpoint, first: Checkpoint): Promise<string> => {
  const [kept, next] = [`${path}.${from.size}`, `${path}.next`]
  await keepBeside(path, kept, from)
  // Of a run that was cut off.
  await rm(next, { force: true })
  const file = await openAnchorFile({ path: next })
  await file.write(first).finally(() => file.close())
  await rename(next, path)
  await syncFolder(dirname(path))
  return kept
}

/** Of a run that was cut off it may be there. */
const keepBeside = async (path: string, kept: string, from: Checkpoint): Promise<void> => {
  const there = await readAnchorFile(kept)
  if (there === undefined) return writePrivateFile(kept, await readFile(path))
  if (there.origin !== from.origin || !Buffer.from(there.root).equals(from.root))
    throw new Failure('usage', `${kept} is there, and is of another roll: move it away, and run this again.`)
}

const selectOpened = { text: `select index, body from entries where type = 'roll.opened' order by index desc limit 1` }

const selectServed = {
  text: `
    select exists (
      select from pg_stat_activity
      where datname = current_database() and application_name = 'chancery' and pid <> pg_backend_pid()
    ) as served`,
}

/** It may have been turned down for good in what is lost. */
const lostWord = {
  code: 'approval.plan',
  reason: 'The end of the roll was lost, and with it what people may have decided about this request.',
}

/** As of the moves of an issuer. */
const maxReason = 1_000
