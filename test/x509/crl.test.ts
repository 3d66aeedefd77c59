/** What we write, openssl and @peculiar/x509 read; what we read, we have written. */
import 'reflect-metadata'

import { generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import * as x509 from '@peculiar/x509'
import fc from 'fast-check'
import t from 'tap'

import {
  defaultSignatureAlgorithm,
  generationOf,
  type KeyKind,
  type SignatureAlgorithm,
} from '../../src/x509/algorithms.ts'
import { encodeCaTbs } from '../../src/x509/certificate.ts'
import {
  type CrlInput,
  type CrlReason,
  crlReasons,
  encodeCrl,
  encodeCrlTbs,
  encodeRevoked,
  parseCrl,
  parseRecordedCrl,
  type RevokedCertificate,
} from '../../src/x509/crl.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { encodeSubject, type Subject } from '../../src/x509/subject.ts'
import { encodeCertificate } from '../../src/x509/tbs.ts'
import { cpu } from '../helpers/cpu.ts'
import { assertTools, output, run } from '../interop/tools.ts'
import { bits, extension, hex, integer, nil, oid, seq, tlv, yes } from './build.ts'

await assertTools('openssl')
const folder = await mkdtemp(join(tmpdir(), 'chancery-crl-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const subject: Subject = [
  { type: 'organization', value: 'Example' },
  { type: 'commonName', value: 'Example Root' },
]
const serialOf = (n: number): Buffer => Buffer.from(n.toString(16).padStart(32, '4'), 'hex')
const revokedAt = new Date('2026-11-20T08:00:00Z')
const plain: RevokedCertificate = { serial: serialOf(1), revokedAt }

interface Authority {
  readonly algorithm: SignatureAlgorithm
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly certificate: Buffer
  readonly input: Omit<CrlInput, 'revoked'>
}

const authorityOf = (kind: KeyKind): Authority => {
  const { type, options } = generationOf(kind)
  const generate = generateKeyPairSync as unknown as (
    type: string,
    options: object,
  ) => { publicKey: KeyObject; privateKey: KeyObject }
  const { publicKey, privateKey } = generate(type, options)
  const key = parsePublicKey(publicKey.export({ type: 'spki', format: 'der' }))
  const signature = defaultSignatureAlgorithm(key.algorithm.id)
  const issuer = encodeSubject(subject)
  const dates = { notBefore: new Date('2026-11-01T00:00:00Z'), notAfter: new Date('2046-10-31T23:59:59Z') }
  const common = { issuer, signature, authorityKeyIdentifier: key.keyIdentifier }
  const tbs = encodeCaTbs({ ...common, ...dates, serial: serialOf(0), subject, key })
  const seal = sign(signature.hash, tbs, { key: privateKey, ...signature.signOptions })
  return {
    algorithm: signature,
    privateKey,
    publicKey,
    certificate: encodeCertificate(tbs, signature, seal),
    input: {
      ...common,
      thisUpdate: new Date('2026-11-24T00:00:00Z'),
      nextUpdate: new Date('2027-05-24T00:00:00Z'),
      number: 7n,
    },
  }
}

const issue = ({ input, algorithm, privateKey }: Authority, more: Partial<CrlInput> = {}): Buffer => {
  const tbs = encodeCrlTbs({ revoked: [], ...input, ...more })
  return encodeCrl(tbs, algorithm, sign(algorithm.hash, tbs, { key: privateKey, ...algorithm.signOptions }))
}

const root = authorityOf('ec-p256')

for (const kind of ['ec-p256', 'ec-p384', 'ec-p521', 'ed25519', 'rsa-3072', 'ml-dsa-65'] as const)
  t.test(`openssl verifies a list signed with ${kind}`, async (t) => {
    const authority = authorityOf(kind)
    const certificate = join(folder, `${kind}.pem`)
    await writeFile(certificate, encodePem('CERTIFICATE', authority.certificate))
    const der = issue(authority, { revoked: [encodeRevoked([plain])] })
    const verified = await run('openssl', ['crl', '-inform', 'DER', '-noout', '-CAfile', certificate, '-verify'], der)
    t.match(verified.stderr, /verify OK/)
    const broken = Buffer.from(der)
    broken[broken.length - 3] = (broken.at(-3) ?? 0) ^ 1
    t.notMatch(
      (await run('openssl', ['crl', '-inform', 'DER', '-noout', '-CAfile', certificate, '-verify'], broken)).stderr,
      /verify OK/,
    )
    const { tbs, signature, signatureAlgorithm } = parseCrl(der)
    t.ok(
      verify(signatureAlgorithm.hash, tbs, { key: authority.publicKey, ...signatureAlgorithm.signOptions }, signature),
    )
  })

t.test('openssl reads every field as it was meant', async (t) => {
  const reasons = Object.keys(crlReasons) as CrlReason[]
  const revoked: RevokedCertificate[] = reasons.map((reason, i) => ({ serial: serialOf(i + 1), revokedAt, reason }))
  revoked.push({
    serial: serialOf(20),
    revokedAt: new Date('2051-01-01T00:00:00Z'),
    reason: 'keyCompromise',
    invalidSince: new Date('2026-10-01T12:00:00Z'),
  })
  const der = issue(root, {
    revoked: [encodeRevoked(revoked)],
    number: 0xff00n,
    distributionPoint: { url: 'http://pki.example.com/root.crl', only: 'ca' },
  })
  const text = await output('openssl', ['crl', '-inform', 'DER', '-noout', '-text'], der)
  for (const expected of [
    'Version 2 (0x1)',
    'Signature Algorithm: ecdsa-with-SHA256',
    'Issuer: O=Example, CN=Example Root',
    'Last Update: Nov 24 00:00:00 2026 GMT',
    'Next Update: May 24 00:00:00 2027 GMT',
    'X509v3 CRL Number: \n                65280',
    'X509v3 Issuing Distribution Point: critical',
    'URI:http://pki.example.com/root.crl',
    'Only CA Certificates',
    `keyid:${root.input.authorityKeyIdentifier
      .toString('hex')
      .toUpperCase()
      .replace(/..(?=.)/g, '$&:')}`.replace('keyid:', ''),
    'Revocation Date: Nov 20 08:00:00 2026 GMT',
    'Revocation Date: Jan  1 00:00:00 2051 GMT',
    'Invalidity Date: \n                Oct  1 12:00:00 2026 GMT',
    ...['Key Compromise', 'CA Compromise', 'Affiliation Changed', 'Superseded', 'Cessation Of Operation'],
    ...['Certificate Hold', 'Remove From CRL', 'Privilege Withdrawn', 'AA Compromise'],
    serialOf(20).toString('hex').toUpperCase(),
  ])
    t.ok(text.includes(expected), expected)
  t.equal(text.match(/CRL Reason Code/g)?.length, reasons.length, 'unspecified is not said')
})

t.test('@peculiar/x509 reads the same', async (t) => {
  const revoked = [
    { ...plain, reason: 'cACompromise' as const },
    { serial: serialOf(2), revokedAt },
  ]
  const der = issue(root, { revoked: [encodeRevoked(revoked)] })
  const crl = new x509.X509Crl(new Uint8Array(der))
  t.equal(crl.issuer, 'O=Example, CN=Example Root')
  t.same([crl.thisUpdate, crl.nextUpdate], [root.input.thisUpdate, root.input.nextUpdate])
  t.same(
    crl.entries.map(({ serialNumber, reason, revocationDate }) => [serialNumber, reason, revocationDate]),
    [
      [serialOf(1).toString('hex'), x509.X509CrlReason.cACompromise, revokedAt],
      [serialOf(2).toString('hex'), undefined, revokedAt],
    ],
  )
  t.ok(await crl.verify({ publicKey: new x509.X509Certificate(new Uint8Array(root.certificate)) }))
})

t.test('a revoked certificate is refused by openssl verify with the list', async (t) => {
  const leaf = authorityOf('ec-p256')
  const key = parsePublicKey(leaf.publicKey.export({ type: 'spki', format: 'der' }))
  const { issuer, signature, authorityKeyIdentifier } = root.input
  const tbs = encodeCaTbs({
    issuer,
    signature,
    authorityKeyIdentifier,
    key,
    subject: [{ type: 'commonName', value: 'Below' }],
    serial: serialOf(1),
    notBefore: new Date('2026-11-01T00:00:00Z'),
    notAfter: new Date('2036-10-31T23:59:59Z'),
  })
  const below = encodeCertificate(tbs, signature, sign(signature.hash, tbs, root.privateKey))
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }
  const anchor = await file('anchor.pem', encodePem('CERTIFICATE', root.certificate))
  const certificate = await file('below.pem', encodePem('CERTIFICATE', below))
  const verifyWith = async (name: string, revoked: readonly RevokedCertificate[]) => {
    const crl = await file(name, encodePem('X509 CRL', issue(root, { revoked: [encodeRevoked(revoked)] })))
    const args = ['-attime', '1795600000', '-crl_check', '-CRLfile', crl, '-CAfile', anchor, certificate]
    return run('openssl', ['verify', ...args])
  }
  t.match((await verifyWith('good.crl', [{ serial: serialOf(2), revokedAt }])).stdout, /OK/)
  t.match((await verifyWith('empty.crl', [])).stdout, /OK/)
  t.match((await verifyWith('bad.crl', [plain])).stderr, /certificate revoked/)
})

t.test('whatever is written is read back, in one piece or in many', async () => {
  const second = fc.integer({ min: 0, max: 4_000_000_000 }).map((seconds) => new Date(seconds * 1000))
  const entry = fc.record(
    {
      serial: fc
        .uint8Array({ minLength: 16, maxLength: 16 })
        .map((octets) => Buffer.from([0x40 | (octets[0] ?? 0), ...octets.subarray(1)])),
      revokedAt: second,
      reason: fc.constantFrom(...(Object.keys(crlReasons) as CrlReason[]).filter((one) => one !== 'unspecified')),
      invalidSince: second,
    },
    { requiredKeys: ['serial', 'revokedAt'] },
  )
  const point = fc.record({
    url: fc.constant('http://pki.example.com/1.crl'),
    only: fc.constantFrom('user' as const, 'ca' as const),
  })
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 20 }),
      fc.bigInt({ min: 0n, max: (1n << 159n) - 1n }),
      fc.option(point, { nil: undefined }),
      (entries, number, distributionPoint) => {
        const more = { number, ...(distributionPoint && { distributionPoint }) }
        const revoked = entries as RevokedCertificate[]
        const whole = encodeCrlTbs({ ...root.input, ...more, revoked: [encodeRevoked(revoked)] })
        const pieces = encodeCrlTbs({ ...root.input, ...more, revoked: revoked.map((one) => encodeRevoked([one])) })
        const crl = parseCrl(encodeCrl(whole, root.algorithm, Buffer.from([0])))
        return (
          whole.equals(pieces) &&
          crl.number === number &&
          crl.issuer.equals(root.input.issuer) &&
          crl.authorityKeyIdentifier.equals(root.input.authorityKeyIdentifier) &&
          JSON.stringify(crl.distributionPoint) === JSON.stringify(distributionPoint) &&
          JSON.stringify(crl.revoked.map(sorted)) === JSON.stringify(revoked.map(sorted))
        )
      },
    ),
    { seed: 20261125, numRuns: 300 },
  )
})

