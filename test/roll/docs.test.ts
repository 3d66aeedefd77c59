/** docs/roll.md: its tables are those of the code, and its example does what it says. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { emptyEdge, extend } from '../../src/roll/edge.ts'
import { encodeVerifierKey } from '../../src/roll/note.ts'
import { encodeProof } from '../../src/roll/proof.ts'
import { withTables } from '../../tools/roll.ts'
import { hasher } from './hashing.ts'
import { beginning, checkpointAt, entriesOf, roll } from './world.ts'

const page = await readFile(new URL('../../docs/roll.md', import.meta.url), 'utf8')

t.test('it has every entry, fault and finding as the tables of the code have it, and no other', async (t) => {
  t.equal(page, withTables(page), 'node tools/roll.ts writes it anew')
  t.match(page, /\| `certificate\.issued` \| 1 \| `serial`: a serial;/)
})

t.test('its example verifies a proof, and says so when it does not hold', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-docs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const [, example = ''] = /<!-- docs-test: verify -->\n```ts\n([\s\S]*?)```/.exec(page) ?? []
  const source = join(import.meta.dirname, '../../src')
  await writeFile(join(folder, 'example.ts'), example.replaceAll("'./src/", `'${source}/`))
  const entries = entriesOf(beginning)
  const { proof } = extend(
    emptyEdge(hasher),
    entries.map(({ leaf }) => leaf),
    hasher,
  )
  const checkpoint = await checkpointAt(entries, 4)
  const run = async (entry: Uint8Array): Promise<string> => {
    await writeFile(join(folder, 'entry.json'), entry)
    const options = { cwd: folder }
    return (await promisify(execFile)(process.execPath, ['--no-warnings', 'example.ts'], options)).stdout
  }
  await writeFile(join(folder, 'roll.key'), `${encodeVerifierKey(roll.key)}\n`)
  await writeFile(join(folder, 'entry.tlog-proof'), encodeProof({ index: 2, hashes: proof(2), checkpoint }))
  t.equal(await run(entries[2]?.octets as Uint8Array), 'entry 2 of 4\n')
  t.equal(await run(entries[1]?.octets as Uint8Array), 'entry 2 does not lead to the root of 4 entries\n')
})
