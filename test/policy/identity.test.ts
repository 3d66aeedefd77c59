/** Documents of identity providers: everything that can be wrong with one, and how little a pattern takes. */
import { generateKeyPairSync } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { claimAt, readClaimRule, readTemplate } from '../../src/policy/claims.ts'
import { assertWithin, decideIdentity, parseProvider, readSpan } from '../../src/policy/identity.ts'
import { hasKeyFor } from '../../src/policy/identity-keys.ts'
import { readNameTemplate, readPrincipalTemplate } from '../../src/policy/identity-templates.ts'
import { newRsaKey } from '../helpers/issuer.ts'

const mapping = { id: 'a', claims: { sub: 'x' }, principal: 'tester' }
const good = {
  name: 'test',
  issuer: 'https://issuer.example.com',
  keys: { discovery: true },
  algorithms: ['RS256'],
  audience: 'https://ca.example.com',
  lifetime: '15m',
  mappings: [mapping],
}

const faultsOf = (document: unknown): readonly string[] => {
  try {
    parseProvider(document, { version: 1 })
    return []
  } catch (error) {
    if (!isProblem(error, 'provider.invalid')) throw error
    return (error.options.violations ?? []).map(({ field, reason }) => `${field} ${reason}`)
  }
}

t.test('keys that were fetched are of use where one of them can verify a token', async (t) => {
  const { jwk, privateKey } = newRsaKey()
  const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })
  const useless = [
    short,
    privateKey.export({ format: 'jwk' }),
    { ...jwk, use: 'enc' },
    { ...jwk, alg: 'RS512' },
    { ...jwk, key_ops: ['sign'] },
    { kty: 'RSA' },
    { kty: 'oct', k: 'AAAA' },
    {},
  ]
  for (const key of useless) t.notOk(hasKeyFor([key], ['RS256']), JSON.stringify(key).slice(0, 60))
  t.notOk(hasKeyFor(useless, ['RS256']))
  t.notOk(hasKeyFor([jwk], ['ES256']))
  t.ok(hasKeyFor([...useless, jwk], ['ES256', 'RS256']))
})

