import { spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, open as openFile, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { readWitnessSettings, serveWitness } from '../../src/cli/witness.ts'
import { openCheckpoint, signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeVerifierKey, parseVerifierKey } from '../../src/tlog/note.ts'
import { encodeAddCheckpoint } from '../../src/tlog/witness.ts'
import { openWitnessServer } from '../../src/witness/server.ts'
import { openWitness, type WitnessService } from '../../src/witness/witness.ts'
import { bare } from '../helpers/environment.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { quiet } from '../helpers/log.ts'
import { freePort } from '../helpers/port.ts'
import { hasher, newSigner, sha256, verifyEd25519 } from '../tlog/hashing.ts'
import { openTestRoll, type TestRoll } from './rolls.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-witness-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
let made = 0

/** A file as an operator writes it, in a folder of its own. */
const write = async (rolls: readonly TestRoll[], port = 0, more = ''): Promise<string> => {
  const path = join(folder, `${made++}.yaml`)
  const keys = rolls.map(({ signer }) => `  - ${encodeVerifierKey(signer.key)}`)
  await writeFile(
    path,
    [
      'name: w.example/w1',
      `listen: 127.0.0.1:${port}`,
      `key: ${path}.key`,
      `state: ${path}.state`,
      'logs:',
      ...keys,
      more,
    ].join('\n'),
  )
  return path
}
const open = async (t: Test, path: string) => {
  const running = await serveWitness(await readWitnessSettings(path), quiet)
  t.teardown(running.close)
  const add = async (body: string | Uint8Array) => {
    const answer = await fetch(`${running.url}/add-checkpoint`, { method: 'POST', body: body as string })
    return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() }
  }
  return { ...running, add }
}

/** No file's octets last from now on, until that is mended: the disk says so. */
const failSyncs = async (t: Test): Promise<{ mend(): void }> => {
  const probe = await openFile(folder)
  const handles = Object.getPrototypeOf(probe)
  await probe.close()
  const { sync } = handles
  const mend = (): void => {
    handles.sync = sync
  }
  t.teardown(mend)
  handles.sync = () => Promise.reject(new Error('EIO: i/o error, fsync'))
  return { mend }
}

t.test('it cosigns what has grown out of what it cosigned before, and says how far it is', async (t) => {
  const roll = openTestRoll()
  const { add, key } = await open(t, await write([roll, openTestRoll('other.example/1')]))
  const witnesses = [parseVerifierKey(key, sha256)]
  t.match(witnesses, [{ name: 'w.example/w1', type: 'cosignature' }])
  for (const [old, size] of [
    [0, 0],
    [0, 5],
    [5, 5],
    [5, 6],
    [6, 300],
    [300, 399],
  ] as const) {
    const { status, text } = await add(await roll.ask(old, size))
    t.equal(status, 200, `${old} to ${size}`)
    const note = `${await roll.checkpoint(size)}${text}`
    const { cosignatures } = await openCheckpoint(note, { roll: [roll.signer.key], witnesses }, verifyEd25519)
    t.match(cosignatures, [{ key: { name: 'w.example/w1' } }])
    t.ok(Math.abs((cosignatures[0]?.time ?? 0) - Date.now() / 1000) < 60)
  }
  for (const [old, size] of [
    [0, 399],
    [6, 399],
    [300, 300],
    [0, 1],
  ] as const)
    t.match(await add(await roll.ask(old, size)), { status: 409, text: '399\n', type: 'text/x.tlog.size' })
})

