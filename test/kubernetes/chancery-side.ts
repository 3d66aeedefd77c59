/**
 * A real Chancery that was told what docs/kubernetes.md says, and asks as the controller asks: what cert-manager makes of a
 * Certificate, and a kubelet of itself, goes through the controller's own decisions and comes with its service account's token.
 */
import { randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import type { CertificateRequest, Issuer, Requester } from '../../src/kubernetes/api/objects.ts'
import type { Ask } from '../../src/kubernetes/decide/asking.ts'
import { decideRequest } from '../../src/kubernetes/decide/request.ts'
import { openTestIssuer, serviceAccount } from '../helpers/issuer.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { output } from '../interop/tools.ts'
import { home, type Json, type Manifest } from './manifests.ts'

export interface ChancerySide {
  readonly service: TestService
  /** PEM of the CA of the cluster's API server. */
  readonly clusterCa: string
  /** The document of the cluster, with the issuer that there is here. */
  readonly clusterDocument: () => Promise<string>
  /** As the controller would send it. */
  ask(ask: Ask): Promise<Answer>
}

interface Teardown {
  teardown(close: () => Promise<void>): void
}

export const openChancerySide = async (t: Teardown): Promise<ChancerySide> => {
  const service = await openTestService(t)
  const cluster = await openTestIssuer(t)
  const document = await readFile(join(home, 'deploy/kubernetes/chancery/cluster.yaml'), 'utf8')
  const [, audience] = /^audience: (\S+)$/m.exec(document) ?? []
  return {
    service,
    clusterCa: cluster.ca,
    clusterDocument: async () => document.replace(/^issuer: \S+/m, `issuer: ${cluster.url}`),
    ask: ({ idempotencyKey, body }) =>
      service.request('POST', '/v1/certificates', {
        token: cluster.token(serviceAccount('chancery-system', 'chancery-controller', { aud: [audience] })),
        headers: { 'idempotency-key': idempotencyKey },
        body,
      }),
  }
}

export interface KeyPair {
  /** PEM, PKCS#8. */
  readonly key: string
  readonly csr: string
}

/** A key and a request for it, made by openssl with what cert-manager and kubelets write into theirs. */
export const keyPairFor = async (folder: string, spec: Json): Promise<KeyPair> => {
  const path = join(folder, randomUUID())
  const type =
    spec.privateKey?.algorithm === 'ECDSA' ? ['EC', 'ec_paramgen_curve:P-256'] : ['RSA', 'rsa_keygen_bits:2048']
  await output('openssl', [
    'genpkey',
    '-quiet',
    '-algorithm',
    ...type.join(' -pkeyopt ').split(' '),
    '-out',
    `${path}.key`,
  ])
  await writeFile(`${path}.cnf`, configurationOf(spec))
  const isNobody = !spec.commonName && !spec.subject
  await output('openssl', [
    'req',
    '-new',
    ...(isNobody ? ['-subj', '/'] : []),
    '-key',
    `${path}.key`,
    '-config',
    `${path}.cnf`,
    '-out',
    `${path}.csr`,
  ])
  return { key: await readFile(`${path}.key`, 'utf8'), csr: await readFile(`${path}.csr`, 'utf8') }
}

const configurationOf = (spec: Json): string => {
  const { commonName, subject = {}, dnsNames = [], ipAddresses = [], uris = [], usages = [] } = spec
  const names = [
    ...dnsNames.map((name: string) => `DNS:${name}`),
    ...ipAddresses.map((address: string) => `IP:${address}`),
    ...uris.map((uri: string) => `URI:${uri}`),
  ]
  const keyUsages = usages.flatMap((usage: string) => keyUsageNames[usage] ?? [])
  const extended = usages.flatMap((usage: string) => extendedNames[usage] ?? [])
  const attributes = [
    ...(subject.organizations ?? []).map((value: string) => `O = ${value}`),
    ...(commonName ? [`CN = ${commonName}`] : []),
  ]
  return [
    '[req]\nprompt = no\ndistinguished_name = subject\nreq_extensions = extensions\n[subject]',
    ...attributes,
    '[extensions]',
    ...(names.length > 0 ? [`subjectAltName = ${attributes.length === 0 ? 'critical,' : ''}${names.join(',')}`] : []),
    ...(keyUsages.length > 0 ? [`keyUsage = critical,${keyUsages.join(',')}`] : []),
    ...(extended.length > 0 ? [`extendedKeyUsage = ${extended.join(',')}`] : []),
    '',
  ].join('\n')
}

const keyUsageNames: Readonly<Record<string, string>> = {
  'digital signature': 'digitalSignature',
  'key encipherment': 'keyEncipherment',
}
const extendedNames: Readonly<Record<string, string>> = { 'server auth': 'serverAuth', 'client auth': 'clientAuth' }

/** Who has asked, wherever a Certificate was made. */
export const certManager: Requester = {
  username: 'system:serviceaccount:cert-manager:cert-manager',
  groups: ['system:serviceaccounts', 'system:serviceaccounts:cert-manager', 'system:authenticated'],
}

/** What the controller asks for once a Certificate was approved. */
export const askFor = (certificate: Manifest, issuer: Manifest, csr: string, requester = certManager): Ask => {
  const { name, namespace = '' } = certificate.metadata
  const { duration, usages, issuerRef } = certificate['spec']
  const request: CertificateRequest = {
    apiVersion: 'cert-manager.io/v1',
    kind: 'CertificateRequest',
    metadata: { name: `${name}-1`, namespace, ...born() },
    spec: {
      request: Buffer.from(csr).toString('base64'),
      duration: `${duration}0m0s`,
      usages,
      issuerRef,
      ...requester,
    },
    status: { conditions: [{ type: 'Approved', status: 'True' }] },
  }
  const step = decideRequest({ request, issuer: readyIssuer(issuer), now: new Date(), waited: 0 })
  if (step.kind !== 'ask') throw new Error(`the controller would not ask: ${JSON.stringify(step)}`)
  return step.ask
}

/** As the API server would give it back, once the controller has looked at it. */
export const readyIssuer = (issuer: Manifest): Issuer =>
  ({
    ...issuer,
    metadata: { ...issuer.metadata, ...born() },
    status: { conditions: [{ type: 'Ready', status: 'True', observedGeneration: 1 }] },
  }) as unknown as Issuer

export const born = () => ({
  uid: randomUUID(),
  resourceVersion: '1',
  generation: 1,
  creationTimestamp: new Date().toISOString(),
})
