/** What is told of a malformed request: what is wrong, where, and what to do, each of which must be true. */
import { X509Certificate } from 'node:crypto'

import t from 'tap'

import { assertNext } from '../helpers/described.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from './people.ts'

const service = await openTestService(t)
const csr = csrFor('web.example.com')

const get = async (path: string) => (await service.request('GET', path)).json
const post = async (path: string, body: unknown, type?: string) =>
  (await service.request('POST', path, { body, ...(type !== undefined && { headers: { 'content-type': type } }) })).json

t.test('a cursor is blamed by its name', async (t) => {
  const { next } = await get('/v1/events?limit=1')
  for (const path of [
    '/v1/events?cursor=abc',
    `/v1/events?type=service.started&cursor=${next}`,
    `/v1/refusals?cursor=${next}`,
    '/v1/requests?cursor=abc',
    '/v1/revocations?cursor=abc',
  ])
    t.match(
      await get(path),
      { code: 'request.cursor', violations: [{ check: 'request.cursor', field: '/cursor', reason: /^is / }] },
      path,
    )
})

t.test('a parameter that comes twice is told as that', async (t) => {
  const reason = 'occurs more than once'
  for (const [query, field] of [
    ['limit=1&limit=1', '/limit'],
    ['limit=1&limit=2', '/limit'],
    ['count=true&count=true', '/count'],
    ['no-such=1&no-such=2', '/no-such'],
    ['%00=1&%00=2', ''],
  ] as const) {
    const { code, detail, violations } = await get(`/v1/events?${query}`)
    t.same([code, detail], ['request.malformed', 'A parameter of the query occurs more than once.'])
    t.same(violations, [{ check: 'request.query', field, value: '', reason }], query)
  }
  t.same((await get('/v1/events?limit=1&limit=1&at=1&at=1')).violations.length, 2, 'each of them')
  const { status } = await service.request('GET', '/v1/events?limit=1&limit=1', { token: null })
  t.equal(status, 401, 'to whoever may ask at all')
})

t.test('what belongs into the query beside a raw body is told as what the query lacks', async (t) => {
  for (const type of ['application/x-pem-file', 'application/pkcs10'])
    for (const [query, field, reason] of [
      ['', '/profile', /^is missing$/],
      ['?dryRun=true', '/profile', /^is missing$/],
      ['?validity=1d', '/profile', /^is missing$/],
      ['?profile=No_Such', '/profile', /^must be 1 to 63/],
      ['?profile=server&validity=soon', '/validity', /^must be a whole number/],
    ] as const) {
      const told = await post(`/v1/certificates${query}`, csr, type)
      t.match(told, { code: 'request.malformed', detail: /^The query / }, `${type} ${query}`)
      t.match(told.violations, [{ check: 'request.query', field, reason }], `${type} ${query}`)
      t.equal(told.violations.length, 1)
    }
  const { violations } = await post('/v1/certificates?profile=server&validity=1h', { csr, profile: 'server' })
  t.match(violations, [{ field: '/profile' }, { field: '/validity', reason: 'belongs into a JSON body' }])
  t.match((await post('/v1/certificates', { csr })).violations, [{ check: 'request.body', field: '/profile' }])
})

t.test('nobody is sent to violations that are not there', async (t) => {
  t.throws(() => assertNext({ next: 'Mend what the violations name.' }), /There are no violations/)
  for (const body of ['{', '', '{"csr":1,"csr":2}', 'null', '"x"', `${'['.repeat(20)}${']'.repeat(20)}`]) {
    const { code, next } = await post('/v1/certificates', body, 'application/json')
    t.equal(code, 'request.malformed', body)
    t.match(next, /Mend what the detail and any violations say/)
  }
})

t.test('what is wrong with one field names it', async (t) => {
  await service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'operator' } })
  const { serial } = await post('/v1/certificates', { csr, profile: 'server' })
  const revoke = (invalidityDate: string) =>
    post(`/v1/certificates/${serial}/revocation`, { reason: 'superseded', invalidityDate })
  const token = (expiresAt: string) => post('/v1/tokens', { principal: 'admin', label: 'told', expiresAt })
  for (const [told, field, reason] of [
    [await post('/v1/certificates', { csr, profile: 'server', validity: '36526d' }), '/validity', /hundred years/],
    [await revoke('2126-01-01T00:00:00Z'), '/invalidityDate', /in the future/],
    [await revoke('1949-12-31T23:59:59Z'), '/invalidityDate', /before 1950/],
    [await token('2020-01-01T00:00:00Z'), '/expiresAt', /has passed/],
    [await token('2126-01-01T00:00:00Z'), '/expiresAt', /ten years ahead/],
  ] as const) {
    t.equal(told.code, 'request.malformed', told.detail)
    t.match(told.violations, [{ field, reason }])
  }
})

t.test('a list that cannot be read is told as a list', async (t) => {
  for (const crl of [
    Buffer.from('no list').toString('base64'),
    Buffer.from('3000', 'hex').toString('base64'),
    new X509Certificate(service.ca).raw.toString('base64'),
    'no base64',
    service.ca,
  ]) {
    const told = await post('/v1/issuers/default/crl', { crl })
    t.match(told, { code: 'crl.invalid', detail: /^The list cannot be read: .*[.]$/, violations: [{ field: '/crl' }] })
  }
})
