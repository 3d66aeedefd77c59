import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { Problem } from '../../src/errors.ts'
import { batchBodyLimit, batchPath } from '../../src/http/bounds.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { openRoom } from '../../src/http/room.ts'
import { csrFor } from './people.ts'
import { callerFor, openStandIn, reached, recordsOf } from './stand-in.ts'

t.test('to leave twice is to leave once, and room is there to the last octet', (t) => {
  const { take } = openRoom({ what: 'bodies', ofOne: 3, ofAll: 4 })
  const leave = take('one', 2)
  take('one', 1)
  leave()
  leave()
  take('one', 2)
  t.throws(() => take('one', 1), { code: 'limit.room', detail: '3 octets of your bodies are under way here.' })
  take('another', 1)
  t.throws(() => take('another', 1), { code: 'overload.queue', detail: '4 octets of bodies are under way here.' })
  t.end()
})

t.test('no principal fills the memory with batches that it sends a piece at a time', async (t) => {
  const { app } = await openStandIn({
    identities: reached({
      bearer: async (token: string) => {
        return { ...callerFor('requester'), principal: token }
      },
    }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const begin = (principal: string, length: string) => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    const head = `Host: x\r\nAuthorization: Bearer ${principal}\r\nContent-Type: application/json\r\n`
    socket.write(`POST ${batchPath} HTTP/1.1\r\n${head}${length}\r\n\r\n`)
    return { socket, answer: () => answer }
  }
  const announced = `Content-Length: ${batchBodyLimit}`
  const [first, ...others] = Array.from({ length: 4 }, () => begin('one', announced))
  await sleep(200)
  t.same(
    others.map(({ answer }) => answer()),
    ['', '', ''],
    'four of the largest are let in',
  )
  for (const length of [announced, 'Content-Length: 20', 'Transfer-Encoding: chunked']) {
    const { socket, answer } = begin('one', length)
    await once(socket, 'data')
    t.match(answer(), /^HTTP\/1.1 429 .*retry-after: 1.*"code":"limit.room"/is, length)
  }
  const another = begin('another', `Content-Length: 13\r\nConnection: close`)
  another.socket.write('{"items":[1]}')
  await once(another.socket, 'close')
  t.match(another.answer(), /^HTTP\/1.1 200 /, 'others have room')

  first?.socket.write(' '.repeat(batchBodyLimit))
  while (first?.answer() === '') await sleep(10)
  t.match(first?.answer(), /^HTTP\/1.1 400 /)
  const next = begin('one', `Content-Length: 13\r\nConnection: close`)
  next.socket.write('{"items":[1]}')
  await once(next.socket, 'close')
  t.match(next.answer(), /^HTTP\/1.1 200 /, 'what was answered has left its room')

  const last = begin('one', announced)
  await sleep(100)
  for (const { socket } of [...others, last]) socket.destroy()
  await sleep(100)
  const later = begin('one', `Content-Length: 13\r\nConnection: close`)
  later.socket.write('{"items":[1]}')
  await once(later.socket, 'close')
  t.match(later.answer(), /^HTTP\/1.1 200 /, 'and so has who went away')
})

t.test('all principals together have a bound as well', async (t) => {
  const { app } = await openStandIn({
    identities: reached({ bearer: async (token: string) => ({ ...callerFor('requester'), principal: token }) }),
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const begin = (principal: string) => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    const head = `Host: x\r\nAuthorization: Bearer ${principal}\r\nContent-Type: application/json\r\n`
    socket.write(`POST ${batchPath} HTTP/1.1\r\n${head}Content-Length: ${batchBodyLimit}\r\n\r\n`)
    return socket
  }
  for (const principal of ['a', 'b', 'c', 'd']) for (let i = 0; i < 4; i += 1) begin(principal)
  await sleep(300)
  const [answer] = await once(begin('e'), 'data')
  t.match(String(answer), /^HTTP\/1.1 503 .*"code":"overload.queue"/s)
})

t.test('no principal fills the memory with answers to batches that it does not read', async (t) => {
  const violations = Array.from({ length: 100 }, (_, i) => ({
    ...{ check: 'names.dns.allow', field: `/names/${i}`, value: 'x'.repeat(400), reason: 'matches no pattern' },
  }))
  const { app } = await openStandIn({
    identities: reached({ bearer: async (token: string) => ({ ...callerFor('requester'), principal: token }) }),
    issuance: reached({
      pending: 0,
      request: async () => {
        throw new Problem('san.forbidden', 'matches no pattern', { violations })
      },
    }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const item = { csr: csrFor('a.example.com'), profile: 'server' }
  const ask = async (token: string, count: number) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const asked = request({ port, path: batchPath, method: 'POST', headers, agent: false })
    const body = JSON.stringify({ items: Array.from({ length: count }, () => item) })
    const [answer] = (await once(asked.end(body), 'response')) as [IncomingMessage]
    t.teardown(() => answer.destroy())
    return answer.pause()
  }
  for (let i = 0; i < 8; i += 1) t.equal((await ask('one', 1_000)).statusCode, 200)
  const refused = await ask('one', 1_000)
  t.equal(refused.statusCode, 429)
  t.match(String(await refused.resume().toArray()), '"code":"limit.room"')
  const other = await ask('two', 1)
  t.equal(other.statusCode, 200, 'others have room')
  const { items } = JSON.parse(Buffer.concat(await other.toArray()).toString())
  t.equal(items[0].problem.violations.length, 20)
})

t.test('no principal fills the memory with pages that it does not read', async (t) => {
  const text = JSON.stringify({ serial: 'x'.repeat(20_000) })
  const { app } = await openStandIn({
    identities: reached({ bearer: async (token: string) => ({ ...callerFor('requester'), principal: token }) }),
    records: recordsOf(text),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const ask = async (token: string, limit = 1_000, accept = 'application/json') => {
    const asked = request({
      port,
      path: `/v1/certificates?limit=${limit}`,
      headers: { authorization: `Bearer ${token}`, accept },
      agent: false,
    })
    const [answer] = (await once(asked.end(), 'response')) as [IncomingMessage]
    t.teardown(() => answer.destroy())
    return answer.pause()
  }
  const first = await ask('one')
  t.equal(first.statusCode, 200)
  const second = await ask('one')
  t.equal(second.statusCode, 429)
  t.match(String(await second.resume().toArray()), '"code":"limit.room"')
  for (const accept of ['text/csv', 'application/x-ndjson'])
    t.equal((await ask('one', 1_000, accept)).statusCode, 429, accept)
  t.equal((await ask('one', 10)).statusCode, 200, 'there is room for a small one')
  for (const token of ['two', 'three', 'four', 'five', 'six']) t.equal((await ask(token)).statusCode, 200, token)
  t.equal((await ask('seven')).statusCode, 503, 'all together have a bound as well')
  await once(first.resume(), 'end')
  for (;;) {
    if ((await ask('seven')).statusCode === 200) break
    await sleep(10)
  }
})

t.test('whoever goes away while it is sent a page has room for another at once', async (t) => {
  const text = JSON.stringify({ serial: 'x'.repeat(20_000) })
  const { app } = await openStandIn({
    records: reached({
      walk: {
        certificateTexts: async () => ({
          bounds: { size: 7, time: new Date(0) },
          range: { from: 0, before: 7 },
          page: async (limit: number) => ({ items: Array(limit).fill(text) }),
        }),
      },
    }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const headers = { authorization: 'Bearer requester_' }
  for (let i = 0; i < 3; i += 1) {
    const asked = request({ port, path: '/v1/certificates?limit=1000', headers, agent: false })
    const [answer] = (await once(asked.end(), 'response')) as [IncomingMessage]
    t.equal(answer.statusCode, 200)
    answer.on('error', () => {}).destroy()
    await sleep(500)
  }
})

t.test('whoever goes away before a tile of a public roll is read takes no room', async (t) => {
  const reads: (() => void)[] = []
  const { deps } = await openStandIn({
    checkpoints: reached({ newest: async () => ({ size: 1_000_000 }) }),
    tiles: reached({
      read: () => new Promise((resolve) => reads.push(() => resolve(Buffer.alloc(16 * 1024 * 1024)))),
    }),
  })
  const app = await openPublicApp({ ...deps, crls: reached({}), ocsp: reached({}), roll: deps })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const ask = async () => {
    const before = reads.length
    const asked = request({ port, path: '/roll/tile/entries/000', agent: false }).end()
    asked.on('error', () => {})
    while (reads.length === before) await sleep(5)
    return asked
  }
  for (let i = 0; i < 8; i += 1) (await ask()).destroy()
  await sleep(100)
  for (const end of reads) end()
  const last = await ask()
  reads.at(-1)?.()
  const [answer] = (await once(last, 'response')) as [IncomingMessage]
  t.equal(answer.statusCode, 200)
  answer.destroy()
})

t.test('nobody fills the memory with tiles of a public roll that are not read', async (t) => {
  const { deps } = await openStandIn({
    checkpoints: reached({ newest: async () => ({ size: 1_000_000 }) }),
    tiles: reached({ read: async () => Buffer.alloc(16 * 1024 * 1024) }),
  })
  const app = await openPublicApp({ ...deps, crls: reached({}), ocsp: reached({}), roll: deps })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const ask = async (localAddress = '127.0.0.1') => {
    const [answer] = (await once(
      request({ port, path: '/roll/tile/entries/000', agent: false, localAddress }).end(),
      'response',
    )) as [IncomingMessage]
    t.teardown(() => answer.destroy())
    return answer.pause()
  }
  const first = await ask()
  for (let i = 0; i < 5; i += 1) t.equal((await ask()).statusCode, 200)
  t.equal((await ask()).statusCode, 429, 'one address never has all of it')
  for (let i = 0; i < 2; i += 1) t.equal((await ask('127.0.0.2')).statusCode, 200)
  const beyond = await ask('127.0.0.3')
  t.equal(beyond.statusCode, 503)
  t.match(String(await beyond.resume().toArray()), '"code":"overload.queue"')
  await once(first.resume(), 'end')
  for (;;) {
    if ((await ask()).statusCode === 200) break
    await sleep(10)
  }
})

t.test('nobody fills the memory with descriptions of the API that are not read', async (t) => {
  const { app } = await openStandIn()
  // As by TLS, which keeps what is not read, for a connection that holds less than this one.
  const toJSON = () => ({ openapi: '3.1.0', info: 'x'.repeat(12 * 1024 * 1024) })
  Object.defineProperty(app.swagger(), 'toJSON', { enumerable: false, value: toJSON })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const ask = async (localAddress = '127.0.0.1', path = '/openapi.json') => {
    const asked = request({ port, path, agent: false, localAddress }).end()
    const [answer] = (await once(asked, 'response')) as [IncomingMessage]
    t.teardown(() => answer.destroy())
    return answer.pause()
  }
  const first = await ask()
  t.equal(first.statusCode, 200)
  for (const path of ['/openapi.json', '/docs/json', '/docs/yaml']) {
    const refused = await ask('127.0.0.1', path)
    t.equal(refused.statusCode, 429, path)
    t.match(String(await refused.resume().toArray()), '"code":"limit.room"')
  }
  for (let i = 2; i < 6; i += 1) t.equal((await ask(`127.0.0.${i}`)).statusCode, 200, 'others have room')
  t.equal((await ask('127.0.0.6')).statusCode, 503, 'all together have a bound as well')
  await once(first.resume(), 'end')
  while ((await ask()).statusCode !== 200) await sleep(10)
})

t.test('nor with the files of its pages', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const answers = await Promise.all(Array.from({ length: 70 }, () => app.inject('/docs/static/swagger-ui-bundle.js')))
  const counted = (status: number) => answers.filter(({ statusCode }) => statusCode === status).length
  t.equal(counted(200), 64)
  t.equal(counted(429), 6)
  t.ok(answers.every(({ headers }) => headers.connection === 'close'))
})
