import { Problem } from '../errors.ts'
import { type DerReader, DerWriter, derProblem, encodeOid, oidKey, openDer, shownOid, tags } from './der.ts'
import { isAddressLiteral } from './names.ts'

/** Everything about one type of attribute: RFC 5280 appendix A and X.520, with their upper bounds in characters. */
interface AttributeRule {
  readonly oid: string
  /** How it is written in a string (RFC 4514 3, else the LDAP descriptor). */
  readonly short: string
  /** What we encode: country, serialNumber PrintableString; mail and domain components IA5String; the rest UTF8String. */
  readonly tag: number
  readonly min: number
  readonly max: number
  /** May it occur only once in a subject? */
  readonly once: boolean
}

const { utf8String, printableString, ia5String } = tags

export const attributes = {
  commonName: { oid: '2.5.4.3', short: 'CN', tag: utf8String, min: 1, max: 64, once: true },
  serialNumber: { oid: '2.5.4.5', short: 'serialNumber', tag: printableString, min: 1, max: 64, once: true },
  country: { oid: '2.5.4.6', short: 'C', tag: printableString, min: 2, max: 2, once: true },
  locality: { oid: '2.5.4.7', short: 'L', tag: utf8String, min: 1, max: 128, once: false },
  province: { oid: '2.5.4.8', short: 'ST', tag: utf8String, min: 1, max: 128, once: false },
  streetAddress: { oid: '2.5.4.9', short: 'STREET', tag: utf8String, min: 1, max: 128, once: false },
  organization: { oid: '2.5.4.10', short: 'O', tag: utf8String, min: 1, max: 64, once: false },
  organizationalUnit: { oid: '2.5.4.11', short: 'OU', tag: utf8String, min: 1, max: 64, once: false },
  postalCode: { oid: '2.5.4.17', short: 'postalCode', tag: utf8String, min: 1, max: 40, once: false },
  title: { oid: '2.5.4.12', short: 'title', tag: utf8String, min: 1, max: 64, once: false },
  givenName: { oid: '2.5.4.42', short: 'givenName', tag: utf8String, min: 1, max: 128, once: false },
  surname: { oid: '2.5.4.4', short: 'sn', tag: utf8String, min: 1, max: 128, once: false },
  emailAddress: { oid: '1.2.840.113549.1.9.1', short: 'emailAddress', tag: ia5String, min: 1, max: 255, once: false },
  domainComponent: { oid: '0.9.2342.19200300.100.1.25', short: 'DC', tag: ia5String, min: 1, max: 63, once: false },
  userId: { oid: '0.9.2342.19200300.100.1.1', short: 'UID', tag: utf8String, min: 1, max: 256, once: false },
} as const satisfies Readonly<Record<string, AttributeRule>>

export type AttributeType = keyof typeof attributes

export interface Attribute {
  readonly type: AttributeType
  readonly value: string
}

/** Attributes in the order in which they are encoded, one to an RDN. */
export type Subject = readonly Attribute[]

export const isAttributeType = (text: string): text is AttributeType => Object.hasOwn(attributes, text)

/** Reads a Name. Throws subject.syntax: unknown or multi-valued attributes, bounds, characters (RFC 5280 4.1.2.4–6). */
export const parseSubject = (der: Buffer): Subject => readSubject(openDer(der, 'subject.syntax'))

/** The same from a reader that stands before a Name that was walked; moves past it. */
export const readSubject = (reader: DerReader): Subject => {
  const rdns = reader.read(tags.sequence, 'Name').as('subject.syntax')
  const subject: Attribute[] = []
  while (!rdns.done) subject.push(readAttribute(rdns))
  assertCounts(subject, rdns.start)
  return subject
}

/** Values from JSON or YAML obey the same bounds as those from DER. Throws subject.syntax. */
export const assertSubjectSyntax = (subject: Subject): void => {
  for (const { type, value } of subject) {
    const fault = isAttributeType(type) ? faultOf(type, value) : 'is not a known attribute type'
    if (fault !== undefined) throw faulty(type, fault)
  }
  assertCounts(subject)
}

