import { isProblem, Problem, type ProblemCode } from '../errors.ts'
import { formatIp, isAddressLiteral, isEmbeddedV4, parseIp } from './addresses.ts'
import { type DerReader, DerWriter, derProblem, headerLength, openDer, tags } from './der.ts'
import { isALabel, isEncodedLabel } from './idna.ts'
import { trustDomainFault, uriFault } from './uri.ts'

/**
 * Subject alternative names in normal form: what policy matches is what the certificate says. Syntax is judged here;
 * which names a profile allows is not.
 */

export { isAddressLiteral } from './addresses.ts'

export const nameKinds = ['dns', 'ip', 'uri', 'email'] as const
export type NameKind = (typeof nameKinds)[number]

/** `value` in normal form: dns in lower case; ip in canonical text (RFC 5952); uri; email with its domain in lower case. */
export interface Name {
  readonly kind: NameKind
  readonly value: string
}

/** A name from JSON. Throws san.syntax, san.ip_as_dns, san.type. */
export const parseName = (kind: NameKind, text: string): Name => {
  if (!Object.hasOwn(parsers, kind)) throw new Problem('san.type', 'the kind of a name is dns, ip, uri or email')
  return parsers[kind](text, undefined)
}

/** Of names that were issued: throws `san.syntax` for one that nobody could ask for today. */
export const assertStillNames = (names: readonly Name[]): void => {
  for (const { kind, value } of names) parseName(kind, value)
}

/** Judges a list of names as a whole: at most 100 in 16 KiB, none twice, a SPIFFE ID is the only URI. Throws san.*. */
export const assertNames = (names: readonly Name[]): void => {
  if (names.length > maxNames) throw new Problem('san.count', `there are more than ${maxNames} names`)
  if (names.length < 2) return
  if (octetsOf(names) > maxOctets) throw new Problem('san.count', `the names take more than ${maxOctets} octets`)
  const seen = new Set<string>()
  for (const name of names) {
    const key = `${name.kind}:${name.value}`
    if (seen.has(key)) throw nameProblem('san.duplicate', name, 'occurs twice')
    seen.add(key)
  }
  const uris = names.filter(({ kind }) => kind === 'uri')
  const spiffe = uris.find(({ value }) => value.startsWith('spiffe:'))
  if (spiffe !== undefined && uris.length > 1)
    throw nameProblem('san.syntax', spiffe, 'is a SPIFFE ID and not the only URI')
}

/**
 * GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName (RFC 5280 4.2.1.6). Throws san.* for what the names say and
 * ext.syntax for how they are encoded.
 */
export const parseGeneralNames = (der: Buffer): readonly Name[] => readGeneralNames(openDer(der, 'ext.syntax'))

/** The same from a reader whose only element is a SEQUENCE that was walked. */
export const readGeneralNames = (reader: DerReader): readonly Name[] => readNamesBy(reader, isALabel)

/**
 * The same of a certificate, or of what is kept beside one. What is an A-label depends on Unicode and on how we read it, and both
 * go on: what was issued under older rules stays to be shown, found, and revoked by whoever has its key.
 */
export const readIssuedNames = (reader: DerReader): readonly Name[] => readNamesBy(reader, isEncodedLabel)

type IsLabel = (label: string) => boolean

const readNamesBy = (reader: DerReader, isLabel: IsLabel): readonly Name[] => {
  if (reader.length > maxOctets)
    throw derProblem('san.count', `the names take more than ${maxOctets} octets`, reader.at)
  const list = reader.read(tags.sequence, 'GeneralNames')
  reader.finish('GeneralNames')
  if (list.done) throw derProblem('san.empty', 'the extension holds no name', list.at)
  const names: Name[] = []
  while (!list.done) {
    if (names.length === maxNames) throw derProblem('san.count', `there are more than ${maxNames} names`, list.at)
    names.push(readGeneralName(list, isLabel))
  }
  assertNames(names)
  return names
}

export const encodeGeneralNames = (names: readonly Name[]): Buffer => {
  const writer = new DerWriter(64 + 32 * names.length)
  writeGeneralNames(writer, names)
  return writer.finish()
}

export const writeGeneralNames = (writer: DerWriter, names: readonly Name[]): void => {
  const mark = writer.size
  for (let i = names.length - 1; i >= 0; i--) {
    const { kind, value } = names[i] as Name
    const name = writer.size
    if (kind === 'ip') writer.bytes(addressOctets(value))
    else writer.ascii(value)
    writer.header(tagsByKind[kind], name)
  }
  writer.header(tags.sequence, mark)
}

/** Is the whole left-most label `*`? */
export const isWildcard = (name: Name): boolean => name.kind === 'dns' && name.value.startsWith('*.')

/**
 * The wildcard name that clients take for a host name: it stands for one label, the left-most (RFC 9525 6.3). Undefined where no
 * certificate can have one.
 */
