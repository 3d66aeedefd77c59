/** Lists in the records, and the cache of those that are served. */
import type { CrlHead, CrlStore, IntendedCrl, RevokedOfShard, SignedCrl, Unlisted } from '../ca/revocation/crl.ts'
import type { ShelfStore } from '../ca/revocation/crl-cache.ts'
import type { ImportedCrl, ImportStore } from '../ca/revocation/crl-import.ts'
import type { CrlImported } from '../tlog/entries.ts'
import { type CrlReason, crlReasons } from '../x509/crl.ts'
import type { Database } from './database.ts'
import { constraintOf } from './errors.ts'
import type { RollWriter } from './log.ts'
import { isLivingAt } from './validity.ts'

export interface CrlStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
}

export const openCrlStore = ({ db, roll }: CrlStoreDeps): CrlStore => ({
  rollSize: async () => (await roll.head()).size,
  heads: async (issuer) => (await db.query<HeadRow>(selectHeads, [issuer])).rows.map(headOf),
  changed: async (issuer, { from, below }) => {
    const { rows } = await db.query<{ shard: number; last: number }>(selectChanged, [issuer, from, below])
    return new Map(rows.map(({ shard, last }) => [shard, last]))
  },
  revoked: async (issuer, shards, covers) => {
    const values = [issuer, shards.map(({ shard }) => shard), shards.map(({ since }) => since), covers]
    return (await db.query<PackedRow>(selectRevoked, values)).rows.map(unpack)
  },
  record: async (event, lists) => {
    try {
      return await roll.change(async (tx) => {
        // They were dated a while ago, and none can be dated before one of tomorrow until then.
        roll.assertClock()
        await tx.query(insertCrls, [JSON.stringify(lists.map(parameterOf))])
        return { events: [event], result: true }
      })
    } catch (error) {
      if (raced.has(constraintOf(error) ?? '')) return false
      throw error
    }
  },
  publish: async (lists) => {
    await db.query(upsertFiles, [
      lists.map(({ issuer }) => issuer),
      lists.map(({ shard }) => shard),
      lists.map(({ number }) => number),
      lists.map(({ revoked }) => revoked),
      lists.map(({ der }) => der),
    ])
  },
})

/** What replicas serve; read again where it has changed lately. */
export const openShelfStore = (db: Database): ShelfStore => ({
  changedWithin: async (milliseconds) =>
    (await db.query<Pick<SignedCrl, 'issuer' | 'shard' | 'number'>>(selectChangedFiles, [milliseconds])).rows,
  unlisted: async (issuers) => (await db.query<Unlisted>(selectUnlisted, [issuers])).rows,
  files: async (places) =>
    (await db.query<SignedCrl>(selectFiles, [places.map(({ issuer }) => issuer), places.map(({ shard }) => shard)]))
      .rows,
})

/** Somebody else's list has this number, or knows more. */
const raced: ReadonlySet<string> = new Set(['crls_pkey', 'crls_follow'])

interface HeadRow {
  readonly shard: number
  readonly number: number
  readonly covers: number
  readonly this_update: Date
  readonly next_update: Date
  readonly revoked: number
  readonly published: boolean
  readonly published_update: Date | null
}

const headOf = (row: HeadRow): CrlHead => ({
  shard: row.shard,
  number: row.number,
  covers: row.covers,
  thisUpdate: row.this_update,
  nextUpdate: row.next_update,
  revoked: row.revoked,
  published: row.published,
  publishedUpdate: row.published_update,
})

interface PackedRow {
  readonly shard: number
  readonly packed: Buffer
}

