import fc from 'fast-check'
import t from 'tap'

import { type Ask, type Context, decide, recheck } from '../../src/policy/decide.ts'
import type { Origin, OriginRules } from '../../src/policy/origin.ts'
import { type Profile, type ProfileDocument, parseProfile } from '../../src/policy/profile.ts'
import type { KeyUsage } from '../../src/x509/extensions.ts'
import type { Name } from '../../src/x509/names.ts'
import type { Subject } from '../../src/x509/subject.ts'
import { anyString } from '../helpers/strings.ts'
import { ask, context, csrOf, keyOf, namesOf, profileOf, seed, seeds } from './requests.ts'

/** A small world, so that requests and rules meet often. */
const dnsNames = [
  'c.example.com',
  'd.example.com',
  'e.example.com',
  'a.example.com',
  'b.example.com',
  'x.a.example.com',
  '*.example.com',
  '*.a.example.com',
  'a_b.example.com',
  'localhost',
  'xn--bcher-kva.example.com',
  'evil.org',
]
const dnsPatterns = [
  '*.example.com',
  '**.example.com',
  '**',
  'a.example.com',
  'localhost',
  '*',
  '*.a.example.com',
  'a_b.example.com',
]
const ipNames = ['10.0.0.1', '10.1.0.1', '192.168.0.1', '::1', 'fd00::1']
const ipPatterns = ['10.0.0.0/8', '10.0.0.0/16', '192.168.0.0/16', '::1', 'fd00::/8', '0.0.0.0/0']
const uriNames = ['spiffe://td/ns/a', 'spiffe://td/ns/b', 'spiffe://td/ns/a/b']
const uriPatterns = ['spiffe://td/ns/*', 'spiffe://td/**', 'spiffe://td/ns/a']
const emailNames = ['a@example.com', 'b@x.example.com']
const emailPatterns = ['*@example.com', '*@**.example.com', 'a@example.com']
const identities = ['a.example.com', 'system:node:a', 'system:node:b', 'x', '*']
const identityPatterns = ['system:node:*', '**', 'x', 'a.example.com']
const organizations = ['system:nodes', 'system:masters', 'Example', 'a:b']
const organizationPatterns = ['system:*', '**', '*', 'Example']
const origins: readonly Origin[] = [
  { user: 'a', namespace: 'shop', groups: ['x', 'system:nodes'] },
  { user: 'system:node:a', groups: ['system:nodes'] },
  { namespace: 'other', serviceAccount: 'web' },
]
const namespacePatterns = ['shop', 'other', '*', 'sh*']
const userPatterns = ['a', 'system:node:*', '**']
const groupPatterns = ['x', 'system:*', 'y']
const days = ['1h', '1d', '2d', '30d']

const some = <T>(values: readonly T[], minLength = 1) =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength, maxLength: values.length })
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 })
const often = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 8 })
const rarely = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value })
const kind = (patterns: readonly string[], max = fc.constantFrom(1, 2, 3)) => ({
  allow: some(patterns),
  deny: maybe(some(patterns)),
  max: maybe(max),
})

