-- A renewal names the certificate whose place it takes, and the one with which its row of renewals began: that one was issued
-- by another right than holding a certificate, and how long ago bounds the row. What the roll says of it is `replaces`;
-- `first` follows.
alter table intents
  add column replaces bytea references intents,
  add column first    bytea,
  add constraint replaces_in_a_row check ((replaces is null) = (first is null) and replaces <> serial);

-- Whether an order that is under way has a certificate.
create index mass_revocation_slices_by_first on mass_revocation_slices (plan, (certificates[1]));
