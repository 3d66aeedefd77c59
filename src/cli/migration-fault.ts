/** A migration that ended through no fault of its own: nothing of it remains, and a sentence says what to do before the next try. */
import { placeOf } from '../config/config.ts'
import { ofServer, wordsOf } from '../db/errors.ts'
import { isProblem } from '../errors.ts'
import { Failure, type FailureKind } from '../lib/failure.ts'
import { type DatabaseSetting, damagedFiles } from './database-fault.ts'

/** Throws what came while migrating over an open connection as a `Failure`; anything else as it is. */
export const explainMigration =
  (setting: DatabaseSetting) =>
  (error: unknown): never => {
    const { cause, message } = error as Error
    const origin = cause instanceof Error ? cause : error
    const fault = faults.find(({ of }) => of.test(wordsOf(origin as Error)))
    // A server that takes nobody in is told of by who knows where it is.
    if (fault === undefined || (cause === undefined && fault.ofServer)) throw error
    const told = isProblem(error) ? `Nothing was kept up: ${(origin as Error).message}` : message
    throw new Failure(fault.kind, `${told}; ${fault.next(setting)}.`, undefined, error)
  }

interface Fault {
  /** Of `wordsOf` it. */
  readonly of: RegExp
  readonly kind: FailureKind
  /** It may have come before there was a connection. */
  readonly ofServer?: true
  readonly next: (setting: DatabaseSetting) => string
}

const endedByServer = (): string =>
  'the server has ended it: nothing of this step remains, and "chancery migrate" goes on where it ended'

const lackedByServer = (): string =>
  'give the server what it lacks: nothing of this step remains, and "chancery migrate" goes on where it ended'

const faults: readonly Fault[] = [
  {
    of: /^(55P03|40001|40P01)/,
    kind: 'later',
    next: () =>
      'something else had what it needs (pg_stat_activity says what): nothing of this step remains, and "chancery migrate" goes on where it ended',
  },
  {
    of: /^(53|58)/,
    kind: 'later',
    ofServer: true,
    next: lackedByServer,
  },
  {
    of: ofServer.spent,
    kind: 'later',
    next: lackedByServer,
  },
  {
    of: ofServer.damaged,
    kind: 'later',
    next: () => `its ${damagedFiles}; nothing of this step remains`,
  },
  {
    // Steps have no time of their own; what is asked before them, and what is kept up, does.
    of: /^57014/,
    kind: 'later',
    next: () =>
      'somebody has cancelled it, or a statement_timeout was over, as one of this role of a few milliseconds is: nothing of this step remains, and "chancery migrate" goes on where it ended',
  },
  {
    // Of no connection that is only just made; the last is what pg says of one that was ended while nothing was asked of it.
    of: /^(57P0[12]|25P0[234]| Client )/,
    kind: 'later',
    next: endedByServer,
  },
  {
    of: /^(57|08(?!P01)| Connection terminated)/,
    kind: 'later',
    ofServer: true,
    next: endedByServer,
  },
  {
    of: /^25006/,
    kind: 'later',
    next: ({ name }) =>
      `the server, or this role there (default_transaction_read_only), only reads: name the one that takes writes in ${name}`,
  },
  {
    // What the migrations raise themselves has other codes.
    of: /^(P0001|42501) exec_stmt_raise /,
    kind: 'usage',
    next: () =>
      'a trigger that somebody has put into the database refuses it (pg_event_trigger): have an administrator let it by ("alter event trigger … disable"), and run the same command again; nothing of this step remains',
  },
  {
    of: /^42501 check_enable_rls /,
    kind: 'usage',
    next: () =>
      'row level security keeps even the owner from that table: end it there ("alter table … disable row level security"), and run the same command again; nothing of this step remains',
  },
  {
    of: /^42501 (?!(CheckMyDatabase|-) )/,
    kind: 'usage',
    next: ({ name, url }) =>
      `the role ${JSON.stringify(placeOf(url).role)} does not own the tables: name their owner in ${name}, or let an administrator give them to it ("alter database … owner to" where it is new, "reassign owned" after a restore by another role)`,
  },
  {
    of: /^42704 get_role_oid /,
    kind: 'usage',
    next: () => 'create it, or name another as the one that serves in CHANCERY_DATABASE_URL',
  },
  {
    of: /^3F000/,
    kind: 'usage',
    next: ({ name }) => `the search_path of the role in ${name} names no schema that is there`,
  },
]