const documents: fc.Arbitrary<ProfileDocument> = fc
  .record({
    name: fc.constant('p'),
    authority: fc.constant('default'),
    validity: fc.record({
      default: fc.constant('1h'),
      max: fc.constantFrom(...days),
      over: maybe(fc.constantFrom('refuse', 'shorten')),
      backdate: maybe(fc.constantFrom('0s', '5m')),
    }),
    keys: fc.uniqueArray(
      fc.constantFrom(
        { rsa: { min: 2048, max: 4096 } },
        { rsa: { min: 2048, max: 3072 } },
        { ec: ['P-256', 'P-384'] },
        { ec: ['P-256'] },
        { ed25519: true },
      ),
      { minLength: 1, selector: (entry) => Object.keys(entry)[0] },
    ),
    subject: fc.record({
      commonName: rarely(
        fc.oneof(
          fc.constant({ from: 'csr' }),
          fc.record({
            from: fc.constant('csr'),
            match: some(identityPatterns),
            orName: maybe(fc.boolean()),
            required: maybe(fc.boolean()),
          }),
          fc.record({ fixed: fc.constantFrom('x', 'system:node:a') }),
        ),
      ),
      organization: rarely(
        fc.oneof(
          fc.record({
            from: fc.constant('csr'),
            match: some(organizationPatterns),
            max: maybe(fc.constantFrom(1, 2)),
            required: fc.boolean(),
          }),
          fc.record({ fixed: some(organizations) }),
        ),
      ),
      others: fc.constantFrom('refuse', 'drop'),
    }),
    names: fc.record({
      dns: often(
        fc.record({
          ...kind(dnsPatterns),
          wildcards: maybe(fc.boolean()),
          underscores: maybe(fc.boolean()),
          internationalized: maybe(fc.boolean()),
        }),
      ),
      ip: maybe(fc.record(kind(ipPatterns))),
      uri: maybe(fc.record({ ...kind(uriPatterns), max: fc.constant(1) })),
      email: maybe(fc.record(kind(emailPatterns))),
      max: maybe(fc.constantFrom(1, 2, 3)),
      require: rarely(some(['dns', 'ip', 'uri', 'email'])),
    }),
    keyUsage: some(['keyEncipherment', 'contentCommitment'], 0).map((more) => ['digitalSignature', ...more]),
    extendedKeyUsage: some(['serverAuth', 'clientAuth', 'codeSigning']),
    revocation: fc.constantFrom('none', ['crl'], ['crl', 'ocsp']),
    bind: rarely(
      fc.constantFrom(
        [{ id: 'own', names: 'dns', firstLabel: { of: 'principal' } }],
        [{ id: 'cn', names: 'dns', leadingLabels: { of: 'commonName', after: 'system:node:' } }],
        [{ id: 'self', names: 'commonName', equals: { of: 'principal', after: 'p/' } }],
        [{ id: 'user', names: 'commonName', equals: { of: 'origin.user' }, when: 'origin' }],
        [{ id: 'user', names: 'dns', matches: ['{origin.user}.example.com', '{origin.user}'], when: 'origin' }],
      ),
    ),
    origin: rarely(
      fc.record({
        required: maybe(fc.boolean()),
        namespaces: maybe(fc.record({ allow: some(namespacePatterns), deny: maybe(some(namespacePatterns)) })),
        users: maybe(fc.record({ allow: maybe(some(userPatterns)), deny: some(userPatterns) })),
        groups: maybe(fc.record({ require: some(groupPatterns) })),
      }),
    ),
  })
  .map((document) => mend(JSON.parse(JSON.stringify(document))) as unknown as ProfileDocument)

type Json = { [key: string]: Json } & { length?: number }

/** Takes out of a random document what makes no sense, so that most of them are sound. */
function mend(document: Json): Json {
  const rules = document.names as unknown as Record<string, { allow?: string[]; deny?: string[] }>
  const kinds = ['dns', 'ip', 'uri', 'email'].filter((of) => rules[of] !== undefined)
  for (const of of kinds) {
    const rule = rules[of]
    if (rule?.deny === undefined) continue
    rule.deny = rule.deny.filter((text) => !rule.allow?.includes(text)).slice(0, 1)
    if (rule.deny.length === 0) delete rule.deny
  }
  for (const facet of ['namespaces', 'users']) {
    const rule = document.origin?.[facet] as { allow?: string[]; deny?: string[] } | undefined
    if (rule?.deny === undefined) continue
    rule.deny = rule.deny.filter((text) => !rule.allow?.includes(text)).slice(0, 1)
    if (rule.deny.length === 0) delete rule.deny
    if (rule.allow === undefined && rule.deny === undefined) delete document.origin?.[facet]
  }
  const required = ((document.names?.require ?? []) as unknown as string[]).filter((of) => kinds.includes(of))
  if (required.length > 0) set(document.names, 'require', required)
  else delete document.names?.require
  if (!kinds.some((of) => of !== 'email')) set(document, 'extendedKeyUsage', ['clientAuth'])
  const subject = document.subject as unknown as { commonName?: { from?: string; match?: unknown } }
  if (kinds.length === 0 && subject.commonName?.from && !subject.commonName.match) delete subject.commonName
  const [binding] = (document.bind ?? []) as unknown as { names: string }[]
  const named = subject.commonName === undefined ? kinds : [...kinds, 'commonName']
  if (binding !== undefined && !(named.includes(binding.names) && named.includes('commonName'))) delete document.bind
  return document
}

