/** `chancery controller` as a process: its settings, its kubeconfig, and how it ends. */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { readControllerDocument, settingsOf } from '../../src/cli/controller.ts'
import { loadCluster } from '../../src/kubernetes/api/cluster.ts'
import { openClientCa } from '../helpers/clients.ts'
import { bare } from '../helpers/environment.ts'
import { freePort } from '../helpers/port.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertOne, openRunning, until } from './running.ts'
import { textAt } from './values.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-controller-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const write = async (name: string, text: string): Promise<string> => {
  const path = join(folder, name)
  await writeFile(path, text)
  return path
}

const refused = async (text: string): Promise<string> =>
  readControllerDocument(await write('bad.yaml', text)).then(
    () => 'it was taken',
    (error: Error) => error.message,
  )

t.test('a file says what is not as usual, with paths relative to it', async (t) => {
  const path = await write(
    'settings.yaml',
    [
      'listen: "[::1]:9000"',
      'namespace: pki',
      'recheck: 2m',
      'retryFor: 1d',
      'servers:',
      '  - { url: "https://ca.example:8443/", caFile: ca.pem, token: { audience: ca, file: /run/token } }',
      'signers:',
      '  - { name: example.com/internal, issuer: internal }',
    ].join('\n'),
  )
  const { document, folder: base } = await readControllerDocument(path)
  t.match(settingsOf(document, base, 'elsewhere'), {
    ...{
      listen: { host: '::1', port: 9_000 },
      namespace: 'pki',
      secretNamespace: 'pki',
      recheck: 120,
      retryFor: 86_400,
    },
    servers: [{ caFile: join(folder, 'ca.pem'), token: { audience: 'ca', file: '/run/token' } }],
    signers: [{ name: 'example.com/internal', issuer: 'internal' }],
  })
})

t.test('without a file everything is as usual', async (t) => {
  const { document, folder: base } = await readControllerDocument(undefined)
  t.same(settingsOf(document, base, 'chancery-system'), {
    ...{ listen: { host: '0.0.0.0', port: 8_081 }, namespace: 'chancery-system', lease: 'chancery-controller' },
    ...{ secretNamespace: 'chancery-system', certManager: true, signers: [], approveKubeletServing: false },
    ...{ podCertificates: false, servers: [], recheck: 300, retryFor: undefined, concurrency: 16 },
  })
  t.throws(() => settingsOf(document, base, undefined), /namespace/)
})

