import { execFile, spawnSync } from 'node:child_process'
import { lstat, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import pg from 'pg'
import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { formatTable } from '../../src/lib/output.ts'
import { bare } from '../helpers/environment.ts'
import { envFor, mainFile, type Run, runChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'

let service: TestService
let folder: string

t.before(async () => {
  service = await openTestService(t)
  folder = await mkdtemp(join(tmpdir(), 'chancery-audit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  for (let i = 0; i < 4; i += 1)
    await service.request('POST', '/v1/certificates', {
      body: { csr: csrFor(`n${i}.audit.example.com`), profile: 'server' },
    })
  await service.request('POST', '/v1/certificates', { body: { csr: 'nothing', profile: 'server' } })
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  await owner.query(
    `insert into refusals (id, at, principal, profile, code, digest, detail, violations)
    select gen_random_uuid(), clock_timestamp(), 'crowd', 'server', 'csr.pem', '', 'two' || E'\\r\\n' || 'lines, "quoted"', '[]'
    from generate_series(1, 2500)`,
  )
  await owner.end()
})

const audit = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Run> =>
  chancery(['audit', ...args], env)

const chancery = (args: readonly string[], env: Readonly<Record<string, string>>): Promise<Run> =>
  runChancery(args, {
    env: { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url, ...env },
    maxBuffer: 2 ** 26,
  })

slowTest('each kind of records is a table, or JSON', async (t) => {
  const certificates = await audit(['certificates', '--name', '*.audit.example.com', '--profile', 'server'])
  t.equal(certificates.code, 0)
  const [head, ...lines] = certificates.out.trimEnd().split('\n')
  t.match(head, /^SERIAL +STATUS +PROFILE +PRINCIPAL +ISSUED-AT +NOT-AFTER +NAMES +SUBJECT$/)
  t.equal(lines.length, 4)
  t.ok(lines.every((line) => / valid +server@1 +admin .* dns:n\d\.audit\.example\.com /.test(line)))
  t.equal(
    JSON.parse((await audit(['certificates', '--name', '*.audit.example.com', '--json', '--limit', '3'])).out).length,
    3,
  )
  t.equal(JSON.parse((await audit(['refusals', '--principal', 'crowd', '--json', '--all'])).out).length, 2_500)
  t.match(
    (await audit(['events', '--by', 'chancery', '--type', 'profile.changed'])).out,
    /^TIME +INDEX +TYPE +WHAT\n.* profile\.changed +\S+@1 by chancery\n/,
  )
  t.equal(JSON.parse((await audit(['events', '--at', '3', '--json'])).out).length, 3)
  t.match(
    (await audit(['accesses', '--records', 'certificates', '--act', 'searched'])).out,
    / admin +searched +certificates +json +3 +\d+ +name \*\.audit\.example\.com\n/,
  )
  for (const format of [[], ['--json']]) {
    const { out, err } = await audit(['refusals', '--principal', 'crowd', ...format])
    t.equal(format.length > 0 ? JSON.parse(out).length : out.trimEnd().split('\n').length - 1, 100)
    t.equal(
      err,
      'These are the first 100, and there are more: see --limit, --all, --csv and --ndjson.\n',
      'also where nobody sits before it',
    )
  }
  t.equal((await audit(['refusals', '--principal', 'crowd', '--count'])).out, '2,500 refusals\n')
  t.same(JSON.parse((await audit(['refusals', '--principal', 'crowd', '--count', '--json'])).out), {
    rows: 2500,
    exact: true,
  })
})

slowTest('an export goes to a file once it is whole, or to standard output', async (t) => {
  const file = join(folder, 'crowd.ndjson')
  const run = await audit(['refusals', '--principal', 'crowd', '--ndjson', '--out', file])
  t.equal(run.code, 0, run.err)
  t.equal(run.out, '')
  t.match(run.err, /crowd\.ndjson holds 2,500 refusals, as of a roll of \d+ entries with the root [\w+/]{43}=\.\n$/)
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
  t.equal(lines.length, 2_501)
  t.match(JSON.parse(lines.at(-1) ?? ''), { end: { rows: 2_500, filter: { principal: 'crowd' } } })
  t.same(await readdir(folder), ['crowd.ndjson'])

  t.match(
    await audit(['refusals', '--principal', 'nobody', '--ndjson', '--out', file]),
    { code: 0 },
    'in its own place',
  )
  t.equal((await readFile(file, 'utf8')).split('\n').length, 2)

  const csv = await audit(['refusals', '--principal', 'crowd', '--csv', '--out', join(folder, 'crowd.csv')])
  t.equal(csv.code, 0, csv.err)
  t.equal((await readFile(join(folder, 'crowd.csv'), 'utf8')).match(/\r\n"/g)?.length, 2_501)
  t.same((await readdir(folder)).sort(), ['crowd.csv', 'crowd.ndjson'])
  t.match((await audit(['certificates', '--name', 'nowhere.example.com', '--csv'])).out, /^"serial",.*\r\n"end","\{/)
})

slowTest('what cannot be done is said in a sentence, with its exit code', async (t) => {
  const key = join(folder, 'key.pem')
  await writeFile(key, '-----BEGIN PRIVATE KEY-----\n')
  const jwk = join(folder, 'jwk.json')
  await writeFile(jwk, '{"kty":"EC","d":"AAAA"}\n')
  const cases: readonly (readonly [args: string[], code: number, sentence: RegExp])[] = [
    [['certificates', '--serial', 'xyz'], exitCodes.refused, /request\.query \/serial: must be 32 hexadecimal digits/],
    [
      ['certificates', '--issued-after', '2026-02-31T00:00:00Z'],
      exitCodes.refused,
      /\/issuedAfter.*must be a time that exists/,
    ],
    [['certificates', '--profile', 'sever'], exitCodes.missing, /There is no profile "sever"/],
    [['refusals', '--at', '3'], exitCodes.usage, /unknown option '--at'/],
    [['certificates', '--at', '999999'], exitCodes.refused, /\/at 999999: is more than the \d+ entries/],
    [
      ['events', '--at', 'x', '--csv', '--out', join(folder, 'none')],
      exitCodes.refused,
      /\/at: must be a whole number/,
    ],
    [['events', '--csv', '--ndjson'], exitCodes.usage, /Choose one of --csv and --ndjson/],
    [['events', '--json', '--ndjson'], exitCodes.usage, /Choose one of --ndjson and --json/],
    [['events', '--out', 'x'], exitCodes.usage, /--out goes with --csv or --ndjson/],
    [['events', '--csv', '--all'], exitCodes.usage, /--csv exports everything/],
    [['events', '--ndjson', '--limit', '2'], exitCodes.usage, /leave out --all, --count and --limit/],
    [['events', '--csv', '--out', key], exitCodes.usage, /key\.pem is there and is no export in CSV; name another/],
    [['events', '--ndjson', '--out', jwk], exitCodes.usage, /jwk\.json is there and is no export in NDJSON/],
    [['events', '--csv', '--out', folder], exitCodes.usage, /is a folder; name a file in it by --out/],
    [
      ['events', '--csv', '--out', join(folder, 'x'.repeat(300))],
      exitCodes.usage,
      /cannot be written \(ENAMETOOLONG\)/,
    ],
    [['events', '--limit', '0'], exitCodes.usage, /0 is not a whole number/],
    [
      ['events', '--csv', '--out', join(folder, 'no', 'where')],
      exitCodes.usage,
      /where\.\w+\.partial cannot be written \(ENOENT\)/,
    ],
    [['everything'], exitCodes.usage, /unknown command/],
  ]
  for (const [args, code, sentence] of cases) {
    const run = await audit(args)
    t.equal(run.code, code, `${args.join(' ')}: ${run.err}`)
    t.match(run.err, sentence)
  }
  t.same(
    (await readdir(folder)).filter((name) => name.startsWith('none')),
    [],
  )
})

slowTest('an export that is not whole never looks as if it were', async (t) => {
  const { key, cert, anchor } = await makeCertificate()
  const item = `${JSON.stringify({ index: 1, entry: 'x' })}\n`
  const end = `${JSON.stringify({ end: { complete: true, rows: 1, boundTo: { size: 7 } } })}\n`
  const answers: Readonly<Record<string, (write: (text: string) => void, close: (whole: boolean) => void) => void>> = {
    whole: (write, close) => [write(item), write(end), close(true)],
    cut: (write, close) => [write(item), setTimeout(() => close(false), 50)],
    short: (write, close) => [write(item), close(true)],
    half: (write, close) => [write(item), write(end.slice(0, -10)), close(true)],
    nothing: (_write, close) => close(true),
  }
  let answer = answers['whole']
  const server = createServer({ key, cert }, (request, response) => {
    const isCount = request.url?.includes('count=true') === true
    response.setHeader('content-type', isCount ? 'application/json' : 'application/x-ndjson')
    if (isCount) return response.end(JSON.stringify({ items: [], count: { rows: 1, exact: true } }))
    answer?.(
      (text) => response.write(text),
      (whole) => (whole ? response.end() : response.destroy()),
    )
    return response
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const env = { CHANCERY_CACERT: anchor, CHANCERY_URL: `https://127.0.0.1:${(server.address() as AddressInfo).port}` }
  for (const [name, code, sentence] of [
    ['whole', 0, /^1 of 1 \(100 %\)\n\S+whole holds 1 events, as of a roll of 7 entries\.\n$/],
    ['cut', exitCodes.later, /The answer broke off: .*cut\.\w+\.partial holds what came, and is not whole\.\n/],
    ['short', exitCodes.later, /The export broke off: it lacks its last line\. .*short\.\w+\.partial is not whole\.\n/],
    ['half', exitCodes.later, /it lacks its last line/],
    ['nothing', exitCodes.later, /it lacks its last line/],
  ] as const) {
    answer = answers[name]
    const file = join(folder, name)
    const run = await audit(['events', '--ndjson', '--out', file], env)
    t.equal(run.code, code, `${name}: ${run.err}`)
    t.match(run.err, sentence)
    t.equal((await readdir(folder)).includes(name), name === 'whole')
    t.equal((await audit(['events', '--ndjson'], env)).code, code, `${name}, to standard output`)
  }
})

t.test('an export goes into a pipe, and where a link leads: neither name is given to a file of its own', async (t) => {
  const pipe = join(folder, 'pipe')
  await promisify(execFile)('mkfifo', ['-m', '600', pipe])
  const [run, came] = await Promise.all([
    audit(['refusals', '--principal', 'crowd', '--ndjson', '--out', pipe]),
    readFile(pipe, 'utf8'),
  ])
  t.equal(run.code, 0, run.err)
  t.equal(came.split('\n').length, 2_502)
  t.ok((await lstat(pipe)).isFIFO(), 'a device, as /dev/null, is the same')

  const printed = await audit(['refusals', '--principal', 'nobody', '--ndjson', '--out', '-'])
  t.match(printed, { code: 0, out: /^\{"end":.*\}\n$/, err: /^$/ })

  const [file, latest] = [join(folder, 'of-today.csv'), join(folder, 'latest.csv')]
  await writeFile(file, '')
  await symlink('of-today.csv', latest)
  t.match(await audit(['events', '--csv', '--out', latest]), { code: 0, err: /latest\.csv holds \d+ events/ })
  t.ok((await lstat(latest)).isSymbolicLink())
  t.match(await readFile(file, 'utf8'), /"end","\{""complete"":true/)
  t.notOk((await readdir(folder)).some((name) => /^(pipe|latest|of-today).*partial/.test(name)))
})

t.test('where nothing can be written, the name stays what it is', async (t) => {
  for (const [out, sentence] of [
    ['/dev/full', /The export cannot be written: ENOSPC/],
    ['', /Name a file by --out/],
  ] as const)
    t.match(await audit(['refusals', '--principal', 'nobody', '--ndjson', '--out', out]), {
      code: exitCodes.usage,
      err: sentence,
    })
})

t.test('a table fits its room: the widest columns give way, and say so', (t) => {
  const rows = [{ a: 'short', b: 'x'.repeat(60), c: 'y'.repeat(30) }]
  const lines = formatTable(rows, ['a', 'b', 'c'], 60).trimEnd().split('\n')
  t.ok(lines.every((line) => line.length <= 60))
  t.match(lines[1], /^short +x+… +y+…$/)
  t.equal(formatTable(rows, ['a', 'b', 'c'], 500), formatTable(rows, ['a', 'b', 'c']))
  t.ok(
    (formatTable(rows, ['a', 'b', 'c'], 10).split('\n')[1] ?? '').includes('xxxxxxx…'),
    'no narrower than tells something',
  )
  t.end()
})

/** A server of the test's own, under a certificate that is its own trust anchor. */
const makeCertificate = async (): Promise<{ readonly key: string; readonly cert: string; readonly anchor: string }> => {
  const [anchor, key] = [join(folder, 'anchor.pem'), join(folder, 'anchor.key')]
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  const names = ['-subj', '/CN=audit', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', anchor]
  await promisify(execFile)('openssl', [...made, ...names])
  return { key: await readFile(key, 'utf8'), cert: await readFile(anchor, 'utf8'), anchor }
}

t.test('of refusals that were only counted it is told how many', async (t) => {
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  await owner.query(`insert into refusal_counts values (gen_random_uuid(), 'flood', '2026-01-01T10:00:00Z', 1234)`)
  await owner.end()
  const said = /^1,234 more were turned down in these minutes, and are counted only/m
  const file = join(folder, 'flood.csv')
  for (const form of [[], ['--count'], ['--ndjson'], ['--csv', '--out', file]])
    t.match(await audit(['refusals', '--principal', 'flood', ...form]), { code: 0, err: said }, form.join(' '))
  t.notMatch((await audit(['refusals', '--principal', 'crowd'])).err, /counted/)
})

slowTest('of a span whose beginning is past retention it is told from when on there is anything', async (t) => {
  const said = /^What came before [0-9]{4}-[0-9]{2}-01T00:00:00\.000Z is past retention, and gone\.$/m
  const [gone, kept] = [
    ['--after', '2020-01-01T00:00:00Z'],
    ['--after', new Date().toISOString()],
  ] as const
  const file = join(folder, 'gone.csv')
  for (const form of [[], ['--count'], ['--ndjson'], ['--csv', '--out', file]])
    t.match(await audit(['refusals', ...gone, ...form]), { code: 0, err: said }, form.join(' '))
  t.match(await audit(['accesses', ...gone]), { code: 0, err: said })
  for (const asked of [['refusals', ...kept], ['refusals'], ['certificates', ...gone]])
    t.notMatch((await audit(asked)).err, /retention/)
})

/** Whether there is what gives a command a terminal. */
const hasScript = spawnSync('script', ['-qec', 'true', '/dev/null'], { stdio: 'ignore' }).status === 0

t.test(
  'who waits at a terminal for many rows sees how far they have come',
  { skip: !hasScript && 'no script' },
  async (t) => {
    /** What the terminal shows, where standard error goes; standard output is a file. */
    const shown = async (principal: string): Promise<{ readonly rows: number; readonly terminal: string }> => {
      const file = join(folder, `${principal}.json`)
      const words = [process.execPath, mainFile, 'audit', 'refusals', '--principal', principal, '--all', '--json']
      const line = `${words.map((word) => `'${word}'`).join(' ')} >'${file}'`
      const env = { ...envFor(service), SHELL: '/bin/sh' }
      const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], { env })
      return { rows: JSON.parse(await readFile(file, 'utf8')).length, terminal: stdout }
    }
    const many = await shown('crowd')
    t.equal(many.rows, 2_500)
    const bars = many.terminal.split('\x1b[K')
    t.match(bars, [
      /^\r\[#+\.*\] 1,000 of [\d,]+ \(\d+ %\)/,
      /2,000 of/,
      /^\r\[#+\] 2,500 of 2,500 \(100 %\)$/,
      /^\r?\n$/,
    ])
    t.equal(bars.length, 4)
    t.same(await shown('admin'), { rows: 1, terminal: '' }, 'one page has no time for it')
  },
)
