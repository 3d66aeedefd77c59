/**
 * Making CA certificates and root CRLs. A root signs itself and then only intermediates, which sign leaves and nothing
 * below (pathLen 0), CRLs, and perhaps the root that will follow it. Keys come in from outside and may be anywhere. What
 * does not fit is refused before a key is touched; what was signed is verified before anybody gets it.
 */
import { createPublicKey, verify } from 'node:crypto'

import type { SigningKey } from '../../keys/signing-key.ts'
import type { KeyAlgorithmId } from '../../x509/algorithms.ts'
import { encodeCaTbs, type NameConstraints, parseCertificate, type TbsFacts } from '../../x509/certificate.ts'
import { type Crl, encodeCrlTbs, encodeRevoked, parseCrl, type RevokedCertificate } from '../../x509/crl.ts'
import type { CertificationRequest } from '../../x509/csr.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { encodeSubject, formatSubject, parseSubject, type Subject } from '../../x509/subject.ts'
import { encodeCertificate } from '../../x509/tbs.ts'
import { formatTime } from '../../x509/time.ts'
import { refusedMail } from '../issuance/name-constraints.ts'

/** What was asked for does not fit what is there: a sentence for each reason. */
export class Misfit extends Error {
  readonly reasons: readonly string[]

  constructor(reasons: readonly string[]) {
    super(reasons.join('\n'))
    this.name = 'Misfit'
    this.reasons = reasons
  }
}

/** What is known of a key before it signs. */
export type Signer = Pick<SigningKey, 'spki' | 'algorithm'>

