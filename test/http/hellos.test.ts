/** What a ClientHello may be, before OpenSSL reads it: tested on listeners that ask for certificates, and on one that does not. */
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createServer } from 'node:tls'

import t, { type Test } from 'tap'

import { boundHellos } from '../../src/http/hellos.ts'
import { serverAuth } from '../helpers/clients.ts'
import { dns } from '../x509/build.ts'
import { openClients } from './clients.ts'
import { openStandIn } from './stand-in.ts'

const { ca, service } = await openClients(t)

/** Port of a listener that asks nobody for a certificate. */
const openUnasking = async (t: Test): Promise<number> => {
  const { cert, key } = ca.certify({ usage: serverAuth, names: [dns('localhost')] })
  const { app } = await openStandIn({ tls: { cert, key } })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  return (app.server.address() as AddressInfo).port
}

const short = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])
const vector = (...parts: Buffer[]): Buffer => {
  const octets = Buffer.concat(parts)
  return Buffer.concat([short(octets.length), octets])
}
const extension = (type: number, ...parts: Buffer[]): Buffer => Buffer.concat([short(type), vector(...parts)])

/** A handshake message (RFC 8446 4.1.2) of TLS 1.3, which offers X25519, and so many key shares of a group that is the last of many. */
const hello = (groups: number, shares: number): Buffer => {
  const share = Buffer.concat([short(0xfefe), vector(Buffer.from([1]))])
  const others = Array.from({ length: groups }, (_, i) => short(0x4000 + i))
  const extensions = vector(
    extension(43, Buffer.from([2, 3, 4])),
    extension(13, vector(short(0x0403))),
    extension(10, vector(...others, short(0xfefe), short(0x001d))),
    extension(51, vector(short(0x001d), vector(Buffer.alloc(32, 9)), ...Array.from({ length: shares }, () => share))),
  )
  const version = short(0x0303)
  const body = Buffer.concat([
    version,
    Buffer.alloc(32, 7),
    Buffer.alloc(1),
    vector(short(0x1301)),
    Buffer.from([1, 0]),
  ])
  const length = body.length + extensions.length
  return Buffer.concat([Buffer.from([1, length >> 16]), short(length & 0xffff), body, extensions])
}

/** In records (5.1) of that many octets. */
const inRecords = (message: Buffer, size = 16_384): Buffer[] =>
  Array.from({ length: Math.ceil(message.length / size) }, (_, i) =>
    Buffer.concat([Buffer.from([22, 3, 1]), vector(message.subarray(i * size, (i + 1) * size))]),
  )

/** The type of the first record of the answer; `closed` without one. `read`: resolves when the other end has so many octets. */
const answerTo = async (
  t: Test,
  port: number,
  pieces: readonly Buffer[],
  read: (octets: number) => Promise<void> = async () => {},
): Promise<number | 'closed'> => {
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  t.teardown(() => socket.destroy())
  const answer = new Promise<number | 'closed'>((resolve) => {
    socket.once('data', ([type = 0]: Buffer) => resolve(type)).once('close', () => resolve('closed'))
  })
  await once(socket.setNoDelay(), 'connect')
  for (const piece of pieces) {
    await new Promise((resolve) => socket.write(piece, resolve))
    await read(socket.bytesWritten)
  }
  return answer
}

t.test('a ClientHello that is longer than any of a client is not read', async (t) => {
  for (const port of [Number(new URL(service.url).port), await openUnasking(t)]) {
    t.equal(await answerTo(t, port, inRecords(hello(0, 0))), 22)
    t.equal(await answerTo(t, port, inRecords(hello(16_000, 6_400))), 'closed')
    t.equal(await answerTo(t, port, inRecords(hello(5_000, 1_200))), 22, 'one of 16 KiB is')
    t.equal(await answerTo(t, port, inRecords(hello(5_000, 1_300))), 'closed')
  }
})

t.test('its length is not hidden in the next record', async (t) => {
  const { port } = new URL(service.url)
  t.equal(await answerTo(t, Number(port), inRecords(hello(0, 0), 3)), 'closed')
  t.equal(await answerTo(t, Number(port), inRecords(hello(0, 0), 4)), 22)
})

