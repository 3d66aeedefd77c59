/** What deploy/kubernetes would put into a cluster: rendered by kubectl, and looked at as a whole. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import t, { type Test } from 'tap'

import { readControllerDocument } from '../../src/cli/controller.ts'
import { loadConfig } from '../../src/config/config.ts'
import { everything, home, type Json, type Manifest, namesIn, type PodTemplate, podsOf } from './manifests.ts'

t.setTimeout(300_000)
const rendered = await everything()

const named = (place: string, kind: string, name: RegExp | string): Manifest => {
  const found = rendered.get(place)?.filter((object) => object.kind === kind && matches(name, object.metadata.name))
  if (found?.length !== 1 || !found[0]) throw new Error(`${place} has ${found?.length} of ${kind} ${name}`)
  return found[0]
}
const matches = (name: RegExp | string, value: string): boolean =>
  typeof name === 'string' ? name === value : name.test(value)

const clusterKinds = new Set([
  'Namespace',
  'CustomResourceDefinition',
  'ClusterRole',
  'ClusterRoleBinding',
  'ChanceryClusterIssuer',
  'Bundle',
  'ValidatingWebhookConfiguration',
])
const production = ['overlays/mounted-keys', 'overlays/pkcs11', 'overlays/kubelet-serving'] as const

t.test('everything renders, and nothing twice', async (t) => {
  t.strictSame((await namesIn('overlays')).toSorted(), ['kubelet-serving', 'mounted-keys', 'pkcs11', 'trial'])
  for (const [place, objects] of rendered) {
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`)
    t.equal(new Set(names).size, names.length, place)
    t.ok(names.length > 0, place)
    // kustomize knows neither our kinds nor others' and puts a namespace on all of them, which the API server refuses.
    for (const { kind, metadata } of objects)
      t.equal(metadata.namespace === undefined, clusterKinds.has(kind), `${place}: ${kind} ${metadata.name}`)
  }
})

t.test('every container has no more rights than it needs', (t) => {
  let count = 0
  for (const [place, objects] of rendered) {
    for (const { owner, spec } of objects.flatMap(podsOf)) {
      const who = `${place}: ${owner}`
      t.match(spec, { enableServiceLinks: false, automountServiceAccountToken: Boolean }, who)
      t.equal(spec.automountServiceAccountToken, owner === 'Deployment chancery-controller', `${who}: token`)
      for (const shared of ['hostNetwork', 'hostPID', 'hostIPC']) t.notOk(spec[shared], `${who}: ${shared}`)
      t.match(spec.securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } }, who)
      const { runAsUser, runAsGroup } = spec.securityContext
      // There the cluster says who it is, and nobody else may: deploy-distributions.test.ts.
      if (place === 'components/openshift') t.strictSame([runAsUser, runAsGroup], [undefined, undefined], who)
      else t.ok(runAsUser > 0 && runAsGroup > 0, who)
      for (const volume of spec.volumes ?? []) t.notOk(volume.hostPath, `${who}: ${volume.name}`)
      for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
        count += 1
        t.strictSame(
          container.securityContext,
          { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
          `${who}: ${container.name}`,
        )
        const { requests, limits } = container.resources
        for (const bounds of [requests, limits])
          t.match(bounds, { cpu: String, memory: /^\d+Mi$/ }, `${who}: ${container.name}`)
      }
    }
  }
  t.ok(count > 20, `${count} containers`)
  t.end()
})

t.test('the images are of this version', async (t) => {
  const { version } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8')) as { version: string }
  for (const place of [...production, 'overlays/trial'])
    for (const { owner, spec } of (rendered.get(place) ?? []).flatMap(podsOf))
      for (const { image } of [...(spec.initContainers ?? []), ...spec.containers])
        if (owner !== 'StatefulSet postgres') t.equal(image, `chancery:${version}`, `${place}: ${owner}`)
})

// ---- settings

/** What a container of ours would read, with its secrets where they are here. */
const environmentOf = async (t: Test, place: string, { spec }: PodTemplate): Promise<Record<string, string>> => {
  const [container] = spec.containers
  const env: Record<string, string> = {}
  for (const { configMapRef } of container.envFrom ?? [])
    Object.assign(env, named(place, 'ConfigMap', configMapRef.name)['data'])
  for (const { name, value } of container.env ?? []) env[name] = value
  const folder = await mkdtemp(join(tmpdir(), 'chancery-manifest-'))
  t.teardown(() => rm(folder, { recursive: true }))
  for (const [name, path] of Object.entries(env)) {
    if (!name.endsWith('_FILE')) continue
    // The others are the signer's, which does not run there: whoever reads one all the same fails for want of it.
    if (!container.volumeMounts.some(({ mountPath }: Json) => path.startsWith(`${mountPath}/`))) continue
    const here = join(folder, path)
    await mkdir(dirname(here), { recursive: true })
    await writeFile(here, `${secretTexts[name]}\n`, { mode: 0o400 })
    await chmod(here, 0o400)
    env[name] = here
  }
  return env
}

