import type { SignatureAlgorithm } from './algorithms.ts'
import type { KeyUsage } from './extensions.ts'
import type { PublicKey } from './keys.ts'
import type { Name } from './names.ts'
import type { Subject } from './subject.ts'

export interface NameConstraints {
  readonly permitted: readonly Name[]
  readonly excluded: readonly Name[]
}

/** What a TBSCertificate says. */
export interface TbsFacts {
  /** Octets of the serial, unsigned; at least 16 (left-padded). */
  readonly serial: Buffer
  /** Name DER. */
  readonly issuer: Buffer
  readonly subject: Subject
  readonly subjectDer: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
  readonly spki: Buffer
  readonly names: readonly Name[]
  readonly keyUsage?: readonly KeyUsage[]
  readonly extendedKeyUsage?: readonly string[]
  readonly ca: boolean
  readonly pathLength?: number
  readonly keyIdentifier?: Buffer
  readonly authorityKeyIdentifier?: Buffer
  readonly nameConstraints?: NameConstraints
  readonly crlUrls: readonly string[]
  readonly ocspUrls: readonly string[]
  readonly issuerUrls: readonly string[]
  readonly extensions: readonly { readonly oid: string; readonly critical: boolean }[]
  readonly signatureAlgorithm: SignatureAlgorithm
}

export interface Certificate {
  readonly tbs: Buffer
  readonly facts: TbsFacts
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Buffer
}

export interface CaTbsInput {
  readonly serial: Buffer
  /** Name DER of who signs; for a root its own. */
  readonly issuer: Buffer
  readonly subject: Subject
  readonly notBefore: Date
  readonly notAfter: Date
  readonly key: PublicKey
  readonly pathLength?: number
  /** Of the issuer's key; for a root its own. */
  readonly authorityKeyIdentifier: Buffer
  readonly signature: SignatureAlgorithm
  readonly crlUrl?: string
  readonly issuerUrl?: string
}

export const parseTbs = (_tbs: Buffer): TbsFacts => {
  throw new Error('soon')
}

export const parseCertificate = (_der: Buffer): Certificate => {
  throw new Error('soon')
}

export const encodeCaTbs = (_input: CaTbsInput): Buffer => {
  throw new Error('soon')
}
