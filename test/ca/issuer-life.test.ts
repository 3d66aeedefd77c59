import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import pg from 'pg'
import t, { type Test } from 'tap'

import type { Move } from '../../src/ca/issuers/issuer-moves.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { memoryKey, named, openTestRoot, span } from '../helpers/ceremony.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { printable, rdn, seq } from '../x509/build.ts'

const run = promisify(execFile)
const root = openTestRoot()
const subject = named('Issuing 2027')

/** A service, and an issuer that has been asked for: its CSR in PEM. */
const openRequested = async (t: Test, env: Readonly<Record<string, string>> = {}, name = 'default-2027') => {
  const service = await openTestService(t, env)
  const asked = await service.request('POST', '/v1/issuer-requests', { body: { name, authority: 'default', subject } })
  t.equal(asked.status, 201)
  return { service, csr: asked.json.csr as string }
}
const importChain = (service: TestService, chain: string, name = 'default-2027', more: object = {}) =>
  service.request('PUT', `/v1/issuers/${name}`, { body: { chain, ...more } })
const move = (service: TestService, name: string, made: Move, reason?: string) =>
  service.request('POST', `/v1/issuers/${name}/moves`, { body: { move: made, ...(reason && { reason }) } })
const issue = (service: TestService, name = 'web.example.com') =>
  service.request('POST', '/v1/certificates', { body: { csr: csrFor(name), profile: 'server' } })
const states = async (service: TestService): Promise<Readonly<Record<string, string>>> =>
  Object.fromEntries(
    (await service.request('GET', '/v1/issuers')).json.items.map((issuer: { name: string; state: string }) => [
      issuer.name,
      issuer.state,
    ]),
  )
