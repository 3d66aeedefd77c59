-- The records of Chancery. Every table here is append-only, but for the roll's head, leases and caches:
-- a trigger refuses other changes to anyone, and the serving role has no right to make them.
-- docs/architecture.md tells the story; names are those of the design: request, intent, outcome, roll, entry.

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'table % is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;

create function make_append_only(target regclass) returns void language plpgsql as $$
begin
  execute format('create trigger append_only before update or delete on %s for each row execute function refuse_change()', target);
  execute format('create trigger append_only_truncate before truncate on %s for each statement execute function refuse_change()', target);
end $$;

-- Who may ask ---------------------------------------------------------------------------------------------------

create table principals (
  name        text primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$'),
  created_at  timestamptz not null default now(),
  created_by  text not null
);

create table principal_closures (
  principal   text primary key references principals,
  closed_at   timestamptz not null default now(),
  closed_by   text not null
);

create table tokens (
  id          uuid primary key,
  principal   text not null references principals,
  label       text not null check (length(label) <= 128),
  sha256      bytea not null unique check (octet_length(sha256) = 32),
  expires_at  timestamptz,
  created_at  timestamptz not null default now(),
  created_by  text not null
);
create index tokens_by_principal on tokens (principal);

create table token_revocations (
  token       uuid primary key references tokens,
  revoked_at  timestamptz not null default now(),
  revoked_by  text not null
);

-- A cache: when a token was last seen, to the minute. Losing it loses no record.
create table token_uses (
  token       uuid primary key references tokens,
  used_at     timestamptz not null
);

create table grants (
  id          uuid primary key,
  principal   text not null references principals,
  role        text not null check (role in ('requester', 'approver', 'operator', 'auditor', 'admin')),
  profiles    text[],
  names       jsonb,
  created_at  timestamptz not null default now(),
  created_by  text not null,
  check (role <> 'requester' or coalesce(cardinality(profiles), 0) > 0)
);
create index grants_by_principal on grants (principal);

create table grant_revocations (
  grant_id    uuid primary key references grants,
  revoked_at  timestamptz not null default now(),
  revoked_by  text not null
);

-- Authorities, issuers, profiles ----------------------------------------------------------------------------------

create table authorities (
  name        text primary key check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  created_at  timestamptz not null default now()
);

create table issuers (
  name        text primary key check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  authority   text not null references authorities,
  certificate bytea not null unique,
  chain       bytea[] not null,              -- above the issuer, the root last
  key_uri     text not null,
  public_url  text not null,                 -- what CRL, OCSP and AIA URLs begin with; fixed for life
  shards      integer not null check (shards between 1 and 65536),
  created_at  timestamptz not null default now()
);

create table issuer_states (
  id          bigint generated always as identity primary key,
  issuer      text not null references issuers,
  state       text not null check (state in ('staged', 'active', 'retiring', 'crl-only', 'retired')),
  at          timestamptz not null default now()
);
create index issuer_states_newest on issuer_states (issuer, id desc);

create table profiles (
  name        text not null check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  version     integer not null check (version > 0),
  sha256      bytea not null check (octet_length(sha256) = 32),
  authority   text not null references authorities,
  document    text not null,                 -- canonical JSON; sha256 is over these bytes
  created_at  timestamptz not null default now(),
  created_by  text not null,
  primary key (name, version)
);

-- The roll --------------------------------------------------------------------------------------------------------

-- The head: the one row that orders all writers. `size` is the next index; `time` that of the last event.
create table roll (
  id          smallint primary key check (id = 1),
  size        bigint not null check (size >= 0),
  time        timestamptz not null
);
insert into roll values (1, 0, '1970-01-01T00:00:00Z');

create function only_grow() returns trigger language plpgsql as $$
begin
  if new.id <> old.id or new.size < old.size or new.time < old.time then
    raise exception 'the roll only grows' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger only_grow before update on roll for each row execute function only_grow();
create trigger no_delete before delete on roll for each row execute function refuse_change();
create trigger no_truncate before truncate on roll for each statement execute function refuse_change();

-- An entry's exact bytes are `body`; where it is null they are rebuilt from the records of `serial` (src/ca/entries.ts).
create table entries (
  index       bigint primary key check (index >= 0),
  type        text not null,
  time        timestamptz not null,
  leaf_hash   bytea not null check (octet_length(leaf_hash) = 32),
  serial      bytea,
  body        text check (octet_length(body) <= 65535),
  check (body is not null or (type = 'certificate.issued' and serial is not null))
);
-- Issuances are nearly all there is; for them the primary key serves.
create index entries_by_type on entries (type, index) where type <> 'certificate.issued';

-- A batch of entries must fill exactly the room that the head has made: no gap, no overlap, whoever writes.
create function fill_the_room() returns trigger language plpgsql as $$
declare
  first bigint; last bigint; n bigint; head bigint;
