/** What a server, or what stands in its place, may answer instead of what is expected. */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import type { Held } from '../../src/client/issue/folder.ts'
import { readTask, wardOf } from '../../src/client/issue/new-certificate.ts'
import { adviceFor } from '../../src/client/issue/renewal-info.ts'
import { clientAt } from '../../src/client/rest.ts'
import { Failure } from '../../src/lib/failure.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { ip } from '../x509/build.ts'
import { newFolder } from './folders.ts'

const service = await openTestService(t)
const { server } = service.service.app
const listeners = server.listeners('request')
const client = clientAt({ server: service.url, ca: service.ca, token: service.adminToken })

/** Answers everything until the test ends. */
const answerBy = (t: { teardown(end: () => void): void }, answer: (response: ServerResponse) => void): void => {
  server.removeAllListeners('request')
  server.on('request', (_request, response: ServerResponse) => answer(response))
  t.teardown(() => {
    server.removeAllListeners('request')
    for (const listener of listeners) server.on('request', listener as never)
  })
}

const strange: readonly (readonly [type: string, text: string, status?: number])[] = [
  ['text/html', '<p>Log in first</p>'],
  ['application/json', 'null'],
  ['application/json', '7'],
  ['application/json', '{"suggestedWindow":null}'],
  ['application/json', '{"suggestedWindow":{"start":1,"end":2},"reason":3}'],
  ['application/problem+json', '<p>', 503],
  ['application/problem+json', 'null', 400],
]

t.test('where the next token is not taken either, no call after it asks for one more', async (t) => {
  const asked: string[] = []
  const another = async (refused: string): Promise<string> => {
    asked.push(refused)
    return asked.length === 1 ? service.adminToken : `chancery_${asked.length}`
  }
  const place = { server: service.url, ca: service.ca, another }
  const good = clientAt({ ...place, token: 'chancery_0' })
  for (let i = 0; i < 2; i += 1) t.equal((await good.call('GET', '/v1/profiles')).status, 200)
  const bad = clientAt({ ...place, token: 'chancery_1' })
  for (let i = 0; i < 3; i += 1) await t.rejects(bad.call('GET', '/v1/profiles'), /auth\.invalid/)
  t.same(asked, ['chancery_0', 'chancery_1'])
})

t.test('a server that says nonsense of when to renew keeps nobody from renewing', async (t) => {
  const out = await newFolder(t)
  const task = await readTask({ profile: 'server', name: ['answers.example.com'], out: join(out, 'a') }, client.origin)
  await wardOf(task, { now: Date.now, openClient: async () => client }).pass(new AbortController().signal)
  const held = (await task.folder.held()) as Held
  for (const [type, text, status = 200] of strange)
    await t.test(text, async (t) => {
      answerBy(t, (response) => response.writeHead(status, { 'content-type': type }).end(text))
      const noted = { note: async () => {}, noted: async () => undefined }
      const advice = await adviceFor(held, { folder: noted, client, now: Date.now() })
      t.match(advice, { serial: held.serial, window: null, reason: null })
    })
})

t.test('a violation that is the sentence of the refusal is told once, and each other one as well', async (t) => {
  const first = { check: 'a.b', field: '/x', value: '"', reason: 'is none of these. Or of those' }
  const others = [
    { ...first, reason: 'is none' },
    { ...first, reason: 'is none of these.' },
    { ...first, value: '' },
  ]
  const whole = { status: 422, code: 'x.y', next: 'Mend it.', requestId: 'r', violations: [first, ...others] }
  const listed = others.map(({ value, reason }) => `  a.b /x${value && ` ${value}`}: ${reason}\n`).join('')
  for (const end of ['.', '']) {
    const detail = `The check a.b failed for "\\"" at /x: ${first.reason}${end}`
    const answer = JSON.stringify({ ...whole, detail })
    answerBy(t, (response) => response.writeHead(422, { 'content-type': 'application/problem+json' }).end(answer))
    await t.rejects(client.call('GET', '/v1/profiles'), {
      message: `${detail} (x.y, request r)\n${listed}Mend it.`,
    })
  }
})

t.test('one that leaves HTTP instead of answering is told as that, and waited for no longer', async (t) => {
  answerBy(t, (response) => response.writeHead(101, { connection: 'upgrade', upgrade: 'other' }).end())
  const late = sleep(5_000, undefined, { ref: false }).then(() => 'still waiting')
  const message = `${service.url} cannot be reached: the connection ended before an answer.`
  await t.rejects(Promise.race([client.call('GET', '/v1/profiles'), late]), { kind: 'later', message })
})

t.test('what a problem says is taken as far as it is one', async (t) => {
  const whole = { status: 503, code: 'x.y', detail: 'Busy.', next: 'Wait.', requestId: 'r', retryable: true }
  for (const [more, problem, text] of [
    [{}, { retryable: true }, /^Busy\. \(x\.y, request r\)\nWait\.$/],
    [{ retryAfter: 30 }, { retryAfter: 30 }, /Wait\. Retry-After: 30 s\.$/],
    [{ retryAfter: 'soon' }, { retryAfter: undefined }, /Wait\.$/],
    [{ retryAfter: -1 }, { retryAfter: undefined }, /Wait\.$/],
    [{ retryAfter: {} }, { retryAfter: undefined }, /Wait\.$/],
    [{ violations: 7 }, { violations: undefined }, /Wait\.$/],
    [{ violations: [null, {}] }, { violations: [] }, /Wait\.$/],
    [{ status: 'x' }, { status: 503 }, /Wait\.$/],
    [{ detail: 7 }, undefined, /answered 503 without saying why/],
    [{ next: undefined }, undefined, /answered 503 without saying why/],
  ] as const)
    await t.test(JSON.stringify(more), async (t) => {
      const answer = JSON.stringify({ ...whole, ...more })
      answerBy(t, (response) => response.writeHead(503, { 'content-type': 'application/problem+json' }).end(answer))
      const failure: Failure = await client.call('GET', '/v1/profiles').then(
        () => new Failure('failed', 'none'),
        (error: Failure) => error,
      )
      t.match(failure, { kind: 'later', message: text })
      t.match(failure.problem, problem as object)
    })
})

