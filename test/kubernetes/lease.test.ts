/** One who wants a lease, over the double, by a clock that the test sets: when it is taken, kept, lost and given back. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type ApiCall, openApi } from '../../src/kubernetes/api/client.ts'
import { type LeaseTimes, microTime, openLease } from '../../src/kubernetes/api/lease.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { type Cluster, openCluster } from './cluster.ts'
import { type Tree, textAt, treeAt } from './values.ts'

type Teardown = Parameters<typeof openCluster>[0]

interface Options {
  readonly identity?: string
  /** Undefined: those of whoever has no others. */
  readonly times?: Partial<LeaseTimes> | undefined
  /** Called before each call. */
  readonly before?: (method: string, call: ApiCall | undefined) => void
  /** Awaited before its answer is given. */
  readonly after?: (method: string) => Promise<unknown>
  /** As the work that was begun ends. */
  readonly stop?: (lost: AbortSignal) => Promise<void>
}

const usual: LeaseTimes = { lasts: 15_000, renewWithin: 10_000, retryEvery: 100 }

const open = (t: Teardown, cluster: Cluster, options: Options = {}) => {
  const { identity = 'one', before = () => {}, after = async () => {}, stop = async () => {} } = options
  const token = cluster.tokenFor({ username: identity, groups: ['system:masters', 'system:authenticated'] })
  const api = openApi(async () => ({
    ...{ server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } },
  }))
  const time = { now: 1_000_000 }
  const turns: string[] = []
  const told: string[] = []
  const unreachable: string[] = []
  /** On a busy machine a call may take longer than it is waited for. */
  const tell = ({ event = '' }: { readonly event?: string }): void =>
    void (event === 'lease.unreachable' ? unreachable : told).push(event)
  const lease = openLease(
    {
      api: {
        call: async (method, path, call) => {
          before(method, call)
          const answer = await api.call<never>(method, path, call)
          await after(method)
          return answer
        },
      },
      ...{ identity, namespace: 'chancery-system', name: 'chancery-controller' },
      log: { ...quiet, info: tell, warn: tell } as typeof quiet,
      ...('times' in options && options.times === undefined ? {} : { times: { ...usual, ...options.times } }),
      now: () => time.now,
      wallClock: () => new Date(time.now),
      random: () => 0,
    },
    {
      lead: (lost) => {
        turns.push('begun')
        lost.addEventListener('abort', () => turns.push((lost.reason as Error).message))
        return {
          stop: async () => {
            await stop(lost)
            turns.push('ended')
          },
        }
      },
    },
  )
  t.teardown(async () => {
    await lease.close()
    api.close()
  })
  return { lease, time, turns, told, unreachable }
}

const at = (ms: number): string => microTime(new Date(ms))
const leaseOf = (cluster: Cluster): Tree | undefined => cluster.get('leases', 'chancery-system', 'chancery-controller')
const specOf = (cluster: Cluster): Tree => treeAt(leaseOf(cluster), 'spec')
const holderOf = (cluster: Cluster): string => textAt(specOf(cluster), 'holderIdentity')

/** By somebody else, over whatever is there. */
const write = (cluster: Cluster, spec: Tree, annotations: Tree = {}): Promise<Tree> =>
  cluster.apply({
    ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
    metadata: { name: 'chancery-controller', namespace: 'chancery-system', annotations },
    spec,
  })

const asked = (cluster: Cluster, verb: string): number =>
  cluster.requests.filter((about) => about.verb === verb && about.plural === 'leases').length

const until = async (is: () => boolean): Promise<void> => {
  while (!is()) await sleep(2)
}

/** Whoever wants it has looked at what there is now, and decided. */
const looked = async (cluster: Cluster): Promise<void> => {
  const before = asked(cluster, 'get')
  await until(() => asked(cluster, 'get') > before + 2)
}

