import t from 'tap'

import { type Role, roles } from '../../src/ca/access/access.ts'
import type { AccessRule } from '../../src/http/auth.ts'
import { openStandIn } from './stand-in.ts'

/** Written out by hand, so that no route changes hands without somebody meaning it. */
const matrix: Readonly<Record<string, 'open' | 'optional' | readonly Role[]>> = {
  'GET /livez': 'open',
  'GET /readyz': 'optional',
  'GET /problems/:code': 'open',
  'GET /openapi.json': 'open',
  'GET /metrics': ['operator', 'auditor', 'admin'],
  'POST /v1/certificates': ['requester'],
  'POST /v1/certificates/batch': ['requester'],
  'GET /v1/certificates': ['requester', 'operator', 'auditor', 'admin'],
  'GET /v1/certificates/:serial': ['requester', 'operator', 'auditor', 'admin'],
  'GET /v1/certificates/:serial/proof': ['requester', 'operator', 'auditor', 'admin'],
  // Of the certificate itself alone: matrix.test.ts shows it.
  'POST /v1/certificates/:serial/renewal': [],
  'GET /v1/certificates/:serial/renewal-info': ['requester', 'operator', 'auditor', 'admin'],
  'GET /v1/certificates/:serial/bundle': ['requester', 'operator', 'auditor', 'admin'],
  'GET /roll/checkpoint': ['auditor', 'admin'],
  'GET /roll/tile/*': ['auditor', 'admin'],
  'POST /v1/certificates/:serial/revocation': ['requester', 'operator'],
  'POST /v1/certificates/:serial/revocation/by-key': 'open',
  'DELETE /v1/certificates/:serial/revocation': ['operator'],
  'POST /v1/revocations': ['operator'],
  'GET /v1/revocations': ['operator', 'auditor', 'admin'],
  'GET /v1/revocations/:digest': ['operator', 'auditor', 'admin'],
  'GET /v1/requests': roles,
  'GET /v1/requests/:id': roles,
  'POST /v1/requests/:id/approval': ['approver'],
  'POST /v1/requests/:id/rejection': ['approver'],
  'POST /v1/requests/:id/withdrawal': roles,
  'GET /v1/profiles': ['approver', 'operator', 'auditor', 'admin'],
  'GET /v1/profiles/:name': ['approver', 'operator', 'auditor', 'admin'],
  'PUT /v1/profiles/:name': ['admin'],
  'GET /v1/profiles/:name/versions': ['approver', 'operator', 'auditor', 'admin'],
  'GET /v1/profiles/:name/versions/:version': ['approver', 'operator', 'auditor', 'admin'],
  'POST /v1/principals': ['admin'],
  'GET /v1/principals': ['auditor', 'admin'],
  'GET /v1/principals/:name': ['auditor', 'admin'],
  'DELETE /v1/principals/:name': ['admin'],
  'POST /v1/grants': ['admin'],
  'GET /v1/grants': ['auditor', 'admin'],
  'DELETE /v1/grants/:id': ['admin'],
  'POST /v1/tokens': ['admin'],
  'GET /v1/tokens': ['auditor', 'admin'],
  'DELETE /v1/tokens/:id': ['admin'],
  'POST /v1/credentials': ['admin'],
  'GET /v1/credentials': ['auditor', 'admin'],
  'DELETE /v1/credentials/:id': ['admin'],
  'GET /v1/identity-providers': ['auditor', 'admin'],
  'GET /v1/identity-providers/:name': ['auditor', 'admin'],
  'PUT /v1/identity-providers/:name': ['admin'],
  'GET /v1/identity-providers/:name/versions': ['auditor', 'admin'],
  'GET /v1/identity-providers/:name/versions/:version': ['auditor', 'admin'],
  'GET /v1/refusals': ['operator', 'auditor', 'admin'],
  'GET /v1/events': ['auditor', 'admin'],
  'GET /v1/accesses': ['auditor', 'admin'],
  'GET /v1/authorities': roles,
  'GET /v1/authorities/:name': roles,
  'GET /v1/authorities/:name/bundle': roles,
  'GET /v1/issuers': roles,
  'GET /v1/issuers/:name': roles,
  'PUT /v1/issuers/:name': ['admin'],
  'POST /v1/issuers/:name/crl': ['operator', 'admin'],
  'POST /v1/issuers/:name/moves': ['admin'],
  'PUT /v1/issuers/:name/chains': ['admin'],
  'GET /v1/issuers/:name/key': ['operator', 'auditor', 'admin'],
  'PUT /v1/issuers/:name/key': ['admin'],
  'POST /v1/issuer-requests': ['admin'],
  'GET /v1/issuer-requests': ['operator', 'auditor', 'admin'],
}

/** HEAD is let in as GET is. */
const heads = Object.entries(matrix)
  .filter(([route]) => route.startsWith('GET '))
  .map(([route, rule]) => [route.replace('GET', 'HEAD'), rule] as const)

const routes = [...Object.entries(matrix), ...heads].map(([route, rule]) => {
  const [method = '', pattern = ''] = route.split(' ')
  const url = pattern
    .replace(':serial', '4a'.repeat(16))
    .replace(':digest', 'ab'.repeat(32))
    .replace(':version', '1')
    .replace(':code', 'csr.pem')
    .replace(':id', '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e')
    .replace(':name', 'server')
  return { route, method: method as 'GET', url, rule }
})

