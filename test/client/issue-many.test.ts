/** `chancery issue-many`, by the command, against the real service. */
import { execFile } from 'node:child_process'
import { randomUUID, X509Certificate } from 'node:crypto'
import { mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { blocksOf } from '../helpers/docs.ts'
import { type Chancery, chanceryFor, envFor, putCommand } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, untilState, wantApprovals } from '../http/approvals.ts'
import { csrFor, employ } from '../http/people.ts'
import { dns, extension, newP256, pem, request, san, utf8 } from '../x509/build.ts'
import { newFolder } from './folders.ts'
import { args, filesOf, rowsOf } from './many.ts'

t.setTimeout(300_000)
let service: TestService
let chancery: Chancery

t.before(async () => {
  service = await openTestService(t)
  chancery = chanceryFor(service)
})

const issuedFor = async (name: string): Promise<readonly string[]> => {
  const { json } = await service.request('GET', `/v1/certificates?name=${name}&limit=1000`)
  return json.items.map(({ serial }: { serial: string }) => serial)
}

const serialIn = async (file: string): Promise<string> =>
  new X509Certificate(await readFile(file)).serialNumber.toLowerCase()

t.test('each request gets its chain, in a file of its name, and a line', async (t) => {
  const { folder, files, out } = await filesOf(t, {
    'a.csr': csrFor('a.many.example.com'),
    'b.PEM': csrFor('b.many.example.com').replaceAll('CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'),
    'c.csr.req': csrFor('c.many.example.com').replaceAll('\n', '\r\n'),
    'd e.txt': csrFor('d.many.example.com'),
  })
  const nested = join(out, 'of', 'chains')
  const run = await chancery(args(files, nested, '--validity', '24h'))
  t.match(run, { code: 0, err: /^$/ })
  const names = ['a.pem', 'b.pem', 'c.csr.pem', 'd e.txt.pem']
  t.same((await readdir(nested)).sort(), names, 'and nothing else')
  const lines = run.out.trimEnd().split('\n')
  t.match(lines[0], /^FILE +OUTCOME +SERIAL-OR-CODE +DETAIL$/)
  for (const [i, name] of names.entries()) {
    const file = join(nested, name)
    const chain = await readFile(file, 'utf8')
    t.equal(chain.match(/BEGIN CERTIFICATE-/g)?.length, 2, 'the certificate and its issuer')
    t.equal(new X509Certificate(chain).subjectAltName, `DNS:${'abcd'[i]}.many.example.com`)
    t.equal((await stat(file)).mode & 0o777, 0o644)
    const serial = await serialIn(file)
    t.match(lines[i + 1], `${files[i]}  `)
    t.match(lines[i + 1], new RegExp(`issued +${serial} +valid until 20\\S+Z, in ${file}$`))
  }

  const again = await chancery(args(files, nested, '--json'))
  t.match(again, { code: 0, err: /^$/ })
  t.same(
    rowsOf(again).map((row) => Object.keys(row)),
    files.map(() => ['file', 'outcome', 'out', 'serial', 'notAfter', 'replayed', 'notes', 'request', 'problem']),
  )
  for (const [i, row] of rowsOf(again).entries()) {
    const file = join(nested, names[i] as string)
    t.match(row, {
      file: files[i],
      outcome: 'issued',
      out: file,
      replayed: false,
      notes: { length: 0 },
      request: null,
      problem: null,
    })
    t.equal(await serialIn(file), row.serial, 'what is there gives way to a chain')
    t.equal((await issuedFor(`${'abcd'[i]}.many.example.com`)).length, 2, 'without a key each run issues')
  }
  t.same((await readdir(folder)).sort(), ['a.csr', 'b.PEM', 'c.csr.req', 'd e.txt', 'out'])
})

