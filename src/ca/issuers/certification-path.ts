/**
 * Whether a certificate that came back from a ceremony, with the chain above it, is one that Chancery can sign with:
 * for the key that was made and the subject that was asked for, allowed to sign leaves and nothing below, under a path
 * to a root (RFC 5280 6.1) with no weak link.
 */
import { Problem, type Violation } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import { type Certificate, parseCertificate, type TbsFacts } from '../../x509/certificate.ts'
import { type CheckSignature, parseRequest } from '../../x509/csr.ts'
import { extensionOids } from '../../x509/extensions.ts'
import { type PublicKey, parsePublicKey } from '../../x509/keys.ts'
import { encodeSubject, formatSubject, type Subject } from '../../x509/subject.ts'
import { formatTime } from '../../x509/time.ts'
import { refusedMail, unreadConstraint } from '../issuance/name-constraints.ts'

interface World {
  readonly now: Date
  readonly verify: CheckSignature
}

export interface ChainInput extends World {
  /** DER, the issuer first, its root last. */
  readonly chain: readonly Buffer[]
  /** DER of the request that was made with the key. */
  readonly csr: Buffer
}

/** Throws `issuer.key` for another key's certificate, and `issuer.chain` with all that does not fit. */
export const assertChainFits = async ({ chain, csr, ...world }: ChainInput): Promise<void> => {
  const links = readLinks(chain, '/chain')
  const [issuer] = links
  if (!issuer) throw new Problem('issuer.chain', 'There is no certificate.')
  const request = parseRequest(csr)
  if (!issuer.facts.spki.equals(request.key.spki)) throw otherKey(links, request.key)
  refuse([
    ...(await wayFaults(links, world)),
    ...strictFaults(links, world.now),
    ...faultsOf(issuerRules, { ...issuer, request: request.subject }, world.now),
  ])
  refuse(await secondOpinions(links))
}

export interface WaysInput extends World {
  /** DER of the issuer's certificate, with which each of the chains must begin. */
  readonly issuer: Buffer
  /** DER of what stands above it now, of which nothing is asked that was not when it came: it is sent along anyway. */
  readonly above: readonly Buffer[]
  readonly chains: readonly (readonly Buffer[])[]
}

/** Throws `issuer.chain` with all that does not fit in any of them. */
export const assertWaysFit = async ({ issuer, above, chains, ...world }: WaysInput): Promise<void> => {
  const ways = chains.map((chain, i) => readLinks(chain, `/chains/${i}`))
  const faults = ways.map(async (links, i) => {
    if (links[0]?.der.equals(issuer))
      return [...(await wayFaults(links, world)), ...strictFaults(links, world.now, [issuer, ...above])]
    const reason = 'the first certificate is not that of the issuer'
    return [{ check: 'chain.issuer', field: `/chains/${i}/0`, value: '', reason }]
  })
  refuse((await Promise.all(faults)).flat())
  refuse((await Promise.all(ways.map(secondOpinions))).flat())
}

/**
 * RFC 5280 6.1.4 (l): how many CA certificates may stand below each, of which those that were issued by their own name, as
 * when a root is followed by one of the same name, do not count.
 */
export const isPathShort = ({ pathLength }: TbsFacts, place: number, chain: readonly TbsFacts[]): boolean =>
  pathLength === undefined ||
  chain.slice(0, place).filter(({ issuer, subjectDer }) => !issuer.equals(subjectDer)).length <= pathLength

const refuse = (violations: readonly Violation[]): void => {
  if (violations.length > 0)
    throw new Problem('issuer.chain', `${violations[0]?.field}: ${violations[0]?.reason}.`, { violations })
}

/** The digest is what stands on paper, and what `openssl sha256` says of the key. */
const otherKey = (links: readonly Link[], { spki, sha256 }: PublicKey): Problem => {
  const misplaced = links.find(({ facts }) => facts.spki.equals(spki))
  if (!misplaced)
    return new Problem(
      'issuer.key',
      `The first certificate is for another key than the one that was made, whose public key has the SHA-256 ${sha256.toString('hex')}.`,
    )
  const { field } = misplaced
  const reason = 'it is the certificate for the key that was made, which must be the first'
  return new Problem('issuer.chain', `${field}: ${reason}.`, {
    violations: [{ check: 'chain.order', field, value: '', reason }],
  })
}

const wayFaults = async (links: readonly Link[], { now, verify }: World): Promise<Violation[]> => {
  const chain = links.map(({ facts }) => facts)
  return [
    ...links.flatMap((link, place) => faultsOf(linkRules, { ...link, above: links[place + 1], place, chain }, now)),
    ...(await signatureFaults(links, verify)),
  ]
}

