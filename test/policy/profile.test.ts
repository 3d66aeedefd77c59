import { createHash } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import { isProblem, type Violation } from '../../src/errors.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { parseProfile } from '../../src/policy/profile.ts'
import { seedNames } from '../../src/policy/seeds.ts'
import { slowTest } from '../helpers/slow.ts'
import { baseDocument, seeds } from './requests.ts'

const faultsOf = (input: unknown, at: { readonly name?: string } = {}): readonly Violation[] => {
  try {
    parseProfile(input, { version: 1, ...at })
  } catch (error) {
    if (!isProblem(error, 'profile.invalid')) throw error
    return error.options.violations ?? []
  }
  return []
}

/** `place: reason`, one line a fault. */
const linesOf = (changes: Readonly<Record<string, unknown>>): readonly string[] =>
  faultsOf({ ...baseDocument, ...changes }).map(({ field, reason }) => `${field}: ${reason}`)

const rulesFor = (dns: unknown) => ({ names: { dns } })

t.test('a sound document becomes a profile with compiled rules and a hash of its content', async (t) => {
  const profile = parseProfile(baseDocument, { version: 7 })
  t.match(profile, { name: 'test', version: 7, authority: 'default', others: 'refuse' })
  t.same(profile.validity, { default: 86_400, max: 2_592_000, shorten: false, backdate: 0 })
  t.equal(profile.sha256, createHash('sha256').update(canonicalJson(profile.document)).digest('hex'))
  t.same(profile.document, baseDocument)
  t.not(profile.document, baseDocument, 'a copy')
  t.ok(Object.isFrozen(profile.document.names?.dns?.allow), 'frozen throughout')
})

t.test('what YAML has made a number is told to be wanted as text', async (t) => {
  t.same(linesOf({ extendedKeyUsage: ['serverAuth', 1.2] }), [
    '/extendedKeyUsage/1: must be text of 1 to 2048 characters, in quotes where YAML would read a number',
  ])
})

t.test(
  'a document that is applied now is told of what one that is kept may have: else nothing would start',
  async (t) => {
    const written = {
      ...baseDocument,
      names: {
        dns: { allow: ['*.example.com', '10.0.0.1'], deny: ['xn--a.example.com'] },
        uri: {
          allow: ['https://example.com/**', 'urn:a:b'],
          deny: ['https://Example.com/**', 'https://example.com:443/*', 'https://example.com/%61', 'spiffe://a..b/*'],
        },
        email: { allow: ['*@**.example.com'], deny: ['(a)@example.com'] },
        ip: { allow: ['0.0.0.0/0', '::/0'] },
      },
      extendedKeyUsage: ['serverAuth', '1.3.6.1.4.1.311.10.12.1'],
    }
    const told = faultsOf(written).map(({ field, reason }) => `${field}: ${reason}`)
    const idle = 'matches no name that can be asked for:'
    t.match(told, [
      new RegExp(`^/names/dns/allow/1: ${idle} a DNS name is an IP address$`),
      new RegExp(`^/names/dns/deny/0: ${idle} .* A-label$`),
      new RegExp(`^/names/uri/deny/0: ${idle} a URI has a host`),
      new RegExp(`^/names/uri/deny/1: ${idle} a URI has a port$`),
      new RegExp(`^/names/uri/deny/2: ${idle} a URI percent-encodes`),
      new RegExp(`^/names/uri/deny/3: ${idle} a URI has an empty label in its trust domain$`),
      new RegExp(`^/names/email/deny/0: ${idle}`),
      /^\/extendedKeyUsage\/1: stands for every usage to Windows/,
    ])
    t.equal(told.length, 8)
    for (const [name, { document }] of seeds) t.same(faultsOf(document), [], name)
  },
)