/** A Name. The subject was parsed or asserted. */
export const encodeSubject = (subject: Subject): Buffer => {
  const writer = new DerWriter(16 + 48 * subject.length)
  writeSubject(writer, subject)
  return writer.finish()
}

export const writeSubject = (writer: DerWriter, subject: Subject): void => {
  const mark = writer.size
  for (let i = subject.length - 1; i >= 0; i--) {
    const { type, value } = subject[i] as Attribute
    const rdn = writer.size
    writer.bytes(Buffer.from(value, 'utf8'))
    writer.header(attributes[type].tag, rdn)
    writer.bytes(encodedOids[type])
    writer.header(tags.sequence, rdn)
    writer.header(tags.set, rdn)
  }
  writer.header(tags.sequence, mark)
}

/** RFC 4514: last RDN first, special characters escaped. For people and logs, never for comparing. */
export const formatSubject = (subject: Subject): string =>
  subject
    .map(({ type, value }) => `${attributes[type].short}=${escapeValue(value)}`)
    .reverse()
    .join(',')

/**
 * The other way, of whatever RFC 4514 3 lets people write. Throws subject.syntax for what is none, and for what no certificate
 * has here: other attributes, several in one RDN, values as octets.
 */
export const parseSubjectText = (text: string): Subject => {
  const subject: Attribute[] = []
  const rdn = new RegExp(rdnForm)
  let isMore = text !== ''
  while (isMore) {
    const at = rdn.lastIndex
    const [, name = '', value = '', end] = rdn.exec(text) ?? []
    if (end === undefined)
      throw new Problem('subject.syntax', `it is not as RFC 4514 writes it from character ${at} on`, { offset: at })
    const type = typesByText.get(name.toLowerCase())
    if (type === undefined) throw faulty(name, 'is not a known attribute type')
    const plainValue = unescapeValue(value)
    if (plainValue.includes('\ufffd')) throw faulty(name, 'is not UTF-8')
    subject.unshift({ type, value: plainValue })
    isMore = end === ','
  }
  assertSubjectSyntax(subject)
  return subject
}

const readAttribute = (rdns: DerReader): Attribute => {
  const rdn = rdns.read(tags.set, 'RelativeDistinguishedName')
  const pair = rdn.read(tags.sequence, 'AttributeTypeAndValue')
  if (!rdn.done) throw rdn.problem('an RDN has more than one attribute; give each an RDN of its own')
  const at = pair.at
  const oid = pair.oid('AttributeType')
  const type = typesByOid.get(oid)
  if (type === undefined)
    throw derProblem('subject.syntax', `an attribute is of an unknown type, ${shownOid(oid)}; leave it out`, at)
  const from = pair.at
  const tag = pair.tag
  const value = decodeString(pair.readAny('AttributeValue'), tag)
  pair.finish('AttributeTypeAndValue')
  const fault =
    value === undefined ? 'is no well-formed UTF8String, PrintableString or IA5String' : faultOf(type, value)
  if (fault !== undefined) throw faulty(type, fault, from)
  return { type, value: value as string }
}

/** PrintableString, UTF8String and IA5String only (RFC 5280 4.1.2.4: the others are for names of before 2004). */
const decodeString = (value: DerReader, tag: number): string | undefined => {
  const { buffer, start, end } = value
  if (tag === printableString || tag === ia5String) {
    const text = buffer.toString('latin1', start, end)
    return (tag === printableString ? printable : ascii).test(text) ? text : undefined
  }
  if (tag !== utf8String) return undefined
  const text = buffer.toString('utf8', start, end)
  // A decoder that replaces what is not UTF-8 gives another number of octets or the replacement character.
  return text.includes('\ufffd') ? undefined : text
}

