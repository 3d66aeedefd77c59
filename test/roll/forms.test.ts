/** The form of every entry: what is written fits it, and nothing else does. */
import { readFileSync } from 'node:fs'

import fc from 'fast-check'
import t from 'tap'

import { canonicalJson } from '../../src/canonical.ts'
import { isRollFault } from '../../src/roll/fault.ts'
import { entryForms, parseEntry } from '../../src/roll/forms.ts'

const golden = readFileSync(new URL('entries.golden', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => line.split('\t')[2] as string)
const utf8 = new TextEncoder()
const parse = (text: string) => parseEntry(utf8.encode(text))

t.test('every entry of the golden file is read, of earlier versions too, and all types are there', async (t) => {
  const types = new Set(golden.map((text) => parse(text).type))
  t.same([...types].toSorted(), Object.keys(entryForms).toSorted())
  for (const text of golden) t.equal(canonicalJson(parse(text)), text)
})

/** One of each kind. */
const misfits: readonly unknown[] = [1, 'x', true, {}]

t.test('a field that is missing, unknown or of another kind is found, in every entry', async (t) => {
  const wrong: string[] = []
  const fits = (entry: object): boolean => {
    try {
      parse(canonicalJson(entry))
      return true
    } catch (error) {
      if (isRollFault(error, 'entry.form') || isRollFault(error, 'entry.type')) return false
      throw error
    }
  }
  for (const text of golden) {
    const entry: Record<string, unknown> = JSON.parse(text)
    const { type } = entry
    if (fits({ ...entry, more: 1 }) || fits({ ...entry, ['__proto__']: 1 })) wrong.push(`${type} takes another field`)
    for (const name of Object.keys(entry)) {
      const { [name]: value, ...rest } = entry
      if (fits(rest)) wrong.push(`${type} without ${name}`)
      if (fits({ ...rest, [`${name}s`]: value })) wrong.push(`${type} with ${name}s for ${name}`)
      // The name rules of a grant are any JSON; null is in a field's form or not.
      if (name === 'names' || value === null) continue
      for (const misfit of misfits)
        if (typeof misfit !== typeof value && fits({ ...rest, [name]: misfit }))
          wrong.push(`${type} with ${name} ${JSON.stringify(misfit)}`)
    }
  }
  t.same(wrong, [])
})

t.test('times are times, in one form', async (t) => {
  const at = (time: string) => () =>
    parse(`{"mode":"x","time":${JSON.stringify(time)},"type":"service.started","v":1,"version":"1"}`)
  t.equal(at('2028-02-29T23:59:59.999Z')().time, '2028-02-29T23:59:59.999Z')
  const bad = [
    '2026-02-29T00:00:00.000Z',
    '2026-01-01T24:00:00.000Z',
    '2026-01-01T00:00:60.000Z',
    '2026-1-1T00:00:00.000Z',
  ]
  for (const time of [
    ...bad,
    '2026-01-01T00:00:00Z',
    '2026-01-01T00:00:00.000+00:00',
    '+012026-01-01T00:00:00.000Z',
    '',
    'now',
  ])
    t.throws(at(time), { code: 'entry.form' }, time)
})

t.test('one text for one entry: white space, order, escapes and doubled names are found', async (t) => {
  const good = golden.find((text) => text.includes('token.created')) as string
  const bad = [
    `${good} `,
    `\ufeff${good}`,
    good.replace(':', ': '),
    good.replace('"v":1', '"v":1.0'),
    good.replace('"v":1', '"v":1,"v":1'),
    good.replace('ü', '\\u00fc'),
    good.replace('{"by":"admin",', '{').replace('"v":1}', '"v":1,"by":"admin"}'),
    '',
    'null',
    '1',
    '{}x',
  ]
  for (const text of bad) t.throws(() => parse(text), { code: 'entry.text' }, text)
  t.throws(() => parseEntry(Uint8Array.of(0xff)), { code: 'entry.text' })
  t.throws(() => parseEntry(new Uint8Array(65_536)), { code: 'entry.text' })
  t.throws(() => parse('{}'), { code: 'entry.type' })
})

t.test('rules of a grant may be nested as far as rules are', async (t) => {
  const good: Record<string, unknown> = JSON.parse(golden.find((text) => text.includes('grant.changed')) as string)
  const nested = (depth: number): unknown => (depth === 0 ? 1 : { x: nested(depth - 1) })
  const withNames = (names: unknown) => () => parse(canonicalJson({ ...good, names }))
  t.ok(withNames(nested(8))())
  t.throws(withNames(nested(9)), { code: 'entry.form' })
  const deep = canonicalJson(good).replace(/"names":\{.*?\}\}/, `"names":${'['.repeat(20_000)}${']'.repeat(20_000)}`)
  t.throws(() => parse(deep), { code: 'entry.form' })
})

t.test('whatever comes in, an entry or a fault comes out', async (t) => {
  const mutated = fc
    .tuple(fc.nat(golden.length - 1), fc.nat(400), fc.nat(255), fc.nat(3))
    .map(([which, at, value, cut]) => {
      const octets = Buffer.from(golden[which] as string)
      return Buffer.concat([octets.subarray(0, at), Buffer.of(value), octets.subarray(at + cut)])
    })
  const survives = fc.property(fc.oneof(mutated, fc.uint8Array()), (octets) => {
    try {
      return Buffer.from(canonicalJson(parseEntry(octets))).equals(octets)
    } catch (error) {
      return isRollFault(error)
    }
  })
  t.doesNotThrow(() => fc.assert(survives, { seed: 20261124, numRuns: 20_000 }))
})