const usages: readonly KeyUsage[] = [
  'digitalSignature',
  'keyEncipherment',
  'contentCommitment',
  'keyAgreement',
  'keyCertSign',
]
const names: fc.Arbitrary<readonly Name[]> = fc
  .oneof(
    fc.uniqueArray(fc.constantFrom('dns:c.example.com', 'dns:d.example.com'), { minLength: 1 }),
    fc.uniqueArray(
      fc.constantFrom(
        ...dnsNames.map((n) => `dns:${n}`),
        ...ipNames.map((n) => `ip:${n}`),
        ...uriNames.map((n) => `uri:${n}`),
        ...emailNames.map((n) => `email:${n}`),
      ),
      { maxLength: 2 },
    ),
  )
  .map((texts) => namesOf(...texts))
const subjects: fc.Arbitrary<Subject> = fc
  .tuple(
    maybe(fc.constantFrom(...identities)),
    fc.uniqueArray(fc.constantFrom(...organizations), { maxLength: 2 }),
    maybe(fc.constantFrom('Unit')),
  )
  .map(([cn, os, unit]) => [
    ...os.map((value) => ({ type: 'organization', value }) as const),
    ...(unit === undefined ? [] : [{ type: 'organizationalUnit', value: unit } as const]),
    ...(cn === undefined ? [] : [{ type: 'commonName', value: cn } as const]),
  ])

const requests: fc.Arbitrary<Ask> = fc
  .record({
    subject: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: subjects }),
    names,
    key: fc.constantFrom(
      keyOf('ec-p256'),
      keyOf('ec-p256'),
      keyOf('rsa', 2048),
      keyOf('rsa', 2048),
      keyOf('rsa', 4096),
      keyOf('ec-p256'),
      keyOf('ec-p384'),
      keyOf('ed25519'),
      keyOf('ml-dsa-44'),
    ),
    keyUsage: rarely(fc.uniqueArray(fc.constantFrom(...usages), { maxLength: 2 })),
    extendedKeyUsage: rarely(fc.uniqueArray(fc.constantFrom('serverAuth', 'clientAuth'), { maxLength: 2 })),
    replaced: rarely(names),
    origin: rarely(fc.constantFrom(...origins)),
    validity: rarely(fc.constantFrom(1, 300, 301, 3600, 86_400, 86_401, 2_592_000, 2_592_001, 1e8, 0.5, Number.NaN)),
  })
  .map(({ subject, key, names: own, keyUsage, extendedKeyUsage, replaced, validity, origin }) =>
    ask(
      { subject, key, names: own, ...(keyUsage && { keyUsage }), ...(extendedKeyUsage && { extendedKeyUsage }) },
      {
        ...(replaced && { names: replaced }),
        ...(validity !== undefined && { validity }),
        ...(origin && { origin }),
      },
    ),
  )

