import { createHash, generateKeyPairSync, type KeyExportOptions, type KeyObject, X509Certificate } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { ungranted } from '../../src/ca/access/access.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { csrFor, derFor, employ } from './people.ts'

let service: TestService
let token: string

t.before(async () => {
  service = await openTestService(t)
  token = await employ(service, 'ci', 'requester', { profiles: ['server', 'client'] })
})

const issue = (body: unknown, headers: Record<string, string> = {}, path = '/v1/certificates') =>
  service.request('POST', path, { token, headers, body })

t.test('a JSON request is answered with the certificate, its chain, and its place on the roll', async (t) => {
  const answer = await issue({ csr: csrFor('web.example.com'), profile: 'server', validity: '24h' })
  t.equal(answer.status, 201)
  const { serial, certificate, chain, profile, issuer, notBefore, notAfter, index, leafHash, notes, replayed } =
    answer.json
  t.equal(answer.headers['location'], `/v1/certificates/${serial}`)
  t.match(serial, /^[0-9a-f]{32}$/)
  const leaf = new X509Certificate(certificate)
  t.equal(leaf.serialNumber.toLowerCase(), serial)
  t.equal(leaf.subjectAltName, 'DNS:web.example.com')
  t.equal(chain.length, 1, 'without the root')
  const above = new X509Certificate(chain[0])
  t.ok(leaf.checkIssued(above) && leaf.verify(above.publicKey))
  t.ok(above.verify(new X509Certificate(service.ca).publicKey))
  t.same(profile, { name: 'server', version: 1 })
  t.equal(issuer, 'default')
  t.equal(Date.parse(notAfter) - Date.parse(notBefore), (24 * 3600 - 1) * 1000, 'both ends are in')
  t.match(leafHash, /^[0-9a-f]{64}$/)
  t.same(notes, [])
  t.equal(replayed, false)
  const event = (await service.request('GET', `/v1/events?serial=${serial}`)).json.items[0]
  t.equal(event.index, index)
  t.equal(event.leafHash, leafHash)
  const hashed = createHash('sha256')
    .update(Buffer.concat([Buffer.from([0]), Buffer.from(event.entry)]))
    .digest('hex')
  t.equal(hashed, leafHash, 'RFC 6962 2.1: the hash is over the entry')
})

t.test('the same request as PEM, DER and base64 body gives the same names', async (t) => {
  const der = derFor('raw.example.com')
  const bodies: [string, string | Buffer][] = [
    ['application/x-pem-file', csrFor('raw.example.com')],
    ['application/pkcs10', der],
    ['application/pkcs10', der.toString('base64')],
    ['application/pkcs10', `${der.toString('base64').replaceAll(/.{64}/g, '$&\n')}\n`],
  ]
  for (const [type, body] of bodies) {
    const answer = await issue(body, { 'content-type': type }, '/v1/certificates?profile=server&validity=1h')
    t.equal(answer.status, 201, type)
    t.equal(answer.headers['content-type'], 'application/json; charset=utf-8', 'as of every answer in JSON')
    t.equal(new X509Certificate(answer.json.certificate).subjectAltName, 'DNS:raw.example.com')
    t.equal(Date.parse(answer.json.notAfter) - Date.parse(answer.json.notBefore), 3_599_000)
  }
  for (const body of [
    `${der.toString('base64')}=`,
    `${der.toString('base64').slice(0, -2)}!!`,
    der.toString('base64url'),
    ' ',
    der.toString('hex'),
  ]) {
    const answer = await issue(body, { 'content-type': 'application/pkcs10' }, '/v1/certificates?profile=server')
    t.equal(answer.status, 400)
    t.match(answer.json.code, /^csr\.(pem|der)$/)
  }
})

