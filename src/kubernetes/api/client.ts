/**
 * Calls to the API server: HTTPS on connections that are kept, with what the cluster's access says at that moment. Reading a
 * bounded JSON answer, and reading a watch line by line, are all there is.
 */
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'

/** How to reach the API server now: tokens and certificates change while we run. */
export interface Access {
  /** `https://host:port`, perhaps with a path. */
  readonly server: string
  readonly headers: Readonly<Record<string, string>>
  /** PEM. */
  readonly tls: {
    readonly ca?: string
    readonly cert?: string
    readonly key?: string
    readonly servername?: string
  }
}

export interface ApiCall {
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly body?: unknown
  /** `merge`: RFC 7396. JSON otherwise. */
  readonly patch?: 'apply' | 'merge'
  readonly signal?: AbortSignal
}

export interface KubernetesApi {
  /** Resolves to the body of a 2xx. Rejects with an `ApiFault`, or with the reason of the signal. */
  call<T>(method: string, path: string, call?: ApiCall): Promise<T>
  /** Gives each line of a 200 to `take`; resolves when the answer has ended whole. Rejects like `call`. */
  lines(path: string, call: LinesCall): Promise<void>
  /** Ends what is idle; calls that are under way go on. */
  close(): void
}

export interface LinesCall {
  readonly query: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
  /** Milliseconds until the answer has ended: by then whoever was asked to end it must have. */
  readonly patienceMs: number
  /** The answer has begun, with 200. */
  begun?(): void
  take(line: string): void
}

/** What the API server has answered instead, or `status` 0: nobody did. */
export class ApiFault extends Error {
  readonly status: number
  /** Of the Status object: Conflict, AlreadyExists, Expired, Forbidden, … */
  readonly reason: string
  /** Seconds, and a minute at most. */
  readonly retryAfter: number | undefined

  constructor(status: number, message: string, about: { readonly reason?: string; readonly retryAfter?: number } = {}) {
    super(message)
    this.name = 'ApiFault'
    this.status = status
    this.reason = about.reason ?? ''
    this.retryAfter = about.retryAfter
  }
}

export const isApiFault = (error: unknown, status?: number): error is ApiFault =>
  error instanceof ApiFault && (status === undefined || error.status === status)

/** `wholeMs`: how long an answer may take that is no watch, and the head of one that is. */
export const openApi = (access: () => Promise<Access>, { wholeMs = usualWholeMs } = {}): KubernetesApi => {
  const agents = openAgents()
  const send = async (method: string, path: string, sending: Sending): Promise<IncomingMessage> => {
    const { server, headers, tls } = await untilEnded(access(), sending.signal)
    const url = new URL(`${server.replace(/\/$/, '')}${path}`)
    for (const [name, value] of Object.entries(sending.query ?? {}))
      if (value !== undefined) url.searchParams.set(name, value)
    return open(url, { ...sending, method, headers, agent: agents.of(tls) })
  }
  return {
    call: <T>(method: string, path: string, call: ApiCall = {}): Promise<T> =>
      within(wholeMs, call.signal, async (signal) => {
        const incoming = await send(method, path, { ...call, signal, patienceMs: callPatienceMs })
        const text = await readWhole(incoming, signal)
        return answerOf(incoming, text) as T
      }),
    lines: (path, { query, patienceMs, begun, take, ...call }) =>
      within(patienceMs, call.signal, async (signal) => {
        // Until it says that it is one, it may be an answer like any other.
        const incoming = await within(wholeMs, signal, async (signal) => {
          const answer = await send('GET', path, { query, signal, patienceMs: Math.min(patienceMs, callPatienceMs) })
          if (answer.statusCode !== 200) answerOf(answer, await readWhole(answer, signal))
          return answer
        })
        if (incoming.statusCode !== 200) return
        begun?.()
        await readLines(incoming, { take, signal })
      }),
    close: agents.close,
  }
}

/**
 * Silence alone is no bound: a server, or a proxy before it, that sends an octet now and then is never silent, and whoever waits for
 * its answer would do nothing else.
 */
const within = async <T>(
  ms: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> => {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(new ApiFault(0, `no whole answer within ${ms / 1_000} s`)), ms)
  try {
    return await work(signal ? AbortSignal.any([signal, late.signal]) : late.signal)
  } finally {
    clearTimeout(timer)
  }
}

/** Where a kubeconfig names a program that says who we are, it may hang, and is told of no signal. */
const untilEnded = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    const end = (): void => reject(isApiFault(signal.reason) ? new ApiFault(0, whoWeAreText) : signal.reason)
    // What has ended already tells nobody again.
    if (signal.aborted) end()
    signal.addEventListener('abort', end)
    // With a listener, a signal that depends on others lives as long as they do.
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', end))
  })

type Sending = ApiCall & { readonly signal: AbortSignal; readonly patienceMs: number }

interface Outgoing extends Sending {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly agent: Agent
}