const sorted = ({ serial, revokedAt, reason, invalidSince }: RevokedCertificate) => [
  serial.toString('hex'),
  revokedAt.toISOString(),
  reason,
  invalidSince?.toISOString(),
]

t.test('what no list can say is a defect', (t) => {
  const { input } = root
  t.throws(() => encodeCrlTbs({ ...input, revoked: [], nextUpdate: input.thisUpdate }), RangeError)
  for (const number of [-1n, 1n << 159n]) t.throws(() => encodeCrlTbs({ ...input, revoked: [], number }), RangeError)
  t.throws(() => encodeCrlTbs({ ...input, revoked: [], distributionPoint: {} }), RangeError)
  t.throws(() => encodeRevoked([{ serial: Buffer.alloc(16), revokedAt }]), RangeError)
  for (const number of [0n, (1n << 159n) - 1n]) t.equal(parseCrl(issue(root, { number })).number, number)
  // RFC 5280 5.2.5: either alone says something.
  for (const distributionPoint of [{ url: 'http://pki.example.com/1.crl' }, { only: 'ca' }] as const)
    t.same(parseCrl(issue(root, { distributionPoint })).distributionPoint, distributionPoint)
  // An entry of which there is nothing to say has no extensions, rather than none in a list (RFC 5280 4.1, SIZE 1..MAX).
  t.ok(encodeRevoked([plain]).equals(seq(tlv(0x02, serialOf(1)), tlv(0x17, Buffer.from('261120080000Z')))))
  t.end()
})

