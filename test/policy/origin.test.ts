import t from 'tap'

import { originKeys, originText, readStoredOrigin } from '../../src/db/origins.ts'
import { isProblem } from '../../src/errors.ts'
import { type Ask, type Context, type Decision, decide, recheck } from '../../src/policy/decide.ts'
import { factOf, type Origin, readOrigin } from '../../src/policy/origin.ts'
import { parseOriginRules } from '../../src/policy/origin-rules.ts'
import { parseProfile } from '../../src/policy/profile.ts'
import { ask, baseDocument, commonName, context, namesOf, profileOf, seed } from './requests.ts'

const controller: Context = { ...context, grantOrigin: {} }
const failed = ({ checks }: Decision): readonly string[] =>
  checks()
    .filter(({ outcome }) => outcome === 'failed')
    .map(({ check, value }) => `${check} ${value}`)
const saidOf = ({ checks }: Decision, id: string) => checks().filter(({ check }) => check === id)

/** What cannot be, as `place: reason`; none where it can. */
const faultsOf = (origin: unknown): readonly string[] => {
  try {
    readOrigin(origin as Origin)
    return []
  } catch (error) {
    if (!isProblem(error, 'origin.malformed')) throw error
    return (error.options.violations ?? []).map(({ field, reason }) => `${field}: ${reason}`)
  }
}

