/**
 * What each entry of a roll means for the records, in one table: so that records of an older backup come to say again what
 * the roll says. What is neither in an entry nor follows from it is told instead, to be done again by hand.
 */
import type { RevocationReason } from '../ca/revoke.ts'
import { canonicalJson } from '../canonical.ts'
import { type Origin, originKeys, originText } from '../policy/origin.ts'
import type { CertificateReleased, CertificateRevoked, RevocationsOrdered } from '../roll/entries.ts'
import type { EntryOf, EventType, RollEntry } from '../roll/forms.ts'
import type { Name } from '../x509/names.ts'
import { keptNames } from '../x509/names-kept.ts'
import type { Queryable } from './database.ts'
import { restoreOrder } from './mass-revocations.ts'
import { searchKey } from './names.ts'
import { readStanding, recordChanges } from './revocations.ts'

/** What entries do not hold, found elsewhere. */
export interface RecoverySources {
  readonly readCertificate: (der: Buffer) => RecoveredCertificate
  /** The document of a profile version by its digest, and its authority; undefined where nobody has it. */
  readonly profile: (sha256: string) => { readonly document: string; readonly authority: string } | undefined
  /** What takes the place of one that nobody has: it allows nothing. */
  readonly standIn: (
    profile: ProfileChanged,
    authority: string,
  ) => { readonly document: string; readonly sha256: string }
  /** Undefined where its chain or the place of its key is not known. */
  readonly issuer: (name: string) => RecoveredIssuer | undefined
  /** A certificate of a CA, by the SHA-256 of its DER. */
  readonly authorityCertificate: (sha256: string) => Buffer | undefined
  /** What may be on record for a certificate that is to be revoked for a reason. */
  readonly replaceable: (reason: RevocationReason) => readonly string[]
  readonly random: (octets: number) => Buffer
  /** Who recovers. */
  readonly by: string
}

