/**
 * A roll as a folder of tiles, as any tool for tlog-tiles reads it: a verifier that shares nothing with us follows it while
 * it grows, by file and over HTTPS, and ends at the first bit that is not as it was.
 */
import { execFile, spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import t from 'tap'

import { exportRoll } from '../../src/auditor/export.ts'
import { readKeys } from '../../src/auditor/keys.ts'
import { openSource } from '../../src/auditor/source.ts'
import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeEntry } from '../../src/tlog/entries.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { encodeBundle, encodeTile, encodeTilePath, type Tile, tilesAt, tilesBetween } from '../../src/tlog/tiles.ts'
import { selfSigned } from '../../src/x509/self-signed.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from '../http/people.ts'
import { hasher, newSigner } from '../tlog/hashing.ts'
import { assertTools } from './tools.ts'

await assertTools('go')
t.setTimeout(1_800_000)
/** Of a service: CHANCERY_TEST_ROLL_ENTRIES. */
const many = Number(process.env['CHANCERY_TEST_ROLL_ENTRIES'] ?? 400)
const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const verifier = join(folder, 'roll-verifier')
await promisify(execFile)('go', ['build', '-o', verifier, 'main.go'], {
  cwd: join(import.meta.dirname, 'roll-verifier'),
  env: { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOFLAGS: '' },
})

const roll = newSigner('roll.example/1')
const key = encodeVerifierKey(roll.key)

interface Ended {
  readonly code: number | null
  readonly said: string
  readonly lines: readonly { readonly size: number; readonly from: number; readonly entries: number }[]
}

const verify = (from: string, ...more: readonly string[]): Promise<Ended> => follow({ vkey: key, from, more })

interface Followed {
  readonly vkey: string
  readonly from: string
  readonly more?: readonly string[]
  /** A checkpoint was followed to. */
  readonly onLine?: () => void
}

const follow = ({ vkey, from, more = [], onLine = () => {} }: Followed): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(verifier, ['-key', vkey, '-from', from, ...more])
    const [out, err]: [Buffer[], Buffer[]] = [[], []]
    child.stdout.on('data', (chunk: Buffer) => {
      out.push(chunk)
      for (const octet of chunk) if (octet === 0x0a) onLine()
    })
    child.stderr.on('data', (chunk) => err.push(chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      const lines = Buffer.concat(out).toString().split('\n').slice(0, -1)
      resolve({ code, said: Buffer.concat(err).toString().trim(), lines: lines.map((line) => JSON.parse(line)) })
    })
  })

const newEntries = (count: number, name = 'production'): Buffer[] =>
  Array.from({ length: count }, (_, i) =>
    Buffer.from(encodeEntry({ type: 'service.started', version: `${i}`, mode: name }, new Date(1_700_000_000_000 + i))),
  )

/** A roll in a folder, which grows as one that is served: tiles first, and the checkpoint when they are there. */
const openFolder = (root: string, entries: readonly Buffer[]) => {
  const levels: Uint8Array[][] = [[]]
  let edge = emptyEdge(hasher)
  const octetsOf = ({ level, index, width }: Tile): Uint8Array => {
    const [from, to] = [index * 256, index * 256 + width]
    return level === 'entries'
      ? encodeBundle(entries.slice(from, to))
      : encodeTile((levels[level] ?? []).slice(from, to))
  }
  return {
    growTo: async (size: number): Promise<void> => {
      const from = edge.size
      const leaves = entries.slice(from, size).map((entry) => hasher.leaf(entry))
      const { edge: grown, completed } = extend(edge, leaves, hasher)
      levels[0]?.push(...leaves)
      for (const { level, hash } of completed) {
        levels[level] ??= []
        levels[level].push(hash)
      }
      edge = grown
      for (const tile of tilesBetween(from, size)) {
        const path = join(root, encodeTilePath(tile))
        await mkdir(dirname(path), { recursive: true })
        await writeFile(path, octetsOf(tile))
      }
      const note = await signCheckpoint({ origin: roll.key.name, size, root: grown.root }, roll)
      await writeFile(join(root, 'checkpoint.new'), note)
      await rename(join(root, 'checkpoint.new'), join(root, 'checkpoint'))
    },
  }
}

