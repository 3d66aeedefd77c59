-- Where the key of an issuer is now, where its token is called otherwise or another one holds a copy: the newest row of an
-- issuer holds, before what it was requested or imported with. `entry` is that of the event, which says who and why. (A new
-- table: nothing that is there is locked.)
create table issuer_key_uris (
  entry         bigint primary key check (entry >= 0),
  issuer        text not null,               -- that is, or is to be
  key_uri       text not null
);
create index issuer_key_uris_newest on issuer_key_uris (issuer, entry);

select make_append_only('issuer_key_uris');
