import { once } from 'node:events'
import { Agent, request } from 'node:https'
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'

import t from 'tap'

import type { Issued } from '../../src/ca/issuance/issuance.ts'
import { Problem } from '../../src/errors.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from './people.ts'
import { callerFor, issued, openStandIn, reached } from './stand-in.ts'

const asRequester = { authorization: 'Bearer requester_', 'content-type': 'application/json' }

t.test('closing answers what was accepted, and ends its connection', async (t) => {
  let finish = (_issued: Issued): void => {}
  const started = Promise.withResolvers<void>()
  const { app } = await openStandIn({
    issuance: reached({
      pending: 0,
      request: () => {
        started.resolve()
        return new Promise<Issued>((resolve) => {
          finish = resolve
        })
      },
    }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const body = JSON.stringify({ csr: csrFor('a.example.com'), profile: 'server' })
  const call = [
    'POST /v1/certificates HTTP/1.1',
    'Host: x',
    ...Object.entries(asRequester).map(([name, value]) => `${name}: ${value}`),
    `Content-Length: ${body.length}`,
    '',
    body,
  ].join('\r\n')
  const socket = connectTcp(port, '127.0.0.1')
  let answers = ''
  socket.on('data', (chunk) => {
    answers += chunk
  })
  socket.write(call)
  await started.promise
  const closing = app.close()
  await sleep(20)
  finish(issued)
  await once(socket, 'close')
  t.match(answers, /^HTTP\/1\.1 201 Created\r\n/)
  t.match(answers, /\r\nconnection: close\r\n/i)
  await closing
  await t.rejects(fetch(`http://127.0.0.1:${port}`), 'nothing listens any more')
})

/** A batch over a stand-in that takes 20 ms an item, and counts them. */
const slowBatch = async (overrides: Parameters<typeof openStandIn>[0] = {}) => {
  const begun = { count: 0 }
  const { app } = await openStandIn({
    issuance: reached({
      pending: 0,
      request: async () => {
        begun.count += 1
        await sleep(20)
        return issued
      },
    }),
    ...overrides,
  })
  const items = new Array(1_000).fill({ csr: csrFor('a.example.com'), profile: 'server' })
  return { app, begun, payload: JSON.stringify({ items }) }
}
const codesOf = (text: string): ReadonlySet<string | undefined> =>
  new Set(JSON.parse(text).items.map(({ problem }: { problem?: { code: string } }) => problem?.code))

t.test('a batch ends early when the service stops, and tells what was not begun', async (t) => {
  const { app, begun, payload } = await slowBatch()
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  // Read as it comes: closing waits until the whole answer is taken.
  const answer = fetch(url, { method: 'POST', headers: asRequester, body: payload }).then((response) => response.text())
  while (begun.count === 0) await sleep(5)
  await app.close()
  t.same(codesOf(await answer), new Set([undefined, 'service.stopping']))
  t.ok(begun.count < 1_000, `${begun.count} were begun`)
})

t.test('a batch ends early when its client has gone', async (t) => {
  const { app, begun, payload } = await slowBatch()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const client = new AbortController()
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  const gone = fetch(url, { method: 'POST', headers: asRequester, body: payload, signal: client.signal })
  while (begun.count === 0) await sleep(5)
  client.abort()
  await t.rejects(gone)
  await sleep(100)
  const { count } = begun
  await sleep(200)
  t.equal(begun.count, count, 'nothing is begun any more')
  t.ok(count < 1_000)
})

t.test('a token that is revoked issues nothing for the rest of its batch', async (t) => {
  let isRevoked = false
  const grant = {
    id: 'g',
    principal: 'ci',
    role: 'requester',
    profiles: ['server'],
    names: null,
    revoke: false,
  } as const
  const { app, begun, payload } = await slowBatch({
    identities: reached({
      bearer: async () => {
        if (isRevoked) throw new Problem('auth.invalid', 'This token is unknown, expired or revoked.')
        return {
          principal: 'ci',
          proof: { kind: 'own' },
          grants: [{ ...grant, createdAt: new Date(0), createdBy: 'test' }],
        }
      },
    }),
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  const answer = fetch(url, { method: 'POST', headers: asRequester, body: payload }).then((response) => response.text())
  while (begun.count === 0) await sleep(5)
  isRevoked = true
  t.same(codesOf(await answer), new Set([undefined, 'auth.invalid']))
  t.ok(begun.count < 1_000, `${begun.count} were begun`)
})

t.test('why items of a batch went wrong is told as of single requests; what keeps all of them, once', async (t) => {
  const faults = ['db.unavailable', 'policy.lint', 'db.unavailable', 'policy.lint'] as const
  let next = 0
  const { app, lines } = await openStandIn({
    issuance: reached({
      pending: 0,
      request: async () => {
        next += 1
        throw new Problem(faults[next - 1] ?? 'internal', 'for now', { cause: new Error(`cause ${next}`) })
      },
    }),
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const body = JSON.stringify({ items: faults.map(() => ({ csr: csrFor('a.example.com'), profile: 'server' })) })
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  const answer = await fetch(url, { method: 'POST', headers: asRequester, body })
  t.same(codesOf(await answer.text()), new Set(['db.unavailable', 'policy.lint']))
  t.match(
    lines.filter(({ event }) => event === 'request.failed'),
    [
      { id: 'request-1', code: 'db.unavailable', cause: { message: 'cause 1' } },
      { code: 'policy.lint', cause: { message: 'cause 2' } },
      { code: 'policy.lint', cause: { message: 'cause 4' } },
    ],
  )
  t.equal(lines.filter(({ event }) => event === 'request.failed').length, 3)
})

t.test('nor does one item keep from the log why those of another profile, or those after it, went wrong', async (t) => {
  const causes = [undefined, 'key 1', 'key 1', 'key 2']
  const profiles = ['server', 'server', 'server', 'other']
  let next = 0
  const caller = callerFor('requester_')
  const ofBoth = { ...caller, grants: caller.grants.map((grant) => ({ ...grant, profiles })) }
  const { app, lines } = await openStandIn({
    identities: reached({ bearer: async () => ofBoth }),
    issuance: reached({
      pending: 0,
      request: async () => {
        const cause = causes[next++]
        throw new Problem('key.unavailable', 'for now', cause === undefined ? {} : { cause: new Error(cause) })
      },
    }),
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const body = JSON.stringify({ items: profiles.map((profile) => ({ csr: csrFor('a.example.com'), profile })) })
  const url = `http://127.0.0.1:${port}/v1/certificates/batch`
  await (await fetch(url, { method: 'POST', headers: asRequester, body })).text()
  const told = lines.filter(({ event }) => event === 'request.failed')
  t.match(told, [{ cause: { message: 'key 1' } }, { cause: { message: 'key 2' } }])
  t.equal(told.length, 2)
})

t.test('retryable faults of the service come out as they are, with Retry-After', async (t) => {
  for (const code of [
    'key.unavailable',
    'db.unavailable',
    'request.in_progress',
    'issuance.abandoned',
    'clock.skewed',
  ] as const) {
    const { app } = await openStandIn({
      issuance: reached({
        pending: 0,
        request: async () => {
          throw new Problem(code, 'for now', { retryAfter: 5, cause: new Error('pin 1234 wrong') })
        },
      }),
    })
    const payload = { csr: csrFor('a.example.com'), profile: 'server' }
    const answer = await app.inject({ method: 'POST', url: '/v1/certificates', headers: asRequester, payload })
    t.equal(answer.statusCode, 503, code)
    t.equal(answer.headers['retry-after'], '5')
    t.match(answer.json(), { code, retryable: true, retryAfter: 5 })
    t.notMatch(answer.body, /1234/)
    await app.close()
  }
})

t.test('one line a request, with names and numbers but nothing of what was sent', async (t) => {
  const { app, lines } = await openStandIn({ issuance: reached({ pending: 0, request: async () => issued }) })
  t.teardown(() => app.close())
  const csr = csrFor('a.example.com')
  await app.inject({
    method: 'POST',
    url: '/v1/certificates',
    headers: asRequester,
    payload: { csr, profile: 'server' },
  })
  await app.inject({ url: '/v1/certificates?name=needle', headers: { authorization: 'Bearer wrong_needle' } })
  t.equal(lines.length, 2)
  t.match(lines[0], {
    event: 'request',
    method: 'POST',
    route: '/v1/certificates',
    status: 201,
    principal: 'the-requester',
  })
  t.match(lines[1], { event: 'request', status: 401, code: 'auth.invalid' })
  const text = JSON.stringify(lines)
  for (const secret of ['needle', 'requester_', csr.slice(40, 80)]) t.notOk(text.includes(secret))
})

slowTest('HTTPS takes TLS 1.2 and up, and its certificate chains to the root that is written down', async (t) => {
  const service = await openTestService(t)
  const { hostname, port } = new URL(service.url)
  const socket = connect({ host: hostname, port: Number(port), ca: service.ca })
  await once(socket, 'secureConnect')
  t.equal(socket.authorized, true)
  t.equal(socket.getProtocol(), 'TLSv1.3')
  socket.destroy()
  const old = connect({
    host: hostname,
    port: Number(port),
    ca: service.ca,
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  })
  const [error] = await once(old, 'error')
  t.match((error as Error).message, /protocol|version|alert/i)
})

t.test('a call on a connection that is kept open stays bound by its own credentials', async (t) => {
  const service = await openTestService(t)
  const token = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: service.ca })
  t.teardown(() => agent.destroy())
  const status = async (authorization?: string): Promise<number | undefined> => {
    const call = request(`${service.url}/v1/certificates`, {
      agent,
      headers: { ...(authorization && { authorization }) },
    })
    call.end()
    const [response] = await once(call, 'response')
    response.resume()
    await once(response, 'end')
    return response.statusCode
  }
  t.equal(await status(`Bearer ${token}`), 200)
  t.equal(await status(), 401)
  t.equal(await status(`Bearer ${token}x`), 401)
  t.equal(await status(`Bearer ${token}`), 200)
})

t.test('the service measures what it does', async (t) => {
  const service = await openTestService(t)
  const token = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  await service.request('POST', '/v1/certificates', {
    token,
    body: { csr: csrFor('m.example.com'), profile: 'server' },
  })
  await service.request('POST', '/v1/certificates', { token, body: { csr: csrFor('m.evil.test'), profile: 'server' } })
  const { text } = await service.request('GET', '/metrics')
  for (const line of [
    'chancery_issuances_total{profile="server",outcome="issued"} 1',
    'chancery_issuances_total{profile="server",outcome="refused"} 1',
    'chancery_refusals_total{code="san.forbidden"} 1',
    'chancery_http_requests_total{route="/v1/certificates",status="201"} 1',
    'chancery_stage_seconds_count{stage="answer"} 1',
    ...['database', 'key', 'clock', 'crls', 'roll', 'queue'].map((name) => `chancery_check_passed{check="${name}"} 1`),
  ]) {
    t.ok(text.split('\n').includes(line), line)
  }
  for (const stage of ['authenticate', 'replay', 'read', 'decide', 'prepare', 'intent', 'sign', 'check', 'record']) {
    t.match(text, new RegExp(`chancery_stage_seconds_count\\{stage="${stage}"\\} [1-9]`), stage)
  }
  t.match(text, /chancery_batch_size_count\{batch="record"\} [1-9]/)
  t.match(text, /chancery_key_seconds_count\{key="[^"]+"\} [1-9]/)
  t.match(text, /chancery_database_connections\{state="open"\} [1-9]/)
  t.match(text, /chancery_issuer_not_after_timestamp_seconds\{issuer="etcd",state="active"\} [1-9]/)
})

/** Over a connection of its own: what is answered until it is closed by the other end. */
const openTalk = (port: number) => {
  const socket = connectTcp(port, '127.0.0.1')
  const heard = { text: '', fault: undefined as Error | undefined }
  socket.on('data', (chunk) => {
    heard.text += chunk
  })
  socket.on('error', (error) => {
    heard.fault = error
  })
  return { socket, heard, closed: new Promise<void>((resolve) => socket.once('close', () => resolve())) }
}

/** Pieces of a text, one every so often. */
const drip = async (socket: Socket, text: string, pieces: number, everyMs: number): Promise<void> => {
  const size = Math.ceil(text.length / pieces)
  for (let at = 0; at < text.length && !socket.destroyed; at += size) {
    socket.write(text.slice(at, at + size))
    await sleep(everyMs)
  }
}

const posting = (path: string, length: number, fields = ['Authorization: Bearer requester_']): string =>
  [
    `POST ${path} HTTP/1.1`,
    'Host: x',
    ...fields,
    'Content-Type: application/json',
    `Content-Length: ${length}`,
    '',
    '',
  ].join('\r\n')

slowTest('whoever sends too slowly is told so, once, after ten seconds, and nothing of it is done', async (t) => {
  const asked: unknown[] = []
  const request = async (...given: unknown[]): Promise<never> => {
    asked.push(given)
    throw new Problem('certificate.not_found', 'reached')
  }
  const createPrincipal = async (...given: unknown[]): Promise<never> => request(given)
  const { app } = await openStandIn({
    issuance: reached({ pending: 0, request }),
    access: reached({ createPrincipal }),
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const started = performance.now()
  const say = async (first: string, rest: (socket: Socket) => Promise<void> = async () => {}): Promise<string> => {
    const { socket, heard, closed } = openTalk(port)
    socket.write(first)
    await Promise.all([rest(socket), closed])
    return heard.text
  }
  const body = JSON.stringify({ csr: csrFor('late.example.com'), profile: 'server' })
  const endless = async (socket: Socket): Promise<void> => {
    while (!socket.destroyed) await drip(socket, 'X: y\r\n', 1, 500)
  }
  const [silence = '', ...answers] = await Promise.all([
    say(''),
    say('GET /livez HTTP/1.1\r\nHost: x\r\n', endless),
    say(posting('/v1/certificates', 9_000), endless),
    say(posting('/v1/certificates', body.length), (socket) => drip(socket, body, 14, 1_000)),
    say(`${posting('/v1/certificates', 9_000)}{"na`),
    say(posting('/v1/principals', 9_000, ['Authorization: Bearer admin_']), endless),
  ])
  t.ok(performance.now() - started < 14_000)
  for (const answer of answers) {
    t.match(answer, /^HTTP\/1\.1 408 /)
    t.match(answer, '"code":"request.timeout"')
    t.equal(answer.split('HTTP/1.1 ').length, 2, 'once')
  }
  t.same(asked, [], 'also where the rest came later')
  t.ok(silence === '' || /^HTTP\/1\.1 408 /.test(silence))
})

slowTest('a body may take as long as any request; and what was answered before it came is answered once', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const slowly = async (): Promise<string> => {
    const { socket, heard } = openTalk(port)
    const body = '{"name":"slow"}'
    socket.write(posting('/v1/principals', body.length, ['Authorization: Bearer admin_']))
    await drip(socket, body, 9, 1_000)
    await sleep(200)
    socket.destroy()
    return heard.text
  }
  const unauthenticated = async (): Promise<string> => {
    const { socket, heard, closed } = openTalk(port)
    socket.write(`${posting('/v1/principals', 13, [])}{"na`)
    await closed
    return heard.text
  }
  const announced = async (): Promise<string> => {
    const { socket, heard, closed } = openTalk(port)
    socket.write('GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n')
    await closed
    return heard.text
  }
  const [slow, once401, get] = await Promise.all([slowly(), unauthenticated(), announced()])
  t.match(get, /^HTTP\/1\.1 200 /)
  t.equal(get.split('HTTP/1.1 ').length, 2, 'nor to a GET that has announced a body')
  t.match(slow, /^HTTP\/1\.1 404 .*"code":"certificate\.not_found"/s, 'its handler had all of its time')
  t.match(once401, /^HTTP\/1\.1 401 /)
  t.equal(once401.split('HTTP/1.1 ').length, 2, 'no second answer, which the next request might take for its own')
})

t.test('whoever sends too much gets to read that it was too much, and the connection goes on', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  for (const length of [70_000, 900_000, 5_000_000]) {
    const { socket, heard, closed } = openTalk(port)
    // Nothing is read before all is written, as by clients that are not clever.
    socket.pause()
    socket.write(posting('/v1/certificates', length))
    for (let left = length; left > 0; left -= 10_000) if (!socket.write(' '.repeat(10_000))) await once(socket, 'drain')
    socket.write('GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    socket.resume()
    await closed
    t.equal(heard.fault, undefined)
    const [, tooLarge, alive] = heard.text.split('HTTP/1.1 ')
    t.match(tooLarge, /^413 .*"code":"csr\.too_large"/s)
    t.match(alive, /^200 /)
  }
  const { heard, socket, closed } = openTalk(port)
  socket.write(posting('/v1/certificates', 5e9))
  const flood = setInterval(() => socket.write(' '.repeat(1e6)), 1)
  await closed
  clearInterval(flood)
  t.match(heard.text, /^(HTTP\/1\.1 413 |$)/, 'but nobody keeps us reading')

  const closing = openTalk(port)
  closing.socket.pause()
  closing.socket.write(posting('/v1/certificates', 900_000, ['Authorization: Bearer requester_', 'Connection: close']))
  for (let left = 900_000; left > 0; left -= 10_000)
    if (!closing.socket.write(' '.repeat(10_000))) await once(closing.socket, 'drain')
  closing.socket.resume()
  await closing.closed
  t.equal(closing.heard.fault, undefined, 'also on a connection that is closed behind it')
  t.match(closing.heard.text, /^HTTP\/1\.1 413 .*connection: close/is)
})

t.test('of two fields that may come once, neither counts', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const ask = async (...fields: readonly string[]): Promise<string> => {
    const { socket, heard, closed } = openTalk(port)
    socket.write(
      ['POST /v1/certificates HTTP/1.1', ...fields, 'Content-Length: 2', 'Connection: close', '', '{}'].join('\r\n'),
    )
    await closed
    return heard.text
  }
  const [host, token, type] = ['Host: x', 'Authorization: Bearer requester_', 'Content-Type: application/json']
  t.match(await ask(host, token, type), /^HTTP\/1\.1 400 .*"field":"\/csr"/s)
  t.match(await ask(host, token, 'Authorization: Bearer admin_', type), /^HTTP\/1\.1 401 .*auth\.invalid/s)
  t.match(await ask(host, token, type, 'Content-Type: application/pkcs10'), /^HTTP\/1\.1 415 /)
  t.match(await ask(host, 'Host: y', token, type), /^HTTP\/1\.1 400 .*two hosts/s)
})

t.test('what is sent behind a request that is being done takes nothing for its answer', async (t) => {
  const finish = Promise.withResolvers<Issued>()
  const { app } = await openStandIn({ issuance: reached({ pending: 0, request: () => finish.promise }) })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { heard, socket, closed } = openTalk((app.server.address() as AddressInfo).port)
  const body = JSON.stringify({ csr: csrFor('a.example.com'), profile: 'server' })
  socket.write(`${posting('/v1/certificates', body.length)}${body}`)
  await sleep(100)
  socket.write('GARBAGE\r\n\r\n')
  await sleep(100)
  t.equal(heard.text, '', 'it is not said to have been malformed')
  finish.resolve(issued)
  await closed
  t.match(heard.text, /^HTTP\/1\.1 201 /, 'its answer is sent all the same')
})

slowTest('who asks is asked again within a bound of its own, once a slow body is there', async (t) => {
  let asked = 0
  const bearer = (): Promise<never> => {
    asked += 1
    return asked === 1 ? (Promise.resolve(callerFor('admin_')) as Promise<never>) : new Promise<never>(() => {})
  }
  const { app } = await openStandIn({ identities: reached({ bearer }) })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { heard, socket } = openTalk((app.server.address() as AddressInfo).port)
  const body = '{"name":"slow"}'
  socket.write(posting('/v1/principals', body.length, ['Authorization: Bearer admin_']))
  await drip(socket, body, 3, 700)
  await sleep(4_500)
  t.match(heard.text, /^HTTP\/1\.1 503 .*overload\.deadline/s)
  t.equal(asked, 2)
  socket.destroy()
})
