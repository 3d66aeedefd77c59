/**
 * Logging in at an identity provider, from a machine without a browser: the device authorization grant (RFC 8628), and the
 * refresh token that comes of it. It knows nothing of the service. What is secret goes into bodies over HTTPS, and into no
 * argument, message or log.
 */
import { request } from 'node:https'

import { Failure } from './failure.ts'
import { visible } from './output.ts'

export interface Provider {
  /** As its tokens and its discovery name it, octet by octet. */
  readonly issuer: string
  readonly clientId: string
  /** Beside `openid`. */
  readonly scope: string
  /** PEM of whom its server's certificate must be; the system's CAs where it is not given. */
  readonly ca?: string
}

export interface Tokens {
  /** What the service is shown. */
  readonly idToken: string
  readonly refreshToken?: string
}

export interface LoginDeps {
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly sleep: (milliseconds: number) => Promise<void>
  /** To standard error. */
  readonly tell: (text: string) => void
}

/**
 * Asks for a code, shows where to type it, and asks again and again whether somebody has. Throws `denied` where it was denied
 * or expired, `later` where nobody answers, `usage` where the provider is not the one that was meant.
 */
export const loginByDevice = async (provider: Provider, deps: LoginDeps): Promise<Tokens> => {
  const { now, tell } = deps
  const endpoints = await discover(provider)
  if (endpoints.device === undefined)
    throw new Failure('usage', `${provider.issuer} offers no device authorization (RFC 8628).`)
  const asked = await post(endpoints.device, provider, {
    client_id: provider.clientId,
    scope: `openid ${provider.scope}`,
  })
  if (asked.status !== 200) throw refusedBy(provider, asked)
  const code = readCode(provider, asked)
  tell(codeText(code))
  return poll({ provider, endpoint: endpoints.token, code, end: now() + code.expiresIn * 1_000 }, deps)
}

/** New tokens for a refresh token. Throws `denied` where it does not count any more, `later` where nobody answers. */
export const refresh = async (provider: Provider, refreshToken: string): Promise<Tokens> => {
  const { token } = await discover(provider)
  const answer = await post(token, provider, {
    grant_type: 'refresh_token',
    refresh_token: refreshToken,
    client_id: provider.clientId,
  })
  if (answer.status !== 200) throw refusedBy(provider, answer)
  return { refreshToken, ...readTokens(provider, answer) }
}

/** When an id token ends, in milliseconds since 1970; 0 for what is none. Whether it is genuine is for the service to say. */
export const endOf = (idToken: string): number => {
  const { exp } = claimsOf(idToken)
  return typeof exp === 'number' ? exp * 1_000 : 0
}

// Device ----------------------------------------------------------------------------------------------------------------

interface Code {
  readonly deviceCode: string
  readonly userCode: string
  readonly uri: string
  readonly wholeUri: string | undefined
  /** Seconds. */
  readonly expiresIn: number
  readonly interval: number
}

const codeText = ({ uri, userCode, wholeUri, expiresIn }: Code): string =>
  [
    `To log in, open ${visible(uri)} and type the code ${visible(userCode)}`,
    ...(wholeUri === undefined ? [] : [`or open ${visible(wholeUri)}`]),
    `within ${Math.max(1, Math.floor(expiresIn / 60))} min. Waiting …`,
    '',
  ].join('\n')

interface Polling {
  readonly provider: Provider
  readonly endpoint: string
  readonly code: Code
  /** Milliseconds since 1970. */
  readonly end: number
}

const poll = async ({ provider, endpoint, code, end }: Polling, { now, sleep, tell }: LoginDeps): Promise<Tokens> => {
  let { interval } = code
  let isAway = false
  while (now() + interval * 1_000 < end) {
    await sleep(interval * 1_000)
    const answer = await post(endpoint, provider, {
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      device_code: code.deviceCode,
      client_id: provider.clientId,
    }).catch((error: unknown) => {
      if (error instanceof Failure && error.kind === 'later') return undefined
      throw error
    })
    if (answer?.status === 200) return readTokens(provider, answer)
    const error = answer && errorOf(answer)
    // 3.5: whoever does not answer is asked ever more rarely, like one who says so.
    if (answer === undefined || answer.status >= 500) {
      if (!isAway) tell(`${provider.issuer} does not answer; trying again.\n`)
      isAway = true
      interval = Math.max(1, interval * 2)
    } else if (error === 'slow_down') interval += 5
    else if (error !== 'authorization_pending') throw refusedBy(provider, answer)
  }
  throw new Failure('denied', 'The code has expired before anybody has typed it. Log in again.')
}

const refusedBy = ({ issuer }: Provider, answer: Answered): Failure => {
  const error = errorOf(answer)
  const ours = error === undefined ? undefined : refusals[error]
  if (ours !== undefined) return new Failure('denied', ours)
  if (answer.status >= 500 || answer.status === 429)
    return new Failure('later', `${issuer} answered ${answer.status}: try again later.`)
  const why = answer.body['error_description']
  const told = typeof why === 'string' ? `: ${visible(why.slice(0, 200))}` : ''
  return new Failure('denied', `${issuer} says no (${visible(error ?? String(answer.status))})${told}`)
}

const refusals: Readonly<Record<string, string>> = {
  access_denied: 'The login was denied at the identity provider.',
  expired_token: 'The code has expired before anybody has typed it. Log in again.',
  invalid_grant: 'The login does not count any more at the identity provider. Log in again by chancery login.',
}