t.test('every fault of a file is told at once, with its place', async (t) => {
  const told = await refused('lissten: x\nrecheck: soon\nconcurrency: 0\nservers: [{ url: "http://x" }]\nsigners: 7\n')
  for (const place of ['/lissten', '/recheck', '/concurrency', '/servers/0/url', '/signers']) t.match(told, `${place}:`)
  t.match(
    await refused('signers: [{ name: a.b/c, issuer: x }, { name: a.b/c, issuer: y }]'),
    /\/signers\/1: a\.b\/c occurs twice/,
  )
  t.match(
    await refused(
      'signers: [{ name: kubernetes.io/kubelet-serving, issuer: x }, { name: kubernetes.io/kubelet, issuer: x }]',
    ),
    /:\n {2}- \/signers\/1\/name: kubernetes\.io\/kubelet is a signer of Kubernetes itself[^\n]*$/,
  )
  t.match(
    await refused('podCertificates: true\nsigners: [{ name: a.b/c, issuer: x }]'),
    /\/podCertificates: true serves no pod: none of the signers has podNames$/,
  )
  const named = (template: string, serves = true) => {
    const podNames = `{ uri: ["spiffe://x/{namespace}", "${template}"] }`
    return refused(`podCertificates: ${serves}\nsigners: [{ name: a.b/c, issuer: x, podNames: ${podNames} }]`)
  }
  for (const template of [
    'spiffe://x/{namespace}-{serviceAccount}',
    'spiffe://x/{namespace}{pod}',
    '{pod}.{namespace}.{serviceAccount}.x',
    '{pod}-{namespace}.x',
    '{serviceAccount}.x-{namespace}-y-{namespace}',
    'spiffe://x/sa/{serviceAccount}',
    '{pod}.x',
    'spiffe://x/{node}/{pod}',
  ]) {
    const says = `\n  - /signers/0/podNames/uri/1: ${template} may be the name of pods of two namespaces: `
    t.ok((await named(template)).includes(says), template)
    t.equal(await named(template, false), 'it was taken', 'where none are served')
  }
  for (const template of [
    'spiffe://x/ns/{namespace}/sa/{serviceAccount}/{pod}',
    '{serviceAccount}.{namespace}.svc',
    '{namespace}.x.{node}',
    'spiffe://x/{namespace}_{serviceAccount}',
    '{pod}.{serviceAccount}.{namespace}.svc.x',
    'spiffe://x/ns/{namespace}/{pod}.{serviceAccount}',
    '{namespace}.x.{node}-{pod}',
    '{serviceAccount}.x-{namespace}-y',
    'a-{namespace}.x.{namespace}-{serviceAccount}',
    'spiffe://x/node/{node}',
    'pods.x',
  ])
    t.equal(await named(template), 'it was taken', template)
  t.match(await refused('servers: [{ url: "https://a" }, { url: "https://a/" }]'), /\/servers\/1: .* occurs twice/)
  const noUrls = await refused('servers: [{ url: "https://a:99999" }, { url: "https://[" }]')
  t.match(
    noUrls,
    /\/servers\/0\/url: https:\/\/a:99999 is not a URL\n {2}- \/servers\/1\/url: https:\/\/\[ is not a URL$/,
  )
  t.match(await refused('listen: "[::]:65536"'), /\/listen: \[::\]:65536 has a port above 65535$/)
  t.equal(await refused('listen: "[::]:65535"'), 'it was taken')
  t.match(await refused('recheck: 8d'), /\/recheck: 8d is longer than 7d/)
  t.equal(await refused('recheck: 7d'), 'it was taken')
  t.match(await refused('a: [1'), /is not YAML/)
  t.match(await refused('- x'), /does not hold settings/)
})

t.test('a fault says what would be right, and steers no terminal', async (t) => {
  for (const [text, said] of [
    ['log: loud', '/log: loud must be one of trace, debug, info, warn, error, fatal'],
    ['recheck: 5', '/recheck: 5 must be a whole number with a unit: 30s, 5m, 24h or 7d'],
    ['listen: a', '/listen: a must be an address and a port, like 0.0.0.0:8081 or [::]:8081'],
    ['servers: {}', '/servers: {…} must be of type array'],
    ['concurrency: 0', '/concurrency: 0 must be a whole number within 1 and 256'],
    ['signers: [{ name: a, issuer: b }]', '/signers/0/name: a must be a domain and a path, like example.com/internal'],
    ['log: "\\e[2J"', '/log: \\u001b[2J must be one of trace, debug, info, warn, error, fatal'],
  ] as const)
    t.equal((await refused(text)).split('\n  - ')[1], said)
  for (const text of ['servers: !!set { a }', 'servers: !mine []', '!!timestamp 2026-01-01', '? [a]\n: b'])
    t.match(await refused(text), /is not YAML/, text)
})

t.test('what may be a token, a passphrase or a PIN in place of settings is shown to nobody', async (t) => {
  for (const text of [
    '@sesame',
    '`sesame',
    '"sesame',
    '!sesame 1',
    '|sesame',
    '%sesame',
    'a: [sesame',
    '"a" sesame',
    '20261127',
  ])
    for (const end of ['', '\n', '\r\n']) t.notMatch(await refused(`${text}${end}`), /sesame|20261127/, text)
  t.match(await refused('a: [1'), /at line 1, column \d+$/, 'but where it is')
  t.match(await refused('log: info\nlisten: [sesame'), /sesame/, 'a document is, with the line that is wrong')
})

const kubeconfig = (
  name: string,
  server: string,
  user: object = { token: 'none' },
  cluster: object = {},
): Promise<string> => {
  const context = { name, context: { cluster: name, user: name } }
  const clusters = [{ name, cluster: { server, ...cluster } }]
  const users = [{ name, user }]
  return write(name, JSON.stringify({ clusters, contexts: [context], users, 'current-context': name }))
}

const chancery = (...args: readonly string[]): Promise<Run> => runChancery(args, { timeout: 20_000 })

slowTest('what cannot start says why, in a sentence', async (t) => {
  t.match(await chancery('controller'), { code: 2, err: /no pod of a cluster; name a kubeconfig/ })
  t.match(await chancery('controller', join(folder, 'absent.yaml')), { code: 2, err: /cannot be read/ })
  await write('broken', 'users:\n- name: x\n  user:\n    token: hidden\n   bad: indent\n')
  const broken = await chancery('controller', await write('broken.yaml', 'kubeconfig: broken\n'))
  t.match(broken, { code: 2, err: `The cluster cannot be reached: ${join(folder, 'broken')}: bad indentation` })
  t.notMatch(broken.err, /hidden/)
  for (const [password, told] of [
    ['*hidden', 'unidentified alias (3:16)'],
    ['!hidden', 'unknown scalar tag (3:15)'],
  ]) {
    await write('broken', `users:\n- user:\n    password: ${password}\n`)
    const { err } = await chancery('controller', join(folder, 'broken.yaml'))
    t.equal(err.trim(), `The cluster cannot be reached: ${join(folder, 'broken')}: ${told}.`)
  }
  await kubeconfig('plain', 'http://127.0.0.1:1')
  t.match(await chancery('controller', await write('plain.yaml', 'kubeconfig: plain\nnamespace: x\n')), {
    code: 2,
    err: /http:\/\/127\.0\.0\.1:1 is not like https:\/\/host:port\.\n$/,
  })
})

t.test('no token is sent past TLS, to whoever shows any certificate, or by a proxy', async (t) => {
  for (const [server, cluster, says] of [
    ['http://127.0.0.1:1', {}, 'http://127.0.0.1:1 is not like https://host:port'],
    ['127.0.0.1', {}, '127.0.0.1 is not like https://host:port'],
    [
      'https://127.0.0.1:1',
      { 'insecure-skip-tls-verify': true },
      'a cluster whose certificate is not verified cannot be served',
    ],
    ['https://127.0.0.1:1', { 'proxy-url': 'http://127.0.0.1:2' }, 'a cluster behind a proxy cannot be served'],
  ] as const) {
    await kubeconfig('open', server, { token: 'none' }, cluster)
    await t.rejects(loadCluster(join(folder, 'open')), { message: says })
  }
  await write('nowhere', JSON.stringify({ clusters: [], contexts: [], users: [] }))
  await t.rejects(loadCluster(join(folder, 'nowhere')), { message: 'no cluster is named' })
})

t.test('what a kubeconfig names for TLS is there at the start, and can be used', async (t) => {
  const told = async (cluster: object, user: object = { token: 'none' }) => {
    await kubeconfig('tls', 'https://127.0.0.1:1', user, cluster)
    return loadCluster(join(folder, 'tls')).then(
      () => 'taken',
      (error: Error) => error.message,
    )
  }
  const { pem } = openClientCa('Of a cluster')
  await write('ca.pem', pem)
  await write('nothing.pem', 'nothing')
  const inBase64 = (text: string): string => Buffer.from(text).toString('base64')
  t.equal(await told({ 'certificate-authority': 'ca.pem' }), 'taken')
  t.equal(await told({ 'certificate-authority-data': inBase64(pem) }), 'taken')
  t.match(await told({ 'certificate-authority': 'absent.pem' }), /^ENOENT: no such file or directory, .*absent\.pem'$/)
  t.match(await told({ 'certificate-authority': 'nothing.pem' }), /nothing\.pem holds no certificate in PEM$/)
  const ofData = await told({ 'certificate-authority-data': inBase64('nothing') })
  t.equal(ofData, 'certificate-authority-data holds no certificate in PEM')
  t.match(
    await told({}, { 'client-certificate': 'absent.pem', 'client-key': 'absent.key' }),
    /^ENOENT: .*absent\.pem'$/,
  )
  const unusable = { 'client-certificate': 'nothing.pem', 'client-key': 'nothing.pem' }
  t.match(await told({}, unusable), /^the client certificate and its key cannot be used: /)
  const spoilt = pem.replace(/^.{64}$/m, '')
  const unread = (number: number): RegExp =>
    new RegExp(`^certificate-authority-data holds a certificate that cannot be read, .*: number ${number}$`)
  t.match(await told({ 'certificate-authority-data': inBase64(spoilt) }), unread(1))
  // Only what is before it would be trusted.
  t.match(await told({ 'certificate-authority-data': inBase64(`Of a cluster\n${pem}${spoilt}`) }), unread(2))
  t.equal(await told({ 'certificate-authority-data': inBase64(`\ufeffOf a cluster\n${pem}And\n${pem}`) }), 'taken')
  const { cert, key } = openClientCa('Of clients').certify()
  const pair = { 'client-certificate-data': inBase64(cert), 'client-key-data': inBase64(key) }
  t.equal(await told({}, pair), 'taken')
  await kubeconfig('tls', 'https://127.0.0.1:1', unusable, { 'certificate-authority': 'absent.pem' })
  t.match(await chancery('controller', await write('tls.yaml', 'kubeconfig: tls\nnamespace: x\n')), {
    code: 2,
    err: /^The cluster cannot be reached: .*tls: ENOENT: no such file or directory, open '.*absent\.pem'\.$/m,
  })
})

const start = (t: { teardown(end: () => unknown): unknown }, path: string) => {
  const child = spawn(process.execPath, ['src/main.ts', 'controller', path], {
    env: { ...bare },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let log = ''
  child.stderr.on('data', (piece: Buffer) => {
    log += piece.toString()
  })
  return { child, said: () => log, ended: new Promise<number | null>((resolve) => child.once('exit', resolve)) }
}

slowTest('the process works by its kubeconfig, and gives its lease back when it is told to end', async (t) => {
  const running = await openRunning(t, { idle: true })
  running.cluster.kubeconfig(join(folder, 'config'), 'chancery-system/chancery-controller')
  const path = await write('real.yaml', 'kubeconfig: config\nlisten: 127.0.0.1:0\nlog: debug\n')
  const { child, said, ended } = start(t, path)
  await until(() => said().includes('"event":"lease.won"') || child.exitCode !== null)
  await running.issuer()
  await running.ask('web-1')
  await assertOne(t, running, 'web-1')
  child.kill('SIGTERM')
  t.equal(await ended, 0, said())
  const lease = running.cluster.get('leases', 'chancery-system', 'chancery-controller')
  t.equal(textAt(lease, 'spec', 'holderIdentity'), '')
  t.notMatch(said(), running.token)
  t.match(said(), '"event":"controller.stopped"')
})

t.test('it is told to end while it waits for an API server as well', async (t) => {
  await kubeconfig('away', 'https://127.0.0.1:1')
  const signers = '[{ name: example.com/x, issuer: x, podNames: { uri: ["spiffe://x/{namespace}"] } }]'
  const text = `kubeconfig: away\nnamespace: x\nlisten: 127.0.0.1:0\npodCertificates: true\nsigners: ${signers}\n`
  const { child, said, ended } = start(t, await write('away.yaml', text))
  await until(() => said().includes('"event":"pods.unknown"') || child.exitCode !== null)
  child.kill('SIGTERM')
  t.equal(await ended, 0, said())
  t.match(said(), '"event":"controller.stopped"')
})

slowTest('a program of the kubeconfig that hangs does not keep it', async (t) => {
  const begun = join(folder, 'begun')
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: 'sh' }
  const script = `echo $$ >> '${begun}'; exec sleep 60`
  await kubeconfig('hanging', 'https://127.0.0.1:1', { exec: { ...exec, args: ['-c', script] } })
  const pids = async () => (await readFile(begun, 'utf8').catch(() => '')).split('\n').slice(0, -1)
  const isAlive = (pid: string): boolean => {
    try {
      return process.kill(Number(pid), 0)
    } catch {
      return false
    }
  }
  t.teardown(async () => {
    for (const pid of (await pids()).filter(isAlive)) process.kill(Number(pid), 'SIGKILL')
  })
  const pods =
    'podCertificates: true\nsigners: [{ name: example.com/x, issuer: x, podNames: { uri: ["x:{namespace}"] } }]\n'
  for (const [name, more, count] of [
    ['hanging.yaml', '', 1],
    ['hanging-pods.yaml', pods, 2],
  ] as const) {
    const text = `kubeconfig: hanging\nnamespace: x\nlisten: 127.0.0.1:0\n${more}`
    const { child, said, ended } = start(t, await write(name, text))
    while ((await pids()).length < count && child.exitCode === null) await sleep(20)
    child.kill('SIGTERM')
    t.equal(await Promise.race([ended, sleep(8_000)]), 0, said())
    t.match(said(), '"event":"controller.stopped"')
  }
})

slowTest('probes are answered while it waits for an API server, and it goes on when that is there', async (t) => {
  const running = await openRunning(t, { idle: true })
  running.cluster.kubeconfig(join(folder, 'later'), 'chancery-system/chancery-controller')
  const signers = '[{ name: example.com/x, issuer: x, podNames: { uri: ["spiffe://x/{namespace}"] } }]'
  const at = `127.0.0.1:${await freePort()}`
  const text = `kubeconfig: later\nlisten: ${at}\npodCertificates: true\nsigners: ${signers}\n`
  const away = running.cluster.faults.add('unavailable')
  const { child, said } = start(t, await write('later.yaml', text))
  await until(() => said().includes('"event":"pods.unknown"') || child.exitCode !== null)
  t.equal((await fetch(`http://${at}/livez`)).status, 200)
  const ready = await fetch(`http://${at}/readyz`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /has not said yet whether it has PodCertificateRequests/)
  away.end()
  await until(() => said().includes('"event":"lease.won"') || child.exitCode !== null)
  t.equal((await fetch(`http://${at}/livez`)).status, 200)
})
