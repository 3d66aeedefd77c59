/** `chancery roll` over the roll of a real service, by its API, its public listener, and folders that were exported from it. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import pg from 'pg'
import t from 'tap'

import { exportRoll } from '../../src/auditor/export.ts'
import { openReport } from '../../src/auditor/findings.ts'
import { readKeys } from '../../src/auditor/keys.ts'
import { openSource } from '../../src/auditor/source.ts'
import { verifySource } from '../../src/auditor/verify.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { encodeTilePath, type Tile, tilesAt } from '../../src/tlog/tiles.ts'
import { openTestStores } from '../db/stores.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { envFor, putCommand, type Run, runChancery } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from '../http/people.ts'
import { newSigner, sha256 } from '../tlog/hashing.ts'

t.setTimeout(300_000)
const { service, issue } = await openTestStores(t, { CHANCERY_ROLL_PUBLIC: 'yes' })
const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const at = (...names: readonly string[]): string => join(folder, ...names)

const run = (args: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<Run> =>
  runChancery(['roll', ...args], {
    env: { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url, ...more },
    maxBuffer: 2 ** 26,
  })
const chancery = (...args: readonly string[]): Promise<Run> => run(args)

/** Two hundred and more, so that full tiles come about. */
const issueMany = async (what: string, count: number): Promise<void> => {
  await Promise.all(Array.from({ length: count }, (_, i) => issue([`dns:${what}${i}.example.com`])))
}

const sizeOf = async (name: string): Promise<number> =>
  Number((await readFile(at(name, 'checkpoint'), 'utf8')).split('\n')[1])

await issueMany('first', 300)
const key = at('roll.key')
const told = await chancery('key')
await writeFile(key, told.out)

t.test('the key and the checkpoint are those of the service', async (t) => {
  const { json } = await service.request('GET', '/v1/events?type=roll.opened')
  t.equal(told.out, `${JSON.parse(json.items[0].entry).key}\n`)
  const { text } = await service.request('GET', '/roll/checkpoint')
  t.match(await chancery('checkpoint', '--key', key), { code: 0, out: text, err: /^$/ })
  const asJson = JSON.parse((await chancery('checkpoint', '--key', told.out.trim(), '--json')).out)
  t.match(asJson, { origin: /\/roll$/, witnesses: { length: 0 }, note: text })
  const stranger = encodeVerifierKey(newSigner('elsewhere/roll').key)
  t.match(await chancery('checkpoint', '--key', stranger), { code: exitCodes.refused, err: /none of this roll/ })
  t.match(await chancery('checkpoint'), {
    code: exitCodes.usage,
    err: /^No key of the roll is given: --key takes one, .* "chancery roll key > roll\.key"/,
  })
  await writeFile(at('empty.key'), '\n# nothing yet\n')
  await writeFile(at('witness.key'), `${encodeVerifierKey(newSigner('witness', 'cosignature').key)}\n`)
  t.match(await chancery('checkpoint', '--key', at('empty.key')), {
    code: exitCodes.usage,
    err: /^There is no key in \S+empty\.key: /,
  })
  t.match(await chancery('checkpoint', '--key', at('witness.key')), {
    code: exitCodes.usage,
    err: /^There are keys of witnesses only, and none of the roll, in \S+witness\.key: /,
  })
  t.match(await chancery('checkpoint', '--key', at('nowhere')), { code: exitCodes.usage, err: /cannot be read/ })
  t.match(await chancery('checkpoint', '--key', key, '--from', folder), {
    code: exitCodes.missing,
    err: /no checkpoint/,
  })
})

t.test('an export is a folder of tiles, and the same by the public listener', async (t) => {
  const exported = await chancery('export', '--out', at('whole'), '--key', key)
  t.match(exported, { code: 0, out: /has entries 0 to \d+ now\.\n$/ })
  const size = await sizeOf('whole')
  t.ok(size > 300)
  for (const tile of tilesAt(size)) {
    const path = encodeTilePath(tile)
    t.same(await readFile(at('whole', path)), (await service.request('GET', `/roll/${path}`)).bytes, path)
  }
  t.match(await chancery('export', '--out', at('public'), '--key', key, '--from', service.publicUrl), { code: 0 })
  t.same(await readFile(at('public', 'tile/entries/000')), await readFile(at('whole', 'tile/entries/000')))
  t.match(await chancery('verify', '--from', at('whole'), '--key', key), { code: 0, out: /: nothing found\.\nroot / })
  const { items } = (await service.request('GET', '/v1/accesses?records=events&act=began')).json
  t.match(
    items.at(-1),
    { principal: 'admin', format: 'tiles', filter: { fromIndex: /^\d+$/ } },
    'by the API it is on record',
  )
})

