-- The roll as a tree (RFC 6962 2.1): its root stands in the head, so whoever moves the head says what it has become.

-- The roots of complete subtrees of 256^level leaves: hashes of the tiles of that level (C2SP tlog-tiles). Those of level 0
-- are the leaves themselves, in `entries`; tiles that are not full are what lies behind the last of these.
create table subtrees (
  level       smallint not null check (level between 1 and 6),
  index       bigint not null check (index >= 0),
  hash        bytea not null check (octet_length(hash) = 32),
  primary key (level, index)
);

alter table roll add column root bytea not null default sha256('') check (octet_length(root) = 32);
alter table roll alter column root drop default;

-- What was there before there was a tree.
create function merkle_root(hashes bytea[]) returns bytea language plpgsql immutable as $$
declare
  n integer := coalesce(cardinality(hashes), 0);
  k integer := 1;
begin
  if n = 0 then return sha256(''); end if;
  if n = 1 then return hashes[1]; end if;
  while k * 2 < n loop k := k * 2; end loop;
  return sha256('\x01'::bytea || merkle_root(hashes[1:k]) || merkle_root(hashes[k + 1:n]));
end $$;

do $$
declare
  total bigint;
  above bigint;
  edge bytea;
  rest bytea[];
begin
  select size into total from roll;
  if total = 0 then return; end if;
  insert into subtrees (level, index, hash)
  select 1, index / 256, merkle_root(array_agg(leaf_hash order by index))
  from entries where index < total / 256 * 256 group by index / 256;
  for l in 2..6 loop
    above := total / power(256, l)::bigint;
    insert into subtrees (level, index, hash)
    select l, index / 256, merkle_root(array_agg(hash order by index))
    from subtrees where level = l - 1 and index < above * 256 group by index / 256;
  end loop;
  -- From the leaves up: what lies behind the last full tile of each level, and what is below it.
  for l in 0..6 loop
    above := total / power(256, l)::bigint;
    if l = 0 then
      select array_agg(leaf_hash order by index) into rest from entries where index >= above / 256 * 256;
    else
      select array_agg(hash order by index) into rest from subtrees where level = l and index >= above / 256 * 256;
    end if;
    rest := coalesce(rest, '{}') || case when edge is null then '{}'::bytea[] else array[edge] end;
    if cardinality(rest) > 0 then edge := merkle_root(rest); end if;
  end loop;
  update roll set root = edge where id = 1;
end $$;
drop function merkle_root(bytea[]);
set constraints all immediate;

-- No gap: the next of its level, and only what the size has completed.
create function follow_the_last_subtree() returns trigger language plpgsql as $$
begin
  if new.index > 0 and not exists (select from subtrees where level = new.level and index = new.index - 1)
    or (new.index + 1) * power(256, new.level) > (select size from roll where id = 1) then
    raise exception 'subtree % of level % does not follow', new.index, new.level using errcode = 'restrict_violation';
  end if;
  return null;
end $$;
create trigger follow_the_last_subtree after insert on subtrees for each row execute function follow_the_last_subtree();

-- At the end of every transaction the head is just behind the last entry, has its time, and every subtree that it has
-- completed is there.
create or replace function assert_head_is_last() returns trigger language plpgsql as $$
declare
  head roll; last entries; l integer := 1; complete bigint;
begin
  select * into head from roll where id = 1;
  select * into last from entries order by index desc limit 1;
  if head.size <> coalesce(last.index + 1, 0) or head.time <> coalesce(last.time, head.time) then
    raise exception 'the head of the roll is not behind its last entry' using errcode = 'restrict_violation';
  end if;
  complete := head.size / 256;
  while complete > 0 loop
    if not exists (select from subtrees where level = l and index = complete - 1) then
      raise exception 'subtree % of level % is missing', complete - 1, l using errcode = 'restrict_violation';
    end if;
    complete := complete / 256;
    l := l + 1;
  end loop;
  return null;
end $$;

-- An entry that is kept whole hashes to its leaf.
alter table entries add constraint leaf_of_body check (leaf_hash = sha256('\x00'::bytea || convert_to(body, 'UTF8')));

-- Ends a statement that has stored something else than what it was given.
create function assert_stored(stored bytea, expected bytea) returns boolean language plpgsql immutable as $$
begin
  if stored <> expected then
    raise exception 'what was stored is not what was signed' using errcode = 'data_corrupted';
  end if;
  return stored is not null;
end $$;

select make_append_only('subtrees');

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
end $$;
