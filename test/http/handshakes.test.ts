/** Chains of client certificates, which cost what they cost before anybody is known. */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect as connectPlain, type Socket, type TcpSocketConnectOpts } from 'node:net'
import { Duplex } from 'node:stream'
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type ConnectionOptions,
  connect as connectTls,
  createServer as createTlsServer,
  type Server as TlsServer,
} from 'node:tls'

import t, { type Test } from 'tap'

import { tlsBounds } from '../../src/http/bounds.ts'
import { boundHandshakes } from '../../src/http/handshakes.ts'
import { noProxies } from '../../src/http/peers.ts'
import { serverAuth } from '../helpers/clients.ts'
import { drill } from '../helpers/drill.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { dns } from '../x509/build.ts'
import { openClients } from './clients.ts'
import { openStandIn } from './stand-in.ts'

const { ca, file, service, tie, open, ask } = await openClients(t)
const client = ca.certify()
await tie('short', { fingerprint: client.fingerprint })
/** As much as OpenSSL takes, nearly; each is checked by the next where their names fit, and takes memory in any case. */
const long = { ...client, cert: client.cert + ca.pem.repeat(Math.floor(90_000 / ca.der.length)) }
const { port, hostname } = new URL(service.url)
/** The first octets of a ClientHello, whose record is to have 512. */
const begun = Buffer.from('1603010200010001fc', 'hex')

/** A connection that stays. */
const holdLong = async (t: Test): Promise<string> => {
  const socket = connectTls({ port: Number(port), host: hostname, ca: service.ca, cert: long.cert, key: long.key })
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  socket.write('GET /v1/authorities HTTP/1.1\r\nHost: x\r\n\r\n')
  return String((await once(socket, 'data'))[0])
}

/** A connection that sends this, and no more; `isOpen` says whether it still is. */
const begin = async (t: Test, first?: Buffer, to = Number(port)): Promise<{ readonly isOpen: boolean }> => {
  const socket = connectPlain(to, hostname)
  t.teardown(() => socket.destroy())
  let isOpen = true
  socket
    .on('error', () => {})
    .once('close', () => {
      isOpen = false
    })
  await once(socket.resume(), 'connect')
  if (first) socket.write(first)
  return {
    get isOpen() {
      return isOpen
    },
  }
}

/** A record of a ClientHello, and all of it but its end. */
const slow = Buffer.concat([Buffer.from('160301400001003ffc0303', 'hex'), Buffer.alloc(16_000)])

/** What was sent beneath TLS of a request with the longest chain, which was answered so. */
const sentTo = async (t: Test, { url, ca }: TestService): Promise<{ answer: string; octets: number }> => {
  const { port, hostname } = new URL(url)
  const socket = connectPlain(Number(port), hostname)
  t.teardown(() => socket.destroy())
  const secure = connectTls({ socket, host: hostname, ca, cert: long.cert, key: long.key })
  secure.write('GET /v1/authorities HTTP/1.1\r\nHost: x\r\n\r\n')
  const [answer] = await once(secure, 'data')
  return { answer: String(answer), octets: socket.bytesWritten }
}

/** Whoever was not asked is told to come again. */
const untilIn = async (t: Test): Promise<void> => {
  for (;;) {
    const answer = await ask(t, client)
    if (answer === 'in') return
    t.equal(answer, 'limit.failed_authentication')
  }
}

