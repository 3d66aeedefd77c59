/** `chancery issue --name … --out DIR`, by the command and by its pieces, against the real service. */
import { randomUUID } from 'node:crypto'
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { obtain, type Task } from '../../src/client/issue/ensure.ts'
import { fileNames, openFolder, type Pending } from '../../src/client/issue/folder.ts'
import { readTask } from '../../src/client/issue/new-certificate.ts'
import { type Client, openClient } from '../../src/client/rest.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { type Chancery, chanceryFor, startChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { shiftedBy } from '../helpers/shifted.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools, output } from '../interop/tools.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
let service: TestService
let chancery: Chancery
let client: Client

t.before(async () => {
  service = await openTestService(t)
  chancery = chanceryFor(service)
  client = await openClient({ server: service.url }, { CHANCERY_DATA: service.config.dataDir })
})

const issuedFor = async (name: string): Promise<readonly string[]> => {
  const { json } = await service.request('GET', `/v1/certificates?name=${name}&limit=1000`)
  return json.items.map(({ serial }: { serial: string }) => serial)
}

const question = (idempotencyKey: string): Pending => ({ idempotencyKey, orderDigest: '', keyPem: '', csr: '' })
const always = (): boolean => true
const never = (): boolean => false
const taskFor = async (name: string, out: string, more: Partial<Task> = {}): Promise<Task> => ({
  ...(await readTask({ profile: 'server', name: [name], out }, client.origin)),
  renews: false,
  isDue: always,
  isSpent: never,
  ...more,
})

slowTest('one command makes key, certificate, chain and root, and says what it made', async (t) => {
  await assertTools('openssl')
  const out = join(await newFolder(t), 'web')
  const names = ['--name', 'Web.example.com', '--name', '127.0.0.1', '--name', '::1']
  const run = await chancery(['issue', '--profile', 'server', ...names, '--out', out])
  t.match(run, { code: 0, err: /^$/ })
  const shown = await readShown(out)
  t.equal(shown?.certificate.subjectAltName, 'DNS:web.example.com, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1')
  t.match(run.out, new RegExp(`^serial +${shown?.serial}\n`))
  for (const line of [
    /^names +DNS:web\.example\.com, /,
    /^valid until +20\S+Z, 29 days from now$/,
    /^key +\S+\/web\/key\.pem /,
  ])
    t.match(run.out, new RegExp(line.source, 'm'))
  const at = (name: string): string => join(out, name)
  const verify = [
    'verify',
    '-x509_strict',
    '-CAfile',
    at('root.pem'),
    '-untrusted',
    at('chain.pem'),
    at('certificate.pem'),
  ]
  t.match(await output('openssl', verify), /: OK\n$/)
  t.equal(shown?.files['root.pem'], service.ca)
  t.equal((await stat(at('key.pem'))).mode & 0o777, 0o600)
  for (const name of fileNames.slice(1)) t.equal((await stat(at(name))).mode & 0o777, 0o644, name)
  t.same((await readdir(out)).sort(), ['.chancery', ...fileNames].sort(), 'and nothing else')
  t.same(await readdir(at('.chancery')), ['current', 'versions'], 'nothing waits')

  const again = JSON.parse((await chancery(['issue', '--profile', 'server', ...names, '--out', out, '--json'])).out)
  t.equal(again.issued, true, 'without --renew-before each call is a new certificate')
  t.equal(again.serial, (await readShown(out))?.serial)
  t.not(again.serial, shown?.serial)
  t.same((await readdir(at('.chancery/versions'))).sort(), [shown?.serial, again.serial].sort(), 'the last one is kept')
  await chancery(['issue', '--profile', 'server', ...names, '--out', out])
  t.equal((await readdir(at('.chancery/versions'))).length, 2, 'and no older one')
})

