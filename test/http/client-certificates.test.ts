/** Client certificates over real TLS: who is let in, who is not, and why. */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { keyEncipherment, openClientCa, serverAuth, spiffe, type TestClient } from '../helpers/clients.ts'
import { commonName, dns, extension, nil, oid, pem, requestBy, seq, uri, yes } from '../x509/build.ts'
import { openClients } from './clients.ts'

const anyUsage = extension('2.5.29.37', seq(oid('2.5.29.37.0')))
const { ca, service, tie, open, ask } = await openClients(t)

t.test('a certificate is recognised by its fingerprint, by its SPIFFE id, and by its subject and issuer', async (t) => {
  const one = ca.certify()
  await tie('by-fingerprint', { fingerprint: one.fingerprint })
  t.equal(await ask(t, one), 'in')
  t.equal(await ask(t, ca.certify()), 'auth.unmapped', 'another one with the same names')

  const id = 'spiffe://example.com/by/spiffe'
  await tie('by-spiffe', { spiffeId: id })
  t.equal(await ask(t, ca.certify(spiffe(id))), 'in')
  for (const other of [
    `${id}/`,
    `${id}/x`,
    id.replace('/by', '/By'),
    'spiffe://example.com/by/*',
    'spiffe://example.com',
  ])
    t.not(await ask(t, ca.certify(spiffe(other))), 'in', other)
  t.equal(await ask(t, ca.certify({ names: [uri(id), uri('https://example.com/')] })), 'auth.invalid', 'no SVID')
  t.equal(await ask(t, ca.certify({ names: [dns('by.spiffe')] })), 'auth.unmapped')

  const subject = commonName('by subject')
  await tie('by-subject', { subject: subject.toString('base64'), issuer: ca.subject.toString('base64') })
  t.equal(await ask(t, ca.certify({ subject })), 'in')
  t.equal(await ask(t, ca.certify({ subject: commonName('By subject') })), 'auth.unmapped', 'case')
  const printable = Buffer.from(subject.toString('hex').replace('0c0a', '130a'), 'hex')
  t.equal(await ask(t, ca.certify({ subject: printable })), 'auth.unmapped', 'the same text in another encoding')
})

t.test('what it may do are the grants of its principal, and the records name that', async (t) => {
  const client = ca.certify()
  await tie('certified', { fingerprint: client.fingerprint })
  const connection = open(t, { client })
  t.match(await connection.request('POST', '/v1/principals', { body: { name: 'x' } }), { status: 403 })
  const profiles = ['server']
  await service.request('POST', '/v1/grants', { body: { principal: 'certified', role: 'requester', profiles } })
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = pem(requestBy(privateKey, 'certified.example.com'))
  const issued = await connection.request('POST', '/v1/certificates', { body: { csr, profile: 'server' } })
  t.equal(issued.status, 201, issued.text)
  const found = await connection.request('GET', `/v1/certificates/${issued.json.serial}`)
  t.equal(found.json.principal, 'certified')
  t.equal(connection.ports.length, 1, 'all on one connection')
})

