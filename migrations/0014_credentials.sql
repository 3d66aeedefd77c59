-- What proves who asks, beside bearer tokens.

-- Ties client certificates to a principal: one certificate by the SHA-256 of its DER, all with one SPIFFE id, or all with one
-- subject and issuer, octet by octet. Whose certificates count at all is a setting.
create table credentials (
  id          uuid primary key,
  principal   text not null references principals,
  label       text not null check (length(label) <= 128),
  kind        text not null check (kind in ('fingerprint', 'spiffe', 'subject')),
  value       bytea not null check (octet_length(value) between 1 and 2048),   -- the SHA-256, the id, the subject's Name DER
  issuer      bytea check (octet_length(issuer) between 1 and 2048),           -- Name DER
  created_at  timestamptz not null default now(),
  created_by  text not null,
  check ((kind = 'subject') = (issuer is not null)),
  check (kind <> 'fingerprint' or octet_length(value) = 32)
);
create index credentials_by_value on credentials (value);
create index credentials_by_principal on credentials (principal);

create table credential_revocations (
  credential  uuid primary key references credentials,
  revoked_at  timestamptz not null default now(),
  revoked_by  text not null
);

select make_append_only(t) from unnest(array['credentials', 'credential_revocations']::regclass[]) t;
