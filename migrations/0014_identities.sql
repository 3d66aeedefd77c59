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

-- Identity providers: whose tokens are believed, and who their claims make somebody, as a reviewed document.
create table identity_providers (
  name        text not null check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  version     integer not null check (version > 0),
  sha256      bytea not null check (octet_length(sha256) = 32),
  issuer      text not null,
  document    text not null,                 -- canonical JSON; sha256 is over these bytes
  created_at  timestamptz not null default now(),
  created_by  text not null,
  primary key (name, version)
);

-- Tokens that count once and were shown, by the SHA-256 of what tells them from their issuer's others. Kept until nobody
-- would accept them any more: the owner takes them away.
create table spent_tokens (
  issuer      text not null,
  id_sha256   bytea not null check (octet_length(id_sha256) = 32),
  until       timestamptz not null,
  primary key (issuer, id_sha256)
);
create index spent_tokens_by_end on spent_tokens (until);

create function maintain_spent_tokens() returns bigint language sql as $$
  with gone as (delete from spent_tokens where until < now() - interval '1 hour' returning 1) select count(*) from gone
$$;
revoke all on function maintain_spent_tokens() from public;

select make_append_only(t) from unnest(array['credentials', 'credential_revocations', 'identity_providers']::regclass[]) t;
