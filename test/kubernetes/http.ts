/** The API server on HTTPS, with a certificate of the cluster's own CA, and with the faults between it and its clients. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { dns, ip } from '../x509/build.ts'
import type { FaultTable } from './faults.ts'
import type { Listener } from './reads.ts'
import type { About, Answered, ApiServer, Asked } from './server.ts'
import type { Tree, Value } from './values.ts'

export interface OpenWatch {
  readonly about: About | undefined
  /** As the server ends it when its time is over. */
  end(): void
  /** As the network ends it. */
  cut(): void
  /** Says that its version is gone, as after a compaction, and ends it. */
  expire(status: Tree): void
  /** Holds back what it would send, until released. */
  hold(): () => void
}

export interface Endpoint {
  readonly url: string
  /** PEM. */
  readonly ca: string
  readonly watches: ReadonlySet<OpenWatch>
  /** Everything that was asked, in its order. */
  readonly requests: readonly About[]
  cutAll(actor?: string): void
  close(): Promise<void>
}

export const listen = async (server: ApiServer, faults: FaultTable): Promise<Endpoint> => {
  const { certificate, ca } = identity()
  const watches = new Set<OpenWatch>()
  const requests: About[] = []
  const actors = new Map<Socket, string>()
  const serve = createServer({ cert: certificate.cert, key: certificate.key, keepAlive: true }, (request, response) => {
    answer(request, response, { server, faults, watches, requests, actors }).catch((error: unknown) => {
      response
        .writeHead(500, { 'content-type': 'text/plain' })
        .end(String(error instanceof Error ? error.stack : error))
    })
  })
  // Idle connections stay, or a client meets one that is just being closed.
  serve.keepAliveTimeout = 600_000
  await new Promise<void>((resolve) => serve.listen(0, '127.0.0.1', resolve))
  const { port } = serve.address() as AddressInfo
  return {
    url: `https://127.0.0.1:${port}`,
    ca,
    watches,
    requests,
    cutAll: (actor) => {
      for (const [socket, who] of actors) if (actor === undefined || who === actor) socket.destroy()
    },
    close: async () => {
      for (const watch of watches) watch.end()
      serve.closeAllConnections()
      await new Promise((resolve) => serve.close(resolve))
    },
  }
}

interface Behind {
  readonly server: ApiServer
  readonly faults: FaultTable
  readonly watches: Set<OpenWatch>
  readonly requests: About[]
  readonly actors: Map<Socket, string>
}

const answer = async (request: IncomingMessage, response: ServerResponse, behind: Behind): Promise<void> => {
  const { server, faults, requests, actors } = behind
  const asked = await read(request)
  const about = server.about(asked)
  if (about !== undefined) requests.push(about)
  remember(request.socket, about?.actor ?? '', actors)
  const fate = faults.fateOf(about)
  if (fate?.broken === 'before') return void request.socket.destroy()
  if (fate?.broken === 'never') return
  if (fate?.delay !== undefined) await new Promise((resolve) => setTimeout(resolve, Number(fate.delay) * 1000))
  const answered: Answered = fate?.answer ?? (await server.handle(asked))
  if (fate?.broken === 'after') return void request.socket.destroy()
  if (answered.stream !== undefined) return stream(response, answered.stream, { about, behind })
  const { status, headers, body } = answered
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json',
    ...headers,
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

const read = async (request: IncomingMessage): Promise<Asked> => {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part as Buffer)
  const { pathname, searchParams } = new URL(request.url ?? '/', 'https://cluster')
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : value]),
  )
  return { method: request.method ?? 'GET', path: pathname, query: searchParams, headers, body: Buffer.concat(parts) }
}

const remember = (socket: Socket, actor: string, actors: Map<Socket, string>): void => {
  if (!actors.has(socket)) socket.once('close', () => actors.delete(socket))
  actors.set(socket, actor)
}

const stream = (
  response: ServerResponse,
  begin: (listener: Listener) => () => void,
  { about, behind }: { readonly about: About | undefined; readonly behind: Behind },
): void => {
  let held: Value[] | undefined
  const write = (event: Value): void => void response.write(`${JSON.stringify(event)}\n`)
  const send = (event: Tree): void => {
    if (held === undefined) write(event)
    else held.push(event)
  }
  let stop = (): void => undefined
  const watch: OpenWatch = {
    about,
    end: () => {
      stop()
      behind.watches.delete(watch)
      response.end()
    },
    cut: () => response.socket?.destroy(),
    expire: (status) => {
      write({ type: 'ERROR', object: status })
      watch.end()
    },
    hold: () => {
      held ??= []
      return () => {
        for (const event of held ?? []) write(event)
        held = undefined
      }
    },
  }
  behind.watches.add(watch)
  response.writeHead(200, { 'content-type': 'application/json' })
  response.flushHeaders()
  response.once('close', () => {
    stop()
    behind.watches.delete(watch)
  })
  stop = begin({ send, end: () => watch.end() })
}

/** Made once a process. */
let kept: { readonly certificate: { readonly cert: string; readonly key: string }; readonly ca: string } | undefined
const identity = (): NonNullable<typeof kept> => {
  if (kept === undefined) {
    const ca = openClientCa('CA of the cluster')
    const names = [ip('7f000001'), dns('localhost'), dns('kubernetes.default.svc')]
    kept = { certificate: ca.certify({ usage: serverAuth, names }), ca: ca.pem }
  }
  return kept
}
