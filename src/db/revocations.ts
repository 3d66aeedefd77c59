/** Revocations in the records: each change a row and an event in one transaction, under the head of the roll. */
import type { CertificateStanding } from '../ca/access/client-certificates.ts'
import type { Change, Now, Revocation, RevocationReason, RevocationStore, Standing } from '../ca/revocation/revoke.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'
import { isLivingAt } from './validity.ts'

export interface RevocationStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
}

export const openRevocationStore = ({ db, roll }: RevocationStoreDeps): RevocationStore => ({
  change: async (serial, decide) => {
    // What is refused, or holds already, keeps nobody from the head.
    const [before, time] = await Promise.all([readStanding(db, serial), roll.time()])
    const wanted = decide(before, judgedBy(roll, time))
    if (before && !wanted) return before
    return roll.change(async (tx, time, index) => {
      const found = await readStanding(tx, serial)
      const change = decide(found, judgedBy(roll, time))
      if (!found) throw new Error('a certificate that does not exist was to be changed')
      if (!change) return { events: [], result: found }
      roll.assertClock()
      await recordChanges(tx, [{ standing: found, change, index }])
      return { events: [change], result: (await readStanding(tx, serial)) as Standing }
    })
  },
})

/** A time of the roll, for whoever judges by it. */
export const judgedBy =
  ({ assertClock }: Pick<RollWriter, 'assertClock'>, time: Date): Now =>
  () => {
    assertClock()
    return time
  }

/**
 * Certificates that were recorded by the entry `recorded` or a later one, and after their key was reported by the entry `reported`
 * or a later one: their issuance was under way then. And how many entries there are, unless there are more certificates than were
 * read.
 */
export const issuedForReported = async (
  db: Database,
  reported: number,
  recorded: number,
): Promise<{ readonly serials: readonly string[]; readonly size: number | undefined }> => {
  const { rows } = await db.query<{ serial: string | null; size: number }>(selectIssuedForReported, [
    reported,
    recorded,
    mostAtOnce,
  ])
  const serials = rows.flatMap(({ serial }) => serial ?? [])
  return { serials, size: serials.length < mostAtOnce ? (rows[0]?.size ?? 0) : undefined }
}

export interface RecordedChange {
  readonly standing: Standing
  readonly change: Change
  /** Of its event. */
  readonly index: number
}

/** Rows of changes whose events are about to be appended; keys that are compromised are blocked with them. */
export const recordChanges = async (tx: Queryable, changes: readonly RecordedChange[]): Promise<void> => {
  await tx.query(insertRevocations, [JSON.stringify(changes.map(parameterOf))])
}

export const readStanding = async (db: Queryable, serial: string): Promise<Standing | undefined> => {
  const row = (await db.query<StandingRow>(selectStanding, [serial])).rows[0]
  return row && standingOf(row)
}

/**
 * What is on record of a certificate that an issuer of ours has signed. `unknown` where it is not this one, octet by octet:
 * then somebody else has the issuer's key.
 */
export const readCertificateStanding = async (
  db: Queryable,
  { issuer, serial, tbs }: { readonly issuer: string; readonly serial: string; readonly tbs: Buffer },
): Promise<CertificateStanding> => {
  const row = (await db.query<{ revoked: boolean }>(selectCertificateStanding, [serial, issuer, tbs])).rows[0]
  if (!row) return 'unknown'
  return row.revoked ? 'revoked' : 'good'
}

/** Of certificates by their entries, in order of the roll. */
export const readStandings = async (db: Queryable, entries: readonly string[]): Promise<readonly Standing[]> =>
  (await db.query<StandingRow>(selectStandings, [entries])).rows.map(standingOf)

/** What joins the newest change of a serial to `c.serial`; its columns are `revocationColumns`. */
export const newestRevocation = `
  left join lateral (select * from revocations where serial = c.serial order by entry desc limit 1) r on true`

/**
 * The same on a roll of this size, by `c.entry`: those of neighbours lie together, and most have none. The sum keeps it from
 * being looked for along all changes, newest first.
 */
export const newestRevocationAt = (size: string): string => `
  left join lateral (
    select * from revocations where certificate = c.entry and entry < ${size} order by entry + 0 desc limit 1) r on true`

export const revocationColumns = `r.entry as revocation, r.change, r.reason, r.revoked_at, r.invalid_since, r.by`

export interface RevocationRow {
  readonly revocation: number | null
  readonly change: 'revoked' | 'released' | 'abandoned' | null
  readonly reason: RevocationReason | null
  readonly revoked_at: Date | null
  readonly invalid_since: Date | null
  readonly by: string | null
}

/** Null where it is not revoked, or not any more. */
export const revocationOf = (row: RevocationRow): Revocation | null =>
  row.revocation === null || row.revoked_at === null || row.change === 'released'
    ? null
    : {
        reason: row.reason ?? 'unspecified',
        revokedAt: row.revoked_at,
        invalidSince: row.invalid_since,
        by: row.by,
        index: row.revocation,
      }

