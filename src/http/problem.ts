/**
 * Errors on their way out: whatever went wrong becomes one RFC 9457 document. A `Problem` says itself what the caller
 * may know; Fastify's and Node's own errors are mapped by the tables below; anything else is a defect: a bare 500 and
 * a line in the log. Nothing of what was sent comes back but places and the values that checks name.
 */
import type { Socket } from 'node:net'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { isProblem, Problem, type ProblemCode, type ProblemKind, problems, type Violation } from '../errors.ts'
import { describeError, type Log } from '../log.ts'
import { shapeWords } from '../policy/shape.ts'
import { formWords, timeWords } from './api/schemas.ts'
import { keyFirst } from './private-keys.ts'

export interface ProblemDocument {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: ProblemCode
  readonly retryable: boolean
  readonly retryAfter?: number
  readonly offset?: number
  readonly violations?: readonly Violation[]
  readonly next: string
  readonly requestId: string
}

/** Asked for like this, for an import of it would load all that it offers, a WebSocket among them: 9 MB. */
const { STATUS_CODES } = process.getBuiltinModule('node:http')

export const problemType = 'application/problem+json'

/** The document for one problem (RFC 9457 3.1); `type` is the relative reference under which it is described. */
export const documentOf = (problem: Problem, requestId: string): ProblemDocument => {
  const { title, status, retryable, next } = problem.kind
  const { violations, offset, extra } = problem.options
  const retryAfter = retryAfterOf(problem)
  return {
    type: `/problems/${problem.code}`,
    title,
    status,
    detail: sentenceOf({ code: problem.code, detail: problem.detail, violations }),
    code: problem.code,
    retryable,
    ...(retryAfter !== undefined && { retryAfter }),
    ...(offset !== undefined && { offset }),
    ...(violations && { violations }),
    next,
    requestId,
    ...extra,
  }
}

/**
 * What is told of a problem: always a sentence. Whoever reads octets only says what was found, in a clause that begins
 * small; whoever judges rules gives a reason, which is told with the check that it belongs to.
 */
export const sentenceOf = (told: Told): string => {
  const text = clauseOf(told)
  return /[.!?]$/.test(text) ? text : `${text}.`
}

const clauseOf = ({ code, detail, violations: [first] = [] }: Told): string => {
  if (first?.reason === detail) return `The check ${first.check} failed${placeOf(first)}: ${detail}`
  if (!/^[a-z]/.test(detail)) return detail
  const [part = ''] = code.split('.', 1)
  return `${refusedParts[part] ?? 'The request'} is refused: ${detail}`
}

interface Told {
  readonly code: string
  readonly detail: string
  readonly violations?: readonly Violation[] | undefined
}

const placeOf = ({ field, value }: Violation): string =>
  `${value && ` for ${JSON.stringify(value)}`}${field && ` at ${field}`}`

/** What `GET /problems/<code>` says of a code; undefined for what is none. */
export const describeProblem = (
  code: string,
): ({ readonly type: string; readonly code: string } & ProblemKind) | undefined =>
  Object.hasOwn(problems, code) ? { type: `/problems/${code}`, code, ...problems[code as ProblemCode] } : undefined

/** Turns anything thrown into a `Problem`. `tooLarge` is what this route calls a body beyond its bound. */
export const toProblem = (error: unknown, tooLarge: ProblemCode = 'request.too_large'): Problem => {
  if (isProblem(error)) return error
  const code = codeOf(error)
  const mapped = code === undefined ? undefined : mappedErrors[code]
  if (isTurnedDown(error)) return new Problem('db.unavailable', turnedDown, { cause: error, retryAfter: 30 })
  if (!mapped) return new Problem('internal', 'Something went wrong on our side.', { cause: error })
  const [problemCode, detail] = mapped
  return new Problem(problemCode === 'request.too_large' ? tooLarge : problemCode, detail)
}

