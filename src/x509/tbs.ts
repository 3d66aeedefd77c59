import type { SignatureAlgorithm } from './algorithms.ts'
import { encodeBits, encodeSequence } from './der.ts'
import type { KeyUsage } from './extensions.ts'
import type { PublicKey } from './keys.ts'
import type { Name } from './names.ts'
import type { Subject } from './subject.ts'

export interface TemplateIssuer {
  /** Name DER, the issuer's subject as its certificate has it. */
  readonly subject: Buffer
  readonly keyIdentifier: Buffer
  readonly signature: SignatureAlgorithm
  /** Without a slash at its end; fixed when the issuer was created. */
  readonly publicUrl: string
  readonly name: string
}

export interface TemplateInput {
  readonly issuer: TemplateIssuer
  readonly keyUsage: readonly KeyUsage[]
  readonly extendedKeyUsage: readonly string[]
  readonly revocation: readonly ('crl' | 'ocsp')[] | 'none'
}

export interface Template {
  readonly input: TemplateInput
}

export interface TbsInput {
  /** 16 octets, positive. */
  readonly serial: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
  readonly subject: Subject
  readonly key: PublicKey
  readonly names: readonly Name[]
  readonly shard: number
}

export const compileTemplate = (input: TemplateInput): Template => ({ input })

export const encodeTbs = (_template: Template, _input: TbsInput): Buffer => {
  throw new Error('soon')
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue } (RFC 5280 4.1). */
export const encodeCertificate = (tbs: Buffer, signatureAlgorithm: SignatureAlgorithm, signature: Buffer): Buffer =>
  encodeSequence(tbs, signatureAlgorithm.identifier, encodeBits(signature))