t.test('a document is of the name that it is put under', (t) => {
  const told = (input: unknown, at: { readonly name?: string }) =>
    faultsOf(input, at).map(({ check, field, reason }) => [check, field, reason])
  t.same(told(baseDocument, { name: 'test' }), [])
  t.same(told(baseDocument, { name: 'tests' }), [['profile.name', '/name', 'is not tests']])
  const responder = { ...baseDocument, extendedKeyUsage: ['OCSPSigning'] }
  t.match(told(responder, {}), [['profile.usages', '/extendedKeyUsage/0']])
  const endless = { ...baseDocument, validity: { default: '24h', max: '36501d', over: 'shorten' } }
  t.match(told(endless, {}), [['profile.validity', '/validity/max']])
  for (const list of ['allow', 'deny']) {
    const unread = { ...baseDocument, names: { dns: { allow: ['*.example.com'], [list]: ['f*.example.com'] } } }
    t.match(told(unread, {}), { length: 1, 0: ['profile.names', `/names/dns/${list}/0`] }, 'told once')
  }
  t.end()
})

t.test('a seed has the name of its file: by that it is known to be there', async (t) => {
  t.same(seedNames(), [...seeds.keys()])
  t.ok(seeds.size > 10)
})

t.test(
  'whoever holds a certificate may renew it only where the profile says so, and then with a new key',
  async (t) => {
    const renewalOf = (renewal?: object) =>
      parseProfile({ ...baseDocument, ...(renewal && { renewal }) }, { version: 1 }).renewal
    t.equal(renewalOf(), null)
    t.same(renewalOf({ within: '90d' }), { within: 7_776_000, key: 'new', grace: 0, needsGrant: false })
    const all = { within: '1h', key: 'any', grace: '5m', grant: true }
    t.same(renewalOf(all), { within: 3_600, key: 'any', grace: 300, needsGrant: true })
  },
)

t.test('requests wait for approvals as long as the profile says, or a day; or for none', async (t) => {
  const approvalsOf = (approvals?: object) =>
    parseProfile({ ...baseDocument, ...(approvals && { approvals }) }, { version: 1 }).approvals
  t.equal(approvalsOf(), null)
  t.same(approvalsOf({ required: 2 }), { required: 2, expires: 86_400 })
  t.same(approvalsOf({ required: 1, expires: '1m' }), { required: 1, expires: 60 })
})

t.test('the order of fields does not change the hash, and any change of content does', async (t) => {
  const reversed = Object.fromEntries(Object.entries(baseDocument).reverse())
  const { sha256 } = parseProfile(baseDocument, { version: 1 })
  t.equal(parseProfile(reversed, { version: 2 }).sha256, sha256)
  t.not(parseProfile({ ...baseDocument, description: 'x' }, { version: 1 }).sha256, sha256)
})

t.test('a change of the input after parsing changes nothing', async (t) => {
  const input = structuredClone({ ...baseDocument, names: { dns: { allow: ['*.example.com'] } } })
  const profile = parseProfile(input, { version: 1 })
  input.names.dns.allow.push('**')
  t.same(profile.document.names?.dns?.allow, ['*.example.com'])
})

