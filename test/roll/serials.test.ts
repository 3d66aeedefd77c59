/** The table of serials holds what was put in, exactly, whatever the serials look like. */
import { hash } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import { maxIssuers, openSerialTable, type SerialRecord, type Standing } from '../../src/roll/serials.ts'
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

t.test('it is as a map is, also after it was saved', async (t) => {
  const property = fc.property(fc.array(fc.tuple(serial, record), { maxLength: 3_000, size: 'max' }), (all) => {
    const map = new Map(all)
    const table = openSerialTable()
    for (const [key, value] of all) table.set(key, value)
    const again = openSerialTable(table.save())
    const isSame = [...map].every(([key, value]) =>
      [table, again].every((one) => JSON.stringify(one.find(key)) === JSON.stringify(value)),
    )
    return isSame && table.size === map.size && again.size === map.size && again.find('e'.repeat(32)) === undefined
  })
  t.doesNotThrow(() => fc.assert(property, { seed: 20261124, numRuns: 60 }))
})

t.test('a hundred thousand serials in a row, in pieces of a megabyte at most', async (t) => {
  const table = openSerialTable()
  for (let n = 0; n < 100_000; n += 1)
    table.set(n.toString(16).padStart(32, '0'), { index: n, issuer: 0, standing: 'issued' })
  const pieces = table.save()
  t.ok(pieces.every((piece) => piece.length <= 2 ** 20))
  t.equal(pieces.join('').length, 100_000 * 32)
  const again = openSerialTable(pieces)
  t.equal(again.size, 100_000)
  t.same(again.find((99_999).toString(16).padStart(32, '0')), { index: 99_999, issuer: 0, standing: 'issued' })
})

/** The last word of a serial by which those before it lead to the hash 0, for whoever does not know the seed. */
const meeting = (words: readonly number[]): string => {
  const [first, second] = [0x9e3779b1, 0x85ebca6b]
  let hash = 0
  for (const word of words) {
    hash = Math.imul(hash ^ word, first)
    hash ^= hash >>> 15
    hash = Math.imul(hash, second)
    hash ^= hash >>> 13
  }
  return [...words, hash].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')
}

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
