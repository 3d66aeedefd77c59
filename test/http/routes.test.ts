import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'

import t from 'tap'

import { openPublicApp } from '../../src/http/public/app.ts'
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

t.test('what is allowed is told of every path, also of one with a slash at its end', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  for (const url of ['/docs', '/docs/', '/openapi.json'])
    t.match(await app.inject({ method: 'POST', url }), { statusCode: 405, headers: { allow: 'GET, HEAD' } }, url)
})

t.test('no cache keeps a problem, and over plain HTTP nobody is told to keep to TLS (RFC 6797 7.2)', async (t) => {
  const { app, deps } = await openStandIn()
  const list = { der: Buffer.from('list'), sha256: 'x', thisUpdate: new Date(0), nextUpdate: new Date(4e12) }
  const publicApp = await openPublicApp({
    ...deps,
    crls: { find: (issuer: string) => (issuer === 'here' ? list : undefined), knows: () => true },
    crlImports: { find: () => undefined },
    ocsp: { knows: () => false },
    records: { issuers: async () => [] },
  } as never)
  t.teardown(() => Promise.all([app.close(), publicApp.close()]))
  const cases: readonly (readonly [method: 'GET' | 'PUT', url: string, code: string])[] = [
    ['GET', '/crl/gone/0.crl', 'crl.not_found'],
    ['GET', '/crl/gone/00.crl', 'request.malformed'],
    ['GET', '/issuers/gone.cer', 'issuer.not_found'],
    ['GET', '/ocsp/gone/AAAA', 'issuer.not_found'],
    ['GET', '/nowhere', 'request.not_found'],
    ['GET', '/%ff', 'request.malformed'],
    ['PUT', '/crl/here/0.crl', 'request.method'],
  ]
  for (const [method, url, code] of cases) {
    const { headers, ...answer } = await publicApp.inject({ method, url })
    t.equal(answer.json().code, code, url)
    t.match(headers, { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }, `${method} ${url}`)
    t.equal(headers['strict-transport-security'], undefined, `${method} ${url}`)
  }
  const { headers } = await publicApp.inject('/crl/here/0.crl')
  t.match(headers, { 'cache-control': 'public, max-age=60', 'x-content-type-options': 'nosniff' })
  const unread = await app.inject('/%ff')
  t.match(
    unread.headers,
    { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' },
    'before there is a route',
  )
  t.match((await app.inject('/livez')).headers, { 'strict-transport-security': /^max-age=/ }, 'the API is all TLS')
})

t.test('a query that is not encoded as queries are is not taken for its letters', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const ask = async (query: string) =>
    (await app.inject({ url: `/v1/events?${query}`, headers: { authorization: 'Bearer auditor_x' } })).json()
  for (const query of ['by=%', 'by=%zz', 'by=%c3%28', 'by=%ed%a0%80', 'by=a&%ff=1', 'by=%2'])
    t.match(await ask(query), { code: 'request.malformed', detail: /percent-encoded/ }, query)
  for (const query of ['by=%c3%a4', 'by=ci%2Fdeploy', 'by=a%25'])
    t.match(await ask(query), { detail: 'reached' }, query)
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
