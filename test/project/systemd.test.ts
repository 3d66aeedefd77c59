/** What can be known about the units of deploy/systemd without systemd: that they, the settings and docs/systemd.md say the same. */
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'
import { parse } from 'yaml'

import { readOrders } from '../../src/client/issue/orders.ts'
import { loadConfig } from '../../src/config/config.ts'
import { socketsFor } from '../../src/server/open-files.ts'
import { quiet } from '../helpers/log.ts'

const home = join(import.meta.dirname, '../..')
const folder = join(home, 'deploy/systemd')
const page = await readFile(join(home, 'docs/systemd.md'), 'utf8')

/** The values of each directive, in their order; an empty one takes back those before it. */
type Unit = ReadonlyMap<string, readonly string[]>

const unitOf = (text: string): Unit => {
  const found = new Map<string, string[]>()
  for (const line of text.split('\n').filter((line) => /^[A-Z]\w*=/.test(line))) {
    const [, name = '', value = ''] = /^(\w+)=(.*)$/.exec(line) ?? []
    found.set(name, [...(found.get(name) ?? []), value])
  }
  return found
}

const readUnit = async (name: string): Promise<Unit> => unitOf(await readFile(join(folder, name), 'utf8'))
const units = {
  service: await readUnit('chancery.service'),
  migrate: await readUnit('chancery-migrate.service'),
  timer: await readUnit('chancery-migrate.timer'),
  certificates: await readUnit('chancery-certificates.service'),
}
const one = (unit: Unit, name: string): string => {
  const [value = '', ...others] = unit.get(name) ?? []
  if (others.length > 0) throw new Error(`${name} is there more than once`)
  return value
}

/** `Environment=`, and what stands in front of a command, with the credentials where they are here. */
const environmentOf = (unit: Unit, credentials: string): Record<string, string> => {
  const [, own = ''] = /^\/usr\/bin\/env (\S+=.*) \S+ \S+$/.exec(one(unit, 'ExecStart')) ?? []
  return Object.fromEntries(
    [...(unit.get('Environment') ?? []), own]
      .flatMap((line) => line.split(' '))
      .filter((pair) => pair !== '')
      .map((pair) => pair.replace('%d', credentials).split(/=(.*)/s, 2) as [string, string]),
  )
}

/** What comes of a file of settings by a shell that reads it, as the page does. */
const byShell = (path: string): Record<string, string> => {
  const lines = execFileSync('env', ['-i', '/bin/sh', '-ceu', `set -a; . '${path}'; /usr/bin/env`], {
    encoding: 'utf8',
  })
  return Object.fromEntries(
    lines
      .split('\n')
      .map((line) => line.split(/=(.*)/s, 2) as [string, string])
      .filter(([name]) => /^(CHANCERY|SOFTHSM2)_/.test(name)),
  )
}

/** And by systemd: an assignment a line, quotes taken away, nothing else looked at. */
const bySystemd = (text: string): Record<string, string> =>
  Object.fromEntries(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(/=(.*)/s, 2) as [string, string])
      .map(([name, value]) => [name, value.replace(/^'(.*)'$/, '$1')]),
  )

const folderWith = async (t: Test, files: Readonly<Record<string, string>>): Promise<string> => {
  const made = await mkdtemp(join(tmpdir(), 'chancery-systemd-'))
  t.teardown(() => rm(made, { recursive: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(made, name), `${text}\n`, { mode: 0o600 })
  return made
}

const urls = {
  'database-url': 'postgresql://chancery:pw@db.example.com/chancery?sslmode=verify-full',
  'migration-url': 'postgresql://chancery_owner:pw@db.example.com/chancery?sslmode=verify-full',
}

t.test('systemd and a shell read the same in the file of settings, and production takes it', async (t) => {
  const path = join(folder, 'chancery.env')
  const env = bySystemd(await readFile(path, 'utf8'))
  t.strictSame(byShell(path), env)
  const secrets = await folderWith(t, { 'database-url': urls['database-url'], pin: '1234' })
  const here = Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, value.replace(/^\/etc\/chancery/, secrets)]),
  )
  const config = await loadConfig(here)
  t.match(config, { mode: 'production', dataDir: `/var/lib/${one(units.service, 'StateDirectory')}` })
  t.equal(config.database.migrationUrl, undefined, 'the owner is not known to it')
  t.equal(one(units.service, 'WorkingDirectory'), `%S/${one(units.service, 'StateDirectory')}`)
  t.equal(one(units.service, 'EnvironmentFile'), '/etc/chancery/chancery.env')
  t.equal(socketsFor({ ...config.limits, ...config.database }, quiet, Number(one(units.service, 'LimitNOFILE'))), 4096)
})

