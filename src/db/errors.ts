/** What errors of the database mean: whether the same call may succeed later, whether its effect is known, and whose it is to mend. */
import pg from 'pg'

import { Problem } from '../errors.ts'

/**
 * Did the connection break, so that nobody knows whether the statement took effect? Looks through a `Problem` at
 * its cause.
 */
export const isConnectionLoss = (error: unknown): boolean => {
  const cause = causeOf(error)
  if (!(cause instanceof Error)) return false
  const { code = '' } = cause as { code?: string }
  return code.startsWith('08') || lossCodes.has(code) || lossMessages.some((text) => cause.message.includes(text))
}

/** The five characters of PostgreSQL's error, for example '23505'; undefined for any other error. */
export const sqlState = (error: unknown): string | undefined => {
  const { code } = (causeOf(error) ?? {}) as { code?: unknown }
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && causeOf(error) instanceof pg.DatabaseError
    ? code
    : undefined
}

/**
 * The code, the routine of the server that said it, and its words, with a space between: of these the last are in the language that
 * the server speaks (`lc_messages`, as its machine has it). Poolers know no routine, neither of what they say themselves nor of a
 * connection that the server turned down (`-`); of what is not the server's own there is none at all.
 */
export const wordsOf = (error: Error): string => {
  const { code = '', routine = '-' } = error as { readonly code?: string; readonly routine?: string }
  return [code, ...(sqlState(error) === undefined ? [] : [routine]), error.message].join(' ')
}

/** The constraint that a statement violated, by its name in the schema. */
export const constraintOf = (error: unknown): string | undefined => {
  const cause = causeOf(error)
  return cause instanceof pg.DatabaseError ? cause.constraint : undefined
}

/**
 * A statement that was prepared before its tables changed, as a migration beside us does, and would give other columns now: each
 * connection refuses it for good, before anything is done, and a new one prepares it anew.
 */
const isStale = (error: unknown): boolean =>
  (causeOf(error) as { readonly routine?: unknown } | undefined)?.routine === 'RevalidateCachedQuery'

/** The connection must not be used again. */
export const isSpent = (error: unknown): boolean => isConnectionLoss(error) || isStale(error)

/**
 * Of `wordsOf` it: a page that fails its checksum or an index that contradicts itself, and no number for another transaction. The
 * server's operator mends these. Guards of ours say the first as well, and of what is too long for an index the code of the last is said.
 */
export const ofServer = { damaged: /^XX00[12] (?!exec_stmt_raise )/, spent: /^54000 GetNew\w+Id / } as const

/** Nothing that waits, or is said again, gets past it. */
export const isOfServer = (error: unknown): boolean => {
  const cause = causeOf(error)
  return sqlState(cause) !== undefined && Object.values(ofServer).some((of) => of.test(wordsOf(cause as Error)))
}

export const isTransient = (error: unknown): boolean => {
  const state = sqlState(error) ?? ''
  return isSpent(error) || isOfServer(error) || transientClasses.has(state.slice(0, 2)) || transientStates.has(state)
}

export const unavailable = (detail: string, cause: unknown): Problem =>
  new Problem('db.unavailable', detail, { cause, retryAfter: 1 })

/** 08P01 is what PgBouncer says everything with. */
export const isPasswordFault = (error: unknown): boolean =>
  sqlState(error) === '28P01' ||
  (sqlState(error) === '08P01' && /^(password|SASL) authentication failed/.test((error as Error).message))

export const causeOf = (error: unknown): unknown => (error instanceof Problem ? error.cause : error)

/** Errors of the socket, and of a server that ends the session (class 57P). */
const lossCodes: ReadonlySet<string> = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT'],
  ...['EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN'],
  ...['57P01', '57P02', '57P03', '57P04', '57P05', '25P03', '25P04'],
])

export const answerTimedOut = 'The database did not answer in time'

/** pg gives these no code. */
const lossMessages = [
  'Connection terminated',
  answerTimedOut,
  // Of a `query_timeout` in the URL.
  'Query read timeout',
  'Client has encountered a connection error',
  'Client was closed',
] as const

/** Connection, resources, operator intervention, system. */
const transientClasses: ReadonlySet<string> = new Set(['08', '53', '57', '58'])
/** Serialization, deadlock, lock timeout; and read-only, which is a server on its way to or from being a standby. */
const transientStates: ReadonlySet<string> = new Set(['40001', '40P01', '55P03', '25006'])
