/**
 * The name constraints of the issuer's own chain (RFC 5280 4.2.1.10): a certificate that breaks them is refused here,
 * not by each relying party. Directory names are not compared: a chain that constrains them permits no certificate of
 * ours with a subject, which is safe and says so.
 */
import { isProblem, Problem } from '../../errors.ts'
import { parseIp } from '../../x509/addresses.ts'
import type { Subtree, TbsFacts } from '../../x509/certificate.ts'
import { formatSubtree } from '../../x509/name-constraints.ts'
import { addressOctets, type Name } from '../../x509/names.ts'

/** Throws `san.forbidden` with the name and the constraint that refuses it. */
export const assertNameConstraints = (facts: Constrained, chain: readonly TbsFacts[]): void => {
  for (const { nameConstraints } of chain) {
    if (!nameConstraints) continue
    const { permitted, excluded } = nameConstraints
    if (
      [...permitted, ...excluded].some(({ kind, value }) => kind === 'other' && value === directoryName) &&
      facts.subject.length > 0
    ) {
      throw refused('subject', 'a directory name constraint of the issuer, which Chancery does not compare')
    }
    for (const name of namesIn(facts)) {
      const fault = [...permitted, ...excluded].some(({ kind }) => kind === name.kind) ? incomparable(name) : undefined
      if (fault !== undefined) throw refused(name.value, fault, name.field)
      const bad = excluded.find((subtree) => touches(name, subtree))
      if (bad) throw refused(name.value, `the issuer excludes ${bad.value}`, name.field)
      const ofKind = permitted.filter(({ kind }) => kind === name.kind)
      if (ofKind.length > 0 && !ofKind.some((subtree) => isWithin(name, subtree)))
        throw refused(name.value, 'the issuer does not permit it', name.field)
    }
  }
}

/**
 * The mail address in an authority's own subject that the one above it refuses: relying parties would reject the chain. Whoever was
 * issued by its own name is not held to it (RFC 5280 6.1.3).
 */
export const refusedMail = ({ subject, subjectDer }: Subjected, above: TbsFacts): string | undefined =>
  subjectDer.equals(above.subjectDer)
    ? undefined
    : subject.find(({ type, value }) => type === 'emailAddress' && isRefusedMail(value, above))?.value

/**
 * What of an authority's own constraints Go reads no certificate with, and others take for nothing: none at all (RFC 5280 4.2.1.10), a mask
 * with gaps, what is no range, host or domain. What matches nothing, or a dot that others allow, is left to be.
 */
export const unreadConstraint = ({ nameConstraints }: Pick<TbsFacts, 'nameConstraints'>): string | undefined => {
  if (nameConstraints === undefined) return undefined
  const subtrees = [...nameConstraints.permitted, ...nameConstraints.excluded]
  if (subtrees.length === 0) return 'no subtree'
  const unread = subtrees.find((subtree) => !readable[subtree.kind](subtree))
  return unread && titles[unread.kind](JSON.stringify(formatSubtree(unread)))
}

const isDomain = (text: string): boolean => /^(?:\.?[!-\-/-~]+(?:\.[!-\-/-~]+)*)?$/.test(text)

const readable: Readonly<Record<Subtree['kind'], (subtree: Subtree) => boolean>> = {
  dns: ({ value }) => isDomain(value),
  // As a prefix, where it is one.
  ip: (subtree) => /\/\d+$/.test(formatSubtree(subtree)),
  uri: ({ value }) => isDomain(value) && parseIp(value) === undefined,
  // A mailbox is a user, without a dot before it, at a host without one.
  email: ({ value }) => isDomain(mailHostOf(value)) && !/^(?:\..*)?@|@\./.test(value),
  other: ({ value }) => value !== ipAddress,
}
const titles: Readonly<Record<Subtree['kind'], (text: string) => string>> = {
  dns: (text) => `${text}, which is no domain`,
  ip: (text) => `${text}, which is no range of addresses`,
  uri: (text) => `${text}, which is no host of URIs`,
  email: (text) => `${text}, which is no domain of mail`,
  other: () => 'a range of addresses that is none',
}

type Subjected = Pick<TbsFacts, 'subject' | 'subjectDer'>

const isRefusedMail = (value: string, above: TbsFacts): boolean => {
  try {
    assertNameConstraints({ names: [{ kind: 'email', value: withLowerHost(value) }], subject: [] }, [above])
    return false
  } catch (error) {
    if (!isProblem(error, 'san.forbidden')) throw error
    return true
  }
}

type Constrained = Pick<TbsFacts, 'names' | 'subject'>

interface PlacedName extends Name {
  readonly field: string
}