t.test(
  'the owner’s URL is for `migrate` alone, which has an account of its own and nothing but the database',
  async (t) => {
    const credentials = await folderWith(t, urls)
    const settings = bySystemd(
      `${await readFile(join(folder, 'chancery.env'), 'utf8')}CHANCERY_RETENTION_ACCESSES=3650d`,
    )
    // As systemd has it: the file outweighs `Environment=`, and the command both. The PIN is for another account.
    const env = { ...settings, ...environmentOf(units.migrate, credentials) }
    const config = await loadConfig(env, 'migrate')
    t.match(config, { mode: 'production', database: { url: /chancery:/, migrationUrl: /chancery_owner:/ } })
    t.equal(config.retention.accessesDays, 3650, 'what it drops is what the settings of the service say')
    t.equal(one(units.migrate, 'EnvironmentFile'), one(units.service, 'EnvironmentFile'))
    t.notOk(units.migrate.has('Environment'))
    t.strictSame(
      units.migrate.get('LoadCredential'),
      Object.keys(urls).map((name) => `${name}:/etc/chancery/${name}`),
    )
    t.strictSame([one(units.migrate, 'DynamicUser'), units.migrate.has('User')], ['yes', false])
    for (const name of ['chancery.service', 'chancery.env', 'chancery-certificates.service'])
      t.notMatch(await readFile(join(folder, name), 'utf8'), /migration.url/i, name)
    t.match(page, /^install -m 0600 \/dev\/null \/etc\/chancery\/migration-url$/m, 'only root reads it')
    t.equal(one(units.timer, 'Persistent'), 'yes')
  },
)

t.test(
  'the service is told to end as it ends: by one signal to itself, and with time for what it does then',
  async (t) => {
    const stop = await readFile(join(home, 'src/cli/stop.ts'), 'utf8')
    const within = Number(/^const stopWithinMs = (\d+)_000$/m.exec(stop)?.[1])
    const grace = Number(one(units.service, 'TimeoutStopSec'))
    t.ok(grace > within, `${grace} s, and it takes up to ${within}`)
    const compose = parse(await readFile(join(home, 'docker-compose.yml'), 'utf8'))
    t.equal(`${grace}s`, compose.services.chancery.stop_grace_period)
    const says = Object.fromEntries(
      ['Type', 'NotifyAccess', 'KillMode', 'Restart'].map((name) => [name, one(units.service, name)]),
    )
    t.strictSame(says, { Type: 'notify', NotifyAccess: 'all', KillMode: 'mixed', Restart: 'always' })
    t.equal(one(units.service, 'StartLimitIntervalSec'), '0', 'and a database that comes late is waited for')
  },
)

t.test('units run what the archive has where the page unpacks it, and the archives have the units', async (t) => {
  t.strictSame(one(units.service, 'ExecStart'), '/opt/chancery/chancery serve')
  t.match(one(units.migrate, 'ExecStart'), / \/opt\/chancery\/chancery migrate$/)
  t.match(page, /^ln -sfn chancery-\d\S+ \/opt\/chancery$/m)
  const bundle = await readFile(join(home, 'tools/bundle.ts'), 'utf8')
  t.match(bundle, /for \(const name of \[.*'docs', 'deploy\/systemd'\]\)/)
  t.match(bundle, /join\(folder, 'chancery'\), launcher/)
  const { files, version } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'))
  t.ok(files.includes('deploy/systemd'))
  t.match(page, `chancery-${version}-linux-x64`)
  for (const unit of Object.values(units))
    for (const place of unit.get('Documentation') ?? [])
      await readFile(place.replace('file:///opt/chancery', home)).then(
        () => t.pass(place),
        () => t.fail(`${place} is not in the archive`),
      )
})

