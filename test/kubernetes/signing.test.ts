/** Looks at requests of kubelets, one by one: what is asked of the API server, what is told, and when the next look is. */
import { Registry } from 'prom-client'
import t from 'tap'

import { readRequest } from '../../src/commands/controller.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import type { Node, SigningRequest } from '../../src/kubernetes/objects.ts'
import { openSayings } from '../../src/kubernetes/sayings.ts'
import { lookAtSigningRequest, type SigningDeps } from '../../src/kubernetes/signing.ts'
import type { Watch } from '../../src/kubernetes/watch.ts'
import { signingRequest } from './objects.ts'

const asking = signingRequest('11-create-kubelet-serving')
const { name: key } = asking.metadata
const worker: Node = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'worker-1', uid: 'n', resourceVersion: '1', creationTimestamp: '2026-11-24T23:00:00Z' },
  status: {
    addresses: [
      { type: 'Hostname', address: 'worker-1' },
      { type: 'InternalIP', address: '10.0.0.11' },
    ],
  },
}
const { signal } = new AbortController()

const open = (first: SigningRequest = asking) => {
  const calls: string[] = []
  const notes: string[] = []
  const world = { request: first as SigningRequest | undefined, node: worker, behindMs: 0 }
  const nodes = { synced: true, all: () => [world.node] }
  const deps = {
    api: {
      call: async (method: string, path: string) => {
        calls.push(`${method} ${path.split('/').slice(-2).join('/')}`)
        return (method === 'GET' ? world.node : world.request) as never
      },
    },
    watch: { get: () => world.request, learn: () => {} } as unknown as Watch<SigningRequest>,
    nodes: Object.defineProperty(nodes, 'behindMs', { get: () => world.behindMs }) as unknown as Watch<Node>,
    recorder: { record: (_: unknown, { note }: { readonly note: string }) => void notes.push(note) },
    ...{ meter: openMeter(new Registry()), readRequest, clock: () => new Date(0), signers: new Map() },
    sayings: openSayings(() => 0),
  } as unknown as SigningDeps
  return { calls, notes, world, look: (waited = 0) => lookAtSigningRequest(deps, { key, waited, signal }) }
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
