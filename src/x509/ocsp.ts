/**
 * The Online Certificate Status Protocol (RFC 6960), as a responder for many clients speaks it (RFC 5019): responses are
 * written in pieces, so that whoever answers often keeps what does not change. `ocsp-reading.ts` reads what strangers send.
 */
import { hash } from 'node:crypto'

import type { SignatureAlgorithm } from './algorithms.ts'
import { type CrlReason, crlReasons } from './crl.ts'
import { DerWriter, encodeDer, encodeOid, encodeSequence, tags } from './der.ts'
import { encodeGeneralizedTime } from './time.ts'

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

/** An issuer as a CertID names it. */
export interface IssuerHash {
  readonly nameHash: Buffer
  readonly keyHash: Buffer
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

/** What the CertIDs of one issuer's certificates have in common, for a responder to compare with. Once per issuer. */
export const issuerHashes = (nameDer: Buffer, keyBits: Buffer): Readonly<Record<CertIdHash, IssuerHash>> => ({
  sha1: { nameHash: hash('sha1', nameDer, 'buffer'), keyHash: hash('sha1', keyBits, 'buffer') },
  sha256: { nameHash: hash('sha256', nameDer, 'buffer'), keyHash: hash('sha256', keyBits, 'buffer') },
})

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

/** Octets (RFC 9654 2.1). */
export const maxNonce = 128
export const ocspOids = {
  basic: '1.3.6.1.5.5.7.48.1.1',
  nonce: '1.3.6.1.5.5.7.48.1.2',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
} as const
const oids = { basic: encodeOid(ocspOids.basic), nonce: encodeOid(ocspOids.nonce) } as const
/** How each is named in a CertID, and how long it is. */
export const hashes = {
  sha1: { octets: 20, identifier: encodeSequence(encodeOid(ocspOids.sha1), encodeDer(tags.null)) },
  sha256: { octets: 32, identifier: encodeSequence(encodeOid(ocspOids.sha256), encodeDer(tags.null)) },
} as const satisfies Readonly<Record<CertIdHash, object>>
/** The status of every response that says something. */
export const successful = encodeDer(enumerated, Buffer.from([0]))
const plainStatuses = { good: encodeDer(0x80), unknown: encodeDer(0x82) } as const
/** revocationReason [0] EXPLICIT CRLReason, whole; unspecified is never said. */
export const reasons: ReadonlyMap<CrlReason, Buffer> = new Map(
  Object.entries(crlReasons)
    .filter(([, code]) => code !== crlReasons.unspecified)
    .map(([reason, code]) => [reason as CrlReason, encodeDer(0xa0, encodeDer(enumerated, Buffer.from([code])))]),
)