/** A certificate may have its URL already: whoever asked for what is not there, a moment before, keeps nobody from it. */
const fetchedByAnyone = async ({ publicUrl }: TestService, file: string): Promise<Buffer> => {
  const answer = await fetch(`${publicUrl}/issuers/${file}`)
  if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`)
  return Buffer.from(await answer.arrayBuffer())
}
const eventsOf = async (service: TestService, type: string) =>
  (await service.request('GET', `/v1/events?type=${type}&limit=1000`)).json.items.map(({ entry }: { entry: string }) =>
    JSON.parse(entry),
  )

slowTest('a new issuer is asked for, certified elsewhere, imported, and takes the place of the old one', async (t) => {
  const { service, csr } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
  const folder = await mkdtemp(join(tmpdir(), 'chancery-life-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await writeFile(join(folder, 'issuer.csr'), csr)
  const { stdout } = await run('openssl', ['req', '-in', join(folder, 'issuer.csr'), '-verify', '-noout', '-subject'])
  t.match(stdout, /O\s*=\s*Tests, CN\s*=\s*Issuing 2027/)
  t.match((await service.request('GET', '/v1/issuer-requests')).json.items, [{ name: 'default-2027', csr }])

  const publicStatus = async (path: string): Promise<number> => (await fetch(`${service.publicUrl}${path}`)).status
  const places = ['/issuers/default-2027.cer', '/crl/default-2027/0.crl']
  t.same(await Promise.all(places.map(publicStatus)), [404, 404])
  const staged = await importChain(service, root.certify(csr) + root.pem)
  t.same(await Promise.all(places.map(publicStatus)), [200, 503], 'of its list it is known that there will be one')
  t.equal(staged.status, 201)
  t.match(staged.json, { name: 'default-2027', authority: 'default', state: 'staged', chain: [root.pem] })
  t.match((await importChain(service, root.certify(csr) + root.pem)).json, {
    code: 'state.exists',
    detail: /None is renewed: another one follows it, with a name and a key of its own\./,
  })
  const before = await issue(service)
  t.equal(before.json.issuer, 'default', 'one that is staged signs nothing')

  const moved = await move(service, 'default-2027', 'activate', 'rotation')
  t.match(moved.json, { state: 'active' })
  t.match(await states(service), { default: 'retiring', 'default-2027': 'active', etcd: 'active' })
  const after = await issue(service)
  t.match(after.json, { issuer: 'default-2027', chain: [staged.json.certificate] })
  const leaf = new X509Certificate(after.json.certificate)
  t.ok(leaf.verify(new X509Certificate(staged.json.certificate).publicKey))
  t.match(leaf.infoAccess, /http:\/\/pki.test\/issuers\/default-2027.cer/)
  const der = await fetchedByAnyone(service, 'default-2027.cer')
  t.equal(new X509Certificate(der).toString(), staged.json.certificate)

  const replay = await service.request('GET', `/v1/certificates/${before.json.serial}`)
  t.equal(replay.json.certificate, before.json.certificate, 'what the old one signed stays readable')
  t.match(await eventsOf(service, 'issuer.activated'), [
    { issuer: 'default-2027', from: 'staged', reason: 'rotation', by: 'admin' },
  ])
  t.match(await eventsOf(service, 'issuer.retiring'), [{ issuer: 'default', from: 'active' }])
  t.match(await eventsOf(service, 'issuer.requested'), [{ issuer: 'default-2027', key: 'file:keys/default-2027.pem' }])
  const opened = await eventsOf(service, 'key.opened')
  t.same(new Set(opened.map(({ issuer }: { issuer: string }) => issuer)).size, 5)

  // And back again, since nothing ties a retiring one down.
  t.match((await move(service, 'default', 'activate')).json, { state: 'active' })
  t.equal((await issue(service)).json.issuer, 'default')
  t.match(await states(service), { default: 'active', 'default-2027': 'retiring' })
})

slowTest('whoever imports an issuer says how many lists it has, for good; 128 unless said', async (t) => {
  const { service, csr } = await openRequested(t)
  const chain = root.certify(csr) + root.pem
  for (const [shards, reason] of [
    [0, /1/],
    [-1, /1/],
    [1025, /1024/],
    [1.5, /whole|integer/],
    ['1', /whole|integer/],
    [null, /whole|integer/],
  ] as const) {
    const refused = await importChain(service, chain, 'default-2027', { shards })
    t.equal(refused.status, 400, String(shards))
    t.match(refused.json, { code: 'request.malformed', violations: [{ field: '/shards', reason }] })
  }
  const staged = await importChain(service, chain, 'default-2027', { shards: 1024 })
  t.equal(staged.status, 201, staged.text)
  t.equal(staged.json.shards, 1024)
  const { json } = await service.request('GET', '/v1/issuers')
  t.same(
    json.items.map(({ shards }: { shards: number }) => shards),
    [128, 128, 128, 128, 1024],
  )
  t.match(await eventsOf(service, 'issuer.created'), [...Array(4).fill({ shards: 128 }), { shards: 1024 }])

  const again = await importChain(service, chain, 'default-2027', { shards: 1024 })
  t.match(again.json, { code: 'state.exists', detail: /with this very certificate, and is staged\.$/ })
  for (const [more, told] of [
    [{ shards: 1 }, '1'],
    [{}, '128'],
  ] as const)
    t.match(
      (await importChain(service, chain, 'default-2027', more)).json,
      { code: 'state.exists', detail: /staged\. It has 1024 lists for good: another number is another issuer's\.$/ },
      told,
    )
})

slowTest(
  'an issuer is named to the octet as in its own certificate, whatever type its strings are of there',
  async (t) => {
    const { service, csr } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
    const asked = parseRequest(parsePem(csr, 'CERTIFICATE REQUEST'))
    const written = seq(rdn('2.5.4.10', printable('Tests')), rdn('2.5.4.3', printable('Issuing 2027')))
    t.notSame(written, encodeSubject(asked.subject))
    // It is asked of openssl, which would take one for the other, and of the octets, as Go does.
    const issuer = root.certify(csr, { subject: written })
    t.equal((await importChain(service, issuer + root.pem)).status, 201)
    t.equal((await move(service, 'default-2027', 'activate')).status, 200)
    const { certificate, chain } = (await issue(service)).json
    const { facts } = parseCertificate(parsePem(certificate, 'CERTIFICATE'))
    t.same(facts.issuer, written)
    await service.service.publishCrls()
    const list = Buffer.from(
      await (await fetch(`${service.publicUrl}${new URL(facts.crlUrls[0] ?? '').pathname}`)).arrayBuffer(),
    )
    t.same(parseCrl(list).issuer, written)

    const folder = await mkdtemp(join(tmpdir(), 'chancery-life-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const at = (name: string): string => join(folder, name)
    const files = { leaf: certificate, issuer: chain.join(''), root: root.pem }
    for (const [name, text] of Object.entries(files)) await writeFile(at(name), text)
    await writeFile(at('list'), list)
    const path = ['-CAfile', at('root'), '-untrusted', at('issuer')]
    const checked = ['-crl_check', '-CRLfile', at('list'), at('leaf')]
    t.match((await run('openssl', ['verify', '-x509_strict', ...path, ...checked])).stdout, /leaf: OK/)
    const url = ['-url', `${service.publicUrl}/ocsp/default-2027`]
    const told = await run('openssl', [
      'ocsp',
      ...url,
      '-issuer',
      at('issuer'),
      '-cert',
      at('leaf'),
      '-CAfile',
      at('root'),
    ])
    t.match(told, { stdout: /leaf: good/, stderr: /Response verify OK/ })
  },
)

t.test('the bundle holds the old and the new, and says until when each is needed', async (t) => {
  const { service, csr } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
  const bundle = async (query = '', headers: Readonly<Record<string, string>> = {}) =>
    service.request('GET', `/v1/authorities/default/bundle${query}`, {
      headers: { accept: 'application/json', ...headers },
    })
  const old = await bundle()
  t.equal(old.json.items.length, 1)
  const tag = String(old.headers['etag'])
  t.equal((await bundle('', { 'if-none-match': tag })).status, 304)
  const certificate = root.certify(csr)
  await importChain(service, certificate + root.pem)
  const both = await bundle('', { 'if-none-match': tag })
  t.equal(both.status, 200, 'it has changed')
  t.match(both.json.items, [{ issuers: ['default'] }, { issuers: ['default-2027'] }])
  t.match((await bundle('?anchors=roots')).json.items, [{ issuers: ['default'] }, { issuers: ['default-2027'] }])
  const pem = await bundle('', { accept: 'application/x-pem-file' })
  t.equal(pem.text.match(/BEGIN CERTIFICATE/g)?.length, 2)

  const far = new Date(both.json.items[0].neededUntil).getTime()
  await move(service, 'default-2027', 'activate')
  const [going, coming] = (await bundle()).json.items
  const until = new Date(going.neededUntil).getTime()
  t.ok(until < far, 'no longer than what it has signed can live')
  const longest = 90 * 86_400_000
  t.ok(Math.abs(until - Date.now() - longest) < 60_000, 'the longest validity of a profile of this authority')
  t.equal(coming.neededUntil, new X509Certificate(certificate).validToDate.toISOString())
  await move(service, 'default', 'halt', 'compromised')
  t.equal((await bundle()).json.items.length, 2, 'one that is halted still has certificates')
})

slowTest('a chain that does not fit is refused, with all that is wrong', async (t) => {
  const { service, csr } = await openRequested(t)
  const elsewhere = openTestRoot('Elsewhere')
  const brief = openTestRoot('Brief', 30)
  const other = parsePublicKey(memoryKey().spki)
  const fine = root.certify(csr)
  const broken = ((): string => {
    const der = parsePem(fine, 'CERTIFICATE')
    der[der.length - 1] = (der.at(-1) ?? 0) ^ 1
    return `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`
  })()
  const cases: readonly (readonly [string, string, string, readonly string[]])[] = [
    ['another key', root.certify(csr, { key: other }) + root.pem, 'issuer.key', []],
    ['another subject', root.certify(csr, { subject: named('Other') }) + root.pem, 'issuer.chain', ['chain.subject']],
    ['no root', fine, 'issuer.chain', ['chain.path', 'chain.signature']],
    ['another root', fine + elsewhere.pem, 'issuer.chain', ['chain.path', 'chain.authorityKey', 'chain.signature']],
    ['a root of the same name', fine + openTestRoot().pem, 'issuer.chain', ['chain.authorityKey', 'chain.signature']],
    ['a broken signature', broken + root.pem, 'issuer.chain', ['chain.signature']],
    ['further authorities', root.certify(csr, { pathLength: 1 }) + root.pem, 'issuer.chain', ['chain.pathLength']],
    ['outlives its root', brief.certify(csr) + brief.pem, 'issuer.chain', ['chain.outlives']],
    [
      'expired',
      root.certify(csr, span(10, Date.now() - 20 * 86_400_000)) + root.pem,
      'issuer.chain',
      ['chain.validity'],
    ],
    [
      'not valid yet',
      root.certify(csr, span(10, Date.now() + 86_400_000)) + root.pem,
      'issuer.chain',
      ['chain.validity'],
    ],
    ['its root twice', fine + root.pem + root.pem, 'issuer.chain', ['chain.once']],
    ['the wrong order', root.pem + fine, 'issuer.chain', ['chain.order']],
    ['no PEM', 'nothing', 'issuer.chain', ['chain.pem']],
    ['text between', `${fine}hello\n${root.pem}`, 'issuer.chain', ['chain.pem']],
    ['too long', fine.repeat(9), 'issuer.chain', ['chain.pem']],
    ['no certificate', csr, 'issuer.chain', ['chain.pem']],
    [
      'no DER',
      `-----BEGIN CERTIFICATE-----\n${Buffer.from('no').toString('base64')}\n-----END CERTIFICATE-----\n`,
      'issuer.chain',
      ['chain.certificate'],
    ],
  ]
  for (const [what, chain, code, checks] of cases) {
    const { status, json } = await importChain(service, chain)
    t.equal(status, 422, what)
    t.equal(json.code, code, what)
    t.same((json.violations ?? []).map(({ check }: { check: string }) => check).sort(), [...checks].sort(), what)
  }
  const said = async (chain: string): Promise<string> => (await importChain(service, chain)).json.detail
  const digest = parseRequest(parsePem(csr, 'CERTIFICATE REQUEST')).key.sha256.toString('hex')
  t.match(await said(root.certify(csr, { key: other }) + root.pem), `whose public key has the SHA-256 ${digest}.`)
  t.match(
    await said(root.pem + fine),
    '/chain/1: it is the certificate for the key that was made, which must be the first.',
  )
  t.match(await said(fine), '/chain/0: it is the last one of the chain, and no root: those above it are missing.')
  t.match(
    await said(root.certify(csr, { subject: named('Other') }) + root.pem),
    /its subject is CN=Other,O=Tests, and CN=[^,]+,O=[^,]+ was asked for\.$/,
  )
  t.match(await said(root.certify(csr, { pathLength: 1 }) + root.pem), 'its pathLenConstraint is 1, and must be 0')
  t.match(
    await said(brief.certify(csr) + brief.pem),
    /it outlives the certificate above it, which ends at 20[0-9TZ:-]+\.$/,
  )
  const ahead = new Date(Math.ceil(Date.now() / 1000) * 1000 + 86_400_000)
  const { json: early } = await importChain(service, root.certify(csr, span(10, ahead.getTime())) + root.pem)
  t.match(
    early.detail,
    `it is not valid before ${ahead.toISOString().replace('.000', '')}: wait for that, or see whether`,
  )
  t.equal((await importChain(service, fine + root.pem, 'nobody')).json.code, 'issuer.not_found')
  t.notOk((await states(service))['default-2027'], 'and nothing of it was kept')
  t.equal((await importChain(service, fine + root.pem)).status, 201)
  t.match((await importChain(service, fine + root.pem)).json, {
    status: 409,
    code: 'state.exists',
    detail: /^The issuer default-2027 was imported already, with this very certificate, and is staged\.$/,
  })
  t.match((await importChain(service, root.certify(csr) + root.pem)).json, {
    status: 409,
    code: 'state.exists',
    detail: /None is renewed: another one follows it/,
  })
})

slowTest('a name or a key of another issuer is not taken, and a key that is there is', async (t) => {
  const { service, csr } = await openRequested(t)
  const ask = (body: object) =>
    service.request('POST', '/v1/issuer-requests', { body: { authority: 'default', subject, ...body } })
  const requested =
    /^The issuer default-2027 is requested already, .*: "chancery issuer csr default-2027" prints its request again\.$/
  for (const [body, detail] of [
    [{ name: 'default' }, /^There is an issuer called default already\.$/],
    [{ name: 'default-2027' }, requested],
    [{ name: 'default-2027', key: 'file:keys/second.pem' }, requested],
    [{ name: 'thief', key: 'file:keys/default.pem' }, /^The key file:keys\/default\.pem is that of another issuer\.$/],
    [{ name: 'thief', key: 'file:keys/default-2027.pem' }, /^The key file:keys\/default-2027\.pem is that of/],
  ] as const)
    t.match((await ask(body)).json, { code: 'state.exists', status: 409, detail }, JSON.stringify(body))
  const keys = join(service.config.dataDir, 'keys')
  await t.rejects(readFile(join(keys, 'second.pem')), { code: 'ENOENT' }, 'no key is made for a name that is taken')
  const away = await ask({ name: 'away', key: 'pkcs11:token=none;object=x?module-path=/nowhere.so' })
  t.match(away.json, { code: 'issuer.token', status: 422, retryable: false, detail: /nowhere/ })
  for (const key of [
    'file:../outside.pem',
    'file:keys/../keys/default.pem',
    'file:keys//default.pem',
    'file:./keys/default.pem',
    'file:/etc/key.pem',
    // What else lies in the data folder is read as something else, and is in no backup of keys.
    'file:postgres/cluster/standby.signal',
    'file:offline-root/next.pem',
    'file:next.pem',
    'file:roll/key.pem',
    'file:keys',
    'file:keys.pem',
    'file:keys/passphrase',
    'pkcs11:x',
    'pkcs11:token=ca',
    'pkcs11:slot-id=3;object=a',
    'pkcs11:token=ca;object=z?pin-value=swordfish',
    'pkcs11:token=ca;object=z?pin-value=sword&fish',
    'pkcs11:token=ca;object=z?pin-source=swordfish',
    'pkcs11:token=ca;object=z?x-signature=nonsense',
  ]) {
    const { json, text } = await ask({ name: 'out', key })
    t.match(json, { code: 'request.malformed', retryable: false, violations: [{ check: 'issuer.keyUri' }] }, key)
    t.notMatch(text, /sword|fish/, 'and nothing of a PIN is said')
  }
  t.match((await ask({ name: 'odd', key: 'http://x' })).json, { code: 'request.malformed' })
  t.match((await ask({ name: 'bad', subject: [{ type: 'country', value: 'Germany' }] })).json, {
    code: 'subject.syntax',
  })
  t.equal((await ask({ name: 'rsa', algorithm: 'rsa' })).status, 201)
  await copyFile(join(keys, 'rsa.pem'), join(keys, 'rsa-copy.pem'))
  t.match(
    (await ask({ name: 'rsa-2', algorithm: 'rsa-4096', key: 'file:keys/rsa-copy.pem' })).json,
    { code: 'state.exists', detail: /already, of the type rsa-3072\.$/ },
    'a ceremony takes no fewer bits',
  )
  // Where Kubernetes mounts it.
  await copyFile(join(keys, '../roll/key.pem'), join(keys, 'roll.pem'))
  t.match((await ask({ name: 'roll', algorithm: 'ed25519', key: 'file:keys/roll.pem' })).json, {
    code: 'state.exists',
    detail: /which signs the roll, and nothing else/,
  })
  const { json } = await ask({ name: 'ed', algorithm: 'ed25519' })
  t.match(json, { key: 'file:keys/ed.pem' })
  const again = await ask({ name: 'ed-2', algorithm: 'ec-p256', key: 'file:keys/ed.pem' })
  t.match(again.json, { code: 'state.exists' })
  await copyFile(join(keys, 'ed.pem'), join(keys, 'ed-copy.pem'))
  const other = await ask({ name: 'ed-2', algorithm: 'ec-p256', key: 'file:keys/ed-copy.pem' })
  t.match(other.json, { code: 'state.exists', detail: /already, of the type ed25519\.$/ })
  t.equal((await importChain(service, root.certify(json.csr) + root.pem, 'ed')).status, 201)
  t.match((await importChain(service, root.certify(csr) + root.pem, 'ed')).json.code, /issuer.key|state.exists/)
})

slowTest('one key is one issuer, whatever it is called where', async (t) => {
  const { service, csr } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
  const ask = (name: string, key: string) =>
    service.request('POST', '/v1/issuer-requests', { body: { name, authority: 'default', subject, key } })
  const keys = join(service.config.dataDir, 'keys')
  await copyFile(join(keys, 'default-2027.pem'), join(keys, 'copy.pem'))
  await copyFile(join(keys, 'etcd.pem'), join(keys, 'etcd-copy.pem'))
  for (const copy of ['copy', 'etcd-copy'])
    t.match((await ask('thief', `file:keys/${copy}.pem`)).json, { code: 'state.exists', status: 409 }, copy)
  const chain = root.certify(csr) + root.pem
  t.equal((await importChain(service, chain)).status, 201)
  await move(service, 'default-2027', 'halt', 'its key was copied')
  t.match((await ask('thief', 'file:keys/copy.pem')).json, { code: 'state.exists' }, 'for good')
  t.equal((await ask('thief', 'file:keys/own.pem')).status, 201, 'and the name is still free')

  // Requests of before, when the text of the URI was all that was compared.
  const owner = new pg.Client(service.database.ownerUrl)
  await owner.connect()
  await owner.query(
    `insert into issuer_requests (name, authority, key_uri, csr, created_by)
    select 'older', authority, 'file:keys//default-2027.pem', csr, created_by from issuer_requests where name = $1`,
    ['default-2027'],
  )
  await owner.end()
  for (const again of [chain, root.certify(csr) + root.pem])
    t.match((await importChain(service, again, 'older')).json, { code: 'state.exists', status: 409 })
  t.notOk((await states(service))['older'])
})

t.test('two active issuers with different types of key: the requester gets what fits its own key', async (t) => {
  const { service } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
  const asked = await service.request('POST', '/v1/issuer-requests', {
    body: { name: 'default-pq', authority: 'default', subject, algorithm: 'ml-dsa-65' },
  })
  t.equal((await importChain(service, root.certify(asked.json.csr) + root.pem, 'default-pq')).status, 201)
  t.equal((await move(service, 'default-pq', 'activate')).status, 200)
  t.match(await states(service), { default: 'active', 'default-pq': 'active' }, 'neither takes the place of the other')
  t.equal((await issue(service)).json.issuer, 'default')
})

t.test(
  'an ML-DSA-87 issuer of an ML-DSA-87 root, the largest there is, is taken, and its certificate is of no other',
  async (t) => {
    const { service } = await openRequested(t)
    const body = { name: 'large', authority: 'pq', subject, algorithm: 'ml-dsa-87' }
    const asked = await service.request('POST', '/v1/issuer-requests', { body })
    const largest = openTestRoot('Test Root 87', 3_650, memoryKey('ml-dsa-87'))
    const chain = largest.certify(asked.json.csr) + largest.pem
    const imported = await importChain(service, chain, 'large')
    t.equal(imported.status, 201, imported.text)
    t.match(await states(service), { large: 'staged' })
    const certificate = parsePem(chain.slice(0, chain.indexOf(largest.pem)), 'CERTIFICATE')
    t.ok((await fetchedByAnyone(service, 'large.cer')).equals(certificate))
    const owner = new pg.Client(service.database.ownerUrl)
    await owner.connect()
    t.teardown(() => owner.end())
    const again = `insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
    select 'other', authority, certificate, chain, key_uri, public_url, shards from issuers where name = 'large'`
    await t.rejects(owner.query(again), { code: '23505', constraint: 'issuers_by_certificate' })
  },
)

slowTest('an ML-DSA-65 leaf under an ML-DSA-65 issuer is verified by openssl', async (t) => {
  const { service } = await openRequested(t, { CHANCERY_STAGING_TIME: '0s' })
  const asked = await service.request('POST', '/v1/issuer-requests', {
    body: { name: 'pq', authority: 'pq', subject, algorithm: 'ml-dsa-65' },
  })
  const chain = root.certify(asked.json.csr) + root.pem
  t.equal((await importChain(service, chain, 'pq')).status, 201)
  t.equal((await move(service, 'pq', 'activate')).status, 200)
  const profile = {
    name: 'pq-server',
    authority: 'pq',
    validity: { default: '24h', max: '30d', over: 'refuse' },
    keys: [{ mlDsa: ['ML-DSA-65'] }],
    subject: { others: 'refuse' },
    names: { dns: { allow: ['*.example.com'] } },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  }
  const headers = { 'if-none-match': '*' }
  t.equal((await service.request('PUT', '/v1/profiles/pq-server', { headers, body: profile })).status, 201)
  const grant = { principal: 'admin', role: 'requester', profiles: ['pq-server'] }
  t.equal((await service.request('POST', '/v1/grants', { body: grant })).status, 201)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-pq-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const at = (name: string): string => join(folder, name)
  const make = ['req', '-new', '-newkey', 'ML-DSA-65', '-nodes', '-keyout', at('key'), '-subj', '/', '-out', at('csr')]
  await run('openssl', [...make, '-addext', 'subjectAltName=DNS:pq.example.com'])
  const csr = await readFile(at('csr'), 'utf8')
  const issued = await service.request('POST', '/v1/certificates', { body: { csr, profile: 'pq-server' } })
  t.match(issued.json, { issuer: 'pq' }, issued.text)
  await writeFile(at('leaf.pem'), issued.json.certificate)
  await writeFile(at('issuer.pem'), issued.json.chain.join(''))
  await writeFile(at('root.pem'), root.pem)
  const verify = ['verify', '-x509_strict', '-CAfile', at('root.pem'), '-untrusted', at('issuer.pem'), at('leaf.pem')]
  t.match((await run('openssl', verify)).stdout, /leaf\.pem: OK/)
  const { stdout } = await run('openssl', ['x509', '-in', at('leaf.pem'), '-noout', '-text'])
  t.equal(stdout.match(/Signature Algorithm: ML-DSA-65/g)?.length, 2)
  t.match(stdout, /Public Key Algorithm: ML-DSA-65/)
})

slowTest('a new chain is published for a while before it signs, unless there is nobody else', async (t) => {
  const { service, csr } = await openRequested(t, { CHANCERY_STAGING_TIME: '1h' })
  await importChain(service, root.certify(csr) + root.pem)
  const early = await move(service, 'default-2027', 'activate')
  t.match(early.json, { code: 'issuer.state', status: 409, violations: [{ check: 'issuer.published' }] })
  t.match(early.json.detail, /published until 20/)
  t.match((await move(service, 'default', 'retire')).json, { violations: [{ check: 'issuer.last' }] })
  t.equal((await move(service, 'default', 'halt')).json.code, 'request.malformed', 'a halt needs a reason')
  t.equal((await move(service, 'default', 'halt', '   ')).json.code, 'request.malformed', 'and blanks are none')
  t.match((await move(service, 'default', 'halt', 'its key was copied')).json, { state: 'crl-only' })
  const refused = await issue(service)
  t.match(refused.json, { code: 'issuer.none_active', status: 503, retryable: true })
  t.match((await service.request('GET', '/readyz')).json, { ready: true }, 'others go on')
  t.equal((await move(service, 'default-2027', 'activate')).status, 200)
  t.equal((await issue(service)).json.issuer, 'default-2027')
  t.match((await move(service, 'default', 'activate')).json, { code: 'issuer.state' }, 'never again')
  t.match((await move(service, 'default', 'end')).json, {
    detail:
      /^The issuer default: certificates that it signed have not expired yet, and the last one is valid until 20\S+Z\.$/,
    violations: [{ check: 'issuer.living' }],
  })
  t.equal((await move(service, 'nobody', 'halt', 'x')).json.code, 'issuer.not_found')
  t.match(await eventsOf(service, 'issuer.halted'), [{ issuer: 'default', reason: 'its key was copied' }])
})