t.test('Accept chooses JSON, the PEM chain, or the DER certificate, when issuing and when reading', async (t) => {
  const made = await issue(
    { csr: csrFor('accept.example.com'), profile: 'server' },
    { accept: 'application/pem-certificate-chain' },
  )
  t.equal(made.status, 201)
  t.equal(made.headers['content-type'], 'application/pem-certificate-chain')
  const blocks = made.text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []
  t.equal(blocks.join(''), made.text)
  t.equal(blocks.length, 2)
  t.equal(new X509Certificate(blocks[0] ?? '').subjectAltName, 'DNS:accept.example.com', 'leaf first')
  const path = String(made.headers['location'])
  const der = await service.request('GET', path, { token, headers: { accept: 'application/pkix-cert' } })
  t.equal(der.headers['content-type'], 'application/pkix-cert')
  t.same(der.bytes, new X509Certificate(blocks[0] ?? '').raw)
  const chain = await service.request('GET', path, { token, headers: { accept: 'application/pem-certificate-chain' } })
  t.equal(chain.text, made.text)
  const record = (await service.request('GET', path, { token })).json
  t.match(record, {
    status: 'valid',
    principal: 'ci',
    issuer: 'default',
    names: [{ kind: 'dns', value: 'accept.example.com' }],
    certificate: blocks[0],
  })
  const again = await issue(
    derFor('der.example.com'),
    { 'content-type': 'application/pkcs10', accept: 'application/pkix-cert' },
    '/v1/certificates?profile=server',
  )
  t.equal(new X509Certificate(again.bytes).subjectAltName, 'DNS:der.example.com')
})

t.test('a dry run tells every check of an allowed and of a refused request, and records nothing', async (t) => {
  const before = (await service.request('GET', '/v1/refusals?limit=1000')).json.items.length
  const roll = async () =>
    (await service.request('GET', '/v1/events?limit=1000&type=certificate.issued')).json.items.length
  const size = await roll()
  const allowed = await issue({ csr: csrFor('dry.example.com'), profile: 'server' }, {}, '/v1/certificates?dryRun=true')
  t.equal(allowed.status, 200)
  t.equal(allowed.json.allowed, true)
  t.same(allowed.json.violations, [])
  t.ok(allowed.json.checks.length > 10)
  t.equal(Buffer.from(allowed.json.tbs, 'base64')[0], 0x30)
  const refused = await issue({ csr: csrFor('dry.evil.test'), profile: 'server' }, {}, '/v1/certificates?dryRun=true')
  t.equal(refused.status, 200)
  t.match(refused.json, { allowed: false, violations: [{ check: 'names.dns.allow', value: 'dry.evil.test' }] })
  t.equal(refused.json.tbs, undefined)
  for (const body of [
    { csr: 'nothing', profile: 'server' },
    { csr: csrFor('a.example.com'), profile: 'peer' },
  ])
    t.ok((await issue(body, {}, '/v1/certificates?dryRun=true')).status >= 400)
  t.equal((await service.request('GET', '/v1/refusals?limit=1000')).json.items.length, before)
  t.equal(await roll(), size)
})

t.test('a refusal tells every check as the dry run does, and can be read with its code', async (t) => {
  const body = { csr: csrFor('shop.evil.test'), profile: 'server' }
  const dry = await issue(body, {}, '/v1/certificates?dryRun=true')
  const refused = await issue(body)
  t.equal(refused.status, 422)
  t.match(refused.json, { code: 'san.forbidden', retryable: false, violations: dry.json.violations })
  t.same(
    refused.json.checks.map(({ check }: { check: string }) => check),
    dry.json.checks.map(({ check }: { check: string }) => check),
  )
  const [kept] = (await service.request('GET', '/v1/refusals?code=san.forbidden')).json.items
  t.match(kept, { principal: 'ci', profile: 'server', violations: dry.json.violations })
})

const longNames = Array.from({ length: 100 }, (_, i) => `n${i}.${`${'a'.repeat(63)}.`.repeat(3)}example.com`)

