import { X509Certificate } from 'node:crypto'
import { get } from 'node:http'

import t, { type Test } from 'tap'

import { readStanding } from '../../src/db/log-opening.ts'
import { openStores } from '../../src/server/stores.ts'
import { parseCheckpoint } from '../../src/tlog/checkpoint.ts'
import { parseNote, parseVerifierKey } from '../../src/tlog/note.ts'
import { verifyProof } from '../../src/tlog/proof.ts'
import { encodeTilePath, parseBundle, type Tile, tilesAt } from '../../src/tlog/tiles.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { hasher, sha256, verifyEd25519 } from '../tlog/hashing.ts'
import { naiveLeaf, naiveRoot, naiveTile } from '../tlog/naive.ts'
import { csrFor, employ } from './people.ts'
import { openStandIn, reached } from './stand-in.ts'

const service = await openTestService(t, { CHANCERY_ROLL_PUBLIC: 'yes' })
const auditor = await employ(service, 'audit', 'auditor')
const stores = await openStores({ config: service.config, databaseUrl: service.database.servingUrl, log: quiet })
t.teardown(async () => {
  stores.policies.close()
  await stores.db.close()
})
const { opened } = await readStanding(stores.db)
const key = parseVerifierKey(opened?.key ?? '', sha256)

const read = (path: string, headers: Readonly<Record<string, string>> = {}, method = 'GET') =>
  service.request(method, path, { token: auditor, headers })