const certificateRequest: Origin = {
  user: 'system:serviceaccount:cert-manager:cert-manager',
  uid: '4b3cf2c4-6d63-4a4b-8f36-2f2d1f0a1b11',
  groups: ['system:serviceaccounts', 'system:serviceaccounts:cert-manager', 'system:authenticated'],
  extra: { 'authentication.kubernetes.io/pod-name': ['cert-manager-7d'], 'example.com/empty': [''] },
  namespace: 'shop',
  object: { apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', name: 'web-1', uid: 'ad5e' },
}
const signingRequest: Origin = {
  user: 'system:node:worker-1',
  groups: ['system:nodes', 'system:authenticated'],
  object: { apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', name: 'csr-x7k' },
}
const podRequest: Origin = {
  namespace: 'shop',
  serviceAccount: 'web',
  serviceAccountUid: 'ab',
  pod: 'web-6f9',
  podUid: 'cd',
  node: 'worker-1.example',
  nodeUid: 'ef',
  object: { apiVersion: 'certificates.k8s.io/v1beta1', kind: 'PodCertificateRequest', name: 'p-1', uid: '12' },
}

t.test('what controllers of Kubernetes have to say is taken as it is', async (t) => {
  for (const origin of [certificateRequest, signingRequest, podRequest, { user: 'jürgen@example.com 🦊' }]) {
    t.equal(readOrigin(origin), origin)
    t.same(readStoredOrigin(originText(origin)), origin, 'and is read again as it was kept')
  }
  t.equal(readStoredOrigin(null), null)
  t.same(originKeys(certificateRequest), {
    origin_namespace: 'shop',
    origin_user: certificateRequest.user,
    origin_object: 'ad5e',
  })
  t.same(originKeys({}), { origin_namespace: null, origin_user: null, origin_object: null })
})

const many = (count: number, of: (i: number) => string) => Array.from({ length: count }, (_, i) => of(i))

const hostile: readonly (readonly [what: string, origin: unknown, fault: string | RegExp])[] = [
  ['nobody', { namespace: 'shop' }, ': names nobody: it needs a user or a serviceAccount'],
  ['a NUL', { user: 'a\0b' }, '/user: has control characters, or half of a character'],
  ['a line break', { user: 'alice\nbob' }, '/user: has control characters, or half of a character'],
  ['a C1 control', { user: 'alice\u0085' }, '/user: has control characters, or half of a character'],
  ['a separator of lines', { user: 'alice\u2028' }, '/user: has control characters, or half of a character'],
  ['half of a character', { user: 'alice\ud83e' }, '/user: has control characters, or half of a character'],
  ['a control in a group', { user: 'a', groups: ['b', 'c\u007f'] }, '/groups/1: has control characters'],
  ['a control in an extra', { user: 'a', extra: { k: ['ok', '\u001b[2J'] } }, '/extra/k/1: has control characters'],
  [
    'a control in an object',
    { user: 'a', object: { ...certificateRequest.object, name: 'a\tb' } },
    '/object/name: has',
  ],
  ['a group twice', { user: 'a', groups: ['b', 'c', 'b'] }, '/groups/2: occurs twice'],
  ['a name with a space', { user: 'a', extra: { 'a b': ['c'] } }, '/extra/a b: is no name'],
  ['an empty name', { user: 'a', extra: { '': ['c'] } }, '/extra/: is no name'],
  ['a long name', { user: 'a', extra: { ['x'.repeat(257)]: [] } }, /: is no name: 1 to 256/],
  ['a namespace of another form', { user: 'a', namespace: 'Shop' }, '/namespace: is no DNS label in lower case'],
  ['a namespace with a dot', { user: 'a', namespace: 'a.b' }, '/namespace: is no DNS label in lower case'],
  ['a namespace that is a pattern', { user: 'a', namespace: '*' }, '/namespace: is no DNS label in lower case'],
  ['a service account without namespace', { serviceAccount: 'web' }, '/serviceAccount: needs a namespace'],
  ['a service account that is a path', { serviceAccount: 'a/../b', namespace: 'x' }, '/serviceAccount: is no DNS name'],
  ['a pod without namespace', { user: 'a', pod: 'web' }, '/pod: needs a namespace'],
  ['a UID of nothing', { user: 'a', podUid: 'x' }, '/podUid: needs a pod'],
  ['a UID of no service account', { user: 'a', serviceAccountUid: 'x' }, '/serviceAccountUid: needs a serviceAccount'],
  ['a UID of no node', { user: 'a', nodeUid: 'x' }, '/nodeUid: needs a node'],
  ['a UID of nobody', { serviceAccount: 'a', namespace: 'b', uid: 'x' }, '/uid: needs a user'],
  ['a node of another form', { user: 'a', node: 'a..b' }, '/node: is no DNS name in lower case'],
  ['no version', { user: 'a', object: { ...certificateRequest.object, apiVersion: 'x' } }, '/object/apiVersion: is no'],
  ['no kind', { user: 'a', object: { ...certificateRequest.object, kind: 'a b' } }, '/object/kind: is no kind'],
  [
    'very much',
    { user: 'a', extra: Object.fromEntries(many(20, (i) => `k${i}`).map((name) => [name, ['x'.repeat(500)]])) },
    /: takes \d+ octets of JSON; at most 8192 are allowed/,
  ],
]

for (const [what, origin, fault] of hostile)
  t.test(`an origin with ${what} is malformed`, async (t) => {
    const found = faultsOf(origin).map((text) => text.slice('/onBehalfOf'.length))
    t.ok(
      found.some((text) => (typeof fault === 'string' ? text.startsWith(fault) : fault.test(text))),
      found.join(' · '),
    )
  })

t.test('no more than twenty faults are told', async (t) => {
  t.equal(faultsOf({ user: 'a', groups: many(200, () => 'same') }).length, 20)
})

t.test('exactly as much as is allowed is taken', async (t) => {
  const filled = (length: number) => ({
    user: 'a',
    extra: { k: many(8, () => 'x'.repeat(1000)), rest: ['y'.repeat(length)] },
  })
  const room = 8_192 - JSON.stringify(filled(0)).length
  t.same(faultsOf(filled(room)), [])
  t.equal(faultsOf(filled(room + 1)).length, 1)
})

t.test('facts are its own texts, and nothing that every object has', async (t) => {
  t.equal(factOf(podRequest, 'node'), 'worker-1.example')
  for (const fact of ['groups', 'object', 'extra', 'toString', '__proto__', 'constructor', 'nothing'])
    t.equal(factOf(certificateRequest, fact), undefined, fact)
  t.equal(factOf(undefined, 'user'), undefined)
})

// Grants and profiles -----------------------------------------------------------------------------------------------------

const request = (origin?: Origin): Ask => ask({ names: namesOf('dns:a.example.com') }, origin ? { origin } : {})
const profile = profileOf()

t.test('without a right to nobody asks on behalf of others, and it is a refusal with all of its checks', async (t) => {
  const decision = decide(profile, request(certificateRequest), context)
  t.same(failed(decision), [`grant.origin ${certificateRequest.user}`])
  t.match(decision, { allowed: false, code: 'origin.forbidden' })
  t.ok(decision.checks().length > 30)
})

t.test('rules that cannot be read let nobody ask', async (t) => {
  const broken = { ...context, grantOrigin: { users: { allow: ['a*b*'] } } }
  t.match(decide(profile, request(certificateRequest), broken), { allowed: false, code: 'origin.forbidden' })
})

t.test('a grant without rules is for any, and the plan says of whom', async (t) => {
  const decision = decide(profile, request(certificateRequest), controller)
  t.match(decision, { allowed: true, plan: { origin: certificateRequest } })
  t.equal(saidOf(decision, 'grant.origin')[0]?.outcome, 'passed')
  const own = decide(profile, request(), controller)
  t.ok(own.allowed && !('origin' in own.plan))
  for (const id of ['grant.origin', 'origin.required', 'origin.namespaces', 'origin.users', 'origin.groups'])
    t.match(saidOf(own, id), [{ outcome: 'skipped' }], id)
})

/** Rules, an origin, and which facets fail; the same for a grant and for a profile. */
const judged: readonly (readonly [rules: object, origin: Origin, fails: readonly string[]])[] = [
  [{ namespaces: { allow: ['shop'] } }, certificateRequest, []],
  [{ namespaces: { allow: ['sh*'] } }, certificateRequest, []],
  [{ namespaces: { allow: ['shop', 'x'], deny: ['shop-*'] } }, certificateRequest, []],
  [{ namespaces: { allow: ['shops', 'hop', 'shop*'] } }, certificateRequest, ['namespaces']],
  [{ namespaces: { allow: ['**'], deny: ['shop'] } }, certificateRequest, ['namespaces']],
  [{ namespaces: { deny: ['kube-*'] } }, certificateRequest, []],
  [{ namespaces: { deny: ['sh*'] } }, certificateRequest, ['namespaces']],
  [{ namespaces: { allow: ['shop'] } }, signingRequest, ['namespaces']],
  [{ namespaces: { deny: ['shop'] } }, signingRequest, []],
  [{ users: { allow: ['system:serviceaccount:cert-manager:*'] } }, certificateRequest, []],
  [{ users: { allow: ['system:*'] } }, certificateRequest, ['users']],
  [{ users: { allow: ['system:**'] } }, certificateRequest, []],
  [{ users: { allow: ['system:node:*'] } }, certificateRequest, ['users']],
  [{ users: { allow: ['**'] } }, podRequest, ['users']],
  [{ groups: { require: ['system:nodes'] } }, signingRequest, []],
  [{ groups: { require: ['system:masters', 'system:nodes'] } }, signingRequest, []],
  [{ groups: { require: ['system:masters'] } }, signingRequest, ['groups']],
  [{ groups: { require: ['system:nodes'], deny: ['system:authenticated'] } }, signingRequest, ['groups']],
  [{ groups: { require: ['**'] } }, podRequest, ['groups']],
  [{ groups: { deny: ['**'] } }, podRequest, []],
  [
    { namespaces: { allow: ['x'] }, users: { allow: ['y'] }, groups: { require: ['z'] } },
    signingRequest,
    ['namespaces', 'users', 'groups'],
  ],
]

for (const [rules, origin, fails] of judged)
  t.test(`${JSON.stringify(rules)} on ${origin.object?.kind}: ${fails.join(', ') || 'passes'}`, async (t) => {
    const byGrant = decide(profile, request(origin), { ...context, grantOrigin: rules })
    t.equal(saidOf(byGrant, 'grant.origin').filter(({ outcome }) => outcome === 'failed').length, fails.length)
    t.equal(byGrant.allowed, fails.length === 0)
    if (!byGrant.allowed) t.equal(byGrant.code, 'origin.forbidden')
    const byProfile = decide(profileOf({ origin: rules }), request(origin), controller)
    t.same(
      byProfile
        .checks()
        .filter(({ outcome }) => outcome === 'failed')
        .map(({ check }) => check),
      fails.map((facet) => `origin.${facet}`),
    )
    if (!byProfile.allowed) t.equal(byProfile.code, 'policy.origin')
    t.ok(decide(profileOf({ origin: rules }), request(), context).allowed, 'whoever asks for himself has no origin')
  })

t.test('a profile, or a grant, may be for requests on behalf of others only', async (t) => {
  const only = profileOf({ origin: { required: true } })
  t.same(failed(decide(only, request(), controller)), ['origin.required '])
  t.ok(decide(only, request(signingRequest), controller).allowed)
  const grantOnly = { ...context, grantOrigin: { required: true } }
  t.match(decide(profile, request(), grantOnly), { allowed: false, code: 'origin.forbidden' })
  t.ok(decide(profile, request(signingRequest), grantOnly).allowed)
})

t.test('what was decided with an origin is judged again with it', async (t) => {
  const bound = profileOf({
    origin: { required: true },
    bind: [{ id: 'own', names: 'dns', matches: '{origin.namespace}.example.com' }],
  })
  const decision = decide(
    bound,
    ask({ names: namesOf('dns:shop.example.com') }, { origin: certificateRequest }),
    controller,
  )
  if (!decision.allowed) return t.fail(failed(decision).join())
  t.same(recheck(bound, { ...decision.plan, ca: false }, controller), [])
  const { origin: _, ...without } = decision.plan
  t.same(
    recheck(bound, { ...without, ca: false }, controller).map(({ check }) => check),
    ['origin.required', 'bind.own'],
  )
})

// Bindings ----------------------------------------------------------------------------------------------------------------

const tied = (bind: object, name: string, origin: Origin | undefined, more: object = {}) => {
  const kind = name.slice(0, name.indexOf(':'))
  const bound = profileOf({
    subject: { commonName: { from: 'csr', match: 'system:node:*', required: false }, others: 'refuse' },
    names: {
      dns: { allow: ['**'], wildcards: true },
      uri: { allow: ['spiffe://td/**'], max: 1 },
      ip: { allow: ['0.0.0.0/0'] },
    },
    bind: [{ id: 'own', names: kind, ...bind }],
    ...more,
  })
  const isCommonName = kind === 'commonName'
  return decide(
    bound,
    ask(isCommonName ? { subject: commonName(name.slice(11)), names: namesOf('dns:x') } : { names: namesOf(name) }, {
      ...(origin && { origin }),
    }),
    controller,
  ).allowed
}

const ties: readonly (readonly [bind: object, name: string, origin: Origin | undefined, holds: boolean])[] = [
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:web.shop.svc', certificateRequest, true],
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:web.other.svc', certificateRequest, false],
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:a.web.shop.svc', certificateRequest, false],
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:*.shop.svc', certificateRequest, true],
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:web.shop.svc', signingRequest, false],
  [{ matches: '*.{origin.namespace}.svc' }, 'dns:web.shop.svc', undefined, false],
  [{ matches: '*.{origin.namespace}.svc', when: 'origin' }, 'dns:web.other.svc', undefined, true],
  [{ matches: '*.{origin.namespace}.svc', when: 'origin' }, 'dns:web.other.svc', certificateRequest, false],
  [{ matches: '*.{origin.namespace}.svc', when: 'origin' }, 'dns:web.shop.svc', signingRequest, false],
  [
    { matches: ['*.{origin.namespace}.svc', '**.{origin.namespace}.svc.x'] },
    'dns:a.b.shop.svc.x',
    certificateRequest,
    true,
  ],
  [{ matches: '{origin.serviceAccount}.{origin.namespace}.svc' }, 'dns:web.shop.svc', podRequest, true],
  [{ matches: '{origin.serviceAccount}.{origin.namespace}.svc' }, 'dns:db.shop.svc', podRequest, false],
  [{ matches: ['{origin.serviceAccount}.x', '{origin.namespace}.y'] }, 'dns:shop.y', certificateRequest, true],
  [{ matches: '{origin.node}.x' }, 'dns:worker-1.x', podRequest, false],
  [{ leadingLabels: { of: 'origin.node' } }, 'dns:worker-1.example.com', podRequest, true],
  [{ firstLabel: { of: 'origin.namespace' } }, 'dns:shop.example', certificateRequest, true],
  [{ equals: { of: 'origin.user' } }, 'commonName:system:node:worker-1', signingRequest, true],
  [{ equals: { of: 'origin.user' } }, 'commonName:system:node:worker-2', signingRequest, false],
  [{ equals: { of: 'origin.user' }, when: 'origin' }, 'commonName:system:node:worker-2', undefined, true],
  [{ equals: { of: 'origin.user' }, when: 'origin' }, 'commonName:system:node:worker-2', podRequest, false],
  [{ matches: 'system:node:{origin.pod}' }, 'commonName:system:node:web-6f9', podRequest, true],
  [{ matches: 'system:node:{origin.pod}' }, 'commonName:system:node:web', podRequest, false],
  [
    { matches: 'spiffe://td/ns/{origin.namespace}/sa/{origin.serviceAccount}' },
    'uri:spiffe://td/ns/shop/sa/web',
    podRequest,
    true,
  ],
  [
    { matches: 'spiffe://td/ns/{origin.namespace}/sa/{origin.serviceAccount}' },
    'uri:spiffe://td/ns/shop/sa/db',
    podRequest,
    false,
  ],
  [{ matches: 'spiffe://td/ns/{origin.namespace}/sa/*' }, 'uri:spiffe://td/ns/other/sa/web', certificateRequest, false],
  [{ matches: '{principal}.example' }, 'dns:tester.example', certificateRequest, true],
  [{ matches: '{origin.uid}.x' }, 'dns:a.x', { user: 'a', uid: '*' }, false],
  [{ matches: 'system:node:{origin.user}' }, 'commonName:system:node:any', { user: '*' }, false],
  ...(['serviceAccountUid', 'podUid', 'nodeUid'] as const).map(
    (fact) => [{ matches: `{origin.${fact}}.x` }, `dns:${podRequest[fact]}.x`, podRequest, true] as const,
  ),
  // What no pattern comes of ties nothing: a NUL in it, more than a DNS name can hold.
  [{ matches: 'system:node:{origin.user}' }, 'commonName:system:node:any', { user: '\0' }, false],
  [{ matches: Array(5).fill('{origin.user}').join('.') }, 'dns:x', { user: 'x'.repeat(63) }, false],
]

for (const [bind, name, origin, holds] of ties)
  t.test(
    `${name} is ${holds ? '' : 'not '}tied by ${JSON.stringify(bind)} to ${JSON.stringify(origin?.object?.kind ?? origin)}`,
    async (t) => {
      t.equal(tied(bind, name, origin), holds)
    },
  )

t.test('faults of bindings and rules are told with their places', async (t) => {
  const faults = (changes: object): readonly string[] => {
    try {
      parseProfile({ ...baseDocument, ...changes }, { version: 1 })
      return []
    } catch (error) {
      if (!isProblem(error, 'profile.invalid')) throw error
      return (error.options.violations ?? []).map(({ field, reason }) => `${field}: ${reason}`)
    }
  }
  const bound = (matches: unknown, names = 'dns') => faults({ bind: [{ id: 'own', names, matches }] })
  t.same(bound('*.{origin.namespace}.svc'), [])
  t.match(bound('*.shop.svc'), ['/bind/0/matches: has no source in braces, like {origin.namespace}, and ties nothing'])
  t.match(bound('{origin.nmespace}.svc'), [
    /^\/bind\/0\/matches: has \{origin\.nmespace\}, which is none of commonName/,
  ])
  t.match(bound('{origin.groups}.svc'), [/which is none of/])
  t.match(bound(['{origin.user}{origin.uid}.x']), [
    '/bind/0/matches/0: has two sources with nothing between them: nobody could tell them apart',
  ])
  t.match(bound('{}.x'), ['/bind/0/matches: has empty braces; they take the name of a source'])
  t.match(bound('{origin.user.x'), ['/bind/0/matches: has a brace without its partner'])
  t.match(bound('**.{origin.user}.**'), [/more than one/])
  t.match(bound('system:node:{commonName}', 'commonName'), ['/bind/0/matches: is tied to itself'])
  t.same(bound('{commonName}.svc'), [], 'other names may be tied to it')
  t.match(bound('*:{origin.user}:*', 'commonName'), ['/bind/0/matches: has more than one wildcard'])
  t.same(
    faults({
      names: { ip: { allow: ['::1'] } },
      subject: { others: 'drop' },
      extendedKeyUsage: ['clientAuth'],
      bind: [{ id: 'own', names: 'ip', matches: '{origin.node}' }],
    }),
    ['/bind/0/matches: has a source; only rules for dns, uri and commonName may'],
  )
  t.match(faults({ bind: [{ id: 'own', names: 'dns', when: 'never', matches: '{principal}.x' }] }), [
    '/bind/0/when: must be origin',
  ])
  t.match(faults({ origin: { namespaces: { allow: ['a*b*'] } } }), [
    '/origin/namespaces/allow/0: has more than one wildcard',
  ])
  t.match(faults({ origin: { users: { allow: ['a', 'a'] } } }), ['/origin/users/allow/1: occurs twice'])
  t.match(faults({ origin: { groups: { require: ['a'], deny: ['a'] } } }), [
    '/origin/groups/require/0: is denied too, and deny wins',
  ])
  t.equal(faults({ origin: { groups: { allow: ['a'] } } }).length > 0, true, 'groups are required, not allowed')
  t.equal(faults({ origin: { namespaces: {} } }).length > 0, true)
  t.throws(() => parseOriginRules({ users: { deny: ['*x*'] } }, '/onBehalfOf'), { code: 'request.malformed' })
})

// Seeds -------------------------------------------------------------------------------------------------------------------

const node = (name: string): Ask['csr']['subject'] => [
  { type: 'organization', value: 'system:nodes' },
  ...commonName(`system:node:${name}`),
]

t.test(
  'seeded profiles serve whoever asks for himself, and a controller only for whom its cluster vouches',
  async (t) => {
    const judge = (name: string, given: Parameters<typeof ask>[0], origin?: Origin) =>
      decide(seed(name), ask(given, origin ? { origin } : {}), controller)
    const serving = { names: namesOf('dns:worker-1', 'ip:10.0.3.7'), subject: node('worker-1') }
    t.ok(judge('kubelet-serving', serving).allowed)
    t.ok(judge('kubelet-serving', serving, signingRequest).allowed)
    t.same(failed(judge('kubelet-serving', serving, { user: 'system:node:worker-2' })), [
      'bind.node-itself system:node:worker-1',
    ])
    t.notOk(judge('kubelet-serving', serving, certificateRequest).allowed, 'nor is cert-manager a node')
    // cert-manager does not keep who has asked in namespaces that its webhook leaves out.
    const forged = { ...signingRequest, namespace: 'shop' }
    t.same(failed(judge('kubelet-serving', serving, forged)), ['origin.namespaces shop'])
    t.same(failed(judge('kubelet-client', { subject: node('worker-1') }, forged)), ['origin.namespaces shop'])
    t.ok(judge('kubelet-client', { subject: node('worker-1') }, { user: 'system:bootstrap:abcdef' }).allowed)
    const hook = { names: namesOf('dns:hook.shop.svc', 'dns:hook.shop.svc.cluster.local') }
    t.ok(judge('webhook-serving', hook).allowed)
    t.ok(judge('webhook-serving', hook, certificateRequest).allowed)
    t.notOk(judge('webhook-serving', hook, { ...certificateRequest, namespace: 'other' }).allowed)
    t.notOk(judge('webhook-serving', hook, signingRequest).allowed)
    const workload = { names: namesOf('uri:spiffe://cluster.local/ns/shop/sa/web') }
    t.ok(judge('spiffe-workload', workload).allowed)
    t.ok(judge('spiffe-workload', workload, podRequest).allowed)
    t.notOk(judge('spiffe-workload', workload, { ...podRequest, namespace: 'other' }).allowed)
    t.notOk(judge('spiffe-workload', workload, { ...podRequest, serviceAccount: 'admin' }).allowed)
    t.same(
      failed(judge('spiffe-workload', workload, certificateRequest)),
      ['bind.own-service-account spiffe://cluster.local/ns/shop/sa/web'],
      'whoever may make Certificates in a namespace is none of its workloads',
    )
  },
)
