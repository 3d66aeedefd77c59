/** A root and what it signs, for tests: its key in memory, and nothing that a real ceremony would refuse is refused. */
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'

import type { SigningKey } from '../../src/keys/signing-key.ts'
import { defaultSignatureAlgorithm, signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { type CaTbsInput, encodeCaTbs } from '../../src/x509/certificate.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { encodePem, parsePem } from '../../src/x509/pem.ts'
import { encodeSubject, type Subject } from '../../src/x509/subject.ts'
import { encodeCertificate } from '../../src/x509/tbs.ts'
import { oid, seq } from '../x509/build.ts'

export interface TestRoot {
  readonly key: SigningKey
  /** PEM. */
  readonly pem: string
  /** PEM of the certificate for a CSR (PEM), pathLen 0 and a year long unless told otherwise. */
  certify(csr: string, more?: Partial<CaTbsInput>): string
}

/** ECDSA P-256 or ML-DSA-87, whose signatures are the longest. */
export const memoryKey = (
  kind: 'ec-p256' | 'ml-dsa-87' = 'ec-p256',
): SigningKey & { signNow(message: Buffer): Buffer } => {
  const { privateKey, publicKey } =
    kind === 'ec-p256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync(kind)
  const algorithm = defaultSignatureAlgorithm(kind)
  const signNow = (message: Buffer): Buffer => sign(algorithm.hash, message, privateKey)
  return {
    id: 'memory',
    algorithm,
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    sign: async (messages) => messages.map(signNow),
    signNow,
    close: async () => {},
  }
}

export const openTestRoot = (name = 'Test Root', days = 3_650, key = memoryKey()): TestRoot => {
  const own = parsePublicKey(key.spki)
  const seal = (input: Partial<CaTbsInput> & Pick<CaTbsInput, 'subject' | 'key'>): string => {
    const tbs = encodeCaTbs({
      serial: Buffer.concat([Buffer.from([0x40]), randomBytes(15)]),
      issuer: encodeSubject(named(name)),
      authorityKeyIdentifier: own.keyIdentifier,
      signature: key.algorithm,
      ...span(days),
      ...input,
    })
    return encodePem('CERTIFICATE', encodeCertificate(tbs, key.algorithm, key.signNow(tbs)))
  }
  return {
    key,
    pem: seal({ subject: named(name), key: own }),
    certify: (csr, more = {}) => {
      const request = parseRequest(parsePem(csr, 'CERTIFICATE REQUEST'))
      return seal({ subject: request.subject, key: request.key, pathLength: 0, ...span(365), ...more })
    },
  }
}

/** As it was taken once, with two spellings of one algorithm, and is taken no more. Nobody looks at its signature. */
export const oddRoot = (name: string, spki: Buffer): Buffer => {
  const [signature, key] = [signatureAlgorithm('rsa-sha256'), parsePublicKey(spki)]
  const issuer = encodeSubject(named(name))
  const ids = { serial: Buffer.from([0x40]), issuer, subject: issuer, authorityKeyIdentifier: key.keyIdentifier }
  const tbs = encodeCaTbs({ ...ids, key, signature, ...span(1_000) })
  return encodeCertificate(tbs, { ...signature, identifier: seq(oid('1.2.840.113549.1.1.11')) }, Buffer.alloc(256))
}

export const named = (commonName: string): Subject => [
  { type: 'organization', value: 'Tests' },
  { type: 'commonName', value: commonName },
]

export const span = (days: number, from = Date.now() - 300_000): Pick<CaTbsInput, 'notBefore' | 'notAfter'> => {
  const start = Math.floor(from / 1000) * 1000
  return { notBefore: new Date(start), notAfter: new Date(start + days * 86_400_000) }
}
