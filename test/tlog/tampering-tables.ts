/** What there is to tamper with: the columns of which the roll knows, by table, and rows that there never were. */

export type Kind = 'bytea' | 'text' | 'number' | 'time' | 'truth' | 'id' | 'list' | 'digests' | 'json'

export interface Table {
  /** Columns of which the roll knows. */
  readonly columns: Readonly<Record<string, Kind>>
  /** SQL: the entry of a row `r`. */
  readonly entry: string
  /** SQL: those rows of which the roll knows. */
  readonly where?: string
  /** How much of a thing is done to this table. */
  readonly weight: number
}

const entryOfSerial = '(select o.entry from outcomes o where o.serial = r.serial)'
const isIssued = `exists (select from outcomes o where o.serial = r.serial and o.kind = 'certificate')`
const isAbandoned = `exists (select from outcomes o where o.serial = r.serial and o.kind = 'abandoned')`
const intent: Readonly<Record<string, Kind>> = {
  ...{
    serial: 'bytea',
    principal: 'text',
    digest: 'bytea',
    issuer: 'text',
    profile: 'text',
    profile_version: 'number',
  },
  plan: 'bytea',
  approval: 'id',
  origin: 'text',
}

const { approval: _approval, origin: _origin, ...ofAbandoned } = intent