t.test('every fault of a document is told with its place', async (t) => {
  t.same(faultsOf(good), [])
  const { jwk } = newRsaKey()
  const plain = {
    ...{ ip: { allow: ['10.0.0.0/8'] }, commonName: { allow: ['a:*'] } },
    uri: { allow: ['spiffe://example.com/**'], deny: ['spiffe://example.com/x'] },
  }
  const cases: readonly (readonly [more: object, ...faults: (string | RegExp)[]])[] = [
    [{ algorithms: [] }, /^\/algorithms /],
    [{ algorithms: ['none'] }, /^\/algorithms\/0 must be one of RS256/],
    [{ algorithms: ['HS256'] }, /^\/algorithms\/0 must be one of RS256/],
    [{ algorithms: ['EdDSA', 'Ed25519'] }, '/algorithms is the older name of Ed25519; one of them is enough'],
    [{ issuer: 'http://issuer.example.com' }, '/issuer must be an https:// URL'],
    [{ issuer: 'https://issuer.example.com/?x' }, '/issuer must be an https:// URL'],
    [{ issuer: 'https://user@issuer.example.com' }, '/issuer must be an https:// URL'],
    [{ issuer: 'https://issuer.example.com/\0' }, ' has a NUL in one of its texts'],
    [{ issuer: `https://${'例'.repeat(1_000)}` }, '/issuer is 3008 octets of UTF-8; at most 2048 are allowed'],
    [{ keys: {} }, '/keys must have exactly one of discovery, url and static'],
    [{ keys: { discovery: true, static: [jwk] } }, '/keys must have exactly one of discovery, url and static'],
    [{ keys: { url: 'http://issuer.example.com/keys' } }, '/keys/url must be an https:// URL'],
    [{ keys: { discovery: true, ca: 'x' } }, /^\/keys\/ca is not a list of certificates in PEM/],
    [{ keys: { static: [{ kty: 'oct', k: 'AAAA' }] } }, /^\/keys\/static\/0 holds a private or a shared key/],
    [
      { keys: { static: [{ ...jwk, d: 'AAAA' }] } },
      '/keys/static/0 holds a private or a shared key: treat it as exposed',
    ],
    [
      { keys: { static: [jwk, { kty: 'EC' }] } },
      '/keys/static/1 must have a kid, by which tokens name it, where there are several',
      '/keys/static/1 is no public key of type EC',
    ],
    [{ lifetime: '25h' }, '/lifetime is more than 24h'],
    [
      { mappings: [{ ...mapping, grants: [{ profiles: ['a'], onBehalfOf: { users: { deny: ['*x*'] } } }] }] },
      '/mappings/0/grants/0/onBehalfOf/users/deny/0 has more than one wildcard',
    ],
    [
      { mappings: [{ ...mapping, grants: [{ profiles: ['a'], onBehalfOf: true }] }] },
      /^\/mappings\/0\/grants\/0\/onBehalfOf /,
    ],
    [{ lifetime: '0m' }, /^\/lifetime must be a whole number/],
    [{ clock: '31s' }, '/clock is more than 30s'],
    [{ audience: [] }, /^\/audience must be a string or a list/],
    [{ mappings: [mapping, mapping] }, '/mappings/1/id occurs twice'],
    [{ mappings: [{ ...mapping, claims: {} }] }, /^\/mappings\/0\/claims must be 1 to 20 claims/],
    [{ mappings: [{ ...mapping, claims: { sub: 'a*' } }] }, /^\/mappings\/0\/claims\/sub has `\*` inside a segment/],
    [{ mappings: [{ ...mapping, claims: { '/a~2': 'x' } }] }, /is not a JSON pointer/],
    [{ mappings: [{ ...mapping, claims: { sub: 'octo/web*' } }] }, /has `\*` inside a segment/],
    [{ mappings: [{ ...mapping, claims: { 'a\nb': null } }] }, /^\/mappings\/0\/claims\/a\nb must be text/],
    [{ mappings: [{ ...mapping, principal: '{sub}' }] }, /has a claim before a prefix/],
    [{ mappings: [{ ...mapping, principal: 'a{sub}' }] }, /has a claim before a prefix/],
    [{ mappings: [{ ...mapping, principal: 'a:{b}{c}' }] }, /two claims with nothing between them/],
    [{ mappings: [{ ...mapping, principal: 'a:{b' }] }, /a brace without its partner/],
    [{ mappings: [{ ...mapping, principal: 'a:{b}:c}' }] }, /a brace without its partner/],
    [{ mappings: [{ ...mapping, principal: 'a:{b}x' }] }, /has an `x` after a claim/],
    [{ mappings: [{ ...mapping, principal: 'a b' }] }, /is no name of a principal/],
    [
      { mappings: [{ ...mapping, grants: [{ profiles: ['p'], names: { dns: { allow: ['*x'] } } }] }] },
      /names\/dns\/allow\/0 has `\*` inside/,
    ],
    [{ mappings: [{ ...mapping, grants: [{ profiles: ['p'], names: plain }] }] }],
    [
      { mappings: [{ ...mapping, grants: [{ profiles: ['p'], names: { ip: { allow: ['{a}/8'] } } }] }] },
      /only rules for dns, uri and commonName may/,
    ],
    [
      { mappings: [{ ...mapping, grants: [{ profiles: ['p'], names: { uri: { allow: ['spiffe://{a}/x'] } } }] }] },
      /has a claim before its path/,
    ],
    [
      {
        mappings: [{ ...mapping, grants: [{ profiles: ['p'], names: { commonName: { allow: ['a:{b}*', 'a*b*'] } } }] }],
      },
      '/mappings/0/grants/0/names/commonName/allow/0 has a claim beside a wildcard',
      '/mappings/0/grants/0/names/commonName/allow/1 has more than one wildcard',
    ],
    [{ unknown: 1 }, '/unknown is not a known field'],
  ]
  for (const [more, ...wanted] of cases) {
    const faults = faultsOf({ ...good, ...more })
    t.equal(faults.length, wanted.length, JSON.stringify([more, faults]))
    for (const [i, fault] of wanted.entries()) t.match(faults[i], fault)
  }
  for (const document of [null, [], 'x', 7, {}]) t.ok(faultsOf(document).length > 0)
  const parted = faultsOf({ ...good, mappings: [{ ...mapping, claims: { 'a\u2028b': {} } }] })
  t.equal(parted.length, 1, 'a line in Unicode, which JSON may hold as it is, is no end of a name')
})