slowTest('docs/operations.md: the roll is exported as it stands there', async (t) => {
  const blocks = await blocksOf('docs/operations.md')
  await mkdir(at('here'))
  const env = { ...envFor(service), PATH: await putCommand(at('bin')) }
  for (const [what, said] of [
    ['the whole of it', /has entries 0 to \d+ now\.\n$/],
    ['and what is new, which is nothing', /has all \d+ entries\.\n$/],
  ] as const)
    t.match(
      await promisify(execFile)('bash', ['-ceu', blocks.get('export') ?? 'exit 9'], { env, cwd: at('here') }),
      { stdout: said },
      what,
    )
  t.match(await chancery('verify', '--from', at('backup', 'roll'), '--key', key), { code: 0 })
})

t.test('an export grows with the roll: full tiles stay, partial ones are those of the newest size', async (t) => {
  const before = await sizeOf('whole')
  const old = await readFile(at('whole', 'checkpoint'))
  await issueMany('second', 300)
  t.match(await chancery('export', '--out', at('whole'), '--key', key), {
    code: 0,
    out: new RegExp(`has entries ${before} to`),
  })
  const size = await sizeOf('whole')
  const files = (await readdir(at('whole'), { recursive: true, withFileTypes: true }))
    .filter((one) => one.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(at('whole').length + 1))
  t.same(files.sort(), ['checkpoint', ...[...tilesAt(size)].map(encodeTilePath)].sort())
  t.match(await chancery('verify', '--from', at('whole'), '--key', key), { code: 0 })
  await writeFile(at('old'), old)
  t.match(await chancery('export', '--out', at('until'), '--to', at('old'), '--key', key), { code: 0 })
  t.equal(await sizeOf('until'), before, 'or ends where it is told to')
  t.match(await chancery('verify', '--from', at('until'), '--key', key), { code: 0 })
  t.match(await chancery('export', '--out', at('until'), '--from', at('whole'), '--key', key, '--json'), {
    code: 0,
    out: new RegExp(`"from": ${before},\\s+"size": ${size}`),
  })
})

t.test('an export that was broken off goes on from what is there', async (t) => {
  await cp(at('whole'), at('broken'), { recursive: true })
  await rm(at('broken', 'checkpoint'))
  await rm(at('broken', 'tile/entries/001'))
  // What was left behind is not fetched again: a source that does not have it any more is no obstacle.
  await cp(at('whole'), at('elsewhere'), { recursive: true })
  await rm(at('elsewhere', 'tile/entries/000'))
  t.match(await chancery('export', '--out', at('broken'), '--from', at('elsewhere'), '--key', key), { code: 0 })
  t.match(await chancery('verify', '--from', at('broken'), '--key', key), { code: 0 })
})

slowTest('an export looks whether what was there is there still, and mends it', async (t) => {
  const size = await sizeOf('whole')
  const cut = async (path: string, octets: number) => truncate(at('holed', path), octets)
  const last = `${Math.floor(size / 256)}`.padStart(3, '0')
  const damages: readonly (readonly [what: string, damage: () => Promise<void>, mended: number])[] = [
    ['nothing', async () => {}, 0],
    ['the last entries', () => rm(at('holed', `tile/entries/${last}.p`), { recursive: true }), 1],
    ['the last leaves', () => rm(at('holed', `tile/0/${last}.p`), { recursive: true }), 1],
    ['a hash above', () => rm(at('holed', 'tile/1'), { recursive: true }), 1],
    ['a bundle, cut off', () => cut('tile/entries/000', 10_000), 1],
    ['a bundle without octets', () => cut('tile/entries/001', 0), 1],
    ['a full tile, cut off', () => cut('tile/0/001', 4_096), 1],
    ['a part of a tile, cut off', () => cut(`tile/0/${last}.p/${size % 256}`, 32), 1],
    ['a part of a bundle, cut off', () => cut(`tile/entries/${last}.p/${size % 256}`, 700), 1],
    [
      'a bundle that ends in zeros',
      async () => {
        const { length } = await readFile(at('whole', 'tile/entries/000'))
        await cut('tile/entries/000', 10_000)
        await cut('tile/entries/000', length)
      },
      1,
    ],
    ['all of it', () => rm(at('holed', 'tile'), { recursive: true }), [...tilesAt(size)].length],
  ]
  for (const [what, damage, mended] of damages) {
    await cp(at('whole'), at('holed'), { recursive: true, force: true })
    await damage()
    const run = await chancery('export', '--out', at('holed'), '--from', at('whole'), '--key', key)
    const again = { 0: '', 1: '; 1 file that was missing or cut off is there again' }[mended]
    t.match(run, { code: 0 }, what)
    t.match(run.out, `has all ${size} entries${again ?? `; ${mended} files that were missing or cut off are`}`, what)
    for (const tile of tilesAt(size))
      t.same(await readFile(at('holed', encodeTilePath(tile))), await readFile(at('whole', encodeTilePath(tile))), what)
  }
  await rm(at('holed', 'tile/0/000'))
  const earlier = ['export', '--out', at('holed'), '--to', at('old'), '--key', key] as const
  t.match(
    await chancery(...earlier, '--from', at('until')),
    { code: 0, out: /all \d+ entries; 1 file/ },
    'to a past one',
  )
  await rm(at('holed', 'tile/entries/001'))
  await rm(at('broken', 'tile/entries/001'))
  t.match(
    await chancery(...earlier, '--from', at('broken')),
    { code: exitCodes.refused, err: /tile\/entries\/001 is missing/ },
    'what nobody has is not said to be there',
  )
  await cp(at('until'), at('growing'), { recursive: true })
  await rm(at('growing', 'tile/entries/000'))
  await writeFile(at('growing', 'checkpoint'), await readFile(at('old')))
  t.match(await chancery('export', '--out', at('growing'), '--from', at('whole'), '--key', key, '--json'), {
    code: 0,
    out: /"mended": 1/,
  })
  t.match(await chancery('verify', '--from', at('growing'), '--key', key), { code: 0 })
})

