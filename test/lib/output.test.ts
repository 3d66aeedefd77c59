import { readFile } from 'node:fs/promises'

import t from 'tap'

import { eventRow } from '../../src/cli/event-text.ts'
import { diffLines } from '../../src/cli/profile.ts'
import { type Decision, explanation, fullExplanation } from '../../src/client/issue/explanation.ts'
import { formatTable, jsonText, openOutput, versionLine } from '../../src/lib/output.ts'
import { formatYaml, parseYaml } from '../../src/lib/yaml.ts'

t.test('a table is aligned, and nothing in it steers the terminal', (t) => {
  const rows = [
    {
      name: 'a',
      names: [
        { kind: 'dns', value: 'x.example.com' },
        { kind: 'ip', value: '10.0.0.1' },
      ],
      at: null,
    },
    { name: 'evil\u001b[2J\u202e', names: [], at: 3 },
  ]
  t.equal(
    formatTable(rows, ['name', 'names', 'at']),
    [
      'NAME                 NAMES                          AT',
      'a                    dns:x.example.com ip:10.0.0.1  -',
      'evil\\u001b[2J\\u202e  -                              3',
      '',
    ].join('\n'),
  )
  t.equal(formatTable([], ['name']), 'NAME\n')
  t.end()
})

t.test('what machines read says the same, and steers no terminal either', (t) => {
  const value = { name: 'a\u0000\u007f\u009b31m\u202e\u2066\u2028\u{e0041}\nü 👍' }
  const written: string[] = []
  const out = openOutput(true, (text) => written.push(text))
  out.show(value, '')
  out.table([value], ['name'])
  for (const text of [...written, `${jsonText(value)}\n`]) t.match(text, /^[\n\x20-\x7eü👍]*\n$/u)
  t.same(
    written.map((text) => JSON.parse(text)),
    [value, [value]],
  )
  t.match(written[0], /\\u007f\\u009b31m\\u202e\\u2066\\u2028\\udb40\\udc41\\nü 👍/)
  t.equal(jsonText(undefined), '')
  t.end()
})

const request = '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60'
const certManager = 'system:serviceaccount:cert-manager:cert-manager'

t.test('every type of event is told in a line for people', async (t) => {
  const golden = await readFile(new URL('../tlog/entries.golden', import.meta.url), 'utf8')
  const rows = golden
    .trimEnd()
    .split('\n')
    .map((line, index) => eventRow({ index, entry: line.split('\t')[2] ?? '' }))
  t.same(
    rows.map(({ what }) => what),
    [
      `a certificate that cannot be read to ci by server@3, serial 4${'0'.repeat(31)}, issuer default, for the request ${request}, on behalf of ${certManager} in shop, CertificateRequest web-1`,
      `serial 4${'0'.repeat(31)} for ci by server@3, issuer default`,
      `serial 4${'0'.repeat(31)}, issuer default, keyCompromise since 2026-11-24T23:59:59Z, invalid since 2026-11-01T00:00:00Z, by the holder of its key`,
      `serial 4${'0'.repeat(31)}, issuer default, from hold, by ops`,
      '1 of issuer default, shards 17 (number 2)',
      'number 7 above issuer default, until 2027-05-24T00:00:00.000Z, by ops',
      `100000 certificates, keyCompromise, by ops: issuedBefore 2026-11-24T00:00:00.000Z, profile server, plan ${'cd'.repeat(32)}`,
      `99997 revoked, 3 passed by, plan ${'cd'.repeat(32)}`,
      `${request} of ci by server@3, plan ${'cd'.repeat(32)}, to be approved by 2 until 2026-11-25T23:59:59.007Z`,
      `${request} by alice: "as in change 4711"`,
      `${request} by bob: "not before Monday"`,
      `${request} by ci: "the wrong name"`,
      request,
      `${request}, approval.plan: "it has changed"`,
      'server@3, to be approved by 2, by admin',
      'github@2 by admin',
      'ci by admin',
      'ci by admin',
      'created: ci as requester of server within {"dns":{"allow":["*.ci.example.com"]}} with the right to revoke with limits {"certificatesPerDay":100} on behalf of others {"namespaces":{"allow":["shop","team-*"],"deny":["team-root"]},"required":true} with keys of others, 0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a10, by admin',
      '"büro \\"1\\"" of ci until it is revoked, 0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a11, by admin',
      '"büro \\"1\\"" of ci, 0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a11, by admin',
      '"büro \\"1\\"" of ci: certificates for spiffe://example.com/ci, 0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a12, by admin',
      '"büro \\"1\\"" of ci: certificates of CN=ci by CN=ca, 0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a13, by admin',
      'default of authority default, active, one list, by chancery',
      'default of authority default, staged before, by admin: "büro"',
      'default of authority default, staged before, by admin: "büro"',
      'default of authority default, staged before, by admin: "büro"',
      'default of authority default, staged before, by admin: "büro"',
      'default of authority default, staged before, by admin: "büro"',
      'default of authority default, staged before, by admin: "büro"',
      'default-2027 of authority default, key pkcs11:token=ca;object=default-2027, by admin',
      'default of authority default, 2 ways up, by admin',
      'default-2027 of authority default, key pkcs11:token=ca-2;object=default-2027, before pkcs11:token=ca;object=default-2027, by admin: "the token broke, and its backup was restored into another one"',
      'pkcs11:token=ca;object=default of default, alwaysSensitive, not extractable, neverExtractable, sensitive',
      'file:keys/default.pem, by os:ops',
      'ca.example.com/roll, after 1043 entries of old.example.com/roll, by chancery',
      '7439812409182734099, before without a number, by os:büro: "the old server has burnt down"',
      'version 0.1.0 in development',
    ],
  )
  t.match(rows[14], { time: '2026-11-24T23:59:59.007Z', index: 14, type: 'profile.changed' })
  const entry = '{"a":1,"time":"2027-01-01T00:00:00.000Z","type":"of.tomorrow","v":1}'
  t.equal(eventRow({ index: 7, entry }).what, '{"a":1}', 'and one that is not known yet by its fields')
})

