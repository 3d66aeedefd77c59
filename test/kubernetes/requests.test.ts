/** Looks at requests of cert-manager, one by one: what is asked of the API server, and what is told. */
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import { ApiFault } from '../../src/kubernetes/api/client.ts'
import type { CertificateRequest } from '../../src/kubernetes/api/objects.ts'
import { openCircles } from '../../src/kubernetes/reconcile/renewal-backoff.ts'
import { keepRequest, lookAtRequest } from '../../src/kubernetes/reconcile/requests.ts'
import { issueFor } from './certificates.ts'
import { approved, certificateRequest, denied, factsOf, issuerOf, withConditions } from './objects.ts'

const web = certificateRequest('11-get-pending-web')
const now = new Date(web.metadata.creationTimestamp)

t.test('a request that has ended, or is another one, while Chancery signed is not written', async (t) => {
  const { spki } = factsOf(web)
  const look = async (fresh: CertificateRequest) => {
    const versions: string[] = []
    let events = 0
    const call = async (method: string, _: string, { body }: { readonly body: CertificateRequest }) => {
      if (method === 'GET') return fresh
      versions.push(body.metadata.resourceVersion)
      if (versions.length === 1) throw new ApiFault(409, 'it was written meanwhile', { reason: 'Conflict' })
      return fresh
    }
    const deps = {
      ...{ api: { call }, circles: openCircles(() => 0), readRequest, clock: () => now, meter: { count: () => {} } },
      ...{ watch: { get: () => web }, recorder: { record: () => (events += 1) } },
      ...{ issuers: { find: () => issuerOf(), hear: () => {} } },
      asker: { ask: async () => ({ outcome: { kind: 'issued', issued: issueFor(spki, now) } }) },
    }
    const turn = { key: 'x', waited: 0, reported: {}, signal: new AbortController().signal }
    t.same(await lookAtRequest(deps as never, turn), { kind: 'end' })
    return { versions, events }
  }
  const { resourceVersion } = web.metadata
  const meanwhile = (change: object) => ({ ...web, metadata: { ...web.metadata, ...change } })
  t.same(await look(meanwhile({ resourceVersion: '999' })), { versions: [resourceVersion, '999'], events: 1 })
  for (const [how, fresh] of [
    ['issued', withConditions(web, approved, { type: 'Ready', status: 'True', reason: 'Issued' })],
    ['failed', withConditions(web, approved, { type: 'Ready', status: 'False', reason: 'Failed' })],
    ['denied', withConditions(web, approved, denied)],
    ['changed', meanwhile({ generation: 2 })],
    ['deleted', meanwhile({ deletionTimestamp: '2026-11-24T23:19:00Z' })],
    ['another', meanwhile({ uid: 'another' })],
  ] as const)
    t.same(await look(fresh), { versions: [resourceVersion], events: 0 }, how)
})

t.test('a kind that there is not is told of each day, and what could not be told is told another time', async (t) => {
  const { spec } = web
  const object = keepRequest({ ...web, spec: { ...spec, issuerRef: { ...spec.issuerRef, kind: 'Issuer' } } })
  const look = (record: () => boolean) => {
    const deps = { watch: { get: () => object }, issuers: { find: () => undefined }, recorder: { record } }
    const turn = { key: 'x', waited: 0, reported: {}, signal: new AbortController().signal }
    return lookAtRequest({ ...deps, clock: () => new Date() } as never, turn)
  }
  t.same(await look(() => true), { kind: 'retry', after: 86_400, isLeft: true })
  t.same(await look(() => false), { kind: 'retry', after: 60, isLeft: true })
})
