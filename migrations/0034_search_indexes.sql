-- An index for each filter of a search, which ends in the entry or the time that the answer is ordered by.

create index certificates_along_principal on outcomes (principal, entry) where kind = 'certificate';
create index certificates_along_profile on outcomes (profile, entry) where kind = 'certificate';
drop index certificates_of_principal, certificates_of_profile;

create index entries_along_principal on entries ((body::jsonb->>'principal'), index)
  where body::jsonb->>'principal' is not null;
create index entries_along_actor on entries ((body::jsonb->>'by'), index) where body::jsonb->>'by' is not null;
drop index entries_by_principal, entries_by_actor;

-- A principal uses few profiles, and a profile few issuers.
create statistics outcomes_of_principals (dependencies, mcv) on principal, profile, issuer from outcomes;
