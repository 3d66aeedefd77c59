/** Logging in by a code that is typed in a browser, and by a certificate: the good days, and the others. */
import { execFile, spawn } from 'node:child_process'
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { readdir, readFile, readlink, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'
import { parse, stringify } from 'yaml'

import { endOf, loginByDevice, refresh, subjectOf } from '../../src/client/oidc.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { openClientCa } from '../helpers/clients.ts'
import {
  type DeviceIssuer,
  openDeviceIssuer,
  peopleDocument,
  type Scripted,
  type ScriptedAnswer,
} from '../helpers/device-issuer.ts'
import { bare } from '../helpers/environment.ts'
import { mainFile, type Run } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
const clients = openClientCa('Clients of the tests')
let issuer: DeviceIssuer
let service: TestService
let home: string

t.before(async () => {
  issuer = await openDeviceIssuer(t)
  home = await newFolder(t)
  await writeFile(join(home, 'clients.pem'), clients.pem)
  await writeFile(join(home, 'oidc.pem'), issuer.ca)
  service = await openTestService(t, { CHANCERY_CLIENT_CA: join(home, 'clients.pem') })
  const document = peopleDocument(issuer, [{ id: 'alice', claims: { sub: 'alice' }, principal: 'alice' }])
  const made = await service.request('PUT', '/v1/identity-providers/people', {
    headers: { 'if-none-match': '*' },
    body: document,
  })
  if (made.status !== 201) throw new Error(made.text)
  await service.request('POST', '/v1/principals', { body: { name: 'alice' } })
  await service.request('POST', '/v1/grants', { body: { principal: 'alice', role: 'auditor' } })
})

t.beforeEach(() => {
  Object.assign(issuer, { said: {}, code: {}, claims: {}, life: 600 })
  issuer.script.length = 0
  issuer.asked.length = 0
})

/** `heard` is given what standard error says, as it comes. */
const chancery = (args: readonly string[], heard: (text: string) => void = () => {}): Promise<Run> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [mainFile, ...args], { env: { ...bare, HOME: home }, cwd: home })
    const said = { out: '', err: '' }
    child.stdout.on('data', (chunk: Buffer) => {
      said.out += chunk
    })
    child.stderr.on('data', (chunk: Buffer) => {
      said.err += chunk
      heard(said.err)
    })
    child.once('close', (code) => resolve({ code: code ?? -1, ...said }))
  })

const refreshes = (): number => issuer.asked.filter(({ form }) => form.get('grant_type') === 'refresh_token').length

const file = (): string => join(home, '.config/chancery/config.yaml')
const contextNow = async () => {
  const { contexts, current } = parse(await readFile(file(), 'utf8'))
  return contexts[current]
}
const place = (): readonly string[] => ['--server', service.url, '--ca', join(service.config.dataDir, 'root.pem')]
const oidcCa = (): string => join(home, 'oidc.pem')
const loginAs = (client: string, ca: string): readonly string[] => [
  ...['login', ...place(), '--oidc', issuer.url, '--client-id', client, '--oidc-ca', ca],
]
const login = (...more: readonly string[]): readonly string[] => [...loginAs('cli', oidcCa()), ...more]
const typeIt = (err: string): void => issuer.type(/type the code (\S+)/.exec(err)?.[1] ?? '')

slowTest('a code that is typed in a browser logs in, and what came of it stays in the context file', async (t) => {
  const run = await chancery(login('--context', 'people'), typeIt)
  t.match(run, { code: 0, out: `people is the current context: ${service.url} takes the token.\n` })
  t.match(run.err, `To log in, open ${issuer.url}/activate and type the code `)
  t.match(run.err, /within 10 min\. Waiting …\n$/)
  t.equal((await stat(file())).mode & 0o777, 0o600)
  const { oidc } = await contextNow()
  t.match(oidc, { issuer: issuer.url, clientId: 'cli', scope: 'offline_access', refreshToken: /^refresh-/ })
  t.match(issuer.asked.find(({ path }) => path === '/device')?.form.get('scope'), 'openid offline_access')
  t.match(await chancery(['audit', 'refusals']), { code: 0 }, 'it is whoever logged in')
  const listed = await chancery(['context', 'list'])
  t.match(listed.out, `by ${issuer.url}`)
  for (const { out, err } of [run, listed])
    for (const secret of [oidc.idToken, oidc.refreshToken]) t.notMatch(out + err, secret, 'and is shown by nothing')
  t.equal((await service.request('GET', '/v1/accesses?principal=alice')).json.items.length, 1)
})

