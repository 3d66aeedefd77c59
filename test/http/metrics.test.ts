import { Registry } from 'prom-client'
import t from 'tap'

import { noLoad } from '../../src/keys/key-load.ts'
import { metricTable, openMetrics } from '../../src/metrics.ts'

t.test('what only the database knows is not told while it is away', async (t) => {
  const metrics = openMetrics(new Registry())
  metrics.watchApprovals(() => ({ pending: 3, approved: 1, oldest: new Date(0) }))
  const said = /^chancery_approval_(requests\{state="pending"\} 3|oldest_timestamp_seconds 0)$/gm
  const told = async (ok: boolean): Promise<number> => {
    metrics.checked([{ name: 'database', ok }])
    return [...(await metrics.registry.metrics()).matchAll(said)].length
  }
  t.equal(await told(true), 2)
  t.equal(await told(false), 0)
  t.equal(await told(true), 2)
})

t.test('every metric of the table is served, and what was counted comes out', async (t) => {
  const metrics = openMetrics(new Registry())
  metrics.issued('server')
  metrics.issued('server')
  metrics.refused('server', 'san.forbidden')
  metrics.ended('server', 'replayed')
  metrics.authenticated('jwt', 'accepted')
  metrics.authenticated('jwt', 'auth.expired')
  metrics.limited('concurrent')
  metrics.keysFetched('github', 'failed')
  metrics.watchTokens(() => ({ verified: 7, keys: [{ provider: 'github', ageSeconds: 12 }] }))
  metrics.stage('sign', 0.0009)
  metrics.stage('sign', 0.2)
  metrics.stage('sign', 60)
  metrics.laps()('decide')
  metrics.batch('record', 3)
  metrics.keyOperation('default', 0.001)
  metrics.keyOperation('default', 0.001, 'before')
  metrics.query('find_request', 0.002, false)
  metrics.query('find_request', 0.002, true)
  metrics.answered('/v1/certificates', 201, 0.004)
  metrics.socketRefused('address')
  let depth = 1
  const keys = { ...noLoad, failures: { CKR_DEVICE_ERROR: 2 }, waits: { count: 6, seconds: 0.25 } }
  metrics.watchLoads(() => ({ issuance: depth, logStalledSeconds: 0, connections: { open: 5, idle: 4 }, keys }))
  metrics.checked([
    { name: 'clock', ok: false },
    { name: 'key', ok: true },
  ])
  metrics.watchIssuers(() => [{ issuer: 'default', state: 'active', notAfter: new Date('2031-01-01T00:00:00Z') }])
  const text = await metrics.registry.metrics()
  for (const name of Object.keys(metricTable)) t.match(text, `# TYPE ${name} `)
  for (const line of [
    'chancery_issuances_total{profile="server",outcome="issued"} 2',
    'chancery_issuances_total{profile="server",outcome="refused"} 1',
    'chancery_issuances_total{profile="server",outcome="replayed"} 1',
    'chancery_refusals_total{code="san.forbidden"} 1',
    'chancery_authentications_total{credential="jwt",outcome="accepted"} 1',
    'chancery_authentications_total{credential="jwt",outcome="auth.expired"} 1',
    'chancery_limited_total{limit="concurrent"} 1',
    'chancery_jwks_fetches_total{provider="github",outcome="failed"} 1',
    'chancery_jwks_age_seconds{provider="github"} 12',
    'chancery_tokens_cached 7',
    'chancery_check_passed{check="clock"} 0',
    'chancery_check_passed{check="key"} 1',
    'chancery_issuer_not_after_timestamp_seconds{issuer="default",state="active"} 1924992000',
    'chancery_stage_seconds_bucket{le="0.0005",stage="sign"} 0',
    'chancery_stage_seconds_bucket{le="0.001",stage="sign"} 1',
    'chancery_stage_seconds_bucket{le="0.25",stage="sign"} 2',
    'chancery_stage_seconds_bucket{le="10",stage="sign"} 2',
    'chancery_stage_seconds_bucket{le="+Inf",stage="sign"} 3',
    'chancery_stage_seconds_count{stage="sign"} 3',
    'chancery_stage_seconds_count{stage="decide"} 1',
    'chancery_batch_size_bucket{le="4",batch="record"} 1',
    'chancery_key_seconds_count{key="default"} 2',
    'chancery_key_faults_total{key="default",fault="before"} 1',
    'chancery_key_errors_total{code="CKR_DEVICE_ERROR"} 2',
    'chancery_key_waits_total 6',
    'chancery_key_wait_seconds_total 0.25',
    'chancery_database_faults_total{statement="find_request"} 1',
    'chancery_http_requests_total{route="/v1/certificates",status="201"} 1',
    'chancery_sockets_refused_total{bound="address"} 1',
    'chancery_queue_depth{queue="issuance"} 1',
    'chancery_database_connections{state="idle"} 4',
  ]) {
    t.ok(text.split('\n').includes(line), line)
  }
  t.match(text, /chancery_event_loop_delay_seconds\{quantile="0.99"\} 0/)
  t.match(text, /process_resident_memory_bytes \d/)
  depth = 2
  t.match(await metrics.registry.metrics(), 'chancery_queue_depth{queue="issuance"} 2')
})

t.test('a measurement costs less than a microsecond', (t) => {
  const metrics = openMetrics(new Registry())
  const started = process.threadCpuUsage()
  for (let i = 0; i < 100_000; i++) metrics.stage('sign', 0.001)
  const { user, system } = process.threadCpuUsage(started)
  t.ok((user + system) / 100_000 < 1, `${(user + system) / 100_000} µs`)
  t.end()
})