const checkpoint = async () => {
  const { text } = await read('/roll/checkpoint')
  return { text, ...parseCheckpoint(parseNote(text).text) }
}
/** A checkpoint of at least this size, which another replica has made. */
const grownTo = async (size: number) => {
  const missing = Math.max(0, size - (await stores.roll.head()).size)
  const events = Array.from({ length: missing }, (_, i) => ({
    type: 'principal.created' as const,
    principal: `nobody ${i}`,
    by: 'test',
  }))
  await stores.roll.change(async () => ({ events, result: undefined }))
  for (;;) {
    const found = await checkpoint()
    if (found.size >= size) return found
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
const pathOf = (tile: Tile): string => `/roll/${encodeTilePath(tile)}`

t.test('every tile and bundle of the checkpoint is served, and they make its root', async (t) => {
  const { size, root, origin } = await grownTo(600)
  t.equal(origin, key.name)
  const bundles = [...tilesAt(size)].filter(({ level }) => level === 'entries')
  const entries: Uint8Array[] = []
  for (const bundle of bundles) {
    const answer = await read(pathOf(bundle))
    t.equal(answer.headers['content-type'], 'application/octet-stream')
    entries.push(...parseBundle(answer.bytes, bundle.width))
  }
  t.equal(entries.length, size)
  const leaves = entries.map(naiveLeaf)
  t.same(Buffer.from(naiveRoot(leaves)), Buffer.from(root))
  for (const { level, index, width } of tilesAt(size)) {
    if (level === 'entries') continue
    const { status, bytes } = await read(pathOf({ level, index, width }))
    t.equal(status, 200)
    t.ok(bytes.equals(naiveTile(level, index, width, leaves)), `level ${level}, tile ${index}, ${width} wide`)
  }
  // Any narrower one as well, also of a tile that is full by now.
  for (const [index, width] of [
    [0, 1],
    [0, 255],
    [1, 77],
    [2, size % 256],
  ] as const) {
    t.ok((await read(pathOf({ level: 0, index, width }))).bytes.equals(naiveTile(0, index, width, leaves)))
    const bundle = await read(pathOf({ level: 'entries', index, width }))
    t.same(parseBundle(bundle.bytes, width).map(naiveLeaf), leaves.slice(index * 256, index * 256 + width))
  }
})

t.test('nothing is served that lies behind the checkpoint', async (t) => {
  const { last, there, beyond } = await atOneSize(async (size) => {
    const last = Math.floor(size / 256)
    const tile = (level: Tile['level'], index: number, width: number): string => pathOf({ level, index, width } as Tile)
    const ask = (paths: readonly string[]) => Promise.all(paths.map(async (path) => [path, await read(path)] as const))
    return {
      last,
      there: await ask([tile(0, last, size % 256), tile('entries', last, size % 256)]),
      beyond: await ask(
        ([0, 'entries'] as const).flatMap((level) => [
          tile(level, last, (size % 256) + 1),
          tile(level, last, 256),
          tile(level, last + 1, 1),
          tile(level, 2 ** 40, 1),
        ]),
      ),
    }
  })
  for (const [path, { status }] of there) t.equal(status, 200, path)
  for (const [path, answer] of beyond) t.match(answer, { status: 404, json: { code: 'roll.not_found' } }, path)
  for (const level of [1, 2, 9, 63])
    t.equal((await read(pathOf({ level, index: 0, width: level === 1 ? last + 1 : 1 }))).status, 404)
})

t.test('also where the roll has more; and who asks for the fields alone has taken nothing', async (t) => {
  let copies = 0
  const { app } = await openStandIn({
    checkpoints: reached({ newest: async () => ({ size: 300 }) }),
    tiles: { read: async () => Buffer.from('octets') },
    accesses: reached({ record: async () => `copy ${++copies}` }),
  })
  t.teardown(() => app.close())
  const ask = async (path: string, method: 'GET' | 'HEAD' = 'GET') =>
    (await app.inject({ method, url: `/roll/tile/${path}`, headers: { authorization: 'Bearer auditor_' } })).statusCode
  for (const path of ['0/000', '0/001.p/44', '1/000.p/1', 'entries/001.p/44'])
    t.equal(await ask(path, 'HEAD'), 200, path)
  for (const path of ['0/001.p/45', '0/001', '1/000.p/2', '2/000.p/1', 'entries/001.p/45'])
    t.equal(await ask(path), 404, path)
  t.equal(copies, 0)
  t.equal(await ask('entries/000'), 200)
  t.equal(copies, 1)
})

/** What was found while the roll stood still: the service has events of its own. Neither end of a tile, nor the end of one. */
const atOneSize = async <T>(look: (size: number) => Promise<T>): Promise<T> => {
  for (;;) {
    const { size } = await grownTo(600)
    if (size % 256 > 0 && size % 256 < 255) {
      const found = await look(size)
      if ((await checkpoint()).size === size) return found
    } else await grownTo(size + 1)
  }
}

t.test('what is on disk in any other spelling is not there', async (t) => {
  const { size } = await checkpoint()
  for (const path of [
    '0/0',
    '0/00',
    '0/0000',
    '0/x000/000',
    '00/000',
    '+0/000',
    '0/000.p/0',
    '0/000.p/256',
    '0/000.p/257',
    '0/000.p/01',
    '0/000.p/-1',
    '0/000.p/',
    '0/000.p',
    '0/000/',
    '0//000',
    '64/000',
    '-1/000',
    '0/x001/000/000',
    '0/001/x000',
    'entries/000.p/1e1',
    'entries/0%300',
    'entries/%2e%2e/000',
    'entries/000%3fx=1',
    'Entries/000',
    'entries/\u0660\u0660\u0660',
    `0/${'x000/'.repeat(9)}000`,
    `0/${'9'.repeat(400)}`,
    'checkpoint',
    '',
  ]) {
    const { status, json } = await read(`/roll/tile/${path}`)
    t.equal(status, 404, path)
    t.match(json?.code, /^(roll|request)\.not_found$/, path)
  }
  for (const method of ['POST', 'PUT', 'DELETE'])
    for (const path of ['/roll/checkpoint', '/roll/tile/0/000'])
      t.equal((await read(path, {}, method)).status, 405, `${method} ${path}`)
  t.ok((await checkpoint()).size >= size)
})

t.test('tiles never change and say so; a checkpoint is asked for anew', async (t) => {
  await grownTo(600)
  for (const path of ['/roll/tile/0/000', '/roll/tile/entries/001', '/roll/tile/0/002.p/9']) {
    const answer = await read(path)
    t.match(answer.headers, { 'cache-control': 'private, max-age=31536000, immutable', etag: /^".+"$/ })
    const etag = String(answer.headers['etag'])
    const unchanged = await read(path, { 'if-none-match': etag })
    t.equal(unchanged.status, 304)
    t.equal(unchanged.text, '')
    t.equal((await read(path, { 'if-none-match': '"another"' })).status, 200)
    const head = await read(path, {}, 'HEAD')
    t.equal(head.text, '')
    t.equal(head.headers['content-length'], String(answer.bytes.length))
  }
  for (const path of ['/roll/tile/entries%2F001', '/roll/tile/0%2f002.p%2F9']) {
    const [encoded, plain] = [await read(path), await read(path.replaceAll(/%2f/gi, '/'))]
    t.ok(
      encoded.status === 200 && encoded.bytes.equals(plain.bytes),
      'as clients write it that are made from the description',
    )
    t.equal(encoded.headers['etag'], plain.headers['etag'])
    t.equal((await fetch(`${service.publicUrl}${path}`)).status, 404, 'one spelling for the caches of everybody')
  }
  const { headers } = await read('/roll/checkpoint')
  t.match(headers, { 'cache-control': 'private, no-cache', 'content-type': 'text/plain; charset=utf-8' })
  t.equal((await read('/roll/checkpoint', {}, 'HEAD')).status, 200)
})

t.test('on the API it is for auditors; by a setting the public listener has it for everyone', async (t: Test) => {
  const requester = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  for (const path of ['/roll/checkpoint', '/roll/tile/0/000', '/roll/tile/nowhere']) {
    t.equal((await service.request('GET', path, { token: null })).status, 401)
    t.equal((await service.request('GET', path, { token: requester })).status, 403)
  }
  const told = await fetch(`${service.publicUrl}/roll/checkpoint`)
  t.equal(told.status, 200)
  t.ok(parseCheckpoint(parseNote(await told.text()).text).size >= 600)
  const tile = await fetch(`${service.publicUrl}/roll/tile/0/000`)
  t.equal(tile.headers.get('cache-control'), 'public, max-age=31536000, immutable')
  t.ok(Buffer.from(await tile.arrayBuffer()).equals((await read('/roll/tile/0/000')).bytes))
  t.equal((await fetch(`${service.publicUrl}/roll/tile/0/9`)).status, 404)
  // As no URL class would send it.
  const { port } = new URL(service.publicUrl)
  const statusOf = (path: string) =>
    new Promise((resolve, reject) =>
      get({ host: '127.0.0.1', port, path }, (answer) => {
        answer.resume()
        resolve(answer.statusCode)
      }).on('error', reject),
    )
  for (const path of [
    '/roll/tile/../checkpoint',
    '/roll/tile/0/000#x',
    '/roll/tile/entries/000\\..\\001',
    '//roll/checkpoint',
  ])
    t.equal(await statusOf(path), 404, path)
  t.equal(await statusOf('http://pki.test/roll/tile/0/000'), 200, 'as a proxy is asked for it')
  const shut = await openTestService(t)
  // A connection that is kept would keep the end of the service waiting.
  const last = { headers: { connection: 'close' } }
  t.equal((await fetch(`${shut.publicUrl}/roll/checkpoint`, last)).status, 404, 'and only then')
  t.equal((await fetch(`${shut.publicUrl}/roll/tile/0/000.p/1`, last)).status, 404)
})

t.test('each answer has a proof that holds without us, and the same certificate later another one', async (t) => {
  const trust = { roll: [key], hasher, verify: verifyEd25519 }
  const body = { csr: csrFor('web.example.com'), profile: 'server' }
  const [first, ...others] = await Promise.all(
    Array.from({ length: 12 }, () => service.request('POST', '/v1/certificates', { body })),
  )
  for (const { json } of [first, ...others].flatMap((answer) => answer ?? [])) {
    const { items } = (await read(`/v1/events?serial=${json.serial}`)).json
    const entry = Buffer.from(items[0].entry)
    t.match(await verifyProof(entry, json.proof, trust), { ok: true, index: json.index })
    t.match(await verifyProof(Buffer.concat([entry, Buffer.from(' ')]), json.proof, trust), { ok: false })
    const later = (await read(`/v1/certificates/${json.serial}/proof`)).json.proof
    t.match(await verifyProof(entry, later, trust), { ok: true, index: json.index })
  }
})

t.test('whoever asked for a certificate proves without an auditor that it is on the roll', async (t) => {
  const token = await employ(service, 'asker', 'requester', { profiles: ['server'] })
  const ask = (name: string) =>
    service.request('POST', '/v1/certificates', { body: { csr: csrFor(name), profile: 'server' }, token })
  const [mine, another] = [(await ask('asked.example.com')).json, (await ask('other.example.com')).json]
  t.equal((await service.request('GET', `/v1/events?serial=${mine.serial}`, { token })).status, 403)
  const { json } = await service.request('GET', `/v1/certificates/${mine.serial}/proof`, { token })
  t.match(json, { serial: mine.serial, index: mine.index, leafHash: mine.leafHash })
  const trust = { roll: [key], hasher, verify: verifyEd25519 }
  const entry = Buffer.from(json.entry)
  for (const proof of [json.proof, mine.proof])
    t.match(await verifyProof(entry, proof, trust), { ok: true, index: mine.index })
  t.match(await verifyProof(entry, another.proof, trust), { ok: false }, 'nor is it the entry of another one')
  const told = JSON.parse(json.entry)
  t.equal(told.certificate, new X509Certificate(mine.certificate).raw.toString('base64'))
})
