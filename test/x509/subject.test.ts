import t from 'tap'

import {
  type Attribute,
  type AttributeType,
  assertSubjectSyntax,
  attributes,
  encodeSubject,
  formatSubject,
  parseSubject,
  parseSubjectText,
  type Subject,
} from '../../src/x509/subject.ts'
import { ia5, nil, oid, printable, rdn, seq, set, tlv, utf8 } from './build.ts'

const cn = (value: string): Subject => [{ type: 'commonName', value }]

t.test('every type of attribute goes through an encoding in its own string type', async (t) => {
  const subject: Subject = [
    { type: 'country', value: 'DE' },
    { type: 'province', value: 'Baden-Württemberg' },
    { type: 'locality', value: 'Köln' },
    { type: 'streetAddress', value: 'Straße 1' },
    { type: 'postalCode', value: '50667' },
    { type: 'organization', value: 'Example' },
    { type: 'organizationalUnit', value: 'A' },
    { type: 'organizationalUnit', value: 'B' },
    { type: 'title', value: 'Dr.' },
    { type: 'givenName', value: 'Ann' },
    { type: 'surname', value: 'Lee' },
    { type: 'commonName', value: 'system:node:a' },
    { type: 'serialNumber', value: '12345' },
    { type: 'emailAddress', value: 'ann@example.com' },
    { type: 'domainComponent', value: 'example' },
    { type: 'userId', value: 'ann' },
  ]
  t.same(parseSubject(encodeSubject(subject)), subject)
  t.same(new Set(subject.map(({ type }) => type)), new Set(Object.keys(attributes)))
  t.doesNotThrow(() => assertSubjectSyntax(subject))
  t.ok(encodeSubject([{ type: 'country', value: 'DE' }]).equals(seq(rdn('2.5.4.6', printable('DE')))))
  t.ok(
    encodeSubject([{ type: 'domainComponent', value: 'x' }]).equals(seq(rdn('0.9.2342.19200300.100.1.25', ia5('x')))),
  )
  t.ok(encodeSubject(cn('é')).equals(seq(rdn('2.5.4.3', utf8('é')))))
})

t.test('an empty subject is a subject', async (t) => {
  t.same(parseSubject(seq()), [])
  t.ok(encodeSubject([]).equals(seq()))
  t.equal(formatSubject([]), '')
})

t.test('strings of any accepted type are read', async (t) => {
  for (const value of [utf8('host'), printable('host'), ia5('host')])
    t.same(parseSubject(seq(rdn('2.5.4.3', value))), cn('host'))
})

const faulty: readonly (readonly [string, Subject])[] = [
  ['an empty value', cn('')],
  ['a CN of 65', cn('a'.repeat(65))],
  ['a CN of a million', cn('a'.repeat(1_000_000))],
  ['NUL', cn('a\0b')],
  ['a newline', cn('a\nb')],
  ['DEL', cn('a\u007f')],
  ['a line separator', cn('a\u2028b')],
  ['a lone surrogate', cn('a\ud800')],
  ['a noncharacter', cn('a\uffff')],
  ['a byte order mark', cn('\ufeffa')],
  ['an override of direction', cn('a\u202eb')],
  ['what is not in NFC', cn('e\u0301')],
  ['a leading space', cn(' a')],
  ['a trailing space', cn('a ')],
  ['two CNs', [...cn('a'), ...cn('b')]],
  [
    'two countries',
    [
      { type: 'country', value: 'DE' },
      { type: 'country', value: 'FR' },
    ],
  ],
  ['a country of three letters', [{ type: 'country', value: 'DEU' }]],
  ['an underscore in a PrintableString', [{ type: 'serialNumber', value: 'a_b' }]],
  ['8-bit in an IA5String', [{ type: 'emailAddress', value: 'é@example.com' }]],
  ['a type that nobody knows', [{ type: 'dnQualifier', value: 'a' } as unknown as Attribute]],
  ['a type of the prototype', [{ type: 'constructor', value: 'a' } as unknown as Attribute]],
  ['33 attributes', Array.from({ length: 33 }, () => ({ type: 'organizationalUnit', value: 'a' }) as const)],
]