t.test(
  'what is wrong with a certificate is told where a trusted CA vouches for it, and nothing where none does',
  async (t) => {
    const subject = commonName('bad days')
    await tie('bad-days', { subject: subject.toString('base64'), issuer: ca.subject.toString('base64') })
    const namesake = openClientCa('Clients of the tests')
    const stranger = openClientCa('Strangers')
    const cases: readonly (readonly [what: string, client: TestClient, code: string])[] = [
      ['good', ca.certify({ subject }), 'in'],
      ['without a key usage', ca.certify({ subject, keyUsage: undefined }), 'in'],
      ['of another CA', stranger.certify({ subject }), 'auth.invalid'],
      ['of another CA that names ours', stranger.certify({ subject, issuer: ca.subject }), 'auth.invalid'],
      ['of a CA with the name of ours', namesake.certify({ subject }), 'auth.invalid'],
      ['with a broken signature', ca.certify({ subject, forged: true }), 'auth.invalid'],
      ['expired', ca.certify({ subject, from: -100, to: -10 }), 'auth.expired'],
      ['not valid yet', ca.certify({ subject, from: 100 }), 'auth.early'],
      ['for servers', ca.certify({ subject, usage: serverAuth }), 'auth.usage'],
      ['for anything', ca.certify({ subject, usage: anyUsage }), 'auth.usage'],
      ['without an extended key usage', ca.certify({ subject, usage: undefined }), 'auth.usage'],
      ['for encipherment', ca.certify({ subject, keyUsage: keyEncipherment }), 'auth.usage'],
      ['of a CA', ca.certify({ subject, isCa: true }), 'auth.usage'],
      ['with a critical extension', ca.certify({ subject, more: [extension('1.2.3.4', nil, yes)] }), 'auth.usage'],
    ]
    for (const [what, client, code] of cases) t.equal(await ask(t, client), code, `a certificate ${what}`)
  },
)

t.test('who shows what a stolen key of an issuer has signed is not let in, and gets somebody up', async (t) => {
  const folder = join(service.config.dataDir, 'keys')
  const passphrase = (await readFile(join(folder, 'passphrase'), 'utf8')).trim()
  const privateKey = createPrivateKey({ key: await readFile(join(folder, 'default.pem'), 'utf8'), passphrase })
  const { certificate } = (await service.request('GET', '/v1/issuers/default')).json
  const { subjectDer, keyIdentifier } = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
  const thief = openClientCa('Thief', { keys: { privateKey, publicKey: createPublicKey(privateKey) } })
  const misused = async () =>
    (await service.request('GET', '/metrics')).text.match(/^chancery_issuer_misused_timestamp_seconds.*$/m)?.[0]
  t.equal(await misused(), undefined)
  const forged = thief.certify({ issuer: subjectDer, authorityKey: keyIdentifier ?? Buffer.alloc(0) })
  t.equal(await ask(t, forged), 'auth.invalid')
  const [, issuer, at] = (await misused())?.match(/\{issuer="(.*)"\} (.*)/) ?? []
  t.equal(issuer, 'default')
  t.ok(Math.abs(Number(at) - Date.now() / 1000) < 60)
})

t.test('one that is tied to two principals lets nobody in', async (t) => {
  const id = 'spiffe://example.com/two'
  const client = ca.certify(spiffe(id))
  await tie('first', { spiffeId: id })
  t.equal(await ask(t, client), 'in')
  await tie('second', { fingerprint: client.fingerprint })
  t.equal(await ask(t, client), 'auth.unmapped')
  t.equal(await ask(t, ca.certify(spiffe(id))), 'in', 'another one of the first')
})

t.test('a certificate and a token at once are refused, whichever is wrong', async (t) => {
  const client = ca.certify()
  await tie('both', { fingerprint: client.fingerprint })
  for (const [shown, token] of [
    [client, service.adminToken],
    [client, 'chy_wrong'],
    [ca.certify(), service.adminToken],
    [openClientCa('Strangers').certify(), service.adminToken],
  ] as const) {
    const answer = await open(t, { client: shown }).request('GET', '/v1/authorities', { token })
    t.match(answer, { status: 401, json: { code: 'auth.ambiguous', retryable: false } })
    t.equal(answer.headers['www-authenticate'], 'Bearer realm="chancery", error="invalid_token"')
  }
  const stranger = open(t, { client: openClientCa('Strangers').certify() })
  t.equal((await stranger.request('GET', '/livez')).status, 200, 'nobody is asked on open routes')
  t.equal((await stranger.request('GET', '/readyz')).json.code, 'auth.invalid', 'but whoever says who it is there')
})

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`a session of ${version} that is resumed is judged anew`, async (t) => {
    const client = ca.certify()
    const id = await tie(`resuming-${version}`, { fingerprint: client.fingerprint })
    const connection = open(t, { client, version, keepAlive: false })
    t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
    t.notOk(connection.isResumed)
    t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
    t.ok(connection.isResumed, 'a resumed session has the certificate of the first')
    await service.request('DELETE', `/v1/credentials/${id}`)
    t.equal((await connection.request('GET', '/v1/authorities')).json.code, 'auth.unmapped')
    t.ok(connection.isResumed)
    t.equal(connection.ports.length, 3)

    const nobody = open(t, { client: null, version, keepAlive: false })
    for (const resumed of [false, true]) {
      t.equal((await nobody.request('GET', '/v1/authorities')).json.code, 'auth.missing')
      t.equal(nobody.isResumed, resumed, 'a session without a certificate has none when it is resumed')
    }
  })
}

