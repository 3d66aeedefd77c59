/** The tree over entries that were put on the roll by plain SQL, made by SQL as well: true, whatever its leaves are. */
import type pg from 'pg'

/** As the owner, within the transaction that has inserted the entries and moved the size of the head. */
export const growTree = async (client: pg.ClientBase): Promise<void> => {
  await client.query(merkleRoot)
  await client.query(growSubtrees)
  await client.query('select pg_temp.grow_subtrees()')
}

/** RFC 6962 2.1. */
const merkleRoot = `
  create or replace function pg_temp.merkle_root(hashes bytea[]) returns bytea language plpgsql immutable as $$
  declare
    level bytea[] := hashes;
    above bytea[];
    n integer;
  begin
    loop
      n := cardinality(level);
      exit when n = 1;
      above := '{}';
      for i in 1..n / 2 loop above := above || sha256('\\x01'::bytea || level[2 * i - 1] || level[2 * i]); end loop;
      if n % 2 = 1 then above := above || level[n]; end if;
      level := above;
    end loop;
    return level[1];
  end $$`

const growSubtrees = `
  create or replace function pg_temp.grow_subtrees() returns void language plpgsql as $$
  declare
    total bigint := (select size from roll);
    above bigint;
    edge bytea;
    rest bytea[];
  begin
    for l in 1..6 loop
      above := total / power(256, l)::bigint;
      insert into subtrees (level, index, hash)
      select l, of.index / 256, pg_temp.merkle_root(array_agg(of.hash order by of.index))
      from (
        select index, leaf_hash as hash from entries where l = 1
        union all select index, hash from subtrees where level = l - 1
      ) of
      where of.index >= 256 * (select coalesce(max(index) + 1, 0) from subtrees where level = l) and of.index < above * 256
      group by of.index / 256 order by 2;
    end loop;
    for l in 0..6 loop
      above := total / power(256, l)::bigint;
      if l = 0 then
        select array_agg(leaf_hash order by index) into rest from entries where index >= above / 256 * 256;
      else
        select array_agg(hash order by index) into rest from subtrees where level = l and index >= above / 256 * 256;
      end if;
      rest := coalesce(rest, '{}') || case when edge is null then '{}'::bytea[] else array[edge] end;
      if cardinality(rest) > 0 then edge := pg_temp.merkle_root(rest); end if;
    end loop;
    update roll set root = edge where id = 1;
  end $$`