t.test('a list that is cut, longer or changed in any octet is another list or none', (t) => {
  const der = issue(root, { revoked: [encodeRevoked([{ ...plain, reason: 'superseded' }])] })
  const { tbs } = parseCrl(der)
  for (let i = 0; i < der.length; i++) {
    t.throws(() => parseCrl(der.subarray(0, i)), { code: 'policy.lint' })
    const other = Buffer.from(der)
    other[i] = (other[i] ?? 0) ^ 0x01
    try {
      const read = parseCrl(other)
      t.ok(!read.tbs.equals(tbs) || i >= der.indexOf(tbs) + tbs.length, `octet ${i}`)
    } catch (error) {
      t.match(error, { code: 'policy.lint' }, `octet ${i}`)
    }
  }
  t.throws(() => parseCrl(Buffer.concat([der, Buffer.from([0])])), { code: 'policy.lint' })
  t.throws(() => parseCrl(Buffer.alloc(0)), { code: 'policy.lint', message: /ends inside a header/ })
  t.end()
})

/** A list by hand: what its one entry and what the list has besides, and the rest of it as it may be wrong. */
const listOf = (ofEntry: readonly Buffer[], ofList: readonly Buffer[], wrong: Partial<Wrong> = {}): Buffer => {
  const time = (text: string): Buffer => tlv(0x17, Buffer.from(text))
  const { issuer, signature, authorityKeyIdentifier: key } = root.input
  const {
    version = integer(1),
    reason = extension('2.5.29.21', hex('0a0101')),
    behindEntry = [],
    entries = [seq(integer(0x4711), time('261120080000Z'), seq(reason, ...ofEntry), ...behindEntry)],
    own = [extension('2.5.29.35', seq(tlv(0x80, key))), extension('2.5.29.20', integer(7))],
    inside = [],
    outside = [],
  } = wrong
  const times = [time('261120080000Z'), time('261220080000Z')]
  const extensions = tlv(0xa0, seq(...own, ...ofList))
  const tbs = seq(version, signature.identifier, issuer, ...times, seq(...entries), extensions, ...inside)
  return seq(tbs, signature.identifier, bits(Buffer.from([0])), ...outside)
}

