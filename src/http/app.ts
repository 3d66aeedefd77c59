/**
 * The API as a Fastify application; the only place with Fastify's options. The tests build theirs by this function too.
 * Each bound here closes a hole that a default leaves open (docs/api.md tells them to clients).
 */

import type { Socket } from 'node:net'
import type { TlsOptions } from 'node:tls'

import rateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  type RouteOptions,
} from 'fastify'

import { Problem } from '../errors.ts'
import { closed, Type } from '../lib/schema.ts'
import { openTurns } from '../lib/yield.ts'
import { openAdmission } from './admission.ts'
import { accessRoutes } from './api/access.ts'
import { accessesRoutes } from './api/accesses.ts'
import { authorityRoutes } from './api/authorities.ts'
import { batchRoutes } from './api/batch.ts'
import { certificateRoutes, proofRoutes } from './api/certificates.ts'
import { credentialRoutes } from './api/credentials.ts'
import { crlRoutes } from './api/crls.ts'
import { openExports } from './api/export.ts'
import { grantRoutes } from './api/grants.ts'
import { identityProviderRoutes } from './api/identity-providers.ts'
import { issuerRoutes } from './api/issuers.ts'
import { profileRoutes } from './api/profiles.ts'
import { recordRoutes } from './api/records.ts'
import { renewalRoutes } from './api/renewal.ts'
import { requestRoutes } from './api/requests.ts'
import { revocationRoutes } from './api/revocation.ts'
import { massRevocationRoutes } from './api/revocations.ts'
import { type AccessRule, askAgain } from './auth.ts'
import { addParsers, assertBodyComes, assertBodyType } from './bodies.ts'
import {
  admissionTimeout,
  bodyLimit,
  handlerTimeout,
  idleTimeout,
  maxHeaderSize,
  maxParamLength,
  requestTimeout,
  stopTimeout,
  tlsBounds,
} from './bounds.ts'
import { serializerCompiler, validatorCompiler } from './compile.ts'
import { assertHeeded } from './conditional.ts'
import { withinDeadline } from './deadline.ts'
import type { HttpDeps } from './deps.ts'
import { serveDescription } from './description.ts'
import { openEnds } from './ends.ts'
import type { App } from './fastify.ts'
import { auditedRollRoutes } from './log.ts'
import { acceptedSpellings } from './media.ts'
import { describeRoutes } from './openapi.ts'
import { opsRoutes } from './ops.ts'
import { answerClientError, openErrorHandler, safetyHeaders, schemaProblem, sendProblem, toProblem } from './problem.ts'
import { assertDecodable, assertSingle } from './query.ts'
import { answerUnknown, hostFault, originForm, secureHeaders } from './routes.ts'
import { shareHandshakes, shareSockets } from './sockets.ts'

/** Opens the API: ready for `listen` or `inject`. `close()` answers what was accepted, and tells the rest to go elsewhere. */
export const openApp = async (deps: HttpDeps): Promise<App> => {
  const app = guardedApp(deps)
  describeRoutes(app)
  serveDescription(app)
  await app.register(rateLimit, rateLimits)
  const shared = { ...deps, nextTurn: openTurns(), exports: openExports(app, deps) }
  await app.register(async (api: App) => {
    for (const routes of [
      certificateRoutes,
      proofRoutes,
      renewalRoutes,
      batchRoutes,
      profileRoutes,
      accessRoutes,
      grantRoutes,
      credentialRoutes,
      identityProviderRoutes,
      recordRoutes,
      accessesRoutes,
      authorityRoutes,
      issuerRoutes,
      revocationRoutes,
      crlRoutes,
      massRevocationRoutes,
      requestRoutes,
      opsRoutes,
      auditedRollRoutes,
    ]) {
      await api.register(async (scope: App) => routes(scope, shared))
    }
  })
  await app.ready()
  return app
}

