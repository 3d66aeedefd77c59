/**
 * The last look at the octets that are about to be signed, as the strict reader sees them: they say what the plan said,
 * nothing more, and the issuer's own chain allows them. A fault here is ours, never the client's: `policy.lint`.
 */
import { Problem } from '../../errors.ts'
import type { Plan, RecheckFacts } from '../../policy/decide.ts'
import { parseTbs, type TbsFacts } from '../../x509/certificate.ts'
import { extensionOids as oids } from '../../x509/extensions.ts'
import { encodeSubject } from '../../x509/subject.ts'
import { answersForIssuer, keyIdentifierOf } from '../../x509/tbs.ts'
import { isPathShort } from '../issuers/certification-path.ts'
import type { Issuer } from '../issuers/issuer.ts'
import { assertNameConstraints } from './name-constraints.ts'

export interface LintInput {
  readonly plan: Plan
  readonly serial: Buffer
  readonly shard: number
  readonly issuer: Issuer
}

/** The facts of the TBS, for the rules to be applied once more (incident #25). Throws `policy.lint`. */
export const lint = (tbs: Buffer, input: LintInput): RecheckFacts => {
  assertFits(tbs)
  const facts = read(tbs)
  for (const [id, holds] of lints) {
    if (!holds(facts, input)) throw new Problem('policy.lint', `The certificate fails the lint ${id}.`)
  }
  assertSomeWay(facts, input.issuer)
  const { subject, names, notBefore, notAfter, keyUsage, extendedKeyUsage, ca } = facts
  return {
    subject,
    names,
    key: input.plan.key,
    notBefore,
    notAfter,
    ca,
    ...(keyUsage && { keyUsage }),
    ...(extendedKeyUsage && { extendedKeyUsage }),
  }
}

/** What no entry of the roll holds would be found out only once it was signed, and each time that it is asked for. */
const assertFits = ({ length }: Buffer): void => {
  if (length > maxTbsOctets)
    throw new Problem(
      'policy.lint',
      `The certificate fails the lint size: ${length} octets to be signed, and its entry on the roll has room for ${maxTbsOctets}.`,
    )
}

const read = (tbs: Buffer): TbsFacts => {
  try {
    return parseTbs(tbs)
  } catch (cause) {
    throw new Problem('policy.lint', 'The certificate that would result is not strict DER.', { cause })
  }
}

type Lint = readonly [id: string, holds: (facts: TbsFacts, input: LintInput) => boolean]

const lints: readonly Lint[] = [
  ['serial', (facts, { serial }) => facts.serial.equals(serial)],
  ['issuer.name', (facts, { issuer }) => facts.issuer.equals(issuer.subject)],
  ['issuer.signature', (facts, { issuer }) => facts.signatureAlgorithm === issuer.key.algorithm],
  ['issuer.keyIdentifier', (facts, { issuer }) => sameOctets(facts.authorityKeyIdentifier, issuer.facts.keyIdentifier)],
  ['validity.order', (facts) => facts.notBefore < facts.notAfter],
  [
    'validity.plan',
    (facts, { plan }) => sameTime(facts.notBefore, plan.notBefore) && sameTime(facts.notAfter, plan.notAfter),
  ],
  ['subject.plan', (facts, { plan }) => facts.subjectDer.equals(encodeSubject(plan.subject))],
  ['names.plan', (facts, { plan }) => sameNames(facts.names, plan.names)],
  ['identity', (facts) => facts.subject.length > 0 || facts.names.length > 0],
  ['names.critical', (facts) => facts.subject.length > 0 || isCritical(facts, oids.subjectAltName)],
  ['key.plan', (facts, { plan }) => facts.spki.equals(plan.key.spki)],
  [
    'key.identifier',
    (facts, { plan }) => sameOctets(facts.keyIdentifier, keyIdentifierOf(plan.key, plan.extendedKeyUsage)),
  ],
  ['key.notIssuers', (facts, { issuer }) => !facts.spki.equals(issuer.facts.spki)],
  ['ca', (facts) => !facts.ca && facts.pathLength === undefined],
  ['keyUsage.critical', (facts) => isCritical(facts, oids.keyUsage)],
  ['keyUsage.plan', (facts, { plan }) => sameSet(facts.keyUsage, plan.keyUsage)],
  ['keyUsage.notCa', (facts) => !facts.keyUsage?.some((usage) => usage === 'keyCertSign' || usage === 'cRLSign')],
  ['extendedKeyUsage.plan', (facts, { plan }) => sameSet(facts.extendedKeyUsage, plan.extendedKeyUsage)],
  [
    'revocation.crl',
    ({ crlUrls }, { plan, shard, issuer }) =>
      isOnly(crlUrls, looksUp(plan, 'crl') ? `/crl/${issuer.name}/${shard}.crl` : undefined),
  ],
  [
    'revocation.ocsp',
    ({ ocspUrls }, { plan, issuer }) => isOnly(ocspUrls, looksUp(plan, 'ocsp') ? `/ocsp/${issuer.name}` : undefined),
  ],
  [
    'revocation.none',
    ({ extensions }, { plan }) =>
      (plan.revocation === 'none') === extensions.some((extension) => extension.oid === oids.noRevAvail),
  ],
  [
    'revocation.noCheck',
    ({ extensions }, { plan }) =>
      answersForIssuer(plan.extendedKeyUsage) === extensions.some((extension) => extension.oid === oids.ocspNoCheck),
  ],
  ['extensions.known', (facts) => facts.extensions.every((extension) => known.has(extension.oid))],
  [
    'extensions.once',
    ({ extensions }) => extensions.every(({ oid }, i) => extensions.findIndex((other) => other.oid === oid) === i),
  ],
]