t.test('one that is not there is made, renewed, and given back as client-go does', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time, turns, told } = open(t, cluster, { times: { lasts: 14_001 } })
  await until(() => lease.held)
  const made = { holderIdentity: 'one', leaseDurationSeconds: 15, acquireTime: at(1_000_000), leaseTransitions: 0 }
  t.same(specOf(cluster), { ...made, renewTime: at(1_000_000) })
  time.now += 5_000
  await until(() => textAt(specOf(cluster), 'renewTime') === at(1_005_000))
  t.same(specOf(cluster), { ...made, renewTime: at(1_005_000) })
  time.now += 1_000
  await lease.close()
  t.notOk(lease.held)
  t.same(specOf(cluster), { ...made, holderIdentity: '', leaseDurationSeconds: 1, renewTime: at(1_006_000) })
  t.same(turns, ['begun', 'ended'])
  t.same(told, ['lease.won'])
  const after = asked(cluster, 'get') + asked(cluster, 'update')
  await sleep(50)
  t.equal(asked(cluster, 'get') + asked(cluster, 'update'), after, 'nothing is asked for any more')
})

t.test('one that was given back is taken at the first look, however little time has gone', async (t) => {
  const cluster = await openCluster(t)
  const first = open(t, cluster)
  await until(() => first.lease.held)
  await first.lease.close()
  const { lease, time } = open(t, cluster, { identity: 'two', times: { retryEvery: 600_000 } })
  await until(() => lease.held)
  t.match(specOf(cluster), { holderIdentity: 'two', leaseTransitions: 1, acquireTime: at(time.now) })
})

t.test('one that another has is taken once it has not changed for as long as it says, by our own clock', async (t) => {
  const cluster = await openCluster(t)
  const spec = { holderIdentity: 'other', leaseDurationSeconds: 30, acquireTime: at(0), leaseTransitions: 4 }
  await write(cluster, { ...spec, renewTime: at(0) })
  const { lease, time, turns, told } = open(t, cluster)
  await looked(cluster)
  t.equal(holderOf(cluster), 'other', 'its own times are of another clock')
  time.now += 29_000
  await looked(cluster)
  await write(cluster, { ...spec, renewTime: at(1_000) })
  await looked(cluster)
  time.now += 30_000
  await looked(cluster)
  t.equal(holderOf(cluster), 'other')
  t.same(turns, [])
  time.now += 1
  await until(() => lease.held)
  const ours = { holderIdentity: 'one', leaseDurationSeconds: 15, leaseTransitions: 5 }
  t.same(specOf(cluster), { ...ours, acquireTime: at(time.now), renewTime: at(time.now) })
  t.same(told, ['lease.won'])
})

t.test('one without a holder, or whose holder does not say how long it lasts, is for whoever comes', async (t) => {
  for (const spec of [{}, { holderIdentity: '' }, { holderIdentity: 'other' }, { leaseDurationSeconds: 600 }]) {
    const cluster = await openCluster(t)
    await write(cluster, spec)
    const { lease, time } = open(t, cluster)
    await until(() => lease.held || asked(cluster, 'get') > 1)
    time.now += 1
    await until(() => lease.held)
    t.match(specOf(cluster), { holderIdentity: 'one', leaseTransitions: 1 }, JSON.stringify(spec))
  }
})

t.test('our own of before, whose answer was lost, is ours at the first look', async (t) => {
  const cluster = await openCluster(t)
  const lost = cluster.faults.add('lose', { when: { plural: 'leases', verb: 'create' }, times: 1 })
  const { lease, time } = open(t, cluster)
  await until(() => lease.held)
  t.equal(lost.used(), 1)
  time.now += 1_000
  await until(() => textAt(specOf(cluster), 'renewTime') === at(1_001_000))
  t.match(specOf(cluster), { acquireTime: at(1_000_000), leaseTransitions: 0 })
  const poor = await openCluster(t)
  await write(poor, { holderIdentity: 'one' })
  const { lease: again } = open(t, poor)
  await until(() => again.held)
  t.match(specOf(poor), { acquireTime: at(1_000_000), leaseTransitions: 0 })
})

t.test('whoever has no other times has those of client-go', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time } = open(t, cluster, { times: undefined })
  await until(() => lease.held)
  t.equal(specOf(cluster)['leaseDurationSeconds'], 15)
  time.now += 9_999
  t.ok(lease.held)
  time.now += 1
  t.notOk(lease.held)
})