t.test('requests that cannot even be read are refusals too', async (t) => {
  const cases: [object, string][] = [
    [{ csr: 'nothing', profile: 'server' }, 'csr.pem'],
    [{ csr: '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', profile: 'server' }, 'csr.key_material'],
    [{ csr: csrFor('a.example.com'), profile: 'server', names: { dns: ['a..example.com'] } }, 'san.syntax'],
    [{ csr: csrFor('a.example.com'), profile: 'server', names: { dns: ['10.0.0.1'] } }, 'san.ip_as_dns'],
    [{ csr: csrFor('a.example.com'), profile: 'server', names: { dns: longNames } }, 'san.count'],
    [{ csr: csrFor('a.example.com'), profile: 'peer' }, 'auth.forbidden'],
    [
      { csr: csrFor('a.example.com'), profile: 'server', names: { dns: ['a.example.com', 'A.example.com'] } },
      'san.duplicate',
    ],
  ]
  for (const [body, code] of cases) {
    const answer = await issue(body)
    t.equal(answer.json.code, code)
    const [kept] = (await service.request('GET', '/v1/refusals?limit=1')).json.items
    t.match(kept, { code, principal: 'ci', profile: (body as { profile: string }).profile })
  }
})

const pairs = [
  generateKeyPairSync('ed25519'),
  generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  generateKeyPairSync('rsa', { modulusLength: 2048 }),
]
const inBase64 = (key: KeyObject, type: 'pkcs8' | 'pkcs1' | 'sec1' | 'spki'): string =>
  (key.export({ format: 'der', type } as KeyExportOptions) as Buffer).toString('base64')
const jwkOf = (key: KeyObject) => key.export({ format: 'jwk' })
const [ofEdwards, ofCurve, , ofRsa] = pairs.map(({ privateKey }) => privateKey) as [
  KeyObject,
  KeyObject,
  unknown,
  KeyObject,
]

/** As many have them: keys without the line that says what they are. */
const unlabelled: readonly unknown[] = [
  ...pairs.flatMap(({ privateKey }) => [inBase64(privateKey, 'pkcs8'), jwkOf(privateKey)]),
  inBase64(ofCurve, 'sec1'),
  inBase64(ofRsa, 'pkcs1'),
  inBase64(ofRsa, 'pkcs8').replaceAll(/.{64}/g, '$&\n'),
  `This is the key of mine\r\n\t${inBase64(ofRsa, 'pkcs8').replaceAll(/.{32}/g, '$&\r\n\t')}`,
  JSON.stringify({ pasted: `It begins in the next line\n${inBase64(ofCurve, 'sec1')}` }),
  inBase64(ofCurve, 'pkcs8').replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', ''),
  { keys: [JSON.stringify(jwkOf(ofEdwards), null, 2)] },
  { kty: 'AKP', alg: 'ML-DSA-44', priv: Buffer.alloc(32).toString('base64url'), pub: 'AA' },
]

t.test('what is public is told as no private key, whatever it stands in', async (t) => {
  const csr = csrFor('a.example.com')
  const der = csr.replaceAll(/-----.*-----|\n/g, '')
  for (const [i, { publicKey }] of pairs.entries())
    for (const known of [inBase64(publicKey, 'spki'), jwkOf(publicKey), { d: 'x', ...jwkOf(publicKey) }]) {
      const { json } = await issue({ csr, profile: 'server', known, der })
      t.equal(json.code, 'request.malformed', `${i}: ${JSON.stringify(known)}`)
    }
})

