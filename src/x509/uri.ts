/**
 * URIs in certificates: absolute, one spelling each, nothing that two parsers read in two ways (RFC 5280 4.2.1.6, RFC
 * 3986). What is left out on purpose: user information, ports, fragments, IP and wildcard hosts.
 */

import { isAddressLiteral } from './addresses.ts'

/** What is wrong with this URI, if anything. `hostFault` judges a registered name in lower case. */
export const uriFault = (text: string, hostFault: (host: string) => string | undefined): string | undefined => {
  if (text.length > 2048) return 'is longer than 2048 characters'
  const scheme = /^([a-z][a-z0-9+.-]{0,31}):/.exec(text)?.[1]
  if (scheme === undefined) return 'does not begin with a scheme in lower case'
  const rest = text.slice(scheme.length + 1)
  if (scheme === 'spiffe') return spiffeFault(rest)
  if (!/^[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]+$/.test(rest))
    return 'has characters that a URI without a fragment does not have'
  return (
    percentFault(rest) ??
    (rest.startsWith('//') ? hierarchicalFault(rest.slice(2), hostFault) : pathFault(rest.replace(/\?.*$/, '')))
  )
}

/**
 * What SPIFFE lets pass and others do not: Go reads no certificate whose URI has an empty label in its host, and URL parsers take
 * `0177.1` for 127.0.0.1. Asked of what is to be issued; what was issued is still read.
 */
export const trustDomainFault = (text: string): string | undefined => {
  const domain = /^spiffe:\/\/([^/]*)/.exec(text)?.[1]
  if (domain === undefined) return undefined
  if (isAddressLiteral(domain)) return 'has an IP address as its trust domain'
  return domain.split('.').includes('') ? 'has an empty label in its trust domain' : undefined
}

/** SPIFFE-ID 2: trust domain and path of a workload, nothing else. */
const spiffeFault = (rest: string): string | undefined => {
  const match = /^\/\/[a-z0-9._-]{1,255}((?:\/[A-Za-z0-9._-]+)+)$/.exec(rest)
  if (match === null) return 'is not spiffe://trust-domain/path'
  return pathFault(match[1] as string)
}

const hierarchicalFault = (rest: string, hostFault: (host: string) => string | undefined): string | undefined => {
  const end = /[/?]/.exec(rest)?.index ?? rest.length
  const host = rest.slice(0, end)
  if (host.includes('@')) return 'has user information'
  if (host.includes(':')) return 'has a port'
  if (host === '') return 'has an empty host'
  if (isAddressLiteral(host)) return 'has an IP address as its host'
  const fault = hostFault(host)
  return fault === undefined ? pathFault(rest.slice(end).replace(/\?.*$/, '')) : `has a host that ${fault}`
}

const pathFault = (path: string): string | undefined =>
  /(?:^|\/)\.{1,2}(?:\/|$)/.test(path) ? 'has dot segments' : undefined

/** Percent-encoding has one spelling: upper case, and never for what needs none or for what changes the structure. */
const percentFault = (rest: string): string | undefined => {
  for (const [, digits] of rest.matchAll(/%(.{0,2})/g)) {
    if (!/^[0-9A-F]{2}$/.test(digits as string)) return 'has a malformed or lower-case percent-encoding'
    const char = String.fromCharCode(Number.parseInt(digits as string, 16))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: what is looked for is the control characters.
    if (/[A-Za-z0-9\-._~/\\\x00-\x1f\x7f]/.test(char)) return 'percent-encodes what may not or need not be encoded'
  }
  return undefined
}
