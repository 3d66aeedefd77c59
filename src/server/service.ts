/**
 * The whole service, put together: everything that varies comes in, everything that was opened is closed in reverse.
 * `chancery serve` and the tests build theirs by this function.
 */

import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SecureContextOptions } from 'node:tls'

import type { Health } from '../ca/health.ts'
import type { Issuance } from '../ca/issuance/issuance.ts'
import { openIssuance } from '../ca/issuance/issue.ts'
import { patienceMs, reconcile } from '../ca/issuance/reconcile.ts'
import type { Recorder } from '../ca/issuance/recorder.ts'
import type { Issuers } from '../ca/issuers/issuers.ts'
import type { IssuerLife } from '../ca/issuers/life.ts'
import { openRecovery } from '../ca/issuers/recovery.ts'
import type { Checkpoints } from '../ca/log/checkpoints.ts'
import type { Witnesses } from '../ca/log/witnesses.ts'
import type { Config } from '../config/config.ts'
import { openApprovalStore } from '../db/approvals.ts'
import { openRecorder } from '../db/issuance.ts'
import { openIntents } from '../db/open-intents.ts'
import { openTiles, rootReader } from '../db/tree.ts'
import { openApp } from '../http/app.ts'
import { tlsBounds } from '../http/bounds.ts'
import type { App } from '../http/fastify.ts'
import { openPublicApp } from '../http/public/app.ts'
import type { Keyring } from '../keys/keyring.ts'
import { openVerifier, type Verifier } from '../keys/verifier.ts'
import { openParts, type Parts } from '../lib/disposer.ts'
import { openTurns } from '../lib/yield.ts'
import { parseTbs } from '../x509/certificate.ts'
import type { KeyBlockList } from '../x509/keys.ts'
import { type ApprovalSide, openApprovalSide } from './approvals.ts'
import { type ClientSide, openClientSide } from './authentication.ts'
import { codec } from './codec.ts'
import { issuerLifeOf, openKeyed } from './issuers.ts'
import type { ServerCertificate } from './jobs/own-certificate.ts'
import { type Job, openSchedule } from './jobs/schedule.ts'
import { type LimitSide, openLimitSide } from './limits.ts'
import { openRollSide } from './log.ts'
import { socketsFor } from './open-files.ts'
import { openOwnCertificate } from './own-certificates.ts'
import { healthOf } from './readiness.ts'
import { openStatus, type Status } from './revocation.ts'
import { readSettingFiles, type SettingFiles } from './setting-files.ts'
import type { Stores } from './stores.ts'

export interface Service {
  readonly app: App
  readonly publicApp: App
  readonly issuance: Issuance
  readonly issuers: Issuers
  /** Whose keys cannot be used now, and why: of active issuers, and of the roll. Sentences. */
  keyFaults(): readonly string[]
  /** Ends open intents now, as the job does; resolves to how many. */
  reconcile(ageMs?: number): Promise<number>
  /** Publishes the lists of what is revoked that are due, as the job does. */
  publishCrls(): Promise<void>
  /** Asks witnesses for cosignatures, as the job does. */
  askWitnesses(): Promise<void>
  /** Listens on both addresses; resolves to where. */
  listen(): Promise<{ readonly api: string; readonly public: string }>
  /** Takes nothing new, answers what was accepted, and closes everything. */
  close(): Promise<void>
}

/**
 * Opens the service over stores that were made ready (migrated, with issuers and profiles). Where it throws, the stores are left
 * open, and nothing else; closing it closes them as well.
 */