/**
 * All that relying parties compare: of the subject, mail addresses (RFC 5280 4.2.1.10), and common names in the form of a host
 * name where there is no DNS name, as OpenSSL does and whoever still looks there needs.
 */
const namesIn = ({ names, subject }: Constrained): readonly PlacedName[] => {
  const hasDns = names.some(({ kind }) => kind === 'dns')
  return [
    ...names.map((name) => ({ ...name, field: '/names' })),
    ...subject.flatMap(({ type, value }): PlacedName[] => {
      const field = `/subject/${type}`
      if (type === 'emailAddress') return [{ kind: 'email', value: withLowerHost(value), field }]
      return type === 'commonName' && !hasDns && hostForm.test(value)
        ? [{ kind: 'dns', value: value.toLowerCase(), field }]
        : []
    }),
  ]
}

const withLowerHost = (mail: string): string => mail.replace(/@[^@]*$/, (host) => host.toLowerCase())

/** RFC 5280 4.2.1.10: what has no host, no constraint lets pass. */
const incomparable = ({ kind, value }: Name): string | undefined => {
  if (kind === 'uri' && hostOf(value) === '') return 'it has no host, and the issuer constrains URIs'
  if (kind === 'email' && !/^[^@]+@[^@]+$/.test(value)) return 'it is no mail address, and the issuer constrains those'
  return undefined
}

const refused = (value: string, reason: string, field = '/names'): Problem =>
  new Problem('san.forbidden', "The issuer's own name constraints refuse a name.", {
    violations: [{ check: 'issuer.nameConstraints', field, value, reason }],
  })

/** Of its own kind. */
const isWithin = ({ kind, value }: Name, subtree: Subtree): boolean => comparisons[kind](value, subtree.value)

const comparisons: Readonly<Record<Name['kind'], (value: string, constraint: string) => boolean>> = {
  dns: (value, constraint) => isInDomain(value, constraint),
  ip: (value, constraint) => isInRange(value, constraint),
  uri: (value, constraint) => isInHost(hostOf(value), constraint),
  email: (value, constraint) =>
    constraint.includes('@') ? value === constraint : isInHost(mailHostOf(value), constraint),
}

/**
 * Is the name excluded, as widely as anyone may read it? A wildcard stands for every label, so it is excluded when any
 * name that it covers is; a dot before a DNS constraint, which RFC 5280 does not know, takes nothing away. Most mail servers
 * deliver to a mailbox however it is capitalised. And a host of mail or of a URI is to Go all that is below it, too.
 */
const touches = (name: Name, subtree: Subtree): boolean =>
  subtree.kind === name.kind && widest[name.kind](name.value, subtree.value)

const widest: typeof comparisons = {
  ip: comparisons.ip,
  dns: (value, constraint) => {
    const domain = constraint.replace(/^\./, '')
    return isInDomain(value, domain) || (value.startsWith('*.') && isInDomain(domain, value.slice(2)))
  },
  uri: (value, constraint) => isInDomain(hostOf(value), constraint),
  email: (value, constraint) =>
    constraint.includes('@')
      ? value.toLowerCase() === constraint.toLowerCase()
      : isInDomain(mailHostOf(value), constraint),
}

/** DNS: the constraint and everything below it, or only that where a dot leads, as OpenSSL and Go read it; '' is all. */
const isInDomain = (value: string, constraint: string): boolean =>
  constraint === '' ||
  (constraint.startsWith('.') ? value.endsWith(constraint) : value === constraint || value.endsWith(`.${constraint}`))

/** Mail and URI: a leading dot is everything below, without one exactly that host. */
const isInHost = (host: string, constraint: string): boolean =>
  constraint.startsWith('.') ? host.endsWith(constraint) : host === constraint

const mailHostOf = (mail: string): string => mail.slice(mail.indexOf('@') + 1)

const hostOf = (uri: string): string => /^[^:]+:\/\/([^/?#]*)/.exec(uri)?.[1]?.toLowerCase() ?? ''

const isInRange = (value: string, constraint: string): boolean => {
  const [base = '', mask = ''] = constraint.split('/')
  const [address, network, bits] = [addressOctets(value), addressOctets(base), addressOctets(mask)]
  if (address.length !== network.length) return false
  return address.every((octet, i) => (octet & (bits[i] ?? 0)) === ((network[i] ?? 0) & (bits[i] ?? 0)))
}

/** As OpenSSL takes a common name for a host, and a wildcard as well. One label alone is as well a user's. */
const hostForm = /^(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)+$/i
/** Tags of GeneralName, as hex. */
const directoryName = 'a4'
const ipAddress = '87'