/** Of routes that anyone may call and that cost something, by address. */
const rateLimits: RateLimitPluginOptions = {
  global: false,
  keyGenerator: ({ peer }) => peer?.address ?? '',
  errorResponseBuilder: (_request, { ttl }) =>
    new Problem('rate.limited', 'There were too many such requests from your address.', {
      retryAfter: Math.max(1, Math.ceil(ttl / 1000)),
    }),
  addHeadersOnExceeding: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false },
  addHeaders: {
    'x-ratelimit-limit': false,
    'x-ratelimit-remaining': false,
    'x-ratelimit-reset': false,
    'retry-after': false,
  },
}

/** A list of protocols would be copied for each connection, and keep 64 KB of Buffer's pool as long as it is open. */
const secure: TlsOptions = {
  ...tlsBounds,
  handshakeTimeout: requestTimeout,
  ALPNCallback: ({ protocols }) => protocols.find((protocol) => protocol === 'http/1.1'),
}

/** An application without routes; each that is added must declare its access. */
export const guardedApp = (deps: HttpDeps): App => {
  const app = newApp(deps, deps.tls)
  const state = { stopping: false }
  app.addHook('preClose', async () => {
    state.stopping = true
  })
  addParsers(app)
  guardRoutes(app, deps, state)
  return app
}

/** What the API and the public listener share: bounds, timeouts, ids, one error handler, one log line a request. */
export const newApp = (
  { log, newId, limits, metrics, proxies }: Pick<HttpDeps, 'log' | 'newId' | 'limits' | 'metrics'> & Partial<HttpDeps>,
  tls?: HttpDeps['tls'],
): App => {
  const ends = openEnds({ log, metrics })
  // Node looks for connections beyond their time only every 30 s unless told.
  const server = {
    maxHeaderSize,
    headersTimeout: requestTimeout,
    requestTimeout,
    connectionsCheckingInterval: 1_000,
    requireHostHeader: false,
    // Of two fields that may come once, Node would take the first without a word: joined, they are neither.
    joinDuplicateHeaders: true,
    insecureHTTPParser: false,
  }
  const options: FastifyServerOptions = {
    bodyLimit,
    connectionTimeout: idleTimeout,
    requestTimeout,
    keepAliveTimeout: 72_000,
    maxRequestsPerSocket: 1_000,
    forceCloseConnections: 'idle',
    // Ours answers the same 503 as a problem document (`guardRoutes`).
    return503OnClosing: false,
    exposeHeadRoutes: true,
    requestIdHeader: false,
    genReqId: newId,
    trustProxy: false,
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    routerOptions: {
      maxParamLength,
      caseSensitive: true,
      ignoreTrailingSlash: false,
      ignoreDuplicateSlashes: false,
      allowUnsafeRegex: false,
    },
    schemaErrorFormatter: schemaProblem,
    frameworkErrors: (error, request, reply) => {
      const problem = toProblem(error)
      ends.unrouted(request.id, problem)
      sendProblem(reply as FastifyReply, problem)
    },
    rewriteUrl: ({ url = '' }) => originForm(url),
    clientErrorHandler: (error, socket) => {
      // It has its answer, and what comes behind it is dropped.
      if (socket.writableEnded) return
      if (!ends.isDue(socket as Socket)) return ends.closeBehind(socket as Socket)
      const id = newId()
      const problem = answerClientError(error, socket as Socket, id)
      if (problem) ends.unrouted(id, problem, socket as Socket)
    },
  }
  // Fastify types the two kinds of server apart; nothing here depends on which of them it is.
  const served: FastifyServerOptions = {
    ...options,
    ...(tls ? { https: { ...server, ...secure, ...tls } } : { http: server }),
  }
  const app = fastify(served).withTypeProvider<TypeBoxTypeProvider>()
  app.setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler)
  const sockets = { most: limits.connections, refused: metrics.socketRefused, proxies }
  shareSockets(app.server, sockets)
  if (tls) shareHandshakes(app.server, sockets)
  let isStopping = false
  app.addHook('preClose', async () => {
    isStopping = true
    // A client that takes an answer an octet at a time would else keep it open.
    setTimeout(() => app.server.closeAllConnections(), stopTimeout).unref()
  })
  app.addHook('preParsing', assertBodyComes)
  app.decorateRequest('caller', null)
  app.decorateRequest('met', null)
  app.decorateRequest('pattern', '')
  app.decorateRequest('problem', null)
  app.decorateRequest('reason', null)
  app.decorateRequest('admittedAt', 0)
  app.decorateRequest('issuedAt', 0)
  app.decorateRequest('peer', null)
  app.decorateRequest('visit', null)
  app.setErrorHandler(openErrorHandler(log))
  ends.follow(app, () => isStopping)
  answerUnknown(app, tls ? secureHeaders : safetyHeaders)
  return app
}

