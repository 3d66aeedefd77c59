/** The real controller between a cluster and a real Chancery, with the rights that the manifests give it. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { Registry } from 'prom-client'
import { parseAllDocuments } from 'yaml'

import { readRequest } from '../../src/cli/controller.ts'
import { isSecret } from '../../src/db/secrets.ts'
import { ApiFault, openApi } from '../../src/kubernetes/api/client.ts'
import { type Controller, openController } from '../../src/kubernetes/controller.ts'
import type { ControllerSettings } from '../../src/kubernetes/settings.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { employ } from '../http/people.ts'
import { type Cluster, type ClusterOptions, openCluster } from './cluster.ts'
import { type Front, openFront } from './front.ts'
import { condition, type Tree, textAt, uidOf } from './values.ts'

export interface Running {
  readonly cluster: Cluster
  readonly service: TestService
  readonly front: Front
  /** The token in the Secret `chancery` of team-a and of chancery-system. */
  readonly token: string
  readonly controllers: readonly RunningController[]
  /** Another one, with the same lease. */
  start(change?: Partial<ControllerSettings>): Promise<RunningController>
  /** An issuer in team-a called default, or another one. */
  issuer(change?: { readonly kind?: string; readonly name?: string; readonly spec?: object }): Promise<Tree>
  /** A request of team-a, approved. Its issuer is `default`. */
  ask(name: string, more?: object): Promise<Tree>
  /** Resolves with the request once it is Ready, or not for this reason. */
  ended(name: string, reason: string): Promise<Tree>
  /** What Chancery has issued by the profile of the tests. */
  issued(): Promise<readonly { readonly serial: string }[]>
}

export interface RunningController extends Controller {
  readonly account: string
  readonly metrics: () => Promise<string>
  /** As kill -9 does: nothing is ended, nothing given back. */
  kill(): Promise<void>
  /** From now on its calls to the API server go nowhere; what is under way stays so. */
  cut(): void
  /** As if it had been stopped for so long, in milliseconds. */
  pass(ms: number): void
  /** Its clock goes wrong by so much, in milliseconds. */
  skew(ms: number): void
}

type Teardown = Parameters<typeof openCluster>[0]

export interface RunningOptions {
  readonly settings?: Partial<ControllerSettings>
  readonly cluster?: ClusterOptions
  /** None is started. */
  readonly idle?: boolean
  /** How often all objects are named again; every ten minutes if left out. */
  readonly resyncMs?: number
  /** Whoever dies has a lease of a second; else one that a busy machine does not lose, after which all begins again. */
  readonly dies?: boolean
}

export const openRunning = async (t: Teardown, options: RunningOptions = {}): Promise<Running> => {
  const cluster = await openCluster(t, {
    definitions: manifests('crds/chanceryissuers', 'crds/chanceryclusterissuers'),
    rbac: rights,
    ...options.cluster,
  })
  // What a busy machine takes is no fault of the key.
  const service = await openTestService(t as never, {
    CHANCERY_SIGNING_DEADLINE: '20s',
    CHANCERY_REQUEST_DEADLINE: '30s',
  })
  await service.request('PUT', '/v1/profiles/cluster', { body: profile, headers: { 'if-none-match': '*' } })
  const token = await employ(service, 'cluster', 'requester', { profiles: ['cluster'], onBehalfOf: {} } as never)
  const front = await openFront(t, service)
  for (const namespace of ['team-a', 'chancery-system'])
    await cluster.apply({
      ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'chancery', namespace } },
      data: { token: Buffer.from(token).toString('base64') },
    })
  const controllers: RunningController[] = []
  const start = async (change: Partial<ControllerSettings> = {}): Promise<RunningController> => {
    const controller = await startController(cluster, { ...options.settings, ...change }, options)
    controllers.push(controller)
    t.teardown(() => controller.close())
    return controller
  }
  if (!options.idle) await start()
  return {
    ...{ cluster, service, front, token, controllers, start },
    issuer: async ({ kind = 'ChanceryIssuer', name = 'default', spec = {} } = {}) =>
      cluster.apply({
        apiVersion: 'chancery.dev/v1alpha1',
        kind,
        metadata: kind === 'ChanceryIssuer' ? { name, namespace: 'team-a' } : { name },
        spec: {
          ...{ url: front.url, caBundle: Buffer.from(service.ca).toString('base64'), profile: 'cluster' },
          ...{ auth: { tokenSecretRef: { name: 'chancery' } }, ...spec },
        },
      } as Tree),
    ask: async (name, more = {}) => {
      const issuer = { kind: 'ChanceryIssuer', name: 'default' }
      return cluster.certManager.approve(await cluster.certManager.create({ name, issuer, ...more }))
    },
    ended: async (name, reason) => {
      const found = await cluster.until(
        'certificaterequests',
        { namespace: 'team-a', name },
        (object) => readyOf(object) === reason,
      )
      return found ?? {}
    },
    issued: async () => (await service.request('GET', '/v1/certificates?profile=cluster&limit=1000')).json.items,
  }
}

