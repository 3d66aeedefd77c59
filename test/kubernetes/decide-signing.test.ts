/** What becomes of CertificateSigningRequests, decided over those that the real API server has taken. */
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import type { Issuer, Node, SigningRequest } from '../../src/kubernetes/api/objects.ts'
import { decideApproval } from '../../src/kubernetes/decide/approval.ts'
import type { RequestFacts } from '../../src/kubernetes/decide/asking.ts'
import type { Outcome } from '../../src/kubernetes/decide/outcome.ts'
import {
  decideSigned,
  decideSigning,
  isKnownSigner,
  type SigningStep,
  type SigningWrite,
} from '../../src/kubernetes/decide/signing.ts'
import { newP256, pem, rdn, request, seq, utf8 } from '../x509/build.ts'
import { issueFor } from './certificates.ts'
import { approved, denied, factsOf, issuerOf, signingRequest, withConditions, worker as workerWith } from './objects.ts'

const now = new Date('2026-11-24T23:20:00.500Z')
const first = signingRequest('29-get-approved')
const kubelet = withConditions(signingRequest('11-create-kubelet-serving'), approved)
const signer = { name: first.spec.signerName, issuer: 'default' }

interface Case {
  readonly issuer?: Issuer | undefined
  readonly facts?: RequestFacts | { readonly fault: string }
  readonly waited?: number
  readonly retryFor?: number
}

const look = (request: SigningRequest, options: Case = {}) => ({
  ...{ request, issuer: issuerOf(), facts: factsOf(request), signer, now, waited: 0 },
  ...options,
})
const decide = (request: SigningRequest, options: Case = {}): SigningStep => decideSigning(look(request, options))
const failure = (step: { readonly kind: string }): string => {
  const { status } = step as SigningWrite
  if (step.kind !== 'write' || !('conditions' in status)) return step.kind
  const [{ type, status: is, reason, message }] = status.conditions
  return `${type}=${is} ${reason}: ${message}`
}
const spec = (request: SigningRequest, change: Partial<SigningRequest['spec']>): SigningRequest => ({
  ...request,
  spec: { ...request.spec, ...change },
})

const without = ({ spec, ...rest }: SigningRequest, field: keyof SigningRequest['spec']): SigningRequest => ({
  ...rest,
  spec: { ...spec, [field]: undefined },
})

t.test('an approved request is asked for under its uid, with its usages and its expiry', async (t) => {
  const { username, uid, groups, extra, request } = first.spec
  t.same(decide(first), {
    kind: 'ask',
    ask: {
      idempotencyKey: first.metadata.uid,
      body: {
        csr: Buffer.from(request, 'base64').toString(),
        profile: 'server',
        validity: '3600s',
        keyUsage: ['digitalSignature'],
        extendedKeyUsage: ['clientAuth'],
        onBehalfOf: {
          ...{ user: username, uid, groups, extra },
          object: {
            ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest' },
            ...{ name: 'first', uid: first.metadata.uid },
          },
        },
      },
    },
  })
  const { expirationSeconds: _, ...rest } = first.spec
  const step = decide({ ...first, spec: rest })
  t.notOk(step.kind === 'ask' && step.ask.body.validity, 'the profile says how long otherwise')
  const short = decide(spec(first, { expirationSeconds: 60 }))
  t.equal(short.kind === 'ask' && short.ask.body.validity, '600s', 'as Kubernetes’ own signer raises it')
  const silent = decide(first, { issuer: issuerOf({ onBehalfOf: false }) })
  t.ok(silent.kind === 'ask' && !('onBehalfOf' in silent.ask.body))
})

t.test('a usage that no certificate has fails for good; an issuer that is not ready is waited for', async (t) => {
  t.equal(
    failure(decide(spec(first, { usages: ['client auth', 'cert sign'] }))),
    'Failed=True SignerValidationFailure: spec.usages: the usage cert sign is for nobody: only a CA signs certificates',
  )
  for (const [ready, note] of [
    [null, 'ChanceryClusterIssuer default has not been checked yet'],
    [{ status: 'False', observedGeneration: 1 }, 'ChanceryClusterIssuer default is not ready'],
  ] as const)
    t.same(decide(first, { issuer: issuerOf({}, ready), waited: 1 }), {
      kind: 'wait',
      event: { type: 'Normal', reason: 'Pending', action: 'Sign', note },
    })
})

