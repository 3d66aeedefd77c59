import t from 'tap'

import type { ProblemCode } from '../../src/errors.ts'
import type { KeyStanding } from '../../src/policy/check.ts'
import { checks } from '../../src/policy/checks.ts'
import { type Ask, type Context, type Decision, decide, recheck, refusal } from '../../src/policy/decide.ts'
import type { Profile } from '../../src/policy/profile.ts'
import { attributeTypes } from '../../src/policy/subject.ts'
import type { KeyAlgorithmId } from '../../src/x509/algorithms.ts'
import type { KeyUsage } from '../../src/x509/extensions.ts'
import type { Subject } from '../../src/x509/subject.ts'
import { ask, commonName, context, csrOf, keyOf, namesOf, profileOf, seed } from './requests.ts'

const www = namesOf('dns:www.example.com')
const at = (seconds: string): Context => ({ ...context, now: new Date(seconds) })

const planOf = (decision: Decision) => {
  if (!decision.allowed) throw new Error(JSON.stringify(decision.violations))
  return decision.plan
}
const failed = (decision: Decision): readonly string[] =>
  decision
    .checks()
    .filter(({ outcome }) => outcome === 'failed')
    .map(({ check, value }) => `${check} ${value}`)

t.test(
  'an allowed request becomes a plan that names its profile and takes only names and key from the request',
  async (t) => {
    const profile = profileOf()
    const decision = decide(profile, ask({ names: www, subject: commonName('www.example.com') }), context)
    t.same(planOf(decision), {
      profile: { name: 'test', version: 1, sha256: profile.sha256 },
      authority: 'default',
      subject: commonName('www.example.com'),
      names: www,
      notBefore: new Date('2030-06-01T12:00:00Z'),
      notAfter: new Date('2030-06-02T11:59:59Z'),
      key: keyOf('ec-p256'),
      keyUsage: ['digitalSignature'],
      extendedKeyUsage: ['serverAuth'],
      revocation: ['crl', 'ocsp'],
    })
    t.same(decision.notes, [])
    t.ok(decision.checks().every(({ outcome }) => outcome !== 'failed'))
  },
)

t.test('what a request and its profile say nothing of is skipped, and says so', async (t) => {
  const plain = profileOf({ subject: { others: 'drop' } })
  const said = decide(plain, ask({ names: www }), context).checks()
  const passed = said.filter(({ outcome }) => outcome === 'passed').map(({ check }) => check)
  t.same(passed, [
    'key.type',
    'key.issuer',
    'subject.systemMasters',
    'subject.present',
    'names.dns.allow',
    'validity.min',
    'validity.max',
    'validity.issuer',
  ])
  const ruled = new Set<string>([...attributeTypes.map((type) => `subject.${type}`), 'bind.<id>', 'rule.<id>'])
  t.same(
    said.map(({ check }) => check),
    checks.map(({ id }) => id).filter((id) => !ruled.has(id)),
  )
  t.ok(said.every(({ check, outcome }) => passed.includes(check) || outcome === 'skipped'))
})

