/**
 * The REST client of the commands: HTTPS to one server, which must show a certificate under the given trust anchor,
 * with a bearer token from a file. It knows nothing of the service but its API.
 */
import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'

import { assertServer, type CertificateFiles, type Context, chooseContext, type NamedContext } from './contexts.ts'
import { Failure } from './failure.ts'
import { failureOf, parsed } from './refused.ts'

export interface ClientOptions {
  /** `https://host:port`. */
  readonly server?: string
  /** PEM file with what the server's certificate must chain to. */
  readonly ca?: string
  readonly tokenFile?: string
  /** By its name in the context file. */
  readonly context?: string
  /** For calls that anyone may make: no token is looked for, and none is sent. */
  readonly anonymous?: boolean
  /** A token that is not there is missed only when a call needs it. */
  readonly tokenLater?: boolean
}

/** A certificate, its leaf first, and its key; PEM. */
export interface Identity {
  readonly cert: string
  readonly key: string
}

export interface Call {
  readonly headers?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly accept?: string
  /** Sent as it is, with its own Content-Type in `headers`; anything but text goes as JSON. */
  readonly body?: unknown
  /** Ends it early; what it did is then unknown. */
  readonly signal?: AbortSignal | undefined
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly octets: Buffer
  readonly text: string
  /** The body of a JSON answer. */
  json<T>(): T
}

export interface Client {
  /** Whom it asks: `https://host:port`. */
  readonly origin: string
  /** Whether a token says who asks, or a certificate that somebody has logged in by. */
  readonly hasToken: boolean
  /** Asks the same server over mutual TLS with this certificate, and without a token. */
  as(identity: Identity): Client
  /** Resolves for every 2xx. Rejects with a `Failure` that has the sentence and the exit code for anything else. */
  call(method: string, path: string, call?: Call): Promise<Answer>
  /**
   * GETs what is too long to be held: each piece is given to `take`, and the next comes when that is done. Rejects like
   * `call`, and where the answer breaks off.
   */
  stream(path: string, call: Pick<Call, 'query' | 'accept'>, take: (piece: Buffer) => Promise<void>): Promise<void>
}

/** What the environment of a client may say; none of these is a setting of the service. */
export const clientVariables = {
  CHANCERY_URL: 'the server, https://127.0.0.1:8443 by default',
  CHANCERY_CACERT: 'the trust anchor for its certificate, <data>/root.pem and <data>/stand-in.pem by default',
  CHANCERY_TOKEN_FILE: 'the file with your bearer token, <data>/admin.token by default',
  CHANCERY_TOKEN: 'the token itself, where a file is out of reach',
  CHANCERY_CONTEXT: 'which context of the context file, the current one by default; empty for none',
} as const

/**
 * A service that no issuer can sign for shows a certificate of its own, though the root of better days is still there: then
 * both are trusted, for the command line is what brings the next issuer. That is no way in: the key of a stand-in never
 * leaves the service, and whoever could put another one there could put another root there too. One that only the
 * service may read takes no root away from whoever may read that.
 */
const readAnchorsIn = async (data: string): Promise<string> => {
  const [root, standIn] = [join(data, 'root.pem'), join(data, 'stand-in.pem')]
  const where = 'a service that starts here makes it, or '
  if (!existsSync(standIn)) return readAnchor(root, where)
  if (!existsSync(root)) return readAnchor(standIn, where)
  return `${await readAnchor(root, where)}\n${await readAnchor(standIn).catch(() => '')}`
}

/** One name in a path. `.` and `..` would be taken for steps (RFC 3986 5.2.4). Throws a usage failure. */
export const segment = (name: string): string => {
  if (['', '.', '..'].includes(name)) throw new Failure('usage', `${JSON.stringify(name)} is no name.`)
  return encodeURIComponent(name)
}

/** Whom to ask, trusting what, as whom. */
export interface Place {
  readonly server: string
  /** PEM. */
  readonly ca: string
  /** A failure where there is none, though one is needed. */
  readonly token?: string | Failure | undefined
  /** In place of a token. */
  readonly identity?: Identity
  /** The certificate stands for itself, and for no principal. */
  readonly isItself?: boolean
}

/**
 * Options win over the environment, and this over the context; without any, the data folder of a service on this machine is
 * looked at. What a context says goes with its server only: whoever names another one says whom to trust there, too.
 */
export const openClient = async (options: ClientOptions, env: Environment): Promise<Client> => {
  const context = await chooseContext(options.context, env)
  const server = options.server ?? env['CHANCERY_URL'] ?? context?.server ?? usualServer
  assertServer(server)
  const data = env['CHANCERY_DATA'] ?? 'data'
  const ours = context && new URL(context.server).origin === new URL(server).origin ? context : undefined
  const anchorFile = options.ca ?? env['CHANCERY_CACERT']
  const ca = anchorFile === undefined ? (ours?.ca ?? (await readAnchorsIn(data))) : await readAnchor(anchorFile)
  if (options.anonymous) return clientAt({ server, ca })
  const proof = await proofOf(options, ours, env).catch((error: unknown): Proof => {
    if (options.tokenLater && error instanceof Failure) return { token: error }
    throw error
  })
  return clientAt({ server, ca, ...proof })
}