t.test('what it does not cosign, each by its status, changes nothing', async (t) => {
  const roll = openTestRoll()
  const { add, url } = await open(t, await write([roll]))
  await add(await roll.ask(0, 100))
  const good = await roll.ask(100, 150)
  const stranger = openTestRoll('stranger.example/1')
  const impostor = openTestRoll('roll.example/1', newSigner('roll.example/1'))
  const forked = roll.fork(50)
  const lines = good.split('\n')
  const cases: readonly [string, number, string | Uint8Array][] = [
    ['an unknown roll', 404, await stranger.ask(0, 5)],
    ['another key of the same name', 403, await impostor.ask(100, 150)],
    [
      'a signature that does not hold',
      403,
      good.replace(
        / ([A-Za-z0-9+/]{20})([A-Za-z0-9+/]{60})/,
        (_, a, b) => ` ${a}${b.replace(/./, (c: string) => (c === 'A' ? 'B' : 'A'))}`,
      ),
    ],
    ['an old size beyond the checkpoint', 400, await roll.ask(120, 110)],
    ['another old size', 409, await roll.ask(99, 150)],
    ['a fork of the same size', 409, await forked.ask(100, 100)],
    ['a fork', 422, await forked.ask(100, 150)],
    ['a proof that lacks a hash', 422, [...lines.slice(0, 1), ...lines.slice(2)].join('\n')],
    ['a proof with one hash more', 422, [lines[0], lines[1], ...lines.slice(1)].join('\n')],
    ['a proof from nothing that is not empty', 422, good.replace('old 100', 'old 0')],
    ['nothing', 400, ''],
    ['no checkpoint', 400, 'old 100\n\n'],
    ['no old size', 400, good.replace('old 100\n', '')],
    ['an old size in another spelling', 400, good.replace('old 100', 'old 0100')],
    ['a negative one', 400, good.replace('old 100', 'old -1')],
    ['a hash that is not base64', 400, good.replace(lines[1] as string, 'not base64')],
    ['a hash of another length', 400, good.replace(lines[1] as string, 'AAAA')],
    ['64 hashes', 400, good.replace(lines[1] as string, Array.from({ length: 64 }, () => lines[1]).join('\n'))],
    ['carriage returns', 400, good.replaceAll('\n', '\r\n')],
    ['no UTF-8', 400, Buffer.concat([Buffer.from(good), Buffer.of(0xff)])],
    ['octets', 400, Buffer.alloc(60_000, 1)],
    ['too much', 413, Buffer.alloc(70_000, 'a')],
  ]
  for (const [what, status, body] of cases) t.equal((await add(body)).status, status, what)
  for (const [method, path, status] of [
    ['GET', '/add-checkpoint', 405],
    ['PUT', '/add-checkpoint', 405],
    ['POST', '/', 404],
    ['POST', '/add-checkpoint/', 404],
    ['POST', '/add-checkpoint?x=1', 404],
  ] as const) {
    const answer = await fetch(`${url}${path}`, { method })
    t.equal(answer.status, status, `${method} ${path}`)
    t.equal(answer.headers.get('allow'), status === 405 ? 'POST' : null)
  }
  // Not even HTTP.
  const { port } = new URL(url)
  await new Promise<void>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1', () => socket.end('\u0000\u0001 nonsense\r\n\r\n'))
    socket
      .on('close', () => resolve())
      .on('error', () => {})
      .resume()
  })
  t.equal((await add(good)).status, 200, 'and it goes on from where it was')
})

t.test('of nothing there is one root, and a checkpoint of another is no older than what is known', async (t) => {
  const roll = openTestRoll()
  const { add } = await open(t, await write([roll]))
  const { root } = roll.fork(0)
  const checkpoint = await signCheckpoint({ origin: 'roll.example/1', size: 0, root: root(1) }, roll.signer)
  const { status, text } = await add(encodeAddCheckpoint({ old: 0, proof: [], checkpoint }))
  t.match([status, text], [422, /consistency does not hold/], 'so nobody is told to come with a proof from nothing')
  t.equal((await add(await roll.ask(0, 0))).status, 200)
})

