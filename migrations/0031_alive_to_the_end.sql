-- As before (0028), but what is alive is so to the end of the second that its notAfter names (RFC 5280 4.1.2.5), as in
-- `src/store/validity.ts`. An instance of the version before counts all else by statements of its own: beside it, and only
-- there, a place still comes free a second early. And a day has 24 hours in any time zone of the session, as behind a pooler.
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
  if latest <= present + interval '24 hours' then present := greatest(present, latest); end if;
  today := date_trunc('day', present, 'UTC');
  midnight := today + interval '24 hours';
  current := (present at time zone 'UTC')::date;
  if newest.day <> current and (latest > midnight or exists (select from limit_uses u
      where u.grant_id = wanted and u.principal = who and u.at >= today and u.at < midnight)) then
    insert into limit_uses as l (grant_id, principal, number, serial, at, names, not_after, counts_until, day, certificates,
      day_names, alive)
    select wanted, who, newest.number + 1, '', 'epoch', 0, 'epoch', midnight, current, count(*), coalesce(sum(u.names), 0), (
        select count(*) from limit_uses a where a.grant_id = wanted and a.principal = who
          and a.not_after >= date_trunc('second', present))
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
