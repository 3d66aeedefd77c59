/** Enrolments: a signed certificate, its outcome, names, entry and place in the tree, in one transaction. */

import { setTimeout as sleep } from 'node:timers/promises'

import type { Enrolled, Enrolment } from '../ca/issuance/recorder.ts'
import { isProblem, Problem } from '../errors.ts'
import { inHalves } from '../lib/batch.ts'
import { sha256 } from '../lib/sha256.ts'
import type { Log } from '../log.ts'
import type { Name } from '../x509/names.ts'
import { keptNames } from '../x509/names-kept.ts'
import { columnsOf } from './columns.ts'
import type { Database, Statement } from './database.ts'
import { constraintOf, isOfServer, sqlState } from './errors.ts'
import type { HeadMoved, RollWriter } from './log.ts'
import { searchKey } from './names.ts'
import type { TurnedDown } from './write-failures.ts'

export interface EnrolmentDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly turnedDown: Pick<TurnedDown, 'recorded'>
  readonly log: Log
}

interface Row {
  readonly enrolment: Enrolment
  readonly leaf: Buffer | undefined
}

const columns = columnsOf<Row>([
  ['place', 'integer', (_row, place) => place],
  ['serial', 'bytea', ({ enrolment }) => enrolment.intent.serial],
  ['idempotency', 'text', ({ enrolment }) => enrolment.intent.request.key],
  ['signature', 'bytea', ({ enrolment }) => enrolment.signature],
  ['leaf', 'bytea', ({ leaf }) => leaf],
  ['principal', 'text', ({ enrolment }) => enrolment.event.principal],
  ['profile', 'text', ({ enrolment }) => enrolment.intent.profile.name],
  ['issuer', 'text', ({ enrolment }) => enrolment.intent.issuer],
  ['subject', 'text', ({ enrolment }) => enrolment.subject],
  ['key', 'bytea', ({ enrolment }) => enrolment.keySha256],
  ['before', 'timestamptz', ({ enrolment }) => enrolment.notBefore],
  ['after', 'timestamptz', ({ enrolment }) => enrolment.notAfter],
  ['origin_namespace', 'text', ({ enrolment }) => enrolment.intent.origin?.namespace],
  ['origin_user', 'text', ({ enrolment }) => enrolment.intent.origin?.user],
  ['origin_object', 'text', ({ enrolment }) => enrolment.intent.origin?.object?.uid],
  ['names', 'bytea', ({ enrolment }) => keptNames(enrolment.names)],
  ['version', 'integer', ({ enrolment }) => enrolment.intent.profile.version],
  ['delegated', 'boolean', ({ enrolment }) => Boolean(enrolment.intent.origin)],
])

interface NameRow {
  readonly place: number
  readonly serial: Buffer
  readonly name: Name
}

const names = columnsOf<NameRow>(
  [
    ['place', 'integer', ({ place }) => place],
    ['serial', 'bytea', ({ serial }) => serial],
    ['kind', 'text', ({ name }) => name.kind],
    ['name', 'text', ({ name }) => searchKey(name)],
  ],
  columns.next,
)

const placeOf = (i: number): string => `$${names.next + i}`
const places = {
  size: placeOf(0),
  time: placeOf(1),
  tolerance: placeOf(2),
  root: placeOf(3),
  grownRoot: placeOf(4),
  subtrees: placeOf(5),
  digest: placeOf(6),
} as const

/**
 * Outcome, certificate, names, entry, subtrees: everything reads from `head`, so a head that moved inserts nothing. What
 * was stored is hashed before the commit, with the intent as it lies there: of that the roll will speak for ever.
 */
const enrolStatement: Statement = {
  name: 'enrol',
  pool: 'issuing',
  text: `
    with asked as (
      select * from ${columns.from}
    ), head as (
      update roll set size = size + (select count(*) from asked), time = ${places.time}::timestamptz, root = ${places.grownRoot}::bytea
      where id = 1 and size = ${places.size}::bigint and root = ${places.root}::bytea and time <= ${places.time}::timestamptz
        and ${places.time}::timestamptz <= greatest(time, clock_timestamp() + make_interval(secs => ${places.tolerance}::double precision / 1000))
      returning size
    ), entry as (
      insert into entries (index, type, time, leaf_hash, serial)
      select ${places.size}::bigint + place, 'certificate.issued', ${places.time}::timestamptz, leaf, serial from asked, head
      returning index, serial, leaf_hash
    ), subtree as (
      insert into subtrees (level, index, hash)
      select level, index, decode(hash, 'hex')
      from head, json_to_recordset(${places.subtrees}::json) as r (level smallint, index bigint, hash text)
    ), outcome as (
      insert into outcomes (serial, kind, entry, at, signature, principal, idempotency_key, profile, issuer, subject,
        key_sha256, not_before, not_after, origin_namespace, origin_user, origin_object, names, profile_version, delegated)
      select serial, 'certificate', ${places.size}::bigint + place, ${places.time}::timestamptz, signature,
        principal, idempotency, profile, issuer, subject, key, before, after, origin_namespace,
        origin_user, origin_object, names, version, delegated
      from asked, head
      returning serial, signature
    ), name as (
      insert into certificate_names (serial, kind, name, entry)
      select serial, kind, name, ${places.size}::bigint + place from head, ${names.from}
    )
    select (select count(*) from head)::integer as moved, clock_timestamp() as now,
      assert_stored((
        select sha256(string_agg(
          e.leaf_hash || (select i.tbs from intents i where i.serial = e.serial limit 1) || o.signature, '' order by e.index))
        from entry e join outcome o using (serial)
      ), ${places.digest}::bytea)`,
}

