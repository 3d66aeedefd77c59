/** Who has looked at the records of others. */
import type { FastifyReply } from 'fastify'

import { type AccessRecord, acts, formats, searchable } from '../../ca/access/access-log.ts'
import { closed, Type } from '../../lib/schema.ts'
import type { App } from '../fastify.ts'
import { columnsOf } from './csv.ts'
import { listTypes } from './page.ts'
import { KeptFrom, named, PrincipalName, pageOfFound, SearchQuery, Time, Uuid } from './schemas.ts'
import { answerSearch, type SearchDeps } from './search.ts'
import { spanOf } from './views.ts'

const Act = Type.Enum([...acts], {
  description:
    'searched: got a page; began, completed, broke: an export, or a copy of the roll, whose end is a row of its own',
})
const Records = Type.Enum([...searchable])

const AccessView = Type.Object(
  {
    id: Uuid,
    at: Time,
    principal: Type.String(),
    act: Act,
    records: Records,
    filter: Type.Record(Type.String(), Type.String(), { description: 'as it was asked' }),
    continues: Type.Boolean({ description: 'went on from the page before' }),
    format: Type.Enum([...formats], { description: 'tiles: entries of the roll, by the bundle' }),
    size: Type.Integer({ description: 'of the roll that the answer is bound to' }),
    rows: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()], { description: 'null where an export began' }),
    export: Type.Union([Uuid, Type.Null()], { description: 'of the end of an export: the row that began it' }),
  },
  named('Access'),
)

const columns = columnsOf([
  ...['id', 'at', 'principal', 'act', 'records', 'filter', 'continues', 'format', 'size', 'rows', 'export'],
])

export const accessesRoutes = (app: App, deps: SearchDeps): void => {
  app.get(
    '/v1/accesses',
    {
      config: {
        access: ['auditor', 'admin'],
        offers: listTypes,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable', 'overload.queue'],
      },
      schema: {
        operationId: 'listAccesses',
        summary: 'List who has searched and exported records, newest first',
        description:
          'This call is one of them: it is in the answer of the next. As NDJSON and CSV without `limit` and `cursor`: everything, as docs/auditing.md tells.',
        tags: ['records'],
        querystring: Type.Object(
          {
            principal: Type.Optional(PrincipalName),
            act: Type.Optional(Act),
            records: Type.Optional(Records),
            after: Type.Optional({ ...Time, description: 'since then' }),
            before: Type.Optional({ ...Time, description: 'before then' }),
            ...SearchQuery,
          },
          closed,
        ),
        response: { 200: pageOfFound(AccessView, { keptFrom: KeptFrom }) },
      },
    },
    async (request, reply) => {
      const { principal, act, records, after, before } = request.query
      const filter = {
        ...(principal !== undefined && { principal }),
        ...(act !== undefined && { act }),
        ...(records !== undefined && { records }),
        ...spanOf(after, before),
      }
      return answerSearch(deps, request, reply as FastifyReply, {
        records: 'accesses',
        filter,
        open: deps.accesses.walk,
        view: accessView,
        columns,
        beside: async () => ({ keptFrom: (await deps.records.keptFrom('accesses')).toISOString() }),
      })
    },
  )
}

const accessView = (record: AccessRecord) => ({
  id: record.id,
  at: record.at.toISOString(),
  principal: record.principal,
  act: record.act,
  records: record.records,
  filter: record.filter,
  continues: record.continues,
  format: record.format,
  size: record.size,
  rows: record.rows,
  export: record.export,
})