export const openService = (
  stores: Stores,
  keys: Pick<Keyring, 'open' | 'create' | 'load'>,
  /** Told of our own certificate, and of each that replaces it. */
  told: (certificate: ServerCertificate) => Promise<void> = async () => {},
  /** Where they were read before. */
  files?: SettingFiles,
): Promise<Service> =>
  openParts(async (parts) => {
    const { db, roll, config } = stores
    const { isBlocked, anchors } = files ?? (await readSettingFiles(config))
    const cycle = await openCycle(stores, keys, isBlocked, parts)
    const { issuers, verifier, checkpoints, witnesses, issuance, approval } = cycle
    const status = await openStatus(stores, issuers, issuance, openTurns())
    parts.add(() => unlessAway(status.close()))
    let stopping = false
    const health = healthOf(stores, { issuers, issuance, status, checkpoints, witnesses, isStopping: () => stopping })
    watchLoads(stores, issuance, keys)

    const intents = openIntents(db, roll, (tbs) => parseTbs(tbs).notAfter)
    const endOpen = (ageMs = patienceMs(config.limits)) => reconcile(intents, ageMs)
    const recover = openRecovery(issuers)
    const own = await openOwnCertificate(stores, issuance, recover)
    await told(own.current())
    const clients = openClientSide(stores, { issuers, verifier, anchors, crlImports: status.crlImports })
    const limiting = await openLimitSide(stores)
    parts.add(() => unlessAway(limiting.close()))
    const issuerLife = issuerLifeOf(stores, keys, issuers, { ...cycle, revoked: status.crlImports.revokedOnEachWay })
    // They answer what was accepted at the same time, and while whatever runs periodically ends.
    const faces: { close(): PromiseLike<unknown> }[] = []
    parts.add(() => Promise.all(faces.map((face) => face.close())))
    const { app, publicApp } = await openFaces(
      stores,
      { ...cycle, status, health, clients, limiting, issuerLife, own },
      (face) => faces.push(face),
    )
    const install = (renewed: ServerCertificate): Promise<void> => {
      secureContextOf(app).setSecureContext({ ...tlsBounds, ...clients.tls, ...pairOf(renewed) })
      return told(renewed)
    }
    faces.push(
      openSchedule(
        [
          ...[...standingJobs({ endOpen, recover, issuers, checkpoints, witnesses }), ...status.jobs(() => stopping)],
          ...[...clients.jobs, ...limiting.jobs, approval.job, renewalJob(own, install)],
        ],
        stores.log,
      ),
    )
    return {
      app,
      publicApp,
      issuance,
      issuers,
      keyFaults: () => keyFaults(cycle),
      reconcile: endOpen,
      publishCrls: status.publishCrls,
      askWitnesses: witnesses.ask,
      listen: async () => ({
        api: await app.listen(placeOf(config.listen)),
        public: await publicApp.listen(placeOf(config.publicListen)),
      }),
      close: async () => {
        stopping = true
        status.stop()
        await parts.close().finally(stores.close)
      },
    }
  })

const keyFaults = ({ issuers, rollKeyFault }: Pick<Cycle, 'issuers' | 'rollKeyFault'>): readonly string[] => {
  const ofRoll = rollKeyFault()
  return [
    ...issuers
      .all()
      .filter(({ issuer, state }) => state === 'active' && issuer.fault !== undefined)
      .map(({ issuer }) => `The key of the issuer ${issuer.name} cannot be used: ${issuer.fault}`),
    ...(ofRoll === undefined ? [] : [`The key of the roll cannot be used: ${ofRoll}`]),
  ].map((text) => (text.endsWith('.') ? text : `${text}.`))
}

/** For localhost, Fastify would open a second server for ::1, with neither our bounds nor a certificate that was renewed. */
const placeOf = ({ host, port }: Config['listen']) => ({ port, host: host === 'localhost' ? '127.0.0.1' : host })

/** What is left to others in the database is theirs after a while anyway. */
const unlessAway = (left: Promise<unknown>): Promise<unknown> => left.catch(() => {})

interface FacesParts extends Cycle {
  readonly status: Status
  readonly health: Health
  readonly clients: ClientSide
  readonly limiting: LimitSide
  readonly issuerLife: IssuerLife
  readonly own: Own
}

/** Both applications, each of which `opened` is told of: the second may not open. */
const openFaces = async (
  { db, policies, access, accesses, providers, records, clock, newId, log, metrics, config }: Stores,
  { recorder, issuance, approval, checkpoints, status, health, clients, limiting, issuerLife, own }: FacesParts,
  opened: (app: App) => unknown,
): Promise<Pick<Service, 'app' | 'publicApp'>> => {
  const tiles = openTiles(db, records.events)
  const connections = socketsFor({ ...config.limits, ...config.database }, log)
  const http = { log, newId, metrics, records, accesses, limits: { ...config.limits, connections } }
  const app = await openApp({
    ...http,
    rootAt: rootReader(db, codec.hasher),
    recordRefusal: recorder.recordRefusal,
    issuance,
    policies,
    access,
    ...clients.calls,
    ...limiting.http,
    providers,
    issuerLife,
    revocations: status.revocations,
    massRevocations: status.massRevocations,
    approvals: approval.approvals,
    crlImports: status.crlImports,
    checkpoints,
    tiles,
    health,
    clock,
    tls: { ...clients.tls, ...pairOf(own.current()) },
  })
  opened(app)
  const publicApp = await openPublicApp({
    ...http,
    clock,
    crls: status.crls,
    ocsp: status.ocsp,
    crlImports: status.crlImports,
    ...(config.roll.isPublic && { roll: { checkpoints, tiles } }),
  })
  opened(publicApp)
  return { app, publicApp }
}

