import { constants } from 'node:crypto'

import { DerReader, derProblem, encodeDer, encodeOid, encodeSequence, oidKey, tags } from './der.ts'

/**
 * Everything that Chancery knows about an algorithm, one entry each. Identifiers are compared as octets; what is not
 * in these tables does not reach OpenSSL (incident #48).
 */

export type KeyAlgorithmId =
  | 'rsa'
  | 'ec-p256'
  | 'ec-p384'
  | 'ec-p521'
  | 'ed25519'
  | 'ml-dsa-44'
  | 'ml-dsa-65'
  | 'ml-dsa-87'

/** A short Weierstrass curve with a = -3 (SP 800-186 3.2.1), as far as a gate needs it. */
export interface Curve {
  readonly p: bigint
  readonly b: bigint
  /** Octets of a coordinate. */
  readonly octets: number
  /** Order of the group, unsigned big-endian, `octets` long. */
  readonly order: Buffer
}

export interface KeyAlgorithm {
  readonly id: KeyAlgorithmId
  /** As people write it. */
  readonly title: string
  /** DER of the AlgorithmIdentifier in a SubjectPublicKeyInfo, parameters included. */
  readonly identifier: Buffer
  /** Octets of the public key in the BIT STRING; undefined where it varies (RSA). */
  readonly octets: number | undefined
  /** Bits of the key as policy counts them; undefined where it varies (RSA). */
  readonly bits: number | undefined
  readonly curve: Curve | undefined
  /** What `crypto.generateKeyPair` calls it, with its options. */
  readonly generate: KeyGeneration
}

export interface KeyGeneration {
  readonly type: string
  readonly options: Readonly<Record<string, unknown>>
}

/** What a key is made as: an algorithm, and for RSA perhaps how many bits. */
export type KeyKind = KeyAlgorithmId | RsaKind

type RsaKind = (typeof rsaKinds)[number]

export interface SignatureAlgorithm {
  readonly id: string
  /** DER of the AlgorithmIdentifier. */
  readonly identifier: Buffer
  /** As node:crypto wants it; null where the algorithm has its own (Ed25519, ML-DSA). */
  readonly hash: 'sha256' | 'sha384' | 'sha512' | null
  /** The keys it goes with. */
  readonly keys: readonly KeyAlgorithmId[]
  /** What `crypto.sign` and `crypto.verify` want beside the key. */
  readonly signOptions: { readonly padding?: number; readonly saltLength?: number; readonly dsaEncoding?: 'der' }
  /** Does one software signature take longer than handing it to the thread pool (about 30 µs)? */
  readonly slowToSign: boolean
}

const ecPublicKey = encodeOid('1.2.840.10045.2.1')
const oids = (dotted: string): Buffer => encodeSequence(encodeOid(dotted))
const derNull = encodeDer(tags.null)
const bytes = (value: string): Buffer => Buffer.from(value, 'hex')

const ec = (id: KeyAlgorithmId, title: string, oid: string, curve: Curve): KeyAlgorithm => ({
  id,
  title,
  identifier: encodeSequence(ecPublicKey, encodeOid(oid)),
  octets: 1 + 2 * curve.octets,
  bits: Number.parseInt(title.slice(2), 10),
  curve,
  generate: { type: 'ec', options: { namedCurve: title } },
})

const plain = (id: KeyAlgorithmId, title: string, oid: string, octets: number): KeyAlgorithm => ({
  id,
  title,
  identifier: oids(oid),
  octets,
  bits: octets * 8,
  curve: undefined,
  generate: { type: id, options: {} },
})

