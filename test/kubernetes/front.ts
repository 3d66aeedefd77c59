/** What stands between the controller and Chancery, and fails on order: a proxy that ends TLS, as load balancers do. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, createServer, request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'

import { defaultSignatureAlgorithm, readKeyKind } from '../../src/x509/algorithms.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { encodeRequest } from '../../src/x509/request.ts'
import type { TestService } from '../helpers/service.ts'

export interface Front {
  readonly url: string
  /** What it did with the next calls to issue, in turn; then it passes on what comes. Dry runs are no calls to issue. */
  next(...fates: readonly Fate[]): void
  /** What every call to issue is answered with that has no other fate. */
  say(fate: () => Fate): void
  /** Every call to issue: its Idempotency-Key. */
  readonly issued: readonly string[]
  /** How many calls there were of any kind. */
  calls(): number
  /** Of calls to issue that are under way, the most at a time. */
  readonly most: number
  /** Resolves when a call to issue has come, and holds it until `release`. */
  hold(): { readonly held: Promise<void>; release(): void }
  /** From now on, another service, or none. */
  to(url: string | undefined): void
}

/** `lose`: it is passed on and answered, and the answer does not arrive. */
export type Fate = 'pass' | 'lose' | 'drop' | 'unavailable' | 'gateway' | Problem
export interface Problem {
  readonly status: number
  readonly code: string
  readonly retryable: boolean
  readonly detail?: string
  /** Seconds. */
  readonly retryAfter?: number
}

export const openFront = async (
  t: { teardown(close: () => Promise<void>): unknown },
  service: TestService,
): Promise<Front> => {
  const identity = await identityFrom(service)
  const agent = new Agent({ keepAlive: true, ca: service.ca })
  const state = { target: service.url as string | undefined, under: 0, most: 0, gate: undefined as Gate | undefined }
  const fates: Fate[] = []
  let usual = (): Fate => 'pass'
  const issued: string[] = []
  let calls = 0
  const server = createServer(identity, (incoming, response) => {
    calls += 1
    const asks = incoming.method === 'POST' && incoming.url === '/v1/certificates'
    const fate = asks ? (fates.shift() ?? usual()) : 'pass'
    if (asks) issued.push(String(incoming.headers['idempotency-key']))
    const done = async (): Promise<void> => {
      if (asks) state.most = Math.max(state.most, ++state.under)
      try {
        if (asks) await state.gate?.pass()
        await fulfil(fate, { incoming, response, agent, target: state.target })
      } finally {
        if (asks) state.under -= 1
      }
    }
    void done().catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    agent.destroy()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    next: (...more) => void fates.push(...more),
    say: (fate) => {
      usual = fate
    },
    issued,
    calls: () => calls,
    get most() {
      return state.most
    },
    hold: () => {
      const gate = newGate()
      state.gate = gate
      return { held: gate.reached, release: gate.open }
    },
    to: (url) => {
      state.target = url
    },
  }
}

interface Gate {
  readonly reached: Promise<void>
  pass(): Promise<void>
  open(): void
}

const newGate = (): Gate => {
  const reached = Promise.withResolvers<void>()
  const opened = Promise.withResolvers<void>()
  return {
    reached: reached.promise,
    pass: () => {
      reached.resolve()
      return opened.promise
    },
    open: opened.resolve,
  }
}

interface Passing {
  readonly incoming: IncomingMessage
  readonly response: ServerResponse
  readonly agent: Agent
  readonly target: string | undefined
}

const fulfil = async (fate: Fate, passing: Passing): Promise<void> => {
  const { response, target } = passing
  if (fate === 'drop' || target === undefined) return void response.destroy()
  if (typeof fate === 'object') return sendProblem(response, fate)
  if (fate === 'unavailable') return sendProblem(response, { status: 503, code: 'overload.queue', retryable: true })
  if (fate === 'gateway')
    return void response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>')
  const { status, headers, body } = await forward(passing, target)
  if (fate === 'lose') return void response.destroy()
  response.writeHead(status, headers).end(body)
}

const sendProblem = (response: ServerResponse, told: Problem): void => {
  const { status, code, retryable, detail = 'So it is.', retryAfter } = told
  const problem = {
    type: `/problems/${code}`,
    title: code,
    status,
    detail,
    code,
    retryable,
    next: '',
    requestId: 'r',
    ...(retryAfter !== undefined && { retryAfter }),
  }
  response.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify(problem))
}

const forward = async ({ incoming, agent }: Passing, target: string) => {
  const pieces: Buffer[] = []
  for await (const piece of incoming) pieces.push(piece as Buffer)
  const { host: _, connection: __, ...headers } = incoming.headers
  return new Promise<{ status: number; headers: IncomingMessage['headers']; body: Buffer }>((resolve, reject) => {
    const call = httpsRequest(
      new URL(incoming.url ?? '/', target),
      { agent, method: incoming.method, headers },
      (answer) => {
        const parts: Buffer[] = []
        answer.on('data', (part: Buffer) => parts.push(part))
        answer.on('error', reject)
        answer.on('end', () => {
          const { connection: _, 'transfer-encoding': __, ...kept } = answer.headers
          resolve({ status: answer.statusCode ?? 0, headers: kept, body: Buffer.concat(parts) })
        })
      },
    )
    call.on('error', reject)
    call.end(Buffer.concat(pieces))
  })
}

/** A certificate for this machine, from the service itself, so that whoever trusts it trusts what stands before it. */
const identityFrom = async (service: TestService): Promise<{ readonly key: string; readonly cert: string }> => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const names = [{ kind: 'ip', value: '127.0.0.1' } as const]
  const csr = encodePem('CERTIFICATE REQUEST', encodeRequest({ subject: [], names, spki }, privateKey, algorithm))
  await service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'requester', profiles: ['server'] } })
  const { status, json, text } = await service.request('POST', '/v1/certificates', { body: { csr, profile: 'server' } })
  if (status !== 201) throw new Error(text)
  return { key: pemOf(privateKey), cert: [json.certificate, ...json.chain].join('') }
}

const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string
const algorithm = defaultSignatureAlgorithm(readKeyKind('ec-p256').algorithm)
