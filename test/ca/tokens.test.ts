/** Tokens of identity providers below HTTP: every way to be wrong by its reason, and how keys come and go. */
import { setTimeout as sleep } from 'node:timers/promises'

import { SignJWT } from 'jose'
import t from 'tap'

import type { StoredProvider } from '../../src/ca/access/providers.ts'
import { openTokens } from '../../src/ca/access/tokens.ts'
import { isProblem } from '../../src/errors.ts'
import { discoverKeys } from '../../src/keys/fetch-json.ts'
import { readToken, TokenFault, verifyToken } from '../../src/keys/jwt.ts'
import { fetchedKeys, KeysUnavailable, staticKeys } from '../../src/keys/key-set.ts'
import { parseProvider } from '../../src/policy/identity.ts'
import {
  audience,
  githubJob,
  hmacToken,
  newRsaKey,
  openTestIssuer,
  serviceAccount,
  signToken,
  type TestIssuer,
  unsignedToken,
} from '../helpers/issuer.ts'
import { slowTest } from '../helpers/slow.ts'

const documentOf = (issuer: TestIssuer, more: object = {}) => ({
  name: 'test',
  issuer: issuer.url,
  keys: { discovery: true, ca: issuer.ca },
  algorithms: ['RS256'],
  audience,
  lifetime: '15m',
  clock: '10s',
  mappings: [{ id: 'all', claims: { sub: 'test' }, principal: 'tester' }],
  ...more,
})

interface Clocks {
  readonly skewMs?: () => number
  readonly nowMs?: () => number
}

/** The very code of the service over one document, with a clock of its own and no database. */
const open = (document: object, { skewMs = () => 0, nowMs = () => performance.now() }: Clocks = {}) => {
  const stored: StoredProvider = {
    provider: parseProvider(document, { version: 1 }),
    createdAt: new Date(),
    createdBy: 'admin',
  }
  const spent = new Set<string>()
  const failures: unknown[] = []
  const tokens = openTokens({
    providers: {
      issuedBy: (issuer) => (issuer === stored.provider.issuer ? stored : undefined),
      spend: async ({ id }) => !spent.has(id) && Boolean(spent.add(id)),
    },
    access: { callerNamed: async (principal) => ({ principal, grants: [] }) },
    openKeys: ({ issuer, document: { keys } }) =>
      keys.static
        ? staticKeys(keys.static)
        : fetchedKeys({
            fetch: () => discoverKeys(issuer, { ca: keys.ca }),
            now: nowMs,
            failed: (error) => `failure ${failures.push(error)}`,
          }),
    clock: () => new Date(Date.now() + skewMs()),
    read: readToken,
    verify: verifyToken,
    faultReason: (error) =>
      error instanceof TokenFault ? error.reason : error instanceof KeysUnavailable ? 'unavailable' : undefined,
  })
  /** Who it is, or the code and the reason of why not. */
  const ask = async (token: string, isAgain = false): Promise<string> => {
    try {
      return (await tokens.authenticate(token, isAgain)).principal
    } catch (error) {
      if (!isProblem(error)) throw error
      return `${error.code} ${error.options.reason}`
    }
  }
  return { ask, failures, authenticate: (token: string) => tokens.authenticate(token, false) }
}

