-- A certificate is that of one issuer, as before, but told by its digest: an index takes no value of more than 2,704 octets,
-- and a certificate for a key of ML-DSA-87, or by a root with a key of ML-DSA, is longer. (The table has a row for each issuer,
-- so it is locked for a moment only, and the previous version writes as before: `on conflict` of any kind.)
alter table issuers drop constraint issuers_certificate_key;
create unique index issuers_by_certificate on issuers (sha256(certificate));
