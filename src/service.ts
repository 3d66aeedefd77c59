/**
 * The whole service, put together: everything that varies comes in, everything that was opened is closed in reverse.
 * `chancery serve` and the tests build theirs by this function.
 */
import { hash } from 'node:crypto'
import { availableParallelism } from 'node:os'

import { Registry } from 'prom-client'

import type { Caller } from './ca/access.ts'
import type { Issuance } from './ca/issuance.ts'
import { openIssuance } from './ca/issue.ts'
import { type Issuers, issuersOf, openIssuer } from './ca/issuer.ts'
import type { Meter } from './ca/meter.ts'
import { own } from './ca/own.ts'
import { openHealth } from './ca/readiness.ts'
import { patienceMs, reconcile } from './ca/reconcile.ts'
import { canonicalJson } from './canonical.ts'
import type { Config } from './config.ts'
import { type App, openApp } from './http/app.ts'
import { openPublicApp } from './http/public/app.ts'
import { issueOwnCertificate, type ServerCertificate } from './jobs/own-certificate.ts'
import { openSchedule } from './jobs/schedule.ts'
import { loadBlockLists } from './keys/block-lists.ts'
import type { Keyring } from './keys/keyring.ts'
import { pooledRandom, timeOrderedIds } from './keys/random.ts'
import { openVerifier } from './keys/verifier.ts'
import { openMetrics } from './metrics.ts'
import { canonicalDocument, type Profile, parseProfile } from './policy/profile.ts'
import { encodeEntry, leafInput } from './roll/entries.ts'
import { openAccess } from './store/access.ts'
import { databaseClock } from './store/clock.ts'
import { openDatabase } from './store/database.ts'
import { openRecorder } from './store/issuance.ts'
import { loadIssuers } from './store/issuers.ts'
import { assertMigrated } from './store/migrate.ts'
import { openIntents } from './store/open-intents.ts'
import { openPolicies } from './store/policies.ts'
import { openRecords } from './store/records.ts'
import { type EntryCodec, openRollWriter } from './store/roll.ts'
import type { Log } from './telemetry.ts'
import { openTurns } from './turns.ts'
import { assembleCertificate } from './x509/assemble.ts'
import { parseCertificate, parseTbs } from './x509/certificate.ts'

export interface StoresDeps {
  readonly config: Config
  /** The serving role's. */
  readonly databaseUrl: string
  readonly log: Log
  /** What differs in tests. */
  readonly clock?: () => Date
  readonly random?: (octets: number) => Buffer
  readonly newId?: () => string
}

export interface Service {
  readonly app: App
  readonly publicApp: App
  readonly issuance: Issuance
  readonly issuers: Issuers
  /** Ends open intents now, as the job does; resolves to how many. */
  reconcile(ageMs?: number): Promise<number>
  /** Listens on both addresses; resolves to where. */
  listen(): Promise<{ readonly api: string; readonly public: string }>
  /** Takes nothing new, answers what was accepted, and closes everything. */
  close(): Promise<void>
}

export type Stores = Awaited<ReturnType<typeof openStores>>

/** The stores over one database: what the service and the operator's commands share. */
export const openStores = async (deps: StoresDeps) => {
  const { config, log } = deps
  const clock = deps.clock ?? (() => new Date())
  const random = deps.random ?? pooledRandom()
  const newId = deps.newId ?? timeOrderedIds(clock, random)
  const { poolSize, preparedStatements } = config.database
  const metrics = openMetrics(new Registry())
  const db = openDatabase({
    url: deps.databaseUrl,
    max: poolSize,
    log,
    applicationName: 'chancery',
    preparedStatements,
    observe: metrics.query,
  })
  try {
    await assertMigrated(db)
    const dbClock = databaseClock(clock, config.limits.clockToleranceMs)
    const roll = openRollWriter(db, codec, dbClock)
    const access = openAccess({ db, roll, log, clock, random, newId })
    const parse = (document: unknown, version: number) => parseProfile(document, { version })
    const canonical = (profile: Profile) => canonicalDocument(profile.document)
    const policies = await openPolicies({ db, roll, log, parse, canonical })
    const records = openRecords({ db, codec, namesOf: (der) => parseCertificate(der).facts.names })
    return { metrics, db, dbClock, roll, access, policies, records, clock, random, newId, log, config }
  } catch (error) {
    // An open pool would hold up whoever reads the sentence.
    await db.close().catch(() => {})
    throw error
  }
}

