/**
 * The software provider: PKCS#8, encrypted at rest (PBES2: scrypt is not in OpenSSL's PKCS#8 writer, so PBKDF2 and
 * AES-256-CBC), in files that only we can read. For development and tests; production asks for an explicit yes.
 */
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject, sign as signNow } from 'node:crypto'
import { promisify } from 'node:util'

import {
  defaultSignatureAlgorithm,
  type KeyAlgorithmId,
  keyAlgorithms,
  type SignatureAlgorithm,
} from '../x509/algorithms.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { createPrivateFile, readPrivateFile } from './private-file.ts'
import { SigningFault, type SigningKey } from './signing-key.ts'

export interface SoftwareKeyFile {
  readonly path: string
  readonly passphrase: string
}

/** Opens an existing key. Throws a sentence when the file is missing, open to others, or the passphrase is wrong. */
export const openSoftwareKey = async ({ path, passphrase }: SoftwareKeyFile): Promise<SigningKey> => {
  const pem = await readPrivateFile(path)
  try {
    return softwareKey(path, createPrivateKey({ key: pem, passphrase }))
  } catch (cause) {
    throw new Error(`${path} is not a key that this passphrase opens.`, { cause })
  }
}

/** Makes a key and writes it, durably, before it can sign anything. Never overwrites one. */
export const createSoftwareKey = async (
  { path, passphrase }: SoftwareKeyFile,
  kind: KeyAlgorithmId,
): Promise<SigningKey> => {
  const { type, options } = keyAlgorithms[kind].generate
  const { privateKey } = await generate(type, options)
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase })
  await createPrivateFile(path, pem).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
    throw new Error(`${path} exists; a key is never overwritten.`, { cause: error })
  })
  return softwareKey(path, privateKey)
}

const softwareKey = (path: string, key: KeyObject): SigningKey => {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const kind = parsePublicKey(spki).algorithm.id
  const algorithm = defaultSignatureAlgorithm(kind)
  const input = { key, ...algorithm.signOptions }
  const one = algorithm.slowToSign ? onThreadPool(input, algorithm) : inline(input, algorithm)
  return {
    id: `file:${path}`,
    algorithm,
    spki,
    sign: (messages) => Promise.all(messages.map(one)),
    close: async () => {},
  }
}

type SignOne = (message: Buffer) => Promise<Buffer | SigningFault>
type SignInput = SignatureAlgorithm['signOptions'] & { readonly key: KeyObject }

/** A P-256 signature takes 22 µs; handing it to the thread pool would cost the main thread 28 µs (measured). */
const inline =
  (input: SignInput, algorithm: SignatureAlgorithm): SignOne =>
  async (message) => {
    try {
      return signNow(algorithm.hash, message, input)
    } catch (cause) {
      return new SigningFault('before', 'the software key did not sign', cause)
    }
  }

const onThreadPool =
  (input: SignInput, algorithm: SignatureAlgorithm): SignOne =>
  (message) =>
    new Promise((resolve) => {
      signNow(algorithm.hash, message, input, (cause, signature) =>
        resolve(cause ? new SigningFault('before', 'the software key did not sign', cause) : signature),
      )
    })

// The typed overloads want a literal type; the table of algorithms holds only types that exist.
const generate = promisify(generateKeyPair) as unknown as (
  type: string,
  options: object,
) => Promise<{ privateKey: KeyObject }>
