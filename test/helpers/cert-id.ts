import { hash } from 'node:crypto'

import { DerWriter, tags } from '../../src/x509/der.ts'
import { type CertIdHash, hashes } from '../../src/x509/ocsp.ts'
import { writeSerial } from '../../src/x509/tbs.ts'

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