/** What is refused: by which check, as which problem. */
const refusals: readonly (readonly [string, Profile, Ask, readonly string[], ProblemCode])[] = [
  [
    'a key type that is not listed',
    profileOf(),
    ask({ names: www, key: keyOf('ed25519') }),
    ['key.type ed25519'],
    'key.type',
  ],
  [
    'an RSA key that is too small',
    profileOf({ keys: [{ rsa: { min: 3072, max: 4096 } }] }),
    ask({ names: www, key: keyOf('rsa', 2048) }),
    ['key.size 2048'],
    'key.size',
  ],
  [
    'an RSA key that is too large',
    profileOf({ keys: [{ rsa: { min: 2048, max: 4096 } }] }),
    ask({ names: www, key: keyOf('rsa', 8192) }),
    ['key.size 8192'],
    'key.size',
  ],
  [
    'a common name that is a mail address among the names but for its case',
    profileOf({ names: { email: { allow: ['*@**'] } }, extendedKeyUsage: ['clientAuth'] }),
    ask({ names: namesOf('email:jane@example.com'), subject: commonName('JANE@example.com') }),
    ['names.commonName JANE@example.com'],
    'subject.forbidden',
  ],
  [
    'a name that matches nothing',
    profileOf(),
    ask({ names: namesOf('dns:www.example.com', 'dns:evil.org') }),
    ['names.dns.allow evil.org'],
    'san.forbidden',
  ],
  [
    'a name of a kind without rule',
    profileOf(),
    ask({ names: namesOf('ip:10.0.0.1') }),
    ['names.ip.allow 10.0.0.1'],
    'san.forbidden',
  ],
  [
    'a denied name, although allowed',
    profileOf({ names: { dns: { allow: ['*.example.com'], deny: ['admin.example.com'] } } }),
    ask({ names: namesOf('dns:admin.example.com') }),
    ['names.dns.deny admin.example.com'],
    'san.forbidden',
  ],
  [
    'a wildcard that covers a denied name',
    profileOf({ names: { dns: { allow: ['*.example.com'], deny: ['admin.example.com'], wildcards: true } } }),
    ask({ names: namesOf('dns:*.example.com') }),
    ['names.dns.deny *.example.com'],
    'san.forbidden',
  ],
  [
    'a wildcard without the flag',
    profileOf(),
    ask({ names: namesOf('dns:*.example.com') }),
    ['names.dns.wildcard *.example.com'],
    'san.forbidden',
  ],
  [
    'a wildcard wider than the pattern',
    profileOf({ names: { dns: { allow: ['www.example.com'], wildcards: true } } }),
    ask({ names: namesOf('dns:*.example.com') }),
    ['names.dns.allow *.example.com'],
    'san.forbidden',
  ],
  [
    'an underscore without the flag',
    profileOf(),
    ask({ names: namesOf('dns:a_b.example.com') }),
    ['names.dns.underscore a_b.example.com'],
    'san.forbidden',
  ],
  [
    'an xn-- label without the flag',
    profileOf(),
    ask({ names: namesOf('dns:xn--bcher-kva.example.com') }),
    ['names.dns.internationalized xn--bcher-kva.example.com'],
    'san.forbidden',
  ],
  [
    'an xn-- label that mixes scripts',
    profileOf({ names: { dns: { allow: ['*.example.com'], internationalized: true } } }),
    ask({ names: namesOf('dns:xn--pple-43d.example.com') }),
    ['names.dns.script xn--pple-43d.example.com'],
    'san.forbidden',
  ],
  [
    'an xn-- label that mixes scripts, beside one that does not',
    profileOf({ names: { dns: { allow: ['**.example.com'], internationalized: true } } }),
    ask({ names: namesOf('dns:xn--pple-43d.xn--bcher-kva.example.com') }),
    ['names.dns.script xn--pple-43d.xn--bcher-kva.example.com'],
    'san.forbidden',
  ],
  [
    'more names of a kind than its max',
    profileOf({ names: { dns: { allow: ['*.example.com'], max: 1 } } }),
    ask({ names: namesOf('dns:a.example.com', 'dns:b.example.com') }),
    ['names.dns.max 2'],
    'san.count',
  ],
  [
    'more names than the max of all',
    profileOf({ names: { dns: { allow: ['*.example.com'] }, max: 1 } }),
    ask({ names: namesOf('dns:a.example.com', 'dns:b.example.com') }),
    ['names.max 2'],
    'san.count',
  ],
  [
    'a name twice',
    profileOf(),
    ask({ names: namesOf('dns:a.example.com', 'dns:a.example.com') }),
    ['names.unique a.example.com'],
    'san.duplicate',
  ],
  [
    'no name of a required kind',
    profileOf({ names: { dns: { allow: ['*.example.com'] }, ip: { allow: ['::1'] }, require: ['dns'] } }),
    ask({ names: namesOf('ip:::1') }),
    ['names.require '],
    'san.required',
  ],
  ['neither subject nor names', profileOf(), ask({}), ['subject.present '], 'san.required'],
  [
    'a common name that is no name',
    profileOf(),
    ask({ names: www, subject: commonName('evil.org') }),
    ['names.commonName evil.org'],
    'subject.forbidden',
  ],
  [
    'an attribute that the profile does not name',
    profileOf(),
    ask({ names: www, subject: [{ type: 'organization', value: 'Evil' }] }),
    ['subject.others Evil'],
    'subject.forbidden',
  ],
  [
    'another value than the fixed one',
    profileOf({ subject: { others: 'drop', organization: { fixed: 'Good' } } }),
    ask({ names: www, subject: [{ type: 'organization', value: 'Evil' }] }),
    ['subject.organization Evil'],
    'subject.forbidden',
  ],
  [
    'a value that matches no pattern',
    profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: 'system:node:*' } } }),
    ask({ names: www, subject: commonName('system:node:a:b') }),
    ['subject.commonName system:node:a:b'],
    'subject.forbidden',
  ],
  [
    'another attribute that matches no pattern, beside a common name that is a name',
    profileOf({
      subject: { others: 'drop', commonName: { from: 'csr' }, organization: { from: 'csr', match: 'A*' } },
    }),
    ask({ names: www, subject: [...commonName('www.example.com'), { type: 'organization', value: 'Evil' }] }),
    ['subject.organization Evil'],
    'subject.forbidden',
  ],
  [
    'a missing value that has a pattern',
    profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: 'system:node:*' } } }),
    ask({ names: www }),
    ['subject.commonName '],
    'subject.forbidden',
  ],
  [
    'more values than the max',
    profileOf({ subject: { others: 'drop', organization: { from: 'csr', match: '**' } } }),
    ask({
      names: www,
      subject: [
        { type: 'organization', value: 'A' },
        { type: 'organization', value: 'B' },
      ],
    }),
    ['subject.organization 2'],
    'subject.forbidden',
  ],
  [
    'system:masters, although dropped',
    profileOf({ subject: { others: 'drop' } }),
    ask({ names: www, subject: [{ type: 'organization', value: 'system:masters' }] }),
    ['subject.systemMasters system:masters'],
    'subject.forbidden',
  ],
  [
    'system:masters, although a pattern matches it',
    profileOf({ subject: { others: 'drop', organization: { from: 'csr', match: 'system:*' } } }),
    ask({ names: www, subject: [{ type: 'organization', value: 'system:masters' }] }),
    ['subject.systemMasters system:masters'],
    'subject.forbidden',
  ],
  [
    'system:masters, although it is fixed as something else',
    profileOf({
      subject: {
        others: 'drop',
        organization: { from: 'csr', match: 'system:*' },
        organizationalUnit: { fixed: 'system:masters' },
      },
    }),
    ask({ names: www, subject: [{ type: 'organization', value: 'system:masters' }] }),
    ['subject.systemMasters system:masters'],
    'subject.forbidden',
  ],
  [
    'a key usage outside the profile',
    profileOf(),
    ask({ names: www, keyUsage: ['digitalSignature', 'contentCommitment'] }),
    ['keyUsage.allow contentCommitment'],
    'ext.usage',
  ],
  [
    'a CA usage',
    profileOf(),
    ask({ names: www, keyUsage: ['keyCertSign', 'cRLSign'] }),
    ['keyUsage.allow keyCertSign', 'keyUsage.allow cRLSign'],
    'ext.usage',
  ],
  [
    'keyEncipherment with RSA outside the profile',
    profileOf({ keys: [{ rsa: { min: 2048, max: 4096 } }] }),
    ask({ names: www, key: keyOf('rsa'), keyUsage: ['keyEncipherment'] }),
    ['keyUsage.allow keyEncipherment'],
    'ext.usage',
  ],
  ['an empty key usage', profileOf(), ask({ names: www }, { keyUsage: [] }), ['keyUsage.allow '], 'ext.usage'],
  [
    'an extended key usage outside the profile',
    profileOf(),
    ask({ names: www, extendedKeyUsage: ['serverAuth', 'clientAuth'] }),
    ['extendedKeyUsage.allow clientAuth'],
    'ext.usage',
  ],
  [
    'any extended key usage',
    profileOf(),
    ask({ names: www, extendedKeyUsage: ['2.5.29.37.0'] }),
    ['extendedKeyUsage.allow 2.5.29.37.0'],
    'ext.usage',
  ],
  [
    'an empty extended key usage',
    profileOf(),
    ask({ names: www }, { extendedKeyUsage: [] }),
    ['extendedKeyUsage.allow '],
    'ext.usage',
  ],
  [
    'a validity over the max by one second',
    profileOf(),
    ask({ names: www }, { validity: 30 * 86_400 + 1 }),
    ['validity.max 2592001'],
    'validity.forbidden',
  ],
  [
    'a validity of part of a second',
    profileOf(),
    ask({ names: www }, { validity: 3600.5 }),
    ['validity.min 3600.5'],
    'validity.forbidden',
  ],
  [
    'a validity that ends as it begins',
    profileOf(),
    ask({ names: www }, { validity: 1 }),
    ['validity.min 1'],
    'validity.forbidden',
  ],
  ['no validity', profileOf(), ask({ names: www }, { validity: 0 }), ['validity.min 0'], 'validity.forbidden'],
  [
    'a negative validity',
    profileOf(),
    ask({ names: www }, { validity: -3600 }),
    ['validity.min -3600'],
    'validity.forbidden',
  ],
  [
    'a validity that is not a number',
    profileOf(),
    ask({ names: www }, { validity: Number.NaN }),
    ['validity.min NaN', 'validity.max NaN', 'validity.issuer NaN'],
    'validity.forbidden',
  ],
  [
    'a validity that ends before now',
    profileOf({ validity: { default: '24h', max: '30d', backdate: '5m' } }),
    ask({ names: www }, { validity: 300 }),
    ['validity.min 300'],
    'validity.forbidden',
  ],
  [
    'a name not tied to the caller',
    profileOf({ bind: [{ id: 'own', names: 'dns', firstLabel: { of: 'principal' } }] }),
    ask({ names: www }),
    ['bind.own www.example.com'],
    'policy.bind',
  ],
]

