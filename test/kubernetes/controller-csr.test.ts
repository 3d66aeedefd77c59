/** CertificateSigningRequests: signed by the controller, and those of kubelets approved where the settings say so. */
import { X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'
import { commonName, dns, hex, newP256, pem, rdn, request, san, seq, tlv, utf8 } from '../x509/build.ts'
import { openRunning, queued, type Running, readyOf, writesOf } from './running.ts'
import { condition, type Tree, textAt, uidOf } from './values.ts'

const signers = [
  { name: 'chanceryclusterissuers.chancery.dev/default', issuer: 'default' },
  { name: 'kubernetes.io/kubelet-serving', issuer: 'kubelets' },
]

const path = '/apis/certificates.k8s.io/v1/certificatesigningrequests'

interface Asking {
  readonly name: string
  readonly csr: Buffer
  readonly signerName?: string
  readonly usages?: readonly string[]
  readonly as?: string | undefined
}

const create = async ({ cluster }: Running, asking: Asking): Promise<Tree> => {
  const { name, csr, signerName = 'chanceryclusterissuers.chancery.dev/default', as } = asking
  const { usages = ['digital signature', 'client auth'] } = asking
  const { status, body } = await cluster.as(as).request('POST', path, {
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name } },
    spec: {
      request: Buffer.from(pem(csr)).toString('base64'),
      signerName,
      usages: [...usages],
      expirationSeconds: 3_600,
    },
  })
  if (status !== 201) throw new Error(JSON.stringify(body))
  return body as Tree
}

const approve = async ({ cluster }: Running, { metadata }: Tree, type = 'Approved'): Promise<void> => {
  const name = textAt({ metadata } as Tree, 'metadata', 'name')
  const { status } = await cluster
    .as()
    .request(
      'PATCH',
      `${path}/${name}/approval`,
      { status: { conditions: [{ type, status: 'True', reason: 'Test', message: 'by a test' }] } },
      { contentType: 'application/merge-patch+json' },
    )
  if (status !== 200) throw new Error(`${status}`)
}

const signed = ({ cluster }: Running, name: string): Promise<Tree | undefined> =>
  cluster.until('certificatesigningrequests', { name }, (object) => textAt(object, 'status', 'certificate') !== '')
const failed = ({ cluster }: Running, name: string): Promise<Tree | undefined> =>
  cluster.until('certificatesigningrequests', { name }, (object) => condition(object ?? {}, 'Failed') !== undefined)
const leafOf = (object: Tree | undefined): X509Certificate =>
  new X509Certificate(Buffer.from(textAt(object, 'status', 'certificate'), 'base64'))

const forClient = (...names: readonly string[]): Buffer =>
  request({ signer: newP256(), subject: commonName('client.example.test'), extensions: [san(...names.map(dns))] })

slowTest('an approved request is signed, for as long as it asks', async (t) => {
  const running = await openRunning(t, { settings: { signers } })
  await running.issuer({ kind: 'ChanceryClusterIssuer' })
  const object = await create(running, { name: 'first', csr: forClient('client.example.test') })
  const unapproved = await create(running, { name: 'unapproved', csr: forClient('other.example.test') })
  const denied = await create(running, { name: 'denied', csr: forClient('denied.example.test') })
  await approve(running, denied, 'Denied')
  await approve(running, object)
  const leaf = leafOf(await signed(running, 'first'))
  t.equal(leaf.validToDate.getTime() - leaf.validFromDate.getTime(), 3_599_000)
  t.same(running.front.issued, [uidOf(object)])
  for (const name of [unapproved, denied].map((one) => textAt(one, 'metadata', 'name')))
    t.notOk(textAt(running.cluster.get('certificatesigningrequests', '', name), 'status', 'certificate'))
  t.equal(writesOf(running, 'certificatesigningrequests').length, 1)
  // No more of it is held in memory than whose it is.
  const names = Array.from({ length: 60 }, (_, i) => `${'long-'.repeat(8)}${i}.example.test`)
  await approve(running, await create(running, { name: 'long', csr: forClient('client.example.test', ...names) }))
  t.equal(leafOf(await signed(running, 'long')).subjectAltName?.split(', ').length, 61)
})

