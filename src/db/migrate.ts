/**
 * Migrations: plain SQL files `NNNN_name.sql`, forward only, each applied once, in one transaction with the row that
 * says so. Any number of processes may migrate at once; an advisory lock, which ends with its transaction and so
 * works behind a pooler, lets them through one by one.
 */
import { hash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import type pg from 'pg'

import type { Log } from '../log.ts'
import { keepAliveInitialDelayMillis, type Queryable } from './database.ts'
import { meaningRows, neededRows } from './session-settings.ts'
import { Client } from './wire.ts'

export interface MigrateOptions {
  /** Connects as the role that owns the tables. */
  readonly ownerUrl: string
  /** The role that serves: gets what `grant_serving` of the schema gives it. */
  readonly servingRole: string
  readonly log: Log
  /** Default: `migrations/` of this installation. */
  readonly directory?: string
}

/**
 * Brings the schema up to date, durable when it resolves; resolves to its version. Rejects with a sentence where a
 * migration fails (nothing of it remains), an applied file has changed, the files have a gap, or the database is
 * newer than the files.
 */
export const migrate = async ({ ownerUrl, servingRole, log, directory }: MigrateOptions): Promise<number> => {
  const migrations = await loadMigrations(directory)
  const client = new Client({
    connectionString: ownerUrl,
    application_name: 'chancery migrate',
    connectionTimeoutMillis: 10_000,
    // A path may forget whoever says nothing for minutes, as a migration may.
    keepAlive: true,
    keepAliveInitialDelayMillis,
  })
  client.on('error', () => {})
  await client.connect()
  try {
    await assertFit(client)
    while (await inTurn(client, log, () => step(client, migrations, { servingRole, log })));
    return migrations.length
  } finally {
    await client.end().catch(() => {})
  }
}

/** A schema and files that do not belong together: no defect, and mended by whoever runs them. */
export class WrongSchema extends Error {}

/** For the side that serves: rejects with `WrongSchema` unless the schema is the one that these files make. */
export const assertMigrated = async (db: Queryable, directory?: string): Promise<void> => {
  const migrations = await loadMigrations(directory)
  const { rows: found } = await db.query<Seen>({ text: selectSeen })
  const { hidden = false, secured = false, usable = true, role = '', astray = null } = found[0] ?? {}
  if (astray !== null)
    throw new WrongSchema(
      `The sessions of this role have another ${astray} than PostgreSQL's own, with which our statements mean something else: "alter role ${role} reset ${astray}", and that of the database, the server or the URL if it has one; what a pooler keeps open has it until it is opened anew.`,
    )
  if (hidden)
    throw new WrongSchema(
      usable
        ? `The search_path of this role leads past the schema public, where the tables are: "alter role ${role} reset search_path", and that of the database if it has one.`
        : `This role may not use the schema public, where the tables are: "grant usage on schema public to ${role}".`,
    )
  const applied = found[0]?.present === true ? (await db.query<Applied>({ text: selectApplied })).rows : []
  if (secured && applied.length === 0)
    throw new WrongSchema(
      `Row level security hides schema_migrations from the role ${role}: end it there, as the owner of the tables ("alter table schema_migrations disable row level security").`,
    )
  assertKnown(applied, migrations)
  if (applied.length < migrations.length) {
    throw new WrongSchema(
      `The schema is at version ${applied.length} and this Chancery needs ${migrations.length}: run "chancery migrate" with CHANCERY_MIGRATION_URL first.`,
    )
  }
}

/** Hidden: there, and not found by its name alone. */
interface Seen {
  readonly present: boolean
  readonly hidden: boolean
  /** Which where `row_security` is on, as for those who read everything and behind a pooler, leaves no rows, and no error. */
  readonly secured: boolean
  readonly usable: boolean
  readonly role: string
  /** The first of the settings that are not what our SQL needs, of sessions to which we may not say it. */
  readonly astray: string | null
}

interface Migration {
  readonly version: number
  readonly name: string
  readonly sql: string
  readonly sha256: string
}

interface Applied {
  readonly version: number
  readonly name: string
  readonly sha256: string
}

const loadMigrations = async (directory = ours): Promise<readonly Migration[]> => {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (file, i) => {
      const [, digits, name] = fileName.exec(file) ?? []
      if (digits === undefined || name === undefined)
        throw new Error(`${join(directory, file)} is not called NNNN_name.sql.`)
      if (Number(digits) !== i + 1)
        throw new Error(`The migrations have a gap or a double: ${file} stands where number ${i + 1} belongs.`)
      const sql = await readFile(join(directory, file))
      return { version: i + 1, name, sql: sql.toString('utf8'), sha256: hash('sha256', sql) }
    }),
  )
}

