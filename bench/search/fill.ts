/**
 * Millions of certificates in a scratch database, as if the service had issued them over years: true TBS octets, entries
 * that hash to their leaves, a true tree, revocations among them. Put there by several connections past triggers and
 * indexes, which are made again afterwards, so that ten million take minutes.
 *
 * What certificate `i` has follows from `i` alone (`facts`), so that a search knows what it should find.
 */
import type pg from 'pg'

import { growTree } from '../../test/helpers/tree.ts'
import { countBy, type DatabaseUrls, withClient } from '../place.ts'

export interface Filled {
  readonly certificates: number
  /** Of the first of them, and its time in milliseconds; from then on the roll is theirs. */
  readonly base: number
  readonly began: number
}

/** Of a fixed length, so that one name replaces another in DER. */
export const sampleName = 'n00000000.t0000.example.com'
const teams = 10_000
export const nameOf = (i: number): string =>
  `n${String(i).padStart(8, '0')}.t${String(i % teams).padStart(4, '0')}.example.com`
export const teamOf = (i: number): string => `*.t${String(i % teams).padStart(4, '0')}.example.com`

/** What is rare and what is common, each as SQL over `i`. */
const facts = {
  principal: `case when i % 2 = 0 then 'pipeline' else 'team-' || lpad((i / 2 * 7919 % 5000)::text, 4, '0') end`,
  profile: `case when i % 100000 = 77 then 'webhook-serving' when i % 20 < 14 then 'server' when i % 20 < 19 then 'client' else 'peer' end`,
  issuer: `case when i % 50000 = 123 then 'etcd' when i % 20 between 14 and 18 then 'kubernetes' else 'default' end`,
  subject: `case when i % 3 = 0 then '' else 'OU=Unit ' || i % 1000 || ',O=Example' end`,
  key: `case when i % 1000 = 5 then sha256('shared') else sha256(convert_to(i::text, 'utf8')) end`,
  serial: `decode('4' || substr(md5(i::text), 2), 'hex')`,
  name: `'n' || lpad(i::text, 8, '0') || '.t' || lpad((i % ${teams})::text, 4, '0') || '.example.com'`,
  searched: `'com.example.t' || lpad((i % ${teams})::text, 4, '0') || '.n' || lpad(i::text, 8, '0')`,
  // After every hundred, the revocation of one of them.
  entry: `$3::bigint + i / 100 * 101 + i % 100`,
  // Over five seconds, since nothing may be older than what is there: some thousands in each millisecond.
  at: `date_trunc('milliseconds', $4::timestamptz + i * 5.0 / $5 * interval '1 second')`,
  // As if over two years: on its first look the reconciler goes back a day.
  intended: `$4::timestamptz - interval '2 years' + i * 720.0 / $5 * interval '1 day'`,
  // When the revocation after its hundred comes.
  ended: `date_trunc('milliseconds', $4::timestamptz + (i / 100 * 100 + 99) * 5.0 / $5 * interval '1 second')`,
  // As if over two years, with ninety days each.
  notAfter: `date_trunc('second', $4::timestamptz + (i * 730.0 / $5 - 640) * interval '1 day')`,
} as const

