/** A certificate as it is handed over: looked at first, since nobody between Chancery and its user does. */
import { X509Certificate } from 'node:crypto'

import type { IssuedCertificate } from './outcome.ts'

export interface Delivery {
  readonly serial: string
  /** PEM: the leaf, then what is above it, without roots. */
  readonly chain: string
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface Expected {
  /** SPKI in DER; undefined where the request could not be read, and so Chancery should not have issued anything. */
  readonly requestKey: Buffer | undefined
  readonly now: Date
}

/** A fault is a sentence: what is wrong with the answer. The same request would get the same answer again. */
export const deliver = (
  issued: IssuedCertificate,
  { requestKey, now }: Expected,
): Delivery | { readonly fault: string } => {
  const leaf = read(issued.certificate)
  const above = issued.chain.map(read)
  if (leaf === undefined || above.includes(undefined))
    return { fault: 'Chancery answered with something that is no certificate' }
  const key = keyOf(leaf)
  if (key === undefined) return { fault: `certificate ${issued.serial} has a key that cannot be read` }
  if (requestKey === undefined || !key.equals(requestKey))
    return { fault: `certificate ${issued.serial} is for another key than that of the request` }
  const [notBefore, notAfter] = [leaf.validFromDate, leaf.validToDate]
  // A replay after a long outage: the first certificate, which is of no use any more.
  if ((issued.answeredAt ?? now).getTime() >= endOf(notAfter))
    return { fault: `certificate ${issued.serial} expired before it could be handed over` }
  const chain = [issued.certificate, ...issued.chain.filter((_, i) => !isRoot(above[i]))]
  return { serial: issued.serial, chain: chain.map(withEnd).join(''), notBefore, notAfter }
}

/** Milliseconds. The second that a notAfter names is within (RFC 5280 4.1.2.5), and certificates name whole ones. */
const endOf = (notAfter: Date): number => notAfter.getTime() + 1_000

const read = (pem: string): X509Certificate | undefined => {
  if (!/^-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----\s*$/.test(pem)) return undefined
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
}

/** Undefined where Node does not know its algorithm or its curve. */
const keyOf = (certificate: X509Certificate): Buffer | undefined => {
  try {
    return certificate.publicKey.export({ type: 'spki', format: 'der' })
  } catch {
    return undefined
  }
}

/** Whether a text is nothing but roots, in PEM: nothing else is for others to trust. */
export const areRoots = (text: string): boolean => {
  const pems = text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----\s*/g) ?? []
  return pems.length > 0 && pems.join('') === text && pems.every((pem) => isRoot(read(pem)))
}

const isRoot = (certificate: X509Certificate | undefined): boolean =>
  certificate !== undefined &&
  certificate.subject === certificate.issuer &&
  keyOf(certificate) !== undefined &&
  certificate.verify(certificate.publicKey)

const withEnd = (pem: string): string => `${pem.trimEnd()}\n`
