/** Answers that are no success, in sentences for whoever has called: what went wrong, where, what to do. */

import { isToldIn, type Violation } from '../errors.ts'
import { Failure, type FailureKind } from '../lib/failure.ts'
import { violationText, visible } from '../lib/output.ts'

interface ProblemBody {
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly next: string
  readonly retryable: boolean
  readonly retryAfter?: number
  readonly requestId: string
  readonly violations?: readonly Violation[]
}

/** With the exit code that the problem has; an answer that is no problem document may be a proxy's. */
export const failureOf = ({ status, text, headers }: Pick<Answer, 'status' | 'text' | 'headers'>): Failure => {
  const isProblem = String(headers['content-type']).startsWith('application/problem+json')
  const problem = isProblem ? readProblem(parsed(text), status) : undefined
  if (problem === undefined) {
    // A proxy answers for one that is away.
    const kind = passing.has(status) ? 'later' : 'failed'
    const retryAfter = secondsOf(headers['retry-after'])
    const known = retryAfter === undefined ? undefined : { retryAfter }
    return new Failure(kind, `The server answered ${status} without saying why; is it Chancery?`, known)
  }
  const { detail, code, next, violations = [], requestId, retryAfter } = problem
  const lines = [
    `${detail} (${code}, request ${requestId})`,
    ...violations.filter((violation) => !isToldIn(detail, violation)).map(violationText),
    next + (retryAfter === undefined ? '' : ` Retry-After: ${retryAfter} s.`),
  ]
  return new Failure(kindOf(problem), lines.map(visible).join('\n'), problem)
}

/** As far as it is one: whoever stands in the place of the server may say anything. */
const readProblem = (told: unknown, status: number): ProblemBody | undefined => {
  const { code, detail, next, requestId, retryable, retryAfter, violations, ...more } = (told ?? {}) as {
    readonly [member: string]: unknown
  }
  if (![code, detail, next, requestId].every((text) => typeof text === 'string')) return undefined
  return {
    ...more,
    ...({ code, detail, next, requestId } as Pick<ProblemBody, 'code' | 'detail' | 'next' | 'requestId'>),
    status,
    retryable: retryable === true,
    ...(typeof retryAfter === 'number' && retryAfter >= 0 && { retryAfter }),
    ...(Array.isArray(violations) && { violations: violations.filter(isViolation) }),
  }
}

const isViolation = (told: unknown): told is Violation => {
  const { check, field, value, reason } = (told ?? {}) as Readonly<Record<string, unknown>>
  return [check, field, value, reason].every((text) => typeof text === 'string')
}

const kindOf = ({ status, retryable }: ProblemBody): FailureKind => (retryable ? 'later' : kindOfStatus(status))

/** Where nothing but the status says so. */
export const kindOfStatus = (status: number): FailureKind => {
  if (passing.has(status)) return 'later'
  if (status === 401 || status === 403) return 'denied'
  if (status === 404) return 'missing'
  if (status === 409 || status === 412 || status === 428) return 'conflict'
  return status < 500 ? 'refused' : 'failed'
}

/** Of Retry-After (RFC 9110 10.2.3): seconds, or a date. */
export const secondsOf = (text: string | readonly string[] = ''): number | undefined => {
  if (typeof text !== 'string') return undefined
  const seconds = /^\d{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1_000
  return seconds > 0 ? seconds : undefined
}

/**
 * Milliseconds, of those seconds: an hour at most. A timer takes no more than 24 days, and what it cannot take it takes for one
 * millisecond.
 */
export const askedMs = (seconds = 0): number => Math.min(seconds * 1_000, longestAskedMs)

/** Undefined where it is no JSON. */
export const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const longestAskedMs = 3_600_000
/** Statuses of what passes by itself. */
const passing: ReadonlySet<number> = new Set([408, 429, 502, 503, 504])

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly octets: Buffer
  readonly text: string
  /** The body of a JSON answer. */
  json<T>(): T
}
