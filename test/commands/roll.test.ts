/** `chancery roll` over the roll of a real service, by its API, its public listener, and folders that were exported from it. */
import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes, Failure } from '../../src/commands/failure.ts'
import { exportRoll } from '../../src/commands/roll/export.ts'
import { openReport } from '../../src/commands/roll/findings.ts'
import { readKeys } from '../../src/commands/roll/keys.ts'
import { openSource } from '../../src/commands/roll/source.ts'
import { verifySource } from '../../src/commands/roll/verify.ts'
import { signCheckpoint } from '../../src/roll/checkpoint.ts'
import type { Finding } from '../../src/roll/findings.ts'
import { encodeVerifierKey } from '../../src/roll/note.ts'
import { encodeTilePath, tilesAt } from '../../src/roll/tiles.ts'
import { newSigner, sha256 } from '../roll/hashing.ts'
import { openTestStores } from '../store/stores.ts'

interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

t.setTimeout(120_000)
const { service, issue } = await openTestStores(t, { CHANCERY_ROLL_PUBLIC: 'yes' })
const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const at = (...names: readonly string[]): string => join(folder, ...names)

const chancery = (...args: readonly string[]): Promise<Run> =>
  new Promise((resolve) => {
    const env = { PATH: process.env['PATH'], CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url }
    execFile(process.execPath, ['src/main.ts', 'roll', ...args], { env }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    )
  })

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
  t.match(await chancery('checkpoint', '--key', key), { code: 0, out: text, err: '' })
  const asJson = JSON.parse((await chancery('checkpoint', '--key', told.out.trim(), '--json')).out)
  t.match(asJson, { origin: /\/roll$/, witnesses: [], note: text })
  const stranger = encodeVerifierKey(newSigner('elsewhere/roll').key)
  t.match(await chancery('checkpoint', '--key', stranger), { code: exitCodes.refused, err: /none of this roll/ })
  t.match(await chancery('checkpoint'), { code: exitCodes.usage, err: /--key/ })
  t.match(await chancery('checkpoint', '--key', at('nowhere')), { code: exitCodes.usage, err: /cannot be read/ })
  t.match(await chancery('checkpoint', '--key', key, '--from', folder), {
    code: exitCodes.missing,
    err: /no checkpoint/,
  })
})

t.test('an export is a folder of tiles, and the same by the public listener', async (t) => {
  const run = await chancery('export', '--out', at('whole'), '--key', key)
  t.match(run, { code: 0, out: /has entries 0 to \d+ now\.\n$/ })
  const size = await sizeOf('whole')
  t.ok(size > 300)
  for (const tile of tilesAt(size)) {
    const path = encodeTilePath(tile)
    t.same(await readFile(at('whole', path)), (await service.request('GET', `/roll/${path}`)).bytes, path)
  }
  t.match(await chancery('export', '--out', at('public'), '--key', key, '--from', service.publicUrl), { code: 0 })
  t.same(await readFile(at('public', 'tile/entries/000')), await readFile(at('whole', 'tile/entries/000')))
  t.match(await chancery('verify', '--from', at('whole'), '--key', key), { code: 0, out: /: nothing found\.\nroot / })
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

/** One bit of a file of a copy. */
const flip = async (copy: string, path: string, place: number): Promise<void> => {
  await cp(at('whole'), at(copy), { recursive: true, force: true })
  const octets = await readFile(at(copy, path))
  octets[place % octets.length] = (octets[place % octets.length] ?? 0) ^ 8
  await writeFile(at(copy, path), octets)
}

/** Without a process for each: there are many. */
const exportFrom = async (from: string, out: string): Promise<string> => {
  const source = await openSource(at(from), {})
  const plan = { source, folder: at(out), keys: await readKeys([key]), to: undefined, progress: () => {} }
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
})

t.test('verifying goes on where it was left, and finds a roll that is shorter or another one', async (t) => {
  const state = at('state')
  const verify = (from: string, ...more: readonly string[]) =>
    chancery('verify', '--from', from, '--key', key, '--state', state, '--json', ...more)
  const first = JSON.parse((await verify(at('until'))).out)
  t.match(first, { from: 0, found: 0, findings: [] })
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

t.test('every file in which a bit is flipped is found, and named by its entries', async (t) => {
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

t.test('what cannot be read is told in a sentence', async (t) => {
  for (const [args, code, err] of [
    [['verify', '--from', 'https://host/?x=1', '--key', key], exitCodes.usage, /is not like/],
    [['verify', '--from', 'http://127.0.0.1:1', '--key', key], exitCodes.later, /cannot be fetched/],
    [['verify', '--key', 'roll+00000000+AAAA'], exitCodes.usage, /is no verifier key/],
    [['verify', '--key', key, '--checkpoint', at('nowhere')], exitCodes.usage, /cannot be read/],
    [['export', '--key', key], exitCodes.usage, /--out/],
  ] as const)
    t.match(await chancery(...args), { code, err }, args.join(' '))
  await writeFile(at('state', 'state'), '{}\n')
  t.match(await chancery('verify', '--key', key, '--state', at('state')), { code: exitCodes.usage, err: /is damaged/ })
})