/** Several of one name: those that the roll knows differently much of. */
export const tables: readonly (readonly [name: string, table: Table])[] = [
  [
    'entries',
    {
      weight: 8,
      entry: 'r.index',
      columns: { index: 'number', type: 'text', time: 'time', leaf_hash: 'bytea', serial: 'bytea', body: 'text' },
    },
  ],
  [
    'subtrees',
    {
      weight: 2,
      entry: 'r.index * power(256, r.level)::bigint',
      columns: { level: 'number', index: 'number', hash: 'bytea' },
    },
  ],
  ['roll', { weight: 2, entry: 'null', columns: { size: 'number', time: 'time', root: 'bytea' } }],
  [
    'intents',
    { weight: 5, entry: entryOfSerial, where: isIssued, columns: { ...intent, tbs: 'bytea', idempotency_key: 'text' } },
  ],
  [
    'intents',
    { weight: 1, entry: entryOfSerial, where: `${isIssued} and r.profile = 'all'`, columns: { shard: 'number' } },
  ],
  [
    'intents',
    {
      weight: 1,
      entry: entryOfSerial,
      where: `${isIssued} and r.replaces is not null`,
      columns: { replaces: 'bytea', first: 'bytea' },
    },
  ],
  [
    'intents',
    { weight: 1, entry: entryOfSerial, where: `${isIssued} and r.origin is not null`, columns: { origin: 'text' } },
  ],
  [
    'outcomes',
    {
      weight: 1,
      entry: 'r.entry',
      where: 'r.origin_namespace is not null',
      columns: { origin_namespace: 'text', origin_user: 'text', origin_object: 'text' },
    },
  ],
  ['intents', { weight: 1, entry: entryOfSerial, where: isAbandoned, columns: { ...ofAbandoned, shard: 'number' } }],
  [
    'outcomes',
    {
      weight: 8,
      entry: 'r.entry',
      where: `r.kind = 'certificate'`,
      columns: {
        ...{ serial: 'bytea', kind: 'text', entry: 'number', at: 'time', signature: 'bytea', principal: 'text' },
        ...{
          profile: 'text',
          issuer: 'text',
          subject: 'text',
          key_sha256: 'bytea',
          not_before: 'time',
          not_after: 'time',
        },
        idempotency_key: 'text',
        ...{ origin_namespace: 'text', origin_user: 'text', origin_object: 'text' },
        ...{ names: 'bytea', profile_version: 'number', delegated: 'truth' },
      },
    },
  ],
  [
    'outcomes',
    {
      weight: 1,
      entry: 'r.entry',
      where: `r.kind = 'abandoned'`,
      columns: { serial: 'bytea', kind: 'text', entry: 'number' },
    },
  ],
  [
    'certificate_names',
    { weight: 5, entry: 'r.entry', columns: { serial: 'bytea', kind: 'text', name: 'text', entry: 'number' } },
  ],
  [
    'revocations',
    {
      weight: 6,
      entry: 'r.entry',
      columns: {
        ...{
          entry: 'number',
          serial: 'bytea',
          change: 'text',
          reason: 'text',
          revoked_at: 'time',
          invalid_since: 'time',
        },
        ...{ issuer: 'text', shard: 'number', not_after: 'time', certificate: 'number', by: 'text' },
      },
    },
  ],
  [
    'compromised_keys',
    { weight: 1, entry: 'r.entry', columns: { key_sha256: 'bytea', serial: 'bytea', entry: 'number' } },
  ],
  [
    'crls',
    {
      weight: 1,
      entry: 'null',
      columns: {
        ...{
          issuer: 'text',
          shard: 'number',
          number: 'number',
          covers: 'number',
          this_update: 'time',
          next_update: 'time',
        },
        ...{ revoked: 'number', tbs_sha256: 'bytea' },
      },
    },
  ],
  ['principals', { weight: 1, entry: 'null', columns: { name: 'text', created_by: 'text' } }],
  ['principal_closures', { weight: 1, entry: 'null', columns: { principal: 'text', closed_by: 'text' } }],
  [
    'grants',
    {
      weight: 1,
      entry: 'null',
      columns: {
        id: 'id',
        principal: 'text',
        role: 'text',
        profiles: 'list',
        names: 'json',
        revoke: 'truth',
        limits: 'json',
        on_behalf_of: 'json',
        shared_keys: 'truth',
        created_by: 'text',
      },
    },
  ],
  ['grant_revocations', { weight: 1, entry: 'null', columns: { grant_id: 'id', revoked_by: 'text' } }],
  [
    'tokens',
    {
      weight: 1,
      entry: 'null',
      columns: { id: 'id', principal: 'text', label: 'text', expires_at: 'time', created_by: 'text' },
    },
  ],
  ['token_revocations', { weight: 1, entry: 'null', columns: { token: 'id', revoked_by: 'text' } }],
  [
    'credentials',
    {
      weight: 1,
      entry: 'null',
      columns: {
        id: 'id',
        principal: 'text',
        label: 'text',
        kind: 'text',
        value: 'bytea',
        issuer: 'bytea',
        created_by: 'text',
      },
    },
  ],
  ['credential_revocations', { weight: 1, entry: 'null', columns: { credential: 'id', revoked_by: 'text' } }],
  [
    'identity_providers',
    {
      weight: 1,
      entry: 'null',
      columns: {
        name: 'text',
        version: 'number',
        sha256: 'bytea',
        issuer: 'text',
        document: 'text',
        created_by: 'text',
      },
    },
  ],
  [
    'profiles',
    {
      weight: 1,
      entry: 'null',
      columns: {
        name: 'text',
        version: 'number',
        sha256: 'bytea',
        authority: 'text',
        document: 'text',
        created_by: 'text',
      },
    },
  ],
  [
    'issuers',
    { weight: 1, entry: 'null', columns: { name: 'text', authority: 'text', certificate: 'bytea', shards: 'number' } },
  ],
  [
    'issuer_states',
    { weight: 1, entry: 'null', columns: { issuer: 'text', state: 'text', by: 'text', reason: 'text' } },
  ],
  [
    'issuer_requests',
    { weight: 1, entry: 'null', columns: { name: 'text', authority: 'text', key_uri: 'text', created_by: 'text' } },
  ],
  ['issuer_keys', { weight: 1, entry: 'null', columns: { key_sha256: 'bytea', issuer: 'text' } }],
  [
    'issuer_chains',
    { weight: 1, entry: 'r.entry', columns: { entry: 'number', place: 'number', issuer: 'text', chain: 'digests' } },
  ],
  ['issuer_key_uris', { weight: 1, entry: 'r.entry', columns: { entry: 'number', issuer: 'text', key_uri: 'text' } }],
  [
    'imported_crls',
    {
      weight: 1,
      entry: 'r.entry',
      columns: {
        signer: 'bytea',
        number: 'number',
        this_update: 'time',
        next_update: 'time',
        der: 'bytea',
        entry: 'number',
      },
    },
  ],
  [
    'approval_requests',
    {
      weight: 1,
      entry: 'r.entry',
      columns: {
        ...{
          id: 'id',
          entry: 'number',
          principal: 'text',
          profile: 'text',
          profile_version: 'number',
          digest: 'bytea',
        },
        ...{ decided: 'text', plan: 'bytea', required: 'number', created_at: 'time', expires_at: 'time' },
      },
    },
  ],
  [
    'approvals',
    {
      weight: 1,
      entry: 'r.entry',
      columns: { request: 'id', principal: 'text', entry: 'number', at: 'time', reason: 'text' },
    },
  ],
  [
    'approval_ends',
    {
      weight: 1,
      entry: 'r.entry',
      where: `r.kind <> 'issued'`,
      columns: { request: 'id', kind: 'text', entry: 'number', by: 'text', code: 'text', reason: 'text' },
    },
  ],
  [
    'mass_revocations',
    {
      weight: 1,
      entry: 'r.entry',
      columns: {
        ...{ plan: 'bytea', entry: 'number', search: 'json', reason: 'text', invalid_since: 'time', count: 'number' },
        ...{ ordered_at: 'time', by: 'text' },
      },
    },
  ],
  [
    'mass_revocation_outcomes',
    {
      weight: 1,
      entry: 'null',
      columns: { plan: 'bytea', revoked: 'number', passed_expired: 'number', passed_revoked: 'number' },
    },
  ],
  ['mass_revocation_slices', { weight: 1, entry: 'null', columns: { plan: 'bytea' } }],
]

