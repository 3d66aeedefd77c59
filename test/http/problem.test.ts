import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type AddressInfo, connect } from 'node:net'
import { PassThrough } from 'node:stream'

import fastify, { errorCodes, type InjectOptions } from 'fastify'
import t from 'tap'

import { Problem, type ProblemCode, problems } from '../../src/errors.ts'
import { withinDeadline } from '../../src/http/deadline.ts'
import {
  answerClientError,
  describeProblem,
  documentOf,
  httpErrors,
  openErrorHandler,
  schemaProblem,
  toProblem,
} from '../../src/http/problem.ts'
import { errorsText } from '../../tools/errors.ts'
import { quiet } from '../helpers/log.ts'
import { openStandIn, reached } from './stand-in.ts'

t.test('docs/errors.md lists every problem as the table has it, and no other', async (t) => {
  const text = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  t.equal(text, errorsText(), 'node tools/errors.ts writes it anew')
  const listed = [...text.matchAll(/^\| `([a-z_.]+)` \| (\d{3}) /gm)].map(([, code]) => code)
  t.same(listed, Object.keys(problems))
})

t.test('every code is served where its type points to', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  for (const code of Object.keys(problems)) {
    const answer = await app.inject(`/problems/${code}`)
    t.equal(answer.statusCode, 200, code)
    t.same(answer.json(), { type: `/problems/${code}`, code, ...problems[code as ProblemCode] })
  }
  for (const code of ['nope', 'constructor', '__proto__', 'toString']) {
    t.equal(describeProblem(code), undefined)
    t.equal((await app.inject(`/problems/${code}`)).json().code, 'request.not_found')
  }
})

t.test('every error that Fastify blames on the client has a problem of the same status, and no other has one', (t) => {
  for (const [code, make] of Object.entries(errorCodes)) {
    const { statusCode } = make() as { statusCode?: number }
    const isOurs = code === 'FST_ERR_CTP_INSTANCE_ALREADY_STARTED'
    if (isOurs || code === 'FST_ERR_HANDLER_TIMEOUT') continue
    const problem = toProblem(make())
    const expected =
      statusCode !== undefined && statusCode < 500
        ? code === 'FST_ERR_ROUTE_MISSING_CONTENT_TYPE'
          ? 415
          : statusCode
        : 500
    t.equal(problem.kind.status, expected, code)
    if (expected < 500) t.ok(code in httpErrors, `${code} is in the table`)
  }
  for (const code of Object.keys(httpErrors).filter((code) => code.startsWith('FST_')))
    t.ok(code in errorCodes, `${code} is Fastify's`)
  t.end()
})

t.test('a document has every member that RFC 9457 and the design ask for, and the status of its code', (t) => {
  const problem = new Problem('san.forbidden', 'Because.', {
    violations: [{ check: 'a', field: '/b', value: 'c', reason: 'd' }],
    offset: 7,
  })
  t.same(documentOf(problem, 'id'), {
    type: '/problems/san.forbidden',
    title: 'Name not allowed',
    status: 422,
    detail: 'Because.',
    code: 'san.forbidden',
    retryable: false,
    offset: 7,
    violations: [{ check: 'a', field: '/b', value: 'c', reason: 'd' }],
    next: problems['san.forbidden'].next,
    requestId: 'id',
  })
  t.equal(documentOf(new Problem('db.unavailable', 'x'), 'id').retryAfter, 1, 'a 503 always says when')
  t.equal(documentOf(new Problem('key.unavailable', 'x', { retryAfter: 5 }), 'id').retryAfter, 5)
  t.end()
})

t.test('a detail is a sentence, whoever found the fault', (t) => {
  const cases: [ProblemCode, string, string][] = [
    ['request.not_found', 'There is nothing at this path.', 'There is nothing at this path.'],
    ['overload.queue', '3 requests are waiting.', '3 requests are waiting.'],
    ['csr.der', 'INTEGER is empty, at octet 7', 'INTEGER is empty, at octet 7.'],
    ['csr.der', 'indefinite length, at octet 7', 'The request is refused: indefinite length, at octet 7.'],
    ['key.size', 'an RSA key of 1024 bits', 'The key is refused: an RSA key of 1024 bits.'],
    ['subject.syntax', 'commonName is empty', 'The subject is refused: commonName is empty.'],
    ['san.syntax', 'a dns name is empty', 'A name is refused: a dns name is empty.'],
    ['ext.syntax', 'critical encodes FALSE', 'An extension is refused: critical encodes FALSE.'],
  ]
  for (const [code, detail, sentence] of cases) t.equal(documentOf(new Problem(code, detail), 'id').detail, sentence)
  const detail = 'matches none of *.example.com'
  const violation = { check: 'names.dns.allow', field: '/names/0', value: 'a"b.test', reason: detail }
  t.equal(
    documentOf(new Problem('san.forbidden', detail, { violations: [violation] }), 'id').detail,
    'The check names.dns.allow failed for "a\\"b.test" at /names/0: matches none of *.example.com.',
  )
  t.equal(
    documentOf(new Problem('san.forbidden', detail, { violations: [{ ...violation, field: '', value: '' }] }), 'id')
      .detail,
    'The check names.dns.allow failed: matches none of *.example.com.',
  )
  t.end()
})

