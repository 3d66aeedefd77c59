/** A cluster without its network: store, kinds, people and API server, and what every cluster has from the start. */
import { randomInt, randomUUID } from 'node:crypto'

import { type Catalogue, openCatalogue, type Release } from './catalogue.ts'
import { certManagerDefinitions } from './cert-manager.ts'
import { openPeople, type People } from './people.ts'
import type { Timers } from './reads.ts'
import { type ApiServer, openApiServer, type World, type Write } from './server.ts'
import { openStore, type Store } from './store.ts'
import { at, put, type Tree, textAt } from './values.ts'

export interface DoubleOptions {
  readonly release?: Release
  readonly now?: () => Date
  readonly timers?: Timers
  readonly uid?: () => string
  readonly suffix?: () => string
  /** The issuer of service account tokens. */
  readonly issuer?: () => string
}

export interface Double {
  readonly store: Store
  readonly catalogue: Catalogue
  readonly people: People
  readonly server: ApiServer
  readonly writes: Write[]
  /** Stores an object as it is, without asking anybody. Its kind must be known. */
  seed(object: Tree): Tree
}

export const openDouble = (options: DoubleOptions = {}): Double => {
  const {
    release = '1.36',
    now = () => new Date(),
    timers = realTimers,
    uid = randomUUID,
    suffix = randomSuffix,
  } = options
  const store = openStore()
  const catalogue = openCatalogue(store, release)
  const people = openPeople(store, options.issuer ?? (() => 'https://kubernetes.default.svc.cluster.local'), now)
  const writes: Write[] = []
  const world: World = { store, catalogue, people, timers, now, uid, suffix, log: (write) => writes.push(write) }
  const seed = (object: Tree): Tree => seedInto(world, object)
  for (const definition of certManagerDefinitions(release)) {
    put(definition, ['status', 'conditions'], [{ type: 'Established', status: 'True' }])
    seed(definition)
  }
  for (const object of firstObjects) seed(object)
  return { store, catalogue, people, server: openApiServer(world), writes, seed }
}

const seedInto = ({ store, catalogue, uid, now }: World, object: Tree): Tree => {
  const [version = '', group = ''] = textAt(object, 'apiVersion').split('/').reverse()
  const kind = textAt(object, 'kind')
  const resource = catalogue.all().find((one) => one.kind === kind && one.group === group && one.version === version)
  if (resource === undefined) throw new Error(`no kind ${kind} in ${textAt(object, 'apiVersion')}`)
  const { apiVersion: _, kind: __, ...bare } = object
  const whole = structuredClone(resource.rules.decode?.(bare).object ?? bare)
  if (at(whole, 'metadata', 'uid') === undefined) put(whole, ['metadata', 'uid'], uid())
  if (at(whole, 'metadata', 'creationTimestamp') === undefined)
    put(whole, ['metadata', 'creationTimestamp'], `${now().toISOString().slice(0, 19)}Z`)
  if (resource.generation && at(whole, 'metadata', 'generation') === undefined)
    put(whole, ['metadata', 'generation'], 1)
  const version_ = textAt(whole, 'metadata', 'resourceVersion')
  return store.write(resource.storage, whole, version_ === '' ? undefined : Number(version_))
}

const realTimers: Timers = {
  after: (seconds, call) => {
    const timer = setTimeout(call, seconds * 1000)
    return () => clearTimeout(timer)
  },
}

const randomSuffix = (): string =>
  Array.from({ length: 5 }, () => 'bcdfghjklmnpqrstvwxz2456789'[randomInt(27)]).join('')

const core = (kind: string, name: string, namespace?: string): Tree => ({
  apiVersion: 'v1',
  kind,
  metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
})

const rbacVersion = 'rbac.authorization.k8s.io/v1'

const rule = (group: string, resources: readonly string[], verbs: readonly string[]): Tree => ({
  apiGroups: [group],
  resources: [...resources],
  verbs: [...verbs],
})

/** A cluster role and its binding. */
const granted = (name: string, subjects: readonly Tree[], rules: readonly Tree[]): readonly Tree[] => [
  { apiVersion: rbacVersion, kind: 'ClusterRole', metadata: { name }, rules: [...rules] },
  {
    apiVersion: rbacVersion,
    kind: 'ClusterRoleBinding',
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
    subjects: [...subjects],
  },
]

const group = (name: string): Tree => ({ kind: 'Group', name })
const account = (namespace: string, name: string): Tree => ({ kind: 'ServiceAccount', namespace, name })
const reading = ['get', 'list', 'watch']

/** Namespaces, accounts and rights that do not belong to what is tested: as Kubernetes and cert-manager bring them. */
const firstObjects: readonly Tree[] = [
  ...['default', 'kube-system', 'cert-manager'].map((name) => core('Namespace', name)),
  core('ServiceAccount', 'cert-manager', 'cert-manager'),
  core('ServiceAccount', 'cert-manager-approver-policy', 'cert-manager'),
  ...granted(
    'system:basic-user',
    [group('system:authenticated')],
    [rule('authorization.k8s.io', ['selfsubjectaccessreviews'], ['create'])],
  ),
  ...granted(
    'system:node',
    [group('system:nodes')],
    [
      rule('certificates.k8s.io', ['certificatesigningrequests'], ['create', ...reading]),
      rule('certificates.k8s.io', ['podcertificaterequests'], ['create', ...reading]),
      rule('', ['nodes', 'pods'], reading),
    ],
  ),
  ...granted(
    'cert-manager-controller',
    [account('cert-manager', 'cert-manager')],
    [
      rule('cert-manager.io', ['*'], [...reading, 'create', 'update', 'patch', 'delete']),
      rule('', ['secrets'], [...reading, 'create', 'update', 'patch', 'delete']),
    ],
  ),
  ...granted(
    'cert-manager-approver-policy',
    [account('cert-manager', 'cert-manager-approver-policy')],
    [
      rule('cert-manager.io', ['certificaterequests'], reading),
      rule('cert-manager.io', ['certificaterequests/status'], ['update', 'patch']),
    ],
  ),
]