t.test('of two that come at once and do not follow from each other, one is cosigned', async (t) => {
  const roll = openTestRoll()
  const { add } = await open(t, await write([roll]))
  await add(await roll.ask(0, 40))
  const bodies = await Promise.all([roll, roll.fork(50), roll.fork(60), roll.fork(70)].map((one) => one.ask(40, 90)))
  const answers = await Promise.all([...bodies, ...bodies].map(add))
  t.same(answers.map(({ status }) => status).sort(), [200, 409, 409, 409, 409, 409, 409, 409])
})

t.test('what is wrong at a glance costs no signature, and no more wait than there is room for', async (t) => {
  const roll = openTestRoll()
  let held = Promise.withResolvers<void>()
  let verifications = 0
  const witness = openWitness({
    logs: [roll.signer.key],
    signer: newSigner('w.example/w1', 'cosignature', 0),
    // The disk of this one takes its time.
    state: { last: () => undefined, keep: () => held.promise },
    hasher,
    verify: (...signed) => {
      verifications += 1
      return verifyEd25519(...signed)
    },
    now: () => 1,
  })
  const server = await openWitnessServer({ witness, listen: { host: '127.0.0.1', port: 0 }, log: quiet })
  t.teardown(server.close)
  const add = (body: string) => fetch(`${server.url}/add-checkpoint`, { method: 'POST', body })
  const good = await roll.ask(0, 10)
  const short = (await roll.ask(5, 10)).replace(/\n[^\n]+/, '')
  for (const [status, body] of [
    [400, await roll.ask(20, 10)],
    [422, short],
    [422, (await roll.ask(5, 10)).replace('old 5', 'old 0')],
    [404, await openTestRoll('stranger.example/1').ask(0, 10)],
  ] as const)
    t.equal((await add(body)).status, status)
  t.equal(verifications, 0)
  const waiting = Array.from({ length: 64 }, () => witness.add(Buffer.from(good)))
  const refused = await Promise.all(Array.from({ length: 20 }, () => add(good)))
  t.same(
    refused.map(({ status, headers }) => [status, headers.get('retry-after')]),
    refused.map(() => [503, '5']),
  )
  t.equal(verifications, 1, 'of the one whose turn it is')
  t.equal((await add(short)).status, 422, 'who cannot be cosigned is told so all the same')
  held.resolve()
  t.same(new Set((await Promise.all(waiting)).map(({ status }) => status)), new Set([200]))
  t.equal((await add(good)).status, 200, 'there is room again')
  for (let i = 0; i < 80; i += 1)
    t.equal((await witness.add(Buffer.from(good))).status, 200, 'however many have waited')
  held = Promise.withResolvers<void>()
  const again = Array.from({ length: 65 }, () => witness.add(Buffer.from(good)))
  held.resolve()
  t.equal((await Promise.all(again))[64]?.status, 503, 'and no more than before')
})

t.test('whoever leaves in the middle of a body is no fault of the witness', async (t) => {
  const told: unknown[] = []
  const tell = (line: unknown) => void told.push(line)
  const seen = Promise.withResolvers<void>()
  const server = await openWitnessServer({
    witness: {
      add: async () => {
        seen.resolve()
        throw new Error('the disk is full')
      },
    },
    listen: { host: '127.0.0.1', port: 0 },
    log: { ...quiet, error: tell, warn: tell },
  })
  t.teardown(server.close)
  const head = 'POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n'
  const leaver = connect(Number(new URL(server.url).port), '127.0.0.1')
  leaver.write(`${head}a`, () => setTimeout(() => leaver.resetAndDestroy(), 50))
  await new Promise((resolve) => leaver.once('close', () => setTimeout(resolve, 100)))
  t.same(told, [])
  const answer = await fetch(`${server.url}/add-checkpoint`, { method: 'POST', body: 'abc' })
  await seen.promise
  t.equal(answer.status, 500)
  t.match(told, [{ event: 'witness.failed' }], 'what is one is told')
})

