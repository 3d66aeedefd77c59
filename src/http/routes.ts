/** Where there is no route: which methods a path takes, and what is told. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

import { Problem } from '../errors.ts'
import { safetyHeaders, sendProblem } from './problem.ts'

/** Of every answer of the API. Whoever is asked over plain HTTP must not say the last (RFC 6797 7.2). */
export const secureHeaders = { ...safetyHeaders, 'strict-transport-security': 'max-age=31536000' }

/** A target may be a whole URL, as a proxy is sent (RFC 9112 3.2.2): its path and query are what was asked for. */
export const originForm = (target: string): string => {
  const [whole] = target.startsWith('/') ? [] : (/^https?:\/\/[^/?]*/i.exec(target) ?? [])
  if (whole === undefined) return target
  const rest = target.slice(whole.length)
  return rest.startsWith('/') ? rest : `/${rest}`
}

/** RFC 9112 3.2: HTTP/1.1 names one host. */
export const hostFault = ({ headers: { host }, raw }: FastifyRequest): Problem | undefined => {
  if (host === undefined && raw.httpVersionMinor === 1)
    return new Problem('request.malformed', 'The request names no host.')
  return host?.includes(',') ? new Problem('request.malformed', 'The request names two hosts.') : undefined
}

/**
 * Unknown paths are 404; known paths with another method are 405 and name what they allow (RFC 9110 15.5.6). `fields` are
 * those of every answer.
 */
export const answerUnknown = (
  app: Pick<FastifyInstance, 'addHook' | 'setNotFoundHandler'>,
  fields: Readonly<Record<string, string>>,
): void => {
  const allowed = openAllowed(app)
  const unknown = (request: FastifyRequest, reply: FastifyReply): Problem => {
    // A route for a folder takes whatever is within, and then finds nothing there.
    const found = allowed(request.url)
    const methods = found.includes(request.method) ? [] : found
    reply.headers(fields)
    if (methods.length === 0) return new Problem('request.not_found', 'There is nothing at this path.')
    reply.header('allow', methods.join(', '))
    return new Problem('request.method', 'This path does not take this method.')
  }
  // Before the body: it is nobody's, its faults would be told instead, and to take it apart would cost us more than who sent it.
  app.addHook('preParsing', (request, reply, payload, done) => {
    if (request.is404) done(unknown(request, reply))
    else done(null, payload)
  })
  app.setNotFoundHandler((request, reply) => {
    const problem = unknown(request, reply)
    request.problem = problem.code
    return sendProblem(reply, problem)
  })
}

/** Collects the routes that are registered from here on; the answer is empty for a path that none of them has. */
const openAllowed = (app: Pick<FastifyInstance, 'addHook'>): ((url: string) => readonly string[]) => {
  const known: { readonly segments: readonly string[]; readonly methods: readonly string[] }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    known.push({ segments: url.split('/'), methods: typeof method === 'string' ? [method] : method })
  })
  return (url) => {
    const segments = (url.split('?', 1)[0] ?? '').split('/')
    const methods = known.filter((route) => covers(route.segments, segments)).flatMap((route) => route.methods)
    // Of a route with and without a slash at its end, Fastify tells one GET and both HEADs.
    return [...new Set(methods.includes('HEAD') ? ['GET', ...methods] : methods)].sort()
  }
}

/** `:name` stands for one segment that is not empty, `*` for the rest. */
const covers = (pattern: readonly string[], segments: readonly string[]): boolean => {
  const rest = pattern.indexOf('*')
  if (rest === -1 ? pattern.length !== segments.length : segments.length <= rest) return false
  return pattern.every((part, i) => part === '*' || part === segments[i] || (part.includes(':') && segments[i] !== ''))
}
