/** Every metric of our own, in one table. docs/operations.md names each; the process's and Node's defaults come beside them. */
import { waitBounds } from '../keys/key-load.ts'

type Kind = 'counter' | 'gauge' | 'histogram'

export interface Definition {
  readonly kind: Kind
  readonly help: string
  readonly labels: readonly string[]
  readonly buckets?: readonly number[]
}

const seconds = [
  0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]
const sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]

export const metricTable = {
  chancery_issuances_total: {
    kind: 'counter',
    help: 'Requests to issue, by how they ended.',
    labels: ['profile', 'outcome'],
  },
  chancery_refusals_total: { kind: 'counter', help: 'Requests turned down, by problem code.', labels: ['code'] },
  chancery_limited_total: {
    kind: 'counter',
    help: 'Requests that were told 429, by the limit that was reached.',
    labels: ['limit'],
  },
  chancery_authentications_total: {
    kind: 'counter',
    help: 'Requests by what they have shown of who asks, and whether it was accepted or which problem it was.',
    labels: ['credential', 'outcome'],
  },
  chancery_jwks_fetches_total: {
    kind: 'counter',
    help: 'Times that the keys of an identity provider were asked for; `useless` where none of them can verify a token.',
    labels: ['provider', 'outcome'],
  },
  chancery_jwks_age_seconds: {
    kind: 'gauge',
    help: 'Since the keys of an identity provider were fetched last; beyond an hour its tokens are not accepted.',
    labels: ['provider'],
  },
  chancery_tokens_cached: {
    kind: 'gauge',
    help: 'Tokens of identity providers that were verified and are remembered.',
    labels: [],
  },
  chancery_stage_seconds: {
    kind: 'histogram',
    help: 'Time in each stage of an issuance.',
    labels: ['stage'],
    buckets: seconds,
  },
  chancery_batch_size: {
    kind: 'histogram',
    help: 'Requests that shared one transaction.',
    labels: ['batch'],
    buckets: sizes,
  },
  chancery_key_seconds: { kind: 'histogram', help: 'Time of a signing operation.', labels: ['key'], buckets: seconds },
  chancery_key_faults_total: { kind: 'counter', help: 'Signing operations that failed.', labels: ['key', 'fault'] },
  chancery_key_sessions: {
    kind: 'gauge',
    help: 'Sessions with tokens that sign, and operations that wait for one, as of the last second.',
    labels: ['state'],
  },
  chancery_key_errors_total: {
    kind: 'counter',
    help: 'Calls of a PKCS#11 module that failed, by return value.',
    labels: ['code'],
  },
  chancery_key_wait_seconds: {
    kind: 'histogram',
    help: 'Time that an operation waited for a session with a token.',
    labels: [],
    buckets: waitBounds,
  },
  chancery_database_seconds: {
    kind: 'histogram',
    help: 'Time of a database statement.',
    labels: ['statement'],
    buckets: seconds,
  },
  chancery_database_faults_total: { kind: 'counter', help: 'Database statements that failed.', labels: ['statement'] },
  chancery_database_connections: { kind: 'gauge', help: 'Connections of the pool, by state.', labels: ['state'] },
  chancery_queue_depth: { kind: 'gauge', help: 'Requests under way or waiting, by queue.', labels: ['queue'] },
  chancery_check_passed: {
    kind: 'gauge',
    help: 'Whether this instance can issue, by what /readyz looks at: 1, or 0 where it stands in the way.',
    labels: ['check'],
  },
  chancery_issuer_not_after_timestamp_seconds: {
    kind: 'gauge',
    help: 'When the certificate of an issuer expires; none of those that have retired.',
    labels: ['issuer', 'state'],
  },
  chancery_own_certificate_not_after_timestamp_seconds: {
    kind: 'gauge',
    help: 'When the HTTPS certificate of this instance expires; 0 while it is one that nobody has signed.',
    labels: [],
  },
  chancery_crl_revoked: { kind: 'gauge', help: 'Serials on the list of a shard.', labels: ['issuer', 'shard'] },
  chancery_crl_octets: { kind: 'gauge', help: 'Size of the list of a shard.', labels: ['issuer', 'shard'] },
  chancery_crl_this_update_timestamp_seconds: {
    kind: 'gauge',
    help: 'When the list of a shard was made: the time since then is its age.',
    labels: ['issuer', 'shard'],
  },
  chancery_crl_next_update_timestamp_seconds: {
    kind: 'gauge',
    help: 'Until when the list of a shard may be used.',
    labels: ['issuer', 'shard'],
  },
  chancery_imported_crl_next_update_timestamp_seconds: {
    kind: 'gauge',
    help: 'Until when the list of a CA above issuers may be used, by the SHA-256 of its public key; none where nothing below it is valid for longer.',
    labels: ['signer'],
  },
  chancery_issuer_revoked: {
    kind: 'gauge',
    help: 'An issuer that a CA above has revoked, and that may sign yet: 1; none once it was halted.',
    labels: ['issuer'],
  },
  chancery_crl_unlisted_seconds: {
    kind: 'gauge',
    help: 'Since the oldest revocation or release that is on no list yet; none where all are.',
    labels: ['issuer'],
  },
  chancery_crl_failures_total: {
    kind: 'counter',
    help: 'Tries to publish the lists of an issuer that failed.',
    labels: ['issuer'],
  },
  chancery_issuer_misused_timestamp_seconds: {
    kind: 'gauge',
    help: 'When a client has last shown a certificate with the signature of an issuer that is on no record: its key is in other hands.',
    labels: ['issuer'],
  },
  chancery_witness_cosigned_timestamp_seconds: {
    kind: 'gauge',
    help: 'When a witness has cosigned a checkpoint last: the time since then is its age.',
    labels: ['witness'],
  },
  chancery_witness_failures_total: {
    kind: 'counter',
    help: 'Times that a witness was asked and has not cosigned.',
    labels: ['witness'],
  },
  chancery_witness_disagrees: {
    kind: 'gauge',
    help: 'Whether a witness has seen another roll, and cosigned nothing since: 1, or 0.',
    labels: ['witness'],
  },
  chancery_ocsp_answers_total: {
    kind: 'counter',
    help: 'OCSP requests, by what they were answered with.',
    labels: ['answer'],
  },
  chancery_crl_publish_seconds: {
    kind: 'histogram',
    help: 'Time to make, record, sign and place up to 32 lists of an issuer.',
    labels: ['issuer'],
    buckets: seconds,
  },
  chancery_approval_requests: {
    kind: 'gauge',
    help: 'Requests that wait for approval, or are approved and not issued yet; of each ten thousand at most are counted.',
    labels: ['state'],
  },
  chancery_approval_oldest_timestamp_seconds: {
    kind: 'gauge',
    help: 'When the oldest of them was made; none where there is none.',
    labels: [],
  },
  chancery_approval_requests_total: {
    kind: 'counter',
    help: 'Requests that need approval: those that were created, and how they ended.',
    labels: ['outcome'],
  },
  chancery_event_loop_delay_seconds: {
    kind: 'gauge',
    help: 'Delay of the event loop since the last reading.',
    labels: ['quantile'],
  },
  chancery_log_stalled_seconds: {
    kind: 'gauge',
    help: 'For how long lines of the log have waited of which none was taken; 0 where none waits.',
    labels: [],
  },
  chancery_sockets_refused_total: {
    kind: 'counter',
    help: 'Sockets that were closed unanswered, by whether their address or the listener had too many.',
    labels: ['bound'],
  },
  chancery_http_requests_total: {
    kind: 'counter',
    help: 'Requests answered, also where whoever asked had gone by then.',
    labels: ['route', 'status'],
  },
  chancery_http_seconds: {
    kind: 'histogram',
    help: 'Time from a request to the end of its answer.',
    labels: ['route'],
    buckets: seconds,
  },
} as const satisfies Readonly<Record<string, Definition>>

export type MetricName = keyof typeof metricTable
export type GaugeName =
  | 'chancery_database_connections'
  | 'chancery_key_sessions'
  | 'chancery_log_stalled_seconds'
  | 'chancery_queue_depth'
