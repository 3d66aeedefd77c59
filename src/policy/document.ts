import { closed, type DeepReadonly, type Static, type TOptional, Type } from '../lib/schema.ts'
import type { KeyAlgorithmId } from '../x509/algorithms.ts'
import { keyUsages } from '../x509/extensions.ts'
import { OriginRulesSchema } from './origin-schema.ts'
import { attributeTypes } from './subject.ts'

/**
 * The document of a profile, as it is written, sent and stored. The schema is closed: an unknown field is an error, and
 * nothing is coerced or filled in. A `description` says what a value must be; faults quote it. What the shapes cannot
 * say is in faults.ts.
 */

/** CA bits are not among them: no profile can describe a CA certificate (incident 29). */
const leafKeyUsages = keyUsages.filter((usage) => usage !== 'keyCertSign' && usage !== 'cRLSign')

/** Of profiles, authorities and identity providers, and of what is in them. */
export const Id = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
  description: '1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends',
})

const Duration = Type.String({
  pattern: '^(0|[1-9][0-9]{0,9})[smhd]$',
  description: 'a whole number with a unit: 30s, 5m, 24h or 30d',
})

const Text = Type.String({
  minLength: 1,
  maxLength: 2048,
  description: 'text of 1 to 2048 characters, in quotes where YAML would read a number',
})

const Texts = Type.Union([Text, Type.Array(Text, { minItems: 1, maxItems: 100 })], {
  description: 'a string or a list of 1 to 100 strings',
})

const Patterns = Type.Array(Text, { minItems: 1, maxItems: 1000, description: 'a list of 1 to 1000 patterns' })

const Count = Type.Integer({ minimum: 1, maximum: 100, description: 'a whole number within 1 and 100' })

const Modulus = Type.Enum([2048, 3072, 4096, 8192])

const Key = Type.Object(
  {
    rsa: Type.Optional(Type.Object({ min: Modulus, max: Modulus }, closed)),
    ec: Type.Optional(Type.Array(Type.Enum(['P-256', 'P-384', 'P-521']), { minItems: 1, uniqueItems: true })),
    ed25519: Type.Optional(Type.Literal(true, { description: 'true' })),
    mlDsa: Type.Optional(
      Type.Array(Type.Enum(['ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87']), { minItems: 1, uniqueItems: true }),
    ),
  },
  { ...closed, description: 'one of rsa, ec, ed25519 and mlDsa', minProperties: 1, maxProperties: 1 },
)

const Attribute = Type.Object(
  {
    from: Type.Optional(Type.Literal('csr', { description: 'csr' })),
    match: Type.Optional(Texts),
    fixed: Type.Optional(Texts),
    required: Type.Optional(Type.Boolean()),
    orName: Type.Optional(Type.Boolean()),
    max: Type.Optional(Count),
  },
  closed,
)

const Attributes = Type.Object(
  {
    ...(Object.fromEntries(attributeTypes.map((type) => [type, Type.Optional(Attribute)])) as Record<
      (typeof attributeTypes)[number],
      TOptional<typeof Attribute>
    >),
    others: Type.Enum(['refuse', 'drop']),
  },
  closed,
)

const kind = { allow: Patterns, deny: Type.Optional(Patterns), max: Type.Optional(Count) }

const Names = Type.Object(
  {
    dns: Type.Optional(
      Type.Object(
        {
          ...kind,
          wildcards: Type.Optional(Type.Boolean()),
          underscores: Type.Optional(Type.Boolean()),
          internationalized: Type.Optional(Type.Boolean()),
        },
        closed,
      ),
    ),
    ip: Type.Optional(Type.Object(kind, closed)),
    uri: Type.Optional(Type.Object(kind, closed)),
    email: Type.Optional(Type.Object(kind, closed)),
    max: Type.Optional(Count),
    require: Type.Optional(Type.Array(Type.Enum(['dns', 'ip', 'uri', 'email']), { minItems: 1, uniqueItems: true })),
  },
  closed,
)

const Source = Type.Object(
  {
    of: Type.String({
      pattern: '^(commonName|principal|origin\\.[a-zA-Z][a-zA-Z0-9]{0,62})$',
      description: 'commonName, principal or origin.<fact>',
    }),
    after: Type.Optional(Text),
  },
  closed,
)

