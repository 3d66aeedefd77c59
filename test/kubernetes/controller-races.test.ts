/** Objects that are deleted, made again or touched while Chancery signs. */
import t, { type Test } from 'tap'

import { slowTest } from '../helpers/slow.ts'
import type { Cluster } from './cluster.ts'
import { issuerIs, messageOf, openRunning, readyOf, serialOf, statusWrites } from './running.ts'
import { type Tree, textAt, uidOf } from './values.ts'

const issuer = { kind: 'ChanceryIssuer', name: 'default' }

/** In team-a cert-manager's webhook forbids nothing any more. */
const forgetWebhook = (cluster: Cluster): Promise<Tree> => {
  const labels = { 'cert-manager.io/disable-validation': 'true' }
  return cluster.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team-a', labels } })
}

/** With an issuer that is ready, and after what the cluster needs before it. */
const openReady = async (t: Test, before: (cluster: Cluster) => Promise<unknown> = async () => {}) => {
  const running = await openRunning(t)
  await before(running.cluster)
  await running.issuer()
  await issuerIs(running, 'True')
  return running
}

slowTest('a request that is deleted while Chancery signs is let go', async (t) => {
  const running = await openReady(t)
  const { held, release } = running.front.hold()
  await running.ask('gone-1')
  await held
  await running.cluster.remove('certificaterequests', 'team-a', 'gone-1')
  release()
  await running.ask('next-1')
  await running.ended('next-1', 'Issued')
  t.ok(statusWrites(running).every(({ name, changed }) => name !== 'gone-1' || !changed))
})

slowTest('so is one that somebody holds by a finalizer, however late it is deleted', async (t) => {
  const running = await openReady(t)
  const change = (method: string, name: string, body?: Tree) =>
    running.cluster
      .as()
      .request(method, `/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests/${name}`, body, {
        contentType: 'application/merge-patch+json',
      })
  const hold = (name: string) => change('PATCH', name, { metadata: { finalizers: ['example.com/backup'] } })
  const made = await running.cluster.certManager.create({ name: 'early-1', issuer })
  await hold('early-1')
  await change('DELETE', 'early-1')
  await running.cluster.certManager.approve(running.cluster.get('certificaterequests', 'team-a', 'early-1') ?? made)
  const { held, release } = running.front.hold()
  const late = await running.ask('late-1')
  await held
  await hold('late-1')
  await change('DELETE', 'late-1')
  release()
  await running.ask('next-1')
  const next = await running.ended('next-1', 'Issued')
  t.same(running.front.issued, [uidOf(late), uidOf(next)], 'the early one is asked for by nobody')
  t.ok(statusWrites(running).every(({ name, changed }) => name === 'next-1' || !changed))
  await change('PATCH', 'early-1', { metadata: { finalizers: [] } })
  t.equal(running.cluster.get('certificaterequests', 'team-a', 'early-1'), undefined)
})

slowTest('another request that has taken the name meanwhile does not get the certificate of the first', async (t) => {
  const running = await openReady(t)
  const { held, release } = running.front.hold()
  const first = await running.ask('same-1')
  await held
  await running.cluster.remove('certificaterequests', 'team-a', 'same-1')
  const second = await running.ask('same-1')
  t.not(uidOf(first), uidOf(second))
  release()
  const done = await running.ended('same-1', 'Issued')
  t.equal(uidOf(done), uidOf(second))
  const [mine] = (await running.service.request('GET', `/v1/certificates?originObject=${uidOf(second)}`)).json.items
  t.equal(serialOf(done), mine.serial)
})

slowTest('somebody who touches the object meanwhile costs no second certificate', async (t) => {
  const running = await openReady(t)
  const { held, release } = running.front.hold()
  const request = await running.ask('touched-1')
  await held
  await running.cluster
    .as()
    .request(
      'PATCH',
      '/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests/touched-1',
      { metadata: { annotations: { note: 'x' } } },
      { contentType: 'application/merge-patch+json' },
    )
  release()
  await running.ended('touched-1', 'Issued')
  t.same(running.front.issued, [uidOf(request)])
})

t.test(
  'one that asks for something else meanwhile does not get what was signed, where no webhook forbids that',
  async (t) => {
    const running = await openReady(t, forgetWebhook)
    const { cluster } = running
    const { held, release } = running.front.hold()
    const request = await running.ask('changed-1')
    await held
    const other = await cluster.certManager.create({ name: 'other-1', issuer })
    const { status } = await cluster
      .as()
      .request(
        'PATCH',
        '/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests/changed-1',
        { spec: { request: textAt(other, 'spec', 'request') } },
        { contentType: 'application/merge-patch+json' },
      )
    t.equal(status, 200)
    release()
    const ended = await running.ended('changed-1', 'Failed')
    t.match(messageOf(ended), /changed after it was made/)
    t.equal(textAt(ended, 'status', 'certificate'), '')
    t.same(running.front.issued, [uidOf(request)])
  },
)

slowTest('one that is denied meanwhile, after all, gets no certificate', async (t) => {
  const running = await openReady(t, forgetWebhook)
  const { cluster } = running
  const { held, release } = running.front.hold()
  const request = await running.ask('denied-1')
  await held
  await cluster.certManager.deny(cluster.get('certificaterequests', 'team-a', 'denied-1') ?? request)
  release()
  const ended = await cluster.until('certificaterequests', { namespace: 'team-a', name: 'denied-1' }, (object) =>
    ['Denied', 'Issued'].includes(readyOf(object) ?? ''),
  )
  t.equal(readyOf(ended), 'Denied')
  t.equal(textAt(ended, 'status', 'certificate'), '')
})
