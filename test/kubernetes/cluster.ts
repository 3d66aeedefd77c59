/** A cluster for tests of what runs in one: the double on HTTPS, with people, faults, a log of writes, and cert-manager. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { type CertManager, openCertManager } from './actors.ts'
import type { Release } from './catalogue.ts'
import { type Double, openDouble } from './double.ts'
import { type Fault, type FaultKind, type FaultOptions, openFaults } from './faults.ts'
import { type Endpoint, listen } from './http.ts'
import type { TokenOptions, User } from './people.ts'
import { shown } from './reads.ts'
import { folder } from './recordings.ts'
import { failure } from './refusal.ts'
import { apiVersionOf, type Resource } from './resource.ts'
import type { About, Answered, Write } from './server.ts'
import { copy, nameOf, namespaceOf, put, type Tree, textAt, treeAt, treesAt, type Value } from './values.ts'

export interface ClusterOptions {
  readonly release?: Release
  /** Definitions of the kinds that are tested; those of the recordings if left out. They are served at once. */
  readonly definitions?: readonly Tree[]
  /** Roles and bindings; `rbac.json` of the recordings if left out. The accounts that bindings name are made. */
  readonly rbac?: readonly Tree[]
  readonly namespaces?: readonly string[]
  readonly now?: () => Date
}

export interface Client {
  request(method: string, path: string, body?: Value, options?: RequestOptions): Promise<Answered>
}

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string>>
  readonly contentType?: string
}

export interface Faults {
  add(kind: FaultKind, options?: FaultOptions): Fault
  /** Cuts a user's connections, or everybody's, and lets none through until healed. */
  partition(actor?: string): () => void
  /** Ends open watches as the server does when their time is over, or `cut` as the network does. */
  closeWatches(how?: 'end' | 'cut'): void
  /** Forgets the history: open watches get 410, lists and watches of older versions too. */
  expireWatches(): void
  /** Open watches stay open and tell nothing, until released. */
  holdWatches(): () => void
}

export interface Cluster {
  readonly url: string
  /** PEM, of the CA that certified the API server. */
  readonly ca: string
  /** Of `namespace/name`, which is made if it is not there. */
  tokenOf(account: string, options?: TokenOptions): string
  tokenFor(user: User): string
  /** Writes a kubeconfig for this account and returns its path. */
  kubeconfig(path: string, account: string, options?: TokenOptions): string
  /** Writes what is mounted into pods (token, ca.crt, namespace) and returns the folder. */
  podFolder(path: string, account: string, options?: TokenOptions): string
  /** As somebody, over no network. Without a token as the administrator. */
  as(token?: string): Client
  /** As the administrator by server-side apply; a status is applied as well. Throws what is refused. */
  apply(object: Tree): Promise<Tree>
  remove(plural: string, namespace: string, name: string): Promise<void>
  get(plural: string, namespace: string, name: string): Tree | undefined
  list(plural: string, namespace?: string): readonly Tree[]
  /** Resolves with the object as soon as it is so, looking at every change. */
  until(
    plural: string,
    name: { readonly namespace?: string; readonly name: string },
    is: (object: Tree | undefined) => boolean,
  ): Promise<Tree | undefined>
  /** All writes by anybody but the administrator, also those that were refused or changed nothing. */
  readonly writes: readonly Write[]
  /** All requests over the network. */
  readonly requests: readonly About[]
  readonly faults: Faults
  readonly certManager: CertManager
  readonly double: Double
  close(): Promise<void>
}

const administrator: User = { username: 'system:admin', groups: ['system:masters', 'system:authenticated'] }

