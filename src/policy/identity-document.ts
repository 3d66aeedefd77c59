/**
 * The document of an identity provider: whose tokens are believed, and who their claims make somebody. As it is written,
 * sent and stored. The schema is closed, and nothing is coerced or filled in. A `description` says what a value must be.
 */
import { closed, type DeepReadonly, type Static, Type } from '../lib/schema.ts'
import { Id } from './document.ts'
import { LimitsSchema } from './limits-schema.ts'
import { OriginRulesSchema } from './origin-schema.ts'

/** Only signatures that whoever checks them cannot make: no `none`, and none by a shared secret. */
const tokenAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
  'ML-DSA-44',
  'ML-DSA-65',
  'ML-DSA-87',
] as const

export type TokenAlgorithm = (typeof tokenAlgorithms)[number]

const Duration = Type.String({
  pattern: '^[1-9][0-9]{0,5}[smh]$',
  description: 'a whole number with a unit: 30s, 10m or 24h',
})
const Text = Type.String({ minLength: 1, maxLength: 1024, description: '1 to 1024 characters' })
const Pem = Type.String({ minLength: 1, maxLength: 12_288, description: 'certificates in PEM' })
const HttpsUrl = Type.String({
  pattern: '^https://[^/?#@\\s]+(/[^?#\\s]*)?$',
  maxLength: 1024,
  description: 'an https:// URL',
})

const Keys = Type.Object(
  {
    discovery: Type.Optional(Type.Literal(true, { description: 'true' })),
    url: Type.Optional(HttpsUrl),
    static: Type.Optional(
      Type.Array(Type.Object({ kty: Text }, { additionalProperties: true }), {
        minItems: 1,
        maxItems: 20,
        description: 'a list of 1 to 20 public keys (RFC 7517)',
      }),
    ),
    ca: Type.Optional(Pem),
  },
  { ...closed, description: 'exactly one of discovery, url and static, and perhaps ca' },
)

export const ClaimValueSchema = Type.Union(
  [Text, Type.Boolean(), Type.Integer(), Type.Array(Text, { minItems: 1, maxItems: 100 })],
  {
    description: 'text with `*` for a whole segment, a list of such texts, true, false or a whole number',
  },
)

const Patterns = Type.Array(Text, { minItems: 1, maxItems: 1000, description: 'a list of 1 to 1000 patterns' })
const KindRules = Type.Object({ allow: Patterns, deny: Type.Optional(Patterns) }, closed)

const MappingGrant = Type.Object(
  {
    profiles: Type.Array(Id, {
      minItems: 1,
      maxItems: 100,
      uniqueItems: true,
      description: 'a list of 1 to 100 profiles',
    }),
    names: Type.Optional(
      Type.Object(
        {
          dns: Type.Optional(KindRules),
          ip: Type.Optional(KindRules),
          uri: Type.Optional(KindRules),
          email: Type.Optional(KindRules),
          commonName: Type.Optional(KindRules),
        },
        closed,
      ),
    ),
    revoke: Type.Optional(Type.Boolean()),
    limits: Type.Optional(LimitsSchema),
    onBehalfOf: Type.Optional(OriginRulesSchema),
  },
  closed,
)

const Mapping = Type.Object(
  {
    id: Id,
    claims: Type.Record(Type.String(), ClaimValueSchema, {
      minProperties: 1,
      maxProperties: 20,
      description: '1 to 20 claims by name, or by a JSON pointer to what is within one',
    }),
    principal: Type.String({
      minLength: 1,
      maxLength: 256,
      description: 'the name of a principal, with claims in braces',
    }),
    grants: Type.Optional(Type.Array(MappingGrant, { maxItems: 20 })),
    once: Type.Optional(Type.Boolean()),
  },
  closed,
)

export const ProviderDocumentSchema = Type.Object(
  {
    name: Id,
    description: Type.Optional(Text),
    issuer: HttpsUrl,
    keys: Keys,
    algorithms: Type.Array(Type.Enum([...tokenAlgorithms]), { minItems: 1, uniqueItems: true }),
    type: Type.Optional(Text),
    audience: Type.Union([Text, Type.Array(Text, { minItems: 1, maxItems: 10 })], {
      description: 'a string or a list of 1 to 10 strings',
    }),
    lifetime: Duration,
    clock: Type.Optional(Duration),
    mappings: Type.Array(Mapping, { maxItems: 200, description: 'a list of up to 200 mappings' }),
  },
  { ...closed, description: 'the document of an identity provider' },
)

export type ProviderDocument = DeepReadonly<Static<typeof ProviderDocumentSchema>>
export type MappingDocument = ProviderDocument['mappings'][number]
export type ClaimValueDocument = MappingDocument['claims'][string]
