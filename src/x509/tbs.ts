import { hash } from 'node:crypto'

import { requestSlabs } from '../lib/slabs.ts'
import type { SignatureAlgorithm } from './algorithms.ts'
import { DerWriter, encodeDer, encodeOid, encodeSequence, encodeUnsigned, tags } from './der.ts'
import { encodeExtendedKeyUsage, encodeExtension, encodeKeyUsage, extensionOids, type KeyUsage } from './extensions.ts'
import { keyBits, type PublicKey } from './keys.ts'
import { type Name, writeGeneralNames } from './names.ts'
import { type Subject, writeSubject } from './subject.ts'
import { encodeTime } from './time.ts'

export interface TemplateIssuer {
  /** Name DER, the issuer's subject as its certificate has it. */
  readonly subject: Buffer
  readonly keyIdentifier: Buffer
  readonly signature: SignatureAlgorithm
  /** What URLs begin with; fixed when the issuer was created. */
  readonly publicUrl: string
  readonly name: string
}

export interface TemplateInput {
  readonly issuer: TemplateIssuer
  readonly keyUsage: readonly KeyUsage[]
  /** Names of `extendedKeyUsages` or dotted OIDs; none leaves the extension out. */
  readonly extendedKeyUsage: readonly string[]
  /** `none` says so with noRevAvail (RFC 9608), and leaves out where revocation could be looked up. */
  readonly revocation: readonly ('crl' | 'ocsp')[] | 'none'
}

/** Every octet of a TBSCertificate that does not vary between the certificates of one issuer, profile and key usage. */
export interface Template {
  /** [0] version 2. */
  readonly version: Buffer
  /** signature and issuer. */
  readonly issuer: Buffer
  /** The extensions that do not vary, up to those that do. */
  readonly extensions: Buffer
  /** What a CRL distribution point's URL begins with; undefined leaves the extension out. */
  readonly crl: string | undefined
  readonly keyIdentifier: (key: PublicKey) => Buffer
}

export interface TbsInput {
  /** Positive, at most 20 octets; ours has 16. */
  readonly serial: Buffer
  readonly notBefore: Date
  /** Itself included in the validity (RFC 5280 4.1.2.5). */
  readonly notAfter: Date
  readonly subject: Subject
  readonly key: PublicKey
  readonly names: readonly Name[]
  readonly shard: number
}

/** Compiles the octets that all certificates of this issuer and profile share. Once per version, never per request. */
export const compileTemplate = ({ issuer, keyUsage, extendedKeyUsage, revocation }: TemplateInput): Template => {
  const base = issuer.publicUrl.replace(/\/+$/, '')
  const asks = (kind: 'crl' | 'ocsp'): boolean => revocation !== 'none' && revocation.includes(kind)
  const access = [accessDescription('1.3.6.1.5.5.7.48.2', `${base}/issuers/${issuer.name}.cer`)]
  if (asks('ocsp')) access.unshift(accessDescription('1.3.6.1.5.5.7.48.1', `${base}/ocsp/${issuer.name}`))
  return {
    version: encodeDer(0xa0, encodeUnsigned(Buffer.from([2]))),
    issuer: Buffer.concat([issuer.signature.identifier, issuer.subject]),
    extensions: Buffer.concat([
      encodeAuthorityKeyIdentifier(issuer.keyIdentifier),
      encodeExtension('basicConstraints', true, encodeSequence()),
      ...(keyUsage.length > 0 ? [encodeExtension('keyUsage', true, encodeKeyUsage(keyUsage))] : []),
      ...(extendedKeyUsage.length > 0
        ? [encodeExtension('extendedKeyUsage', false, encodeExtendedKeyUsage(extendedKeyUsage))]
        : []),
      encodeExtension('authorityInfoAccess', false, encodeSequence(...access)),
      // Else whoever asks for a status would have to ask for that of who answers (RFC 6960 4.2.2.2.1).
      ...(answersForIssuer(extendedKeyUsage) ? [encodeExtension('ocspNoCheck', false, encodeDer(tags.null))] : []),
      ...(revocation === 'none' ? [encodeExtension('noRevAvail', false, encodeDer(tags.null))] : []),
    ]),
    crl: asks('crl') ? `${base}/crl/${issuer.name}/` : undefined,
    keyIdentifier: (key) => keyIdentifierOf(key, extendedKeyUsage),
  }
}

/** Whether a certificate with these usages speaks for its issuer. */
export const answersForIssuer = (extendedKeyUsage: readonly string[]): boolean =>
  extendedKeyUsage.includes('OCSPSigning')

/**
 * The subject key identifier of a key with these usages. Of who answers for its issuer it is what answers name the key by, which is
 * SHA-1 (RFC 6960 4.2.1): some find the certificate of an answer by nothing else (certvalidator, pyHanko).
 */
export const keyIdentifierOf = ({ spki, keyIdentifier }: PublicKey, extendedKeyUsage: readonly string[]): Buffer =>
  answersForIssuer(extendedKeyUsage) ? hash('sha1', keyBits(spki), 'buffer') : keyIdentifier

