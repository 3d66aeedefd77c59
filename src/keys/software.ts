/**
 * The software provider: PKCS#8, encrypted at rest, in files that only we can read. For development, tests and offline
 * roots; production asks for an explicit yes.
 */
import { createPublicKey, generateKeyPair, type KeyObject, sign as signNow } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { promisify } from 'node:util'

import { isProblem } from '../errors.ts'
import { defaultSignatureAlgorithm, generationOf, type KeyKind, type SignatureAlgorithm } from '../x509/algorithms.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { sealPrivateKey, TooMuchWork, unsealPrivateKey } from './pbes2.ts'
import { KeyExists, TokenFault } from './pkcs11/token-fault.ts'
import { createPrivateFile, readPrivateFile, signerPatienceMs } from './private-file.ts'
import { SigningFault, type SigningKey } from './signing-key.ts'

export interface SoftwareKeyFile {
  readonly path: string
  readonly passphrase: string
  /** Of PBKDF2, when the file is made; by default as many as a passphrase needs that a person has chosen. */
  readonly rounds?: number
}

/** Another passphrase may open it. */
export class WrongPassphrase extends Error {}

/**
 * Opens an existing key. Throws a sentence when the file is missing, open to others, the passphrase is wrong, or the key is none
 * that would be certified.
 */
export const openSoftwareKey = async ({ path, passphrase }: SoftwareKeyFile): Promise<SigningKey> => {
  const pem = await readPrivateFile(path, signerPatienceMs)
  if (isOpen(pem.toString('latin1')))
    throw new Error(`${path} holds a private key that is not encrypted as PKCS#8: do so with "openssl pkcs8 -topk8".`)
  const key = await unsealPrivateKey(pem, passphrase).catch((cause: unknown) => {
    if (cause instanceof TooMuchWork) throw new Error(`${path} is not opened: ${cause.message}.`, { cause })
    throw new WrongPassphrase(`${path} is not a key that this passphrase opens.`, { cause })
  })
  try {
    return softwareKey(path, key)
  } catch (cause) {
    // Nobody is to look for another passphrase.
    throw new Error(
      `${path} is opened, and not used: ${isProblem(cause) ? cause.detail : 'it is no key that signs'}.`,
      {
        cause,
      },
    )
  }
}

/** Makes a key and writes it, durably, before it can sign anything. Never overwrites one. */
export const createSoftwareKey = async (
  { path, passphrase, rounds }: SoftwareKeyFile,
  kind: KeyKind,
): Promise<SigningKey> => {
  const { type, options } = generationOf(kind)
  const { privateKey } = await generate(type, options)
  const pem = await sealPrivateKey(privateKey, passphrase, rounds)
  await createPrivateFile(path, pem).catch(async (error: NodeJS.ErrnoException) => {
    throw await unmade(path, error)
  })
  return softwareKey(path, privateKey)
}

/** Where a Secret of Kubernetes has the keys, nothing can be written, and whether one is there only shows by itself. */
const unmade = async (path: string, error: NodeJS.ErrnoException): Promise<Error> => {
  const { code = '' } = error
  const isClosed = code === 'EROFS' || code === 'EACCES'
  const found = isClosed ? await stat(path).then(() => 'EEXIST', codeOf) : code
  if (found === 'EEXIST') return new KeyExists(`${path} exists; a key is never overwritten.`, error)
  if (!isClosed) return error
  const sentence =
    found === 'ENOENT'
      ? `There is no key at ${path}, and none can be made there (${code}): put one there, or name another.`
      : `The way to ${path} is closed to this account (${found}): run as the one that has the folder, or give it to this one.`
  return new TokenFault('request', sentence, error)
}

const codeOf = ({ code }: NodeJS.ErrnoException): string | undefined => code

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

/** Not encrypted at all, or as OpenSSL did before PKCS#8, with one round of MD5. */
const isOpen = (pem: string): boolean => /-----BEGIN (?!ENCRYPTED )[A-Z ]*PRIVATE KEY-----/.test(pem)

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
