#!/bin/sh
# Runs once, when the database is made: one role that owns it, one that serves. Their passwords are in their URLs.
set -eu

password() { sed -E 's#^postgresql://[^:]+:([^@]+)@.*$#\1#' "/run/secrets/$1"; }

psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=chancery --quiet <<SQL
create role chancery_owner login password '$(password owner-url)';
create role chancery login password '$(password serving-url)';
alter database chancery owner to chancery_owner;
revoke all on database chancery, postgres, template1 from public;
grant connect on database chancery to chancery;
SQL