t.test(
  'the sense of a document is judged once its shape is sound, and every fault of either is reported',
  async (t) => {
    t.match(
      linesOf({
        name: 'Test',
        colour: 'blue',
        validity: { default: '31d', max: '30d', over: 'grow' },
        keys: [{ ec: ['P-256', 'P-192'] }],
        rules: [{ id: 'a' }],
      }).toSorted(),
      [
        /^\/colour: is not a known field/,
        /^\/keys\/0\/ec\/1: must be one of P-256, P-384, P-521/,
        /^\/name: must be 1 to 63/,
        /^\/rules\/0\/expression: is missing/,
        /^\/rules\/0\/message: is missing/,
        /^\/validity\/over: must be one of refuse, shorten/,
      ],
    )
    const lines = linesOf({
      validity: { default: '31d', max: '30d', over: 'refuse' },
      keys: [{ rsa: { min: 4096, max: 2048 } }],
      subject: { others: 'drop', organization: { from: 'csr' } },
      names: { dns: { allow: ['f*.example.com'] }, ip: { allow: ['10.0.0.1/8'] }, require: ['uri'] },
      extendedKeyUsage: ['serverAuth', 'flying'],
      bind: [{ id: 'a', names: 'email', firstLabel: { of: 'principal' } }],
      rules: [{ id: 'b', expression: 'true', message: 'no' }],
    })
    for (const expected of [
      '/validity/default: is more than max, 30d',
      '/keys/0/rsa/min: is more than max, 2048',
      '/subject/organization: takes any value',
      '/names/dns/allow/0: ',
      '/names/ip/allow/0: has bits set',
      '/names/require/0: is required, and no rule allows it',
      '/extendedKeyUsage/1: must be a dotted OID',
      '/bind/0/names: is tied, and no rule allows it',
      '/bind/0/firstLabel: has no labels',
      '/rules/0: cannot be evaluated',
    ]) {
      t.ok(
        lines.some((line) => line.startsWith(expected)),
        expected,
      )
    }
  },
)

t.test('a fault has the value that stands at its place, and is told once', async (t) => {
  const uri = { allow: ['spiffe://td/*'], max: 2 }
  t.match(faultsOf({ ...baseDocument, names: { uri } }), [
    { check: 'profile.names', field: '/names/uri/max', value: '2', reason: /^must be 1:/ },
  ])
  t.same(linesOf({ keys: [{ ed25519: true }, { ed25519: true }], keyUsage: ['keyEncipherment'] }), [
    '/keys/1: is allowed twice',
    '/keyUsage: holds nothing that ed25519 keys can serve',
  ])
})

t.test('what is just within its bound is sound', async (t) => {
  for (const changes of [
    { validity: { default: '36500d', max: '36500d' } },
    { validity: { default: '2s', max: '2s' } },
    { validity: { default: '86401s', max: '30d', backdate: '24h' } },
    { renewal: { within: '36500d', grace: '30d' } },
    { keys: [{ rsa: { min: 4096, max: 4096 } }] },
    {
      subject: {
        others: 'drop',
        organizationalUnit: { fixed: Array.from({ length: 19 }, (_, i) => `unit ${i}`) },
        organization: { from: 'csr', match: '**', max: 12 },
        commonName: { from: 'csr', match: '**' },
      },
    },
  ])
    t.same(linesOf(changes), [], JSON.stringify(changes))
})

t.test('no part of a document takes a field that it does not know', async (t) => {
  const of = { of: 'principal' }
  const written = {
    ...baseDocument,
    keys: [{ rsa: { min: 2048, max: 4096 } }],
    subject: { others: 'drop', organization: { fixed: 'A' } },
    names: {
      dns: { allow: ['a.example.com'] },
      ip: { allow: ['::/0'] },
      uri: { allow: ['urn:a:b'] },
      email: { allow: ['*@a.test'] },
    },
    renewal: { within: '1h' },
    approvals: { required: 1 },
    bind: [{ id: 'a', names: 'dns', equals: of }],
    rules: [{ id: 'a', expression: 'true', message: 'm' }],
  }
  const places: string[] = []
  const widen = (part: unknown, place: string): unknown => {
    if (Array.isArray(part)) return part.map((item, i) => widen(item, `${place}/${i}`))
    if (typeof part !== 'object' || part === null) return part
    places.push(place)
    const members = Object.entries(part).map(([name, value]) => [name, widen(value, `${place}/${name}`)])
    return { ...Object.fromEntries(members), colour: 'blue' }
  }
  const told = faultsOf(widen(written, ''))
  t.equal(places.length, 16)
  t.same(
    places.filter(
      (place) => !told.some(({ field, reason }) => field === `${place}/colour` && reason === 'is not a known field'),
    ),
    [],
  )
})

