/** Keys, signature algorithms and signatures. */
import {
  bits,
  dns,
  ecdsaSha256,
  hex,
  integer,
  nil,
  oid,
  p256,
  p256Point,
  request,
  rsaSha256,
  type Signer,
  san,
  seq,
  tlv,
} from '../build.ts'
import { mute, nodeSigner, opensslRequest, rsaModulus, rsaSigner, rsaSpki } from '../keys.ts'
import { bad, by, type HostileCase, oids, row, spki } from './case.ts'

const curve = (namedCurve: string): (() => Buffer) => by(() => nodeSigner('ec', { namedCurve }))
const ecSpki = (point: Buffer, name: string = oids.p256): Buffer =>
  seq(seq(oid(oids.ecPublicKey), oid(name)), bits(point))
const edwards = (key: string, ...parameters: readonly Buffer[]): Buffer =>
  seq(seq(oid('1.3.101.112'), ...parameters), bits(hex(key)))
const mlDsaIdentifier = (arc: number): Buffer => seq(oid(`2.16.840.1.101.3.4.3.${arc}`))
const mlDsa = (arc: number, size: number, ...parameters: readonly Buffer[]): Buffer =>
  seq(seq(oid(`2.16.840.1.101.3.4.3.${arc}`), ...parameters), bits(Buffer.alloc(size, 7)))
const mlDsaSigner = (level: 44 | 65 | 87, arc: number): Signer =>
  nodeSigner(`ml-dsa-${level}`, {}, mlDsaIdentifier(arc), null)
const ed25519 = (): Signer => nodeSigner('ed25519', {}, seq(oid('1.3.101.112')), null)
const point = (x: bigint, y: bigint, octets = 32): Buffer =>
  Buffer.from(`04${x.toString(16).padStart(2 * octets, '0')}${y.toString(16).padStart(2 * octets, '0')}`, 'hex')
const field = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n
const x256 = BigInt(`0x${p256Point.toString('hex', 1, 33)}`)
const y256 = BigInt(`0x${p256Point.toString('hex', 33)}`)
/** The y of x = 0: the root of b. */
const yOfZero = 0x66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4n
/** A key of P-521, whose coordinates have room for p on top: one of them so, from this octet of the point. */
const beyondField = (from: number): Signer => {
  const signer = nodeSigner('ec', { namedCurve: 'P-521' })
  const spki = Buffer.from(signer.spki)
  const coordinate = spki.subarray(-133).subarray(from, from + 66)
  const more = BigInt(`0x${coordinate.toString('hex')}`) + 2n ** 521n - 1n
  coordinate.write(more.toString(16).padStart(132, '0'), 'hex')
  return { ...signer, spki }
}
/** What the first octet of a compressed point says about y. */
const parity = 2 + ((p256Point[64] as number) & 1)
const n256 = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

const rfc9500 =
  '04422548f88fb782ffb5eca3744452c72a1e558fbd6f73be5e48e93232cc45c5b16c4cd10c4cb8d5b8a17139e94882c8992572993425f4141 9ab7e90a42a494272'
const generator =
  '046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5'

