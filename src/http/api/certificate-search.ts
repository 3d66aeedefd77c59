/** The search for certificates. */
import type { FastifyReply } from 'fastify'

import type { Caller } from '../../ca/access/access.ts'
import type { Policies } from '../../ca/policies.ts'
import type { CertificateFilter } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import { closed, type Static, Type } from '../../lib/schema.ts'
import { callerOf, readers, readsAll } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { App } from '../fastify.ts'
import { columnsOf } from './csv.ts'
import { assertIssuer } from './issuers.ts'
import { listTypes } from './page.ts'
import {
  Label,
  named,
  OriginSearch,
  OriginView,
  PrincipalName,
  ProfileReference,
  pageOfFound,
  RevocationView,
  RollSearchQuery,
  RowText,
  Serial,
  SerialText,
  Sha256,
  Time,
} from './schemas.ts'
import { answerSearch, type SearchDeps } from './search.ts'
import { parseSerial, parseSought, parseSoughtSubject, spansOf } from './views.ts'

const Status = Type.Enum(['valid', 'expired', 'revoked'])

const Filter = Type.Object(
  {
    serial: Type.Optional(SerialText),
    row: Type.Optional(RowText),
    name: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        description:
          'an exact name, as it is or with its kind before it (dns:, ip:, uri:, email:), and of a DNS name the wildcard name that covers it as well; or *.suffix for every DNS name below it',
      }),
    ),
    subject: Type.Optional(
      Type.String({ minLength: 1, maxLength: 4096, description: 'exact, in any spelling of RFC 4514' }),
    ),
    profile: Type.Optional(Label),
    principal: Type.Optional(PrincipalName),
    issuer: Type.Optional(Label),
    status: Type.Optional(Status),
    key: Type.Optional(Sha256),
    issuedAfter: Type.Optional(Time),
    issuedBefore: Type.Optional(Time),
    expiresAfter: Type.Optional(Time),
    expiresBefore: Type.Optional(Time),
    revokedAfter: Type.Optional({ ...Time, description: 'those that are revoked, since then' }),
    revokedBefore: Type.Optional({ ...Time, description: 'those that are revoked, since before then' }),
    ...OriginSearch,
    ...RollSearchQuery,
  },
  closed,
)

export const FoundCertificate = Type.Object(
  {
    serial: Serial,
    status: Status,
    subject: Type.String(),
    names: Type.Array(Type.Object({ kind: Type.String(), value: Type.String() }, named('Name'))),
    profile: ProfileReference,
    principal: PrincipalName,
    issuer: Label,
    keySha256: Sha256,
    notBefore: Time,
    notAfter: Time,
    issuedAt: Time,
    index: Type.Integer(),
    revocation: Type.Optional(RevocationView),
    origin: Type.Optional(OriginView),
  },
  named('FoundCertificate'),
)

/** Of CSV: what a certificate has in other members is laid out flat. */
const columns = columnsOf(
  [
    ...['serial', 'status', 'subject', 'names', 'profile', 'profileVersion', 'principal', 'issuer', 'keySha256'],
    ...['notBefore', 'notAfter', 'issuedAt', 'index'],
    ...['reason', 'revokedAt', 'invalidityDate', 'revokedBy', 'revocationIndex', 'origin'],
  ],
  {
    profile: ({ profile }) => (profile as ProfileText).name,
    profileVersion: ({ profile }) => (profile as ProfileText).version,
    reason: ({ revocation }) => (revocation as RevocationText | undefined)?.reason,
    revokedAt: ({ revocation }) => (revocation as RevocationText | undefined)?.revokedAt,
    invalidityDate: ({ revocation }) => (revocation as RevocationText | undefined)?.invalidityDate,
    revokedBy: ({ revocation }) => (revocation as RevocationText | undefined)?.by,
    revocationIndex: ({ revocation }) => (revocation as RevocationText | undefined)?.index,
  },
)

type ProfileText = Static<typeof ProfileReference>
type RevocationText = Static<typeof RevocationView>

export const searchRoute = (app: App, deps: SearchDeps): void => {
  const { policies, records } = deps
  app.get(
    '/v1/certificates',
    {
      config: {
        access: ['requester', ...readers],
        offers: listTypes,
        ownDeadline: true,
        problems: [
          'request.cursor',
          'request.not_acceptable',
          'profile.not_found',
          'issuer.not_found',
          'overload.queue',
        ],
      },
      schema: {
        operationId: 'searchCertificates',
        summary: 'Search certificates',
        description:
          'Newest first; below a suffix in the order of the names, and by expiry or a status of valid or expired in that of expiry. A requester finds its own; auditors, operators and administrators find all, and are told when a profile has never existed; all are told when an issuer has not. As NDJSON and CSV without `limit` and `cursor`: everything, as docs/auditing.md tells.',
        tags: ['certificates'],
        querystring: Filter,
        response: { 200: pageOfFound(FoundCertificate) },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request)
      const filter = filterOf(request.query, caller)
      if (filter.profile !== undefined && readsAll(caller))
        await withinDeadline(assertProfile(policies, filter.profile))
      if (filter.issuer !== undefined) await withinDeadline(assertIssuer(deps, filter.issuer))
      return answerSearch(deps, request, reply as FastifyReply, {
        records: 'certificates',
        filter,
        open: records.walk.certificateTexts,
        view: (text) => JSON.parse(text),
        json: (text) => text,
        columns,
      })
    },
  )
}

/**
 * Profiles are never deleted: one that does not exist never issued anything, and an auditor who mistyped its name must
 * not read that as an answer. A mere requester may not learn which profiles there are.
 */
const assertProfile = async (policies: Policies, name: string): Promise<void> => {
  if (!policies.current(name)) await policies.read(name)
}

const filterOf = (query: Static<typeof Filter>, caller: Caller): CertificateFilter => {
  const {
    limit: _limit,
    cursor: _cursor,
    count: _count,
    at: _at,
    serial,
    row,
    name,
    subject,
    issuedAfter: _issuedAfter,
    issuedBefore: _issuedBefore,
    expiresAfter: _expiresAfter,
    expiresBefore: _expiresBefore,
    revokedAfter: _revokedAfter,
    revokedBefore: _revokedBefore,
    ...exact
  } = query
  if (!readsAll(caller) && exact.principal !== undefined && exact.principal !== caller.principal) {
    throw new Problem(
      'auth.forbidden',
      "Reading other principals' certificates needs a grant as auditor, operator or admin.",
    )
  }
  return {
    ...exact,
    ...(!readsAll(caller) && { principal: caller.principal }),
    ...(serial !== undefined && { serial: parseSerial(serial) }),
    ...(name !== undefined && { name: parseSought(name, '/name') }),
    ...(row !== undefined && { row: parseSerial(row) }),
    ...(subject !== undefined && { subject: parseSoughtSubject(subject, '/subject') }),
    ...spansOf(query, ['issued', 'expires', 'revoked']),
  }
}