t.test('what cannot be kept is not cosigned', async (t) => {
  const roll = openTestRoll()
  const path = await write([roll])
  const { add } = await open(t, path)
  await add(await roll.ask(0, 10))
  const disk = openFullDisk()
  t.teardown(disk.free)
  disk.fill(0)
  t.match(await add(await roll.ask(10, 20)), { status: 500, text: 'nothing was cosigned\n' })
  disk.free()
  t.match(await add(await roll.fork(15).ask(10, 20)), { status: 200 }, 'so another one may be')
  t.match(await add(await roll.ask(10, 20)), { status: 409 })
  // Another process with the same file: neither of them can know any more.
  const state = `${path}.state`
  await writeFile(state, (await readFile(state, 'utf8')).replace('20', '10'))
  t.match(await add(await roll.fork(15).ask(20, 21)), { status: 500 })
})

t.test('what was taken away or set back while it runs is noticed before anything more is cosigned', async (t) => {
  const roll = openTestRoll()
  const path = await write([roll])
  const state = `${path}.state`
  const { add } = await open(t, path)
  const empty = await readFile(state)
  await rm(state)
  t.match(await add(await roll.ask(0, 10)), { status: 500 })
  await writeFile(state, empty)
  t.match(await add(await roll.ask(0, 10)), { status: 200 })
  const older = await readFile(state)
  t.match(await add(await roll.ask(10, 20)), { status: 200 })
  const newest = await readFile(state)
  for (const wrong of [older, empty]) {
    await writeFile(state, wrong)
    t.match(await add(await roll.ask(20, 30)), { status: 500 })
  }
  await writeFile(state, newest)
  t.match(await add(await roll.ask(20, 30)), { status: 200 })
})

t.test('a write that failed when it was in its place already is no fault of somebody else', async (t) => {
  const roll = openTestRoll()
  const { add } = await open(t, await write([roll]))
  await add(await roll.ask(0, 10))
  const syncs = await failSyncs(t)
  const disk = openFullDisk()
  t.teardown(disk.free)
  t.match(await add(await roll.ask(10, 20)), { status: 500 })
  disk.fill(0)
  t.match(await add(await roll.ask(10, 30)), { status: 500 }, 'and one that was not')
  disk.free()
  syncs.mend()
  t.match(await add(await roll.fork(15).ask(10, 40)), { status: 200 }, 'none of them was cosigned')
  t.match(await add(await roll.fork(15).ask(40, 50)), { status: 200 })
})

t.test('what was in its place when it was killed lasts before any of it counts', async (t) => {
  const roll = openTestRoll()
  const config = await write([roll])
  const { add, close } = await open(t, config)
  await add(await roll.ask(0, 10))
  await close()
  const syncs = await failSyncs(t)
  await t.rejects(open(t, config), { message: /EIO/ })
  syncs.mend()
  const again = await open(t, config)
  t.match(await again.add(await roll.ask(10, 10)), { status: 200 })
})

t.test('a connection is kept for the next checkpoint, unless more of a body was announced than is read', async (t) => {
  const { port } = await openCounting(t)
  /** What is answered until the other end closes; it asks for the next when it has an answer. */
  const talk = async (asked: readonly string[]): Promise<string> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    const waiting = [...asked]
    let answers = ''
    const next = (): void => void socket.write(waiting.shift() ?? '\r\n')
    socket.on('connect', next).on('data', (piece) => {
      answers += piece
      next()
    })
    await new Promise((resolve) => socket.once('close', resolve))
    return answers
  }
  const head = (length: number): string =>
    `POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`
  const whole = (length: number): string => head(length) + 'a'.repeat(length)
  const answers = await talk([whole(3), whole(65_536), head(1_000_000) + 'a'.repeat(65_537)])
  t.same(answers.match(/(?<=^HTTP\/1\.1 )\d+/gm), ['200', '200', '413'], 'to the octet')
  t.same(answers.match(/^(3|65536|at most 65536 octets)$/gm), ['3', '65536', 'at most 65536 octets'])
})