t.test('what the profile refuses has failed, by the check; system:masters never gets as far', async (t) => {
  const running = await openRunning(t, { settings: { signers } })
  await running.issuer({ kind: 'ChanceryClusterIssuer' })
  const asked = await create(running, { name: 'bad', csr: forClient('denied.example.test') })
  await approve(running, asked)
  const bad = await failed(running, 'bad')
  t.match(condition(bad ?? {}, 'Failed'), { reason: 'SanForbidden', message: /names\.dns\.deny/ })
  const subject = seq(rdn('2.5.4.10', utf8('system:masters')), rdn('2.5.4.3', utf8('admin')))
  await approve(running, await create(running, { name: 'masters', csr: request({ signer: newP256(), subject }) }))
  const masters = await failed(running, 'masters')
  t.match(condition(masters ?? {}, 'Failed'), { reason: 'SignerValidationFailure', message: /system:masters/ })
  t.same([...new Set(running.front.issued)], [uidOf(asked)])
})

t.test('whoever has asked is told where the controller has no right to sign for the signer', async (t) => {
  const unbound = { name: 'kubernetes.io/kube-apiserver-client', issuer: 'default' }
  const running = await openRunning(t, { settings: { signers: [unbound] } })
  await running.issuer({ kind: 'ChanceryClusterIssuer' })
  const asking = { name: 'unbound', csr: forClient('client.example.test'), signerName: unbound.name }
  await approve(running, await create(running, { ...asking, usages: ['client auth'] }))
  const told = await noted(running, 'StatusRefused')
  t.match(
    told,
    /does not take its status: .*not permitted to sign requests with signerName "kubernetes\.io\/kube-apiserver-client"$/,
  )
  t.match(
    await running.controllers[0]?.metrics(),
    /writes_total\{resource="certificatesigningrequests",outcome="failed"\} [1-9]/,
  )
})

t.test('whoever asks a signer for much is not before the others', async (t) => {
  const running = await openRunning(t, { settings: { signers, concurrency: 4 } })
  const { cluster, front } = running
  await running.issuer({ kind: 'ChanceryClusterIssuer' })
  await cluster.until('chanceryclusterissuers', { name: 'default' }, (object) => readyOf(object) === 'Checked')
  const { held, release } = front.hold()
  const csr = forClient('client.example.test')
  for (let i = 0; i < 30; i += 1) await approve(running, await create(running, { name: `many-${i}`, csr }))
  await held
  const other = cluster.tokenFor({ username: 'other', groups: ['system:masters', 'system:authenticated'] })
  const one = await create(running, { name: 'one', csr: forClient('client.example.test'), as: other })
  await approve(running, one)
  while ((await queued(running, 'ready', 'certificatesigningrequests')) + front.issued.length < 31) await sleep(5)
  release()
  await signed(running, 'one')
  t.ok(front.issued.indexOf(uidOf(one)) < 10, `it was number ${front.issued.indexOf(uidOf(one)) + 1}`)
})

t.test('a request that leaves no room for its certificate has failed', async (t) => {
  const running = await openRunning(t, { settings: { signers } })
  await running.issuer({ kind: 'ChanceryClusterIssuer' })
  const when = { plural: 'certificatesigningrequests', resource: 'certificatesigningrequests/status' }
  const full = running.cluster.faults.add('large', { when, times: 1 })
  await approve(running, await create(running, { name: 'large', csr: forClient('client.example.test') }))
  t.match(condition((await failed(running, 'large')) ?? {}, 'Failed'), {
    ...{ reason: 'RequestTooLarge', message: /so large that the API server cannot store a certificate with it$/ },
  })
  full.end()
  const fuller = running.cluster.faults.add('large', { when })
  await approve(running, await create(running, { name: 'larger', csr: forClient('client.example.test') }))
  while ((await queued(running, 'left', 'certificatesigningrequests')) !== 1) await sleep(10)
  t.ok(fuller.used() >= 2, 'with its certificate, and without')
  t.match(await noted(running, 'StatusRefused'), /does not take its status: etcdserver: request is too large$/)
})

