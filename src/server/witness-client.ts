/** How witnesses are spoken to. */
import type { WitnessesDeps } from '../ca/log/witnesses.ts'

/** Answers are some lines; whoever sends more, or sends us elsewhere, is not heard. */
export const post: WitnessesDeps['post'] = async (url, body) => {
  const answer = await fetch(url, { method: 'POST', body, redirect: 'error', signal: AbortSignal.timeout(withinMs) })
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of answer.body ?? []) {
    length += piece.length
    if (length > maxAnswer) throw new Error(`${url} answers with more than ${maxAnswer} octets`)
    pieces.push(piece)
  }
  return { status: answer.status, text: Buffer.concat(pieces).toString('utf8') }
}

const withinMs = 4_000
const maxAnswer = 65_536
