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
