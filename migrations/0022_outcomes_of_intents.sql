-- As for the origins of an intent (0001): a foreign key looks up and locks the intent of every outcome by itself, and writes
-- the lock down (measured: a third of what an outcome takes to be inserted with all its indexes). Intents never change and
-- never go, so it is enough that a statement's rows are looked at once.
create function assert_known_intents() returns trigger language plpgsql as $$
begin
  if exists (select from added a where not exists (select from intents i where i.serial = a.serial)) then
    raise exception 'an outcome is of no intent' using errcode = 'foreign_key_violation';
  end if;
  return null;
end $$;
create trigger known_intents after insert on outcomes referencing new table as added
  for each statement execute function assert_known_intents();
alter table outcomes drop constraint outcomes_serial_fkey;
