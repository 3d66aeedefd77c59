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
import { hasNext } from './turn.ts'
import { endIdle, noteEarly } from './unread.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Its line is written. */
    isEnded: boolean
  }
}

export interface Ends {
  /** Of what ends before routing, where there are no hooks. `socket`: of one on which nothing more is answered. */
  unrouted(id: string, problem: Problem, socket?: Socket): void
  /** Of all that is routed. */
  follow(app: App, isStopping: () => boolean): void
}

export const openEnds = ({ log, metrics }: Pick<HttpDeps, 'log' | 'metrics'>): Ends => {
  /** Where the request that had begun has had its line. */
  const told = new WeakSet<Socket>()

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
    follow: (app, isStopping) => {
      app.decorateRequest('isEnded', false)
      app.addHook('onSend', (request, reply, _payload, done) => {
        const { raw } = reply
        // Else whoever sends his next request on it finds it reset, and does not know what became of that.
        if (isStopping() && !hasNext(request.raw.socket)) reply.header('connection', 'close')
        // Fastify tells of nothing but answers that are out as a whole.
        if (raw.destroyed) end(request, reply, true)
        else raw.on('close', () => end(request, reply, !raw.writableFinished))
        done()
      })
      app.addHook('onResponse', (request, reply, done) => {
        end(request, reply, false)
        // Also of a GET that has announced a body.
        if (request.raw.complete === false) noteEarly(request.raw)
        else if (isStopping()) endIdle(request.raw.socket)
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