const sizes = [1, 2, 255, 256, 257, 300, 511, 512, 1000, 1024, 2047, 2559, 2560, 2561, 3000]
const entries = newEntries(3000)
const whole = join(folder, 'whole')
await openFolder(whole, entries).growTo(2047)

t.test('it follows a roll that grows, from each checkpoint to the next', async (t) => {
  const root = join(folder, 'growing')
  const state = join(folder, 'growing.state')
  const growing = openFolder(root, entries)
  let last = 0
  for (const size of sizes) {
    await growing.growTo(size)
    const { code, said, lines } = await verify(root, '-state', state)
    t.equal(code, 0, said)
    t.match(lines, [{ size, from: last, entries: size - last }])
    last = size
  }
  t.match(
    await verify(root, '-state', state),
    { code: 0, lines: [{ from: 3000, entries: 0 }] },
    'and again, with nothing new',
  )
})

t.test('it looks while the roll grows, and misses nothing', async (t) => {
  const root = join(folder, 'polled')
  const growing = openFolder(root, entries)
  await growing.growTo(1)
  const polling = verify(root, '-polls', '0', '-until', '3000', '-interval', '5ms')
  for (let size = 40; size <= 3000; size += 40) await growing.growTo(size)
  const { code, said, lines } = await polling
  t.equal(code, 0, said)
  t.equal(
    lines.reduce((sum, line) => sum + line.entries, 0),
    3000,
  )
  t.ok(lines.every((line, i) => line.from === (lines[i - 1]?.size ?? 0)))
})

