/** A database that cannot be opened, in one sentence: where it is, what is wrong, what to do. */
import { type DatabasePlace, placeOf } from '../config/config.ts'
import { sqlState, wordsOf } from '../db/errors.ts'
import { WrongSchema } from '../db/migrate.ts'
import { isProblem } from '../errors.ts'
import { Failure, type FailureKind } from '../lib/failure.ts'
import { WrongRecords } from '../server/log-checks.ts'

/** A URL to connect by, and the setting that it came from. */
export interface DatabaseSetting {
  readonly name: 'CHANCERY_DATABASE_URL' | 'CHANCERY_MIGRATION_URL' | '--database'
  readonly url: string
}

/**
 * Throws what went wrong while connecting, and a schema that does not fit, as a `Failure`, which never shows the password;
 * anything else as it is.
 */
export const explainDatabase =
  ({ name, url }: DatabaseSetting) =>
  (error: unknown): never => {
    const cause = isProblem(error) ? error.cause : error
    if (cause instanceof WrongSchema) throw new Failure('usage', cause.message)
    if (!(cause instanceof Error)) throw error
    const { code = '', message } = cause as NodeJS.ErrnoException
    const fault = faults.find(({ pattern }) => pattern.test(wordsOf(cause)))
    if (!fault) throw error
    const place = placeOf(url)
    const reason = fault.quoted ? message : code
    const what = `${fault.what(place)}${reason && ` (${reason})`}`
    throw new Failure(
      fault.kind,
      `The database ${JSON.stringify(place.database)} at ${place.address} cannot be opened: ${what}; ${fault.next} ${name}.`,
    )
  }

/** Throws that these are not the records of before as a `Failure`; anything else as it is. */
export const explainRecords = (error: unknown): never => {
  throw error instanceof WrongRecords ? new Failure('usage', error.message) : error
}

/**
 * Throws that the database did not do in time what it does at once, broke off, or does not let us, as a `Failure`; anything else as
 * it is.
 */
export const explainUnavailable = (error: unknown): never => {
  if (error instanceof Error && sqlState(error) === insufficientPrivilege)
    throw new Failure('usage', `The database turns this down: ${error.message}; ${migrateTells}`, undefined, error)
  if (!isProblem(error, 'db.unavailable')) throw error
  const reason = error.cause instanceof Error ? error.cause.message : error.detail
  throw new Failure(
    'later',
    `The database does not do what is asked of it: ${reason}. ${nexts[sqlState(error) ?? ''] ?? lookThere}`,
    undefined,
    error,
  )
}

const insufficientPrivilege = '42501'
const migrateTells =
  '"chancery migrate" of the owner of the tables gives the role that serves its rights, and names each table that row level security keeps from it.'
/** Of a server that finds files of its own damaged: what mends them. */
export const damagedFiles =
  'files are damaged: an index is made again by "reindex", a table comes back from another server or a backup'
const damaged = `Its ${damagedFiles}.`
/** By SQLSTATE. */
const nexts: Readonly<Record<string, string>> = {
  '25006':
    'The server, or this role there (default_transaction_read_only), only reads: name the one that takes writes in CHANCERY_DATABASE_URL.',
  '54000':
    'Vacuum what its log names, as its superuser, and end what keeps it from that (old prepared transactions, replication slots).',
  XX001: damaged,
  XX002: damaged,
}
const lookThere = 'See what keeps it (pg_stat_activity, its log), and run the same command again.'

interface Fault {
  /** Of `wordsOf` it: some of pg's errors have no code. */
  readonly pattern: RegExp
  readonly kind: FailureKind
  readonly what: (place: DatabasePlace) => string
  /** Where the message says more than the code. */
  readonly quoted?: true
  readonly next: string
}

