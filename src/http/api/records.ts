/** What auditors read beside certificates: refusals, and the events of the roll. */
import type { FastifyReply } from 'fastify'

import type { EventRecord, RefusalRecord } from '../../ca/records.ts'
import { problems } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { entryForms } from '../../tlog/forms.ts'
import type { App } from '../fastify.ts'
import { sentenceOf } from '../problem.ts'
import { columnsOf } from './csv.ts'
import { listTypes } from './page.ts'
import {
  Check,
  formed,
  Index,
  KeptFrom,
  Label,
  named,
  OriginView,
  PrincipalName,
  pageOfFound,
  RollSearchQuery,
  SearchQuery,
  SerialText,
  Sha256,
  Time,
  Uuid,
  Violation,
} from './schemas.ts'
import { answerSearch, type SearchDeps } from './search.ts'
import { assertSpan, type Known, parseKnown, parseSerial, spanOf } from './views.ts'

const Code = formed('must be two words in lower case with a dot between them', {
  pattern: '^[a-z]+[.][a-z0-9_]+$',
  maxLength: 64,
  examples: ['san.forbidden'],
})

const types: Known = { what: 'type of entry', words: entryForms, where: 'docs/roll.md' }
const codes: Known = { what: 'code of a problem', words: problems, where: 'docs/errors.md' }

/** A principal, or who worked at the machine itself (`os:ops`). */
const Actor = Type.String({ minLength: 1, maxLength: 256, examples: ['ci/deploy'] })

const digestText =
  'SHA-256 of the DER of the request; where it was turned down before that was read, of `csr` as it was sent (docs/auditing.md)'

const RefusalView = Type.Object(
  {
    id: Uuid,
    at: Time,
    principal: Type.String(),
    profile: Type.Union([Type.String(), Type.Null()]),
    code: Code,
    detail: Type.String(),
    digest: { ...Sha256, description: digestText },
    offset: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()], {
      description: 'where reading stopped, in octets, as the problem told; null where it told none',
    }),
    violations: Type.Array(Violation),
    checks: Type.Union([Type.Array(Check), Type.Null()], {
      description: 'what each check said, as a dry run tells it; null where no decision was made',
    }),
    checksLeftOut: Type.Integer({
      minimum: 0,
      description:
        'how many checks were not kept, so that a refusal stays small, and of one without checks how many violations; those that failed are kept first',
    }),
    origin: Type.Union([OriginView, Type.Null()], { description: 'on whose behalf it was asked for' }),
  },
  named('Refusal'),
)

const Counted = Type.Optional(
  Type.Integer({
    minimum: 0,
    examples: [0],
    description:
      'on the first page: how many more of that principal, or of all, were turned down in these minutes and are counted only, whatever they asked for; absent where that could not be told in two seconds',
  }),
)

export const EventView = Type.Object(
  {
    index: Type.Integer(),
    leafHash: Sha256,
    entry: Type.String({ description: 'the exact octets of the entry: JSON by RFC 8785' }),
  },
  named('Event'),
)

const refusalColumns = columnsOf([
  ...['id', 'at', 'principal', 'profile', 'code', 'detail', 'digest', 'offset', 'violations', 'checks'],
  ...['checksLeftOut', 'origin'],
])

const eventColumns = columnsOf(['index', 'leafHash', 'entry'])

export const recordRoutes = (app: App, deps: SearchDeps): void => {
  refusalRoute(app, deps)
  eventRoute(app, deps)
}