/** Opens the service over stores that were made ready (migrated, with issuers and profiles). */
export const openService = async (stores: Stores, keys: Pick<Keyring, 'open' | 'load'>): Promise<Service> => {
  const { metrics, db, dbClock, roll, access, policies, records, clock, random, newId, log, config } = stores
  const { limits } = config
  const issuers = await openIssuers(stores, keys, metrics)
  const { refusalsPerMinute } = limits
  const recorder = openRecorder({ db, roll, meter: metrics, log, clock, newId, refusalsPerMinute })
  await roll.head()
  // One core is this thread's.
  const verifier = openVerifier(Math.max(1, availableParallelism() - 1), log)
  const issuance = openIssuance({
    recorder,
    policies,
    issuers,
    meter: metrics,
    isBlocked: await loadBlockLists(config.keys.blocked),
    verify: verifier.verify,
    clock,
    random,
    sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    nextTurn: openTurns(5),
    assertClock: dbClock.assertSane,
    limits,
  })

  let stopping = false
  const health = openHealth({
    issuers,
    databaseFault: () => databaseFault(stores),
    clockFault: dbClock.fault,
    queue: () => ({ pending: issuance.pending, bound: limits.queue }),
    isStopping: () => stopping,
  })
  metrics.watch('chancery_queue_depth', 'issuance', () => issuance.pending)
  metrics.watch('chancery_key_sessions', 'in_use', () => keys.load().inUse)
  metrics.watch('chancery_key_sessions', 'waiting', () => keys.load().waiting)
  metrics.watch('chancery_database_connections', 'open', () => db.load.total)
  metrics.watch('chancery_database_connections', 'idle', () => db.load.idle)

  const intents = openIntents(db, roll, (tbs) => parseTbs(tbs).notAfter)
  const endOpen = (ageMs = patienceMs(limits)) => reconcile(intents, ageMs)
  const own = await openOwnCertificate(stores, issuance)
  const http = { log, newId, metrics, records, limits: { queue: limits.queue, connections: limits.connections } }
  const app = await openApp({
    ...http,
    recordRefusal: recorder.recordRefusal,
    issuance,
    policies,
    access,
    health,
    clock,
    tls: own.current(),
  })
  const publicApp = await openPublicApp(http)
  const schedule = openSchedule(
    [
      { name: 'reconcile', everyMs: 2_000, run: () => endOpen() },
      { name: 'keys', everyMs: 1_000, run: () => probeFaulty(issuers) },
      { name: 'clock', everyMs: 5_000, run: () => roll.head() },
      {
        name: 'own-certificate',
        everyMs: 60_000,
        run: () => own.renew((pem) => secureContextOf(app).setSecureContext({ ...tlsBounds, ...pem })),
      },
    ],
    log,
  )

  return {
    app,
    publicApp,
    issuance,
    issuers,
    reconcile: endOpen,
    listen: async () => ({
      api: await app.listen({ ...config.listen }),
      public: await publicApp.listen({ ...config.publicListen }),
    }),
    close: async () => {
      stopping = true
      await Promise.all([app.close(), publicApp.close(), schedule.close()])
      await recorder.drain()
      await recorder.close()
      policies.close()
      await Promise.all(issuers.all().map((issuer) => issuer.key.close()))
      await verifier.close()
      await db.close()
    },
  }
}

/** A key that failed is out of use until it is seen to sign again: nobody else asks. */
const probeFaulty = (issuers: Issuers): Promise<unknown> =>
  Promise.all(
    issuers
      .all()
      .filter(({ fault }) => fault !== undefined)
      .map((issuer) => issuer.probe()),
  )

