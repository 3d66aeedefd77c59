/** The context file, by the commands that write it and by those that use it. */
import { execFile, spawn } from 'node:child_process'
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'
import { parse } from 'yaml'

import { openClient } from '../../src/client/rest.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { bare } from '../helpers/environment.ts'
import { mainFile, type Run } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
let service: TestService
let home: string
let tokenFile: string
let root: string

t.before(async () => {
  service = await openTestService(t)
  home = await newFolder(t)
  root = join(service.config.dataDir, 'root.pem')
  tokenFile = join(service.config.dataDir, 'admin.token')
})

/** With a home, and with nothing that says where the service is. */
const chancery = (
  args: readonly string[],
  { env = {}, input = '' }: { readonly env?: Readonly<Record<string, string>>; readonly input?: string } = {},
): Promise<Run> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [mainFile, ...args], { env: { ...bare, HOME: home, ...env }, cwd: home })
    const said = { out: '', err: '' }
    child.stdout.on('data', (chunk: Buffer) => {
      said.out += chunk
    })
    child.stderr.on('data', (chunk: Buffer) => {
      said.err += chunk
    })
    child.once('close', (code) => resolve({ code: code ?? -1, ...said }))
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })

const file = (): string => join(home, '.config/chancery/config.yaml')
const login = (...args: readonly string[]): readonly string[] => [
  'login',
  '--server',
  service.url,
  '--ca',
  root,
  ...args,
]

t.test('after a login no command need be told where and as whom', async (t) => {
  t.match(await chancery(['context', 'list']), { code: 0, out: 'CURRENT  NAME  SERVER  TOKEN\n' })
  const run = await chancery(login('--token-file', tokenFile))
  const { host } = new URL(service.url)
  t.same(run, { code: 0, err: '', out: `${host} is the current context: ${service.url} takes the token.\n` })
  t.equal((await stat(file())).mode & 0o777, 0o600)
  t.equal((await stat(join(file(), '..'))).mode & 0o777, 0o700)
  t.same(await readdir(join(file(), '..')), ['config.yaml'])
  t.notMatch(await readFile(file(), 'utf8'), service.adminToken, 'by reference')
  const explained = await chancery(['explain', '--profile', 'server', '--name', 'web.example.com'])
  t.equal(explained.code, 0, explained.err)
})

t.test('a token of standard input is kept in the file, and shown by nothing', async (t) => {
  const run = await chancery(login('--token-stdin', '--context', 'kept'), { input: `${service.adminToken}\n` })
  t.equal(run.code, 0, run.err)
  t.match(parse(await readFile(file(), 'utf8')), { current: 'kept', contexts: { kept: { token: service.adminToken } } })
  t.equal((await stat(file())).mode & 0o777, 0o600)
  for (const args of [
    ['context', 'list'],
    ['context', 'list', '--json'],
  ]) {
    const { out } = await chancery(args)
    t.match(out, 'kept')
    t.notMatch(out, service.adminToken)
  }
  t.equal((await chancery(['audit', 'refusals'])).code, 0)
})

t.test('what is no login leaves no trace', async (t) => {
  const before = await readFile(file(), 'utf8')
  const torn = join(home, 'torn.pem')
  const pem = await readFile(root, 'utf8')
  await writeFile(torn, `${pem}${pem.slice(0, 300)}`)
  for (const [args, input, code, sentence] of [
    [login('--token-stdin'), 'nonsense', exitCodes.denied, /auth\.invalid/],
    [login('--token-stdin'), '', exitCodes.usage, /no token/],
    [login(), '', exitCodes.usage, /either by --token-file or by --token-stdin/],
    [login('--token-file', '-'), 'x', exitCodes.usage, /^What is read each time is no standard input: /],
    [
      ['context', 'add', 'x', ...login('--cert', '-', '--key', 'x').slice(1)],
      'x',
      exitCodes.usage,
      /no standard input/,
    ],
    [
      ['login', '--server', service.url, '--ca', '-', '--token-stdin'],
      'x',
      exitCodes.usage,
      /^Standard input is one file: name - once\.\n$/,
    ],
    [login('--token-file', tokenFile, '--token-stdin'), 'x', exitCodes.usage, /either/],
    [login('--token-file', join(home, 'none')), '', exitCodes.usage, /cannot be read/],
    [login('--token-file', tokenFile, '--context', 'a b'), '', exitCodes.usage, /no name of a context/],
    [
      ['login', '--server', service.url, '--ca', tokenFile, '--token-file', tokenFile],
      '',
      exitCodes.usage,
      /^The trust anchor \S+ holds no certificate in PEM; name another by --ca\.\n$/,
    ],
    [
      ['context', 'add', 'x', '--server', service.url, '--ca', tokenFile, '--token-file', tokenFile],
      '',
      exitCodes.usage,
      /holds no certificate in PEM/,
    ],
    [
      ['login', '--server', service.url, '--ca', torn, '--token-file', tokenFile],
      '',
      exitCodes.usage,
      /torn\.pem holds a certificate that cannot be read, as when it is torn or the next begins in its last line: number 2; name another by --ca\.\n$/,
    ],
    [
      ['login', '--server', 'https://127.0.0.1:1', '--ca', root, '--token-file', tokenFile],
      '',
      exitCodes.later,
      /reached/,
    ],
    [['login', '--server', 'http://x', '--ca', root, '--token-file', tokenFile], '', exitCodes.usage, /https/],
    [['context', 'use', 'nowhere'], '', exitCodes.usage, /no context nowhere; there is \S+, kept/],
    [['context', 'remove', 'toString'], '', exitCodes.usage, /no context toString/],
  ] as const) {
    const run = await chancery(args, { input })
    t.equal(run.code, code, args.join(' '))
    t.match(run.err, sentence)
  }
  t.equal(await readFile(file(), 'utf8'), before)
})

