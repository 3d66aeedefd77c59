/** A watch over the double: pages, versions from the future, connections that hang. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { ApiFault, type KubernetesApi, openApi } from '../../src/kubernetes/api/client.ts'
import type { CertificateRequest } from '../../src/kubernetes/api/objects.ts'
import { resources } from '../../src/kubernetes/api/resources.ts'
import { openWatch, type WatchDeps } from '../../src/kubernetes/api/watch.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { type Cluster, openCluster } from './cluster.ts'
import { certificateRequest } from './objects.ts'
import { until } from './running.ts'
import { type Tree, textAt } from './values.ts'

const account = 'chancery-system/chancery-controller'

const apiOf = (where: () => Cluster): KubernetesApi => {
  const tokens = new Map<Cluster, string>()
  return openApi(async () => {
    const cluster = where()
    const token = tokens.get(cluster) ?? cluster.tokenOf(account)
    tokens.set(cluster, token)
    return { server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } }
  })
}

const open = (t: Teardown, api: KubernetesApi, more: Partial<WatchDeps<CertificateRequest>> = {}) => {
  const changes: string[] = []
  const restarts: string[] = []
  const watch = openWatch<CertificateRequest>({
    ...{ api, resource: resources.certificateRequests, keep: (object) => object, log: quiet, random: () => 0 },
    now: () => performance.now(),
    ...{ firstMs: 20, mostMs: 100, restarted: (reason) => restarts.push(reason), ...more },
    changed: (key, next, before) => changes.push(`${next ? (before ? 'changed' : 'came') : 'went'} ${key}`),
  })
  t.teardown(async () => {
    await watch.close()
    api.close()
  })
  return { watch, changes, restarts }
}
type Teardown = { teardown(close: () => Promise<void>): unknown }

const create = (cluster: Cluster, name: string) =>
  cluster.certManager.create({ name, issuer: { kind: 'ChanceryIssuer', name: 'default' } })

t.test('what there is, what comes, what changes and what goes', async (t) => {
  const cluster = await openCluster(t)
  await create(cluster, 'one-1')
  const { watch, changes } = open(
    t,
    apiOf(() => cluster),
  )
  await until(() => watch.synced)
  await cluster.certManager.approve(await create(cluster, 'two-1'))
  await cluster.remove('certificaterequests', 'team-a', 'one-1')
  await until(() => changes.length === 4)
  t.same(changes, ['came team-a/one-1', 'came team-a/two-1', 'changed team-a/two-1', 'went team-a/one-1'])
  t.equal(watch.get('team-a/two-1')?.kind, 'CertificateRequest')
})

t.test('more than a page, and what went while nobody watched', async (t) => {
  const cluster = await openCluster(t)
  for (let i = 0; i < 110; i += 1) await create(cluster, `many-${i}`)
  const { watch, changes } = open(
    t,
    apiOf(() => cluster),
  )
  await until(() => watch.size === 110)
  t.equal(cluster.requests.filter(({ verb, plural }) => verb === 'list' && plural === 'certificaterequests').length, 3)
  const heal = cluster.faults.partition()
  await cluster.remove('certificaterequests', 'team-a', 'many-7')
  cluster.faults.expireWatches()
  heal()
  await until(() => watch.size === 109)
  t.ok(changes.includes('went team-a/many-7'))
})

t.test('rights that are missing, and a server that is not there, are tried again', async (t) => {
  const cluster = await openCluster(t, { rbac: [] })
  const { watch } = open(
    t,
    apiOf(() => cluster),
  )
  await until(() => cluster.requests.filter(({ plural }) => plural === 'certificaterequests').length > 2)
  t.notOk(watch.synced)
})

slowTest('a watch that dies later is behind, and one that is idle is not', async (t) => {
  const cluster = await openCluster(t)
  const about = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding' }
  const time = { now: 0 }
  const { watch, restarts } = open(
    t,
    apiOf(() => cluster),
    { now: () => time.now },
  )
  await until(() => watch.synced)
  const isOpen = (): boolean => {
    time.now += 2_000
    return watch.behindMs === 0
  }
  await until(isOpen)
  time.now += 3_600_000
  t.equal(watch.behindMs, 0, 'a stream in which nothing happens for an hour')
  const bindings = cluster.list('clusterrolebindings').filter((one) => JSON.stringify(one).includes('chancery'))
  for (const binding of bindings) await cluster.remove('clusterrolebindings', '', textAt(binding, 'metadata', 'name'))
  cluster.faults.closeWatches()
  const tries = async (): Promise<void> => {
    const { length } = restarts
    await until(() => restarts.length > length + 1)
  }
  await tries()
  time.now += 180_000
  await tries()
  t.equal(watch.behindMs, 180_000)
  t.ok(watch.synced)
  for (const { metadata, roleRef, subjects } of bindings)
    cluster.double.seed({ ...about, metadata: { name: textAt(metadata, 'name') }, roleRef, subjects } as Tree)
  await until(isOpen)
})

t.test('a watch that is answered, and turned away in its stream, is none', async (t) => {
  const cluster = await openCluster(t)
  const real = apiOf(() => cluster)
  const time = { now: 0 }
  let answered = 0
  const api: KubernetesApi = {
    ...real,
    lines: async (_, { begun, take }) => {
      answered += 1
      begun?.()
      take('{"type":"ERROR","object":{"code":500}}')
    },
  }
  const { watch } = open(t, api, { now: () => time.now })
  await until(() => answered > 1)
  time.now += 60_000
  await until(() => answered > 3)
  t.equal(watch.behindMs, 60_000)
})

/** One of those of `page`, as its version says. */
const object = (name: string, resourceVersion: string): CertificateRequest => {
  const { metadata, ...more } = certificateRequest('11-get-pending-web')
  return { ...more, metadata: { ...metadata, name, namespace: 'team-a', uid: name, resourceVersion } }
}

const page = (items: readonly CertificateRequest[], next?: string) => ({
  items,
  metadata: { resourceVersion: '10', ...(next !== undefined && { continue: next }) },
})

t.test('what was listed is as it is now, though it cannot be watched', async (t) => {
  const time = { now: 0 }
  let tries = 0
  const api = {
    call: async () => {
      time.now = 50_000
      return page([object('a', '7')])
    },
    lines: async () => {
      tries += 1
      throw new ApiFault(403, 'you may not')
    },
    close: () => {},
  } as unknown as KubernetesApi
  const { watch } = open(t, api, { now: () => time.now })
  await until(() => tries > 2)
  t.equal(watch.behindMs, 0)
  time.now += 1_000
  t.equal(watch.behindMs, 1_000)
})

t.test('every so often all are said again, as they are', async (t) => {
  const cluster = await openCluster(t)
  await create(cluster, 'one-1')
  const api = apiOf(() => cluster)
  const { watch, changes } = open(t, api, { resyncMs: 20 })
  await until(() => changes.length > 3)
  t.same([...new Set(changes)], ['came team-a/one-1', 'changed team-a/one-1'])
  await watch.close()
  const { length } = changes
  await sleep(50)
  t.equal(changes.length, length)
})
