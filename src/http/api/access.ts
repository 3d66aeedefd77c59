/** Who may ask: principals, what they may do, and the tokens that prove who they are. */
import { Type } from 'typebox'

import type { Grant, NewGrant, Principal, Token } from '../../ca/access.ts'
import type { Policies } from '../../ca/policies.ts'
import { canonicalJson } from '../../canonical.ts'
import { Problem } from '../../errors.ts'
import { LimitsSchema } from '../../policy/limits-schema.ts'
import { parseNameRules } from '../../policy/names.ts'
import { originField } from '../../policy/origin.ts'
import { parseOriginRules } from '../../policy/origin-rules.ts'
import { OriginRulesSchema } from '../../policy/origin-schema.ts'
import type { App } from '../app.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import * as examples from './examples.ts'
import {
  assertNotOwn,
  ById,
  ByName,
  endRoute,
  HoldingLabel,
  listRoute,
  mayRead,
  NullableTime,
  OfPrincipal,
  tags,
} from './holdings.ts'
import { closed, Label, named, PrincipalName, Role, Time, Uuid } from './schemas.ts'
import { parseTime, timeOrNull } from './views.ts'

const PrincipalView = Type.Object(
  {
    name: PrincipalName,
    createdAt: Time,
    createdBy: Type.String(),
    disabledAt: { ...NullableTime, description: 'since when it is closed, for good' },
  },
  named('Principal', examples.principal),
)

const Rules = Type.Object(
  {
    allow: Type.Array(Type.String({ maxLength: 2048 }), { maxItems: 1000 }),
    deny: Type.Optional(Type.Array(Type.String({ maxLength: 2048 }), { maxItems: 1000 })),
  },
  named('NameRule'),
)
const NameRulesShape = Type.Object(
  { dns: Type.Optional(Rules), ip: Type.Optional(Rules), uri: Type.Optional(Rules), email: Type.Optional(Rules) },
  { ...named('NameRules'), description: 'narrower rules, applied beside those of the profile' },
)

const LimitsView = Type.Object(LimitsSchema.properties, {
  ...named('Limits', examples.limits),
  minProperties: 1,
  description: 'how much at most; those of certificates and names are a requester’s',
})

const OriginRulesView = Type.Object(OriginRulesSchema.properties, {
  ...named('OriginRules', examples.onBehalfOf),
  description: 'a requester may ask on behalf of others: of these namespaces, users and groups; `{}`: of any',
})

const GrantView = Type.Object(
  {
    id: Uuid,
    principal: PrincipalName,
    role: Role,
    profiles: Type.Union([Type.Array(Label), Type.Null()]),
    names: Type.Union([NameRulesShape, Type.Null()]),
    revoke: Type.Boolean({ description: 'a requester may revoke its own certificates of these profiles' }),
    limits: Type.Union([LimitsView, Type.Null()]),
    onBehalfOf: Type.Union([OriginRulesView, Type.Null()]),
    createdAt: Time,
    createdBy: Type.String(),
  },
  named('Grant', examples.grant),
)

