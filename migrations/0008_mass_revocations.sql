-- Many revocations at once: what was approved, cut into slices when it was; and what became of each slice.

-- One row for each order, in the transaction of its event. `plan` is the digest under which it was approved: SHA-256 over
-- canonical JSON of the search, the reason, the invalidity date and the exact certificates as they stood.
create table mass_revocations (
  plan          bytea primary key check (octet_length(plan) = 32),
  entry         bigint not null unique check (entry >= 0),   -- of its event
  search        json not null,
  reason        text not null check (reason in ('unspecified', 'keyCompromise', 'affiliationChanged', 'superseded',
    'cessationOfOperation', 'certificateHold', 'privilegeWithdrawn')),
  invalid_since timestamptz,
  count         bigint not null check (count > 0),
  slices        integer not null check (slices > 0),
  ordered_at    timestamptz not null,
  by            text not null
);

-- Its certificates, by their entries and in their order, a hundred in a slice. Content-addressed: the digest names them, so it does not matter
-- who writes them down. They are written before the head of the roll is locked and the order under it, hence deferred.
create table mass_revocation_slices (
  plan          bytea not null references mass_revocations deferrable initially deferred,
  number        integer not null check (number >= 0),
  certificates  bigint[] not null check (cardinality(certificates) > 0),
  primary key (plan, number)
);

-- The one row that ends a slice, in the transaction of its revocations: it can say neither more nor less than they do, and
-- where two instances are at one slice, the second has lost. Slices end in their order, so the newest says where to go on.
create table mass_revocation_outcomes (
  plan            bytea not null,
  number          integer not null,
  revoked         integer not null check (revoked >= 0),
  passed_expired  integer not null check (passed_expired >= 0),
  passed_revoked  integer not null check (passed_revoked >= 0),
  at              timestamptz not null,
  primary key (plan, number),
  foreign key (plan, number) references mass_revocation_slices
);

select make_append_only(t) from unnest(
  array['mass_revocations', 'mass_revocation_slices', 'mass_revocation_outcomes']::regclass[]) t;