slowTest('a token that is near its end is renewed, and the new one kept', async (t) => {
  issuer.life = 30
  t.equal((await chancery(login('--context', 'brief'), typeIt)).code, 0)
  const before = (await contextNow()).oidc
  issuer.life = 600
  t.equal((await chancery(['audit', 'refusals'])).code, 0)
  const { oidc: after } = await contextNow()
  t.not(after.idToken, before.idToken)
  t.not(after.refreshToken, before.refreshToken, 'the one of before is spent')
  t.ok(endOf(after.idToken) > endOf(before.idToken))
  t.equal(refreshes(), 1)
  t.equal((await chancery(['audit', 'refusals'])).code, 0)
  t.equal(refreshes(), 1, 'a fresh one is not asked for again')
})

slowTest('of several commands at once one renews it, and all go on', async (t) => {
  issuer.life = 30
  await chancery(login('--context', 'several'), typeIt)
  issuer.life = 600
  const runs = await Promise.all([1, 2, 3].map(() => chancery(['audit', 'refusals'])))
  t.same(
    runs.map(({ code }) => code),
    [0, 0, 0],
    runs.map(({ err }) => err).join(),
  )
  t.equal(refreshes(), 1)
})

/** A login whose token is over, as after a night: nothing but its refresh token is of use. */
const loginOfYesterday = async (context: string) => {
  await chancery(login('--context', context), typeIt)
  const { oidc } = await contextNow()
  const claims = JSON.parse(Buffer.from(oidc.idToken.split('.')[1], 'base64url').toString())
  const past = Buffer.from(JSON.stringify({ ...claims, exp: 1_700_000_000 })).toString('base64url')
  const spent = { ...oidc, idToken: oidc.idToken.replace(/\..*\./, `.${past}.`) }
  const text = (await readFile(file(), 'utf8')).replace(oidc.idToken, spent.idToken)
  await writeFile(file(), text)
  return spent
}

slowTest('a new refresh token is kept, whatever comes with it', async (t) => {
  const cases: readonly (readonly [string, (made: object) => object, number, RegExp])[] = [
    [
      'no id token',
      (made) => ({ ...made, id_token: undefined }),
      exitCodes.failed,
      /answered with no id token, which .* log in again/,
    ],
    ['an id token that is none', (made) => ({ ...made, id_token: 'x' }), exitCodes.failed, /answered with no id token/],
    ['one that is too long', (made) => ({ ...made, id_token: `a.${'b'.repeat(40_000)}.c` }), exitCodes.failed, /no id/],
  ]
  for (const [what, change, code, sentence] of cases) {
    const before = await loginOfYesterday('rotated')
    issuer.script.push(async (tokens) => ({ status: 200, body: change(await tokens()) }))
    t.match(await chancery(['audit', 'refusals']), { code, err: sentence, out: /^$/ }, what)
    const { oidc: kept } = await contextNow()
    t.equal(kept.idToken, before.idToken, what)
    t.not(kept.refreshToken, before.refreshToken, what)
    t.match(await chancery(['audit', 'refusals']), { code: 0 }, 'so the next command goes on with it')
  }
})

