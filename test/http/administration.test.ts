import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'
import { stringify } from 'yaml'

import { openTestService, type TestService } from '../helpers/service.ts'
import { commonName, newP256, pem, request, tlv } from '../x509/build.ts'
import { csrFor, employ } from './people.ts'

let service: TestService

t.before(async () => {
  service = await openTestService(t)
})

const document = {
  name: 'shop',
  authority: 'default',
  validity: { default: '24h', max: '30d', over: 'refuse' },
  keys: [{ ec: ['P-256'] }],
  subject: { others: 'refuse' },
  names: { dns: { allow: ['*.shop.example.com'] }, require: ['dns'] },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
}

const put = (body: unknown, headers: Record<string, string>, name = 'shop') =>
  service.request('PUT', `/v1/profiles/${name}`, { headers, body })

t.test('a profile is created, changed by its ETag, and every version stays', async (t) => {
  const bare = await put(document, {})
  t.equal(bare.status, 428)
  t.equal(bare.json.code, 'precondition.required')
  t.equal((await put(document, { 'if-match': `"${'0'.repeat(64)}"` })).status, 412, 'nothing is there to match')

  const made = await put(document, { 'if-none-match': '*' })
  t.equal(made.status, 201)
  t.equal(made.headers['location'], '/v1/profiles/shop')
  t.match(made.json, { name: 'shop', version: 1, authority: 'default', createdBy: 'admin', document })
  t.equal(made.headers['etag'], `"${made.json.sha256}"`)
  t.equal((await put(document, { 'if-none-match': '*' })).json.code, 'precondition.failed', 'it is there already')

  const etag = String(made.headers['etag'])
  const changed = { ...document, validity: { ...document.validity, max: '7d' } }
  const second = await put(changed, { 'if-match': etag })
  t.equal(second.status, 200)
  t.equal(second.json.version, 2)
  t.equal((await put(document, { 'if-match': etag })).json.code, 'precondition.failed', 'changed in the meantime')

  const same = await put(changed, { 'if-match': String(second.headers['etag']) })
  t.equal(same.json.version, 2, 'the same content makes no new version')

  const yaml = await service.request('PUT', '/v1/profiles/shop', {
    headers: { 'if-match': String(second.headers['etag']), 'content-type': 'application/yaml' },
    body: stringify(document),
  })
  t.match(yaml.json, { version: 3, sha256: made.json.sha256 }, 'YAML says the same as JSON')

  const versions = (await service.request('GET', '/v1/profiles/shop/versions')).json.items
  t.same(
    versions.map(({ version }: { version: number }) => version),
    [3, 2, 1],
  )
  const first = await service.request('GET', '/v1/profiles/shop/versions/2')
  t.match(first.json, { version: 2, document: changed })
  const current = await service.request('GET', '/v1/profiles/shop')
  t.equal(current.headers['etag'], etag)
  t.ok(
    (await service.request('GET', '/v1/profiles')).json.items.some(
      ({ name, version }: { name: string; version: number }) => name === 'shop' && version === 3,
    ),
  )
  t.equal((await service.request('GET', '/v1/profiles/nope')).json.code, 'profile.not_found')
  t.equal((await service.request('GET', '/v1/profiles/shop/versions/9')).json.code, 'profile.not_found')
})

t.test('preconditions of another form are refused with what to send', async (t) => {
  const cases: [Record<string, string>, number, string][] = [
    [{ 'if-match': 'W/"x"' }, 412, 'precondition.failed'],
    [{ 'if-match': 'nonsense' }, 412, 'precondition.failed'],
    [{ 'if-match': '*', 'if-none-match': '*' }, 400, 'request.malformed'],
    [{ 'if-none-match': '"x"' }, 400, 'request.malformed'],
  ]
  for (const [headers, status, code] of cases) {
    const answer = await put(document, headers)
    t.equal(answer.status, status, JSON.stringify(headers))
    t.equal(answer.json.code, code)
  }
})

t.test('If-Match: * is whichever version is there, and there must be one (RFC 9110 13.1.1)', async (t) => {
  const { version } = (await service.request('GET', '/v1/profiles/shop')).json
  const changed = await put({ ...document, description: 'whatever was there' }, { 'if-match': '*' })
  t.equal(changed.status, 200)
  t.equal(changed.json.version, version + 1)
  const none = await service.request('PUT', '/v1/profiles/none-such', {
    headers: { 'if-match': '*' },
    body: { ...document, name: 'none-such' },
  })
  t.equal(none.status, 412)
  t.equal(none.json.code, 'precondition.failed')
})

