/**
 * Which rows an entry has in the records, and what must be in them: one table by types of entries. Columns of which no entry
 * speaks are listed in `unknown.ts`.
 */
import { hash } from 'node:crypto'

import type { ChangeRow, EntryRow, NameRow } from '../db/log-rows.ts'
import { searchKey } from '../db/names.ts'
import { originKeys, originText } from '../db/origins.ts'
import type { Origin } from '../policy/origin.ts'
import type { IssuerMoved } from '../tlog/entries.ts'
import type { EntryOf, EventType, RollEntry } from '../tlog/forms.ts'
import { parseCertificate, parseTbs, type TbsFacts } from '../x509/certificate.ts'
import { keptNames } from '../x509/names-kept.ts'
import { formatSubject } from '../x509/subject.ts'
import { type Columns, timeText } from './columns.ts'

export interface ExpectedRow {
  readonly table: string
  /** Left out where the row is the only one of its entry in this table. */
  readonly key?: string
  readonly columns: Columns
  /** What is wrong where there is no such row. */
  readonly missing?: string
}

/** Records beside an entry, with which some of its columns must agree. */
export interface Beside {
  readonly row: EntryRow
  readonly change: ChangeRow | undefined
  /** How many states each issuer has had so far. */
  readonly states: Map<string, number>
}

/** Undefined for a certificate that cannot be read, which the verifier reports. */
export const expectedRows = (entry: RollEntry, index: number, beside: Beside): readonly ExpectedRow[] | undefined =>
  (table as Partial<Record<EventType, RowsOf<never>>>)[entry.type] === undefined
    ? []
    : (table[entry.type] as RowsOf<EventType>)(entry, index, beside)

/** The columns of the entry itself. */
export const entryColumns = (entry: RollEntry): Columns => ({
  type: entry.type,
  time: timeText(entry.time),
  serial: 'serial' in entry ? entry.serial : null,
})

export const nameKey = ({ serial, kind, name }: Pick<NameRow, 'serial' | 'kind' | 'name'>): string =>
  `${kind}:${name} of ${serial}`

export const listKey = ({ issuer, shard, number }: { issuer: string; shard: unknown; number: unknown }): string =>
  `list ${number} of ${issuer}/${shard}`

type RowsOf<T extends EventType> = (
  entry: EntryOf<T>,
  index: number,
  beside: Beside,
) => readonly ExpectedRow[] | undefined

// Certificates ----------------------------------------------------------------------------------------------------------

type Ended = EntryOf<'certificate.issued' | 'issuance.abandoned'>

const intended = ({ issuer, principal, profile, request, plan }: Ended): Columns => ({
  ...{ issuer, principal, plan, digest: request },
  profile: profile.name,
  profile_version: profile.version,
})

const issued: RowsOf<'certificate.issued'> = (entry, index, { row: { intent } }) => {
  const facts = factsOf(() => parseCertificate(Buffer.from(entry.certificate, 'base64')).facts)
  if (facts === undefined) return undefined
  const { serial, principal, profile, issuer, replaces, approval } = entry
  const origin = entry.origin as Origin | null
  const shard = shardIn(facts)
  return [
    row('intents', undefined, {
      ...{ ...intended(entry), replaces, approval, first: intent?.expected_first ?? null },
      ...(shard !== undefined && { shard }),
      origin: origin && originText(origin),
    }),
    row('outcomes', undefined, {
      ...{ kind: 'certificate', entry: index, at: timeText(entry.time), principal, profile: profile.name, issuer },
      subject: formatSubject(facts.subject),
      key_sha256: hash('sha256', facts.spki),
      not_before: timeText(facts.notBefore.toISOString()),
      not_after: timeText(facts.notAfter.toISOString()),
      ...originKeys(origin ?? {}),
      names: keptNames(facts.names).toString('hex'),
      profile_version: profile.version,
      delegated: origin !== null,
      // No entry has it, but it must be the same in both.
      idempotency_key: intent?.idempotency_key,
    }),
    ...facts.names.map((name) =>
      row('certificate_names', nameKey({ serial, kind: name.kind, name: searchKey(name) }), { entry: index }),
    ),
  ]
}