for (const [what, profile, request, checks, code] of refusals) {
  t.test(`${what} is refused`, async (t) => {
    const decision = decide(profile, request, context)
    t.same(failed(decision), checks)
    t.match(decision, { allowed: false, code })
    if (decision.allowed) return
    t.same(
      decision.violations.map(({ check, value }) => `${check} ${value}`),
      checks,
    )
    const problem = refusal(decision)
    t.equal(problem.code, code)
    t.equal(problem.options.violations, decision.violations)
    t.equal(problem.message, `${code}: ${decision.violations[0]?.reason}`)
    t.same(problem.options.extra?.checks, decision.checks())
  })
}

t.test('what is as much as it may be is allowed, and every check that looks at it passes it', async (t) => {
  const rsa = profileOf({ keys: [{ rsa: { min: 2048, max: 4096 } }] })
  const counted = profileOf({
    names: { dns: { allow: ['*.example.com'], deny: ['x.example.com'], max: 2 }, max: 2, require: ['dns'] },
    bind: [{ id: 'host', names: 'dns', firstLabel: { of: 'principal' } }],
  })
  const flagged = profileOf({
    names: { dns: { allow: ['**.example.com'], wildcards: true, underscores: true, internationalized: true } },
  })
  const within: readonly (readonly [Profile, Ask, readonly string[], Partial<Context>?])[] = [
    [rsa, ask({ names: www, key: keyOf('rsa', 2048) }), ['key.size']],
    [rsa, ask({ names: www, key: keyOf('rsa', 4096) }), ['key.size']],
    [
      counted,
      ask({ names: namesOf('dns:a.example.com') }),
      ['names.dns.deny', 'names.dns.max', 'names.max', 'names.require', 'bind.host'],
      { principal: 'a' },
    ],
    [profileOf({ names: { dns: { allow: ['**'] }, max: 1 } }), ask({ names: www }), ['names.max']],
    [profileOf({ names: { dns: { allow: ['**'], max: 1 } } }), ask({ names: www }), ['names.dns.max']],
    [flagged, ask({ names: namesOf('dns:*.example.com') }), ['names.dns.wildcard']],
    [flagged, ask({ names: namesOf('dns:a_b.example.com') }), ['names.dns.underscore']],
    [
      flagged,
      ask({ names: namesOf('dns:xn--bcher-kva.example.com') }),
      ['names.dns.internationalized', 'names.dns.script'],
    ],
    [profileOf(), ask({ names: namesOf('dns:a.example.com', 'dns:b.example.com') }), ['names.unique']],
    [profileOf(), ask({ names: www, subject: commonName('www.example.com') }), ['names.commonName']],
    [
      profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: ['a', 'b*'], orName: true } } }),
      ask({ names: www, subject: commonName('www.example.com') }),
      ['subject.commonName'],
    ],
    [
      profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: ['a', 'b*'] } } }),
      ask({ names: www, subject: [...commonName('bob'), { type: 'country', value: 'US' }] }),
      ['subject.commonName', 'subject.others'],
    ],
    [
      profileOf({ subject: { others: 'drop', organization: { fixed: 'A' } } }),
      ask({ names: www }),
      ['subject.organization'],
    ],
    [
      profileOf({ keyUsage: ['digitalSignature'], extendedKeyUsage: ['serverAuth', 'clientAuth'] }),
      ask({ names: www }, { keyUsage: ['digitalSignature', 'keyEncipherment'], extendedKeyUsage: ['clientAuth'] }),
      ['keyUsage.allow', 'extendedKeyUsage.allow'],
    ],
    [profileOf(), ask({ names: www }, { validity: 2 }), ['validity.min']],
    [
      profileOf({ validity: { default: '24h', max: '30d', over: 'shorten' } }),
      ask({ names: www }),
      ['validity.issuer'],
      at('2031-12-31T12:00:00Z'),
    ],
    [
      profileOf({ validity: { default: '1h', max: '1h', over: 'shorten' } }),
      ask({ names: www }, { validity: 3601 }),
      ['validity.max'],
    ],
    [profileOf(), ask({ names: www }), ['grant.names.dns'], { grantRules: { dns: { allow: ['**'] } } }],
  ]
  for (const [profile, request, passed, given] of within) {
    const decision = decide(profile, request, { ...context, ...given })
    t.same(failed(decision), [])
    const saidToPass = decision.checks().filter(({ outcome }) => outcome === 'passed')
    t.same(
      passed.filter((id) => !saidToPass.some(({ check }) => check === id)),
      [],
    )
  }
})

t.test('every check says something of each request, and of what it skips nothing else', (t) => {
  const hasRule = (profile: Profile, id: string): boolean =>
    !attributeTypes.some((type) => id === `subject.${type}`) ||
    profile.subject.some(({ type }) => id === `subject.${type}`)
  for (const [what, profile, request] of refusals) {
    const said = decide(profile, request, context).checks()
    const { length } = (request.names ?? request.csr.names).filter(({ kind }) => kind === 'dns')
    const odd = checks.filter(({ id }) => {
      const outcomes = said.filter(({ check }) => check === id).map(({ outcome }) => outcome)
      if (outcomes.length === 0) return !id.includes('<') && hasRule(profile, id)
      if (outcomes.includes('skipped')) return outcomes.length > 1
      return /^names\.dns\.(allow|deny)$/.test(id) && outcomes.length !== length
    })
    t.same(odd, [], what)
  }
  t.end()
})

t.test('a rule that does not hold refuses with its message: the place of rules that no document has yet', async (t) => {
  const rules = [
    { id: 'holds', message: 'never told', holds: () => true },
    { id: 'fails', message: 'not on a Sunday', holds: () => false },
  ]
  const decision = decide({ ...profileOf(), rules }, ask({ names: www }), context)
  if (decision.allowed) throw new Error('allowed in spite of its rule')
  t.match(decision.violations, [{ check: 'rule.fails', reason: 'not on a Sunday' }])
  t.equal(refusal(decision).code, 'policy.rule')
  t.ok(decision.checks().some(({ check, outcome }) => check === 'rule.holds' && outcome === 'passed'))
})

t.test('one bad name among many refuses the whole request, wherever it stands (incident 31)', async (t) => {
  const good = Array.from({ length: 100 }, (_, i) => `dns:n${i}.example.com`)
  for (const index of good.keys()) {
    const names = namesOf(...good.with(index, 'dns:evil.org'))
    t.same(failed(decide(profileOf(), ask({ names }), context)), ['names.dns.allow evil.org'])
  }
  t.ok(decide(profileOf(), ask({ names: namesOf(...good) }), context).allowed)
})

t.test('every fault of a request is listed, not only the first', async (t) => {
  const request = ask(
    { names: namesOf('dns:evil.org', 'ip:1.2.3.4'), key: keyOf('rsa'), subject: commonName('x') },
    { validity: 1e12 },
  )
  t.same(failed(decide(profileOf(), request, context)), [
    'key.type rsa',
    'names.dns.allow evil.org',
    'names.ip.allow 1.2.3.4',
    'names.commonName x',
    'validity.max 1000000000000',
    'validity.issuer 1000000000000',
  ])
})