const open = (
  url: URL,
  { method, headers, agent, body, patch, signal, patienceMs }: Outgoing,
): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const octets = body === undefined ? undefined : JSON.stringify(body)
    const outgoing = request(url, {
      method,
      agent,
      timeout: patienceMs,
      signal,
      headers: {
        accept: 'application/json',
        'user-agent': 'chancery-controller',
        ...headers,
        ...(octets !== undefined && {
          'content-type': mediaTypes[patch ?? 'json'],
          'content-length': Buffer.byteLength(octets),
        }),
      },
    })
    // A watch is silent for minutes, and a network that has forgotten it says nothing either.
    outgoing.on('socket', (socket) => socket.setKeepAlive(true, keepAliveMs))
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${patienceMs / 1_000} s`)))
    outgoing.on('error', (error) => reject(unreachable(error, signal)))
    // As by 101, which Node takes for the end of HTTP.
    outgoing.on('close', () => reject(unreachable(new Error('the connection ended before an answer'), signal)))
    outgoing.on('response', (incoming) => {
      outgoing.setTimeout(0)
      resolve(incoming)
    })
    outgoing.end(octets)
  })

const readWhole = async (incoming: IncomingMessage, signal: AbortSignal): Promise<string> => {
  incoming.setTimeout(callPatienceMs, () => incoming.destroy(new Error('the answer stands still')))
  const pieces: Buffer[] = []
  let length = 0
  try {
    for await (const piece of incoming) {
      length += (piece as Buffer).length
      if (length > mostBytes) throw new ApiFault(0, `an answer is longer than ${mostBytes} bytes`)
      pieces.push(piece as Buffer)
    }
  } catch (error) {
    throw unreachable(error as Error, signal)
  }
  // Where only the end of the connection ends it, what was given up looks whole.
  signal.throwIfAborted()
  return Buffer.concat(pieces).toString()
}

const readLines = async (
  incoming: IncomingMessage,
  { take, signal }: Pick<LinesCall, 'take' | 'signal'>,
): Promise<void> => {
  let rest = ''
  incoming.setEncoding('utf8')
  try {
    for await (const piece of incoming) {
      // Only the new piece is searched: a long line comes in a thousand pieces.
      const [first = '', ...others] = (piece as string).split('\n')
      const lines = [rest + first, ...others]
      rest = lines.pop() ?? ''
      if (rest.length > mostBytes) throw new ApiFault(0, `a line is longer than ${mostBytes} bytes`)
      for (const line of lines) if (line !== '') take(line)
    }
  } catch (error) {
    throw unreachable(error as Error, signal)
  }
  signal.throwIfAborted()
  if (rest === '') return
  // As of a server that was killed behind a proxy: the line is whole in the next answer.
  if (parsed(rest) === undefined) throw new ApiFault(0, 'the answer ends within a line')
  take(rest)
}

export interface StatusObject {
  readonly code?: number
  readonly message?: string
  readonly reason?: string
  readonly details?: { readonly retryAfterSeconds?: number }
}

/** Some refusals are plain text: a kind that is not installed, for one. */
const answerOf = ({ statusCode = 0, headers }: IncomingMessage, text: string): unknown => {
  const body = parsed(text)
  if (statusCode >= 200 && statusCode < 300) {
    if (body !== undefined) return body
    throw new ApiFault(statusCode, 'the API server answered with no JSON')
  }
  const told = (body ?? {}) as StatusObject
  const message = told.message ?? text.slice(0, 256).trim()
  throw faultOf({ ...told, code: statusCode, message }, headers['retry-after'])
}

/** Of a Status, which is an answer, or what a watch ends with. */
export const faultOf = (
  { code = 500, message = '', reason = '', details }: StatusObject,
  retryAfter?: string,
): ApiFault => {
  const asked = Number(details?.retryAfterSeconds ?? retryAfter)
  return new ApiFault(code, message, { reason, ...(asked > 0 && { retryAfter: Math.min(asked, mostRetryAfter) }) })
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const unreachable = (error: Error, signal: AbortSignal): unknown => {
  if (signal.aborted) return signal.reason
  return error instanceof ApiFault ? error : new ApiFault(0, error.message || error.name)
}

/** One for each set of certificates: a connection that was opened with others is not used any more. */
const openAgents = () => {
  const known = new Map<string, Agent>()
  return {
    of: (tls: Access['tls']): Agent => {
      const key = JSON.stringify(tls)
      const found = known.get(key)
      if (found) return found
      // Those of before end by themselves: sockets that are idle are closed by their timeout.
      known.clear()
      // No bound on sockets: `concurrency` has one, and the Lease must not wait behind writes that hang.
      const agent = new Agent({ ...tls, keepAlive: true, keepAliveMsecs: keepAliveMs, timeout: 60_000 })
      known.set(key, agent)
      return agent
    },
    close: () => {
      for (const agent of known.values()) agent.destroy()
      known.clear()
    },
  }
}

const mediaTypes = {
  json: 'application/json',
  apply: 'application/apply-patch+yaml',
  merge: 'application/merge-patch+json',
} as const
const keepAliveMs = 30_000
const callPatienceMs = 15_000
/** As long as the API server itself gives each call that is no watch (`--request-timeout`). */
const usualWholeMs = 60_000
/** The API server says seconds; whatever says an hour is before it, as while it is upgraded, and knows no better when that is over. */
const mostRetryAfter = 60
const whoWeAreText = 'the program that says who we are does not end: see the exec of the user in the kubeconfig'
/** A page of 50 requests is about 300 KiB; of the largest that etcd takes, some 75 MiB. */
const mostBytes = 128 * 1024 * 1024