const NewGrantBody = Type.Object(
  {
    principal: PrincipalName,
    role: Role,
    profiles: Type.Optional(
      Type.Array(Label, {
        minItems: 1,
        maxItems: 1000,
        uniqueItems: true,
        description: 'for a requester: which profiles; for an approver: whose requests it approves, none without',
      }),
    ),
    names: Type.Optional(NameRulesShape),
    revoke: Type.Optional(
      Type.Boolean({
        description: 'whether a requester may revoke its own certificates of these profiles; not by default',
      }),
    ),
    limits: Type.Optional(LimitsView),
    onBehalfOf: Type.Optional(OriginRulesView),
  },
  named('NewGrant'),
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
const TokenView = Type.Object(tokenFields, named('Token', examples.token))
const NewTokenView = Type.Object(
  { ...tokenFields, secret: Type.String({ description: 'shown this once, and kept nowhere' }) },
  named('TokenWithSecret', examples.newToken),
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
  named('NewToken'),
)

export const accessRoutes = (app: App, deps: HttpDeps): void => {
  principalRoutes(app, deps)
  grantRoutes(app, deps)
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
      },
      schema: {
        operationId: 'createPrincipal',
        summary: 'Create a principal',
        tags,
        body: Type.Object({ name: PrincipalName }, closed),
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

const grantRoutes = (app: App, { access, policies }: HttpDeps): void => {
  app.post(
    '/v1/grants',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['principal.not_found', 'principal.disabled', 'profile.not_found', 'state.reserved'],
      },
      schema: {
        operationId: 'createGrant',
        summary: 'Let a principal act in a role',
        description:
          'A requester is granted named profiles that exist, perhaps with narrower name rules; an approver named profiles whose requests it approves; no other role takes either. Idempotent: what the principal holds already is answered with the grant that is there.',
        tags,
        body: NewGrantBody,
        response: {
          200: { ...GrantView, description: 'Held already: nothing has changed' },
          201: { ...GrantView, description: 'Granted' },
        },
      },
    },
    async (request, reply) => {
      const { principal, role, profiles, names, revoke = false, limits, onBehalfOf } = request.body
      assertNotOwn(principal)
      const [hasProfiles, hasNames] = [profiles !== undefined, names !== undefined]
      assertGrantShape(role, { profiles: hasProfiles, names: hasNames, revoke, onBehalfOf: onBehalfOf !== undefined })
      assertLimitsFit(role, limits)
      const grant: NewGrant = {
        principal,
        role,
        profiles: profiles ?? null,
        names: names === undefined ? null : parseNameRules(names, '/names'),
        revoke,
        ...(limits && { limits }),
        ...(onBehalfOf && { onBehalfOf: parseOriginRules(onBehalfOf, originField) }),
      }
      assertGrantFits(grant)
      await assertProfiles(policies, grant.profiles ?? [])
      const { grant: held, created } = await access.createGrant(grant, callerOf(request).principal)
      reply.code(created ? 201 : 200)
      return grantView(held)
    },
  )

  listRoute(app, '/v1/grants', {
    operationId: 'listGrants',
    summary: 'List grants',
    querystring: OfPrincipal,
    row: GrantView,
    rows: async (principal) => (await access.listGrants(principal)).map(grantView),
  })

  endRoute(app, '/v1/grants/:id', {
    operationId: 'revokeGrant',
    summary: 'Take a grant back',
    description: 'Idempotent.',
    params: ById,
    problems: ['grant.not_found', 'profile.lockout'],
    end: (id, by) => access.revokeGrant(id, by),
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

const assertGrantShape = (
  role: string,
  has: { readonly [member in 'profiles' | 'names' | 'revoke' | 'onBehalfOf']: boolean },
): void => {
  const fault = (field: string, reason: string): Problem =>
    new Problem('request.malformed', 'The grant does not fit its role.', {
      violations: [{ check: 'grant.role', field, value: role, reason }],
    })
  if (role === 'requester' && !has.profiles) throw fault('/profiles', 'a requester is granted named profiles')
  if (role === 'requester') return
  if (role !== 'approver' && has.profiles)
    throw fault('/profiles', 'only a requester or an approver is granted profiles')
  for (const field of ['names', 'revoke', 'onBehalfOf'] as const)
    if (has[field]) throw fault(`/${field}`, `only a requester is granted ${field}`)
}

/** Certificates and names are asked for by requesters alone. */
const assertLimitsFit = (role: string, limits: NewGrant['limits'] = {}): void => {
  const [name] = Object.keys(limits).filter((limit) => role !== 'requester' && !ofRequests.has(limit))
  if (name === undefined) return
  throw new Problem('request.malformed', 'The grant does not fit its role.', {
    violations: [{ check: 'grant.role', field: `/limits/${name}`, value: role, reason: 'limits only a requester' }],
  })
}

/** A grant of a profile that is still to come would be a right that nobody can look up; of a mistyped one, none at all. */
const assertProfiles = async (policies: Policies, names: readonly string[]): Promise<void> => {
  const known = new Set(names.length === 0 ? [] : (await policies.list()).map(({ profile }) => profile.name))
  const violations = names.flatMap((value, i) =>
    known.has(value) ? [] : [{ check: 'grant.profiles', field: `/profiles/${i}`, value, reason: 'is no profile' }],
  )
  if (violations.length > 0)
    throw new Problem('profile.not_found', 'The grant names profiles that do not exist.', { violations })
}

const parseExpiry = (text: string, now: Date): Date => {
  const expires = parseTime(text, '/expiresAt')
  const ahead = expires.getTime() - now.getTime()
  if (ahead <= 0) throw new Problem('request.malformed', 'The time in expiresAt has passed.')
  if (ahead > maxTokenLife)
    throw new Problem('request.malformed', 'The time in expiresAt is more than ten years ahead.')
  return expires
}

/** A grant goes into one entry of the roll as a whole, and that is bounded (roll/entries.ts). */
const assertGrantFits = ({ profiles, names, onBehalfOf }: NewGrant): void => {
  const octets = Buffer.byteLength(canonicalJson({ profiles, names, ...(onBehalfOf && { onBehalfOf }) }))
  if (octets <= maxGrantOctets) return
  throw new Problem('request.malformed', 'The grant is too large. Split its profiles and rules over several grants.', {
    violations: [
      {
        check: 'grant.size',
        field: onBehalfOf ? originField : names === null ? '/profiles' : '/names',
        value: '',
        reason: `profiles, names and onBehalfOf take ${octets} octets of canonical JSON; at most ${maxGrantOctets} are allowed`,
      },
    ],
  })
}

const principalView = ({ name, createdAt, createdBy, disabledAt }: Principal) => ({
  name,
  createdAt: createdAt.toISOString(),
  createdBy,
  disabledAt: timeOrNull(disabledAt),
})

const grantView = ({
  id,
  principal,
  role,
  profiles,
  names,
  revoke,
  limits,
  onBehalfOf,
  createdAt,
  createdBy,
}: Grant) => ({
  id,
  principal,
  role,
  profiles: profiles && [...profiles],
  names: names as object | null,
  revoke,
  limits: limits ?? null,
  onBehalfOf: (onBehalfOf ?? null) as object | null,
  createdAt: createdAt.toISOString(),
  createdBy,
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

const ofRequests: ReadonlySet<string> = new Set(['requestsPerSecond', 'concurrent'])
/** Half of an entry: the rest of it is never as long. */
const maxGrantOctets = 32 * 1024
/** Ten years, in milliseconds. */
const maxTokenLife = 3_653 * 86_400_000
