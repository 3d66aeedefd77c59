/** `chancery serve`: brings up what is missing, serves, and on a signal stops in the reverse order. */
import { existsSync, openSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { flushCompileCache } from 'node:module'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'

import { own } from '../ca/own.ts'
import { type Config, formatAddress, isUnspecified, roleOf } from '../config/config.ts'
import type { Address } from '../config/settings.ts'
import { type Database, openDatabase } from '../db/database.ts'
import { type Embedded, openEmbedded } from '../db/embedded/embedded.ts'
import { sqlState } from '../db/errors.ts'
import { readLastMode } from '../db/log-opening.ts'
import { migrate } from '../db/migrate.ts'
import { writePrivateFile } from '../keys/private-file.ts'
import { openParts } from '../lib/disposer.ts'
import { Failure } from '../lib/failure.ts'
import { makeFolder } from '../lib/fs.ts'
import type { Log } from '../log.ts'
import type { ServerCertificate } from '../server/jobs/own-certificate.ts'
import { openSchedule } from '../server/jobs/schedule.ts'
import { openKeys } from '../server/keys.ts'
import { openService, type Service } from '../server/service.ts'
import { readSettingFiles } from '../server/setting-files.ts'
import { openStores } from '../server/stores.ts'
import { encodePem } from '../x509/pem.ts'
import { bootstrap } from './bootstrap.ts'
import { explainDatabase, explainRecords } from './database-fault.ts'
import { maintain, mayMaintain, migrateFor, settingOf } from './migrate.ts'
import { tellReady } from './notify.ts'
import { unsafe } from './preflight.ts'
import { untilStopped } from './stop.ts'
import { version } from './version.ts'

export interface Serving {
  readonly service: Service
  readonly addresses: { readonly api: string; readonly public: string }
  /** The file with the certificate that callers must trust. */
  readonly anchor: string
  close(): Promise<void>
}

/** Resolves when both listeners answer. Rejects with a sentence, or with why it was stopped, and leaves nothing open. */
export const serve = (config: Config, log: Log, stop?: AbortSignal): Promise<Serving> =>
  openParts(async (parts) => {
    const files = await readSettingFiles(config)
    await makeFolder(config.dataDir, 0o700)
    // Fails before anything else is opened if this account may not read the folder.
    await readdir(config.dataDir)
    const database = await openPostgres(config, log)
    parts.add(database.close)
    if (database.ownerUrl !== undefined) parts.add(await maintainDaily(database.ownerUrl, config, log))
    const stores = await openStores({ config, databaseUrl: database.url, log })
      .catch(explainDatabase({ name: 'CHANCERY_DATABASE_URL', url: database.url }))
      .catch(explainRecords)
    parts.add(stores.close)
    if (config.mode === 'production') await assertSafe(config, stores.db)
    const keys = await openKeys(config, log)
    parts.add(keys.close)
    await bootstrap(stores, keys)
    const anchor = openAnchor(config, log)
    parts.add(openSchedule([anchor.job], log).close)
    const service = await openService(stores, keys, anchor.write, files)
    parts.add(service.close)
    // Node writes it only at an orderly exit: without this, a killed instance would compile all files again at each start.
    flushCompileCache()
    const addresses = await service.listen().catch(explainListen)
    await stores.roll.change(async () => ({
      events: [{ type: 'service.started', version, mode: config.mode }],
      result: undefined,
    }))
    return { service, addresses, anchor: anchor.path(), close: parts.close }
  }, stop)

const explainListen = (error: NodeJS.ErrnoException & { readonly address?: string; readonly port?: number }): never => {
  const { address: host = '', port = 0 } = error
  const fault = listenFaults[error.code ?? '']
  if (fault === undefined) throw error
  throw new Failure('usage', fault(formatAddress({ host, port })))
}

const listenFaults: Readonly<Record<string, (place: string) => string>> = {
  EADDRINUSE: (place) =>
    `Another process listens on ${place}: change CHANCERY_LISTEN or CHANCERY_PUBLIC_LISTEN, or stop it.`,
  EADDRNOTAVAIL: (place) =>
    `This machine has no such address as that of ${place}: change CHANCERY_LISTEN or CHANCERY_PUBLIC_LISTEN.`,
  EACCES: (place) =>
    `This account may not listen on ${place}: change CHANCERY_LISTEN or CHANCERY_PUBLIC_LISTEN, or let it.`,
}

/**
 * Keeps the certificate that callers on this machine must trust beside the data: the root above our own certificate, or
 * a stand-in's own. Where the disk is full it is tried again: the command line here needs it.
 */
const openAnchor = ({ dataDir }: Config, log: Log) => {
  let path = join(dataDir, anchors.root)
  let unwritten: string | undefined
  const put = async (): Promise<void> => {
    const pem = unwritten
    if (pem === undefined) return
    await writePrivateFile(path, pem)
    if (unwritten === pem) unwritten = undefined
  }
  return {
    path: () => path,
    write: async ({ anchor, standIn }: ServerCertificate): Promise<void> => {
      path = join(dataDir, standIn ? anchors.standIn : anchors.root)
      unwritten = encodePem('CERTIFICATE', anchor)
      await put().catch((err: unknown) =>
        log.warn({ event: 'anchor.unwritten', path, err }, 'the trust anchor could not be written, and is tried again'),
      )
    },
    // The failure was logged already.
    job: { name: 'trust-anchor', everyMs: 2_000, run: () => put().catch(() => {}) },
  }
}

const anchors = { root: 'root.pem', standIn: 'stand-in.pem' } as const

/** What settings alone do not show. Throws one message that lists all faults. */
const assertSafe = async (config: Config, db: Database): Promise<void> => {
  const faults = await unsafe(config, db)
  if (faults.length === 0) return
  throw new Failure('usage', ['Production does not start:', ...faults.map((fault) => `  - ${fault}.`)].join('\n'))
}

/**
 * Rejects the records of a production: without CHANCERY_MODE, development would migrate them and add issuers whose keys lie here.
 * Records that do not exist yet, or that this role may not read, pass.
 */
const assertNotProductions = async (
  url: string,
  { database: { preparedStatements } }: Config,
  log: Log,
): Promise<void> => {
  const db = openDatabase({ url, max: 1, log, applicationName: 'chancery', preparedStatements })
  const mode = await readLastMode(db)
    .catch((error: unknown) => {
      if (!['42P01', '42501'].includes(sqlState(error) ?? '')) throw error
    })
    .finally(db.close)
  if (mode !== 'production') return
  throw new Failure(
    'usage',
    'These records are those of a production, as the last instance that served them was started: development would put a root, issuers and profiles of its own into them. Set CHANCERY_MODE=production, or another CHANCERY_DATABASE_URL.',
  )
}

/**
 * What `chancery migrate` does each day in production, where the owner's rights are at hand: now and daily. Resolves to
 * what ends it. A failure is logged and stops nothing: refusals without a partition of their month go to the default one.
 */
const maintainDaily = async (ownerUrl: string, config: Config, log: Log): Promise<() => Promise<void>> => {
  // A development as well may leave the tables to another role, as in docker-compose.yml.
  if (!(await mayMaintain(ownerUrl, config, log).catch(() => true))) {
    log.info({ event: 'maintenance.left' }, 'the tables are another role’s: let "chancery migrate" run each day')
    return async () => {}
  }
  await maintain(ownerUrl, config, log).catch((error: unknown) =>
    log.warn({ event: 'maintenance.failed', err: error }, 'the partitions of refusals could not be kept up'),
  )
  const job = { name: 'maintenance', everyMs: 86_400_000, run: () => maintain(ownerUrl, config, log) }
  return openSchedule([job], log).close
}

/** Serves until a signal. A signal during the start closes what is open by then. */
export const runServe = async (config: Config, log: Log, stop: AbortSignal, logFile?: string): Promise<void> => {
  const asked = untilStopped(stop).then((signal) =>
    log.info({ event: 'service.stopping', signal }, 'answering what was accepted, then stopping'),
  )
  const serving = await serve(config, log, stop).catch((error: unknown) => {
    if (error !== stop.reason) throw error
  })
  setFlagsFromString(collectLessOften)
  if (serving && !stop.aborted) {
    process.stdout.write(summary(config, serving, logFile))
    tellReady(log, stop)
  }
  await asked
  await serving?.close()
  log.info({ event: 'service.stopped' }, 'stopped')
}

/**
 * What outlived its request is collected when the heap has doubled: each collection takes 20 ms out of a second, and those were
 * the slowest percent (39 → 29 ms with collections at half). V8 reads it at each; as a flag from the start on it would be none
 * of those that Node's own code was compiled with, all of which is then compiled anew (100 ms of a start, 70 of a command).
 */
const collectLessOften = '--heap-growing-percent=100'

interface Postgres {
  readonly url: string
  /** Where this process may act as the owner of the tables. */
  readonly ownerUrl?: string
  close(): Promise<void>
}

const openPostgres = async (config: Config, log: Log): Promise<Postgres> => {
  const { url, migrationUrl } = config.database
  if (url === undefined) {
    const embedded: Embedded = await openEmbedded({ dataDir: config.dataDir, log })
    const { servingUrl, ownerUrl } = embedded
    try {
      if (config.mode !== 'production') await assertNotProductions(ownerUrl, config, log)
      await migrate({ ownerUrl, servingRole: roleOf(servingUrl), log })
    } catch (error) {
      await embedded.stop()
      throw error
    }
    return { url: servingUrl, ownerUrl, close: async () => void (await embedded.stop()) }
  }
  // In production the owner's rights are not ours to have while serving: `chancery migrate` comes first.
  if (config.mode === 'production') return { url, close: async () => {} }
  const owner = settingOf(url, config)
  await assertNotProductions(owner.url, config, log).catch(explainDatabase(owner))
  await migrateFor(url, config, log)
  return { url, ownerUrl: migrationUrl ?? url, close: async () => {} }
}

/** How callers reach the API: on every address of the machine, under the first name that its certificate has. */
export const calledAt = (url: string, listen: Address, names: Config['names']): string => {
  if (!isOnEveryAddress(listen)) return url
  const host = names.find(({ value }) => !value.startsWith('*'))?.value ?? 'localhost'
  return url.replace(/(?<=:\/\/).*(?=:\d+$)/, host.includes(':') ? `[${host}]` : host)
}

const isOnEveryAddress = (listen: Address): boolean =>
  isUnspecified(new URL(`http://${formatAddress(listen)}`).hostname)

/** `chancery.log` in the data folder, to append to. */
export const openLogFile = async ({ dataDir }: Config): Promise<{ readonly path: string; readonly fd: number }> => {
  await makeFolder(dataDir, 0o700)
  const path = join(dataDir, 'chancery.log')
  return { path, fd: openSync(path, 'a', 0o600) }
}

/** Fifteen lines at most, unless something needs the operator's attention. */
const summary = (config: Config, { service, addresses, anchor }: Serving, logFile: string | undefined): string => {
  const { dataDir, mode, names, publicListen, publicUrl } = config
  const api = calledAt(addresses.api, config.listen, names)
  // Only the instance that made the first administrator has its token, until the operator moves it away.
  const token = join(dataDir, 'admin.token')
  const hasToken = existsSync(token)
  const lines = [
    `Chancery serves at ${api} (${mode}).`,
    `  CRLs, OCSP, issuers   ${isOnEveryAddress(publicListen) ? publicUrl : addresses.public}`,
    `  API docs              ${api}/docs`,
    `  root certificate      ${anchor}`,
    ...(hasToken ? [`  admin's token         ${token}`] : []),
    ...(logFile === undefined ? [] : [`  log                   ${logFile}`]),
    ...(hasToken && mode === 'development' ? nextText(api, anchor, token) : []),
    ...(anchor.endsWith(anchors.standIn) ? standInText(service) : []),
    ...otherUrlText(service, publicUrl),
  ]
  return `${lines.join('\n')}\n`
}

/** A command for another terminal in the same folder, which need not have the settings of this one. */
const nextText = (api: string, anchor: string, token: string): readonly string[] => {
  const command = process.env['npm_lifecycle_event'] === 'start' ? 'npm run --silent chancery --' : 'chancery'
  const isUsual = api === 'https://127.0.0.1:8443' && token === 'data/admin.token'
  const place = isUsual ? '' : ` --server ${api} --ca ${anchor} --token-file ${token}`
  return [
    'In another terminal, in the same folder, get a first certificate:',
    `  ${command} issue --profile server --name web.example.com --out web${place}`,
    'Ctrl-C stops the service.',
  ]
}

/** An issuer keeps the URL that it was made with, whatever CHANCERY_PUBLIC_URL is set to later. */
const otherUrlText = ({ issuers }: Service, publicUrl: string): readonly string[] =>
  issuers
    .all()
    .filter(({ issuer, state }) => state === 'active' && issuer.publicUrl !== publicUrl)
    .map(
      ({ issuer }) =>
        `The issuer ${issuer.name} writes ${issuer.publicUrl} into certificates, as it was made to: that must lead here. The next one writes ${publicUrl}.`,
    )

/** Why the API is served under a self-signed certificate. */
const standInText = ({ issuers, keyFaults }: Service): readonly string[] => {
  const hasIssuer = issuers.all().some(({ issuer, state }) => issuer.authority === own.authority && state === 'active')
  if (!hasIssuer)
    return [
      'No issuer can sign yet, so it is served under a certificate of its own; docs/ceremonies.md brings an issuer.',
    ]
  const faults = keyFaults()
  return faults.length === 0
    ? ['No certificate could be issued for it yet, as the log tells: it is served under one of its own until then.']
    : [...faults, 'Until its own certificate can be signed it is served under one of its own making.']
}
