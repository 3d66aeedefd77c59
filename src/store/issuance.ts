/**
 * The records of the cycle: intents, outcomes, entries, names. Everything that many requests do at
 * once is one statement over one JSON parameter (reference: one statement instead of four gained 11 to 18 %), run by a
 * group-commit batch.
 */

import { hash } from 'node:crypto'

import { openBatch } from '../batch.ts'
import type { Meter } from '../ca/meter.ts'
import type { Enrolled, Enrolment, Intent, IssuedRow, PriorRequest, Recorder } from '../ca/recorder.ts'
import { isProblem, Problem } from '../errors.ts'
import type { KeyStanding } from '../policy/checks.ts'
import { originKeys, originText } from '../policy/origin.ts'
import type { Log } from '../telemetry.ts'
import { constraintOf, type Database, type Queryable } from './database.ts'
import { type Asked, type BookedIntent, bookedIntents, type IntentEnd, type NoRoom, openLimited } from './limit-uses.ts'
import { searchKey } from './names.ts'
import { openRefusals } from './refusals.ts'
import type { HeadMoved, RollWriter } from './roll.ts'

export interface RecorderDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly meter: Meter
  readonly log: Log
  readonly clock: () => Date
  readonly newId: () => string
  readonly refusalsPerMinute: number
}