t.test('a private key that is sent in what is no field is told as one, wherever it stands', async (t) => {
  const csr = csrFor('a.example.com')
  const key = '-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n'
  const sent: unknown[] = [
    { csr, profile: 'server', key },
    { csr, profile: 'server', tls: { files: [key] } },
    { csr, profile: key },
    { csr: `${csr}${key}` },
    { csr: `${csr}${key}`, profile: 'server', validity: 5 },
    { csr, profile: 'server', names: { dns: [key], ip: 5 } },
    // What is told of a name that is none would be kept as well.
    { csr, profile: 'server', names: { dns: [key] } },
    { csr, profile: 'server', [key.replaceAll('\n', ' ')]: 5 },
    // As a shell puts a file in: lines end within a string.
    `{"csr": "x", "profile": "server", "key": "${key}"}`,
  ]
  for (const one of unlabelled) sent.splice(-1, 0, { csr, profile: 'server', key: one })
  const told = { code: 'csr.key_material', detail: 'The body holds a private key: treat it as exposed.' }
  for (const body of sent) {
    const answer = await issue(body as object, { 'content-type': 'application/json' })
    t.equal(answer.status, 400)
    t.match(answer.json, told)
    t.notOk(answer.text.includes('AAAA'), 'and nothing of it comes back')
  }
  const { json } = await issue(
    { items: [...sent.slice(0, -1), { csr, profile: 'server' }] },
    {},
    '/v1/certificates/batch',
  )
  t.match(json.items.at(-1), { status: 201 })
  for (const item of json.items.slice(0, -1)) t.match(item, { status: 400, problem: told })
  const { items } = (await service.request('GET', '/v1/refusals?limit=1000')).json
  t.match(
    items.filter(({ detail }: { readonly detail: string }) => detail === told.detail),
    { length: sent.length },
    'each of the batch, and the one whose shape was right',
  )
  t.notOk(JSON.stringify(items).includes('AAAA'), 'nor is it kept')
  for (const [type, body] of [
    ['json', JSON.stringify({ name: key })],
    ['yaml', `name: |\n  ${key.replaceAll('\n', '\n  ')}`],
    ['yaml', `name: ${key}name: x\n`],
  ] as const) {
    const headers = { 'content-type': `application/${type}`, 'if-none-match': '*' }
    const answer = await service.request('PUT', '/v1/profiles/own', { headers, body })
    t.match(answer.json, told)
    t.notOk(answer.text.includes('AAAA'))
  }
})

t.test('whoever only speaks of a private key is told what is wrong with the body', async (t) => {
  const body = { csr: csrFor('a.example.com'), profile: 'server', note: 'the old PRIVATE KEY is lost' }
  t.match((await issue(body)).json, { code: 'request.malformed', violations: [{ field: '/note' }] })
  t.match((await issue(`${JSON.stringify(body)},`, { 'content-type': 'application/json' })).json, {
    code: 'request.malformed',
  })
})

t.test('names in JSON replace those of the request as a whole', async (t) => {
  const answer = await issue({
    csr: csrFor('old.evil.test'),
    profile: 'server',
    names: { dns: ['New.example.com', 'localhost'], ip: ['127.0.0.1', '::1'] },
  })
  t.equal(answer.status, 201)
  t.equal(
    new X509Certificate(answer.json.certificate).subjectAltName,
    'DNS:new.example.com, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
  )
})

t.test('a key already bound to another principal is key.in_use, and the refusal is kept', async (t) => {
  const other = await employ(service, 'rival', 'requester', { profiles: ['server'] })
  const csr = csrFor('held.example.com')
  t.equal((await issue({ csr, profile: 'server' })).status, 201)
  t.equal((await issue({ csr, profile: 'server' })).status, 201, 'its own principal may go on with it')
  const check = { check: 'key.principal', field: '/key', reason: /is the key of another principal/ }
  const answer = await service.request('POST', '/v1/certificates', { token: other, body: { csr, profile: 'server' } })
  t.equal(answer.status, 409)
  t.match(answer.json, { code: 'key.in_use', retryable: false, detail: /another principal/i, violations: [check] })
  const dry = await service.request('POST', '/v1/certificates?dryRun=true', {
    token: other,
    body: { csr, profile: 'server' },
  })
  t.match(dry.json, { allowed: false, violations: [check] })
  t.ok(dry.json.checks.length > 10, 'with every other check')
  const body = { items: [{ csr, profile: 'server' }] }
  const batch = await service.request('POST', '/v1/certificates/batch', { token: other, body })
  t.match(batch.json.items, [{ status: 409, problem: { code: 'key.in_use' } }])
  const refusals = (await service.request('GET', '/v1/refusals?principal=rival')).json.items
  t.match(refusals, [{ code: 'key.in_use' }, { code: 'key.in_use' }])
  t.equal(refusals.length, 2, 'the dry run is none')
})