t.test('a broken document is refused with all of its faults and their places', async (t) => {
  const broken = {
    ...document,
    validity: { default: 'a day', max: '30d' },
    keys: [],
    surprise: true,
  }
  const answer = await put(broken, { 'if-none-match': '*' }, 'shop')
  t.equal(answer.status, 422)
  t.equal(answer.json.code, 'profile.invalid')
  const places = answer.json.violations.map(({ field }: { field: string }) => field)
  for (const place of ['/validity/default', '/keys', '/surprise']) t.ok(places.includes(place), place)
  t.equal((await put(document, { 'if-none-match': '*' }, 'other')).json.violations[0].field, '/name')
  for (const body of [[], 'text', 17, null]) {
    const answer = await put(JSON.stringify(body), { 'if-none-match': '*', 'content-type': 'application/json' })
    t.equal(answer.json.code, 'profile.invalid', JSON.stringify(body))
  }
  const homeless = await put(
    { ...document, name: 'nowhere', authority: 'nowhere' },
    { 'if-none-match': '*' },
    'nowhere',
  )
  t.match(homeless.json, { code: 'authority.not_found', violations: [{ field: '/authority', value: 'nowhere' }] })
})

t.test('a new profile is used at once by whoever is granted it', async (t) => {
  const token = await employ(service, 'shopkeeper', 'requester', {
    profiles: ['shop'],
    names: { dns: { allow: ['a.shop.example.com'] } },
  })
  const ask = (name: string) =>
    service.request('POST', '/v1/certificates', { token, body: { csr: csrFor(name), profile: 'shop' } })
  t.equal((await ask('a.shop.example.com')).status, 201)
  const narrowed = await ask('b.shop.example.com')
  t.equal(narrowed.json.code, 'san.forbidden')
  t.match(narrowed.json.violations, [{ check: 'grant.names.dns' }])
})

t.test('whoever is granted one common name is nobody else', async (t) => {
  const token = await employ(service, 'worker-1', 'requester', {
    profiles: ['kubelet-client'],
    names: { commonName: { allow: ['system:node:worker-1'] } },
  })
  const ask = (name: string, query = '') => {
    const csr = pem(request({ signer: newP256(), subject: commonName(name), attributes: tlv(0xa0) }))
    return service.request('POST', `/v1/certificates${query}`, { token, body: { csr, profile: 'kubelet-client' } })
  }
  const own = await ask('system:node:worker-1')
  t.equal(own.status, 201, JSON.stringify(own.json))
  const other = await ask('system:node:worker-2')
  t.equal(other.json.code, 'subject.forbidden')
  t.match(other.json.violations, [{ check: 'grant.names.commonName', field: '/subject/commonName' }])
  const checks = (await ask('system:node:worker-1', '?dryRun=true')).json.checks
  t.match(
    checks.find(({ check }: { check: string }) => check === 'grant.names.commonName'),
    {
      outcome: 'passed',
      value: 'system:node:worker-1',
      reason: 'matches system:node:worker-1 of the grant',
    },
  )
  const { json } = await service.request('GET', '/v1/grants?principal=worker-1')
  t.same(json.items[0].names, { commonName: { allow: ['system:node:worker-1'] } })
})

