/** Events on the double, which takes no others than the real API server. */
import t from 'tap'

import { ApiFault, openApi } from '../../src/kubernetes/api/client.ts'
import { openRecorder } from '../../src/kubernetes/api/recorder.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
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

/** On an API server that takes everything, and has nothing any more when `isForgetful`. */
const openCounted = () => {
  const counted = { POST: 0, PATCH: 0, dropped: 0, isForgetful: false }
  const time = { now: Date.now() }
  const call = async (method: string) => {
    counted[method as 'POST' | 'PATCH'] += 1
    if (method === 'PATCH' && counted.isForgetful) throw new ApiFault(404, 'not found')
    return {} as never
  }
  const dropped = (): void => {
    counted.dropped += 1
  }
  const about = { instance: 'chancery-0', log: quiet, clock: () => new Date(time.now) }
  return { counted, time, recorder: openRecorder({ api: { call }, ...about, dropped }) }
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

t.test('a clock that was hours ahead does not keep what happens from being written for hours', async (t) => {
  const { counted, time, recorder } = openCounted()
  recorder.record(web, told)
  time.now -= 6 * 3_600_000
  for (let i = 0; i < 5; i += 1) recorder.record(web, told)
  time.now += 61_000
  recorder.record(web, told)
  await recorder.close()
  t.match(counted, { POST: 2, PATCH: 1 })
})

t.test('more objects in rotation than series are kept: no storm of new events', async (t) => {
  const { counted, time, recorder } = openCounted()
  const rounds = 5
  for (let round = 0; round < rounds; round += 1) {
    for (let i = 0; i < 4_097; i += 1)
      recorder.record({ ...web, metadata: { ...web.metadata, name: `web-${i}`, uid: `${i}` } }, told)
    await recorder.close()
    time.now += 60_000
  }
  t.equal(counted.POST, 2_048 + (rounds - 1) * 300)
  t.ok(counted.dropped > 0)
  t.equal(counted.POST + counted.PATCH + counted.dropped, rounds * 4_097)
})

slowTest('events that have gone from the API server do not all come again at once', async (t) => {
  const { counted, time, recorder } = openCounted()
  const round = (): void => {
    for (let i = 0; i < 4_000; i += 1)
      recorder.record({ ...web, metadata: { ...web.metadata, name: `web-${i}`, uid: `${i}` } }, told)
  }
  counted.isForgetful = true
  for (let i = 0; i < 5; i += 1) {
    round()
    await recorder.close()
    time.now += 60_000
  }
  t.ok(counted.PATCH > 2_048, 'they are counted')
  t.equal(counted.POST, 2_048 + 4 * 300)
})

t.test(
  'whatever an object is called, its event has a name that the API server takes; the object’s where it can be',
  async (t) => {
    const { cluster, recorder } = await open(t)
    const nameOf = async (name: string): Promise<string> => {
      const before = new Set(eventsOf(cluster, 'team-a').map((event) => textAt(event, 'metadata', 'name')))
      recorder.record({ ...web, metadata: { ...web.metadata, name, uid: name } }, told)
      await recorder.close()
      const events = eventsOf(cluster, 'team-a').filter((event) => !before.has(textAt(event, 'metadata', 'name')))
      t.equal(textAt(events[0], 'regarding', 'name'), name)
      return textAt(events[0], 'metadata', 'name').replace(/[0-9a-f]{15}$/, '#')
    }
    t.equal(await nameOf('web-1'), 'web-1.#')
    t.equal(await nameOf('web.example.test'), 'web.example.test.#')
    for (const name of [
      'node-csr-Zt3q_X9-',
      'Web',
      'web_1',
      '-web',
      'a..b',
      'a.-b',
      'wéb',
      ' ',
      'x'.repeat(199).concat('Y'),
    ])
      t.equal(await nameOf(name), 'certificaterequest.#', name)
    for (const cut of ['-', '.', '.-'])
      t.equal(await nameOf(`${'x'.repeat(200 - cut.length)}${cut}yz`), `${'x'.repeat(200 - cut.length)}.#`)
  },
)

t.test('the double refuses the name of an event as the API server does', async (t) => {
  const { cluster } = await open(t)
  const post = async (name: string) => {
    const { status, body } = await cluster.as().request('POST', '/apis/events.k8s.io/v1/namespaces/default/events', {
      ...{ apiVersion: 'events.k8s.io/v1', kind: 'Event', metadata: { name, namespace: 'default' } },
      ...{ eventTime: '2026-11-24T23:00:00.000000Z', type: 'Normal', reason: 'A', action: 'B', note: 'c' },
      ...{
        reportingController: 'chancery.dev/controller',
        reportingInstance: 'x',
        regarding: { kind: 'Node', name: 'n' },
      },
    })
    return `${status} ${textAt(body as Tree, 'message')}`
  }
  t.match(
    await post('node-csr-Zt3q_X9.1'),
    /^422 Event "node-csr-Zt3q_X9\.1" is invalid: metadata\.name: Invalid value: /,
  )
  t.match(await post('web-.1'), /^422 .*a lowercase RFC 1123 subdomain must consist of/)
  t.match(await post('a'.repeat(254)), /^422 .*must be no more than 253 characters/)
  t.match(await post('web-1.1'), /^201 /)
})

t.test('an event that is refused is told of at warn, once for each reason; a server that is away is not', async (t) => {
  const lines: unknown[] = []
  const faults = [
    new ApiFault(422, 'no such name', { reason: 'Invalid' }),
    new ApiFault(422, 'nor such', { reason: 'Invalid' }),
    new ApiFault(0, 'nobody is there'),
    new ApiFault(404, 'namespaces "gone" not found', { reason: 'NotFound' }),
    new ApiFault(403, 'unable to create new content in namespace x because it is being terminated', {
      reason: 'Forbidden',
    }),
    new ApiFault(503, 'later', { reason: 'ServiceUnavailable' }),
    new ApiFault(429, 'slowly', { reason: 'TooManyRequests' }),
    new ApiFault(403, 'no right', { reason: 'Forbidden' }),
    new ApiFault(403, 'nor here', { reason: 'Forbidden' }),
  ]
  const call = async (): Promise<never> => {
    throw faults.shift()
  }
  const log = { ...quiet, warn: (line: object): void => void lines.push(line) }
  const recorder = openRecorder({ api: { call }, instance: 'chancery-0', log, clock: () => new Date(0) })
  for (const { message: note } of [...faults]) recorder.record(web, { ...told, note })
  await recorder.close()
  t.match(lines, [
    { event: 'event.refused', err: { message: 'no such name' } },
    { event: 'event.refused', err: { message: 'no right' } },
  ])
  t.equal(lines.length, 2)
})