export interface RecoveredCertificate {
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly subject: string
  readonly names: readonly Name[]
  readonly keySha256: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface RecoveredIssuer {
  readonly chain: readonly Buffer[]
  readonly keyUri: string
  readonly keySha256: string
  readonly publicUrl: string
  readonly shards: number
}

type ProfileChanged = EntryOf<'profile.changed'>

/** What people must see to, about one thing: the last word holds, and null means that nothing is left to do. */
export interface Todo {
  readonly about: string
  readonly todo: string | null
}

/** Puts back what an entry meant; all before it are in the records already. */
export const applyEntry = (
  tx: Queryable,
  { entry, index }: { readonly entry: RollEntry; readonly index: number },
  sources: RecoverySources,
): Promise<void> =>
  (effects[entry.type] as Effect<EventType>).apply?.(tx, entry, { index, sources }) ?? Promise.resolve()

export const todoOf = (entry: RollEntry, sources: RecoverySources): Todo | undefined =>
  (effects[entry.type] as Effect<EventType>).todo?.(entry, sources)

interface At {
  readonly index: number
  readonly sources: RecoverySources
}

interface Effect<T extends EventType> {
  readonly apply?: (tx: Queryable, entry: EntryOf<T>, at: At) => Promise<void>
  readonly todo?: (entry: EntryOf<T>, sources: RecoverySources) => Todo | undefined
}

const run = async (tx: Queryable, text: string, values: readonly unknown[]): Promise<void> =>
  void (await tx.query({ text }, values))

type Intended = EntryOf<'certificate.issued'> | EntryOf<'issuance.abandoned'>

/** What is known of an intent; where the backup has it, that stays, and with it the key under which it was asked. */
const intentValues = (entry: Intended, tbs: Buffer): unknown[] => {
  const { serial, principal, request, issuer, profile, plan, time } = entry
  const replaces = 'replaces' in entry ? Buffer.from(entry.replaces as string, 'hex') : null
  const octets = Buffer.from(serial, 'hex')
  const at = 'intended' in entry ? entry.intended : time
  // As `shardOf` does it (ca/serial.ts).
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

interface Moved {
  readonly issuer: string
  readonly reason: string | null
  readonly by: string
  readonly time: string
}

const move = (to: string) => ({
  apply: (tx: Queryable, { issuer, by, reason, time }: Moved) => run(tx, insertState, [issuer, to, by, reason, time]),
})

interface Ended {
  readonly id: string
  readonly kind: 'rejected' | 'withdrawn' | 'expired' | 'failed'
  readonly time: string
  readonly by?: string
  readonly code?: string
  readonly reason?: string
}

/** None was being issued when it ended: what the backup has open for it, and no entry ends, was never signed. */
const end = async (tx: Queryable, { id, kind, time, by, code, reason }: Ended, index: number): Promise<void> => {
  await run(tx, insertUnsigned, [id, time])
  await run(tx, insertEnd, [id, kind, index, time, by ?? null, code ?? null, reason ?? null])
}

/** Nothing is left to do about a request that has ended. */
const endedTodo = ({ id }: { readonly id: string }): Todo => ({ about: `request ${id}`, todo: null })

const effects: { readonly [T in EventType]: Effect<T> } = {
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
  'request.created': {
    // What was asked is on no roll: it can be looked at, and ends without a certificate.
    apply: (tx, entry, { index }) => {
      const { id, principal, profile, request, decided, required, expires, time } = entry
      const values = [id, index, principal, request, profile.name, profile.version, canonicalJson(decided), required]
      return run(tx, insertRequest, [...values, time, expires])
    },
    todo: ({ id, principal }) => ({
      about: `request ${id}`,
      todo: `The request ${id} of ${principal}: what was asked is lost, and it will fail. Have it asked again, under another Idempotency-Key.`,
    }),
  },
  'request.approved': {
    apply: (tx, { id, by, reason, time }, { index }) => run(tx, insertApproval, [id, by, index, time, reason]),
  },
  'request.rejected': {
    apply: (tx, entry, { index }) => end(tx, { ...entry, kind: 'rejected' }, index),
    todo: endedTodo,
  },
  'request.withdrawn': {
    apply: (tx, entry, { index }) => end(tx, { ...entry, kind: 'withdrawn' }, index),
    todo: endedTodo,
  },
  'request.expired': {
    apply: (tx, { id, time }, { index }) => end(tx, { id, time, kind: 'expired' }, index),
    todo: endedTodo,
  },
  'request.failed': {
    apply: (tx, { id, code, reason, time }, { index }) => end(tx, { id, code, reason, time, kind: 'failed' }, index),
    todo: endedTodo,
  },
  'profile.changed': {
    apply: async (tx, entry, { sources }) => {
      const { profile, sha256, by, time } = entry
      const found = sources.profile(sha256)
      const { rows } = await tx.query<{ authority: string }>({ text: selectAuthorityOf }, [profile.name])
      const authority = found?.authority ?? rows[0]?.authority ?? 'default'
      const { document, ...other } = found ?? sources.standIn(entry, authority)
      const digest = 'sha256' in other ? other.sha256 : sha256
      await run(tx, insertProfile, [profile.name, profile.version, digest, authority, document, time, by])
    },
    todo: ({ profile: { name, version }, sha256 }, sources) => ({
      about: `profile ${name}`,
      todo: sources.profile(sha256)
        ? null
        : `The profile ${name}, version ${version}: its document (SHA-256 ${sha256}) is lost, and what stands in for it allows nothing. Apply it again with "chancery profile apply".`,
    }),
  },
  'provider.changed': {
    // Its document is on no roll: what stands in for it believes no token.
    apply: (tx, { provider: { name, version }, by, time }) => {
      const issuer = `https://${name}.lost.invalid`
      const document = canonicalJson({
        name,
        issuer,
        keys: { discovery: true },
        algorithms: ['RS256'],
        audience: 'lost',
        lifetime: '1s',
        mappings: [],
      })
      return run(tx, insertProvider, [name, version, issuer, document, time, by])
    },
    todo: ({ provider: { name, version } }) => ({
      about: `identity provider ${name}`,
      todo: `The identity provider ${name}, version ${version}: its document is lost, and no token of it is believed. Apply it again with "chancery identity-provider apply".`,
    }),
  },
  'principal.created': {
    apply: (tx, { principal, by, time }) => run(tx, insertPrincipal, [principal, by, time]),
  },
  'principal.disabled': {
    apply: (tx, { principal, by, time }) => run(tx, insertClosure, [principal, by, time]),
  },
  'grant.changed': {
    apply: async (tx, entry) => {
      const { change: what, grant, principal, role, profiles, names, by, time } = entry
      if (what === 'revoked') return run(tx, insertGrantRevocation, [grant, by, time])
      // Entries of version 1 have none of these, those of version 2 no limits, those of version 3 no origins.
      const revoke = 'revoke' in entry && entry.revoke === true
      const limits = 'limits' in entry && entry.limits !== null ? JSON.stringify(entry.limits) : null
      const origins = 'onBehalfOf' in entry ? JSON.stringify(entry.onBehalfOf) : null
      const rules = names === null ? null : JSON.stringify(names)
      await run(tx, insertGrant, [grant, principal, role, profiles, rules, revoke, limits, origins, by, time])
    },
  },
  'token.created': {
    // Nobody has its secret: it is revoked as soon as it is there, so that it counts for nobody.
    apply: async (tx, { token, principal, label, expires, by, time }, { sources }) => {
      await run(tx, insertToken, [token, principal, label, sources.random(32), expires, by, time])
      await run(tx, insertTokenRevocation, [token, sources.by, time])
    },
    todo: ({ token, principal, label }) => ({
      about: `token ${token}`,
      todo: `The token ${JSON.stringify(label)} of ${principal}: its secret is in no record, and it works no more. Create another one with "chancery token create".`,
    }),
  },
  'token.revoked': {
    apply: (tx, { token, by, time }) => run(tx, insertTokenRevocation, [token, by, time]),
    todo: ({ token }) => ({ about: `token ${token}`, todo: null }),
  },
  'credential.created': {
    apply: async (tx, { credential, principal, label, fingerprint, spiffe, subject, by, time }) => {
      const [kind, value] =
        fingerprint !== null
          ? ['fingerprint', Buffer.from(fingerprint, 'hex')]
          : spiffe !== null
            ? ['spiffe', Buffer.from(spiffe)]
            : ['subject', Buffer.from(subject?.name ?? '', 'base64')]
      const issuer = subject && Buffer.from(subject.issuer, 'base64')
      await run(tx, insertCredential, [credential, principal, label, kind, value, issuer, by, time])
    },
  },
  'credential.revoked': {
    apply: (tx, { credential, by, time }) => run(tx, insertCredentialRevocation, [credential, by, time]),
  },
  'issuer.created': {
    apply: async (tx, { issuer, authority, certificate, state, by, time }, { index, sources }) => {
      const known = sources.issuer(issuer)
      if (!known) throw new Error(`entry ${index} is of the issuer ${issuer}, whose chain is not known`)
      const { chain, keyUri, keySha256, publicUrl, shards } = known
      const der = Buffer.from(certificate, 'base64')
      await run(tx, insertAuthority, [authority, time])
      await run(tx, insertIssuer, [issuer, authority, der, chain, keyUri, publicUrl, shards, time])
      await run(tx, insertKey, [keySha256, issuer, time])
      await run(tx, insertState, [issuer, state, by, null, time])
    },
  },
  'issuer.activated': move('active'),
  'issuer.retiring': move('retiring'),
  'issuer.closed': move('crl-only'),
  'issuer.halted': move('crl-only'),
  'issuer.discarded': move('retired'),
  'issuer.retired': move('retired'),
  'issuer.requested': {
    // Its key is nobody else's, whatever becomes of the request.
    apply: (tx, { issuer, spki, time }) => run(tx, insertKey, [spki, issuer, time]),
    todo: ({ issuer, key }) => ({
      about: `request ${issuer}`,
      todo: `The request for the issuer ${issuer}: its CSR is lost, its key is at ${key}. Make another one with "chancery issuer create" unless its certificate has come.`,
    }),
  },
  'issuer.chained': {
    apply: async (tx, { issuer, chains }, { index, sources }) => {
      const ways = chains.map((digests) => digests.slice(1).map(sources.authorityCertificate))
      // What is told below: then the ways of before stay.
      if (ways.some((way) => way.includes(undefined))) return
      for (const [place, way] of ways.entries()) await run(tx, insertChain, [index, place, issuer, way])
    },
    todo: ({ issuer, chains }, sources) => ({
      about: `chains ${issuer}`,
      todo: chains.flat().some((digest) => !sources.authorityCertificate(digest))
        ? `The ways up from the issuer ${issuer}: bring them again with "chancery issuer chains".`
        : null,
    }),
  },
  'key.opened': {},
  'key.probed': {},
  'pin.refused': {
    // Which PIN it was is lost: the token is not asked before an operator has said so.
    apply: (tx, { token, tokenSerial, time }) => run(tx, insertWithheld, [token, tokenSerial, time]),
    todo: ({ token, tokenSerial }) => ({
      about: `pin ${token} ${tokenSerial}`,
      todo: `The token ${token} has refused a PIN: see that the right one is in its file, then "chancery key unlatch ${token}".`,
    }),
  },
  'pin.unlatched': {
    apply: (tx, { token, tokenSerial, by, time }) => run(tx, insertUnlatched, [token, tokenSerial, by, time]),
    todo: ({ token, tokenSerial }) => ({ about: `pin ${token} ${tokenSerial}`, todo: null }),
  },
  'roll.opened': {},
  'database.adopted': {},
  'service.started': {},
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
const insertRequest = `
  insert into approval_requests (id, entry, principal, digest, profile, profile_version, decided, plan, required, created_at,
    expires_at)
  values ($1, $2, $3, decode($4, 'hex'), $5, $6, $7::text, sha256(convert_to($7::text, 'UTF8')), $8, $9, $10)`
const insertApproval = `
  insert into approvals (request, principal, entry, at, reason) values ($1, $2, $3, $4, $5)`
const insertUnsigned = `
  insert into outcomes (serial, kind, at)
  select i.serial, 'unsigned', $2::timestamptz from intents i
  where i.approval = $1::uuid and not exists (select from outcomes o where o.serial = i.serial)`
const insertEnd = `
  insert into approval_ends (request, kind, entry, at, by, code, reason) values ($1, $2, $3, $4, $5, $6, $7)`
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
const selectAuthorityOf = `
  select authority from (
    (select authority, 1 as rank from profiles where name = $1 order by version desc limit 1)
    union all (select authority, 2 from issuers order by created_at, name limit 1)
  ) known order by rank limit 1`
const insertProfile = `
  insert into profiles (name, version, sha256, authority, document, created_at, created_by)
  values ($1, $2, decode($3, 'hex'), $4, $5, $6, $7)`
const insertProvider = `
  insert into identity_providers (name, version, sha256, issuer, document, created_at, created_by)
  values ($1, $2, sha256(convert_to($4::text, 'UTF8')), $3, $4::text, $5, $6)`
const insertPrincipal = 'insert into principals (name, created_by, created_at) values ($1, $2, $3)'
const insertClosure = 'insert into principal_closures (principal, closed_by, closed_at) values ($1, $2, $3)'
const insertGrant = `
  insert into grants (id, principal, role, profiles, names, revoke, limits, on_behalf_of, created_by, created_at)
  values ($1, $2, $3, $4::text[], $5::jsonb, $6, $7::jsonb, $8::jsonb, $9, $10)`
const insertGrantRevocation = 'insert into grant_revocations (grant_id, revoked_by, revoked_at) values ($1, $2, $3)'
const insertToken = `
  insert into tokens (id, principal, label, sha256, expires_at, created_by, created_at)
  values ($1, $2, $3, $4, $5, $6, $7)`
const insertTokenRevocation = `
  insert into token_revocations (token, revoked_by, revoked_at) values ($1, $2, $3) on conflict (token) do nothing`
const insertCredential = `
  insert into credentials (id, principal, label, kind, value, issuer, created_by, created_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8)`
const insertCredentialRevocation =
  'insert into credential_revocations (credential, revoked_by, revoked_at) values ($1, $2, $3)'
const insertAuthority = 'insert into authorities (name, created_at) values ($1, $2) on conflict (name) do nothing'
const insertIssuer = `
  insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards, created_at)
  values ($1, $2, $3, $4::bytea[], $5, $6, $7, $8)`
const insertKey = `
  insert into issuer_keys (key_sha256, issuer, created_at) values (decode($1, 'hex'), $2, $3) on conflict do nothing`
const insertState = 'insert into issuer_states (issuer, state, by, reason, at) values ($1, $2, $3, $4, $5)'
const insertChain = 'insert into issuer_chains (entry, place, issuer, chain) values ($1, $2, $3, $4::bytea[])'
const insertWithheld = `
  with try as (insert into pin_tries (token, serial, at) values ($1, $2, $3) returning id)
  insert into pin_tries_ended (try, outcome, at) select id, 'withheld', $3 from try`
const insertUnlatched = 'insert into unlatched_tokens (token, serial, by, at) values ($1, $2, $3, $4)'
