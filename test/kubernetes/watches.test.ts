/** What is watched by which settings, which changes wake whom, and when an instance says that it could not work. */
import { setTimeout as sleep } from 'node:timers/promises'

import { Registry } from 'prom-client'
import t from 'tap'

import { openApi } from '../../src/kubernetes/api/client.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import { keepRequest } from '../../src/kubernetes/reconcile/requests.ts'
import { keepSigningRequest } from '../../src/kubernetes/reconcile/signing.ts'
import { openWatches, type WatchTimes } from '../../src/kubernetes/reconcile/watches.ts'
import type { ControllerSettings } from '../../src/kubernetes/settings.ts'
import { quiet } from '../helpers/log.ts'
import { type Cluster, openCluster } from './cluster.ts'
import { certificateRequest, recorded, signingRequest, withConditions } from './objects.ts'
import { manifests, until } from './running.ts'
import { type Tree, treeAt } from './values.ts'

const nothing = { certManager: false, signers: [], approveKubeletServing: false, podCertificates: false } as const
type Watched = Partial<Pick<ControllerSettings, keyof typeof nothing>>

const definitions = manifests('crds/chanceryissuers', 'crds/chanceryclusterissuers')

const open = (
  t: Parameters<typeof openCluster>[0],
  cluster: Cluster,
  settings: Watched,
  times?: Partial<WatchTimes>,
) => {
  const token = cluster.tokenFor({ username: 'controller', groups: ['system:masters', 'system:authenticated'] })
  const api = openApi(async () => ({
    ...{ server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } },
  }))
  const woken: string[] = []
  const wake = (kind: string) => (name: string, why?: string) => void woken.push(`${kind} ${name} ${why}`)
  const registry = new Registry()
  const time = { passed: 0 }
  const watches = openWatches(
    {
      ...{ api, settings: { ...nothing, ...settings } as ControllerSettings, meter: openMeter(registry), log: quiet },
      ...{ random: () => 0, now: () => performance.now() + time.passed },
      times: { firstMs: 20, watchSeconds: 60, ...times },
    },
    {
      ...{ issuer: wake('issuer'), throughIssuer: wake('through'), request: wake('request') },
      ...{ signingRequest: wake('signing'), podRequest: wake('pod'), node: wake('node') },
    },
  )
  t.teardown(async () => {
    await watches.close()
    api.close()
  })
  const metric = async (name: string): Promise<readonly string[]> =>
    (await registry.metrics()).split('\n').filter((line) => line.startsWith(`${name}{`))
  return { watches, woken, time, metric }
}

const listed = (cluster: Cluster): readonly string[] =>
  [...new Set(cluster.requests.filter(({ verb }) => verb === 'list').map(({ plural }) => plural))].sort()

const both = ['chanceryclusterissuers', 'chanceryissuers']

t.test('what no setting is about is not watched', async (t) => {
  const signers = [{ name: 'example.com/x', issuer: 'default' }]
  for (const [settings, plurals] of [
    [{}, []],
    [{ certManager: true }, ['certificaterequests']],
    [{ signers }, ['certificatesigningrequests']],
    [{ approveKubeletServing: true }, ['certificatesigningrequests', 'nodes']],
    [{ podCertificates: true }, ['podcertificaterequests']],
  ] as const) {
    const cluster = await openCluster(t, { definitions })
    const { watches, metric } = open(t, cluster, settings)
    const all = [...both, ...plurals].sort()
    t.same([...watches.missing()].sort(), all)
    t.same(
      [...watches.unready()].sort(),
      all.map((plural) => `${plural} have not been listed yet`),
    )
    await until(() => watches.missing().length === 0)
    t.same(watches.unready(), [])
    t.same(listed(cluster), all)
    const kept = {
      certificaterequests: watches.requests,
      certificatesigningrequests: watches.signingRequests,
      podcertificaterequests: watches.podRequests,
      nodes: watches.nodes,
    }
    for (const [plural, objects] of Object.entries(kept)) t.equal(objects !== undefined, all.includes(plural), plural)
    const lines = await metric('chancery_controller_objects')
    t.same(lines.map((line) => /resource="(\w+)"/.exec(line)?.[1]).sort(), all)
    await watches.close()
  }
})

t.test('a request wakes when it comes, is decided, ends or goes, and not when it is touched', async (t) => {
  const cluster = await openCluster(t, { definitions })
  const { watches, woken, metric } = open(t, cluster, { certManager: true })
  await until(() => watches.missing().length === 0)
  const ask = (name: string) => cluster.certManager.create({ name, issuer: { kind: 'ChanceryIssuer', name: 'x' } })
  const made = await ask('one')
  await until(() => woken.length === 1)
  const { apiVersion, kind } = made
  const metadata = { name: 'one', namespace: 'team-a' } as const
  await cluster.apply({
    apiVersion,
    kind,
    metadata: { ...metadata, annotations: { note: 'a' } },
    spec: treeAt(made, 'spec'),
  } as Tree)
  const touched = cluster.get('certificaterequests', 'team-a', 'one') as Tree
  await cluster.certManager.approve(touched)
  await until(() => woken.length === 2)
  t.same(await metric('chancery_controller_objects'), [
    'chancery_controller_objects{resource="chanceryissuers"} 0',
    'chancery_controller_objects{resource="chanceryclusterissuers"} 0',
    'chancery_controller_objects{resource="certificaterequests"} 1',
  ])
  await cluster.remove('certificaterequests', 'team-a', 'one')
  await ask('last')
  await until(() => woken.some((one) => one.includes('last')))
  t.same(woken, [...Array(3).fill('request team-a/one changed'), 'request team-a/last changed'])
})

