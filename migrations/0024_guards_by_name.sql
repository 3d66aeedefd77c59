-- What the guards of the records look at is what lies in `public`, whoever asks and whatever else bears the same names.

-- A function without a search_path of its own is run with that of its caller, and in each of them temporary tables come
-- first: whoever serves could make one called `profiles`, by which no profile wants approvals. So names are written out in
-- each function that a caller runs as himself (a search_path of its own would be set anew at each call, on the way of every
-- certificate), and nobody has the right to temporary tables (below).

create or replace function fill_the_room() returns trigger language plpgsql as $$
declare
  first bigint; last bigint; n bigint; head bigint;
begin
  select min(index), max(index), count(*) into first, last, n from added;
  if n = 0 then return null; end if;
  select size into head from public.roll where id = 1;
  if last <> head - 1 or last - first + 1 <> n or (first > 0 and not exists (select from public.entries where index = first - 1)) then
    raise exception 'entries % to % leave a gap before size %', first, last, head using errcode = 'restrict_violation';
  end if;
  return null;
end $$;

create or replace function assert_head_is_last() returns trigger language plpgsql as $$
declare
  head public.roll; last public.entries; l integer := 1; complete bigint;
begin
  select * into head from public.roll where id = 1;
  select * into last from public.entries order by index desc limit 1;
  if head.size <> coalesce(last.index + 1, 0) or head.time <> coalesce(last.time, head.time) then
    raise exception 'the head of the roll is not behind its last entry' using errcode = 'restrict_violation';
  end if;
  complete := head.size / 256;
  while complete > 0 loop
    if not exists (select from public.subtrees where level = l and index = complete - 1) then
      raise exception 'subtree % of level % is missing', complete - 1, l using errcode = 'restrict_violation';
    end if;
    complete := complete / 256;
    l := l + 1;
  end loop;
  return null;
end $$;

create or replace function follow_the_last_subtree() returns trigger language plpgsql as $$
begin
  if new.index > 0 and not exists (select from public.subtrees where level = new.level and index = new.index - 1)
    or (new.index + 1) * power(256, new.level) > (select size from public.roll where id = 1) then
    raise exception 'subtree % of level % does not follow', new.index, new.level using errcode = 'restrict_violation';
  end if;
  return null;
end $$;

create or replace function first_entry_from(t timestamptz) returns bigint language plpgsql stable as $$
declare
  low bigint := 0;
  high bigint := (select size from public.roll where id = 1);
  middle bigint;
begin
  while low < high loop
    middle := (low + high) / 2;
    if (select time from public.entries where index = middle) < t then low := middle + 1; else high := middle; end if;
  end loop;
  return low;
end $$;

create or replace function follow_the_last_list() returns trigger language plpgsql as $$
declare
  last public.crls;
begin
  select * into last from public.crls where issuer = new.issuer and shard = new.shard order by number desc limit 1;
  if new.number <> coalesce(last.number, 0) + 1 or new.covers < last.covers or new.this_update < last.this_update then
    raise exception 'list % of % would not follow list %', new.number, new.issuer || '/' || new.shard, last.number
      using errcode = 'restrict_violation', constraint = 'crls_follow';
  end if;
  return new;
end $$;

create or replace function state_for_intent(wanted text) returns text language plpgsql volatile as $$
begin
  perform pg_advisory_xact_lock_shared(4711000004);
  return (select state from public.issuer_states where issuer = wanted order by id desc limit 1);
end $$;

create or replace function row_of(certificate bytea) returns setof bytea language sql stable rows 10 as $$
  with began as (select coalesce(first, serial) as first from public.intents where serial = certificate)
  select first from began union all select i.serial from began join public.intents i using (first)
$$;

create or replace function open_orders_of(certificate bigint, out ordered_at timestamptz, out bars boolean)
returns setof record language sql stable as $$
  select m.ordered_at, m.reason not in ('unspecified', 'superseded')
  from public.mass_revocations m
    cross join lateral (
      select certificates from public.mass_revocation_slices
      where plan = m.plan and certificates[1] <= certificate order by certificates[1] desc limit 1
    ) slice
  where not exists (select from public.mass_revocation_outcomes o where o.plan = m.plan and o.number = m.slices - 1)
    and certificate = any (slice.certificates)
$$;