t.test('what serves has no right to spare, cannot gain any, and may write in one folder', async (t) => {
  for (const [name, unit] of Object.entries({ service: units.service, migrate: units.migrate })) {
    const yes = [
      ...[
        'ProtectHome',
        'PrivateDevices',
        'ProtectClock',
        'ProtectHostname',
        'ProtectControlGroups',
        'ProtectKernelLogs',
      ],
      ...['ProtectKernelModules', 'ProtectKernelTunables', 'RestrictNamespaces', 'RestrictRealtime', 'LockPersonality'],
      // Those that DynamicUser brings along.
      ...(unit.has('DynamicUser') ? [] : ['NoNewPrivileges', 'PrivateTmp', 'RestrictSUIDSGID', 'RemoveIPC']),
    ]
    for (const directive of yes) t.equal(one(unit, directive), 'yes', `${name}: ${directive}`)
    t.strictSame(unit.get('CapabilityBoundingSet'), [''], name)
    t.strictSame(unit.get('SystemCallFilter'), ['@system-service', '~@privileged @resources'], name)
    t.equal(one(unit, 'UMask'), '0077', name)
    t.notOk(unit.has('MemoryDenyWriteExecute') || unit.has('ReadWritePaths'), `${name}: V8 compiles what it runs`)
  }
  t.equal(one(units.service, 'ProtectSystem'), 'strict')
  t.equal(one(units.service, 'User'), 'chancery')
  t.equal(one(units.service, 'StateDirectoryMode'), '0700', 'production refuses a data folder that others may enter')
  t.equal(one(units.service, 'LogRateLimitIntervalSec'), '0', 'a request is a line, and none is dropped')
})

t.test('certificates lie where the unit of a client may write, under the names that the page has', async (t) => {
  const unit = units.certificates
  t.equal(one(unit, 'WorkingDirectory'), `%S/${one(unit, 'StateDirectory')}`)
  t.equal(one(unit, 'ExecStart'), 'chancery issue --orders /etc/chancery/certificates.yaml --daemon')
  const client = await readFile(join(home, 'docs/client.md'), 'utf8')
  const [, orders = ''] = /`\/etc\/chancery\/token` \(0600\):\n\n```yaml\n([\s\S]*?)```/.exec(client) ?? []
  const made = await folderWith(t, { 'orders.yaml': orders })
  t.equal((await readOrders(join(made, 'orders.yaml'))).length, 2)
  t.match(orders, `# /var/lib/${one(unit, 'StateDirectory')}/web`)
  t.strictSame(Object.keys(environmentOf(unit, made)), ['CHANCERY_URL', 'CHANCERY_CACERT', 'CHANCERY_TOKEN_FILE'])
  for (const path of Object.values(environmentOf(unit, made)).slice(1)) t.match(client, `\`${path}\``)
})

t.test('the pages tell of each file, and who may read which secret', async (t) => {
  const pages = `${page}${await readFile(join(home, 'docs/client.md'), 'utf8')}`
  for (const name of await readdir(folder)) {
    const together = name.replace(/\.\w+$/, '.*')
    t.ok(
      [name, together].some((said) => pages.includes(`deploy/systemd/${said}`)),
      name,
    )
  }
  const secrets = [...page.matchAll(/^install -m (\d+) (-g \w+ )?\/dev\/null \/etc\/chancery\/(\S+)$/gm)]
  t.strictSame(
    secrets.map(([, mode, group = 'root', name]) => [name, mode, group.trim()]),
    [
      ['database-url', '0640', '-g chancery'],
      ['pin', '0640', '-g chancery'],
      ['migration-url', '0600', 'root'],
    ],
  )
  for (const [, drop = ''] of page.matchAll(/```ini\n([\s\S]*?)```/g)) t.match(drop, /^\[Service\]\n[A-Z]/m)
})