const strictFaults = (links: readonly Link[], now: Date, known: readonly Buffer[] = []): readonly Violation[] =>
  links
    .slice(0, -1)
    .flatMap((link, place) =>
      known.some((der) => der.equals(link.der)) ? [] : faultsOf(strictRules, { ...link, above: links[place + 1] }, now),
    )

/**
 * Where another library than ours reads another certificate: what will stand above thousands is taken only when both read the same.
 * Asked about what fits, since it is no gate against hostile input. Loaded by who imports, not at the start nor by who issues.
 */
const secondOpinions = async (links: readonly Link[]): Promise<Violation[]> => {
  const { secondOpinion } = await import('../../x509/library.ts')
  const told = await Promise.all(
    links.map(async ({ der, facts, field }, place) => {
      const { spki } = (links[place + 1] ?? (links[place] as Link)).facts
      const differences = await secondOpinion(der, facts, spki)
      return differences.map((difference) => ({ field, reason: secondReason(difference) }))
    }),
  )
  return told.flat().map((one) => ({ check: 'chain.secondReader', value: '', ...one }))
}

/** What it says may be as long as the certificate, and may end with a stop. */
const secondReason = (difference: string): string =>
  `@peculiar/x509, which reads it after us, ${difference}`.slice(0, 300).replace(/\.$/, '')

interface Link extends Certificate {
  readonly der: Buffer
  /** Where it stands in what was sent. */
  readonly field: string
}

const readLinks = (chain: readonly Buffer[], field: string): readonly Link[] =>
  chain.map((der, place) => readLink(der, `${field}/${place}`))

/** Strict DER, algorithms that are known and not weak, and a key that passes the gate. */
const readLink = (der: Buffer, field: string): Link => {
  try {
    const certificate = parseCertificate(der, 'issuer.chain')
    parsePublicKey(certificate.facts.spki)
    return { ...certificate, der, field }
  } catch (error) {
    const reason = error instanceof Problem ? error.detail : 'cannot be read'
    throw new Problem('issuer.chain', `${field}: ${reason}`, {
      violations: [{ check: 'chain.certificate', field, value: '', reason }],
      cause: error,
    })
  }
}

interface Rule<T> {
  readonly check: string
  readonly reason: string | ((link: T) => string)
  readonly holds: (link: T, now: Date) => boolean
}

type Asked = Link & { readonly request: Subject }
type Below = Link & { readonly above: Link | undefined }
type Placed = Below & {
  readonly place: number
  readonly chain: readonly TbsFacts[]
}

/** Of the issuer itself, beside what holds for every link. */
const issuerRules: readonly Rule<Asked>[] = [
  {
    // The attributes, not the octets: who signs may write a string in another type than we do, as whatever is written in Go does.
    check: 'chain.subject',
    reason: ({ facts, request }) =>
      `its subject is ${formatSubject(facts.subject) || 'empty'}, and ${formatSubject(request)} was asked for`,
    holds: ({ facts, request }) => encodeSubject(facts.subject).equals(encodeSubject(request)),
  },
  {
    check: 'chain.intermediate',
    reason: 'it is a root itself; an issuer stands below one',
    holds: ({ facts }) => !facts.issuer.equals(facts.subjectDer),
  },
  {
    check: 'chain.pathLength',
    reason: ({ facts: { pathLength } }) =>
      `${pathLength === undefined ? 'it has no pathLenConstraint, which' : `its pathLenConstraint is ${pathLength}, and`} must be 0: it could make further authorities`,
    holds: ({ facts }) => facts.pathLength === 0,
  },
  {
    check: 'chain.crlSign',
    reason: 'its key usage does not allow it to sign CRLs',
    holds: ({ facts }) => facts.keyUsage?.includes('cRLSign') === true,
  },
]

/**
 * Of whatever stands below a root: RFC 5280 demands them, and who reads it to the letter rejects all that is signed below, as
 * OpenSSL does by -x509_strict, and Python by default. Both ask a root too, but whoever brings one can seldom have another: it is
 * trusted everywhere, or is not, before there is an issuer below it.
 */
const strictRules: readonly Rule<Below>[] = [
  {
    check: 'chain.keyIdentifier',
    reason: 'it has no subject key identifier',
    holds: ({ facts }) => facts.keyIdentifier !== undefined,
  },
  {
    check: 'chain.constraintsCritical',
    reason:
      'its basic constraints are not critical (RFC 5280 4.2.1.9): some relying parties would reject what is signed below it',
    holds: ({ facts: { ca, extensions } }) =>
      !ca || extensions.some(({ oid, critical }) => critical && oid === extensionOids.basicConstraints),
  },
  {
    check: 'chain.authorityKey',
    reason:
      'it has no authority key identifier (RFC 5280 4.2.1.1): some relying parties would reject what is signed below it',
    holds: ({ facts, above }) => above?.facts.keyIdentifier === undefined || facts.authorityKeyIdentifier !== undefined,
  },
]