const abandoned: RowsOf<'issuance.abandoned'> = (entry, index, { row: { intent } }) => {
  const { serial, issuer, shard, intended: at, notAfter } = entry
  const facts = intent && factsOf(() => parseTbs(intent.tbs))
  const isItsTbs = facts?.serial.toString('hex') === serial && facts.notAfter.toISOString() === notAfter
  return [
    row('intents', undefined, { ...intended(entry), shard, tbs: isItsTbs ? intent?.tbs : null }),
    ...(intent ? [row('intents', undefined, { created_at: timeText(at) })] : []),
    row('outcomes', undefined, { kind: 'abandoned', entry: index, signature: null, idempotency_key: null }),
    row('revocations', undefined, {
      ...{ serial, issuer, shard, change: 'abandoned', reason: null, invalid_since: null, by: 'chancery' },
      ...{ certificate: null, revoked_at: timeText(at), not_after: timeText(notAfter) },
    }),
  ]
}

const factsOf = (read: () => TbsFacts): TbsFacts | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** The last of its CRL URLs' path, where it has one. */
const shardIn = ({ crlUrls: [url] }: TbsFacts): string | undefined => /\/(\d+)\.crl$/.exec(url ?? '')?.[1]

/** Partly against the records of the certificate, which are compared with their own entry. */
const changed = (
  { serial, issuer, shard, by }: EntryOf<'certificate.revoked' | 'certificate.released'>,
  change: ChangeRow | undefined,
  columns: Columns,
): ExpectedRow =>
  row('revocations', undefined, {
    ...{ serial, issuer, shard, by, certificate: change?.outcome_entry, not_after: change?.outcome_not_after },
    ...columns,
  })

// Administration --------------------------------------------------------------------------------------------------------

const row = (table: string, key: unknown, columns: Columns): ExpectedRow => ({
  table,
  ...(key !== undefined && { key: String(key) }),
  columns,
})

const hexOf = (base64 = ''): string => Buffer.from(base64, 'base64').toString('hex')

const stateOf = (states: Beside['states'], issuer: string, columns: Columns): ExpectedRow => {
  const n = (states.get(issuer) ?? 0) + 1
  states.set(issuer, n)
  return row('issuer_states', `${issuer} ${n}`, columns)
}

const moved =
  (state: string): RowsOf<IssuerMoved['type']> =>
  ({ issuer, by, reason }, _index, { states }) => [stateOf(states, issuer, { state, by, reason })]

const ended = (id: string, index: number, columns: Columns): ExpectedRow =>
  row('approval_ends', id, { entry: index, serial: null, by: null, code: null, reason: null, ...columns })

/** As PostgreSQL writes base64: lines of 76 characters. */
const wrapped = (base64: string): string => base64.replaceAll(/.{76}(?=.)/g, '$&\n')

const table: { readonly [T in EventType]?: RowsOf<T> } = {
  'certificate.issued': issued,
  'issuance.abandoned': abandoned,
  'certificate.revoked': (entry, _index, { change }) => [
    changed(entry, change, {
      change: 'revoked',
      reason: entry.reason === 'unspecified' ? null : entry.reason,
      revoked_at: timeText(entry.revokedAt),
      invalid_since: timeText(entry.invalidityDate),
    }),
    ...(entry.reason === 'keyCompromise'
      ? [{ table: 'compromised_keys', columns: {}, missing: 'has no row that blocks its key from this entry on' }]
      : []),
  ],
  'certificate.released': (entry, _index, { change }) => [
    changed(entry, change, {
      ...{ change: 'released', reason: null, invalid_since: null, revoked_at: change?.before_revoked_at },
    }),
  ],
  'crls.intended': ({ issuer, lists }) =>
    lists.map(({ shard, number, covers, thisUpdate, nextUpdate, revoked, tbs }) =>
      row('crls', listKey({ issuer, shard, number }), {
        ...{ covers, revoked, tbs_sha256: tbs, this_update: timeText(thisUpdate), next_update: timeText(nextUpdate) },
      }),
    ),
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
            ...{ revoke: entry.revoke, limits: entry.limits, on_behalf_of: entry.onBehalfOf },
            shared_keys: entry.sharedKeys,
            created_by: entry.by,
          }),
        ],
  'profile.changed': ({ profile: { name, version }, sha256, by }) => [
    row('profiles', `${name}@${version}`, { sha256, document: sha256, created_by: by, is_of_authority: true }),
  ],
  'issuer.created': (entry, _index, { states }) => {
    const { issuer, authority, certificate, state, shards, by } = entry
    const facts = factsOf(() => parseCertificate(Buffer.from(certificate, 'base64')).facts)
    return [
      row('issuers', issuer, { authority, certificate: wrapped(certificate), shards }),
      stateOf(states, issuer, { state, by, reason: null }),
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
