/**
 * The REST client of the commands: HTTPS to one server, which must show a certificate under the given trust anchor,
 * with a bearer token from a file. It knows nothing of the service but its API.
 */

import { existsSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { join } from 'node:path'

import { Failure, type FailureKind } from '../lib/failure.ts'
import { assertServer, chooseContext, type Environment, type NamedContext } from './contexts.ts'
import { notTls, tlsReasonOf } from './fetch-fault.ts'
import { type Identity, type Proof, proofOf, readOption } from './proof.ts'
import { type Answer, failureOf, parsed } from './rejected.ts'
import { trustFault } from './trust.ts'

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

export interface Call {
  readonly headers?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly accept?: string
  /** Sent as it is, with its own Content-Type in `headers`; anything but text goes as JSON. */
  readonly body?: unknown
  /** Milliseconds of silence until it is given up, where the work takes longer than usual. */
  readonly patienceMs?: number
  /** Ends it early; what it did is then unknown. */
  readonly signal?: AbortSignal | undefined
}

export type StreamCall = Pick<Call, 'query' | 'accept' | 'patienceMs'>

export interface Client {
  /** Whom it asks: `https://host:port`. */
  readonly origin: string
  /** Whether a token says who asks, or a certificate that somebody has logged in by. */
  readonly hasToken: boolean
  /** Its token is one of an identity provider, and may count for a single request (`once` of a mapping). */
  readonly mayCountOnce?: boolean
  /** Asks the same server over mutual TLS with this certificate, and without a token. */
  as(identity: Identity): Client
  /** Resolves for every 2xx. Rejects with a `Failure` that has the sentence and the exit code for anything else. */
  call(method: string, path: string, call?: Call): Promise<Answer>
  /**
   * GETs what is too long to be held: each piece is given to `take`, and the next comes when that is done. Rejects like
   * `call`, and where the answer breaks off.
   */
  stream(path: string, call: StreamCall, take: (piece: Buffer) => Promise<void>): Promise<void>
}

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
export interface Place extends Proof {
  readonly server: string
  /** PEM. */
  readonly ca: string
  /** The certificate stands for itself, and for no principal. */
  readonly isItself?: boolean
}

/**
 * Options win over the environment, and this over the context; without any, the data folder of a service on this machine is
 * looked at. What a context says goes with its server only: whoever names another one says whom to trust there, too.
 */
export const openClient = async (options: ClientOptions, env: Environment): Promise<Client> => {
  const { server, context } = await chooseServer(options, env)
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

/** Which server is meant, as it was named: the context's where neither an option nor the environment names one. */
export const chooseServer = async (
  { server, context: name }: Pick<ClientOptions, 'server' | 'context'>,
  env: Environment,
): Promise<{ readonly server: string; readonly context: NamedContext | undefined }> => {
  const context = await chooseContext(name, env)
  return { server: server ?? env['CHANCERY_URL'] ?? context?.server ?? localServer(env), context }
}

/** What a server, or what stands in its place, may cost whoever asks it. */
export interface Bounds {
  /** Until a whole answer is there; of a stream, until it begins. Milliseconds. */
  readonly longestMs: number
  /** Of an answer that is held. */
  readonly mostOctets: number
}

export const clientAt = ({ server, isItself = false, ...shown }: Place, bounds: Bounds = usualBounds): Client => {
  const base = new URL(server)
  let { token } = shown
  /** Came in place of another, and was never taken: no provider is asked for the next one by each call. */
  let vain: string | undefined
  /** Nothing was done for whoever was not let in: with another token, where there is one, it is asked once more. */
  const asking = async <T>(ask: (as: Omit<Sending, 'method'>) => Promise<T>): Promise<T> => {
    const shownNow = token
    try {
      return await ask({ ...shown, token: shownNow })
    } catch (error) {
      if (typeof shownNow !== 'string' || shownNow === vain || !isStale(error)) throw error
      const other = await shown.another?.(shownNow).catch(({ message }: Error) => {
        throw new Failure(error.kind, `${error.message}\n${message}`, error.problem)
      })
      if (other === undefined) throw error
      token = other
      return ask({ ...shown, token: other }).catch((error: unknown) => {
        if (isStale(error)) vain = other
        throw error
      })
    }
  }
  return {
    origin: base.origin,
    hasToken: !isItself && (shown.identity !== undefined || typeof shown.token === 'string'),
    // Tokens of ours have no dots.
    mayCountOnce: typeof shown.token === 'string' && shown.token.includes('.'),
    as: (identity) => clientAt({ server, ca: shown.ca, identity, isItself: true }, bounds),
    call: (method, path, call = {}) =>
      asking(async (as) => {
        const answer = await send(urlOf(base, path, call.query), { method, ...as }, { call, bounds })
        if (answer.status >= 200 && answer.status < 300) return answer
        throw failureOf(answer)
      }),
    stream: async (path, call, take) => {
      const timer = openTimer(bounds)
      const incoming = await asking(async (as) => {
        const sending = { method: 'GET', ...as }
        const found = await open(urlOf(base, path, call.query), sending, { ...call, signal: timer.signal })
        const status = found.statusCode ?? 0
        if (status >= 200 && status < 300) return found
        throw failureOf(await readWhole(found, bounds))
      })
      timer.stop()
      try {
        for await (const piece of incoming) {
          // Whoever takes his time with it, as a pager does, is not waiting for the server.
          waitFor(incoming, 0)
          await take(piece as Buffer)
          waitFor(incoming, call.patienceMs ?? usualPatienceMs)
        }
      } catch (error) {
        if (error instanceof Failure) throw error
        throw brokenOff(error as Error)
      }
    },
  }
}

/** Another token may be taken: this one has ended, was spent, or its issuer has given up the key that signed it. */
const isStale = (error: unknown): error is Failure =>
  error instanceof Failure && staleCodes.has(error.problemCode ?? '')

const staleCodes: ReadonlySet<string> = new Set(['auth.invalid', 'auth.expired', 'auth.replayed'])

type Sending = Omit<Place, 'server' | 'another'> & { readonly method: string }

const send = async (
  url: URL,
  sending: Sending,
  { call, bounds }: { readonly call: Call; readonly bounds: Bounds },
): Promise<Answer> => {
  const timer = openTimer(bounds)
  const signal = call.signal ? AbortSignal.any([call.signal, timer.signal]) : timer.signal
  try {
    return await readWhole(await open(url, sending, { ...call, signal }), bounds, signal)
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
  { headers = {}, accept, body, patienceMs = usualPatienceMs, signal }: Call,
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
    let answer: IncomingMessage | undefined
    // Of an answer that has begun, Node would say no more than that it was aborted.
    outgoing.on('timeout', () =>
      answer
        ? answer.destroy(new Error(`no more of it within ${patienceMs / 1000} s`))
        : outgoing.destroy(new Error(`no answer within ${patienceMs / 1000} s`)),
    )
    outgoing.on('error', (error: NodeJS.ErrnoException) => reject(unanswered(url, error)))
    // As by 101, which Node takes for the end of HTTP.
    outgoing.on('close', () => reject(unanswered(url, new Error('the connection ended before an answer'))))
    outgoing.on('response', (incoming) => {
      answer = incoming
      resolve(incoming)
    })
    outgoing.end(octets)
  })

const readWhole = (incoming: IncomingMessage, { mostOctets }: Bounds, signal?: AbortSignal): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    incoming.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > mostOctets) return void incoming.destroy(new Error(`it is longer than ${mostOctets} octets`))
      chunks.push(chunk)
    })
    incoming.on('error', (error) => reject(brokenOff(signal?.aborted ? signal.reason : error)))
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

