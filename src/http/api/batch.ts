/** Many requests in one call. Each is judged, recorded and answered as if it had come alone. */
import { setImmediate as yieldToLoop } from 'node:timers/promises'

import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'

import type { Caller } from '../../ca/access.ts'
import { isProblem } from '../../errors.ts'
import { describeError } from '../../telemetry.ts'
import type { App } from '../app.ts'
import { callerOf } from '../auth.ts'
import { batchBodyLimit, batchPath, batchTimeout } from '../bounds.ts'
import type { HttpDeps } from '../deps.ts'
import { documentOf, schemaProblem, toProblem } from '../problem.ts'
import { type AskBody, readAsk } from './ask.ts'
import { assertMayAsk, issueCounted, issuingProblems, recordUnreadable } from './certificates.ts'
import { Ask, closed, IssuedCertificate, ProblemView } from './schemas.ts'
import { issuedView } from './views.ts'

const BatchAsk = Type.Object(
  {
    ...Ask.properties,
    idempotencyKey: Type.Optional(
      Type.String({ maxLength: 128, description: 'as the Idempotency-Key of a single request' }),
    ),
  },
  closed,
)

/** The items are judged one by one, so that a malformed one fails only itself; here they are anything. */
const BatchBody = Type.Object({ items: Type.Array(Type.Unknown(), { minItems: 1, maxItems: 1_000 }) }, closed)

const BatchOutcome = Type.Union([
  Type.Object({ status: Type.Literal(201), certificate: IssuedCertificate }, closed),
  Type.Object({ status: Type.Integer({ minimum: 400, maximum: 599 }), problem: ProblemView }, closed),
])

export const batchRoutes = (app: App, deps: HttpDeps): void => {
  app.post(
    batchPath,
    {
      bodyLimit: batchBodyLimit,
      handlerTimeout: batchTimeout,
      config: {
        access: ['requester'],
        accepts: ['application/json'],
        problems: issuingProblems,
        queued: true,
        items: BatchAsk,
      },
      schema: {
        operationId: 'issueCertificates',
        summary: 'Issue up to 1,000 certificates',
        description:
          'An outcome for each item, in order; one that fails fails only itself. Give each item its own `idempotencyKey`.',
        tags: ['certificates'],
        body: BatchBody,
        response: { 200: Type.Object({ items: Type.Array(BatchOutcome) }, closed) },
      },
    },
    async (request, reply) => {
      // The answer may take longer than a connection may be silent.
      request.raw.socket.setTimeout(batchTimeout + 1_000)
      const caller = callerOf(request)
      const { items } = request.body
      const width = Math.max(1, Math.min(maxWidth, deps.limits.queue - deps.issuance.pending))
      const outcomes = await inSlices(items, width, (item) => outcomeOf(deps, caller, item, request))
      return reply
        .type('application/json')
        .serializer(String)
        .send(`{"items":[${outcomes.join(',')}]}` as never)
    },
  )
}

/** Never rejects. The text of one outcome, so that a thousand are not encoded in one turn. */
const outcomeOf = async (deps: HttpDeps, caller: Caller, item: unknown, request: FastifyRequest): Promise<string> => {
  try {
    const certificate = await issueOne(deps, caller, item, request)
    return JSON.stringify({ status: 201, certificate })
  } catch (error) {
    const problem = toProblem(error)
    if (!isProblem(error))
      deps.log.error({ event: 'request.failed', id: request.id, code: problem.code, cause: describeError(error) })
    return JSON.stringify({ status: problem.kind.status, problem: documentOf(problem, request.id) })
  }
}

const issueOne = async (deps: HttpDeps, caller: Caller, item: unknown, request: FastifyRequest) => {
  const ask = assertAsk(item, request)
  assertMayAsk(caller, ask.profile)
  const input = await readOrRefuse(deps, caller, ask)
  return issuedView(await issueCounted(deps, caller, input))
}

const readOrRefuse = async (deps: HttpDeps, caller: Caller, { idempotencyKey, ...ask }: BatchItem) => {
  try {
    return readAsk(ask, false, idempotencyKey)
  } catch (error) {
    await recordUnreadable(deps, caller, { profile: ask.profile, sent: Buffer.from(ask.csr) }, error)
    throw error
  }
}

type BatchItem = AskBody & { readonly idempotencyKey?: string }

const assertAsk = (item: unknown, request: FastifyRequest): BatchItem => {
  const validate = request.compileValidationSchema(BatchAsk, 'body')
  if (validate(item)) return item as BatchItem
  throw schemaProblem(validate.errors ?? [], 'body')
}

/**
 * Runs `work` over all items in order of arrival, at most `width` at a time, and lets others in between whenever a
 * slice of the event loop is used up. `work` must not reject.
 */
export const inSlices = async <I, O>(
  items: readonly I[],
  width: number,
  work: (item: I) => Promise<O>,
): Promise<O[]> => {
  const outcomes: O[] = new Array(items.length)
  const underWay = new Set<Promise<void>>()
  let sliceStart = performance.now()
  for (const [place, item] of items.entries()) {
    if (underWay.size >= width) await Promise.race(underWay)
    if (performance.now() - sliceStart > sliceMs) {
      await yieldToLoop()
      sliceStart = performance.now()
    }
    const run: Promise<void> = work(item).then((outcome) => {
      outcomes[place] = outcome
      underWay.delete(run)
    })
    underWay.add(run)
  }
  await Promise.all(underWay)
  return outcomes
}

const sliceMs = 5
/** Leaves room for whoever asks for one certificate at a time. */
const maxWidth = 32
