/** Certificates: issue, explain, read, search. */

import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'

import { type Caller, requesterGrants, ungranted } from '../../ca/access.ts'
import type { Issued, IssueInput } from '../../ca/issuance.ts'
import type { Policies } from '../../ca/policies.ts'
import type { CertificateFilter, CertificateRecord } from '../../ca/records.ts'
import { refusalOf } from '../../ca/refusal.ts'
import { isProblem, Problem, type ProblemCode } from '../../errors.ts'
import type { App } from '../app.ts'
import { callerOf, readers, readsAll } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import { negotiate } from '../media.ts'
import { rollProblems } from '../roll.ts'
import { type AskBody, readAsk } from './ask.ts'
import { columnsOf } from './csv.ts'
import * as examples from './examples.ts'
import { listTypes } from './page.ts'
import {
  Ask,
  closed,
  Decision,
  Duration,
  IssuedCertificate,
  Label,
  named,
  Pem,
  PrincipalName,
  ProfileReference,
  pageOfFound,
  RevocationView,
  SearchQuery,
  Serial,
  SerialText,
  Sha256,
  Time,
} from './schemas.ts'
import { answerSearch, type SearchDeps } from './search.ts'
import { type CertificateAndChain, chainPem, issuedView, parseSerial, parseTime, pemsOf, recordView } from './views.ts'

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
  'policy.lint',
  'profile.not_found',
  'idempotency.key',
  'idempotency.reused',
  'request.in_progress',
  'issuance.abandoned',
  'overload.queue',
  'key.unavailable',
  'key.bad_signature',
  'clock.skewed',
  'roll.unanchored',
  'issuer.none_active',
] as const satisfies readonly ProblemCode[]

const certificateTypes = ['application/json', 'application/pem-certificate-chain', 'application/pkix-cert'] as const
const rawTypes = ['application/pkcs10', 'application/x-pem-file'] as const

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

const Status = Type.Enum(['valid', 'expired', 'revoked'])

const Filter = Type.Object(
  {
    serial: Type.Optional(SerialText),
    name: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        description: 'an exact name, or *.suffix for every DNS name below it',
      }),
    ),
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 4096, description: 'exact, as RFC 4514 writes it' })),
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
    ...SearchQuery,
  },
  closed,
)

const FoundCertificate = Type.Object(
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
  },
  named('FoundCertificate', examples.found),
)

const StoredCertificate = Type.Object(
  { ...FoundCertificate.properties, certificate: Pem, chain: Type.Array(Pem) },
  named('Certificate', examples.certificate),
)

const CertificateProof = Type.Object(
  { serial: Serial, index: IssuedCertificate.properties.index, proof: IssuedCertificate.properties.proof },
  named('CertificateProof', examples.certificateProof),
)

/** Of CSV: what a certificate has in other members is laid out flat. */
const columns = columnsOf(
  [
    ...['serial', 'status', 'subject', 'names', 'profile', 'profileVersion', 'principal', 'issuer', 'keySha256'],
    ...['notBefore', 'notAfter', 'issuedAt', 'index'],
    ...['reason', 'revokedAt', 'invalidityDate', 'revokedBy', 'revocationIndex'],
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

export const certificateRoutes = (app: App, deps: SearchDeps): void => {
  const { issuance, policies, records } = deps

  app.post(
    '/v1/certificates',
    {
      config: {
        access: ['requester'],
        accepts: ['application/json', ...rawTypes],
        offers: certificateTypes,
        problems: [...issuingProblems, 'request.not_acceptable'],
        tooLarge: 'csr.too_large',
        queued: true,
        ownDeadline: true,
        headers: {
          'Idempotency-Key':
            'Makes retries safe: under one key, at most one certificate is ever issued to you. 1 to 128 visible ASCII characters.',
        },
      },
      schema: {
        operationId: 'issueCertificate',
        summary: 'Issue a certificate',
        description:
          'Answers after the certificate is on the roll. With `dryRun=true`, decides and tells every check, and issues and records nothing.',
        tags: ['certificates'],
        querystring: IssueQuery,
        body: Ask,
        response: {
          200: { ...Decision, description: 'The decision of a dry run, allowed or not' },
          201: { ...IssuedCertificate, description: 'Issued' },
        },
      },
    },
    async (request, reply) => {
      const type = negotiate(request.headers.accept, certificateTypes)
      const caller = callerOf(request)
      const input = await readOrRefuse(deps, caller, request)
      if (request.query.dryRun === 'true') return decisionView(await withinDeadline(issuance.explain(caller, input)))
      const issued = await withinDeadline(issueCounted(deps, caller, input))
      request.issuedAt = performance.now()
      const body = type === 'application/json' ? JSON.stringify(issuedView(issued)) : encodeCertificate(type, issued)
      await endOfTurn()
      return reply
        .code(201)
        .header('location', `/v1/certificates/${issued.serial}`)
        .type(type)
        .send(body as never)
    },
  )

  app.get(
    '/v1/certificates',
    {
      config: {
        access: ['requester', ...readers],
        offers: listTypes,
        ownDeadline: true,
        exports: { records: 'certificates', columns },
        problems: ['request.cursor', 'request.not_acceptable', 'profile.not_found', 'overload.queue'],
      },
      schema: {
        operationId: 'searchCertificates',
        summary: 'Search certificates',
        description:
          'Newest first; below a suffix in the order of the names, and by expiry or a status of valid or expired in that of expiry. A requester finds its own; auditors, operators and administrators find all, and are told when a profile has never existed. As NDJSON and CSV without `limit` and `cursor`: everything, as docs/auditing.md tells.',
        tags: ['certificates'],
        querystring: Filter,
        response: { 200: pageOfFound(FoundCertificate) },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request)
      const filter = filterOf(request.query, caller)
      if (filter.profile !== undefined && readsAll(caller)) await assertProfile(policies, filter.profile)
      const open = records.walk.certificates
      return answerSearch(deps, request, reply as FastifyReply, {
        records: 'certificates',
        filter,
        open,
        view: recordView,
        columns,
      })
    },
  )

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
        description: 'Against the newest checkpoint: as the answer of its issuance had it, and as long.',
        tags: ['certificates'],
        params: Type.Object({ serial: SerialText }, closed),
        response: { 200: CertificateProof },
      },
    },
    async (request) => {
      const record = await records.certificate(parseSerial(request.params.serial))
      assertMayRead(callerOf(request), record)
      return { serial: record.serial, index: record.index, proof: await checkpoints.proofAt(record.index) }
    },
  )
}

