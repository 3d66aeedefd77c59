/**
 * Many certificates, put into the records by SQL, through every trigger, foreign key and index of ours, shaped like those
 * that the service makes: scattered serials, real TBS octets with the serial and the name of each. Only their signatures,
 * leaves and shards are not true.
 */
import type pg from 'pg'

import { growTree } from './tree.ts'

export interface Filling {
  /** Of a certificate with the one name `nameOf(0)`, which the others are like. */
  readonly serial: string
  /** They are numbered from `first` to `last`, both included; from 1 on. */
  readonly first: number
  readonly last: number
  readonly tell?: (count: number) => void
}

/** As the owner. */
export const fill = async (client: pg.Client, { serial, first, last, tell = () => {} }: Filling): Promise<void> => {
  for (let from = first; from <= last; from += batch) {
    const to = Math.min(last, from + batch - 1)
    await client.query('begin')
    // A service that is there writes on the roll as well.
    await client.query('select from roll where id = 1 for update')
    const { rowCount } = await client.query(makeRows, [from, to, serial, nameOf(0)])
    if (rowCount !== to - from + 1) throw new Error(`there is no certificate ${serial} to be like`)
    for (const statement of insertions) await client.query(statement)
    await growTree(client)
    await client.query('commit')
    tell(to)
  }
  await client.query('analyze')
}

/** Of a fixed length, so that one name replaces another in DER. */
export const nameOf = (i: number): string => `n${String(i).padStart(9, '0')}.example.com`

const makeRows = `
  with sample as (
    select i.principal, i.issuer, i.profile, i.profile_version, i.plan, i.digest, i.tbs, o.signature, o.names, o.delegated, c.subject, c.key_sha256, c.not_before, c.not_after,
      position(i.serial in i.tbs) as serial_at, position(convert_to($4, 'utf8') in i.tbs) as name_at
    from intents i join outcomes o using (serial) join certificates c using (serial)
    where i.serial = decode($3, 'hex')
  ), numbered as (
    select g, 'n' || lpad(g::text, 9, '0') || '.example.com' as name, decode('4' || substr(md5(g::text), 2), 'hex') as new_serial
    from generate_series($1::integer, $2::integer) as g
  )
  select (select size from roll) + row_number() over (order by g) - 1 as entry, new_serial as serial, principal, issuer, g % 128 as shard, profile, profile_version, subject, key_sha256, not_before, not_after, signature, plan, digest, name, delegated,
    overlay(names placing convert_to(name, 'utf8') from position(convert_to($4, 'utf8') in names)) as names,
    overlay(overlay(tbs placing new_serial from serial_at) placing convert_to(name, 'utf8') from name_at) as tbs,
    sha256(new_serial) as leaf_hash
  into temp made
  from numbered, sample`

/** In the order that triggers and foreign keys ask for. */
const insertions = [
  `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
   select serial, principal, 1, digest, issuer, shard, profile, profile_version, tbs, plan from made`,
  `update roll set size = size + (select count(*) from made), time = greatest(time, now()) where id = 1`,
  `insert into entries (index, type, time, leaf_hash, serial)
   select entry, 'certificate.issued', (select time from roll), leaf_hash, serial from made order by entry`,
  `insert into outcomes (serial, kind, signature, entry, at, principal, profile, issuer, subject, key_sha256, not_before, not_after,
     names, profile_version, delegated)
   select serial, 'certificate', signature, entry, (select time from roll), principal, profile, issuer, subject, key_sha256,
     not_before, not_after, names, profile_version, delegated from made`,
  `insert into certificate_names (serial, kind, name, entry)
   select serial, 'dns', 'com.example.' || split_part(name, '.', 1), entry from made`,
  `drop table made`,
]

const batch = 20_000