t.test('over HTTPS, with a token, and with samples only', async (t) => {
  const { certificate, key: tlsKey } = selfSigned(
    [{ kind: 'ip', value: '127.0.0.1' }],
    Buffer.alloc(16, 0x41),
    new Date(),
  )
  const cert = `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64')}\n-----END CERTIFICATE-----\n`
  const server = createServer({ cert, key: tlsKey }, async (request, response) => {
    if (request.headers.authorization !== 'Bearer let-me-in') return response.writeHead(401).end()
    const octets = await readFile(join(whole, request.url?.slice('/roll'.length) ?? '')).catch(() => undefined)
    response.writeHead(octets ? 200 : 404).end(octets)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/roll`
  const [ca, token] = [join(folder, 'ca.pem'), join(folder, 'token')]
  await writeFile(ca, cert)
  await writeFile(token, 'let-me-in\n')
  t.match(await verify(url, '-ca-file', ca, '-token-file', token, '-every', '10'), {
    code: 0,
    lines: [{ size: 2047, entries: 205 }],
  })
  t.match(await verify(url, '-ca-file', ca), { code: 1, said: /401/ })
  t.match(await verify(url, '-token-file', token), { code: 1, said: /certificate/ })
})

t.test('what is not what it was ends it with a sentence', async (t) => {
  const altered = join(folder, 'altered')
  /** One bit of a file of the roll. */
  const flip = async (name: string, at: number): Promise<void> => {
    await cp(whole, altered, { recursive: true, force: true })
    const octets = await readFile(join(whole, name))
    octets[at % octets.length] = (octets[at % octets.length] ?? 0) ^ 16
    await writeFile(join(altered, name), octets)
  }
  t.match(await verify(whole), { code: 0 })
  // All of them, at places that move on.
  for (const [i, tile] of [...tilesAt(2047)].entries()) {
    const name = encodeTilePath(tile)
    await flip(name, i * 1013 + 5)
    t.match(await verify(altered), { code: 1, said: /^(the entries|entry|the leaves|the proof)/ }, name)
  }
  for (const at of [0, 16, 20, 60, 100]) {
    await flip('checkpoint', at)
    t.match(await verify(altered), { code: 1, said: /^the checkpoint: / }, `the checkpoint at ${at}`)
  }
  await flip('checkpoint', 0)
  await writeFile(join(altered, 'checkpoint'), await readFile(join(whole, 'checkpoint')))
  await rm(join(altered, 'tile/0/003'))
  t.match(await verify(altered), { code: 1, said: /tile\/0\/003/ }, 'a tile that is missing')
})

t.test('a fork and a roll that shrank are found by whoever has seen another checkpoint', async (t) => {
  const state = join(folder, 'fork.state')
  t.match(await verify(whole, '-state', state), { code: 0 })
  const fork = join(folder, 'fork')
  const forked = openFolder(fork, [...entries.slice(0, 2000), ...newEntries(1000, 'development')])
  await forked.growTo(2047)
  t.match(await verify(fork), { code: 0 }, 'it is good by itself')
  t.match(await verify(fork, '-state', state), { code: 1, said: /two roots at size 2047/ })
  await forked.growTo(3000)
  t.match(await verify(fork, '-state', state), { code: 1, said: /has not grown out of that of 2047/ })
  const shorter = join(folder, 'shorter')
  await openFolder(shorter, entries).growTo(2046)
  t.match(await verify(shorter, '-state', state), { code: 1, said: /shrunk from 2047 entries to 2046/ })
})

slowTest(
  `the roll of two replicas is followed over the API of one while both issue, up to ${many} entries`,
  async (t) => {
    const first = await openTestService(t)
    const second = await openTestService(t, {}, first)
    const auditor = await employ(first, 'audit', 'auditor')
    const requester = await employ(first, 'ci', 'requester', { profiles: ['server'] })
    const opened = await first.request('GET', '/v1/events?type=roll.opened', { token: auditor })
    const own = JSON.parse(opened.json.items[0].entry).key
    const [ca, token] = [join(folder, 'service.pem'), join(folder, 'service.token')]
    await writeFile(ca, first.ca)
    await writeFile(token, auditor, { mode: 0o600 })
    const access = ['-ca-file', ca, '-token-file', token]
    const until = ['-polls', '0', '-until', String(many), '-interval', '20ms']
    let [seen, isFollowing] = [0, true]
    const onLine = (): void => {
      seen += 1
    }
    const polling = follow({ vkey: own, from: `${first.url}/roll`, more: [...access, ...until], onLine }).finally(
      () => {
        isFollowing = false
      },
    )
    const bodies = Array.from({ length: 8 }, (_, i) => ({ csr: csrFor(`w${i}.example.com`), profile: 'server' }))
    // Both write, so that each finds the head where the other has left it.
    let left = many
    const refused: unknown[] = []
    /** A second checkpoint is followed to before the last third is issued, and a first before the second: it is all the while. */
    const isAhead = (): boolean => isFollowing && seen < 2 - Math.floor((left * 3) / (many + 1))
    const issue = async (service: TestService, i: number): Promise<void> => {
      for (; left > 0; left -= 1) {
        while (isAhead()) await sleep(5)
        const body = bodies[i % bodies.length]
        const { status, text } = await service.request('POST', '/v1/certificates', { token: requester, body })
        if (status !== 201) refused.push(text)
      }
    }
    const callers = Array.from({ length: 16 }, (_, i) => issue(i % 2 === 0 ? first : second, i))
    const [{ code, said, lines }] = await Promise.all([polling, ...callers])
    t.equal(code, 0, said)
    t.same(refused, [])
    t.ok(lines.length > 2, `${lines.length} checkpoints`)
    t.equal(
      lines.reduce((sum, line) => sum + line.entries, 0),
      lines.at(-1)?.size,
    )
    t.comment(`${lines.at(-1)?.size} entries in ${lines.length} checkpoints`)
    const out = join(folder, 'exported')
    const keys = await readKeys([own])
    const source = await openSource(`${second.url}/roll`, { ca, tokenFile: token })
    const { size } = await exportRoll({ source, folder: out, keys, to: undefined, progress: () => {} })
    t.match(
      await follow({ vkey: own, from: out }),
      { code: 0, lines: [{ size, entries: size }] },
      'and so is what was exported of it',
    )
  },
)
