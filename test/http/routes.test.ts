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
