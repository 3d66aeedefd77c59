/** What production asks of its database, beyond that it answers: records that nobody here could change, and a real disk. */
import type { Database, Queryable } from './database.ts'

/** Every fault as a sentence; empty when the records are safe. Reads only. */
export const databaseFaults = async (db: Database): Promise<readonly string[]> => {
  const { rows: settings } = await db.query<{ name: string; setting: string }>(selectSettings)
  return [
    ...(await faultsOfRights(db)).map((fault) => (ofNewDatabases.test(fault) ? `${fault}, ${migrating}` : fault)),
    ...settings.map(
      ({ name, setting }) => `PostgreSQL runs with ${name} = ${setting}: what it acknowledges can be lost`,
    ),
  ]
}

/** As a standby does: nothing can be recorded there. */
export const onlyReads = async (db: Database): Promise<boolean> => {
  const { rows } = await db.query<{ setting: string }>({
    text: `select current_setting('transaction_read_only') as setting`,
  })
  return rows[0]?.setting === 'on'
}

/**
 * What sorted the texts of the database when it was made, and what sorts them now, where these differ: all of our indexes that do
 * not say "C" go by it. PostgreSQL says so to whoever connects, and goes on.
 */
export const movedCollation = async (db: Queryable): Promise<MovedCollation | undefined> =>
  (await db.query<MovedCollation>(selectMoved)).rows[0]

/** Versions of the library that sorts. */
interface MovedCollation {
  /** Quoted as SQL wants it. */
  readonly database: string
  readonly before: string
  readonly now: string
}

/** What a role that serves may do and should not, each as a sentence; by default of the role that asks. */
export const faultsOfRights = async (db: Database, role?: string): Promise<readonly string[]> => {
  const { rows } = await db.query<{ fault: string }>(selectRights, [role ?? null])
  return rows.map(({ fault }) => fault)
}

/** Whether the role that asks may do with the tables what their owner may. */
export const ownsTables = async (db: Queryable): Promise<boolean> =>
  (await db.query<{ owns: boolean }>(selectOwns)).rows[0]?.owns === true

/** Whether the role that asks lacks any right that it needs to serve: `grant_serving` of the schema gives them all. */
export const lacksRights = async (db: Queryable): Promise<boolean> =>
  (await db.query<{ lacks: boolean }>(selectLacks)).rows[0]?.lacks !== false

/** PostgreSQL gives it to everybody in a database that is made, as for a restore; a dump does not take it back. */
const ofNewDatabases = / may make temporary tables /
const migrating = 'as in each database that is new: "chancery migrate" takes that back where its role owns the database'

/** As sessions begin: ours know better (`firstWords`), those behind a pooler and of others do not. */
const selectSettings = {
  text: `
    select name, reset_val as setting from pg_settings
    where (name in ('fsync', 'full_page_writes') and reset_val <> 'on') or (name = 'synchronous_commit' and reset_val = 'off')
    order by name`,
}

/** Neither is known of a locale that never changes, as C is. */
const selectMoved = {
  text: `
    select quote_ident(datname) as database, datcollversion as before, pg_database_collation_actual_version(oid) as now
    from pg_database
    where datname = current_database() and datcollversion <> pg_database_collation_actual_version(oid)`,
}

const selectOwns = {
  text: `select pg_has_role(relowner, 'usage') as owns from pg_class where oid = 'refusals'::regclass`,
}

/** The columns that may and must be updated, by table: of the head, leases and caches. */
const updated = `('roll', 'size'), ('roll', 'time'), ('roll', 'root'), ('token_uses', 'used_at'), ('reconciled', 'until'),
  ('leases', 'holder'), ('leases', 'until'), ('crl_files', 'number'), ('crl_files', 'revoked'), ('crl_files', 'der'),
  ('crl_files', 'changed_at')`

/**
 * A view counts as a table: what it may, it may with its owner's rights. Policies of a part hide nothing from who asks the whole.
 * Whoever may create anything anywhere may have operators and functions of his own found before those of the guards.
 */
const selectRights = {
  text: `
    with who as (select coalesce($1::name, current_user) as role),
    relation as (
      select c.oid, relname, relkind, pg_has_role(role, relowner, 'member') as owned,
        relrowsecurity and not relispartition and relowner = (select relowner from pg_class where oid = 'refusals'::regclass) as secured,
        relforcerowsecurity
      from who, pg_class c where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f'))
    select format('the serving role %s is a superuser', role) as fault from who join pg_roles on rolname = role where rolsuper
    union all
    select format('the serving role %s owns the table %s', role, relname) from who, relation where owned and relkind in ('r', 'p')
    union all
    select format('the serving role %s may %s %s', role, lower(right_name), relname)
      from who, relation, unnest(array['DELETE', 'TRUNCATE', 'TRIGGER']) right_name
      where not owned and has_table_privilege(role, oid, right_name)
    union all
    select format('the serving role %s may update %s (%s)', role, relname, string_agg(attname, ', ' order by attnum))
      from who, relation r join pg_attribute a on attrelid = r.oid and attnum > 0 and not attisdropped
      where not owned and has_any_column_privilege(role, r.oid, 'UPDATE') and has_column_privilege(role, r.oid, attnum, 'UPDATE')
        and (relname, attname) not in (${updated})
      group by role, relname
    union all
    select format('row level security keeps the serving role %s from the table %s (alter table %I disable row level security)',
      role, relname, relname)
      from who join pg_roles on rolname = role, relation
      where secured and not rolsuper and not rolbypassrls and (relforcerowsecurity or not owned)
    union all
    select format('the serving role %s may create objects in the schema %I', role, nspname)
      from who, pg_namespace n where nspname !~ '^pg_' and has_schema_privilege(role, n.oid, 'CREATE')
        and not (nspname = 'public' and pg_has_role(role, nspowner, 'member'))
    union all
    select format('the serving role %s may %s (revoke %s on database %I from public, %I)', role, what, right_name,
      current_database(), role)
      from who, (values ('create schemas', 'create'), ('make temporary tables', 'temporary')) r (what, right_name)
      where has_database_privilege(role, current_database(), right_name)
    order by fault`,
}

/** Parts of a table need none: what is asked of the whole is a right to the whole. What others have put there is not ours to use. */
const selectLacks = {
  name: 'select_lacks',
  text: `
    with relation as (
      select oid, relname from pg_class
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v') and not relispartition
        and relowner = (select relowner from pg_class where relname = 'refusals' and relnamespace = 'public'::regnamespace))
    select not has_schema_privilege('public', 'usage')
      or exists (select from relation where not has_table_privilege(oid, 'select'))
      or exists (select from relation
        where not has_table_privilege(oid, 'insert') and relname not in ('roll', 'reconciled', 'schema_migrations', 'certificates'))
      or exists (select from relation
        join (values ${updated}) needed (relname, attname) using (relname)
        where not has_column_privilege(oid, attname::text, 'update'))
      or exists (select from relation where row_security_active(oid))
      or exists (select from pg_proc
        where pronamespace = 'public'::regnamespace and not has_function_privilege(oid, 'execute')
          and proname in ('postpone_request', 'note_replica', 'forget_replica')) as lacks`,
}
