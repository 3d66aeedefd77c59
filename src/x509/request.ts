/** Writing a certificate request (RFC 2986): for Chancery's own HTTPS certificate, and for its client. */
import { type KeyObject, sign } from 'node:crypto'

import type { SignatureAlgorithm } from './algorithms.ts'
import { encodeBits, encodeDer, encodeOid, encodeSequence, tags } from './der.ts'
import { encodeExtension } from './extensions.ts'
import { encodeGeneralNames, type Name } from './names.ts'
import { encodeSubject, type Subject } from './subject.ts'

export interface RequestInput {
  readonly subject: Subject
  readonly names: readonly Name[]
  /** DER of the SubjectPublicKeyInfo. */
  readonly spki: Buffer
}

/** DER of the request, signed by the key whose public half it carries. */
export const encodeRequest = (input: RequestInput, key: KeyObject, algorithm: SignatureAlgorithm): Buffer => {
  const info = encodeRequestInfo(input)
  return sealRequest(info, algorithm, sign(algorithm.hash, info, { key, ...algorithm.signOptions }))
}

/** CertificationRequestInfo: what is signed, by whoever holds the key. */
export const encodeRequestInfo = ({ subject, names, spki }: RequestInput): Buffer =>
  encodeSequence(version0, encodeSubject(subject), spki, encodeDer(attributesTag, attributesOf(names)))

export const sealRequest = (info: Buffer, algorithm: SignatureAlgorithm, signature: Buffer): Buffer =>
  encodeSequence(info, algorithm.identifier, encodeBits(signature))

/** RFC 2985 5.4.2: one extensionRequest with one value, or no attribute at all. */
const attributesOf = (names: readonly Name[]): Buffer => {
  if (names.length === 0) return Buffer.alloc(0)
  const extensions = encodeSequence(encodeExtension('subjectAltName', false, encodeGeneralNames(names)))
  return encodeSequence(encodeOid('1.2.840.113549.1.9.14'), encodeDer(tags.set, extensions))
}

const version0 = encodeDer(tags.integer, Buffer.from([0]))
const attributesTag = 0xa0