t.test('names in the call replace those of the CSR as a whole, and are judged alike', async (t) => {
  const csr = csrOf({ names: namesOf('dns:evil.org') })
  const replaced = decide(profileOf(), { csr, names: www }, context)
  t.same(planOf(replaced).names, www)
  t.match(replaced.notes, [{ field: '/names' }])
  t.same(failed(decide(profileOf(), { csr: csrOf({ names: www }), names: csr.names }, context)), [
    'names.dns.allow evil.org',
  ])
  t.notOk(decide(profileOf(), { csr: csrOf({ names: www }), names: [] }, context).allowed, 'no names replace names too')
  const two = namesOf('dns:www.example.com', 'dns:a.example.com')
  for (const [own, called] of [
    [two, namesOf('dns:www.example.com', 'dns:b.example.com')],
    [two, www],
    [namesOf('email:www.example.com'), www],
  ] as const)
    t.match(decide(profileOf(), { csr: csrOf({ names: own }), names: called }, context).notes, [{ field: '/names' }])
  for (const own of [[], www])
    t.same(decide(profileOf(), { csr: csrOf({ names: own }), names: www }, context).notes, [], 'nothing was replaced')
})

t.test("a grant's rules narrow the profile's and never widen them", async (t) => {
  const request = ask({ names: namesOf('dns:a.example.com', 'dns:b.example.com') })
  const by = (grantRules: Context['grantRules'], of = request) =>
    failed(decide(profileOf(), of, { ...context, ...(grantRules === undefined ? {} : { grantRules }) }))
  t.same(by(undefined), [])
  t.same(by(null), [])
  t.same(by({ dns: { allow: ['*.example.com'] } }), [])
  t.same(by({ dns: { allow: ['a.example.com'] } }), ['grant.names.dns b.example.com'])
  t.same(by({ dns: { allow: ['**'], deny: ['a.**'] } }), ['grant.names.dns a.example.com'])
  t.same(
    by({ ip: { allow: ['0.0.0.0/0'] } }),
    ['grant.names.dns a.example.com', 'grant.names.dns b.example.com'],
    'a kind without rule is refused',
  )
  t.same(by({}).length, 2)
  t.same(
    by({ dns: { allow: ['f*'] } }),
    ['grant.names.dns a.example.com', 'grant.names.dns b.example.com', 'grant.names.commonName '],
    'rules that cannot be read allow nothing',
  )
  const later = { dns: { allow: ['**'] }, organization: { allow: ['x'] } } as NonNullable<Context['grantRules']>
  t.same(by(later).length, 3, 'nor what a later version has written, of which this one knows nothing')
  t.same(by({ dns: { allow: ['**'] } }, ask({ names: namesOf('dns:evil.org') })), ['names.dns.allow evil.org'])
})

t.test("a grant's rule for common names says who its principal may be", async (t) => {
  const nodes = seed('kubelet-client')
  const node = (cn: string) => ask({ subject: commonName(cn), names: [] })
  const by = (rules: Context['grantRules'], of: Ask, profile = nodes) =>
    failed(decide(profile, of, { ...context, grantRules: rules ?? null }))
  const one = { commonName: { allow: ['system:node:worker-1'] } }
  t.same(by(null, node('system:node:worker-2')), [], 'without rules what the profile says holds alone')
  t.same(by({ dns: { allow: ['**'] } }, node('system:node:worker-2')), [], 'and so without one for common names')
  t.same(by(one, node('system:node:worker-1')), [])
  t.same(by(one, node('system:node:worker-2')), ['grant.names.commonName system:node:worker-2'])
  t.same(by(one, node('system:node:worker-1x')), ['grant.names.commonName system:node:worker-1x'])
  t.same(by(one, node('system:node:Worker-1')), ['grant.names.commonName system:node:Worker-1'], 'case and all')
  t.same(by(one, node('admin')), ['subject.commonName admin', 'grant.names.commonName admin'], 'beside the profile')
  const zone = { commonName: { allow: ['system:node:a-*'], deny: ['system:node:a-master*'] } }
  t.same(by(zone, node('system:node:a-1')), [])
  t.same(by(zone, node('system:node:a-master1')), ['grant.names.commonName system:node:a-master1'])
  t.same(by(zone, node('system:node:*')), ['grant.names.commonName system:node:*'], 'no pattern is asked for')
  t.same(
    by({ commonName: { allow: ['a**b**'] } }, node('system:node:worker-1')),
    ['grant.names.commonName system:node:worker-1'],
    'rules that cannot be read allow nobody',
  )

  const subject = { commonName: { from: 'csr', match: '**' }, others: 'refuse' }
  const either = profileOf({ subject, names: { dns: { allow: ['**'] } } })
  const disguised = ask({ subject: commonName('admin'), names: namesOf('dns:admin') })
  t.same(
    by({ ...one, dns: { allow: ['**'] } }, disguised, either),
    ['grant.names.commonName admin'],
    'who it is does not become another by being a DNS name as well',
  )
  t.same(
    by({ ...one, dns: { allow: ['**'] } }, ask({ names: www }), seed('server')),
    [],
    'a certificate need not have one',
  )

  const scheduler = seed('kube-scheduler')
  t.same(by(one, node('system:kube-scheduler'), scheduler), [], 'what the profile fixes nobody chose')
  t.same(by({ commonName: { allow: ['a**b**'] } }, node('system:kube-scheduler'), scheduler), [
    'grant.names.commonName system:kube-scheduler',
  ])
  const plan = planOf(decide(nodes, node('system:node:worker-1'), { ...context, grantRules: one }))
  const later = { ...context, grantRules: { commonName: { allow: ['system:node:worker-2'] } } }
  t.same(recheck(nodes, { ...plan, ca: false }, context), [])
  t.match(recheck(nodes, { ...plan, ca: false }, later), [{ check: 'grant.names.commonName' }])
  const decision = decide(nodes, node('system:node:worker-2'), { ...context, grantRules: one })
  if (decision.allowed) throw new Error('was allowed')
  t.equal(refusal(decision).code, 'subject.forbidden')
  t.match(decision.violations, [{ field: '/subject/commonName', reason: 'matches no pattern of the grant' }])
})

