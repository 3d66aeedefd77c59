/** The pieces of `chancery issue-many`: how requests are shared out among calls, and what becomes of strange answers. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { callBatch, callsOf, mayBeDone } from '../../src/client/issue/calls.ts'
import { issuedOrNot } from '../../src/client/issue/ended.ts'
import { readIssued } from '../../src/client/issue/issued.ts'
import { readRequestFiles } from '../../src/client/issue/requests.ts'
import { type Call, type Client, clientAt } from '../../src/client/rest.ts'
import { batchTimeout } from '../../src/http/bounds.ts'
import { Failure } from '../../src/lib/failure.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'
import { newFolder } from './folders.ts'

const service = await openTestService(t)

t.test('as few calls as the bounds allow, and none beyond them', async (t) => {
  const item = '"ö2345678"'
  const octets = Buffer.byteLength(item)
  const bodies = (count: number, bounds: Parameters<typeof callsOf>[1]) => callsOf(Array(count).fill(item), bounds)
  t.same(bodies(0, { items: 3, octets: 100 }), [])
  t.same(
    bodies(7, { items: 3, octets: 1_000 }).map(({ count }) => count),
    [3, 3, 1],
  )
  const most = Buffer.byteLength(`{"items":[${item},${item}]}`)
  t.same(
    bodies(3, { items: 9, octets: most + 1 }).map(({ count }) => count),
    [2, 1],
  )
  for (let bound = octets + 13; bound < 100; bound += 1)
    for (const { body, count } of bodies(9, { items: 9, octets: bound })) {
      t.ok(Buffer.byteLength(body) <= bound)
      t.equal(JSON.parse(body).items.length, count)
    }
  const usual = callsOf(Array(1_001).fill(`"${'x'.repeat(8_000)}"`))
  t.same(
    usual.map(({ count }) => count),
    [524, 477],
  )
})

t.test(
  'a call is waited for as long as the service may take, and what is no answer to it is said to be none',
  async (t) => {
    let made: Call = {}
    const answering = (told: unknown): Client => ({
      ...clientAt({ server: service.url, ca: service.ca }),
      call: async (_method, _path, call = {}) => {
        made = call
        return { status: 200, headers: {}, octets: Buffer.alloc(0), text: '', json: <T>() => told as T }
      },
    })
    const call = { body: '{"items":[1]}', count: 1 }
    for (const told of [
      null,
      7,
      {},
      { items: [] },
      { items: [null] },
      { items: [{}] },
      { items: [{ status: 201 }, {}] },
    ]) {
      const failure = await callBatch(answering(told), call).catch((error) => error)
      t.match(failure, { kind: 'failed', message: /no outcome for each request; is it Chancery\?/ })
      t.ok(mayBeDone(failure))
    }
    t.ok((made.patienceMs ?? 0) > batchTimeout)
    for (const [item, kind] of [
      [{ status: 201 }, 'failed'],
      [{ status: 202, request: {} }, 'failed'],
      [{ status: 503 }, 'later'],
      [{ status: 422, problem: 7 }, 'failed'],
    ] as const)
      t.match(await callBatch(answering({ items: [item] }), call), [{ kind }], JSON.stringify(item))

    for (const [code, may] of [
      ['overload.deadline', true],
      ['overload.queue', false],
      ['service.stopping', false],
    ] as const)
      t.equal(mayBeDone(new Failure('later', '', { code })), may, code)
    t.notOk(mayBeDone(new Failure('denied', '', { code: 'auth.invalid' })))
  },
)

t.test('the certificate of another request is not written, and one that cannot be is told of', async (t) => {
  const folder = await newFolder(t)
  const files = ['a.csr', 'b.csr'].map((name) => join(folder, name))
  for (const file of files) await writeFile(file, csrFor('wrong.example.com'))
  const out = join(folder, 'out')
  const [a, b] = (await readRequestFiles(files, out)) as [Parameters<typeof issuedOrNot>[0], { csr: string }]
  const client = clientAt({ server: service.url, ca: service.ca, token: service.adminToken })
  const issue = async (csr: string) =>
    readIssued(await client.call('POST', '/v1/certificates', { body: { csr, profile: 'server' } }))
  const wrong = await issuedOrNot(a, await issue(b.csr))
  t.match(wrong, { kind: 'failed', row: { outcome: 'failed', out: null, problem: { detail: /another key/ } } })
  t.same(await readdir(out), [])
  const mine = await issue(a.csr)
  const lost = await issuedOrNot({ ...a, out: join(out, 'none', 'a.pem') }, mine)
  t.match(lost, {
    kind: 'usage',
    row: {
      outcome: 'failed',
      out: null,
      serial: mine.serial,
      problem: { detail: /a\.pem cannot be written \(ENOENT\)/ },
    },
  })
  t.match(await issuedOrNot(a, mine), { row: { outcome: 'issued', serial: mine.serial } })
  const before = await readFile(a.out, 'utf8')
  const [disk, next] = [openFullDisk(), await issue(a.csr)]
  disk.fill(100)
  const full = await issuedOrNot(a, next).finally(disk.free)
  t.match(full, { kind: 'usage', row: { outcome: 'failed', problem: { detail: /cannot be written \(EFBIG\)/ } } })
  t.equal(await readFile(a.out, 'utf8'), before, 'what was there is whole')
  t.same(await readdir(out), ['a.pem'])
  t.match(await issuedOrNot({ ...a, csr: 'junk' }, mine), { kind: 'failed', row: { outcome: 'failed' } })
})
