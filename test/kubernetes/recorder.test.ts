/** Events on the double, which takes no others than the real API server. */
import t from 'tap'

import { openApi } from '../../src/kubernetes/api.ts'
import { openRecorder } from '../../src/kubernetes/recorder.ts'
import { quiet } from '../helpers/log.ts'
import { type Cluster, openCluster } from './cluster.ts'
import { certificateRequest, issuerOf } from './objects.ts'
import { at, type Tree, textAt } from './values.ts'

const open = async (t: Parameters<typeof openCluster>[0]) => {
  const cluster = await openCluster(t)
  const token = cluster.tokenOf('chancery-system/chancery-controller')
  const api = openApi(async () => ({
    ...{ server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } },
  }))
  const time = { now: Date.now() }
  const recorder = openRecorder({ api, instance: 'chancery-0', log: quiet, clock: () => new Date(time.now) })
  t.teardown(async () => api.close())
  return { cluster, recorder, time }
}
const eventsOf = (cluster: Cluster, namespace: string): readonly Tree[] =>
  cluster.list('events.events.k8s.io', namespace)
const told = { type: 'Normal', reason: 'Pending', action: 'Issue', note: 'waiting' } as const
const web = certificateRequest('11-get-pending-web')

t.test('the same again is counted, and written once a minute; after a quarter of an hour it is new', async (t) => {
  const { cluster, recorder, time } = await open(t)
  for (let i = 0; i < 5; i += 1) recorder.record(web, told)
  recorder.record(web, { ...told, note: 'something else' })
  time.now += 61_000
  recorder.record(web, told)
  await recorder.close()
  const events = eventsOf(cluster, 'team-a')
  t.equal(events.length, 2)
  const counted = events.find((event) => textAt(event, 'note') === 'waiting')
  t.equal(at(counted, 'series', 'count'), 6)
  t.match(counted, { regarding: { kind: 'CertificateRequest', name: 'web-1', uid: web.metadata.uid } })
  time.now += 900_000
  recorder.record(web, told)
  await recorder.close()
  t.equal(eventsOf(cluster, 'team-a').length, 3)
})

t.test(
  'a series whose event has gone begins anew; notes fit; what belongs to no namespace is in default',
  async (t) => {
    const { cluster, recorder, time } = await open(t)
    recorder.record(web, told)
    await recorder.close()
    const [first] = eventsOf(cluster, 'team-a')
    await cluster.remove('events.events.k8s.io', 'team-a', textAt(first, 'metadata', 'name'))
    time.now += 61_000
    recorder.record(web, told)
    recorder.record(web, { ...told, note: 'ü'.repeat(2_000) })
    const { namespace: _, ...metadata } = issuerOf().metadata
    recorder.record({ ...issuerOf(), kind: 'ChanceryClusterIssuer', metadata }, told)
    await recorder.close()
    t.equal(eventsOf(cluster, 'team-a').length, 2)
    const long = eventsOf(cluster, 'team-a').find((event) => textAt(event, 'note') !== 'waiting')
    t.ok(Buffer.byteLength(textAt(long, 'note')) <= 1_024)
    t.notMatch(textAt(long, 'note'), '\uFFFD')
    t.equal(eventsOf(cluster, 'default').length, 1)
  },
)

t.test('notes that are long, and differ beyond what is written of them, are one event', async (t) => {
  const { cluster, recorder } = await open(t)
  for (let i = 0; i < 20; i += 1) recorder.record(web, { ...told, note: `${'A'.repeat(900_000)} ${i}` })
  await recorder.close()
  t.equal(eventsOf(cluster, 'team-a').length, 1)
})
