/**
 * What tells relying parties whether a certificate still holds, put together: revocations, and the lists that follow from
 * them.
 */
import { hash } from 'node:crypto'

import { openCrlPublisher } from './ca/crl.ts'
import { type CrlShelf, openCrlShelf } from './ca/crl-shelf.ts'
import { openCrlWatch } from './ca/crl-watch.ts'
import type { Issuers } from './ca/issuers.ts'
import type { IssuerRecord } from './ca/records.ts'
import { openRevocations, type Revocations } from './ca/revoke.ts'
import type { Job } from './jobs/schedule.ts'
import type { Stores } from './service.ts'
import { openCrlStore, openShelfStore } from './store/crls.ts'
import { openLeases } from './store/leases.ts'
import { openRevocationStore } from './store/revocations.ts'
import type { NextTurn } from './turns.ts'
import { parseCertificate } from './x509/certificate.ts'

export interface Status {
  readonly revocations: Revocations
  readonly crls: CrlShelf
  /** Undefined, or why relying parties may soon know nothing. */
  readonly crlFault: () => string | undefined
  readonly jobs: readonly Job[]
  close(): Promise<void>
}

export const openStatus = async (stores: Stores, issuers: Issuers, nextTurn: NextTurn): Promise<Status> => {
  const { db, roll, records, dbClock, metrics, config, clock, random, newId, log } = stores
  const leases = openLeases(db, newId())
  const crls = openCrlShelf(openShelfStore(db))
  await crls.refresh()
  metrics.watchCrls(() => [...crls.all()].filter(({ issuer }) => isInUse(issuers, issuer)))
  const publisher = openCrlPublisher({
    store: openCrlStore({ db, roll }),
    issuers,
    times: config.crl,
    clock: dbClock.now,
    assertClock: dbClock.assertSane,
    chance: () => random(4).readUInt32BE() / 2 ** 32,
    sha256: (octets) => hash('sha256', octets, 'buffer'),
    nextTurn,
    mayGoOn: () => leases.take('crls', leaseMs),
    published: (lists, issuer, milliseconds) => {
      crls.put(lists)
      metrics.crlsPublished(issuer, milliseconds / 1000)
      log.debug({ event: 'crls.published', issuer, lists: lists.length, ms: Math.round(milliseconds) })
    },
    failed: (issuer, err) =>
      log.error({ event: 'crls.failed', issuer, err }, 'lists of what is revoked were not published'),
  })
  return {
    revocations: openRevocations({
      store: openRevocationStore({ db, roll }),
      isIssuer: async (serial) => isOfIssuer(await records.issuers(), serial),
      changed: () => {},
    }),
    crls,
    crlFault: openCrlWatch({ shelf: crls, issuers, clock, marginMs: config.crl.validityMs / 8 }),
    jobs: [
      { name: 'crls', everyMs: 5_000, firstMs: 100, run: () => publisher.run() },
      { name: 'crl-files', everyMs: 1_000, run: () => crls.refresh() },
    ],
    close: () => leases.release(),
  }
}

const isInUse = (issuers: Issuers, name: string): boolean => issuers.all().some(({ issuer }) => issuer.name === name)

const isOfIssuer = (issuers: readonly IssuerRecord[], serial: string): boolean =>
  issuers.some(({ certificate, chain }) =>
    [certificate, ...chain].some((der) => parseCertificate(der).facts.serial.toString('hex') === serial),
  )

/** Who publishes says so again before each slice; who dies is followed after as long. */
const leaseMs = 10_000