const faults: readonly Fault[] = [
  {
    pattern: /^(28P01| SASL:|08P01 - (password|SASL) authentication failed)/,
    kind: 'usage',
    what: ({ role }) => `the server does not accept the password of the role ${JSON.stringify(role)}`,
    next: 'set the right role and password in',
  },
  {
    // In its words alone it tells one that is not there from one that may not.
    pattern: /^28000 InitializeSessionUserId /,
    kind: 'usage',
    what: ({ role }) => `there is no role ${JSON.stringify(role)} that may log in`,
    quoted: true,
    next: 'create it, or give it that ("alter role … login"), or set another role in',
  },
  {
    pattern: /^28000/,
    kind: 'usage',
    what: ({ role }) => `the server does not let in the role ${JSON.stringify(role)} from here`,
    quoted: true,
    next: `let it log in ("alter role … login"), mend the server's pg_hba.conf, or the role and sslmode in`,
  },
  {
    pattern: /^42501 check_enable_rls /,
    kind: 'usage',
    what: ({ role }) => `row level security keeps the role ${JSON.stringify(role)} from its tables`,
    quoted: true,
    next: 'end it there ("alter table … disable row level security"; "chancery migrate" of their owner names each), or set another role in',
  },
  {
    pattern: /^42501 .*\bschema_migrations\b/,
    kind: 'usage',
    what: ({ role }) => `the role ${JSON.stringify(role)} has no rights to its tables, as after a restore without them`,
    next: 'let "chancery migrate" of their owner grant them (of the embedded one, "chancery serve" does), or set another role in',
  },
  {
    pattern: /^42501 (CheckMyDatabase|-) /,
    kind: 'usage',
    what: ({ role }) => `the role ${JSON.stringify(role)} may not connect to it`,
    quoted: true,
    next: 'grant it that ("grant connect on database"), or set another role in',
  },
  {
    pattern: /^08P01 - unsupported startup parameter/,
    kind: 'usage',
    what: () => 'a pooler stands there, which takes no start-up settings',
    quoted: true,
    next: 'set CHANCERY_DATABASE_PREPARED_STATEMENTS=no (docs/configuration.md), or a URL that leads past it in',
  },
  {
    pattern: /^08P01 - transaction blocks not allowed/,
    kind: 'usage',
    what: () => 'a pooler stands there, which keeps a connection for a single statement',
    quoted: true,
    next: 'let it pool sessions or transactions (pool_mode), or set a URL that leads past it in',
  },
  {
    pattern: /^(3D000|08P01 - no such database)/,
    kind: 'usage',
    what: () => 'the server has no such database',
    next: 'create it, or set the right one in',
  },
  {
    pattern: /^55000 (CheckMyDatabase|InitPostgres|-) /,
    kind: 'later',
    what: () => 'it takes no connections',
    quoted: true,
    next: 'let it ("alter database … allow_connections true"), or set another in',
  },
  {
    pattern: /^ The server does not support SSL/,
    kind: 'usage',
    what: () => 'the server does not speak TLS',
    next: 'switch it on there, or change sslmode in',
  },
  {
    pattern:
      /^(CERT_|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|INVALID_CA|ERR_TLS_|ERR_SSL_|EPROTO| There was an error establishing an SSL)/,
    kind: 'usage',
    what: () => 'the server shows no TLS certificate that is trusted',
    next: 'mend its certificate, or sslrootcert and the host in',
  },
  {
    pattern: /^(ENOENT|EACCES|EISDIR|ENOTDIR) [^,]*, (open|read)/,
    kind: 'usage',
    what: () => 'a file that the URL names cannot be read',
    quoted: true,
    next: 'mend its path in',
  },
  {
    pattern: /^(ENOTFOUND|EAI_)/,
    kind: 'later',
    what: () => 'the name of the host does not resolve',
    next: 'mend the name service, or the host in',
  },
  {
    pattern: /^53300/,
    kind: 'later',
    what: () => 'the server has no connection left',
    quoted: true,
    next: 'wait until it has, raise max_connections there or the connection limit of the role or the database, or set another in',
  },
  {
    pattern: /^(53|57P)/,
    kind: 'later',
    what: () => 'the server takes no connections now',
    quoted: true,
    next: 'wait until it does, or set another in',
  },
  {
    // As a library of session_preload_libraries, or a table's own.
    pattern: /^58/,
    kind: 'later',
    what: () => 'the server lacks a file that it needs',
    quoted: true,
    next: 'see its log, or set another in',
  },
  {
    // With no code but this one, PgBouncer says that it has no connection left, or reaches no server.
    pattern: /^08P01 /,
    kind: 'later',
    what: () => 'a pooler, or whoever stands there, turns us down',
    quoted: true,
    next: 'see its log and the server behind it, or set a URL that leads past it in',
  },
  {
    pattern: /^(ECONN|EHOST|ENET|ETIMEDOUT|EPIPE|ENOENT|EACCES|08| timeout e| Connection terminated)/,
    kind: 'later',
    what: () => 'no PostgreSQL answers there',
    next: 'start it, or set the right host and port in',
  },
]
