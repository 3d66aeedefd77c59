-- Requests that wait for people: who asked for what, who approved exactly that, and what became of it.

-- How many must approve what a version of a profile yields. (Neither this nor the next column costs an issuance anything
-- that waits for nobody.)
alter table profiles add column approvals integer not null
  generated always as (coalesce((document::json #>> '{approvals,required}')::integer, 0)) stored;

-- The request that an intent carries out, where people had to approve it.
alter table intents add column approval uuid;
create index intents_by_approval on intents (approval) where approval is not null;

-- A request as it was decided when it came. `ask` is what was asked, to be decided again at the last approval; it is on no
-- roll.
create table approval_requests (
  id              uuid primary key,
  entry           bigint not null unique check (entry >= 0),   -- of its event
  principal       text not null references principals,
  idempotency_key text not null check (length(idempotency_key) between 1 and 128),
  digest          bytea not null check (octet_length(digest) = 32),   -- as in intents
  profile         text not null,
  profile_version integer not null,
  ask             json not null,
  decided         text not null,             -- canonical JSON of the plan; `plan` is over these bytes
  plan            bytea not null check (plan = sha256(convert_to(decided, 'UTF8'))),
  required        integer not null check (required > 0),
  created_at      timestamptz not null,
  expires_at      timestamptz not null,
  foreign key (profile, profile_version) references profiles,
  unique (principal, idempotency_key)
);
create index approval_requests_by_principal on approval_requests (principal, entry desc);
create index approval_requests_by_profile on approval_requests (profile, entry desc);

-- One of each person; the request's own principal is none of them.
create table approvals (
  request         uuid not null references approval_requests,
  principal       text not null references principals,
  entry           bigint not null unique check (entry >= 0),
  at              timestamptz not null,
  reason          text not null,
  primary key (request, principal)
);

-- The one row that ends a request.
create table approval_ends (
  request         uuid primary key references approval_requests,
  kind            text not null check (kind in ('issued', 'rejected', 'expired', 'failed')),
  entry           bigint unique check (entry >= 0),   -- of its event; a certificate has its own
  serial          bytea,
  at              timestamptz not null,
  by              text,
  code            text,
  reason          text,
  check ((kind = 'issued') = (serial is not null) and (kind = 'issued') = (entry is null)),
  check ((kind = 'failed') = (code is not null)),
  check ((kind = 'rejected') = (by is not null))
);

select make_append_only(t) from unnest(array['approval_requests', 'approvals', 'approval_ends']::regclass[]) t;

-- Whoever records an intent for a request, and whoever ends it, waits for the other: so that no request is issued after it
-- has ended, and none ends otherwise while its certificate may come to be. (Each statement in these functions sees what was
-- committed until then.)
create function lock_approval(request uuid) returns void language sql as $$
  select pg_advisory_xact_lock(hashtextextended(request::text, 4711000017))
$$;

create function assert_may_end() returns trigger language plpgsql as $$
begin
  perform lock_approval(new.request);
  if new.kind = 'issued' then
    if not exists (select from intents i join outcomes o using (serial)
      where i.approval = new.request and i.serial = new.serial and o.kind = 'certificate') then
      raise exception 'request % has not become this certificate', new.request using errcode = 'restrict_violation';
    end if;
  elsif exists (select from intents i left join outcomes o using (serial)
    where i.approval = new.request and (o.serial is null or o.kind = 'certificate')) then
    raise exception 'request % is being issued', new.request using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger may_end before insert on approval_ends for each row execute function assert_may_end();

create function assert_approved(wanted uuid, asker text, planned bytea, own bytea) returns void language plpgsql as $$
begin
  perform lock_approval(wanted);
  if not exists (select from approval_requests r where r.id = wanted and r.principal = asker and r.plan = planned
      and r.required <= (select count(*) from approvals a where a.request = r.id and a.principal <> r.principal))
    or exists (select from approval_ends where request = wanted)
    or exists (select from intents i join outcomes o using (serial) where i.approval = wanted and i.serial <> own and o.kind = 'certificate')
  then
    raise exception 'request % is not approved so, or has ended', wanted using errcode = 'restrict_violation';
  end if;
end $$;

-- As in the first migration, and: what a profile wants approved is recorded for an approved request only, of the very plan
-- that was approved.
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
  perform assert_approved(a.approval, a.principal, a.plan, a.serial)
    from (select approval, principal, plan, serial from added where approval is not null order by approval) a;
  return null;
end $$;
