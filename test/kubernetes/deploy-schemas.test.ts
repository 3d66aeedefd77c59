/** Every object of deploy/kubernetes is one that its kind's schema allows. */
import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { everything, type Manifest, readYaml } from './manifests.ts'
import { modelFaults } from './models.ts'
import { others } from './others.ts'
import { faultsOfSchema, pruneBySchema, validateBySchema } from './schema.ts'
import { bundleFaults } from './trust-manager.ts'
import type { Tree } from './values.ts'

t.setTimeout(300_000)

const ours = new Map<string, Tree>()
for (const plural of ['chanceryissuers', 'chanceryclusterissuers']) {
  const { spec } = await readYaml(`base/crds/${plural}.yaml`)
  for (const { name, schema } of spec.versions)
    ours.set(`${spec.group}/${name} ${spec.names.kind}`, schema.openAPIV3Schema as Tree)
}

const bySchema = (object: Manifest, schema: Tree): readonly string[] => [
  ...pruneBySchema(object as unknown as Tree, schema).unknown.map((path) => `${path}: there is no such field`),
  ...validateBySchema(object as unknown as Tree, schema).map(({ field, message }) => `${field}: ${message}`),
]

/** What is refused although the schema allows it. */
const webhooks: Readonly<Record<string, (object: Manifest) => readonly string[]>> = {
  'trust.cert-manager.io/v1alpha1 Bundle': bundleFaults,
}

const podMakers = ['Pod', 'Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob']

/** Containers that begin and those that run share their names, in each kind that makes pods. */
const podFaults = ({ spec }: Manifest): readonly string[] => {
  const { initContainers = [], containers = [] } = spec.jobTemplate?.spec.template.spec ?? spec.template?.spec ?? spec
  const names: readonly string[] = [...initContainers, ...containers].map(({ name }) => name)
  return names.filter((name, at) => names.indexOf(name) < at).map((name) => `two containers are called ${name}`)
}

const faultsOf = async (object: Manifest): Promise<readonly string[]> => {
  const { apiVersion, kind } = object
  const schema = ours.get(`${apiVersion} ${kind}`) ?? (others[`${apiVersion} ${kind}`] as Tree | undefined)
  if (schema) return [...bySchema(object, schema), ...(webhooks[`${apiVersion} ${kind}`]?.(object) ?? [])]
  const faults = (await modelFaults(apiVersion, kind, object)) ?? [`nothing is known of ${apiVersion} ${kind}`]
  return [...faults, ...(podMakers.includes(kind) ? podFaults(object) : [])]
}

slowTest('every object has the fields of its kind, and no others', async (t) => {
  const kinds = new Set<string>()
  for (const [place, objects] of await everything()) {
    for (const object of objects) {
      kinds.add(object.kind)
      t.strictSame(await faultsOf(object), [], `${place}: ${object.kind} ${object.metadata.name}`)
    }
  }
  t.ok(kinds.size > 20, [...kinds].join(', '))
})

t.test('our own schemas are sound', async (t) => {
  for (const [kind, schema] of ours) t.strictSame(faultsOfSchema(schema, ''), [], kind)
})

slowTest('what is mistyped, missing or of another type is found', async (t) => {
  const [first] = [...((await everything()).get('overlays/pkcs11') ?? [])].filter(({ kind }) => kind === 'StatefulSet')
  if (!first) throw new Error('there is a StatefulSet')
  const broken = JSON.parse(JSON.stringify(first))
  const [container] = broken.spec.template.spec.containers
  container.livenesProbe = container.livenessProbe
  container.ports[0].containerPort = '8443'
  delete broken.spec.selector
  t.strictSame((await faultsOf(broken)).toSorted(), [
    '.spec.selector: is missing',
    '.spec.template.spec.containers[0].livenesProbe: there is no such field',
    '.spec.template.spec.containers[0].ports[0].containerPort: "8443" is no number',
  ])
  const issuer = { apiVersion: 'chancery.dev/v1alpha1', kind: 'ChanceryIssuer', metadata: { name: 'x' } }
  const refused = await faultsOf({ ...issuer, spec: { url: 'http://ca.example.com', profil: 'server', auth: {} } })
  for (const field of ['spec.profil:', 'spec.url:', 'spec.profile:'])
    t.ok(
      refused.some((fault) => fault.startsWith(field)),
      `${field} ${refused.join('; ')}`,
    )
})

t.test('a Bundle that trust-manager would refuse is found', (t) => {
  const faults = (spec: object): readonly string[] =>
    bundleFaults({
      ...{ apiVersion: 'trust.cert-manager.io/v1alpha1', kind: 'Bundle' },
      metadata: { name: 'roots' },
      spec,
    })
  const key = 'ca.crt'
  const target = { configMap: { key } }
  const sources = [{ configMap: { name: 'roots-source', key } }]
  t.strictSame(faults({ sources, target }), [])
  for (const kind of ['configMap', 'secret'] as const) {
    const own = { sources: [...sources, { [kind]: { name: 'roots', key } }], target: { [kind]: { key } } }
    t.strictSame(faults(own), [`.spec.sources[1].${kind}: the same source as target`])
    t.strictSame(faults({ ...own, target: { [kind]: { key: 'roots.pem' } } }), [], 'another key is another source')
    const other = kind === 'secret' ? 'configMap' : 'secret'
    t.strictSame(faults({ ...own, target: { [other]: { key } } }), [], 'and so is another kind')
    for (const named of [{ key }, { name: 'a', selector: {}, key }])
      t.strictSame(faults({ sources: [{ [kind]: named }], target }), [
        `.spec.sources[0].${kind}: either name or selector`,
      ])
    for (const keyed of [{ name: 'a' }, { name: 'a', key, includeAllKeys: true }])
      t.strictSame(faults({ sources: [{ [kind]: keyed }], target }), [
        `.spec.sources[0].${kind}: either key or includeAllKeys`,
      ])
    t.strictSame(faults({ sources: [{ [kind]: { selector: {}, includeAllKeys: true } }], target }), [])
  }
  const defaults = { useDefaultCAs: true }
  t.strictSame(faults({ sources: [defaults], target }), [])
  t.strictSame(faults({ sources: [defaults, defaults], target }), ['.spec.sources: default CAs once at most'])
  for (const none of [[], [{ useDefaultCAs: false }]])
    t.strictSame(faults({ sources: none, target }), ['.spec.sources: at least one source'])
  for (const source of [{}, { inLine: 'x', ...defaults }])
    t.strictSame(faults({ sources: [source], target }), ['.spec.sources[0]: exactly one kind of source'])
  t.strictSame(faults({ sources }), ['.spec.target: a ConfigMap or a Secret'])
  const formats = { jks: { key: 'a' }, pkcs12: { key: 'a' } }
  t.strictSame(faults({ sources, target: { ...target, additionalFormats: formats } }), [
    ".spec.target.additionalFormats.pkcs12: its key is another's",
  ])
  t.strictSame(faults({ sources, target: { ...target, additionalFormats: { jks: { key } } } }), [
    ".spec.target.additionalFormats.jks: its key is another's",
  ])
  t.end()
})