export const openCluster = async (
  t: { teardown(close: () => Promise<void>): unknown },
  options: ClusterOptions = {},
): Promise<Cluster> => {
  let issuer = ''
  const { release = '1.36', now = () => new Date() } = options
  const double = openDouble({ release, now, issuer: () => issuer })
  furnish(double, options)
  const table = openFaults()
  const endpoint = await listen(double.server, table)
  issuer = endpoint.url
  const admin = double.people.tokenFor(administrator)
  const tokenOf = (account: string, more?: TokenOptions): string => {
    ensureAccount(double, account)
    return double.people.tokenOf(account, more)
  }
  const as = (token = admin): Client => clientOf(double, token)
  const certManager = openCertManager(double, as(tokenOf('cert-manager/cert-manager')))
  const cluster: Cluster = {
    url: endpoint.url,
    ca: endpoint.ca,
    tokenOf,
    tokenFor: double.people.tokenFor,
    kubeconfig: (path, account, more) => {
      writeFileSync(path, JSON.stringify(kubeconfigOf(endpoint, tokenOf(account, more), account)), { mode: 0o600 })
      return path
    },
    podFolder: (path, account, more) => {
      mkdirSync(path, { recursive: true })
      writeFileSync(join(path, 'token'), tokenOf(account, more))
      writeFileSync(join(path, 'ca.crt'), endpoint.ca)
      writeFileSync(join(path, 'namespace'), account.split('/')[0] ?? '')
      return path
    },
    as,
    apply: (object) => applyObject(double, as(), object),
    remove: async (plural, namespace, name) => {
      const path = pathOf(resourceBy(double, plural), namespace, name)
      assertDone(await as().request('DELETE', path))
    },
    get: (plural, namespace, name) => {
      const resource = resourceBy(double, plural)
      const found = double.store.find(resource.storage, namespace, name)
      return found === undefined ? undefined : copy(shown(found, resource))
    },
    list: (plural, namespace = '') => {
      const resource = resourceBy(double, plural)
      const all = double.store.all(resource.storage).map((object) => copy(shown(object, resource)))
      return all.filter((object) => namespace === '' || namespaceOf(object) === namespace)
    },
    until: (plural, { namespace = '', name }, is) => until(double, resourceBy(double, plural), { namespace, name, is }),
    get writes() {
      return double.writes.filter(({ actor }) => actor !== administrator.username)
    },
    requests: endpoint.requests,
    faults: faultsOf(double, endpoint, table),
    certManager,
    double,
    close: async () => {
      certManager.stop()
      await endpoint.close()
    },
  }
  t.teardown(() => cluster.close())
  return cluster
}

const furnish = (double: Double, options: ClusterOptions): void => {
  const { definitions = recordedDefinitions(), rbac = recordedRbac() } = options
  const names = ['team-a', 'team-b', 'chancery-system', ...(options.namespaces ?? [])]
  for (const name of names) ensureNamespace(double, name)
  for (const definition of definitions) {
    const established = structuredClone(definition)
    put(established, ['status', 'conditions'], [{ type: 'Established', status: 'True' }])
    double.seed(established)
  }
  for (const object of rbac) {
    double.seed(object)
    for (const { kind, namespace, name } of treesAt(object, 'subjects'))
      if (kind === 'ServiceAccount') ensureAccount(double, `${String(namespace)}/${String(name)}`)
  }
}

const ensureNamespace = ({ store, seed }: Double, name: string): void => {
  if (store.find('namespaces', '', name) === undefined)
    seed({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: { 'kubernetes.io/metadata.name': name } } })
}

const ensureAccount = (double: Double, account: string): void => {
  const [namespace = '', name = ''] = account.split('/')
  ensureNamespace(double, namespace)
  if (double.store.find('serviceaccounts', namespace, name) === undefined)
    double.seed({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } })
}

export const recordedDefinitions = (): readonly Tree[] =>
  ['01-apply-chanceryissuers', '02-apply-chanceryclusterissuers'].map(
    (name) => JSON.parse(readFileSync(join(folder, `v1.36/crds/${name}.json`), 'utf8')).request.body,
  )

export const recordedRbac = (): readonly Tree[] => JSON.parse(readFileSync(join(folder, 'rbac.json'), 'utf8')).items

