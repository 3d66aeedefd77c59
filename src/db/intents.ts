/** Intents as they are recorded: many in one statement, each on the condition that nothing stands against it. */
import type { Intent, IntentEnd } from '../ca/issuance/recorder.ts'
import type { DatabaseClock } from './clock.ts'
import { columnsOf } from './columns.ts'
import type { Queryable, Statement } from './database.ts'
import { keyOwnerOf, originText } from './origins.ts'

const columns = columnsOf<Intent>([
  ['principal', 'text', ({ request }) => request.principal],
  ['key', 'text', ({ request }) => request.key],
  ['digest', 'bytea', ({ request }) => request.digest],
  ['attempt', 'integer', ({ attempt }) => attempt],
  ['serial', 'bytea', ({ serial }) => serial],
  ['issuer', 'text', ({ issuer }) => issuer],
  ['states', 'text', ({ states }) => states.join(' ')],
  ['shard', 'integer', ({ shard }) => shard],
  ['profile', 'text', ({ profile }) => profile.name],
  ['version', 'integer', ({ profile }) => profile.version],
  ['tbs', 'bytea', ({ tbs }) => tbs],
  ['plan', 'bytea', ({ plan }) => plan],
  ['spki', 'bytea', ({ keySha256 }) => keySha256],
  ['replaces', 'bytea', ({ replaces }) => replaces],
  ['approval', 'text', ({ approval }) => approval],
  ['origin', 'text', ({ origin }) => origin && originText(origin)],
  ['names', 'integer', ({ names }) => names],
  ['not_after', 'timestamptz', ({ notAfter }) => notAfter],
  ['behalf', 'text', ({ origin }) => keyOwnerOf(origin)],
  ['shares_key', 'boolean', ({ sharesKey = false }) => sharesKey],
])

const compromised = (key: string): string =>
  `case when (select true from compromised_keys where key_sha256 = ${key} limit 1) then 'compromised' end`

/**
 * Nothing is inserted where the attempt of a request is taken, its issuer has moved, or something is on record against its key
 * or the certificate that it renews. Keys are claimed in one order, so that two statements never wait for each other.
 */
const insertIntentsStatement: Statement = {
  name: 'insert_intents',
  pool: 'issuing',
  text: `
    with asked as (
      select * from ${columns.from}
    ), issuers as materialized (
      select issuer, state_for_intent(issuer) as state from (select distinct issuer from asked) i
    ), judged as materialized (
      select serial, case when not state = any (string_to_array(states, ' ')) then 'moved'
        else coalesce(
          case when replaces is not null then standing_of_held(replaces) end,
          ${compromised('spki')},
          case when not shares_key and not claim_key(spki, principal, behalf) then 'held' end)
        end as obstacle
      from (select * from asked join issuers using (issuer) order by spki) in_order
    ), added as (
      insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
        plan, replaces, first, approval, origin, names, not_after)
      select serial, principal, key, attempt, digest, issuer, shard, profile, version, tbs, plan, replaces,
        (select coalesce(b.first, b.serial) from intents b where b.serial = asked.replaces), approval::uuid, origin, names, not_after
      from asked
      where serial not in (select serial from judged where obstacle is not null)
      on conflict (principal, idempotency_key, attempt) where idempotency_key is not null do nothing
      returning serial
    )
    select count(*)::integer as recorded, clock_timestamp() as now,
      case when count(*) < $${columns.next}::integer then string_agg(encode(serial, 'hex'), ' ') end as serials,
      case when count(*) < $${columns.next}::integer then (select json_object_agg(encode(serial, 'hex'), obstacle) from judged) end as obstacles
    from added`,
}

export interface IntentsDeps {
  readonly db: Queryable
  /** Told what the database's clock says: what was dated by one that has been set since is not signed. */
  readonly dbClock: Pick<DatabaseClock, 'observe'>
}

interface IntentsRecorded {
  readonly recorded: number
  readonly now: Date
  readonly serials: string | null
  /** What stood against each serial. */
  readonly obstacles: Readonly<Record<string, Exclude<IntentEnd, 'recorded' | 'taken'> | null>> | null
}

export const insertIntents = async ({ db, dbClock }: IntentsDeps, batch: readonly Intent[]): Promise<IntentEnd[]> => {
  const asked = performance.now()
  const { rows } = await db.query<IntentsRecorded>(insertIntentsStatement, [...valuesOf(batch), batch.length])
  const answer = rows[0]
  if (answer) dbClock.observe(answer.now, performance.now() - asked)
  return intentEnds(batch, answer)
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
const valuesOf = (batch: readonly Intent[]): Buffer[] =>
  columns.values(batch.length < 2 ? batch : batch.toSorted(byRequest))

const byRequest = ({ request: a }: Intent, { request: b }: Intent): number =>
  compare(a.key ?? '', b.key ?? '') || compare(a.principal, b.principal)

const compare = (a: string, b: string): number => (a < b ? -1 : Number(a > b))

export const selectKeyStanding = {
  name: 'select_key_standing',
  text: `
    select coalesce(${compromised('$1::bytea')},
      (select 'held' from key_owners where key_sha256 = $1 and (principal <> $2 or on_behalf_of <> $3)), 'free') as standing`,
}