const grants = rarely(
  fc
    .record({
      dns: maybe(fc.record({ allow: some(dnsPatterns), deny: some(dnsPatterns, 0) })),
      ip: maybe(fc.record({ allow: some(ipPatterns), deny: some(ipPatterns, 0) })),
      commonName: maybe(fc.record({ allow: some(identityPatterns), deny: some(identityPatterns, 0) })),
    })
    .map((rules) => JSON.parse(JSON.stringify(rules)) as NonNullable<Context['grantRules']>),
)
const contexts: fc.Arbitrary<Context> = fc
  .record({
    now: fc.constantFrom(
      '2030-03-01T00:00:00Z',
      '2030-04-01T00:00:00Z',
      '2030-05-01T00:00:00Z',
      '2030-07-01T00:00:00Z',
      '2029-12-31T00:00:00Z',
      '2030-01-01T00:02:00Z',
      '2030-06-01T12:00:00.5Z',
      '2031-12-31T23:00:00Z',
      '2032-01-01T00:00:00Z',
    ),
    principal: fc.constantFrom('a', 'p/x', 'p/system:node:a', '*'),
    grantRules: grants,
    grantOrigin: often(
      fc.constantFrom<OriginRules>({}, { namespaces: { allow: ['shop', 'other'] } }, { required: true }),
    ),
  })
  .map(({ now, principal, grantRules, grantOrigin }) => ({
    ...context,
    now: new Date(now),
    principal,
    grantRules: grantRules ?? null,
    ...(grantOrigin && { grantOrigin }),
  }))

/** Every way to tighten one setting of a document; each yields a document, or nothing where it does not apply. */
const tightenings: readonly ((document: Json, pick: number) => void)[] = [
  ...(['dns', 'ip', 'uri', 'email'] as const).flatMap((of) => [
    (d: Json, pick: number) => drop(d.names?.[of], 'allow', pick),
    (d: Json) => void delete d.names?.[of],
    (d: Json, pick: number) => add(d.names?.[of], 'deny', pool[of][pick % pool[of].length]),
    // A profile has no room for two SPIFFE IDs to begin with.
    ...(of === 'uri' ? [] : [(d: Json) => set(d.names?.[of], 'max', 1)]),
  ]),
  ...['wildcards', 'underscores', 'internationalized'].map((flag) => (d: Json) => set(d.names?.dns, flag, false)),
  (d) => set(d.names, 'max', 1),
  (d, pick) => drop(d.names, 'require', pick),
  (d, pick) => d.names?.require === undefined && set(d.names, 'require', [['dns', 'ip', 'uri', 'email'][pick % 4]]),
  (d, pick) => drop(d, 'keys', pick),
  (d) =>
    set(
      d,
      'keys',
      (d.keys as unknown as Json[]).map((key) =>
        key.rsa ? { rsa: { ...key.rsa, min: key.rsa.max } } : key.ec ? { ec: ['P-256'] } : key,
      ),
    ),
  (d, pick) => drop(d, 'keyUsage', pick),
  (d, pick) => drop(d, 'extendedKeyUsage', pick),
  (d) => set(d.validity, 'max', '1h'),
  (d) => set(d.validity, 'over', 'refuse'),
  (d) => set(d.subject, 'others', 'refuse'),
  (d) => {
    // Only where the attribute then counts among the refused others, and was not required.
    const { others, organization } = d.subject ?? {}
    if (others === ('refuse' as unknown) && organization?.required === (false as unknown))
      delete d.subject?.organization
  },
  (d, pick) => drop(d.subject?.organization, 'match', pick),
  (d) => d.subject?.organization?.from !== undefined && set(d.subject.organization, 'max', 1),
  (d) => d.subject?.organization?.from !== undefined && set(d.subject.organization, 'required', true),
  (d, pick) => drop(d.subject?.commonName, 'match', pick),
  (d) => d.subject?.commonName?.from !== undefined && set(d.subject.commonName, 'required', true),
  (d) => d.subject?.commonName?.match !== undefined && set(d.subject.commonName, 'orName', false),
  (d) => set(d.origin, 'required', true),
  (d) => d.origin === undefined && set(d, 'origin', { required: true }),
  (d, pick) => drop(d.origin?.namespaces, 'allow', pick),
  (d, pick) => add(d.origin?.namespaces, 'deny', namespacePatterns[pick % namespacePatterns.length]),
  (d, pick) => drop(d.origin?.users, 'allow', pick),
  (d, pick) => drop(d.origin?.groups, 'require', pick),
  (d, pick) => add(d.origin?.groups, 'deny', groupPatterns[pick % groupPatterns.length]),
  (d) => delete (d.bind as unknown as Json[] | undefined)?.[0]?.when,
  (d) => add(d, 'bind', { id: 'more', names: 'dns', equals: { of: 'principal' } }),
]
const pool = { dns: dnsPatterns, ip: ipPatterns, uri: uriPatterns, email: emailPatterns }

