-- What was counted of all in a span, and of one principal, is read from these alone.
create index refusal_counts_by_minute on refusal_counts (minute) include (count);
create index refusal_counts_by_principal on refusal_counts (principal, minute) include (count);

-- Who copies the roll has rows as well, of entries by the bundle. (The constraint only grows: all rows that there are hold it, so
-- none is looked at, and the previous version writes as before.) It goes last: nobody can search or export from here to the end.
alter table accesses drop constraint accesses_format_check,
  add constraint accesses_format_check check (format in ('json', 'ndjson', 'csv', 'tiles')) not valid;
