/**
 * Large answers. One string of megabytes would hold the event loop while it is joined, encoded and encrypted; in pieces,
 * others have their turn, and no more is made than the client takes.
 */
import { Readable } from 'node:stream'
import { setImmediate as nextRound } from 'node:timers/promises'

import type { FastifyReply } from 'fastify'

/**
 * Sends texts as one body of the type that was set. What fits into one piece goes with its length; more is chunked
 * (RFC 9112 7.1), and a fault or a client that leaves half way ends the connection without the last chunk, so that
 * nobody takes a part for the whole.
 */
export const sendPieces = async (reply: FastifyReply, texts: Iterable<string>): Promise<FastifyReply> => {
  const pieces = piecesOf(texts)
  const first = pieces.next()
  if (first.done) return reply.serializer(String).send('')
  const second = pieces.next()
  if (second.done) return reply.serializer(String).send(first.value)
  return reply.send(Readable.from(inTurns([first.value, second.value], pieces), { objectMode: false }))
}

/** A JSON object whose `items` are texts of JSON, and its other members behind them. */
export function* jsonItems(items: Iterable<string>, more: Readonly<Record<string, unknown>> = {}): Generator<string> {
  let comma = ''
  yield '{"items":['
  for (const item of items) {
    yield comma + item
    comma = ','
  }
  yield ']'
  for (const [member, value] of Object.entries(more)) yield `,${JSON.stringify(member)}:${JSON.stringify(value)}`
  yield '}'
}

async function* inTurns(made: readonly string[], pieces: Iterable<string>): AsyncGenerator<Buffer> {
  for (const piece of made) yield Buffer.from(piece)
  for (const piece of pieces) {
    yield Buffer.from(piece)
    await nextRound()
  }
}

function* piecesOf(texts: Iterable<string>): Generator<string, void> {
  let piece: string[] = []
  let size = 0
  for (const text of texts) {
    piece.push(text)
    size += text.length
    if (size < pieceSize) continue
    yield piece.join('')
    piece = []
    size = 0
  }
  if (size > 0) yield piece.join('')
}

/** Characters; one text may be longer. */
const pieceSize = 65_536