t.test('what people must approve is asked for again and again, and said at once', async (t) => {
  t.same(decideSigned({ ...look(first), outcome: { kind: 'waiting', id: 'r-1' } }), {
    ...{ kind: 'wait', after: 10, isPoll: true },
    event: {
      ...{ type: 'Normal', reason: 'Pending', action: 'Sign' },
      note: 'people must approve it at Chancery first: request r-1',
    },
  })
})

t.test('what is not approved, denied, failed or signed already is nobody’s to sign', async (t) => {
  const failed = { type: 'Failed', status: 'True' } as const
  for (const request of [
    signingRequest('01-create'),
    signingRequest('27-sign-unapproved'),
    signingRequest('31-sign-apply'),
    signingRequest('40-sign-after-failed'),
    signingRequest('44-sign-denied'),
    withConditions(first, approved, denied),
    withConditions(first, approved, failed),
    withConditions(first, { ...approved, status: 'False' }),
    { ...first, metadata: { ...first.metadata, deletionTimestamp: '2026-11-24T23:19:00Z' } },
  ])
    t.same(decide(request), { kind: 'ignore' }, JSON.stringify(request.status))
})

t.test('kubelets’ requests are signed by Kubernetes’ own rules', async (t) => {
  t.equal(decide(kubelet).kind, 'ask')
  const rsa = withConditions(signingRequest('12-create-kubelet-serving-rsa'), approved)
  t.equal(decide(rsa).kind, 'ask', 'with key encipherment')
  const facts = factsOf(kubelet)
  const at = (facts: RequestFacts, change: Partial<SigningRequest['spec']> = {}): string =>
    failure(decide(spec(kubelet, change), { facts }))
  for (const [told, says] of [
    [at({ ...facts, organizations: ['system:nodes', 'other'] }), /organization/],
    [at({ ...facts, organizations: [] }), /organization/],
    [at({ ...facts, organizations: ['other'] }), /organization/],
    [at({ ...facts, organizations: ['system:masters'] }), /system:masters/],
    [at({ ...facts, commonName: 'worker-1' }), /commonName/],
    [at({ ...facts, commonName: 'system:node:' }), /commonName/],
    [at({ ...facts, commonName: 'other:system:node:worker-1' }), /commonName/],
    [at({ ...facts, commonName: undefined }), /commonName/],
    [at({ ...facts, names: [] }), /names: there must be/],
    [at({ ...facts, names: [{ kind: 'uri', value: 'spiffe://x' }] }), /neither a DNS name nor an address/],
    [at({ ...facts, names: [...facts.names, { kind: 'email', value: 'a@b.c' }] }), /neither a DNS name nor an address/],
    [at(facts, { usages: ['digital signature', 'server auth', 'client auth'] }), /usages/],
    [at(facts, { usages: ['server auth'] }), /usages/],
    [at(facts, { usages: ['digital signature', 'server auth', 'server auth'] }), /usages/],
    [at(facts, { signerName: 'kubernetes.io/legacy-unknown' }), /not one that we know/],
    [at(facts, { signerName: 'kubernetes.io/kube-apiserver-client-kubelet' }), /usages/],
  ] as const) {
    t.match(told, /^Failed=True SignerValidationFailure: /)
    t.match(told, says)
  }
})

t.test('clients of the API server: kubelets without names, others with client auth', async (t) => {
  const client = spec(first, { signerName: 'kubernetes.io/kube-apiserver-client' })
  t.equal(decide(client).kind, 'ask')
  t.equal(decide(client, { facts: { ...factsOf(first), names: [] } }).kind, 'ask', 'whatever its names')
  t.match(failure(decide(spec(client, { usages: ['digital signature'] }))), /usages/)
  t.match(failure(decide(spec(client, { usages: ['client auth', 'server auth'] }))), /usages/)
  const node = spec(kubelet, {
    signerName: 'kubernetes.io/kube-apiserver-client-kubelet',
    usages: ['digital signature', 'client auth'],
  })
  t.match(failure(decide(node)), /names: there must be none/)
  const facts = { ...factsOf(kubelet), names: [] }
  t.equal(decide(node, { facts }).kind, 'ask')
  t.match(
    failure(decide(node, { facts: { ...facts, organizations: ['other'] } })),
    /organization: must be system:nodes/,
  )
  t.match(
    failure(decide(node, { facts: { ...facts, commonName: 'admin' } })),
    /commonName: must begin with system:node:/,
  )
  t.equal(decide(spec(client, { usages: ['client auth', 'key encipherment'] })).kind, 'ask')
})