/** One bit of a file of a copy. */
const flip = async (copy: string, path: string, place: number): Promise<void> => {
  await cp(at('whole'), at(copy), { recursive: true, force: true })
  const octets = await readFile(at(copy, path))
  octets[place % octets.length] = (octets[place % octets.length] ?? 0) ^ 8
  await writeFile(at(copy, path), octets)
}

/** Without a process for each: there are many. */
const exportFrom = async (from: string, out: string, to?: Buffer): Promise<string> => {
  const source = await openSource(at(from), {})
  const plan = { source, folder: at(out), keys: await readKeys([key]), to, progress: () => {} }
  return exportRoll(plan).then(
    () => 'done',
    (error: Error) => (error instanceof Failure && error.kind === 'refused' ? error.message : String(error.stack)),
  )
}

t.test('nothing that the checkpoint does not vouch for is exported, and what is there is not replaced', async (t) => {
  const size = await sizeOf('whole')
  for (const [i, tile] of [...tilesAt(size)].entries()) {
    const path = encodeTilePath(tile)
    await flip('flipped', path, 977 * i + 20)
    t.match(await exportFrom('flipped', `from-${i}`), /^(Entr|tile|The roll)/, path)
    const written: readonly string[] = await readdir(at(`from-${i}`), { recursive: true }).catch(() => [])
    t.notOk(written.includes('checkpoint') || written.includes(path), path)
  }
  await flip('whole-but', 'tile/0/000', 100)
  await rm(at('whole-but', 'checkpoint'))
  t.match(await exportFrom('whole', 'whole-but'), /tile\/0\/000 is another one/)
})

t.test('what was altered is evidence: an export neither replaces it nor takes it away', async (t) => {
  await exportFrom('whole', 'smaller', await readFile(at('old')))
  const pathAt = (level: number | 'entries', size: number): string =>
    encodeTilePath({ level, index: Math.floor(size / 256), width: size % 256 } as Tile)
  const [now, old] = [await sizeOf('whole'), await sizeOf('smaller')]
  const bit = (octets: Buffer): Buffer => Buffer.from(octets.map((octet, i) => (i === 40 ? octet ^ 8 : octet)))
  const withEntry = (octets: Buffer): Buffer => Buffer.concat([octets, Buffer.from('\0\x02{}')])
  const withHash = (octets: Buffer): Buffer => Buffer.concat([octets, Buffer.alloc(32)])
  for (const [copy, path, alter] of [
    ['whole', pathAt('entries', now), bit],
    ['whole', pathAt('entries', now), withEntry],
    ['whole', pathAt('entries', now), (octets) => bit(octets).subarray(0, 700)],
    ['whole', pathAt(0, now), bit],
    ['whole', pathAt(0, now), withHash],
    ['whole', 'tile/1/000.p/2', bit],
    ['whole', 'tile/0/001', withHash],
    ['whole', 'tile/0/001', (octets) => bit(withHash(octets))],
    ['whole', 'tile/entries/001', withEntry],
    ['whole', 'tile/entries/001', (octets) => bit(octets).subarray(0, 10_000)],
    ['smaller', pathAt('entries', old), bit],
    ['smaller', pathAt('entries', old), withEntry],
    ['smaller', pathAt(0, old), bit],
    ['smaller', pathAt(0, old), withHash],
    ['smaller', 'tile/1/000.p/1', (octets) => Buffer.from(octets).fill(7, 9, 10)],
  ] as readonly (readonly [string, string, (octets: Buffer) => Buffer])[]) {
    await cp(at(copy), at('evidence'), { recursive: true })
    // With another one missing, all of the folder is gone through, and not what has grown alone.
    await rm(at('evidence', 'tile/entries/000'))
    const octets = alter(await readFile(at(copy, path)))
    const what = `${copy}: ${path} of ${octets.length} octets`
    await writeFile(at('evidence', path), octets)
    const said = await exportFrom('whole', 'evidence')
    t.ok(
      said.startsWith(`${at('evidence', path)} is another one than that of the roll; it is left`),
      `${what}: ${said}`,
    )
    t.match(said, /take it away from there by hand, then export again; or export into an empty folder\.$/, what)
    t.same(await readFile(at('evidence', path)), octets, what)
    t.same(await readFile(at('evidence', 'checkpoint')), await readFile(at(copy, 'checkpoint')), what)
    await rm(at('evidence', path))
    t.equal(await exportFrom('whole', 'evidence'), 'done', `${what}, taken away`)
    await rm(at('evidence'), { recursive: true })
  }
})

