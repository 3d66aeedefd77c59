import type { ProblemCode } from '../errors.ts'
import { readOuterAlgorithm, readSignatureAlgorithm, type SignatureAlgorithm } from './algorithms.ts'
import {
  DerReader,
  DerWriter,
  encodeDer,
  encodeSequence,
  encodeUnsigned,
  newBudget,
  oidKey,
  tags,
  type WalkBudget,
  walk,
} from './der.ts'
import {
  type ExtensionName,
  encodeExtension,
  encodeKeyUsage,
  type KeyUsage,
  readBasicConstraints,
  readExtendedKeyUsage,
  readExtensions,
  readKeyUsage,
} from './extensions.ts'
import type { PublicKey } from './keys.ts'
import { encodeNameConstraints, type NameConstraints, readNameConstraints } from './name-constraints.ts'
import { type Name, readIssuedNames } from './names.ts'
import { padSerial, readSerial } from './serial.ts'
import { readSubject, type Subject, writeSubject } from './subject.ts'
import {
  accessDescription,
  encodeAuthorityKeyIdentifier,
  writeCrlDistributionPoint,
  writeSerial,
  writeSubjectKeyIdentifier,
  writeValidity,
} from './tbs.ts'
import { readTime } from './time.ts'

export type { NameConstraints, Subtree } from './name-constraints.ts'

/** What a TBSCertificate says. Buffers are windows of the input. */
export interface TbsFacts {
  /** The serial's octets, unsigned and at least 16: a shorter one has zeros before it. */
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
  /** Of which certificate of that key, where it says so as well; in the form of `serial`. */
  readonly authoritySerial?: Buffer
  readonly nameConstraints?: NameConstraints
  readonly crlUrls: readonly string[]
  readonly ocspUrls: readonly string[]
  readonly issuerUrls: readonly string[]
  /** In their order; the OID dotted. */
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
  /** Name DER of who signs; a root's own. */
  readonly issuer: Buffer
  /** As Name DER where another certificate has it already, and names are compared as octets. */
  readonly subject: Subject | Buffer
  readonly notBefore: Date
  readonly notAfter: Date
  readonly key: PublicKey
  /** Where another certificate of the same key has it already; by default the key's. */
  readonly subjectKeyIdentifier?: Buffer
  /** How many further CA certificates may follow; left out, any number. */
  readonly pathLength?: number
  /** Of the key that signs; a root's own. */
  readonly authorityKeyIdentifier: Buffer
  readonly signature: SignatureAlgorithm
  readonly nameConstraints?: NameConstraints
  readonly crlUrl?: string
  readonly issuerUrl?: string
}

/**
 * Reads a TBSCertificate, version 3, as strictly as a request: the lint reads our own octets back with it. Throws
 * policy.lint with the offset, or san.*, subject.*, ext.* where the fault lies there.
 */
export const parseTbs = (tbs: Buffer): TbsFacts => {
  const reader = new DerReader(tbs, 'policy.lint')
  const budget = newBudget()
  walk(reader, budget)
  return readTbs(reader.read(tags.sequence, 'TBSCertificate'), budget)
}

/** Whether the one says that the other signed it: by name, and by key where both tell it. Proves nothing. */
export const isIssuedBy = (
  { issuer, authorityKeyIdentifier: wanted }: Pick<TbsFacts, 'issuer' | 'authorityKeyIdentifier'>,
  { subjectDer, keyIdentifier: found }: Pick<TbsFacts, 'subjectDer' | 'keyIdentifier'>,
): boolean => subjectDer.equals(issuer) && (wanted === undefined || found === undefined || wanted.equals(found))

/**
 * Reads a certificate whose inner and outer signature algorithm agree (RFC 5280 4.1.1.2). Throws like `parseTbs`, with
 * `code` instead of policy.lint.
 */
export const parseCertificate = (der: Buffer, code: ProblemCode = 'policy.lint'): Certificate =>
  read(der, code, readOuterAlgorithm)

