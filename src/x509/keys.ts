import { sha256 } from '../lib/sha256.ts'
import { findKeyAlgorithm, type KeyAlgorithm, keyAlgorithms } from './algorithms.ts'
import { DerReader, derProblem, oidKey, openDer, tags } from './der.ts'
import { assertCurvePoint, assertEd25519Point } from './points.ts'
import { isPublishedKey } from './published-keys.ts'
import { assertRsaKey } from './rsa.ts'

/** A public key that passed the gate. */
export interface PublicKey {
  /** SubjectPublicKeyInfo. */
  readonly spki: Buffer
  readonly algorithm: KeyAlgorithm
  readonly bits: number
  /** SHA-256 of the SubjectPublicKeyInfo: the key's identity in records, limits and block lists. */
  readonly sha256: Buffer
  /**
   * Left-most 160 bits of SHA-256 over the contents of the BIT STRING (RFC 7093 2, method 1): as long as everyone
   * expects, and free of SHA-1.
   */
  readonly keyIdentifier: Buffer
}

/** Is this key, by SHA-256 of its SPKI in hex or as a whole, known to be compromised or not the caller's to certify? */
export type KeyBlockList = (sha256Hex: string, key: PublicKey) => boolean

/**
 * The key gate: judges a SubjectPublicKeyInfo on its DER, before OpenSSL sees it (incidents #48, #56). Throws
 * key.encoding, key.unsupported, key.size, key.weak, key.blocked. P-256 takes 3 µs, RSA-2048 some 25, RSA-8192 0.2 ms.
 */
export const parsePublicKey = (spki: Buffer, blocked?: KeyBlockList): PublicKey => {
  const reader = openDer(spki, 'key.encoding')
  return readPublicKey(reader, blocked)
}

/** The same from a reader that stands before a SubjectPublicKeyInfo that was walked; moves past it. */
export const readPublicKey = (outer: DerReader, blocked?: KeyBlockList): PublicKey => {
  const { buffer, at } = outer
  const spki = outer.element(tags.sequence, 'SubjectPublicKeyInfo')
  const info = new DerReader(buffer, 'key.encoding', at, outer.at).read(tags.sequence, 'SubjectPublicKeyInfo')
  const algorithm = readAlgorithm(info)
  const key = info.bits('subjectPublicKey')
  info.finish('SubjectPublicKeyInfo')
  const bits = judge(algorithm, key)
  const digest = sha256(spki)
  const hex = digest.toString('hex')
  if (isPublishedKey(hex)) throw derProblem('key.blocked', 'the private key of this key was published', at)
  const keyIdentifier = sha256(key.octets).subarray(0, 20)
  const judged = { spki, algorithm, bits, sha256: digest, keyIdentifier }
  if (blocked?.(hex, judged) === true) throw derProblem('key.blocked', 'the key is on a block list', at)
  return judged
}

const judge = (algorithm: KeyAlgorithm, key: DerReader): number => {
  if (algorithm.curve !== undefined && key.length !== algorithm.octets && [0x02, 0x03, 0x00].includes(key.tag)) {
    throw derProblem('key.encoding', 'the point is compressed or at infinity', key.start)
  }
  if (algorithm.octets !== undefined && key.length !== algorithm.octets) {
    throw derProblem('key.encoding', `the key is not ${algorithm.octets} octets`, key.start)
  }
  if (algorithm.bits === undefined) return assertRsaKey(key)
  if (algorithm.curve !== undefined) assertCurvePoint(key, algorithm.curve)
  if (algorithm.id === 'ed25519') assertEd25519Point(key)
  return algorithm.bits
}

/** Compared whole and as octets: an identifier with other parameters than its RFC demands is another identifier. */
const readAlgorithm = (info: DerReader): KeyAlgorithm => {
  const at = info.at
  const identifier = info.element(tags.sequence, 'AlgorithmIdentifier')
  const algorithm = findKeyAlgorithm(identifier)
  if (algorithm !== undefined) return algorithm
  const parts = new DerReader(info.buffer, 'key.encoding', at, info.at).read(tags.sequence, 'AlgorithmIdentifier')
  const oid = parts.oid('algorithm')
  if (oid === ecPublicKey) {
    const named = parts.tag === tags.oid
    throw derProblem(
      'key.unsupported',
      named ? 'the curve is not P-256, P-384 or P-521' : 'the curve is not named',
      parts.at,
    )
  }
  const title = ourTitles.get(oid)
  if (title !== undefined) throw derProblem('key.encoding', `the parameters are not those of ${title}`, parts.at)
  throw derProblem('key.unsupported', otherTitles.get(oid) ?? 'a key of an unknown algorithm', at)
}

const ecPublicKey = oidKey('1.2.840.10045.2.1')
const ourTitles = new Map(
  Object.values(keyAlgorithms)
    .filter(({ curve }) => curve === undefined)
    .map(({ identifier, title }) => [
      new DerReader(identifier, 'key.encoding').read(tags.sequence, title).oid(title),
      title,
    ]),
)

const hashMlDsa = 'an ML-DSA key restricted to what is hashed before (HashML-DSA); use a plain ML-DSA key'
/** FIPS 205: twelve parameter sets, and as many that hash before. */
const slhDsaArcs = [...Array(12).keys()].flatMap((set) => [20 + set, 35 + set])
/** What people try, for a better sentence. The rest is unknown. */
const otherTitles = new Map(
  Object.entries({
    '1.2.840.113549.1.1.10': 'a key restricted to RSASSA-PSS; use a plain RSA key (rsaEncryption)',
    '1.2.840.113549.1.1.7': 'a key restricted to RSAES-OAEP; use a plain RSA key (rsaEncryption)',
    '1.2.840.10040.4.1': 'a DSA key',
    '1.2.840.10046.2.1': 'a Diffie-Hellman key',
    '1.3.101.110': 'an X25519 key, which cannot sign',
    '1.3.101.111': 'an X448 key, which cannot sign',
    '1.3.101.113': 'an Ed448 key',
    ...Object.fromEntries([32, 33, 34].map((arc) => [`2.16.840.1.101.3.4.3.${arc}`, hashMlDsa])),
    ...Object.fromEntries(slhDsaArcs.map((arc) => [`2.16.840.1.101.3.4.3.${arc}`, 'an SLH-DSA key'])),
    '2.16.840.1.101.3.4.4.1': 'an ML-KEM key, which cannot sign',
    '2.16.840.1.101.3.4.4.2': 'an ML-KEM key, which cannot sign',
    '2.16.840.1.101.3.4.4.3': 'an ML-KEM key, which cannot sign',
  }).map(([oid, title]) => [oidKey(oid), title]),
)

/** What the BIT STRING of a key holds: what CertIDs hash (RFC 6960 4.1.1). Throws `key.encoding`. */
export const keyBits = (spki: Buffer): Buffer => {
  const key = new DerReader(spki, 'key.encoding').read(tags.sequence, 'SubjectPublicKeyInfo')
  key.element(tags.sequence, 'algorithm')
  return key.bits('subjectPublicKey').octets
}
