import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { parseNameRules } from '../../src/policy/name-rules.ts'
import {
  compileRules,
  findAllowing,
  findDenying,
  pointer,
  type RuledKind,
  readPattern,
  ruledKinds,
  show,
  takeApart,
} from '../../src/policy/names.ts'
import { cpu } from '../helpers/cpu.ts'
import { keptForEach } from '../helpers/memory.ts'
import { anyString } from '../helpers/strings.ts'

const allows = (kind: RuledKind, pattern: string, value: string): boolean =>
  findAllowing(compileRules({ [kind]: { allow: [pattern] } })[kind]?.allow ?? [], takeApart({ kind, value })) !==
  undefined
const denies = (kind: RuledKind, pattern: string, value: string): boolean =>
  findDenying(compileRules({ [kind]: { allow: [pattern] } })[kind]?.allow ?? [], takeApart({ kind, value })) !==
  undefined

const matching: Readonly<Record<RuledKind, readonly (readonly [string, readonly string[], readonly string[]])[]>> = {
  dns: [
    ['localhost', ['localhost'], ['localhost.', 'xlocalhost', 'a.localhost', '']],
    [
      '*.example.com',
      ['www.example.com'],
      ['example.com', 'a.b.example.com', '.example.com', 'www.example.com.evil.org', 'wwwxexample.com'],
    ],
    [
      '**.example.com',
      ['www.example.com', 'a.b.c.example.com'],
      ['example.com', '.example.com', 'a..example.com', 'a.example.org'],
    ],
    ['*.*.svc', ['hook.prod.svc'], ['prod.svc', 'a.b.c.svc', 'hook.prod.svc.cluster.local']],
    ['db.**.internal', ['db.a.internal', 'db.a.b.internal'], ['db.internal', 'x.a.internal', 'db.a.internal.x']],
    ['*', ['host'], ['a.b', '', '*']],
    ['**', ['host', 'a.b.c'], ['', 'a..b']],
    ['a_z-09.example', ['a_z-09.example'], ['a-z-09.example']],
  ],
  ip: [
    [
      '10.0.0.0/8',
      ['10.0.0.1', '10.255.255.255'],
      ['11.0.0.1', '9.255.255.255', '::a00:1', '010.0.0.1', '10.0.0', '10.0.0.1/32'],
    ],
    ['192.168.4.0/22', ['192.168.4.0', '192.168.7.255'], ['192.168.8.0', '192.168.3.255']],
    ['127.0.0.1', ['127.0.0.1'], ['127.0.0.2']],
    ['0.0.0.0/0', ['1.2.3.4'], ['::1', '::']],
    ['fd00::/8', ['fd12:3456::1'], ['fe00::1', '10.0.0.1']],
    ['2001:db8::/33', ['2001:db8:7fff::1'], ['2001:db8:8000::1']],
    ['::1', ['::1'], ['::2', '127.0.0.1', '0.0.0.1']],
  ],
  uri: [
    [
      'spiffe://cluster.local/ns/*/sa/*',
      ['spiffe://cluster.local/ns/prod/sa/web'],
      [
        'spiffe://cluster.local/ns/prod/sa/web/x',
        'spiffe://cluster.local/ns/prod/sa/',
        'spiffe://cluster.local/ns//sa/web',
        'spiffe://cluster.local/ns/../sa/web',
        'spiffe://cluster.local/ns/a%2fb/sa/web',
        'spiffe://cluster.local/ns/a?/sa/web',
        'spiffe://cluster.local/ns/*/sa/web',
        'spiffe://other.local/ns/prod/sa/web',
        'spiffe://cluster.local.evil/ns/prod/sa/web',
        'SPIFFE://cluster.local/ns/prod/sa/web',
        'https://cluster.local/ns/prod/sa/web',
      ],
    ],
    [
      'spiffe://td/**',
      ['spiffe://td/a', 'spiffe://td/a/b/c'],
      ['spiffe://td', 'spiffe://td/', 'spiffe://td/a//b', 'spiffe://td/a/./b'],
    ],
    [
      'spiffe://td/a/**/z',
      ['spiffe://td/a/b/z', 'spiffe://td/a/b/c/z'],
      ['spiffe://td/a/z', 'spiffe://td/a/b', 'spiffe://td/a/b/c', 'spiffe://td/a/b/z/c', 'spiffe://td/b/c/z'],
    ],
    [
      'spiffe://td/**/sa/web',
      ['spiffe://td/ns/sa/web', 'spiffe://td/ns/a/sa/web'],
      ['spiffe://td/ns/web/sa', 'spiffe://td/ns/sa/x'],
    ],
    [
      'https://a.example/*',
      ['AZaz09-._', 'a', '...'].map((segment) => `https://a.example/${segment}`),
      ['a@', 'a[', 'a~', 'a`', 'a/', 'a:', '.', '..'].map((segment) => `https://a.example/${segment}`),
    ],
    ['a:b', ['a:b'], ['a:c']],
    ['a.b:c', ['a.b:c'], ['ab:c']],
    ['file:///*', ['file:///a'], ['file:///a/b', 'file://a']],
    ['urn:!~', ['urn:!~'], ['urn:!']],
    ['z0+-.a:b', ['z0+-.a:b'], ['z0:b']],
    ['urn:uuid:1', ['urn:uuid:1'], ['urn:uuid:2', 'urn:uuid:11']],
    ['https://a.example/x?y=1', ['https://a.example/x?y=1'], ['https://a.example/x']],
  ],
  email: [
    [
      '*@example.com',
      ['alice@example.com', 'a@example.com', 'a.b+c@example.com'],
      ['alice@sub.example.com', '@example.com', 'alice@example.com.evil', '*@example.com', 'alice'],
    ],
    ['*@*.example.com', ['alice@mail.example.com'], ['alice@example.com', 'alice@*.example.com']],
    ['alice@example.com', ['alice@example.com'], ['Alice@example.com', 'bob@example.com']],
    ['!#~@example.com', ['!#~@example.com'], ['!@example.com']],
    ['a@*.example', ['a@b.example'], ['a@b@c.example']],
  ],
  commonName: [
    ['Web Team', ['Web Team'], ['web team', 'Web Team ', 'Web', '']],
    [
      'system:node:*',
      ['system:node:worker-1', 'system:node:a.b', 'system:node:*'],
      ['system:node:', 'system:node', 'system:node:a:b', 'System:node:a', ' system:node:a', 'xsystem:node:a'],
    ],
    ['system:node:worker-*.example.com', ['system:node:worker-1.example.com'], ['system:node:worker-.example.com']],
    ['system:**', ['system:node:a', 'system:x'], ['system:', 'system']],
    ['*', ['admin'], ['system:admin', '']],
  ],
}

