/** Looks at requests of kubelets, one by one: what is asked of the API server, what is told, and when the next look is. */
import { Registry } from 'prom-client'
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import { ApiFault } from '../../src/kubernetes/api/client.ts'
import type { Node, SigningRequest } from '../../src/kubernetes/api/objects.ts'
import type { Watch } from '../../src/kubernetes/api/watch.ts'
import type { Outcome } from '../../src/kubernetes/decide/outcome.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import { lookAtSigningRequest, type SigningDeps } from '../../src/kubernetes/reconcile/signing.ts'
import { issueFor } from './certificates.ts'
import { approved, denied, factsOf, issuerOf, signingRequest, withConditions, worker as workerWith } from './objects.ts'

const asking = signingRequest('11-create-kubelet-serving')
const { name: key } = asking.metadata
const worker = workerWith([
  ['Hostname', 'worker-1'],
  ['InternalIP', '10.0.0.11'],
])
const signer = { name: asking.spec.signerName, issuer: 'default' }
const { signal } = new AbortController()

const open = (first: SigningRequest = asking) => {
  const calls: string[] = []
  const notes: string[] = []
  const world = {
    ...{ request: first as SigningRequest | undefined, read: undefined as SigningRequest | undefined },
    ...{ node: worker, others: [] as readonly Node[], behindMs: 0, takes: true },
    ...{ answers: [] as (SigningRequest | Node | ApiFault)[], outcome: undefined as Outcome | undefined },
  }
  const nodes = { synced: true, all: () => [world.node, ...world.others] }
  let reported = {}
  const heard: unknown[] = []
  const registry = new Registry()
  const deps = {
    api: {
      call: async (method: string, path: string) => {
        calls.push(`${method} ${path.split('/').slice(-2).join('/')}`)
        const answer = world.answers.shift()
        if (answer instanceof ApiFault) throw answer
        if (answer) return answer as never
        return (method === 'GET' ? (world.read ?? world.node) : world.request) as never
      },
    },
    watch: { get: () => world.request } as unknown as Watch<SigningRequest>,
    nodes: Object.defineProperty(nodes, 'behindMs', { get: () => world.behindMs }) as unknown as Watch<Node>,
    recorder: { record: (_: unknown, { note }: { readonly note: string }) => world.takes && notes.push(note) > 0 },
    ...{ meter: openMeter(registry), readRequest, clock: () => new Date(0), signers: new Map([[signer.name, signer]]) },
    issuers: { find: () => issuerOf(), hear: (_: unknown, outcome: Outcome) => heard.push(outcome) },
    asker: { ask: async () => ({ outcome: world.outcome }) },
  } as unknown as SigningDeps
  return {
    calls,
    notes,
    world,
    nodes,
    heard,
    ended: async () =>
      (await registry.metrics()).split('\n').filter((line) => line.startsWith('chancery_controller_ended_total{')),
    look: async (waited = 0) => {
      const looked = await lookAtSigningRequest(deps, { key, waited, reported, signal })
      if (looked.kind === 'end') reported = {}
      return looked
    },
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

t.test('an approval is told and counted where it was written, and only there', async (t) => {
  const approving = 'chancery_controller_ended_total{resource="certificatesigningrequests",outcome="approved"} 1'
  const message = 'the node asks for itself, and for nothing but what its Node object has'
  const conflict = new ApiFault(409, 'it was written meanwhile', { reason: 'Conflict' })
  for (const [answers, looked, told] of [
    [[], { kind: 'retry' }, true],
    [[conflict, withConditions(asking, denied)], { kind: 'retry' }, false],
    [[new ApiFault(404, 'it is gone')], { kind: 'end' }, false],
    [[new ApiFault(413, 'it is full')], { kind: 'retry', after: 86_400, isLeft: true }, false],
  ] as const) {
    const { calls, notes, world, ended, look } = open()
    world.answers.push(worker, ...answers)
    t.same(await look(), looked)
    t.same(calls.slice(0, 2), ['GET nodes/worker-1', `PATCH ${key}/approval`])
    t.equal(notes.includes(message), told)
    t.same(await ended(), told ? [approving] : [])
  }
})

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

t.test('a node that is gone does not exist; one that cannot be read is not said to be gone', async (t) => {
  const { notes, world, look } = open()
  const away = new ApiFault(503, 'not now')
  world.answers.push(away)
  await t.rejects(look(), away)
  t.same(notes, [])
  world.answers.push(new ApiFault(404, 'it is gone'))
  t.match(await look(), { isLeft: true, yields: true })
  t.match(notes, [/node worker-1 does not exist/])
})

t.test('one that is gone, or has ended while Chancery signed, is neither told nor counted as ended', async (t) => {
  const signing = withConditions(asking, approved)
  const conflict = new ApiFault(409, 'it was written meanwhile', { reason: 'Conflict' })
  for (const [answers, outcome, told] of [
    [[new ApiFault(404, 'it is gone')], undefined, 0],
    [[conflict, withConditions(asking, approved, { type: 'Failed', status: 'True' })], undefined, 0],
    [[conflict, { ...signing, status: { ...signing.status, certificate: 'issued' } }], undefined, 0],
    [[conflict, signing], 'issued', 1],
    [[new ApiFault(413, 'it is full'), signing], 'failed', 2],
  ] as const) {
    const { notes, world, heard, ended, look } = open(signing)
    world.outcome = { kind: 'issued', issued: issueFor(factsOf(asking).spki, new Date(0)) }
    world.answers.push(...answers)
    t.same(await look(), { kind: 'end' })
    t.same(heard, [world.outcome])
    const line = `chancery_controller_ended_total{resource="certificatesigningrequests",outcome="${outcome}"} 1`
    t.same(await ended(), outcome === undefined ? [] : [line])
    t.equal(notes.length, told, notes.join())
  }
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

t.test('nothing is approved before it is known what other nodes have', async (t) => {
  const { calls, world, nodes, look } = open()
  nodes.synced = false
  t.same(await look(), { kind: 'retry' })
  t.same(calls, [])
  nodes.synced = true
  world.others = [{ ...worker, metadata: { ...worker.metadata, name: 'worker-2', uid: 'worker-2' } }]
  t.match(await look(), { isLeft: true })
  world.others = []
  await look()
  t.same(calls.at(-1), `PATCH ${key}/approval`)
})