t.test('a replayed request returns the first certificate; another under its key is a conflict', async (t) => {
  const body = { csr: csrFor('once.example.com'), profile: 'server' }
  const headers = { 'idempotency-key': 'deploy-17' }
  const [one, two] = await Promise.all([issue(body, headers), issue(body, headers)])
  const three = await issue(body, headers)
  t.equal(one.status, 201)
  t.equal(two.status, 201)
  t.equal(two.json.serial, one.json.serial)
  t.match(three.json, { serial: one.json.serial, certificate: one.json.certificate, replayed: true })
  for (const other of [{ validity: '2h' }, { validity: '24h' }, { csr: csrFor('once.example.com') }]) {
    const { status, json } = await issue({ ...body, ...other }, headers)
    t.equal(status, 409)
    t.match(json, { code: 'idempotency.reused', retryable: false })
  }
  const raw = { ...headers, 'content-type': 'application/x-pem-file' }
  t.match((await issue(body.csr, raw, '/v1/certificates?profile=server')).json, { serial: one.json.serial })
  const revocation = `/v1/certificates/${one.json.serial}/revocation`
  t.equal((await service.request('POST', revocation, { body: { reason: 'superseded' } })).status, 200)
  t.match((await issue(body, headers)).json, { serial: one.json.serial, replayed: true }, 'whatever became of it')
  const { text } = await service.request('GET', '/metrics')
  t.match(text, 'chancery_issuances_total{profile="server",outcome="replayed"} 4\n', 'each but the first')
})

t.test('a refusal is not remembered: what was mended comes under the same key', async (t) => {
  const headers = { 'idempotency-key': 'mended' }
  const names = { ip: ['10.9.9.9'], dns: ['web.evil.test'] }
  const refused = await issue({ csr: csrFor('mended.example.com'), profile: 'server', names }, headers)
  t.match(
    refused.json.violations,
    [{ field: '/names/0', value: 'web.evil.test' }],
    'names count as dns, ip, uri, email',
  )
  const mended = { csr: csrFor('mended.example.com'), profile: 'server' }
  t.match(await issue(mended, headers), { status: 201, json: { replayed: false } })
  t.equal(
    (await issue({ ...mended, names }, headers)).json.code,
    'idempotency.reused',
    'from then on the key is its own',
  )
})

t.test('a batch answers for each item in order, and one that fails fails only itself', async (t) => {
  const items = [
    { csr: csrFor('one.example.com'), profile: 'server', idempotencyKey: 'batch-1' },
    { csr: csrFor('two.evil.test'), profile: 'server' },
    { csr: 'nothing', profile: 'server' },
    { profile: 'server' },
    17,
    { csr: csrFor('three.example.com'), profile: 'peer' },
    { csr: csrFor('four.example.com'), profile: 'server', idempotencyKey: 'white space' },
    { csr: csrFor('five.example.com'), profile: 'server', surprise: true },
    { csr: csrFor('six.example.com'), profile: 'server', names: { dns: ['seven.example.com'] }, validity: '1h' },
    { csr: 'nothing', profile: { toString: 1 } },
  ]
  const answer = await issue({ items }, {}, '/v1/certificates/batch')
  t.equal(answer.status, 200)
  const outcomes = answer.json.items.map(({ status, problem }: { status: number; problem?: { code: string } }) => [
    status,
    problem?.code,
  ])
  t.same(outcomes, [
    [201, undefined],
    [422, 'san.forbidden'],
    [400, 'csr.pem'],
    [400, 'request.malformed'],
    [400, 'request.malformed'],
    [403, 'auth.forbidden'],
    [400, 'idempotency.key'],
    [400, 'request.malformed'],
    [201, undefined],
    [400, 'request.malformed'],
  ])
  t.equal(new X509Certificate(answer.json.items[8].certificate.certificate).subjectAltName, 'DNS:seven.example.com')
  t.same(answer.json.items[7].problem.violations, [
    { check: 'request.body', field: '/surprise', value: '', reason: 'is not a known field' },
  ])
  const kept = (await service.request('GET', '/v1/refusals?limit=8')).json.items
  t.same(
    kept.map(({ profile, code }: { profile: string; code: string }) => `${profile} ${code}`).sort(),
    [
      ' request.malformed',
      ' request.malformed',
      'peer auth.forbidden',
      'server csr.pem',
      'server idempotency.key',
      'server request.malformed',
      'server request.malformed',
      'server san.forbidden',
    ],
    'each that failed is in the records',
  )
  const again = await issue({ items: items.slice(0, 1) }, {}, '/v1/certificates/batch')
  t.match(again.json.items[0], {
    status: 201,
    certificate: { serial: answer.json.items[0].certificate.serial, replayed: true },
  })
  for (const body of [{ items: [] }, {}, { items: new Array(1_001).fill({}) }, { items: 'x' }]) {
    t.equal((await issue(body, {}, '/v1/certificates/batch')).json.code, 'request.malformed')
  }
  const usages = Array.from({ length: 20_000 }, (_, at) => `usage${at}`)
  const wide = await issue({ items: [{ profile: 'server', extendedKeyUsage: usages }] }, {}, '/v1/certificates/batch')
  t.match(wide.json.items, [{ status: 400, problem: { detail: 'An item has at most 131072 characters.' } }])
  const tooLarge = await issue({ items: [{ csr: 'x'.repeat(4 * 1024 * 1024) }] }, {}, '/v1/certificates/batch')
  t.equal(tooLarge.status, 413)
  t.equal(tooLarge.json.code, 'request.too_large')
})