t.test('each bad token has a reason of its own for the log', async (t) => {
  const issuer = await openTestIssuer(t)
  const began = Date.now()
  // It stands: a token that is just within its time stays so, however long the others take.
  const { ask } = open(documentOf(issuer), { skewMs: () => began - Date.now() })
  const now = Math.floor(began / 1000)
  const claims = issuer.claims()
  const good = issuer.token()
  const [head = '', body = '', signature = ''] = good.split('.')
  const stranger = newRsaKey()
  const cases: readonly (readonly [what: string, token: string, found: string])[] = [
    ['a good one', good, 'tester'],
    ['without a type', issuer.token({}, { typ: undefined }), 'tester'],
    ['of several audiences that are all ours', issuer.token({ aud: [audience] }), 'tester'],
    ['for another service', issuer.token({ aud: 'https://other.example.com' }), 'auth.audience jwt.audience'],
    ['for another service too', issuer.token({ aud: [audience, 'x'] }), 'auth.audience jwt.audience'],
    ['for nobody', issuer.token({ aud: [] }), 'auth.audience jwt.audience'],
    ['for nobody named', issuer.token({ aud: undefined }), 'auth.audience jwt.audience'],
    ['for something else', issuer.token({ aud: { 0: audience } }), 'auth.audience jwt.audience'],
    ['for what only looks like us', issuer.token({ aud: audience.toUpperCase() }), 'auth.audience jwt.audience'],
    ['of another issuer', issuer.token({ iss: 'https://other.example.com' }), 'auth.invalid jwt.issuer'],
    ['of nearly our issuer', issuer.token({ iss: `${issuer.url}/` }), 'auth.invalid jwt.issuer'],
    ['of no issuer', issuer.token({ iss: undefined }), 'auth.invalid jwt.issuer'],
    ['of several issuers', issuer.token({ iss: [issuer.url] }), 'auth.invalid jwt.issuer'],
    [
      'by another key of that name',
      signToken(claims, { ...stranger, kid: issuer.key.kid }),
      'auth.invalid jwt.signature',
    ],
    ['by a key that there is not', signToken(claims, stranger), 'auth.invalid jwt.key'],
    ['by a key of the file system', issuer.token({}, { kid: '../../../dev/null' }), 'auth.invalid jwt.key'],
    ['by a key with a huge name', issuer.token({}, { kid: 'k'.repeat(300) }), 'auth.invalid jwt.key'],
    ['by a key that is no name', issuer.token({}, { kid: { a: 1 } }), 'auth.invalid jwt.key'],
    ['that brings its own key', signToken(claims, stranger, { jwk: stranger.jwk, kid: 'own' }), 'auth.invalid jwt.key'],
    ['without a signature', unsignedToken(claims), 'auth.invalid jwt.algorithm'],
    ['with the algorithm none', `${unsignedToken(claims)}AA`, 'auth.invalid jwt.algorithm'],
    [
      'by HS256 with the public key',
      hmacToken(claims, issuer.key.pem, { kid: issuer.key.kid }),
      'auth.invalid jwt.algorithm',
    ],
    ['by an algorithm that is not listed', issuer.token({}, { alg: 'RS512' }), 'auth.invalid jwt.algorithm'],
    ['by an algorithm in lower case', issuer.token({}, { alg: 'rs256' }), 'auth.invalid jwt.algorithm'],
    ['of another type', issuer.token({}, { typ: 'at+jwt' }), 'auth.invalid jwt.type'],
    ['with critical riddles', issuer.token({}, { crit: ['x'], x: 1 }), 'auth.invalid jwt.malformed'],
    ['expired', issuer.token({ iat: now - 700, exp: now - 11 }), 'auth.expired jwt.expired'],
    ['expired, of nobody', issuer.token({ iat: now - 700, exp: now - 11, sub: 'x' }), 'auth.expired jwt.expired'],
    ['just expired, within what clocks may differ', issuer.token({ iat: now - 700, exp: now - 5 }), 'tester'],
    ['not valid yet', issuer.token({ nbf: now + 60 }), 'auth.early jwt.early'],
    ['issued in the future', issuer.token({ iat: now + 60 }), 'auth.early jwt.early'],
    ['for as long as is allowed', issuer.token({ iat: now, exp: now + 900 }), 'tester'],
    ['for too long', issuer.token({ iat: now, exp: now + 901 }), 'auth.lifetime jwt.lifetime'],
    ['for ever', issuer.token({ exp: undefined }), 'auth.lifetime jwt.no_end'],
    ['since nobody knows when', issuer.token({ iat: undefined }), 'auth.lifetime jwt.no_end'],
    ['with a time that is none', issuer.token({ exp: String(now + 60) }), 'auth.invalid jwt.claims: exp'],
    ['until the end of numbers', issuer.token({ exp: 1e300, iat: 1e300 }), 'auth.invalid jwt.claims: exp'],
    ['of nobody that is mapped', issuer.token({ sub: 'Test' }), 'auth.unmapped jwt.unmapped'],
    [
      'with changed claims',
      `${head}.${Buffer.from('{"iss":1}').toString('base64url')}.${signature}`,
      'auth.invalid jwt.issuer',
    ],
    ['with a changed signature', `${head}.${body}.${signature.slice(0, -4)}AAAA`, 'auth.invalid jwt.signature'],
    ['in four parts', `${good}.x`, 'auth.invalid jwt.malformed'],
    ['in two parts', `${head}.${body}`, 'auth.invalid jwt.malformed'],
    ['of dots', '..', 'auth.invalid jwt.malformed'],
    [
      'with a header that is a list',
      `${Buffer.from('[]').toString('base64url')}.${body}.${signature}`,
      'auth.invalid jwt.malformed',
    ],
    ['with claims that are no JSON', `${head}.AAAA.${signature}`, 'auth.invalid jwt.malformed'],
    ['with characters of another alphabet', good.replace('.', '=.'), 'auth.invalid jwt.malformed'],
    ['huge', issuer.token({ x: 'x'.repeat(8_192) }), 'auth.invalid jwt.huge'],
  ]
  for (const [what, token, found] of cases) t.equal(await ask(token), found, `a token ${what}`)
  t.equal(issuer.fetches(), 1, 'keys that there are not made nobody fetch again at once')
})

