/**
 * The name constraints of the issuer's own chain (RFC 5280 4.2.1.10): a certificate that breaks them is refused here,
 * not by each relying party. Directory names are not compared: a chain that constrains them permits no certificate of
 * ours with a subject, which is safe and says so.
 */
import { Problem } from '../errors.ts'
import type { Subtree, TbsFacts } from '../x509/certificate.ts'
import { addressOctets, type Name } from '../x509/names.ts'

/** Throws `san.forbidden` with the name and the constraint that refuses it. */
export const assertNameConstraints = (facts: Pick<TbsFacts, 'names' | 'subject'>, chain: readonly TbsFacts[]): void => {
  for (const { nameConstraints } of chain) {
    if (!nameConstraints) continue
    const { permitted, excluded } = nameConstraints
    if (
      [...permitted, ...excluded].some(({ kind, value }) => kind === 'other' && value === directoryName) &&
      facts.subject.length > 0
    ) {
      throw refused('subject', 'a directory name constraint of the issuer, which Chancery does not compare')
    }
    for (const name of facts.names) {
      // RFC 5280 4.2.1.10: a URI without a host cannot be compared, so no constraint on URIs lets it pass.
      if (name.kind === 'uri' && hostOf(name.value) === '' && [...permitted, ...excluded].some(isOfUris))
        throw refused(name.value, 'it has no host, and the issuer constrains URIs')
      const bad = excluded.find((subtree) => touches(name, subtree))
      if (bad) throw refused(name.value, `the issuer excludes ${bad.value}`)
      const ofKind = permitted.filter(({ kind }) => kind === name.kind)
      if (ofKind.length > 0 && !ofKind.some((subtree) => isWithin(name, subtree)))
        throw refused(name.value, 'the issuer does not permit it')
    }
  }
}

const refused = (value: string, reason: string): Problem =>
  new Problem('san.forbidden', "The issuer's own name constraints refuse a name.", {
    violations: [{ check: 'issuer.nameConstraints', field: '/names', value, reason }],
  })

const isOfUris = ({ kind }: Subtree): boolean => kind === 'uri'

const isWithin = (name: Name, subtree: Subtree): boolean =>
  subtree.kind === name.kind && comparisons[name.kind](name.value, subtree.value)

/**
 * Is the name excluded, as widely as anyone may read it? A wildcard stands for every label, so it is excluded when any
 * name that it covers is; a dot before a DNS constraint, which RFC 5280 does not know, takes nothing away.
 */
const touches = (name: Name, subtree: Subtree): boolean => {
  // Most mail servers deliver to a mailbox however it is capitalised.
  if (name.kind === 'email' && subtree.kind === 'email')
    return comparisons.email(name.value.toLowerCase(), subtree.value.toLowerCase())
  if (name.kind !== 'dns' || subtree.kind !== 'dns') return isWithin(name, subtree)
  const domain = subtree.value.replace(/^\./, '')
  return isInDomain(name.value, domain) || (name.value.startsWith('*.') && isInDomain(domain, name.value.slice(2)))
}

const comparisons: Readonly<Record<Name['kind'], (value: string, constraint: string) => boolean>> = {
  dns: (value, constraint) => isInDomain(value, constraint),
  ip: (value, constraint) => isInRange(value, constraint),
  uri: (value, constraint) => isInHost(hostOf(value), constraint),
  email: (value, constraint) =>
    constraint.includes('@') ? value === constraint : isInHost(value.slice(value.indexOf('@') + 1), constraint),
}

/** DNS: the constraint and everything below it, or only that where a dot leads, as OpenSSL and Go read it; '' is all. */
const isInDomain = (value: string, constraint: string): boolean =>
  constraint === '' ||
  (constraint.startsWith('.') ? value.endsWith(constraint) : value === constraint || value.endsWith(`.${constraint}`))

/** Mail and URI: a leading dot is everything below, without one exactly that host. */
const isInHost = (host: string, constraint: string): boolean =>
  constraint.startsWith('.') ? host.endsWith(constraint) : host === constraint

const hostOf = (uri: string): string => /^[^:]+:\/\/([^/?#]*)/.exec(uri)?.[1]?.toLowerCase() ?? ''

const isInRange = (value: string, constraint: string): boolean => {
  const [base = '', mask = ''] = constraint.split('/')
  const [address, network, bits] = [addressOctets(value), addressOctets(base), addressOctets(mask)]
  if (address.length !== network.length) return false
  return address.every((octet, i) => (octet & (bits[i] ?? 0)) === ((network[i] ?? 0) & (bits[i] ?? 0)))
}

/** The tag of directoryName in GeneralName, as hex. */
const directoryName = 'a4'
