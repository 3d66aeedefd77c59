import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls, type TLSSocket } from 'node:tls'

import t, { type Test } from 'tap'

import type { HttpDeps } from '../../src/http/deps.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { keptForEach } from '../helpers/memory.ts'
import { slowTest } from '../helpers/slow.ts'
import { dns } from '../x509/build.ts'
import { openStandIn, reached, type StandIn } from './stand-in.ts'

const limits = { queue: 8, connections: 8 }

const listening = async (t: Test, app: { listen(at: object): Promise<unknown>; close(): unknown; server: object }) => {
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = (app.server as { address(): AddressInfo }).address()
  /** Whether a connection that says nothing stays. */
  const hold = async (): Promise<{ readonly socket: Socket; readonly stays: boolean }> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
    await once(socket, 'connect')
    const stays = await Promise.race([once(socket.resume(), 'close').then(() => false), sleep(100, true)])
    return { socket, stays }
  }
  const isAnswered = (localAddress: string): Promise<boolean> =>
    new Promise((resolve) => {
      get({ port, path: '/livez', localAddress, agent: false }, (answer: IncomingMessage) => {
        answer.resume()
        resolve(true)
      }).on('error', () => resolve(false))
    })
  return { hold, isAnswered }
}

const publicApp = (deps: HttpDeps) =>
  openPublicApp({
    ...deps,
    crls: reached({ find: () => undefined, knows: () => true }),
    records: reached({ issuers: async () => [] }),
    ocsp: reached({ knows: (issuer: string) => issuer === 'stuck', answer: () => new Promise(() => {}) }),
    crlImports: reached({ find: () => undefined }),
  })

for (const [name, open] of [
  ['the API', async ({ app }: StandIn) => app],
  ['the public listener', async ({ deps }: StandIn) => publicApp(deps)],
] as const)
  t.test(`one address never has all sockets of ${name}`, async (t) => {
    const standIn = await openStandIn({ limits })
    const { hold, isAnswered } = await listening(t, await open(standIn))
    const held: Socket[] = []
    for (let i = 0; i < 6; i += 1) {
      const { socket, stays } = await hold()
      t.ok(stays)
      held.push(socket)
    }
    t.notOk((await hold()).stays, 'three quarters')
    t.notOk(await isAnswered('127.0.0.1'))
    t.ok(await isAnswered('127.0.0.2'), 'others have room')
    held[0]?.destroy()
    await sleep(50)
    const next = await hold()
    t.ok(next.stays, 'what was closed makes room')
    t.notOk(await isAnswered('127.0.0.1'), 'for one')
    for (const socket of [...held, next.socket]) socket.destroy()
    await sleep(50)
    const again = await Promise.all(Array.from({ length: 7 }, hold))
    t.equal(again.filter(({ stays }) => stays).length, 6, 'and nothing of it is left')
    const told = await standIn.deps.metrics.registry.metrics()
    t.match(told, 'chancery_sockets_refused_total{bound="address"} 4')
  })

t.test('a listed proxy, from which all come, may have all of them', async (t) => {
  const proxies = { networks: ['127.0.0.1'], header: 'x-forwarded-for' } as const
  const { app, deps } = await openStandIn({ limits, proxies })
  const { hold } = await listening(t, app)
  for (let i = 0; i < 8; i += 1) t.ok((await hold()).stays)
  t.notOk((await hold()).stays)
  t.match(await deps.metrics.registry.metrics(), 'chancery_sockets_refused_total{bound="listener"} 1')
})

t.test(
  'handshakes that do not end take 48 of 64 places from one address, and leave one when they are closed',
  async (t) => {
    const { cert, key } = openClientCa().certify({ usage: serverAuth, names: [dns('localhost')] })
    const { app, deps } = await openStandIn({ tls: { cert, key }, limits: { ...limits, connections: 100 } })
    const { hold } = await listening(t, app)
    const { port } = app.server.address() as AddressInfo
    const isSecured = (localAddress: string): Promise<boolean> =>
      new Promise((resolve) => {
        const options = { port, host: '127.0.0.1', localAddress, rejectUnauthorized: false }
        const socket = connectTls(options, () => resolve(true))
        t.teardown(() => socket.destroy())
        socket.on('error', () => resolve(false)).on('close', () => resolve(false))
      })
    const held = await Promise.all(Array.from({ length: 48 }, hold))
    t.ok(held.every(({ stays }) => stays))
    t.notOk((await hold()).stays)
    t.notOk(await isSecured('127.0.0.1'))
    t.ok(await isSecured('127.0.0.2'), 'others have room')
    held[0]?.socket.destroy()
    await sleep(50)
    for (let i = 0; i < 3; i += 1) {
      t.ok(await isSecured('127.0.0.1'), 'one that has ended takes no place')
      await sleep(50)
    }
    t.match(await deps.metrics.registry.metrics(), 'chancery_sockets_refused_total{bound="address"} 2')
  },
)

