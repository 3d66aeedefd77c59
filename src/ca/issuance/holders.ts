/**
 * Whoever shows a certificate of ours over mutual TLS, and so holds its key. It is known by its octets, each of which is on
 * record, and by nothing else: neither its usages nor whose client it is matter, since it may do no more than ask about
 * itself, and to be renewed.
 */

import { isProblem, Problem } from '../../errors.ts'
import { assembleCertificate } from '../../x509/assemble.ts'
import { parseCertificate, type TbsFacts } from '../../x509/certificate.ts'
import type { Caller, Grant, Held } from '../access/access.ts'

/** The same as it is on record. */
export interface HeldRecord extends Pick<Held, 'profile' | 'profileVersion' | 'issuer' | 'since' | 'obstacle'> {
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly principal: string
  readonly grants: readonly Grant[]
}

export interface HoldersDeps {
  /** Undefined where no certificate of ours has this serial (hex). */
  readonly read: (serial: string) => Promise<HeldRecord | undefined>
  /** Whether it says that an issuer of ours signed it: of what does not, nobody need ask the records. */
  readonly mayBeOurs: (facts: TbsFacts) => boolean
  /** Whether its certificates are still good for a new one. */
  readonly isIssuerTrusted: (issuer: string) => boolean
}

/**
 * Resolves to whoever holds the certificate with this serial (hex), in the name of the principal that it was issued to; null
 * where it is another certificate (DER). Throws `auth.invalid` for what is none, `renewal.foreign` for one that is not ours.
 */
export const openHolders =
  ({ read, mayBeOurs, isIssuerTrusted }: HoldersDeps) =>
  async (der: Buffer, serial: string): Promise<Caller | null> => {
    const facts = readFacts(der)
    if (facts.serial.toString('hex') !== serial) return null
    const record = mayBeOurs(facts) ? await read(serial) : undefined
    if (!record || !assembleCertificate(record.tbs, record.signature).equals(der))
      throw new Problem('renewal.foreign', 'This certificate was not issued here.')
    const { principal, grants, profile, profileVersion, issuer, since, obstacle } = record
    const { subject, names, spki, notAfter } = facts
    const held: Held = {
      ...{ serial, profile, profileVersion, issuer, subject, names, spki, notAfter, since, obstacle },
      isIssuerTrusted: isIssuerTrusted(issuer),
    }
    // What else the principal may do is not the certificate's; how much of it is.
    const requesting = grants.filter(({ role }) => role === 'requester')
    return { principal, proof: { kind: 'holder', held }, grants: requesting, limiting: grants }
  }

/** What the caller holds, where that is all that lets it in. */
export const heldBy = ({ proof }: Caller): Held | undefined => (proof.kind === 'holder' ? proof.held : undefined)

const readFacts = (der: Buffer): TbsFacts => {
  try {
    return parseCertificate(der, 'auth.invalid').facts
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    throw new Problem('auth.invalid', 'This certificate is not accepted.', { reason: 'certificate.malformed', cause })
  }
}
