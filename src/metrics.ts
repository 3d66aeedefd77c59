/** What Chancery measures: one table, and what the service writes to. docs/operations.md names each metric. */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from 'prom-client'

import type { ApprovalFigures } from './ca/approvals/approvals.ts'
import type { WitnessFigures } from './ca/log/witnesses.ts'
import type { Meter, Stage } from './ca/meter.ts'
import type { ShelvedCrl } from './ca/revocation/crl-cache.ts'
import type { KeyLoad } from './keys/key-load.ts'

export interface Metrics extends Meter {
  readonly registry: Registry
  /** One stage outside the issuance cycle. */
  stage(stage: Stage, seconds: number): void
  /** How an issuance ended; the cycle counts `issued` and `refused` itself. */
  ended(profile: string, outcome: 'replayed' | 'failed'): void
  answered(route: string, status: number, seconds: number): void
  /** A socket was closed unanswered, for there were too many: of its `address`, or of the `listener`. */
  socketRefused(bound: 'address' | 'listener'): void
  query(statement: string, seconds: number, failed: boolean): void
  /** Queues, pools and keys, read for each scrape. */
  watchLoads(read: () => Loads): void
  /** The lists that are served. */
  watchCrls(read: () => readonly ShelvedCrl[]): void
  /** Those of CAs above issuers. */
  watchImportedCrls(
    /** Those that another one must follow. */
    awaited: () => readonly { readonly signer: string; readonly nextUpdate: Date }[],
    /** Issuers that they revoke, and that may sign yet. */
    revoked: () => readonly string[],
  ): void
  /** Somebody has shown what it has, or nothing: `accepted`, or the code of the problem. */
  authenticated(kind: string, outcome: string): void
  /** The keys of an identity provider were asked for. */
  keysFetched(provider: string, outcome: 'fetched' | 'useless' | 'failed'): void
  /** What is known of tokens of identity providers. */
  watchTokens(read: () => TokenFigures): void
  watchWitnesses(read: () => readonly WitnessFigures[]): void
  /** One question about certificates, by what it was answered with. */
  ocspAnswered(kind: string): void
  /** What became of a request that needs approval. */
  requestEnded(outcome: string): void
  watchApprovals(read: () => ApprovalFigures): void
  /** What `/readyz` looks at, as it was found last. */
  checked(checks: readonly { readonly name: string; readonly ok: boolean }[]): void
  watchIssuers(read: () => readonly IssuerFigures[]): void
  /** When the certificate of our HTTPS expires; undefined: nobody has signed it. */
  watchOwnCertificate(read: () => Date | undefined): void
  /** Changes that are on no list yet. */
  watchUnlisted(read: () => readonly { readonly issuer: string; readonly seconds: number }[]): void
  /** A certificate that is on no record bears the signature of this issuer: seen at that moment. */
  issuerMisused(issuer: string, at: Date): void
  /** A try to publish an issuer's lists that failed. */
  crlsFailed(issuer: string): void
  /** Lists of an issuer, from the look at the records to their place. */
  crlsPublished(issuer: string, seconds: number): void
}

export interface TokenFigures {
  /** Tokens that were verified and are remembered. */
  readonly verified: number
  /** Of those providers whose keys were fetched. */
  readonly keys: readonly { readonly provider: string; readonly ageSeconds: number }[]
}

export interface IssuerFigures {
  readonly issuer: string
  readonly state: string
  readonly notAfter: Date
}

export interface Loads {
  /** Requests under way or waiting. */
  readonly issuance: number
  readonly logStalledSeconds: number
  readonly connections: { readonly open: number; readonly idle: number }
  readonly keys: KeyLoad
}

/** Registers everything on `registry` and returns what the service writes to. */
export const openMetrics = (registry: Registry): Metrics => {
  collectDefaultMetrics({ register: registry })
  const all = openSeries(registry)
  watchEventLoop(all)
  const { chancery_stage_seconds: stages, chancery_issuances_total: issuances } = all.series
  const stage = (stage: Stage, duration: number): void => stages.observe({ stage }, duration)
  return {
    registry,
    laps: () => {
      let last = performance.now()
      return (ended) => {
        const now = performance.now()
        stage(ended, (now - last) / 1000)
        last = now
      }
    },
    stage,
    issued: (profile) => issuances.inc({ profile, outcome: 'issued' }),
    refused: (profile, code) => {
      issuances.inc({ profile, outcome: 'refused' })
      all.series.chancery_refusals_total.inc({ code })
    },
    ended: (profile, outcome) => issuances.inc({ profile, outcome }),
    ...callerMetrics(all),
    ...loadMetrics(all),
    ...crlMetrics(all),
    ...witnessMetrics(all),
    ...readinessMetrics(all),
  }
}