t.test('a rule of the grant for mail addresses is about those in the subject as well', (t) => {
  const emailAddress = { from: 'csr', match: '**' }
  const ofMail = { names: { email: { allow: ['*@**'] } }, extendedKeyUsage: ['clientAuth'] }
  const people = profileOf({ ...ofMail, subject: { emailAddress: { ...emailAddress, max: 2 }, others: 'refuse' } })
  const mail = (...values: readonly string[]) =>
    ask({ subject: values.map((value) => ({ type: 'emailAddress', value })), names: [] })
  const by = (rules: Context['grantRules'], of: Ask, profile = people) =>
    failed(decide(profile, of, { ...context, grantRules: rules ?? null }))
  const staff = { email: { allow: ['*@**.example.com', '*@example.com'], deny: ['ceo@example.com'] } }
  t.same(by(null, mail('x@else.example')), [], 'without rules what the profile says holds alone')
  t.same(by({ dns: { allow: ['**'] } }, mail('x@else.example')), [], 'and so without one for mail addresses')
  t.same(by(staff, mail('jane@example.com')), [])
  t.same(by(staff, mail('jane@Example.COM')), [], 'a host is the same in any case')
  t.same(by(staff, mail('jane@else.example')), ['grant.names.emailAddress jane@else.example'])
  t.same(by(staff, mail('CEO@EXAMPLE.com')), ['grant.names.emailAddress CEO@EXAMPLE.com'], 'a denied one is, too')
  t.same(by(staff, mail('jane@example.com', 'x@else.example')), ['grant.names.emailAddress x@else.example'], 'each')
  for (const none of [
    'jane',
    'x@else.example,jane@example.com',
    'x@else.example <jane@example.com',
    ' ceo@example.com',
  ])
    t.same(by(staff, mail(none)), [`grant.names.emailAddress ${none}`], 'what is no mail address matches nothing')
  const subject = { emailAddress: { fixed: ['ca@else.example'] }, others: 'refuse' }
  const fixed = profileOf({
    ...ofMail,
    subject: { ...subject, organization: { from: 'csr', match: '**', required: false } },
  })
  t.same(by(staff, ask({ names: namesOf('email:jane@example.com') }), fixed), [], 'what the profile fixes nobody chose')
  t.end()
})

t.test('values that were asked for never act as patterns (incident 26)', async (t) => {
  const own = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr', match: 'system:node:**' } },
    names: { dns: { allow: ['**.example.com'], wildcards: true } },
    bind: [{ id: 'own', names: 'dns', firstLabel: { of: 'commonName', after: 'system:node:' } }],
  })
  t.ok(decide(own, ask({ names: www, subject: commonName('system:node:www') }), context).allowed)
  for (const [cn, name] of [
    ['system:node:*', 'www.example.com'],
    ['system:node:*', '*.example.com'],
    ['system:node:**', 'www.example.com'],
    ['system:node:ww', 'www.example.com'],
    ['system:node:www.example', 'www.example.com'],
    ['system:node:WWW', 'www.example.com'],
  ] as const) {
    t.same(failed(decide(own, ask({ names: namesOf(`dns:${name}`), subject: commonName(cn) }), context)), [
      `bind.own ${name}`,
    ])
  }
})

t.test('bindings tie names to the caller and to the origin, and fail where there is nothing to tie to', async (t) => {
  const judge = (
    tie: Readonly<Record<string, unknown>>,
    name: string,
    given: Partial<Context> & Pick<Ask, 'origin'> = {},
  ) => {
    const profile = profileOf({
      subject: { others: 'drop' },
      names: { dns: { allow: ['**'] }, uri: { allow: ['spiffe://td/**'], max: 1 } },
      bind: [{ id: 'own', names: name.slice(0, name.indexOf(':')), ...tie }],
    })
    return decide(profile, ask({ names: namesOf(name) }, given.origin === undefined ? {} : { origin: given.origin }), {
      ...context,
      ...given,
    }).allowed
  }
  const principal = { principal: 'node/worker-1' }
  t.ok(judge({ equals: { of: 'principal', after: 'node/' } }, 'dns:worker-1', principal))
  t.notOk(judge({ equals: { of: 'principal', after: 'node/' } }, 'dns:worker-1.example.com', principal))
  t.ok(judge({ leadingLabels: { of: 'principal', after: 'node/' } }, 'dns:worker-1.example.com', principal))
  t.notOk(judge({ leadingLabels: { of: 'principal', after: 'node/' } }, 'dns:worker-10.example.com', principal))
  t.ok(judge({ firstLabel: { of: 'principal', after: 'node/' } }, 'dns:worker-1.example.com', principal))
  t.ok(judge({ firstLabel: { of: 'principal', after: 'node/' } }, 'dns:worker-1', principal), 'also the only one')
  t.ok(
    judge({ leadingLabels: { of: 'principal' } }, 'dns:ip-10-0-0-1.ec2.internal', {
      principal: 'ip-10-0-0-1.ec2.internal',
    }),
  )
  t.notOk(
    judge({ firstLabel: { of: 'principal' } }, 'dns:ip-10-0-0-1.ec2.internal', {
      principal: 'ip-10-0-0-1.ec2.internal',
    }),
  )
  t.notOk(judge({ equals: { of: 'principal', after: 'pod/' } }, 'dns:worker-1', principal), 'the prefix must be there')
  t.notOk(judge({ equals: { of: 'principal', after: 'pods/' } }, 'dns:worker-1', principal), 'not one as long as it')
  t.notOk(
    judge({ equals: { of: 'principal', after: 'node/worker-1' } }, 'dns:worker-1', principal),
    'and something after it',
  )
  const mayAskForOthers = { grantOrigin: {} }
  const ofUser = { ...mayAskForOthers, origin: { user: 'spiffe://td/a' } }
  t.ok(judge({ equals: { of: 'origin.user' } }, 'uri:spiffe://td/a', ofUser))
  t.notOk(judge({ equals: { of: 'origin.user' } }, 'uri:spiffe://td/b', ofUser))
  t.notOk(judge({ equals: { of: 'origin.uid' } }, 'uri:spiffe://td/a', ofUser), 'nor to what is not told')
  t.notOk(judge({ equals: { of: 'origin.user' } }, 'uri:spiffe://td/a'), 'nor without an origin')
  t.notOk(judge({ equals: { of: 'origin.toString' } }, 'uri:spiffe://td/a', ofUser), 'nor to what every object has')
})

t.test('a binding with nothing to tie says that it is skipped', (t) => {
  const profile = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr' } },
    names: { dns: { allow: ['**'] }, ip: { allow: ['::/0'] } },
    bind: [
      { id: 'host', names: 'dns', when: 'origin', equals: { of: 'origin.user' } },
      { id: 'address', names: 'ip', equals: { of: 'principal' } },
      { id: 'self', names: 'commonName', equals: { of: 'principal' } },
    ],
  })
  const decision = decide(profile, ask({ names: www }), context)
  t.same(
    decision
      .checks()
      .filter(({ check }) => check.startsWith('bind.'))
      .map(({ check, outcome, reason }) => `${check} ${outcome}: ${reason}`),
    [
      'bind.host skipped: there is no origin',
      'bind.address skipped: there are no ip names',
      'bind.self skipped: there is no common name',
    ],
  )
  t.end()
})

t.test('a common name can be tied to the caller', async (t) => {
  const profile = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr', match: 'system:node:*' } },
    bind: [{ id: 'self', names: 'commonName', equals: { of: 'principal' } }],
  })
  const request = ask({ subject: commonName('system:node:a') })
  t.ok(decide(profile, request, { ...context, principal: 'system:node:a' }).allowed)
  t.same(failed(decide(profile, request, { ...context, principal: 'system:node:b' })), ['bind.self system:node:a'])
})

