/** What entries of certificates and their revocation mean for the records of a recovery. */
import type { RevocationReason } from '../ca/revocation/revoke.ts'
import type { Origin } from '../policy/origin.ts'
import type { CertificateReleased, CertificateRevoked, RevocationsOrdered } from '../tlog/entries.ts'
import type { EntryOf } from '../tlog/forms.ts'
import { keptNames } from '../x509/names-kept.ts'
import type { Queryable } from './database.ts'
import { type Effect, type EffectsOf, endedTodo, run } from './log-effect.ts'
import { restoreOrder } from './mass-revocations.ts'
import { searchKey } from './names.ts'
import { originKeys, originText } from './origins.ts'
import { readStanding, recordChanges } from './revocations.ts'

type Intended = EntryOf<'certificate.issued'> | EntryOf<'issuance.abandoned'>

/** What is known of an intent; where the backup has it, that stays, and with it the key under which it was asked. */
const intentValues = (entry: Intended, tbs: Buffer): unknown[] => {
  const { serial, principal, request, issuer, profile, plan, time } = entry
  const replaces = 'replaces' in entry ? Buffer.from(entry.replaces as string, 'hex') : null
  const octets = Buffer.from(serial, 'hex')
  const at = 'intended' in entry ? entry.intended : time
  // As `shardOf` does it (ca/issuance/serial.ts).
  const draw = octets.readUInt32BE(octets.length - 4)
  return [octets, principal, request, issuer, draw, profile.name, profile.version, tbs, plan, at, replaces]
}

const issue: Effect<'certificate.issued'>['apply'] = async (tx, entry, { index, sources }) => {
  const read = sources.readCertificate(Buffer.from(entry.certificate, 'base64'))
  const { tbs, signature, subject, names, keySha256, notBefore, notAfter } = read
  const intent = intentValues(entry, tbs)
  const { rows } = await tx.query<{ tbs: Buffer }>({ text: 'select tbs from intents where serial = $1' }, [intent[0]])
  if (rows[0] && !rows[0].tbs.equals(tbs))
    throw new Error(`the intent of the serial ${entry.serial} is of another certificate than entry ${index}`)
  const told = names.map((name) => ({ kind: name.kind, name: searchKey(name) }))
  const approval = 'approval' in entry ? entry.approval : null
  const origin = 'origin' in entry ? (entry.origin as Origin) : null
  const keys = originKeys(origin ?? {})
  const rest = [
    ...[index, signature, subject, keySha256, notBefore, notAfter, JSON.stringify(told), approval],
    ...[origin && originText(origin), keys.origin_namespace, keys.origin_user, keys.origin_object],
    ...[keptNames(names), origin !== null],
  ]
  await run(tx, insertIssued, [...intent, ...rest])
  if (approval !== null) await run(tx, insertIssuedEnd, [approval, intent[0], entry.time])
}

const change = async (
  tx: Queryable,
  entry: EntryOf<'certificate.revoked'> | EntryOf<'certificate.released'>,
  index: number,
): Promise<void> => {
  const standing = await readStanding(tx, entry.serial)
  if (!standing) throw new Error(`entry ${index} is of a certificate that is not in the records`)
  await recordChanges(tx, [{ standing, change: entry as CertificateRevoked | CertificateReleased, index }])
}

export const certificateEffects: EffectsOf<
  | 'certificate.issued'
  | 'issuance.abandoned'
  | 'certificate.revoked'
  | 'certificate.released'
  | 'crls.intended'
  | 'crl.imported'
  | 'revocations.ordered'
  | 'revocations.done'
> = {
  'certificate.issued': {
    apply: issue,
    todo: (entry) => ('approval' in entry ? endedTodo({ id: entry.approval as string }) : undefined),
  },
  'issuance.abandoned': {
    apply: async (tx, entry, { index }) => {
      // What was to be signed is not on the roll, and nobody needs it any more.
      const intent = intentValues(entry, Buffer.alloc(0))
      await run(tx, insertAbandoned, [...intent, index, entry.shard, entry.time, entry.notAfter])
    },
  },
  'certificate.revoked': { apply: (tx, entry, { index }) => change(tx, entry, index) },
  'certificate.released': { apply: (tx, entry, { index }) => change(tx, entry, index) },
  'crls.intended': {
    apply: (tx, { issuer, lists }) => run(tx, insertLists, [issuer, JSON.stringify(lists)]),
  },
  'crl.imported': {
    todo: ({ issuer, signer, number }) => ({
      about: `crl ${signer}`,
      todo: `The list ${number} of a CA above the issuer ${issuer}: bring it again, or a newer one, with "chancery crl import".`,
    }),
  },
  'revocations.ordered': {
    apply: (tx, entry, { index, sources }) =>
      restoreOrder(tx, {
        event: entry as RevocationsOrdered,
        index,
        time: new Date(entry.time),
        replaceable: sources.replaceable(entry.reason as RevocationReason),
      }),
  },
  'revocations.done': {},
}

/** Of an intent: $1 to $11. Its shard follows from its serial, and where a row of renewals began from what is there. */
const insertIntent = (more = ''): string => `
    insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at,
      replaces, first${more && ', approval, origin'})
    select $1::bytea, $2::text, 1, decode($3::text, 'hex'), $4::text,
      ($5::bigint % (select shards from issuers where name = $4::text))::integer, $6::text, $7::integer, $8::bytea,
      decode($9::text, 'hex'), least($10::timestamptz, now()), $11::bytea,
      (select coalesce(first, serial) from intents where serial = $11::bytea)${more}
    on conflict (serial) do nothing`
const insertIssued = `
  with intent as (${insertIntent(', $19::uuid, $20::text')}
  ), outcome as (
    insert into outcomes (serial, kind, entry, at, signature, principal, idempotency_key, profile, issuer, subject,
      key_sha256, not_before, not_after, origin_namespace, origin_user, origin_object, names, profile_version, delegated)
    select $1::bytea, 'certificate', $12::bigint, $10::timestamptz, $13::bytea, $2::text,
      (select idempotency_key from intents where serial = $1::bytea), $6::text, $4::text, $14::text, $15::bytea,
      $16::timestamptz, $17::timestamptz, $21::text, $22::text, $23::text, $24::bytea, $7::integer, $25::boolean
  )
  insert into certificate_names (serial, kind, name, entry)
  select $1::bytea, kind, name, $12::bigint from json_to_recordset($18::json) as r (kind text, name text)`
const insertIssuedEnd = `
  insert into approval_ends (request, kind, serial, at) values ($1::uuid, 'issued', $2::bytea, $3::timestamptz)
  on conflict (request) do nothing`
const insertAbandoned = `
  with intent as (${insertIntent()}
  ), outcome as (
    insert into outcomes (serial, kind, entry, at) values ($1::bytea, 'abandoned', $12::bigint, $14::timestamptz)
  )
  insert into revocations (entry, serial, change, revoked_at, issuer, shard, not_after, by)
  values ($12::bigint, $1::bytea, 'abandoned', $10::timestamptz, $4::text, $13::integer, $15::timestamptz, 'chancery')`
const insertLists = `
  insert into crls (issuer, shard, number, covers, this_update, next_update, revoked, tbs_sha256)
  select $1, shard, number, covers, "thisUpdate", "nextUpdate", revoked, decode(tbs, 'hex')
  from json_to_recordset($2::json) as r (shard integer, number bigint, covers bigint, "thisUpdate" timestamptz,
    "nextUpdate" timestamptz, revoked integer, tbs text)`
