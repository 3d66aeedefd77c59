/** Profiles: immutable versions in the database, the newest of each in memory. */
import type { Policies, Precondition, StoredProfile } from '../ca/policies.ts'
import { Problem } from '../errors.ts'
import type { Profile } from '../policy/profile.ts'
import type { Log } from '../telemetry.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './roll.ts'

export interface PoliciesDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
  /** From what was written, or from what is stored, to what decides; throws `profile.invalid`. */
  readonly parse: (document: unknown, version: number) => Profile
  readonly canonical: (profile: Profile) => string
}

export interface OpenPolicies extends Policies {
  /** Reads what other replicas have changed; resolves when memory is as new as the database was. */
  refresh(): Promise<void>
  close(): void
}

/** Opened means loaded. The newest versions are read again each second. */
export const openPolicies = async (deps: PoliciesDeps): Promise<OpenPolicies> => {
  const { db, roll, log } = deps
  const newest = new Map<string, StoredProfile>()

  const refresh = async (): Promise<void> => {
    const held = JSON.stringify([...newest].map(([name, { profile }]) => ({ name, version: profile.version })))
    for (const row of (await db.query<ProfileRow>(selectNewer, [held])).rows) hold(storedOf(deps, row))
  }

  /** An answer that was read before another change was made may come after it: memory never goes back. */
  const hold = (stored: StoredProfile): void => {
    const { name, version } = stored.profile
    if (version > (newest.get(name)?.profile.version ?? 0)) newest.set(name, stored)
  }

  const put = async (document: unknown, by: string, precondition: Precondition) => {
    const name = deps.parse(document, 1).name
    const outcome = await roll.change(async (tx) => {
      const {
        rows: [row],
      } = await tx.query<ProfileRow>(selectVersion, [name, null])
      assertPrecondition(name, row, precondition)
      const profile = deps.parse(document, (row?.version ?? 0) + 1)
      if (row && row.sha256.toString('hex') === profile.sha256)
        return { events: [], result: { stored: storedOf(deps, row), created: false } }
      const stored = await insert(tx, profile, by)
      const { version, sha256 } = profile
      return {
        events: [{ type: 'profile.changed', profile: { name, version }, sha256, by }],
        result: { stored, created: true },
      }
    })
    hold(outcome.stored)
    return outcome
  }

  const insert = async (tx: Queryable, profile: Profile, by: string): Promise<StoredProfile> => {
    const { name, version, sha256, authority } = profile
    const {
      rows: [known],
    } = await tx.query(selectAuthority, [authority])
    if (!known) throw new Problem('authority.not_found', `There is no authority ${JSON.stringify(authority)}.`)
    const {
      rows: [row],
    } = await tx.query<ProfileRow>(insertProfile, [
      name,
      version,
      Buffer.from(sha256, 'hex'),
      authority,
      deps.canonical(profile),
      by,
    ])
    if (!row) throw new Error('a profile was not inserted')
    return { profile, createdAt: row.created_at, createdBy: by }
  }

  await refresh()
  const timer = setInterval(() => {
    refresh().catch((error: unknown) =>
      log.warn({ event: 'policies.stale', err: error }, 'profiles could not be refreshed'),
    )
  }, refreshMs)
  timer.unref()

  return {
    current: (name) => newest.get(name)?.profile,
    list: async () => {
      await refresh()
      return [...newest.values()].sort((a, b) => (a.profile.name < b.profile.name ? -1 : 1))
    },
    versions: async (name) => {
      const { rows } = await db.query<ProfileRow>(selectVersions, [name])
      if (rows.length === 0) throw noProfile(name)
      return rows.map((row) => storedOf(deps, row))
    },
    read: async (name, version) => {
      const {
        rows: [row],
      } = await db.query<ProfileRow>(selectVersion, [name, version ?? null])
      if (row) return storedOf(deps, row)
      throw noProfile(name, version)
    },
    put,
    refresh,
    close: () => clearInterval(timer),
  }
}

/** Under the roll's lock, so that of those who saw the same version only one changes it. */
const assertPrecondition = (
  name: string,
  row: ProfileRow | undefined,
  { ifMatch, ifNoneMatch }: Precondition,
): void => {
  const fail = (what: string): never => {
    throw new Problem('precondition.failed', `The profile ${JSON.stringify(name)} ${what}.`)
  }
  if (ifNoneMatch === '*' && row) fail('exists')
  if (ifMatch !== undefined && !row) fail('does not exist')
  if (ifMatch !== undefined && ifMatch !== '*' && row?.sha256.toString('hex') !== ifMatch)
    fail('is not the one that the change was made from')
}

const noProfile = (name: string, version?: number): Problem =>
  new Problem(
    'profile.not_found',
    `There is no profile ${JSON.stringify(name)}${version === undefined ? '' : ` of version ${version}`}.`,
  )

interface ProfileRow {
  readonly name: string
  readonly version: number
  readonly sha256: Buffer
  readonly document: string
  readonly created_at: Date
  readonly created_by: string
}

const storedOf = ({ parse }: PoliciesDeps, row: ProfileRow): StoredProfile => ({
  profile: parse(JSON.parse(row.document), row.version),
  createdAt: row.created_at,
  createdBy: row.created_by,
})

const columns = 'name, version, sha256, document, created_at, created_by'

const selectNewer = {
  name: 'select_newer_profiles',
  text: `
    with held as (select * from json_to_recordset($1::json) as h (name text, version integer)),
    newest as (select distinct on (name) ${columns} from profiles order by name, version desc)
    select n.* from newest n left join held h using (name) where h.version is null or h.version < n.version`,
}
const selectVersion = {
  text: `select ${columns} from profiles where name = $1 and ($2::integer is null or version = $2) order by version desc limit 1`,
}
const selectVersions = { text: `select ${columns} from profiles where name = $1 order by version desc` }
const selectAuthority = { text: 'select name from authorities where name = $1' }
const insertProfile = {
  text: `insert into profiles (name, version, sha256, authority, document, created_by) values ($1, $2, $3, $4, $5, $6) returning ${columns}`,
}

const refreshMs = 1_000
