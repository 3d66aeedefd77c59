/** What is told of a request whose answer nobody has read to its end. */
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

import { Registry } from 'prom-client'
import t from 'tap'

import { Problem } from '../../src/errors.ts'
import { guardedApp } from '../../src/http/app.ts'
import { openMetrics } from '../../src/metrics.ts'
import { csrFor } from './people.ts'
import { callerFor, openStandIn, reached, type StandIn } from './stand-in.ts'

type App = StandIn['app']

const listen = async (t: { teardown(close: () => unknown): void }, app: App): Promise<number> => {
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  return (app.server.address() as AddressInfo).port
}

const callOf = (path: string, body?: string): string =>
  [
    `${body === undefined ? 'GET' : 'POST'} ${path} HTTP/1.1`,
    'Host: x',
    'Authorization: Bearer requester_',
    ...(body === undefined ? [] : ['Content-Type: application/json', `Content-Length: ${body.length}`]),
    '',
    body ?? '',
  ].join('\r\n')

/** Once the other end has seen it. */
const leave = async (app: App, socket: Socket): Promise<void> => {
  const connections = (): Promise<number> =>
    new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count)))
  socket.destroy()
  while ((await connections()) > 0) await sleep(5)
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await sleep(5)
}

t.test('whoever goes away before the answer has a line, and is counted, as it was answered', async (t) => {
  const metrics = openMetrics(new Registry())
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<never>()
  const issuance = reached<StandIn['deps']['issuance']>({
    pending: 0,
    request: () => {
      asked.resolve()
      return answer.promise
    },
  })
  const { app, lines } = await openStandIn({ issuance, metrics })
  const port = await listen(t, app)
  const socket = connect(port, '127.0.0.1')
  socket.write(callOf('/v1/certificates', JSON.stringify({ csr: csrFor('a.example.com'), profile: 'server' })))
  await asked.promise
  await leave(app, socket)
  t.same(lines, [], 'what becomes of it is not known yet')
  answer.reject(new Problem('key.unavailable', 'The key does not answer.'))
  await until(() => lines.length > 0)
  t.equal(lines.length, 1)
  t.match(lines[0], {
    ...{ event: 'request', route: '/v1/certificates', status: 503, code: 'key.unavailable' },
    ...{ principal: 'the-requester', gone: true },
  })
  const told = (await metrics.registry.metrics()).split('\n')
  t.ok(told.includes('chancery_http_requests_total{route="/v1/certificates",status="503"} 1'))
  t.ok(told.includes('chancery_issuances_total{profile="server",outcome="failed"} 1'), 'it rings')
})

t.test('and so has one that stops reading in the middle', async (t) => {
  const { deps, lines } = await openStandIn()
  const app = guardedApp(deps)
  app.get('/endless', { config: { access: 'open', ownDeadline: true } }, async (_request, reply) =>
    reply.send(
      new Readable({
        read() {
          this.push(Buffer.alloc(65_536))
        },
      }),
    ),
  )
  const port = await listen(t, app)
  const socket = connect(port, '127.0.0.1')
  socket.write(callOf('/endless'))
  await once(socket, 'data')
  await leave(app, socket)
  await until(() => lines.length > 0)
  t.equal(lines.length, 1)
  t.match(lines[0], { event: 'request', route: '/endless', status: 200, gone: true })
})

t.test('an answer that is out has one line, which says nothing of that', async (t) => {
  const { app, lines } = await openStandIn()
  const port = await listen(t, app)
  const socket = connect(port, '127.0.0.1')
  socket.write(callOf('/livez'))
  await once(socket, 'data')
  await leave(app, socket)
  t.equal(lines.length, 1)
  t.match(lines[0], { event: 'request', route: '/livez', status: 200 })
  t.equal(lines[0]?.['gone'], undefined)
})

t.test('a body that breaks off has one line, however it does', async (t) => {
  const metrics = openMetrics(new Registry())
  const { app, lines } = await openStandIn({ metrics })
  const port = await listen(t, app)
  for (const [how, route, breakOff] of [
    ['end', '', (socket: Socket) => socket.end()],
    ['reset', '/v1/certificates', (socket: Socket) => socket.resetAndDestroy()],
  ] as const) {
    lines.length = 0
    const socket = connect(port, '127.0.0.1')
    socket.write(callOf('/v1/certificates', '{"csr":""}').slice(0, -1))
    // Nobody tells when it has begun.
    await sleep(100)
    breakOff(socket)
    await until(() => lines.length > 0)
    await leave(app, socket)
    t.equal(lines.length, 1, how)
    t.match(lines[0], { event: 'request', route, status: 400, code: 'request.malformed' }, how)
    const counted = `chancery_http_requests_total{route="${route}",status="400"} 1`
    t.ok((await metrics.registry.metrics()).split('\n').includes(counted), counted)
  }
})

t.test('what a GET has announced, and comes when it was answered, is not answered again', async (t) => {
  const { app, lines } = await openStandIn()
  const port = await listen(t, app)
  const socket = connect(port, '127.0.0.1')
  socket.write(callOf('/livez').replace('Host: x', 'Host: x\r\nTransfer-Encoding: chunked'))
  const [first] = await once(socket, 'data')
  t.match(String(first), /^HTTP\/1\.1 200 /)
  socket.write('this is no chunk\r\n')
  t.equal((await socket.toArray()).join(''), '')
  t.equal(lines.length, 1)
})

t.test('whoever goes away before it is known who that is has one line, whatever was to come of a body', async (t) => {
  const metrics = openMetrics(new Registry())
  let asked = Promise.withResolvers<void>()
  let known = Promise.withResolvers<void>()
  const identities = reached<StandIn['deps']['identities']>({
    bearer: async (token: string) => {
      asked.resolve()
      await known.promise
      return callerFor(token)
    },
  })
  const { app, lines } = await openStandIn({ identities, metrics })
  const port = await listen(t, app)
  const order = callOf('/v1/certificates', '{"csr":""}')
  const chunked = order.replace(/Content-Length: \d+/, 'Transfer-Encoding: chunked').replace(/\{.*/, '')
  for (const [what, call] of [
    ['all of it', order],
    ['one that lacks an octet', order.slice(0, -1)],
    ['one of no length that is known', chunked],
    ['an empty one', callOf('/v1/certificates', '')],
    ['a batch', callOf('/v1/certificates/batch', '{"requests":[]}')],
  ] as const) {
    lines.length = 0
    asked = Promise.withResolvers<void>()
    known = Promise.withResolvers<void>()
    const socket = connect(port, '127.0.0.1')
    socket.write(call)
    await asked.promise
    socket.resetAndDestroy()
    await leave(app, socket)
    t.same(lines, [], what)
    known.resolve()
    await until(() => lines.length > 0)
    t.equal(lines.length, 1, what)
    t.match(lines[0], { status: 400, code: 'request.malformed', principal: 'the-requester', gone: true }, what)
  }
  t.match(
    await metrics.registry.metrics(),
    /^chancery_http_requests_total\{route="\/v1\/certificates",status="400"\} 4$/m,
  )
})
