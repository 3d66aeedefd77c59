import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { isLargerThan, largeBody, parseJson, parseYaml, smallBody } from '../../src/http/json.ts'
import { cpu } from '../helpers/cpu.ts'
import { drill } from '../helpers/drill.ts'

const refuses = (text: string | Buffer, parse: (octets: Buffer) => unknown = parseJson): boolean => {
  try {
    parse(Buffer.from(text as string))
    return false
  } catch (error) {
    return isProblem(error, 'request.malformed')
  }
}

drill('what JSON.parse takes comes out the same, unless a key is doubled, escaped or forbidden', (t) => {
  const value = fc.jsonValue({ maxDepth: 4, noUnicodeString: false, stringUnit: 'binary' })
  const isPlainKey = (key: string): boolean =>
    !JSON.stringify(key).includes('\\') && !['__proto__', 'constructor', 'prototype'].includes(key)
  const hasPlainKeys = (input: unknown): boolean =>
    typeof input !== 'object' ||
    input === null ||
    Object.entries(input).every(([key, member]) => isPlainKey(key) && hasPlainKeys(member))
  fc.assert(
    fc.property(value.filter(hasPlainKeys), fc.constantFrom(undefined, 1, '\t'), (input, indent) => {
      const text = JSON.stringify(input, null, indent)
      // Lone surrogates have no UTF-8 form; JSON.stringify escapes them, and they come back.
      t.strictSame(parseJson(Buffer.from(text)), JSON.parse(text))
    }),
    { numRuns: 2_000 },
  )
  t.end()
})

t.test('octets that JSON.parse refuses are refused, whatever they are', (t) => {
  const pieces = fc.array(
    fc.constantFrom('{', '}', '[', ']', ',', ':', '"', '\\', '"a"', '1', 'null', ' ', '\n', 'é'),
    { maxLength: 24 },
  )
  fc.assert(
    fc.property(pieces, (parts) => {
      const text = parts.join('')
      let valid = true
      try {
        JSON.parse(text)
      } catch {
        valid = false
      }
      if (!valid) t.ok(refuses(text), text)
    }),
    { numRuns: 5_000 },
  )
  t.end()
})

t.test('keys that are doubled, escaped or that touch prototypes are refused at any depth', (t) => {
  for (const text of [
    '{"a":1,"a":2}',
    '{"b":[{"a":1,"c":{},"a":2}]}',
    '{"a":1,"\\u0061":2}',
    '{"__proto__":{}}',
    '{"x":{"constructor":{"prototype":{}}}}',
    '[{"prototype":1}]',
  ]) {
    t.ok(refuses(text), text)
  }
  t.same(parseJson(Buffer.from('[{"a":1},{"a":"a"},{"a":{"a":["a","a"]}}]')), [
    { a: 1 },
    { a: 'a' },
    { a: { a: ['a', 'a'] } },
  ])
  t.end()
})

t.test('depth, number of values and UTF-8 are judged before anything is built', (t) => {
  t.same(parseJson(Buffer.from('['.repeat(16) + ']'.repeat(16))), JSON.parse('['.repeat(16) + ']'.repeat(16)))
  t.ok(refuses('['.repeat(17) + ']'.repeat(17)))
  t.ok(refuses(`[${'1,'.repeat(smallBody.values)}1]`))
  const fields = largeBody.fields ?? 0
  const large = (octets: Buffer): unknown => parseJson(octets, largeBody)
  const members = (count: number): string => `{${Array.from({ length: count }, (_, i) => `"${i}":[1,2]`).join(',')}}`
  const flat = (count: number): string => `{${Array.from({ length: count }, (_, i) => `"${i}":1`).join(',')}}`
  t.notOk(refuses(flat(smallBody.values)), 'the object itself is no member')
  t.ok(refuses(flat(smallBody.values + 1)))
  t.notOk(refuses(members(fields - 1), large), 'one of them is the object')
  t.ok(refuses(members(fields), large))
  t.ok(refuses(`[${'{},'.repeat(fields)}{}]`, large))
  t.ok(refuses(''))
  t.ok(refuses(Buffer.from([0x22, 0xff, 0x22])), 'not UTF-8')
  const marked = Buffer.from([0xef, 0xbb, 0xbf, 0x7b, 0x7d])
  t.ok(refuses(marked), 'a byte order mark')
  t.throws(() => parseJson(marked), { message: /byte order mark: send it without/ }, 'which no editor shows')
  t.end()
})