const secretTexts: Readonly<Record<string, string>> = {
  CHANCERY_DATABASE_URL_FILE: 'postgresql://chancery:pw@db.example.com/chancery?sslmode=verify-full',
  CHANCERY_MIGRATION_URL_FILE: 'postgresql://chancery_owner:pw@db.example.com/chancery?sslmode=verify-full',
  CHANCERY_KEY_PASSPHRASE_FILE: 'a passphrase of many letters',
  CHANCERY_PKCS11_PIN_FILE: '4711',
}

const podOf = (place: string, kind: string, name: string): PodTemplate => {
  const [pod] = podsOf(named(place, kind, name))
  if (!pod) throw new Error(`${name} makes no pod`)
  return pod
}

t.test('the settings of each overlay are settings, and do for production', async (t) => {
  for (const place of production) {
    const env = await environmentOf(t, place, podOf(place, 'StatefulSet', 'chancery'))
    t.equal(env['CHANCERY_MODE'], 'production', place)
    const config = await loadConfig(env)
    t.equal(config.database.migrationUrl, undefined, `${place}: the owner is not known to the service`)
    t.ok(config.keys.allowSoftware === (place === 'overlays/mounted-keys'), place)
    await loadConfig(env, 'sign')
  }
  const trial = await loadConfig(
    await environmentOf(t, 'overlays/trial', podOf('overlays/trial', 'StatefulSet', 'chancery')),
  )
  t.equal(trial.mode, 'development')
})

t.test('the migration has the owner’s Secret, and nobody else has', async (t) => {
  for (const place of production) {
    const env = await environmentOf(t, place, podOf(place, 'CronJob', 'chancery-migrate'))
    const { database } = await loadConfig(env, 'migrate')
    t.match(database, { url: /chancery:/, migrationUrl: /chancery_owner:/ }, place)
    for (const { owner, spec } of (rendered.get(place) ?? []).flatMap(podsOf))
      if (owner !== 'CronJob chancery-migrate') t.notMatch(JSON.stringify(spec), 'chancery-database-owner', owner)
  }
})

t.test('each replica has an anchor of its own, on a disk that outlives it', async (t) => {
  for (const place of production) {
    const set = named(place, 'StatefulSet', 'chancery')
    const pod = podOf(place, 'StatefulSet', 'chancery')
    const { roll, dataDir } = await loadConfig(await environmentOf(t, place, pod))
    t.ok(roll.anchor?.startsWith(`${dataDir}/`))
    const [claim] = set['spec'].volumeClaimTemplates
    const mount = pod.spec.containers[0].volumeMounts.find(({ name }: Json) => name === claim.metadata.name)
    t.ok(dataDir.startsWith(`${mount.mountPath}/`), 'in a folder of ours, which nobody else may enter')
    t.match(set['spec'].persistentVolumeClaimRetentionPolicy, { whenDeleted: 'Retain', whenScaled: 'Retain' })
    // Otherwise each start opens private files to the group, and they are refused.
    t.equal(pod.spec.securityContext.fsGroupChangePolicy, 'OnRootMismatch')
  }
})