/** Files and database tell one story, as far as both go. */
const assertKnown = (applied: readonly Applied[], migrations: readonly Migration[]): void => {
  applied.forEach((row, i) => {
    const migration = migrations[i]
    if (row.version !== i + 1)
      throw new WrongSchema(
        `The database lacks migration ${i + 1} but has ${row.version}: somebody changed schema_migrations.`,
      )
    if (migration === undefined) {
      throw new WrongSchema(
        `The database is at version ${applied.length} and this Chancery knows ${migrations.length}: use a newer Chancery.`,
      )
    }
    if (row.sha256 !== migration.sha256) {
      throw new WrongSchema(
        `Migration ${row.version} (${row.name}) was changed after it had been applied: restore the file, and put the change into a new one.`,
      )
    }
  })
}

/** Runs one step in a transaction, alone among all who migrate this database. */
const inTurn = async <T>(client: pg.Client, log: Log, work: () => Promise<T>): Promise<T> => {
  await client.query('begin')
  try {
    // A migration may take its time, but must not stand in a queue of locks with all of the service behind it.
    await client.query(setOurs)
    await takeTurn(client, log)
    await client.query(`set local lock_timeout = '15s'`)
    const value = await work()
    await client.query('commit')
    return value
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  }
}

/** Whoever waits is told why: the other one may need minutes for one of them. */
const takeTurn = async (client: pg.Client, log: Log): Promise<void> => {
  const { rows } = await client.query<{ ours: boolean }>(tryTurn, [turnLock])
  if (rows[0]?.ours === true) return
  log.info({ event: 'migrate.waiting' }, 'another process migrates this database: waiting for it')
  await client.query('select pg_advisory_xact_lock($1)', [turnLock])
}

/**
 * What a migration makes is granted with it: those who serve meanwhile meet its triggers from its commit on, and go on where a
 * later one fails. Resolves to whether there was one to apply.
 */
const step = async (client: pg.Client, migrations: readonly Migration[], deps: Stepping): Promise<boolean> => {
  const applied = await applyNext(client, migrations, deps)
  if (!(await isOwner(client))) return applied
  await grantServing(client, deps.servingRole)
  if (!applied) await followNumbers(client, deps.log)
  return applied
}

type Stepping = Pick<MigrateOptions, 'servingRole' | 'log'>

/** Resolves to whether there was one to apply. */
const applyNext = async (
  client: pg.Client,
  migrations: readonly Migration[],
  { servingRole, log }: Stepping,
): Promise<boolean> => {
  // Looked for first: `if not exists` would tell about it each time, and needs the right to create.
  const { rows: found } = await client.query<{ present: boolean }>(tableExists)
  if (found[0]?.present !== true) await client.query(createTable)
  const { rows: applied } = await client.query<Applied>(selectApplied)
  assertKnown(applied, migrations)
  const next = migrations[applied.length]
  if (next === undefined) return false
  if (next.name === treeMigration) await assertAlone(client, servingRole)
  try {
    await client.query(next.sql)
  } catch (cause) {
    throw new Error(
      `Migration ${next.version} (${next.name}) failed${lineOf(next.sql, cause)}: ${(cause as Error).message}`,
      { cause },
    )
  }
  await client.query(insertApplied, [next.version, next.name, next.sha256])
  log.info({ event: 'migrate.applied', version: next.version, name: next.name }, 'migrated')
  return true
}