t.test('a credential says exactly which certificates it means', async (t) => {
  const tied = async (match: object, principal = 'exact') => {
    const { status, json } = await service.request('POST', '/v1/credentials', {
      body: { principal, label: 'test', ...match },
    })
    return [status, json.violations?.[0]?.reason ?? json.code ?? json.id]
  }
  await service.request('POST', '/v1/principals', { body: { name: 'exact' } })
  await service.request('POST', '/v1/principals', { body: { name: 'other' } })
  const fingerprint = 'ab'.repeat(32)
  const [status, id] = await tied({ fingerprint })
  t.equal(status, 201)
  t.same(await tied({ fingerprint }), [200, id], 'again: nothing has changed')
  t.same(await tied({ fingerprint }, 'other'), [409, 'state.exists'])
  t.same(await tied({ fingerprint: 'cd'.repeat(32) }, 'nobody'), [404, 'principal.not_found'])
  t.same(await tied({ fingerprint: 'cd'.repeat(32) }, 'chancery'), [409, 'state.reserved'])
  const one = 'must have exactly one of fingerprint, spiffeId, and subject with issuer'
  t.same(await tied({}), [400, one])
  t.same(await tied({ fingerprint, spiffeId: 'spiffe://example.com/x' }), [400, one])
  t.match(await tied({ fingerprint: fingerprint.toUpperCase() }), [400, /64 lower-case hexadecimal/])
  t.match(await tied({ fingerprint: fingerprint.slice(1) }), [400, /64 lower-case hexadecimal/])
  const name = commonName('x').toString('base64')
  t.same(await tied({ subject: name }), [400, 'must have subject and issuer, not one alone'])
  t.match(await tied({ subject: 'MAA=', issuer: name }), [400, 'is empty'])
  t.match(await tied({ subject: 'not base64', issuer: name }), [400, /base64/])
  t.match(await tied({ subject: name, issuer: Buffer.from('0500', 'hex').toString('base64') }), [400, /SEQUENCE|tag/])
  t.match(await tied({ spiffeId: 'spiffe://EXAMPLE.com/x' }), [400, /./])
  t.match(await tied({ spiffeId: 'https://example.com/x' }), [400, /must be a URI that begins with spiffe:/])

  t.equal((await service.request('DELETE', `/v1/credentials/${id}`)).status, 204)
  t.equal((await service.request('DELETE', `/v1/credentials/${id}`)).status, 204, 'again')
  t.same((await tied({ fingerprint }, 'other'))[0], 201, 'and what is free may be another’s')
  const { json } = await service.request('GET', '/v1/credentials?principal=exact')
  t.match(json.items, [{ id, fingerprint, spiffeId: null, subject: null, revokedAt: /Z$/ }])
  const gone = '00000000-0000-4000-8000-000000000000'
  t.equal((await service.request('DELETE', `/v1/credentials/${gone}`)).json.code, 'credential.not_found')
  const events = await service.request('GET', '/v1/events?type=credential.revoked&limit=1000')
  t.ok(events.json.items.some(({ entry }: { entry: string }) => JSON.parse(entry).credential === id))
})