t.test('an unknown error is a bare 500 and a line in the log with its cause', async (t) => {
  const { app, lines } = await openStandIn({
    records: reached({
      certificate: async () => {
        throw new TypeError('secret-detail')
      },
    }),
  })
  t.teardown(() => app.close())
  const answer = await app.inject({
    url: `/v1/certificates/${'4a'.repeat(16)}`,
    headers: { authorization: 'Bearer admin_' },
  })
  t.equal(answer.statusCode, 500)
  t.match(answer.json(), { code: 'internal', retryable: false })
  t.notMatch(answer.body, /secret-detail|TypeError|stack/)
  const line = lines.find(({ event }) => event === 'request.failed')
  t.match(line, { id: answer.json().requestId, cause: { type: 'TypeError', message: 'secret-detail' } })
})

t.test('what the database does not let us do is retryable, and its own words stay inside', async (t) => {
  for (const code of ['42501', '42P01']) {
    const { app, lines } = await openStandIn({
      records: reached({
        certificate: async () => {
          throw Object.assign(new Error('secret-detail'), { code, severity: 'ERROR' })
        },
      }),
    })
    t.teardown(() => app.close())
    const url = `/v1/certificates/${'4a'.repeat(16)}`
    const answer = await app.inject({ url, headers: { authorization: 'Bearer admin_' } })
    t.equal(answer.statusCode, 503)
    t.match(answer.json(), { code: 'db.unavailable', retryable: true, detail: /its operator has to see to that\.$/ })
    t.notMatch(answer.body, /secret-detail/)
    t.match(
      lines.find(({ event }) => event === 'request.failed'),
      { id: answer.json().requestId, detail: answer.json().detail, cause: { message: 'secret-detail', code } },
    )
  }
})