/** Every issuer that is not retired, each with its key: opened only if the two belong together. */
export const openIssuers = async (
  { db, config }: Stores,
  keys: Pick<Keyring, 'open'>,
  meter: Meter,
): Promise<Issuers> => {
  const rows = (await loadIssuers(db)).filter(({ state }) => state !== 'retired')
  const options = { meter, deadlineMs: config.limits.signingDeadlineMs }
  return issuersOf(await Promise.all(rows.map(async (row) => openIssuer(row, await keys.open(row.keyUri), options))))
}

/** Undefined when records can be written: not a standby, not read-only, and its clock was read. */
const databaseFault = async ({ db, roll }: Stores): Promise<string | undefined> => {
  const { rows } = await db.query<{ readonly: boolean }>(selectReadOnly)
  await roll.head()
  return rows[0]?.readonly === false ? undefined : 'the database is read-only'
}

/** The HTTPS certificate now and its renewal; a failed renewal leaves the old one, and is tried again each minute. */
const openOwnCertificate = async ({ access, policies, config, clock, log }: Stores, issuance: Issuance) => {
  const { principal } = own
  const profile = ownProfileName(config)
  await access.createPrincipal(principal, principal).catch(() => access.readPrincipal(principal))
  const grant = {
    id: 'own',
    principal,
    role: 'requester',
    profiles: [profile],
    names: null,
    createdAt: clock(),
    createdBy: principal,
  } as const
  const caller: Caller = { principal, token: 'own', grants: [grant] }
  const { names } = config
  const issue = async (): Promise<ServerCertificate> => {
    // Whatever has been made of our profile meanwhile: it is ours.
    await policies.put(ownProfile(config, own.authority), principal, {})
    return issueOwnCertificate({ issuance, caller, profile, names })
  }
  let certificate = await issue()
  return {
    current: () => certificate,
    renew: async (install: (pem: ServerCertificate) => void): Promise<void> => {
      if (clock() < certificate.renewAt) return
      certificate = await issue()
      install(certificate)
      log.info({ event: 'own-certificate.renewed', renewAt: certificate.renewAt }, 'renewed our own HTTPS certificate')
    },
  }
}

/** One for each set of names, so that replicas with different names leave each other's alone. */
export const ownProfileName = ({ names }: Pick<Config, 'names'>): string =>
  `${own.profile}-${hash('sha256', canonicalJson(names)).slice(0, 8)}`

/** The profile of our own certificate: exactly the configured names, for a day. */
export const ownProfile = ({ names }: Pick<Config, 'names'>, authority: string): object => {
  const values = (kind: string): string[] => names.filter((name) => name.kind === kind).map((name) => name.value)
  const dns = values('dns')
  const ip = values('ip').map((value) => `${value}/${value.includes(':') ? 128 : 32}`)
  return {
    name: ownProfileName({ names }),
    authority,
    validity: { default: '24h', max: '24h', over: 'refuse', backdate: '5m' },
    keys: [{ ec: ['P-256'] }],
    subject: { others: 'refuse' },
    names: { ...(dns.length > 0 && { dns: { allow: dns } }), ...(ip.length > 0 && { ip: { allow: ip } }) },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  }
}

/** Fastify's types do not tell that this server is an HTTPS one. */
const secureContextOf = (app: App): { setSecureContext(options: ServerCertificate & typeof tlsBounds): void } =>
  app.server as unknown as { setSecureContext(options: ServerCertificate & typeof tlsBounds): void }

export const codec: EntryCodec = {
  entry: (event, time) => {
    const text = encodeEntry(event, time)
    return { text, leafHash: hash('sha256', leafInput(text), 'buffer') }
  },
  certificate: assembleCertificate,
}

/** As in http/app.ts: a new context forgets what the old one was told. */
const tlsBounds = { minVersion: 'TLSv1.2', honorCipherOrder: true } as const

const selectReadOnly = {
  name: 'select_read_only',
  text: `select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as readonly`,
}
