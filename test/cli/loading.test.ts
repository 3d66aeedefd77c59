/** What a command waits for before it does anything: its own files and commander, and nothing that most never need. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { Command } from 'commander'
import t, { type Test } from 'tap'

import { commands } from '../../src/main.ts'
import { bare } from '../helpers/environment.ts'

const main = join(import.meta.dirname, '../../src/main.ts')
const config = join(import.meta.dirname, '../../src/config/config.ts')
const serve = join(import.meta.dirname, '../../src/cli/serve.ts')

const hookOf = async (t: Test, text: string): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-loading-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const hook = join(folder, 'hook.mjs')
  await writeFile(hook, text)
  return hook
}

/** On stderr, at the end: what the first group of the pattern finds in the names of files that were loaded. */
const tells = (form: string): string => `
  import { registerHooks } from 'node:module'
  const found = new Set()
  registerHooks({
    load(url, context, next) {
      const name = ${form}.exec(url)?.[1]
      if (name !== undefined) found.add(name)
      return next(url, context)
    },
  })
  process.on('exit', () => process.stderr.write(JSON.stringify([...found])))
`
const tellsPackages = tells(String.raw`/.*node_modules\/((?:@[^/]+\/)?[^/]+)/`)
const tellsJose = tells(String.raw`/node_modules\/jose\/dist\/webapi\/(.+)$/`)
const tellsCommands = tells(String.raw`/src\/cli\/([^/]+)$/`)

t.test('a command loads no library but commander before it knows what is asked', async (t) => {
  const hook = await hookOf(t, tellsPackages)
  for (const args of [['--version'], ['issue', '--help'], ['profile', 'apply', '--help']]) {
    const { stderr } = await promisify(execFile)(process.execPath, ['--import', hook, main, ...args], { env: bare })
    t.same(JSON.parse(stderr), ['commander'], args.join(' '))
  }
})

t.test('of each kind of command, the table of them names the verbs that it adds', async (t) => {
  for (const { verbs, add } of commands) {
    const program = new Command()
    await add(program)
    t.same(
      program.commands.map((command) => command.name()),
      Object.keys(verbs),
    )
  }
})

t.test('each command and option says what it is for', async (t) => {
  const program = new Command()
  for (const { add } of commands) await add(program)
  const told: string[] = []
  const tell = (command: Command, path: string): void => {
    for (const each of command.commands) tell(each, `${path} ${each.name()}`)
    for (const { description, flags } of command.options) told.push(`${path} ${flags}: ${description}`)
    told.push(`${path}: ${command.description()}`)
  }
  for (const command of program.commands) tell(command, command.name())
  t.ok(told.length > 400, `${told.length}`)
  t.same(
    told.filter((line) => line.endsWith(': ')),
    [],
  )
})

t.test('a command loads the files of no other', async (t) => {
  const { stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', await hookOf(t, tellsCommands), main, 'audit', '--help'],
    { env: bare },
  )
  const files: readonly string[] = JSON.parse(stderr)
  t.ok(files.includes('audit.ts'))
  for (const other of ['issue.ts', 'crl.ts', 'log.ts', 'profile.ts']) t.notOk(files.includes(other), other)
})

t.test('settings of the environment alone are read without a library: each signer process waits for it', async (t) => {
  const hook = await hookOf(t, tellsPackages)
  const script = `
    import { loadConfig } from ${JSON.stringify(config)}
    process.exitCode = (await loadConfig({ CHANCERY_DATA: '/nowhere' }, 'sign')).dataDir === '/nowhere' ? 0 : 1`
  const args = ['--import', hook, '--input-type=module', '--eval', script]
  const { stderr } = await promisify(execFile)(process.execPath, args, { env: bare })
  t.same(JSON.parse(stderr), [])
})

/** What V8 compares before it takes what was compiled before: of its version and nearly all flags. */
const tagWith = async (flags: readonly string[]): Promise<string> =>
  (await promisify(execFile)(process.execPath, [...flags, '-p', 'v8.cachedDataVersionTag()'], { env: bare })).stdout

t.test('no flag that we are started with makes worthless what Node has compiled of itself', async (t) => {
  const flags = async (file: string, list: RegExp): Promise<readonly string[]> => {
    const text = await readFile(join(import.meta.dirname, '../..', file), 'utf8')
    return [...(list.exec(text)?.[0] ?? '').matchAll(/--[\w=-]+/g)].map(([flag]) => flag)
  }
  const plain = await tagWith([])
  for (const [file, list] of [
    ['tools/setup.mjs', /^const flags = .+$/m],
    ['src/keys/signer/process.ts', /^const flags = .+$/m],
    ['tools/bundle.ts', /^exec .+$/m],
    ['Dockerfile', /^ENTRYPOINT .+$/m],
  ] as const) {
    const found = await flags(file, list)
    // By SIGUSR1 Node would open its debugger to everybody on the machine, in the process with the keys as well.
    for (const flag of ['--disable-proto=delete', '--disable-sigusr1']) t.ok(found.includes(flag), `${file}: ${flag}`)
    t.equal(await tagWith(found), plain, `${file}: ${found.join(' ')}`)
  }
  t.not(await tagWith(['--heap-growing-percent=100']), plain, 'others do')
})

t.test(
  'of jose the service loads what it verifies by, and not the three quarters that encrypt, export and fetch',
  async (t) => {
    const args = [
      '--import',
      await hookOf(t, tellsJose),
      '--input-type=module',
      '--eval',
      `import ${JSON.stringify(serve)}`,
    ]
    const { stderr } = await promisify(execFile)(process.execPath, args, { env: bare })
    const files: readonly string[] = JSON.parse(stderr)
    for (const needed of ['jws/compact/verify.js', 'jwks/local.js']) t.ok(files.includes(needed), needed)
    for (const file of files) t.notMatch(file, /^(index|jw[et]\/.*|jwks\/remote|key\/export)\.js$/, file)
  },
)
