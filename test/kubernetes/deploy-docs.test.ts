/** docs/kubernetes.md: its documents are the files, and what it has people type to Chancery is typed here. */
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import t from 'tap'
import { parse } from 'yaml'

import { readControllerDocument } from '../../src/cli/controller.ts'
import { takeBackup } from '../helpers/backup.ts'
import { openTestRoot } from '../helpers/ceremony.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { openTestIssuer } from '../helpers/issuer.ts'
import { freePort } from '../helpers/port.ts'
import { putCommand } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { type Ran, run } from '../interop/tools.ts'
import { openChancerySide } from './chancery-side.ts'
import { install } from './installation.ts'
import { home, type Json, manifests, namesIn, readYaml, render } from './manifests.ts'

t.setTimeout(300_000)
const page = await readFile(join(home, 'docs/kubernetes.md'), 'utf8')
const blocks = await blocksOf('docs/kubernetes.md')

t.test('every document on the page is what stands in the file that it names', async (t) => {
  const shown = [...page.matchAll(/^<!-- file: (\S+) -->\n```yaml\n([\s\S]*?)```$/gm)]
  t.ok(shown.length >= 5, `${shown.length} of them`)
  t.equal(page.match(/^ *```yaml$/gm)?.length, shown.length, 'and there are no others')
  for (const [, path = '', text = ''] of shown) {
    const whole = await readFile(join(home, path), 'utf8')
    t.ok(`\n${whole}`.includes(`\n${text}`), path)
  }
})

t.test('every folder that can be applied is on the page', async (t) => {
  for (const name of [...(await namesIn('components')), ...(await namesIn('overlays'))])
    t.match(page, `\`${name}\``, name)
  // Or the page has it made.
  for (const [, path = ''] of page.matchAll(/apply -[kf] (deploy\/[\w/.-]+)/g))
    t.ok(
      page.includes(`mkdir -p ${path}`) ||
        (await readFile(join(home, path, 'kustomization.yaml')).catch(() => readFile(join(home, path)))),
      path,
    )
})

t.test('what the database is trusted by is where the page says, for who serves and for who migrates', async (t) => {
  const [, path = '', file = ''] = /sslrootcert=(\S+)\/([\w.]+)`/.exec(page) ?? []
  t.match(page, `create secret generic chancery-database --from-file=serving-url --from-file=${file}\n`)
  const objects = await render(join(manifests, 'overlays/mounted-keys'))
  const specs = objects.flatMap(({ kind, spec }) =>
    kind === 'StatefulSet' ? [spec.template.spec] : kind === 'CronJob' ? [spec.jobTemplate.spec.template.spec] : [],
  )
  t.equal(specs.length, 2)
  for (const { containers, volumes } of specs) {
    const { name } = volumes.find(({ secret }: Json) => secret?.secretName === 'chancery-database') ?? {}
    t.ok(containers[0].volumeMounts.some((mount: Json) => mount.name === name && mount.mountPath === path))
  }
})

t.test('what the page has people make for trust-manager is what its Bundles read', async (t) => {
  const made = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)]
    .map(([, commands = '']) => commands)
    .filter((commands) => commands.includes('-n cert-manager create configmap'))
  const said = 'kubectl() { echo "$*" >&2; }\n'
  const sources = new Set<string>()
  for (const commands of made) {
    const { stderr } = await promisify(execFile)('bash', ['-ceu', said + commands])
    for (const [, name, key] of stderr.matchAll(/-n cert-manager create configmap (\S+) --from-file=([^= ]+)=/g))
      sources.add(`${name} ${key}`)
  }
  const bundles = await render(join(manifests, 'examples/trust-manager'))
  const read = bundles.flatMap(({ spec }) => spec.sources.map(({ configMap: { name, key } }: Json) => `${name} ${key}`))
  t.strictSame(sources, new Set(read))
})

t.test('what the page has people make for cainjector is what the webhook names', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-webhook-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const commands = /^```sh\n((?:.*\n)*?kubectl annotate --local(?:.*\n)*?)```$/m.exec(
    page.split('### Webhooks')[1] ?? '',
  )
  const local = `kubectl() {
    case "$*" in
      'apply -f -') cat > secret.yaml ;;
      *--dry-run=client* | *--local*) command kubectl "$@" ;;
    esac
  }\n`
  await writeFile(join(folder, 'kubernetes.pem'), 'the issuers\n')
  await promisify(execFile)('bash', ['-ceuo', 'pipefail', local + commands?.[1]], { cwd: folder })
  const secret = parse(await readFile(join(folder, 'secret.yaml'), 'utf8'))
  const webhooks = (await render(join(manifests, 'examples/webhook'))).find(({ kind }) => /^Validating/.test(kind))
  const annotations = { 'cert-manager.io/allow-direct-injection': 'true' }
  const named = webhooks?.metadata.annotations?.['cert-manager.io/inject-ca-from-secret'] ?? ''
  const [namespace, name] = named.split('/')
  t.match(secret, { kind: 'Secret', metadata: { namespace, name, annotations } })
  t.equal(Buffer.from(secret.data['ca.crt'], 'base64').toString(), 'the issuers\n')
})

slowTest(
  'an overlay with several kinds of signers has all of them, as the page makes it, whichever comes last',
  async (t) => {
    const shown = ['csr-signers', 'kubelet-serving']
    const all = ['kubelet-serving', 'pod-certificates', 'kubelet-client', 'csr-signers']
    const parts = [
      (components: readonly string[]) => `in ${components.join(' ')};`,
      (components: readonly string[]) => `[../../components/${components.join(', ../../components/')}, signers]`,
    ]
    for (const components of [shown, shown.toReversed(), all, all.toReversed()]) {
      const folder = await mkdtemp(join(tmpdir(), 'chancery-signers-'))
      t.teardown(() => rm(folder, { recursive: true }))
      await cp(manifests, join(folder, 'deploy/kubernetes'), { recursive: true })
      let commands = block('signers')
      for (const part of parts) {
        t.ok(commands.includes(part(shown)))
        commands = commands.replace(part(shown), part(components))
      }
      const type = (typed: string) => promisify(execFile)('bash', ['-ceu', typed], { cwd: folder })
      await type(block('ours'))
      await type("sed -i 's/pki.example.com/pki.example.net/' deploy/kubernetes/overlays/ours/kustomization.yaml")
      await type(commands)
      const objects = await render(join(folder, 'deploy/kubernetes/overlays/signing'))
      const [service] = objects.filter(({ metadata }) => /^chancery-settings-/.test(metadata.name))
      t.equal(service?.['data'].CHANCERY_PUBLIC_URL, 'http://pki.example.net', 'what was ours stays')
      const settings = objects.filter(({ metadata }) => /^chancery-controller-settings-/.test(metadata.name))
      t.equal(settings.length, 1)
      const path = join(folder, 'controller.yaml')
      await writeFile(path, settings[0]?.['data']['controller.yaml'])
      const { document } = await readControllerDocument(path)
      const each: readonly Json[] = await Promise.all(
        components.map((name) => readYaml(`components/${name}/controller.yaml`)),
      )
      const together = Object.assign({}, ...each, { signers: each.flatMap(({ signers }) => signers) })
      t.strictSame(document, together, components.join(', '))
      for (const { issuer } of document.signers ?? [])
        t.ok(
          issuer === 'workload' ||
            objects.some(({ kind, metadata }) => kind === 'ChanceryClusterIssuer' && metadata.name === issuer),
          issuer,
        )
    }
  },
)

slowTest('what is typed to Chancery does what the page says', async (t) => {
  const side = await openChancerySide(t)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-kubernetes-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const at = (name: string): string => join(folder, name)
  const PATH = await putCommand(at('bin'))
  await cp(join(home, 'deploy/kubernetes/chancery'), at('deploy/kubernetes/chancery'), { recursive: true })
  await writeFile(at('deploy/kubernetes/chancery/cluster.yaml'), await side.clusterDocument())
  await writeFile(at('cluster-ca.pem'), side.clusterCa)
  await writeFile(at('root.pem'), side.service.ca)
  await writeFile(at('admin.token'), `${side.service.adminToken}\n`, { mode: 0o600 })
  const { port } = new URL(side.service.url)
  const forwarded = await freePort()
  const env = { ...bare, PATH, HOME: folder }
  const type = async (name: string): Promise<string> => {
    const commands = (blocks.get(name) ?? 'false').replaceAll('localhost:8443', `localhost:${forwarded}`)
    const { stdout } = await promisify(execFile)('bash', ['-ceu', '-o', 'pipefail', commands], { cwd: folder, env })
    return stdout
  }
  const login = type('login')
  // A port-forward takes a while.
  await sleep(1_500)
  const forward = createServer((socket) => {
    const on = connect(Number(port), '127.0.0.1')
    for (const [one, other] of [
      [socket, on],
      [on, socket],
    ] as const)
      one.pipe(other).on('error', () => one.destroy())
  })
  forward.listen(forwarded, '127.0.0.1')
  t.teardown(() => forward.close())
  t.match(await login, /is the current context/)
  await type('copy')
  const applied = await type('cluster')
  for (const name of ['ingress', 'service-mtls', 'mqtt-client', 'user-client', 'cluster']) t.match(applied, name)
  await type('bundle')
  for (const authority of ['kubernetes', 'etcd', 'front-proxy']) {
    const issuer = new X509Certificate(await readFile(at(`${authority}.pem`)))
    t.ok(issuer.ca && issuer.subject !== issuer.issuer, 'the issuer itself, and not its root')
  }
  // As OpenSSL has it in pods, where the API server shows its own and the issuer's certificate.
  const verify = (trusted: string): Promise<Ran> =>
    run('openssl', ['verify', '-CAfile', at(trusted), '-untrusted', at('kubernetes.pem'), at('kubernetes.pem')])
  t.match(await verify('kubernetes.pem'), { code: 2, stderr: /unable to get local issuer certificate/ })
  t.match(await verify('kubernetes-for-pods.pem'), { code: 0 })
  await type('team')
  const team = (await readFile(at('team-a.token'), 'utf8')).trim()
  t.match(await side.service.request('GET', '/v1/authorities', { token: team }), { status: 200 })
  await type('monitoring')
  const token = (await readFile(at('prometheus.token'), 'utf8')).trim()
  t.match(await side.service.request('GET', '/metrics', { token }), { status: 200, text: /chancery_check_passed/ })
})

const block = (name: string): string => blocks.get(name) ?? 'false'

slowTest('the first start in production is made with whichever replica came first', async (t) => {
  for (const order of [
    ['chancery-0', 'chancery-1'],
    ['chancery-1', 'chancery-0'],
  ]) {
    const folder = await mkdtemp(join(tmpdir(), 'chancery-first-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const database = await openTestDatabase(t, { empty: true })
    const installation = await install(folder, block('keys'), database)
    await installation.migrate()
    for (const pod of order) await (await installation.start(t, pod, true)).ready()
    const written = await installation.type(block('reach'), block('first-issuer'), 'cat default-2026.csr; echo "$pod"')
    t.match(written, `CERTIFICATE REQUEST-----\n${order[0]}\n`)
  }
})

slowTest(
  'production starts with keys in Secrets, as the overlay has it, and a new replica only after a yes',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'chancery-production-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const at = (name: string): string => join(folder, name)
    const database = await openTestDatabase(t, { empty: true })
    const installation = await install(folder, block('keys'), database)
    await installation.migrate()
    const first = await installation.start(t, 'chancery-1')
    t.equal(await first.ready(), 503, 'nobody can sign yet')

    const root = openTestRoot()
    const csr = await installation.type(block('reach'), block('first-issuer'), 'cat default-2026.csr')
    await writeFile(at('chain.pem'), root.certify(csr.slice(csr.indexOf('-----BEGIN CERTIFICATE REQUEST'))) + root.pem)
    await installation.type(
      'chancery issuer import default-2026 chain.pem; chancery issuer activate default-2026 --reason first',
    )
    await until(async () => (await first.ready()) === 200)
    await until(async () => (await readFile(at('data-chancery-1/chancery/root.pem'), 'utf8')) === root.pem)

    await installation.type('pod=chancery-1', block('real-root'))
    t.equal(await readFile(at('root.pem'), 'utf8'), root.pem, 'what the controller and pods trust from now on')
    await t.rejects(readFile(at('data-chancery-1/chancery/admin.token')), { code: 'ENOENT' })
    const cluster = await openTestIssuer(t)
    await cp(join(home, 'deploy/kubernetes/chancery'), at('deploy/kubernetes/chancery'), { recursive: true })
    const path = at('deploy/kubernetes/chancery/cluster.yaml')
    await writeFile(path, (await readFile(path, 'utf8')).replace(/^issuer: \S+/m, `issuer: ${cluster.url}`))
    await writeFile(at('cluster-ca.pem'), cluster.ca)
    t.match(
      await installation.type(block('copy'), block('default-only'), block('cluster')),
      /cluster/,
      'and it is told the cluster’s accounts',
    )

    t.match(
      await readFile(path, 'utf8'),
      /# Beyond the authority default/,
      'the folder of the repository stays as it is',
    )

    const unseen = await installation.start(t, 'chancery-0').catch((error: Error) => error.message)
    t.match(unseen, /CHANCERY_ALLOW_UNSEEN_ROLL=yes for one start/)
    const second = await installation.start(t, 'chancery-0', true)
    await until(async () => (await second.ready()) === 200)
    await second.stop()

    // A database that was set back, and no pod that runs.
    await first.stop()
    const backup = await takeBackup(t, database)
    const before = await installation.start(t, 'chancery-0')
    await until(async () => (await before.ready()) === 200)
    await installation.type(
      'pod=chancery-0',
      'chancery login --server https://localhost:8443 --ca root.pem --token-file admin.token',
      'chancery principal create later',
    )
    await before.stop()
    const newest = await takeBackup(t, database)
    await backup.restore()
    const set = await installation.start(t, 'chancery-0').catch((error: Error) => error.message)
    t.match(set, /entries \d+ to \d+ are missing/)
    await cp(manifests, at('deploy/kubernetes'), { recursive: true })
    await installation.type(block('ours'))
    t.match(await installation.type(block('maintenance')), /sleep infinity/)
    // As point-in-time recovery leaves it.
    await newest.restore()
    t.match(await installation.type(block('verify-database')), /entries/)
    t.match(await installation.type(block('serve-again')), /- serve$/m)
    const again = await installation.start(t, 'chancery-0')
    await until(async () => (await again.ready()) === 200)
    const known = await installation.type(
      'pod=chancery-0',
      'chancery login --server https://localhost:8443 --ca root.pem --token-file admin.token',
      'chancery principal list',
    )
    t.match(known, /^later /m, 'and nothing is lost')
  },
)

const until = async (holds: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + 30_000; !(await holds().catch(() => false)); await sleep(100))
    if (Date.now() > deadline) throw new Error('it did not come')
}
