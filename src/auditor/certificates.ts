/** What a verifier of the roll wants of certificates: reading them, and checking their signatures on other threads. */
import { Worker } from 'node:worker_threads'

import { isProblem } from '../errors.ts'
import { packChecks } from '../keys/verifier-batch.ts'
import { lengthOf } from '../policy/validity.ts'
import type { CertificateContents, RollCertificate, SignedBy } from '../tlog/known.ts'
import { findSignatureAlgorithm, type KeyAlgorithmId, signatureAlgorithm } from '../x509/algorithms.ts'
import { parseCertificate } from '../x509/certificate.ts'
import type { SignatureCheck } from '../x509/csr.ts'
import { DerReader, tags } from '../x509/der.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { readTime } from '../x509/time.ts'

export interface RollCertificates {
  /** Undefined for what is not a certificate. */
  readCertificate(der: Uint8Array): RollCertificate | undefined
  /** Undefined for what a strict reader does not take. */
  readContents(der: Uint8Array): CertificateContents | undefined
  /** Rejects when a thread has ended. */
  verifyCertificates(signed: readonly SignedBy[]): Promise<readonly boolean[]>
  close(): Promise<void>
}

export const openRollCertificates = (threads: number): RollCertificates => {
  const workers = Array.from({ length: threads }, openThread)
  const leastBusy = (): CheckingThread => workers.reduce((best, one) => (one.load() < best.load() ? one : best))
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
  const isOfItsKey = ({ certificate, issuer }: SignedBy): boolean => {
    const keyType = keyTypeOf(issuer.spki)
    return keyType !== undefined && signatureAlgorithm(certificate.algorithm).keys.includes(keyType)
  }
  return {
    readCertificate: (der) => undefinedFor(() => read(bufferOf(der))),
    readContents: (der) => undefinedFor(() => readAll(bufferOf(der))),
    verifyCertificates: async (signed) => {
      // Before anybody is waited for: nothing of the certificates is held meanwhile.
      const areOfTheirKeys = signed.map(isOfItsKey)
      const shares: Promise<readonly boolean[]>[] = []
      for (let at = 0; at < signed.length; at += maxShare)
        shares.push(leastBusy().run(signed.slice(at, at + maxShare).map(checkOf)))
      const valid = (await Promise.all(shares)).flat()
      return areOfTheirKeys.map((isOfKey, i) => valid[i] === true && isOfKey)
    },
    close: async () => {
      await Promise.all(workers.map((worker) => worker.close()))
    },
  }
}

/**
 * The fields up to the key. What follows was linted before it was signed, and says nothing that the roll does: reading all
 * of it strictly would cost as much as everything else that a verifier does beside the signature (measured).
 */
const read = (der: Buffer): RollCertificate => {
  const outer = new DerReader(der, 'policy.lint')
  const certificate = outer.read(tags.sequence, 'Certificate')
  outer.finish('Certificate')
  const window = certificate.window(tags.sequence, 'TBSCertificate')
  const algorithm = findSignatureAlgorithm(certificate.element(tags.sequence, 'AlgorithmIdentifier'))
  const signature = certificate.bits('signatureValue').octets
  certificate.finish('Certificate')
  const tbs = window.octets
  const fields = window.read(tags.sequence, 'TBSCertificate')
  fields.read(0xa0, 'version')
  const serial = fields.read(tags.integer, 'serialNumber').octets.toString('hex')
  const inner = findSignatureAlgorithm(fields.element(tags.sequence, 'AlgorithmIdentifier'))
  if (algorithm === undefined || inner !== algorithm) throw fields.problem('the signature algorithms are not one')
  const issuer = fields.element(tags.sequence, 'issuer')
  const validity = fields.read(tags.sequence, 'validity')
  readTime(validity, 'notBefore')
  const notAfter = readTime(validity, 'notAfter')
  const subject = fields.element(tags.sequence, 'subject')
  const spki = fields.element(tags.sequence, 'subjectPublicKeyInfo')
  return { serial, issuer, subject, spki, notAfter, tbs, algorithm: algorithm.id, signature }
}

/** In the words of a plan. */
const readAll = (der: Buffer): CertificateContents => {
  const { facts } = parseCertificate(der)
  const { subject, names, keyUsage = [], extendedKeyUsage = [], notBefore, notAfter } = facts
  return { subject, names, keyUsage, extendedKeyUsage, validity: lengthOf(notBefore.getTime(), notAfter.getTime()) }
}

const checkOf = ({ certificate: { tbs, signature, algorithm }, issuer }: SignedBy): SignatureCheck => ({
  spki: bufferOf(issuer.spki),
  message: bufferOf(tbs),
  signature: bufferOf(signature),
  algorithm: signatureAlgorithm(algorithm),
  keep: true,
})

interface CheckingThread {
  /** Shares that it has not answered. */
  load(): number
  run(checks: readonly SignatureCheck[]): Promise<readonly boolean[]>
  close(): Promise<void>
}

/** One of the threads that check signatures for the service; it answers in order. Whoever verifies starts again when it ends. */
const openThread = (): CheckingThread => {
  const worker = new Worker(new URL(`../keys/verifier-worker${extension}`, import.meta.url))
  const asked: PromiseWithResolvers<readonly boolean[]>[] = []
  let ended: Error | undefined
  const end = (error: Error): void => {
    ended ??= error
    for (const one of asked.splice(0)) one.reject(ended)
  }
  worker.on('message', (valid: Uint8Array) => asked.shift()?.resolve(Array.from(valid, (one) => one === 1)))
  worker.on('error', end)
  worker.on('exit', () => end(new Error('a thread that checks signatures has ended')))
  return {
    load: () => asked.length,
    run: (checks) => {
      if (ended !== undefined) return Promise.reject(ended)
      const answer = Promise.withResolvers<readonly boolean[]>()
      asked.push(answer)
      const packed = packChecks(checks)
      worker.postMessage(packed, [packed.data])
      return answer.promise
    },
    close: async () => {
      await worker.terminate()
    },
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
const bufferOf = (octets: Uint8Array): Buffer =>
  Buffer.isBuffer(octets) ? octets : Buffer.from(octets.buffer, octets.byteOffset, octets.length)

/** `.ts` as we are run, `.js` from the built image. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
/** Some 8 ms of P-256, less by keys that are known. */
const maxShare = 128
