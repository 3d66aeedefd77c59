/** A certificate that people must approve first: waiting for them, or saying how to come back. */
import { setTimeout as sleep } from 'node:timers/promises'

import { type Answer, type Client, segment } from '../client.ts'
import { Failure } from '../failure.ts'
import type { RequestAnswer } from '../request.ts'

/** What is told while it waits; undefined: it does not wait. */
export type Patience = { readonly tell: (text: string) => void } | undefined

export interface Waiting {
  readonly client: Client
  readonly patience: Patience
  readonly signal?: AbortSignal | undefined
}

/**
 * Asks, and where the answer is that people must approve it, asks again when they have decided: with the same
 * Idempotency-Key it is the certificate then, or why there is none. Rejects with `later` where nobody is to wait.
 */
export const askPatiently = async (ask: () => Promise<Answer>, waiting: Waiting): Promise<Answer> => {
  for (;;) {
    const answer = await ask()
    if (answer.status !== 202) return answer
    await untilDecided(answer.json<RequestAnswer>(), waiting)
  }
}

const untilDecided = async (request: RequestAnswer, { client, patience, signal }: Waiting): Promise<void> => {
  const { id, required, expiresAt } = request
  if (!patience)
    throw new Failure(
      'later',
      `${waitsText(request)} The same command gets the certificate then: chancery request show ${id}`,
      {
        ...{ code: 'approval.waiting', detail: waitsText(request), retryable: true, request: id },
      },
    )
  patience.tell(`${waitsText(request)} Asked until ${expiresAt}; Ctrl-C, and the same command goes on later.\n`)
  let [told, heard] = [request.approvals.length, performance.now()]
  for (let pause = firstPauseMs; ; pause = Math.min(pause * 1.5, longestPauseMs)) {
    await sleep(pause, undefined, signal && { signal }).catch(() => {
      throw new Failure('later', 'It was ended while it waited.')
    })
    const now = await read(client, id, signal).catch((error: unknown) => {
      // The request is kept, whoever is away for a while.
      if (!(error instanceof Failure && error.kind === 'later') || performance.now() - heard > patienceMs) throw error
      return undefined
    })
    if (!now) continue
    heard = performance.now()
    if (now.approvals.length > told)
      patience.tell(`${now.approvals.length} of ${required}: ${now.approvals.at(-1)?.principal} has approved it.\n`)
    told = now.approvals.length
    if (now.state !== 'pending' && now.state !== 'approved') return
  }
}

const read = async (client: Client, id: string, signal?: AbortSignal): Promise<RequestAnswer> =>
  (await client.call('GET', `/v1/requests/${segment(id)}`, { signal })).json<RequestAnswer>()

const waitsText = ({ id, approvals, required }: RequestAnswer): string =>
  `The request ${id} waits for approval: ${approvals.length} of ${required}.`

const firstPauseMs = 500
const longestPauseMs = 5_000
const patienceMs = 60_000
