/** Tiles, bundles and their paths, as c2sp.org/tlog-tiles has them. */
import fc from 'fast-check'
import t from 'tap'

import { isRollFault } from '../../src/tlog/fault.ts'
import {
  encodeBundle,
  encodeTile,
  encodeTilePath,
  isTileAt,
  parseBundle,
  parseTile,
  parseTilePath,
  type Tile,
  tilesAt,
  tilesBetween,
} from '../../src/tlog/tiles.ts'
import { leavesUpTo } from './hashing.ts'

const seed = 20261124

t.test('the paths of the specification', async (t) => {
  const cases: readonly (readonly [string, Tile])[] = [
    ['tile/0/x001/x234/067', { level: 0, index: 1_234_067, width: 256 }],
    ['tile/0/000', { level: 0, index: 0, width: 256 }],
    ['tile/63/999.p/255', { level: 63, index: 999, width: 255 }],
    ['tile/1/x001/000.p/1', { level: 1, index: 1000, width: 1 }],
    ['tile/entries/x123/456.p/17', { level: 'entries', index: 123_456, width: 17 }],
    ['tile/entries/000', { level: 'entries', index: 0, width: 256 }],
  ]
  for (const [path, tile] of cases) {
    t.equal(encodeTilePath(tile), path)
    t.same(parseTilePath(path), tile)
  }
})

t.test('one path for one tile: every other spelling is a fault', async (t) => {
  const bad = [
    '',
    'tile',
    'tile/',
    'tile/0',
    'tile/0/',
    'tile/0/0',
    'tile/0/00',
    'tile/0/0000',
    'tile/00/000',
    'tile/01/000',
    'tile/64/000',
    'tile/-1/000',
    'tile/+1/000',
    'tile/0x1/000',
    'tile/a/000',
    'tile/entry/000',
    'tile/Entries/000',
    'tile/0/000.p/257',
    'tile/0/x100/x000/x000/x000/x000/000',
    'tile/0/x000',
    'tile/0/x000/000',
    'tile/0/x000/067',
    'tile/0/001/067',
    'tile/0/x01/067',
    'tile/0/X001/067',
    'tile/0/x001/x067',
    'tile/0/x001//067',
    'tile/0/x009/x007/x199/x254/x740/x993/000',
    'tile/0/x009/x007/x199/x254/x740/993',
    'tile/0/000.p',
    'tile/0/000.p/',
    'tile/0/000.p/0',
    'tile/0/000.p/00',
    'tile/0/000.p/01',
    'tile/0/000.p/256',
    'tile/0/000.p/1000',
    'tile/0/000.p/-1',
    'tile/0/000.p/1/',
    'tile/0/000.P/1',
    'tile/0/000/',
    '/tile/0/000',
    'tile/0/000\n',
    'tile/0/000 ',
    'tile/0/000?x',
    'tile/0/٠٠٠',
    'tile/8/0/000',
    'tile/0/../000',
  ]
  for (const path of bad) t.throws(() => parseTilePath(path), { code: 'tile.path' }, JSON.stringify(path))
})

t.test('paths go both ways, and text of the same letters is a path or a fault', async (t) => {
  const level = fc.oneof(fc.nat({ max: 63 }), fc.constant('entries' as const))
  const index = fc.oneof(fc.nat({ max: 3000 }), fc.maxSafeNat())
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(level, index, fc.integer({ min: 1, max: 256 }), (level, index, width) => {
        const parsed = parseTilePath(encodeTilePath({ level, index, width } as Tile))
        return parsed.level === level && parsed.index === index && parsed.width === width
      }),
      { seed },
    ),
  )
  const letters = fc.string({ unit: fc.constantFrom('tile/', '0', '1', '6', 'x', '/', '.p/', 'entries', '000') })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(letters, (path) => {
        try {
          return encodeTilePath(parseTilePath(path)) === path
        } catch (error) {
          return isRollFault(error, 'tile.path')
        }
      }),
      { seed, numRuns: 20_000 },
    ),
  )
})

t.test('70,000 entries are the tiles that the specification counts', async (t) => {
  const tiles = [...tilesAt(70_000)]
  const count = (level: Tile['level']) => tiles.filter((tile) => tile.level === level).map(({ width }) => width)
  t.same(count(0), [...Array.from({ length: 273 }, () => 256), 112])
  t.same(count('entries'), count(0))
  t.same(count(1), [256, 17])
  t.same(count(2), [1])
  t.equal(tiles.length, 274 * 2 + 2 + 1)
  t.same([...tilesAt(256)].map(encodeTilePath), ['tile/entries/000', 'tile/0/000', 'tile/1/000.p/1'])
  t.same([...tilesAt(0)], [])
})

t.test('what is new between two sizes is what the larger one has and the smaller one has not', async (t) => {
  const size = fc.oneof(fc.nat({ max: 1000 }), fc.nat({ max: 70_000 }))
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(size, size, (a, b) => {
        const [from, to] = [Math.min(a, b), Math.max(a, b)]
        const before = new Set([...tilesAt(from)].map(encodeTilePath))
        const expected = [...tilesAt(to)].map(encodeTilePath).filter((path) => !before.has(path))
        const found = [...tilesBetween(from, to)]
        const isThere = found.every((tile) => isTileAt(tile, to)) && found.every((tile) => !isTileAt(tile, from))
        return isThere && JSON.stringify(found.map(encodeTilePath)) === JSON.stringify(expected)
      }),
      { seed, numRuns: 200 },
    ),
  )
})

t.test('a tile of hashes goes both ways, and has exactly its length', async (t) => {
  const hashes = leavesUpTo(17)
  const octets = encodeTile(hashes)
  t.equal(octets.length, 17 * 32)
  t.same(
    parseTile(octets, 17).map((hash) => Buffer.from(hash)),
    hashes,
  )
  for (const width of [16, 18, 0]) t.throws(() => parseTile(octets, width), { code: 'tile.octets' })
})

t.test('a bundle of entries goes both ways, and ends with its last entry', async (t) => {
  const longest = new Uint8Array(65_535).fill(7)
  const entries = [Uint8Array.of(1, 2, 3), new Uint8Array(0), longest]
  const octets = encodeBundle(entries)
  t.same([...octets.subarray(0, 7)], [0, 3, 1, 2, 3, 0, 0])
  t.same(parseBundle(octets, 3), entries)
  t.throws(() => parseBundle(octets, 2), { code: 'bundle.octets' })
  t.throws(() => parseBundle(octets, 4), { code: 'bundle.octets' })
  t.throws(() => parseBundle(octets.subarray(0, -1), 3), { code: 'bundle.octets' })
  t.throws(() => encodeBundle([new Uint8Array(65_536)]), RangeError)
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.integer({ min: 1, max: 256 }), (octets, width) => {
        try {
          return Buffer.compare(encodeBundle(parseBundle(octets, width)), octets) === 0
        } catch (error) {
          return isRollFault(error, 'bundle.octets')
        }
      }),
      { seed, numRuns: 5_000 },
    ),
  )
})