/**
 * The same of who is trusted already, whose own signature nobody looks at: there, OpenSSL takes two algorithms that are the same in
 * other octets, and so did we.
 */
export const parseAnchor = (der: Buffer): TbsFacts => read(der, 'policy.lint', readSignatureAlgorithm).facts

const read = (der: Buffer, code: ProblemCode, readOuter: typeof readOuterAlgorithm): Certificate => {
  const outer = new DerReader(der, code)
  const budget = newBudget()
  walk(outer, budget)
  const certificate = outer.read(tags.sequence, 'Certificate')
  const window = certificate.window(tags.sequence, 'TBSCertificate')
  const tbs = window.octets
  const signed = window.read(tags.sequence, 'TBSCertificate')
  const facts = readTbs(signed, budget)
  // Before it stand version and serial.
  const signatureAlgorithm = readOuter(certificate, signed, 2)
  const signature = certificate.bits('signatureValue').octets
  certificate.finish('Certificate')
  return { tbs, facts, signatureAlgorithm, signature }
}

/**
 * The TBSCertificate of a certificate authority: BasicConstraints critical, keyCertSign and cRLSign, SKI and AKI; name
 * constraints, critical as RFC 5280 4.2.1.10 asks.
 */
export const encodeCaTbs = (input: CaTbsInput): Buffer => {
  const { key, subject, pathLength, signature, nameConstraints, crlUrl, issuerUrl } = input
  const constraints = pathLength === undefined ? [asserted] : [asserted, encodeUnsigned(Buffer.from([pathLength]))]
  const writer = new DerWriter(1024 + key.spki.length)
  if (issuerUrl !== undefined) {
    writer.bytes(
      encodeExtension('authorityInfoAccess', false, encodeSequence(accessDescription('1.3.6.1.5.5.7.48.2', issuerUrl))),
    )
  }
  if (crlUrl !== undefined) writeCrlDistributionPoint(writer, crlUrl)
  if (nameConstraints !== undefined)
    writer.bytes(encodeExtension('nameConstraints', true, encodeNameConstraints(nameConstraints)))
  writer.bytes(encodeAuthorityKeyIdentifier(input.authorityKeyIdentifier))
  writeSubjectKeyIdentifier(writer, input.subjectKeyIdentifier ?? key.keyIdentifier)
  writer.bytes(encodeExtension('keyUsage', true, encodeKeyUsage(['keyCertSign', 'cRLSign'])))
  writer.bytes(encodeExtension('basicConstraints', true, encodeSequence(...constraints)))
  writer.header(tags.sequence, 0)
  writer.header(0xa3, 0)
  writer.bytes(key.spki)
  if (Buffer.isBuffer(subject)) writer.bytes(subject)
  else writeSubject(writer, subject)
  writeValidity(writer, input.notBefore, input.notAfter)
  writer.bytes(input.issuer)
  writer.bytes(signature.identifier)
  writeSerial(writer, input.serial)
  writer.bytes(encodeDer(0xa0, encodeUnsigned(Buffer.from([2]))))
  writer.header(tags.sequence, 0)
  return writer.finish()
}

const readTbs = (tbs: DerReader, budget: WalkBudget): TbsFacts => {
  // Version 1 says none.
  const version = tbs.optional(0xa0, 'version')?.smallInteger('version')
  if (version !== 2) throw tbs.problem('the version is not 3')
  const serial = readSerial(tbs, 'serialNumber')
  if (serial.every((octet) => octet === 0)) throw tbs.problem('the serial is not positive')
  const signatureAlgorithm = readSignatureAlgorithm(tbs)
  const issuer = tbs.element(tags.sequence, 'issuer')
  const validity = tbs.read(tags.sequence, 'validity')
  const notBefore = readTime(validity, 'notBefore')
  const notAfter = readTime(validity, 'notAfter')
  validity.finish('validity')
  const name = tbs.window(tags.sequence, 'subject')
  const subjectDer = name.octets
  const subject = readSubject(name)
  const spki = tbs.element(tags.sequence, 'subjectPublicKeyInfo')
  const draft: Draft = { names: [], ca: false, crlUrls: [], ocspUrls: [], issuerUrls: [], extensions: [] }
  const extensions = tbs.optional(0xa3, 'extensions')
  tbs.finish('TBSCertificate')
  if (extensions !== undefined) {
    for (const { oid, name, critical, value } of readExtensions(extensions, budget)) {
      draft.extensions.push({ oid, critical })
      if (name !== undefined) readers[name]?.(draft, value)
    }
  }
  return { serial, issuer, subject, subjectDer, notBefore, notAfter, spki, signatureAlgorithm, ...draft }
}