/** Of each revocation 34 octets: serial, seconds since 1970 of two times, the code of its reason. */
const unpack = ({ shard, packed }: PackedRow): RevokedOfShard => ({
  shard,
  count: packed.length / packedOctets,
  at: (index) => {
    const start = index * packedOctets
    const invalidSince = packed.readBigInt64BE(start + 24)
    const reason = reasonsByCode.get(packed.readInt16BE(start + 32))
    return {
      serial: packed.subarray(start, start + 16),
      revokedAt: new Date(Number(packed.readBigInt64BE(start + 16)) * 1000),
      ...(reason && { reason }),
      ...(invalidSince !== never && { invalidSince: new Date(Number(invalidSince) * 1000) }),
    }
  },
})

const packedOctets = 34
const never = -(2n ** 63n)
const reasonsByCode = new Map(Object.entries(crlReasons).map(([reason, code]) => [code as number, reason as CrlReason]))

const parameterOf = (list: IntendedCrl): object => ({
  issuer: list.issuer,
  shard: list.shard,
  number: list.number,
  covers: list.covers,
  this_update: list.thisUpdate,
  next_update: list.nextUpdate,
  revoked: list.revoked,
  tbs: list.tbsSha256.toString('hex'),
})

const selectHeads = {
  name: 'select_crl_heads',
  text: `
    select c.shard, c.number, c.covers, c.this_update, c.next_update, c.revoked, f.number is not distinct from c.number as published,
      p.this_update as published_update
    from issuers i cross join generate_series(0, i.shards - 1) s(shard)
      cross join lateral (select * from crls where issuer = i.name and shard = s.shard order by number desc limit 1) c
      left join crl_files f on f.issuer = c.issuer and f.shard = c.shard
      left join crls p on p.issuer = f.issuer and p.shard = f.shard and p.number = f.number
    where i.name = $1`,
}

const selectChanged = {
  name: 'select_changed_shards',
  text: `
    select shard, max(entry) as last from revocations
    where entry >= $2::bigint and entry < $3::bigint and issuer = $1 group by shard`,
}

/**
 * The newest change of each serial that the list knows; shard by shard, so that each is a range of its index. Packed, for
 * a hundred thousand rows would hold the event loop for a quarter of a second.
 */
const selectRevoked = {
  name: 'select_revoked',
  text: `
    select d.shard, r.packed
    from unnest($2::integer[], $3::timestamptz[]) d(shard, since)
      cross join lateral (
        select string_agg(serial || int8send(floor(extract(epoch from revoked_at))::bigint)
          || int8send(coalesce(floor(extract(epoch from invalid_since))::bigint, ${never}))
          || int2send(coalesce(('${JSON.stringify(crlReasons)}'::jsonb ->> reason)::smallint, 0::smallint)), ''::bytea order by serial) as packed
        from (
          select distinct on (serial) serial, change, revoked_at, reason, invalid_since
          from revocations
          where issuer = $1 and shard = d.shard and ${isLivingAt('not_after', 'd.since')} and entry < $4::bigint
          order by serial, entry desc
        ) newest
        where change <> 'released'
      ) r
    where r.packed is not null`,
}

const insertCrls = {
  name: 'insert_crls',
  text: `
    insert into crls (issuer, shard, number, covers, this_update, next_update, revoked, tbs_sha256)
    select issuer, shard, number, covers, this_update, next_update, revoked, decode(tbs, 'hex')
    from json_to_recordset($1::json) as r (issuer text, shard integer, number bigint, covers bigint,
      this_update timestamptz, next_update timestamptz, revoked integer, tbs text)`,
}

const upsertFiles = {
  name: 'upsert_crl_files',
  text: `
    insert into crl_files (issuer, shard, number, revoked, der)
    select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::bytea[])
    on conflict (issuer, shard) do update
      set number = excluded.number, revoked = excluded.revoked, der = excluded.der, changed_at = clock_timestamp()
      where crl_files.number < excluded.number`,
}

const selectChangedFiles = {
  name: 'select_changed_crl_files',
  text: `
    select issuer, shard, number from crl_files
    where changed_at >= clock_timestamp() - make_interval(secs => $1::double precision / 1000)`,
}

