/** Tokens of identity providers at the API: a real issuer over HTTPS, tokens as Kubernetes and GitHub make them. */
import { generateKeyPairSync } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { trickle } from '../helpers/clients.ts'
import {
  audience,
  githubJob,
  hmacToken,
  newRsaKey,
  openTestIssuer,
  serviceAccount,
  signToken,
  unsignedToken,
} from '../helpers/issuer.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openHoldersOf } from './holders.ts'
import { csrFor } from './people.ts'

const service = await openTestService(t)
const cluster = await openTestIssuer(t)
const github = await openTestIssuer(t)

const documents = {
  cluster: {
    name: 'cluster',
    issuer: cluster.url,
    keys: { discovery: true, ca: cluster.ca },
    algorithms: ['RS256'],
    audience,
    lifetime: '1h',
    mappings: [
      {
        id: 'shop',
        claims: { '/kubernetes.io/namespace': 'shop' },
        principal: 'sa:{/kubernetes.io/namespace}:{/kubernetes.io/serviceaccount/name}',
        grants: [
          {
            profiles: ['server'],
            names: {
              dns: { allow: ['{/kubernetes.io/serviceaccount/name}.{/kubernetes.io/namespace}.example.internal'] },
            },
          },
        ],
      },
      {
        id: 'controller',
        claims: { sub: 'system:serviceaccount:chancery-system:chancery-controller' },
        principal: 'controllers/cluster',
        grants: [{ profiles: ['server'], onBehalfOf: { required: true, namespaces: { deny: ['kube-system'] } } }],
      },
    ],
  },
  github: {
    name: 'github',
    issuer: github.url,
    keys: { url: `${github.url}/keys`, ca: github.ca },
    algorithms: ['RS256'],
    audience,
    lifetime: '15m',
    mappings: [
      {
        id: 'deploy',
        claims: { repository: 'octo/web', ref: 'refs/heads/main', environment: 'production' },
        principal: 'deploy',
        once: true,
      },
    ],
  },
}

const apply = async (document: Readonly<Record<string, unknown>> & { readonly name: string }) => {
  const { headers } = await service.request('GET', `/v1/identity-providers/${document.name}`)
  const tag = headers.etag as string | undefined
  return service.request('PUT', `/v1/identity-providers/${document.name}`, {
    headers: tag === undefined ? { 'if-none-match': '*' } : { 'if-match': tag },
    body: document,
  })
}

t.before(async () => {
  for (const document of Object.values(documents)) {
    const made = await apply(document)
    if (made.status !== 201) throw new Error(made.text)
  }
  await service.request('POST', '/v1/principals', { body: { name: 'deploy' } })
  const grant = { principal: 'deploy', role: 'requester', profiles: ['server'] }
  await service.request('POST', '/v1/grants', { body: grant })
})

/** Asks for a certificate; resolves to the principal that it was issued to, or the code. */
const issue = async (token: string, name: string, profile = 'server'): Promise<string> => {
  const { status, json } = await service.request('POST', '/v1/certificates', {
    token,
    body: { csr: csrFor(name), profile },
  })
  if (status !== 201) return json.code
  return (await service.request('GET', `/v1/certificates/${json.serial}`)).json.principal
}

t.test('a service account gets what its mapping allows, and nothing else', async (t) => {
  const web = () => cluster.token(serviceAccount('shop', 'web'), { typ: undefined })
  t.equal(await issue(web(), 'web.shop.example.internal'), 'sa:shop:web')
  t.equal(await issue(web(), 'db.shop.example.internal'), 'san.forbidden', 'not the name of another one')
  t.equal(await issue(web(), 'web.shop.example.internal', 'client'), 'auth.forbidden')
  t.equal(await issue(cluster.token(serviceAccount('prod', 'web')), 'web.shop.example.internal'), 'auth.unmapped')
  t.equal((await service.request('GET', '/v1/profiles', { token: web() })).json.code, 'auth.forbidden')
  t.equal(await issue(cluster.token(serviceAccount('shop', 'db')), 'db.shop.example.internal'), 'sa:shop:db')

  const { json } = await service.request('GET', '/v1/principals/sa:shop:web')
  t.equal(json.createdBy, 'identity-provider:cluster', 'its principal was made when it first came')
  await service.request('POST', '/v1/grants', { body: { principal: 'sa:shop:web', role: 'auditor' } })
  t.equal(
    (await service.request('GET', '/v1/profiles', { token: web() })).status,
    200,
    'beside what it is granted itself',
  )
  await service.request('DELETE', '/v1/principals/sa:shop:web')
  t.equal(await issue(web(), 'web.shop.example.internal'), 'auth.unmapped', 'and closed for good')
})

