/** A certificate put together again from what the records keep: its TBS and its signature, each octet once. */
import { DerReader, encodeBits, encodeSequence, tags } from './der.ts'

/** The signature's AlgorithmIdentifier is the one inside the TBS (RFC 5280 4.1.1.2: they are the same). */
export const assembleCertificate = (tbs: Buffer, signature: Buffer): Buffer => {
  const fields = new DerReader(tbs, 'internal').read(tags.sequence, 'the TBS')
  fields.read(0xa0, 'the version')
  fields.read(tags.integer, 'the serial')
  return encodeSequence(tbs, fields.element(tags.sequence, 'the signature algorithm'), encodeBits(signature))
}