export const keyAlgorithms: Readonly<Record<KeyAlgorithmId, KeyAlgorithm>> = {
  rsa: {
    id: 'rsa',
    title: 'RSA',
    identifier: encodeSequence(encodeOid('1.2.840.113549.1.1.1'), derNull),
    octets: undefined,
    bits: undefined,
    curve: undefined,
    generate: { type: 'rsa', options: { modulusLength: 2048, publicExponent: 65537 } },
  },
  'ec-p256': ec('ec-p256', 'P-256', '1.2.840.10045.3.1.7', {
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
    octets: 32,
    order: bytes('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
  }),
  'ec-p384': ec('ec-p384', 'P-384', '1.3.132.0.34', {
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
    octets: 48,
    order: bytes('ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973'),
  }),
  'ec-p521': ec('ec-p521', 'P-521', '1.3.132.0.35', {
    p: 2n ** 521n - 1n,
    b: 0x0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n,
    octets: 66,
    order: bytes(
      '01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409',
    ),
  }),
  ed25519: { ...plain('ed25519', 'Ed25519', '1.3.101.112', 32), bits: 256 },
  'ml-dsa-44': plain('ml-dsa-44', 'ML-DSA-44', '2.16.840.1.101.3.4.3.17', 1312),
  'ml-dsa-65': plain('ml-dsa-65', 'ML-DSA-65', '2.16.840.1.101.3.4.3.18', 1952),
  'ml-dsa-87': plain('ml-dsa-87', 'ML-DSA-87', '2.16.840.1.101.3.4.3.19', 2592),
}

const hashOids = {
  sha256: '2.16.840.1.101.3.4.2.1',
  sha384: '2.16.840.1.101.3.4.2.2',
  sha512: '2.16.840.1.101.3.4.2.3',
} as const
const hashOctets = { sha256: 32, sha384: 48, sha512: 64 } as const
type Hash = keyof typeof hashOids
const ecKeys = ['ec-p256', 'ec-p384', 'ec-p521'] as const

const ecdsa = (hash: Hash, oid: string, key: KeyAlgorithmId): SignatureAlgorithm => ({
  id: `ecdsa-${hash}`,
  identifier: oids(oid),
  hash,
  keys: ecKeys,
  signOptions: { dsaEncoding: 'der' },
  slowToSign: key !== 'ec-p256',
})

const pkcs1 = (hash: Hash, oid: string): SignatureAlgorithm => ({
  id: `rsa-${hash}`,
  identifier: encodeSequence(encodeOid(oid), derNull),
  hash,
  keys: ['rsa'],
  signOptions: { padding: constants.RSA_PKCS1_PADDING },
  slowToSign: true,
})

/**
 * RSASSA-PSS with one hash throughout and a salt as long as it (RFC 4055 3.1; 8017 A.2.3). The hash's own parameters
 * may be NULL or absent (RFC 4055 2.1): we write NULL, as OpenSSL and everyone else does, and read both.
 */
const pss = (hash: Hash, hashParameters: Buffer): SignatureAlgorithm => {
  const digest = encodeSequence(encodeOid(hashOids[hash]), hashParameters)
  const mgf = encodeSequence(encodeOid('1.2.840.113549.1.1.8'), digest)
  const salt = encodeDer(tags.integer, Buffer.from([hashOctets[hash]]))
  return {
    id: `rsa-pss-${hash}`,
    identifier: encodeSequence(
      encodeOid('1.2.840.113549.1.1.10'),
      encodeSequence(encodeDer(0xa0, digest), encodeDer(0xa1, mgf), encodeDer(0xa2, salt)),
    ),
    hash,
    keys: ['rsa'],
    signOptions: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: hashOctets[hash] },
    slowToSign: true,
  }
}

const own = (id: KeyAlgorithmId): SignatureAlgorithm => ({
  id,
  identifier: keyAlgorithms[id].identifier,
  hash: null,
  keys: [id],
  signOptions: {},
  slowToSign: id !== 'ed25519',
})

/** Signature algorithms that Chancery makes and accepts. SHA-1 and older are in no table. */
export const signatureAlgorithms: readonly SignatureAlgorithm[] = [
  ecdsa('sha256', '1.2.840.10045.4.3.2', 'ec-p256'),
  ecdsa('sha384', '1.2.840.10045.4.3.3', 'ec-p384'),
  ecdsa('sha512', '1.2.840.10045.4.3.4', 'ec-p521'),
  pkcs1('sha256', '1.2.840.113549.1.1.11'),
  pkcs1('sha384', '1.2.840.113549.1.1.12'),
  pkcs1('sha512', '1.2.840.113549.1.1.13'),
  pss('sha256', derNull),
  pss('sha384', derNull),
  pss('sha512', derNull),
  own('ed25519'),
  own('ml-dsa-44'),
  own('ml-dsa-65'),
  own('ml-dsa-87'),
]

const rsaKinds = ['rsa-3072', 'rsa-4096'] as const

/** Of each algorithm, and of RSA by its size. */
export const keyKinds: readonly KeyKind[] = [...(Object.keys(keyAlgorithms) as KeyAlgorithmId[]), ...rsaKinds]

/** The algorithm of a kind, and its bits where the kind says them. */
export const readKeyKind = (kind: KeyKind): { readonly algorithm: KeyAlgorithmId; readonly bits?: number } =>
  isRsaKind(kind) ? { algorithm: 'rsa', bits: Number(kind.slice(4)) } : { algorithm: kind }

const isRsaKind = (kind: KeyKind): kind is RsaKind => (rsaKinds as readonly string[]).includes(kind)

/** How a key of this kind is made in software. */
export const generationOf = (kind: KeyKind): KeyGeneration => {
  const { algorithm, bits } = readKeyKind(kind)
  const { type, options } = keyAlgorithms[algorithm].generate
  return { type, options: bits === undefined ? options : { ...options, modulusLength: bits } }
}

/** The entry with this id; a constant of ours or a checked setting, so an unknown one is a defect. */
export const signatureAlgorithm = (id: string): SignatureAlgorithm => {
  const found = signatureAlgorithms.find((algorithm) => algorithm.id === id)
  if (found === undefined) throw new RangeError(`there is no signature algorithm ${id}`)
  return found
}

/** The entry whose AlgorithmIdentifier has exactly these octets. */
export const findSignatureAlgorithm = (identifier: Buffer): SignatureAlgorithm | undefined =>
  signaturesByIdentifier.get(identifier.toString('latin1'))

