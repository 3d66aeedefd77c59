/**
 * The Online Certificate Status Protocol (RFC 6960), as a responder for many clients speaks it (RFC 5019): requests of
 * strangers, read in strict DER; responses written in pieces, so that whoever answers often keeps what does not change.
 * Nonces are as long as RFC 9654 2.1 lets them be. Signatures of requests are not judged: what is asked is public.
 */
import { hash } from 'node:crypto'

import type { ProblemCode } from '../errors.ts'
import { findSignatureAlgorithm, type SignatureAlgorithm } from './algorithms.ts'
import { type CrlReason, crlReasons } from './crl.ts'
import {
  DerReader,
  DerWriter,
  derProblem,
  encodeDer,
  encodeOid,
  encodeSequence,
  formatOid,
  newBudget,
  oidKey,
  tags,
  type WalkBudget,
  walk,
} from './der.ts'
import { readSerial } from './serial.ts'
import { writeSerial } from './tbs.ts'
import { encodeGeneralizedTime, readGeneralizedTime } from './time.ts'

/** What a certificate's issuer is hashed with. RFC 5019 knows SHA-1 only, and most clients send nothing else. */
export type CertIdHash = 'sha1' | 'sha256'

/** Which certificate is meant (RFC 6960 4.1.1). Buffers are windows of the input. */
export interface CertId {
  /** The whole element, for the response to repeat: clients compare it with theirs, some of them as octets. */
  readonly der: Buffer
  /** Undefined: another algorithm, so that nobody here can say which issuer is meant. */
  readonly hash: CertIdHash | undefined
  readonly nameHash: Buffer
  readonly keyHash: Buffer
  /** Unsigned and at least 16 octets, as in `TbsFacts`; may be zero, which no certificate of ours has. */
  readonly serial: Buffer
}

export interface OcspRequest {
  /** At least one. The same certificate may be asked for twice. */
  readonly requests: readonly { readonly certId: CertId }[]
  /** 1 to 128 octets. */
  readonly nonce?: Buffer
}

export type CertStatus =
  | { readonly kind: 'good' }
  /** No reason, or unspecified: nothing is said, as RFC 5280 5.3.1 asks. */
  | { readonly kind: 'revoked'; readonly at: Date; readonly reason?: CrlReason }
  | { readonly kind: 'unknown' }

export interface SingleResponse {
  /** CertID in DER, as the request has it. */
  readonly certId: Buffer
  readonly status: CertStatus
  readonly thisUpdate: Date
  /** Always there: RFC 5019 2.2.4 asks for it, and caches live by it. */
  readonly nextUpdate: Date
}

export interface ResponseDataInput {
  /** SHA-1 of the responder's key bits, whatever else hashes here (RFC 6960 4.2.1): `issuerHashes(…).sha1.keyHash`. */
  readonly responderKeyHash: Buffer
  readonly producedAt: Date
  /** What `encodeSingleResponse` gave. */
  readonly responses: readonly Buffer[]
  readonly nonce?: Buffer
}

export interface BasicResponse {
  /** ResponseData in DER: what is signed. */
  readonly tbs: Buffer
  readonly responderKeyHash: Buffer
  readonly producedAt: Date
  readonly responses: readonly (Omit<SingleResponse, 'certId'> & { readonly certId: CertId })[]
  readonly nonce?: Buffer
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Buffer
  /** In DER, not judged. */
  readonly certificates: readonly Buffer[]
}

export type OcspResponse =
  | { readonly status: 'successful'; readonly basic: BasicResponse }
  | { readonly status: OcspError }

/** An issuer as a CertID names it. */
export interface IssuerHash {
  readonly nameHash: Buffer
  readonly keyHash: Buffer
}

/**
 * Reads an OCSPRequest (RFC 6960 4.1.1). Throws `code` with the offset, and nothing else; a responder answers with
 * malformedRequest. Linear in the input, which the caller bounds; the usual request takes 2 µs.
 *
 * Strict where no client is known to differ: a version is refused, since v1 is the default and DER leaves it out, and
 * so is a nonce without its OCTET STRING, as RFC 2560 could be read and RFC 9654 forbids; an answer that lacks the
 * nonce, or wraps it, would not satisfy who sent that. Lenient where clients do differ: a CertID's hash has NULL for
 * parameters or none; requestorName and optionalSignature are well-formed, and passed over.
 */
