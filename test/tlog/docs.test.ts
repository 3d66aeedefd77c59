/** docs/roll.md: its tables are those of the code, and its example does what it says. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { encodeProof } from '../../src/tlog/proof.ts'
import { encodeBundle } from '../../src/tlog/tiles.ts'
import { withTables } from '../../tools/roll.ts'
import { hasher, newSigner } from './hashing.ts'
import { beginning, checkpointAt, entriesOf, roll } from './world.ts'

const page = await readFile(new URL('../../docs/roll.md', import.meta.url), 'utf8')

t.test('it has every entry, fault and finding as the tables of the code have it, and no other', async (t) => {
  t.equal(page, withTables(page), 'node tools/roll.ts writes it anew')
  t.match(page, /\| `certificate\.issued` \| `serial`: a serial;/)
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

t.test('its script reads an export alone, and takes none that lacks or changes an entry', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-alone-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const [, script = ''] = /<!-- docs-test: alone -->\n```js\n([\s\S]*?)```/.exec(page) ?? []
  await writeFile(join(folder, 'roll.mjs'), script)
  await writeFile(join(folder, 'roll.key'), `${encodeVerifierKey(roll.key)}\n`)
  const entries = entriesOf(Array.from({ length: 150 }, () => beginning).flat())
  t.ok(entries.length > 512, 'more than two bundles')
  const octets: readonly Uint8Array[] = entries.map((entry) => entry.octets)
  const put = async (size: number, stored = octets): Promise<void> => {
    await mkdir(join(folder, 'tile/entries'), { recursive: true })
    for (let at = 0; at < size; at += 256) {
      const bundle = stored.slice(at, Math.min(at + 256, size))
      const name = join(folder, 'tile/entries', String(at / 256).padStart(3, '0'))
      const file = bundle.length < 256 ? join(`${name}.p`, String(bundle.length)) : name
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, encodeBundle(bundle))
    }
    await writeFile(join(folder, 'checkpoint'), await checkpointAt(entries, size))
  }
  const run = async () =>
    await promisify(execFile)(process.execPath, ['roll.mjs', '.', 'roll.key', 'kept'], {
      cwd: folder,
      timeout: 20_000,
    }).catch((error: { readonly stdout: string; readonly stderr: string }) => error)
  await writeFile(join(folder, 'kept'), await checkpointAt(entries, 300))
  await put(520)
  const whole = await run()
  t.match(whole.stderr, /^520 entries of .*: all that .\/checkpoint, kept stand for\n$/)
  t.equal(
    whole.stdout,
    entries
      .slice(0, 520)
      .map((entry) => `${Buffer.from(entry.octets)}\n`)
      .join(''),
  )

  await put(520, octets.with(77, octets[78] as Uint8Array))
  t.match((await run()).stderr, /Error: kept is of another roll/, 'as soon as it shows')
  await put(520, octets.toSpliced(400, 1, octets[401] as Uint8Array))
  t.match((await run()).stderr, /Error: \.\/checkpoint is of another roll/)
  const tail = join(folder, 'tile/entries/002.p/8')
  const bundleOf = (to: number) => encodeBundle(octets.slice(512, to))
  for (const [why, stored] of [
    ['more entries than the checkpoint has', bundleOf(523)],
    ['less', bundleOf(519)],
    ['nothing', bundleOf(512)],
    ['half a length', Buffer.concat([bundleOf(520), Buffer.of(0)])],
  ] as const) {
    await put(520)
    await writeFile(tail, stored)
    const { stderr } = await run()
    t.match(stderr, /Error: \.\/tile\/entries\/002\.p\/8 is not 8 entries/, why)
    t.notMatch(stderr, /stand for/)
  }
  await put(299)
  t.match((await run()).stderr, /Error: kept is of 300 entries, and \.\/checkpoint of 299/, 'an end that was cut off')

  await put(520)
  await writeFile(join(folder, 'kept'), (await checkpointAt(entries, 300)).replace('\n300\n', '\n299\n'))
  t.match((await run()).stderr, /Error: kept is not signed by/)
  const pluses = /[A-Za-z\d/]\+\w{8}\+\w/
  let other = encodeVerifierKey(newSigner(roll.key.name).key)
  while (!pluses.test(other.slice(-44))) other = encodeVerifierKey(newSigner(roll.key.name).key)
  await writeFile(join(folder, 'roll.key'), `${other}\n`)
  t.match((await run()).stderr, /Error: \.\/checkpoint is not signed by/, 'base64 has pluses of its own')
})
