/**
 * Name rules: which names a profile or a grant allows. Patterns are globs by label, CIDRs, URI paths and mail domains, and
 * texts for common names; never regular expressions. They are compiled once, and matched in time linear in the name. Only
 * rules hold patterns: a `*` in a name that was asked for stands for the wildcard of RFC 9525 6.3 or for nothing.
 */
import { isObject } from '../lib/canonical-json.ts'
import { isEmbeddedV4, parseIp } from '../x509/addresses.ts'
import { type NameKind, nameKinds } from '../x509/names.ts'
import { readTextPattern } from './subject.ts'

export interface KindRules {
  readonly allow: readonly string[]
  readonly deny?: readonly string[]
}

/** The common name is a name as well where it says who somebody is: a user of Kubernetes has no other. */
export type RuledKind = NameKind | 'commonName'
export const ruledKinds: readonly RuledKind[] = [...nameKinds, 'commonName']
export const isRuledKind = (text: string): text is RuledKind => ruledKinds.some((kind) => kind === text)

/**
 * What narrows a grant. A kind of subject alternative name without a rule is refused; of common names without one, what the
 * profile says holds alone.
 */
export type NameRules = { readonly [kind in RuledKind]?: KindRules }

/** A pattern that was read. `covers`: every name that `name` stands for matches; `touches`: at least one does. */
export interface Pattern {
  readonly text: string
  covers(name: NameParts): boolean
  touches(name: NameParts): boolean
}

/** A name taken apart once, for all the patterns that it meets. */
export interface NameParts {
  readonly value: string
  /** DNS labels, left to right, or those of the domain of a mail address; an asked-for wildcard is `anyLabel`. */
  readonly labels: readonly (string | typeof anyLabel)[]
  /** Octets of an address; undefined where the value is none. */
  readonly address?: Buffer | undefined
  /** Everything before the path, and the segments of the path. */
  readonly base: string
  readonly segments: readonly string[]
  readonly local: string
}

/** The left-most label of a wildcard name: whichever one label stands there (RFC 9525 6.3). */
const anyLabel = Symbol('any label')

export interface CompiledKind {
  readonly allow: readonly Pattern[]
  readonly deny: readonly Pattern[]
}

export type CompiledRules = { readonly [kind in RuledKind]?: CompiledKind }

/** Reads one pattern; a string says what is wrong with it. */
export const readPattern = (kind: RuledKind, text: string): Pattern | string => readers[kind](text)

/** Compiles rules whose patterns are known to be good; a bad one throws TypeError. */
export const compileRules = (rules: NameRules): CompiledRules => {
  const compiled: { -readonly [kind in RuledKind]?: CompiledKind } = {}
  for (const kind of ruledKinds) {
    const written = rules[kind]
    if (written === undefined) continue
    compiled[kind] = { allow: compileList(kind, written.allow), deny: compileList(kind, written.deny ?? []) }
  }
  return compiled
}

/** Takes a name apart for matching. Total: a value that is not in normal form gets parts that match nothing. */
export const takeApart = (name: { readonly kind: RuledKind; readonly value: string }): NameParts => {
  const { kind, value } = name
  switch (kind) {
    case 'dns':
      return { ...noParts, value, labels: labelsOf(value) }
    case 'commonName':
      return { ...noParts, value }
    case 'ip':
      return { ...noParts, value, address: parseIp(value) }
    case 'email': {
      const at = value.lastIndexOf('@')
      return at < 1
        ? { ...noParts, value }
        : { ...noParts, value, local: value.slice(0, at), labels: value.slice(at + 1).split('.') }
    }
    case 'uri': {
      const path = pathStart(value)
      return {
        ...noParts,
        value,
        base: value.slice(0, path),
        segments: path === value.length ? [] : value.slice(path + 1).split('/'),
      }
    }
  }
}

/** The first of the patterns that allows the name as a whole, if any. */
export const findAllowing = (patterns: readonly Pattern[], parts: NameParts): Pattern | undefined =>
  patterns.find((pattern) => pattern.covers(parts))

/** The first of the patterns that denies the name or one that it stands for, if any. */
export const findDenying = (patterns: readonly Pattern[], parts: NameParts): Pattern | undefined =>
  patterns.find((pattern) => pattern.touches(parts))

