/**
 * The only door to @peculiar/x509: showing certificates to people, and the second opinion of the tests. It takes 2 ms
 * a certificate and accepts what is not DER, so it decides nothing: `certificate.ts` does.
 */
import 'reflect-metadata'

import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  X509Certificate,
} from '@peculiar/x509'

/** A certificate or request as a person would read it. */
export interface Shown {
  readonly subject: string
  readonly names: readonly { readonly type: string; readonly value: string }[]
  /** KeyUsage as the number of RFC 5280's bits, digitalSignature being 1. */
  readonly keyUsage: number | undefined
  /** Dotted OIDs. */
  readonly extendedKeyUsage: readonly string[]
  readonly ca: boolean | undefined
  readonly pathLength: number | undefined
  readonly spki: Buffer
  readonly extensions: readonly { readonly oid: string; readonly critical: boolean }[]
}

export interface ShownCertificate extends Shown {
  readonly issuer: string
  /** Hex, as it is encoded. */
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
}

/** Throws the library's own errors. Give it octets of ours, or what the strict reader has accepted. */
export const showCertificate = (der: Buffer): ShownCertificate => {
  const certificate = new X509Certificate(new Uint8Array(der))
  const { issuer, serialNumber: serial, notBefore, notAfter } = certificate
  return { ...show(certificate), issuer, serial, notBefore, notAfter }
}

/** The same for a request (PKCS#10). */
export const showRequest = (der: Buffer): Shown => show(new Pkcs10CertificateRequest(new Uint8Array(der)))

const show = (from: X509Certificate | Pkcs10CertificateRequest): Shown => {
  const extension = <Kind extends Extension>(kind: abstract new (...args: never[]) => Kind): Kind | undefined =>
    from.extensions.find((one): one is Kind => one instanceof kind)
  const constraints = extension(BasicConstraintsExtension)
  const names = extension(SubjectAlternativeNameExtension)?.names.toJSON() ?? []
  return {
    subject: from.subject,
    names: names.map(({ type, value }) => ({ type, value: String(value) })),
    keyUsage: extension(KeyUsagesExtension)?.usages,
    extendedKeyUsage: extension(ExtendedKeyUsageExtension)?.usages.map(String) ?? [],
    ca: constraints?.ca,
    pathLength: constraints?.pathLength,
    spki: Buffer.from(from.publicKey.rawData),
    extensions: from.extensions.map(({ type, critical }) => ({ oid: type, critical })),
  }
}
