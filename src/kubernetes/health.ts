/** `/livez`, `/readyz` and `/metrics` of the controller: plain HTTP, for probes and for whoever collects metrics. */
import type { Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Registry } from 'prom-client'

/** An import would load the client for the web as well: 45 ms of a processor at each start. */
const { createServer } = process.getBuiltinModule('node:http')

export interface Health {
  /** `http://127.0.0.1:8081` */
  readonly url: string
  close(): Promise<void>
}

export interface HealthDeps {
  readonly listen: { readonly host: string; readonly port: number }
  readonly registry: Registry
  /** What is missing until this instance could work, in words; none: it is ready, with the lease or without. */
  readonly missing: () => readonly string[]
}

export const openHealth = async ({ listen, registry, missing }: HealthDeps): Promise<Health> => {
  const server = createServer(bounds, (request, response) => {
    const answer = request.method === 'GET' || request.method === 'HEAD' ? answers[request.url ?? ''] : undefined
    if (answer === undefined) return send(response, 404, 'there is nothing but /livez, /readyz and /metrics\n')
    void answer({ registry, missing }).then(
      ({ status, body, type }) => send(response, status, body, type),
      () => send(response, 500, 'the metrics cannot be told\n'),
    )
  })
  server.maxConnections = 64
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(listen, resolve)
  })
  return { url: urlOf(server), close: () => closeServer(server) }
}

interface Told {
  readonly status: number
  readonly body: string
  readonly type?: string
}

const answers: Readonly<Record<string, (deps: Pick<HealthDeps, 'registry' | 'missing'>) => Promise<Told>>> = {
  '/livez': async () => ({ status: 200, body: 'ok\n' }),
  '/readyz': async ({ missing }) => {
    const reasons = missing()
    return reasons.length === 0 ? { status: 200, body: 'ok\n' } : { status: 503, body: `${reasons.join('\n')}\n` }
  },
  '/metrics': async ({ registry }) => ({ status: 200, body: await registry.metrics(), type: registry.contentType }),
}

const send = (response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void => {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

const urlOf = (server: Server): string => {
  const { address, port, family } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

const closeServer = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })

const bounds = { requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 60_000, maxHeaderSize: 8_192 } as const
