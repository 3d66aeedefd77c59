/**
 * What Chancery measures: every metric in one table, on a registry that is passed in. What lies on the path of a
 * request adds to plain arrays and costs tens of nanoseconds; prom-client only reads them when somebody asks.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

import { collectDefaultMetrics, type Registry } from 'prom-client'

import type { ApprovalFigures } from './ca/approvals.ts'
import type { ShelvedCrl } from './ca/crl-shelf.ts'
import type { Meter, Stage } from './ca/meter.ts'
import type { WitnessFigures } from './ca/witnesses.ts'
import { type KeyLoad, waitBounds } from './keys/key-load.ts'

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
  /** A number that is looked up when somebody asks: pool sizes, queue depths. */
  watch(gauge: GaugeName, label: string, read: () => number): void
  /** What is counted where the keys are, and looked up as well. */
  watchKeys(read: () => KeyLoad): void
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

type Kind = 'counter' | 'gauge' | 'histogram'

interface Definition {
  readonly kind: Kind
  readonly help: string
  readonly labels: readonly string[]
  readonly buckets?: readonly number[]
}

const seconds = [
  0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]
const sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]

/** Every metric of our own. docs/operations.md names them; the process's and Node's defaults come beside them. */
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

/** Registers everything on `registry` and returns what the service writes to. */
export const openMetrics = (registry: Registry): Metrics => {
  collectDefaultMetrics({ register: registry })
  const series = (name: MetricName): Series => openSeries(registry, name)
  const issuances = series('chancery_issuances_total')
  const refusals = series('chancery_refusals_total')
  const stages = series('chancery_stage_seconds')
  const batches = series('chancery_batch_size')
  const keys = series('chancery_key_seconds')
  const keyFaults = series('chancery_key_faults_total')
  const keyErrors = series('chancery_key_errors_total')
  const keyWaits = series('chancery_key_wait_seconds')
  const statements = series('chancery_database_seconds')
  const statementFaults = series('chancery_database_faults_total')
  const requests = series('chancery_http_requests_total')
  const refusedSockets = series('chancery_sockets_refused_total')
  const answers = series('chancery_http_seconds')
  const gauges = {
    chancery_database_connections: series('chancery_database_connections'),
    chancery_key_sessions: series('chancery_key_sessions'),
    chancery_log_stalled_seconds: series('chancery_log_stalled_seconds'),
    chancery_queue_depth: series('chancery_queue_depth'),
  }
  const crlGauges: readonly [Series, (crl: ShelvedCrl) => number][] = [
    [series('chancery_crl_revoked'), ({ revoked }) => revoked],
    [series('chancery_crl_octets'), ({ der }) => der.length],
    [series('chancery_crl_this_update_timestamp_seconds'), ({ thisUpdate }) => thisUpdate.getTime() / 1000],
    [series('chancery_crl_next_update_timestamp_seconds'), ({ nextUpdate }) => nextUpdate.getTime() / 1000],
  ]
  const unlisted = series('chancery_crl_unlisted_seconds')
  const crlFailures = series('chancery_crl_failures_total')
  const ocspAnswers = series('chancery_ocsp_answers_total')
  const cosigned = series('chancery_witness_cosigned_timestamp_seconds')
  const witnessFailures = series('chancery_witness_failures_total')
  const disagreements = series('chancery_witness_disagrees')
  const crlTimes = series('chancery_crl_publish_seconds')
  watchEventLoop(series('chancery_event_loop_delay_seconds'))
  return {
    registry,
    laps: () => {
      let last = performance.now()
      return (ended) => {
        const now = performance.now()
        stages.observe((now - last) / 1000, ended)
        last = now
      }
    },
    stage: (stage, duration) => stages.observe(duration, stage),
    issued: (profile) => issuances.add(1, profile, 'issued'),
    refused: (profile, code) => {
      issuances.add(1, profile, 'refused')
      refusals.add(1, code)
    },
    ...openAskers(series),
    ended: (profile, outcome) => issuances.add(1, profile, outcome),
    batch: (kind, size) => batches.observe(size, kind),
    keyOperation: (key, duration, fault) => {
      keys.observe(duration, key)
      if (fault !== undefined) keyFaults.add(1, key, fault)
    },
    query: (statement, duration, failed) => {
      statements.observe(duration, statement)
      if (failed) statementFaults.add(1, statement)
    },
    answered: (route, status, duration) => {
      requests.add(1, route, String(status))
      answers.observe(duration, route)
    },
    socketRefused: (bound) => refusedSockets.add(1, bound),
    watch: (gauge, label, read) => gauges[gauge].watch(read, label),
    watchKeys: (read) => {
      keyErrors.take(() => Object.entries(read().failures).map(([label, value]) => ({ labels: [label], value })))
      keyWaits.take(() => {
        const { counts, seconds } = read().waits
        return [{ labels: [''], value: seconds, buckets: counts }]
      })
    },
    watchCrls: (read) => {
      for (const [gauge, of] of crlGauges)
        gauge.take(() => read().map((crl) => ({ labels: [crl.issuer, String(crl.shard)], value: of(crl) })))
    },
    watchWitnesses: (read) => {
      cosigned.take(() =>
        read().flatMap(({ witness, cosignedAt }) =>
          cosignedAt === undefined ? [] : [{ labels: [witness], value: cosignedAt }],
        ),
      )
      witnessFailures.take(() => read().map(({ witness, failures }) => ({ labels: [witness], value: failures })))
      disagreements.take(() =>
        read().map(({ witness, disagrees }) => ({ labels: [witness], value: disagrees ? 1 : 0 })),
      )
    },
    ...importedCrlSeries(series),
    ...fitnessSeries(series),
    watchUnlisted: (read) =>
      unlisted.take(() => read().map(({ issuer, seconds: value }) => ({ labels: [issuer], value }))),
    crlsFailed: (issuer) => crlFailures.add(1, issuer),
    ocspAnswered: (kind) => ocspAnswers.add(1, kind),
    crlsPublished: (issuer, duration) => crlTimes.observe(duration, issuer),
  }
}

