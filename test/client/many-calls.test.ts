/** `chancery issue-many` in several calls, and over a connection that breaks. */
import { readdir } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'

import t, { type Test } from 'tap'

import { batchPath } from '../../src/http/bounds.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { args, filesOf, rowsOf } from './many.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const chancery = chanceryFor(service)

slowTest('more than a thousand go in two calls, and how far it is is told', async (t) => {
  const { files, out } = await filesOf(
    t,
    Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`${i}.csr`, csrFor('thousand.example.com')])),
  )
  let calls = 0
  onBatches(t, () => {
    calls += 1
  })
  const run = await chancery(args(files, out, '--json', '--idempotency-key', 'thousand'))
  t.equal(run.code, 0, run.err)
  t.equal(calls, 2)
  const rows = rowsOf(run)
  t.same(
    rows.map(({ file }) => file),
    files,
    'in the order of the command line',
  )
  t.equal(new Set(rows.map(({ serial }) => serial)).size, 1_001)
  t.equal((await readdir(out)).length, 1_001)
  t.match(run.err, /^0 of 1,001 \(0 %\)\n[\s\S]*^1,001 of 1,001 \(100 %\)\n$/m)

  calls = 0
  onBatches(t, (response) => {
    calls += 1
    if (calls === 1) breakOff(response)
  })
  const again = args(files, out, '--json', '--idempotency-key', 'broken')
  const broken = await chancery(again)
  t.equal(broken.code, exitCodes.later)
  t.equal(calls, 1)
  t.same(
    rowsOf(broken).map(({ outcome }) => outcome),
    [...Array(1_000).fill('unknown'), 'unsent'],
  )
  const { detail } = JSON.parse(broken.err.slice(broken.err.indexOf('{')))
  t.match(
    detail,
    /^1,001 requests: 1,000 of which nothing is known, 1 not sent\.\n[\s\S]*\nWith its --idempotency-key /,
  )
  const found = await chancery(again)
  t.equal(found.code, 0)
  t.same(
    rowsOf(found).map(({ replayed }) => replayed),
    [...Array(1_000).fill(true), false],
    'and goes on from there',
  )
})

t.test('what is long goes in as many calls as its octets take', async (t) => {
  const long = Array.from({ length: 70 }, (_, i) => [`${i}.csr`, 'x'.repeat(65_536)])
  const { files, out } = await filesOf(t, { ...Object.fromEntries(long), 'good.csr': csrFor('long.example.com') })
  let calls = 0
  onBatches(t, () => {
    calls += 1
  })
  const run = await chancery(args(files, out, '--json'))
  t.equal(run.code, exitCodes.refused)
  t.equal(calls, 2)
  const codes = rowsOf(run).map(({ outcome, problem }) => problem?.code ?? outcome)
  t.same(codes, [...long.map(() => 'csr.pem'), 'issued'])
})

slowTest(
  'where a whole call comes too soon for a limit of requests, it is made again, and so are those after it',
  async (t) => {
    const long = Array.from({ length: 130 }, (_, i) => [`${i}.csr`, 'x'.repeat(65_536)])
    const { files, out } = await filesOf(t, Object.fromEntries(long))
    let calls = 0
    onBatches(t, (response) => {
      calls += 1
      if (calls === 2) return tooSoon(response)
    })
    const run = await chancery(args(files, out, '--json'))
    t.equal(run.code, exitCodes.refused, run.err)
    t.equal(calls, 4, 'the third was not made at once')
    t.same(
      rowsOf(run).map(({ problem }) => problem?.code),
      long.map(() => 'csr.pem'),
    )
    t.notMatch(run.err, /130 of 130[\s\S]* of 130/, 'what is to be sent again is not told as done')

    calls = 0
    onBatches(t, (response) => {
      calls += 1
      return tooSoon(response)
    })
    t.match(await chancery(args(files, out, '--json')), {
      code: exitCodes.later,
      err: /130 requests: .*to be tried again.*limit\.requests/s,
    })
    t.equal(calls, 1, 'and not for ever')
  },
)