t.test('principals, grants and tokens are made, listed and taken back', async (t) => {
  const made = await service.request('POST', '/v1/principals', { body: { name: 'team/ci@example.com' } })
  t.equal(made.status, 201)
  t.equal(made.headers['location'], '/v1/principals/team%2Fci%40example.com')
  t.match((await service.request('GET', String(made.headers['location']))).json, {
    name: 'team/ci@example.com',
    createdBy: 'admin',
    disabledAt: null,
  })
  t.equal(
    (await service.request('POST', '/v1/principals', { body: { name: 'team/ci@example.com' } })).json.code,
    'state.exists',
  )
  t.equal((await service.request('GET', '/v1/principals/nobody')).json.code, 'principal.not_found')

  const grant = await service.request('POST', '/v1/grants', {
    body: { principal: 'team/ci@example.com', role: 'requester', profiles: ['server'] },
  })
  t.equal(grant.status, 201)
  const again = await service.request('POST', '/v1/grants', {
    body: { principal: 'team/ci@example.com', role: 'requester', profiles: ['server'] },
  })
  t.equal(again.status, 200, 'what is held already')
  t.same(again.json, grant.json)
  const token = await service.request('POST', '/v1/tokens', {
    body: { principal: 'team/ci@example.com', label: 'CI of the team' },
  })
  t.equal(token.status, 201)
  t.equal(token.headers['cache-control'], 'no-store')
  const secret = token.json.secret
  const listed = (await service.request('GET', '/v1/tokens?principal=team%2Fci%40example.com')).json.items
  t.match(listed, [{ id: token.json.id, label: 'CI of the team', revokedAt: null }])
  t.notOk(JSON.stringify(listed).includes(secret), 'the secret is shown once')
  t.notOk((await service.request('GET', '/v1/events?limit=1000')).text.includes(secret))

  const ask = () =>
    service.request('POST', '/v1/certificates', {
      token: secret,
      body: { csr: csrFor('ci.example.com'), profile: 'server' },
    })
  t.equal((await ask()).status, 201)
  t.equal((await service.request('DELETE', `/v1/grants/${grant.json.id}`)).status, 204)
  t.equal((await ask()).json.code, 'auth.forbidden', 'on this instance at once')
  t.equal((await service.request('DELETE', `/v1/grants/${grant.json.id}`)).status, 204, 'idempotent')
  t.equal((await service.request('DELETE', `/v1/tokens/${token.json.id}`)).status, 204)
  t.equal((await ask()).json.code, 'auth.invalid')
  const missing = '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e'
  t.equal((await service.request('DELETE', `/v1/tokens/${missing}`)).json.code, 'token.not_found')
  t.equal((await service.request('DELETE', `/v1/grants/${missing}`)).json.code, 'grant.not_found')
})

t.test('a closed principal is let in nowhere, also on a connection that was open before', async (t) => {
  const token = await employ(service, 'leaver', 'auditor')
  t.equal((await service.request('GET', '/v1/events?limit=1', { token })).status, 200)
  t.equal((await service.request('DELETE', '/v1/principals/leaver')).status, 204)
  t.equal((await service.request('GET', '/v1/events?limit=1', { token })).json.code, 'auth.invalid')
  t.ok((await service.request('GET', '/v1/principals/leaver')).json.disabledAt)
  for (const [path, body] of [
    ['/v1/principals', { name: 'leaver' }],
    ['/v1/grants', { principal: 'leaver', role: 'auditor' }],
    ['/v1/tokens', { principal: 'leaver', label: 'again' }],
  ] as const) {
    const answer = await service.request('POST', path, { body })
    t.equal(answer.status, 409, path)
    t.match(answer.json, { code: 'principal.disabled', next: /another name/ }, path)
  }
})

t.test('a token expires, and one that has expired cannot be made', async (t) => {
  await service.request('POST', '/v1/principals', { body: { name: 'brief' } })
  await service.request('POST', '/v1/grants', { body: { principal: 'brief', role: 'auditor' } })
  const make = (expiresAt: string) =>
    service.request('POST', '/v1/tokens', { body: { principal: 'brief', label: 'brief', expiresAt } })
  const years = (count: number) => new Date(Date.now() + count * 365.25 * 86_400_000).toISOString()
  for (const bad of ['2020-01-01T00:00:00Z', '9999-12-31T23:59:59-23:59', '0000-01-01T00:00:00Z', years(10.1)])
    t.equal((await make(bad)).json.code, 'request.malformed', bad)
  t.equal((await make(years(9.9))).status, 201)
  t.equal((await service.request('GET', '/v1/tokens')).status, 200, 'and the list can still be read')
  t.equal(
    (await service.request('GET', '/v1/certificates?expiresBefore=9999-12-31T23:59:59-23:59')).json.code,
    'request.malformed',
  )
  for (const edge of ['expiresBefore=9999-12-31T23:59:59Z', 'expiresAfter=0001-01-01T00:00:00Z'])
    t.equal((await service.request('GET', `/v1/certificates?${edge}`)).status, 200, edge)
  const soon = Date.now() + 3_000
  const { secret } = (await make(new Date(soon).toISOString())).json
  t.equal((await service.request('GET', '/v1/events?limit=1', { token: secret })).status, 200)
  // A token that was seen is remembered for a second or two, on every replica.
  await sleep(soon + 2_100 - Date.now())
  t.equal((await service.request('GET', '/v1/events?limit=1', { token: secret })).json.code, 'auth.invalid')
})