t.test('an extended key usage is the same by its name and by its OID', async (t) => {
  const codes = async (usage: string) => {
    const body = { csr: csrFor('usage.example.com'), profile: 'server', extendedKeyUsage: [usage] }
    const { status, json } = await issue(body)
    return [status, json.violations?.map(({ value }: { value: string }) => value)]
  }
  t.same(await codes('1.3.6.1.5.5.7.3.1'), [201, undefined])
  t.same(await codes('1.3.6.1.5.5.7.3.2'), [422, ['clientAuth']])
  t.same(await codes('1.2.3.4'), [422, ['1.2.3.4']])
})

t.test('key usages that are asked for take the place of those in the CSR, and are held to the profile', async (t) => {
  const asked = (keyUsage: readonly string[]) =>
    issue({ csr: csrFor('usage.example.com'), profile: 'server', keyUsage })
  t.equal((await asked(['digitalSignature'])).status, 201)
  const violations = [{ check: 'keyUsage.allow', field: '/keyUsage', value: 'keyAgreement' }]
  t.match(await asked(['digitalSignature', 'keyAgreement']), { status: 422, json: { violations } })
})

t.test('a batch refuses an Idempotency-Key of its own, which would keep nothing from being issued twice', async (t) => {
  const items = [{ csr: csrFor('one.example.com'), profile: 'server' }]
  const answer = await issue({ items }, { 'idempotency-key': 'all-of-them' }, '/v1/certificates/batch')
  t.equal(answer.status, 400)
  t.match(answer.json, { code: 'idempotency.key', next: /; for a batch, one for each item and none in the header\.$/ })
})

t.test('a batch of hundreds lets others in between', async (t) => {
  const csr = csrFor('many.example.com')
  const batch = issue({ items: new Array(300).fill({ csr, profile: 'server' }) }, {}, '/v1/certificates/batch')
  let alone = 0
  let isDone = false
  const single = (async () => {
    while (!isDone) {
      t.equal((await service.request('GET', '/livez', { token: null })).status, 200)
      alone += 1
    }
  })()
  const answer = await batch
  isDone = true
  await single
  t.equal(
    new Set(answer.json.items.map(({ certificate }: { certificate: { serial: string } }) => certificate.serial)).size,
    300,
  )
  t.ok(alone > 10, `${alone} other calls were answered meanwhile`)
})

