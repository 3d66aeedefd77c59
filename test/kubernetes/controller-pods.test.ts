/** PodCertificateRequests: of the recorded kubelets, to certificates that a real Chancery has issued for their pods. */
import { X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import { ApiFault } from '../../src/kubernetes/api/client.ts'
import type { PodCertificateRequest } from '../../src/kubernetes/api/objects.ts'
import { decidePod, decidePodAnswer, stubOf } from '../../src/kubernetes/decide/pod.ts'
import type { Told } from '../../src/kubernetes/decide/request.ts'
import {
  keepPodRequest,
  lookAtPodRequest,
  stateOfPodRequest,
  whyNoPodRequests,
} from '../../src/kubernetes/reconcile/pods.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'
import { commonName, newP256, request } from '../x509/build.ts'
import { issueFor } from './certificates.ts'
import { issuerOf, recorded } from './objects.ts'
import { openRunning, until } from './running.ts'
import { condition, type Tree, textAt } from './values.ts'

const signer = {
  name: 'chanceryclusterissuers.chancery.dev/default',
  issuer: 'default',
  podNames: { uri: ['spiffe://cluster.local/ns/{namespace}/sa/{serviceAccount}'] },
}
const first = recorded<PodCertificateRequest>('podcertificaterequests/01-create')
const requestsOnly = { name: 'chanceryclusterissuers.chancery.dev/requests', issuer: 'default' }
const now = new Date('2026-11-24T23:20:00.500Z')
const facts = readRequest(stubOf(first) ?? '')
const look = { request: first, issuer: issuerOf({ profile: 'spiffe-workload' }), facts, signer, now, waited: 0 }

t.test('a pod’s request is asked for by what the API server has verified of it', async (t) => {
  const step = decidePod(look)
  t.match(step.kind === 'ask' && step.ask, {
    idempotencyKey: first.metadata.uid,
    body: {
      profile: 'spiffe-workload',
      validity: '86400s',
      names: { uri: ['spiffe://cluster.local/ns/team-a/sa/workload'] },
      onBehalfOf: {
        ...{ user: 'system:serviceaccount:team-a:workload', namespace: 'team-a', serviceAccount: 'workload' },
        ...{ uid: first.spec.serviceAccountUID, serviceAccountUid: first.spec.serviceAccountUID },
        groups: ['system:serviceaccounts', 'system:serviceaccounts:team-a', 'system:authenticated'],
        ...{ pod: 'app-0', podUid: first.spec.podUID, node: 'worker-1', nodeUid: first.spec.nodeUID },
        object: { kind: 'PodCertificateRequest', uid: first.metadata.uid },
      },
    },
  })
  const podNames = { dns: ['{pod}.{namespace}.pod.test', '{node}.test'] }
  const named = decidePod({ ...look, signer: { ...signer, podNames } })
  t.same(named.kind === 'ask' && named.ask.body.names, { dns: ['app-0.team-a.pod.test', 'worker-1.test'] })
})

t.test('a request with a subject of its own is not asked for: nobody has verified that', async (t) => {
  const stub = request({ signer: newP256(), subject: commonName('admin') }).toString('base64')
  const named: PodCertificateRequest = { ...first, spec: { ...first.spec, stubPKCS10Request: stub } }
  const step = decidePod({ ...look, request: named, facts: readRequest(stubOf(named) ?? '') })
  const message = 'the request has a subject of its own'
  t.match(step, { kind: 'write', status: { conditions: [{ type: 'Failed', reason: 'SubjectNotEmpty', message }] } })
})

t.test('annotations of users are refused, since none is known', async (t) => {
  const unverifiedUserAnnotations = { 'example.com/role': 'admin' }
  const asking = { ...first, spec: { ...first.spec, unverifiedUserAnnotations } }
  for (const request of [asking, keepPodRequest(asking)])
    t.match(decidePod({ ...look, request }), {
      ...{ kind: 'write', event: { note: /example\.com\/role/ } },
      status: { conditions: [{ type: 'Denied', reason: 'InvalidUnverifiedUserAnnotations' }] },
    })
})

t.test('a request of a kubelet before 1.36 is left open, and tried no more', async (t) => {
  const old = recorded<PodCertificateRequest>('podcertificaterequests/02-create-deprecated-fields')
  const told: Told[] = []
  const lookAt = (isTold: boolean) =>
    lookAtPodRequest(
      {
        watch: { get: () => keepPodRequest(old) },
        signers: new Map([[old.spec.signerName, signer]]),
        recorder: { record: (_: unknown, event: Told) => isTold && told.push(event) > 0 },
        ...{ issuers: { find: () => undefined }, clock: () => now, readRequest },
      } as never,
      { key: 'team-a/old', waited: 0, reported: {}, signal: new AbortController().signal },
    )
  const looked = await lookAt(true)
  t.same(looked, { kind: 'retry', after: 86_400, isLeft: true }, 'it is gone by then')
  t.match(told, [{ type: 'Warning', reason: 'LeftOpen', note: /stubPKCS10Request: Kubernetes 1\.36 is wanted/ }])
  t.same(
    await lookAt(false),
    { kind: 'retry', after: 60, isLeft: true },
    'where there were too many events, another time',
  )
})

t.test('what has ended is left alone, and what is recorded to end so is an end', async (t) => {
  for (const name of ['35-issue', '37-deny-unsupported-key', '40-failed'])
    t.same(decidePod({ ...look, request: recorded(`podcertificaterequests/${name}`) }), { kind: 'ignore' }, name)
  const deprecated = recorded<PodCertificateRequest>('podcertificaterequests/02-create-deprecated-fields')
  t.equal(stubOf(deprecated), undefined)
  t.equal(stateOfPodRequest(first), `${first.metadata.uid} true`)
})

t.test('the answer is final: issued with its three times, denied for its key, or failed', async (t) => {
  if ('fault' in facts) throw new Error(facts.fault)
  const answer = (outcome: Parameters<typeof decidePodAnswer>[0]['outcome']) => decidePodAnswer({ ...look, outcome })
  const issue = (from: number, validity?: number) =>
    answer({ kind: 'issued', issued: issueFor(facts.spki, new Date(now.getTime() + from), validity) })
  // The helper begins an hour before.
  const good = issue(3_600_000)
  t.match(good.kind === 'write' && good.status, {
    conditions: [{ type: 'Issued', status: 'True', reason: 'Issued', lastTransitionTime: '2026-11-24T23:20:00Z' }],
    ...{ notBefore: '2026-11-24T23:20:00Z', notAfter: '2026-11-25T23:20:00Z', beginRefreshAt: '2026-11-25T15:20:00Z' },
    certificateChain: /BEGIN CERTIFICATE/,
  })
  const of = (write: ReturnType<typeof answer>): string =>
    write.kind === 'write' ? `${write.status.conditions[0].type} ${write.status.conditions[0].reason}` : write.kind
  t.equal(of(issue(0)), 'Failed AnswerUnusable', 'it begins an hour ago')
  t.equal(of(issue(3_600_000, 3_599)), 'Failed AnswerUnusable', 'it lasts for less than an hour')
  const again = (from: number, validity?: number) =>
    answer({
      kind: 'issued',
      issued: { ...issueFor(facts.spki, new Date(now.getTime() + from), validity), replayed: true },
    })
  t.match(again(0), { kind: 'leave', event: { reason: 'LeftOpen', note: /begins more than five minutes ago/ } })
  t.match(again(0, 1_800), { kind: 'leave', event: { note: /expired before it could be handed over/ } })
  const foreign = issueFor(newP256().spki, new Date(now.getTime() + 3_600_000))
  t.match(answer({ kind: 'issued', issued: foreign }), { kind: 'leave', event: { note: /for another key/ } })
  const problem = (code: string, retryable = false) =>
    of(answer({ kind: 'fault', fault: { kind: 'problem', problem: { code, detail: 'So it is.', retryable } } }))
  t.equal(problem('key.type'), 'Denied UnsupportedKeyType')
  t.equal(problem('san.forbidden'), 'Failed SanForbidden')
  for (const code of ['idempotency.reused', 'key.blocked', 'approval.expired'])
    t.equal(problem(code), 'leave', `${code}: another uid or another key`)
  t.equal(problem('overload.queue', true), 'wait')
  t.equal(of(answer({ kind: 'waiting', id: 'x' })), 'Failed ApprovalRequired')
})

t.test('a status that the API server does not take is told as an event, and tried again after a while', async (t) => {
  const told: Told[] = []
  const refusing = new ApiFault(422, 'status.notBefore: must be within five minutes of now')
  const looked = await lookAtPodRequest(
    {
      api: { call: () => Promise.reject(refusing) },
      watch: { get: () => ({ ...first, spec: { ...first.spec, stubPKCS10Request: 'junk' } }) },
      signers: new Map([[first.spec.signerName, signer]]),
      recorder: { record: (_: unknown, event: Told) => told.push(event) },
      ...{ issuers: { find: () => undefined }, meter: { count: () => {} }, clock: () => now, readRequest },
    } as never,
    { key: 'team-a/first', waited: 0, reported: {}, signal: new AbortController().signal },
  )
  t.same(looked, { kind: 'retry', after: 60 })
  t.match(told, [{ type: 'Warning', reason: 'StatusRefused', note: /five minutes/ }])
})

t.test('it is served only where the API server has it, with requests that can be signed', async (t) => {
  const beta = recorded('podcertificaterequests/00-discovery-v1beta1')
  const answering = (body: unknown, version: object = {}) =>
    whyNoPodRequests({ call: async (_: string, path: string) => (path === '/version' ? version : body) as never })
  for (const version of [{ major: '1', minor: '36' }, { major: '1', minor: '37+' }, { major: '2', minor: '0' }, {}])
    t.equal(await answering(beta, version), undefined)
  t.match(await answering(beta, { major: '1', minor: '35+' }), /Kubernetes 1\.35\+ .* 1\.36 is wanted$/)
  t.match(await answering(recorded('discovery/07-certificates.k8s.io-v1')), /has no PodCertificateRequests/)
  const failing = (status: number) =>
    whyNoPodRequests({ call: () => Promise.reject(new ApiFault(status, 'it was not to be')) })
  t.match(await failing(404), /has no PodCertificateRequests/)
  await t.rejects(failing(503))
})

slowTest('pods get certificates for their service accounts, and are told which keys they may have', async (t) => {
  const running = await openRunning(t, { settings: { signers: [signer, requestsOnly], podCertificates: true } })
  const { cluster, service } = running
  const { json } = await service.request('GET', '/v1/profiles/spiffe-workload')
  const document = {
    ...json.document,
    name: 'pods',
    keys: [{ ec: ['P-256'] }],
    validity: { default: '1h', max: '24h', over: 'shorten' },
  }
  await service.request('PUT', '/v1/profiles/pods', { headers: { 'if-none-match': '*' }, body: document })
  const token = await employ(service, 'pods', 'requester', { profiles: ['pods'], onBehalfOf: {} } as never)
  await cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'pods', namespace: 'chancery-system' } },
    data: { token: Buffer.from(token).toString('base64') },
  })
  const spec = { profile: 'pods', auth: { tokenSecretRef: { name: 'pods' } } }
  await running.issuer({ kind: 'ChanceryClusterIssuer', spec })
  const objects = [
    { apiVersion: 'v1', kind: 'Node', metadata: { name: 'worker-1', uid: first.spec.nodeUID } },
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'workload', namespace: 'team-a', uid: first.spec.serviceAccountUID },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'app-0', namespace: 'team-a', uid: first.spec.podUID },
      spec: { nodeName: 'worker-1', serviceAccountName: 'workload' },
    },
  ]
  for (const object of objects) {
    const plural = `${object.kind.toLowerCase()}s`
    if (cluster.get(plural, object.metadata.namespace ?? '', object.metadata.name) === undefined)
      cluster.double.seed(object as Tree)
  }
  const kubelet = cluster.tokenFor({
    username: 'system:node:worker-1',
    groups: ['system:nodes', 'system:authenticated'],
  })
  const create = async (recording: string, change: object = {}): Promise<string> => {
    const { spec } = recorded<PodCertificateRequest>(`podcertificaterequests/${recording}`)
    const made = await cluster
      .as(kubelet)
      .request('POST', '/apis/certificates.k8s.io/v1beta1/namespaces/team-a/podcertificaterequests', {
        ...{ apiVersion: 'certificates.k8s.io/v1beta1', kind: 'PodCertificateRequest' },
        metadata: { generateName: 'req-app-0-' },
        spec: Object.fromEntries(Object.entries({ ...spec, ...change }).filter(([, value]) => value !== null)) as Tree,
      })
    if (made.status !== 201) throw new Error(JSON.stringify(made.body))
    return textAt(made.body as Tree, 'metadata', 'name')
  }
  const ended = (name: string, type: string) =>
    cluster.until(
      'podcertificaterequests',
      { namespace: 'team-a', name },
      (object) => condition(object ?? {}, type) !== undefined,
    )
  const closed = await create('01-create', { signerName: requestsOnly.name })
  const good = await ended(await create('01-create'), 'Issued')
  const leaf = new X509Certificate(textAt(good, 'status', 'certificateChain'))
  t.equal(leaf.subjectAltName, 'URI:spiffe://cluster.local/ns/team-a/sa/workload')
  t.equal(textAt(good, 'status', 'notAfter'), `${leaf.validToDate.toISOString().slice(0, 19)}Z`)
  const untouched = cluster.get('podcertificaterequests', 'team-a', closed)
  t.notOk(condition(untouched ?? {}, 'Issued') ?? condition(untouched ?? {}, 'Failed'), 'it is no signer for pods')
  const annotated = await ended(await create('03-create-ed25519-annotations'), 'Denied')
  t.match(condition(annotated ?? {}, 'Denied'), { reason: 'InvalidUnverifiedUserAnnotations' })
  const other = await ended(
    await create('03-create-ed25519-annotations', { unverifiedUserAnnotations: null }),
    'Denied',
  )
  t.match(condition(other ?? {}, 'Denied'), { reason: 'UnsupportedKeyType' })
  const old = await create('02-create-deprecated-fields')
  const isTold =
    (name: string, note = '') =>
    (event: Tree): boolean =>
      textAt(event, 'regarding', 'name') === name &&
      textAt(event, 'reason') === 'LeftOpen' &&
      textAt(event, 'note').includes(note)
  await until(() => cluster.list('events.events.k8s.io').some(isTold(old)))
  const unserved = `give signer ${requestsOnly.name} no podNames`
  await until(() => cluster.list('events.events.k8s.io').some(isTold(closed, unserved)))
  t.same(cluster.get('podcertificaterequests', 'team-a', old)?.['status'], {})
  // Deleted while Chancery signs, and held by a finalizer alone.
  const { held, release } = running.front.hold()
  const late = await create('01-create')
  await held
  const change = (method: string, body?: Tree) =>
    cluster
      .as()
      .request(method, `/apis/certificates.k8s.io/v1beta1/namespaces/team-a/podcertificaterequests/${late}`, body, {
        contentType: 'application/merge-patch+json',
      })
  t.equal((await change('PATCH', { metadata: { finalizers: ['example.com/backup'] } })).status, 200)
  t.equal((await change('DELETE')).status, 200)
  release()
  const isLetGo = /^chancery_controller_writes_total\{resource="podcertificaterequests",outcome="superseded"\} 1$/m
  while (!isLetGo.test((await running.controllers[0]?.metrics()) ?? '')) await sleep(10)
  t.same(cluster.get('podcertificaterequests', 'team-a', late)?.['status'], {})
})