t.test('the controller’s settings are settings, and what they name is mounted', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-manifest-'))
  t.teardown(() => rm(folder, { recursive: true }))
  for (const [place, objects] of rendered) {
    const settings = objects.find(
      ({ kind, metadata }) => kind === 'ConfigMap' && /^chancery-controller-settings-/.test(metadata.name),
    )
    if (!settings) continue
    const path = join(folder, 'controller.yaml')
    await writeFile(path, settings['data']['controller.yaml'])
    const { document } = await readControllerDocument(path)
    const { spec } = podOf(place, 'Deployment', 'chancery-controller')
    const [container] = spec.containers
    const mounts: readonly string[] = container.volumeMounts.map(({ mountPath }: Json) => mountPath)
    t.ok(mounts.includes(dirname(container.args.at(-1))), place)
    for (const { url, caFile = '', token } of document.servers ?? []) {
      const service = new URL(url)
      t.match(named(place, 'Service', service.hostname.split('.')[0] ?? '')['spec'].ports, [
        { port: Number(service.port) },
      ])
      for (const file of [caFile, token?.file ?? ''])
        t.ok(
          mounts.some((mount) => file.startsWith(`${mount}/`)),
          file,
        )
      const sources = spec.volumes.flatMap(({ projected }: Json) => projected?.sources ?? [])
      t.match(sources, [{ serviceAccountToken: { audience: token?.audience } }], place)
    }
    const secrets = objects.flatMap((object) =>
      podsOf(object).map(({ spec }) => [object.metadata.namespace, spec] as const),
    )
    for (const [namespace, { volumes = [] }] of secrets)
      t.notOk(
        volumes.some(({ secret }: Json) => secret) && namespace === document.secretNamespace,
        `${place}: ${namespace}`,
      )
    const signers = new Set(document.signers?.map(({ name }) => name))
    const may = new Set(signersOf(objects, 'sign'))
    const group = (name: string): string => (may.has(name) ? name : name.replace(/\/.*/, '/*'))
    t.strictSame(new Set([...signers].map(group)), may, `${place}: it may sign what it is told to, and nobody else's`)
    const approves = document.approveKubeletServing ? ['kubernetes.io/kubelet-serving'] : []
    t.strictSame(signersOf(objects, 'approve'), approves, place)
  }
})

// ---- rights

interface Right {
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly verbs: readonly string[]
}

/** What the service account may do by what is rendered, as lines; those within its own namespace say so. */
const rightsOf = (objects: readonly Manifest[], account: string): readonly string[] =>
  objects
    .filter(({ kind, ...binding }) => /^(Cluster)?RoleBinding$/.test(kind) && isSubject(binding['subjects'], account))
    .flatMap((binding) => {
      const { kind, name } = binding['roleRef']
      const role = objects.find((object) => object.kind === kind && object.metadata.name === name)
      const scope = binding.kind === 'RoleBinding' ? ` in ${binding.metadata.namespace}` : ''
      return ((role?.['rules'] ?? []) as readonly Right[]).flatMap((rule) => rightLines(rule, scope))
    })
    .toSorted()

const isSubject = (subjects: readonly Json[] = [], account: string): boolean =>
  subjects.some(({ kind, name }) => kind === 'ServiceAccount' && name === account)

/** kustomize also renames what it takes for the name of a ConfigMap in a role: `chancery-controller` as a lease's name, once. */
const rightLines = ({ apiGroups, resources, resourceNames, verbs }: Right, scope: string): readonly string[] =>
  apiGroups.flatMap((group) =>
    resources.map(
      (resource) =>
        `${verbs.join(',')} ${resource}${group === '' ? '' : `.${group}`}${resourceNames ? ` ${resourceNames.join(',')}` : ''}${scope}`,
    ),
  )

/** The signers of certificates.k8s.io for which our controller may do this. */
const signersOf = (objects: readonly Manifest[], verb: string): readonly string[] =>
  rightsOf(objects, 'chancery-controller')
    .filter((line) => line.includes(' signers.certificates.k8s.io ') && line.split(' ')[0]?.split(',').includes(verb))
    .flatMap((line) => line.split(' ')[2]?.split(',') ?? [])

const usual = [
  'create leases.coordination.k8s.io in chancery-system',
  'create,patch events.events.k8s.io',
  'get,list,watch certificaterequests.cert-manager.io',
  'get,list,watch chanceryclusterissuers.chancery.dev',
  'get,list,watch chanceryissuers.chancery.dev',
  'get,update leases.coordination.k8s.io chancery-controller in chancery-system',
  'patch certificaterequests/status.cert-manager.io',
  'patch chanceryclusterissuers/status.chancery.dev',
  'patch chanceryissuers/status.chancery.dev',
]
const ownSigners = 'chanceryclusterissuers.chancery.dev/*'

