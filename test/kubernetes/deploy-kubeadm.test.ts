/** docs/kubernetes.md, kubeadm: each of its requests gets the certificate that Kubernetes documents for it. */
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { putCommand } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { output, run } from '../interop/tools.ts'
import { keyPairFor } from './chancery-side.ts'

t.setTimeout(300_000)

interface Wanted {
  readonly commonName: string
  readonly organization?: string
  readonly names?: readonly string[]
  readonly usage: 'serverAuth' | 'clientAuth' | 'both'
  readonly authority: 'kubernetes' | 'etcd' | 'front-proxy'
}

const member = {
  commonName: 'cp-1',
  names: ['DNS:cp-1', 'DNS:localhost', 'IP Address:10.0.0.5', 'IP Address:127.0.0.1'],
}
const service = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'kubernetes.default.svc.cluster.local']
const hosts = ['cp-1', ...service].map((name) => `DNS:${name}`)
const admins = 'kubeadm:cluster-admins'
const kubernetes = { usage: 'clientAuth', authority: 'kubernetes' } as const

/** Kubernetes, "PKI certificates and requirements", as kubeadm asks for it. */
const files: Readonly<Record<string, Wanted>> = {
  'pki/apiserver': {
    ...{ commonName: 'kube-apiserver', usage: 'serverAuth', authority: 'kubernetes' },
    names: [...hosts, 'IP Address:10.96.0.1', 'IP Address:10.0.0.5'],
  },
  'pki/apiserver-kubelet-client': {
    ...kubernetes,
    commonName: 'kube-apiserver-kubelet-client',
    organization: admins,
  },
  'pki/apiserver-etcd-client': { commonName: 'kube-apiserver-etcd-client', usage: 'clientAuth', authority: 'etcd' },
  'pki/front-proxy-client': { commonName: 'front-proxy-client', usage: 'clientAuth', authority: 'front-proxy' },
  'pki/etcd/server': { ...member, usage: 'both', authority: 'etcd' },
  'pki/etcd/peer': { ...member, usage: 'both', authority: 'etcd' },
  'pki/etcd/healthcheck-client': {
    ...{ commonName: 'kube-etcd-healthcheck-client', usage: 'clientAuth', authority: 'etcd' },
  },
  'admin.conf': { ...kubernetes, commonName: 'kubernetes-admin', organization: admins },
  'controller-manager.conf': { ...kubernetes, commonName: 'system:kube-controller-manager' },
  'scheduler.conf': { ...kubernetes, commonName: 'system:kube-scheduler' },
  'kubelet.conf': { ...kubernetes, commonName: 'system:node:cp-1', organization: 'system:nodes' },
}

const usages = {
  serverAuth: ['1.3.6.1.5.5.7.3.1'],
  clientAuth: ['1.3.6.1.5.5.7.3.2'],
  both: ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'],
} as const

slowTest('each request of kubeadm gets its certificate, and each kubeconfig has it', async (t) => {
  const chancery = await openTestService(t)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-kubeadm-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const at = (name: string): string => join(folder, name)
  for (const [name, wanted] of Object.entries(files)) await generate(folder, name, wanted)
  const PATH = await putCommand(at('bin'))
  await writeFile(at('root.pem'), chancery.ca)
  await writeFile(at('admin.token'), chancery.adminToken, { mode: 0o600 })
  for (const authority of ['kubernetes', 'etcd', 'front-proxy']) {
    const accept = { accept: 'application/x-pem-file' }
    const path = `/v1/authorities/${authority}/bundle?anchors=issuers`
    await writeFile(at(`${authority}.pem`), (await chancery.request('GET', path, { headers: accept })).text)
  }
  const commands = (await blocksOf('docs/kubernetes.md')).get('kubeadm') ?? 'false'
  const env = {
    ...{ ...bare, PATH, HOME: folder },
    ...{ CHANCERY_URL: chancery.url, CHANCERY_CACERT: at('root.pem'), CHANCERY_TOKEN_FILE: at('admin.token') },
  }
  await promisify(execFile)('bash', ['-ceu', '-o', 'pipefail', commands], { cwd: folder, env })
  for (const [name, { commonName, organization, names = [], usage, authority }] of Object.entries(files)) {
    const leaf = new X509Certificate(await readFile(at(`new/${name}.crt`)))
    t.same(leaf.subject.split('\n'), [...(organization ? [`O=${organization}`] : []), `CN=${commonName}`], name)
    t.same(new Set(leaf.subjectAltName?.split(', ') ?? []), new Set(names), name)
    t.same(leaf.keyUsage, usages[usage], name)
    // Go takes an issuer in such a file for an anchor.
    const verify = ['verify', '-partial_chain', '-CAfile', at(`${authority}.pem`), at(`new/${name}.crt`)]
    t.match(await run('openssl', verify), { code: 0 }, name)
    if (!name.endsWith('.conf')) continue
    const shown = await output('kubectl', ['--kubeconfig', at(`new/${name}`), 'config', 'view', '--raw', '-o', 'json'])
    const { users, clusters } = JSON.parse(shown)
    const own = Buffer.from(users[0].user['client-certificate-data'], 'base64')
    t.equal(new X509Certificate(own).fingerprint256, leaf.fingerprint256)
    t.ok(users[0].user['client-key-data'])
    t.same([users.length, clusters.length], [1, 1], 'nothing beside what the context names')
    const trust = Buffer.from(clusters[0].cluster['certificate-authority-data'], 'base64').toString()
    t.equal(trust, await readFile(at('kubernetes.pem'), 'utf8'))
  }
})

/** As `kubeadm certs generate-csr` does, by openssl. */
const generate = async (
  folder: string,
  name: string,
  { commonName, organization, names = [] }: Wanted,
): Promise<void> => {
  const of = (kind: string): readonly string[] =>
    names.filter((text) => text.startsWith(`${kind}:`)).map((text) => text.slice(kind.length + 1))
  const { key, csr } = await keyPairFor(folder, {
    ...{ commonName, dnsNames: of('DNS'), ipAddresses: of('IP Address'), usages: [] },
    ...(organization !== undefined && { subject: { organizations: [organization] } }),
  })
  const path = join(folder, 'new', name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(`${path}.csr`, csr)
  if (!name.endsWith('.conf')) return writeFile(`${path}.key`, key)
  // What kubeadm calls clusterName.
  const context = { cluster: 'prod', user: commonName }
  const kubeconfig = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'it', contexts: [{ name: 'it', context }] },
    clusters: [{ name: 'prod', cluster: { server: 'https://10.0.0.5:6443' } }],
    users: [{ name: commonName, user: { 'client-key-data': Buffer.from(key).toString('base64') } }],
  }
  await writeFile(path, JSON.stringify(kubeconfig), { mode: 0o600 })
}