slowTest('one that is refused fails only itself', async (t) => {
  const { files, out } = await filesOf(t, {
    'good.csr': csrFor('good.refused.example.com'),
    'evil.csr': csrFor('web.evil.test'),
    'text.csr': `subject=\n${csrFor('text.refused.example.com')}`,
    'junk.csr': 'junk',
    'also.csr': csrFor('also.refused.example.com'),
  })
  // Of a command that was killed half-way.
  const draft = join(out, `good.pem.${randomUUID()}`)
  await mkdir(out, { recursive: true })
  await writeFile(draft, '')
  await utimes(draft, 0, 0)
  const run = await chancery(args(files, out))
  t.equal(run.code, exitCodes.refused)
  t.same((await readdir(out)).sort(), ['also.pem', 'good.pem'])
  t.match(run.out, /\/evil\.csr +refused +san\.forbidden +\S/)
  t.match(
    run.out,
    /\/text\.csr +refused +csr\.pem +.* the text does not begin with a block: take out what stands before it\.$/m,
  )
  t.match(run.out, /\/junk\.csr +refused +csr\.pem +/)
  t.match(run.err, /^5 requests: 2 issued, 3 refused\.\nTo try again .*--idempotency-key [0-9a-f-]{36}\n$/)
  const alone = await chancery(['issue', '--profile', 'server', '--csr', files[2] as string])
  t.match(alone, { code: exitCodes.refused, err: /csr\.pem/ }, 'as it would alone')

  const key = /--idempotency-key (\S+)/.exec(run.err)?.[1] as string
  const rows = rowsOf(await chancery(args(files, out, '--json', '--idempotency-key', key)))
  t.same(
    rows.map(({ outcome, replayed }) => [outcome, replayed]),
    [
      ['issued', true],
      ['refused', false],
      ['refused', false],
      ['refused', false],
      ['issued', true],
    ],
    'the key that it told of finds what was issued',
  )
  t.match(rows[1]?.problem, { code: 'san.forbidden', status: 422, violations: [{ value: 'web.evil.test' }] })
  const nowhere = await chancery(['issue-many', ...files, '--profile', 'nowhere', '--out', out])
  t.equal(nowhere.code, exitCodes.denied)
  t.match(nowhere.out, /\/good\.csr +refused +auth\.forbidden /)
  const denied = await chancery(args(files, out), { CHANCERY_TOKEN: 'nonsense' })
  t.equal(denied.code, exitCodes.denied)
  t.match(denied.out, /\/good\.csr +refused +auth\.invalid /, 'and so where none is let in')
  t.match(denied.err, /^5 requests: 5 refused\.\n.*\(auth\.invalid, request /)
})

t.test('what a request carries in vain is noted, with its file', async (t) => {
  const template = extension('1.3.6.1.4.1.311.20.2', utf8('WebServer'))
  const extensions = [san(dns('noted.example.com')), template]
  const { files, out } = await filesOf(t, { 'noted.csr': pem(request({ signer: newP256(), extensions })) })
  const run = await chancery(args(files, out, '--json'))
  t.equal(run.code, 0)
  const [note] = rowsOf(run)[0]?.notes ?? []
  t.ok(note)
  t.equal(run.err, `note: ${files[0]}: ${note?.field} ${note?.reason}\n`)
})

t.test('where some are refused and others may be tried again, it is worth to', async (t) => {
  const limits = { certificatesPerDay: 2 }
  const token = await employ(service, 'few', 'requester', { profiles: ['server'], limits })
  const { files, out } = await filesOf(t, {
    'evil.csr': csrFor('web.evil.test'),
    ...Object.fromEntries([1, 2, 3].map((n) => [`${n}.csr`, csrFor(`${n}.few.example.com`)])),
  })
  const run = await chancery(args(files, out, '--json', '--idempotency-key', 'few'), { CHANCERY_TOKEN: token })
  t.equal(run.code, exitCodes.later)
  const told = rowsOf(run)
  t.same(told.map(({ outcome }) => outcome).sort(), ['issued', 'issued', 'later', 'refused'])
  t.match(told.find(({ outcome }) => outcome === 'later')?.problem, { code: 'limit.certificates', status: 429 })
  const { failure, detail } = JSON.parse(run.err)
  t.equal(failure, 'later')
  t.match(
    detail,
    /^4 requests: 2 issued, 1 to be tried again, 1 refused\.\nWith its --idempotency-key the same command/,
  )
})

slowTest('what comes too soon for a limit of requests is sent again, and not what is done', async (t) => {
  const limits = { requestsPerSecond: 10 }
  const token = await employ(service, 'slow', 'requester', { profiles: ['server'], limits })
  const texts = Array.from({ length: 45 }, (_, n) => [`${n}.csr`, csrFor(`${n}.slow.example.com`)])
  const { files, out } = await filesOf(t, Object.fromEntries(texts))
  const first = await chancery(args(files, out, '--json', '--idempotency-key', 'slow'), { CHANCERY_TOKEN: token })
  t.hasStrict(first, { code: 0, err: '' })
  t.same(
    rowsOf(first).map(({ file, outcome, replayed }) => [file, outcome, replayed]),
    files.map((file) => [file, 'issued', false]),
  )
})

slowTest('what people must approve is told with its request, and is there when they have', async (t) => {
  await wantApprovals(service, 'payments', { required: 1 })
  const { alice } = await employApprovers(service, ['payments'])
  await service.request('POST', '/v1/grants', {
    body: { principal: 'admin', role: 'requester', profiles: ['payments'] },
  })
  const { files, out } = await filesOf(t, {
    'one.csr': csrFor('one.pay.example.com'),
    'two.csr': csrFor('two.pay.example.com'),
  })
  const ask = ['issue-many', ...files, '--profile', 'payments', '--out', out, '--idempotency-key', 'pay', '--json']
  const waiting = await chancery(ask)
  t.equal(waiting.code, exitCodes.later)
  t.same(await readdir(out), [])
  const rows = rowsOf(waiting)
  const [one = '', two = ''] = rows.map(({ request }) => request ?? '')
  t.match(one, /^[0-9a-f-]{36}$/)
  t.not(one, two)
  t.match(rows, [{ outcome: 'waiting', problem: { code: 'approval.waiting' } }, { outcome: 'waiting' }])
  t.match(
    (await chancery(ask.slice(0, -1))).out,
    `waiting  approval.waiting  The request ${one} waits for approval: 0 of 1.`,
  )

  const desk = openDesk(service)
  const read = () => desk.read(service.adminToken, one)
  t.equal((await desk.approve(alice, (await read()).json)).status, 200)
  const { serial } = await untilState(read, 'issued')
  const then = await chancery(ask)
  t.equal(then.code, exitCodes.later)
  t.match(rowsOf(then), [
    { outcome: 'issued', serial },
    { outcome: 'waiting', request: two },
  ])
  t.same(await readdir(out), ['one.pem'])
  t.equal(await serialIn(join(out, 'one.pem')), serial)
})

slowTest('the same command with the same key gets the same certificates, and never a second one', async (t) => {
  const same = csrFor('same.keyed.example.com')
  const { folder, files, out } = await filesOf(t, {
    'a.csr': same,
    'b.csr': same,
    'c.csr': csrFor('c.keyed.example.com'),
  })
  // As long as it may be.
  const keyed = ['--idempotency-key', 'k'.repeat(63), '--json']
  const first = await chancery(args(files, out, ...keyed))
  t.equal(first.code, 0, first.err)
  const serials = rowsOf(first).map(({ serial }) => serial)
  t.equal(new Set(serials).size, 3, 'one request under two names is two')
  await writeFile(join(folder, 'c.csr'), (await readFile(join(folder, 'c.csr'), 'utf8')).replaceAll('\n', '\r\n'))
  const second = await chancery(args(files, out, ...keyed))
  t.equal(second.code, 0, second.err)
  t.same(
    rowsOf(second).map(({ serial, replayed }) => [serial, replayed]),
    serials.map((serial) => [serial, true]),
    'however its lines end',
  )
  t.equal((await issuedFor('same.keyed.example.com')).length, 2)
  t.match((await chancery(args(files, out, ...keyed.slice(0, 2)))).out, /, issued before$/m)

  const other = await chancery(args(files, out, ...keyed, '--validity', '24h'))
  t.equal(other.code, exitCodes.conflict)
  t.match(rowsOf(other)[0], { outcome: 'refused', problem: { code: 'idempotency.reused' } })
  await writeFile(join(folder, 'c.csr'), csrFor('c.keyed.example.com'))
  const mended = rowsOf(await chancery(args(files, out, ...keyed)))
  t.same(
    mended.map(({ replayed }) => replayed),
    [true, true, false],
    'another request is another',
  )
  t.equal((await issuedFor('c.keyed.example.com')).length, 2)
})

slowTest('what is wrong with any file is told together, and nothing is sent', async (t) => {
  const { folder, files } = await filesOf(t, {
    'web.csr': csrFor('web.faults.example.com'),
    'web.req': csrFor('web.faults.example.com'),
    'web.key': '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
    'der.csr': Buffer.from('3082010a0201', 'hex'),
    'long.csr': 'x'.repeat(65_537),
    '.csr': csrFor('dot.faults.example.com'),
  })
  const none = join(folder, 'none.csr')
  const run = await chancery(args([...files, none, folder], join(folder, 'new', 'out')))
  t.equal(run.code, exitCodes.usage)
  t.equal(run.out, '')
  const lines = run.err.trimEnd().split('\n')
  for (const [i, sentence] of [
    /web\.key holds a private key, and is not sent\.$/,
    /der\.csr is binary, as DER is, and PEM is wanted\.$/,
    /long\.csr is longer than any request \(65536 octets\)\.$/,
    /\/\.csr has no name for its certificate before the dot\.$/,
    /none\.csr cannot be read \(ENOENT\)\.$/,
    /cannot be read \(EISDIR\)\.$/,
    /web\.csr and \S+web\.req would be written to one file, \S+\/new\/out\/web\.pem\.$/,
    /^Nothing was sent\.$/,
  ].entries())
    t.match(lines[i], sentence)
  t.equal(lines.length, 8)
  t.notOk((await readdir(folder)).includes('new'), 'no folder is made')

  const web = join(folder, 'web.csr')
  for (const [out, sentence] of [
    [join(web, 'out'), /web\.csr\/out cannot be written \(ENOTDIR\)\.\nNothing/],
    [web, /web\.csr cannot be written \(ENOTDIR\)\.\nNothing/],
    ['/proc/nowhere', /cannot be written \(ENOENT\)\.\nNothing/],
  ] as const)
    t.match(await chancery(args([web], out)), { code: exitCodes.usage, out: /^$/, err: sentence })
  const key = 'k'.repeat(64)
  for (const text of [key, '', 'ö', 'a b'])
    t.match(await chancery(args([web], folder, '--idempotency-key', text)), { code: exitCodes.usage, err: /1 to 63/ })
  t.match(await chancery(['issue-many', web, '--out', folder]), { code: exitCodes.usage, err: /--profile/ })
  t.same(await issuedFor('web.faults.example.com'), [])
})

t.test('nothing but chains gives way', async (t) => {
  const { folder, files } = await filesOf(t, {
    'a.pem': csrFor('a.place.example.com'),
    'b.csr': csrFor('b.place.example.com'),
    'c.csr': csrFor('c.place.example.com'),
    'd.csr': csrFor('d.place.example.com'),
  })
  await writeFile(join(folder, 'b.pem'), 'notes')
  await mkdir(join(folder, 'c.pem'))
  await writeFile(join(folder, 'elsewhere'), '')
  await symlink(join(folder, 'elsewhere'), join(folder, 'd.pem'))
  const before = await readFile(join(folder, 'a.pem'), 'utf8')
  const run = await chancery(args(files, folder))
  t.equal(run.code, exitCodes.usage)
  const certificates = 'is there and is not of PEM certificates alone; name another folder by --out\\.'
  for (const sentence of [`a\\.pem ${certificates}`, `b\\.pem ${certificates}`, 'c\\.pem is there', 'd\\.pem is there'])
    t.match(run.err, new RegExp(sentence))
  t.equal(await readFile(join(folder, 'a.pem'), 'utf8'), before, 'not even the request itself')
  t.equal(await readFile(join(folder, 'b.pem'), 'utf8'), 'notes')
  t.same(await issuedFor('d.place.example.com'), [])
})

t.test('docs/commands.md: as it stands there', async (t) => {
  const blocks = await blocksOf('docs/commands.md')
  t.same([...blocks.keys()], ['issue-many'])
  const folder = await newFolder(t)
  await mkdir(join(folder, 'requests'))
  for (const name of ['web', 'mail'])
    await writeFile(join(folder, 'requests', `${name}.csr`), csrFor(`${name}.docs.example.com`))
  const env = { ...envFor(service), PATH: await putCommand(folder) }
  const { stdout } = await promisify(execFile)('bash', ['-ceu', blocks.get('issue-many') ?? 'false'], {
    env,
    cwd: folder,
  })
  t.match(stdout, /^requests\/mail\.csr +issued .* in certificates\/mail\.pem\nrequests\/web\.csr +issued /m)
  t.same((await readdir(join(folder, 'certificates'))).sort(), ['mail.pem', 'web.pem'])
  const text = await readFile(new URL('../../docs/commands.md', import.meta.url), 'utf8')
  for (const outcome of ['issued', 'waiting', 'later', 'unknown', 'unsent', 'refused', 'failed'])
    t.match(text, new RegExp(`^\\| \`${outcome}\` \\|`, 'm'))
})
