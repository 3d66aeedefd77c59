import t from 'tap'

import { DerReader } from '../../src/x509/der.ts'
import {
  encodeNameConstraints,
  formatSubtree,
  parseSubtree,
  readNameConstraints,
  type Subtree,
  type SubtreeKind,
} from '../../src/x509/name-constraints.ts'
import { dns, hex, ip, mail, seq, tlv, uri } from './build.ts'

const good = (kind: SubtreeKind, text: string): Subtree => {
  const subtree = parseSubtree(kind, text)
  if (typeof subtree === 'string') throw new Error(`${text} ${subtree}`)
  return subtree
}

t.test('subtrees are encoded as RFC 5280 says, and read back', (t) => {
  const permitted = [
    good('dns', 'Example.COM'),
    good('ip', '10.0.0.0/8'),
    good('ip', '2001:db8::/33'),
    good('email', '.example.com'),
    good('email', 'Root@Example.com'),
    good('uri', '.example.com'),
  ]
  const excluded = [good('dns', 'evil.example.com'), good('ip', '0.0.0.0/0'), good('dns', '')]
  const der = encodeNameConstraints({ permitted, excluded })
  t.same(
    der,
    seq(
      tlv(
        0xa0,
        seq(dns('example.com')),
        seq(ip('0a000000 ff000000')),
        seq(ip(`20010db8${'00'.repeat(12)} ffffffff80${'00'.repeat(11)}`)),
        seq(mail('.example.com')),
        seq(mail('Root@example.com')),
        seq(uri('.example.com')),
      ),
      tlv(0xa1, seq(dns('evil.example.com')), seq(ip('00000000 00000000')), seq(dns(''))),
    ),
  )
  t.same(readNameConstraints(new DerReader(der, 'policy.lint')), { permitted, excluded })
  t.same(permitted.slice(0, 3).map(formatSubtree), ['example.com', '10.0.0.0/8', '2001:db8::/33'])
  t.same(encodeNameConstraints({ permitted: [], excluded: [good('dns', 'a.b')] }), seq(tlv(0xa1, seq(dns('a.b')))))
  const one = { permitted: [good('ip', '10.0.0.1/32')], excluded: [good('ip', '::1/128')] }
  t.same(readNameConstraints(new DerReader(encodeNameConstraints(one), 'policy.lint')), one)
  t.same(readNameConstraints(new DerReader(seq(), 'policy.lint')), { permitted: [], excluded: [] })
  t.equal(formatSubtree({ kind: 'ip', value: '10.0.0.0/255.0.255.0' }), '10.0.0.0/255.0.255.0')
  t.end()
})

t.test('what is compared with no name of ours is read for what it is', (t) => {
  const read = (base: Buffer) => readNameConstraints(new DerReader(seq(tlv(0xa0, seq(base))), 'policy.lint')).permitted
  t.same(read(tlv(0xa4, seq())), [{ kind: 'other', value: 'a4' }], 'a directory name')
  for (const octets of [4, 16, 31]) t.same(read(ip('00'.repeat(octets))), [{ kind: 'other', value: '87' }], 'no range')
  t.same(read(tlv(0x88, Buffer.alloc(8))), [{ kind: 'other', value: '88' }], 'eight octets of another kind')
  t.end()
})

t.test('what nobody would read alike is a fault', (t) => {
  const bad: readonly (readonly [SubtreeKind, string])[] = [
    ['dns', '.example.com'],
    ['dns', '*.example.com'],
    ['dns', 'exa mple.com'],
    ['dns', 'example.com.'],
    ['dns', `${'a'.repeat(64)}.com`],
    ['dns', 'müller.example'],
    ['dns', `${'a.'.repeat(127)}a`],
    ['ip', '10.0.0.1/8'],
    ['ip', '10.0.0.0'],
    ['ip', '10.0.0.0/33'],
    ['ip', '10.0.0.0/08'],
    ['ip', '2001:db8::/129'],
    ['ip', 'example.com/8'],
    ['email', ''],
    ['email', '@example.com'],
    ['email', 'a@b@example.com'],
    ['email', 'a@.example.com'],
    ['uri', ''],
    ['uri', 'https://example.com'],
  ]
  for (const [kind, text] of bad) t.type(parseSubtree(kind, text), 'string', `${kind} ${text}`)
  t.throws(() => encodeNameConstraints({ permitted: [], excluded: [] }), RangeError)
  t.throws(() => encodeNameConstraints({ permitted: [{ kind: 'other', value: 'a4' }], excluded: [] }), RangeError)
  t.type(parseSubtree('dns', `${'a.'.repeat(126)}a`), 'object', 'the longest name is one')
  for (const der of [
    hex('3004 a0023000'),
    seq(tlv(0xa0, seq(dns('a.b'), tlv(0x80, Buffer.from([0]))))),
    seq(tlv(0xa0, seq(dns('a.b'), tlv(0x81, Buffer.from([9]))))),
    seq(tlv(0xa0, seq(dns('a.b'))), tlv(0xa2)),
    seq(tlv(0xa1, seq(dns('a.b'))), tlv(0xa0, seq(dns('a.b')))),
  ])
    t.throws(() => readNameConstraints(new DerReader(der, 'policy.lint')), { code: 'policy.lint' }, der.toString('hex'))
  t.end()
})