create or replace function standing_of_held(held bytea) returns text language plpgsql volatile as $$
declare
  c public.outcomes;
begin
  select * into c from public.outcomes where serial = held and kind = 'certificate';
  return case
    when (select change <> 'released' from public.revocations where serial = held order by entry desc limit 1) then 'revoked'
    when exists (select from public.principal_closures p where p.principal = c.principal) then 'closed'
    when exists (select from public.compromised_keys k where k.key_sha256 = c.key_sha256) then 'stolen'
    when exists (select from public.open_orders_of(c.entry) o where o.bars) then 'ordered'
  end;
end $$;

alter function hold_ledger(text, text, bigint) set search_path = public, pg_temp;   -- it has settings of its own already

create or replace function assert_known_intents() returns trigger language plpgsql as $$
begin
  if exists (select from added a where not exists (select from public.intents i where i.serial = a.serial)) then
    raise exception 'an outcome is of no intent' using errcode = 'foreign_key_violation';
  end if;
  return null;
end $$;

create or replace function approval_time() returns timestamptz language sql volatile as $$
  select greatest(clock_timestamp(), (select time from public.roll where id = 1))
$$;

create or replace function assert_may_end() returns trigger language plpgsql as $$
begin
  perform public.lock_approval(new.request);
  if new.kind = 'issued' then
    if not exists (select from public.intents i join public.outcomes o using (serial)
      where i.approval = new.request and i.serial = new.serial and o.kind = 'certificate') then
      raise exception 'request % has not become this certificate', new.request using errcode = 'restrict_violation';
    end if;
  elsif exists (select from public.intents i left join public.outcomes o using (serial)
    where i.approval = new.request and (o.serial is null or o.kind = 'certificate')) then
    raise exception 'request % is being issued', new.request using errcode = 'restrict_violation';
  end if;
  return new;
end $$;

create or replace function assert_not_direct() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(4711003, hashtext(new.principal));
  if exists (select from public.intents i where i.principal = new.principal and i.idempotency_key = new.idempotency_key) then
    raise exception 'under this key of % something was tried without approvals', new.principal
      using errcode = 'restrict_violation', constraint = 'requests_not_direct';
  end if;
  return new;
end $$;

-- As before, and: whoever has asked, and those who have approved, may still do so; one intent at a time may become the
-- certificate.
create or replace function assert_approved(wanted uuid, asker text, key text, of_profile text, of_version integer, planned bytea, own bytea)
returns void language plpgsql as $$
begin
  perform public.lock_approval(wanted);
  if not exists (select from public.approval_requests r join public.profiles p on p.name = r.profile and p.version = r.profile_version
      where r.id = wanted and r.principal = asker and r.plan = planned and r.profile = of_profile and r.profile_version = of_version
      and r.required >= p.approvals
      and r.required <= (select count(*) from public.approvals a where a.request = r.id and a.principal <> r.principal
        and public.may_approve(a.principal, r.profile))
      and r.idempotency_key = key and public.approval_time() < r.expires_at
      and not exists (select from public.principal_closures c where c.principal = r.principal))
    or exists (select from public.approval_ends where request = wanted)
    or exists (select from public.intents i left join public.outcomes o using (serial)
      where i.approval = wanted and i.serial <> own and (o.kind = 'certificate' or o.serial is null))
  then
    raise exception 'request % is not approved so, or has ended', wanted
      using errcode = 'restrict_violation', constraint = 'intents_approved';
  end if;
end $$;

create function may_approve(who text, of_profile text) returns boolean language sql stable as $$
  select not exists (select from public.principal_closures c where c.principal = who)
    and exists (select from public.grants g where g.principal = who and g.role = 'approver' and of_profile = any (g.profiles)
      and not exists (select from public.grant_revocations r where r.grant_id = g.id))
$$;

-- An approval is one that is on the roll: its entry comes in the same transaction, after it.
create function assert_approval_is_told() returns trigger language plpgsql as $$
begin
  if not exists (select from public.entries e where e.index = new.entry and e.type = 'request.approved'
    and e.body::json->>'id' = new.request::text and e.body::json->>'by' = new.principal) then
    raise exception 'the approval of request % by % is not on the roll', new.request, new.principal
      using errcode = 'restrict_violation', constraint = 'approvals_told';
  end if;
  return null;
end $$;
create constraint trigger is_told after insert on approvals deferrable initially deferred
  for each row execute function assert_approval_is_told();