/** Every route that is registered from here on must declare its access, and is guarded by it. */
const guardRoutes = (app: App, deps: HttpDeps, state: { readonly stopping: boolean }): void => {
  const { issuance, limits, metrics, identities } = deps
  const admission = openAdmission(deps)
  app.addHook('onRequest', (request, _reply, done) => {
    if (!request.is404) return done()
    try {
      admission.admitAnyone(request)
      done()
    } catch (error) {
      done(error as Error)
    }
  })
  app.addHook('onRoute', (route) => {
    const { access: rule = foreignRoutes(route.url), accepts = [], queued = false, probe = false } = route.config ?? {}
    if (rule === undefined) throw new Error(`The route ${String(route.method)} ${route.url} declares no access.`)
    const spellings = acceptedSpellings(accepts)
    const mindsBody = accepts.length > 0 || !(rule === 'open' || probe)
    const keepsDeadline = route.config?.ownDeadline === true || accepts.length > 0
    const admit = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
      const started = performance.now()
      request.pattern = route.url
      reply.headers(secureHeaders).header('x-request-id', request.id)
      if (state.stopping) return done(new Problem('service.stopping', 'This instance takes no new requests.'))
      if (queued && issuance.pending >= limits.queue) {
        return done(new Problem('overload.queue', `${issuance.pending} requests are under way.`, { retryAfter: 1 }))
      }
      const fault = hostFault(request)
      if (fault) return done(fault)
      const admitted = admission.admit(request, rule)
      // The handler's own deadline begins after it.
      const bounded = keepsDeadline ? withinDeadline(admitted, admissionTimeout) : admitted
      bounded
        .then((caller) => {
          if (queued) metrics.stage('authenticate', (performance.now() - started) / 1000)
          request.caller = caller
          request.admittedAt = started
          assertDecodable(request.url)
          assertSingle(request)
          assertHeeded(request, route.config?.headers)
          return mindsBody ? assertBodyType(request, spellings) : undefined
        })
        .then(done as () => void, done)
    }
    // Fastify's deadline begins with the request: whoever takes his time to send a body would have none left for the answer.
    if (!keepsDeadline) route.handlerTimeout ??= handlerTimeout
    else if (route.config?.ownDeadline !== true) route.handler = inTime(route.handler)
    // A parameter that nobody reads would be taken for one that was heeded.
    if (route.schema) route.schema = { querystring: noQuery, ...route.schema }
    const own = route.onRequest ?? []
    route.onRequest = [admit, ...(Array.isArray(own) ? own : [own])]
    if (accepts.length > 0 && rule !== 'open') {
      const after = route.preValidation ?? []
      route.preValidation = [askAgain(identities, rule), ...(Array.isArray(after) ? after : [after])]
    }
  })
}

type Handler = RouteOptions['handler']

/** The handler of a route that takes a body, which is there by now. */
const inTime = (handler: Handler): Handler =>
  function (this: FastifyInstance, request, reply) {
    const answer: unknown = handler.call(this, request, reply)
    return answer instanceof Promise ? withinDeadline(answer) : answer
  }

/** The pages of swagger-ui are registered by a plugin that knows nothing of us. They are static, and open. */
const foreignRoutes = (url: string): AccessRule | undefined =>
  url === '/docs' || url.startsWith('/docs/') ? 'open' : undefined

const noQuery = Type.Object({}, closed)