/** The labels of a DNS name that stand for others in Unicode (RFC 5890 2.3.2.1). */
export const aceLabelsOf = (value: string): readonly string[] =>
  value.includes('xn--') ? value.split('.').filter((label) => label.startsWith('xn--')) : []

const compileList = (kind: RuledKind, texts: readonly string[]): readonly Pattern[] =>
  texts.map((text) => {
    const pattern = readPattern(kind, text)
    if (typeof pattern === 'string') throw new TypeError(`${kind} pattern: ${pattern}`)
    return pattern
  })

// DNS: labels; at most one `**`, so that matching needs no search.

const readDnsPattern = (text: string): Pattern | string => {
  const labels = readLabelPattern(text)
  if (typeof labels === 'string') return labels
  return {
    text,
    covers: (name) => labels.match(name.labels, false),
    touches: (name) => labels.match(name.labels, true),
  }
}

interface LabelPattern {
  match(labels: readonly (string | typeof anyLabel)[], touches: boolean): boolean
}

/** `head` labels, then one or more of any where there is a `**`, then `tail` labels: all of them where there is none. */
const readLabelPattern = (text: string): LabelPattern | string => {
  if (text.length === 0) return 'is empty'
  if (text.length > maxDnsLength) return `is longer than ${maxDnsLength} characters`
  const labels = text.split('.')
  for (const label of labels) {
    const fault = label === '*' || label === '**' ? undefined : faultOfLabel(label)
    if (fault !== undefined) return fault
  }
  const gap = labels.indexOf('**')
  if (gap !== labels.lastIndexOf('**')) return 'has more than one `**`'
  const head = labels.slice(0, Math.max(gap, 0))
  const tail = labels.slice(gap + 1)
  return {
    match: (name, touches) => {
      if (gap === -1 ? name.length !== labels.length : name.length < labels.length) return false
      const shift = name.length - tail.length
      for (let i = 0; i < head.length; i++) if (!matchLabel(head[i], name[i], touches)) return false
      for (let i = 0; i < tail.length; i++) if (!matchLabel(tail[i], name[shift + i], touches)) return false
      for (let i = head.length; i < shift; i++) if (!isAnyLabel(name[i])) return false
      return true
    },
  }
}

/** `*` is any one label. A wildcard's label is covered only by `*`, and touched by every label. */
const matchLabel = (
  pattern: string | undefined,
  label: string | typeof anyLabel | undefined,
  touches: boolean,
): boolean => {
  if (pattern === '*') return isAnyLabel(label)
  return label === anyLabel ? touches : pattern === label
}

/** A `*` in a name that is not a wildcard's is nothing that a pattern matches. */
const isAnyLabel = (label: string | typeof anyLabel | undefined): boolean =>
  label === anyLabel || (label !== undefined && label !== '' && !label.includes('*'))

const faultOfLabel = (label: string): string | undefined => {
  if (label === '') return 'has an empty label'
  if (label.length > maxLabelLength) return `has a label longer than ${maxLabelLength} characters`
  if (label.startsWith('-') || label.endsWith('-')) return 'has a label that begins or ends with a hyphen'
  for (let i = 0; i < label.length; i++) {
    const code = label.charCodeAt(i)
    if (code === star) return 'has `*` inside a label; `*` stands for one whole label, `**` for one or more'
    if (code >= upperA && code <= upperZ) return 'has upper-case letters; write patterns in lower case'
    if (!isLabelCode(code)) return 'has characters that no DNS name has'
  }
  return undefined
}

const isLabelCode = (code: number): boolean =>
  (code >= lowerA && code <= lowerZ) || (code >= zero && code <= nine) || code === hyphen || code === underscore

const labelsOf = (value: string): readonly (string | typeof anyLabel)[] =>
  value.startsWith('*.') ? [anyLabel, ...value.slice(2).split('.')] : value.split('.')

// IP: CIDRs on the octets. A rule for one version never meets an address of the other.

