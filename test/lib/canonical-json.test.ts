import fc from 'fast-check'
import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'

t.test('members are sorted by UTF-16 units, not by code points (RFC 8785 3.2.3)', async (t) => {
  const value = {
    '\u20ac': 'Euro Sign',
    '\r': 'Carriage Return',
    '\ufb33': 'Hebrew Letter Dalet With Dagesh',
    '1': 'One',
    '\ud83d\ude00': 'Emoji: Grinning Face',
    '\u0080': 'Control',
    '\u00f6': 'Latin Small Letter O With Diaeresis',
  }
  t.equal(
    canonicalJson(value),
    '{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis","\u20ac":"Euro Sign","\ud83d\ude00":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}',
  )
})

t.test('the example of RFC 8785 3.2.2 comes out octet for octet', async (t) => {
  const value = {
    // biome-ignore lint/correctness/noPrecisionLoss: the RFC's own numbers.
    numbers: [333333333.33333329, 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
    string: '\u20ac$\u000f\u000aA\'\u0042\u0022\u005c\\"\u002f',
    literals: [null, true, false],
  }
  t.equal(
    canonicalJson(value),
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
  )
})

t.test('numbers are written as ECMAScript writes them (RFC 8785 appendix B)', async (t) => {
  for (const [value, text] of [
    [-0, '0'],
    [5e-324, '5e-324'],
    [1.7976931348623157e308, '1.7976931348623157e+308'],
    [9007199254740992, '9007199254740992'],
    [295147905179352830000, '295147905179352830000'],
    [1e21, '1e+21'],
    [1e-7, '1e-7'],
  ] as const) {
    t.equal(canonicalJson(value), text)
  }
})

t.test('what is not plain JSON has no canonical form', async (t) => {
  for (const value of [
    Number.NaN,
    Number.POSITIVE_INFINITY,
    undefined,
    1n,
    Symbol('s'),
    () => 0,
    '\ud800',
    { '\udc00': 1 },
    { a: [{ b: 'x\udfff' }], c: 1 },
    [undefined],
    { a: undefined },
    new Date(0),
    new Map(),
    Buffer.from('x'),
    new Array(2),
  ]) {
    t.throws(() => canonicalJson(value), TypeError)
  }
})

t.test('an object without a prototype is plain', async (t) => {
  t.equal(canonicalJson(Object.assign(Object.create(null), { b: 1, a: [] })), '{"a":[],"b":1}')
})

t.test('text that looks like an escaped surrogate is text, and pairs are written as they are', async (t) => {
  t.equal(canonicalJson({ a: '\\ud800', b: 1 }), '{"a":"\\\\ud800","b":1}')
  t.equal(canonicalJson(['\\\\udfff', '\ud83d\ude00']), '["\\\\\\\\udfff","\ud83d\ude00"]')
})

t.test('it is a fixed point, and the order of members never matters', async (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = canonicalJson(value)
      const shuffled = JSON.parse(text, (_key, member: unknown) =>
        typeof member === 'object' && member !== null && !Array.isArray(member)
          ? Object.fromEntries(Object.entries(member).reverse())
          : member,
      )
      return canonicalJson(shuffled) === text && canonicalJson(JSON.parse(text)) === text
    }),
    { seed: 8785, numRuns: 500 },
  )
  t.pass('held')
})
