/** A certificate that people must approve first: waiting for them, or saying how to come back. */
import { setTimeout as sleep } from 'node:timers/promises'

import type { ProblemCode } from '../../errors.ts'
import { Failure } from '../../lib/failure.ts'
import { visible } from '../../lib/output.ts'
import { obstacleText, type RequestAnswer } from '../approval-request.ts'
import { type Answer, askedMs, secondsOf } from '../rejected.ts'
import { type Client, segment } from '../rest.ts'

/** Nothing is there yet: the same question gets the certificate when people have approved it. */
export class Awaited extends Failure {
  readonly request: WaitingRequest

  constructor(request: WaitingRequest) {
    const detail = waitsText(request)
    super(
      'later',
      `${detail} Run the same command again then, and it gets the certificate. How it stands: chancery request show ${visible(request.id)}`,
      {
        ...{ code: 'approval.waiting', detail, retryable: true, request: request.id },
        ...(request.retryAfter !== undefined && { retryAfter: request.retryAfter }),
      },
    )
    this.request = request
  }
}

/** The answer itself, where there is one already. Throws `Awaited` where people must approve it. */
export const assertAnswered = (answer: Answer): Answer => {
  if (answer.status === 202) throw new Awaited(readRequest(answer))
  return answer
}

export interface WaitingRequest extends RequestAnswer {
  /** Seconds: nobody is to look again before. */
  readonly retryAfter?: number | undefined
}

/** What is read of it here is there. */
const readRequest = (answer: Answer): WaitingRequest => {
  const told = answer.json<Partial<RequestAnswer> | null>() ?? {}
  const texts = [told.id, told.state, told.expiresAt]
  if (texts.every((text) => typeof text === 'string') && Array.isArray(told.approvals))
    return { ...(told as RequestAnswer), retryAfter: secondsOf(answer.headers['retry-after']) }
  throw new Failure('failed', 'The server answered with what is no request; is it Chancery?')
}

/**
 * What the service says to do next is for those who send an Idempotency-Key themselves. `again` is the command that asks
 * under another one.
 */
export const askedAnew = (failure: Failure, again: string): Failure => {
  const first = ends.get(failure.problemCode ?? '')
  if (first === undefined) return failure
  const told = failure.message.split('\n').slice(0, -1)
  const next = `${first}To ask anew: ${again}.`
  return new Failure(failure.kind, [...told, next].join('\n'), failure.problem)
}

/** People have said no, or nothing: whoever asks again asks them again. */
export const hasEnded = (code: string): boolean => ends.has(code)

/** What else is to be done before it is asked for again. */
const ends: ReadonlyMap<string, string> = new Map<ProblemCode, string>([
  ['approval.rejected', 'Talk to whoever rejected it. '],
  ['approval.withdrawn', ''],
  ['approval.expired', ''],
  ['approval.failed', 'Read why. '],
])

export interface Waiting {
  readonly client: Client
  readonly tell: (text: string) => void
  /** How to go on later. */
  readonly again: string
  readonly signal?: AbortSignal | undefined
}

/** Resolves when people have decided, whatever it is: the same question, asked again, tells. */
export const untilDecided = async (
  request: WaitingRequest,
  { client, tell, again, signal }: Waiting,
): Promise<void> => {
  const { id, required, expiresAt } = request
  let asked = askedMs(request.retryAfter)
  tell(`${waitsText(request)} Asked until ${visible(expiresAt)}; Ctrl-C, and ${again} goes on later.\n`)
  let [told, heard, kept] = [request.approvals.length, performance.now(), request.obstacle?.code]
  for (let pause = firstPauseMs; ; pause = Math.min(pause * 1.5, longestPauseMs)) {
    await sleep(Math.max(pause, asked), undefined, signal && { signal }).catch(() => {
      throw new Failure('later', 'It was ended while it waited.')
    })
    const now = await read(client, id, signal).catch((error: unknown) => {
      // Whoever is to be asked again takes another token; what waits is there for it.
      if (isSpent(error)) throw new Awaited(request)
      // The request is kept, whoever is away for a while.
      if (!(error instanceof Failure && error.kind === 'later') || performance.now() - heard > patienceMs) throw error
      asked = askedMs(error.retryAfter)
      return undefined
    })
    if (!now) continue
    asked = askedMs(now.retryAfter)
    // What it asked us to wait is no silence.
    heard = performance.now() + asked
    if (now.approvals.length > told)
      tell(
        `${countText(now.approvals.length, required)}: ${visible(`${now.approvals.at(-1)?.principal}`)} has approved it.\n`,
      )
    told = now.approvals.length
    if (now.state === 'approved' && now.obstacle && now.obstacle.code !== kept)
      tell(`It is approved, and tried again until it expires: ${visible(obstacleText(now.obstacle))}\n`)
    kept = now.obstacle?.code
    if (now.state !== 'pending' && now.state !== 'approved') return
  }
}

const isSpent = (error: unknown): boolean => error instanceof Failure && error.problemCode === 'auth.replayed'

const read = async (client: Client, id: string, signal?: AbortSignal): Promise<WaitingRequest> =>
  readRequest(await client.call('GET', `/v1/requests/${segment(id)}`, { signal }))

const waitsText = ({ id, approvals, required }: RequestAnswer): string =>
  `The request ${visible(id)} waits for approval: ${countText(approvals.length, required)}.`

const countText = (count: number, required: unknown): string => `${count} of ${visible(String(required))}`

const firstPauseMs = 500
const longestPauseMs = 5_000
const patienceMs = 60_000
/** How most questions are asked again. */
export const theSame = 'the same command'
