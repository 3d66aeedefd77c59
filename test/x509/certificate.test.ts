import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, hash, type KeyObject, sign, verify, X509Certificate } from 'node:crypto'

import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import {
  defaultSignatureAlgorithm,
  type KeyAlgorithmId,
  keyAlgorithms,
  type SignatureAlgorithm,
  signatureAlgorithms,
} from '../../src/x509/algorithms.ts'
import { encodeCaTbs, isIssuedBy, parseCertificate, parseTbs } from '../../src/x509/certificate.ts'
import { type PublicKey, parsePublicKey } from '../../src/x509/keys.ts'
import { showCertificate } from '../../src/x509/library.ts'
import { parseName } from '../../src/x509/names.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { encodeSubject, formatSubject, type Subject } from '../../src/x509/subject.ts'
import { compileTemplate, encodeCertificate, encodeTbs, type TbsInput, type TemplateInput } from '../../src/x509/tbs.ts'
import { extension, hex, ia5, integer, nil, octets, oid, printable, rdn, seq, tlv } from './build.ts'
import { importPublicKey } from './keys.ts'

interface Pair {
  readonly key: PublicKey
  readonly privateKey: KeyObject
  readonly algorithm: SignatureAlgorithm
}

const pairOf = (id: KeyAlgorithmId, algorithm = defaultSignatureAlgorithm(id)): Pair => {
  const { type, options } = keyAlgorithms[id].generate
  const generate = generateKeyPairSync as unknown as (
    type: string,
    options: object,
  ) => { publicKey: KeyObject; privateKey: KeyObject }
  const { publicKey, privateKey } = generate(type, options)
  return { key: parsePublicKey(publicKey.export({ type: 'spki', format: 'der' })), privateKey, algorithm }
}

const seal = (tbs: Buffer, { privateKey, algorithm }: Pair): Buffer =>
  encodeCertificate(tbs, algorithm, sign(algorithm.hash, tbs, { key: privateKey, ...algorithm.signOptions }))

const issuer = pairOf('ec-p256')
const leaf = pairOf('ec-p256')
const issuerSubject: Subject = [
  { type: 'organization', value: 'Example' },
  { type: 'commonName', value: 'Example CA 1' },
]

const templateInput: TemplateInput = {
  issuer: {
    subject: encodeSubject(issuerSubject),
    keyIdentifier: issuer.key.keyIdentifier,
    signature: issuer.algorithm,
    publicUrl: 'http://ca.example.com/',
    name: 'default-1',
  },
  keyUsage: ['digitalSignature', 'keyEncipherment'],
  extendedKeyUsage: ['serverAuth', 'clientAuth', '1.2.3.4.5'],
  revocation: ['crl', 'ocsp'],
}

const tbsInput: TbsInput = {
  serial: Buffer.from('4f66712439e4988e6b32421afaca0ecf', 'hex'),
  notBefore: new Date('2026-11-24T10:00:00Z'),
  notAfter: new Date('2026-12-24T09:59:59Z'),
  subject: [
    { type: 'country', value: 'DE' },
    { type: 'organization', value: 'Müller & Söhne, "GmbH"' },
    { type: 'commonName', value: 'host.example.com' },
  ],
  key: leaf.key,
  names: [
    parseName('dns', 'HOST.example.com'),
    parseName('dns', '*.example.com'),
    parseName('ip', '10.0.0.1'),
    parseName('ip', '2001:db8:0:0:0:0:0:1'),
    parseName('uri', 'spiffe://example.com/ns/default/sa/web'),
    parseName('email', 'Ann.Lee@EXAMPLE.com'),
  ],
  shard: 7,
}

const dates = (from: { notBefore: Date; notAfter: Date }): string[] => [
  from.notBefore.toISOString(),
  from.notAfter.toISOString(),
]