slowTest('whoever sends a question about a certificate slowly is not told that we were slow', async (t) => {
  const { deps } = await openStandIn()
  const app = await publicApp(deps)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  /** What is answered to a body of as many octets as are said, of which one comes after each of these milliseconds. */
  const post = async (length: number, waits: readonly number[], issuer = 'default'): Promise<string> => {
    const socket = connect(port, '127.0.0.1').setEncoding('utf8')
    t.teardown(() => socket.destroy())
    const fields = [
      'Host: x',
      'Content-Type: application/ocsp-request',
      `Content-Length: ${length}`,
      'Connection: close',
    ]
    socket.write([`POST /ocsp/${issuer} HTTP/1.1`, ...fields, '', ''].join('\r\n'))
    const answer = once(socket, 'data')
    for (const wait of waits) {
      await sleep(wait)
      socket.write('x')
    }
    return String(await answer)
  }
  const asked = [post(2, [100, 8_900]), post(2, [100]), post(1, [0], 'stuck')]
  const [slow = '', silent = '', stuck = ''] = await Promise.all(asked)
  t.match(slow, /^HTTP\/1\.1 404 .*issuer\.not_found/s, 'it may take as long as any request')
  t.match(silent, /^HTTP\/1\.1 408 .*"request\.timeout"/s)
  t.match(stuck, /^HTTP\/1\.1 503 .*"overload\.deadline"/s, 'where we are slow, he is')
})

t.test('the public listener takes one host and no other number of them (RFC 9112 3.2)', async (t) => {
  const app = await publicApp((await openStandIn()).deps)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const ask = async (version: string, hosts: readonly string[]): Promise<string> => {
    const socket = connect(port, '127.0.0.1').setEncoding('utf8')
    t.teardown(() => socket.destroy())
    const fields = [...hosts.map((host) => `Host: ${host}`), 'Connection: close']
    socket.write([`GET /crl/x/0.crl HTTP/${version}`, ...fields, '', ''].join('\r\n'))
    return String(await once(socket, 'data'))
  }
  t.match(await ask('1.1', []), /^HTTP\/1\.1 400 .*names no host/s)
  t.match(await ask('1.1', ['a', 'b']), /^HTTP\/1\.1 400 .*names two hosts/s)
  for (const [version, hosts] of [
    ['1.1', ['a']],
    ['1.0', []],
  ] as const)
    t.match(await ask(version, hosts), /^HTTP\/1\.1 404 .*crl\.not_found/s, `HTTP/${version}`)
})

t.test('a connection keeps nothing of Buffer’s pool', async (t) => {
  const { cert, key } = openClientCa().certify({ usage: serverAuth, names: [dns('localhost')] })
  const proxies = { networks: ['127.0.0.1'], header: 'x-forwarded-for' } as const
  for (const asks of [{}, { requestCert: true, rejectUnauthorized: false }]) {
    const { app } = await openStandIn({ tls: { cert, key, ...asks }, proxies })
    await app.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => app.close())
    const { port } = app.server.address() as AddressInfo
    /** It stays when it was answered. */
    const open = async (protocols?: readonly string[]): Promise<TLSSocket> => {
      const options = { port, host: '127.0.0.1', rejectUnauthorized: false }
      const socket = connectTls({ ...options, ...(protocols && { ALPNProtocols: [...protocols] }) })
      t.teardown(() => socket.destroy())
      socket.setNoDelay().write('GET /v1/profiles HTTP/1.1\r\nHost: x\r\n\r\n')
      t.match(String(await once(socket, 'data')), /^HTTP\/1\.1 401 /)
      return socket
    }
    t.ok((await keptForEach(8, () => open())) < Buffer.poolSize / 2)
    t.equal((await open(['h2', 'http/1.1'])).alpnProtocol, 'http/1.1')
    await t.rejects(open(['h2']), /no application protocol/)
  }
})