const readIpPattern = (text: string): Pattern | string => {
  const slash = text.indexOf('/')
  const octets = parseIp(slash === -1 ? text : text.slice(0, slash))
  if (octets === undefined) return 'is not an address or a CIDR, like 10.0.0.0/8 or fd00::/8'
  if (isEmbeddedV4(octets)) return 'is an IPv4 address inside an IPv6 address; write the IPv4 CIDR'
  // Kept with the rule: not the 64 KB beside it that Buffers are cut from.
  const network = Uint8Array.from(octets)
  const width = network.length * 8
  const prefix = slash === -1 ? width : readPrefixLength(text.slice(slash + 1))
  if (prefix === undefined || prefix > width) return `has a prefix length that is not within 0 and ${width}`
  const whole = prefix >> 3
  const mask = (0xff00 >> (prefix & 7)) & 0xff
  const last = network[whole] ?? 0
  if ((last & ~mask) !== 0 || network.subarray(whole + 1).some((octet) => octet !== 0))
    return 'has bits set beyond its prefix length'
  const matches = ({ address }: NameParts): boolean => {
    if (address === undefined || address.length !== network.length) return false
    for (let i = 0; i < whole; i++) if (address[i] !== network[i]) return false
    return ((address[whole] ?? 0) & mask) === last
  }
  return { text, covers: matches, touches: matches }
}

/** Digits only, without a leading zero. */
const readPrefixLength = (text: string): number | undefined =>
  /^(0|[1-9][0-9]{0,2})$/.test(text) ? Number(text) : undefined

// URI: scheme and authority literal, `*` for one path segment, `**` for one or more. A URI with a query, a fragment or
// escapes has segments that only an exact pattern matches.

const readUriPattern = (text: string): Pattern | string => {
  if (text.length > maxUriLength) return `is longer than ${maxUriLength} characters`
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) <= 0x20 || text.charCodeAt(i) >= 0x7f) return 'has characters that no URI has'
  }
  if (faultOfScheme(text)) return 'does not begin with a scheme in lower case, like spiffe://'
  if (!text.includes('*')) return exactly(text)
  const path = pathStart(text)
  const base = text.slice(0, path)
  if (!base.includes('://')) return 'has `*` outside a path; only scheme://authority/path patterns may have one'
  if (base.includes('*')) return 'has `*` in its scheme or authority; they are literal'
  const segments = text.slice(path + 1).split('/')
  const stray = segments.find((segment) => segment !== '*' && segment !== '**' && segment.includes('*'))
  if (stray !== undefined)
    return 'has `*` inside a path segment; `*` stands for one whole segment, `**` for one or more'
  if (segments.includes('')) return 'has an empty path segment'
  const gap = segments.indexOf('**')
  if (gap !== segments.lastIndexOf('**')) return 'has more than one `**`'
  const head = segments.slice(0, Math.max(gap, 0))
  const tail = segments.slice(gap + 1)
  const matches = (name: NameParts): boolean => {
    const asked = name.segments
    if (name.base !== base) return false
    if (gap === -1 ? asked.length !== segments.length : asked.length < segments.length) return false
    const shift = asked.length - tail.length
    for (let i = 0; i < head.length; i++) if (!matchSegment(head[i], asked[i])) return false
    for (let i = 0; i < tail.length; i++) if (!matchSegment(tail[i], asked[shift + i])) return false
    for (let i = head.length; i < shift; i++) if (!isPlainSegment(asked[i])) return false
    return true
  }
  return { text, covers: matches, touches: matches }
}

const matchSegment = (pattern: string | undefined, segment: string | undefined): boolean =>
  pattern === '*' ? isPlainSegment(segment) : pattern === segment

/** Letters, digits, `-`, `.`, `_` (SPIFFE-ID 2.2), and neither `.` nor `..`: nothing that a URI library could re-read. */
const isPlainSegment = (segment: string | undefined): boolean => {
  if (segment === undefined || segment === '' || segment === '.' || segment === '..') return false
  for (let i = 0; i < segment.length; i++) {
    const code = segment.charCodeAt(i)
    if (!isLabelCode(code) && !(code >= upperA && code <= upperZ) && code !== dot) return false
  }
  return true
}

const faultOfScheme = (text: string): boolean => {
  const colon = text.indexOf(':')
  if (colon < 1 || colon === text.length - 1 || text.charCodeAt(0) < lowerA) return true
  for (let i = 0; i < colon; i++) {
    const code = text.charCodeAt(i)
    if ((!isLabelCode(code) || code === underscore) && code !== plus && code !== dot) return true
  }
  return false
}

