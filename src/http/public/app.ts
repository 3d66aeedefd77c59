/**
 * The public listener: what relying parties fetch without being anyone, over plain HTTP as RFC 5280 8 expects, since
 * everything served here is signed. It reads and nothing else.
 */
import { hash } from 'node:crypto'

import type { FastifyReply } from 'fastify'

import { Problem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { newApp } from '../app.ts'
import { handlerTimeout } from '../bounds.ts'
import { sendFresh } from '../conditional.ts'
import type { PublicDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { rollRoutes } from '../log.ts'
import { hostFault } from '../routes.ts'
import { crlRoutes } from './crl.ts'
import { type FindIssuer, openKnownIssuers } from './known-issuers.ts'
import { ocspRoutes } from './ocsp.ts'

export const openPublicApp = async (deps: PublicDeps): Promise<App> => {
  const app = newApp(deps)
  app.addHook('onRequest', (request, reply, done) => {
    request.pattern = request.routeOptions.url ?? ''
    reply.header('x-content-type-options', 'nosniff')
    done(hostFault(request))
  })
  const issuerOf = openKnownIssuers(app, deps.records)
  issuerRoutes(app, issuerOf)
  crlRoutes(app, deps, issuerOf)
  ocspRoutes(app, deps)
  if (deps.roll) rollRoutes(app, deps.roll, 'open')
  await app.ready()
  return app
}

/** RFC 5280 4.2.2.1: the certificate that caIssuers points to, DER. */
const issuerRoutes = (app: App, issuerOf: FindIssuer): void => {
  app.get(
    '/issuers/:file',
    {
      config: { access: 'open' },
      handlerTimeout,
      schema: { params: Type.Object({ file: Type.String({ pattern: fileName, maxLength: 67 }) }, closed) },
    },
    async (request, reply) => {
      const octets = (await issuerOf(request.params.file.slice(0, -suffix.length)))?.certificate
      if (!octets) throw new Problem('issuer.not_found', 'There is no issuer with this name.')
      const tag = `"${hash('sha256', octets)}"`
      return sendFresh(request, reply as FastifyReply, {
        octets,
        type: 'application/pkix-cert',
        tag,
        cacheControl: 'public, max-age=3600',
      })
    },
  )
}

const suffix = '.cer'
const fileName = '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.]cer$'