/** One way up to a root on which all of it holds: others, as through a cross-certificate that ends earlier, take nothing away. */
const assertSomeWay = (facts: TbsFacts, { facts: own, ways }: Issuer): void => {
  let first: unknown
  for (const way of ways) {
    try {
      return assertWay(facts, [own, ...way])
    } catch (error) {
      first ??= error
    }
  }
  throw first
}

const assertWay = (facts: TbsFacts, chain: readonly TbsFacts[]): void => {
  for (const [id, holds] of wayLints)
    if (!holds(facts, chain)) throw new Problem('policy.lint', `The certificate fails the lint ${id}.`)
  assertNameConstraints(facts, chain)
}

const wayLints: readonly (readonly [id: string, holds: (facts: TbsFacts, chain: readonly TbsFacts[]) => boolean])[] = [
  ['issuer.outlived', (facts, chain) => chain.every((ca) => facts.notAfter <= ca.notAfter)],
  ['issuer.isCa', (_, chain) => chain.every(maySign)],
  ['issuer.pathLength', (_, chain) => chain.every(isPathShort)],
]

const looksUp = (plan: Plan, kind: 'crl' | 'ocsp'): boolean =>
  plan.revocation !== 'none' && plan.revocation.includes(kind)

/** One URL with this end, or none at all. */
const isOnly = (urls: readonly string[], end: string | undefined): boolean =>
  end === undefined ? urls.length === 0 : urls.length === 1 && urls.every((url) => url.endsWith(end))

const maySign = ({ ca, keyUsage }: TbsFacts): boolean => ca && (keyUsage?.includes('keyCertSign') ?? false)

const isCritical = (facts: TbsFacts, wanted: string): boolean =>
  facts.extensions.some((extension) => extension.oid === wanted && extension.critical)

const sameOctets = (a: Buffer | undefined, b: Buffer | undefined): boolean =>
  a !== undefined && b !== undefined && a.equals(b)

/** A certificate knows whole seconds. */
const sameTime = (a: Date, b: Date): boolean => a.getTime() === b.getTime()

const sameSet = (a: readonly string[] | undefined, b: readonly string[]): boolean => {
  const found = a ?? []
  return found.length === b.length && b.every((item) => found.includes(item))
}

const sameNames = (a: TbsFacts['names'], b: TbsFacts['names']): boolean =>
  a.length === b.length && a.every((name, i) => name.kind === b[i]?.kind && name.value === b[i]?.value)

const known: ReadonlySet<string> = new Set([
  oids.subjectKeyIdentifier,
  oids.keyUsage,
  oids.subjectAltName,
  oids.basicConstraints,
  oids.crlDistributionPoints,
  oids.authorityKeyIdentifier,
  oids.extendedKeyUsage,
  oids.noRevAvail,
  oids.authorityInfoAccess,
  oids.ocspNoCheck,
])

/**
 * With the longest signature, and in base64, it leaves room in its entry for the longest origin. All that a request brings is
 * less: more is of a profile that fixes very much.
 */
export const maxTbsOctets = 36 * 1024