interface Span {
  readonly serial: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface RootInput extends Span {
  readonly subject: Subject
  /** How many CA certificates may follow; left out, any number. */
  readonly pathLength?: number
  /** Not everybody heeds those of a trust anchor (RFC 5280 6.2): they belong into the intermediates as well. */
  readonly nameConstraints?: NameConstraints
}

interface BelowInput extends Span {
  readonly nameConstraints?: NameConstraints
  /** Where the root's CRL and its certificate are published. */
  readonly crlUrl?: string
  readonly issuerUrl?: string
}

export interface IntermediateInput extends BelowInput {
  readonly subject: Subject
  /** DER of the SubjectPublicKeyInfo of the intermediate's key. */
  readonly spki: Buffer
}

export interface CrossInput extends BelowInput {
  /** DER of the self-signed certificate of the root that is to be certified. */
  readonly other: Buffer
}

export interface RootCrlInput {
  readonly number: bigint
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly revoked: readonly RevokedCertificate[]
  /** DER of the root's last CRL, where there was one. */
  readonly previous?: Buffer
}

/** What the reviewed parameters say of a request for an intermediate. */
export interface RequestExpectation {
  readonly subject: Subject
  readonly algorithm: KeyAlgorithmId
  readonly bits?: number
  /** Hex, of the SubjectPublicKeyInfo. */
  readonly publicKeySha256?: string
}

export const signRoot = async (key: SigningKey, input: RootInput): Promise<Buffer> =>
  seal(key, encodeRootTbs(key, input))

/** Throws Misfit when the root's certificate is not the key's, or the intermediate does not fit below it. */
export const signIntermediate = async (key: SigningKey, root: Buffer, input: IntermediateInput): Promise<Buffer> =>
  seal(key, encodeIntermediateTbs(key, root, input))

export const encodeRootTbs = ({ spki, algorithm }: Signer, { subject, ...input }: RootInput): Buffer => {
  const key = parsePublicKey(spki)
  const own = { issuer: encodeSubject(subject), authorityKeyIdentifier: key.keyIdentifier }
  return encodeCaTbs({ ...input, ...own, subject, key, signature: algorithm })
}

export const encodeIntermediateTbs = (signer: Signer, root: Buffer, input: IntermediateInput): Buffer => {
  const issuer = readRoot(signer, root)
  const { spki, ...rest } = input
  assertAll([...belowRules, ...intermediateRules], { ...input, issuer, subjectDer: encodeSubject(input.subject) })
  return encodeCaTbs({ ...rest, ...issuedBy(signer, issuer), key: parsePublicKey(spki), pathLength: 0 })
}

/**
 * A certificate for another root's subject and key, so that whoever trusts only this root accepts chains of the other.
 * It repeats what the other says of itself: its octets of the subject, its key identifier, its path length.
 */
export const encodeCrossTbs = (signer: Signer, root: Buffer, input: CrossInput): Buffer => {
  const issuer = readRoot(signer, root)
  const { other: der, ...rest } = input
  const other = readOther(der)
  const { spki, subjectDer, pathLength, keyIdentifier } = other
  assertAll([...belowRules, ...crossRules], { ...input, issuer, spki, subjectDer, other })
  const nameConstraints = input.nameConstraints ?? other.nameConstraints
  return encodeCaTbs({
    ...rest,
    ...issuedBy(signer, issuer),
    subject: subjectDer,
    key: parsePublicKey(spki),
    ...(keyIdentifier && { subjectKeyIdentifier: keyIdentifier }),
    ...(pathLength !== undefined && { pathLength }),
    ...(nameConstraints && { nameConstraints }),
  })
}

export const encodeRootCrlTbs = (signer: Signer, root: Buffer, input: RootCrlInput): Buffer => {
  const issuer = readRoot(signer, root)
  const { previous: der, revoked, ...rest } = input
  const previous = der && readPrevious(der, issuer)
  assertAll(crlRules, { ...input, issuer, previous })
  return encodeCrlTbs({ ...rest, ...issuedBy(signer, issuer), revoked: [encodeRevoked(revoked)] })
}

/** Throws Misfit where the request is not the one that the parameters describe. Its possession was proved before. */
export const assertRequestFits = (request: CertificationRequest, expected: RequestExpectation): void =>
  assertAll(requestRules, { request, expected })

/** A certificate or CRL from what is to be signed. Throws when the key does not sign, or its signature does not hold. */
export const seal = async (key: SigningKey, tbs: Buffer): Promise<Buffer> => {
  const { id, algorithm } = key
  const [signature] = await key.sign([tbs])
  if (!Buffer.isBuffer(signature)) throw new Error(`The key ${id} did not sign.`, { cause: signature })
  if (!holds(key, tbs, signature))
    throw new Error(`The key ${id} made a signature that does not verify; it was thrown away.`)
  // A CRL has the form of a certificate (RFC 5280 5.1.1).
  return encodeCertificate(tbs, algorithm, signature)
}

// Reading what is there -----------------------------------------------------------------------------------------------

const readRoot = ({ spki }: Signer, der: Buffer): TbsFacts => {
  const root = readSelfSigned(der, 'root')
  if (!root.spki.equals(spki)) throw new Misfit(['The key is not the key of the root certificate.'])
  return root
}

const readOther = (der: Buffer): TbsFacts => {
  const other = readSelfSigned(der, 'other root')
  parsePublicKey(other.spki)
  return other
}

const readSelfSigned = (der: Buffer, what: string): TbsFacts => {
  const { facts, tbs, signature, signatureAlgorithm: algorithm } = parseCertificate(der)
  const { spki, issuer, subjectDer, ca, keyUsage } = facts
  if (!issuer.equals(subjectDer) || !holds({ spki, algorithm }, tbs, signature))
    throw new Misfit([`The certificate of the ${what} is not signed by its own key.`])
  if (ca && !keyUsage)
    throw new Misfit([
      `The certificate of the ${what} has no key usage, which would say that it may sign certificates.`,
    ])
  if (!ca || keyUsage?.includes('keyCertSign') !== true)
    throw new Misfit([`The certificate of the ${what} is not one of an authority that signs certificates.`])
  return facts
}

const readPrevious = (der: Buffer, { spki, subjectDer }: TbsFacts): Crl => {
  const previous = parseCrl(der)
  const { issuer, tbs, signature, signatureAlgorithm: algorithm } = previous
  if (!issuer.equals(subjectDer) || !holds({ spki, algorithm }, tbs, signature))
    throw new Misfit(['The previous CRL was not signed by this root.'])
  return previous
}

const holds = ({ spki, algorithm }: Signer, tbs: Buffer, signature: Buffer): boolean => {
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  return verify(algorithm.hash, tbs, { key, ...algorithm.signOptions }, signature)
}

const issuedBy = ({ spki, algorithm }: Signer, { subjectDer, keyIdentifier }: TbsFacts) => ({
  issuer: subjectDer,
  authorityKeyIdentifier: keyIdentifier ?? parsePublicKey(spki).keyIdentifier,
  signature: algorithm,
})

// What fits ---------------------------------------------------------------------------------------------------------

interface Rule<T> {
  readonly holds: (about: T) => boolean
  readonly sentence: (about: T) => string
}

/** Every reason at once: an operator at an air-gapped machine should not have to come back for the next. */
const assertAll = <T>(rules: readonly Rule<T>[], about: T): void => {
  const broken = rules.filter((rule) => !rule.holds(about))
  if (broken.length > 0) throw new Misfit(broken.map(({ sentence }) => sentence(about)))
}

interface Below extends Span {
  readonly issuer: TbsFacts
  readonly subjectDer: Buffer
  readonly spki: Buffer
}

const belowRules: readonly Rule<Below>[] = [
  {
    holds: ({ notAfter, issuer }) => notAfter <= issuer.notAfter,
    sentence: ({ issuer }) => `The certificate would outlive the root, which ends at ${formatTime(issuer.notAfter)}.`,
  },
  {
    holds: ({ notBefore, issuer }) => notBefore >= issuer.notBefore,
    sentence: ({ issuer }) =>
      `The certificate would be valid before the root, which begins at ${formatTime(issuer.notBefore)}.`,
  },
  {
    holds: ({ notBefore, notAfter }) => notBefore <= notAfter,
    sentence: () => 'The validity ends before it begins.',
  },
  {
    holds: ({ issuer }) => issuer.pathLength !== 0,
    sentence: () => 'The root allows no authority below it (its path length is 0).',
  },
  { holds: ({ spki, issuer }) => !spki.equals(issuer.spki), sentence: () => "The key is the root's own." },
  {
    holds: ({ subjectDer }) => subjectDer.length > 2,
    sentence: () => 'An authority has a subject (RFC 5280 4.1.2.6).',
  },
  {
    holds: (below) => mailAgainst(below) === undefined,
    sentence: (below) => `The root's name constraints refuse the mail address ${mailAgainst(below)} in the subject.`,
  },
]

const mailAgainst = ({ subjectDer, issuer }: Below): string | undefined =>
  refusedMail({ subject: parseSubject(subjectDer), subjectDer }, issuer)

const intermediateRules: readonly Rule<Below>[] = [
  {
    // By its name alone it would pass for the root itself (RFC 5280 6.1).
    holds: ({ subjectDer, issuer }) => !subjectDer.equals(issuer.subjectDer),
    sentence: () => "The subject is the root's own.",
  },
]

interface Cross extends Below {
  readonly other: TbsFacts
  readonly nameConstraints?: NameConstraints
}

const crossRules: readonly Rule<Cross>[] = [
  {
    holds: ({ notAfter, other }) => notAfter <= other.notAfter,
    sentence: ({ other }) =>
      `The certificate would outlive the other root, which ends at ${formatTime(other.notAfter)}.`,
  },
  {
    // RFC 5280 6.1.4 (l): a certificate whose issuer has its own name takes up no length of the path.
    holds: ({ issuer, other }) =>
      issuer.pathLength === undefined || issuer.pathLength > 1 || issuer.subjectDer.equals(other.subjectDer),
    sentence: () =>
      'The root allows one authority below it (its path length is 1), and a chain through this certificate has two: ' +
      'only a new root of the same subject could follow it.',
  },
  {
    holds: ({ nameConstraints, other }) => nameConstraints === undefined || other.nameConstraints === undefined,
    sentence: () => 'The other root has name constraints, which are repeated: leave out those of the parameters.',
  },
  {
    holds: ({ other: { nameConstraints: { permitted, excluded } = { permitted: [], excluded: [] } } }) =>
      ![...permitted, ...excluded].some(({ kind }) => kind === 'other'),
    sentence: () =>
      'The other root constrains names that are not DNS names, addresses, URIs or mail, which cannot be repeated here.',
  },
]

interface Listing extends Omit<RootCrlInput, 'previous'> {
  readonly issuer: TbsFacts
  readonly previous: Crl | undefined
}

const crlRules: readonly Rule<Listing>[] = [
  {
    holds: ({ issuer }) => issuer.keyUsage?.includes('cRLSign') === true,
    sentence: () => "The root's key usage does not allow it to sign CRLs.",
  },
  {
    holds: ({ number, previous }) => previous === undefined || number > previous.number,
    sentence: ({ number, previous }) =>
      `The CRL number ${number} is not higher than that of the previous one, ${previous?.number}.`,
  },
  {
    holds: ({ thisUpdate, previous }) => previous === undefined || thisUpdate >= previous.thisUpdate,
    sentence: ({ previous }) =>
      `The CRL would be older than the previous one, of ${previous && formatTime(previous.thisUpdate)}.`,
  },
  {
    holds: ({ thisUpdate, nextUpdate }) => thisUpdate < nextUpdate,
    sentence: () => 'The next update does not lie after this one.',
  },
  {
    holds: ({ thisUpdate, nextUpdate, issuer }) => thisUpdate >= issuer.notBefore && nextUpdate <= issuer.notAfter,
    sentence: ({ issuer }) =>
      `The CRL does not lie within the root's validity, ${formatTime(issuer.notBefore)} to ${formatTime(issuer.notAfter)}.`,
  },
  {
    holds: ({ revoked, thisUpdate }) => revoked.every(({ revokedAt }) => revokedAt <= thisUpdate),
    sentence: () => 'A certificate would be revoked after the CRL says so.',
  },
  {
    holds: ({ revoked }) => new Set(revoked.map(hexOf)).size === revoked.length,
    sentence: ({ revoked }) => {
      const serials = revoked.map(hexOf)
      return `The serial ${serials.find((serial, i) => serials.indexOf(serial) < i)} is listed twice.`
    },
  },
  {
    holds: ({ revoked, issuer }) => !revoked.some(({ serial }) => serial.equals(issuer.serial)),
    sentence: () => "The root's own serial is listed: nobody would believe a root that revokes itself.",
  },
  {
    holds: (listing) => missingFrom(listing).length === 0,
    sentence: (listing) =>
      `The previous CRL lists ${missingFrom(listing).join(', ')}, with the same time, and this one does not: ` +
      'what is revoked stays revoked (RFC 5280 3.3).',
  },
]

const missingFrom = ({ revoked, previous }: Listing): readonly string[] => {
  const times = new Map(revoked.map((one) => [hexOf(one), one.revokedAt.getTime()]))
  return (previous?.revoked ?? []).filter((one) => times.get(hexOf(one)) !== one.revokedAt.getTime()).map(hexOf)
}

interface Asked {
  readonly request: CertificationRequest
  readonly expected: RequestExpectation
}

const requestRules: readonly Rule<Asked>[] = [
  {
    holds: ({ request, expected }) => request.key.algorithm.id === expected.algorithm,
    sentence: ({ request, expected }) =>
      `The request is for a key of ${request.key.algorithm.id}; the parameters say ${expected.algorithm}.`,
  },
  {
    holds: ({ request, expected }) => expected.bits === undefined || request.key.bits === expected.bits,
    sentence: ({ request, expected }) =>
      `The request is for a key of ${request.key.bits} bits; the parameters say ${expected.bits}.`,
  },
  {
    holds: ({ request, expected }) =>
      expected.publicKeySha256 === undefined || request.key.sha256.toString('hex') === expected.publicKeySha256,
    sentence: ({ request }) =>
      `The request is for another key than the parameters say: its SHA-256 is ${request.key.sha256.toString('hex')}.`,
  },
  {
    // The attributes, not the octets: who makes a request may write a string in another type than we do.
    holds: ({ request, expected }) => encodeSubject(request.subject).equals(encodeSubject(expected.subject)),
    sentence: ({ request, expected }) =>
      `The request is for the subject ${formatSubject(request.subject) || '(none)'}; the parameters say ${formatSubject(expected.subject)}.`,
  },
]

const hexOf = ({ serial }: { readonly serial: Buffer }): string => serial.toString('hex')
