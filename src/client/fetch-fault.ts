/** What comes of a `fetch`, from a server that may be anybody's, and in a sentence why nothing came of it. */
import { Failure } from '../lib/failure.ts'

/** What went wrong is the cause of `fetch failed`. No retry makes a port for plain HTTP speak TLS. */
export const unfetched = (url: string | URL, { message, cause }: Error): Failure => {
  const told = cause instanceof Error ? cause.message : message
  const tls = tlsReasonOf(told)
  if (tls === notTls)
    return new Failure('usage', `${url} speaks no TLS (${tls}): it may be a port for plain HTTP; name an http:// URL.`)
  return new Failure('later', `${url} cannot be fetched: ${tls === undefined ? told : `TLS fails (${tls})`}.`)
}

/** The whole body, which is held: of one that has no end only so much. Rejects with a `Failure` then, and with whatever else breaks it off. */
export const octetsOf = async (answer: Response): Promise<Buffer> => {
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of answer.body ?? []) {
    length += piece.length
    if (length > mostOctets) throw new Failure('failed', `${answer.url} answers with more than ${mostOctets} octets.`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/** The clause in OpenSSL's error, which is a line of numbers and files of its source. */
export const tlsReasonOf = (message: string): string | undefined => /:SSL routines:[^:]*:([^:\n]+)/.exec(message)?.[1]

export const notTls = 'wrong version number'
/** As of an answer of the service: a bundle of the roll takes 16 MiB. */
const mostOctets = 64 * 1024 * 1024