/** `certificates` in hundreds. The service must not run. */
export const fillRecords = async (
  { superuserUrl, ownerUrl }: DatabaseUrls,
  { serial, certificates }: { readonly serial: string; readonly certificates: number },
  tell: (line: string) => void,
): Promise<Filled> => {
  const { base, began } = await withClient(superuserUrl, async (client) => {
    const { rows } = await client.query('select size, time from roll')
    return { base: Number(rows[0].size), began: (rows[0].time as Date).getTime() }
  })
  const definitions = await dropIndexes(superuserUrl)
  let next = 0
  let done = 0
  const work = (): Promise<void> =>
    withClient(superuserUrl, async (client) => {
      await client.query(`set session_replication_role = 'replica'; set synchronous_commit = off; set jit = off`)
      for (let from = next; from < certificates; from = next) {
        next = from + chunk
        const to = Math.min(next, certificates) - 1
        await fillChunk(client, { from, to, serial, base, began, certificates })
        done += to - from + 1
        if (done % (10 * chunk) === 0 || done === certificates) tell(`${done} of ${certificates} certificates`)
      }
    })
  await Promise.all(Array.from({ length: workers }, work))
  tell('making indexes')
  await makeIndexes(superuserUrl, definitions)
  tell('making the tree')
  await withClient(superuserUrl, async (client) => {
    await client.query(`set session_replication_role = 'replica'; set work_mem = '256MB'`)
    await client.query('begin')
    await client.query(
      `update roll set size = $1::bigint + $2::bigint / 100 * 101,
        time = (select time from entries where index = $1::bigint + $2::bigint / 100 * 101 - 1)`,
      [base, certificates],
    )
    await growTree(client)
    // All of these have ended. The reconciler would look for minutes whether they have, and have a core beside what is measured.
    await client.query('update reconciled set until = clock_timestamp()')
    await client.query('commit')
  })
  tell('vacuuming')
  await withClient(superuserUrl, async (client) => {
    for (const table of tables) await client.query(`vacuum (analyze) ${table}`)
    await client.query('checkpoint')
  })
  const there = await countBy(ownerUrl, 'select count(*) from certificates')
  if (there < certificates) throw new Error(`only ${there} certificates in the scratch database`)
  return { certificates, base, began }
}

interface Chunk extends Filled {
  readonly from: number
  readonly to: number
  readonly serial: string
}

const fillChunk = async (client: pg.Client, { from, to, serial, ...rest }: Chunk): Promise<void> => {
  await client.query('begin')
  await client.query(makeRows, [from, to, rest.base, new Date(rest.began), rest.certificates, serial, sampleName])
  for (const statement of insertions) await client.query(statement)
  await client.query('commit')
}

const makeRows = `
  create temp table made on commit drop as
  with sample as (
    select i.*, o.signature, o.names as kept, position(i.serial in i.tbs) as serial_at, position(convert_to($7, 'utf8') in i.tbs) as name_at
    from intents i join outcomes o using (serial) where i.serial = decode($6, 'hex')
  ), numbered as (
    select i, ${facts.serial} as serial, ${facts.name} as name, ${facts.searched} as searched, ${facts.entry} as entry,
      ${facts.principal} as principal, ${facts.profile} as profile, ${facts.issuer} as issuer, ${facts.subject} as subject,
      ${facts.key} as key_sha256, ${facts.at} as at, ${facts.intended} as intended,
      ${facts.ended} as ended, ${facts.notAfter} as not_after
    from generate_series($1::bigint, $2::bigint) i
  )
  select n.*, s.signature, s.plan, s.digest, s.profile_version,
    overlay(s.kept placing convert_to(n.name, 'utf8') from position(convert_to($7, 'utf8') in s.kept)) as kept,
    overlay(overlay(s.tbs placing n.serial from serial_at) placing convert_to(n.name, 'utf8') from name_at) as tbs
  from numbered n, sample s`

/** The certificate around a TBS and a signature, as x509/assemble.ts makes it: ECDSA with SHA-256, of these lengths. */
const assembled = `'\\x3082'::bytea || substring(int4send(octet_length(tbs) + octet_length(signature) + 15), 3)
  || tbs || '\\x300a06082a8648ce3d040302'::bytea || '\\x03'::bytea
  || substring(int4send(octet_length(signature) + 1), 4) || '\\x00'::bytea || signature`

const time = (column: string): string => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

/** RFC 8785: members in order, no white space. */
const issuedText = `'{"approval":null,"certificate":"' || replace(encode(${assembled}, 'base64'), E'\\n', '') || '","issuer":"' || issuer
  || '","origin":null,"plan":"' || encode(plan, 'hex') || '","principal":"' || principal || '","profile":{"name":"' || profile
  || '","version":' || profile_version || '},"replaces":null,"request":"' || encode(digest, 'hex') || '","serial":"' || encode(serial, 'hex')
  || '","time":"' || ${time('at')} || '","type":"certificate.issued","v":1}'`

