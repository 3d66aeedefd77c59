/** Renewing a certificate by holding it, and when that is best done. */
import { hash } from 'node:crypto'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Caller } from '../../ca/access/access.ts'
import { heldBy } from '../../ca/issuance/holders.ts'
import type { IssueInput } from '../../ca/issuance/issuance.ts'
import { renewalReasons } from '../../ca/issuance/renewal-info.ts'
import { Problem } from '../../errors.ts'
import { closed, type Static, Type } from '../../lib/schema.ts'
import { askingCaller, callerOf, readers } from '../auth.ts'
import { sendFresh } from '../conditional.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { negotiate } from '../media.ts'
import { readAsk } from './ask.ts'
import {
  assertInBody,
  assertMayRead,
  certificateTypes,
  issueAtOnce,
  issuingProblems,
  rawTypes,
  recordEarlyRefusal,
  sendIssued,
  singleHeader,
} from './certificates.ts'
import * as asked from './request-examples.ts'
import { Ask, BySerial, Duration, IssuedCertificate, named, Serial, Time } from './schemas.ts'
import { parseSerial } from './views.ts'

const RenewalAsk = Type.Object(
  { csr: Ask.properties.csr, validity: Type.Optional(Duration) },
  named('RenewalRequest', asked.renewal),
)

const RenewalQuery = Type.Object(
  { validity: Type.Optional({ ...Duration, description: 'with a raw body: how long' }) },
  closed,
)

const RenewalInfoView = Type.Object(
  {
    suggestedWindow: Type.Object({ start: Time, end: Time }, closed),
    serial: Serial,
    reason: Type.Enum([...renewalReasons], { description: 'why then; `age`: it is time, and nothing else' }),
  },
  {
    ...named('RenewalInfo'),
    description:
      'as in RFC 9773: choose one moment within the window by chance, and renew then; at once if it has passed. Ask again after Retry-After.',
  },
)

export const renewalRoutes = (app: App, deps: HttpDeps): void => {
  app.post(
    '/v1/certificates/:serial/renewal',
    {
      config: {
        access: { holderOr: [] },
        accepts: ['application/json', ...rawTypes],
        offers: certificateTypes,
        problems: [
          ...issuingProblems,
          'request.not_acceptable',
          'approval.required',
          'renewal.forbidden',
          'renewal.issuer',
          'renewal.ended',
          'renewal.key',
          'renewal.names',
        ],
        tooLarge: 'csr.too_large',
        queued: true,
        ownDeadline: true,
        headers: {
          'Idempotency-Key': 'Makes retries safe, as for POST /v1/certificates; each certificate has keys of its own.',
        },
        tells: { Location: [201] },
      },
      schema: {
        operationId: 'renewCertificate',
        summary: 'Renew a certificate by holding it',
        description:
          'Over mutual TLS with that very certificate, and no other credentials: for the same names, by the profile as it is today, in the name of the principal that it was issued to. The profile must have `renewal`.',
        tags: ['certificates'],
        params: BySerial,
        querystring: RenewalQuery,
        body: RenewalAsk,
        response: { 201: { ...IssuedCertificate, description: 'Issued' } },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, certificateTypes)
      const caller = callerOf(request)
      const input = await readOrRefuse(deps, caller, request)
      const issued = await withinDeadline(issueAtOnce(deps, askingCaller(deps.identities, request), input))
      return sendIssued(request, reply as FastifyReply, { type, issued }) as never
    },
  )

  app.get(
    '/v1/certificates/:serial/renewal-info',
    {
      config: {
        access: { holderOr: ['requester', ...readers] },
        problems: ['certificate.not_found'],
        headers: { 'If-None-Match': 'the ETag of what is known already: then 304, if nothing has changed' },
        tells: { 'Retry-After': [200, 304] },
      },
      schema: {
        operationId: 'readRenewalInfo',
        summary: 'When a certificate is best renewed',
        description:
          'For whoever may read the certificate, and for itself over mutual TLS, whatever it is for, expired or revoked. The window has passed where the certificate is revoked or about to be, its key was compromised, or its issuer has ended.',
        tags: ['certificates'],
        params: BySerial,
        response: { 200: RenewalInfoView },
      },
    },
    async (request, reply) => {
      const info = await deps.renewalInfos(parseSerial(request.params.serial))
      assertMayRead(callerOf(request), info)
      const { serial, reason, window } = info
      const octets = Buffer.from(
        JSON.stringify({
          suggestedWindow: { start: window.start.toISOString(), end: window.end.toISOString() },
          serial,
          reason,
        }),
      )
      reply.header('retry-after', String(info.retryAfter))
      return sendFresh(request, reply as FastifyReply, {
        octets,
        type: 'application/json',
        tag: `"${hash('sha256', octets).slice(0, 32)}"`,
        // It may be asked for again before anything was to be expected; then it is looked at again.
        cacheControl: 'private, no-cache',
      }) as never
    },
  )
}

/** What ends here is a refusal like any other. */
const readOrRefuse = async (
  deps: HttpDeps,
  caller: Caller,
  request: FastifyRequest<{ Body: Static<typeof RenewalAsk>; Querystring: Static<typeof RenewalQuery> }>,
): Promise<IssueInput> => {
  const { body, query, headers } = request
  const held = heldBy(caller)
  if (!held) throw new Problem('auth.forbidden', 'This call is for whoever shows the certificate itself.')
  const mediaType = headers['content-type']?.toLowerCase() ?? ''
  const isJson = mediaType.startsWith('application/json')
  if (isJson) assertInBody(query)
  const { profile } = held
  try {
    const isRaw = mediaType === 'application/pkcs10'
    return readAsk({ ...body, profile }, isRaw, singleHeader(headers['idempotency-key']))
  } catch (error) {
    await recordEarlyRefusal(deps, caller, { profile, sent: Buffer.from(body.csr, isJson ? 'utf8' : 'latin1') }, error)
    throw error
  }
}