interface Standing {
  readonly endOpen: () => Promise<unknown>
  readonly recover: () => Promise<unknown>
  readonly issuers: Issuers
  readonly checkpoints: Checkpoints
  readonly witnesses: { readonly ask: () => Promise<unknown> }
}

const standingJobs = ({ endOpen, recover, issuers, checkpoints, witnesses }: Standing): readonly Job[] => [
  { name: 'reconcile', everyMs: 500, run: () => endOpen() },
  { name: 'keys', everyMs: 1_000, run: recover },
  { name: 'issuers', everyMs: 1_000, run: () => issuers.refresh() },
  { name: 'roll', everyMs: 1_000, run: () => checkpoints.follow() },
  { name: 'witnesses', everyMs: 5_000, firstMs: 0, run: witnesses.ask },
]

type Own = Awaited<ReturnType<typeof openOwnCertificate>>

const renewalJob = (own: Own, install: (renewed: ServerCertificate) => Promise<void>): Job => ({
  name: 'own-certificate',
  everyMs: 2_000,
  run: () => own.renew(install),
})

interface Cycle {
  readonly issuers: Issuers
  readonly verifier: Verifier
  readonly checkpoints: Checkpoints
  readonly witnesses: Witnesses
  readonly rollKeyFault: () => string | undefined
  readonly recorder: Recorder
  readonly issuance: Issuance
  readonly approval: ApprovalSide
}

/** All that issues. */
const openCycle = async (
  stores: Stores,
  keys: Pick<Keyring, 'open'>,
  isBlocked: KeyBlockList,
  parts: Parts,
): Promise<Cycle> => {
  const { db, roll, turnedDown, policies, metrics, config, clock, random, newId, dbClock, log } = stores
  const { limits } = config
  const issuers = await openKeyed(stores, keys, metrics)
  parts.add(issuers.close)
  metrics.watchIssuers(() =>
    issuers.all().map(({ issuer: { name, bounds }, state }) => ({ issuer: name, state, notAfter: bounds.notAfter })),
  )
  // One core is this thread's.
  const verifier = openVerifier(Math.max(1, availableParallelism() - 1), log)
  parts.add(verifier.close)
  const { checkpoints, witnesses, keyFault: rollKeyFault, close: closeRoll } = await openRollSide(stores, keys)
  parts.add(closeRoll)
  metrics.watchWitnesses(witnesses.figures)
  const { sign } = checkpoints
  const recorder = openRecorder({ db, dbClock, roll, turnedDown, meter: metrics, log, clock, newId, sign, ...limits })
  parts.add(() => recorder.drain().finally(recorder.close))
  const store = openApprovalStore({ db, roll, newId, proposed: () => metrics.requestEnded('created') })
  const issuance = openIssuance({
    recorder,
    approvals: store,
    policies,
    issuers,
    meter: metrics,
    isBlocked,
    verify: verifier.verify,
    clock,
    random,
    sleep,
    nextTurn: openTurns(),
    assertClock: dbClock.assertSane,
    checkpoints,
    limits,
  })
  const approval = openApprovalSide(stores, { store, issuance, issuers })
  parts.add(() => unlessAway(approval.close()))
  return { issuers, verifier, checkpoints, witnesses, rollKeyFault, recorder, issuance, approval }
}

/** What is looked up when somebody asks for metrics. */
const watchLoads = ({ metrics, db, log }: Stores, issuance: Issuance, keys: Pick<Keyring, 'load'>): void => {
  metrics.watchLoads(() => ({
    issuance: issuance.pending,
    logStalledSeconds: log.stalledSeconds?.() ?? 0,
    connections: { open: db.load.total, idle: db.load.idle },
    keys: keys.load(),
  }))
}

type PemPair = Pick<ServerCertificate, 'key' | 'cert'>

const pairOf = ({ key, cert }: PemPair): PemPair => ({ key, cert })

/** Fastify's types do not tell that this server is an HTTPS one. */
const secureContextOf = (app: App): { setSecureContext(options: PemPair & SecureContextOptions): void } =>
  app.server as unknown as { setSecureContext(options: PemPair & SecureContextOptions): void }
