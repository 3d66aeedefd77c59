/** Revoking a certificate, and releasing one from hold. */

import { revocationReasons, type Standing } from '../../ca/revocation/revoke.ts'
import { Type } from '../../lib/schema.ts'
import { callerOf, readsAll } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import * as asked from './request-examples.ts'
import { BySerial, named, RevocationView, Serial, Sha256, Time } from './schemas.ts'
import { parseInvalidity, parseSerial, revocationView } from './views.ts'

const RevocationBody = Type.Object(
  {
    reason: Type.Enum([...revocationReasons], {
      description:
        'RFC 5280 5.3.1; `unspecified` is said by leaving the reason out of lists. Only `certificateHold` can be released, and only `keyCompromise` may replace another.',
    }),
    invalidityDate: Type.Optional({
      ...Time,
      description:
        'since when the key is known or thought to have been in wrong hands; in whole seconds, and not in the future',
    }),
  },
  named('NewRevocation', asked.revocation),
)

const RevokedView = Type.Object(
  {
    serial: Serial,
    status: Type.Enum(['valid', 'revoked']),
    keySha256: Sha256,
    revocation: Type.Optional(RevocationView),
    alsoWithKey: Type.Optional(
      Type.Array(Serial, {
        description:
          'after keyCompromise: other certificates with this key, newest first, at most 100; the search with `key` finds all. No new one will be issued for it.',
      }),
    ),
  },
  named('RevokedCertificate'),
)

const problems = [
  'certificate.not_found',
  'revocation.issuer',
  'revocation.expired',
  'revocation.state',
  'clock.skewed',
] as const

/** Of an open call that looks into the records: in the order in which others have them. */
const databaseProblems = ['overload.deadline', 'service.stopping', 'db.unavailable', 'roll.inconsistent'] as const

const tags = ['revocation']
export const revocationRoutes = (app: App, deps: HttpDeps): void => {
  const { revocations } = deps

  app.post(
    '/v1/certificates/:serial/revocation',
    {
      config: {
        access: ['requester', 'operator'],
        accepts: ['application/json'],
        ownDeadline: true,
        problems: [...problems, 'revocation.proof'],
      },
      schema: {
        operationId: 'revokeCertificate',
        summary: 'Revoke a certificate',
        description:
          'Operators revoke any; a requester its own, under a grant with `revoke`, and as keyCompromise only by `/by-key`: that reason blocks the key for every principal. Idempotent. When it is answered it is on the roll and this instance says it by OCSP; others within two seconds, and the CRL within a minute.',
        tags,
        params: BySerial,
        body: RevocationBody,
        response: { 200: { ...RevokedView, description: 'It is revoked' } },
      },
    },
    async (request) => {
      const caller = callerOf(request)
      const { reason, invalidityDate } = request.body
      const ask = { reason, invalidSince: parseInvalidity(invalidityDate) }
      const standing = await withinDeadline(revocations.revoke(parseSerial(request.params.serial), ask, caller))
      if (standing.revocation?.reason !== 'keyCompromise') return standingView(standing)
      return { ...standingView(standing), alsoWithKey: await othersOf(deps, standing, !readsAll(caller)) }
    },
  )

  app.post(
    '/v1/certificates/:serial/revocation/by-key',
    {
      config: {
        access: 'open',
        accepts: ['application/jose'],
        ownDeadline: true,
        rateLimit: { max: 20, timeWindow: 60_000 },
        problems: [...problems, 'revocation.proof', 'rate.limited', ...databaseProblems],
      },
      bodyLimit: proofBodyLimit,
      schema: {
        operationId: 'revokeCertificateByKey',
        summary: 'Revoke a certificate by its own key',
        description:
          'For whoever holds the key, and nothing else: the proof is a signature by that key, never the key. At most 20 a minute from one address.',
        tags,
        params: BySerial,
        body: Type.String({ maxLength: proofBodyLimit }),
        response: { 200: { ...RevokedView, description: 'It is revoked' } },
      },
    },
    async (request) => {
      const serial = parseSerial(request.params.serial)
      return standingView(await withinDeadline(revocations.revokeByKey(serial, request.body)))
    },
  )

  app.delete(
    '/v1/certificates/:serial/revocation',
    {
      config: { access: ['operator'], ownDeadline: true, problems: [...problems] },
      schema: {
        operationId: 'releaseCertificate',
        summary: 'Release a certificate from hold',
        description: 'Only one whose reason is certificateHold; any other revocation is for good. Idempotent.',
        tags,
        params: BySerial,
        response: { 200: { ...RevokedView, description: 'It is valid again' } },
      },
    },
    async (request) =>
      standingView(await withinDeadline(revocations.release(parseSerial(request.params.serial), callerOf(request)))),
  )
}

/** The other certificates with its key; a mere requester learns of its own only. */
const othersOf = async (
  { records }: HttpDeps,
  { keySha256, serial, principal }: Standing,
  ownOnly: boolean,
): Promise<string[]> => {
  const filter = { key: keySha256, ...(ownOnly && { principal }) }
  const { items } = await records.certificates(filter, { limit: maxOthers + 1 })
  return items
    .map((record) => record.serial)
    .filter((other) => other !== serial)
    .slice(0, maxOthers)
}

const standingView = ({ serial, keySha256, revocation }: Standing) => ({
  serial,
  status: revocation ? ('revoked' as const) : ('valid' as const),
  keySha256,
  ...(revocation && { revocation: revocationView(revocation) }),
})

const maxOthers = 100
/** Octets: a proof by an ML-DSA-87 key takes six thousand. */
const proofBodyLimit = 16 * 1024
