/** Good requests, and behind them on the same connection what is none: each gets its answer, in order, and then the end. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { Problem } from '../../src/errors.ts'
import { endConnectionsIn, lookAfter } from '../../src/http/sockets.ts'
import { drill } from '../helpers/drill.ts'
import { csrFor } from './people.ts'
import { openStandIn, reached, recordsOf } from './stand-in.ts'

const body = JSON.stringify({ csr: csrFor('a.example.com'), profile: 'server' })
const head = 'Host: x\r\nAuthorization: Bearer requester_\r\nContent-Type: application/json\r\n'
const call = `POST /v1/certificates HTTP/1.1\r\n${head}Content-Length: ${body.length}\r\n\r\n${body}`
const chunked = `POST /v1/certificates HTTP/1.1\r\n${head}Transfer-Encoding: chunked\r\n\r\n`
const live = 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n'
const garbage = 'this is no HTTP\r\n\r\n'

/** A service whose issuances end when they are told to, and connections to it. */
const open = async (t: Test) => {
  const ends: (() => void)[] = []
  const request = (): Promise<never> =>
    new Promise((_resolve, reject) => {
      ends.push(() => reject(new Problem('key.unavailable', `answer ${ends.length}`)))
    })
  const { app, lines } = await openStandIn({ issuance: reached({ pending: 0, request }) })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const begun = async (many: number): Promise<void> => {
    while (ends.length < many) await sleep(5)
  }
  return { ends, lines, begun, open: () => openConnection(t, port) }
}

const openConnection = (t: Test, port: number) => {
  const socket: Socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  let said = ''
  let fault: Error | undefined
  socket.on('error', (error) => {
    fault = error
  })
  socket.on('data', (chunk) => {
    said += chunk
  })
  const closed = once(socket, 'close')
  return {
    socket,
    /** The statuses that came until the connection was closed, which was in order. */
    statuses: async (): Promise<readonly number[]> => {
      await closed
      if (fault) throw fault
      return [...said.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
    },
    said: () => said,
  }
}

drill('what is behind a good request takes nothing from it', async (t) => {
  for (const [what, behind, status] of [
    ['no HTTP', garbage, 400],
    ['no HTTP without an end', 'G'.repeat(70_000), 400],
    ['a request whose fields are too large', `GET /livez HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    ['a body that is no chunks', `${chunked}zzz\r\n`, 400],
    ['CONNECT', 'CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\nhello', 405],
  ] as const)
    for (const isAtOnce of [true, false]) {
      const { ends, begun, open: connection, lines } = await open(t)
      const { socket, statuses, said } = connection()
      socket.write(isAtOnce ? call + behind : call)
      await begun(1)
      if (!isAtOnce) socket.write(behind)
      await sleep(50)
      // More of it, which nobody reads.
      socket.write(behind)
      await sleep(50)
      t.equal(said(), '', what)
      ends[0]?.()
      t.same(await statuses(), [503, status], `${what}, ${isAtOnce ? 'at once' : 'later'}`)
      t.match(said(), /^HTTP\/1\.1 503 .*answer 1.*HTTP\/1\.1 4.*\r\nConnection: close\r\n/s)
      const told = lines.filter(({ event }) => event === 'request').map((line) => line['status'])
      t.same(told, [503, status], 'one line for each')
    }
})

t.test('of several good ones each has its answer, and one that ends the connection has the last word', async (t) => {
  const { ends, begun, open: connection } = await open(t)
  const { socket, statuses } = connection()
  socket.write(call + live + call + live + garbage + live)
  for (const [i, many] of [1, 2].entries()) {
    await begun(many)
    ends[i]?.()
  }
  t.same(await statuses(), [503, 200, 503, 200, 400])

  const last = connection()
  last.socket.write(live + live.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n') + garbage)
  t.same(await last.statuses(), [200, 200])
})

t.test(
  'whoever goes meanwhile keeps nothing open, nor does the answer to a request that was never read whole',
  async (t) => {
    const { ends, begun, lines, open: connection } = await open(t)
    const gone = connection()
    gone.socket.write(call + garbage)
    await begun(1)
    gone.socket.resetAndDestroy()
    await sleep(50)
    ends[0]?.()
    while (!lines.some(({ event, gone: isGone }) => event === 'request' && isGone)) await sleep(5)

    const { socket, statuses } = connection()
    socket.write(live + chunked)
    await sleep(50)
    socket.write('no chunk\r\n')
    t.same(await statuses(), [200, 400])
  },
)

t.test('a large answer before a CONNECT is sent to its end to whoever reads it later', async (t) => {
  const { app } = await openStandIn({ records: recordsOf(JSON.stringify({ x: 'y'.repeat(40_000) })) })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const { socket, statuses, said } = openConnection(t, port)
  socket.pause()
  const fields = 'Host: x\r\nAuthorization: Bearer auditor_\r\nAccept: application/x-ndjson\r\n'
  socket.write(`GET /v1/certificates?limit=500 HTTP/1.1\r\n${fields}\r\nCONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n`)
  await sleep(500)
  socket.resume()
  t.same(await statuses(), [200, 405])
  t.ok(said().length > 20_000_000)
})

t.test('a server that is closing ends also those that Node has let go of', async (t) => {
  const server = createServer((_request, response) => response.writeHead(200).flushHeaders())
  server.on('connect', (_request, socket) => lookAfter(server, socket as Socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const connections = [1, 2].map(() => openConnection(t, (server.address() as AddressInfo).port))
  const begin = async (socket: Socket): Promise<Socket> => {
    socket.write(`${live}CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n`)
    const [, raw] = await once(server, 'connect')
    return raw
  }
  for (const { socket } of connections) await begin(socket)
  const { socket: other } = openConnection(t, (server.address() as AddressInfo).port)
  const gone = await begin(other)
  other.resetAndDestroy()
  await new Promise((resolve) => gone.once('close', resolve))
  gone.destroy = () => {
    t.fail('whoever has gone is remembered')
    return gone
  }
  const closed = once(server, 'close')
  server.close()
  endConnectionsIn(server, 100)
  for (const { statuses } of connections) t.same(await statuses(), [200])
  await closed
})
