/**
 * Whether a client certificate holds, now: signed by a CA that is trusted for clients, for a client, valid, and not
 * revoked. TLS has proved that the other end holds its key, and nothing else; what OpenSSL thinks of its chain is not
 * asked. What no trusted CA vouches for is told nothing but that; what one does is told what is wrong with it.
 */
import { hash } from 'node:crypto'

import { Problem, type ProblemCode } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import { type Certificate, isIssuedBy, parseCertificate, type TbsFacts } from '../../x509/certificate.ts'
import type { CheckSignature } from '../../x509/csr.ts'
import { extensionOids } from '../../x509/extensions.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { assertStillNames } from '../../x509/names.ts'
import { assertNameConstraints } from '../issuance/name-constraints.ts'
import type { ClientCertificate } from './access.ts'
import type { TrustedIssuer } from './client-trust.ts'

/** What the records say of a certificate that an issuer of ours has signed. */
export type CertificateStanding = 'good' | 'revoked' | 'unknown'

export interface ClientCertificatesDeps {
  /** The CAs that are trusted for clients at this moment. */
  readonly trusted: () => readonly TrustedIssuer[]
  readonly verify: CheckSignature
  /** Of the certificate with this serial (hex) by this issuer of ours, if it has this TBSCertificate. */
  readonly standing: (issuer: string, serial: string, tbs: Buffer) => Promise<CertificateStanding>
  readonly clock: () => Date
}

/** Resolves to what a certificate (DER) may be recognised by. Throws auth.* for one that does not hold. */
export const openClientCertificates =
  ({ trusted, verify, standing, clock }: ClientCertificatesDeps) =>
  async (der: Buffer): Promise<ClientCertificate> => {
    const certificate = readLeaf(der)
    const { facts } = certificate
    const now = clock()
    const issuer = await findIssuer(certificate, trusted(), now, verify)
    if (issuer.own === null) assertStrict(facts)
    for (const { holds, code, reason, detail } of leafRules)
      if (!holds(facts, now)) throw new Problem(code, detail, { reason: `certificate.${reason}` })
    const serial = facts.serial.toString('hex')
    if (issuer.own !== null) await assertGood(() => standing(issuer.own as string, serial, certificate.tbs))
    return {
      // It is kept for long: octets of its own.
      fingerprint: hash('sha256', der, 'buffer'),
      spiffeId: spiffeIdOf(facts),
      subject: facts.subjectDer,
      issuer: facts.issuer,
      notAfter: facts.notAfter,
      serial: issuer.own === null ? null : serial,
    }
  }

const invalid = (reason: string, cause?: unknown): Problem =>
  new Problem('auth.invalid', 'This certificate is not accepted.', { reason: `certificate.${reason}`, cause })

/** Strict DER, known algorithms, a key that passes the gate. */
const readLeaf = (der: Buffer): Certificate => {
  try {
    const certificate = parseCertificate(der, 'auth.invalid')
    parsePublicKey(certificate.facts.spki)
    return certificate
  } catch (error) {
    throw invalid('malformed', error)
  }
}

/** Of ours, what was issued under older rules goes on to hold; of others', names are what they may be today. */
const assertStrict = ({ names }: TbsFacts): void => {
  try {
    assertStillNames(names)
  } catch (error) {
    throw invalid('malformed', error)
  }
}

/**
 * The CA that signed it: by name and key identifier, then by its signature. Each is trusted by itself: whatever else a
 * client sends along is not looked at, so that no path is built, and a resumed session has nothing less to show.
 */
const findIssuer = async (
  { facts, tbs: message, signature, signatureAlgorithm: algorithm }: Certificate,
  trusted: readonly TrustedIssuer[],
  now: Date,
  verify: CheckSignature,
): Promise<TrustedIssuer> => {
  const named = trusted.filter((ca) => isIssuedBy(facts, ca.facts))
  if (named.length === 0) throw invalid('untrusted')
  let fault: Problem | undefined
  for (const ca of named) {
    const { spki } = ca.facts
    if (!(await verify({ spki, message, signature, algorithm }))) continue
    const found = faultOf(ca.facts, facts, now)
    if (found === undefined) return ca
    // Another certificate of the same CA, as when it was renewed with its key, may still vouch for it.
    fault ??= found
  }
  throw fault ?? invalid('signature')
}

/** A CA speaks for its own time and for the names that it is allowed. */
const faultOf = (ca: TbsFacts, leaf: TbsFacts, now: Date): Problem | undefined => {
  if (!isValidAt(ca, now)) return invalid('issuer_expired')
  try {
    assertNameConstraints(leaf, [ca])
    return undefined
  } catch (error) {
    return invalid('name_constraints', error)
  }
}

const isValidAt = ({ notBefore, notAfter }: TbsFacts, now: Date): boolean =>
  notBefore <= now && !hasEnded(notAfter, now)

interface LeafRule {
  readonly code: ProblemCode
  readonly reason: string
  readonly detail: string
  readonly holds: (leaf: TbsFacts, now: Date) => boolean
}

/** Of a certificate that a trusted CA has signed. */
const leafRules: readonly LeafRule[] = [
  {
    code: 'auth.usage',
    reason: 'ca',
    detail: 'This is the certificate of a CA.',
    holds: ({ ca, keyUsage }) => !ca && keyUsage?.includes('keyCertSign') !== true,
  },
  {
    code: 'auth.usage',
    reason: 'extended_key_usage',
    detail: 'This certificate does not have the extended key usage clientAuth.',
    holds: ({ extendedKeyUsage }) => extendedKeyUsage?.includes('clientAuth') === true,
  },
  {
    code: 'auth.usage',
    reason: 'key_usage',
    detail: 'The key usage of this certificate does not have digitalSignature.',
    holds: ({ keyUsage }) => keyUsage === undefined || keyUsage.includes('digitalSignature'),
  },
  {
    code: 'auth.usage',
    reason: 'critical',
    detail: 'This certificate has a critical extension that is not understood here.',
    holds: ({ extensions }) => extensions.every(({ oid, critical }) => !critical || understood.has(oid)),
  },
  {
    code: 'auth.early',
    reason: 'early',
    detail: 'This certificate is not valid yet.',
    holds: ({ notBefore }, now) => notBefore <= now,
  },
  {
    code: 'auth.expired',
    reason: 'expired',
    detail: 'This certificate has expired.',
    holds: ({ notAfter }, now) => !hasEnded(notAfter, now),
  },
]

/** What we have signed ourselves is on record, octet by octet: not so what somebody else signs with a stolen key. */
const assertGood = async (read: () => Promise<CertificateStanding>): Promise<void> => {
  const found = await read()
  if (found === 'unknown') throw invalid('unrecorded')
  if (found === 'revoked')
    throw new Problem('auth.revoked', 'This certificate is revoked.', { reason: 'certificate.revoked' })
}

/** Its only URI (X509-SVID 2); one that has others beside it is recognised by no URI at all. */
const spiffeIdOf = ({ names }: TbsFacts): string | null => {
  const [uri, ...others] = names.filter(({ kind }) => kind === 'uri')
  return uri && others.length === 0 && uri.value.startsWith('spiffe://') ? uri.value : null
}

const understood: ReadonlySet<string> = new Set([
  extensionOids.basicConstraints,
  extensionOids.keyUsage,
  extensionOids.extendedKeyUsage,
  extensionOids.subjectAltName,
])
