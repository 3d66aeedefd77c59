-- How an issuer comes to be and moves: who moved it and why; and keys that wait for their certificate.

alter table issuer_states add column by text not null default 'chancery', add column reason text;

create table issuer_requests (
  name        text primary key check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  authority   text not null check (authority ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  key_uri     text not null unique,
  csr         bytea not null,                -- PKCS#10, DER; the import must bring this key and this subject
  created_at  timestamptz not null default clock_timestamp(),
  created_by  text not null
);

select make_append_only('issuer_requests');