t.test('what is said again every so often is only looked at again, and nodes wake nobody by it', async (t) => {
  const cluster = await openCluster(t, { definitions })
  await cluster.certManager.create({ name: 'one', issuer: { kind: 'ChanceryIssuer', name: 'x' } })
  seedNode(cluster, 'worker-1', '10.0.0.1')
  const { watches, woken } = open(t, cluster, { certManager: true, approveKubeletServing: true }, { resyncMs: 20 })
  await until(() => watches.missing().length === 0)
  await until(() => woken.filter((one) => one.endsWith('resync')).length > 4)
  t.same([...new Set(woken)], ['request team-a/one changed', 'request team-a/one resync'])
})

const seedNode = (cluster: Cluster, name: string, address: string): Tree =>
  cluster.double.seed({
    ...{ apiVersion: 'v1', kind: 'Node', metadata: { name } },
    status: { addresses: [{ type: 'InternalIP', address }] },
  })

t.test(
  'a node wakes those who ask for it when it comes, has other addresses, or goes; not at the first list',
  async (t) => {
    const cluster = await openCluster(t, { definitions })
    seedNode(cluster, 'worker-1', '10.0.0.1')
    const { watches, woken } = open(t, cluster, { approveKubeletServing: true })
    await until(() => watches.missing().length === 0)
    seedNode(cluster, 'worker-2', '10.0.0.2')
    const about = { apiVersion: 'v1', kind: 'Node' } as const
    await cluster.apply({ ...about, metadata: { name: 'worker-1', labels: { a: 'b' } } })
    const status = { addresses: [{ type: 'InternalIP', address: '10.0.0.9' }] }
    await cluster.apply({ ...about, metadata: { name: 'worker-1' }, status })
    await cluster.remove('nodes', '', 'worker-2')
    await until(() => woken.length >= 3)
    seedNode(cluster, 'worker-3', '10.0.0.3')
    await until(() => woken.some((one) => one.includes('worker-3')))
    t.same(
      woken,
      ['worker-2', 'worker-1', 'worker-2', 'worker-3'].map((name) => `node ${name} undefined`),
    )
  },
)

t.test('an issuer wakes by its spec, and who waits for it by what it is ready for', async (t) => {
  const cluster = await openCluster(t, { definitions })
  const { watches, woken } = open(t, cluster, {})
  await until(() => watches.missing().length === 0)
  const about = { apiVersion: 'chancery.dev/v1alpha1', kind: 'ChanceryIssuer' } as const
  const metadata = { name: 'one', namespace: 'team-a', annotations: { words: 'a' } }
  const spec = { url: 'https://chancery.example', profile: 'x', auth: { tokenSecretRef: { name: 'x' } } }
  const ready = (observedGeneration: number, message: string, status = 'True') => ({
    conditions: [
      {
        ...{ type: 'Ready', status, reason: 'Checked', message, observedGeneration },
        lastTransitionTime: '2026-01-01T00:00:00Z',
      },
    ],
  })
  const [issuer, through] = ['issuer', 'through'].map((kind) => `${kind} ChanceryIssuer/team-a/one`)
  const steps: readonly (readonly [object, readonly string[]])[] = [
    [{ spec }, [`${through} changed`, `${issuer} changed`]],
    [{ spec, status: ready(1, 'a') }, [`${through} awaited`]],
    [{ spec, status: ready(1, 'b') }, []],
    [{ spec, status: ready(1, 'b', 'False') }, [`${through} awaited`]],
    [{ spec: { ...spec, profile: 'y' } }, [`${through} changed`, `${issuer} changed`]],
    [{ spec: { ...spec, profile: 'y' }, status: ready(2, 'b', 'False') }, [`${through} awaited`]],
  ]
  for (const [change, wakes] of steps) {
    woken.splice(0)
    await cluster.apply({ ...about, metadata, ...change } as Tree)
    const version = treeAt(cluster.get('chanceryissuers', 'team-a', 'one'), 'metadata')['resourceVersion']
    await until(() => watches.issuers.ChanceryIssuer.get('team-a/one')?.metadata.resourceVersion === version)
    // An apply of a spec and a status is two writes.
    t.same(woken, wakes, JSON.stringify(change))
  }
  const kept = watches.issuers.ChanceryIssuer.get('team-a/one')
  const held = cluster.get('chanceryissuers', 'team-a', 'one') as Tree
  const { name, namespace, uid, resourceVersion, creationTimestamp, generation } = treeAt(held, 'metadata')
  t.same(kept, {
    ...{ ...about, spec: held['spec'], status: held['status'] },
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp, generation },
  })
  const finalizers = ['example.com/backup']
  await cluster.apply({ ...about, metadata: { ...metadata, finalizers }, spec: held['spec'] } as Tree)
  await cluster.remove('chanceryissuers', 'team-a', 'one')
  await until(() => watches.issuers.ChanceryIssuer.get('team-a/one')?.metadata.deletionTimestamp !== undefined)
  woken.splice(0)
  await cluster.apply({ ...about, metadata, spec: held['spec'] } as Tree)
  await until(() => woken.length > 1)
  t.same(woken, [`${through} changed`, `${issuer} changed`])
  await cluster.apply({ ...about, kind: 'ChanceryClusterIssuer', metadata: { name: 'all' }, spec } as Tree)
  await until(() => woken.length > 3)
  t.same(woken.slice(2), ['through ChanceryClusterIssuer/all changed', 'issuer ChanceryClusterIssuer/all changed'])
  t.notOk('namespace' in (watches.issuers.ChanceryClusterIssuer.get('all')?.metadata ?? {}))
  t.notOk('status' in (watches.issuers.ChanceryClusterIssuer.get('all') ?? {}))
})

