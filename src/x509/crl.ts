/**
 * Certificate revocation lists, version 2 (RFC 5280 5): written in time linear in their entries, and read as strictly as
 * everything else. Entries are encoded apart from the list, so that whoever has many does it in pieces, keeps what was
 * encoded, or does both.
 */
import type { ProblemCode } from '../errors.ts'
import { readOuterAlgorithm, readSignatureAlgorithm, type SignatureAlgorithm } from './algorithms.ts'
import {
  DerReader,
  DerWriter,
  encodeDer,
  encodeOid,
  encodeSequence,
  encodeUnsigned,
  oidKey,
  tags,
  walk,
} from './der.ts'
import { extensionOids, readKnownExtensions } from './extensions.ts'
import { readSerial } from './serial.ts'
import { encodeAuthorityKeyIdentifier, encodeCertificate, writeSerial } from './tbs.ts'
import { encodeGeneralizedTime, encodeTime, readGeneralizedTime, readTime } from './time.ts'

/** CRLReason (RFC 5280 5.3.1). */
export const crlReasons = {
  unspecified: 0,
  keyCompromise: 1,
  cACompromise: 2,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  certificateHold: 6,
  removeFromCRL: 8,
  privilegeWithdrawn: 9,
  aACompromise: 10,
} as const satisfies Readonly<Record<string, number>>

export type CrlReason = keyof typeof crlReasons

export interface RevokedCertificate {
  /** Unsigned; from a reader at least 16 octets, as in `TbsFacts`. */
  readonly serial: Buffer
  readonly revokedAt: Date
  /** Left out, or unspecified: nothing is said, as RFC 5280 5.3.1 asks. */
  readonly reason?: CrlReason
  /** Since when the key is known or thought to have been compromised (RFC 5280 5.3.2). */
  readonly invalidSince?: Date
}

/** Which part of the issuer's certificates the list covers (RFC 5280 5.2.5). */
export interface IssuingDistributionPoint {
  readonly url?: string
  readonly only?: 'user' | 'ca'
}

export interface CrlInput {
  /** Name DER of who signs, as its certificate has it. */
  readonly issuer: Buffer
  readonly signature: SignatureAlgorithm
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  /** What `encodeRevoked` gave, in any number of pieces. */
  readonly revoked: readonly Buffer[]
  readonly authorityKeyIdentifier: Buffer
  /** Grows with every list of its issuer and scope; at most 20 octets (RFC 5280 5.2.3). */
  readonly number: bigint
  /** Left out: the list covers all that the issuer has issued. */
  readonly distributionPoint?: IssuingDistributionPoint
}

export interface Crl {
  readonly tbs: Buffer
  /** Name DER. */
  readonly issuer: Buffer
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly revoked: readonly RevokedCertificate[]
  readonly authorityKeyIdentifier: Buffer
  readonly number: bigint
  readonly distributionPoint?: IssuingDistributionPoint
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Buffer
}

/** The entries of revokedCertificates, without a header around them. About a microsecond each. */
export const encodeRevoked = (revoked: readonly RevokedCertificate[]): Buffer => {
  const writer = new DerWriter(64 * revoked.length + 64)
  for (let i = revoked.length - 1; i >= 0; i--) writeEntry(writer, revoked[i] as RevokedCertificate)
  return writer.finish()
}