t.test(
  'a source that is away for a moment is waited for, and one that never was there is told of at once',
  async (t) => {
    let down = 2
    const server = createServer(async (request, response) => {
      const path = request.url?.slice('/roll/'.length) ?? ''
      // As by a service that restarts, and by one that an address asks too much of.
      if (path !== 'checkpoint' && down-- > 0) return response.writeHead(down === 0 ? 429 : 503).end()
      const octets = await readFile(at('whole', path)).catch(() => undefined)
      response.writeHead(octets ? 200 : 404).end(octets)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const source = await openSource(url, {})
    const folder = at('patient')
    const { size } = await exportRoll({
      source,
      folder,
      keys: await readKeys([key]),
      to: undefined,
      progress: () => {},
    })
    t.equal(size, await sizeOf('whole'))
    t.ok(down < 0)
    down = Number.POSITIVE_INFINITY
    const other = await openSource(url, {})
    await t.rejects(other.read('tile/0/000'), { kind: 'later', message: /answers with 503/ })
  },
)

t.test('a fork is refused, and its checkpoint kept', async (t) => {
  // Nobody but the service can sign for its roll: here another key signs for both sides.
  const signer = newSigner('fork.example/roll')
  const forkKey = encodeVerifierKey(signer.key)
  const size = await sizeOf('whole')
  const root = Buffer.from((await readFile(at('whole', 'checkpoint'), 'utf8')).split('\n')[2] ?? '', 'base64')
  const sign = (of: Uint8Array, n = size) => signCheckpoint({ origin: signer.key.name, size: n, root: of }, signer)
  await cp(at('whole'), at('mine'), { recursive: true })
  await writeFile(at('mine', 'checkpoint'), await sign(root))
  for (const [n, other] of [
    [size, await sign(sha256(root))],
    [size - 1, await sign(sha256(root), size - 1)],
  ] as const) {
    await cp(at('whole'), at('theirs'), { recursive: true, force: true })
    await writeFile(at('theirs', 'checkpoint'), other)
    const run = await chancery('export', '--out', at('mine'), '--from', at('theirs'), '--key', forkKey)
    t.match(run, { code: exitCodes.refused, err: /has forked/ })
    const kept = (await readdir(at('mine', 'inconsistent'))).filter((name) => name.startsWith(`checkpoint-${n}-`))
    t.equal(await readFile(at('mine', 'inconsistent', kept[0] ?? ''), 'utf8'), other)
  }
  t.equal(await readFile(at('mine', 'checkpoint'), 'utf8'), await sign(root), 'its own stays')
  // A roll of another name does not say that it goes on from this one: it may have succeeded it.
  const next = newSigner('next.example/roll')
  await writeFile(
    at('theirs', 'checkpoint'),
    await signCheckpoint({ origin: next.key.name, size: size - 1, root: sha256(root) }, next),
  )
  const before = await readdir(at('mine', 'inconsistent'))
  const succeeded = await chancery(
    ...['export', '--out', at('mine'), '--from', at('theirs')],
    ...['--key', forkKey, '--key', encodeVerifierKey(next.key)],
  )
  t.match(succeeded, {
    code: exitCodes.refused,
    err: /has the roll fork\.example\/roll, from whose \d+ entries next\.example\/roll does not go on: .* into another\./,
  })
  t.same(await readdir(at('mine', 'inconsistent')), before, 'nothing is kept against anybody')
  // A fork is no less one where the folder lacks something, which the other side does not have, or has as another one.
  for (const [what, n, lacking, away] of [
    ['a file that the proof does not take', size - 2, ['tile/entries/000'], 'tile/entries/000'],
    ['one that is there again when mending fails', 100, ['tile/0/000', 'tile/entries/001'], 'tile/entries/001'],
  ] as const) {
    await cp(at('whole'), at('theirs'), { recursive: true, force: true })
    await writeFile(at('theirs', 'checkpoint'), await sign(sha256(root), n))
    await rm(at('theirs', away))
    for (const path of lacking) await rm(at('mine', path))
    const run = await chancery('export', '--out', at('mine'), '--from', at('theirs'), '--key', forkKey)
    t.match(run, { code: exitCodes.refused, err: /has forked/ }, what)
    const kept = (await readdir(at('mine', 'inconsistent'))).filter((name) => name.startsWith(`checkpoint-${n}-`))
    t.equal(await readFile(at('mine', 'inconsistent', kept[0] ?? ''), 'utf8'), await sign(sha256(root), n), what)
    for (const path of lacking) await cp(at('whole', path), at('mine', path))
  }
  await rm(at('mine', 'tile/0/000'))
  await rm(at('mine', 'tile/entries/000'))
  await rm(at('theirs', 'tile/entries/000'))
  t.match(
    await chancery('export', '--out', at('mine'), '--from', at('theirs'), '--key', forkKey),
    { code: exitCodes.refused, err: /Entries 0 to 255: tile\/entries\/000 is missing/ },
    'and what mending met is told where nothing shows one',
  )
})

t.test('damage is no fork, and accuses nobody: on whichever side, it is told which copy to mend', async (t) => {
  t.match(await chancery('export', '--out', at('early'), '--to', at('old'), '--from', at('whole'), '--key', key), {
    code: 0,
  })
  // The proof that the roll has grown goes by the last leaf of this tile.
  await flip('hurt', 'tile/0/001', 255 * 32)
  const inSource = await exportFrom('hurt', 'early')
  t.match(
    inSource,
    new RegExp(`^The tiles of ${at('hurt')} do not lead to its own checkpoint of \\d+ entries: they are damaged`),
  )
  const earlier = await chancery('export', '--out', at('hurt'), '--to', at('old'), '--from', at('whole'), '--key', key)
  t.match(earlier, { code: exitCodes.refused, err: new RegExp(`The tiles of ${at('hurt')} do not lead`) })
  for (const name of ['early', 'hurt']) t.notOk((await readdir(at(name))).includes('inconsistent'), name)
  t.equal(await exportFrom('whole', 'early'), 'done', 'nothing else was spoiled')
  const state = ['--key', key, '--state', at('state-of-whole'), '--json']
  t.match(await chancery('verify', '--from', at('whole'), ...state), { code: 0 })
  const verify = async () =>
    JSON.parse((await chancery('verify', '--from', at('hurt'), '--checkpoint', at('old'), ...state)).out)
  t.match(await verify(), { found: 1, findings: [{ code: 'tile.hash', index: 0 }] })
  await rm(at('hurt', 'tile/0/001'))
  t.match(await verify(), { found: 1, findings: [{ code: 'tile.missing', index: 256, until: 512 }] })
})

t.test('a replica that shows a checkpoint from seconds ago is asked again, and for a while only', async (t) => {
  const [old, newest] = [await readFile(at('old')), await readFile(at('whole', 'checkpoint'))]
  let behind = 0
  const server = createServer(async (request, response) => {
    const path = request.url?.slice('/roll/'.length) ?? ''
    if (path === 'checkpoint') return response.end(behind-- > 0 ? old : newest)
    const octets = await readFile(at('whole', path)).catch(() => undefined)
    response.writeHead(octets ? 200 : 404).end(octets)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const source = await openSource(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, {})
  const verify = async (pauses: number) => {
    const report = openReport()
    const verified = await verifySource({
      ...{ source, keys: await readKeys([key]), checkpoints: [{ note: newest }], state: undefined, tell: report.tell },
      progress: () => {},
      pausesMs: Array.from({ length: pauses }, () => 0),
    })
    return { size: verified.size, checkpoints: verified.checkpoints, codes: report.findings().map(({ code }) => code) }
  }
  const [size, before] = [await sizeOf('whole'), Number(old.toString().split('\n')[1])]
  behind = 3
  t.same(await verify(3), { size, checkpoints: 5, codes: [] }, 'and what it showed before is compared as well')
  behind = 4
  t.match(await verify(3), { size: before, codes: /checkpoint\.beyond/ }, 'it has gone back')
})

t.test('verifying goes on where it was left, and finds a roll that is shorter or another one', async (t) => {
  const state = at('state')
  const verify = (from: string, ...more: readonly string[]) =>
    chancery('verify', '--from', from, '--key', key, '--state', state, '--json', ...more)
  const misnamed = await chancery('verify', '--from', at('until'), '--key', key, '--state', at('old'))
  t.match(misnamed, { code: exitCodes.usage, err: /cannot be written \(ENOTDIR\); --state names a folder/ })
  const first = JSON.parse((await verify(at('until'))).out)
  t.match(first, { from: 0, found: 0, findings: { length: 0 } })
  await issueMany('third', 10)
  const { code, out } = await verify(service.url)
  t.equal(code, 0)
  t.match(JSON.parse(out), { from: first.size, found: 0 })
  t.ok(JSON.parse(out).size > first.size)
  t.match(JSON.parse((await verify(service.url, '--checkpoint', at('old'))).out), { found: 0 }, 'an older checkpoint')
  const shorter = await verify(at('whole'))
  t.equal(shorter.code, exitCodes.refused)
  t.match(JSON.parse(shorter.out).findings, [{ code: 'checkpoint.beyond', index: JSON.parse(out).size }])
  t.match(await verify(service.url), { code: 0 }, 'which changes nothing of what is known')
})

slowTest('every file in which a bit is flipped is found, and named by its entries', async (t) => {
  const verify = async (from: string): Promise<readonly Finding[]> => {
    const report = openReport()
    const [source, keys] = [await openSource(at(from), {}), await readKeys([key])]
    await verifySource({ source, keys, checkpoints: [], state: undefined, tell: report.tell, progress: () => {} })
    return report.findings()
  }
  t.same(await verify('whole'), [])
  const size = await sizeOf('whole')
  for (const [i, tile] of [...tilesAt(size)].entries()) {
    const path = encodeTilePath(tile)
    await flip('flipped', path, 1013 * i + 40)
    const each = tile.level === 'entries' ? 256 : 256 ** (tile.level + 1)
    const isOf = ({ index, until = index + 1 }: Finding): boolean =>
      index < (tile.index + 1) * each && until > tile.index * each && until - index <= each
    const findings = await verify('flipped')
    t.ok(findings.some(isOf), path)
  }
  for (const path of ['tile/0/001', 'tile/entries/001', 'tile/entries/000', 'tile/1/000.p/2']) {
    await cp(at('whole'), at('flipped'), { recursive: true, force: true })
    await rm(at('flipped', path))
    t.match(await verify('flipped'), [{ code: 'tile.missing', message: `${path} is missing` }], path)
  }
})

slowTest('the records are verified by their URL, and by the settings of the service', async (t) => {
  const { ownerUrl, servingUrl } = service.database
  const verified = await chancery('verify', '--database', servingUrl)
  t.match(verified, { code: 0, out: /, 0 checkpoints: nothing found\.\n.*\nNothing signed was compared/ })
  await writeFile(at('seen'), (await service.request('GET', '/roll/checkpoint')).text)
  const settings = { CHANCERY_DATABASE_URL: servingUrl }
  const more = ['--checkpoint', at('seen'), '--key', key]
  t.match(await run(['verify', '--database', ...more], settings), { code: 0, out: /, 1 checkpoint: nothing found\.\n/ })
  t.match(await chancery('verify', '--database', ownerUrl, '--state', at('kept'), '--json'), { code: 0 })
  const owner = new pg.Client({ connectionString: ownerUrl })
  await owner.connect()
  await owner.query('alter table outcomes disable trigger append_only')
  await owner.query(`update outcomes set subject = 'CN=other' where entry = (select max(entry) from outcomes)`)
  const found = await chancery('verify', '--database', servingUrl)
  t.match(found, { code: exitCodes.refused, out: /^entry \d+ row\.differs: outcomes: subject$/m, err: /row\.differs/ })
  await owner.query(`update outcomes set subject = '' where entry = (select max(entry) from outcomes)`)
  await owner.query('alter table outcomes enable trigger append_only')
  await owner.end()
  for (const [url, code, err] of [
    ['nonsense', exitCodes.usage, /is not like/],
    ['postgresql://x:secret@127.0.0.1:1/x', exitCodes.later, /no PostgreSQL answers there.*--database/],
  ] as const) {
    const refused = await chancery('verify', '--database', url)
    t.match(refused, { code, err })
    t.notMatch(refused.err, /secret/)
  }
  t.match(await chancery('verify', '--database', servingUrl, '--from', at('whole')), { code: exitCodes.usage })
})

slowTest('a proof is verified with its entry, and not with another', async (t) => {
  const headers = { 'content-type': 'application/json' }
  const issued = async (name: string) =>
    (await service.request('POST', '/v1/certificates', { headers, body: { csr: csrFor(name), profile: 'server' } }))
      .json
  const [one, other] = [await issued('one.example.com'), await issued('other.example.com')]
  await writeFile(at('one.json'), JSON.stringify(one))
  const { items } = (await service.request('GET', `/v1/events?serial=${one.serial}`)).json
  await writeFile(at('event.json'), JSON.stringify(items[0]))
  await writeFile(at('entry.json'), items[0].entry)
  await writeFile(at('one.proof'), one.proof)
  await writeFile(at('page.json'), JSON.stringify({ items, boundTo: { size: 1 } }))
  await writeFile(at('items.json'), JSON.stringify(items))
  await writeFile(at('two.json'), JSON.stringify([...items, ...items]))
  await writeFile(at('none.json'), JSON.stringify({ items: [], boundTo: { size: 1 } }))
  await writeFile(at('line.json'), `${items[0].entry}\r\n`)
  await writeFile(at('pretty.json'), JSON.stringify(JSON.parse(items[0].entry), null, 2))
  await writeFile(at('list.json'), `[${items[0].entry}]`)
  await writeFile(at('refused.json'), (await service.request('GET', '/v1/events?serial=nonsense')).text)
  const { items: others } = (await service.request('GET', `/v1/events?serial=${other.serial}`)).json
  await writeFile(at('other-entry.json'), others[0].entry)
  const said = new RegExp(
    `^Entry ${one.index} is on the roll .*, among \\d+\\.\n.*  certificate\\.issued  .*one\\.example\\.com`,
  )
  for (const args of [
    ['one.json'],
    ['one.json', '--entry', at('event.json')],
    ['one.proof', '--entry', at('entry.json')],
    ['one.json', '--entry', at('page.json')],
    ['one.json', '--entry', at('items.json')],
    ['one.json', '--entry', at('line.json')],
  ] as const)
    t.match(
      await chancery('prove', at(args[0]), ...args.slice(1), '--key', key),
      { code: 0, out: said, err: /^$/ },
      args.join(' '),
    )
  for (const [file, err] of [
    ['two.json', /two\.json has 2 entries: give the one/],
    ['none.json', /none\.json has 0 entries/],
    ['one.json', /one\.json is no entry, and no answer with one/],
    ['list.json', /list\.json is no entry, and no answer with one/],
    ['pretty.json', /pretty\.json is no entry, octet for octet .*RFC 8785/],
    ['refused.json', /refused\.json is no entry, octet for octet .*its type is .*problems/],
  ] as const) {
    const unread = await chancery('prove', at('one.json'), '--entry', at(file), '--key', key)
    t.match(unread, { code: exitCodes.usage, err }, 'what is no entry is no alarm')
  }
  t.match(await chancery('prove', at('one.json'), '--entry', at('other-entry.json'), '--key', key), {
    code: exitCodes.refused,
    err: /proof\.inclusion/,
  })
  const again = await service.request('GET', `/v1/certificates/${one.serial}/proof`)
  await writeFile(at('again.json'), again.text)
  const proven = await chancery('prove', at('again.json'), '--entry', at('entry.json'), '--key', key, '--json')
  t.match(JSON.parse(proven.out), { index: one.index, entry: { serial: one.serial, type: 'certificate.issued' } })
  const nobody = ['--server', 'https://127.0.0.1:1', '--key', key]
  t.match(await chancery('prove', at('again.json'), ...nobody), { code: 0, out: said }, 'the entry is beside its proof')
  t.match(
    await chancery('prove', at('one.json'), ...nobody),
    { code: exitCodes.later },
    'where it is not, it is asked for',
  )
  const { server } = service.service.app
  const listeners = server.listeners('request')
  const { entry: _, ...older } = again.json
  server
    .removeAllListeners('request')
    .on('request', (_, response) => response.setHeader('content-type', 'application/json').end(JSON.stringify(older)))
  const untold = await chancery('prove', at('one.json'), '--key', key)
  server.removeAllListeners('request')
  for (const listener of listeners) server.on('request', listener as never)
  t.match(untold, {
    code: exitCodes.missing,
    err: new RegExp(`older version: give the entry with --entry.*serial=${one.serial}`),
  })
  const token = await employ(service, 'shop', 'requester', { profiles: ['server'] })
  const shop = await service.request('POST', '/v1/certificates', {
    body: { csr: csrFor('shop.example.com'), profile: 'server' },
    token,
  })
  await writeFile(at('shop.json'), shop.text)
  await writeFile(at('shop.token'), token, { mode: 0o600 })
  const asker = ['--token-file', at('shop.token'), '--key', key]
  t.match(
    await chancery('prove', at('shop.json'), ...asker),
    { code: 0, out: /shop\.example\.com/ },
    'by who asked for it',
  )
  const mixed = (name: string, value: object) => writeFile(at(name), JSON.stringify(value))
  await mixed('mixed.json', { ...one, certificate: other.certificate })
  await mixed('serial.json', { ...one, serial: other.serial })
  await mixed('proof.json', { ...one, proof: other.proof })
  await mixed('number.json', { ...one, certificate: 5 })
  await mixed('text.json', { ...one, certificate: 'none' })
  for (const [file, err] of [
    ['mixed.json', /of another certificate/],
    ['serial.json', /of another certificate/],
    ['proof.json', /proof\.inclusion/],
    ['number.json', /number\.json is no proof, and no answer with one\.\n$/],
    [
      'text.json',
      /^The certificate that came with the proof cannot be read: the text does not begin with a block\.\n$/,
    ],
    ['entry.json', /no answer with one/],
    ['roll.key', /proof\.text/],
  ] as const)
    t.match(await chancery('prove', at(file), '--entry', at('entry.json'), '--key', key), { err }, file)
  t.match(await chancery('prove', at('one.proof'), '--key', key), { code: exitCodes.usage, err: /give the entry/ })
  const stray = await chancery('prove', key, '--key', key)
  t.match(stray, { code: exitCodes.usage, err: /roll\.key is no proof, and no answer with one\.\n$/ })
})

slowTest(
  'a search of all entries finds what the search of the API finds, and that there is nothing else',
  async (t) => {
    const serials = (await service.request('GET', '/v1/certificates?name=*.example.com&limit=3')).json.items
    await service.request('POST', `/v1/certificates/${serials[0].serial}/revocation`, {
      body: { reason: 'superseded' },
    })
    const hold = { body: { reason: 'certificateHold', invalidityDate: '2026-01-01T00:00:00Z' } }
    for (const { serial } of serials.slice(1))
      await service.request('POST', `/v1/certificates/${serial}/revocation`, hold)
    await service.request('DELETE', `/v1/certificates/${serials[1].serial}/revocation`)
    await issue(['dns:both.example.com', 'dns:a.both.example.com', 'ip:10.1.2.3', 'email:x@example.com'], {
      subject: 'both',
    })
    for (const names of [['dns:*.example.com'], ['dns:*.both.example.com', 'dns:a.both.example.com']])
      await issue(names)
    t.match(await chancery('search', '--from', service.url, '--key', key, '--name', '*both.example.com'), {
      code: exitCodes.usage,
      err: /^\*both\.example\.com is no name that a certificate has/,
    })
    for (const name of ['10.0.0.256', 'web.example.com:443', 'web@', 'spiffe://a b'])
      t.match(
        await chancery('search', '--from', at('whole'), '--key', key, '--name', name),
        { code: exitCodes.usage, err: /^\S+( b)? is no name that a certificate has: an? / },
        name,
      )
    for (const name of [
      '*.example.com',
      '*.both.example.com',
      'both.example.com',
      'a.both.example.com',
      'dns:both.example.com',
      'DNS:*.example.com',
      'ip:10.1.2.3',
      'uri:spiffe://example.com/nothing',
      '10.1.2.3',
      'x@EXAMPLE.com',
      'first7.example.com',
      'nothing.example.com',
    ]) {
      const expected = (await service.request('GET', `/v1/certificates?limit=1000&name=${name}`)).json.items
      const run = await chancery('search', '--name', name, '--key', key, '--json')
      t.equal(run.code, 0, run.err)
      t.same(JSON.parse(run.out).items, expected, `${name}: ${expected.length}`)
    }
    const { out } = await chancery(
      'search',
      '--name',
      'first7.example.com',
      '--key',
      key,
      '--from',
      at('whole'),
      '--at',
      at('old'),
    )
    t.match(
      out,
      /^INDEX .*\n\d+ .* valid .*dns:first7\.example\.com.*\n1 certificate for first7\.example\.com among \d+ entries of .*, and no others\.\n$/,
    )
    t.match(
      await chancery('search', '--name', 'second7.example.com', '--key', key, '--from', at('whole'), '--at', at('old')),
      { code: 0, out: /^0 certificates for/ },
      'it was issued later',
    )
    const other = newSigner('fork.example/roll')
    await writeFile(
      at('other'),
      await signCheckpoint({ origin: other.key.name, size: 100, root: sha256(Buffer.from(told.out)) }, other),
    )
    t.match(
      await chancery(
        ...['search', '--name', 'x', '--key', encodeVerifierKey(other.key)],
        ...['--from', at('whole'), '--at', at('other')],
      ),
      {
        code: exitCodes.refused,
        err: /These are not the 100 entries .*"chancery roll verify --checkpoint" compares them/,
      },
    )
    await flip('flipped', 'tile/entries/001', 5_000)
    t.match(await chancery('search', '--name', 'x', '--key', key, '--from', at('flipped')), { code: exitCodes.refused })
    await rm(at('flipped', 'tile/entries/001'))
    t.match(await chancery('search', '--name', 'x', '--key', key, '--from', at('flipped')), {
      code: exitCodes.refused,
      err: /tile\/entries\/001 is missing/,
    })
  },
)

t.test('what cannot be read is told in a sentence', async (t) => {
  for (const [args, code, err] of [
    [['verify', '--from', 'https://host/?x=1', '--key', key], exitCodes.usage, /is not like/],
    [['verify', '--from', 'http://127.0.0.1:1', '--key', key], exitCodes.later, /cannot be fetched/],
    [['verify', '--key', 'roll+00000000+AAAA'], exitCodes.usage, /is no verifier key/],
    [['verify', '--key', key, '--checkpoint', at('nowhere')], exitCodes.usage, /cannot be read/],
    [['export', '--key', key], exitCodes.usage, /--out/],
  ] as const)
    t.match(await chancery(...args), { code, err }, args.join(' '))
  await writeFile(at('secret'), '# of an administrator\nchy_secret\n')
  const other = await chancery('verify', '--key', at('secret'))
  t.match(other, { code: exitCodes.usage, err: /^Line 2 of .*secret is no verifier key: / })
  t.notMatch(other.err, /chy_/, 'a secret that is named in its place is not shown')
  await writeFile(at('state', 'state'), '{}\n')
  t.match(await chancery('verify', '--key', key, '--state', at('state')), { code: exitCodes.usage, err: /is damaged/ })
})
