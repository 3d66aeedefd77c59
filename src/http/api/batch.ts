/** Many requests in one call. Each is judged, recorded and answered as if it had come alone. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Caller } from '../../ca/access/access.ts'
import { Problem, problems } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import type { NextTurn } from '../../lib/yield.ts'
import { askingLater, authorise, callerOf, shownBy } from '../auth.ts'
import {
  batchAnswerRoom,
  batchBodyLimit,
  batchItems,
  batchPath,
  batchPatience,
  batchRoom,
  batchTimeout,
  bodyLimit,
} from '../bounds.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { jsonItems, sendPieces } from '../pieces.ts'
import { keyFirst } from '../private-keys.ts'
import { documentOf, logCause, schemaProblem, toProblem } from '../problem.ts'
import { leaveWith, openRoom } from '../room.ts'
import { type AskBody, readAsk } from './ask.ts'
import {
  assertMayAsk,
  issueCounted,
  issuingProblems,
  originProblems,
  recordEarlyRefusal,
  waitingProblems,
} from './certificates.ts'
import * as asked from './request-examples.ts'
import { RequestView, requestView } from './requests.ts'
import { Ask, IssuedCertificate, isLabel, named, ProblemView } from './schemas.ts'
import { issuedView } from './views.ts'

const BatchAsk = Type.Object(
  {
    ...Ask.properties,
    idempotencyKey: Type.Optional(
      Type.String({ maxLength: 128, description: 'as the Idempotency-Key of a single request' }),
    ),
  },
  named('BatchRequest'),
)

/** The items are judged one by one, so that a malformed one fails only itself; here they are anything. */
const BatchBody = Type.Object(
  { items: Type.Array(Type.Unknown(), { minItems: 1, maxItems: batchItems }) },
  named('NewBatch', asked.batch),
)

/** Each by itself: whoever makes types of the description tells outcomes apart by it. */
const refusedStatuses = [...new Set(Object.values(problems).map(({ status }) => status))].sort()

const BatchOutcome = Type.Union(
  [
    Type.Object({ status: Type.Enum([201]), certificate: IssuedCertificate }, closed),
    Type.Object({ status: Type.Enum([202]), request: RequestView }, closed),
    Type.Object({ status: Type.Enum(refusedStatuses), problem: ProblemView }, closed),
  ],
  { title: 'BatchOutcome' },
)

export interface BatchDeps extends HttpDeps {
  /** What all batches share, and the parsing of their bodies: of many at once, each would else hold up all others for its own. */
  readonly nextTurn: NextTurn
}

export const batchRoutes = (app: App, deps: BatchDeps): void => {
  const room = openRoom(batchRoom)
  const answers = openRoom(batchAnswerRoom)
  let stopping = false
  app.addHook('preClose', async () => {
    stopping = true
  })
  app.post(
    batchPath,
    {
      bodyLimit: batchBodyLimit,
      onRequest: async (request: FastifyRequest, reply: FastifyReply) => {
        const length = Number(request.headers['content-length'] ?? batchBodyLimit)
        // Whoever goes away in the middle of a body leaves nothing behind.
        leaveWith(reply.raw, room.take(callerOf(request).principal, Math.min(length, batchBodyLimit)))
      },
      config: {
        access: ['requester'],
        accepts: ['application/json'],
        problems: [...issuingProblems, ...originProblems, ...waitingProblems],
        queued: true,
        ownDeadline: true,
        items: BatchAsk,
      },
      schema: {
        operationId: 'issueCertificates',
        summary: 'Issue up to 1,000 certificates',
        description:
          'An outcome for each item, in order; one that fails fails only itself. Give each item its own `idempotencyKey`; the header is refused. When the service stops or time is up, the items that are left are answered with a retryable problem.',
        tags: ['certificates'],
        body: BatchBody,
        response: { 200: Type.Object({ items: Type.Array(BatchOutcome) }, closed) },
      },
    },
    async (request, reply) => {
      // The answer may take longer than a connection may be silent.
      request.raw.socket.setTimeout(batchTimeout + 1_000)
      if (request.headers['idempotency-key'] !== undefined)
        throw new Problem('idempotency.key', 'A batch has no Idempotency-Key; give each item its own idempotencyKey.')
      const { items } = request.body
      request.visit?.add(answers.take(callerOf(request).principal, items.length * octetsOfOutcome))
      const admit = openAdmission(deps, request, () => stopping || reply.raw.destroyed)
      const width = widthOf(deps, request, items.length)
      const tell = openTelling(deps, request)
      const work = (item: unknown) => outcomeOf(deps, { admit, tell }, item, request)
      const outcomes = await withinDeadline(inSlices(items, { width, work, nextTurn: deps.nextTurn }), batchTimeout)
      return sendPieces(reply.type('application/json') as FastifyReply, jsonItems(outcomes)) as never
    },
  )
}

/** How many items may be under way at a time: the call is one of them, by the limits of its caller. */
const widthOf = (deps: HttpDeps, request: FastifyRequest, count: number): number => {
  const room = Math.max(1, Math.min(maxWidth, count, deps.limits.queue - deps.issuance.pending))
  const { slots, leave } = deps.principalLimits.widen(callerOf(request), room - 1)
  request.visit?.add(leave)
  return 1 + slots
}

/** Resolves to the caller of the next item. Throws what is to become of it instead. */
type Admit = () => Promise<Caller>