const drop = (at: Json | undefined, key: string, pick: number): void => {
  const list: unknown = at?.[key]
  if (Array.isArray(list)) list.splice(pick % list.length, 1)
}
const add = (at: Json | undefined, key: string, value: unknown): void => {
  if (at === undefined) return
  const list: unknown = at[key]
  set(at, key, [...(Array.isArray(list) ? list : []), value])
}
const set = (at: Json | undefined, key: string, value: unknown): void => {
  if (at !== undefined) (at as Record<string, unknown>)[key] = value
}

const tryParse = (document: unknown) => {
  try {
    return parseProfile(document, { version: 1 })
  } catch {
    return undefined
  }
}

t.test('tightening any setting of a profile never widens what it accepts (incident 24)', async (t) => {
  const tried = new Array<number>(tightenings.length).fill(0)
  let accepted = 0
  /** Does the tighter document accept nothing that the looser one refuses, and grant nothing more? */
  const isNarrower = (loose: Profile, changed: Json, cases: readonly (readonly [Ask, Context])[]): boolean => {
    const tight = tryParse(changed)
    return (
      tight === undefined ||
      cases.every(([request, at]) => {
        const narrow = decide(tight, request, at)
        if (!narrow.allowed) return true
        accepted++
        const wide = decide(loose, request, at)
        return (
          wide.allowed &&
          narrow.plan.notAfter <= wide.plan.notAfter &&
          narrow.plan.keyUsage.every((usage) => wide.plan.keyUsage.includes(usage)) &&
          narrow.plan.extendedKeyUsage.every((usage) => wide.plan.extendedKeyUsage.includes(usage))
        )
      })
    )
  }
  const cases = fc.array(fc.tuple(requests, contexts), { minLength: 30, maxLength: 30 })
  fc.assert(
    fc.property(documents, fc.nat(9), cases, (document, pick, asked) => {
      const loose = tryParse(document)
      if (loose === undefined) return true
      return tightenings.every((tighten, index) => {
        const changed = structuredClone(document) as unknown as Json
        tighten(changed, pick)
        if (JSON.stringify(changed) === JSON.stringify(document)) return true
        tried[index] = (tried[index] ?? 0) + 1
        return isNarrower(loose, changed, asked)
      })
    }),
    { seed: 25243, numRuns: 250 },
  )
  t.ok(accepted > 2000, `${accepted} requests were accepted by a tighter profile`)
  for (const [index, count] of tried.entries()) t.ok(count > 5, `tightening ${index} was tried ${count} times`)
})

t.test('narrowing a grant never widens what it accepts', async (t) => {
  fc.assert(
    fc.property(documents, requests, contexts, fc.constantFrom('dns', 'ip'), (document, request, at, of) => {
      const profile = tryParse(document)
      if (profile === undefined || at.grantRules === null || at.grantRules === undefined) return true
      const { [of]: rule, ...rest } = at.grantRules
      const narrower = [
        rest,
        {
          ...at.grantRules,
          ...(rule && {
            [of]: { ...rule, deny: [...(rule.deny ?? []), of === 'dns' ? '**.example.com' : '10.0.0.0/8'] },
          }),
        },
      ]
      const loose = decide(profile, request, at).allowed
      const open = decide(profile, request, { ...at, grantRules: null }).allowed
      return (
        (!loose || open) &&
        narrower.every((grantRules) => !decide(profile, request, { ...at, grantRules }).allowed || loose)
      )
    }),
    { seed: 5, numRuns: 3000 },
  )
  t.pass('held')
})