t.test('those that an answer had no room for are sent again, without those that are done', async (t) => {
  const long = Array.from({ length: 3 }, (_, i) => [`${i}.csr`, 'x'.repeat(100)])
  const { files, out } = await filesOf(t, { ...Object.fromEntries(long), 'good.csr': csrFor('room.example.com') })
  const asked: number[] = []
  onBatches(t, (response) => {
    asked.push(Number(response.req.headers['content-length']))
    if (asked.length > 1) return
    const refused = { status: 400, problem: { ...toldOf('csr.pem'), status: 400, retryable: false } }
    const left = { status: 429, problem: toldOf('limit.room') }
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ items: [refused, refused, left, left] }))
    return true
  })
  const run = await chancery(args(files, out, '--json'))
  t.equal(run.code, exitCodes.refused, run.err)
  t.same(
    rowsOf(run).map(({ outcome, problem }) => problem?.code ?? outcome),
    [...long.map(() => 'csr.pem'), 'issued'],
  )
  const [all = 0, rest = 0] = asked
  t.equal(asked.length, 2)
  t.ok(rest < all, 'the first two were not sent again')
})

t.test('of what was sent over a connection that breaks nothing is known, and the same command finds it', async (t) => {
  const { files, out } = await filesOf(t, {
    'a.csr': csrFor('a.broken.example.com'),
    'b.csr': csrFor('b.broken.example.com'),
  })
  onBatches(t, breakOff)
  const broken = await chancery(args(files, out))
  t.equal(broken.code, exitCodes.later)
  t.match(broken.out, /a\.csr +unknown +- +no answer came\n.*b\.csr +unknown +- +no answer came\n$/)
  t.match(
    broken.err,
    /^2 requests: 2 of which nothing is known\.\n\S+ cannot be reached: .*\nNothing is known of the 2 that were sent with the call that broke: they may have been issued\.\nTo try again without a second certificate for any: the same command with --idempotency-key \S+\n$/,
  )
  t.same(await readdir(out), [])
  const { json } = await service.request('GET', '/v1/certificates?name=a.broken.example.com')
  const [{ serial }] = json.items
  t.ok(serial, 'they were')
  restore()
  const key = /--idempotency-key (\S+)\n/.exec(broken.err)?.[1] as string
  const found = await chancery(args(files, out, '--json', '--idempotency-key', key))
  t.equal(found.code, 0)
  t.match(rowsOf(found), [{ serial, replayed: true }, { replayed: true }])

  const away = await chancery(args(files, out, '--json', '--server', 'https://127.0.0.1:1'))
  t.equal(away.code, exitCodes.later)
  t.match(rowsOf(away), [{ outcome: 'later' }, { outcome: 'later' }], 'nor were they sent where nobody listens')
})

/** Sees the answer to each batch before it is given, or gives it and says so, until the test ends or `restore`. */
const onBatches = (t: Test, see: (response: ServerResponse) => unknown): void => {
  restore()
  const { server } = service.service.app
  const listeners = server.listeners('request')
  server.removeAllListeners('request')
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request.url === batchPath && see(response) === true) return
    for (const listener of listeners)
      (listener as (...those: readonly unknown[]) => void).call(server, request, response)
  })
  restore = () => {
    server.removeAllListeners('request')
    for (const listener of listeners) server.on('request', listener as never)
    restore = () => {}
  }
  t.teardown(() => restore())
}
let restore = (): void => {}

/** When everything is done. */
const breakOff = (response: ServerResponse): void => {
  response.writeHead = () => {
    response.socket?.destroy()
    return response
  }
}

const tooSoon = (response: ServerResponse): true => {
  response.writeHead(429, { 'content-type': 'application/problem+json' })
  response.end(JSON.stringify(toldOf('limit.requests')))
  return true
}

const toldOf = (code: string) => ({
  ...{ status: 429, code, detail: 'Too many.', next: 'Wait.', requestId: 'r', retryable: true },
})
