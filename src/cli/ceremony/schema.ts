/** The parameters of each ceremony, as they are written. A `description` says what a value must be; faults quote it. */
import { closed, type Static, type TOptional, Type } from '../../lib/schema.ts'
import { type KeyAlgorithmId, keyAlgorithms } from '../../x509/algorithms.ts'
import { type CrlReason, crlReasons } from '../../x509/crl.ts'
import { type AttributeType, attributes } from '../../x509/subject.ts'

const Text = Type.String({ minLength: 1, maxLength: 1024, description: 'a text of 1 to 1024 characters' })
const Path = Type.String({ minLength: 1, maxLength: 1024, description: 'the path of a file' })
const Moment = Type.String({
  pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$',
  description: 'a moment in UTC: 2026-12-01T00:00:00Z',
})
const Days = Type.Integer({ minimum: 1, maximum: 36_500, description: 'a whole number of days within 1 and 36500' })
const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$', description: 'a SHA-256 in 64 lower-case hex digits' })
const Bits = Type.Enum([3072, 4096])
const Algorithm = Type.Enum(Object.keys(keyAlgorithms) as KeyAlgorithmId[])
const Url = Type.String({
  // A CRL or certificate behind TLS could need itself to be fetched (RFC 5280 8).
  pattern: '^http://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/[!-~]*$',
  maxLength: 1024,
  description: 'an http:// URL with a path',
})

const where = {
  /** `file:` with a path, or `pkcs11:` (RFC 7512). */
  uri: Text,
  passphraseFile: Type.Optional(Path),
  module: Type.Optional(Path),
  pinFile: Type.Optional(Path),
}
const NewKey = Type.Object(
  { ...where, algorithm: Algorithm, bits: Type.Optional(Bits), existing: Type.Optional(Type.Boolean()) },
  closed,
)
const Key = Type.Object(where, closed)

const Subject = Type.Object(
  Object.fromEntries((Object.keys(attributes) as AttributeType[]).map((type) => [type, Type.Optional(Text)])) as Record<
    AttributeType,
    TOptional<typeof Text>
  >,
  { ...closed, minProperties: 1 },
)

const Names = Type.Array(Type.String({ maxLength: 253 }), {
  minItems: 1,
  maxItems: 100,
  uniqueItems: true,
  description: 'a list of 1 to 100 names',
})
const Subtrees = Type.Object(
  {
    dns: Type.Optional(Names),
    ip: Type.Optional(Names),
    email: Type.Optional(Names),
    uri: Type.Optional(Names),
  },
  closed,
)
const Constraints = Type.Object({ permitted: Type.Optional(Subtrees), excluded: Type.Optional(Subtrees) }, closed)

const Span = Type.Object(
  { notBefore: Type.Optional(Moment), notAfter: Type.Optional(Moment), days: Type.Optional(Days) },
  closed,
)
const Updates = Type.Object(
  { thisUpdate: Type.Optional(Moment), nextUpdate: Type.Optional(Moment), days: Type.Optional(Days) },
  closed,
)
const Urls = Type.Object({ crl: Type.Optional(Url), issuer: Type.Optional(Url) }, closed)

const Revoked = Type.Object(
  {
    serial: Type.String({
      pattern: '^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){0,19}$',
      description: 'a serial in hex, in quotes so that YAML does not take it for a number',
    }),
    at: Moment,
    reason: Type.Enum(
      (Object.keys(crlReasons) as CrlReason[]).filter((one) => one !== 'certificateHold' && one !== 'removeFromCRL'),
    ),
    invalidSince: Type.Optional(Moment),
  },
  closed,
)

const common = {
  operators: Type.Array(Text, {
    minItems: 1,
    maxItems: 20,
    uniqueItems: true,
    description: 'a list of 1 to 20 people',
  }),
}
const ceremony = <K extends string>(kind: K) => Type.Literal(kind, { description: `${kind}, for this ceremony` })
const below = {
  validity: Span,
  nameConstraints: Type.Optional(Constraints),
  urls: Type.Optional(Urls),
}

export const schemas = {
  root: Type.Object(
    {
      ceremony: ceremony('root'),
      ...common,
      key: NewKey,
      subject: Subject,
      validity: Span,
      pathLength: Type.Optional(Type.Literal(1, { description: '1, or left out' })),
      nameConstraints: Type.Optional(Constraints),
      output: Type.Object({ certificate: Path, transcript: Path }, closed),
    },
    { ...closed, description: 'a map of parameters' },
  ),
  sign: Type.Object(
    {
      ceremony: ceremony('sign'),
      ...common,
      key: Key,
      root: Path,
      request: Type.Object(
        { algorithm: Algorithm, bits: Type.Optional(Bits), publicKeySha256: Type.Optional(Sha256) },
        closed,
      ),
      subject: Subject,
      ...below,
      output: Type.Object({ certificate: Path, chain: Path, transcript: Path }, closed),
    },
    { ...closed, description: 'a map of parameters' },
  ),
  crl: Type.Object(
    {
      ceremony: ceremony('crl'),
      ...common,
      key: Key,
      root: Path,
      number: Type.Integer({
        minimum: 1,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'a whole number from 1 on, higher than that of the previous CRL',
      }),
      previous: Type.String({
        minLength: 1,
        maxLength: 1024,
        description: 'the path of the last CRL, or none where there was none',
      }),
      validity: Updates,
      revoked: Type.Array(Revoked, { maxItems: 10_000, description: 'a list, empty where nothing is revoked' }),
      output: Type.Object({ crl: Path, transcript: Path }, closed),
    },
    { ...closed, description: 'a map of parameters' },
  ),
  cross: Type.Object(
    {
      ceremony: ceremony('cross'),
      ...common,
      key: Key,
      root: Path,
      other: Type.Optional(Type.Object({ certificateSha256: Sha256 }, closed)),
      ...below,
      output: Type.Object({ certificate: Path, transcript: Path }, closed),
    },
    { ...closed, description: 'a map of parameters' },
  ),
} as const

export type Documents = { readonly [K in keyof typeof schemas]: Static<(typeof schemas)[K]> }
export type CrlDocument = Documents['crl']
export type KeyDocument = Static<typeof Key> & Partial<Static<typeof NewKey>>
export type SubjectDocument = Readonly<Record<string, string>>
export type SpanDocument = Static<typeof Span>
export type ConstraintsDocument = Static<typeof Constraints>