const sizes: readonly HostileCase[] = [
  ...row(
    "RSA of other than exactly 2048, 3072, 4096 or 8192 bits; below the profile's minimum",
    ...['1024', '2047', '2049'].map((size) => [`${size} bits`, by(() => rsaSigner(size)), 'key.size'] as const),
    ['16384 bits', spki(rsaSpki(2n ** 16383n + 1n), rsaSha256), 'key.size'],
    ['0 bits', spki(rsaSpki(0n), rsaSha256), 'key.size'],
    ...['2048', '3072', '4096', '8192'].map((size) => [`${size} bits`, by(() => rsaSigner(size)), 'accepted'] as const),
  ),
  ...row(
    'RSA n even, negative, small factor (<752), prime power; e=1, even, 3 (profile), e>2^256, e≥n',
    ['an even modulus', spki(rsaSpki(2n ** 2047n), rsaSha256), 'key.weak'],
    ['a negative modulus', spki(rsaSpki(tlv(0x02, Buffer.alloc(256, 0x81))), rsaSha256), 'key.encoding'],
    ['a modulus that is not minimal', spki(rsaSpki(tlv(0x02, Buffer.alloc(257))), rsaSha256), 'key.encoding'],
    ['a modulus divisible by 3', by(() => rsaSigner('small3')), 'key.weak'],
    ['a modulus divisible by 751', by(() => rsaSigner('small751')), 'key.weak'],
    ['p = q', by(() => rsaSigner('square')), 'key.weak'],
    ['p = q = r', by(() => rsaSigner('cube')), 'key.weak'],
    ['e = 1', by(() => rsaSigner('2048', 1n)), 'key.weak'],
    ['an even e', spki(rsaSpki(rsaModulus('2048'), 65536n), rsaSha256), 'key.weak'],
    ['e = 3', by(() => rsaSigner('2048', 3n)), 'key.weak'],
    ['e = 17', by(() => rsaSigner('2048', 17n)), 'key.weak'],
    ['e = 2^64 + 13', by(() => rsaSigner('2048', 2n ** 64n + 13n)), 'key.weak'],
    ['e > 2^256', spki(rsaSpki(rsaModulus('2048'), 2n ** 256n + 1n), rsaSha256), 'key.weak'],
    ['e ≥ n', spki(rsaSpki(rsaModulus('2048'), rsaModulus('2048') + 2n), rsaSha256), 'key.weak'],
    ['a negative e', spki(rsaSpki(rsaModulus('2048'), hex('0201ff')), rsaSha256), 'key.encoding'],
    [
      'something after e',
      spki(
        seq(seq(oid('1.2.840.113549.1.1.1'), nil), bits(seq(integer(rsaModulus('2048')), integer(65537), nil))),
        rsaSha256,
      ),
      'key.encoding',
    ],
    [
      'a key that is not DER',
      spki(seq(seq(oid('1.2.840.113549.1.1.1'), nil), bits(hex('308000'))), rsaSha256),
      'key.encoding',
    ],
  ),
  ...row(
    'ROCA, Debian weak, Fermat-close (≥100 rounds; boulder 110), known-compromised list (SPKI SHA-256), own CA key as subject key',
    ["a modulus of Infineon's shape (ROCA)", by(() => rsaSigner('roca')), 'key.weak'],
    ['primes 2^16 apart (Fermat)', by(() => rsaSigner('close')), 'key.weak'],
    ['a published key: RFC 9500, P-256', spki(ecSpki(hex(rfc9500)), ecdsaSha256), 'key.blocked'],
    ["a published key: the curve's own generator", spki(ecSpki(hex(generator)), ecdsaSha256), 'key.blocked'],
  ),
  ...row(
    'rsaEncryption params ≠ NULL; id-RSASSA-PSS SPKI with params',
    [
      'absent parameters',
      spki(seq(seq(oid('1.2.840.113549.1.1.1')), bits(seq(integer(rsaModulus('2048')), integer(65537)))), rsaSha256),
      'key.encoding',
    ],
    ['other parameters', spki(rsaSpki(rsaModulus('2048'), 65537n, seq()), rsaSha256), 'key.encoding'],
    [
      'an RSASSA-PSS key',
      () => opensslRequest('-newkey', 'rsa-pss', '-pkeyopt', 'rsa_keygen_bits:2048'),
      'key.unsupported',
    ],
    [
      'an RSASSA-PSS key with parameters',
      () =>
        opensslRequest(
          '-newkey',
          'rsa-pss',
          '-pkeyopt',
          'rsa_keygen_bits:2048',
          '-pkeyopt',
          'rsa_pss_keygen_md:sha256',
          '-pkeyopt',
          'rsa_pss_keygen_saltlen:32',
        ),
      'key.unsupported',
    ],
  ),
]