interface Wrong {
  readonly version: Buffer
  readonly reason: Buffer
  readonly entries: readonly Buffer[]
  readonly own: readonly Buffer[]
  readonly behindEntry: readonly Buffer[]
  readonly inside: readonly Buffer[]
  readonly outside: readonly Buffer[]
}

t.test('what would be read otherwise than it was meant is refused, of an entry and of a list', async (t) => {
  const [key, number] = [extension('2.5.29.35', seq(tlv(0x80, hex('01')))), extension('2.5.29.20', integer(7))]
  const point = (...parts: readonly Buffer[]): Buffer => extension('2.5.29.28', seq(...parts), yes)
  for (const [tag, only] of [
    [0x81, 'user'],
    [0x82, 'ca'],
  ] as const)
    t.match(parseCrl(listOf([], [point(tlv(tag, hex('ff')))])), { number: 7n, distributionPoint: { only } })
  for (const [what, list, told] of [
    [
      'unknown, critical, of an entry',
      listOf([extension('1.2.3.4', nil, yes)], []),
      /1\.2\.3\.4 is critical and unknown/,
    ],
    [
      'unknown, critical, of the list',
      listOf([], [extension('1.2.3.4', nil, yes)]),
      /1\.2\.3\.4 is critical and unknown/,
    ],
    ['twice', listOf([], [number]), /extension 2\.5\.29\.20 occurs twice/],
    ['a value that is no DER', listOf([], [extension('1.2.3.4', hex('ff'))]), /ends inside a header/],
    ['a value of two elements', listOf([], [extension('1.2.3.4', Buffer.concat([nil, nil]))]), /after the end of/],
    [
      'a number in other octets',
      listOf([], [], { own: [key, extension('2.5.29.20', hex('02020007'))] }),
      /not minimal/,
    ],
    ['a number below none', listOf([], [], { own: [key, extension('2.5.29.20', hex('020180'))] }), /out of range/],
    [
      'a number of 21 octets',
      listOf([], [], { own: [key, extension('2.5.29.20', integer(1n << 160n))] }),
      /out of range/,
    ],
    ['no number', listOf([], [], { own: [key] }), /: the CRL number is missing/],
    ['no key', listOf([], [], { own: [number] }), /: the authority key identifier is missing/],
    ['an unknown reason', listOf([], [], { reason: extension('2.5.29.21', hex('0a0107')) }), /the reason is unknown/],
    [
      'a reason of two octets',
      listOf([], [], { reason: extension('2.5.29.21', hex('0a020101')) }),
      /the reason is unknown/,
    ],
    ['an indirect list', listOf([], [point(tlv(0x84, hex('ff')))]), /more in IssuingDistributionPoint/],
    ['of some reasons only', listOf([], [point(tlv(0x83, hex('0640')))]), /more in IssuingDistributionPoint/],
    ['of attributes only', listOf([], [point(tlv(0x85, hex('ff')))]), /more in IssuingDistributionPoint/],
    ['a scope that is not so', listOf([], [point(tlv(0x81, hex('00')))]), /scope is not TRUE/],
    ['version 1', listOf([], [], { version: integer(0) }), /the version is not 2/],
    ['no entry in a list of them', listOf([], [], { entries: [] }), /revokedCertificates is empty/],
    [
      'something behind the extensions of an entry',
      listOf([], [], { behindEntry: [nil] }),
      /more in what holds Extensions/,
    ],
    [
      'something behind the value of an extension',
      listOf([], [seq(oid('1.2.3.4'), tlv(0x04, nil), nil)]),
      /more in Extension/,
    ],
    ['something behind what is signed', listOf([], [], { inside: [nil] }), /more in TBSCertList/],
    ['something behind the signature', listOf([], [], { outside: [nil] }), /more in CertificateList/],
  ] as const)
    t.throws(() => parseCrl(list), { code: 'policy.lint', message: told }, what)
})