t.test('how many names there may be is read of each kind, and of all', async (t) => {
  const most = (names: object) => {
    const { maxOf, max } = parseProfile({ ...baseDocument, names }, { version: 1 }).names
    return { ...maxOf, max }
  }
  const rules = (max?: readonly number[]) =>
    Object.fromEntries(
      ['dns:a.example.com', 'ip:::/0', 'uri:urn:a:b', 'email:*@a.test'].map((text, i) => [
        text.slice(0, text.indexOf(':')),
        { allow: [text.slice(text.indexOf(':') + 1)], ...(max && { max: max[i] }) },
      ]),
    )
  const none = Number.POSITIVE_INFINITY
  t.same(most(rules()), { dns: none, ip: none, uri: none, email: none, max: none })
  t.same(most({ ...rules([1, 2, 3, 4]), max: 5 }), { dns: 1, ip: 2, uri: 3, email: 4, max: 5 })
})

t.test('more than eight faults of shape are all listed', async (t) => {
  const unknown = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`field${i}`, i]))
  t.equal(linesOf(unknown).length, 40)
})

const single: readonly (readonly [string, Readonly<Record<string, unknown>>, string])[] = [
  [
    'an unknown field deep inside',
    { validity: { default: '24h', max: '30d', grace: '1h' } },
    '/validity/grace: is not a known field',
  ],
  [
    'a number where a duration belongs',
    { validity: { default: 3600, max: '30d' } },
    '/validity/default: must be a whole number with a unit: 30s, 5m, 24h or 30d',
  ],
  [
    'a duration without unit',
    { validity: { default: '3600', max: '30d' } },
    '/validity/default: must be a whole number with a unit: 30s, 5m, 24h or 30d',
  ],
  [
    'a duration with a fraction',
    { validity: { default: '1.5h', max: '30d' } },
    '/validity/default: must be a whole number with a unit: 30s, 5m, 24h or 30d',
  ],
  ...['0s', '1s'].map(
    (length) =>
      [
        `a validity of ${length}`,
        { validity: { default: length, max: length } },
        '/validity/default: is under 2s: both ends are in a validity, so the certificate would end as it begins',
      ] as const,
  ),
  [
    'orName of a common name that anything matches',
    { subject: { others: 'drop', commonName: { from: 'csr', orName: true } } },
    '/subject/commonName/orName: goes with commonName and match only',
  ],
  ...Object.entries({ match: '**', required: false, max: 1 }).map(
    ([key, value]) =>
      [
        `${key} beside what is fixed`,
        { subject: { others: 'drop', organization: { fixed: 'A', [key]: value } } },
        '/subject/organization: is fixed, so match, orName, required and max say nothing',
      ] as const,
  ),
  [
    'a common name that has to be among names of which there can be none',
    { extendedKeyUsage: ['clientAuth'], names: {} },
    '/subject/commonName: must be among the names, and the profile allows none; give it match or fixed',
  ],
  [
    'a subject with more attributes than one can have',
    {
      subject: {
        others: 'drop',
        organizationalUnit: { fixed: Array.from({ length: 20 }, (_, i) => `unit ${i}`) },
        organization: { from: 'csr', match: '**', max: 12 },
        commonName: { from: 'csr', match: '**' },
      },
    },
    '/subject: makes up to 33 attributes; a subject has at most 32',
  ],
  [
    'a validity of more than a century',
    { validity: { default: '24h', max: '999999d' } },
    '/validity/max: is more than 36500d',
  ],
  [
    'a backdate that eats the validity',
    { validity: { default: '5m', max: '30d', backdate: '5m' } },
    '/validity/default: is not more than backdate, 5m: the certificate would be born expired',
  ],
  [
    'a backdate of days',
    { validity: { default: '20d', max: '30d', backdate: '2d' } },
    '/validity/backdate: is more than 24h',
  ],
  ['a renewal without a bound', { renewal: {} }, '/renewal/within: is missing'],
  [
    'a renewal of no time',
    { renewal: { within: '0s' } },
    '/renewal/within: is nothing; leave renewal out where nobody may renew',
  ],
  ['a renewal of more than a century', { renewal: { within: '99999d' } }, '/renewal/within: is more than 36500d'],
  ['a grace of months', { renewal: { within: '90d', grace: '31d' } }, '/renewal/grace: is more than 30d'],
  [
    'a key for renewals that is none',
    { renewal: { within: '90d', key: 'old' } },
    '/renewal/key: must be one of new, same, any',
  ],
  [
    'approvals by nobody',
    { approvals: { required: 0 } },
    '/approvals/required: must be a whole number within 1 and 10',
  ],
  [
    'approvals that nobody can give in time',
    { approvals: { required: 1, expires: '59s' } },
    '/approvals/expires: is under 1m: nobody approves so fast',
  ],
  [
    'a request that waits for months',
    { approvals: { required: 1, expires: '31d' } },
    '/approvals/expires: is more than 30d',
  ],
  ['no keys', { keys: [] }, '/keys: must be a list of 1 to 10 kinds of key'],
  [
    'two kinds in one entry',
    { keys: [{ ec: ['P-256'], ed25519: true }] },
    '/keys/0: must be one of rsa, ec, ed25519 and mlDsa',
  ],
  ['a key that is not allowed', { keys: [{ ed25519: false }] }, '/keys/0/ed25519: must be true'],
  ['a key twice', { keys: [{ ec: ['P-256'] }, { ec: ['P-256'] }] }, '/keys/1: is allowed twice'],
  [
    'a range the wrong way round',
    { keys: [{ rsa: { min: 4096, max: 2048 } }] },
    '/keys/0/rsa/min: is more than max, 2048',
  ],
  [
    'a CA usage',
    { keyUsage: ['keyCertSign'] },
    '/keyUsage/0: must be one of digitalSignature, contentCommitment, keyEncipherment, dataEncipherment, keyAgreement, encipherOnly, decipherOnly',
  ],
  [
    'a usage that the keys cannot serve',
    { keyUsage: ['keyEncipherment'] },
    '/keyUsage: holds nothing that ec-p256 keys can serve',
  ],
  ...['encipherOnly', 'decipherOnly'].map(
    (usage) =>
      [
        `${usage} alone`,
        { keyUsage: ['digitalSignature', usage] },
        '/keyUsage/1: means nothing without keyAgreement (RFC 5280 4.2.1.3)',
      ] as const,
  ),
  [
    'any usage, of what answers for its issuer',
    { name: 'chancery-ocsp-default', extendedKeyUsage: ['OCSPSigning', 'anyExtendedKeyUsage'] },
    '/extendedKeyUsage/1: stands for every usage; name those that are meant',
  ],
  ['no usage', { extendedKeyUsage: [] }, '/extendedKeyUsage: must be a list of 1 to 20 usages'],
  [
    'every usage',
    { extendedKeyUsage: ['2.5.29.37.0'] },
    '/extendedKeyUsage/0: stands for every usage; name those that are meant',
  ],
  [
    'a delegated OCSP responder',
    { extendedKeyUsage: ['OCSPSigning'] },
    '/extendedKeyUsage/0: would let the holder answer for its issuer (RFC 6960 4.2.2.2)',
  ],
  [
    'a usage by number that has a name',
    { extendedKeyUsage: ['1.3.6.1.5.5.7.3.1'] },
    '/extendedKeyUsage/0: is written serverAuth',
  ],
  [
    'a usage that every object has',
    { extendedKeyUsage: ['clientAuth', 'constructor'] },
    '/extendedKeyUsage/1: must be a dotted OID or one of serverAuth, clientAuth, codeSigning, emailProtection, timeStamping, OCSPSigning, ipsecIKE, documentSigning, smartcardLogon',
  ],
  ['an unknown kind of revocation', { revocation: 'never' }, '/revocation: must be none, or a list of crl and ocsp'],
  ['no rule for the names', rulesFor({}), '/names/dns/allow: is missing'],
  ['an empty allow', rulesFor({ allow: [] }), '/names/dns/allow: must be a list of 1 to 1000 patterns'],
  ['a pattern twice', rulesFor({ allow: ['a', 'a'] }), '/names/dns/allow/1: occurs twice'],
  [
    'a pattern allowed and denied',
    rulesFor({ allow: ['a', 'b'], deny: ['a'] }),
    '/names/dns/allow/0: is denied too, and deny wins',
  ],
  ['a regular expression', rulesFor({ allow: ['^.*$'] }), '/names/dns/allow/0: has characters that no DNS name has'],
  [
    'several SPIFFE IDs',
    { names: { uri: { allow: ['spiffe://td/*'] } }, subject: { others: 'drop' } },
    '/names/uri/max: must be 1: an X509-SVID has exactly one URI (SPIFFE X509-SVID 2)',
  ],
  [
    'a server without names',
    { names: {}, subject: { others: 'drop' } },
    '/names: must have rules for dns, ip or uri: a server is known by its names',
  ],
  [
    'an attribute from nowhere',
    { subject: { others: 'drop', organization: {} } },
    '/subject/organization: must have exactly one of from and fixed',
  ],
  [
    'an attribute from two places',
    { subject: { others: 'drop', organization: { from: 'csr', fixed: 'A' } } },
    '/subject/organization: must have exactly one of from and fixed',
  ],
  [
    'an unbounded attribute',
    { subject: { others: 'drop', organization: { from: 'csr' } } },
    '/subject/organization: takes any value from the request; give it match (`**` for any) or fixed',
  ],
  [
    'two wildcards',
    { subject: { others: 'drop', organization: { from: 'csr', match: 'a*b*' } } },
    '/subject/organization/match: has more than one wildcard',
  ],
  [
    'a star in a fixed value',
    { subject: { others: 'drop', organization: { fixed: 'system:*' } } },
    '/subject/organization/fixed: has `*`, which is literal in a fixed value; use match for a pattern',
  ],
  [
    'two common names',
    { subject: { others: 'drop', commonName: { fixed: ['a', 'b'] } } },
    '/subject/commonName/fixed: can have one value only',
  ],
  [
    'an address as the common name',
    { subject: { others: 'drop', commonName: { fixed: '10.0.0.1' } } },
    '/subject/commonName/fixed: commonName is an IP address',
  ],
  [
    'room for two common names',
    { subject: { others: 'drop', commonName: { from: 'csr', max: 2 } } },
    '/subject/commonName/max: can have one value only',
  ],
  [
    'system:masters from the request',
    { subject: { others: 'drop', organization: { from: 'csr', match: ['ok', 'system:masters'] } } },
    '/subject/organization/match/1: is accepted only where a profile fixes it',
  ],
  [
    'an unknown attribute',
    { subject: { others: 'drop', shoeSize: { fixed: '42' } } },
    '/subject/shoeSize: is not a known field',
  ],
  [
    'a binding without tie',
    { bind: [{ id: 'a', names: 'dns' }] },
    '/bind/0: must have exactly one of equals, firstLabel, leadingLabels and matches',
  ],
  [
    'a binding to itself',
    { bind: [{ id: 'a', names: 'commonName', equals: { of: 'commonName' } }] },
    '/bind/0/equals/of: is tied to itself',
  ],
  [
    'a binding to what is not',
    { bind: [{ id: 'a', names: 'dns', equals: { of: 'request.ip' } }] },
    '/bind/0/equals/of: must be commonName, principal or origin.<fact>',
  ],
  [
    'an id twice',
    { bind: ['a', 'a'].map((id) => ({ id, names: 'dns', equals: { of: 'principal' } })) },
    '/bind/1/id: is the id of another entry',
  ],
  [
    'a rule that nobody evaluates',
    { rules: [{ id: 'r', expression: 'true', message: 'm' }] },
    '/rules/0: cannot be evaluated by this version; only bindings can tie names',
  ],
]

