import t from 'tap'

import { nameRange, searchKey } from '../../src/db/names.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { openDer } from '../../src/x509/der.ts'
import { isMixedScript } from '../../src/x509/idna.ts'
import {
  addressOctets,
  assertNames,
  assertStillNames,
  encodeGeneralNames,
  hasUnderscore,
  isAddressLiteral,
  isWildcard,
  type Name,
  type NameKind,
  parseGeneralNames,
  parseName,
  parseSearched,
  readIssuedNames,
  soughtFault,
  wildcardOver,
} from '../../src/x509/names.ts'
import { keptNames, readNames } from '../../src/x509/names-kept.ts'
import { openClientCa } from '../helpers/clients.ts'
import { slowTest } from '../helpers/slow.ts'
import { dns, ip, mail, seq } from './build.ts'

const normal: readonly (readonly [NameKind, string, string])[] = [
  ['dns', 'HOST.Example.COM', 'host.example.com'],
  ['dns', 'localhost', 'localhost'],
  ['dns', '*.Example.com', '*.example.com'],
  ['dns', 'a_b.example.com', 'a_b.example.com'],
  ['dns', '3com.example.com', '3com.example.com'],
  ['dns', '1.2.3.4.example.com', '1.2.3.4.example.com'],
  ['dns', 'XN--BCHER-KVA.example', 'xn--bcher-kva.example'],
  ['ip', '10.0.0.1', '10.0.0.1'],
  ['ip', '::', '::'],
  ['ip', '::1', '::1'],
  ['ip', '2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['ip', '2001:db8::0:1', '2001:db8::1'],
  ['ip', '::1:2:3', '::1:2:3'],
  ['ip', '1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
  ['ip', '1::3:4:5:6:7:8', '1:0:3:4:5:6:7:8'],
  ['ip', '2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['ip', '2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
  ['ip', '2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['ip', 'fe80::', 'fe80::'],
  ['ip', '64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ['uri', 'spiffe://example.org/ns/a/sa/b', 'spiffe://example.org/ns/a/sa/b'],
  ['uri', 'https://example.com', 'https://example.com'],
  ['uri', 'https://example.com/a/b?c=d%20e', 'https://example.com/a/b?c=d%20e'],
  ['uri', 'urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6', 'urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6'],
  ['email', 'Ann.Lee+x@EXAMPLE.com', 'Ann.Lee+x@example.com'],
]

for (const [kind, written, value] of normal) {
  t.test(`${kind} ${written} has the normal form ${value}, and keeps it through an encoding`, async (t) => {
    const name = parseName(kind, written)
    t.same(name, { kind, value })
    t.same(parseGeneralNames(encodeGeneralNames([name])), [name])
    t.same(parseName(kind, value), name)
  })
}

const addresses = [
  '1.2.3',
  '1.2.3.256',
  '01.2.3.4',
  '1.2.3.4 ',
  '1.2.3.4/8',
  ':::',
  '1::2::3',
  '::12345',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7::8:9',
  'fe80::1%eth0',
  '[::1]',
  '::1.2.3',
  '::1.2.3.4.5',
  '::1.2.3.4:5',
  '1.2.3.4::',
  '1.2.3.4::1',
  '1:2:3:4::5:6:7:8',
  `${'0:'.repeat(16)}0`,
  '::ffff:10.0.0.1',
  '::10.0.0.1',
  '::ffff:a00:1',
  '::2',
  ':1',
  '1:',
  'g::',
  '',
  '0x7f.0.0.1',
  '1'.repeat(1000),
]
for (const text of addresses) {
  t.test(`ip ${JSON.stringify(text.slice(0, 40))} is refused`, async (t) => {
    t.throws(() => parseName('ip', text), { code: 'san.syntax' })
  })
}

t.test('the octets of names from JSON are bound as those of an encoding are', async (t) => {
  const label = 'a'.repeat(63)
  const namesOf = (kind: NameKind, count: number, text: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => parseName(kind, text(i)))
  const long = namesOf('dns', 100, (i) => `n${i}.${label}.${label}.${label}.example`)
  t.throws(() => assertNames(long), { code: 'san.count' })
  t.throws(() => parseGeneralNames(encodeGeneralNames(long)), { code: 'san.count' })
  const mixed = [
    ...long.slice(0, 74),
    ...namesOf('ip', 5, (i) => `10.0.0.${i}`),
    ...namesOf('ip', 5, (i) => `fd00::${i}`),
    // At which lengths take more octets to tell.
    ...[127, 128, 255, 256].map((octets) => parseName('uri', 'urn:x:'.padEnd(octets, 'y'))),
  ]
  for (let octets = 190; octets < 260; octets++) {
    const names = [...mixed, ...namesOf('uri', 1, () => `https://example.com/${'p'.repeat(octets)}`)]
    const fits = encodeGeneralNames(names).length <= 16 * 1024
    if (fits) t.doesNotThrow(() => assertNames(names), String(octets))
    else t.throws(() => assertNames(names), { code: 'san.count' }, String(octets))
  }
})

t.test('a mail address is at one host, whose name has no underscore', (t) => {
  for (const text of ['a@*.example.com', 'a@a_b.example.com', '@example.com'])
    t.throws(() => parseName('email', text), { code: 'san.syntax' }, text)
  t.end()
})

t.test('a name is as long as it may be, and no longer', async (t) => {
  const label = 'a'.repeat(63)
  const hostOf = (length: number): string => `${label}.${label}.${label}.`.padEnd(length, 'b')
  for (const [kind, longest, tooLong] of [
    ['dns', hostOf(253), hostOf(254)],
    ['dns', `*.${hostOf(251)}`, `*.${hostOf(252)}`],
    ['dns', `${label}.${label}.example`, `${label}.${label}a.example`],
    ['email', `${'m'.repeat(64)}@example.com`, `${'m'.repeat(65)}@example.com`],
    ['email', `m@${hostOf(252)}`, `m@${hostOf(253)}`],
    ['uri', `urn:x:${'y'.repeat(2042)}`, `urn:x:${'y'.repeat(2043)}`],
  ] as const) {
    t.doesNotThrow(() => parseName(kind, longest), longest)
    t.throws(() => parseName(kind, tooLong), { code: 'san.syntax' }, tooLong)
  }
})

t.test('of names together there are a hundred, and no URI beside a SPIFFE ID', async (t) => {
  const numbered = (count: number) => Array.from({ length: count }, (_, i) => parseName('dns', `n${i}.example.com`))
  const [host] = numbered(1) as [Name]
  const uris = ['spiffe://example.com/a', 'urn:x:y', 'https://example.com/'].map((one) => parseName('uri', one))
  const [spiffe, urn, https] = uris as [Name, Name, Name]
  for (const good of [numbered(100), [host, spiffe, parseName('ip', '10.0.0.1')], [urn, https, host]])
    t.doesNotThrow(() => assertNames(good))
  t.throws(() => assertNames([host, urn, host]), { code: 'san.duplicate' })
  t.throws(() => assertNames(numbered(101)), { code: 'san.count', detail: 'there are more than 100 names' })
  for (const bad of [
    [spiffe, urn],
    [https, host, spiffe],
  ])
    t.throws(() => assertNames(bad), { code: 'san.syntax', detail: 'a URI is a SPIFFE ID and not the only URI' })
})

t.test('a kind that is none is refused', async (t) => {
  t.throws(() => parseName('upn' as NameKind, 'a'), { code: 'san.type' })
  t.throws(() => parseName('constructor' as NameKind, 'a'), { code: 'san.type' })
})

t.test('numbers that inet_aton reads are addresses, not names', async (t) => {
  const zeros = '0'.repeat(70)
  for (const text of [
    '127.0.0.1',
    '127.1',
    '127.0.1',
    '2130706433',
    '0x7F000001',
    '0177.0.0.1',
    '017700000001',
    '0x7f.1',
    '1.2.3.4.',
    '0.0.0.0',
    '::1',
    '[::1]',
    '[fe80::1%25eth0]',
    '00',
    '256.1.1.1',
    '16777216',
    '4294967295',
    `${zeros}177.0.0.1`,
    `0x${zeros}7f000001`,
  ]) {
    t.equal(isAddressLiteral(text), true, text)
    t.throws(() => parseName('dns', text), { code: 'san.ip_as_dns' }, text)
  }
  for (const domain of ['127.0.0.1', '1.2.3.4.', '0177.1', `${zeros}177.0.0.1`])
    t.throws(
      () => parseName('uri', `spiffe://${domain}/x`),
      { code: 'san.syntax', detail: /an IP address as its trust domain$/ },
      domain,
    )
  for (const text of [
    ...['0', '1', '1234', '1.2.3.4.5', 'a.1', 'a.0x1', 'a.0x', '8388608', '16777215', '4294967296'],
    ...['[::1]1', '1[::1]', '[1.2.3.4]'],
  ]) {
    t.equal(isAddressLiteral(text), false, text)
    t.throws(() => parseName('dns', text), { code: 'san.syntax' }, text)
  }
  for (const text of ['a.x1', 'a.1x', 'a.0xg', 'a.b0x1']) t.equal(parseName('dns', text).value, text)
})

t.test('wildcards and underscores are told, not judged', async (t) => {
  t.equal(isWildcard(parseName('dns', '*.example.com')), true)
  t.equal(isWildcard(parseName('dns', 'host.example.com')), false)
  t.equal(isWildcard({ kind: 'uri', value: '*.example.com' }), false)
  t.equal(hasUnderscore(parseName('dns', '_sip.example.com')), true)
  t.equal(hasUnderscore(parseName('dns', 'sip.example.com')), false)
})

t.test('what a problem shows of a name is visible ASCII and bounded', async (t) => {
  try {
    parseName('dns', `\u0000\u001b[31m${'x'.repeat(10_000)}`)
    t.fail('it was accepted')
  } catch (error) {
    const [violation] = (error as { options: { violations: { value: string }[] } }).options.violations
    t.match(violation?.value, /^[\x20-\x7e]{1,256}$/)
  }
})

t.test('the octets of an address are what the encoding holds', async (t) => {
  t.equal(addressOctets('10.0.0.1').toString('hex'), '0a000001')
  t.equal(addressOctets('2001:db8::1').toString('hex'), '20010db8000000000000000000000001')
  t.throws(() => addressOctets('host'), RangeError)
  t.ok(
    encodeGeneralNames([parseName('dns', 'a.b'), parseName('ip', '10.0.0.1')]).equals(seq(dns('a.b'), ip('0a000001'))),
  )
})

/** Labels that registries of many scripts use, with their U-labels for the reader. */
const aLabels = [
  'xn--bcher-kva', // bücher
  'xn--strae-oqa', // straße
  'xn--fa-hia', // faß
  'xn--p1ai', // рф
  'xn--fiqs8s', // 中国
  'xn--fiqz9s', // 中國
  'xn--j6w193g', // 香港
  'xn--zckzah', // テスト
  'xn--3e0b707e', // 한국
  'xn--mgberp4a5d4ar', // السعودية
  'xn--wgbh1c', // مصر
  'xn--4dbrk0ce', // ישראל
  'xn--qxam', // ελ
  'xn--o3cw4h', // ไทย
  'xn--h2brj9c', // भारत
  'xn--90ais', // бел
  'xn--y9a3aq', // հայ
  'xn--r-eka', // ır, with a dotless i
  'xn--ngbc5azd', // شبكة
  'xn--ogbpf8fl', // سورية
  'xn--2-zhcd', // אב2
  'xn--9d6hc', // Adlam
  'xn--88d2gre', // ᎣᏏᏲ
  'xn--b-cher-3ya', // bü-cher
  'xn--bcher--x-65a', // bücher--x: two hyphens where they say nothing
  // RFC 5892 2.6 and appendix A: exceptions, and what goes by what is beside it.
  'xn--ll-0ea', // l·l, of Catalan
  'xn--wva4j', // ͵α, a numeral sign before Greek
  'xn--4db4e', // geresh behind Hebrew
  'xn--4dbc8h', // gershayim behind Hebrew
  'xn--cckzj', // ア・, a middle dot with Katakana
  'xn--vek548p', // 漢・, and with Han
  'xn--mgb8id', // digits of one kind
  'xn--mgb61bd', // and of the other
  'xn--a-x6a', // aʻ, a letter that modifies
  'xn--3xa', // ς, which folding would change
  'xn--w6j131q', // 〇漢, a number that is a letter
  'xn--mgb24b', // a sign that is a word
  'xn--nbd3i', // ག་, a mark that is part of words
  'xn--e-oeb', // a mark that does not combine into one
]

t.test('A-labels of many scripts are accepted', async (t) => {
  for (const label of aLabels) t.equal(parseName('dns', `${label}.example`).value, `${label}.example`)
})

t.test('labels that only look like A-labels are refused', async (t) => {
  const labels = [
    'xn--',
    'xn---',
    'xn--a',
    'xn--abc-',
    'xn--abc',
    'xn--0',
    'xn--en32g', // U+110000, which there is not
    'xn--a-j023p', // a, and the same
    'xn--ib9b', // half of a pair
    'xn--bcher-7na', // Bücher
    'xn--cafe-yvc', // not in NFC
    'xn--a-ecp', // a soft hyphen or the like
    'xn--99zzz999999999',
    'xn--iñ',
    'xn--bcher-kva8445foa',
    'xn---foo-xyz',
    'xn--bcher--3ya', // bücher-
    'xn---bcher-4ya', // -bücher
    'xn--b--cher-n2a', // bü--cher: as if it said what it is
    // RFC 5892 2.2: not in lower case only, but folded.
    'xn--23f', // U+1C80, which folds to the Cyrillic letter that it looks like
    'xn--kz9a', // U+AB70, Cherokee
    'xn--0qg', // U+1F80
    'xn--a-tfb', // a, U+0345
    // RFC 5892 2.4: blocks that are left out as a whole.
    'xn--a-zrn', // a, U+20D0
    // RFC 5892 2.6 and appendix A, and what is of no class that belongs in a label.
    'xn--al-0ea', // a·l, no l before the dot
    'xn--la-0ea', // l·a, no l behind it
    'xn--a-jib', // ͵a, a Greek sign before Latin
    'xn--wva3j', // α͵, before nothing
    'xn--a-0jc', // geresh behind Latin
    'xn--4db3e', // behind nothing
    'xn--ab-3n4a', // a・b, a middle dot among Latin
    'xn--mgb8i1r', // digits of both kinds
    'xn--11b2er09f', // a joiner
    'xn--11b2ezcs70k', // one that keeps apart
    'xn--ngba5e', // U+0640
    'xn--lsb0h', // U+07FA
    'xn--37j180q', // 漢〱, U+3031
    'xn--e8jy70q', // 漢〻, U+303B
    'xn--07j780q', // 漢〮, U+302E
    'xn--ab-x49h', // U+A960, of old Hangul
    'xn--a-663g', // U+D7B0, the same
    'xn--a-egb', // U+034F, ignorable
    'xn--a-n79h', // U+FE00, the same
    'xn--a-j1n', // aⅷ, a letter that is a number
    'xn--a-5ca', // a², a number that is no digit
    'xn--mgb7i', // a digit first, from the right
    'xn--a-wbb', // a mark first
    'xn--zj7c', // half of a width
    'xn--x-sy8h', // two letters in one
    // RFC 5893 2: what goes one way with what goes the other, in scripts of all kinds.
    'xn--y9a5t', // Hebrew, Armenian
    'xn--5db45n', // Hebrew, Devanagari
    'xn--a-wfdd', // Samaritan, Latin
    'xn--a-9h8r', // Adlam, Latin
    'xn--ngb67n', // Arabic, a Devanagari digit
    'xn--1-zhc05b', // Hebrew, digits of two kinds
    'xn----tjc45m', // Hebrew, a hyphen that has a mark
    `xn--${'a'.repeat(59)}`,
  ]
  for (const label of labels) t.throws(() => parseName('dns', `${label}.example`), { code: 'san.syntax' }, label)
})

/** Each was an A-label once: to rules that were mended, or to another Unicode. */
t.test('what was issued is read, shown and searched for whatever an A-label is today', async (t) => {
  const names = [
    { kind: 'dns', value: 'xn--kz9a.example' },
    { kind: 'email', value: 'a@xn--23f.example' },
    { kind: 'uri', value: 'https://xn--y9a5t.example/' },
  ] as const
  for (const { kind, value } of names) {
    t.throws(() => parseName(kind, value), { code: 'san.syntax' }, value)
    t.equal(soughtFault(value), undefined)
    t.same(parseSearched(value), { kind, value })
    t.same(parseSearched(`${kind}:${value}`), { kind, value })
  }
  t.equal(soughtFault('*.xn--kz9a.example'), undefined)
  t.same(readNames(keptNames(names)), names)
  t.throws(() => parseGeneralNames(encodeGeneralNames(names)), { code: 'san.syntax' })
  const { der } = openClientCa().certify({ names: [dns('xn--kz9a.example'), mail('a@xn--23f.example')] })
  t.same(parseCertificate(der).facts.names, names.slice(0, 2))
  t.throws(() => assertStillNames(parseCertificate(der).facts.names), { code: 'san.syntax' })
  for (const bad of ['xn--.example', 'xn--a.example', 'xn--99999999.example', 'xn--bcher-kva8445foa.example'])
    t.match(soughtFault(bad), /is no name/, bad)
})

t.test('scripts that do not belong together are told', async (t) => {
  t.equal(isMixedScript('paypal'), false)
  t.equal(isMixedScript('xn--bcher-kva'), false)
  t.equal(isMixedScript('xn--zckzah'), false)
  t.equal(isMixedScript('p\u0430ypal'), true) // Cyrillic а
  t.equal(isMixedScript('xn--pypal-4ve'), true)
  t.equal(isMixedScript('xn--paypa-be0s'), true) // Lisu ꓡ
  t.equal(isMixedScript('xn--bc-uu1a'), true) // Coptic ⲁ
  t.equal(isMixedScript('xn--9d6hc'), false) // Adlam alone
  t.equal(isMixedScript('xn--ec8c'), false) // Gothic alone, which nobody writes
  t.equal(isMixedScript('xn--a-je2i'), true) // Gothic, Latin
  t.equal(isMixedScript('xn--q7c056b'), true) // Lao, Khmer
  t.equal(isMixedScript('xn--rlc69b'), true) // Tamil, Kannada
  t.equal(isMixedScript('xn--rlcus7b3d'), false) // Tamil alone
  t.equal(isMixedScript('xn--eckwd4c7cu47r2wf'), false) // Japanese, in three scripts
  t.equal(isMixedScript('xn--abc-lt8lk11n'), false) // Korean, with Latin
})

t.test(
  'a search is about an exact name, or all DNS names below one; anything else would find nothing for ever',
  async (t) => {
    for (const [, written, kept] of normal) {
      if (written.startsWith('*.')) continue
      t.equal(soughtFault(written), undefined, written)
      t.equal(soughtFault(kept), undefined, kept)
    }
    for (const good of [
      '*.example.com',
      '*.com',
      '*.EXAMPLE.com',
      'spiffe://td/x',
      'https://a.example/x',
      'Bob@Example.com',
    ])
      t.equal(soughtFault(good), undefined, good)
    for (const good of ['dns:*.example.com', 'DNS:web.example.com', 'ip:::1', 'uri:dns:a', 'email:Bob@Example.com'])
      t.equal(soughtFault(good), undefined, good)
    for (const [bad, reason] of [
      ['ip:web.example.com', /a certificate has: an IP address is not an IPv4 or IPv6 address$/],
      ['dns:127.0.0.1', /a DNS name is an IP address$/],
      ['dns:*.com', /fewer than two labels$/],
      ['email:web.example.com', /is not a plain address/],
      ['uri:web.example.com', /does not begin with a scheme/],
      ['dns:', /is empty$/],
    ] as const)
      t.match(soughtFault(bad), reason, bad)
    for (const bad of ['*', '*.', '**.example.com', '*ci.example.com', 'ci*.example.com', 'ci.*.com', 'a.*'])
      t.match(soughtFault(bad), /before a DNS name/, bad)
    for (const [bad, reason] of [
      ['10.0.0.0/8', /an IP address is not/],
      ['10.0.0.256', /an IP address is not/],
      ['1.2.3', /an IP address is not/],
      ['10.0.0.1:443', /an IP address is not/],
      ['2001:db8::/32', /an IP address is not/],
      ['::ffff:10.0.0.1', /an IP address is an IPv4 address inside an IPv6 address/],
      ['bücher.example.com', /a DNS name has characters beyond ASCII; .* in its xn-- form/],
      ['*.bücher.example.com', /a DNS name has characters beyond ASCII; .* in its xn-- form/],
      ['web.example.com:443', /a DNS name is not labels/],
      ['web.example.com:443/path', /a DNS name is not labels/],
      ['*.example.com:443', /a DNS name is not labels/],
      ['*.a@b', /a DNS name is not labels/],
      ['*.a:b', /a DNS name is not labels/],
      ['*.*.example.com', /a DNS name is not labels/],
      ['CN=a/b', /a DNS name is not labels/],
      ['*.10', /a DNS name ends in a number/],
      ['web.example.1', /a DNS name ends in a number/],
      ['xn--a.example.com', /not a valid A-label/],
      [`*.${`${'x'.repeat(62)}.`.repeat(4)}x`, /longer than 253/],
      ['web@', /not a plain address/],
      ['a b@example.com', /not a plain address/],
      ['https://*.x', /a host that has a wildcard above fewer than two labels/],
      ['HTTPS://a.example', /a scheme in lower case/],
      ['spiffe://a b', /is not spiffe:/],
      ['spiffe://td/*', /is not spiffe:/],
    ] as const)
      t.match(soughtFault(bad), reason, bad)
    for (const bad of ['example.com.', '.example.com', 'a..b', 'a b', 'é.example', '', '\0', 'x'.repeat(300)])
      t.type(soughtFault(bad), 'string', JSON.stringify(bad))
  },
)

t.test(
  'a trust domain has no empty label: Go reads no such certificate; one that was issued is read and found',
  async (t) => {
    for (const value of ['spiffe://a..b/c', 'spiffe://.a/c', 'spiffe://a./c', 'spiffe://./c']) {
      const name = { kind: 'uri', value } as const
      const octets = encodeGeneralNames([name])
      for (const read of [() => parseName('uri', value), () => parseGeneralNames(octets)])
        t.throws(read, { code: 'san.syntax', detail: /an empty label in its trust domain$/ }, value)
      t.same(readIssuedNames(openDer(octets, 'ext.syntax')), [name])
      t.equal(soughtFault(value), undefined)
    }
    for (const good of ['spiffe://a.b/.c', 'spiffe://a/b.', 'spiffe://a/b..c'])
      t.same(parseName('uri', good), { kind: 'uri', value: good })
  },
)

slowTest('whatever may go into a certificate can be searched for, and is found', async (t) => {
  // As it is, unless it looks like another: with its kind before it always.
  const looksLikeAnother = /^(\*\.|(dns|ip|uri|email):|[a-z0-9.-]+\.[a-z0-9-]+:[0-9]+([/?]|$)|[a-f0-9]+:[a-f0-9:]+$)/i
  const pieces = [
    'a',
    'web',
    'x-y',
    '_',
    '1',
    '10',
    '256',
    'ff',
    'xn--bcher-kva',
    '*',
    '.',
    '.',
    ':',
    ':',
    '/',
    '//',
    '@',
  ]
  pieces.push(
    '::',
    '%20',
    '?q',
    '=',
    '+',
    '-',
    'A',
    'example.com',
    'fe80',
    'urn:',
    'https://',
    'spiffe://td/',
    'dns:',
    'ip:',
  )
  let seed = 7
  const pick = (count: number): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % count
  }
  const made = Array.from({ length: 60_000 }, () =>
    Array.from({ length: 1 + pick(6) }, () => pieces[pick(pieces.length)]).join(''),
  )
  const accepted = new Map<NameKind, number>()
  for (const kind of ['dns', 'ip', 'uri', 'email'] as const)
    for (const text of [...made, ...normal.filter((one) => one[0] === kind).map(([, written]) => written)]) {
      const name = nameOf(kind, text)
      if (name === undefined) continue
      accepted.set(kind, (accepted.get(kind) ?? 0) + 1)
      const isSought =
        soughtFault(`${kind}:${text}`) === undefined && nameRange(`${kind}:${text}`).low === searchKey(name)
      if (!isSought) t.fail(`${kind}:${text} finds itself`)
      if (kind === 'dns' && soughtFault(text) !== undefined && !text.startsWith('*.')) t.fail(`${text} is sought`)
      if (kind !== 'ip' && looksLikeAnother.test(text)) continue
      if (soughtFault(text) !== undefined || nameRange(text).low !== searchKey(name)) t.fail(`${text} finds itself`)
    }
  for (const kind of ['dns', 'ip', 'uri', 'email'] as const) t.ok((accepted.get(kind) ?? 0) > 50, kind)
})

const nameOf = (kind: NameKind, text: string): Name | undefined => {
  try {
    return parseName(kind, text)
  } catch {
    return undefined
  }
}

t.test('a wildcard name stands for the left-most label of a host name, and for no more (RFC 9525 6.3)', async (t) => {
  for (const [host, wildcard] of [
    ['shop.example.com', '*.example.com'],
    ['a.shop.example.com', '*.shop.example.com'],
    ['xn--bcher-kva.example.com', '*.example.com'],
    ['example.com', undefined],
    ['com', undefined],
    ['*.example.com', undefined],
    ['.example.com', undefined],
    ['%.example.com', undefined],
    ['shop.example.com.', undefined],
    ['spiffe://shop.example.com', undefined],
  ] as const)
    t.equal(wildcardOver(host), wildcard, host)
})