t.test('the strict reader, @peculiar/x509, node and openssl read the same certificate', async (t) => {
  const der = seal(encodeTbs(compileTemplate(templateInput), tbsInput), issuer)
  const { facts } = parseCertificate(der)
  const shown = showCertificate(der)
  const node = new X509Certificate(der)
  const openssl = execFileSync(
    'openssl',
    ['x509', '-inform', 'DER', '-noout', '-text', '-nameopt', 'RFC2253,utf8,-esc_msb'],
    { input: der },
  ).toString()

  t.equal(facts.serial.toString('hex'), '4f66712439e4988e6b32421afaca0ecf')
  t.equal(shown.serial, facts.serial.toString('hex'))
  t.equal(node.serialNumber.toLowerCase(), facts.serial.toString('hex'))
  t.same(facts.subject, tbsInput.subject)
  t.equal(formatSubject(facts.subject), 'CN=host.example.com,O=Müller & Söhne\\, \\"GmbH\\",C=DE')
  t.match(openssl, `Subject: ${formatSubject(facts.subject)}`)
  t.same(dates(facts), dates(tbsInput))
  t.same(dates(shown), dates(tbsInput))
  t.same([node.validFromDate.toISOString(), node.validToDate.toISOString()], dates(tbsInput))
  t.same(facts.names, tbsInput.names)
  t.same(
    shown.names.map(({ value }) => value),
    [
      'host.example.com',
      '*.example.com',
      '10.0.0.1',
      '2001:db8::1',
      'spiffe://example.com/ns/default/sa/web',
      'Ann.Lee@example.com',
    ],
  )
  t.equal(
    node.subjectAltName,
    'DNS:host.example.com, DNS:*.example.com, IP Address:10.0.0.1, IP Address:2001:DB8:0:0:0:0:0:1, URI:spiffe://example.com/ns/default/sa/web, email:Ann.Lee@example.com',
  )
  t.same(facts.keyUsage, templateInput.keyUsage)
  t.equal(shown.keyUsage, 1 | 4)
  t.same(facts.extendedKeyUsage, templateInput.extendedKeyUsage)
  t.same(shown.extendedKeyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2', '1.2.3.4.5'])
  t.same(node.keyUsage, shown.extendedKeyUsage)
  t.equal(facts.ca, false)
  t.equal(shown.ca, false)
  t.equal(node.ca, false)
  t.ok(facts.spki.equals(leaf.key.spki))
  t.ok(shown.spki.equals(leaf.key.spki))
  t.ok(facts.keyIdentifier?.equals(leaf.key.keyIdentifier))
  t.ok(facts.authorityKeyIdentifier?.equals(issuer.key.keyIdentifier))
  t.same(facts.crlUrls, ['http://ca.example.com/crl/default-1/7.crl'])
  t.same(facts.ocspUrls, ['http://ca.example.com/ocsp/default-1'])
  t.same(facts.issuerUrls, ['http://ca.example.com/issuers/default-1.cer'])
  t.match(openssl, 'URI:http://ca.example.com/crl/default-1/7.crl')
  t.match(openssl, 'OCSP - URI:http://ca.example.com/ocsp/default-1')
  t.match(openssl, 'CA Issuers - URI:http://ca.example.com/issuers/default-1.cer')
  t.same(facts.extensions, shown.extensions)
  t.same(
    facts.extensions.map(({ oid, critical }) => `${oid}${critical ? ' critical' : ''}`),
    [
      '2.5.29.35',
      ...['2.5.29.19 critical', '2.5.29.15 critical', '2.5.29.37'],
      ...['1.3.6.1.5.5.7.1.1', '2.5.29.14', '2.5.29.17', '2.5.29.31'],
    ],
  )
  t.ok(node.verify(importPublicKey(issuer.key)))
})

t.test('subjectAltName is critical exactly when the subject is empty', async (t) => {
  const template = compileTemplate(templateInput)
  const critical = (subject: Subject): boolean | undefined =>
    parseTbs(encodeTbs(template, { ...tbsInput, subject })).extensions.find(({ oid }) => oid === '2.5.29.17')?.critical
  t.equal(critical([]), true)
  t.equal(critical(tbsInput.subject), false)
})

t.test('a certificate without names has no subjectAltName', async (t) => {
  const facts = parseTbs(encodeTbs(compileTemplate(templateInput), { ...tbsInput, names: [] }))
  t.same(facts.names, [])
  t.notOk(facts.extensions.some(({ oid }) => oid === '2.5.29.17'))
})

t.test('no revocation says so with noRevAvail, and points nowhere', async (t) => {
  const facts = parseTbs(encodeTbs(compileTemplate({ ...templateInput, revocation: 'none' }), tbsInput))
  t.same(facts.crlUrls, [])
  t.same(facts.ocspUrls, [])
  t.same(facts.issuerUrls, ['http://ca.example.com/issuers/default-1.cer'])
  t.same(
    facts.extensions.filter(({ oid }) => oid === '2.5.29.56'),
    [{ oid: '2.5.29.56', critical: false }],
  )
})

t.test('each kind of revocation stands alone', async (t) => {
  const only = (kind: 'crl' | 'ocsp') =>
    parseTbs(encodeTbs(compileTemplate({ ...templateInput, revocation: [kind] }), tbsInput))
  t.equal(only('crl').crlUrls.length, 1)
  t.equal(only('crl').ocspUrls.length, 0)
  t.equal(only('ocsp').crlUrls.length, 0)
  t.equal(only('ocsp').ocspUrls.length, 1)
})

t.test('usages that are not given are not encoded', async (t) => {
  const facts = parseTbs(encodeTbs(compileTemplate({ ...templateInput, keyUsage: [], extendedKeyUsage: [] }), tbsInput))
  t.equal(facts.keyUsage, undefined)
  t.equal(facts.extendedKeyUsage, undefined)
})

t.test('every key usage survives', async (t) => {
  const all = [
    'digitalSignature',
    'contentCommitment',
    'keyEncipherment',
    'dataEncipherment',
    'keyAgreement',
    'keyCertSign',
    'cRLSign',
    'encipherOnly',
    'decipherOnly',
  ] as const
  for (const usage of all) {
    t.same(parseTbs(encodeTbs(compileTemplate({ ...templateInput, keyUsage: [usage] }), tbsInput)).keyUsage, [usage])
  }
  t.same(parseTbs(encodeTbs(compileTemplate({ ...templateInput, keyUsage: all }), tbsInput)).keyUsage, all)
  const extendedKeyUsage = ['clientAuth']
  const facts = parseTbs(encodeTbs(compileTemplate({ ...templateInput, extendedKeyUsage }), tbsInput))
  t.same(facts.extendedKeyUsage, extendedKeyUsage, 'one that is extended as well')
})

t.test('a serial is encoded minimally and positive, and comes back with 16 octets', async (t) => {
  const roundTrip = (serial: string): string =>
    parseTbs(
      encodeTbs(compileTemplate(templateInput), { ...tbsInput, serial: Buffer.from(serial, 'hex') }),
    ).serial.toString('hex')
  for (const serial of [
    '4f66712439e4988e6b32421afaca0ecf',
    'ff66712439e4988e6b32421afaca0ecf',
    '0000712439e4988e6b32421afaca0ecf',
    '00800000000000000000000000000001',
    `7f${'00'.repeat(19)}`,
    `80${'00'.repeat(18)}`,
  ]) {
    t.equal(roundTrip(serial), serial)
  }
  for (const serial of ['', '00', '00'.repeat(16), `80${'00'.repeat(19)}`, '01'.repeat(21)]) {
    t.throws(() => roundTrip(serial), RangeError, `serial ${serial}`)
  }
})

t.test('a validity that ends before it begins is a defect', async (t) => {
  const { notBefore, notAfter } = tbsInput
  t.throws(
    () => encodeTbs(compileTemplate(templateInput), { ...tbsInput, notBefore: notAfter, notAfter: notBefore }),
    RangeError,
  )
  const facts = parseTbs(encodeTbs(compileTemplate(templateInput), { ...tbsInput, notAfter: notBefore }))
  t.same(facts.notAfter, notBefore, 'one of a second is none: both its ends are in it')
})

t.test('names and subjects of any length are written whole', async (t) => {
  const names = Array.from({ length: 100 }, (_, i) =>
    parseName('dns', `${'a'.repeat(63)}.${'b'.repeat(60)}.${i}.example.com`),
  )
  const subject: Subject = Array.from({ length: 32 }, (_, i) => ({
    type: 'organizationalUnit',
    value: `${i}`.repeat(32).slice(0, 64),
  }))
  const facts = parseTbs(encodeTbs(compileTemplate(templateInput), { ...tbsInput, names, subject }))
  t.same(facts.names, names)
  t.same(facts.subject, subject)
})

for (const algorithm of signatureAlgorithms) {
  t.test(`an issuer that signs with ${algorithm.id} makes certificates that openssl verifies`, async (t) => {
    const [id] = algorithm.keys as [KeyAlgorithmId]
    const signer = pairOf(id, algorithm)
    const input = {
      ...templateInput,
      issuer: { ...templateInput.issuer, signature: algorithm, keyIdentifier: signer.key.keyIdentifier },
    }
    const der = seal(encodeTbs(compileTemplate(input), tbsInput), signer)
    const { tbs, facts, signature, signatureAlgorithm } = parseCertificate(der)
    t.equal(facts.signatureAlgorithm, algorithm)
    t.equal(signatureAlgorithm, algorithm)
    t.ok(verify(algorithm.hash, tbs, { key: importPublicKey(signer.key), ...algorithm.signOptions }, signature))
    t.ok(new X509Certificate(der).verify(importPublicKey(signer.key)))
  })
}

for (const id of Object.keys(keyAlgorithms) as KeyAlgorithmId[]) {
  t.test(`a certificate for a key of ${id} carries that key`, async (t) => {
    const { key } = pairOf(id)
    const der = seal(encodeTbs(compileTemplate(templateInput), { ...tbsInput, key }), issuer)
    t.ok(parseCertificate(der).facts.spki.equals(key.spki))
    t.ok(new X509Certificate(der).publicKey.equals(importPublicKey(key)))
  })
}

t.test('a root and an intermediate are certificate authorities, and openssl verifies the chain', async (t) => {
  const root = pairOf('ec-p384')
  const rootSubject: Subject = [{ type: 'commonName', value: 'Example Root' }]
  const validity = { notBefore: new Date('2026-01-01T00:00:00Z'), notAfter: new Date('2050-01-01T00:00:00Z') }
  const common = {
    issuer: encodeSubject(rootSubject),
    ...validity,
    authorityKeyIdentifier: root.key.keyIdentifier,
    signature: root.algorithm,
  }
  const rootDer = seal(encodeCaTbs({ ...common, serial: Buffer.from([1]), subject: rootSubject, key: root.key }), root)
  const urls = { crlUrl: 'http://ca.example.com/root.crl', issuerUrl: 'http://ca.example.com/root.cer' }
  const caDer = seal(
    encodeCaTbs({
      ...common,
      ...urls,
      serial: Buffer.from([2]),
      subject: issuerSubject,
      key: issuer.key,
      pathLength: 0,
    }),
    root,
  )
  const leafDer = seal(encodeTbs(compileTemplate(templateInput), tbsInput), issuer)

  const rootFacts = parseCertificate(rootDer).facts
  const caFacts = parseCertificate(caDer).facts
  t.match(rootFacts, {
    ca: true,
    pathLength: undefined,
    keyUsage: ['keyCertSign', 'cRLSign'],
    crlUrls: { length: 0 },
    issuerUrls: { length: 0 },
  })
  t.match(caFacts, { ca: true, pathLength: 0, crlUrls: [urls.crlUrl], issuerUrls: [urls.issuerUrl] })
  t.ok(caFacts.authorityKeyIdentifier?.equals(rootFacts.keyIdentifier as Buffer))
  t.match(showCertificate(caDer), { ca: true, pathLength: 0, keyUsage: 32 | 64 })
  t.same(
    caFacts.extensions.filter(({ critical }) => critical).map(({ oid }) => oid),
    ['2.5.29.19', '2.5.29.15'],
  )
  t.equal(rootFacts.notAfter.toISOString(), '2050-01-01T00:00:00.000Z')

  const folder = t.testdir({
    'root.pem': encodePem('CERTIFICATE', rootDer),
    'ca.pem': encodePem('CERTIFICATE', caDer),
    'leaf.pem': encodePem('CERTIFICATE', leafDer),
  })
  const at = String(Date.parse('2026-12-01T00:00:00Z') / 1000)
  const said = execFileSync('openssl', [
    'verify',
    '-x509_strict',
    '-attime',
    at,
    '-CAfile',
    `${folder}/root.pem`,
    '-untrusted',
    `${folder}/ca.pem`,
    `${folder}/leaf.pem`,
  ]).toString()
  t.match(said, 'leaf.pem: OK')
})

t.test('name constraints are read', async (t) => {
  const constraints = seq(
    tlv(
      0xa0,
      seq(tlv(0x82, Buffer.from('Example.com'))),
      seq(tlv(0x87, hex('0a000000ff000000'))),
      seq(tlv(0xa4, seq())),
    ),
    tlv(0xa1, seq(tlv(0x81, Buffer.from('.example.org')))),
  )
  const { nameConstraints } = parseTbs(tbsWith(extension('2.5.29.30', constraints, hex('0101ff'))))
  t.same(nameConstraints, {
    permitted: [
      { kind: 'dns', value: 'example.com' },
      { kind: 'ip', value: '10.0.0.0/255.0.0.0' },
      { kind: 'other', value: 'a4' },
    ],
    excluded: [{ kind: 'email', value: '.example.org' }],
  })
})

t.test('what a certificate does not say is not read into it: a CA, a URL, another key or serial', async (t) => {
  const [address, other] = [1, 3].map((n) => tlv(0x86, Buffer.from(`http://pki.example/${n}`))) as [Buffer, Buffer]
  const directory = tlv(0xa4, seq(rdn('2.5.4.3', printable('http://pki.example/2'))))
  const pointOf = (...names: readonly Buffer[]): Buffer => seq(tlv(0xa0, tlv(0xa0, ...names)))
  const access = (method: number, location: Buffer): Buffer => seq(oid(`1.3.6.1.5.5.7.48.${method}`), location)
  const { ca, names, crlUrls, ocspUrls, issuerUrls } = parseTbs(tbsOf({}))
  t.same(
    { ca, names, crlUrls, ocspUrls, issuerUrls },
    { ca: false, names: [], crlUrls: [], ocspUrls: [], issuerUrls: [] },
  )
  const facts = parseTbs(
    tbsWith(
      extension('2.5.29.31', seq(pointOf(directory, address), seq(tlv(0xa2, directory)), pointOf(directory))),
      extension(
        '1.3.6.1.5.5.7.1.1',
        seq(access(1, directory), access(1, address), access(3, address), access(2, directory), access(1, other)),
      ),
      extension('2.5.29.35', seq(tlv(0xa1, directory), tlv(0x82, hex('05')))),
    ),
  )
  const url = 'http://pki.example/1'
  t.same([facts.ca, facts.crlUrls, facts.issuerUrls], [false, [url], []])
  t.same(facts.ocspUrls, [url, 'http://pki.example/3'], 'each of several, of which one may be anywhere')
  t.equal(facts.authorityKeyIdentifier, undefined)
  t.equal(facts.authoritySerial?.toString('hex'), '05'.padStart(32, '0'))
})

/** A TBSCertificate by hand, with these extensions. */
const tbsWith = (...extensions: readonly Buffer[]): Buffer => tbsOf({ extensions: [tlv(0xa3, seq(...extensions))] })

const tbsOf = (parts: {
  version?: Buffer
  serial?: Buffer
  algorithm?: Buffer
  validity?: Buffer
  extensions?: readonly Buffer[]
}): Buffer =>
  seq(
    parts.version ?? tlv(0xa0, integer(2)),
    parts.serial ?? integer(5),
    parts.algorithm ?? seq(oid('1.2.840.10045.4.3.2')),
    seq(rdn('2.5.4.3', printable('CA'))),
    parts.validity ?? seq(tlv(0x17, Buffer.from('261124100000Z')), tlv(0x17, Buffer.from('261224100000Z'))),
    seq(),
    leaf.key.spki,
    ...(parts.extensions ?? []),
  )

const refusals: readonly (readonly [string, () => Buffer, string])[] = [
  ['version 1', () => tbsOf({ version: Buffer.alloc(0) }), 'policy.lint'],
  ['version 2', () => tbsOf({ version: tlv(0xa0, integer(1)) }), 'policy.lint'],
  ['serial 0', () => tbsOf({ serial: integer(0) }), 'policy.lint'],
  ['a negative serial', () => tbsOf({ serial: hex('0201ff') }), 'policy.lint'],
  ['a serial of 21 octets', () => tbsOf({ serial: integer(2n ** 160n) }), 'policy.lint'],
  ['an unknown signature algorithm', () => tbsOf({ algorithm: seq(oid('1.2.3')) }), 'policy.lint'],
  ...[
    '2611241000Z',
    '261124100000',
    '261124100000+0000',
    '26112410000Z0',
    '261324100000Z',
    '261131100000Z',
    '261124240000Z',
    '261124106000Z',
  ].map(
    (time) =>
      [
        `UTCTime ${time}`,
        () => tbsOf({ validity: seq(tlv(0x17, Buffer.from(time)), tlv(0x17, Buffer.from('261224100000Z'))) }),
        'policy.lint',
      ] as const,
  ),
  [
    'GeneralizedTime before 2050',
    () => tbsOf({ validity: seq(tlv(0x17, Buffer.from('261124100000Z')), tlv(0x18, Buffer.from('20491224100000Z'))) }),
    'policy.lint',
  ],
  [
    'fractions of a second',
    () =>
      tbsOf({ validity: seq(tlv(0x17, Buffer.from('261124100000Z')), tlv(0x18, Buffer.from('20551224100000.5Z'))) }),
    'policy.lint',
  ],
  [
    'a third time in its validity',
    () =>
      tbsOf({ validity: seq(...['261124', '261224', '271224'].map((day) => tlv(0x17, Buffer.from(`${day}100000Z`)))) }),
    'policy.lint',
  ],
  ['an empty list of extensions', () => tbsWith(), 'ext.syntax'],
  ['an extension twice', () => tbsWith(extension('1.2.3', nil), extension('1.2.3', nil)), 'ext.duplicate'],
  [
    'two lists of extensions',
    () => tbsOf({ extensions: [tlv(0xa3, seq(extension('1.2.3', nil)), seq())] }),
    'ext.syntax',
  ],
  [
    'something after the extensions',
    () => tbsOf({ extensions: [tlv(0xa3, seq(extension('1.2.3', nil))), nil] }),
    'policy.lint',
  ],
  ['an explicit FALSE', () => tbsWith(extension('1.2.3', nil, hex('010100'))), 'policy.lint'],
  [
    'a name constraint with a minimum',
    () => tbsWith(extension('2.5.29.30', seq(tlv(0xa0, seq(tlv(0x82), tlv(0x80, hex('01'))))))),
    'ext.syntax',
  ],
  ['octets after the TBS', () => Buffer.concat([tbsOf({}), nil]), 'policy.lint'],
  ['a key identifier that is no OCTET STRING', () => tbsWith(extension('2.5.29.14', ia5('x'))), 'ext.syntax'],
  [
    'something after a key identifier',
    () => tbsWith(extension('2.5.29.14', Buffer.concat([octets(nil), nil]))),
    'ext.syntax',
  ],
]

for (const [name, tbs, code] of refusals) {
  t.test(`a TBS with ${name} is refused with ${code}`, async (t) => {
    t.throws(() => parseTbs(tbs()), { code })
  })
}

t.test('a certificate whose two signature algorithms differ is refused', async (t) => {
  const tbs = encodeTbs(compileTemplate(templateInput), tbsInput)
  const other = encodeCertificate(tbs, defaultSignatureAlgorithm('ed25519'), Buffer.alloc(64))
  t.throws(() => parseCertificate(other), { code: 'policy.lint' })
  t.throws(() => parseCertificate(other, 'request.malformed'), { code: 'request.malformed' })
})

t.test('a certificate is of three parts, with nothing behind them', async (t) => {
  const { signature } = templateInput.issuer
  const parts = [encodeTbs(compileTemplate(templateInput), tbsInput), signature.identifier, tlv(0x03, Buffer.alloc(65))]
  t.doesNotThrow(() => parseCertificate(seq(...parts)))
  for (const bad of [Buffer.concat([seq(...parts), nil]), seq(...parts, nil), seq(...parts.slice(0, 2))])
    t.throws(() => parseCertificate(bad), { code: 'policy.lint' })
})

t.test('who has signed goes by the name, and by the key where both tell it', async (t) => {
  const [name, other] = [encodeSubject([]), encodeSubject([{ type: 'commonName', value: 'Other' }])]
  const [key, another] = [hex('01'), hex('02')]
  const told = (by: Buffer, wanted: Buffer | undefined, found: Buffer | undefined) =>
    isIssuedBy(
      { issuer: by, ...(wanted && { authorityKeyIdentifier: wanted }) },
      { subjectDer: name, ...(found && { keyIdentifier: found }) },
    )
  for (const [wanted, found, is] of [
    [key, key, true],
    [key, another, false],
    [key, undefined, true],
    [undefined, key, true],
    [undefined, undefined, true],
  ] as const) {
    t.equal(told(name, wanted, found), is)
    t.equal(told(other, wanted, found), false)
  }
})

t.test('what old certificates have is told by its name', async (t) => {
  const tbs = (version: Buffer[], algorithm: Buffer): Buffer => seq(...version, integer(0x11), algorithm)
  const three = [tlv(0xa0, integer(2))]
  for (const [what, octets, told] of [
    ['version 1', tbs([], seq(oid('1.2.840.113549.1.1.11'), nil)), /the version is not 3/],
    ['SHA-1', tbs(three, seq(oid('1.2.840.113549.1.1.5'), nil)), /is RSA with SHA-1, which is broken/],
    [
      'PSS of its own',
      tbs(three, seq(oid('1.2.840.113549.1.1.10'), seq())),
      /is RSASSA-PSS otherwise than with one hash/,
    ],
    ['another', tbs(three, seq(oid('1.2.3'))), /the signature algorithm is unknown/],
  ] as const)
    t.throws(() => parseTbs(octets), { message: told }, what)
})

t.test('so is one whose two signature algorithms are the same in other octets, as Go and OpenSSL do', async (t) => {
  const signature = defaultSignatureAlgorithm('rsa')
  const { issuer: by } = templateInput
  const tbs = encodeTbs(compileTemplate({ ...templateInput, issuer: { ...by, signature } }), tbsInput)
  const withoutNull = { ...signature, identifier: seq(oid('1.2.840.113549.1.1.11')) }
  t.equal(parseCertificate(encodeCertificate(tbs, signature, Buffer.alloc(256))).signatureAlgorithm, signature)
  t.throws(() => parseCertificate(encodeCertificate(tbs, withoutNull, Buffer.alloc(256))), {
    message: /the two signature algorithms differ/,
  })
})

t.test('one changed octet never yields anything but facts or a problem', async (t) => {
  const tbs = encodeTbs(compileTemplate(templateInput), tbsInput)
  for (let at = 0; at < tbs.length; at++) {
    for (const flip of [0x01, 0x80, 0xff]) {
      const changed = Buffer.from(tbs)
      changed[at] = (changed[at] as number) ^ flip
      try {
        parseTbs(changed)
      } catch (error) {
        if (!isProblem(error)) t.fail(`octet ${at}: ${error}`)
      }
    }
  }
})

t.test('a CA certificate without the newer extensions has the octets that it always had', async (t) => {
  const spki = hex('302a300506032b6570032100f33c5d448ce721fca4a3983b56a475dbe4bb0adde5c2463eda1e7fb5c626a8c0')
  const key = parsePublicKey(spki)
  const input = {
    serial: Buffer.from('4f66712439e4988e6b32421afaca0ecf', 'hex'),
    issuer: encodeSubject(issuerSubject),
    subject: issuerSubject,
    notBefore: new Date('2026-11-24T10:00:00Z'),
    notAfter: new Date('2051-11-24T09:59:59Z'),
    key,
    authorityKeyIdentifier: key.keyIdentifier,
    signature: defaultSignatureAlgorithm('ed25519'),
  }
  const urls = { crlUrl: 'http://ca.example.com/root.crl', issuerUrl: 'http://ca.example.com/root.cer' }
  for (const [more, digest] of [
    [{}, '9f9e52d9d879a57073dc643292b2cc47c67d6ae210a5a207230d301068802c06'],
    [{ pathLength: 0 }, '716d6c649fa80c7040d79bebe3af3c060fd796dadb394dd5f599fb7a75be5a68'],
    [{ pathLength: 1, ...urls }, '27b81e51a896bd6baafc1345b599c2b80c4410128e4974c393ce061d7b2a3182'],
  ] as const)
    t.equal(hash('sha256', encodeCaTbs({ ...input, ...more })), digest)
  const nameConstraints = { permitted: [{ kind: 'dns', value: 'example.com' }], excluded: [] } as const
  const subjectKeyIdentifier = Buffer.from('0102030405', 'hex')
  const facts = parseTbs(
    encodeCaTbs({ ...input, subject: encodeSubject(issuerSubject), nameConstraints, subjectKeyIdentifier }),
  )
  t.same(facts.nameConstraints, nameConstraints)
  t.same(facts.subject, issuerSubject)
  t.same(facts.keyIdentifier, subjectKeyIdentifier)
  t.equal(facts.extensions.find(({ oid }) => oid === '2.5.29.30')?.critical, true)
})