slowTest('names are told apart by their form; what is none is told before anything is asked', async (t) => {
  const out = await newFolder(t)
  const mixed = ['--name', 'spiffe://example.com/a', '--name', 'a@example.com', '--json']
  const explained = await chancery(['explain', '--profile', 'server', ...mixed])
  t.equal(explained.code, exitCodes.refused)
  const { violations } = JSON.parse(explained.out)
  t.match(
    violations.filter(({ check }: { check: string }) => /^names\.(uri|email)/.test(check)),
    [{ value: 'spiffe://example.com/a' }, { value: 'a@example.com' }],
  )
  for (const [name, sentence] of [
    ['web..example.com', /web\.\.example\.com: a DNS name is not labels/],
    [
      'münchen.example.com',
      /a DNS name has characters beyond ASCII; an internationalized name is written in its xn-- form/,
    ],
    ['web.example.com:8443', /web\.example\.com:8443: a DNS name/],
    ['a@b@c', /an e-mail address/],
    ['mailto:', /a URI/],
  ] as const) {
    const run = await chancery(['issue', '--profile', 'server', '--name', name, '--out', out])
    t.equal(run.code, exitCodes.usage, name)
    t.match(run.err, sentence, name)
  }
  t.same(await readdir(out), [], 'and nothing was made')
})

slowTest('every kind of key gets its certificate', async (t) => {
  const out = await newFolder(t)
  for (const [type, kind] of [
    ['P-256', /id-ecPublicKey[\s\S]*P-256/],
    ['p-384', /P-384/],
    ['ed25519', /ED25519/],
    ['rsa-3072', /\(3072 bit\)/],
    ['ml-dsa-44', /ML-DSA-44/],
  ] as const) {
    const run = await chancery([
      'issue',
      '--profile',
      'server',
      '--name',
      'k.example.com',
      '--out',
      out,
      '--key-type',
      type,
    ])
    t.equal(run.code, 0, `${type}: ${run.err}`)
    t.match(await output('openssl', ['x509', '-in', join(out, 'certificate.pem'), '-noout', '-text']), kind)
    t.ok(await readShown(out))
  }
  const run = await chancery([
    'issue',
    '--profile',
    'server',
    '--name',
    'k.example.com',
    '--out',
    out,
    '--key-type',
    'dsa',
  ])
  t.match(run, { code: exitCodes.usage, err: /--key-type is one of p-256, / })
})

slowTest('options that would be passed over are errors', async (t) => {
  const out = await newFolder(t)
  const own = ['issue', '--profile', 'server', '--name', 'web.example.com', '--out', out]
  for (const [args, sentence] of [
    [['issue', '--profile', 'server', '--out', out], /--name/],
    [['issue', '--profile', 'server', '--name', 'web.example.com'], /--out/],
    [['issue', '--profile', 'server', '--csr', 'a.csr', '--renew-before', '30%'], /--renew-before goes with a key/],
    [['explain', '--profile', 'server', '--csr', 'a.csr', '--key-type', 'ed25519'], /--key-type goes with a request/],
    [[...own, '--idempotency-key', 'x'], /--idempotency-key goes with --csr/],
    [[...own, '--renew-before', '100%'], /neither a share/],
    [[...own, '--key-mode', '666'], /--key-mode/],
    [[...own, '--exec', `echo 'open`], /quote that does not end/],
    [[...own, '--owner', 'no-such-user'], /cannot be given to no-such-user/],
  ] as const) {
    const run = await chancery(args)
    t.equal(run.code, exitCodes.usage, args.join(' '))
    t.match(run.err, sentence)
  }
  t.equal(await readShown(out), undefined)
  t.same((await readdir(join(out, '.chancery'))).sort(), ['versions'], 'neither a question nor a key is left')
})

t.test('a key that was not made here is never touched', async (t) => {
  const out = await newFolder(t)
  await writeFile(join(out, 'key.pem'), 'mine')
  const run = await chancery(['issue', '--profile', 'server', '--name', 'mine.example.com', '--out', out])
  t.match(run, { code: exitCodes.usage, err: /key\.pem is there and was not made here/ })
  t.equal(await readFile(join(out, 'key.pem'), 'utf8'), 'mine')
  const other = await newFolder(t)
  await symlink(join(out, 'key.pem'), join(other, 'key.pem'))
  await t.rejects(openFolder(other), /was not made here/, 'nor through a link')
  const file = join(out, 'file')
  await writeFile(file, '')
  await t.rejects(openFolder(file), /cannot be written/)
  for (const path of ['/proc/nowhere/web', '/proc'])
    await t.rejects(openFolder(path), /cannot be written/, 'where nobody makes folders')
  t.same(await issuedFor('mine.example.com'), [])
})