t.test('strings of every length end where JSON says, whatever is escaped in them', (t) => {
  let state = 1
  const next = (below: number): number => {
    state = (state * 48_271) % 0x7fffffff
    return state % below
  }
  // Plain stretches of about the length up to which octets are looked at one by one, with escapes between them.
  const piece = (): string =>
    'x'.repeat(next(4) === 0 ? 60 + next(30) : next(3)) + ['', '\\', '"', '\\"', '\n', 'é'][next(6)]
  for (let i = 0; i < 5_000; i += 1) {
    const value = {
      [`k${'y'.repeat(next(100))}`]: Array.from({ length: next(8) }, piece).join(''),
      after: [piece(), piece()],
    }
    const octets = Buffer.from(JSON.stringify(value))
    if (JSON.stringify(parseJson(octets)) !== octets.toString()) t.fail(octets.toString())
    // What follows is seen as what it is.
    const followed = Buffer.from(`${octets.toString().slice(0, -1)},"__proto__":1}`)
    t.throws(() => parseJson(followed), { message: /A name of a field is not accepted/ })
    const cut = octets.subarray(0, next(octets.length))
    t.throws(() => parseJson(cut), { code: 'request.malformed' })
  }
  t.end()
})

drill('no body of the largest size takes four times as long as an honest one', (t) => {
  const size = 4 * 1024 * 1024
  const dns = Array.from({ length: 100 }, (_, i) => `host-${i}.example.com`)
  const manyNames = Array.from({ length: 1_000 }, () => ({ csr: 'A'.repeat(1_500), profile: 'server', names: { dns } }))
  t.equal((parseJson(Buffer.from(JSON.stringify(manyNames)), largeBody) as unknown[]).length, 1_000)
  const cases = {
    'open arrays': '['.repeat(size),
    'empty arrays': `[${'[],'.repeat(size / 3)}[]]`,
    'empty objects': `[${'{},'.repeat(size / 3)}{}]`,
    numbers: `[${'1,'.repeat(size / 2)}1]`,
    'one string': `"${'x'.repeat(size - 2)}"`,
    'escaped quotes': `"${'\\"'.repeat(size / 2 - 1)}"`,
    backslashes: `"${'\\\\'.repeat(size / 2 - 1)}"`,
    'an endless string': `"${'\\"'.repeat(size / 2 - 1)}`,
    'short strings': `[${'"",'.repeat(size / 3)}""]`,
    'many keys': `{${Array.from({ length: 32_000 }, (_, i) => `"${i}":1`).join(',')}}`,
    'long keys': `{${Array.from({ length: 4_000 }, (_, i) => `"${String(i).padStart(1_000, 'k')}":1`).join(',')}}`,
    'a thousand requests': JSON.stringify({
      items: Array.from({ length: 1_000 }, () => ({ csr: 'A'.repeat(4_000), profile: 'server' })),
    }),
    'a thousand requests of a hundred names': JSON.stringify({ items: manyNames }),
  }
  const honest = cases['a thousand requests of a hundred names']
  isWithin(t, 4, { honest, cases, parse: (octets) => parseJson(octets, largeBody) })
  t.end()
})

t.test('YAML is plain data: no aliases, tags, merges, doubled keys or second documents', (t) => {
  const { stackTraceLimit } = Error
  t.same(parseYaml(Buffer.from('name: server\nkeys: [ { ec: [P-256] }, { ed25519: true } ]\nmax: 30d\nn: 3\n')), {
    name: 'server',
    keys: [{ ec: ['P-256'] }, { ed25519: true }],
    max: '30d',
    n: 3,
  })
  for (const text of [
    'a: &x 1\nb: *x\n',
    'a: !!binary aGk=\n',
    'a: !custom 1\n',
    'a: 1\na: 2\n',
    'a: 1\n---\nb: 2\n',
    '? [a]\n: 1\n',
    'a: [\n',
    'a: "\n',
    '\t- a\n',
    '',
    '[['.repeat(20),
    `${'- '.repeat(80)}a`,
    `${'? '.repeat(80)}a`,
  ]) {
    t.ok(refuses(text, parseYaml), JSON.stringify(text.slice(0, 30)))
  }
  for (const [text, detail, offset] of [
    ['a: 1\nb: [*.example.com]\n', /aliases are not accepted, so a text that begins with \* stands in quotes\.$/, 9],
    ['a: 1\n---\nb: 2\n', /: it has several documents\.$/, 5],
    ['a: !custom 1\n', /: a tag is not accepted\.$/, 3],
    ['? [a]\n: 1\n', /: the name of a field is no text\.$/, 2],
    ['[]{}[]{}', /: UNEXPECTED_TOKEN\.$/, 2],
  ] as const)
    t.throws(() => parseYaml(Buffer.from(text)), { code: 'request.malformed', detail, options: { offset } }, text)
  const inOneLine = (fields: number): Buffer => Buffer.from(`a: '${'b: '.repeat(fields - 1)}'`)
  t.same(Object.keys(parseYaml(inOneLine(2_048)) as object), ['a'])
  t.throws(() => parseYaml(inOneLine(2_049)), { code: 'request.malformed', detail: /too many values/ })
  const long = (octets: number): Buffer => Buffer.from('x'.repeat(octets))
  t.equal(String(parseYaml(long(16 * 1024))).length, 16 * 1024)
  t.throws(() => parseYaml(long(16 * 1024 + 1)), { code: 'request.too_large', detail: /send JSON\.$/ })
  const merged = parseYaml(Buffer.from('<<: { a: 1 }\nb: 2\n')) as object
  t.notOk(Object.hasOwn(merged, 'a'), '<< is a key like any other')
  const proto = parseYaml(Buffer.from('__proto__: { admin: true }\n')) as Record<string, unknown>
  t.equal(proto['admin'], undefined)
  t.equal(Error.stackTraceLimit, stackTraceLimit, 'and what is wrong elsewhere is told with where')
  t.end()
})