begin
  select min(index), max(index), count(*) into first, last, n from added;
  if n = 0 then return null; end if;
  select size into head from roll where id = 1;
  if last <> head - 1 or last - first + 1 <> n or (first > 0 and not exists (select from entries where index = first - 1)) then
    raise exception 'entries % to % leave a gap before size %', first, last, head using errcode = 'restrict_violation';
  end if;
  return null;
end $$;
create trigger fill_the_room after insert on entries referencing new table as added
  for each statement execute function fill_the_room();

-- At the end of every transaction the head is just behind the last entry, and has its time.
create function assert_head_is_last() returns trigger language plpgsql as $$
declare
  head roll; last entries;
begin
  select * into head from roll where id = 1;
  select * into last from entries order by index desc limit 1;
  if head.size <> coalesce(last.index + 1, 0) or head.time <> coalesce(last.time, head.time) then
    raise exception 'the head of the roll is not behind its last entry' using errcode = 'restrict_violation';
  end if;
  return null;
end $$;
create constraint trigger head_is_last after update on roll deferrable initially deferred
  for each row execute function assert_head_is_last();

-- Intents, outcomes -----------------------------------------------------------------------------------------------------

-- Exactly what is about to be signed, durable before the key is touched. A request is its principal and its idempotency
-- key, and lives as long as its intents: one for each attempt. Without a key it is its only intent.
create table intents (
  serial          bytea primary key check (octet_length(serial) = 16),
  principal       text not null,
  idempotency_key text check (length(idempotency_key) between 1 and 128),
  attempt         integer not null check (attempt > 0),
  digest          bytea not null check (octet_length(digest) = 32),   -- of the request: the CSR, the profile and the options
  issuer          text not null,
  shard           integer not null check (shard >= 0),
  profile         text not null,
  profile_version integer not null,
  tbs             bytea not null,
  plan            bytea not null check (octet_length(plan) = 32),
  created_at      timestamptz not null default clock_timestamp(),
  check (attempt = 1 or idempotency_key is not null)
);
create unique index intents_by_request on intents (principal, idempotency_key, attempt) where idempotency_key is not null;
-- A few octets a thousand rows: the reconciler looks at the newest, and those lie together.
create index intents_by_age on intents using brin (created_at) with (pages_per_range = 16, autosummarize = on);
alter table intents alter column tbs set storage external;

-- A foreign key locks the row it points to, and writes that down: one principal, issuer and profile version are shared by
-- all writers. Rows of those tables never change and never go, so it is enough that a statement's rows are looked at
-- once, when they are inserted.
create function assert_known_origins() returns trigger language plpgsql as $$
begin
  if exists (select from (select distinct principal, issuer, profile, profile_version from added) a
    where not exists (select from principals p where p.name = a.principal)
      or not exists (select from issuers i where i.name = a.issuer)
      or not exists (select from profiles p where p.name = a.profile and p.version = a.profile_version)) then
    raise exception 'an intent names a principal, an issuer or a profile version that does not exist'
      using errcode = 'foreign_key_violation';
  end if;
  return null;
end $$;
create trigger known_origins after insert on intents referencing new table as added
  for each statement execute function assert_known_origins();

-- The one row that ends an intent. Inserting it decides; whoever comes second has lost. A certificate is the intent's TBS
-- and the signature here (src/x509/assemble.ts), with what auditors search it by: each octet is stored once.
create table outcomes (
  serial          bytea primary key references intents,
  kind            text not null check (kind in ('certificate', 'abandoned', 'unsigned')),
  entry           bigint unique,             -- written in the same transaction as the entry itself
  at              timestamptz not null,
  signature       bytea,
  principal       text,
  idempotency_key text,
  profile         text,
  issuer          text,
  subject         text,
  key_sha256      bytea,
  not_before      timestamptz,
  not_after       timestamptz,
  check ((kind = 'unsigned') = (entry is null)),
  check (kind = 'certificate' or idempotency_key is null),
  check (num_nulls(signature, principal, profile, issuer, subject, key_sha256, not_before, not_after)
    = case kind when 'certificate' then 0 else 8 end)
);
create unique index outcomes_one_certificate on outcomes (principal, idempotency_key)
  where kind = 'certificate' and idempotency_key is not null;
create index certificates_by_principal on outcomes (principal, entry desc) where kind = 'certificate';
create index certificates_by_profile on outcomes (profile, entry desc) where kind = 'certificate';
create index certificates_by_key on outcomes (key_sha256) where kind = 'certificate';
create index certificates_by_expiry on outcomes (not_after) where kind = 'certificate';
-- A hash, since a subject may be longer than a page's index entry can be.
create index certificates_by_subject on outcomes using hash (subject collate "C") where kind = 'certificate' and subject <> '';

