/** The log: JSON lines by pino, with everything that must never be in one cut out by path. */
import type { BaseLogger, LoggerOptions } from 'pino'

/** What modules are given to write to; any pino logger will do. */
export type Log = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>
export type _Later = LoggerOptions
