-- Tries to log in to tokens. A token locks after a few wrong PINs, so each try is on record before it is made: one that
-- nobody saw the end of may have been refused. What was tried is not here, since it may have been the right PIN.

create table pin_tries (
  id      bigint generated always as identity primary key,
  at      timestamptz not null default clock_timestamp(),
  token   text not null,
  serial  text not null
);
create index pin_tries_by_token on pin_tries (token, serial, id);

create table pin_tries_ended (
  try     bigint primary key references pin_tries,
  at      timestamptz not null default clock_timestamp(),
  -- failed: for another reason than the PIN, which counts for nothing; withheld: the token was not asked, since it says
  -- that the next wrong PIN locks it.
  outcome text not null check (outcome in ('accepted', 'refused', 'failed', 'withheld'))
);

-- Those that stand in the way of the next: of no known end, or withheld, since the last login and the last word of an
-- operator.
create view pin_tries_unsettled as
  select t.id, t.token, t.serial, e.outcome
  from pin_tries t left join pin_tries_ended e on e.try = t.id
  where (e.outcome is null or e.outcome = 'withheld')
    and not exists (select from unlatched_tokens u where u.token = t.token and u.serial = t.serial and u.at > t.at)
    and not exists (select from pin_tries later join pin_tries_ended l on l.try = later.id
      where later.token = t.token and later.serial = t.serial and later.id > t.id and l.outcome = 'accepted');

-- Who said so; null: before it was asked.
alter table unlatched_tokens add column by text;

select make_append_only(t) from unnest(array['pin_tries', 'pin_tries_ended']::regclass[]) t;
