/** Chains of client certificates, which cost what they cost before anybody is known. */
import { once } from 'node:events'
import { connect as connectPlain } from 'node:net'
import { connect as connectTls } from 'node:tls'

import t, { type Test } from 'tap'

import { openClients } from './clients.ts'

const { ca, service, tie, ask } = await openClients(t)
const client = ca.certify()
await tie('short', { fingerprint: client.fingerprint })
/** As much as OpenSSL takes, nearly; each is checked by the next where their names fit, and takes memory in any case. */
const long = { ...client, cert: client.cert + ca.pem.repeat(Math.floor(90_000 / ca.der.length)) }
const { port, hostname } = new URL(service.url)

/** A connection that stays. */
const holdLong = async (t: Test): Promise<string> => {
  const socket = connectTls({ port: Number(port), host: hostname, ca: service.ca, cert: long.cert, key: long.key })
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  socket.write('GET /v1/authorities HTTP/1.1\r\nHost: x\r\n\r\n')
  return String((await once(socket, 'data'))[0])
}

/** Whoever was not asked is told to come again. */
const untilIn = async (t: Test): Promise<void> => {
  for (;;) {
    const answer = await ask(t, client)
    if (answer === 'in') return
    t.equal(answer, 'limit.failed_authentication')
  }
}

t.test(
  'whoever shows long chains is not asked for a certificate for a while, and has what a token gives',
  async (t) => {
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
    t.equal((await service.request('GET', '/v1/authorities')).status, 200)
    await untilIn(t)
  },
)

t.test('short ones all have their turn, however many come at once', async (t) => {
  await Promise.all(Array.from({ length: 16 }, () => untilIn(t)))
  t.equal(await ask(t, client), 'in')
})

t.test('a handshake that never ends counts as well', async (t) => {
  await untilIn(t)
  for (let begun = 0; (await ask(t, client)) === 'in'; begun += 1) {
    if (begun === 100) return t.fail('a hundred were begun')
    const socket = connectPlain(Number(port), hostname)
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    // A record of a ClientHello, and all of it but its end.
    socket.end(Buffer.concat([Buffer.from('16030140000100ffff0303', 'hex'), Buffer.alloc(16_000)]))
    await once(socket.resume(), 'close')
  }
  await untilIn(t)
})

t.test('of long ones that come at once no more are asked than may cost anything', async (t) => {
  const answers = await Promise.all(Array.from({ length: 24 }, () => holdLong(t)))
  const taken = answers.filter((answer) => answer.startsWith('HTTP/1.1 200'))
  t.ok(taken.length > 0 && taken.length < 12, `${taken.length} of 24`)
})