const errorOf = ({ body: { error } }: Answered): string | undefined =>
  typeof error === 'string' ? error.slice(0, 100) : undefined

// Reading ---------------------------------------------------------------------------------------------------------------

interface Endpoints {
  readonly token: string
  readonly device: string | undefined
}

/** OpenID Connect Discovery 4: whoever says to be another issuer is one. */
const discover = async (provider: Provider): Promise<Endpoints> => {
  const { issuer } = provider
  assertHttps(issuer, issuer)
  const answer = await send(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, provider)
  if (answer.status >= 500 || answer.status === 429) throw refusedBy(provider, answer)
  const { issuer: said, token_endpoint: token, device_authorization_endpoint: device } = answer.body
  if (answer.status !== 200 || said === undefined)
    throw new Failure('usage', `${issuer} does not tell of itself (${answer.status}): is it an OpenID provider?`)
  if (said !== issuer)
    throw new Failure('usage', `What answers at ${issuer} is another issuer: ${visible(String(said).slice(0, 200))}.`)
  return {
    token: assertHttps(issuer, token),
    device: device === undefined ? undefined : assertHttps(issuer, device),
  }
}

const assertHttps = (issuer: string, url: unknown): string => {
  if (typeof url === 'string' && url.startsWith('https://') && URL.canParse(url)) return url
  throw new Failure(
    'usage',
    `${issuer} is to be reached by https only, and names ${visible(String(url).slice(0, 200))}.`,
  )
}

const readCode = ({ issuer }: Provider, { body }: Answered): Code => {
  const { device_code: deviceCode, user_code: userCode, verification_uri: uri, interval = 5 } = body
  const { verification_uri_complete: wholeUri, expires_in: expiresIn } = body
  const isWhole = [deviceCode, userCode, uri].every((text) => typeof text === 'string' && text !== '')
  if (!isWhole || !isSeconds(expiresIn) || !isSeconds(interval)) throw malformed(issuer, 'no device code')
  return {
    deviceCode: deviceCode as string,
    userCode: userCode as string,
    uri: uri as string,
    wholeUri: typeof wholeUri === 'string' ? wholeUri : undefined,
    expiresIn,
    interval,
  }
}

const isSeconds = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value) && value >= 0 && value <= 86_400

/** It comes from the issuer itself, by TLS (OpenID Connect Core 3.1.3.7, 6); that it is for us is looked at all the same. */
const readTokens = ({ issuer, clientId }: Provider, { body }: Answered): Tokens => {
  const { id_token: idToken, refresh_token: refreshToken } = body
  if (typeof idToken !== 'string' || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(idToken)) throw malformed(issuer, 'no id token')
  const { iss, aud } = claimsOf(idToken)
  if (iss !== issuer) throw new Failure('usage', `${issuer} gave a token of another issuer.`)
  if (aud !== clientId && !(Array.isArray(aud) && aud.includes(clientId)))
    throw new Failure('usage', `${issuer} gave a token that is not for the client ${clientId}.`)
  if (endOf(idToken) === 0) throw malformed(issuer, 'a token without an end')
  return { idToken, ...(typeof refreshToken === 'string' && refreshToken !== '' && { refreshToken }) }
}

const claimsOf = (token: string): Readonly<Record<string, unknown>> => {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
    return typeof claims === 'object' && claims !== null ? (claims as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

const malformed = (issuer: string, what: string): Failure => new Failure('failed', `${issuer} answered with ${what}.`)

// Asking ----------------------------------------------------------------------------------------------------------------

interface Answered {
  readonly status: number
  /** Empty where it is not JSON. */
  readonly body: Readonly<Record<string, unknown>>
}

const post = (url: string, provider: Provider, form: Readonly<Record<string, string>>): Promise<Answered> =>
  send(url, provider, new URLSearchParams(form).toString())

/** No redirect is followed: who is asked is who was written down. Rejects with `later`, or `usage` where trust is missing. */
const send = (url: string, { ca }: Provider, form?: string): Promise<Answered> =>
  new Promise((resolve, reject) => {
    const { origin } = new URL(url)
    const away = (why: string): void => reject(new Failure('later', `${origin} cannot be reached: ${why}.`))
    const call = request(url, {
      method: form === undefined ? 'GET' : 'POST',
      agent: false,
      signal: AbortSignal.timeout(patienceMs),
      ...(ca !== undefined && { ca }),
      headers: {
        accept: 'application/json',
        ...(form !== undefined && {
          'content-type': 'application/x-www-form-urlencoded',
          'content-length': Buffer.byteLength(form),
        }),
      },
    })
    call.on('error', (error: NodeJS.ErrnoException) =>
      /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|ERR_TLS_CERT)/.test(error.code ?? '')
        ? reject(new Failure('usage', `${origin} shows no certificate that is trusted (${error.code}); see --oidc-ca.`))
        : away(error.message || error.name),
    )
    call.on('response', (response) => {
      const chunks: Buffer[] = []
      let octets = 0
      response.on('data', (chunk: Buffer) => {
        octets += chunk.length
        if (octets <= maxOctets) return chunks.push(chunk)
        response.destroy()
        return away('its answer has no end')
      })
      response.on('error', (error) => away(error.message))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: parse(Buffer.concat(chunks)) }))
    })
    call.end(form)
  })

const parse = (octets: Buffer): Answered['body'] => {
  try {
    const body: unknown = JSON.parse(octets.toString())
    return typeof body === 'object' && body !== null ? (body as Answered['body']) : {}
  } catch {
    return {}
  }
}

const patienceMs = 10_000
const maxOctets = 262_144
