/**
 * Logging in at an identity provider, from a machine without a browser: the device authorization grant (RFC 8628), and the
 * refresh token that comes of it. It knows nothing of the service. What is secret goes into bodies over HTTPS, and into no
 * argument, message or log.
 */
import { request } from 'node:https'

import { Failure } from '../lib/failure.ts'
import { visible } from '../lib/output.ts'
import { exactDurationText } from '../lib/progress.ts'
import { tlsReasonOf } from './fetch-fault.ts'
import { secondsOf } from './rejected.ts'

export interface Provider {
  /** As its tokens and its discovery name it, octet by octet. */
  readonly issuer: string
  readonly clientId: string
  /** Beside `openid`. */
  readonly scope: string
  /** PEM of whom its server's certificate must be; those that Node brings along where it is not given. */
  readonly ca?: string
}

export interface Tokens {
  /** What the service is shown. */
  readonly idToken: string
  readonly refreshToken?: string
}

/** What came of a refresh token. */
export interface Refreshed {
  /** The next one; the same, where the provider gave none. */
  readonly refreshToken: string
  /** Or why what came with it is none to use. */
  readonly idToken: string | Failure
}

export interface LoginDeps {
  /** Milliseconds that have gone by, whatever the wall's clock does. */
  readonly elapsed: () => number
  readonly sleep: (milliseconds: number) => Promise<void>
  /** To standard error. */
  readonly tell: (text: string) => void
}

/**
 * Asks for a code, shows where to type it, and asks again and again whether somebody has. Throws `denied` where it was denied
 * or expired, `later` where nobody answers, `usage` where the provider is not the one that was meant.
 */
export const loginByDevice = async (provider: Provider, deps: LoginDeps): Promise<Tokens> => {
  const { elapsed, tell } = deps
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
  return poll({ provider, endpoint: endpoints.token, code, end: elapsed() + code.expiresIn * 1_000 }, deps)
}

/**
 * New tokens for those of a login. Throws `denied` where it does not count any more, `later` where nobody answers: then the
 * refresh token is as good as before. Whatever else came, a new one of it is handed back.
 */
export const refresh = async (provider: Provider, login: Tokens & { refreshToken: string }): Promise<Refreshed> => {
  const { token } = await discover(provider)
  const answer = await post(token, provider, {
    grant_type: 'refresh_token',
    refresh_token: login.refreshToken,
    client_id: provider.clientId,
  })
  if (answer.status !== 200) throw refusedBy(provider, answer)
  const refreshToken = readRefreshToken(answer) ?? login.refreshToken
  try {
    if (answer.body['id_token'] === undefined) throw malformed(provider.issuer, unrenewed)
    const { idToken } = readTokens(provider, answer)
    assertSameSubject(provider, login.idToken, idToken)
    return { refreshToken, idToken }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { refreshToken, idToken: error }
  }
}

/** OpenID Connect Core 12.2: it need not have one, and some never do (Glewlwyd). */
const unrenewed =
  'no id token, which a provider need not give for a refresh token: log in again by chancery login, and have it make id tokens last longer'

/** OpenID Connect Core 12.2: a refreshed token is of the one who has logged in; its issuer and client are looked at like any. */
const assertSameSubject = ({ issuer }: Provider, before: string, after: string): void => {
  if (subjectOf(before) === subjectOf(after)) return
  throw new Failure('denied', `${issuer} gave a token of somebody else. Log in again by chancery login.`)
}

/** When an id token ends, in milliseconds since 1970; 0 for what is none. Whether it is genuine is for the service to say. */
export const endOf = (idToken: string): number => {
  const { exp } = claimsOf(idToken)
  return typeof exp === 'number' ? exp * 1_000 : 0
}

/** Whom it is of, as the provider names them; undefined for what is none. */
export const subjectOf = (idToken: string): string | undefined => {
  const { sub } = claimsOf(idToken)
  return typeof sub === 'string' && sub !== '' ? sub : undefined
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
    `within ${exactDurationText(expiresIn)}. Waiting …`,
    '',
  ].join('\n')

