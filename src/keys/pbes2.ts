/**
 * Private keys in files: EncryptedPrivateKeyInfo (RFC 5958 3) by PBES2 (RFC 8018 6.2) with PBKDF2-HMAC-SHA-256 and
 * AES-256-CBC, which every OpenSSL opens. Our own encoding, because Node's writer takes 2,048 rounds and no other number;
 * and our own reading, because its reader derives on the thread that asks.
 */
import { createCipheriv, createDecipheriv, createPrivateKey, type KeyObject, pbkdf2, randomBytes } from 'node:crypto'
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

/**
 * The key in a PEM text. What is encrypted in another way than ours, as other programs do, is left to OpenSSL. Rejects
 * when it is no private key, or the passphrase is not its own.
 */
export const unsealPrivateKey = async (pem: Buffer, passphrase: string): Promise<KeyObject> => {
  const sealed = readSealed(pem)
  if (sealed === undefined) return createPrivateKey({ key: pem, passphrase })
  const { salt, rounds, iv, data } = sealed
  const secret = await derive(passphrase, salt, rounds, 32, 'sha256')
  const decipher = createDecipheriv('aes-256-cbc', secret, iv)
  const plain = Buffer.concat([decipher.update(data), decipher.final()])
  secret.fill(0)
  try {
    return createPrivateKey({ key: plain, format: 'der', type: 'pkcs8' })
  } finally {
    plain.fill(0)
  }
}

interface Sealed {
  readonly salt: Buffer
  readonly rounds: number
  readonly iv: Buffer
  readonly data: Buffer
}

/** The parts, where the text is in our form; Node's and OpenSSL's own writers differ from it in the number of rounds only. */
const readSealed = (pem: Buffer): Sealed | undefined => {
  const [, body] = form.exec(pem.toString('latin1')) ?? []
  if (body === undefined) return undefined
  try {
    const info = openDer(Buffer.from(body, 'base64'), 'internal').read(tags.sequence, 'EncryptedPrivateKeyInfo')
    const scheme = parametersOf(info, oids.pbes2)
    const kdf = parametersOf(scheme, oids.pbkdf2)
    const salt = kdf.read(tags.octetString, 'salt').octets
    const rounds = kdf.smallInteger('iterationCount')
    const length = kdf.tag === tags.integer ? kdf.smallInteger('keyLength') : 32
    const prf = kdf.element(tags.sequence, 'prf')
    const iv = parametersOf(scheme, oids.aes256Cbc, (reader) => reader).read(tags.octetString, 'iv').octets
    const data = info.read(tags.octetString, 'encryptedData').octets
    const isOurs = length === 32 && prf.equals(hmacWithSha256) && iv.length === 16 && rounds > 0 && rounds <= maxRounds
    return isOurs ? { salt, rounds, iv, data } : undefined
  } catch {
    return undefined
  }
}

/** Enters an AlgorithmIdentifier of this OID, and its parameters. */
const parametersOf = (
  from: DerReader,
  oid: string,
  enter = (reader: DerReader): DerReader => reader.read(tags.sequence, 'parameters'),
): DerReader => {
  const identifier = from.read(tags.sequence, 'AlgorithmIdentifier')
  if (identifier.oid('algorithm') !== oidKey(oid)) throw identifier.problem('another algorithm')
  return enter(identifier)
}

const derive = promisify(pbkdf2)
const label = 'ENCRYPTED PRIVATE KEY'
const form = /^-----BEGIN ENCRYPTED PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END ENCRYPTED PRIVATE KEY-----\s*$/
const oids = {
  pbes2: '1.2.840.113549.1.5.13',
  pbkdf2: '1.2.840.113549.1.5.12',
  aes256Cbc: '2.16.840.1.101.3.4.1.42',
} as const
const hmacWithSha256 = encodeSequence(encodeOid('1.2.840.113549.2.9'), encodeDer(tags.null))
/** Some ten seconds: a file that asks for more is not one that anybody opens. */
const maxRounds = 100_000_000