t.test(
  'an explanation is the verdict, the failed checks and the next step; in full, every check, failed ones first',
  (t) => {
    const decision: Decision = {
      allowed: false,
      checks: [
        { check: 'key.type', outcome: 'passed', field: '/key', value: 'ec-p256', reason: 'is listed' },
        { check: 'names.dns.allow', outcome: 'failed', field: '/names/0', value: 'x\u001b', reason: 'matches nothing' },
      ],
      notes: [{ field: '/keyUsage', reason: 'was dropped' }],
    }
    t.equal(
      explanation(decision),
      [
        'This request would be refused.',
        'FAILED  names.dns.allow  /names/0  x\\u001b  matches nothing',
        'next: Ask for names that the profile and your grant allow.',
        '1 checks passed, 0 did not apply; --all shows them.',
      ].join('\n'),
    )
    const [, failed] = decision.checks
    const many = { ...decision, checks: Array.from({ length: 40 }, () => failed as Decision['checks'][number]) }
    t.ok(explanation(many).split('\n').length <= 10, 'ten lines, however many fail')
    t.equal(
      fullExplanation(decision),
      [
        'This request would be refused.',
        'FAILED  names.dns.allow  /names/0  x\\u001b  matches nothing',
        'passed  key.type         /key      ec-p256  is listed',
        'note  /keyUsage  was dropped',
      ].join('\n'),
    )
    t.end()
  },
)

t.test('a document hides nothing and steers no terminal, and is the same when it is read again', async (t) => {
  const document = {
    description: 'a\u202eb\u009b31m\u{e0001} \\u202e\nand more\u200b',
    blanks: ' \n',
    long: `\u200b\n \n\n${'x'.repeat(80)} y`,
    'key\u061c': ['plain', 'two\nlines\n', 'caf\u00e9 \u00a0', '\ttab'],
  }
  const text = await formatYaml(document)
  t.equal(text.replaceAll(/[\x20-\x7e\n\u00e9]/g, ''), '')
  t.match(text, /a\\u202eb\\u009b31m\\U000e0001/)
  t.same(await parseYaml(text), document)
  t.equal(
    await formatYaml({ names: { dns: { allow: ['*.example.com'] } } }),
    'names:\n  dns:\n    allow:\n      - "*.example.com"\n',
  )
  const told = { version: 1, sha256: 'ab\u001b[2J', createdBy: 'a\nb', createdAt: 'now' }
  t.equal(versionLine(told), '# version 1, sha256 ab\\u001b[2J, by a\\u000ab at now')
})

t.test('a difference shows changed lines with two of their neighbours', (t) => {
  const before = Array.from({ length: 9 }, (_, i) => `line ${i}`).join('\n')
  t.same(diffLines(before, before), [])
  t.same(diffLines(before, before.replace('line 4', 'line four')), [
    '  line 2',
    '  line 3',
    '- line 4',
    '+ line four',
    '  line 5',
    '  line 6',
  ])
  t.same(diffLines('', 'a\nb\n'), ['+ a', '+ b'])
  t.same(diffLines('a\nb\n', 'b\n'), ['- a', '  b'])
  t.end()
})
