-- What is of seconds says until when by the database's clock. Where that was ahead, as of a server that another took over from,
-- what it wrote held for as long: a principal whose bucket was dated an hour ahead had no request for an hour.

-- As before (0017), and: whoever is dated ahead is known by a clock that was set back, and says so again within two seconds if
-- it lives. (Of two that had both been silent for a minute, each waited for the row of the other: hence `skip locked`.)
create or replace function note_replica(replica uuid) returns integer language plpgsql volatile security definer
set search_path = public, pg_temp as $$
begin
  insert into replicas (id, seen_at) values (replica, clock_timestamp())
  on conflict (id) do update set seen_at = excluded.seen_at;
  delete from replicas where id in (
    select id from replicas where seen_at < clock_timestamp() - interval '1 minute' or seen_at > clock_timestamp()
    for update skip locked);
  -- A bucket that nobody has touched for so long is full; a lease is of an instance that has crashed.
  delete from rate_buckets where principal in (
    select principal from rate_buckets where at < clock_timestamp() - interval '1 minute' for update skip locked);
  delete from slot_leases where (principal, slot_leases.replica) in (
    select l.principal, l.replica from slot_leases l
    where l.until < clock_timestamp() - interval '1 minute' for update skip locked);
  return (select count(*) from replicas where seen_at > clock_timestamp() - interval '10 seconds');
end $$;

-- As before, and: a bucket that is dated ahead is filled from now on. (The step back itself puts nothing into it.)
create or replace function take_rate(who text, rate integer, most integer, out taken integer, out wait_ms integer)
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
  present := clock_timestamp();
  available := least(rate, held.tokens + rate * greatest(0, extract(epoch from present - held.at)));
  taken := least(most, floor(available));
  wait_ms := case when taken > 0 then 0 else ceil((1 - available) * 1000 / rate) end;
  update rate_buckets set tokens = available - taken, at = present where principal = who;
end $$;

-- As before, and: nobody has them for longer than ten seconds. Those of an instance that lives are not taken from it: it renews
-- them before.
create or replace function take_slots(asker uuid, who text, bound integer, wanted integer) returns integer
language plpgsql volatile security definer set search_path = public, pg_temp as $$
declare
  given integer;
  latest timestamptz;
begin
  perform pg_advisory_xact_lock(4711002, hashtext(who));
  latest := clock_timestamp() + interval '10 seconds';
  update slot_leases l set until = latest where l.principal = who and l.until > latest;
  select greatest(0, least(wanted, bound - coalesce(sum(l.slots), 0))) into given from slot_leases l
    where l.principal = who and l.replica <> asker and l.until > clock_timestamp();
  if given = 0 then
    delete from slot_leases l where l.principal = who and l.replica = asker;
  else
    insert into slot_leases values (who, asker, given, latest)
    on conflict (principal, replica) do update set slots = excluded.slots, until = excluded.until;
  end if;
  return given;
end $$;

-- As before (0023), and: a ledger whose newest row is dated more than a day ahead is that of a clock that was wrong, and goes on
-- by that of now; else what it allows for a day would be all until then. What was recorded meanwhile counts for the day of who
-- comes first, so that no day has more than it may, and for no other: a row without a serial says so, also where there is no
-- room, since nothing would be recorded then, and the next day was that of who comes first again. What had expired by the
-- clock that was ahead is alive again.
-- A clock that is days behind looks the same, and once it is right, a day that seems to begin has rows already: it is begun by such
-- a row as well, since neither the newest totals nor what instances have counted is of it.
create or replace function hold_ledger(wanted text, who text, after bigint, out number bigint, out certificates integer,
  out names integer, out alive integer, out more_certificates integer, out more_names integer, out more_alive integer,
  out present timestamptz, out midnight timestamptz)
language plpgsql volatile set lock_timeout = '250ms' set search_path = public, pg_temp as $$
declare
  newest limit_uses;
  latest timestamptz;
  today timestamptz;
  current date;
begin
  perform pg_advisory_xact_lock(4711001, hashtext(wanted || chr(10) || who));
  select * into newest from limit_uses u
    where u.grant_id = wanted and u.principal = who and u.number > 0 order by u.number desc limit 1;
  present := clock_timestamp();
  latest := greatest(newest.at, newest.day::timestamp at time zone 'UTC');
  if latest <= present + interval '1 day' then present := greatest(present, latest); end if;
  today := date_trunc('day', present, 'UTC');
  midnight := today + interval '1 day';
  current := (present at time zone 'UTC')::date;
  if newest.day <> current and (latest > midnight or exists (select from limit_uses u
      where u.grant_id = wanted and u.principal = who and u.at >= today and u.at < midnight)) then
    insert into limit_uses as l (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
      day_names, alive)
    select wanted, who, newest.number + 1, '', 'epoch', 0, 'epoch', midnight, current, count(*), coalesce(sum(u.names), 0), (
        select count(*) from limit_uses a where a.grant_id = wanted and a.principal = who and a.not_after > present)
      from limit_uses u where u.grant_id = wanted and u.principal = who and u.at >= today
    returning l.* into newest;
  end if;
  number := newest.number;
  certificates := case when newest.day = current then newest.certificates else 0 end;
  names := case when newest.day = current then newest.day_names else 0 end;
  alive := newest.alive;
  if after is not null then
    select count(*) filter (where u.at >= today), coalesce(sum(u.names) filter (where u.at >= today), 0), count(*)
      into more_certificates, more_names, more_alive
      from limit_uses u where u.grant_id = wanted and u.principal = who and u.number > after
      having bool_and(u.serial <> '') is not false;
  end if;
end $$;
