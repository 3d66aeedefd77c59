import t from 'tap'

import { columnsOf, encodeCsv } from '../../src/http/api/csv.ts'

t.test('CSV is quoted throughout, and no cell begins a formula', (t) => {
  const names = [
    { kind: 'dns', value: 'a.example.com' },
    { kind: 'ip', value: '10.0.0.1' },
  ]
  const columns = columnsOf(['subject', 'names', 'index', 'note'])
  const rows = [
    { subject: '=HYPERLINK("http://x")', names, index: -1, note: null },
    { subject: 'a,b\r\n"c"', names: [], index: 2, note: '@x' },
    { subject: ' +1', names: [], index: 3, note: '\t-1' },
  ]
  t.equal(
    encodeCsv(rows, columns),
    [
      '"subject","names","index","note"',
      `"'=HYPERLINK(""http://x"")","dns:a.example.com ip:10.0.0.1","-1",""`,
      `"a,b\r\n""c""","","2","'@x"`,
      `"' +1","","3","'\t-1"`,
      '',
    ].join('\r\n'),
  )
  t.equal(encodeCsv([], columns), '"subject","names","index","note"\r\n', 'whatever there is')
  const texts = ['=1', '+1', '-1', '@x', '\t=', '\r', '\n', ' =1', '\uff1d1', "'", "'=1", "''", 'a=1', '', "it's"]
  const cells = texts.map(
    (text) => /\r\n"((?:[^"]|"")*)"\r\n$/.exec(encodeCsv([{ text }], columnsOf(['text'])))?.[1] ?? '?',
  )
  t.same(
    cells.map((cell) => cell.startsWith("'")),
    texts.map((text) => !['a=1', '', "it's"].includes(text)),
  )
  t.same(
    cells.map((cell) => (cell.startsWith("'") ? cell.slice(1) : cell)),
    texts,
    'and it can be undone',
  )
  t.end()
})