t.test(
  'every value in a plan that came from the request was passed by a named check, and the plan passes the recheck',
  async (t) => {
    let plans = 0
    fc.assert(
      fc.property(
        documents,
        fc.array(fc.tuple(requests, contexts), { minLength: 20, maxLength: 20 }),
        (document, cases) => {
          const profile = tryParse(document)
          if (profile === undefined) return true
          return cases.every(([request, at]) => {
            const decision = decide(profile, request, at)
            if (!decision.allowed) return decision.violations.length > 0
            plans++
            const { plan, checks } = decision
            const passed = (check: string, value: string) =>
              checks().some((result) => result.check === check && result.outcome === 'passed' && result.value === value)
            const granted =
              at.grantRules === null || plan.names.every(({ kind: of, value }) => passed(`grant.names.${of}`, value))
            return (
              granted &&
              plan.names.every(({ kind: of, value }) => passed(`names.${of}.allow`, value)) &&
              plan.subject.every(({ type, value }) => {
                const rule = profile.subject.find((candidate) => candidate.type === type)
                if (rule?.fixed?.includes(value)) return true
                return passed(`subject.${type}`, value) || (type === 'commonName' && passed('names.commonName', value))
              }) &&
              passed('key.type', plan.key.algorithm.id) &&
              (request.validity === undefined || passed('validity.max', String(request.validity))) &&
              !checks().some(({ outcome }) => outcome === 'failed') &&
              plan.keyUsage.every((usage) => profile.keyUsage.has(usage)) &&
              (plan.notAfter.getTime() - plan.notBefore.getTime()) / 1000 + 1 <= profile.validity.max &&
              plan.notAfter <= at.issuer.notAfter &&
              plan.notBefore >= at.issuer.notBefore &&
              recheck(profile, { ...plan, ca: false }, at).length === 0
            )
          })
        },
      ),
      { seed: 8, numRuns: 2000 },
    )
    t.ok(plans > 1000, `${plans} plans`)
  },
)

t.test('taking sharedKeys from a grant never widens what it accepts', async (t) => {
  let taken = 0
  fc.assert(
    fc.property(
      documents,
      requests,
      contexts,
      fc.constantFrom('free', 'held', 'compromised'),
      (document, request, at, keyStanding) => {
        const profile = tryParse(document)
        if (profile === undefined) return true
        const allows = (sharesKey: boolean) => decide(profile, request, { ...at, keyStanding, sharesKey }).allowed
        if (allows(true) && !allows(false)) taken++
        return allows(true) || !allows(false)
      },
    ),
    { seed: 5, numRuns: 3000 },
  )
  t.ok(taken > 20, `${taken} were taken away`)
})

t.test('narrowing on whose behalf a grant is for never widens what it accepts', async (t) => {
  let narrowed = 0
  fc.assert(
    fc.property(documents, requests, contexts, fc.constantFrom(...origins), (document, request, at, origin) => {
      const profile = tryParse(document)
      if (profile === undefined) return true
      const { grantOrigin: rules, ...none } = at
      const asked = { ...request, origin }
      const loose = decide(profile, asked, at).allowed
      const narrower: readonly Context[] = [
        none,
        { ...at, grantOrigin: { ...rules, namespaces: { ...rules?.namespaces, deny: ['sh*'] } } },
        { ...at, grantOrigin: { ...rules, users: { allow: ['system:node:*'] } } },
        { ...at, grantOrigin: { ...rules, groups: { require: ['x'] } } },
      ]
      if (rules === undefined) return !loose
      return narrower.every((context) => {
        const tight = decide(profile, asked, context).allowed
        if (loose && !tight) narrowed++
        return !tight || loose
      })
    }),
    { seed: 7, numRuns: 3000 },
  )
  t.ok(narrowed > 20, `${narrowed} were narrowed`)
})