t.test('a common name that is one of the names is written in its normal form', async (t) => {
  const decision = decide(profileOf(), ask({ names: www, subject: commonName('WWW.Example.COM') }), context)
  t.same(planOf(decision).subject, commonName('www.example.com'))
  t.match(decision.notes, [{ field: '/subject/commonName' }])
  t.notOk(
    decide(
      profileOf(),
      ask({ names: namesOf('dns:k.example.com'), subject: commonName('\u212a.example.com') }),
      context,
    ).allowed,
    'a Kelvin sign is no k',
  )
})

t.test('a pattern with a wildcard in the middle holds what stands on both sides, and something between', (t) => {
  const profile = profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: 'ab**bc' } } })
  const allowed = (value: string) => decide(profile, ask({ names: www, subject: commonName(value) }), context).allowed
  for (const good of ['abxbc', 'ab:bc', 'abbcabbc']) t.ok(allowed(good), good)
  for (const bad of ['abc', 'abbc', 'abx', 'abxb', 'xbc', 'abxbcx', 'xabxbc']) t.notOk(allowed(bad), bad)
  t.end()
})

t.test('a common name by orName is one of the patterns or one of the names', async (t) => {
  const profile = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr', match: 'kube-etcd', orName: true } },
  })
  const judge = (subject: Subject) => decide(profile, ask({ names: www, subject }), context).allowed
  const strict = profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: 'kube-etcd' } } })
  t.same(failed(decide(strict, ask({ names: www, subject: commonName('www.example.com') }), context)), [
    'subject.commonName www.example.com',
  ])
  t.ok(judge(commonName('kube-etcd')))
  t.ok(judge(commonName('www.example.com')))
  const root = decide(profile, ask({ names: www, subject: commonName('root') }), context)
  t.match(
    root.checks().find(({ outcome }) => outcome === 'failed'),
    { value: 'root', reason: 'matches none of kube-etcd, and is none of the names' },
    'whoever has another is told of both',
  )
  t.notOk(root.allowed)
  t.notOk(judge([]))
})

t.test('what is no common name is never written as a name', async (t) => {
  const profile = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr' }, organization: { from: 'csr', match: '**' } },
  })
  const subject: Subject = [{ type: 'organization', value: 'WWW.example.com' }, ...commonName('www.example.com')]
  t.same(planOf(decide(profile, ask({ names: www, subject }), context)).subject, subject)
})

t.test('an identifier is not rewritten, even where it resembles a name', async (t) => {
  const profile = profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: '**' } } })
  const fixed = profileOf({ subject: { others: 'drop', commonName: { fixed: 'WWW.example.com' } } })
  const either = profileOf({
    subject: { others: 'drop', commonName: { from: 'csr', match: ['ops', 'WWW.**'], orName: true } },
  })
  for (const by of [profile, fixed, either]) {
    const decision = decide(by, ask({ names: www, subject: commonName('WWW.example.com') }), context)
    t.same(planOf(decision).subject, commonName('WWW.example.com'))
    t.same(decision.notes, [])
  }
})

t.test('a common name that the profile does not take is dropped, be it a name or not', async (t) => {
  const none = profileOf({ subject: { others: 'drop' } })
  for (const value of ['www.example.com', 'evil.org']) {
    const decision = decide(none, ask({ names: www, subject: commonName(value) }), context)
    t.same(planOf(decision).subject, [])
    t.match(decision.notes, [{ field: '/subject/commonName', reason: /^is dropped/ }])
  }
})

t.test(
  'of two common names, which are refused, only the one that is a name is noted to be written as it is',
  async (t) => {
    const judge = (first: string) =>
      decide(profileOf(), ask({ names: www, subject: [...commonName(first), ...commonName('evil.org')] }), context)
    t.same(failed(judge('www.example.com')), ['subject.commonName 2'])
    t.same(judge('www.example.com').notes, [])
    t.same(judge('WWW.example.com').notes, [
      { field: '/subject/commonName', reason: 'is written as the name that it is' },
    ])
  },
)

t.test(
  'nothing is noted of what is refused: neither that it is dropped, nor that it is written as a name',
  async (t) => {
    const matching = profileOf({ subject: { others: 'drop', commonName: { from: 'csr', match: 'ops-*' } } })
    const named = decide(matching, ask({ names: www, subject: commonName('WWW.example.com') }), context)
    t.same([failed(named), named.notes], [['subject.commonName WWW.example.com'], []])
    const strict = profileOf({ subject: { others: 'refuse' } })
    const other = decide(strict, ask({ names: www, subject: commonName('www.example.com') }), context)
    t.same([failed(other), other.notes], [['subject.others www.example.com'], []])
  },
)

t.test('nothing is noted of a common name that is refused for another one that the profile fixes', (t) => {
  const profile = profileOf({ subject: { others: 'drop', commonName: { fixed: 'front-proxy-client' } } })
  const decision = decide(profile, ask({ names: www, subject: commonName('admin') }), context)
  t.same(failed(decision), ['subject.commonName admin'])
  t.same(decision.notes, [])
  t.end()
})

t.test('fixed attributes are there whatever was asked, and others are dropped with a note', async (t) => {
  const profile = profileOf({
    subject: { others: 'drop', commonName: { fixed: 'kube-apiserver' }, organization: { fixed: ['A', 'B'] } },
  })
  const decision = decide(
    profile,
    ask({ names: www, subject: [{ type: 'country', value: 'US' }, ...commonName('kube-apiserver')] }),
    context,
  )
  t.same(planOf(decision).subject, [
    { type: 'organization', value: 'A' },
    { type: 'organization', value: 'B' },
    { type: 'commonName', value: 'kube-apiserver' },
  ])
  t.match(decision.notes, [{ field: '/subject/country' }])
})

t.test('system:masters is for whoever a profile fixes it for', async (t) => {
  const admins = profileOf({ subject: { others: 'refuse', organization: { fixed: 'system:masters' } } })
  for (const subject of [[], [{ type: 'organization', value: 'system:masters' }]] as const)
    t.match(
      decide(admins, ask({ names: www, subject }), context)
        .checks()
        .find(({ check }) => check === 'subject.systemMasters'),
      { outcome: 'passed', value: 'system:masters' },
    )
  const anybody = profileOf({ subject: { others: 'refuse', commonName: { from: 'csr', match: '**' } } })
  t.ok(
    decide(anybody, ask({ names: www, subject: commonName('system:masters') }), context).allowed,
    'a user is no group',
  )
})

t.test('keyEncipherment is dropped and noted with keys that cannot serve it, and kept with RSA', async (t) => {
  const profile = profileOf({
    keys: [{ rsa: { min: 2048, max: 4096 } }, { ec: ['P-256'] }, { ed25519: true }, { mlDsa: ['ML-DSA-65'] }],
    keyUsage: ['digitalSignature', 'keyEncipherment'],
  })
  for (const id of ['ec-p256', 'ed25519', 'ml-dsa-65'] as const) {
    const decision = decide(
      profile,
      ask({ names: www, key: keyOf(id), keyUsage: ['digitalSignature', 'keyEncipherment'] }),
      context,
    )
    t.same(planOf(decision).keyUsage, ['digitalSignature'])
    t.match(decision.notes, [{ field: '/keyUsage', reason: /^keyEncipherment is dropped/ }])
    t.same(decide(profile, ask({ names: www, key: keyOf(id) }), context).notes, [], 'nothing asked, nothing to note')
  }
  t.same(planOf(decide(profile, ask({ names: www, key: keyOf('rsa') }), context)).keyUsage, [
    'digitalSignature',
    'keyEncipherment',
  ])
})