t.test('a connection that nobody asks anything on does not keep it from ending', async (t) => {
  const { url, port, close } = await openCounting(t)
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  const ended = new Promise((resolve) => socket.once('close', resolve))
  socket.write(`POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc`)
  await new Promise((resolve) => socket.once('data', resolve))
  await close()
  await ended
  await t.rejects(fetch(url))
})

t.test('no more connections are held than there is room for', async (t) => {
  const { port } = await openCounting(t)
  const call = async () => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    const told = new Promise<string>((resolve) =>
      socket.once('data', (piece) => resolve(String(piece))).on('close', () => resolve('closed')),
    )
    socket.on('error', () => {}).write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    return { socket, answer: await told }
  }
  const held = await Promise.all(Array.from({ length: 256 }, call))
  t.ok(held.every(({ answer }) => answer.startsWith('HTTP/1.1 404 ')))
  t.equal((await call()).answer, 'closed')
})

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))
t.test('at an IPv6 address it is reached by the URL that it tells', { skip: !hasIpv6 }, async (t) => {
  const { url } = await openCounting(t, '::1')
  t.match(url, /^http:\/\/\[::1\]:\d+$/)
  t.equal((await fetch(`${url}/add-checkpoint`, { method: 'POST', body: 'abc' })).status, 200)
})

t.test('a port that another one has is told, and ends the start', async (t) => {
  const { port } = await openCounting(t)
  const listen = { host: '127.0.0.1', port }
  await t.rejects(openWitnessServer({ witness: counting, listen, log: quiet }), { code: 'EADDRINUSE' })
})

/** Answers how many octets it was asked with. */
const counting: WitnessService = { add: async ({ length }) => ({ status: 200, body: `${length}\n` }) }
const openCounting = async (t: Test, host = '127.0.0.1') => {
  const { url, close } = await openWitnessServer({ witness: counting, listen: { host, port: 0 }, log: quiet })
  t.teardown(close)
  return { url, port: Number(new URL(url).port), close }
}

t.test('who is answered while it ends does not keep it', async (t) => {
  const held = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const server = await openWitnessServer({
    witness: {
      add: async () => {
        asked.resolve()
        await held.promise
        return { status: 200, body: 'x\n' }
      },
    },
    listen: { host: '127.0.0.1', port: 0 },
    log: quiet,
  })
  const agent = new Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  const call = request(`${server.url}/add-checkpoint`, { method: 'POST', agent })
  const answered = new Promise((resolve) => call.on('response', (response) => response.on('end', resolve).resume()))
  call.end('abc')
  await asked.promise
  const closed = server.close().then(() => 'closed')
  held.resolve()
  await answered
  t.equal(await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 5_000, 'waits'))]), 'closed')
})

t.test('its state outlives it; one that is damaged stops the start', async (t) => {
  const roll = openTestRoll()
  const second = openTestRoll('second.example/1')
  const path = await write([roll, second])
  const first = await open(t, path)
  await first.add(await roll.ask(0, 10))
  await first.add(await second.ask(0, 20))
  await first.add(await roll.ask(10, 30))
  await first.close()
  const again = await open(t, path)
  t.equal(again.key, first.key)
  t.match(await again.add(await roll.ask(0, 30)), { status: 409, text: '30\n' })
  t.match(await again.add(await second.ask(0, 30)), { status: 409, text: '20\n' })
  await again.close()
  t.same([(await stat(`${path}.key`)).mode & 0o777, (await stat(`${path}.state`)).mode & 0o777], [0o600, 0o600])
  const whole = await readFile(`${path}.state`, 'utf8')
  for (const spoiled of [
    whole.slice(0, -10),
    whole.slice(1, -1),
    `${whole}x`,
    whole.replaceAll('second', 'roll'),
    `${whole}${whole}`,
    ' ',
  ]) {
    await writeFile(`${path}.state`, spoiled)
    await t.rejects(open(t, path), { message: /is damaged: .*docs\/witness\.md/ })
  }
  await rm(`${path}.state`)
  await t.rejects(
    open(t, path),
    { message: /is not there, .* would cosign a fork\. .*docs\/witness\.md/ },
    'nor one lost',
  )
  await mkdir(`${path}.state`)
  await t.rejects(open(t, path), { message: /EISDIR/ }, 'what cannot be read is not called lost')
  await rmdir(`${path}.state`)
  await writeFile(`${path}.state`, '')
  await (await open(t, path)).close()
  await writeFile(`${path}.state`, whole)
  await chmod(`${path}.key`, 0o644)
  await t.rejects(open(t, path), { message: /can be read by others/ })
})