t.test(
  'the service account of a controller asks on behalf of others, as its mapping lets it, and never for itself',
  async (t) => {
    const ask = (account: string, namespace?: string) =>
      service.request('POST', '/v1/certificates', {
        token: cluster.token(serviceAccount(account === 'cart' ? 'shop' : 'chancery-system', account)),
        body: {
          csr: csrFor('web.shop.example.internal'),
          profile: 'server',
          ...(namespace && { onBehalfOf: { user: 'alice', namespace } }),
        },
      })
    const { status, json } = await ask('chancery-controller', 'shop')
    t.equal(status, 201)
    t.match((await service.request('GET', `/v1/certificates/${json.serial}`)).json, {
      principal: 'controllers/cluster',
      origin: { user: 'alice', namespace: 'shop' },
    })
    t.match(await ask('chancery-controller'), { status: 403, json: { code: 'origin.required' } })
    t.match(await ask('chancery-controller', 'kube-system'), { status: 403, json: { code: 'origin.forbidden' } })
    t.match(await ask('cart', 'shop'), { status: 403, json: { code: 'origin.forbidden' } })
    t.match(await ask('other', 'shop'), { status: 401, json: { code: 'auth.unmapped' } })
  },
)

t.test('a job of a repository is a principal that was there before, once', async (t) => {
  const other = await openTestService(t, {}, service)
  const token = github.token(githubJob('octo/web'))
  t.equal(await issue(token, 'web.example.com'), 'deploy')
  t.equal(await issue(token, 'web.example.com'), 'auth.replayed')
  t.equal((await other.request('GET', '/v1/authorities', { token })).json.code, 'auth.replayed', 'on another replica')
  const fresh = github.token(githubJob('octo/web'))
  const asked = await Promise.all(
    Array.from({ length: 20 }, (_, i) => (i % 2 ? service : other).request('GET', '/v1/authorities', { token: fresh })),
  )
  t.equal(asked.filter(({ status }) => status === 200).length, 1, 'of many at once on two replicas one is first')
  for (const [what, claims] of [
    ['another repository', githubJob('octo/other')],
    ['another owner', githubJob('evil/web')],
    ['another branch', githubJob('octo/web', { ref: 'refs/heads/dev' })],
    ['another environment', githubJob('octo/web', { environment: 'Production' })],
    ['no environment', githubJob('octo/web', { environment: undefined })],
  ] as const)
    t.equal(await issue(github.token(claims), 'web.example.com'), 'auth.unmapped', what)
})

t.test('a batch with a token that counts once is one showing', async (t) => {
  const token = github.token(githubJob('octo/web'))
  const items = Array.from({ length: 5 }, (_, i) => ({ csr: csrFor(`b${i}.example.com`), profile: 'server' }))
  const { json } = await service.request('POST', '/v1/certificates/batch', { token, body: { items } })
  t.same(
    json.items.map(({ status }: { status: number }) => status),
    [201, 201, 201, 201, 201],
  )
  const again = await service.request('POST', '/v1/certificates/batch', { token, body: { items } })
  t.equal(again.json.code, 'auth.replayed')
})

t.test('a token that counts once is not spent again where the body of its request comes slowly', async (t) => {
  const token = github.token(githubJob('octo/web'))
  const slow = await trickle(service, '/v1/certificates', {
    token,
    body: { csr: csrFor('slow.example.com'), profile: 'server' },
  })
  await sleep(1_100)
  t.equal((await slow.finish()).status, 201)
  t.equal(await issue(token, 'slow.example.com'), 'auth.replayed')
})

