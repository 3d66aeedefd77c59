-- What keeps certificates with and without approvals apart, holds what was approved to its time and its profile, and makes it
-- cheap to look at what waits.

-- Where each request stands, so that nobody has to look for what is open among all that there ever was. It follows from the
-- other tables, by the triggers below; the serving role changes it through them and `postpone_request` alone.
create table approval_standings (
  request     uuid primary key references approval_requests,
  entry       bigint not null,               -- of the request
  principal   text not null,
  profile     text not null,
  expires_at  timestamptz not null,
  state       text not null,                 -- pending, approved, or the kind of its end
  look_at     timestamptz not null,          -- while it is open: when there may be something to do about it
  ended_at    timestamptz,
  tries       integer not null default 0,    -- that came to nothing
  tried_at    timestamptz,                   -- with what came in the way of the last
  code        text,
  detail      text
);
create index approval_standings_due on approval_standings (look_at) where state in ('pending', 'approved');
create index approval_standings_by_state on approval_standings (state, entry desc);
create index approval_standings_by_principal on approval_standings (state, principal, entry desc);
create index approval_standings_by_profile on approval_standings (state, profile, entry desc);

insert into approval_standings (request, entry, principal, profile, expires_at, state, look_at, ended_at)
select r.id, r.entry, r.principal, r.profile, r.expires_at, coalesce(e.kind, case when a.count >= r.required then 'approved' else 'pending' end),
  case when a.count >= r.required or r.ask is null then '-infinity' else r.expires_at end, e.at
from approval_requests r left join approval_ends e on e.request = r.id
cross join lateral (select count(*) from approvals where request = r.id and principal <> r.principal) a;

-- The time by which a request expires: as for events, the database's clock, and never before the last event. So nothing is
-- open again because a clock went back.
create function approval_time() returns timestamptz language sql volatile as $$
  select greatest(clock_timestamp(), (select time from roll where id = 1))
$$;

create function follow_request() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into approval_standings (request, entry, principal, profile, expires_at, state, look_at)
  values (new.id, new.entry, new.principal, new.profile, new.expires_at, 'pending',
    case when new.ask is null then '-infinity' else new.expires_at end);
  return null;
end $$;
create trigger follow_request after insert on approval_requests for each row execute function follow_request();

-- Whoever gives the last approval carries it out; others look when that one should have done so.
create function follow_approval() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  update approval_standings s set state = 'approved', look_at = least(s.look_at, clock_timestamp() + interval '1 second')
  from approval_requests r
  where s.request = new.request and s.state = 'pending' and r.id = s.request
    and r.required <= (select count(*) from approvals a where a.request = r.id and a.principal <> r.principal);
  return null;
end $$;
create trigger follow_approval after insert on approvals for each row execute function follow_approval();

create function follow_end() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  update approval_standings set state = new.kind, ended_at = new.at where request = new.request;
  return null;
end $$;
create trigger follow_end after insert on approval_ends for each row execute function follow_end();

-- Looked at and not ended: the next look is ever later, by a minute at most, and when it expires.
create function postpone_request(wanted uuid, told_code text, told_detail text) returns void
language sql volatile security definer set search_path = public, pg_temp as $$
  update approval_standings set tries = tries + 1, look_at = case when expires_at > clock_timestamp()
      then least(expires_at, clock_timestamp() + least(60, power(2, least(tries, 6))) * interval '1 second')
      else clock_timestamp() + least(60, power(2, least(tries, 6))) * interval '1 second' end,
    tried_at = case when told_code is null then tried_at else clock_timestamp() end,
    code = coalesce(told_code, code), detail = case when told_code is null then detail else told_detail end
  where request = wanted and state in ('pending', 'approved')
$$;

-- Who asked may withdraw it.
alter table approval_ends
  drop constraint approval_ends_kind_check,
  drop constraint approval_ends_check2,
  add constraint approval_ends_kind_check check (kind in ('issued', 'rejected', 'withdrawn', 'expired', 'failed')),
  add constraint approval_ends_by_check check ((kind in ('rejected', 'withdrawn')) = (by is not null));

-- One key, one way: what was put before people is issued as they approve it or not at all, and what was tried without them
-- is not put before them. Whoever inserts the one waits for whoever inserts the other, of the same principal.
create function assert_not_direct() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(4711003, hashtext(new.principal));
  if exists (select from intents i where i.principal = new.principal and i.idempotency_key = new.idempotency_key) then
    raise exception 'under this key of % something was tried without approvals', new.principal
      using errcode = 'restrict_violation', constraint = 'requests_not_direct';
  end if;
  return new;
end $$;
create trigger not_direct before insert on approval_requests for each row
  execute function assert_not_direct();

-- As before, and: what was approved is issued under the key of its request, under the version of the profile that it was
-- approved for, by as many as that asks for, and before it expires.
drop function assert_approved(uuid, text, bytea, bytea);
create function assert_approved(wanted uuid, asker text, key text, of_profile text, of_version integer, planned bytea, own bytea)
returns void language plpgsql as $$
begin
  perform lock_approval(wanted);
  if not exists (select from approval_requests r join profiles p on p.name = r.profile and p.version = r.profile_version
      where r.id = wanted and r.principal = asker and r.plan = planned and r.profile = of_profile and r.profile_version = of_version
      and r.required >= p.approvals
      and r.required <= (select count(*) from approvals a where a.request = r.id and a.principal <> r.principal)
      and r.idempotency_key = key and approval_time() < r.expires_at)
    or exists (select from approval_ends where request = wanted)
    or exists (select from intents i join outcomes o using (serial) where i.approval = wanted and i.serial <> own and o.kind = 'certificate')
  then
    raise exception 'request % is not approved so, or has ended', wanted
      using errcode = 'restrict_violation', constraint = 'intents_approved';
  end if;
end $$;

-- As before, and: what is issued without approvals has no key under which people were asked. For whoever never asked any,
-- that is a lock that leaves no trace on disk and one look into an index for all intents of a principal; no trigger of a
-- row is fired.
create or replace function assert_known_origins() returns trigger language plpgsql as $$
begin
  if exists (select from (
      select distinct principal, issuer, profile, profile_version, approval is null as is_direct
      from added) a
    where not exists (select from principals p where p.name = a.principal)
      or not exists (select from issuers i where i.name = a.issuer)
      or not exists (select from profiles p where p.name = a.profile and p.version = a.profile_version
        and (p.approvals = 0 or not a.is_direct))) then
    raise exception 'an intent names a principal, an issuer or a profile version that does not exist, or lacks its approvals'
      using errcode = 'foreign_key_violation';
  end if;
  perform pg_advisory_xact_lock_shared(4711003, hashtext(a.principal))
    from (select distinct principal from added where approval is null and idempotency_key is not null order by principal) a;
  -- (A new statement, which sees what was committed until the locks were there. `limit 1` keeps each a walk down an index.)
  if found and exists (
    select from (select distinct principal from added where approval is null and idempotency_key is not null) who
    cross join lateral (select from approval_requests r where r.principal = who.principal limit 1) any_request
    join added a on a.principal = who.principal and a.approval is null and a.idempotency_key is not null
    where (select r.entry from approval_requests r
      where r.principal = a.principal and r.idempotency_key = a.idempotency_key limit 1) is not null) then
    raise exception 'under this key people were asked'
      using errcode = 'restrict_violation', constraint = 'intents_not_asked';
  end if;
  perform assert_approved(a.approval, a.principal, a.idempotency_key, a.profile, a.profile_version, a.plan, a.serial)
    from (select * from added where approval is not null order by approval) a;
  return null;
end $$;