/** Throws 403 before anything of the request is looked at, unless the caller may ask for this profile. */
export const assertMayAsk = (caller: Caller, profile: string): void => {
  if (requesterGrants(caller, profile).length > 0) return
  throw new Problem('auth.forbidden', ungranted(caller, profile))
}

/** Issues, and counts the ends that the cycle does not count itself: replays, and faults of ours. */
export const issueCounted = async (
  { issuance, metrics }: HttpDeps,
  caller: Caller,
  input: IssueInput,
): Promise<Issued> => {
  try {
    const issued = await issuance.issue(caller, input)
    if (issued.replayed) metrics.ended(input.profile, 'replayed')
    return issued
  } catch (error) {
    if (!isProblem(error) || error.kind.status >= 500) metrics.ended(input.profile, 'failed')
    throw error
  }
}

/** A request that ends before the cycle sees it, for want of a grant or of sense: kept by its digest, and counted. */
export const recordEarlyRefusal = async (
  deps: HttpDeps,
  caller: Caller,
  { profile, sent }: { readonly profile: string; readonly sent: Buffer },
  error: unknown,
): Promise<void> => {
  if (!isProblem(error) || error.kind.status >= 500) return
  // Names of profiles that nobody granted are the caller's invention, and would be series without end.
  deps.metrics.refused(requesterGrants(caller, profile).length > 0 ? profile : '', error.code)
  await deps.recordRefusal(refusalOf(error, { principal: caller.principal, profile, sent }))
}

/** What ends here is a refusal like any other, unless it was only a question. */
const readOrRefuse = async (
  deps: HttpDeps,
  caller: Caller,
  request: FastifyRequest<{ Body: AskBody; Querystring: Static<typeof IssueQuery> }>,
): Promise<IssueInput> => {
  const { body, query, headers } = request
  const isJson = headers['content-type']?.toLowerCase().startsWith('application/json') === true
  if (isJson && (query.profile ?? query.validity) !== undefined) {
    throw new Problem('request.malformed', 'With a JSON body, profile and validity belong into the body.')
  }
  const isRaw = headers['content-type']?.toLowerCase() === 'application/pkcs10'
  try {
    assertMayAsk(caller, body.profile)
    return readAsk(body, isRaw, singleHeader(headers['idempotency-key']))
  } catch (error) {
    if (query.dryRun === 'true') throw error
    // The octets of a raw body are one character each (app.ts).
    const sent = Buffer.from(body.csr, isJson ? 'utf8' : 'latin1')
    await recordEarlyRefusal(deps, caller, { profile: body.profile, sent }, error)
    throw error
  }
}

const singleHeader = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value.join(', ') : value

const decisionView = ({
  allowed,
  checks,
  violations,
  notes,
  tbs,
}: Awaited<ReturnType<HttpDeps['issuance']['explain']>>) => ({
  allowed,
  checks: [...checks],
  violations: [...violations],
  notes: [...notes],
  ...(tbs && { tbs: tbs.toString('base64') }),
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

/**
 * Profiles are never deleted: one that does not exist never issued anything, and an auditor who mistyped its name must
 * not read that as an answer. A mere requester may not learn which profiles there are.
 */
const assertProfile = async (policies: Policies, name: string): Promise<void> => {
  if (!policies.current(name)) await policies.read(name)
}

/** Someone else's certificate does not exist for a mere requester. */
const assertMayRead = (caller: Caller, record: CertificateRecord): void => {
  if (readsAll(caller) || record.principal === caller.principal) return
  throw new Problem('certificate.not_found', `There is no certificate with serial ${record.serial}.`)
}

const filterOf = (query: Static<typeof Filter>, caller: Caller): CertificateFilter => {
  const {
    limit: _limit,
    cursor: _cursor,
    count: _count,
    at: _at,
    serial,
    issuedAfter,
    issuedBefore,
    expiresAfter,
    expiresBefore,
    revokedAfter,
    revokedBefore,
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
    ...(issuedAfter !== undefined && { issuedAfter: parseTime(issuedAfter, '/issuedAfter') }),
    ...(issuedBefore !== undefined && { issuedBefore: parseTime(issuedBefore, '/issuedBefore') }),
    ...(expiresAfter !== undefined && { expiresAfter: parseTime(expiresAfter, '/expiresAfter') }),
    ...(expiresBefore !== undefined && { expiresBefore: parseTime(expiresBefore, '/expiresBefore') }),
    ...(revokedAfter !== undefined && { revokedAfter: parseTime(revokedAfter, '/revokedAfter') }),
    ...(revokedBefore !== undefined && { revokedBefore: parseTime(revokedBefore, '/revokedBefore') }),
  }
}