const importedCrlSeries = (series: (name: MetricName) => Series): Pick<Metrics, 'watchImportedCrls'> => {
  const ends = series('chancery_imported_crl_next_update_timestamp_seconds')
  const revokedIssuers = series('chancery_issuer_revoked')
  return {
    watchImportedCrls: (awaited, revoked) => {
      ends.take(() =>
        awaited().map(({ signer, nextUpdate }) => ({ labels: [signer], value: nextUpdate.getTime() / 1000 })),
      )
      revokedIssuers.take(() => revoked().map((issuer) => ({ labels: [issuer], value: 1 })))
    },
  }
}

/** Who asks: what they have shown, which limits they have reached, and what is known of their tokens. */
const openAskers = (
  series: (name: MetricName) => Series,
): Pick<Metrics, 'authenticated' | 'keysFetched' | 'watchTokens' | 'limited'> => {
  const authentications = series('chancery_authentications_total')
  const keyFetches = series('chancery_jwks_fetches_total')
  const keyAges = series('chancery_jwks_age_seconds')
  const tokens = series('chancery_tokens_cached')
  const limits = series('chancery_limited_total')
  return {
    authenticated: (kind, outcome) => authentications.add(1, kind, outcome),
    keysFetched: (provider, outcome) => keyFetches.add(1, provider, outcome),
    watchTokens: (read) => {
      tokens.take(() => [{ labels: [''], value: read().verified }])
      keyAges.take(() => read().keys.map(({ provider, ageSeconds: value }) => ({ labels: [provider], value })))
    },
    limited: (limit) => limits.add(1, limit),
  }
}

/** Whether this instance can issue, and for how long yet; and how many wait until people say so, which the database knows. */
const fitnessSeries = (
  series: (name: MetricName) => Series,
): Pick<
  Metrics,
  'checked' | 'watchIssuers' | 'watchOwnCertificate' | 'requestEnded' | 'watchApprovals' | 'issuerMisused'
> => {
  const misuses = new Map<string, Date>()
  series('chancery_issuer_misused_timestamp_seconds').take(() =>
    [...misuses].map(([issuer, at]) => ({ labels: [issuer], value: at.getTime() / 1000 })),
  )
  const passed = series('chancery_check_passed')
  const ends = series('chancery_issuer_not_after_timestamp_seconds')
  const ownEnd = series('chancery_own_certificate_not_after_timestamp_seconds')
  const state = { isAway: false }
  return {
    ...approvalSeries(series, () => state.isAway),
    checked: (checks) => {
      state.isAway = checks.some(({ name, ok }) => name === 'database' && !ok)
      passed.take(() => checks.map(({ name, ok }) => ({ labels: [name], value: ok ? 1 : 0 })))
    },
    issuerMisused: (issuer, at) => {
      misuses.set(issuer, at)
    },
    watchOwnCertificate: (read) => ownEnd.take(() => [{ labels: [''], value: (read()?.getTime() ?? 0) / 1000 }]),
    watchIssuers: (read) =>
      ends.take(() =>
        read().map(({ issuer, state, notAfter }) => ({ labels: [issuer, state], value: notAfter.getTime() / 1000 })),
      ),
  }
}

