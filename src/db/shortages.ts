/** What whoever asked is told of a database that cannot do it at present: what is short, and what its operator does next. */
import { openComplaint } from '../lib/log-throttle.ts'
import type { Log } from '../log.ts'

/** By SQLSTATE; undefined where the error says nothing that helps. */
export const shortageOf = (state: string | undefined): string | undefined =>
  state !== undefined && Object.hasOwn(shortages, state) ? shortages[state] : undefined

/** Why a connection could not be made: by SQLSTATE, by the code that Node gives it, or by its words. */
export const unreachedDetail = ({ code = '', message = '' }: Partial<NodeJS.ErrnoException>): string =>
  refusals.find(({ of }) => of.test(`${code} ${message}`))?.told ?? shortageOf(code) ?? 'No connection to the database.'

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
export const lockTaken = '55P03'
export const numbersSpent = '54000'
const tooManyConnections = '53300'

const few = 'the server has too few connections for the pool: issuing and searches share those that there are'

const lasting = 'where that lasts, its log says why, as for want of room on its disk.'

const damaged =
  'The database finds files of its own damaged, as its log says: its operator has to let another server take over, or to restore a backup.'

/** Class 53 is of resources, 57P of the server's coming and going; a lock and a server that only reads are for operators, too. */
const shortages: Readonly<Record<string, string>> = {
  [diskFull]: 'The database has no room left on its disk: its operator has to make some.',
  '53200': 'The database has no memory left: its operator has to see to that.',
  [tooManyConnections]:
    'The database has no connection left: its operator has to raise max_connections there, or the connection limit of the role or the database, or lower CHANCERY_DATABASE_POOL_SIZE.',
  '53400': 'The database has reached a bound of its settings, which its log names: its operator has to raise that.',
  [lockTaken]:
    'The database kept this waiting for a lock of another session: its operator sees which by pg_blocking_pids(), and waits for it or ends it.',
  '25P04':
    'The database ended this by the transaction_timeout of the role or the server: its operator has to raise that, or to see what is slow.',
  '25006':
    'The database only reads, as a standby does: its operator has to name the one that takes writes, or to reset default_transaction_read_only.',
  [numbersSpent]:
    'The database has no number left for another transaction: its operator has to vacuum what its log names, and to end what keeps it from that (old prepared transactions, replication slots).',
  XX001: damaged,
  XX002: damaged,
  // With no code but this one, PgBouncer says all that it has to say.
  '08P01':
    'A pooler before the database, or whoever stands there, turns this down: its operator sees why in the log of that, as where it has no connection left, or reaches no server.',
  '57P02': `The database has crashed, and recovers: ${lasting}`,
  '57P03': `The database takes no connections, as while it starts or recovers from a crash: ${lasting}`,
}

/** Of what only a connection is turned down by, and no waiting helps: 42501 of a statement is of another right. */
const refusals: readonly { readonly of: RegExp; readonly told: string }[] = [
  {
    of: /^(28P01|08P01 (password|SASL) authentication failed)/,
    told: 'The database does not accept the password of the role that serves: its operator has to set the right one in CHANCERY_DATABASE_URL, or in the file that has it.',
  },
  {
    of: /^28/,
    told: 'The database does not let in the role that serves: its operator has to give it LOGIN, or to mend pg_hba.conf or sslmode, as the log says.',
  },
  {
    of: /^42501 /,
    told: 'The role that serves may not connect to the database: its operator has to grant it CONNECT.',
  },
  {
    of: /^(3D000|55000|08P01 no such database)/,
    told: 'The server has no such database any more, or it takes no connections: its operator has to bring it back, or to name the right one in CHANCERY_DATABASE_URL.',
  },
  {
    of: /^(CERT_|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|INVALID_CA|ERR_TLS_)/,
    told: 'The database shows no TLS certificate that is trusted: its operator has to mend that certificate, or sslrootcert and the host in CHANCERY_DATABASE_URL.',
  },
  {
    // pg gives it no code.
    of: /^ The server does not support SSL/,
    told: 'The database speaks no TLS, which CHANCERY_DATABASE_URL asks for: its operator has to switch it on there, or in the pooler before it, or to mend sslmode.',
  },
  {
    of: /^ERR_SSL_/,
    told: 'The database turns our TLS down: its operator has to see in the logs why, and to mend sslcert and sslkey in CHANCERY_DATABASE_URL, or what the server takes.',
  },
]