t.test('what others need to read is given to them, and nothing more', async (t) => {
  const out = await newFolder(t)
  const args = ['issue', '--profile', 'server', '--name', 'web.example.com', '--out', out]
  const isRoot = process.geteuid?.() === 0
  // Whoever is not root can give files to a group of theirs only.
  const owner = isRoot ? 'nobody:daemon' : `:${process.getegid?.()}`
  const run = await chancery([...args, '--key-mode', '0640', '--owner', owner])
  t.equal(run.code, 0, run.err)
  const { mode, uid, gid } = await stat(join(out, 'key.pem'))
  t.equal(mode & 0o777, 0o640)
  if (isRoot) t.ok(uid > 0 && gid > 0)
  t.equal((await stat(join(out, '.chancery/current'))).mode & 0o777, 0o755)
  t.ok(await readShown(out))
})

t.test('what was answered and not seen is answered again: a retry gets the same certificate', async (t) => {
  const out = await newFolder(t)
  const name = 'retry.example.com'
  const lossy: Client = {
    ...client,
    call: async (method, path, call) => {
      const answer = await client.call(method, path, call)
      if (method === 'POST') throw new Failure('later', 'The answer broke off.')
      return answer
    },
  }
  await t.rejects(obtain(await taskFor(name, out), lossy), /broke off/)
  t.equal((await stat(join(out, '.chancery/pending.json'))).mode & 0o777, 0o600)
  t.equal(await readShown(out), undefined, 'nothing is seen yet')
  const first = await obtain(await taskFor(name, out, { isDue: never }), client)
  t.equal(first.issued?.replayed, true)
  t.same(await issuedFor(name), [first.held.serial], 'there is one certificate')

  await t.rejects(obtain(await taskFor(name, out), lossy), /broke off/)
  const other = await taskFor('other.example.com', out)
  t.equal((await obtain(other, client)).issued?.replayed, false, 'another order does not take its place')
  await t.rejects(obtain(other, lossy), /broke off/)
  const stale = await obtain({ ...other, isSpent: always }, client)
  t.equal(stale.issued?.replayed, false, 'an answer that is due already is asked for afresh')
  t.equal((await issuedFor('other.example.com')).length, 3)
})

t.test('what was refused is not asked again with the same key', async (t) => {
  const out = await newFolder(t)
  const task = await taskFor('web.evil.test', out)
  await t.rejects(obtain(task, client), /san\.forbidden/)
  t.same(await readdir(join(out, '.chancery')), ['versions'])
  const denied = await openClient(
    { server: service.url },
    { CHANCERY_DATA: service.config.dataDir, CHANCERY_TOKEN: 'x' },
  )
  await t.rejects(obtain(await taskFor('web.example.com', out), denied), /auth\.invalid/)
  t.ok(
    (await readdir(join(out, '.chancery'))).includes('pending.json'),
    'but a wrong token may have been a right one before',
  )
})

t.test('two at once write one certificate', async (t) => {
  const out = await newFolder(t)
  const tasks = await Promise.all(Array.from({ length: 4 }, () => taskFor('both.example.com', out, { isDue: never })))
  const obtained = await Promise.all(tasks.map((task) => obtain(task, client)))
  t.equal(new Set(obtained.map(({ held }) => held.serial)).size, 1)
  t.equal((await issuedFor('both.example.com')).length, 1)
  t.ok(await readShown(out))
})

t.test('what one command has asked is touched by none that asked before', async (t) => {
  const folder = await openFolder(await newFolder(t))
  const [first, second] = [question('first'), question('second')]
  await folder.keep(first)
  await folder.forget(first)
  await folder.keep(second)
  await folder.forget(first)
  await folder.awaits(first, '2099-01-01T00:00:00Z')
  const { idempotencyKey, awaitedUntil } = (await folder.pending()) ?? {}
  t.strictSame([idempotencyKey, awaitedUntil], ['second', undefined])
})

