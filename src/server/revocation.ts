/**
 * What tells relying parties whether a certificate still holds, put together: revocations, and the lists that follow from
 * them.
 */

import { setTimeout as sleep } from 'node:timers/promises'

import type { Issuance } from '../ca/issuance/issuance.ts'
import { patienceMs } from '../ca/issuance/reconcile.ts'
import { waysUp } from '../ca/issuers/bundle.ts'
import type { Issuers } from '../ca/issuers/issuers.ts'
import type { IssuerRecord } from '../ca/records.ts'
import { openCrlPublisher } from '../ca/revocation/crl.ts'
import { type CrlShelf, openCrlShelf } from '../ca/revocation/crl-cache.ts'
import { type CrlImports, endingText, linksOf, openCrlImports, rootCrlMarginMs } from '../ca/revocation/crl-import.ts'
import { openCrlWatch } from '../ca/revocation/crl-monitor.ts'
import { type MassRevocations, openMassRevocations } from '../ca/revocation/mass-revocation.ts'
import { type Ocsp, openOcsp } from '../ca/revocation/ocsp.ts'
import { openResponders, type Responders } from '../ca/revocation/responders.ts'
import { openRevocations, type Revocations } from '../ca/revocation/revoke.ts'
import { openCrlStore, openImportStore, openShelfStore } from '../db/crls.ts'
import { openLeases } from '../db/leases.ts'
import { readSuccessions } from '../db/log-opening.ts'
import { openMassRevocationStore } from '../db/mass-revocations.ts'
import { openOcspStore } from '../db/ocsp.ts'
import { issuedForReported, openRevocationStore, readCertificateStanding } from '../db/revocations.ts'
import { verifyKeyProof } from '../keys/key-proof.ts'
import { sha256 } from '../lib/sha256.ts'
import type { NextTurn } from '../lib/yield.ts'
import { parseAnchor, parseCertificate } from '../x509/certificate.ts'
import { massRevocationJob } from './jobs/mass-revocation.ts'
import { reportedKeysJob } from './jobs/reported-keys.ts'
import type { Job } from './jobs/schedule.ts'
import { responderCertifier } from './own-certificates.ts'
import type { Stores } from './stores.ts'

export interface Status {
  readonly revocations: Revocations
  readonly massRevocations: MassRevocations
  readonly crls: CrlShelf
  readonly ocsp: Ocsp
  readonly crlImports: CrlImports
  /** Undefined, or why relying parties may soon know nothing. */
  readonly crlFault: () => string | undefined
  /** Undefined, or which lists of offline CAs somebody should bring. */
  readonly crlWarning: () => string | undefined
  /** Publishes the lists that are due. One run at a time. */
  publishCrls(): Promise<void>
  /** Those that take long end soon once it is stopping. */
  jobs(isStopping: () => boolean): readonly Job[]
  /** Whatever is long ends at its next piece. */
  stop(): void
  close(): Promise<void>
}

