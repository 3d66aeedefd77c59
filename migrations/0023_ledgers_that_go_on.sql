-- What instances remember of a ledger stays true, whatever was taken away of it and wherever its clock stands.

-- As before (0017), but a ledger's time never goes back, as the roll's does not: a server whose clock is a little behind that
-- of the one before it would have a day again whose totals have made room for the next one.
create or replace function hold_ledger(wanted text, who text, after bigint, out number bigint, out certificates integer,
  out names integer, out alive integer, out more_certificates integer, out more_names integer, out more_alive integer,
  out present timestamptz, out midnight timestamptz)
language plpgsql volatile set lock_timeout = '250ms' as $$
declare
  newest limit_uses;
  today timestamptz;
begin
  perform pg_advisory_xact_lock(4711001, hashtext(wanted || chr(10) || who));
  select * into newest from limit_uses u
    where u.grant_id = wanted and u.principal = who and u.number > 0 order by u.number desc limit 1;
  present := greatest(clock_timestamp(), newest.at, newest.day::timestamp at time zone 'UTC');
  today := date_trunc('day', present, 'UTC');
  midnight := today + interval '1 day';
  number := newest.number;
  certificates := case when newest.day = (present at time zone 'UTC')::date then newest.certificates else 0 end;
  names := case when newest.day = (present at time zone 'UTC')::date then newest.day_names else 0 end;
  alive := newest.alive;
  if after is not null then
    select count(*) filter (where u.at >= today), coalesce(sum(u.names) filter (where u.at >= today), 0), count(*)
      into more_certificates, more_names, more_alive
      from limit_uses u where u.grant_id = wanted and u.principal = who and u.number > after
      having bool_and(u.serial <> '') is not false;
  end if;
end $$;

-- Rows of which nothing counts any more, but the newest of a ledger only together with all others: the number of the next
-- one is above it, and instances remember up to which number they have counted.
create or replace function maintain_limits() returns bigint language sql as $$
  with gone as (
    delete from limit_uses u where counts_until < now() - interval '1 hour'
      and (exists (select from limit_uses newer
          where newer.grant_id = u.grant_id and newer.principal = u.principal and newer.number > u.number)
        or not exists (select from limit_uses other where other.grant_id = u.grant_id and other.principal = u.principal
          and other.counts_until >= now() - interval '1 hour'))
    returning 1
  ) select count(*) from gone
$$;
