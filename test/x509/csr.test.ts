import { execFileSync } from 'node:child_process'

import t from 'tap'

import { parseRequest, verifyPossession } from '../../src/x509/csr.ts'
import { showRequest } from '../../src/x509/library.ts'
import { parsePem } from '../../src/x509/pem.ts'
import {
  attribute,
  bits,
  dns,
  extension,
  extensionRequest,
  hex,
  host,
  ip,
  nil,
  octets,
  oid,
  request,
  san,
  seq,
  tlv,
  uri,
  utf8,
} from './build.ts'

t.test('a request is read as it was meant, and as the library reads it', async (t) => {
  const der = request({
    subject: seq(tlv(0x31, seq(oid('2.5.4.3'), utf8('host.example.com')))),
    extensions: [
      san(dns('HOST.example.com'), ip('7f000001'), uri('spiffe://td/a')),
      extension('2.5.29.15', hex('030205a0'), hex('0101ff')),
      extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.1'), oid('1.2.3.4'))),
    ],
  })
  const csr = parseRequest(der)
  t.same(csr.subject, [{ type: 'commonName', value: 'host.example.com' }])
  t.same(csr.names, [
    { kind: 'dns', value: 'host.example.com' },
    { kind: 'ip', value: '127.0.0.1' },
    { kind: 'uri', value: 'spiffe://td/a' },
  ])
  t.same(csr.keyUsage, ['digitalSignature', 'keyEncipherment'])
  t.same(csr.extendedKeyUsage, ['serverAuth', '1.2.3.4'])
  t.same(csr.dropped, [])
  t.equal(csr.signatureAlgorithm.id, 'ecdsa-sha256')
  t.equal(csr.key.algorithm.id, 'ec-p256')
  t.ok(csr.der.equals(der))
  await t.resolves(verifyPossession(csr))

  const shown = showRequest(der)
  t.equal(shown.subject, 'CN=host.example.com')
  t.same(
    shown.names.map(({ value }) => value),
    ['HOST.example.com', '127.0.0.1', 'spiffe://td/a'],
  )
  t.equal(shown.keyUsage, 5)
  t.ok(shown.spki.equals(csr.key.spki))
})

t.test('what no ECDSA signature is, is refused before anybody verifies it', (t) => {
  const pair = (r: string, s: string) => bits(seq(hex(r), hex(s)))
  for (const signature of [pair('020100', '020101'), pair('020101', '0201ff'), pair('02020001', '020101')])
    t.throws(() => parseRequest(request({ signature })), { code: 'csr.pop' })
  t.end()
})

t.test('a request has 16 KiB at most', (t) => {
  const signature = bits(seq(hex('020101'), hex('020101')))
  const of = (octetsMore: number) =>
    request({
      signature,
      attributes: tlv(0xa0, extensionRequest(host), attribute('1.2.3.5', octets(Buffer.alloc(octetsMore)))),
    })
  const der = of(16_000 + 16_384 - of(16_000).length)
  t.equal(der.length, 16_384)
  t.ok(parseRequest(der))
  t.throws(() => parseRequest(Buffer.concat([der, hex('00')])), { code: 'csr.too_large' })
  t.end()
})

t.test('what is not asked for is absent, not empty', async (t) => {
  const csr = parseRequest(request())
  t.notOk('keyUsage' in csr)
  t.notOk('extendedKeyUsage' in csr)
})

t.test('what is dropped is named with its reason, and never with its value', async (t) => {
  const secret = 'correct horse battery staple'
  const csr = parseRequest(
    request({
      attributes: tlv(
        0xa0,
        extensionRequest(
          host,
          extension('2.5.29.14', octets(Buffer.from(secret))),
          extension('1.2.3.4', utf8(secret)),
          extension('2.5.29.32', seq(seq(oid('2.5.29.32.0')))),
        ),
        attribute('1.2.840.113549.1.9.7', utf8(secret)),
        attribute('1.2.3.5', utf8(secret)),
      ),
    }),
  )
  t.same(
    csr.dropped.map(({ field }) => field),
    [
      '/extensions/subjectKeyIdentifier',
      '/extensions/1.2.3.4',
      '/extensions/certificatePolicies',
      '/attributes/challengePassword',
      '/attributes/1.2.3.5',
    ],
  )
  t.notMatch(JSON.stringify(csr.dropped), secret)
})

t.test('names in an attribute of Microsoft are not read, and the note says where they are', (t) => {
  const microsoft = attribute('1.3.6.1.4.1.311.2.1.14', seq(host))
  const { names, dropped } = parseRequest(request({ attributes: tlv(0xa0, microsoft) }))
  t.same(names, [])
  t.match(dropped, [{ field: '/attributes/microsoftExtensions', reason: /are read from extensionRequest/ }])
  t.end()
})

