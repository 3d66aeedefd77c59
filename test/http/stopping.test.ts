import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import type { Access } from '../../src/ca/access/access-log.ts'
import type { HttpDeps } from '../../src/http/deps.ts'
import { slowTest } from '../helpers/slow.ts'
import { openStandIn, reached, recordsOf } from './stand-in.ts'

const row = JSON.stringify({ serial: 'x'.repeat(20_000) })

/** Certificates without end; an auditor asks for them on a connection of its own. */
const served = async (t: Test, overrides: Partial<HttpDeps>) => {
  const { app } = await openStandIn({ records: recordsOf(row, { next: 'more' }), ...overrides })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const ask = (path: string, accept: string): Socket => {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    t.teardown(() => socket.destroy())
    const fields = ['Host: x', 'Authorization: Bearer auditor_', `Accept: ${accept}`]
    socket.write([`GET ${path} HTTP/1.1`, ...fields, '', ''].join('\r\n'))
    return socket
  }
  return { app, ask }
}

t.test('an export that was let in before the stop, and would begin after it, does not', async (t) => {
  const [asked, mayOpen] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const { certificateTexts } = recordsOf(row, { next: 'more' }).walk
  const acts: Access['act'][] = []
  const { app, ask } = await served(t, {
    accesses: reached({
      record: async ({ act }: Access) => {
        // Longer than its connection lasts.
        if (act === 'broke') await sleep(200)
        acts.push(act)
        return 'access'
      },
    }),
    records: reached({
      walk: {
        certificateTexts: async () => {
          asked.resolve()
          await mayOpen.promise
          return certificateTexts({}, {})
        },
      },
    }),
  })
  const socket = ask('/v1/certificates', 'application/x-ndjson')
  await asked.promise
  const started = performance.now()
  const closing = app.close()
  while (app.server.listening) await sleep(1)
  const answered = once(socket, 'data')
  mayOpen.resolve()
  t.match(String((await answered)[0]), /^HTTP\/1\.1 503 .*"code":"service\.stopping"/s)
  await closing
  t.ok(performance.now() - started < 5_000)
  t.same(acts, ['began', 'broke'], 'its end is on record, too')
})

t.test('an export whose client goes away before it begins has its end on record', async (t) => {
  const [asked, mayBegin] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const ended = Promise.withResolvers<Access['act']>()
  const { app, ask } = await served(t, {
    accesses: reached({
      record: async ({ act }: Access) => {
        if (act !== 'began') ended.resolve(act)
        asked.resolve()
        await mayBegin.promise
        return 'access'
      },
    }),
  })
  t.teardown(() => app.close())
  const gone = new Promise((resolve) => app.server.once('connection', (socket) => socket.once('close', resolve)))
  const socket = ask('/v1/certificates', 'application/x-ndjson')
  await asked.promise
  socket.destroy()
  await gone
  mayBegin.resolve()
  t.equal(await ended.promise, 'broke')
})

slowTest('whoever reads his answer ever so slowly does not keep the service from stopping', async (t) => {
  const { app, ask } = await served(t, {})
  const socket = ask('/v1/certificates?limit=1000', 'application/json')
  // Never silent for as long as a connection may be.
  const slowly = setInterval(() => socket.resume(), 500)
  t.teardown(() => clearInterval(slowly))
  socket.on('data', () => socket.pause())
  await once(socket, 'data')
  const started = performance.now()
  await app.close()
  t.ok(performance.now() - started < 14_000, 'before the process is ended')
})

t.test('whoever keeps the connection of his last answer does not keep the service from stopping', async (t) => {
  const [asked, mayAnswer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const { app, ask } = await served(t, {
    health: {
      ready: async () => {
        asked.resolve()
        await mayAnswer.promise
        return []
      },
    },
  })
  const socket = ask('/readyz', 'application/json')
  await asked.promise
  const started = performance.now()
  const closing = app.close()
  while (app.server.listening) await sleep(1)
  const answered = once(socket, 'data')
  mayAnswer.resolve()
  const head = String((await answered)[0])
  t.match(head, /^HTTP\/1\.1 200 /)
  t.match(head, /\r\nconnection: close\r\n/i, 'so that nobody sends his next request on it')
  await closing
  t.ok(performance.now() - started < 5_000)
})

t.test('nor does whoever has begun to read it before the stop, and keeps the connection', async (t) => {
  const { app, ask } = await served(t, {})
  const socket = ask('/v1/certificates?limit=1000', 'application/json')
  const [first] = await once(socket, 'data')
  socket.pause()
  t.notMatch(String(first), /\r\nconnection: close\r\n/i, 'nobody has told him')
  const started = performance.now()
  const closing = app.close()
  while (app.server.listening) await sleep(1)
  socket.resume()
  await closing
  t.ok(performance.now() - started < 5_000)
})

t.test('the answer under way is the last one of its connection', async (t) => {
  /** Whether each answer says that it is, where so many come at once, one more later perhaps, and the last but `behind` is under way. */
  const told = async (atOnce: number, later: number, behind: number): Promise<readonly boolean[]> => {
    const gates = Array.from({ length: atOnce + later - behind }, () => Promise.withResolvers<void>())
    const begun = Array.from(gates, () => Promise.withResolvers<void>())
    let next = 0
    const ready = async () => {
      const which = next
      next += 1
      begun[which]?.resolve()
      await gates[which]?.promise
      return []
    }
    const { app, ask } = await served(t, { health: { ready } })
    const socket = ask('/readyz', 'application/json')
    const more = 'GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n'
    let answers = ''
    socket.on('data', (octets) => {
      answers += octets
    })
    socket.write(more.repeat(atOnce - 1))
    for (const [i, { promise }] of begun.entries()) {
      if (i === atOnce) socket.write(more)
      await promise
      if (i < begun.length - 1) gates[i]?.resolve()
    }
    const closing = app.close()
    while (app.server.listening) await sleep(1)
    gates.at(-1)?.resolve()
    await Promise.all([closing, once(socket, 'close')])
    return answers
      .split('HTTP/1.1 ')
      .slice(1)
      .map((answer) => /\r\nconnection: close\r\n/i.test(answer))
  }
  t.same(await told(1, 0, 0), [true])
  t.same(await told(2, 1, 0), [false, false, true], 'those that have been answered are behind nobody')
})