drill('whoever shows long chains is not asked for a certificate for a while, and has what a token gives', async (t) => {
  t.equal(await ask(t, client), 'in')
  let shown = 0
  while ((await ask(t, client)) === 'in') {
    if (shown === 20) return t.fail('twenty of the longest were taken')
    await holdLong(t)
    shown += 1
  }
  t.ok(shown >= 2, `${shown}: once is no reason`)
  const refused = await holdLong(t)
  t.match(refused, /^HTTP\/1.1 429 .*\r\nconnection: close\r\n/is, 'only another connection can be asked')
  t.match(refused, /retry-after: [1-9]/i)
  t.match(refused, /"code":"limit.failed_authentication".*"retryable":true/)
  t.match(refused, /"next":"Wait as Retry-After says, then send the same request on a new connection; .* certificates /)
  t.equal((await service.request('GET', '/v1/authorities')).status, 200)
  await untilIn(t)
})

drill('a session that was begun without a certificate is not resumed where one is asked for', async (t) => {
  await untilIn(t)
  for (let shown = 0; (await ask(t, client)) === 'in'; shown += 1) {
    if (shown === 20) return t.fail('twenty of the longest were taken')
    await holdLong(t)
  }
  const connection = open(t, { client })
  const look = async (): Promise<string> => {
    const { status, json } = await connection.request('GET', '/v1/authorities')
    return status === 200 ? 'in' : json.code
  }
  let answer = await look()
  t.equal(answer, 'limit.failed_authentication')
  while (answer === 'limit.failed_authentication') answer = await look()
  t.equal(answer, 'in')
})

t.test('short ones all have their turn, however many come at once', async (t) => {
  await untilIn(t)
  const answers = await Promise.all(Array.from({ length: 100 }, () => ask(t, client)))
  t.same([...new Set(answers)], ['in'])
})

t.test('connections that say nothing are in nobody’s way', async (t) => {
  const silent = await Promise.all(Array.from({ length: 40 }, () => begin(t)))
  t.equal(await ask(t, client), 'in')
  t.ok(silent.every(({ isOpen }) => isOpen))
})

drill('handshakes that go no further end where others wait', async (t) => {
  const stalled = await Promise.all(Array.from({ length: 40 }, () => begin(t, begun)))
  t.equal(await ask(t, client), 'in')
  t.notOk(stalled.every(({ isOpen }) => isOpen))
})

drill('whoever breaks off while he waits has no turn', async (t) => {
  await Promise.all(Array.from({ length: 40 }, () => begin(t, begun)))
  for (const end of ['resetAndDestroy', 'end', 'destroy'] as const)
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const socket = connectPlain(Number(port), hostname)
        socket.on('error', () => {})
        await once(socket, 'connect')
        await new Promise((resolve) => socket.write(begun, resolve))
        socket[end]()
        await once(socket.resume(), 'close')
      }),
    )
  t.equal(await ask(t, client), 'in')
})

t.test('a listed proxy is not asked for its own', async (t) => {
  const proxied = await openTestService(t, { CHANCERY_CLIENT_CA: file, CHANCERY_TRUSTED_PROXIES: '127.0.0.1' }, service)
  const { answer, octets } = await sentTo(t, proxied)
  t.match(answer, /^HTTP\/1.1 401 .*"code":"auth.missing"/s, 'whatever it shows')
  t.ok(octets < 10_000, `${octets}`)
  t.equal((await proxied.request('GET', '/v1/authorities')).status, 200)
  await untilIn(t)
  t.ok((await sentTo(t, service)).octets > 90_000, 'as others are')
})

t.test('whoever is not asked has the certificate of the server that is in use', async (t) => {
  const pairOf = () => ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const [first, next] = [pairOf(), pairOf()]
  const proxies = { networks: ['127.0.0.1'], header: 'x-forwarded-for' } as const
  const tls = { cert: first.cert, key: first.key, requestCert: true, rejectUnauthorized: false, ca: [] }
  const { app } = await openStandIn({ proxies, tls })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const server = app.server as unknown as TlsServer
  const shown = async (): Promise<string | undefined> => {
    const { port } = server.address() as AddressInfo
    const socket = connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca: ca.pem })
    t.teardown(() => socket.destroy())
    await once(socket, 'secureConnect')
    return socket.getPeerX509Certificate()?.toString()
  }
  t.equal(await shown(), new X509Certificate(first.cert).toString())
  server.setSecureContext({ cert: next.cert, key: next.key })
  t.equal(await shown(), new X509Certificate(next.cert).toString())
})

t.test('a handshake of whoever is not asked has its time as well', async (t) => {
  const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const proxies = { networks: ['127.0.0.1'], header: 'x-forwarded-for' } as const
  const { app } = await openStandIn({ proxies, tls: { cert, key, requestCert: true, handshakeTimeout: 100 } })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const socket = connectPlain((app.server.address() as AddressInfo).port, '127.0.0.1').on('error', () => {})
  t.teardown(() => socket.destroy())
  socket.write(slow)
  await once(socket.resume(), 'close')
  t.pass()
})

