/** `chancery controller`: a process of its own beside a cluster, without a database and without keys. */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Logger } from 'pino'
import type { Registry } from 'prom-client'

import { isSecret } from '../db/secrets.ts'
import { isProblem } from '../errors.ts'
import type { KubernetesApi } from '../kubernetes/api/client.ts'
import type { ReadRequest } from '../kubernetes/decide/asking.ts'
import { tellsNamespace } from '../kubernetes/decide/pod.ts'
import { isKnownSigner } from '../kubernetes/decide/signing.ts'
import {
  ControllerDocument,
  type ControllerSettings,
  type ServerSettings,
  type SignerSettings,
} from '../kubernetes/settings.ts'
import { Failure } from '../lib/failure.ts'
import { parseDuration } from '../policy/duration.ts'
import type { ShapeFault } from '../policy/shape.ts'
import { parseRequest } from '../x509/csr.ts'
import { parsePem } from '../x509/pem.ts'
import { assertNoFault, readSettingsFile } from './settings-file.ts'
import { untilStopped } from './stop.ts'

/** Works until SIGTERM or SIGINT; a second signal, or fifteen seconds, ends it at once. Without a file, by its defaults. */
export const runController = async (
  path: string | undefined,
  openLog: (level: string) => Logger,
  stop: AbortSignal,
): Promise<void> => {
  const { document, folder } = await readControllerDocument(path)
  const log = openLog(document.log ?? 'info')
  // Half a second, and 85 MB: for nobody but this command.
  const [{ Registry, collectDefaultMetrics }, { loadCluster }] = await Promise.all([
    import('prom-client'),
    import('../kubernetes/api/cluster.ts'),
  ])
  const kubeconfig = document.kubeconfig === undefined ? undefined : resolve(folder, document.kubeconfig)
  const cluster = await loadCluster(kubeconfig).catch((error: Error) => {
    // What follows the first line are lines of the file, which may hold a token or a key; as may what is quoted before its place.
    const [line = ''] = error.message.split('\n', 1)
    const reason = line.replace(/ (?:"|!<).*(?= \(\d+:\d+\)$)/, '')
    const where = kubeconfig === undefined || reason.includes(kubeconfig) ? '' : `${kubeconfig}: `
    throw new Failure('usage', `The cluster cannot be reached: ${where}${reason}.`)
  })
  const settings = settingsOf(document, folder, cluster.namespace)
  const [{ openApi }, { openController }] = await Promise.all([
    import('../kubernetes/api/client.ts'),
    import('../kubernetes/controller.ts'),
  ])
  const api = openApi(cluster.access)
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const asking = { listen: settings.listen, registry, api, log, stop }
  const podCertificates = settings.podCertificates && (await servesPods(asking).catch(cannotStart))
  if (stop.aborted) return log.info({ event: 'controller.stopped' }, 'stopped')
  const controller = await openController({
    ...{ settings: { ...settings, podCertificates }, registry, readRequest, isToken: isSecret, log, api },
    identity: `${hostname()}_${randomUUID()}`,
    ...{ clock: () => new Date(), now: () => performance.now(), random: Math.random },
  }).catch(cannotStart)
  log.info({ event: 'controller.started', url: controller.url, namespace: settings.namespace }, 'watching')
  const signal = await untilStopped(stop)
  log.info({ event: 'controller.stopping', signal }, 'ending what was begun, then stopping')
  await controller.close()
  log.info({ event: 'controller.stopped' }, 'stopped')
}

const cannotStart = (error: Error): never => {
  throw new Failure('usage', `The controller cannot start: ${error.message}.`)
}

interface Asking {
  readonly listen: ControllerSettings['listen']
  readonly registry: Registry
  readonly api: KubernetesApi
  readonly log: Logger
  readonly stop: AbortSignal
}

/**
 * Asked until the API server answers: what it does not have would be waited for in vain. A probe that nobody answered meanwhile would
 * have us killed, and later and later started again.
 */
const servesPods = async ({ listen, registry, api, log, stop }: Asking): Promise<boolean> => {
  const [{ whyNoPodRequests }, { openHealth }] = await Promise.all([
    import('../kubernetes/reconcile/pods.ts'),
    import('../kubernetes/health.ts'),
  ])
  const missing = (): readonly string[] => ['the API server has not said yet whether it has PodCertificateRequests']
  const health = await openHealth({ listen, registry, missing })
  try {
    while (!stop.aborted) {
      try {
        const why = await whyNoPodRequests(api, stop)
        if (why !== undefined) log.warn({ event: 'pods.absent' }, `no pods are served: ${why}`)
        return why === undefined
      } catch (err) {
        if (stop.aborted) break
        log.warn({ event: 'pods.unknown', err }, 'the API server does not say what it serves; it is asked again')
        await sleep(discoverEveryMs, undefined, { signal: stop }).catch(() => {})
      }
    }
    return false
  } finally {
    await health.close()
  }
}

interface ReadDocument {
  readonly document: ControllerDocument
  /** What its paths are relative to. */
  readonly folder: string
}

/** Throws a usage failure with every fault and its place. */
export const readControllerDocument = async (path: string | undefined): Promise<ReadDocument> => {
  if (path === undefined) return { document: {}, folder: process.cwd() }
  const file = { path, whose: 'the controller', page: 'docs/controller.md' }
  const document = await readSettingsFile<ControllerDocument>(file, ControllerDocument)
  const { signers = [], servers = [], recheck } = document
  assertNoFault(file, [
    ...doubles('signers', signers, ({ name }) => name),
    ...unknownSigners(signers),
    ...podsOfNobody(document),
    ...sharedNames(document),
    ...noUrls(servers),
    ...doubles('servers', servers, ({ url }) => URL.parse(url)?.origin ?? url),
    ...noPort(document.listen),
    ...(recheck !== undefined && parseDuration(recheck) > mostRecheck
      ? [{ field: '/recheck', value: recheck, reason: 'is longer than 7d' }]
      : []),
  ])
  return { document, folder: dirname(resolve(path)) }
}

const doubles = <Item>(field: string, items: readonly Item[], nameOf: (item: Item) => string): readonly ShapeFault[] =>
  items.flatMap((item, i) =>
    items.findIndex((other) => nameOf(other) === nameOf(item)) === i
      ? []
      : [{ field: `/${field}/${i}`, value: nameOf(item), reason: 'occurs twice' }],
  )

/** Of the form of one, and none: a port beyond all ports, a bracket without its other. */
const noUrls = (servers: readonly ServerSettings[]): readonly ShapeFault[] =>
  servers.flatMap(({ url }, i) =>
    URL.canParse(url) ? [] : [{ field: `/servers/${i}/url`, value: url, reason: 'is not a URL' }],
  )

/** Which setting it is, Node does not say. */
const noPort = (listen = ''): readonly ShapeFault[] =>
  Number(listen.slice(listen.lastIndexOf(':') + 1)) <= 65_535
    ? []
    : [{ field: '/listen', value: listen, reason: 'has a port above 65535' }]

/** Found now, and not by each of its requests as it fails. */
const unknownSigners = (signers: readonly SignerSettings[]): readonly ShapeFault[] =>
  signers.flatMap(({ name }, i) =>
    isKnownSigner(name)
      ? []
      : [
          {
            field: `/signers/${i}/name`,
            value: name,
            reason: 'is a signer of Kubernetes itself whose rules are not known',
          },
        ],
  )

/** Their kubelets would wait for a signer that looks at none of them. */
const podsOfNobody = ({ podCertificates, signers = [] }: ControllerDocument): readonly ShapeFault[] =>
  podCertificates && !signers.some(({ podNames }) => podNames)
    ? [{ field: '/podCertificates', value: 'true', reason: 'serves no pod: none of the signers has podNames' }]
    : []

/** Whoever may choose a namespace's name, or an account's, would choose to be another namespace's. */
const sharedNames = ({ podCertificates, signers = [] }: ControllerDocument): readonly ShapeFault[] =>
  (podCertificates ? signers : []).flatMap(({ podNames = {} }, i) =>
    Object.entries(podNames).flatMap(([kind, templates]) =>
      templates.flatMap((value, at) =>
        tellsNamespace(value) ? [] : [{ field: `/signers/${i}/podNames/${kind}/${at}`, value, reason: sharedReason }],
      ),
    ),
  )

export const settingsOf = (
  document: ControllerDocument,
  folder: string,
  clusterNamespace: string | undefined,
): ControllerSettings => {
  const namespace = document.namespace ?? clusterNamespace
  if (namespace === undefined)
    throw new Failure('usage', 'Neither the settings nor the cluster say which namespace is ours: say it as namespace.')
  const [, six, other, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]+)):(\d+)$/.exec(document.listen ?? '0.0.0.0:8081') ?? []
  const at = (file: string): string => resolve(folder, file)
  return {
    listen: { host: six ?? other ?? '', port: Number(port) },
    namespace,
    lease: document.lease ?? 'chancery-controller',
    secretNamespace: document.secretNamespace ?? namespace,
    certManager: document.certManager ?? true,
    signers: document.signers ?? [],
    approveKubeletServing: document.approveKubeletServing ?? false,
    podCertificates: document.podCertificates ?? false,
    servers: (document.servers ?? []).map(({ url, caFile, token }) => ({
      url,
      ...(caFile !== undefined && { caFile: at(caFile) }),
      ...(token && { token: { ...token, file: at(token.file) } }),
    })),
    recheck: parseDuration(document.recheck ?? '5m'),
    retryFor: document.retryFor === undefined ? undefined : parseDuration(document.retryFor),
    concurrency: document.concurrency ?? 16,
  }
}

/** By the parser of the service itself: what it cannot read, nobody signs. */
export const readRequest: ReadRequest = (pem) => {
  try {
    const { key, subject, names } = parseRequest(parsePem(pem, 'CERTIFICATE REQUEST'))
    const valuesOf = (type: string): readonly string[] =>
      subject.filter((attribute) => attribute.type === type).map(({ value }) => value)
    return {
      spki: key.spki,
      isSubjectEmpty: subject.length === 0,
      commonName: valuesOf('commonName')[0],
      organizations: valuesOf('organization'),
      hasOtherAttributes: subject.some(({ type }) => type !== 'commonName' && type !== 'organization'),
      names,
    }
  } catch (error) {
    if (!isProblem(error)) throw error
    return { fault: `${error.detail} (${error.code})` }
  }
}

/** Seconds. Timers end at once beyond 24 days. */
const mostRecheck = 7 * 86_400
const discoverEveryMs = 2_000
const sharedReason =
  'may be the name of pods of two namespaces: there must be {namespace}, parted from the others by a slash, or by a dot with all of them on one side'