for (const [name, subject] of faulty) {
  t.test(`${name} is refused in JSON as in DER`, async (t) => {
    t.throws(() => assertSubjectSyntax(subject), { code: 'subject.syntax' })
  })
}

t.test('characters are counted, not units', async (t) => {
  t.doesNotThrow(() => assertSubjectSyntax(cn('\u{1f600}'.repeat(64))))
  t.throws(() => assertSubjectSyntax(cn('\u{1f600}'.repeat(65))), { code: 'subject.syntax' })
})

/** RFC 5280 A.1, X.520: the most characters, and whether there may be several. */
const bounds: Readonly<Record<AttributeType, readonly [max: number, several: boolean]>> = {
  commonName: [64, false],
  serialNumber: [64, false],
  country: [2, false],
  locality: [128, true],
  province: [128, true],
  streetAddress: [128, true],
  organization: [64, true],
  organizationalUnit: [64, true],
  postalCode: [40, true],
  title: [64, true],
  givenName: [128, true],
  surname: [128, true],
  emailAddress: [255, true],
  domainComponent: [63, true],
  userId: [256, true],
}

for (const [type, [max, several]] of Object.entries(bounds) as [AttributeType, readonly [number, boolean]][])
  t.test(`${type} has at most ${max} characters, and there may be ${several ? 'several' : 'one'}`, async (t) => {
    const longest = { type, value: 'A'.repeat(max) }
    for (const judge of [assertSubjectSyntax, (subject: Subject) => parseSubject(encodeSubject(subject))]) {
      t.doesNotThrow(() => judge([longest]))
      t.throws(() => judge([{ type, value: 'A'.repeat(max + 1) }]), { code: 'subject.syntax' })
      t.throws(() => judge([{ type, value: '' }]), { code: 'subject.syntax' })
      if (several) t.doesNotThrow(() => judge([longest, longest]))
      else t.throws(() => judge([longest, longest]), { code: 'subject.syntax' })
    }
  })

t.test('a country is two letters, and a number may look like an address', async (t) => {
  for (const value of ['D', 'D1', '12', 'D-']) t.throws(() => assertSubjectSyntax([{ type: 'country', value }]))
  t.doesNotThrow(() => assertSubjectSyntax([{ type: 'organizationalUnit', value: '10.0.0.1' }]))
  t.doesNotThrow(() => assertSubjectSyntax(Array.from({ length: 32 }, () => ({ type: 'title', value: 'a' }) as const)))
})

t.test('a string of another type than it may be is refused', async (t) => {
  for (const value of [
    tlv(0x14, Buffer.from('host')),
    tlv(0x1c, Buffer.from('\0\0\0h')),
    tlv(0x1e, Buffer.from('\0h')),
    tlv(0x13, Buffer.from('a_b')),
    tlv(0x16, Buffer.from('a\u00e9', 'latin1')),
    tlv(0x0c, Buffer.from([0x61, 0xff])),
  ])
    t.throws(() => parseSubject(seq(rdn('2.5.4.3', value))), { code: 'subject.syntax' }, value.toString('hex'))
  const pair = (...more: readonly Buffer[]) => seq(oid('2.5.4.3'), utf8('host'), ...more)
  t.same(parseSubject(seq(set(pair()))), cn('host'))
  t.throws(() => parseSubject(seq(set(pair(nil)))), { code: 'subject.syntax' })
  t.throws(() => parseSubject(seq(set(pair(), pair()))), { code: 'subject.syntax' })
  t.throws(() => parseSubject(seq(rdn('2.5.4.46', utf8('host')))), { code: 'subject.syntax' })
})

