-- What an issuer may not do, whichever replica believes what of it: sign in a state that forbids it, or share its key.

-- The state of an issuer for an intent that is about to be recorded. Whoever moves an issuer waits until every intent
-- that has asked is committed, and whoever asks meanwhile waits for the move: so no intent is committed after a move that
-- forbids it. (A lock that leaves no trace on disk, one for all issuers: moves are rare, and nobody can be caught between
-- two. A statement in here sees what was committed until now, not only until the statement around it began.)
create function state_for_intent(wanted text) returns text language plpgsql volatile as $$
begin
  perform pg_advisory_xact_lock_shared(4711000004);
  return (select state from issuer_states where issuer = wanted order by id desc limit 1);
end $$;

create function wait_for_intents() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(4711000004);
  return null;
end $$;
create trigger wait_for_intents before insert on issuer_states for each statement execute function wait_for_intents();

-- Until when an issuer has certificates. (Its newest are at the right end, so that an insert costs next to nothing.)
create index certificates_along_expiry on outcomes (issuer, not_after) where kind = 'certificate';

-- Every key that an issuer ever had, or was asked for: it is nobody else's, for good.
create table issuer_keys (
  key_sha256    bytea primary key check (octet_length(key_sha256) = 32),
  issuer        text not null,               -- that is, or is to be
  created_at    timestamptz not null default clock_timestamp()
);
insert into issuer_keys (key_sha256, issuer)
select distinct on (e.body::jsonb->>'spki') decode(e.body::jsonb->>'spki', 'hex'), e.body::jsonb->>'issuer'
from entries e where e.type in ('issuer.requested', 'key.opened')
order by e.body::jsonb->>'spki', e.index;

-- The ways up from an issuer, where others have been brought since it was imported, as through a cross-certificate: all of
-- the newest `entry`, which is that of their event, hold.
create table issuer_chains (
  entry         bigint not null check (entry >= 0),
  place         integer not null check (place >= 0),
  issuer        text not null references issuers,
  chain         bytea[] not null check (cardinality(chain) > 0),   -- above the issuer, the root last
  primary key (entry, place)
);
create index issuer_chains_newest on issuer_chains (issuer, entry);

select make_append_only(t) from unnest(array['issuer_keys', 'issuer_chains']::regclass[]) t;
