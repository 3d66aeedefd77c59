/**
 * The records of the cycle: intents, outcomes, entries, names. Everything that many requests do at once is one statement
 * over their columns (reference: one statement instead of four gained 11 to 18 %), run by a group-commit batch.
 */

import { setTimeout as sleep } from 'node:timers/promises'

import type {
  Enrolled,
  Enrolment,
  Intent,
  IntentEnd,
  IssuedRow,
  PriorRequest,
  Recorder,
  RollHead,
} from '../ca/issuance/recorder.ts'
import type { Meter } from '../ca/meter.ts'
import { isProblem, Problem } from '../errors.ts'
import { openBatch } from '../lib/batch.ts'
import { withDeadline } from '../lib/timeout.ts'
import type { KeyStanding } from '../policy/check.ts'
import type { Database, Statement } from './database.ts'
import { constraintOf, isOfServer } from './errors.ts'
import { type IntentsDeps, insertIntents, selectKeyStanding } from './intents.ts'
import { keyOwnerOf } from './origins.ts'
import { type EnrolmentDeps, enrol, isUnavailable, retryPausesMs } from './outcomes.ts'
import { openQuotas } from './quotas.ts'
import { openRefusals } from './rejections.ts'

export interface RecorderDeps extends EnrolmentDeps, Pick<IntentsDeps, 'dbClock'> {
  readonly meter: Meter
  readonly clock: () => Date
  readonly newId: () => string
  readonly refusalsPerMinute: number
  /** Signs the head that a batch has made. */
  readonly sign?: (head: RollHead) => Promise<unknown>
}

export const openRecorder = (deps: RecorderDeps): Recorder & { close(): Promise<void> } => {
  const { db, meter } = deps
  // A batch has a price, whatever its size, on both sides: intents wait for those whose draft is under way (with 32 clients 16
  // of them go together instead of 11, with 128 33 instead of 25).
  const intents = openBatch({
    run: (batch: readonly Intent[]) => insertIntents(deps, batch),
    max: maxBatch,
    lanes: 1,
    isolate: isOfOneItem,
    observe: (size) => meter.batch('intent', size),
    gather: { enough: 24, patienceMs: 4 },
  })
  const quotas = openQuotas({
    ...{ db, meter, max: maxBatch, isolate: isOfOneItem },
    insert: (tx, batch) => insertIntents({ ...deps, db: tx }, batch),
  })
  const recordIntent = ({ limitedBy, ...intent }: Intent): Promise<IntentEnd> =>
    limitedBy ? quotas.add({ ...intent, limitedBy }) : intents.add(intent)
  const enrolments = openBatch({
    run: (batch: readonly Enrolment[]) => enrol(deps, batch),
    max: maxBatch,
    lanes: 1,
    isolate: isOfOneItem,
    observe: (size) => meter.batch('record', size),
    after: (ended) => untilSigned(deps, ended),
  })
  const lookups = openBatch({
    run: (batch: readonly RequestName[]) => selectRequests(db, batch),
    max: maxBatch,
    lanes: 2,
    observe: (size) => meter.batch('replay', size),
  })
  const refusals = openRefusals(deps)

  return {
    findRequest: async (principal, key) => (await lookups.add({ principal, key })) ?? undefined,
    expectIntent: intents.expect,
    recordIntent: (intent) => recordIntent(intent).catch((error: unknown) => failIntent(deps, intent, error)),
    keyStanding: async (keySha256, principal, origin) => {
      const values = [keySha256, principal, keyOwnerOf(origin)]
      const { rows } = await db.query<{ standing: KeyStanding }>(selectKeyStanding, values)
      return rows[0]?.standing ?? 'held'
    },
    recordUnsigned: (intent) => insertUnsigned(deps, intent),
    recordCertificate: (enrolment) => enrolments.add(enrolment),
    recordRefusal: refusals.add,
    drain: async () => {
      await Promise.all([intents.drain(), quotas.drain(), enrolments.drain(), lookups.drain(), refusals.drain()])
    },
    close: refusals.close,
  }
}

/**
 * Nothing is answered before its checkpoint, and a batch that was recorded meanwhile would only wait for the next: those who
 * come until then go together (at 128 clients 40 of them instead of 26). A signature that is late keeps nobody from the records.
 */
const untilSigned = async ({ sign }: RecorderDeps, ended: readonly (Enrolled | Error)[]): Promise<void> => {
  const head = ended.find((one): one is Enrolled => !(one instanceof Error))?.inclusion?.head
  if (!head || !sign) return
  const signed = sign(head).catch(() => {})
  await withDeadline(signed, longestSigningMs)
}

// Replay ------------------------------------------------------------------------------------------------------------

