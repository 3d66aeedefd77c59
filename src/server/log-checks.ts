/** Whether the records are those that this installation has worked with: the same log, in the same database, with all that was seen. */

import type { RollHead } from '../ca/issuance/recorder.ts'
import type { Config } from '../config/config.ts'
import type { Database } from '../db/database.ts'
import type { RollWriter } from '../db/log.ts'
import { isSameDatabase, readDatabaseId, readStanding } from '../db/log-opening.ts'
import { isProblem } from '../errors.ts'
import type { Checkpoint } from '../tlog/checkpoint.ts'
import { readAnchorFile } from './pinned-checkpoint.ts'

/** The last checkpoint as it is kept outside of the database. Throws `WrongRecords` where it cannot be read. */
export const readAnchor = async ({ roll: { anchor } }: Pick<Config, 'roll'>): Promise<Checkpoint | undefined> => {
  if (anchor === undefined) return undefined
  return readAnchorFile(anchor).catch((error: Error) => {
    // Of a folder, for example, it is the cause that has it.
    const { code } = (error.cause ?? error) as NodeJS.ErrnoException
    throw new WrongRecords(
      code === undefined
        ? error.message
        : `The anchor ${anchor} cannot be read (${code}): let the account that the service runs as read and write it, or name the right file by CHANCERY_ROLL_ANCHOR.`,
    )
  })
}

/** These records are not those that this installation has worked with; the message says why, and what to do. */
export class WrongRecords extends Error {}

/** Throws `WrongRecords` where they are of another roll, or in another database. */
export const assertSameRecords = async (
  db: Database,
  config: Pick<Config, 'roll'>,
  seen: Checkpoint | undefined,
): Promise<void> => {
  await assertSameRoll(db, config, seen)
  const { database } = await readStanding(db)
  if (database === undefined || database === null) return
  const found = await readDatabaseId(db)
  if (!isSameDatabase(database, found)) throw new WrongRecords(elsewhere(database, found))
}

const elsewhere = (before: string, found: string | null): string => {
  const [server, oid] = before.split('/')
  const [thisServer = 'one that does not tell its number', thisOid] = found?.split('/') ?? []
  return server === thisServer
    ? `The records were in another database of this server (oid ${oid}, and this one has ${thisOid}), of which this is a copy: make sure that nothing serves that one any more; then "chancery roll adopt-database" accepts the move.`
    : `The records were on the database server ${server}, and this is ${thisServer}: "chancery roll adopt-database" accepts a move.`
}

/** The same, wherever they are. */
export const assertSameRoll = async (
  db: Database,
  { roll }: Pick<Config, 'roll'>,
  seen: Checkpoint | undefined,
): Promise<void> => {
  const origin = (await readStanding(db)).opened?.origin
  if (seen && origin !== undefined && seen.origin !== origin)
    throw new WrongRecords(
      `The database holds the roll ${origin}, but ${roll.anchor} is of the roll ${seen.origin}: check CHANCERY_DATABASE_URL and CHANCERY_ROLL_ANCHOR. Where ${origin} succeeds it, "chancery roll succeed" says so here too.`,
    )
  if (seen && origin === undefined && seen.size > 0)
    throw new WrongRecords(
      `The database holds no roll, but ${roll.anchor} has seen ${seen.size} entries of the roll ${seen.origin}: check CHANCERY_DATABASE_URL, or restore the database (docs/roll.md).`,
    )
  if (roll.origin !== undefined && origin !== undefined && roll.origin !== origin)
    throw new WrongRecords(
      `The roll on record is called ${origin}, and keeps its name: leave CHANCERY_ROLL_ORIGIN out, or set it so.`,
    )
}

/** The head as it is now. Throws `WrongRecords` where what was seen is not part of its roll. */
export const assertWhole = async (roll: Pick<RollWriter, 'head'>): Promise<RollHead> => {
  try {
    return await roll.head()
  } catch (error) {
    throw isProblem(error, 'roll.inconsistent') ? new WrongRecords(error.detail) : error
  }
}
