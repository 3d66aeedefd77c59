/** Deleting with finalizers, as Kubernetes 1.36.2 was seen to do it for CertificateRequests. */
import t from 'tap'

import { openCluster } from './cluster.ts'
import { at, nameOf, type Tree, textAt, treeAt, uidOf } from './values.ts'

const issuer = { kind: 'ChanceryIssuer', name: 'default-ca' }
const path = '/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests'

const openRequest = async (t: Parameters<typeof openCluster>[0], finalizers: readonly string[] = []) => {
  const cluster = await openCluster(t)
  const admin = cluster.as()
  const made = await cluster.certManager.create({ name: 'web', issuer })
  const merge = (metadata: Tree) =>
    admin.request('PATCH', `${path}/web`, { metadata }, { contentType: 'application/merge-patch+json' })
  if (finalizers.length > 0) await merge({ finalizers: [...finalizers] })
  const remove = (body?: Tree, query: Readonly<Record<string, string>> = {}) =>
    admin.request('DELETE', `${path}/web`, body, { query })
  return { cluster, made, merge, remove, get: () => cluster.get('certificaterequests', 'team-a', 'web') }
}

const held = (object: unknown) => at(treeAt(object as Tree, 'metadata'), 'finalizers')

t.test('an object that somebody holds is marked, once, and goes with the last finalizer', async (t) => {
  const { cluster, merge, remove, get } = await openRequest(t, ['example.com/a', 'example.com/b'])
  const seen: string[] = []
  const { body: before } = await cluster.as().request('GET', path)
  const { status, body } = await remove()
  t.equal(status, 200)
  t.match(treeAt(body, 'metadata'), {
    ...{ name: 'web', generation: 2, deletionGracePeriodSeconds: 0, deletionTimestamp: /Z$/ },
    finalizers: ['example.com/a', 'example.com/b'],
  })
  const again = await remove()
  t.same(again.body, body, 'what is deleted already is so no more than before')
  const late = await merge({ finalizers: ['example.com/a', 'example.com/b', 'example.com/c'] })
  const why =
    'Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/c"}'
  t.match(late, {
    status: 422,
    body: {
      message: `CertificateRequest.cert-manager.io "web" is invalid: metadata.finalizers: ${why}`,
      details: { causes: [{ message: why }, { message: why }] },
    },
  })
  t.equal(textAt(get(), 'metadata', 'deletionTimestamp'), textAt(body, 'metadata', 'deletionTimestamp'))
  await merge({ deletionTimestamp: null })
  t.not(textAt(get(), 'metadata', 'deletionTimestamp'), '', 'and stays so')
  await merge({ finalizers: ['example.com/b'] })
  const version = textAt(get(), 'metadata', 'resourceVersion')
  const last = await merge({ finalizers: null })
  t.match(last, { status: 200, body: { metadata: { resourceVersion: version } } })
  t.equal(held(last.body), undefined)
  t.equal(get(), undefined)
  const events = cluster.double.store.since(Number(textAt(before, 'metadata', 'resourceVersion')), kind)
  for (const { type, object } of events) seen.push(`${type} ${JSON.stringify(held(object))}`)
  t.same(seen, [
    'MODIFIED ["example.com/a","example.com/b"]',
    'MODIFIED ["example.com/b"]',
    'DELETED ["example.com/b"]',
  ])
})

t.test('the garbage collector holds what is deleted before or without its dependents', async (t) => {
  for (const [policy, finalizers] of [
    ['Foreground', ['example.com/a', 'foregroundDeletion']],
    ['Orphan', ['example.com/a', 'orphan']],
    ['Background', ['example.com/a']],
  ] as const) {
    const { remove } = await openRequest(t, ['example.com/a'])
    t.same(held((await remove(undefined, { propagationPolicy: policy })).body), finalizers)
    t.same(held((await remove({ propagationPolicy: 'Background' })).body), ['example.com/a'])
  }
  const { remove, get } = await openRequest(t)
  t.same(held((await remove({ propagationPolicy: 'Foreground' })).body), ['foregroundDeletion'])
  t.match((await remove({ propagationPolicy: 'Background' })).body, { kind: 'Status', status: 'Success' })
  t.equal(get(), undefined)
})

t.test('a precondition that does not hold is told, and a dry run deletes nothing', async (t) => {
  const { made, remove, get } = await openRequest(t)
  const unmet = await remove({ preconditions: { uid: 'no' } })
  t.match(unmet, {
    status: 409,
    body: {
      message: `Operation cannot be fulfilled on CertificateRequest.cert-manager.io "web": the UID in the precondition (no) does not match the UID in record (${uidOf(made)}). The object might have been deleted and then recreated`,
      details: { name: 'web', group: 'cert-manager.io', kind: 'CertificateRequest' },
    },
  })
  t.match(await remove(undefined, { dryRun: 'All' }), { status: 200, body: { kind: 'Status' } })
  t.equal(nameOf(get()), 'web')
})

const kind = 'certificaterequests.cert-manager.io'
