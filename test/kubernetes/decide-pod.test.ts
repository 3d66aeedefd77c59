/** What becomes of PodCertificateRequests, decided over those that the real API server has taken from real kubelets. */
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import type { PodCertificateRequest } from '../../src/kubernetes/api/objects.ts'
import type { Fault, Outcome } from '../../src/kubernetes/decide/outcome.ts'
import {
  decidePod,
  decidePodAnswer,
  type PodLook,
  type PodStep,
  stubOf,
  tellsNamespace,
} from '../../src/kubernetes/decide/pod.ts'
import { issueFor } from './certificates.ts'
import { issuerOf, recorded } from './objects.ts'

const first = recorded<PodCertificateRequest>('podcertificaterequests/01-create')
const signer = {
  ...{ name: 'chanceryclusterissuers.chancery.dev/default', issuer: 'default' },
  podNames: { uri: ['spiffe://cluster.local/ns/{namespace}/sa/{serviceAccount}'] },
}
const now = new Date('2026-11-24T23:20:00.500Z')
const stub = stubOf(first) ?? ''
const facts = readRequest(stub)
const look: PodLook = { request: first, issuer: issuerOf(), facts, signer, now, waited: 0 }
const decide = (change: Partial<PodLook>): PodStep => decidePod({ ...look, ...change })
const asking = (change: Partial<PodCertificateRequest['spec']>): PodCertificateRequest => ({
  ...first,
  spec: { ...first.spec, ...change },
})

t.test(
  'what is asked for has the key of the request, and lasts for as long as it says, but for more than an hour',
  async (t) => {
    const bodyOf = (change: Partial<PodLook>) => {
      const step = decide(change)
      if (step.kind !== 'ask') throw new Error(step.kind)
      return step.ask.body
    }
    t.equal(bodyOf({}).csr, stub)
    for (const [seconds, validity] of [
      [3_600, '3601s'],
      [3_601, '3601s'],
      [3_602, '3602s'],
    ] as const)
      t.equal(bodyOf({ request: asking({ maxExpirationSeconds: seconds }) }).validity, validity)
    const { maxExpirationSeconds: _, ...spec } = first.spec
    t.equal(bodyOf({ request: { ...first, spec } }).validity, '86400s', 'as the API server has it')
    t.notOk('onBehalfOf' in bodyOf({ issuer: issuerOf({ onBehalfOf: false }) }))
  },
)

