-- Lists of what is revoked, one for each shard of each issuer, and those that offline roots have signed.

-- What a list says is fixed, and on record, before the key is touched: by its digest, and by what it was made of. `covers`
-- entries of the roll were known to it; what it holds follows from them (src/ca/crl.ts).
create table crls (
  issuer        text not null references issuers,
  shard         integer not null check (shard >= 0),
  number        bigint not null check (number > 0),
  covers        bigint not null check (covers >= 0),
  this_update   timestamptz not null,
  next_update   timestamptz not null,
  revoked       integer not null check (revoked >= 0),
  tbs_sha256    bytea not null check (octet_length(tbs_sha256) = 32),
  primary key (issuer, shard, number),
  check (next_update > this_update)
);

-- However many write lists, and whatever their clocks say: the numbers of a shard have no gap, and a newer list knows no
-- less than an older one, and is not dated before it.
create function follow_the_last_list() returns trigger language plpgsql as $$
declare
  last crls;
begin
  select * into last from crls where issuer = new.issuer and shard = new.shard order by number desc limit 1;
  if new.number <> coalesce(last.number, 0) + 1 or new.covers < last.covers or new.this_update < last.this_update then
    raise exception 'list % of % would not follow list %', new.number, new.issuer || '/' || new.shard, last.number
      using errcode = 'restrict_violation', constraint = 'crls_follow';
  end if;
  return new;
end $$;
create trigger follow_the_last_list before insert on crls for each row execute function follow_the_last_list();

-- A cache: the newest signed list of each shard, for every replica to serve. Losing it costs a new list.
create table crl_files (
  issuer        text not null,
  shard         integer not null,
  number        bigint not null,
  revoked       integer not null,
  der           bytea not null,
  changed_at    timestamptz not null default clock_timestamp(),
  primary key (issuer, shard)
) with (fillfactor = 50);
alter table crl_files alter column der set storage external;
create index crl_files_by_change on crl_files (changed_at);

create function only_newer() returns trigger language plpgsql as $$
begin
  if new.issuer <> old.issuer or new.shard <> old.shard or new.number <= old.number then
    raise exception 'a list is only replaced by a newer one' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger only_newer before update on crl_files for each row execute function only_newer();

-- Lists that were signed elsewhere: of the CAs above our issuers, by the SHA-256 of the signer's SubjectPublicKeyInfo.
create table imported_crls (
  signer        bytea not null check (octet_length(signer) = 32),
  number        numeric(49) not null check (number >= 0),
  this_update   timestamptz not null,
  next_update   timestamptz not null,
  der           bytea not null,
  entry         bigint not null unique,
  primary key (signer, number)
);

select make_append_only(t) from unnest(array['crls', 'imported_crls']::regclass[]) t;

create or replace function grant_serving(serving name) returns void language plpgsql as $$
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
  execute format('grant update (holder, until) on leases to %I', serving);
  execute format('grant update (number, revoked, der, changed_at) on crl_files to %I', serving);
end $$;
