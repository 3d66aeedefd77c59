/** Objects as the real API server and the real cert-manager have made them, for those who decide about them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { readRequest } from '../../src/cli/controller.ts'
import type { CertificateRequest, Condition, Issuer, Node, SigningRequest } from '../../src/kubernetes/api/objects.ts'
import type { RequestFacts } from '../../src/kubernetes/decide/asking.ts'
import { folder } from './recordings.ts'

/** The object that an exchange was answered with, as far as JSON goes: a deep copy. */
export const recorded = <T>(name: string, release = '1.36'): T =>
  JSON.parse(readFileSync(join(folder, `v${release}`, `${name}.json`), 'utf8')).response.body

export const certificateRequest = (name: string): CertificateRequest =>
  recorded<CertificateRequest>(`certificaterequests/${name}`)

export const signingRequest = (name: string): SigningRequest => recorded<SigningRequest>(`csr/${name}`)

export const withConditions = <T extends CertificateRequest | SigningRequest>(
  object: T,
  ...conditions: readonly Condition[]
): T => ({ ...object, status: { ...object.status, conditions: [...conditions] } })

export const approved: Condition = { type: 'Approved', status: 'True', reason: 'cert-manager.io' }
export const denied: Condition = { type: 'Denied', status: 'True', reason: 'policy' }

/** Ready, unless it is said otherwise. */
export const issuerOf = (
  spec: Partial<Issuer['spec']> = {},
  ready: Partial<Condition> | null = { status: 'True', observedGeneration: 1 },
): Issuer => ({
  apiVersion: 'chancery.dev/v1alpha1',
  kind: 'ChanceryIssuer',
  metadata: {
    ...{ name: 'default-ca', namespace: 'team-a', uid: '7f3c', resourceVersion: '9', generation: 1 },
    creationTimestamp: '2026-11-24T23:00:00Z',
  },
  spec: {
    ...{ url: 'https://chancery.test:8443', profile: 'server', auth: { tokenSecretRef: { name: 'token' } } },
    ...spec,
  },
  ...(ready && { status: { conditions: [{ type: 'Ready', status: 'True', reason: 'Checked', ...ready }] } }),
})

export const factsOf = ({ spec }: { readonly spec: { readonly request: string } }): RequestFacts => {
  const facts = readRequest(Buffer.from(spec.request, 'base64').toString())
  if ('fault' in facts) throw new Error(facts.fault)
  return facts
}

/** The one that asks in `11-create-kubelet-serving`. */
export const worker = (addresses: readonly (readonly [type: string, address: string])[]): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'worker-1', uid: 'n', resourceVersion: '1', creationTimestamp: '2026-11-24T23:00:00Z' },
  status: { addresses: addresses.map(([type, address]) => ({ type, address })) },
})