t.test('nor does it come behind a record that OpenSSL passes over', async (t) => {
  const port = Number(new URL(service.url).port)
  for (const type of [20, 21, 23, 24]) {
    const [empty, full] = [Buffer.from([type, 3, 3, 0, 0]), Buffer.from([type, 3, 3, 0, 1, 1])]
    for (const first of [empty, full])
      t.not(await answerTo(t, port, [Buffer.concat([first, ...inRecords(hello(0, 0))])]), 22, first.toString('hex'))
  }
  t.equal(await answerTo(t, port, [Buffer.from([20]), ...inRecords(hello(0, 0))]), 'closed')
})

/** The next connection, as the service has it, and what resolves when so many octets of it were read. */
const openNext = () => {
  const came = once(service.service.app.server, 'connection') as Promise<[Socket]>
  const read = async (octets: number): Promise<void> => {
    const [raw] = await came
    while (raw.bytesRead < octets && !raw.destroyed) await sleep(1)
  }
  return { came: came.then(([raw]) => raw), read }
}

t.test('it may come octet by octet, and so may what is none', async (t) => {
  const port = Number(new URL(service.url).port)
  const inOctets = (octets: Buffer): Buffer[] => Array.from(octets, (octet) => Buffer.from([octet]))
  /** Each is looked at before the next one comes. */
  const answerEach = (pieces: readonly Buffer[]): Promise<number | 'closed'> =>
    answerTo(t, port, pieces, openNext().read)
  const [record = Buffer.alloc(0)] = inRecords(hello(0, 0))
  t.equal(await answerEach(inOctets(record)), 22)
  t.equal(await answerEach([record.subarray(0, 8), record.subarray(8)]), 22)
  t.equal(await answerEach(inOctets(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))), 'closed')
})

const openBounded = async (t: Test, greeted: (raw: Socket) => void, timeout: number) => {
  const server = createServer()
  boundHellos(server, greeted, timeout)
  t.teardown(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { server, port: (server.address() as AddressInfo).port }
}

t.test('its beginning has one deadline, however many octets it comes in', async (t) => {
  let isGreeted = false
  const greeted = (raw: Socket): void => {
    isGreeted = true
    raw.destroy()
  }
  const { port } = await openBounded(t, greeted, 1_000)
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  const closed = once(socket.resume(), 'close')
  await once(socket, 'connect')
  const [record = Buffer.alloc(0)] = inRecords(hello(0, 0))
  let sent = 0
  // Each within the time of the one before it; the ninth tells its length.
  const drip = setInterval(() => socket.write(record.subarray(sent, ++sent)), 200)
  await closed
  clearInterval(drip)
  t.notOk(isGreeted)
})

t.test('whoever ends while it is coming is let go of', async (t) => {
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.end(Buffer.from('160301', 'hex'))
  await once(socket.resume(), 'close')
  t.pass()
})

t.test('so is whoever breaks off', async (t) => {
  const { port } = new URL(service.url)
  const { came, read } = openNext()
  const socket = connect(Number(port), '127.0.0.1').on('error', () => {})
  socket.write(Buffer.from('160301', 'hex'))
  await read(3)
  const raw = await came
  const gone = new Promise((resolve) => raw.once('close', resolve))
  socket.resetAndDestroy()
  await gone
  t.pass()
})

t.test(
  'whoever says nothing is let go of in time; once it has begun, and where it is none, that time is over',
  async (t) => {
    const begun: Socket[] = []
    const [record = Buffer.alloc(0)] = inRecords(hello(0, 0))
    const { server, port } = await openBounded(t, (raw) => begun.push(raw), 500)
    const early = connect(port, '127.0.0.1').on('error', () => {})
    const [gone] = (await once(server, 'connection')) as [Socket]
    early.resetAndDestroy()
    await new Promise((resolve) => gone.once('close', resolve))
    gone.destroy = () => {
      t.fail('whoever has gone has no time any more')
      return gone
    }
    for (const octets of [record, Buffer.from('GET /')]) {
      const socket = connect(port, '127.0.0.1')
      t.teardown(() => socket.destroy())
      socket.write(octets)
    }
    while (begun.length < 2) await sleep(1)
    // Later than theirs, so that theirs would be over as well.
    await once(connect(port, '127.0.0.1').resume(), 'close')
    t.same(
      begun.map(({ destroyed }) => destroyed),
      [false, false],
    )
  },
)

t.test('what is no handshake is left to TLS, at once', async (t) => {
  const port = Number(new URL(service.url).port)
  const { read } = openNext()
  t.equal(await answerTo(t, port, [Buffer.from('GET /')], read), 'closed', 'which ends it without waiting for more')
  t.equal(await answerTo(t, port, [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')]), 'closed')
})
