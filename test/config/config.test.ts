import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { runMigrate } from '../../src/cli/migrate.ts'
import { loadConfig } from '../../src/config/config.ts'
import { renewedUrl } from '../../src/config/postgres-url.ts'
import { settings } from '../../src/config/settings.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { renderConfiguration } from '../../tools/configuration.ts'
import { quiet } from '../helpers/log.ts'
import { newSigner } from '../tlog/hashing.ts'

const fileOf = async (test: Test, content: string, mode = 0o600): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-config-'))
  test.teardown(() => rm(folder, { recursive: true }))
  const path = join(folder, 'file')
  await writeFile(path, content)
  await chmod(path, mode)
  return path
}

const messageOf = async (env: Record<string, string>): Promise<string> =>
  loadConfig(env).then(
    () => '',
    (error: Error) => error.message,
  )

const production = {
  CHANCERY_MODE: 'production',
  CHANCERY_DATABASE_URL: 'postgresql://chancery:pw@db/chancery?sslmode=verify-full',
  CHANCERY_PUBLIC_URL: 'http://pki.example.com',
  CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
  CHANCERY_KEY_PASSPHRASE: 'a long and private one',
}

t.test('without any setting, development works', async (t) => {
  const config = await loadConfig({ PATH: '/bin', HOME: '/' })
  t.strictSame(config, {
    mode: 'development',
    dataDir: 'data',
    listen: { host: '127.0.0.1', port: 8443 },
    names: [
      { kind: 'dns', value: 'localhost' },
      { kind: 'ip', value: '127.0.0.1' },
      { kind: 'ip', value: '::1' },
    ],
    clients: { authorities: [], renewal: true },
    publicListen: { host: '127.0.0.1', port: 8080 },
    publicUrl: 'http://127.0.0.1:8080',
    database: { poolSize: 14, preparedStatements: true },
    crl: { periodMs: 43_200_000, validityMs: 259_200_000 },
    ocsp: { validityMs: 14_400_000, echoNonces: true },
    keys: {
      hasPassphrase: false,
      allowSoftware: false,
      signer: 'process',
      environment: { PATH: '/bin', HOME: '/' },
      pkcs11: { modules: [], sessions: 8 },
      blocked: {},
    },
    limits: {
      queue: 512,
      connections: 4_096,
      requestDeadlineMs: 5_000,
      signingDeadlineMs: 1_500,
      stagingMs: 86_400_000,
      clockToleranceMs: 5_000,
      refusalsPerMinute: 60,
      address: { requestsPerSecond: 20_000, concurrent: 2_048, failedAuthentications: 20 },
    },
    proxies: { networks: [], header: 'x-forwarded-for' },
    retention: { refusalsDays: 90, accessesDays: 365 },
    log: { level: 'info' },
    allowEmbedded: false,
    roll: { key: 'file:roll/key.pem', anchor: 'data/roll/anchor', allowUnseen: false, witnesses: [], isPublic: false },
  })
  t.throws(() => Object.assign(config.limits, { queue: 1 }), TypeError, 'and is frozen to its leaves')
})

