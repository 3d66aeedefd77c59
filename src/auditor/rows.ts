/**
 * Which records an entry has beside itself, and what must be in them: one table by types of entries for those that are
 * few, and for each kind of the others a function; those of an issuance have a file of their own (`issuances.ts`). What an
 * entry does not say of a record is in neither, and nobody who verifies the roll can know it (docs/roll.md).
 */
import { hash } from 'node:crypto'

import type { ChangeRow, ListRow } from '../db/log-rows.ts'
import { shardsIn } from '../tlog/entries.ts'
import type { EntryOf, EventType, RollEntry } from '../tlog/forms.ts'
import { type Columns, timeText } from './columns.ts'
import { factsIn } from './issuances.ts'

// Entries ---------------------------------------------------------------------------------------------------------------

/** The columns of the entry itself. */
export const entryColumns = (entry: RollEntry): Columns => ({
  type: entry.type,
  time: timeText(entry.time),
  serial: 'serial' in entry ? entry.serial : null,
})

// Revocations -----------------------------------------------------------------------------------------------------------

type ChangeEntry = Extract<
  RollEntry,
  { readonly type: 'certificate.revoked' | 'certificate.released' | 'issuance.abandoned' }
>

export const isChange = (entry: RollEntry): entry is ChangeEntry => entry.type in changes

/** What a row of `revocations` must say; partly against the records of the certificate, which are compared with their own entry. */
export const changeColumns = (entry: ChangeEntry, row: ChangeRow): Columns => ({
  ...{ serial: entry.serial, issuer: entry.issuer, shard: entry.shard },
  ...(changes[entry.type] as (entry: ChangeEntry, row: ChangeRow) => Columns)(entry, row),
})

const ofCertificate = (row: ChangeRow): Columns => ({
  certificate: row.outcome_entry,
  not_after: row.outcome_not_after,
})

const changes: { readonly [T in ChangeEntry['type']]: (entry: EntryOf<T>, row: ChangeRow) => Columns } = {
  'certificate.revoked': ({ reason, revokedAt, invalidityDate, by }, row) => ({
    ...ofCertificate(row),
    ...{ change: 'revoked', reason: reason === 'unspecified' ? null : reason, revoked_at: timeText(revokedAt), by },
    invalid_since: timeText(invalidityDate),
  }),
  'certificate.released': ({ by }, row) => ({
    ...ofCertificate(row),
    ...{ change: 'released', reason: null, invalid_since: null, by },
    revoked_at: row.before_revoked_at,
  }),
  'issuance.abandoned': ({ intended, notAfter }) => ({
    ...{ change: 'abandoned', reason: null, invalid_since: null, by: 'chancery', certificate: null },
    ...{ revoked_at: timeText(intended), not_after: timeText(notAfter) },
  }),
}

/** The key of what was revoked for `keyCompromise` is blocked, by this entry or an earlier one. */
export const isBlocked = (
  index: number,
  { blocked_entry: entry, blocked_serial: serial, serial: own }: ChangeRow,
): boolean => entry !== null && Number(entry) <= index && (Number(entry) < index || serial === own)

// Lists -------------------------------------------------------------------------------------------------------------------

export const listColumns = (list: EntryOf<'crls.intended'>['lists'][number]): Columns => ({
  covers: list.covers,
  this_update: timeText(list.thisUpdate),
  next_update: timeText(list.nextUpdate),
  revoked: list.revoked,
  tbs_sha256: list.tbs,
})

export const listKey = ({
  issuer,
  shard,
  number,
}: Pick<ListRow, 'issuer'> & { shard: unknown; number: unknown }): string => `${issuer}/${shard}/${number}`

// What there is little of -------------------------------------------------------------------------------------------------

export interface ExpectedRow {
  readonly table: string
  readonly key: string
  readonly columns: Columns
}

