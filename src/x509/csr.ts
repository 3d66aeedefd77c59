import type { SignatureAlgorithm } from './algorithms.ts'
import type { KeyUsage } from './extensions.ts'
import type { KeyBlockList, PublicKey } from './keys.ts'
import type { Name } from './names.ts'
import type { Subject } from './subject.ts'

/** Something that the request carried and the certificate will not, with the reason. */
export interface Dropped {
  readonly field: string
  readonly reason: string
}

/** A certificate request (PKCS#10, RFC 2986) that is strict DER, in shape, with a sound key and well-formed names. */
export interface CertificationRequest {
  readonly der: Buffer
  readonly subject: Subject
  readonly key: PublicKey
  /** From the subjectAltName extension, in order; empty when there is none. */
  readonly names: readonly Name[]
  readonly keyUsage?: readonly KeyUsage[]
  /** Names where known ('serverAuth'), else dotted OIDs. */
  readonly extendedKeyUsage?: readonly string[]
  readonly dropped: readonly Dropped[]
  readonly signatureAlgorithm: SignatureAlgorithm
  /** The octets that are signed: CertificationRequestInfo. */
  readonly tbs: Buffer
  readonly signature: Buffer
}

export interface RequestOptions {
  readonly blocked?: KeyBlockList
}

export const parseRequest = (_der: Buffer, _options: RequestOptions = {}): CertificationRequest => {
  throw new Error('soon')
}

export const verifyPossession = async (_csr: CertificationRequest): Promise<void> => {
  throw new Error('soon')
}
