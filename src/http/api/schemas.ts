/** Shapes that several calls share. Every string and array is bounded; unknown fields are errors. */

import { roles } from '../../ca/access/access.ts'
import { issuerStates } from '../../ca/records.ts'
import { revocationReasons } from '../../ca/revocation/revoke.ts'
import { closed, type TSchema, type TStringOptions, Type } from '../../lib/schema.ts'
import { OriginSchema } from '../../policy/origin-schema.ts'
import { keyUsages } from '../../x509/extensions.ts'
import * as asked from './request-examples.ts'

/** A shape that the description gives a name, under which it stands once, and an answer's example. */
export const named = (title: string, example?: object) => ({
  ...closed,
  title,
  ...(example !== undefined && { examples: [example] }),
})

/** What a problem says of a text that has not the form of its shape. */
const words = new Map<string, string>()
/** By the form's pattern. */
export const formWords: ReadonlyMap<string, string> = words

/** A text of a form that a problem names by its words: nobody is answered with a regular expression. */
export const formed = (told: string, options: { readonly pattern: string } & TStringOptions) => {
  words.set(options.pattern, told)
  return Type.String(options)
}

/** What a text of a form stands for, where that is a number. */
const numbers = new Map<string, Span>()
/** By the form's pattern. */
export const formNumbers: ReadonlyMap<string, Span> = numbers

interface Span {
  readonly minimum: number
  readonly maximum: number
}

/** A whole number in decimal, as a query or a path has it: a text, since nothing coerces what comes. The pattern says the span, too. */
export const wholeNumber = (told: string, { minimum, maximum }: Span, options: Parameters<typeof formed>[1]) => {
  numbers.set(options.pattern, { minimum, maximum })
  return formed(told, { maxLength: String(maximum).length, ...options })
}

const labelForm = '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'
export const isLabel = (value: unknown): value is string =>
  typeof value === 'string' && new RegExp(labelForm).test(value)
export const Label = formed(
  'must be 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit',
  {
    pattern: labelForm,
    maxLength: 63,
    examples: ['server'],
    description: '1 to 63 lower-case letters, digits and hyphens',
  },
)
export const PrincipalName = formed('must be letters, digits and . _ : @ / -, and begin with a letter or digit', {
  pattern: '^[A-Za-z0-9][A-Za-z0-9._:@/-]*$',
  maxLength: 128,
  examples: ['ci/deploy'],
  description: '1 to 128 letters, digits and . _ : @ / -',
})
export const Uuid = formed('must be a UUID in lower case', {
  pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$',
  maxLength: 36,
  examples: ['0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e'],
})
export const ById = Type.Object({ id: Uuid }, closed)
/** As it is written: upper case and colons are welcome. `parseSerial` makes it one. */
export const SerialText = formed('must be 32 hexadecimal digits, in pairs that may be separated by colons', {
  pattern: '^([0-9A-Fa-f]{2}:?){15}[0-9A-Fa-f]{2}$',
  maxLength: 47,
  examples: ['4f0c2e9a7b6d1583a2c4e6f8091b3d57'],
  description: '32 hexadecimal digits; upper case and colons are accepted',
})
export const BySerial = Type.Object({ serial: SerialText }, closed)
/** Any certificate of a row of renewals. */
export const RowText = {
  ...SerialText,
  description: 'the serial of a certificate: itself, and all that it was renewed from and to',
}
export const Serial = Type.String({ pattern: '^[0-9a-f]{32}$', examples: ['4f0c2e9a7b6d1583a2c4e6f8091b3d57'] })
export const Sha256 = formed('must be 64 lower-case hexadecimal digits', {
  pattern: '^[0-9a-f]{64}$',
  maxLength: 64,
  description: 'SHA-256 in lower-case hexadecimal',
})
export const Duration = formed('must be a whole number with a unit, as 300s, 5m, 24h or 30d', {
  pattern: '^[1-9][0-9]{0,9}[smhd]$',
  maxLength: 11,
  examples: ['24h'],
  description: 'a whole number with a unit: 300s, 5m, 24h or 30d',
})
export const timeWords =
  'must be a time that exists, with its offset, T and Z in upper case, as 2026-11-25T08:00:00Z (RFC 3339; in a query a + is %2B)'
