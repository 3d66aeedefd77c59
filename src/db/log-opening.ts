/** What the roll is called, by whom its checkpoints are signed, and in which database it lives: the newest that was recorded. */
import type { DatabaseAdopted, RollOpened, ServiceStarted } from '../tlog/entries.ts'
import type { Queryable } from './database.ts'

export interface RollStanding {
  readonly opened: Pick<RollOpened, 'origin' | 'key'> | undefined
  /** The database that the records were last said to be in (`readDatabaseId`); undefined where that was never said. */
  readonly database: string | null | undefined
}

export const readStanding = async (db: Queryable): Promise<RollStanding> => {
  const { rows } = await db.query<{ body: string }>(selectOpenings)
  const events = rows.map(({ body }) => JSON.parse(body) as RollOpened | DatabaseAdopted)
  return { opened: events.find((event) => event.type === 'roll.opened'), database: events[0]?.database }
}

/** How often entries were given up for good: so often the roll went on under another origin. While an instance runs it does not. */
export const readSuccessions = async (db: Queryable): Promise<number> =>
  (await db.query<{ count: number }>(selectSuccessions)).rows[0]?.count ?? 0

/** How the last instance that came to serve these records was started; undefined before the first. */
export const readLastMode = async (db: Queryable): Promise<string | undefined> => {
  const { rows } = await db.query<{ body: string }>(selectLastStart)
  return rows.map(({ body }) => (JSON.parse(body) as ServiceStarted).mode)[0]
}

/**
 * Which database of which server this is: the number that `initdb` gave the server, a slash, and the database's own (its oid).
 * Copies of the server's files keep both, and so does a database that is renamed. A dump that was loaded has another one of
 * either, and so has a database that was made of another as its template. Null where it is not told, as by engines that only
 * speak PostgreSQL's protocol.
 */
export const readDatabaseId = async (db: Queryable): Promise<string | null> => {
  try {
    const { rows } = await db.query<{ id: string }>(selectDatabaseId)
    return rows[0]?.id ?? null
  } catch (error) {
    if (isUnknownThere(error)) return null
    throw error
  }
}

/** What is on record may be of an earlier version, which knew of servers alone. */
export const isSameDatabase = (before: string, found: string | null): boolean =>
  before === found || (!before.includes('/') && before === serverOf(found))

export const serverOf = (id: string | null): string | undefined => id?.split('/')[0]

/** No such function, no right to call it, no such feature. */
const isUnknownThere = (error: unknown): boolean =>
  ['42883', '42501', '0A000'].includes((error as { readonly code?: string }).code ?? '')

/** The newest of each, newest first. */
const selectOpenings = {
  name: 'select_roll_openings',
  text: `
    select body from (
      (select index, body from entries where type = 'roll.opened' order by index desc limit 1)
      union all (select index, body from entries where type = 'database.adopted' order by index desc limit 1)
    ) newest order by index desc`,
}
const selectSuccessions = {
  name: 'select_successions',
  text: `
    select count(*)::integer as count from entries where type = 'roll.opened' and body::jsonb -> 'succeeds' <> 'null'`,
}
const selectLastStart = {
  name: 'select_last_start',
  text: `select body from entries where type = 'service.started' order by index desc limit 1`,
}
const selectDatabaseId = {
  name: 'select_database_id',
  text: `
    select system_identifier || '/' || (select oid from pg_database where datname = current_database()) as id
    from pg_control_system()`,
}
