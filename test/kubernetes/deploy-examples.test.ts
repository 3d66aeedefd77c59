/** Every certificate that the examples ask for is issued by a real Chancery, and is what openssl takes it for. */
import { randomUUID, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'
import { parse } from 'yaml'

import { readRequest } from '../../src/cli/controller.ts'
import type { PodCertificateRequest, SigningRequest } from '../../src/kubernetes/api/objects.ts'
import type { Ask } from '../../src/kubernetes/decide/asking.ts'
import { decidePod } from '../../src/kubernetes/decide/pod.ts'
import { decideSigning } from '../../src/kubernetes/decide/signing.ts'
import { chanceryFor } from '../helpers/run.ts'
import type { Answer } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'
import { assertTools, output } from '../interop/tools.ts'
import { askFor, born, certManager, keyPairFor, openChancerySide, readyIssuer } from './chancery-side.ts'
import { home, type Json, type Manifest, manifests, namesIn, render, renderWith } from './manifests.ts'

t.setTimeout(300_000)
await assertTools('openssl', 'kubectl')

const side = await openChancerySide(t)
const { service } = side
const folder = await mkdtemp(join(tmpdir(), 'chancery-examples-'))
t.teardown(() => rm(folder, { recursive: true }))
const chancery = chanceryFor(service)
const succeed = async (args: readonly string[]): Promise<void> => {
  const { code, err } = await chancery(args)
  if (code !== 0) throw new Error(`chancery ${args.join(' ')} ended with ${code}: ${err}`)
}
const profiles = ['ingress', 'service-mtls', 'mqtt-client', 'user-client'].map((name) =>
  join(home, 'deploy/kubernetes/chancery/profiles', `${name}.yaml`),
)
await succeed(['profile', 'apply', ...profiles])
const document = join(folder, 'cluster.yaml')
await writeFile(document, (await side.clusterDocument()) + side.clusterCa.replace(/^/gm, '    '))
await succeed(['identity-provider', 'apply', document])

/** A Certificate, or what cert-manager's csi-driver makes of a volume. */
const certificatesOf = (object: Manifest): readonly Manifest[] => {
  if (object.kind === 'Certificate') return [object]
  const volumes: readonly Json[] = object['spec']?.template?.spec?.volumes ?? []
  return volumes
    .filter(({ csi }) => csi?.driver === 'csi.cert-manager.io')
    .map(({ csi: { volumeAttributes: of } }) => {
      const at = (key: string): string => of[`csi.cert-manager.io/${key}`] ?? ''
      const listAt = (key: string): readonly string[] => at(key).split(',').filter(Boolean)
      const issuerRef = { group: at('issuer-group'), kind: at('issuer-kind'), name: at('issuer-name') }
      const spec = { dnsNames: listAt('dns-names'), usages: listAt('key-usages'), duration: at('duration'), issuerRef }
      return { ...object, apiVersion: 'cert-manager.io/v1', kind: 'Certificate', spec }
    })
}

interface Wanted {
  readonly place: string
  readonly certificate: Manifest
  readonly issuer: Manifest
}

const wanted: Wanted[] = []
for (const name of await namesIn('examples')) {
  const objects = await render(join(manifests, 'examples', name))
  for (const certificate of objects.flatMap(certificatesOf)) {
    const { kind, name: issuerName } = certificate['spec'].issuerRef
    const issuer = objects.find((object) => object.kind === kind && object.metadata.name === issuerName)
    if (!issuer) throw new Error(`${certificate.metadata.name} has no issuer`)
    wanted.push({ place: name, certificate, issuer })
  }
}

/** By the authority's root, by its issuers alone, and for everything that was asked for; and the key is the request's. */
const verify = async (t: Test, { json }: Answer, { spec, key }: { spec: Json; key: string }): Promise<void> => {
  const at = (name: string): string => join(folder, `${json.serial}.${name}.pem`)
  await writeFile(at('leaf'), json.certificate)
  await writeFile(at('chain'), json.chain.join(''))
  await writeFile(at('root'), service.ca)
  const { text } = await service.request('GET', `/v1/authorities/${json.issuer}/bundle?anchors=issuers`, {
    headers: { accept: 'application/x-pem-file' },
  })
  await writeFile(at('issuers'), text)
  const usages: readonly string[] = spec.usages
  const purposes = [
    ...(usages.includes('server auth') ? ['sslserver'] : []),
    ...(usages.includes('client auth') ? ['sslclient'] : []),
  ]
  t.ok(purposes.length > 0)
  for (const purpose of purposes) {
    const strict = ['verify', '-x509_strict', '-purpose', purpose]
    const ways = [
      ['-CAfile', at('root'), '-untrusted', at('chain')],
      ['-partial_chain', '-CAfile', at('issuers')],
    ]
    for (const way of ways) t.match(await output('openssl', [...strict, ...way, at('leaf')]), /: OK\n$/, purpose)
  }
  const leaf = new X509Certificate(json.certificate)
  for (const name of spec.dnsNames ?? []) t.equal(leaf.checkHost(name), name, name)
  for (const address of spec.ipAddresses ?? []) t.equal(leaf.checkIP(address), address, address)
  if (spec.commonName) t.match(leaf.subject, `CN=${spec.commonName}`)
  for (const organization of spec.subject?.organizations ?? []) t.match(leaf.subject, `O=${organization}`)
  const shown = await output('openssl', ['pkey', '-pubout'], key)
  t.equal(leaf.publicKey.export({ type: 'spki', format: 'pem' }), shown)
}

slowTest('each example gets its certificates, as cert-manager would ask for them', async (t) => {
  t.ok(wanted.length >= 12, `${wanted.length} certificates`)
  for (const { place, certificate, issuer } of wanted) {
    await t.test(`${place}: ${certificate.metadata.name}`, async (t) => {
      const { key, csr } = await keyPairFor(folder, certificate['spec'])
      const answer = await side.ask(askFor(certificate, issuer, csr))
      t.equal(answer.status, 201, answer.text)
      await verify(t, answer, { spec: certificate['spec'], key })
    })
  }
})

t.test('nobody gets them from another namespace', async (t) => {
  for (const { place, certificate, issuer } of wanted) {
    const elsewhere = { ...certificate, metadata: { ...certificate.metadata, namespace: 'intruder' } }
    const { csr } = await keyPairFor(folder, certificate['spec'])
    const { status, json } = await side.ask(askFor(elsewhere, issuer, csr))
    t.ok([403, 422].includes(status), `${place}: ${certificate.metadata.name}: ${status} ${json?.code}`)
    t.equal(json.retryable, false)
  }
})

// ---- requests of certificates.k8s.io

interface Asked {
  readonly issuer: Manifest
  readonly signerName: string
  readonly usages: readonly string[]
  readonly username: string
  readonly groups: readonly string[]
}

/** Approved, and asked for as the controller would. */
const askForRequest = (csr: string, { issuer, signerName, usages, username, groups }: Asked): Ask => {
  const request: SigningRequest = {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: { name: 'csr-x7k', ...born() },
    spec: { request: Buffer.from(csr).toString('base64'), signerName, usages, username, groups },
    status: { conditions: [{ type: 'Approved', status: 'True' }] },
  }
  const signer = { name: signerName, issuer: issuer.metadata.name }
  const facts = readRequest(csr)
  const step = decideSigning({ request, issuer: readyIssuer(issuer), facts, signer, now: new Date(), waited: 0 })
  if (step.kind !== 'ask') throw new Error(`the controller would not ask: ${JSON.stringify(step)}`)
  return step.ask
}

/** The issuer that a component ships. */
const issuerOf = async (component: string): Promise<Manifest> => {
  const [issuer] = (await renderWith('base', [component])).filter(({ kind }) => kind === 'ChanceryClusterIssuer')
  if (!issuer) throw new Error(`${component} has no issuer`)
  return issuer
}

t.test('whoever makes a request of the signer in csr-signers gets a certificate in their own name', async (t) => {
  const { signers } = parse(await readFile(join(manifests, 'components/csr-signers/controller.yaml'), 'utf8'))
  const issuer = await issuerOf('csr-signers')
  t.strictSame(signers, [{ name: 'chanceryclusterissuers.chancery.dev/user-client', issuer: issuer.metadata.name }])
  for (const username of ['alice', 'system:serviceaccount:shop:web']) {
    const spec = {
      commonName: username,
      privateKey: { algorithm: 'ECDSA' },
      usages: ['digital signature', 'client auth'],
    }
    const { key, csr } = await keyPairFor(folder, spec)
    const asked = { issuer, signerName: signers[0].name, usages: spec.usages, groups: ['system:authenticated'] }
    const answer = await side.ask(askForRequest(csr, { ...asked, username }))
    t.equal(answer.status, 201, answer.text)
    await verify(t, answer, { spec, key })
    const other = await side.ask(askForRequest(csr, { ...asked, username: 'mallory' }))
    t.match(other, { status: 422, json: { code: 'policy.bind', retryable: false } })
  }
})

// ---- kubelets

const node = 'worker-1'
const kubelet = {
  commonName: `system:node:${node}`,
  subject: { organizations: ['system:nodes'] },
  dnsNames: [node],
  ipAddresses: ['10.1.2.3'],
  privateKey: { algorithm: 'ECDSA' },
  usages: ['digital signature', 'server auth'],
}

/** What a kubelet with serverTLSBootstrap asks for, approved. */
const askForKubelet = async (csr: string, username: string): Promise<Ask> =>
  askForRequest(csr, {
    ...{ issuer: await issuerOf('kubelet-serving'), signerName: 'kubernetes.io/kubelet-serving' },
    ...{ usages: kubelet.usages, username, groups: ['system:nodes', 'system:authenticated'] },
  })

t.test('a pod gets its account’s identity from the kubelet', async (t) => {
  const [issuer, pod] = await render(join(manifests, 'examples/pod-certificate'))
  if (!issuer || !pod) throw new Error('the example has an issuer and a pod')
  const [{ podCertificate }] = pod['spec'].volumes[0].projected.sources
  const [group, name] = podCertificate.signerName.split('/')
  t.match(issuer, { kind: 'ChanceryClusterIssuer', metadata: { name } })
  t.equal(group, 'chanceryclusterissuers.chancery.dev')
  const { key, csr } = await keyPairFor(folder, { privateKey: { algorithm: 'ECDSA' } })
  const request: PodCertificateRequest = {
    apiVersion: 'certificates.k8s.io/v1beta1',
    kind: 'PodCertificateRequest',
    metadata: { name: 'p-1', namespace: 'shop', ...born() },
    spec: {
      ...{ podName: 'workload', podUID: randomUUID(), nodeName: 'worker-1', nodeUID: randomUUID() },
      ...{ serviceAccountName: 'default', serviceAccountUID: randomUUID(), signerName: podCertificate.signerName },
      maxExpirationSeconds: podCertificate.maxExpirationSeconds,
      stubPKCS10Request: csr.replaceAll(/-----.*-----|\n/g, ''),
    },
  }
  const settings = parse(await readFile(join(manifests, 'components/pod-certificates/controller.yaml'), 'utf8'))
  const signer = settings.signers.find((one: { name: string }) => one.name === podCertificate.signerName)
  t.equal(signer.issuer, name)
  const look = { request, issuer: readyIssuer(issuer), facts: readRequest(csr), signer, now: new Date(), waited: 0 }
  const step = decidePod(look)
  if (step.kind !== 'ask') throw new Error(`the controller would not ask: ${JSON.stringify(step)}`)
  const answer = await side.ask(step.ask)
  t.equal(answer.status, 201, answer.text)
  await verify(t, answer, { spec: { usages: ['server auth', 'client auth'] }, key })
  t.equal(new X509Certificate(answer.json.certificate).subjectAltName, 'URI:spiffe://cluster.local/ns/shop/sa/default')
})

t.test('a kubelet gets its serving certificate, and not another’s', async (t) => {
  const text = await readFile(join(manifests, 'examples/kubelet/kubelet.yaml'), 'utf8')
  t.match(text, /^serverTLSBootstrap: true$/m)
  const { key, csr } = await keyPairFor(folder, kubelet)
  const answer = await side.ask(await askForKubelet(csr, kubelet.commonName))
  t.equal(answer.status, 201, answer.text)
  await verify(t, answer, { spec: kubelet, key })
  const other = await side.ask(await askForKubelet(csr, 'system:node:worker-2'))
  t.match(other, { status: 422, json: { code: 'policy.bind', retryable: false } })
  const person = await side.ask(await askForKubelet(csr, 'alice'))
  t.match(person, { status: 403 })
})

t.test('a CertificateRequest gets nothing by who it says has asked, be it cert-manager or a node', async (t) => {
  const client = { privateKey: { algorithm: 'ECDSA' }, usages: ['digital signature', 'client auth'] }
  const node = { username: kubelet.commonName, groups: ['system:nodes', 'system:authenticated'] }
  for (const [component, spec, requester] of [
    ['csr-signers', { ...client, commonName: certManager.username }, certManager],
    ['kubelet-serving', kubelet, node],
  ] as const) {
    const { csr } = await keyPairFor(folder, spec)
    const issuer = await issuerOf(component)
    const issuerRef = { group: 'chancery.dev', kind: issuer.kind, name: issuer.metadata.name }
    const certificate: Manifest = {
      ...{ apiVersion: 'cert-manager.io/v1', kind: 'Certificate', metadata: { name: 'x', namespace: 'tenant' } },
      spec: { duration: '24h', usages: spec.usages, issuerRef },
    }
    const answer = await side.ask(askFor(certificate, issuer, csr, requester))
    t.match(answer, {
      status: 403,
      json: { code: 'origin.forbidden', violations: [{ field: '/onBehalfOf/namespace' }] },
    })
  }
  const { csr } = await keyPairFor(folder, { ...client, commonName: certManager.username })
  const own = {
    csr,
    profile: 'user-client',
    onBehalfOf: { user: certManager.username, namespace: 'tenant' },
  }
  const token = await employ(service, 'another', 'requester', { profiles: ['user-client'], onBehalfOf: {} })
  const byAny = await service.request('POST', '/v1/certificates', { token, body: own })
  t.match(byAny, { status: 422, json: { code: 'policy.origin' } }, 'whatever the grant says')
})
