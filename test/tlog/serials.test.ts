/** The table of serials holds what was put in, exactly, whatever the serials look like. */
import { hash } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import { maxIssuers, openSerialTable, type SerialRecord, type Standing } from '../../src/tlog/serials.ts'
import { cpu } from '../helpers/cpu.ts'

const standings: readonly Standing[] = ['issued', 'abandoned', 'held', 'revoked', 'compromised']
const record: fc.Arbitrary<SerialRecord> = fc.record({
  index: fc.oneof(
    fc.nat(),
    fc.nat({ max: 255 }).map((high) => high * 2 ** 32 + 0xffff_fffe),
  ),
  issuer: fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: maxIssuers - 1 })),
  standing: fc.constantFrom(...standings),
})
/** Random ones, and such as differ in one digit alone. */
const serial = fc.oneof(
  fc.nat({ max: 5_000 }).map((n) => hash('sha256', `${n}`).slice(0, 32)),
  fc
    .tuple(fc.nat({ max: 31 }), fc.nat({ max: 15 }))
    .map(([at, digit]) => `${'0'.repeat(at)}${digit.toString(16)}`.padEnd(32, '0')),
  fc.nat({ max: 5_000 }).map((n) => n.toString(16).padStart(32, 'f')),
)

/** Of each opening its own: what is saved does not depend on it. */
const seed = fc.nat({ max: 2 ** 32 - 1 })

t.test('it is as a map is, also after it was saved', async (t) => {
  const records = fc.array(fc.tuple(serial, record), { maxLength: 3_000, size: 'max' })
  const property = fc.property(records, fc.tuple(seed, seed), (all, [first, second]) => {
    const map = new Map(all)
    const table = openSerialTable([], first)
    for (const [key, value] of all) table.set(key, value)
    const again = openSerialTable(table.save(), second)
    const isSame = [...map].every(([key, value]) =>
      [table, again].every((one) => JSON.stringify(one.find(key)) === JSON.stringify(value)),
    )
    return isSame && table.size === map.size && again.size === map.size && again.find('e'.repeat(32)) === undefined
  })
  t.doesNotThrow(() => fc.assert(property, { seed: 20261124, numRuns: 60 }))
})

t.test('what is put in twice is told, and stays as it was', async (t) => {
  const table = openSerialTable([], 0x1234abcd)
  const first: SerialRecord = { index: 2 ** 32 + 1, issuer: 7, standing: 'issued' }
  const other: SerialRecord = { index: 2 ** 32 + 2, issuer: 8, standing: 'revoked' }
  t.equal(table.add('5'.repeat(32), first), undefined)
  t.same(table.add('5'.repeat(32), other), first)
  t.same(table.find('5'.repeat(32)), first)
  t.equal(table.size, 1)
})

t.test('what was saved is read for ever', async (t) => {
  const table = openSerialTable(['AQAAAAIAAAADAAAABAAAAAYAAAA7AAAB'])
  const record = { index: 2 ** 32 + 6, issuer: 7, standing: 'held' } as const
  t.same(table.find('00000001000000020000000300000004'), record)
})

t.test('a hundred thousand serials in a row', async (t) => {
  const table = openSerialTable()
  for (let n = 0; n < 100_000; n += 1)
    table.set(n.toString(16).padStart(32, '0'), { index: n, issuer: 0, standing: 'issued' })
  const pieces = table.save()
  t.equal(pieces.join('').length, 100_000 * 32)
  const again = openSerialTable(pieces)
  t.equal(again.size, 100_000)
  t.same(again.find((99_999).toString(16).padStart(32, '0')), { index: 99_999, issuer: 0, standing: 'issued' })
})

/** What the table makes of the words of a serial, where the seed is 0. */
const stir = (words: readonly number[]): number => {
  let hash = 0
  for (const word of words) {
    hash = Math.imul(hash ^ word, 0x9e3779b1)
    hash ^= hash >>> 15
    hash = Math.imul(hash, 0x85ebca6b)
    hash ^= hash >>> 13
  }
  return hash >>> 0
}
const serialOf = (words: readonly number[]): string =>
  words.map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')

t.test('serials that fill one part of the table are saved in pieces of a megabyte at most', async (t) => {
  const table = openSerialTable()
  const serials: string[] = []
  // The first 6 bits of what is stirred say which of the 64 parts.
  for (let word = 0; serials.length < 40_000; word += 1)
    if (stir([word]) < 2 ** 26) serials.push(serialOf([0, 0, 0, word]))
  for (const [index, serial] of serials.entries()) table.set(serial, { index, issuer: 0, standing: 'issued' })
  const pieces = table.save()
  t.same(
    pieces.map((piece) => piece.length),
    [2 ** 20, (40_000 - 2 ** 15) * 32],
  )
  const again = openSerialTable(pieces)
  t.equal(again.size, 40_000)
  t.ok(serials.every((serial, index) => again.find(serial)?.index === index))
})

/** The last word of a serial by which those before it lead to the hash 0, for whoever does not know the seed. */
const meeting = (words: readonly number[]): string => serialOf([...words, stir(words)])

t.test('serials that were chosen to meet in one slot do not', async (t) => {
  const serials = Array.from({ length: 10_000 }, (_, i) => meeting([0x40000000 + i, i * 7, i * 13]))
  const record = { index: 1, issuer: 0, standing: 'issued' } as const
  const timeOf = (seed: number): number => {
    const table = openSerialTable([], seed)
    const start = cpu()
    for (const serial of serials) table.add(serial, record)
    t.equal(table.size, serials.length)
    return cpu() - start
  }
  const known = timeOf(0)
  const others = timeOf(0x1234abcd)
  t.ok(others * 3 < known, `${others} ms, and ${known} ms where the seed is known`)
})
