/** Profiles: immutable versions in the database, the newest of each in memory. */
import type { Policies, StoredProfile } from '../ca/policies.ts'
import { Problem } from '../errors.ts'
import type { Log } from '../log.ts'
import type { Profile } from '../policy/profile.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'
import { openVersions, shownBy, type Version, type VersionKind, type Versions, versionStatements } from './versions.ts'

export interface PoliciesDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
  /** From what was written, or from what is stored, to what decides; throws `profile.invalid`. */
  readonly parse: (document: unknown, version: number) => Profile
}

export interface OpenPolicies extends Policies, Pick<Versions<Profile>, 'putAll' | 'refresh' | 'close'> {}

/** Opened means loaded. */
export const openPolicies = async ({ db, roll, log, parse }: PoliciesDeps): Promise<OpenPolicies> => {
  const kind: VersionKind<Profile> = {
    statements,
    title: 'profile',
    missing: 'profile.not_found',
    parse,
    column: ({ authority }) => authority,
    assertFits: (tx, { authority }) => assertAuthority(tx, authority),
    event: ({ name, version, sha256, approvals }, by) => ({
      ...{ type: 'profile.changed', profile: { name, version }, sha256, by },
      approvals: approvals?.required ?? 0,
    }),
  }
  const versions = await openVersions({ db, roll, log, kind })
  return {
    ...shownBy(versions, storedOf),
    current: versions.current,
    putAll: versions.putAll,
  }
}

const storedOf = ({ value, createdAt, createdBy }: Version<Profile>): StoredProfile => ({
  profile: value,
  createdAt,
  createdBy,
})

const assertAuthority = async (tx: Queryable, name: string): Promise<void> => {
  const known = (await tx.query(selectAuthority, [name])).rows[0]
  if (known) return
  const violations = [{ check: 'profile.authority', field: '/authority', value: name, reason: 'is no authority' }]
  throw new Problem('authority.not_found', `There is no authority ${JSON.stringify(name)}.`, { violations })
}

const statements = versionStatements('profiles', 'authority')
const selectAuthority = { text: 'select name from authorities where name = $1' }