t.test('no signer of kubernetes.io is served but those whose rules are known', async (t) => {
  for (const [name, isKnown] of [
    ['kubernetes.io/kubelet-serving', true],
    ['kubernetes.io/legacy-unknown', false],
    ['example.com/kubernetes.io/', true],
    ['example.com/kubelet-serving', true],
  ] as const)
    t.equal(isKnownSigner(name), isKnown, name)
})

t.test('system:masters is signed for nobody, whatever the signer', async (t) => {
  const request = withConditions(signingRequest('10-create-system-masters-custom-signer'), approved)
  t.match(failure(decide(request)), /^Failed=True SignerValidationFailure: organization: system:masters/)
})

t.test('a request that cannot be read has failed', async (t) => {
  t.match(failure(decide(first, { facts: { fault: 'Not strict DER (csr.der)' } })), /cannot be read: Not strict DER/)
})

t.test('the certificate is written alone, and an answer for another key is not', async (t) => {
  const issued = issueFor(factsOf(first).spki, now)
  const write = decideSigned({ ...look(first), outcome: { kind: 'issued', issued } })
  t.ok(write.kind === 'write' && 'certificate' in write.status)
  t.same(write.kind === 'write' && Object.keys(write.status), ['certificate'])
  const note = `certificate ${issued.serial} was issued`
  t.same(write.kind === 'write' && write.event, { type: 'Normal', reason: 'Issued', action: 'Sign', note })
  const other: Outcome = { kind: 'issued', issued: issueFor(factsOf(kubelet).spki, now) }
  t.match(failure(decideSigned({ ...look(first), outcome: other })), /^Failed=True SignerAnswerFailure: .*another key/)
})

t.test('a refusal fails for good by the name of its problem; a setback waits, and writes nothing', async (t) => {
  const told = (code: string, retryable: boolean): Outcome => ({
    kind: 'fault',
    fault: { kind: 'problem', problem: { code, detail: 'It is so.', retryable } },
  })
  t.equal(
    failure(decideSigned({ ...look(first), outcome: told('san.forbidden', false) })),
    'Failed=True SanForbidden: It is so (san.forbidden)',
  )
  t.same(decideSigned({ ...look(first), outcome: told('san.forbidden', false) }).event, {
    ...{ type: 'Warning', reason: 'SanForbidden', action: 'Sign', note: 'It is so (san.forbidden)' },
  })
  t.same(decideSigned({ ...look(first), outcome: told('overload.queue', true) }), { kind: 'wait' })
  const again = decideSigned({ ...look(first, { waited: 1 }), outcome: told('overload.queue', true) })
  t.equal(again.kind === 'wait' && again.event?.reason, 'Pending')
  const away = decideSigned({ ...look(first), outcome: told('key.unavailable', true) })
  t.ok(away.kind === 'wait' && away.ofIssuer)
  const late = decideSigned({ ...look(first, { retryFor: 60 }), outcome: told('overload.queue', true) })
  t.match(failure(late), /^Failed=True SignerTimeout/)
  const problem = { code: 'limit.certificates_per_day', detail: 'No.', retryable: true, retryAfter: 3_600 }
  const limited: Outcome = { kind: 'fault', fault: { kind: 'problem', problem } }
  const { now, request } = look(first)
  const age = (now.getTime() - Date.parse(request.metadata.creationTimestamp)) / 1_000
  t.match(decideSigned({ ...look(first, { retryFor: age + 60 }), outcome: limited }), { kind: 'wait', after: 61 })
  t.equal(decide(first, { issuer: undefined }).kind, 'wait')
})

// Approval --------------------------------------------------------------------------------------------------------------

const asking = signingRequest('11-create-kubelet-serving')
const own = [
  ['Hostname', 'Worker-1'],
  ['InternalIP', '10.0.0.11'],
  ['InternalIP', 'FD00:0:0::11'],
  ['InternalDNS', 'worker-1.node.local'],
] as const
const worker = workerWith(own)
const facts = factsOf(asking)
const against = (
  request: SigningRequest,
  told: RequestFacts = facts,
  node: Node | undefined = worker,
  others: readonly Node[] = [],
): string => {
  const step = decideApproval(request, told, { node, nodes: [worker, ...others], behindMs: 0 })
  return step.kind === 'leave' ? step.event.note : step.kind
}

