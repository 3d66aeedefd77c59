/** What whoever asked is told of a database that cannot do it at present: what is short, and what its operator does next. */
import { openComplaint } from '../complaint.ts'
import type { Log } from '../telemetry.ts'

/** By SQLSTATE; undefined where the error says nothing that helps. */
export const shortageOf = (state: string | undefined): string | undefined =>
  state !== undefined && Object.hasOwn(shortages, state) ? shortages[state] : undefined

/**
 * A server whose write-ahead log finds no room ends, and then is only away, for as long as it cannot write: what it said last is
 * told for as long as it is not reached.
 */
export const openLastWords = (now = (): number => performance.now()) => {
  let until = Number.NEGATIVE_INFINITY
  return {
    /** Told of each statement: by what state it failed, if it did. */
    failed: (state: string | undefined): void => {
      if (state === diskFull) until = now() + lastingMs
    },
    /** What is told of a connection that did not come about. */
    unreached: (state: string | undefined): string => {
      if (now() >= until) return shortageOf(state) ?? 'No connection to the database.'
      until = now() + lastingMs
      return 'No connection to the database, which had no room left on its disk before: its operator has to make some, and start it where it does not start by itself.'
    },
  }
}

/** Tells of an error that is a shortage of connections, and whether it is one. */
export const openFewConnections = (log: Log): ((state: string | undefined, error: unknown) => boolean) => {
  const { tell } = openComplaint()
  return (state, error) => {
    if (state !== tooManyConnections) return false
    tell('', () => log.warn({ event: 'database.short', err: error }, few))
    return true
  }
}

export const diskFull = '53100'
const tooManyConnections = '53300'

const few = 'the server has too few connections for the pool: issuing and searches share those that there are'

const lasting = 'where that lasts, its log says why, as for want of room on its disk.'

/** Class 53 is of resources, 57P of the server's coming and going; a lock and a server that only reads are for operators, too. */
const shortages: Readonly<Record<string, string>> = {
  [diskFull]: 'The database has no room left on its disk: its operator has to make some.',
  '53200': 'The database has no memory left: its operator has to see to that.',
  [tooManyConnections]:
    'The database has no connection left: its operator has to raise max_connections there, or the connection limit of the role or the database, or lower CHANCERY_DATABASE_POOL_SIZE.',
  '53400': 'The database has reached a bound of its settings, which its log names: its operator has to raise that.',
  '55P03':
    'The database kept this waiting for a lock of another session: its operator sees which by pg_blocking_pids(), and waits for it or ends it.',
  '25006':
    'The database only reads, as a standby does: its operator has to name the one that takes writes, or to reset default_transaction_read_only.',
  '57P02': `The database has crashed, and recovers: ${lasting}`,
  '57P03': `The database takes no connections, as while it starts or recovers from a crash: ${lasting}`,
}

/** Longer than the service ever leaves the database alone. */
const lastingMs = 60_000