for (const kind of ruledKinds) {
  t.test(`${kind} patterns match whole names and nothing beside them`, async (t) => {
    for (const [pattern, good, bad] of matching[kind]) {
      for (const value of good) t.ok(allows(kind, pattern, value), `${pattern} matches ${value}`)
      for (const value of bad)
        t.notOk(allows(kind, pattern, value), `${pattern} does not match ${JSON.stringify(value)}`)
    }
  })
}

t.test('a wildcard name is allowed only by a pattern that matches every name it covers', async (t) => {
  for (const pattern of ['*.a.example', '**.a.example', '**.example', '*.*.example', '**']) {
    t.ok(allows('dns', pattern, '*.a.example'), `${pattern} covers *.a.example`)
  }
  for (const pattern of ['www.a.example', 'a.example', '*.example', 'b.**.example', '*']) {
    t.notOk(allows('dns', pattern, '*.a.example'), `${pattern} does not cover *.a.example`)
  }
  for (const stray of ['a.*.example', 'f*.a.example', '*x.a.example', '*.*.a.example', '**.a.example']) {
    t.notOk(allows('dns', '**.example', stray), `${stray} is no wildcard and matches nothing`)
  }
})

t.test('a wildcard name is denied by a pattern that matches any name it covers', async (t) => {
  for (const pattern of ['admin.a.example', '*.a.example', 'admin.**.example', '**']) {
    t.ok(denies('dns', pattern, '*.a.example'), `${pattern} meets *.a.example`)
  }
  for (const pattern of ['a.example', 'x.admin.a.example', 'admin.b.example']) {
    t.notOk(denies('dns', pattern, '*.a.example'), `${pattern} does not meet *.a.example`)
  }
})

