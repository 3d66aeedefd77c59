/** The controller as the overlay has it, with its rights, its settings and its account's token, serves the examples. */
import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import t from 'tap'

import { readControllerDocument, settingsOf } from '../../src/cli/controller.ts'
import { chanceryFor } from '../helpers/run.ts'
import { employ } from '../http/people.ts'
import { keyPairFor } from './chancery-side.ts'
import { type Json, type Manifest, manifests, podsOf, render } from './manifests.ts'
import { openRunning, readyOf } from './running.ts'
import { condition, type Tree, textAt } from './values.ts'

t.setTimeout(300_000)

const overlay = await render(join(manifests, 'overlays/kubelet-serving'))
const examples = (
  await Promise.all(
    ['ingress', 'control-plane', 'csi-driver', 'mqtt'].map((name) => render(join(manifests, 'examples', name))),
  )
).flat()
const ofKind = (objects: readonly Manifest[], kind: RegExp): readonly Tree[] =>
  objects.filter((object) => kind.test(object.kind)) as unknown as readonly Tree[]

const folder = await mkdtemp(join(tmpdir(), 'chancery-cluster-'))
t.teardown(() => rm(folder, { recursive: true }))

const namespaces = ['chancery-system', 'team-a', 'shop', 'control-plane', 'storage', 'messaging']
const running = await openRunning(t, {
  idle: true,
  cluster: {
    definitions: ofKind(overlay, /^CustomResourceDefinition$/),
    rbac: ofKind(overlay, /^(Cluster)?Role(Binding)?$/),
    namespaces,
  },
})
const { cluster, service, front } = running

/** Chancery’s side: profiles, and whose tokens are believed. */
const chancery = chanceryFor(service)
const document = await readFile(join(manifests, 'chancery/cluster.yaml'), 'utf8')
await writeFile(
  join(folder, 'cluster.yaml'),
  document.replace(/^issuer: \S+/m, `issuer: ${cluster.url}`) + cluster.ca.replace(/^/gm, '    '),
)
for (const args of [
  [
    'profile',
    'apply',
    ...['ingress', 'service-mtls', 'mqtt-client', 'user-client'].map((name) =>
      join(manifests, `chancery/profiles/${name}.yaml`),
    ),
  ],
  ['identity-provider', 'apply', join(folder, 'cluster.yaml')],
]) {
  const { code, err } = await chancery(args)
  if (code !== 0) throw new Error(err)
}