const curves: readonly HostileCase[] = [
  ...row(
    'EC: explicit/implicit curve, curve ∉ {P-256,384,521}, P-224/192, secp256k1, brainpool, binary',
    [
      'explicit parameters',
      () => opensslRequest('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-pkeyopt', 'ec_param_enc:explicit'),
      'key.unsupported',
    ],
    ['implicit parameters', spki(seq(seq(oid(oids.ecPublicKey), nil), bits(p256Point))), 'key.unsupported'],
    ['no parameters', spki(seq(seq(oid(oids.ecPublicKey)), bits(p256Point))), 'key.unsupported'],
    [
      'parameters after the curve',
      spki(seq(seq(oid(oids.ecPublicKey), oid(oids.p256), nil), bits(p256Point))),
      'key.unsupported',
    ],
    ...['secp224r1', 'prime192v1', 'secp256k1', 'brainpoolP256r1', 'sect283k1'].map(
      (name) => [name, curve(name), 'key.unsupported'] as const,
    ),
    ...['P-256', 'P-384', 'P-521'].map((name) => [name, curve(name), 'accepted'] as const),
  ),
  ...row(
    'EC point: infinity, off-curve, ≥p, wrong length, compressed (MAY), hybrid (MUST NOT)',
    ['infinity', spki(ecSpki(hex('00'))), 'key.encoding'],
    ['nothing', spki(ecSpki(Buffer.alloc(0))), 'key.encoding'],
    ['off the curve', spki(ecSpki(point(x256, y256 ^ 1n))), 'key.encoding'],
    ['(0, 0)', spki(ecSpki(point(0n, 0n))), 'key.encoding'],
    ['x ≥ p', spki(ecSpki(point(field, y256))), 'key.encoding'],
    ['y ≥ p', spki(ecSpki(point(x256, field + 1n))), 'key.encoding'],
    // What they stand for is on the curve.
    ['x = p', spki(ecSpki(point(field, yOfZero))), 'key.encoding'],
    ['x + p of a good key', by(() => beyondField(1)), 'key.encoding'],
    ['y + p of a good key', by(() => beyondField(67)), 'key.encoding'],
    ['one octet too few', spki(ecSpki(p256Point.subarray(0, -1))), 'key.encoding'],
    ['one octet too many', spki(ecSpki(Buffer.concat([p256Point, hex('00')]))), 'key.encoding'],
    ['a point of another curve', spki(ecSpki(p256Point, '1.3.132.0.34')), 'key.encoding'],
    ['something after it', spki(seq(seq(oid(oids.ecPublicKey), oid(oids.p256)), bits(p256Point), nil)), 'key.encoding'],
    [
      'compressed',
      by(() => ({ ...p256(), spki: ecSpki(Buffer.concat([Buffer.from([parity]), p256Point.subarray(1, 33)])) })),
      'key.encoding',
    ],
    [
      'hybrid',
      by(() => ({ ...p256(), spki: ecSpki(Buffer.concat([Buffer.from([4 + parity]), p256Point.subarray(1)])) })),
      'key.encoding',
    ],
    [
      'unused bits',
      spki(
        seq(seq(oid(oids.ecPublicKey), oid(oids.p256)), bits(Buffer.concat([p256Point.subarray(0, -1), hex('00')]), 1)),
      ),
      'key.encoding',
    ],
  ),
  ...row(
    'Ed25519/Ed448: params present, key ≠32/57 bytes, small-order/non-canonical point',
    ['Ed25519', by(ed25519), 'accepted'],
    ['parameters', spki(edwards('11'.repeat(32), nil)), 'key.encoding'],
    ['31 octets', spki(edwards('11'.repeat(31))), 'key.encoding'],
    ['33 octets', spki(edwards('11'.repeat(33))), 'key.encoding'],
    ...[
      '00'.repeat(32),
      `01${'00'.repeat(31)}`,
      `ec${'ff'.repeat(30)}7f`,
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      `${'00'.repeat(31)}80`,
    ].map(
      (encoded) =>
        [
          `the point of small order ${encoded.slice(0, 8)}…${encoded.slice(-2)}`,
          spki(edwards(encoded)),
          'key.weak',
        ] as const,
    ),
    ['p, which is not canonical', spki(edwards(`ed${'ff'.repeat(30)}7f`)), 'key.encoding'],
    ['2^255 − 1, which is not canonical', spki(edwards('ff'.repeat(32))), 'key.encoding'],
    ['Ed448', by(() => nodeSigner('ed448', {}, seq(oid('1.3.101.113')), null)), 'key.unsupported'],
  ),
  ...row(
    'ML-DSA-44/65/87: OID 2.16.840.1.101.3.4.3.17/18/19, params absent, pk 1312/1952/2592 B; HashML-DSA/pre-standard Dilithium OIDs',
    ['ML-DSA-44', by(() => mlDsaSigner(44, 17)), 'accepted'],
    ['ML-DSA-65', by(() => mlDsaSigner(65, 18)), 'accepted'],
    ['ML-DSA-87', by(() => mlDsaSigner(87, 19)), 'accepted'],
    ['parameters', spki(mlDsa(17, 1312, nil)), 'key.encoding'],
    ['one octet too few', spki(mlDsa(17, 1311)), 'key.encoding'],
    ['the key of another level', spki(mlDsa(18, 1312)), 'key.encoding'],
    ['HashML-DSA-44', spki(mlDsa(32, 1312)), 'key.unsupported'],
    [
      'Dilithium2 from before the standard',
      spki(seq(seq(oid('1.3.6.1.4.1.2.267.7.4.4')), bits(Buffer.alloc(1312, 7)))),
      'key.unsupported',
    ],
    ['SLH-DSA-SHA2-128s', by(() => nodeSigner('slh-dsa-sha2-128s', {}, mlDsaIdentifier(20), null)), 'key.unsupported'],
  ),
  ...row(
    'ML-KEM key (cannot self-sign)',
    ['ML-KEM-768', by(() => mute(nodeSigner('ml-kem-768').spki)), 'key.unsupported'],
    ['X25519', by(() => mute(nodeSigner('x25519').spki)), 'key.unsupported'],
    [
      'DSA',
      by(() => nodeSigner('dsa', { modulusLength: 1024, divisorLength: 160 }, seq(oid('2.16.840.1.101.3.4.3.2')))),
      'key.unsupported',
    ],
    ['SM2', () => opensslRequest('-newkey', 'sm2'), 'key.unsupported'],
    ['an algorithm that nobody knows', spki(seq(seq(oid('1.2.3.4')), bits(Buffer.alloc(32, 7)))), 'key.unsupported'],
  ),
]