t.test('an address as commonName is refused; a number is a name', async (t) => {
  for (const value of ['10.0.0.1', '::1', '0x7f.1', '2130706433', '[::1]'])
    t.throws(() => assertSubjectSyntax(cn(value)), { code: 'san.ip_as_dns' }, value)
  for (const value of ['12345', 'system:node:10.0.0.1', '1.2.3.4.5', 'a:b'])
    t.doesNotThrow(() => assertSubjectSyntax(cn(value)), value)
})

t.test('what is no Name is refused', async (t) => {
  for (const der of [Buffer.alloc(0), nil, seq(nil), seq(set()), seq(set(seq())), Buffer.concat([seq(), nil])]) {
    t.throws(() => parseSubject(der), { code: 'subject.syntax' })
  }
})

t.test('text for people is RFC 4514, last RDN first, with its escapes', async (t) => {
  const subject: Subject = [
    { type: 'country', value: 'DE' },
    { type: 'organization', value: 'a,b+c"d\\e<f>g;h' },
    { type: 'commonName', value: '#1=x' },
  ]
  t.equal(formatSubject(subject), 'CN=\\#1=x,O=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h,C=DE')
})

t.test('what is written as RFC 4514 lets people write is the subject that it names', async (t) => {
  const cases: readonly (readonly [written: string, kept: string])[] = [
    ['', ''],
    ['CN=web,O=Example', 'CN=web,O=Example'],
    ['cn=web,o=Example', 'CN=web,O=Example'],
    ['2.5.4.3=web,organization=Example', 'CN=web,O=Example'],
    ['OU=b,OU=a,DC=example,DC=com', 'OU=b,OU=a,DC=example,DC=com'],
    ['CN=\\#1\\=x,O=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h,C=DE', 'CN=\\#1=x,O=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h,C=DE'],
    ['CN=a\\2Cb', 'CN=a\\,b'],
    ['CN=Lu\\C4\\8Di\\C4\\87', 'CN=Lu\u010di\u0107'],
    ['CN=a b', 'CN=a b'],
  ]
  for (const [written, kept] of cases) {
    t.equal(formatSubject(parseSubjectText(written)), kept, written)
    t.equal(formatSubject(parseSubjectText(kept)), kept, kept)
  }
  for (const [bad, reason] of [
    ['web', /from character 0 on/],
    ['CN', /from character 0 on/],
    ['CN=web,', /from character 7 on/],
    ['CN=web, O=Example', /from character 7 on/],
    ['/CN=web/O=Example', /from character 0 on/],
    ['CN=web+O=Example', /from character 0 on/],
    ['CN=#0c03776562', /from character 0 on/],
    ['CN="web"', /from character 0 on/],
    ['CN=web\\', /from character 0 on/],
    ['CN=', /is empty/],
    ['CN=\\C4', /is not UTF-8/],
    ['CN=\\ web', /begins or ends with a space/],
    ['CN=a,CN=b', /more than once/],
    ['XY=web', /XY is not a known attribute type/],
    ['constructor=web', /is not a known/],
    ['C=Germany', /is not 2 characters long/],
  ] as const)
    t.throws(() => parseSubjectText(bad), { code: 'subject.syntax', message: reason }, bad)
  const long = `CN=${'\\'.repeat(4_000)}`
  t.throws(() => parseSubjectText(long), { code: 'subject.syntax' })
})

t.test('an unknown type is named, but not at any length', (t) => {
  const typed = (type: Buffer): Buffer => seq(set(seq(tlv(0x06, type), utf8('a'))))
  const detailOf = (der: Buffer): string => {
    try {
      return String(parseSubject(der))
    } catch (error) {
      return (error as Error).message
    }
  }
  t.match(detailOf(typed(Buffer.of(0x2a, 3, 4))), /of an unknown type, 1\.2\.3\.4; leave it out/)
  const long = detailOf(typed(Buffer.alloc(8_000, 0x7f)))
  t.match(long, /of an unknown type, 2\.47\.127\..*…; leave it out/)
  t.ok(long.length < 256, `${long.length} characters`)
  t.end()
})