/** Resolves with the note of the first event for this reason. */
const noted = async ({ cluster }: Running, reason: string): Promise<string> => {
  for (;;) {
    const found = cluster.list('events.events.k8s.io', 'default').find((event) => textAt(event, 'reason') === reason)
    if (found) return textAt(found, 'note')
    await sleep(10)
  }
}

t.test('a kubelet’s request is approved by its Node object, signed, and never signed without it', async (t) => {
  const running = await openRunning(t, { settings: { signers, approveKubeletServing: true } })
  const { cluster } = running
  const token = await employ(running.service, 'kubelets', 'requester', {
    profiles: ['kubelet-serving'],
    onBehalfOf: {},
  } as never)
  await cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'kubelets', namespace: 'chancery-system' } },
    data: { token: Buffer.from(token).toString('base64') },
  })
  const spec = { profile: 'kubelet-serving', auth: { tokenSecretRef: { name: 'kubelets' } } }
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'kubelets', spec })
  const worker = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'worker-1' } }
  const addresses = [
    { type: 'InternalIP', address: '10.0.0.11' },
    { type: 'Hostname', address: 'worker-1' },
  ]
  await cluster.apply({ ...worker, status: { addresses } })
  const node = cluster.tokenFor({ username: 'system:node:worker-1', groups: ['system:nodes', 'system:authenticated'] })
  const subject = seq(rdn('2.5.4.10', utf8('system:nodes')), rdn('2.5.4.3', utf8('system:node:worker-1')))
  const serving = (address: string): Buffer =>
    request({ signer: newP256(), subject, extensions: [san(dns('worker-1'), tlv(0x87, hex(address)))] })
  const asking = {
    ...{ signerName: 'kubernetes.io/kubelet-serving', usages: ['digital signature', 'server auth'], as: node },
  }
  await create(running, { ...asking, name: 'good', csr: serving('0a00000b') })
  const leaf = leafOf(await signed(running, 'good'))
  t.match(leaf.subject, /system:node:worker-1/)
  t.match(leaf.subjectAltName, /10\.0\.0\.11/)
  await create(running, { ...asking, name: 'strange', csr: serving('0a00000c') })
  t.match(
    await noted(running, 'NotApproved'),
    /left to people: names: ip 10\.0\.0\.12 is not among the addresses of the node/,
  )
  t.equal(condition(cluster.get('certificatesigningrequests', '', 'strange') ?? {}, 'Approved'), undefined)
  while ((await queued(running, 'left', 'certificatesigningrequests')) !== 1) await sleep(5)
  // A cloud writes the addresses of a node after it has asked: nobody waits for the next look, a minute later.
  const late = cluster.until('certificatesigningrequests', { name: 'strange' }, (object) => isApproved(object))
  await cluster.apply({
    ...worker,
    status: { addresses: [...addresses, { type: 'ExternalIP', address: '10.0.0.12' }] },
  })
  t.ok(await late)
  t.match(leafOf(await signed(running, 'strange')).subjectAltName, /10\.0\.0\.12/)
  // What another node has as well is left to people.
  const rival = { ...worker, metadata: { name: 'worker-2' } }
  await cluster.apply({ ...rival, status: { addresses: [{ type: 'InternalIP', address: '10.0.0.11' }] } })
  await create(running, { ...asking, name: 'shared', csr: serving('0a00000b') })
  while ((await queued(running, 'left', 'certificatesigningrequests')) !== 1) await sleep(5)
  t.equal(condition(cluster.get('certificatesigningrequests', '', 'shared') ?? {}, 'Approved'), undefined)
})

const isApproved = (object: Tree | undefined): boolean => condition(object ?? {}, 'Approved') !== undefined
