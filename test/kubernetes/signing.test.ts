/** Looks at requests of kubelets, one by one: what is asked of the API server, what is told, and when the next look is. */
import { Registry } from 'prom-client'
import t from 'tap'

import { readRequest } from '../../src/commands/controller.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import type { Node, SigningRequest } from '../../src/kubernetes/objects.ts'
import { openSayings } from '../../src/kubernetes/sayings.ts'
import { keepSigningRequest, lookAtSigningRequest, type SigningDeps } from '../../src/kubernetes/signing.ts'
import type { Watch } from '../../src/kubernetes/watch.ts'
import { signingRequest, worker as workerWith } from './objects.ts'

const asking = signingRequest('11-create-kubelet-serving')
const { name: key } = asking.metadata
const worker = workerWith([
  ['Hostname', 'worker-1'],
  ['InternalIP', '10.0.0.11'],
])
const { signal } = new AbortController()

const open = (first: SigningRequest = asking) => {
  const calls: string[] = []
  const notes: string[] = []
  const world = {
    ...{ request: first as SigningRequest | undefined, read: undefined as SigningRequest | undefined },
    ...{ node: worker, others: [] as readonly Node[], behindMs: 0, takes: true },
  }
  const nodes = { synced: true, all: () => [world.node, ...world.others] }
  const rivals = new Map<string, string>()
  const deps = {
    api: {
      call: async (method: string, path: string) => {
        calls.push(`${method} ${path.split('/').slice(-2).join('/')}`)
        return (method === 'GET' ? (world.read ?? world.node) : world.request) as never
      },
    },
    watch: { get: () => world.request, learn: () => {} } as unknown as Watch<SigningRequest>,
    nodes: Object.defineProperty(nodes, 'behindMs', { get: () => world.behindMs }) as unknown as Watch<Node>,
    recorder: { record: (_: unknown, { note }: { readonly note: string }) => world.takes && notes.push(note) > 0 },
    ...{ meter: openMeter(new Registry()), readRequest, clock: () => new Date(0), signers: new Map() },
    ...{ sayings: openSayings(() => 0), rivals },
  } as unknown as SigningDeps
  return {
    calls,
    notes,
    world,
    nodes,
    rivals,
    look: (waited = 0) => lookAtSigningRequest(deps, { key, waited, signal }),
  }
}

t.test(
  'nothing is approved, nor asked, while the nodes were not seen for a minute; soon it is looked at again',
  async (t) => {
    const { calls, notes, world, look } = open()
    world.behindMs = 60_001
    t.same(await look(), { kind: 'retry', after: 5 })
    t.same(calls, [])
    t.match(notes, [/what other nodes have is not known/])
    world.behindMs = 0
    t.same(await look(), { kind: 'retry' })
    t.same(calls.slice(0, 2), ['GET nodes/worker-1', `PATCH ${key}/approval`])
  },
)

t.test('what nobody can change is left for good, without asking for the node', async (t) => {
  for (const [change, says] of [
    [{ username: 'alice' }, /alice is not a node/],
    [{ username: 'system:node:..' }, /system:node:\.\. is not a node/],
    [{ groups: ['system:authenticated'] }, /is not a node/],
    [{ usages: ['server auth'] }, /usages/],
    [{ username: 'system:node:worker-2' }, /commonName/],
    [{ request: Buffer.from('no').toString('base64') }, /cannot be read/],
    [{ request: 'A'.repeat(40_000) }, /cannot be read: it is empty or too long: Chancery reads 16 KiB in DER at most$/],
  ] as const) {
    const { calls, notes, look } = open({ ...asking, spec: { ...asking.spec, ...change } })
    t.same(await look(), { kind: 'retry', after: 86_400, isLeft: true })
    t.match(notes, [says])
    t.same(calls, [])
  }
})

t.test('what could not be told, since there were too many events, is told another time', async (t) => {
  const { notes, world, look } = open({ ...asking, spec: { ...asking.spec, usages: ['server auth'] } })
  world.takes = false
  t.same(await look(), { kind: 'retry', after: 60, isLeft: true })
  world.takes = true
  t.same(await look(60), { kind: 'retry', after: 86_400, isLeft: true })
  t.match(notes, [/usages/])
})

t.test('what the Node object may yet say is looked at ever more rarely, and told of once', async (t) => {
  const { calls, notes, world, look } = open()
  const addresses = (address: string) => ({ addresses: [{ type: 'InternalIP', address }] })
  world.node = { ...worker, status: addresses('10.0.0.12') }
  const told: unknown[] = []
  for (const waited of [0, 63, 129, 260, 530, 1_160, 80_000]) {
    const looked = await look(waited)
    told.push(looked.kind === 'retry' && looked.isLeft && looked.yields && looked.after)
  }
  t.same(told, [60, 63, 129, 260, 530, 600, 600])
  t.equal(calls.length, 7)
  t.match(notes, [/is not among the addresses of the node/])
  t.equal(notes.length, 1)
  world.node = { ...worker, metadata: { ...worker.metadata, name: 'worker-2' } }
  await look()
  await look()
  t.match(notes, [/is not among/, /does not exist/])
  t.equal(notes.length, 2)
})

t.test('another request of the same name is told of as well, and nothing is remembered of what has gone', async (t) => {
  const { notes, world, look } = open({ ...asking, spec: { ...asking.spec, usages: ['server auth'] } })
  const [first] = [world.request as SigningRequest]
  await look()
  world.request = { ...first, metadata: { ...first.metadata, uid: 'another' } }
  await look()
  t.equal(notes.length, 2)
  world.request = undefined
  t.same(await look(), { kind: 'end' })
  world.request = { ...first, metadata: { ...first.metadata, uid: 'another' } }
  await look()
  t.equal(notes.length, 3)
})

t.test('a long one is read where it is looked at, and not another one that has its name by now', async (t) => {
  const long = { ...asking, spec: { ...asking.spec, request: 'A'.repeat(8_000) } }
  const { calls, notes, world, look } = open(keepSigningRequest(() => true)(long))
  t.equal(world.request?.spec.request, '?')
  world.read = { ...long, metadata: { ...long.metadata, uid: 'another' } }
  t.same(await look(), { kind: 'end' })
  t.same(calls, [`GET certificatesigningrequests/${key}`])
  world.read = long
  t.match(await look(), { isLeft: true })
  t.match(notes, [/cannot be read/])
})

t.test(
  'nothing is approved before it is known what other nodes have, nor kept of a rival that is none any more',
  async (t) => {
    const { calls, world, nodes, rivals, look } = open()
    nodes.synced = false
    t.same(await look(), { kind: 'retry' })
    t.same(calls, [])
    nodes.synced = true
    world.others = [{ ...worker, metadata: { ...worker.metadata, name: 'worker-2', uid: 'worker-2' } }]
    t.match(await look(), { isLeft: true })
    t.same([...rivals], [[key, 'worker-2']])
    world.others = []
    await look()
    t.same(calls.at(-1), `PATCH ${key}/approval`)
    t.same([...rivals], [])
  },
)