drill('no YAML of the largest size takes twice as long as an honest one, or breaks anything', (t) => {
  const size = 16 * 1024
  const cases = {
    'flow brackets': '['.repeat(size),
    'brackets that close nothing': '}'.repeat(size),
    'empty lists': '[]'.repeat(size / 2),
    'as many lists as are read': '[]'.repeat(2_040),
    'as many mappings': '{a: b}'.repeat(2_040),
    'keys in one line': 'a: '.repeat(size / 3),
    'block sequences': '- '.repeat(size / 2),
    'explicit keys': '? '.repeat(size / 2),
    'growing indentation': Array.from({ length: 200 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'),
    'short lines': 'a\n'.repeat(2_000),
    'many keys': Array.from({ length: 2_000 }, (_, i) => `k${i}: 1`).join('\n'),
    'many items': `[${'1,'.repeat(2_000)}1]`,
    'one long scalar': `a: ${'x'.repeat(size)}`,
    'one folded scalar': `a: >\n${'  x\n'.repeat(size / 4)}`,
    colons: ':'.repeat(size),
    comments: '#\n'.repeat(2_000),
    anchors: '&a '.repeat(size / 3),
    quotes: '"" '.repeat(size / 3),
    spaces: ' '.repeat(size),
  }
  const honest = '- a: b\n'.repeat(2_000)
  t.equal((parseYaml(Buffer.from(honest)) as unknown[]).length, 2_000)
  isWithin(t, 2, { honest, cases, parse: (octets) => parseYaml(octets.subarray(0, size)) })
  t.end()
})

/** Whether none of them takes so many times as long as what is honest, over five runs of both in turns. */
function isWithin(t: Pick<Tap, 'ok'>, times: number, { honest, cases, parse }: Load): void {
  for (const [name, text] of Object.entries(cases)) {
    const took = { honest: 0, hostile: 0 }
    for (let run = 0; run < 5; run++) {
      took.honest += cpuOf(() => quietly(() => parse(Buffer.from(honest))))
      took.hostile += cpuOf(() => quietly(() => parse(Buffer.from(text))))
    }
    t.ok(took.hostile < times * took.honest, `${name}: ${took.hostile.toFixed(1)} ms, beside ${took.honest.toFixed(1)}`)
  }
}

type Tap = typeof t

interface Load {
  readonly honest: string
  readonly cases: Readonly<Record<string, string>>
  readonly parse: (octets: Buffer) => unknown
}

function cpuOf(work: () => void): number {
  const before = cpu()
  work()
  return cpu() - before
}

function quietly(parse: () => unknown): void {
  try {
    parse()
  } catch (error) {
    if (!isProblem(error)) throw error
  }
}

t.test('whether a value holds more than so many is told by its members and items', async (t) => {
  const value = { a: [1, 2, { b: null }], c: 'text' }
  t.equal(isLargerThan(value, 6), false)
  t.equal(isLargerThan(value, 5), true)
  t.equal(isLargerThan(new Array(130_000).fill([0]), 8_192), true)
  for (const plain of [null, 'a text', 7]) t.equal(isLargerThan(plain, 0), false)
})