t.test('of two that come at once one has it, and the other waits; nothing is said of that', async (t) => {
  const cluster = await openCluster(t)
  let writers = 0
  const before = (method: string): void => {
    if (method === 'POST') writers += 1
  }
  const hold = cluster.faults.add('delay', { when: { plural: 'leases', verb: 'create' }, seconds: 0.1 })
  const candidates = ['one', 'two'].map((identity) => open(t, cluster, { identity, before }))
  await until(() => writers === 2)
  await until(() => candidates.some(({ lease }) => lease.held))
  hold.end()
  await looked(cluster)
  t.equal(candidates.filter(({ lease }) => lease.held).length, 1)
  t.same(
    candidates.flatMap(({ told }) => told),
    ['lease.won'],
  )
})

t.test('who waits for it does not ask all the time', async (t) => {
  const cluster = await openCluster(t)
  await write(cluster, { holderIdentity: 'other', leaseDurationSeconds: 600 })
  const { lease } = open(t, cluster, { times: { retryEvery: 600_000 } })
  await until(() => asked(cluster, 'get') > 0)
  await sleep(200)
  t.equal(asked(cluster, 'get'), 1)
  await lease.close()
  t.equal(holderOf(cluster), 'other')
})

t.test('what is under way at a stop is given up without a word', async (t) => {
  const cluster = await openCluster(t)
  const hang = cluster.faults.add('hang', { when: { plural: 'leases' } })
  const { lease, turns, told, unreachable } = open(t, cluster, { times: { retryEvery: 600_000 } })
  await until(() => hang.used() > 0)
  await lease.close()
  t.same([...turns, ...told, ...unreachable], [])
})

t.test('who wants it, and cannot read it, says so and tries again', async (t) => {
  const cluster = await openCluster(t)
  const fault = cluster.faults.add('unavailable', { when: { plural: 'leases', verb: 'get' } })
  const { lease, told, unreachable } = open(t, cluster)
  await until(() => unreachable.length > 1)
  t.same(told, [])
  t.equal(asked(cluster, 'create'), 0, 'it may be there')
  fault.end()
  await until(() => lease.held)
  t.same(told, ['lease.won'])
})

t.test('who cannot renew it has lost it before others may take it, and works no more at that moment', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time, turns, told, unreachable } = open(t, cluster)
  await until(() => lease.held)
  const fault = cluster.faults.add('unavailable', { when: { plural: 'leases' } })
  await until(() => fault.used() > 1)
  time.now += 9_999
  t.ok(lease.held)
  const gets = asked(cluster, 'get')
  const { length } = unreachable
  await until(() => unreachable.length > length + 1)
  t.ok(lease.held)
  t.equal(asked(cluster, 'get'), gets, 'nobody has written to it')
  t.same(turns, ['begun'])
  time.now += 1
  t.notOk(lease.held)
  await until(() => turns.length === 3)
  t.same(turns, ['begun', 'the lease is lost', 'ended'])
  t.same(told, ['lease.won', 'lease.lost'])
  t.equal(holderOf(cluster), 'one', 'what is lost is not given back')
  fault.end()
  await until(() => lease.held)
  t.same(turns.slice(3), ['begun'])
  t.same(told, ['lease.won', 'lease.lost', 'lease.won'])
})

t.test('its end is not waited for until the next renewal, and what has ended is not renewed', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time, turns } = open(t, cluster, { times: { renewWithin: 300, retryEvery: 600_000 } })
  await until(() => lease.held)
  await sleep(50)
  time.now += 300
  await until(() => turns.length === 3)
  t.same(turns, ['begun', 'the lease is lost', 'ended'])
  t.equal(asked(cluster, 'update'), 0)
})

t.test('it lasts from before the request that renewed it: what comes late is not ours for longer', async (t) => {
  const cluster = await openCluster(t)
  const slow = { ms: 0 }
  const { lease, time } = open(t, cluster, {
    before: (method) => void (method !== 'GET' && setImmediate(() => (time.now += slow.ms))),
    times: { retryEvery: 600_000 },
  })
  slow.ms = 6_000
  await until(() => lease.held)
  t.equal(time.now, 1_006_000)
  time.now += 3_999
  t.ok(lease.held)
  time.now += 1
  t.notOk(lease.held)
})

t.test('what somebody else has written is theirs, and who had it works no more', async (t) => {
  const cluster = await openCluster(t)
  const { lease, turns, told } = open(t, cluster)
  await until(() => lease.held)
  await write(cluster, { holderIdentity: 'other', leaseDurationSeconds: 15 })
  await until(() => turns.length === 3)
  t.same(turns, ['begun', 'the lease is lost', 'ended'])
  t.same(told, ['lease.won', 'lease.lost'])
  await looked(cluster)
  await lease.close()
  t.equal(holderOf(cluster), 'other')
})