const refusalRoute = (app: App, deps: SearchDeps): void => {
  app.get(
    '/v1/refusals',
    {
      config: {
        access: ['auditor', 'operator', 'admin'],
        offers: listTypes,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable', 'overload.queue'],
      },
      schema: {
        operationId: 'listRefusals',
        summary: 'List what was turned down, newest first',
        description:
          'Requests to issue and to renew that are not to be sent again as they are; docs/auditing.md says what is not kept. As NDJSON and CSV without `limit` and `cursor`: everything, as docs/auditing.md tells.',
        tags: ['records'],
        querystring: Type.Object(
          {
            principal: Type.Optional(PrincipalName),
            profile: Type.Optional(Label),
            code: Type.Optional({ ...Code, description: 'one of docs/errors.md' }),
            digest: Type.Optional({ ...Sha256, description: digestText }),
            after: Type.Optional({ ...Time, description: 'since then' }),
            before: Type.Optional({ ...Time, description: 'before then' }),
            ...SearchQuery,
          },
          closed,
        ),
        response: { 200: pageOfFound(RefusalView, { counted: Counted, keptFrom: KeptFrom }) },
      },
    },
    async (request, reply) => {
      const { principal, profile, code, digest, after, before } = request.query
      const filter = {
        ...(principal !== undefined && { principal }),
        ...(profile !== undefined && { profile }),
        ...(code !== undefined && { code: parseKnown(code, codes, '/code') }),
        ...(digest !== undefined && { digest }),
        ...spanOf(after, before),
      }
      return answerSearch(deps, request, reply as FastifyReply, {
        records: 'refusals',
        filter,
        open: deps.records.walk.refusals,
        view: refusalView,
        columns: refusalColumns,
        // What comes while an export is sent is in none of its rows, and none of its counts.
        beside: async ({ before }) => ({
          keptFrom: (await deps.records.keptFrom('refusals')).toISOString(),
          counted: await deps.records.refusalsCounted({ ...filter, before: new Date(before) }),
        }),
      })
    },
  )
}

const eventRoute = (app: App, deps: SearchDeps): void => {
  app.get(
    '/v1/events',
    {
      config: {
        access: ['auditor', 'admin'],
        offers: listTypes,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable', 'overload.queue'],
      },
      schema: {
        operationId: 'listEvents',
        summary: 'List the events of the roll, oldest first',
        description: 'As NDJSON and CSV without `limit` and `cursor`: everything, as docs/auditing.md tells.',
        tags: ['records'],
        querystring: Type.Object(
          {
            type: Type.Optional({ ...Code, description: 'one of docs/roll.md', examples: ['certificate.issued'] }),
            serial: Type.Optional(SerialText),
            principal: Type.Optional({ ...Actor, description: 'whom it names, or who did it' }),
            by: Type.Optional({ ...Actor, description: 'who did it' }),
            after: Type.Optional({ ...Time, description: 'since then' }),
            before: Type.Optional({ ...Time, description: 'before then' }),
            fromIndex: Type.Optional({ ...Index, description: 'from this place on' }),
            beforeIndex: Type.Optional({ ...Index, description: 'before this place' }),
            ...RollSearchQuery,
          },
          closed,
        ),
        response: { 200: pageOfFound(EventView) },
      },
    },
    async (request, reply) => {
      const { type, serial, principal, by, after, before, fromIndex, beforeIndex } = request.query
      const filter = {
        ...(type !== undefined && { type: parseKnown(type, types, '/type') }),
        ...(serial !== undefined && { serial: parseSerial(serial) }),
        ...(principal !== undefined && { principal }),
        ...(by !== undefined && { by }),
        ...spanOf(after, before),
        ...(fromIndex !== undefined && { fromIndex: Number(fromIndex) }),
        ...(beforeIndex !== undefined && { beforeIndex: Number(beforeIndex) }),
      }
      assertSpan(['/fromIndex', filter.fromIndex], ['/beforeIndex', filter.beforeIndex])
      return answerSearch(deps, request, reply as FastifyReply, {
        records: 'events',
        filter,
        open: deps.records.walk.events,
        view: eventView,
        columns: eventColumns,
      })
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
  offset: told.offset,
  violations: told.violations,
  checks: told.checks,
  checksLeftOut: told.checksLeftOut,
  origin: told.origin,
})

const eventView = ({ index, leafHash, entry }: EventRecord) => ({ index, leafHash, entry })