for (const [what, changes, line] of single) {
  t.test(`${what} is a fault`, async (t) => {
    t.same(linesOf(changes), [line])
  })
}

t.test('a subject value beyond its bounds is a fault where it stands', async (t) => {
  for (const value of ['x'.repeat(65), ' padded']) {
    const [line, ...others] = linesOf({ subject: { others: 'drop', organization: { fixed: value } } })
    t.match(line, /^\/subject\/organization\/fixed: /)
    t.same(others, [])
  }
})

t.test('system:masters is accepted where a profile fixes it', async (t) => {
  t.same(linesOf({ subject: { others: 'drop', organization: { fixed: ['system:masters'] } } }), [])
})

t.test('keyEncipherment beside a usage that the keys serve is no fault', async (t) => {
  t.same(linesOf({ keyUsage: ['digitalSignature', 'keyEncipherment'] }), [])
})

t.test('a NUL in a text, which no database keeps, is a fault and not an exception', async (t) => {
  t.same(linesOf({ description: 'a\0b' }), [': has a NUL in one of its texts'])
  t.same(linesOf({ description: '\\\0' }), [': has a NUL in one of its texts'])
  t.same(linesOf({ description: 'a \\u0000 b' }), [], 'what only looks like one is none')
  t.match(linesOf({ origin: { users: { allow: ['\ud800'] } } }), [/^: is not plain JSON/])
})

