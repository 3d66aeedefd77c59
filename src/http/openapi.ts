/** The description of the API, made from the routes themselves, and pages to read it with. */
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyContextConfig, RouteOptions } from 'fastify'

import type { Role } from '../ca/access/access.ts'
import { type ProblemCode, problems } from '../errors.ts'
import { type TSchema, Type } from '../lib/schema.ts'
import { fieldsOf } from './answer-fields.ts'
import { csr } from './api/request-examples.ts'
import { ProblemView } from './api/schemas.ts'
import { type AccessRule, isHolderRule } from './auth.ts'
import { codesIn, condensed } from './condensed.ts'
import type { App } from './fastify.ts'
import type { MediaType } from './media.ts'
import { problemType } from './problem.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Header fields that the call reads, with what they do: for the description only. */
    headers?: Readonly<Record<string, string>>
    /** The shape of the body, where another parser than the schema judges it. */
    document?: TSchema
    /** The shape of each of `items` in the body, where they are judged one by one. */
    items?: TSchema
  }
}

/** Collects every route that is registered from here on. `app.swagger()` is the description. */
export const describeRoutes = (app: App): void => {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Chancery',
        version: '1',
        description:
          'An online certificate authority. Every error is a problem document (RFC 9457); `retryable` says whether the same request may succeed later, and `next` what to do. Every answer has `X-Request-Id`, under which it is in the log.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      // What is left out means the same, and linters want it said.
      servers: [{ url: '/', description: 'where this was read' }],
      tags: [
        { name: 'certificates', description: 'Issue, read and search certificates' },
        { name: 'approvals', description: 'Requests that people must approve' },
        { name: 'revocation', description: 'Take certificates back' },
        { name: 'profiles', description: 'What certificates look like, and which names they may carry' },
        { name: 'access', description: 'Who may ask' },
        { name: 'records', description: 'What was turned down, and what happened' },
        { name: 'roll', description: 'The log itself: its newest checkpoint, and its tiles' },
        { name: 'authorities', description: 'What relying parties trust' },
        { name: 'operations', description: 'Health, metrics, problems' },
      ],
      components: {
        securitySchemes: {
          token: {
            type: 'http',
            scheme: 'bearer',
            description: 'a token made by POST /v1/tokens, or a JWT of an identity provider',
          },
          // OpenAPI 3.1 has it; the types of the library are those of 3.0.
          certificate: {
            type: 'mutualTLS' as 'http',
            scheme: undefined as never,
            description: 'a client certificate that POST /v1/credentials has tied to a principal',
          },
          itself: {
            type: 'mutualTLS' as 'http',
            scheme: undefined as never,
            description: 'the certificate that the path names, whatever it is for',
          },
        },
      },
    },
    transform: ({ schema, url, route }) => {
      const described = describe(schema as DescribedSchema | undefined, route)
      if (!url.endsWith('/*')) return { schema: described, url }
      // What stands for the rest of a path has no name of its own.
      return {
        schema: {
          ...described,
          params: Type.Object({
            path: Type.String({ examples: ['entries/000.p/1'], description: 'slashes may be %2F' }),
          }),
        },
        url: url.replace('*', ':path'),
      }
    },
    transformObject: (documents) =>
      condensed('openapiObject' in documents ? documents.openapiObject : documents.swaggerObject),
  })
  app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: contentPolicy,
    theme: {
      title: 'Chancery: the API',
      css: [{ filename: 'page.css', content: style }],
      js: [{ filename: 'viewport.js', content: viewport }],
    },
    uiConfig: { docExpansion: 'list', deepLinking: true, validatorUrl: null },
  })
}

interface DescribedSchema {
  readonly hide?: boolean
  readonly response?: Readonly<Record<string, TSchema & { readonly description?: string }>>
  readonly querystring?: TSchema
  readonly params?: TSchema
  readonly body?: TSchema
  readonly produces?: readonly string[]
  readonly [key: string]: unknown
}

/** Adds to a route's schema what its declaration says: bodies, representations, credentials, and every problem. */
const describe = (schema: DescribedSchema | undefined, route: RouteOptions): object => {
  if (!schema || schema.hide) return { hide: true }
  const config = route.config ?? {}
  const headers = Object.entries(config.headers ?? {}).map(([name, description]) => [
    name,
    Type.String({ description }),
  ])
  return {
    ...schema,
    ...(schema.body && { body: { content: bodiesOf(schema.body, config) } }),
    ...(headers.length > 0 && {
      headers: Type.Object(Object.fromEntries(headers.map(([name, value]) => [name, Type.Optional(value as TSchema)]))),
    }),
    response: withFields(
      beside({ ...answersOf(schema, config), ...unchangedOf(route) }, problemsOf(schema, route)),
      route,
    ),
    security: securityOf(config.access),
    'x-roles': rolesOf(config.access) ?? [],
    ...(isHolderRule(config.access) && { 'x-holder': true }),
  }
}

