/** Certificates: issue, explain, read, search. */

import type { FastifyReply, FastifyRequest } from 'fastify'

import { type Caller, grantsToAsk, requesterGrants } from '../../ca/access/access.ts'
import type { Issued, IssueInput, Waiting } from '../../ca/issuance/issuance.ts'
import { refusalOf } from '../../ca/issuance/rejection.ts'
import type { CertificateRecord, EventRecord } from '../../ca/records.ts'
import { isProblem, Problem, type ProblemCode } from '../../errors.ts'
import { closed, type Static, Type } from '../../lib/schema.ts'
import { type Origin, readOrigin } from '../../policy/origin.ts'
import { encodeProof } from '../../tlog/proof.ts'
import { askingCaller, callerOf, readers, readsAll } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { rollProblems } from '../log.ts'
import { negotiate } from '../media.ts'
import { type AskBody, readAsk } from './ask.ts'
import { FoundCertificate, searchRoute } from './certificate-search.ts'
import { EventView } from './records.ts'
import { RequestView, requestView, waitOf } from './requests.ts'
import { Ask, Decision, Duration, IssuedCertificate, Label, named, Pem, Serial, SerialText } from './schemas.ts'
import type { SearchDeps } from './search.ts'
import { type CertificateAndChain, chainPem, issuedView, parseSerial, pemsOf, recordView } from './views.ts'

/** What issuing can be refused for, one certificate or many. */
export const issuingProblems = [
  'csr.pem',
  'csr.key_material',
  'csr.der',
  'csr.version',
  'csr.attribute',
  'csr.sig_alg',
  'csr.pop',
  'csr.too_large',
  'key.encoding',
  'key.unsupported',
  'key.type',
  'key.size',
  'key.weak',
  'key.blocked',
  'key.in_use',
  'subject.syntax',
  'subject.forbidden',
  'san.syntax',
  'san.ip_as_dns',
  'san.duplicate',
  'san.count',
  'san.empty',
  'san.type',
  'san.forbidden',
  'san.required',
  'ext.syntax',
  'ext.duplicate',
  'ext.forbidden',
  'ext.usage',
  'validity.forbidden',
  'validity.issuer',
  'policy.bind',
  'policy.rule',
  'policy.origin',
  'origin.forbidden',
  'policy.lint',
  'profile.not_found',
  'idempotency.key',
  'idempotency.reused',
  'request.in_progress',
  'issuance.abandoned',
  'limit.certificates_per_day',
  'limit.names_per_day',
  'limit.names',
  'limit.certificates_alive',
  'overload.queue',
  'key.unavailable',
  'key.bad_signature',
  'clock.skewed',
  'roll.unanchored',
  'issuer.none_active',
  'issuer.expired',
] as const satisfies readonly ProblemCode[]

export const certificateTypes = [
  'application/json',
  'application/pem-certificate-chain',
  'application/pkix-cert',
] as const
export const rawTypes = ['application/pkcs10', 'application/x-pem-file'] as const
/** Where it may be asked on behalf of others: a renewal is not. */
export const originProblems = ['origin.malformed', 'origin.required'] as const satisfies readonly ProblemCode[]
/** Where people must approve what a profile yields. */
export const waitingProblems = [
  'approval.rejected',
  'approval.withdrawn',
  'approval.expired',
  'approval.failed',
  'approval.too_many',
] as const satisfies readonly ProblemCode[]

const IssueQuery = Type.Object(
  {
    dryRun: Type.Optional(
      Type.Enum(['true', 'false'], {
        description: 'true: decide and tell, but issue nothing',
      }),
    ),
    profile: Type.Optional({ ...Label, description: 'with a raw body: which profile' }),
    validity: Type.Optional({ ...Duration, description: 'with a raw body: how long' }),
  },
  closed,
)

const StoredCertificate = Type.Object(
  { ...FoundCertificate.properties, certificate: Pem, chain: Type.Array(Pem) },
  named('Certificate'),
)

const CertificateProof = Type.Object(
  {
    serial: Serial,
    ...EventView.properties,
    index: IssuedCertificate.properties.index,
    proof: IssuedCertificate.properties.proof,
  },
  named('CertificateProof'),
)