export const parseOcspRequest = (
  der: Buffer,
  code: ProblemCode = 'request.malformed',
  maxCertIds = 16,
): OcspRequest => {
  const outer = new DerReader(der, code)
  const budget = newBudget()
  walk(outer, budget)
  const request = outer.read(tags.sequence, 'OCSPRequest')
  const tbs = request.read(tags.sequence, 'TBSRequest')
  passSignature(request)
  if (tbs.tag === 0xa0) throw tbs.problem('the version is not v1, or is v1 and said')
  passRequestorName(tbs)
  const requests = readRequestList(tbs.read(tags.sequence, 'requestList'), maxCertIds)
  const extensions = tbs.optional(0xa2, 'requestExtensions')
  tbs.finish('TBSRequest')
  const nonce = extensions && readNonce(extensions, budget)
  return { requests, ...(nonce !== undefined && { nonce }) }
}

/** SingleResponse (RFC 6960 4.2.1); times are cut to seconds. About a microsecond. */
export const encodeSingleResponse = (single: SingleResponse): Buffer => {
  const { certId, thisUpdate, nextUpdate } = single
  if (!(nextUpdate.getTime() > thisUpdate.getTime())) throw new RangeError('nextUpdate does not lie after thisUpdate')
  const writer = new DerWriter(certId.length + 80)
  writer.bytes(encodeGeneralizedTime(nextUpdate))
  writer.header(0xa0, 0)
  writer.bytes(encodeGeneralizedTime(thisUpdate))
  writeStatus(writer, single.status)
  writer.bytes(certId)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** ResponseData (RFC 6960 4.2.1): version 1, the responder named by its key. It is what gets signed. */
export const encodeResponseData = (input: ResponseDataInput): Buffer => {
  const { responderKeyHash, responses, nonce } = input
  if (responderKeyHash.length !== hashes.sha1.octets) throw new RangeError('the hash of a responder is SHA-1')
  if (responses.length === 0) throw new RangeError('a response answers something')
  const writer = new DerWriter(256 + responses.reduce((sum, response) => sum + response.length, 0))
  if (nonce !== undefined) writeNonce(writer, nonce)
  const mark = writer.size
  for (let i = responses.length - 1; i >= 0; i--) writer.bytes(responses[i] as Buffer)
  writer.header(tags.sequence, mark)
  writer.bytes(encodeGeneralizedTime(input.producedAt))
  const responder = writer.size
  writer.bytes(responderKeyHash)
  writer.header(tags.octetString, responder)
  writer.header(0xa2, responder)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** BasicOCSPResponse (RFC 6960 4.2.1). Of certificates, a delegated responder's own is enough; none leaves them out. */
export const encodeBasicResponse = (
  tbs: Buffer,
  signatureAlgorithm: SignatureAlgorithm,
  signature: Buffer,
  certificates: readonly Buffer[],
): Buffer => {
  const length = certificates.reduce((sum, certificate) => sum + certificate.length, tbs.length + signature.length)
  const writer = new DerWriter(length + signatureAlgorithm.identifier.length + 32)
  if (certificates.length > 0) {
    for (let i = certificates.length - 1; i >= 0; i--) writer.bytes(certificates[i] as Buffer)
    writer.header(tags.sequence, 0)
    writer.header(0xa0, 0)
  }
  const mark = writer.size
  writer.bytes(signature)
  writer.octet(0)
  writer.header(tags.bitString, mark)
  writer.bytes(signatureAlgorithm.identifier)
  writer.bytes(tbs)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** OCSPResponse (RFC 6960 4.2.1) with the status successful, around a BasicOCSPResponse. */
export const encodeOcspResponse = (basic: Buffer): Buffer => {
  const writer = new DerWriter(basic.length + 48)
  writer.bytes(basic)
  writer.header(tags.octetString, 0)
  writer.bytes(oids.basic)
  writer.header(tags.sequence, 0)
  writer.header(0xa0, 0)
  writer.bytes(successful)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

const enumerated = 0x0a
const encodeError = (status: number): Buffer => encodeSequence(encodeDer(enumerated, Buffer.from([status])))

/** Whole responses without a status of any certificate (RFC 6960 4.2.1). They are not signed; 4 is not used. */
export const ocspErrors = {
  malformedRequest: encodeError(1),
  internalError: encodeError(2),
  tryLater: encodeError(3),
  sigRequired: encodeError(5),
  /** Also: not one of ours, or nothing known of it (RFC 5019 2.2.3). */
  unauthorized: encodeError(6),
} as const satisfies Readonly<Record<string, Buffer>>

export type OcspError = keyof typeof ocspErrors

/** CertID from the issuer's Name DER and the octets of its key's BIT STRING. Parameters are NULL, as in OpenSSL. */
export const encodeCertId = (
  algorithm: CertIdHash,
  issuerName: Buffer,
  issuerKeyBits: Buffer,
  serial: Buffer,
): Buffer => {
  const writer = new DerWriter(128)
  writeSerial(writer, serial)
  for (const octets of [issuerKeyBits, issuerName]) {
    const mark = writer.size
    writer.bytes(hash(algorithm, octets, 'buffer'))
    writer.header(tags.octetString, mark)
  }
  writer.bytes(hashes[algorithm].identifier)
  writer.header(tags.sequence, 0)
  return writer.finish()
}

/** What the CertIDs of one issuer's certificates have in common, for a responder to compare with. Once per issuer. */
export const issuerHashes = (nameDer: Buffer, keyBits: Buffer): Readonly<Record<CertIdHash, IssuerHash>> => ({
  sha1: { nameHash: hash('sha1', nameDer, 'buffer'), keyHash: hash('sha1', keyBits, 'buffer') },
  sha256: { nameHash: hash('sha256', nameDer, 'buffer'), keyHash: hash('sha256', keyBits, 'buffer') },
})

/** Reads a response in the form in which it is written here. Throws `code` with the offset. */
export const parseOcspResponse = (der: Buffer, code: ProblemCode = 'policy.lint'): OcspResponse => {
  const error = errorNames.find((name) => ocspErrors[name].equals(der))
  if (error !== undefined) return { status: error }
  const outer = new DerReader(der, code)
  const budget = newBudget()
  walk(outer, budget)
  const response = outer.read(tags.sequence, 'OCSPResponse')
  if (!response.element(0x0a, 'responseStatus').equals(successful))
    throw response.problem('the status is neither successful nor that of an error')
  const explicit = response.read(0xa0, 'responseBytes')
  response.finish('OCSPResponse')
  const bytes = onlyOne(explicit, tags.sequence, 'ResponseBytes')
  if (bytes.oid('responseType') !== basicKey) throw bytes.problem('the response is not basic')
  const basic = bytes.read(tags.octetString, 'response')
  bytes.finish('ResponseBytes')
  walk(basic, budget)
  return { status: 'successful', basic: readBasic(basic.read(tags.sequence, 'BasicOCSPResponse'), budget) }
}

// Writing -----------------------------------------------------------------------------------------------------------

const writeStatus = (writer: DerWriter, status: CertStatus): void => {
  if (status.kind !== 'revoked') return writer.bytes(plainStatuses[status.kind])
  const mark = writer.size
  const said = status.reason === undefined ? undefined : reasons.get(status.reason)
  if (said !== undefined) writer.bytes(said)
  writer.bytes(encodeGeneralizedTime(status.at))
  writer.header(0xa1, mark)
}

/** responseExtensions with nothing but the nonce. */
const writeNonce = (writer: DerWriter, nonce: Buffer): void => {
  if (nonce.length < 1 || nonce.length > maxNonce) throw new RangeError(`a nonce has 1 to ${maxNonce} octets`)
  const mark = writer.size
  writer.bytes(nonce)
  writer.header(tags.octetString, mark)
  writer.header(tags.octetString, mark)
  writer.bytes(oids.nonce)
  writer.header(tags.sequence, mark)
  writer.header(tags.sequence, mark)
  writer.header(0xa1, mark)
}

// Reading -----------------------------------------------------------------------------------------------------------

const readRequestList = (list: DerReader, maxCertIds: number): OcspRequest['requests'] => {
  if (list.done) throw list.problem('requestList is empty')
  const requests: { certId: CertId }[] = []
  while (!list.done) {
    if (requests.length >= maxCertIds) throw list.problem(`there are more than ${maxCertIds} requests`)
    const request = list.read(tags.sequence, 'Request')
    const certId = readCertId(request.window(tags.sequence, 'reqCert'))
    const extensions = request.optional(0xa0, 'singleRequestExtensions')
    request.finish('Request')
    if (extensions !== undefined) readExtensions(extensions, none)
    requests.push({ certId })
  }
  return requests
}

const readCertId = (window: DerReader): CertId => {
  const der = window.octets
  const id = window.read(tags.sequence, 'CertID')
  const algorithm = readHash(id.read(tags.sequence, 'hashAlgorithm'))
  const nameHash = readDigest(id, algorithm, 'issuerNameHash')
  const keyHash = readDigest(id, algorithm, 'issuerKeyHash')
  const serial = readSerial(id, 'serialNumber')
  id.finish('CertID')
  return { der, hash: algorithm, nameHash, keyHash, serial }
}

/** Parameters are NULL or absent (RFC 5754 2); those of an algorithm that is unknown here are its own affair. */
const readHash = (identifier: DerReader): CertIdHash | undefined => {
  const algorithm = hashesByOid.get(identifier.oid('algorithm'))
  if (algorithm === undefined) {
    if (!identifier.done) identifier.readAny('parameters')
  } else identifier.optional(tags.null, 'parameters')
  identifier.finish('hashAlgorithm')
  return algorithm
}

const readDigest = (id: DerReader, algorithm: CertIdHash | undefined, what: string): Buffer => {
  const { octets } = id.read(tags.octetString, what)
  if (algorithm !== undefined && octets.length !== hashes[algorithm].octets)
    throw id.problem(`${what} is not as long as its algorithm makes it`)
  return octets
}

/**
 * CertificateSerialNumber is any INTEGER, but RFC 5280 4.1.2.2 bounds what a CA may put there, and the buffer has no
 * room for a sign. Zero is let through: probes ask for it, and old roots have it; it is answered like every serial that
 * was never issued.
 */
const passRequestorName = (tbs: DerReader): void => {
  const explicit = tbs.optional(0xa1, 'requestorName')
  if (explicit === undefined) return
  if ((explicit.tag & 0xc0) !== 0x80) throw explicit.problem('requestorName is not a GeneralName')
  onlyOne(explicit, explicit.tag, 'requestorName')
}

const passSignature = (request: DerReader): void => {
  const explicit = request.optional(0xa0, 'optionalSignature')
  request.finish('OCSPRequest')
  if (explicit === undefined) return
  const signature = onlyOne(explicit, tags.sequence, 'Signature')
  signature.read(tags.sequence, 'signatureAlgorithm').oid('algorithm')
  signature.read(tags.bitString, 'signature')
  readCertificates(signature)
  signature.finish('Signature')
}

const readBasic = (response: DerReader, budget: WalkBudget): BasicResponse => {
  const window = response.window(tags.sequence, 'tbsResponseData')
  const tbs = window.octets
  const { at } = response
  const signatureAlgorithm = findSignatureAlgorithm(response.element(tags.sequence, 'signatureAlgorithm'))
  if (signatureAlgorithm === undefined) throw derProblem(response.code, 'the signature algorithm is unknown', at)
  const signature = response.bits('signature').octets
  const certificates = readCertificates(response)
  response.finish('BasicOCSPResponse')
  const data = readResponseData(window.read(tags.sequence, 'ResponseData'), budget)
  return { tbs, ...data, signatureAlgorithm, signature, certificates }
}

const readResponseData = (
  data: DerReader,
  budget: WalkBudget,
): Pick<BasicResponse, 'responderKeyHash' | 'producedAt' | 'responses' | 'nonce'> => {
  const responderKeyHash = onlyOne(data.read(0xa2, 'byKey'), tags.octetString, 'KeyHash').octets
  if (responderKeyHash.length !== hashes.sha1.octets) throw data.problem('KeyHash is not SHA-1')
  const producedAt = readGeneralizedTime(data, 'producedAt')
  const list = data.read(tags.sequence, 'responses')
  if (list.done) throw list.problem('responses is empty')
  const responses: BasicResponse['responses'][number][] = []
  while (!list.done) responses.push(readSingle(list.read(tags.sequence, 'SingleResponse')))
  const extensions = data.optional(0xa1, 'responseExtensions')
  data.finish('ResponseData')
  const nonce = extensions && readNonce(extensions, budget)
  return { responderKeyHash, producedAt, responses, ...(nonce !== undefined && { nonce }) }
}

const readSingle = (single: DerReader): BasicResponse['responses'][number] => {
  const certId = readCertId(single.window(tags.sequence, 'certID'))
  const status = readStatus(single)
  const thisUpdate = readGeneralizedTime(single, 'thisUpdate')
  const explicit = single.read(0xa0, 'nextUpdate')
  const nextUpdate = readGeneralizedTime(explicit, 'nextUpdate')
  explicit.finish('nextUpdate')
  single.finish('SingleResponse')
  return { certId, status, thisUpdate, nextUpdate }
}

const readStatus = (single: DerReader): CertStatus => {
  const revoked = single.optional(0xa1, 'revoked')
  if (revoked !== undefined) return readRevoked(revoked)
  const { at, tag } = single
  const { length } = single.readAny('certStatus')
  const kind = tag === 0x80 ? 'good' : tag === 0x82 ? 'unknown' : undefined
  if (kind === undefined || length !== 0) throw derProblem(single.code, 'the status is unknown', at)
  return { kind }
}

const readRevoked = (revoked: DerReader): CertStatus => {
  const at = readGeneralizedTime(revoked, 'revocationTime')
  if (revoked.done) return { kind: 'revoked', at }
  const reason = reasonsByDer.get(revoked.element(0xa0, 'revocationReason').toString('latin1'))
  revoked.finish('RevokedInfo')
  if (reason === undefined) throw revoked.problem('the reason is unknown')
  return { kind: 'revoked', at, reason }
}

const readCertificates = (from: DerReader): Buffer[] => {
  const explicit = from.optional(0xa0, 'certs')
  const certificates: Buffer[] = []
  if (explicit === undefined) return certificates
  const list = onlyOne(explicit, tags.sequence, 'certs')
  while (!list.done) certificates.push(list.element(tags.sequence, 'Certificate'))
  return certificates
}

/** The nonce among these extensions: an OCTET STRING inside of the one that every extension has (RFC 9654 2.1). */
const readNonce = (explicit: DerReader, budget: WalkBudget): Buffer | undefined => {
  const value = readExtensions(explicit, nonceOnly).get(nonceKey)
  if (value === undefined) return undefined
  walk(value, budget)
  const { octets, length } = value.read(tags.octetString, 'Nonce')
  if (length < 1 || length > maxNonce) throw value.problem(`a nonce has 1 to ${maxNonce} octets`)
  return octets
}

/** The values of those that are known. Of others nothing is looked into, unless they are critical: then nothing holds. */
const readExtensions = (explicit: DerReader, known: ReadonlySet<string>): ReadonlyMap<string, DerReader> => {
  const list = onlyOne(explicit, tags.sequence, 'Extensions')
  if (list.done) throw list.problem('Extensions is empty')
  const seen = new Map<string, DerReader>()
  while (!list.done) {
    const { at } = list
    const extension = list.read(tags.sequence, 'Extension')
    const key = extension.oid('extnID')
    const critical = extension.defaultFalse('critical')
    const value = extension.read(tags.octetString, 'extnValue')
    extension.finish('Extension')
    if (seen.has(key)) throw derProblem(list.code, `extension ${formatOid(key)} occurs twice`, at)
    if (critical && !known.has(key))
      throw derProblem(list.code, `extension ${formatOid(key)} is critical and unknown`, at)
    seen.set(key, value)
  }
  return seen
}

/** What an EXPLICIT tag holds: one element and nothing after it. */
const onlyOne = (explicit: DerReader, tag: number, what: string): DerReader => {
  const inner = explicit.read(tag, what)
  explicit.finish(`what holds ${what}`)
  return inner
}

const maxNonce = 128
const dotted = {
  basic: '1.3.6.1.5.5.7.48.1.1',
  nonce: '1.3.6.1.5.5.7.48.1.2',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
} as const
const oids = { basic: encodeOid(dotted.basic), nonce: encodeOid(dotted.nonce) } as const
const basicKey = oidKey(dotted.basic)
const nonceKey = oidKey(dotted.nonce)
const nonceOnly: ReadonlySet<string> = new Set([nonceKey])
const none: ReadonlySet<string> = new Set()
const hashes = {
  sha1: { octets: 20, identifier: encodeSequence(encodeOid(dotted.sha1), encodeDer(tags.null)) },
  sha256: { octets: 32, identifier: encodeSequence(encodeOid(dotted.sha256), encodeDer(tags.null)) },
} as const satisfies Readonly<Record<CertIdHash, object>>
const hashesByOid = new Map<string, CertIdHash>([
  [oidKey(dotted.sha1), 'sha1'],
  [oidKey(dotted.sha256), 'sha256'],
])
const successful = encodeDer(enumerated, Buffer.from([0]))
const errorNames = Object.keys(ocspErrors) as OcspError[]
const plainStatuses = { good: encodeDer(0x80), unknown: encodeDer(0x82) } as const
/** revocationReason [0] EXPLICIT CRLReason, whole; unspecified is never said. */
const reasons: ReadonlyMap<CrlReason, Buffer> = new Map(
  Object.entries(crlReasons)
    .filter(([, code]) => code !== crlReasons.unspecified)
    .map(([reason, code]) => [reason as CrlReason, encodeDer(0xa0, encodeDer(enumerated, Buffer.from([code])))]),
)
const reasonsByDer: ReadonlyMap<string, CrlReason> = new Map(
  [...reasons].map(([reason, der]) => [der.toString('latin1'), reason]),
)
