/** Certificates that renew themselves: which way they ask, what is asked again after a crash, and what is fallen back to. */
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { obtain, type Task } from '../../src/client/issue/ensure.ts'
import type { Held } from '../../src/client/issue/folder.ts'
import { readTask, wardOf } from '../../src/client/issue/new-certificate.ts'
import { adviceFor, momentIn } from '../../src/client/issue/renewal-info.ts'
import { type Client, openClient } from '../../src/client/rest.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { openHoldersOf } from '../http/holders.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const chancery = chanceryFor(service)
const { change } = openHoldersOf(service)
const root = join(service.config.dataDir, 'root.pem')
const client = await openClient({ server: service.url }, { CHANCERY_DATA: service.config.dataDir })
/** As on a machine that has its certificate and no token. */
const tokenless = await openClient(
  { server: service.url, ca: root, tokenLater: true },
  { CHANCERY_DATA: '/nonexistent' },
)
const signal = new AbortController().signal

const taskFor = async (name: string, out: string, more: Partial<Task> = {}): Promise<Task> => ({
  ...(await readTask({ profile: 'server', name: [name], out }, client.origin)),
  renews: true,
  isDue: () => true,
  isSpent: () => false,
  ...more,
})

/** The certificate that the roll says to have been replaced by this one. */
const replacedBy = async (serial: string | undefined): Promise<string | undefined> => {
  const { json } = await service.request('GET', `/v1/events?serial=${serial}&type=certificate.issued`)
  return JSON.parse(json.items[0].entry).replaces
}
const countOf = async (name: string): Promise<number> =>
  (await service.request('GET', `/v1/certificates?name=${name}&limit=1000`)).json.items.length

/** Tells each call of what it is given, and may lose its answer. */
const watched = (
  inner: Client,
  calls: string[],
  lost: (method: string, path: string) => boolean = () => false,
): Client => ({
  ...inner,
  as: (identity) => watched(inner.as(identity), calls, lost),
  call: async (method, path, call) => {
    calls.push(`${method} ${path.replace(/[0-9a-f]{32}/, ':serial')} ${inner.hasToken ? 'by token' : 'by itself'}`)
    const answer = await inner.call(method, path, call)
    if (lost(method, path)) throw new Failure('later', 'The answer broke off.')
    return answer
  },
})

t.test('the first is asked for with a token; the next one takes the place of that by itself', async (t) => {
  const out = await newFolder(t)
  const task = await taskFor('self.example.com', out)
  await t.rejects(obtain(task, tokenless), /The token \/nonexistent\/admin\.token cannot be read/)
  const first = await obtain(task, client)
  t.equal(await replacedBy(first.held.serial), null)
  const calls: string[] = []
  const second = await obtain(task, watched(tokenless, calls))
  t.same(calls, ['POST /v1/certificates/:serial/renewal by itself', 'GET /v1/certificates/:serial/bundle by itself'])
  t.equal(await replacedBy(second.held.serial), first.held.serial)
  t.equal(second.refusal, undefined)
  const shown = await readShown(out)
  t.equal(shown?.serial, second.held.serial)
  t.equal(shown?.files['root.pem'], service.ca)
  t.not(shown?.files['key.pem'], first.held.keyPem, 'with a new key')
  const third = await obtain({ ...task, reuseKey: true }, tokenless)
  t.equal(third.held.keyPem, second.held.keyPem, 'or with the one that is there')
  const other = await taskFor('other.example.com', out, { reuseKey: true })
  await t.rejects(obtain(other, tokenless), /cannot be read/, 'other names are another certificate')
  const { held } = await obtain(other, client)
  t.not(held.keyPem, third.held.keyPem, 'with another key')
})

t.test('an answer that was lost is asked for again, and there is one certificate', async (t) => {
  const out = await newFolder(t)
  const name = 'lost.example.com'
  const task = await taskFor(name, out)
  const isAnew = (_: string, path: string): boolean => path === '/v1/certificates'
  await t.rejects(obtain(task, watched(client, [], isAnew)), /broke off/)
  await t.rejects(obtain(task, tokenless), /cannot be read/)
  const first = await obtain(task, client)
  t.equal(first.issued?.replayed, true, 'the first one also where its token was away meanwhile')
  const calls: string[] = []
  const isRenewal = (_: string, path: string): boolean => path.endsWith('/renewal')
  await t.rejects(obtain(task, watched(tokenless, calls, isRenewal)), /broke off/)
  await t.rejects(obtain(task, watched(tokenless, calls, isRenewal)), /broke off/)
  const pending = JSON.parse(await readFile(join(out, '.chancery/pending.json'), 'utf8'))
  t.equal(pending.replaces, first.held.serial)
  const second = await obtain({ ...task, isDue: () => false }, tokenless)
  t.equal(second.issued?.replayed, true)
  t.equal(await countOf(name), 2)
  // Killed between writing the answer and forgetting the question.
  await writeFile(join(out, '.chancery/pending.json'), JSON.stringify(pending))
  const third = await obtain({ ...task, isDue: () => false }, tokenless)
  t.equal(third.issued, undefined)
  t.equal(third.held.serial, second.held.serial)
  t.equal(await countOf(name), 2, 'what has been replaced does not ask again')

  await t.rejects(obtain(task, watched(tokenless, calls, isRenewal)), /broke off/)
  const path = `/v1/certificates/${second.held.serial}/revocation`
  await service.request('POST', path, { body: { reason: 'superseded' } })
  const fourth = await obtain({ ...task, isDue: () => false }, client)
  t.match(fourth.refusal?.problem, { code: 'auth.revoked' })
  t.not(fourth.held.serial, second.held.serial, 'what was asked and is refused now is asked for anew')
})