export const certificateRoutes = (app: App, deps: SearchDeps): void => {
  const { issuance, records } = deps

  app.post(
    '/v1/certificates',
    {
      config: {
        access: ['requester'],
        accepts: ['application/json', ...rawTypes],
        offers: certificateTypes,
        problems: [...issuingProblems, ...originProblems, ...waitingProblems, 'request.not_acceptable'],
        tooLarge: 'csr.too_large',
        queued: true,
        ownDeadline: true,
        headers: {
          'Idempotency-Key':
            'Makes retries safe: under one key, at most one certificate is ever issued to you. 1 to 128 visible ASCII characters.',
        },
        tells: { Location: [201, 202], 'Retry-After': [202] },
      },
      schema: {
        operationId: 'issueCertificate',
        summary: 'Issue a certificate',
        description:
          'Answers after the certificate is on the roll. Where the profile wants approvals, answers 202 with the request that waits for them: the same call under the same Idempotency-Key gets the certificate when it is there. With `dryRun=true`, decides and tells every check, and issues and records nothing.',
        tags: ['certificates'],
        querystring: IssueQuery,
        body: Ask,
        response: {
          200: { ...Decision, description: 'The decision of a dry run, allowed or not' },
          201: { ...IssuedCertificate, description: 'Issued' },
          202: { ...RequestView, description: 'Nothing is issued yet: people must approve it first' },
        },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, certificateTypes)
      const caller = callerOf(request)
      const input = await readOrRefuse(deps, caller, request)
      if (request.query.dryRun === 'true') return decisionView(await withinDeadline(issuance.explain(caller, input)))
      const issued = await withinDeadline(issueCounted(deps, askingCaller(deps.identities, request), input))
      if ('waiting' in issued) {
        const { waiting } = issued
        reply.code(202).header('location', `/v1/requests/${waiting.id}`).headers(waitOf(waiting, deps.clock()))
        return requestView(waiting) as never
      }
      return sendIssued(request, reply as FastifyReply, { type, issued }) as never
    },
  )

  searchRoute(app, deps)

  app.get(
    '/v1/certificates/:serial',
    {
      config: {
        access: ['requester', ...readers],
        offers: certificateTypes,
        problems: ['certificate.not_found', 'request.not_acceptable'],
      },
      schema: {
        operationId: 'readCertificate',
        summary: 'Read one certificate',
        description:
          'With its chain, and its revocation where there is one. A requester reads its own; for others it does not exist.',
        tags: ['certificates'],
        params: Type.Object({ serial: SerialText }, closed),
        response: { 200: StoredCertificate },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, certificateTypes)
      const record = await records.certificate(parseSerial(request.params.serial))
      assertMayRead(callerOf(request), record)
      if (type !== 'application/json') return (reply as FastifyReply).type(type).send(encodeCertificate(type, record))
      return { ...recordView(record), ...pemsOf(record) }
    },
  )
}

/** Beside the certificate itself, so that whoever has it can show that it is on the roll. */
export const proofRoutes = (app: App, { records, checkpoints }: HttpDeps): void => {
  app.get(
    '/v1/certificates/:serial/proof',
    {
      config: {
        access: ['requester', ...readers],
        problems: ['certificate.not_found', ...rollProblems],
      },
      schema: {
        operationId: 'readProof',
        summary: 'The proof that a certificate is on the roll',
        description:
          'Against the newest checkpoint: as the answer of its issuance had it, and as long. With the entry that it is about, which has the certificate in it.',
        tags: ['certificates'],
        params: Type.Object({ serial: SerialText }, closed),
        response: { 200: CertificateProof },
      },
    },
    async (request) => {
      const record = await records.certificate(parseSerial(request.params.serial))
      assertMayRead(callerOf(request), record)
      const { serial, index } = record
      const { items } = await records.events({ fromIndex: index, beforeIndex: index + 1 }, { limit: 1 })
      const [event] = items as readonly [EventRecord]
      return { serial, ...event, proof: encodeProof(await checkpoints.proofAt(index)) }
    },
  )
}

/** Answers with the certificate, in the form that was asked for. */
export const sendIssued = async (
  request: Pick<FastifyRequest, 'issuedAt'>,
  reply: FastifyReply,
  { type, issued }: { readonly type: CertificateType; readonly issued: Issued },
): Promise<FastifyReply> => {
  request.issuedAt = performance.now()
  const body = type === 'application/json' ? JSON.stringify(issuedView(issued)) : encodeCertificate(type, issued)
  await endOfTurn()
  return reply
    .code(201)
    .header('location', `/v1/certificates/${issued.serial}`)
    .type(type === 'application/json' ? jsonInUtf8 : type)
    .send(body)
}

/** Throws 403 before anything of the request is looked at, unless the caller may ask so for this profile. */
export const assertMayAsk = (caller: Caller, { profile, onBehalfOf }: AskBody): void =>
  void grantsToAsk(caller, profile, onBehalfOf !== undefined)

/** Issues, or puts the request before people, and counts the ends that the cycle does not count itself. */
export const issueCounted = (deps: HttpDeps, caller: Caller, input: IssueInput): Promise<Issued | Waiting> =>
  counted(deps, input, () => deps.issuance.request(caller, input))

/** The same for whoever cannot wait for people. Throws `approval.required` where they would have to be asked. */
export const issueAtOnce = (deps: HttpDeps, caller: Caller, input: IssueInput): Promise<Issued> =>
  counted(deps, input, () => deps.issuance.issue(caller, input))

