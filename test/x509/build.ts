/** A small DER builder and a maker of certificate requests that shares no code with `src`, so that it can lie. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'

export const tlv = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const contents = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([tag, ...lengthOctets(contents.length)]), contents])
}

export const seq = (...parts: readonly Buffer[]): Buffer => tlv(0x30, ...parts)
export const set = (...parts: readonly Buffer[]): Buffer => tlv(0x31, ...parts)
export const octets = (...parts: readonly Buffer[]): Buffer => tlv(0x04, ...parts)
export const bits = (contents: Buffer, unused = 0): Buffer => tlv(0x03, Buffer.from([unused]), contents)
export const utf8 = (text: string): Buffer => tlv(0x0c, Buffer.from(text))
export const printable = (text: string): Buffer => tlv(0x13, Buffer.from(text, 'latin1'))
export const ia5 = (text: string): Buffer => tlv(0x16, Buffer.from(text, 'latin1'))
export const yes = Buffer.from('0101ff', 'hex')
export const no = Buffer.from('010100', 'hex')
export const nil = Buffer.from('0500', 'hex')
export const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

export const oid = (dotted: string): Buffer => {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(BigInt) as bigint[]
  return tlv(0x06, Buffer.from([BigInt(first) * 40n + BigInt(second), ...rest].flatMap(base128)))
}

export const integer = (value: bigint | number): Buffer => {
  const text = BigInt(value).toString(16)
  const magnitude = Buffer.from(text.length % 2 === 0 ? text : `0${text}`, 'hex')
  return tlv(0x02, (magnitude[0] as number) >= 0x80 ? Buffer.concat([Buffer.from([0]), magnitude]) : magnitude)
}

export const rdn = (type: string, value: Buffer): Buffer => set(seq(oid(type), value))
export const commonName = (text: string): Buffer => seq(rdn('2.5.4.3', utf8(text)))
export const dns = (text: string): Buffer => tlv(0x82, Buffer.from(text, 'latin1'))
export const ip = (text: string): Buffer => tlv(0x87, hex(text))
export const uri = (text: string): Buffer => tlv(0x86, Buffer.from(text, 'latin1'))
export const mail = (text: string): Buffer => tlv(0x81, Buffer.from(text, 'latin1'))

export const extension = (type: string, value: Buffer, critical?: Buffer): Buffer =>
  seq(oid(type), ...(critical === undefined ? [] : [critical]), octets(value))
export const san = (...names: readonly Buffer[]): Buffer => extension('2.5.29.17', seq(...names))
export const attribute = (type: string, ...values: readonly Buffer[]): Buffer => seq(oid(type), set(...values))
export const extensionRequest = (...extensions: readonly Buffer[]): Buffer =>
  attribute('1.2.840.113549.1.9.14', seq(...extensions))

/** What signs a request: an SPKI, an AlgorithmIdentifier and a function over the octets. */
export interface Signer {
  readonly spki: Buffer
  readonly algorithm: Buffer
  readonly sign: (tbs: Buffer) => Buffer
}

export const signerOf = (
  key: KeyObject,
  spki: Buffer,
  algorithm = ecdsaSha256,
  hash: string | null = 'sha256',
): Signer => ({
  spki,
  algorithm,
  sign: (tbs) => sign(hash, tbs, key),
})

/** Everything about a request that a case may want to be wrong. */
export interface Parts {
  readonly signer?: Signer
  readonly version?: Buffer
  readonly subject?: Buffer
  readonly spki?: Buffer
  /** The whole of attributes [0], or nothing in its place. */
  readonly attributes?: Buffer
  readonly extensions?: readonly Buffer[]
  readonly algorithm?: Buffer
  /** The whole BIT STRING. */
  readonly signature?: Buffer
}

export const request = (parts: Parts = {}): Buffer => {
  const signer = parts.signer ?? p256()
  const tbs = seq(
    parts.version ?? integer(0),
    parts.subject ?? seq(),
    parts.spki ?? signer.spki,
    parts.attributes ?? tlv(0xa0, extensionRequest(...(parts.extensions ?? [host]))),
  )
  return seq(tbs, parts.algorithm ?? signer.algorithm, parts.signature ?? bits(signer.sign(tbs)))
}

export const pem = (der: Buffer, label = 'CERTIFICATE REQUEST'): string =>
  `-----BEGIN ${label}-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END ${label}-----\n`

/** One P-256 key for all the cases that are not about keys. */
export const p256 = (): Signer => {
  const key = createPrivateKey({ key: { kty: 'EC', crv: 'P-256', ...p256Numbers }, format: 'jwk' })
  return signerOf(key, seq(seq(oid('1.2.840.10045.2.1'), oid('1.2.840.10045.3.1.7')), bits(p256Point)))
}

/** A P-256 key that nobody has had before: one key is certified for one principal. */
export const newP256 = (): Signer => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return signerOf(privateKey, publicKey.export({ type: 'spki', format: 'der' }))
}

/** A request on this P-256 key, for one DNS name. */
export const requestBy = (key: KeyObject, name: string): Buffer => {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return request({ signer: signerOf(key, spki), extensions: [san(dns(name))] })
}

const lengthOctets = (length: number): number[] => {
  if (length < 0x80) return [length]
  const text = length.toString(16)
  const size = Buffer.from(text.length % 2 === 0 ? text : `0${text}`, 'hex')
  return [0x80 | size.length, ...size]
}

const base128 = (arc: bigint): number[] => {
  const found = [Number(arc & 0x7fn)]
  for (let rest = arc >> 7n; rest > 0n; rest >>= 7n) found.unshift(Number(rest & 0x7fn) | 0x80)
  return found
}

const p256Numbers = {
  d: 'U96auGobsYC7nRx6M3Kvv5X3jjWNEJ1R3qmJ8EQCvJ0',
  x: 'Owgd7KM5M2f7C4oMTFTh2LHDOV8p4alV9Wx5lTU-3i4',
  y: 'BlhyFYOrZZYW7a-FIDAKybXFq06FYMkvUMseE8FQTuc',
}
export const p256Point = Buffer.concat([
  Buffer.from([4]),
  Buffer.from(p256Numbers.x, 'base64url'),
  Buffer.from(p256Numbers.y, 'base64url'),
])

export const ecdsaSha256 = seq(oid('1.2.840.10045.4.3.2'))
export const rsaSha256 = seq(oid('1.2.840.113549.1.1.11'), nil)
export const host = san(dns('host.example.com'))
