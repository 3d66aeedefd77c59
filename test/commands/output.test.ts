import t from 'tap'

import { diffLines } from '../../src/commands/diff.ts'
import { explanation } from '../../src/commands/issue.ts'
import { formatTable } from '../../src/commands/output.ts'

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

t.test('an explanation begins with what failed', (t) => {
  const text = explanation({
    allowed: false,
    checks: [
      { check: 'key.type', outcome: 'passed', field: '/key', value: 'ec-p256', reason: 'is listed' },
      { check: 'names.dns.allow', outcome: 'failed', field: '/names/0', value: 'x\u001b', reason: 'matches nothing' },
    ],
    notes: [{ field: '/keyUsage', reason: 'was dropped' }],
  })
  t.equal(
    text,
    [
      'This request would be refused.',
      'FAILED  names.dns.allow  /names/0  x\\u001b  matches nothing',
      'passed  key.type         /key  ec-p256  is listed',
      'note  /keyUsage  was dropped',
    ].join('\n'),
  )
  t.end()
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
