import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type ApiFault, type KubernetesApi, openApi } from '../../src/kubernetes/api/client.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { leftByEach } from '../helpers/memory.ts'
import { ip } from '../x509/build.ts'

type Teardown = { teardown(close: () => void): unknown }
type Server = ReturnType<typeof createServer>

const open = async (
  t: Teardown,
  handle: Parameters<Server['on']>[1],
  bounds?: Parameters<typeof openApi>[1],
): Promise<KubernetesApi> => {
  const ca = openClientCa('HTTPS of an API server')
  const server = createServer(ca.certify({ usage: serverAuth, names: [ip('7f000001')] })).on('request', handle)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const api = openApi(async () => ({ server: `https://127.0.0.1:${port}`, headers: {}, tls: { ca: ca.pem } }), bounds)
  t.teardown(() => {
    api.close()
    server.closeAllConnections()
    server.close()
  })
  return api
}

t.test('however many writes hang, the next call is answered', async (t) => {
  let hanging = 0
  const { promise: hang, resolve: all } = Promise.withResolvers<void>()
  const api = await open(t, ({ url }, response) => {
    if (url === '/lease') response.end('{}')
    else if (++hanging === most) all()
  })
  const ending = new AbortController()
  t.teardown(() => ending.abort())
  for (let i = 0; i < most; i += 1) api.call('PATCH', '/status', { body: {}, signal: ending.signal }).catch(() => {})
  await Promise.race([hang, sleep(5_000)])
  t.same(await api.call('GET', '/lease', { signal: AbortSignal.timeout(10_000) }), {})
})

/** Sends one octet of it every so often, again and again, until nobody reads any more. */
const drip = (to: Duplex, octets: string): void => {
  let at = 0
  const timer = setInterval(() => void to.write(octets[at++ % octets.length]), 10)
  to.on('close', () => clearInterval(timer)).on('error', () => {})
}

t.test('an answer that comes in drops holds nobody for longer than the API server itself would take', async (t) => {
  const api = await open(
    t,
    ({ url, socket }) => {
      socket.write(url === '/head' ? 'HTTP/1.1 200 OK\r\nx-drops: ' : 'HTTP/1.1 200 OK\r\n\r\n')
      drip(socket, ' ')
    },
    { wholeMs: 300 },
  )
  const late = { status: 0, message: 'no whole answer within 0.3 s' }
  await t.rejects(api.call('PATCH', '/status', { body: {} }), late)
  await t.rejects(api.call('GET', '/head'), late, 'nor one whose head does not end')
  const reason = new Error('the lease is lost')
  const ending = new AbortController()
  setTimeout(() => ending.abort(reason), 50)
  await t.rejects(
    api.call('GET', '/list', { signal: ending.signal }),
    reason,
    'and whoever has asked may end it before',
  )
})

t.test('one that leaves HTTP instead of answering is not waited for', async (t) => {
  const api = await open(t, (_request, response) =>
    response.writeHead(101, { connection: 'upgrade', upgrade: 'other' }).end(),
  )
  const late = sleep(5_000, undefined, { ref: false })
  const ended = { status: 0, message: /the connection ended before an answer/ }
  await t.rejects(Promise.race([api.call('GET', '/list'), late]), ended)
})

t.test('a program that is to say who we are, and hangs, holds nobody for longer', async (t) => {
  const api = openApi(() => new Promise(() => {}), { wholeMs: 100 })
  await t.rejects(api.call('GET', '/list'), { status: 0, message: /^the program that says who we are does not end: / })
  const ending = new AbortController()
  setTimeout(() => ending.abort(new Error('the lease is lost')), 20)
  await t.rejects(api.call('PUT', '/lease', { body: {}, signal: ending.signal }), /the lease is lost/)
  const next = api.call('GET', '/lease', { signal: ending.signal })
  await t.rejects(Promise.race([next, sleep(1_000)]), /the lease is lost/, 'nor what is begun after the end')
})

t.test('a call that has ended leaves nothing with the signal that outlives it', async (t) => {
  const api = openApi(async () => {
    throw new Error('nobody says who we are')
  })
  const { signal } = new AbortController()
  t.ok((await leftByEach(() => api.call('GET', '/lease', { signal }).catch(() => {}))) < 500)
})

t.test('nor does what is asked for a watch and says in drops that it is none', async (t) => {
  const api = await open(
    t,
    ({ url, socket }) => {
      socket.write(url?.startsWith('/head') ? 'HTTP/1.1 200 OK\r\nx-drops: ' : 'HTTP/1.1 503 Busy\r\n\r\n')
      drip(socket, ' ')
    },
    { wholeMs: 300 },
  )
  const call = { query: {}, signal: AbortSignal.timeout(3_000), patienceMs: 10_000, take: () => {} }
  const late = { status: 0, message: 'no whole answer within 0.3 s' }
  await t.rejects(api.lines('/head', call), late)
  await t.rejects(api.lines('/list', call), late)
})

t.test('a watch that was to have ended is ended, whatever it still says', async (t) => {
  const api = await open(t, ({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    drip(socket, '{}\n')
  })
  const lines: string[] = []
  const watching = { query: {}, signal: new AbortController().signal, take: (line: string) => void lines.push(line) }
  await t.rejects(api.lines('/watch', { ...watching, patienceMs: 300 }), {
    ...{ status: 0, message: 'no whole answer within 0.3 s' },
  })
  t.ok(lines.length > 1, 'what came before was taken')
})

t.test('what asks for more than a minute of patience is believed for a minute', async (t) => {
  const waits: Readonly<Record<string, number | undefined>> = {
    ...{ '7': 7, '3600': 60, '1e999': 60, '0': undefined, '-5': undefined },
    ...{ 'Sat, 28 Nov 2026 06:00:00 GMT': undefined, '': undefined },
  }
  const said = Object.keys(waits)
  const api = await open(t, ({ url = '' }, response) => {
    const wait = said[Number(url.slice(1))]
    response.writeHead(503, { 'content-type': 'text/html', 'retry-after': wait }).end('<h1>We are upgrading</h1>')
  })
  for (const [i, wait] of said.entries())
    t.equal((await faultOf(api.call('PATCH', `/${i}`, { body: {} }))).retryAfter, waits[wait], wait)
  const status = { kind: 'Status', message: 'slow down', details: { retryAfterSeconds: 86_400 } }
  const throttled = await open(t, (_, response) => void response.writeHead(429).end(JSON.stringify(status)))
  t.match(await faultOf(throttled.call('GET', '/')), { status: 429, message: 'slow down', retryAfter: 60 })
})

t.test('an answer that is no JSON is none, and a watch that ends whole has ended', async (t) => {
  const api = await open(t, ({ url }, response) => {
    response.end(url?.startsWith('/watch') ? '{"first":1}\n\n{"second":2}\n' : '<h1>Sign in</h1>')
  })
  t.match(await faultOf(api.call('GET', '/')), { status: 200, message: 'the API server answered with no JSON' })
  const lines: string[] = []
  const watching = { query: {}, signal: new AbortController().signal, take: (line: string) => void lines.push(line) }
  await api.lines('/watch', { ...watching, patienceMs: 10_000 })
  t.same(lines, ['{"first":1}', '{"second":2}'])
})

const faultOf = (call: Promise<unknown>): Promise<ApiFault> =>
  call.then(
    () => t.fail(),
    (error) => error,
  )

/** As many as `concurrency` may be. */
const most = 256
