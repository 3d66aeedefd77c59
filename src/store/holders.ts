/** What the records say of one certificate to whoever holds it: may it be renewed, and when. */
import type { HeldRecord } from '../ca/holders.ts'
import type { IssuerState } from '../ca/records.ts'
import type { RenewalFacts } from '../ca/renewal-info.ts'
import type { Queryable } from './database.ts'
import { type GrantRow, grantOf, grantsOf } from './grants.ts'
import { newestRevocation } from './revocations.ts'

/** Undefined where no certificate of ours has this serial (hex). */
export const readHeld = async (db: Queryable, serial: string): Promise<HeldRecord | undefined> => {
  const {
    rows: [row],
  } = await db.query<HeldRow>(selectHeldCertificate, [serial])
  return (
    row && {
      tbs: row.tbs,
      signature: row.signature,
      principal: row.principal,
      isClosed: row.is_closed,
      grants: row.grants.map(grantOf),
      profile: row.profile,
      issuer: row.issuer,
      since: row.since,
      isRevoked: row.is_revoked,
      isCompromised: row.is_compromised,
    }
  )
}

/** Undefined where no certificate of ours has this serial (hex). */
export const readRenewalFacts = async (db: Queryable, serial: string): Promise<RenewalFacts | undefined> => {
  const {
    rows: [row],
  } = await db.query<FactsRow>(selectRenewalFacts, [serial])
  return (
    row && {
      serial,
      principal: row.principal,
      notBefore: row.not_before,
      notAfter: row.not_after,
      revokedAt: row.revoked_at,
      orderedAt: row.ordered_at,
      isCompromised: row.is_compromised,
      issuer: { name: row.issuer, state: row.state, since: row.state_since },
    }
  )
}

interface HeldRow {
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly principal: string
  readonly is_closed: boolean
  readonly grants: readonly GrantRow[]
  readonly profile: string
  readonly issuer: string
  readonly since: Date
  readonly is_revoked: boolean
  readonly is_compromised: boolean
}

interface FactsRow {
  readonly principal: string
  readonly not_before: Date
  readonly not_after: Date
  readonly revoked_at: Date | null
  readonly ordered_at: Date | null
  readonly is_compromised: boolean
  readonly issuer: string
  readonly state: IssuerState
  readonly state_since: Date
}

const isCompromised = 'exists (select from compromised_keys k where k.key_sha256 = c.key_sha256) as is_compromised'

const selectHeldCertificate = {
  name: 'select_held_certificate',
  text: `
    select i.tbs, c.signature, c.principal, c.profile, c.issuer,
      exists (select from principal_closures p where p.principal = c.principal) as is_closed,
      ${grantsOf('c.principal')} as grants,
      coalesce((select f.not_before from outcomes f where f.serial = i.first), c.not_before) as since,
      coalesce(r.change, 'released') <> 'released' as is_revoked, ${isCompromised}
    from outcomes c join intents i on i.serial = c.serial ${newestRevocation}
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}

/**
 * Slices of an order that is under way are in the order of their entries, so that the last one that begins before the
 * certificate's is the only one that may have it.
 */
const selectRenewalFacts = {
  name: 'select_renewal_facts',
  text: `
    select c.principal, c.not_before, c.not_after, c.issuer, s.state, s.at as state_since, ${isCompromised},
      case when r.change <> 'released' then r.revoked_at end as revoked_at,
      (select min(m.ordered_at) from mass_revocations m
        cross join lateral (
          select certificates from mass_revocation_slices
          where plan = m.plan and certificates[1] <= c.entry order by certificates[1] desc limit 1
        ) slice
        where not exists (select from mass_revocation_outcomes o where o.plan = m.plan and o.number = m.slices - 1)
          and c.entry = any (slice.certificates)) as ordered_at
    from outcomes c ${newestRevocation}
      cross join lateral (select state, at from issuer_states where issuer = c.issuer order by id desc limit 1) s
    where c.serial = decode($1, 'hex') and c.kind = 'certificate'`,
}
