/** Looks at requests of pods, one by one: what is asked, written, told and counted, and when the next look is. */
import { Registry } from 'prom-client'
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import { ApiFault } from '../../src/kubernetes/api/client.ts'
import type { Condition, Issuer, PodCertificateRequest } from '../../src/kubernetes/api/objects.ts'
import type { Ask } from '../../src/kubernetes/decide/asking.ts'
import type { Outcome } from '../../src/kubernetes/decide/outcome.ts'
import { stubOf } from '../../src/kubernetes/decide/pod.ts'
import type { Told } from '../../src/kubernetes/decide/request.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import {
  lookAtPodRequest,
  type PodsDeps,
  stateOfPodRequest,
  whyNoPodRequests,
} from '../../src/kubernetes/reconcile/pods.ts'
import { issueFor } from './certificates.ts'
import { issuerOf, recorded } from './objects.ts'

const first = recorded<PodCertificateRequest>('podcertificaterequests/01-create')
const asking = (spec: Partial<PodCertificateRequest['spec']>): PodCertificateRequest => ({
  ...first,
  spec: { ...first.spec, ...spec },
})
const ending = (type: string, status: Condition['status'] = 'True'): PodCertificateRequest => ({
  ...first,
  status: { conditions: [{ type, status }] },
})
const signer = {
  ...{ name: first.spec.signerName, issuer: 'default' },
  podNames: { uri: ['spiffe://cluster.local/ns/{namespace}/sa/{serviceAccount}'] },
}
const began = Date.parse('2026-11-24T23:20:00.500Z')
const facts = readRequest(stubOf(first) ?? '')
/** The helper begins an hour before. */
const good = (): Outcome => {
  if ('fault' in facts) throw new Error(facts.fault)
  return { kind: 'issued', issued: issueFor(facts.spki, new Date(began + 3_600_000)) }
}
const { signal } = new AbortController()

