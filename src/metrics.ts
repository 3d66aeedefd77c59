/** What Chancery measures, on a registry that is passed in. */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

import { collectDefaultMetrics, type Registry } from 'prom-client'

import type { ApprovalFigures } from './ca/approvals/approvals.ts'
import type { WitnessFigures } from './ca/log/witnesses.ts'
import type { Meter, Stage } from './ca/meter.ts'
import type { ShelvedCrl } from './ca/revocation/crl-cache.ts'
import type { KeyLoad } from './keys/key-load.ts'
import { type AllSeries, openAllSeries, type Series } from './server/metric-series.ts'
import type { GaugeName } from './server/metric-table.ts'

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

/** Registers everything on `registry` and returns what the service writes to. */
export const openMetrics = (registry: Registry): Metrics => {
  collectDefaultMetrics({ register: registry })
  const series = openAllSeries(registry)
  watchEventLoop(series.chancery_event_loop_delay_seconds)
  return {
    registry,
    laps: () => {
      let last = performance.now()
      return (ended) => {
        const now = performance.now()
        series.chancery_stage_seconds.observe((now - last) / 1000, ended)
        last = now
      }
    },
    stage: (stage, duration) => series.chancery_stage_seconds.observe(duration, stage),
    issued: (profile) => series.chancery_issuances_total.add(1, profile, 'issued'),
    refused: (profile, code) => {
      series.chancery_issuances_total.add(1, profile, 'refused')
      series.chancery_refusals_total.add(1, code)
    },
    ...askerSeries(series),
    ended: (profile, outcome) => series.chancery_issuances_total.add(1, profile, outcome),
    batch: (kind, size) => series.chancery_batch_size.observe(size, kind),
    keyOperation: (key, duration, fault) => {
      series.chancery_key_seconds.observe(duration, key)
      if (fault !== undefined) series.chancery_key_faults_total.add(1, key, fault)
    },
    query: (statement, duration, failed) => {
      series.chancery_database_seconds.observe(duration, statement)
      if (failed) series.chancery_database_faults_total.add(1, statement)
    },
    answered: (route, status, duration) => {
      series.chancery_http_requests_total.add(1, route, String(status))
      series.chancery_http_seconds.observe(duration, route)
    },
    socketRefused: (bound) => series.chancery_sockets_refused_total.add(1, bound),
    watch: (gauge, label, read) => series[gauge].watch(read, label),
    watchKeys: (read) => {
      series.chancery_key_errors_total.take(() =>
        Object.entries(read().failures).map(([label, value]) => ({ labels: [label], value })),
      )
      series.chancery_key_wait_seconds.take(() => {
        const { counts, seconds } = read().waits
        return [{ labels: [''], value: seconds, buckets: counts }]
      })
    },
    ...listSeries(series),
    ...witnessSeries(series),
    ...fitnessSeries(series),
    ocspAnswered: (kind) => series.chancery_ocsp_answers_total.add(1, kind),
  }
}

/** Lists of what is revoked: our own, and those of CAs above. */
const listSeries = (series: AllSeries) => {
  const gauges: readonly (readonly [Series, (crl: ShelvedCrl) => number])[] = [
    [series.chancery_crl_revoked, ({ revoked }) => revoked],
    [series.chancery_crl_octets, ({ der }) => der.length],
    [series.chancery_crl_this_update_timestamp_seconds, ({ thisUpdate }) => thisUpdate.getTime() / 1000],
    [series.chancery_crl_next_update_timestamp_seconds, ({ nextUpdate }) => nextUpdate.getTime() / 1000],
  ]
  return {
    watchCrls: (read) => {
      for (const [gauge, of] of gauges)
        gauge.take(() => read().map((crl) => ({ labels: [crl.issuer, String(crl.shard)], value: of(crl) })))
    },
    watchImportedCrls: (awaited, revoked) => {
      series.chancery_imported_crl_next_update_timestamp_seconds.take(() =>
        awaited().map(({ signer, nextUpdate }) => ({ labels: [signer], value: nextUpdate.getTime() / 1000 })),
      )
      series.chancery_issuer_revoked.take(() => revoked().map((issuer) => ({ labels: [issuer], value: 1 })))
    },
    watchUnlisted: (read) =>
      series.chancery_crl_unlisted_seconds.take(() =>
        read().map(({ issuer, seconds: value }) => ({ labels: [issuer], value })),
      ),
    crlsFailed: (issuer) => series.chancery_crl_failures_total.add(1, issuer),
    crlsPublished: (issuer, duration) => series.chancery_crl_publish_seconds.observe(duration, issuer),
  } satisfies Partial<Metrics>
}

