/** Identity providers: whose tokens are believed, and who they make somebody. */
import type { StoredProvider } from '../../ca/access/providers.ts'
import { own } from '../../ca/own.ts'
import type { Policies } from '../../ca/policies.ts'
import { Problem, type Violation } from '../../errors.ts'
import { Type } from '../../lib/schema.ts'
import { type ProviderDocument, ProviderDocumentSchema, parseProvider } from '../../policy/identity.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
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
  named('IdentityProvider'),
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
    exampleName: asked.identityProvider.name,
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
      await assertMeant(parseProvider(written, { version: 1, name }).document, policies)
    },
  })

/** What the document alone does not show: a mistyped profile would be no right at all, and nobody is the service but itself. */
const assertMeant = async ({ mappings }: ProviderDocument, policies: Policies): Promise<void> => {
  const known = new Set((await policies.list()).map(({ profile }) => profile.name))
  const violations: Violation[] = []
  mappings.forEach(({ principal, grants = [] }, i) => {
    const add = (place: string, value: string, reason: string): void =>
      void violations.push({ check: 'provider.mappings', field: `/mappings/${i}${place}`, value, reason })
    if (principal === own.principal) add('/principal', principal, 'is the service itself')
    grants.forEach(({ profiles }, place) => {
      profiles.forEach((name, at) => {
        if (!known.has(name)) add(`/grants/${place}/profiles/${at}`, name, 'is no profile')
      })
    })
  })
  if (violations.length > 0)
    throw new Problem('provider.invalid', 'The document names what there is not.', { violations })
}

const providerView = ({ provider, createdAt, createdBy }: StoredProvider) => ({
  name: provider.name,
  version: provider.version,
  sha256: provider.sha256,
  issuer: provider.issuer,
  document: provider.document,
  createdAt: createdAt.toISOString(),
  createdBy,
})
