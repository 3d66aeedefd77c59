/** What can be known about the image and docker-compose.yml without a container engine. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { text as textOf } from 'node:stream/consumers'

import t, { type Test } from 'tap'
import { parse } from 'yaml'

import { loadConfig } from '../../src/config/config.ts'
import { decideAccount, runAs } from '../../src/db/embedded/account.ts'
import { findBinaries } from '../../src/db/embedded/binaries.ts'
import { pkcs11Binary } from '../../tools/pkcs11.mjs'
import { embeddedFolder } from '../helpers/embedded.ts'
import { quiet } from '../helpers/log.ts'

const home = join(import.meta.dirname, '../..')
/** tap loads modules of its own into every Node below it, by NODE_OPTIONS: tsc does not survive them, and an image has none. */
const plainly = ['-u', 'NODE_OPTIONS']

const isRoot = process.geteuid?.() === 0
/** As in the Dockerfile, where we may become it and it can reach this tree (not in a folder that only root enters). */
const stranger = { uid: 10001, gid: 10001 }
const identity: { readonly uid?: number; readonly gid?: number } =
  isRoot && spawnSync('ls', [home], stranger).status === 0 ? stranger : {}

interface Container {
  readonly environment?: Readonly<Record<string, string>>
  readonly secrets?: readonly string[]
  readonly command?: readonly string[]
  readonly [key: string]: unknown
}

const compose = parse(await readFile(join(home, 'docker-compose.yml'), 'utf8')) as {
  readonly services: Readonly<Record<'postgres' | 'migrate' | 'token' | 'chancery', Container>>
  readonly secrets: Readonly<Record<string, { readonly file: string }>>
}
const dockerfile = await readFile(join(home, 'Dockerfile'), 'utf8')

/** The last instruction of that name that says so, with its continued lines joined. */
const instruction = (name: string, saying = ''): string => {
  const lines = dockerfile.replaceAll('\\\n', ' ').split('\n')
  return (lines.findLast((line) => line.startsWith(`${name} `) && line.includes(saying)) ?? '').slice(name.length + 1)
}

/** What builds the folder of what Node has compiled, in the tree at `app`; whoever is not root can only make its own. */
const compiling = (app: string): string => {
  const asRoot = instruction('RUN', '$NODE_COMPILE_CACHE').replaceAll('/app', app)
  return identity.uid === undefined
    ? asRoot.replace(/ -o 10001|setpriv .+?--clear-groups|chown -R root:root .+? &&/g, '')
    : asRoot
}

const imageEnv = Object.fromEntries(
  instruction('ENV')
    .split(/\s+/)
    .map((pair) => pair.split('=', 2) as [string, string]),
)

/** The settings of a service as its container would see them, with the secrets where they are here. */
const settingsOf = async (
  test: Test,
  { environment = {}, secrets = [] }: Container,
): Promise<Record<string, string>> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-compose-'))
  test.teardown(() => rm(folder, { recursive: true }))
  const env: Record<string, string> = { ...imageEnv, ...environment }
  for (const [name, value] of Object.entries(env)) {
    const secret = /^\/run\/secrets\/(.+)$/.exec(value)?.[1]
    if (secret === undefined) continue
    test.ok(secrets.includes(secret) && compose.secrets[secret], `${name}: the secret ${secret} is given to it`)
    const path = join(folder, secret)
    const user = secret === 'owner-url' ? 'chancery_owner' : 'chancery'
    const text = secret.endsWith('-url') ? `postgresql://${user}:pw@postgres:5432/chancery` : '1234'
    await writeFile(path, `${text}\n`, { mode: 0o400 })
    env[name] = path
  }
  return env
}

t.test('compose’s settings are settings, and the service never sees the owner’s password', async (t) => {
  const serving = await loadConfig(await settingsOf(t, compose.services.chancery))
  t.match(serving, { dataDir: '/data', listen: { host: '0.0.0.0', port: 8443 }, publicListen: { port: 8080 } })
  t.equal(serving.database.migrationUrl, serving.database.url, 'the owner is not known to it')
  t.notMatch(compose.services.chancery.secrets, ['owner-url'])
  const migrating = await loadConfig(await settingsOf(t, compose.services.migrate))
  t.match(migrating.database, { url: /chancery:/, migrationUrl: /chancery_owner:/ })
  t.strictSame(compose.services.migrate.command, ['migrate'])
})

t.test('compose’s settings would do for production, with the conveniences named', async (t) => {
  const env = await settingsOf(t, compose.services.chancery)
  const production = { ...env, CHANCERY_MODE: 'production', CHANCERY_PUBLIC_URL: 'http://pki.example.com' }
  await t.rejects(loadConfig(production), {
    message: /^One setting stops the start:\n.*CHANCERY_DEVELOPMENT_TOKEN/,
  })
})