t.test('a file that does not say what a witness needs is told with all its faults', async (t) => {
  const roll = openTestRoll()
  const bad = join(folder, 'bad.yaml')
  await writeFile(bad, 'name: "a b"\nlisten: nowhere\nstate: s\nlogs: [nonsense]\nfoo: 1\n')
  const { message = '' } = (await readWitnessSettings(bad).catch((error: unknown) => error)) as { message?: string }
  for (const field of ['/foo', '/name', '/listen', '/key', 'docs/witness.md']) t.match(message, field)
  await writeFile(bad, '- 1')
  await t.rejects(readWitnessSettings(bad), { kind: 'usage', message: /does not hold settings of a witness/ })
  const none = await write([])
  await writeFile(none, (await readFile(none, 'utf8')).replace('logs:', 'logs: [nonsense]'))
  await t.rejects(readWitnessSettings(none), { kind: 'usage', message: /\/logs\/0: nonsense / })
  await t.rejects(readWitnessSettings(await write([{ ...roll, signer: newSigner('w.example', 'cosignature', 1) }])), {
    message: /\/logs\/0: \S+ is the key of a witness/,
  })
  await t.rejects(readWitnessSettings(join(folder, 'none.yaml')), { kind: 'usage', message: /cannot be read/ })
})

t.test('killed at any time and started again, it never cosigns two that do not follow from each other', async (t) => {
  const roll = openTestRoll()
  const forks = [roll, roll.fork(0)]
  const port = await freePort()
  const path = await write(forks.slice(0, 1), port)
  const cosigned: { readonly fork: number; readonly size: number }[] = []
  const url = `http://127.0.0.1:${port}/add-checkpoint`
  /** Two that speak for two forks, each as far as the witness says that it is. */
  const speak = async (fork: number, until: Promise<unknown>): Promise<void> => {
    let [old, running] = [0, true]
    void until.then(() => {
      running = false
    })
    for (let size = 1; running && size < 390; ) {
      const body = await (forks[fork] as TestRoll).ask(old, size)
      const answer = await fetch(url, { method: 'POST', body }).catch(() => undefined)
      if (answer?.status === 200) cosigned.push({ fork, size })
      if (answer?.status === 409) old = Number(await answer.text())
      if (answer?.status === 200) old = size
      size = Math.max(old + 1, size)
    }
  }
  for (let life = 0; life < 4; life += 1) {
    const child = spawn(process.execPath, ['src/main.ts', 'witness', path], {
      env: bare,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = new Promise((resolve) => child.once('exit', resolve))
    const told = await new Promise<string>((resolve) => child.stdout.once('data', (chunk) => resolve(String(chunk))))
    t.match(
      told,
      /^w\.example\/w1 cosigns roll\.example\/1 at http:\/\/127\.0\.0\.1:\d+\n {2}w\.example\/w1\+[0-9a-f]{8}\+/,
    )
    const speaking = Promise.all([speak(0, exited), speak(1, exited)])
    const before = cosigned.length
    while (cosigned.length < before + 10) await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGKILL')
    await exited
    await speaking
  }
  t.ok(cosigned.length >= 40)
  t.equal(new Set(cosigned.map(({ fork }) => fork)).size, 1, 'all are of one of the two')
})