t.test('a node that asks for its own name and addresses is approved', async (t) => {
  const step = decideApproval(asking, facts, { node: worker, nodes: [worker], behindMs: 0 })
  const message = 'the node asks for itself, and for nothing but what its Node object has'
  t.same(step, {
    kind: 'approve',
    condition: { type: 'Approved', status: 'True', reason: 'ChanceryKubeletServing', message },
    event: { type: 'Normal', reason: 'Approved', action: 'Approve', note: message },
  })
  const six: RequestFacts = {
    ...facts,
    names: [
      { kind: 'ip', value: 'fd00::11' },
      { kind: 'dns', value: 'worker-1.node.local' },
    ],
  }
  t.equal(against(asking, six), 'approve')
})

t.test('a host name that is an address is asked for as one, as kubelets do', async (t) => {
  const named = workerWith([
    ['InternalIP', '10.0.0.11'],
    ['Hostname', '203.0.113.7'],
    ['Hostname', '2001:DB8::7'],
    ['InternalDNS', '203.0.113.8'],
  ])
  const asks = (value: string): RequestFacts => ({ ...facts, names: [{ kind: 'ip', value }] })
  for (const value of ['203.0.113.7', '2001:db8::7']) t.equal(against(asking, asks(value), named), 'approve')
  t.match(against(asking, asks('203.0.113.8'), named), /203\.0\.113\.8 is not among/)
})

t.test('whatever differs is left to people, and says why; nothing is denied', async (t) => {
  const name = (kind: 'dns' | 'ip' | 'uri', value: string): RequestFacts => ({
    ...facts,
    names: [...facts.names, { kind, value }],
  })
  for (const [told, says] of [
    [against(asking, name('dns', 'worker-2')), /dns worker-2 is not among/],
    [against(asking, name('dns', '*.node.local')), /is not among/],
    [against(asking, name('ip', '10.0.0.12')), /10\.0\.0\.12 is not among/],
    [against(asking, name('uri', 'spiffe://x')), /neither a DNS name/],
    [against(asking, { ...facts, commonName: 'system:node:worker-2' }), /commonName/],
    [against(asking, { ...facts, organizations: ['system:masters'] }), /system:masters/],
    [against(asking, { ...facts, hasOtherAttributes: true }), /more than organization/],
    [against(asking, facts, { ...worker, status: {} }), /is not among/],
    [
      against(asking, name('dns', 'other.test'), workerWith([...own, ['Other', 'other.test']])),
      /other\.test is not among/,
    ],
    [against(spec(asking, { username: 'alice' })), /alice is not a node/],
    [against(spec(asking, { username: 'system:node:worker-2' })), /commonName/],
    [against(spec(asking, { groups: ['system:authenticated'] })), /is not a node/],
    [against(without(asking, 'groups')), /is not a node/],
    [against(without(asking, 'username')), /nobody is not a node/],
    [against(spec(asking, { username: 'other:system:node:worker-1' })), /other:system:node:worker-1 is not a node/],
    [against(spec(asking, { username: 'system:node:worker-1/status' })), /system:node:worker-1\/status is not a node/],
    [against(spec(asking, { usages: ['digital signature', 'server auth', 'client auth'] })), /usages/],
    [against(asking, facts, { ...worker, metadata: { ...worker.metadata, name: 'worker-2' } }), /does not exist/],
  ] as const)
    t.match(told, says)
  const noNode = decideApproval(asking, facts, { node: undefined, nodes: [], behindMs: 0 })
  t.match(noNode, {
    ...{ kind: 'leave', isFinal: false },
    event: { type: 'Warning', reason: 'NotApproved', action: 'Approve', note: /worker-1 does not exist/ },
  })
  const unread = decideApproval(asking, { fault: 'Not strict DER (csr.der)' }, { node: worker, nodes: [], behindMs: 0 })
  t.match(unread, { kind: 'leave', isFinal: true, event: { note: /cannot be read: Not strict DER/ } })
})

t.test('what another node has, too, is left to people, whoever wrote it first', async (t) => {
  const other = (name: string, type: string, address: string): Node => ({
    ...{ ...worker, metadata: { ...worker.metadata, name } },
    status: { addresses: [{ type, address }] },
  })
  t.equal(against(asking, facts, worker, [other('worker-2', 'InternalIP', '10.0.0.12')]), 'approve')
  for (const [others, says] of [
    [other('worker-2', 'InternalIP', '10.0.0.11'), /10\.0\.0\.11 is of node worker-2, too/],
    [other('worker-2', 'ExternalIP', '::ffff:10.0.0.11'), /10\.0\.0\.11 is of node worker-2, too/],
    [other('worker-2', 'Hostname', 'WORKER-1'), /worker-1 is of node worker-2, too/],
    [other('worker-2', 'Hostname', '10.0.0.11'), /10\.0\.0\.11 is of node worker-2, too/],
  ] as const)
    t.match(against(asking, facts, worker, [others]), says)
  // It calls itself by the name of another node.
  const liar: Node = { ...worker, status: { addresses: [{ type: 'InternalDNS', address: 'worker-2' }] } }
  const told: RequestFacts = { ...facts, names: [{ kind: 'dns', value: 'worker-2' }] }
  t.match(
    against(asking, told, liar, [other('worker-2', 'InternalIP', '10.0.0.12')]),
    /worker-2 is of node worker-2, too/,
  )
})

