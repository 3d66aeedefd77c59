/** Requests that people must approve: what they are asked for, and what they say. */
import type { FastifyReply } from 'fastify'

import { type ApprovalRequest, requestStates } from '../../ca/approvals/request.ts'
import { closed, type Static, Type } from '../../lib/schema.ts'
import { callerOf, everyRole } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { columnsOf } from './csv.ts'
import { listTypes, pageOf, sendPage } from './page.ts'
import * as asked from './request-examples.ts'
import {
  ById,
  formed,
  Label,
  named,
  OriginView,
  PageQuery,
  Pem,
  PrincipalName,
  ProfileReference,
  pageOfRows,
  Serial,
  Sha256,
  Time,
  Uuid,
} from './schemas.ts'
import { pemsOf } from './views.ts'

const Texts = Type.Array(Type.String())

const PlanView = Type.Object(
  {
    authority: Label,
    extendedKeyUsage: Texts,
    issuer: Label,
    key: { ...Sha256, description: 'SHA-256 of the SubjectPublicKeyInfo' },
    keyType: Type.String(),
    keyUsage: Texts,
    names: Type.Array(Type.Object({ kind: Type.String(), value: Type.String() }, closed)),
    origin: Type.Optional(OriginView),
    profile: Type.Object({ ...ProfileReference.properties, sha256: Sha256 }, closed),
    revocation: Type.Union([Type.Literal('none'), Texts]),
    subject: Type.Array(Type.Object({ type: Type.String(), value: Type.String() }, closed)),
    validity: Type.Integer({ description: 'seconds, both ends included' }),
  },
  {
    ...named('Plan'),
    description: 'what would be issued, all but its serial and the moment at which it begins',
  },
)

const requestFields = {
  id: Uuid,
  state: Type.Enum([...requestStates], {
    description: 'approved: by all who must; it is being issued, or will be when what keeps it is mended',
  }),
  principal: { ...PrincipalName, description: 'who asked' },
  profile: ProfileReference,
  plan: PlanView,
  digest: { ...Sha256, description: 'of the plan as canonical JSON (RFC 8785): what is approved' },
  required: Type.Integer({ description: 'how many must approve it' }),
  approvals: Type.Array(
    Type.Object(
      { principal: PrincipalName, at: Time, reason: Type.String(), index: Type.Integer() },
      { ...closed, description: 'index: place of the event on the roll' },
    ),
  ),
  createdAt: Time,
  expiresAt: Time,
  index: Type.Integer({ description: 'place of the request on the roll' }),
  end: Type.Union([
    Type.Object(
      {
        at: Time,
        by: Type.Union([PrincipalName, Type.Null()], { description: 'who rejected or withdrew it' }),
        code: Type.Union([Type.String(), Type.Null()], { description: 'why it failed' }),
        reason: Type.Union([Type.String(), Type.Null()]),
      },
      closed,
    ),
    Type.Null(),
  ]),
  serial: Type.Union([Serial, Type.Null()], { description: 'of the certificate that it has become' }),
  obstacle: Type.Union(
    [
      Type.Object(
        {
          at: Time,
          code: Type.String({ description: 'of the problem' }),
          detail: Type.String(),
          tryAt: Type.Union([Time, Type.Null()], { description: 'when it is tried again; null: not any more' }),
        },
        closed,
      ),
      Type.Null(),
    ],
    { description: 'what has kept it from being issued, though it is approved, at the last try' },
  ),
}

export const RequestView = Type.Object(requestFields, named('ApprovalRequest'))

const columns = columnsOf(Object.keys(requestFields))

const RequestWithCertificate = Type.Object(
  { ...requestFields, certificate: Type.Optional(Pem), chain: Type.Optional(Type.Array(Pem)) },
  named('ReadRequest'),
)

const Reason = formed(
  'must have no control characters, none that turn a line around or end it, no halves of characters',
  {
    minLength: 1,
    maxLength: 500,
    // As it stands on the roll.
    pattern: '^[^\\u0000-\\u001F\\u007F-\\u009F\\u061C\\u200E\\u200F\\u2028-\\u202E\\u2066-\\u2069\\uD800-\\uDFFF]+$',
    description: 'why, for those who read the roll',
  },
)

const DecisionBody = Type.Object(
  { digest: { ...Sha256, description: 'of the plan that you have looked at' }, reason: Reason },
  named('ApprovalDecision', asked.approvalDecision),
)

const WithdrawalBody = Type.Object({ reason: Reason }, named('Withdrawal', asked.withdrawal))

const tags = ['approvals']
const path = '/v1/requests'

export const requestRoutes = (app: App, deps: HttpDeps): void => {
  readingRoutes(app, deps)
  decidingRoute(app, deps, 'approval')
  decidingRoute(app, deps, 'rejection')
  withdrawalRoute(app, deps)
}