t.test('a note that somebody writes on it takes it from nobody', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time, turns, told } = open(t, cluster)
  await until(() => lease.held)
  for (const note of ['a', 'b', 'c']) {
    await write(cluster, {}, { note })
    time.now += 5_000
    await until(() => textAt(specOf(cluster), 'renewTime') === at(time.now))
  }
  t.ok(lease.held)
  t.same(turns, ['begun'])
  t.same(told, ['lease.won'])
  t.equal(textAt(leaseOf(cluster), 'metadata', 'annotations', 'note'), 'c')
})

t.test('it is given back also where it was written since the last renewal', async (t) => {
  const cluster = await openCluster(t)
  const { lease, told } = open(t, cluster, { times: { retryEvery: 600_000 } })
  await until(() => lease.held)
  await write(cluster, { leaseTransitions: 7 }, { note: 'a' })
  await lease.close()
  t.match(specOf(cluster), { holderIdentity: '', leaseTransitions: 7 }, 'with what was written')
  t.same(told, ['lease.won'])
})

t.test('what another one has taken since is not given back, and one that cannot be is said', async (t) => {
  const cluster = await openCluster(t)
  const { lease, told } = open(t, cluster, { times: { retryEvery: 600_000 } })
  await until(() => lease.held)
  await write(cluster, { holderIdentity: 'other' })
  await lease.close()
  t.equal(holderOf(cluster), 'other')
  t.same(told, ['lease.won', 'lease.kept'])
})

t.test('nor what another one takes between our second look and our write', async (t) => {
  const cluster = await openCluster(t)
  const { lease, told } = open(t, cluster, {
    times: { retryEvery: 600_000 },
    after: async (method) => {
      // At the first look it is not there.
      if (method === 'GET') await write(cluster, { holderIdentity: 'other' })
    },
  })
  await until(() => lease.held)
  await write(cluster, {}, { note: 'a' })
  await lease.close()
  t.equal(holderOf(cluster), 'other')
  t.same(told, ['lease.won', 'lease.kept'])
})

t.test('a renewal that hangs is given up, and tried again', async (t) => {
  const cluster = await openCluster(t)
  const { lease, time, turns } = open(t, cluster)
  await until(() => lease.held)
  const hang = cluster.faults.add('hang', { when: { plural: 'leases', verb: 'update' }, times: 3 })
  await until(() => hang.used() === 3)
  time.now += 5_000
  await until(() => textAt(specOf(cluster), 'renewTime') === at(time.now))
  t.same(turns, ['begun'])
})

t.test('whoever stops gives it back when its work has ended, and has it for no longer than that', async (t) => {
  const cluster = await openCluster(t)
  const work = Promise.withResolvers<void>()
  const { lease, turns } = open(t, cluster, { stop: () => work.promise })
  await until(() => lease.held)
  const closed = lease.close()
  await sleep(50)
  t.equal(holderOf(cluster), 'one')
  t.ok(lease.held)
  const renewals = asked(cluster, 'update')
  await sleep(50)
  t.equal(asked(cluster, 'update'), renewals, 'it is renewed no more')
  work.resolve()
  await closed
  t.equal(holderOf(cluster), '')
  t.same(turns, ['begun', 'ended'])
})

slowTest('work that does not end while it lasts is told that nothing may be done any more', async (t) => {
  const cluster = await openCluster(t)
  const sooner = open(t, cluster)
  await until(() => sooner.lease.held)
  await sooner.lease.close()
  const { lease, turns } = open(t, cluster, {
    stop: (lost) => new Promise((resolve) => lost.addEventListener('abort', () => resolve())),
  })
  await until(() => lease.held)
  await lease.close()
  t.same(turns, ['begun', 'the lease is given back', 'ended'])
  t.same(sooner.turns, ['begun', 'ended'], 'nobody is told of it whose work has ended before')
  t.equal(holderOf(cluster), '')
})

t.test('times have six digits of a second', async (t) => {
  t.equal(microTime(new Date('2026-11-29T01:02:03.004Z')), '2026-11-29T01:02:03.004000Z')
})
