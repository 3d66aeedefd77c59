/** What production asks of its database, beyond that it answers: records that nobody here could change, and a real disk. */
import type { Database } from './database.ts'

/** Every fault as a sentence; empty when the records are safe. Reads only. */
export const databaseFaults = async (db: Database): Promise<readonly string[]> => {
  const { rows: rights } = await db.query<{ fault: string }>(selectRights)
  const { rows: settings } = await db.query<{ name: string; setting: string }>(selectSettings)
  return [
    ...rights.map(({ fault }) => fault),
    ...settings.map(
      ({ name, setting }) => `PostgreSQL runs with ${name} = ${setting}: what it acknowledges can be lost`,
    ),
  ]
}

const selectSettings = {
  text: `
    select name, setting from pg_settings
    where (name in ('fsync', 'full_page_writes') and setting <> 'on') or (name = 'synchronous_commit' and setting = 'off')
    order by name`,
}

/**
 * The tables that may be updated are the head, leases and caches, and those only by column. A view counts as a table:
 * what it may, it may with its owner's rights.
 */
const selectRights = {
  text: `
    select format('the serving role %s is a superuser', current_user) as fault from pg_roles where rolname = current_user and rolsuper
    union all
    select format('the serving role %s owns the table %s', current_user, relname)
      from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and pg_has_role(relowner, 'member')
    union all
    select format('the serving role %s may %s %s', current_user, lower(right_name), relname)
      from pg_class, unnest(array['DELETE', 'TRUNCATE', 'TRIGGER']) right_name
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
        and not pg_has_role(relowner, 'member') and has_table_privilege(oid, right_name)
    union all
    select format('the serving role %s may update %s (%s)', current_user, relname, string_agg(attname, ', ' order by attnum))
      from pg_class c join pg_attribute a on attrelid = c.oid and attnum > 0 and not attisdropped
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
        and not pg_has_role(relowner, 'member') and has_any_column_privilege(c.oid, 'UPDATE')
        and has_column_privilege(c.oid, attnum, 'UPDATE')
        and (relname, attname) not in (('roll', 'size'), ('roll', 'time'), ('roll', 'root'), ('token_uses', 'used_at'), ('reconciled', 'until'),
          ('leases', 'holder'), ('leases', 'until'), ('crl_files', 'number'), ('crl_files', 'revoked'), ('crl_files', 'der'),
          ('crl_files', 'changed_at'))
      group by relname
    union all
    select format('the serving role %s may create objects in the schema public', current_user)
      where has_schema_privilege('public', 'CREATE') and not pg_has_role(
        (select nspowner from pg_namespace where nspname = 'public'), 'member')
    union all
    select format('the serving role %s may make temporary tables (revoke temporary on database %I from public, %I)',
      current_user, current_database(), current_user)
      where has_database_privilege(current_database(), 'TEMPORARY')
    order by fault`,
}