t.test('a requester reads and finds its own certificates and nobody else’s', async (t) => {
  const other = await employ(service, 'other', 'requester', { profiles: ['server'] })
  const mine = (await issue({ csr: csrFor('mine.example.com'), profile: 'server' })).json.serial
  t.equal((await service.request('GET', `/v1/certificates/${mine}`, { token })).status, 200)
  const hidden = await service.request('GET', `/v1/certificates/${mine}`, { token: other })
  t.equal(hidden.status, 404)
  t.equal((await service.request('GET', `/v1/certificates/${mine}/proof`, { token: other })).status, 404)
  const unknown = await service.request('GET', `/v1/certificates/${'4a'.repeat(16)}`, { token: other })
  const shape = (text: string, serial: string): string =>
    text.replaceAll(serial, 'X').replace(/"requestId":"[^"]+"/, '')
  t.equal(shape(hidden.text, mine), shape(unknown.text, '4a'.repeat(16)), 'as if it did not exist')
  t.same((await service.request('GET', '/v1/certificates', { token: other })).json.items, [])
  t.same((await service.request('GET', `/v1/certificates?serial=${mine}`, { token: other })).json.items, [])
  t.equal((await service.request('GET', '/v1/certificates?principal=ci', { token: other })).json.code, 'auth.forbidden')
  const all = (await service.request('GET', '/v1/certificates?limit=1000', { token })).json.items
  t.same([...new Set(all.map(({ principal }: { principal: string }) => principal))], ['ci'])
  for (const role of ['auditor', 'operator'] as const) {
    const reader = await employ(service, `the-${role}`, role)
    t.equal((await service.request('GET', `/v1/certificates/${mine}`, { token: reader })).status, 200, role)
    t.equal(
      (await service.request('GET', '/v1/certificates?principal=ci&limit=1', { token: reader })).json.items.length,
      1,
      role,
    )
  }
})

t.test('a serial is found with colons and in upper case', async (t) => {
  const { serial } = (await issue({ csr: csrFor('serial.example.com'), profile: 'server' })).json
  const written = serial.toUpperCase().match(/../g).join(':')
  t.equal((await service.request('GET', `/v1/certificates/${written}`, { token })).json.serial, serial)
  t.equal((await service.request('GET', `/v1/certificates?serial=${written}`, { token })).json.items[0].serial, serial)
})

