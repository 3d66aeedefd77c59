/** `chancery roll` where a newer version has written on the roll: it says so, and that what does not follow may follow from it. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { type CrlsIntended, encodeEntry } from '../../src/tlog/entries.ts'
import { inclusionProof } from '../../src/tlog/merkle.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { encodeProof } from '../../src/tlog/proof.ts'
import { encodeBundle, encodeTile, encodeTilePath, tilesAt } from '../../src/tlog/tiles.ts'
import { bare } from '../helpers/environment.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { hasher } from '../tlog/hashing.ts'
import { beginning, checkpointAt, event, issuer, roll, storedOf } from '../tlog/world.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-newer-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const at = (name: string): string => join(folder, name)
const write = async (name: string, octets: string | Uint8Array): Promise<void> => {
  await mkdir(dirname(at(name)), { recursive: true })
  await writeFile(at(name), octets)
}
const key = encodeVerifierKey(roll.key)
const chancery = (verb: string, ...args: readonly string[]): Promise<Run> =>
  runChancery(['roll', verb, ...args, '--key', key], { env: bare })

const time = new Date('2026-11-24T12:00:00.000Z')
const newer = canonicalJson({
  ...{ type: 'issuer.created', v: 9, issuer: 'next', authority: 'default', certificate: issuer.certificate },
  ...{ state: 'staged', by: 'admin', time: time.toISOString(), what: 'there is not yet' },
})
const lists = { ...(event.lists([0, 1, 4]) as CrlsIntended), issuer: 'next' }
const entries = [...beginning.map((one) => encodeEntry(one, time)), newer, encodeEntry(lists, time)].map(
  (text, index) => storedOf(index, text),
)
const leaves = encodeTile(entries.map(({ leaf }) => leaf))
for (const tile of tilesAt(entries.length))
  await write(
    encodeTilePath(tile),
    tile.level === 'entries' ? encodeBundle(entries.map(({ octets }) => octets)) : leaves,
  )
const checkpoint = await checkpointAt(entries, entries.length)
await write('checkpoint', checkpoint)

t.test('verify tells of the entry, of what does not follow without it, and with which version to verify', async (t) => {
  const { code, out } = await chancery('verify', '--from', folder)
  t.equal(code, exitCodes.refused)
  t.match(
    out,
    /^entry 4 entry\.type: its type is issuer\.created, its version 9\nentry 5 reference\.missing: there is no issuer next\n/,
  )
  t.match(out, /^An entry of a type or version .* newer Chancery: verify with the version that wrote it\. /m)
})

t.test('verify says nothing of it where only what is known is wrong', async (t) => {
  const shorter = entries.slice(0, 4).concat(storedOf(4, encodeEntry(lists, time)))
  for (const tile of tilesAt(shorter.length))
    await write(
      join('known', encodeTilePath(tile)),
      tile.level === 'entries'
        ? encodeBundle(shorter.map(({ octets }) => octets))
        : encodeTile(shorter.map(({ leaf }) => leaf)),
    )
  await write('known/checkpoint', await checkpointAt(shorter, shorter.length))
  const { code, out } = await chancery('verify', '--from', at('known'))
  t.equal(code, exitCodes.refused)
  t.match(out, /^entry 4 reference\.missing: /)
  t.notMatch(out, /newer/)
})

t.test('search does not say that there are no others, and with which version to search', async (t) => {
  t.match(await chancery('search', '--from', folder, '--name', 'web.example.com'), {
    code: exitCodes.refused,
    err: /^Entry 4 cannot be read: .* version 9; .* If it is, search with the version of Chancery that wrote it\.$/m,
  })
})

t.test('prove says that it is on the roll, and who knows what it is', async (t) => {
  const hashes = await inclusionProof(4, entries.length, async () => leaves, hasher)
  await write('proof', encodeProof({ index: 4, hashes, checkpoint }))
  await write('entry', newer)
  t.match(await chancery('prove', at('proof'), '--entry', at('entry')), {
    code: exitCodes.refused,
    err: /^This is on the roll, but no entry that is known here: .* version 9\. The version of Chancery that wrote it knows it\.$/m,
  })
})