interface Polling {
  readonly provider: Provider
  readonly endpoint: string
  readonly code: Code
  /** By `elapsed`. */
  readonly end: number
}

const poll = async (
  { provider, endpoint, code, end }: Polling,
  { elapsed, sleep, tell }: LoginDeps,
): Promise<Tokens> => {
  const pace: Pace = { interval: Math.max(shortestSeconds, code.interval), retryAfter: 0 }
  let isAway = false
  while (elapsed() + pace.interval * 1_000 < end) {
    // What is asked for is waited for, but there is a last question before the code expires.
    const last = (end - elapsed()) / 1_000 - shortestSeconds
    await sleep(Math.max(pace.interval, Math.min(pace.retryAfter, last)) * 1_000)
    const answer = await post(endpoint, provider, {
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      device_code: code.deviceCode,
      client_id: provider.clientId,
    }).catch((error: unknown) => {
      if (error instanceof Failure && error.kind === 'later') return undefined
      throw error
    })
    if (answer?.status === 200) return readTokens(provider, answer)
    const isBusy = answer === undefined || answer.status >= 500
    if (isBusy && !isAway) tell(`${provider.issuer} does not answer; trying again.\n`)
    isAway ||= isBusy
    slow(pace, provider, answer)
  }
  throw new Failure('denied', 'The code has expired before anybody has typed it. Log in again.')
}

/** Seconds. */
interface Pace {
  interval: number
  /** Before the next question, once. */
  retryAfter: number
}

/** RFC 8628 3.5. Throws where the answer is an end. */
const slow = (pace: Pace, provider: Provider, answer: Answered | undefined): void => {
  pace.retryAfter = answer?.retryAfter ?? 0
  // Whoever does not answer is asked ever more rarely.
  if (answer === undefined || (answer.status >= 500 && pace.retryAfter === 0))
    pace.interval = Math.max(pace.interval, Math.min(pace.interval * 2, longestSeconds))
  else if (errorOf(answer) === 'slow_down' || (answer.status === 429 && pace.retryAfter === 0)) pace.interval += 5
  else if (!isToWait(answer)) throw refusedBy(provider, answer)
}

const isToWait = (answer: Answered): boolean =>
  answer.status >= 500 || answer.status === 429 || errorOf(answer) === 'authorization_pending'

const refusedBy = ({ issuer }: Provider, answer: Answered): Failure => {
  const error = errorOf(answer)
  const ours = error !== undefined && Object.hasOwn(refusals, error) ? refusals[error] : undefined
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
  if (answer.status !== 200 || typeof said !== 'string')
    throw new Failure('usage', `${issuer} does not tell of itself (${answer.status}): is it an OpenID provider?`)
  if (said !== issuer)
    throw new Failure('usage', `What answers at ${issuer} is another issuer: ${visible(said.slice(0, 200))}.`)
  return {
    token: assertHttps(issuer, token),
    device: device === undefined ? undefined : assertHttps(issuer, device),
  }
}

const assertHttps = (issuer: string, url: unknown): string => {
  if (typeof url === 'string' && isPlainHttps(url)) return url
  const named = typeof url === 'string' ? visible(url.slice(0, 200)) : 'no URL'
  throw new Failure('usage', `${issuer} is to be reached by https only, with no user in the URL, and names ${named}.`)
}

/** What stands before an @ passes for the host of a link, and Node throws where it is not percent-encoded UTF-8. */
const isPlainHttps = (text: string): boolean => {
  const url = text.startsWith('https://') ? URL.parse(text) : null
  return url !== null && url.username === '' && url.password === ''
}