/** For more of it, so long; 0: as long as may be. What is whole has left its connection to the next. */
const waitFor = (incoming: IncomingMessage, milliseconds: number): void => {
  if (!incoming.complete && !incoming.destroyed) incoming.setTimeout(milliseconds)
}

const brokenOff = (error: Error): Failure => new Failure('later', `The answer broke off: ${reasonOf(error)}.`)

/** Of what was given up, why. */
const reasonOf = ({ name, message, cause }: Error): string =>
  name === 'AbortError' && cause instanceof Error ? cause.message : message || name

/** Nobody has answered, or nobody whom we trust. `fact` is the same for the same fault: without the time, and what to do here. */
export class Unanswered extends Failure {
  readonly fact: string

  constructor(kind: FailureKind, fact: string, advice: string, cause: unknown) {
    super(kind, `${fact}${advice}.`, undefined, cause)
    this.fact = fact
  }
}

const unanswered = ({ origin }: URL, error: NodeJS.ErrnoException): Failure => {
  if (isOfServer(error)) {
    const fact = `${origin} shows a certificate that is not for it, or not for now (${error.code})`
    return new Unanswered('usage', fact, ofOurs(error), error)
  }
  if (!isOfTrust(error)) return unreached(origin, error)
  const fact = `${origin} does not show a certificate that the trust anchor vouches for (${error.code})`
  return new Unanswered('usage', fact, '; name another by --ca', error)
}

/** The clock that is wrong is ours more often than the server's, and so is the name. */
const ofOurs = ({ code = '' }: NodeJS.ErrnoException): string =>
  code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID'
    ? `: here it is ${new Date().toISOString()}; where that is wrong, set the clock, else tell whoever runs the server`
    : '; call the API as its certificate does, by --server or CHANCERY_URL'

const unreached = (origin: string, error: NodeJS.ErrnoException): Failure => {
  const named = '; name that of the API by --server or CHANCERY_URL'
  const tls = tlsReasonOf(error.message)
  if (tls === notTls)
    return new Unanswered('usage', `${origin} speaks no TLS (${tls}): it may be a port for plain HTTP`, named, error)
  const reason = tls === undefined ? reasonOf(error) : `TLS fails (${tls})`
  const advice = origin === usualServer ? `; where it is elsewhere, ${named.slice(2)}` : ''
  return new Unanswered('later', `${origin} cannot be reached: ${reason}`, advice, error)
}

/** No retry mends these: OpenSSL's reasons for not trusting a certificate, and Node's for its names. */
export const isOfTrust = (error: unknown): boolean =>
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|ERR_TLS_CERT|INVALID_CA)/.test(codeOf(error))

/** Those that no other trust anchor mends: whoever runs the server has to. */
export const isOfServer = (error: unknown): boolean => ownFaults.has(codeOf(error))

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | undefined)?.code ?? ''

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

const readAnchor = async (path: string, where = ''): Promise<string> =>
  assertAnchor(await readOption('trust anchor', path, where), path, '--ca or CHANCERY_CACERT')

/** Without a certificate in it, every server would be blamed for its own. `ways` to name another. */
export const assertAnchor = (text: string, path: string, ways: string): string => {
  const fault = trustFault(text)
  if (fault === undefined) return text
  throw new Failure('usage', `The trust anchor ${path} ${fault}; name another by ${ways}.`)
}

const usualServer = 'https://127.0.0.1:8443'

/** Where a service with this environment listens, called from the same machine. */
const localServer = ({ CHANCERY_LISTEN: listen }: Environment): string =>
  listen === undefined ? usualServer : `https://${listen.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, '127.0.0.1')}`
/** Of silence. */
const usualPatienceMs = 30_000
const usualBounds: Bounds = { longestMs: 120_000, mostOctets: 64 * 1024 * 1024 }