const revokedText = `'{"by":"admin","invalidityDate":null,"issuer":"' || issuer || '","plan":null,"reason":"superseded","revokedAt":"'
  || ${time(`date_trunc('second', ended)`)} || '","serial":"' || encode(serial, 'hex') || '","shard":' || i % 128 || ',"time":"' || ${time('ended')}
  || '","type":"certificate.revoked","v":1}'`

const insertions = [
  `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
   select serial, principal, 1, digest, issuer, i % 128, profile, profile_version, tbs, plan, intended from made order by i`,
  `insert into outcomes (serial, kind, signature, entry, at, principal, profile, issuer, subject, key_sha256, not_before, not_after,
     names, profile_version, delegated)
   select serial, 'certificate', signature, entry, at, principal, profile, issuer, subject, key_sha256,
     not_after - interval '90 days', not_after, kept, profile_version, false from made order by i`,
  `insert into certificate_names (serial, kind, name, entry) select serial, 'dns', searched, entry from made order by i`,
  `insert into entries (index, type, time, leaf_hash, serial)
   select entry, 'certificate.issued', at, sha256('\\x00'::bytea || convert_to(${issuedText}, 'utf8')), serial from made order by i`,
  `insert into entries (index, type, time, leaf_hash, serial, body)
   select index, 'certificate.revoked', ended, sha256('\\x00'::bytea || convert_to(text, 'utf8')), serial, text
   from (select entry + 100 - i % 100 as index, ended, serial, ${revokedText} as text from made where i / 100 % 100 = i % 100) r`,
  `insert into revocations (entry, serial, change, reason, revoked_at, issuer, shard, not_after, certificate, by)
   select entry + 100 - i % 100, serial, 'revoked', 'superseded', date_trunc('second', ended), issuer, i % 128, not_after, entry, 'admin'
   from made where i / 100 % 100 = i % 100`,
]

const tables = ['intents', 'outcomes', 'entries', 'certificate_names', 'revocations'] as const

interface Definition {
  readonly table: string
  readonly drop: string
  readonly make: string
}

/** Foreign keys, keys and indexes of the tables that are filled: dropped, and how to make them again, in that order. */
const dropIndexes = (superuserUrl: string): Promise<readonly Definition[]> =>
  withClient(superuserUrl, async (client) => {
    const { rows: constraints } = await client.query<Definition>(
      `select conrelid::regclass::text as table, format('alter table %s drop constraint %I', conrelid::regclass, conname) as drop,
        format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) as make
       from pg_constraint where contype in ('p', 'u', 'f') and (conrelid = any ($1::regclass[]) or confrelid = any ($1::regclass[]))
       order by case contype when 'f' then 0 else 1 end`,
      [tables],
    )
    for (const { drop } of constraints) await client.query(drop)
    const { rows: indexes } = await client.query<Definition>(
      `select indrelid::regclass::text as table, format('drop index %s', indexrelid::regclass) as drop,
        pg_get_indexdef(indexrelid) as make from pg_index where indrelid = any ($1::regclass[])`,
      [tables],
    )
    for (const { drop } of indexes) await client.query(drop)
    return [...indexes, ...constraints.toReversed()]
  })

/** Several at a time; foreign keys last, since they need the keys that they point to. */
const makeIndexes = async (superuserUrl: string, definitions: readonly Definition[]): Promise<void> => {
  const isForeign = ({ make }: Definition): boolean => make.includes('FOREIGN KEY')
  for (const part of [definitions.filter((one) => !isForeign(one)), definitions.filter(isForeign)]) {
    // Two of one table would wait for each other.
    const byTable = new Map<string, string[]>()
    for (const { table, make } of part) byTable.set(table, [...(byTable.get(table) ?? []), make])
    const waiting = [...byTable.values()]
    const work = (): Promise<void> =>
      withClient(superuserUrl, async (client) => {
        await client.query(`set maintenance_work_mem = '1GB'`)
        for (let some = waiting.shift(); some; some = waiting.shift()) for (const make of some) await client.query(make)
      })
    await Promise.all(Array.from({ length: workers }, work))
  }
}

const workers = 2
const chunk = 20_000