/** The ends that the cycle does not count itself: replays, and faults of ours. */
const counted = async <T extends Issued | Waiting>(
  { metrics }: HttpDeps,
  { profile }: IssueInput,
  issue: () => Promise<T>,
): Promise<T> => {
  try {
    const ended = await issue()
    if ('serial' in ended && ended.replayed) metrics.ended(profile, 'replayed')
    return ended
  } catch (error) {
    if (!isProblem(error) || error.kind.status >= 500) metrics.ended(profile, 'failed')
    throw error
  }
}

interface EarlyRefusal {
  readonly profile: string
  readonly sent: Buffer
  readonly onBehalfOf?: Origin | undefined
}

/** A request that ends before the cycle sees it, for want of a grant or of sense: kept by its digest, and counted. */
export const recordEarlyRefusal = async (
  deps: HttpDeps,
  caller: Caller,
  { profile, sent, onBehalfOf }: EarlyRefusal,
  error: unknown,
): Promise<void> => {
  if (!isProblem(error) || error.kind.status >= 500) return
  // Names of profiles that nobody granted are the caller's invention, and would be series without end.
  deps.metrics.refused(requesterGrants(caller, profile).length > 0 ? profile : '', error.code)
  const origin = onBehalfOf && readable(onBehalfOf)
  await deps.recordRefusal(refusalOf(error, { principal: caller.principal, profile, sent, origin }))
}

/** Whoever said so without a right to is kept with what he said, if that can be. */
const readable = (origin: Origin): Origin | undefined => {
  try {
    return readOrigin(origin)
  } catch {
    return undefined
  }
}

/** What ends here is a refusal like any other, unless it was only a question. */
const readOrRefuse = async (
  deps: HttpDeps,
  caller: Caller,
  request: FastifyRequest<{ Body: AskBody; Querystring: Static<typeof IssueQuery> }>,
): Promise<IssueInput> => {
  const { body, query, headers } = request
  const isJson = headers['content-type']?.toLowerCase().startsWith('application/json') === true
  if (isJson) assertInBody(query)
  const isRaw = headers['content-type']?.toLowerCase() === 'application/pkcs10'
  try {
    assertMayAsk(caller, body)
    return readAsk(body, isRaw, singleHeader(headers['idempotency-key']))
  } catch (error) {
    if (query.dryRun === 'true') throw error
    // The octets of a raw body are one character each (app.ts).
    const sent = Buffer.from(body.csr, isJson ? 'utf8' : 'latin1')
    await recordEarlyRefusal(deps, caller, { profile: body.profile, sent, onBehalfOf: body.onBehalfOf }, error)
    throw error
  }
}

/** Of what a raw body has no room for. Throws `request.malformed` where it stands beside a JSON body. */
export const assertInBody = (query: { readonly profile?: string; readonly validity?: string }): void => {
  const violations = (['profile', 'validity'] as const)
    .filter((name) => query[name] !== undefined)
    .map((name) => ({ check: 'request.query', field: `/${name}`, value: '', reason: 'belongs into a JSON body' }))
  if (violations.length > 0)
    throw new Problem('request.malformed', 'With a JSON body, profile and validity belong into the body.', {
      violations,
    })
}

export const singleHeader = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value.join(', ') : value

const decisionView = ({
  allowed,
  checks,
  violations,
  notes,
  tbs,
  authority,
  approvals,
}: Awaited<ReturnType<HttpDeps['issuance']['explain']>>) => ({
  allowed,
  checks: [...checks],
  violations: [...violations],
  notes: [...notes],
  authority,
  ...(tbs && { tbs: tbs.toString('base64') }),
  ...(approvals && { approvals: { required: approvals.required, expires: `${approvals.expires}s` } }),
})

const encodeCertificate = (
  type: Exclude<CertificateType, 'application/json'>,
  record: CertificateAndChain,
): Buffer | string => (type === 'application/pkix-cert' ? record.certificate : chainPem(record))

type CertificateType = (typeof certificateTypes)[number]

/**
 * Certificates of one transaction are answered in one turn of the event loop: all are encoded first, then all are
 * written. A client that sleeps is woken once for several answers, not for each (10 µs a certificate, measured).
 */
const endOfTurn = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve))

/** Someone else's certificate does not exist for a mere requester. */
export const assertMayRead = (caller: Caller, record: Pick<CertificateRecord, 'principal' | 'serial'>): void => {
  if (readsAll(caller) || record.principal === caller.principal) return
  throw new Problem('certificate.not_found', `There is no certificate with serial ${record.serial}.`)
}

/** As Fastify writes it of the texts that other answers are. */
const jsonInUtf8 = 'application/json; charset=utf-8'