t.test('the controller may do what it does, and nothing else', (t) => {
  const more: Readonly<Record<string, readonly string[]>> = {
    'overlays/kubelet-serving': [
      'get,list,watch nodes',
      'get,list,watch certificatesigningrequests.certificates.k8s.io',
      'patch certificatesigningrequests/approval.certificates.k8s.io',
      'patch certificatesigningrequests/status.certificates.k8s.io',
      'approve,sign signers.certificates.k8s.io kubernetes.io/kubelet-serving',
    ],
    'components/kubelet-client': [
      'get,list,watch certificatesigningrequests.certificates.k8s.io',
      'patch certificatesigningrequests/status.certificates.k8s.io',
      'sign signers.certificates.k8s.io kubernetes.io/kube-apiserver-client-kubelet',
    ],
    'components/csr-signers': [
      'get,list,watch certificatesigningrequests.certificates.k8s.io',
      'patch certificatesigningrequests/status.certificates.k8s.io',
      `sign signers.certificates.k8s.io ${ownSigners}`,
    ],
    'components/pod-certificates': [
      'get,list,watch certificatesigningrequests.certificates.k8s.io',
      'get,list,watch podcertificaterequests.certificates.k8s.io',
      'patch certificatesigningrequests/status.certificates.k8s.io',
      'patch podcertificaterequests/status.certificates.k8s.io',
      `sign signers.certificates.k8s.io ${ownSigners}`,
    ],
  }
  for (const place of ['overlays/trial', 'overlays/pkcs11', ...Object.keys(more)])
    t.strictSame(
      rightsOf(rendered.get(place) ?? [], 'chancery-controller'),
      [...usual, ...(more[place] ?? [])].toSorted(),
      place,
    )
  for (const account of ['chancery', 'chancery-migrate'])
    t.strictSame(rightsOf(rendered.get('overlays/pkcs11') ?? [], account), [], account)
  t.end()
})

t.test('cert-manager may approve requests to our issuers, and no role has a wildcard', (t) => {
  t.strictSame(rightsOf(rendered.get('overlays/pkcs11') ?? [], 'cert-manager'), [
    'approve signers.cert-manager.io chanceryissuers.chancery.dev/*,chanceryclusterissuers.chancery.dev/*',
  ])
  for (const [place, objects] of rendered) {
    for (const { kind, metadata, ...role } of objects.filter(({ kind }) => /^(Cluster)?Role$/.test(kind))) {
      const rights = role['rules'] as readonly Right[]
      const words = rights.flatMap(({ apiGroups, resources, verbs }) => [...apiGroups, ...resources, ...verbs])
      t.notOk(words.includes('*'), `${place}: ${kind} ${metadata.name}`)
      const signs = rights.some(({ verbs }) => verbs.includes('sign'))
      const secret = rights.filter(({ resources }) => resources.includes('secrets'))
      const isBound = objects.some(({ roleRef }) => roleRef?.name === metadata.name)
      t.ok(
        !isBound || secret.every(({ resourceNames = [] }) => resourceNames.length > 0),
        `${place}: ${metadata.name}: secrets by name`,
      )
      t.notOk(signs && !/^chancery-/.test(metadata.name), 'whoever signs is us')
    }
  }
  t.end()
})

t.test('who asks makes Certificates and has them tried again, and writes no request', (t) => {
  const { rules } = named('overlays/pkcs11', 'ClusterRole', 'chancery-requester') as unknown as { rules: Right[] }
  t.strictSame(
    rules.flatMap((rule) => rightLines(rule, '')),
    [
      'create,get,list,watch,update,patch,delete certificates.cert-manager.io',
      'update certificates/status.cert-manager.io',
      'get,list,watch certificaterequests.cert-manager.io',
      'get,list,watch chanceryissuers.chancery.dev',
    ],
  )
  t.end()
})

// ---- how they hang together

t.test('what selects pods selects some, and ports have the names that others call', (t) => {
  for (const place of [...production, 'overlays/trial', 'examples/mqtt', 'examples/csi-driver']) {
    const objects = rendered.get(place) ?? []
    const pods = objects.flatMap(podsOf)
    const selected = (labels: Readonly<Record<string, string>>): readonly PodTemplate[] =>
      pods.filter((pod) => Object.entries(labels).every(([key, value]) => pod.labels[key] === value))
    for (const { kind, metadata, spec } of objects) {
      const labels = selectors[kind]?.(spec)
      if (labels === undefined) continue
      const found = selected(labels)
      t.ok(found.length > 0, `${place}: ${kind} ${metadata.name}`)
      if (kind !== 'Service') continue
      const ports = found.flatMap((pod) => pod.spec.containers).flatMap(({ ports = [] }: Json) => ports)
      for (const { targetPort } of spec.ports)
        t.ok(
          ports.some(({ name }: Json) => name === targetPort),
          `${place}: ${metadata.name}: ${targetPort}`,
        )
    }
  }
  t.end()
})