const open = (request: PodCertificateRequest | undefined = first) => {
  const world = {
    request: request as PodCertificateRequest | undefined,
    issuer: issuerOf() as Issuer | undefined,
    outcome: good(),
    now: began,
    askingMs: 0,
    answers: [] as (PodCertificateRequest | ApiFault)[],
  }
  const asks: Ask[] = []
  const calls: string[] = []
  const told: Told[] = []
  const heard: Outcome[] = []
  const suspected: unknown[] = []
  const signals: unknown[] = []
  const bodies: unknown[] = []
  const registry = new Registry()
  const deps = {
    api: {
      call: async (
        method: string,
        path: string,
        { body, signal }: { readonly body?: object; readonly signal: unknown },
      ) => {
        calls.push(`${method} ${path.split('/').slice(-2).join('/')}`)
        signals.push(signal)
        bodies.push(body)
        const answer = world.answers.shift() ?? ({ ...world.request, ...body } as PodCertificateRequest)
        if (answer instanceof ApiFault) throw answer
        return answer
      },
    },
    watch: { get: () => world.request },
    issuers: {
      find: (name: string) => (name === 'ChanceryClusterIssuer/default' ? world.issuer : undefined),
      hear: (_: Issuer, outcome: Outcome) => heard.push(outcome),
      suspect: (_: Issuer, fault: unknown) => suspected.push(fault),
    },
    asker: {
      ask: async (_: Issuer, ask: Ask, signal: unknown) => {
        asks.push(ask)
        signals.push(signal)
        world.now += world.askingMs
        return { outcome: world.outcome }
      },
    },
    recorder: { record: (_: unknown, event: Told) => told.push(event) > 0 },
    ...{ signers: new Map([[signer.name, signer]]), meter: openMeter(registry) },
    ...{ readRequest, clock: () => new Date(world.now) },
  } as unknown as PodsDeps
  const counted = async (): Promise<readonly string[]> =>
    (await registry.metrics()).split('\n').filter((line) => /^chancery_controller_(writes|ended)_total\{/.test(line))
  const reported = {}
  const look = (waited = 0) => lookAtPodRequest(deps, { key: 'team-a/first', waited, reported, signal })
  return { world, asks, calls, told, heard, suspected, signals, bodies, counted, look }
}

t.test('a request is asked for, written, told and counted once', async (t) => {
  const { world, asks, calls, told, heard, signals, bodies, counted, look } = open()
  t.same(await look(), { kind: 'end' })
  t.equal(asks.length, 1)
  t.same(heard, [world.outcome])
  t.same(calls, [`PATCH ${first.metadata.name}/status`])
  t.same(signals, [signal, signal])
  t.match(bodies, [{ status: { conditions: [{ type: 'Issued' }], certificateChain: /BEGIN CERTIFICATE/ } }])
  t.match(told, [{ type: 'Normal', reason: 'Issued' }])
  t.same(await counted(), [
    'chancery_controller_ended_total{resource="podcertificaterequests",outcome="issued"} 1',
    'chancery_controller_writes_total{resource="podcertificaterequests",outcome="written"} 1',
  ])
})

t.test('what is gone, is of another signer, or has ended, is not asked for', async (t) => {
  const cases = [undefined, asking({ signerName: 'example.com/other' })]
  for (const request of [...cases, ...['Issued', 'Denied', 'Failed'].map((type) => ending(type))]) {
    const { world, asks, calls, told, look } = open()
    world.request = request
    t.same(await look(), { kind: 'end' })
    t.same([...asks, ...calls, ...told], [])
  }
})

t.test('it waits for an issuer, and says so where that takes longer than a moment', async (t) => {
  const { world, asks, told, heard, look } = open()
  world.issuer = undefined
  const retry = { kind: 'retry', isPoll: false, yields: false }
  t.same(await look(), retry)
  t.same(told, [])
  t.same(await look(1), retry)
  t.match(told, [{ type: 'Normal', reason: 'Pending', note: 'ChanceryClusterIssuer default does not exist' }])
  t.same([...asks, ...heard], [])
})

t.test('what all who ask would meet is laid to the issuer that was asked', async (t) => {
  const { world, suspected, calls, look } = open()
  const fault = { kind: 'unreachable', message: 'nobody is there' } as const
  world.outcome = { kind: 'fault', fault }
  t.same(await look(), { kind: 'retry', isPoll: false, yields: true })
  t.same(suspected, [fault])
  t.same(calls, [])
})

t.test('what no issuer has said is told, however soon after something else was', async (t) => {
  const { world, told, look } = open()
  const { issuer } = world
  const fault = { kind: 'unreachable', message: 'nobody is there' } as const
  world.outcome = { kind: 'fault', fault }
  for (const asked of [undefined, issuer, issuer, undefined]) {
    world.issuer = asked
    await look(1)
  }
  t.match(told, [{ note: /does not exist/ }, { note: /nobody is there/ }, { note: /does not exist/ }])
})

t.test('the times that count are those of the answer, not of the question', async (t) => {
  const { world, told, look } = open()
  world.askingMs = 301_000
  await look()
  t.match(told, [{ reason: 'AnswerUnusable', note: /begins more than five minutes ago/ }])
})

t.test(
  'one that is gone, or has ended meanwhile, is neither told nor counted as ended; one that was touched is',
  async (t) => {
    const conflict = new ApiFault(409, 'it was written meanwhile', { reason: 'Conflict' })
    for (const [answers, events] of [
      [[new ApiFault(404, 'it is gone')], 0],
      [[conflict, ending('Failed')], 0],
      [[conflict, { ...first, metadata: { ...first.metadata, deletionTimestamp: '2026-11-24T23:19:00Z' } }], 0],
      [[conflict, ending('Failed', 'False')], 1],
      [[conflict, first], 1],
    ] as const) {
      const { world, told, counted, look } = open()
      world.answers.push(...answers)
      t.same(await look(), { kind: 'end' })
      t.equal(told.length, events)
      t.equal((await counted()).filter((line) => line.includes('ended_total')).length, events)
    }
  },
)

t.test(
  'a status that is not taken is counted as failed, and tried again; where nobody takes any, that is no look',
  async (t) => {
    const { world, told, counted, look } = open()
    world.answers.push(new ApiFault(422, 'status.notBefore: must be within five minutes of now'))
    t.same(await look(), { kind: 'retry', after: 60 })
    t.match(told, [{ reason: 'StatusRefused' }])
    t.same(await counted(), ['chancery_controller_writes_total{resource="podcertificaterequests",outcome="failed"} 1'])
    world.answers.push(new ApiFault(503, 'not now'))
    await t.rejects(look(), new ApiFault(503, 'not now'))
  },
)

t.test('of a request without a stub, and of one with another thing in it', async (t) => {
  for (const stubPKCS10Request of [null, undefined]) {
    const { told, calls, look } = open(asking({ stubPKCS10Request } as object))
    t.same(await look(), { kind: 'retry', after: 86_400, isLeft: true })
    t.match(told, [{ reason: 'LeftOpen' }])
    t.same(calls, [])
  }
  for (const stubPKCS10Request of ['', 'no base64']) {
    const { told, signals, look } = open(asking({ stubPKCS10Request }))
    t.same(await look(), { kind: 'end' })
    t.same(signals, [signal])
    t.match(told, [{ reason: 'RequestUnreadable', note: 'spec.stubPKCS10Request holds no request' }])
  }
})

t.test('a request whose end, or who, is another one is another state; what it is otherwise is none', async (t) => {
  const state = stateOfPodRequest(first)
  t.not(stateOfPodRequest(ending('Denied')), state)
  t.not(stateOfPodRequest({ ...first, metadata: { ...first.metadata, uid: 'another' } }), state)
  t.equal(
    stateOfPodRequest({ ...ending('Failed', 'False'), metadata: { ...first.metadata, resourceVersion: '99' } }),
    state,
  )
})

t.test('what the API server serves is asked for once, until whoever asks gives up', async (t) => {
  const paths: string[] = []
  const signals: unknown[] = []
  const ask = (answers: Readonly<Record<string, unknown>>, signal?: AbortSignal) =>
    whyNoPodRequests(
      {
        call: async (method, path, call) => {
          paths.push(`${method} ${path}`)
          signals.push(call?.signal)
          if (answers[path] === undefined) throw new ApiFault(403, 'you may not')
          return answers[path] as never
        },
      },
      signal,
    )
  const [root, served] = ['/apis/certificates.k8s.io/v1beta1', { resources: [{ name: 'podcertificaterequests' }] }]
  t.equal(await ask({ [root]: served }, signal), undefined, 'who may not know the version is not turned away')
  t.same(paths, [`GET ${root}`, 'GET /version'])
  t.same(signals, [signal, signal])
  t.match(await ask({}), /^this API server has no PodCertificateRequests \(certificates\.k8s\.io\/v1beta1\)$/)
  t.match(await ask({ [root]: {} }), /has no PodCertificateRequests/)
  t.match(await ask({ [root]: served, '/version': { major: '1', minor: '35' } }), /1\.36 is wanted/)
})
