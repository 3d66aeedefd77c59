import { type AddressInfo, connect } from 'node:net'

import t from 'tap'

import { openStandIn } from './stand-in.ts'

t.test('the description is written down once, whoever asks, and read as JSON and as YAML', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const made = app.swagger()
  let times = 0
  Object.defineProperty(made, 'toJSON', {
    enumerable: false,
    value: () => {
      times += 1
      return { ...made }
    },
  })
  for (const [path, type] of [
    ['/openapi.json', 'application/json; charset=utf-8'],
    ['/docs/json', 'application/json; charset=utf-8'],
    ['/docs/yaml', 'application/yaml'],
    ['/openapi.json', 'application/json; charset=utf-8'],
  ] as const) {
    const answer = await app.inject(path)
    t.match(answer, { statusCode: 200, headers: { 'content-type': type } }, path)
    t.equal(answer.headers.connection, 'close', 'a connection keeps the room of the largest answer that it had')
    t.match(answer.json(), { openapi: '3.1.0' })
  }
  t.equal(times, 1)
})

t.test('nothing that anyone asks of the pages is a fault of ours', async (t) => {
  const { app, lines } = await openStandIn()
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  // As it stands: clients, and `inject`, would walk up the path themselves.
  const ask = (path: string, field = '') =>
    new Promise<string>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      let answer = ''
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1')
      })
      socket.on('close', () => resolve(answer))
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${field}\r\n`)
    })
  for (const path of ['%2e%2e/%2e%2e/package.json', '../../package.json', '..%2f..%2fpackage.json', 'none.js', '%00']) {
    const answer = await ask(`/docs/static/${path}`)
    t.match(answer, /^HTTP\/1.1 404 .*"code":"request.not_found"/s, path)
    t.notMatch(answer, /^allow:/im, 'the method is not what is wrong')
  }
  const style = '/docs/static/swagger-ui.css'
  for (const field of ['Range: bytes=99999999-', 'If-Match: "x"', 'If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT'])
    t.match(await ask(style, `${field}\r\n`), /^HTTP\/1.1 200 /, field)
  t.same(
    lines.filter(({ event }) => event === 'request.failed'),
    [],
  )
})