interface RequestName {
  readonly principal: string
  readonly key: string
}

interface PriorRow extends CertificateRow {
  readonly principal: string
  readonly key: string
  readonly digest: Buffer
  readonly attempts: number
  readonly is_asked: boolean
  readonly open: boolean
  readonly serial: Buffer | null
}

interface CertificateRow {
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly issuer: string
  readonly profile: string
  readonly profile_version: number
  readonly not_before: Date
  readonly not_after: Date
  readonly index: number
  readonly leaf_hash: Buffer
}

/**
 * `limit 1` keeps each a walk down an index, whatever the planner believes of a table that grows (but for what people were
 * asked: in a young table it may walk along all that was asked for the principal). What has become a certificate is answered,
 * whoever was asked.
 */
const selectRequestsStatement: Statement = {
  name: 'select_requests',
  pool: 'issuing',
  text: `
    select asked.principal, asked.key, coalesce(i.digest, r.digest) as digest, coalesce(i.attempt, 0) as attempts,
      r.digest is not null as is_asked, i.serial is not null and o.serial is null as open,
      c.serial, i.tbs, o.signature, i.issuer, i.profile, i.profile_version, o.not_before, o.not_after, c.index, c.leaf_hash
    from json_to_recordset($1::json) as asked (principal text, key text)
    left join lateral (
      select * from intents where principal = asked.principal and idempotency_key = asked.key order by attempt desc limit 1
    ) i on true
    left join lateral (select * from outcomes where serial = i.serial limit 1) o on true
    left join lateral (
      select o.serial, index, leaf_hash from entries where o.kind = 'certificate' and index = o.entry limit 1
    ) c on true
    left join lateral (
      select digest from approval_requests
      where o.kind is distinct from 'certificate' and principal = asked.principal and idempotency_key = asked.key limit 1
    ) r on true
    where i.serial is not null or r.digest is not null`,
}

const selectRequests = async (db: Database, batch: readonly RequestName[]): Promise<(PriorRequest | null)[]> => {
  const { rows } = await db.query<PriorRow>(selectRequestsStatement, [JSON.stringify(batch)])
  const found = new Map(rows.map((row) => [`${row.principal}\0${row.key}`, priorOf(row)]))
  return batch.map(({ principal, key }) => found.get(`${principal}\0${key}`) ?? null)
}

const priorOf = (row: PriorRow): PriorRequest => ({
  digest: row.digest,
  attempts: row.attempts,
  open: row.open,
  isAsked: row.is_asked,
  ...(row.serial && { certificate: issuedOf(row, row.serial) }),
})

const issuedOf = (row: CertificateRow, serial: Buffer): IssuedRow => ({
  serial,
  tbs: row.tbs,
  signature: row.signature,
  issuer: row.issuer,
  profile: { name: row.profile, version: row.profile_version },
  notBefore: row.not_before,
  notAfter: row.not_after,
  index: row.index,
  leafHash: row.leaf_hash,
})

// Intents -----------------------------------------------------------------------------------------------------------

/**
 * The commit may have happened or not; the key was not touched either way. The intent is ended as soon as the database
 * answers again, so that a retry under the same key need not wait for the reconciler.
 */
const failIntent = (deps: RecorderDeps, intent: Intent, error: unknown): 'taken' => {
  if (isUnavailable(error)) void insertUnsigned(deps, intent)
  const constraint = constraintOf(error)
  // In the moment between the look for its key and this.
  if (constraint === 'intents_not_asked') return 'taken'
  if (constraint === 'intents_approved')
    throw new Problem('approval.closed', 'It has ended, its time is over, or somebody may not approve it any more.')
  throw error
}

const insertUnsignedStatement = {
  name: 'insert_unsigned',
  text: `
    insert into outcomes (serial, kind, at)
    select serial, 'unsigned', clock_timestamp() from intents where serial = $1
    on conflict (serial) do nothing`,
}

const insertUnsigned = async ({ db, log }: RecorderDeps, intent: Intent): Promise<void> => {
  for (const pause of retryPausesMs) {
    try {
      await db.query(insertUnsignedStatement, [intent.serial])
      return
    } catch (error) {
      // Damaged files are the same a second later.
      if (!isUnavailable(error) || isOfServer(error)) {
        log.warn({ event: 'intent.unsigned_failed', err: error }, 'an intent stays open until the reconciler ends it')
        return
      }
      await sleep(pause)
    }
  }
}

/** The database refused what one item holds; the others are innocent. */
const isOfOneItem = (error: unknown): boolean => !isProblem(error)

const maxBatch = 128
/** Milliseconds that the records wait for a checkpoint. */
const longestSigningMs = 100
