/**
 * Private keys in files: EncryptedPrivateKeyInfo (RFC 5958 3) by PBES2 (RFC 8018 6.2) with PBKDF2-HMAC-SHA-256 and
 * AES-256-CBC, which every OpenSSL opens. Our own encoding, because Node's writer takes 2,048 rounds and no other number;
 * and our own reading, because its reader derives on the thread that asks.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  type KeyObject,
  pbkdf2,
  randomBytes,
  type ScryptOptions,
  scrypt,
} from 'node:crypto'
import { promisify } from 'node:util'

import {
  type DerReader,
  encodeDer,
  encodeOid,
  encodeSequence,
  encodeUnsigned,
  oidKey,
  openDer,
  tags,
} from '../x509/der.ts'

/** OWASP's figure of 2025 for PBKDF2-HMAC-SHA-256. 84 ms on the thread pool; four keys at once on two cores 170 (measured). */
export const passphraseRounds = 600_000

/** For a passphrase of 256 random bits, which nobody will guess at any speed. */
export const randomPassphraseRounds = 2_048

/** The PEM text of the key, encrypted. */
export const sealPrivateKey = async (
  key: KeyObject,
  passphrase: string,
  rounds: number = passphraseRounds,
): Promise<string> => {
  const [salt, iv] = [randomBytes(16), randomBytes(16)]
  const secret = await derive(passphrase, salt, rounds, 32, 'sha256')
  const plain = key.export({ type: 'pkcs8', format: 'der' })
  const cipher = createCipheriv('aes-256-cbc', secret, iv)
  const data = Buffer.concat([cipher.update(plain), cipher.final()])
  plain.fill(0)
  secret.fill(0)
  const count = Buffer.alloc(4)
  count.writeUInt32BE(rounds)
  const kdf = encodeSequence(encodeDer(tags.octetString, salt), encodeUnsigned(count), hmacWithSha256)
  const scheme = encodeSequence(
    encodeSequence(encodeOid(oids.pbkdf2), kdf),
    encodeSequence(encodeOid(oids.aes256Cbc), encodeDer(tags.octetString, iv)),
  )
  const info = encodeSequence(encodeSequence(encodeOid(oids.pbes2), scheme), encodeDer(tags.octetString, data))
  const lines = info.toString('base64').replace(/.{1,64}/g, '$&\n')
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`
}

/** It would keep a thread for longer than anybody waits for a key. */
export class TooMuchWork extends Error {}

/**
 * The key in a PEM text. What is encrypted in another way than by PBES2, as other programs do, is left to OpenSSL. Rejects
 * when it is no private key, or the passphrase is not its own; with `TooMuchWork` where it would take too long to find out.
 */
export const unsealPrivateKey = async (pem: Buffer, passphrase: string): Promise<KeyObject> => {
  const sealed = readSealed(pem)
  if (sealed && sealed.work > mostWork) throw new TooMuchWork('its passphrase would have to be stretched for too long')
  if (sealed?.parts === undefined) return createPrivateKey({ key: pem, passphrase })
  const { derive, cipher, iv, data } = sealed.parts
  const secret = await derive(passphrase, cipher.octets)
  const decipher = createDecipheriv(cipher.name, secret, iv)
  const plain = Buffer.concat([decipher.update(data), decipher.final()])
  secret.fill(0)
  try {
    return createPrivateKey({ key: plain, format: 'der', type: 'pkcs8' })
  } finally {
    plain.fill(0)
  }
}

interface Sealed extends Pick<Stretching, 'work'> {
  /** Where we can open it ourselves. */
  readonly parts?: Parts
}

interface Parts {
  readonly derive: Derive
  readonly cipher: Cipher
  readonly iv: Buffer
  readonly data: Buffer
}

interface Stretching {
  /** As rounds of PBKDF2 by SHA-256. */
  readonly work: number
  /** Undefined by a hash that we do not know. */
  readonly derive?: Derive
}

/** On the thread pool. */
type Derive = (passphrase: string, octets: number) => Promise<Buffer>

/** Where the text is of PBES2. */
const readSealed = (pem: Buffer): Sealed | undefined => {
  const [, body] = form.exec(pem.toString('latin1')) ?? []
  if (body === undefined) return undefined
  try {
    const info = openDer(Buffer.from(body, 'base64'), 'internal').read(tags.sequence, 'EncryptedPrivateKeyInfo')
    const identifier = info.read(tags.sequence, 'AlgorithmIdentifier')
    if (identifier.oid('algorithm') !== oidKey(oids.pbes2)) return undefined
    const scheme = identifier.read(tags.sequence, 'parameters')
    const kdf = scheme.read(tags.sequence, 'keyDerivationFunc')
    const stretching = kdfs.get(kdf.oid('algorithm'))?.(kdf.read(tags.sequence, 'parameters'))
    if (stretching === undefined) return undefined
    const { work, derive } = stretching
    const encryption = scheme.read(tags.sequence, 'encryptionScheme')
    const cipher = ciphers.get(encryption.oid('algorithm'))
    if (!derive || !cipher) return { work }
    const iv = encryption.read(tags.octetString, 'iv').octets
    const data = info.read(tags.octetString, 'encryptedData').octets
    return { work, parts: { derive, cipher, iv, data } }
  } catch {
    return undefined
  }
}

/** RFC 8018 A.2. A keyLength only repeats what the cipher takes. */
const readPbkdf2 = (kdf: DerReader): Stretching => {
  const salt = kdf.read(tags.octetString, 'salt').octets
  const rounds = countIn(kdf, 'iterationCount')
  if (kdf.tag === tags.integer) kdf.smallInteger('keyLength')
  const prf = kdf.done ? hmacWithSha1 : kdf.read(tags.sequence, 'prf').oid('algorithm')
  const { hash, cost } = prfs.get(prf) ?? unknownPrf
  const work = rounds * cost
  if (hash === undefined) return { work }
  return { work, derive: (passphrase, octets) => derive(passphrase, salt, rounds, octets, hash) }
}

/** RFC 7914 7. How much memory it may take, Node bounds as OpenSSL does. */
const readScrypt = (kdf: DerReader): Stretching => {
  const salt = kdf.read(tags.octetString, 'salt').octets
  const [N, r, p] = ['costParameter', 'blockSize', 'parallelization'].map((what) => countIn(kdf, what)) as [
    number,
    number,
    number,
  ]
  return {
    work: N * r * p * costOfScrypt,
    derive: (passphrase, octets) => deriveByScrypt(passphrase, salt, octets, { N, r, p }),
  }
}

/** However large: what it is too much for is ours to say. */
const countIn = (kdf: DerReader, what: string): number => {
  const { octets } = kdf.read(tags.integer, what)
  return octets.length > 6 ? Number.POSITIVE_INFINITY : octets.readUIntBE(0, octets.length)
}

const derive = promisify(pbkdf2)
const deriveByScrypt = promisify(scrypt) as (
  passphrase: string,
  salt: Buffer,
  octets: number,
  options: ScryptOptions,
) => Promise<Buffer>
const label = 'ENCRYPTED PRIVATE KEY'
/** Text may stand before it, as `openssl pkcs12` writes it (RFC 7468 5.2). */
const form =
  /(?:^|\n)-----BEGIN ENCRYPTED PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END ENCRYPTED PRIVATE KEY-----/
const oids = {
  pbes2: '1.2.840.113549.1.5.13',
  pbkdf2: '1.2.840.113549.1.5.12',
  scrypt: '1.3.6.1.4.1.11591.4.11',
  aes256Cbc: '2.16.840.1.101.3.4.1.42',
} as const
const hmacWithSha256 = encodeSequence(encodeOid('1.2.840.113549.2.9'), encodeDer(tags.null))
const hmacWithSha1 = oidKey('1.2.840.113549.2.7')

const kdfs: ReadonlyMap<string, (parameters: DerReader) => Stretching> = new Map([
  [oidKey(oids.pbkdf2), readPbkdf2],
  [oidKey(oids.scrypt), readScrypt],
])
interface Prf {
  readonly hash?: string
  readonly cost: number
}
/** By HMAC with which hash, and how many times as long as with SHA-256 (measured, where that is done by the processor). */
const prfs: ReadonlyMap<string, Prf> = new Map([
  [hmacWithSha1, { hash: 'sha1', cost: 2 }],
  [oidKey('1.2.840.113549.2.8'), { hash: 'sha224', cost: 2 }],
  [oidKey('1.2.840.113549.2.9'), { hash: 'sha256', cost: 1 }],
  [oidKey('1.2.840.113549.2.10'), { hash: 'sha384', cost: 5 }],
  [oidKey('1.2.840.113549.2.11'), { hash: 'sha512', cost: 5 }],
])
const unknownPrf: Prf = { cost: 5 }
interface Cipher {
  readonly name: string
  /** Of its key. */
  readonly octets: number
}
const ciphers: ReadonlyMap<string, Cipher> = new Map([
  [oidKey('2.16.840.1.101.3.4.1.2'), { name: 'aes-128-cbc', octets: 16 }],
  [oidKey('2.16.840.1.101.3.4.1.22'), { name: 'aes-192-cbc', octets: 24 }],
  [oidKey(oids.aes256Cbc), { name: 'aes-256-cbc', octets: 32 }],
  [oidKey('1.2.840.113549.3.7'), { name: 'des-ede3-cbc', octets: 24 }],
])
/** Each of N·r·p takes as long as so many rounds. */
const costOfScrypt = 2.5
/** One and a half seconds; seven where others want the processor too. A signer that opens no key within ten is killed. */
const mostWork = 10_000_000