t.test('an answer that is in its place already is no harm; one that cannot be leaves its question', async (t) => {
  const out = await newFolder(t)
  const own = join(out, '.chancery')
  const { held } = await obtain(await taskFor('again.example.com', out), client)
  const texts = fileNames.map(async (name) => [name, await readFile(join(out, name), 'utf8')])
  const contents = Object.fromEntries(await Promise.all(texts))
  const [folder, pending] = [await openFolder(out), question('again')]
  const answer = { pending, untold: false }
  const before = await readdir(own)
  await folder.keep(pending)
  await folder.install(contents, answer)
  t.same(await readdir(own), before, 'neither the question nor a draft is left')
  t.equal((await readShown(out))?.serial, held.serial)
  t.equal((await stat(join(out, 'key.pem'))).mode & 0o777, 0o600)

  const given = await openFolder(out, { owner: 'nobody.there' })
  await t.rejects(given.keep(pending), /cannot be given to nobody\.there/)
  t.equal(await folder.pending(), undefined, 'it is not asked')
  await folder.keep(pending)
  await t.rejects(given.install(contents, answer), /cannot be given to nobody\.there/)
  const key = join(out, 'key.pem')
  await rm(key)
  await writeFile(key, 'of somebody else')
  await t.rejects(folder.install(contents, answer), /key\.pem is there and was not made here/)
  await rm(key)
  const version = join(own, 'versions', held.serial)
  await rm(version, { recursive: true })
  await writeFile(version, '')
  await t.rejects(folder.install(contents, answer), /cannot be written \(ENOTDIR\)/)
  t.same((await readdir(own)).sort(), [...before, 'pending.json'].sort())
})

t.test('whoever comes late with an answer puts nothing older in the place of what is there', async (t) => {
  const out = await newFolder(t)
  const slow = await taskFor('late.example.com', out)
  let go = (): void => {}
  const waits = new Promise<void>((resolve) => {
    go = resolve
  })
  const stopped: Client = {
    ...client,
    call: async (method, path, call) => {
      const answer = await client.call(method, path, call)
      if (path.endsWith('/bundle')) await waits
      return answer
    },
  }
  const late = obtain(slow, stopped)
  while (!(await readdir(join(out, '.chancery'))).includes('pending.json'))
    await new Promise((resolve) => setTimeout(resolve, 5))
  const [first, second] = [await obtain(slow, client), await obtain(slow, client)]
  t.not(first.held.serial, second.held.serial)
  go()
  const { held, issued } = await late
  t.equal(held.serial, second.held.serial)
  t.equal(issued, undefined, 'and says that it has done nothing')
  t.equal((await readdir(join(out, '.chancery/versions'))).length, 2, 'the one before may still hold')
  t.equal((await readShown(out))?.serial, second.held.serial)
})

t.test('what a killed command has left goes in time, its keys too', async (t) => {
  const out = await newFolder(t)
  const own = join(out, '.chancery')
  await openFolder(out)
  const drafts = [`pending.json.${randomUUID()}`, `status.json.${randomUUID()}`]
  for (const name of drafts) await writeFile(join(own, name), '')
  await mkdir(join(own, 'new-abcdef'))
  await openFolder(out)
  t.equal((await readdir(own)).length, 4, 'another command may be at it')
  for (const name of [...drafts, 'new-abcdef']) await utimes(join(own, name), 0, 0)
  await openFolder(out)
  t.same(await readdir(own), ['versions'])
})

t.test('files of ours that somebody has changed are said to be', async (t) => {
  const out = await newFolder(t)
  const args = ['issue', '--profile', 'server', '--name', 'junk.example.com', '--out', out]
  const pending = join(out, '.chancery/pending.json')
  await mkdir(join(out, '.chancery'))
  for (const text of ['', '{', 'null', '{"orderDigest":"x"}']) {
    await writeFile(pending, text)
    t.match(await chancery(args), {
      code: exitCodes.usage,
      err: /pending\.json is not what was written there\. Remove/,
    })
  }
  await rm(pending)
  t.equal((await chancery(args)).code, 0)
  await writeFile(join(out, '.chancery/current/certificate.pem'), 'junk')
  t.match(await chancery(args), { code: exitCodes.usage, err: /current leads to cannot be read/ })
})