/** Ends each enrolment: on the roll, ended by someone else, or unknown. */
export const enrol = async (deps: EnrolmentDeps, batch: readonly Enrolment[]): Promise<(Enrolled | Error)[]> => {
  const results = new Map<Enrolment, Enrolled | Error>()
  let open = batch
  let why: unknown
  for (const pause of retryPausesMs) {
    try {
      const written = await deps.roll.append(
        open.map(({ event }) => event),
        (tx, place, leaves) =>
          tx.query<HeadMoved>(enrolStatement, [
            ...columns.values(open.map((enrolment, i) => ({ enrolment, leaf: leaves[i] }))),
            ...names.values(namesOf(open)),
            place.size,
            place.time.toISOString(),
            place.toleranceMs,
            place.root,
            place.grown.root,
            place.grown.subtrees,
            storedDigest(open, leaves),
          ]),
      )
      deps.turnedDown.recorded()
      open.forEach((enrolment, i) => {
        const place = written[i]
        if (place) results.set(enrolment, place)
      })
      open = []
      break
    } catch (error) {
      if (isRequestServed(error)) {
        // One of these, and nobody knows which. Alone, each is to blame for itself.
        const ends = open.length === 1 ? [requestServed()] : await inHalves(open, (half) => enrol(deps, half))
        open.forEach((enrolment, i) => {
          results.set(enrolment, ends[i] ?? outcomeUnknown())
        })
        break
      }
      const [only] = open
      if (only && open.length === 1 && isIntentLost(error)) {
        deps.log.error({ event: 'intent.lost', serial: only.event.serial, issuer: only.event.issuer }, intentLost)
        results.set(only, new Problem('issuance.abandoned', lostDetail, { retryAfter: 1 }))
        break
      }
      const lost = isUnavailable(error)
      why = error
      if (!lost && !isOutcomeTaken(error)) throw error
      if (isOfServer(error)) break
      deps.log.warn(
        { event: 'enrolment.looking', lost, size: open.length, err: error },
        'the outcome of a commit is unknown: looking',
      )
      if (lost) await sleep(pause)
      open = await settleKnown(deps, open, results)
      if (open.length === 0) break
    }
  }
  return batch.map((enrolment) => results.get(enrolment) ?? outcomeUnknown(why))
}

const storedDigest = (batch: readonly Enrolment[], leaves: readonly Buffer[]): Buffer =>
  sha256(Buffer.concat(batch.flatMap(({ intent, signature }, i) => [leaves[i] as Buffer, intent.tbs, signature])))

/** Told with what the database said last. */
const outcomeUnknown = (why?: unknown): Problem =>
  new Problem('db.unavailable', isProblem(why) ? `${unknownOutcome} ${why.detail}` : unknownOutcome, {
    cause: why,
    retryAfter: 5,
  })

const unknownOutcome = 'Whether the certificate was recorded is not known; it was not handed out.'

/** Its intent stays open, so that the reconciler puts it on the roll as abandoned: it was signed. */
const requestServed = (): Problem =>
  new Problem('issuance.abandoned', 'Another attempt of this request has become its certificate.', { retryAfter: 1 })

const lostDetail =
  'The database has lost what this issuance began with, as one does that takes over without the last commits; its certificate was not handed out.'
const intentLost =
  'the database has lost an intent that it had recorded, as one does that takes over without the last commits: what was signed by it was not handed out, and has this serial'

const namesOf = (batch: readonly Enrolment[]): readonly NameRow[] =>
  batch.flatMap(({ intent: { serial }, names }, place) => names.map((name) => ({ place, serial, name })))

const selectOutcomesStatement = {
  name: 'select_outcomes',
  text: `
    select o.serial, o.kind, o.signature, e.index, e.leaf_hash
    from json_array_elements_text($1::json) as asked
    cross join lateral (select * from outcomes where serial = decode(asked, 'hex') limit 1) o
    left join lateral (select * from entries where index = o.entry limit 1) e on true`,
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
  { db }: EnrolmentDeps,
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

/** The connection broke, or the server gave up: what was under way may have been committed or not. */
export const isUnavailable = (error: unknown): boolean => isProblem(error, 'db.unavailable')

/** Somebody has ended one of these intents. */
const isOutcomeTaken = (error: unknown): boolean => constraintOf(error) === 'outcomes_pkey'

/** Another intent of the same request has become a certificate. */
const isRequestServed = (error: unknown): boolean => constraintOf(error) === 'outcomes_one_certificate'

/** What `known_intents` says (migrations/0022); other references have names. Of several, nobody knows which: each is tried alone. */
const isIntentLost = (error: unknown): boolean => sqlState(error) === '23503' && constraintOf(error) === undefined

/** About five seconds in all: a PostgreSQL that restarts is back by then. */
export const retryPausesMs = [20, 50, 100, 200, 400, 600, 800, 1000, 1000, 1000]
