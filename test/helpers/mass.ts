/** What an order to revoke many has left in the records, looked at by SQL alone, as the owner. */
import { askSql } from './sql.ts'

export interface MassFacts {
  /** Of the set that was written down. */
  readonly planned: number
  readonly slices: number
  readonly outcomes: number
  /** By the outcomes. */
  readonly revoked: number
  readonly passed: number
  /** Rows of revocations whose event names the plan. */
  readonly rows: number
  /** Of the set, by such a row; and not of it. */
  readonly once: number
  readonly twice: number
  readonly others: number
  /** Events that name the plan. */
  readonly events: number
  /** Events and rows that do not say the same. */
  readonly unlike: number
  readonly done: number
}

export const massFacts = async (ownerUrl: string, digest: string): Promise<MassFacts> =>
  (await askSql<MassFacts>(ownerUrl, facts, [digest]))[0] as MassFacts

const facts = `
  with planned as (
    select unnest(certificates) as certificate from mass_revocation_slices where plan = decode($1, 'hex')
  ), events as (
    select index, serial, body::jsonb as body from entries
    where type = 'certificate.revoked' and body::jsonb ->> 'plan' = $1
  ), rows as (
    select r.* from revocations r where r.entry in (select index from events)
  ), by_certificate as (
    select p.certificate, count(r.entry) as n from planned p left join rows r on r.certificate = p.certificate group by 1
  )
  select
    (select count(*)::integer from planned) as planned,
    (select count(*)::integer from mass_revocation_slices where plan = decode($1, 'hex')) as slices,
    o.*,
    (select count(*)::integer from rows) as rows,
    (select count(*)::integer from by_certificate where n = 1) as once,
    (select count(*)::integer from by_certificate where n > 1) as twice,
    (select count(*)::integer from rows where certificate not in (select certificate from planned)) as others,
    (select count(*)::integer from events) as events,
    (select count(*)::integer from events e full join rows r on r.entry = e.index and r.serial = e.serial
      and coalesce(r.reason, 'unspecified') = e.body ->> 'reason' and r.by = e.body ->> 'by'
      and r.issuer = e.body ->> 'issuer' and r.shard = (e.body ->> 'shard')::integer
      where e.index is null or r.entry is null) as unlike,
    (select count(*)::integer from entries where type = 'revocations.done' and body::jsonb ->> 'plan' = $1) as done
  from (
    select count(*)::integer as outcomes, coalesce(sum(revoked), 0)::integer as revoked,
      coalesce(sum(passed_expired + passed_revoked), 0)::integer as passed
    from mass_revocation_outcomes where plan = decode($1, 'hex')
  ) o`