export const wildcardOver = (host: string): string | undefined => {
  const above = host.slice(host.indexOf('.') + 1)
  return dnsForm.test(host) && above.includes('.') ? `*.${above}` : undefined
}

/** Does a DNS name have an underscore, which host names do not, but some internal names do? */
export const hasUnderscore = (name: Name): boolean => name.kind === 'dns' && name.value.includes('_')

/** The octets of an address in normal form: 4 or 16. */
export const addressOctets = (value: string): Buffer => {
  const octets = parseIp(value)
  if (octets === undefined) throw new RangeError('an address in normal form was expected')
  return octets
}

/** The octets of the names as an extension: names from JSON obey the bound that the reader of ours obeys. */
const octetsOf = (names: readonly Name[]): number => {
  let content = 0
  for (const { kind, value } of names) {
    const octets = kind === 'ip' ? (value.includes(':') ? 16 : 4) : value.length
    content += headerLength(octets) + octets
  }
  return headerLength(content) + content
}

const readGeneralName = (list: DerReader, isLabel: IsLabel): Name => {
  const { buffer, at, tag } = list
  const { start, end } = list.readAny('GeneralName')
  if (tag === 0x87) return nameOfAddress(buffer.subarray(start, end), at)
  const kind = kindsByTag.get(tag)
  if (kind === undefined) throw derProblem('san.type', `a name is ${typesByTag.get(tag) ?? 'of an unknown type'}`, at)
  // Octets above 7F become characters above 7F, which no parser accepts: IA5String, and A-labels only (RFC 9549).
  return parsers[kind](buffer.toString('latin1', start, end), at, isLabel)
}

const nameOfAddress = (octets: Buffer, at: number | undefined): Name => {
  if (octets.length !== 4 && octets.length !== 16)
    throw derProblem('san.syntax', 'an iPAddress is not 4 or 16 octets', at ?? 0)
  const value = formatIp(octets)
  if (isEmbeddedV4(octets))
    throw nameProblem(
      'san.syntax',
      { kind: 'ip', value: value },
      'is an IPv4 address inside an IPv6 address; name the IPv4 address',
      at,
    )
  return { kind: 'ip', value }
}

const parseDns = (text: string, at?: number, isLabel?: IsLabel): Name => {
  const value = lowerCase(text)
  const fault = dnsFault(value, isLabel)
  if (fault !== undefined)
    throw isAddressLiteral(text)
      ? nameProblem('san.ip_as_dns', { kind: 'dns', value: text }, 'is an IP address', at)
      : nameProblem('san.syntax', { kind: 'dns', value: text }, fault, at)
  return { kind: 'dns', value }
}

/**
 * The preferred name syntax of RFC 1034 3.5 with RFC 1123 2.1, plus what profiles decide: `_`, and `*` as the whole
 * left-most label above at least two others. The top label is not numeric, so that no name can be read as an address.
 */
const dnsFault = (value: string, isLabel: IsLabel = isALabel): string | undefined => {
  if (value.length === 0) return 'is empty'
  if (value.length > 253) return 'is longer than 253 characters'
  const wildcard = value.startsWith('*.')
  const host = wildcard ? value.slice(2) : value
  if (/[\u0080-\uffff]/.test(host))
    return 'has characters beyond ASCII; an internationalized name is written in its xn-- form (A-labels, RFC 5890)'
  if (!dnsForm.test(host)) return 'is not labels of letters, digits and inner hyphens, of at most 63 characters'
  if (wildcard && !host.includes('.')) return 'has a wildcard above fewer than two labels'
  const top = host.slice(host.lastIndexOf('.') + 1)
  if (/^(\d+|0x[0-9a-f]*)$/.test(top)) return 'ends in a number'
  if (host.includes('xn--') && !host.split('.').every((label) => !label.startsWith('xn--') || isLabel(label)))
    return 'has a label that is not a valid A-label'
  return undefined
}

/** A name as lists show it, with its kind before it: `dns:web.example.com`. Undefined for what is not; throws as `parseName`. */
const parseShown = (text: string): Name | undefined => {
  const [, kind, value = ''] = shownForm.exec(text) ?? []
  return kind === undefined ? undefined : parseIssued(kind.toLowerCase() as NameKind, value)
}

/**
 * Why nothing is ever found by it, whatever there is; undefined for what a search can be about: an exact name of any kind, as it
 * is or with its kind before it, or `*.` before a DNS name, for all that are below it.
 */
export const soughtFault = (text: string): string | undefined => {
  // One with its kind before it looks like a URI.
  if (kindOf(text) !== 'dns') return faultOf(() => parseSearched(text))
  // Whatever is below a DNS name has one more label at least.
  const fault = faultOf(() => parseIssued('dns', text.replace(/^\*\./, 'a.')))
  return fault && `${fault}; ${howToSearch}`
}

