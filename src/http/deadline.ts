/** A bound on how long a caller waits. */

import { Problem } from '../errors.ts'
import { withDeadline } from '../lib/timeout.ts'
import { handlerTimeout } from './bounds.ts'

/**
 * The same promise, or `overload.deadline` when it takes too long; the work goes on, and its end is found again by its
 * Idempotency-Key. Fastify's own handlerTimeout makes an AbortController and an error for each request: 4 µs (measured).
 */
export const withinDeadline = async <T>(work: Promise<T>, milliseconds: number = handlerTimeout): Promise<T> => {
  const answer = await withDeadline(work, milliseconds)
  if (answer !== 'late') return answer
  throw new Problem('overload.deadline', `There was no answer within ${milliseconds / 1000} s.`)
}