t.test('each container has a read-only root, no capabilities to spare, and cannot gain any', async (t) => {
  for (const [name, service] of Object.entries(compose.services)) {
    t.match(
      service,
      { read_only: true, cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'], tmpfs: [/^\/tmp:size=\d+m$/] },
      name,
    )
    t.match(service['logging'], { options: { 'max-size': /^\d+m$/ } }, `${name}: what it says is not kept without end`)
    const kept = [...(service['tmpfs'] as string[]), ...((service['volumes'] as string[]) ?? [])]
    const volume = name === 'postgres' ? /:?\/var\/lib\/postgresql$/ : /^\/data:|:\/data$/
    t.ok(
      kept.some((place) => volume.test(place)),
      `${name}: no volume without a name is left behind`,
    )
    if (name !== 'postgres') t.notOk('cap_add' in service || 'user' in service || 'privileged' in service, name)
  }
  t.match(compose.services.chancery['ports'], [/^127\.0\.0\.1:/, /^127\.0\.0\.1:/], 'published on loopback only')
})

t.test('PostgreSQL makes its folder with what compose and the trial of Kubernetes tell initdb', async (t) => {
  const trial = await readFile(join(home, 'deploy/kubernetes/overlays/trial/postgres.yaml'), 'utf8')
  const told = compose.services.postgres.environment?.['POSTGRES_INITDB_ARGS'] ?? ''
  t.match(trial, `value: ${told},\n`)
  const own = await mkdtemp(join(tmpdir(), 'chancery-initdb-'))
  t.teardown(() => rm(own, { recursive: true }))
  const account = await decideAccount(own, await findBinaries(), quiet)
  const folder = account.elsewhere ?? own
  if (folder !== own) t.teardown(() => rm(folder, { recursive: true }))
  await writeFile(join(folder, 'password'), 'of the superuser\n')
  const places = [`--pgdata=${join(folder, 'cluster')}`, `--pwfile=${join(folder, 'password')}`]
  const command = [account.binaries.initdb, '--username=postgres', '--no-sync', ...places, ...told.split(' ')]
  t.match(await runAs(account, command), /builtin\n.*C\.UTF-8.*Success/s)
})

t.test('secrets are made once, in a folder that only we can enter', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-secrets-'))
  t.teardown(() => rm(folder, { recursive: true }))
  await cp(join(home, 'deploy/make-secrets.sh'), join(folder, 'make-secrets.sh'))
  execFileSync(join(folder, 'make-secrets.sh'))
  t.equal((await stat(join(folder, 'secrets'))).mode & 0o777, 0o700)
  for (const { file } of Object.values(compose.secrets)) {
    const path = join(folder, file.replace(/^deploy\//, ''))
    const text = await readFile(path, 'utf8')
    t.match(
      text,
      file.endsWith('-url')
        ? /^postgresql:\/\/chancery\w*:[0-9a-f]{48}@postgres:5432\/chancery\n$/
        : /^([0-9a-f]{32}){1,2}\n$|^[0-9a-f]{48}\n$/,
    )
    if (file.endsWith('-url')) {
      const [, password] =
        /password\(\) \{ (.*)"\/run/.exec(await readFile(join(home, 'deploy/postgres/roles.sh'), 'utf8')) ?? []
      const found = execFileSync('sh', ['-c', `${password} "${path}"`], { encoding: 'utf8' }).trim()
      t.match(found, /^[0-9a-f]{48}$/, 'the script that makes the roles finds the password')
    }
  }
  t.equal(execFileSync(join(folder, 'make-secrets.sh'), { encoding: 'utf8' }), '', 'and what is there stays')
})

t.test('the token is made once, and its PINs stand in no argument', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-token-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const { environment = {}, volumes } = compose.services.token
  t.match(volumes, ['keys:/data', './deploy/softhsm:/etc/softhsm:ro'])
  t.match(environment, { CHANCERY_PKCS11_PIN_FILE: '/run/secrets/token-pin', SO_PIN_FILE: '/run/secrets/token-so-pin' })
  const conf = await readFile(join(home, 'deploy/softhsm/softhsm2.conf'), 'utf8')
  t.match(conf, 'directories.tokendir = /data/tokens')
  await writeFile(join(folder, 'conf'), conf.replace('/data/tokens', join(folder, 'tokens')))
  for (const name of ['pin', 'so-pin']) await writeFile(join(folder, name), `${name}-4711\n`)
  const env = {
    PATH: process.env['PATH'],
    CHANCERY_PKCS11_MODULE: environment['CHANCERY_PKCS11_MODULE'],
    CHANCERY_PKCS11_PIN_FILE: join(folder, 'pin'),
    SO_PIN_FILE: join(folder, 'so-pin'),
    SOFTHSM2_CONF: join(folder, 'conf'),
  }
  const script = join(home, 'deploy/softhsm/make-token.sh')
  const tool = (...args: readonly string[]) =>
    execFileSync('pkcs11-tool', ['--module', `${env.CHANCERY_PKCS11_MODULE}`, ...args], {
      env: { ...env, PIN: 'pin-4711', SO_PIN: 'so-pin-4711' },
      stdio: 'pipe',
      encoding: 'utf8',
    })
  const initialise = ['--slot-index', '0', '--init-token', '--so-pin', 'env:SO_PIN']
  await mkdir(join(folder, 'tokens'))
  tool(...initialise, '--label', 'older')
  // Wherever SoftHSM puts the new one, one of these may come before it.
  for (const index of ['1', '2', '3'])
    tool('--slot-index', index, '--init-token', '--so-pin', 'env:PIN', '--label', `chancery of ${index}`)
  for (const time of ['made', 'found'])
    execFileSync('sh', ['-eu', script], { env, stdio: 'pipe', encoding: 'utf8' }) || time
  t.match(tool('--list-token-slots'), /token label *: older\n/, 'and one that was there before is left alone')
  const listed = tool('--list-token-slots').split(/^Slot /m)
  const [ours = '', second] = listed.filter((slot) => /token label *: chancery\n/.test(slot))
  t.equal(second, undefined)
  t.match(ours, /PIN initialized/)
  for (const slot of listed.filter((slot) => /label *: chancery of/.test(slot))) t.notMatch(slot, /PIN init|SO PIN/)
  t.match(
    tool(
      '--slot-index',
      `${Number.parseInt(ours, 10)}`,
      '--login',
      '--pin',
      'env:PIN',
      '--keypairgen',
      '--key-type',
      'EC:prime256v1',
    ),
    /Key pair generated/,
  )
  await rm(join(folder, 'tokens'), { recursive: true })
  await mkdir(join(folder, 'tokens'))
  tool(...initialise, '--label', 'chancery')
  execFileSync('sh', ['-eu', script], { env, stdio: 'pipe' })
  t.match(tool('--list-token-slots'), /PIN initialized/, 'also after a run that stopped before the PIN')
  t.notMatch(await readFile(script, 'utf8'), /--(so-|new-)?pin (?!env:)/)
  t.notMatch(await readFile(script, 'utf8'), /--token-label/, 'since pkcs11-tool looks at how a label begins')
})

t.test('the image has only what the Dockerfile names, and runs as nobody in particular', async (t) => {
  const ignored = (await readFile(join(home, '.dockerignore'), 'utf8')).split('\n').filter((line) => /^[*!]/.test(line))
  t.equal(ignored.shift(), '*')
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, names = '']) => names.split(' '))
  t.strictSame([...new Set(copied)].sort(), ignored.map((line) => line.slice(1)).sort())
  t.equal(instruction('USER'), '10001:10001')
})

