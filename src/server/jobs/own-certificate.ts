/**
 * Chancery's own HTTPS certificate: asked for through the same cycle as everyone else's, under a profile of its own,
 * with a key that lives in memory only. Renewed after two thirds of its life, or once it is revoked, without a restart.
 */
import { generateKeyPairSync } from 'node:crypto'

import type { Caller } from '../../ca/access/access.ts'
import type { Issuance } from '../../ca/issuance/issuance.ts'
import { signatureAlgorithm } from '../../x509/algorithms.ts'
import type { Name } from '../../x509/names.ts'
import { encodePem } from '../../x509/pem.ts'
import { encodeRequest } from '../../x509/request.ts'
import { selfSigned } from '../../x509/self-signed.ts'

export interface ServerCertificate {
  /** PEM, for node:tls. */
  readonly key: string
  readonly cert: string
  /** In hexadecimal; of a stand-in, which is on no record, undefined. */
  readonly serial: string | undefined
  readonly renewAt: Date
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER of the root above it, for those who call us; of a stand-in, itself. */
  readonly anchor: Buffer
  /** Nobody but itself has signed it. */
  readonly standIn: boolean
}

export interface OwnCertificateDeps {
  readonly issuance: Issuance
  readonly caller: Caller
  readonly profile: string
  readonly names: readonly Name[]
  /** DER of the root above this issuer. */
  readonly rootOf: (issuer: string) => Promise<Buffer>
}

export const issueOwnCertificate = async ({
  issuance,
  caller,
  profile,
  names,
  rootOf,
}: OwnCertificateDeps): Promise<ServerCertificate> => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const csr = encodeRequest({ subject: [], names, spki }, privateKey, signatureAlgorithm('ecdsa-sha256'))
  const { serial, certificate, chain, issuer, notBefore, notAfter } = await issuance.issue(caller, { csr, profile })
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    cert: [certificate, ...chain].map((der) => encodePem('CERTIFICATE', der)).join(''),
    anchor: await rootOf(issuer),
    serial,
    standIn: false,
    notBefore,
    notAfter,
    renewAt: new Date(notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3),
  }
}

/**
 * A certificate of its own making, for a service that no issuer can sign for yet: so that its API can be reached to
 * bring one. Its key lives in memory only, and it is never more than a month old, whatever the clock says. It is always due:
 * by a clock that was ahead when it was made, and was set right, it would be for as long as that was.
 */
export const makeStandIn = (names: readonly Name[], serial: Buffer, now: Date): ServerCertificate => {
  const { certificate, key, notBefore, notAfter } = selfSigned(names, serial, now)
  const cert = encodePem('CERTIFICATE', certificate)
  return { key, cert, serial: undefined, renewAt: new Date(0), notBefore, notAfter, anchor: certificate, standIn: true }
}
