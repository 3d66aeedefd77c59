/** Clusters differ: where names are resolved, where the API server is, and as whom a pod may run. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'
import { parse } from 'yaml'

import { slowTest } from '../helpers/slow.ts'
import {
  everything,
  home,
  type Json,
  type Manifest,
  manifests,
  type PodTemplate,
  podsOf,
  renderWith,
} from './manifests.ts'
import { mayGo, type Place, type Way } from './policies.ts'

t.setTimeout(300_000)
const rendered = await everything()
const production = ['overlays/mounted-keys', 'overlays/pkcs11', 'overlays/kubelet-serving'] as const
const overlays = [...production, 'overlays/trial'] as const

const policiesOf = (objects: readonly Manifest[]): readonly Manifest[] =>
  objects.filter(({ kind }) => kind === 'NetworkPolicy')
const inSystem = (app: string): Place => ({ namespace: 'kube-system', labels: { 'k8s-app': app } })
const ask = (to: Place, port = 53): readonly Way[] => [
  { to, port, protocol: 'UDP' },
  { to, port, protocol: 'TCP' },
]

t.test('nobody speaks to a pod of ours but who is let in', (t) => {
  for (const place of production) {
    const policies = policiesOf(rendered.get(place) ?? [])
    const deny = policies.find(({ metadata }) => metadata.name === 'deny')
    t.strictSame(deny?.['spec'], { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }, place)
    for (const { metadata, spec } of policies) {
      for (const { from, ports } of spec.ingress ?? [])
        t.ok(
          from || ports.every(({ port }: Json) => port === 'public'),
          `${metadata.name}: only the public listener is anybody’s`,
        )
      for (const { ports } of spec.egress ?? []) t.ok(ports?.length > 0, `${metadata.name}: to named ports only`)
    }
  }
  t.end()
})

// ---- names

const openShift: Place = {
  namespace: 'openshift-dns',
  labels: { 'dns.operator.openshift.io/daemonset-dns': 'default' },
}
const resolvers: Readonly<Record<string, readonly Way[]>> = {
  'kube-dns or CoreDNS': ask(inSystem('kube-dns')),
  'NodeLocal DNSCache behind Cilium': ask(inSystem('node-local-dns')),
  'NodeLocal DNSCache': ask({ address: '169.254.20.10' }),
  'Kubespray’s': ask({ address: '169.254.25.10' }),
  'OpenShift’s': ask(openShift, 5353),
}
const strangers: Readonly<Record<string, readonly Way[]>> = {
  'a resolver elsewhere': ask({ address: '8.8.8.8' }),
  'the address of the Service, which no pod has': ask({ address: '10.96.0.10' }),
  'what a cloud tells of a node': [{ to: { address: '169.254.169.254' }, port: 80, protocol: 'TCP' }],
  'another pod of kube-system': ask(inSystem('kube-proxy')),
  'such a pod elsewhere': ask({ ...inSystem('kube-dns'), namespace: 'shop' }),
  'such a pod, about something else': [{ to: inSystem('kube-dns'), port: 9153, protocol: 'TCP' }],
}

t.test('every pod of ours may ask the resolvers of the clusters that we name, and nobody else', (t) => {
  for (const place of overlays) {
    const objects = rendered.get(place) ?? []
    for (const pod of objects.flatMap(podsOf)) {
      const may = (way: Way): boolean => mayGo(policiesOf(objects), pod, way)
      for (const [what, ways] of Object.entries(resolvers)) t.ok(ways.every(may), `${place}: ${pod.owner}: ${what}`)
      for (const [what, ways] of Object.entries(strangers)) t.notOk(ways.some(may), `${place}: ${pod.owner}: ${what}`)
    }
  }
  t.end()
})

slowTest('with node-local-dns they may also ask the address that is put into it, on the port for names', async (t) => {
  const { spec } = parse(await readFile(join(manifests, 'components/node-local-dns/network.yaml'), 'utf8'))
  const [, address = ''] = /^(.*)\/32$/.exec(spec.egress[0].to[0].ipBlock.cidr) ?? []
  for (const base of overlays) {
    const objects = await renderWith(base, ['node-local-dns'])
    const plain = new Set((rendered.get(base) ?? []).map((object) => JSON.stringify(object)))
    const more = objects.filter((object) => !plain.has(JSON.stringify(object)))
    t.match(more, [{ kind: 'NetworkPolicy', metadata: { namespace: 'chancery-system' } }], `${base}: and nothing else`)
    t.equal(more.length, 1)
    for (const pod of objects.flatMap(podsOf)) {
      const may = (way: Way): boolean => mayGo(policiesOf(objects), pod, way)
      t.ok(ask({ address }).every(may), `${base}: ${pod.owner}`)
      for (const ways of [ask({ address: '10.96.0.11' }), ask({ address: '8.8.8.8' }), ask({ address }, 5353)])
        t.notOk(ways.some(may), `${base}: ${pod.owner}`)
    }
  }
})

// ---- the API server

const apiServers: Readonly<Record<number, string>> = {
  443: 'of a cloud, or behind the address of the Service',
  6443: 'kubeadm, kind, k3s, RKE2, Kubespray, OpenShift',
  8443: 'minikube',
  16443: 'MicroK8s',
}

t.test(
  'service and controller reach the API servers of the clusters that we name, and none of the others does',
  (t) => {
    for (const place of overlays) {
      const objects = rendered.get(place) ?? []
      for (const pod of objects.flatMap(podsOf)) {
        const speaks = ['StatefulSet chancery', 'Deployment chancery-controller'].includes(pod.owner)
        const may = (port: number): boolean =>
          mayGo(policiesOf(objects), pod, { to: { address: '192.0.2.1' }, port, protocol: 'TCP' })
        for (const [port, whose] of Object.entries(apiServers))
          t.equal(may(Number(port)), speaks, `${place}: ${pod.owner}: ${port}, ${whose}`)
        for (const port of [22, 80, 2379, 10250]) t.notOk(may(port), `${place}: ${pod.owner}: ${port}`)
      }
    }
    t.end()
  },
)

t.test('the page says what to do on each cluster whose addresses the seeds name', async (t) => {
  const seed = await readFile(join(home, 'src/policy/seeds/kubelet-serving.yaml'), 'utf8')
  const page = await readFile(join(home, 'docs/kubernetes.md'), 'utf8')
  const [, section = ''] = page.split('## Where clusters differ\n')
  const [table = ''] = section.split('\n## ')
  for (const name of ['K3s', 'RKE2', 'MicroK8s', 'Kubespray', 'OpenShift']) {
    t.match(seed, name)
    t.match(table, name)
  }
})

// ---- OpenShift

const ids = ['runAsUser', 'runAsGroup', 'fsGroup']

/** What it was before, without the ids. */
const without = ({ spec, ...pod }: PodTemplate): PodTemplate => {
  const securityContext = Object.fromEntries(Object.entries(spec.securityContext).filter(([key]) => !ids.includes(key)))
  return { ...pod, spec: { ...spec, securityContext } }
}

slowTest('with openshift no pod says who it is, and all else of it stays', async (t) => {
  const examples = ['examples/mqtt', 'examples/csi-driver', 'examples/ingress', 'examples/pod-certificate']
  for (const base of [...overlays, ...examples]) {
    const objects = await renderWith(base, ['openshift'])
    t.notMatch(JSON.stringify(objects), /"(runAsUser|runAsGroup|fsGroup|supplementalGroups)":/, base)
    const before = (rendered.get(base) ?? []).flatMap(podsOf)
    t.ok(before.length > 0, base)
    for (const { owner, spec } of before)
      t.ok(
        ids.every((id) => spec.securityContext[id] > 0),
        `${base}: ${owner}`,
      )
    t.strictSame(objects.flatMap(podsOf), before.map(without), base)
    t.strictSame(objects.filter(isNoPod), (rendered.get(base) ?? []).filter(isNoPod), base)
    for (const { owner, spec } of objects.flatMap(podsOf)) {
      t.match(spec.securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } }, owner)
      for (const { securityContext } of [...(spec.initContainers ?? []), ...spec.containers])
        t.strictSame(
          securityContext,
          { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
          owner,
        )
    }
  }
})

const isNoPod = (object: Manifest): boolean => podsOf(object).length === 0
