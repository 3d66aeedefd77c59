/** OCSP over HTTP (RFC 6960 appendix A.1, RFC 5019 5 and 6): by POST, and by GET with the request in the path. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import { malformedRequest, type OcspAnswer, tryLater } from '../../ca/revocation/ocsp.ts'
import { isProblem, Problem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { decodeBase64 } from '../../x509/pem.ts'
import { Label } from '../api/schemas.ts'
import { assertUncoded } from '../bodies.ts'
import { handlerTimeout, ocspBodyLimit } from '../bounds.ts'
import { isUnchanged } from '../conditional.ts'
import { withinDeadline } from '../deadline.ts'
import type { PublicDeps } from '../deps.ts'
import type { App } from '../fastify.ts'

export const ocspRoutes = (app: App, deps: PublicDeps): void => {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    requestType,
    { parseAs: 'buffer' },
    async (_request: FastifyRequest, octets: Buffer) => octets,
  )

  app.post(
    '/ocsp/:issuer',
    {
      config: { access: 'open', accepts: [requestType] },
      bodyLimit: ocspBodyLimit,
      onRequest: async ({ headers }: FastifyRequest) => assertUncoded(headers),
      schema: { params: Type.Object({ issuer: Label }, closed) },
    },
    async (request, reply) => {
      const octets = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
      // From here on: of a request that comes slowly, Fastify's own deadline would tell that we were slow.
      const { der, kind } = await withinDeadline(answer(deps, request.params.issuer, octets))
      deps.metrics.ocspAnswered(kind)
      // What is posted is kept by nobody (RFC 9110 9.3.3).
      return (reply as FastifyReply).header('cache-control', 'no-store').type(responseType).send(der)
    },
  )

  // Slashes belong to base64, so the request is all the rest of the path.
  app.get('/ocsp/:issuer/*', { config: { access: 'open' }, handlerTimeout }, async (request, reply) => {
    const { issuer } = request.params as { readonly issuer: string }
    const octets = requestIn(request.url)
    const found = octets ? await answer(deps, issuer, octets) : malformedRequest
    deps.metrics.ocspAnswered(found.kind)
    return sendCacheable(request, reply as FastifyReply, found, deps.clock())
  })
}

const answer = async ({ ocsp, records }: PublicDeps, issuer: string, octets: Buffer): Promise<OcspAnswer> => {
  if (ocsp.knows(issuer)) return ocsp.answer(issuer, octets)
  // One that was brought a moment ago is opened here within a second, while its certificates already name this place. While nobody
  // can look, nobody is told that there is none: 503, which is asked again.
  const isInUse = (await records.issuers('fresh')).some(({ name, state }) => name === issuer && state !== 'retired')
  if (isInUse) return tryLater
  throw new Problem('issuer.not_found', 'There is no issuer with this name in use.')
}

/** Undefined for what is no base64. Escaped or not, with its padding (RFC 4648 4). */
const requestIn = (url: string): Buffer | undefined => {
  const path = url.split('?', 1)[0] as string
  // After `/ocsp/` and the issuer.
  const text = path.slice(path.indexOf('/', '/ocsp/'.length) + 1)
  try {
    const octets = decodeBase64(decodeURIComponent(text))
    return octets.length <= ocspBodyLimit ? octets : undefined
  } catch (error) {
    if (isProblem(error) || error instanceof URIError) return undefined
    throw error
  }
}

/** RFC 5019 6.2, but for no longer than a minute: so long may a revocation stay unknown. */
const sendCacheable = (
  request: FastifyRequest,
  reply: FastifyReply,
  { der, cacheable }: OcspAnswer,
  now: Date,
): FastifyReply => {
  reply.type(responseType)
  if (!cacheable) return reply.header('cache-control', 'no-store').send(der)
  const { thisUpdate, nextUpdate, tag } = cacheable
  const left = Math.max(0, Math.min(maxAge, Math.floor((nextUpdate.getTime() - now.getTime()) / 1000)))
  reply
    .header('etag', tag)
    .header('last-modified', thisUpdate.toUTCString())
    .header('expires', nextUpdate.toUTCString())
    .header('cache-control', `max-age=${left}, public, no-transform, must-revalidate`)
  // By its tag alone: two answers may be of one second.
  if (isUnchanged(request.headers, { tag })) return reply.code(304).send(request.method === 'HEAD' ? der : undefined)
  return reply.send(der)
}

const requestType = 'application/ocsp-request'
const responseType = 'application/ocsp-response'
const maxAge = 60
