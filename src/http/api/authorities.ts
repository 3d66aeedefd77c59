/** Authorities: what relying parties must trust. Any principal with a grant may read them. */
import { hash } from 'node:crypto'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Anchor } from '../../ca/issuers/bundle.ts'
import type { IssuerRecord } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { encodePem } from '../../x509/pem.ts'
import { callerOf, everyRole, readers } from '../auth.ts'
import { sendFresh } from '../conditional.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { negotiate } from '../media.ts'
import { assertMayRead } from './certificates.ts'
import { BySerial, IssuerState, Label, named, Pem, Sha256, Time } from './schemas.ts'
import { parseSerial } from './views.ts'

const AuthorityView = Type.Object(
  { name: Label, issuers: Type.Array(Type.Object({ name: Label, state: IssuerState }, closed)) },
  named('Authority'),
)

const BundleView = Type.Object(
  {
    items: Type.Array(
      Type.Object(
        {
          certificate: Pem,
          sha256: Sha256,
          issuers: Type.Array(Label, { description: 'for whose certificates it is needed' }),
          neededUntil: Time,
        },
        named('Anchor'),
      ),
    ),
  },
  named('Bundle'),
)

const bundleHeaders = { 'If-None-Match': 'the ETag of the bundle that is held: 304 while it is still the one' }

const BundleQuery = Type.Object(
  {
    anchors: Type.Optional(Type.Enum(['issuers', 'roots'], { description: 'issuers by default' })),
  },
  closed,
)

const ByName = Type.Object({ name: { ...Label, examples: ['default'] } }, closed)

export const authorityRoutes = (app: App, { records, issuerLife }: HttpDeps): void => {
  app.get(
    '/v1/authorities',
    {
      config: { access: [...everyRole] },
      schema: {
        operationId: 'listAuthorities',
        summary: 'List authorities and their issuers',
        description: 'By name; the issuers in every state, the oldest first.',
        tags: ['authorities'],
        response: { 200: Type.Object({ items: Type.Array(AuthorityView) }, closed) },
      },
    },
    async () => {
      const [names, issuers] = await Promise.all([records.authorities(), issuerLife.issuers()])
      return { items: names.map((name) => authorityView(name, issuers)) }
    },
  )

  app.get(
    '/v1/authorities/:name',
    {
      config: { access: [...everyRole], problems: ['authority.not_found'] },
      schema: {
        operationId: 'readAuthority',
        summary: 'Read one authority',
        description: 'With its issuers in every state; `GET /v1/issuers/{name}` has the certificate of each.',
        tags: ['authorities'],
        params: ByName,
        response: { 200: AuthorityView },
      },
    },
    async (request) => {
      const { name } = request.params
      await assertAuthority(records, name)
      return authorityView(name, await issuerLife.issuers())
    },
  )

  app.get(
    '/v1/authorities/:name/bundle',
    {
      config: {
        access: [...everyRole],
        offers: bundleTypes,
        problems: ['authority.not_found', 'issuer.none_active', 'request.not_acceptable'],
        headers: bundleHeaders,
      },
      schema: {
        operationId: 'readBundle',
        summary: 'What a relying party of this authority must trust',
        description:
          '`issuers`: every issuer of this authority whose certificates may still be valid, the coming and the going ones of a rotation included, and never the common root, nor an issuer that a list of a CA above it has revoked. `roots`: the roots above them. PEM; JSON, where Accept asks for it, has the time until which each is needed.',
        tags: ['authorities'],
        params: ByName,
        querystring: BundleQuery,
        response: { 200: BundleView },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, bundleTypes)
      const anchors = await issuerLife.anchors(request.params.name, request.query.anchors ?? 'issuers')
      return sendBundle(request, reply as FastifyReply, encodeBundle[type](anchors), type)
    },
  )

  app.get(
    '/v1/certificates/:serial/bundle',
    {
      config: {
        access: { holderOr: ['requester', ...readers] },
        offers: bundleTypes,
        problems: ['certificate.not_found', 'issuer.none_active', 'request.not_acceptable'],
        headers: bundleHeaders,
      },
      schema: {
        operationId: 'readBundleOfCertificate',
        summary: 'What those who meet a certificate must trust',
        description:
          'The bundle of its authority, for whoever may read the certificate, and for itself over mutual TLS: so that one that renews itself learns of roots that come and go.',
        tags: ['authorities'],
        params: BySerial,
        querystring: BundleQuery,
        response: { 200: BundleView },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, bundleTypes)
      const record = await records.certificate(parseSerial(request.params.serial))
      assertMayRead(callerOf(request), record)
      const issuer = (await issuerLife.issuers()).find(({ name }) => name === record.issuer)
      const anchors = await issuerLife.anchors(issuer?.authority ?? '', request.query.anchors ?? 'issuers')
      return sendBundle(request, reply as FastifyReply, encodeBundle[type](anchors), type)
    },
  )
}

/** It may be kept, but not used without asking: what is trusted may have changed. */
const sendBundle = (request: FastifyRequest, reply: FastifyReply, body: string, type: BundleType): FastifyReply => {
  const tag = `"${hash('sha256', body)}"`
  return sendFresh(request, reply, { octets: Buffer.from(body), type, tag, cacheControl: 'private, no-cache' })
}

const bundleTypes = ['application/x-pem-file', 'application/json'] as const
type BundleType = (typeof bundleTypes)[number]

const encodeBundle: Readonly<Record<BundleType, (anchors: readonly Anchor[]) => string>> = {
  'application/x-pem-file': (anchors) =>
    anchors.map(({ certificate }) => encodePem('CERTIFICATE', certificate)).join(''),
  'application/json': (anchors) =>
    JSON.stringify({
      items: anchors.map(({ certificate, issuers, neededUntil }) => ({
        certificate: encodePem('CERTIFICATE', certificate),
        sha256: hash('sha256', certificate),
        issuers,
        neededUntil: neededUntil.toISOString(),
      })),
    }),
}

const assertAuthority = async (records: HttpDeps['records'], name: string): Promise<void> => {
  if (!(await records.authorities()).includes(name))
    throw new Problem('authority.not_found', 'There is no authority with this name.')
}

const authorityView = (name: string, issuers: readonly IssuerRecord[]) => ({
  name,
  issuers: issuers
    .filter(({ authority }) => authority === name)
    .map((issuer) => ({ name: issuer.name, state: issuer.state })),
})
