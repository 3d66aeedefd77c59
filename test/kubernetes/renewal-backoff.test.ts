/** Certificates that are renewed as soon as they are issued: they come ever later, and their requests say why. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import type { CertificateRequest } from '../../src/kubernetes/api/objects.ts'
import { mostEarly, openCircles } from '../../src/kubernetes/reconcile/renewal-backoff.ts'
import { keepRequest, lookAtRequest } from '../../src/kubernetes/reconcile/requests.ts'
import { issueFor } from './certificates.ts'
import { certificateRequest, factsOf, issuerOf } from './objects.ts'

const web = certificateRequest('11-get-pending-web')
const other = (more: object): CertificateRequest => ({ ...web, metadata: { ...web.metadata, ...more } })
const certificate = { apiVersion: 'cert-manager.io/v1', kind: 'Certificate' }
const minute = 60_000
const day = 1_440 * minute

const open = () => {
  const time = { now: 0 }
  const circles = openCircles(() => time.now)
  /** So many, each asked for as long after the one before as `everyMs`; how long it had to rest. */
  const give = (times: number, everyMs: number, leftMs: number, object: CertificateRequest = web): number => {
    let rested = 0
    for (let i = 0; i < times; i += 1) {
      time.now += everyMs
      for (let rest = circles.restOf(object); rest > 0; rest = circles.restOf(object)) {
        rested += rest * 1_000
        time.now += rest * 1_000
      }
      circles.note(object, leftMs)
    }
    return rested
  }
  return { circles, time, give }
}

t.test('after so many in a row, each asked for early, the next ones rest for five minutes at most', async (t) => {
  const { circles, give } = open()
  t.equal(give(1 + mostEarly, 400, 90 * day), 0, 'the first is not early')
  t.equal(circles.restOf(web), 300)
  t.equal(give(2, 400, 90 * day), 2 * (5 * minute - 400), 'which does not end the row')
  t.equal(circles.restOf(other({ name: 'web-2', uid: 'another' })), 300, 'another request for the same')
  t.equal(circles.restOf(other({ ownerReferences: [{ ...certificate, uid: 'another' }] })), 0)
  t.equal(circles.restOf(other({ namespace: 'team-b' })), 0, 'whoever writes its uid elsewhere')
})

t.test('whoever writes the uid of a Certificate into requests of his own delays those alone', async (t) => {
  const { circles, give } = open()
  const his = { ...web, spec: { ...web.spec, username: 'system:serviceaccount:team-a:build' } }
  give(1 + mostEarly, 1, day, his)
  t.equal(circles.restOf(his), 300)
  t.equal(circles.restOf(web), 0)
})

t.test('an owner of another kind may have hundreds of requests at once, of which none rests', async (t) => {
  const { circles, give } = open()
  for (const owner of [
    { apiVersion: 'databases.example/v1', kind: 'Cluster' },
    { apiVersion: 'certificates.example/v1', kind: 'Certificate' },
    { apiVersion: 'cert-manager.io.example/v1', kind: 'Certificate' },
    { apiVersion: 'cert-manager.io/v1', kind: 'Issuer' },
    { apiVersion: 'apps/v1', kind: 'StatefulSet' },
    { apiVersion: 'v1', kind: 'Pod' },
  ])
    t.equal(give(500, 0, 90 * day, other({ ownerReferences: [{ ...owner, uid: 'a' }] })), 0, owner.kind)
  const labels = { 'csi.cert-manager.io/volume-id-hash': 'a' }
  for (const owner of [
    { apiVersion: 'pods.example/v1', kind: 'Pod' },
    { apiVersion: 'v1', kind: 'ConfigMap' },
  ])
    t.equal(give(500, 0, 90 * day, other({ ownerReferences: [{ ...owner, uid: 'a' }], labels })), 0, owner.kind)
  t.equal(circles.size, 0)
})

t.test('each volume of a pod is counted alone, in what is held of its requests', async (t) => {
  const { circles, give } = open()
  const ownerReferences = [{ apiVersion: 'v1', kind: 'Pod', uid: 'e2c3' }]
  const of = (volume: string): CertificateRequest =>
    keepRequest(other({ ownerReferences, labels: { 'csi.cert-manager.io/volume-id-hash': volume, app: 'web' } }))
  for (let i = 0; i < 100; i += 1) t.equal(give(1, 0, day, of(`volume-${i}`)), 0)
  give(mostEarly, 1, day, of('volume-7'))
  t.equal(circles.restOf(of('volume-7')), 300)
  t.equal(circles.restOf(of('volume-8')), 0)
})