slowTest('a reader never sees a key beside the certificate of another', async (t) => {
  const out = await newFolder(t)
  const task = await taskFor('seen.example.com', out)
  let reading = true
  const seen = new Set<string>()
  const reader = (async () => {
    while (reading) {
      const shown = await readShown(out).catch((error: NodeJS.ErrnoException) => {
        // It was put away while we read: a server opens its files in less time than two renewals take.
        if (error.code === 'ENOENT') return undefined
        throw error
      })
      if (shown) seen.add(shown.serial)
      await new Promise((resolve) => setImmediate(resolve))
    }
  })()
  for (let i = 0; i < 20; i += 1) await obtain(task, client)
  reading = false
  await reader
  t.ok(seen.size > 5, `${seen.size} were seen`)
})

slowTest('killed at any moment, what is seen belongs together, and no certificate is lost', async (t) => {
  const out = await newFolder(t)
  const args = ['issue', '--profile', 'server', '--name', 'killed.example.com', '--out', out]
  const seen = new Set<string>()
  const look = async (): Promise<void> => {
    const shown = await readShown(out)
    if (shown) seen.add(shown.serial)
  }
  const began = performance.now()
  t.equal((await chancery(args)).code, 0)
  const whole = performance.now() - began
  await look()
  for (let i = 0; i < 12; i += 1) {
    const child = startChancery(service, args)
    const ended = new Promise((resolve) => child.once('exit', resolve))
    const timer = setTimeout(() => child.kill('SIGKILL'), whole * (0.4 + 0.05 * i))
    await ended
    clearTimeout(timer)
    await look()
  }
  t.equal((await chancery(args)).code, 0, 'and the next one goes through')
  await look()
  t.same((await issuedFor('killed.example.com')).toSorted(), [...seen].toSorted())
})

slowTest('a certificate that is odd by the clock here is told as such', async (t) => {
  const hour = 3_600_000
  const day = 24 * hour
  const cases: readonly (readonly [ms: number, note: RegExp])[] = [
    [-hour, /^note +here it is 20\S+Z, and it is yet to begin: this clock or the server’s is wrong$/m],
    [0, /^root .*$(?!\nnote)/m],
    [
      25 * day,
      /^note +here it is 20\S+Z, and it is to be renewed already: .* wrong, or --renew-before leaves it no time$/m,
    ],
    [31 * day, /^note +here it is 20\S+Z, and it has ended: this clock or the server’s is wrong$/m],
  ]
  for (const [ms, note] of cases) {
    const args = ['issue', '--profile', 'server', '--name', 'odd.example.com', '--renew-before', '30%']
    const { code, out, err } = await chancery([...args, '--out', await newFolder(t)], shiftedBy(ms))
    t.match({ code, err }, { code: 0, err: /^$/ })
    t.match(out, note, `${ms / hour} hours apart`)
  }
})

slowTest('--renew-before does nothing while there is time, and renews when there is not', async (t) => {
  const out = await newFolder(t)
  const args = ['issue', '--profile', 'server', '--name', 'renewed.example.com', '--out', out]
  const first = await chancery([...args, '--renew-before', '30%'])
  t.equal(first.code, 0)
  const [serial] = await issuedFor('renewed.example.com')
  const idle = await chancery([...args, '--renew-before', '30%'])
  t.match(idle, { code: 0, err: /^$/ })
  t.match(
    idle.out,
    new RegExp(`holds ${serial}, valid until 20\\S+Z, 29 days from now: nothing to do\\. It will be renewed from 20`),
  )
  t.equal(
    JSON.parse((await chancery([...args, '--renew-before', '720h', '--json'])).out).issued,
    false,
    'never at once',
  )
  const before = (await readShown(out))?.files['key.pem']
  t.equal(JSON.parse((await chancery([...args, '--renew-before', '43197m', '--reuse-key', '--json'])).out).issued, true)
  t.equal((await readShown(out))?.files['key.pem'], before, 'with the key that was there')
  t.equal(JSON.parse((await chancery([...args, '--renew-before', '43197m', '--json'])).out).issued, true)
  t.not((await readShown(out))?.files['key.pem'], before, 'else with a new one')
  const changed = await chancery([...args, '--name', 'more.example.com', '--renew-before', '30%', '--json'])
  t.equal(JSON.parse(changed.out).issued, true, 'and whenever something else is asked for')
})