t.test('a wildcard name is allowed exactly when all the names it covers are', async (t) => {
  const label = fc.constantFrom('a', 'b', 'c')
  const glob = fc
    .array(fc.constantFrom('a', 'b', '*', '**'), { minLength: 1, maxLength: 4 })
    .filter((labels) => labels.filter((part) => part === '**').length <= 1)
    .map((labels) => labels.join('.'))
  fc.assert(
    fc.property(glob, fc.array(label, { minLength: 1, maxLength: 3 }), (pattern, base) => {
      // The alphabet of patterns lacks c, so that c stands for all the labels that no pattern names.
      const covered = ['a', 'b', 'c'].map((first) => [first, ...base].join('.'))
      const wildcard = ['*', ...base].join('.')
      return (
        allows('dns', pattern, wildcard) === covered.every((name) => allows('dns', pattern, name)) &&
        denies('dns', pattern, wildcard) === covered.some((name) => denies('dns', pattern, name))
      )
    }),
    { seed: 9525, numRuns: 2000 },
  )
  t.pass('held')
})

t.test('patterns agree with a plain model of globs by label', async (t) => {
  const model = (pattern: readonly string[], name: readonly string[]): boolean => {
    const [head, ...rest] = pattern
    if (head === undefined) return name.length === 0
    if (name.length === 0) return false
    if (head === '**') return model(rest, name.slice(1)) || model(pattern, name.slice(1))
    return (head === '*' || head === name[0]) && model(rest, name.slice(1))
  }
  const labels = (...of: readonly string[]) => fc.array(fc.constantFrom(...of), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(
      labels('a', 'b', '*', '**').filter((parts) => parts.indexOf('**') === parts.lastIndexOf('**')),
      labels('a', 'b', 'c'),
      (pattern, name) => allows('dns', pattern.join('.'), name.join('.')) === model(pattern, name),
    ),
    { seed: 1035, numRuns: 3000 },
  )
  t.pass('held')
})

t.test('names of 100,000 characters are judged at once', async (t) => {
  const long = 100_000
  const hostile: Readonly<Record<RuledKind, readonly string[]>> = {
    dns: [
      'a'.repeat(long),
      'a.'.repeat(long / 2),
      '.'.repeat(long),
      '*.'.repeat(long / 2),
      `${'a.'.repeat(long / 2)}example.com`,
    ],
    ip: ['1'.repeat(long), '1.'.repeat(long / 2), ':'.repeat(long), '0:'.repeat(long / 2)],
    uri: [
      `spiffe://cluster.local/${'a/'.repeat(long / 2)}`,
      '/'.repeat(long),
      `spiffe://${'a'.repeat(long)}`,
      ':'.repeat(long),
    ],
    email: ['@'.repeat(long), `${'a'.repeat(long)}@example.com`, `a@${'a.'.repeat(long / 2)}example.com`],
    commonName: ['a'.repeat(long), ':'.repeat(long), '*'.repeat(long)],
  }
  const patterns: Readonly<Record<RuledKind, readonly string[]>> = {
    dns: ['**.example.com', 'a.**.a', '*.*', '**'],
    ip: ['0.0.0.0/0', '::/0'],
    uri: ['spiffe://cluster.local/**', 'spiffe://cluster.local/a/**/a', 'spiffe://cluster.local/*/*'],
    email: ['*@**.example.com', '*@example.com'],
    commonName: ['system:**', '**a', '*', '**'],
  }
  const begun = cpu()
  for (const kind of ruledKinds) {
    for (const value of hostile[kind]) for (const pattern of patterns[kind]) allows(kind, pattern, value)
  }
  // 50-odd matches; a quadratic one alone would take far longer than this.
  t.ok(cpu() - begun < 2000)
  for (const kind of ruledKinds) {
    for (const value of hostile[kind]) t.type(readPattern(kind, value), 'string', 'and refused as patterns')
  }
})

t.test('a mailbox is denied in upper and lower case, and allowed as it is written', async (t) => {
  for (const text of ['root@example.com', 'Root@example.com']) {
    const pattern = readPattern('email', text)
    if (typeof pattern === 'string') throw new Error(pattern)
    for (const value of ['root@example.com', 'Root@example.com', 'rOOt@example.com']) {
      const parts = takeApart({ kind: 'email', value })
      t.equal(pattern.touches(parts), true, `deny ${text}: ${value}`)
      t.equal(pattern.covers(parts), value === text, `allow ${text}: ${value}`)
    }
    t.equal(pattern.touches(takeApart({ kind: 'email', value: 'roots@example.com' })), false)
  }
})

