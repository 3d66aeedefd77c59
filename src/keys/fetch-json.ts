/** A small JSON document by HTTPS, bounded in time and size. */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { get } from 'node:https'

export interface FetchOptions {
  /** PEM; of whom the server's certificate must be. Node's own CAs where it is not given. */
  readonly ca?: string | undefined
}

/** Rejects with a sentence. No redirect is followed: only the URL in the document is asked. */
export const fetchJson = async (url: string, { ca }: FetchOptions): Promise<unknown> => {
  try {
    if (!url.startsWith('https://') || !URL.canParse(url)) throw new Reason('it is not an https:// URL')
    const signal = AbortSignal.timeout(patienceMs)
    const headers = { accept: accepted, 'accept-encoding': 'identity' }
    const call = get(url, { agent: false, headers, signal, ...(ca !== undefined && { ca }) })
    // What ends the call once its answer has begun is an error of the answer as well.
    call.on('error', () => {})
    const [answer] = (await once(call, 'response', { signal })) as [IncomingMessage]
    return JSON.parse(await textOf(answer))
  } catch (error) {
    throw new Error(`${url}: ${reasonOf(error as NodeJS.ErrnoException)}`, { cause: error })
  }
}

class Reason extends Error {}

const textOf = async (answer: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  let octets = 0
  // Leaving the loop by an error ends the connection.
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if (answer.statusCode !== 200) break
    chunks.push(chunk)
    octets += chunk.length
    if (octets > maxOctets) throw new Reason(`the answer is larger than ${maxOctets} octets`)
  }
  if (answer.statusCode !== 200) throw new Reason(`the answer is ${answer.statusCode}`)
  return Buffer.concat(chunks).toString()
}

const reasonOf = (error: NodeJS.ErrnoException): string => {
  if (error instanceof Reason) return error.message
  if (error instanceof SyntaxError) return 'the answer is not JSON'
  if (error.name === 'AbortError') return `no answer within ${patienceMs} ms`
  return /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/.test(error.code ?? '')
    ? `it shows no certificate that is trusted (${error.code}); \`ca\` beside \`discovery\` or \`url\` in the document says who certifies it`
    : `it cannot be reached: ${error.message}`
}

/** The keys of an issuer, by what it says of itself (OpenID Connect Discovery 4). Rejects with a sentence. */
export const discoverKeys = async (issuer: string, options: FetchOptions): Promise<unknown> => {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  const found = (await fetchJson(url, options)) as { readonly issuer?: unknown; readonly jwks_uri?: unknown } | null
  if (found?.issuer !== issuer) throw new Error(`${url}: it is that of another issuer`)
  if (typeof found.jwks_uri !== 'string') throw new Error(`${url}: it names no keys`)
  return fetchJson(found.jwks_uri, options)
}

/** Key sets have a type of their own (RFC 7517 8.5.1), and kube-apiserver answers 406 where it is not accepted. */
const accepted = 'application/json, application/jwk-set+json'
/** Discovery takes two calls, within the time of a request. */
const patienceMs = 2_000
const maxOctets = 262_144