const selectors: Readonly<Record<string, (spec: Json) => Readonly<Record<string, string>> | undefined>> = {
  Service: ({ selector }) => selector,
  PodDisruptionBudget: ({ selector }) => selector.matchLabels,
  NetworkPolicy: ({ podSelector }) => (podSelector.matchLabels ? podSelector.matchLabels : undefined),
  StatefulSet: ({ selector }) => selector.matchLabels,
  Deployment: ({ selector }) => selector.matchLabels,
  DaemonSet: ({ selector }) => selector.matchLabels,
}

t.test(
  'Services let go of replicas that are dead, and of none that cannot issue: status and administration outlive a key',
  (t) => {
    for (const place of [...production, 'overlays/trial']) {
      const services = (rendered.get(place) ?? []).filter(
        ({ kind, spec }) => kind === 'Service' && spec.selector['app.kubernetes.io/name'] === 'chancery',
      )
      t.strictSame(
        services.map(({ metadata }) => metadata.name).toSorted(),
        ['chancery', 'chancery-public', 'chancery-replicas'],
        place,
      )
      // With it, also those on a node that is gone would be sent their share.
      for (const { metadata, spec } of services)
        t.equal(
          spec.publishNotReadyAddresses === true,
          metadata.name === 'chancery-replicas',
          `${place}: ${metadata.name}`,
        )
      const server = (rendered.get(place) ?? []).find(
        ({ kind, metadata }) => kind === 'StatefulSet' && metadata.name === 'chancery',
      )
      const [container] = server?.['spec'].template.spec.containers ?? []
      t.equal(container?.readinessProbe.httpGet.path, '/livez', place)
    }
    t.end()
  },
)

t.test('what is mounted is rendered, or is what docs/kubernetes.md says to make', async (t) => {
  const page = await readFile(join(home, 'docs/kubernetes.md'), 'utf8')
  for (const [place, objects] of rendered) {
    const made = new Set(objects.flatMap((object) => [`${object.kind} ${object.metadata.name}`, ...secretsOf(object)]))
    for (const { owner, spec } of objects.flatMap(podsOf)) {
      for (const name of mountsOf(spec)) {
        const [, plain = ''] = name.split(' ')
        t.ok(made.has(name) || page.includes(plain), `${place}: ${owner} mounts ${name}`)
      }
    }
  }
})

/** What cert-manager makes of a Certificate. */
const secretsOf = ({ kind, spec }: Manifest): readonly string[] =>
  kind === 'Certificate' ? [`Secret ${spec.secretName}`] : []

const mountsOf = ({ volumes = [] }: Json): readonly string[] =>
  volumes.flatMap(({ secret, configMap, projected }: Json) => [
    ...(secret ? [`Secret ${secret.secretName}`] : []),
    ...(configMap ? [`ConfigMap ${configMap.name}`] : []),
    ...(projected?.sources ?? []).flatMap(({ secret: inner }: Json) => (inner ? [`Secret ${inner.name}`] : [])),
  ])

t.test('issuers that speak as the controller’s account speak to a server that has its token', (t) => {
  const served = named('overlays/pkcs11', 'ConfigMap', /^chancery-controller-settings-/)['data']['controller.yaml']
  let count = 0
  for (const [place, objects] of rendered) {
    for (const { kind, metadata, spec } of objects.filter(({ kind }) => /^Chancery(Cluster)?Issuer$/.test(kind))) {
      count += 1
      t.match(served, `url: ${spec.url}\n`, `${place}: ${kind} ${metadata.name}`)
      for (const audience of spec.auth.serviceAccount?.audiences ?? []) t.match(served, `audience: ${audience}\n`)
    }
    for (const { metadata, spec } of objects.filter(({ kind }) => kind === 'Certificate')) {
      const { kind, name } = spec.issuerRef
      const issuer = objects.find((object) => object.kind === kind && object.metadata.name === name)
      t.ok(issuer, `${place}: ${metadata.name} has its issuer`)
      t.equal(issuer?.metadata.namespace, kind === 'ChanceryIssuer' ? metadata.namespace : undefined)
    }
  }
  t.ok(count > 10, `${count} issuers`)
  t.end()
})
