/** What the roll is called, by whom its checkpoints are signed, and on which server it lives: the newest that was recorded. */
import type { DatabaseAdopted, RollOpened, ServiceStarted } from '../roll/entries.ts'
import type { Queryable } from './database.ts'

export interface RollStanding {
  readonly opened: Pick<RollOpened, 'origin' | 'key'> | undefined
  /** The server that the records were last said to be on; undefined where that was never said. */
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
 * The number that `initdb` gave the server, which copies of its files keep and dumps do not. Null where it is not told, as
 * by engines that only speak PostgreSQL's protocol.
 */
export const readSystemIdentifier = async (db: Queryable): Promise<string | null> => {
  try {
    const { rows } = await db.query<{ id: string }>(selectSystemIdentifier)
    return rows[0]?.id ?? null
  } catch (error) {
    if (isUnknownThere(error)) return null
    throw error
  }
}

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
const selectSystemIdentifier = {
  name: 'select_system_identifier',
  text: 'select system_identifier::text as id from pg_control_system()',
}
