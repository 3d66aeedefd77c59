/** CertificateRequests as cert-manager makes them, to certificates that a real Chancery has issued. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import {
  certificateOf,
  issuerIs,
  messageOf,
  notesOf,
  openRunning,
  queued,
  readyOf,
  statusWrites,
  until,
} from './running.ts'
import { condition, type Tree, textAt, uidOf } from './values.ts'

slowTest('an approved request gets its certificate in one write', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  // One that is not ready for a second, as on a machine that is busy, is written to the request: Pending.
  await issuerIs(running, 'True')
  const request = await running.ask('web-1', { usages: ['digital signature', 'server auth'], duration: '24h0m0s' })
  const done = await running.ended('web-1', 'Issued')
  const leaf = certificateOf(done)
  t.match(leaf.subjectAltName, /web-1\.example\.test/)
  t.equal(leaf.validToDate.getTime() - leaf.validFromDate.getTime(), 86_399_000)
  t.notOk(textAt(done, 'status', 'ca'))
  t.equal(statusWrites(running).length, 1)
  t.same(running.front.issued, [uidOf(request)])
  const [issued] = await running.issued()
  t.match(issued, { origin: { namespace: 'team-a', object: { uid: uidOf(request), kind: 'CertificateRequest' } } })
  const issuer = running.cluster.get('chanceryissuers', 'team-a', 'default')
  t.match(condition(issuer ?? {}, 'Ready'), { status: 'True', reason: 'Checked', observedGeneration: 1 })
  await running.controllers[0]?.close()
  const events = running.cluster.list('events.events.k8s.io', 'team-a')
  t.ok(events.some((event) => textAt(event, 'reason') === 'Issued' && textAt(event, 'regarding', 'name') === 'web-1'))
})

slowTest('one that is too long to be held in memory is read where it is looked at', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  const names = Array.from({ length: 60 }, (_, i) => `${'long-'.repeat(8)}${i}.example.test`)
  const request = await running.ask('long-1', { names })
  t.ok(textAt(request, 'spec', 'request').length > 6_000)
  t.equal(certificateOf(await running.ended('long-1', 'Issued')).subjectAltName?.split(', ').length, 60)
  // There is nobody who could ask: it is not even read.
  const issuer = { kind: 'ChanceryIssuer', name: 'nobody' }
  await running.ask('long-2', { names, issuer })
  await running.ended('long-2', 'Pending')
  // Nor is one whose issuer is not ready.
  await running.issuer({ name: 'broken', spec: { auth: { tokenSecretRef: { name: 'none' } } } })
  await running.ask('long-3', { names, issuer: { kind: 'ChanceryIssuer', name: 'broken' } })
  await running.ended('long-3', 'Pending')
  const reads = running.cluster.requests.filter(
    ({ verb, plural }) => verb === 'get' && plural === 'certificaterequests',
  )
  t.same([...new Set(reads.map(({ name }) => name))], ['long-1'])
})

slowTest(
  'a request that leaves no room for its certificate has failed; one that leaves none for that is left',
  async (t) => {
    const running = await openRunning(t)
    await running.issuer()
    await issuerIs(running, 'True')
    const full = running.cluster.faults.add('large', { when, times: 1 })
    await running.ask('large-1')
    t.match(
      messageOf(await running.ended('large-1', 'Failed')),
      'the request is so large that the API server cannot store',
    )
    t.equal(full.used(), 1)
    const fuller = running.cluster.faults.add('large', { when })
    await running.ask('larger-1')
    while ((await queued(running, 'left')) !== 1) await sleep(10)
    await sleep(500)
    const tries = fuller.used()
    await sleep(500)
    t.equal(fuller.used(), tries, 'and not tried again')
    await until(() => notesOf(running, 'StatusRefused').length === 2)
    t.match(notesOf(running, 'StatusRefused')[0], /does not take its status: etcdserver: request is too large$/)
    const metrics = await running.controllers[0]?.metrics()
    t.match(metrics, /writes_total\{resource="certificaterequests",outcome="full"\} \d/)
    t.notMatch(metrics, /writes_total\{resource="certificaterequests",outcome="failed"\}/, 'which rings')
  },
)

const actor = 'system:serviceaccount:chancery-system:chancery-controller'
const when = { actor, plural: 'certificaterequests', verb: 'patch' }

slowTest('a denied request is told so; one that nobody decides on is left alone', async (t) => {
  const running = await openRunning(t)
  const { certManager } = running.cluster
  await running.issuer()
  const issuer = { kind: 'ChanceryIssuer', name: 'default' }
  await certManager.create({ name: 'never-1', issuer })
  await certManager.deny(await certManager.create({ name: 'denied-1', issuer }))
  const done = await running.ended('denied-1', 'Denied')
  t.ok(textAt(done, 'status', 'failureTime'))
  t.equal(condition(running.cluster.get('certificaterequests', 'team-a', 'never-1') ?? {}, 'Ready'), undefined)
  t.same(running.front.issued, [])
  t.equal(statusWrites(running).length, 1)
})

slowTest('a request that the profile refuses fails for good, and says by which checks', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  await running.ask('bad-1', { names: ['denied.example.test'] })
  const done = await running.ended('bad-1', 'Failed')
  t.match(messageOf(done), /names\.dns\.deny .*denied\.example\.test/)
  t.match(condition(done, 'InvalidRequest'), { status: 'True', reason: 'SanForbidden' })
  t.ok(textAt(done, 'status', 'failureTime'))
  t.same(await running.issued(), [])
  t.equal(statusWrites(running).filter(({ changed }) => changed).length, 1)
})

slowTest('the roots are written where the issuer says so, and the authority must be the one it names', async (t) => {
  const running = await openRunning(t)
  await running.issuer({ spec: { includeCA: true, authority: 'default' } })
  await running.ask('roots-1')
  const done = await running.ended('roots-1', 'Issued')
  t.equal(
    Buffer.from(textAt(done, 'status', 'ca'), 'base64')
      .toString()
      .trim(),
    running.service.ca.trim(),
  )
  await running.issuer({ name: 'other', spec: { authority: 'kubernetes' } })
  await running.ask('other-1', { issuer: { kind: 'ChanceryIssuer', name: 'other' } })
  const pending = await running.ended('other-1', 'Pending')
  t.match(messageOf(pending), /not of the authority kubernetes|is not ready/)
  t.notOk(textAt(pending, 'status', 'certificate'))
})

t.test(
  'an issuer of the cluster reads its Secret in the namespace that the settings name, and nowhere else',
  async (t) => {
    const running = await openRunning(t)
    await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'wide' })
    await running.ask('wide-1', { issuer: { kind: 'ChanceryClusterIssuer', name: 'wide' } })
    await running.ended('wide-1', 'Issued')
    const secrets = running.cluster.requests
      .filter(({ plural }) => plural === 'secrets')
      .map(({ namespace }) => namespace)
    t.same([...new Set(secrets)], ['chancery-system'])
    // Who reads the status of an issuer learns nothing of the Secrets there.
    const auth = { tokenSecretRef: { name: 'database', key: 'password' } }
    await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'curious', spec: { auth } })
    const told = (issuer: Tree | undefined): string => textAt(condition(issuer ?? {}, 'Ready'), 'message')
    const found = await running.cluster.until('chanceryclusterissuers', { name: 'curious' }, (is) => told(is) !== '')
    t.equal(told(found), 'spec.auth.tokenSecretRef names no token of Chancery')
  },
)

slowTest('a request of another group, or whose issuer is of another kind, is not ours', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  for (const [name, issuer] of [
    ['foreign-1', { group: 'example.com', kind: 'ChanceryIssuer', name: 'default' }],
    ['foreign-2', { group: 'cert-manager.io', kind: 'Issuer', name: 'default' }],
    ['kindless-1', { group: 'chancery.dev', name: 'default' }],
  ] as const)
    await running.cluster.certManager.create({ name, issuer })
  await running.ask('ours-1')
  await running.ended('ours-1', 'Issued')
  for (const name of ['foreign-1', 'foreign-2', 'kindless-1'])
    t.equal(readyOf(running.cluster.get('certificaterequests', 'team-a', name)), undefined)
  await until(() => notesOf(running, 'UnknownKind').length > 0)
  t.match(notesOf(running, 'UnknownKind'), [/^issuerRef.kind is not said, which is no kind of chancery.dev/])
  t.equal(notesOf(running, 'UnknownKind').length, 1, 'of ours alone')
})

slowTest(
  'a Certificate that is renewed as soon as it is issued waits for its next one, and its request says why',
  async (t) => {
    const running = await openRunning(t)
    await running.issuer()
    const certificate = 'feff1990-cdb6-4d96-9403-bd030ce7118f'
    for (let i = 1; i <= 21; i += 1) {
      await running.ask(`circle-${i}`, { certificate })
      await running.ended(`circle-${i}`, 'Issued')
    }
    await running.ask('circle-22', { certificate })
    t.match(messageOf(await running.ended('circle-22', 'Pending')), 'let renewBefore leave more time')
    await running.ask('calm-1', { certificate: 'another' })
    await running.ended('calm-1', 'Issued')
    t.equal((await running.issued()).length, 22)
    t.equal(await queued(running, 'left'), 1, 'which is for whoever has made the Certificate')
  },
)