t.test('the matrix holds every route that the description has, and no other', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const { paths = {} } = app.swagger() as unknown as {
    paths?: Record<string, Record<string, { 'x-roles': Role[]; security: object[] }>>
  }
  const described = Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({
      route: `${method.toUpperCase()} ${path.replace('/{path}', '/*').replaceAll(/\{(\w+)\}/g, ':$1')}`,
      operation,
    })),
  )
  t.same(
    described.map(({ route }) => route).sort(),
    Object.keys(matrix)
      .filter((route) => route !== 'GET /openapi.json')
      .sort(),
  )
  for (const { route, operation } of described) {
    const rule = matrix[route]
    t.same(
      [...operation['x-roles']].sort(),
      Array.isArray(rule) ? [...rule].sort() : [],
      `${route} is described as it is guarded`,
    )
    t.equal(operation.security.length === 0, rule === 'open', `${route} asks for credentials unless it is open`)
  }
})

t.test('every route lets in exactly the roles of the matrix, and nobody without credentials', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  for (const { route, method, url, rule } of routes) {
    const status = async (authorization?: string): Promise<number> =>
      (await app.inject({ method, url, ...(authorization && { headers: { authorization } }) })).statusCode
    const isOpen = !Array.isArray(rule)
    t.equal((await status()) === 401, !isOpen, `${route} without credentials`)
    t.equal((await status('Bearer nobody_')) === 403, !isOpen, `${route} by a principal without a grant`)
    t.equal((await status('Bearer wrong_')) === 401, rule !== 'open', `${route} with a token that is none`)
    t.equal((await status('Basic YTpi')) === 401, rule !== 'open', `${route} with another scheme`)
    for (const role of roles) {
      const refused = [401, 403].includes(await status(`Bearer ${role}_`))
      t.equal(refused, !isOpen && !rule.includes(role), `${route} by ${role}`)
    }
  }
})

t.test('a route that declares no access cannot be registered', async (t) => {
  const { guardedApp } = await import('../../src/http/app.ts')
  const { deps } = await openStandIn()
  const app = guardedApp(deps)
  t.teardown(() => app.close())
  t.throws(() => app.get('/forgotten', async () => 'secret'), {
    message: 'The route GET /forgotten declares no access.',
  })
  app.get('/fine', { config: { access: ['admin'] satisfies AccessRule } }, async () => 'secret')
  t.equal((await app.inject('/fine')).statusCode, 401)
})

t.test('credentials are one bearer token in Authorization and nowhere else', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const url = '/v1/profiles'
  const missing = await app.inject({ url: `${url}?access_token=admin_` })
  t.equal(missing.statusCode, 401)
  t.equal(missing.headers['www-authenticate'], 'Bearer realm="chancery"')
  for (const authorization of [
    '',
    'Bearer',
    'Bearer ',
    'Bearer a b',
    'Bearer "admin_"',
    'Bearer admin_, Bearer x',
    'Token admin_',
    'Bearer *',
    `Bearer ${'a'.repeat(8_000)}=a`,
  ]) {
    const answer = await app.inject({ url, headers: { authorization } })
    t.equal(answer.statusCode, 401, authorization)
    t.equal(answer.json().code, 'auth.invalid')
    t.equal(answer.headers['www-authenticate'], 'Bearer realm="chancery", error="invalid_token"')
  }
  const forbidden = await app.inject({ url, headers: { authorization: 'Bearer requester_' } })
  t.equal(forbidden.headers['www-authenticate'], 'Bearer realm="chancery", error="insufficient_scope"')
  t.equal(
    (await app.inject({ url, headers: { authorization: 'bearer  auditor_ ' } })).json().code,
    'certificate.not_found',
    'the scheme has no case',
  )
})

t.test('reasons for being unready are told to operators and administrators only', async (t) => {
  const { app } = await openStandIn({
    health: { ready: async () => [{ name: 'key', ok: false, reason: 'no session' }] },
  })
  t.teardown(() => app.close())
  const reasons = async (token?: string) => {
    const answer = await app.inject({ url: '/readyz', ...(token && { headers: { authorization: `Bearer ${token}` } }) })
    t.equal(answer.statusCode, 503)
    t.equal(answer.headers['retry-after'], '1')
    return answer.json().checks
  }
  t.equal(await reasons(), undefined)
  for (const role of roles)
    t.equal((await reasons(`${role}_`)) !== undefined, role === 'admin' || role === 'operator', role)
})

t.test('beyond the bound of the queue nobody is even authenticated', async (t) => {
  const asked: string[] = []
  const { app } = await openStandIn({
    issuance: { pending: 8 } as never,
    identities: {
      bearer: async (secret: string) => {
        asked.push(secret)
        throw new Error()
      },
    } as never,
  })
  t.teardown(() => app.close())
  for (const url of ['/v1/certificates', '/v1/certificates/batch']) {
    const answer = await app.inject({
      method: 'POST',
      url,
      headers: { authorization: 'Bearer requester_' },
      payload: {},
    })
    t.equal(answer.statusCode, 503)
    t.equal(answer.headers['retry-after'], '1')
    t.match(answer.json(), { code: 'overload.queue', retryable: true, retryAfter: 1 })
  }
  t.same(asked, [])
})
