/** What a verifier of the roll wants of certificates: reading them, and checking their signatures on other threads. */

import { isProblem } from '../errors.ts'
import { openVerifier } from '../keys/verifier.ts'
import type { RollCertificate, SignedBy } from '../roll/history.ts'
import type { Log } from '../telemetry.ts'
import { type KeyAlgorithmId, signatureAlgorithm } from '../x509/algorithms.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { parsePublicKey } from '../x509/keys.ts'

export interface RollCertificates {
  /** Undefined for what is not a certificate, read as strictly as our own are before they are signed. */
  readCertificate(der: Uint8Array): RollCertificate | undefined
  verifyCertificates(signed: readonly SignedBy[]): Promise<readonly boolean[]>
  close(): Promise<void>
}

export const openRollCertificates = (threads: number, log: Log): RollCertificates => {
  const verifier = openVerifier(threads, log)
  const keyTypes = new Map<Uint8Array, KeyAlgorithmId | undefined>()
  /** Undefined for a key that does not pass the gate: it has signed nothing. An issuer's comes again and again. */
  const keyTypeOf = (spki: Uint8Array): KeyAlgorithmId | undefined => {
    if (!keyTypes.has(spki))
      keyTypes.set(
        spki,
        undefinedFor(() => parsePublicKey(bufferOf(spki)).algorithm.id),
      )
    return keyTypes.get(spki)
  }
  const verifyOne = async ({ certificate, issuer }: SignedBy): Promise<boolean> => {
    const { tbs, signature } = certificate
    const algorithm = signatureAlgorithm(certificate.algorithm)
    const keyType = keyTypeOf(issuer.spki)
    if (keyType === undefined || !algorithm.keys.includes(keyType)) return false
    return verifier.verify({
      spki: bufferOf(issuer.spki),
      message: bufferOf(tbs),
      signature: bufferOf(signature),
      algorithm,
      keep: true,
    })
  }
  return {
    readCertificate: (der) =>
      undefinedFor(() => {
        const { tbs, facts, signature, signatureAlgorithm } = parseCertificate(bufferOf(der))
        const { serial, issuer, subjectDer, spki, notAfter } = facts
        return {
          serial: serial.toString('hex'),
          issuer,
          subject: subjectDer,
          spki,
          notAfter,
          tbs,
          algorithm: signatureAlgorithm.id,
          signature,
        }
      }),
    verifyCertificates: (signed) => Promise.all(signed.map(verifyOne)),
    close: () => verifier.close(),
  }
}

const undefinedFor = <T>(read: () => T): T | undefined => {
  try {
    return read()
  } catch (error) {
    if (isProblem(error)) return undefined
    throw error
  }
}

/** The same octets. */
const bufferOf = (octets: Uint8Array): Buffer => Buffer.from(octets.buffer, octets.byteOffset, octets.length)