t.test('a search goes by every filter, in pages, as JSON, NDJSON and CSV', async (t) => {
  const names = ['a', 'b', 'c', 'd', 'e'].map((label) => `${label}.search.example.com`)
  for (const name of names) await issue({ csr: csrFor(name), profile: 'server' })
  const find = async (query: string) => (await service.request('GET', `/v1/certificates?${query}`, { token })).json
  t.equal((await find('name=c.search.example.com')).items.length, 1)
  t.same((await find('status=lost')).violations, [
    { check: 'request.query', field: '/status', value: '', reason: 'must be one of valid, expired, revoked' },
  ])
  t.equal((await find('issuedAfter=yesterday')).violations.length, 1, 'one fault is told once')
  for (const name of ['*search.example.com', 'c.*.example.com', 'c.search.example.com.', '*.'])
    t.match(await find(`name=${name}`), { code: 'request.malformed', violations: [{ field: '/name', value: name }] })
  t.equal((await find('name=*.search.example.com')).items.length, 5)
  const [one] = (await find('name=c.search.example.com')).items
  t.equal((await find(`name=c.search.example.com&key=${one.keySha256}`)).items.length, 1)
  t.equal((await find(`key=${'0'.repeat(64)}`)).items.length, 0)
  t.equal((await find(`name=*.search.example.com&issuedAfter=${one.issuedAt}`)).items.length >= 2, true)
  t.equal((await find('name=*.search.example.com&status=expired')).items.length, 0)
  t.equal((await find('name=*.search.example.com&status=valid&profile=server&issuer=default')).items.length, 5)
  t.equal((await find('name=*.search.example.com&profile=client')).items.length, 0)

  const seen: string[] = []
  let path: string | undefined = '/v1/certificates?name=*.search.example.com&limit=2'
  for (let pages = 0; path !== undefined && pages < 5; pages++) {
    const page = await service.request('GET', path, { token })
    t.equal(page.status, 200)
    seen.push(...page.json.items.map(({ serial }: { serial: string }) => serial))
    path = /^<([^>]+)>; rel="next"$/.exec(String(page.headers['link'] ?? ''))?.[1]
    t.equal(path !== undefined, page.json.next !== undefined)
  }
  t.equal(new Set(seen).size, 5)

  const first = await find('name=*.search.example.com&limit=2')
  t.equal((await find(`name=*.evil.test&limit=2&cursor=${first.next}`)).code, 'request.cursor')
  t.equal((await find('cursor=nonsense')).code, 'request.cursor')

  const get = (accept: string) =>
    service.request('GET', '/v1/certificates?name=*.search.example.com', { token, headers: { accept } })
  const lines = await get('application/x-ndjson')
  t.equal(lines.headers['content-type'], 'application/x-ndjson')
  const values = lines.text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.equal(values.length, 6)
  t.match(values.at(-1), { end: { complete: true, rows: 5 } })
  const csv = await get('text/csv')
  t.match(csv.headers['content-type'], /^text\/csv/)
  t.match(csv.text, /^"serial","status","subject","names",/)
  t.equal(csv.text.trimEnd().split('\r\n').length, 7)
  t.match(csv.text, /\r\n"end","\{""complete"":true,""records"":""certificates"",.+\r\n$/)
})

t.test('whoever mistypes a profile is told of those that its grants are for', async (t) => {
  const detail = 'You have no grant to request certificates of profile "sever". Your grants are for "client", "server".'
  const asker = await employ(service, 'mistyper', 'requester', { profiles: ['server', 'client'] })
  const asked = { csr: csrFor('a.example.com'), profile: 'sever' }
  const answer = await service.request('POST', '/v1/certificates', { token: asker, body: asked })
  t.match(answer, { status: 403, json: { code: 'auth.forbidden', detail } })
  const batch = await service.request('POST', '/v1/certificates/batch', { token: asker, body: { items: [asked] } })
  t.match(batch.json.items[0].problem, { code: 'auth.forbidden', detail })
  const { text } = await service.request('GET', '/metrics')
  t.notMatch(text, '"sever"', 'what anybody makes up is no series')
  const nobody = { principal: 'x', proof: { kind: 'own' } as const, grants: [] }
  t.equal(
    ungranted(nobody, 'x'),
    'You have no grant to request certificates of profile "x". You have none for any profile.',
  )
  const many = Array.from({ length: 25 }, (_, i) => `p${String(i).padStart(2, '0')}`)
  const grant = {
    id: '',
    principal: 'x',
    role: 'requester',
    names: null,
    revoke: false,
    createdAt: new Date(),
    createdBy: '',
  } as const
  t.match(ungranted({ ...nobody, grants: [{ ...grant, profiles: many }] }, 'x'), /"p00", "p01".*"p19" and 5 others\.$/)
})

t.test(
  'a search for an issuer that there has never been is told, for nothing found would be read as an answer',
  async (t) => {
    const auditor = await employ(service, 'issuer-auditor', 'auditor')
    for (const headers of [{}, { accept: 'text/csv' }])
      for (const asker of [auditor, token]) {
        const answer = await service.request('GET', '/v1/certificates?issuer=defualt', { token: asker, headers })
        t.match(answer, { status: 404, json: { code: 'issuer.not_found' } })
      }
    t.equal((await service.request('GET', '/v1/certificates?issuer=etcd', { token: auditor })).status, 200)
    const owner = new pg.Client({ connectionString: service.database.ownerUrl })
    await owner.connect()
    await owner.query(`insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
      select 'new', authority, chain[array_upper(chain, 1)], '{}', 'file:new.pem', public_url, 1 from issuers where name = 'etcd'`)
    await owner.query(`insert into issuer_states (issuer, state) values ('new', 'staged')`)
    await owner.end()
    const found = await service.request('GET', '/v1/certificates?issuer=new', { token: auditor })
    t.equal(found.status, 200, 'one that was made since the last was looked for is there')
  },
)

t.test('a search for a profile that has never existed is told to auditors, and tells requesters nothing', async (t) => {
  const path = '/v1/certificates?profile=sever'
  const auditor = await employ(service, 'search-auditor', 'auditor')
  const answer = await service.request('GET', path, { token: auditor })
  t.equal(answer.status, 404)
  t.match(answer.json, { code: 'profile.not_found', detail: 'There is no profile "sever".' })
  t.same((await service.request('GET', path, { token })).json.items, [])
  t.same((await service.request('GET', '/v1/certificates?profile=etcd-peer', { token: auditor })).json.items, [])

  await issue({ csr: csrFor('a.example.com'), profile: 'sever' })
  const refusals = await service.request('GET', '/v1/refusals?profile=sever', { token: auditor })
  t.match(refusals.json.items, [{ profile: 'sever', code: 'auth.forbidden' }], 'who asked for it all the same is found')
})
