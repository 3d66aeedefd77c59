/**
 * What a server answers to who asks for a certificate, as far as it is one: services break on files that do not belong
 * together, and what is there already is better than those.
 */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'

import { Failure } from '../../lib/failure.ts'
import { parsePemCertificates } from '../../x509/pem.ts'
import type { Answer } from '../rejected.ts'

export interface IssuedAnswer {
  readonly serial: string
  readonly certificate: string
  readonly chain: readonly string[]
  readonly issuer: string
  readonly notAfter: string
  readonly notes: readonly { readonly field: string; readonly reason: string }[]
  readonly replayed: boolean
}

/** Throws `failed` where it is none, or its parts are of different certificates. */
export const readIssued = (answer: Answer): IssuedAnswer => {
  const told = answer.json<unknown>()
  if (!isIssued(told)) throw wrong('what is no certificate')
  const { certificate, chain, serial, notAfter } = told
  const [leaf] = [certificate, ...chain].map((text) => readOne(text))
  if (leaf === undefined || serialOf(leaf) !== serial) throw wrong('the certificate of another serial')
  if (leaf.validToDate.getTime() !== Date.parse(notAfter)) throw wrong('a certificate of another time')
  return told
}

/** Throws `failed` where the certificate is not for this key. */
export const assertOfKey = ({ certificate }: Pick<IssuedAnswer, 'certificate'>, keyPem: string): void => {
  const spki = createPublicKey(createPrivateKey(keyPem)).export({ type: 'spki', format: 'der' })
  assertOfPublicKey({ certificate }, spki)
}

/** The same for a SubjectPublicKeyInfo. */
export const assertOfPublicKey = ({ certificate }: Pick<IssuedAnswer, 'certificate'>, spki: Buffer): void => {
  const own = new X509Certificate(certificate).publicKey.export({ type: 'spki', format: 'der' })
  const asked = createPublicKey({ key: spki, type: 'spki', format: 'der' }).export({ type: 'spki', format: 'der' })
  if (!own.equals(asked)) throw wrong('a certificate of another key')
}

/** Throws `failed` where no chain of signatures leads from the certificate to one of these roots (PEM). */
export const assertLeadsTo = ({ certificate, chain }: IssuedAnswer, roots: string): void => {
  const anchors = readAll(roots)
  const above = chain.map(readOne)
  const seen = new Set<X509Certificate>()
  // Each once: a chain of many that all seem to sign each other costs no more than its square.
  for (const waiting = [readOne(certificate)]; ; ) {
    const next = waiting.pop()
    if (next === undefined) throw wrong('a certificate that does not lead to the roots of its authority')
    if (anchors.some((anchor) => isSignedBy(next, anchor))) return
    for (const issuer of above) if (!seen.has(issuer) && isSignedBy(next, issuer)) waiting.push(issuer)
    for (const issuer of waiting) seen.add(issuer)
  }
}

const isSignedBy = (certificate: X509Certificate, issuer: X509Certificate): boolean =>
  certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)

export const serialOf = (certificate: X509Certificate): string =>
  certificate.serialNumber.toLowerCase().padStart(32, '0')

const readOne = (text: string): X509Certificate => {
  const [certificate, more] = readAll(text)
  if (certificate === undefined || more !== undefined) throw wrong('what is no certificate')
  return certificate
}

const readAll = (text: string): readonly X509Certificate[] => {
  try {
    return parsePemCertificates(text, mostBlocks).map((der) => new X509Certificate(der))
  } catch {
    throw wrong('what is no certificate')
  }
}

const isIssued = (told: unknown): told is IssuedAnswer => {
  const { serial, certificate, chain, issuer, notAfter, notes } = (told ?? {}) as Readonly<Record<string, unknown>>
  return (
    [serial, certificate, issuer, notAfter].every((text) => typeof text === 'string') &&
    Array.isArray(chain) &&
    chain.length <= mostBlocks &&
    chain.every((text) => typeof text === 'string') &&
    Array.isArray(notes) &&
    notes.every((note) => typeof note?.field === 'string' && typeof note.reason === 'string')
  )
}

const wrong = (what: string): Failure => new Failure('failed', `The server answered with ${what}; nothing was written.`)

const mostBlocks = 100