interface StandingRow extends RevocationRow {
  readonly serial: Buffer
  readonly principal: string
  readonly profile: string
  readonly issuer: string
  readonly shard: number
  readonly not_after: Date
  readonly entry: number
  readonly key_sha256: Buffer
  readonly is_key_reported?: boolean
}

const standingOf = (row: StandingRow): Standing => ({
  serial: row.serial.toString('hex'),
  principal: row.principal,
  profile: row.profile,
  issuer: row.issuer,
  shard: row.shard,
  notAfter: row.not_after,
  index: row.entry,
  keySha256: row.key_sha256.toString('hex'),
  revocation: revocationOf(row),
  released: row.change === 'released',
  newest: row.revocation ?? row.entry,
  ...(row.is_key_reported !== undefined && { isKeyReported: row.is_key_reported }),
})

const parameterOf = ({ standing, change, index }: RecordedChange): object => ({
  serial: standing.serial,
  entry: index,
  issuer: standing.issuer,
  shard: standing.shard,
  not_after: standing.notAfter,
  certificate: standing.index,
  spki: standing.keySha256,
  by: change.by,
  ...(change.type === 'certificate.revoked'
    ? {
        change: 'revoked',
        reason: change.reason === 'unspecified' ? null : change.reason,
        revoked_at: change.revokedAt,
        invalid_since: change.invalidityDate,
      }
    : { change: 'released', reason: null, revoked_at: standing.revocation?.revokedAt, invalid_since: null }),
})

/** Certificates that hold though their key was reported as compromised, by whatever certificate; and one of those keys (hex). */
export const countHoldingReported = async (
  db: Queryable,
  now: Date,
): Promise<{ readonly certificates: number; readonly keys: number; readonly key: string | null }> => {
  const { rows } = await db.query<{ certificates: number; keys: number; key: string | null }>(selectHoldingReported, [
    now,
  ])
  return rows[0] ?? { certificates: 0, keys: 0, key: null }
}

const selectHoldingReported = {
  text: `
    select count(*)::integer as certificates, count(distinct c.key_sha256)::integer as keys,
      min(encode(c.key_sha256, 'hex')) as key
    from compromised_keys k join certificates c on c.key_sha256 = k.key_sha256 ${newestRevocation}
    where ${isLivingAt('c.not_after', '$1::timestamptz')} and coalesce(r.change, 'released') = 'released'`,
}

const standingColumns = `
    c.serial, c.principal, c.profile, c.issuer, i.shard, c.not_after, c.entry, c.key_sha256, ${revocationColumns}`
const standings = `
    from certificates c join intents i on i.serial = c.serial ${newestRevocation}`

const selectIssuedForReported = {
  text: `
    select h.size, encode(late.serial, 'hex') as serial
    from roll h left join lateral (
      select o.serial
      from compromised_keys k join outcomes o on o.key_sha256 = k.key_sha256 and o.kind = 'certificate' and o.entry > k.entry
      where k.entry >= $1::bigint and o.entry >= $2::bigint and not exists (select from revocations r where r.serial = o.serial)
      limit $3::integer
    ) late on true
    where h.id = 1`,
}

const selectCertificateStanding = {
  text: `
    select coalesce(r.change, 'released') <> 'released' as revoked
    from intents c join outcomes o on o.serial = c.serial and o.kind = 'certificate' ${newestRevocation}
    where c.serial = decode($1, 'hex') and c.issuer = $2 and c.tbs = $3`,
}

const selectStanding = {
  name: 'select_standing',
  text: `
    select ${standingColumns}, exists (select from compromised_keys k where k.key_sha256 = c.key_sha256) as is_key_reported
    ${standings} where c.serial = decode($1, 'hex')`,
}

/**
 * Without a name, so that it is planned each time: a plan that was made while nothing was revoked reads through all
 * revocations for each certificate, and would be kept while there come to be thousands (70 ms for 50, measured).
 */
const selectStandings = {
  text: `select ${standingColumns} ${standings} where c.entry = any ($1::bigint[]) order by c.entry`,
}

const insertRevocations = {
  name: 'insert_revocations',
  text: `
    with asked as materialized (
      select decode(serial, 'hex') as serial, decode(spki, 'hex') as key_sha256, entry, change, reason, revoked_at,
        invalid_since, issuer, shard, not_after, certificate, by
      from json_to_recordset($1::json) as r (serial text, spki text, entry bigint, change text, reason text,
        revoked_at timestamptz, invalid_since timestamptz, issuer text, shard integer, not_after timestamptz,
        certificate bigint, by text)
    ), blocked as (
      insert into compromised_keys (key_sha256, serial, entry)
      select distinct on (key_sha256) key_sha256, serial, entry from asked where reason = 'keyCompromise'
      order by key_sha256, entry
      on conflict (key_sha256) do nothing
    )
    insert into revocations (entry, serial, change, reason, revoked_at, invalid_since, issuer, shard, not_after, certificate, by)
    select entry, serial, change, reason, revoked_at, invalid_since, issuer, shard, not_after, certificate, by from asked`,
}

/** Certificates of a look. */
const mostAtOnce = 100
