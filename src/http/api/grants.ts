/** What principals may do. */
import type { Grant, NewGrant } from '../../ca/access/access.ts'
import type { Policies } from '../../ca/policies.ts'
import { Problem } from '../../errors.ts'
import { canonicalJson } from '../../lib/canonical-json.ts'
import { Type } from '../../lib/schema.ts'
import { LimitsSchema } from '../../policy/limits-schema.ts'
import { parseNameRules } from '../../policy/name-rules.ts'
import { originField } from '../../policy/origin.ts'
import { parseOriginRules } from '../../policy/origin-rules.ts'
import { OriginRulesSchema } from '../../policy/origin-schema.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { assertNotOwn, endRoute, listRoute, OfPrincipal, tags } from './holdings.ts'
import * as asked from './request-examples.ts'
import { ById, Label, named, PrincipalName, Role, Time, Uuid } from './schemas.ts'

const Rules = Type.Object(
  {
    allow: Type.Array(Type.String({ maxLength: 2048 }), { maxItems: 1000 }),
    deny: Type.Optional(Type.Array(Type.String({ maxLength: 2048 }), { maxItems: 1000 })),
  },
  named('NameRule'),
)
const NameRulesShape = Type.Object(
  {
    dns: Type.Optional(Rules),
    ip: Type.Optional(Rules),
    uri: Type.Optional(Rules),
    email: Type.Optional(Rules),
    commonName: Type.Optional(Rules),
  },
  {
    ...named('NameRules'),
    description:
      'narrower rules, applied beside those of the profile; without one for common names, the profile’s holds alone',
  },
)

const LimitsView = Type.Object(LimitsSchema.properties, {
  ...named('Limits'),
  minProperties: 1,
  description: 'how much at most; those of certificates and names are a requester’s',
})

const OriginRulesView = Type.Object(OriginRulesSchema.properties, {
  ...named('OriginRules'),
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
    sharedKeys: Type.Boolean({ description: 'a requester may have certificates of these profiles for keys of others' }),
    createdAt: Time,
    createdBy: Type.String(),
  },
  named('Grant'),
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
    sharedKeys: Type.Optional(
      Type.Boolean({
        description:
          'whether a requester may have certificates of these profiles for keys that belong to another; not by default',
      }),
    ),
  },
  named('NewGrant', asked.newGrant),
)

export const grantRoutes = (app: App, { access, policies }: HttpDeps): void => {
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
      const { principal, role, profiles, names, revoke = false, limits, onBehalfOf, sharedKeys = false } = request.body
      assertNotOwn(principal)
      const [hasProfiles, hasNames] = [profiles !== undefined, names !== undefined]
      const delegates = onBehalfOf !== undefined
      assertGrantShape(role, { profiles: hasProfiles, names: hasNames, revoke, onBehalfOf: delegates, sharedKeys })
      assertLimitsFit(role, limits)
      const grant: NewGrant = {
        principal,
        role,
        profiles: profiles ?? null,
        names: names === undefined ? null : parseNameRules(names, '/names'),
        revoke,
        ...(limits && { limits }),
        ...(onBehalfOf && { onBehalfOf: parseOriginRules(onBehalfOf, originField) }),
        ...(sharedKeys && { sharedKeys }),
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
    description: 'By principal, the oldest first: those that hold. What was taken back is in `GET /v1/events`.',
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

const assertGrantShape = (
  role: string,
  has: { readonly [member in 'profiles' | 'names' | 'revoke' | 'onBehalfOf' | 'sharedKeys']: boolean },
): void => {
  const fault = (field: string, reason: string): Problem =>
    new Problem('request.malformed', 'The grant does not fit its role.', {
      violations: [{ check: 'grant.role', field, value: role, reason }],
    })
  if (role === 'requester' && !has.profiles) throw fault('/profiles', 'a requester is granted named profiles')
  if (role === 'requester') return
  if (role !== 'approver' && has.profiles)
    throw fault('/profiles', 'only a requester or an approver is granted profiles')
  for (const field of ['names', 'revoke', 'onBehalfOf', 'sharedKeys'] as const)
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

/** A grant goes into one entry of the roll as a whole, and that is bounded (tlog/entries.ts). */
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

const grantView = ({
  id,
  principal,
  role,
  profiles,
  names,
  revoke,
  limits,
  onBehalfOf,
  sharedKeys = false,
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
  sharedKeys,
  createdAt: createdAt.toISOString(),
  createdBy,
})

const ofRequests: ReadonlySet<string> = new Set(['requestsPerSecond', 'concurrent'])
/** Half of an entry: the rest of it is never as long. */
const maxGrantOctets = 32 * 1024