t.test(
  'the sense of a document is judged once its shape is sound, and every fault of either is reported',
  async (t) => {
    const misshapen = { keys: { discovery: 'yes' }, clock: '5m', mappings: [7, { ...mapping, more: 1 }] }
    t.same(
      faultsOf({ ...good, ...misshapen })
        .map((fault) => fault.split(' ', 1)[0])
        .sort(),
      ['/keys/discovery', '/mappings/0', '/mappings/1/more'],
    )
    const senseless = { clock: '5m', lifetime: '48h', mappings: [mapping, mapping] }
    t.same(
      faultsOf({ ...good, ...senseless })
        .map((fault) => fault.split(' ', 1)[0])
        .sort(),
      ['/clock', '/lifetime', '/mappings/1/id'],
    )
    const long = { ...mapping, claims: { sub: Array.from({ length: 65 }, (_, i) => `${i}`.padEnd(1024, 'x')) } }
    t.match(faultsOf({ ...good, mappings: [long] }), [/^ is \d+ octets of canonical JSON; at most 65536 are allowed$/])
    fc.assert(fc.property(fc.anything(), (input) => faultsOf(input).length > 0))
  },
)

t.test('a number fits itself, and nobody where it would be its neighbours as well', async (t) => {
  const fits = (document: string, token: string): boolean => {
    const rule = readClaimRule('id', JSON.parse(document) as number)
    return typeof rule !== 'string' && rule.fits({ id: JSON.parse(token) })
  }
  t.ok(fits('9007199254740991', '9007199254740991'))
  t.notOk(fits('9007199254740993', '9007199254740992'))
})

t.test('a claim is what it must be: one of several, or one of a list of its own, and of the same type', async (t) => {
  for (const [name, value, fit, unfit] of [
    ['c', 'x', ['x', ['y', 'x']], ['y', '', ['y'], [], 'xx']],
    ['c', ['x', 'y/*'], ['x', 'y/z', ['z', 'y/z']], ['z', 'y/', ['z']]],
    ['c', ['a/*'], ['a/b'], ['b/b', 'a/b/c', 'b']],
    ['c', true, [true], [false, 'true', 1, [true]]],
    ['c', 7, [7], [8, '7', true, [7]]],
    ['/a/b', 'x', [], ['x']],
    ['c~d', 'x', [], ['x']],
  ] as const) {
    const rule = readClaimRule(name, value as string)
    if (typeof rule === 'string') throw new Error(rule)
    t.equal(rule.name, name)
    for (const c of fit) t.ok(rule.fits({ c }), JSON.stringify([value, c]))
    for (const c of unfit) t.notOk(rule.fits({ c }), JSON.stringify([value, c]))
    t.notOk(rule.fits({}))
    if (name !== 'c') t.ok(rule.fits({ a: { b: 'x' }, 'c~d': 'x' }) && !rule.fits({ '/a/b': 'x', c: { d: 'x' } }), name)
  }
  t.equal(claimAt({}, 'constructor'), undefined, 'nothing that objects have by themselves is a claim')
})

t.test('a pattern takes whole segments, and nothing beside what it says', async (t) => {
  const fits = (pattern: string, value: unknown): boolean => {
    const rule = readClaimRule('c', pattern)
    if (typeof rule === 'string') throw new Error(rule)
    return rule.fits({ c: value })
  }
  const part = fc.stringMatching(/^[a-zA-Z0-9._*-]{1,8}$/)
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 5 }), fc.nat(4), part, (parts, at, other) => {
      const i = at % parts.length
      const value = parts.join('/')
      const literal = parts.filter((text) => !text.includes('*')).length === parts.length
      if (literal) {
        const pattern = parts.with(i, '*').join('/')
        t.ok(fits(pattern, value))
        t.ok(fits(pattern, parts.with(i, other).join('/')))
        t.notOk(fits(pattern, parts.with(i, `${other}/${other}`).join('/')))
        t.notOk(fits(pattern, parts.with(i, '').join('/')))
        t.notOk(fits(pattern, `${value}/x`))
        t.notOk(fits(pattern, value.replaceAll('/', ':')) && parts.length > 1)
        if (parts.length > 1) {
          const j = (i + 1) % parts.length
          t.equal(fits(pattern, parts.with(j, other).join('/')), parts[j] === other)
        }
      }
    }),
    { numRuns: 200 },
  )
  for (const value of [undefined, null, 7, true, {}, [], [['x']]]) t.notOk(fits('*', value), JSON.stringify(value))
})