t.test('a grant that does not fit its role is refused', async (t) => {
  const cases: [object, string][] = [
    [{ principal: 'brief', role: 'requester' }, '/profiles'],
    [{ principal: 'brief', role: 'admin', profiles: ['server'] }, '/profiles'],
    [{ principal: 'brief', role: 'auditor', names: { dns: { allow: ['*.x'] } } }, '/names'],
    [{ principal: 'brief', role: 'approver', profiles: ['server'], revoke: true }, '/revoke'],
    [{ principal: 'brief', role: 'approver', profiles: ['server'], onBehalfOf: {} }, '/onBehalfOf'],
    [
      { principal: 'brief', role: 'requester', profiles: ['server'], names: { dns: { allow: ['a*'] } } },
      '/names/dns/allow/0',
    ],
    [
      { principal: 'brief', role: 'requester', profiles: ['server'], names: { commonName: { allow: ['a*b*'] } } },
      '/names/commonName/allow/0',
    ],
  ]
  for (const [body, field] of cases) {
    const answer = await service.request('POST', '/v1/grants', { body })
    t.equal(answer.json.code, 'request.malformed')
    t.equal(answer.json.violations[0].field, field)
  }
  t.equal(
    (await service.request('POST', '/v1/grants', { body: { principal: 'nobody', role: 'auditor' } })).json.code,
    'principal.not_found',
  )
  t.equal(
    (await service.request('POST', '/v1/grants', { body: { principal: 'brief', role: 'king' } })).json.code,
    'request.malformed',
  )
})

t.test('a grant of profiles that do not exist is refused, and names them', async (t) => {
  const body = { principal: 'brief', role: 'requester', profiles: ['server', 'sever', 'shop', 'shopp'] }
  const answer = await service.request('POST', '/v1/grants', { body })
  t.equal(answer.status, 404)
  t.match(answer.json, {
    code: 'profile.not_found',
    violations: [
      { check: 'grant.profiles', field: '/profiles/1', value: 'sever' },
      { check: 'grant.profiles', field: '/profiles/3', value: 'shopp' },
    ],
  })
  t.same((await service.request('GET', '/v1/grants?principal=brief')).json.items.length, 1, 'and nothing was granted')
})

t.test('a grant that no entry of the roll can hold is refused with what to do', async (t) => {
  const post = (more: object) =>
    service.request('POST', '/v1/grants', { body: { principal: 'brief', role: 'requester', ...more } })
  const rules = (count: number) => ({
    dns: { allow: Array.from({ length: count }, (_, i) => `n${i}.${'a'.repeat(60)}.example`) },
  })
  const many = await post({ profiles: ['server'], names: rules(800) })
  t.equal(many.status, 400)
  t.match(many.json, { code: 'request.malformed', violations: [{ check: 'grant.size', field: '/names' }] })
  const profiles = Array.from({ length: 900 }, (_, i) => `${'p'.repeat(55)}${i}`)
  t.match((await post({ profiles })).json, { code: 'request.malformed', violations: [{ field: '/profiles' }] })
  t.equal((await post({ profiles: ['server'], names: rules(400) })).status, 201)
})

