/** Where a key is, in a URI that may be stored and shown: what can be said of one before any provider is asked. */
import { signatureAlgorithms } from '../x509/algorithms.ts'
import { parsePkcs11Uri } from './pkcs11/uri.ts'

/** A sentence where no key may be under this URI; it repeats nothing that could be a PIN. */
export const keyUriFault = (uri: string, mayBeInFile: boolean): string | undefined => {
  if (!uri.startsWith('file:')) return tokenFault(uri)
  if (!mayBeInFile) return 'in production keys are kept in a token: name one by a pkcs11: URI.'
  // One way to write each path, so that two URIs are of two files.
  const [folder, ...parts] = uri.slice('file:'.length).split('/')
  const isPath = parts.length > 0 && parts.every((part) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(part))
  // Beside them lies what is read as something else, as by the embedded PostgreSQL; and whoever saves keys saves this folder.
  return folder === 'keys' && isPath && parts[0] !== 'passphrase'
    ? undefined
    : 'a file: path lies in the folder keys of the data folder, like keys/issuing-2027.pem.'
}

/** What two URIs of one key have in common: the label, however a URI says in which token; and where it is no URI, itself. */
export const keyNameOf = (uri: string): string => {
  try {
    const { object, id } = parsePkcs11Uri(uri)
    return object ?? id?.toString('hex') ?? uri
  } catch {
    return uri
  }
}

/** How a URI says that its key signs; undefined where it leaves that to the kind of key. */
export const wayToSign = (uri: string): string | undefined =>
  uri.startsWith('pkcs11:') ? parsePkcs11Uri(uri).signature : undefined

const tokenFault = (uri: string): string | undefined => {
  if (uri.includes('pin-value')) return 'a pkcs11: URI here never holds a PIN (pin-value): name the file that does.'
  try {
    const { signature, manufacturer, model } = parsePkcs11Uri(uri)
    // Its next firmware may have other words for them, and what is on record does not change by itself.
    if (manufacturer !== undefined || model !== undefined)
      return 'the URI is on record, and a vendor may change its manufacturer and model: name the token by token= and serial= alone.'
    if (signature === undefined || signatureAlgorithms.some(({ id }) => id === signature)) return undefined
    return `x-signature=${signature} is no way to sign that Chancery knows.`
  } catch (error) {
    return (error as Error).message
  }
}
