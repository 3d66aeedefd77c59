-- Limits of who asks: what grants say, and what is counted for them. Nobody without limits has a row in here.

-- Numbers by name (src/policy/limits.ts); null: none.
alter table grants add column limits jsonb check (jsonb_typeof(limits) = 'object');

-- Each intent that was recorded under a grant which limits certificates or names, with running totals, each at least what
-- it truly is: whoever comes next reads the newest row instead of all. A number is had once, so that no two replicas can
-- both have taken the last place. What was there when the first intent of a grant came stands before it, with numbers below
-- zero by its entries, and is complete once there is a row without a serial. That one's number is the time (microseconds),
-- so that a ledger which begins anew goes on above what it had. Kept until nothing of it counts any more: the owner takes
-- rows away.
create table limit_uses (
  grant_id     text not null,                -- of a grant, or of a mapping of an identity provider
  principal    text not null,
  number       bigint not null,
  serial       bytea not null,               -- empty: here the ledger begins
  at           timestamptz not null,
  names        integer not null check (names >= 0),
  not_after    timestamptz not null,
  counts_until timestamptz not null,         -- the end of its day, or of its certificate
  day          date not null,                -- by UTC: of the totals
  certificates integer not null,
  day_names    integer not null,
  alive        integer not null,
  primary key (grant_id, principal, number)
);
create index limit_uses_of_day on limit_uses (grant_id, principal, at);
create index limit_uses_alive on limit_uses (grant_id, principal, not_after);

-- The totals of one grant and principal, which nobody else has until the end of the transaction: for one statement, so
-- that no replica which stands still has them. As they are once it is held, and not when the statement around it began. No
-- number: nothing was counted yet. `more_…` is what rows above `after` add, null where the ledger began anew above it.
create function hold_ledger(wanted text, who text, after bigint, out number bigint, out certificates integer,
  out names integer, out alive integer, out more_certificates integer, out more_names integer, out more_alive integer,
  out present timestamptz, out midnight timestamptz)
language plpgsql volatile set lock_timeout = '250ms' as $$
declare
  today timestamptz;
begin
  perform pg_advisory_xact_lock(4711001, hashtext(wanted || chr(10) || who));
  present := clock_timestamp();
  today := date_trunc('day', present, 'UTC');
  midnight := today + interval '1 day';
  select u.number, case when u.day >= (present at time zone 'UTC')::date then u.certificates else 0 end,
      case when u.day >= (present at time zone 'UTC')::date then u.day_names else 0 end, u.alive
    into number, certificates, names, alive
    from limit_uses u where u.grant_id = wanted and u.principal = who and u.number > 0 order by u.number desc limit 1;
  if after is not null then
    select count(*) filter (where u.at >= today), coalesce(sum(u.names) filter (where u.at >= today), 0), count(*)
      into more_certificates, more_names, more_alive
      from limit_uses u where u.grant_id = wanted and u.principal = who and u.number > after
      having bool_and(u.serial <> '') is not false;
  end if;
end $$;

create function maintain_limits() returns bigint language sql as $$
  with gone as (delete from limit_uses where counts_until < now() - interval '1 hour' returning 1) select count(*) from gone
$$;
revoke all on function maintain_limits() from public;

-- What follows is of seconds: after a crash of the server it begins anew, and nothing of it waits for the disk. The
-- serving role changes it through these functions alone.

-- Instances that serve, as they tell every two seconds.
create unlogged table replicas (
  id          uuid primary key,
  seen_at     timestamptz not null
);

create function note_replica(replica uuid) returns integer language plpgsql volatile security definer
set search_path = public, pg_temp as $$
begin
  insert into replicas (id, seen_at) values (replica, clock_timestamp())
  on conflict (id) do update set seen_at = excluded.seen_at;
  delete from replicas where seen_at < clock_timestamp() - interval '1 minute';
  -- A bucket that nobody has touched for so long is full; a lease is of an instance that has crashed.
  delete from rate_buckets where principal in (
    select principal from rate_buckets where at < clock_timestamp() - interval '1 minute' for update skip locked);
  delete from slot_leases where (principal, slot_leases.replica) in (
    select l.principal, l.replica from slot_leases l
    where l.until < clock_timestamp() - interval '1 minute' for update skip locked);
  return (select count(*) from replicas where seen_at > clock_timestamp() - interval '10 seconds');
end $$;

-- What is left of the requests of a principal, up to those of one second.
create unlogged table rate_buckets (
  principal   text primary key,
  tokens      double precision not null,
  at          timestamptz not null
);

-- Takes up to `most` requests of a principal that may have `rate` a second, and says how long it takes until there is
-- another one.
create function take_rate(who text, rate integer, most integer, out taken integer, out wait_ms integer)
language plpgsql volatile security definer set search_path = public, pg_temp as $$
declare
  held rate_buckets;
  present timestamptz;
  available double precision;
begin
  loop
    insert into rate_buckets (principal, tokens, at) values (who, rate, clock_timestamp()) on conflict (principal) do nothing;
    select * into held from rate_buckets where principal = who for update;
    exit when found;
  end loop;
  present := greatest(clock_timestamp(), held.at);
  available := least(rate, held.tokens + rate * extract(epoch from present - held.at));
  taken := least(most, floor(available));
  wait_ms := case when taken > 0 then 0 else ceil((1 - available) * 1000 / rate) end;
  update rate_buckets set tokens = available - taken, at = present where principal = who;
end $$;

-- How many requests of a principal each instance may have under way.
create unlogged table slot_leases (
  principal   text not null,
  replica     uuid not null,
  slots       integer not null check (slots > 0),
  until       timestamptz not null,
  primary key (principal, replica)
);

-- How many requests of a principal an instance may have under way from now on for ten seconds: as many as it wants, as far
-- as the others leave them.
create function take_slots(asker uuid, who text, bound integer, wanted integer) returns integer
language plpgsql volatile security definer set search_path = public, pg_temp as $$
declare
  given integer;
begin
  perform pg_advisory_xact_lock(4711002, hashtext(who));
  select greatest(0, least(wanted, bound - coalesce(sum(l.slots), 0))) into given from slot_leases l
    where l.principal = who and l.replica <> asker and l.until > clock_timestamp();
  if given = 0 then
    delete from slot_leases l where l.principal = who and l.replica = asker;
  else
    insert into slot_leases values (who, asker, given, clock_timestamp() + interval '10 seconds')
    on conflict (principal, replica) do update set slots = excluded.slots, until = excluded.until;
  end if;
  return given;
end $$;

create function forget_replica(replica uuid) returns void language sql volatile security definer
set search_path = public, pg_temp as $$
  delete from slot_leases l where l.replica = forget_replica.replica;
  delete from replicas r where r.id = forget_replica.replica;
$$;