/**
 * Those of before know no tree: what they enrolled from then on would leave the root behind for good. Where nothing is on the
 * roll, as before the first migration, nobody is there.
 */
const assertAlone = async (client: pg.Client, role: string): Promise<void> => {
  const { rows } = await client.query<{ others: number }>(countOthers, [role])
  const { others = 0 } = rows[0] ?? {}
  if (others === 0) return
  throw new WrongSchema(
    `An instance of before the roll was a tree is connected to this database (${others} in pg_stat_activity as "chancery", or of the role ${JSON.stringify(role)}), and would damage the roll beside a newer one: stop all that serve it, then run the same command again. A pooler keeps connections that nobody uses for some minutes: end those as well. Nothing of this step remains.`,
  )
}

/** A role that merely serves, and found nothing to apply, has nothing to grant. */
const isOwner = async (client: pg.Client): Promise<boolean> =>
  (await client.query<{ ours: boolean }>(ownsVersions)).rows[0]?.ours === true

const grantServing = async (client: pg.Client, role: string): Promise<void> => {
  await client.query(`grant select on schema_migrations to ${client.escapeIdentifier(role)}`)
  const { rows } = await client.query<{ present: boolean }>(grantExists)
  if (rows[0]?.present !== true) return
  await assertOurs(client)
  await client.query('select grant_serving($1)', [role])
}

/** All tables of the schema are granted at once, and PostgreSQL turns that down for one to whose columns we have no right at all. */
const assertOurs = async (client: pg.Client): Promise<void> => {
  const { rows } = await client.query<{ name: string; extension: string | null }>(selectStrange)
  const [strange] = rows
  if (strange === undefined) return
  const { name, extension } = strange
  const what =
    extension === null
      ? `move it ("alter table public.${name} set schema …"), or, where it is one of Chancery's, give it to this role`
      : `move it ("alter extension ${extension} set schema …")`
  throw new WrongSchema(
    `${name} in the schema public is somebody else's, and this role has no right to it, so that PostgreSQL lets it grant nothing there: have an administrator ${what}, and run the same command again. Nothing of this step remains.`,
  )
}

/**
 * Logical replication brings rows and not what numbers them. The newest row of an issuer says its state: one that got a smaller
 * number than that, or none since it is taken, would have halted nothing.
 */
const followNumbers = async (client: pg.Client, log: Log): Promise<void> => {
  const { rows } = await client.query<Numbering>(selectNumberings)
  for (const { sequence, relation, column } of rows) {
    const { rows: moved } = await client.query(`
      select setval('${sequence}', largest) from (select max(${column}) as largest from ${relation}) seen, ${sequence} s
      where largest > s.last_value - case when s.is_called then 0 else 1 end`)
    if (moved.length > 0)
      log.warn(
        { event: 'migrate.numbers', relation },
        'numbers were behind the rows, as logical replication leaves them',
      )
  }
}

/** Of ours, and not of tables that somebody else has put there. Quoted as SQL wants them. */
interface Numbering {
  readonly sequence: string
  readonly relation: string
  readonly column: string
}

interface Place {
  readonly version: number
  readonly text: string
  readonly encoding: string
  readonly schema: string | null
}

const assertFit = async (client: pg.Client): Promise<void> => {
  const { rows } = await client.query<Place>(selectPlace)
  const { version = 0, text, encoding = '', schema = null } = rows[0] ?? {}
  if (version < oldestServer) throw new WrongSchema(`PostgreSQL 15 or newer is needed; this one is ${text}.`)
  // One that knows no characters (SQL_ASCII) keeps octets as they come.
  if (!['UTF8', 'SQL_ASCII'].includes(encoding))
    throw new WrongSchema(
      `The database's encoding is ${encoding}, which lacks characters of the schema: create it anew with "encoding 'UTF8' template template0".`,
    )
  // None at all is told of by the first statement that makes something.
  if (![null, 'public'].includes(schema))
    throw new WrongSchema(
      `The search_path of this role leads to the schema ${schema}, and all that Chancery has is in public: set it ("alter role … set search_path = public"), and let the role own the database, or create in that schema.`,
    )
}

