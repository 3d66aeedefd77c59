/** The generator for machines without wrk: as many keep-alive connections as clients, each asking again when answered. */
import { readFileSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({
  options: { c: { type: 'string', short: 'c' }, d: { type: 'string', short: 'd' } },
  allowPositionals: true,
})
const url = new URL(positionals[0] ?? '')
const clients = Number(values.c)
const seconds = Number.parseInt(values.d ?? '', 10)
const method = process.env['BENCH_METHOD'] ?? 'GET'
const body = readFileSync(process.env['BENCH_BODY'] ?? '')
const bodies = process.env['BENCH_BODIES'] ? readFileSync(process.env['BENCH_BODIES'], 'utf8').split('\n') : undefined
const prefix = process.env['BENCH_KEYS']
const headers = Object.fromEntries(
  readFileSync(process.env['BENCH_HEADERS'] ?? '', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(/: (.*)/, 2) as [string, string]),
)

const connections = process.env['BENCH_CONNECTIONS']
const fileOf = (name: string): Buffer | undefined => (process.env[name] ? readFileSync(process.env[name]) : undefined)
const [cert, key] = [fileOf('BENCH_CERT'), fileOf('BENCH_KEY')]

const latencies: number[] = []
const errors = { status: 0, socket: 0, timeout: 0 }
let count = 0

const ask = (agent: Agent): Promise<void> =>
  new Promise((resolve) => {
    count += 1
    const payload = bodies ? Buffer.from(bodies[count - 1] ?? '') : body
    const began = performance.now()
    const options = {
      method,
      agent,
      rejectUnauthorized: false,
      timeout: 10_000,
      headers: {
        ...headers,
        ...(method !== 'GET' && { 'content-length': String(payload.length) }),
        ...(prefix !== undefined && { 'idempotency-key': `${prefix}${count}` }),
      },
    }
    const call = request(url, options, (response) => {
      response.resume().on('end', () => {
        latencies.push(performance.now() - began)
        if ((response.statusCode ?? 0) > 299) errors.status += 1
        resolve()
      })
    })
    call.on('timeout', () => {
      errors.timeout += 1
      call.destroy()
    })
    call.on('error', () => {
      errors.socket += 1
      resolve()
    })
    call.end(method === 'GET' ? undefined : payload)
  })

const client = async (): Promise<void> => {
  const agent = new Agent({
    keepAlive: connections === undefined,
    maxSockets: 1,
    maxCachedSessions: connections === 'new' ? 0 : 1,
    ...(cert && key && { cert, key }),
  })
  while (performance.now() < end) await ask(agent)
  agent.destroy()
}

const began = performance.now()
const end = began + seconds * 1000
await Promise.all(Array.from({ length: clients }, client))
const took = (performance.now() - began) / 1000

latencies.sort((a, b) => a - b)
const at = (share: number): number =>
  latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0
const { user, system } = process.cpuUsage()
writeFileSync(
  process.env['BENCH_RESULT'] ?? '',
  JSON.stringify({
    seconds: took,
    requests: latencies.length,
    statusErrors: errors.status,
    socketErrors: errors.socket,
    timeouts: errors.timeout,
    processorSeconds: (user + system) / 1e6,
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    p999: at(0.999),
    max: at(1),
  }),
)
