/** Whoever may make an issuer chooses who answers: what a server of his can do to the controller, and to others. */
import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { openFront } from './front.ts'
import { issuerIs, leads, messageOf, openRunning, readyOf, statusWrites, until } from './running.ts'

slowTest('a server that says something else, and much of it, each time', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  let said = 0
  running.front.say(() => ({
    ...{ status: 503, code: 'x.y\u001b[31m', retryable: true },
    detail: `${++said} ${'A'.repeat(900_000)}`,
  }))
  await running.ask('loud-1')
  const pending = await running.ended('loud-1', 'Pending')
  t.match(messageOf(pending), /^\d+ AAA.*… \(x\.y \[31m\)$/)
  t.ok(messageOf(pending).length <= 2_048)
  const before = running.front.issued.length
  await until(() => running.front.issued.length >= before + 5)
  t.equal(statusWrites(running).length, 1)
  const [controller] = running.controllers
  controller?.pass(61_000)
  await until(() => statusWrites(running).length === 2)
})

slowTest('where cert-manager’s webhook does not look, whoever may change requests becomes nobody else', async (t) => {
  const running = await openRunning(t, { idle: true })
  const { cluster } = running
  const labels = { 'cert-manager.io/disable-validation': 'true' }
  await cluster.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team-a', labels } })
  await running.issuer()
  await running.ask('forged-1')
  const { status } = await cluster
    .as()
    .request(
      'PATCH',
      '/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests/forged-1',
      { spec: { username: 'system:node:worker-1', groups: ['system:nodes'] } },
      { contentType: 'application/merge-patch+json' },
    )
  t.equal(status, 200)
  await running.start()
  t.match(messageOf(await running.ended('forged-1', 'Failed')), /changed after it was made/)
  t.same(running.front.issued, [])
})

t.test('a 500 of Chancery is not the end of a request', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.next({ status: 500, code: 'internal', retryable: false })
  await running.ask('defect-1')
  t.match(messageOf(await running.ended('defect-1', 'Pending')), /\(internal\)/)
  // Another instance looks at it at once.
  await running.controllers[0]?.close()
  await leads(await running.start())
  const done = await running.ended('defect-1', 'Issued')
  t.equal(readyOf(done), 'Issued')
  t.equal((await running.issued()).length, 1)
})

t.test('an issuer whose server hangs does not hold up those of others', async (t) => {
  const running = await openRunning(t)
  const hanging = await openFront(t, running.service)
  await running.issuer({ name: 'hangs', spec: { url: hanging.url } })
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'works' })
  await issuerIs(running, 'True', 'hangs')
  const { held, release } = hanging.hold()
  t.teardown(release)
  for (let i = 0; i < 20; i += 1) await running.ask(`hangs-${i}`, { issuer: { kind: 'ChanceryIssuer', name: 'hangs' } })
  await held
  await running.ask('works-1', { issuer: { kind: 'ChanceryClusterIssuer', name: 'works' } })
  await running.ended('works-1', 'Issued')
  t.ok(hanging.most <= 12, `${hanging.most} of 16 places`)
  release()
  await running.ended('hangs-19', 'Issued')
})

slowTest('a server that answers probes alone is not one that can be asked through', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.say(() => 'drop')
  await running.ask('dropped-1')
  t.match(await issuerIs(running, 'False'), { reason: 'Pending' })
  running.front.say(() => 'pass')
  await running.ended('dropped-1', 'Issued')
  await issuerIs(running, 'True')
})

t.test('a kind that cannot be listed does not stop the others, and is told', async (t) => {
  const running = await openRunning(t, { idle: true })
  running.cluster.faults.add('unavailable', { when: { plural: 'certificatesigningrequests' } })
  await running.issuer()
  const controller = await running.start({ signers: [{ name: 'example.com/x', issuer: 'x' }] })
  await running.ask('web-1')
  await running.ended('web-1', 'Issued')
  const ready = await fetch(`${controller.url}/readyz`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /certificatesigningrequests/)
})

slowTest('a profile of another authority is found before anything is signed', async (t) => {
  const running = await openRunning(t)
  await running.issuer({ spec: { authority: 'other' } })
  t.match(await issuerIs(running, 'False'), {
    reason: 'Failed',
    message: 'profile cluster is signed by another authority than other',
  })
  await running.ask('other-1')
  await running.ended('other-1', 'Pending')
  t.same(await running.issued(), [])
  await running.issuer({ spec: { authority: 'default' } })
  await running.ended('other-1', 'Issued')
})
