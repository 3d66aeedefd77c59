/**
 * The end of each request: its line in the log, its count, and what it gives back. Also of one whose answer nobody has read to its
 * end, which is done all the same: whoever gives up because we are slow is who has to be seen.
 */
import type { Socket } from 'node:net'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Problem } from '../errors.ts'
import { proofTold } from './auth.ts'
import type { HttpDeps } from './deps.ts'
import type { App } from './fastify.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Its line is written. */
    isEnded: boolean
  }
}

export interface Ends {
  /** Of what ends before routing, where there are no hooks. `socket`: of one on which nothing more is answered. */
  unrouted(id: string, problem: Problem, socket?: Socket): void
  /** Whether the next answer on this socket is that of what cannot be parsed, or did not arrive in time. */
  isDue(socket: Socket): boolean
  /** Closes it once the answers that are under way on it are out. */
  closeBehind(socket: Socket): void
  /** Of all that is routed. */
  follow(app: App, isStopping: () => boolean): void
}

export const openEnds = ({ log, metrics }: Pick<HttpDeps, 'log' | 'metrics'>): Ends => {
  /** Where the request that had begun has had its line. */
  const told = new WeakSet<Socket>()
  const latest = new WeakMap<Socket, FastifyReply>()

  const end = (request: FastifyRequest, reply: FastifyReply, isGone: boolean): void => {
    if (request.isEnded) return
    request.isEnded = true
    const { statusCode: status } = reply
    const seconds = reply.elapsedTime / 1000
    request.visit?.end()
    if (isGone && told.has(request.raw.socket)) return
    metrics.answered(request.pattern, status, seconds)
    if (request.issuedAt > 0) metrics.stage('answer', (performance.now() - request.issuedAt) / 1000)
    logRequest(log, request, { status, seconds, isGone })
  }

  return {
    unrouted: (id, { code, kind: { status } }, socket) => {
      if (socket) told.add(socket)
      metrics.answered('', status, 0)
      log.info({ event: 'request', id, route: '', status, code })
    },
    isDue: (socket) => {
      const reply = latest.get(socket)
      if (reply === undefined) return true
      const { raw, request } = reply
      if (raw.writableFinished) return request.raw.complete
      // Node gives an answer its socket when it is the next one.
      return !request.raw.complete && !raw.headersSent && raw.socket !== null
    },
    closeBehind: (socket) => {
      const { raw } = latest.get(socket) ?? {}
      if (raw === undefined || raw.writableFinished) socket.destroy()
      else raw.once('close', () => socket.destroy())
    },
    follow: (app, isStopping) => {
      app.decorateRequest('isEnded', false)
      app.addHook('onRequest', (request, reply, done) => {
        latest.set(request.raw.socket, reply)
        done()
      })
      app.addHook('onSend', (request, reply, _payload, done) => {
        const { raw } = reply
        // Else a client that sends its next request on it finds it reset, and does not know what became of that.
        if (isStopping()) reply.header('connection', 'close')
        // Fastify tells of nothing but answers that are out as a whole.
        if (raw.destroyed) end(request, reply, true)
        else raw.on('close', () => end(request, reply, !raw.writableFinished))
        done()
      })
      app.addHook('onResponse', (request, reply, done) => {
        end(request, reply, false)
        // One whose header was out before the stop.
        if (isStopping()) app.server.closeIdleConnections()
        done()
      })
    },
  }
}

interface Ended {
  readonly status: number
  readonly seconds: number
  /** Whoever asked has gone before the answer was out. */
  readonly isGone: boolean
}

/** One line a request: no header, no body, no path but its pattern. */
const logRequest = (log: HttpDeps['log'], request: FastifyRequest, { status, seconds, isGone }: Ended): void => {
  const asker = request.caller ?? request.met
  const line = {
    event: 'request',
    id: request.id,
    method: request.method,
    route: request.pattern,
    status,
    ms: Math.round(seconds * 1e6) / 1e3,
    principal: asker?.principal,
    proof: asker ? proofTold(asker) : undefined,
    code: request.problem ?? undefined,
    reason: request.reason ?? undefined,
    gone: isGone || undefined,
  }
  if (quietRoutes.has(request.pattern)) log.debug(line)
  else log.info(line)
}

const quietRoutes: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics'])