t.test('a proxy that answers in its place says as well when to come again', async (t) => {
  for (const [tell, seconds] of [
    [() => '600', 600],
    [() => new Date(Date.now() + 600_000).toUTCString(), 600],
    [() => '0', undefined],
    [() => 'soon', undefined],
    [() => undefined, undefined],
  ] as const) {
    const told = tell()
    answerBy(t, (response) => response.writeHead(429, told === undefined ? {} : { 'retry-after': told }).end('<p>'))
    const failure: Failure = await client.call('GET', '/v1/profiles').then(
      () => new Failure('failed', 'none'),
      (error: Failure) => error,
    )
    t.match(failure, { kind: 'later', message: /answered 429 without saying why/ })
    const { retryAfter } = failure.toJSON() as { readonly retryAfter?: number }
    t.equal(seconds === undefined ? retryAfter : Math.round((retryAfter ?? 0) / 10) * 10, seconds, `${told}`)
  }
})

t.test('a certificate that is not for now, or not for it, may be so by our own clock or our name for it', async (t) => {
  const ca = openClientCa('A server')
  const clock = ': here it is 20\\S+Z; where that is wrong, set the clock'
  const name = '; call the API as its certificate does, by --server or CHANCERY_URL'
  for (const [shown, code, advice] of [
    [{ from: -7200, to: -3600 }, 'CERT_HAS_EXPIRED', clock],
    [{ from: 3600, to: 7200 }, 'CERT_NOT_YET_VALID', clock],
    [{ names: [ip('7f000002')] }, 'ERR_TLS_CERT_ALTNAME_INVALID', name],
  ] as const) {
    const { cert, key } = ca.certify({ usage: serverAuth, names: [ip('7f000001')], ...shown })
    const server = createServer({ cert, key }).listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const failing = clientAt({ server: `https://127.0.0.1:${port}`, ca: ca.pem })
    await t.rejects(failing.call('GET', '/v1/profiles'), {
      kind: 'usage',
      message: new RegExp(`not for now \\(${code}\\)${advice}`),
    })
  }
})

t.test('what is no JSON is said to be none', async (t) => {
  answerBy(t, (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Log in first</p>'))
  const answer = await client.call('GET', '/v1/profiles')
  t.throws(() => answer.json(), new Failure('failed', 'The server answered 200 with no JSON; is it Chancery?'))
})

t.test('whoever sends an octet now and then is not waited for', async (t) => {
  answerBy(t, (response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const timer = setInterval(() => response.write(' '), 50)
    response.on('close', () => clearInterval(timer))
  })
  const brief = clientAt({ server: service.url, ca: service.ca }, { longestMs: 500, mostOctets: 1_000_000 })
  await t.rejects(brief.call('GET', '/v1/profiles'), {
    kind: 'later',
    message: 'The answer broke off: no whole answer within 0.5 s.',
  })
})

t.test('nor is what has no end kept', async (t) => {
  answerBy(t, (response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const more = (): void => void response.write(Buffer.alloc(65_536), (error) => error ?? setImmediate(more))
    more()
  })
  const small = clientAt({ server: service.url, ca: service.ca }, { longestMs: 30_000, mostOctets: 1_000_000 })
  await t.rejects(small.call('GET', '/v1/profiles'), { kind: 'later', message: /longer than 1000000 octets/ })
})

t.test('whoever says nothing at all is waited for as long as the call says', async (t) => {
  answerBy(t, () => {})
  const call = client.call('GET', '/v1/profiles', { patienceMs: 1_000 })
  await t.rejects(call, { kind: 'later', message: /no answer within 1 s/ })
})

t.test('nor is what stops in the middle waited for any longer, and why it ended is told', async (t) => {
  answerBy(t, (response) => response.writeHead(200, { 'content-length': 100 }).write('{'))
  const message = 'The answer broke off: no more of it within 1 s.'
  await t.rejects(client.call('GET', '/v1/profiles', { patienceMs: 1_000 }), { kind: 'later', message })
  answerBy(t, (response) => response.writeHead(200, { 'content-length': 100 }).write('{', () => response.destroy()))
  await t.rejects(client.call('GET', '/v1/profiles'), { kind: 'later', message: 'The answer broke off: aborted.' })
})

slowTest('whoever takes his time with what came is not said to wait, and gets the rest', async (t) => {
  const octets = 8 * 1024 * 1024
  answerBy(t, (response) => response.writeHead(200).end(Buffer.alloc(octets)))
  let taken = 0
  await client.stream('/v1/events', { patienceMs: 1_000 }, async (piece) => {
    // Once, and longer than it would be waited for.
    if (taken === 0) await sleep(2_500)
    taken += piece.length
  })
  t.equal(taken, octets)
  answerBy(t, (response) => response.writeHead(200).write('x'))
  await t.rejects(
    client.stream('/v1/events', { patienceMs: 1_000 }, async () => {}),
    {
      kind: 'later',
      message: 'The answer broke off: no more of it within 1 s.',
    },
  )
})