/** The reason of Ready. */
export const readyOf = (object: Tree | undefined): string | undefined => {
  const reason = textAt(condition(object ?? {}, 'Ready'), 'reason')
  return reason === '' ? undefined : reason
}

export const certificateOf = (request: Tree): X509Certificate =>
  new X509Certificate(Buffer.from(textAt(request, 'status', 'certificate'), 'base64'))

/** As Chancery writes it. */
export const serialOf = (request: Tree): string => certificateOf(request).serialNumber.toLowerCase().padStart(32, '0')

export const messageOf = (request: Tree): string => textAt(condition(request, 'Ready'), 'message')

/** Of the events for this reason about what is in team-a. */
export const notesOf = ({ cluster }: Running, reason: string): readonly string[] =>
  cluster
    .list('events.events.k8s.io', 'team-a')
    .filter((event) => textAt(event, 'reason') === reason)
    .map((event) => textAt(event, 'note'))

/** Resolves with the Ready condition of an issuer of team-a once it has this status. */
export const issuerIs = async ({ cluster }: Running, status: string, name = 'default'): Promise<Tree> => {
  const is = (issuer: Tree | undefined): boolean => textAt(condition(issuer ?? {}, 'Ready'), 'status') === status
  const issuer = await cluster.until('chanceryissuers', { namespace: 'team-a', name }, is)
  return condition(issuer ?? {}, 'Ready') ?? {}
}

/** How many of these objects wait so, as the first controller measures it. */
export const queued = async (
  { controllers: [controller] }: Running,
  state: string,
  resource = 'certificaterequests',
): Promise<number> => {
  const line = `chancery_controller_queue{resource="${resource}",state="${state}"} `
  const found = ((await controller?.metrics()) ?? '').split('\n').find((one) => one.startsWith(line))
  return Number(found?.slice(line.length))
}

/** Of requests, by the controller. */
export const statusWrites = (running: Running) =>
  writesOf(running, 'certificaterequests').filter(({ actor }) => actor.includes('chancery'))

export const writesOf = ({ cluster }: Running, resource: string, subresource = 'status') =>
  cluster.writes.filter((write) => write.resource === resource && write.subresource === subresource)

