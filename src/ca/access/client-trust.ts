/**
 * Which CAs are trusted to say who a client is: the issuers of authorities that a setting names, as they come and go, and
 * CA certificates from a file. Never the system's.
 */
import { hash } from 'node:crypto'

import { isProblem } from '../../errors.ts'
import { parseAnchor, type TbsFacts } from '../../x509/certificate.ts'
import { extensionOids } from '../../x509/extensions.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { parsePemCertificates } from '../../x509/pem.ts'
import type { Issuers } from '../issuers/issuers.ts'

export interface TrustedIssuer {
  readonly facts: TbsFacts
  /** The name of the issuer, where it is one of ours: then the records know what it has signed. */
  readonly own: string | null
}

/** The CAs of a file. */
export interface ClientAnchors {
  all(): readonly TbsFacts[]
  /** Reads the file again. Rejects with a sentence, and leaves all as it was, where it is not good. */
  refresh(): Promise<void>
}

/** Opened means read: `read` gives the text, PEM. Rejects with a sentence. */
export const openClientAnchors = async (read: () => Promise<string>): Promise<ClientAnchors> => {
  let text = await read()
  let anchors = readAnchors(text)
  return {
    all: () => anchors,
    refresh: async () => {
      const now = await read()
      if (now === text) return
      anchors = readAnchors(now)
      text = now
    },
  }
}

export interface ClientTrustDeps {
  /** All of whose issuers are trusted, but for retired ones. */
  readonly authorities: readonly string[]
  readonly anchors: () => readonly TbsFacts[]
  readonly issuers: Pick<Issuers, 'all' | 'isIssuerKey'>
  /** Those that a CA above has revoked. */
  readonly revoked: () => readonly string[]
}

/** The CAs that are trusted at the moment of each call. */
export const openClientTrust = ({
  authorities,
  anchors,
  issuers,
  revoked,
}: ClientTrustDeps): (() => readonly TrustedIssuer[]) => {
  /** One of ours that has retired, or was revoked, is not trusted because it is in a file. */
  const ofFile = (facts: TbsFacts, ours: readonly TrustedIssuer[]): TrustedIssuer | undefined => {
    if (!issuers.isIssuerKey(hash('sha256', facts.spki))) return { facts, own: null }
    return ours.find((issuer) => issuer.facts.spki.equals(facts.spki))
  }

  return () => {
    const gone = new Set(revoked())
    const placed = issuers.all().filter(({ issuer }) => !gone.has(issuer.name))
    const ours = placed.map(({ issuer: { facts, name } }) => ({ facts, own: name }))
    return [
      ...ours.filter((_, i) => authorities.includes(placed[i]?.issuer.authority ?? '')),
      ...anchors().flatMap((facts) => ofFile(facts, ours) ?? []),
    ]
  }
}

/** CA certificates, each of which is trusted by itself. */
const readAnchors = (pem: string): readonly TbsFacts[] => {
  try {
    return parsePemCertificates(pem, mostAnchors).map(readAnchor)
  } catch (error) {
    if (isProblem(error)) throw new Error(`The CAs of clients cannot be read: ${error.detail}.`)
    throw error
  }
}

const readAnchor = (der: Buffer, at: number): TbsFacts => {
  const facts = parseAnchor(der)
  parsePublicKey(facts.spki)
  const fault = anchorRules.find(({ holds }) => !holds(facts))
  if (fault) throw new Error(`Of the CAs of clients, certificate ${at + 1} ${fault.reason}.`)
  return facts
}

const anchorRules: readonly { readonly reason: string; readonly holds: (facts: TbsFacts) => boolean }[] = [
  { reason: 'is not that of a CA', holds: ({ ca }) => ca },
  {
    reason: 'has no key usage, which would say that it may sign certificates',
    holds: ({ keyUsage }) => keyUsage !== undefined,
  },
  { reason: 'may not sign certificates', holds: ({ keyUsage }) => keyUsage?.includes('keyCertSign') === true },
  {
    reason: 'has a critical extension that is not understood here',
    holds: ({ extensions }) => extensions.every(({ oid, critical }) => !critical || understood.has(oid)),
  },
]

/** What we judge ourselves when somebody shows a certificate: not what relying parties understand of our chains. */
const understood: ReadonlySet<string> = new Set([
  extensionOids.basicConstraints,
  extensionOids.keyUsage,
  extensionOids.nameConstraints,
])
const mostAnchors = 100