/** What a call says itself with a status, as /readyz does with 503, may be said by a problem as well. */
const beside = (answers: Answers, refused: Answers): Answers =>
  Object.fromEntries(
    Object.entries({ ...answers, ...refused }).map(([status, answer]) => {
      const own = answers[status]
      if (own === undefined || own === answer) return [status, answer]
      const description = `${own.description}; or ${answer.description}`
      return [status, { description, content: { ...own.content, ...answer.content } }]
    }),
  )

type Answers = Readonly<Record<string, DescribedAnswer>>

interface DescribedAnswer {
  readonly type?: 'null'
  readonly description: string
  readonly content?: object
}

const withFields = (answers: Answers, route: RouteOptions): object =>
  Object.fromEntries(
    Object.entries(answers).map(([status, answer]) => {
      const headers = fieldsOf(route, Number(status), codesIn(answer))
      return [status, { ...answer, ...(headers && { headers }) }]
    }),
  )

const bodiesOf = (body: TSchema, { accepts = [], document, items }: FastifyContextConfig): object => {
  const ofItems = items && { properties: { items: { type: 'array', minItems: 1, maxItems: 1_000, items } } }
  const shape = document ?? { ...body, ...ofItems }
  const { examples: _, ...schema } = shape as TSchema & { readonly examples?: unknown }
  return Object.fromEntries(
    accepts.map((type) => {
      const description = rawBodies[type]
      if (description === undefined) return [type, { schema: { ...schema, examples: [exampleOf(shape)] } }]
      const shown = type === 'application/x-pem-file' ? { examples: [csr] } : {}
      return [type, { schema: { type: 'string', format: 'binary', description, ...shown } }]
    }),
  )
}

const answersOf = ({ response = {}, produces = [] }: DescribedSchema, { offers = [] }: FastifyContextConfig): Answers =>
  Object.fromEntries(
    Object.entries(response).map(([status, { description = 'Done', ...shape }]) => {
      if (status === '204') return [status, { type: 'null', description }]
      const given = status !== '201' && response['201'] ? [] : offers
      const isText = 'type' in shape && shape.type === 'string'
      const own = isText ? (produces[0] ?? offers[0] ?? 'text/plain') : 'application/json'
      // In the order in which they are chosen where Accept leaves it open.
      const types = given.includes(own as MediaType) ? given : [own, ...given]
      const content = types.map((type) => [type, mediaOf(type, shape)])
      return [status, { description, content: Object.fromEntries(content) }]
    }),
  )

/** Of calls that read If-None-Match to tell whether the client has the answer already (RFC 9110 15.4.5). */
const unchangedOf = ({ config = {}, method }: RouteOptions): Answers =>
  method === 'GET' && config.headers?.['If-None-Match'] !== undefined
    ? { 304: { type: 'null', description: 'It is still what If-None-Match names' } }
    : {}

const mediaOf = (type: string, shape: TSchema): object => {
  if (type === 'application/json') return { schema: shape }
  return { schema: { type: 'string', ...(binary.has(type) && { format: 'binary' }) } }
}

const binary: ReadonlySet<string> = new Set(['application/pkix-cert', 'application/octet-stream'])

/** What a shape says itself, or what it is made of. */
const exampleOf = (shape: TSchema): unknown => {
  const { examples, properties, items } = shape as {
    readonly examples?: readonly unknown[]
    readonly properties?: Readonly<Record<string, TSchema>>
    readonly items?: TSchema
  }
  if (examples) return examples[0]
  if (items) return [exampleOf(items)]
  return properties && Object.fromEntries(Object.entries(properties).map(([name, member]) => [name, exampleOf(member)]))
}