/** The TBSCertList (RFC 5280 5.1.2): version 2, authority key identifier and number always there. */
export const encodeCrlTbs = (input: CrlInput): Buffer => {
  const { number, revoked, distributionPoint } = input
  if (!(input.nextUpdate.getTime() > input.thisUpdate.getTime()))
    throw new RangeError('nextUpdate does not lie after thisUpdate')
  const writer = new DerWriter(512 + revoked.reduce((sum, piece) => sum + piece.length, 0))
  if (distributionPoint !== undefined)
    writer.bytes(encodeCrlExtension(oids.issuingDistributionPoint, encodeDistributionPoint(distributionPoint), true))
  writer.bytes(encodeCrlExtension(oids.crlNumber, encodeNumber(number)))
  writer.bytes(encodeAuthorityKeyIdentifier(input.authorityKeyIdentifier))
  writer.header(tags.sequence, 0)
  writer.header(0xa0, 0)
  const mark = writer.size
  for (let i = revoked.length - 1; i >= 0; i--) writer.bytes(revoked[i] as Buffer)
  // RFC 5280 5.1.2.6: where nothing is revoked, the list is absent, not empty.
  if (writer.size > mark) writer.header(tags.sequence, mark)
  writer.bytes(encodeTime(input.nextUpdate))
  writer.bytes(encodeTime(input.thisUpdate))
  writer.bytes(input.issuer)
  writer.bytes(input.signature.identifier)
  writer.bytes(versionTwo)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** CertificateList: signed in the form in which certificates are. */
export const encodeCrl: (tbs: Buffer, signatureAlgorithm: SignatureAlgorithm, signature: Buffer) => Buffer =
  encodeCertificate

/** Reads a list in the form in which `encodeCrlTbs` writes it. Throws `code` with the offset. */
export const parseCrl = (der: Buffer, code: ProblemCode = 'policy.lint'): Crl => read(der, code, wholeForm)

/** One on record, which may have been taken before what others read otherwise was refused: nobody starts without what it revokes. */
export const parseRecordedCrl = (der: Buffer): Crl => read(der, 'policy.lint', recordedForm)

const read = (der: Buffer, code: ProblemCode, form: Form): Crl => {
  const outer = new DerReader(der, code)
  // A list may be long; no element is shorter than two octets, and of what is empty the first is looked for.
  walk(outer, { nodes: der.length + 1 })
  const list = outer.read(tags.sequence, 'CertificateList')
  const window = list.window(tags.sequence, 'TBSCertList')
  const tbs = window.octets
  const signed = window.read(tags.sequence, 'TBSCertList')
  const facts = readTbs(signed, form)
  // Before it stands the version.
  const signatureAlgorithm = form.outer(list, signed, 1)
  const signature = list.bits('signatureValue').octets
  list.finish('CertificateList')
  return { ...facts, tbs, signatureAlgorithm, signature }
}

/** Only the dates of a list of ours, however long it is. Throws `policy.lint`. */
export const readCrlDates = (der: Buffer): Pick<Crl, 'thisUpdate' | 'nextUpdate'> => {
  const tbs = new DerReader(der, 'policy.lint')
    .read(tags.sequence, 'CertificateList')
    .read(tags.sequence, 'TBSCertList')
  tbs.read(tags.integer, 'version')
  tbs.element(tags.sequence, 'signature')
  tbs.element(tags.sequence, 'issuer')
  return { thisUpdate: readTime(tbs, 'thisUpdate'), nextUpdate: readTime(tbs, 'nextUpdate') }
}

// Writing -----------------------------------------------------------------------------------------------------------

const writeEntry = (writer: DerWriter, { serial, revokedAt, reason, invalidSince }: RevokedCertificate): void => {
  const mark = writer.size
  if (invalidSince !== undefined)
    writer.bytes(encodeCrlExtension(oids.invalidityDate, encodeGeneralizedTime(invalidSince)))
  const said = reason === undefined ? undefined : reasonExtensions.get(reason)
  if (said !== undefined) writer.bytes(said)
  if (writer.size > mark) writer.header(tags.sequence, mark)
  writer.bytes(encodeTime(revokedAt))
  writeSerial(writer, serial)
  writer.header(tags.sequence, mark)
}

const encodeNumber = (number: bigint): Buffer => {
  // 20 octets, the first of them below 80: the number is not negative.
  if (number < 0n || number >= 1n << 159n) throw new RangeError('a CRL number has at most 20 octets')
  const digits = number.toString(16)
  return encodeUnsigned(Buffer.from(digits.padStart(digits.length + (digits.length % 2), '0'), 'hex'))
}

const encodeDistributionPoint = ({ url, only }: IssuingDistributionPoint): Buffer => {
  if (url === undefined && only === undefined) throw new RangeError('a distribution point that says nothing')
  const name = url === undefined ? [] : [encodeDer(0xa0, encodeDer(0xa0, encodeDer(0x86, Buffer.from(url, 'latin1'))))]
  return encodeSequence(...name, ...(only === undefined ? [] : [encodeDer(scopes[only], asserted)]))
}

const encodeCrlExtension = (oid: Buffer, value: Buffer, critical = false): Buffer =>
  encodeSequence(oid, ...(critical ? [encodeDer(tags.boolean, asserted)] : []), encodeDer(tags.octetString, value))

// Reading -----------------------------------------------------------------------------------------------------------

const readTbs = (tbs: DerReader, form: Form): Omit<Crl, 'tbs' | 'signature'> => {
  if (tbs.read(tags.integer, 'version').octets.toString('hex') !== '01') throw tbs.problem('the version is not 2')
  const signatureAlgorithm = readSignatureAlgorithm(tbs)
  const issuer = tbs.element(tags.sequence, 'issuer')
  const thisUpdate = readTime(tbs, 'thisUpdate')
  const nextUpdate = readTime(tbs, 'nextUpdate')
  const entries = tbs.optional(tags.sequence, 'revokedCertificates')
  const revoked: RevokedCertificate[] = []
  if (entries?.done) throw entries.problem('revokedCertificates is empty')
  while (entries !== undefined && !entries.done)
    revoked.push(readEntry(entries.read(tags.sequence, 'revokedCertificate'), form.entry))
  const extensions = tbs.read(0xa0, 'crlExtensions')
  tbs.finish('TBSCertList')
  const draft: Draft = {}
  readExtensions(extensions, form.list, draft)
  const { authorityKeyIdentifier, number, distributionPoint } = draft
  if (authorityKeyIdentifier === undefined) throw extensions.problem('the authority key identifier is missing')
  if (number === undefined) throw extensions.problem('the CRL number is missing')
  return {
    issuer,
    thisUpdate,
    nextUpdate,
    revoked,
    authorityKeyIdentifier,
    number,
    signatureAlgorithm,
    ...(distributionPoint !== undefined && { distributionPoint }),
  }
}

interface Draft {
  reason?: CrlReason
  invalidSince?: Date
  authorityKeyIdentifier?: Buffer
  number?: bigint
  distributionPoint?: IssuingDistributionPoint
}

const readEntry = (entry: DerReader, readers: ExtensionReaders): RevokedCertificate => {
  const serial = readSerial(entry, 'userCertificate')
  const revokedAt = readTime(entry, 'revocationDate')
  const draft: Draft = {}
  if (!entry.done) readExtensions(entry, readers, draft)
  const { reason, invalidSince } = draft
  return {
    serial,
    revokedAt,
    ...(reason !== undefined && { reason }),
    ...(invalidSince !== undefined && { invalidSince }),
  }
}

type ExtensionReaders = ReadonlyMap<string, (draft: Draft, value: DerReader) => void>

const readExtensions = (from: DerReader, readers: ExtensionReaders, draft: Draft): void => {
  for (const [key, value] of readKnownExtensions(from, readers)) {
    walk(value)
    readers.get(key)?.(draft, value)
  }
}

/** Critical or not, as OpenSSL reads it. */
const refusing =
  (reason: string) =>
  (_draft: Draft, value: DerReader): never => {
    throw value.problem(reason)
  }

const readDistributionPoint = (value: DerReader): IssuingDistributionPoint => {
  const point = value.read(tags.sequence, 'IssuingDistributionPoint')
  const name = point.optional(0xa0, 'distributionPoint')?.read(0xa0, 'fullName').read(0x86, 'the URL')
  const scope = Object.entries(scopes).find(([, tag]) => tag === point.tag)?.[0] as IssuingDistributionPoint['only']
  if (scope !== undefined && !point.readAny('scope').octets.equals(asserted)) throw point.problem('scope is not TRUE')
  // Indirect lists and lists of some reasons only are nothing that Chancery makes.
  point.finish('IssuingDistributionPoint')
  return {
    ...(name !== undefined && { url: name.octets.toString('latin1') }),
    ...(scope !== undefined && { only: scope }),
  }
}

const asserted = Buffer.from([0xff])
const versionTwo = encodeUnsigned(Buffer.from([1]))
const scopes = { user: 0x81, ca: 0x82 } as const
const enumerated = 0x0a
const dotted = {
  crlNumber: '2.5.29.20',
  reasonCode: '2.5.29.21',
  invalidityDate: '2.5.29.24',
  deltaCRLIndicator: '2.5.29.27',
  issuingDistributionPoint: '2.5.29.28',
  certificateIssuer: '2.5.29.29',
} as const
const oids = {
  crlNumber: encodeOid(dotted.crlNumber),
  reasonCode: encodeOid(dotted.reasonCode),
  invalidityDate: encodeOid(dotted.invalidityDate),
  issuingDistributionPoint: encodeOid(dotted.issuingDistributionPoint),
} as const
const reasonExtensions = new Map(
  Object.entries(crlReasons)
    .filter(([, code]) => code !== crlReasons.unspecified)
    .map(([reason, code]) => [reason, encodeCrlExtension(oids.reasonCode, encodeDer(enumerated, Buffer.from([code])))]),
)
const reasonsByCode = new Map<number, CrlReason>(
  Object.entries(crlReasons).map(([reason, code]) => [code, reason as CrlReason]),
)
const entryReaders: ExtensionReaders = new Map([
  [
    oidKey(dotted.reasonCode),
    (draft, value) => {
      const { octets } = value.read(enumerated, 'CRLReason')
      const reason = octets.length === 1 ? reasonsByCode.get(octets[0] as number) : undefined
      if (reason === undefined) throw value.problem('the reason is unknown')
      draft.reason = reason
    },
  ],
  [
    oidKey(dotted.invalidityDate),
    (draft, value) => {
      draft.invalidSince = readGeneralizedTime(value, 'invalidityDate')
    },
  ],
])
const listReaders: ExtensionReaders = new Map([
  [
    oidKey(extensionOids.authorityKeyIdentifier),
    (draft, value) => {
      draft.authorityKeyIdentifier = value
        .read(tags.sequence, 'AuthorityKeyIdentifier')
        .read(0x80, 'keyIdentifier').octets
    },
  ],
  [
    oidKey(dotted.crlNumber),
    (draft, value) => {
      const { octets } = value.read(tags.integer, 'CRLNumber')
      if ((octets[0] as number) >= 0x80 || octets.length > 20) throw value.problem('the CRL number is out of range')
      draft.number = BigInt(`0x${octets.toString('hex')}`)
    },
  ],
  [
    oidKey(dotted.issuingDistributionPoint),
    (draft, value) => {
      draft.distributionPoint = readDistributionPoint(value)
    },
  ],
])

/** By which readers. */
interface Form {
  /** The signature algorithm beside what was signed. */
  readonly outer: typeof readOuterAlgorithm
  readonly list: ExtensionReaders
  readonly entry: ExtensionReaders
}
const recordedForm: Form = { outer: readSignatureAlgorithm, list: listReaders, entry: entryReaders }
const wholeForm: Form = {
  outer: readOuterAlgorithm,
  list: new Map([
    ...listReaders,
    [oidKey(dotted.deltaCRLIndicator), refusing('it is a delta list, which has only what has changed')],
  ]),
  entry: new Map([
    ...entryReaders,
    [oidKey(dotted.certificateIssuer), refusing('an entry is about a certificate of another issuer')],
  ]),
}