t.test('what a mapping grants is no grant of its principal, where a profile wants one to renew', async (t) => {
  const holders = openHoldersOf(service)
  const token = cluster.token(serviceAccount('shop', 'db'), { typ: undefined })
  const held = await holders.issue(['db.shop.example.internal'], { token })
  t.equal((await holders.renew(t, held)).status, 201)
  await holders.change('server', { renewal: { within: '1d', grant: true } })
  t.match(await holders.renew(t, held), { status: 403, json: { code: 'auth.forbidden' } })
  await service.request('POST', '/v1/grants', {
    body: { principal: 'sa:shop:db', role: 'requester', profiles: ['server'] },
  })
  t.equal((await holders.renew(t, held)).status, 201)
})

t.test('each bad token is refused with its code', async (t) => {
  const now = Math.floor(Date.now() / 1000)
  const account = serviceAccount('shop', 'bad')
  const claims = cluster.claims(account)
  const cases: readonly (readonly [what: string, token: string, code: string])[] = [
    ['of another issuer', github.token(account), 'auth.unmapped'],
    ['of an issuer that nobody knows', cluster.token({ ...account, iss: 'https://x.example.com' }), 'auth.invalid'],
    ['for another audience', cluster.token({ ...account, aud: 'https://x.example.com' }), 'auth.audience'],
    ['by another key', signToken(claims, { ...newRsaKey(), kid: cluster.key.kid }), 'auth.invalid'],
    ['with another key’s name', cluster.token(account, { kid: '../../key' }), 'auth.invalid'],
    ['without a signature', unsignedToken(claims), 'auth.invalid'],
    ['by HS256 with the public key', hmacToken(claims, cluster.key.pem), 'auth.invalid'],
    ['by another algorithm', cluster.token(account, { alg: 'RS384' }), 'auth.invalid'],
    ['of another type', cluster.token(account, { typ: 'logout+jwt' }), 'auth.invalid'],
    ['expired', cluster.token({ ...account, iat: now - 600, exp: now - 60 }), 'auth.expired'],
    ['not valid yet', cluster.token({ ...account, nbf: now + 300 }), 'auth.early'],
    ['for too long', cluster.token({ ...account, exp: now + 7_200 }), 'auth.lifetime'],
    ['of another namespace', cluster.token(serviceAccount('prod', 'bad')), 'auth.unmapped'],
    ['huge', cluster.token({ ...account, x: 'x'.repeat(9_000) }), 'auth.invalid'],
    ['cut short', cluster.token(account).slice(0, -10), 'auth.invalid'],
  ]
  for (const [what, token, code] of cases) {
    const { status, json, headers } = await service.request('GET', '/v1/authorities', { token })
    t.match({ status, json }, { status: 401, json: { code, retryable: false } }, `a token ${what}`)
    t.equal(headers['www-authenticate'], 'Bearer realm="chancery", error="invalid_token"')
    if (code === 'auth.invalid') t.equal(json.detail, 'This token is not accepted.')
  }
})

slowTest('keys are rotated under load, and a provider that is away is told as such', async (t) => {
  const account = serviceAccount('shop', 'load')
  const ask = async () => (await service.request('GET', '/v1/authorities', { token: cluster.token(account) })).status
  t.equal(await ask(), 200)
  cluster.rotate()
  const seen = new Set<number>()
  let last = 0
  for (const end = Date.now() + 15_000; Date.now() < end && last !== 200; await sleep(50)) {
    const statuses = await Promise.all([ask(), ask(), ask()])
    for (const status of statuses) seen.add(status)
    last = statuses.at(-1) ?? 0
  }
  t.equal(last, 200, 'within ten seconds')
  for (const status of seen) t.ok([200, 401].includes(status), `${status}`)

  const away = await openTestIssuer(t)
  away.trouble = 'down'
  const keys = { discovery: true, ca: away.ca }
  t.equal((await apply({ ...documents.cluster, name: 'away', issuer: away.url, keys })).status, 201)
  const { status, json, headers } = await service.request('GET', '/v1/authorities', { token: away.token(account) })
  t.match({ status, json }, { status: 503, json: { code: 'auth.unavailable', retryable: true, retryAfter: 5 } })
  t.equal(headers['retry-after'], '5')
  const url = 'https://127.0.0.1:99999/keys'
  const { keysFault } = (await apply({ ...documents.cluster, name: 'away', issuer: away.url, keys: { url } })).json
  t.match(keysFault, `${url}: it is not an https:// URL`)
})

