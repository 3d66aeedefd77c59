-- Adds the owner of each public key: the principal, and on whose behalf it asks ('' for itself), that recorded the first
-- intent for the key. Only a grant with shared_keys lets another principal have a certificate for it.
create table key_owners (
  key_sha256    bytea primary key check (octet_length(key_sha256) = 32),
  principal     text not null,
  on_behalf_of  text not null
);

select make_append_only('key_owners');

insert into key_owners (key_sha256, principal, on_behalf_of)
select distinct on (key_sha256) key_sha256, principal,
  coalesce('namespace/' || origin_namespace, 'user/' || origin_user, '')
from outcomes where kind = 'certificate' order by key_sha256, entry;

-- Whether the key is this owner's, after making it so where it had none. A second claim waits for the transaction of the first.
create function claim_key(key bytea, owner text, behalf text) returns boolean language plpgsql volatile as $$
begin
  insert into public.key_owners (key_sha256, principal, on_behalf_of) values (key, owner, behalf) on conflict do nothing;
  return found or exists (
    select from public.key_owners where key_sha256 = key and principal = owner and on_behalf_of = behalf);
end $$;

alter table grants add column shared_keys boolean not null default false check (not shared_keys or role = 'requester');