t.test('who may be whom is what the rules of a grant for common names say, beside the profile', async (t) => {
  const open = { subject: { commonName: { from: 'csr', match: '**' }, others: 'refuse' } }
  const profiles = [
    seed('kubelet-client'),
    seed('kube-scheduler'),
    profileOf({ ...open, names: { dns: { allow: ['**'], wildcards: true } } }),
    profileOf({ names: { dns: { allow: ['**'] } } }),
  ]
  const rules = fc.record({ allow: some(identityPatterns), deny: some(identityPatterns, 0) })
  /** As it is documented, by the platform's own matcher. */
  const fits = (patterns: readonly string[], value: string): boolean =>
    patterns.some((pattern) => {
      const [before = '', after] = pattern.split(/\*\*?/).map((part) => part.replaceAll('.', '[.]'))
      const wild = pattern.includes('**') ? '.+' : '[^:]+'
      return new RegExp(`^${before}${after === undefined ? '' : wild + after}$`, 's').test(value)
    })
  const counts = { passed: 0, refused: 0, narrowed: 0, none: 0 }
  fc.assert(
    fc.property(fc.constantFrom(...profiles), subjects, names, rules, some(identityPatterns), (...drawn) => {
      const [profile, subject, asked, rule, more] = drawn
      const request = ask({ subject: subject.filter(({ type }) => type === 'commonName'), names: asked })
      const under = (commonName: typeof rule) =>
        decide(profile, request, { ...context, grantRules: { dns: { allow: ['**'] }, commonName } })
      const loose = decide(profile, request, { ...context, grantRules: { dns: { allow: ['**'] } } })
      const tight = under(rule)
      const tighter = under({ ...rule, deny: [...rule.deny, ...more] })
      if (!loose.allowed) return !tight.allowed && !tighter.allowed
      if (tight.allowed && !tighter.allowed) counts.narrowed++
      const value = loose.plan.subject.find(({ type }) => type === 'commonName')?.value
      const isFixed = profile.subject.some(({ type, fixed }) => type === 'commonName' && fixed !== undefined)
      const isFree = value === undefined || isFixed
      const isGranted = isFree || (fits(rule.allow, value) && !fits(rule.deny, value))
      counts[isFree ? 'none' : isGranted ? 'passed' : 'refused']++
      const check = tight.checks().find((result) => result.check === 'grant.names.commonName')
      const outcome = isFree ? 'skipped' : isGranted ? 'passed' : 'failed'
      return tight.allowed === isGranted && check?.outcome === outcome && (tight.allowed || !tighter.allowed)
    }),
    { seed: 18, numRuns: 6000 },
  )
  for (const [what, count] of Object.entries(counts)) t.ok(count > 50, `${count} were ${what}`)
})

t.test('no profile that does not fix it yields system:masters, whatever is asked', async (t) => {
  fc.assert(
    fc.property(documents, requests, contexts, (document, request, at) => {
      const profile = tryParse(document)
      if (profile === undefined) return true
      const decision = decide(profile, request, at)
      const fixed = profile.subject.some(({ fixed: values }) => values?.includes('system:masters'))
      return !decision.allowed || fixed || !JSON.stringify(decision.plan.subject).includes('system:masters')
    }),
    { seed: 22, numRuns: 3000 },
  )
  t.pass('held')
})

t.test('decide and recheck never throw, whatever the texts are', async (t) => {
  const text = fc.oneof(anyString(), fc.constantFrom('*', '*.', '.', '::', '@', '://', '*.*', '__proto__', '\ud800'))
  const name = fc.record({
    kind: fc.constantFrom('dns' as const, 'ip' as const, 'uri' as const, 'email' as const),
    value: text,
  })
  const attribute = fc.record({
    type: fc.constantFrom('commonName' as const, 'organization' as const, 'userId' as const),
    value: text,
  })
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds.values()),
      fc.array(name, { maxLength: 5 }),
      fc.array(attribute, { maxLength: 5 }),
      fc.double(),
      (profile, hostile, subject, validity) => {
        const csr = csrOf({ names: hostile, subject, extendedKeyUsage: subject.map(({ value }) => value) })
        const decision = decide(
          profile,
          { csr, validity, origin: { namespace: hostile[0]?.value ?? '' } },
          { ...context, principal: hostile[0]?.value ?? '' },
        )
        recheck(
          profile,
          {
            subject,
            names: hostile,
            key: csr.key,
            notBefore: new Date(validity),
            notAfter: new Date(Number.NaN),
            ca: false,
          },
          context,
        )
        return typeof decision.allowed === 'boolean'
      },
    ),
    { seed: 1, numRuns: 5000 },
  )
  t.pass('held')
})