/** The files of the pod, with what the kubelet would put there. */
const pod: Json = podsOf(overlay.find(({ kind }) => kind === 'Deployment') as Manifest)[0]?.spec
const told = overlay.find(({ kind, metadata }) => kind === 'ConfigMap' && /^chancery-controller/.test(metadata.name))
const [file = ''] = pod.containers[0].args.slice(-1)
const here = (text: string): string =>
  text
    .replaceAll(/ (\/etc|\/run)\//g, ` ${folder}$1/`)
    .replace(/https:\/\/chancery\.chancery-system\.svc:8443/, front.url)
await mkdir(join(folder, dirname(file)), { recursive: true })
await writeFile(join(folder, file), here(told?.['data']['controller.yaml']))
const { document: controllerDocument } = await readControllerDocument(join(folder, file))
const settings = settingsOf(controllerDocument, folder, 'chancery-system')
for (const { caFile = '', token } of settings.servers) {
  await mkdir(dirname(caFile), { recursive: true })
  await writeFile(caFile, service.ca)
  await mkdir(dirname(token?.file ?? ''), { recursive: true })
  const audiences = [token?.audience ?? '']
  await writeFile(token?.file ?? '', cluster.tokenOf('chancery-system/chancery-controller', { audiences }))
}

const issuers = ofKind([...overlay, ...examples], /^Chancery(Cluster)?Issuer$/)
for (const issuer of issuers)
  await cluster.apply(JSON.parse(JSON.stringify(issuer).replace(/https:\/\/chancery[^"]*:8443/, front.url)))
const controller = await running.start({ ...settings, listen: { host: '127.0.0.1', port: 0 } })

t.test('every issuer of the examples is ready', async (t) => {
  for (const { kind, metadata } of issuers) {
    const { name, namespace = '' } = metadata as Json
    const plural = `${String(kind).toLowerCase()}s`
    const issuer = await cluster.until(plural, { namespace, name }, (object) => readyOf(object) !== undefined)
    t.equal(readyOf(issuer), 'Checked', `${kind} ${name}: ${textAt(condition(issuer ?? {}, 'Ready'), 'message')}`)
  }
})

t.test('cert-manager’s approver approves, and the certificate of the Ingress is there', async (t) => {
  cluster.certManager.approveAll()
  const { spec } = examples.find(({ kind }) => kind === 'Certificate') as Manifest
  const { kind, name } = spec.issuerRef
  await cluster.certManager.create({
    ...{ namespace: 'shop', name: 'shop-1', issuer: { kind, name }, names: spec.dnsNames },
    ...{ usages: spec.usages, duration: '720h0m0s' },
  })
  const where = { namespace: 'shop', name: 'shop-1' }
  const done = await cluster.until('certificaterequests', where, (object) => readyOf(object) !== undefined)
  t.equal(readyOf(done), 'Issued', textAt(condition(done ?? {}, 'Ready'), 'message'))
  const leaf = new X509Certificate(Buffer.from(textAt(done, 'status', 'certificate'), 'base64'))
  t.equal(leaf.subjectAltName, 'DNS:shop.example.com, DNS:www.shop.example.com')

  await cluster.certManager.create({
    namespace: 'storage',
    name: 'stolen-1',
    issuer: { kind, name },
    names: spec.dnsNames,
  })
  const stolen = { namespace: 'storage', name: 'stolen-1' }
  const refused = await cluster.until('certificaterequests', stolen, (object) => readyOf(object) !== undefined)
  t.equal(readyOf(refused), 'Failed')
  t.match(textAt(condition(refused ?? {}, 'Ready'), 'message'), /bind\.own-domain/)
})

t.test('a kubelet’s request is approved and signed', async (t) => {
  await cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Node', metadata: { name: 'worker-1' } },
    status: { addresses: [{ type: 'InternalIP', address: '10.0.0.11' }] },
  })
  const usages = ['digital signature', 'server auth']
  const { csr } = await keyPairFor(folder, {
    ...{ commonName: 'system:node:worker-1', subject: { organizations: ['system:nodes'] } },
    ...{ ipAddresses: ['10.0.0.11'], privateKey: { algorithm: 'ECDSA' }, usages },
  })
  const node = cluster.tokenFor({ username: 'system:node:worker-1', groups: ['system:nodes', 'system:authenticated'] })
  const { status } = await cluster.as(node).request('POST', '/apis/certificates.k8s.io/v1/certificatesigningrequests', {
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name: 'csr-1' } },
    spec: { request: Buffer.from(csr).toString('base64'), signerName: 'kubernetes.io/kubelet-serving', usages },
  })
  t.equal(status, 201)
  const signed = await cluster.until(
    'certificatesigningrequests',
    { name: 'csr-1' },
    (object) => textAt(object, 'status', 'certificate') !== '',
  )
  const leaf = new X509Certificate(Buffer.from(textAt(signed, 'status', 'certificate'), 'base64'))
  t.equal(leaf.subjectAltName, 'IP Address:10.0.0.11')
})

t.test('a team asks with a token of its own, which is the one Secret that the controller may read', async (t) => {
  const team = await render(join(manifests, 'examples/team'))
  for (const object of ofKind(team, /^Role(Binding)?$/)) await cluster.apply(object)
  const grant = { profiles: ['service-mtls'], onBehalfOf: { required: true, namespaces: { allow: ['team-a'] } } }
  const token = await employ(service, 'team-a', 'requester', grant)
  for (const name of ['chancery-token', 'other']) {
    const data = { token: Buffer.from(token).toString('base64') }
    await cluster.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: 'team-a' }, data })
  }
  const [example] = ofKind(team, /^ChanceryIssuer$/)
  const ready = async (name: string, secret: string): Promise<string | undefined> => {
    const spec = {
      ...(example?.['spec'] as Tree),
      url: front.url,
      auth: { tokenSecretRef: { name: secret, key: 'token' } },
    }
    await cluster.apply({ ...example, metadata: { name, namespace: 'team-a' }, spec } as Tree)
    const issuer = await cluster.until(
      'chanceryissuers',
      { namespace: 'team-a', name },
      (object) => readyOf(object) !== undefined,
    )
    return `${readyOf(issuer)}: ${textAt(condition(issuer ?? {}, 'Ready'), 'message')}`
  }
  t.match(await ready('team-a', 'chancery-token'), /^Checked: /)
  t.match(await ready('curious', 'other'), /^(Failed|Pending): .*(forbidden|403|may not)/i)
})

t.test('and no right was missing', async (t) => {
  const refused = cluster.writes.filter(({ actor, status }) => actor.includes('chancery') && status === 403)
  t.strictSame(refused, [])
  const actors = new Set(cluster.writes.map(({ actor }) => actor))
  t.ok(actors.has('system:serviceaccount:chancery-system:chancery-controller'), [...actors].join(', '))
  t.ok(controller.ready)
})
