/** Requests on behalf of others over the API: who may make them, what is kept of them, and by what they are found. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { pem } from '../x509/build.ts'
import { employApprovers, wantApprovals } from './approvals.ts'
import { csrOn, holderOf, newKey, openHoldersOf } from './holders.ts'
import { csrFor, derFor, employ } from './people.ts'

const service = await openTestService(t)
const chancery = chanceryFor(service)

const origin = {
  user: 'system:serviceaccount:cert-manager:cert-manager',
  uid: '4b3cf2c4-6d63-4a4b-8f36-2f2d1f0a1b11',
  groups: ['system:serviceaccounts', 'system:authenticated'],
  extra: { 'authentication.kubernetes.io/pod-name': ['cert-manager-7d'] },
  namespace: 'shop',
  object: { apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', name: 'web-1', uid: 'b0d1' },
}

const profiles = ['server', 'kubelet-serving', 'tenants']
const open = openHoldersOf(service)
t.before(async () => {
  await wantApprovals(service, 'tenants', undefined, {
    origin: { required: true, namespaces: { allow: ['shop', 'team-*'], deny: ['team-root'] } },
    bind: [{ id: 'own', names: 'dns', matches: '*.{origin.namespace}.example.com' }],
  })
  controller = await employ(service, 'controller', 'requester', { profiles, onBehalfOf: {} })
  direct = await employ(service, 'direct', 'requester', { profiles })
})
let controller = ''
let direct = ''

interface Ask {
  readonly token?: string
  readonly name?: string
  readonly key?: string
  readonly path?: string
  readonly [member: string]: unknown
}

const ask = ({ token = controller, name = 'a.shop.example.com', key, path = '/v1/certificates', ...more }: Ask = {}) =>
  service.request('POST', path, {
    token,
    headers: key === undefined ? {} : { 'idempotency-key': key },
    body: { csr: csrFor(name), profile: 'server', ...more },
  })
const entryOf = async (serial: string): Promise<Record<string, unknown>> =>
  JSON.parse((await service.request('GET', `/v1/events?serial=${serial}`)).json.items[0].entry)
const refusalsOf = async (principal: string) =>
  (await service.request('GET', `/v1/refusals?principal=${principal}`)).json.items
const found = async (query: string): Promise<string[]> =>
  (await service.request('GET', `/v1/certificates?${query}`)).json.items.map(({ serial }: { serial: string }) => serial)

t.test(
  'what is asked for on behalf of another says so in the plan, on the roll, and wherever it is shown',
  async (t) => {
    const csr = derFor('a.shop.example.com')
    const given = { csr: pem(csr), onBehalfOf: origin }
    const { status, json } = await ask(given)
    t.equal(status, 201)
    const entry = await entryOf(json.serial)
    t.match(entry, { type: 'certificate.issued', principal: 'controller', origin })
    const options = { extendedKeyUsage: null, keyUsage: null, names: null, profile: 'server', validity: null, origin }
    const digest = createHash('sha256').update(csr).update(canonicalJson(options)).digest('hex')
    t.equal(entry['request'], digest, 'it is part of what was asked')
    const read = (await service.request('GET', `/v1/certificates/${json.serial}`, { token: controller })).json
    t.same(read.origin, origin)
    const shown = await chancery(['certificate', 'show', json.serial])
    t.match(shown.out, `origin      ${origin.user} in shop, CertificateRequest web-1`)
    const told = await chancery(['audit', 'events', '--serial', json.serial])
    t.match(told.out, /on behalf of system:serviceaccount:cert-manager:cert-manager in/)

    const same = await ask({ ...given, onBehalfOf: { ...origin, object: { ...origin.object, name: 'web-2' } } })
    t.not((await entryOf(same.json.serial))['plan'], entry['plan'], 'another origin is another plan')
  },
)

t.test('whoever asks for himself has the digests and the entries of ever', async (t) => {
  for (const token of [direct, controller]) {
    const csr = derFor('own.example.com')
    const { json } = await ask({ token, csr: pem(csr), validity: '1d' })
    const entry = await entryOf(json.serial)
    const options = { extendedKeyUsage: null, keyUsage: null, names: null, profile: 'server', validity: 86_400 }
    const digest = createHash('sha256').update(csr).update(canonicalJson(options)).digest('hex')
    t.match(entry, { request: digest, origin: null, approval: null })
    const read = (await service.request('GET', `/v1/certificates/${json.serial}`)).json
    t.notOk('origin' in read)
  }
})

t.test('without a right to nobody asks for others: nothing of the request is looked at, and it is kept', async (t) => {
  const refused = await ask({ token: direct, csr: 'no request', onBehalfOf: origin })
  t.match(refused, { status: 403, json: { code: 'origin.forbidden', retryable: false } })
  const [kept] = await refusalsOf('direct')
  t.match(kept, { code: 'origin.forbidden', profile: 'server', origin, checks: null })
  const dry = await ask({ token: direct, onBehalfOf: origin, path: '/v1/certificates?dryRun=true' })
  t.match(dry, { status: 403, json: { code: 'origin.forbidden' } })
  await ask({ token: direct, onBehalfOf: { user: 'a\u0000b' } })
  t.match((await refusalsOf('direct'))[0], { code: 'origin.forbidden', origin: null }, 'nor with what cannot be kept')
  t.match(await ask({ token: direct, profile: 'client', onBehalfOf: origin }), { json: { code: 'auth.forbidden' } })
})

t.test('a grant may be for some namespaces, users and groups', async (t) => {
  const token = await employ(service, 'narrow', 'requester', {
    profiles,
    onBehalfOf: {
      namespaces: { allow: ['shop'] },
      users: { allow: ['system:serviceaccount:cert-manager:*'] },
      groups: { deny: ['system:masters'] },
    },
  })
  t.equal((await ask({ token, onBehalfOf: origin })).status, 201)
  const refused = await ask({ token, onBehalfOf: { ...origin, namespace: 'kube-system' } })
  t.match(refused, {
    status: 403,
    json: {
      code: 'origin.forbidden',
      violations: [{ check: 'grant.origin', field: '/onBehalfOf/namespace', value: 'kube-system' }],
    },
  })
  const [kept] = await refusalsOf('narrow')
  t.match(kept, { code: 'origin.forbidden', origin: { namespace: 'kube-system' } })
  t.match(kept.checks[0], { check: 'grant.origin', outcome: 'failed' })
  t.match(await ask({ token, onBehalfOf: { ...origin, user: 'alice' } }), { status: 403 })
  t.match(await ask({ token, onBehalfOf: { ...origin, groups: ['system:masters'] } }), { status: 403 })
  t.equal((await ask({ token })).status, 201, 'and for itself it may ask still')
  const exported = await service.request('GET', '/v1/refusals?principal=narrow', { headers: { accept: 'text/csv' } })
  t.match(exported.text, /"origin"\r\n/)
  t.match(exported.text, /""namespace"":""kube-system""/)
})

t.test('of two grants, the one that is for it decides', async (t) => {
  const token = await employ(service, 'both', 'requester', { profiles, names: { dns: { allow: ['own.example.com'] } } })
  const grant = {
    principal: 'both',
    role: 'requester',
    profiles,
    onBehalfOf: { required: true, namespaces: { allow: ['shop'] } },
  }
  t.equal((await service.request('POST', '/v1/grants', { body: grant })).status, 201)
  t.equal((await ask({ token, name: 'own.example.com' })).status, 201)
  t.match(await ask({ token, name: 'a.example.com' }), { status: 422, json: { code: 'san.forbidden' } })
  t.equal((await ask({ token, name: 'a.example.com', onBehalfOf: origin })).status, 201)
})

t.test('a grant may be for requests on behalf of others only', async (t) => {
  const token = await employ(service, 'only', 'requester', { profiles, onBehalfOf: { required: true } })
  t.match(await ask({ token, csr: 'no request' }), { status: 403, json: { code: 'origin.required' } })
  const raw = await service.request('POST', '/v1/certificates?profile=server', {
    token,
    headers: { 'content-type': 'application/pkcs10' },
    body: derFor('a.example.com'),
  })
  t.match(raw, { status: 403, json: { code: 'origin.required' } }, 'what has no room for it is refused too')
  t.equal((await ask({ token, onBehalfOf: origin })).status, 201)
  t.match(await refusalsOf('only'), [{ code: 'origin.required' }, { code: 'origin.required', origin: null }])
})

t.test('what cannot be is malformed, in words, and never a fault of ours', async (t) => {
  const cases: readonly (readonly [onBehalfOf: unknown, code: string, field: string])[] = [
    [{ ...origin, user: 'a\u0000b' }, 'origin.malformed', '/onBehalfOf/user'],
    [{ ...origin, user: 'a\ud800' }, 'origin.malformed', '/onBehalfOf/user'],
    [{ ...origin, groups: ['a', 'a'] }, 'origin.malformed', '/onBehalfOf/groups/1'],
    [
      { ...origin, extra: Object.fromEntries(Array.from({ length: 32 }, (_, i) => [`k${i}`, ['x'.repeat(1024)]])) },
      'origin.malformed',
      '/onBehalfOf',
    ],
    [{ namespace: 'shop' }, 'origin.malformed', '/onBehalfOf'],
    [{ ...origin, namespace: '../etc' }, 'origin.malformed', '/onBehalfOf/namespace'],
    [{}, 'request.malformed', '/onBehalfOf'],
    [null, 'request.malformed', '/onBehalfOf'],
    ['alice', 'request.malformed', '/onBehalfOf'],
    [{ ...origin, user: 7 }, 'request.malformed', '/onBehalfOf/user'],
    [{ ...origin, user: '' }, 'request.malformed', '/onBehalfOf/user'],
    [{ ...origin, user: 'x'.repeat(513) }, 'request.malformed', '/onBehalfOf/user'],
    [{ ...origin, groups: Array.from({ length: 257 }, (_, i) => `g${i}`) }, 'request.malformed', '/onBehalfOf/groups'],
    [{ ...origin, extra: { a: 'b' } }, 'request.malformed', '/onBehalfOf/extra/a'],
    [{ ...origin, extra: { 'a\u2028b': 'b' } }, 'request.malformed', '/onBehalfOf/extra/a\u2028b'],
    [{ ...origin, extra: { 'a\u2028b': 5 } }, 'request.malformed', '/onBehalfOf/extra/a\u2028b'],
    [{ ...origin, more: 'x' }, 'request.malformed', '/onBehalfOf/more'],
    [{ ...origin, object: { kind: 'X' } }, 'request.malformed', '/onBehalfOf/object'],
  ]
  for (const [onBehalfOf, code, field] of cases) {
    const { status, json } = await ask({ onBehalfOf })
    t.match({ status, code: json.code }, { status: 400, code }, JSON.stringify(onBehalfOf)?.slice(0, 80))
    t.ok(
      json.violations?.some((one: { field: string }) => one.field.startsWith(field)),
      `${encodeURI(field)} is told`,
    )
  }
  for (const name of ['__proto__', 'constructor', 'prototype']) {
    const body = `{"csr":"x","profile":"server","onBehalfOf":{"user":"a","extra":{"${name}":["x"]}}}`
    const headers = { 'content-type': 'application/json' }
    const answer = await service.request('POST', '/v1/certificates', { token: controller, headers, body })
    t.match(answer, { status: 400, json: { code: 'request.malformed' } }, name)
  }
  const [kept] = await refusalsOf('controller')
  t.match(kept, { code: 'origin.malformed', origin: null })
})

t.test('under one key an origin is part of the request', async (t) => {
  const csr = csrFor('key.shop.example.com')
  const first = await ask({ key: 'k', csr, onBehalfOf: origin })
  t.equal(first.status, 201)
  const { object, ...rest } = origin
  const again = await ask({ key: 'k', csr, onBehalfOf: { object, ...rest } })
  t.match(again, { status: 201, json: { replayed: true, serial: first.json.serial } }, 'in whichever order')
  t.match(await ask({ key: 'k', csr, onBehalfOf: { ...origin, uid: 'x' } }), { json: { code: 'idempotency.reused' } })
  t.match(await ask({ key: 'k', csr }), { status: 409, json: { code: 'idempotency.reused' } })
})

t.test('a profile judges origins, and ties names to them', async (t) => {
  const { json } = await ask({ profile: 'tenants', path: '/v1/certificates?dryRun=true', onBehalfOf: origin })
  t.equal(json.allowed, true)
  const checks = (id: string) => json.checks.filter(({ check }: { check: string }) => check === id)
  for (const id of ['grant.origin', 'origin.required', 'origin.namespaces', 'bind.own'])
    t.match(checks(id), [{ outcome: 'passed' }], id)
  for (const id of ['origin.users', 'origin.groups']) t.match(checks(id), [{ outcome: 'skipped' }], id)
  t.equal((await ask({ profile: 'tenants', onBehalfOf: origin })).status, 201)
  t.match(await ask({ profile: 'tenants', onBehalfOf: { ...origin, namespace: 'team-a' } }), {
    json: { code: 'policy.bind' },
  })
  t.match(await ask({ profile: 'tenants', onBehalfOf: { ...origin, namespace: 'team-root' } }), {
    status: 422,
    json: { code: 'policy.origin' },
  })
  t.match(await ask({ profile: 'tenants' }), {
    status: 422,
    json: { code: 'policy.origin', violations: [{ check: 'origin.required' }, { check: 'bind.own' }] },
  })
  const dry = await ask({
    profile: 'tenants',
    path: '/v1/certificates?dryRun=true',
    onBehalfOf: { ...origin, namespace: 'x' },
  })
  t.match(dry, { status: 200, json: { allowed: false } })
})

t.test('each item of a batch has an origin of its own', async (t) => {
  const item = (more: object) => ({ csr: csrFor('b.shop.example.com'), profile: 'server', ...more })
  const items = [
    item({ onBehalfOf: origin }),
    item({}),
    item({ onBehalfOf: { namespace: 'shop' } }),
    item({ onBehalfOf: { ...origin, more: 1 } }),
    item({ onBehalfOf: { ...origin, namespace: 'team-a' }, profile: 'tenants' }),
  ]
  const { json } = await service.request('POST', '/v1/certificates/batch', { token: controller, body: { items } })
  t.match(json.items, [
    { status: 201 },
    { status: 201 },
    { problem: { code: 'origin.malformed' } },
    { problem: { code: 'request.malformed' } },
    { problem: { code: 'policy.bind' } },
  ])
  t.same((await entryOf(json.items[0].certificate.serial))['origin'], origin)
  const { json: others } = await service.request('POST', '/v1/certificates/batch', {
    token: direct,
    body: { items: [item({ onBehalfOf: origin })] },
  })
  t.match(others.items, [{ problem: { code: 'origin.forbidden' } }])
  t.match((await refusalsOf('direct'))[0], { code: 'origin.forbidden', origin })
})

t.test('certificates are found by namespace, user and object, with any other filter, and exported', async (t) => {
  const serials: string[] = []
  for (const [i, namespace] of ['team-x', 'team-x', 'team-y'].entries()) {
    const onBehalfOf = {
      ...origin,
      user: `u${i % 2}@example.com`,
      namespace,
      object: { ...origin.object, uid: `uid-${i}` },
    }
    serials.push((await ask({ name: `f${i}.example.com`, onBehalfOf })).json.serial)
  }
  const [x0, x1, y] = serials
  t.same(await found('originNamespace=team-x'), [x1, x0], 'newest first')
  t.same(await found('originNamespace=team-x&limit=1'), [x1])
  t.same(await found('originUser=u0%40example.com'), [y, x0])
  t.same(await found('originUser=u0%40example.com&originNamespace=team-x'), [x0])
  t.same(await found('originObject=uid-2'), [y])
  t.same(await found('originNamespace=team-x&name=f1.example.com'), [x1])
  t.same(await found('originNamespace=team-x&principal=controller'), [x1, x0])
  t.same(await found('originNamespace=team-x&status=valid'), [x0, x1], 'those by expiry are in its order')
  t.same(await found('originNamespace=team-x&principal=direct'), [])
  t.same(await found('originNamespace=team'), [], 'as a whole')
  t.same(await found('originObject=%00'), [])
  const mine = await service.request('GET', '/v1/certificates?originNamespace=team-x', { token: direct })
  t.same(mine.json.items, [], 'of others nothing is told')
  const { json } = await service.request('GET', '/v1/certificates?originNamespace=team-x&count=true')
  t.match(json.count, { rows: 2, exact: true })
  const csv = await service.request('GET', '/v1/certificates?originNamespace=team-x', {
    headers: { accept: 'text/csv' },
  })
  t.match(csv.text.split('\r\n')[0], /,"origin"$/)
  t.match(csv.text, /""user"":""u1@example\.com""/)
  const lines = await service.request('GET', '/v1/certificates?originUser=u1%40example.com', {
    headers: { accept: 'application/x-ndjson' },
  })
  t.match(JSON.parse(lines.text.split('\n')[0] ?? ''), { serial: x1, origin: { namespace: 'team-x' } })
  const searched = await chancery(['audit', 'certificates', '--origin-namespace', 'team-y', '--json'])
  t.match(JSON.parse(searched.out), [{ serial: y, origin: { namespace: 'team-y' } }])

  const search = { originNamespace: 'team-x' }
  const plan = (await service.request('POST', '/v1/revocations', { body: { search, reason: 'cessationOfOperation' } }))
    .json
  t.match(plan, { count: 2, search })
  t.same([...plan.sample].sort(), [x0, x1].sort())
})

t.test('a renewal by holding has no origin, and none can be sent with it', async (t) => {
  const key = newKey()
  const held = holderOf(await ask({ csr: csrOn(key, ['r.shop.example.com']), onBehalfOf: origin }), key)
  const renewed = await open.renew(t, held)
  t.equal(renewed.status, 201)
  t.match(await entryOf(renewed.json.serial), { replaces: held.serial })
  const more = await open.renew(t, held, { csr: csrOn(newKey()), onBehalfOf: origin })
  t.match(more, { status: 400, json: { code: 'request.malformed' } })
})

t.test('people approve it with its origin, and it is issued with that', async (t) => {
  await wantApprovals(service, 'payments', { required: 1 })
  const { alice } = await employApprovers(service, ['payments'], 'unused')
  await service.request('POST', '/v1/grants', {
    body: { principal: 'controller', role: 'requester', profiles: ['payments'], onBehalfOf: {} },
  })
  const asked = await ask({ profile: 'payments', key: 'pay', csr: csrFor('pay.example.com'), onBehalfOf: origin })
  t.equal(asked.status, 202)
  t.same(asked.json.plan.origin, origin)
  const shown = await chancery(['request', 'show', asked.json.id])
  // Long rows go on below, behind the labels.
  const told = shown.out.replaceAll(/\n {14}/g, '')
  t.match(told, `on behalf   of ${origin.user} in shop,CertificateRequest web-1`)
  t.match(told, JSON.stringify(asked.json.plan.origin), 'and all of it')
  const token = join(service.config.dataDir, 'alice.token')
  await writeFile(token, alice, { mode: 0o600 })
  const args = ['request', 'approve', asked.json.id, '--digest', asked.json.digest, '--reason', 'x', '--json']
  const approved = JSON.parse((await chancery([...args, '--token-file', token])).out)
  t.equal(approved.state, 'issued')
  t.match(await entryOf(approved.serial), { approval: asked.json.id, origin, plan: asked.json.digest })
})

t.test('what a grant says of origins is checked, listed and on the roll', async (t) => {
  const make = (more: object, principal = 'rules') =>
    service.request('POST', '/v1/grants', { body: { principal, role: 'requester', profiles: ['server'], ...more } })
  await service.request('POST', '/v1/principals', { body: { name: 'rules' } })
  const onBehalfOf = { required: true, namespaces: { allow: ['shop', 'team-*'] } }
  const made = await make({ onBehalfOf })
  t.match(made, { status: 201, json: { onBehalfOf } })
  t.equal((await make({ onBehalfOf })).status, 200, 'held already')
  const other = await make({ onBehalfOf: {} })
  t.match(other, { status: 201, json: { onBehalfOf: {} } }, 'which is another than none')
  t.match(await make({}), { status: 201, json: { onBehalfOf: null } })
  const { items } = (await service.request('GET', '/v1/grants?principal=rules')).json
  t.same(
    items.map((grant: { onBehalfOf: unknown }) => grant.onBehalfOf),
    [onBehalfOf, {}, null],
  )
  const events = (await service.request('GET', '/v1/events?type=grant.changed&principal=rules')).json.items
  const entries = events.map(({ entry }: { entry: string }) => JSON.parse(entry))
  t.match(entries[0], { onBehalfOf })
  t.match(entries[2], { onBehalfOf: null })
  t.match(await make({ onBehalfOf: { namespaces: { allow: ['a*b*'] } } }), {
    status: 400,
    json: { code: 'request.malformed', violations: [{ field: '/onBehalfOf/namespaces/allow/0' }] },
  })
  t.match(await make({ onBehalfOf: true }), { status: 400 })
  t.match(await make({ onBehalfOf: { users: {} } }), { status: 400 })
  t.match(await make({ role: 'auditor', profiles: undefined, onBehalfOf: {} }), {
    status: 400,
    json: { violations: [{ check: 'grant.role', field: '/onBehalfOf' }] },
  })
  const long = Array.from({ length: 100 }, (_, i) => `${i}`.padEnd(400, 'x'))
  t.match(await make({ onBehalfOf: { users: { allow: long } } }), {
    status: 400,
    json: { violations: [{ check: 'grant.size', field: '/onBehalfOf' }] },
  })
  await service.request('POST', '/v1/principals', { body: { name: 'told' } })
  const bare = await chancery([
    'grant',
    'create',
    'told',
    'requester',
    '--profile',
    'server',
    '--on-behalf-of',
    '--json',
  ])
  t.same(JSON.parse(bare.out).onBehalfOf, {})
  const ruled = await chancery([
    'grant',
    'create',
    'told',
    'requester',
    '--profile',
    'server',
    '--on-behalf-of',
    '{"required":true}',
    '--json',
  ])
  t.same(JSON.parse(ruled.out).onBehalfOf, { required: true })
  const wrong = await chancery([
    'grant',
    'create',
    'told',
    'requester',
    '--profile',
    'server',
    '--on-behalf-of',
    'shop',
  ])
  t.equal(wrong.code, 2)
  t.match(wrong.err, '--on-behalf-of is not JSON.')
  t.match(wrong.err, 'It is like \'{"required":true,')
})
