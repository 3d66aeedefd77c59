-- Where reading stopped of what was turned down unread: octets from its beginning, as the problem told. Null where it was read,
-- and in rows of before.
alter table refusals add column byte_offset integer check (byte_offset >= 0);