t.test(
  'whoever waits has his turn after one of each other address, however many of one have come before',
  async (t) => {
    const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
    const tls = { cert, key, requestCert: true, rejectUnauthorized: false, ca: [] }
    const server = createTlsServer(tls)
    const turns: (string | undefined)[] = []
    const [ofTls] = server.listeners('connection')
    server.removeAllListeners('connection').on('connection', (raw: Socket) => {
      turns.push(raw.remoteAddress)
      ofTls?.call(server, raw)
    })
    boundHandshakes(server, { tls, proxies: noProxies })
    t.teardown(() => server.close())
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const { port } = server.address() as AddressInfo
    const comeFrom = async (localAddress: string): Promise<Socket> => {
      const came = once(server, 'connection')
      const socket = connectPlain({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
      t.teardown(() => socket.destroy())
      socket.write(begun)
      const [raw] = (await came) as [Socket]
      while (raw.bytesRead < begun.length) await sleep(1)
      // Its octets are looked at before the next timer.
      await sleep(1)
      return socket
    }
    const first: Socket[] = []
    for (let i = 0; i < 16; i += 1) first.push(await comeFrom('127.0.0.9'))
    t.same(turns.splice(0), Array(16).fill('127.0.0.9'))
    for (const [count, address] of [
      [3, '127.0.0.1'],
      [2, '127.0.0.2'],
      [1, '127.0.0.3'],
    ] as const)
      for (let i = 0; i < count; i += 1) await comeFrom(address)
    for (const socket of first) socket.destroy()
    while (turns.length < 6) await sleep(1)
    t.same(
      turns.map((address) => address?.slice(-1)),
      ['1', '2', '3', '1', '2', '1'],
    )
  },
)

/** A server that nobody has come to yet: so many slow ones begin, and whoever comes then is asked or not. */
const openSlow = async (t: Test, count: number) => {
  const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const { app } = await openStandIn({ tls: { cert, key, requestCert: true, rejectUnauthorized: false, ca: [] } })
  t.teardown(() => app.close())
  await app.listen({ host: hostname, port: 0 })
  const { port } = app.server.address() as AddressInfo
  const slowOnes = await Promise.all(Array.from({ length: count }, () => begin(t, slow, port)))
  const isAsked = async (): Promise<boolean> => {
    const socket = connectTls({ port, host: hostname, servername: 'localhost', ca: ca.pem })
    socket.write('GET /v1/authorities HTTP/1.1\r\nHost: x\r\n\r\n')
    const [answer] = await once(socket, 'data')
    socket.destroy()
    return /"code":"auth.missing"/.test(String(answer))
  }
  return { port, slowOnes, isAsked }
}

t.test('a handshake counts while it goes on, and once, however long it takes', async (t) => {
  // More than all that an address has, and three quarters of it.
  const [many, few] = [await openSlow(t, 13), await openSlow(t, 8)]
  while (await many.isAsked());
  t.ok(many.slowOnes.every(({ isOpen }) => isOpen))
  for (let asked = 0; asked < 40; asked += 1) t.ok(await few.isAsked())
})

/** A server for which no time passes, in which more would be given. `isAsked` says it of a connection that has ended. */
const openTimeless = async (t: Test) => {
  const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const tls = { cert, key, requestCert: true, rejectUnauthorized: false, ca: [] }
  const server = createTlsServer(tls)
  t.teardown(() => new Promise((resolve) => server.close(resolve)))
  const { unaskedFor } = boundHandshakes(server, { tls, proxies: noProxies, now: () => 0 })
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve))
  const { port } = server.address() as AddressInfo
  const isAsked = async (options: ConnectionOptions & Partial<TcpSocketConnectOpts> = {}): Promise<boolean> => {
    const came = once(server, 'secureConnection')
    const socket = connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca: ca.pem, ...options })
    socket.on('error', () => {})
    const [secure] = (await came) as [Socket]
    const asked = unaskedFor(secure) === 0
    await new Promise((resolve) => secure.once('close', resolve).resume().end())
    return asked
  }
  return { server, port, isAsked }
}