/** How tables are read whose rows are few: `key` as in `ExpectedRow`, and the columns. */
export const smallTables: Readonly<Record<string, string>> = {
  principals: 'select name as key, created_by from principals',
  principal_closures: 'select principal as key, closed_by from principal_closures',
  tokens: 'select id::text as key, principal, label, expires_at::text as expires_at, created_by from tokens',
  token_revocations: 'select token::text as key, revoked_by from token_revocations',
  credentials: `
    select id::text as key, principal, label, kind, encode(value, 'hex') as value, encode(issuer, 'hex') as issuer, created_by
    from credentials`,
  credential_revocations: 'select credential::text as key, revoked_by from credential_revocations',
  identity_providers: `
    select name || '@' || version as key, encode(sha256, 'hex') as sha256, created_by,
      encode(sha256(convert_to(document, 'UTF8')), 'hex') as document,
      position('"issuer":' || to_json(issuer)::text in document) > 0 as is_of_issuer
    from identity_providers`,
  grants:
    'select id::text as key, principal, role, profiles, names, revoke, limits, on_behalf_of, created_by from grants',
  grant_revocations: 'select grant_id::text as key, revoked_by from grant_revocations',
  profiles: `
    select name || '@' || version as key, encode(sha256, 'hex') as sha256, created_by,
      encode(sha256(convert_to(document, 'UTF8')), 'hex') as document, position('"authority":"' || authority || '"' in document) > 0 as is_of_authority
    from profiles`,
  issuers: `select name as key, authority, encode(certificate, 'base64') as certificate, shards from issuers`,
  issuer_states: `
    select issuer || ' ' || row_number() over (partition by issuer order by id) as key, state, by, reason from issuer_states`,
  issuer_requests: 'select name as key, authority, key_uri, created_by from issuer_requests',
  issuer_keys: `select encode(key_sha256, 'hex') as key, issuer from issuer_keys`,
  issuer_chains: `
    select entry || ' ' || place as key, issuer, array(
      select encode(sha256(u.der), 'hex') from unnest(chain) with ordinality as u (der, n) order by n) as chain
    from issuer_chains`,
  issuer_key_uris: 'select entry::text as key, issuer, key_uri from issuer_key_uris',
  imported_crls: `
    select entry::text as key, encode(signer, 'hex') as signer, number::text as number, this_update::text as this_update,
      next_update::text as next_update, encode(sha256(der), 'hex') as der
    from imported_crls`,
  approval_requests: `
    select id::text as key, entry::text as entry, principal, profile, profile_version::text as profile_version,
      encode(digest, 'hex') as digest, encode(plan, 'hex') as plan, encode(sha256(convert_to(decided, 'UTF8')), 'hex') as decided,
      required::text as required, created_at::text as created_at, expires_at::text as expires_at
    from approval_requests`,
  approvals: `
    select request || ' ' || principal as key, entry::text as entry, at::text as at, reason from approvals`,
  approval_ends: `
    select request::text as key, kind, entry::text as entry, encode(serial, 'hex') as serial, by, code, reason
    from approval_ends where kind <> 'issued'`,
  mass_revocations: `
    select encode(plan, 'hex') as key, entry::text as entry, search, reason, invalid_since::text as invalid_since,
      count::text as count, ordered_at::text as ordered_at, by
    from mass_revocations`,
  mass_revocation_outcomes: `
    select encode(plan, 'hex') as key, sum(o.revoked)::text as revoked, sum(o.passed_expired)::text as expired,
      sum(o.passed_revoked)::text as passed
    from mass_revocation_outcomes o join mass_revocations m using (plan)
    group by plan having bool_or(o.number = m.slices - 1)`,
  mass_revocation_slices: `
    select encode(s.plan, 'hex') as key, sum(cardinality(s.certificates))::text as count, count(*) = max(m.slices) as is_whole
    from mass_revocation_slices s join mass_revocations m on m.plan = s.plan
    group by s.plan`,
}

/** What is counted on the way: which of an issuer's states is next. */
export interface Counting {
  readonly states: Map<string, number>
}

/** The rows of an entry in those tables. */
export const smallRows = (entry: RollEntry, index: number, counting: Counting): readonly ExpectedRow[] =>
  (few[entry.type] as ((entry: RollEntry, index: number, counting: Counting) => readonly ExpectedRow[]) | undefined)?.(
    entry,
    index,
    counting,
  ) ?? []

const hexOf = (base64 = ''): string => Buffer.from(base64, 'base64').toString('hex')

const row = (table: string, key: unknown, columns: Columns): ExpectedRow => ({ table, key: String(key), columns })

const nextState = (
  issuer: string,
  { states }: Counting,
  columns: { readonly state: string; readonly by: string; readonly reason: string | null },
): ExpectedRow => {
  const n = (states.get(issuer) ?? 0) + 1
  states.set(issuer, n)
  return row('issuer_states', `${issuer} ${n}`, columns)
}

type Few = {
  readonly [T in EventType]?: (entry: EntryOf<T>, index: number, counting: Counting) => readonly ExpectedRow[]
}

const moved =
  (state: string) =>
  (
    { issuer, by, reason }: { readonly issuer: string; readonly by: string; readonly reason: string | null },
    _index: number,
    counting: Counting,
  ) => [nextState(issuer, counting, { state, by, reason })]

const ended = (id: string, index: number, told: Columns): ExpectedRow =>
  row('approval_ends', id, { entry: index, serial: null, by: null, code: null, reason: null, ...told })