const readingRoutes = (app: App, { approvals, records, clock }: HttpDeps): void => {
  app.get(
    path,
    {
      config: {
        access: everyRole,
        offers: listTypes,
        columns,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable', 'overload.queue'],
      },
      schema: {
        operationId: 'listRequests',
        summary: 'List requests that people must approve, newest first',
        description:
          'Your own, and those of the profiles that you approve; all of them for an auditor, operator or administrator.',
        tags,
        querystring: Type.Object(
          {
            state: Type.Optional(Type.Enum([...requestStates])),
            profile: Type.Optional(Label),
            ...PageQuery,
          },
          closed,
        ),
        response: { 200: pageOfRows(RequestView) },
      },
    },
    async (request, reply) => {
      const { state, profile } = request.query
      const filter = { ...(state !== undefined && { state }), ...(profile !== undefined && { profile }) }
      const found = approvals.list(callerOf(request), filter, pageOf(request.query))
      const { items, ...rest } = await withinDeadline(found)
      return sendPage(request, reply as FastifyReply, { items: items.map(requestView), columns, ...rest })
    },
  )

  app.get(
    `${path}/:id`,
    {
      config: { access: everyRole, problems: ['approval.not_found'], tells: { 'Retry-After': [200] } },
      schema: {
        operationId: 'readRequest',
        summary: 'Read a request, and the certificate that it has become',
        description:
          'Your own, or one of the profiles that you approve, or any for an auditor, operator or administrator; any other does not exist for you. With the plan and its digest, which an approval names.',
        tags,
        params: ById,
        response: { 200: RequestWithCertificate },
      },
    },
    async (request, reply) => {
      const found = await approvals.read(callerOf(request), request.params.id)
      reply.headers(waitOf(found, clock()))
      if (found.serial === null) return requestView(found)
      return { ...requestView(found), ...pemsOf(await records.certificate(found.serial)) }
    },
  )
}

const decisions = {
  approval: {
    operationId: 'approveRequest',
    summary: 'Approve a request',
    description:
      'Exactly the plan with this digest. By the last approval that it takes the policy decides again, as things are then: the very plan is issued, or the request fails (`approval.plan`) and nothing is.',
    act: 'approve',
  },
  rejection: {
    operationId: 'rejectRequest',
    summary: 'Reject a request',
    description:
      'For good, also after having approved it, until it is being issued: whoever asked may ask again, under another Idempotency-Key.',
    act: 'reject',
  },
} as const

const decidingRoute = (app: App, { approvals }: HttpDeps, kind: keyof typeof decisions): void => {
  const { act, ...told } = decisions[kind]
  app.post(
    `${path}/:id/${kind}`,
    {
      config: {
        access: ['approver'],
        accepts: ['application/json'],
        ownDeadline: true,
        problems: [
          'approval.not_found',
          'approval.own',
          'approval.twice',
          'approval.closed',
          'approval.expired',
          'approval.plan',
          'clock.skewed',
        ],
      },
      schema: { ...told, tags, params: ById, body: DecisionBody, response: { 200: RequestView } },
    },
    async (request) => {
      const caller = callerOf(request)
      return requestView(await withinDeadline(approvals[act](caller, request.params.id, request.body)))
    },
  )
}

/** When it is worth asking again (RFC 9110 10.2.3): the longer people have taken already, the more seldom. */
export const waitOf = ({ state, createdAt }: ApprovalRequest, now: Date): Readonly<Record<string, string>> => {
  if (state !== 'pending' && state !== 'approved') return {}
  const age = (now.getTime() - createdAt.getTime()) / 1_000
  return { 'retry-after': String(Math.min(Math.max(Math.ceil(age / 10), 1), longestWait)) }
}

/** By whoever asked, whatever it may do by now: so it is open to everybody. */
const withdrawalRoute = (app: App, { approvals }: HttpDeps): void => {
  app.post(
    `${path}/:id/withdrawal`,
    {
      config: {
        access: everyRole,
        accepts: ['application/json'],
        ownDeadline: true,
        problems: ['approval.not_found', 'approval.not_own', 'approval.closed', 'approval.expired', 'clock.skewed'],
      },
      schema: {
        operationId: 'withdrawRequest',
        summary: 'Withdraw your own request',
        description: 'For good, until it is being issued: what you ask next needs another Idempotency-Key.',
        tags,
        params: ById,
        body: WithdrawalBody,
        response: { 200: RequestView },
      },
    },
    async (request) => {
      const { id } = request.params
      return requestView(await withinDeadline(approvals.withdraw(callerOf(request), id, request.body.reason)))
    },
  )
}

export const requestView = ({
  end,
  obstacle,
  createdAt,
  expiresAt,
  ...request
}: ApprovalRequest): Static<typeof RequestView> => ({
  id: request.id,
  state: request.state,
  principal: request.principal,
  profile: request.profile,
  plan: request.plan as unknown as Static<typeof PlanView>,
  digest: request.digest,
  required: request.required,
  approvals: request.approvals.map(({ at, ...approval }) => ({ ...approval, at: at.toISOString() })),
  createdAt: createdAt.toISOString(),
  expiresAt: expiresAt.toISOString(),
  index: request.index,
  end: end && { ...end, at: end.at.toISOString() },
  serial: request.serial,
  obstacle: obstacle && {
    ...obstacle,
    at: obstacle.at.toISOString(),
    tryAt: obstacle.tryAt?.toISOString() ?? null,
  },
})

/** Seconds. */
const longestWait = 10
