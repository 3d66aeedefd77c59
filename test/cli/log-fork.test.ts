/** `chancery roll verify` that goes on with a state from before, where the roll there is another one by now, or is damaged. */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { openReport } from '../../src/auditor/findings.ts'
import type { RollSource } from '../../src/auditor/source.ts'
import { type GivenNote, openStateFolder } from '../../src/auditor/state.ts'
import { verifySource } from '../../src/auditor/verify.ts'
import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeEntry } from '../../src/tlog/entries.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { encodeBundle, encodeTile, encodeTilePath, hashesPerTile, tilesAt } from '../../src/tlog/tiles.ts'
import { hasher, newSigner } from '../tlog/hashing.ts'

const signer = newSigner('fork.example/roll')
const state = await mkdtemp(join(tmpdir(), 'chancery-fork-'))
t.teardown(() => rm(state, { recursive: true, force: true }))

/** Principals of these names, one after the other, as files of tiles of two levels. */
const rollOf = async (names: readonly string[]): Promise<RollSource> => {
  const entries = names.map((principal, i) =>
    Buffer.from(encodeEntry({ type: 'principal.created', principal, by: 'admin' }, new Date(1_700_000_000_000 + i))),
  )
  const leaves = entries.map((entry) => hasher.leaf(entry))
  const { edge, completed } = extend(emptyEdge(hasher), leaves, hasher)
  const above = completed.filter(({ level }) => level === 1).map(({ hash }) => hash)
  const files = new Map<string, Uint8Array>()
  for (const tile of tilesAt(names.length)) {
    const first = tile.index * hashesPerTile
    const end = first + tile.width
    const octets =
      tile.level === 'entries'
        ? encodeBundle(entries.slice(first, end))
        : encodeTile((tile.level === 0 ? leaves : above).slice(first, end))
    files.set(encodeTilePath(tile), octets)
  }
  const checkpoint = { origin: signer.key.name, size: names.length, root: edge.root }
  files.set('checkpoint', Buffer.from(await signCheckpoint(checkpoint, signer)))
  const read = async (path: string) => {
    const octets = files.get(path)
    return octets && Buffer.from(octets)
  }
  return { name: 'there', isServed: false, read }
}

const named = (prefix: string, from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `${prefix}${from + i}`)

const verify = async (source: RollSource, checkpoints: readonly GivenNote[] = [], folder = state) => {
  const report = openReport()
  const verified = await verifySource({
    ...{ source, keys: { roll: [signer.key], witnesses: [] }, checkpoints, tell: report.tell },
    state: await openStateFolder(folder),
    progress: () => {},
  })
  return { ...verified, findings: report.findings() }
}

t.test(
  'a roll that has not grown out of what was verified before is said to be another one, and read by itself',
  async (t) => {
    t.match(await verify(await rollOf(named('a', 0, 700))), { from: 0, size: 700, findings: { length: 0 } })
    const longer = await rollOf([...named('a', 0, 300), ...named('b', 300, 1_100)])
    const other = {
      index: 700,
      code: 'checkpoint.root',
      message: /^the 1100 entries there are have not grown out of the 700 that were verified before/,
    }
    const found = await verify(longer)
    t.match(found, { from: 0, size: 1_100, findings: [other, { index: 700, code: 'checkpoint.root' }] })
    t.equal(found.findings.length, 2, 'no tile of it is called wrong, and no entry')
    const root = (await longer.read('checkpoint'))?.toString().split('\n')[2]
    t.equal(found.root, root, 'and its root is its own')

    for (const name of await readdir(join(state, 'checkpoints'))) await rm(join(state, 'checkpoints', name))
    t.match(await verify(longer), { findings: [other] }, 'also where the checkpoints were taken away')
    const size = await rollOf([...named('a', 0, 300), ...named('c', 300, 700)])
    t.match(
      await verify(size),
      { from: 0, findings: [{ index: 700, code: 'checkpoint.root' }, {}] },
      'or has the same size',
    )
    t.match(
      await verify(await rollOf(named('a', 0, 900))),
      { from: 700, findings: [{}, {}] },
      'the state is still that of the first',
    )
    const note = (await (await rollOf(named('b', 0, 500))).read('checkpoint')) as Buffer
    t.match(
      await verify(await rollOf(named('a', 0, 700)), [{ note, name: 'by-others' }]),
      { from: 700, findings: [{ index: 500, code: 'checkpoint.root', message: /\(by-others\)$/ }, {}] },
      'what an older checkpoint is in is named',
    )
  },
)

t.test('tiles above the leaves are compared from the beginning, also with what was verified before', async (t) => {
  const whole = await rollOf(named('a', 0, 700))
  const upper = encodeTilePath({ level: 1, index: 0, width: 2 })
  const damaged = (alter: (octets: Buffer) => Buffer | undefined): RollSource => ({
    ...whole,
    read: async (path) => {
      const octets = await whole.read(path)
      return path === upper && octets ? alter(octets) : octets
    },
  })
  for (const size of [0, 300, 600]) {
    const folder = await mkdtemp(join(state, 'whole-'))
    if (size > 0) await verify(await rollOf(named('a', 0, size)), [], folder)
    for (const [alter, finding] of [
      [(octets: Buffer) => octets.fill(0, 0, 1), { index: 0, until: 256, code: 'tile.hash' }],
      [(octets: Buffer) => octets.fill(0, 32, 33), { index: 256, until: 512, code: 'tile.hash' }],
      [() => undefined, { index: 0, until: 512, code: 'tile.missing' }],
    ] as const)
      t.match(await verify(damaged(alter), [], folder), { from: size, findings: [finding] }, `from ${size} on`)
    t.match(await verify(whole, [], folder), { from: size, findings: { length: 0 } }, 'and nothing else is wrong')
  }
})