t.test('options win over the environment, and this over the context', async (t) => {
  t.equal(
    (
      await chancery([
        'context',
        'add',
        'away',
        '--server',
        'https://127.0.0.1:1',
        '--ca',
        root,
        '--token-file',
        tokenFile,
      ])
    ).code,
    0,
  )
  t.match((await chancery(['context', 'list'])).out, /^\* +kept /m, 'to add one is not to use it')
  t.equal((await chancery(['context', 'use', 'away'])).code, 0)
  const away = { code: exitCodes.later, err: /127\.0\.0\.1:1 cannot be reached/ }
  t.match(await chancery(['audit', 'refusals']), away)
  t.match(await chancery(['audit', 'refusals', '--context', 'kept']), { code: 0 })
  t.match(await chancery(['audit', 'refusals'], { env: { CHANCERY_CONTEXT: 'kept' } }), { code: 0 })
  t.match(await chancery(['audit', 'refusals', '--context', 'away'], { env: { CHANCERY_CONTEXT: 'kept' } }), away)
  t.match(await chancery(['audit', 'refusals', '--context', 'kept'], { env: { CHANCERY_TOKEN: 'x' } }), {
    code: exitCodes.denied,
  })
  const empty = await chancery(['audit', 'refusals', '--server', service.url], { env: { CHANCERY_CONTEXT: '' } })
  t.match(empty, { code: exitCodes.usage, err: /trust anchor data\/root\.pem cannot be read/ }, 'none at all')
  t.match(empty.err, 'a service that starts here makes it, or name another by --ca', 'before the first start, too')
  const named = await chancery(['audit', 'refusals', '--server', service.url, '--ca', 'none.pem'])
  t.match(named.err, 'trust anchor none.pem cannot be read (ENOENT); name another by --ca')
  const local = await chancery(['audit', 'refusals', '--server', service.url], {
    env: { CHANCERY_DATA: service.config.dataDir },
  })
  t.equal(local.code, 0, 'a data folder is the environment, too')
  const data = { CHANCERY_DATA: service.config.dataDir }
  t.match(
    await chancery(['audit', 'refusals'], { env: data }),
    away,
    'a data folder does not override the current context',
  )
  const { host, port } = new URL(service.url)
  for (const listen of [host, `0.0.0.0:${port}`]) {
    const { origin } = await openClient({}, { ...data, CHANCERY_LISTEN: listen })
    t.equal(new URL(origin).port, port, `CHANCERY_LISTEN=${listen}`)
  }
})

t.test('the roll is that of the context, as it is read by every other command', async (t) => {
  const { out: key } = await chancery(['roll', 'key', '--context', 'kept'])
  const checkpoint = ['roll', 'checkpoint', '--key', key.trim()]
  t.match(await chancery([...checkpoint, '--context', 'kept']), { code: 0, out: /\/roll\n/ })
  t.match(await chancery([...checkpoint, '--context', 'away']), { err: /127\.0\.0\.1:1\S* cannot be reached/ })
  const kept = { env: { CHANCERY_URL: service.url, CHANCERY_CONTEXT: 'kept' } }
  t.match(await chancery(checkpoint, kept), { code: 0 }, 'and the environment wins')
  const open = [...checkpoint, '--anonymous', '--server', service.publicUrl]
  const missed = await chancery(open, { env: { CHANCERY_CONTEXT: 'nowhere' } })
  t.match(missed, { code: exitCodes.missing, err: /has no checkpoint/ }, 'nor is one missed that says nothing here')
})

t.test('the token of a context goes to its own server only', async (t) => {
  const run = await chancery(['audit', 'refusals', '--context', 'away', '--server', service.url])
  t.match(run, { code: exitCodes.usage, err: /trust anchor data\/root\.pem/ })
  const trusted = await chancery(['audit', 'refusals', '--context', 'away', '--server', service.url, '--ca', root])
  t.match(trusted, { code: exitCodes.usage, err: /token data\/admin\.token cannot be read/ })
})

t.test('one that is removed is gone, with its token', async (t) => {
  await chancery(['context', 'use', 'kept'])
  t.same(await chancery(['context', 'remove', 'kept']), { code: 0, err: '', out: 'kept is forgotten.\n' })
  const text = await readFile(file(), 'utf8')
  t.notMatch(text, service.adminToken)
  t.equal(parse(text).current, undefined)
  t.match(await chancery(['audit', 'refusals']), { code: exitCodes.usage }, 'and no other one takes its place')
})