/** One answer for each status, with the codes that this route can give there. */
const problemsOf = (schema: DescribedSchema, route: RouteOptions): Answers => {
  const byStatus = new Map<number, ProblemCode[]>()
  for (const code of codesOf(schema, route)) {
    const { status } = problems[code]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries([...byStatus].map(([status, codes]) => [String(status), problemAnswer(status, codes)]))
}

/** What a route declares, and what follows from its shape. */
const codesOf = (
  schema: Pick<DescribedSchema, 'params' | 'querystring' | 'body'>,
  { config = {}, method }: Pick<RouteOptions, 'config' | 'method'>,
): readonly ProblemCode[] => {
  const { access, accepts = [], problems: declared = [], tooLarge = 'request.too_large', probe = false } = config
  const codes: ProblemCode[] = [
    ...declared,
    'request.malformed',
    'request.timeout',
    'request.headers',
    'overload.deadline',
    'service.stopping',
    'internal',
  ]
  if (rolesOf(access)) codes.push('auth.missing', 'auth.forbidden')
  if (isHolderRule(access)) codes.push('renewal.foreign')
  if (isHolderRule(access) && access.holderOr.length === 0) codes.push('renewal.certificate')
  if (access !== 'open') codes.push(...authCodes)
  if (access !== 'open') codes.push('db.unavailable', 'auth.unavailable')
  if (access !== 'open' || !probe) codes.push(...addressCodes)
  if (access !== 'open') codes.push('limit.failed_authentication', 'limit.requests', 'limit.concurrent', 'limit.room')
  // Whoever changes anything puts it on the roll.
  if (access !== 'open' && method !== 'GET') codes.push('roll.inconsistent')
  if (schema.params) codes.push('request.uri')
  if (schema.body || accepts.length > 0) codes.push('request.media_type', tooLarge)
  // Where none is taken, one is refused.
  else if (access !== 'open' && !probe) codes.push('request.media_type')
  if (schema.body && accepts.includes('application/json')) codes.push('csr.key_material')
  return [...new Set(codes)]
}

/** Of everything that asks who it is, or listens when it is told. */
const authCodes: readonly ProblemCode[] = [
  'auth.invalid',
  'auth.ambiguous',
  'auth.usage',
  'auth.early',
  'auth.expired',
  'auth.revoked',
  'auth.unmapped',
  'auth.audience',
  'auth.lifetime',
  'auth.replayed',
  'auth.proxy',
]
const addressCodes: readonly ProblemCode[] = ['limit.address_requests', 'limit.address_concurrent']
const credentials = [{ token: [] }, { certificate: [] }]

const rolesOf = (access: AccessRule | undefined): readonly Role[] | undefined =>
  isHolderRule(access) ? access.holderOr : Array.isArray(access) ? (access as readonly Role[]) : undefined

const securityOf = (access: AccessRule | undefined): object[] => {
  if (access === 'open') return []
  // A token is of no use where only the certificate itself counts.
  if (isHolderRule(access)) return [...(access.holderOr.length > 0 ? credentials : []), { itself: [] }]
  return [...(access === 'optional' ? [{}] : []), ...credentials]
}

const problemAnswer = (status: number, codes: readonly ProblemCode[]): DescribedAnswer => {
  const titles = codes.map((code) => `\`${code}\`: ${problems[code].title}`)
  return {
    description: titles.join('; '),
    content: {
      [problemType]: {
        schema: {
          allOf: [
            ProblemView,
            {
              type: 'object',
              properties: { code: { type: 'string', enum: codes }, status: { type: 'integer', enum: [status] } },
            },
          ],
        },
      },
    },
  }
}

const rawBodies: Readonly<Record<string, string>> = {
  'application/pkcs10': 'a PKCS#10 request in DER (RFC 5967), or strict base64 of it; `profile` goes into the query',
  'application/jose':
    'a compact JWS (RFC 7515) by the key of the certificate, typ chancery-revocation+jws, over JSON: issuer, serial, reason, perhaps invalidityDate, and iat, at most five minutes ago',
  'application/x-pem-file': 'one PEM CERTIFICATE REQUEST block; `profile` goes into the query',
}

/** The page has none of its own, and a telephone would show it as wide as a desk. */
const viewport =
  "document.head.append(Object.assign(document.createElement('meta'), { name: 'viewport', content: 'width=device-width' }))\n"

/**
 * Not shown: a field without a label for other descriptions, which the policy below keeps out, and a column of links, of which there
 * are none and which is wider than a telephone. There what a section is about goes below its name: beside it, it would be a
 * column of a few letters.
 */
const style = `.swagger-ui .topbar .download-url-wrapper, .swagger-ui .response-col_links { display: none }
.swagger-ui .json-schema-2020-12-accordion:focus-visible { outline: auto }
@media (max-width: 640px) {
  .swagger-ui .opblock-tag { flex-wrap: wrap }
  .swagger-ui .opblock-tag > a { flex: 1 }
  .swagger-ui .opblock-tag > small { flex: 1 0 100%; order: 1; padding: 0 }
}
`

/** Everything comes from this origin; swagger-ui sets styles inline. */
const contentPolicy =
  "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; form-action 'self'; img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'"
