/**
 * The only door to @peculiar/x509: the second opinion of ceremonies, of who imports issuers, and of tests. It takes 2 ms a
 * certificate, 100 to be loaded, and accepts what is not DER, so it lets nothing pass: `certificate.ts` does, and this may only refuse.
 */
import 'reflect-metadata'

import { Crypto } from '@peculiar/webcrypto'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  PublicKey,
  SubjectAlternativeNameExtension,
  X509Certificate,
} from '@peculiar/x509'

import type { TbsFacts } from './certificate.ts'
import { keyUsages } from './extensions.ts'

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

/**
 * Where the library reads another certificate in these octets than the strict reader has, and where it does not find the signature
 * of this key (SPKI) good: a sentence's end for each, none where both say the same. It knows no ML-DSA, of which it checks no
 * signature. For what will stand for years.
 */
export const secondOpinion = async (der: Buffer, facts: TbsFacts, signer: Buffer): Promise<readonly string[]> => {
  try {
    const certificate = new X509Certificate(new Uint8Array(der))
    const shown = show(certificate)
    const differing = compared.filter(({ theirs, ours }) => theirs(certificate, shown) !== ours(facts))
    return [
      ...differing.map(({ what, theirs }) => `reads another ${what}, ${theirs(certificate, shown)}`),
      ...((await isGood(certificate, facts, signer)) ? [] : ['does not find the signature good']),
    ]
  } catch (error) {
    return [`cannot read it: ${(error as Error).message}`]
  }
}

interface Constraints {
  readonly ca: boolean | undefined
  readonly pathLength?: number | undefined
}

interface Compared {
  readonly what: string
  readonly theirs: (certificate: X509Certificate, shown: Shown) => string
  readonly ours: (facts: TbsFacts) => string
}

const hex = (octets: ArrayBuffer): string => Buffer.from(octets).toString('hex')
const spanOf = ({ notBefore, notAfter }: { readonly notBefore: Date; readonly notAfter: Date }): string =>
  `${notBefore.toISOString()} to ${notAfter.toISOString()}`
const authorityOf = ({ ca, pathLength }: Constraints): string =>
  `${ca === true ? 'yes' : 'no'}, path length ${pathLength ?? 'any'}`
const extensionsOf = (extensions: TbsFacts['extensions']): string =>
  extensions.map(({ oid, critical }) => (critical ? `${oid} (critical)` : oid)).join(', ')

const compared: readonly Compared[] = [
  {
    what: 'serial',
    theirs: ({ serialNumber }) => serialNumber.replace(/^(00)+/, ''),
    ours: ({ serial }) => serial.toString('hex').replace(/^(00)+/, ''),
  },
  {
    what: 'issuer',
    theirs: ({ issuerName }) => hex(issuerName.toArrayBuffer()),
    ours: ({ issuer }) => issuer.toString('hex'),
  },
  {
    what: 'subject',
    theirs: ({ subjectName }) => hex(subjectName.toArrayBuffer()),
    ours: ({ subjectDer }) => subjectDer.toString('hex'),
  },
  { what: 'validity', theirs: spanOf, ours: spanOf },
  { what: 'public key', theirs: (_, { spki }) => spki.toString('hex'), ours: ({ spki }) => spki.toString('hex') },
  { what: 'authority', theirs: (_, shown) => authorityOf(shown), ours: authorityOf },
  {
    what: 'key usage',
    theirs: (_, { keyUsage = 0 }) => keyUsages.filter((_usage, bit) => (keyUsage & (1 << bit)) !== 0).join(', '),
    ours: ({ keyUsage = [] }) => keyUsage.join(', '),
  },
  {
    what: 'list of extensions',
    theirs: (_, { extensions }) => extensionsOf(extensions),
    ours: ({ extensions }) => extensionsOf(extensions),
  },
]

const isGood = async (
  certificate: X509Certificate,
  { signatureAlgorithm: { id } }: TbsFacts,
  signer: Buffer,
): Promise<boolean> =>
  id.startsWith('ml-dsa') ||
  certificate.verify({ publicKey: new PublicKey(new Uint8Array(signer)), signatureOnly: true }, new Crypto())

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
