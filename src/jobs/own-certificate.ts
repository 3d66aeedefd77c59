/**
 * Chancery's own HTTPS certificate: asked for through the same cycle as everyone else's, under a profile of its own,
 * with a key that lives in memory only. Renewed after two thirds of its life, without a restart.
 */
import { generateKeyPairSync } from 'node:crypto'

import type { Caller } from '../ca/access.ts'
import type { Issuance } from '../ca/issuance.ts'
import { signatureAlgorithm } from '../x509/algorithms.ts'
import type { Name } from '../x509/names.ts'
import { encodePem } from '../x509/pem.ts'
import { encodeRequest } from '../x509/request.ts'

export interface ServerCertificate {
  /** PEM, for node:tls. */
  readonly key: string
  readonly cert: string
  readonly renewAt: Date
}

export interface OwnCertificateDeps {
  readonly issuance: Issuance
  readonly caller: Caller
  readonly profile: string
  readonly names: readonly Name[]
}

export const issueOwnCertificate = async ({
  issuance,
  caller,
  profile,
  names,
}: OwnCertificateDeps): Promise<ServerCertificate> => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const csr = encodeRequest({ subject: [], names, spki }, privateKey, signatureAlgorithm('ecdsa-sha256'))
  const { certificate, chain, notBefore, notAfter } = await issuance.issue(caller, { csr, profile })
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    cert: [certificate, ...chain].map((der) => encodePem('CERTIFICATE', der)).join(''),
    renewAt: new Date(notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3),
  }
}
