/** The state of the cluster before a recorded exchange, put together from all the others. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Double } from './double.ts'
import { decodeFields, difference, fieldsOf, none, removeFields, union, withNamedParents } from './fields.ts'
import { type Exchange, folder, type Sighting, stateAt } from './recordings.ts'
import type { Stage } from './replay-stages.ts'
import type { Resource } from './resource.ts'
import {
  at,
  isTree,
  nameOf,
  namespaceOf,
  put,
  type Tree,
  textAt,
  treeAt,
  treesAt,
  type Value,
  versionOf,
} from './values.ts'

export interface Memory {
  readonly sightings: readonly Sighting[]
  /** Of the whole store, before the exchange. */
  readonly version: number
  readonly exchanges: readonly Exchange[]
}

export interface Scene {
  readonly exchange: Exchange
  readonly memory: Memory
  readonly stage: Stage
}

export const setUp = (cluster: Double, scene: Scene): void => {
  const { exchange, memory, stage } = scene
  const version = stage.version ?? memory.version
  for (const object of inhabitants(exchange.release)) cluster.seed(object)
  for (const object of rights(stage)) cluster.seed(object)
  for (const object of definitions(memory, version)) cluster.seed(object)
  for (const object of stage.objects ?? []) cluster.seed(object)
  // Definitions are in the state in which they were seen in their own recordings alone.
  for (const sighting of stateAt(memory.sightings, version))
    if (exchange.name.startsWith('crds/') || sighting.plural !== 'customresourcedefinitions')
      if (stage.gone?.includes(nameOf(sighting.object)) !== true) remember(cluster, sighting)
  recover(cluster, exchange)
  fill(cluster, exchange)
  const oldest = stage.oldest?.[exchange.release]
  if (oldest !== undefined) cluster.store.compact(oldest)
  cluster.store.advance(version)
}

const remember = ({ catalogue, store }: Double, { group, plural, object, version }: Sighting): void => {
  // Core events are events of events.k8s.io in other words.
  if (plural === 'events' && group === '') return
  const resource = catalogue.all().find((one) => one.group === group && one.plural === plural)
  if (resource === undefined) return
  const { kind: _, apiVersion: __, ...bare } = object
  store.write(resource.storage, structuredClone(bare), version)
}

/** The object that is written, where nothing shows it before: as the request or the answer has it, less the change. */
const recover = ({ catalogue, store }: Double, { request, response }: Exchange): void => {
  const [, namespace = '', plural = '', name = '', subresource = ''] =
    /^\/apis\/[^/]+\/[^/]+(?:\/namespaces\/([^/]+))?\/([^/]+)\/([^/]+)(?:\/(\w+))?$/.exec(request.path) ?? []
  const resource = catalogue.all().find((one) => one.plural === plural && request.path.includes(`/${one.group}/`))
  const source = request.method === 'PUT' ? request.body : response.status === 200 ? response.body : null
  if (resource === undefined || !['PUT', 'PATCH'].includes(request.method) || !isTree(source)) return
  if (versionOf(source) === 0 || store.find(resource.storage, namespace, name) !== undefined) return
  const { kind: _, apiVersion: __, ...bare } = structuredClone(source)
  const isApply = request.headers['content-type'] === 'application/apply-patch+yaml'
  const entries = treesAt(bare, 'metadata', 'managedFields').filter(
    (entry) => !(isApply && entry['manager'] === request.query['fieldManager'] && entry['subresource'] === subresource),
  )
  const written = treesAt(bare, 'metadata', 'managedFields').filter((entry) => !entries.includes(entry))
  if (resource.native && written.some((entry) => at(entry, 'fieldsV1', 'f:status', 'f:certificate') !== undefined))
    delete treeAt(bare, 'status')['certificate']
  put(bare, ['metadata', 'managedFields'], entries)
  if (entries.length === 0) delete treeAt(bare, 'metadata')['managedFields']
  const version = versionOf(source) - (request.method === 'PUT' ? 0 : 1)
  store.write(resource.storage, before(bare, resource, request.body), version)
}

/** Of a status, what its remaining owners own; where nobody owns conditions, those that were written are others. */
const before = (object: Tree, resource: Resource, sent: Value): Tree => {
  const status = treeAt(object, 'status')
  if (resource.native) {
    const written = treesAt(sent, 'status', 'conditions').map(({ type }) => type)
    const conditions = treesAt(status, 'conditions')
    for (const one of conditions) if (written.includes(one['type'] ?? null)) one['reason'] = 'Earlier'
    return object
  }
  const owned = treesAt(object, 'metadata', 'managedFields')
    .map((entry) => decodeFields(treeAt(entry, 'fieldsV1')))
    .reduce(union, none)
  const all = fieldsOf({ status }, resource.shape)
  return removeFields(
    object,
    difference(withNamedParents(all, resource.shape), withNamedParents(owned, resource.shape)),
    resource.shape,
  ) as Tree
}

