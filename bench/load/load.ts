/**
 * The load. `wrk` makes it: C on epoll, some 24 µs of a core a request with TLS, where a generator in Node takes over
 * 100 µs, more than what it measures has for itself on a machine of two cores. Where wrk is not installed a small one
 * in Node takes its place, for every target alike; the table says so.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { outputOf, start } from '../process.ts'

export type Generator = 'wrk' | 'node'

export interface Shot {
  readonly url: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | Buffer
  readonly clients: number
  readonly seconds: number
  /** Begins the Idempotency-Key of each request. */
  readonly keys?: string
  /** A file with a body on each line, each used once. */
  readonly bodies?: string
  /** What clients show; not by wrk. */
  readonly client?: { readonly cert: string; readonly key: string }
  /** One for each request, with a handshake of its own or of a session that is resumed; not by wrk. */
  readonly connections?: 'new' | 'resumed'
}

/** Times in milliseconds, as seen by the clients. */
export interface Yield {
  readonly seconds: number
  /** Answers, of any status. */
  readonly requests: number
  readonly statusErrors: number
  readonly socketErrors: number
  readonly timeouts: number
  /** Of the generator itself. */
  readonly processorSeconds: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

export const pickGenerator = (wanted: Generator | undefined): Generator =>
  wanted ?? (outputOf('wrk', '-v') === undefined ? 'node' : 'wrk')

/** Runs to the end and resolves to what was counted. Rejects if the generator itself fails. */
export const shoot = async (generator: Generator, folder: string, shot: Shot): Promise<Yield> => {
  const path = (name: string): string => join(folder, `load-${name}`)
  const headers = Object.entries(shot.headers).map(([name, value]) => `${name}: ${value}\n`)
  await writeFile(path('headers'), headers.join(''))
  await writeFile(path('body'), shot.body)
  const { client, connections } = shot
  if (client) await Promise.all([writeFile(path('cert'), client.cert), writeFile(path('key'), client.key)])
  const env = {
    ...(client && { BENCH_CERT: path('cert'), BENCH_KEY: path('key') }),
    ...(connections && { BENCH_CONNECTIONS: connections }),
    BENCH_METHOD: shot.method,
    BENCH_HEADERS: path('headers'),
    BENCH_BODY: path('body'),
    BENCH_RESULT: path('result'),
    ...(shot.keys !== undefined && { BENCH_KEYS: shot.keys }),
    ...(shot.bodies !== undefined && { BENCH_BODIES: shot.bodies }),
  }
  const { clients, seconds, url } = shot
  const size = ['-c', String(clients), '-d', `${seconds}s`]
  const program =
    generator === 'wrk'
      ? { command: 'wrk', args: ['-t', '1', ...size, '--timeout', '10s', '--latency', '-s', luaFile, url] }
      : { command: process.execPath, args: [nodeFile, ...size, url] }
  const started = await start({ ...program, env, log: path('log') })
  if ((await started.exited) !== 0) throw new Error(`${generator} failed:\n${await started.lastWords()}`)
  return JSON.parse(await readFile(path('result'), 'utf8'))
}

const luaFile = join(import.meta.dirname, 'wrk.lua')
const nodeFile = join(import.meta.dirname, 'node.ts')
