/** A small JSON document by HTTPS, bounded in time and size. */
import { Agent, get } from 'node:https'
import { urlToHttpOptions } from 'node:url'

export interface FetchOptions {
  /** PEM; of whom the server's certificate must be. Those that Node brings along where it is not given. */
  readonly ca?: string | undefined
}

/** Rejects with a sentence. No redirect is followed: who is asked is what was written down. */
export const fetchJson = (url: string, { ca }: FetchOptions): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const fail = (reason: string, cause?: unknown): void => reject(new Error(`${url}: ${reason}`, { cause }))
    if (!url.startsWith('https://') || !isReadable(url)) return fail('it is not an https:// URL')
    // One connection a call: they are minutes apart.
    const agent = new Agent({ keepAlive: false, ...(ca !== undefined && { ca }) })
    const headers = { accept: accepted, 'accept-encoding': 'identity' }
    const call = get(url, { agent, headers, signal: AbortSignal.timeout(patienceMs) }, (response) => {
      if (response.statusCode !== 200) {
        response.destroy()
        return fail(`the answer is ${response.statusCode}`)
      }
      const chunks: Buffer[] = []
      let octets = 0
      response.on('data', (chunk: Buffer) => {
        octets += chunk.length
        chunks.push(chunk)
        if (octets <= maxOctets) return
        response.destroy()
        fail(`the answer is larger than ${maxOctets} octets`)
      })
      response.on('error', (error) => fail('the answer broke off', error))
      response.on('end', () => {
        try {
          resolve(JSON.parse(utf8.decode(Buffer.concat(chunks))))
        } catch (error) {
          fail('the answer is not JSON', error)
        }
      })
    })
    call.on('error', (error) => fail(reasonOf(error), error))
    // As by 101, which Node takes for the end of HTTP.
    call.on('close', () => fail('the connection ended before a whole answer'))
  })

/** Node throws as well for a user that is not percent-encoded UTF-8. */
const isReadable = (url: string): boolean => {
  try {
    urlToHttpOptions(new URL(url))
    return true
  } catch {
    return false
  }
}

/** What Node says of a certificate is about the CAs of the machine, which are not looked at. */
const reasonOf = ({ name, code, message }: NodeJS.ErrnoException): string => {
  if (name === 'AbortError') return `no answer within ${patienceMs} ms`
  return /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/.test(code ?? '')
    ? `it shows no certificate that is trusted (${code}); \`ca\` beside \`discovery\` or \`url\` in the document says who certifies it`
    : `it cannot be reached: ${message}`
}

/** The keys of an issuer, by what it says of itself (OpenID Connect Discovery 4). Rejects with a sentence. */
export const discoverKeys = async (issuer: string, options: FetchOptions): Promise<unknown> => {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  const found = (await fetchJson(url, options)) as { readonly issuer?: unknown; readonly jwks_uri?: unknown } | null
  if (found?.issuer !== issuer) throw new Error(`${url}: it is that of another issuer`)
  if (typeof found.jwks_uri !== 'string') throw new Error(`${url}: it names no keys`)
  return fetchJson(found.jwks_uri, options)
}

/** Key sets have a type of their own (RFC 7517 8.5.1), and kube-apiserver answers 406 to whoever does not take it. */
const accepted = 'application/json, application/jwk-set+json'
/** Discovery takes two calls, within the time of a request. */
const patienceMs = 2_000
const maxOctets = 262_144
const utf8 = new TextDecoder('utf8', { fatal: true })