const startController = async (
  cluster: Cluster,
  change: Partial<ControllerSettings>,
  { resyncMs = 600_000, dies = false }: RunningOptions,
): Promise<RunningController> => {
  const account = 'chancery-system/chancery-controller'
  const token = cluster.tokenOf(account)
  const registry = new Registry()
  let alive = true
  let passed = 0
  let skewed = 0
  const api = openApi(async () => {
    if (!alive) throw new ApiFault(0, 'nobody is there')
    return { server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } }
  })
  const killed = new AbortController()
  const controller = await openController({
    settings: { ...settings, ...change },
    api: {
      call: (method, path, call = {}) => api.call(method, path, { ...call, signal: both(killed.signal, call.signal) }),
      lines: (path, call) => api.lines(path, { ...call, signal: both(killed.signal, call.signal) }),
      close: api.close,
    },
    ...{ registry, readRequest, isToken: isSecret, log: quiet, identity: crypto.randomUUID() },
    ...{ clock: () => new Date(Date.now() + skewed), now: () => performance.now() + passed, random: Math.random },
    times: {
      lease: {
        ...(dies ? { lasts: 1_000, renewWithin: 600 } : { lasts: 30_000, renewWithin: 20_000 }),
        retryEvery: 100,
      },
      ...{ firstMs: 20, mostMs: 200, watchSeconds: 60, resyncMs },
    },
  })
  const close = controller.close
  return {
    account,
    get url() {
      return controller.url
    },
    get leads() {
      return controller.leads
    },
    get ready() {
      return controller.ready
    },
    metrics: () => registry.metrics(),
    close,
    cut: () => {
      alive = false
    },
    pass: (ms) => {
      passed += ms
    },
    skew: (ms) => {
      skewed += ms
    },
    kill: async () => {
      alive = false
      killed.abort(new Error('killed'))
      await close()
    },
  }
}

const both = (one: AbortSignal, other: AbortSignal | undefined): AbortSignal =>
  other ? AbortSignal.any([one, other]) : one

export const manifests = (...files: readonly string[]): readonly Tree[] =>
  files.flatMap((file) =>
    parseAllDocuments(readFileSync(join(import.meta.dirname, `../../deploy/kubernetes/base/${file}.yaml`), 'utf8')).map(
      (document) => document.toJS() as Tree,
    ),
  )

const isRight = ({ kind }: Tree): boolean => String(kind).startsWith('Role') || String(kind).startsWith('ClusterRole')

/** And its Secrets, in the two namespaces that have some. */
export const rights: readonly Tree[] = [
  ...manifests(
    'controller-rbac',
    ...['csr-signers', 'kubelet-serving', 'pod-certificates'].map((name) => `../components/${name}/rbac`),
  ).filter(isRight),
  ...['team-a', 'chancery-system'].map(
    (namespace): Tree => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: 'chancery-controller-secrets', namespace },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'chancery-controller-secrets' },
      subjects: [{ kind: 'ServiceAccount', name: 'chancery-controller', namespace: 'chancery-system' }],
    }),
  ),
]

const settings: ControllerSettings = {
  listen: { host: '127.0.0.1', port: 0 },
  namespace: 'chancery-system',
  lease: 'chancery-controller',
  secretNamespace: 'chancery-system',
  certManager: true,
  signers: [],
  approveKubeletServing: false,
  podCertificates: false,
  servers: [],
  recheck: 300,
  retryFor: undefined,
  concurrency: 16,
}

const profile = {
  name: 'cluster',
  description: 'whatever the tests ask for',
  authority: 'default',
  validity: { default: '1d', max: '90d', over: 'shorten' },
  keys: [{ rsa: { min: 2048, max: 4096 } }, { ec: ['P-256', 'P-384'] }, { ed25519: true }],
  subject: { commonName: { from: 'csr', orName: true, match: '**', required: false }, others: 'drop' },
  names: { dns: { allow: ['**.test', '**.svc'], deny: ['denied.example.test'] }, require: ['dns'] },
  keyUsage: ['digitalSignature', 'keyEncipherment'],
  extendedKeyUsage: ['serverAuth', 'clientAuth'],
  revocation: ['crl', 'ocsp'],
}

export const until = async (is: () => boolean): Promise<void> => {
  while (!is()) await sleep(5)
}

export const leads = (controller: RunningController): Promise<void> => until(() => controller.leads)

/** One certificate for this request, and in it. */
export const assertOne = async (
  t: { same(found: unknown, wanted: unknown): unknown },
  running: Running,
  name: string,
): Promise<void> => {
  const done = await running.ended(name, 'Issued')
  const found = await running.service.request('GET', `/v1/certificates?originObject=${uidOf(done)}`)
  const serials = found.json.items.map(({ serial }: { readonly serial: string }) => serial)
  t.same(serials, [serialOf(done)])
}