t.test('where it may not renew itself, a token asks for a new one, if there is any', async (t) => {
  const out = await newFolder(t)
  const task = await taskFor('fallback.example.com', out)
  const first = await obtain(task, client)
  await change('server', { renewal: undefined })
  await t.rejects(obtain(task, tokenless), {
    kind: 'denied',
    message: /renewal\.forbidden[\s\S]*There is no token to ask for a new one with\./,
  })
  const calls: string[] = []
  const second = await obtain(task, watched(client, calls))
  t.same(calls, [
    'POST /v1/certificates/:serial/renewal by itself',
    'POST /v1/certificates by token',
    'GET /v1/certificates/:serial/bundle by token',
  ])
  t.match(second.refusal?.problem, { code: 'renewal.forbidden' })
  t.equal(await replacedBy(second.held.serial), null)
  t.not(second.held.serial, first.held.serial)

  await change('server', { renewal: { within: '365d' } })
  const same = await obtain({ ...task, reuseKey: true }, client)
  t.match(same.refusal?.problem, { code: 'renewal.key' }, 'the profile wants a new key')
  const told = await chancery([
    'issue',
    '--profile',
    'server',
    '--name',
    'fallback.example.com',
    '--out',
    out,
    '--reuse-key',
    '--renew-before',
    '43197m',
  ])
  t.match(told, { code: 0, out: /^note +asked for anew, since it could not renew itself: .*renewal\.key/m })
  await change('server', { renewal: { within: '365d', key: 'any' } })
})

t.test(
  'what keeps it from renewing itself may pass: a token that is dead meanwhile holds it up no longer',
  async (t) => {
    const out = await newFolder(t)
    const task = await taskFor('passing.example.com', out)
    const first = await obtain(task, client)
    const dead = await openClient(
      { server: service.url, ca: root },
      { CHANCERY_DATA: '/nonexistent', CHANCERY_TOKEN: 'chancery_dead' },
    )
    await change('server', { renewal: undefined })
    await t.rejects(obtain(task, dead), {
      kind: 'denied',
      message: /auth\.invalid[\s\S]*since it could not renew itself: .*renewal\.forbidden/,
    })
    await change('server', { renewal: { within: '365d', key: 'any' } })
    const second = await obtain(task, dead)
    t.equal(await replacedBy(second.held.serial), first.held.serial, 'it renews itself again')

    await change('server', { renewal: undefined })
    const isAnew = (_: string, path: string): boolean => path === '/v1/certificates'
    await t.rejects(obtain(task, watched(client, [], isAnew)), /broke off/)
    await change('server', { renewal: { within: '365d', key: 'any' } })
    const file = join(out, '.chancery/pending.json')
    const asked = JSON.parse(await readFile(file, 'utf8'))
    // That process is always there.
    const ofOther = { ...asked, by: asked.by.replace(/^\d+/, '1') }
    await writeFile(file, JSON.stringify(ofOther))
    await t.rejects(obtain(task, tokenless), /cannot be read/)
    await t.rejects(obtain(task, dead), /auth\.invalid/)
    t.same(JSON.parse(await readFile(file, 'utf8')), ofOther, 'what another command waits for is kept')
    await writeFile(file, JSON.stringify({ ...ofOther, at: '2020-01-01T00:00:00Z' }))
    const third = await obtain(task, tokenless)
    t.equal(
      await replacedBy(third.held.serial),
      second.held.serial,
      'nor does a question that only a token gets an answer to',
    )
  },
)

