import { once } from 'node:events'
import { request as httpsRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { assertDescribed, assertMembers, assertPointers, assertShape } from '../helpers/described.ts'
import { openTestService } from '../helpers/service.ts'
import { pem, rdn, request, seq, utf8 } from '../x509/build.ts'
import { csrFor } from './people.ts'

const service = await openTestService(t)
const { paths = {} } = service.service.app.swagger() as { paths?: Record<string, Record<string, unknown>> }
const values: Readonly<Record<string, string>> = {
  serial: '4a'.repeat(16),
  id: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e',
  name: 'not-there',
}
/** To whoever, and so of no use to anybody with a body; or to a probe. */
const isOpen = (path: string): boolean => {
  const operation = paths[path]?.['get'] as { readonly security: readonly object[] } | undefined
  return operation?.security.length === 0 || path === '/readyz'
}
const deletes = Object.keys(paths)
  .filter((path) => paths[path]?.['delete'])
  .map((path) => path.replaceAll(/\{(\w+)\}/g, (_, name: string) => values[name] ?? ''))

t.test('each answer that a test gets is looked up in the description', async (t) => {
  t.throws(
    () => assertDescribed('GET', '/v1/certificates/batch', 418),
    /GET [/]v1[/]certificates[/]\{serial\} answers 418/,
  )
  t.throws(() => assertDescribed('HEAD', '/roll/tile/0/000', 418), /HEAD [/]roll[/]tile[/]\{path\} answers 418/)
  t.doesNotThrow(() => assertDescribed('HEAD', '/v1/events', 200))
  t.doesNotThrow(() => assertDescribed('GET', '/nowhere', 418), 'what is no call may answer what it likes')
  t.throws(
    () => assertDescribed('GET', '/v1/events', 200, { location: '/' }),
    /GET [/]v1[/]events answers 200 with location/,
  )
  t.throws(
    () => assertDescribed('GET', '/v1/events', 403, { etag: '""' }),
    /answers 403 with etag/,
    'also of a shared one',
  )
  t.doesNotThrow(() => assertDescribed('GET', '/v1/events', 200, { link: '</v1/events>; rel="next"', date: '' }))
  const type = 'application/problem+json'
  t.throws(
    () => assertDescribed('GET', '/v1/events', 200, { 'content-type': type }),
    /answers 200 as application[/]problem/,
  )
  for (const one of [type, 'application/json; charset=utf-8'])
    t.doesNotThrow(
      () => assertDescribed('GET', '/readyz', 503, { 'content-type': one }),
      'it may be away, or not know who asks',
    )
  t.throws(() => assertMembers({ code: 'csr.pem', other: 1 }), /A problem has other/)
  const live = {
    method: 'GET',
    path: '/livez',
    status: 200,
    fields: { 'content-type': 'application/json; charset=utf-8' },
  }
  t.doesNotThrow(() => assertShape(live, { live: true }))
  t.throws(() => assertShape(live, { live: 'yes' }), /GET [/]livez answers 200 unlike .*live must be/)
  t.throws(() => assertShape(live, undefined), /must be object/, 'and what is no JSON')
  const denied = { method: 'GET', path: '/v1/events', status: 403, fields: { 'content-type': type } }
  t.throws(
    () => assertShape(denied, { code: 'auth.forbidden' }),
    /answers 403 unlike .*must have required property 'type'/,
    'also of a shared one',
  )
})

t.test('a Content-Type without a body is passed over where no body is taken, and a body is refused', async (t) => {
  t.ok(deletes.length >= 5, `${deletes}`)
  const chunked = { 'transfer-encoding': 'chunked' }
  for (const path of deletes) {
    const { status, json } = await service.request('DELETE', path)
    const untyped = await service.request('DELETE', path, { headers: chunked })
    t.equal(untyped.status, status, `${path} of a stream without an octet`)
    for (const type of ['application/json', 'text/plain', 'no type'])
      for (const length of [{}, { 'content-length': '0' }, chunked]) {
        const answer = await service.request('DELETE', path, { headers: { 'content-type': type, ...length } })
        t.equal(answer.status, status, `${path} ${type} ${JSON.stringify(length)}`)
        t.equal(answer.json?.code, json?.code)
      }
    for (const asked of [{ body: {} }, { body: 'x' }]) {
      const answer = await service.request('DELETE', path, asked)
      t.match(answer.json, { status: 415, code: 'request.media_type', detail: 'This call takes no body.' }, path)
    }
  }
})

t.test(
  'a body that is sent with GET is refused where somebody is asked who he is, and its type passed over',
  async (t) => {
    const headers = { 'content-type': 'application/json' }
    const gets = Object.keys(paths).filter((path) => paths[path]?.['get'])
    t.ok(gets.length > 20)
    for (const pattern of gets) {
      const path = pattern.replaceAll(/\{(\w+)\}/g, (_, name: string) => values[name] ?? 'none')
      const bare = await service.request('GET', path)
      t.match(await service.request('GET', path, { headers }), { status: bare.status }, path)
      for (const method of ['GET', 'HEAD']) {
        const { status } = await service.request(method, path, { body: { status: 'revoked' } })
        t.equal(status, isOpen(pattern) ? bare.status : 415, `${method} ${path}`)
      }
    }
  },
)

t.test(
  'a GET or DELETE that a proxy has passed on as chunked, and that has no octet, is one without a body',
  async (t) => {
    const chunked = { 'transfer-encoding': 'chunked' }
    for (const method of ['GET', 'HEAD'])
      for (const path of ['/v1/events', '/v1/certificates', '/metrics', '/readyz'])
        for (const headers of [chunked, { ...chunked, 'content-type': 'application/json' }])
          t.equal((await service.request(method, path, { headers })).status, 200, `${method} ${path}`)
    /** How often it was asked for a body before it was answered, and with what. */
    const asked = async (method: string, path: string): Promise<readonly [times: number, status?: number]> => {
      const headers = { ...chunked, authorization: `Bearer ${service.adminToken}`, expect: '100-continue' }
      const call = httpsRequest(new URL(path, service.url), { ca: service.ca, method, headers })
      let times = 0
      call.on('continue', () => {
        times += 1
        call.end()
      })
      const answered = once(call, 'response')
      call.flushHeaders()
      const [answer] = await answered
      answer.resume()
      call.destroy()
      return [times, answer.statusCode]
    }
    const later = async (piece: string, method = 'GET', path = '/v1/events'): Promise<number | undefined> => {
      const headers = { ...chunked, authorization: `Bearer ${service.adminToken}` }
      const call = httpsRequest(new URL(path, service.url), { ca: service.ca, method, headers })
      const answered = once(call, 'response')
      call.flushHeaders()
      await sleep(50)
      if (piece !== '') call.write(piece)
      await sleep(50)
      call.end()
      const [answer] = await answered
      answer.resume()
      return answer.statusCode
    }
    t.equal(await later(''), 200, 'also where its end comes later')
    for (const [method, path] of [
      ['GET', '/v1/events'],
      ...deletes.map((path) => ['DELETE', path] as const),
    ] as const) {
      const told = await asked(method, path)
      t.same(
        told,
        [1, (await service.request(method, path)).status],
        `${method} ${path} waits to be asked for it, once`,
      )
    }
    t.equal(await later('{"status":"revoked"}'), 415, 'and one that has octets after all is refused')
    for (const path of deletes) {
      t.equal(await later('', 'DELETE', path), (await service.request('DELETE', path)).status, path)
      t.equal(await later('{}', 'DELETE', path), 415, path)
    }
  },
)

t.test('whoever sends no body where one is taken is told so, and what to send', async (t) => {
  const methods = ['post', 'put', 'patch'] as const
  const calls = Object.entries(paths).flatMap(([path, item]) =>
    methods.flatMap((method) => {
      const { requestBody } = (item[method] ?? {}) as { readonly requestBody?: { readonly content: object } }
      // These are for whoever holds a certificate, and for approvers.
      if (!requestBody || /\/(renewal|approval|rejection)$/.test(path)) return []
      return [{ method: method.toUpperCase(), path, types: Object.keys(requestBody.content) }]
    }),
  )
  t.ok(calls.length > 15, `${calls.length}`)
  const kept = async () => (await service.request('GET', '/v1/refusals')).json.items
  const before = await kept()
  for (const { method, path: pattern, types } of calls) {
    const path = pattern.replaceAll(/\{(\w+)\}/g, (_, name: string) => values[name] ?? 'none')
    const told = async (headers: Readonly<Record<string, string>>): Promise<void> => {
      const { status, json } = await service.request(method, path, { headers })
      t.equal(status, 400, `${method} ${path} ${JSON.stringify(headers)}`)
      t.equal(json.code, 'request.malformed')
      t.match(json.detail, /^The request has no body: send one, with Content-Type application\/.*[.]$/)
      for (const type of types) t.match(json.detail, type)
      t.notOk(json.violations, 'and nothing is found in it')
    }
    await told({})
    await told({ 'content-length': '0' })
    // curl -d '' says so.
    await told({ 'content-length': '0', 'content-type': 'application/x-www-form-urlencoded' })
    for (const type of types) {
      await told({ 'content-type': type })
      await told({ 'content-type': type, 'transfer-encoding': 'chunked' })
    }
  }
  const raw = { headers: { 'content-type': 'application/pkcs10' } }
  t.equal((await service.request('POST', '/v1/certificates?profile=server', raw)).json.code, 'request.malformed')
  t.same(await kept(), before, 'it is no request of somebody for something, which would be kept')
})

t.test('a coding of a body is none of its framing, wherever it is told', async (t) => {
  for (const coding of ['gzip, chunked', 'identity, chunked'])
    t.match(
      await service.request('POST', '/v1/principals', {
        headers: { 'content-type': 'application/json', 'transfer-encoding': coding },
      }),
      { status: 415, json: { detail: 'The body must not be compressed.' } },
      coding,
    )
  const headers = { 'content-type': 'application/json', 'transfer-encoding': 'Chunked' }
  t.equal((await service.request('POST', '/v1/principals', { headers })).json.code, 'request.malformed', 'it is empty')
})

t.test('the charset of a text may stand in quotes', async (t) => {
  for (const [i, type] of ['application/json; charset="utf-8"', 'Application/JSON;charset="UTF-8"'].entries()) {
    const headers = { 'content-type': type }
    const body = JSON.stringify({ name: `quoted-${i}` })
    t.equal((await service.request('POST', '/v1/principals', { headers, body })).status, 201, type)
  }
})

t.test(
  'a place is told as a JSON pointer, whoever finds fault there, and each that a test gets is looked at',
  async (t) => {
    for (const field of ['names.dns', 'names', '/a~2', '/a~'])
      t.throws(() => assertPointers({ items: [{ violations: [{ field, reason: 'is not' }] }] }), /is no JSON pointer/)
    for (const field of ['', '/names/0', '/a~1b~0c', '/'])
      t.doesNotThrow(() => assertPointers([{ notes: [{ field, reason: 'is not' }] }]))

    const csr = csrFor('web.example.com')
    const ask = async (body: object) => (await service.request('POST', '/v1/certificates', { body })).json
    const cases: readonly (readonly [names: object, field: string])[] = [
      [{ dns: ['a..example.com'] }, '/names/dns'],
      [{ ip: ['300.0.0.1'] }, '/names/ip'],
      [{ uri: ['no uri'] }, '/names/uri'],
      [{ email: ['nobody'] }, '/names/email'],
      [{ dns: ['web.evil.test'] }, '/names/0'],
    ]
    for (const [names, field] of cases)
      t.match((await ask({ csr, profile: 'server', names })).violations, [{ field }], JSON.stringify(names))
    const long = pem(request({ subject: seq(rdn('2.5.4.10', utf8('a'.repeat(65)))) }))
    t.match((await ask({ csr: long, profile: 'server' })).violations, [{ field: '/subject/organization' }])
  },
)