/**
 * A batch is one call, but its items are admitted as if each had come alone: not after its time, not while the service
 * stops or when nobody waits for the answer any more, and only while what was shown is good and its grants last. The caller
 * is known already, so that asking again is a look into memory for most of the time.
 */
const openAdmission = (
  { identities, principalLimits }: HttpDeps,
  request: FastifyRequest,
  isOver: () => boolean,
): Admit => {
  const started = performance.now()
  // The call itself has been counted as its first item.
  let isFirst = true
  const ask = async (): Promise<Caller> =>
    callerOf({ caller: await authorise(identities, ['requester'], shownBy(request), true) })
  return async () => {
    const begun = performance.now()
    if (isOver()) throw new Problem('service.stopping', 'This item was not begun.', { retryAfter: 1 })
    if (begun - started > batchPatience)
      throw new Problem('overload.deadline', 'The time of the batch was over before this item.', { retryAfter: 1 })
    const known = await ask()
    if (!isFirst) principalLimits.count(known)
    isFirst = false
    return askingLater(known, begun, ask)
  }
}

/** What keeps all items of a profile for a while, as a database or a key that is away, is told of once. */
const openTelling = ({ log }: HttpDeps, { id }: FastifyRequest): Tell => {
  const told = new Set<string>()
  return (problem, item) => {
    const profile = (item as { readonly profile?: unknown } | null)?.profile
    // Of an item that is no request it may be anything, and not everything in JSON has a text.
    const what = `${problem.code} ${isLabel(profile) ? profile : ''}`
    if (problem.kind.retryable && told.has(what)) return
    // Not each is of a known cause, and then nothing is told.
    if (problem.options.cause !== undefined) told.add(what)
    logCause(log, id, problem)
  }
}

type Tell = (problem: Problem, item: unknown) => void

interface Call {
  readonly admit: Admit
  readonly tell: Tell
}

/** Never rejects. The text of one outcome, so that a thousand are not encoded in one turn. */
const outcomeOf = async (deps: HttpDeps, call: Call, item: unknown, request: FastifyRequest): Promise<string> => {
  try {
    return JSON.stringify(await issueOne(deps, await call.admit(), item, request))
  } catch (error) {
    const problem = toProblem(error)
    call.tell(problem, item)
    const { violations, ...document } = documentOf(problem, request.id)
    const shown = { ...document, ...(violations && { violations: violations.slice(0, mostViolations) }) }
    return JSON.stringify({ status: problem.kind.status, problem: shown })
  }
}

const issueOne = async (deps: HttpDeps, caller: Caller, item: unknown, request: FastifyRequest) => {
  const input = await readOrRefuse(deps, caller, item, request)
  const issued = await issueCounted(deps, caller, input)
  if ('waiting' in issued) return { status: 202, request: requestView(issued.waiting) }
  return { status: 201, certificate: issuedView(issued) }
}

/** An item that has no CSR to be known by is kept by the digest of its JSON. */
const readOrRefuse = async (deps: HttpDeps, caller: Caller, item: unknown, request: FastifyRequest) => {
  // Once its form is known to be good.
  let onBehalfOf: AskBody['onBehalfOf']
  try {
    const { idempotencyKey, ...ask } = assertAsk(item, request)
    onBehalfOf = ask.onBehalfOf
    assertMayAsk(caller, ask)
    return readAsk(ask, false, idempotencyKey)
  } catch (error) {
    const { csr, profile } = { csr: undefined, profile: undefined, ...(typeof item === 'object' ? item : {}) }
    const sent = Buffer.from(typeof csr === 'string' ? csr : JSON.stringify(item))
    const named = isLabel(profile) ? profile : ''
    await recordEarlyRefusal(deps, caller, { profile: named, sent, onBehalfOf }, error)
    throw error
  }
}

type BatchItem = AskBody & { readonly idempotencyKey?: string }

const assertAsk = (item: unknown, request: FastifyRequest): BatchItem => {
  if (JSON.stringify(item).length > mostOfItem)
    throw keyFirst(new Problem('request.malformed', `An item has at most ${mostOfItem} characters.`), item)
  const validate = request.compileValidationSchema(BatchAsk, 'body')
  if (validate(item)) return item as BatchItem
  throw keyFirst(schemaProblem(validate.errors ?? [], 'body'), item)
}

interface Slices<I, O> extends Pick<BatchDeps, 'nextTurn'> {
  /** Items that are under way at a time, at most. */
  readonly width: number
  /** Must not reject. */
  readonly work: (item: I) => Promise<O>
}

/** Runs `work` over all items in order of arrival, from a turn on that is not that of the body, and a slice of each turn. */
export const inSlices = async <I, O>(items: readonly I[], { width, nextTurn, work }: Slices<I, O>): Promise<O[]> => {
  const outcomes: O[] = new Array(items.length)
  const underWay = new Set<Promise<void>>()
  let sliceEnd = Number.NEGATIVE_INFINITY
  for (const [place, item] of items.entries()) {
    if (underWay.size >= width) await Promise.race(underWay)
    if (performance.now() > sliceEnd) {
      await nextTurn()
      sliceEnd = performance.now() + sliceMs
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

/** About; a certificate with its chain and proof takes 3 KiB. */
const octetsOfOutcome = 4 * 1_024
/** Characters: a CSR of 64 KiB, and what else an item has. */
const mostOfItem = 2 * bodyLimit
/** Of one item: a hundred names may each have several. */
const mostViolations = 20
const sliceMs = 5
/** Leaves room for whoever asks for one certificate at a time. */
const maxWidth = 32