const lineOf = (sql: string, error: unknown): string => {
  const position = Number((error as { position?: string }).position)
  return position > 0 ? ` in line ${sql.slice(0, position).split('\n').length}` : ''
}

const ours = fileURLToPath(new URL('../../migrations/', import.meta.url))
const fileName = /^(\d{4})_([a-z0-9_]+)\.sql$/
const oldestServer = 150_000
const treeMigration = 'roll_tree'
/** Any constant; "migr" in ASCII. */
const turnLock = 0x6d696772

const tryTurn = 'select pg_try_advisory_xact_lock($1) as ours'

/**
 * Whatever the role or a pooler says, for this transaction, in which no row is passed over that a policy hides. One whose process
 * was stopped, or whose machine is gone, gives its turn and its locks back in a minute. PostgreSQL has `transaction_timeout` from
 * 17 on.
 */
const setOurs = `
  select set_config(name, value, true)
  from (values
    ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
    ('idle_in_transaction_session_timeout', '60s'), ('row_security', 'off'),
    ${meaningRows}
  ) as wanted (name, value)
  join pg_settings using (name)`

const tableExists = `select to_regclass('schema_migrations') is not null as present`

const selectSeen = `
  select seen is not null as present, seen is null and is_there as hidden, has_schema_privilege(to_regnamespace('public'), 'usage') as usable,
    seen is not null and row_security_active(seen) as secured, quote_ident(current_user) as role, (
      select name from pg_settings join (values ${neededRows}) wanted (name, value) using (name)
      where setting <> value order by name limit 1) as astray
  from to_regclass('schema_migrations') as seen, lateral (
    select exists (select from pg_class c join pg_namespace n on n.oid = relnamespace
      where relname = 'schema_migrations' and nspname = 'public') as is_there) as found`

/** Somebody's extension, as pg_buffercache, or a table of whoever watches the server. These are the rights that columns have. */
const selectStrange = `
  select quote_ident(relname) as name, quote_ident(extname) as extension
  from pg_class c
    left join pg_depend on classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e'
    left join pg_extension e on e.oid = refobjid
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
    and not has_table_privilege(c.oid, 'select, insert, update, references')
  order by relname limit 1`

const selectNumberings = `
  select d.objid::regclass::text as sequence, d.refobjid::regclass::text as relation, quote_ident(attname) as column
  from pg_depend d
  join pg_class s on s.oid = objid and relkind = 'S' and relnamespace = 'public'::regnamespace and pg_has_role(relowner, 'usage')
  join pg_attribute a on attrelid = refobjid and attnum = refobjsubid
  where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass and deptype in ('a', 'i')`

/**
 * By the name under which `service.ts` opens its pool, or the role: a URL may give any name. Of us may be this connection, and
 * that by which others know that we use the embedded server.
 */
const countOthers = `
  select count(*)::int as others from pg_stat_activity
  where datname = current_database() and pid <> pg_backend_pid() and exists (select from roll where size > 0)
    and (application_name = 'chancery' or (usename = $1 and usename <> current_user and application_name <> 'chancery presence'))`

const createTable = `
  create table schema_migrations (
    version int primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now()
  )`

const selectApplied = 'select version, name, sha256 from schema_migrations order by version'
const insertApplied = 'insert into schema_migrations (version, name, sha256) values ($1, $2, $3)'
const selectPlace = `select current_setting('server_version_num')::int as version, current_setting('server_version') as text,
  current_setting('server_encoding') as encoding, current_schema() as schema`

const ownsVersions = `select pg_has_role(relowner, 'usage') as ours from pg_class where oid = 'schema_migrations'::regclass`

const grantExists = `
  select exists (
    select from pg_proc where proname = 'grant_serving' and pronamespace = current_schema()::regnamespace
  ) as present`
