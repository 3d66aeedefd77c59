/**
 * What the database turns down though it answers: a server without room on its disk, one that has taken a right from the
 * role that serves, and one where a session keeps a lock, answer questions as ever, and take some of what is written. Each is
 * known by what it turns down only.
 */
import { isProblem } from '../errors.ts'
import type { Queryable } from './database.ts'
import { sqlState } from './errors.ts'
import { isHeldUp } from './lock-waits.ts'
import { lacksRights } from './safety.ts'
import { diskFull, lockTaken, numbersSpent } from './shortages.ts'

export interface TurnedDown {
  /** Called with each statement that failed, and why. */
  failed(error: unknown, statement?: string): void
  /** Called once certificates are recorded. */
  recorded(): void
  /** Why a statement was rejected lately; else undefined. */
  fault(): string | undefined
  /** While there is a fault, checks every few seconds whether its cause lasts. */
  look(db: Queryable): Promise<void>
}

export const openTurnedDown = (now = (): number => performance.now()): TurnedDown => {
  const never = Number.NEGATIVE_INFINITY
  const kinds = Object.entries(reasons).map(([state, kind]) => ({ state, ...kind, until: never, isSeen: false }))
  let lookedAt = never
  const current = () => kinds.filter(({ until }) => now() < until)
  return {
    failed: (error, statement = '') => {
      const kind = kinds.find(({ state }) => state === sqlState(error))
      if (kind === undefined || kind.isNothing?.(error) || kind.of?.has(statement) === false) return
      if (now() >= kind.until) kind.isSeen = false
      kind.until = now() + lastingMs
    },
    recorded: () => {
      for (const kind of kinds) if (kind.of !== undefined) kind.until = never
    },
    fault: () => current()[0]?.reason,
    look: async (db) => {
      if (now() - lookedAt < lookEveryMs) return
      for (const kind of current()) {
        lookedAt = now()
        const isMissing = await kind.isMissing(db)
        if (isMissing) kind.until = now() + lastingMs
        else if (isMissing === false && (kind.isSeen || kind.isSure)) kind.until = never
        kind.isSeen = isMissing ?? kind.isSeen
      }
    },
  }
}

interface Kind {
  readonly reason: string
  /** Undefined where nobody can tell. */
  readonly isMissing: (db: Queryable) => Promise<boolean | undefined>
  /** Where one look sees nothing missing, nothing is. */
  readonly isSure?: true
  /** Of those that are turned down by the same code, what tells of no fault. */
  readonly isNothing?: (error: unknown) => boolean
  /** A fault for these statements only, and until a certificate is recorded: what is turned down at times goes through at others, and nothing is issued. */
  readonly of?: ReadonlySet<string>
}

/** 256 KiB of what cannot be compressed, where nobody else keeps anything; none of it stays. */
const takeRoom = {
  text: `
    do $$
    begin
      perform lo_from_bytea(0, string_agg(sha256(random()::text::bytea), '')) from generate_series(1, 8192);
      raise exception 'there is room' using errcode = 'CH001';
    exception when sqlstate 'CH001' then null;
    end $$`,
}

/** What is small goes through on a full disk; this does not. Undefined where nobody can tell. */
export const hasNoRoom = async (db: Queryable): Promise<boolean | undefined> => {
  try {
    await db.query(takeRoom)
    return false
  } catch (error) {
    return sqlState(error) === diskFull ? true : undefined
  }
}

/** Of functions of the server's own we ask what few may know, and do without; so we do where nobody may look for room. */
const isOfSystem = (error: unknown): boolean => /\b(pg_|lo_|plpgsql\b)/.test((error as Error).message)

export const noNumber =
  'the database has no number left for another transaction: vacuum what its log names, and end what keeps it from that (old prepared transactions, replication slots)'

/** As after a vacuum that was kept from it for two thousand million transactions. */
export const hasNoNumber = async (db: Queryable): Promise<boolean | undefined> => {
  try {
    await db.query({ text: 'select pg_current_xact_id()' })
    return false
  } catch (error) {
    return sqlState(error) === numbersSpent ? true : undefined
  }
}

/**
 * What each issuance asks; guards look at the records as it is committed. A damaged page that a search meets, or one caller by what is
 * old, keeps nobody else from it.
 */
const issuing: ReadonlySet<string> = new Set([
  ...['select_caller', 'select_named_caller', 'select_requests', 'select_key_standing'],
  ...['insert_intents', 'enrol', 'commit'],
])

const damage: Kind = {
  reason:
    'the database finds files of its own damaged, as its log says: let another server take over, or restore a backup (an index is made again by "reindex")',
  isMissing: async () => undefined,
  // By the same code a guard of ours refuses.
  isNothing: (error) => !isProblem(error),
  of: issuing,
}

/** By SQLSTATE: disk_full, lock_not_available, insufficient_privilege, data_corrupted, index_corrupted. */
const reasons: Readonly<Record<string, Kind>> = {
  [diskFull]: { reason: 'the database has no room on its disk', isMissing: hasNoRoom },
  [lockTaken]: {
    reason:
      'a lock of another session keeps statements waiting, as a forgotten transaction does: "chancery doctor" says which session it is',
    isMissing: isHeldUp,
    // A search that waited for another table keeps nobody from issuing.
    isSure: true,
  },
  [numbersSpent]: {
    reason: noNumber,
    isMissing: hasNoNumber,
    isSure: true,
    // By the same code, no shortage: what is too long for an index.
    isNothing: (error) => !isProblem(error),
  },
  '42501': {
    reason:
      'the role that serves lacks a right in the database: "chancery migrate" of the owner of the tables gives it all that it needs, and says where row level security is in the way',
    isMissing: (db) => lacksRights(db).catch(() => undefined),
    isNothing: isOfSystem,
  },
  XX001: damage,
  XX002: damage,
}

const lookEveryMs = 4_000
/** Statements that need less, or another right, succeed meanwhile. */
const lastingMs = 30_000