t.test('a provider that publishes no key of use is told of, and none of its tokens is accepted', async (t) => {
  const bare = await openTestIssuer(t)
  bare.trouble = 'keyless'
  const keys = { discovery: true, ca: bare.ca }
  t.equal((await apply({ ...documents.cluster, name: 'bare', issuer: bare.url, keys })).status, 201)
  const token = bare.token(serviceAccount('shop', 'web'))
  const { status, json } = await service.request('GET', '/v1/authorities', { token })
  t.match({ status, json }, { status: 401, json: { code: 'auth.invalid' } })
  const { text } = await service.request('GET', '/metrics')
  t.match(text, /^chancery_jwks_fetches_total\{provider="bare",outcome="useless"\} 1$/m)
})

slowTest('a new version of a document holds on every replica within two seconds', async (t) => {
  const other = await openTestService(t, {}, service)
  const token = cluster.token(serviceAccount('shop', 'versions'))
  const ask = async (at: typeof service) => (await at.request('GET', '/v1/authorities', { token })).status
  for (const at of [service, other]) t.equal(await ask(at), 200)
  t.equal((await apply({ ...documents.cluster, mappings: [] })).json.version, 2)
  t.equal(await ask(service), 401, 'here at once')
  await sleep(2_050)
  t.equal(await ask(other), 401)
  t.equal((await apply(documents.cluster)).json.version, 3)
  t.equal(await ask(service), 200)
  const { json } = await service.request('GET', '/v1/identity-providers/cluster/versions')
  t.same(
    json.items.map(({ version }: { version: number }) => version),
    [3, 2, 1],
  )
  const events = await service.request('GET', '/v1/events?type=provider.changed')
  t.match(JSON.parse(events.json.items.at(-1).entry), { provider: { name: 'cluster', version: 3 }, by: 'admin' })
})

