/**
 * Whether a certificate that came back from a ceremony, with the chain above it, is one that Chancery can sign with:
 * for the key that was made and the subject that was asked for, allowed to sign leaves and nothing below, under a path
 * to a root (RFC 5280 6.1) with no weak link.
 */
import { Problem, type Violation } from '../errors.ts'
import { type Certificate, parseCertificate } from '../x509/certificate.ts'
import { type CheckSignature, parseRequest } from '../x509/csr.ts'
import { extensionOids } from '../x509/extensions.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { encodeSubject } from '../x509/subject.ts'

export interface ChainInput {
  /** DER, the issuer first, its root last. */
  readonly chain: readonly Buffer[]
  /** DER of the request that was made with the key. */
  readonly csr: Buffer
  readonly now: Date
  readonly verify: CheckSignature
}

/** Throws `issuer.key` for another key's certificate, and `issuer.chain` with all that does not fit. */
export const assertChainFits = async ({ chain, csr, now, verify }: ChainInput): Promise<void> => {
  const links = chain.map(readLink)
  const [issuer] = links
  if (!issuer) throw new Problem('issuer.chain', 'There is no certificate.')
  const request = parseRequest(csr)
  if (!issuer.facts.spki.equals(request.key.spki))
    throw new Problem('issuer.key', 'The first certificate is for another key than the one that was made.')
  const violations = [
    ...faultsOf(issuerRules, { ...issuer, request: encodeSubject(request.subject) }, 0, now),
    ...links.flatMap((link, place) => faultsOf(linkRules, { ...link, above: links[place + 1] }, place, now)),
    ...(await signatureFaults(links, verify)),
  ]
  if (violations.length > 0)
    throw new Problem('issuer.chain', `${violations[0]?.field}: ${violations[0]?.reason}.`, { violations })
}

interface Link extends Certificate {
  readonly place: number
}

/** Strict DER, algorithms that are known and not weak, and a key that passes the gate. */
const readLink = (der: Buffer, place: number): Link => {
  try {
    const certificate = parseCertificate(der, 'issuer.chain')
    parsePublicKey(certificate.facts.spki)
    return { ...certificate, place }
  } catch (error) {
    const reason = error instanceof Problem ? error.detail : 'cannot be read'
    throw new Problem('issuer.chain', `certificate ${place + 1} of the chain: ${reason}`, {
      violations: [{ check: 'chain.certificate', field: `/chain/${place}`, value: '', reason }],
      cause: error,
    })
  }
}

interface Rule<T> {
  readonly check: string
  readonly reason: string
  readonly holds: (link: T, now: Date) => boolean
}

type Asked = Link & { readonly request: Buffer }
type Placed = Link & { readonly above: Link | undefined }

/** Of the issuer itself, beside what holds for every link. */
const issuerRules: readonly Rule<Asked>[] = [
  {
    check: 'chain.subject',
    reason: 'its subject is not the one that was asked for',
    holds: ({ facts, request }) => facts.subjectDer.equals(request),
  },
  {
    check: 'chain.intermediate',
    reason: 'it is a root itself; an issuer stands below one',
    holds: ({ facts }) => !facts.issuer.equals(facts.subjectDer),
  },
  {
    check: 'chain.pathLength',
    reason: 'its pathLenConstraint is not 0: it could make further authorities',
    holds: ({ facts }) => facts.pathLength === 0,
  },
  {
    check: 'chain.crlSign',
    reason: 'its key usage does not allow it to sign CRLs',
    holds: ({ facts }) => facts.keyUsage?.includes('cRLSign') === true,
  },
  {
    check: 'chain.keyIdentifier',
    reason: 'it has no subject key identifier',
    holds: ({ facts }) => facts.keyIdentifier !== undefined,
  },
]

const linkRules: readonly Rule<Placed>[] = [
  { check: 'chain.isCa', reason: 'it is not a CA certificate', holds: ({ facts }) => facts.ca },
  {
    check: 'chain.keyUsage',
    reason: 'its key usage does not allow it to sign certificates',
    holds: ({ facts }) => facts.keyUsage?.includes('keyCertSign') === true,
  },
  {
    check: 'chain.extendedKeyUsage',
    reason: 'it has an extended key usage: relying parties would accept what is signed below it for nothing else',
    holds: ({ facts }) => facts.extendedKeyUsage === undefined,
  },
  {
    check: 'chain.critical',
    reason: 'it has a critical extension that not every relying party understands',
    holds: ({ facts }) => facts.extensions.every(({ oid, critical }) => !critical || understood.has(oid)),
  },
  {
    check: 'chain.validity',
    reason: 'it is expired or not valid yet',
    holds: ({ facts }, now) => facts.notBefore <= now && now <= facts.notAfter,
  },
  {
    check: 'chain.outlives',
    reason: 'it outlives the certificate above it',
    holds: ({ facts, above }) => above === undefined || facts.notAfter <= above.facts.notAfter,
  },
  {
    check: 'chain.path',
    reason: 'it was not issued by the certificate above it, and the last one of a chain is a root',
    holds: ({ facts, above }) => facts.issuer.equals((above ?? { facts }).facts.subjectDer),
  },
  {
    check: 'chain.authorityKey',
    reason: 'its authority key identifier is not that of the certificate above it',
    holds: ({ facts, above }) => {
      const [wanted, found] = [facts.authorityKeyIdentifier, above?.facts.keyIdentifier]
      return wanted === undefined || found === undefined || wanted.equals(found)
    },
  },
  {
    check: 'chain.pathLengthAbove',
    reason: 'its pathLenConstraint allows fewer authorities below it than there are',
    holds: ({ facts, place }) => facts.pathLength === undefined || facts.pathLength >= place,
  },
]

const faultsOf = <T extends Link>(rules: readonly Rule<T>[], link: T, place: number, now: Date): Violation[] =>
  rules
    .filter(({ holds }) => !holds(link, now))
    .map(({ check, reason }) => ({ check, field: `/chain/${place}`, value: '', reason }))

const signatureFaults = async (links: readonly Link[], verify: CheckSignature): Promise<Violation[]> => {
  const checked = await Promise.all(
    links.map(async ({ tbs: message, signature, signatureAlgorithm: algorithm }, place) => {
      const { spki } = (links[place + 1] ?? (links[place] as Link)).facts
      return (await verify({ spki, message, signature, algorithm })) ? undefined : place
    }),
  )
  return checked
    .filter((place) => place !== undefined)
    .map((place) => ({
      check: 'chain.signature',
      field: `/chain/${place}`,
      value: '',
      reason: 'its signature is not by the key of the certificate above it',
    }))
}

/**
 * Whoever meets another one rejects the chain (RFC 5280 4.2), or, with those on policies, the leaves below it, which name
 * none.
 */
const understood: ReadonlySet<string> = new Set([
  extensionOids.basicConstraints,
  extensionOids.keyUsage,
  extensionOids.nameConstraints,
])
