-- Limits of certificates and names are counted from the intents themselves, in the transaction that records the next one. Limits
-- of requests are kept by each instance in memory; of the instances only their number is shared.

alter table intents
  add column names integer check (names >= 0),
  add column not_after timestamptz;
-- What expires today or later: all that is alive, and all that was recorded today.
create index intents_by_end on intents (principal, not_after);

drop function maintain_limits();
drop function hold_ledger(text, text, bigint);
drop table limit_uses;

drop function take_rate(text, integer, integer);
drop function take_slots(uuid, text, integer, integer);

create or replace function note_replica(replica uuid) returns integer language plpgsql volatile security definer
set search_path = public, pg_temp as $$
begin
  insert into replicas (id, seen_at) values (replica, clock_timestamp())
  on conflict (id) do update set seen_at = excluded.seen_at;
  delete from replicas where id in (
    select id from replicas where seen_at < clock_timestamp() - interval '1 minute' or seen_at > clock_timestamp()
    for update skip locked);
  return (select count(*) from replicas where seen_at > clock_timestamp() - interval '10 seconds');
end $$;

create or replace function forget_replica(replica uuid) returns void language sql volatile security definer
set search_path = public, pg_temp as $$
  delete from replicas r where r.id = forget_replica.replica;
$$;

drop table rate_buckets, slot_leases;

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
    forget_replica(uuid) to %I', serving);
  if (select pg_has_role(datdba, 'usage') from pg_database where datname = current_database()) then
    execute format('revoke temporary on database %I from public, %I', current_database(), serving);
  end if;
end $$;