/**
 * One walk over all changes since the oldest list, of which each looks its list up by name: a join is planned by what was counted of
 * revocations, and while that is old (an order to revoke very many) or of several issuers, it went through all lists for each change
 * or through all changes for each list (10 to 18 s for 300,000, longer than a statement may take). The roll's time never falls, so
 * the first of a shard is its oldest.
 */
const selectUnlisted = {
  name: 'select_unlisted',
  text: `
    with served as materialized (
      select coalesce(min(c.covers), 0) as since, jsonb_object_agg(f.issuer || '/' || f.shard, c.covers) as covers
      from crl_files f join crls c on c.issuer = f.issuer and c.shard = f.shard and c.number = f.number
      where f.issuer = any($1::text[])
    ), late as materialized (
      select r.issuer, r.shard, min(r.entry) as first from revocations r
      where r.entry >= (select since from served) and r.issuer = any($1::text[])
        and r.entry >= coalesce(((select covers from served) -> (r.issuer || '/' || r.shard))::bigint, 0)
      group by r.issuer, r.shard
    )
    select l.issuer, count(*)::integer as shards,
      extract(epoch from clock_timestamp() - min(e.time))::double precision as seconds
    from late l cross join lateral (select time from entries where index = l.first limit 1) e
    group by l.issuer`,
}

const selectFiles = {
  name: 'select_crl_files',
  text: `
    select f.issuer, f.shard, f.number, f.revoked, f.der, exists (
      select from crls c join crls before on before.issuer = c.issuer and before.shard = c.shard and before.number = c.number - 1
      where c.issuer = f.issuer and c.shard = f.shard and c.number = f.number and before.this_update = c.this_update
    ) as "sharesDate"
    from unnest($1::text[], $2::integer[]) w(issuer, shard) join crl_files f on f.issuer = w.issuer and f.shard = w.shard`,
}

// Lists that were signed elsewhere --------------------------------------------------------------------------------------

/** The newest of each signer. */
export const readImportedCrls = async (db: Database): Promise<readonly ImportedCrl[]> =>
  (await db.query<ImportRow>(selectImports, [null])).rows.map(importOf)

export const openImportStore = ({ db, roll }: CrlStoreDeps): ImportStore => ({
  newest: () => readImportedCrls(db),
  add: (list, assertFollows) =>
    roll.change(async (tx, _time, index) => {
      const row = (await tx.query<ImportRow>(selectImports, [list.signer])).rows[0]
      const newest = row && importOf(row)
      if (!assertFollows(newest) && newest) return { events: [], result: newest }
      const { signer, number, thisUpdate, nextUpdate, der, issuer, revoked, sha256, by } = list
      await tx.query(insertImport, [signer, number.toString(), thisUpdate, nextUpdate, der, index])
      const event: CrlImported = {
        type: 'crl.imported',
        issuer,
        signer,
        number: number.toString(),
        thisUpdate: thisUpdate.toISOString(),
        nextUpdate: nextUpdate.toISOString(),
        revoked,
        sha256,
        by,
      }
      return { events: [event], result: { signer, number, thisUpdate, nextUpdate, der, index } }
    }),
})

interface ImportRow {
  readonly signer: Buffer
  readonly number: string
  readonly this_update: Date
  readonly next_update: Date
  readonly der: Buffer
  readonly entry: number
}

const importOf = (row: ImportRow): ImportedCrl => ({
  signer: row.signer.toString('hex'),
  number: BigInt(row.number),
  thisUpdate: row.this_update,
  nextUpdate: row.next_update,
  der: row.der,
  index: row.entry,
})

/** The newest of each signer, or of one. */
const selectImports = {
  text: `
    select distinct on (signer) signer, number::text as number, this_update, next_update, der, entry from imported_crls
    where $1::text is null or signer = decode($1, 'hex')
    order by signer, number desc`,
}

const insertImport = {
  text: `insert into imported_crls (signer, number, this_update, next_update, der, entry)
    values (decode($1, 'hex'), $2::numeric, $3, $4, $5, $6)`,
}
