import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'

import t from 'tap'

import { openStandIn } from './stand-in.ts'

t.test('where there is no route, no body is read, and none of its faults are told', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const bodies = [
    ['application/json', '{'],
    ['application/json', `"${'x'.repeat(100_000)}"`],
    ['application/yaml', 'a: [b'],
    ['application/pkcs10', 'x'],
    ['text/plain', 'x'],
    ['application/json; charset=utf-16', 'x'],
  ] as const
  for (const [type, payload] of bodies) {
    const headers = { 'content-type': type }
    for (const method of ['POST', 'PUT', 'DELETE'] as const) {
      const unknown = await app.inject({ method, url: '/nope', headers, payload })
      t.match(unknown.json(), { status: 404, code: 'request.not_found' }, `${method} ${type}`)
      t.equal(unknown.headers.allow, undefined)
    }
    const other = await app.inject({ method: 'PUT', url: '/v1/tokens', headers, payload })
    t.match(other.json(), { status: 405, code: 'request.method' }, type)
    t.equal(other.headers.allow, 'GET, HEAD, POST')
    t.equal(other.headers['x-content-type-options'], 'nosniff')
  }
  const query = await app.inject({ method: 'QUERY' as never, url: '/v1/tokens' })
  t.equal(query.statusCode, 405, 'a method that would have a body')
})

t.test('a target that is a whole URL is its path (RFC 9112 3.2.2)', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const asked = async (method: string, target: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1')
    socket.write(`${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    const [head] = await once(socket, 'data')
    return String(head)
  }
  for (const place of ['', 'https://x', 'http://x:8443', 'HTTPS://x']) {
    t.match(await asked('GET', `${place}/livez`), /^HTTP\/1\.1 200 /, place)
    t.match(await asked('PUT', `${place}/v1/tokens`), /^HTTP\/1\.1 405 .*\r\nallow: GET, HEAD, POST\r\n/s, place)
  }
  for (const target of ['https://x', 'https://x?limit=1', '*', 'ftp://x/livez'])
    t.match(await asked('GET', target), /^HTTP\/1\.1 (404|400) /, target)
})
