/** What auditors read beside certificates: refusals, and the events of the roll. */
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'

import type { EventRecord, RefusalRecord } from '../../ca/records.ts'
import type { App } from '../app.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import { sentenceOf } from '../problem.ts'
import * as examples from './examples.ts'
import { listTypes, pageOf, sendPage } from './page.ts'
import {
  Check,
  closed,
  Label,
  named,
  PageQuery,
  PrincipalName,
  pageOfRows,
  SerialText,
  Sha256,
  Time,
  Uuid,
  Violation,
} from './schemas.ts'
import { parseSerial, parseTime } from './views.ts'

const Code = Type.String({ pattern: '^[a-z]+[.][a-z0-9_]+$', maxLength: 64, examples: ['san.forbidden'] })

const RefusalView = Type.Object(
  {
    id: Uuid,
    at: Time,
    principal: Type.String(),
    profile: Type.Union([Type.String(), Type.Null()]),
    code: Code,
    detail: Type.String(),
    digest: { ...Sha256, description: 'SHA-256 of what was sent' },
    violations: Type.Array(Violation),
    checks: Type.Union([Type.Array(Check), Type.Null()], {
      description: 'what each check said, as a dry run tells it; null where no decision was made',
    }),
    checksLeftOut: Type.Integer({
      minimum: 0,
      description: 'how many checks were not kept, so that a refusal stays small; those that failed are kept first',
    }),
  },
  named('Refusal', examples.refusal),
)

const EventView = Type.Object(
  {
    index: Type.Integer(),
    leafHash: Sha256,
    entry: Type.String({ description: 'the exact octets of the entry: JSON by RFC 8785' }),
  },
  named('Event', examples.event),
)

export const recordRoutes = (app: App, { records }: HttpDeps): void => {
  app.get(
    '/v1/refusals',
    {
      config: {
        access: ['auditor', 'operator', 'admin'],
        offers: listTypes,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable'],
      },
      schema: {
        operationId: 'listRefusals',
        summary: 'List what was turned down, newest first',
        tags: ['records'],
        querystring: Type.Object(
          {
            principal: Type.Optional(PrincipalName),
            profile: Type.Optional(Label),
            code: Type.Optional(Code),
            after: Type.Optional(Time),
            before: Type.Optional(Time),
            ...PageQuery,
          },
          closed,
        ),
        response: { 200: pageOfRows(RefusalView) },
      },
    },
    async (request, reply) => {
      const { limit: _limit, cursor: _cursor, after, before, ...exact } = request.query
      const filter = {
        ...exact,
        ...(after !== undefined && { after: parseTime(after) }),
        ...(before !== undefined && { before: parseTime(before) }),
      }
      const { items, ...rest } = await withinDeadline(records.refusals(filter, pageOf(request.query)))
      return sendPage(request, reply as FastifyReply, { items: items.map(refusalView), ...rest })
    },
  )

  app.get(
    '/v1/events',
    {
      config: {
        access: ['auditor', 'admin'],
        offers: listTypes,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable'],
      },
      schema: {
        operationId: 'listEvents',
        summary: 'List the events of the roll, oldest first',
        tags: ['records'],
        querystring: Type.Object(
          {
            type: Type.Optional(Code),
            serial: Type.Optional(SerialText),
            fromIndex: Type.Optional(Type.String({ pattern: '^(0|[1-9][0-9]{0,14})$', maxLength: 15 })),
            ...PageQuery,
          },
          closed,
        ),
        response: { 200: pageOfRows(EventView) },
      },
    },
    async (request, reply) => {
      const { type, serial, fromIndex } = request.query
      const filter = {
        ...(type !== undefined && { type }),
        ...(serial !== undefined && { serial: parseSerial(serial) }),
        ...(fromIndex !== undefined && { fromIndex: Number(fromIndex) }),
      }
      const { items, ...rest } = await withinDeadline(records.events(filter, pageOf(request.query)))
      return sendPage(request, reply as FastifyReply, { items: items.map(eventView), ...rest })
    },
  )
}

const refusalView = ({ id, at, principal, profile, detail, ...told }: RefusalRecord) => ({
  id,
  at: at.toISOString(),
  principal,
  profile,
  code: told.code,
  detail: sentenceOf({ detail, ...told }),
  digest: told.digest,
  violations: told.violations,
  checks: told.checks,
  checksLeftOut: told.checksLeftOut,
})

const eventView = ({ index, leafHash, entry }: EventRecord) => ({ index, leafHash, entry })