/** RFC 3279 2.3.1, RFC 8813 3, RFC 8410 5, RFC 9881 5. */
const served: readonly (readonly [KeyAlgorithmId, readonly KeyUsage[]])[] = [
  ['rsa', ['digitalSignature', 'contentCommitment', 'keyEncipherment', 'dataEncipherment']],
  ['ec-p256', ['digitalSignature', 'contentCommitment', 'keyAgreement', 'encipherOnly', 'decipherOnly']],
  ['ec-p521', ['digitalSignature', 'contentCommitment', 'keyAgreement', 'encipherOnly', 'decipherOnly']],
  ['ed25519', ['digitalSignature', 'contentCommitment']],
  ['ml-dsa-65', ['digitalSignature', 'contentCommitment']],
]

t.test('a profile with every usage gives each key all that it can serve, and nothing else', async (t) => {
  const all = served.flatMap(([, usages]) => usages).filter((usage, i, list) => list.indexOf(usage) === i)
  const profile = profileOf({
    keys: [{ rsa: { min: 2048, max: 4096 } }, { ec: ['P-256', 'P-521'] }, { ed25519: true }, { mlDsa: ['ML-DSA-65'] }],
    keyUsage: all,
  })
  for (const [id, usages] of served)
    t.same(planOf(decide(profile, ask({ names: www, key: keyOf(id) }), context)).keyUsage, usages, id)
})

t.test("usages within the profile yield the profile's, and the decision says so", async (t) => {
  const profile = profileOf({
    extendedKeyUsage: ['serverAuth', 'clientAuth'],
    keyUsage: ['digitalSignature', 'contentCommitment'],
  })
  const decision = decide(
    profile,
    ask({ names: www, keyUsage: ['digitalSignature'], extendedKeyUsage: ['clientAuth'] }),
    context,
  )
  t.match(planOf(decision), {
    keyUsage: ['digitalSignature', 'contentCommitment'],
    extendedKeyUsage: ['serverAuth', 'clientAuth'],
  })
  t.match(decision.notes, [{ field: '/keyUsage' }, { field: '/extendedKeyUsage' }])
  const { keyUsage, extendedKeyUsage } = planOf(decision)
  t.same(decide(profile, ask({ names: www, keyUsage, extendedKeyUsage }), context).notes, [], 'or has nothing to say')
})

t.test('usages in the call replace those of the CSR', async (t) => {
  const csr = csrOf({ names: www, keyUsage: ['cRLSign'], extendedKeyUsage: ['codeSigning'] })
  t.ok(decide(profileOf(), { csr, keyUsage: ['digitalSignature'], extendedKeyUsage: ['serverAuth'] }, context).allowed)
})

t.test('what the reader dropped is among the notes', async (t) => {
  const dropped = [{ field: '/extensions/authorityKeyIdentifier', reason: 'is never copied' }]
  t.same(decide(profileOf(), ask({ names: www, dropped }), context).notes, dropped)
})

t.test('a validity counts from notBefore with both ends in: its max is met to the second (incident 35)', async (t) => {
  const { notBefore, notAfter } = planOf(decide(profileOf(), ask({ names: www }, { validity: 30 * 86_400 }), context))
  t.equal((notAfter.getTime() - notBefore.getTime()) / 1000 + 1, 30 * 86_400)
})

t.test('times are whole seconds, and a backdated validity is no longer than asked', async (t) => {
  const profile = profileOf({ validity: { default: '1h', max: '30d', backdate: '5m' } })
  const { notBefore, notAfter } = planOf(decide(profile, ask({ names: www }), at('2030-06-01T12:00:00.999Z')))
  t.same(notBefore, new Date('2030-06-01T11:55:00Z'))
  t.same(notAfter, new Date('2030-06-01T12:54:59Z'))
})

t.test('backdating stops at the start of the issuer', async (t) => {
  const profile = profileOf({ validity: { default: '1h', max: '30d', backdate: '5m' } })
  const { notBefore } = planOf(decide(profile, ask({ names: www }), at('2030-01-01T00:01:00Z')))
  t.same(notBefore, context.issuer.notBefore)
  t.ok(decide(profile, ask({ names: www }), at('2030-01-01T00:00:00Z')).allowed, 'from its first second on')
  t.same(failed(decide(profile, ask({ names: www }), at('2029-12-31T23:59:59Z'))), ['validity.issuer 3600'])
})

t.test('a validity over the max is told the max in seconds, and as the profile has it', async (t) => {
  const said = decide(profileOf(), ask({ names: www }, { validity: 30 * 86_400 + 1 }), context)
  t.match(said, {
    violations: [{ field: '/validity', value: '2592001', reason: 'is more than 2592000 s (30d)' }],
  })
})

t.test('a certificate ends with its issuer at the latest, shortened only where the profile says so', async (t) => {
  const now = at('2031-12-31T12:00:00Z')
  t.same(failed(decide(profileOf(), ask({ names: www }), now)), ['validity.issuer 86400'])
  t.match(decide(profileOf(), ask({ names: www }), now), { code: 'validity.issuer' })
  t.match(
    decide(profileOf(), ask({ names: www }), now)
      .checks()
      .find(({ check }) => check === 'validity.issuer'),
    { reason: /^would end after the issuer does, at 20\S+Z$/ },
    'until when may be asked for',
  )
  const shortened = decide(
    profileOf({ validity: { default: '24h', max: '30d', over: 'shorten' } }),
    ask({ names: www }),
    now,
  )
  t.same(planOf(shortened).notAfter, context.issuer.notAfter)
  t.match(shortened.notes, [{ field: '/validity', reason: 'is shortened from 86400 s to 43200 s' }])
  t.ok(decide(profileOf(), ask({ names: www }, { validity: 43_200 }), now).allowed, 'to the last second')
  t.notOk(decide(profileOf(), ask({ names: www }, { validity: 43_201 }), now).allowed)
  for (const after of ['2031-12-31T23:59:58.999Z', '2031-12-31T23:59:59Z', '2032-01-01T00:00:00Z']) {
    const late = decide(
      profileOf({ validity: { default: '24h', max: '30d', over: 'shorten' } }),
      ask({ names: www }),
      at(after),
    )
    t.equal(late.allowed, after.includes(':58'), 'an issuer that ends now, or has ended, issues nothing')
    const said = late.checks().find(({ check }) => check === 'validity.issuer')?.reason
    t.equal(said === 'the issuer is not valid now', after.startsWith('2032'), 'and what has ended is told')
  }
})