t.test('a document that is not plain JSON, or too large, is a fault and not an exception', async (t) => {
  t.same(linesOf({ description: '\ud800' }), [': is not plain JSON: a string with a lone surrogate has no JSON form'])
  const allow = Array.from({ length: 1000 }, (_, i) => `${'a'.repeat(60)}.${'b'.repeat(20)}.n${i}`)
  t.match(linesOf(rulesFor({ allow })), [/^: is \d+ octets of canonical JSON; at most 65536/])
  const cyclic: Record<string, unknown> = { ...baseDocument }
  cyclic.names = cyclic
  t.ok(faultsOf(cyclic).length > 0)
  const polluted: unknown = JSON.parse('{"__proto__": {"name": "x"}, "constructor": 1}')
  t.ok(faultsOf(polluted).some(({ field }) => field === '/__proto__'))
})

slowTest('whatever comes in, parsing yields a profile or one profile.invalid with places that exist', async (t) => {
  const paths = fc.constantFrom(
    ...[
      'name',
      'authority',
      'validity',
      'keys',
      'subject',
      'names',
      'keyUsage',
      'extendedKeyUsage',
      'revocation',
      'bind',
      'rules',
    ],
  )
  const leaf = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom('*', '**', 'system:masters', 'csr', '24h', null, [], {}),
  )
  const keys = fc.constantFrom(
    'from',
    'fixed',
    'match',
    'allow',
    'deny',
    'dns',
    'ip',
    'uri',
    'commonName',
    'max',
    'default',
    '__proto__',
  )
  fc.assert(
    fc.property(fc.constantFrom(...seeds.values()), paths, fc.option(keys), leaf, (profile, path, key, value) => {
      const document = structuredClone(profile.document) as unknown as Record<string, unknown>
      document[path] = key === null ? value : { ...(document[path] as object), [key]: value }
      for (const fault of faultsOf(document)) {
        if (!/^(\/|$)/.test(fault.field) || fault.reason === '' || fault.value.length > 257) return false
      }
      return true
    }),
    { seed: 29, numRuns: 2000 },
  )
  fc.assert(
    fc.property(fc.anything(), (input) => faultsOf(input).length > 0),
    { seed: 30, numRuns: 500 },
  )
  t.pass('held')
})