slowTest('what a provider sends instead is neither followed nor kept', async (t) => {
  const before = await loginOfYesterday('strange')
  const cases: readonly (readonly [Scripted, number, RegExp])[] = [
    [{ status: 302, headers: { location: `${service.url}/v1/events` } }, exitCodes.denied, /says no \(302\)/],
    [{ status: 200, body: { padding: 'x'.repeat(300_000) } }, exitCodes.later, /its answer has no end/],
    [{ status: 200, body: [] }, exitCodes.failed, /answered with no id token/],
    [{ status: 400, body: { error: { a: 1 }, error_description: [] } }, exitCodes.denied, /says no \(400\)$/m],
    [
      { status: 400, body: { error: '\u001b[2Jx', error_description: '\u202e' } },
      exitCodes.denied,
      /says no \(\\u001b\[2Jx\): \\u202e$/m,
    ],
  ]
  for (const [answer, code, sentence] of cases) {
    issuer.script.push(async () => answer)
    t.match(await chancery(['audit', 'refusals']), { code, err: sentence, out: /^$/ })
    t.same((await contextNow()).oidc, before)
  }
})

slowTest('a token of somebody else is not ours, though a refresh brings it', async (t) => {
  await loginOfYesterday('people')
  for (const claims of [{ sub: 'bob' }, { sub: '' }, { iss: 'https://other.example.com' }, { aud: 'web' }]) {
    issuer.claims = claims
    const run = await chancery(['audit', 'refusals'])
    t.ok(run.code > 0 && run.out === '', JSON.stringify(claims))
    t.match(run.err, /somebody else|of nobody|another issuer|not for the client/)
    t.match(subjectOf((await contextNow()).oidc.idToken), 'alice')
  }
  issuer.claims = {}
  t.match(await chancery(['audit', 'refusals']), { code: 0 })
})

slowTest('what was replaced meanwhile is given no tokens of another', async (t) => {
  await loginOfYesterday('replaced')
  const { contexts } = parse(await readFile(file(), 'utf8'))
  const { replaced } = contexts
  const changes: readonly object[] = [
    { ...replaced, server: 'https://other.example.com' },
    { ...replaced, oidc: { ...replaced.oidc, issuer: 'https://other.example.com' } },
    { ...replaced, oidc: { ...replaced.oidc, clientId: 'web' } },
    { ...replaced, oidc: { ...replaced.oidc, refreshToken: 'of another login' } },
    { server: replaced.server, ca: replaced.ca, tokenFile: '/nonexistent' },
  ]
  for (const change of changes) {
    const { refresh_token } = await issuer.tokens()
    const ours = { ...replaced, oidc: { ...replaced.oidc, refreshToken: refresh_token } }
    await writeFile(file(), stringify({ current: 'replaced', contexts: { replaced: ours } }))
    const text = stringify({ current: 'replaced', contexts: { replaced: change } })
    // By hand, and so without a lock.
    issuer.script.push(async () => void (await writeFile(file(), text)))
    t.match(await chancery(['audit', 'refusals']), { code: 0 }, 'who was asking has an answer')
    t.equal(await readFile(file(), 'utf8'), text)
  }
  await writeFile(file(), stringify({ current: 'replaced', contexts }))
})

slowTest('what came for a refresh token is kept, also where the lock was taken away meanwhile', async (t) => {
  const before = await loginOfYesterday('late')
  const lock = `${file()}.lock`
  issuer.script.push(async () => {
    await unlink(lock)
    await symlink('1@elsewhere.example.com:x', lock)
    return undefined
  })
  t.match(await chancery(['audit', 'refusals']), { code: 0 })
  t.equal(await readlink(lock), '1@elsewhere.example.com:x', 'which is left to who has it')
  await unlink(lock)
  t.not((await contextNow()).oidc.refreshToken, before.refreshToken)
  t.match(await chancery(['audit', 'refusals']), { code: 0 })
})

slowTest('whoever is killed while it renews leaves nothing behind', async (t) => {
  const before = await loginOfYesterday('killed')
  const child = spawn(process.execPath, [mainFile, 'audit', 'refusals'], {
    env: { ...bare, HOME: home },
    stdio: 'ignore',
  })
  await new Promise<void>((resolve) => {
    issuer.script.push(async () => {
      resolve()
      return new Promise(() => {})
    })
  })
  t.match(await readdir(join(file(), '..')), ['config.yaml', 'config.yaml.lock'])
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
  const draft = `${file()}.${randomUUID()}`
  await writeFile(draft, before.refreshToken)
  t.match(await chancery(['audit', 'refusals']), { code: 0 })
  t.same(await readdir(join(file(), '..')), ['config.yaml'])
  t.not((await contextNow()).oidc.refreshToken, before.refreshToken)
})

t.test('a disk that is full is noticed before a refresh token is used', async (t) => {
  const before = await loginOfYesterday('full')
  const asked = refreshes()
  // Whatever is written grows to a kilobyte, and no further. (What tap puts into each process dies of the signal for that.)
  const limited = [
    '-c',
    'unset NODE_OPTIONS; ulimit -f 2; exec "$0" "$@"',
    process.execPath,
    mainFile,
    'audit',
    'refusals',
  ]
  const run = promisify(execFile)('bash', limited, { env: { ...bare, HOME: home } })
  await t.rejects(run, { code: exitCodes.usage, stderr: /config\.yaml cannot be written \(EFBIG\)/ })
  t.equal(refreshes(), asked)
  t.same((await contextNow()).oidc, before)
  t.same(await readdir(join(file(), '..')), ['config.yaml'])
})

slowTest('a login that has ended says what to do', async (t) => {
  const oidc = await loginOfYesterday('ended')
  await refresh({ ...oidc, ca: issuer.ca }, oidc)
  t.match(await chancery(['audit', 'refusals']), { code: exitCodes.denied, err: /Log in again by chancery login/ })
})

slowTest('what is no login leaves no trace', async (t) => {
  const before = await readFile(file(), 'utf8')
  const cases: readonly (readonly [string, Partial<DeviceIssuer>, readonly object[], number, RegExp])[] = [
    ['denied', {}, [{ error: 'access_denied' }], exitCodes.denied, /was denied at the identity provider/],
    ['expired', {}, [{ error: 'expired_token' }], exitCodes.denied, /code has expired/],
    ['nobody types it in time', { code: { expires_in: 1 } }, [], exitCodes.denied, /code has expired/],
    [
      'another issuer',
      { said: { issuer: 'https://other.example.com' } },
      [],
      exitCodes.usage,
      /is another issuer: https:\/\/other/,
    ],
    [
      'no device grant',
      { said: { device_authorization_endpoint: undefined } },
      [],
      exitCodes.usage,
      /offers no device authorization/,
    ],
    ['plain http', { said: { token_endpoint: 'http://127.0.0.1/token' } }, [], exitCodes.usage, /by https only/],
    ['no code', { code: { user_code: 7 } }, [], exitCodes.failed, /no device code/],
    ['a code without an end', { code: { user_code: 'A'.repeat(9_000) } }, [], exitCodes.failed, /no device code/],
    ['a place that is no page', { code: { verification_uri: 'file:///bin' } }, [], exitCodes.usage, /by https only/],
    ['a token of nobody', { claims: { sub: 7 } }, [], exitCodes.failed, /a token that is of nobody/],
    [
      'a token of another issuer',
      { claims: { iss: 'https://other.example.com' } },
      [],
      exitCodes.usage,
      /of another issuer/,
    ],
    ['a token for another client', { claims: { aud: 'web' } }, [], exitCodes.usage, /not for the client cli/],
    ['somebody whom the service does not know', { claims: { sub: 'mallory' } }, [], exitCodes.denied, /auth\.unmapped/],
  ]
  for (const [what, change, script, code, sentence] of cases) {
    Object.assign(issuer, { said: {}, code: {}, claims: {}, ...change })
    issuer.script.push(...script)
    const run = await chancery(login('--context', 'none'), typeIt)
    t.match(run, { code, err: sentence, out: /^$/ }, what)
  }
  Object.assign(issuer, { said: {}, code: {}, claims: {} })
  const root = join(service.config.dataDir, 'root.pem')
  for (const [args, code, sentence] of [
    [['login', ...place(), '--oidc', issuer.url], exitCodes.usage, /--oidc and --client-id go together/],
    [login('--token-file', root), exitCodes.usage, /by one of them/],
    [loginAs('cli', root), exitCodes.usage, /shows no certificate that is trusted .*--oidc-ca/],
    [['login', ...place(), '--oidc', 'http://127.0.0.1', '--client-id', 'cli'], exitCodes.usage, /by https only/],
    [
      ['login', ...place(), '--oidc', 'https://127.0.0.1:1', '--client-id', 'cli'],
      exitCodes.later,
      /cannot be reached/,
    ],
    [loginAs('nobody', oidcCa()), exitCodes.denied, /says no \(invalid_client\)/],
  ] as const)
    t.match(await chancery(args), { code, err: sentence, out: /^$/ }, args.join(' '))
  t.equal(await readFile(file(), 'utf8'), before)
})

/** Time goes by as it is slept through. */
const asked = async (change: () => void) => {
  change()
  let now = 0
  const slept: number[] = []
  const told: string[] = []
  const tokens = await loginByDevice(
    { issuer: issuer.url, clientId: 'cli', scope: '', ca: issuer.ca },
    {
      elapsed: () => now,
      sleep: async (milliseconds) => {
        slept.push(milliseconds)
        now += milliseconds
      },
      tell: (text) => {
        told.push(text)
        if (issuer.script.length === 0) typeIt(text)
      },
    },
  ).catch((error: unknown) => {
    if (error instanceof Failure) return error
    throw error
  })
  return { tokens, slept, told }
}

t.test('it asks as often as it is told to, and more slowly when it is told so', async (t) => {
  const pending = { error: 'authorization_pending' }
  const { tokens, slept } = await asked(() => {
    issuer.code = { interval: 2 }
    issuer.script.push(pending, { error: 'slow_down' }, pending, { error: 'slow_down' }, { error: 'access_denied' })
  })
  t.match(tokens, { kind: 'denied' })
  t.same(slept, [2_000, 2_000, 7_000, 7_000, 12_000])
  const usual = await asked(() => {
    issuer.code = { interval: undefined }
  })
  t.same(usual.slept, [5_000], 'five seconds where nothing is said')
  t.match(usual.tokens, { idToken: /./ })
})

t.test('whoever does not answer is asked ever more rarely, and told of once', async (t) => {
  const { tokens, slept, told } = await asked(() => {
    issuer.script.push('destroy', 503, 'destroy', { error: 'access_denied' })
  })
  t.match(tokens, { kind: 'denied', message: /was denied/ })
  t.same(slept, [1_000, 2_000, 4_000, 8_000])
  t.equal(told.filter((text) => text.includes('does not answer')).length, 1)
})

t.test('nobody is asked in a loop, whatever is said', async (t) => {
  const pending = { error: 'authorization_pending' }
  for (const interval of [0, 0.001]) {
    const { slept } = await asked(() => {
      issuer.code = { interval }
      issuer.script.push(pending, pending, { error: 'access_denied' })
    })
    t.same(slept, [1_000, 1_000, 1_000], String(interval))
  }
})

t.test('who is asked too often, or is away for a while, says how long to wait', async (t) => {
  const busy =
    (status: number, headers: Readonly<Record<string, string>> = {}) =>
    async () => ({ status, headers })
  const granted: ScriptedAnswer = async (tokens) => ({ status: 200, body: await tokens() })
  const { tokens, slept } = await asked(() => {
    issuer.script.push(busy(429, { 'retry-after': '7' }), busy(503, { 'retry-after': '20' }), busy(429), granted)
  })
  t.match(tokens, { idToken: /./ })
  t.same(slept, [1_000, 7_000, 20_000, 6_000])
  const long = await asked(() => {
    issuer.code = { expires_in: 60 }
    issuer.script.push(busy(429, { 'retry-after': '86400' }), granted)
  })
  t.match(long.tokens, { idToken: /./ }, 'and is asked once more before the code expires')
  t.same(long.slept, [1_000, 58_000])
  const dated = await asked(() => {
    issuer.script.push(busy(503, { 'retry-after': new Date(Date.now() + 30_000).toUTCString() }), granted)
  })
  t.ok((dated.slept[1] ?? 0) > 15_000 && (dated.slept[1] ?? 0) <= 30_000, String(dated.slept))
  const away = await asked(() => {
    issuer.code = { expires_in: 1_000 }
    issuer.script.push(...Array.from({ length: 7 }, () => 503), { error: 'access_denied' })
  })
  t.same(away.slept.slice(-3), [30_000, 30_000, 30_000], 'who types the code meanwhile does not wait for ever')
})

t.test('what a provider says that is no answer is told in a sentence', async (t) => {
  const none = { toString: 1 }
  const lacks = (member: string): RegExp => new RegExp(`no device code to use: ${member} is not as RFC 8628`)
  const cases: readonly (readonly [Partial<DeviceIssuer>, DeviceIssuer['script'], string, RegExp])[] = [
    [{ said: { issuer: none } }, [], 'usage', /is it an OpenID provider/],
    [{ said: { token_endpoint: none } }, [], 'usage', /https only, with no user in the URL, and names no URL/],
    [{ said: { token_endpoint: 'https://%ff@127.0.0.1/' } }, [], 'usage', /in the URL, and names https:\/\/%ff@/],
    [{ code: { device_code: none } }, [], 'failed', lacks('device_code')],
    [{ code: { verification_uri: undefined } }, [], 'failed', lacks('verification_uri')],
    [{ code: { verification_uri: 'https://idp.example.com@127.0.0.1/' } }, [], 'usage', /https only, with no user/],
    [{ code: { expires_in: '900' } }, [], 'failed', lacks('expires_in')],
    [{ code: { interval: -1 } }, [], 'failed', lacks('interval')],
    [{ code: { interval: 1e9 } }, [], 'failed', lacks('interval')],
    [{}, [{ error: 'toString' }], 'denied', /says no \(toString\)$/],
    [{}, [{ error: '\u001b[2J', error_description: '\u009b1m\n' }], 'denied', /\(\\u001b\[2J\): \\u009b1m\\u000a$/],
    [
      {},
      [async () => ({ status: 101, headers: { connection: 'upgrade', upgrade: 'other' } }), { error: 'access_denied' }],
      'denied',
      /denied/,
    ],
  ]
  for (const [change, script, kind, message] of cases) {
    const { tokens } = await asked(() => {
      Object.assign(issuer, { said: {}, code: {}, ...change })
      issuer.script.push(...script)
    })
    t.match(tokens, { kind, message }, String(message))
  }
  Object.assign(issuer, { said: {}, code: { verification_uri_complete: 'https://idp.example.com@127.0.0.1/' } })
  t.notMatch((await asked(() => {})).told.join(''), 'idp.example.com', 'nor is a link shown that hides where it leads')
})

t.test('how long a code is good for is told to the second', async (t) => {
  const { told } = await asked(() => {
    issuer.code = { expires_in: 90 }
  })
  t.match(told[0], /within 1 min 30 s\. Waiting/)
})

t.test('until the code has expired, and not for longer', async (t) => {
  const { tokens, slept } = await asked(() => {
    issuer.code = { expires_in: 10, interval: 3 }
    issuer.script.push(...Array.from({ length: 9 }, () => ({ error: 'authorization_pending' })))
  })
  t.match(tokens, { kind: 'denied', message: /code has expired/ })
  t.same(slept, [3_000, 3_000, 3_000])
})

slowTest('a certificate says who asks, wherever its files are replaced', async (t) => {
  const { cert, key, fingerprint } = clients.certify()
  const [certFile, keyFile] = [join(home, 'my.pem'), join(home, 'my.key')]
  await writeFile(certFile, cert)
  await writeFile(keyFile, key, { mode: 0o600 })
  await service.request('POST', '/v1/credentials', { body: { principal: 'alice', label: 'laptop', fingerprint } })
  const args = ['login', ...place(), '--cert', certFile, '--key', keyFile, '--context', 'laptop']
  t.match(await chancery(args), { code: 0, out: /takes the certificate\.\n$/ })
  t.same((await contextNow()).certificate, { certificateFile: certFile, keyFile })
  t.match(await chancery(['audit', 'refusals']), { code: 0 })
  t.match((await chancery(['context', 'list'])).out, certFile)
  t.match(await chancery(args.slice(0, -4)), { code: exitCodes.usage, err: /--cert and --key go together/ })
  const other = clients.certify()
  await writeFile(keyFile, other.key, { mode: 0o600 })
  t.match(await chancery(['audit', 'refusals']), { code: exitCodes.usage, err: /my\.key is not the key of / })
  const { privateKey } = generateKeyPairSync('ed25519', { privateKeyEncoding: { type: 'pkcs8', format: 'pem' } })
  await writeFile(keyFile, privateKey)
  t.match(await chancery(['audit', 'refusals']), {
    code: exitCodes.usage,
    err: /my\.key is not the key of .*: it is of another kind\.$/m,
  })
  await writeFile(keyFile, other.key)
  await writeFile(certFile, other.cert)
  t.match(await chancery(['audit', 'refusals']), { code: exitCodes.denied, err: /auth\.unmapped/ })
})