/** Of every problem: no cache may keep one, which of 404 and 405 it else might (RFC 9110 15.1). */
export const safetyHeaders = { 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' }

/** Answers with a problem document and its headers. */
export const sendProblem = (reply: FastifyReply, problem: Problem): FastifyReply => {
  const document = documentOf(problem, reply.request.id)
  // Fastify would close the connection then, and a client that still sends would lose the answer.
  if (document.status === 413) reply.header('connection', reply.raw.shouldKeepAlive ? 'keep-alive' : 'close')
  reply.code(document.status).headers(safetyHeaders)
  reply.header('content-type', problemType).header('x-request-id', document.requestId)
  if (document.retryAfter !== undefined) reply.header('retry-after', String(document.retryAfter))
  const challenge = challenges[problem.code] ?? (document.status === 401 ? wrong : undefined)
  if (challenge) reply.header('www-authenticate', challenge)
  // `serializer` leaves the media type alone; Fastify would add a charset, which RFC 8259 does not define.
  return reply.serializer(asIs).send(JSON.stringify(document))
}

/** Fastify's error handler. What the caller must not know goes to the log, under the id that the answer names. */
export const openErrorHandler =
  (log: Log) =>
  (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const known = isLate(error, request) ? late() : toProblem(error, request.routeOptions.config.tooLarge)
    const problem = keyFirst(known, request.body)
    request.problem = problem.code
    request.reason = problem.options.reason ?? null
    logCause(log, request.id, problem)
    return sendProblem(reply, problem)
  }

/** The deadline of a call that takes no body begins with it: we were not slow where its chunks have not come to their end by then. */
const isLate = (error: unknown, { raw }: FastifyRequest): boolean =>
  codeOf(error) === 'FST_ERR_HANDLER_TIMEOUT' && raw.complete === false

const late = (): Problem => new Problem('request.timeout', 'The request did not arrive in time.')

/** Why something of ours went wrong, where that is known. */
export const logCause = (log: Log, id: string, { code, detail, kind, options: { cause } }: Problem): void => {
  if (kind.status < 500 || cause === undefined) return
  const line = { event: 'request.failed', id, code, detail, cause: describeError(cause) }
  if (kind.retryable) log.warn(line)
  else log.error(line)
}

/**
 * Answers what Node's HTTP parser rejected, and closes the connection: what was not read to its end by then is not done. What is
 * not HTTP at all, as where TLS failed, is only closed. Returns what was answered.
 */
export const answerClientError = (
  error: NodeJS.ErrnoException,
  socket: Socket,
  requestId: string,
): Problem | undefined => {
  const mapped = clientErrors[error.code ?? ''] ?? (error.code?.startsWith('HPE_') ? notHttp : undefined)
  if (!mapped || !socket.writable) return void socket.destroy()
  const problem = new Problem(...mapped)
  const document = documentOf(problem, requestId)
  const body = JSON.stringify(document)
  socket.end(
    `HTTP/1.1 ${document.status} ${STATUS_CODES[document.status]}\r\nContent-Type: ${problemType}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nX-Request-Id: ${requestId}\r\nX-Content-Type-Options: nosniff\r\n` +
      `Cache-Control: no-store\r\nConnection: close\r\n\r\n${body}`,
  )
  // A client that still sends would lose the answer if it were reset now.
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(timer))
  return problem
}

/** Where AJV found fault, as violations; nothing but plain names of unknown fields is taken over from what was sent. */
export const schemaProblem = (errors: readonly SchemaError[], part: string): Problem => {
  const found = errors.slice(0, maxViolations).map((error) => schemaViolation(error, part))
  // A time breaks both the pattern and the format of times: that is one fault.
  const violations = found.filter(
    ({ field, reason }, i) => found.findIndex((other) => other.field === field && other.reason === reason) === i,
  )
  const where = part === 'body' ? 'The body' : part === 'querystring' ? 'The query' : 'The path'
  return new Problem('request.malformed', `${where} does not have the shape that this call takes.`, { violations })
}

export interface SchemaError {
  readonly keyword: string
  readonly instancePath: string
  readonly params: Readonly<Record<string, unknown>>
}

const schemaViolation = ({ keyword, instancePath, params }: SchemaError, part: string): Violation => {
  const unknown = keyword === 'additionalProperties' ? params.additionalProperty : undefined
  const missing = keyword === 'required' ? params.missingProperty : undefined
  const named = unknown ?? missing
  const field = typeof named === 'string' && plainName.test(named) ? `${instancePath}/${named}` : instancePath
  const reason =
    unknown !== undefined
      ? 'is not a known field'
      : missing !== undefined
        ? 'is missing'
        : keyword === 'format'
          ? timeWords
          : (formWords.get(String(params.pattern)) ?? shapeWords(keyword, params))
  return { check: `request.${part === 'querystring' ? 'query' : part}`, field, value: '', reason }
}