t.test('a document is refused where it does not hold together with what there is', async (t) => {
  const reasons = async (document: object) => {
    const { status, json } = await apply({ ...documents.github, ...document })
    return [status, ...(json.violations ?? []).map(({ field, reason }: Record<string, string>) => `${field} ${reason}`)]
  }
  t.same(await reasons({ name: 'second' }), [422, '/issuer is that of the identity provider github already'])
  const [mapping] = documents.github.mappings
  const grants = [{ profiles: ['server', 'sever'] }]
  t.same(await reasons({ mappings: [{ ...mapping, grants }] }), [422, '/mappings/0/grants/0/profiles/1 is no profile'])
  const idle = { uri: { allow: ['https://a.test/{/repository}'], deny: ['https://A.test/{/repository}'] } }
  const [, dead] = await reasons({ mappings: [{ ...mapping, grants: [{ profiles: ['server'], names: idle }] }] })
  t.match(
    dead,
    /^\/mappings\/0\/grants\/0\/names\/uri\/deny\/0 matches no name that can be asked for: a URI has a host/,
  )
  const [, beyond] = await reasons({ mappings: [{ ...mapping, claims: { id: 2 ** 53 } }] })
  t.match(beyond, /^\/mappings\/0\/claims\/id is beyond 2\^53 - 1/)
  const [one, two] = [newRsaKey(), newRsaKey()].map(({ jwk }) => ({ ...jwk, kty: 'RSA', kid: 'k' }))
  const [curve, longer] = ['P-256', 'P-384'].map((namedCurve) => ({
    ...generateKeyPairSync('ec', { namedCurve }).publicKey.export({ format: 'jwk' }),
    kid: 'k',
  }))
  t.same(await reasons({ keys: { static: [one, curve, two] } }), [422, '/keys/static/2/kid is that of another key'])
  const told = [one, { ...two, alg: 'PS256' }, curve, longer, { ...curve, use: 'enc' }]
  t.same(await reasons({ keys: { static: told } }), [200], 'a curve, an algorithm or a use tells them apart')
  const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })
  const broken = { ...curve, y: curve?.x, kid: 'off its curve' }
  t.same(await reasons({ keys: { static: [{ ...short, kid: 'short' }, broken, one, { kty: 'AKP', kid: 'empty' }] } }), [
    422,
    '/keys/static/0 has 1024 bits; tokens are verified by RSA keys of at least 2048',
    '/keys/static/1 is no public key of type EC',
    '/keys/static/3 is no public key of type AKP',
  ])
  for (const [algorithm, key] of [
    ['ES256', one],
    ['RS256', { ...one, alg: 'PS256' }],
    ['RS256', { ...one, use: 'enc' }],
    ['RS256', { ...one, key_ops: ['encrypt'] }],
    ['RS256', { ...one, key_ops: 5 }],
    ['ES256', longer],
  ] as const)
    t.same(await reasons({ algorithms: [algorithm], keys: { static: [key] } }), [
      422,
      `/keys/static has no key that signs by ${algorithm}`,
    ])
  t.equal((await apply(documents.github)).status, 200)
  // A line's end in Unicode stands in JSON as it is.
  const parted = await reasons({ mappings: [{ ...mapping, claims: { 'a\u2028b': null } }] })
  t.match(parted, [422, /must be text/])
  t.same(await reasons({ mappings: [{ ...mapping, principal: 'chancery' }] }), [
    422,
    '/mappings/0/principal is the service itself',
  ])
  t.same(await reasons({ algorithms: ['HS256'] }), [
    422,
    '/algorithms/0 must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519, ML-DSA-44, ML-DSA-65, ML-DSA-87',
  ])
  const path = '/v1/identity-providers/github'
  t.equal((await service.request('PUT', path, { body: documents.github })).json.code, 'precondition.required')
  const headers = { 'if-none-match': '*' }
  t.equal((await service.request('PUT', path, { headers, body: documents.github })).json.code, 'precondition.failed')
  const misnamed = await service.request('PUT', path, { headers: { 'if-match': '*' }, body: documents.cluster })
  t.equal(misnamed.json.code, 'provider.invalid')
  t.equal((await service.request('GET', '/v1/identity-providers/none')).json.code, 'provider.not_found')
})

t.test('limits of a mapping are of each principal that it makes', async (t) => {
  const [mapping] = documents.cluster.mappings
  const [grant] = mapping?.grants ?? []
  const limited = { ...mapping, grants: [{ ...grant, limits: { certificatesPerDay: 2, requestsPerSecond: 50 } }] }
  t.equal((await apply({ ...documents.cluster, mappings: [limited] })).status, 200)
  t.equal(
    (await apply({ ...documents.cluster, mappings: [{ ...limited, grants: [{ ...grant, limits: {} }] }] })).status,
    422,
  )
  for (const name of ['a', 'b']) {
    const token = () => cluster.token(serviceAccount('shop', name))
    const asked = await Promise.all(Array.from({ length: 5 }, () => issue(token(), `${name}.shop.example.internal`)))
    t.equal(asked.filter((end) => end === `sa:shop:${name}`).length, 2)
    t.equal(asked.filter((end) => end === 'limit.certificates_per_day').length, 3)
  }
  t.equal((await apply(documents.cluster)).status, 200)
  const { text } = await service.request('GET', '/metrics')
  t.match(text, /^chancery_authentications_total\{credential="jwt",outcome="accepted"\} [1-9]/m)
  t.match(text, /^chancery_authentications_total\{credential="jwt",outcome="auth\.unmapped"\} [1-9]/m)
  t.match(text, /^chancery_jwks_fetches_total\{provider="cluster",outcome="fetched"\} [1-9]/m)
  t.match(text, /^chancery_tokens_cached [1-9]/m)
  await issue(cluster.token(serviceAccount('shop', 'c')), 'c.shop.example.internal')
  t.match((await service.request('GET', '/metrics')).text, /^chancery_jwks_age_seconds\{provider="cluster"\} \d/m)
})
