/** Identity providers: whose tokens are believed, and who they make somebody. */
import { isDeepStrictEqual } from 'node:util'

import type { StoredProvider } from '../../ca/access/providers.ts'
import { own } from '../../ca/own.ts'
import type { Policies } from '../../ca/policies.ts'
import { Problem, type Violation } from '../../errors.ts'
import { Type } from '../../lib/schema.ts'
import { isDistinct } from '../../policy/claims.ts'
import { type ProviderDocument, ProviderDocumentSchema, parseProvider } from '../../policy/identity.ts'
import { uselessKeys } from '../../policy/identity-keys.ts'
import { idleFault } from '../../policy/name-rules.ts'
import { type NameRules, pointer, ruledKinds, show } from '../../policy/names.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import * as examples from './examples.ts'
import * as asked from './request-examples.ts'
import { Label, named, PrincipalName, Sha256, Time } from './schemas.ts'
import { versionRoutes } from './versions.ts'

const ProviderVersion = Type.Object(
  {
    name: Label,
    version: Type.Integer({ minimum: 1 }),
    sha256: Sha256,
    issuer: Type.String(),
    document: Type.Object({}, { additionalProperties: true, description: 'as it was applied, in canonical form' }),
    createdAt: Time,
    createdBy: PrincipalName,
    keysFault: Type.Optional(
      Type.String({
        description:
          'only told when it is applied: why no token of it can be verified by this instance at present, as its keys cannot be fetched or are of no use',
      }),
    ),
  },
  named('IdentityProvider', examples.provider),
)

export const identityProviderRoutes = (app: App, { providers, policies, keysFault }: HttpDeps): void =>
  versionRoutes(app, {
    url: '/v1/identity-providers',
    tag: 'access',
    title: 'identity provider',
    articled: 'an identity provider',
    operation: ['IdentityProvider', 'IdentityProviders'],
    mayRead: ['auditor', 'admin'],
    view: ProviderVersion,
    firstExample: { ...examples.provider, version: 1 },
    document: { ...ProviderDocumentSchema, title: 'ProviderDocument', examples: [asked.identityProvider] },
    missing: 'provider.not_found',
    invalid: 'provider.invalid',
    problems: [],
    store: providers,
    show: providerView,
    beside: async ({ provider }) => {
      const fault = await keysFault(provider.issuer)
      return fault === undefined ? {} : { keysFault: fault }
    },
    assertMayChange: async (name, written) => {
      const { document, issuer } = parseProvider(written, { version: 1, name })
      const isNew = !isDeepStrictEqual(document, providers.issuedBy(issuer)?.provider.document)
      await assertMeant({ document, isNew }, policies)
    },
  })

/**
 * Of two keys by one name that nothing else tells apart nobody could say which is meant, and no token by either is accepted: a
 * curve or an algorithm of its own does. A version that was stored before is read all the same.
 */
const namedTwice = ({ static: keys = [] }: ProviderDocument['keys']): readonly Violation[] => {
  const names = keys.map((key: Readonly<Record<string, unknown>>) =>
    JSON.stringify(telling.map((member) => key[member])),
  )
  return names.flatMap((name, i) =>
    names.indexOf(name) === i
      ? []
      : [{ check: 'provider.keys', field: `/keys/static/${i}/kid`, value: '', reason: 'is that of another key' }],
  )
}

/** By which a token finds its key among others. */
const telling = ['kid', 'kty', 'crv', 'alg', 'use', 'key_ops']

/** What the document alone does not show: a mistyped profile would be no right at all, and nobody is the service but itself. */
const assertMeant = async (
  { document, isNew }: { readonly document: ProviderDocument; readonly isNew: boolean },
  policies: Policies,
): Promise<void> => {
  const { keys, mappings } = document
  const known = new Set((await policies.list()).map(({ profile }) => profile.name))
  const check = 'provider.mappings'
  const ofMappings = mappings.flatMap(({ principal, claims, grants = [] }, i): readonly Violation[] => [
    ...Object.entries(claims)
      .filter(([, value]) => !isDistinct(value))
      .map(([name, value]) => ({
        ...{ check, field: `/mappings/${i}/claims/${pointer(name)}`, value: show(value) },
        reason: 'is beyond 2^53 - 1, where JSON does not tell a number from its neighbours: it would fit nobody',
      })),
    ...(principal === own.principal
      ? [{ check, field: `/mappings/${i}/principal`, value: principal, reason: 'is the service itself' }]
      : []),
    ...grants.flatMap(({ profiles }, place) =>
      profiles.flatMap((value, at) =>
        known.has(value)
          ? []
          : [{ check, field: `/mappings/${i}/grants/${place}/profiles/${at}`, value, reason: 'is no profile' }],
      ),
    ),
    ...(isNew ? grants : []).flatMap(({ names = {} }, place) =>
      idlePatterns(names).map(({ at, ...found }) => ({
        ...{ check, field: `/mappings/${i}/grants/${place}/names/${at}` },
        ...found,
      })),
    ),
  ])
  const useless = uselessKeys(document).map((fault) => ({ check: 'provider.keys', value: '', ...fault }))
  const violations = [...(isNew ? [...namedTwice(keys), ...useless] : []), ...ofMappings]
  const what = ofMappings.length > 0 ? 'The document names what there is not.' : 'No token could be by a key of these.'
  if (violations.length > 0) throw new Problem('provider.invalid', what, { violations })
}

/**
 * Patterns that match nothing, whatever claims stand in them. A label or segment with one may be any: an example would make another of
 * xn--{/tag}, which is an A-label with the right claim.
 */
const idlePatterns = (names: NameRules): readonly (Omit<Violation, 'check' | 'field'> & { readonly at: string })[] =>
  ruledKinds.flatMap((kind) =>
    (['allow', 'deny'] as const).flatMap((list) =>
      (names[kind]?.[list] ?? []).flatMap((value, i) => {
        const reason = idleFault(
          kind,
          value.replaceAll(anyPart, (part) => (part.includes('{') ? 'x' : part)),
        )
        return reason === undefined ? [] : [{ at: `${kind}/${list}/${i}`, value, reason }]
      }),
    ),
  )

/** Each once: a pattern for those with a claim alone would look at the rest of the text again for each of its letters. */
const anyPart = /(?:[^./{}]|\{[^{}]*\})+/g

const providerView = ({ provider, createdAt, createdBy }: StoredProvider) => ({
  name: provider.name,
  version: provider.version,
  sha256: provider.sha256,
  issuer: provider.issuer,
  document: provider.document,
  createdAt: createdAt.toISOString(),
  createdBy,
})