slowTest('--exec runs when new files are in place, and again until it succeeds', async (t) => {
  const out = await newFolder(t)
  const script = join(out, 'reload.sh')
  const log = join(out, 'log')
  await writeFile(
    script,
    `#!/bin/sh\necho "$2 $1 $(cat "${out}/key.pem" | wc -l) \${CHANCERY_TOKEN:-none}" >> ${log}\n[ ! -e ${out}/broken ] || { echo oh no; exit 3; }\n`,
  )
  await chmod(script, 0o755)
  await writeFile(join(out, 'broken'), '')
  const args = ['issue', '--profile', 'server', '--name', 'exec.example.com', '--out', out, '--renew-before', '30%']
  const token = { CHANCERY_TOKEN: service.adminToken }
  const exec = ['--exec', `${script} 'a  b' "$HOME"`]
  const failed = await chancery([...args, ...exec], token)
  t.equal(failed.code, exitCodes.later)
  t.match(failed.err, /in its place, but --exec failed: .*reload\.sh ended with 3: oh no\n/)
  const { serial } = (await readShown(out)) ?? {}
  t.ok(serial, 'the certificate is there all the same')
  t.match(await chancery([...args, ...exec]), { code: exitCodes.later }, 'and it is tried again')
  t.equal((await chancery(args)).code, 0, 'whoever comes without a command tells nobody, and forgets nothing')
  await rm(join(out, 'broken'))
  t.match(await chancery([...args, ...exec]), { code: 0, out: /nothing to do/ })
  t.match(await chancery([...args, ...exec]), { code: 0, out: /nothing to do/ })
  const lines = (await readFile(log, 'utf8')).trimEnd().split('\n')
  t.same(lines, Array(3).fill('$HOME a  b 5 none'), 'three times, without a shell and without our token')
  t.equal((await readShown(out))?.serial, serial)
  const shell = ['--shell', '--exec', `echo shell $((1 + 1)) >> ${log}`]
  t.equal((await chancery([...args.slice(0, -2), ...shell])).code, 0)
  t.match(await readFile(log, 'utf8'), /\nshell 2\n$/)
  const absent = await chancery([...args.slice(0, -2), '--exec', 'no-such-program'])
  t.match(absent, { code: exitCodes.later, err: /no-such-program spawn no-such-program ENOENT/ })
})

t.test('explain needs no request: it makes one and throws it away', async (t) => {
  const good = await chancery(['explain', '--profile', 'server', '--name', 'web.example.com'])
  t.equal(good.code, 0, good.err)
  t.match(good.out, /^This request would be issued\.\n\d+ checks passed/)
  const bad = await chancery(['explain', '--profile', 'server', '--name', 'web.example.com', '--name', 'web.evil.test'])
  t.equal(bad.code, exitCodes.refused)
  t.match(bad.out, /^This request would be refused\.\nFAILED +names\.dns\.allow +\/names\/1 +web\.evil\.test +\S/)
  const weak = await chancery([
    'explain',
    '--profile',
    'kubelet-client',
    '--name',
    'a.example.com',
    '--key-type',
    'ml-dsa-44',
  ])
  t.match(weak.out, /^FAILED +key\.type/m)
})

t.test('the links lead where they say, and an older layout of ours is none', async (t) => {
  const out = await newFolder(t)
  await obtain(await taskFor('links.example.com', out), client)
  for (const name of fileNames) {
    t.ok((await lstat(join(out, name))).isSymbolicLink())
    t.equal(await readlink(join(out, name)), `.chancery/current/${name}`)
  }
  await mkdir(join(out, '.chancery/new-old'))
  t.ok(await openFolder(out), 'what was left half made is no obstacle')
})