t.test('what a client did wrong on the way in is a 4xx with its own code', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const requester = { authorization: 'Bearer requester_' }
  const json = { ...requester, 'content-type': 'application/json' }
  const get = (url: string): InjectOptions => ({ url, headers: requester })
  const post = (payload: string, headers: Record<string, string> = {}, url = '/v1/certificates'): InjectOptions => ({
    method: 'POST',
    url,
    headers: { ...json, ...headers },
    payload,
  })
  const as = (type: string, payload = '{}'): InjectOptions => post(payload, { 'content-type': type })
  const good = '"csr":"x","profile":"server"'
  const huge = `"${'x'.repeat(65_536)}"`
  const admin = { authorization: 'Bearer admin_' }
  const cases: [string, InjectOptions, number, ProblemCode][] = [
    ['an unknown path', get('/v2'), 404, 'request.not_found'],
    ['a path with another case', get('/V1/certificates'), 404, 'request.not_found'],
    ['a trailing slash', get('/livez/'), 404, 'request.not_found'],
    ['a broken escape', get('/v1/certificates/%zz'), 400, 'request.malformed'],
    ['an endless parameter', get(`/v1/certificates/${'a'.repeat(400)}`), 414, 'request.uri'],
    ['another method', { method: 'PATCH', url: '/v1/certificates' }, 405, 'request.method'],
    ['HEAD where GET is not', { method: 'HEAD', url: '/v1/grants/x' }, 405, 'request.method'],
    ['an unknown parameter', get('/v1/certificates?nope=1'), 400, 'request.malformed'],
    ['a parameter twice', get('/v1/certificates?limit=1&limit=2'), 400, 'request.malformed'],
    ['a limit that is none', get('/v1/certificates?limit=0'), 400, 'request.malformed'],
    ['a day of no calendar', get('/v1/certificates?issuedAfter=2026-13-45T00:00:00Z'), 400, 'request.malformed'],
    ['a serial of another length', get('/v1/certificates/abcd'), 400, 'request.malformed'],
    ['no JSON', post('{"csr":'), 400, 'request.malformed'],
    ['no body', { method: 'POST', url: '/v1/certificates', headers: requester }, 400, 'request.malformed'],
    ['an empty body', post(''), 400, 'request.malformed'],
    ['a number for a string', post('{"csr":1,"profile":"server"}'), 400, 'request.malformed'],
    ['a string for a list', post(`{${good},"names":{"dns":"a"}}`), 400, 'request.malformed'],
    ['a duration without a unit', post(`{${good},"validity":"5"}`), 400, 'request.malformed'],
    ['a duration of ages', post(`{${good},"validity":"9999999999d"}`), 400, 'request.malformed'],
    ['a prototype', post(`{${good},"__proto__":{}}`), 400, 'request.malformed'],
    ['a body beyond the bound', post(huge), 413, 'csr.too_large'],
    ['a body beyond the bound elsewhere', post(huge, admin, '/v1/tokens'), 413, 'request.too_large'],
    [
      'no media type',
      { method: 'POST', url: '/v1/certificates', headers: requester, payload: 'x' },
      415,
      'request.media_type',
    ],
    ['another media type', as('text/plain'), 415, 'request.media_type'],
    ['the media type of another call', as('application/yaml'), 415, 'request.media_type'],
    ['a media type with a tab', as('application/json\t'), 415, 'request.media_type'],
    ['a media type with an appendix', as('application/json, text/plain'), 415, 'request.media_type'],
    ['another charset', as('application/json; charset=utf-16'), 415, 'request.media_type'],
    ['a compressed body', post('{}', { 'content-encoding': 'gzip' }), 415, 'request.media_type'],
    [
      'a body where none is taken',
      { ...post('{}', admin, '/v1/principals/x'), method: 'DELETE' },
      415,
      'request.media_type',
    ],
    ['nothing acceptable', post(`{${good}}`, { accept: 'image/png' }), 406, 'request.not_acceptable'],
    ['a profile in two places', post(`{${good}}`, {}, '/v1/certificates?profile=server'), 400, 'request.malformed'],
    ['a raw body without a profile', as('application/pkcs10', 'x'), 400, 'request.malformed'],
    ['an Idempotency-Key with a space', post(`{${good}}`, { 'idempotency-key': 'a b' }), 400, 'idempotency.key'],
    ['a profile that was not granted', post('{"csr":"x","profile":"client"}'), 403, 'auth.forbidden'],
  ]
  for (const [name, request, status, code] of cases) {
    const answer = await app.inject(request)
    t.equal(answer.statusCode, status, name)
    t.type(answer.headers['x-request-id'], 'string', `${name} has an id`)
    if (request.method === 'HEAD') continue
    t.equal(answer.json().code, code, name)
    t.equal(answer.json().status, status)
    t.match(answer.json().detail, /^[A-Z0-9].*[.]$/, name)
    t.equal(answer.headers['content-type'], 'application/problem+json')
    t.equal(answer.json().requestId, answer.headers['x-request-id'], `${name} has one id`)
  }
  const wrongMethod = await app.inject({ method: 'DELETE', url: `/v1/certificates/${'4a'.repeat(16)}` })
  t.equal(wrongMethod.headers['allow'], 'GET, HEAD')
})

t.test('nothing of what was sent comes back, but plain names of unknown fields', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const marker = '<script>mark</script>'
  const headers = { authorization: 'Bearer requester_', 'content-type': 'application/json' }
  const requests = [
    { url: `/${encodeURIComponent(marker)}` },
    { url: `/v1/certificates?${encodeURIComponent(marker)}=1`, headers },
    { url: `/v1/certificates?name=${encodeURIComponent(marker)}&status=${encodeURIComponent(marker)}`, headers },
    { url: `/v1/certificates/${encodeURIComponent(marker)}`, headers },
    {
      method: 'POST' as const,
      url: '/v1/certificates',
      headers,
      payload: JSON.stringify({ [marker]: marker, csr: marker, profile: marker }),
    },
    { method: 'POST' as const, url: '/v1/certificates', headers, payload: marker },
    { url: '/v1/certificates', headers: { authorization: `Bearer ${marker}` } },
    { url: '/v1/certificates', headers: { ...headers, accept: marker } },
    { url: '/v1/certificates', method: 'POST' as const, headers: { ...headers, 'content-type': marker }, payload: 'x' },
  ]
  for (const request of requests) {
    const answer = await app.inject(request)
    t.ok(answer.statusCode >= 400 && answer.statusCode < 500)
    t.notMatch(answer.body, /mark/)
    t.notMatch(JSON.stringify(answer.headers), /mark/)
  }
  const answer = await app.inject({
    method: 'POST',
    url: '/v1/certificates',
    headers,
    payload: '{"csr":"x","profile":"server","validty":"1h"}',
  })
  t.same(answer.json().violations, [
    { check: 'request.body', field: '/validty', value: '', reason: 'is not a known field' },
  ])
})

