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

/** The three tables that may be updated are the head and two caches, and those only by column. */
const selectRights = {
  text: `
    select format('the serving role %s is a superuser', current_user) as fault from pg_roles where rolname = current_user and rolsuper
    union all
    select format('the serving role %s owns the table %s', current_user, relname)
      from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and pg_has_role(relowner, 'member')
    union all
    select format('the serving role %s may %s %s', current_user, lower(right_name), relname)
      from pg_class, unnest(array['UPDATE', 'DELETE', 'TRUNCATE']) right_name
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not pg_has_role(relowner, 'member')
        and has_table_privilege(oid, right_name)
    order by fault`,
}