t.test('what people are asked to approve is not forgotten for a token that is dead meanwhile', async (t) => {
  await wantApprovals(service, 'payments', { required: 1 })
  const { requester, alice } = await employApprovers(service, ['payments'])
  const as = (token: string): Promise<Client> =>
    openClient({ server: service.url, ca: root }, { CHANCERY_DATA: '/nonexistent', CHANCERY_TOKEN: token })
  const [good, dead] = [await as(requester), await as('chancery_dead')]
  const requests = async () => (await service.request('GET', '/v1/requests?profile=payments')).json.items
  const approve = async () => t.match(await openDesk(service).approve(alice, (await requests())[0]), { status: 200 })
  const out = await newFolder(t)
  const order = await readTask({ profile: 'payments', name: ['pay.example.com'], out }, client.origin)
  const task = { ...(await taskFor('pay.example.com', out)), ...order }
  await t.rejects(obtain(task, good), /waits for approval/)
  await approve()
  const first = await obtain(task, good)
  for (const refused of [dead, tokenless]) {
    const { length } = await requests()
    await t.rejects(obtain(task, good), /waits for approval/, 'its profile lets nobody renew')
    const pending = join(out, '.chancery/pending.json')
    t.equal((await stat(pending)).mode & 0o777, 0o600)
    await t.rejects(obtain(task, refused))
    await approve()
    t.equal((await obtain(task, good)).issued?.replayed, true)
    t.equal((await requests()).length, length + 1, 'people were asked once')
  }
  t.not((await readShown(out))?.serial, first.held.serial)

  await t.rejects(obtain(task, good), /waits for approval/)
  const pending = join(out, '.chancery/pending.json')
  const past = { ...JSON.parse(await readFile(pending, 'utf8')), awaitedUntil: '2020-01-01T00:00:00Z' }
  await writeFile(pending, JSON.stringify(past))
  await t.rejects(obtain(task, dead), /auth\.invalid/)
  await t.rejects(readFile(pending), { code: 'ENOENT' }, 'when nobody can approve it any more, it is')
})

slowTest('a command that comes by a timer asks the server when, and not too often', async (t) => {
  const out = await newFolder(t)
  const issue = [
    'issue',
    '--profile',
    'server',
    '--name',
    'timer.example.com',
    '--out',
    out,
    '--renew-before',
    '30%',
    '--json',
  ]
  const run = async (env = {}) => JSON.parse((await chancery(issue, env)).out || '{}')
  const first = await run()
  t.equal(first.issued, true)
  const nobody = { CHANCERY_DATA: '/nonexistent', CHANCERY_CACERT: root, CHANCERY_TOKEN: '' }
  t.match(await run(nobody), { issued: false, serial: first.serial })
  const file = join(out, '.chancery/renewal-info.json')
  const advice = JSON.parse(await readFile(file, 'utf8'))
  t.match(advice, { serial: first.serial, reason: 'age', window: { start: /Z$/, end: /Z$/ } })
  t.ok(Date.parse(advice.askAt) - Date.now() > 5 * 3_600_000, 'Retry-After')

  await service.request('POST', `/v1/certificates/${first.serial}/revocation`, { body: { reason: 'superseded' } })
  t.equal((await run()).issued, false, 'it is not asked before')
  await rm(file)
  const next = await run()
  t.match(next, { issued: true, askedAnew: { code: 'auth.revoked' } })
  t.not(next.serial, first.serial)
  const shown = await chancery(['certificate', 'renewal-info', next.serial])
  t.match(shown, { code: 0, out: /^renew +from 20\S+Z until 20\S+Z\nwhy +age\nask again +in 6 h/ })
  t.match(await chancery(['certificate', 'renewal-info', first.serial]), { out: /^renew +now[^\n]*\nwhy +revoked\n/ })
  t.equal((await chancery(['certificate', 'renewal-info', '40'.repeat(16)])).code, exitCodes.missing)
})

t.test('a daemon follows what the server suggests, and what it suggests next', async (t) => {
  const out = await newFolder(t)
  let now = Date.now()
  const options = { profile: 'server', name: ['daemon.example.com'], out }
  const ward = wardOf(await readTask(options, client.origin), { now: () => now, openClient: async () => client })
  const first = await ward.pass(signal)
  const { json } = await service.request('GET', `/v1/certificates/${first.serial}/renewal-info`)
  const { start, end } = json.suggestedWindow
  t.ok(first.renewAt.toISOString() >= start && first.renewAt.toISOString() <= end, 'a moment within the window')
  t.equal(first.lookAt?.getTime(), now + 6 * 3_600_000)
  const stubborn = wardOf(await readTask({ ...options, renewBefore: '70%' }, client.origin), {
    now: () => now,
    openClient: async () => client,
  })
  t.ok((await stubborn.pass(signal)).renewAt < first.renewAt, 'or before, where somebody has said so')

  await service.request('POST', `/v1/certificates/${first.serial}/revocation`, { body: { reason: 'superseded' } })
  now += 5 * 3_600_000
  t.match(await ward.pass(signal), { serial: first.serial, issued: false }, 'not before it is to be asked again')
  now += 3_600_001
  const second = await ward.pass(signal)
  t.match(second, { issued: true, refusal: /auth\.revoked/, reason: 'age' })
  t.not(second.serial, first.serial)
})