const linkRules: readonly Rule<Placed>[] = [
  { check: 'chain.isCa', reason: 'it is not a CA certificate', holds: ({ facts }) => facts.ca },
  {
    check: 'chain.keyUsage',
    reason: ({ facts }) =>
      facts.keyUsage
        ? 'its key usage does not allow it to sign certificates'
        : 'it has no key usage, which would say that it may sign certificates (RFC 5280 4.2.1.3)',
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
    reason: ({ facts }) => `it has expired, at ${formatTime(facts.notAfter)}`,
    holds: ({ facts }, now) => !hasEnded(facts.notAfter, now),
  },
  {
    check: 'chain.validity',
    reason: ({ facts }) =>
      `it is not valid before ${formatTime(facts.notBefore)}: wait for that, or see whether the clock was right where it was signed`,
    holds: ({ facts }, now) => facts.notBefore <= now,
  },
  {
    check: 'chain.outlives',
    reason: ({ above }) =>
      `it outlives the certificate above it${above ? `, which ends at ${formatTime(above.facts.notAfter)}` : ''}`,
    holds: ({ facts, above }) => above === undefined || facts.notAfter <= above.facts.notAfter,
  },
  {
    check: 'chain.once',
    reason: 'another certificate for its name and key stands above it: a root stands once, at the end',
    holds: ({ facts, place, chain }) => !chain.slice(place + 1).some((above) => isSameAuthority(above, facts)),
  },
  {
    check: 'chain.path',
    reason: ({ above }) =>
      above
        ? 'it was not issued by the certificate above it'
        : 'it is the last one of the chain, and no root: those above it are missing',
    holds: ({ facts, above }) => facts.issuer.equals((above ?? { facts }).facts.subjectDer),
  },
  {
    check: 'chain.authorityKey',
    reason: ({ above }) =>
      `its authority key identifier is not ${above ? 'that of the certificate above it' : 'its own'}`,
    holds: (link) => isSame(link.facts.authorityKeyIdentifier, signerOf(link)?.keyIdentifier),
  },
  {
    check: 'chain.authorityKey',
    reason: ({ above }) =>
      `its authority key identifier has another serial than ${above ? 'the certificate above it' : 'itself'}: OpenSSL would find no path`,
    holds: (link) => isSame(link.facts.authoritySerial, signerOf(link)?.serial),
  },
  {
    check: 'chain.nameConstraints',
    reason: 'the name constraints of a certificate above it refuse a mail address in its subject',
    holds: ({ facts, place, chain }) =>
      chain.slice(place + 1).every((above) => refusedMail(facts, above) === undefined),
  },
  {
    check: 'chain.nameConstraints',
    reason: ({ facts }) =>
      `its name constraints hold ${unreadConstraint(facts)}: some relying parties would read no certificate of the chain`,
    holds: ({ facts }) => unreadConstraint(facts) === undefined,
  },
  {
    check: 'chain.pathLengthAbove',
    reason: 'its pathLenConstraint allows fewer authorities below it than there are',
    holds: ({ facts, place, chain }) => isPathShort(facts, place, chain),
  },
]

/** Above a root stands itself. */
const signerOf = ({ facts, above }: Placed): TbsFacts | undefined =>
  above?.facts ?? (facts.issuer.equals(facts.subjectDer) ? facts : undefined)

/** What one of both does not say holds. */
const isSame = (wanted: Buffer | undefined, found: Buffer | undefined): boolean =>
  wanted === undefined || found === undefined || wanted.equals(found)

const isSameAuthority = (one: TbsFacts, other: TbsFacts): boolean =>
  one.spki.equals(other.spki) && one.subjectDer.equals(other.subjectDer)

const faultsOf = <T extends Link>(rules: readonly Rule<T>[], link: T, now: Date): Violation[] =>
  rules
    .filter(({ holds }) => !holds(link, now))
    .map(({ check, reason }) => ({
      check,
      field: link.field,
      value: '',
      reason: typeof reason === 'string' ? reason : reason(link),
    }))

const signatureFaults = async (links: readonly Link[], verify: CheckSignature): Promise<Violation[]> => {
  const checked = await Promise.all(
    links.map(async ({ tbs: message, signature, signatureAlgorithm: algorithm, field }, place) => {
      const { spki } = (links[place + 1] ?? (links[place] as Link)).facts
      // Node would take the hash of Ed25519, which is none, for SHA-256 where the key is another: nobody else would.
      const isOfKey = algorithm.keys.includes(parsePublicKey(spki).algorithm.id)
      return isOfKey && (await verify({ spki, message, signature, algorithm })) ? [] : [field]
    }),
  )
  return checked.flat().map((field) => ({
    check: 'chain.signature',
    field,
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
