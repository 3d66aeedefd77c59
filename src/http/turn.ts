/**
 * Requests that come on one connection before the answers to those before them are out (RFC 9112 9.3.2 lets them): they are
 * begun one at a time. Node hands over all that it has read at once, and keeps each answer until it is due: a packet of a thousand
 * short requests would be as many large answers, in memory for as long as nobody reads them.
 */
import type { ServerResponse } from 'node:http'

/** Calls `done` when the answer is the next one that goes out; never where its connection is gone by then. */
export const inTurn = (answer: Pick<ServerResponse, 'socket' | 'once'>, done: () => void): void => {
  // Node gives an answer its socket when it is due.
  if (answer.socket) done()
  else answer.once('socket', () => done())
}
