-- What a search shows of a certificate beside what it is searched by, so that it need not look up the intent of each: that by
-- its scattered serial was two thirds of what an export of ten million cost PostgreSQL (17 µs a row, 6.5 without). Null in rows
-- of before, whose intents are looked up.
alter table outcomes
  add column names           bytea,     -- GeneralNames, DER (RFC 5280 4.2.1.6); empty where there are none
  add column profile_version integer,
  add column delegated       boolean,   -- whether its intent has an origin
  -- Not looked for in all rows there are: none has any.
  add constraint outcomes_shown check (num_nonnulls(names, profile_version, delegated) in (0, case kind when 'certificate' then 3 else 0 end))
    not valid;
