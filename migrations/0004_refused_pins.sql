-- PINs that a token has refused. Each is tried once, by whichever replica comes first: a token locks after a few.

create table refused_pins (
  id     bigint generated always as identity primary key,
  at     timestamptz not null default clock_timestamp(),
  token  text not null,
  serial text not null,
  salt   bytea not null check (octet_length(salt) = 16),
  -- scrypt, so that this row does not tell a PIN that is like the right one.
  digest bytea not null check (octet_length(digest) = 32)
);
create index refused_pins_by_token on refused_pins (token, serial);

-- From here on the PINs refused before may be tried again, once.
create table unlatched_tokens (
  id     bigint generated always as identity primary key,
  at     timestamptz not null default clock_timestamp(),
  token  text not null,
  serial text not null
);
create index unlatched_tokens_by_token on unlatched_tokens (token, serial, at);

select make_append_only(t) from unnest(array['refused_pins', 'unlatched_tokens']::regclass[]) t;
