/** The HTTP of a witness: one call, small bodies, short patience. TLS is for whatever stands before it. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Log } from '../log.ts'
import type { WitnessAnswer, WitnessService } from './witness.ts'

/** An import would load the client for the web as well: 45 ms of a processor at each start. */
const { createServer } = process.getBuiltinModule('node:http')

export interface WitnessServer {
  /** `http://127.0.0.1:8090` */
  readonly url: string
  /** Answers what was accepted, and takes nothing more. */
  close(): Promise<void>
}

export interface ServerDeps {
  readonly witness: WitnessService
  readonly listen: { readonly host: string; readonly port: number }
  readonly log: Log
}

export const openWitnessServer = async ({ witness, listen, log }: ServerDeps): Promise<WitnessServer> => {
  const server = createServer(bounds, (request, response) => {
    void answer(witness, request)
      .catch((err: unknown) => {
        // Whoever went away before the end of the body has asked nothing.
        if (!request.complete) return gone
        log.error({ event: 'witness.failed', err }, 'nothing was cosigned')
        return { status: 500, body: 'nothing was cosigned\n' } as const
      })
      .then((told) => {
        // Who is answered while it ends would be waited for as long as a connection may be idle.
        if (!server.listening) response.setHeader('connection', 'close')
        send(response, told)
      })
  })
  server.maxConnections = maxConnections
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(listen, resolve)
  })
  return { url: urlOf(server), close: () => closeServer(server) }
}

type Answer = Omit<WitnessAnswer, 'status'> & { readonly status: number; readonly allow?: string }

const answer = async (witness: WitnessService, request: IncomingMessage): Promise<Answer> => {
  if (request.url !== '/add-checkpoint') return { status: 404, body: 'there is nothing but /add-checkpoint\n' }
  if (request.method !== 'POST') return { status: 405, body: 'POST only\n', allow: 'POST' }
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of request) {
    length += piece.length
    if (length > maxBody) return { status: 413, body: `at most ${maxBody} octets\n` }
    pieces.push(piece)
  }
  return witness.add(Buffer.concat(pieces))
}

const send = (response: ServerResponse, answer: Answer): void => {
  const { status, body, type = 'text/plain; charset=utf-8', allow, retryAfter } = answer
  // What was not read of a body that is too large is not the next request.
  if (status === 413) response.setHeader('connection', 'close')
  if (allow !== undefined) response.setHeader('allow', allow)
  if (retryAfter !== undefined) response.setHeader('retry-after', retryAfter)
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

const urlOf = (server: Server): string => {
  const { address, port, family } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

/** Connections that nobody asks anything on are closed with it. */
const closeServer = (server: Server): Promise<void> => new Promise((resolve) => void server.close(() => resolve()))

const gone: Answer = { status: 400, body: 'the connection ended before the body did\n' }
const bounds = {
  requestTimeout: 10_000,
  headersTimeout: 5_000,
  keepAliveTimeout: 60_000,
  maxHeaderSize: 8_192,
} as const
/** A checkpoint with a hundred signatures and a proof of 63 hashes has less. */
const maxBody = 65_536
const maxConnections = 256