t.test('a broken pattern says what is wrong with it', async (t) => {
  const broken: readonly (readonly [RuledKind, string, RegExp])[] = [
    ['dns', '', /empty/],
    ['dns', 'a..b', /empty label/],
    ['dns', '.example.com', /empty label/],
    ...['Example.com', 'A.com', 'Z.com'].map((text) => ['dns', text, /lower case/] as const),
    ['dns', 'f*.example.com', /inside a label/],
    ['dns', '**.a.**', /more than one/],
    ['dns', '***.a', /inside a label/],
    ['dns', '-a.example', /hyphen/],
    ['dns', 'a-.example', /hyphen/],
    ['dns', `${'a.'.repeat(126)}aa`, /longer than 253/],
    ['dns', 'b\u00fccher.example', /no DNS name has/],
    ...['(a+)+$', '@.com', '[.com'].map((text) => ['dns', text, /no DNS name has/] as const),
    ['dns', `${'a'.repeat(64)}.example`, /longer than 63/],
    ['ip', '10.0.0.1/8', /beyond its prefix/],
    ['ip', '10.0.1.0/8', /beyond its prefix/],
    ['ip', '192.168.5.0/22', /beyond its prefix/],
    ['ip', '10.0.0.0/33', /not within 0 and 32/],
    ['ip', '10.0.0.0/08', /not within/],
    ['ip', '10.0.0.0/', /not within/],
    ['ip', '::ffff:10.0.0.0/104', /write the IPv4/],
    ['ip', 'fd00::/129', /not within 0 and 128/],
    ['ip', '10.0.0', /not an address/],
    ['ip', `10.0.0.0/${'8'.repeat(1000)}`, /not within/],
    ['ip', '*', /not an address/],
    ['uri', 'cluster.local/ns', /scheme/],
    ['uri', 'SPIFFE://td/a', /scheme/],
    ...[':a', 'urn:', '1a:b', '{a:b', 'a_b:c', 'a/b:c'].map((text) => ['uri', text, /scheme/] as const),
    ['uri', `urn:${'a'.repeat(2045)}`, /longer than 2048/],
    ['uri', 'urn:\u007f', /no URI has/],
    ['uri', 'spiffe://*/a', /literal/],
    ['uri', 'spiffe://*', /literal/],
    ['uri', 'spiffe://td/a*', /inside a path segment/],
    ['uri', 'spiffe://td/**/a/**', /more than one/],
    ['uri', 'spiffe://td//*', /empty path segment/],
    ['uri', 'https://a/x://b/*', /empty path segment/],
    ['uri', 'urn:*', /outside a path/],
    ['uri', 'spiffe://td/a b', /no URI has/],
    ['email', 'example.com', /is not like/],
    ['email', '@example.com', /is not like/],
    ...['a*', 'a b', '"a"', 'a@b', 'a\u007f', '\u00e9', 'a'.repeat(65)].map(
      (local) => ['email', `${local}@example.com`, /local part/] as const,
    ),
    ['email', '*@', /domain that is empty/],
    ['commonName', '', /is empty/],
    ['commonName', 'a\0', /NUL/],
    ['commonName', 'a\ud800', /half of a character/],
    ['commonName', 'a*b*', /more than one wildcard/],
    ['commonName', 'x'.repeat(66), /longer than 65/],
  ]
  for (const [kind, text, reason] of broken) {
    const result = readPattern(kind, text)
    t.match(typeof result === 'string' ? result : 'was accepted', reason, `${kind} ${text.slice(0, 40)}`)
  }
})

t.test('rules of a broken pattern are no rules', async (t) => {
  t.throws(() => compileRules({ ip: { allow: ['10.0.0.0/8'], deny: ['10.0.0.0/33'] } }), {
    name: 'TypeError',
    message: /^ip pattern: has a prefix length/,
  })
})

