/** What the recordings do not show of the moment in which they were made, by their names. */
import type { Release } from './catalogue.ts'
import type { Double } from './double.ts'
import { apiAudience } from './people.ts'
import type { Tree } from './values.ts'

export interface Stage {
  /** Roles, or resources within roles, that were not given yet. */
  readonly lacks?: readonly string[]
  readonly version?: number
  /** Exchanges to let happen first. */
  readonly after?: readonly string[]
  readonly objects?: readonly Tree[]
  /** Requests that had been deleted, which no recording shows. */
  readonly gone?: readonly string[]
  /** The oldest version that the server still held. */
  readonly oldest?: Readonly<Record<Release, number>>
}

/** After everything, where the recording has no version of its own. */
const late = 100_000
const compacted = { '1.36': 291, '1.34': 290 } as const

const unreachable: Tree = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'ValidatingWebhookConfiguration',
  metadata: { name: 'unreachable' },
  webhooks: [
    {
      name: 'unreachable.example.test',
      failurePolicy: 'Fail',
      timeoutSeconds: 2,
      clientConfig: { service: { namespace: 'cert-manager', name: 'absent', path: '/validate' } },
      rules: [{ apiGroups: ['cert-manager.io'], resources: ['certificaterequests/status'] }],
    },
  ],
}

/** One of which nothing shows more than its name. */
const request = (namespace: string, name: string, uid: string): Tree => ({
  apiVersion: 'cert-manager.io/v1',
  kind: 'CertificateRequest',
  metadata: { namespace, name, uid },
  spec: { issuerRef: { name: 'not recorded' }, request: '' },
})

export const stages: Readonly<Record<string, Stage>> = {
  'certificaterequests/04-approve-without-signer-right': { lacks: ['cert-manager-controller-approve:chancery-dev'] },
  'crds/05-first-list': { version: 1, after: ['crds/02-apply-chanceryclusterissuers'] },
  'csr/16-approve-without-rbac': { lacks: ['certificatesigningrequests/approval'] },
  'csr/17-approve-without-signer-right': { lacks: ['signers'] },
  'csr/20-sign-without-rbac': { lacks: ['certificatesigningrequests/status'] },
  'csr/21-sign-without-signer-right': { lacks: ['signers'] },
  'csr/41c-change-failed': { version: 775 },
  'csr/41e-failed-merge-patch-alone': { version: 787 },
  'csr/47-approve-pending-by-status': { version: 713 },
  'csr/22-sign-other-signer': { lacks: ['chancery-csr-signer-kubelet-serving'] },
  'discovery/02-list-absent-kind': { lacks: ['chancery-controller-issuers'] },
  'discovery/04-chancery.dev-v1alpha1': { version: late },
  'discovery/05-chancery.dev': { version: late },
  'events/01-create-forbidden': { lacks: ['events'] },
  'issuers/15-secret-forbidden': { lacks: ['secrets'] },
  'leases/01-get-forbidden': { lacks: ['leases'] },
  'podcertificaterequests/18-issue-without-rbac': { lacks: ['podcertificaterequests/status'] },
  'podcertificaterequests/19-issue-without-signer-right': { lacks: ['signers'] },
  'reviews/01-tokenreview-forbidden': { lacks: ['tokenreviews'] },
  'reviews/02-sar-forbidden': { lacks: ['subjectaccessreviews'] },
  'status-writes/01-apply-forbidden': { lacks: ['chancery-controller-status'] },
  'status-writes/08-put-forbidden': { lacks: ['chancery-controller-status-update'] },
  'status-writes/22-delete': { objects: [request('team-a', 'short-lived', '0f7fae38-4108-4c08-bb0d-057edae1681e')] },
  'status-writes/25b-webhook-unreachable': { objects: [unreachable, request('team-c', 'early-1', 'not recorded')] },
  // web-1 was gone by the time web-2 was approved.
  'watch-expiry/list-continue-compacted': { gone: ['web-1'] },
  'watch-expiry/list-continue-inconsistent': { gone: ['web-1'] },
  'watch-expiry/list-continue-expired': { oldest: compacted },
  'watch-expiry/list-exact-too-old': { oldest: compacted },
  'watch-expiry/list-old-with-limit': { oldest: compacted },
  'watch-expiry/watch-too-old': { oldest: compacted },
  'watch-expiry/watch-too-old-after-compaction': { oldest: compacted },
}

const workload = 'team-a/workload'

/** The tokens that were reviewed, which are not in the recordings, made as their descriptions tell. */
export const tokens: Readonly<Record<string, (cluster: Double, id: string) => string>> = {
  'reviews/01-tokenreview-forbidden': ({ people }, id) => people.tokenOf(workload, { id, audiences: ['chancery'] }),
  'reviews/03-tokenreview-valid': ({ people }, id) => people.tokenOf(workload, { id, audiences: ['chancery'] }),
  'reviews/04-tokenreview-valid-pod-bound': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'], pod: 'app-0' }),
  'reviews/05-tokenreview-two-audiences': ({ people }, id) => people.tokenOf(workload, { id, audiences: ['chancery'] }),
  'reviews/06-tokenreview-wrong-audience': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'] }),
  'reviews/07-tokenreview-default-audience': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'] }),
  'reviews/08-tokenreview-api-server-token': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: [apiAudience] }),
  'reviews/09-tokenreview-garbage': () => 'garbage',
  'reviews/10-tokenreview-bad-signature': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'] }).replace(/.{8}$/, 'AAAAAAAA'),
  'reviews/12-tokenreview-account-deleted': ({ people, store, seed }) => {
    const metadata = { name: 'short-lived', namespace: 'team-a' }
    const account = seed({ apiVersion: 'v1', kind: 'ServiceAccount', metadata })
    const token = people.tokenOf('team-a/short-lived', { audiences: ['chancery'] })
    store.remove('serviceaccounts', account)
    return token
  },
  'reviews/21-tokenreview-expired': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'], expiresIn: -5 }),
  'reviews/22-tokenreview-expired-80s': ({ people }, id) =>
    people.tokenOf(workload, { id, audiences: ['chancery'], expiresIn: -80 }),
}