create view certificates as
  select serial, entry, principal, profile, issuer, subject, key_sha256, not_before, not_after, at as issued_at
  from outcomes where kind = 'certificate';

-- A DNS name is kept with its labels reversed (`com.example.web`), so that one index answers both the exact name
-- and everything below a suffix.
create table certificate_names (
  serial          bytea not null,            -- of an outcome, written in the same statement
  kind            text not null check (kind in ('dns', 'ip', 'uri', 'email')),
  name            text collate "C" not null,
  entry           bigint not null
);
create index certificate_names_by_name on certificate_names (name, entry desc);

-- A cache: up to when every intent is known to have ended, so that the reconciler need not look at all of them. Losing
-- it costs one long look.
create table reconciled (
  id              smallint primary key check (id = 1),
  until           timestamptz not null
);
insert into reconciled values (1, '-infinity');

-- Refusals: rows, not entries; partitioned by month so that old ones are dropped, not deleted ------------------------

create table refusals (
  id              uuid not null,
  at              timestamptz not null default clock_timestamp(),
  principal       text not null,
  profile         text,
  code            text not null,
  digest          bytea not null,            -- SHA-256 of what was sent
  detail          text not null,
  violations      jsonb not null,
  primary key (at, id)
) partition by range (at);
create index refusals_by_principal on refusals (principal, at desc);

-- Beyond the bound a minute, refusals are counted; the count is kept.
create table refusal_counts (
  id              uuid primary key,
  principal       text not null,
  minute          timestamptz not null,
  count           integer not null check (count > 0)
);

-- Makes the partitions of the months to come, moves what was refused while a month had none into its own, and drops those
-- that are wholly older than `keep`; gives the number of the dropped. The owner runs it, as often as it likes.
create function maintain_refusals(keep interval) returns integer language plpgsql as $$
declare
  this_month timestamptz := date_trunc('month', now(), 'UTC');
  month timestamptz;
  partition record;
  dropped integer := 0;
begin
  -- Whoever else maintains waits here, and finds it done.
  perform pg_advisory_xact_lock(4711000002);
  for month in
    select (this_month at time zone 'UTC' + i * interval '1 month') at time zone 'UTC' from generate_series(-1, 3) i
    union select distinct date_trunc('month', at, 'UTC') from refusals_other order by 1
  loop
    perform make_refusals_of(month);
  end loop;
  for partition in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'refusals'::regclass and c.relname ~ '^refusals_\d{6}$'
      and to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' < (now() - keep) at time zone 'UTC'
  loop
    execute format('drop table %I', partition.relname);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

-- A partition can't be made while the default one holds rows of its month. Detached, that one loses the trigger that it
-- has from the table, so that rows can leave it; attached again, it gets the trigger back.
create function make_refusals_of(month timestamptz) returns void language plpgsql as $$
declare
  name text := 'refusals_' || to_char(month at time zone 'UTC', 'YYYYMM');
  -- By the calendar of UTC, whatever the session's is.
  following timestamptz := (month at time zone 'UTC' + interval '1 month') at time zone 'UTC';
begin
  if to_regclass(name) is not null then return; end if;
  lock table refusals in access exclusive mode;
  alter table refusals detach partition refusals_other;
  execute format('create table %I partition of refusals for values from (%L) to (%L)', name, month, following);
  with moved as (delete from refusals_other where at >= month and at < following returning *)
  insert into refusals select * from moved;
  alter table refusals attach partition refusals_other default;
end $$;
create table refusals_other partition of refusals default;
select maintain_refusals('90 days');

select make_append_only(t) from unnest(array['principals', 'principal_closures', 'tokens', 'token_revocations', 'grants',
  'grant_revocations', 'authorities', 'issuers', 'issuer_states', 'profiles', 'entries', 'intents', 'outcomes',
  'certificate_names', 'refusals', 'refusal_counts']::regclass[]) t;

-- Rights ------------------------------------------------------------------------------------------------------------

-- What the serving role may do: read, insert, move the head, keep caches. Nothing else. `chancery migrate` calls it.
create function grant_serving(serving name) returns void language plpgsql as $$
begin
  if serving = current_user then return; end if;   -- development with one role: the triggers alone guard the records
  execute format('revoke all on all tables in schema public from %I', serving);
  execute format('grant usage on schema public to %I', serving);
  execute format('grant select, insert on all tables in schema public to %I', serving);
  execute format('revoke insert on roll, reconciled from %I', serving);
  execute format('revoke insert on schema_migrations from %I', serving);
  execute format('grant update (size, time) on roll to %I', serving);
  execute format('grant update (until) on reconciled to %I', serving);
  execute format('grant update (used_at) on token_uses to %I', serving);
end $$;
revoke all on function grant_serving(name), maintain_refusals(interval), make_refusals_of(timestamptz) from public;