/** One name, with its kind before it or of the kind that it looks like. Throws as `parseName`. */
export const parseSearched = (text: string): Name => parseShown(text) ?? parseIssued(kindOf(text), text)

/** A search is about what was issued. */
const parseIssued = (kind: NameKind, text: string): Name => parsers[kind](text, undefined, isEncodedLabel)

/** The reason of the problem that it throws. */
const faultOf = (parse: () => unknown): string | undefined => {
  try {
    parse()
    return undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    return `is no name that a certificate has: ${error.detail}`
  }
}

/** A host with its port is meant as no URI, though it could be one. */
const kindOf = (text: string): NameKind => {
  if (parseIp(text) !== undefined) return 'ip'
  return looks.find(([, form]) => form.test(text))?.[0] ?? 'dns'
}

const parseAddress = (text: string, at?: number): Name => {
  const octets = parseIp(text)
  if (octets === undefined)
    throw nameProblem('san.syntax', { kind: 'ip', value: text }, 'is not an IPv4 or IPv6 address', at)
  return nameOfAddress(octets, at)
}

const parseUri = (text: string, at?: number, isLabel?: IsLabel): Name => {
  const fault =
    uriFault(text, (host) => dnsFault(host, isLabel) ?? (host.includes('*') ? 'has a wildcard' : undefined)) ??
    (isLabel === isEncodedLabel ? undefined : trustDomainFault(text))
  if (fault !== undefined) throw nameProblem('san.syntax', { kind: 'uri', value: text }, fault, at)
  return { kind: 'uri', value: text }
}

/** Mailbox of RFC 5280 4.2.1.6: dot-atom local part, host name as domain, ASCII. */
const parseEmail = (text: string, at?: number, isLabel?: IsLabel): Name => {
  const split = text.lastIndexOf('@')
  const local = text.slice(0, split)
  const domain = lowerCase(text.slice(split + 1))
  const bad =
    split < 1 ||
    text.length > 254 ||
    local.length > 64 ||
    !localForm.test(local) ||
    domain.includes('*') ||
    domain.includes('_') ||
    dnsFault(domain, isLabel) !== undefined
  if (bad)
    throw nameProblem('san.syntax', { kind: 'email', value: text }, 'is not a plain address, local@domain in ASCII', at)
  return { kind: 'email', value: `${local}@${domain}` }
}

/** ASCII only: what is outside of it must stay to be refused (the Kelvin sign lower-cases to k). */
const lowerCase = (text: string): string =>
  /[A-Z]/.test(text) ? text.replace(/[A-Z]+/g, (upper) => upper.toLowerCase()) : text

const nameProblem = (code: ProblemCode, name: Name, reason: string, offset?: number): Problem =>
  new Problem(code, `${titles[name.kind]} ${reason}`, {
    violations: [{ check: code, field: `/names/${name.kind}`, value: showable(name.value), reason }],
    ...(offset === undefined ? {} : { offset }),
  })

const titles: Readonly<Record<Name['kind'], string>> = {
  dns: 'a DNS name',
  ip: 'an IP address',
  email: 'an e-mail address',
  uri: 'a URI',
}

/** A value as it may go into an answer or a record: visible ASCII, bounded. */
const showable = (value: string): string => value.slice(0, 256).replace(/[^\x20-\x7e]/g, '?')

const maxNames = 100
const maxOctets = 16 * 1024
const dnsForm = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/
const localForm = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/
const shownForm = /^(dns|ip|uri|email):(.*)$/is
/** The first that fits; what fits none is a DNS name. A URI begins with a letter. */
const looks: readonly (readonly [NameKind, RegExp])[] = [
  ['ip', /^(?:[\d.]+|(?=[\d:])[\da-f.]*:[\da-f.:]*)(?:\/\d*)?$/i],
  ['dns', /^\*\.|^[a-z\d_-]+(?:\.[a-z\d_-]+)+:\d{1,5}(?:[/?#]|$)/i],
  ['uri', /^[a-z][a-z\d+.-]*:/i],
  ['email', /@/],
]
const howToSearch =
  'give an exact one, or *. before a DNS name for all below it, without a dot at the end; a name of another kind may have that before it (uri:)'
const parsers: Readonly<Record<NameKind, (text: string, at?: number, isLabel?: IsLabel) => Name>> = {
  dns: parseDns,
  ip: parseAddress,
  uri: parseUri,
  email: parseEmail,
}
const tagsByKind: Readonly<Record<NameKind, number>> = { email: 0x81, dns: 0x82, uri: 0x86, ip: 0x87 }
const kindsByTag = new Map(Object.entries(tagsByKind).map(([kind, tag]) => [tag, kind as NameKind]))
const typesByTag = new Map([
  [0xa0, 'an otherName'],
  [0xa3, 'an x400Address'],
  [0xa4, 'a directoryName'],
  [0xa5, 'an ediPartyName'],
  [0x88, 'a registeredID'],
])
