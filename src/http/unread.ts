/**
 * Requests that are answered before they were read to their end. Whoever is still sending reads no answer on a connection that
 * is reset; and nothing of a request may be done, or answered again, once it was answered.
 */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { Problem } from '../errors.ts'

/** By connection: the last request that was answered early. */
const early = new WeakMap<Socket, IncomingMessage>()

/**
 * Notes that a request is being answered though more of it is to come, which is read and dropped. Says whether the connection
 * can go on after that: not where so much is to come that it would cost us more than it costs whoever asks.
 */
export const noteEarly = (request: IncomingMessage): boolean => {
  if (request.complete !== false || !hasBody(request)) return true
  const { socket } = request
  const canGoOn = Number(request.headers['content-length'] ?? 0) <= mostDropped
  if (early.get(socket) === request) return canGoOn
  early.set(socket, request)
  // How Node ends a connection that is not to go on: by a reset, where there are octets that nobody has read.
  socket.destroySoon = () => {
    socket.end()
    destroyLater(socket)
  }
  let left = mostDropped
  request.on('data', (piece: Buffer) => {
    left -= piece.length
    if (left < 0) socket.destroy()
  })
  return canGoOn
}

/**
 * Whoever waits to be asked for a body (RFC 9110 10.1.1) is asked here: not before it is known who that is, and that the call takes
 * one of this length. Node ends the connection of one that was answered without.
 */
export const askForBody = (request: FastifyRequest, reply: FastifyReply, _body: unknown, done: () => void): void => {
  askOnce(request, reply)
  done()
}

/** As `askForBody` does, for what reads it before then. */
export const askOnce = (request: FastifyRequest, { raw }: FastifyReply): void => {
  const { headers } = request.raw
  if (headers.expect === undefined || !isAwaited(request)) return
  raw.writeContinue()
  delete headers.expect
}

/**
 * Whoever has gone while it was found out who that is: what had come of the body is dropped with the connection, and Fastify would
 * wait for its end for good, so that nobody heard of the request.
 */
export const assertBodyComes = (
  { raw }: FastifyRequest,
  _reply: FastifyReply,
  _body: unknown,
  done: (error?: Error) => void,
): void => {
  // One that was read to its end is destroyed as well.
  const isLost = raw.destroyed && !raw.readableEnded
  if (isLost && (hasBody(raw) || raw.headers['content-type'] !== undefined))
    return done(new Problem('request.malformed', 'The connection ended before the body was read.'))
  done()
}

/** Whoever speaks HTTP/1.0 would take it for the answer. */
const isAwaited = ({ headers, is404, raw, routeOptions }: FastifyRequest): boolean =>
  !is404 &&
  raw.httpVersion !== '1.0' &&
  awaited.test(headers.expect ?? '') &&
  !(Number(headers['content-length']) > (routeOptions.bodyLimit ?? 0))

/** Whether what comes on this connection is the rest of a request that has its answer. */
export const hasAnswer = (socket: Socket): boolean => early.get(socket)?.complete === false

/**
 * Says something of what came behind requests that were read whole: once their answers are out, if the connection is still there
 * then. Nothing more is read of it meanwhile; whoever goes away, or takes in no answer, is noticed as of any other.
 */
export const sayBehind = (socket: Socket, say: () => void): void => {
  if (speechless.has(socket)) return
  if (dueOn(socket)?.req?.complete !== true) return say()
  speechless.add(socket)
  stopParsing(socket)
  socket.pause()
  afterThose(socket, say)
}

const afterThose = (socket: Socket, say: () => void): void => {
  const due = dueOn(socket)
  if (due?.req?.complete === true) return void due.once('close', () => afterThose(socket, say))
  // Else it has been ended with one of them.
  if (socket.writable) say()
}

/** Where something of the kind waits to be said. */
const speechless = new WeakSet<Socket>()

/** Whoever listens to octets takes them out of the hands of Node's parser, which else would finish the request (`unconsume`). */
const stopParsing = (socket: Socket): void => {
  socket.on('data', drop)
  socket.removeAllListeners('data')
}

/** The last words on a connection. What comes after is dropped, unread, until the other end has closed it, or for a second. */
export const sayLast = (socket: Socket, octets: string): void => {
  stopParsing(socket)
  socket.on('data', drop).resume()
  socket.end(octets)
  destroyLater(socket)
}

/**
 * Ends a connection that has its answers: Node ends those that are idle when a listener closes, and would keep one whose answer comes
 * later for a next request, which nobody takes.
 */
export const endIdle = (socket: Socket): void => {
  if (dueOn(socket)) return
  socket.end()
  destroyLater(socket)
}

/** Node keeps the answer that is due next on the socket. */
export const dueOn = (socket: Socket): DueAnswer | undefined =>
  (socket as Socket & { readonly _httpMessage?: DueAnswer | null })._httpMessage ?? undefined

export interface DueAnswer {
  readonly headersSent: boolean
  readonly req?: { readonly complete: boolean }
  once(event: 'close', listener: () => void): unknown
  emit(event: 'drain'): unknown
}

const destroyLater = (socket: Socket): void => {
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(timer))
}

/** RFC 9112 6. */
export const hasBody = ({ headers }: Pick<IncomingMessage, 'headers'>): boolean =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'

const drop = (): void => {}

/** As Node tells it from other expectations. */
const awaited = /(?:^|\W)100-continue(?:\W|$)/i

/** Octets; more than any body that a call takes. */
const mostDropped = 8 * 1024 * 1024
const lingerMs = 1_000