const witnessSeries = (series: AllSeries) =>
  ({
    watchWitnesses: (read) => {
      series.chancery_witness_cosigned_timestamp_seconds.take(() =>
        read().flatMap(({ witness, cosignedAt }) =>
          cosignedAt === undefined ? [] : [{ labels: [witness], value: cosignedAt }],
        ),
      )
      series.chancery_witness_failures_total.take(() =>
        read().map(({ witness, failures }) => ({ labels: [witness], value: failures })),
      )
      series.chancery_witness_disagrees.take(() =>
        read().map(({ witness, disagrees }) => ({ labels: [witness], value: disagrees ? 1 : 0 })),
      )
    },
  }) satisfies Partial<Metrics>

/** Who asks: what they have shown, which limits they have reached, and what is known of their tokens. */
const askerSeries = (series: AllSeries) =>
  ({
    authenticated: (kind, outcome) => series.chancery_authentications_total.add(1, kind, outcome),
    keysFetched: (provider, outcome) => series.chancery_jwks_fetches_total.add(1, provider, outcome),
    watchTokens: (read) => {
      series.chancery_tokens_cached.take(() => [{ labels: [''], value: read().verified }])
      series.chancery_jwks_age_seconds.take(() =>
        read().keys.map(({ provider, ageSeconds: value }) => ({ labels: [provider], value })),
      )
    },
    limited: (limit) => series.chancery_limited_total.add(1, limit),
  }) satisfies Partial<Metrics>

/** Whether this instance can issue, and for how long yet; and how many wait until people say so, which the database knows. */
const fitnessSeries = (series: AllSeries) => {
  const misuses = new Map<string, Date>()
  series.chancery_issuer_misused_timestamp_seconds.take(() =>
    [...misuses].map(([issuer, at]) => ({ labels: [issuer], value: at.getTime() / 1000 })),
  )
  const state = { isAway: false }
  return {
    ...approvalSeries(series, () => state.isAway),
    checked: (checks) => {
      state.isAway = checks.some(({ name, ok }) => name === 'database' && !ok)
      series.chancery_check_passed.take(() => checks.map(({ name, ok }) => ({ labels: [name], value: ok ? 1 : 0 })))
    },
    issuerMisused: (issuer, at) => {
      misuses.set(issuer, at)
    },
    watchOwnCertificate: (read) =>
      series.chancery_own_certificate_not_after_timestamp_seconds.take(() => [
        { labels: [''], value: (read()?.getTime() ?? 0) / 1000 },
      ]),
    watchIssuers: (read) =>
      series.chancery_issuer_not_after_timestamp_seconds.take(() =>
        read().map(({ issuer, state, notAfter }) => ({ labels: [issuer, state], value: notAfter.getTime() / 1000 })),
      ),
  } satisfies Partial<Metrics>
}

const approvalSeries = (series: AllSeries, isAway: () => boolean) =>
  ({
    requestEnded: (outcome) => series.chancery_approval_requests_total.add(1, outcome),
    watchApprovals: (read) => {
      series.chancery_approval_requests.take(() => {
        const { pending, approved } = read()
        if (isAway()) return []
        return [
          { labels: ['pending'], value: pending },
          { labels: ['approved'], value: approved },
        ]
      })
      series.chancery_approval_oldest_timestamp_seconds.take(() => {
        const { oldest } = read()
        return oldest && !isAway() ? [{ labels: [''], value: oldest.getTime() / 1000 }] : []
      })
    },
  }) satisfies Partial<Metrics>

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
