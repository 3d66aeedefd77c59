-- Whether a key is another principal's is asked before every intent. With the principal in the index that is two walks down
-- it, however many certificates there are with this key. (Made before the old one goes: searches go on meanwhile.)

create index certificates_along_key on outcomes (key_sha256, principal) where kind = 'certificate';
drop index certificates_by_key;