export const Time = formed(timeWords, {
  pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$',
  maxLength: 40,
  format: 'date-time',
  examples: ['2026-11-25T08:00:00Z'],
  description: 'RFC 3339, T and Z in upper case',
})
export const Index = wholeNumber(
  'must be a whole number',
  { minimum: 0, maximum: 999_999_999_999_999 },
  {
    pattern: '^(0|[1-9][0-9]{0,14})$',
    examples: ['1041'],
    description: 'a place on the roll',
  },
)
export const Role = Type.Enum([...roles], { description: 'what the principal may act as' })
/** With a type: items of none are compared each with every other, which takes a quarter of a second for 8,000. */
const Usage = Type.Enum([...keyUsages], { type: 'string' })
const ExtendedUsage = formed('must be a name such as serverAuth, or a dotted OID', {
  pattern: '^[A-Za-z0-9.]{1,64}$',
  maxLength: 64,
  examples: ['serverAuth'],
  description: 'a name such as serverAuth, or a dotted OID',
})

const NameText = Type.String({ minLength: 1, maxLength: 2048 })
const NameTexts = Type.Array(NameText, { minItems: 1, maxItems: 100 })

export const AskedNames = Type.Object(
  {
    dns: Type.Optional(NameTexts),
    ip: Type.Optional(NameTexts),
    uri: Type.Optional(NameTexts),
    email: Type.Optional(NameTexts),
  },
  {
    ...named('RequestedNames'),
    description: 'replaces the names in the request as a whole; the same rules judge them',
  },
)

export const OriginView = Type.Object(OriginSchema.properties, {
  ...named('Origin'),
  minProperties: 1,
  description: 'on whose behalf: what a controller says of the user, namespace and object in its cluster',
})

/** What records can be searched by, of those on whose behalf somebody has asked. */
export const OriginSearch = {
  originNamespace: Type.Optional({ ...OriginSchema.properties.namespace, description: 'on behalf of this namespace' }),
  originUser: Type.Optional({ ...OriginSchema.properties.user, description: 'on behalf of this user' }),
  originObject: Type.Optional(Type.String({ minLength: 1, maxLength: 128, description: 'for the object of this UID' })),
}

/** One request to issue. */
export const Ask = Type.Object(
  {
    csr: Type.String({ maxLength: 65_536, description: 'one PEM CERTIFICATE REQUEST block (RFC 7468)' }),
    profile: Label,
    validity: Type.Optional(Duration),
    names: Type.Optional(AskedNames),
    keyUsage: Type.Optional(Type.Array(Usage, { maxItems: 9, uniqueItems: true })),
    extendedKeyUsage: Type.Optional(Type.Array(ExtendedUsage, { maxItems: 20, uniqueItems: true })),
    onBehalfOf: Type.Optional(OriginView),
  },
  named('Request', asked.request),
)

const Note = Type.Object({ field: Type.String(), reason: Type.String() }, named('Note'))
export const Violation = Type.Object(
  { check: Type.String(), field: Type.String(), value: Type.String(), reason: Type.String() },
  named('Violation'),
)
export const Check = Type.Object(
  {
    check: Type.String(),
    outcome: Type.Enum(['passed', 'failed', 'skipped']),
    field: Type.String(),
    value: Type.String(),
    reason: Type.String(),
  },
  named('Check'),
)
const ReachedLimit = Type.Object(
  {
    name: Type.String({ description: 'as grants and settings have it' }),
    value: Type.Integer({ description: 'how much it allows' }),
    freesAt: Type.Optional({
      ...Time,
      description: 'when there may be room again; absent where the request never fits',
    }),
  },
  { ...named('ReachedLimit'), description: 'which limit is reached' },
)