t.test('a parameter that nobody reads is refused, everywhere', async (t) => {
  const { paths = {} } = service.service.app.swagger() as { paths?: Record<string, Record<string, unknown>> }
  const urls = Object.keys(paths).filter((path) => path.startsWith('/v1/') && paths[path]?.['get'])
  t.ok(urls.length > 10)
  for (const url of urls) {
    const answer = await service.request('GET', `${url.replace(/\{.*?\}/g, '1')}?colour=red`)
    t.equal(answer.status, 400, url)
    t.match(answer.json, { code: 'request.malformed', violations: [{ field: /colour|\// }] }, url)
  }
})

t.test('what is the service itself is neither disabled nor changed from outside', async (t) => {
  const refused = await service.request('DELETE', '/v1/principals/chancery')
  t.equal(refused.status, 409)
  t.match(refused.json, { code: 'state.reserved', detail: 'The principal "chancery" is the service itself.' })
  t.equal((await service.request('GET', '/v1/principals/chancery')).json.disabledAt, null)
  for (const [path, body] of [
    ['/v1/grants', { principal: 'chancery', role: 'admin' }],
    ['/v1/tokens', { principal: 'chancery', label: 'mine' }],
  ] as const) {
    const answer = await service.request('POST', path, { body })
    t.equal(answer.json.code, 'state.reserved', path)
    t.same((await service.request('GET', `${path}?principal=chancery`)).json.items, [], path)
  }

  const { items } = (await service.request('GET', '/v1/profiles')).json
  const { name, document: ours } = items.find(({ name }: { name: string }) => name.startsWith('chancery-api-'))
  for (const [path, body] of [
    [name, { ...ours, description: 'changed' }],
    ['chancery-api-mine', { ...document, name: 'chancery-api-mine' }],
  ]) {
    const answer = await put(body, { [path === name ? 'if-match' : 'if-none-match']: '*' }, path)
    t.equal(answer.status, 409, path)
    t.equal(answer.json.code, 'state.reserved')
  }
  t.same((await service.request('GET', `/v1/profiles/${name}`)).json.version, 1)
  const near = { ...document, name: 'chancery-apis' }
  t.equal(
    (await put(near, { 'if-none-match': '*' }, near.name)).status,
    201,
    'what is only called nearly so is not ours',
  )
})

t.test('the last administrator cannot be locked out', async (t) => {
  const grant = (await service.request('GET', '/v1/grants?principal=admin')).json.items.find(
    ({ role }: { role: string }) => role === 'admin',
  )
  const token = (await service.request('GET', '/v1/tokens?principal=admin')).json.items[0]
  for (const path of ['/v1/principals/admin', `/v1/grants/${grant.id}`, `/v1/tokens/${token.id}`]) {
    const answer = await service.request('DELETE', path)
    t.equal(answer.status, 409, path)
    t.equal(answer.json.code, 'profile.lockout')
  }
})

t.test(
  'authorities give what their relying parties must trust, and never the common root unless asked for',
  async (t) => {
    const authorities = (await service.request('GET', '/v1/authorities')).json.items
    t.same(authorities.map(({ name }: { name: string }) => name).sort(), [
      'default',
      'etcd',
      'front-proxy',
      'kubernetes',
    ])
    const headers = { accept: 'application/x-pem-file' }
    const bundle = async (path: string) => (await service.request('GET', path, { headers })).text
    const anchors = new Set<string>()
    for (const { name } of authorities) {
      const issuers = await bundle(`/v1/authorities/${name}/bundle`)
      t.equal(issuers, await bundle(`/v1/authorities/${name}/bundle?anchors=issuers`))
      t.notOk(issuers.includes(service.ca.trim()), name)
      anchors.add(issuers)
      t.equal((await bundle(`/v1/authorities/${name}/bundle?anchors=roots`)).trim(), service.ca.trim())
      const der = await fetch(`${service.publicUrl}/issuers/${name}.cer`)
      t.equal(der.headers.get('content-type'), 'application/pkix-cert')
      const octets = Buffer.from(await der.arrayBuffer())
      t.ok(issuers.replaceAll('\n', '').includes(octets.toString('base64')))
      const tag = der.headers.get('etag') ?? ''
      t.equal(
        (await fetch(`${service.publicUrl}/issuers/${name}.cer`, { headers: { 'if-none-match': tag } })).status,
        304,
      )
      t.equal((await fetch(`${service.publicUrl}/issuers/${name}.cer`, { method: 'HEAD' })).status, 200)
    }
    t.equal(anchors.size, 4, 'each trusts something else')
    t.equal((await service.request('GET', '/v1/authorities/nope/bundle')).json.code, 'authority.not_found')
    t.equal((await service.request('GET', '/v1/issuers/nope')).json.code, 'issuer.not_found')
    t.match((await service.request('GET', '/v1/issuers/etcd')).json, { authority: 'etcd', state: 'active' })
  },
)

t.test('the public listener answers problems too, and has nothing of the API', async (t) => {
  for (const [path, status, code] of [
    ['/issuers/nope.cer', 404, 'issuer.not_found'],
    ['/issuers/UPPER.cer', 400, 'request.malformed'],
    ['/crl/default/128.crl', 404, 'crl.not_found'],
    ['/ocsp/nope/AAAA', 404, 'issuer.not_found'],
    ['/v1/certificates', 404, 'request.not_found'],
    ['/livez', 404, 'request.not_found'],
  ] as const) {
    const answer = await fetch(service.publicUrl + path)
    t.equal(answer.status, status, path)
    const document = (await answer.json()) as { code: string; requestId: string }
    t.equal(document.code, code)
    t.equal(document.requestId, answer.headers.get('x-request-id'))
  }
})