const approvalSeries = (
  series: (name: MetricName) => Series,
  isAway: () => boolean,
): Pick<Metrics, 'requestEnded' | 'watchApprovals'> => {
  const open = series('chancery_approval_requests')
  const oldestOpen = series('chancery_approval_oldest_timestamp_seconds')
  const total = series('chancery_approval_requests_total')
  return {
    requestEnded: (outcome) => total.add(1, outcome),
    watchApprovals: (read) => {
      open.take(() => {
        const { pending, approved } = read()
        if (isAway()) return []
        return [
          { labels: ['pending'], value: pending },
          { labels: ['approved'], value: approved },
        ]
      })
      oldestOpen.take(() => {
        const { oldest } = read()
        return oldest && !isAway() ? [{ labels: [''], value: oldest.getTime() / 1000 }] : []
      })
    },
  }
}

interface Series {
  add(amount: number, first: string, second?: string): void
  observe(value: number, label: string): void
  watch(read: () => number, label: string): void
  /** What is counted elsewhere, all of it, looked up when somebody asks. */
  take(read: () => readonly Counted[]): void
}

interface Counted {
  readonly labels: readonly [string, string?]
  readonly value: number
  readonly buckets?: readonly number[]
}

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
  readonly metricName?: string
}

interface Cell {
  readonly labels: Readonly<Record<string, string>>
  value: number
  /** For histograms: how many fell into each bucket, and beyond the last. */
  readonly buckets: Float64Array
  count: number
  read?: () => number
}

/** One metric with all its label values. The number of those is bounded: a label never comes from outside unchecked. */
const openSeries = (registry: Registry, name: MetricName): Series => {
  const { kind, help, labels, buckets = [] }: Definition = metricTable[name]
  const cells = new Map<string, Cell>()
  let counted: (() => readonly Counted[]) | undefined
  const cellOf = (first: string, second?: string): Cell => {
    const key = second === undefined ? first : `${first}\n${second}`
    const known = cells.get(key)
    if (known) return known
    const [labelOne, labelTwo = 'label'] = labels
    if (cells.size >= (counted ? maxCounted : maxCells) && first !== overflow)
      return cellOf(overflow, second === undefined ? undefined : overflow)
    const cell = {
      labels: {
        ...(labelOne !== undefined && { [labelOne]: first }),
        ...(second !== undefined && { [labelTwo]: second }),
      },
      value: 0,
      buckets: new Float64Array(buckets.length + 1),
      count: 0,
    }
    cells.set(key, cell)
    return cell
  }
  const samples = (): Sample[] => {
    // What is not there any more is not told any more.
    if (counted) cells.clear()
    for (const { labels, value, buckets = [] } of counted?.() ?? []) {
      const cell = cellOf(...labels)
      cell.value = value
      cell.buckets.set(buckets)
      cell.count = buckets.reduce((sum, count) => sum + count, 0)
    }
    return [...cells.values()].flatMap((cell) => samplesOf(name, cell, kind === 'histogram' ? buckets : undefined))
  }
  // prom-client asks a metric only for this when it writes or reads a registry.
  const metric = {
    name,
    help,
    type: kind,
    aggregator: 'sum',
    get: async () => ({ name, help, type: kind, aggregator: 'sum', values: samples() }),
  }
  registry.registerMetric(metric as unknown as Parameters<Registry['registerMetric']>[0])
  return {
    add: (amount, first, second) => {
      cellOf(first, second).value += amount
    },
    observe: (value, label) => {
      const cell = cellOf(label)
      let i = 0
      while (i < buckets.length && value > (buckets[i] ?? 0)) i += 1
      cell.buckets[i] = (cell.buckets[i] ?? 0) + 1
      cell.value += value
      cell.count += 1
    },
    watch: (read, label) => {
      cellOf(label).read = read
    },
    take: (read) => {
      counted = read
    },
  }
}

const samplesOf = (name: string, cell: Cell, buckets: readonly number[] | undefined): Sample[] => {
  const { labels } = cell
  if (!buckets) return [{ labels, value: cell.read ? cell.read() : cell.value }]
  let below = 0
  const counted = buckets.map((le, i) => {
    below += cell.buckets[i] ?? 0
    return { labels: { ...labels, le }, value: below, metricName: `${name}_bucket` }
  })
  return [
    ...counted,
    { labels: { ...labels, le: '+Inf' }, value: cell.count, metricName: `${name}_bucket` },
    { labels, value: cell.value, metricName: `${name}_sum` },
    { labels, value: cell.count, metricName: `${name}_count` },
  ]
}

const watchEventLoop = (series: Series): void => {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const read = (nanoseconds: number): number =>
    Number.isFinite(nanoseconds) ? Math.max(0, nanoseconds / 1e9 - 0.01) : 0
  series.watch(() => read(delay.percentile(50)), '0.5')
  series.watch(() => read(delay.percentile(99)), '0.99')
  series.watch(() => {
    const max = read(delay.max)
    delay.reset()
    return max
  }, '1')
}

const maxCells = 2_000
/** Of what is our own: the lists of 128 shards of a hundred issuers. */
const maxCounted = 12_800
const overflow = 'other'
