-- What guards each batch looks its rows up by themselves. For `not exists` the planner may read all there are, in the order of
-- an index: intents, once statistics say that there are few (in a young database each batch read all that had come before it:
-- 2.9 → 11 ms for 14, until autovacuum had looked); and principals and issuers always, for a few of ten thousand. `limit 1`
-- keeps it a walk down an index, as long as tables are not read as a whole (store/database.ts).
create or replace function assert_known_intents() returns trigger language plpgsql as $$
begin
  if exists (select from added a where (select true from public.intents i where i.serial = a.serial limit 1) is null) then
    raise exception 'an outcome is of no intent' using errcode = 'foreign_key_violation';
  end if;
  return null;
end $$;

create or replace function assert_known_origins() returns trigger language plpgsql as $$
begin
  if exists (select from (
      select distinct principal, issuer, profile, profile_version, approval is null as is_direct
      from added) a
    where (select true from public.principals p where p.name = a.principal limit 1) is null
      or (select true from public.issuers i where i.name = a.issuer limit 1) is null
      or (select true from public.profiles p where p.name = a.profile and p.version = a.profile_version
        and (p.approvals = 0 or not a.is_direct) limit 1) is null) then
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