/** Objects that nothing shows but a count, after all others. */
const fill = ({ store }: Double, { request, response }: Exchange): void => {
  const wanted = at(response.body, 'metadata', 'remainingItemCount')
  if (typeof wanted !== 'number' || !request.path.endsWith('/certificaterequests')) return
  const storage = 'certificaterequests.cert-manager.io'
  const shown = treesAt(response.body, 'items').map((item) => `${namespaceOf(item)}/${nameOf(item)}`)
  const last = shown.at(-1) ?? ''
  const known = store.all(storage).filter((one) => `${namespaceOf(one)}/${nameOf(one)}` > last).length
  for (let count = known; count < wanted; count += 1)
    store.write(
      storage,
      { metadata: { name: `unseen-${count}`, namespace: 'unseen', uid: `unseen-${count}` }, spec: {} },
      300,
    )
}

/** What was not recorded of the older release is as in the newer one. */
export const elsewhere = (name: string): Exchange =>
  JSON.parse(readFileSync(join(folder, `v1.36/${name}.json`), 'utf8'))

/** The definitions of our kinds as they were installed, once they were. */
const definitions = ({ exchanges, sightings }: Memory, version: number): readonly Tree[] => {
  const installed = sightings.find(({ plural }) => plural === 'customresourcedefinitions')?.version ?? 0
  const own = exchanges.filter(({ name, response }) => /^crds\/0[12]/.test(name) && response.status === 201)
  const other = elsewhere('crds/02-apply-chanceryclusterissuers')
  // A few versions pass until a definition that was applied is served.
  if (version < installed + 6) return []
  return [...own, ...(own.length === 2 ? [] : [other])].map(({ request }) => {
    const definition = structuredClone(request.body) as Tree
    put(definition, ['status', 'conditions'], [{ type: 'Established', status: 'True' }])
    return definition
  })
}

/** The rights that were given in the end, without those that were not there yet. */
const rights = ({ lacks = [] }: Stage): readonly Tree[] => {
  const { items } = JSON.parse(readFileSync(join(folder, 'rbac.json'), 'utf8')) as { readonly items: readonly Tree[] }
  return items
    .filter((item) => !lacks.includes(textAt(item, 'metadata', 'name')))
    .map((item) => ({
      ...item,
      ...(item['rules'] === undefined
        ? {}
        : {
            rules: treesAt(item, 'rules').filter(
              (rule) => !lacks.some((resource) => (rule['resources'] as string[]).includes(resource)),
            ),
          }),
    }))
}

const object = (kind: string, name: string, more: Tree = {}, namespace?: string): Tree => ({
  apiVersion: 'v1',
  kind,
  ...more,
  metadata: { name, ...(namespace === undefined ? {} : { namespace }), ...treeAt(more, 'metadata') },
})

/** Who and what lives in the cluster, with the identities that the recordings show. */
const inhabitants = (release: Exchange['release']): readonly Tree[] => {
  const ids = identities[release]
  const pod = (name: string, node: string, uid: string): Tree =>
    object('Pod', name, { metadata: { uid }, spec: { nodeName: node, serviceAccountName: 'workload' } }, 'team-a')
  const accounts = [
    'chancery-controller',
    'request-approver',
    'chancery-csr-signer',
    'chancery-csr-approver',
    'chancery-reader',
  ]
  return [
    ...['team-a', 'team-b', 'team-c', 'chancery-system'].map((name) => object('Namespace', name)),
    ...accounts.map((name) => object('ServiceAccount', name, {}, 'chancery-system')),
    object('ServiceAccount', 'workload', { metadata: { uid: ids.workload } }, 'team-a'),
    object('Node', 'worker-1', { metadata: { uid: ids['worker-1'] } }),
    object('Node', 'worker-2', { metadata: { uid: ids['worker-2'] } }),
    pod('app-0', 'worker-1', ids['app-0']),
    pod('app-1', 'worker-2', ids['app-1']),
  ]
}

const identities = {
  '1.36': {
    workload: 'fb4659ee-c944-4a22-8152-c099cd4b0d6a',
    'worker-1': 'd1a5176d-c3d0-416b-9d50-7e529d34fe4f',
    'worker-2': '7b8d11d3-39b1-46f8-b23a-033718b77b19',
    'app-0': '60486f2c-1edf-4eef-bec5-5a4c7ee1491e',
    'app-1': '837a4103-8083-4082-876b-257aa085244f',
  },
  '1.34': {
    workload: '6c534c4b-01bf-4dc0-9b42-d3ed637a9112',
    'worker-1': '2a8cab76-75a6-4af1-abc6-0b0040295c6d',
    'worker-2': 'not recorded',
    'app-0': '7171fe02-b6a2-4662-80e8-67fb30888a91',
    'app-1': 'not recorded',
  },
} as const