t.test('short ones give nothing back of what long ones have used', async (t) => {
  const { isAsked } = await openTimeless(t)
  const [short, wide] = [client, long].map(({ cert, key }) => ({ cert, key }))
  t.ok(await isAsked(wide))
  for (let shown = 0; shown < 40; shown += 1) t.ok(await isAsked(short))
  t.ok(await isAsked(wide))
  t.notOk(await isAsked(short))
})

t.test('nor do those from the same port to another address of ours', async (t) => {
  const { server, port, isAsked } = await openTimeless(t)
  for (let begun = 0; begun < 13; begun += 1) {
    const came = once(server, 'connection')
    // Bound by itself, or the port could not be bound again.
    const from = { port, localAddress: '127.0.0.1' }
    const socket = connectPlain({ ...from, host: '127.0.0.1' }).on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    const { localPort = 0 } = socket
    socket.write(slow.subarray(0, 100))
    const [raw] = (await came) as [Socket]
    while (raw.bytesRead < 100) await sleep(1)
    await isAsked({ ...from, host: '127.0.0.2', localPort })
    socket.end(slow.subarray(100))
    await once(raw, 'close')
  }
  t.notOk(await isAsked())
})

t.test('all addresses together have an allowance as well', async (t) => {
  const { port, isAsked } = await openTimeless(t)
  /** Less than what it has. */
  const comeFrom = (localAddress: string) =>
    Promise.all(
      Array.from({ length: 10 }, async () => {
        const socket = connectPlain({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
        socket.end(slow)
        await once(socket.resume(), 'close')
      }),
    )
  for (let last = 2; last < 10; last += 1) await comeFrom(`127.0.0.${last}`)
  t.ok(await isAsked())
  await comeFrom('127.0.0.10')
  t.notOk(await isAsked())
})

/** With a clock for its sweeps: so many have begun; and one more, `next`, who asks. */
const openSwept = async (t: Test, count: number) => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { server, port, isAsked } = await openTimeless(t)
  /** Looked at. */
  const come = async (connect: () => unknown): Promise<Socket> => {
    const came = once(server, 'connection')
    connect()
    const [raw] = (await came) as [Socket]
    while (raw.bytesRead < begun.length) await sleep(1)
    await sleep(1)
    return raw
  }
  const raws: Socket[] = []
  for (let i = 0; i < count; i += 1) raws.push(await come(() => begin(t, begun, port)))
  const next = async (): Promise<{ asked: Promise<boolean> }> => {
    let asked = Promise.resolve(false)
    await come(() => {
      asked = isAsked()
    })
    return { asked }
  }
  const sweep = async (times: number): Promise<number> => {
    for (let i = 0; i < times; i += 1) {
      mock.timers.tick(100)
      await sleep(1)
    }
    return raws.filter(({ destroyed }) => !destroyed).length
  }
  return { next, sweep }
}

t.test('handshakes that go no further stay while nobody waits, and end when somebody does', async (t) => {
  const { next, sweep } = await openSwept(t, 16)
  t.equal(await sweep(30), 16)
  const { asked } = await next()
  t.equal(await sweep(1), 0)
  t.ok(await asked)
})

t.test('whoever would wait for longer than others may is not asked', async (t) => {
  const { next, sweep } = await openSwept(t, 48)
  const { asked } = await next()
  t.equal(await sweep(20), 48)
  t.equal(await sweep(1), 32)
  t.equal(await sweep(29), 16)
  let isBegun = false
  void asked.then(() => {
    isBegun = true
  })
  t.notOk(isBegun)
  await sweep(1)
  t.notOk(await asked)
})

t.test('what is sent behind a handshake is not counted with it', async (t) => {
  const { port, isAsked } = await openSlow(t, 0)
  const { cert, key } = client
  for (let sent = 0; sent < 20; sent += 1) {
    const socket = connectTls({ port, host: hostname, servername: 'localhost', ca: ca.pem, cert, key })
    socket.on('error', () => {})
    socket.write(`POST /v1/certificates HTTP/1.1\r\nHost: x\r\nContent-Length: 12000\r\n\r\n${' '.repeat(12_000)}`)
    await once(socket, 'data')
    socket.destroy()
  }
  t.ok(await isAsked())
})

/** Hands on what is written, but nothing behind the ClientHello until that is as much, and then all but its last octet. */
const withoutLast = (socket: Socket, least: number): Duplex => {
  let behind: Buffer | undefined
  const hold = (octets: Buffer): void => {
    behind = behind && Buffer.concat([behind, octets])
    if (!behind) socket.write(octets)
    else if (behind.length > least) socket.write(behind.subarray(0, -1))
    behind ??= Buffer.alloc(0)
  }
  const duplex = new Duplex({ read: () => {}, write: (octets, _, done) => done(void hold(octets)) })
  socket.on('data', (octets) => duplex.push(octets))
  return duplex
}

t.test('nor is a record behind it that has come in part', async (t) => {
  const { port, isAsked } = await openSlow(t, 0)
  const { cert, key } = client
  for (let sent = 0; sent < 20; sent += 1) {
    const raw = connectPlain(port, hostname).on('error', () => {})
    t.teardown(() => raw.destroy())
    const held = withoutLast(raw, 15_000)
    const secure = connectTls({ socket: held, servername: 'localhost', ca: ca.pem, cert, key })
    secure.write(`POST /v1/certificates HTTP/1.1\r\nHost: x\r\nContent-Length: 15000\r\n\r\n${' '.repeat(15_000)}`)
    // What the server sends once its end of the handshake is over.
    await once(secure, 'session')
  }
  t.ok(await isAsked())
})

t.test('chains that are no longer than a record count, in whatever order and whatever comes behind them', async (t) => {
  const { port, isAsked } = await openSlow(t, 0)
  const { key } = client
  const cert = client.cert + `${ca.pem}${client.cert}`.repeat(Math.floor(6_000 / ca.der.length))
  let shown = 0
  for (; shown < 40 && (await isAsked()); shown += 1) {
    const socket = connectTls({ port, host: hostname, servername: 'localhost', ca: ca.pem, cert, key })
    socket.write(`POST /v1/certificates HTTP/1.1\r\nHost: x\r\nContent-Length: 12000\r\n\r\n${' '.repeat(12_000)}`)
    await once(socket, 'data')
    socket.destroy()
  }
  t.ok(shown < 40, `${shown}`)
})

t.test('a connection that is there is not begun anew, with another chain', async (t) => {
  const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const tls = { cert, key, requestCert: true, rejectUnauthorized: false, ca: [] }
  const { app } = await openStandIn({ tls })
  t.teardown(() => app.close())
  await app.listen({ host: hostname, port: 0 })
  const server = app.server as unknown as TlsServer
  const { port } = server.address() as AddressInfo
  const refusal = async (): Promise<string | undefined> => {
    const own = { cert: client.cert, key: client.key, maxVersion: 'TLSv1.2' } as const
    const socket = connectTls({ port, host: hostname, servername: 'localhost', ca: ca.pem, ...own })
    t.teardown(() => socket.destroy())
    await once(socket, 'secureConnect')
    return new Promise((resolve) => {
      socket.once('error', ({ message }) => resolve(message)).renegotiate({}, () => resolve(undefined))
    })
  }
  t.match(await refusal(), /no renegotiation/i)
  server.setSecureContext({ ...tlsBounds, ...tls })
  t.match(await refusal(), /no renegotiation/i, 'nor once its certificate was renewed')
})

drill('a handshake that never ends counts as well', async (t) => {
  await untilIn(t)
  for (let begun = 0; (await ask(t, client)) === 'in'; begun += 1) {
    if (begun === 100) return t.fail('a hundred were begun')
    const socket = connectPlain(Number(port), hostname)
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    socket.end(slow)
    await once(socket.resume(), 'close')
  }
  await untilIn(t)
})

t.test('of long ones that come at once no more are asked than may cost anything', async (t) => {
  const answers = await Promise.all(Array.from({ length: 24 }, () => holdLong(t)))
  const taken = answers.filter((answer) => answer.startsWith('HTTP/1.1 200'))
  t.ok(taken.length > 0 && taken.length < 12, `${taken.length} of 24`)
})
