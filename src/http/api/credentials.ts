/** Which client certificates are whose. */

import type { Credential, CredentialMatch } from '../../ca/access/access.ts'
import { isProblem, Problem } from '../../errors.ts'
import { type TSchema, Type } from '../../lib/schema.ts'
import { tags as derTags, openDer } from '../../x509/der.ts'
import { parseName } from '../../x509/names.ts'
import { decodeBase64 } from '../../x509/pem.ts'
import { parseSubject } from '../../x509/subject.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { assertNotOwn, endRoute, HoldingLabel, listRoute, NullableTime, OfPrincipal, tags } from './holdings.ts'
import * as asked from './request-examples.ts'
import { ById, formed, named, PrincipalName, Time, Uuid } from './schemas.ts'
import { timeOrNull } from './views.ts'

const nameDer = (description: string) => Type.String({ minLength: 4, maxLength: 2732, description })

const matchFields = {
  fingerprint: Type.String({
    pattern: '^[0-9a-f]{64}$',
    maxLength: 64,
    description: 'SHA-256 of one certificate in DER, in lower-case hexadecimal',
  }),
  spiffeId: formed('must be a URI that begins with spiffe://', {
    pattern: '^spiffe://',
    maxLength: 2048,
    description: 'the only URI of each certificate',
  }),
  subject: nameDer('base64 of the subject of each certificate, in DER'),
  issuer: nameDer('base64 of the issuer in each certificate, in DER'),
}

const orNull = <T extends TSchema>(shape: T) => Type.Union([shape, Type.Null()])

const CredentialView = Type.Object(
  {
    id: Uuid,
    principal: PrincipalName,
    label: Type.String(),
    fingerprint: orNull(matchFields.fingerprint),
    spiffeId: orNull(matchFields.spiffeId),
    subject: orNull(matchFields.subject),
    issuer: orNull(matchFields.issuer),
    createdAt: Time,
    createdBy: Type.String(),
    revokedAt: NullableTime,
  },
  named('Credential'),
)

const NewCredentialBody = Type.Object(
  {
    principal: PrincipalName,
    label: HoldingLabel,
    fingerprint: Type.Optional(matchFields.fingerprint),
    spiffeId: Type.Optional(matchFields.spiffeId),
    subject: Type.Optional(matchFields.subject),
    issuer: Type.Optional(matchFields.issuer),
  },
  named('NewCredential', asked.newCredential),
)

export const credentialRoutes = (app: App, { access }: HttpDeps): void => {
  app.post(
    '/v1/credentials',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['state.exists', 'principal.disabled', 'state.reserved', 'principal.not_found'],
      },
      schema: {
        operationId: 'createCredential',
        summary: 'Tie client certificates to a principal',
        description:
          'One certificate by its fingerprint, those with one SPIFFE id, or those with one subject and issuer. They count where a CA has signed them that is trusted for clients. Idempotent: what is tied to the principal already is answered as it is.',
        tags,
        body: NewCredentialBody,
        response: {
          200: { ...CredentialView, description: 'Tied already: nothing has changed' },
          201: { ...CredentialView, description: 'Tied' },
        },
      },
    },
    async (request, reply) => {
      const { principal, label, ...written } = request.body
      assertNotOwn(principal)
      const by = callerOf(request).principal
      const { credential, created } = await access.createCredential({ principal, label, match: matchOf(written) }, by)
      reply.code(created ? 201 : 200)
      return credentialView(credential)
    },
  )

  listRoute(app, '/v1/credentials', {
    operationId: 'listCredentials',
    summary: 'List credentials',
    description: 'By principal, the oldest first, those that were untied as well.',
    querystring: OfPrincipal,
    row: CredentialView,
    rows: async (principal) => (await access.listCredentials(principal)).map(credentialView),
  })

  endRoute(app, '/v1/credentials/:id', {
    operationId: 'revokeCredential',
    summary: 'Untie client certificates',
    description:
      'They stop working within two seconds on every replica, also on connections that are open. Idempotent.',
    params: ById,
    problems: ['credential.not_found'],
    end: (id, by) => access.revokeCredential(id, by),
  })
}

interface Written {
  readonly fingerprint?: string
  readonly spiffeId?: string
  readonly subject?: string
  readonly issuer?: string
}

const matchOf = ({ fingerprint, spiffeId, subject, issuer }: Written): CredentialMatch => {
  const given = [fingerprint, spiffeId, subject ?? issuer].filter((one) => one !== undefined)
  if (given.length !== 1) throw malformed('', 'must have exactly one of fingerprint, spiffeId, and subject with issuer')
  if (fingerprint !== undefined) return { kind: 'fingerprint', sha256: Buffer.from(fingerprint, 'hex') }
  if (spiffeId !== undefined) return { kind: 'spiffe', id: readAs('/spiffeId', () => readSpiffeId(spiffeId)) }
  if (subject === undefined || issuer === undefined) throw malformed('', 'must have subject and issuer, not one alone')
  return {
    kind: 'subject',
    subject: readAs('/subject', () => readSubjectDer(subject)),
    issuer: readAs('/issuer', () => readNameDer(issuer)),
  }
}

/** As it stands in a certificate: what is written otherwise would match none. */
const readSpiffeId = (text: string): string => {
  const { value } = parseName('uri', text)
  if (value !== text) throw new Problem('request.malformed', `is written ${value}`)
  return value
}

/** Without attributes it would be that of every certificate that has no subject. */
const readSubjectDer = (base64: string): Buffer => {
  const der = readNameDer(base64)
  if (parseSubject(der).length === 0) throw new Problem('request.malformed', 'is empty')
  return der
}

const readNameDer = (base64: string): Buffer => {
  const der = decodeBase64(base64)
  const reader = openDer(der, 'request.malformed')
  reader.read(derTags.sequence, 'Name')
  reader.finish('Name')
  return der
}

const readAs = <T>(field: string, read: () => T): T => {
  try {
    return read()
  } catch (error) {
    if (isProblem(error)) throw malformed(field, error.options.violations?.[0]?.reason ?? error.detail)
    throw error
  }
}

const malformed = (field: string, reason: string): Problem =>
  new Problem('request.malformed', 'The credential does not say which certificates it means.', {
    violations: [{ check: 'credential.match', field, value: '', reason }],
  })

const credentialView = ({ id, principal, label, match, createdAt, createdBy, revokedAt }: Credential) => ({
  id,
  principal,
  label,
  fingerprint: match.kind === 'fingerprint' ? match.sha256.toString('hex') : null,
  spiffeId: match.kind === 'spiffe' ? match.id : null,
  subject: match.kind === 'subject' ? match.subject.toString('base64') : null,
  issuer: match.kind === 'subject' ? match.issuer.toString('base64') : null,
  createdAt: createdAt.toISOString(),
  createdBy,
  revokedAt: timeOrNull(revokedAt),
})