/** What tools sign by when nobody says otherwise, or could: PHP and wolfSSL, Java, Python. */
const refusedSignatures: Readonly<Record<string, readonly [identifier: Buffer, said: RegExp]>> = {
  'RSA with SHA-1': [seq(oid('1.2.840.113549.1.1.5'), nil), /is RSA with SHA-1, which is broken/],
  'ECDSA with SHA-1': [seq(oid('1.2.840.10045.4.1')), /is ECDSA with SHA-1, which is broken/],
  'ECDSA with SHA-224': [seq(oid('1.2.840.10045.4.3.1')), /is ECDSA with SHA-224, which is too short/],
  'ECDSA with SHA3-256': [seq(oid('2.16.840.1.101.3.4.3.10')), /is ECDSA with SHA-3, not SHA-2/],
  'RSA with SHA3-512': [seq(oid('2.16.840.1.101.3.4.3.16'), nil), /is RSA with SHA-3, not SHA-2/],
  'PSS without parameters': [seq(oid('1.2.840.113549.1.1.10')), /is RSASSA-PSS otherwise than .* a salt as long as it/],
  'ECDSA with NULL': [seq(oid('1.2.840.10045.4.3.2'), nil), /is ecdsa-sha256 with parameters that are not its own/],
  another: [seq(oid('1.2.3.4')), /is unknown/],
}
for (const [title, [algorithm, said]] of Object.entries(refusedSignatures))
  t.test(`${title}: the problem names the signature that is not accepted, and where it stands`, (t) => {
    const der = request({ algorithm })
    t.throws(() => parseRequest(der), {
      code: 'csr.sig_alg',
      message: said,
      options: { offset: der.indexOf(algorithm) },
    })
    t.end()
  })

for (const [arc, said] of [
  [33, /restricted to what is hashed before \(HashML-DSA\); use a plain ML-DSA key/],
  [20, /an SLH-DSA key/],
  [46, /an SLH-DSA key/],
] as const)
  t.test(`a key of FIPS 204 or 205 that is not taken is named (${arc})`, (t) => {
    const key = seq(seq(oid(`2.16.840.1.101.3.4.3.${arc}`)), bits(Buffer.alloc(32, 7)))
    t.throws(() => parseRequest(request({ spki: key })), { code: 'key.unsupported', message: said })
    t.end()
  })

t.test('an offset in a problem is a place in the octets that were sent', async (t) => {
  const der = request({ extensions: [san(dns('host.example.com'), dns('bad..example.com'))] })
  try {
    parseRequest(der)
    t.fail('it was accepted')
  } catch (error) {
    const { offset } = (error as { options: { offset: number } }).options
    t.equal(der.toString('latin1', offset + 2, offset + 18), 'bad..example.com')
  }
})

t.test('a blocked key stops the request', async (t) => {
  t.throws(() => parseRequest(request(), { blocked: () => true }), { code: 'key.blocked' })
})

const families: readonly (readonly [string, readonly string[]])[] = [
  ['rsa', ['-newkey', 'rsa:2048']],
  ['rsa', ['-newkey', 'rsa:3072', '-sha512']],
  ['ec-p256', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']],
  ['ec-p384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-sha384']],
  ['ec-p521', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521', '-sha512']],
  ['ed25519', ['-newkey', 'ed25519']],
  ['ml-dsa-44', ['-newkey', 'ML-DSA-44']],
  ['ml-dsa-65', ['-newkey', 'ML-DSA-65']],
  ['ml-dsa-87', ['-newkey', 'ML-DSA-87']],
]

for (const [id, options] of families) {
  t.test(`a request by openssl for ${options.slice(1).join(' ')} is accepted`, async (t) => {
    const text = execFileSync(
      'openssl',
      [
        'req',
        '-new',
        '-nodes',
        '-keyout',
        '/dev/null',
        '-subj',
        '/C=DE/O=Example/CN=host.example.com',
        '-addext',
        'subjectAltName=DNS:host.example.com',
        ...options,
      ],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    )
    const csr = parseRequest(parsePem(text, 'CERTIFICATE REQUEST'))
    t.equal(csr.key.algorithm.id, id)
    await t.resolves(verifyPossession(csr))
  })
}

t.test('a hundred proofs of possession at once keep apart the good from the bad', async (t) => {
  const good = parseRequest(request())
  const bad = { ...good, signature: parseRequest(request({ extensions: [san(dns('other.example.com'))] })).signature }
  const results = await Promise.allSettled(
    Array.from({ length: 100 }, (_, i) => verifyPossession(i % 2 === 0 ? good : bad)),
  )
  t.ok(results.every(({ status }, i) => status === (i % 2 === 0 ? 'fulfilled' : 'rejected')))
})

t.test('nothing that is not DER reaches the shape', async (t) => {
  for (const der of [Buffer.alloc(0), nil, seq(), seq(seq()), seq(seq(), seq()), seq(seq(), seq(), nil)]) {
    t.throws(() => parseRequest(der), { code: 'csr.der' })
  }
})