t.test('no character of a token can be changed so that it still holds', async (t) => {
  const issuer = await openTestIssuer(t)
  const { ask } = open(documentOf(issuer))
  const token = issuer.token()
  for (let at = 0; at < token.length; at += 3) {
    const other = token[at] === 'A' ? 'B' : 'A'
    const found = await ask(token.slice(0, at) + other + token.slice(at + 1))
    // The last character of base64url may hold bits that mean nothing; the signature is the same then.
    if (at < token.length - 2) t.match(found, /^auth\.invalid jwt\./, `character ${at}`)
  }
  t.equal(await ask(token), 'tester')
})

t.test('all algorithms that a document may list are verified, and only those that it lists', async (t) => {
  const issuer = await openTestIssuer(t)
  const { generateKeyPair, exportJWK } = await import('jose')
  for (const alg of ['RS256', 'PS384', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519', 'ML-DSA-44'] as const) {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
    const jwk = await exportJWK(publicKey)
    const keys = { static: [{ ...jwk, kid: 'a', ...(jwk.kty === 'AKP' && { alg }) }] }
    const token = await new SignJWT(issuer.claims()).setProtectedHeader({ alg, kid: 'a' }).sign(privateKey)
    t.equal(await open(documentOf(issuer, { keys, algorithms: [alg] })).ask(token), 'tester', alg)
    const listed = alg === 'RS256' ? 'ES256' : 'RS256'
    const other = await generateKeyPair(listed, { extractable: true })
    const both = [...keys.static, { ...(await exportJWK(other.publicKey)), kid: 'b' }]
    const others = { keys: { static: both }, algorithms: [listed] }
    t.equal(await open(documentOf(issuer, others)).ask(token), 'auth.invalid jwt.algorithm', `${alg} is not listed`)
  }
})

t.test('a new key is found without a restart, and one that has gone is not accepted for long', async (t) => {
  const issuer = await openTestIssuer(t)
  let now = 0
  const { ask } = open(documentOf(issuer), { nowMs: () => now })
  const old = issuer.token()
  t.equal(await ask(old), 'tester')
  issuer.rotate()
  const fresh = issuer.token()
  t.equal(await ask(fresh), 'auth.invalid jwt.key', 'keys were fetched a moment ago')
  now += 10_000
  const asked = await Promise.all(Array.from({ length: 50 }, () => ask(issuer.token())))
  t.same(new Set(asked), new Set(['tester']), 'who come at once wait for the same fetch')
  t.equal(issuer.fetches(), 2)
  t.equal(await ask(old), 'auth.invalid jwt.key', 'what was verified by a key that has gone counts for nothing')

  const last = issuer.token()
  t.equal(await ask(last), 'tester')
  issuer.rotate()
  now += 300_001
  t.equal(await ask(last), 'tester', 'old keys are good while new ones are fetched')
  while (issuer.fetches() < 3 || (await ask(last)) === 'tester') await sleep(5)
  t.equal(await ask(last), 'auth.invalid jwt.key', 'nobody showed a new token, and the key is gone all the same')
})

t.test('the token for which keys were fetched is worth no more than any other once they are too old', async (t) => {
  const long = (issuer: TestIssuer, more: object = {}): string => {
    const iat = Math.floor(Date.now() / 1000)
    return issuer.token({ iat, exp: iat + 86_000, ...more })
  }
  /** The first token there is, and the first after an hour without any. */
  for (const before of [[], [{ x: 0 }]]) {
    const issuer = await openTestIssuer(t)
    let now = 0
    const { ask } = open(documentOf(issuer, { lifetime: '24h' }), { nowMs: () => now })
    for (const more of before) t.equal(await ask(long(issuer, more)), 'tester')
    now += 3_700_000
    const [first, second] = [long(issuer, { x: 1 }), long(issuer, { x: 2 })]
    t.equal(await ask(first), 'tester')
    t.equal(await ask(second), 'tester')
    issuer.trouble = 'down'
    now += 3_700_000
    t.equal(await ask(second), 'auth.unavailable jwt.unavailable')
    t.equal(await ask(first), 'auth.unavailable jwt.unavailable')
    issuer.trouble = 'none'
    issuer.rotate()
    now += 10_000
    t.equal(await ask(first), 'auth.invalid jwt.key', 'the key of before has gone')
    t.equal(await ask(issuer.token()), 'tester')
    now += 3_700_000
    t.equal(await ask(first), 'auth.invalid jwt.key')
  }
})

t.test('keys that do not exist make nobody fetch more often', async (t) => {
  const issuer = await openTestIssuer(t)
  let now = 0
  const { ask } = open(documentOf(issuer), { nowMs: () => now })
  t.equal(await ask(issuer.token()), 'tester')
  for (let second = 0; second < 60; second++) {
    now += 1_000
    await Promise.all(Array.from({ length: 5 }, (_, i) => ask(issuer.token({}, { kid: `made up ${second} ${i}` }))))
  }
  t.ok(issuer.fetches() <= 7, `${issuer.fetches()} fetches in a minute`)
})

slowTest('an issuer that is down, slow, huge, or somebody else', async (t) => {
  for (const trouble of ['down', 'slow', 'huge', 'garbage', 'redirect', 'upgrade', 'other issuer', 'error'] as const) {
    const issuer = await openTestIssuer(t)
    issuer.trouble = trouble
    let now = 0
    const { ask, failures } = open(documentOf(issuer), { nowMs: () => now })
    const started = performance.now()
    t.equal(await ask(issuer.token()), 'auth.unavailable jwt.unavailable', trouble)
    t.ok(performance.now() - started < 5_000)
    t.equal(await ask(issuer.token()), 'auth.unavailable jwt.unavailable', 'and nobody waits again at once')
    t.equal(failures.length, 1)
    t.match((failures[0] as Error).message, /^https:\/\/127\.0\.0\.1/)
    issuer.trouble = 'none'
    now += 10_000
    t.equal(await ask(issuer.token()), 'tester', 'it mends itself')
    issuer.trouble = trouble
    now += 600_000
    t.equal(await ask(issuer.token()), 'tester', 'keys that are known stay good for an hour')
    now += 3_600_000
    t.equal(await ask(issuer.token()), 'auth.unavailable jwt.unavailable', 'and no longer')
  }
})

t.test('an issuer is who its pinned CA says', async (t) => {
  const [issuer, other] = [await openTestIssuer(t), await openTestIssuer(t)]
  const pinned = open(documentOf(issuer, { keys: { discovery: true, ca: other.ca } }))
  t.equal(await pinned.ask(issuer.token()), 'auth.unavailable jwt.unavailable')
  const fault =
    /: it shows no certificate that is trusted \([A-Z_]+\); `ca` beside `discovery` or `url` in the document says/
  t.match((pinned.failures[0] as Error).message, fault)
  const unpinned = open(documentOf(issuer, { keys: { discovery: true } }))
  t.equal(await unpinned.ask(issuer.token()), 'auth.unavailable jwt.unavailable')
  t.match((unpinned.failures[0] as Error).message, fault)
})

t.test('a token ends while it is remembered', async (t) => {
  const issuer = await openTestIssuer(t)
  let skew = 0
  const { ask } = open(documentOf(issuer), { skewMs: () => skew })
  const token = issuer.token()
  t.equal(await ask(token), 'tester')
  skew = 605_000
  t.equal(await ask(token), 'tester', 'within what clocks may differ')
  skew = 611_000
  t.equal(await ask(token), 'auth.expired jwt.expired')
})

t.test(
  'a token that counts once is refused when it is shown again, but not when it is asked about again',
  async (t) => {
    const issuer = await openTestIssuer(t)
    const mappings = [{ id: 'once', claims: { sub: 'test' }, principal: 'tester', once: true }]
    const { ask } = open(documentOf(issuer, { mappings }))
    const token = issuer.token()
    t.equal(await ask(token), 'tester')
    t.equal(await ask(token, true), 'tester')
    t.equal(await ask(token), 'auth.replayed jwt.replayed')
    const { jti } = issuer.claims()
    t.equal(await ask(issuer.token({ jti, x: 1 })), 'tester')
    t.equal(await ask(issuer.token({ jti, x: 2 })), 'auth.replayed jwt.replayed', 'another token with its id')
    t.equal(await ask(issuer.token({ jti: undefined })), 'auth.replayed jwt.no_id')
    for (const jti of [7, '', 'x'.repeat(513)])
      t.equal(await ask(issuer.token({ jti })), 'auth.replayed jwt.no_id', `${jti}`.slice(0, 4))
    t.equal(await ask(issuer.token({ jti: 'x'.repeat(512) })), 'tester')
  },
)

t.test('claims map to principals and grants by the first mapping that fits', async (t) => {
  const issuer = await openTestIssuer(t)
  const names = {
    dns: { allow: ['{/kubernetes.io/serviceaccount/name}.{/kubernetes.io/namespace}.svc.cluster.local'] },
    uri: { allow: ['spiffe://example.com/ns/{/kubernetes.io/namespace}/sa/{/kubernetes.io/serviceaccount/name}'] },
    commonName: { allow: ['team:{/kubernetes.io/namespace}', 'web'], deny: ['team:admin-*'] },
  }
  const { ask, authenticate } = open(
    documentOf(issuer, {
      mappings: [
        {
          id: 'shop',
          claims: { '/kubernetes.io/namespace': 'shop', sub: 'system:serviceaccount:shop:*' },
          principal: 'sa:{/kubernetes.io/namespace}:{/kubernetes.io/serviceaccount/name}',
          grants: [{ profiles: ['server'], names, revoke: true }],
        },
        {
          id: 'deploy',
          claims: { repository: 'octo/*', ref: ['refs/heads/main', 'refs/tags/*'] },
          principal: 'ci/deploy',
        },
        { id: 'second', claims: { '/list/1': 'b' }, principal: 'second:{/list/1}' },
        { id: 'odd', claims: { '/list/': 'a' }, principal: 'nobody' },
        { id: 'odder', claims: { '/list/0e0': 'a' }, principal: 'nobody' },
        { id: 'oddest', claims: { '/list/00': 'a' }, principal: 'nobody' },
        { id: 'flags', claims: { verified: true, level: 3, groups: ['ops', 'sre'] }, principal: 'oidc:{email}' },
      ],
    }),
  )
  const caller = await authenticate(issuer.token(serviceAccount('shop', 'web')))
  t.match(caller, {
    principal: 'sa:shop:web',
    proof: { kind: 'jwt', provider: 'test', version: 1, subject: 'system:serviceaccount:shop:web' },
    grants: [
      {
        id: 'test@1/shop/0',
        principal: 'sa:shop:web',
        role: 'requester',
        profiles: ['server'],
        revoke: true,
        names: {
          dns: { allow: ['web.shop.svc.cluster.local'] },
          uri: { allow: ['spiffe://example.com/ns/shop/sa/web'] },
          commonName: { allow: ['team:shop', 'web'], deny: ['team:admin-*'] },
        },
      },
    ],
  })
  t.hasStrict(await authenticate(issuer.token({ list: ['a', 'b'], sub: { a: 1 } })), {
    principal: 'second:b',
    proof: { subject: '' },
  })
  const cases: readonly (readonly [what: string, claims: object, found: string])[] = [
    ['another namespace', serviceAccount('Shop', 'web'), 'auth.unmapped jwt.unmapped'],
    ['a namespace that only begins so', serviceAccount('shop2', 'web'), 'auth.unmapped jwt.unmapped'],
    [
      'a subject that says otherwise',
      { ...serviceAccount('shop', 'web'), sub: 'system:serviceaccount:prod:web' },
      'auth.unmapped jwt.unmapped',
    ],
    ['a name with a star', serviceAccount('shop', '*'), 'auth.unmapped jwt.value'],
    ['a name with a dot', serviceAccount('shop', 'a.b'), 'auth.unmapped jwt.value'],
    ['a name with a colon', serviceAccount('shop', 'a:b'), 'auth.unmapped jwt.unmapped'],
    ['a name with a brace', serviceAccount('shop', '{sub}'), 'auth.unmapped jwt.value'],
    [
      'without a name',
      { sub: 'system:serviceaccount:shop:x', 'kubernetes.io': { namespace: 'shop' } },
      'auth.unmapped jwt.value',
    ],
    [
      'claims that are flat',
      { sub: 'system:serviceaccount:shop:x', '/kubernetes.io/namespace': 'shop' },
      'auth.unmapped jwt.unmapped',
    ],
    ['a repository of the owner', githubJob('octo/web'), 'ci/deploy'],
    ['a tag', githubJob('octo/web', { ref: 'refs/tags/v1' }), 'ci/deploy'],
    ['a tag below a tag', githubJob('octo/web', { ref: 'refs/tags/v1/x' }), 'auth.unmapped jwt.unmapped'],
    ['a branch', githubJob('octo/web', { ref: 'refs/heads/dev' }), 'auth.unmapped jwt.unmapped'],
    ['another owner', githubJob('octopus/web'), 'auth.unmapped jwt.unmapped'],
    ['the owner alone', githubJob('octo/'), 'auth.unmapped jwt.unmapped'],
    ['a star for a repository', githubJob('*/web'), 'auth.unmapped jwt.unmapped'],
    ['the second of a list', { list: ['a', 'b'] }, 'second:b'],
    ['the first of a list, by what is no index', { list: ['a', 'c'] }, 'auth.unmapped jwt.unmapped'],
    ['flags', { verified: true, level: 3, groups: ['dev', 'sre'], email: 'a@example.com' }, 'oidc:a@example.com'],
    [
      'flags as text',
      { verified: 'true', level: 3, groups: ['sre'], email: 'a@example.com' },
      'auth.unmapped jwt.unmapped',
    ],
    ['none of the groups', { verified: true, level: 3, groups: ['dev'], email: 'a' }, 'auth.unmapped jwt.unmapped'],
    ['a claim that is no text', { verified: true, level: 3, groups: 'ops', email: ['a'] }, 'auth.unmapped jwt.value'],
    [
      'what objects inherit',
      { verified: true, level: 3, groups: { length: 1, 0: 'ops' }, email: 'a' },
      'auth.unmapped jwt.unmapped',
    ],
  ]
  for (const [what, claims, found] of cases) t.equal(await ask(issuer.token(claims)), found, what)
})
