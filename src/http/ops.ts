/** For those who run it: is it alive, can it issue, what does it measure; and what each problem means. */
import type { FastifyReply } from 'fastify'

import { hasRole } from '../ca/access/access.ts'
import { Problem, problems } from '../errors.ts'
import { closed, Type } from '../lib/schema.ts'
import { named } from './api/schemas.ts'
import type { HttpDeps } from './deps.ts'
import type { App } from './fastify.ts'
import { describeProblem } from './problem.ts'

const Readiness = Type.Object(
  {
    ready: Type.Boolean(),
    checks: Type.Optional(
      Type.Array(Type.Object({ name: Type.String(), ok: Type.Boolean(), reason: Type.String() }, closed), {
        description: 'told to operators and administrators only',
      }),
    ),
  },
  named('Readiness'),
)

const ProblemKindView = Type.Object(
  {
    type: Type.String(),
    code: Type.String(),
    status: Type.Integer(),
    title: Type.String(),
    retryable: Type.Boolean(),
    next: Type.String(),
  },
  named('ProblemKind'),
)

export const opsRoutes = (app: App, { health, metrics }: HttpDeps): void => {
  app.get(
    '/livez',
    {
      config: { access: 'open', probe: true },
      schema: {
        operationId: 'live',
        summary: 'Does the event loop turn?',
        description:
          'By the loop alone, without the database: where it is not answered, the process is to be started anew. Whether it can issue is told by `/readyz`.',
        tags: ['operations'],
        response: { 200: Type.Object({ live: Type.Literal(true) }, { ...closed, examples: [{ live: true }] }) },
      },
    },
    async () => ({ live: true as const }),
  )

  app.get(
    '/readyz',
    {
      config: { access: 'optional', probe: true, outlivesDatabase: true },
      schema: {
        operationId: 'ready',
        summary: 'Can this instance issue?',
        description:
          'With a token of an operator or administrator it says what holds it up, also while the database is away, to whoever was answered within the last day.',
        tags: ['operations'],
        response: {
          200: { ...Readiness, description: 'It can' },
          503: { ...Readiness, description: 'It cannot, for now' },
        },
      },
    },
    async (request, reply) => {
      const checks = await health.ready()
      const ready = checks.every(({ ok }) => ok)
      const { caller } = request
      const told = caller !== null && (hasRole(caller, 'admin') || hasRole(caller, 'operator'))
      const view = { ready, ...(told && { checks: checks.map(({ name, ok, reason }) => ({ name, ok, reason })) }) }
      if (!ready) reply.header('retry-after', '1')
      return reply.code(ready ? 200 : 503).send(view)
    },
  )

  app.get(
    '/metrics',
    {
      config: { access: ['operator', 'auditor', 'admin'], outlivesDatabase: true },
      schema: {
        operationId: 'metrics',
        summary: 'Metrics in the Prometheus text format',
        description:
          'Give the scraper a token of a principal with the auditor role, which changes nothing. Whoever was answered within the last day is answered while the database is away.',
        tags: ['operations'],
        produces: ['text/plain'],
        response: { 200: Type.String() },
      },
    },
    async (_request, reply) => {
      metrics.checked(await health.ready())
      return (reply as FastifyReply).type(metrics.registry.contentType).send(await metrics.registry.metrics())
    },
  )

  app.get(
    '/problems/:code',
    {
      config: { access: 'open', problems: ['request.not_found'] },
      schema: {
        operationId: 'readProblem',
        summary: 'What a problem code means',
        description:
          'Where `type` of each problem leads: what it means, whether to send the same again, and what to do.',
        tags: ['operations'],
        params: Type.Object(
          { code: Type.String({ maxLength: 64, examples: Object.keys(problems).slice(0, 1) }) },
          closed,
        ),
        response: { 200: ProblemKindView },
      },
    },
    async (request) => {
      const kind = describeProblem(request.params.code)
      if (!kind) throw new Problem('request.not_found', 'There is no problem with this code.')
      return kind
    },
  )
}
