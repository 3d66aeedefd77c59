/** What the records say of one certificate to whoever holds it: may it be renewed, and when. */

import type { HeldObstacle } from '../ca/access/access.ts'
import type { HeldRecord } from '../ca/issuance/holders.ts'
import type { RenewalFacts } from '../ca/issuance/renewal-info.ts'
import type { IssuerState } from '../ca/records.ts'
import type { Queryable } from './database.ts'
import { type GrantRow, grantOf, grantsOf } from './grants.ts'
import { newestRevocation } from './revocations.ts'

/** Undefined where no certificate of ours has this serial (hex). */
export const readHeld = async (db: Queryable, serial: string): Promise<HeldRecord | undefined> => {
  const row = (await db.query<HeldRow>(selectHeldCertificate, [serial])).rows[0]
  return (
    row && {
      tbs: row.tbs,
      signature: row.signature,
      principal: row.principal,
      grants: row.grants.map(grantOf),
      profile: row.profile,
      profileVersion: row.profile_version,
      issuer: row.issuer,
      since: row.since,
      obstacle: row.obstacle,
    }
  )
}

/** Undefined where no certificate of ours has this serial (hex). */
export const readRenewalFacts = async (db: Queryable, serial: string): Promise<RenewalFacts | undefined> => {
  const row = (await db.query<FactsRow>(selectRenewalFacts, [serial])).rows[0]
  return (
    row && {
      serial,
      principal: row.principal,
      notBefore: row.not_before,
      notAfter: row.not_after,
      revokedAt: row.revoked_at,
      orderedAt: row.is_barred ? null : row.ordered_at,
      isCompromised: row.is_compromised,
      issuer: { name: row.issuer, state: row.state, since: row.state_since },
    }
  )
}

interface HeldRow {
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly principal: string
  readonly grants: readonly GrantRow[]
  readonly profile: string
  readonly profile_version: number
  readonly issuer: string
  readonly since: Date
  readonly obstacle: HeldObstacle | null
}

interface FactsRow {
  readonly principal: string
  readonly not_before: Date
  readonly not_after: Date
  readonly revoked_at: Date | null
  readonly ordered_at: Date | null
  readonly is_barred: boolean | null
  readonly is_compromised: boolean
  readonly issuer: string
  readonly state: IssuerState
  readonly state_since: Date
}

const selectHeldCertificate = {
  name: 'select_held_certificate',
  text: `
    select i.tbs, c.signature, c.principal, c.profile, c.profile_version, c.issuer, ${grantsOf('c.principal')} as grants,
      coalesce((select f.not_before from outcomes f where f.serial = i.first), c.not_before) as since,
      standing_of_held(c.serial) as obstacle
    from outcomes c join intents i on i.serial = c.serial
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}

const selectRenewalFacts = {
  name: 'select_renewal_facts',
  text: `
    select c.principal, c.not_before, c.not_after, c.issuer, s.state, s.at as state_since,
      exists (select from compromised_keys k where k.key_sha256 = c.key_sha256) as is_compromised,
      case when r.change <> 'released' then r.revoked_at end as revoked_at, o.ordered_at, o.is_barred
    from outcomes c ${newestRevocation}
      cross join lateral (select state, at from issuer_states where issuer = c.issuer order by id desc limit 1) s
      cross join lateral (select min(ordered_at) as ordered_at, bool_or(bars) as is_barred from open_orders_of(c.entry)) o
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}