t.test('a delta list, and an entry about a certificate of another issuer, are refused, critical or not', async (t) => {
  const { issuer } = root.input
  t.equal(parseCrl(listOf([], [extension('1.2.3.4', nil)])).revoked.length, 1)
  for (const critical of [yes, undefined]) {
    const delta = extension('2.5.29.27', integer(6), critical)
    t.throws(() => parseCrl(listOf([], [delta])), { message: /it is a delta list, which has only what has changed/ })
    const ofOther = extension('2.5.29.29', seq(tlv(0xa4, issuer)), critical)
    t.throws(() => parseCrl(listOf([ofOther], [])), { message: /an entry is about a certificate of another issuer/ })
    if (critical) continue
    const before = [listOf([], [delta]), listOf([ofOther], [])].map(parseRecordedCrl)
    t.match(before, [{ revoked: [{ reason: 'keyCompromise' }] }, { revoked: [{ reason: 'keyCompromise' }] }])
  }
})

t.test('a list whose two signature algorithms are the same in other octets is refused, as others do', async (t) => {
  const signature = defaultSignatureAlgorithm('rsa')
  const tbs = encodeCrlTbs({ ...root.input, signature, revoked: [] })
  const withoutNull = { ...signature, identifier: seq(oid('1.2.840.113549.1.1.11')) }
  t.equal(parseCrl(encodeCrl(tbs, signature, Buffer.alloc(256))).signatureAlgorithm, signature)
  const before = encodeCrl(tbs, withoutNull, Buffer.alloc(256))
  t.equal(parseRecordedCrl(before).signatureAlgorithm, signature)
  t.throws(() => parseCrl(before), {
    message: /the two signature algorithms differ/,
  })
})

t.test('a hundred thousand entries take ten times what ten thousand take', (t) => {
  const take = (count: number): number => {
    const entries = Array.from({ length: count }, (_, i) => ({
      serial: serialOf(i),
      revokedAt,
      reason: 'keyCompromise' as const,
    }))
    const start = cpu()
    const tbs = encodeCrlTbs({ ...root.input, revoked: [encodeRevoked(entries)] })
    t.ok(tbs.length > count * 30)
    return cpu() - start
  }
  take(20_000)
  const [few, many] = [take(10_000), take(100_000)]
  t.comment(`10,000: ${few.toFixed(1)} ms, 100,000: ${many.toFixed(1)} ms`)
  t.ok(many < 40 * Math.max(few, 5))
  t.end()
})
