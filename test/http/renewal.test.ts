/** Renewing by holding: over real TLS, against the real records. */
import { createHash, X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { openClientCa, trickle } from '../helpers/clients.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { commonName } from '../x509/build.ts'
import { csrOn, holderOf, keyOf, newKey, openHoldersOf, type TestHolder } from './holders.ts'
import { employ } from './people.ts'

const service = await openTestService(t)
const { issue, hold, renew, change } = openHoldersOf(service)

/** A profile like `server` under another name, so that what it says of renewal can be changed. */
const make = async (name: string, changes: object): Promise<void> => {
  const { json } = await service.request('GET', '/v1/profiles/server')
  const body = { ...json.document, name, ...changes }
  const headers = { 'if-none-match': '*' }
  const made = await service.request('PUT', `/v1/profiles/${name}`, { headers, body })
  if (made.status !== 201) throw new Error(made.text)
}
await make('kept', {})
await make('strict', { renewal: { within: '365d' } })
await make('brief', { validity: { default: '2s', max: '1h' }, renewal: { within: '1h', key: 'any' } })
// A grant is for profiles that there are.
const token = await employ(service, 'web', 'requester', { profiles: ['server', 'kept', 'strict', 'brief'] })

const eventOf = async (serial: string) =>
  (await service.request('GET', `/v1/events?serial=${serial}`)).json.items[0] as { entry: string; leafHash: string }

t.test('whoever holds a certificate gets the next one for the same names, and needs nothing else', async (t) => {
  const first = await issue(['a.example.com', 'b.example.com'], { token })
  const key = newKey()
  const answer = await renew(t, first, { csr: csrOn(key), validity: '24h' })
  t.equal(answer.status, 201, answer.text)
  const { serial, profile, notBefore, notAfter, replayed, notes } = answer.json
  t.equal(answer.headers['location'], `/v1/certificates/${serial}`)
  t.not(serial, first.serial)
  t.match(
    { profile, replayed, notes },
    { profile: { name: 'server', version: 1 }, replayed: false, notes: { length: 0 } },
  )
  t.equal(Date.parse(notAfter) - Date.parse(notBefore), (24 * 3600 - 1) * 1000)
  t.equal(new X509Certificate(answer.json.certificate).subjectAltName, 'DNS:a.example.com, DNS:b.example.com')
  t.equal((await service.request('GET', `/v1/certificates/${serial}`)).json.principal, 'web', 'to whom the first was')

  const { entry, leafHash } = await eventOf(serial)
  t.match(JSON.parse(entry), { type: 'certificate.issued', replaces: first.serial, principal: 'web' })
  t.equal(createHash('sha256').update(`\0${entry}`).digest('hex'), leafHash)
  t.equal(JSON.parse((await eventOf(first.serial)).entry).v, 1)

  const next = await renew(t, holderOf(answer, key))
  t.equal(next.status, 201, 'and so on')
  t.equal(JSON.parse((await eventOf(next.json.serial)).entry).replaces, serial)
  const raw = hold(t, first)
  t.equal((await raw.request('GET', '/readyz', { token: null })).status, 200, 'it is shown to whom it says nothing')
  const proxied = { token: null, headers: { 'client-cert': ':AAAA:' }, body: { csr: csrOn(newKey()) } }
  t.match(
    (await raw.request('POST', `/v1/certificates/${first.serial}/renewal`, proxied)).json,
    { code: 'auth.proxy' },
    'whoever asks through a proxy that is not listed does not hold the certificate of that',
  )
  const path = `/v1/certificates/${first.serial.toUpperCase()}/renewal`
  const headers = { 'content-type': 'application/x-pem-file', accept: 'application/pem-certificate-chain' }
  const pem = await raw.request('POST', `${path}?validity=1h`, {
    headers,
    body: csrOn(newKey(), ['b.example.com', 'a.example.com']),
  })
  t.equal(pem.status, 201, 'a raw body, and the names in another order')
  t.match(pem.text, /^-----BEGIN CERTIFICATE-----[\s\S]+-----BEGIN CERTIFICATE-----/)
})

t.test('what people must approve is not had by holding one: nobody could wait for them', async (t) => {
  await make('approved', { renewal: { within: '365d' } })
  const owner = await employ(service, 'owner', 'requester', { profiles: ['approved'] })
  const first = await issue(['approved.example.com'], { profile: 'approved', token: owner })
  await change('approved', { approvals: { required: 1 } })
  t.match(await renew(t, first), { status: 422, json: { code: 'approval.required', retryable: false } })
  t.same((await service.request('GET', '/v1/requests')).json.items, [])
})

t.test('a retry under the same Idempotency-Key gets the same certificate', async (t) => {
  const first = await issue(['retry.example.com'], { token })
  const body = { csr: csrOn(newKey()) }
  const headers = { 'idempotency-key': 'renewal-1' }
  const one = await renew(t, first, body, { headers })
  const again = await renew(t, first, body, { headers })
  t.match(again.json, { serial: one.json.serial, certificate: one.json.certificate, replayed: true })
  const both = await Promise.all(
    [1, 2, 3, 4].map(() => renew(t, first, body, { headers: { 'idempotency-key': 'renewal-2' } })),
  )
  t.equal(new Set(both.map(({ json }) => json.serial)).size, 1)
  t.match(await renew(t, first, { csr: csrOn(newKey()) }, { headers }), {
    status: 409,
    json: { code: 'idempotency.reused' },
  })
  const other = await issue(['retry.example.com'], { token })
  t.equal((await renew(t, other, body, { headers })).json.replayed, false, 'another certificate has keys of its own')
  const own = await service.request('POST', '/v1/certificates', {
    ...{ token, headers },
    body: { csr: csrOn(newKey(), ['retry.example.com']), profile: 'server' },
  })
  t.match(own, { status: 201, json: { replayed: false } }, 'and so has its principal, whoever holds what of it')
})

t.test('never for other names, and never for another subject', async (t) => {
  const first = await issue(['a.names.example.com', 'b.names.example.com'], { token })
  const reasonsFor = async (names: readonly string[], subject?: Buffer) => {
    const { status, json } = await renew(t, first, { csr: csrOn(newKey(), names, subject) })
    return [
      status,
      json.code,
      json.violations?.map(({ value, reason }: Record<string, string>) => `${value} ${reason}`),
    ]
  }
  t.same(await reasonsFor(['a.names.example.com', 'b.names.example.com', 'c.names.example.com']), [
    422,
    'renewal.names',
    ['c.names.example.com is not in it'],
  ])
  t.same(await reasonsFor(['a.names.example.com']), [422, 'renewal.names', ['b.names.example.com is left out']])
  t.same(await reasonsFor([], commonName('a.names.example.com')), [
    422,
    'renewal.names',
    ['a.names.example.com is not that of the certificate'],
  ])
  const unknown = await renew(t, first, { csr: csrOn(newKey()), names: { dns: ['a.names.example.com'] } })
  t.match(unknown, { status: 400, json: { violations: [{ field: '/names', reason: 'is not a known field' }] } })
  const { json } = await service.request('GET', '/v1/refusals?code=renewal.names&limit=10')
  t.equal(json.items.length, 3, 'they are on record')
  t.ok(json.items.every(({ principal }: { principal: string }) => principal === 'web'))

  const node = {
    names: undefined,
    subject: {
      commonName: { from: 'csr', match: 'node:*' },
      organization: { fixed: ['nodes', 'workers'] },
      others: 'refuse',
    },
    extendedKeyUsage: ['clientAuth'],
  }
  await make('node', node)
  const key = newKey()
  const asked = { csr: csrOn(key, [], commonName('node:1')), profile: 'node' }
  const own = await employ(service, 'nodes', 'requester', { profiles: ['node'] })
  const held = holderOf(await service.request('POST', '/v1/certificates', { token: own, body: asked }), key)
  t.equal((await renew(t, held, { csr: csrOn(newKey(), [], commonName('node:2')) })).json.code, 'renewal.names')
  for (const subject of [undefined, commonName('node:1')]) {
    const renewed = await renew(t, held, { csr: csrOn(newKey(), [], subject) })
    t.equal(new X509Certificate(renewed.json.certificate).subject, 'O=nodes\nO=workers\nCN=node:1')
  }

  const again = () => renew(t, held, { csr: csrOn(newKey()) })
  const { commonName: ruled } = node.subject
  await change('node', { subject: { commonName: ruled, locality: { fixed: 'Here' }, others: 'refuse' } })
  const bare = await again()
  t.equal(bare.status, 201, bare.text)
  t.equal(
    new X509Certificate(bare.json.certificate).subject,
    'L=Here\nCN=node:1',
    'what the profile fixed nobody has asked for',
  )
  const subject = { organization: { fixed: 'others' }, others: 'refuse' }
  await change('node', { subject })
  const lost = { check: 'subject.others', field: '/subject/commonName', value: 'node:1' }
  t.match(
    await again(),
    { status: 422, json: { code: 'subject.forbidden', violations: [lost] } },
    'nor for a part of it',
  )
  await change('node', { subject: { ...subject, others: 'drop' } })
  const { status, json: fewer } = await again()
  t.match([status, fewer.notes], [201, [{ field: '/subject/commonName', reason: /^is dropped/ }]], 'unless it is said')
  t.equal(new X509Certificate(fewer.certificate).subject, 'O=others', 'what the profile fixes is as it says today')
})

t.test('the profile says whether the key is a new one', async (t) => {
  const codes = async (held: TestHolder) => [
    (await renew(t, held, { csr: csrOn(keyOf(held)) })).json.code ?? 'renewed',
    (await renew(t, held)).json.code ?? 'renewed',
  ]
  const held = await issue(['kept.example.com'], { token, profile: 'kept' })
  t.same(await codes(held), ['renewed', 'renewed'])
  await change('kept', { renewal: { within: '365d', key: 'same' } })
  t.same(await codes(held), ['renewed', 'renewal.key'])
  t.same(await codes(await issue(['strict.example.com'], { token, profile: 'strict' })), ['renewal.key', 'renewed'])
})

t.test('it is decided by the profile of today', async (t) => {
  const held = await issue(['today.example.com'], { token, profile: 'kept' })
  await change('kept', {
    renewal: { within: '365d', key: 'any' },
    names: { dns: { allow: ['*.example.net'] }, require: ['dns'] },
  })
  const refused = await renew(t, held)
  t.match(refused.json, { code: 'san.forbidden', violations: [{ value: 'today.example.com' }] })
  await change('kept', { names: { dns: { allow: ['*.example.com'] }, require: ['dns'] }, renewal: undefined })
  t.match(await renew(t, held), { status: 403, json: { code: 'renewal.forbidden', retryable: false } })
})

slowTest('a row of renewals ends, however often it is renewed', async (t) => {
  await change('brief', { validity: { default: '1h', max: '1h' }, renewal: { within: '3s', key: 'any' } })
  const first = await issue(['row.example.com'], { token, profile: 'brief' })
  const begun = Date.now()
  const key = newKey()
  const second = holderOf(await renew(t, first, { csr: csrOn(key) }), key)
  await sleep(Math.max(0, begun + 4_100 - Date.now()))
  for (const held of [first, second]) t.match(await renew(t, held), { status: 403, json: { code: 'renewal.ended' } })
  await change('brief', { renewal: { within: '1h', key: 'any' } })
  t.equal((await renew(t, second)).status, 201)
})

slowTest(
  'an expired certificate is renewed within the grace of its profile, and lets nobody in anywhere else',
  async (t) => {
    await change('brief', { validity: { default: '4s', max: '1h' }, renewal: { within: '1h', key: 'any' } })
    const held = await issue(['late.example.com'], { token, profile: 'brief' })
    const connection = hold(t, held)
    const path = `/v1/certificates/${held.serial}/renewal`
    const body = { csr: csrOn(newKey()) }
    t.equal((await connection.request('POST', path, { body })).status, 201)
    await sleep(4_100)
    t.match(await connection.request('POST', path, { body }), { status: 401, json: { code: 'auth.expired' } })
    t.equal(connection.ports.length, 1, 'also on the connection that it had')
    await change('brief', { renewal: { within: '1h', key: 'any', grace: '1h' } })
    t.equal((await connection.request('POST', path, { body })).status, 201)
    t.equal((await connection.request('GET', '/v1/authorities')).json.code, 'auth.missing')
  },
)

t.test('what was taken away is not renewed', async (t) => {
  const held = await issue(['gone.example.com'], { token })
  const connection = hold(t, held)
  const ask = async () => {
    const body = { csr: csrOn(newKey()) }
    const { status, json } = await connection.request('POST', `/v1/certificates/${held.serial}/renewal`, { body })
    return status === 201 ? 'renewed' : `${status} ${json.code}`
  }
  const path = `/v1/certificates/${held.serial}/revocation`
  t.equal(await ask(), 'renewed')
  await service.request('POST', path, { body: { reason: 'certificateHold' } })
  t.equal(await ask(), '401 auth.revoked', 'nor what is on hold')
  await service.request('DELETE', path)
  t.equal(await ask(), 'renewed')
  const sibling = await issue(['sibling.example.com'], { token, key: keyOf(held) })
  const compromised = { reason: 'keyCompromise' }
  await service.request('POST', `/v1/certificates/${sibling.serial}/revocation`, { body: compromised })
  t.equal(await ask(), '422 key.blocked', 'whoever has its key has this certificate as well')
  await service.request('POST', path, { body: compromised })
  t.equal(await ask(), '401 auth.revoked')
  t.equal(connection.ports.length, 1)

  const leaver = await employ(service, 'leaver', 'requester', { profiles: ['server'] })
  const left = await issue(['leaver.example.com'], { token: leaver })
  t.equal((await renew(t, left)).status, 201)
  const { json } = await service.request('GET', '/v1/grants?principal=leaver')
  await service.request('DELETE', `/v1/grants/${json.items[0].id}`)
  t.equal((await renew(t, left)).status, 201, 'a grant that is taken away ends nothing by itself')
  await change('server', { renewal: { within: '365d', key: 'any', grant: true } })
  t.match(await renew(t, left), { status: 403, json: { code: 'auth.forbidden' } }, 'unless the profile wants one')
  await service.request('POST', '/v1/grants', {
    body: {
      principal: 'leaver',
      role: 'requester',
      profiles: ['server'],
      names: { dns: { allow: ['x.example.com'] } },
    },
  })
  t.equal((await renew(t, left)).json.code, 'san.forbidden', 'whose name rules hold then')
  await change('server', { renewal: { within: '365d', key: 'any' } })
  await service.request('DELETE', '/v1/principals/leaver')
  t.match(await renew(t, left), { status: 401, json: { code: 'auth.unmapped' } })
})

slowTest('what is taken away while the body is on its way is not renewed, however soon the rest comes', async (t) => {
  const ways = {
    keyCompromise: 'auth.revoked',
    certificateHold: 'auth.revoked',
    'of a sibling': 'key.blocked',
    closed: 'auth.unmapped',
  }
  for (const [way, code] of Object.entries(ways)) {
    for (const pause of [0, 1_100]) {
      const leaver = await employ(service, `slow ${way} ${pause}`.replaceAll(' ', '-'), 'requester', {
        profiles: ['server'],
      })
      const held = await issue(['slow.example.com'], { token: leaver })
      const path = `/v1/certificates/${held.serial}/renewal`
      const slow = await trickle(service, path, { client: held, body: { csr: csrOn(newKey()) } })
      const sibling =
        way === 'of a sibling' ? await issue(['slow.example.com'], { token: leaver, key: keyOf(held) }) : held
      const reason = way === 'certificateHold' ? way : 'keyCompromise'
      const taken =
        way === 'closed'
          ? await service.request('DELETE', `/v1/principals/slow-${way}-${pause}`)
          : await service.request('POST', `/v1/certificates/${sibling.serial}/revocation`, { body: { reason } })
      t.ok(taken.status < 300, taken.text)
      await sleep(pause)
      t.same((await slow.finish()).code, code, `${way}, after ${pause} ms`)
    }
  }
})

slowTest('a token that is deleted while the body is on its way asks for nothing any more, on any route', async (t) => {
  const cases = [
    ['requester', '/v1/certificates', { csr: csrOn(newKey(), ['slow.example.com']), profile: 'server' }],
    ['admin', '/v1/principals', { name: 'slow-made' }],
  ] as const
  await Promise.all(
    cases.map(async ([role, path, body]) => {
      const principal = `slow-${role}`
      await employ(service, principal, role, role === 'requester' ? { profiles: ['server'] } : {})
      const { json } = await service.request('POST', '/v1/tokens', { body: { principal, label: 'slow' } })
      const slow = await trickle(service, path, { token: json.secret, body })
      t.equal((await service.request('DELETE', `/v1/tokens/${json.id}`)).status, 204)
      await sleep(2_100)
      t.same(await slow.finish(), { status: 401, code: 'auth.invalid' }, path)
    }),
  )
  t.equal((await service.request('GET', '/v1/principals/slow-made')).status, 404)
})

t.test('what came of a certificate is found from any of its row, and revoked by it', async (t) => {
  const first = await issue(['row.example.com'], { token })
  const other = await issue(['row.example.com'], { token })
  const renewed = async (held: TestHolder): Promise<TestHolder> => {
    const key = newKey()
    return holderOf(await renew(t, held, { csr: csrOn(key) }), key)
  }
  const second = await renewed(first)
  const third = await renewed(second)
  const branch = await renewed(first)
  const row = [first, second, third, branch].map(({ serial }) => serial)
  for (const serial of row) {
    const { json } = await service.request('GET', `/v1/certificates?row=${serial.toUpperCase()}&count=true`)
    t.same(json.items.map((item: { serial: string }) => item.serial).reverse(), row)
    t.same(json.count, { rows: 4, exact: true })
  }
  t.equal((await service.request('GET', `/v1/certificates?row=${other.serial}`)).json.items.length, 1)
  t.same((await service.request('GET', `/v1/certificates?row=${'0'.repeat(32)}`)).json.items, [])
  const stranger = await employ(service, 'stranger', 'requester', { profiles: ['server'] })
  t.same((await service.request('GET', `/v1/certificates?row=${first.serial}`, { token: stranger })).json.items, [])

  const operator = await employ(service, 'ops', 'operator')
  const ask = { search: { row: third.serial }, reason: 'keyCompromise' }
  const post = (body: unknown) => service.request('POST', '/v1/revocations', { token: operator, body })
  t.match(await post({ ...ask, search: { row: '0'.repeat(32) } }), {
    status: 404,
    json: { code: 'certificate.not_found' },
  })
  const plan = await post(ask)
  t.match(plan.json, { count: 4, search: { row: third.serial } })
  const { digest } = plan.json
  t.equal((await post({ ...ask, digest })).status, 202)
  while ((await service.request('GET', `/v1/revocations/${digest}`)).json.state !== 'done') await sleep(50)
  const { json } = await service.request('GET', `/v1/certificates?row=${branch.serial}&status=revoked`)
  t.equal(json.items.length, 4)
  t.equal((await renew(t, other)).status, 201, 'and no other one')
})

t.test('by that certificate and no other, and by nothing beside it', async (t) => {
  const mine = await issue(['mine.example.com'], { token })
  const other = await issue(['other.example.com'], { token })
  const path = `/v1/certificates/${mine.serial}/renewal`
  const body = { csr: csrOn(newKey()) }
  const code = async (answering: Promise<{ status: number; json: { code: string } }>) => {
    const { status, json } = await answering
    return `${status} ${json.code}`
  }
  for (const token of [undefined, null]) {
    const { json } = await service.request('POST', path, { body, ...(token === null && { token }) })
    t.match(json.detail, /^This call takes the certificate itself, over mutual TLS, and no token\.$/)
    t.notMatch(json.next, /grant/, 'which no administrator has for it')
    t.notMatch(json.next, /a token of yours(?!.*; detail says where only one of them will do\.$)/, 'nor is one wanted')
  }
  t.equal(await code(hold(t, other).request('POST', path, { body })), '403 renewal.certificate')
  t.equal(await code(service.request('POST', path, { body })), '403 renewal.certificate', 'not even an administrator')
  t.equal(await code(service.request('POST', path, { body, token: null })), '401 auth.missing')
  t.equal(await code(hold(t, mine).request('POST', path, { body, token })), '401 auth.ambiguous')
  const forger = openClientCa('Forger')
  t.equal(await code(hold(t, forger.certify()).request('POST', path, { body })), '403 renewal.certificate')
  const forged = forger.certify({ serial: mine.serial })
  t.equal(await code(hold(t, forged).request('POST', path, { body })), '403 renewal.foreign')
  t.equal(await code(hold(t, forged).request('GET', `${path}-info`)), '403 renewal.foreign')
  const { subjectDer: issuer, keyIdentifier: authorityKey } = service.service.issuers.all()[0]?.issuer.facts ?? {}
  const alike = forger.certify({ serial: mine.serial, ...(issuer && authorityKey && { issuer, authorityKey }) })
  const by = parseCertificate(alike.der).facts.issuer
  t.same(by, issuer, 'it says to be ours')
  t.equal(
    await code(hold(t, alike).request('POST', path, { body })),
    '403 renewal.foreign',
    'it is not that of the records',
  )
  // A certificate that is not for clients is nobody anywhere else.
  const nobody = await hold(t, mine).request('GET', `/v1/certificates/${mine.serial}`)
  t.match(nobody, {
    status: 401,
    json: { code: 'auth.missing', detail: /a client certificate is none here: neither / },
  })
  t.equal((await hold(t, mine).request('GET', '/livez')).status, 200)
  const answer = await hold(t, mine).request('GET', `/v1/certificates/${mine.serial}`, { token })
  t.equal(answer.status, 200, 'nor is there anything that a token could contradict')
})

t.test('without the setting no certificate is asked for', async (t) => {
  const silent = await openTestService(t, { CHANCERY_CLIENT_RENEWAL: 'no' }, service)
  const held = await issue(['silent.example.com'], { token })
  const body = { csr: csrOn(newKey()) }
  const answer = await openHoldersOf(silent)
    .hold(t, held)
    .request('POST', `/v1/certificates/${held.serial}/renewal`, { body })
  t.match(answer, { status: 401, json: { code: 'auth.missing' } })
})

t.test('an issuer that was halted vouches for nobody any more', async (t) => {
  const held = await issue(['halted.example.com'], { token })
  const info = () => hold(t, held).request('GET', `/v1/certificates/${held.serial}/renewal-info`)
  t.equal((await info()).json.reason, 'age')
  const halt = { move: 'halt', reason: 'stolen' }
  t.equal((await service.request('POST', '/v1/issuers/default/moves', { body: halt })).status, 200)
  t.match(await renew(t, held), { status: 403, json: { code: 'renewal.issuer' } })
  const { json } = await info()
  t.equal(json.reason, 'issuer-ended')
  t.ok(Date.parse(json.suggestedWindow.end) <= Date.now(), 'now')
})

t.test('the records hold together after all of it', async (t) => {
  t.same(await faultsInRecords(service.database.ownerUrl, []), [])
})
