/** OCSP as openssl, GnuTLS and caches ask, before and after a revocation; and what never gets an answer. */
import { randomBytes, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { openRevocations } from '../../src/ca/revocation/revoke.ts'
import { databaseClock } from '../../src/db/clock.ts'
import { openDatabase } from '../../src/db/database.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { openOcspStore } from '../../src/db/ocsp.ts'
import { openRevocationStore } from '../../src/db/revocations.ts'
import { codec } from '../../src/server/codec.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { ocspErrors } from '../../src/x509/ocsp.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { type Issued, issueAt, revokeAt } from '../helpers/certificates.ts'
import { quiet } from '../helpers/log.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql } from '../helpers/sql.ts'
import { assertTools, output, run } from '../interop/tools.ts'
import { octets as octetString, oid, seq, tlv } from '../x509/build.ts'

let service: TestService
let folder: string
/** DER of the issuer `default`. */
let issuer: Buffer

t.before(async () => {
  await assertTools('openssl', 'ocsptool', 'curl')
  service = await openTestService(t)
  folder = await mkdtemp(join(tmpdir(), 'chancery-ocsp-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await writeFile(at('root.pem'), service.ca)
  const { certificate } = (await service.request('GET', '/v1/issuers/default')).json
  await writeFile(at('default.pem'), certificate)
  issuer = new X509Certificate(certificate).raw
})

const at = (name: string): string => join(folder, name)

const issue = (profile = 'server', more: object = {}): Promise<Issued> => issueAt(service, { profile, ...more })
const revoke = (serial: string, body?: object): Promise<void> => revokeAt(service, serial, body)
const url = (path = ''): string => `${service.publicUrl}/ocsp/default${path}`
const certIdOf = (serial: string, hash: 'sha1' | 'sha256' = 'sha1'): Buffer => {
  const { subjectDer, spki } = parseCertificate(issuer).facts
  return encodeCertId(hash, subjectDer, keyBits(spki), Buffer.from(serial, 'hex'))
}
const requestFor = (...ids: readonly Buffer[]): Buffer => seq(seq(seq(...ids.map((id) => seq(id)))))
const post = async (body: Buffer, path = ''): Promise<{ readonly answer: Response; readonly octets: Buffer }> => {
  const answer = await fetch(url(path), {
    method: 'POST',
    headers: { 'content-type': 'application/ocsp-request' },
    body,
  })
  return { answer, octets: Buffer.from(await answer.arrayBuffer()) }
}
const statusOf = async (serial: string): Promise<string> => {
  const { octets } = await post(requestFor(certIdOf(serial)))
  const read = parseOcspResponse(octets)
  return read.status === 'successful' ? (read.basic.responses[0]?.status.kind ?? '') : read.status
}
const sql = <Row extends object>(text: string): Promise<readonly Row[]> => askSql(service.database.ownerUrl, text)

t.test('openssl and GnuTLS agree, by POST and by GET, with nonce and without, before and after', async (t) => {
  const { serial, certificate } = await issue()
  await writeFile(at('leaf.pem'), certificate)
  const openssl = async (nonce: string, digest: readonly string[] = []): Promise<string> => {
    const args = [
      'ocsp',
      ...digest,
      '-issuer',
      at('default.pem'),
      '-cert',
      at('leaf.pem'),
      '-CAfile',
      at('root.pem'),
      '-url',
      url(),
    ]
    const { stdout, stderr } = await run('openssl', [...args, nonce])
    return stdout + stderr
  }
  const gnutls = async (...more: readonly string[]): Promise<string> => {
    const args = [`--ask=${url()}`, '--load-issuer', at('default.pem'), '--load-cert', at('leaf.pem'), ...more]
    const { stdout, stderr } = await run('ocsptool', args)
    return stdout + stderr
  }
  const byGet = async (): Promise<string> => {
    await output('openssl', [
      'ocsp',
      '-issuer',
      at('default.pem'),
      '-cert',
      at('leaf.pem'),
      '-no_nonce',
      '-reqout',
      at('req.der'),
    ])
    const request = await readFile(at('req.der'))
    await output('curl', ['-sSf', '-o', at('resp.der'), `${url()}/${encodeURIComponent(request.toString('base64'))}`])
    const args = ['ocsp', '-issuer', at('default.pem'), '-cert', at('leaf.pem'), '-CAfile', at('root.pem')]
    const { stdout, stderr } = await run('openssl', [...args, '-respin', at('resp.der'), '-no_nonce'])
    return stdout + stderr
  }
  const all = async (): Promise<readonly string[]> => [
    await openssl('-no_nonce'),
    await openssl('-nonce'),
    await openssl('-no_nonce', ['-sha256']),
    await byGet(),
  ]
  for (const text of await all()) {
    t.match(text, /Response verify OK/)
    t.match(text, /leaf\.pem: good/)
    t.notMatch(text, /WARNING/)
  }
  for (const nonce of [[], ['--nonce']]) {
    const text = await gnutls(...nonce)
    t.match(text, /Certificate Status: good/)
    t.match(text, /Verifying OCSP Response: Success/)
  }
  await revoke(serial, { reason: 'keyCompromise' })
  for (const text of await all()) {
    t.match(text, /Response verify OK/)
    t.match(text, /leaf\.pem: revoked/)
    t.match(text, /Reason: keyCompromise/)
  }
  for (const nonce of [[], ['--nonce']]) t.match(await gnutls(...nonce), /Certificate Status: revoked/)
})

t.test('the answer changes with the revocation, at once, and with the release', async (t) => {
  const { serial } = await issue()
  for (let round = 0; round < 3; round += 1) {
    t.equal(await statusOf(serial), 'good')
    await revoke(serial, { reason: 'certificateHold' })
    t.equal(await statusOf(serial), 'revoked')
    t.equal((await service.request('DELETE', `/v1/certificates/${serial}/revocation`)).status, 200)
  }
  t.equal(await statusOf(serial), 'good')
})

t.test('another replica knows within two seconds', async (t) => {
  const other = await openTestService(t, {}, service)
  const { serial } = await issue()
  const ask = async (): Promise<string> => {
    const answer = await fetch(`${other.publicUrl}/ocsp/default`, {
      method: 'POST',
      headers: { 'content-type': 'application/ocsp-request' },
      body: requestFor(certIdOf(serial)),
    })
    const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
    return read.status === 'successful' ? (read.basic.responses[0]?.status.kind ?? '') : read.status
  }
  t.equal(await ask(), 'good')
  await revoke(serial)
  const start = performance.now()
  // Of whoever was told good: one that stood still for longer asks the records.
  let lastAsked = 0
  for (let asked = 0; lastAsked < 2_000 && (await ask()) !== 'revoked'; asked = performance.now() - start) {
    lastAsked = asked
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  t.ok(lastAsked < 2_000, `good, asked after ${lastAsked} ms`)
})

slowTest('never good of what is not on record, and nothing final of what is open', async (t) => {
  const unknown = Array.from({ length: 500 }, () => {
    const serial = randomBytes(16)
    serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
    return serial.toString('hex')
  })
  const answers = await Promise.all(unknown.map(statusOf))
  t.same([...new Set(answers)], ['unauthorized'])
  const { serial } = await issue()
  const [{ open = '' } = {}] = await sql<{ open: string }>(`
    insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
    select decode('4545' || repeat('00', 13) || '05', 'hex'), principal, 1, digest, issuer, 5, profile, profile_version, tbs, plan
    from intents where serial = decode('${serial}', 'hex') returning encode(serial, 'hex') as open`)
  t.equal(await statusOf(open), 'tryLater')
  t.equal(await service.service.reconcile(0), 1)
  t.equal(await statusOf(open), 'revoked')
  const foreign = requestFor(certIdOf(serial))
  const byOther = await post(foreign, '/../kubernetes')
  t.same(parseOcspResponse(byOther.octets), { status: 'unauthorized' }, 'another issuer of ours is a foreign one here')
  const self = new X509Certificate(issuer).serialNumber.toLowerCase()
  t.equal(await statusOf(self), 'unauthorized')
})

t.test('whoever is asked knows of a clock of ours that has jumped since', async (t) => {
  const { serial } = await issue()
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  let aheadMs = 0
  const clock = databaseClock(() => new Date(Date.now() + aheadMs), 5_000)
  const { standings } = openOcspStore(db, clock)
  const ask = () => standings('default', [Buffer.from(serial, 'hex')])
  t.match(await ask(), { standings: [{ kind: 'good' }] })
  t.equal(clock.fault(), undefined)
  aheadMs = 86_400_000
  await ask()
  t.match(clock.fault(), /our clock is 86400.\d s ahead of the database's/, 'before anything is signed by it')
})

t.test('what is told of a change is its own place on the roll, also of a release', async (t) => {
  const db = openDatabase({ url: service.database.servingUrl, max: 2, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const roll = openRollWriter(
    db,
    codec,
    databaseClock(() => new Date(), 5_000),
  )
  const told: number[] = []
  const revocations = openRevocations({
    store: openRevocationStore({ db, roll }),
    keyOf: () => Promise.reject(new Error('nobody asks')),
    verifyProof: () => Promise.reject(new Error('nobody asks')),
    isIssuer: async () => false,
    changed: (_serial, index) => void told.push(index),
  })
  const operator = { principal: 'admin', proof: { kind: 'own' }, grants: [{ role: 'operator' }] } as unknown as Caller
  const { serial } = await issue()
  await revocations.revoke(serial, { reason: 'certificateHold', invalidSince: null }, operator)
  await revocations.release(serial, operator)
  await revocations.release(serial, operator)
  const events = await sql<{ index: string }>(
    `select index from entries where serial = '\\x${serial}' and type <> 'certificate.issued' order by index`,
  )
  const [held, released] = events.map(({ index }) => Number(index))
  t.same(told, [held, released, released])
})

t.test('several certificates in one request', async (t) => {
  const [one, two] = [await issue(), await issue()]
  await revoke(two.serial)
  const { octets } = await post(requestFor(certIdOf(one.serial), certIdOf(two.serial, 'sha256'), certIdOf(one.serial)))
  const read = parseOcspResponse(octets)
  if (read.status !== 'successful') return void t.fail(read.status)
  t.same(
    read.basic.responses.map(({ status }) => status.kind),
    ['good', 'revoked', 'good'],
  )
  const unknown = await post(requestFor(certIdOf(one.serial), certIdOf('47'.repeat(16))))
  t.same(unknown.octets, ocspErrors.unauthorized)
  const many = await post(requestFor(...Array.from({ length: 17 }, () => certIdOf(one.serial))))
  t.same(many.octets, ocspErrors.malformedRequest)
})

t.test('by GET it may be kept for a minute, and is the same octets meanwhile', async (t) => {
  const { serial } = await issue()
  const text = requestFor(certIdOf(serial)).toString('base64')
  const first = await fetch(url(`/${encodeURIComponent(text)}`))
  const octets = Buffer.from(await first.arrayBuffer())
  t.equal(first.headers.get('content-type'), 'application/ocsp-response')
  t.equal(first.headers.get('cache-control'), 'max-age=60, public, no-transform, must-revalidate')
  const read = parseOcspResponse(octets)
  if (read.status !== 'successful') return void t.fail(read.status)
  const [single] = read.basic.responses
  t.equal(Date.parse(first.headers.get('last-modified') ?? ''), single?.thisUpdate.getTime())
  t.equal(Date.parse(first.headers.get('expires') ?? ''), single?.nextUpdate.getTime())
  t.equal((single?.nextUpdate.getTime() ?? 0) - (single?.thisUpdate.getTime() ?? 0), 4 * 3_600_000)
  const raw = await fetch(url(`/${text}`))
  t.same(Buffer.from(await raw.arrayBuffer()), octets, 'escaped or not')
  const posted = await post(requestFor(certIdOf(serial)))
  t.same(posted.octets, octets)
  t.equal(posted.answer.headers.get('cache-control'), 'no-store')
  const tag = first.headers.get('etag') ?? ''
  const again = await fetch(url(`/${text}`), { headers: { 'if-none-match': tag } })
  t.equal(again.status, 304)
  const head = await fetch(url(`/${text}`), { method: 'HEAD' })
  t.equal(head.headers.get('content-length'), String(octets.length))
})

t.test('the responder is delegated, short-lived, and not asked about itself', async (t) => {
  const { serial } = await issue()
  const { octets } = await post(requestFor(certIdOf(serial)))
  const read = parseOcspResponse(octets)
  if (read.status !== 'successful') return void t.fail(read.status)
  const { facts } = parseCertificate(read.basic.certificates[0] as Buffer)
  t.same(facts.extendedKeyUsage, ['OCSPSigning'])
  t.same(facts.keyIdentifier, read.basic.responderKeyHash, 'some find it by its identifier alone')
  t.ok(
    facts.extensions.some(({ oid }) => oid === '1.3.6.1.5.5.7.48.1.5'),
    'id-pkix-ocsp-nocheck',
  )
  t.ok(facts.notAfter.getTime() - Date.now() < 8 * 86_400_000)
  t.same(facts.crlUrls, [])
  const found = (await service.request('GET', `/v1/certificates/${facts.serial.toString('hex')}`)).json
  t.match(found, { principal: 'chancery', issuer: 'default' }, 'it is on record like any other')
  const body = { name: 'x', authority: 'default' }
  const taken = await service.request('PUT', '/v1/profiles/chancery-ocsp-00000000', {
    body,
    headers: { 'if-none-match': '*' },
  })
  t.match(taken.json, { code: 'state.reserved' })
})

t.test('nonces come back, up to 128 octets; beyond that they are malformed', async (t) => {
  const { serial } = await issue()
  const nonced = (nonce: Buffer): Buffer => {
    const extension = seq(oid('1.3.6.1.5.5.7.48.1.2'), octetString(octetString(nonce)))
    return seq(seq(seq(seq(certIdOf(serial))), tlv(0xa2, seq(extension))))
  }
  for (const length of [1, 16, 32, 128]) {
    const nonce = randomBytes(length)
    const read = parseOcspResponse((await post(nonced(nonce))).octets)
    t.same(read.status === 'successful' && read.basic.nonce, nonce, `${length} octets`)
  }
  for (const length of [0, 129, 3_000])
    t.same((await post(nonced(randomBytes(length)))).octets, ocspErrors.malformedRequest, `${length} octets`)
  const quiet = await openTestService(t, { CHANCERY_OCSP_NONCES: 'ignore' }, service)
  const answer = await fetch(`${quiet.publicUrl}/ocsp/default`, {
    method: 'POST',
    headers: { 'content-type': 'application/ocsp-request' },
    body: nonced(randomBytes(32)),
  })
  const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
  t.equal(read.status === 'successful' && read.basic.nonce, undefined, 'or are left out, by configuration')
})

t.test('what is no request', async (t) => {
  const { serial } = await issue()
  const good = requestFor(certIdOf(serial))
  for (const [what, body] of [
    ['nothing', Buffer.alloc(0)],
    ['garbage', randomBytes(200)],
    ['truncated', good.subarray(0, -1)],
    ['followed by more', Buffer.concat([good, Buffer.from([0])])],
    ['deep', Buffer.concat(Array.from({ length: 1_000 }, () => Buffer.from([0x30, 0x80])))],
    ['long', Buffer.alloc(4_096, 0x30)],
  ] as const) {
    const { answer, octets } = await post(body)
    t.equal(answer.status, 200, what)
    t.same(octets, ocspErrors.malformedRequest, what)
  }
  t.equal((await post(Buffer.alloc(4_097, 0x30))).answer.status, 413)
  for (const path of [
    '/',

    '/%00',
    '/====',
    '/a',
    '/AAAA AAAA',
    `/${good.toString('base64')}=`,
    `/${'A'.repeat(6_000)}`,
  ]) {
    const answer = await fetch(url(path))
    t.equal(answer.status, 200, path.slice(0, 20))
    t.same(Buffer.from(await answer.arrayBuffer()), ocspErrors.malformedRequest, path.slice(0, 20))
    t.equal(answer.headers.get('cache-control'), 'no-store')
  }
  for (const headers of [
    { 'content-type': 'text/plain' },
    { 'content-type': 'application/ocsp-request', 'content-encoding': 'gzip' },
  ]) {
    const wrong = await fetch(url(), { method: 'POST', headers, body: good })
    t.match(await wrong.json(), { status: 415, code: 'request.media_type' })
  }
  const nobody = await fetch(`${service.publicUrl}/ocsp/nobody`, {
    method: 'POST',
    headers: { 'content-type': 'application/ocsp-request' },
    body: good,
  })
  t.match(await nobody.json(), { code: 'issuer.not_found' })
  t.equal((await fetch(url())).status, 404)
})