const linux = process.platform === 'linux'
t.test(
  'a bare Debian and what the image installs bring every library that Node and pkcs11js are linked with',
  { skip: linux ? false : 'what runs here is linked with none of them' },
  (t) => {
    const [, base = ''] = /^FROM \S+ AS base$(.*?)^FROM /ms.exec(dockerfile) ?? []
    const installed = /apt-get install -y --no-install-recommends (.+?) &&/.exec(base)?.[1]?.split(' ') ?? []
    const bare = /^(ld-linux-.+|lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+))\.so\.\d+$/
    for (const program of [process.execPath, pkcs11Binary]) {
      const said = execFileSync('readelf', ['--dynamic', program], { encoding: 'utf8' })
      const needed = [...said.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name = '']) => name)
      t.ok(needed.includes('libc.so.6'), program)
      // Debian calls a package as its library and that one's version: libatomic.so.1 is in libatomic1.
      const beyond = needed.filter((name) => !bare.test(name)).map((name) => name.replace('.so.', ''))
      t.strictSame(
        beyond.filter((name) => !installed.includes(name)),
        [],
        program,
      )
    }
    t.end()
  },
)

t.test('a build fetches no image but those that stages begin with, which can be pinned', (t) => {
  t.notMatch(dockerfile, /^# *syntax *=/im, 'a frontend would be one more, and run the build')
  t.end()
})

t.test(
  'the image’s start command serves from a read-only tree, as a uid that no account has',
  { timeout: 120_000 },
  async (t) => {
    const data = await embeddedFolder(t)
    const folder = dirname(data)
    // Whoever is not root takes nothing out of folders that are read-only.
    t.teardown(async () => execFileSync('chmod', ['-R', 'u+w', folder]))
    const app = join(folder, 'app')
    await mkdir(app)
    await mkdir(data, { mode: 0o700 })
    const build = [...plainly, process.execPath, join(home, 'tools/build.ts'), join(app, 'dist')]
    const built = spawnSync('env', build, { encoding: 'utf8' })
    t.equal(built.status, 0, built.stdout + built.stderr)
    for (const name of ['package.json', 'migrations']) await cp(join(home, name), join(app, name), { recursive: true })
    await symlink(join(home, 'node_modules'), join(app, 'node_modules'))
    await chmod(folder, 0o755)
    const compiled = join(app, 'compiled')
    execFileSync('env', [...plainly, 'sh', '-euc', compiling(app)], {
      cwd: app,
      env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: compiled },
    })
    if (identity.uid !== undefined)
      t.equal(`${execFileSync('find', [compiled, '!', '-user', 'root'])}`, '', 'what is compiled is code, and root’s')
    execFileSync('chmod', ['-R', 'a-w,a+rX', app])
    if (identity.uid !== undefined) await chown(data, stranger.uid, stranger.gid)
    const told = join(data, 'told')
    execFileSync('mkfifo', ['-m', '666', `${told}.end`])
    const helper = `#!/bin/sh\necho "$@" >> '${told}'; : > '${told}.end'\n`
    await writeFile(join(folder, 'systemd-notify'), helper, { mode: 0o755 })

    const [program = '', ...args] = (JSON.parse(instruction('ENTRYPOINT')) as string[]).map((arg) =>
      arg.replace('/app', app),
    )
    const env = {
      PATH: `${folder}:/usr/bin:/bin`,
      NOTIFY_SOCKET: join(folder, 'nobody'),
      ...imageEnv,
      NODE_COMPILE_CACHE: compiled,
      CHANCERY_DATA: data,
      CHANCERY_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    }
    const start = (more: readonly string[], debug = ''): ChildProcess =>
      spawn('env', [...plainly, program, ...args, ...more], {
        cwd: app,
        env: { ...env, NODE_DEBUG_NATIVE: debug },
        ...identity,
        stdio: ['ignore', 'pipe', 'pipe'],
      })

    const help = start(['--help'], 'COMPILE_CACHE')
    const debugged = textOf(help.stderr ?? Readable.from([]))
    t.equal((await once(help, 'exit'))[0], 0)
    const reads = (await debugged).split('\n').filter((line) => line.includes('reading cache'))
    t.ok(
      reads.some((line) => line.includes('dist/main.js')) && reads.every((line) => /success/.test(line)),
      'and compiles nothing',
    )

    const command = instruction('RUN', '/usr/local/bin/chancery').replaceAll('/app', app)
    execFileSync('sh', ['-euc', command.replaceAll('/usr/local/bin', folder)])
    const version = execFileSync('env', [...plainly, 'chancery', '--version'], { env, ...identity, encoding: 'utf8' })
    t.match(version, /\d\.\d/, 'what is run in a container beside the service finds it by its name')

    const service = start(JSON.parse(instruction('CMD')) as string[])
    t.teardown(() => service.kill('SIGKILL'))
    let said = ''
    const port = await new Promise<string>((resolve, reject) => {
      for (const stream of [service.stdout, service.stderr]) {
        stream?.on('data', (chunk: Buffer) => {
          said += chunk
          const found = /serves at https:\/\/[^:]+:(\d+)/.exec(said)?.[1]
          if (found !== undefined) resolve(found)
        })
      }
      service.once('exit', () => reject(new Error(said)))
    })
    const ca = await readFile(join(data, 'root.pem'))
    const status = await new Promise((resolve, reject) => {
      get({ host: 'localhost', port, path: '/livez', ca }, (answer) => resolve(answer.statusCode)).on('error', reject)
    })
    t.equal(status, 200)

    const [, probe = ''] = /"-e", "(.+)"\]$/.exec(instruction('HEALTHCHECK')) ?? []
    const check = (at: string): number | null =>
      spawnSync('env', [...plainly, program, '-e', probe.replace('8443', at)], {
        env: { PATH: '/usr/bin:/bin' },
        ...identity,
      }).status
    t.equal(check(port), 0, 'the health check passes')
    // Else the helper could be ended by the stop.
    await readFile(`${told}.end`)
    service.kill('SIGTERM')
    t.equal((await once(service, 'exit'))[0], 0, 'and it stops as it is told')
    t.equal(check(port), 1, 'then the health check fails')
    t.equal(await readFile(told, 'utf8'), '--ready\n', 'it has told whoever asked that it answers, once')
  },
)