const Binding = Type.Object(
  {
    id: Id,
    names: Type.Enum(['commonName', 'dns', 'ip', 'uri', 'email']),
    equals: Type.Optional(Source),
    firstLabel: Type.Optional(Source),
    leadingLabels: Type.Optional(Source),
    matches: Type.Optional(Texts),
    when: Type.Optional(Type.Literal('origin', { description: 'origin' })),
  },
  closed,
)

const Rule = Type.Object({ id: Id, expression: Text, message: Text }, closed)

const Renewal = Type.Object(
  {
    within: Duration,
    key: Type.Optional(Type.Enum(['new', 'same', 'any'])),
    grace: Type.Optional(Duration),
    grant: Type.Optional(Type.Boolean()),
  },
  closed,
)

export const ProfileDocumentSchema = Type.Object(
  {
    name: Id,
    description: Type.Optional(Text),
    authority: Id,
    validity: Type.Object(
      {
        default: Duration,
        max: Duration,
        over: Type.Optional(Type.Enum(['refuse', 'shorten'])),
        backdate: Type.Optional(Duration),
      },
      closed,
    ),
    keys: Type.Array(Key, { minItems: 1, maxItems: 10, description: 'a list of 1 to 10 kinds of key' }),
    subject: Attributes,
    names: Type.Optional(Names),
    keyUsage: Type.Array(Type.Enum([...leafKeyUsages]), { minItems: 1, uniqueItems: true }),
    extendedKeyUsage: Type.Array(Text, {
      minItems: 1,
      maxItems: 20,
      uniqueItems: true,
      description: 'a list of 1 to 20 usages',
    }),
    revocation: Type.Union(
      [Type.Literal('none'), Type.Array(Type.Enum(['crl', 'ocsp']), { minItems: 1, uniqueItems: true })],
      { description: 'none, or a list of crl and ocsp' },
    ),
    renewal: Type.Optional(Renewal),
    approvals: Type.Optional(
      Type.Object(
        {
          required: Type.Integer({ minimum: 1, maximum: 10, description: 'a whole number within 1 and 10' }),
          expires: Type.Optional(Duration),
        },
        closed,
      ),
    ),
    origin: Type.Optional(OriginRulesSchema),
    bind: Type.Optional(Type.Array(Binding, { maxItems: 100 })),
    rules: Type.Optional(Type.Array(Rule, { maxItems: 100 })),
  },
  { ...closed, description: 'a profile document' },
)

export type ProfileDocument = DeepReadonly<Static<typeof ProfileDocumentSchema>>
export type AttributeDocument = DeepReadonly<Static<typeof Attribute>>
export type BindingDocument = DeepReadonly<Static<typeof Binding>>
export type SourceDocument = DeepReadonly<Static<typeof Source>>
export type KeyDocument = DeepReadonly<Static<typeof Key>>

/** How long a request waits for its approvals where the profile does not say: somebody may sleep meanwhile. */
export const standardExpiry = '24h'

/** Sizes of RSA keys in bits; null where the type is the size. */
export type KeyBounds = { readonly min: number; readonly max: number } | null

export const listOf = (value: string | readonly string[]): readonly string[] =>
  typeof value === 'string' ? [value] : value

/** Every algorithm that the entries allow, once for each entry that does. */
export const keysOf = (entries: readonly KeyDocument[]): readonly (readonly [KeyAlgorithmId, KeyBounds])[] =>
  entries.flatMap((entry) => [
    ...(entry.rsa === undefined ? [] : [['rsa', entry.rsa] as const]),
    ...(entry.ec ?? []).map((curve) => [curves[curve], null] as const),
    ...(entry.ed25519 === undefined ? [] : [['ed25519', null] as const]),
    ...(entry.mlDsa ?? []).map((set) => [latticeSets[set], null] as const),
  ])

const curves = { 'P-256': 'ec-p256', 'P-384': 'ec-p384', 'P-521': 'ec-p521' } as const
const latticeSets = { 'ML-DSA-44': 'ml-dsa-44', 'ML-DSA-65': 'ml-dsa-65', 'ML-DSA-87': 'ml-dsa-87' } as const
