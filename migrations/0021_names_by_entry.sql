-- The names of a part of the roll, or of a list that is short, without a look at the certificates: to put them in order.
create index certificate_names_by_entry on certificate_names (entry, name) where kind = 'dns';
