/** What a hostile case is, and the words that the tables of cases are written in. */
import type { ProblemCode } from '../../../src/errors.ts'
import {
  attribute,
  dns,
  extension,
  extensionRequest,
  hex,
  host,
  oid,
  type Parts,
  request,
  type Signer,
  san,
  seq,
  tlv,
} from '../build.ts'
import { mute } from '../keys.ts'

export interface HostileCase {
  /** The row of the project's table of hostile input, in its words. */
  readonly row: string
  /** What is wrong, or not wrong, in a few words. */
  readonly name: string
  /** What a client would POST. */
  readonly body: () => Buffer | string
  readonly contentType: 'application/x-pem-file' | 'application/pkcs10'
  /** The code of the parsers; `accepted`; or, for what is well-formed, the code that the profile `server` answers with. */
  readonly expect: ProblemCode | 'accepted' | { readonly policy: ProblemCode }
}

type Variant = readonly [name: string, body: () => Buffer | string, expect: HostileCase['expect']]

/** DER bodies of one row. */
export const row = (title: string, ...variants: readonly Variant[]): HostileCase[] =>
  variants.map(([name, body, expect]) => ({ row: title, name, body, contentType: 'application/pkcs10', expect }))

/** PEM bodies of one row. */
export const text = (title: string, ...variants: readonly Variant[]): HostileCase[] =>
  row(title, ...variants).map((one) => ({ ...one, contentType: 'application/x-pem-file' }))

/** A request that differs from a good one in these parts. */
export const bad = (parts: Parts) => (): Buffer => request(parts)
export const names = (...list: readonly Buffer[]): (() => Buffer) => bad({ extensions: [san(...list)] })
export const dnsNames = (...list: readonly string[]): (() => Buffer) => names(...list.map(dns))
export const extensions = (...list: readonly Buffer[]): (() => Buffer) => bad({ extensions: [host, ...list] })
export const attributes = (...list: readonly Buffer[]): (() => Buffer) => bad({ attributes: tlv(0xa0, ...list) })
/** Any octets, where any value may stand: in an attribute that nobody knows. */
export const inside = (value: string): (() => Buffer) =>
  attributes(extensionRequest(host), attribute('1.2.3.4', hex(value)))
export const subject = (...rdns: readonly Buffer[]): (() => Buffer) => bad({ subject: seq(...rdns) })
/** A public key whose private key nobody has. */
export const spki = (value: Buffer, algorithm?: Buffer) => (): Buffer => request({ signer: mute(value, algorithm) })
export const by = (signer: () => Signer) => (): Buffer => request({ signer: signer() })

export const oids = {
  keyUsage: '2.5.29.15',
  extendedKeyUsage: '2.5.29.37',
  basicConstraints: '2.5.29.19',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  anyPurpose: '2.5.29.37.0',
  ecPublicKey: '1.2.840.10045.2.1',
  p256: '1.2.840.10045.3.1.7',
} as const

export const keyUsage = (value: string): Buffer => extension(oids.keyUsage, hex(value), hex('0101ff'))
export const purposes = (...list: readonly string[]): Buffer => extension(oids.extendedKeyUsage, seq(...list.map(oid)))