type Proof = Pick<Place, 'token' | 'identity'>

const proofOf = async (options: ClientOptions, ours: NamedContext | undefined, env: Environment): Promise<Proof> => {
  const said = saidOf(options, env)
  if (!said && ours) return proofIn(ours, env)
  return { token: await tokenIn(said ?? standardToken(env['CHANCERY_DATA'] ?? 'data')) }
}

/** As whom a context asks. Its login at an identity provider is loaded where there is one: most have none. */
const proofIn = async (context: NamedContext, env: Environment): Promise<Proof> => {
  const { certificate, oidc } = context
  if (certificate) return { identity: await readIdentity(certificate) }
  if (!oidc) return { token: await tokenIn(context) }
  return { token: await (await import('./oidc-context.ts')).freshToken({ ...context, oidc }, env) }
}

/** Throws a usage failure. */
export const readIdentity = async ({ certificateFile, keyFile }: CertificateFiles): Promise<Identity> => {
  const [cert, key] = [await readNamed('certificate', certificateFile), await readNamed('key', keyFile)]
  try {
    createSecureContext({ cert, key })
  } catch (error) {
    throw new Failure('usage', `${keyFile} is not the key of ${certificateFile}: ${(error as Error).message}.`)
  }
  return { cert, key }
}

const readNamed = (what: string, path: string): Promise<string> =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Failure('usage', `The ${what} ${path} cannot be read (${error.code}).`)
  })

/** What a server, or what stands in its place, may cost whoever asks it. */
export interface Bounds {
  /** Until a whole answer is there; of a stream, until it begins. Milliseconds. */
  readonly longestMs: number
  /** Of an answer that is held. */
  readonly mostOctets: number
}

export const clientAt = ({ server, isItself = false, ...shown }: Place, bounds: Bounds = usualBounds): Client => {
  const base = new URL(server)
  return {
    origin: base.origin,
    hasToken: !isItself && (shown.identity !== undefined || typeof shown.token === 'string'),
    as: (identity) => clientAt({ server, ca: shown.ca, identity, isItself: true }, bounds),
    call: async (method, path, call = {}) => {
      const answer = await send(urlOf(base, path, call.query), { method, ...shown }, { call, bounds })
      if (answer.status >= 200 && answer.status < 300) return answer
      throw failureOf(answer)
    },
    stream: async (path, call, take) => {
      const timer = openTimer(bounds)
      const sending = { method: 'GET', ...shown }
      const incoming = await open(urlOf(base, path, call.query), sending, { ...call, signal: timer.signal })
      const status = incoming.statusCode ?? 0
      if (status < 200 || status >= 300) throw failureOf(await readWhole(incoming, bounds))
      timer.stop()
      try {
        for await (const piece of incoming) await take(piece as Buffer)
      } catch (error) {
        if (error instanceof Failure) throw error
        throw brokenOff(error as Error)
      }
    },
  }
}

type TokenSource = Pick<Context, 'token' | 'tokenFile'>

/** The token that is said here. Throws a usage failure where it is none. */
export const tokenIn = async ({ tokenFile, token = '' }: TokenSource): Promise<string> => {
  const text = (tokenFile === undefined ? token : await readOption('token', tokenFile)).trim()
  if (/^[\x21-\x7e]+$/.test(text)) return text
  throw new Failure('usage', 'The token is empty or no token; name another file by --token-file.')
}

const saidOf = (options: ClientOptions, env: Environment): TokenSource | undefined => {
  const tokenFile = options.tokenFile ?? env['CHANCERY_TOKEN_FILE']
  if (tokenFile !== undefined) return { tokenFile }
  const token = env['CHANCERY_TOKEN']
  return token === undefined ? undefined : { token }
}

const standardToken = (data: string): TokenSource => ({ tokenFile: join(data, 'admin.token') })

type Sending = Omit<Place, 'server'> & { readonly method: string }
type Environment = Readonly<Record<string, string | undefined>>

const send = async (
  url: URL,
  sending: Sending,
  { call, bounds }: { readonly call: Call; readonly bounds: Bounds },
): Promise<Answer> => {
  const timer = openTimer(bounds)
  const signal = call.signal ? AbortSignal.any([call.signal, timer.signal]) : timer.signal
  try {
    return await readWhole(await open(url, sending, { ...call, signal }), bounds)
  } finally {
    timer.stop()
  }
}

