/** The log: JSON lines by pino, with everything that must never be in one cut out by name. */
import type { BaseLogger, LoggerOptions } from 'pino'

/** What modules are given to write to; any pino logger will do. Every line has an `event`, a constant. */
export type Log = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'> & {
  /** For how long lines have waited of which none was taken, where that is known. */
  readonly stalledSeconds?: () => number
}

/** Options for the one logger of a process. */
export const logOptions = (level: string): LoggerOptions => ({
  level,
  base: null,
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
  formatters: { level: (label) => ({ level: label }), log: redact },
  serializers: { err: describeError, error: describeError },
})

/**
 * An error and its causes as plain data. Only these members: errors of the database also carry rows (`detail`,
 * `where`), those of the URL parser their input, which may be a password.
 */
export const describeError = (error: unknown, depth = 0): unknown => {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : { type: typeof error }
  const { name, message, stack, cause } = error
  const { code, constraint } = error as { code?: unknown; constraint?: unknown }
  return {
    type: name,
    message,
    ...(code === undefined ? {} : { code }),
    ...(constraint === undefined ? {} : { constraint }),
    ...(depth === 0 ? { stack } : {}),
    ...(cause === undefined || depth >= deepest ? {} : { cause: describeError(cause, depth + 1) }),
  }
}

/**
 * The same object unless it holds a secret, by the name of a member, up to three levels down. Pino's own redaction
 * takes 40 µs a line for these names (measured); a certificate takes 160 µs.
 */
const redact = (line: Record<string, unknown>): Record<string, unknown> =>
  holdsSecret(line, 0) ? withoutSecrets(line, 0) : line

const holdsSecret = (line: object, depth: number): boolean => {
  // Without a list of its members: this is done for each request.
  for (const name in line) {
    const value = line[name as keyof typeof line]
    if (isSecret(name, value)) return true
    if (depth < redactedDepth && isPlain(value) && holdsSecret(value, depth + 1)) return true
  }
  return false
}

const withoutSecrets = (line: object, depth: number): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(line).map(([name, value]) => {
      if (isSecret(name, value)) return [name, '[redacted]']
      return [name, depth < redactedDepth && isPlain(value) ? withoutSecrets(value, depth + 1) : value]
    }),
  )

const isSecret = (name: string, value: unknown): boolean =>
  secretNames.has(name.toLowerCase()) || (typeof value === 'string' && databaseUrl.test(value))

/** Errors have a serializer of their own. */
const isPlain = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !(value instanceof Error) && !ArrayBuffer.isView(value)

/** libpq takes both schemes. */
const databaseUrl = /^postgres(?:ql)?:\/\//i
const redactedDepth = 2
const deepest = 4

/** In lower case. */
const secretNames: ReadonlySet<string> = new Set([
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'password',
  'passphrase',
  'pin',
  'secret',
  'token',
  'challengepassword',
  'privatekey',
  'csr',
  'pem',
  'connectionstring',
  'ownerurl',
  'servingurl',
  'migrationurl',
  'databaseurl',
])
