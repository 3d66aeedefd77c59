/** JSON bodies that are refused though JSON.parse takes them, and bounds that hold before anything is built. */
import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { largeBody, parseJson, smallBody } from '../../src/http/json.ts'

const refuses = (text: string | Buffer, parse: (octets: Buffer) => unknown = parseJson): boolean => {
  try {
    parse(Buffer.from(text as string))
    return false
  } catch (error) {
    return isProblem(error, 'request.malformed')
  }
}

t.test('what JSON.parse takes comes out the same, unless a name is escaped or forbidden', (t) => {
  const isPlainName = (name: string): boolean =>
    !JSON.stringify(name).includes('\\') && !['__proto__', 'constructor', 'prototype'].includes(name)
  const hasPlainNames = (input: unknown): boolean =>
    typeof input !== 'object' ||
    input === null ||
    Object.entries(input).every(([name, member]) => isPlainName(name) && hasPlainNames(member))
  const value = fc.jsonValue({ maxDepth: 4, noUnicodeString: false, stringUnit: 'binary' }).filter(hasPlainNames)
  fc.assert(
    fc.property(value, fc.constantFrom(undefined, 1, '\t'), (input, indent) => {
      const text = JSON.stringify(input, null, indent)
      t.strictSame(parseJson(Buffer.from(text)), JSON.parse(text))
    }),
    { numRuns: 500 },
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
    { numRuns: 1_000 },
  )
  t.end()
})

t.test('names that are doubled, escaped or that touch prototypes are refused at any depth', (t) => {
  for (const text of [
    '{"a":1,"a":2}',
    '{"b":[{"a":1,"c":{},"a":2}]}',
    '{"a":1,"\\u0061":2}',
    '{"__proto__":{}}',
    '{"x":{"constructor":{"prototype":{}}}}',
    '[{"prototype":1}]',
  ])
    t.ok(refuses(text), text)
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
  const { fields } = largeBody
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
  t.ok(refuses(Buffer.from([0xef, 0xbb, 0xbf, 0x7b, 0x7d])), 'a byte order mark')
  t.ok(refuses(`"${'\\"'.repeat(1_000)}`), 'a string without an end')
  t.end()
})