t.test('nobody rests for more than a tenth of what the certificate before still has', async (t) => {
  const { circles, give } = open()
  give(1 + mostEarly, 1, 20_000)
  t.equal(circles.restOf(web), 2)
})

t.test('short certificates that are renewed in time do not rest, however short', async (t) => {
  const { give } = open()
  t.equal(give(1_000, 1_000, 10_000), 0)
  t.not(give(mostEarly + 1, 999, 10_000), 0)
})

t.test('one that was asked for later ends the row, and so does an hour without any', async (t) => {
  const { circles, give, time } = open()
  give(1 + mostEarly, 1, 10 * minute)
  t.equal(give(1, minute, 10 * minute), 0)
  t.equal(give(mostEarly, 1, 10 * minute), 0)
  t.equal(circles.restOf(web), 60)
  t.equal(give(1, 0, 90 * day), minute)
  time.now += 60 * minute
  t.equal(give(1 + mostEarly, 1, 90 * day), 0)
})

t.test('what is asked for once more, or not asked for at all, is no circle', async (t) => {
  const { circles, give } = open()
  for (let i = 0; i < 100; i += 1) t.equal(circles.restOf(web), 0)
  for (let i = 0; i < 100; i += 1) circles.note(web, day)
  t.equal(circles.restOf(web), 0)
  t.equal(give(1, 5 * minute, day), 0)
})

t.test('what is for nobody who outlives it is not counted, and who is silent for an hour is forgotten', async (t) => {
  const { circles, give } = open()
  const { ownerReferences: _, ...metadata } = web.metadata
  const alone = { ...web, metadata }
  t.equal(give(mostEarly * 2, 1, day, alone), 0)
  t.equal(circles.size, 0)
  for (let i = 0; i < 120; i += 1)
    give(1, minute, day, other({ ownerReferences: [{ ...certificate, uid: String(i) }] }))
  t.equal(circles.size, 60)
  give(60, minute, day, other({ ownerReferences: [{ ...certificate, uid: '60' }] }))
  t.equal(circles.size, 1, 'whoever is there for longer and is not silent')
})

t.test('a request that rests is not asked for, says why once, and is asked for when it has rested', async (t) => {
  const { circles, time, give } = open()
  const now = new Date(web.metadata.creationTimestamp)
  let object = web
  let asked = 0
  const { spki } = factsOf(web)
  const ask = async () => {
    asked += 1
    return { outcome: { kind: 'issued', issued: issueFor(spki, now) } }
  }
  const written: CertificateRequest['status'][] = []
  const call = async (_: string, __: string, { body }: { readonly body: CertificateRequest }) => {
    written.push(body.status)
    const approval = web.status?.conditions?.filter(({ type }) => type === 'Approved') ?? []
    object = { ...web, status: { ...body.status, conditions: [...approval, ...(body.status?.conditions ?? [])] } }
    return object
  }
  const deps = {
    ...{ api: { call }, circles, readRequest, clock: () => now, asker: { ask }, meter: { count: () => {} } },
    ...{ watch: { get: () => object }, recorder: { record: () => true } },
    ...{ issuers: { find: () => issuerOf(), hear: () => {}, isLeft: () => false } },
  }
  const look = () =>
    lookAtRequest(deps as never, { key: 'x', waited: 0, reported: {}, signal: new AbortController().signal })
  give(1 + mostEarly, 400, day)
  t.match(await look(), { kind: 'retry', after: 300, isLeft: true })
  t.match(written, [
    {
      conditions: [
        {
          type: 'Ready',
          status: 'False',
          reason: 'Pending',
          message: /^each of the last certificates was asked for soon after the one before/,
        },
      ],
    },
  ])
  time.now += 100_000
  t.match(await look(), { kind: 'retry', after: 200 })
  t.equal(written.length, 1)
  t.equal(asked, 0)
  time.now += 200_000
  t.same(await look(), { kind: 'end' })
  t.equal(asked, 1)
  t.match(written.at(-1), { conditions: [{ reason: 'Issued' }] })
  t.same(await look(), { kind: 'end' }, 'looked at once more, as when the watch tells of it')
  t.equal(circles.restOf(web), 300)
  const page = readFileSync(join(import.meta.dirname, '../../docs/controller.md'), 'utf8')
  t.match(page, `after ${mostEarly} in a row`)
})