t.test('what is no base64, or more than a certificate could have, is no request', async (t) => {
  t.match(stub, /^-----BEGIN CERTIFICATE REQUEST-----\n([A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE REQUEST-----\n$/)
  for (const stubPKCS10Request of ['', '-AAAA', 'AAAA\n', 'AAA=A', 'A'.repeat(22_001)])
    t.equal(stubOf(asking({ stubPKCS10Request })), undefined, stubPKCS10Request.slice(0, 10))
  t.type(stubOf(asking({ stubPKCS10Request: 'A'.repeat(22_000) })), 'string')
})

t.test('a request that is being deleted is left alone', async (t) => {
  const request = { ...first, metadata: { ...first.metadata, deletionTimestamp: '2026-11-24T23:19:00Z' } }
  t.same(decide({ request }), { kind: 'ignore' })
})

t.test('a signer is for pods only where it says which names they have', async (t) => {
  const { podNames: _, ...without } = signer
  t.match(decide({ signer: without }), {
    kind: 'leave',
    event: { type: 'Warning', reason: 'LeftOpen', action: 'Sign', note: /gives? signer chancery.* no podNames/ },
  })
})

t.test('a request that cannot be read has failed, with its time', async (t) => {
  const message = 'Not strict DER (csr.der)'
  t.same(decide({ facts: { fault: message } }), {
    kind: 'write',
    status: {
      conditions: [
        {
          type: 'Failed',
          status: 'True',
          reason: 'RequestUnreadable',
          message,
          lastTransitionTime: '2026-11-24T23:20:00Z',
        },
      ],
    },
    event: { type: 'Warning', reason: 'RequestUnreadable', action: 'Sign', note: message },
  })
})

t.test('an issuer that is missing, not checked or not ready is waited for, and told of after a second', async (t) => {
  for (const [issuer, note] of [
    [undefined, 'ChanceryClusterIssuer default does not exist'],
    [issuerOf({}, null), 'ChanceryClusterIssuer default has not been checked yet'],
    [issuerOf({}, { status: 'False', observedGeneration: 1 }), 'ChanceryClusterIssuer default is not ready'],
  ] as const) {
    t.same(decide({ issuer, waited: 0.9 }), { kind: 'wait' })
    const event = { type: 'Normal', reason: 'Pending', action: 'Sign', note }
    t.same(decide({ issuer, waited: 1 }), { kind: 'wait', event })
  }
})

t.test('a setback waits for as long as Chancery says, and is the issuer’s where all would meet it', async (t) => {
  const answer = (fault: Fault) => decidePodAnswer({ ...look, outcome: { kind: 'fault', fault } })
  const problem = (code: string, more: object = {}): Fault => ({
    kind: 'problem',
    problem: { code, detail: 'So it is.', retryable: true, ...more },
  })
  t.same(answer(problem('overload.queue')), { kind: 'wait' })
  t.same(answer(problem('overload.queue', { retryAfter: 7 })), { kind: 'wait', after: 7 })
  const away: Fault = { kind: 'unreachable', message: 'nobody is there' }
  t.same(answer(away), { kind: 'wait', ofIssuer: away })
  t.match(answer(problem('key.size', { retryable: false })), {
    status: { conditions: [{ type: 'Denied', reason: 'UnsupportedKeyType' }] },
  })
  for (const code of ['key.weak', 'approval.rejected', 'approval.withdrawn', 'approval.failed'])
    t.equal(answer(problem(code, { retryable: false })).kind, 'leave', code)
})

t.test(
  'a certificate is handed over where the API server takes it: an hour at least, begun within five minutes',
  async (t) => {
    if (facts === undefined || 'fault' in facts) throw new Error('it has no key')
    const issuedAt = new Date('2026-11-24T23:20:00Z')
    // The helper begins an hour before what it is given.
    const issue = (validity?: number) => issueFor(facts.spki, new Date(issuedAt.getTime() + 3_600_000), validity)
    const answer = (now: Date, { validity, answeredAt }: { validity?: number; answeredAt?: Date } = {}) => {
      const issued = { ...issue(validity), ...(answeredAt && { answeredAt }) }
      const write = decidePodAnswer({ ...look, now, outcome: { kind: 'issued', issued } })
      if (write.kind !== 'write') return write.kind
      const { type, reason } = write.event
      return `${type} ${reason} ${reason === write.status.conditions[0].reason}`
    }
    const after = (milliseconds: number): Date => new Date(issuedAt.getTime() + milliseconds)
    const [good, bad] = ['Normal Issued true', 'Warning AnswerUnusable true']
    t.equal(answer(issuedAt, { validity: 3_600 }), good)
    t.equal(answer(issuedAt, { validity: 3_599 }), bad)
    for (const sign of [1, -1]) {
      t.equal(answer(after(sign * 299_999)), good)
      t.equal(answer(after(sign * 300_000)), bad, 'nor one that has not begun')
    }
    t.equal(answer(after(600_000), { answeredAt: issuedAt }), good, 'by the clock of Chancery, where it is known')
    for (const unread of [undefined, { fault: 'Not strict DER (csr.der)' }]) {
      const outcome: Outcome = { kind: 'issued', issued: issue() }
      t.match(decidePodAnswer({ ...look, facts: unread, outcome }), { kind: 'leave', event: { note: /another key/ } })
    }
  },
)

/** Of names by this template, two that are the same and of two namespaces. */
const sharedBy = (template: string): string | undefined => {
  const seen = new Map<string, string>()
  for (const namespace of ['a', 'b', 'a-a', 'a-b', 'a-a-a'])
    for (const serviceAccount of names)
      for (const pod of names) {
        const filled = { namespace, serviceAccount, pod, node: 'a' }
        const name = template.replace(/\{(\w+)\}/g, (_, fact: keyof typeof filled) => filled[fact])
        const other = seen.get(name)
        if (other !== undefined && other !== namespace) return `${name} is of ${other} and of ${namespace}`
        seen.set(name, namespace)
      }
  return undefined
}
const names = ['a', 'b', 'a.a', 'a-a', 'a.b', 'b.a', 'a-a-a', 'a.a.a']

t.test('no template that is taken has one name for accounts or pods of two namespaces', async (t) => {
  const parts = ['{namespace}', '{serviceAccount}', '{pod}', '-', '.', '/', 'a']
  const templates = (most: number): readonly string[] =>
    most === 0 ? [''] : templates(most - 1).flatMap((head) => ['', ...parts].map((part) => `${head}${part}`))
  let taken = 0
  for (const template of new Set(templates(5))) {
    if (!/\{(namespace|serviceAccount|pod)\}/.test(template) || !tellsNamespace(template)) continue
    taken += 1
    const shared = sharedBy(template)
    if (shared !== undefined) t.fail(`${template}: ${shared}`)
  }
  t.ok(taken > 1_000, `${taken} are taken`)
  for (const template of [
    '{namespace}',
    '{node}',
    'x/{namespace}/{pod}',
    '{pod}.{namespace}',
    '{namespace}.{serviceAccount}',
  ])
    t.ok(tellsNamespace(template), template)
})