/** The P-256 key signs what it says with another algorithm than it is. */
const signedAs = (algorithm: Buffer, signature = bits(hex('3006020101020101'))) => bad({ algorithm, signature })
const pss = (hash: string, mgfHash: string, salt: number, ...more: readonly Buffer[]): Buffer =>
  seq(
    oid('1.2.840.113549.1.1.10'),
    seq(
      tlv(0xa0, seq(oid(hash), nil)),
      tlv(0xa1, seq(oid('1.2.840.113549.1.1.8'), seq(oid(mgfHash), nil))),
      tlv(0xa2, integer(salt)),
      ...more,
    ),
  )
const sha256 = '2.16.840.1.101.3.4.2.1'
const sha1 = '1.3.14.3.2.26'
const byRsa = (algorithm: Buffer) => () => request({ signer: rsaSigner('2048'), algorithm })
const ecdsa = (r: Buffer, s: Buffer, ...more: readonly Buffer[]) => bad({ signature: bits(seq(r, s, ...more)) })

const signatures: readonly HostileCase[] = [
  ...row(
    'CSR signature MD2/4/5, SHA-1, DSA, unknown; sigAlg/key mismatch; ECDSA params present; PSS with SHA-1 MGF or salt ≠ hash',
    ...Object.entries({ MD2: 2, MD4: 3, MD5: 4, 'SHA-1': 5, 'SHA-224': 14 }).map(
      ([name, arc]) => [`RSA with ${name}`, byRsa(seq(oid(`1.2.840.113549.1.1.${arc}`), nil)), 'csr.sig_alg'] as const,
    ),
    ['ECDSA with SHA-1', signedAs(seq(oid('1.2.840.10045.4.1'))), 'csr.sig_alg'],
    ['ECDSA with SHA-224', signedAs(seq(oid('1.2.840.10045.4.3.1'))), 'csr.sig_alg'],
    ['DSA with SHA-256', signedAs(seq(oid('2.16.840.1.101.3.4.3.2'))), 'csr.sig_alg'],
    ['an unknown algorithm', signedAs(seq(oid('1.2.3.4'))), 'csr.sig_alg'],
    ['RSA by an EC key', signedAs(rsaSha256), 'csr.sig_alg'],
    ['Ed25519 by an EC key', signedAs(seq(oid('1.3.101.112'))), 'csr.sig_alg'],
    ['ECDSA by an RSA key', byRsa(ecdsaSha256), 'csr.sig_alg'],
    [
      'ML-DSA-65 by an ML-DSA-44 key',
      () => request({ signer: mlDsaSigner(44, 17), algorithm: mlDsaIdentifier(18) }),
      'csr.sig_alg',
    ],
    ['ECDSA with NULL parameters', signedAs(seq(oid('1.2.840.10045.4.3.2'), nil)), 'csr.sig_alg'],
    [
      'Ed25519 with NULL parameters',
      () => request({ signer: ed25519(), algorithm: seq(oid('1.3.101.112'), nil) }),
      'csr.sig_alg',
    ],
    ['RSA with other parameters', byRsa(seq(oid('1.2.840.113549.1.1.11'), seq())), 'csr.sig_alg'],
    ['PSS with a SHA-1 MGF', byRsa(pss(sha256, sha1, 32)), 'csr.sig_alg'],
    ['PSS with SHA-1', byRsa(seq(oid('1.2.840.113549.1.1.10'), seq())), 'csr.sig_alg'],
    ['PSS with a salt of 20', byRsa(pss(sha256, sha256, 20)), 'csr.sig_alg'],
    ['PSS without parameters', byRsa(seq(oid('1.2.840.113549.1.1.10'))), 'csr.sig_alg'],
    ['PSS with its default encoded', byRsa(pss(sha256, sha256, 32, tlv(0xa3, integer(1)))), 'csr.sig_alg'],
    [
      'PSS as it should be',
      () =>
        opensslRequest(
          '-newkey',
          'rsa:2048',
          '-sha256',
          '-sigopt',
          'rsa_padding_mode:pss',
          '-sigopt',
          'rsa_pss_saltlen:digest',
        ),
      'accepted',
    ],
    ['RSA with absent parameters (RFC 4055 5)', byRsa(seq(oid('1.2.840.113549.1.1.11'))), 'accepted'],
  ),
  ...row(
    'Signature wrong, BIT STRING unused bits ≠0, ECDSA r/s ≤0, ≥n or BER',
    [
      'a signature over something else',
      () => request({ signature: bits(p256().sign(Buffer.from('else'))) }),
      'csr.pop',
    ],
    ['a signature by another key', () => request({ spki: nodeSigner('ec', { namedCurve: 'P-256' }).spki }), 'csr.pop'],
    [
      'names changed after signing',
      () => Buffer.from(request().toString('latin1').replace('host.example', 'hosu.example'), 'latin1'),
      'csr.pop',
    ],
    [
      'a wrong RSA signature',
      () => request({ signer: { ...rsaSigner('2048'), sign: () => Buffer.alloc(256, 1) } }),
      'csr.pop',
    ],
    [
      'an RSA signature of no octets',
      () => request({ signer: { ...rsaSigner('2048'), sign: () => Buffer.alloc(0) } }),
      'csr.pop',
    ],
    [
      'a wrong Ed25519 signature',
      () => request({ signer: { ...ed25519(), sign: () => Buffer.alloc(64, 1) } }),
      'csr.pop',
    ],
    [
      'an Ed25519 signature of 63 octets',
      () => request({ signer: { ...ed25519(), sign: () => Buffer.alloc(63, 1) } }),
      'csr.pop',
    ],
    [
      'a wrong ML-DSA signature',
      () => request({ signer: { ...mlDsaSigner(44, 17), sign: () => Buffer.alloc(2420, 1) } }),
      'csr.pop',
    ],
    [
      'unused bits',
      () => request({ signature: bits(Buffer.concat([hex('3006020101020101'), hex('00')]), 1) }),
      'csr.pop',
    ],
    ['an empty signature', bad({ signature: bits(Buffer.alloc(0)) }), 'csr.pop'],
    ['r = 0', ecdsa(integer(0), integer(1)), 'csr.pop'],
    ['s = 0', ecdsa(integer(1), integer(0)), 'csr.pop'],
    ['a negative r', ecdsa(hex('0201ff'), integer(1)), 'csr.pop'],
    ['r = n', ecdsa(integer(n256), integer(1)), 'csr.pop'],
    ['s = n + 1', ecdsa(integer(1), integer(n256 + 1n)), 'csr.pop'],
    ['r of 2^4096', ecdsa(integer(2n ** 4096n), integer(1)), 'csr.pop'],
    ['r with leading zeros', ecdsa(hex('02020001'), integer(1)), 'csr.pop'],
    ['BER', bad({ signature: bits(hex('3080020101020101 0000')) }), 'csr.pop'],
    ['something after s', ecdsa(integer(1), integer(1), nil), 'csr.pop'],
    ['something after the pair', bad({ signature: bits(hex('3006020101020101 0500')) }), 'csr.pop'],
    ['only r', bad({ signature: bits(seq(integer(1))) }), 'csr.pop'],
    ['r and s without DER', bad({ signature: bits(Buffer.alloc(64, 1)) }), 'csr.pop'],
  ),
  ...row('Same CSR replayed', [
    'a good request, again and again',
    bad({ extensions: [san(dns('host.example.com'))] }),
    'accepted',
  ]),
]

export const keying: readonly HostileCase[] = [...sizes, ...curves, ...signatures]
