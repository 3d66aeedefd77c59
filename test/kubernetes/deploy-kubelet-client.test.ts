/** components/kubelet-client, with its rights, its settings and the grant of cluster.yaml: who gets a node's certificate, and who does not. */
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'
import { parse } from 'yaml'

import { readControllerDocument } from '../../src/cli/controller.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'
import { keyPairFor } from './chancery-side.ts'
import { type Json, type Manifest, manifests, renderWith } from './manifests.ts'
import { openRunning } from './running.ts'
import { condition, type Tree, textAt } from './values.ts'

t.setTimeout(300_000)
const path = '/apis/certificates.k8s.io/v1/certificatesigningrequests'

/** What stands there as a comment, taken in. */
const grant = async (): Promise<Json> => {
  const text = await readFile(join(manifests, 'chancery/cluster.yaml'), 'utf8')
  const taken = text.replace(/^( +)# (- profiles: \[kubelet-client\]\n(?: +# {3,}.*\n)+)/m, (_, indent, lines) => {
    return `${indent}${lines.replaceAll(/^ +# /gm, indent)}`
  })
  return parse(taken).mappings[0].grants.find(({ profiles }: Json) => profiles.includes('kubelet-client'))
}

const requesters: readonly Tree[] = [
  {
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: 'asks' } },
    rules: [{ apiGroups: ['certificates.k8s.io'], resources: ['certificatesigningrequests'], verbs: ['create'] }],
  },
  {
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding', metadata: { name: 'asks' } },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'asks' },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'system:authenticated' }],
  },
]

slowTest('a kubelet becomes its node once that is approved, and by nobody else’s request', async (t) => {
  const objects = await renderWith('base', ['kubelet-client'])
  const folder = await mkdtemp(join(tmpdir(), 'chancery-kubelet-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const settings = objects.find(({ metadata }) => /^chancery-controller-settings-/.test(metadata.name))
  await writeFile(join(folder, 'controller.yaml'), settings?.['data']['controller.yaml'])
  const { document } = await readControllerDocument(join(folder, 'controller.yaml'))
  const rights = objects.filter(({ kind }) => /^(Cluster)?Role(Binding)?$/.test(kind)) as unknown as readonly Tree[]
  const running = await openRunning(t, {
    settings: { signers: document.signers ?? [], secretNamespace: 'team-a' },
    cluster: { rbac: [...rights, ...requesters, secrets] },
  })
  const { cluster, service } = running
  const token = await employ(service, 'kubelets', 'requester', await grant())
  const data = { token: Buffer.from(token).toString('base64') }
  await cluster.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'kubelets', namespace: 'team-a' }, data })
  const issuer = objects.find(({ kind }) => kind === 'ChanceryClusterIssuer') as Manifest
  const { profile, authority } = issuer['spec']
  const spec = { profile, authority, auth: { tokenSecretRef: { name: 'kubelets' } } }
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: issuer.metadata.name, spec })

  const ask = async (name: string, username: string, groups: readonly string[]): Promise<Tree> => {
    const subject = { organizations: ['system:nodes'] }
    const usages = ['digital signature', 'client auth']
    const privateKey = { algorithm: 'ECDSA' }
    const { csr } = await keyPairFor(folder, { commonName: 'system:node:worker-1', subject, usages, privateKey })
    const request = Buffer.from(csr).toString('base64')
    const signerName = 'kubernetes.io/kube-apiserver-client-kubelet'
    const user = cluster.tokenFor({ username, groups: [...groups, 'system:authenticated'] })
    const { status, body } = await cluster.as(user).request('POST', path, {
      ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name } },
      spec: { request, signerName, usages },
    })
    t.equal(status, 201, JSON.stringify(body))
    const conditions = [{ type: 'Approved', status: 'True', reason: 'AutoApproved', message: 'by a test' }]
    const merge = { contentType: 'application/merge-patch+json' }
    await cluster.as().request('PATCH', `${path}/${name}/approval`, { status: { conditions } }, merge)
    const isOver = (object: Tree | undefined): boolean =>
      textAt(object, 'status', 'certificate') !== '' || condition(object ?? {}, 'Failed') !== undefined
    return (await cluster.until('certificatesigningrequests', { name }, isOver)) ?? {}
  }
  const asked = [
    await ask('first', 'system:bootstrap:abcdef', ['system:bootstrappers']),
    await ask('next', 'system:node:worker-1', ['system:nodes']),
  ]
  for (const done of asked) {
    const leaf = new X509Certificate(Buffer.from(textAt(done, 'status', 'certificate'), 'base64'))
    t.equal(leaf.subject, 'O=system:nodes\nCN=system:node:worker-1')
    t.same(leaf.keyUsage, ['1.3.6.1.5.5.7.3.2'])
    t.equal(leaf.subjectAltName, undefined)
  }
  const refused = await ask('person', 'jane', [])
  t.match(condition(refused, 'Failed'), { reason: 'OriginForbidden', message: /"jane" at \/onBehalfOf\/user: / })
  t.strictSame(
    cluster.writes.filter(({ actor, status }) => actor.includes('chancery') && status === 403),
    [],
  )
})

const secrets: Tree = {
  ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding' },
  metadata: { name: 'chancery-controller-secrets', namespace: 'team-a' },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'chancery-controller-secrets' },
  subjects: [{ kind: 'ServiceAccount', name: 'chancery-controller', namespace: 'chancery-system' }],
}