create or replace function assert_known_origins() returns trigger language plpgsql as $$
begin
  if exists (select from (
      select distinct principal, issuer, profile, profile_version, approval is null as is_direct
      from added) a
    where not exists (select from public.principals p where p.name = a.principal)
      or not exists (select from public.issuers i where i.name = a.issuer)
      or not exists (select from public.profiles p where p.name = a.profile and p.version = a.profile_version
        and (p.approvals = 0 or not a.is_direct))) then
    raise exception 'an intent names a principal, an issuer or a profile version that does not exist, or lacks its approvals'
      using errcode = 'foreign_key_violation';
  end if;
  perform pg_advisory_xact_lock_shared(4711003, hashtext(a.principal))
    from (select distinct principal from added where approval is null and idempotency_key is not null order by principal) a;
  -- (A new statement, which sees what was committed until the locks were there. `limit 1` keeps each a walk down an index.)
  if found and exists (
    select from (select distinct principal from added where approval is null and idempotency_key is not null) who
    cross join lateral (select from public.approval_requests r where r.principal = who.principal limit 1) any_request
    join added a on a.principal = who.principal and a.approval is null and a.idempotency_key is not null
    where (select r.entry from public.approval_requests r
      where r.principal = a.principal and r.idempotency_key = a.idempotency_key limit 1) is not null) then
    raise exception 'under this key people were asked'
      using errcode = 'restrict_violation', constraint = 'intents_not_asked';
  end if;
  perform public.assert_approved(a.approval, a.principal, a.idempotency_key, a.profile, a.profile_version, a.plan, a.serial)
    from (select * from added where approval is not null order by approval) a;
  return null;
end $$;

-- What runs with the rights of the owner is for whoever serves, and for nobody else.
revoke execute on function postpone_request(uuid, text, text), note_replica(uuid), take_rate(text, integer, integer),
  take_slots(uuid, text, integer, integer), forget_replica(uuid) from public;

-- As before, and: nobody who serves makes temporary tables. (PostgreSQL lets everybody, in each new database; so it is taken
-- back each time that is migrated. Whoever does not own the database cannot: then production says so.)
create or replace function grant_serving(serving name) returns void language plpgsql as $$
begin
  if serving = current_user then return; end if;   -- development with one role: the triggers alone guard the records
  execute format('revoke all on all tables in schema public from %I', serving);
  execute format('grant usage on schema public to %I', serving);
  execute format('grant select, insert on all tables in schema public to %I', serving);
  execute format('revoke insert on roll, reconciled from %I', serving);
  execute format('revoke insert on schema_migrations from %I', serving);
  execute format('grant update (size, time, root) on roll to %I', serving);
  execute format('grant update (until) on reconciled to %I', serving);
  execute format('grant update (used_at) on token_uses to %I', serving);
  execute format('grant update (holder, until) on leases to %I', serving);
  execute format('grant update (number, revoked, der, changed_at) on crl_files to %I', serving);
  execute format('grant execute on function postpone_request(uuid, text, text), note_replica(uuid),
    take_rate(text, integer, integer), take_slots(uuid, text, integer, integer), forget_replica(uuid) to %I', serving);
  if (select pg_has_role(datdba, 'usage') from pg_database where datname = current_database()) then
    execute format('revoke temporary on database %I from public, %I', current_database(), serving);
  end if;
end $$;

-- What was approved or ended while 0019 was applied came after its look, and before its triggers: what stands there since is
-- not what the records say.
lock table approval_requests, approvals, approval_ends in share row exclusive mode;
insert into approval_standings (request, entry, principal, profile, expires_at, state, look_at)
select r.id, r.entry, r.principal, r.profile, r.expires_at, 'pending',
  case when r.ask is null then '-infinity' else r.expires_at end
from approval_requests r where not exists (select from approval_standings s where s.request = r.id);
update approval_standings s set state = known.state, ended_at = known.at, look_at = least(s.look_at, clock_timestamp())
from (
  select r.id, e.at, coalesce(e.kind, case when r.required <= (select count(*) from approvals a
    where a.request = r.id and a.principal <> r.principal) then 'approved' else 'pending' end) as state
  from approval_requests r left join approval_ends e on e.request = r.id
) known
where known.id = s.request and known.state <> s.state;
