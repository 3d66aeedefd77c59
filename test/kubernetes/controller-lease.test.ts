/** Two controllers and one lease: who works, who goes on, and what is never done twice. */
import { setTimeout as sleep } from 'node:timers/promises'

import { Registry } from 'prom-client'
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import { openApi } from '../../src/kubernetes/api/client.ts'
import { openLease } from '../../src/kubernetes/api/lease.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import type { Asker } from '../../src/kubernetes/reconcile/asker.ts'
import { openWatches } from '../../src/kubernetes/reconcile/watches.ts'
import { openWork } from '../../src/kubernetes/reconcile/work.ts'
import type { ControllerSettings } from '../../src/kubernetes/settings.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { type Cluster, openCluster } from './cluster.ts'
import { issuerOf } from './objects.ts'
import {
  assertOne,
  issuerIs,
  leads,
  manifests,
  openRunning,
  type RunningController,
  rights,
  statusWrites,
  until,
} from './running.ts'
import { type Tree, textAt } from './values.ts'

slowTest('one of two works; when it stops, the other one goes on at once', async (t) => {
  const running = await openRunning(t)
  const [first] = running.controllers as readonly [RunningController]
  await leads(first)
  const second = await running.start()
  await running.issuer()
  await running.ask('one-1')
  await running.ended('one-1', 'Issued')
  t.ok(first.leads)
  t.notOk(second.leads)
  t.ok(second.ready, 'though it does not work')
  await first.close()
  const released = running.cluster.get('leases', 'chancery-system', 'chancery-controller')
  t.not(textAt(released, 'spec', 'holderIdentity'), undefined)
  await leads(second)
  await running.ask('two-1')
  await assertOne(t, running, 'two-1')
})

slowTest(
  'who cannot reach the API server any more works no more, and writes nothing of what is under way',
  async (t) => {
    const running = await openRunning(t, { dies: true })
    const [first] = running.controllers as readonly [RunningController]
    await running.issuer()
    await issuerIs(running, 'True')
    const second = await running.start()
    const { held, release } = running.front.hold()
    await running.ask('web-1')
    await held
    first.cut()
    await leads(second)
    t.notOk(first.leads)
    release()
    await assertOne(t, running, 'web-1')
    t.equal(statusWrites(running).length, 1)
  },
)

slowTest('a process that was stopped for longer than a lease lasts does not write when it goes on', async (t) => {
  const running = await openRunning(t)
  const [first] = running.controllers as readonly [RunningController]
  await running.issuer()
  await issuerIs(running, 'True')
  const { held, release } = running.front.hold()
  await running.ask('web-1')
  await held
  const fault = running.cluster.faults.add('unavailable', { when: { plural: 'leases' } })
  first.pass(60_000)
  t.notOk(first.leads)
  release()
  await sleep(300)
  t.equal(statusWrites(running).length, 0)
  fault.end()
  await assertOne(t, running, 'web-1')
})

slowTest('a clock that is wrong by hours changes nothing', async (t) => {
  const running = await openRunning(t)
  const [first] = running.controllers as readonly [RunningController]
  await running.issuer()
  for (const [name, hours] of [
    ['ahead-1', 5],
    ['behind-1', -10],
  ] as const) {
    first.skew(hours * 3_600_000)
    await running.ask(name, { duration: '1h' })
    await assertOne(t, running, name)
  }
})

slowTest('where each call takes as long as a leader can bear, another one still takes over', async (t) => {
  const running = await openRunning(t, { dies: true })
  const [first] = running.controllers as readonly [RunningController]
  await leads(first)
  const second = await running.start()
  const slow = running.cluster.faults.add('delay', { when: { plural: 'leases' }, seconds: 0.13 })
  await first.kill()
  // A lease of a second, and two calls; several times that.
  const since = performance.now()
  while (!second.leads && performance.now() - since < 10_000) await sleep(5)
  t.ok(second.leads)
  slow.end()
})

t.test(
  'a lease that somebody has deleted is nobody’s: who had it works no more until it is theirs again',
  async (t) => {
    const cluster = await openCluster(t, { rbac: rights })
    const api = apiOf(cluster)
    const turns: string[] = []
    // No time ends it.
    const times = { lasts: 600_000, renewWithin: 600_000, retryEvery: 20 }
    const lease = openLease(
      {
        ...{ api, log: quiet, identity: 'one', namespace: 'chancery-system', name: 'chancery-controller', times },
        ...{ now: () => performance.now(), wallClock: () => new Date(), random: () => 0 },
      },
      {
        lead: () => {
          turns.push('begun')
          return { stop: async () => void turns.push('ended') }
        },
      },
    )
    t.teardown(async () => {
      await lease.close()
      api.close()
    })
    await until(() => lease.held)
    await cluster.remove('leases', 'chancery-system', 'chancery-controller')
    await until(() => turns.length > 2)
    t.same(turns, ['begun', 'ended', 'begun'])
    await until(() => lease.held)
    t.equal(textAt(cluster.get('leases', 'chancery-system', 'chancery-controller'), 'spec', 'holderIdentity'), 'one')
  },
)

t.test('what was asked while the lease was held is not written after it, though nobody has told it yet', async (t) => {
  const cluster = await openCluster(t, {
    rbac: rights,
    definitions: manifests('crds/chanceryissuers', 'crds/chanceryclusterissuers'),
  })
  const api = apiOf(cluster)
  const meter = openMeter(new Registry())
  const settings = {
    certManager: false,
    signers: [],
    servers: [],
    recheck: 300,
    concurrency: 4,
  } as unknown as ControllerSettings
  const shared = { api, settings, meter, log: quiet, now: () => performance.now(), random: () => 0 }
  const nobody = () => {}
  const wake = { issuer: nobody, throughIssuer: nobody, request: nobody, signingRequest: nobody, podRequest: nobody }
  const watches = openWatches(shared, { ...wake, node: nobody })
  const { spec } = issuerOf()
  await cluster.apply({
    ...{ apiVersion: 'chancery.dev/v1alpha1', kind: 'ChanceryIssuer', metadata: { name: 'a', namespace: 'team-a' } },
    spec,
  } as unknown as Tree)
  await until(() => watches.issuers.ChanceryIssuer.get('team-a/a') !== undefined)
  let asked = 0
  let held = true
  const asker = {
    probe: async () => {
      held = ++asked > 2
      return undefined
    },
  } as unknown as Asker
  const written = (): number => cluster.writes.filter(({ subresource }) => subresource === 'status').length
  const work = openWork({
    ...{ ...shared, watches, asker, readRequest, recorder: { record: () => true, close: async () => {} } },
    ...{ clock: () => new Date(), patience: { firstMs: 20, mostMs: 20 } },
    ...{ lost: new AbortController().signal, isHeld: () => held },
  })
  t.teardown(async () => {
    await work.stop()
    await watches.close()
    api.close()
  })
  await until(() => written() > 0)
  t.equal(asked, 3, 'twice it was not ours any more')
})

const apiOf = (cluster: Cluster) => {
  const token = cluster.tokenOf('chancery-system/chancery-controller')
  return openApi(async () => ({
    ...{ server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } },
  }))
}