const faultOf = (type: AttributeType, value: string): string | undefined => {
  const { tag, min, max } = attributes[type]
  if (value.length === 0) return 'is empty'
  if (!plain.test(value)) {
    if (tag !== utf8String || !value.isWellFormed()) return 'has characters that its type does not allow'
    if (unwanted.test(value)) return 'has control characters'
    if (value.normalize('NFC') !== value) return 'is not in Unicode normalization form C'
  }
  if (value.startsWith(' ') || value.endsWith(' ')) return 'begins or ends with a space'
  const length = value.length > max ? [...value.slice(0, 4 * max)].length : value.length
  if (length < min || length > max || value.length > 4 * max)
    return min === max ? `is not ${max} characters long` : `is longer than ${max} characters`
  if (tag === printableString && !printable.test(value)) return 'has characters outside of PrintableString'
  if (type === 'country' && !/^[A-Za-z]{2}$/.test(value)) return 'is not a country code'
  return undefined
}

const assertCounts = (subject: Subject, offset?: number): void => {
  if (subject.length > maxAttributes)
    throw new Problem(
      'subject.syntax',
      `the subject has more than ${maxAttributes} attributes`,
      offset === undefined ? {} : { offset },
    )
  for (let i = 0; i < subject.length; i++) {
    const { type, value } = subject[i] as Attribute
    if (attributes[type].once && subject.findIndex((other) => other.type === type) !== i)
      throw faulty(type, 'occurs more than once', offset)
    if (type === 'commonName' && isAddressLiteral(value)) {
      throw new Problem('san.ip_as_dns', 'commonName is an IP address', {
        violations: [
          {
            check: 'san.ip_as_dns',
            field: '/subject/commonName',
            value,
            reason: 'is an IP address; put it into an iPAddress name',
          },
        ],
        ...(offset === undefined ? {} : { offset }),
      })
    }
  }
}

const faulty = (type: string, fault: string, offset?: number): Problem =>
  new Problem('subject.syntax', `${type} ${fault}`, {
    violations: [{ check: 'subject.syntax', field: `/subject/${type}`, value: '', reason: fault }],
    ...(offset === undefined ? {} : { offset }),
  })

/** RFC 4514 2.4. Controls cannot occur: the subject was judged. */
const escapeValue = (value: string): string => value.replace(/["+,;<>\\]/g, '\\$&').replace(/^#/, '\\#')

/** Pairs of digits are octets of UTF-8. */
const unescapeValue = (text: string): string =>
  Buffer.concat(
    [...text.matchAll(/\\([0-9A-Fa-f]{2})|\\(.)|([^\\]+)/gs)].map(([, octet, char, plainText]) =>
      octet === undefined ? Buffer.from(char ?? plainText ?? '') : Buffer.from(octet, 'hex'),
    ),
  ).toString()

/** One attribute, and what stands behind it. */
const rdnForm =
  /([A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)=((?![ #])(?:\\(?:[0-9A-Fa-f]{2}|[ "#+,;<=>\\])|[^"+,;<>\\\0])*)(,|$)/y
/** Attributes of one subject. */
export const maxAttributes = 32
const plain = /^[\x20-\x7e]*$/
const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: what is looked for is the control characters.
const ascii = /^[\x00-\x7f]*$/
/** Controls, separators of lines, surrogates, private use and unassigned, and what turns the direction of text. */
const unwanted = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}\p{Bidi_Control}\ufeff]/u
const encodedOids = Object.fromEntries(
  Object.entries(attributes).map(([type, { oid }]) => [type, encodeOid(oid)]),
) as Readonly<Record<AttributeType, Buffer>>
const typesByOid = new Map(Object.entries(attributes).map(([type, { oid }]) => [oidKey(oid), type as AttributeType]))
/** By whatever they are called, in lower case (RFC 4514 3). */
const typesByText = new Map(
  Object.entries(attributes).flatMap(([type, { short, oid }]) =>
    [type, short, oid].map((name) => [name.toLowerCase(), type as AttributeType] as const),
  ),
)