const few: Few = {
  'principal.created': ({ principal, by }) => [row('principals', principal, { created_by: by })],
  'principal.disabled': ({ principal, by }) => [row('principal_closures', principal, { closed_by: by })],
  'token.created': ({ token, principal, label, expires, by }) => [
    row('tokens', token, { principal, label, expires_at: timeText(expires), created_by: by }),
  ],
  'token.revoked': ({ token, by }) => [row('token_revocations', token, { revoked_by: by })],
  'credential.created': ({ credential, principal, label, fingerprint, spiffe, subject, by }) => {
    const value = fingerprint ?? (spiffe === null ? hexOf(subject?.name) : Buffer.from(spiffe).toString('hex'))
    const kind = fingerprint !== null ? 'fingerprint' : spiffe !== null ? 'spiffe' : 'subject'
    const issuer = subject && hexOf(subject.issuer)
    return [row('credentials', credential, { principal, label, kind, value, issuer, created_by: by })]
  },
  'credential.revoked': ({ credential, by }) => [row('credential_revocations', credential, { revoked_by: by })],
  'provider.changed': ({ provider: { name, version }, sha256, by }) => [
    row('identity_providers', `${name}@${version}`, {
      ...{ sha256, document: sha256, created_by: by, is_of_issuer: true },
    }),
  ],
  'grant.changed': (entry) =>
    entry.change === 'revoked'
      ? [row('grant_revocations', entry.grant, { revoked_by: entry.by })]
      : [
          row('grants', entry.grant, {
            ...{ principal: entry.principal, role: entry.role, profiles: entry.profiles, names: entry.names },
            // Entries of version 1 have none of these, those of version 2 no limits, those of version 3 no origins.
            revoke: (entry as { revoke?: boolean }).revoke ?? false,
            limits: (entry as Partial<typeof entry>).limits ?? null,
            on_behalf_of: 'onBehalfOf' in entry ? entry.onBehalfOf : null,
            created_by: entry.by,
          }),
        ],
  'profile.changed': ({ profile: { name, version }, sha256, by }) => [
    row('profiles', `${name}@${version}`, { sha256, document: sha256, created_by: by, is_of_authority: true }),
  ],
  'issuer.created': (entry, _index, counting) => {
    const { issuer, authority, certificate, state, by } = entry
    const facts = factsIn(certificate)
    return [
      row('issuers', issuer, { authority, certificate: wrapped(certificate), shards: shardsIn(entry) }),
      nextState(issuer, counting, { state, by, reason: null }),
      ...(facts ? [row('issuer_keys', hash('sha256', facts.spki), { issuer })] : []),
    ]
  },
  'issuer.activated': moved('active'),
  'issuer.retiring': moved('retiring'),
  'issuer.closed': moved('crl-only'),
  'issuer.halted': moved('crl-only'),
  'issuer.discarded': moved('retired'),
  'issuer.retired': moved('retired'),
  'issuer.requested': ({ issuer, authority, key, spki, by }) => [
    row('issuer_requests', issuer, { authority, key_uri: key, created_by: by }),
    row('issuer_keys', spki, { issuer }),
  ],
  'issuer.chained': ({ issuer, chains }, index) =>
    chains.map((chain, place) => row('issuer_chains', `${index} ${place}`, { issuer, chain: chain.slice(1) })),
  'issuer.relocated': ({ issuer, key }, index) => [row('issuer_key_uris', index, { issuer, key_uri: key })],
  'crl.imported': ({ signer, number, thisUpdate, nextUpdate, sha256 }, index) => [
    row('imported_crls', index, {
      signer,
      number,
      this_update: timeText(thisUpdate),
      next_update: timeText(nextUpdate),
      der: sha256,
    }),
  ],
  'request.created': ({ id, principal, profile, request, plan, required, expires, time }, index) => [
    row('approval_requests', id, {
      ...{ entry: index, principal, profile: profile.name, profile_version: profile.version, digest: request },
      ...{ plan, decided: plan, required, created_at: timeText(time), expires_at: timeText(expires) },
    }),
  ],
  'request.approved': ({ id, reason, by, time }, index) => [
    row('approvals', `${id} ${by}`, { entry: index, at: timeText(time), reason }),
  ],
  'request.rejected': ({ id, reason, by }, index) => [ended(id, index, { kind: 'rejected', by, reason })],
  'request.withdrawn': ({ id, reason, by }, index) => [ended(id, index, { kind: 'withdrawn', by, reason })],
  'request.expired': ({ id }, index) => [ended(id, index, { kind: 'expired' })],
  'request.failed': ({ id, code, reason }, index) => [ended(id, index, { kind: 'failed', code, reason })],
  'revocations.ordered': ({ plan, search, reason, invalidityDate, count, by, time }, index) => [
    row('mass_revocations', plan, {
      ...{
        entry: index,
        search,
        reason,
        invalid_since: timeText(invalidityDate),
        count,
        ordered_at: timeText(time),
        by,
      },
    }),
    row('mass_revocation_slices', plan, { count, is_whole: true }),
  ],
  'revocations.done': ({ plan, revoked, skipped }) => [
    row('mass_revocation_outcomes', plan, { revoked, expired: skipped.expired, passed: skipped.revoked }),
  ],
}

/** As PostgreSQL writes base64: lines of 76 characters. */
const wrapped = (base64: string): string => base64.replaceAll(/.{76}(?=.)/g, '$&\n')