/** The same from a reader that stands before it. Throws the reader's code where there is none. */
export const readSignatureAlgorithm = (reader: DerReader): SignatureAlgorithm => {
  const { at } = reader
  const algorithm = findSignatureAlgorithm(reader.element(tags.sequence, 'AlgorithmIdentifier'))
  if (algorithm !== undefined) return algorithm
  const oid = new DerReader(reader.buffer, reader.code, at).read(tags.sequence, 'AlgorithmIdentifier').oid('algorithm')
  throw derProblem(reader.code, `the signature algorithm is ${refusedSignatures.get(oid) ?? 'unknown'}`, at)
}

/**
 * The same beside what was signed, with so many elements before it inside: octet for octet the same there (RFC 5280 4.1.1.2, 5.1.1.2).
 * NULL here and nothing there mean the same to us, but Go and OpenSSL refuse the whole, and nobody has signed what stands outside.
 */
export const readOuterAlgorithm = (outer: DerReader, signed: DerReader, before: number): SignatureAlgorithm => {
  const { at } = outer
  const algorithm = readSignatureAlgorithm(outer)
  const inside = new DerReader(signed.buffer, signed.code, signed.start, signed.end)
  for (let passed = 0; passed < before; passed += 1) inside.skip()
  if (!inside.element(tags.sequence, 'signature').equals(outer.buffer.subarray(at, outer.at)))
    throw derProblem(outer.code, 'the two signature algorithms differ', at)
  return algorithm
}

/** The entry whose AlgorithmIdentifier, parameters included, has exactly these octets. */
export const findKeyAlgorithm = (identifier: Buffer): KeyAlgorithm | undefined =>
  keysByIdentifier.get(identifier.toString('latin1'))

/** What a key of this algorithm and size signs with when nobody says otherwise. */
export const defaultSignatureAlgorithm = (key: KeyAlgorithmId): SignatureAlgorithm => signatureAlgorithm(defaults[key])

const defaults: Readonly<Record<KeyAlgorithmId, string>> = {
  rsa: 'rsa-sha256',
  'ec-p256': 'ecdsa-sha256',
  'ec-p384': 'ecdsa-sha384',
  'ec-p521': 'ecdsa-sha512',
  ed25519: 'ed25519',
  'ml-dsa-44': 'ml-dsa-44',
  'ml-dsa-65': 'ml-dsa-65',
  'ml-dsa-87': 'ml-dsa-87',
}

/** What people meet in old certificates, and what tools make of a request by default, for a better sentence. */
const refusedSignatures = new Map([
  ...signatureAlgorithms.map(({ id, identifier }) => {
    const reader = new DerReader(identifier, 'csr.sig_alg').read(tags.sequence, id)
    return [
      reader.oid(id),
      // RFC 5758 3.2, 8410 3, 9881 3. tpm2-openssl 1.3 writes NULL beside ECDSA.
      `${id} with parameters that are not its own${reader.done ? ', which has none, not even NULL' : ''}`,
    ] as const
  }),
  ...Object.entries({
    '1.2.840.113549.1.1.4': 'RSA with MD5, which is broken',
    '1.2.840.113549.1.1.5': 'RSA with SHA-1, which is broken',
    '1.2.840.113549.1.1.14': 'RSA with SHA-224, which is too short',
    '1.2.840.10045.4.1': 'ECDSA with SHA-1, which is broken',
    '1.2.840.10045.4.3.1': 'ECDSA with SHA-224, which is too short',
    ...Object.fromEntries([9, 10, 11, 12].map((arc) => [`2.16.840.1.101.3.4.3.${arc}`, 'ECDSA with SHA-3, not SHA-2'])),
    ...Object.fromEntries([13, 14, 15, 16].map((arc) => [`2.16.840.1.101.3.4.3.${arc}`, 'RSA with SHA-3, not SHA-2'])),
    '1.2.840.113549.1.1.10': 'RSASSA-PSS otherwise than with one hash of SHA-2 throughout and a salt as long as it',
  }).map(([oid, title]) => [oidKey(oid), title] as const),
])

const nothing = Buffer.alloc(0)
/** RFC 4055 5: the parameters of sha256WithRSAEncryption and its sisters are NULL, and absent ones are to be accepted. */
const withoutNull = (identifier: Buffer): Buffer => {
  const oid = identifier.subarray(2, -2)
  return encodeSequence(oid)
}
const signaturesByIdentifier = new Map([
  ...signatureAlgorithms
    .filter(({ id }) => /^rsa-sha/.test(id))
    .map((algorithm) => [withoutNull(algorithm.identifier).toString('latin1'), algorithm] as const),
  ...signatureAlgorithms.map((algorithm) => [algorithm.identifier.toString('latin1'), algorithm] as const),
  ...(['sha256', 'sha384', 'sha512'] as const).map(
    (hash) => [pss(hash, nothing).identifier.toString('latin1'), signatureAlgorithm(`rsa-pss-${hash}`)] as const,
  ),
])
const keysByIdentifier = new Map(
  Object.values(keyAlgorithms).map((algorithm) => [algorithm.identifier.toString('latin1'), algorithm]),
)