/** Callers: their requests, credentials and limits. */
const callerMetrics = ({ series, watch }: AllSeries) =>
  ({
    answered: (route, status, duration) => {
      series.chancery_http_requests_total.inc({ route, status })
      series.chancery_http_seconds.observe({ route }, duration)
    },
    socketRefused: (bound) => series.chancery_sockets_refused_total.inc({ bound }),
    authenticated: (credential, outcome) => series.chancery_authentications_total.inc({ credential, outcome }),
    limited: (limit) => series.chancery_limited_total.inc({ limit }),
    keysFetched: (provider, outcome) => series.chancery_jwks_fetches_total.inc({ provider, outcome }),
    watchTokens: (read) => {
      watch('chancery_tokens_cached', () => [{ value: read().verified }])
      watch('chancery_jwks_age_seconds', () =>
        read().keys.map(({ provider, ageSeconds }) => ({ labels: { provider }, value: ageSeconds })),
      )
    },
    ocspAnswered: (answer) => series.chancery_ocsp_answers_total.inc({ answer }),
    requestEnded: (outcome) => series.chancery_approval_requests_total.inc({ outcome }),
  }) satisfies Partial<Metrics>

/** Batches, keys, the database and queues. */
const loadMetrics = ({ series, watch }: AllSeries) =>
  ({
    batch: (batch, size) => series.chancery_batch_size.observe({ batch }, size),
    keyOperation: (key, duration, fault) => {
      series.chancery_key_seconds.observe({ key }, duration)
      if (fault !== undefined) series.chancery_key_faults_total.inc({ key, fault })
    },
    query: (statement, duration, failed) => {
      series.chancery_database_seconds.observe({ statement }, duration)
      if (failed) series.chancery_database_faults_total.inc({ statement })
    },
    watchLoads: (read) => {
      watch('chancery_queue_depth', () => [{ labels: { queue: 'issuance' }, value: read().issuance }])
      watch('chancery_log_stalled_seconds', () => [{ value: read().logStalledSeconds }])
      watch('chancery_database_connections', () => byLabel('state', read().connections))
      watch('chancery_key_sessions', () => {
        const { inUse, waiting } = read().keys
        return byLabel('state', { in_use: inUse, waiting })
      })
      watch('chancery_key_errors_total', () => byLabel('code', read().keys.failures))
      watch('chancery_key_waits_total', () => [{ value: read().keys.waits.count }])
      watch('chancery_key_wait_seconds_total', () => [{ value: read().keys.waits.seconds }])
    },
  }) satisfies Partial<Metrics>

/** Our own CRLs, and those of CAs above. */
const crlMetrics = ({ series, watch }: AllSeries) =>
  ({
    watchCrls: (read) => {
      const watchEach = (name: MetricName, of: (crl: ShelvedCrl) => number): void =>
        watch(name, () =>
          read().map((crl) => ({ labels: { issuer: crl.issuer, shard: String(crl.shard) }, value: of(crl) })),
        )
      watchEach('chancery_crl_revoked', ({ revoked }) => revoked)
      watchEach('chancery_crl_octets', ({ der }) => der.length)
      watchEach('chancery_crl_this_update_timestamp_seconds', ({ thisUpdate }) => secondsOf(thisUpdate))
      watchEach('chancery_crl_next_update_timestamp_seconds', ({ nextUpdate }) => secondsOf(nextUpdate))
    },
    watchImportedCrls: (awaited, revoked) => {
      watch('chancery_imported_crl_next_update_timestamp_seconds', () =>
        awaited().map(({ signer, nextUpdate }) => ({ labels: { signer }, value: secondsOf(nextUpdate) })),
      )
      watch('chancery_issuer_revoked', () => revoked().map((issuer) => ({ labels: { issuer }, value: 1 })))
    },
    watchUnlisted: (read) =>
      watch('chancery_crl_unlisted_seconds', () =>
        read().map(({ issuer, seconds: value }) => ({ labels: { issuer }, value })),
      ),
    crlsFailed: (issuer) => series.chancery_crl_failures_total.inc({ issuer }),
    crlsPublished: (issuer, duration) => series.chancery_crl_publish_seconds.observe({ issuer }, duration),
    issuerMisused: (issuer, at) => series.chancery_issuer_misused_timestamp_seconds.set({ issuer }, secondsOf(at)),
  }) satisfies Partial<Metrics>