/** RFC 9457, with members of our own; some problems have more. */
export const ProblemView = Type.Object(
  {
    type: Type.String({ description: 'where the code is described, relative to the API' }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String(),
    code: Type.String({ description: 'stable; what programs should look at' }),
    retryable: Type.Boolean({ description: 'may the same request succeed later without being changed?' }),
    retryAfter: Type.Optional(Type.Integer({ description: 'seconds, as in Retry-After' })),
    offset: Type.Optional(Type.Integer({ description: 'octets into the decoded input, where a parser stopped' })),
    violations: Type.Optional(Type.Array(Violation)),
    checks: Type.Optional(Type.Array(Check, { description: 'every check of a refused request, with its outcome' })),
    notes: Type.Optional(Type.Array(Note, { description: 'what was dropped or shortened' })),
    limit: Type.Optional(ReachedLimit),
    issuer: Type.Optional(
      Type.String({
        description: 'with `revocation.proof`: whose the certificate is, told to who has signed by its key',
      }),
    ),
    next: Type.String({ description: 'what to do' }),
    requestId: Type.String({ description: 'what to tell the operator' }),
  },
  { title: 'Problem', additionalProperties: true },
)

export const ProfileReference = Type.Object(
  { name: Label, version: Type.Integer({ minimum: 1 }) },
  named('ProfileReference'),
)
export const RevocationView = Type.Object(
  {
    reason: Type.Enum([...revocationReasons], { description: 'RFC 5280 5.3.1' }),
    revokedAt: { ...Time, description: 'since when, whatever was changed later' },
    invalidityDate: Type.Optional({ ...Time, description: 'since when the key may have been in wrong hands' }),
    by: Type.Union([PrincipalName, Type.Null()], { description: 'who did it; null: whoever proved to hold its key' }),
    index: Type.Integer({ description: 'place of the event on the roll' }),
  },
  named('Revocation'),
)

export const IssuerState = Type.Enum([...issuerStates])

export const Pem = Type.String({
  description: 'one PEM CERTIFICATE block',
})

export const IssuedCertificate = Type.Object(
  {
    serial: Serial,
    certificate: Pem,
    chain: Type.Array(Pem, { description: 'issuers above the certificate, without the root' }),
    profile: ProfileReference,
    issuer: Label,
    notBefore: Time,
    notAfter: Time,
    index: Type.Integer({ description: 'place on the roll' }),
    leafHash: Sha256,
    proof: Type.String({
      description:
        'that the entry is on the roll (c2sp.org/tlog-proof): with a signed checkpoint, to be verified offline with the key of the roll',
    }),
    notes: Type.Array(Note, { description: 'what was dropped or shortened' }),
    replayed: Type.Boolean({ description: 'true where an earlier call under this Idempotency-Key got it first' }),
  },
  named('IssuedCertificate'),
)

/** Of a decision, where somebody would have to approve what comes of it. */
const NeededApprovals = Type.Object(
  { required: Type.Integer({ minimum: 1 }), expires: Duration },
  { ...named('NeededApprovals'), description: 'how many people would have to approve it, and within which time' },
)

export const Decision = Type.Object(
  {
    allowed: Type.Boolean(),
    checks: Type.Array(Check),
    violations: Type.Array(Violation),
    notes: Type.Array(Note),
    authority: Type.String({ description: 'whose issuers sign by the profile' }),
    tbs: Type.Optional(
      Type.String({ description: 'the TBSCertificate that would be signed, DER in base64; never signed' }),
    ),
    approvals: Type.Optional(NeededApprovals),
  },
  named('Decision'),
)

export const PageQuery = {
  limit: Type.Optional(
    wholeNumber(
      'must be a whole number from 1 to 1000',
      { minimum: 1, maximum: 1_000 },
      {
        pattern: '^([1-9][0-9]{0,2}|1000)$',
        description: '1 to 1000; 100 by default',
      },
    ),
  ),
  cursor: Type.Optional(
    formed('must be `next` of the page before', {
      pattern: '^[A-Za-z0-9_=.-]+$',
      maxLength: 1024,
      description: '`next` of the page before',
    }),
  ),
}

/** What a search takes beside its filters. */
export const SearchQuery = {
  ...PageQuery,
  count: Type.Optional(
    Type.Enum(['true', 'false'], {
      description: 'true: also how many there are, exactly or by estimate; in JSON only',
    }),
  ),
}

/** And one of what is on the roll. */
export const RollSearchQuery = {
  ...SearchQuery,
  at: Type.Optional({
    ...Index,
    description: 'a size of the roll: answers as it would have then; by default, the size that it has',
  }),
}

const BoundTo = Type.Object(
  {
    size: Type.Integer({ minimum: 0, description: 'of the roll: as `at` has it, or as it was at `time`' }),
    time: { ...Time, description: 'as of when certificates have expired' },
  },
  {
    ...named('BoundTo'),
    description:
      'what was on a roll of this size is found, whatever has come since; of what is not on it, what is from before this time',
  },
)

export const pageOfFound = <Row extends TSchema>(row: Row, beside: Readonly<Record<string, TSchema>> = {}) =>
  Type.Object(
    {
      ...beside,
      items: Type.Array(row),
      next: Type.Optional(Type.String()),
      count: Type.Optional(
        Type.Object(
          { rows: Type.Integer({ minimum: 0 }), exact: Type.Boolean({ description: 'false: an estimate' }) },
          named('Count'),
        ),
      ),
      boundTo: BoundTo,
    },
    {
      ...closed,
      description: 'A page. It may be shorter than its limit, even empty, and have a next one all the same.',
    },
  )

/** Of records that are not kept for ever. */
export const KeptFrom = Type.Optional({
  ...Time,
  description:
    'on the first page: what came before is past retention and gone, whatever `after` says; absent where that could not be told in two seconds',
})

export const pageOfRows = <Row extends TSchema>(row: Row) =>
  Type.Object({ items: Type.Array(row), next: Type.Optional(Type.String()) }, closed)
