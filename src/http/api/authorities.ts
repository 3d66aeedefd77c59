/** Authorities and their issuers: what relying parties must trust. Any principal with a grant may read them. */
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'

import type { IssuerRecord } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import { encodePem } from '../../x509/pem.ts'
import type { App } from '../app.ts'
import { everyRole } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import * as examples from './examples.ts'
import { closed, Label, named, Pem } from './schemas.ts'

const State = Type.Enum(['staged', 'active', 'retiring', 'crl-only', 'retired'])

const IssuerView = Type.Object(
  {
    name: Label,
    authority: Label,
    state: State,
    certificate: Pem,
    chain: Type.Array(Pem, { description: 'above the issuer, the root last' }),
  },
  named('Issuer', examples.issuer),
)

const AuthorityView = Type.Object(
  { name: Label, issuers: Type.Array(Type.Object({ name: Label, state: State }, closed)) },
  named('Authority', examples.authority),
)

const ByName = Type.Object({ name: Label }, closed)

export const authorityRoutes = (app: App, { records }: HttpDeps): void => {
  app.get(
    '/v1/authorities',
    {
      config: { access: [...everyRole] },
      schema: {
        operationId: 'listAuthorities',
        summary: 'List authorities and their issuers',
        tags: ['authorities'],
        response: { 200: Type.Object({ items: Type.Array(AuthorityView) }, closed) },
      },
    },
    async () => {
      const [names, issuers] = await Promise.all([records.authorities(), records.issuers()])
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
        tags: ['authorities'],
        params: ByName,
        response: { 200: AuthorityView },
      },
    },
    async (request) => {
      const { name } = request.params
      await assertAuthority(records, name)
      return authorityView(name, await records.issuers())
    },
  )

  app.get(
    '/v1/authorities/:name/bundle',
    {
      config: { access: [...everyRole], offers: ['application/x-pem-file'], problems: ['authority.not_found'] },
      schema: {
        operationId: 'readBundle',
        summary: 'What a relying party of this authority must trust',
        description:
          '`issuers`: every issuer of this authority whose certificates may still be valid, and never the common root. `roots`: the roots above them.',
        tags: ['authorities'],
        params: ByName,
        querystring: Type.Object(
          {
            anchors: Type.Optional(Type.Enum(['issuers', 'roots'], { description: 'issuers by default' })),
          },
          closed,
        ),
        response: {
          200: Type.String({ description: 'PEM CERTIFICATE blocks, one after another', examples: [examples.bundle] }),
        },
      },
    },
    async (request, reply) => {
      const { name } = request.params
      await assertAuthority(records, name)
      const issuers = (await records.issuers()).filter(
        (issuer) => issuer.authority === name && issuer.state !== 'retired',
      )
      const anchors =
        request.query.anchors === 'roots' ? issuers.flatMap(rootOf) : issuers.map((issuer) => issuer.certificate)
      const blocks = new Set(anchors.map((der) => encodePem('CERTIFICATE', der)))
      return (reply as FastifyReply).type('application/x-pem-file').send([...blocks].join(''))
    },
  )

  app.get(
    '/v1/issuers',
    {
      config: { access: [...everyRole] },
      schema: {
        operationId: 'listIssuers',
        summary: 'List issuers',
        tags: ['authorities'],
        response: { 200: Type.Object({ items: Type.Array(IssuerView) }, closed) },
      },
    },
    async () => ({ items: (await records.issuers()).map(issuerView) }),
  )

  app.get(
    '/v1/issuers/:name',
    {
      config: { access: [...everyRole], problems: ['issuer.not_found'] },
      schema: {
        operationId: 'readIssuer',
        summary: 'Read one issuer',
        tags: ['authorities'],
        params: ByName,
        response: { 200: IssuerView },
      },
    },
    async (request) => {
      const issuer = (await records.issuers()).find(({ name }) => name === request.params.name)
      if (!issuer) throw new Problem('issuer.not_found', 'There is no issuer with this name.')
      return issuerView(issuer)
    },
  )
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

const issuerView = ({ name, authority, state, certificate, chain }: IssuerRecord) => ({
  name,
  authority,
  state,
  certificate: encodePem('CERTIFICATE', certificate),
  chain: chain.map((der) => encodePem('CERTIFICATE', der)),
})

const rootOf = ({ chain }: IssuerRecord): readonly Buffer[] => chain.slice(-1)