t.test('two tokens with other claims never get one name, nor one that somebody chose for himself', async (t) => {
  const template = readPrincipalTemplate('sa:{ns}:{name}')
  if (typeof template === 'string') throw new Error(template)
  const claim = fc.stringMatching(/^[A-Za-z0-9._@/:-]{1,12}$/)
  const made = new Map<string, string>()
  fc.assert(
    fc.property(claim, claim, (ns, name) => {
      const filled = template.fill((claim) => ({ ns, name })[claim])
      if (filled === undefined) return
      const key = JSON.stringify([ns, name])
      t.equal(made.get(filled) ?? key, key)
      t.ok(filled.startsWith('sa:'))
      made.set(filled, key)
    }),
    { numRuns: 500 },
  )
  t.ok(made.size > 50)
  t.equal(
    template.fill(() => 'x:y'),
    undefined,
  )
  t.equal(
    template.fill(() => 'ü'),
    undefined,
  )
  t.equal(
    template.fill(() => ''),
    undefined,
  )
  t.equal(
    template.fill(() => 'x'.repeat(100)),
    undefined,
    'longer than a name may be',
  )
})

t.test('which claim cannot stand in a name is told, and not what it says', async (t) => {
  const why = (principal: string, claims: object): string => {
    const mappings = [{ id: 'person', claims: { groups: 'staff' }, principal }]
    const provider = parseProvider({ ...good, mappings }, { version: 1 })
    try {
      return decideIdentity(provider, { groups: ['staff'], ...claims }).principal
    } catch (error) {
      if (!isProblem(error, 'auth.unmapped')) throw error
      return error.detail
    }
  }
  const place = 'of this token cannot stand where the mapping person puts it.'
  t.equal(why('people:{/sub}', { sub: 'alice' }), 'people:alice')
  t.equal(why('people:{/sub}', { sub: 'auth0|alice' }), `The claim /sub ${place}`)
  t.equal(why('people:{/sub}', {}), `The claim /sub ${place}`)
  t.equal(why('people:{org}/{sub}', { org: 'x', sub: ['alice'] }), `The claim org or sub ${place}`)
})

t.test('claims stand in what a grant allows and in what it denies, or there is no grant', async (t) => {
  const names = {
    dns: { allow: ['{ns}.example.com', 'example.com'], deny: ['admin.{ns}.example.com'] },
    uri: { allow: ['spiffe://example.com/{ns}'] },
  }
  const mappings = [{ ...mapping, claims: { sub: 'x' }, grants: [{ profiles: ['p'], names }] }]
  const provider = parseProvider({ ...good, mappings }, { version: 1 })
  t.same(decideIdentity(provider, { sub: 'x', ns: 'shop' }).grants[0]?.names, {
    dns: { allow: ['shop.example.com', 'example.com'], deny: ['admin.shop.example.com'] },
    uri: { allow: ['spiffe://example.com/shop'] },
  })
  for (const ns of [undefined, 'a.b', '*', ['shop']])
    t.throws(() => decideIdentity(provider, { sub: 'x', ns }), { code: 'auth.unmapped' }, String(ns))
})

t.test('a token holds from its beginning on and not at its end, each as far off as clocks may be', async (t) => {
  const provider = parseProvider({ ...good, clock: '10s' }, { version: 1 })
  const span = readSpan(provider, { aud: good.audience, iat: 1_000, exp: 1_900, nbf: 1_100 })
  t.same(span, { from: 1_090_000, until: 1_910_000 })
  for (const now of [span.from, span.until - 1]) t.doesNotThrow(() => assertWithin(span, now))
  t.throws(() => assertWithin(span, span.from - 1), { code: 'auth.early' })
  t.throws(() => assertWithin(span, span.until), { code: 'auth.expired' })
})

t.test('what a token says is never a pattern', async (t) => {
  const templates: readonly (readonly ['dns' | 'uri' | 'commonName', string, ...string[]])[] = [
    ['dns', '{a}.example.com'],
    ['uri', 'spiffe://example.com/{a}', 'a.b'],
    ['commonName', 'system:node:{a}', 'a.b', 'a@b', '.', '..'],
  ]
  for (const [kind, text, ...parts] of templates) {
    const template = readNameTemplate(kind, text)
    if (typeof template === 'string') throw new Error(template)
    for (const value of [
      '*',
      '**',
      '*.x',
      'a.b',
      'a@b',
      'a/b',
      'a:b',
      '..',
      '.',
      '',
      'a b',
      'a?b',
      'a%2fb',
      '{b}',
      'é',
    ])
      t.equal(template.fill(() => value) !== undefined, parts.includes(value), `${kind} ${value}`)
    t.ok(template.fill(() => 'web-1'))
  }
  const raw = readTemplate('a:{b}', () => true)
  t.equal(typeof raw === 'string' ? raw : raw.fill(() => '{b}'), 'a:{b}', 'nor filled in again')
})