const kubeconfigOf = ({ url, ca }: Endpoint, token: string, account: string): Tree => ({
  apiVersion: 'v1',
  kind: 'Config',
  clusters: [
    { name: 'double', cluster: { server: url, 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
  ],
  users: [{ name: account, user: { token } }],
  contexts: [{ name: 'double', context: { cluster: 'double', user: account, namespace: account.split('/')[0] ?? '' } }],
  'current-context': 'double',
})

const clientOf = ({ server }: Double, token: string): Client => ({
  request: async (method, path, body, { query = {}, contentType = 'application/json' } = {}) => {
    const answered = await server.handle({
      method,
      path,
      query: new URLSearchParams(query),
      headers: { authorization: `Bearer ${token}`, 'content-type': contentType, 'user-agent': 'kubectl/v1.36.3' },
      body: body === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(body)),
    })
    // What is stored is nobody's to change.
    return { ...answered, body: copy(answered.body) }
  },
})

const applyObject = async (double: Double, client: Client, object: Tree): Promise<Tree> => {
  const resource = double.catalogue
    .all()
    .find((one) => one.kind === object['kind'] && apiVersionOf(one) === object['apiVersion'])
  if (resource === undefined) throw new Error(`no kind ${textAt(object, 'kind')} in ${textAt(object, 'apiVersion')}`)
  const { status, ...rest } = object
  const path = pathOf(resource, namespaceOf(object), nameOf(object))
  const options = { query: { fieldManager: 'test', force: 'true' }, contentType: 'application/apply-patch+yaml' }
  const applied = assertDone(await client.request('PATCH', path, rest, options))
  if (status === undefined || !('status' in resource.reset)) return applied
  const { apiVersion = '', kind = '' } = object
  const metadata = { name: nameOf(object), ...(resource.namespaced ? { namespace: namespaceOf(object) } : {}) }
  return assertDone(await client.request('PATCH', `${path}/status`, { apiVersion, kind, metadata, status }, options))
}

const assertDone = ({ status, body }: Answered): Tree => {
  if (status >= 400) throw new Error(`${status} ${typeof body === 'string' ? body : textAt(body, 'message')}`)
  return treeAt(body)
}

/** By its plural, or `plural.group` where two groups have it. */
const resourceBy = ({ catalogue }: Double, plural: string): Resource => {
  const found = catalogue
    .all()
    .find((one) => [one.plural, `${one.plural}.${one.group}`].includes(plural) && one.rules.show === undefined)
  if (found === undefined) throw new Error(`no kind ${plural}`)
  return found
}

export const pathOf = (resource: Resource, namespace: string, name = ''): string =>
  [
    resource.group === '' ? '/api' : '/apis',
    apiVersionOf(resource),
    ...(resource.namespaced && namespace !== '' ? ['namespaces', namespace] : []),
    resource.plural,
    ...(name === '' ? [] : [name]),
  ].join('/')

const until = (
  { store }: Double,
  resource: Resource,
  {
    namespace,
    name,
    is,
  }: { readonly namespace: string; readonly name: string; readonly is: (object: Tree | undefined) => boolean },
): Promise<Tree | undefined> => {
  const look = (): Tree | undefined => {
    const found = store.find(resource.storage, namespace, name)
    return found === undefined ? undefined : copy(shown(found, resource))
  }
  if (is(look())) return Promise.resolve(look())
  return new Promise((resolve) => {
    const stop = store.follow(({ kind, object }) => {
      if (kind !== resource.storage || nameOf(object) !== name || !is(look())) return
      stop()
      resolve(look())
    })
  })
}

const faultsOf = ({ store }: Double, endpoint: Endpoint, table: ReturnType<typeof openFaults>): Faults => ({
  add: table.add,
  partition: (actor) => {
    const fault = table.add('drop', actor === undefined ? {} : { when: { actor } })
    endpoint.cutAll(actor)
    return () => fault.end()
  },
  closeWatches: (how = 'end') => {
    for (const watch of endpoint.watches) watch[how]()
  },
  expireWatches: () => {
    store.compact()
    const status = failure(410, 'Expired', `too old resource version: ${store.version()} (${store.oldest()})`).body
    for (const watch of endpoint.watches) watch.expire(treeAt(status))
  },
  holdWatches: () => {
    const releases = [...endpoint.watches].map((watch) => watch.hold())
    return () => {
      for (const release of releases) release()
    }
  },
})
