/** Every object of deploy/kubernetes is one that its kind's schema allows. */
import t from 'tap'

import { everything, type Manifest, readYaml } from './manifests.ts'
import { modelFaults } from './models.ts'
import { others } from './others.ts'
import { faultsOfSchema, pruneBySchema, validateBySchema } from './schema.ts'
import type { Tree } from './values.ts'

t.setTimeout(120_000)

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

const faultsOf = async (object: Manifest): Promise<readonly string[]> => {
  const { apiVersion, kind } = object
  const schema = ours.get(`${apiVersion} ${kind}`) ?? (others[`${apiVersion} ${kind}`] as Tree | undefined)
  if (schema) return bySchema(object, schema)
  return (await modelFaults(apiVersion, kind, object)) ?? [`nothing is known of ${apiVersion} ${kind}`]
}

t.test('every object has the fields of its kind, and no others', async (t) => {
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

t.test('what is mistyped, missing or of another type is found', async (t) => {
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
