-- On whose behalf somebody has asked: a controller for the users and objects of its cluster. Canonical JSON, as it stands in
-- the entry; null, as in most rows, where somebody has asked for himself.
alter table intents add column origin text;
alter table refusals add column origin text;

-- What certificates are searched by. Who asks for himself is in none of these indexes.
alter table outcomes
  add column origin_namespace text collate "C",
  add column origin_user      text collate "C",
  add column origin_object    text collate "C";   -- its UID
create index certificates_of_namespace on outcomes (origin_namespace, entry) where origin_namespace is not null;
create index certificates_of_user on outcomes (origin_user, entry) where origin_user is not null;
create index certificates_of_object on outcomes (origin_object, entry) where origin_object is not null;

create or replace view certificates as
  select serial, entry, principal, profile, issuer, subject, key_sha256, not_before, not_after, at as issued_at,
    origin_namespace, origin_user, origin_object
  from outcomes where kind = 'certificate';

-- On whose behalf a requester may ask: rules (src/policy/origin-rules.ts); null: for itself alone.
alter table grants add column on_behalf_of jsonb check (jsonb_typeof(on_behalf_of) = 'object');
