-- Revocations: what relying parties must learn of a serial, and who may say it.

-- One row for each change, never altered: the newest of a serial is what holds. `entry` is that of its event, written in
-- the same transaction under the head of the roll, so the order of entries is that of the commits: whoever has read up to
-- one has missed nothing before it. An abandoned intent may have been signed; it is revoked from the beginning.
create table revocations (
  entry         bigint primary key check (entry >= 0),
  serial        bytea not null references intents,
  change        text not null check (change in ('revoked', 'released', 'abandoned')),
  -- Names of RFC 5280 5.3.1; null where nothing is said.
  reason        text check (reason in ('keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded',
    'cessationOfOperation', 'certificateHold', 'privilegeWithdrawn', 'aACompromise')),
  revoked_at    timestamptz not null,        -- what lists say: of the first revocation that was not released
  invalid_since timestamptz check (invalid_since >= '1950-01-01T00:00:00Z'),   -- what DER can say
  issuer        text not null,
  shard         integer not null check (shard >= 0),
  not_after     timestamptz not null,
  certificate   bigint,                      -- the entry of the certificate; null where there is none
  by            text,                        -- null: whoever proved to hold the key
  check ((certificate is null) = (change = 'abandoned')),
  check (change = 'revoked' or (reason is null and invalid_since is null))
);
create index revocations_by_serial on revocations (serial, entry);
-- A list holds what has not expired; its shard is a range of this index.
create index revocations_by_shard on revocations (issuer, shard, not_after);
create index revocations_by_certificate on revocations (certificate) where certificate is not null;

-- Keys that somebody else is known or thought to have: no certificate is ever issued for one again.
create table compromised_keys (
  key_sha256    bytea primary key check (octet_length(key_sha256) = 32),
  serial        bytea not null references intents,
  entry         bigint not null
);

create index compromised_keys_by_entry on compromised_keys (entry);

-- What was abandoned before there were revocations.
insert into revocations (entry, serial, change, revoked_at, issuer, shard, not_after, by)
select e.index, e.serial, 'abandoned', (b.body->>'intended')::timestamptz, b.body->>'issuer', (b.body->>'shard')::integer,
  (b.body->>'notAfter')::timestamptz, 'chancery'
from entries e, lateral (select e.body::jsonb as body) b
where e.type = 'issuance.abandoned';

-- A requester's grant may let it revoke its own certificates.
alter table grants add column revoke boolean not null default false check (not revoke or role = 'requester');

select make_append_only(t) from unnest(array['revocations', 'compromised_keys']::regclass[]) t;

-- Leases: which instance does what only one should do at a time. A courtesy, not a condition: what is done must be right
-- when two do it.
create table leases (
  name          text primary key,
  holder        uuid not null,
  until         timestamptz not null
);