t.test('of requests of other signers no more is kept than whose they are', async (t) => {
  const kubelet = signingRequest('11-create-kubelet-serving')
  const pod = recorded<Tree>('podcertificaterequests/01-create')
  const { signerName } = kubelet.spec
  const signers = [{ name: 'example.com/x', issuer: 'default' }]
  for (const [settings, isKept] of [
    [{ approveKubeletServing: true }, true],
    [{ signers }, false],
    [{ signers: [{ name: signerName, issuer: 'default' }] }, true],
  ] as const) {
    const cluster = await openCluster(t, { definitions })
    const { metadata, ...more } = kubelet
    cluster.double.seed({ ...more, metadata: { name: metadata.name } } as unknown as Tree)
    cluster.double.seed({ ...pod, metadata: { name: 'one', namespace: 'team-a' } })
    const { watches, woken } = open(t, cluster, { ...settings, podCertificates: true })
    await until(() => watches.missing().length === 0)
    t.equal(watches.signingRequests?.get(metadata.name)?.spec.request !== '', isKept)
    t.same([...woken].sort(), ['pod team-a/one changed', `signing ${metadata.name} changed`])
    t.notOk('managedFields' in (watches.podRequests?.get('team-a/one')?.metadata ?? {}))
    await watches.close()
  }
})

t.test('what has not been seen for minutes is no reason to be ready, and is said with its time', async (t) => {
  const cluster = await openCluster(t, { definitions })
  const { watches, time, metric } = open(t, cluster, {})
  await until(() => watches.missing().length === 0)
  const fault = cluster.faults.add('error', { when: { plural: 'chanceryissuers' } })
  cluster.faults.closeWatches('cut')
  await until(() => fault.used() > 0 && watches.issuers.ChanceryClusterIssuer.behindMs === 0)
  time.passed += 170_000
  t.same(watches.unready(), [])
  time.passed += 20_000
  const [reason = '', ...others] = watches.unready()
  t.same(others, [])
  t.match(reason, /^chanceryissuers have not been seen for 19\d s: they can be neither watched nor listed$/)
  const lines = await metric('chancery_controller_watch_stale_seconds')
  t.match(lines[0], /resource="chanceryissuers"\} 19\d/)
  // The other one may have been cut before it, and its line comes first then.
  const restarts = async (): Promise<string | undefined> =>
    (await metric('chancery_controller_watch_restarts_total')).find((line) => line.includes('"chanceryissuers"'))
  while ((await restarts()) === undefined) await sleep(10)
  t.match(await restarts(), /resource="chanceryissuers",reason="\w+"\} \d/)
})

t.test(
  'what is held of an object: no annotations, and of one that has ended neither request nor certificate',
  async (t) => {
    const web = certificateRequest('10-get-approved')
    const annotated = { ...web, metadata: { ...web.metadata, annotations: { a: 'b' }, managedFields: [] } }
    const held = keepRequest(annotated)
    t.notOk('annotations' in held.metadata || 'managedFields' in held.metadata)
    t.same(held.spec, web.spec)
    const { issuerRef } = web.spec
    t.same(keepRequest(withConditions(web, { type: 'Ready', status: 'True' })).spec, { request: '', issuerRef })
    const signing = signingRequest('29-get-approved')
    const { signerName } = signing.spec
    t.same(keepSigningRequest(() => true)(signing).spec, signing.spec)
    const ended = { ...signing, status: { ...signing.status, certificate: 'AAAA' } }
    const over = keepSigningRequest(() => true)(ended)
    t.same([over.spec, over.status?.certificate], [{ signerName, request: '', usages: [] }, 'issued'])
  },
)
