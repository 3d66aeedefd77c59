/** Why nothing came of a `fetch`, in a sentence. */
import { Failure } from './failure.ts'

/** What went wrong is the cause of `fetch failed`. No retry makes a port for plain HTTP speak TLS. */
export const unfetched = (url: string | URL, { message, cause }: Error): Failure => {
  const told = cause instanceof Error ? cause.message : message
  const tls = tlsReasonOf(told)
  if (tls === notTls)
    return new Failure('usage', `${url} speaks no TLS (${tls}): it may be a port for plain HTTP; name an http:// URL.`)
  return new Failure('later', `${url} cannot be fetched: ${tls === undefined ? told : `TLS fails (${tls})`}.`)
}

/** The clause in OpenSSL's error, which is a line of numbers and files of its source. */
export const tlsReasonOf = (message: string): string | undefined => /:SSL routines:[^:]*:([^:\n]+)/.exec(message)?.[1]

export const notTls = 'wrong version number'