export const additions: readonly (readonly [what: string, sql: string])[] = [
  [
    'certificate_names: one more',
    `insert into certificate_names select serial, 'dns', 'com.example.more', entry from outcomes where ctid = $1::tid`,
  ],
  [
    'certificate_names: beyond the roll',
    `insert into certificate_names select serial, 'dns', 'com.example.more', 1000000 from outcomes where ctid = $1::tid`,
  ],
  [
    'revocations: one that nobody made',
    `insert into revocations select r.entry + 100000, o.serial, 'revoked', null, o.at, null, o.issuer, 0, o.not_after, o.entry, 'admin'
     from outcomes o, (select max(entry) as entry from revocations) r where o.ctid = $1::tid`,
  ],
  [
    'revocations: at the entry of an issuance',
    `insert into revocations select o.entry, o.serial, 'revoked', null, o.at, null, o.issuer, 0, o.not_after, o.entry, 'admin'
     from outcomes o where o.ctid = $1::tid`,
  ],
  [
    'outcomes: a certificate that is on no roll',
    `insert into outcomes select overlay(serial placing '\\x7f7f'::bytea from 3), kind, 100000, at, signature, principal,
       null, profile, issuer, subject, key_sha256, not_before, not_after from outcomes where ctid = $1::tid`,
  ],
  [
    'outcomes: a certificate without an entry',
    `insert into outcomes select overlay(serial placing '\\x7f7f'::bytea from 3), kind, null, at, signature, principal,
       null, profile, issuer, subject, key_sha256, not_before, not_after from outcomes where ctid = $1::tid`,
  ],
  [
    'subtrees: beyond',
    `insert into subtrees select 1, 4000 + 0 * entry, sha256('') from outcomes where ctid = $1::tid`,
  ],
  [
    'compromised_keys: of nobody',
    `insert into compromised_keys select sha256(serial), serial, entry from outcomes where ctid = $1::tid`,
  ],
  [
    'entries: beyond the head',
    `insert into entries (index, type, time, leaf_hash, body)
     select h.size, e.type, h.time, e.leaf_hash, e.body from entries e, roll h where e.body is not null and e.type = 'service.started'
       and $1::text is not null limit 1`,
  ],
  [
    'crls: one more',
    `insert into crls select issuer, shard, number + 1, covers, this_update, next_update, revoked, tbs_sha256
     from crls where $1::text is not null order by number desc limit 1`,
  ],
  [
    'approvals: one that nobody gave',
    `insert into approvals select request, 'admin', entry + 100000, at, reason from approvals where $1::text is not null limit 1`,
  ],
  [
    'approval_ends: one that nobody made',
    `insert into approval_ends (request, kind, entry, at, by, reason)
     select id, 'withdrawn', entry + 200000, created_at, principal, 'x' from approval_requests r
     where $1::text is not null and not exists (select from approval_ends e where e.request = r.id) limit 1`,
  ],
  ['principals: one more', `insert into principals select 'mallory', now(), 'admin' where $1::text is not null`],
  [
    'grants: one more',
    `insert into grants select gen_random_uuid(), principal, 'admin', null, null, now(), 'admin', false, null from grants
     where $1::text is not null limit 1`,
  ],
  [
    'issuer_states: one more',
    `insert into issuer_states (issuer, state, by) select name, 'active', 'admin' from issuers where $1::text is not null limit 1`,
  ],
]