t.test('however long an address is that another node has written, it keeps nobody waiting', async (t) => {
  const address = `${':'.repeat(1_000_000)}!`
  const liar: Node = {
    ...{ ...worker, metadata: { ...worker.metadata, name: 'worker-2' } },
    status: { addresses: ['InternalIP', 'Hostname'].map((type) => ({ type, address })) },
  }
  // Looked at from each of its characters, this one took hours.
  t.equal(against(asking, facts, worker, [liar]), 'approve')
})

t.test('nothing is approved while it is not known what other nodes have, and the request is not blamed', async (t) => {
  const step = (behindMs: number, told = facts) =>
    decideApproval(asking, told, { node: worker, nodes: [worker], behindMs })
  t.equal(step(60_000).kind, 'approve')
  t.match(step(60_001), { kind: 'wait', event: { reason: 'NotApproved', note: /what other nodes have is not known/ } })
  t.equal(step(60_001, { ...facts, names: [] }).kind, 'leave', 'what is the request’s own is said at once')
})

t.test('a subject with two common names is not read', async (t) => {
  const names = ['system:node:worker-1', 'system:node:worker-2'].map((name) => rdn('2.5.4.3', utf8(name)))
  const told = readRequest(
    pem(request({ signer: newP256(), subject: seq(rdn('2.5.4.10', utf8('system:nodes')), ...names) })),
  )
  t.match(told, { fault: /commonName occurs more than once/ })
})

t.test('an address of a node is one only in the form of one', async (t) => {
  for (const [address, value, says] of [
    ['010.0.0.5', '8.0.0.5', /is not among/],
    ['2130706433', '127.0.0.1', /is not among/],
    ['2001:DB8::1', '2001:db8::1', /approve/],
    ['::ffff:10.0.0.5', '10.0.0.5', /approve/],
    ['10.0.0.5', '::ffff:a00:5', /approve/],
    ['fe80::1%eth0', 'fe80::1', /is not among/],
  ] as const) {
    const node: Node = { ...worker, status: { addresses: [{ type: 'InternalIP', address }] } }
    t.match(against(asking, { ...facts, names: [{ kind: 'ip', value }] }, node), says, address)
  }
})

t.test('a node that writes thousands of addresses does not have each of them looked at for each name', async (t) => {
  let looks = 0
  const hosts = Array.from({ length: 100 }, (_, i) => `fd00::${(i + 1).toString(16)}`)
  const written = (address: string) => ({
    type: 'InternalIP',
    get address() {
      looks += 1
      return address
    },
  })
  const many: Node = {
    ...worker,
    status: {
      addresses: [...Array.from({ length: 1_000 }, (_, i) => `fd01::${i.toString(16)}`), ...hosts].map(written),
    },
  }
  const told: RequestFacts = { ...facts, names: hosts.map((value) => ({ kind: 'ip', value })) }
  const other = { ...many, metadata: { ...many.metadata, name: 'worker-2' } }
  t.match(against(asking, told, many, [other]), /fd00::1 is of node worker-2, too/)
  t.ok(looks <= 2 * 1_100, `${looks} looks`)
})

t.test('nothing but an undecided request for a serving certificate is looked at', async (t) => {
  for (const request of [
    withConditions(asking, approved),
    withConditions(asking, denied),
    withConditions(asking, { type: 'Failed', status: 'True' }),
    spec(asking, { signerName: 'kubernetes.io/kube-apiserver-client-kubelet' }),
    spec(asking, { signerName: 'example.com/kubelet-serving' }),
    { ...asking, metadata: { ...asking.metadata, deletionTimestamp: '2026-11-24T23:19:00Z' } },
  ])
    t.same(decideApproval(request, facts, { node: worker, nodes: [worker], behindMs: 0 }), { kind: 'ignore' })
})
