-- A renewal names the certificate whose place it takes, and the one with which its row of renewals began: that one was issued
-- by another right than holding a certificate, and how long ago bounds the row. What the roll says of it is `replaces`;
-- `first` follows.
alter table intents
  add column replaces bytea references intents,
  add column first    bytea,
  add constraint replaces_in_a_row check ((replaces is null) = (first is null) and replaces <> serial);

create index intents_by_first on intents (first) where first is not null;

-- Serials of the row of renewals that a certificate belongs to, itself among them; it may branch.
create function row_of(certificate bytea) returns setof bytea language sql stable rows 10 as $$
  with began as (select coalesce(first, serial) as first from intents where serial = certificate)
  select first from began union all select i.serial from began join intents i using (first)
$$;

-- Whether an order that is under way has a certificate.
create index mass_revocation_slices_by_first on mass_revocation_slices (plan, (certificates[1]));

-- Orders under way that have the certificate with this entry. Slices are in the order of their entries, so that the last one
-- that begins before the certificate's is the only one that may have it. Where `bars`, whoever holds it is not to be trusted
-- with another one: the order says so of all of them.
create function open_orders_of(certificate bigint, out ordered_at timestamptz, out bars boolean)
returns setof record language sql stable as $$
  select m.ordered_at, m.reason not in ('unspecified', 'superseded')
  from mass_revocations m
    cross join lateral (
      select certificates from mass_revocation_slices
      where plan = m.plan and certificates[1] <= certificate order by certificates[1] desc limit 1
    ) slice
  where not exists (select from mass_revocation_outcomes o where o.plan = m.plan and o.number = m.slices - 1)
    and certificate = any (slice.certificates)
$$;

-- What stands against renewing a certificate, by what is committed until now, not only until the statement around it began;
-- null where nothing does.
create function standing_of_held(held bytea) returns text language plpgsql volatile as $$
declare
  c outcomes;
begin
  select * into c from outcomes where serial = held and kind = 'certificate';
  return case
    when (select change <> 'released' from revocations where serial = held order by entry desc limit 1) then 'revoked'
    when exists (select from principal_closures p where p.principal = c.principal) then 'closed'
    when exists (select from compromised_keys k where k.key_sha256 = c.key_sha256) then 'stolen'
    when exists (select from open_orders_of(c.entry) o where o.bars) then 'ordered'
  end;
end $$;