const retryAfterOf = (problem: Problem): number | undefined =>
  problem.options.retryAfter ?? (problem.kind.status === 503 || problem.kind.status === 429 ? 1 : undefined)

const codeOf = (error: unknown): string | undefined => {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' && Object.hasOwn(mappedErrors, code) ? code : undefined
}

/**
 * Rights that somebody has taken from the role that serves, or a schema that it does not find any more: whoever runs the
 * database mends that while we run, and the same request succeeds then.
 */
const isTurnedDown = (error: unknown): boolean =>
  error instanceof Error &&
  'severity' in error &&
  ['42501', '42P01'].includes((error as NodeJS.ErrnoException).code ?? '')

const turnedDown = 'The database does not let this service do what it needs; its operator has to see to that.'

const asIs = (payload: unknown): string => String(payload)

type Mapped = readonly [ProblemCode, string]

/** Errors that Fastify and Node raise about what a client sent. Tested against Fastify's own table. */
export const httpErrors: Readonly<Record<string, Mapped>> = {
  FST_ERR_NOT_FOUND: ['request.not_found', 'There is nothing at this path.'],
  FST_ERR_VALIDATION: ['request.malformed', 'The request does not have the shape that this call takes.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['request.too_large', 'The body is larger than this call takes.'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['request.media_type', 'This call does not take this media type.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['request.malformed', 'The body is not as long as Content-Length says.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['request.malformed', 'The body is empty.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['request.malformed', 'The body is not JSON.'],
  FST_ERR_CTP_INSTANCE_ALREADY_STARTED: ['internal', 'Something went wrong on our side.'],
  FST_ERR_ROUTE_MISSING_CONTENT: ['request.malformed', 'The request has no body.'],
  FST_ERR_ROUTE_MISSING_CONTENT_TYPE: ['request.media_type', 'The request has no Content-Type.'],
  FST_ERR_BAD_URL: ['request.malformed', 'The path is not a well-formed URL.'],
  FST_ERR_INVALID_URL: ['request.malformed', 'The path is not a well-formed URL.'],
  FST_ERR_MAX_PARAM_LENGTH: ['request.uri', 'A name in the path is longer than any name can be.'],
  FST_ERR_HANDLER_TIMEOUT: ['overload.deadline', 'There was no answer within the deadline of this call.'],
  ECONNRESET: ['request.malformed', 'The connection ended before the body did.'],
  ERR_STREAM_PREMATURE_CLOSE: ['request.malformed', 'The connection ended before the body did.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['request.timeout', 'The request did not arrive in time.'],
}

/** Those of `@fastify/static` as well, which serves the pages of swagger-ui. */
const mappedErrors: Readonly<Record<string, Mapped>> = {
  ...httpErrors,
  FST_STATIC_FORBIDDEN_PATH: ['request.not_found', 'There is nothing at this path.'],
}

/** What Node's parser says before there is a request. */
const clientErrors: Readonly<Record<string, Mapped>> = {
  HPE_HEADER_OVERFLOW: ['request.headers', 'The header fields are larger than 16 KiB.'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['request.too_large', 'The chunk extensions are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['request.timeout', 'The request did not arrive within ten seconds.'],
}
const notHttp: Mapped = ['request.malformed', 'This is not HTTP/1.1 as RFC 9112 has it.']

/** By the first word of the code. */
const refusedParts: Readonly<Record<string, string>> = {
  key: 'The key',
  subject: 'The subject',
  san: 'A name',
  ext: 'An extension',
}

/** RFC 6750 3. */
const wrong = 'Bearer realm="chancery", error="invalid_token"'
const challenges: Partial<Record<ProblemCode, string>> = {
  'auth.missing': 'Bearer realm="chancery"',
  'auth.forbidden': 'Bearer realm="chancery", error="insufficient_scope"',
}

const maxViolations = 20
const lingerMs = 1_000
/** A name that may be taken over from what was sent. */
export const plainName = /^[A-Za-z][A-Za-z0-9_-]{0,31}$/
