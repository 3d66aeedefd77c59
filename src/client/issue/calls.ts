/** Many requests in as few calls as the service takes them, and what it says of each. */
import { batchBodyLimit, batchItems, batchPath, batchTimeout } from '../../http/bounds.ts'
import { Failure } from '../../lib/failure.ts'
import { type Answer, failureOf } from '../rejected.ts'
import type { Client } from '../rest.ts'
import { assertAnswered } from './approval.ts'
import { type IssuedAnswer, readIssued } from './issued.ts'

/** What one call takes; both are the service's. */
export interface CallBounds {
  readonly items: number
  /** Octets of its body. */
  readonly octets: number
}

/** The bodies of the calls, in the order of the items, and how many of them each has. An item is JSON, and fits. */
export const callsOf = (
  items: readonly string[],
  bounds: CallBounds = serviceBounds,
): readonly { readonly body: string; readonly count: number }[] => {
  const calls: string[][] = []
  let room = 0
  for (const item of items) {
    // And the comma before it.
    const octets = Buffer.byteLength(item) + 1
    const last = calls.at(-1)
    if (last !== undefined && octets <= room && last.length < bounds.items) last.push(item)
    else {
      calls.push([item])
      room = bounds.octets - Buffer.byteLength(bodyOf([]))
    }
    room -= octets
  }
  return calls.map((those) => ({ body: bodyOf(those), count: those.length }))
}

/** Sends one, and resolves to what became of each of its items: a certificate, or why there is none (yet). */
export const callBatch = async (
  client: Client,
  { body, count }: { readonly body: string; readonly count: number },
): Promise<readonly (IssuedAnswer | Failure)[]> => {
  const answer = await client.call('POST', batchPath, { body, patienceMs })
  const told = answer.json<{ readonly items?: unknown } | null>()?.items
  if (!Array.isArray(told) || told.length !== count || !told.every(isOutcome))
    throw new Failure('failed', 'The server answered with no outcome for each request; is it Chancery?')
  return told.map(readOutcome)
}

/**
 * Whether what was sent may have been done all the same: nobody answered, or with what is no problem, or nothing is known
 * there either.
 */
export const mayBeDone = ({ kind, cause, problemCode }: Failure): boolean => {
  if (kind !== 'later' && kind !== 'failed') return false
  if (neverSent.has((cause as NodeJS.ErrnoException | undefined)?.code ?? '')) return false
  return problemCode === undefined || doubtful.has(problemCode)
}

interface Outcome {
  readonly status: number
  readonly certificate?: unknown
  readonly request?: unknown
  readonly problem?: unknown
}

const isOutcome = (told: unknown): told is Outcome => typeof (told as Outcome | null)?.status === 'number'

/** As if it had come alone. */
const readOutcome = ({ status, certificate, request, problem }: Outcome): IssuedAnswer | Failure => {
  try {
    if (status === 201) return readIssued(answerOf(status, certificate))
    if (status === 202) return readIssued(assertAnswered(answerOf(status, request)))
    return failureOf(answerOf(status, problem))
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
}

const answerOf = (status: number, value: unknown): Answer => {
  const text = JSON.stringify(value ?? null)
  const headers = { 'content-type': 'application/problem+json' }
  return { status, headers, text, octets: Buffer.from(text), json: <T>() => value as T }
}

const bodyOf = (items: readonly string[]): string => `{"items":[${items.join(',')}]}`

const serviceBounds: CallBounds = { items: batchItems, octets: batchBodyLimit }
/** Nothing comes until all of a call is done. */
const patienceMs = batchTimeout + 10_000
/** Before a connection is there. */
const neverSent: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
])
/** Problems of a whole call after which items of it may have been issued. */
const doubtful: ReadonlySet<string> = new Set(['overload.deadline', 'internal'])
