/** Clients as they are in the field: each asks under a key of its own and asks again, under the same key, until answered. */
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext, type SecureContext } from 'node:tls'

import type { Answered } from './checker.ts'

export interface Target {
  readonly port: number
  readonly ca: string
  readonly token: string
}

export interface Load {
  readonly answered: readonly Answered[]
  /** Final answers that are none: what a client must never see. */
  readonly failures: readonly string[]
  /** Retries by problem code, or by the error of the socket. */
  readonly retries: ReadonlyMap<string, number>
  /** Resolves to whether so many more were answered within that time. */
  answers(more: number, withinMs: number): Promise<boolean>
  /** How long each client rests after an answer, from now on; in the beginning it does not. */
  rest(ms: number): void
  /** Lets each client end what it began, with the service up. */
  stop(): Promise<void>
}

/** Starts clients that choose among the targets at random for every try. */
export const openLoad = (targets: readonly Target[], clients: number): Load => {
  const csr = makeRequest()
  // Made once: for each try, most of which nobody hears, it was most of what the clients did.
  const contexts = targets.map(({ ca }) => createSecureContext({ ca }))
  const answered: Answered[] = []
  const failures: string[] = []
  const retries = new Map<string, number>()
  let stopping = false
  let restMs = 0

  const askUntilAnswered = async (agents: readonly Agent[]): Promise<void> => {
    const key = randomUUID()
    const deadline = Date.now() + 60_000
    for (;;) {
      const i = Math.floor(Math.random() * targets.length)
      const outcome = await ask(targets[i] as Target, agents[i] as Agent, {
        csr,
        key,
        secureContext: contexts[i] as SecureContext,
      })
      if ('serial' in outcome) return void answered.push(outcome)
      if (!outcome.retryable) return void failures.push(outcome.code)
      retries.set(outcome.code, (retries.get(outcome.code) ?? 0) + 1)
      if (Date.now() > deadline) return void failures.push(`no answer within a minute; last: ${outcome.code}`)
      // Where nobody listens yet, whoever asks all the time only takes the processor from whoever starts.
      const patience = outcome.code === 'ECONNREFUSED' ? 4 : 1
      await new Promise((resolve) => setTimeout(resolve, patience * (20 + Math.random() * 80)))
    }
  }

  const client = async (): Promise<void> => {
    const agents = targets.map(() => new Agent({ keepAlive: true, maxSockets: 1 }))
    while (!stopping) {
      await askUntilAnswered(agents)
      if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs))
    }
    for (const agent of agents) agent.destroy()
  }

  const running = Promise.all(Array.from({ length: clients }, client))
  return {
    answered,
    failures,
    retries,
    answers: async (more, withinMs) => {
      const goal = answered.length + more
      for (const deadline = Date.now() + withinMs; answered.length < goal && Date.now() < deadline; )
        await new Promise((resolve) => setTimeout(resolve, 20))
      return answered.length >= goal
    },
    rest: (ms) => {
      restMs = ms
    },
    stop: async () => {
      stopping = true
      await running
    },
  }
}

type Outcome = Answered | { readonly code: string; readonly retryable: boolean }

interface Try {
  readonly csr: string
  readonly key: string
  readonly secureContext: SecureContext
}

const ask = ({ port, token }: Target, agent: Agent, { csr, key, secureContext }: Try): Promise<Outcome> =>
  new Promise((resolve) => {
    const body = JSON.stringify({ csr, profile: 'server' })
    const headers = {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'idempotency-key': key,
    }
    const options = {
      host: '127.0.0.1',
      port,
      secureContext,
      agent,
      method: 'POST',
      path: '/v1/certificates',
      headers,
      timeout: 20_000,
    }
    const lost = (code: string): void => resolve({ code, retryable: true })
    const call = request(options, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve(read(response.statusCode ?? 0, text, key)))
      response.on('error', () => lost('socket'))
    })
    call.on('timeout', () => call.destroy())
    call.on('error', (error: NodeJS.ErrnoException) => lost(error.code ?? 'socket'))
    call.end(body)
  })

const read = (status: number, text: string, key: string): Outcome => {
  try {
    const answer = JSON.parse(text)
    if (status === 201 || status === 200)
      return { key, serial: answer.serial, index: answer.index, certificate: answer.certificate, proof: answer.proof }
    return { code: `${status} ${answer.code}`, retryable: answer.retryable === true }
  } catch {
    return { code: 'a torn answer', retryable: true }
  }
}

const makeRequest = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'chancery-load-'))
  try {
    const args = [
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      join(folder, 'key'),
      '-subj',
      '/',
      '-addext',
      'subjectAltName=DNS:load.example.com',
      '-out',
      join(folder, 'csr'),
    ]
    execFileSync('openssl', args, { stdio: 'ignore' })
    return readFileSync(join(folder, 'csr'), 'utf8')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