export const openRecorder = (deps: RecorderDeps): Recorder & { close(): Promise<void> } => {
  const { db, meter } = deps
  const intents = openBatch({
    run: (batch: readonly Intent[]) => insertIntents(db, batch),
    max: maxBatch,
    lanes: 2,
    isolate: isOfOneItem,
    observe: (size) => meter.batch('intent', size),
  })
  // Apart, so that whoever has no limits waits for nobody who has.
  const booked = openLimited({
    ...{ db, meter, max: maxBatch, isolate: isOfOneItem },
    insert: (batch, asked) => insertBooked(db, batch, asked),
  })
  const recordIntent = (intent: Intent): Promise<IntentEnd> =>
    isBooked(intent) ? booked.add(intent) : intents.add(intent)
  const enrolments = openBatch({
    run: (batch: readonly Enrolment[]) => enrol(deps, batch),
    max: maxBatch,
    lanes: 1,
    isolate: isOfOneItem,
    observe: (size) => meter.batch('record', size),
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
    recordIntent: (intent) => recordIntent(intent).catch((error: unknown) => failIntent(deps, intent, error)),
    keyStanding: async (keySha256, principal) => {
      const values = [keySha256.toString('hex'), principal]
      const { rows } = await db.query<{ standing: KeyStanding }>(selectKeyStanding, values)
      return rows[0]?.standing ?? 'held'
    },
    recordUnsigned: (intent) => insertUnsigned(deps, intent),
    recordCertificate: (enrolment) => enrolments.add(enrolment),
    recordRefusal: refusals.add,
    drain: async () => {
      await Promise.all([intents.drain(), booked.drain(), enrolments.drain(), lookups.drain(), refusals.drain()])
    },
    close: refusals.close,
  }
}

// Replay ------------------------------------------------------------------------------------------------------------

interface RequestName {
  readonly principal: string
  readonly key: string
}

interface PriorRow {
  readonly principal: string
  readonly key: string
  readonly digest: Buffer
  readonly attempts: number
  readonly is_asked: boolean
  readonly open: boolean
  readonly serial: Buffer | null
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
 * `limit 1` keeps each a walk down an index, whatever the planner believes of a table that grows. What has become a
 * certificate is answered, whoever was asked.
 */
const selectRequestsStatement = {
  name: 'select_requests',
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

const issuedOf = (row: PriorRow, serial: Buffer): IssuedRow => ({
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
 * What is on record against the key `asked.spki`; null where nothing is. It is held where a principal other than
 * `asked.principal` has a certificate with it. The first and the last of its principals are the two ends of a range of one
 * index. By `exists`, the planner would read the whole table wherever most certificates are of few keys, since it expects
 * to find one of another principal soon; by `=` and min(), it would read along the principals for the same reason; and with
 * the kind beside it, it may take any other index of certificates while the table is new and has no statistics.
 */
const standingOfKey = (): string => {
  const end = (direction: 'asc' | 'desc'): string => `
  (select principal from outcomes
    where key_sha256 between decode(asked.spki, 'hex') and decode(asked.spki, 'hex')
    order by key_sha256 ${direction}, principal ${direction} limit 1)`
  return `
    case when exists (select from compromised_keys where key_sha256 = decode(asked.spki, 'hex')) then 'compromised'
      when ${end('asc')} < asked.principal or ${end('desc')} > asked.principal then 'held' end`
}

/**
 * Whoever finds the attempt of its request taken, its issuer moved, or something on record against its key or the
 * certificate that it renews, inserts nothing. Who was recorded is told only where not all were.
 */
const insertIntentsText = (booked?: typeof bookedIntents): string => `
    with ${booked?.steps ?? ''} asked as (
      select * from json_to_recordset($1::json) as r (principal text, key text, digest text, attempt integer, serial text,
        issuer text, states text, shard integer, profile text, version integer, tbs text, plan text, spki text, replaces text,
        approval uuid, origin text)
    ), issuers as materialized (
      select issuer, state_for_intent(issuer) as state from (select distinct issuer from asked) i
      ${booked ? `where ${booked.condition}` : ''}
    ), judged as materialized (
      select serial, case when not i.state = any (string_to_array(asked.states, ' ')) then 'moved'
        else coalesce(case when replaces is not null then standing_of_held(decode(replaces, 'hex')) end, ${standingOfKey()})
        end as obstacle
      from asked join issuers i using (issuer)
    ), added as (
      insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
        plan, replaces, first, approval, origin)
      select decode(serial, 'hex'), principal, key, attempt, decode(digest, 'hex'), issuer, shard, profile, version,
        decode(tbs, 'hex'), decode(plan, 'hex'), decode(replaces, 'hex'),
        (select coalesce(b.first, b.serial) from intents b where b.serial = decode(asked.replaces, 'hex')), approval, origin
      from asked
      where ${booked ? `${booked.condition} and` : ''} serial not in (select serial from judged where obstacle is not null)
      on conflict (principal, idempotency_key, attempt) where idempotency_key is not null do nothing
      returning serial
    )${booked?.uses ?? ''}
    select count(*)::integer as recorded,
      case when count(*) < $2::integer then string_agg(encode(serial, 'hex'), ' ') end as serials,
      case when count(*) < $2::integer then (select json_object_agg(serial, obstacle) from judged) end as obstacles
      ${booked?.answer ?? ''}
    from added`

const insertIntentsStatement = { name: 'insert_intents', text: insertIntentsText() }
const insertBookedStatement = { name: bookedIntents.name, text: insertIntentsText(bookedIntents) }

interface IntentsRecorded {
  readonly recorded: number
  readonly serials: string | null
  /** What stood against each serial. */
  readonly obstacles: Readonly<Record<string, Exclude<IntentEnd, 'recorded' | 'taken'> | null>> | null
}

const isBooked = (intent: Intent): intent is BookedIntent => intent.booking !== undefined

const insertIntents = async (db: Queryable, batch: readonly Intent[]): Promise<IntentEnd[]> => {
  const { rows } = await db.query<IntentsRecorded>(insertIntentsStatement, [intentsParameter(batch), batch.length])
  return intentEnds(batch, rows[0])
}

const insertBooked = async (
  db: Queryable,
  batch: readonly BookedIntent[],
  { ledgers, uses }: Asked,
): Promise<IntentEnd[] | NoRoom> => {
  const values = [intentsParameter(batch), batch.length, ledgers, uses]
  const { rows } = await db.query<IntentsRecorded & Partial<NoRoom>>(insertBookedStatement, values)
  return rows[0]?.ledgers ? { ledgers: rows[0].ledgers } : intentEnds(batch, rows[0])
}

const intentEnds = (batch: readonly Intent[], answer: IntentsRecorded | undefined): IntentEnd[] => {
  if (answer?.recorded === batch.length) return batch.map(() => 'recorded')
  const recorded = new Set(answer?.serials?.split(' '))
  return batch.map((intent) => {
    const serial = intent.serial.toString('hex')
    if (recorded.has(serial)) return 'recorded'
    return answer?.obstacles?.[serial] ?? 'taken'
  })
}

/** In one order of their requests: of two that have the same two, each could wait for the other. */
const intentsParameter = (batch: readonly Intent[]): string =>
  JSON.stringify((batch.length < 2 ? batch : batch.toSorted(byRequest)).map(intentParameter))

const byRequest = ({ request: a }: Intent, { request: b }: Intent): number =>
  compare(a.key ?? '', b.key ?? '') || compare(a.principal, b.principal)

const compare = (a: string, b: string): number => (a < b ? -1 : Number(a > b))

const selectKeyStanding = {
  name: 'select_key_standing',
  text: `select coalesce(${standingOfKey()}, 'free') as standing from (select $1::text as spki, $2::text as principal) as asked`,
}

const intentParameter = ({
  request,
  attempt,
  serial,
  issuer,
  states,
  shard,
  profile,
  tbs,
  plan,
  approval,
  keySha256,
  replaces,
  origin,
}: Intent): object => ({
  principal: request.principal,
  key: request.key,
  digest: request.digest.toString('hex'),
  attempt,
  serial: serial.toString('hex'),
  issuer,
  states: states.join(' '),
  shard,
  profile: profile.name,
  version: profile.version,
  tbs: tbs.toString('hex'),
  plan: plan.toString('hex'),
  // Left out where there is none.
  approval,
  spki: keySha256.toString('hex'),
  ...(replaces && { replaces: replaces.toString('hex') }),
  ...(origin && { origin: originText(origin) }),
})

/**
 * The commit may have happened or not; the key was not touched either way. The intent is ended as soon as the database
 * answers again, so that a retry under the same key need not wait for the reconciler.
 */
const failIntent = (deps: RecorderDeps, intent: Intent, error: unknown): 'taken' => {
  if (isUnavailable(error)) void insertUnsigned(deps, intent)
  const constraint = constraintOf(error)
  // In the moment between the look for its key and this.
  if (constraint === 'intents_not_asked') return 'taken'
  if (constraint === 'intents_approved') throw new Problem('approval.closed', 'It has ended, or its time is over.')
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
      if (!isUnavailable(error)) {
        log.warn({ event: 'intent.unsigned_failed', err: error }, 'an intent stays open until the reconciler ends it')
        return
      }
      await pauseFor(pause)
    }
  }
}

// Enrolment ---------------------------------------------------------------------------------------------------------

/**
 * Outcome, certificate, names, entry, subtrees: everything reads from `head`, so a head that moved inserts nothing. What
 * was stored is hashed before the commit, with the intent as it lies there: of that the roll will speak for ever.
 */
const enrolStatement = {
  name: 'enrol',
  text: `
    with asked as (
      select * from json_to_recordset($1::json) as r (place integer, serial text, idempotency text, signature text, leaf text,
        principal text, profile text, issuer text, subject text, key text, before timestamptz, after timestamptz, names json,
        origin_namespace text, origin_user text, origin_object text)
    ), head as (
      update roll set size = size + (select count(*) from asked), time = $3::timestamptz, root = $6::bytea
      where id = 1 and size = $2::bigint and root = $5::bytea and time <= $3::timestamptz
        and $3::timestamptz <= greatest(time, clock_timestamp() + make_interval(secs => $4::double precision / 1000))
      returning size
    ), entry as (
      insert into entries (index, type, time, leaf_hash, serial)
      select $2::bigint + place, 'certificate.issued', $3::timestamptz, decode(leaf, 'hex'), decode(serial, 'hex') from asked, head
      returning index, serial, leaf_hash
    ), subtree as (
      insert into subtrees (level, index, hash)
      select level, index, decode(hash, 'hex')
      from head, json_to_recordset($7::json) as r (level smallint, index bigint, hash text)
    ), outcome as (
      insert into outcomes (serial, kind, entry, at, signature, principal, idempotency_key, profile, issuer, subject,
        key_sha256, not_before, not_after, origin_namespace, origin_user, origin_object)
      select decode(serial, 'hex'), 'certificate', $2::bigint + place, $3::timestamptz, decode(signature, 'hex'),
        principal, idempotency, profile, issuer, subject, decode(key, 'hex'), before, after, origin_namespace, origin_user, origin_object
      from asked, head
      returning serial, signature
    ), name as (
      insert into certificate_names (serial, kind, name, entry)
      select decode(serial, 'hex'), n.k, n.n, $2::bigint + place
      from asked, head, json_to_recordset(asked.names) as n (k text, n text)
    )
    select (select count(*) from head)::integer as moved, clock_timestamp() as now,
      assert_stored((
        select sha256(string_agg(
          e.leaf_hash || (select i.tbs from intents i where i.serial = e.serial limit 1) || o.signature, '' order by e.index))
        from entry e join outcome o using (serial)
      ), $8::bytea)`,
}

/** Ends each enrolment: on the roll, ended by someone else, or unknown. */
const enrol = async (deps: RecorderDeps, batch: readonly Enrolment[]): Promise<(Enrolled | Error)[]> => {
  const results = new Map<Enrolment, Enrolled | Error>()
  let open = batch
  for (const pause of retryPausesMs) {
    try {
      const written = await deps.roll.append(
        open.map(({ event }) => event),
        (tx, place, leaves) =>
          tx.query<HeadMoved>(enrolStatement, [
            JSON.stringify(open.map((e, i) => parameterOf(e, i, leaves[i]))),
            place.size,
            place.time.toISOString(),
            place.toleranceMs,
            place.root,
            place.grown.root,
            place.grown.subtrees,
            storedDigest(open, leaves),
          ]),
      )
      open.forEach((enrolment, i) => {
        const place = written[i]
        if (place) results.set(enrolment, place)
      })
      open = []
      break
    } catch (error) {
      if (isRequestServed(error)) {
        // One of these, and nobody knows which. Alone, each is to blame for itself.
        for (const one of open) {
          const [result = outcomeUnknown()] = open.length === 1 ? [requestServed()] : await enrol(deps, [one])
          results.set(one, result)
        }
        break
      }
      const lost = isUnavailable(error)
      if (!lost && !isOutcomeTaken(error)) throw error
      deps.log.warn(
        { event: 'enrolment.looking', lost, size: open.length },
        'the outcome of a commit is unknown: looking',
      )
      if (lost) await pauseFor(pause)
      open = await settleKnown(deps, open, results)
      if (open.length === 0) break
    }
  }
  return batch.map((enrolment) => results.get(enrolment) ?? outcomeUnknown())
}

const storedDigest = (batch: readonly Enrolment[], leaves: readonly Buffer[]): Buffer => {
  const parts = batch.flatMap(({ intent, signature }, i) => [leaves[i] as Buffer, intent.tbs, signature])
  return hash('sha256', Buffer.concat(parts), 'buffer')
}

const outcomeUnknown = (): Problem =>
  new Problem('db.unavailable', 'Whether the certificate was recorded is not known; it was not handed out.', {
    retryAfter: 5,
  })

/** Its intent stays open, so that the reconciler puts it on the roll as abandoned: it was signed. */
const requestServed = (): Problem =>
  new Problem('issuance.abandoned', 'Another attempt of this request has become its certificate.', { retryAfter: 1 })

const parameterOf = (enrolment: Enrolment, place: number, leaf: Buffer | undefined): object => ({
  place,
  serial: enrolment.event.serial,
  idempotency: enrolment.intent.request.key,
  signature: enrolment.signature.toString('hex'),
  leaf: leaf?.toString('hex'),
  principal: enrolment.event.principal,
  profile: enrolment.intent.profile.name,
  issuer: enrolment.intent.issuer,
  subject: enrolment.subject,
  key: enrolment.keySha256.toString('hex'),
  before: enrolment.notBefore,
  after: enrolment.notAfter,
  names: enrolment.names.map((name) => ({ k: name.kind, n: searchKey(name) })),
  ...(enrolment.intent.origin && originKeys(enrolment.intent.origin)),
})

const selectOutcomesStatement = {
  name: 'select_outcomes',
  text: `
    select o.serial, o.kind, o.signature, e.index, e.leaf_hash
    from outcomes o left join entries e on e.index = o.entry
    where o.serial = any (select decode(s, 'hex') from json_array_elements_text($1::json) as s)`,
}

interface OutcomeRow {
  readonly serial: Buffer
  readonly kind: string
  readonly signature: Buffer | null
  readonly index: number | null
  readonly leaf_hash: Buffer | null
}

/** Settles those whose outcome is in the records, ours or not; returns the rest. */
const settleKnown = async (
  { db }: RecorderDeps,
  open: readonly Enrolment[],
  results: Map<Enrolment, Enrolled | Error>,
): Promise<readonly Enrolment[]> => {
  let rows: readonly OutcomeRow[]
  try {
    rows = (
      await db.query<OutcomeRow>(selectOutcomesStatement, [JSON.stringify(open.map(({ event }) => event.serial))])
    ).rows
  } catch (error) {
    if (isUnavailable(error)) return open
    throw error
  }
  const bySerial = new Map(rows.map((row) => [row.serial.toString('hex'), row]))
  return open.filter((enrolment) => {
    const row = bySerial.get(enrolment.event.serial)
    if (!row) return true
    results.set(enrolment, settled(row, enrolment))
    return false
  })
}

const settled = (row: OutcomeRow, { signature }: Enrolment): Enrolled | Problem =>
  row.kind === 'certificate' && row.signature?.equals(signature) && row.leaf_hash && row.index !== null
    ? { index: row.index, leafHash: row.leaf_hash }
    : new Problem('issuance.abandoned', 'The reconciler ended this issuance before its certificate was recorded.', {
        retryAfter: 1,
      })

/** The database refused what one item holds; the others are innocent. */
const isOfOneItem = (error: unknown): boolean => !isProblem(error)

/** The connection broke, or the server gave up: what was under way may have been committed or not. */
const isUnavailable = (error: unknown): boolean => isProblem(error, 'db.unavailable')

/** Somebody has ended one of these intents. */
const isOutcomeTaken = (error: unknown): boolean => constraintOf(error) === 'outcomes_pkey'

/** Another intent of the same request has become a certificate. */
const isRequestServed = (error: unknown): boolean => constraintOf(error) === 'outcomes_one_certificate'

const pauseFor = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))

const maxBatch = 128
/** About five seconds in all: a PostgreSQL that restarts is back by then. */
const retryPausesMs = [20, 50, 100, 200, 400, 600, 800, 1000, 1000, 1000]
