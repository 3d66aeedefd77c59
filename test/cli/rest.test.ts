import { execFile } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'
import { parse, stringify } from 'yaml'

import { encodeRootCrlTbs, seal } from '../../src/ca/issuers/ceremony.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { commands } from '../../src/main.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { encodePem, parsePem } from '../../src/x509/pem.ts'
import { bare } from '../helpers/environment.ts'
import { openInlineKeys } from '../helpers/keys.ts'
import { type Chancery, chanceryFor } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { pem, requestBy } from '../x509/build.ts'

let service: TestService
let folder: string

t.before(async () => {
  service = await openTestService(t)
  folder = await mkdtemp(join(tmpdir(), 'chancery-commands-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
})

/** Runs the command as a shell would, with the service's data folder in the environment. */
const chancery: Chancery = (...given) => chanceryFor(service)(...given)

const write = async (name: string, text: string): Promise<string> => {
  const path = join(folder, name)
  await writeFile(path, text)
  return path
}

const document = {
  name: 'shop',
  authority: 'default',
  validity: { default: '24h', max: '30d', over: 'refuse' },
  keys: [{ ec: ['P-256'] }],
  subject: { others: 'refuse' },
  names: { dns: { allow: ['*.shop.example.com'] } },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
}

slowTest('a profile is applied, shown, compared and listed', async (t) => {
  const file = await write('shop.yaml', stringify(document))
  const applied = await chancery(['profile', 'apply', file])
  t.same(applied, { code: 0, out: 'shop was created at version 1.\n', err: '' })
  t.equal((await chancery(['profile', 'apply', file])).out, 'shop is unchanged at version 1.\n')
  const shown = await chancery(['profile', 'show', 'shop'])
  t.match(shown.out, /^# version 1, sha256 [0-9a-f]{64}, by admin at /)
  t.same(parse(shown.out), document)
  t.same(await chancery(['profile', 'diff', file]), { code: 0, out: '', err: '' })

  const changed = await write('changed.yaml', stringify({ ...document, validity: { ...document.validity, max: '7d' } }))
  const difference = await chancery(['profile', 'diff', changed])
  t.equal(difference.code, exitCodes.conflict)
  t.match(difference.out, /^- {3}max: 30d$/m)
  t.match(difference.out, /^\+ {3}max: 7d$/m)
  t.equal((await chancery(['profile', 'apply', changed])).out, 'shop was changed from version 1 to 2.\n')
  const versions = JSON.parse((await chancery(['profile', 'list', 'shop', '--json'])).out)
  t.same(
    versions.map(({ version }: { version: number }) => version),
    [2, 1],
  )
  t.match((await chancery(['profile', 'list'])).out, /^NAME +VERSION +AUTHORITY/)
  t.match(parse((await chancery(['profile', 'show', 'shop', '--at', '1'])).out), { validity: { max: '30d' } })
  const asPrinted = await chancery(['profile', 'show', 'shop@1'])
  t.match(asPrinted, { code: exitCodes.usage, err: /chancery profile show shop --at 1$/m }, 'as tables have it')

  const stale = await chancery(['profile', 'apply', file, '--if-match', '0'.repeat(64)])
  t.equal(stale.code, exitCodes.conflict)
  t.match(stale.err, /precondition\.failed/)
  const broken = await write('broken.yaml', stringify({ ...document, keys: [], more: 1 }))
  const refused = await chancery(['profile', 'apply', broken])
  t.equal(refused.code, exitCodes.refused)
  t.match(refused.err, /profile\.invalid/)
  t.match(refused.err, /\/keys/)
  t.match(refused.err, /\/more/)
  t.match(await chancery(['profile', 'diff', broken]), { code: exitCodes.conflict, out: /^\+ more: 1$/m })
})

slowTest('several profiles are all read before the first is applied, and each is reported', async (t) => {
  const good = await write('good.yaml', stringify({ ...document, name: 'good' }))
  const other = await write('other.yaml', stringify({ ...document, name: 'other' }))
  const twice = await write('twice.yaml', stringify({ ...document, name: 'other' }))
  const broken = await write('faulty.yaml', stringify({ ...document, name: 'faulty', keys: [], more: 1 }))
  const nowhere = await write('nowhere.yaml', stringify({ ...document, name: 'nowhere', authority: 'nowhere' }))
  const none = join(folder, 'none.yaml')
  const cases: [string, readonly string[], number, RegExp][] = [
    ['a file that is not there', [good, none], exitCodes.usage, /^\S*none\.yaml cannot be read \(ENOENT\)\.$/m],
    ['a profile twice', [good, other, twice], exitCodes.usage, /twice\.yaml is a second document of .* "other"/],
    [
      'a broken document',
      [broken, good],
      exitCodes.refused,
      /faulty\.yaml: .*\/more .*Not applied: \S+good\.yaml\.$/ms,
    ],
    ['an unknown authority', [nowhere], exitCodes.missing, /nowhere\.yaml: .*nowhere/],
    ['one version of several', [good, other, '--if-match', '0'.repeat(64)], exitCodes.usage, /--if-match/],
  ]
  for (const [name, args, code, sentence] of cases) {
    const run = await chancery(['profile', 'apply', ...args])
    t.equal(run.code, code, name)
    t.match(run.err, sentence, name)
    t.equal(run.out, '', name)
  }
  const machine = await chancery(['profile', 'apply', broken, good, '--json'])
  t.match(JSON.parse(machine.err), { code: 'profile.invalid', status: 422 })
  t.equal((await chancery(['profile', 'show', 'good'])).code, exitCodes.missing, 'and nothing was applied')

  const first = await chancery(['profile', 'apply', good, other])
  t.same(first, { code: 0, out: 'good was created at version 1.\nother was created at version 1.\n', err: '' })
  const changed = await write('good.yaml', stringify({ ...document, name: 'good', description: 'changed' }))
  const second = await chancery(['profile', 'apply', changed, other, '--json'])
  t.match(JSON.parse(second.out), [
    { name: 'good', outcome: 'changed', from: 1, version: 2 },
    { name: 'other', outcome: 'unchanged', from: 1, version: 1 },
  ])
})

t.test('where the connection breaks, nobody is told that a profile was or was not applied', async (t) => {
  const [first, second] = await Promise.all(
    ['lost', 'left'].map((name) => write(`${name}.yaml`, stringify({ ...document, name }))),
  )
  const { server } = service.service.app
  const cut = (method: string) => {
    const listener = (request: IncomingMessage) => request.method === method && request.socket.destroy()
    server.prependListener('request', listener)
    return () => server.removeListener('request', listener)
  }
  const restore = cut('PUT')
  const broken = await chancery(['profile', 'apply', `${first}`, `${second}`])
  restore()
  t.equal(broken.code, exitCodes.later)
  t.match(broken.err, `It may have been applied: chancery profile diff shows that.\nNot applied: ${second}.`)
  const ofProxy = (request: IncomingMessage, answer: ServerResponse) =>
    request.method === 'PUT' && answer.writeHead(503, { 'retry-after': '9' }).end('away')
  server.prependListener('request', ofProxy)
  const proxied = await chancery(['profile', 'apply', `${first}`, `${second}`])
  server.removeListener('request', ofProxy)
  t.equal(proxied.code, exitCodes.later)
  t.match(proxied.err, /lost\.yaml: .*answered 503[\s\S]*may have been applied/, 'nor by a proxy that names a time')
  const restoreReads = cut('GET')
  const unread = await chancery(['profile', 'apply', `${first}`])
  restoreReads()
  t.equal(unread.code, exitCodes.later)
  t.equal((await chancery(['profile', 'apply', `${first}`, `${second}`])).code, 0, 'and it is applied by trying again')
})

t.test('a name that is a step in a path is none', async (t) => {
  for (const args of [
    ['profile', 'show', '..'],
    ['profile', 'show', 'server', '--at', '.'],
    ['principal', 'disable', '..'],
    ['certificate', 'show', '.'],
  ]) {
    const run = await chancery(args)
    t.equal(run.code, exitCodes.usage, args.join(' '))
    t.match(run.err, /is no name/)
  }
})

slowTest('a principal gets a grant and a token, issues with it, and loses it again', async (t) => {
  t.equal((await chancery(['principal', 'create', 'ci'])).code, 0)
  const grant = JSON.parse(
    (await chancery(['grant', 'create', 'ci', 'requester', '--profile', 'server', 'shop', '--json'])).out,
  )
  t.match(grant, { principal: 'ci', role: 'requester', profiles: ['server', 'shop'] })
  t.same(await chancery(['grant', 'create', 'ci', 'requester', '--profile', 'shop', 'server']), {
    code: 0,
    out: `ci may act as requester already (grant ${grant.id}).\n`,
    err: '',
  })
  const secret = await chancery(['token', 'create', 'ci', '--label', 'pipeline'])
  t.match(secret.out, /^chy_\S+\n$/, 'nothing but the secret, so that it can go into a file')
  const tokenFile = await write('ci.token', secret.out)
  const csr = await write('a.csr', csrFor('a.shop.example.com'))

  const chain = await chancery([
    'issue',
    '--csr',
    csr,
    '--profile',
    'shop',
    '--token-file',
    tokenFile,
    '--idempotency-key',
    'first',
  ])
  t.equal(chain.code, 0)
  t.equal(new X509Certificate(chain.out).subjectAltName, 'DNS:a.shop.example.com')
  const out = join(folder, 'a.pem')
  const again = await chancery(
    ['issue', '--csr', csr, '--profile', 'shop', '--idempotency-key', 'first', '--out', out],
    { CHANCERY_TOKEN: secret.out.trim() },
  )
  t.equal(again.code, 0)
  t.equal(await readFile(out, 'utf8'), chain.out, 'the same certificate under the same key')
  const renewed = await chancery(
    ['issue', '--csr', csr, '--profile', 'shop', '--idempotency-key', 'first', '--out', out],
    { CHANCERY_TOKEN: secret.out.trim() },
  )
  t.equal(renewed.code, 0, 'a certificate takes the place of another')
  const key = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  for (const [file, text] of [
    [await write('own.key', key), key],
    [await write('both.pem', `${chain.out}${key}`), `${chain.out}${key}`],
    [await write('indented.pem', `${chain.out}  ${key}`), `${chain.out}  ${key}`],
    [await write('octets.pem', `${chain.out}0\u0001`), `${chain.out}0\u0001`],
    [csr, await readFile(csr, 'utf8')],
    [await write('notes.txt', 'notes'), 'notes'],
  ] as const) {
    const over = await chancery(['issue', '--csr', csr, '--profile', 'shop', '--out', file])
    t.match(over, { code: exitCodes.usage, err: /is there and is not of PEM certificates alone; nothing was issued/ })
    t.equal(await readFile(file, 'utf8'), text, 'nor is anything written over')
  }

  const serial = new X509Certificate(chain.out).serialNumber
  const shown = await chancery(['certificate', 'show', serial, '--pem'])
  t.equal(shown.out, chain.out)
  t.match((await chancery(['certificate', 'show', serial])).out, /profile +shop@2\n/)
  t.match((await chancery(['certificate', 'search', '--name', '*.shop.example.com'])).out, /dns:a\.shop\.example\.com/)
  t.equal(JSON.parse((await chancery(['certificate', 'search', '--principal', 'ci', '--json'])).out).length, 1)

  const [token] = JSON.parse((await chancery(['token', 'list', '--principal', 'ci', '--json'])).out)
  t.match((await chancery(['grant', 'list', '--principal', 'ci'])).out, /requester +server shop/)
  await chancery(['principal', 'create', 'idler'])
  const others: string[] = []
  for (const other of [
    ['requester', '--profile', 'client'],
    ['approver', '--profile', 'server'],
  ]) {
    const run = await chancery(['grant', 'create', 'ci', ...other])
    const [, id = run.out] = /^ci may act as \w+ now \(grant (\S+)\)\.\n$/.exec(run.out) ?? []
    others.push(id)
  }
  const narrow = [
    'grant',
    'create',
    'ci',
    'requester',
    '--profile',
    'server',
    '--names',
    '{"dns":{"allow":["ci.test"]}}',
  ]
  const beside = await chancery(narrow)
  const [, narrowed] = /^ci may act as requester now \(grant (\S+)\)\.\n/.exec(beside.out) ?? []
  t.equal(
    beside.out.slice(beside.out.indexOf('\n') + 1),
    `Its grant ${grant.id} for server holds beside it: what one of them allows is allowed, within the limits of both; to take that one back: chancery grant revoke ${grant.id}\n`,
  )
  for (const id of [...others, narrowed ?? '']) t.equal((await chancery(['grant', 'revoke', id])).code, 0, id)
  const idle = await chancery(['grant', 'create', 'idler', 'approver'])
  t.match(idle.out, /idler may act as approver now .* It names no profile, so there is nothing to approve\.\n/)
  t.equal((await chancery(['grant', 'revoke', grant.id])).code, 0)
  const limited = ['grant', 'create', 'ci', 'auditor', '--limit', 'concurrent=8', 'requestsPerSecond=90']
  t.equal((await chancery(limited)).code, 0)
  const held = JSON.parse((await chancery(['grant', 'list', '--principal', 'ci', '--json'])).out)
  t.match(held, [{ role: 'auditor', limits: { concurrent: 8, requestsPerSecond: 90 } }])
  const denied = await chancery(['issue', '--csr', csr, '--profile', 'shop', '--token-file', tokenFile])
  t.equal(denied.code, exitCodes.denied)
  t.match(denied.err, /auth\.forbidden/)
  t.equal((await chancery(['token', 'revoke', token.id])).code, 0)
  const closed = await chancery(['principal', 'disable', 'ci'])
  t.match(closed, { code: 0, out: /hold until they are revoked: chancery revoke-many --principal ci\n$/ })
  t.match((await chancery(['principal', 'list'])).out, /^ci .*Z {2}admin .*Z\n/m)
})

t.test('explain tells failed checks first and says by its exit code how it went', async (t) => {
  const good = await chancery([
    'explain',
    '--csr',
    await write('good.csr', csrFor('web.example.com')),
    '--profile',
    'server',
  ])
  t.equal(good.code, 0)
  t.match(good.out, /^This request would be issued\.\n\d+ checks passed, \d+ did not apply; --all shows them\.\n$/)
  const bad = await chancery([
    'explain',
    '--csr',
    await write('bad.csr', csrFor('web.evil.test')),
    '--profile',
    'server',
  ])
  t.equal(bad.code, exitCodes.refused)
  t.match(bad.out, /^This request would be refused\.\nFAILED +names\.dns\.allow .*web\.evil\.test/)
  t.match(bad.out, /\nnext: Ask for names that the profile and your grant allow\.\n\d+ checks passed/)
  t.ok(bad.out.split('\n').length <= 11, 'ten lines')
  const all = await chancery(['explain', '--csr', join(folder, 'bad.csr'), '--profile', 'server', '--all'])
  const outcomes = all.out
    .split('\n')
    .slice(1, -1)
    .map((line) => line.slice(0, 7))
  t.same(
    outcomes,
    outcomes.toSorted(
      (a, b) =>
        ['FAILED ', 'passed ', 'skipped', 'note  /'].indexOf(a) -
        ['FAILED ', 'passed ', 'skipped', 'note  /'].indexOf(b),
    ),
  )
  const replaced = await chancery([
    'explain',
    '--csr',
    join(folder, 'bad.csr'),
    '--profile',
    'server',
    '--dns',
    'web.example.com',
    '--ip',
    '127.0.0.1',
  ])
  t.equal(replaced.code, 0, 'names on the command line replace those in the request')
  t.match(replaced.out, /^note /m)
})

slowTest('a certificate is revoked, released from hold, and revoked for good', async (t) => {
  const issue = async (): Promise<string> =>
    JSON.parse((await chancery(['issue', '--csr', join(folder, 'good.csr'), '--profile', 'server', '--json'])).out)
      .serial
  const serial = await issue()
  const held = await chancery(['revoke', serial, '--reason', 'certificateHold'])
  t.match(held.out, new RegExp(`^${serial} is revoked as certificateHold since 20\\S+Z\\. `))
  const found = await chancery(['certificate', 'search', '--status', 'revoked'])
  t.match(found.out, new RegExp(`^${serial} +revoked `, 'm'))
  for (const more of [
    ['--key', join(folder, 'none')],
    ['--reason', 'superseded'],
    ['--invalidity-date', '2026-11-01T00:00:00Z'],
  ]) {
    const mixed = await chancery(['revoke', serial, '--release', ...more])
    t.match(mixed, { code: exitCodes.usage, err: new RegExp(`leave out ${more[0]}, or --release`) })
  }
  t.match(
    (await chancery(['certificate', 'show', serial])).out,
    /^revocation +certificateHold /m,
    'none was taken for another',
  )
  t.match((await chancery(['revoke', serial, '--release'])).out, /is released from hold/)
  const again = await chancery(['revoke', serial, '--release', '--json'])
  t.match(JSON.parse(again.out), { serial, status: 'valid' })
  const other = await issue()
  const date = ['--invalidity-date', '2026-11-01T00:00:00Z']
  const gone = await chancery(['revoke', serial, '--reason', 'keyCompromise', ...date])
  t.match(gone.out, new RegExp(`Other certificates with the same key [^\n]+:\n(?:  [0-9a-f]{32}\n)*  ${other}\n`))
  t.match(
    gone.out,
    /\nWhat of them is valid, an operator revokes: chancery revoke-many --key [0-9a-f]{64} --reason keyCompromise\n$/,
  )
  t.notMatch(gone.out, 'there may be more')
  t.match((await chancery(['certificate', 'show', serial])).out, /^revocation +keyCompromise since 20\S+Z by admin$/m)
  const refused = await chancery(['revoke', serial, '--reason', 'superseded'])
  t.equal(refused.code, exitCodes.conflict)
  t.match(refused.err, /revocation\.state/)
})

t.test('of more certificates with a key than are told it says so', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = pem(requestBy(privateKey, 'localhost'))
  const items = Array.from({ length: 102 }, () => ({ csr, profile: 'server' }))
  const issued = (await service.request('POST', '/v1/certificates/batch', { body: { items } })).json.items
  const { serial } = issued[0].certificate
  const { out } = await chancery(['revoke', serial, '--reason', 'keyCompromise'])
  t.equal(out.match(/^ {2}[0-9a-f]{32}$/gm)?.length, 100)
  t.match(out, /\nThese are the newest 100, and there may be more\.\nWhat of them is valid, an operator revokes: /)
})

t.test('whoever holds the key revokes without a token', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = await write('by-key.csr', pem(requestBy(privateKey, 'localhost')))
  const key = await write('by-key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  const { serial } = JSON.parse((await chancery(['issue', '--csr', csr, '--profile', 'server', '--json'])).out)
  const none = { CHANCERY_TOKEN_FILE: join(folder, 'none') }
  const args = ['revoke', serial, '--reason', 'keyCompromise', '--key']
  t.match(await chancery([...args, csr], none), { code: exitCodes.usage, err: /no private key/ })
  t.match(await chancery([...args, join(folder, 'none')], none), { code: exitCodes.usage, err: /cannot be read/ })
  t.match(await chancery([...args, key], none), { code: 0, out: /is revoked as keyCompromise/ })
})

t.test('and need not know whose the certificate is', async (t) => {
  const file = await write('cluster.yaml', stringify({ ...document, name: 'cluster', authority: 'kubernetes' }))
  t.equal((await chancery(['profile', 'apply', file])).code, 0)
  t.equal((await chancery(['grant', 'create', 'admin', 'requester', '--profile', 'cluster'])).code, 0)
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = await write('cluster.csr', pem(requestBy(privateKey, 'a.shop.example.com')))
  const key = await write('cluster.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  const { serial } = JSON.parse((await chancery(['issue', '--csr', csr, '--profile', 'cluster', '--json'])).out)
  const none = { CHANCERY_TOKEN_FILE: join(folder, 'none') }
  const args = ['revoke', serial, '--reason', 'keyCompromise', '--key', key]
  const wrong = await chancery([...args, '--issuer', 'etcd'], none)
  t.equal(wrong.code, exitCodes.denied, 'whoever names one means it')
  t.match(wrong.err, /^The certificate is of the issuer "kubernetes", and the proof names "etcd"\. /)
  t.match(await chancery(args, none), { code: 0, out: /is revoked as keyCompromise/, err: /^$/ })
})

slowTest('lists are looked into, and that of an offline root is brought', async (t) => {
  await service.service.publishCrls()
  const der = Buffer.from(await (await fetch(`${service.publicUrl}/crl/root.crl`)).arrayBuffer())
  const path = join(folder, 'root.crl')
  await writeFile(path, der)
  const shown = (await chancery(['crl', 'inspect', path])).out
  t.match(shown, /^issuer +CN=Chancery Development Root,O=/m)
  t.match(shown, /^number +1$/m)
  t.match(shown, /^revoked +0$/m)
  const fetched = await chancery(['crl', 'inspect', `${service.publicUrl}/crl/root.crl`, '--json', '--entries'])
  t.match(JSON.parse(fetched.out), { number: '1', revoked: 0, entries: { length: 0 } })
  t.match((await chancery(['crl', 'import', 'default', path])).out, /^List 1 is served; it may be used until 20/)
  t.match(await chancery(['crl', 'inspect', join(folder, 'good.csr')]), { code: exitCodes.refused })
  t.match(await chancery(['crl', 'inspect', `${service.publicUrl}/nothing`]), {
    code: exitCodes.missing,
    err: /the answer is 404/,
  })
  t.match(await chancery(['crl', 'inspect', 'http://127.0.0.1:10/x.crl']), {
    code: exitCodes.later,
    err: /ECONNREFUSED/,
  })
  t.match(await chancery(['crl', 'inspect', `${service.publicUrl.replace('http:', 'https:')}/crl/root.crl`]), {
    code: exitCodes.usage,
    err: /^https:\S+\/root\.crl speaks no TLS \(wrong version number\): it may be a port for plain HTTP; [^\n]*\n$/,
  })
  const key = await write('web.key', generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))
  t.match(await chancery(['crl', 'inspect', key]), { code: exitCodes.refused, err: /: it holds a private key\.\n$/ })
  const credential = ['credential', 'create', 'admin', '--label', 'x', '--certificate', key]
  t.match(await chancery(credential), {
    code: exitCodes.usage,
    err: /web\.key holds a private key; nothing was sent\./,
  })
  const own = await write(
    'own.crl',
    encodePem('X509 CRL', Buffer.from(await (await fetch(`${service.publicUrl}/crl/default/0.crl`)).arrayBuffer())),
  )
  const refused = await chancery(['crl', 'import', 'default', own])
  t.match(refused, { code: exitCodes.refused, err: /was signed by no CA above/ })
})

t.test('whoever brings a list is told which issuers it revokes, and what is to be done', async (t) => {
  const keys = await openInlineKeys(service.config)
  const key = await keys.open('file:offline-root/root.key.pem')
  const root = await readFile(join(service.config.dataDir, 'offline-root', 'root.der'))
  const { certificate } = (await service.request('GET', '/v1/issuers/front-proxy')).json
  const { serial } = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
  const at = new Date(Math.floor(Date.now() / 1000 - 30) * 1000)
  const bring = async (number: bigint): Promise<string> => {
    const revoked = [{ serial, revokedAt: at, reason: 'cACompromise' as const }]
    const list = { number, thisUpdate: at, nextUpdate: new Date(at.getTime() + 86_400_000), revoked }
    const path = join(folder, 'revoking.crl')
    await writeFile(path, await seal(key, encodeRootCrlTbs(key, root, list)))
    return (await chancery(['crl', 'import', 'default', path])).out
  }
  const served = '^List \\d is served; it may be used until \\S+\n'
  const halt = 'which is active: chancery issuer halt front-proxy --reason TEXT\n$'
  t.match(await bring(2n), new RegExp(`${served}It revokes the issuer front-proxy, ${halt}`))
  t.equal((await chancery(['issuer', 'halt', 'front-proxy', '--reason', 'a test'])).code, 0)
  t.match(
    await bring(3n),
    new RegExp(`${served}It revokes the issuer front-proxy, which signs no certificates any more`),
  )
})

slowTest('refusals and events are listed', async (t) => {
  await chancery(['issue', '--csr', join(folder, 'bad.csr'), '--profile', 'server'])
  t.match((await chancery(['audit', 'refusals', '--code', 'san.forbidden'])).out, /san\.forbidden/)
  const [kept] = JSON.parse(
    (await chancery(['audit', 'refusals', '--code', 'san.forbidden', '--limit', '1', '--json'])).out,
  )
  t.ok(kept.checks.length > 10)
  t.match(kept, { checksLeftOut: 0, violations: [{ check: 'names.dns.allow' }] })
  const events = JSON.parse(
    (await chancery(['audit', 'events', '--type', 'profile.changed', '--limit', '3', '--json'])).out,
  )
  t.ok(events.length > 0 && events.length <= 3)
  const issued = (await chancery(['audit', 'events', '--type', 'certificate.issued'])).out
  t.match(issued, /^TIME +INDEX +TYPE +WHAT\n20\S+Z +\d+ +certificate\.issued +dns:localhost ip:127\.0\.0\.1 /)
  t.match(issued, / dns:a\.shop\.example\.com to ci by shop@2, serial [0-9a-f]{32}, issuer default$/m)
  t.notMatch(issued, /[{"]/, 'and no JSON')
  const pages = JSON.parse((await chancery(['audit', 'events', '--limit', '5', '--json'])).out)
  t.same(
    pages.map(({ index }: { index: number }) => index),
    [0, 1, 2, 3, 4],
  )
})

slowTest('a list that ends at its limit says that there are more, and another does not', async (t) => {
  await chancery(['issue', '--csr', join(folder, 'bad.csr'), '--profile', 'server'])
  for (const words of [
    ['certificate', 'search'],
    ['audit', 'refusals'],
    ['audit', 'events'],
  ] as const) {
    const { out, err } = await chancery([...words, '--limit', '1', '--json'])
    t.equal(JSON.parse(out).length, 1)
    t.match(
      err,
      /^This is the first, and there are more: see --limit(, --all, --csv and --ndjson)?\.\n$/,
      words.join(' '),
    )
    t.equal((await chancery([...words, '--limit', '100000'])).err, '', words.join(' '))
  }
  const two = await chancery(['audit', 'events', '--limit', '2'])
  t.match(two.err, /^These are the first 2, and there are more: see --limit/)
})

slowTest('every kind of failure has its exit code and a sentence', async (t) => {
  const csr = join(folder, 'good.csr')
  const twoDocuments = await write('two.yaml', `${stringify(document)}---\n${stringify(document)}`)
  const unquoted = await write('unquoted.yaml', 'name: web\nnames: { dns: { allow: [*.example.com] } }\n')
  const numbered = await write('numbered.yaml', 'name: 0755\n')
  const cases: [string, readonly string[], number, RegExp, Readonly<Record<string, string>>?][] = [
    ['an unknown command', ['conjure'], exitCodes.usage, /unknown command/],
    ['an unknown command of a group', ['certificate', 'list'], exitCodes.usage, /Its commands are search, proof, /],
    ['a missing option', ['issue', '--csr', csr], exitCodes.usage, /--profile/],
    [
      'a missing file',
      ['issue', '--csr', join(folder, 'none'), '--profile', 'server'],
      exitCodes.usage,
      /cannot be read/,
    ],
    [
      'a missing token',
      ['audit', 'refusals', '--token-file', join(folder, 'none')],
      exitCodes.usage,
      /CHANCERY_TOKEN_FILE/,
    ],
    ['a server that is none', ['audit', 'refusals', '--server', 'http://x'], exitCodes.usage, /https/],
    [
      'no JSON',
      ['grant', 'create', 'ci', 'requester', '--profile', 'server', '--names', '{'],
      exitCodes.usage,
      /JSON\. It is like '\{"dns":/,
    ],
    ['a pattern without quotes', ['profile', 'apply', unquoted], exitCodes.usage, /line 2 has an alias.*into quotes/],
    ['a number for a name', ['profile', 'apply', numbered], exitCodes.usage, /its name is no text; put it into quotes/],
    ['two documents in a file', ['profile', 'apply', twoDocuments], exitCodes.usage, /multiple documents: put each/],
    ['no such principal', ['principal', 'disable', 'nobody'], exitCodes.missing, /GET \/v1\/principals lists/],
    [
      'a limit that the service does not know',
      ['grant', 'create', 'ci', 'auditor', '--limit', 'certs=4'],
      exitCodes.refused,
      /certs/,
    ],
    ['no number', ['grant', 'create', 'ci', 'auditor', '--limit', 'concurrent=x'], exitCodes.usage, /whole number/],
    [
      'an unknown limit',
      ['grant', 'create', 'ci', 'auditor', '--limit', 'toString=1'],
      exitCodes.refused,
      /known field/,
    ],
    [
      'a refused name',
      ['issue', '--csr', join(folder, 'bad.csr'), '--profile', 'server'],
      exitCodes.refused,
      /names\.dns\.allow .*web\.evil\.test/,
    ],
    ['a wrong token', ['audit', 'refusals'], exitCodes.denied, /auth\.invalid/, { CHANCERY_TOKEN: 'nonsense' }],
    ['an unknown serial', ['certificate', 'show', '4a'.repeat(16)], exitCodes.missing, /certificate\.not_found/],
    ['an existing name', ['principal', 'create', 'admin'], exitCodes.conflict, /state\.exists/],
    ['a closed port', ['audit', 'refusals', '--server', 'https://127.0.0.1:1'], exitCodes.later, /cannot be reached/],
    [
      'a port for plain HTTP',
      ['audit', 'refusals', '--server', service.publicUrl.replace('http:', 'https:')],
      exitCodes.usage,
      /^https:\S+ speaks no TLS \(wrong version number\): it may be a port for plain HTTP; name [^\n]*--server[^\n]*\n$/,
    ],
    [
      'another authority',
      ['audit', 'refusals', '--ca', await otherAnchor()],
      exitCodes.usage,
      /does not show a certificate that the trust anchor vouches for/,
    ],
    [
      'no authority',
      ['audit', 'refusals', '--ca', csr],
      exitCodes.usage,
      /good\.csr holds no certificate in PEM; name another/,
    ],
    [
      'a file that is no proof',
      ['certificate', 'proof', '4a'.repeat(16), '--out', csr],
      exitCodes.usage,
      /good\.csr is there and is no proof; name another file by --out\.\n$/,
    ],
  ]
  for (const [name, args, code, sentence, env] of cases) {
    const run = await chancery(args, env)
    t.equal(run.code, code, name)
    t.match(run.err, sentence, name)
    t.notMatch(run.err, /\n\s+at /, 'no stack')
    t.equal(run.out, '')
  }
  const machine = await chancery(['certificate', 'show', '4a'.repeat(16), '--json'])
  t.match(JSON.parse(machine.err), { code: 'certificate.not_found', status: 404, retryable: false })
  const away = await chancery(['audit', 'refusals', '--server', 'https://127.0.0.1:1', '--json'])
  const detail = 'https://127.0.0.1:1 cannot be reached: connect ECONNREFUSED 127.0.0.1:1.'
  t.same(JSON.parse(away.err), { failure: 'later', exitCode: exitCodes.later, detail }, 'also where no server says it')
  const wrong = await chancery(['audit', 'refusals', '--bogus\u009b', '--json'])
  const unknown = { failure: 'usage', exitCode: exitCodes.usage, detail: "unknown option '--bogus\u009b'" }
  t.same(JSON.parse(wrong.err), unknown, 'also where it is the command line')
  t.match(wrong.err, /--bogus\\u009b/, 'which steers no terminal')
})

slowTest('a file called - is standard input', async (t) => {
  const { out: shown } = await chancery(['profile', 'show', 'server'])
  const renamed = shown.replace(/^name: server$/m, 'name: piped')
  const applied = await chancery(['profile', 'apply', '-'], {}, renamed)
  t.same(applied, { code: 0, out: 'piped was created at version 1.\n', err: '' })
  t.match((await chancery(['profile', 'show', 'piped'])).out, /^name: piped$/m)
  t.equal((await chancery(['profile', 'diff', '-'], {}, renamed)).out, '', 'and is the same')
  const twice = await chancery(['profile', 'apply', '-', '-'], {}, renamed)
  t.match(twice, { code: exitCodes.usage, err: 'Standard input is one file: name - once.' })
  const certificate = await chancery(['credential', 'create', 'nobody', '--label', 'x', '--certificate', '-'], {}, 'no')
  t.match(certificate, { code: exitCodes.usage, err: '- is not a certificate in PEM' })
  const csr = csrFor('piped.example.com')
  t.match(await chancery(['issue', '--profile', 'server', '--csr', '-'], {}, csr), {
    code: 0,
    out: /^-----BEGIN CERTIFICATE-----\n/,
  })
})

t.test('an option that takes one value is not given two, of which one would be done', async (t) => {
  for (const [args, option] of [
    [['issue', '--profile', 'server', '--profile=client'], '--profile <name>'],
    [['audit', 'certificates', '--principal', 'a', '--principal', 'b'], '--principal <name>'],
    [['roll', 'verify', '--database', 'a', '--database'], '--database [url]'],
  ] as const) {
    const err = `error: option '${option}' is given more than once, and takes one value\nRun it with --help for what it takes.\n`
    t.same(await chancery(args), { code: exitCodes.usage, out: '', err })
  }
  const severalNames = ['explain', '--profile', 'server', '--dns', 'a.example.com', '--dns', 'b.example.com', '--json']
  t.match(JSON.parse((await chancery(severalNames)).out), { allowed: true }, 'and of others each is taken')
  t.equal((await chancery(['audit', 'refusals', '--json', '--json'])).code, 0, 'what takes no value may be said again')
})

/** A root that has nothing to do with the service. */
const otherAnchor = async (): Promise<string> => {
  const [anchor, key] = [join(folder, 'other.pem'), join(folder, 'other.key')]
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=other']
  await promisify(execFile)('openssl', [...made, '-keyout', key, '-out', anchor])
  return anchor
}

t.test('where nobody has named a server, the usual one is asked, and how to name another is told', async (t) => {
  // Whoever is there; or nobody of ours, who says nothing that TLS knows.
  const nobody = createServer((socket) => socket.destroy())
  const isOurs = await new Promise((resolve) => {
    nobody.once('error', () => resolve(false))
    nobody.listen(8443, '127.0.0.1', () => resolve(true))
  })
  if (!isOurs) return void t.comment('somebody listens at the usual place')
  t.teardown(() => nobody.close())
  const env = { ...bare, CHANCERY_DATA: service.config.dataDir }
  const run = promisify(execFile)(process.execPath, ['src/main.ts', 'audit', 'refusals'], { env })
  const told =
    /^https:\/\/127\.0\.0\.1:8443 cannot be reached: .*; where it is elsewhere, name .*--server or CHANCERY_URL\.\n$/
  await t.rejects(run, { code: exitCodes.later, stderr: told })
})

t.test('the version is the one of the package', async (t) => {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
  for (const option of ['--version', '-V'])
    t.same(await chancery([option]), { code: 0, out: `${version}\n`, err: '' }, option)
  const slip = await chancery(['profile', 'show', 'server', '--version', '1'])
  t.match(
    slip,
    { code: exitCodes.usage, out: /^$/, err: /unknown option '--version'/ },
    'after a verb it asks for nothing',
  )
  const started = JSON.parse((await chancery(['audit', 'events', '--type', 'service.started', '--json'])).out)
  t.match(JSON.parse(started[0].entry), { version })
})

t.test('docs/commands.md lists every command, exit code and variable', async (t) => {
  const text = await readFile(new URL('../../docs/commands.md', import.meta.url), 'utf8')
  for (const code of Object.values(exitCodes)) t.match(text, new RegExp(`^\\| ${code} \\|`, 'm'))
  const { out } = await chancery(['--help'])
  const verbs = [...out.matchAll(/^ {2}([a-z-]+)/gm)].map(([, verb = '']) => verb)
  t.same(
    verbs,
    commands.flatMap(({ verbs }) => Object.keys(verbs)),
  )
  for (const verb of verbs) t.match(text, new RegExp(`\`(${verb}|[^\`]*\\b${verb}\\b[^\`]*)\``), verb)
  t.ok(out.split('\n').length <= 40, 'on one screen')
  for (const line of out.split('\n')) t.ok(line.length <= 110, line)
})
