-- What is on record against a key is asked with every certificate, and a new table has no statistics: to the planner each
-- index of certificates costs the same there, and it once took that of their expiry, sorting all of a key for each question.
-- An index of its own condition is the only one that fits the question, whatever the planner believes.
create index certificates_of_its_key on outcomes (key_sha256, principal, entry) where key_sha256 is not null;
drop index certificates_of_key;
alter index certificates_of_its_key rename to certificates_of_key;