t.test('every setting is read from the environment', async (t) => {
  const config = await loadConfig({
    ...production,
    CHANCERY_DATA: '/var/lib/chancery',
    CHANCERY_LISTEN: '[::]:443',
    CHANCERY_PUBLIC_LISTEN: '0.0.0.0:80',
    CHANCERY_PUBLIC_URL: 'http://pki.example.com/ca/',
    CHANCERY_MIGRATION_URL: 'postgresql://owner:pw@db/chancery',
    CHANCERY_DATABASE_POOL_SIZE: '20',
    CHANCERY_DATABASE_PREPARED_STATEMENTS: 'no',
    CHANCERY_ALLOW_EMBEDDED_DATABASE: 'yes',
    CHANCERY_NAMES: 'CA.example.com, 10.0.0.1',
    CHANCERY_CONNECTIONS: '16',
    CHANCERY_QUEUE: '10',
    CHANCERY_REQUEST_DEADLINE: '15s',
    CHANCERY_SIGNING_DEADLINE: '500ms',
    CHANCERY_STAGING_TIME: '2h',
    CHANCERY_CLOCK_TOLERANCE: '1m',
    CHANCERY_REFUSALS_PER_MINUTE: '0',
    CHANCERY_LIMIT_ADDRESS_REQUESTS: '1000',
    CHANCERY_LIMIT_ADDRESS_CONCURRENT: '100',
    CHANCERY_LIMIT_FAILED_AUTHENTICATIONS: '5',
    CHANCERY_TRUSTED_PROXIES: '10.0.0.0/8, 192.0.2.7, 2001:db8::/32,::1',
    CHANCERY_PROXY_HEADER: 'forwarded',
    CHANCERY_RETENTION_REFUSALS: '48h',
    CHANCERY_LOG_LEVEL: 'debug',
  })
  t.match(config, {
    mode: 'production',
    dataDir: '/var/lib/chancery',
    listen: { host: '::', port: 443 },
    publicListen: { host: '0.0.0.0', port: 80 },
    names: [
      { kind: 'dns', value: 'ca.example.com' },
      { kind: 'ip', value: '10.0.0.1' },
    ],
    publicUrl: 'http://pki.example.com/ca',
    database: {
      url: production.CHANCERY_DATABASE_URL,
      migrationUrl: 'postgresql://owner:pw@db/chancery',
      poolSize: 20,
      preparedStatements: false,
    },
    keys: { hasPassphrase: true, allowSoftware: true },
    limits: {
      queue: 10,
      requestDeadlineMs: 15_000,
      signingDeadlineMs: 500,
      stagingMs: 7_200_000,
      clockToleranceMs: 60_000,
      refusalsPerMinute: 0,
      address: { requestsPerSecond: 1_000, concurrent: 100, failedAuthentications: 5 },
    },
    proxies: { networks: ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32', '::1'], header: 'forwarded' },
    retention: { refusalsDays: 2 },
    log: { level: 'debug' },
    allowEmbedded: true,
  })
})

t.test('every setting is read from the file, and the environment wins', async (t) => {
  const path = await fileOf(
    t,
    `mode: production
data: /data
listen: 0.0.0.0:8443
publicListen: "0.0.0.0:8080"
publicUrl: http://pki.example.com
allowEmbeddedDatabase: yes
database: { poolSize: 30, preparedStatements: false }
keys:
  allowSoftware: true
  passphrase: 0123456789012
limits: { queue: 7, requestDeadline: 9s, signingDeadline: 1s, clockTolerance: 2s, refusalsPerMinute: 5 }
retention: { refusals: 7d }
log: { level: warn }
`,
  )
  const config = await loadConfig({ CHANCERY_CONFIG: path, CHANCERY_DATABASE_POOL_SIZE: '5' })
  t.match(config, {
    mode: 'production',
    dataDir: '/data',
    listen: { port: 8443 },
    database: { poolSize: 5, preparedStatements: false },
    keys: { allowSoftware: true, hasPassphrase: true },
    limits: { queue: 7, requestDeadlineMs: 9_000 },
    retention: { refusalsDays: 7 },
    log: { level: 'warn' },
    allowEmbedded: true,
  })
})

t.test('in development the owner is the one role there is; in production nobody migrates by default', async (t) => {
  const url = 'postgresql://one:pw@/chancery?host=/run/postgresql'
  t.equal((await loadConfig({ CHANCERY_DATABASE_URL: url })).database.migrationUrl, url)
  t.equal((await loadConfig(production)).database.migrationUrl, undefined)
})

t.test('all faults come in one message', async (t) => {
  const path = await fileOf(
    t,
    'listen: here\nlimit:\n  queue: 3\nlog: loud\ndatabase: { poolsize: 3, poolSize: [1] }\n',
  )
  const message = await messageOf({
    CHANCERY_CONFIG: path,
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:70000',
    CHANCERY_DATABSE_URL: 'x',
    CHANCERY_QUEUE: '1.5',
    CHANCERY_DATA: '',
    CHANCERY_MODE: 'prod',
    CHANCERY_REQUEST_DEADLINE: '10',
    CHANCERY_PUBLIC_URL: 'https://pki.example.com',
    CHANCERY_KEY_PASSPHRASE_FILE: '/nonexistent/file',
    CHANCERY_LOG_LEVEL_FILE: '/etc/hostname',
  })
  const lines = message.split('\n')
  t.equal(lines[0], '14 settings stop the start:')
  t.equal(lines.length, 16)
  for (const fault of [
    `listen (${path}, line 1): "here" is not host:port`,
    `${path}, line 2: limit is not a setting; did you mean`,
    `${path}, line 4: log is not a mapping`,
    `${path}, line 5: database.poolsize is not a setting; did you mean database.poolSize?`,
    `${path}, line 5: database.poolSize is not a single value`,
    'CHANCERY_PUBLIC_LISTEN: "127.0.0.1:70000" is not host:port',
    'CHANCERY_DATABSE_URL: is not a setting; did you mean CHANCERY_DATABASE_URL?',
    'CHANCERY_QUEUE: "1.5" is not a whole number from 1 to 100000',
    'CHANCERY_DATA: is empty; unset it instead',
    'CHANCERY_MODE: "prod" is not one of development, production',
    'CHANCERY_REQUEST_DEADLINE: "10" is not a duration from 1s to 1m, like',
    'CHANCERY_PUBLIC_URL: "https://pki.example.com" is not a plain http:// URL',
    'CHANCERY_KEY_PASSPHRASE_FILE: /nonexistent/file cannot be read (ENOENT)',
    'CHANCERY_LOG_LEVEL_FILE: is not a setting',
  ]) {
    t.ok(message.includes(fault), fault)
  }
})

t.test('a bound is told as it is written, and a sentence ends once', async (t) => {
  t.match(await messageOf({ CHANCERY_CRL_PERIOD: '12' }), '"12" is not a duration from 1s to 30d, like')
  t.match(await messageOf({ CHANCERY_OCSP_VALIDITY: '12' }), '"12" is not a duration from 4m to 7d, like')
  t.match(await messageOf({ CHANCERY_RETENTION_REFUSALS: '12' }), '"12" is not a duration from 1d to 3650d, like')
  t.match(await messageOf({ CHANCERY_STAGING_TIME: '12' }), '"12" is not a duration from 0s to 30d, like')
  t.match(await messageOf({ CHANCERY_LISTN: 'x' }), /did you mean CHANCERY_LISTEN\?\n/)
})

t.test('a file that is not YAML, or has a key twice, says where', async (t) => {
  const twice = await fileOf(t, 'mode: production\nmode: development\n')
  t.match(await messageOf({ CHANCERY_CONFIG: twice }), /unique.*line 2/)
  const broken = await fileOf(t, 'mode: "production\n')
  t.match(await messageOf({ CHANCERY_CONFIG: broken }), /One setting stops the start:\n.*quote/i)
  const list = await fileOf(t, '- mode\n')
  t.match(await messageOf({ CHANCERY_CONFIG: list }), /the file is not a mapping/)
  t.match(
    await messageOf({ CHANCERY_CONFIG: '/nonexistent.yaml' }),
    /CHANCERY_CONFIG: \/nonexistent.yaml cannot be read/,
  )
})

t.test('the names of Kubernetes service links and of the commands are no faults', async (t) => {
  await t.resolves(
    loadConfig({
      CHANCERY_SERVICE_HOST: '10.0.0.1',
      CHANCERY_SERVICE_PORT_HTTPS: '443',
      CHANCERY_PORT: 'tcp://10.0.0.1:443',
      CHANCERY_PORT_443_TCP_ADDR: '10.0.0.1',
      CHANCERY_TOKEN: 'x',
      CHANCERY_URL: 'https://localhost:8443',
    }),
  )
  for (const { env } of Object.values(settings)) t.notMatch(env, /^CHANCERY_(SERVICE_|PORT$|PORT_)/)
  t.match(await messageOf({ CHANCERY_PORTS: '1' }), /CHANCERY_PORTS: is not a setting/)
})

t.test('a URL of several hosts is turned down with what to do instead', async (t) => {
  for (const url of [
    'postgresql://u:p@a:5432,b:5432/d',
    'postgresql://u:p@a,b',
    'postgresql://a,b/d?user=u',
    'postgresql:///d?host=a,b&port=5432',
    'postgresql://u:p@a/d?user=u&host=a%2Cb',
  ])
    t.match(
      await messageOf({ CHANCERY_DATABASE_URL: url }),
      /CHANCERY_DATABASE_URL: .*names several hosts; name the one address that always leads to the server that takes writes/,
      url,
    )
  t.match(
    await messageOf({ CHANCERY_DATABASE_URL: 'postgresql://u:a,b/c@h/d' }),
    /CHANCERY_DATABASE_URL: .*is not a postgresql:\/\/ URL \(in a password .* %2F/,
    'a comma in a password that is not written as in a URL is no second host',
  )
  for (const url of ['postgresql://u:a,b@h/d', 'postgresql://u,v:p@h/d', 'postgresql://u:p@h/d?options=-c%20a=b,c'])
    t.equal((await loadConfig({ CHANCERY_DATABASE_URL: url })).database.url, url)
})

t.test('a secret comes from a file, once, and is never shown', async (t) => {
  const path = await fileOf(t, 'postgresql://u:S3CRET@h/d\n')
  t.equal((await loadConfig({ CHANCERY_DATABASE_URL_FILE: path })).database.url, 'postgresql://u:S3CRET@h/d')
  t.match(
    await messageOf({ CHANCERY_DATABASE_URL_FILE: path, CHANCERY_DATABASE_URL: 'postgresql://u:S3CRET@h/d' }),
    /CHANCERY_DATABASE_URL: is given twice/,
  )
  const wrong = await fileOf(t, 'mysql://u:S3CRET@h/d\n')
  for (const env of [{ CHANCERY_DATABASE_URL_FILE: wrong }, { CHANCERY_DATABASE_URL: 'mysql://u:S3CRET@h/d' }]) {
    const message = await messageOf(env)
    t.match(message, /what it holds is not a postgresql:\/\/ URL/)
    t.notMatch(message, 'S3CRET')
  }
  for (const url of ['postgresql://u:S3CRET@h/100%', 'postgresql://u:S3CRET%ff@h/d', 'postgresql://u%ff:S3CRET@h/d'])
    for (const name of ['CHANCERY_DATABASE_URL', 'CHANCERY_MIGRATION_URL']) {
      const message = await messageOf({ [name]: url })
      t.match(message, `${name}: what it holds has a % that begins no octet of UTF-8; write it as %25`)
      t.notMatch(message, 'S3CRET')
    }
  const empty = { CHANCERY_KEY_PASSPHRASE_FILE: await fileOf(t, '\n') }
  t.match(await messageOf({ CHANCERY_CONFIG: '' }), /- CHANCERY_CONFIG: is empty; unset it instead\./)
  t.match(await messageOf({ CHANCERY_DATABASE_URL_FILE: empty.CHANCERY_KEY_PASSPHRASE_FILE }), /file is empty/)
  await t.rejects(loadConfig(empty, 'sign'), /file is empty/)
  const missing = { CHANCERY_KEY_PASSPHRASE_FILE: '/nonexistent/file' }
  t.match(await messageOf(missing), /CHANCERY_KEY_PASSPHRASE_FILE: \/nonexistent\/file cannot be read/, 'known before')
})

t.test('production refuses each convenience of development by name', async (t) => {
  await t.resolves(loadConfig(production))
  const { CHANCERY_DATABASE_URL: url, ...embedded } = production
  const { CHANCERY_ALLOW_SOFTWARE_KEYS: _, ...hardware } = production
  const { CHANCERY_KEY_PASSPHRASE: __, ...open } = production
  const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
    [
      embedded,
      /CHANCERY_DATABASE_URL: production wants a PostgreSQL of its own; .*CHANCERY_ALLOW_EMBEDDED_DATABASE=yes/,
    ],
    [hardware, /CHANCERY_ALLOW_SOFTWARE_KEYS: production wants keys in a security module/],
    [open, /CHANCERY_KEY_PASSPHRASE: production does not make up the passphrase/],
    [{ ...production, CHANCERY_MIGRATION_URL: url }, /CHANCERY_MIGRATION_URL: production wants one role that owns/],
    ...[
      'sslmode=no-verify',
      'sslmode=no%2Dverify',
      'sslmode=verify-full&sslmode=no-verify',
      'ssl=no-verify',
      // As pg's own warning about sslmode=require recommends: it verifies nothing.
      'uselibpqcompat=true&sslmode=require',
      'sslmode=prefer&uselibpqcompat=true',
    ].map(
      (how) =>
        [
          { ...production, CHANCERY_DATABASE_URL: `postgresql://u:p@h/d?${how}` },
          /CHANCERY_DATABASE_URL: .*verify-full/,
        ] as const,
    ),
    [
      { ...production, CHANCERY_DATABASE_URL: 'postgresql://u:p@h/d', PGSSLMODE: 'no-verify' },
      /CHANCERY_DATABASE_URL: .*verify-full/,
    ],
    ...['localhost', '127.0.0.1:8080', '127.9.9.9', '[::1]:8080', 'ca.localhost', '[::ffff:127.0.0.1]'].map(
      (host) =>
        [
          { ...production, CHANCERY_PUBLIC_URL: `http://${host}` },
          /CHANCERY_PUBLIC_URL: .* is this machine only/,
        ] as const,
    ),
  ]
  for (const [env, expected] of cases) t.match(await messageOf(env), expected)
  const bare = await messageOf({ CHANCERY_MODE: 'production' })
  t.match(bare, /^4 settings stop the start:/, 'all at once')
  for (const name of ['ALLOW_SOFTWARE_KEYS', 'DATABASE_URL', 'PUBLIC_URL', 'ROLL_KEY'])
    t.match(bare, new RegExp(`^ {2}- CHANCERY_${name}: `, 'm'))
})

t.test('what cannot be read hides no other fault, and makes none that would not be there without it', async (t) => {
  const message = await messageOf({
    CHANCERY_MODE: 'production',
    CHANCERY_DATABASE_URL_FILE: '/nonexistent/url',
    CHANCERY_PUBLIC_LISTEN: 'here',
    CHANCERY_LISTEN: '0.0.0.0:8080',
    CHANCERY_QUEUE: '',
  })
  t.same(
    message
      .split('\n')
      .slice(1, -1)
      .map((line) => line.split(':')[0]?.slice(4)),
    [
      'CHANCERY_ALLOW_SOFTWARE_KEYS',
      'CHANCERY_DATABASE_URL_FILE',
      'CHANCERY_PUBLIC_LISTEN',
      'CHANCERY_QUEUE',
      'CHANCERY_ROLL_KEY',
    ],
  )
  const unreadable = await messageOf({
    CHANCERY_MODE: 'production',
    CHANCERY_CONFIG: '/nonexistent.yaml',
    CHANCERY_SIGNER: 'inline',
  })
  t.match(unreadable, /^2 settings stop the start:\n.*CHANCERY_CONFIG: .*\n.*CHANCERY_SIGNER: production keeps keys/)
})

t.test('production refuses secret files that others can read', async (t) => {
  const { CHANCERY_KEY_PASSPHRASE: passphrase, ...rest } = production
  for (const [mode, allowed] of [
    [0o600, true],
    [0o400, true],
    [0o644, false],
    [0o604, false],
    [0o660, false],
  ] as const) {
    const env = { ...rest, CHANCERY_KEY_PASSPHRASE_FILE: await fileOf(t, passphrase, mode) }
    t.match(await messageOf(env), allowed ? /^$/ : /can be read by others/, mode.toString(8))
  }
  const yaml = await fileOf(t, `keys: { passphrase: "${passphrase}" }\n`, 0o644)
  t.match(await messageOf({ ...rest, CHANCERY_CONFIG: yaml }), /CHANCERY_CONFIG: .*can be read by others/)
})

t.test('only a signer reads passphrases and PINs; the service knows whether there are any', async (t) => {
  const env = {
    ...production,
    CHANCERY_KEY_PASSPHRASE: 'passwordpassword',
    CHANCERY_PKCS11_PIN_FILE: await fileOf(t, '1234', 0o600),
    CHANCERY_PKCS11_MODULE: '/usr/lib/one.so, /usr/lib/two.so',
    NOTIFY_SOCKET: '/run/systemd/notify',
  }
  const serving = await loadConfig(env)
  t.match(serving.keys, { hasPassphrase: true, pkcs11: { modules: ['/usr/lib/one.so', '/usr/lib/two.so'] } })
  t.notOk('passphrase' in serving.keys || 'pin' in serving.keys.pkcs11)
  t.notOk(
    Object.keys(serving.keys.environment).some((name) => /DATABASE|MIGRATION|NOTIFY/.test(name)),
    'nor the database, nor what tells systemd that the service is ready',
  )
  const signing = (text: string) =>
    loadConfig({ ...env, CHANCERY_KEY_PASSPHRASE: text }, 'sign').then(
      ({ keys }) => `${keys.passphrase} ${keys.pkcs11.pin}`,
      (error: Error) => error.message,
    )
  t.match(await signing('passwordpassword'), /CHANCERY_KEY_PASSPHRASE: production wants 12 characters/)
  t.match(await signing('short'), /CHANCERY_KEY_PASSPHRASE: production wants 12 characters/)
  t.equal(await signing('a long and private one'), 'a long and private one 1234')
  const { CHANCERY_ALLOW_SOFTWARE_KEYS: _, CHANCERY_KEY_PASSPHRASE: __, ...hardware } = env
  await t.rejects(loadConfig(hardware), { message: /CHANCERY_ROLL_KEY: production encrypts the key of the roll/ })
  const roll = { CHANCERY_ROLL_KEY: 'pkcs11:token=ca;object=roll' }
  await t.resolves(loadConfig({ ...hardware, ...roll }), 'a security module needs neither')
})

t.test('settings that contradict each other are faults', async (t) => {
  t.match(
    await messageOf({ CHANCERY_LISTEN: '127.0.0.1:8080' }),
    /CHANCERY_PUBLIC_LISTEN: is the same as CHANCERY_LISTEN/,
  )
  t.match(await messageOf({ CHANCERY_PUBLIC_LISTEN: '0.0.0.0:8080' }), /CHANCERY_PUBLIC_URL: .* leads nowhere/)
  t.match(await messageOf({ CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0' }), /CHANCERY_PUBLIC_URL: must be set/)
  t.match(await messageOf({ CHANCERY_MIGRATION_URL: 'postgresql://u@h/d' }), /set both or neither/)
  await t.resolves(
    loadConfig({
      CHANCERY_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_URL: 'http://pki.test',
    }),
  )
})

t.test('the CAs of clients are those that are named, and none unless somebody is', async (t) => {
  t.same((await loadConfig({})).clients, { authorities: [], renewal: true })
  t.equal((await loadConfig({ CHANCERY_CLIENT_RENEWAL: 'no' })).clients.renewal, false)
  const both = await loadConfig({ CHANCERY_CLIENT_AUTHORITIES: 'default, etcd', CHANCERY_CLIENT_CA: 'clients.pem' })
  t.same(both.clients, { authorities: ['default', 'etcd'], ca: 'clients.pem', renewal: true })
  for (const text of ['Default', 'default,', 'default;etcd', '*', '-x'])
    await t.rejects(loadConfig({ CHANCERY_CLIENT_AUTHORITIES: text }), {
      message: /CHANCERY_CLIENT_AUTHORITIES: .* is not a list of names/,
    })
})

t.test('docs/configuration.md says what the table says, and nothing else', async (t) => {
  const document = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8')
  t.equal(document, renderConfiguration(document), 'else run node tools/configuration.ts')
  const known = new Set(Object.values(settings).flatMap(({ env, secret }) => (secret ? [env, `${env}_FILE`] : [env])))
  for (const [name] of document.matchAll(/CHANCERY_[A-Z0-9_]*[A-Z]/g)) {
    if (!/^CHANCERY_(CONFIG|SERVICE|PORT)/.test(name)) t.ok(known.has(name), name)
  }
})

t.test('defaults are what their own readers accept, and names are one scheme', (t) => {
  for (const { env, path, read, standard, about } of Object.values(settings)) {
    if (standard !== undefined) t.doesNotThrow(() => read(standard), env)
    t.match(env, /^CHANCERY_[A-Z0-9]+(_[A-Z0-9]+)*$/)
    t.match(path, /^[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)?$/)
    t.match(about, /\.$/, `${env} ends its sentence`)
  }
  t.end()
})

t.test('who migrates in production needs the two URLs, and they are judged', async (t) => {
  const urls = { CHANCERY_MODE: 'production', CHANCERY_DATABASE_URL: 'postgresql://chancery:pw@db/chancery' }
  const config = await loadConfig({ ...urls, CHANCERY_MIGRATION_URL: 'postgresql://owner:pw@db/chancery' }, 'migrate')
  t.equal(config.database.migrationUrl, 'postgresql://owner:pw@db/chancery')
  await t.rejects(
    loadConfig({ ...urls, CHANCERY_MIGRATION_URL: urls.CHANCERY_DATABASE_URL }, 'migrate'),
    /production wants one role that owns the tables/,
  )
  const beyondReach = { ...urls, CHANCERY_PKCS11_MODULE: '/usr/lib/one.so', CHANCERY_PKCS11_PIN_FILE: '/nowhere/pin' }
  await loadConfig(beyondReach, 'migrate')
  await t.rejects(loadConfig(beyondReach), /CHANCERY_PKCS11_PIN_FILE: \/nowhere\/pin cannot be read/)
  await t.rejects(loadConfig(urls), /CHANCERY_ALLOW_SOFTWARE_KEYS/)
  await t.rejects(runMigrate(await loadConfig(urls, 'migrate'), quiet), /CHANCERY_MIGRATION_URL is not set/)
})

t.test('witnesses are verifier keys for cosignatures, each with its URL', async (t) => {
  const cosigner = 'w.example/w1+e2c1b6ff+BHk0CHJ/ljGEmZKVBZYdmJfWvzxKqpKYeCHTbx0YCDYH'
  const at = (text: string) => loadConfig({ CHANCERY_ROLL_WITNESSES: text })
  const { key, text } = await keys()
  t.match((await at(`${text} https://w.example/,${text}  http://127.0.0.1:8090/x`)).roll.witnesses, [
    { key: text, url: 'https://w.example' },
    { key: text, url: 'http://127.0.0.1:8090/x' },
  ])
  for (const [bad, reason] of [
    [text, /not a list of verifier keys/],
    [`${text} w.example`, /not a list of verifier keys/],
    [`${text} ftp://w.example`, /not a list of verifier keys/],
    [`${text} https://w.example https://x.example`, /not a list of verifier keys/],
    [`${text} https://w.example,`, /not a list of verifier keys/],
    [`${cosigner} https://w.example`, /has a key that is none/],
    [`${key} https://w.example`, /is not for cosignatures/],
  ] as const)
    await t.rejects(at(bad), { message: reason }, bad)
})

/** A verifier key of a witness, and one of a roll. */
const keys = async () => {
  const [roll, witness] = [newSigner('r.example'), newSigner('w.example/w1', 'cosignature', 1)]
  return { key: encodeVerifierKey(roll.key), text: encodeVerifierKey(witness.key) }
}

t.test('proxies are addresses and CIDRs, and nothing that could mean more than was thought', async (t) => {
  for (const [text, fault] of [
    ['10.0.0.1/8', 'has a CIDR, 10.0.0.1/8, whose address has bits behind its prefix'],
    ['2001:db8::1/32', 'has bits behind its prefix'],
    ['0.0.0.0/0', 'is not a list of addresses and CIDRs'],
    ['10.0.0.0/33', 'is not a list of addresses and CIDRs'],
    ['10.0.0.0/8/8', 'is not a list of addresses and CIDRs'],
    ['10.0.0.0/', 'is not a list of addresses and CIDRs'],
    ['proxy.example.com', 'is not a list of addresses and CIDRs'],
    ['10.0.0.1,', 'is not a list of addresses and CIDRs'],
  ] as const)
    t.match(await messageOf({ CHANCERY_TRUSTED_PROXIES: text }), fault, text)
})

t.test('a password is read again wherever it stands in its URL, and whatever is in it', async (t) => {
  const base = await fileOf(t, 'postgresql://u:first@h/d')
  const read = async (from: string, to: string): Promise<string | undefined> => {
    await writeFile(base, from)
    const renewed = renewedUrl(await loadConfig({ CHANCERY_DATABASE_URL_FILE: base }))
    await writeFile(base, to)
    return renewed?.().catch(() => undefined)
  }
  for (const [from, to] of [
    ['postgresql://u:fir@st@h/d', 'postgresql://u:sec@nd@h/d'],
    ['postgresql://u:first@/d?host=/run/x', 'postgresql://u:second@/d?host=/run/x'],
    ['postgresql://h/d?user=u&password=first', 'postgresql://h/d?user=u&password=second'],
  ] as const)
    t.equal(await read(from, to), to)
  for (const cut of [
    '',
    'postgresql://u:sec',
    'postgresql://u:second@',
    'postgresql://u:second@h',
    'postgresql://v:first@h/d',
  ])
    t.equal(await read('postgresql://u:first@h/d', cut), undefined, `${cut} is another one, or not all of it`)
})

t.test('production takes what verifies the server, or speaks no TLS, whatever stands beside it', async (t) => {
  for (const how of [
    '',
    '?sslmode=verify-full',
    '?sslmode=require',
    '?uselibpqcompat=true&sslmode=verify-full',
    '?host=/run/x',
  ])
    await t.resolves(loadConfig({ ...production, CHANCERY_DATABASE_URL: `postgresql://u:p@h/d${how}` }), how)
  const told = { ...production, CHANCERY_DATABASE_URL: 'postgresql://u:p@h/d?sslmode=verify-full' }
  await t.resolves(loadConfig({ ...told, PGSSLMODE: 'no-verify' }), 'the URL is heard first')
})
