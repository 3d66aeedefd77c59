/** A leaf that has signed itself: a certificate for TLS before anyone can issue one. */
import { generateKeyPairSync, sign } from 'node:crypto'

import { signatureAlgorithm } from './algorithms.ts'
import { parsePublicKey } from './keys.ts'
import type { Name } from './names.ts'
import { encodeSubject } from './subject.ts'
import { compileTemplate, encodeCertificate, encodeTbs } from './tbs.ts'

export interface SelfSigned {
  /** DER. */
  readonly certificate: Buffer
  /** PEM, PKCS#8. */
  readonly key: string
  readonly notBefore: Date
  readonly notAfter: Date
}

/** For these names, from a day before `now` to thirty days after. */
export const selfSigned = (names: readonly Name[], serial: Buffer, now: Date): SelfSigned => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = parsePublicKey(publicKey.export({ type: 'spki', format: 'der' }))
  const subject = [{ type: 'commonName', value: 'Chancery without an issuer' }] as const
  const signature = signatureAlgorithm('ecdsa-sha256')
  const issuer = {
    subject: encodeSubject(subject),
    keyIdentifier: key.keyIdentifier,
    signature,
    publicUrl: '',
    name: 'none',
  }
  const template = compileTemplate({
    issuer,
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: [],
  })
  const second = Math.floor(now.getTime() / 1000) * 1000
  const [notBefore, notAfter] = [new Date(second - dayMs), new Date(second + 30 * dayMs)]
  const tbs = encodeTbs(template, {
    serial,
    notBefore,
    notAfter,
    subject,
    key,
    names,
    shard: 0,
  })
  return {
    certificate: encodeCertificate(tbs, signature, sign(signature.hash, tbs, privateKey)),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    notBefore,
    notAfter,
  }
}

const dayMs = 86_400_000