slowTest('of several commands at once none loses what another has written', async (t) => {
  const before = Object.keys(parse(await readFile(file(), 'utf8')).contexts)
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  const place = ['--server', 'https://127.0.0.1:1', '--ca', root, '--token-file', tokenFile]
  const runs = await Promise.all(names.map((name) => chancery(['context', 'add', name, ...place])))
  t.same(
    runs.map(({ code }) => code),
    names.map(() => 0),
  )
  t.same(Object.keys(parse(await readFile(file(), 'utf8')).contexts).sort(), [...before, ...names].sort())
  await Promise.all(names.map((name) => chancery(['context', 'remove', name])))
  t.same(Object.keys(parse(await readFile(file(), 'utf8')).contexts), before)
  t.same(await readdir(join(file(), '..')), ['config.yaml'])
})

t.test('one that is kept behind a link stays there', async (t) => {
  const elsewhere = join(home, 'dotfiles.yaml')
  await rename(file(), elsewhere)
  await symlink(elsewhere, file())
  t.equal((await chancery(['context', 'use', 'away'])).code, 0)
  t.equal(await readlink(file()), elsewhere)
  t.equal(parse(await readFile(elsewhere, 'utf8')).current, 'away')
  await rename(elsewhere, file())
})

t.test('a file of somebody else is not followed, nor a pipe waited for', async (t) => {
  if (process.geteuid?.() === 0) {
    // As by sudo, which may keep the home of who calls it. Nobody else could read it at all.
    await chown(file(), 65_534, 65_534)
    t.match(await chancery(['context', 'list']), { code: exitCodes.usage, err: /belongs to another user; set HOME/ })
    t.match(await chancery(['context', 'use', 'away']), { code: exitCodes.usage, err: /belongs to another user/ })
    t.equal((await stat(file())).uid, 65_534)
    await chown(file(), 0, 0)
  }
  // No home at all, as of accounts of services; and one whose folder cannot be entered, here for its links.
  t.match(await chancery(['context', 'list'], { env: { HOME: '/dev/null' } }), { code: 0, out: /^CURRENT/ })
  await symlink(join(home, 'loop'), join(home, 'loop'))
  t.match(await chancery(['context', 'list'], { env: { HOME: join(home, 'loop') } }), {
    code: exitCodes.usage,
    err: /context file \S+ cannot be read \(ELOOP\): set HOME, or XDG_CONFIG_HOME/,
  })
  const folder = join(home, 'strange', 'chancery')
  const env = { XDG_CONFIG_HOME: join(home, 'strange') }
  await mkdir(folder, { recursive: true })
  await promisify(execFile)('mkfifo', ['-m', '600', join(folder, 'config.yaml')])
  t.match(await chancery(['context', 'list'], { env }), { code: exitCodes.usage, err: /config\.yaml is no file/ })
  await rm(join(folder, 'config.yaml'))
  await writeFile(join(folder, 'config.yaml'), '', { mode: 0o600 })
  await truncate(join(folder, 'config.yaml'), 3_000_000_000)
  t.match(await chancery(['context', 'list'], { env }), { code: exitCodes.usage, err: /is longer than 4194304/ })
})

slowTest('a file that others can read, or that is something else, is refused', async (t) => {
  const good = await readFile(file(), 'utf8')
  for (const mode of [0o644, 0o640, 0o604]) {
    await chmod(file(), mode)
    t.match(await chancery(['context', 'list']), { code: exitCodes.usage, err: /can be read by others .*chmod 600/ })
  }
  await chmod(file(), 0o600)
  for (const [text, sentence] of [
    ['[]', /not a mapping/],
    ['{', /is no YAML, from line 1 on/],
    ['contexts:\n  a: { token: s3cret\n"s3cret"', /is no YAML, from line 3 on/],
    ['contexts: *s3cret', /is no YAML/],
    ['contexts: { a: { server: "http://x", ca: x } }', /the server of a is not like https/],
    ['contexts: { a: { server: https://u:p@x, ca: x } }', /the server of a is not like https/],
    ['users: []', /users is unknown/],
    ['current: 3', /current is no name/],
    ['contexts: { a: { ca: x } }', /a has no server/],
    ['contexts: { a: { server: https://x, ca: x, password: x } }', /password of a is unknown/],
  ] as const) {
    await writeFile(file(), text)
    const run = await chancery(['context', 'list'])
    t.equal(run.code, exitCodes.usage, text)
    t.match(run.err, sentence)
    t.notMatch(run.err, 's3cret', 'and shows nothing of it')
  }
  await writeFile(file(), good)
  t.equal((await chancery(['context', 'list'])).code, 0)
  const elsewhere = await chancery(['context', 'list'], { env: { XDG_CONFIG_HOME: join(home, 'xdg') } })
  t.equal(elsewhere.out, 'CURRENT  NAME  SERVER  TOKEN\n')
  const homeless = await chancery(login('--token-file', tokenFile), { env: { HOME: '' } })
  t.match(homeless, { code: exitCodes.usage, err: /set HOME/ })
})