t.test('a validity over the max is shortened only where the profile says so', async (t) => {
  const profile = profileOf({ validity: { default: '24h', max: '48h', over: 'shorten' } })
  const decision = decide(profile, ask({ names: www }, { validity: 1e9 }), context)
  t.same(planOf(decision).notAfter, new Date('2030-06-03T11:59:59Z'))
  t.match(decision.notes, [{ field: '/validity' }])
})

t.test('the key of the issuer is never certified', async (t) => {
  const key = keyOf('ec-p256')
  const decision = decide(profileOf(), ask({ names: www, key }), {
    ...context,
    issuer: { ...context.issuer, keySha256: key.sha256.toString('hex') },
  })
  t.match(decision, { allowed: false, code: 'key.blocked' })
})

t.test('a key that has another owner, or that was reported as compromised, is not certified', async (t) => {
  const said = (keyStanding?: KeyStanding) =>
    decide(profileOf(), ask({ names: www }), { ...context, ...(keyStanding !== undefined && { keyStanding }) })
  for (const [check, standing, code] of [
    ['key.principal', 'held', 'key.in_use'],
    ['key.compromised', 'compromised', 'key.blocked'],
  ] as const) {
    const outcome = (of?: KeyStanding) =>
      said(of)
        .checks()
        .find((one) => one.check === check)?.outcome
    t.match(said(standing), { allowed: false, code, violations: [{ check }] })
    t.equal(outcome(standing), 'failed')
    t.equal(outcome('free'), 'passed')
    t.equal(outcome(), 'skipped', 'before the records were looked at')
  }
  t.ok(said().allowed)
  const sharing = { ...context, sharesKey: true }
  const allows = (keyStanding: KeyStanding) =>
    decide(profileOf(), ask({ names: www }), { ...sharing, keyStanding }).allowed
  t.ok(allows('held'), 'a grant may let keys be shared')
  t.notOk(allows('compromised'))
})

t.test('a long value is shown in short', async (t) => {
  const decision = decide(profileOf(), ask({ names: namesOf(`dns:${'a'.repeat(100_000)}`) }), context)
  t.ok(decision.checks().every(({ value, reason }) => value.length <= 257 && reason.length <= 600))
})

t.test('the plan of a decision passes the recheck', async (t) => {
  for (const profile of [
    profileOf(),
    profileOf({ validity: { default: '30d', max: '30d', over: 'shorten', backdate: '5m' } }),
  ]) {
    for (const now of [context, at('2030-01-01T00:00:01Z')]) {
      const plan = planOf(decide(profile, ask({ names: www, subject: commonName('WWW.example.com') }), now))
      t.same(recheck(profile, { ...plan, ca: false }, now), [])
    }
  }
})

t.test('a certificate that is not what the profile makes is caught by the recheck (incident 25)', async (t) => {
  const profile = profileOf({ subject: { others: 'drop', commonName: { from: 'csr' }, organization: { fixed: 'A' } } })
  const plan = planOf(decide(profile, ask({ names: www, subject: commonName('www.example.com') }), context))
  const facts = { ...plan, ca: false }
  const later = (date: Date, seconds: number) => new Date(date.getTime() + seconds * 1000)
  const tampered: readonly (readonly [Partial<typeof facts>, string])[] = [
    [{ ca: true }, 'recheck.ca'],
    [{ names: namesOf('dns:www.example.com', 'ip:10.0.0.1') }, 'names.ip.allow'],
    [{ names: namesOf('dns:evil.org') }, 'names.dns.allow'],
    [{ subject: [...plan.subject, { type: 'organizationalUnit', value: 'x' }] }, 'recheck.subject'],
    [{ subject: commonName('www.example.com') }, 'recheck.subject'],
    [{ subject: [...plan.subject].reverse() }, 'recheck.subject'],
    [{ subject: [{ type: 'organizationalUnit', value: 'A' }, ...plan.subject.slice(1)] }, 'recheck.subject'],
    [{ subject: [...plan.subject.slice(0, -1), ...commonName('WWW.example.com')] }, 'recheck.subject'],
    [{ subject: [{ type: 'organization', value: 'system:masters' }] }, 'subject.systemMasters'],
    [{ key: keyOf('rsa', 2048) }, 'key.type'],
    [{ keyUsage: ['digitalSignature', 'keyCertSign'] }, 'keyUsage.allow'],
    [{ keyUsage: [] }, 'recheck.keyUsage'],
    [{ keyUsage: ['keyEncipherment'] }, 'recheck.keyUsage'],
    [{ keyUsage: ['digitalSignature', 'keyEncipherment'] }, 'recheck.keyUsage'],
    [{ extendedKeyUsage: ['clientAuth'] }, 'extendedKeyUsage.allow'],
    [{ notAfter: later(plan.notAfter, 30 * 86_400) }, 'validity.max'],
    [{ notBefore: later(plan.notBefore, -1) }, 'recheck.validity'],
    [{ notBefore: later(plan.notBefore, 1) }, 'recheck.validity'],
    [{ notAfter: new Date('2040-01-01T00:00:00Z') }, 'validity.issuer'],
    [{ notAfter: new Date(Number.NaN) }, 'recheck.validity'],
  ]
  for (const [change, check] of tampered) {
    const found = recheck(profile, { ...facts, ...change }, context).map((violation) => violation.check)
    t.ok(found.includes(check), `${check} is among ${found.join(', ')}`)
  }
  const { keyUsage: _k, extendedKeyUsage: _e, ...bare } = facts
  t.same(
    recheck(profile, bare, context).map(({ check }) => check),
    ['recheck.keyUsage', 'recheck.extendedKeyUsage'],
  )
})

t.test('nor does the recheck take what lacks the last of what is fixed, or begins at another time', async (t) => {
  const found = (profile: Profile, facts: Parameters<typeof recheck>[1], at: Context) =>
    recheck(profile, facts, at).map(({ check }) => check)
  const numbered = profileOf({ subject: { others: 'drop', commonName: { from: 'csr' }, serialNumber: { fixed: '7' } } })
  const plan = planOf(decide(numbered, ask({ names: www, subject: commonName('www.example.com') }), context))
  t.same(found(numbered, { ...plan, ca: false }, context), [])
  t.same(found(numbered, { ...plan, ca: false, subject: plan.subject.slice(0, 1) }, context), ['recheck.subject'])

  const usages = profileOf({ keyUsage: ['digitalSignature', 'contentCommitment', 'keyEncipherment'] })
  const used = { ...planOf(decide(usages, ask({ names: www }), context)), ca: false }
  t.same(found(usages, used, context), [])
  const other = { ...used, keyUsage: ['digitalSignature', 'keyEncipherment'] } as const
  t.same(found(usages, other, context), ['recheck.keyUsage'], 'one that this key does not serve, in place of another')

  const shortened = profileOf({ validity: { default: '24h', max: '30d', over: 'shorten' } })
  const late = at('2031-12-31T12:00:00Z')
  const short = { ...planOf(decide(shortened, ask({ names: www }), late)), ca: false }
  t.same(found(shortened, short, late), [])
  t.same(found(shortened, { ...short, notBefore: new Date('2031-12-31T11:59:59Z') }, late), ['recheck.validity'])
})
