-- Searches whose cost does not grow with the records, refusals with every check, and months that were made too late.

-- Certificates --------------------------------------------------------------------------------------------------------

-- Each of these searches is a range of its index, read backwards: both columns go the same way, so that a comparison of
-- rows finds both of its ends. (With `entry desc` in them, the entry only filtered what the first column had found.) New
-- entries come at the end of their range, which leaves the pages behind them full.
--
-- 128 characters of a subject fit into an index entry, however long the rest is. Before, a hash index kept equal subjects
-- in one chain, and walked it at every insert.
--
-- The old ones go last: until then everybody may read, and only whoever records a certificate waits.
create index certificates_along_principal on outcomes (principal, entry) where kind = 'certificate';
create index certificates_along_profile on outcomes (profile, entry) where kind = 'certificate';
create index certificates_along_issuer on outcomes (issuer, entry) where kind = 'certificate';
create index certificates_along_subject on outcomes (left(subject, 128) collate "C", entry)
  where kind = 'certificate' and subject <> '';
drop index certificates_by_principal, certificates_by_profile, certificates_by_subject;

-- The index of the first entry that is not before `t`, or the roll's size. Time never falls along the roll, so that
-- halving finds it, and a span of time needs no index of its own: it is a range of entries.
create function first_entry_from(t timestamptz) returns bigint language plpgsql stable as $$
declare
  low bigint := 0;
  high bigint := (select size from roll where id = 1);
  middle bigint;
begin
  while low < high loop
    middle := (low + high) / 2;
    if (select time from entries where index = middle) < t then low := middle + 1; else high := middle; end if;
  end loop;
  return low;
end $$;

-- Refusals ------------------------------------------------------------------------------------------------------------

create index refusals_by_code on refusals (code, at desc);
create index refusals_by_profile on refusals (profile, at desc);

-- Every check of a refused decision, up to a bound; null where none was made, and in rows of before.
alter table refusals add column checks jsonb;
alter table refusals add column checks_left_out integer not null default 0 check (checks_left_out >= 0);

-- The partitions, but for the default one, with their bounds.
create function refusal_partitions() returns table (name name, lower timestamptz, upper timestamptz)
language sql stable set datestyle = 'ISO' set timezone = 'UTC' as $$
  select c.relname, bounds[1]::timestamptz, bounds[2]::timestamptz
  from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.+)''\) TO \(''(.+)''\)') bounds
  where i.inhparent = 'refusals'::regclass and bounds is not null
$$;

-- By the calendar of UTC, whatever the session's is.
create function month_after(t timestamptz) returns timestamptz language sql immutable as $$
  select (date_trunc('month', t at time zone 'UTC') + interval '1 month') at time zone 'UTC'
$$;

-- What was refused while its month had no partition lies in the default one. That becomes a partition as it is, for all
-- of its months, unless one of them has a partition already: no row is moved, and all wait for no more than a look
-- through it. (Moving 1.5 million rows took longer than a statement may, with nobody able to record a refusal.)
create function adopt_refusals() returns void language plpgsql as $$
declare
  first timestamptz;
  past timestamptz;
  name text;
begin
  if not exists (select from refusals_other) then return; end if;
  lock table refusals in access exclusive mode;
  select date_trunc('month', min(at), 'UTC'), month_after(max(at)) into first, past from refusals_other;
  if exists (select from refusal_partitions() p where p.lower < past and p.upper > first) then return; end if;
  name := format('refusals_%s_%s', to_char(first at time zone 'UTC', 'YYYYMM'),
    to_char(past at time zone 'UTC' - interval '1 month', 'YYYYMM'));
  alter table refusals detach partition refusals_other;
  execute format('alter table refusals_other rename to %I', name);
  execute format('alter table refusals attach partition %I for values from (%L) to (%L)', name, first, past);
  create table refusals_other partition of refusals default;
end $$;

-- As before, but rows stay where they are if they can, and partitions are known by their bounds, not by their names.
create or replace function maintain_refusals(keep interval) returns integer language plpgsql as $$
declare
  this_month timestamptz := date_trunc('month', now(), 'UTC');
  month timestamptz;
  partition record;
  dropped integer := 0;
begin
  -- Whoever else maintains waits here, and finds it done.
  perform pg_advisory_xact_lock(4711000002);
  perform adopt_refusals();
  for month in
    select (this_month at time zone 'UTC' + i * interval '1 month') at time zone 'UTC' from generate_series(-1, 3) i
    union select distinct date_trunc('month', at, 'UTC') from refusals_other order by 1
  loop
    perform make_refusals_of(month);
  end loop;
  for partition in select p.name from refusal_partitions() p where p.upper < now() - keep loop
    execute format('drop table %I', partition.name);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

create or replace function make_refusals_of(month timestamptz) returns void language plpgsql as $$
declare
  name text := 'refusals_' || to_char(month at time zone 'UTC', 'YYYYMM');
  following timestamptz := month_after(month);
begin
  if exists (select from refusal_partitions() p where p.lower <= month and month < p.upper) then return; end if;
  lock table refusals in access exclusive mode;
  alter table refusals detach partition refusals_other;
  execute format('create table %I partition of refusals for values from (%L) to (%L)', name, month, following);
  with moved as (delete from refusals_other where at >= month and at < following returning *)
  insert into refusals select * from moved;
  alter table refusals attach partition refusals_other default;
end $$;

revoke all on function refusal_partitions(), adopt_refusals() from public;