type FromExtensions = Omit<
  TbsFacts,
  'serial' | 'issuer' | 'subject' | 'subjectDer' | 'notBefore' | 'notAfter' | 'spki' | 'signatureAlgorithm'
>
type Draft = { -readonly [Member in keyof FromExtensions]: FromExtensions[Member] } & {
  extensions: { oid: string; critical: boolean }[]
}

const readers: Partial<Record<ExtensionName, (draft: Draft, value: DerReader) => void>> = {
  subjectAltName: (draft, value) => {
    draft.names = readIssuedNames(value)
  },
  keyUsage: (draft, value) => {
    draft.keyUsage = readKeyUsage(value)
  },
  extendedKeyUsage: (draft, value) => {
    draft.extendedKeyUsage = readExtendedKeyUsage(value)
  },
  basicConstraints: (draft, value) => {
    const { ca, pathLength } = readBasicConstraints(value)
    draft.ca = ca
    if (pathLength !== undefined) draft.pathLength = pathLength
  },
  subjectKeyIdentifier: (draft, value) => {
    draft.keyIdentifier = value.read(tags.octetString, 'SubjectKeyIdentifier').octets
  },
  authorityKeyIdentifier: (draft, value) => {
    const identifier = value.read(tags.sequence, 'AuthorityKeyIdentifier')
    const keyIdentifier = identifier.optional(0x80, 'keyIdentifier')
    if (keyIdentifier !== undefined) draft.authorityKeyIdentifier = keyIdentifier.octets
    identifier.optional(0xa1, 'authorityCertIssuer')
    const serial = identifier.optional(0x82, 'authorityCertSerialNumber')
    if (serial !== undefined) draft.authoritySerial = padSerial(serial.octets)
  },
  nameConstraints: (draft, value) => {
    draft.nameConstraints = readNameConstraints(value)
  },
  crlDistributionPoints: (draft, value) => {
    draft.crlUrls = readDistributionPoints(value)
  },
  authorityInfoAccess: (draft, value) => {
    const list = value.read(tags.sequence, 'AuthorityInfoAccessSyntax')
    const found = new Map<string, string[]>()
    while (!list.done) {
      const description = list.read(tags.sequence, 'AccessDescription')
      const method = description.oid('accessMethod')
      const isUrl = description.tag === 0x86
      const location = description.readAny('accessLocation').octets.toString('latin1')
      if (isUrl) found.set(method, [...(found.get(method) ?? []), location])
    }
    draft.ocspUrls = found.get(ocspMethod) ?? []
    draft.issuerUrls = found.get(issuersMethod) ?? []
  },
}

/** Only full names with URLs: that is what Chancery writes and follows. */
const readDistributionPoints = (value: DerReader): string[] => {
  const points = value.read(tags.sequence, 'CRLDistributionPoints')
  const urls: string[] = []
  while (!points.done) {
    const names = points
      .read(tags.sequence, 'DistributionPoint')
      .optional(0xa0, 'distributionPoint')
      ?.optional(0xa0, 'fullName')
    while (names !== undefined && !names.done) {
      const isUrl = names.tag === 0x86
      const name = names.readAny('GeneralName').octets
      if (isUrl) urls.push(name.toString('latin1'))
    }
  }
  return urls
}

const asserted = Buffer.from([0x01, 0x01, 0xff])
const ocspMethod = oidKey('1.3.6.1.5.5.7.48.1')
const issuersMethod = oidKey('1.3.6.1.5.5.7.48.2')