t.test('a pattern may be as long as the longest name', async (t) => {
  const longest: readonly (readonly [RuledKind, string])[] = [
    ['dns', `${'a.'.repeat(126)}a`],
    ['dns', `${'a'.repeat(63)}.example`],
    ['uri', `urn:${'a'.repeat(2044)}`],
    ['email', `${'a'.repeat(64)}@example.com`],
    ['commonName', 'x'.repeat(65)],
    ['ip', 'ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128'],
  ]
  for (const [kind, text] of longest) t.match(readPattern(kind, text), { text }, `${kind} ${text.slice(0, 40)}`)
})

t.test('name rules of a grant are read with every fault and its place', async (t) => {
  t.same(
    parseNameRules({
      dns: { allow: ['*.example.com'], deny: ['admin.example.com'] },
      ip: { allow: ['10.0.0.0/8'] },
      commonName: { allow: ['system:node:*'] },
    }),
    {
      dns: { allow: ['*.example.com'], deny: ['admin.example.com'] },
      ip: { allow: ['10.0.0.0/8'] },
      commonName: { allow: ['system:node:*'] },
    },
  )
  try {
    parseNameRules(
      {
        dns: { allow: ['*.example.com', '*.example.com', 'f*.x', 7], extra: 1 },
        ip: { allow: [] },
        uri: { allow: ['https://a.test/**'], deny: ['https://A.test/b'] },
        'x/y': {},
        email: { deny: 'x' },
        commonName: { allow: ['a', 'a', 'b*c*'], deny: [7] },
      },
      '/names',
    )
    t.fail('was accepted')
  } catch (error) {
    if (!isProblem(error, 'request.malformed')) throw error
    t.same(
      error.options.violations?.map(({ field }) => field),
      [
        '/names/dns/extra',
        '/names/dns/allow/1',
        '/names/dns/allow/2',
        '/names/dns/allow/3',
        '/names/ip/allow',
        '/names/uri/deny/0',
        '/names/x~1y',
        '/names/email/allow',
        '/names/email/deny',
        '/names/commonName/allow/1',
        '/names/commonName/allow/2',
        '/names/commonName/deny/0',
      ],
    )
  }
  const many = (count: number) => ({
    ip: { allow: Array.from({ length: count }, (_, i) => `10.0.${i >> 8}.${i & 255}`), deny: [] },
  })
  t.same(parseNameRules(many(1000)), many(1000), 'a thousand, and nothing that is denied')
  for (const input of [null, 5, [], 'x', undefined, { uri: null }, many(1001), { uri: { allow: ['a+_b:c'] } }])
    t.throws(() => parseNameRules(input), { code: 'request.malformed' })
})

t.test('whatever was sent is shown short, and as a token of a pointer', async (t) => {
  const long = 'x'.repeat(256)
  for (const [value, shown] of [
    [{ a: 1 }, '{…}'],
    [[1], '[…]'],
    [undefined, ''],
    [null, 'null'],
    [7, '7'],
    ['', ''],
    [long, long],
    [`${long}x`, `${long}…`],
    [`${long.slice(1)}\u{1f510}`, `${long.slice(1)}…`],
    [`${long.slice(2)}\u{1f510}`, `${long.slice(2)}\u{1f510}`],
    [`${long.slice(2)}\u{1f510}x`, `${long.slice(2)}\u{1f510}…`],
    ['a\ud800', 'a\ufffd'],
    ['\udc00a', '\ufffda'],
  ] as const)
    t.equal(show(value), shown)
  fc.assert(fc.property(anyString(), (text) => show(text.repeat(40)).isWellFormed()))
  t.equal(pointer('a/b~c/~1'), 'a~1b~0c~1~01')
})

t.test('reading a pattern and matching a name never throw', async (t) => {
  fc.assert(
    fc.property(fc.constantFrom(...ruledKinds), anyString(), anyString(), (kind, text, value) => {
      const pattern = readPattern(kind, text)
      if (typeof pattern !== 'string') pattern.covers(takeApart({ kind, value }))
      takeApart({ kind, value })
      return true
    }),
    { seed: 26, numRuns: 3000 },
  )
  t.pass('held')
})

t.test('rules about addresses keep nothing of Buffer’s pool', async (t) => {
  const rules = (n: number) => compileRules({ ip: { allow: [`10.0.${n}.0/24`, `2001:db8:${n}::/48`] } })
  t.ok((await keptForEach(20, rules)) < 1_024)
})
