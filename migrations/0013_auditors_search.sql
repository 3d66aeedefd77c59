-- The auditor's search: combinations of filters whose cost does not grow with the records, and who has searched.

-- Certificates --------------------------------------------------------------------------------------------------------

-- Wider indexes in place of narrow ones, none more: a certificate costs as many insertions as before. Those of a principal
-- lie in one list for each of its profiles and issuers, each list along the roll. There are few such lists, and they are
-- found by skipping from one to the next, so that a search by any of the three walks only what it finds.
--
-- As in the second migration the old ones go last, and everybody may read until then.
create index certificates_of_principal on outcomes (principal, profile, issuer, entry) where kind = 'certificate';
create index certificates_of_profile on outcomes (profile, issuer, entry) where kind = 'certificate';
create index certificates_of_key on outcomes (key_sha256, principal, entry) where kind = 'certificate';
create index certificates_of_expiry on outcomes (not_after, entry) where kind = 'certificate';
drop index certificates_along_principal, certificates_along_profile, certificates_along_key, certificates_by_expiry;

-- Events --------------------------------------------------------------------------------------------------------------

-- Whom an event is about, and who did it. Issuances, nearly all there is, have no body, and are found by their outcome.
create index entries_by_principal on entries ((body::jsonb->>'principal'), type, index)
  where body::jsonb->>'principal' is not null;
create index entries_by_actor on entries ((body::jsonb->>'by'), type, index) where body::jsonb->>'by' is not null;

-- Refusals ------------------------------------------------------------------------------------------------------------

create index refusals_by_digest on refusals (digest);

-- Accesses ------------------------------------------------------------------------------------------------------------

-- Who has looked at the records of others: a row for each search, and for each export one when it begins and one when it
-- has ended. Rows, not entries, and kept by month like refusals.
create table accesses (
  id          uuid not null,
  at          timestamptz not null default clock_timestamp(),
  principal   text not null,
  act         text not null check (act in ('searched', 'began', 'completed', 'broke')),
  records     text not null check (records in ('certificates', 'events', 'refusals', 'accesses')),
  filter      jsonb not null,                -- as it was asked
  continues   boolean not null,              -- goes on from the page before
  format      text not null check (format in ('json', 'ndjson', 'csv')),
  size        bigint not null check (size >= 0),   -- of the roll that the answer is bound to
  rows        bigint check (rows >= 0),      -- null while an export goes on
  export      uuid check ((act in ('completed', 'broke')) = (export is not null)),   -- the row that began it
  primary key (at, id),
  check ((act = 'began') = (rows is null))
) partition by range (at);
create index accesses_by_principal on accesses (principal, at desc);
create index accesses_by_records on accesses (records, at desc);
create table accesses_other partition of accesses default;
select make_append_only('accesses');

-- Months --------------------------------------------------------------------------------------------------------------

-- What the second migration does for refusals, for any table that is partitioned by `at` and has a default partition of
-- its own name and `_other`.

drop function maintain_refusals(interval), make_refusals_of(timestamptz), adopt_refusals(), refusal_partitions();

-- The partitions, but for the default one, with their bounds.
create function month_partitions(target regclass) returns table (name name, lower timestamptz, upper timestamptz)
language sql stable set datestyle = 'ISO' set timezone = 'UTC' as $$
  select c.relname, bounds[1]::timestamptz, bounds[2]::timestamptz
  from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.+)''\) TO \(''(.+)''\)') bounds
  where i.inhparent = target and bounds is not null
$$;

-- What came while its month had no partition lies in the default one. That becomes a partition as it is, for all of its
-- months, unless one of them has a partition already: no row is moved, and all wait for no more than a look through it.
create function adopt_other(target regclass) returns void language plpgsql as $$
declare
  other text := target::text || '_other';
  first timestamptz;
  past timestamptz;
  name text;
begin
  execute format('select min(at) from %I', other) into first;
  if first is null then return; end if;
  execute format('lock table %s in access exclusive mode', target);
  execute format('select date_trunc(''month'', min(at), ''UTC''), month_after(max(at)) from %I', other) into first, past;
  if exists (select from month_partitions(target) p where p.lower < past and p.upper > first) then return; end if;
  name := format('%s_%s_%s', target::text, to_char(first at time zone 'UTC', 'YYYYMM'),
    to_char(past at time zone 'UTC' - interval '1 month', 'YYYYMM'));
  execute format('alter table %s detach partition %I', target, other);
  execute format('alter table %I rename to %I', other, name);
  execute format('alter table %s attach partition %I for values from (%L) to (%L)', target, name, first, past);
  execute format('create table %I partition of %s default', other, target);
end $$;

-- A partition can't be made while the default one holds rows of its month. Detached, that one loses the trigger that it
-- has from the table, so that rows can leave it; attached again, it gets the trigger back.
create function make_month(target regclass, month timestamptz) returns void language plpgsql as $$
declare
  other text := target::text || '_other';
  name text := target::text || '_' || to_char(month at time zone 'UTC', 'YYYYMM');
  following timestamptz := month_after(month);
begin
  if exists (select from month_partitions(target) p where p.lower <= month and month < p.upper) then return; end if;
  execute format('lock table %s in access exclusive mode', target);
  execute format('alter table %s detach partition %I', target, other);
  execute format('create table %I partition of %s for values from (%L) to (%L)', name, target, month, following);
  execute format('with moved as (delete from %I where at >= %L and at < %L returning *) insert into %s select * from moved',
    other, month, following, target);
  execute format('alter table %s attach partition %I default', target, other);
end $$;

-- Makes the partitions of the months to come, gives a place to what came while a month had none, and drops those that are
-- wholly older than `keep`; gives the number of the dropped. The owner runs it, as often as it likes.
create function maintain_months(target regclass, keep interval) returns integer language plpgsql as $$
declare
  this_month timestamptz := date_trunc('month', now(), 'UTC');
  month timestamptz;
  partition record;
  dropped integer := 0;
begin
  -- Whoever else maintains waits here, and finds it done.
  perform pg_advisory_xact_lock(4711000002);
  perform adopt_other(target);
  for month in execute format(
    'select (%L::timestamptz at time zone ''UTC'' + i * interval ''1 month'') at time zone ''UTC'' from generate_series(-1, 3) i
     union select distinct date_trunc(''month'', at, ''UTC'') from %I order by 1', this_month, target::text || '_other')
  loop
    perform make_month(target, month);
  end loop;
  for partition in select p.name from month_partitions(target) p where p.upper < now() - keep loop
    execute format('drop table %I', partition.name);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

create function maintain_refusals(keep interval) returns integer language sql as $$ select maintain_months('refusals', keep) $$;
create function maintain_accesses(keep interval) returns integer language sql as $$ select maintain_months('accesses', keep) $$;
select maintain_accesses('90 days');

revoke all on function month_partitions(regclass), adopt_other(regclass), make_month(regclass, timestamptz),
  maintain_months(regclass, interval), maintain_refusals(interval), maintain_accesses(interval) from public;
