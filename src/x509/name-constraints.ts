/** NameConstraints (RFC 5280 4.2.1.10): which names a CA may certify; read, written, and read from text. */
import { formatIp, parseIp } from './addresses.ts'
import { type DerReader, encodeDer, encodeSequence, tags } from './der.ts'
import { addressOctets } from './names.ts'

/** A subtree of names: a DNS or mail domain (a leading dot: below it only), a URI host, or an address with its prefix. */
export interface Subtree {
  readonly kind: 'dns' | 'ip' | 'uri' | 'email' | 'other'
  /** For ip `10.0.0.0/255.0.0.0`; for other the hex of the tag: nothing that Chancery issues falls under it. */
  readonly value: string
}

export interface NameConstraints {
  readonly permitted: readonly Subtree[]
  readonly excluded: readonly Subtree[]
}

export type SubtreeKind = Exclude<Subtree['kind'], 'other'>

/**
 * A subtree as people write it: `example.com`, `10.0.0.0/8`; for mail also `.example.com` or one mailbox, for URIs also
 * `.example.com`. A string says what is wrong with it. The empty DNS name is every name.
 */
export const parseSubtree = (kind: SubtreeKind, text: string): Subtree | string => forms[kind](text)

/** Text that `parseSubtree` reads; for people. */
export const formatSubtree = ({ kind, value }: Subtree): string => {
  const [base = '', mask = ''] = value.split('/')
  const bits = kind === 'ip' ? parseIp(mask) : undefined
  return bits === undefined ? value : `${base}/${prefixOf(bits)}`
}

export const readNameConstraints = (value: DerReader): NameConstraints => {
  const constraints = value.read(tags.sequence, 'NameConstraints')
  const permitted = readSubtrees(constraints.optional(0xa0, 'permittedSubtrees'))
  const excluded = readSubtrees(constraints.optional(0xa1, 'excludedSubtrees'))
  constraints.finish('NameConstraints')
  return { permitted, excluded }
}

/** At least one subtree: RFC 5280 4.2.1.10 allows no empty sequence. Subtrees of other kinds are none of ours to write. */
export const encodeNameConstraints = ({ permitted, excluded }: NameConstraints): Buffer => {
  if (permitted.length + excluded.length === 0) throw new RangeError('name constraints hold at least one subtree')
  const lists: readonly (readonly [number, readonly Subtree[]])[] = [
    [0xa0, permitted],
    [0xa1, excluded],
  ]
  return encodeSequence(
    ...lists.filter(([, list]) => list.length > 0).map(([tag, list]) => encodeDer(tag, ...list.map(encodeSubtree))),
  )
}

const readSubtrees = (list: DerReader | undefined): Subtree[] => {
  const subtrees: Subtree[] = []
  while (list !== undefined && !list.done) {
    const subtree = list.read(tags.sequence, 'GeneralSubtree')
    const tag = subtree.tag
    const base = subtree.readAny('base').octets
    // RFC 5280 4.2.1.10: minimum is zero and, being the default, absent; maximum is absent.
    subtree.finish('GeneralSubtree')
    subtrees.push(asSubtree(tag, base))
  }
  return subtrees
}

const asSubtree = (tag: number, base: Buffer): Subtree => {
  const kind = kindsByTag.get(tag)
  if (kind !== undefined) return { kind, value: normalForm(kind, base.toString('latin1')) }
  if (tag !== tagsByKind.ip || (base.length !== 8 && base.length !== 32))
    return { kind: 'other', value: tag.toString(16) }
  const half = base.length / 2
  return { kind: 'ip', value: `${formatIp(base.subarray(0, half))}/${formatIp(base.subarray(half))}` }
}

/** GeneralSubtree: minimum is the default, so only the base is there. */
const encodeSubtree = ({ kind, value }: Subtree): Buffer => {
  if (kind === 'other') throw new RangeError('a subtree is of DNS names, addresses, URIs or mail')
  const base = kind === 'ip' ? Buffer.concat(value.split('/').map(addressOctets)) : Buffer.from(value, 'latin1')
  return encodeSequence(encodeDer(tagsByKind[kind], base))
}

const parseRange = (text: string): Subtree | string => {
  const [, address = '', digits = ''] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? []
  const base = parseIp(address)
  if (base === undefined || Number(digits) > base.length * 8) return 'is not an address and a prefix, as in 10.0.0.0/8'
  const mask = maskOf(base.length, Number(digits))
  if (base.some((octet, i) => (octet & ~(mask[i] ?? 0) & 0xff) !== 0))
    return 'has bits set after its prefix, so it is not clear which range is meant'
  return { kind: 'ip', value: `${formatIp(base)}/${formatIp(mask)}` }
}

const maskOf = (octets: number, bits: number): Buffer =>
  Buffer.from(Array.from({ length: octets }, (_, i) => 0xff & (0xff00 >> Math.max(0, Math.min(8, bits - 8 * i)))))

/** The prefix of a mask; of one with gaps, which nobody reads alike, the mask itself. */
const prefixOf = (mask: Buffer): string => {
  const bits = [...mask].map((octet) => octet.toString(2).padStart(8, '0')).join('')
  const length = bits.replace(/0+$/, '').length
  return bits.slice(0, length).includes('0') ? formatIp(mask) : String(length)
}

const inForm =
  (kind: 'dns' | 'uri' | 'email', form: RegExp, fault: string) =>
  (text: string): Subtree | string => {
    const value = normalForm(kind, text)
    return form.test(value) && value.length <= 253 ? { kind, value } : fault
  }

/** Hosts know no case; what stands before the @ of a mailbox may (RFC 5321 2.4). */
const normalForm = (kind: SubtreeKind, text: string): string => {
  const host = kind === 'email' ? text.lastIndexOf('@') + 1 : 0
  return text.slice(0, host) + text.slice(host).toLowerCase()
}

const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const domain = `${label}(?:\\.${label})*`
const mailbox = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@"
const forms: Readonly<Record<SubtreeKind, (text: string) => Subtree | string>> = {
  ip: parseRange,
  // RFC 5280 knows no leading dot here: some read it as "below only", others match nothing.
  dns: inForm('dns', new RegExp(`^(?:${domain})?$`), 'is not a domain, as in example.com (without a dot before it)'),
  uri: inForm('uri', new RegExp(`^\\.?${domain}$`), 'is not a host, nor a domain with a dot before it'),
  email: inForm(
    'email',
    new RegExp(`^(?:\\.?|${mailbox})${domain}$`),
    'is not a mail host, a domain with a dot before it, or a mailbox',
  ),
}
const tagsByKind: Readonly<Record<SubtreeKind, number>> = { email: 0x81, dns: 0x82, uri: 0x86, ip: 0x87 }
const kindsByTag = new Map(
  (['email', 'dns', 'uri'] as const).map((kind): [number, SubtreeKind] => [tagsByKind[kind], kind]),
)