/** Where the path of `scheme://authority/path` begins; the end where there is none. */
const pathStart = (value: string): number => {
  const authority = value.indexOf('://')
  const path = authority === -1 ? -1 : value.indexOf('/', authority + 3)
  return path === -1 ? value.length : path
}

// Mail: `*@domain` for every mailbox of a domain, `local@domain` for one. The domain is a DNS pattern.

const readEmailPattern = (text: string): Pattern | string => {
  const at = text.lastIndexOf('@')
  if (at < 1) return 'is not like *@example.com or alice@example.com'
  const local = text.slice(0, at)
  if (local !== '*' && !isPlainLocal(local)) return 'has a local part that is neither `*` nor plain'
  const domain = readLabelPattern(text.slice(at + 1))
  if (typeof domain === 'string') return `has a domain that ${domain}`
  const matches = (name: NameParts, isLocal: (asked: string) => boolean): boolean =>
    (local === '*' ? !name.local.includes('*') : isLocal(name.local)) && domain.match(name.labels, false)
  const folded = local.toLowerCase()
  return {
    text,
    covers: (name) => matches(name, (asked) => asked === local),
    // RFC 5321 2.4 has two mailboxes where only case differs; hardly any server does.
    touches: (name) => matches(name, (asked) => asked.toLowerCase() === folded),
  }
}

const isPlainLocal = (local: string): boolean => {
  if (local.length > maxLocalLength) return false
  for (let i = 0; i < local.length; i++) {
    const code = local.charCodeAt(i)
    if (code <= 0x20 || code >= 0x7f || code === star || code === atSign || code === quote) return false
  }
  return true
}

// Common names: a text of one part, so `*` and `**` are those of a profile's `match`.

const readCommonNamePattern = (text: string): Pattern | string => {
  if (text.length === 0) return 'is empty'
  if ([...text].length > maxCommonNamePattern) return `is longer than ${maxCommonNamePattern} characters`
  const pattern = readTextPattern(text)
  if (typeof pattern === 'string') return pattern
  const matches = ({ value }: NameParts): boolean => pattern.matches(value)
  return { text, covers: matches, touches: matches }
}

const exactly = (text: string): Pattern => {
  const matches = (name: NameParts): boolean => name.value === text
  return { text, covers: matches, touches: matches }
}

/** One token of a JSON pointer (RFC 6901 3). */
export const pointer = (key: string): string => show(key).replaceAll('~', '~0').replaceAll('/', '~1')

/**
 * A value as a violation or a check shows it: short, whatever was sent. There is no half of a character in it, also where it is
 * cut: many readers of JSON take nothing of a document that has one.
 */
export const show = (value: unknown): string => {
  const text = isObject(value) ? '{…}' : Array.isArray(value) ? '[…]' : value === undefined ? '' : String(value)
  const shown = text.length <= maxShown ? text : `${text.slice(0, maxShown).replace(firstHalf, '')}…`
  return shown.toWellFormed()
}

/** Of a character that takes two units of UTF-16, at the end. */
const firstHalf = /[\ud800-\udbff]$/

const readers: { readonly [kind in RuledKind]: (text: string) => Pattern | string } = {
  commonName: readCommonNamePattern,
  dns: readDnsPattern,
  ip: readIpPattern,
  uri: readUriPattern,
  email: readEmailPattern,
}

const noParts: Omit<NameParts, 'value'> = { labels: [], base: '', segments: [], local: '' }

const maxShown = 256
const maxDnsLength = 253
const maxLabelLength = 63
const maxLocalLength = 64
const maxUriLength = 2048
/** A common name has at most 64 (RFC 5280 A.1), and `**` stands for one of them at least. */
const maxCommonNamePattern = 65
const star = 0x2a
const plus = 0x2b
const hyphen = 0x2d
const dot = 0x2e
const zero = 0x30
const nine = 0x39
const atSign = 0x40
const upperA = 0x41
const upperZ = 0x5a
const underscore = 0x5f
const lowerA = 0x61
const lowerZ = 0x7a
const quote = 0x22
