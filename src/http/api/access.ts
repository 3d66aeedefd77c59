/** Who may ask: principals, and the tokens that prove who they are. What they may do is in grants.ts. */

import type { Principal, Token } from '../../ca/access/access.ts'
import type { Problem } from '../../errors.ts'
import { Type } from '../../lib/schema.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import {
  assertNotOwn,
  ByName,
  endRoute,
  HoldingLabel,
  listRoute,
  mayRead,
  NullableTime,
  OfPrincipal,
  tags,
} from './holdings.ts'
import * as asked from './request-examples.ts'
import { ById, named, PrincipalName, Time, Uuid } from './schemas.ts'
import { parseTime, timeOrNull, timeProblem } from './views.ts'

const PrincipalView = Type.Object(
  {
    name: PrincipalName,
    createdAt: Time,
    createdBy: Type.String(),
    disabledAt: { ...NullableTime, description: 'since when it is closed, for good' },
  },
  named('Principal'),
)

const tokenFields = {
  id: Uuid,
  principal: PrincipalName,
  label: Type.String(),
  createdAt: Time,
  createdBy: Type.String(),
  expiresAt: NullableTime,
  revokedAt: NullableTime,
  lastUsedAt: { ...NullableTime, description: 'to the minute' },
}
const TokenView = Type.Object(tokenFields, named('Token'))
const NewTokenView = Type.Object(
  { ...tokenFields, secret: Type.String({ description: 'shown this once, and kept nowhere' }) },
  named('TokenWithSecret'),
)
const NewTokenBody = Type.Object(
  {
    principal: PrincipalName,
    label: HoldingLabel,
    expiresAt: Type.Optional({
      ...Time,
      description: 'in the future, at most ten years ahead (RFC 3339); none: never',
    }),
  },
  named('NewToken', asked.newToken),
)

export const accessRoutes = (app: App, deps: HttpDeps): void => {
  principalRoutes(app, deps)
  tokenRoutes(app, deps)
}

const principalRoutes = (app: App, { access }: HttpDeps): void => {
  app.post(
    '/v1/principals',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['state.exists', 'principal.disabled', 'state.reserved'],
        tells: { Location: [201] },
      },
      schema: {
        operationId: 'createPrincipal',
        summary: 'Create a principal',
        description:
          'A name, and no more: `POST /v1/grants` says what it may do, and `POST /v1/tokens` or `POST /v1/credentials` makes what proves who it is. The name of one that was closed is not given again.',
        tags,
        body: Type.Object({ name: PrincipalName }, named('NewPrincipal', asked.newPrincipal)),
        response: { 201: { ...PrincipalView, description: 'Created' } },
      },
    },
    async (request, reply) => {
      assertNotOwn(request.body.name)
      const principal = await access.createPrincipal(request.body.name, callerOf(request).principal)
      reply.code(201).header('location', `/v1/principals/${encodeURIComponent(principal.name)}`)
      return principalView(principal)
    },
  )

  listRoute(app, '/v1/principals', {
    operationId: 'listPrincipals',
    summary: 'List principals',
    description: 'By name, the closed ones as well.',
    row: PrincipalView,
    rows: async () => (await access.listPrincipals()).map(principalView),
  })

  app.get(
    '/v1/principals/:name',
    {
      config: { access: [...mayRead], problems: ['principal.not_found'] },
      schema: {
        operationId: 'readPrincipal',
        summary: 'Read one principal',
        description:
          'Also one that was closed. What it holds is in `GET /v1/grants`, `GET /v1/tokens` and `GET /v1/credentials`, each with `principal`.',
        tags,
        params: ByName,
        response: { 200: PrincipalView },
      },
    },
    async (request) => principalView(await access.readPrincipal(request.params.name)),
  )

  endRoute(app, '/v1/principals/:name', {
    operationId: 'disablePrincipal',
    summary: 'Close a principal for good',
    description: 'Whatever proves who it is stops working within two seconds on every replica. Idempotent.',
    params: ByName,
    problems: ['principal.not_found', 'state.reserved', 'profile.lockout'],
    end: async (name, by) => {
      assertNotOwn(name)
      await access.disablePrincipal(name, by)
    },
  })
}

const tokenRoutes = (app: App, { access, clock }: HttpDeps): void => {
  app.post(
    '/v1/tokens',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['principal.not_found', 'principal.disabled', 'state.reserved'],
      },
      schema: {
        operationId: 'createToken',
        summary: 'Make a bearer token',
        description: 'Its secret is in this answer and nowhere else.',
        tags,
        body: NewTokenBody,
        response: { 201: { ...NewTokenView, description: 'Made' } },
      },
    },
    async (request, reply) => {
      const { principal, label, expiresAt } = request.body
      assertNotOwn(principal)
      const expires = expiresAt === undefined ? null : parseExpiry(expiresAt, clock())
      const token = await access.createToken({ principal, label, expiresAt: expires }, callerOf(request).principal)
      reply.code(201)
      return { ...tokenView(token), secret: token.secret }
    },
  )

  listRoute(app, '/v1/tokens', {
    operationId: 'listTokens',
    summary: 'List tokens, never their secrets',
    description: 'By principal, the oldest first, the revoked and the expired ones as well.',
    querystring: OfPrincipal,
    row: TokenView,
    rows: async (principal) => (await access.listTokens(principal)).map(tokenView),
  })

  endRoute(app, '/v1/tokens/:id', {
    operationId: 'revokeToken',
    summary: 'Revoke a token',
    description: 'It stops working within two seconds on every replica. Idempotent.',
    params: ById,
    problems: ['token.not_found', 'profile.lockout'],
    end: (id, by) => access.revokeToken(id, by),
  })
}

const parseExpiry = (text: string, now: Date): Date => {
  const expires = parseTime(text, '/expiresAt')
  const ahead = expires.getTime() - now.getTime()
  if (ahead <= 0) throw badExpiry('has passed', text)
  if (ahead > maxTokenLife) throw badExpiry('is more than ten years ahead', text)
  return expires
}

const badExpiry = (reason: string, value: string): Problem =>
  timeProblem(`The time in expiresAt ${reason}.`, '/expiresAt', value, reason)

const principalView = ({ name, createdAt, createdBy, disabledAt }: Principal) => ({
  name,
  createdAt: createdAt.toISOString(),
  createdBy,
  disabledAt: timeOrNull(disabledAt),
})

const tokenView = ({ id, principal, label, createdAt, createdBy, expiresAt, revokedAt, lastUsedAt }: Token) => ({
  id,
  principal,
  label,
  createdAt: createdAt.toISOString(),
  createdBy,
  expiresAt: timeOrNull(expiresAt),
  revokedAt: timeOrNull(revokedAt),
  lastUsedAt: timeOrNull(lastUsedAt),
})

/** Ten years, in milliseconds. */
const maxTokenLife = 3_653 * 86_400_000
