/**
 * Tables with few rows, which `roll verify --database` reads whole: the statement of each, with the key of a row and the columns that
 * entries speak of.
 */
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
    'select id::text as key, principal, role, profiles, names, revoke, limits, on_behalf_of, shared_keys, created_by from grants',
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