const readCode = ({ issuer }: Provider, { body }: Answered): Code => {
  const { device_code: deviceCode, user_code: userCode, verification_uri: uri, interval = usualSeconds } = body
  const { verification_uri_complete: wholeUri, expires_in: expiresIn } = body
  const lacking = (member: string): Failure =>
    malformed(issuer, `no device code to use: ${member} is not as RFC 8628 3.2 has it`)
  if (!isText(deviceCode, mostOfToken)) throw lacking('device_code')
  if (!isText(userCode, mostShown)) throw lacking('user_code')
  if (!isText(uri, mostShown)) throw lacking('verification_uri')
  if (!isSeconds(expiresIn)) throw lacking('expires_in')
  if (!isSeconds(interval)) throw lacking('interval')
  return {
    deviceCode,
    userCode,
    // Terminals make a link of it, and people follow it.
    uri: assertHttps(issuer, uri),
    wholeUri: isText(wholeUri, mostShown) && isPlainHttps(wholeUri) ? wholeUri : undefined,
    expiresIn,
    interval,
  }
}

const isSeconds = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value) && value >= 0 && value <= 86_400

const isText = (value: unknown, longest: number): value is string =>
  typeof value === 'string' && value !== '' && value.length <= longest

/** Undefined where there is none, or none that could be kept. */
const readRefreshToken = ({ body: { refresh_token: token } }: Answered): string | undefined =>
  isText(token, mostOfToken) ? token : undefined

/** It comes from the issuer itself, by TLS (OpenID Connect Core 3.1.3.7, 6); that it is for us is looked at all the same. */
const readTokens = ({ issuer, clientId }: Provider, answer: Answered): Tokens => {
  const { id_token: idToken } = answer.body
  const refreshToken = readRefreshToken(answer)
  if (typeof idToken === 'string' && idToken.length > mostOfIdToken) throw tooLong(issuer, idToken)
  if (!isText(idToken, mostOfIdToken) || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(idToken))
    throw malformed(issuer, 'no id token')
  const { iss, aud } = claimsOf(idToken)
  if (iss !== issuer) throw new Failure('usage', `${issuer} gave a token of another issuer.`)
  if (aud !== clientId && !(Array.isArray(aud) && aud.includes(clientId)))
    throw new Failure('usage', `${issuer} gave a token that is not for the client ${clientId}.`)
  if (endOf(idToken) === 0) throw malformed(issuer, 'a token without an end')
  if (subjectOf(idToken) === undefined) throw malformed(issuer, 'a token that is of nobody')
  return { idToken, ...(refreshToken !== undefined && { refreshToken }) }
}

/** As of somebody in hundreds of groups. The service would say what it says of any token that it cannot read. */
const tooLong = (issuer: string, { length }: string): Failure => {
  const most = `of ${length} characters, and the service takes ${mostOfIdToken}`
  return malformed(
    issuer,
    `no id token to log in by: it is one ${most}; have it tell only the groups that are of use here`,
  )
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
  /** Seconds; undefined where nothing is said that can be read. */
  readonly retryAfter: number | undefined
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
        : away(reasonOf(error)),
    )
    // As by 101, which Node takes for the end of HTTP.
    call.on('close', () => away('the connection ended before a whole answer'))
    call.on('response', (response) => {
      const chunks: Buffer[] = []
      let octets = 0
      response.on('data', (chunk: Buffer) => {
        octets += chunk.length
        if (octets <= maxOctets) return chunks.push(chunk)
        response.destroy()
        return away('its answer has no end')
      })
      response.on('error', (error) => away(reasonOf(error)))
      response.on('end', () => {
        const { statusCode: status = 0, headers } = response
        resolve({ status, retryAfter: secondsOf(headers['retry-after']), body: parse(Buffer.concat(chunks)) })
      })
    })
    call.end(form)
  })

const reasonOf = ({ name, message }: Error): string => {
  if (name === 'AbortError') return `no whole answer within ${patienceMs / 1_000} s`
  const tls = tlsReasonOf(message)
  return tls === undefined ? message || name : `TLS fails (${tls})`
}

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
/** Characters. Each is sent in a header of 16 KiB at most, or kept in a file. */
const mostOfToken = 32_768
/** Those of the service (keys/jwt.ts). */
export const mostOfIdToken = 8_192
const mostShown = 2_048
/** RFC 8628 3.2; nobody is asked more often than each second, whatever is said. */
const usualSeconds = 5
const shortestSeconds = 1
/** Somebody has typed the code meanwhile, and waits. */
const longestSeconds = 30
