/**
 * OCSP requests of strangers, read in strict DER. Nonces are as long as RFC 9654 2.1 lets them be.
 * Signatures of requests are not judged: what is asked is public.
 */
import type { ProblemCode } from '../errors.ts'
import { DerReader, newBudget, oidKey, tags, type WalkBudget, walk } from './der.ts'
import { readKnownExtensions } from './extensions.ts'
import { type CertId, type CertIdHash, hashes, maxNonce, type OcspRequest, ocspOids } from './ocsp.ts'
import { readSerial } from './serial.ts'

/**
 * Reads an OCSPRequest (RFC 6960 4.1.1). Throws `code` with the offset, and nothing else; a responder answers with
 * malformedRequest. Linear in the input, which the caller bounds; the usual request takes 2 µs.
 *
 * Strict where no client is known to differ: a nonce without its OCTET STRING is refused, as RFC 2560 could be read and
 * RFC 9654 forbids; an answer that lacks the nonce, or wraps it, would not satisfy who sent that. Lenient where clients do
 * differ: v1 is said, though DER leaves a default out (Botan 3), or is not; a CertID's hash has NULL for parameters or
 * none; requestorName and optionalSignature are well-formed, and passed over.
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
  passVersion(tbs)
  passRequestorName(tbs)
  const requests = readRequestList(tbs.read(tags.sequence, 'requestList'), maxCertIds)
  const extensions = tbs.optional(0xa2, 'requestExtensions')
  tbs.finish('TBSRequest')
  const nonce = extensions && readNonce(extensions, budget)
  return { requests, ...(nonce !== undefined && { nonce }) }
}

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

export const readCertId = (window: DerReader): CertId => {
  const der = window.octets
  const id = window.read(tags.sequence, 'CertID')
  const algorithm = readHash(id.read(tags.sequence, 'hashAlgorithm'))
  const nameHash = readDigest(id, algorithm, 'issuerNameHash')
  const keyHash = readDigest(id, algorithm, 'issuerKeyHash')
  // CertificateSerialNumber is any INTEGER, but RFC 5280 4.1.2.2 bounds what a CA may put there, and the buffer has no room
  // for a sign. Zero is let through: probes ask for it, and old roots have it; it is answered like every serial that was
  // never issued.
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

const passVersion = (tbs: DerReader): void => {
  const version = tbs.optional(0xa0, 'version')
  if (version === undefined) return
  if (version.smallInteger('version') !== 0) throw version.problem('the version is not v1')
  version.finish('version')
}

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

export const readCertificates = (from: DerReader): Buffer[] => {
  const explicit = from.optional(0xa0, 'certs')
  const certificates: Buffer[] = []
  if (explicit === undefined) return certificates
  const list = onlyOne(explicit, tags.sequence, 'certs')
  while (!list.done) certificates.push(list.element(tags.sequence, 'Certificate'))
  return certificates
}

/** The nonce among these extensions: an OCTET STRING inside of the one that every extension has (RFC 9654 2.1). */
export const readNonce = (explicit: DerReader, budget: WalkBudget): Buffer | undefined => {
  const value = readExtensions(explicit, nonceOnly).get(nonceKey)
  if (value === undefined) return undefined
  walk(value, budget)
  const { octets, length } = value.read(tags.octetString, 'Nonce')
  if (length < 1 || length > maxNonce) throw value.problem(`a nonce has 1 to ${maxNonce} octets`)
  return octets
}

const readExtensions = (explicit: DerReader, known: ReadonlySet<string>): ReadonlyMap<string, DerReader> => {
  const values = readKnownExtensions(explicit, known)
  if (values.size === 0) throw explicit.problem('Extensions is empty')
  return values
}

/** What an EXPLICIT tag holds: one element and nothing after it. */
export const onlyOne = (explicit: DerReader, tag: number, what: string): DerReader => {
  const inner = explicit.read(tag, what)
  explicit.finish(`what holds ${what}`)
  return inner
}

const nonceKey = oidKey(ocspOids.nonce)
const nonceOnly: ReadonlySet<string> = new Set([nonceKey])
const none: ReadonlySet<string> = new Set()
const hashesByOid = new Map<string, CertIdHash>([
  [oidKey(ocspOids.sha1), 'sha1'],
  [oidKey(ocspOids.sha256), 'sha256'],
])