/**
 * The TBSCertificate (RFC 5280 4.1) of a leaf: version 3, never a CA by construction. The subject key identifier is
 * computed, subjectAltName is critical exactly when the subject is empty (4.2.1.6). Takes 2 µs, written back to front.
 */
export const encodeTbs = (template: Template, input: TbsInput): Buffer => {
  const { subject, key, names } = input
  const writer = new DerWriter(capacityFor(template, input), requestSlabs)
  if (template.crl !== undefined) writeCrlDistributionPoint(writer, `${template.crl}${input.shard}.crl`)
  if (names.length > 0) writeSubjectAltName(writer, names, subject.length === 0)
  writeSubjectKeyIdentifier(writer, template.keyIdentifier(key))
  writer.bytes(template.extensions)
  writer.header(tags.sequence, 0)
  writer.header(0xa3, 0)
  writer.bytes(key.spki)
  writeSubject(writer, subject)
  writeValidity(writer, input.notBefore, input.notAfter)
  writer.bytes(template.issuer)
  writeSerial(writer, input.serial)
  writer.bytes(template.version)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** What there is, and headers, serial, validity, key identifier and the number of the shard: with room to spare. */
const capacityFor = ({ issuer, extensions, crl = '' }: Template, { subject, key, names }: TbsInput): number => {
  let octets = 192 + issuer.length + extensions.length + crl.length + key.spki.length
  for (const { kind, value } of names) octets += kind === 'ip' ? 18 : value.length + 4
  for (const { value } of subject) octets += 3 * value.length + 24
  return octets
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue } (RFC 5280 4.1). */
export const encodeCertificate = (tbs: Buffer, signatureAlgorithm: SignatureAlgorithm, signature: Buffer): Buffer => {
  const writer = new DerWriter(tbs.length + signature.length + signatureAlgorithm.identifier.length + 16, requestSlabs)
  writer.bytes(signature)
  writer.octet(0)
  writer.header(tags.bitString, 0)
  writer.bytes(signatureAlgorithm.identifier)
  writer.bytes(tbs)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

export const encodeAuthorityKeyIdentifier = (keyIdentifier: Buffer): Buffer =>
  encodeExtension('authorityKeyIdentifier', false, encodeSequence(encodeDer(0x80, keyIdentifier)))

/** AccessDescription with a URL (RFC 5280 4.2.2.1). */
export const accessDescription = (method: string, url: string): Buffer =>
  encodeSequence(encodeOid(method), encodeDer(0x86, Buffer.from(url, 'latin1')))

/** CertificateSerialNumber: positive, at most 20 octets (RFC 5280 4.1.2.2). */
export const writeSerial = (writer: DerWriter, serial: Buffer): void => {
  let start = 0
  while (start < serial.length && serial[start] === 0) start++
  const first = serial[start]
  if (first === undefined || serial.length - start > (first >= 0x80 ? 19 : 20)) {
    throw new RangeError('a serial is positive and at most 20 octets')
  }
  const mark = writer.size
  writer.bytes(start === 0 ? serial : serial.subarray(start))
  if (first >= 0x80) writer.octet(0)
  writer.header(tags.integer, mark)
}

export const writeValidity = (writer: DerWriter, notBefore: Date, notAfter: Date): void => {
  if (!(notAfter.getTime() >= notBefore.getTime())) throw new RangeError('notAfter lies before notBefore')
  const mark = writer.size
  writer.bytes(encodeTime(notAfter))
  writer.bytes(encodeTime(notBefore))
  writer.header(tags.sequence, mark)
}

export const writeSubjectKeyIdentifier = (writer: DerWriter, keyIdentifier: Buffer): void => {
  const mark = writer.size
  writer.bytes(keyIdentifier)
  writer.header(tags.octetString, mark)
  finishExtension(writer, mark, oids.subjectKeyIdentifier)
}

export const writeCrlDistributionPoint = (writer: DerWriter, url: string): void => {
  const mark = writer.size
  writer.ascii(url)
  writer.header(0x86, mark)
  writer.header(0xa0, mark)
  writer.header(0xa0, mark)
  writer.header(tags.sequence, mark)
  writer.header(tags.sequence, mark)
  finishExtension(writer, mark, oids.crlDistributionPoints)
}

const writeSubjectAltName = (writer: DerWriter, names: readonly Name[], critical: boolean): void => {
  const mark = writer.size
  writeGeneralNames(writer, names)
  finishExtension(writer, mark, critical ? oids.criticalSubjectAltName : oids.subjectAltName)
}

/** Wraps the value written since `mark` into an Extension. */
const finishExtension = (writer: DerWriter, mark: number, oid: Buffer): void => {
  writer.header(tags.octetString, mark)
  writer.bytes(oid)
  writer.header(tags.sequence, mark)
}

/** extnID, with `critical TRUE` where it belongs. */
const oids = {
  subjectKeyIdentifier: encodeOid(extensionOids.subjectKeyIdentifier),
  crlDistributionPoints: encodeOid(extensionOids.crlDistributionPoints),
  subjectAltName: encodeOid(extensionOids.subjectAltName),
  criticalSubjectAltName: Buffer.concat([encodeOid(extensionOids.subjectAltName), Buffer.from([0x01, 0x01, 0xff])]),
}