t.test('a bound that a field breaks is told in words', (t) => {
  for (const [keyword, limit, words] of [
    ['minimum', 1, 'must be at least 1'],
    ['maximum', 9, 'must be at most 9'],
    ['minLength', 1, 'must have at least 1 character'],
    ['maxLength', 2048, 'must have at most 2048 characters'],
    ['minItems', 1, 'must have at least 1 item'],
    ['maxItems', 1000, 'must have at most 1000 items'],
    ['minProperties', 1, 'must have at least 1 field'],
    ['maxProperties', 32, 'must have at most 32 fields'],
  ] as const) {
    const { options } = schemaProblem([{ keyword, instancePath: '/x', params: { limit } }], 'body')
    t.same(options.violations, [{ check: 'request.body', field: '/x', value: '', reason: words }])
  }
  t.end()
})

t.test('a field that breaks its bounds says by how much', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const headers = { authorization: 'Bearer requester_' }
  const payload = { csr: 'x', profile: 'server', names: { dns: [] } }
  const answer = await app.inject({ method: 'POST', url: '/v1/certificates', headers, payload })
  t.match(answer.json().violations, [{ field: '/names/dns', reason: 'must have at least 1 item' }])
})

t.test('what is no HTTP gets a problem document and the end of its connection', async (t) => {
  const { app, lines } = await openStandIn()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const exchange = async (octets: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    socket.end(octets)
    await once(socket, 'close')
    return answer
  }
  const cases: [string, string, number, ProblemCode][] = [
    ['noise', 'hello\r\n\r\n', 400, 'request.malformed'],
    ['a TLS greeting', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, 'request.malformed'],
    [
      'endless header fields',
      `GET /livez HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
      431,
      'request.headers',
    ],
    [
      'two lengths',
      'POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
      400,
      'request.malformed',
    ],
    [
      'a length beside chunks',
      'POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
      'request.malformed',
    ],
    ['no host', 'GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'request.malformed'],
  ]
  for (const [name, octets, status, code] of cases) {
    const answer = await exchange(octets)
    t.match(answer, new RegExp(`^HTTP/1.1 ${status} `), name)
    t.match(answer, /Content-Type: application\/problem\+json/i)
    const document = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4))
    t.equal(document.code, code, name)
    t.equal(/^X-Request-Id: (\S+)\r$/im.exec(answer)?.[1], document.requestId, `${name} has one id`)
    t.ok(
      lines.some((line) => line['id'] === document.requestId && line['code'] === code),
      `${name} is in the log under it`,
    )
  }
})

t.test('a socket whose TLS failed is given no answer: it would wait there for a handshake that goes on', (t) => {
  for (const code of ['ERR_TLS_HANDSHAKE_TIMEOUT', 'ERR_SSL_HTTP_REQUEST', 'ECONNRESET', 'EPROTO']) {
    const socket = new PassThrough()
    t.equal(answerClientError(Object.assign(new Error(), { code }), socket as never, 'id'), undefined)
    t.ok(socket.destroyed)
    t.equal(socket.read(), null)
  }
  t.end()
})

t.test('what has not arrived when its call is given up is late, and no fault of ours', async (t) => {
  const app = fastify({ handlerTimeout: 20 })
  t.teardown(() => app.close())
  app.setErrorHandler(openErrorHandler(quiet))
  app.delete('/', { onRequest: async ({ raw }) => void (await once(raw, 'end')) }, () => undefined)
  app.get('/', () => new Promise(() => {}))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const codeOf = async (fields: string): Promise<unknown> => {
    const socket = connect(port, '127.0.0.1')
    socket.write(`${fields}\r\nHost: x\r\n\r\n`)
    const [answer] = await once(socket.setEncoding('utf8'), 'data')
    socket.destroy()
    return /"code":"([^"]*)"/.exec(answer)?.[1]
  }
  t.equal(await codeOf('DELETE / HTTP/1.1\r\nTransfer-Encoding: chunked'), 'request.timeout')
  t.equal(await codeOf('GET / HTTP/1.1'), 'overload.deadline')
})

t.test('a handler that never answers is given up with a retryable problem', async (t) => {
  const app = fastify({ handlerTimeout: 20 })
  t.teardown(() => app.close())
  app.setErrorHandler((error, _request, reply) => reply.send(documentOf(toProblem(error), 'id')))
  app.get('/', () => new Promise(() => {}))
  t.match((await app.inject('/')).json(), { code: 'overload.deadline', retryable: true, retryAfter: 1 })
  await t.rejects(withinDeadline(new Promise(() => {}), 20), { code: 'overload.deadline' })
  t.equal(await withinDeadline(Promise.resolve(17), 20), 17)
  await t.rejects(withinDeadline(Promise.reject(new Problem('csr.pem', 'x')), 20), { code: 'csr.pem' })
})
