/**
 * Requests that come on one connection before the answers to those before them are out (RFC 9112 9.3.2 lets them): they are
 * begun one at a time. Node hands over all that it has read at once, and keeps each answer until it is due: a packet of a thousand
 * short requests would be as many large answers, in memory for as long as nobody reads them.
 */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** By connection: how many of its requests have not begun. */
const waiting = new WeakMap<Socket, number>()

/** Calls `done` when the answer is the next one that goes out; never where its connection is gone by then. */
export const inTurn = (answer: Pick<ServerResponse, 'socket' | 'once' | 'req'>, done: () => void): void => {
  // Node gives an answer its socket when it is due.
  if (answer.socket) return done()
  const { socket } = answer.req
  waiting.set(socket, (waiting.get(socket) ?? 0) + 1)
  answer.once('socket', () => {
    waiting.set(socket, (waiting.get(socket) ?? 1) - 1)
    done()
  })
}

/** Whether another request has come on this connection that waits for its turn. */
export const hasNext = (socket: Socket): boolean => (waiting.get(socket) ?? 0) > 0