const witnessMetrics = ({ watch }: AllSeries) =>
  ({
    watchWitnesses: (read) => {
      const watchEach = (name: MetricName, of: (figures: WitnessFigures) => number | undefined): void =>
        watch(name, () =>
          read().flatMap((figures) => {
            const value = of(figures)
            return value === undefined ? [] : [{ labels: { witness: figures.witness }, value }]
          }),
        )
      watchEach('chancery_witness_cosigned_timestamp_seconds', ({ cosignedAt }) => cosignedAt)
      watchEach('chancery_witness_failures_total', ({ failures }) => failures)
      watchEach('chancery_witness_disagrees', ({ disagrees }) => Number(disagrees))
    },
  }) satisfies Partial<Metrics>

/** Whether this instance can issue, and until when; and which requests wait for approval, which the database knows. */
const readinessMetrics = ({ watch }: AllSeries) => {
  let isDatabaseAway = false
  return {
    checked: (checks) => {
      isDatabaseAway = checks.some(({ name, ok }) => name === 'database' && !ok)
      watch('chancery_check_passed', () =>
        checks.map(({ name, ok }) => ({ labels: { check: name }, value: Number(ok) })),
      )
    },
    watchApprovals: (read) => {
      watch('chancery_approval_requests', () => {
        const { pending, approved } = read()
        return isDatabaseAway ? [] : byLabel('state', { pending, approved })
      })
      watch('chancery_approval_oldest_timestamp_seconds', () => {
        const { oldest } = read()
        return oldest && !isDatabaseAway ? [{ value: secondsOf(oldest) }] : []
      })
    },
    watchOwnCertificate: (read) =>
      watch('chancery_own_certificate_not_after_timestamp_seconds', () => [
        { value: secondsOf(read() ?? new Date(0)) },
      ]),
    watchIssuers: (read) =>
      watch('chancery_issuer_not_after_timestamp_seconds', () =>
        read().map(({ issuer, state, notAfter }) => ({ labels: { issuer, state }, value: secondsOf(notAfter) })),
      ),
  } satisfies Partial<Metrics>
}

const watchEventLoop = ({ watch }: AllSeries): void => {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const read = (nanoseconds: number): number =>
    Number.isFinite(nanoseconds) ? Math.max(0, nanoseconds / 1e9 - 0.01) : 0
  watch('chancery_event_loop_delay_seconds', () => {
    const figures = { 0.5: read(delay.percentile(50)), 0.99: read(delay.percentile(99)), 1: read(delay.max) }
    delay.reset()
    return byLabel('quantile', figures)
  })
}

const byLabel = (label: string, values: Readonly<Record<string, number>>): Sample[] =>
  Object.entries(values).map(([name, value]) => ({ labels: { [label]: name }, value }))

const secondsOf = (time: Date): number => time.getTime() / 1000

interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

interface AllSeries {
  readonly series: { readonly [N in MetricName]: Kinds[(typeof metricTable)[N]['kind']] }
  /** Values that are kept elsewhere, read for each scrape. */
  watch(name: MetricName, read: () => readonly Sample[]): void
}

interface Kinds {
  readonly counter: Counter
  readonly gauge: Gauge
  readonly histogram: Histogram
}

const openSeries = (registry: Registry): AllSeries => {
  const reads = new Map<string, () => readonly Sample[]>()
  const collect = (metric: Counter | Gauge, name: string, isLabelled: boolean): void => {
    const read = reads.get(name)
    if (!read) return
    metric.reset()
    // A reset metric without labels is 0, which is a value as well.
    if (!isLabelled) metric.remove()
    for (const { labels = {}, value } of read()) metric.inc(labels, value)
  }
  const open = (name: string, { kind, help, labels, buckets = [] }: Definition): Counter | Gauge | Histogram => {
    const options = { name, help, labelNames: [...labels], registers: [registry] }
    if (kind === 'histogram') return new Histogram({ ...options, buckets: [...buckets] })
    const Kind = kind === 'counter' ? Counter : Gauge
    const metric: Counter | Gauge = new Kind({ ...options, collect: () => collect(metric, name, labels.length > 0) })
    return metric
  }
  const series = Object.fromEntries(
    Object.entries(metricTable).map(([name, definition]) => [name, open(name, definition)]),
  )
  return { series: series as unknown as AllSeries['series'], watch: (name, read) => void reads.set(name, read) }
}

interface Definition {
  readonly kind: keyof Kinds
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
  chancery_key_waits_total: { kind: 'counter', help: 'Operations that were given a session with a token.', labels: [] },
  chancery_key_wait_seconds_total: {
    kind: 'counter',
    help: 'Time that operations waited for a session with a token.',
    labels: [],
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

type MetricName = keyof typeof metricTable