/** Silence is bounded apart; one that sends an octet now and then would be waited for as long as it likes. */
const openTimer = ({ longestMs }: Bounds): { readonly signal: AbortSignal; stop(): void } => {
  const ending = new AbortController()
  const timer = setTimeout(
    () => ending.abort(new Error(`no whole answer within ${longestMs / 1000} s`)),
    longestMs,
  ).unref()
  return { signal: ending.signal, stop: () => clearTimeout(timer) }
}

/** Resolves when the answer begins. */
const open = (
  url: URL,
  { method, ca, token, identity }: Sending,
  { headers = {}, accept, body, signal }: Call,
): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    if (token instanceof Failure) throw token
    const octets = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
    const outgoing = request(url, {
      method,
      ca,
      ...identity,
      timeout: patienceMs,
      ...(signal && { signal }),
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        accept: accept ?? 'application/json',
        ...(octets !== undefined && {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(octets),
        }),
        ...headers,
      },
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${patienceMs / 1000} s`)))
    outgoing.on('error', (error: NodeJS.ErrnoException) => reject(unanswered(url, error)))
    outgoing.on('response', resolve)
    outgoing.end(octets)
  })

const readWhole = (incoming: IncomingMessage, { mostOctets }: Bounds): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    incoming.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > mostOctets) return void incoming.destroy(new Error(`it is longer than ${mostOctets} octets`))
      chunks.push(chunk)
    })
    incoming.on('error', (error) => reject(brokenOff(error)))
    incoming.on('end', () => {
      const octets = Buffer.concat(chunks)
      const { statusCode: status = 0, headers } = incoming
      resolve({
        ...{ status, headers, octets },
        get text() {
          return octets.toString()
        },
        json: <T>() => {
          const value = parsed(octets.toString())
          if (value === undefined)
            throw new Failure('failed', `The server answered ${status} with no JSON; is it Chancery?`)
          return value as T
        },
      })
    })
  })

const brokenOff = (error: Error): Failure => new Failure('later', `The answer broke off: ${reasonOf(error)}.`)

/** Of what was given up, why. */
const reasonOf = ({ name, message, cause }: Error): string =>
  name === 'AbortError' && cause instanceof Error ? cause.message : message || name

const unanswered = ({ origin }: URL, error: NodeJS.ErrnoException): Failure => {
  if (isOfServer(error))
    return new Failure(
      'usage',
      `${origin} shows a certificate that is not for it, or not for now (${error.code}).`,
      undefined,
      error,
    )
  if (!isOfTrust(error)) return unreached(origin, error)
  const refused = `${origin} does not show a certificate that the trust anchor vouches for (${error.code})`
  return new Failure('usage', `${refused}; name another by --ca.`, undefined, error)
}

const unreached = (origin: string, error: NodeJS.ErrnoException): Failure => {
  const named = 'name that of the API by --server or CHANCERY_URL'
  const [, tls] = /:SSL routines:[^:]*:([^:\n]+)/.exec(error.message) ?? []
  if (tls === 'wrong version number')
    return new Failure('usage', `${origin} speaks no TLS (${tls}): it may be a port for plain HTTP; ${named}.`)
  const reason = tls === undefined ? reasonOf(error) : `TLS fails (${tls})`
  const hint = origin === usualServer ? `; where it is elsewhere, ${named}` : ''
  return new Failure('later', `${origin} cannot be reached: ${reason}${hint}.`)
}

/** No retry mends these: OpenSSL's reasons for not trusting a certificate, and Node's for its names. */
const isOfTrust = ({ code = '' }: NodeJS.ErrnoException): boolean =>
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|ERR_TLS_CERT|INVALID_CA)/.test(code)

/** Those that no other trust anchor mends: whoever runs the server has to. */
export const isOfServer = (error: unknown): boolean =>
  ownFaults.has((error as NodeJS.ErrnoException | undefined)?.code ?? '')

const ownFaults: ReadonlySet<string> = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'ERR_TLS_CERT_ALTNAME_FORMAT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
])

const urlOf = (base: URL, path: string, query: Call['query'] = {}): URL => {
  const url = new URL(path, base)
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value)
  return url
}

/** Without a certificate in it, every server would be blamed for its own. */
const readAnchor = async (path: string, where = ''): Promise<string> => {
  const text = await readOption('trust anchor', path, where)
  try {
    new X509Certificate(text)
    return text
  } catch {
    throw new Failure(
      'usage',
      `The trust anchor ${path} has no certificate in PEM; name another by --ca or CHANCERY_CACERT.`,
    )
  }
}

/** `where` it comes from, if nobody named it. */
const readOption = async (what: string, path: string, where = ''): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const names = what === 'token' ? '--token-file or CHANCERY_TOKEN_FILE' : '--ca or CHANCERY_CACERT'
    throw new Failure('usage', `The ${what} ${path} cannot be read (${code}); ${where}name another by ${names}.`)
  }
}

const usualServer = 'https://127.0.0.1:8443'
/** Of silence. */
const patienceMs = 30_000
const usualBounds: Bounds = { longestMs: 120_000, mostOctets: 64 * 1024 * 1024 }
