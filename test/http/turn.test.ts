import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { Problem } from '../../src/errors.ts'
import { csrFor } from './people.ts'
import { openStandIn, reached } from './stand-in.ts'

t.test(
  'of requests that come at once on one connection, each is begun when the one before it is answered',
  async (t) => {
    const ends: (() => void)[] = []
    const { app, lines } = await openStandIn({
      issuance: reached({
        pending: 0,
        request: () =>
          new Promise((_resolve, reject) => {
            ends.push(() => reject(new Problem('key.unavailable', `answer ${ends.length}`)))
          }),
      }),
    })
    await app.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => app.close())
    const body = JSON.stringify({ csr: csrFor('a.example.com'), profile: 'server' })
    const head = 'Host: x\r\nAuthorization: Bearer requester_\r\nContent-Type: application/json\r\n'
    const call = `POST /v1/certificates HTTP/1.1\r\n${head}Content-Length: ${body.length}\r\n\r\n${body}`
    const last = 'GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
    let answers = ''
    socket.on('data', (chunk) => {
      answers += chunk
    })
    socket.write(call.repeat(3) + last)
    let answered = 0
    for (const begun of [1, 2, 3]) {
      while (ends.length < begun) await sleep(5)
      await sleep(50)
      t.equal(ends.length, begun, 'no more than one is under way')
      answered = performance.now()
      ends.at(-1)?.()
    }
    await once(socket, 'close')
    const since = performance.now() - answered
    const told = answers.split('HTTP/1.1 ').slice(1)
    t.same(
      told.map((answer) => answer.slice(0, 3)),
      ['503', '503', '503', '200'],
    )
    for (const i of [1, 2, 3]) t.match(told[i - 1], `answer ${i}`)
    const waited = lines.find(({ route }) => route === '/livez')
    t.ok(Number(waited?.['ms']) <= since, 'nor does its own time begin before, which has an end: its deadline')
  },
)
