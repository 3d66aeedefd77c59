/** The form of every entry: what is written fits it, and nothing else does. */
import { readFileSync } from 'node:fs'

import fc from 'fast-check'
import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { isRollFault } from '../../src/tlog/fault.ts'
import { type EventType, entryForms, type Fields, parseEntry } from '../../src/tlog/forms.ts'

const golden = readFileSync(new URL('entries.golden', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => line.split('\t')[2] as string)
const utf8 = new TextEncoder()
const parse = (text: string) => parseEntry(utf8.encode(text))
const fits = (entry: object): boolean => {
  try {
    parse(canonicalJson(entry))
    return true
  } catch (error) {
    if (isRollFault(error, 'entry.form') || isRollFault(error, 'entry.type')) return false
    throw error
  }
}
/** The first of its type that has this field. */
const example = (type: EventType, field = 'type'): Record<string, unknown> =>
  JSON.parse(golden.find((text) => text.includes(`"type":"${type}"`) && text.includes(`"${field}":`)) as string)

t.test('every entry of the golden file is read, and all types are there', async (t) => {
  const types = new Set(golden.map((text) => parse(text).type))
  t.same([...types].toSorted(), Object.keys(entryForms).toSorted())
  for (const text of golden) t.equal(canonicalJson(parse(text)), text)
})

/** One of each kind. */
const misfits: readonly unknown[] = [1, 'x', true, {}]

t.test('a field that is missing, unknown or of another kind is found, in every entry', async (t) => {
  const wrong: string[] = []
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

t.test('a field is null where its form says so, and nowhere else', async (t) => {
  const wrong: string[] = []
  for (const text of golden) {
    const entry: Record<string, unknown> = JSON.parse(text)
    const form = entryForms[entry['type'] as EventType]
    const fields: Fields = form.fields
    for (const name of Object.keys(entry))
      if (fits({ ...entry, [name]: null }) !== /(^JSON|, or null)$/.test(fields[name]?.title ?? ''))
        wrong.push(`${entry['type']} ${entry['v']} with ${name} null`)
  }
  t.same(wrong, [])
})

/** Of a field of an entry: what it may nearly be, but not quite, and what it may just be. */
const borders: readonly (readonly [EventType, string, { readonly good: unknown[]; readonly bad: unknown[] }])[] = [
  ['issuance.abandoned', 'shard', { good: [0, 2 ** 53 - 1], bad: [-1, 0.5, 2 ** 53] }],
  [
    'crl.imported',
    'number',
    { good: ['0', '9'.repeat(64)], bad: ['', '00', '01', '-1', '1.0', '9'.repeat(65), '1\n'] },
  ],
  [
    'certificate.released',
    'serial',
    { good: ['0'.repeat(32), 'f'.repeat(32)], bad: ['0'.repeat(31), '0'.repeat(33), 'F'.repeat(32), 'g'.repeat(32)] },
  ],
  [
    'request.expired',
    'plan',
    { good: ['0'.repeat(64), 'f'.repeat(64)], bad: ['0'.repeat(63), '0'.repeat(65), 'F'.repeat(64), 'g'.repeat(64)] },
  ],
  [
    'issuer.created',
    'certificate',
    { good: ['AA==', 'A'.repeat(64_000)], bad: ['', 'AA', 'AB==', 'A A=', 'AAAA\n', '-_-_'] },
  ],
  ['issuer.created', 'shards', { good: [1, 128, 1024], bad: [0, -1, 1.5, '1', 2 ** 53] }],
  ['issuer.created', 'state', { good: ['crl-only'], bad: ['', 'Active', 'crl'] }],
  ['token.created', 'expires', { good: [null], bad: [''] }],
  ['request.expired', 'id', { good: [''], bad: [] }],
  ['revocations.ordered', 'search', { good: [{}], bad: [[], { profile: 1 }] }],
  ['issuer.chained', 'chains', { good: [[], [[]]], bad: [{}, ['0'.repeat(64)], [['0'.repeat(63)]]] }],
  ['crls.intended', 'lists', { good: [[]], bad: [[{}], [null]] }],
  ['key.opened', 'attributes', { good: [{}, { local: null }], bad: [{ local: 'yes' }, [true]] }],
]

t.test('what a field may just be it may, and what it may nearly be it may not', async (t) => {
  for (const [type, name, { good, bad }] of borders)
    for (const [values, isGood] of [[good, true] as const, [bad, false] as const])
      for (const value of values)
        t.equal(
          fits({ ...example(type, name), [name]: value }),
          isGood,
          `${type} with ${name} ${JSON.stringify(value).slice(0, 80)}`,
        )
})

t.test('it says where an entry does not fit', async (t) => {
  const lists = example('crls.intended')['lists'] as object[]
  const details: readonly (readonly [object, string])[] = [
    [{ ...example('crls.intended'), lists: [...lists, { ...lists[0], shard: -1 }] }, '/lists/1/shard is not a count'],
    [{ ...example('profile.changed'), profile: { name: 'x' } }, '/profile/version is missing'],
    [
      { ...example('profile.changed'), profile: { name: 'x', version: 1, constructor: 1 } },
      '/profile/constructor is not known',
    ],
    [{ ...example('grant.changed'), limits: { day: '1' } }, '/limits/day is not a count'],
    [{ ...example('token.created'), toString: 1 }, '/toString is not known'],
  ]
  for (const [entry, where] of details)
    t.throws(() => parse(canonicalJson(entry)), {
      code: 'entry.form',
      detail: `${(entry as { type: string }).type}: ${where}`,
    })
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
  for (const [type, v, detail] of [
    ['"service.started"', '9', 'its type is service.started, its version 9'],
    ['"service.started"', '"1"', 'its type is service.started, its version 1'],
    ['"toString"', '1', 'its type is toString, its version 1'],
    [deep, '1', 'its type is none, its version 1'],
    ['1', deep, 'its type is 1, its version none'],
  ])
    t.throws(() => parse(`{"type":${type},"v":${v}}`), { code: 'entry.type', detail })
})

/** A day and a time that there is: Date takes others for those that come after them. */
const isTime = (time: string): boolean => {
  const date = new Date(time)
  return !Number.isNaN(date.getTime()) && date.toISOString() === time
}

t.test('times are times, in one form', async (t) => {
  const twos = Array.from({ length: 100 }, (_, i) => `${i}`.padStart(2, '0'))
  const days = ['0000', '1900', '2000', '2024', '2026', '9999'].flatMap((year) =>
    twos.slice(0, 14).flatMap((month) => twos.slice(0, 33).map((day) => `${year}-${month}-${day}T23:59:59.999Z`)),
  )
  const others = twos.flatMap((n) => [`${n}:00:00`, `00:${n}:00`, `00:00:${n}`].map((of) => `2026-01-01T${of}.000Z`))
  const wrong = [...days, ...others].filter((time) => {
    const whole = time.replace(/\.\d+/, '')
    const isSecond = fits({ ...example('certificate.revoked'), revokedAt: whole })
    return fits({ ...example('service.started'), time }) !== isTime(time) || isSecond !== isTime(time)
  })
  t.same(wrong, [])
  const bad = ['2026-1-1T00:00:00.000Z', '2026-01-01T00:00:00.000+00:00', '+012026-01-01T00:00:00.000Z', '', 'now']
  for (const time of [...bad, '2026-01-01T00:00:00Z', '2026-01-01T00:00:00.0000Z'])
    t.notOk(fits({ ...example('service.started'), time }), time)
  for (const revokedAt of [...bad, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00Z'])
    t.notOk(fits({ ...example('certificate.revoked'), revokedAt }), revokedAt)
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
  const longest = { ...example('service.started'), mode: '' }
  const room = 65_535 - canonicalJson(longest).length
  const withMode = (octets: number) => () => parse(canonicalJson({ ...longest, mode: 'x'.repeat(octets) }))
  t.ok(withMode(room)())
  t.throws(withMode(room + 1), { code: 'entry.text' })
  t.throws(() => parse('{}'), { code: 'entry.type' })
})

t.test('rules of a grant may be nested as far as rules are', async (t) => {
  const good: Record<string, unknown> = JSON.parse(golden.find((text) => text.includes('grant.changed')) as string)
  const nested = (depth: number): unknown => (depth === 0 ? 1 : { x: nested(depth - 1), y: 1 })
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
