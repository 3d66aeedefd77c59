/** Enough of PKCS#10 and PEM to judge requests as the API server does; shares no code with `src`. */
import { constants, createPublicKey, type KeyObject, verify, X509Certificate } from 'node:crypto'

export interface CertificateRequest {
  readonly commonName: string
  readonly organizations: readonly string[]
  readonly spki: Buffer
  readonly keyUsages: readonly string[]
  readonly extendedKeyUsages: readonly string[]
  /** Object identifiers of the extensions that it asks for. */
  readonly extensions: ReadonlySet<string>
  readonly isSelfSigned: () => boolean
}

export interface PemBlock {
  readonly type: string
  readonly der: Buffer
}

export const pemBlocks = (text: string): readonly PemBlock[] =>
  [...text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----\n([A-Za-z0-9+/=\s]*?)\n?-----END \1-----/g)].map(
    ([, type = '', body = '']) => ({ type, der: Buffer.from(body, 'base64') }),
  )

/** Undefined for what is no certificate. */
export const readCertificate = (der: Buffer): X509Certificate | undefined => {
  try {
    return new X509Certificate(der)
  } catch {
    return undefined
  }
}

export const spkiOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })

/** Undefined for what is no request. */
export const readRequest = (der: Buffer): CertificateRequest | undefined => {
  try {
    return parseRequest(der)
  } catch {
    return undefined
  }
}

interface Element {
  readonly tag: number
  readonly body: Buffer
  readonly whole: Buffer
}

const parseRequest = (der: Buffer): CertificateRequest => {
  const [info, algorithm, signature] = read(one(der).body)
  if (info === undefined || algorithm === undefined || signature === undefined) throw new Error('no request')
  const [, subject, spki, attributes] = read(info.body)
  if (subject === undefined || spki === undefined) throw new Error('no request')
  const names = read(subject.body).flatMap((set) => read(set.body).map((pair) => read(pair.body)))
  const texts = (wanted: string): string[] =>
    names.filter(([type]) => oidOf(type) === wanted).map(([, value]) => value?.body.toString() ?? '')
  const extensions = extensionsOf(attributes)
  const usageBits = extensions.get('2.5.29.15')
  const purposes = extensions.get('2.5.29.37')
  return {
    commonName: texts('2.5.4.3')[0] ?? '',
    organizations: texts('2.5.4.10'),
    spki: spki.whole,
    keyUsages: usageBits === undefined ? [] : usagesOf(one(usageBits).body),
    extendedKeyUsages:
      purposes === undefined
        ? []
        : read(one(purposes).body).map((purpose) => extendedUsages[oidOf(purpose)] ?? oidOf(purpose)),
    extensions: new Set(extensions.keys()),
    isSelfSigned: () => isSigned(spki.whole, info.whole, { algorithm: oidOf(read(algorithm.body)[0]), signature }),
  }
}

const isSigned = (
  spki: Buffer,
  signed: Buffer,
  { algorithm, signature }: { readonly algorithm: string; readonly signature: Element },
): boolean => {
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  return verify(hashes[algorithm] ?? null, signed, key, signature.body.subarray(1))
}

/** A signature over a text in the way of a proof of possession: ECDSA and RSA-PSS with SHA-256, or Ed25519. */
export const isProof = (key: KeyObject, text: string, signature: Buffer): boolean => {
  const pss = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  return verify(hash, Buffer.from(text), key.asymmetricKeyType === 'rsa' ? pss : key, signature)
}

const extensionsOf = (attributes: Element | undefined): Map<string, Buffer> => {
  const found = new Map<string, Buffer>()
  for (const attribute of attributes === undefined ? [] : read(attributes.body)) {
    const [type, values] = read(attribute.body)
    if (oidOf(type) !== '1.2.840.113549.1.9.14' || values === undefined) continue
    for (const extension of read(one(values.body).body)) {
      const parts = read(extension.body)
      found.set(oidOf(parts[0]), parts.at(-1)?.body ?? Buffer.alloc(0))
    }
  }
  return found
}

const usagesOf = (bitString: Buffer): string[] =>
  keyUsageNames.filter((_, index) => ((bitString[1 + (index >> 3)] ?? 0) & (0x80 >> (index & 7))) !== 0)

const one = (der: Buffer): Element => {
  const [first, ...rest] = read(der)
  if (first === undefined || rest.length > 0) throw new Error('not one element')
  return first
}

const read = (der: Buffer): Element[] => {
  const elements: Element[] = []
  for (let position = 0; position < der.length; ) {
    const first = der[position + 1] ?? 0
    const octets = first < 0x80 ? 0 : first & 0x7f
    const length = octets === 0 ? first : der.readUIntBE(position + 2, octets)
    const start = position + 2 + octets
    if (start + length > der.length) throw new Error('too short')
    elements.push({
      tag: der[position] ?? 0,
      body: der.subarray(start, start + length),
      whole: der.subarray(position, start + length),
    })
    position = start + length
  }
  return elements
}

const oidOf = (element: Element | undefined): string => {
  const arcs: number[] = []
  let arc = 0
  for (const octet of element?.body ?? []) {
    arc = arc * 128 + (octet & 0x7f)
    if (octet >= 0x80) continue
    arcs.push(arc)
    arc = 0
  }
  const [first = 0, ...rest] = arcs
  return [Math.min(2, Math.floor(first / 40)), first - 40 * Math.min(2, Math.floor(first / 40)), ...rest].join('.')
}

const keyUsageNames = [
  'digital signature',
  'content commitment',
  'key encipherment',
  'data encipherment',
  'key agreement',
  'cert sign',
  'crl sign',
  'encipher only',
  'decipher only',
]

const extendedUsages: Readonly<Record<string, string>> = {
  '1.3.6.1.5.5.7.3.1': 'server auth',
  '1.3.6.1.5.5.7.3.2': 'client auth',
  '1.3.6.1.5.5.7.3.3': 'code signing',
  '1.3.6.1.5.5.7.3.4': 'email protection',
  '1.3.6.1.5.5.7.3.8': 'timestamping',
  '1.3.6.1.5.5.7.3.9': 'ocsp signing',
}

const hashes: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
}