export const openStatus = async (
  stores: Stores,
  issuers: Issuers,
  issuance: Issuance,
  nextTurn: NextTurn,
): Promise<Status> => {
  const { db, roll, records, dbClock, metrics, config, clock, random, newId, log } = stores
  const leases = openLeases(db, newId())
  let stopping = false
  const shelfStore = openShelfStore(db)
  const crls = openCrlShelf(shelfStore, { damaged: tellDamaged(log) })
  const crlImports = openCrlImports({
    store: openImportStore({ db, roll }),
    links: () => linksOf(issuers.all().map(({ issuer }) => issuer)),
    basePath: new URL(config.publicUrl).pathname,
    clock: dbClock.now,
  })
  await Promise.all([crls.refresh(), crlImports.refresh()])
  metrics.watchCrls(() => [...crls.all()].filter(({ issuer }) => isInUse(issuers, issuer)))
  metrics.watchImportedCrls(crlImports.awaited, () => signersAmong(crlImports.revokedOnEachWay(), issuers))
  const watch = openCrlWatch({
    shelf: crls,
    store: shelfStore,
    issuers,
    clock,
    marginMs: config.crl.validityMs / 8,
  })
  metrics.watchUnlisted(watch.unlisted)
  const publisher = openCrlPublisher({
    store: openCrlStore({ db, roll }),
    issuers,
    times: config.crl,
    successions: await readSuccessions(db),
    clock: dbClock.now,
    assertClock: dbClock.assertSane,
    chance: () => random(4).readUInt32BE() / 2 ** 32,
    sha256,
    nextTurn,
    mayGoOn: async (issuer) => !stopping && (await leases.take(`crls/${issuer}`, leaseMs)),
    elapsedMs: () => performance.now(),
    published: (lists, issuer, milliseconds) => {
      crls.put(lists)
      metrics.crlsPublished(issuer, milliseconds / 1000)
      log.debug({ event: 'crls.published', issuer, lists: lists.length, ms: Math.round(milliseconds) })
    },
    failed: (issuer, err) => {
      metrics.crlsFailed(issuer)
      log.error({ event: 'crls.failed', issuer, err }, 'lists of what is revoked were not published')
    },
  })
  const responders = respondersOf(stores, issuers, issuance)
  const ocsp = openOcsp({
    store: openOcspStore(db, dbClock),
    issuer: (name) => issuers.all().find(({ issuer }) => issuer.name === name)?.issuer,
    responders,
    clock: dbClock.now,
    assertClock: dbClock.assertSane,
    elapsedMs: () => performance.now(),
    cacheOctets: ocspCacheOctets,
    ...config.ocsp,
    failed: sparingly((issuer, err) =>
      log.warn({ event: 'ocsp.failed', issuer, err }, 'questions about certificates are put off'),
    ),
  })
  await ocsp.follow()
  const massRevocations = openMassRevocations({ store: openMassRevocationStore({ db, roll }), changed: ocsp.forget })
  const revocations = openRevocations({
    store: openRevocationStore({ db, roll }),
    keyOf: async (serial) => parseCertificate((await records.certificate(serial)).certificate).facts.spki,
    verifyProof: verifyKeyProof,
    isIssuer: async (serial) => isOfIssuer(await records.issuers(), serial),
    changed: ocsp.forget,
  })
  return {
    publishCrls: publisher.run,
    massRevocations,
    revocations,
    crls,
    ocsp,
    crlImports,
    crlFault: watch.fault,
    crlWarning: () =>
      revokedText(crlImports, issuers) ?? watch.warning() ?? endingText(crlImports.ending(rootCrlMarginMs), clock()),
    jobs: (isStopping) => [
      { name: 'crls', everyMs: 5_000, firstMs: 100, run: publisher.due },
      { name: 'crls-again', everyMs: 5_000, run: publisher.again },
      { name: 'crl-files', everyMs: 1_000, run: () => crls.refresh() },
      { name: 'unlisted', everyMs: 15_000, run: () => watch.look() },
      reportedKeysJob({
        revocations,
        issuedSince: (reported, recorded) => issuedForReported(db, reported, recorded),
        longestMs: patienceMs(config.limits),
      }),
      { name: 'ocsp', everyMs: 500, run: () => ocsp.follow() },
      { name: 'ocsp-responders', everyMs: 60_000, run: () => responders.renew() },
      { name: 'imported-crls', everyMs: 2_000, run: () => crlImports.refresh() },
      massRevocationJob({
        revocations: massRevocations,
        lease: (milliseconds) => leases.take('mass-revocation', milliseconds),
        sleep,
        isStopping,
        log,
      }),
    ],
    stop: () => {
      stopping = true
    },
    close: () => leases.release(),
  }
}

const respondersOf = (stores: Stores, issuers: Issuers, issuance: Issuance): Responders =>
  openResponders({
    certify: responderCertifier(stores, issuance),
    isInUse: (name) => isInUse(issuers, name),
    isRevoked: async (issuer, certificate) => {
      const { facts, tbs } = parseCertificate(certificate)
      const asked = { issuer: issuer.name, serial: facts.serial.toString('hex'), tbs }
      return (await readCertificateStanding(stores.db, asked)) === 'revoked'
    },
    clock: stores.dbClock.now,
  })

const tellDamaged = (log: Stores['log']): ReturnType<typeof sparingly> =>
  sparingly((issuer, err) =>
    log.error(
      { event: 'crls.damaged', issuer, err },
      'a stored CRL cannot be parsed: delete its row of crl_files, and it is made anew',
    ),
  )

/** A crowd of strangers is no reason for a crowd of lines. */
const sparingly = (tell: (issuer: string, error: unknown) => void): typeof tell => {
  const told = new Map<string, number>()
  return (issuer, error) => {
    if (performance.now() - (told.get(issuer) ?? Number.NEGATIVE_INFINITY) < tellEveryMs) return
    told.set(issuer, performance.now())
    tell(issuer, error)
  }
}

/** Those that may sign yet: about one that was halted nothing more is to be done. */
const signersAmong = (names: readonly string[], issuers: Issuers): readonly string[] => {
  const stopped = issuers.all().filter(({ state }) => state === 'crl-only')
  const gone = new Set(stopped.map(({ issuer }) => issuer.name))
  return names.filter((name) => !gone.has(name))
}

const revokedText = (imports: CrlImports, issuers: Issuers): string | undefined => {
  const revoked = signersAmong(imports.revokedOnEachWay(), issuers)
  if (revoked.length > 0) return `a CA above has revoked ${revoked.join(', ')}: halt it, as docs/operations.md tells`
  const cut = signersAmong(imports.revoked(), issuers)
  return cut.length === 0
    ? undefined
    : `a CA above has revoked one of the ways up from ${cut.join(', ')}: bring the others alone with chancery issuer chains`
}

const isInUse = (issuers: Issuers, name: string): boolean => issuers.all().some(({ issuer }) => issuer.name === name)

const isOfIssuer = (issuers: readonly IssuerRecord[], serial: string): boolean =>
  issuers.some((issuer) =>
    [issuer.certificate, ...waysUp(issuer).flat()].some((der) => parseAnchor(der).serial.toString('hex') === serial),
  )

const tellEveryMs = 5_000
const ocspCacheOctets = 16 * 1024 * 1024
/** Who publishes says so again before each slice; who dies is followed after as long. */
const leaseMs = 10_000