t.test('how it stands can be seen without asking anybody', async (t) => {
  const options = { profile: 'server', name: ['looked.example.com'], out: await newFolder(t) }
  const task = await readTask(options, client.origin)
  const openAgain = async (): Promise<Client> => {
    throw new Failure('usage', 'The trust anchor is gone.')
  }
  const ward = wardOf(task, { now: Date.now, openClient: openAgain })
  t.equal(await ward.look(), undefined)
  const { held } = await obtain(await taskFor('looked.example.com', options.out), client)
  await t.rejects(ward.pass(signal), /is gone/)
  const looked = await ward.look()
  t.match(looked, { serial: held.serial, issued: false, failure: undefined })
  t.same(looked?.notAfter, held.notAfter)
  const other = await readTask({ ...options, name: ['other.example.com'] }, client.origin)
  t.equal(await wardOf(other, { now: Date.now, openClient: openAgain }).look(), undefined, 'not of another order')
})

t.test('however late the server would have it, a certificate is renewed while it holds', async (t) => {
  const out = await newFolder(t)
  const windows: object[] = []
  const lying = (inner: Client): Client => ({
    ...inner,
    as: (identity) => lying(inner.as(identity)),
    call: async (method, path, call) => {
      const answer = await inner.call(method, path, call)
      if (!path.endsWith('/renewal-info')) return answer
      const suggestedWindow = windows[0]
      return { ...answer, json: <T>() => ({ ...answer.json<object>(), suggestedWindow }) as T }
    },
  })
  windows.push({ start: '2099-01-01T00:00:00Z', end: '2099-01-02T00:00:00Z' })
  const task = await readTask({ profile: 'server', name: ['late.example.com'], out }, client.origin)
  const ward = wardOf(task, { now: Date.now, openClient: async () => lying(client) })
  const { notBefore, notAfter, renewAt } = await ward.pass(signal)
  const left = (notAfter.getTime() - renewAt.getTime()) / (notAfter.getTime() - notBefore.getTime())
  t.ok(left >= 0.1 && left < 0.2, `${left} of its life is left`)
})

t.test('a server that says nothing, or nonsense, keeps nobody from renewing', async (t) => {
  const held = { serial: '40'.repeat(16), certificatePem: '', keyPem: '', digest: Buffer.alloc(32, 0x80) } as Held
  const now = Date.now()
  const notes: string[] = []
  const folder = { note: async (_: string, text: string) => void notes.push(text), noted: async () => notes.at(-1) }
  const answering = (body: unknown, headers = {}): Client => {
    const call: Client['call'] = async () => {
      if (body instanceof Error) throw body
      return { status: 200, headers, octets: Buffer.alloc(0), text: '', json: () => body as never }
    }
    const fake: Client = { ...client, call, as: () => fake, hasToken: false }
    return fake
  }
  const advise = (client: Client, at = now) => adviceFor(held, { folder, client, now: at })
  const minutes = (askAt: string, at = now): number => (Date.parse(askAt) - at) / 60_000
  const none = await advise(answering(new Failure('later', 'away')))
  t.match(none, { window: null, reason: null })
  t.equal(minutes(none.askAt), 1)
  t.equal(momentIn(none, held), undefined)
  t.equal(await advise(answering(new Error('is not asked'))).then(({ askAt }) => askAt), none.askAt)
  const window = { start: '2026-11-25T00:00:00Z', end: '2026-11-26T00:00:00Z' }
  const later = now + 120_000
  const good = await advise(answering({ suggestedWindow: window, reason: 'age' }, { 'retry-after': '7200' }), later)
  t.equal(minutes(good.askAt, later), 120)
  t.equal(momentIn(good, held)?.toISOString().slice(0, 13), '2026-11-25T12')
  const much = later + 3 * 3_600_000
  const kept = await advise(answering({ suggestedWindow: { start: window.end, end: window.start } }), much)
  t.same(kept.window, window, 'what was known goes on to hold')
  for (const [asked, expected] of [
    ['0', 1],
    ['999999', 24 * 60],
    ['soon', 360],
  ] as const) {
    notes.length = 0
    const { askAt } = await advise(answering({ suggestedWindow: window }, { 'retry-after': asked }))
    t.equal(minutes(askAt), expected, asked)
  }
  notes.push('nonsense')
  t.same((await advise(answering({ suggestedWindow: window }))).window, window)
  const back = now - 1_000 * 3_600_000
  t.ok(
    minutes((await advise(answering({ suggestedWindow: window }), back)).askAt, back) <= 24 * 60,
    'a clock that was set back',
  )
})
